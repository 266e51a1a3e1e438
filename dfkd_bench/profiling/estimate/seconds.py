"""Seconds of a run from a few of its steps, timed here and now, and scaled by what the whole run counts."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dfkd_bench import models
from dfkd_bench.metrics.base import View
from dfkd_bench.metrics.evaluate import of_student
from dfkd_bench.metrics.logits import logits_of
from dfkd_bench.models.tapped import Tapped, place
from dfkd_bench.profiling.estimate.arithmetic import Model, Work
from dfkd_bench.profiling.estimate.timing import Timing
from dfkd_bench.training.dry_run import Rehearsal, shows, teacher_in
from dfkd_bench.training.loop import Job, snapshot
from dfkd_bench.training.round_timing import pace
from dfkd_bench.training.runner import prepare_device
from dfkd_bench.training.storage import FINAL, PROBE, RunKeeper, preview
from dfkd_bench.utils.timing import timed


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


def judging(rehearsal: Rehearsal) -> Judging:
    """Time the networks of a task on one batch of noise, and all that comes once on as much noise as in a run."""
    device = prepare_device(rehearsal.spec)
    teacher, chosen = teacher_in(rehearsal.spec, rehearsal.mentor, rehearsal.task, device)
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
    of_student(replace(view, images=images[:PROBE], synthetic=images[:PROBE]))  # its first call imports
    once = taken_by(lambda: of_student(view), device)
    return Judging(each(teacher), each(student), once)


def taken_by(function: Any, device: torch.device) -> float:
    """Seconds of a call."""
    return timed(function, device) / 1000.0


def measured(rehearsal: Rehearsal, model: Model, judged: Judging, loading: float, seconds: float) -> Timing:
    """Time about `seconds` of the rounds of a run whose work is that of `model`, one snapshot and one checkpoint.

    A method with long inner loops is timed with the short ones that it has for the smallest budget, where whole rounds
    would take longer than that. `loading`: seconds of reading the test images.
    """
    settings, short = rehearsal.settings, rehearsal.shorter()
    found = rounds_of(rehearsal, model, {**settings, **short}, seconds)
    if short and 2.0 * (found.synthesis + found.distillation) < seconds:
        found = rounds_of(rehearsal, model, settings, seconds)
    images, points = rehearsal.task.dataset.test_size, len(rehearsal.schedule.snapshots)
    evaluation = judged.seconds(images, points, shows(rehearsal.method(settings)))
    return replace(found, around=found.around + loading + evaluation)


def rounds_of(rehearsal: Rehearsal, model: Model, settings: Mapping[str, Any], seconds: float) -> Timing:
    """The timing of a run, from rounds with `settings`; evaluation is not in it."""
    begun = time.perf_counter()
    job = rehearsal.job(settings)
    built = time.perf_counter()
    paced = pace(job, seconds, least=0)
    first = time.perf_counter() - built - paced.rounds * paced.round
    whole, timed = model.at(rehearsal.settings), model.at(settings)
    grown = statistics.fmean(whole.growth_in(k) for k in range(1, paced.rounds + 1))
    synthesis = paced.synthesis * share(whole.synthesis, timed.synthesis) / grown
    shown, last, saved = keeping(rehearsal, job)
    longer = share(whole.preview, timed.preview) * whole.growth[-1] / grown
    return Timing(
        synthesis * share(whole.warmup, whole.synthesis),
        synthesis,
        paced.distillation * rehearsal.schedule.student_steps / job.schedule.student_steps,
        shown * longer,
        last * longer,
        saved,
        built - begun + (max(0.0, first - paced.round) if rehearsal.spec.compile else 0.0),  # compiling
    )


def share(work: Work, of: Work) -> float:
    """How many times as long as `of` something takes; where nothing is counted, as long."""
    return work.flop / of.flop if of.flop else 1.0


def keeping(rehearsal: Rehearsal, job: Job) -> tuple[float, float, float]:
    """Seconds of a snapshot of `job`, of the last one, and of a checkpoint."""
    device, stream = job.context.device, torch.Generator(job.context.device)
    images = min(FINAL, job.schedule.batch_size)  # inverted a batch at a time, the last ones take a time for each
    teacher, _ = teacher_in(rehearsal.spec, rehearsal.mentor, rehearsal.task, device)
    with tempfile.TemporaryDirectory() as folder:
        job.keeper = RunKeeper(Path(folder), rehearsal.spec.seed, teacher, lambda moment: None)
        job.keeper.restore(job)
        shown = taken_by(lambda: snapshot(job, 0), device)
        saved = taken_by(lambda: job.keeper.checkpoint(job, 0), device)
    if not shows(job.method):
        return shown, shown, saved
    return shown, shown + taken_by(lambda: preview(job, images, stream), device) * FINAL / images, saved
