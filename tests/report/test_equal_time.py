"""Tables and curves of budgets of seconds: what was spent, what was reached, what to beware of."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from factory import RESULT, make_record
from pages import page_of, rows_of, write_run
from rich.console import Console

from dfkd_bench.report.docs import tables_of, write_docs
from dfkd_bench.report.figures.curves import over_seeds
from dfkd_bench.report.figures.data import curves_of, labelled
from dfkd_bench.report.html import curves, payload
from dfkd_bench.report.html.groups import groups
from dfkd_bench.report.images.gallery import pick
from dfkd_bench.report.latex import latex
from dfkd_bench.report.tables.leaderboard import leaderboard
from dfkd_bench.report.tables.runs import load_results, long_table
from dfkd_bench.report.tables.time_budget import notes, snapshot_indices
from dfkd_bench.report.terminal import leaderboard as view
from dfkd_bench.report.terminal.runs import run_table

BUDGET = "seconds:20"


def timed(seconds: float, *, scale: float = 1.0, **more: Any) -> dict[str, Any]:
    """A record of a budget of twenty seconds, a quarter of `seconds` distillation; counts are `scale` times as large.

    Evaluation takes a minute more, which is no part of the budget.
    """
    parts = {"synthesis": 0.75 * seconds, "distillation": 0.25 * seconds, "evaluation": 60.0}
    counts = {name: int(scale * count) for name, count in RESULT["counts"].items()}
    measured = {"seconds": parts, "seconds_total": sum(parts.values()), "snapshot_seconds": [seconds / 2, seconds]}
    return make_record(**{"budget": BUDGET, **more}, measurement=measured, result={"counts": counts})


def frame_of(*found: dict[str, Any]) -> pd.DataFrame:
    return leaderboard(long_table(found))


def text_of(frame: pd.DataFrame, width: int) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    view.show(console, frame)
    return console.export_text()


SEVERAL = (
    timed(19.0, method="near", last=90.0), timed(21.9, method="near", seed=1, last=90.0, scale=1.2),
    timed(22.1, method="far", last=80.0), timed(19.5, method="far", seed=1, last=80.0),
    timed(17.9, method="noise", last=10.0), timed(21.9, method="noise", seed=1, last=10.0),
    timed(99.0, method="near", seed=2, status="failed"),
)  # fmt: skip

# -- numbers ----------------------------------------------------------------------------------------------------------


def test_the_largest_deviation_of_a_run_from_its_budget() -> None:
    frame = frame_of(*SEVERAL, timed(20.0, budget="quick"), timed(30.0, budget="seconds:60"))
    found = {(row["method"], row["budget"]): row["seconds_off"] for row in frame.to_dict("records")}
    assert found["near", BUDGET] == pytest.approx(9.5)
    assert found["far", BUDGET] == pytest.approx(10.5)
    assert found["noise", BUDGET] == pytest.approx(-10.5)
    assert found["alpha", "seconds:60"] == pytest.approx(-50.0)
    assert math.isnan(found["alpha", "quick"])
    apart = frame_of(timed(19.0), timed(21.0, seed=1, device_name="Other CPU"))
    assert apart["seconds_off"].isna().all()  # as all that the clock says


def test_rows_far_off_their_budget_are_named() -> None:
    frame = frame_of(*SEVERAL)
    assert notes(frame.to_dict("records")) == [
        "More than 10 % off the budget: far (official) +10.5 %; noise (official) -10.5 %."
    ]
    assert notes(frame[frame["method"] == "near"].to_dict("records")) == []
    assert notes(frame_of(timed(90.0, budget="quick")).to_dict("records")) == []


@pytest.mark.parametrize("other", [{"device_name": "Other CPU"}, {"threads": 1}])
def test_seconds_of_several_clocks_are_told(other: dict[str, Any]) -> None:
    (said,) = notes(frame_of(timed(20.0), timed(20.0, method="beta", **other)).to_dict("records"))
    assert said == "Rows of several devices or numbers of threads: equal seconds do not mean equal work."


# -- tables -----------------------------------------------------------------------------------------------------------


def test_a_section_of_equal_time_has_columns_of_its_own() -> None:
    usual, equal = view.sections(frame_of(*SEVERAL, timed(20.0, budget="quick")))
    assert (usual.headers, usual.notes) == (view.HEADERS, [])
    assert equal.headers == view.TIMED
    near = dict(zip(equal.headers, equal.ranked[0], strict=True))
    assert (near["method"], near["spent"], near["off"]) == ("near", "20.4", "+9.5 %")  # of 20.45, without evaluation
    assert (near["made"], near["seen"], near["steps"]) == ("124 k", "56.3 k", "440")
    assert near["n"] == "2\n1 failed"
    assert len(equal.notes) == 1


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_what_counts_at_any_width(width: int) -> None:
    text = text_of(frame_of(*SEVERAL, timed(20.0, method="deepinversion")), width)
    assert all(len(line) <= width for line in text.split("\n"))
    for word in ("spent", "off", "made", "seen", "+10.5 %", "-10.5 %", "the largest deviation", "124 k"):
        assert word in text, word
    assert "More than 10 % off the budget: far (official)" in text
    assert ("steps" in text.partition("too narrow for")[2]) is (width == 80)
    assert "seconds of synthesis" not in text_of(frame_of(make_record()), width)


def test_markdown_and_documents_have_the_same_table(tmp_path: Path) -> None:
    frame = frame_of(*SEVERAL, make_record())
    path = tmp_path / "D.md"
    path.write_text("<!-- begin:leaderboard budget=seconds:20.0 -->\n<!-- end:leaderboard -->\n")
    write_docs([path], tables_of(frame, frame))
    text = path.read_text()
    assert "| spent | off | made | seen | steps |" in text
    assert "| 20.4 | +9.5 % | 124 k | 56.3 k | 440 |" in text
    assert "\nMore than 10 % off the budget: far (official) +10.5 %" in text
    assert "budget quick" not in text
    path.write_text("<!-- begin:ours near -->\n<!-- end:ours -->\n")
    write_docs([path], tables_of(frame, frame))
    assert "| seconds:20 | cpu fp32 | official | 2, 1 failed |" in path.read_text()
    assert "+9.5 %" not in path.read_text()  # one table of all budgets has the usual columns


def test_latex_has_them_too() -> None:
    text = latex(frame_of(*SEVERAL))
    assert "Method & $n$ & Last & Spent & Off & Made & Seen & Steps & Labels & Passes" in text
    assert r"20.4 & $+9.5$\,\% & 124 k & 56.3 k & 440 &" in text
    assert r"More than 10 \% off the budget: far (official) +10.5 \%" in text
    assert "Seconds &" in latex(frame_of(make_record()))


def test_a_run_says_what_it_spent_of_its_budget() -> None:
    console = Console(width=100, file=io.StringIO(), record=True)
    console.print(run_table(timed(21.0), {}))
    console.print(run_table(make_record(), {}))
    assert console.export_text().count("of the budget") == 1
    console.print(run_table(timed(21.0), {}))
    assert "21.0 of 20 s, +5.0 %" in console.export_text()


def test_the_longest_budget_of_images_comes_before_seconds() -> None:
    files = {"files": {"samples.safetensors": "0" * 64}}
    task = "digits16/cnn32-cnn16"
    found = [make_record(budget=budget, result=files) for budget in ("seconds:9", "smoke", "seconds:80")]
    assert [r["spec"]["budget"] for r in pick(found, task, "pinned", None, 0)] == ["smoke"]
    assert [r["spec"]["budget"] for r in pick(found[::2], task, "pinned", None, 0)] == ["seconds:80"]
    assert [r["spec"]["budget"] for r in pick(found, task, "pinned", "seconds:9", 0)] == ["seconds:9"]


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_has_what_was_spent_and_warns() -> None:
    far, near, noise = sorted(rows_of(*SEVERAL), key=lambda row: str(row["method"]))
    assert (near["spent"], near["off"], near["made"], near["seen"], near["steps"]) == (20.4, 9.5, 123904, 56320, 440)
    assert [row["off"] for row in (far, near, noise)] == [10.5, 9.5, -10.5]
    text = "".join(page_of(*SEVERAL).text)
    assert "20 s of synthesis and distillation" in text
    assert "More than 10 % off the budget: far (official) +10.5 %" in text
    assert "spent, off" in text
    usual = page_of(make_record())
    said = "".join(usual.text)
    assert ("spent, off" in said, "s of synthesis" in said) == (False, False)
    (row,) = usual.data()[1][0]["rows"]
    assert [row[key] for key in ("spent", "off", "made", "seen", "steps")] == [None] * 5


def test_groups_of_seconds_come_last_and_their_records_are_found(tmp_path: Path) -> None:
    words = ("seconds:5", "smoke", "seconds:0.5", "full")
    for budget in words:
        write_run(tmp_path, budget=budget)
    runs = load_results(tmp_path)
    found = groups(runs, leaderboard(runs), tmp_path)
    assert [group.label for group in found] == ["pinned · full", "pinned · smoke", "pinned · seconds:5",
                                                "pinned · seconds:0.5"]  # fmt: skip
    tables = page_of(*(make_record(budget=budget) for budget in words)).data()[1]
    assert [table["timed"] for table in tables] == [False, False, True, True]
    assert tables[2]["budget"] == "seconds_5"  # as in the name of the folder
    (row,) = payload.table(found[2], payload.StringTable())["rows"]
    (run,) = row[payload.ROW.index("runs")]
    assert len(run) == 4  # its record lies where the script of the page puts its name together


# -- curves -----------------------------------------------------------------------------------------------------------


def test_places_that_runs_of_several_lengths_have_in_common() -> None:
    assert snapshot_indices(20, 20) == list(range(20))
    assert snapshot_indices(6, 5) == [1, 2, 3, 4, 5]
    assert snapshot_indices(10, 4) == [2, 4, 7, 9]
    assert snapshot_indices(7, 1) == [6]
    for count in range(1, 21):
        for places in range(1, count + 1):
            found = snapshot_indices(count, places)
            assert found == sorted(set(found))
            assert (len(found), found[-1]) == (places, count - 1)


def test_a_curve_of_equal_time_is_over_seconds(tmp_path: Path) -> None:
    """Two seeds of two and three rounds, which have no number of images in common."""
    for seed, (seconds, top1) in enumerate(((18.0, {5: 10.0, 10: 40.0}), (24.0, {4: 5.0, 8: 20.0, 12: 60.0}))):
        measured = timed(seconds)["measurement"]
        measured["snapshot_seconds"] = [seconds * k / len(top1) for k in range(1, len(top1) + 1)]
        write_run(tmp_path, top1, budget=BUDGET, seed=seed, measurement=measured)
    runs = load_results(tmp_path)
    (group,) = groups(runs, leaderboard(runs), tmp_path)
    points = curves.read(group.lines[0], tmp_path)
    assert points == curves.Points([12.5, 21.0], [15.0, 50.0], [10.0, 40.0], [20.0, 60.0], 2)
    chart = curves.chart(group, [points])
    assert chart is not None
    assert (chart.timed, [name for _, name in chart.x_ticks]) == (True, ["0", "5.25", "10.5", "15.8", "21"])

    found = curves_of(labelled(runs, runs))
    assert over_seeds(found, "top1", "seconds")["x"].tolist() == [12.5, 21.0]
    line = over_seeds(found, "top1")
    assert line["x"].tolist() == [64 * 6.5, 64 * 11.0]
    assert line["mean"].tolist() == [15.0, 50.0]


def test_a_curve_without_its_seconds_is_none(tmp_path: Path) -> None:
    write_run(tmp_path, {5: 10.0, 10: 40.0, 15: 50.0}, budget=BUDGET)  # two seconds for three snapshots
    runs = load_results(tmp_path)
    (group,) = groups(runs, leaderboard(runs), tmp_path)
    assert curves.read(group.lines[0], tmp_path) is None
