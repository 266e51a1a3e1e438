"""Runs as Slurm jobs: one job array for all runs with the same resources. submitit does arrays, logs and requeues.

If a run is preempted or reaches its time limit, submitit puts it back into the queue, and it is resumed from its last
checkpoint. Jobs continue if the driver is stopped; the next driver of the results folder waits for them instead of
submitting them again. `scancel` ends them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import submitit

from dfkd_bench.engines.base import EngineOptions, Report, Work
from dfkd_bench.engines.slurm.config import CLUSTER, check, parameters, settings_for, unknown_methods
from dfkd_bench.engines.slurm.job import Run
from dfkd_bench.engines.worker import missing_here, one_per_requirement
from dfkd_bench.errors import RunError
from dfkd_bench.runs import records
from dfkd_bench.utils.files import write_atomic
from dfkd_bench.utils.parse import read_json

LOGS = ".slurm"  # below the results folder
ARRAY = 1000  # jobs of one array; Slurm's default limit is 1001
PAUSES = (0.2, 5.0)  # shortest and longest time in seconds between two checks of the jobs


def make(options: EngineOptions) -> OnSlurm:
    """The engine for `options`. Raises `UsageError` for a wrong configuration."""
    check(options.config)
    return OnSlurm(options.jobs, options.config)


class OnSlurm:
    """Job arrays; `config` is the table [slurm], see `config`."""

    def __init__(self, jobs: int | None, config: Mapping[str, Any]) -> None:
        self.jobs, self.config = jobs, config
        self.cluster = config.get(CLUSTER, "slurm")

    def describe(self) -> str:
        """`Slurm job arrays in partition gpu, at most 8 jobs at the same time; they go on without this command`."""
        if self.cluster == "local":
            return "submitit's local jobs, which stand in for Slurm's"
        where = f" in partition {self.config['partition']}" if "partition" in self.config else ""
        most = f", at most {self.jobs} jobs at the same time" if self.jobs else ""
        return f"Slurm job arrays{where}{most}; they go on without this command, and scancel ends them"

    def refuse(self, works: Sequence[Work]) -> list[str]:
        """See `base.Engine`; checks this machine, from which jobs are submitted. Each job checks its node again."""
        return unknown_methods(self.config, (work.spec.method for work in works)) + missing_here(
            one_per_requirement(works)
        )

    def execute(self, works: Sequence[Work]) -> Generator[tuple[Work, Report], None, None]:
        """See `base.Engine`. Closing the iterator leaves the jobs to Slurm."""
        waiting = self._earlier_jobs(works)
        known = {work.spec.hash for work, _ in waiting}
        arrays = self._arrays([work for work in works if work.spec.hash not in known])
        pause, longest = PAUSES
        while arrays or waiting:
            while arrays and self._may_submit(len(waiting)):
                waiting += self._submit(arrays.pop(0))
            jobs, waiting, done = waiting, list[tuple[Work, Any]](), list[tuple[Work, Any]]()
            for work, job in jobs:
                (done if job.done() else waiting).append((work, job))
            for work, job in done:
                job_file(work).unlink(missing_ok=True)
                yield work, report_of(work, job)
            pause = PAUSES[0] if done else min(longest, 1.5 * pause)
            if waiting and not done:
                time.sleep(pause)

    def close(self) -> None:
        """Nothing to release."""

    def _may_submit(self, running: int) -> bool:
        """Always True for Slurm, which has a queue; submitit's local jobs start at once, so their number is limited."""
        return self.cluster != "local" or running < (self.jobs or os.cpu_count() or 1)

    def _arrays(self, works: Sequence[Work]) -> list[list[Work]]:
        """The runs grouped by resources, in arrays of at most `ARRAY`."""
        groups: dict[str, list[Work]] = {}
        for work in works:
            groups.setdefault(json.dumps(self._settings(work), sort_keys=True), []).append(work)
        size = 1 if self.cluster == "local" else ARRAY
        return [group[k : k + size] for group in groups.values() for k in range(0, len(group), size)]

    def _settings(self, work: Work) -> dict[str, Any]:
        settings = settings_for(self.config, work.spec.method)
        return {**parameters(settings, work, self.jobs), "requeues": settings["requeues"]}

    def _submit(self, works: Sequence[Work]) -> list[tuple[Work, Any]]:
        """Submit one array. Raises `RunError` if Slurm refuses it."""
        settings = self._settings(works[0])
        requeues = settings.pop("requeues")
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{works[0].spec.hash}"
        folder = works[0].options.results / LOGS / stamp
        try:
            executor = submitit.AutoExecutor(
                folder, cluster=self.cluster, slurm_max_num_timeout=requeues, local_max_num_timeout=requeues
            )
            executor.update_parameters(**settings)
            jobs = executor.submit_array([Run(work) for work in works])
        except (RuntimeError, OSError) as error:  # srun is not installed, or sbatch failed
            raise RunError(f"Slurm takes no jobs: {str(error).strip().splitlines()[-1]}") from error
        for work, job in zip(works, jobs, strict=True):
            job_file(work).parent.mkdir(parents=True, exist_ok=True)
            about = {"cluster": self.cluster, "folder": str(folder), "job": job.job_id}
            write_atomic(job_file(work), json.dumps(about).encode())
        return list(zip(works, jobs, strict=True))

    def _earlier_jobs(self, works: Sequence[Work]) -> list[tuple[Work, Any]]:
        """The jobs of an earlier driver that are still in the queue or running."""
        jobs: list[tuple[Work, Any]] = []
        for work in works:
            with suppress(OSError, ValueError, KeyError):
                about = read_json(job_file(work))
                if about["cluster"] == self.cluster == "slurm":
                    jobs.append((work, submitit.SlurmJob(about["folder"], about["job"])))
        if not jobs:
            return []
        jobs[0][1].get_info(mode="force")  # one query of Slurm for all jobs
        return [(work, job) for work, job in jobs if job.get_info(mode="cache").get("State") and not job.done()]


def job_file(work: Work) -> Path:
    """The file with the id of the job of a run."""
    return work.options.results / LOGS / "jobs" / f"{work.spec.hash}.json"


def report_of(work: Work, job: Any) -> Report:
    """The report of a finished job."""
    if not job.paths.result_pickle.exists():
        return without_result(work, job)
    error = job.exception()
    if error is None:
        report: Report = job.result()
        return report
    text = str(error)
    if "timed-out too many times" in text:
        return Report("ended", 0.0, "it was put back into the queue too often: raise timeout_min or requeues")
    return Report("lost", 0.0, f"its job {job.job_id} failed (log: {job.paths.stderr})")


def without_result(work: Work, job: Any) -> Report:
    """The report of a job without a result file, from the record or from Slurm's state of the job."""
    try:
        if records.finished(work.options.results, work.spec):
            return Report("done")
    except RunError:
        pass
    state = str(job.state).upper()
    if state.startswith("CANCELLED"):
        return Report("failed", 0.0, f"its job {job.job_id} was cancelled")
    if state == "OUT_OF_MEMORY":
        return Report("ended", 0.0, "it took more memory than its job has (mem_gb)")
    return Report("lost", 0.0, f"its job {job.job_id} ended as {state} (log: {job.paths.stderr})")
