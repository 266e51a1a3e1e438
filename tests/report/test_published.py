"""Published numbers: the data file is whole, and its tables leave out, mark and condense what they say they do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

from dfkd_bench.errors import RunError, UsageError
from dfkd_bench.plugins import registry
from dfkd_bench.protocol import task
from dfkd_bench.report.figures.published import numbers_for_task
from dfkd_bench.report.tables import published as data
from dfkd_bench.report.tables.published import FILE, KINDS, published, published_table

ROOT = Path(__file__).parents[2]
HEAD = (
    "method,dataset,teacher,student,teacher_top1,student_supervised_top1,top1,std,n_runs,selection,kind,source,"
    "source_commit,note"
)
SMALL = f"""{HEAD}
a,d1,t,s,95.70,,81.0,,,best-on-test,baseline,README 1,,
a,d1,t,s,95.70,,9.90,,,unknown,baseline,README 2,,same number as README 1
a,d1,t,s,94.1,,90.5,,,best-on-test,baseline,README 2,,secondary source
a,d1,t,s,,,40.0,,,mean-over-epochs,baseline,README 3,,mean of the curve
a,d1,t,s,95.70,,92.00,0.30,3,last,own,paper,,k=2
a,d1,t,s,95.70,,91.0,,,last,own,paper,,superseded: the paper prints 92.00
a,d1,,,,,,,,unknown,own,abstract,,relative accuracy 99.6 %
a,d2,t,s,95.70,,93.5,,1,best-on-test,independent,log,,
a,d2,t,s,95.70,,90.0,0.5,42,best-on-test,sweep-mean,sweep,,
b,d1,t,s,,,50.0,,,unknown,baseline,README 1,,secondary source
"""


@pytest.fixture
def small(tmp_path: Path, monkeypatch: Any) -> None:
    """Ten rows in the place of the data."""
    (tmp_path / "small.csv").write_text(SMALL)
    monkeypatch.setattr(data, "FILE", tmp_path / "small.csv")


def cells(table: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in table.split("\n") if line.startswith("|")][2:]


def test_the_data_are_whole_and_typed() -> None:
    frame = published()
    assert ",".join(frame.columns) == HEAD
    assert f"{len(frame)} numbers" in (FILE.parent / "README.md").read_text()
    assert set(frame["kind"]) == set(KINDS)
    assert set(frame["selection"]) == {"best-on-test", "last", "mean-over-epochs", "unknown"}
    for name in data.NUMBERS:
        assert frame[name].dtype == "float64"
        assert frame[name].dropna().between(0, 100).all()
    assert frame["n_runs"].dtype == "Int64"
    for name in ("method", "dataset", "source"):
        assert frame[name].str.len().gt(0).all()
    assert frame.loc[frame["top1"].isna(), "note"].str.startswith("relative accuracy").all()


def test_there_are_as_many_as_were_joined() -> None:
    frame = published()
    assert len(frame) == 533
    assert not frame.duplicated().any()
    counts = {"cifar10": 241, "cifar100": 248, "mnist": 22, "imagenet": 10, "svhn": 5, "caltech101": 3}
    assert frame["dataset"].value_counts().to_dict() == counts | {"fashion-mnist": 2, "tiny-imagenet": 2}


def test_a_row_that_stands_there_twice_is_refused(tmp_path: Path, monkeypatch: Any) -> None:
    row = "a,d,t,s,95.70,90.0,94.0,0.10,3,last,own,paper,c,n"
    (tmp_path / "two.csv").write_text(f"{HEAD}\n{row}\nb{row[1:]}\n{row}\n")
    monkeypatch.setattr(data, "FILE", tmp_path / "two.csv")
    says = r"two\.csv has two rows that are equal in every column \(a on d t-s, 94\.0, paper\): remove one"
    for read in (published, lambda: published_table("b")):
        with pytest.raises(RunError, match=says):
            read()
    (tmp_path / "two.csv").write_text(f"{HEAD}\n{row}\n{row} of another run\n")  # one column is enough
    assert len(published()) == 2


def test_methods_networks_and_pairs_that_are_not_ours_are_as_good() -> None:
    assert "zskd" not in registry.entries()
    with pytest.raises(UsageError, match="unknown architecture 'alexnet'"):
        task("cifar10/alexnet-alexnet_half")
    (own,) = (row for row in cells(published_table("zskd")) if "alexnet" in row[1])
    assert own[:4] == ["cifar10", r"alexnet-alexnet\_half", "83.03", "69.56"]


def test_lenet_of_the_papers_is_the_one_without_batchnorm() -> None:
    frame = published()
    assert numbers_for_task("mnist/lenet5-lenet5_half", frame).empty
    assert numbers_for_task("fashion-mnist/lenet5-lenet5_half", frame).empty
    plain = frame[(frame["teacher"] == "lenet5_plain") & (frame["student"] == "lenet5_plain_half")]
    assert plain["dataset"].value_counts().to_dict() == {"mnist": 16, "fashion-mnist": 2}
    assert plain["note"].str.contains("network without BatchNorm").all()
    own = plain[plain["kind"] == "own"].set_index("method")["top1"].to_dict()
    assert (own["dafl"], own["dfad"]) == (98.20, 98.3)
    assert sorted(plain.loc[plain["method"] == "noise", "top1"]) == [74.7, 88.01]


def test_every_method_has_a_readable_table_and_the_data_lie_in_the_package() -> None:
    for method in published()["method"].unique():
        table = published_table(method)
        assert len(cells(table)) <= 50, method
        assert {len(re.sub(r"\\\|", "", line).split("|")) for line in table.split("\n") if line[:1] == "|"} == {10}
    packed = {str(file.distribution_path) for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert "dfkd_bench/reference/published.csv" in packed


def test_own_numbers_come_first_and_in_full(small: None) -> None:
    rows = cells(published_table("a"))
    assert [row[5] for row in rows] == ["own", "own", "sweep-mean", "independent", "baseline", "baseline"]
    assert rows[0] == ["d1", "t-s", "95.70", "92.00 ± 0.30 (3)", "last", "own", "paper", "k=2"]
    assert rows[2][3] == "90.0 ± 0.5 (42)"
    assert rows[3][3] == "93.5 (1)"


def test_numbers_keep_the_digits_of_their_source(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "one.csv").write_text(f"{HEAD}\na,d,t,s,95.70,90.0,94.0,0.10,3,last,own,paper,c,n\n")
    monkeypatch.setattr(data, "FILE", tmp_path / "one.csv")
    assert cells(published_table("a"))[0][2:4] == ["95.70", "94.0 ± 0.10 (3)"]
    assert published()["teacher_top1"].tolist() == [95.7]


def test_superseded_numbers_are_left_out_and_counted(small: None) -> None:
    table = published_table("a")
    assert "91.0" not in table
    assert "1 superseded number is left out." in table
    assert "superseded" not in published_table("b")


def test_a_relative_accuracy_stays_in_words(small: None) -> None:
    row = cells(published_table("a"))[1]
    assert row[2:4] == ["", "–"]
    assert row[7] == "relative accuracy 99.6 %"


def test_numbers_of_others_are_condensed_and_means_over_epochs_stay_apart(small: None) -> None:
    ranged, mean = cells(published_table("a"))[4:]
    assert ranged[2:5] == ["94.1–95.70", "9.90–90.5", "best-on-test, unknown"]  # by size, not by letters
    assert ranged[6:] == ["3 numbers, 2 sources", "1 repeated from another source; 1 from a secondary source"]
    assert mean[3:5] == ["40.0", "mean-over-epochs"]
    assert cells(published_table("b"))[0][7] == "secondary source"


def test_every_table_says_that_nothing_is_like_for_like(small: None) -> None:
    for method in ("a", "b"):
        assert (
            published_table(method)
            .rstrip()
            .endswith("they are not directly comparable with the tables of this benchmark.")
        )


def test_an_unknown_method_is_refused(small: None) -> None:
    with pytest.raises(UsageError, match="no published number of 'c'; known: a, b"):
        published_table("c")
