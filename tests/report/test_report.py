"""Records to tables: every number against one worked out by hand, nothing mixed, nothing hidden."""

from __future__ import annotations

import io
import json
import math
from typing import Any

import pandas as pd
import pytest
from factory import RESULT, make_record, write_record, write_records
from rich.console import Console

import dfkd_bench
from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.method import Privileges
from dfkd_bench.protocol import PROTOCOL
from dfkd_bench.report import privileges
from dfkd_bench.report.docs import BEGIN, END, write_docs
from dfkd_bench.report.tables import leaderboard as lb
from dfkd_bench.report.tables import runs
from dfkd_bench.report.terminal import leaderboard as view
from dfkd_bench.report.terminal.runs import runs_table
from dfkd_bench.report.terminal.sections import MAX_ROWS
from dfkd_bench.training.meter import COUNTS


def rows_of(*found: dict[str, Any]) -> pd.DataFrame:
    """The leaderboard of some records."""
    return lb.leaderboard(runs.long_table(found))


def text_of(frame: pd.DataFrame, width: int) -> str:
    """What the terminal shows."""
    console = Console(width=width, file=io.StringIO(), record=True)
    view.show(console, frame)
    return console.export_text()


# -- the long table ---------------------------------------------------------------------------------------------------


def test_a_record_becomes_one_row_with_every_number_in_its_column() -> None:
    (row,) = runs.long_table([make_record(seed=7, overrides={"b": 2, "a": "x"})]).to_dict("records")
    assert (row["task"], row["method"], row["seed"], row["owner"]) == ("digits16/cnn32-cnn16", "alpha", 7, "somebody")
    assert row["overrides"] == '{"a": "x", "b": 2}'
    assert (row["last"], row["oracle"], row["snapshot_mean"], row["snapshot_variance"]) == (97.5, 98.0, 80.0, 400.0)
    assert (row["selected"], row["agreement"], row["kl"], row["ece"]) == (97.0, 97.25, 0.11, 0.02)
    assert (row["images_to_90"], row["seconds_to_90"], row["area"]) == (30720.0, 34.8, 80.0)
    assert math.isnan(row["images_to_95"])
    assert (row["seconds"], row["seconds_synthesis"], row["peak_memory_bytes"]) == (60.0, 40.0, 2.0**30)
    assert (row["teacher_forwards"], row["generator_parameters"]) == (112640.0, 147221.0)
    assert (row["status"], row["bound"], row["compile"], row["alarms"]) == ("complete", False, False, "")


def test_columns_are_stable_and_documented() -> None:
    frame = runs.long_table([make_record()])
    assert tuple(frame.columns) == runs.NAMES
    assert len(set(runs.NAMES)) == len(runs.NAMES)
    assert all(c.meaning for c in (*runs.COLUMNS, *lb.COLUMNS))
    assert set(COUNTS) <= set(runs.NAMES)  # cost.py is the source, and is not imported by the report
    assert tuple(rows_of(make_record()).columns) == lb.NAMES
    assert runs.long_table([]).columns.tolist() == frame.columns.tolist()
    assert rows_of().empty


def test_missing_stays_missing() -> None:
    failed = make_record(status="failed", seed=1)
    bare = make_record(seed=2, result={"samples": None})
    frame = runs.long_table([failed, bare]).set_index("seed")
    assert frame.loc[1, ["last", "kl", "coverage", "teacher_forwards", "seconds_synthesis"]].isna().all()
    assert frame.loc[1, "error"] == "ValueError: no"
    assert frame.loc[1, "alarms"] is None
    assert frame.loc[1, "seconds"] == 1.0
    assert math.isnan(frame.loc[2, "coverage"])
    assert frame.loc[2, "last"] == 97.5


def test_scratch_is_the_yardstick_on_equal_terms_alone() -> None:
    found = [
        make_record(last=90.0),
        make_record(last=90.0, budget="standard"),
        make_record(method="scratch", last=80.0, seed=0),
        make_record(method="scratch", last=100.0, seed=1),
        make_record(method="scratch", last=1.0, seed=2, overrides={"label_smoothing": 0.1}),
        make_record(method="scratch", last=1.0, seed=3, status="diverged"),
        make_record(method="scratch", last=1.0, seed=0, device="cuda"),
    ]
    ratio = runs.long_table(found)["rel_scratch"]
    assert ratio[0] == pytest.approx(1.0)  # 90 over the mean of 80 and 100
    assert math.isnan(ratio[1])  # no scratch in that budget
    assert ratio[2] == pytest.approx(80 / 90)
    assert "rel_scratch" not in json.dumps(found)


