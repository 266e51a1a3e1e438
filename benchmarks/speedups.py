"""Effect of each speedup: steps of every method with it off and on, and their distance from the roofline.

    python benchmarks/speedups.py --rounds 5 --threads 1                          # every method on the default task
    python benchmarks/speedups.py --method cpsc --networks wrn40_2-wrn16_2 --batch 32 --rounds 5 --threads 1
    python benchmarks/speedups.py --method cpsc --with bf16,compile --device cuda

Other options are those of `dfkd-bench profile`. All settings are timed in every round. Columns, for each kind of step:
milliseconds with all fp32 speedups off and on; off/on (of the same round, median over rounds); off/on of each speedup
while the others are on; off/on of those of `--with` (default bf16; empty: none), each in addition to all before it;
then the convolutions and matrix products of the step alone (`roofline.py`), and the step relative to them with fp32
speedups off and on. `--csv FILE` writes the numbers.

In a run all of them are on, except bf16 and compile. Only this script switches them off, with a wrapper around the
networks of a job.
"""

from __future__ import annotations

import argparse
import csv
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import torch
from roofline import floors
from subject import Subject, clock_for, subject
from torch import Tensor, nn

from dfkd_bench.blocks.precision import at_least_fp32
from dfkd_bench.method import Moments, Outputs
from dfkd_bench.models import tapped
from dfkd_bench.models.tapped import Tapped, Trace
from dfkd_bench.plugins.registry import entries, load, resolve
from dfkd_bench.report.markdown import table
from dfkd_bench.training.context import NetworkView
from dfkd_bench.training.loop import Job, synthesise, train_student
from dfkd_bench.utils.timing import timed

ROUND = "whole round"
TOGETHER = "all of fp32"
Milliseconds = dict[str, float]  # of one round: per synthesis step, per student step, and the round


@dataclass(frozen=True)
class Setting:
    """Which speedups are on. The defaults are those of a run without options."""

    frozen: bool = True  # no gradients for the teacher's weights, nor for the student's in synthesis steps
    moments: bool = True  # BatchNorm moments only if requested
    passes: bool = True  # frozen BatchNorm, and moments, in as few passes as possible (CPU)
    channels_last: bool = True  # off: networks and images in torch's default memory layout
    bf16: bool = False
    compiled: bool = False


ON = Setting()
OFF = Setting(frozen=False, moments=False, passes=False, channels_last=False)
ALWAYS: dict[str, Setting] = {
    "weights": replace(ON, frozen=False),
    "moments": replace(ON, moments=False),
    "passes": replace(ON, passes=False),
    "layout": replace(ON, channels_last=False),
}
OPTIONAL = {"bf16": "bf16", "compile": "compiled"}  # value of --with -> field; each in addition to those before


@dataclass(frozen=True)
class Row:
    """One kind of step with a speedup off and on: median milliseconds, and off/on of the same round."""

    speedup: str
    step: str
    off: float
    on: float
    ratio: float  # median over rounds
    price: float = 0.0  # seconds of compiling, before the first round; only in rows of whole rounds

    @property
    def even(self) -> float:
        """Rounds after which the price is saved; infinite if no time is saved."""
        return 1000.0 * self.price / (self.off - self.on) if self.on < self.off else math.inf


def comparisons(optional: Sequence[str]) -> list[tuple[str, Setting, Setting]]:
    """Name, setting off and setting on of each comparison. `optional`: keys of `OPTIONAL`."""
    pairs = [(name, off, ON) for name, off in ALWAYS.items()]
    pairs.append((TOGETHER, OFF, ON))
    best = ON
    for word, field in OPTIONAL.items():
        if word in optional:
            better = replace(best, **{field: True})
            pairs.append((f"{word} on top", best, better))
            best = better
    return pairs


