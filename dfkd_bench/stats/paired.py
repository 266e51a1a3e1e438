"""Two methods on the same seeds: differences, their interval, a verdict; Holm's correction for several verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import stdtr, stdtrit

from dfkd_bench.stats.intervals import Array, How

Verdict = Literal["better", "worse", "not distinguishable"]
LEVEL = 0.05


@dataclass(frozen=True)
class Paired:
    """a minus b over the seeds that both have; the interval and p are NaN below two of them."""

    n: int
    seeds: tuple[int, ...]
    mean: float
    low: float
    high: float
    p: float
    how: How
    verdict: Verdict  # of a relative to b


class Differences(NamedTuple):
    """One element for each row of differences: how many, their mean, its interval, p of the two-sided t-test."""

    n: Array
    mean: Array
    low: Array
    high: Array
    p: Array


def rounding_spread(resolution: float) -> float:
    """Standard deviation that rounding alone gives a difference of two numbers, each uniform within one step."""
    return resolution * float(np.sqrt(2 / 12))


def paired(a: Mapping[int, float], b: Mapping[int, float], resolution: float = 0.0, confidence: float = 0.95) -> Paired:
    """Differences a - b by seed, with the t interval of their mean and the t-test that it is zero.

    `resolution` is the step of both: accuracies are multiples of 100 / test images. Their spread is never taken for
    smaller than that of rounding, so that three equal differences of one step are not a certainty; 0 takes the numbers
    as exact. A seed whose value is NaN in a or b is not shared.
    """
    seeds = tuple(sorted(s for s in a.keys() & b.keys() if not np.isnan(a[s] - b[s])))
    row = np.array([[a[s] - b[s] for s in seeds]])
    found = paired_rows(row, resolution, confidence)
    mean, low, high, p = (float(x[0]) for x in found[1:])
    how: How = "t" if len(seeds) > 1 else "none"
    return Paired(len(seeds), seeds, mean, low, high, p, how, verdict(mean, p, 1 - confidence))


def paired_rows(d: Array, resolution: float = 0.0, confidence: float = 0.95) -> Differences:
    """`paired` for many pairs at once: `d` is (pairs, seeds) with NaN where a seed is not shared."""
    there = ~np.isnan(d)
    n = there.sum(1).astype(np.float64)
    filled = np.where(there, d, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = filled.sum(1) / n
        sd = np.sqrt((np.where(there, d - mean[:, None], 0.0) ** 2).sum(1) / (n - 1))
        error = np.maximum(sd, rounding_spread(resolution)) / np.sqrt(n)
        freedom = np.where(n > 1, n - 1, np.nan)
        half = stdtrit(freedom, (1 + confidence) / 2) * error
        t = np.where(mean == 0, 0.0, np.abs(mean) / error)  # 0 / 0: equal numbers do not differ
        p = 2 * stdtr(freedom, -t)
    return Differences(n, mean, mean - half, mean + half, p)


def verdict(mean: float, p: float, level: float = LEVEL) -> Verdict:
    """In words; NaN is not distinguishable."""
    if not p < level:
        return "not distinguishable"
    return "better" if mean > 0 else "worse"


def holm(p_values: Sequence[float] | Array, family: int | None = None) -> Array:
    """p-values adjusted so that among all of them a false verdict has the probability of one: step-down (Holm 1979).

    NaN stays NaN and does not count. `family` is the number of comparisons that could have been made, where only some
    were chosen by their outcome: the others stand for 1, which keeps the guarantee. Raises `ValueError` where it is
    smaller than the number given.
    """
    p = np.asarray(p_values, dtype=np.float64)
    known = ~np.isnan(p)
    given = int(known.sum())
    size = given if family is None else family
    if size < given:
        raise ValueError(f"a family of {size} cannot hold {given} p-values")
    adjusted = np.full(p.shape, np.nan)
    if given:
        from statsmodels.stats.multitest import multipletests  # a second to import

        every = np.concatenate([p[known], np.ones(size - given)])
        adjusted[known] = multipletests(every, method="holm")[1][:given]
    return adjusted