def test_privileges_come_from_the_record_then_from_the_card_and_else_are_not_known() -> None:
    found = [
        make_record(privileges=("gradients", "penultimate")),
        make_record(privileges=()),
        make_record(privileges=None, method="scratch"),
        make_record(privileges=None, method="nobody"),
    ]
    assert runs.long_table(found)["privileges"].tolist() == ["gradients,penultimate", "none", "real_data", None]


def test_the_privilege_table_is_that_of_the_contract() -> None:
    assert list(privileges.PRIVILEGES) == list(Privileges.__dataclass_fields__)
    letters = [mark for mark, _ in privileges.PRIVILEGES.values()]
    assert len(set(letters)) == len(letters)
    assert privileges.marks("gradients,penultimate") == "GP"
    assert privileges.legend(["penultimate,gradients", "none", None]) == [
        ("G", "gradients"), ("P", "penultimate"), ("-", "logits alone"), ("?", "not known"),
    ]  # fmt: skip


@pytest.mark.parametrize("key", ["task", "seed", "track"])
def test_a_record_that_is_not_whole_is_named(key: str) -> None:
    record = make_record()
    del record["spec"][key]
    with pytest.raises(RunError, match=f"somewhere/record.json.*{key}"):
        runs.long_table([record])


def test_a_word_where_a_number_belongs_is_refused() -> None:
    with pytest.raises(RunError, match="number"):
        runs.long_table([make_record(result={"rel_teacher": "much"})])


def test_load_results_is_the_public_door(tmp_path: Any) -> None:
    write_records(tmp_path, 6)
    frame = dfkd_bench.load_results(tmp_path)
    assert len(frame) == 6
    assert frame["path"].str.endswith("record.json").all()
    with pytest.raises(UsageError, match="no results folder"):
        dfkd_bench.load_results(tmp_path / "nowhere")
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(RunError, match="not a record"):
        dfkd_bench.load_results(tmp_path)
    with pytest.raises(AttributeError):
        _ = dfkd_bench.load_result  # type: ignore[attr-defined]


# -- statistics -------------------------------------------------------------------------------------------------------


def test_mean_spread_and_interval_by_hand() -> None:
    # 94, 96, 98: mean 96, squared deviations 4 + 0 + 4, sd = sqrt(8 / 2) = 2;
    # t(0.975, 2) = 4.302653 (any table), half-width 4.302653 * 2 / sqrt(3) = 4.968275
    (row,) = rows_of(*(make_record(seed=s, last=v) for s, v in enumerate((94.0, 96.0, 98.0)))).to_dict("records")
    assert row["last_mean"] == pytest.approx(96.0)
    assert row["last_sd"] == pytest.approx(2.0)
    assert row["last_ci95"] == pytest.approx(4.968275, abs=1e-5)
    assert (row["n_complete"], row["seeds"]) == (3, "0,1,2")
    assert row["seconds_mean"] == 60.0
    assert "seconds_sd" not in row


def test_two_runs_have_a_wide_interval_and_one_has_none() -> None:
    # 90, 91: sd = 1 / sqrt(2), t(0.975, 1) = 12.706205, half-width 12.706205 / sqrt(2) / sqrt(2) = 6.353102
    (two,) = rows_of(make_record(seed=0, last=90.0), make_record(seed=1, last=91.0)).to_dict("records")
    assert two["last_ci95"] == pytest.approx(6.353102, abs=1e-5)
    (one,) = rows_of(make_record(last=90.0)).to_dict("records")
    assert one["last_mean"] == 90.0
    assert math.isnan(one["last_sd"])
    assert math.isnan(one["last_ci95"])


def test_a_mean_is_given_only_where_every_run_has_the_number() -> None:
    never = {"convergence": {"student_images_to": {"50": 100.0, "80": None, "90": None, "95": None}, "area": 60.0}}
    (row,) = rows_of(make_record(seed=0), make_record(seed=1, result=never)).to_dict("records")
    assert row["images_to_50_mean"] == (10240 + 100) / 2
    assert math.isnan(row["images_to_80_mean"])
    assert row["area_mean"] == 70.0


def test_failed_and_diverged_runs_are_counted_and_in_no_mean() -> None:
    (row,) = rows_of(
        make_record(seed=0, last=90.0),
        make_record(seed=1, last=10.0, status="diverged"),
        make_record(seed=2, status="failed"),
        make_record(seed=3, status="failed"),
        make_record(seed=4, last=92.0, result={"alarms": ["coverage: 10%"]}),
    ).to_dict("records")
    assert (row["n_complete"], row["n_diverged"], row["n_failed"], row["n_alarmed"]) == (2, 1, 2, 1)
    assert row["last_mean"] == 91.0
    assert row["seeds"] == "0,4"


def test_a_method_that_only_fails_is_a_row_without_numbers_or_rank() -> None:
    frame = rows_of(make_record(status="failed"), make_record(method="beta", last=50.0))
    assert frame["method"].tolist() == ["beta", "alpha"]
    assert frame["rank"].tolist() == [1, pd.NA]
    assert math.isnan(frame["last_mean"][1])


