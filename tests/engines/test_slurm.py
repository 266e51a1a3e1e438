"""Slurm: what is submitted, with what settings; and submitit's local jobs, killed, timed out and put back."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

if find_spec("submitit") is None or find_spec("ray") is None:  # the faults of both are in one file
    pytest.skip("needs the extras: pip install 'dfkd-bench[ray,slurm]'", allow_module_level=True)

import survive_on_clusters as faults
from smoke_runs import plan
from survive_faults import Scene

from dfkd_bench.engines import engine
from dfkd_bench.engines.base import EngineOptions
from dfkd_bench.engines.scheduler import SchedulerOptions, works_of
from dfkd_bench.engines.slurm.engine import OnSlurm
from dfkd_bench.engines.slurm.job import Run
from dfkd_bench.errors import RunError, UsageError

SITE = {
    "partition": "gpu", "account": "vision", "timeout_min": 120, "mem_gb": 8, "max_parallel": 3,
    "setup": ["module load cuda"], "sbatch": {"reservation": "bench"},
    "methods": {"scratch": {"partition": "long", "mem_gb": 2.5}},
}  # fmt: skip
SLURM = {
    "srun": "exit 0",
    "sbatch": 'cd "$SUBMITTED"; cp "$1" "$(ls | wc -l).sh"; echo "Submitted batch job 7$(ls | wc -l)"',
    "sacct": 'cat "$SUBMITTED/../sacct"',
}


@pytest.fixture
def submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the scripts that were submitted to a Slurm that only takes them."""
    place = tmp_path / "submitted"
    place.mkdir()
    (tmp_path / "bin").mkdir()
    for name, text in SLURM.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "sacct").write_text("JobID|State|NodeList\n")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("SUBMITTED", str(place))
    return place


def works(results: Path, *methods: str, seeds: tuple[int, ...] = (0, 1)) -> list[Any]:
    planned = plan(results, *methods or ("noise", "scratch"), seeds=seeds, threads=2)
    return works_of(planned, results, SchedulerOptions())


def slurm(config: dict[str, Any], jobs: int | None = None) -> Any:
    return engine("slurm", EngineOptions(jobs, None, config))


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"partitoin": "gpu"}, "[slurm]: unknown key 'partitoin'; did you mean 'partition'?"),
        ({"timeout_min": "4h"}, "[slurm]: timeout_min takes a whole number, got '4h'"),
        ({"timeout_min": 0}, "[slurm]: timeout_min takes a whole number, got 0"),
        ({"setup": "module load"}, "[slurm]: setup takes a list of shell lines, got 'module load'"),
        ({"sbatch": "x"}, "[slurm]: sbatch takes a table, got 'x'"),
        ({"cluster": "pbs"}, "[slurm]: cluster is one of slurm, local, got 'pbs'"),
        ({"methods": {"noise": {"mem": 4}}}, "[slurm.methods.noise]: unknown key 'mem'; did you mean 'mem_gb'?"),
        ({"methods": {"noise": 4}}, "[slurm]: methods takes a table for each method, as [slurm.methods.NAME]"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        slurm(config)
    assert str(caught.value) == says


def test_settings_for_a_method_that_nobody_knows_are_refused(tmp_path: Path) -> None:
    where = slurm({"methods": {"scrach": {"mem_gb": 4}}})
    assert where.refuse(works(tmp_path)) == ["[slurm.methods.scrach]: there is no such method; did you mean 'scratch'?"]


def test_without_slurm_the_word_is_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RunError, match=r'^Slurm takes no jobs: Could not detect "srun"'):
        next(slurm({}).execute(works(tmp_path)))


# -- what is submitted ------------------------------------------------------------------------------------------------


def test_one_array_for_all_runs_that_take_the_same(submitted: Path, tmp_path: Path) -> None:
    where: OnSlurm = slurm(SITE)
    for array in where._arrays(works(tmp_path)):
        where._submit(array)
    first, second = (path.read_text().splitlines() for path in sorted(submitted.iterdir()))
    assert {
        "#SBATCH --array=0-1%2", "#SBATCH --partition=gpu", "#SBATCH --account=vision", "#SBATCH --time=120",
        "#SBATCH --mem=8GB", "#SBATCH --cpus-per-task=2", "#SBATCH --gpus-per-node=0", "#SBATCH --nodes=1",
        "#SBATCH --reservation=bench", "module load cuda",
    } <= set(first)  # fmt: skip
    assert {"#SBATCH --array=0-1%2", "#SBATCH --partition=long", "#SBATCH --mem=2560MB"} <= set(second)


def test_jobs_are_the_limit_where_the_site_names_none(submitted: Path, tmp_path: Path) -> None:
    where: OnSlurm = slurm({}, jobs=3)
    where._submit(works(tmp_path, "noise", seeds=(0, 1, 2, 3, 4)))
    assert "#SBATCH --array=0-4%3" in next(submitted.iterdir()).read_text()


def test_a_second_driver_waits_for_the_jobs_that_are_there(submitted: Path, tmp_path: Path) -> None:
    first = slurm({})
    plan = works(tmp_path, "noise", seeds=(0, 1, 2))
    first._submit(plan)
    (tmp_path / "sacct").write_text("JobID|State|NodeList\n71_0|RUNNING|n1\n71_1|FAILED|n1\n71_2|PENDING|\n")
    found = slurm({})._earlier_jobs(plan)
    assert [(work.spec.seed, job.job_id) for work, job in found] == [(0, "71_0"), (2, "71_2")]


def test_the_end_of_a_job_without_a_word_is_told_by_slurm(submitted: Path, tmp_path: Path) -> None:
    where = slurm({})
    plan = works(tmp_path, "noise", seeds=(5, 6, 7))
    states = ("OUT_OF_MEMORY", "CANCELLED by 1000", "NODE_FAIL")
    lines = [f"71_{k}|{state}|n1" for k, state in enumerate(states)]
    (tmp_path / "sacct").write_text("\n".join(["JobID|State|NodeList", *lines, ""]))
    told = {work.spec.seed: (report.outcome, report.error) for work, report in where.execute(plan)}
    assert told[5] == ("ended", "it took more memory than its job has (mem_gb)")
    assert told[6] == ("failed", "its job 71_1 was cancelled")
    assert told[7][0] == "lost"
    assert "71_2 ended as NODE_FAIL" in told[7][1]
    assert not list((tmp_path / ".slurm" / "jobs").iterdir())


def test_a_job_that_was_to_start_over_does_so_once(tmp_path: Path) -> None:
    (work,) = works_of(plan(tmp_path, "noise"), tmp_path, SchedulerOptions(force=True))
    job = Run(work)
    assert not job.checkpoint().function.work.options.force  # what there was is gone by now
    work.folder.mkdir(parents=True)
    (work.folder / "record.json").write_text("{}")
    assert job.checkpoint().function.work.options.force  # it has not come to that


# -- jobs that run ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["slurm_timed_out", "slurm_job_killed"])
def test_a_job_that_is_disturbed_goes_on_from_its_checkpoint(whole: Path, tmp_path: Path, fault: str) -> None:
    assert getattr(faults, fault)(Scene(whole, tmp_path)) == []
