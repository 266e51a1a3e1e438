"""The driver's side of a worker on a Ray cluster: starting runs and collecting their results.

If a worker does not see the driver's results folder, the driver holds the run's lock and copies the run's files: to the
worker at the start, and back at the end. After the death of a worker, the driver fetches the checkpoint from its node,
so that the run can be resumed on another one.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from dfkd_bench.engines.base import Report, Work
from dfkd_bench.engines.ray.cluster import Resources, alive_nodes, environment, ray_error_line, run_on_node
from dfkd_bench.engines.ray.files import pack, unpack
from dfkd_bench.engines.ray.worker import Token, Worker, WorkerLocation, leftover_files
from dfkd_bench.engines.worker import HEARTBEAT
from dfkd_bench.errors import BusyError, DiskError, RunError
from dfkd_bench.runs import records
from dfkd_bench.utils.locks import folder_lock

ANSWER = 120.0  # seconds to wait for an answer of a node, which imports torch first


@dataclass
class WorkerHandle:
    """One worker. `place` is None until it is ready, `work` is None while it is idle."""

    actor: Any
    place: WorkerLocation | None = None
    work: Work | None = None
    lock: ExitStack | None = None  # the lock of the run, if the worker does not share the results folder
    begun: float = 0.0


def create_worker(need: Resources, token: Token) -> WorkerHandle:
    """A new worker on a node that Ray chooses; `actor.place` returns when it is ready."""
    made = ray.remote(Worker).options(
        num_cpus=need.cores, num_gpus=need.gpus, max_restarts=0, max_task_retries=0, runtime_env=environment()
    )
    return WorkerHandle(made.remote(token))


def start_run(handle: WorkerHandle, work: Work) -> Any:
    """Start a run on a ready worker: returns a Ray reference to its result, or a `Report` if it cannot be started."""
    assert handle.place is not None
    if handle.place.shared:
        handle.work, handle.begun = work, time.monotonic()
        return handle.actor.carry_out.remote(work)
    lock = ExitStack()
    try:
        lock.enter_context(folder_lock(work.folder, where=f"below {work.options.results}"))
    except BusyError:
        return Report("busy", 0.0, "another process executes it")
    except RunError as error:
        return Report("failed", 0.0, str(error))
    with suppress(RunError):  # a damaged record counts as none
        if not work.options.force and records.finished(work.options.results, work.spec):
            lock.close()
            return Report("skipped")
    handle.work, handle.begun, handle.lock = work, time.monotonic(), lock
    return handle.actor.carry_out_here.remote(work, {} if work.options.force else pack(work.folder), origin_of(work))


def collect_result(handle: WorkerHandle, answer: Any) -> tuple[Work, Report]:
    """The outcome of a worker's run; its files are copied to the results folder."""
    assert handle.work is not None
    assert handle.place is not None
    work, place = handle.work, handle.place
    files: dict[str, bytes] = {}
    try:
        result = ray.get(answer)
        report, files = (result, {}) if place.shared else result
    except RayTaskError as error:
        report = Report("failed", 0.0, ray_error_line(error))
    except RayError:
        node_alive = any(node["NodeID"] == place.node for node in alive_nodes())
        what = f"its worker on {place.host} died" if node_alive else f"its node {place.host} is gone"
        report = Report("lost", time.monotonic() - handle.begun, what)
        if node_alive and not place.shared:
            with suppress(RayError):
                files = ray.get(run_on_node(place.node, leftover_files, work, origin_of(work)), timeout=ANSWER)
    try:
        if files:
            unpack(work.folder, files)
    except DiskError as error:
        report = Report("failed", report.seconds, str(error))
    release_run(handle)
    return work, report


def release_run(handle: WorkerHandle) -> None:
    """Mark the worker as idle, and release the lock of its run."""
    if handle.lock is not None and handle.work is not None:
        (handle.work.folder / HEARTBEAT).unlink(missing_ok=True)
        handle.lock.close()
    handle.work = handle.lock = None


def stop_worker(handles: Iterable[WorkerHandle]) -> None:
    """End workers, also running ones; their cores become free."""
    for handle in handles:
        ray.kill(handle.actor)
        release_run(handle)


def write_heartbeat(handle: WorkerHandle) -> None:
    """Write the heartbeat of a run on a worker without shared folder, for `dfkd-bench status`, without its progress."""
    if handle.lock is None or handle.work is None or handle.place is None:
        return
    beat = {
        "host": handle.place.host, "pid": os.getpid(), "phase": "away", "round": 0, "rounds": 0, "student_images": 0,
        "seconds": time.monotonic() - handle.begun, "restarted_at": 0,
    }  # fmt: skip
    with suppress(OSError):
        (handle.work.folder / HEARTBEAT).write_text(json.dumps(beat))


@contextmanager
def token_in(results: Path) -> Iterator[Token]:
    """A temporary file by which workers check that they share the results folder."""
    results.mkdir(parents=True, exist_ok=True)
    token = Token(str(results / f".driver-{uuid.uuid4().hex[:12]}"), uuid.uuid4().hex)
    Path(token.path).write_text(token.text)
    try:
        yield token
    finally:
        Path(token.path).unlink(missing_ok=True)


def origin_of(work: Work) -> str:
    """The name of this machine's results folder, for workers that do not share it."""
    return f"{os.uname().nodename}:{work.options.results}"
