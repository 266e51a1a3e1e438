"""A plan on many workers: wall time by engine, and what of it is paid for."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from dfkd_bench.profiling.estimate.startup import Start

ENGINES = ("local", "ray", "slurm")
# seconds that an engine adds to a run, measured on two cores by tests/benchmarks/engine_overhead.py
PER_RUN = {"local": 0.066, "ray": 0.060}


@dataclass(frozen=True)
class Wall:
    """Seconds: from the command to its end, and of all workers together, as a provider counts them."""

    seconds: float
    paid: float


@dataclass(frozen=True)
class Site:
    """Where workers run."""

    start: Start
    queue: float = 0.0  # seconds a job waits before it starts, Slurm alone
    held: int | None = None  # workers that this machine's cores hold at once, None where each has a GPU of its own


def makespan(runs: Sequence[float], workers: int) -> float:
    """Seconds until the last of `runs` ends, each begun in order by the worker that is free first."""
    free = [0.0] * workers
    for seconds in runs:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def wall(engine: str, runs: Sequence[float], workers: int, site: Site) -> Wall:
    """The whole plan; `runs` are the seconds of each, in the plan's order.

    local: one worker is the command's own process, and more than the machine holds are as quick as those it holds.
    slurm: a run is a job, whose process starts anew. A job is paid for while it runs, workers of the others to the end.
    """
    start = site.start
    if not runs:
        return Wall(0.0, 0.0)
    if engine == "slurm":
        jobs = [start.worker + seconds for seconds in runs]
        return Wall(start.driver + makespan([site.queue + job for job in jobs], workers), sum(jobs))
    if engine == "local" and workers == 1:
        alone = start.worker + sum(runs)
        return Wall(alone, alone)
    if engine == "local" and site.held:
        workers = min(workers, site.held)
    busy = start.worker + makespan([seconds + PER_RUN[engine] for seconds in runs], workers)
    return Wall(start.driver + busy, workers * busy)
