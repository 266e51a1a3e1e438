"""McNemar's test: by hand, against scipy, and on seeds that share their images."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dfkd_bench.stats.mcnemar import Flags, mcnemar, pooled_mcnemar


def answers(both: int, only_a: int, only_b: int, neither: int = 2) -> tuple[Flags, Flags]:
    """Right answers of a and b, so many images of each kind."""
    a = np.repeat([True, True, False, False], [both, only_a, only_b, neither])
    b = np.repeat([True, False, True, False], [both, only_a, only_b, neither])
    return a, b


def test_few_discordant_images_by_hand() -> None:
    # 5 against 1: the chance of 0 or 1 heads in 6, twice: 2 * (1 + 6) / 64
    found = mcnemar(*answers(500, 5, 1))
    assert (found.only_a, found.only_b, found.statistic, found.how) == (5, 1, 4.0, "exact")
    assert found.p == pytest.approx(14 / 64)


def test_many_discordant_images_by_hand() -> None:
    # (|30 - 10| - 1)^2 / 40 = 9.025
    found = mcnemar(*answers(500, 30, 10))
    assert (found.only_a, found.only_b, found.how) == (30, 10, "chi-squared")
    assert found.statistic == pytest.approx(9.025)
    assert found.p == pytest.approx(0.0026632, abs=1e-6)
    assert found.p == pytest.approx(stats.chi2.sf(9.025, 1))
    assert mcnemar(*answers(500, 13, 12)).p == 1.0


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (0, 7), (12, 12), (3, 20), (24, 0)])
def test_exact_p_is_the_binomial_s(b: int, c: int) -> None:
    found = mcnemar(*answers(50, b, c))
    assert found.how == "exact"
    assert found.p == pytest.approx(stats.binomtest(b, b + c).pvalue if b + c else 1.0)


def test_several_seeds_by_hand() -> None:
    # scores over two seeds: 2, 1, -1, 1 and zeros; sums +-2 +-1 +-1 +-1 reach 3 from zero in 8 of 16 ways
    a = {0: np.array([1, 1, 0, 0, 1, 1], bool), 1: np.array([1, 0, 0, 1, 1, 0], bool)}
    b = {0: np.array([0, 0, 1, 0, 1, 0], bool), 1: np.array([0, 0, 0, 0, 1, 1], bool), 2: np.array([1] * 6, bool)}
    found = pooled_mcnemar(a, b)
    assert (found.only_a, found.only_b, found.statistic) == (5, 2, 3.0)
    assert found.p == pytest.approx(0.5)


@pytest.mark.parametrize(("b", "c"), [(9, 2), (40, 18)])
def test_copies_of_one_student_are_no_more_evidence(b: int, c: int) -> None:
    one = answers(100, b, c)
    copies = pooled_mcnemar(dict.fromkeys(range(5), one[0]), dict.fromkeys(range(5), one[1]))
    assert copies.p == pytest.approx(mcnemar(*one).p)
    assert (copies.only_a, copies.only_b) == (5 * b, 5 * c)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="numbers of images"):
        mcnemar(np.ones(3, bool), np.ones(4, bool))
    with pytest.raises(ValueError, match="no seed"):
        pooled_mcnemar({0: np.ones(3, bool)}, {1: np.ones(3, bool)})


def test_equally_good_students_on_shared_images_are_told_apart_in_at_most_six_of_a_hundred() -> None:
    # each image is hard for a, for b, or for neither, alike under all three seeds: the answers are not independent
    rng = np.random.default_rng(0)
    pooled, counted = 0, 0
    for _ in range(1000):
        lean = rng.normal(0, 1.5, 300)
        a, b = ({s: rng.normal(1 + sign * lean, 1) > 0 for s in range(3)} for sign in (1, -1))
        pooled += pooled_mcnemar(a, b).p < 0.05
        counted += mcnemar(np.concatenate([*a.values()]), np.concatenate([*b.values()])).p < 0.05
    assert 0.02 <= pooled / 1000 <= 0.06
    assert counted / 1000 > 0.10  # every answer as its own piece of evidence
