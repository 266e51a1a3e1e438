"""The leaderboard: runs that differ only in their seed become one row with mean, standard deviation and interval.

Rows with different protocol, task, dataset, teacher, track, budget, device or precision are not comparable: they are in
different groups, with separate tables and ranks. Every other difference (add-ons, preset, settings, code, threads,
compiled or not) gives another row. Statistics are over complete runs; diverged and failed runs are only counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfkd_bench.metrics.base import CODE
from dfkd_bench.report.tables.runs import COLUMNS as RUN_COLUMNS
from dfkd_bench.report.tables.runs import by_outcome, foreign_columns
from dfkd_bench.report.tables.time_budget import largest_deviation
from dfkd_bench.runs.settings import TERMS, VARIANTS
from dfkd_bench.stats.groups import Whole, statistics
from dfkd_bench.utils.files import write_atomic

GROUP = ("protocol", "task", "data_sha256", "teacher_sha256", *TERMS)
ROW = (*GROUP, "method", "addons", *VARIANTS, "code_sha256", "settings_sha256")
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
    *(Column(name, _ABOUT[name]) for name in ("protocol", "task", "teacher", *TERMS)),
    Column("rank", "rank by last_mean among the rows of the same terms; empty for bounds and rows without a number"),
    *(Column(name, _ABOUT[name]) for name in ("method", "addons", "bound", *VARIANTS)),
    Column("owner", "distributions that contain the method, separated by commas"),
    Column("version", "their versions, separated by commas"),
    Column("privileges", _ABOUT["privileges"]),
    Column("n_complete", "complete runs, the n of every statistic", "runs"),
    Column("n_diverged", "runs in which something became non-finite; in no statistic", "runs"),
    Column("n_failed", "runs that failed; in no statistic", "runs"),
    Column("n_alarmed", "complete runs with a sign of collapse", "runs"),
    Column("n_repeated", "additional records of the same runs, left out", "records"),
    Column("seeds", "seeds of the complete runs, separated by commas"),
    Column("device_name", "devices of the complete runs, separated by commas; with several, times are empty"),
    *(Column(f"{c.name}_{s}", text.format(c.meaning), c.unit) for c in MEASURES for s, text in _SPREAD),
    *(Column(f"{c.name}_mean", f"mean over complete runs: {c.meaning}", c.unit) for c in COSTS),
    Column("seconds_off", "largest deviation of a run's synthesis and distillation from a budget of seconds", "%"),
    *(Column(name, _ABOUT[name]) for name in DIGESTS),
)
NAMES = tuple(c.name for c in COLUMNS)
STATISTICS = tuple(n for n in NAMES if n.endswith(("_mean", "_sd", "_ci95")))
TYPES: dict[str, Any] = {
    **dict.fromkeys((*STATISTICS, "seconds_off"), "float64"),
    **dict.fromkeys((n for n in NAMES if n.startswith("n_")), "int64"),
    "threads": "int64",
    "bound": "bool",
    "compile": "bool",
}


def leaderboard(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per set of runs that differ only in their seed; see `COLUMNS`. `runs` is a `long_table`.

    After `COLUMNS` come mean, sd and ci95 of its `foreign_columns`. A statistic is NaN unless every complete run has
    the number.
    """
    counted = by_outcome(runs)
    repeated = counted[counted.duplicated("hash")]
    counted = counted.drop_duplicates("hash")
    number = counted.groupby(list(ROW), sort=True).ngroup().to_numpy()
    order = np.argsort(number, kind="stable")
    counted, number = counted.iloc[order], number[order]
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    n_repeated = repeated.groupby(list(ROW)).size().to_dict()

    board = counted.iloc[starts][[*ROW, "teacher", "bound"]].reset_index(drop=True)
    board["n_repeated"] = [n_repeated.get(key, 0) for key in board[list(ROW)].itertuples(index=False, name=None)]
    texts = pd.DataFrame(_text_columns(counted, starts), dtype=object)  # missing text stays None
    numbers = pd.DataFrame(_number_columns(counted, number, len(starts)))
    foreign = [f"{name}_{s}" for name in foreign_columns(runs) for s, _ in _SPREAD]
    board = pd.concat([board, texts, numbers], axis=1).reindex(columns=[*NAMES, *foreign]).astype(TYPES)
    # rounded, because sums of the same accuracies in another order may differ in the last bit
    ranked = board["last_mean"].round(9).where(~board["bound"]).groupby([board[name] for name in GROUP])
    board["rank"] = ranked.rank(ascending=False, method="min").astype("Int64")
    sorting = [*GROUP, "bound", "rank", *ROW[len(GROUP) :]]
    return board.sort_values(sorting, kind="stable", na_position="last", ignore_index=True)


