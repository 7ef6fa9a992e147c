"""Pearson's correlation of two maps, by SciPy and by loops."""

from math import isnan

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr

from rederived import (
    correlation,
)
from segfaith.evaluation.correlation import pearson


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
