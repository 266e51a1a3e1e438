"""Runs of so many seconds: their rounds are fixed before, kept when they go on or are repeated, and verified."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Command
from factory import make_record, write_record
from forge import Forger
from smoke_runs import GOOD, edited_good, plan_one, start, stop_at

from dfkd_bench.engines.scheduler import SchedulerOptions, work_of
from dfkd_bench.engines.worker import carry_out
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.results.verify import verify
from dfkd_bench.results.verify.case import read_case
from dfkd_bench.results.verify.identity import check_across
from dfkd_bench.runs import records
from dfkd_bench.runs.length import Length, RoundTiming
from dfkd_bench.runs.plan import plan_repeat
from dfkd_bench.runs.planned import PlannedRun
from dfkd_bench.training import runner, time_budget
from dfkd_bench.training.runner import Outcome
from dfkd_bench.training.time_budget import set_length
from dfkd_bench.utils import checkpoint

SHORT, PACE = "seconds:0.2", RoundTiming(0.03, 0.01, 3)  # five rounds


def plan_of(results: Path, budget: str = SHORT, method: str = GOOD) -> PlannedRun:
    return plan_one(results, method, budget=budget)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with one run of a budget of seconds, of as many rounds on every machine."""
    root, real = tmp_path_factory.mktemp("results"), time_budget.time_rounds
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(time_budget, "time_rounds", lambda job, seconds, longest: (real(job, 0.0), PACE)[1])
        start(plan_of(root), root)
    return root


@pytest.fixture
def record(results: Path) -> dict[str, Any]:
    """Its record."""
    return records.read(results / plan_of(results).spec.folder)


