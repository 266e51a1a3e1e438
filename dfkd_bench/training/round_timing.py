"""Times the first rounds of a job, for budgets of seconds and for estimates.

A timing enters a run only as a number of rounds; the result of a run is a function of counts.
"""

from __future__ import annotations

import math
import statistics

from dfkd_bench.runs.length import RoundTiming
from dfkd_bench.training.loop import Job, synthesise, train_student
from dfkd_bench.utils.timing import timed


def time_rounds(job: Job, seconds: float, least: int = 3, most: int = 50, longest: float = math.inf) -> RoundTiming:
    """Time the first rounds of `job` for about `seconds`: at least `least` and at most `most` rounds.

    The first round is not counted, nor with --compile the second one, in which steps are compiled. Timing stops early
    after `longest` seconds of counted rounds. With `least` 0, a first round that takes longer than `seconds` is counted
    and is the only one.

    Changes the job's networks: build another job for the run.
    """
    device, flags, progress = job.context.device, job.method.flags, job.context.progress
    plan = job.schedule
    progress.rounds, progress.epochs, progress.student_steps = plan.rounds, plan.epochs, plan.total_steps
    counted: list[tuple[float, float]] = []  # seconds of synthesis and distillation
    spent, first = 0.0, -2 if job.context.compiles else -1
    for k in range(first, most):
        job.context.streams.reseed(k)
        progress.round = max(0, k)
        progress.epoch = progress.round // plan.rounds_per_epoch
        if k == first or (k > 0 and progress.round % plan.rounds_per_epoch == 0):
            job.method.on_epoch_start(progress.epoch)
        one = timed(lambda: synthesise(job), device) / 1000.0 if flags.synthesis_steps else 0.0
        two = timed(lambda: train_student(job), device) / 1000.0
        if k >= 0 and (progress.round + 1) % plan.rounds_per_epoch == 0:
            job.method.on_epoch_end(progress.epoch)
        spent += one + two
        if k >= 0 or (k == first and least == 0 and spent > seconds):
            counted.append((one, two))
            if (len(counted) >= least and spent + one + two > seconds) or sum(map(sum, counted)) > longest:
                break
    synthesis, distillation = (statistics.fmean(part) for part in zip(*counted, strict=True))
    return RoundTiming(synthesis, distillation, len(counted))


def timing_seconds(seconds: float) -> float:
    """Seconds for timing the rounds of a run of `seconds`: a twentieth of it, between 1 and 30."""
    return min(30.0, max(1.0, seconds / 20.0)) if math.isfinite(seconds) else 30.0
