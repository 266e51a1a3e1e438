"""Ablations: what is planned, what goes into CSV and table, and that figures are drawn."""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path
from typing import Any

import pytest
from commands import dfkd
from factory import RESULT, make_record, write_record
from rich.console import Console

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.report.figures.ablation import ablation as draw
from dfkd_bench.report.figures.ablation import axis_window
from dfkd_bench.report.terminal.ablation import ablation_table
from dfkd_bench.runs import records
from dfkd_bench.runs.plan import Request
from dfkd_bench.studies import ablation
from dfkd_bench.studies.ablation import parse_vary, plan_ablation, summaries

METHOD = "noise"  # has settings of both kinds and two presets
REQUEST = Request((METHOD,), seeds=(0, 1), budget="smoke", device="cpu", threads=1)
FIGURES = Path(__file__).parents[2] / "results" / "figures"


def test_words_to_values() -> None:
    assert parse_vary(["a=1, 2", "b=[1,2];[3]", "with=ema+replay,none"]) == {
        "a": ["1", "2"], "b": ["[1,2]", "[3]"], "with": ["ema+replay", "none"],
    }  # fmt: skip
    for bad in (["a"], ["=1"], ["a=1,,2"], ["a=1", "a=2"]):
        with pytest.raises(UsageError, match="--vary takes"):
            parse_vary(bad)


