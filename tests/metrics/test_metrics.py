"""Metrics as declarations: what tables, verification and comparisons take from them, and what a new one changes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import Printed
from factory import RESULT, make_record
from forge import Forger

from dfkd_bench._version import __version__
from dfkd_bench.metrics import recorded, registry
from dfkd_bench.metrics.base import CODE, Column, Curves, Metric, TieShares, View, may_lack
from dfkd_bench.report.tables import leaderboard as lb
from dfkd_bench.report.tables import runs
from dfkd_bench.results.verify import verify
from dfkd_bench.runs import curves, records

ROOT = Path(__file__).parents[2]
BY_KEY = {metric.key: metric for metric in registry.METRICS}


# -- what they declare ------------------------------------------------------------------------------------------------


def test_every_file_declares_a_metric_of_its_name_and_a_record_has_them_in_their_order() -> None:
    files = {path.stem for path in Path(recorded.__file__).parent.glob("*.py")} - {"__init__"}
    assert set(BY_KEY) == files
    made = json.loads(next((ROOT / "results" / "1.2").rglob("record.json")).read_text())["result"]
    assert [key for key in made if key in files] == [key for key in BY_KEY if key in made]
    assert all(metric.since for key, metric in BY_KEY.items() if key not in made)


def test_tables_have_the_columns_that_committed_ones_have_in_their_order() -> None:
    for name, names in (("runs.csv", runs.NAMES), ("leaderboard.csv", lb.NAMES)):
        with open(ROOT / "results" / name) as file:
            committed = file.readline().rstrip("\n").split(",")
        assert committed == [column for column in names if column in committed]


@pytest.mark.parametrize(("metric", "column"), [*registry.columns()], ids=lambda x: getattr(x, "name", ""))
def test_every_column_is_in_a_record(metric: Metric, column: Column) -> None:
    found: Any = make_record()
    for key in metric.path(column):
        found = found[key]
    assert found is None or isinstance(found, float)
    assert column.clock or found == metric.number(RESULT[metric.key], column)


def test_declarations_are_read_without_torch_and_numpy() -> None:
    code = (
        "import sys\nfrom dfkd_bench.metrics import external, registry\n"
        "print(len(registry.METRICS), {'torch', 'numpy', 'scipy', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{len(registry.METRICS)} set()\n"


def test_by_how_much_numbers_may_differ() -> None:
    """A hundredth of 200 synthetic images of 10 classes: two images on an edge, each may show a class or not."""
    edges = TieShares(test=0.01, borders=0.02, samples=0.01, balls=0.04, classes=10, shown=200)
    expected = {
        ("accuracy", "last"): 1.0, ("fidelity", "agreement"): 1.0, ("fidelity", "teacher_top1"): 1.0,
        ("fidelity", "ece"): 0.06, ("fidelity", "teacher_ece"): 0.06, ("fidelity", "kl"): 0.0,
        ("rel_teacher", ""): 0.02, ("samples", "label_consistency"): 1.0, ("samples", "coverage"): 0.2,
        ("samples", "diversity"): 0.08, ("samples", "entropy"): 0.0, ("realism", "recall"): 0.04,
        ("realism", "frechet"): 0.0, ("synthetic_kl", ""): 0.0,
    }  # fmt: skip
    assert {k: BY_KEY[k[0]].slack(k[1], edges) for k in expected} == pytest.approx(expected)
    assert all(BY_KEY[key].slack(number, TieShares()) == 0.0 for key, number in expected)


@pytest.mark.parametrize("names", [("a", "a"), ("a", CODE), ("a b",), ("a.b",), ("",)])
def test_columns_without_a_name_of_their_own_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="a name of its own"):
        Metric("m", lambda view: None, tuple(Column(name, "") for name in names))


@pytest.mark.parametrize(
    ("part", "at", "expected"),
    [({"x": 1.0}, None, 1.0), ({"y": 1.0}, None, None), (2.0, None, 2.0), (2.0, "", 2.0), (None, None, None),
     ({"y": {"z": 3.0}}, "y z", 3.0), (2.0, "y z", None)],
)  # fmt: skip
def test_where_a_column_finds_its_number(part: Any, at: str | None, expected: float | None) -> None:
    column = Column("x", "", at=at)
    assert Metric("m", lambda view: None, (column,)).number(part, column) == expected


# -- one that is added ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("since", "version", "may"),
    [("", "0.1.0", False), ("", None, False), ("0.2.0", None, True), ("0.2.0", "0.1.9", True),
     ("0.2.0", "0.2.0", True), ("0.2.0", "0.2.1", False), ("0.2.0", "0.10.0", False), ("0.10.0", "0.9", True)],
)  # fmt: skip
def test_which_records_may_lack_what_came_later(since: str, version: str | None, may: bool) -> None:
    assert may_lack(since, version) == may


def test_a_file_that_is_added_is_a_metric_after_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "zz_added.py").write_text(
        "from dfkd_bench.metrics.base import Column, Metric\n"
        "METRIC = Metric('zz_added', lambda view: 1.0, (Column('added', 'one', at=''),), since='9.0')\n"
    )
    monkeypatch.setattr(recorded, "__path__", [*recorded.__path__, str(tmp_path)])
    found = registry.load_metrics()
    assert [m.key for m in found] == [*BY_KEY, "zz_added"]
    monkeypatch.setattr(registry, "METRICS", found)
    assert [*registry.columns()][-1][1].name == "added"


def worst_class(view: View) -> dict[str, float]:
    """Fewest right answers of a class, and of how many images there are most."""
    right = view.student_logits.argmax(1) == view.labels
    by_class = [right[view.labels == c].double().mean() for c in view.labels.unique()]
    return {"top1": 100.0 * float(min(by_class)), "classes": float(len(by_class))}


def rise(curves: Curves) -> float:
    """By how much the last accuracy is above the first."""
    return curves.accuracies[-1] - curves.accuracies[0]


def added(since: str) -> tuple[Metric, ...]:
    """All metrics, two more, and in two of them a number more: from the student, from the curves, from the images."""
    fidelity, accuracy, samples = (BY_KEY[key] for key in ("fidelity", "accuracy", "samples"))

    def more(metric: Metric) -> Metric:
        def compute(view: View) -> Any:
            part: Any = metric.compute(view)
            return part and {**part, "new": 1.0}

        return replace(metric, compute=compute, later={"new": since} if since else {})

    grown = {metric.key: more(metric) for metric in (fidelity, accuracy, samples)}
    columns = (Column("worst_class", "test top-1 of the worst class", "%", "top1"),)
    return (
        *(grown.get(key, metric) for key, metric in BY_KEY.items()),
        Metric("rise", rise, source="curves", since=since),
        Metric("worst_class", worst_class, columns, since=since),
    )


def problems(root: Path) -> list[str]:
    return [finding.what for finding in verify(root).problems]


def test_records_of_before_stay_valid_where_metrics_and_numbers_are_added(
    forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "METRICS", added(__version__))
    report = verify(forger.root)
    assert (problems(forger.root), report.students, report.exact) == ([], 3, 3)
    for path in [*forger.root.rglob("record.json")]:  # a later version measured them, and these records lack them
        forger.edit(lambda r: r["manifest"].update(dfkd_bench="99.0.0"), path.parent)
    forger.table()
    found = [what.partition(", ")[0] for what in problems(forger.folder())]
    assert found == [f"{name} is nothing" for name in ("accuracy.new", "rise", "fidelity.new", "worst_class")]


@pytest.mark.parametrize("key", ["fidelity", "accuracy", "samples"])
def test_a_number_that_does_not_say_since_when_makes_older_records_wrong(
    forger: Forger, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    grown = {metric.key: metric for metric in added("")}
    changed = tuple(grown[metric.key] if metric.key == key else metric for metric in registry.METRICS)
    monkeypatch.setattr(registry, "METRICS", changed)
    file = {"fidelity": "student.safetensors", "accuracy": "curves.csv", "samples": "samples.safetensors"}[key]
    assert problems(forger.folder("good_Good")) == [f"{key}.new is nothing, {file} gives 1.0"]


def test_a_number_that_a_record_has_is_verified_though_it_came_later(
    forger: Forger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "METRICS", added(__version__))
    forger.edit(lambda r: r["result"]["fidelity"].update(new=2.0))
    forger.edit(lambda r: r["result"].update(rise=1e3))
    found = problems(forger.folder())
    assert "fidelity.new is 2.0, student.safetensors gives 1.0" in found
    assert sum(what.startswith("rise is 1000.0, curves.csv gives") for what in found) == 1
    assert len(found) == 2


def test_results_are_compared_in_what_both_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    before: dict[str, Any] = {"status": "complete", "fidelity": {"kl": 0.5}, "accuracy": {"last": 1.0}}
    later = {**before, "fidelity": {"kl": 0.5, "new": 1.0}, "worst_class": {"top1": 3.0}}
    assert registry.differing(before, later) == ["fidelity", "worst_class"]
    monkeypatch.setattr(registry, "METRICS", added("0.2.0"))
    assert registry.differing(before, later) == registry.differing(later, before) == []
    assert registry.differing(later, {**later, "fidelity": {"kl": 0.5, "new": 2.0}}) == ["fidelity"]
    assert registry.differing(before, {**later, "fidelity": {"kl": 0.6, "new": 1.0}}) == ["fidelity"]
    assert registry.differing(before, {**later, "unknown": 1.0}) == ["unknown"]
    assert registry.differing({**before, "accuracy": {"last": 1}}, before) == ["accuracy"]  # as text they differ


def test_a_version_that_measures_more_repeats_a_run(
    real_results: Path, tmp_path: Path, printed: Printed, monkeypatch: pytest.MonkeyPatch
) -> None:
    (old,) = real_results.glob("*/*/scratch/pinned-smoke-s0-*")
    monkeypatch.setattr(registry, "METRICS", added(__version__))
    out = printed("run", "--like", old, "--results", tmp_path / "again")
    assert "The result is identical, byte for byte" in out
    (record,) = records.read_all(tmp_path / "again")
    assert record["result"]["fidelity"]["new"] == 1.0
    assert record["result"]["worst_class"]["classes"] == 10.0
    rows = curves.read(next((tmp_path / "again").rglob(curves.FILE)))
    assert record["result"]["rise"] == (rows[-1]["top1"] or 0.0) - (rows[0]["top1"] or 0.0)
    assert problems(tmp_path / "again") == []