def _text_columns(counted: pd.DataFrame, starts: Whole) -> dict[str, list[Any]]:
    """The counts and text columns of each row of the leaderboard; `starts`: index in `counted` of its first run."""
    names = ("status", "alarms", "seed", "privileges", "owner", "version", "device_name")
    ends = [*starts[1:], len(counted)]
    columns = {n: [v[a:b] for a, b in zip(starts, ends, strict=False)] for n in names for v in [counted[n].to_numpy()]}
    result: dict[str, list[Any]] = {}
    complete = [status == "complete" for status in columns["status"]]
    for status in ("complete", "diverged", "failed"):
        result[f"n_{status}"] = [int((part == status).sum()) for part in columns["status"]]
    result["n_alarmed"] = [sum(map(bool, part[ok])) for part, ok in zip(columns["alarms"], complete, strict=True)]
    result["seeds"] = [",".join(map(str, sorted(p[ok]))) for p, ok in zip(columns["seed"], complete, strict=True)]
    result["privileges"] = [next((p for p in part if p is not None), None) for part in columns["privileges"]]
    for name in ("owner", "version"):
        result[name] = [_listed(part) for part in columns[name]]
    result["device_name"] = [_listed(part[ok]) for part, ok in zip(columns["device_name"], complete, strict=True)]
    return result


def _listed(values: Iterable[Any]) -> str | None:
    return ",".join(sorted({str(v) for v in values if v is not None})) or None


def _number_columns(counted: pd.DataFrame, number: Whole, groups: int) -> dict[str, npt.NDArray[np.float64]]:
    """Statistics of the complete runs of each row of the leaderboard.

    Times are NaN if the runs were made on several devices, and numbers of another package's metric if they were
    computed by several versions of its code.
    """
    complete = (counted["status"] == "complete").to_numpy()
    foreign = foreign_columns(counted)
    columns = [*(c.name for c in (*MEASURES, *COSTS)), *foreign]
    values = counted[columns].to_numpy(dtype=np.float64)[complete]
    mean, sd, half = statistics(values, number[complete], groups)
    several = _mixed(counted["device_name"], complete, number, groups)
    clock = {c.name for c in (*MEASURES, *COSTS) if c.clock}
    costs = {c.name for c in COSTS}
    result: dict[str, npt.NDArray[np.float64]] = {}
    for k, name in enumerate(columns):
        mixed = several if name in clock else None
        if name in foreign:  # another version of the metric's code may define the number differently
            mixed = _mixed(counted[f"{name.rpartition('.')[0]}.{CODE}"], complete, number, groups)
        for s, numbers in (("mean", mean), ("sd", sd), ("ci95", half))[: 1 if name in costs else 3]:
            result[f"{name}_{s}"] = numbers[:, k] if mixed is None else np.where(mixed, np.nan, numbers[:, k])
    off = largest_deviation(counted[complete], number[complete], groups)
    return {**result, "seconds_off": np.where(several, np.nan, off)}


def _mixed(values: pd.Series[Any], done: npt.NDArray[np.bool_], number: Whole, groups: int) -> npt.NDArray[np.bool_]:
    """For each row of the leaderboard, True if its complete runs have more than one of `values`."""
    result = np.zeros(groups, dtype=bool)
    distinct = pd.Series(values.to_numpy()[done]).groupby(number[done]).nunique(dropna=False)
    result[distinct.loc[lambda n: n > 1].index] = True
    return result


def write_csv(board: pd.DataFrame, path: Path) -> None:
    """Write the leaderboard as CSV: `COLUMNS` in their order, full precision, LF line ends.

    Raises `RunError` if the file cannot be written.
    """
    write_atomic(path, board.to_csv(index=False, lineterminator="\n").encode())