def measure(build: Callable[[Setting], Job], optional: Sequence[str], rounds: int) -> list[Row]:
    """Time every setting in each round, so that disturbances affect all settings.

    `build` makes a job with a setting's precision, compiled or not, always from the same state. One round before the
    first is not counted; two with compiled steps.
    """
    pairs = comparisons(optional)
    settings = list(dict.fromkeys(setting for _, off, on in pairs for setting in (on, off)))
    jobs = {setting: switched(build(setting), setting) for setting in settings}
    times: dict[Setting, list[Milliseconds]] = {setting: [] for setting in settings}
    warmup: dict[Setting, float] = dict.fromkeys(settings, 0.0)  # seconds of the rounds that are not counted
    for k in range(-2 if "compile" in optional else -1, rounds):
        shift = k % len(settings)  # another setting is the first in each round
        for setting in settings[shift:] + settings[:shift]:
            begun = time.perf_counter()  # wall time: compilers use other processes
            milliseconds = one_round(jobs[setting], k)
            if k >= 0:
                times[setting].append(milliseconds)
            else:
                warmup[setting] += time.perf_counter() - begun
    table_rows = []
    for name, off, on in pairs:
        price = warmup[on] - warmup[off] if on.compiled and not off.compiled else 0.0
        for row in rows(name, times[off], times[on]):
            table_rows.append(replace(row, price=price if row.step == ROUND else 0.0))
    return table_rows


def one_round(job: Job, k: int) -> Milliseconds:
    """Round `k` of `job`, timed by kind of step."""
    job.context.streams.reseed(k)
    flags, device = job.method.flags, job.context.device
    clock, _ = clock_for(device)
    synthesis = timed(lambda: synthesise(job), device, clock) if flags.synthesis_steps else 0.0
    student = timed(lambda: train_student(job), device, clock)
    for network in (views(job)[0]._module, job.student):
        network.zero_grad()  # unused gradients must not accumulate over rounds
    parts = {"synthesis": synthesis / flags.synthesis_steps} if flags.synthesis_steps else {}
    return {**parts, "student": student / flags.student_steps, ROUND: synthesis + student}


def rows(speedup: str, off: Sequence[Milliseconds], on: Sequence[Milliseconds]) -> list[Row]:
    """A row for each kind of step, from times of the same rounds with the speedup off and on."""
    by_step = []
    for step in on[0]:
        before, after = [t[step] for t in off], [t[step] for t in on]
        ratio = statistics.median(a / b for a, b in zip(before, after, strict=True))
        by_step.append(Row(speedup, step, statistics.median(before), statistics.median(after), ratio))
    return by_step


# -- switching off ----------------------------------------------------------------------------------------------------


def switched(job: Job, setting: Setting) -> Job:
    """Switch off the speedups of `job` that are off in `setting`. Changes the job."""
    if setting.frozen and setting.moments and setting.passes and setting.channels_last:
        return job
    teacher, student = views(job)
    teacher._module = WithoutSpeedups(teacher._module, setting, moments=not setting.moments)
    student._module = WithoutSpeedups(student._module, setting, moments=False)
    job.student = student._module
    if not setting.frozen:
        teacher._module.requires_grad_(True)
    if not setting.channels_last:
        owned = [m for m in job.context.registered.values() if isinstance(m, nn.Module)]
        for network in (teacher._module, job.student, *owned, *job.context.companions.values()):
            network.to(memory_format=torch.contiguous_format)
    return job


def views(job: Job) -> tuple[NetworkView, NetworkView]:
    """The views of teacher and student that method and loop use."""
    teacher, student = job.context.teacher, job.context.student
    assert isinstance(teacher, NetworkView)
    assert isinstance(student, NetworkView)
    return teacher, student


class WithoutSpeedups(Tapped):
    """A network with speedups off, around the real one. `moments`: always compute BatchNorm moments."""

    def __init__(self, network: Tapped, setting: Setting, moments: bool) -> None:
        super().__init__()
        self.network, self.setting, self.moments = network, setting, moments
        self.tap_names, self.raw_taps, self.feature_dim = network.tap_names, network.raw_taps, network.feature_dim

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """The real network's trace."""
        return self.network.trace(x, t)

    def observe(self, x: Tensor, taps: tuple[str, ...] = (), moments: bool = False) -> Outputs:
        """The real network's outputs, computed with the work that a speedup saves."""
        x = x if self.setting.channels_last else x.contiguous()  # the layout of the images determines all others
        with nullcontext() if self.setting.passes else patch.object(tapped, "normalise", normalise_in_many_passes):
            outputs = self.network.observe(x, taps, moments or self.moments)
        return outputs if moments else Outputs(outputs.logits, outputs.taps)

    def requires_grad_(self, requires_grad: bool = True) -> WithoutSpeedups:
        """Always with gradients if `setting.frozen` is off."""
        super().requires_grad_(requires_grad or not self.setting.frozen)
        return self


