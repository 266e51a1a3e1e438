"""Means and their intervals: by hand, against scipy, and by how often they hold the truth."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

from dfkd_bench.stats.intervals import (
    Array,
    interquartile_mean,
    mean_interval,
    mean_of_means,
    stratified_bootstrap,
)
from dfkd_bench.stats.paired import paired_rows

SIMULATIONS = 2000
STEP = 100 / 597


# -- one task ---------------------------------------------------------------------------------------------------------


def test_few_runs_by_hand() -> None:
    # 94, 96, 98: mean 96, sd sqrt((4 + 0 + 4) / 2) = 2, t(0.975, 2) = 4.302653, half 4.302653 * 2 / sqrt(3)
    found = mean_interval([94.0, 96.0, 98.0])
    assert (found.mean, found.n, found.how) == (96.0, 3, "t")
    assert found.low == pytest.approx(96 - 4.968275, abs=1e-6)
    assert found.high == pytest.approx(96 + 4.968275, abs=1e-6)


@pytest.mark.parametrize("n", [2, 5, 29])
def test_below_thirty_it_is_student_s(n: int) -> None:
    values = np.random.default_rng(n).normal(90, 1, n)
    found = mean_interval(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.how == "t"
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_from_thirty_on_it_is_the_bootstrap_of_scipy_and_a_pure_function_of_the_data() -> None:
    values = np.random.default_rng(3).exponential(size=30)
    found = mean_interval(values)
    # t(0.975, 29) = 2.045230, times sqrt(30 / 29) = 2.080193, which the normal distribution has at 0.981245
    expected = stats.bootstrap(
        (values,), np.mean, confidence_level=2 * 0.981245 - 1, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert found.how == "bootstrap"
    assert (found.low, found.high) == (pytest.approx(expected.low, rel=1e-4), pytest.approx(expected.high, rel=1e-4))
    assert found.high - found.mean > found.mean - found.low  # skewed as the data are
    np.random.default_rng().normal(size=5)
    assert mean_interval(values) == found


def test_what_is_missing_stays_missing() -> None:
    for values, n in (([], 0), ([1.0, float("nan"), 3.0], 3)):
        found = mean_interval(values)
        assert (math.isnan(found.mean), math.isnan(found.low), found.n, found.how) == (True, True, n, "none")
    one = mean_interval([97.0])
    assert (one.mean, one.n, one.how) == (97.0, 1, "none")
    assert math.isnan(one.low)
    assert math.isnan(one.high)


@pytest.mark.parametrize("n", [3, 30])
def test_equal_values_have_no_width_and_raise_no_warning(n: int, recwarn: Any) -> None:
    found = mean_interval([91.5] * n)
    assert (found.mean, found.low, found.high) == (91.5, 91.5, 91.5)
    assert not list(recwarn)


# -- how often the interval holds the truth ---------------------------------------------------------------------------


def skewed(rng: np.random.Generator, shape: tuple[int, ...], spread: float = 0.5) -> Array:
    """Accuracies in % near a ceiling: 100 minus a lognormal error of median 1, to whole test images out of 597."""
    error = np.exp(spread * rng.normal(size=shape))
    return 100 - np.round(error / STEP) * STEP


def coverage_t(values: Array, truth: float) -> float:
    """Share of the rows whose t interval holds `truth`; `assess` is the same interval, row by row."""
    found = paired_rows(values)
    return float(np.mean((found.low <= truth) & (truth <= found.high)))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_interval_of_normal_runs_covers_what_it_says(n: int) -> None:
    rng = np.random.default_rng(n)
    values = rng.normal(95, 0.7, (SIMULATIONS, n))
    assert 0.93 <= coverage_t(values, 95) <= 0.97
    one, row = mean_interval(values[0]), paired_rows(values[:1])
    assert (one.low, one.high) == pytest.approx((row.low[0], row.high[0]))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_interval_of_skewed_and_rounded_runs_covers_a_little_less(n: int) -> None:
    truth = float(skewed(np.random.default_rng(0), (1_000_000,)).mean())
    found = coverage_t(skewed(np.random.default_rng(n), (SIMULATIONS, n)), truth)
    assert 0.90 <= found <= 0.96


# -- several tasks ----------------------------------------------------------------------------------------------------


def test_mean_of_means_and_interquartile_mean_by_hand() -> None:
    parts = [np.array([1.0, 3.0]), np.array([4.0, 6.0, 8.0])]
    assert mean_of_means(parts) == 4.0  # (2 + 6) / 2; over all runs it would be 4.4
    assert interquartile_mean(parts) == pytest.approx(13 / 3)  # 1, 3, 4, 6, 8 without 1 and 8
    pooled = np.random.default_rng(0).normal(size=23)
    assert interquartile_mean([pooled[:5], pooled[5:]]) == pytest.approx(stats.trim_mean(pooled, 0.25))


def test_few_runs_of_several_tasks_by_hand() -> None:
    # variances of the means 2 / 2 = 1 and 4 / 3; error sqrt(1 + 4/3) / 2 = 0.763763;
    # Satterthwaite: (7/3)^2 / (1 / 1 + (4/3)^2 / 2) = 2.882353 degrees, t(0.975, 2.882353) = 3.257207
    found = stratified_bootstrap({"x": [1.0, 3.0], "y": [4.0, 6.0, 8.0]})
    assert (found.mean, found.n, found.how) == (4.0, 5, "t")
    assert found.high - 4 == pytest.approx(4 - found.low)
    assert found.high == pytest.approx(4 + 3.257207 * 0.763763, abs=1e-4)


def test_resampling_tends_to_the_same_interval() -> None:
    # of two values one is drawn: 0 or 2, deviation 1, as sd / sqrt(2) of the two is; drawing two would give 0.707
    drawn = stratified_bootstrap({"x": [0.0, 2.0]}, lambda parts: mean_of_means(parts))
    assert drawn.high == pytest.approx(1 + 12.706205, abs=0.1)
    strata = {"x": [1.0, 3.0], "y": [4.0, 6.0, 8.0]}
    drawn, exact = stratified_bootstrap(strata, lambda parts: mean_of_means(parts)), stratified_bootstrap(strata)
    assert drawn != exact
    assert (drawn.low, drawn.high) == pytest.approx((exact.low, exact.high), abs=0.1)


def test_one_task_is_the_interval_of_its_mean() -> None:
    values = [94.0, 96.0, 98.0]
    several, one = stratified_bootstrap({"x": values}), mean_interval(values)
    assert (several.mean, several.low, several.high, several.how) == pytest.approx((one.mean, one.low, one.high, "t"))


def test_many_runs_of_several_tasks_have_percentiles_of_the_resampled_statistic() -> None:
    rng = np.random.default_rng(5)
    strata = {k: rng.normal(10 * k, 1 + k, 40) for k in range(3)}
    for statistic in (mean_of_means, interquartile_mean):
        found = stratified_bootstrap(strata, statistic, resamples=4000)
        draws = np.random.default_rng(7)
        drawn = [
            float(statistic([draws.choice(values, values.size - 1) for values in strata.values()])) for _ in range(4000)
        ]
        low, high = np.quantile(drawn, [0.0232, 0.9768])  # t(0.975, 78) is 1.991, not 1.960
        assert found.how == "bootstrap"
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_resampling_stays_within_the_task() -> None:
    found = stratified_bootstrap({"easy": [99.0] * 40, "hard": [10.0] * 40})
    assert (found.mean, found.low, found.high) == (54.5, 54.5, 54.5)  # tasks differ, runs of one do not


def test_a_task_without_a_number_is_no_task_left_out() -> None:
    for strata in ({}, {"x": [1.0, 2.0], "y": []}, {"x": [1.0, 2.0], "y": [3.0, float("nan")]}):
        found = stratified_bootstrap(strata)
        assert math.isnan(found.mean)
        assert math.isnan(found.low)
        assert found.how == "none"
    single = stratified_bootstrap({"x": [1.0, 2.0], "y": [3.0]})
    assert single.mean == 2.25
    assert (math.isnan(single.high), single.how) == (True, "none")


@pytest.mark.parametrize(("tasks", "n"), [(1, 3), (2, 3), (5, 3), (3, 10)])
@pytest.mark.parametrize("statistic", [mean_of_means, interquartile_mean])
def test_the_stratified_interval_covers(tasks: int, n: int, statistic: Any) -> None:
    rng = np.random.default_rng(tasks)
    scale = np.linspace(0.2, 3, tasks)
    hits = 0
    for _ in range(400):
        strata = {k: rng.normal(0, scale[k], n) for k in range(tasks)}
        found = stratified_bootstrap(strata, statistic, resamples=300)
        hits += found.low <= 0 <= found.high
    assert 0.92 <= hits / 400 <= 0.995  # of 400: two standard errors are 0.022; the interquartile mean's is wider


def test_scipy_stats_waits_until_it_is_needed() -> None:
    code = (
        "import sys; from dfkd_bench.stats import intervals, paired, ranks, mcnemar;"
        "intervals.mean_interval([1.0, 2.0]); print('scipy.stats' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
