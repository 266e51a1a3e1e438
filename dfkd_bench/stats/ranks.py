"""Compare methods by order only: probability of improvement, mean ranks, critical difference."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

from dfkd_bench.stats.intervals import CONFIDENCE, Array, How, Interval, mean_interval

LEVEL = 0.05  # of the critical difference


def probability_of_improvement(
    a: Mapping[Any, Sequence[float] | Array], b: Mapping[Any, Sequence[float] | Array]
) -> Interval:
    """Probability that a run of `a` is better than a run of `b` on the same task (a tie counts half), mean over tasks.

    `a`, `b`: task -> values of the runs, higher is better. Per task it is Mann and Whitney's U divided by the number of
    pairs. A task missing in one of them, or a NaN, makes it NaN. The interval (how `score`) inverts the score test with
    Newcombe's variance (2006, method 5); see `improvement_ends`.
    """
    missing = Interval(float("nan"), float("nan"), float("nan"), sum(map(len, (*a.values(), *b.values()))), "none")
    if not a or a.keys() != b.keys():
        return missing
    chances, m, n = np.empty(len(a)), np.empty(len(a)), np.empty(len(a))
    for k, task in enumerate(a):
        x, y = np.asarray(a[task], dtype=np.float64), np.asarray(b[task], dtype=np.float64)
        if not (x.size and y.size) or np.isnan(x).any() or np.isnan(y).any():
            return missing
        chances[k], m[k], n[k] = win_share(x[None], y[None])[0], x.size, y.size
    low, high = improvement_ends(chances[None], m[None], n[None])
    how: How = "none" if np.isnan(low[0]) else "score"
    return Interval(float(chances.mean()), float(low[0]), float(high[0]), missing.n, how)


def win_share(x: Array, y: Array) -> Array:
    """Mann and Whitney's U divided by the number of pairs, per row of `x` (rows, m) and `y` (rows, n): (rows,).

    NaN marks a missing run; a row without runs gives NaN.
    """
    above = (
        np.greater(x[:, :, None], y[:, None, :]).sum((1, 2)) + np.equal(x[:, :, None], y[:, None, :]).sum((1, 2)) / 2
    )
    with np.errstate(invalid="ignore"):
        chance: Array = above / ((~np.isnan(x)).sum(1) * (~np.isnan(y)).sum(1))
    return chance


def improvement_ends(chances: Array, m: Array, n: Array) -> tuple[Array, Array]:
    """Ends of the interval of the mean over tasks of U / (m n); all (rows, tasks) -> (rows,), (rows,).

    A score interval: an end is the probability p for which the observed value is Student's quantile times the standard
    deviation *at p* away from p. A bootstrap would have width 0 if all runs of one side are better; it covers only 39 %
    with three runs each, two standard deviations apart. For several tasks the variance is computed at their mean, which
    by concavity is never too small. NaN if a task has fewer than three runs in total.
    """
    chance = chances.mean(1)
    freedom = np.where(((m >= 1) & (n >= 1) & (m + n > 2)).all(1), (m + n - 2).sum(1), np.nan)
    wide = stdtrit(freedom, (1 + CONFIDENCE) / 2)
    more = (m + n) / 2 - 1

    def outside(at: Array) -> npt.NDArray[np.bool_]:
        c = at[:, None]
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = c * (1 - c) * (1 + more * ((1 - c) / (2 - c) + c / (1 + c))) / (m * n)
        far: npt.NDArray[np.bool_] = np.abs(chance - at) > wide * np.sqrt(spread.sum(1)) / m.shape[1]
        return far

    ends = []
    for end in (0.0, 1.0):
        out, inside = np.full_like(chance, end), chance.copy()
        for _ in range(40):  # bisection, to 1e-12
            middle = (out + inside) / 2
            far = outside(middle)
            out, inside = np.where(far, middle, out), np.where(far, inside, middle)
        ends.append(np.where(np.isnan(wide), np.nan, inside))
    return ends[0], ends[1]


@dataclass(frozen=True)
class Ranks:
    """Mean ranks of competitors over blocks; 1 is best. Arrays are in the order of `competitors`.

    `low`, `high`: 95 % interval of the mean rank, of kind `how`. `friedman_p`: p of the hypothesis that all are equal.
    `cd`: mean ranks that differ by more are different at 0.05 over all pairs (Nemenyi). `pairs`: the p-values,
    competitors x competitors, 1 on the diagonal. Competitors without a rank are NaN everywhere.
    """

    competitors: tuple[Any, ...]
    mean: Array
    low: Array
    high: Array
    n_blocks: int
    friedman_p: float
    cd: float
    pairs: pd.DataFrame
    how: How


def ranks(table: pd.DataFrame) -> Ranks:
    """Ranks within each row of `table` (blocks of task and seed x competitors); higher scores are better.

    Ties get the mean of their ranks. A competitor with a missing score is left out of all blocks, so that all blocks
    rank the same competitors; its numbers are NaN. With fewer than two blocks or three competitors `friedman_p`, `cd`
    and `pairs` are NaN. The interval is that of `mean_interval`, clipped to [1, last rank]. Source: Demsar 2006.
    """
    names = tuple(table.columns)
    scores = table.to_numpy(dtype=np.float64)
    part = np.flatnonzero(~np.isnan(scores).any(0)) if len(scores) else np.arange(0)
    n, k = len(scores), part.size
    mean, low, high = (np.full(len(names), np.nan) for _ in range(3))
    p_values = np.full((len(names),) * 2, np.nan)
    friedman_p = cd = float("nan")
    how: How = "none"
    if k:
        ranked = pd.DataFrame(-scores[:, part]).rank(axis=1).to_numpy()
        intervals = [mean_interval(column) for column in ranked.T]
        how = intervals[0].how
        mean[part] = [x.mean for x in intervals]
        low[part] = np.maximum([x.low for x in intervals], 1)  # NaN stays NaN
        high[part] = np.minimum([x.high for x in intervals], k)
        if n > 1 and k > 2:
            friedman_p, cd = _friedman(ranked), critical_difference(k, n)
            p_values[np.ix_(part, part)] = _nemenyi(ranked)
    frame = pd.DataFrame(p_values, index=table.columns, columns=table.columns)
    return Ranks(names, mean, low, high, n, friedman_p, cd, frame, how)


def critical_difference(competitors: int, blocks: int) -> float:
    """Nemenyi's critical difference at 0.05: q / sqrt(2) * sqrt(k (k + 1) / (6 n)), q of the studentized range.

    Source: Demsar 2006.
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - LEVEL, competitors, np.inf))
    return q / math.sqrt(2) * math.sqrt(competitors * (competitors + 1) / (6 * blocks))


def _friedman(ranked: Array) -> float:
    """p of Friedman's test of ranks (blocks, competitors); 1 if all competitors are tied in every block."""
    from scipy.stats import friedmanchisquare

    return float(friedmanchisquare(*ranked.T).pvalue) if np.ptp(ranked, axis=1).any() else 1.0


def _nemenyi(ranked: Array) -> Array:
    """Nemenyi's p-values (competitors, competitors) of ranks (blocks, competitors)."""
    from scikit_posthocs import posthoc_nemenyi_friedman  # takes over a second to import

    p_values: Array = posthoc_nemenyi_friedman(ranked).to_numpy(dtype=np.float64)
    return p_values
