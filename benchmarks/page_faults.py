"""CPU seconds and page faults saved by keeping freed memory: the same run with glibc's defaults and with the package's.

    python benchmarks/page_faults.py --rounds 5
    python benchmarks/page_faults.py --method dafl --budget standard --threads 2

Each round starts two processes in alternating order; an environment variable makes the package keep glibc's defaults.
The script prints CPU seconds (user and system), page faults and peak memory of both, and medians of their ratios.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile

SCRIPT = """
import resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "dfkd_bench", *sys.argv[1:]])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(used.ru_utime + used.ru_stime, used.ru_minflt, used.ru_maxrss)
sys.exit(done.returncode)
"""
GLIBC_DEFAULTS = {"MALLOC_ARENA_TEST": "8"}  # glibc's default value; a set variable makes the package change nothing


def measure(words: list[str], variables: dict[str, str]) -> tuple[float, float, float]:
    """CPU seconds, page faults, and peak memory in MiB of one run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SCRIPT, "run", *words, "--quiet", "--results", folder]
        done = subprocess.run(command, env=os.environ | variables, check=True, capture_output=True, text=True)
    seconds, faults, peak = map(float, done.stdout.split())
    return seconds, faults, peak / 1024


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--method", default="cpsc")
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    plan = ["--method", options.method, "--budget", options.budget, "--threads", str(options.threads)]
    words = [*plan, "--device", "cpu"]
    pairs = []
    for k in range(options.rounds):
        cases = [("usual", GLIBC_DEFAULTS), ("kept", {})]
        runs = {name: measure(words, variables) for name, variables in (cases if k % 2 == 0 else reversed(cases))}
        pairs.append((runs["usual"], runs["kept"]))
        print(*(f"{name}: {s:.1f} s CPU, {f:.0f} faults, {m:.0f} MiB" for name, (s, f, m) in runs.items()), sep="; ")
    for k, what in enumerate(("CPU seconds", "page faults", "peak memory")):
        ratios = [usual[k] / kept[k] for usual, kept in pairs]
        print(f"{what}, usual / kept: {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
