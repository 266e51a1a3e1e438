"""Differences over shared seeds: by hand, against scipy, and how often their verdict is wrong or right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from dfkd_bench.stats.intervals import Array
from dfkd_bench.stats.paired import holm, paired, paired_rows, rounding_spread, verdict

STEP = 100 / 597  # of accuracies on 597 test images
SIMULATIONS = 20_000


def test_a_difference_by_hand() -> None:
    # 1, 2, 3 over seeds 0, 1, 2: mean 2, sd 1, t = 2 / (1 / sqrt(3)) = 3.464102; t(0.975, 2) = 4.302653
    found = paired({0: 90.0, 1: 92.0, 2: 94.0, 5: 1.0}, {2: 91.0, 1: 90.0, 0: 89.0, 7: 99.0})
    assert (found.n, found.seeds, found.how) == (3, (0, 1, 2), "t")
    assert found.mean == pytest.approx(2.0)
    assert found.low == pytest.approx(2 - 4.302653 / 3**0.5, abs=1e-6)
    assert found.high == pytest.approx(2 + 4.302653 / 3**0.5, abs=1e-6)
    assert found.p == pytest.approx(0.0741799, abs=1e-6)  # two-sided, two degrees of freedom
    assert found.verdict == "not distinguishable"


@pytest.mark.parametrize("n", [2, 3, 8])
def test_p_and_interval_are_those_of_scipy(n: int) -> None:
    rng = np.random.default_rng(n)
    a, b = rng.normal(91, 1, n), rng.normal(90, 1, n)
    found = paired(dict(enumerate(a)), dict(enumerate(b)))
    expected = stats.ttest_rel(a, b)
    ends = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.low, found.high) == pytest.approx((ends.low, ends.high))


def test_verdicts_and_their_direction() -> None:
    low, high = {s: 90 + s / 10 for s in range(4)}, {s: 92 + s / 9 for s in range(4)}
    assert paired(high, low).verdict == "better"
    assert paired(low, high).verdict == "worse"
    assert paired(low, low).verdict == "not distinguishable"
    assert paired(low, low).p == 1.0
    assert verdict(1.0, float("nan")) == "not distinguishable"


def test_fewer_than_two_shared_seeds_say_nothing() -> None:
    one, none = paired({0: 99.0, 1: 98.0}, {0: 10.0, 2: 11.0}), paired({0: 99.0}, {1: 10.0})
    assert (one.n, one.mean, one.verdict, one.how) == (1, 89.0, "not distinguishable", "none")
    assert (none.n, none.verdict) == (0, "not distinguishable")
    assert all(math.isnan(x) for x in (one.low, one.high, one.p, none.mean, none.p))


def test_a_seed_without_a_number_is_not_shared() -> None:
    found = paired({0: 90.0, 1: float("nan"), 2: 92.0}, {0: 89.0, 1: 80.0, 2: 90.0})
    assert (found.seeds, found.mean) == ((0, 2), 1.5)


def test_equal_differences_of_one_step_are_no_certainty() -> None:
    # the spread of rounding: 0.167504 * sqrt(2 / 12) = 0.068383; half 4.302653 * 0.068383 / sqrt(3) = 0.169874
    b = dict.fromkeys(range(3), 590 * STEP)
    one, two = (dict.fromkeys(range(3), (590 + k) * STEP) for k in (1, 2))
    assert rounding_spread(STEP) == pytest.approx(0.0683833, abs=1e-6)
    found = paired(one, b, STEP)
    assert found.verdict == "not distinguishable"
    assert (found.low, found.high) == pytest.approx((STEP - 0.169874, STEP + 0.169874), abs=1e-5)
    assert found.p == pytest.approx(0.051317, abs=1e-6)
    assert paired(one, b).verdict == "better"  # without a resolution the numbers are taken as exact
    assert paired(two, b, STEP).verdict == "better"
    wide = paired({0: 90.0, 1: 93.0}, {0: 89.0, 1: 90.0}, STEP)
    assert wide == paired({0: 90.0, 1: 93.0}, {0: 89.0, 1: 90.0})  # a spread above it stands


def test_many_pairs_at_once_are_the_same_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    d = rng.normal(0.3, 1, (50, 6))
    d[rng.random(d.shape) < 0.4] = np.nan
    d[0], d[1, 1:] = np.nan, np.nan
    found = paired_rows(d, STEP)
    for k, row in enumerate(d):
        one = paired(dict(enumerate(row)), dict.fromkeys(range(6), 0.0), STEP)
        values = (one.n, one.mean, one.low, one.high, one.p)
        assert tuple(column[k] for column in found) == pytest.approx(values, nan_ok=True)


def test_holm_by_hand_and_as_statsmodels_has_it() -> None:
    # 0.01 * 3 = 0.03; 0.03 * 2 = 0.06; 0.04 * 1 = 0.04, not below the one before: 0.06
    nothing = float("nan")
    assert holm([0.01, nothing, 0.04, 0.03]).tolist() == pytest.approx([0.03, nothing, 0.06, 0.06], nan_ok=True)
    assert holm([0.01, 0.04, 0.03], family=6).tolist() == pytest.approx([0.06, 0.16, 0.15])  # 6, 5, 4 times
    assert holm([0.6, 0.7]).tolist() == [1.0, 1.0]
    assert holm([]).size == 0
    p = np.random.default_rng(1).random(20) ** 3
    assert holm(p) == pytest.approx(multipletests(p, method="holm")[1])
    with pytest.raises(ValueError, match="family of 1"):
        holm([0.1, 0.2], family=1)


# -- how often the verdict is wrong -----------------------------------------------------------------------------------


def differences(rng: np.random.Generator, n: int, sd: float, shape: str, right: float) -> Array:
    """Of two methods that answer `right` images right, `sd` more or less by seed, rounded to whole test images."""
    noise = rng.normal(size=(2, SIMULATIONS, n)) if shape == "normal" else -rng.exponential(size=(2, SIMULATIONS, n))
    a, b = np.round(right + sd * noise[0]), np.round(right + sd * noise[1])
    found: Array = (a - b) * STEP
    return found


@pytest.mark.parametrize(("shape", "right"), [("normal", 590.0), ("normal", 590.5), ("skewed", 590.3)])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_equal_methods_are_told_apart_in_at_most_six_of_a_hundred(n: int, shape: str, right: float) -> None:
    for sd in (0.05, 0.2, 0.5, 1.0, 3.0, 20.0):  # at 590.5 the smallest spread is a coin between two images
        found = paired_rows(differences(np.random.default_rng(n), n, sd, shape, right), STEP)
        assert np.mean(found.p < 0.05) <= 0.06, sd
