"""Seconds and teacher passes of a run from a few of its steps, timed and counted on the device of this machine."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dfkd_bench import models
from dfkd_bench.metrics.base import View
from dfkd_bench.metrics.evaluate import student_metrics
from dfkd_bench.metrics.logits import logits_of
from dfkd_bench.models.tapped import Tapped, place
from dfkd_bench.profiling.estimate.timing import Part, Timing
from dfkd_bench.training.dry_run import DryRun, shows_images, teacher_in
from dfkd_bench.training.loop import Job, snapshot, synthesise
from dfkd_bench.training.round_timing import time_rounds
from dfkd_bench.training.runner import prepare_device
from dfkd_bench.training.storage import FINAL, PROBE, FileStorage, preview
from dfkd_bench.utils.flop import flop_of
from dfkd_bench.utils.timing import timed

LOW = 2  # repetitions of an inner loop at which its arithmetic is counted


@dataclass(frozen=True)
class Judging:
    """Seconds of evaluation on one task: per image through the teacher, through the student, and once a run."""

    teacher: float
    student: float
    once: float

    def seconds(self, images: int, points: int, shows: bool) -> float:
        """Of a run with so many test images and snapshots; one that shows images has a probe of them as well."""
        tested = images + (PROBE * points if shows else 0)
        return self.teacher * tested + self.student * tested * points + self.once


def judging(rehearsal: DryRun) -> Judging:
    """Time the networks of a task on one batch of noise, and all that comes once on as much noise as in a run."""
    device = prepare_device(rehearsal.spec)
    teacher, chosen = teacher_in(rehearsal.spec, rehearsal.teacher_entry, rehearsal.task, device)
    facts = chosen.dataset
    student = place(models.build(chosen.student, facts.classes, facts.image_shape), device).requires_grad_(False)
    images = torch.randn(FINAL, *facts.image_shape, device=device)
    labels = torch.arange(facts.test_size, device=device) % facts.classes
    tested = images[labels % FINAL]  # as many as there are test images
    s, t = torch.randn(2, facts.test_size, facts.classes, device=device)

    def each(network: Tapped) -> float:
        logits_of(network, images[:PROBE])  # the first call of a shape is slower
        return taken_by(lambda: logits_of(network, images), device) / len(images)

    view = View([0.0], [None], [1.0], 1.0, teacher, student, t, s, labels, tested, images, None)
    student_metrics(replace(view, images=images[:PROBE], synthetic=images[:PROBE]))  # its first call imports
    once = taken_by(lambda: student_metrics(view), device)
    return Judging(each(teacher), each(student), once)


def taken_by(function: Any, device: torch.device) -> float:
    """Seconds of a call."""
    return timed(function, device) / 1000.0


def measured(rehearsal: DryRun, judged: Judging, loading: float, seconds: float) -> Timing:
    """Time about `seconds` of a run's first rounds, one snapshot and one checkpoint; passes are of the same rounds.

    A method with long inner loops is timed with the short ones that it has for the smallest budget, where whole rounds
    would take longer than that. `loading`: seconds of reading the test images.
    """
    settings, short = rehearsal.settings, rehearsal.shorter()
    found = rounds_of(rehearsal, {**settings, **short}, seconds)
    if short:
        found = stretched(found, rehearsal, short)
        if 2.0 * (found.synthesis.seconds + found.distillation.seconds) < seconds:
            found = rounds_of(rehearsal, settings, seconds)
    images, points = rehearsal.task.dataset.test_size, len(rehearsal.schedule.snapshots)
    evaluation = judged.seconds(images, points, shows_images(rehearsal.method(settings)))
    return replace(found, around=found.around + loading + evaluation)


def rounds_of(rehearsal: DryRun, settings: Mapping[str, Any], seconds: float) -> Timing:
    """The timing of a run with these settings; evaluation is not in it."""
    begun = time.perf_counter()
    job = rehearsal.job(settings)
    built = time.perf_counter() - begun
    warmup = warmup_of(job)
    before, begun = passes(job), time.perf_counter()
    paced = time_rounds(job, seconds, least=0)
    first = time.perf_counter() - begun - paced.rounds * paced.round
    each = (passes(job) - before) / (job.context.progress.student_step / job.schedule.student_steps)
    synthesis = Part(paced.synthesis, passes_of_synthesis(job))
    shown, last, saved = keeping(rehearsal, job)
    compiling = max(0.0, first - paced.round) if rehearsal.spec.compile else 0.0
    distillation = Part(paced.distillation, each - synthesis.passes)
    return Timing(warmup, synthesis, distillation, shown, last, saved, built + compiling)


def warmup_of(job: Job) -> Part:
    """A round of the warm-up, from its last step of a few: the first are slower."""
    plan, progress = job.schedule, job.context.progress
    if not plan.warmup_rounds:
        return Part()
    progress.warmup_rounds, progress.round = plan.warmup_rounds, -plan.warmup_rounds
    job.context.streams.reseed(progress.round)
    for _ in range(3 if job.context.compiles else 2):
        before = passes(job)
        step = Part(taken_by(lambda: synthesise(job, 1), job.context.device), passes(job) - before)
    return step * job.method.flags.calls(warmup=True)


def passes_of_synthesis(job: Job) -> int:
    """Passes of a round's synthesis steps, which are all alike; it makes one."""
    before = passes(job)
    if calls := job.method.flags.calls(warmup=False):
        synthesise(job, 1)
    return (passes(job) - before) * calls


