"""Test accuracy over the snapshots of a run: the primary number `last`, and others for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dfkd_bench.metrics.base import Column, Curves, Metric


def over_snapshots(accuracies: Sequence[float], agreements: Sequence[float | None]) -> dict[str, Any]:
    """Test top-1 in percent, and its variance over snapshots in percent squared.

    `last`: of the last snapshot, the primary number. `oracle`: the best snapshot *chosen on the test set*, which most
    papers report. `selected`: of the snapshot with the highest agreement with the teacher on held-out synthetic images
    (the latest of equal ones); None without images.
    """
    import numpy as np

    a = np.asarray(accuracies, dtype=np.float64)
    result: dict[str, Any] = {
        "last": float(a[-1]),
        "oracle": float(a.max()),
        "oracle_snapshot": int(a.argmax()),
        "mean": float(a.mean()),
        "variance": float(a.var()),
        "selected": None,
        "selected_snapshot": None,
    }
    if all(x is not None for x in agreements):
        g = np.asarray(agreements, dtype=np.float64)
        selected = int(len(g) - 1 - g[::-1].argmax())
        result.update(selected=float(a[selected]), selected_snapshot=selected)
    return result


def compute(curves: Curves) -> dict[str, Any]:
    """`over_snapshots` of a run."""
    return over_snapshots(curves.accuracies, curves.agreements)


METRIC = Metric(
    "accuracy",
    compute,
    (
        Column("last", "test top-1 of the last checkpoint: the primary number", "%"),
        Column("oracle", "best test top-1 over snapshots, chosen on the test set", "%"),
        Column("snapshot_mean", "mean test top-1 over snapshots", "%", "mean"),
        Column("snapshot_variance", "variance of test top-1 over snapshots", "%^2", "variance"),
        Column("selected", "test top-1 of the snapshot chosen on synthetic data", "%"),
    ),
    source="curves",
    tolerance={"last": lambda edges: 100.0 * edges.test},
    place=(0, 0),
)
