"""A plan on many workers: wall time by engine, and what of it is paid for."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from dfkd_bench.engines.base import EngineKind
from dfkd_bench.profiling.estimate.startup import StartupTimes


@dataclass(frozen=True)
class WallTime:
    """Seconds: from the command to its end, and of all workers together, as a provider counts them."""

    seconds: float
    paid: float


@dataclass(frozen=True)
class WorkerSetup:
    """Where workers run."""

    start: StartupTimes
    queue: float = 0.0  # seconds a job waits before it starts, where runs are jobs
    held: int | None = None  # workers that this machine's cores hold at once, None where each has a GPU of its own


def makespan(runs: Sequence[float], workers: int) -> float:
    """Seconds until the last of `runs` ends, each begun in order by the worker that is free first."""
    free = [0.0] * workers
    for seconds in runs:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def wall_time(engine: EngineKind, runs: Sequence[float], workers: int, site: WorkerSetup) -> WallTime:
    """The whole plan; `runs` are the seconds of each, in the plan's order.

    Of workers here, one is the command's own process, and more than the machine holds are as quick as those it holds.
    In a queue, a run is a job, whose process starts anew. A job is paid for while it runs, other workers to the end.
    """
    start = site.start
    if not runs:
        return WallTime(0.0, 0.0)
    if engine.workers == "queue":
        jobs = [start.worker + seconds + engine.overhead for seconds in runs]
        return WallTime(start.driver + makespan([site.queue + job for job in jobs], workers), sum(jobs))
    if engine.workers == "here" and workers == 1:
        alone = start.worker + sum(runs)
        return WallTime(alone, alone)
    if engine.workers == "here" and site.held:
        workers = min(workers, site.held)
    busy = start.worker + makespan([seconds + engine.overhead for seconds in runs], workers)
    return WallTime(start.driver + busy, workers * busy)
