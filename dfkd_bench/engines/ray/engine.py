"""Runs on a Ray cluster: an existing one, or one started on this machine for the duration of the plan.

Ray places workers, watches nodes and moves files. A worker is an actor that holds the cores (and the GPU) of one run,
executes one run after the other, and is released when no run waits. A run whose worker died is reported as lost, and
the driver resumes it from its checkpoint. Ray's own retries are off: they cannot distinguish a run that exceeded its
limits from a lost node.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Any

# Ray reads this at import; without it, Ray prints a paragraph for every worker that dies
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "worker died|node with node id")

import ray
from ray.exceptions import RayError

from dfkd_bench.engines.base import EngineOptions, Report, Work
from dfkd_bench.engines.ray.cluster import Resources, alive_nodes, connect, ray_error_line, run_on_node
from dfkd_bench.engines.ray.transfer import (
    ANSWER,
    WorkerHandle,
    collect_result,
    create_worker,
    start_run,
    stop_worker,
    token_in,
    write_heartbeat,
)
from dfkd_bench.engines.ray.worker import Token
from dfkd_bench.engines.worker import missing_here, one_per_requirement
from dfkd_bench.errors import RunError

LOOK = 5.0  # seconds between two checks of the nodes
STARTS = 3  # failed starts of workers, with none running, after which the plan is given up


def make(options: EngineOptions) -> OnRay:
    """The engine for `options`."""
    return OnRay(options.jobs, options.address or os.environ.get("RAY_ADDRESS"))


class OnRay:
    """At most `jobs` workers at the same time; None: as many as fit on the cluster."""

    def __init__(self, jobs: int | None, address: str | None) -> None:
        self.jobs, self.address = jobs, address
        self._ours = False

    def describe(self) -> str:
        """`the Ray cluster at auto, at most 8 at the same time`."""
        where = f"the Ray cluster at {self.address}" if self.address else "a Ray cluster on this machine"
        return where + (f", at most {self.jobs} at the same time" if self.jobs else "")

    def refuse(self, works: Sequence[Work]) -> list[str]:
        """See `base.Engine`; checks every node that could execute one of the runs."""
        self._connect(works)
        needs = {Resources.of(work) for work in works}
        nodes = [node for node in alive_nodes() if any(need.fits(node) for need in needs)]
        lines = [
            f"no node of the Ray cluster has {need}, which a run takes"
            for need in needs
            if not any(need.fits(node) for node in nodes)
        ]
        answers = {run_on_node(node["NodeID"], missing_here, one_per_requirement(works)): node for node in nodes}
        for answer, node in answers.items():
            try:
                lines += ray.get(answer, timeout=ANSWER)
            except RayError as error:
                lines.append(f"node {node['NodeManagerHostname']} cannot do it: {ray_error_line(error)}")
        return list(dict.fromkeys(lines))

    def execute(self, works: Sequence[Work]) -> Generator[tuple[Work, Report], None, None]:
        """See `base.Engine`."""
        if not works:
            return
        self._connect(works)
        with token_in(works[0].options.results) as token:
            for need in dict.fromkeys(Resources.of(work) for work in works):
                pool = Pool(need, token, self.jobs)
                try:
                    yield from pool.carry_out(work for work in works if Resources.of(work) == need)
                finally:
                    pool.close()

    def close(self) -> None:
        """Disconnect; this ends a cluster that was started here."""
        if self._ours and ray.is_initialized():
            ray.shutdown()
        self._ours = False

    def _connect(self, works: Sequence[Work]) -> None:
        threads = max(work.spec.threads for work in works)
        jobs = self.jobs or max(1, (os.cpu_count() or 1) // threads)
        self._ours = connect(self.address, jobs * threads) or self._ours


class Pool:
    """Workers with equal resources. Runs are given only to ready workers: a node may never become available."""

    def __init__(self, need: Resources, token: Token, jobs: int | None) -> None:
        self.need, self.token, self.jobs = need, token, jobs
        self.idle: list[WorkerHandle] = []
        self.starting: dict[Any, WorkerHandle] = {}  # by the Ray reference that is resolved when the worker is ready
        self.running: dict[Any, WorkerHandle] = {}  # by the Ray reference to the result of the run
        self._failed_starts = 0

    def carry_out(self, works: Iterator[Work]) -> Iterator[tuple[Work, Report]]:
        """Execute each of `works` once; yields them as they end."""
        queue = deque(works)
        while queue or self.running:
            while queue and self.idle:
                work, handle = queue.popleft(), self.idle.pop()
                answer = start_run(handle, work)
                if isinstance(answer, Report):
                    self.idle.append(handle)
                    yield work, answer
                else:
                    self.running[answer] = handle
            if not queue:  # release the cores for other users of the cluster
                self._release([*self.idle, *self.starting.values()])
                self.idle, self.starting = [], {}
            self._start_workers(len(queue))
            pending = [*self.running, *self.starting]
            for answer in ray.wait(pending, timeout=LOOK)[0] if pending else []:
                if answer in self.starting:
                    self._started(answer)
                else:
                    yield self._ended(answer)
            for handle in self.running.values():
                write_heartbeat(handle)

    def close(self) -> None:
        """Stop all workers, also running ones."""
        self._release([*self.idle, *self.starting.values(), *self.running.values()])

    def _start_workers(self, waiting: int) -> None:
        most = self.jobs or max(1, sum(self.need.fits(node) for node in alive_nodes()))
        while len(self.starting) < min(waiting, most - len(self.running)):
            handle = create_worker(self.need, self.token)
            self.starting[handle.actor.place.remote()] = handle

    def _started(self, answer: Any) -> None:
        handle = self.starting.pop(answer)
        try:
            handle.place = ray.get(answer)
            self.idle.append(handle)
            self._failed_starts = 0
        except RayError as error:
            self._release([handle])
            self._failed_starts += 1
            if self._failed_starts >= STARTS * (1 + len(self.starting)) and not self.running:
                raise RunError(f"workers do not come up on the Ray cluster: {ray_error_line(error)}") from error

    def _ended(self, answer: Any) -> tuple[Work, Report]:
        handle = self.running.pop(answer)
        work, report = collect_result(handle, answer)
        if report.outcome in ("done", "skipped", "busy"):
            self.idle.append(handle)
        else:  # a failed method may have changed global state of its process
            self._release([handle])
        return work, report

    def _release(self, handles: Sequence[WorkerHandle]) -> None:
        if ray.is_initialized():
            stop_worker(handles)
