"""Rankings of maps by a metric: over operators, over halves of the samples, beside the truth."""

from math import inf, isnan

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kendalltau, spearmanr

from segfaith.results.statistics.judgement_rankings import concordances, images_for_pairs, split_halves, with_truth

METHODS = ["a", "b", "c", "d", "e"]


def rows_of(values: np.ndarray, measured: str = "as asked", metric: str = "tdd") -> pd.DataFrame:
    """A row for each sample and method of a table (samples, methods)."""
    return pd.DataFrame(
        [
            {"sample_id": f"s{i}", "method": METHODS[j], "measured": measured, metric: values[i, j]}
            for i, j in np.ndindex(values.shape)
        ]
    )


def test_concordance_is_the_mean_spearman_over_pairs_of_operators() -> None:
    tables = {name: np.random.default_rng(i).random((3, 5)) for i, name in enumerate(("mean", "blur", "zero"))}
    rows = pd.concat([rows_of(values, name) for name, values in tables.items()])
    left, middle, right = tables.values()
    expected = [
        np.mean([spearmanr(a, b).statistic for a, b in ((x, y), (x, z), (y, z))])
        for x, y, z in zip(left, middle, right, strict=True)
    ]
    assert concordances(rows, "tdd", list(tables)) == pytest.approx(expected)


def test_without_ties_it_is_kendalls_w_beyond_chance() -> None:
    tables = [np.random.default_rng(i).random((1, 5)) for i in range(4)]
    rows = pd.concat([rows_of(values, str(i)) for i, values in enumerate(tables)])
    ranks = np.array([pd.Series(values[0]).rank() for values in tables])
    sums = ranks.sum(0)
    w = 12 * ((sums - sums.mean()) ** 2).sum() / (4**2 * (5**3 - 5))
    assert concordances(rows, "tdd", list("0123")) == pytest.approx([(4 * w - 1) / 3])


def test_an_operator_that_tells_no_maps_apart_gives_no_number() -> None:
    rows = pd.concat([rows_of(np.random.default_rng(0).random((2, 5))), rows_of(np.zeros((2, 5)), "removal")])
    assert all(map(isnan, concordances(rows, "tdd", ["as asked", "removal"])))
    assert concordances(rows, "tdd", ["as asked", "blur"]) == []
    assert concordances(rows, "tdd", ["as asked"]) == []


def test_halves_agree_where_methods_differ_more_than_samples() -> None:
    rng = np.random.default_rng(0)
    apart = split_halves(rows_of(np.arange(5) + 0.1 * rng.random((20, 5))), "tdd")
    assert (apart.value, apart.low, apart.high) == pytest.approx((1, 1, 1))
    assert apart.n == 20
    alike = split_halves(rows_of(rng.random((20, 5))), "tdd")
    assert alike.low < 0 < alike.high
    assert alike.value < 0.4


def test_the_ranking_beside_the_truth() -> None:
    rng = np.random.default_rng(0)
    metric, truth = rng.random((12, 5)) + np.arange(5), rng.random((12, 5)) - np.array([0, 1, 3, 2, 4])
    rows = rows_of(metric).merge(rows_of(truth, metric="evidence_ap"))
    stated = with_truth(rows, "tdd", "")
    assert stated.value == pytest.approx(kendalltau(metric.mean(0), truth.mean(0)).statistic)
    assert stated.low <= stated.value <= stated.high < 0
    blind = with_truth(rows, "tdd", "it sees nothing")
    assert (blind.why, isnan(blind.value)) == ("blind: it sees nothing", True)


def test_images_needed_fall_with_the_difference() -> None:
    noise = np.random.default_rng(0).standard_normal((60, 5))
    far, near = (images_for_pairs(rows_of(noise + step * np.arange(5)), "tdd", METHODS[:3]) for step in (2, 0.4))
    assert far.value < near.value < inf
    assert near.low <= near.value <= near.high
    assert far.n == 60
