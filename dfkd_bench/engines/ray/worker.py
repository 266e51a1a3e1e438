"""What runs on the nodes of a Ray cluster: a worker that is kept from run to run, and what may be asked of a node."""

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
    """A file of the driver's results folder, and what is in it: who reads the same shares the folder."""

    path: str
    text: str

    def is_seen(self) -> bool:
        """Whether this process sees the driver's file; another of the same path is not it."""
        try:
            return Path(self.path).read_text() == self.text
        except OSError:
            return False


@dataclass(frozen=True)
class WorkerLocation:
    """Where a worker is."""

    node: str  # Ray's id of it, hexadecimal
    host: str
    pid: int
    shared: bool  # whether it sees the driver's results folder


class Worker:
    """One process of the cluster. It does one run after the other, and after one that failed it is not used again."""

    def __init__(self, token: Token) -> None:
        self.token = token
        quiet_worker()

    def place(self) -> WorkerLocation:
        """Where this is. It comes back when the worker is ready."""
        import ray

        node = ray.get_runtime_context().get_node_id()
        return WorkerLocation(node, socket.gethostname(), os.getpid(), self.token.is_seen())

    def carry_out(self, work: Work) -> Report:
        """A run in the results folder that driver and worker share."""
        return carry_out(work)

    def carry_out_here(self, work: Work, files: dict[str, bytes], origin: str) -> tuple[Report, dict[str, bytes]]:
        """A run in a folder of this machine, from `files` on if there are any; with the files that it left."""
        here = replace(work, options=replace(work.options, results=folder_for(origin)))
        try:
            if files:
                unpack(here.folder, files)
            report = carry_out(here)
            left = pack(here.folder)
        except (RunError, OSError) as error:
            return Report("failed", 0.0, f"{error} on {socket.gethostname()}"), {}
        if report.outcome == "skipped":  # an earlier driver was gone before it could be told
            report = replace(report, outcome="done")
        if report.outcome != "busy":
            shutil.rmtree(here.folder, ignore_errors=True)
        return report, left


def leftover_files(work: Work, origin: str) -> dict[str, bytes]:
    """What a worker of this machine, dead by now, left of a run: its checkpoint, or why it ended itself."""
    return pack(folder_for(origin) / work.spec.folder)


def folder_for(origin: str) -> Path:
    """Where workers of this machine keep runs for a results folder that they do not see, known as `origin`."""
    return user_folder() / "away" / sha256(origin)[:12]
