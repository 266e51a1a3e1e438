"""The long table to the leaderboard: runs that differ in their seed alone become one row with mean, spread, interval.

What makes numbers incomparable (protocol, task, dataset, teacher, track, budget, device, precision) parts the rows
into groups that never share a table or a rank; every other difference (preset, settings, code, threads, compiled or
not) makes another row. Statistics are over complete runs; diverged and failed ones are counted beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

from dfkd_bench.files import write_atomic
from dfkd_bench.report.table import COLUMNS as RUN_COLUMNS

GROUP = ("protocol", "task", "data_sha256", "teacher_sha256", "track", "budget", "device", "precision")
ROW = (*GROUP, "method", "preset", "overrides", "compile", "threads", "code_sha256", "settings_sha256")
DIGESTS = ("teacher_sha256", "data_sha256", "code_sha256", "settings_sha256")
MEASURES = tuple(c for c in RUN_COLUMNS if c.kind == "measure")
COSTS = tuple(c for c in RUN_COLUMNS if c.kind == "cost")
FILE = "leaderboard.csv"


@dataclass(frozen=True)
class Column:
    """One column of the leaderboard and its CSV."""

    name: str
    meaning: str
    unit: str = ""


_ABOUT = {c.name: c.meaning for c in RUN_COLUMNS if c.kind == "about"}
_SPREAD = (
    ("mean", "mean over complete runs: {}"),
    ("sd", "sample standard deviation over complete runs: {}"),
    ("ci95", "half-width of the 95 % interval of the mean, Student t over n_complete - 1 degrees of freedom: {}"),
)

COLUMNS: tuple[Column, ...] = (
    *(Column(name, _ABOUT[name]) for name in ("protocol", "task", "teacher", "track", "budget", "device", "precision")),
    Column("rank", "place by last_mean among the rows of the same terms; empty for bounds and rows without a number"),
    *(Column(name, _ABOUT[name]) for name in ("method", "bound", "preset", "overrides", "compile", "threads")),
    Column("owner", "distributions that brought the method, commas between"),
    Column("version", "their versions, commas between"),
    Column("privileges", _ABOUT["privileges"]),
    Column("n_complete", "complete runs, the n of every statistic", "runs"),
    Column("n_diverged", "runs in which something became non-finite; in no statistic", "runs"),
    Column("n_failed", "runs that failed; in no statistic", "runs"),
    Column("n_alarmed", "complete runs with a sign of collapse", "runs"),
    Column("n_repeated", "further records of a run already counted, left out", "records"),
    Column("seeds", "seeds of the complete runs, commas between"),
    Column("device_name", "devices of the complete runs, commas between; where several, what the clock says is empty"),
    *(Column(f"{c.name}_{s}", text.format(c.meaning), c.unit) for c in MEASURES for s, text in _SPREAD),
    *(Column(f"{c.name}_mean", f"mean over complete runs: {c.meaning}", c.unit) for c in COSTS),
    *(Column(name, _ABOUT[name]) for name in DIGESTS),
)
NAMES = tuple(c.name for c in COLUMNS)
STATISTICS = tuple(n for n in NAMES if n.endswith(("_mean", "_sd", "_ci95")))
TYPES: dict[str, Any] = {
    **dict.fromkeys(STATISTICS, "float64"),
    **dict.fromkeys((n for n in NAMES if n.startswith("n_")), "int64"),
    "threads": "int64",
    "bound": "bool",
    "compile": "bool",
}


def leaderboard(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per set of runs that differ in their seed alone; see `COLUMNS`. `runs` is a `long_table`.

    A statistic is given where every complete run has the number, so that a mean never hides what is missing.
    """
    counted = runs.assign(_order=runs["status"].map({"complete": 0, "diverged": 1, "failed": 2}))
    counted = counted.sort_values(["_order", "path"], kind="stable")
    repeated = counted[counted.duplicated("hash")]
    counted = counted.drop_duplicates("hash")
    twice = repeated.groupby(list(ROW)).size().to_dict()
    rows = [_row(group, twice.get(key, 0)) for key, group in counted.groupby(list(ROW), sort=True)]
    board = pd.DataFrame(rows, columns=list(NAMES), dtype=object).astype(TYPES)
    ranked = board["last_mean"].where(~board["bound"]).groupby([board[name] for name in GROUP])
    board["rank"] = ranked.rank(ascending=False, method="min").astype("Int64")
    order = [*GROUP, "bound", "rank", *ROW[len(GROUP) :]]
    return board.sort_values(order, kind="stable", na_position="last", ignore_index=True)


def _row(group: pd.DataFrame, repeated: int) -> dict[str, Any]:
    first = group.iloc[0]
    complete = group[group["status"] == "complete"]
    counts = group["status"].value_counts()
    row: dict[str, Any] = {name: first[name] for name in (*ROW, "teacher", "bound")}
    row["privileges"] = next((p for p in group["privileges"] if p is not None), None)
    for name in ("owner", "version"):
        row[name] = _listed(group[name])
    row.update({f"n_{status}": int(counts.get(status, 0)) for status in ("complete", "diverged", "failed")})
    row["n_alarmed"] = int(complete["alarms"].fillna("").ne("").sum())
    row["n_repeated"] = repeated
    row["seeds"] = ",".join(str(seed) for seed in sorted(complete["seed"]))
    row["device_name"] = _listed(complete["device_name"])
    one_device = complete["device_name"].nunique(dropna=False) <= 1
    for columns, spread in ((MEASURES, True), (COSTS, False)):
        values = complete[[c.name for c in columns]].to_numpy(dtype=np.float64)
        for column, (mean, sd, half) in zip(columns, statistics(values).T.tolist(), strict=True):
            if column.clock and not one_device:
                mean = sd = half = float("nan")
            row[f"{column.name}_mean"] = mean
            if spread:
                row.update({f"{column.name}_sd": sd, f"{column.name}_ci95": half})
    return row


def _listed(column: pd.Series[Any]) -> str | None:
    return ",".join(sorted({str(v) for v in column if v is not None})) or None


def statistics(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean, sample standard deviation and half-width of the 95 % t interval of each column: (3, columns).

    `values` is (runs, columns). NaN where a run lacks the number; spread and interval are NaN for one run.
    """
    n, columns = values.shape
    found = np.full((3, columns), np.nan)
    if n:
        found[0] = values.mean(0)
    if n > 1:
        found[1] = values.std(0, ddof=1)
        found[2] = stdtrit(n - 1, 0.975) * found[1] / np.sqrt(n)
    return found


def write_csv(board: pd.DataFrame, path: Path) -> None:
    """The leaderboard as CSV: `COLUMNS` in their order, full precision, LF line ends. Raises `RunError`."""
    write_atomic(path, board.to_csv(index=False, lineterminator="\n").encode())