@pytest.fixture
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may be timed."""
    monkeypatch.setattr(time_budget, "time_rounds", lambda job, seconds, longest: pytest.fail("a pace was looked for"))


@pytest.mark.long
def test_a_run_has_the_rounds_that_its_record_says(results: Path, record: dict[str, Any]) -> None:
    assert Length.from_json(record["measurement"]["pace"]) == Length(5, PACE)
    assert record["manifest"]["settings"]["schedule"]["rounds"] == 5
    assert record["result"]["counts"]["student_steps"] == 2 * 5
    names = {path.name for path in (results / plan_of(results).spec.folder).iterdir()}
    assert names.isdisjoint({records.PACE, checkpoint.NAME})


@pytest.mark.long
def test_a_slow_method_gets_few_rounds(tmp_path: Path) -> None:
    slow = ("batch = self.make(16", "__import__('time').sleep(0.2)\n        batch = self.make(16")
    planned = plan_of(tmp_path, "seconds:1", edited_good(tmp_path / "slow.py", slow))
    found = start(planned, tmp_path).record
    assert 1 <= found["manifest"]["settings"]["schedule"]["rounds"] <= 5
    assert found["measurement"]["pace"]["synthesis"] >= 0.2


@pytest.mark.long
@pytest.mark.usefixtures("untimed")
def test_a_record_is_repeated_with_its_rounds_and_untimed_to_the_same_bytes(
    record: dict[str, Any], tmp_path: Path, command: Command
) -> None:
    """So a job that is timed and thrown away before a run leaves no trace in it either."""
    words = ("run", "--like", record["path"], "--method", GOOD, "--results", tmp_path)
    for more in ((), ("--force",)):
        status, out, err = command(*words, *more)
        assert (status, err) == (0, "")
        assert "The result is identical, byte for byte, to that of the record." in out
    again = records.read(tmp_path / plan_of(tmp_path).spec.folder)
    assert again["measurement"]["pace"] == record["measurement"]["pace"]


def test_force_times_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planned = plan_of(tmp_path)
    folder = tmp_path / planned.spec.folder
    folder.mkdir(parents=True)
    set_length(folder, Length(9, PACE))
    monkeypatch.setattr(time_budget, "time_rounds", lambda job, seconds, longest: RoundTiming(0.03, 0.02, 7))
    forced = start(planned, tmp_path, force=True).record
    assert forced["measurement"]["pace"] == {"rounds": 4, "synthesis": 0.03, "distillation": 0.02, "timed": 7}


@pytest.mark.usefixtures("untimed")
def test_a_run_taken_up_again_keeps_its_length(record: dict[str, Any], tmp_path: Path) -> None:
    planned, length = plan_of(tmp_path), Length(5, PACE)

    with pytest.raises(KeyboardInterrupt):
        start(replace(planned, length=length), tmp_path, callback=stop_at(2), checkpoint_seconds=-1.0)
    folder = tmp_path / planned.spec.folder
    assert (folder / checkpoint.NAME).exists()
    assert time_budget.read(folder / records.PACE) == length
    with pytest.raises(UsageError, match="start it over with --force"):
        start(replace(planned, length=replace(length, rounds=6)), tmp_path)
    assert not (folder / records.FILE).exists()  # no fault of the run
    resumed = start(planned, tmp_path).record
    assert resumed["measurement"]["restarts"] == 1
    assert resumed["measurement"]["pace"] == record["measurement"]["pace"]
    assert records.canonical(resumed["result"]) == records.canonical(record["result"])


def test_the_student_begins_as_in_every_other_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, teachers, rounds = [], [], []
    real = runner.assemble

    def assembled(*given: Any) -> Any:
        teachers.append(given[4])
        rounds.append(given[8])
        return real(*given)

    def stop(job: Any) -> None:
        begun.append(checkpoint.digest(job.student.state_dict()))
        raise RunError("enough")

    monkeypatch.setattr(runner, "assemble", assembled)
    monkeypatch.setattr(runner, "distill", stop)
    monkeypatch.setattr(time_budget, "timing_seconds", lambda seconds: 0.0)
    for budget in ("smoke", SHORT):
        with pytest.raises(RunError, match="enough"):
            start(plan_of(tmp_path, budget), tmp_path)
    assert len(begun) == 2
    assert len(set(begun)) == 1
    timed, its_own = teachers[1:]
    assert timed is not its_own  # what the timed job does to its teacher does not reach the run
    assert rounds == [None, time_budget.PROVISIONAL, time_budget.read(next(tmp_path.rglob(records.PACE))).rounds]


def test_a_worker_repeats_a_record_with_its_length(record: dict[str, Any], tmp_path: Path, monkeypatch: Any) -> None:
    planned = plan_repeat(record, tmp_path, GOOD)
    work = work_of(planned, tmp_path, SchedulerOptions())
    assert work.run.length == Length.from_json(record["measurement"]["pace"])
    given: list[Any] = []
    monkeypatch.setattr(runner, "run", lambda *a, **k: (given.append(a[0].length), Outcome({}, tmp_path, False))[1])
    assert carry_out(work).outcome == "done"
    assert given == [work.run.length]
    assert plan_repeat({"spec": record["spec"]}, tmp_path, GOOD).length is None  # a specification alone tells none


# -- verification -----------------------------------------------------------------------------------------------------


def problems(root: Path) -> list[str]:
    return [finding.what for finding in verify(root, quick=True).problems]


def test_verify_takes_a_run_of_seconds_and_refuses_other_rounds(results: Path, tmp_path: Path) -> None:
    assert verify(results).problems == []
    forger = Forger(results, tmp_path / "forged")
    folder = forger.root / plan_of(results).spec.folder
    original = (folder / records.FILE).read_bytes()

    def forge(change: Any) -> list[str]:
        (folder / records.FILE).write_bytes(original)
        forger.edit(change, folder)
        return problems(forger.root)

    rounds = json.loads(original)["manifest"]["settings"]["schedule"]["rounds"]
    name = f"manifest.settings.schedule.rounds is {rounds + 1}"

    def schedule(r: dict[str, Any]) -> None:
        r["manifest"]["settings"]["schedule"]["rounds"] += 1

    def both(r: dict[str, Any]) -> None:
        schedule(r)
        r["measurement"]["pace"]["rounds"] += 1

    def faster(r: dict[str, Any]) -> None:
        r["measurement"]["pace"]["distillation"] /= 3

    def none(r: dict[str, Any]) -> None:
        del r["measurement"]["pace"]

    assert f"{name}, measurement.pace says {rounds}" in forge(schedule)
    found = forge(both)
    assert any(what.startswith("manifest.settings.schedule.snapshots") for what in found)
    assert any(what.startswith("counts.student_steps") for what in found)
    assert any("KeyError 'pace'" in what for what in forge(none))
    assert any(
        "must be written as 'seconds:0.2'" in what for what in forge(lambda r: r["spec"].update(budget="seconds:0.20"))
    )
    assert any("needs 0.001 to" in what for what in forge(lambda r: r["spec"].update(budget="seconds:")))
    assert any("unknown budget 'huge'" in what for what in forge(lambda r: r["spec"].update(budget="huge")))
    assert forge(faster) == []  # the method is in a file: what rounds its flags give is not known here


@pytest.mark.parametrize("budget", ["quick", "seconds:60"])
def test_seeds_of_a_row_cost_the_same_but_where_each_has_its_own_pace(tmp_path: Path, budget: str) -> None:
    cases = []
    for seed in (0, 1):
        found = make_record(budget=budget, seed=seed)
        found["result"]["digests"]["student"] = f"{seed}" * 64
        found["result"]["counts"]["student_steps"] += seed
        case, _ = read_case(write_record(tmp_path, found).parent, tmp_path)
        assert case is not None
        cases.append(case)
    assert len(list(check_across(cases))) == (budget == "quick")


def test_verify_works_out_the_rounds_of_an_installed_method(tmp_path: Path) -> None:
    planned = plan_of(tmp_path / "runs", "seconds:1", "noise")
    start(replace(planned, length=Length(2, RoundTiming(0.0, 0.45, 3))), tmp_path / "runs")
    assert problems(tmp_path / "runs") == []
    forger = Forger(tmp_path / "runs", tmp_path / "forged")
    forger.edit(lambda r: r["measurement"]["pace"].update(distillation=0.2), forger.root / planned.spec.folder)
    assert problems(forger.root) == [
        "manifest.settings.schedule.rounds is 2, measurement.pace gives for 1 s 5",
    ]
