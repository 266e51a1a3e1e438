"""Budgets of seconds in tables and curves: what was really spent, what to beware of, what seeds have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfkd_bench.protocol import seconds_of
from dfkd_bench.report.labels import details, rows_of_same_name

NOTE_FROM = 10.0  # percent of the budget from which a row's notes name what it spent


def largest_deviation(runs: pd.DataFrame, number: npt.NDArray[np.integer[Any]], groups: int) -> npt.NDArray[np.float64]:
    """For each group of complete runs, how far the seconds of one are from their budget, in %, where that is farthest.

    `runs` is a long table, `number` the group of each run. NaN for budgets of images and where a run has no seconds.
    """
    wanted = runs["budget"].map(seconds_of).astype("float64").to_numpy()
    spent = (runs["seconds_synthesis"] + runs["seconds_distillation"]).to_numpy()
    off = 100.0 * (spent / wanted - 1.0)
    found = np.full(groups, np.nan)
    for group in np.unique(number[~np.isnan(wanted)]):
        own = off[number == group]
        found[group] = own[np.argmax(np.abs(own))]  # of numbers one of which is NaN, the first NaN
    return found


def spent(row: Mapping[str, Any]) -> float:
    """Mean seconds of synthesis and distillation of a leaderboard's row."""
    return float(row["seconds_synthesis_mean"] + row["seconds_distillation_mean"])


def notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What to beware of in the rows of one group with a budget of seconds; nothing for other budgets."""
    if seconds_of(rows[0]["budget"]) is None:
        return []
    far = [
        f"{', '.join([row['method'] + ' (' + row['preset'] + ')', *details(row, others)])} {row['seconds_off']:+.1f} %"
        for row, others in zip(rows, rows_of_same_name(rows), strict=True)
        if abs(row["seconds_off"]) > NOTE_FROM
    ]
    found = [f"More than {NOTE_FROM:.0f} % off the budget: {'; '.join(far)}."] if far else []
    clocks = {(name, row["threads"]) for row in rows for name in (row["device_name"] or "").split(",") if name}
    if len(clocks) > 1:
        found.append("Rows of several devices or numbers of threads, on which the same seconds are not the same work.")
    return found


def snapshot_indices(count: int, places: int) -> list[int]:
    """Of a run's `count` snapshots the indices of those at the ends of `places` equal parts of it, the last included.

    Each seed of a budget of seconds has its own number of rounds, and where these are few, of snapshots: as many places
    as the shortest seed has are what all have in common.
    """
    return [-(-count * k // places) - 1 for k in range(1, places + 1)]
