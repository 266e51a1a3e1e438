"""Disturb a plan on a Ray cluster and through submitit, let it end, and compare with an undisturbed one.

    python tests/helpers/survive_on_clusters.py                       every fault
    python tests/helpers/survive_on_clusters.py --fault ray_node_removed

Like `survive_faults.py`: one line per fault, and exit status 0 if every plan ended as it should. The Ray clusters have
several nodes on this machine; submitit's local executor replaces Slurm: it sends the same signals and requeues jobs.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from ray_nodes import cluster, head_apart, may_mount
from survive_faults import EVERY_ROUND, FAULTY, Scene, disturb, during_run

from dfkd_bench.engines import engine
from dfkd_bench.engines.base import EngineOptions, Limits
from dfkd_bench.engines.scheduler import SchedulerOptions
from dfkd_bench.runs import records
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.runs.planned import PlannedRun


def outcomes(scene: Scene) -> list[str]:
    """The reported outcomes, in order."""
    return [outcome for _, _, outcome in scene.told]


def went_on(scene: Scene, planned: list[PlannedRun]) -> list[str]:
    """An error unless exactly one run was interrupted and resumed from its checkpoint."""
    restarts = sorted(records.read(scene.results / p.spec.folder)["measurement"]["restarts"] for p in planned)
    return [f"restarts {restarts}"] * (restarts != [0, 1])


def on_ray(scene: Scene, planned: list[PlannedRun], address: str, terms: SchedulerOptions = EVERY_ROUND) -> list[str]:
    """Run a plan on an existing cluster; returns what is wrong."""
    summary = scene.execute(planned, terms, where=engine("ray", EngineOptions(address=address)))
    return scene.wrong(planned) + [f"failed: {[why for _, why in summary.failed]}"] * bool(summary.failed)


def ray_worker_killed(scene: Scene, address: str = "") -> list[str]:
    """A Ray worker is killed with SIGKILL during a run."""
    with some_cluster(address) as where:
        planned = scene.plan()
        thread = during_run(scene, lambda folder, pid: os.kill(pid, signal.SIGKILL))
        wrong = on_ray(scene, planned, where) + ["no worker was killed"] * thread.is_alive()
    wrong += [f"told {scene.told}"] * (sorted(outcomes(scene)) != ["done", "done", "lost"])
    return wrong + went_on(scene, planned)


def ray_node_removed(scene: Scene) -> list[str]:
    """A node of a Ray cluster is removed during a run on it."""
    with cluster(2) as (made, nodes):

        def remove(folder: Path, pid: int) -> None:
            above = {parent.pid for parent in psutil.Process(pid).parents()}
            (hit,) = [node for node in nodes if above & {p.process.pid for p in node.all_processes["raylet"]}]
            made.remove_node(hit)

        planned = scene.plan()
        thread = during_run(scene, remove)
        wrong = on_ray(scene, planned, made.address) + ["no node was removed"] * thread.is_alive()
    wrong += [f"told {scene.told}"] * (sorted(outcomes(scene)) != ["done", "done", "lost"])
    return wrong + went_on(scene, planned)


def ray_limits(scene: Scene, address: str = "") -> list[str]:
    """Runs on Ray hang or leak until their limits end them; a new worker executes the next run."""
    with some_cluster(address) as where:
        runs = {"Hangs": Limits(seconds=8.0), "Leaks": Limits(memory_bytes=1_400_000_000)}
        for name, limits in runs.items():
            request = Request((f"{FAULTY}:{name}",), budget="smoke", threads=1, device="cpu")
            on_ray(scene, make_plan(request, scene.results), where, SchedulerOptions(limits, checkpoint_seconds=-1.0))
        wrong = [f"told {scene.told}"] * (outcomes(scene) != ["ended", "ended"])
        status = [scene.status_of(name) for name in runs]
        errors = ["it took longer than 8 s (--run-timeout)", "it took more memory than --memory-limit allows"]
        wrong += [f"left {status}"] * (status != [[("failed", error)] for error in errors])
        return wrong + on_ray(scene, scene.plan(), where)


def ray_not_shared(scene: Scene) -> list[str]:
    """Nodes do not see the results folder, and a worker is killed: its checkpoint is copied to the next one."""
    if not may_mount():
        return ["skipped: mounts of its own for a process are not allowed here"]
    home = scene.results.parent / "home"
    before = os.environ.get("DFKD_BENCH_HOME")
    os.environ["DFKD_BENCH_HOME"] = str(home)  # workers without the results folder write runs below it
    try:
        with head_apart(scene.results, cores=2) as address:
            planned = scene.plan()
            elsewhere = Scene(scene.whole, home)
            thread = during_run(elsewhere, lambda folder, pid: os.kill(pid, signal.SIGKILL))
            wrong = on_ray(scene, planned, address) + ["no worker was killed"] * thread.is_alive()
    finally:
        os.environ.pop("DFKD_BENCH_HOME")
        if before is not None:
            os.environ["DFKD_BENCH_HOME"] = before
    wrong += [f"told {scene.told}"] * (sorted(outcomes(scene)) != ["done", "done", "lost"])
    wrong += [f"left with a worker: {path}" for path in home.rglob("record.json")]
    return wrong + went_on(scene, planned)


def through_submitit(scene: Scene, planned: list[PlannedRun], **config: Any) -> list[str]:
    """Run a plan through submitit's local executor; returns what is wrong."""
    where = engine("slurm", EngineOptions(2, None, {"cluster": "local", **config}, scene.results))
    summary = scene.execute(planned, where=where)
    return scene.wrong(planned) + [f"failed: {[why for _, why in summary.failed]}"] * bool(summary.failed)


def slurm_timed_out(scene: Scene) -> list[str]:
    """A job reaches its time limit during a run, and submitit puts it back into the queue."""
    planned = scene.plan()
    thread = during_run(scene, lambda folder, pid: os.kill(pid, signal.SIGUSR2))
    wrong = through_submitit(scene, planned, timeout_min=3) + ["none timed out"] * thread.is_alive()
    logs = [path.read_text() for path in (scene.results / ".slurm").rglob("*_log.out")]
    wrong += ["no job was put back"] * (not any("Requeued job" in text and "has timed out" in text for text in logs))
    wrong += [f"told {scene.told}"] * (outcomes(scene) != ["done", "done"])
    return wrong + went_on(scene, planned)


def slurm_job_killed(scene: Scene) -> list[str]:
    """A job is killed with SIGKILL during a run."""
    planned = scene.plan()
    thread = during_run(scene, lambda folder, pid: os.kill(pid, signal.SIGKILL))
    wrong = through_submitit(scene, planned) + ["no worker was killed"] * thread.is_alive()
    wrong += [f"told {scene.told}"] * (sorted(outcomes(scene)) != ["done", "done", "lost"])
    return wrong + went_on(scene, planned)


@contextmanager
def some_cluster(address: str) -> Iterator[str]:
    """The cluster at `address`, or a temporary one of two nodes if it is empty."""
    if address:
        yield address
        return
    with cluster(2) as (made, _):
        yield made.address


FAULTS: dict[str, Callable[[Scene], list[str]]] = {
    f.__name__: f
    for f in (ray_worker_killed, ray_node_removed, ray_limits, ray_not_shared, slurm_timed_out, slurm_job_killed)
}


if __name__ == "__main__":
    sys.exit(disturb(__doc__, FAULTS))
