"""Intervals over images: against scipy and by hand, and how often they cover, by simulation with fixed seeds."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from scipy.stats import mstats

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.report.glossary import TERMS
from segfaith.results.statistics.intervals import LEAST_IMAGES, MEAN, POOLED, TRIMMED, estimate, quantity

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))
from intervals_cover import covered

TRIALS = 1000


@pytest.mark.parametrize("count", [20, 40, 100])
@pytest.mark.parametrize("name", ["pooled drop", "leakage, trimmed mean"])
def test_the_intervals_of_drops_and_leakages_cover_what_they_say(count: int, name: str) -> None:
    assert 0.92 < covered(name, count, TRIALS) < 0.97


@pytest.mark.parametrize("name", ["pooled drop, weak model", "insertion gain, mean"])
def test_where_few_images_hold_most_of_it_intervals_cover_less_and_the_page_says_so(name: str) -> None:
    few, many = (covered(name, count, TRIALS) for count in (20, 100))
    assert 0.78 < few < 0.9 < many < 0.96
    assert "it covers the true value in 80 to 90 of 100 data sets of 20 to 40 images" in TERMS["interval"][1]


@pytest.mark.parametrize("count", [40, 100])
def test_an_interval_of_the_mean_relative_drop_would_not_cover(count: int) -> None:
    """Why the drops are pooled."""
    assert covered("relative drop, mean", count, TRIALS) < 0.85


@pytest.mark.parametrize("count", [20, 40])
def test_the_interval_of_a_mean_covers_where_nothing_is_divided(count: int) -> None:
    """Differences of stability, bounded and skewed, whose mean is known."""
    values = 0.3 * np.random.default_rng(3).beta(2, 6, (1500, count))
    found = [estimate(one, np.ones(count), MEAN) for one in values]
    assert 0.92 < np.mean([one.low <= 0.3 * 2 / 8 <= one.high for one in found]) < 0.97


def test_the_mean_and_its_interval_are_scipys() -> None:
    values = np.random.default_rng(0).normal(0.1, 0.3, 31)
    expected = stats.ttest_1samp(values, 0).confidence_interval()
    one = estimate(values, np.full(31, np.nan), MEAN)
    assert (one.value, one.low, one.high) == pytest.approx((values.mean(), expected.low, expected.high))


@pytest.mark.parametrize("count", [20, 29, 57])
def test_the_trimmed_mean_and_its_interval_are_scipys(count: int) -> None:
    values = np.random.default_rng(count).standard_t(2, count)
    one = estimate(values, np.full(count, np.nan), TRIMMED)
    expected = mstats.trimmed_mean_ci(values, limits=(0.1, 0.1), alpha=0.05)
    assert one.value == pytest.approx(stats.trim_mean(values, 0.1))
    assert (one.low, one.high) == pytest.approx(tuple(expected))


def test_the_pooled_drop_by_hand_and_its_interval_near_the_bootstraps() -> None:
    rng = np.random.default_rng(4)
    s = rng.uniform(0.05, 0.95, 80)
    drops = s * rng.normal(0.3, 0.2, 80)
    one = estimate(drops, s, POOLED)
    assert one.value == pytest.approx(sum(drops) / sum(s))
    boot = stats.bootstrap(
        (drops, s),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=4000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (one.low, one.high) == pytest.approx((boot.low, boot.high), abs=0.006)
    assert one.low < one.value < one.high
    level = estimate(np.full(80, 0.5) * (drops / s), np.full(80, 0.5), POOLED)
    expected = stats.ttest_1samp(drops / s, 0).confidence_interval()
    assert (level.low, level.high) == pytest.approx((expected.low, expected.high)), "with equal s it is the mean's"


def test_one_image_without_score_rules_a_mean_and_no_pooled_drop() -> None:
    """s = .00002, and a deletion that makes it .0023: TDD -113."""
    s = np.r_[np.full(39, 0.5), 2e-5]
    drops = np.r_[np.full(39, 0.2) + np.random.default_rng(0).normal(0, 0.05, 39), 2e-5 - 2.3e-3]
    pooled, plain = estimate(drops, s, POOLED), estimate(drops / s, s, MEAN)
    assert plain.value < -2
    assert 0.36 < pooled.low < pooled.value < pooled.high < 0.42


@pytest.mark.parametrize("of", [POOLED, TRIMMED, MEAN])
def test_below_twenty_images_and_without_differences_there_is_no_interval(of: str) -> None:
    values = np.random.default_rng(0).normal(0, 1, LEAST_IMAGES)
    assert not np.isnan(estimate(values, np.ones(20), of).low)
    few = estimate(values[:-1], np.ones(19), of)
    assert np.isnan([few.low, few.high]).all()
    assert not np.isnan(few.value)
    assert few.why == "no interval below 20 images"
    same = estimate(np.full(30, 0.25), np.ones(30), of)
    assert np.isnan(same.low)
    assert (same.value, same.why) == (0.25, "no interval: all differences are equal")
    tails = estimate(np.r_[np.zeros(18), 0.3, 0.5], np.ones(20), of)
    trimmed = "no interval: all but the trimmed tenths are equal"
    assert (tails.why, bool(np.isnan(tails.low))) == ((trimmed, True) if of == TRIMMED else ("", False))
    assert np.isnan(estimate(values[:0], values[:0], of).value)


def test_what_is_divided_by_s_is_pooled_and_what_is_divided_by_a_drop_is_trimmed() -> None:
    """Every metric by its formula; absolute values and differences go with what they are made of."""
    for name in METRICS:
        formula = METRICS[name].formula
        derived = ("tdd_gain", "odd_abs", "odd_fair_abs", "odd_beyond_abs", "tdd_gain_own")
        divided = "(|s| + ε)" in formula or name in derived
        assert quantity(name) == (TRIMMED if "(|tdd| + ε)" in formula else POOLED if divided else MEAN), name
    with pytest.raises(SettingsError, match="unknown metric 'tdds'"):
        quantity("tdds")
