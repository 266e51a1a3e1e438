"""Budgets of seconds: how many rounds fit is found before a run begins and kept beside it.

The clock has its say here alone. The run itself is of so many rounds, a function of counts like any other.
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

PROVISIONAL = 1000  # rounds of the job that is timed: so many that no schedule comes to its end meanwhile


def length_of(folder: Path, seconds: float, trial: Callable[[], Job]) -> Length:
    """The length of the run in `folder`: as it was begun with, else by the pace of the job that `trial` makes.

    That job is thrown away. Raises `RunError` where a begun run's length is lost.
    """
    path = folder / records.PACE
    if path.exists() or (folder / records.CHECKPOINT).exists():
        return read(path)
    job = trial()
    found = time_rounds(job, timing_seconds(seconds), longest=seconds)
    length = Length(found.rounds_in(seconds, job.method.flags), found)
    del job
    gc.collect()  # its networks and pools are not to be part of the run's memory
    write(path, length)
    return length


def set_length(folder: Path, length: Length) -> None:
    """Give the run in `folder` the length of a record. Raises `UsageError` where it was begun with another."""
    path = folder / records.PACE
    if not (folder / records.CHECKPOINT).exists():
        write(path, length)
    elif (begun := read(path)).rounds != length.rounds:
        raise UsageError(
            f"the run in {folder} was begun with {begun.rounds} rounds, the record has {length.rounds}: "
            "start it over with --force, or choose another --results"
        )


def write(path: Path, length: Length) -> None:
    """Keep a run's length. Raises `DiskError`."""
    write_atomic(path, (json.dumps(length.to_json()) + "\n").encode())


def read(path: Path) -> Length:
    """A run's length from its file. Raises `RunError` where that is missing or damaged."""
    try:
        return Length.from_json(read_json(path))
    except (OSError, ValueError, RunError) as error:
        raise RunError(f"{path} is missing or damaged: start the run over with --force") from error
