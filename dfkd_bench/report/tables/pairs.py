"""Every two comparable methods against each other: the long table to one row per pair of leaderboard rows.

Differences are taken seed by seed, p-values corrected for all pairs of their group. A group of more than `LIMIT` rows
has too many pairs to read: of it there are the best row with every other, and every row with the next. These were
chosen by their means, so Holm's correction still counts all pairs of the group.
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
from dfkd_bench.stats.paired import holm, paired_rows, verdict
from dfkd_bench.stats.ranks import improvement_ends, win_share

Places: TypeAlias = npt.NDArray[np.int64]
LIMIT = 60  # rows of a group, 1,770 pairs
SIDE = ROW[len(GROUP) :]  # what tells the rows of a group apart
_ABOUT = {c.name: c.meaning for c in RUN_COLUMNS}

COLUMNS: tuple[Column, ...] = (
    *(Column(name, _ABOUT[name]) for name in GROUP),
    *(Column(f"{name}_{side}", f"of row {side}: {_ABOUT[name]}") for side in "ab" for name in SIDE),
    Column("bound", "whether a or b is a bound, never ranked and outside the correction"),
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
    Column("verdict", "a is better or worse than b, or not distinguishable, at 0.05 of p_holm (of p for bounds)"),
    Column("improvement", "probability that a run of a beats a run of b, ties half", "share"),
    Column("improvement_low", "lower end of its 95 % interval (Newcombe)", "share"),
    Column("improvement_high", "upper end", "share"),
    Column("only_a", "answers right in a alone, over shared seeds with predictions", "answers"),
    Column("only_b", "answers right in b alone", "answers"),
    Column("mcnemar_p", "p-value of McNemar's test over these seeds, an image counting once"),
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

    a stands before b on the leaderboard, so it has the higher mean or b is a bound. Rows of different groups are never
    paired. With `predictions` the files beside the records are read and McNemar's columns filled, which takes far
    longer; they are empty otherwise, and where no seed has both files. Raises `RunError` for one that cannot be read.
    """
    whole = distinct(runs)
    found = [_of_group(group, rows, predictions) for group, rows in _groups(whole)]
    if not found:
        return pd.DataFrame(columns=list(NAMES)).astype(TYPES)
    columns = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    n_a, n_b = (columns[name][:, None].astype(np.float64) for name in ("n_a", "n_b"))
    ends = improvement_ends(columns["improvement"][:, None], n_a, n_b)  # in one go: it iterates
    columns["improvement_low"], columns["improvement_high"] = ends
    a, b = columns.pop("a"), columns.pop("b")
    first = whole.drop_duplicates("_row").set_index("_row")
    for name in GROUP:
        columns[name] = first[name].loc[a].to_numpy()
    for side, rows in (("a", a), ("b", b)):
        for name in SIDE:
            columns[f"{name}_{side}"] = first[name].loc[rows].to_numpy()
    return pd.DataFrame({name: pd.Series(columns[name], dtype=TYPES[name]) for name in NAMES})


def distinct(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, each once, with `_row` and `_group` that number the leaderboard's; failed and diverged ones last."""
    once = by_outcome(runs).drop_duplicates("hash")
    by_row, by_group = (once.groupby(list(keys), sort=True, dropna=False).ngroup() for keys in (ROW, GROUP))
    return once.assign(_row=by_row, _group=by_group).drop(columns="_order")


def _groups(whole: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, Array]]:
    """Each group's runs, sorted by its rows in the order of the leaderboard, and its values (rows, seeds)."""
    complete = whole["last"].where(whole["status"] == "complete")
    mean = complete.groupby(whole["_row"]).transform("mean")
    ranked = whole[[*NEEDED]].assign(_value=complete, _mean=-mean)
    ranked = ranked.sort_values(["_group", "bound", "_mean", "_row"], kind="stable", na_position="last")
    for _, group in ranked.groupby("_group", sort=True):
        rows, seeds = pd.factorize(group["_row"])[0], pd.factorize(group["seed"])[0]
        values = np.full((rows.max() + 1, seeds.max() + 1), np.nan)
        values[rows[::-1], seeds[::-1]] = group["_value"].to_numpy()[::-1]  # of two records of one seed the first
        if len(values) > 1:
            yield group, values


