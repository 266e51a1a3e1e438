"""Metrics of other packages: computed for every run, recorded beside its result, in tables, verified, listed."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from commands import dfkd, snoop
from factory import make_record
from forge import GOOD, Forger

import dfkd_bench
from dfkd_bench.errors import RunError
from dfkd_bench.metrics import external
from dfkd_bench.plugins import registry as plugins
from dfkd_bench.plugins.entry import METRIC
from dfkd_bench.report.bundle import render
from dfkd_bench.report.tables.leaderboard import NAMES as BOARD
from dfkd_bench.report.tables.leaderboard import leaderboard
from dfkd_bench.report.tables.runs import NAMES, long_table
from dfkd_bench.results.verify import verify
from dfkd_bench.runs import records

MODULE = """
import random

from dfkd_bench.metrics.base import Column, Metric

MEANING = "test images"


def compute(view):
    import torch

    right = (view.student_logits.argmax(1) == view.labels).double().mean()
    view.labels.zero_()  # the record has its numbers, and its files, whatever is done here
    return {"top1": 100.0 * right, "images": len(view.images), "drawn": random.random() + float(torch.rand(())),
            "last": view.accuracies[-1]}


def number(view):
    import numpy as np

    return np.float32(view.student_images[-1])


def partly(view):
    return {"good": True, "bad": float("nan"), "text": "x"}


def raises(view):
    raise KeyError("two\\nlines")


def leaves(view):
    raise SystemExit


METRIC = Metric(
    "other",
    compute,
    (
        Column("images", MEANING, "images"),
        Column("drawn", "a random number"),
        Column("last", meaning="top-1", unit="%"),
    ),
    tolerance={"last": lambda edges: 100.0 * edges.test},
)
NUMBER = Metric("number", number, columns=(Column("seen", "student images"),))
PARTLY = Metric("partly", partly, tuple(Column(name, "one of three") for name in ("good", "bad", "text", "gone")))
RAISES = Metric("raises", raises, (Column("x", "nothing"),))
LEAVES = Metric("leaves", leaves, (Column("x", "nothing"),))
SHOWN = Metric("shown", lambda view: len(view.synthetic), (Column("n", "images shown"),), source="samples")
UNNAMED = Metric("another", number, (Column("x", ""),))
EMPTY = Metric("empty", number)
"""
POINTS = {
    "other": "METRIC", "number": "NUMBER", "partly": "PARTLY", "raises": "RAISES", "leaves": "LEAVES", "shown": "SHOWN",
    "unnamed": "UNNAMED", "empty": "EMPTY", "fidelity": "NUMBER", "absent": "ABSENT", "text": "MEANING",
}  # fmt: skip


def install(site: Path, owner: str, module: str, points: dict[str, str], version: str = "1.2") -> None:
    """A distribution as pip leaves it: its module and its metadata."""
    name = owner.replace("-", "_")
    (site / f"{name}.py").write_text(module)
    about = site / f"{name}-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {owner}\nVersion: {version}\n")
    lines = [f"{point} = {name}:{target}" for point, target in points.items()]
    (about / "entry_points.txt").write_text("\n".join([f"[{METRIC.group}]", *lines, ""]))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages: one with many metrics, a rival of one of them, and one that cannot be imported."""
    site = tmp_path_factory.mktemp("metrics") / "site"
    site.mkdir()
    install(site, "their-metrics", MODULE, POINTS | {"rival": "METRIC"})
    install(site, "rival-metrics", MODULE, {"rival": "METRIC"})
    install(site, "broken-metrics", "import torch\nraise OSError('no licence')\n", {"broken": "METRIC"})
    return site


