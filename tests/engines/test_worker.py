"""What engines share on the side of the worker: marks of limits, who is at a run, what is lacking."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from factory import bare_record
from filelock import FileLock
from smoke_runs import plan, plan_one
from test_driver import DONE, LOST, Scripted

from dfkd_bench.engines.base import Limits, Report, Work
from dfkd_bench.engines.scheduler import SchedulerOptions, run_plan, works_of
from dfkd_bench.engines.worker import MEMORY_EXCEEDED, missing_here, one_per_requirement, over_limit, with_limits
from dfkd_bench.runs import records


@pytest.fixture
def work(tmp_path: Path) -> Work:
    (made,) = works_of(plan(tmp_path, "noise"), tmp_path, SchedulerOptions(Limits(seconds=5.0, memory_bytes=2**40)))
    made.folder.mkdir(parents=True)
    return made


def test_marks_of_limits_are_read_once(work: Work) -> None:
    assert over_limit(work) == ""
    (work.folder / "hang-7.txt").touch()  # it was watched, and did not hang
    assert over_limit(work) == ""
    (work.folder / "memory-7.txt").write_text("9 bytes\n")
    assert over_limit(work) == MEMORY_EXCEEDED
    (work.folder / "hang-7.txt").write_text("Timeout\n")
    assert over_limit(work) == "it took longer than 5 s (--run-timeout)"
    assert over_limit(work) == ""


def test_marks_of_an_earlier_process_are_none_of_the_next(work: Work) -> None:
    (work.folder / "memory-7.txt").write_text("9 bytes\n")
    (work.folder / "hang-7.txt").write_text("Timeout\n")
    with with_limits(work):
        pass
    assert over_limit(work) == ""
    assert (work.folder / "hang.txt").read_text() == "Timeout\n"


def changed_spec(work: Work, **fields: Any) -> Work:
    return replace(work, run=replace(work.run, spec=replace(work.spec, **fields)))


def test_what_is_lacking_is_named(work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing_here([work]) == []
    host = os.uname().nodename
    changed = changed_spec(work, code="0" * 64)
    assert missing_here([changed]) == [f"method noise is another version on {host}"]
    changed = changed_spec(work, teacher="0" * 64)
    assert missing_here([changed]) == [f"teacher {work.run.teacher.name} has another file on {host}"]
    monkeypatch.setenv("DFKD_BENCH_DATA", str(tmp_path / "none"))
    (line,) = missing_here([changed_spec(work, task="cifar10/resnet20-resnet8")])
    assert line.startswith("dataset cifar10 is not in ")
    assert line.endswith(f" on {host}")


def test_seeds_need_the_same_things(tmp_path: Path) -> None:
    works = works_of(plan(tmp_path, "noise", seeds=(0, 1, 2)), tmp_path, SchedulerOptions())
    other = changed_spec(works[0], code="0" * 64)
    assert len(one_per_requirement([*works, other])) == 2


# -- the driver and runs that others are at ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "terms", "outcomes"),
    [
        ("complete", SchedulerOptions(patience=0.0), ["busy", "skipped"]),
        ("failed", SchedulerOptions(patience=0.0), ["busy", "failed"]),
        ("failed", SchedulerOptions(patience=0.0, retry_failed=True), ["busy", "done"]),
        ("complete", SchedulerOptions(patience=0.0, force=True), ["busy", "done"]),
    ],
)
def test_what_another_process_is_at_is_waited_for_without_a_worker(
    tmp_path: Path, status: str, terms: SchedulerOptions, outcomes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    item = plan_one(tmp_path, "noise")
    folder = tmp_path / item.spec.folder
    folder.mkdir(parents=True)
    lock = FileLock(folder / ".lock")
    lock.acquire()

    def others_end(seconds: float) -> None:
        records.write(folder, bare_record(item.spec, status=status, error="no"))
        lock.release()

    monkeypatch.setattr("dfkd_bench.engines.scheduler.time.sleep", others_end)
    told: list[str] = []
    where = Scripted({0: [DONE]})
    summary = run_plan([item], tmp_path, where, terms, lambda work, report: told.append(report.outcome))
    assert told == outcomes
    assert where.batches == ([[], [0]] if outcomes[-1] == "done" else [[], []])
    assert [error for _, error in summary.failed] == ["no"] * (outcomes[-1] == "failed")


def test_what_force_removes_is_removed_once(tmp_path: Path) -> None:
    item = plan_one(tmp_path, "noise")
    given: list[bool] = []

    class Forced(Scripted):
        def execute(self, works):  # type: ignore[no-untyped-def]
            given.extend(work.options.force for work in works)
            yield from super().execute(works)

    run_plan([item], tmp_path, Forced({0: [LOST, Report("done")]}), SchedulerOptions(patience=0.0, force=True))
    assert given == [True, False]
