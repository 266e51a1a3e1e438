"""Cleaning a run's folder, and failed runs: an error of one line and a failed record."""

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


def clear_folder(folder: Path) -> None:
    """Remove all files of an earlier run except the lock (--force)."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def drop_damaged(folder: Path) -> None:
    """Remove a record or checkpoint that cannot be read, such as a half-written file after a power cut.

    With a damaged length of the run, its checkpoint is removed too: it cannot be used alone.
    """
    for name, read, also in (
        (records.FILE, records.read, ()),
        (records.PACE, time_budget.read, (checkpoint.NAME,)),
        (checkpoint.NAME, checkpoint.check, ()),
    ):
        if (folder / name).exists():
            try:
                read(folder / name)
            except RunError:
                for file in (name, *also):
                    (folder / file).unlink(missing_ok=True)


def remove_run_state(folder: Path) -> None:
    """Remove the files that only an unfinished run needs."""
    checkpoint.remove(folder)
    (folder / records.PACE).unlink(missing_ok=True)
    shutil.rmtree(folder / "snapshots", ignore_errors=True)


@contextmanager
def recorded_failure(method: str, where: str, leave: Callable[[str], None] = lambda what: None) -> Iterator[None]:
    """Turn any exception of a run into an error of one line, and call `leave` with the reason, to record the failure.

    Raises `DiskError` if the disk is full or not writable (`where` names the folder): nothing is recorded, as the run
    can be resumed. Raises `RunError` for any exception of a method.
    """
    try:
        yield
    except DiskError:
        raise
    except BenchError as error:
        leave(str(error))
        raise
    except (Exception, SystemExit) as error:  # a method may raise anything, or call sys.exit
        if isinstance(error, OSError) and error.errno in DISK_REFUSES:
            raise DiskError(
                f"cannot write {where}: {error.strerror}; free some space and repeat the command"
            ) from error
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        leave(what)
        raise RunError(f"the run of {method} failed: {what} (--debug shows where)") from error


def write_failed_record(planned: PlannedRun, folder: Path, what: str, begun: float, logs: Sequence[Log]) -> None:
    """Write a record of status failed. The checkpoint stays, so that `--retry-failed` can resume the run."""
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
        pass  # the disk may be the cause of the failure, which the caller reports