def _of_group(group: pd.DataFrame, values: Array, predictions: bool) -> dict[str, npt.NDArray[Any]]:
    names = group["_row"].unique().astype(np.int64)
    bound = group["bound"].to_numpy()[~group["_row"].duplicated().to_numpy()]
    i, j = chosen_pairs(len(values))
    either = bound[i] | bound[j]
    step = resolution(group["task"].iloc[0], group["path"])
    n, mean, low, high, p = paired_rows(values[i] - values[j], step)
    adjusted = np.full(len(p), np.nan)
    adjusted[~either] = holm(p[~either], _family(values[~bound]))
    there = (~np.isnan(values)).sum(1)
    judged = np.where(either, p, adjusted)
    found: dict[str, npt.NDArray[Any]] = {
        "a": names[i], "b": names[j], "bound": either, "n_a": there[i], "n_b": there[j],
        "last_a": _means(values)[i], "last_b": _means(values)[j],
        "n": n, "difference": mean, "low": low, "high": high, "p": p, "p_holm": adjusted,
        "verdict": np.array([verdict(*pair) for pair in zip(mean, judged, strict=True)], dtype=object),
        "improvement": _improvement(values, i, j),
    }  # fmt: skip
    return {**found, **_images(group, names[i], names[j], predictions)}


def chosen_pairs(rows: int) -> tuple[Places, Places]:
    """Places of the pairs of `rows` rows in their order: all of them, or with the first and with the next alone."""
    if rows <= LIMIT:
        i, j = np.triu_indices(rows, 1)
        return i, j
    later = np.arange(1, rows)
    return np.concatenate([0 * later, later[1:] - 1]), np.concatenate([later, later[1:]])


def _family(values: Array) -> int:
    """How many pairs of rows (rows, seeds) have the two shared seeds that a test needs."""
    there = (~np.isnan(values)).astype(np.float64)  # float, so that the product is one of BLAS
    shared = there @ there.T
    return int((np.triu(shared, 1) > 1).sum())


def _means(values: Array) -> Array:
    there = (~np.isnan(values)).sum(1)
    means: Array = np.where(there > 0, np.nansum(values, axis=1) / np.maximum(there, 1), np.nan)
    return means


def _improvement(values: Array, i: Places, j: Places) -> Array:
    """Probability of improvement of each pair, a few pairs at a time to keep memory small."""
    some = max(1, 1_000_000 // values.shape[1] ** 2)
    parts = [slice(k, k + some) for k in range(0, len(i), some)]
    return np.concatenate([win_share(values[i[part]], values[j[part]]) for part in parts])


# -- predictions ------------------------------------------------------------------------------------------------------


def answers(rows: pd.DataFrame) -> dict[int, Flags]:
    """By seed, which test images the complete runs of one leaderboard row answer right; without those unknown."""
    complete = rows[rows["status"] == "complete"].drop_duplicates("seed")
    found = {int(seed): correct(path) for seed, path in zip(complete["seed"], complete["path"], strict=True)}
    return {seed: right for seed, right in found.items() if right is not None}


def over_images(a: dict[int, Flags], b: dict[int, Flags]) -> tuple[McNemar | None, dict[int, McNemar]]:
    """McNemar's test over all seeds that both have, and by seed. Raises `RunError` where they are of other images."""
    try:
        by_seed = {seed: mcnemar(a[seed], b[seed]) for seed in sorted(a.keys() & b.keys())}
        return (pooled_mcnemar(a, b) if by_seed else None), by_seed
    except ValueError as error:
        raise RunError(f"predictions beside the records cannot be compared: {error}") from error


def _images(group: pd.DataFrame, a: Places, b: Places, read: bool) -> dict[str, npt.NDArray[Any]]:
    only_a, only_b, p = (np.full(len(a), np.nan) for _ in range(3))
    by_seed = np.full(len(a), None, dtype=object)
    if read:
        known = {row: answers(rows) for row, rows in group.groupby("_row")}
        for k, (x, y) in enumerate(zip(a, b, strict=True)):
            pooled, seeds = over_images(known[x], known[y])
            if pooled:
                only_a[k], only_b[k], p[k] = pooled.only_a, pooled.only_b, pooled.p
                by_seed[k] = json.dumps({str(seed): test.p for seed, test in seeds.items()})
    return {"only_a": only_a, "only_b": only_b, "mcnemar_p": p, "mcnemar_seeds": by_seed}
