"""How many images tell two methods apart, by the differences that some images show.

For Wilcoxon's signed-rank test at alpha = .05, two-sided, with a power of .8 (Noether 1987, JASA 82, 645-647):

    N = (z_{1 - alpha/2} + z_power)^2 / (3 (p' - 1/2)^2),    p' = P(D_i + D_j > 0) for two different images

p' is estimated over all pairs of the given differences; a sum of zero counts one half. The observed effect stands for
the true one, and Holm's correction is ignored, so N is an order of magnitude.
"""

from math import ceil, inf, nan

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

ALPHA, POWER = 0.05, 0.8
MOST = 10_000
"""Above so many images the number is given as infinite: the observed p' is then as good as 1/2."""


def positive_pairs(differences: ArrayLike) -> float:
    """p': the share of pairs i < j whose sum D_i + D_j is above zero, those with a sum of zero by one half; in [0, 1].

    Args:
        differences: (n,), a finite one of each image.

    Returns:
        NaN for fewer than two.
    """
    values = np.asarray(differences, dtype=float)
    if len(values) < 2:
        return nan
    ordered, count = np.sort(values), len(values)
    # the others that exceed -D_i, and those that are -D_i; D_i itself is no other
    above = count - np.searchsorted(ordered, -values, side="right") - (values > 0)
    equal = np.searchsorted(ordered, -values, side="right") - np.searchsorted(ordered, -values) - (values == 0)
    return float((above + equal / 2).sum() / (count * (count - 1)))


def images_needed(differences: ArrayLike) -> float:
    """The number of images at which Wilcoxon's test finds such differences significant in 8 of 10 cases.

    Args:
        differences: (n,), first method minus second on each image.

    Returns:
        A whole number, at least 11 (the formula's least; 6 is the least at which p can be below .05); infinite above
        10000; NaN for fewer than two differences.
    """
    effect = positive_pairs(differences) - 0.5
    if not effect:
        return inf
    quantiles = float(norm.ppf(1 - ALPHA / 2) + norm.ppf(POWER))
    needed = quantiles**2 / (3 * effect**2)
    return needed if np.isnan(needed) else float(ceil(needed)) if needed <= MOST else inf
