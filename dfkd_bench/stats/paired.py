"""Two methods on the same seeds: differences, their interval, a verdict; Holm's correction for several tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from dfkd_bench.stats.intervals import CONFIDENCE, Array, How

Verdict = Literal["better", "worse", "not distinguishable"]
LEVEL = 0.05


@dataclass(frozen=True)
class Paired:
    """a minus b over the common seeds; interval and p are NaN with fewer than two."""

    n: int
    seeds: tuple[int, ...]
    mean: float
    low: float
    high: float
    p: float
    how: How
    verdict: Verdict  # of a relative to b


class Differences(NamedTuple):
    """Per row of differences: their number, mean, interval of the mean, p of the two-sided t-test."""

    n: Array
    mean: Array
    low: Array
    high: Array
    p: Array


def rounding_spread(resolution: float) -> float:
    """Standard deviation of a difference of two numbers due to rounding alone (each uniform within one step)."""
    return resolution * float(np.sqrt(2 / 12))


def paired(a: Mapping[int, float], b: Mapping[int, float], resolution: float = 0.0) -> Paired:
    """Differences a - b by seed, with the t interval of their mean and the t-test that it is zero.

    `resolution` is the step of both: accuracies are multiples of 100 / test images. The standard deviation is at least
    that of rounding, because three equal differences of one step prove nothing; 0 means exact numbers. A seed with a
    NaN in a or b is left out.
    """
    seeds = tuple(sorted(s for s in a.keys() & b.keys() if not np.isnan(a[s] - b[s])))
    row = np.array([[a[s] - b[s] for s in seeds]])
    result = paired_rows(row, resolution)
    mean, low, high, p = (float(x[0]) for x in result[1:])
    how: How = "t" if len(seeds) > 1 else "none"
    return Paired(len(seeds), seeds, mean, low, high, p, how, verdict(mean, p))


def paired_rows(d: Array, resolution: float = 0.0) -> Differences:
    """`paired` for many pairs at once: `d` is (pairs, seeds) with NaN where a seed is not common to both."""
    present = ~np.isnan(d)
    n = present.sum(1).astype(np.float64)
    filled = np.where(present, d, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(1) / n
        sd = np.sqrt((np.where(present, d - mean[:, None], 0.0) ** 2).sum(1) / (n - 1))
        error = np.maximum(sd, rounding_spread(resolution)) / np.sqrt(n)
        freedom = np.where(n > 1, n - 1, np.nan)
        half = stdtrit(freedom, (1 + CONFIDENCE) / 2) * error
        t = np.where(mean == 0, 0.0, np.abs(mean) / error)  # avoids 0 / 0 for equal numbers
        p = 2 * stdtr(freedom, -t)
    return Differences(n, mean, mean - half, mean + half, p)


def verdict(mean: float, p: float) -> Verdict:
    """The verdict as text; NaN is not distinguishable."""
    if not p < LEVEL:
        return "not distinguishable"
    return "better" if mean > 0 else "worse"


def holm(p_values: Sequence[float] | Array, family: int | None = None) -> Array:
    """p-values adjusted by Holm's step-down procedure (1979), which controls the family-wise error rate.

    NaN stays NaN and is not counted. `family` is the number of all possible comparisons, if the given ones were
    selected by their outcome; the others count as p = 1. Raises `ValueError` if it is smaller than the number given.
    """
    p = np.asarray(p_values, dtype=np.float64)
    known = np.flatnonzero(~np.isnan(p))
    size = known.size if family is None else family
    if size < known.size:
        raise ValueError(f"a family of {size} cannot contain {known.size} p-values")
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(p.shape, np.nan)
    # not statsmodels' `multipletests`: its import takes 0.6 s (`compare` takes 0.7), each call 20 ms of `gc.collect`
    adjusted[order] = np.minimum(np.maximum.accumulate(p[order] * (size - np.arange(order.size))), 1.0)
    return adjusted
