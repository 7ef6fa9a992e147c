"""How many images tell two methods apart: against loops, and against how often Wilcoxon's test succeeds."""

from math import inf, isnan, sqrt

import numpy as np
import pytest
from scipy import stats

from segfaith.results.statistics.power import images_needed, positive_pairs


def test_pairs_are_counted_as_in_a_loop_and_sums_of_zero_by_half() -> None:
    values = [0.3, -0.3, 0.0, 0.0, -0.1]
    shares = [
        1.0 if values[i] + values[j] > 0 else 0.5 if values[i] + values[j] == 0 else 0.0
        for i in range(5)
        for j in range(i + 1, 5)
    ]
    assert positive_pairs(values) == pytest.approx(sum(shares) / 10)
    assert positive_pairs([1.0, 2.0, 3.0]) == 1
    assert positive_pairs([-1.0, -2.0]) == 0


def test_the_formula_by_hand() -> None:
    """(1.95996 + 0.84162)^2 = 7.8489; p' = 1 needs 7.8489 / .75 = 10.47; 2 of 3 pairs need 7.8489 / (3 / 36) = 94.2."""
    assert images_needed([1.0, 2.0, 3.0]) == 11
    assert images_needed([-1.0, -2.0, -3.0]) == 11, "the direction does not matter"
    assert images_needed([1.0, 0.5, -0.7]) == 95


def test_where_nothing_tells_them_apart_no_number_is_given() -> None:
    assert images_needed([0.2, -0.2, 0.0]) == inf
    assert images_needed([0.0, 0.0, 0.0]) == inf
    rng = np.random.default_rng(0)
    values = rng.normal(0.002, 1, 2000)
    assert 0 < abs(positive_pairs(values) - 0.5) < sqrt(7.8489 / 3 / 10_000)
    assert images_needed(values) == inf, "more than 10,000"
    assert isnan(images_needed([]))
    assert isnan(images_needed([0.4]))


@pytest.mark.parametrize(("shift", "most"), [(0.2, 0.85), (0.4, 0.85), (0.8, 0.95)])
def test_with_so_many_images_the_test_succeeds_in_about_eight_of_ten_cases(shift: float, most: float) -> None:
    """Normal differences with a standard deviation of 1. Of a large effect the formula gives a few images too many."""
    population = stats.norm.ppf((np.arange(2000) + 0.5) / 2000) + shift
    n = int(images_needed(population))
    rng = np.random.default_rng(1)

    def power(images: int) -> float:
        tests = stats.wilcoxon(rng.normal(shift, 1, (1000, images)), axis=1, method="asymptotic")
        return float((tests.pvalue < 0.05).mean())

    assert 0.77 < power(n) < most
    assert power(n // 2) < 0.65