@pytest.fixture(scope="module")
def made(site: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of a method that shows images, and of a bound that shows none, with all of these metrics installed."""
    root = tmp_path_factory.mktemp("made") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        for method, seeds in (("scratch", "0-1"), (GOOD, "0")):
            dfkd_bench.run({"method": method, "seeds": seeds, "budget": "smoke", "threads": 1, "device": "cpu"}, root)
    return root


@pytest.fixture
def here(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the packages, importable in this process."""
    copy = tmp_path / "site"
    shutil.copytree(site, copy)
    monkeypatch.syspath_prepend(str(copy))
    importlib.invalidate_caches()
    yield copy
    for name in ("their_metrics", "rival_metrics"):
        sys.modules.pop(name, None)


def record_of(root: Path, method: str = "scratch") -> dict[str, Any]:
    (path,) = root.glob(f"*/*/{method}/*-s0-*")
    return records.read(path)


# -- in the record ----------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_numbers_stand_beside_the_result_with_whose_they_are(made: Path, here: Path) -> None:
    record = record_of(made)
    assert [*record["metrics"]] == sorted([*POINTS, "rival", "broken"])
    found = record["metrics"]["other"]
    assert (found["owner"], found["version"], found["why"]) == ("their-metrics", "1.2", "")
    assert found["code_sha256"] == plugins.code_digest(plugins.entries(METRIC)["other"])
    assert found["columns"] == {
        "images": {"meaning": "test images", "unit": "images"},
        "drawn": {"meaning": "a random number", "unit": ""},
        "last": {"meaning": "top-1", "unit": "%"},
    }
    values = found["values"]
    assert (values["images"], values["last"]) == (597.0, record["result"]["accuracy"]["last"])
    other_run = record_of(made, "good_Good")["metrics"]["other"]["values"]
    assert values["drawn"] == other_run["drawn"]  # random streams are set before
    assert record["metrics"]["number"]["values"] == {"seen": record["result"]["counts"]["student_images"]}


def test_the_result_is_what_it_is_without_them(made: Path, real_results: Path) -> None:
    for method in ("scratch", "good_Good"):
        mine, theirs = record_of(made, method), record_of(real_results, method)
        assert json.dumps(mine["result"]) == json.dumps(theirs["result"])
        assert {*mine} - {*theirs} == {"metrics"}


@pytest.mark.parametrize(
    ("name", "values", "why"),
    [
        ("partly", {"good": 1.0, "bad": None, "text": None, "gone": None},
         "no finite number for bad (float), text (str), gone (NoneType)"),
        ("raises", {"x": None}, "KeyError: 'two\\nlines'"),
        ("leaves", {"x": None}, "SystemExit:"),
        ("shown", {"n": None}, "TypeError: object of type 'NoneType' has no len()"),
        ("unnamed", {}, "of their-metrics 1.2 has the key 'another': a metric is declared under its key"),
        ("empty", {}, "metric 'empty' of their-metrics 1.2 has no columns"),
        ("fidelity", {}, "has a name that dfkd-bench has itself"),
        ("absent", {}, "has no attribute 'ABSENT'"),
        ("text", {}, "their_metrics:MEANING of their-metrics 1.2 is not a Metric"),
        ("rival", {}, "metric name 'rival' is claimed by several packages"),
        ("broken", {}, "metric 'broken' of broken-metrics 1.2 cannot be imported: OSError: no licence"),
    ],
)  # fmt: skip
def test_one_that_gives_no_number_says_why_and_no_run_fails(
    made: Path, name: str, values: dict[str, Any], why: str
) -> None:
    record = record_of(made)
    assert record["result"]["status"] == "complete"
    found = record["metrics"][name]
    assert found["values"] == values
    assert why in found["why"]
    assert "\n" not in found["why"]
    assert {*found["columns"]} == {*values}


def test_synthetic_images_are_seen_where_a_method_shows_some(made: Path) -> None:
    record = record_of(made, "good_Good")
    assert record["metrics"]["shown"]["values"] == {"n": record["result"]["samples"]["images"]}
    assert record["metrics"]["shown"]["why"] == ""


# -- in tables --------------------------------------------------------------------------------------------------------


def test_tables_have_their_columns_last_and_need_no_package(made: Path, tmp_path: Path) -> None:
    assert not plugins.entries(METRIC)
    frame = dfkd_bench.load_results(made)
    assert list(frame.columns[: len(NAMES)]) == list(NAMES)
    assert list(frame.columns[len(NAMES) :]) == [
        "absent.code_sha256", "broken.code_sha256", "empty.code_sha256", "fidelity.code_sha256",
        "leaves.x", "leaves.code_sha256", "number.seen", "number.code_sha256",
        "other.images", "other.drawn", "other.last", "other.code_sha256",
        "partly.good", "partly.bad", "partly.text", "partly.gone", "partly.code_sha256",
        "raises.x", "raises.code_sha256", "rival.code_sha256", "shown.n", "shown.code_sha256", "text.code_sha256",
        "unnamed.code_sha256",
    ]  # fmt: skip
    assert (frame["other.last"] == frame["last"]).all()
    board = leaderboard(frame)
    assert list(board.columns[: len(BOARD)]) == list(BOARD)
    assert list(board.columns[len(BOARD) : len(BOARD) + 3]) == ["leaves.x_mean", "leaves.x_sd", "leaves.x_ci95"]
    for statistic in ("mean", "sd", "ci95"):
        pd.testing.assert_series_equal(
            board[f"other.last_{statistic}"], board[f"last_{statistic}"], check_names=False, check_exact=True
        )
    made_again = render(made)
    assert made_again["runs.csv"].decode().splitlines()[0].endswith(",text.code_sha256,unnamed.code_sha256")
    assert b"other.last" not in made_again["index.html"]


def with_metric(seed: int, value: float | None, code: str = "ab" * 32, **more: Any) -> dict[str, Any]:
    columns = {"x": {"meaning": "m", "unit": ""}}
    found = {"owner": "o", "version": "1", "code_sha256": code, "columns": columns, "values": {"x": value}, "why": ""}
    return {**make_record(seed=seed, **more), "metrics": {"their": found}}


def test_means_are_given_where_every_run_has_a_number_of_one_code() -> None:
    def mean(*found: dict[str, Any]) -> Any:
        row = leaderboard(long_table(found)).iloc[0]
        return [row["their.x_mean"], row["their.x_sd"], row["last_mean"]]

    assert mean(with_metric(0, 1.0), with_metric(1, 3.0)) == [2.0, pytest.approx(2.0**0.5), 97.5]
    for other in (with_metric(1, 3.0, code="cd" * 32), with_metric(1, None), make_record(seed=1)):
        found = mean(with_metric(0, 1.0), other)
        assert [pd.isna(x) for x in found] == [True, True, False]
    diverged = with_metric(2, 9.0, code="cd" * 32, status="diverged")
    assert mean(with_metric(0, 1.0), with_metric(1, 3.0), diverged)[0] == 2.0


def test_without_such_metrics_tables_have_no_such_columns() -> None:
    frame = long_table([make_record(seed=0)])
    assert list(frame.columns) == list(NAMES)
    assert list(leaderboard(frame).columns) == list(BOARD)


@pytest.mark.parametrize("spoilt", [5, {"their": 5}, {"their": {}}, {"their": {"values": 3, "code_sha256": None}}])
def test_a_record_with_something_else_there_is_refused(spoilt: Any) -> None:
    with pytest.raises(RunError, match=r"record.json holds metrics that are not as a run leaves them"):
        long_table([{**make_record(), "metrics": spoilt}])
    with pytest.raises(RunError, match="something else than a number"):
        long_table([with_metric(0, "x")])  # type: ignore[arg-type]


def test_a_run_shows_its_numbers(tmp_path: Path, here: Path, monkeypatch: Any, capsys: Any) -> None:
    words = ("run", "--method", "scratch", "--budget", "smoke", "--threads", "1", "--results", tmp_path / "r")
    status, out, err = dfkd(monkeypatch, capsys, *words)
    assert (status, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "other.images 597 images" in lines
    assert "partly.bad none" in lines
    assert "metric raises KeyError: 'two\\nlines'" in lines


# -- verified ---------------------------------------------------------------------------------------------------------


def said(root: Path, severity: str) -> list[str]:
    return [finding.what for finding in getattr(verify(root), severity) if "metric" in finding.what]


@pytest.fixture
def forger(made: Path, tmp_path: Path) -> Forger:
    copy = Forger(made, tmp_path / "results")
    keep = ("other", "partly", "raises", "shown")
    for path in [*copy.root.rglob("record.json")]:  # those that cannot be used have a test of their own
        copy.edit(lambda r: r.update(metrics={k: r["metrics"][k] for k in keep}), path.parent)
    copy.table()
    return copy


def test_they_are_computed_again_where_the_same_code_is_installed(forger: Forger, here: Path) -> None:
    report = verify(forger.root)
    assert (report.problems, report.students, report.exact) == ([], 3, 3)
    assert said(forger.root, "notes") == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "column", "value", "says"),
    [
        ("other", "last", 12.0, "metrics.other.last is 12.0, metric other of their-metrics 1.2 gives "),
        ("partly", "good", 0.0, "metrics.partly.good is 0.0, metric partly of their-metrics 1.2 gives 1.0"),
        ("partly", "bad", 5.0, "metrics.partly.bad is 5.0, metric partly of their-metrics 1.2 gives null"),
        ("shown", "n", 5.0, "metrics.shown.n is 5.0, metric shown of their-metrics 1.2 gives 512.0"),
    ],
)
def test_a_number_that_was_changed_is_found(
    forger: Forger, here: Path, name: str, column: str, value: float, says: str
) -> None:
    folder = forger.edit(lambda r: r["metrics"][name]["values"].update({column: value}), forger.folder("good_Good"))
    (found,) = [finding.what for finding in verify(folder).problems]
    assert found.startswith(says)
    (folder / "samples.safetensors").unlink()
    assert bool(said(folder, "problems")) == (name != "shown")


