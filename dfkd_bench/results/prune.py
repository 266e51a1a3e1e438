"""What interrupted runs leave behind, and how to be rid of it. Records are never touched, nor a run somebody is at.

A run's folder is looked at with its lock held, so that whoever holds it is left in peace; a run on another machine,
where locks may not reach, is known by its heartbeat.
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
    "interrupted": "interrupted runs that nobody is at",
    "temporary": "files that a process left half-written",
    "plan": "plans whose runs are all done",
}
SNAPSHOTS, TEMPORARY = "snapshots", ".*.tmp"
RUN_NAME = re.compile(r".+-s\d+-[0-9a-f]{12}")  # track-budget-seed-hash: no other folder is taken for a run's
STALE = 3600.0  # seconds after which a temporary file outside a run's folder is nobody's


@dataclass(frozen=True)
class Leftover:
    """Something that may go: a folder of a run, files in one, or a file."""

    kind: Kind
    path: Path  # the run's folder, or the file
    files: tuple[Path, ...]  # what goes
    size: int  # bytes


def leftovers(results: Path) -> list[Leftover]:
    """All that may go below `results`, by kind and path. Raises `UsageError` for a missing folder."""
    if not results.is_dir():
        raise UsageError(f"no results folder at {results}: name the one that holds your runs")
    found = [item for folder in run_folders(results) if (item := of_run(folder)) is not None]
    inside = {file for item in found for file in item.files}
    for path in sorted(results.rglob(TEMPORARY)):
        if path not in inside and not RUN_NAME.fullmatch(path.parent.name):
            with suppress(FileNotFoundError):  # its process has just renamed it
                if age(path) > STALE:
                    found.append(Leftover("temporary", path, (path,), size_of(path)))
    found += [Leftover("plan", path, (path,), size_of(path)) for path in done_plans(results)]
    return sorted(found, key=lambda item: (list(KINDS).index(item.kind), item.path))


def remove(item: Leftover) -> bool:
    """Let it go; returns whether it did: a run that somebody took up in the meantime stays."""
    if item.files == (item.path,):  # a file of no run
        item.path.unlink(missing_ok=True)
        return True
    try:
        with folder_lock(item.path, keep=(item.path / LOCK).exists()):
            if of_run_held(item.path) != item:  # looked at again, now that nobody can change it
                return False
            for path in item.files:
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
    except RunError:  # another process is at it
        return False
    if item.kind == "interrupted":
        with suppress(OSError):  # somebody may be back already: then the folder is not empty
            (item.path / LOCK).unlink(missing_ok=True)
            item.path.rmdir()
    return True


# -- looking ----------------------------------------------------------------------------------------------------------


def run_folders(results: Path) -> Iterator[Path]:
    """Folders of runs: protocol/task/method/run, by the form of their names."""
    level = [results]
    for _ in range(4):
        level = [Path(entry.path) for folder in level for entry in folders_in(folder)]
    yield from (folder for folder in level if RUN_NAME.fullmatch(folder.name))


def of_run(folder: Path) -> Leftover | None:
    """What may go of a run's folder; None where nothing may, or somebody is at it."""
    with suppress(RunError), folder_lock(folder, keep=(folder / LOCK).exists()):
        return of_run_held(folder)
    return None


def of_run_held(folder: Path) -> Leftover | None:
    """The same, by whoever holds the folder's lock."""
    if heartbeat(folder / HEARTBEAT) is not None:
        return None
    if not (folder / records.FILE).exists():
        files = tuple(sorted(path for path in folder.iterdir() if path.name != LOCK))
        return Leftover("interrupted", folder, files, sum(map(size_of, files)))
    try:
        status = records.read(folder)["result"]["status"]
    except (RunError, KeyError):
        return None  # a record that cannot be read: whoever looks into it may need all that lies beside it
    kind: Kind = "temporary" if status == "failed" else "finished"
    spare = [folder / HEARTBEAT, *sorted(folder.glob(TEMPORARY))]
    if status != "failed":  # `--retry-failed` goes on from its checkpoint
        spare += [folder / records.CHECKPOINT, folder / records.PACE, folder / SNAPSHOTS]
    files = tuple(path for path in spare if path.exists())
    return Leftover(kind, folder, files, sum(map(size_of, files))) if files else None


def done_plans(results: Path) -> Iterator[Path]:
    """Plans of which every run has a record of one that came to its end."""
    for path in sorted((results / PLANS).glob("*.json")):
        try:
            folders = [row["folder"] for row in read_json(path)["runs"]]
            done = all(ended(results / folder) for folder in folders)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if done:
            yield path


def ended(folder: Path) -> bool:
    """Whether a run is done: complete or diverged."""
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
    """Seconds since a file was written to."""
    return time.time() - path.stat().st_mtime
