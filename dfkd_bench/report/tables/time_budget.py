"""Budgets of seconds in tables and curves: seconds spent, warnings, and snapshots that seeds have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfkd_bench.protocol import seconds_of
from dfkd_bench.report.labels import details, rows_of_same_name

NOTE_FROM = 10.0  # percent; a row that deviates more from the budget is named in a note


def largest_deviation(runs: pd.DataFrame, number: npt.NDArray[np.integer[Any]], groups: int) -> npt.NDArray[np.float64]:
    """For each group of complete runs, the largest deviation (by absolute value) of a run from its budget, in %.

    `runs` is a long table, `number` the group of each run. NaN for budgets of images and if a run has no seconds.
    """
    budget = runs["budget"].map(seconds_of).astype("float64").to_numpy()
    spent = (runs["seconds_synthesis"] + runs["seconds_distillation"]).to_numpy()
    off = 100.0 * (spent / budget - 1.0)
    result = np.full(groups, np.nan)
    for group in np.unique(number[~np.isnan(budget)]):
        deviations = off[number == group]
        result[group] = deviations[np.argmax(np.abs(deviations))]  # argmax gives the first NaN, if there is one
    return result


def spent(row: Mapping[str, Any]) -> float:
    """Mean seconds of synthesis and distillation of a leaderboard row."""
    return float(row["seconds_synthesis_mean"] + row["seconds_distillation_mean"])


def notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Warnings about the rows of one group with a budget of seconds; empty for other budgets."""
    if seconds_of(rows[0]["budget"]) is None:
        return []
    deviating = [
        f"{', '.join([row['method'] + ' (' + row['preset'] + ')', *details(row, others)])} {row['seconds_off']:+.1f} %"
        for row, others in zip(rows, rows_of_same_name(rows), strict=True)
        if abs(row["seconds_off"]) > NOTE_FROM
    ]
    result = [f"More than {NOTE_FROM:.0f} % off the budget: {'; '.join(deviating)}."] if deviating else []
    clocks = {(name, row["threads"]) for row in rows for name in (row["device_name"] or "").split(",") if name}
    if len(clocks) > 1:
        result.append("Rows of several devices or numbers of threads: equal seconds do not mean equal work.")
    return result


def snapshot_indices(count: int, places: int) -> list[int]:
    """Indices of `places` evenly spaced ones of a run's `count` snapshots, including the last.

    With a budget of seconds, seeds differ in their number of rounds and so of snapshots. With `places` = the smallest
    number of snapshots, the results of all seeds correspond to each other.
    """
    return [-(-count * k // places) - 1 for k in range(1, places + 1)]
