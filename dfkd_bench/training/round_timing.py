"""How long a round takes here: a job's first rounds, timed. Every forecast of seconds comes from this.

Nothing of a forecast enters a run but a number of rounds: what a run computes stays a function of counts.
"""

from __future__ import annotations

import math
import statistics

from dfkd_bench.runs.length import RoundTiming
from dfkd_bench.training.loop import Job, synthesise, train_student
from dfkd_bench.utils.timing import timed


def time_rounds(job: Job, seconds: float, least: int = 3, most: int = 50, longest: float = math.inf) -> RoundTiming:
    """Time the first rounds of `job` for about `seconds`, at least `least` rounds; the very first is not counted.

    Where steps are compiled, that is in the second round, which is not counted either. Where rounds are long it stops
    with fewer, after `longest` seconds of those that count. With `least` 0 the very first is counted where it alone
    takes longer than `seconds`, and is then the only one.

    Changes the job's networks: build another one for the run.
    """
    device, flags, progress = job.context.device, job.method.flags, job.context.progress
    plan = job.schedule
    progress.rounds, progress.epochs, progress.student_steps = plan.rounds, plan.epochs, plan.total_steps
    taken: list[tuple[float, float]] = []
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
            taken.append((one, two))
            if (len(taken) >= least and spent + one + two > seconds) or sum(map(sum, taken)) > longest:
                break
    synthesis, distillation = (statistics.fmean(part) for part in zip(*taken, strict=True))
    return RoundTiming(synthesis, distillation, len(taken))


def timing_seconds(seconds: float) -> float:
    """Seconds that finding the pace of a run of `seconds` may take: a twentieth, and neither a blink nor minutes."""
    return min(30.0, max(1.0, seconds / 20.0)) if math.isfinite(seconds) else 30.0
