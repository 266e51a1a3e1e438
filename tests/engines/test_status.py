"""The state of a plan from files alone."""

from __future__ import annotations

import io
import json
import os
import socket
import time
from pathlib import Path
from typing import Any, cast

import pytest
from factory import make_record, write_record
from rich.console import Console
from smoke_runs import plan

from dfkd_bench.engines.progress import duration, plan_view
from dfkd_bench.engines.scheduler import write_plan
from dfkd_bench.engines.status import counts, states
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.runs.planned import PlannedRun

BEAT = {"phase": "training", "round": 12, "rounds": 30, "student_images": 1, "seconds": 8.0, "restarted_at": 4}


@pytest.fixture
def planned(tmp_path: Path) -> list[PlannedRun]:
    made = plan(tmp_path, "noise", seeds=(0, 1, 2, 3))
    write_plan(made, tmp_path)
    return made


def folder_of(planned: PlannedRun, root: Path) -> Path:
    folder = root / planned.spec.folder
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def beat(folder: Path, **said: Any) -> Path:
    path = folder / "running.json"
    path.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), **BEAT, **said}))
    return path


def test_every_state_is_told_from_files(tmp_path: Path, planned: list[PlannedRun]) -> None:
    write_record(tmp_path, make_record(method="other", last=90.0))
    write_record(tmp_path, make_record(method="other", seed=1, status="failed"))
    write_record(tmp_path, make_record(method="other", seed=2, status="diverged"))
    beat(folder_of(planned[0], tmp_path))
    (folder_of(planned[1], tmp_path) / "checkpoint.pt").touch()
    (folder_of(planned[2], tmp_path) / "record.json").write_text('{"schema": 2, "result": {"status": "complete"')
    found = {(run.spec["method"], int(run.spec["seed"])): run for run in states(tmp_path)}
    assert {key: run.state for key, run in found.items()} == {
        ("noise", 0): "running", ("noise", 1): "interrupted", ("noise", 2): "interrupted", ("noise", 3): "missing",
        ("other", 0): "done", ("other", 1): "failed", ("other", 2): "diverged",
    }  # fmt: skip
    assert found["other", 1].error == "ValueError: no"
    now = found["noise", 0]
    assert (now.round, now.rounds, now.host) == (12, 30, socket.gethostname())
    assert now.seconds_left == pytest.approx(8.0 / 8 * 18)  # 8 rounds in 8 s since it was taken up, 18 to go
    assert counts(found.values())["interrupted"] == 2


@pytest.mark.parametrize(
    ("said", "age", "state"),
    [
        ({"pid": 2**22 + 1}, 0, "missing"),  # nobody is that process
        ({"host": "elsewhere"}, 0, "running"),
        ({"host": "elsewhere"}, 600, "missing"),
        ({}, 600, "running"),  # it lives, however long it has been silent
    ],
)
def test_a_heartbeat_counts_while_somebody_is_there(
    tmp_path: Path, planned: list[PlannedRun], said: dict[str, Any], age: float, state: str
) -> None:
    path = beat(folder_of(planned[0], tmp_path), **said)
    os.utime(path, (time.time() - age,) * 2)
    assert next(run.state for run in states(tmp_path) if run.spec["seed"] == 0) == state


@pytest.mark.parametrize(
    ("text", "says"), [("{", "Expecting property name"), ('{"runs": [{"folder": 1}]}', "Expected `str`, got `int`")]
)
def test_a_damaged_plan_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "a.json").write_text(text)
    with pytest.raises(RunError, match=f"a.json is not a plan of dfkd-bench: {says}.*; delete it$"):
        states(tmp_path)


def test_a_missing_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no results folder"):
        states(tmp_path / "none")


def test_the_view_names_counts_work_and_failures(tmp_path: Path, planned: list[PlannedRun]) -> None:
    write_record(tmp_path, make_record(method="o[b]", seed=1, status="failed"))
    write_plan(planned, tmp_path)
    beat(folder_of(planned[0], tmp_path))
    console = Console(width=120, file=io.StringIO())
    console.print(plan_view(states(tmp_path)))
    text = cast(io.StringIO, console.file).getvalue()
    assert "5 runs: 1 failed, 1 running, 3 missing" in text
    assert "12/30" in text
    assert "18 s left" in text
    assert "o_b_ · digits16_cnn32-cnn16 · pinned/quick · seed 1" in text
    assert "ValueError: no" in text


def test_durations_are_short() -> None:
    assert [duration(s) for s in (42.4, 720, 12600)] == ["42 s", "12 min", "3.5 h"]
