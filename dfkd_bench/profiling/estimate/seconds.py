"""Seconds and teacher passes of a run from a few of its steps, timed and counted on this machine's device."""

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

LOW = 2  # repetitions of an inner loop at which its FLOP are counted


@dataclass(frozen=True)
class EvaluationTiming:
    """Seconds of evaluation on one task: per image through the teacher, through the student, and once per run."""

    teacher: float
    student: float
    once: float

    def seconds(self, images: int, points: int, shows: bool) -> float:
        """Seconds for a run with `images` test images and `points` snapshots; `shows`: it also has a probe set."""
        tested = images + (PROBE * points if shows else 0)
        return self.teacher * tested + self.student * tested * points + self.once


def time_evaluation(dry_run: DryRun) -> EvaluationTiming:
    """Time the networks of a task on one batch of noise, and the rest on as many noise images as in a run."""
    device = prepare_device(dry_run.spec)
    teacher, task = teacher_in(dry_run.spec, dry_run.teacher_entry, dry_run.task, device)
    facts = task.dataset
    student = place(models.build(task.student, facts.classes, facts.image_shape), device).requires_grad_(False)
    images = torch.randn(FINAL, *facts.image_shape, device=device)
    labels = torch.arange(facts.test_size, device=device) % facts.classes
    tested = images[labels % FINAL]  # as many as there are test images
    s, t = torch.randn(2, facts.test_size, facts.classes, device=device)

    def each(network: Tapped) -> float:
        logits_of(network, images[:PROBE])  # the first call of a shape is slower
        return duration_of(lambda: logits_of(network, images), device) / len(images)

    view = View([0.0], [None], [1.0], 1.0, teacher, student, t, s, labels, tested, images, None)
    student_metrics(replace(view, images=images[:PROBE], synthetic=images[:PROBE]))  # the first call imports modules
    once = duration_of(lambda: student_metrics(view), device)
    return EvaluationTiming(each(teacher), each(student), once)


def duration_of(function: Any, device: torch.device) -> float:
    """Seconds of a call."""
    return timed(function, device) / 1000.0


def time_run(dry_run: DryRun, evaluation: EvaluationTiming, loading: float, seconds: float) -> Timing:
    """Time about `seconds` of a run's first rounds, one snapshot and one checkpoint; count passes in the same rounds.

    If rounds of a method with long inner loops would take longer, the short loops of its smallest budget are timed and
    the result is scaled. `loading`: seconds of reading the test images.
    """
    settings, short = dry_run.settings, dry_run.shorter()
    timing = rounds_of(dry_run, {**settings, **short}, seconds)
    if short:
        timing = scaled_up(timing, dry_run, short)
        if 2.0 * (timing.synthesis.seconds + timing.distillation.seconds) < seconds:
            timing = rounds_of(dry_run, settings, seconds)
    images, points = dry_run.task.dataset.test_size, len(dry_run.schedule.snapshots)
    evaluating = evaluation.seconds(images, points, shows_images(dry_run.method(settings)))
    return replace(timing, once=timing.once + loading + evaluating)


def rounds_of(dry_run: DryRun, settings: Mapping[str, Any], seconds: float) -> Timing:
    """The timing of a run with these settings, without evaluation."""
    begun = time.perf_counter()
    job = dry_run.job(settings)
    built = time.perf_counter() - begun
    warmup = warmup_of(job)
    before, begun = passes(job), time.perf_counter()
    round_timing = time_rounds(job, seconds, least=0)
    first = time.perf_counter() - begun - round_timing.rounds * round_timing.round
    each = (passes(job) - before) / (job.context.progress.student_step / job.schedule.student_steps)
    synthesis = Part(round_timing.synthesis, passes_of_synthesis(job))
    snapshot_seconds, last, checkpoint = time_storage(dry_run, job)
    compiling = max(0.0, first - round_timing.round) if dry_run.spec.compile else 0.0
    distillation = Part(round_timing.distillation, each - synthesis.passes)
    return Timing(warmup, synthesis, distillation, snapshot_seconds, last, checkpoint, built + compiling)


