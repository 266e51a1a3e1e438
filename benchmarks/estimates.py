"""Compare the seconds estimated by `plan --estimate` with the seconds that the plan takes.

    python benchmarks/estimates.py --method noise --method cpsc --seeds 0 --budget quick --threads 1
    python benchmarks/estimates.py --rounds 3 --method cmi --budget smoke --threads 1 --seeds 0-1 --jobs 2

Options are those of `plan` and `run`, except --results: each round is estimated and then run in an empty folder, so
that no record can be used. The script prints the estimated and the real seconds of the whole command, their ratio, and
the same for each run.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from dfkd_bench.profiling.estimate.recorded import whole_seconds
from dfkd_bench.runs import records
from dfkd_bench.utils.text import method_label

Seconds = dict[tuple[str, str], float]  # seconds of a run, by task and method


def command(word: str, words: list[str], results: Path) -> str:
    """The output of the command."""
    line = [sys.executable, "-m", "dfkd_bench", word, *words, "--results", str(results)]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


def estimated(words: list[str], results: Path) -> tuple[float, Seconds]:
    """Estimated seconds of the command `run`, and of one run of each task and method."""
    costs, walls = command("plan", [*words, "--estimate", "--format", "csv"], results).strip().split("\n\n")
    runs = {(row["task"], row["method"]): float(row["seconds"]) for row in csv.DictReader(costs.splitlines())}
    (wall,) = csv.DictReader(walls.splitlines())
    return 3600.0 * float(wall["local_hours"]), runs


def measured(words: list[str], results: Path) -> tuple[float, Seconds]:
    """The same, measured; medians over seeds."""
    begun = time.monotonic()
    command("run", [*words, "--quiet"], results)
    wall = time.monotonic() - begun
    runs: dict[tuple[str, str], list[float]] = {}
    for record in records.read_all(results):
        runs.setdefault((record["spec"]["task"], method_label(record["spec"])), []).append(whole_seconds(record))
    return wall, {key: statistics.median(values) for key, values in runs.items()}


def main() -> int:
    """Parse, estimate, run, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    options, words = parser.parse_known_args()
    ratios = []
    for number in range(options.rounds):
        with tempfile.TemporaryDirectory() as folder:
            estimate, estimates = estimated(words, Path(folder))
            real, times = measured(words, Path(folder))
        ratios.append(estimate / real)
        print(f"round {number}: estimated {estimate:.1f} s, taken {real:.1f} s, ratio {ratios[-1]:.2f}", flush=True)
        for (task, method), seconds in times.items():
            expected = estimates[task, method]
            print(f"  {method} on {task}: {expected:.1f} s, {seconds:.1f} s, {expected / seconds:.2f}", flush=True)
    if options.rounds > 1:
        print(f"median of the ratios: {statistics.median(ratios):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
