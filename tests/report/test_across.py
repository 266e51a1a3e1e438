"""Methods over several tasks: numbers by hand, and nothing where a task is missing."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import pytest
from factory import OTHER_TERMS, make_record, seeds_of
from scipy import stats

from dfkd_bench.report.tables.across_tasks import COLUMNS, NAMES, across, blocks
from dfkd_bench.report.tables.runs import long_table

X, Y = "digits16/cnn32-cnn16", "mnist/lenet5-lenet5_half"


def runs(method: str, task: str, *values: float, **spec: Any) -> list[dict[str, Any]]:
    """Records of one method on one task, a seed each; the factory's teacher has 99.5 %."""
    return seeds_of(method, *values, task=task, **spec)


def table(*found: list[dict[str, Any]]) -> pd.DataFrame:
    return long_table([record for some in found for record in some])


def row_of(frame: pd.DataFrame, method: str) -> dict[str, Any]:
    (row,) = frame[frame["method"] == method].to_dict("records")
    return row


def three_methods() -> list[list[dict[str, Any]]]:
    return [
        runs("a", X, 91, 93), runs("a", Y, 84, 86, 88),
        runs("b", X, 90, 92), runs("b", Y, 85, 85, 80),
        runs("c", X, 80, 95), runs("c", Y, 70, 71, 72),
    ]  # fmt: skip


def test_two_tasks_by_hand() -> None:
    frame = across(table(*three_methods()))
    assert frame["method"].tolist() == ["a", "b", "c"]
    row = row_of(frame, "a")
    assert (row["tasks"], row["n_tasks"], row["n_complete"]) == (2, 2, 5)
    assert row["mean"] == (92 + 86) / 2
    # as in the tests of the interval: error sqrt(1 + 4/3) / 2, 2.882353 degrees of freedom
    assert row["mean_how"] == "t"
    assert row["mean_high"] == pytest.approx(89 + 3.257207 * 0.763763, abs=1e-4)
    # 84, 86, 88, 91, 93 without the ends: (86 + 88 + 91) / 3, over the teacher's 99.5
    assert row["iqm"] == pytest.approx((86 + 88 + 91) / 3 / 99.5)
    assert row["iqm_low"] < row["iqm"] < row["iqm_high"]


def test_ranks_by_hand() -> None:
    # x, seed 0: a b c; seed 1: c a b; y, seed 0: b a c; seed 1: a b c; seed 2: a b c
    frame = across(table(*three_methods()))
    assert frame["rank"].tolist() == pytest.approx([(1 + 2 + 2 + 1 + 1) / 5, (2 + 3 + 1 + 2 + 2) / 5, 13 / 5])
    assert set(frame["n_blocks"]) == {5}
    expected = stats.friedmanchisquare([91, 93, 84, 86, 88], [90, 92, 85, 85, 80], [80, 95, 70, 71, 72])
    assert frame["friedman_p"].tolist() == pytest.approx([expected.pvalue] * 3)
    assert frame["cd"].tolist() == pytest.approx([2.343 * math.sqrt(12 / 30)] * 3, abs=1e-3)
    assert (frame["rank_how"] == "t").all()


def test_a_method_that_lacks_a_task_has_no_aggregate_and_changes_no_other() -> None:
    before = across(table(*three_methods()))
    after = across(table(*three_methods(), runs("x", Y, 99, 99, 99)))
    lacking = row_of(after, "x")
    assert (lacking["tasks"], lacking["n_tasks"], lacking["n_complete"]) == (2, 1, 3)
    assert all(math.isnan(lacking[k]) for k in ("mean", "mean_low", "iqm", "rank", "rank_low", "friedman_p", "cd"))
    assert (lacking["mean_how"], lacking["rank_how"]) == ("none", "none")
    pd.testing.assert_frame_equal(after[after["method"] != "x"].reset_index(drop=True), before)
    assert after["method"].tolist()[-1] == "x"


def test_one_method_s_missing_or_further_seed_is_its_own_affair() -> None:
    frame = across(table(*three_methods(), runs("d", X, 50), runs("d", Y, 50, 51, 52)))
    assert math.isnan(row_of(frame, "d")["rank"])  # lacks seed 1 on x
    assert row_of(frame, "d")["mean"] == 50.5
    assert row_of(frame, "a")["rank"] == pytest.approx(7 / 5)
    more = across(table(*three_methods(), runs("a", X, 10, 10, first=2)))
    assert more.set_index("method")["rank"].to_dict() == pytest.approx({"a": 7 / 5, "b": 2.0, "c": 13 / 5})
    assert set(more["n_blocks"]) == {5}
    assert row_of(more, "a")["mean"] == (51 + 86) / 2  # but every run counts in the mean