def test_one_run_on_disk_twice_counts_once_and_complete_wins() -> None:
    again = {**make_record(seed=0, last=90.0), "path": "copy/record.json"}
    failed = {**make_record(seed=0, status="failed"), "path": "a/record.json"}
    (row,) = rows_of(failed, make_record(seed=0, last=90.0), again, make_record(seed=1, last=92.0)).to_dict("records")
    assert (row["n_complete"], row["n_failed"], row["n_repeated"], row["last_mean"]) == (2, 0, 2, 91.0)


def test_clock_means_are_empty_over_several_devices() -> None:
    (row,) = rows_of(make_record(seed=0), make_record(seed=1, device_name="Other CPU")).to_dict("records")
    assert row["device_name"] == "Other CPU,Some CPU"
    assert all(math.isnan(row[k]) for k in ("seconds_mean", "peak_memory_bytes_mean", "seconds_to_50_ci95"))
    assert row["teacher_forwards_mean"] == 112640.0
    assert row["last_mean"] == 97.5


# -- what may share a row, a table, a rank ----------------------------------------------------------------------------

ROWS_APART: list[dict[str, Any]] = [
    {"preset": "textbook"}, {"overrides": {"alpha": 1.0}}, {"compile": True}, {"threads": 1}, {"code": "6b" * 32},
    {"settings": {"alpha": 4.0}}, {"method": "beta"},
]  # fmt: skip
GROUPS_APART: list[dict[str, Any]] = [
    {"track": "recipe"}, {"protocol": "1.1"}, {"budget": "standard"}, {"device": "cuda"}, {"precision": "bf16"},
    {"task": "digits16/cnn32-cnn32"}, {"teacher": "ab" * 32}, {"data": "cd" * 32},
]  # fmt: skip


@pytest.mark.parametrize("other", [*ROWS_APART, *GROUPS_APART], ids=str)
def test_what_differs_never_shares_a_row(other: dict[str, Any]) -> None:
    frame = rows_of(make_record(last=90.0), make_record(last=80.0, seed=1, **other))
    assert frame["n_complete"].tolist() == [1, 1]
    assert sorted(frame["last_mean"]) == [80.0, 90.0]


@pytest.mark.parametrize("other", GROUPS_APART, ids=str)
def test_incomparable_rows_share_neither_table_nor_rank(other: dict[str, Any]) -> None:
    frame = rows_of(make_record(last=90.0), make_record(last=80.0, method="beta", **other))
    assert frame["rank"].tolist() == [1, 1]
    assert [len(s.ranked) for s in view.sections(frame)] == [1, 1]


def test_comparable_rows_are_ranked_and_bounds_are_not() -> None:
    frame = rows_of(
        make_record(method="real-kd", last=99.0, privileges=("real_data",)),
        make_record(method="low", last=80.0),
        make_record(method="high", last=95.0),
        make_record(method="tie", last=80.0),
        make_record(method="noise", last=10.0, privileges=()),
    )
    found = dict(zip(frame["method"], frame["rank"].astype(object), strict=True))
    assert found == {"high": 1, "low": 2, "tie": 2, "noise": pd.NA, "real-kd": pd.NA}
    assert frame["method"].tolist() == ["high", "low", "tie", "noise", "real-kd"]
    (section,) = view.sections(frame)
    assert [row[1] for row in section.ranked] == ["high", "low", "tie"]
    assert [row[1] for row in section.bounds] == ["noise", "real-kd"]


# -- renderings -------------------------------------------------------------------------------------------------------


def test_csv_is_full_precision_and_the_same_whatever_the_order_of_records(tmp_path: Any) -> None:
    found = [make_record(seed=s, method=m, last=90.0 + s / 3) for m in ("b", "a") for s in (0, 1, 2)]
    lb.write_csv(rows_of(*found), tmp_path / "x.csv")
    lb.write_csv(rows_of(*reversed(found)), tmp_path / "y.csv")
    raw = (tmp_path / "x.csv").read_bytes()
    assert raw == (tmp_path / "y.csv").read_bytes()
    assert b"\r" not in raw
    back = pd.read_csv(tmp_path / "x.csv")
    assert back["last_mean"].tolist() == [sum(90.0 + s / 3 for s in (0, 1, 2)) / 3] * 2
    assert tuple(back.columns) == lb.NAMES


