"""Time of a plan with two runs in parallel, relative to one run at a time; results must be the same bytes.

    python benchmarks/jobs.py --rounds 2
    python benchmarks/jobs.py --rounds 1 --ray
    python benchmarks/jobs.py --method cpsc --method noise --seeds 0-1 --budget smoke

Each round executes the whole plan with `--jobs 1` and with `--jobs 2` (in alternating order), with one thread per run
and separate folders; with --ray a third time, on a Ray cluster of two nodes with one core each. The script prints the
seconds of the whole command, including the start of workers, the ratio of each round, and whether every `result` is the
same byte for byte.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "helpers"))  # for ray_nodes

from dfkd_bench.runs import records


def carry_out(plan: list[str], results: Path, *engine: str) -> float:
    """Seconds of the command that executes `plan` below `results`."""
    command = [sys.executable, "-m", "dfkd_bench", "run", *plan, "--results", str(results), "--quiet", *engine]
    begun = time.monotonic()
    subprocess.run(command, check=True)
    return time.monotonic() - begun


def results_of(root: Path) -> dict[str, str]:
    """The `result` of each run below `root`, as text, by the run's folder."""
    paths = sorted(root.rglob(records.FILE))
    return {str(path.parent.relative_to(root)): records.canonical(records.read(path)["result"]) for path in paths}


def main() -> int:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--method", action="append")
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("--budget", default="smoke")
    parser.add_argument("--ray", action="store_true", help="also on two Ray nodes of one core each")
    options = parser.parse_args()
    methods = [word for name in options.method or ["all"] for word in ("--method", name)]
    plan = [*methods, "--seeds", options.seeds, "--budget", options.budget, "--threads", "1", "--device", "cpu"]
    times: dict[str, list[float]] = {}
    first: dict[str, str] = {}
    wrong = 0
    with ExitStack() as stack:
        engines = {"jobs 1": ("--jobs", "1"), "jobs 2": ("--jobs", "2")}
        if options.ray:
            from ray_nodes import cluster

            made, _ = stack.enter_context(cluster(2))
            engines["ray"] = ("--engine", "ray", "--address", made.address)
        for number in range(options.rounds):
            for name in list(engines) if number % 2 == 0 else reversed(list(engines)):
                with tempfile.TemporaryDirectory() as folder:
                    seconds = carry_out(plan, Path(folder), *engines[name])
                    results = results_of(Path(folder))
                times.setdefault(name, []).append(seconds)
                first = first or results
                same = sum(results.get(key) == value for key, value in first.items())
                wrong += len(first) - same + len(results.keys() - first.keys())
                print(f"round {number}, {name}: {seconds:.1f} s, {same} of {len(first)} results identical", flush=True)
    for name in list(engines)[1:]:
        ratios = [seconds / one for seconds, one in zip(times[name], times["jobs 1"], strict=True)]
        print(f"{name} / jobs 1: {statistics.median(ratios):.3f} (median of {[round(r, 3) for r in ratios]}), "
              f"load now {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")  # fmt: skip
    print("every result is the same, byte for byte" if not wrong else f"FAILED: {wrong} results differ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
