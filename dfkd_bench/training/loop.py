"""The training loop of all methods: synthesis, distillation, snapshots. Start reading at `distill`.

The loop owns the student, its optimiser and schedule, and the counters; the method owns what makes images. Evaluation
is not part of the loop: students are stored at fixed image counts and tested after training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from dfkd_bench.blocks.bn_stats import kept_statistics
from dfkd_bench.errors import RunError
from dfkd_bench.method import Batch, Method, Network, Outputs
from dfkd_bench.models.tapped import Tapped
from dfkd_bench.recipe import StudentRecipe
from dfkd_bench.training.context import RunContext
from dfkd_bench.training.meter import Tally
from dfkd_bench.utils.fail_points import fail_point


@dataclass(frozen=True)
class Schedule:
    """The length of a run in rounds and steps."""

    rounds: int
    rounds_per_epoch: int
    student_steps: int
    batch_size: int
    warmup_rounds: int
    snapshots: tuple[int, ...]  # numbers of finished rounds after which the student is stored for evaluation

    @property
    def epochs(self) -> int:
        """Number of epochs, a last incomplete one included."""
        return -(-self.rounds // self.rounds_per_epoch)

    @property
    def total_steps(self) -> int:
        """Number of student updates in the run."""
        return self.rounds * self.student_steps


class RunStorage(Protocol):
    """What the loop calls to save and restore a run and to report progress."""

    def restore(self, job: Job) -> int:
        """Load the last checkpoint into `job`; returns the number of finished rounds (negative in warm-up)."""

    def checkpoint(self, job: Job, rounds: int) -> None:
        """Save everything needed to resume after `rounds` rounds."""

    def snapshot(self, job: Job, rounds: int, row: dict[str, float]) -> None:
        """Store the student for later evaluation; may add numbers to `row` that need no real data."""

    def progress(self, job: Job, rounds: int) -> None:
        """Called after every round."""


@dataclass
class Job:
    """The objects of one run in training, built by `assemble` after the method's `setup`."""

    method: Method
    context: RunContext
    student: Tapped
    recipe: StudentRecipe
    schedule: Schedule
    storage: RunStorage
    checkpoint_seconds: float = 30.0
    tally: Tally = field(default_factory=Tally)
    curves: list[dict[str, float]] = field(default_factory=list)
    diverged: bool = False

    def __post_init__(self) -> None:
        """Build the optimiser of student and companions, and the forward functions of the student step."""
        companions = [p for m in self.context.companions.values() for p in m.parameters()]
        self.trained = [*self.student.parameters(), *companions]
        self.optimiser = self.recipe.build(self.trained)
        wanted = self.method.flags.distill_taps
        teacher, student, compiled = self.context.teacher, self.context.student, self.context.compile
        features = ("penultimate",) if self.context.privileges.penultimate else ()
        teacher_taps = taps_of(teacher, (*wanted, *features))
        student_taps = taps_of(student, (*wanted, "penultimate"))
        self.teacher_outputs: Callable[[Tensor], Outputs] = compiled(lambda x: teacher(x, taps=teacher_taps))
        self.student_outputs: Callable[[Tensor], Outputs] = compiled(lambda x: student(x, taps=student_taps))


