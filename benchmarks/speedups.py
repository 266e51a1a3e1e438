"""What each speedup brings on its own: every method's steps with it off and on, and how far they are from the roofline.

    python benchmarks/speedups.py --rounds 5 --threads 1                          # every method on the default task
    python benchmarks/speedups.py --method cpsc --networks wrn40_2-wrn16_2 --batch 32 --rounds 5 --threads 1
    python benchmarks/speedups.py --method cpsc --with bf16,compile --device cuda

Other words are options of `dfkd-bench profile`. All settings are timed in every round, in turn. A line for each kind of
step: milliseconds with all speedups off and with those of fp32 on, off/on (of the same round, median over rounds), each
one's own off/on while the others are on, and those of `--with` (bf16 by default, none for an empty text), each on top
of all before it; then the convolutions and matrix products of the step alone (`roofline.py`), and how far from them it
is before and after. `--csv FILE` keeps the numbers.

A run always has all of them on but bf16 and compile. They are switched off here alone, by a wrapper around the networks
of a job that is already put together: neither loop nor networks know of it.
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

    frozen: bool = True  # no gradients for the teacher's weights, none for the student's in synthesis steps
    moments: bool = True  # BatchNorm moments only where they are asked for
    passes: bool = True  # BatchNorm that learns nothing, and moments, in as few passes as there can be (CPU)
    channels_last: bool = True  # off: every network and the images it sees in torch's default layout
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
OPTIONAL = {"bf16": "bf16", "compile": "compiled"}  # word of --with -> field; each on top of those before


@dataclass(frozen=True)
class Row:
    """One kind of step with a speedup off and on: median milliseconds, and off/on of the same round."""

    speedup: str
    step: str
    off: float
    on: float
    ratio: float  # median over rounds
    price: float = 0.0  # seconds that switching it on took before the first round; of compiling, in whole rounds alone

    @property
    def even(self) -> float:
        """Rounds after which the price is paid back; infinite where nothing is saved."""
        return 1000.0 * self.price / (self.off - self.on) if self.on < self.off else math.inf


def comparisons(optional: Sequence[str]) -> list[tuple[str, Setting, Setting]]:
    """What is compared: name, off and on. Each of `optional` (words of `OPTIONAL`) comes on top of all before it."""
    found = [(name, off, ON) for name, off in ALWAYS.items()]
    found.append((TOGETHER, OFF, ON))
    best = ON
    for word, field in OPTIONAL.items():
        if word in optional:
            better = replace(best, **{field: True})
            found.append((f"{word} on top", best, better))
            best = better
    return found


def measure(build: Callable[[Setting], Job], optional: Sequence[str], rounds: int) -> list[Row]:
    """Time every setting in each round, so that what disturbs one disturbs all.

    `build` makes a job of a setting's precision, compiled or not, always from the same state. One round before the
    first is not counted, with compiled steps two.
    """
    pairs = comparisons(optional)
    settings = list(dict.fromkeys(setting for _, off, on in pairs for setting in (on, off)))
    jobs = {setting: switched(build(setting), setting) for setting in settings}
    times: dict[Setting, list[Milliseconds]] = {setting: [] for setting in settings}
    before: dict[Setting, float] = dict.fromkeys(settings, 0.0)  # seconds of the rounds that are not counted
    for k in range(-2 if "compile" in optional else -1, rounds):
        shift = k % len(settings)  # none is always the first
        for setting in settings[shift:] + settings[:shift]:
            begun = time.perf_counter()  # wall: compilers work in processes of their own
            taken = one_round(jobs[setting], k)
            if k >= 0:
                times[setting].append(taken)
            else:
                before[setting] += time.perf_counter() - begun
    found = []
    for name, off, on in pairs:
        price = before[on] - before[off] if on.compiled and not off.compiled else 0.0
        found += [replace(row, price=price if row.step == ROUND else 0.0) for row in rows(name, times[off], times[on])]
    return found


def one_round(job: Job, k: int) -> Milliseconds:
    """Round `k` of `job`, timed by kind of step."""
    job.context.streams.reseed(k)
    flags, device = job.method.flags, job.context.device
    clock, _ = clock_for(device)
    synthesis = timed(lambda: synthesise(job), device, clock) if flags.synthesis_steps else 0.0
    student = timed(lambda: train_student(job), device, clock)
    for network in (views(job)[0]._module, job.student):
        network.zero_grad()  # gradients that nobody wants must not add up over the rounds
    parts = {"synthesis": synthesis / flags.synthesis_steps} if flags.synthesis_steps else {}
    return {**parts, "student": student / flags.student_steps, ROUND: synthesis + student}


def rows(speedup: str, off: Sequence[Milliseconds], on: Sequence[Milliseconds]) -> list[Row]:
    """A row for each kind of step, from the times of the same rounds with the speedup off and on."""
    found = []
    for step in on[0]:
        before, after = [t[step] for t in off], [t[step] for t in on]
        ratio = statistics.median(a / b for a, b in zip(before, after, strict=True))
        found.append(Row(speedup, step, statistics.median(before), statistics.median(after), ratio))
    return found


# -- switching off ----------------------------------------------------------------------------------------------------


def switched(job: Job, setting: Setting) -> Job:
    """Switch those speedups of the networks off in `job` that `setting` has off; the job itself is changed."""
    if setting.frozen and setting.moments and setting.passes and setting.channels_last:
        return job
    teacher, student = views(job)
    teacher._module = Slowed(teacher._module, setting, lean=setting.moments)
    student._module = Slowed(student._module, setting, lean=True)
    job.student = student._module
    if not setting.frozen:
        teacher._module.requires_grad_(True)
    if not setting.channels_last:
        owned = [m for m in job.context.registered.values() if isinstance(m, nn.Module)]
        for network in (teacher._module, job.student, *owned, *job.context.companions.values()):
            network.to(memory_format=torch.contiguous_format)
    return job


def views(job: Job) -> tuple[NetworkView, NetworkView]:
    """Teacher and student as the method and the loop see them."""
    teacher, student = job.context.teacher, job.context.student
    assert isinstance(teacher, NetworkView)
    assert isinstance(student, NetworkView)
    return teacher, student


class Slowed(Tapped):
    """A network as it would run with speedups off: around the real one, whose weights it shares."""

    def __init__(self, network: Tapped, setting: Setting, lean: bool) -> None:
        super().__init__()
        self.network, self.setting, self.lean = network, setting, lean
        self.tap_names, self.raw_taps, self.feature_dim = network.tap_names, network.raw_taps, network.feature_dim

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """The real network's."""
        return self.network.trace(x, t)

    def observe(self, x: Tensor, taps: tuple[str, ...] = (), moments: bool = False) -> Outputs:
        """The real network's outputs, after all the work that a speedup saves."""
        x = x if self.setting.channels_last else x.contiguous()  # the layout of the images decides for all that follow
        with nullcontext() if self.setting.passes else patch.object(tapped, "normalise", usual):
            found = self.network.observe(x, taps, moments or not self.lean)
        return found if moments else Outputs(found.logits, found.taps)

    def requires_grad_(self, requires_grad: bool = True) -> Slowed:
        """Always with gradients where weights are not frozen."""
        super().requires_grad_(requires_grad or not self.setting.frozen)
        return self


