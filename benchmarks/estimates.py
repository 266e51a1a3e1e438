"""What `plan --estimate` says of a plan against what the plan then takes.

    python benchmarks/estimates.py --method noise --method cpsc --seeds 0 --budget quick --threads 1
    python benchmarks/estimates.py --rounds 3 --method cmi --budget smoke --threads 1 --seeds 0-1 --jobs 2

Words are those of `plan` and `run`, but for --results: each round is estimated and then run in an empty folder, so that
no record is there to tell. Printed are the seconds of the whole command as estimated and as they were, their ratio, and
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

Seconds = dict[tuple[str, str], float]  # of a run, by task and method


def command(word: str, words: list[str], results: Path) -> str:
    """What the command prints."""
    line = [sys.executable, "-m", "dfkd_bench", word, *words, "--results", str(results)]
    return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True).stdout


def estimated(words: list[str], results: Path) -> tuple[float, Seconds]:
    """Seconds of the command `run` with worker processes or without, and of each kind of run."""
    costs, walls = command("plan", [*words, "--estimate", "--format", "csv"], results).strip().split("\n\n")
    runs = {(row["task"], row["method"]): float(row["seconds"]) for row in csv.DictReader(costs.splitlines())}
    (wall,) = csv.DictReader(walls.splitlines())
    return 3600.0 * float(wall["local_hours"]), runs


def taken(words: list[str], results: Path) -> tuple[float, Seconds]:
    """The same of the plan carried out; a kind of run takes the median over its seeds."""
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
            said, said_runs = estimated(words, Path(folder))
            was, was_runs = taken(words, Path(folder))
        ratios.append(said / was)
        print(f"round {number}: estimated {said:.1f} s, taken {was:.1f} s, ratio {said / was:.2f}", flush=True)
        for (task, method), seconds in was_runs.items():
            there = said_runs[task, method]
            print(f"  {method} on {task}: {there:.1f} s, {seconds:.1f} s, {there / seconds:.2f}", flush=True)
    if options.rounds > 1:
        print(f"median of the ratios: {statistics.median(ratios):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
