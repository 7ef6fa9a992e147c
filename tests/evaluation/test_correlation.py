"""How alike two maps are, by SciPy and by loops."""

from math import isnan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from rederived import correlation
from segfaith.evaluation.correlation import Order, order_of, pearson, rank_stability, top_stability
from segfaith.evaluation.ranking import tie_ranks


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.floats(-1, 1))
def test_stability_is_pearsons_correlation(seed: int, mixed: float) -> None:
    first, noise = np.random.default_rng(seed).random((2, 9, 11), dtype=np.float32)
    second = (mixed * first + 0.3 * noise).astype(np.float32)
    got = pearson(torch.from_numpy(first), torch.from_numpy(second))
    assert got == pytest.approx(pearsonr(first.astype(float).ravel(), second.astype(float).ravel())[0], abs=1e-9)
    assert got == pytest.approx(correlation(first.astype(float), second.astype(float)), abs=1e-9)


def test_correlation_at_its_ends_and_for_constant_maps() -> None:
    one = torch.from_numpy(np.random.default_rng(0).random((9, 11), dtype=np.float32))
    assert pearson(one, one) == pytest.approx(1, abs=1e-12)
    assert pearson(one, 1 - one) == pytest.approx(-1, abs=1e-6)
    assert pearson(one, 0.25 * one) == pytest.approx(1, abs=1e-12)
    for constant in (torch.zeros(9, 11), torch.full((9, 11), 0.3)):
        assert isnan(pearson(one, constant))
        assert isnan(pearson(constant, one))
        assert isnan(pearson(constant, constant))


MASK = torch.zeros(9, 11, dtype=torch.bool)
MASK[2:7, 3:9] = True


def order(values: np.ndarray, seed: int, k: float = 0.2) -> Order:
    ranks = tie_ranks((9, 11), "pixel", np.random.default_rng(seed))
    return order_of(torch.from_numpy(values.astype(np.float32)), MASK, ~MASK, k, ranks)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(-1, 1))
def test_rank_stability_is_spearmans_correlation_inside_and_outside(seed: int, mixed: float) -> None:
    first, noise = np.random.default_rng(seed).random((2, 9, 11)).round(2)
    second = ((mixed * first + 0.3 * noise + 1) / 3).round(3)
    inside = MASK.numpy()
    expected = [spearmanr(first[part], second[part]).statistic for part in (inside, ~inside)]
    got = rank_stability(order(first, 0), order(second, 1))
    assert got == pytest.approx(float(np.mean(expected)), abs=1e-9)


def test_rank_stability_leaves_a_constant_region_out() -> None:
    first = np.random.default_rng(0).random((9, 11)).round(2)
    flat = np.where(MASK.numpy(), first, 0.0)
    inside = spearmanr(first[MASK.numpy()], flat[MASK.numpy()]).statistic
    assert rank_stability(order(first, 0), order(flat, 1)) == pytest.approx(float(inside))
    assert isnan(rank_stability(order(MASK.numpy().astype(float), 0), order(MASK.numpy().astype(float), 1)))


def test_top_stability_by_hand() -> None:
    """30 pixels inside: the top fifth is 6; 99 in all: the top fifth is 20."""
    values = np.arange(99, dtype=float).reshape(9, 11) / 98
    assert top_stability(order(values, 0), order(values, 1)) == pytest.approx(1)
    first, second = set(range(79, 99)), set(range(20))
    inside = np.flatnonzero(MASK.numpy().ravel())
    expected = []
    for one, other, size in ((first, second, 99), (set(inside[-6:]), set(inside[:6]), 30)):
        q = len(one) / size
        chance = q / (2 - q)
        expected.append((len(one & other) / len(one | other) - chance) / (1 - chance))
    assert top_stability(order(values, 0), order(1 - values, 1)) == pytest.approx(np.mean(expected))
    assert isnan(top_stability(order(values, 0, 1.0), order(values, 1, 1.0)))


def test_constant_maps_agree_in_their_tops_by_chance_alone() -> None:
    flat = np.full((9, 11), 0.5)
    values = [top_stability(order(flat, 2 * seed), order(flat, 2 * seed + 1)) for seed in range(400)]
    assert abs(np.mean(values)) < 0.02
    assert top_stability(order(flat, 0), order(flat, 0)) == 1, "which is why two maps need two tie-breaks"
