"""What each lever of speed brings: the same steps in the real loop with the lever off and on, in turn.

The bench always runs with all levers on but bf16 and compile. Here, and only here, they can be switched off: by a
wrapper around the networks of a job that is already put together, so that neither loop nor networks know of it.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dfkd_bench.blocks.precision import at_least_fp32
from dfkd_bench.method import Moments, Outputs
from dfkd_bench.models.tapped import Tapped, Trace, normalised_by
from dfkd_bench.training.context import NetworkView
from dfkd_bench.training.loop import Job, synthesise, teach
from dfkd_bench.utils.timing import clock_for, timed

ROUND = "whole round"
TOGETHER = "these together"
Milliseconds = dict[str, float]  # of one round: per synthesis step, per student step, and the round


@dataclass(frozen=True)
class Levers:
    """One setting of the levers. The defaults are how a run goes that asks for nothing."""

    frozen: bool = True  # no gradients for the teacher's weights, none for the student's in synthesis steps
    moments: bool = True  # BatchNorm moments only where they are asked for
    passes: bool = True  # BatchNorm that learns nothing, and moments, in as few passes as there can be (CPU)
    channels_last: bool = True  # off: every network and the images it sees in torch's default layout
    bf16: bool = False
    compiled: bool = False


ON = Levers()
OFF = Levers(frozen=False, moments=False, passes=False, channels_last=False)
ALWAYS: dict[str, Levers] = {
    "weights without gradients": replace(ON, frozen=False),
    "moments only where asked": replace(ON, moments=False),
    "BatchNorm in few passes": replace(ON, passes=False),
    "channels_last": replace(ON, channels_last=False),
}
OPTIONAL = {"bf16": "bf16", "compile": "compiled"}  # word of the command line -> lever; each on top of those before


@dataclass(frozen=True)
class Row:
    """One kind of step with a lever off and on: median milliseconds, and off/on of the same round."""

    lever: str
    step: str
    off: float
    on: float
    ratio: float  # median over rounds
    lowest: float
    highest: float
    price: float | None = None  # seconds that switching the lever on took before the first round; of whole rounds alone

    @property
    def even(self) -> float | None:
        """Rounds after which the price is paid back; infinite where nothing is saved, None without a price."""
        if self.price is None:
            return None
        return 1000.0 * self.price / (self.off - self.on) if self.on < self.off else math.inf


def comparisons(optional: Sequence[str]) -> list[tuple[str, Levers, Levers]]:
    """What is compared: name, off and on. Each of `optional` (words of `OPTIONAL`) comes on top of all before it."""
    found = [(name, off, ON) for name, off in ALWAYS.items()]
    found.append((TOGETHER, OFF, ON))
    best = ON
    for word, lever in OPTIONAL.items():
        if word in optional:
            better = replace(best, **{lever: True})
            found.append((f"{word}, on top", best, better))
            best = better
    if best != ON:
        found.append(("everything", OFF, best))
    return found


def measure(
    build: Callable[[Levers], Job],
    optional: Sequence[str],
    rounds: int,
    watch: Callable[[int], None] = lambda k: None,
) -> list[Row]:
    """Time every setting of the levers, all of them in each round, so that what disturbs one disturbs all.

    `build` makes a job of a precision, compiled or not, always from the same state. One round before the first is not
    counted, with compiled steps two; `watch` hears of each round, those before from -1 down.
    """
    pairs = comparisons(optional)
    settings = list(dict.fromkeys(levers for _, off, on in pairs for levers in (on, off)))
    jobs = {levers: set_levers(build(levers), levers) for levers in settings}
    times: dict[Levers, list[Milliseconds]] = {levers: [] for levers in settings}
    before: dict[Levers, float] = dict.fromkeys(settings, 0.0)  # seconds of the rounds that are not counted
    for k in range(-2 if "compile" in optional else -1, rounds):
        watch(k)
        shift = k % len(settings)  # nobody is always the first
        for levers in settings[shift:] + settings[:shift]:
            begun = time.perf_counter()  # wall: compilers work in processes of their own
            taken = one_round(jobs[levers], k)
            if k >= 0:
                times[levers].append(taken)
            else:
                before[levers] += time.perf_counter() - begun
    found = []
    for name, off, on in pairs:
        price = before[on] - before[off] if on.compiled and not off.compiled else None
        found += [replace(row, price=price if row.step == ROUND else None) for row in rows(name, times[off], times[on])]
    return found


def one_round(job: Job, k: int) -> Milliseconds:
    """Round `k` of `job`, timed by kind of step."""
    job.context.streams.reseed(k)
    flags, device = job.method.flags, job.context.device
    clock, _ = clock_for(device)
    synthesis = timed(lambda: synthesise(job), device, clock) if flags.synthesis_steps else 0.0
    student = timed(lambda: teach(job), device, clock)
    for network in (views(job)[0]._module, job.student):
        network.zero_grad()  # gradients that nobody wants must not add up over the rounds
    parts = {"synthesis": synthesis / flags.synthesis_steps} if flags.synthesis_steps else {}
    return {**parts, "student": student / flags.student_steps, ROUND: synthesis + student}


def rows(lever: str, off: Sequence[Milliseconds], on: Sequence[Milliseconds]) -> list[Row]:
    """A row for each kind of step, from the times of the same rounds with the lever off and on."""
    found = []
    for step in on[0]:
        before, after = [t[step] for t in off], [t[step] for t in on]
        ratios = [a / b for a, b in zip(before, after, strict=True)]
        found.append(
            Row(
                lever, step, statistics.median(before), statistics.median(after), statistics.median(ratios),
                min(ratios), max(ratios),
            )
        )  # fmt: skip
    return found


# -- switching off ----------------------------------------------------------------------------------------------------


def set_levers(job: Job, levers: Levers) -> Job:
    """Switch those levers of the networks off in `job` that `levers` has off; the job itself is changed."""
    if levers.frozen and levers.moments and levers.passes and levers.channels_last:
        return job
    teacher, student = views(job)
    teacher._module = Hindered(teacher._module, levers, lean=levers.moments)
    student._module = Hindered(student._module, levers, lean=True)
    job.student = student._module
    if not levers.frozen:
        teacher._module.requires_grad_(True)
    if not levers.channels_last:
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


class Hindered(Tapped):
    """A network as it would run with levers off: around the real one, whose weights it shares."""

    def __init__(self, network: Tapped, levers: Levers, lean: bool) -> None:
        super().__init__()
        self.network, self.levers, self.lean = network, levers, lean
        self.tap_names, self.raw_taps, self.feature_dim = network.tap_names, network.raw_taps, network.feature_dim

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """The real network's."""
        return self.network.trace(x, t)

    def observe(self, x: Tensor, taps: tuple[str, ...] = (), moments: bool = False) -> Outputs:
        """The real network's outputs, after all the work that a lever saves."""
        x = x if self.levers.channels_last else x.contiguous()  # the layout of the images decides for all that follow
        with nullcontext() if self.levers.passes else normalised_by(usual):
            found = self.network.observe(x, taps, moments or not self.lean)
        return found if moments else Outputs(found.logits, found.taps)

    def requires_grad_(self, requires_grad: bool = True) -> Hindered:
        """Always with gradients where weights are not frozen."""
        super().requires_grad_(requires_grad or not self.levers.frozen)
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
