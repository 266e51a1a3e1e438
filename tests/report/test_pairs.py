"""Every two rows of a group against each other: numbers by hand, nothing mixed, nothing hidden."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from factory import make_record, write_record
from safetensors.numpy import save_file

import dfkd_bench
from dfkd_bench.errors import RunError
from dfkd_bench.report.tables import pairs as pr
from dfkd_bench.report.tables.leaderboard import leaderboard
from dfkd_bench.report.tables.predictions import FILE, correct, resolution
from dfkd_bench.report.tables.runs import long_table
from dfkd_bench.stats.paired import holm, paired

STEP = 100 / 597


def runs(method: str, *values: float, first: int = 0, **spec: Any) -> list[dict[str, Any]]:
    """Records of one method, a seed each from `first` on."""
    return [make_record(method=method, last=v, seed=first + k, **spec) for k, v in enumerate(values)]


def table_of(*found: list[dict[str, Any]]) -> pd.DataFrame:
    return pr.pairs(long_table([record for some in found for record in some]))


def pair(frame: pd.DataFrame, a: str, b: str) -> dict[str, Any]:
    (row,) = frame[(frame["method_a"] == a) & (frame["method_b"] == b)].to_dict("records")
    return row


def test_a_pair_by_hand() -> None:
    # seeds 1, 2, 3 are shared: differences 1, 2, 3, mean 2, sd 1, half 4.302653 / sqrt(3), p 0.0741799;
    # 90, 92, 94, 96 against 91, 92, 93: 90 none, 92 one and a tie, 94 and 96 all three: 7.5 of 12
    (row,) = table_of(runs("up", 90, 92, 94, 96), runs("low", 91, 92, 93, first=1)).to_dict("records")
    assert (row["method_a"], row["method_b"], row["bound"]) == ("up", "low", False)
    assert (row["n_a"], row["n_b"], row["n"]) == (4, 3, 3)
    assert (row["last_a"], row["last_b"], row["difference"]) == (93.0, 92.0, 2.0)
    assert (row["low"], row["high"]) == pytest.approx((2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5), abs=1e-6)
    assert row["p"] == pytest.approx(0.0741799, abs=1e-6)
    assert row["p_holm"] == row["p"]
    assert row["verdict"] == "not distinguishable"
    assert row["improvement"] == 7.5 / 12
    assert row["improvement_low"] < 7.5 / 12 < row["improvement_high"]
    assert math.isnan(row["mcnemar_p"])
    assert row["mcnemar_seeds"] is None


def test_columns_are_documented_and_there_without_rows() -> None:
    frame = table_of(runs("a", 90), runs("b", 91))
    assert tuple(frame.columns) == pr.NAMES
    assert all(c.meaning for c in pr.COLUMNS)
    for empty in (table_of(), table_of(runs("a", 90, 91))):
        assert empty.empty
        assert empty.dtypes.to_dict() == frame.dtypes.to_dict()


def test_p_values_are_corrected_within_the_group_and_bounds_stand_outside() -> None:
    groups = {"quick": (90.0, 91.0, 92.5), "standard": (80.0, 91.0, 92.0)}
    found = []
    for budget, middle in groups.items():
        for k, mean in enumerate(middle):
            found.append(runs(f"m{k}", mean - 1, mean + 0.3 * k, mean + 1, mean + 0.5, budget=budget))
        found.append(runs("noise", 10, 11, 12, 13.5, budget=budget))
    frame = table_of(*found)
    assert len(frame) == 2 * 6
    for _, group in frame.groupby("budget"):
        ranked = group[~group["bound"]]
        assert len(ranked) == 3
        assert ranked["p_holm"].to_numpy() == pytest.approx(holm(ranked["p"].to_numpy()))
        assert (ranked["p_holm"] > ranked["p"]).sum() >= 2
        assert group.loc[group["bound"], "p_holm"].isna().all()
        assert (group.loc[group["bound"], "method_b"] == "noise").all()
        assert (group.loc[group["bound"], "verdict"] == "better").all()
    assert ((frame["p_holm"] < 0.05) == (frame["verdict"] == "better"))[~frame["bound"]].all()


def test_the_verdict_is_after_the_correction() -> None:
    # alone, p is 0.0393 for a against b; among three pairs it is no longer below 0.05
    alone = [runs("a", 92.0, 92.4, 92.9, 93.3), runs("b", 91.5, 92.2, 92.2, 92.6)]
    (before,) = table_of(*alone).to_dict("records")
    assert before["p"] < 0.05
    assert before["verdict"] == "better"
    after = pair(table_of(*alone, runs("c", 92.3, 91.9, 92.8, 92.0)), "a", "b")
    assert after["p"] == before["p"]
    assert after["p_holm"] >= 0.05
    assert after["verdict"] == "not distinguishable"


@pytest.mark.parametrize(
    "other",
    [{"track": "recipe"}, {"protocol": "1.1"}, {"budget": "standard"}, {"device": "cuda"}, {"precision": "bf16"},
     {"teacher": "ab" * 32}, {"data": "cd" * 32}, {"task": "digits16/cnn32-cnn32"}],
)  # fmt: skip
def test_what_cannot_be_compared_is_no_pair(other: dict[str, Any]) -> None:
    assert table_of(runs("a", 90, 91), runs("b", 80, 81, **other)).empty


@pytest.mark.parametrize("other", [{"preset": "textbook"}, {"overrides": {"x": 1}}, {"code": "6b" * 32}])
def test_rows_of_one_method_are_a_pair(other: dict[str, Any]) -> None:
    (row,) = table_of(runs("a", 90, 91), runs("a", 80, 81, **other)).to_dict("records")
    assert (row["method_a"], row["method_b"]) == ("a", "a")
    name, value = next(iter(other.items()))
    column = {"code": "code_sha256"}.get(name, name)
    assert row[f"{column}_b"] == (json.dumps(value) if name == "overrides" else value)


def test_runs_that_failed_or_diverged_are_no_values_and_repeats_count_once() -> None:
    again = {**make_record(method="a", last=90.0, seed=0), "path": "copy/record.json"}
    frame = table_of(
        runs("a", 90, 92), [again], runs("a", 1, first=2, status="diverged"), runs("b", 89, 90, 91),
        runs("c", 1, 1, status="failed"), runs("d", 50),
    )  # fmt: skip
    row = pair(frame, "a", "b")
    assert (row["n_a"], row["n_b"], row["n"], row["difference"]) == (2, 3, 2, 1.5)
    gone = pair(frame, "a", "c")
    assert (gone["n_b"], gone["n"], gone["verdict"]) == (0, 0, "not distinguishable")
    assert all(math.isnan(gone[name]) for name in ("last_b", "difference", "p", "p_holm", "improvement"))
    assert row["p_holm"] == row["p"]  # pairs without a test are not counted


def test_the_resolution_of_the_test_set_is_in_it() -> None:
    up, low = [k * STEP for k in (591, 591, 591)], [k * STEP for k in (590, 590, 590)]
    (row,) = table_of(runs("up", *up), runs("low", *low)).to_dict("records")
    assert row["p"] == pytest.approx(0.051317, abs=1e-6)
    assert resolution("digits16/cnn32-cnn16", []) == STEP
    assert resolution("cifar10/wrn40_2-wrn16_1", []) == 0.01
    assert resolution("folder:photos/a-b", ["nowhere/record.json"]) == 0.0


def test_pairs_are_in_the_order_of_the_leaderboard() -> None:
    found = [r for k, m in enumerate("dbcae") for r in runs(m, 90 + k, 91 + k)] + runs("real-kd", 99, 99)
    frame, board = pr.pairs(long_table(found)), leaderboard(long_table(found))
    order = {method: k for k, method in enumerate(board["method"])}
    assert (frame["method_a"].map(order) < frame["method_b"].map(order)).all()
    assert (frame.loc[~frame["bound"], "difference"] > 0).all()


def test_large_groups_have_the_best_and_the_neighbours_corrected_for_all() -> None:
    rng = np.random.default_rng(0)
    rows = pr.LIMIT + 20
    values = rng.normal(90, 2, (rows, 1)) + rng.normal(0, 0.5, (rows, 3))
    frame = table_of(*(runs(f"m{k:03d}", *row) for k, row in enumerate(values)))
    assert len(frame) == rows - 1 + rows - 2
    order = np.argsort(-values.mean(1))
    best = frame[frame["method_a"] == f"m{order[0]:03d}"]
    assert set(best["method_b"]) == {f"m{k:03d}" for k in order[1:]}
    follows = frame[frame["method_a"] != f"m{order[0]:03d}"]
    assert list(zip(follows["method_a"], follows["method_b"], strict=True)) == [
        (f"m{a:03d}", f"m{b:03d}") for a, b in pairwise(order[1:])
    ]
    family = rows * (rows - 1) // 2
    assert frame["p_holm"].min() == pytest.approx(frame["p"].min() * family)
    assert len(pr.pair_indices(pr.LIMIT)[0]) == pr.LIMIT * (pr.LIMIT - 1) // 2


@pytest.mark.long
def test_thousands_of_rows_are_each_what_one_pair_is() -> None:
    rng = np.random.default_rng(1)
    base = long_table([make_record()]).iloc[[0] * 4000]
    groups, rows = 100, 20
    frame = base.assign(
        teacher_sha256=np.repeat([f"{k:064x}" for k in range(groups)], rows * 2),
        method=np.tile(np.repeat([f"m{k}" for k in range(rows)], 2), groups),
        seed=np.tile([0, 1], groups * rows),
        hash=[str(k) for k in range(4000)],
        last=np.round(rng.normal(590, 2, 4000)) * STEP,
    )
    found = pr.pairs(frame)
    assert len(found) == groups * rows * (rows - 1) // 2
    for row in found.sample(20, random_state=0).to_dict("records"):
        group = frame[frame["teacher_sha256"] == row["teacher_sha256"]].set_index(["method", "seed"])["last"]
        one = paired(group[row["method_a"]].to_dict(), group[row["method_b"]].to_dict(), STEP)
        assert (row["difference"], row["low"], row["p"]) == pytest.approx((one.mean, one.low, one.p))


# -- predictions ------------------------------------------------------------------------------------------------------


def write_answers(root: Path, record: dict[str, Any], right: list[int]) -> Path:
    """A record with predictions of as many images as `right` has flags."""
    path = write_record(root, record)
    labels = np.arange(len(right), dtype=np.int32) % 10
    student = np.where(right, labels, labels + 1).astype(np.int32)
    save_file({"student": student, "teacher": labels + 2, "labels": labels}, path.parent / FILE)
    return path


def test_mcnemar_stands_beside_where_there_are_predictions(tmp_path: Path) -> None:
    answers = {
        ("a", 0): [1, 1, 1, 1, 1, 0], ("a", 1): [1, 1, 1, 0, 0, 0], ("a", 2): [1] * 6,
        ("b", 0): [1, 0, 0, 0, 0, 1], ("b", 1): [1, 1, 0, 0, 0, 0],
    }  # fmt: skip
    for (method, seed), right in answers.items():
        last = 100 * sum(right) / 6
        write_answers(tmp_path, make_record(method=method, seed=seed, last=last, task="folder:x/a-b"), right)
    write_record(tmp_path, make_record(method="b", seed=2, last=50.0, task="folder:x/a-b"))  # predictions are lost
    frame = dfkd_bench.load_results(tmp_path)
    (row,) = pr.pairs(frame, predictions=True).to_dict("records")
    # seed 0: 4 against 1, p = 2 * (1 + 5) / 32; seed 1: 1 against 0, p = 1
    assert json.loads(row["mcnemar_seeds"]) == {"0": pytest.approx(0.375), "1": 1.0}
    assert (row["only_a"], row["only_b"]) == (5, 1)
    # by image 0, 1, 2, 1, 1, -1: sums of +-1 +-2 +-1 +-1 +-1 at least 4 from zero: 10 of 32
    assert row["mcnemar_p"] == pytest.approx(10 / 32)
    assert row["n"] == 3  # the difference needs no predictions
    assert resolution("folder:x/a-b", frame["path"]) == pytest.approx(100 / 6)
    (without,) = pr.pairs(frame).to_dict("records")
    assert math.isnan(without["mcnemar_p"])


def test_predictions_that_cannot_be_read_or_compared_are_refused(tmp_path: Path) -> None:
    broken = write_answers(tmp_path, make_record(method="a"), [1, 0])
    write_answers(tmp_path, make_record(method="b"), [1, 0, 1])
    with pytest.raises(RunError, match="different numbers of images"):
        pr.pairs(dfkd_bench.load_results(tmp_path), predictions=True)
    (broken.parent / FILE).write_bytes(b"no tensors")
    with pytest.raises(RunError, match=rf"{FILE} cannot be read"):
        correct(broken)
    assert correct(tmp_path / "record.json") is None
