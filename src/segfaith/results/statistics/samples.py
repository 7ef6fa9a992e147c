"""The measured samples of one data set's runs, from which medians, strata, leakage and map properties are computed.

A sample is a pair of run and image; all samples count alike. Where an image has several targets, each has its row here,
and a sample's value is the mean over them (`targets.over_targets`). Columns that older records lack give an empty
table, with the reason in `attrs["why"]`.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from segfaith.results.records.runs import Run
from segfaith.results.statistics.intervals import TRIM

NOTHING = "no sample was measured"
"""Why a table is empty where no sample is left, by the filters too."""


def samples(runs: Sequence[Run]) -> pd.DataFrame:
    """The measured rows of one data set's runs, one run below the other.

    Returns:
        The columns of the records, data (the label of the data set), run (its place) and class_name.
    """
    parts = []
    for number, run in enumerate(runs):
        part = run.measured
        names = run.description["model"].get("classes") or []
        classes = part["class_index"] if "class_index" in part else pd.Series(np.nan, part.index)
        words = [_class(value, names) for value in classes]
        parts.append(part.assign(data=run.data, run=number, class_index=classes, class_name=words))
    return pd.concat(parts, ignore_index=True)


def with_value(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """The samples that have a value of the column, which older records may lack."""
    return rows[rows[column].notna()] if column in rows else rows.iloc[:0]


def lacking(column: str, rows: pd.DataFrame, advice: str = "") -> str:
    """Why no sample has a value of the column."""
    if not len(rows):
        return NOTHING
    return f"no run has values of {column}: an older version made them, or it was not asked for{advice}"


def by_method(rows: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The data set, the method and its rows, in the order of the records."""
    for method, part in rows.groupby("method", sort=False):
        yield str(part["data"].iloc[0]), str(method), part


def centres(values: pd.Series) -> list[float]:
    """Mean, median, trimmed mean (without the lowest and highest tenth) and interquartile mean; NaN of nothing."""
    if not len(values):
        return [np.nan] * 4
    numbers = values.to_numpy(float)
    means = float(stats.trim_mean(numbers, TRIM)), interquartile_mean(numbers)
    return [float(numbers.mean()), float(np.median(numbers)), *means]


def interquartile_mean(values: ArrayLike) -> float:
    """The mean of the middle half of the values; NaN of nothing.

    With the values x_1 <= ... <= x_n in order, x_i has the stretch from i - 1 to i, and its weight w_i is the length of
    the part of it that lies between n / 4 and 3 n / 4: the mean is (2 / n) sum_i w_i x_i. Where 4 divides n this is the
    mean without the lowest and the highest quarter; else the two values on each border count in part. Values that are
    NaN must be left out before.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    if not n:
        return np.nan
    weights = np.diff(np.arange(n + 1.0).clip(n / 4, 3 * n / 4))
    return float(weights @ ordered / weights.sum())


def means(rows: pd.DataFrame, columns: Sequence[str]) -> list[float]:
    """The mean of each column; NaN of those that are not there."""
    return [float(rows[name].astype(float).mean()) if name in rows else np.nan for name in columns]


def table(rows: Sequence[Sequence[object]], columns: Sequence[str], why: str) -> pd.DataFrame:
    """The rows as a table; `attrs["why"]` says why there are none, and is empty where there are."""
    frame = pd.DataFrame(rows, columns=list(columns))
    frame.attrs["why"] = "" if len(frame) else why
    return frame


def _class(index: float | None, names: Sequence[str]) -> str:
    if index is None or pd.isna(index):
        return "no class"
    return names[int(index)] if int(index) < len(names) else f"class {int(index)}"
