"""Budgets of seconds: their words, and the length of a run that follows from a pace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import dfkd
from factory import SPEC, make_record, write_record

from dfkd_bench.engines.status import spec_from_folder
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.method import Flags, StudentRecipe
from dfkd_bench.protocol import BUDGETS, DEFAULT_TASK, PROTOCOL, budget_order, check_budget, seconds_of, task
from dfkd_bench.results.merge import merge, plan_merge
from dfkd_bench.results.prune import leftover_of
from dfkd_bench.results.verify import verify
from dfkd_bench.runs import records
from dfkd_bench.runs.length import Length, RoundTiming
from dfkd_bench.runs.plan import Request, make_plan
from dfkd_bench.runs.spec import RunSpec
from dfkd_bench.studies import tuning
from dfkd_bench.studies.tuning_table import Row, table_text
from dfkd_bench.training import time_budget
from dfkd_bench.training.build import plan_run
from dfkd_bench.training.failures import drop_damaged
from dfkd_bench.training.time_budget import length_of, set_length
from dfkd_bench.utils import checkpoint

LENGTH = Length(9, RoundTiming(0.25, 0.5, 4))

# -- words ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "budget", "seconds"),
    [
        ("seconds:60", "seconds:60", 60.0), ("seconds:60.0", "seconds:60", 60.0), ("seconds:6e1", "seconds:60", 60.0),
        ("seconds:0.5", "seconds:0.5", 0.5), ("seconds:.5", "seconds:0.5", 0.5),
        ("seconds:1e7", "seconds:10000000", 1e7),
        ("seconds:0.001", "seconds:0.001", 0.001), *((name, name, None) for name in BUDGETS),
    ],
)  # fmt: skip
def test_a_budget_has_one_spelling(word: str, budget: str, seconds: float | None) -> None:
    assert check_budget(word) == budget
    assert check_budget(budget) == budget
    assert seconds_of(budget) == seconds


WRONG = {
    "seconds:": "needs 0.001 to 10,000,000 seconds, such as seconds:60, got 'seconds:'",
    "seconds:-3": "got 'seconds:-3'", "seconds:0": "got", "seconds:nan": "got", "seconds:inf": "got",
    "seconds:1e-9": "got", "seconds:1e9": "got", "seconds:x": "got",
    "second:3": "unknown budget 'second:3'; did you mean 'seconds:3'?",
    "seconds": "did you mean 'seconds:N'?", "quik": "did you mean 'quick'?",
    "x": "known: full, quick, seconds:N, smoke",
}  # fmt: skip


@pytest.mark.parametrize("word", WRONG)
def test_another_word_is_refused(word: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_budget(word)
    assert WRONG[word] in str(refused.value)
    assert seconds_of(word) is None


COMMANDS: dict[str, list[str]] = {
    "run": ["run", "--method", "noise"],
    "ablate": ["ablate", "--method", "noise", "--vary", "kind=normal"],
    "tune": ["tune", "--method", "dafl", "--dry-run"],
    "leaderboard": ["leaderboard"],
    "compare": ["compare", "a", "b"],
    "figures": ["figures"],
    "samples": ["samples", "--gallery", "."],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_so_in_a_line(command: str, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for word in ("seconds:-3", "second:3"):
        status, _, err = dfkd(monkeypatch, capsys, *COMMANDS[command], "--budget", word)
        assert (status, err.count("\n")) == (2, 1)
        assert WRONG[word] in err
    assert not list(tmp_path.iterdir())


def test_a_student_of_ones_own_takes_no_seconds(tmp_path: Path) -> None:
    from dfkd_bench.distill.request import DistillRequest
    from dfkd_bench.distill.request import make_plan as own_plan
    from dfkd_bench.distill.user_models import UserTeacher

    teacher_entry = UserTeacher(tmp_path / "net.safetensors", "ab" * 32, "cnn32", 10, (1, 16, 16))
    for word, says in (("seconds:60", "budgets of seconds are for comparing methods"), ("second:6", "unknown budget")):
        with pytest.raises(UsageError, match=says):
            own_plan(DistillRequest(teacher_entry, (0.3,), (0.3,), "cnn16", "noise", budget=word))


def test_budgets_sort_by_length_seconds_before_images() -> None:
    words = ["full", "seconds:100", "smoke", "seconds:9", "standard", "later", "quick", "seconds:0.5"]
    assert sorted(words, key=budget_order) == [
        "seconds:0.5", "seconds:9", "seconds:100", "smoke", "quick", "standard", "full", "later",
    ]  # fmt: skip


def test_seconds_are_part_of_a_run_and_their_spelling_is_not(tmp_path: Path) -> None:
    one, same, other, quick = (
        make_plan(Request(("noise",), budget=word, device="cpu"), tmp_path)[0].spec
        for word in ("seconds:60", "seconds:60.0", "seconds:61", "quick")
    )
    assert one == same
    assert len({one.hash, other.hash, quick.hash}) == 3
    folder = one.folder
    assert ":" not in folder
    assert folder.rpartition("/")[2] == f"pinned-seconds_60-s0-{one.hash}"
    assert spec_from_folder(folder)["budget"] == "seconds:60"
    assert quick.folder.rpartition("/")[2] == f"pinned-quick-s0-{quick.hash}"


def test_a_run_of_seconds_has_the_settings_of_standard(tmp_path: Path) -> None:
    for word in ("fastdfkd", "cmi"):  # with settings of their own for budget smoke
        plans = [
            make_plan(Request((word,), budget=budget, device="cpu"), tmp_path)[0]
            for budget in ("standard", "seconds:5")
        ]
        assert len({plan.spec.settings for plan in plans}) == 1


# -- lengths ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("track", ["pinned", "recipe"])
def test_a_run_of_so_many_rounds_has_the_schedule_of_any_other(track: str) -> None:
    spec = replace(RunSpec.from_json(SPEC), track=track, budget="seconds:60")
    published = StudentRecipe(batch_size=48, epochs=10)
    flags = Flags(student_steps=5, warmup_rounds=3, warmup_fraction=0.1)
    recipe, plan = plan_run(spec, task(spec.task), flags, published, 403)
    assert (plan.rounds, plan.warmup_rounds, len(plan.snapshots), plan.snapshots[-1]) == (403, 3 + 41, 20, 403)
    assert (plan.batch_size, plan.rounds_per_epoch) == ((128, 21) if track == "pinned" else (48, 40))
    assert (recipe == published) is (track == "recipe")
    assert plan_run(spec, task(spec.task), flags, published, 7)[1].snapshots == tuple(range(1, 8))


@pytest.mark.parametrize(
    "change",
    [
        {"rounds": 0}, {"rounds": 2.0}, {"rounds": True}, {"timed": 0}, {"synthesis": -1.0}, {"synthesis": "1"},
        {"distillation": float("inf")}, {"synthesis": 0.0, "distillation": 0.0}, {"distillation": None},
    ],
)  # fmt: skip
def test_a_length_comes_back_from_its_file_or_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / records.PACE
    time_budget.write(path, LENGTH)
    assert time_budget.read(path) == LENGTH
    said = json.loads(path.read_text())
    assert said == {"rounds": 9, "synthesis": 0.25, "distillation": 0.5, "timed": 4}
    for text in (json.dumps({**said, **change}), json.dumps([said]), "{", json.dumps(dict(list(said.items())[1:]))):
        path.write_text(text)
        with pytest.raises(RunError, match=r"pace\.json is missing or damaged: start the run over with --force"):
            time_budget.read(path)


class Trial:
    """A job to be timed that says how often it was made; its pace is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, found: RoundTiming, flags: Flags) -> None:
        self.made, self.method = 0, type("M", (), {"flags": flags})
        self.asked: tuple[float, float] | None = None

        def pace(job: Any, seconds: float, longest: float) -> RoundTiming:
            self.asked = seconds, longest
            return found

        monkeypatch.setattr(time_budget, "time_rounds", pace)

    def __call__(self) -> Any:
        self.made += 1
        return self


