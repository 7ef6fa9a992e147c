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
from segfaith.results.statistics.paired import ALPHA, DECIMALS, ONE_RUN, Paired, family

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


def friedman(images: Paired, methods: Sequence[str] | None = None, *, single_run: bool = False) -> Friedman:
    """Friedman's test over the images on which, in the same run, all methods have a value.

    The critical difference is q sqrt(k (k + 1) / (6 n)), of k methods and n images, with q the .95 quantile of the
    studentised range of k and infinite degrees of freedom, divided by sqrt(2) (Demsar 2006). Methods that have no value
    in the data set are left out, with a note.

    Args:
        images: of `paired.paired`.
        methods: to rank; by default those under test. Controls are not among them: a control that all beat would make
            any test of "none differs" significant.
        single_run: also tests one run alone, see `paired`.

    Raises:
        SettingsError: a metric that is a diagnostic and ranks nothing.
    """
    data, metric = images.data, images.metric
    if METRICS[metric].better is None:
        ranking = ", ".join(name for name in METRICS if METRICS[name].better)
        raise SettingsError(f"{metric!r} is a diagnostic and ranks no methods; expected one of {ranking}")
    names = family(images.methods, chance=False) if methods is None else list(methods)
    chosen = images.values.reindex(columns=names)
    methods = [name for name in names if chosen[name].notna().any()]
    complete = chosen[methods].notna().all(axis=1).to_numpy()
    averages = images.by_image.means(chosen[methods].to_numpy(float), complete).round(DECIMALS)
    badness = averages * (-1 if METRICS[metric].better == "higher" else 1)
    count, runs = len(averages), chosen.index[complete].get_level_values("own").nunique()
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