def passes(job: Job) -> int:
    """Images that went through the teacher so far, forward and backward."""
    counts = job.context.meter.counts
    return counts["teacher_forwards"] + counts["teacher_backwards"]


def stretched(timing: Timing, rehearsal: DryRun, short: Mapping[str, int]) -> Timing:
    """The timing of a run from that with the settings `short`: seconds grow with the arithmetic that is counted.

    Arithmetic and passes are linear in each setting by which a synthesis step repeats something: they are counted at
    `LOW` repetitions, and at one more of each setting.
    """
    settings = rehearsal.settings
    low = dict.fromkeys(rehearsal.loops(LOW), LOW)
    base = work_of(rehearsal, {**settings, **short, **low})
    slopes = {name: work_of(rehearsal, {**settings, **short, **low, name: LOW + 1}) - base for name in low}

    def at(values: Mapping[str, Any]) -> np.ndarray:
        return sum(((values[name] - LOW) * slope for name, slope in slopes.items()), base)

    whole, timed = at(settings), at({**settings, **short})
    seconds, passed, shown = np.divide(whole, timed, out=np.ones(3), where=timed > 0.0).tolist()
    student = [rehearsal.method(values).flags.student_steps for values in (settings, {**settings, **short})]
    return replace(
        timing,
        warmup=Part(timing.warmup.seconds * seconds, timing.warmup.passes * passed),
        synthesis=Part(timing.synthesis.seconds * seconds, timing.synthesis.passes * passed),
        distillation=timing.distillation * (student[0] / student[1]),
        snapshot=timing.snapshot * shown,
        last=timing.last * shown,
    )


def work_of(rehearsal: DryRun, settings: Mapping[str, Any]) -> np.ndarray:
    """Of one synthesis step FLOP and passes, and the FLOP of a preview."""
    job = replace(rehearsal, spec=replace(rehearsal.spec, compile=False)).job(settings)
    stream = torch.Generator(job.context.device)
    job.context.streams.reseed(0)
    job.method.on_epoch_start(0)
    flop = flop_of(lambda: synthesise(job, 1))
    seen = passes(job)
    return np.array(
        [flop, seen, flop_of(lambda: preview(job, PROBE, stream)) if shows_images(job.method) else 0], float
    )


def keeping(rehearsal: DryRun, job: Job) -> tuple[float, float, float]:
    """Seconds of a snapshot of `job`, of the last one, and of a checkpoint."""
    device, stream = job.context.device, torch.Generator(job.context.device)
    images = min(FINAL, job.schedule.batch_size)  # inverted a batch at a time, the last ones take a time for each
    teacher, _ = teacher_in(rehearsal.spec, rehearsal.teacher_entry, rehearsal.task, device)
    with tempfile.TemporaryDirectory() as folder:
        job.storage = FileStorage(Path(folder), rehearsal.spec.seed, teacher, lambda event: None)
        job.storage.restore(job)
        shown = taken_by(lambda: snapshot(job, 0), device)
        saved = taken_by(lambda: job.storage.checkpoint(job, 0), device)
    if not shows_images(job.method):
        return shown, shown, saved
    return shown, shown + taken_by(lambda: preview(job, images, stream), device) * FINAL / images, saved
