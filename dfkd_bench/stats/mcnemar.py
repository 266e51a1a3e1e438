"""Two methods' answers to the same test images: McNemar's test, for one pair of runs and for several seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

Flags: TypeAlias = npt.NDArray[np.bool_]
EXACT_BELOW = 25  # discordant images; from here on chi-squared is close enough


@dataclass(frozen=True)
class McNemar:
    """Whether two sets of students answer images of this kind equally well.

    `only_a`, `only_b`: answers that are right in a alone, in b alone, over all seeds. `statistic` is |only_a - only_b|
    for the exact test, chi-squared with one degree of freedom and a continuity correction otherwise; `how` says which.
    """

    only_a: int
    only_b: int
    statistic: float
    p: float
    how: Literal["exact", "chi-squared"]


def mcnemar(correct_a: Flags, correct_b: Flags) -> McNemar:
    """One run against one run; both (images,), true where the answer is right, the same images in the same order.

    Exact (binomial) below 25 images of which only one is right. Raises `ValueError` for different lengths.
    """
    return pooled_mcnemar({0: correct_a}, {0: correct_b})


def pooled_mcnemar(correct_a: Mapping[int, Flags], correct_b: Mapping[int, Flags]) -> McNemar:
    """Several runs against several, paired by seed; by seed (images,) each. Raises `ValueError` without a shared seed.

    All seeds answer the same images, so their answers are no independent sample: counted as such, ten copies of one
    student would be ten times the evidence. The image is the unit instead. Each has a score, the number of seeds in
    which a alone is right minus those in which b alone is, and under the null hypothesis a sign that is a coin's: the
    test of clustered pairs (Durkalski et al. 2003, clusters of equal size), with one seed McNemar's own, with copies
    of one seed the same as with one. It speaks of these trained students on other images, and not of what another
    seed would give: that is what `paired` is for.
    """
    seeds = sorted(correct_a.keys() & correct_b.keys())
    if not seeds:
        raise ValueError("no seed in common")
    sizes = {correct[s].size for correct in (correct_a, correct_b) for s in seeds}
    if len(sizes) > 1:
        raise ValueError(f"answers to different numbers of images: {sorted(sizes)}")
    a, b = (np.stack([correct[s] for s in seeds]).astype(np.int64) for correct in (correct_a, correct_b))
    score = (a - b).sum(0)
    only_a, only_b = int(((a - b) > 0).sum()), int(((a - b) < 0).sum())
    parts = np.abs(score[score != 0])
    apart = abs(int(score.sum()))
    if parts.size < EXACT_BELOW:
        return McNemar(only_a, only_b, float(apart), _sign_flip(parts, apart), "exact")
    step = int(np.gcd.reduce(parts))  # half the distance of two possible sums: 1 with one seed
    statistic = max(apart - step, 0) ** 2 / float((parts**2).sum())
    return McNemar(only_a, only_b, statistic, float(chdtrc(1, statistic)), "chi-squared")


def _sign_flip(parts: npt.NDArray[np.int64], apart: int) -> float:
    """Probability that the sum of `parts` (k,) with random signs is at least `apart` from zero."""
    chances = np.ones(1)  # of the sums -total, ..., total
    for part in parts.tolist():
        wider = np.zeros(chances.size + 2 * part)
        wider[: chances.size] += chances / 2
        wider[2 * part :] += chances / 2
        chances = wider
    sums = np.abs(np.arange(chances.size) - chances.size // 2)
    return float(min(chances[sums >= apart].sum(), 1.0))