def test_a_number_that_was_missing_is_noted(forger: Forger, here: Path) -> None:
    folder = forger.edit(lambda r: r["metrics"]["other"]["values"].update(images=None))
    assert said(folder, "problems") == []
    assert said(folder, "notes") == ["metrics.other.images is null, metric other of their-metrics 1.2 gives 597.0"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda here: shutil.rmtree(here), "metric other of their-metrics 1.2 is not installed here"),
        (lambda here: edit(here, "view.images", "view.labels"), "the code of metric other of their-metrics 1.2 is"),
        (lambda here: edit(here, '"other",', '"else",'), "metric other of their-metrics 1.2 cannot be used here (m"),
    ],
    ids=["absent", "changed", "broken"],
)  # fmt: skip
def test_others_are_noted(forger: Forger, here: Path, change: Callable[[Path], Any], says: str) -> None:
    change(here)
    importlib.invalidate_caches()
    assert said(forger.folder(), "problems") == []
    noted = said(forger.folder(), "notes")
    assert any(what.startswith(says) and what.endswith(": it was not computed again") for what in noted)
    assert len(noted) == 4


def edit(here: Path, old: str, new: str) -> None:
    path = here / "their_metrics.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_one_that_fails_here_alone_is_noted(forger: Forger, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_numbers(metric: Any, view: Any) -> Any:
        raise RunError("ImportError: no such module")

    monkeypatch.setattr(external, "numbers_of", no_numbers)
    assert said(forger.folder(), "problems") == []
    assert said(forger.folder(), "notes") == [
        f"metric {name} of their-metrics 1.2 cannot be computed here: ImportError: no such module"
        for name in ("other", "partly", "raises")
    ]


