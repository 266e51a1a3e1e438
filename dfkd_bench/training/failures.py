"""What a run's folder holds beside its results: clearing it, tidying it, and the record of a run that failed."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch

from dfkd_bench.errors import RunError
from dfkd_bench.runs import records
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.runs.provenance import manifest
from dfkd_bench.training import time_budget
from dfkd_bench.utils import checkpoint


def clear(folder: Path) -> None:
    """Remove what an earlier run left (--force)."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
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


def tidy(folder: Path) -> None:
    """Drop what only an unfinished run needs."""
    checkpoint.remove(folder)
    (folder / records.PACE).unlink(missing_ok=True)
    shutil.rmtree(folder / "snapshots", ignore_errors=True)


def leave_failure(planned: PlannedRun, folder: Path, what: str, begun: float) -> None:
    """A failed run is a row, not an absence; its checkpoint stays, for `--retry-failed` to go on from."""
    try:
        spec = planned.spec
        about = manifest(planned, torch.device(spec.device))
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
