"""All pairs of comparable leaderboard rows, with paired differences over shared seeds.

p-values are corrected for all pairs of their group. For a group of more than `LIMIT` rows, only the pairs of the best
row with every other and of each row with the next are listed. These pairs are selected by their means, so Holm's
correction still counts all pairs of the group.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd

from dfkd_bench.errors import RunError
from dfkd_bench.report.tables.leaderboard import GROUP, ROW, Column
from dfkd_bench.report.tables.predictions import correct, resolution
from dfkd_bench.report.tables.runs import COLUMNS as RUN_COLUMNS
from dfkd_bench.report.tables.runs import by_outcome
from dfkd_bench.stats.intervals import Array
from dfkd_bench.stats.mcnemar import Flags, McNemar, mcnemar, pooled_mcnemar
from dfkd_bench.stats.paired import assess, holm, verdict
from dfkd_bench.stats.ranks import beats, improvement_ends

Places: TypeAlias = npt.NDArray[np.int64]
LIMIT = 60  # rows of a group; 1,770 pairs
SIDE = ROW[len(GROUP) :]  # columns in which rows of a group differ
_ABOUT = {c.name: c.meaning for c in RUN_COLUMNS}

COLUMNS: tuple[Column, ...] = (
    *(Column(name, _ABOUT[name]) for name in GROUP),
    *(Column(f"{name}_{side}", f"of row {side}: {_ABOUT[name]}") for side in "ab" for name in SIDE),
    Column("bound", "True if a or b is a bound, which is never ranked and not part of the correction"),
    Column("n_a", "complete runs of a", "runs"),
    Column("n_b", "complete runs of b", "runs"),
    Column("last_a", "mean of last over the complete runs of a", "%"),
    Column("last_b", "mean of last over the complete runs of b", "%"),
    Column("n", "seeds that both have, the n of the difference", "seeds"),
    Column("difference", "mean of last of a minus last of b over shared seeds", "%"),
    Column("low", "lower end of its 95 % interval, Student t; the spread is at least that of rounding", "%"),
    Column("high", "upper end", "%"),
    Column("p", "p-value of the paired t-test, not corrected"),
    Column("p_holm", "p corrected for all pairs of ranked rows of the group with two shared seeds; empty for bounds"),
    Column("verdict", "a is better or worse than b, or not distinguishable, by p_holm (p for bounds) at 0.05"),
    Column("improvement", "probability that a run of a beats a run of b, ties count half", "share"),
    Column("improvement_low", "lower end of its 95 % interval (Newcombe)", "share"),
    Column("improvement_high", "upper end", "share"),
    Column("only_a", "answers that only a gets right, over shared seeds with predictions", "answers"),
    Column("only_b", "answers that only b gets right", "answers"),
    Column("mcnemar_p", "p-value of McNemar's test over these seeds, each image counted once"),
    Column("mcnemar_seeds", "p-value of McNemar's test by seed, as JSON"),
)
NAMES = tuple(c.name for c in COLUMNS)
NEEDED = ("task", "bound", "seed", "status", "path", "_row", "_group")  # of a run, in the loop over groups
NUMBERS = ("n_a", "n_b", "last_a", "last_b", "n", "difference", "low", "high", "p", "p_holm", "improvement",
           "improvement_low", "improvement_high", "only_a", "only_b", "mcnemar_p")  # fmt: skip
COUNTS = ("n_a", "n_b", "n", "threads_a", "threads_b")
TYPES: dict[str, str] = {
    **dict.fromkeys(NAMES, "object"),
    **dict.fromkeys(NUMBERS, "float64"),
    **dict.fromkeys(COUNTS, "int64"),
    **dict.fromkeys(("bound", "compile_a", "compile_b"), "bool"),
}


def pairs(runs: pd.DataFrame, predictions: bool = False) -> pd.DataFrame:
    """One row per unordered pair of comparable leaderboard rows; see `COLUMNS`. `runs` is a `long_table`.

    a comes before b on the leaderboard, so it has the higher mean or b is a bound. Rows of different groups are never
    paired. With `predictions`, the predictions beside the records are read to fill McNemar's columns, which takes much
    longer; otherwise, and if no seed has both files, these columns are empty. Raises `RunError` for a file that cannot
    be read.
    """
    table = numbered_runs(runs)
    parts = [_of_group(group, rows, predictions) for group, rows in _groups(table)]
    if not parts:
        return pd.DataFrame(columns=list(NAMES)).astype(TYPES)
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    n_a, n_b = (columns[name][:, None].astype(np.float64) for name in ("n_a", "n_b"))
    ends = improvement_ends(columns["improvement"][:, None], n_a, n_b)  # for all pairs at once: it is iterative
    columns["improvement_low"], columns["improvement_high"] = ends
    a, b = columns.pop("a"), columns.pop("b")
    first = table.drop_duplicates("_row").set_index("_row")
    for name in GROUP:
        columns[name] = first[name].loc[a].to_numpy()
    for side, rows in (("a", a), ("b", b)):
        for name in SIDE:
            columns[f"{name}_{side}"] = first[name].loc[rows].to_numpy()
    return pd.DataFrame({name: pd.Series(columns[name], dtype=TYPES[name]) for name in NAMES})


def numbered_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, each once, with the numbers `_row` and `_group` of their leaderboard row and group; complete first."""
    once = by_outcome(runs).drop_duplicates("hash")
    by_row, by_group = (once.groupby(list(keys), sort=True, dropna=False).ngroup() for keys in (ROW, GROUP))
    return once.assign(_row=by_row, _group=by_group).drop(columns="_order")