def usual(layer: nn.BatchNorm2d, x: Tensor, observed: bool) -> tuple[Tensor, Moments | None]:
    """What `tapped.normalise` gives, in many passes."""
    found = two_pass_moments(x) if observed else None
    y: Tensor = layer(x)
    return y, found


def two_pass_moments(x: Tensor) -> Moments:
    """Mean and biased variance over batch and space of x (n, c, ...), one after the other, the second from a copy."""
    with torch.autocast(x.device.type, enabled=False):
        x = at_least_fp32(x)
        by_channel = x.transpose(0, 1).contiguous().flatten(1)
        return x.mean([d for d in range(x.dim()) if d != 1]), by_channel.var(1, correction=0)


def lines(what: Subject, optional: Sequence[str]) -> tuple[list[list[str]], list[Row]]:
    """The table's lines of a method, one for each kind of step and one for its whole round; and rows with a price."""

    def build(setting: Setting) -> Job:
        precision = "bf16" if setting.bf16 else "fp32"
        return what.make(replace(what.spec, precision=precision, compile=setting.compiled))

    found = measure(build, optional, what.rounds)
    limit = {f.step: f for f in floors(build(ON), what.rounds)}
    cells = []
    for step in dict.fromkeys(row.step for row in found):
        by = {row.speedup: row for row in found if row.step == step}
        whole = by.pop(TOGETHER)
        beside = ["", "", ""]
        if step in limit:
            ratio = limit[step].ratio
            beside = [f"{limit[step].floor_ms:.1f}", f"{ratio * whole.ratio:.2f}", f"{ratio:.2f}"]
        numbers = [
            f"{whole.off:.1f}",
            f"{whole.on:.1f}",
            f"{whole.ratio:.2f}",
            *(f"{r.ratio:.2f}" for r in by.values()),
        ]
        cells.append([what.method, step, *numbers, *beside])
    return cells, [row for row in found if row.price]


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
    found: list[list[str]] = []
    for method in options.method or entries():
        if "--networks" in words and load(resolve(method)).privileges.real_data:
            print(f"{method}: needs real data, which --networks does without", file=sys.stderr)
            continue
        print(method, file=sys.stderr)
        what = subject(method, words)
        cells, priced = lines(what, optional)
        found += cells
        for row in priced:
            print(f"{method}: {row.price:.0f} s of compiling, paid back after {row.even:.0f} rounds", file=sys.stderr)
    print(f"{what.title}, ms of {clock_for(torch.device(what.spec.device))[1]}\n")
    print("\n".join(table(headers, found, ("method", "step"))))
    if options.csv:
        with options.csv.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([headers, *found])
    return 0


if __name__ == "__main__":
    sys.exit(main())
