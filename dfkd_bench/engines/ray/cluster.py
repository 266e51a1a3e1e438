"""The Ray cluster: connecting, the resources of runs and nodes, and function calls on a given node."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from dfkd_bench.engines.base import Work
from dfkd_bench.errors import UsageError

STORE = 256 * 2**20  # bytes of the object store of a cluster started here: the files of a run take a few MB
PATHS = ("DFKD_BENCH_DATA", "DFKD_BENCH_HOME", "PYTHONPATH")


@dataclass(frozen=True)
class Resources:
    """The resources of a node that one run needs."""

    cores: int
    gpus: int

    @classmethod
    def of(cls, work: Work) -> Resources:
        """One core per thread, and one GPU for device cuda."""
        return cls(work.spec.threads, int(work.spec.device == "cuda"))

    def fits(self, node: dict[str, Any]) -> int:
        """The number of such runs that a node can execute at the same time."""
        has = node["Resources"]
        runs = int(has.get("CPU", 0)) // self.cores
        return min(runs, int(has.get("GPU", 0)) // self.gpus) if self.gpus else runs

    def __str__(self) -> str:
        return f"{self.cores} core{'s' * (self.cores > 1)}" + " and a GPU" * self.gpus


def connect(address: str | None, cores: int) -> bool:
    """Connect to the cluster at `address`, or start one with `cores` cores here.

    Returns False if this process was connected already, so that the caller must not disconnect. Raises `UsageError` if
    connecting fails.
    """
    if ray.is_initialized():  # by Python code that uses this package
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports from a cluster started here
    start = {"num_cpus": cores, "object_store_memory": STORE, "include_dashboard": False}
    options: dict[str, Any] = {} if address else start
    for last in (True,) if address else (False, True):  # a second try: a busy machine can exceed Ray's time limit
        try:
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
            break
        except Exception as error:  # Ray raises many types, plain Exception too
            ray.shutdown()  # of processes that have started
            if last:
                where = f"no Ray cluster at {address}" if address else "no Ray cluster can be started here"
                hint = " (is one there, and is RAY_AUTH_MODE here what it is there?)" if address else ""
                raise UsageError(f"{where}: {ray_error_line(error)}{hint}") from error
    return True


def alive_nodes() -> list[dict[str, Any]]:
    """The nodes that are alive, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def run_on_node(node: str, function: Any, *arguments: Any) -> Any:
    """Call `function` on a node (its id), even if its cores are in use; returns a Ray reference to the result."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return (
        ray.remote(function)
        .options(num_cpus=0, max_retries=0, scheduling_strategy=there, runtime_env=environment())
        .remote(*arguments)
    )


def environment() -> dict[str, Any]:
    """The environment variables for workers; paths are made absolute, as workers start in another folder."""
    variables = {name: value for name, value in os.environ.items() if name.startswith("DFKD_BENCH_")}
    for name in PATHS:
        if value := os.environ.get(name):
            paths = [os.path.abspath(os.path.expanduser(p)) for p in value.split(os.pathsep) if p]
            variables[name] = os.pathsep.join(paths)
    return {"env_vars": variables}


def ray_error_line(error: BaseException) -> str:
    """Type and first line of an error; for an error in a worker, of its cause."""
    cause = error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException) else error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[0]}" if lines else type(cause).__name__
