"""Label agreement, `label_consistency` of a record: a column of every table, empty for methods without labels."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import pytest
from factory import RESULT, make_record
from pages import page_of, rows_of
from rich.console import Console

from dfkd_bench.distill.page import quality
from dfkd_bench.distill.table import result_table
from dfkd_bench.report.latex import latex
from dfkd_bench.report.tables.leaderboard import leaderboard, write_csv
from dfkd_bench.report.tables.runs import long_table
from dfkd_bench.report.tables.tuning import trials_table
from dfkd_bench.report.terminal import leaderboard as boards
from dfkd_bench.report.terminal.runs import run_table, runs_table


def record(method: str, *labels: float | None, budget: str = "quick") -> list[dict[str, Any]]:
    """A run of `method` for each label agreement."""
    images = RESULT["samples"]
    return [
        make_record(method=method, seed=k, budget=budget, result={"samples": {**images, "label_consistency": value}})
        for k, value in enumerate(labels)
    ]


def records(budget: str = "quick") -> list[dict[str, Any]]:
    return [*record("with", 33.0, 34.5, budget=budget), *record("without", None, budget=budget)]


def printed(shown: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(shown)
    return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]


def cells(lines: list[str], parted: str, header: str) -> dict[str, str]:
    """What stands under `header`, by the first word of the column of the method."""
    rows = [[cell.strip() for cell in line.strip(" |\\").split(parted)] for line in lines if parted in line]
    place, name = rows[0].index(header), next(k for k, cell in enumerate(rows[0]) if cell.lower() == "method")
    return {row[name].partition("$")[0]: row[place] for row in rows[1:]}


@pytest.mark.parametrize("budget", ["quick", "seconds:30"])
def test_the_leaderboard_has_the_column_wherever_it_is_shown(budget: str, tmp_path: Path) -> None:
    board = leaderboard(long_table(records(budget)))
    text = boards.markdown(board)
    assert {k: v for k, v in cells(text.split("\n"), " | ", "labels").items() if k.startswith("with")} == {
        "with": "33.8", "without": "",
    }  # fmt: skip
    assert "labels: label agreement" in text
    console = Console(file=io.StringIO(), width=200)
    boards.show(console, board)
    on_terminal = console.file.getvalue()  # type: ignore[attr-defined]
    assert "labels: label agreement" in on_terminal
    (line,) = [line for line in on_terminal.split("\n") if line.split()[1:2] == ["with"]]
    assert " 33.8 " in line
    assert "33.8" in boards.of_method(board, "with")

    tex = latex(board)
    assert cells(tex.split("\n"), " & ", "Labels") == {"with": "33.8", "without": "--"}
    assert "Labels: label agreement" in tex
    write_csv(board, tmp_path / "board.csv")
    with (tmp_path / "board.csv").open() as file:
        found = {row["method"]: row["label_consistency_mean"] for row in csv.DictReader(file)}
    assert found == {"with": "33.75", "without": ""}
    assert {row["method"]: row["labels"] for row in rows_of(*records(budget))} == {"with": 33.8, "without": None}


def test_the_page_says_what_the_column_is() -> None:
    page = page_of(*records())
    assert "label agreement, synthetic images for which the teacher predicts their label" in "".join(page.text)
    assert any('number("labels", "labels"' in text for _, _, text in page.raw)


def test_runs_on_the_terminal() -> None:
    lines = [line.split() for line in printed(runs_table(records())).split("\n") if " complete " in line]
    assert [line[-2] for line in lines] == ["33.0", "34.5", "-"]
    one, none = (printed(run_table(made[0], {})) for made in (record("with", 34.2), record("without", None)))
    assert "label agreement 34 %" in one
    assert "label" not in none


def test_a_student_of_one_s_own(tmp_path: Path) -> None:
    for value, says in ((34.2, "34.20 %"), (None, "")):
        (made,) = record("with", value)
        result = {**made["result"], "synthetic_agreement": 90.0}
        shown = dict(quality(result))
        assert [v for k, v in shown.items() if k.startswith("label agreement")] == [says] * bool(says)
        sizes = {key: {"parameters": 1, "macs": 1} for key in ("teacher", "student")}
        own = {**made, "result": result, "own": {"arch": "cnn16", "sizes": sizes, "checked": {}}}
        text = printed(result_table({**own, "evaluation": None, "files": []}, tmp_path))
        found = [line.split()[-2:] for line in text.split("\n") if "label agreement" in line]
        assert found == [says.split()] * bool(says)


def test_trials(tmp_path: Path) -> None:
    path = tmp_path / "tuning.csv"
    head = (
        "task,track,budget,seed,method,preset,trial,settings,label_consistency,probe_agreement,eligible,chosen,protocol"
    )
    rows = ("with,v,0,{},34.18,80.0,false,false", "with,v,1,{},95.5,70.0,true,true", "without,v,0,{},,60.0,true,true")
    path.write_text("\n".join([head, *(f"a/b-c,pinned,quick,100,{row},1.2" for row in rows)]) + "\n")
    text = trials_table(path)
    assert {k: v for k, v in cells(text.split("\n"), " | ", "labels").items() if k.startswith("with")} == {
        "with": "95.5", "without": "",
    }  # fmt: skip
    assert "- labels: label agreement of the chosen trial" in text
    path.write_text(path.read_text().replace("label_consistency", "another"))  # a table of before
    assert "labels" not in trials_table(path)
