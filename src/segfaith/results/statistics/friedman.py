"""Friedman's test of all methods at once over images, with Nemenyi's test of each pair; from records, without torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf, nan, sqrt

import numpy as np
import pandas as pd
from scikit_posthocs import posthoc_nemenyi_friedman
from scipy import stats

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.lookup import lookup
from segfaith.results.statistics.intervals import by_image
from segfaith.results.statistics.paired import ALPHA, DECIMALS, ONE_RUN, family, paired
from segfaith.results.statistics.summary import Pair, by_data

LEAST_IMAGES, LEAST_METHODS = 10, 3
"""With fewer images its chi-square is no good approximation; two methods are a pair."""


@dataclass(frozen=True, eq=False)
class Friedman:
    """Friedman's test over all methods at once, with Nemenyi's test of each pair.

    `ranks` are mean ranks over images, 1 the best by the metric's direction, ties shared. Two methods whose ranks
    differ by less than `critical_difference` are not told apart at .05; `nemenyi` holds the p-value of each pair.
    `why` says why it is not testable; then only methods, images, runs and ranks are given. `note`: what is left out.
    """

    data: str
    metric: str
    methods: tuple[str, ...]
    images: int
    runs: int
    ranks: dict[str, float]
    statistic: float = nan
    p: float = nan
    critical_difference: float = nan
    nemenyi: pd.DataFrame = field(default_factory=pd.DataFrame)
    why: str = ""
    note: str = ""


def friedman(
    runs: Sequence[Pair],
    metric: str,
    min_s: float | None = None,
    *,
    methods: Sequence[str] | None = None,
    single_run: bool = False,
) -> list[Friedman]:
    """Friedman's test per data set, over the images on which, in the same run, all methods have a value.

    The critical difference is q sqrt(k (k + 1) / (6 n)), of k methods and n images, with q the .95 quantile of the
    studentised range of k and infinite degrees of freedom, divided by sqrt(2) (Demsar 2006). Methods that have no value
    in a data set are left out there, with a note. Arguments as in `significance.compare`, but that the default methods
    are those under test alone: a control that all beat would make any test of "none differs" significant.

    Raises:
        SettingsError: as `significance.compare`, or a metric that is a diagnostic and ranks nothing.
    """
    if lookup("metric", metric, METRICS).better is None:
        ranking = ", ".join(name for name in METRICS if METRICS[name].better)
        raise SettingsError(f"{metric!r} is a diagnostic and ranks no methods; expected one of {ranking}")
    names = family(runs, methods, chance=False)
    return [
        _friedman(paired(group, metric, min_s)[0], data, metric, names, single_run=single_run)
        for data, group in by_data(runs).items()
    ]


def _friedman(values: pd.DataFrame, data: str, metric: str, names: Sequence[str], *, single_run: bool) -> Friedman:
    chosen = values.reindex(columns=list(names))
    methods = [name for name in names if chosen[name].notna().any()]
    complete = chosen[methods].dropna()
    images = by_image(complete).round(DECIMALS)
    badness = images.to_numpy(float) * (-1 if METRICS[metric].better == "higher" else 1)
    count, runs = len(images), complete.index.get_level_values("own").nunique()
    table = stats.rankdata(badness, axis=1) if badness.size else badness
    ranks = dict(zip(methods, map(float, table.mean(0)), strict=True)) if table.size else {}
    notes = [f"left out, without a value here: {', '.join(name for name in names if name not in methods)}"]
    notes = notes if len(methods) < len(names) else []
    every = chosen.dropna(how="all").index.get_level_values("own").nunique()
    if runs < every:
        notes.append(f"{runs} of {every} runs entered: no image of the others has a value of all methods")
    if runs == 1 and single_run:
        notes.append("one run: says nothing of other seeds or models")
    if len(methods) < LEAST_METHODS:
        why = f"{len(methods)} methods with a value, at least {LEAST_METHODS} needed"
    elif runs == 1 and not single_run:
        why = ONE_RUN
    elif count < LEAST_IMAGES:
        why = f"{count} images with a value of all methods, at least {LEAST_IMAGES} needed"
    elif np.ptp(table, axis=1).max() == 0:
        why = f"all methods are tied on all {count} images"
    else:
        result = stats.friedmanchisquare(*badness.T)
        quantile = float(stats.studentized_range.ppf(1 - ALPHA, len(methods), inf)) / sqrt(2)
        return Friedman(
            *(data, metric, tuple(methods), count, runs, ranks, float(result.statistic), float(result.pvalue)),
            critical_difference=quantile * sqrt(len(methods) * (len(methods) + 1) / (6 * count)),
            nemenyi=posthoc_nemenyi_friedman(pd.DataFrame(badness, columns=methods)),
            note="; ".join(notes),
        )
    why = f"not testable: {why}"
    return Friedman(data, metric, tuple(methods), count, runs, ranks, why=why, note="; ".join(notes))
