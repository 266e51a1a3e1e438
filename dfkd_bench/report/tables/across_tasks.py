"""Methods over several tasks: one row per method and terms, all tasks with equal weight.

A method without complete runs on one of the tasks gets no aggregate; to use fewer tasks, filter the long table first. A
task with another teacher or other data counts as another task.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from dfkd_bench.report.tables.leaderboard import Column
from dfkd_bench.report.tables.pairs import numbered_runs
from dfkd_bench.report.tables.runs import COLUMNS as RUN_COLUMNS
from dfkd_bench.runs import settings
from dfkd_bench.stats.intervals import interquartile_mean, mean_of_means, stratified_bootstrap
from dfkd_bench.stats.ranks import Ranks, ranks

TERMS = ("protocol", *settings.TERMS)
TASK = ("task", "data_sha256", "teacher_sha256")
COMPETITOR = ("method", *settings.VARIANTS, "code_sha256")
_ABOUT = {c.name: c.meaning for c in RUN_COLUMNS}
_INTERVAL_METHOD = "method of that interval: t (Student) or bootstrap, over runs within each task"

COLUMNS: tuple[Column, ...] = (
    *(Column(name, _ABOUT[name]) for name in (*TERMS, *COMPETITOR)),
    Column("bound", "True for a bound, which is never ranked"),
    Column("tasks", "tasks on which any ranked method has a complete run under these terms", "tasks"),
    Column("n_tasks", "of these, tasks on which this method has a complete run", "tasks"),
    Column("n_complete", "complete runs on these tasks, the n of every statistic", "runs"),
    Column("n_diverged", "runs on these tasks in which something became non-finite; in no statistic", "runs"),
    Column("n_failed", "runs on these tasks that failed; in no statistic", "runs"),
    Column("n_ambiguous", "tasks with runs of different settings in this row; if any, no aggregate is given", "tasks"),
    Column("mean", "mean over tasks of the mean of last over complete runs", "%"),
    Column("mean_low", "lower end of its 95 % interval, stratified by task", "%"),
    Column("mean_high", "upper end", "%"),
    Column("mean_how", _INTERVAL_METHOD),
    Column("iqm", "interquartile mean of rel_teacher over the runs of all tasks", "ratio"),
    Column("iqm_low", "lower end of its 95 % interval, stratified by task", "ratio"),
    Column("iqm_high", "upper end", "ratio"),
    Column("iqm_how", _INTERVAL_METHOD),
    Column("rank", "mean rank over blocks, 1 is best, ties share; empty for bounds and if a block is missing"),
    Column("rank_low", "lower end of its 95 % interval over blocks"),
    Column("rank_high", "upper end"),
    Column("rank_how", "method of that interval: t (Student) or bootstrap, over blocks"),
    Column("n_blocks", "blocks: a task and a seed that more than half of those with every task have", "blocks"),
    Column("friedman_p", "Friedman's test that all ranked rows of these terms are equal; the same for all of them"),
    Column("cd", "critical difference of mean ranks at 0.05 over all pairs (Nemenyi)"),
)
NAMES = tuple(c.name for c in COLUMNS)
COUNTS = ("tasks", "n_tasks", "n_complete", "n_diverged", "n_failed", "n_ambiguous", "n_blocks", "threads")
NUMBERS = ("mean", "mean_low", "mean_high", "iqm", "iqm_low", "iqm_high", "rank", "rank_low", "rank_high",
           "friedman_p", "cd")  # fmt: skip
TYPES: dict[str, str] = {
    **dict.fromkeys(COUNTS, "int64"), **dict.fromkeys(NUMBERS, "float64"), "bound": "bool", "compile": "bool",
}  # fmt: skip


def across(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per method (with preset, settings, code) and terms, over all tasks; see `COLUMNS`.

    `runs` is a `long_table`. With a single task, ranks are over its seeds. Sorted by rank, then by mean, bounds last.
    """
    table = numbered_runs(runs)
    table["_task"] = table.groupby(list(TASK), sort=True).ngroup()
    rows = [row for _, group in table.groupby(list(TERMS), sort=True) for row in _of_terms(group)]
    frame = pd.DataFrame(rows, columns=list(NAMES), dtype=object).astype(TYPES)
    order = [*TERMS, "bound", "rank", "_mean", *COMPETITOR]
    ordered = frame.assign(_mean=-frame["mean"]).sort_values(order, kind="stable", na_position="last")
    return ordered.drop(columns="_mean").reset_index(drop=True)


