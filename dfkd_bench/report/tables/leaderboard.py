"""The long table to the leaderboard: runs that differ in their seed alone become one row with mean, spread, interval.

What makes numbers incomparable (protocol, task, dataset, teacher, track, budget, device, precision) parts the rows
into groups that never share a table or a rank; every other difference (add-ons, preset, settings, code, threads,
compiled or not) makes another row. Statistics are over complete runs; diverged and failed ones are counted beside them.
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
from dfkd_bench.report.tables.time_budget import farthest
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
    Column("rank", "place by last_mean among the rows of the same terms; empty for bounds and rows without a number"),
    *(Column(name, _ABOUT[name]) for name in ("method", "addons", "bound", *VARIANTS)),
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
    """One row per set of runs that differ in their seed alone; see `COLUMNS`. `runs` is a `long_table`.

    After them come mean, sd and ci95 of its `foreign_columns`. A statistic is given where every complete run has the
    number, so that a mean never hides what is missing.
    """
    counted = by_outcome(runs)
    repeated = counted[counted.duplicated("hash")]
    counted = counted.drop_duplicates("hash")
    number = counted.groupby(list(ROW), sort=True).ngroup().to_numpy()
    order = np.argsort(number, kind="stable")
    counted, number = counted.iloc[order], number[order]
    starts = np.flatnonzero(np.diff(number, prepend=-1))
    twice = repeated.groupby(list(ROW)).size().to_dict()

    board = counted.iloc[starts][[*ROW, "teacher", "bound"]].reset_index(drop=True)
    board["n_repeated"] = [twice.get(key, 0) for key in board[list(ROW)].itertuples(index=False, name=None)]
    words = pd.DataFrame(_words(counted, starts), dtype=object)  # text that is missing stays None
    numbers = pd.DataFrame(_numbers(counted, number, len(starts)))
    others = [f"{name}_{s}" for name in foreign_columns(runs) for s, _ in _SPREAD]
    board = pd.concat([board, words, numbers], axis=1).reindex(columns=[*NAMES, *others]).astype(TYPES)
    # the same accuracies in another order add up to another last bit: that is no difference in rank
    ranked = board["last_mean"].round(9).where(~board["bound"]).groupby([board[name] for name in GROUP])
    board["rank"] = ranked.rank(ascending=False, method="min").astype("Int64")
    sorting = [*GROUP, "bound", "rank", *ROW[len(GROUP) :]]
    return board.sort_values(sorting, kind="stable", na_position="last", ignore_index=True)


def _words(counted: pd.DataFrame, starts: Whole) -> dict[str, list[Any]]:
    """What is counted and listed of the rows of each group; `starts` says where in `counted` a group begins."""
    names = ("status", "alarms", "seed", "privileges", "owner", "version", "device_name")
    ends = [*starts[1:], len(counted)]
    columns = {n: [v[a:b] for a, b in zip(starts, ends, strict=False)] for n in names for v in [counted[n].to_numpy()]}
    found: dict[str, list[Any]] = {}
    done = [status == "complete" for status in columns["status"]]
    for status in ("complete", "diverged", "failed"):
        found[f"n_{status}"] = [int((part == status).sum()) for part in columns["status"]]
    found["n_alarmed"] = [sum(map(bool, part[ok])) for part, ok in zip(columns["alarms"], done, strict=True)]
    found["seeds"] = [",".join(map(str, sorted(p[ok]))) for p, ok in zip(columns["seed"], done, strict=True)]
    found["privileges"] = [next((p for p in part if p is not None), None) for part in columns["privileges"]]
    for name in ("owner", "version"):
        found[name] = [_listed(part) for part in columns[name]]
    found["device_name"] = [_listed(part[ok]) for part, ok in zip(columns["device_name"], done, strict=True)]
    return found


def _listed(values: Iterable[Any]) -> str | None:
    return ",".join(sorted({str(v) for v in values if v is not None})) or None


def _numbers(counted: pd.DataFrame, number: Whole, groups: int) -> dict[str, npt.NDArray[np.float64]]:
    """Statistics of the complete runs of each group.

    What the clock says is left out over several devices, and a number of another package's metric over several versions
    of its code.
    """
    done = (counted["status"] == "complete").to_numpy()
    others = foreign_columns(counted)
    columns = [*(c.name for c in (*MEASURES, *COSTS)), *others]
    values = counted[columns].to_numpy(dtype=np.float64)[done]
    mean, sd, half = statistics(values, number[done], groups)
    several = _several(counted["device_name"], done, number, groups)
    clock = {c.name for c in (*MEASURES, *COSTS) if c.clock}
    costs = {c.name for c in COSTS}
    named: dict[str, npt.NDArray[np.float64]] = {}
    for k, name in enumerate(columns):
        mixed = several if name in clock else None
        if name in others:  # numbers of one name that another code computed are other numbers
            mixed = _several(counted[f"{name.rpartition('.')[0]}.{CODE}"], done, number, groups)
        for s, found in (("mean", mean), ("sd", sd), ("ci95", half))[: 1 if name in costs else 3]:
            named[f"{name}_{s}"] = found[:, k] if mixed is None else np.where(mixed, np.nan, found[:, k])
    off = farthest(counted[done], number[done], groups)
    return {**named, "seconds_off": np.where(several, np.nan, off)}


def _several(values: pd.Series[Any], done: npt.NDArray[np.bool_], number: Whole, groups: int) -> npt.NDArray[np.bool_]:
    """Whether the complete runs of each group have more than one of `values`."""
    found = np.zeros(groups, dtype=bool)
    distinct = pd.Series(values.to_numpy()[done]).groupby(number[done]).nunique(dropna=False)
    found[distinct.loc[lambda n: n > 1].index] = True
    return found


def write_csv(board: pd.DataFrame, path: Path) -> None:
    """The leaderboard as CSV: `COLUMNS` in their order, full precision, LF line ends. Raises `RunError`."""
    write_atomic(path, board.to_csv(index=False, lineterminator="\n").encode())
