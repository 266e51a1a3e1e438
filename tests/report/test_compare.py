"""`dfkd-bench compare`: numbers by hand, verdicts in words, and one line for everything that cannot be compared."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import dfkd, snoop
from factory import make_record, write_record
from safetensors.numpy import save_file

from dfkd_bench.report.tables.compare import compare, label, select_runs
from dfkd_bench.report.tables.predictions import FILE
from dfkd_bench.report.tables.runs import long_table
from dfkd_bench.report.terminal.compare import p_text, points
from dfkd_bench.stats.paired import holm, paired

STEP = 100 / 597


def put(root: Path, method: str, *values: float, first: int = 0, **spec: Any) -> list[Path]:
    """Records of one method below `root`, a seed each."""
    return [
        write_record(root, make_record(method=method, last=v, seed=first + k, **spec)) for k, v in enumerate(values)
    ]


def answer(record: Path, right: list[bool]) -> None:
    """Predictions beside a record."""
    labels = np.zeros(len(right), np.int32)
    save_file({"student": 1 - np.array(right, np.int32), "teacher": labels, "labels": labels}, record.parent / FILE)


def said(monkeypatch: Any, capsys: Any, *words: str | Path, columns: int = 110) -> str:
    """What `compare` prints, in one line; it must succeed and say nothing else."""
    status, out, err = dfkd(monkeypatch, capsys, "compare", *words, columns=columns)
    assert (status, err) == (0, "")
    assert all(len(line) <= columns for line in out.split("\n"))
    return " ".join(out.split())


# -- what is compared -------------------------------------------------------------------------------------------------


def test_numbers_by_hand() -> None:
    found = [make_record(method="up", last=v, seed=s) for s, v in enumerate((90.0, 92.0, 94.0, 99.0))]
    found += [make_record(method="low", last=v, seed=s) for s, v in enumerate((89.0, 90.0, 91.0))]
    found += [make_record(method="low", status="failed", seed=3), make_record(method="low", status="diverged", seed=4)]
    runs = long_table(found).assign(path=lambda frame: frame["hash"] + "/record.json")
    (one,) = compare(select_runs("up", runs, Path()), select_runs("low", runs, Path()))
    # differences 1, 2, 3 over seeds 0, 1, 2; means over all complete runs
    assert (one.paired.n, one.paired.mean, one.paired.seeds) == (3, 2.0, (0, 1, 2))
    assert one.paired.p == pytest.approx(0.0741799, abs=1e-6)
    assert (one.a.mean.mean, one.b.mean.mean, one.a.mean.n, one.b.mean.n) == (93.75, 90.0, 4, 3)
    assert (one.b.n_failed, one.b.n_diverged, one.a.n_failed) == (1, 1, 0)
    # 90 beats 89 and ties with 90, 92, 94, 99 beat all: 1.5 + 9 of 12
    assert one.improvement.mean == 10.5 / 12
    assert (one.images, one.images_by_seed) == (None, {})
    assert one.terms["task"] == "digits16/cnn32-cnn16"


def test_p_values_of_all_groups_are_corrected_together() -> None:
    found = []
    for budget, gain in (("quick", 1.0), ("standard", 0.6), ("full", 0.0)):
        for s in range(4):
            found.append(make_record(method="a", budget=budget, seed=s, last=90 + gain + 0.3 * s))
            found.append(make_record(method="b", budget=budget, seed=s, last=90 + 0.3 * s + 0.2 * (s % 2)))
    runs = long_table(found).assign(path=lambda frame: frame["hash"] + "/record.json")
    every = compare(select_runs("a", runs, Path()), select_runs("b", runs, Path()))
    assert [one.terms["budget"] for one in every] == ["full", "quick", "standard"]
    raw = [one.paired.p for one in every]
    assert [one.p_holm for one in every] == pytest.approx(holm(raw).tolist())
    assert [one.verdict for one in every] == [
        "better" if one.p_holm < 0.05 and one.paired.mean > 0 else "not distinguishable" for one in every
    ]
    assert every[1].verdict == "better"
    back = compare(select_runs("b", runs, Path()), select_runs("a", runs, Path()))
    assert back[1].verdict == "worse"
    assert back[1].paired.mean == -every[1].paired.mean


def test_words_choose_rows() -> None:
    found = [
        make_record(method="m"), make_record(method="m", preset="textbook"), make_record(method="m", threads=8),
        make_record(method="m", overrides={"x": 1.0}), make_record(method="m", overrides={"x": 1.0, "s": "a:b"}),
        make_record(method="m:Class"), make_record(method="m", code="6b" * 32, preset="textbook"),
    ]  # fmt: skip
    runs = long_table(found)

    def hashes(word: str) -> set[str]:
        return set(select_runs(word, runs, Path())["hash"])

    names = [record["hash"] for record in found]
    assert hashes("m") == {names[k] for k in (0, 1, 2, 6)}  # those without a changed setting
    assert hashes("m:official") == {names[0], names[2]}
    assert hashes("m:official:threads=8") == {names[2]}
    assert hashes("m:x=1") == {names[3]}
    assert hashes("m:x=1.0:s=a:b") == {names[4]}
    assert hashes("m:s=a:b") == {names[4]}
    assert hashes("m:Class") == {names[5]}
    assert hashes("m:textbook:code=6b6b") == {names[6]}
    row = runs[runs["hash"] == names[4]].iloc[0]
    assert label(row, ["threads", "code"]) == "m:official:s=a:b:x=1.0:threads=2:code=5a5a5a5a"


# -- what is printed --------------------------------------------------------------------------------------------------


def test_a_difference_and_none_in_words(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    put(tmp_path, "good", 95, 96, 97)
    put(tmp_path, "bad", 85.1, 86, 86.9)
    put(tmp_path, "fair", 94, 96.5, 96)
    put(tmp_path, "noise", 10, 11, 12)
    text = said(monkeypatch, capsys, "good", "bad", "--results", tmp_path)
    # differences 9.9, 10, 10.1: half 4.302653 * 0.1 / sqrt(3) = 0.2484
    assert "good is better than bad: +10.00 points [+9.75, +10.25], n = 3" in text
    assert "digits16/cnn32-cnn16 · track pinned · budget quick" in text
    assert "McNemar" not in text
    # -1, 0.5, -1: mean -0.5, sd sqrt(0.75), half 4.302653 * 0.5 = 2.15
    text = said(monkeypatch, capsys, "fair", "good", "--results", tmp_path, columns=80)
    assert "fair and good: not distinguishable with n = 3, -0.50 points [-2.65, +1.65]" in text
    text = said(monkeypatch, capsys, "noise", "good", "--results", tmp_path)
    assert "noise is worse than good: -85.00 points [-85.17, -84.83], n = 3" in text
    assert "a bound" in text


def test_a_single_seed_is_no_comparison(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    put(tmp_path, "a", 95)
    put(tmp_path, "b", 60, 61)
    text = said(monkeypatch, capsys, "a", "b", "--results", tmp_path)
    assert "a and b: not distinguishable with n = 1, a difference needs two shared seeds" in text
    assert "of 1, 2" in text
    put(tmp_path, "c", 95, first=7)
    assert "with n = 0" in said(monkeypatch, capsys, "c", "b", "--results", tmp_path)


def test_several_groups_are_told_apart_and_corrected(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    for budget in ("quick", "standard", "full"):
        put(tmp_path, "a", 92.0, 92.4, 92.9, 93.3, budget=budget)
        put(tmp_path, "[red]b", 91.5, 92.2, 92.2, 92.6, budget=budget)
    text = said(monkeypatch, capsys, "a", "[red]b", "--results", tmp_path)
    assert text.count("budget quick: a and [red]b: not distinguishable with n = 4") == 1
    assert "(p 0.021, but 0.064 after Holm's correction)" in text
    assert "track pinned · cpu" in text
    one = said(monkeypatch, capsys, "a", "[red]b", "--results", tmp_path, "--budget", "quick")
    assert "a is better than [red]b: +0.53 points" in one
    with_task = said(monkeypatch, capsys, "a", "[red]b", "--results", tmp_path, "--task", "digits16/cnn32-cnn16")
    assert with_task == text


def test_predictions_beside_the_records_are_used(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    for a, b in zip(put(tmp_path, "a", 95, 96), put(tmp_path, "b", 94, 94), strict=True):
        answer(a, [True] * 12)
        answer(b, [True] * 3 + [False] * 9)
    text = said(monkeypatch, capsys, "a", "b", "--results", tmp_path)
    assert "McNemar by seed: seed 0: 0.0039, seed 1: 0.0039" in text  # 9 against 0: 2 / 2^9
    assert "18, 0" in text  # both seeds; the p of both is that of one


def test_presets_settings_and_paths_are_sides(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    records = put(tmp_path / "x", "m", 90, 91, 92)
    put(tmp_path / "x", "m", 80, 81, 82.3, preset="textbook")
    put(tmp_path / "x", "m", 70, 71, 72.3, overrides={"alpha": 3.0})
    others = put(tmp_path / "y", "m", 60, 61, 62.3)
    in_x = ("--results", tmp_path / "x")
    expected = "m:official is better than m:textbook: +9.90 points"
    assert expected in said(monkeypatch, capsys, "m:official", "m:textbook", *in_x)
    words = ("m", "m", "--preset-a", "official", "--preset-b", "textbook", *in_x)
    assert expected in said(monkeypatch, capsys, *words)
    assert "m:official is better than m:alpha=3: +19.90" in said(monkeypatch, capsys, "m:official", "m:alpha=3", *in_x)
    here = records[0].parents[1]
    assert here.name == "m"
    text = said(monkeypatch, capsys, records[0], others[0].parent)  # no results folder is needed
    assert "not distinguishable with n = 1" in text
    text = said(monkeypatch, capsys, "m:textbook", tmp_path / "y", *in_x)
    assert "m:textbook is better than m:official: +20.00 points" in text


def refused(monkeypatch: Any, capsys: Any, *words: str | Path) -> str:
    status, out, err = dfkd(monkeypatch, capsys, "compare", *words)
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_what_cannot_be_compared_is_one_line(monkeypatch: Any, capsys: Any, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (record, *_) = put(tmp_path / "runs", "alpha", 90, 91)
    put(tmp_path / "runs", "alpha", 80, 81, preset="textbook")
    put(tmp_path / "runs", "beta", 70, 71)
    put(tmp_path / "runs", "late", 70, 71, budget="standard", preset="own")
    put(tmp_path / "runs", "coded", 70, 71, code="6b" * 32)
    put(tmp_path / "runs", "coded", 72, 73)

    assert "no record of a method 'alhpa' below runs; did you mean 'alpha'?" in refused(
        monkeypatch, capsys, "alhpa", "beta"
    )
    assert "did you mean 'alpha:textbook'?" in refused(monkeypatch, capsys, "alpha:textbok", "beta")
    assert "no record of 'alpha:gamma=3'" in refused(monkeypatch, capsys, "alpha:gamma=3", "beta")
    said = refused(monkeypatch, capsys, "alpha", "beta")
    assert "alpha is 2 rows of digits16/cnn32-cnn16, pinned, quick: name one of alpha:official | alpha:textbook" in said
    said = refused(monkeypatch, capsys, "beta", "coded")
    assert "coded:official:code=5a5a5a5a | coded:official:code=6b6b6b6b" in said
    said = refused(monkeypatch, capsys, "alpha:official", "late")
    assert (
        "alpha and late have no records under the same terms; the nearest differ in budget quick and standard" in said
    )
    assert "both sides are the same runs, beta:official" in refused(monkeypatch, capsys, "beta", "beta:official")
    assert "none of the 2 records of beta" in refused(monkeypatch, capsys, "beta", "late", "--budget", "full")
    assert "did you mean 'pinned'" in refused(monkeypatch, capsys, "alpha", "beta", "--track", "pined")
    assert "no results folder at none" in refused(monkeypatch, capsys, "alpha", "beta", "--results", "none")
    (tmp_path / "empty").mkdir()
    assert "no records below empty" in refused(monkeypatch, capsys, "empty", record)


def test_help_waits_for_nothing_and_comparing_for_no_torch(tmp_path: Path) -> None:
    for a, b in zip(put(tmp_path, "a", 95, 96), put(tmp_path, "b", 94, 94), strict=True):
        answer(a, [True] * 12)
        answer(b, [False] * 12)
    assert snoop("compare", "--help")[1] == "[]"
    assert snoop("compare", "a", "b", "--results", str(tmp_path))[1] == "['pandas', 'scipy']"


def test_numbers_are_written_plainly() -> None:
    assert [points(x) for x in (0.004, -0.004, -0.006, 12.3)] == ["0.00", "0.00", "-0.01", "+12.30"]
    assert [p_text(x) for x in (1e-9, 0.00321, 0.0489, 0.5, math.nan)] == ["< 0.0001", "0.0032", "0.049", "0.50", "–"]


# -- how often it is wrong --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_verdict_on_equal_methods_is_wrong_in_at_most_six_of_a_hundred(n: int) -> None:
    rng = np.random.default_rng(n)
    base = long_table([make_record(method=m, seed=s) for m in "ab" for s in range(n)])
    sides = [side.assign(path=[f"{m}{k}/record.json" for k in range(n)]) for m, side in base.groupby("method")]
    values = np.round(590 + 1.5 * rng.normal(size=(2000, 2, n))) * STEP
    verdicts = [paired(*(dict(enumerate(side)) for side in both), STEP).verdict for both in values]
    wrong = [k for k, verdict in enumerate(verdicts) if verdict != "not distinguishable"]
    assert 0.01 <= len(wrong) / 2000 <= 0.06
    for k in (*wrong[:3], 0, 1):  # the command says what the function does
        (one,) = compare(*(side.assign(last=row) for side, row in zip(sides, values[k], strict=True)))
        assert one.verdict == verdicts[k]
