"""Mean, standard deviation and interval by group."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

Whole = npt.NDArray[np.integer[Any]]


def statistics(
    values: npt.NDArray[np.float64], number: Whole, groups: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean, sample standard deviation and half-width of the 95 % t interval by group: each (groups, columns).

    `values` is (runs, columns); `number` (runs,) is the group of each run, in ascending order. A NaN in `values` makes
    its group NaN, as does a group without runs; deviation and interval are NaN for a single run.
    """
    n = np.bincount(number, minlength=groups).astype(np.float64)[:, None]
    present = np.flatnonzero(n[:, 0])
    starts = np.searchsorted(number, present)

    def total(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        sums = np.full((groups, rows.shape[1]), np.nan)
        if len(present):
            sums[present] = np.add.reduceat(rows, starts, axis=0)
        return sums

    mean = total(values) / np.where(n > 0, n, np.nan)
    freedom = np.where(n > 1, n - 1, np.nan)
    sd = np.sqrt(total((values - mean[number]) ** 2) / freedom)
    return mean, sd, stdtrit(freedom, 0.975) * sd / np.sqrt(n)
