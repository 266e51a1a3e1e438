"""Performance profiles: the share of a method's runs above each score, over several tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dfkd_bench.stats.intervals import SEED, Array, redrawn

COLUMNS = ("competitor", "threshold", "share", "low", "high", "n")


def performance_profile(
    scores: Mapping[Any, Mapping[Any, Sequence[float] | Array]],
    thresholds: Sequence[float] | Array,
    confidence: float = 0.95,
    rng: np.random.Generator | None = None,
    resamples: int = 2000,
) -> pd.DataFrame:
    """The share of runs whose score is above each threshold, each task weighing the same (Agarwal et al. 2021).

    `scores` by competitor and task are the values of its runs, on a scale that all tasks share (such as the share of
    the teacher's accuracy). One row per competitor and threshold: `share` in [0, 1], `low` and `high` of a pointwise
    band of percentiles of the stratified bootstrap (see `stratified_bootstrap`), `n` runs in all. The band has no width
    where all runs of every task are on one side, and is NaN where a task has a single run. A competitor that lacks a
    task that another has, or has a NaN, is NaN everywhere.
    """
    levels = np.asarray(thresholds, dtype=np.float64)
    tasks = list(dict.fromkeys(task for by_task in scores.values() for task in by_task))
    ends = ((1 - confidence) / 2, (1 + confidence) / 2)
    found = []
    for name, by_task in scores.items():
        parts = [np.asarray(by_task.get(task, ()), dtype=np.float64) for task in tasks]
        share, low, high = (np.full(levels.size, np.nan) for _ in range(3))
        if parts and all(part.size and not np.isnan(part).any() for part in parts):
            share = _shares([part[None] for part in parts], levels)[0]
            if min(part.size for part in parts) > 1:
                drawn = redrawn(parts, resamples, np.random.default_rng(SEED) if rng is None else rng)
                low, high = np.quantile(_shares(drawn, levels), ends, axis=0)
        n = sum(part.size for part in parts)
        columns = ([name] * levels.size, levels, share, low, high, n)
        found.append(pd.DataFrame(dict(zip(COLUMNS, columns, strict=True))))
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=list(COLUMNS))


def _shares(parts: Sequence[Array], levels: Array) -> Array:
    """Arrays (samples, runs of a task) -> (samples, levels)."""
    total = np.zeros((len(parts[0]), levels.size))
    for part in parts:
        for k, level in enumerate(levels):
            total[:, k] += (part > level).mean(1)
    return total / len(parts)
