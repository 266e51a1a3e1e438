"""A run's files on their way between machines that share no folder: names and bytes."""

from __future__ import annotations

from pathlib import Path

from dfkd_bench.engines.worker import HEARTBEAT
from dfkd_bench.runs import records
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.locks import LOCK

LOCAL_FILES = {LOCK, HEARTBEAT}  # what is of one machine alone


def pack(folder: Path) -> dict[str, bytes]:
    """Every file of a run's folder by its path below it; empty where there is none."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_of(folder)}


def unpack(folder: Path, files: dict[str, bytes]) -> None:
    """Make a run's folder hold exactly these files, each whole or not at all, and the record after all others.

    So a record that is there has everything that it speaks of. Raises `DiskError` when the disk refuses.
    """
    for name in sorted(files, key=lambda name: (name == records.FILE, name)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, files[name])
    for path in files_of(folder):
        if str(path.relative_to(folder)) not in files:
            path.unlink(missing_ok=True)
    for path in sorted(folder.rglob("*/"), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()


def files_of(folder: Path) -> list[Path]:
    """The files of a run that another machine may want, those that are being written apart."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in found if path.name not in LOCAL_FILES and path.suffix != ".tmp"]