def test_rounds_follow_from_the_pace_and_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial(monkeypatch, RoundTiming(2.0, 3.0, 8), Flags(warmup_rounds=10, warmup_fraction=0.5))
    length = length_of(tmp_path, 100.0, trial)
    assert length == Length(13, RoundTiming(2.0, 3.0, 8))  # (100 - 10 * 2) / (5 + 0.5 * 2) = 13.3
    assert (trial.made, trial.asked) == (1, (5.0, 100.0))  # not longer than the run
    assert time_budget.read(tmp_path / records.PACE) == length
    slower = Trial(monkeypatch, RoundTiming(4.0, 6.0, 8), Flags())
    assert length_of(tmp_path, 100.0, slower) == length
    assert slower.made == 0
    (tmp_path / checkpoint.NAME).touch()
    (tmp_path / records.PACE).unlink()
    with pytest.raises(RunError, match=r"pace\.json is missing or damaged"):  # the checkpoint is of another length
        length_of(tmp_path, 100.0, slower)


def test_a_record_s_length_is_not_forced_on_a_run_that_has_begun(tmp_path: Path) -> None:
    set_length(tmp_path, LENGTH)
    set_length(tmp_path, replace(LENGTH, rounds=10))  # nothing was done with the other one
    (tmp_path / checkpoint.NAME).touch()
    set_length(tmp_path, replace(LENGTH, rounds=10))
    with pytest.raises(UsageError, match=r"was begun with 10 rounds, the record has 9: start it over with --force"):
        set_length(tmp_path, LENGTH)
    assert time_budget.read(tmp_path / records.PACE).rounds == 10