def taps_of(network: Network, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The names of `wanted` taps, each once, ordered from input to output.

    "stages" stands for every feature map of the network; "stages_raw" for the same maps, each replaced by its raw tap
    if there is one (`Network.raw_taps`). Unknown names are kept, at the end.
    """
    maps, raw = network.tap_names[:-1], network.raw_taps
    all_maps = {"stages": maps, "stages_raw": tuple(raw.get(name, name) for name in maps)}
    asked = tuple(tap for name in wanted for tap in all_maps.get(name, (name,)))
    there = [tap for name in network.tap_names for tap in (raw.get(name, name), name)]
    known = tuple(dict.fromkeys(tap for tap in there if tap in asked))
    return known + tuple(tap for tap in asked if tap not in known)  # the network raises for unknown ones


def distill(job: Job) -> None:
    """Train `job` to its end, from its last checkpoint if there is one."""
    method, plan, progress = job.method, job.schedule, job.context.progress
    progress.rounds, progress.epochs, progress.student_steps = plan.rounds, plan.epochs, plan.total_steps
    progress.warmup_rounds = plan.warmup_rounds
    first, saved_at = job.storage.restore(job), time.monotonic()

    for round in range(first, plan.rounds):
        if job.diverged:  # also if restored from a checkpoint
            return
        job.context.streams.reseed(round)
        progress.round, progress.epoch = round, max(0, round) // plan.rounds_per_epoch

        if round < 0:
            synthesise(job)
        else:
            if round % plan.rounds_per_epoch == 0:
                method.on_epoch_start(progress.epoch)
            for phase in (
                (synthesise, train_student) if method.flags.order == "synthesise_first" else (train_student, synthesise)
            ):
                phase(job)
            if (round + 1) % plan.rounds_per_epoch == 0 or round + 1 == plan.rounds:
                method.on_epoch_end(progress.epoch)

        job.storage.progress(job, round + 1)
        if round + 1 in plan.snapshots:
            snapshot(job, round + 1)
        if round + 1 in plan.snapshots or time.monotonic() - saved_at > job.checkpoint_seconds:
            job.storage.checkpoint(job, round + 1)
            saved_at = time.monotonic()


def synthesise(job: Job, steps: int | None = None) -> None:
    """The synthesis steps of a round, or `steps` of them; the student's weights get no gradient."""
    flags, progress = job.method.flags, job.context.progress
    job.student.requires_grad_(False)
    with (
        job.context.meter.phase("synthesis"),
        kept_statistics(job.student) if flags.mode(0) == "train_keep_stats" else nullcontext(),
    ):
        for call in range(flags.calls(progress.warmup) if steps is None else steps):
            fail_point("synthesis")
            progress.synthesis_step = call
            job.student.train(flags.mode(call) != "eval")
            job.tally.add(job.method.synthesize())


def train_student(job: Job) -> None:
    """The student steps of a round, on batches of `Method.sample`."""
    context, plan, progress = job.context, job.schedule, job.context.progress
    job.student.train().requires_grad_(True)
    with context.meter.phase("distillation"):
        for batch, teacher in labelled_batches(job):
            fail_point("distillation")
            for group in job.optimiser.param_groups:
                group["lr"] = job.recipe.rate(progress.student_step, plan.total_steps, plan.student_steps)
            job.optimiser.zero_grad(set_to_none=True)
            loss = job.method.distill_loss(batch, job.student_outputs(batch.images), teacher)
            loss.backward()
            if job.recipe.clip:
                torch.nn.utils.clip_grad_norm_(job.trained, job.recipe.clip)
            job.optimiser.step()
            progress.student_step += 1
            context.meter.add("student_steps", 1)
            context.meter.add("student_images", plan.batch_size)
            job.tally.add({"student": loss})
            job.method.after_distill_step(batch)


def labelled_batches(job: Job) -> Iterator[tuple[Batch, Outputs]]:
    """The student batches of a round with the teacher's outputs.

    With the flag `rowwise`, all images of a round are sampled and passed through the teacher in one call.
    """
    method, n = job.method, job.schedule.batch_size
    pieces = job.schedule.student_steps if method.flags.rowwise else 1
    last, teacher = None, Outputs(torch.empty(0), {})
    for _ in range(job.schedule.student_steps // pieces):
        with torch.no_grad():
            drawn = method.sample(n * pieces)
            if drawn is not last:
                check_batch(drawn, n * pieces, job.context)
                if not job.context.privileges.real_data:
                    job.context.count(synthesised=n * pieces)
                if method.flags.teacher_in_distillation:
                    teacher = job.teacher_outputs(drawn.images)
                last = drawn
        if pieces == 1:
            yield drawn, teacher
        else:
            yield from (slice_batch(drawn, teacher, slice(k * n, (k + 1) * n)) for k in range(pieces))


def slice_batch(batch: Batch, outputs: Outputs, part: slice) -> tuple[Batch, Outputs]:
    """The rows `part` of a batch and of the teacher's outputs."""
    fields = (batch.images, batch.labels, batch.weights, batch.latents)
    return (
        Batch(*(None if f is None else f[part] for f in fields)),  # type: ignore[arg-type]
        Outputs(outputs.logits[part], {k: v[part] for k, v in outputs.taps.items()}),
    )


def check_batch(batch: Batch, n: int, context: RunContext) -> None:
    """Raise `RunError` unless `batch` has `n` images of the task's shape on the run's device."""
    wanted = (n, *context.task.image_shape)
    images = batch.images
    if tuple(images.shape) != wanted or images.device.type != context.device.type or not images.is_floating_point():
        raise RunError(
            f"sample() returned images {tuple(images.shape)} {images.dtype} on {images.device}, "
            f"expected {wanted} floating point on {context.device}"
        )
    if batch.labels is not None and len(batch.labels) != n:
        raise RunError(f"sample() returned {len(batch.labels)} labels for {n} images")


def snapshot(job: Job, rounds: int) -> None:
    """Add a row to the curves with the mean losses since the last one, and store the student.

    Sets `job.diverged` if a loss or the student is not finite.
    """
    images = rounds * job.schedule.student_steps * job.schedule.batch_size
    losses = {f"loss/{k}": v for k, v in job.tally.take().items()}
    job.diverged = not (all(map(math.isfinite, losses.values())) and is_finite(job.student))
    job.context.meter.mark()
    row = {"round": float(rounds), "student_images": float(images), **losses}
    job.curves.append(row)
    job.storage.snapshot(job, rounds, row)


def is_finite(module: torch.nn.Module) -> bool:
    """True if every parameter and buffer is finite (BatchNorm buffers do not recover from an overflow)."""
    tensors = [t for t in (*module.parameters(), *module.buffers()) if t.is_floating_point()]
    return bool(torch.stack([torch.isfinite(t).all() for t in tensors]).all())
