"""The state of the runs of a plan, from the files of its results folder alone."""

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
    """One run and its progress."""

    folder: str
    spec: dict[str, Any]
    state: State
    error: str = ""
    round: int = 0
    rounds: int = 0
    seconds_left: float | None = None
    host: str = ""


def states(results: Path) -> list[RunState]:
    """The runs of all plans of this results folder, and further runs that have a record or checkpoint here.

    Raises `UsageError` for a missing folder.
    """
    if not results.is_dir():
        raise UsageError(f"no results folder at {results}: run something first, or name one with --results")
    planned = {str(row["folder"]): row["spec"] for row in read_plans(results)}
    runs = {folder: state_in(results / folder, folder, spec) for folder, spec in planned.items()}
    for folder in run_folders(results):
        if folder not in runs:
            runs[folder] = state_in(results / folder, folder, None)
    return list(runs.values())


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
    """The folders in a folder, sorted."""
    with os.scandir(path) as entries:
        return sorted((entry for entry in entries if entry.is_dir()), key=lambda entry: entry.name)


def state_in(path: Path, folder: str, spec: Any) -> RunState:
    """The state from the files of one run's folder. `spec` None: the specification is read from the folder's name."""
    spec = spec or spec_from_folder(folder)
    try:
        text = (path / records.FILE).read_bytes()
        word = STATUS.search(text)
        state = OF_STATUS[word[1].decode()] if word else "interrupted"
        if state == "done" and not text.rstrip().endswith(b"}"):  # an incomplete record counts as none
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


def spec_from_folder(folder: str) -> dict[str, Any]:
    """The part of the specification that a folder's name holds, for a run without a record."""
    _, task, method, name = folder.split("/")
    track, budget, seed, *_ = [*name.split("-"), "", "", ""]
    about = {"task": task, "method": method, "track": track, "budget": from_folder_name(budget)}
    return {**about, "seed": seed.removeprefix("s")}


def heartbeat(path: Path) -> dict[str, Any] | None:
    """The heartbeat of a running run; None if there is none, or its process has ended."""
    try:
        beat: dict[str, Any] = read_json(path)
        age = time.time() - path.stat().st_mtime
        if beat["host"] != socket.gethostname():
            return beat if age < SILENT else None
        os.kill(beat["pid"], 0)
    except ProcessLookupError:
        return None
    except PermissionError:  # another user's process
        return beat
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return beat


def counts(runs: Iterable[RunState]) -> dict[State, int]:
    """The number of runs in each state."""
    counted: dict[State, int] = dict.fromkeys(STATES, 0)
    for run in runs:
        counted[run.state] += 1
    return counted