def test_a_checkpoint_goes_with_the_length_that_is_lost(tmp_path: Path) -> None:
    (tmp_path / records.PACE).write_text("{")
    checkpoint.save(tmp_path, {"rounds": 1})
    drop_damaged(tmp_path)
    assert not list(tmp_path.iterdir())
    time_budget.write(tmp_path / records.PACE, LENGTH)
    checkpoint.save(tmp_path, {"rounds": 1})
    drop_damaged(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {records.PACE, checkpoint.NAME}


def test_a_failed_run_keeps_its_length_where_its_checkpoint_is(tmp_path: Path) -> None:
    path = write_record(tmp_path / "a", make_record(budget="seconds:60", status="failed"))
    time_budget.write(path.parent / records.PACE, LENGTH)
    assert "pace.json" not in "\n".join(map(str, verify(tmp_path / "a", quick=True).findings))
    merge(plan_merge([tmp_path / "a"], tmp_path / "b"))
    (taken,) = (tmp_path / "b").rglob(records.FILE)
    assert [file.name for file in taken.parent.iterdir() if file.name != ".lock"] == [records.FILE]


def test_what_a_finished_run_left_of_its_length_is_pruned(tmp_path: Path) -> None:
    folder = tmp_path / RunSpec.from_json(SPEC).folder
    folder.mkdir(parents=True)
    records.write(folder, make_record())
    time_budget.write(folder / records.PACE, LENGTH)
    found = leftover_of(folder)
    assert found is not None
    assert [path.name for path in found.files] == [records.PACE]


def test_a_table_of_trials_has_the_one_spelling_of_its_budget(tmp_path: Path) -> None:
    row = Row(
        DEFAULT_TASK, "pinned", "seconds:60", 100, "dafl", "official", 0, "{}", "complete", 1.0, None, 99.0, True, True,
        "ab" * 6, "cd" * 6, 1, 1.0, "ef" * 6, PROTOCOL,
    )  # fmt: skip
    (tmp_path / tuning.FILE).write_text(table_text([row.text()]))
    terms = tuning.TuneOptions((), DEFAULT_TASK, None, 1, "seconds:60.0", 100, 1, "cpu", 1.0, tmp_path, tmp_path)
    with pytest.raises(RunError, match="no untuned run left images"):  # and not that the table is of another budget
        tuning.tune(terms, [])
    with pytest.raises(UsageError, match="has rows of budget seconds:60, not seconds:61"):
        tuning.tune(replace(terms, budget="seconds:61"), [])
