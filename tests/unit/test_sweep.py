"""Sweeps and trajectories: what is planned, what goes into the CSV, and that figures are drawn."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import sweep
import trajectories
from factory import RESULT, make_record, write_record

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.plan import Request

METHOD = "noise"  # has settings of both kinds and two presets
REQUEST = Request((METHOD,), seeds=(0, 1), budget="smoke", device="cpu", threads=1)


def test_words_to_values() -> None:
    assert sweep.parse_vary(["a=1, 2", "b=[1,2];[3]"]) == {"a": ["1", "2"], "b": ["[1,2]", "[3]"]}
    for bad in (["a"], ["=1"], ["a=1,,2"], ["a=1", "a=2"]):
        with pytest.raises(UsageError, match="--vary takes"):
            sweep.parse_vary(bad)


def test_one_factor_at_a_time_around_the_method_s_own_values(tmp_path: Path) -> None:
    vary = {"student_steps": ["10", "2"], "preset": ["uniform", "normal"]}
    points = sweep.plan_sweep(REQUEST, vary, tmp_path)
    assert [(p.setting, p.value, p.own) for p in points] == [
        ("student_steps", 2, False), ("student_steps", 5, True), ("student_steps", 10, False),
        ("preset", "uniform", False), ("preset", "normal", True),
    ]  # fmt: skip
    assert [dict(p.runs[0].spec.overrides) for p in points] == [{"student_steps": 2}, {}, {"student_steps": 10}, {}, {}]
    assert [p.runs[1].spec.preset for p in points] == [*["normal"] * 3, "uniform", "normal"]
    assert points[1].runs == points[4].runs  # the method as it stands runs once
    (own,) = [p for p in sweep.plan_sweep(REQUEST, {"kind": ["uniform"]}, tmp_path) if p.own]
    assert own.value == "normal"
    for bad, says in (({"steps": ["1"]}, "no setting 'steps'"), ({"student_steps": ["x"]}, "takes int")):
        with pytest.raises(UsageError, match=says):
            sweep.plan_sweep(REQUEST, bad, tmp_path)


def test_the_command_writes_rows_and_a_figure(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    asked = []

    def run(spec: Any, *_: Any, **__: Any) -> Any:
        asked.append(spec.hash)
        if spec.seed == 1 and dict(spec.overrides) == {"student_steps": 2}:
            raise RunError("no")
        return SimpleNamespace(record={"result": RESULT})

    monkeypatch.setattr(sweep, "run", run)
    words = ["--method", METHOD, "--vary", "student_steps=2", "--vary", "preset=uniform", "--budget", "smoke"]
    files = ["--results", tmp_path / "runs", "--csv", tmp_path / "x.csv", "--figure", tmp_path / "x.png"]
    assert sweep.main([*words, *map(str, files)]) == 0
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert tuple(rows[0]) == sweep.COLUMNS
    assert len(rows) == 8
    assert len(asked) == len(set(asked)) == 6
    assert [r["value"] for r in rows if r["own"] == "True"] == ["5", "5", "normal", "normal"]
    assert (rows[0]["top1_last"], rows[0]["agreement"], rows[0]["coverage"]) == ("97.5", "97.25", "1.0")
    assert (rows[1]["status"], rows[1]["top1_last"]) == ("failed", "")
    assert 1000 < (tmp_path / "x.png").stat().st_size < 500_000
    assert "error: no" in capsys.readouterr().err
    assert sweep.main([*words, *map(str, files[:-1]), str(tmp_path / "none" / "x.png")]) == 2
    assert sweep.main([*words, "--set", "student_steps=3", *map(str, files)]) == 2
    assert capsys.readouterr().err.count("\n") == 2


def curves(root: Path, seed: int, values: list[float], **spec: Any) -> None:
    folder = write_record(root, make_record(seed=seed, **spec)).parent
    lines = [f"{(k + 1) * 1000.0},{v}" for k, v in enumerate(values)]
    (folder / "curves.csv").write_text("\n".join(["student_images,loss/x", *lines, ""]))


def test_trajectories_share_a_line_over_seeds(tmp_path: Path, capsys: Any) -> None:
    root = tmp_path / "runs"
    curves(root, 0, [1.0, 2.0])
    curves(root, 1, [3.0, 4.0])
    curves(root, 0, [5.0, 6.0], preset="textbook", overrides={"a": 1})
    curves(root, 0, [7.0, 8.0], method="beta", code="6b" * 32)
    words = ["--records", str(root), "--columns", "loss/x", "--csv", str(tmp_path / "t.csv")]
    assert trajectories.main([*words, "--figure", str(tmp_path / "t.png")]) == 0
    found = pd.read_csv(tmp_path / "t.csv")
    assert set(found["run"]) == {"alpha official", "alpha textbook a=1", "beta"}
    assert found[found["run"] == "alpha official"].groupby("student_images")["value"].mean().tolist() == [2.0, 3.0]
    assert (tmp_path / "t.png").stat().st_size > 1000
    with pytest.raises(UsageError, match="no curve has a column 'loss/y'; did you mean 'loss/x'"):
        trajectories.collect(root, ["loss/y"], [], None)
    with pytest.raises(UsageError, match="no records with curves"):
        trajectories.collect(root, ["loss/x"], ["gamma"], None)
    assert trajectories.main([*words, "--figure", "x.pdf"]) == 2
    assert capsys.readouterr().err.startswith("error: --figure names a PNG file")
