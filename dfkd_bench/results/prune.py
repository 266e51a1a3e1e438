"""Find and remove leftovers of interrupted runs. Records and runs in use are never touched.

A run's folder is inspected under its lock, so a run of another process on this machine is skipped. A run on another
machine, where locks may not work, is recognised by its heartbeat file.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dfkd_bench.engines.scheduler import PLANS
from dfkd_bench.engines.status import folders_in, heartbeat
from dfkd_bench.engines.worker import HEARTBEAT
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.runs import records
from dfkd_bench.utils.locks import LOCK, folder_lock
from dfkd_bench.utils.parse import read_json

Kind = Literal["finished", "interrupted", "temporary", "plan"]
KINDS: dict[Kind, str] = {
    "finished": "checkpoints and snapshots of finished runs",
    "interrupted": "interrupted runs that no process is executing",
    "temporary": "half-written files",
    "plan": "plans whose runs are all done",
}
SNAPSHOTS, TEMPORARY = "snapshots", ".*.tmp"
RUN_NAME = re.compile(r".+-s\d+-[0-9a-f]{12}")  # name of a run's folder: track-budget-seed-hash
STALE = 3600.0  # seconds after which a temporary file outside a run's folder counts as a leftover


@dataclass(frozen=True)
class Leftover:
    """Files that may be removed."""

    kind: Kind
    path: Path  # the run's folder, or the file itself
    files: tuple[Path, ...]  # files and folders to remove
    size: int  # bytes


def leftovers(results: Path) -> list[Leftover]:
    """All leftovers below `results`, sorted by kind and path. Raises `UsageError` for a missing folder."""
    if not results.is_dir():
        raise UsageError(f"no results folder at {results}: name the folder with your runs")
    found = [item for folder in run_folders(results) if (item := leftover_of(folder)) is not None]
    inside = {file for item in found for file in item.files}
    for path in sorted(results.rglob(TEMPORARY)):
        if path not in inside and not RUN_NAME.fullmatch(path.parent.name):
            with suppress(FileNotFoundError):  # its process may rename it in the meantime
                if age(path) > STALE:
                    found.append(Leftover("temporary", path, (path,), size_of(path)))
    found += [Leftover("plan", path, (path,), size_of(path)) for path in done_plans(results)]
    return sorted(found, key=lambda item: (list(KINDS).index(item.kind), item.path))


def remove(item: Leftover) -> bool:
    """Remove a leftover. Returns False, and removes nothing, if a process has resumed the run in the meantime."""
    if item.files == (item.path,):  # a file outside of runs
        item.path.unlink(missing_ok=True)
        return True
    try:
        with folder_lock(item.path, keep=(item.path / LOCK).exists()):
            if leftover_of_locked(item.path) != item:  # checked again under the lock
                return False
            for path in item.files:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
    except RunError:  # another process has the lock
        return False
    if item.kind == "interrupted":
        with suppress(OSError):  # not empty if a process has resumed the run
            (item.path / LOCK).unlink(missing_ok=True)
            item.path.rmdir()
    return True


# -- finding leftovers ------------------------------------------------------------------------------------------------


def run_folders(results: Path) -> Iterator[Path]:
    """Folders protocol/task/method/run whose name matches `RUN_NAME`."""
    level = [results]
    for _ in range(4):
        level = [Path(entry.path) for folder in level for entry in folders_in(folder)]
    yield from (folder for folder in level if RUN_NAME.fullmatch(folder.name))


def leftover_of(folder: Path) -> Leftover | None:
    """The leftover in a run's folder; None if there is none or another process has the lock."""
    with suppress(RunError), folder_lock(folder, keep=(folder / LOCK).exists()):
        return leftover_of_locked(folder)
    return None


def leftover_of_locked(folder: Path) -> Leftover | None:
    """The same; the caller has the folder's lock."""
    if heartbeat(folder / HEARTBEAT) is not None:
        return None
    if not (folder / records.FILE).exists():
        files = tuple(sorted(path for path in folder.iterdir() if path.name != LOCK))
        return Leftover("interrupted", folder, files, sum(map(size_of, files)))
    try:
        status = records.read(folder)["result"]["status"]
    except (RunError, KeyError):
        return None  # an unreadable record: the other files may be needed to find out why
    kind: Kind = "temporary" if status == "failed" else "finished"
    removable = [folder / HEARTBEAT, *sorted(folder.glob(TEMPORARY))]
    if status != "failed":  # `--retry-failed` resumes from its checkpoint
        removable += [folder / records.CHECKPOINT, folder / records.PACE, folder / SNAPSHOTS]
    files = tuple(path for path in removable if path.exists())
    return Leftover(kind, folder, files, sum(map(size_of, files))) if files else None


def done_plans(results: Path) -> Iterator[Path]:
    """Plans all of whose runs have finished."""
    for path in sorted((results / PLANS).glob("*.json")):
        try:
            folders = [row["folder"] for row in read_json(path)["runs"]]
            done = all(has_ended(results / folder) for folder in folders)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if done:
            yield path


def has_ended(folder: Path) -> bool:
    """True if the run is complete or diverged."""
    try:
        return records.read(folder)["result"]["status"] in ("complete", "diverged")
    except (RunError, UsageError, KeyError):
        return False


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(Path(folder, name).stat().st_size for folder, _, names in os.walk(path) for name in names)


def age(path: Path) -> float:
    """Seconds since the last change of a file."""
    return time.time() - path.stat().st_mtime