def test_one_factor_at_a_time_around_the_method_s_own_values(tmp_path: Path) -> None:
    vary = {"student_steps": ["10", "2"], "preset": ["uniform", "normal"]}
    points = plan_ablation(REQUEST, vary, tmp_path)
    assert [(p.setting, p.value, p.own) for p in points] == [
        ("student_steps", 2, False), ("student_steps", 5, True), ("student_steps", 10, False),
        ("preset", "uniform", False), ("preset", "normal", True),
    ]  # fmt: skip
    assert [dict(p.runs[0].spec.overrides) for p in points] == [{"student_steps": 2}, {}, {"student_steps": 10}, {}, {}]
    assert [p.runs[1].spec.preset for p in points] == [*["normal"] * 3, "uniform", "normal"]
    assert points[1].runs == points[4].runs  # the method as it stands runs once
    assert len(ablation.runs_of(points)) == 4 * 2
    (own,) = [p for p in plan_ablation(REQUEST, {"kind": ["uniform"]}, tmp_path) if p.own]
    assert own.value == "normal"
    fixed = Request((METHOD,), overrides={"student_steps": 3}, device="cpu")
    for request, bad, says in (
        (REQUEST, {"steps": ["1"]}, "no setting 'steps'"), (REQUEST, {"student_steps": ["x"]}, "takes int"),
        (REQUEST, {"with": ["emma"]}, "unknown add-on"), (REQUEST, {"ema.decay": ["0.5"]}, "no setting 'ema.decay'"),
        (fixed, vary, "both varied and set"), (Request((METHOD, "dafl"), device="cpu"), vary, "one method on one task"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=says):
            plan_ablation(request, bad, tmp_path)


def test_add_ons_and_their_settings_are_varied_as_anything_else(tmp_path: Path) -> None:
    points = plan_ablation(REQUEST, {"with": ["ema", "ema+replay"]}, tmp_path)
    assert [(p.value, p.own) for p in points] == [("ema", False), ("ema+replay", False), ("none", True)]
    assert [[a.name for a in p.runs[0].spec.addons] for p in points] == [["ema"], ["ema", "replay"], []]
    around = Request(
        (METHOD,), budget="smoke", device="cpu", addons=("ema",), overrides={"ema.weight": 1.0, "student_steps": 2}
    )
    points = plan_ablation(around, {"ema.decay": ["0.5"], "with": ["none", "replay"]}, tmp_path)
    assert [(p.setting, p.value, p.own) for p in points] == [
        ("ema.decay", 0.5, False), ("ema.decay", 0.99, True), ("with", "none", False), ("with", "replay", False),
        ("with", "ema", True),
    ]  # fmt: skip
    assert [dict(p.runs[0].spec.overrides) for p in points] == [
        {"ema.decay": 0.5, "ema.weight": 1.0, "student_steps": 2}, {"ema.weight": 1.0, "student_steps": 2},
        {"student_steps": 2}, {"student_steps": 2}, {"ema.weight": 1.0, "student_steps": 2},
    ]  # fmt: skip


def row(value: str, seed: int, top1: float | None, own: bool = False, setting: str = "a") -> dict[str, Any]:
    return {
        "setting": setting, "value": value, "seed": seed, "top1_last": top1, "coverage": None,
        "label_consistency": None, "agreement": None, "own": own,
        "status": "failed" if top1 is None else "complete", "run": "x",
    }  # fmt: skip


def test_differences_are_paired_over_the_seeds_that_both_have() -> None:
    rows = [row("1", s, t, own=True) for s, t in ((0, 90.0), (1, 80.0), (2, 70.0), (3, 10.0))]
    rows += [row("2", s, t) for s, t in ((0, 91.0), (1, 82.0), (2, 73.0), (3, None))]
    one, two = summaries(rows)
    assert (one.n, one.lost, one.mean, one.own) == (4, 0, 62.5, True)
    assert (two.n, two.lost, two.mean, two.pairs) == (3, 1, 82.0, 3)
    assert two.difference == pytest.approx(2.0)
    # t(0.975, 2) = 4.302653, sd 1, n 3
    assert two.difference_half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert two.half == pytest.approx(4.302653 * 9.0 / math.sqrt(3), rel=1e-6)
    assert one.difference == 0.0
    told = (30.0, 31.0, 32.0, 35.0, 97.0, 98.0, 99.0)
    agree = [{**r, "label_consistency": value} for r, value in zip(rows, told, strict=False)]
    agree += [{**rows[-1], "label_consistency": 1.0}]  # a failed run counts nowhere
    assert [found.labels for found in summaries(agree)] == [32.0, 98.0]
    assert [math.isnan(found.labels) for found in summaries(rows)] == [True, True]
    console = Console(file=io.StringIO(), width=120)
    console.print(ablation_table(summaries(agree), "x"))
    shown = [line.split() for line in console.file.getvalue().split("\n")]  # type: ignore[attr-defined]
    assert [line[-1] for line in shown if "±" in line and line[-1] != "labels"] == ["32.0", "98.0"]
    (single,) = summaries([row("1", 0, 5.0)])
    assert math.isnan(single.half)
    assert math.isnan(single.difference)
    assert math.isnan(summaries([row("1", 0, None)])[0].mean)


def test_what_was_written_is_read_again_and_so_is_the_committed_one(tmp_path: Path) -> None:
    rows = [row("1", 0, 97.5, own=True), row("x", 1, None)]
    path = tmp_path / "x.csv"
    path.write_text(ablation.csv_text(rows))
    assert ablation.read_csv(path) == rows
    path.write_text("a,b\n1,2\n")
    with pytest.raises(UsageError, match="is not the CSV of an ablation"):
        ablation.read_csv(path)
    with pytest.raises(UsageError, match="cannot read"):
        ablation.read_csv(tmp_path / "none.csv")
    committed = ablation.read_csv(FIGURES / "cgdd-weights.csv")
    assert ablation.csv_text(committed) == (FIGURES / "cgdd-weights.csv").read_text()


def test_a_figure_marks_the_own_value_and_leaves_far_bounds_off_its_axis() -> None:
    rows = [row(v, s, 97.0 + s, own=v == "2") for v in ("1", "2", "4") for s in (0, 1)] + [
        row("word", 0, 96.0, setting="b")
    ]
    figure = draw(rows, "a title", {"real-kd": [98.4, 98.6], "noise": [12.0]})
    first, second = figure.axes[:2]
    assert [t.get_text() for t in first.get_xticklabels()] == ["1", "2", "4"]
    assert len(first.patches) == 1
    assert not second.patches
    assert figure.texts[0].get_text() == "a title"
    assert "2 seeds" in figure.texts[1].get_text()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["real-kd 98.50", "noise 12.00, off the axis"]
    flat = [line for line in first.get_lines() if list(line.get_xdata()) == [0, 1]]  # in parts of the axis
    assert [list(line.get_ydata()) for line in flat] == [[98.5, 98.5]]
    shown = axis_window(summaries(rows), rows, [98.5, 12.0])
    assert 12.0 < shown.low < 96.0
    assert 98.5 < shown.high <= 101.0  # air, in which no tick stands
    assert first.get_ylim() == second.get_ylim() == (shown.low, shown.high)


def test_the_command_runs_writes_and_draws(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    asked = []

    def run(planned: Any, options: Any) -> Any:
        spec, results = planned.spec, options.results
        asked.append(spec.hash)
        if spec.seed == 1 and dict(spec.overrides) == {"student_steps": 2}:
            raise RunError("no")
        folder = results / spec.folder
        folder.mkdir(parents=True)
        record = make_record() | {"spec": spec.to_json(), "hash": spec.hash, "result": RESULT}
        records.write(folder, record)
        return type("Outcome", (), {"record": records.read(folder), "skipped": False})

    monkeypatch.setattr("dfkd_bench.training.runner.run", run)
    words = ["ablate", "--method", METHOD, "--vary", "student_steps=2", "--vary", "preset=uniform", "--budget", "smoke"]
    words += ["--seeds", "0-1", "--results", str(tmp_path / "runs"), "--device", "cpu"]
    status, out, err = dfkd(monkeypatch, capsys, *words, "--out", tmp_path / "x")
    assert status == 1
    assert "error: noise · " in err
    assert "1 of 6 runs failed" in err
    rows = list(csv.DictReader((tmp_path / "x.csv").open()))
    assert tuple(rows[0]) == ablation.COLUMNS
    assert len(rows) == 8
    assert len(asked) == len(set(asked)) == 6
    assert [r["value"] for r in rows if r["own"] == "True"] == ["5", "5", "normal", "normal"]
    assert (rows[0]["top1_last"], rows[0]["agreement"], rows[0]["coverage"]) == ("97.5", "97.25", "1.0")
    assert (rows[1]["status"], rows[1]["top1_last"]) == ("failed", "")
    assert 1000 < (tmp_path / "x.png").stat().st_size < 500_000
    assert (tmp_path / "x.pdf").read_bytes().startswith(b"%PDF")
    assert "1 (1 lost)" in out
    for more, says in (
        (["--out", str(tmp_path / "none" / "x")], "no folder"), (["--set", "student_steps=3"], "both varied and set"),
        (["--vary", "preset=uniform"], "--vary takes"),
    ):  # fmt: skip
        status, _, err = dfkd(monkeypatch, capsys, *words, *more)
        assert (status, err.count("\n")) == (2, 1)
        assert says in err
    assert "name a method" in dfkd(monkeypatch, capsys, "ablate")[2]


def test_a_csv_is_drawn_again_and_a_plan_only_shown(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    source = FIGURES / "cgdd-weights.csv"
    status, out, _ = dfkd(monkeypatch, capsys, "ablate", "--redraw", source, "--out", tmp_path / "again")
    assert status == 0
    assert "lambda_at" in out
    assert (tmp_path / "again.png").exists()
    assert not (tmp_path / "again.csv").exists()
    words = ["ablate", "-m", METHOD, "--vary", "with=ema", "--dry-run", "--results", tmp_path / "runs"]
    status, out, _ = dfkd(monkeypatch, capsys, *words)
    assert status == 0
    assert "6 runs, 0 done" in out
    assert not (tmp_path / "runs").exists()


def test_bounds_of_the_same_terms_are_drawn(tmp_path: Path) -> None:
    from dfkd_bench.cli.ablate import bounds_of

    points = plan_ablation(REQUEST, {"kind": ["uniform"]}, tmp_path)
    spec = points[0].runs[0].spec.to_json()
    terms = {k: spec[k] for k in ("task", "track", "budget", "device", "precision", "protocol")}
    for seed, last in ((0, 98.0), (1, 99.0)):
        write_record(tmp_path, make_record(method="real-kd", seed=seed, last=last, **terms))
    write_record(tmp_path, make_record(method="real-kd", last=10.0, **{**terms, "budget": "quick"}))
    assert bounds_of(points, tmp_path) == {"real-kd": [98.0, 99.0]}
