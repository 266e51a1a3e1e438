"""Budgets of seconds: the number of rounds is computed from a timing before training, and stored beside the run.

Time is used only here. The run itself has a fixed number of rounds, like any other run.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from pathlib import Path

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.runs import records
from dfkd_bench.runs.length import Length
from dfkd_bench.training.loop import Job
from dfkd_bench.training.round_timing import time_rounds, timing_seconds
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.parse import read_json

PROVISIONAL = 1000  # rounds of the timed job: more than are timed, so that no schedule ends during the timing


def length_of(folder: Path, seconds: float, trial: Callable[[], Job]) -> Length:
    """The length of the run in `folder`: the stored one, or for a new run from timing a job that `trial` builds.

    Raises `RunError` if the length of a started run is missing or damaged.
    """
    path = folder / records.PACE
    if path.exists() or (folder / records.CHECKPOINT).exists():
        return read(path)
    job = trial()
    timing = time_rounds(job, timing_seconds(seconds), longest=seconds)
    length = Length(timing.rounds_in(seconds, job.method.flags), timing)
    del job
    gc.collect()  # free its networks and pools, which must not count as memory of the run
    write(path, length)
    return length


def set_length(folder: Path, length: Length) -> None:
    """Store the length of a repeated record. Raises `UsageError` if the run was started with another one."""
    path = folder / records.PACE
    if not (folder / records.CHECKPOINT).exists():
        write(path, length)
    elif (begun := read(path)).rounds != length.rounds:
        raise UsageError(
            f"the run in {folder} was begun with {begun.rounds} rounds, the record has {length.rounds}: "
            "start it over with --force, or choose another --results"
        )


def write(path: Path, length: Length) -> None:
    """Store a run's length. Raises `DiskError`."""
    write_atomic(path, (json.dumps(length.to_json()) + "\n").encode())


def read(path: Path) -> Length:
    """A run's length from its file. Raises `RunError` if it is missing or damaged."""
    try:
        return Length.from_json(read_json(path))
    except (OSError, ValueError, RunError) as error:
        raise RunError(f"{path} is missing or damaged: start the run over with --force") from error