def test_bounds_are_shown_unranked_and_make_no_task() -> None:
    bounds = [runs("real-kd", X, 99, 99), runs("real-kd", Y, 98, 98, 98), runs("noise", "svhn/wrn40_2-wrn16_1", 9, 9)]
    frame = across(table(*three_methods(), *bounds))
    bound = row_of(frame, "real-kd")
    assert (bound["bound"], bound["mean"], bound["tasks"]) == (True, 98.5, 2)
    assert math.isnan(bound["rank"])
    assert row_of(frame, "a")["rank"] == pytest.approx(7 / 5)
    assert frame["method"].tolist() == ["a", "b", "c", "real-kd"]  # noise ran on none of these tasks


def test_failed_and_diverged_runs_are_in_no_number_and_one_on_disk_twice_counts_once() -> None:
    again = {**make_record(method="a", task=X, last=91.0, seed=0), "path": "copy/record.json"}
    lost = [runs("a", X, 1, first=7, status="diverged"), runs("b", Y, 1, first=8, status="failed")]
    frame = across(table(*three_methods(), *lost, [again]))
    a, b = row_of(frame, "a"), row_of(frame, "b")
    assert (a["n_complete"], a["n_diverged"], a["n_failed"], a["mean"]) == (5, 1, 0, 89.0)
    assert (b["n_diverged"], b["n_failed"]) == (0, 1)
    assert a["rank"] == pytest.approx(7 / 5)


@pytest.mark.parametrize("other", OTHER_TERMS[:5], ids=str)
def test_terms_are_never_mixed(other: dict[str, Any]) -> None:
    frame = across(table(runs("a", X, 90, 91), runs("a", Y, 10, 11, **other)))
    assert len(frame) == 2
    assert sorted(frame["mean"]) == [10.5, 90.5]
    assert (frame["tasks"] == 1).all()


@pytest.mark.parametrize("other", OTHER_TERMS[6:], ids=str)
def test_another_teacher_or_other_data_is_another_task(other: dict[str, Any]) -> None:
    (row,) = across(table(runs("a", X, 90, 92), runs("a", X, 80, 82, **other))).to_dict("records")
    assert (row["tasks"], row["mean"]) == (2, 86.0)


@pytest.mark.parametrize("other", [{"code": "6b" * 32}, {"preset": "textbook"}, {"overrides": {"x": 1}}])
def test_another_code_preset_or_setting_is_another_competitor(other: dict[str, Any]) -> None:
    frame = across(table(runs("a", X, 90, 92), runs("a", X, 80, 82, **other)))
    assert sorted(frame["mean"]) == [81.0, 91.0]
    assert sorted(frame["rank"]) == [1.0, 2.0]


def test_settings_that_differ_by_task_are_one_competitor_and_within_a_task_none() -> None:
    (row,) = across(table(runs("a", X, 90, 92), runs("a", Y, 80, 82, settings={"alpha": 1.0}))).to_dict("records")
    assert (row["mean"], row["n_ambiguous"]) == (86.0, 0)
    frame = across(table(*three_methods(), runs("a", X, 50, 51, settings={"alpha": 1.0})))
    unclear = row_of(frame, "a")
    assert unclear["n_ambiguous"] == 1
    assert math.isnan(unclear["mean"])
    assert math.isnan(unclear["rank"])
    assert row_of(frame, "b")["rank"] == pytest.approx((1 + 2 + 1 + 1 + 1) / 5)


def test_blocks_are_the_table_of_the_ranks() -> None:
    found = blocks(table(*three_methods(), runs("a", X, 10, first=5)))
    assert found.index.tolist() == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    assert [name[0] for name in found.columns] == ["a", "b", "c"]
    assert found.iloc[1].tolist() == [93, 92, 95]


def test_columns_are_documented_and_nothing_is_a_table_too() -> None:
    assert tuple(across(table(*three_methods())).columns) == NAMES
    assert all(c.meaning for c in COLUMNS)
    for empty in (across(table()), across(table(runs("a", X, 1, status="failed"))), across(table(runs("noise", X, 1)))):
        assert empty.empty
        assert tuple(empty.columns) == NAMES
