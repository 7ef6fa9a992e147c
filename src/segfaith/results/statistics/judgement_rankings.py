"""Rankings of maps by one metric: over operators, seeds and halves of the samples, and beside the truth.

Agreement of several rankings is the mean Spearman correlation over all their pairs. Without ties that is Kendall's W
beyond chance, (m W - 1) / (m - 1) for m rankings (see `rankings`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import nan

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from segfaith.results.statistics.evidence import taus
from segfaith.results.statistics.power import images_needed

PLACES = 6
"""Values that are equal to this many places are tied."""
LEAST_MAPS = 3
HALVES, RESAMPLES = 200, 200
TRUTH = "evidence_ap"


@dataclass(frozen=True)
class Stated:
    """A number with its 95 % interval over n samples, or why there is none."""

    value: float = nan
    low: float = nan
    high: float = nan
    n: int = 0
    why: str = ""


def concordances(rows: pd.DataFrame, metric: str, measured: Sequence[str]) -> list[float]:
    """Of each sample, how well the rankings of its maps in some measurements agree: 1 alike, 0 chance.

    Args:
        rows: a row for each sample, method and measurement.
        measured: at least two measurements, else there are no numbers.

    Returns:
        NaN for samples where a measurement does not tell the maps apart.
    """
    if len(measured) < 2 or not {*measured} <= {*rows["measured"]}:
        return []
    numbers = []
    for _, sample in rows.groupby("sample_id"):
        table = sample.pivot(index="method", columns="measured", values=metric).reindex(columns=list(measured)).dropna()
        pairs = combinations(table.round(PLACES).to_numpy(float).T, 2)
        numbers.append(float(np.mean([_spearman(left, right) for left, right in pairs])))
    return numbers


def split_halves(rows: pd.DataFrame, metric: str) -> Stated:
    """Spearman correlation of the methods' means over two random halves of the samples, over many halves."""
    table = _complete(rows, metric)
    if len(table) < 2 or table.shape[1] < LEAST_MAPS:
        return Stated(n=len(table))
    values, rng, half = table.to_numpy(float), np.random.default_rng(0), len(table) // 2
    found = []
    for _ in range(HALVES):
        order = rng.permutation(len(values))
        found.append(_spearman(values[order[:half]].mean(0), values[order[half:]].mean(0)))
    return Stated(float(np.mean(found)), *_percentiles(np.array(found)), n=len(table))


def with_truth(rows: pd.DataFrame, metric: str, blind: str) -> Stated:
    """Kendall's tau-b of the methods' means by the metric and by the average precision on the planted evidence."""
    if blind:
        return Stated(why=f"blind: {blind}")
    if TRUTH not in rows:
        return Stated()
    both = [_complete(rows, name) for name in (metric, TRUTH)]
    index, methods = both[0].index.intersection(both[1].index), both[0].columns.intersection(both[1].columns)
    left, right = (table.loc[index, methods].to_numpy(float) for table in both)
    if len(index) < 2 or len(methods) < LEAST_MAPS:
        return Stated(n=len(index))
    drawn = np.random.default_rng(0).integers(0, len(index), (RESAMPLES, len(index)))
    (value,) = taus(left.mean(0, keepdims=True), right.mean(0, keepdims=True))
    return Stated(float(value), *_percentiles(taus(left[drawn].mean(1), right[drawn].mean(1))), n=len(index))


def images_for_pairs(rows: pd.DataFrame, metric: str, methods: Sequence[str]) -> Stated:
    """How many images tell two methods apart by the metric: the median over pairs of methods (`power`)."""
    values = rows.pivot(index="sample_id", columns="method", values=metric).reindex(columns=list(methods)).dropna()
    if len(values) < 2:
        return Stated(n=len(values))
    table = values.to_numpy(float)
    drawn = np.random.default_rng(0).integers(0, len(table), (RESAMPLES, len(table)))
    return Stated(_images(table), *_percentiles(np.array([_images(table[chosen]) for chosen in drawn])), n=len(table))


def _images(table: NDArray[np.float64]) -> float:
    return float(np.median([images_needed(left - right) for left, right in combinations(table.T, 2)]))


def _complete(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Samples by methods: the methods that have a value on most samples, and the samples on which these all have."""
    table = rows.pivot(index="sample_id", columns="method", values=metric)
    counts = table.notna().sum()
    complete: pd.DataFrame = table.loc[:, counts * 2 > counts.max()].dropna()
    return complete


def _spearman(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Spearman correlation; NaN where either is constant, or where there are fewer than `LEAST_MAPS` values."""
    if len(left) < LEAST_MAPS or np.ptp(left) == 0 or np.ptp(right) == 0:
        return nan
    return float(np.corrcoef(rankdata(left), rankdata(right))[0, 1])


def _percentiles(values: NDArray[np.float64], ends: tuple[float, float] = (2.5, 97.5)) -> tuple[float, float]:
    """The 95 % interval of resampled values, without interpolation, since numbers of images may be infinite."""
    known = values[~np.isnan(values)]
    if not len(known):
        return nan, nan
    low, high = np.percentile(known, ends, method="nearest")
    return float(low), float(high)
