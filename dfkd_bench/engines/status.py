"""How far a plan is, from the files of its results folder alone: whoever runs it, and wherever."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dfkd_bench.engines.scheduler import read_plans
from dfkd_bench.engines.worker import HEARTBEAT
from dfkd_bench.errors import UsageError
from dfkd_bench.protocol import from_folder_name
from dfkd_bench.runs import records
from dfkd_bench.utils.parse import parse_json, read_json

State = Literal["done", "diverged", "failed", "running", "interrupted", "missing"]
STATES: tuple[State, ...] = ("done", "diverged", "failed", "running", "interrupted", "missing")
OF_STATUS: dict[str, State] = {"complete": "done", "diverged": "diverged", "failed": "failed"}
STATUS = re.compile(rb'"result":\s*\{\s*"status":\s*"(complete|diverged|failed)"')  # as `records.write` writes it
LEFT = {records.FILE, records.CHECKPOINT, HEARTBEAT}
SILENT = 60.0  # seconds without a heartbeat after which a run on another machine counts as interrupted


@dataclass(frozen=True)
class RunState:
    """One run and how far it is."""

    folder: str
    spec: dict[str, Any]
    state: State
    error: str = ""
    round: int = 0
    rounds: int = 0
    seconds_left: float | None = None
    host: str = ""


def states(results: Path) -> list[RunState]:
    """Every run that a plan of this folder asked for, and every other that left a record or a checkpoint here.

    Raises `UsageError` for a missing folder.
    """
    if not results.is_dir():
        raise UsageError(f"no results folder at {results}: run something first, or name one with --results")
    planned = {str(row["folder"]): row["spec"] for row in read_plans(results)}
    found = {folder: state_in(results / folder, folder, spec) for folder, spec in planned.items()}
    for folder in run_folders(results):
        if folder not in found:
            found[folder] = state_in(results / folder, folder, None)
    return list(found.values())


def run_folders(results: Path) -> Iterator[str]:
    """Folders of runs below a results folder, relative to it: protocol/task/method/run."""
    level = [""]
    for _ in range(3):
        level = [f"{folder}{entry.name}/" for folder in level for entry in folders_in(results / folder)]
    for folder in level:
        for entry in folders_in(results / folder):
            with os.scandir(entry.path) as files:
                if any(file.name in LEFT for file in files):
                    yield folder + entry.name


def folders_in(path: Path) -> list[os.DirEntry[str]]:
    """The folders in a folder, in a fixed order."""
    with os.scandir(path) as entries:
        return sorted((entry for entry in entries if entry.is_dir()), key=lambda entry: entry.name)


def state_in(path: Path, folder: str, spec: Any) -> RunState:
    """What the files of one run's folder say. Without a plan, its name tells its specification."""
    spec = spec or named(folder)
    try:
        text = (path / records.FILE).read_bytes()
        word = STATUS.search(text)
        state = OF_STATUS[word[1].decode()] if word else "interrupted"
        if state == "done" and not text.rstrip().endswith(b"}"):  # half a record is none
            state = "interrupted"
        return RunState(folder, spec, state, parse_json(text)["result"]["error"] if state == "failed" else "")
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError):
        return RunState(folder, spec, "interrupted", "its record cannot be read")
    beat = heartbeat(path / HEARTBEAT)
    if beat is not None:
        done = max(1, beat["round"] - max(0, beat["restarted_at"]))
        left = beat["seconds"] / done * (beat["rounds"] - beat["round"])
        return RunState(folder, spec, "running", "", max(0, beat["round"]), beat["rounds"], left, beat["host"])
    resumable = (path / records.CHECKPOINT).exists()
    return RunState(folder, spec, "interrupted" if resumable else "missing")


def named(folder: str) -> dict[str, Any]:
    """What a folder's name tells of a run that left no more than a checkpoint."""
    _, task, method, name = folder.split("/")
    track, budget, seed, *_ = [*name.split("-"), "", "", ""]
    about = {"task": task, "method": method, "track": track, "budget": from_folder_name(budget)}
    return {**about, "seed": seed.removeprefix("s")}


def heartbeat(path: Path) -> dict[str, Any] | None:
    """The heartbeat of a run that somebody is at; None where there is none, or whoever wrote it is gone."""
    try:
        found: dict[str, Any] = read_json(path)
        age = time.time() - path.stat().st_mtime
        if found["host"] != socket.gethostname():
            return found if age < SILENT else None
        os.kill(found["pid"], 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # another user's process
        return found
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found


def counts(found: Iterable[RunState]) -> dict[State, int]:
    """How many runs are in each state."""
    counted: dict[State, int] = dict.fromkeys(STATES, 0)
    for run in found:
        counted[run.state] += 1
    return counted
