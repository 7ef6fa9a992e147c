"""95 % intervals over images, each of a quantity that outliers dominate less: pooled drops, trimmed means, means.

Metrics that are divided by s have tails so heavy that an interval of their mean covers the true mean in 70 to 80 of 100
data sets, with 100 images too (`benchmarks/intervals_cover.py`). So what is estimated depends on the metric, see
`quantity`:

    pooled drop    sum of drops / sum of s, over images: divided by s, but once and not per image; the difference of
                   two methods is sum (s d_i) / sum s, of the relative differences d_i
    trimmed mean   of leakages, which are divided by a drop: without the lowest and the highest tenth
    mean           of all that is not divided by a score

Intervals are Student's t: of the pooled drop by its linearisation (the ratio estimator, Cochran 1977, section 6.4), of
the trimmed mean with the winsorised variance (Tukey and McLaughlin 1963). An image is averaged over its targets, and
over the runs that drew it, first. Below 20 images there is no interval.

In that simulation they cover in 94 to 95 of 100 data sets. Where few images hold most of s (a weak model), or most of
an insertion gain, they cover less: in 82 to 84 with 20 images, 89 with 40 and 93 with 100.
"""

from dataclasses import dataclass
from math import isnan, nan, sqrt

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from segfaith.constants import EPS
from segfaith.evaluation.metrics import METRICS, is_relative
from segfaith.lookup import lookup

TRIM = 0.1
"""Share of the values that a trimmed mean leaves out on each side."""
LEAST_IMAGES = 20
"""With fewer images there is no interval: a tail of which they hold no example widens none."""
LEVEL = 0.95
POOLED, TRIMMED, MEAN = "pooled drop", "trimmed mean", "mean"
FEW, EQUAL = f"no interval below {LEAST_IMAGES} images", "no interval: all differences are equal"
EQUAL_WITHIN = "no interval: all but the trimmed tenths are equal"


@dataclass(frozen=True)
class Estimate:
    """A quantity and its 95 % interval; `why` says why there is none (low and high are then NaN)."""

    of: str
    value: float
    low: float = nan
    high: float = nan
    why: str = ""


def quantity(metric: str) -> str:
    """What an interval by this metric is of: `POOLED`, `TRIMMED` or `MEAN`."""
    lookup("metric", metric, METRICS)
    if metric.startswith("leak_"):
        return TRIMMED
    return POOLED if is_relative(metric) else MEAN


def estimate(values: NDArray[np.float64], weights: NDArray[np.float64], of: str) -> Estimate:
    """The quantity over images, with its interval.

    Args:
        values: (n,), a value of each image; of a pooled drop its numerator, the drop that is not divided by s.
        weights: (n,), of a pooled drop s of each image; else not read.
    """
    n = len(values)
    if not n:
        return Estimate(of, nan)
    if of == POOLED:
        value, free = float(values.sum() / weights.sum()), n - 1
        spread = (values - value * weights) / weights.mean()
    elif of == TRIMMED:
        value, cut = float(stats.trim_mean(values, TRIM)), int(TRIM * n)
        ends = np.sort(values)[[cut, n - cut - 1]]
        spread, free = np.clip(values, *ends) / (1 - 2 * TRIM), n - 2 * cut - 1
    else:
        value, spread, free = float(values.mean()), values, n - 1
    if n < LEAST_IMAGES:
        return Estimate(of, value, why=FEW)
    half = float(stats.t.ppf((1 + LEVEL) / 2, free) * spread.std(ddof=1) / sqrt(n))
    if isnan(half) or half < 1e-12:
        return Estimate(of, value, why=EQUAL_WITHIN if of == TRIMMED and np.ptp(values) >= 1e-12 else EQUAL)
    return Estimate(of, value, value - half, value + half)


def weights_of(s: pd.Series) -> pd.Series:
    """The weight of each value in a pooled drop: what the drop was divided by, |s| + eps."""
    return s.abs() + EPS


def numerators(values: pd.DataFrame, s: pd.Series, of: str) -> tuple[pd.DataFrame, pd.Series]:
    """The values, of a pooled drop the drops without the division by s; and the weights."""
    weights = weights_of(s)
    return (values.mul(weights, axis=0) if of == POOLED else values), weights
