"""Two methods' answers to the same test images: McNemar's test, for one pair of runs and for several seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc

Flags: TypeAlias = npt.NDArray[np.bool_]
EXACT_BELOW = 25  # discordant images; from this number on chi-squared is accurate enough


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of whether two sets of students are equally accurate.

    `only_a`, `only_b`: answers that are correct only in a, or only in b, over all seeds. `statistic` is
    |only_a - only_b| if `how` is `exact`, else chi-squared with one degree of freedom and a continuity correction.
    """

    only_a: int
    only_b: int
    statistic: float
    p: float
    how: Literal["exact", "chi-squared"]


def mcnemar(correct_a: Flags, correct_b: Flags) -> McNemar:
    """One run against another; both (images,), True where the answer is correct, same images in the same order.

    Exact (binomial) below 25 discordant images. Raises `ValueError` for different lengths.
    """
    return pooled_mcnemar({0: correct_a}, {0: correct_b})


def pooled_mcnemar(correct_a: Mapping[int, Flags], correct_b: Mapping[int, Flags]) -> McNemar:
    """Several runs against several, paired by seed; seed -> (images,) for each side.

    All seeds answer the same images, so the answers are not independent: treated as independent, ten copies of one
    student would count as ten times the evidence. So the image is the unit. Its score is the number of seeds in which
    only a is correct minus those in which only b is; under the null hypothesis both signs are equally likely. This is
    the test for clustered pairs (Durkalski et al. 2003, equal cluster sizes); with one seed, or copies of one seed, it
    is McNemar's test. It is about these trained students on other images; for other seeds use `paired`. Raises
    `ValueError` without a common seed or for different lengths.
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
    scores = np.abs(score[score != 0])
    difference = abs(int(score.sum()))
    if scores.size < EXACT_BELOW:
        return McNemar(only_a, only_b, float(difference), _sign_flip(scores, difference), "exact")
    step = int(np.gcd.reduce(scores))  # half the distance of two possible sums: 1 with one seed
    statistic = max(difference - step, 0) ** 2 / float((scores**2).sum())
    return McNemar(only_a, only_b, statistic, float(chdtrc(1, statistic)), "chi-squared")


def _sign_flip(scores: npt.NDArray[np.int64], difference: int) -> float:
    """Probability that the sum of `scores` (k,) with random signs has an absolute value of at least `difference`."""
    probabilities = np.ones(1)  # of the sums -total, ..., total
    for score in scores.tolist():
        wider = np.zeros(probabilities.size + 2 * score)
        wider[: probabilities.size] += probabilities / 2
        wider[2 * score :] += probabilities / 2
        probabilities = wider
    sums = np.abs(np.arange(probabilities.size) - probabilities.size // 2)
    return float(min(probabilities[sums >= difference].sum(), 1.0))