def _groups(table: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, Array]]:
    """Each group's runs in the order of the leaderboard, and its values of `last` (rows, seeds)."""
    complete = table["last"].where(table["status"] == "complete")
    mean = complete.groupby(table["_row"]).transform("mean")
    ranked = table[[*NEEDED]].assign(_value=complete, _mean=-mean)
    ranked = ranked.sort_values(["_group", "bound", "_mean", "_row"], kind="stable", na_position="last")
    for _, group in ranked.groupby("_group", sort=True):
        rows, seeds = pd.factorize(group["_row"])[0], pd.factorize(group["seed"])[0]
        values = np.full((rows.max() + 1, seeds.max() + 1), np.nan)
        values[rows[::-1], seeds[::-1]] = group["_value"].to_numpy()[::-1]  # reversed: the first record of a seed wins
        if len(values) > 1:
            yield group, values


def _of_group(group: pd.DataFrame, values: Array, predictions: bool) -> dict[str, npt.NDArray[Any]]:
    names = group["_row"].unique().astype(np.int64)
    bound = group["bound"].to_numpy()[~group["_row"].duplicated().to_numpy()]
    i, j = pair_indices(len(values))
    with_bound = bound[i] | bound[j]
    step = resolution(group["task"].iloc[0], group["path"])
    n, mean, low, high, p = assess(values[i] - values[j], step)
    adjusted = np.full(len(p), np.nan)
    adjusted[~with_bound] = holm(p[~with_bound], _count_testable_pairs(values[~bound]))
    n_complete = (~np.isnan(values)).sum(1)
    p_of_verdict = np.where(with_bound, p, adjusted)
    columns: dict[str, npt.NDArray[Any]] = {
        "a": names[i], "b": names[j], "bound": with_bound, "n_a": n_complete[i], "n_b": n_complete[j],
        "last_a": _means(values)[i], "last_b": _means(values)[j],
        "n": n, "difference": mean, "low": low, "high": high, "p": p, "p_holm": adjusted,
        "verdict": np.array([verdict(*pair) for pair in zip(mean, p_of_verdict, strict=True)], dtype=object),
        "improvement": _improvement(values, i, j),
    }  # fmt: skip
    return {**columns, **_images(group, names[i], names[j], predictions)}


def pair_indices(rows: int) -> tuple[Places, Places]:
    """Indices (i, j) of the pairs among `rows` rows: all pairs, or above `LIMIT` those described above."""
    if rows <= LIMIT:
        i, j = np.triu_indices(rows, 1)
        return i, j
    later = np.arange(1, rows)
    return np.concatenate([0 * later, later[1:] - 1]), np.concatenate([later, later[1:]])


def _count_testable_pairs(values: Array) -> int:
    """Number of pairs of rows of `values` (rows, seeds) with the two shared seeds that a test needs."""
    present = (~np.isnan(values)).astype(np.float64)  # float, so that BLAS computes the product
    shared = present @ present.T
    return int((np.triu(shared, 1) > 1).sum())


def _means(values: Array) -> Array:
    n_complete = (~np.isnan(values)).sum(1)
    means: Array = np.where(n_complete > 0, np.nansum(values, axis=1) / np.maximum(n_complete, 1), np.nan)
    return means


def _improvement(values: Array, i: Places, j: Places) -> Array:
    """Probability of improvement of each pair, in batches to limit memory."""
    batch = max(1, 1_000_000 // values.shape[1] ** 2)
    parts = [slice(k, k + batch) for k in range(0, len(i), batch)]
    return np.concatenate([beats(values[i[part]], values[j[part]]) for part in parts])


# -- predictions ------------------------------------------------------------------------------------------------------


def correct_by_seed(rows: pd.DataFrame) -> dict[int, Flags]:
    """Seed -> which test images the complete run of a leaderboard row classifies correctly; only seeds with files."""
    complete = rows[rows["status"] == "complete"].drop_duplicates("seed")
    result = {int(seed): correct(path) for seed, path in zip(complete["seed"], complete["path"], strict=True)}
    return {seed: right for seed, right in result.items() if right is not None}


def mcnemar_tests(a: dict[int, Flags], b: dict[int, Flags]) -> tuple[McNemar | None, dict[int, McNemar]]:
    """McNemar's test over all shared seeds (None without any), and by seed. Raises `RunError` for different images."""
    try:
        by_seed = {seed: mcnemar(a[seed], b[seed]) for seed in sorted(a.keys() & b.keys())}
        return (pooled_mcnemar(a, b) if by_seed else None), by_seed
    except ValueError as error:
        raise RunError(f"predictions beside the records cannot be compared: {error}") from error


def _images(group: pd.DataFrame, a: Places, b: Places, read: bool) -> dict[str, npt.NDArray[Any]]:
    only_a, only_b, p = (np.full(len(a), np.nan) for _ in range(3))
    by_seed = np.full(len(a), None, dtype=object)
    if read:
        known = {row: correct_by_seed(rows) for row, rows in group.groupby("_row")}
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            pooled, seeds = mcnemar_tests(known[x], known[y])
            if pooled:
                only_a[k], only_b[k], p[k] = pooled.only_a, pooled.only_b, pooled.p
                by_seed[k] = json.dumps({str(seed): test.p for seed, test in seeds.items()})
    return {"only_a": only_a, "only_b": only_b, "mcnemar_p": p, "mcnemar_seeds": by_seed}
