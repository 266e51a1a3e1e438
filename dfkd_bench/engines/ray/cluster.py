"""A Ray cluster as the engine needs it: connect, what a node can hold, and a question to each node."""

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

STORE = 256 * 2**20  # bytes for objects on their way, where the cluster is ours: records come to a few MB
PATHS = ("DFKD_BENCH_DATA", "DFKD_BENCH_HOME", "PYTHONPATH")


@dataclass(frozen=True)
class Resources:
    """What one run takes of a node."""

    cores: int
    gpus: int

    @classmethod
    def of(cls, work: Work) -> Resources:
        """A core per thread, and a GPU where it computes on one."""
        return cls(work.spec.threads, int(work.spec.device == "cuda"))

    def fits(self, node: dict[str, Any]) -> int:
        """How many such runs a node can hold at the same time."""
        has = node["Resources"]
        found = int(has.get("CPU", 0)) // self.cores
        return min(found, int(has.get("GPU", 0)) // self.gpus) if self.gpus else found

    def __str__(self) -> str:
        return f"{self.cores} core{'s' * (self.cores > 1)}" + " and a GPU" * self.gpus


def connect(address: str | None, cores: int) -> bool:
    """Connect to the cluster at `address`, or start one of `cores` cores here; whether it is ours to disconnect from.

    Raises `UsageError` where there is none.
    """
    if ray.is_initialized():  # by whoever uses this from Python
        return False
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster that is started here tells nobody
    start = {"num_cpus": cores, "object_store_memory": STORE, "include_dashboard": False}
    options: dict[str, Any] = {} if address else start
    for last in (True,) if address else (False, True):  # a busy machine may not come up in the time that Ray gives it
        try:
            ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
            break
        except Exception as error:  # Ray raises all kinds, bare ones too
            ray.shutdown()  # of what had begun to start
            if last:
                where = f"no Ray cluster at {address}" if address else "no Ray cluster can be started here"
                hint = " (is one there, and is RAY_AUTH_MODE here what it is there?)" if address else ""
                raise UsageError(f"{where}: {ray_error_line(error)}{hint}") from error
    return True


def alive_nodes() -> list[dict[str, Any]]:
    """The nodes of the moment, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]


def run_on_node(node: str, question: Any, *words: Any) -> Any:
    """A reference to what the function `question` answers on a node (its id), be that busy or not."""
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return (
        ray.remote(question)
        .options(num_cpus=0, max_retries=0, scheduling_strategy=there, runtime_env=environment())
        .remote(*words)
    )


def environment() -> dict[str, Any]:
    """What workers are to have of this process's environment; paths made absolute, as they start elsewhere."""
    found = {name: value for name, value in os.environ.items() if name.startswith("DFKD_BENCH_")}
    for name in PATHS:
        if value := os.environ.get(name):
            found[name] = os.pathsep.join(os.path.abspath(os.path.expanduser(p)) for p in value.split(os.pathsep) if p)
    return {"env_vars": found}


def ray_error_line(error: BaseException) -> str:
    """What an error says, in one line; of an error in a worker, what that said."""
    cause = error.cause if isinstance(error, RayTaskError) and isinstance(error.cause, BaseException) else error
    said = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return f"{type(cause).__name__}: {said[0]}" if said else type(cause).__name__
