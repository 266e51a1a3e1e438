"""The code that runs on the nodes of a Ray cluster: the worker, and functions that the driver calls on a node."""

from __future__ import annotations

import os
import shutil
import socket
from dataclasses import dataclass, replace
from pathlib import Path

from dfkd_bench.data.home import user_folder
from dfkd_bench.engines.base import Report, Work
from dfkd_bench.engines.ray.files import pack, unpack
from dfkd_bench.engines.worker import carry_out, quiet_worker
from dfkd_bench.errors import RunError
from dfkd_bench.utils.hashing import sha256


@dataclass(frozen=True)
class Token:
    """A file in the driver's results folder, and its text: a process that reads the same text shares the folder."""

    path: str
    text: str

    def is_seen(self) -> bool:
        """True if this process reads the same text (a file of the same path on another machine has another text)."""
        try:
            return Path(self.path).read_text() == self.text
        except OSError:
            return False


@dataclass(frozen=True)
class WorkerLocation:
    """Node and process of a worker."""

    node: str  # Ray's id, hexadecimal
    host: str
    pid: int
    shared: bool  # True if it shares the driver's results folder


class Worker:
    """A worker process. It executes one run after the other; after a failed run it is not used again."""

    def __init__(self, token: Token) -> None:
        self.token = token
        quiet_worker()

    def place(self) -> WorkerLocation:
        """The location; it returns when the worker is ready."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return WorkerLocation(node, socket.gethostname(), os.getpid(), self.token.is_seen())

    def carry_out(self, work: Work) -> Report:
        """Execute a run in the shared results folder."""
        return carry_out(work)

    def carry_out_here(self, work: Work, files: dict[str, bytes], origin: str) -> tuple[Report, dict[str, bytes]]:
        """Execute a run in a folder of this machine; `files` are those of the run so far. Returns its files too."""
        here = replace(work, options=replace(work.options, results=folder_for(origin)))
        try:
            if files:
                unpack(here.folder, files)
            report = carry_out(here)
            left = pack(here.folder)
        except (RunError, OSError) as error:
            return Report("failed", 0.0, f"{error} on {socket.gethostname()}"), {}
        if report.outcome == "skipped":  # executed for an earlier driver, which ended before it got the files
            report = replace(report, outcome="done")
        if report.outcome != "busy":
            shutil.rmtree(here.folder, ignore_errors=True)
        return report, left


def leftover_files(work: Work, origin: str) -> dict[str, bytes]:
    """The files of a run that a dead worker of this machine left: a checkpoint, or the sign of an exceeded limit."""
    return pack(folder_for(origin) / work.spec.folder)


def folder_for(origin: str) -> Path:
    """The folder of this machine for the runs of a results folder that is not shared, named `origin`."""
    return user_folder() / "away" / sha256(origin)[:12]
