"""Runs on a Ray cluster: an existing one, or one started on this machine for as long as the plan takes.

Ray places workers, watches nodes and moves files. A worker is an actor that holds the cores (and the GPU) of one run,
does one run after the other, and is given back when nothing waits. What died is reported as lost, and the driver lets
it go on from its checkpoint; Ray's own retries could not tell a run that ended itself for its limits from a lost node.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from typing import Any

# Ray reads this when it is imported; without it, it tells of every worker that dies, in a paragraph on the output
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

LOOK = 5.0  # seconds between two looks at what nodes there are
STARTS = 3  # times that no worker at all comes up before the plan is given up


def make(options: EngineOptions) -> OnRay:
    """The engine for `options`."""
    return OnRay(options.jobs, options.address or os.environ.get("RAY_ADDRESS"))


class OnRay:
    """At most `jobs` workers at the same time, or as many as the cluster holds."""

    def __init__(self, jobs: int | None, address: str | None) -> None:
        self.jobs, self.address = jobs, address
        self._ours = False

    def describe(self) -> str:
        """`the Ray cluster at auto, at most 8 at the same time`."""
        where = f"the Ray cluster at {self.address}" if self.address else "a Ray cluster on this machine"
        return where + (f", at most {self.jobs} at the same time" if self.jobs else "")

    def refuse(self, works: Sequence[Work]) -> list[str]:
        """Asks every node that could hold one of the runs; see `base.Engine`."""
        self._connect(works)
        needs = {Resources.of(work) for work in works}
        nodes = [node for node in alive_nodes() if any(need.fits(node) for need in needs)]
        found = [
            f"no node of the Ray cluster has {need}, which a run takes"
            for need in needs
            if not any(need.fits(node) for node in nodes)
        ]
        asked = {run_on_node(node["NodeID"], missing_here, one_per_requirement(works)): node for node in nodes}
        for answer, node in asked.items():
            try:
                found += ray.get(answer, timeout=ANSWER)
            except RayError as error:
                found.append(f"node {node['NodeManagerHostname']} cannot do it: {ray_error_line(error)}")
        return list(dict.fromkeys(found))

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
        """Disconnect; a cluster that was started here ends."""
        if self._ours and ray.is_initialized():
            ray.shutdown()
        self._ours = False

    def _connect(self, works: Sequence[Work]) -> None:
        threads = max(work.spec.threads for work in works)
        jobs = self.jobs or max(1, (os.cpu_count() or 1) // threads)
        self._ours = connect(self.address, jobs * threads) or self._ours


class Pool:
    """Workers of one kind. A run is given to one that is ready, so that none waits for a node that may not come."""

    def __init__(self, need: Resources, token: Token, jobs: int | None) -> None:
        self.need, self.token, self.jobs = need, token, jobs
        self.idle: list[WorkerHandle] = []
        self.coming: dict[Any, WorkerHandle] = {}  # by the reference that tells when they are ready
        self.running: dict[Any, WorkerHandle] = {}  # by the reference to the end of their run
        self._failed_starts = 0

    def carry_out(self, works: Iterator[Work]) -> Iterator[tuple[Work, Report]]:
        """All of `works`, each once, as they end."""
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
            if not queue:  # others may want the cores
                self._release([*self.idle, *self.coming.values()])
                self.idle, self.coming = [], {}
            self._hire(len(queue))
            waited_for = [*self.running, *self.coming]
            for answer in ray.wait(waited_for, timeout=LOOK)[0] if waited_for else []:
                if answer in self.coming:
                    self._welcome(answer)
                else:
                    yield self._ended(answer)
            for handle in self.running.values():
                write_heartbeat(handle)

    def close(self) -> None:
        """Let all workers go, whatever they are at."""
        self._release([*self.idle, *self.coming.values(), *self.running.values()])

    def _hire(self, waiting: int) -> None:
        room = self.jobs or max(1, sum(self.need.fits(node) for node in alive_nodes()))
        while len(self.coming) < min(waiting, room - len(self.running)):
            handle = create_worker(self.need, self.token)
            self.coming[handle.actor.place.remote()] = handle

    def _welcome(self, answer: Any) -> None:
        handle = self.coming.pop(answer)
        try:
            handle.place = ray.get(answer)
            self.idle.append(handle)
            self._failed_starts = 0
        except RayError as error:
            self._release([handle])
            self._failed_starts += 1
            if self._failed_starts >= STARTS * (1 + len(self.coming)) and not self.running:
                raise RunError(f"workers do not come up on the Ray cluster: {ray_error_line(error)}") from error

    def _ended(self, answer: Any) -> tuple[Work, Report]:
        handle = self.running.pop(answer)
        work, report = collect_result(handle, answer)
        if report.outcome in ("done", "skipped", "busy"):
            self.idle.append(handle)
        else:  # a method that failed may have left anything behind in its process
            self._release([handle])
        return work, report

    def _release(self, handles: Sequence[WorkerHandle]) -> None:
        if ray.is_initialized():
            stop_worker(handles)
