"""The arithmetic of a run and its passes through the teacher, counted on a few steps of a job that is thrown away.

Big networks are not computed for it: tensors then have a shape and no numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from dfkd_bench.blocks.precision import at_least_fp32
from dfkd_bench.method import Moments
from dfkd_bench.models.tapped import normalised_by
from dfkd_bench.training.dry_run import Rehearsal, shows
from dfkd_bench.training.loop import Job, Schedule, synthesise, teach
from dfkd_bench.training.storage import PROBE, preview
from dfkd_bench.utils.eager import OPTIMISERS
from dfkd_bench.utils.flop import flop_of

aten = torch.ops.aten
LOW = 2  # repetitions to which a long loop is shortened
WHOLE = 10  # student steps up to which a round is counted whole: what a method does in some of them alone is seen
GROWING = 64  # rounds after which one is taken to be like all later ones
SMALL = 2e10  # FLOP of a batch through the teacher up to which computing is quicker than pretending


@dataclass(frozen=True)
class Work:
    """FLOP (convolutions and matrix products, 2 per multiply-add), and images through the teacher, forward and back."""

    flop: float = 0.0
    passes: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flop + other.flop, self.passes + other.passes)

    def __sub__(self, other: Work) -> Work:
        return self + other * -1.0

    def __mul__(self, factor: float) -> Work:
        return Work(self.flop * factor, self.passes * factor)


@dataclass(frozen=True)
class Counted:
    """The parts of one kind of run."""

    warmup: Work  # of a warm-up round
    synthesis: Work  # of the first round
    distillation: Work  # of any round
    preview: Work  # of `PROBE` images
    growth: tuple[float, ...] = (1.0,)  # FLOP of synthesis in rounds 0, 1, ... over the first; the last one holds on

    def growth_in(self, round: int) -> float:
        """Of round 0, 1, ..."""
        return self.growth[min(round, len(self.growth) - 1)]

    def grown(self, rounds: int) -> float:
        """The sum over so many rounds: how many first rounds they come to."""
        first = self.growth[:rounds]
        return sum(first) + self.growth[-1] * (rounds - len(first))

    def training(self, schedule: Schedule) -> Work:
        """All rounds, warm-up included, without previews."""
        synthesis = Work(self.synthesis.flop * self.grown(schedule.rounds), self.synthesis.passes * schedule.rounds)
        return synthesis + self.warmup * schedule.warmup_rounds + self.distillation * schedule.rounds


@dataclass(frozen=True)
class Model:
    """The work of a run as a function of settings by which its synthesis steps repeat something: linear in each."""

    low: dict[str, int]  # the settings, shortened
    base: Counted  # with these
    raised: dict[str, Counted]  # with one of them one more

    def at(self, settings: Mapping[str, Any]) -> Counted:
        """Of a run with these settings."""
        found = {}
        for part in ("warmup", "synthesis", "distillation", "preview"):
            own: Work = getattr(self.base, part)
            beyond = [
                (getattr(other, part) - own) * (settings[name] - self.low[name]) for name, other in self.raised.items()
            ]
            found[part] = sum(beyond, own)
        return Counted(**found, growth=self.base.growth)


def model_of(rehearsal: Rehearsal) -> Model:
    """Count at `LOW` repetitions, and at one more of each."""
    low = dict.fromkeys(rehearsal.loops(LOW), LOW)
    settings = {**rehearsal.settings, **low}
    base = of_job(partial(rehearsal.job, settings))
    raised = {}
    for name, n in low.items():
        raised[name] = of_job(partial(rehearsal.job, {**settings, name: n + 1}), growing=False)
    return Model(low, base, raised)


def of_job(build: Callable[[], Job], growing: bool = True) -> Counted:
    """The work of the job that `build` makes, in a state of its own."""
    job = build()
    with ExitStack() as stack:
        if not is_small(job):
            fake = stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
            stack.enter_context(FakeCopyMode(fake))
            stack.enter_context(QuickNorms())  # type: ignore[no-untyped-call]
            stack.enter_context(normalised_by(plain))
            stack.enter_context(idle_optimisers())
        try:
            return step_through(job, growing)
        except Exception:
            if is_small(job):
                raise
    return step_through(build(), growing)  # a plugin may look at its numbers, which are then needed


class QuickNorms(TorchDispatchMode):
    """BatchNorm as one operation: taken apart, as tensors without numbers have it, it is most of the time."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Results of the right shape."""
        if func is aten.native_batch_norm.default:
            x, training = args[0], args[5]
            moments = x.new_empty(x.shape[1] if training else 0)
            return torch.empty_like(x), moments, moments.clone()
        if func is aten.native_batch_norm_backward.default:
            x = args[1]
            return tuple(
                made if wanted else None
                for made, wanted in zip((torch.empty_like(x), *x.new_empty(2, x.shape[1])), args[-1], strict=True)
            )
        return func(*args, **(kwargs or {}))