# -- listed -----------------------------------------------------------------------------------------------------------


def test_all_are_listed_with_owner_unit_and_meaning_and_none_is_imported(site: Path, tmp_path: Path) -> None:
    out, loaded = snoop("list", "metrics", path=site)
    assert loaded == "[]"
    lines = [" ".join(line.split()) for line in out.splitlines()]
    owner = f"dfkd-bench {dfkd_bench.__version__}"
    assert f"last {owner} % test top-1 of the last checkpoint: the primary number" in lines
    assert f"kl {owner} nats mean KL(teacher || student) on test images" in lines
    assert "other.images their-metrics 1.2 images test images" in lines
    assert "other.last their-metrics 1.2 % top-1" in lines
    assert "number.seen their-metrics 1.2 - student images" in lines
    assert "partly.... their-metrics 1.2 - described in code only" in lines
    assert any(line.startswith("fidelity their-metrics 1.2 - ") and "has itself: rename it" in line for line in lines)
    assert any(line.startswith("rival ") and "claimed by several packages" in line for line in lines)


def test_a_package_whose_source_is_gone_is_listed_as_broken(
    here: Path, monkeypatch: Any, capsys: Any, tmp_path: Path
) -> None:
    (here / "broken_metrics.py").write_text("def (")
    (here / "rival_metrics.py").unlink()
    status, out, _ = dfkd(monkeypatch, capsys, "list", "metrics", columns=250)
    assert status == 0
    assert "broken: metric 'broken' of broken-metrics 1.2: broken_metrics.py is not valid Python" in out


def test_a_record_is_merged_and_repeated_whatever_its_metrics_are(
    made: Path, real_results: Path, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    into = tmp_path / "into"
    shutil.copytree(real_results, into)
    status, out, err = dfkd(monkeypatch, capsys, "merge", made, "--into", into)
    assert (status, err) == (0, "")
    assert out.count("the same result is in") == 3
