"""Copying the files of a run, as names and bytes, between machines without a shared folder."""

from __future__ import annotations

from pathlib import Path

from dfkd_bench.engines.worker import HEARTBEAT
from dfkd_bench.runs import records
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.locks import LOCK

LOCAL_FILES = {LOCK, HEARTBEAT}  # not copied


def pack(folder: Path) -> dict[str, bytes]:
    """The files of a run's folder by relative path; empty if there is no folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in files_of(folder)}


def unpack(folder: Path, files: dict[str, bytes]) -> None:
    """Make a run's folder hold exactly these files. Each is written atomically, the record last.

    So if there is a record, the files that it lists are there too. Raises `DiskError` if the disk is full.
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
    """The files of a run to copy: all except `LOCAL_FILES` and temporary files."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return [path for path in files if path.name not in LOCAL_FILES and path.suffix != ".tmp"]