def plain(layer: nn.BatchNorm2d, x: Tensor, observed: bool) -> tuple[Tensor, Moments | None]:
    """A BatchNorm layer called as it is, and something in the place of moments, in one operation: none is counted."""
    y: Tensor = layer(x)
    mean = at_least_fp32(x).mean((0, 2, 3)) if observed else x
    return y, (mean, mean) if observed else None


@contextmanager
def idle_optimisers() -> Iterator[None]:
    """The usual optimisers take no steps: they go over weights one by one, with nothing in it that is counted."""
    steps = {kind: vars(kind)["step"] for kind in OPTIMISERS if "step" in vars(kind)}
    for kind in steps:
        setattr(kind, "step", lambda self, closure=None: None)  # noqa: B010
    try:
        yield
    finally:
        for kind, step in steps.items():
            setattr(kind, "step", step)  # noqa: B010


def is_small(job: Job) -> bool:
    """Whether a batch through the teacher is a matter of a second."""
    images = torch.zeros(1, *job.context.task.image_shape)
    return flop_of(lambda: job.context.teacher(images)) * job.schedule.batch_size <= SMALL


def step_through(job: Job, growing: bool) -> Counted:
    """A warm-up round where there is one, a round, a preview, and if `growing` rounds until they grow no more."""
    plan, context, progress = job.schedule, job.context, job.context.progress
    progress.rounds, progress.epochs, progress.student_steps = plan.rounds, plan.epochs, plan.total_steps
    flags = job.method.flags

    def work(part: Callable[[], Any]) -> Work:
        before = passes(job)
        flop = flop_of(part)
        return Work(flop, passes(job) - before)

    def synthesis(k: int) -> Work:
        context.streams.reseed(k)
        progress.round = min(k, plan.rounds - 1)
        calls = flags.calls(progress.warmup)
        return work(lambda: synthesise(job, 1)) * calls if calls else Work()  # calls of a round are all alike

    warmup = synthesis(-plan.warmup_rounds) if plan.warmup_rounds else Work()
    job.method.on_epoch_start(0)
    first = synthesis(0)
    distillation = whole_round(job, work)
    stream = torch.Generator(context.device).manual_seed(0)
    probe = work(lambda: preview(job, PROBE, stream)) if shows(job.method) else Work()
    rounds = [first.flop]
    while growing and len(rounds) < GROWING and (flop := synthesis(len(rounds)).flop) != rounds[-1]:
        rounds.append(flop)
    growth = tuple(flop / first.flop for flop in rounds) if first.flop else (1.0,)
    return Counted(warmup, first, distillation, probe, growth)


def whole_round(job: Job, work: Callable[[Callable[[], Any]], Work]) -> Work:
    """A round's student steps; where they are many, extrapolated from a few."""
    steps = job.schedule.student_steps
    if steps <= WHOLE:
        return work(lambda: teach(job))
    few = []
    for n in (LOW, LOW + 1):
        job.schedule = replace(job.schedule, student_steps=n)
        few.append(work(lambda: teach(job)))
    return few[0] + (few[1] - few[0]) * (steps - LOW)


def passes(job: Job) -> int:
    """Images that went through the teacher so far, forward and backward."""
    counts = job.context.meter.counts
    return counts["teacher_forwards"] + counts["teacher_backwards"]