def normalise_in_many_passes(layer: nn.BatchNorm2d, x: Tensor, observed: bool) -> tuple[Tensor, Moments | None]:
    """The results of `tapped.normalise`, in many passes."""
    moments = two_pass_moments(x) if observed else None
    y: Tensor = layer(x)
    return y, moments


def two_pass_moments(x: Tensor) -> Moments:
    """Mean and biased variance of x (n, c, ...) over all axes but c, in separate passes, the variance from a copy."""
    with torch.autocast(x.device.type, enabled=False):
        x = at_least_fp32(x)
        by_channel = x.transpose(0, 1).contiguous().flatten(1)
        return x.mean([d for d in range(x.dim()) if d != 1]), by_channel.var(1, correction=0)


def lines(what: Subject, optional: Sequence[str]) -> tuple[list[list[str]], list[Row]]:
    """The table's lines of a method, one for each kind of step and one for the whole round; and rows with a price."""

    def build(setting: Setting) -> Job:
        precision = "bf16" if setting.bf16 else "fp32"
        return what.make(replace(what.spec, precision=precision, compile=setting.compiled))

    measured = measure(build, optional, what.rounds)
    limit = {f.step: f for f in floors(build(ON), what.rounds)}
    cells = []
    for step in dict.fromkeys(row.step for row in measured):
        by = {row.speedup: row for row in measured if row.step == step}
        whole = by.pop(TOGETHER)
        floor = ["", "", ""]
        if step in limit:
            ratio = limit[step].ratio
            floor = [f"{limit[step].floor_ms:.1f}", f"{ratio * whole.ratio:.2f}", f"{ratio:.2f}"]
        numbers = [
            f"{whole.off:.1f}",
            f"{whole.on:.1f}",
            f"{whole.ratio:.2f}",
            *(f"{r.ratio:.2f}" for r in by.values()),
        ]
        cells.append([what.method, step, *numbers, *floor])
    return cells, [row for row in measured if row.price]


def main() -> int:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", action="append", help="default: all; repeatable")
    parser.add_argument("--with", dest="optional", default="bf16", metavar="WORDS")
    parser.add_argument("--csv", type=Path)
    options, words = parser.parse_known_args()
    optional = [word for word in options.optional.split(",") if word]
    if set(optional) - OPTIONAL.keys():
        parser.error(f"--with takes {' and '.join(OPTIONAL)}, got {options.optional}")
    names = [name for name, _, _ in comparisons(optional) if name != TOGETHER]
    headers = (
        "method",
        "step",
        "ms before",
        "ms after",
        "before/after",
        *names,
        "floor ms",
        "before/floor",
        "after/floor",
    )
    table_lines: list[list[str]] = []
    for method in options.method or entries():
        if "--networks" in words and load(resolve(method)).privileges.real_data:
            print(f"{method}: needs real data, and --networks has none", file=sys.stderr)
            continue
        print(method, file=sys.stderr)
        what = subject(method, words)
        cells, priced = lines(what, optional)
        table_lines += cells
        for row in priced:
            print(f"{method}: {row.price:.0f} s of compiling, saved again after {row.even:.0f} rounds", file=sys.stderr)
    print(f"{what.title}, ms of {clock_for(torch.device(what.spec.device))[1]}\n")
    print("\n".join(table(headers, table_lines, ("method", "step"))))
    if options.csv:
        with options.csv.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([headers, *table_lines])
    return 0


if __name__ == "__main__":
    sys.exit(main())
