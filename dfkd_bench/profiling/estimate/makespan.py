"""Wall time and paid worker time of a plan on several workers, by engine."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from dfkd_bench.engines.base import EngineKind
from dfkd_bench.profiling.estimate.startup import StartupTimes


@dataclass(frozen=True)
class WallTime:
    """Seconds from start to end of the command, and paid seconds of all workers together."""

    seconds: float
    paid: float


@dataclass(frozen=True)
class WorkerSetup:
    """Properties of the workers."""

    start: StartupTimes
    queue: float = 0.0  # seconds that a job waits in a queue, for engines with a queue
    capacity: int | None = None  # workers that this machine's cores can run in parallel; None: each has its own GPU


def makespan(runs: Sequence[float], workers: int) -> float:
    """Seconds until the last of `runs` ends; each run starts, in order, on the first free worker."""
    free = [0.0] * workers
    for seconds in runs:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def wall_time(engine: EngineKind, runs: Sequence[float], workers: int, setup: WorkerSetup) -> WallTime:
    """Wall time of a plan. `runs`: seconds of each run, in the plan's order.

    A single local worker is the command's own process. Local workers beyond `capacity` save no time. In a queue, every
    run is a job with a new process. Jobs are paid while they run, other workers until the end of the plan.
    """
    start = setup.start
    if not runs:
        return WallTime(0.0, 0.0)
    if engine.workers == "queue":
        jobs = [start.worker + seconds + engine.overhead for seconds in runs]
        return WallTime(start.driver + makespan([setup.queue + job for job in jobs], workers), sum(jobs))
    if engine.workers == "here" and workers == 1:
        alone = start.worker + sum(runs)
        return WallTime(alone, alone)
    if engine.workers == "here" and setup.capacity:
        workers = min(workers, setup.capacity)
    busy = start.worker + makespan([seconds + engine.overhead for seconds in runs], workers)
    return WallTime(start.driver + busy, workers * busy)
