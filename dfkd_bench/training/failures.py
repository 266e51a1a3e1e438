"""A run's folder cleared and tidied; a run that failed as an error of one line and as a record."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from dfkd_bench.errors import BenchError, DiskError, RunError
from dfkd_bench.runs import records
from dfkd_bench.runs.loggers import Log
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.runs.provenance import manifest
from dfkd_bench.training import time_budget
from dfkd_bench.utils import checkpoint
from dfkd_bench.utils.locks import LOCK

DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def clear(folder: Path) -> None:
    """Remove what an earlier run left (--force)."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def drop_damaged(folder: Path) -> None:
    """Remove a record or checkpoint that cannot be read: what a disk kept of a file when the machine went down.

    A checkpoint is worth nothing without the length of its run.
    """
    for name, read, lost in (
        (records.FILE, records.read, ()),
        (records.PACE, time_budget.read, (checkpoint.NAME,)),
        (checkpoint.NAME, checkpoint.check, ()),
    ):
        if (folder / name).exists():
            try:
                read(folder / name)
            except RunError:
                for gone in (name, *lost):
                    (folder / gone).unlink(missing_ok=True)


def remove_run_state(folder: Path) -> None:
    """Drop what only an unfinished run needs."""
    checkpoint.remove(folder)
    (folder / records.PACE).unlink(missing_ok=True)
    shutil.rmtree(folder / "snapshots", ignore_errors=True)


@contextmanager
def recorded_failure(method: str, where: str, leave: Callable[[str], None] = lambda what: None) -> Iterator[None]:
    """Whatever a run raises becomes an error of one line; `leave` gets the reason of one that failed, to record it.

    Raises `DiskError` where the disk refuses, which says what cannot be written (`where`): that is no fault of the
    method, nothing is recorded, and later the run goes on. Raises `RunError` for anything that a method raises.
    """
    try:
        yield
    except DiskError:
        raise
    except BenchError as error:
        leave(str(error))
        raise
    except (Exception, SystemExit) as error:  # a method may raise anything, or try to leave
        if isinstance(error, OSError) and error.errno in DISK_REFUSES:
            raise DiskError(f"cannot write {where}: {error.strerror}; free some space and go on") from error
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        leave(what)
        raise RunError(f"the run of {method} failed: {what} (--debug shows where)") from error


def leave_failure(planned: PlannedRun, folder: Path, what: str, begun: float, logs: Sequence[Log]) -> None:
    """A failed run is a row, not an absence; its checkpoint stays, for `--retry-failed` to go on from."""
    try:
        spec = planned.spec
        about = manifest(planned, torch.device(spec.device), logs)
        records.write(
            folder,
            {
                "spec": spec.to_json(), "hash": spec.hash, "manifest": about,
                "result": {"status": "failed", "error": what},
                "measurement": {"seconds_total": time.time() - begun},
            },
        )  # fmt: skip
    except RunError:
        pass  # the disk may be what failed; the caller is told so already
