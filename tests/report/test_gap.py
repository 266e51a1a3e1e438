"""Published numbers beside ours: which of ours, which flags, and what is never compared."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from factory import make_record

from dfkd_bench.report.tables import gap
from dfkd_bench.report.tables.leaderboard import leaderboard
from dfkd_bench.report.tables.runs import long_table

TASK = "cifar10/resnet34-resnet18"
THEIRS = pd.DataFrame(
    [
        ("alpha", 95.7, 95.0, "best-on-test", "own", "A", ""),
        ("alpha", 95.0, 93.0, "last", "baseline", "B", ""),
        ("alpha", float("nan"), 94.0, "unknown", "baseline", "C", ""),
        ("alpha", 95.7, 80.0, "mean-over-epochs", "independent", "D", ""),
        ("alpha", 95.7, 90.0, "last", "own", "E", "superseded: by A"),
        ("alpha", 95.7, float("nan"), "last", "own", "F", "relative accuracy"),
        ("beta", 95.7, 90.0, "last", "own", "G", ""),
    ],
    columns=["method", "teacher_top1", "top1", "selection", "kind", "source", "note"],
).assign(dataset="cifar10", teacher="resnet34", student="resnet18")


@pytest.fixture(autouse=True)
def _theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gap, "published", lambda: THEIRS)


def made(last: float, oracle: float, **more: Any) -> dict[str, Any]:
    accuracy = {"last": last, "oracle": oracle, "mean": 80.0, "variance": 1.0, "selected": last}
    fidelity = {"teacher_top1": 95.5}
    return make_record(
        **{"task": TASK, "track": "recipe", "budget": "full", **more},
        result={"accuracy": accuracy, "fidelity": fidelity},
    )


def gaps_of(*records: dict[str, Any]) -> pd.DataFrame:
    return gap.gaps(leaderboard(long_table(records)))


def test_like_stands_beside_like_with_its_gap_and_flags() -> None:
    found = gaps_of(made(92.0, 94.0), made(94.0, 94.4, seed=1)).set_index("source")
    assert list(found.index) == ["A", "B", "C", "D"]
    assert found["quantity"].tolist() == ["oracle", "last", "last", "snapshot_mean"]
    assert found["ours"].tolist() == pytest.approx([94.2, 93.0, 93.0, 80.0])
    assert found["gap"].tolist() == pytest.approx([-0.8, 0.0, -1.0, 0.0])
    # t(0.975, 1) = 12.7062; sd 0.28284 and 1.41421 over sqrt(2)
    assert found["ci95"].tolist() == pytest.approx([2.54124, 12.7062, 12.7062, 0.0], abs=1e-4)
    assert found["flags"].tolist() == [
        "", "teachers differ by +0.50 points", "their teacher is not known; their choice of epoch is not known", "",
    ]  # fmt: skip


def test_outside_the_interval_is_flagged() -> None:
    found = gaps_of(made(93.0, 94.0), made(93.0, 94.01, seed=1)).set_index("source")
    assert found.loc["A", "flags"] == "published lies outside our interval"
    assert "outside" not in found.loc["B", "flags"]
    assert gaps_of(made(93.0, 94.0)).set_index("source").loc["A", "flags"] == "one run, no interval"


def test_pinned_rows_are_never_compared() -> None:
    assert gaps_of(made(93.0, 94.0, track="pinned")).empty
    assert "never compared" in gap.gaps_table(gaps_of(made(93.0, 94.0, track="pinned")))


def test_other_tasks_and_shorter_runs() -> None:
    assert gaps_of(made(93.0, 94.0, task="cifar10/resnet34-wrn16_1")).empty
    flags = gaps_of(made(93.0, 94.0, budget="quick"))["flags"]
    assert all("our budget is quick, not the published one" in text for text in flags)


def test_the_table_shows_a_signed_gap() -> None:
    text = gap.gaps_table(gaps_of(made(92.0, 94.0, preset="p"), made(94.0, 94.4, seed=1, preset="p")))
    line = next(line for line in text.split("\n") if "| A |" in line)
    assert "| alpha (p) | full | 2 | 94.20 ± 2.54 (oracle) | 95.00 | -0.80 | best-on-test | own | A |" in line
