"""What each lever of speed brings: the same steps in the real loop with the lever off and on, in turn.

The bench always runs with the first three levers on. Here, and only here, they can be switched off: by a wrapper around
the networks of a job that is already put together, so that neither the loop nor the networks know of it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from dfkd_bench.blocks.precision import at_least_fp32
from dfkd_bench.context import NetworkView
from dfkd_bench.loop import Job, synthesise, teach
from dfkd_bench.method import Moments, Outputs
from dfkd_bench.models import tapped
from dfkd_bench.models.tapped import Tapped, Trace
from dfkd_bench.profiling import timed

ROUND = "whole round"
Milliseconds = dict[str, float]  # of one round: per synthesis step, per student step, and the round


@dataclass(frozen=True)
class Levers:
    """One setting of the levers. The defaults are how a run goes that asks for nothing."""

    frozen: bool = True  # no gradients for the teacher's weights, none for the student's in synthesis steps
    moments: bool = True  # BatchNorm moments only where they are asked for, and by one pass
    channels_last: bool = True  # off: every network and the images it sees in torch's default layout
    bf16: bool = False
    compiled: bool = False


ON = Levers()
OFF = Levers(frozen=False, moments=False, channels_last=False)
ALWAYS: dict[str, Levers] = {
    "weights without gradients": replace(ON, frozen=False),
    "moments only where asked": replace(ON, moments=False),
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


def comparisons(optional: Sequence[str]) -> list[tuple[str, Levers, Levers]]:
    """What is compared: name, off and on. Each of `optional` (words of `OPTIONAL`) comes on top of all before it."""
    found = [(name, off, ON) for name, off in ALWAYS.items()]
    found.append(("these three", OFF, ON))
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
    for k in range(-2 if "compile" in optional else -1, rounds):
        watch(k)
        shift = k % len(settings)  # nobody is always the first
        for levers in settings[shift:] + settings[:shift]:
            taken = one_round(jobs[levers], k)
            if k >= 0:
                times[levers].append(taken)
    return [row for name, off, on in pairs for row in rows(name, times[off], times[on])]


def clock_for(device: torch.device) -> tuple[Callable[[], float], str]:
    """The steadiest clock, and what it shows: of one thread the time it was computing, whoever else was, else wall."""
    if device.type == "cpu" and torch.get_num_threads() == 1:
        return time.process_time, "CPU time"
    return time.perf_counter, "wall time"


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
    """Switch those of the first three levers off in `job` that `levers` has off; the job itself is changed."""
    if (levers.frozen, levers.moments, levers.channels_last) == (True, True, True):
        return job
    teacher, student = views(job)
    teacher._module = Hindered(teacher._module, levers, moments=levers.moments)
    student._module = Hindered(student._module, levers, moments=True)
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

    def __init__(self, network: Tapped, levers: Levers, moments: bool) -> None:
        super().__init__()
        self.network, self.levers, self.lean = network, levers, moments
        self.tap_names, self.feature_dim = network.tap_names, network.feature_dim

    def trace(self, x: Tensor, t: Trace) -> Tensor:
        """The real network's."""
        return self.network.trace(x, t)

    def observe(self, x: Tensor, taps: tuple[str, ...] = (), moments: bool = False) -> Outputs:
        """The real network's outputs, after all the work that a lever saves."""
        x = x if self.levers.channels_last else x.contiguous()  # the layout of the images decides for all that follow
        if self.lean:
            return self.network.observe(x, taps, moments)
        with two_passes():
            found = self.network.observe(x, taps, moments=True)
        return found if moments else Outputs(found.logits, found.taps)

    def requires_grad_(self, requires_grad: bool = True) -> Hindered:
        """Always with gradients where weights are not frozen."""
        super().requires_grad_(requires_grad or not self.levers.frozen)
        return self


@contextmanager
def two_passes() -> Iterator[None]:
    """Moments as the usual hooks make them, instead of the bench's way."""
    usual = tapped.batch_moments
    tapped.batch_moments = two_pass_moments
    try:
        yield
    finally:
        tapped.batch_moments = usual


def two_pass_moments(x: Tensor) -> Moments:
    """Mean and biased variance over batch and space of x (n, c, ...), one after the other, the second from a copy."""
    with torch.autocast(x.device.type, enabled=False):
        x = at_least_fp32(x)
        by_channel = x.transpose(0, 1).contiguous().flatten(1)
        return x.mean([d for d in range(x.dim()) if d != 1]), by_channel.var(1, correction=0)
