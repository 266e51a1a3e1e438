"""The driver of a sweep, with an engine that does as it is told: what goes again, what is counted, what is left."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import pytest
from factory import bare_record
from smoke_runs import plan

from dfkd_bench.engines.base import Limits, Report, Work
from dfkd_bench.engines.scheduler import SchedulerOptions, read_plans, run_plan, works_of, write_plan
from dfkd_bench.errors import UsageError
from dfkd_bench.runs import records
from dfkd_bench.runs.planned import PlannedRun

NOW = SchedulerOptions(patience=0.0)


class Scripted:
    """Yields for each run the next of its reports; `before` is done first, as a worker would."""

    def __init__(self, script: dict[int, list[Report]], lacks: Sequence[str] = ()) -> None:
        self.script, self.lacks = script, list(lacks)
        self.batches: list[list[int]] = []

    def describe(self) -> str:
        return "a script"

    def refuse(self, works: Sequence[Work]) -> list[str]:
        return self.lacks

    def execute(self, works: Sequence[Work]) -> Generator[tuple[Work, Report], None, None]:
        self.batches.append([work.spec.seed for work in works])
        for work in works:
            yield work, self.script[work.spec.seed].pop(0)

    def close(self) -> None:
        pass


def plan_of(results: Path, seeds: tuple[int, ...] = (0, 1, 2)) -> list[PlannedRun]:
    return plan(results, "noise", seeds=seeds)


DONE, LOST, BUSY = Report("done", 1.0), Report("lost", 0.0, "its worker died"), Report("busy")


def test_what_is_lost_goes_again_and_what_is_busy_is_waited_for(tmp_path: Path) -> None:
    told: list[tuple[int, str]] = []
    where = Scripted({0: [DONE], 1: [LOST, LOST, DONE], 2: [BUSY, BUSY, BUSY, Report("skipped")]})
    summary = run_plan(plan_of(tmp_path), tmp_path, where, NOW, lambda w, r: told.append((w.spec.seed, r.outcome)))
    assert where.batches == [[0, 1, 2], [1, 2], [1, 2], [2]]
    assert [w.spec.seed for w in summary.done] == [0, 1]
    assert [w.spec.seed for w in summary.skipped] == [2]
    assert summary.failed == []
    assert told.count((1, "lost")) == 2


def test_what_is_lost_too_often_has_failed_and_leaves_a_record(tmp_path: Path) -> None:
    where = Scripted({0: [LOST] * 3})
    (planned,) = plan_of(tmp_path, (0,))
    summary = run_plan([planned], tmp_path, where, NOW)
    assert len(where.batches) == 3
    assert [(w.spec.seed, error) for w, error in summary.failed] == [(0, "its worker died")]
    assert records.read(tmp_path / planned.spec.folder)["result"] == {"status": "failed", "error": "its worker died"}


def test_a_run_that_was_ended_for_its_time_is_not_tried_again(tmp_path: Path) -> None:
    (planned,) = plan_of(tmp_path, (0,))
    folder = tmp_path / planned.spec.folder
    folder.mkdir(parents=True)
    (folder / "hang-123.txt").write_text("Timeout (0:00:09)!\nThread 1\n")
    where = Scripted({0: [LOST]})
    summary = run_plan([planned], tmp_path, where, SchedulerOptions(Limits(seconds=9.0)))
    assert [error for _, error in summary.failed] == ["it took longer than 9 s (--run-timeout)"]
    assert (folder / "hang.txt").read_text().startswith("Timeout")
    assert not (folder / "hang-123.txt").exists()


def test_failed_runs_rest_until_asked_for(tmp_path: Path) -> None:
    run_plan(plan_of(tmp_path, (0,)), tmp_path, Scripted({0: [LOST] * 3}), NOW)
    again = plan_of(tmp_path, (0, 1))
    assert [p.state for p in again] == ["failed", "missing"]
    assert [w.spec.seed for w in works_of(again, tmp_path, NOW)] == [1]
    assert [w.spec.seed for w in works_of(again, tmp_path, SchedulerOptions(retry_failed=True))] == [0, 1]


def test_the_reason_of_a_failure_comes_from_its_record(tmp_path: Path) -> None:
    (planned,) = plan_of(tmp_path, (0,))
    folder = tmp_path / planned.spec.folder
    folder.mkdir(parents=True)
    records.write(folder, bare_record(planned.spec, status="failed", error="ValueError: no"))
    summary = run_plan([planned], tmp_path, Scripted({0: [Report("failed")]}), SchedulerOptions(retry_failed=True))
    assert [error for _, error in summary.failed] == ["ValueError: no"]


def test_what_workers_lack_is_said_before_anything_runs(tmp_path: Path) -> None:
    where = Scripted({}, ["method x is another version on node-1", "no dataset on node-2"])
    with pytest.raises(UsageError, match=r"^method x is another version on node-1; no dataset on node-2$"):
        run_plan(plan_of(tmp_path), tmp_path, where, NOW)
    assert where.batches == []


def test_plans_lie_beside_their_results_each_run_once(tmp_path: Path) -> None:
    first = write_plan(plan_of(tmp_path, (0, 1)), tmp_path)
    assert write_plan(plan_of(tmp_path, (0, 1)), tmp_path) == first
    write_plan(plan_of(tmp_path, (1, 2)), tmp_path)
    assert sorted(row["spec"]["seed"] for row in read_plans(tmp_path)) == [0, 1, 2]