@pytest.mark.parametrize("width", [80, 120])
def test_terminal_tables_fit_and_hide_nothing_of_a_plugin(width: int) -> None:
    frame = rows_of(
        make_record(method="[red]odd[/]", last=94.0),
        make_record(method="[red]odd[/]", last=96.0, seed=1),
        make_record(method="[red]odd[/]", seed=2, status="failed"),
        make_record(method="tuned", overrides={"alpha": 3.0}, compile=True, result={"alarms": ["coverage: 10%"]}),
        make_record(method="noise", last=10.0, privileges=()),
    )
    text = text_of(frame, width)
    assert all(len(line) <= width for line in text.split("\n"))
    for words in (
        "[red]odd[/]",
        "95.00 ± 12.71",
        "1 failed",
        "alpha=3.0",
        "compiled",
        "tuned !",
        f"protocol {PROTOCOL}",
        "Some CPU",
    ):
        assert words in " ".join(text.split()), words
    assert text.index("tuned") < text.index("noise")
    assert "G gradients" in text
    assert "- logits alone" in text
    assert "R real data" not in text  # only the marks in use


def test_narrow_terminals_drop_columns_and_say_so() -> None:
    text = text_of(rows_of(make_record(method="a" * 30)), 70)
    assert "97.50" in text
    assert "too narrow for:" in text
    assert "too narrow" not in text_of(rows_of(make_record(method="a" * 30)), 140)


def test_markdown_escapes_and_keeps_rows_whole() -> None:
    text = view.markdown(
        rows_of(make_record(method="a|b_c", overrides={"x": "y|z"}), make_record(method="noise", last=1.0))
    )
    lines = [line for line in text.split("\n") if line.startswith("|")]
    cells = [line.replace("\\|", "").count("|") for line in lines]
    assert len(lines) == 4
    assert set(cells) == {len(view.HEADERS) + 1}
    assert "a\\|b\\_c" in text
    assert "official, x=y\\|z" in text


def test_docs_are_written_between_the_markers_alone(tmp_path: Any) -> None:
    path = tmp_path / "B.md"
    path.write_text(f"# Top\n{BEGIN}\nold\n{END}\nbottom\n")
    write_docs([path], "new |table|\n")
    write_docs([path], "new |table|\n")
    assert path.read_text() == f"# Top\n{BEGIN}\nnew |table|\n{END}\nbottom\n"


@pytest.mark.parametrize("text", ["nothing", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_documents_without_one_pair_of_markers_are_left_alone(tmp_path: Any, text: str) -> None:
    path = tmp_path / "B.md"
    path.write_text(text)
    with pytest.raises(UsageError, match="begin:leaderboard"):
        write_docs([path], "new")
    assert path.read_text() == text
    with pytest.raises(UsageError, match="cannot read"):
        write_docs([tmp_path / "none.md"], "new")


def test_the_factory_makes_what_runs_make(tmp_path: Any) -> None:
    path = write_record(tmp_path, make_record())
    assert path.parent.name.startswith("pinned-quick-s0-")
    assert set(RESULT) >= {"status", "accuracy", "fidelity", "samples", "convergence", "alarms", "counts"}


def test_equal_accuracies_in_another_order_share_a_rank() -> None:
    right = {"alpha": (580, 585, 581), "beta": (581, 580, 585), "gamma": (580, 580, 580)}  # of 597 images
    assert sum(100 * k / 597 for k in right["alpha"]) / 3 != sum(100 * k / 597 for k in right["beta"]) / 3
    made = [make_record(method=m, seed=s, last=100 * k / 597) for m, row in right.items() for s, k in enumerate(row)]
    assert rows_of(*made)["rank"].tolist() == [1, 1, 3]


def test_a_long_group_is_cut_on_the_terminal_alone() -> None:
    frame = rows_of(*(make_record(method=f"m{k:03d}", last=90.0 - k / 10) for k in range(MAX_ROWS + 5)))
    text = text_of(frame, 120)
    assert f"m{MAX_ROWS - 1:03d} " in text
    assert f"m{MAX_ROWS:03d} " not in text
    assert "and 5 more rows" in text
    assert f"| m{MAX_ROWS:03d} |" in view.markdown(frame)


def test_text_that_is_missing_is_none() -> None:
    frame = rows_of(make_record(), make_record(method="gone", status="failed", privileges=None))
    gone = frame[frame["method"] == "gone"].iloc[0]
    assert (gone["device_name"], gone["privileges"]) == (None, None)
    assert math.isnan(gone["last_mean"])


def test_runs_on_several_tasks_have_a_table_each_in_80_columns() -> None:
    tasks = ("digits16/cnn32-cnn16", "fashion-mnist/lenet5-lenet5_half")
    made = [make_record(task=task, seed=seed, method="deepinversion") for seed in (0, 1) for task in tasks]
    console = Console(file=io.StringIO(), width=80)
    console.print(runs_table(made))
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.strip() for line in lines if "percent" in line] == [f"{task}, percent" for task in tasks]
    rows = [line.split() for line in lines if "complete" in line]
    assert [row[:5] for row in rows] == [["deepinversion", "official", str(s), "complete", "97.50"] for s in (0, 1)] * 2
