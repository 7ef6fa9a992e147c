"""Wilcoxon's signed-rank test, its effect size, and Holm's correction over several tests."""

from math import nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

EXACT, PERMUTED = 50, 25
"""Up to so many images the exact distribution; below so many differences that are not zero, permutations."""
RESAMPLES = 9999


def rank_biserial(differences: NDArray[np.float64]) -> float:
    """Matched-pairs rank-biserial correlation, (W+ - W-) / (n (n + 1) / 2), in [-1, 1] (Kerby 2014).

    W+ and W- are the sums of the ranks of |d_i| over positive and negative differences, out of all n. Zeros take the
    lowest ranks, as Pratt's test has it, and enter neither sum but the whole: an image on which methods do not differ
    speaks for none and draws the effect to 0. Without zeros it is the usual coefficient. NaN where all are zero.
    """
    if not np.any(differences):
        return nan
    ranks = stats.rankdata(np.abs(differences))
    return float((ranks * np.sign(differences)).sum() / ranks.sum())


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """p-values corrected by Holm's method (1979), in their order.

    The i-th smallest of n is multiplied by n - i + 1; none is below that of a smaller one, and none above 1.
    """
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)
    corrected = np.empty_like(values)
    corrected[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1)
    return corrected


def wilcoxon(differences: NDArray[np.float64], seed: int) -> tuple[str, float, float]:
    """How p was found, the smaller sum of ranks, and the two-sided p (see `paired.compare`)."""
    changed = np.count_nonzero(differences)
    plain = changed == len(differences) == len(np.unique(np.abs(differences)))
    name = "exact" if plain and len(differences) <= EXACT else "permutation" if changed < PERMUTED else "asymptotic"
    draws = stats.PermutationMethod(n_resamples=RESAMPLES, batch=1000, rng=np.random.default_rng(seed))
    how: Any = draws if name == "permutation" else name  # scipy's stubs do not know "asymptotic"
    result = stats.wilcoxon(differences, zero_method="pratt", method=how)
    return name, float(result.statistic), float(result.pvalue)
