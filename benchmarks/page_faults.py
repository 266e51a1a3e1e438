"""What keeping freed memory saves: the same run with glibc's usual ways and with the bench's, in turn.

    python benchmarks/page_faults.py --rounds 5
    python benchmarks/page_faults.py --method dafl --budget standard --threads 2

Each round starts two processes, the order turning; the usual ways are had by a variable that leaves them to the user.
Printed are CPU seconds (user and system), page faults and peak memory of both, and their ratios' medians.
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
LEFT_ALONE = {"MALLOC_ARENA_TEST": "8"}  # glibc's own value: changes nothing, but that the bench changes nothing


def measure(words: list[str], more: dict[str, str]) -> tuple[float, float, float]:
    """CPU seconds, page faults, and peak memory in MiB of one run."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", SCRIPT, "run", *words, "--quiet", "--results", folder]
        done = subprocess.run(command, env=os.environ | more, check=True, capture_output=True, text=True)
    seconds, faults, peak = map(float, done.stdout.split())
    return seconds, faults, peak / 1024


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--method", default="cpsc")
    parser.add_argument("--budget", default="quick")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    words = ["--method", given.method, "--budget", given.budget, "--threads", str(given.threads), "--device", "cpu"]
    pairs = []
    for k in range(given.rounds):
        ways = [("usual", LEFT_ALONE), ("kept", {})]
        found = {name: measure(words, more) for name, more in (ways if k % 2 == 0 else reversed(ways))}
        pairs.append((found["usual"], found["kept"]))
        print(*(f"{name}: {s:.1f} s CPU, {f:.0f} faults, {m:.0f} MiB" for name, (s, f, m) in found.items()), sep="; ")
    for k, what in enumerate(("CPU seconds", "page faults", "peak memory")):
        ratios = [usual[k] / kept[k] for usual, kept in pairs]
        print(f"{what}, usual / kept: {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