def blocks(runs: pd.DataFrame) -> pd.DataFrame:
    """The input of `stats.ranks.ranks`: (task, seed) x ranked competitors, test top-1 in %, for runs of equal terms.

    `runs` is a `long_table` of one set of `TERMS`; columns are tuples of `COMPETITOR`. A block is a task and a seed
    that more than half of the competitors with every task have. So extra seeds of one method do not change the blocks,
    and a missing seed of one method only removes the rank of that method.
    """
    table = numbered_runs(runs)
    return _blocks(table.assign(_task=table.groupby(list(TASK), sort=True).ngroup()))


def _of_terms(group: pd.DataFrame) -> list[dict[str, Any]]:
    ranked = group[~group["bound"] & _complete(group)]
    tasks = sorted(ranked["_task"].unique())
    group = group[group["_task"].isin(tasks)]
    ranking = ranks(_blocks(group))
    return [
        _row(dict(zip(COMPETITOR, key, strict=True)), rows, tasks, ranking)
        for key, rows in group.groupby(list(COMPETITOR), sort=True)
    ]


def _row(competitor: Mapping[str, Any], rows: pd.DataFrame, tasks: list[int], ranking: Ranks) -> dict[str, Any]:
    first, complete = rows.iloc[0], rows[_complete(rows)]
    counts = rows["status"].value_counts()
    by_task = complete.groupby("_task")
    ambiguous = int((by_task["settings_sha256"].nunique() > 1).sum())
    row: dict[str, Any] = {
        **{name: first[name] for name in (*TERMS, "bound")}, **competitor, "tasks": len(tasks),
        "n_tasks": by_task.ngroups, "n_ambiguous": ambiguous,
        **{f"n_{status}": int(counts.get(status, 0)) for status in ("complete", "diverged", "failed")},
    }  # fmt: skip
    for name, measure, statistic in (("mean", "last", mean_of_means), ("iqm", "rel_teacher", interquartile_mean)):
        values = {task: complete.loc[complete["_task"] == task, measure].to_numpy() for task in tasks}
        whole = stratified_bootstrap({} if ambiguous else values, statistic)
        row |= {name: whole.mean, f"{name}_low": whole.low, f"{name}_high": whole.high, f"{name}_how": whole.how}
    key = tuple(competitor.values())
    position = ranking.competitors.index(key) if key in ranking.competitors else None
    for name, column in (("rank", ranking.mean), ("rank_low", ranking.low), ("rank_high", ranking.high)):
        row[name] = float("nan") if position is None else column[position]
    has_rank = not np.isnan(row["rank"])
    shared = {"rank_how": ranking.how, "friedman_p": ranking.friedman_p, "cd": ranking.cd} if has_rank else {}
    return {**row, "rank_how": "none", **shared, "n_blocks": ranking.n_blocks}


def _complete(rows: pd.DataFrame) -> pd.Series[bool]:
    return (rows["status"] == "complete") & rows["last"].notna()


def _blocks(group: pd.DataFrame) -> pd.DataFrame:
    complete = group[~group["bound"] & _complete(group)]
    names = pd.Index([tuple(row) for row in complete[list(COMPETITOR)].to_numpy()], tupleize_cols=False)
    code, competitors = pd.factorize(names, sort=False)
    complete = complete.assign(_competitor=code)
    settings = complete.groupby(["_competitor", "_task"])["settings_sha256"].nunique()
    ambiguous = set(settings[settings > 1].index.get_level_values(0))
    tasks = complete.groupby("_competitor")["_task"].nunique()
    everywhere = [c for c in range(len(competitors)) if tasks[c] == complete["_task"].nunique() and c not in ambiguous]
    once = complete.drop_duplicates(["_competitor", "_task", "seed"])
    table = once.pivot(index=["_task", "seed"], columns="_competitor", values="last").sort_index()
    table = table.reindex(columns=range(len(competitors)))
    table.loc[:, [c for c in table if c not in everywhere]] = np.nan
    kept = table[table[everywhere].notna().sum(axis=1) > len(everywhere) / 2]
    kept.columns = pd.Index(competitors, tupleize_cols=False)
    return kept.rename_axis(["task", "seed"])