def warmup_of(job: Job) -> Part:
    """A warm-up round, from the last of a few steps: the first steps are slower."""
    plan, progress = job.schedule, job.context.progress
    if not plan.warmup_rounds:
        return Part()
    progress.warmup_rounds, progress.round = plan.warmup_rounds, -plan.warmup_rounds
    job.context.streams.reseed(progress.round)
    for _ in range(3 if job.context.compiles else 2):
        before = passes(job)
        step = Part(duration_of(lambda: synthesise(job, 1), job.context.device), passes(job) - before)
    return step * job.method.flags.calls(warmup=True)


def passes_of_synthesis(job: Job) -> int:
    """Passes of a round's synthesis steps, counted in one of them: they are all the same."""
    before = passes(job)
    if calls := job.method.flags.calls(warmup=False):
        synthesise(job, 1)
    return (passes(job) - before) * calls


def passes(job: Job) -> int:
    """Images through the teacher so far, forward and backward."""
    counts = job.context.meter.counts
    return counts["teacher_forwards"] + counts["teacher_backwards"]


def scaled_up(timing: Timing, dry_run: DryRun, short: Mapping[str, int]) -> Timing:
    """The timing of a run from that with the settings `short`: seconds are scaled with the counted FLOP.

    FLOP and passes are linear in each setting that repeats something inside a synthesis step. They are counted at `LOW`
    repetitions of each, and again with one more repetition of each setting.
    """
    settings = dry_run.settings
    low = dict.fromkeys(dry_run.loops(LOW), LOW)
    base = flop_and_passes(dry_run, {**settings, **short, **low})
    slopes = {name: flop_and_passes(dry_run, {**settings, **short, **low, name: LOW + 1}) - base for name in low}

    def at(values: Mapping[str, Any]) -> np.ndarray:
        return sum(((values[name] - LOW) * slope for name, slope in slopes.items()), base)

    whole, timed = at(settings), at({**settings, **short})
    seconds, passed, preview_factor = np.divide(whole, timed, out=np.ones(3), where=timed > 0.0).tolist()
    student = [dry_run.method(values).flags.student_steps for values in (settings, {**settings, **short})]
    return replace(
        timing,
        warmup=Part(timing.warmup.seconds * seconds, timing.warmup.passes * passed),
        synthesis=Part(timing.synthesis.seconds * seconds, timing.synthesis.passes * passed),
        distillation=timing.distillation * (student[0] / student[1]),
        snapshot=timing.snapshot * preview_factor,
        last=timing.last * preview_factor,
    )


def flop_and_passes(dry_run: DryRun, settings: Mapping[str, Any]) -> np.ndarray:
    """FLOP and passes of one synthesis step, and FLOP of a preview."""
    job = replace(dry_run, spec=replace(dry_run.spec, compile=False)).job(settings)
    stream = torch.Generator(job.context.device)
    job.context.streams.reseed(0)
    job.method.on_epoch_start(0)
    flop = flop_of(lambda: synthesise(job, 1))
    counted = passes(job)
    return np.array(
        [flop, counted, flop_of(lambda: preview(job, PROBE, stream)) if shows_images(job.method) else 0], float
    )


def time_storage(dry_run: DryRun, job: Job) -> tuple[float, float, float]:
    """Seconds of a snapshot of `job`, of the last snapshot, and of a checkpoint."""
    device, stream = job.context.device, torch.Generator(job.context.device)
    images = min(FINAL, job.schedule.batch_size)  # images are made batch by batch, so one batch is timed
    teacher, _ = teacher_in(dry_run.spec, dry_run.teacher_entry, dry_run.task, device)
    with tempfile.TemporaryDirectory() as folder:
        job.storage = FileStorage(Path(folder), dry_run.spec.seed, teacher, lambda event: None)
        job.storage.restore(job)
        snapshot_seconds = duration_of(lambda: snapshot(job, 0), device)
        checkpoint = duration_of(lambda: job.storage.checkpoint(job, 0), device)
    if not shows_images(job.method):
        return snapshot_seconds, snapshot_seconds, checkpoint
    final_preview = duration_of(lambda: preview(job, images, stream), device) * FINAL / images
    return snapshot_seconds, snapshot_seconds + final_preview, checkpoint
