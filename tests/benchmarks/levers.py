"""One table of all levers of speed on CPU: every method's steps, each lever off and on, and the floor beside them.

    python tests/benchmarks/levers.py --rounds 5 --threads 1                       # every method on the default task
    python tests/benchmarks/levers.py --method cpsc --networks wrn40_2-wrn16_2 --batch 32 --rounds 5 --threads 1

For each method it takes what `dfkd-bench profile --levers` and `profile --floor` take, on the same job, inner loops as
short as the method has them in the smallest budget, and prints a line for each kind of step: milliseconds with all
levers off and with those of fp32 on, off/on (of the same round, median over rounds), each lever's own off/on, that of
bf16 on top, the floor (the step's own convolutions and matrix products, one by one, alone), and how far from it the
step is before and after. `--csv FILE` keeps the numbers.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import sys
from pathlib import Path
from typing import Any

import torch

from dfkd_bench.cli.profile import networks, prepare
from dfkd_bench.plugins.registry import card, entries, load, resolve
from dfkd_bench.profiling.roofline import floors
from dfkd_bench.profiling.speedups import ALWAYS, ROUND, TOGETHER, Levers, measure
from dfkd_bench.protocol import DEFAULT_TASK
from dfkd_bench.report.markdown import table
from dfkd_bench.runs.spec import settled
from dfkd_bench.training.dry_run import job_for
from dfkd_bench.utils.timing import clock_for

SHORT = {  # a lever's name as the head of a column
    "weights without gradients": "weights",
    "moments only where asked": "moments",
    "BatchNorm in few passes": "passes",
    "channels_last": "layout",
}
HEADERS = (
    "method", "step", "ms before", "ms after", "before/after", *SHORT.values(), "bf16 on top", "floor ms",
    "before/floor", "after/floor",
)  # fmt: skip


def lines(method: str, options: argparse.Namespace) -> list[list[str]]:
    """A line for each kind of step of a method, and one for its whole round."""
    asked = {**vars(options), "precision": "fp32", "compiled": False, "device": "cpu", "preset": None, "overrides": ()}
    chosen = networks(asked, options.task)
    spec, entry, mentor = prepare(method, chosen, asked)
    own, smoke = dict(spec.settings), card(entry).budget_settings.get("smoke", {})
    short = {name: min(n, own[name]) for name, n in smoke.items() if type(n) is int}
    spec = dataclasses.replace(spec, settings=settled(own | short))

    def build(levers: Levers) -> Any:
        precision = "bf16" if levers.bf16 else "fp32"
        return job_for(dataclasses.replace(spec, precision=precision), entry, mentor, chosen, stand_in=True)

    rows = measure(build, ("bf16",), options.rounds)
    floor = {f.step: f for f in floors(build(Levers()), options.rounds)}
    found = []
    for step in dict.fromkeys(row.step for row in rows):
        by = {row.lever: row for row in rows if row.step == step}
        whole, alone = by[TOGETHER], [f"{by[name].ratio:.2f}" for name in ALWAYS]
        beside = ["", "", ""]
        if step != ROUND:
            ms = floor[step].floor_ms
            beside = [f"{ms:.1f}", f"{floor[step].ratio * whole.ratio:.2f}", f"{floor[step].ratio:.2f}"]
        numbers = [
            f"{whole.off:.1f}",
            f"{whole.on:.1f}",
            f"{whole.ratio:.2f}",
            *alone,
            f"{by['bf16, on top'].ratio:.2f}",
        ]
        found.append([method, step, *numbers, *beside])
    return found


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", action="append", default=[], help="default: all; repeatable")
    parser.add_argument("--task", default=DEFAULT_TASK)
    parser.add_argument("--networks", default=None, metavar="TEACHER-STUDENT", help="random weights instead of a task")
    parser.add_argument("--shape", default="3x32x32")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--batch", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--csv", type=Path, default=None)
    options = parser.parse_args()
    assert list(SHORT) == list(ALWAYS), "a lever without a column"
    found = []
    for method in options.method or list(entries()):
        if options.networks and load(resolve(method)).privileges.real_data:
            print(f"{method}: needs real data, which --networks does without", file=sys.stderr)
            continue
        print(method, end=" ", file=sys.stderr, flush=True)
        found += lines(method, options)
    print(file=sys.stderr)
    if options.csv:
        with options.csv.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([HEADERS, *found])
    where = options.networks or options.task
    batch = f"batch {options.batch}, " if options.batch else ""
    clock = clock_for(torch.device("cpu"))[1]
    print(f"{where}, {batch}cpu, {options.threads} thread(s), {options.rounds} rounds, ms of {clock}\n")
    print("\n".join(table(HEADERS, found, ("method", "step"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
