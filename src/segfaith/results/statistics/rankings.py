"""How much a ranking of methods depends on the evaluation: on the occlusion operator and on k.

RIA, and DEA with it, are built with mean occlusion and usually scored with it. That is circular: it favours them. Here
the same maps are ranked under every operator, and under every k, that the runs measured (`curves/`), over the same
images, and Kendall's W says how far the rankings agree: with m settings, n methods, R_i the sum of method i's ranks
over the settings, S = sum_i (R_i - mean R)^2 and T_j = sum over the groups of t tied methods in setting j of t^3 - t,

    W = 12 S / (m^2 (n^3 - n) - m sum_j T_j)   in [0, 1]; 1: the same ranking everywhere.

Kendall and Babington Smith 1939; the correction for ties is Kendall's of 1945. Chance is not at 0: where each setting
ranks at random, whatever ranks it ties, E S = sum_j (n^3 - n - T_j) / 12, for the deviations of different settings
from their mean rank have no correlation, and so E W = 1 / m. What is beyond chance is therefore

    (W - 1 / m) / (1 - 1 / m) = (m W - 1) / (m - 1)   in [-1 / (m - 1), 1]; 0: no more than random rankings,

which without ties is the mean of Spearman's correlation over all pairs of settings (Kendall and Gibbons 1990, section
6.4). p is the share of random rankings with the same ties whose W is at least as high. Below ten images nothing is
given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from math import factorial, nan
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from segfaith.constants import TRUTH
from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.runs import Run
from segfaith.results.records.schema import TARGET
from segfaith.results.statistics.curves import CURVE_KINDS, KIND_OF, absolute, explained, first_setting, no_curves
from segfaith.results.statistics.targets import IMAGE

OVER = {"occlusion": "occlusion operators", "k": "values of k"}
SETTING_COLUMNS = ["data", "setting", "method", "mean", "rank", "n"]
CONCORDANCE_COLUMNS = [
    "data",
    "over",
    "metric",
    "w",
    "beyond_chance",
    "p",
    "methods",
    "settings",
    "images",
    "why",
    "left_out",
]
LEAST_SETTINGS, LEAST_METHODS, LEAST_IMAGES = 2, 3, 10
EVERY, DRAWS = 20_000, 9999
"""Up to so many rankings all are counted for p; of more so many are drawn."""
ALL = "1"
"""The k at which every pixel of a region goes, so that all methods are tied: it ranks nothing, and lowers W."""
ROUND = 6
"""Means that are equal to this many places share a rank."""
Over = Literal["occlusion", "k"]


@dataclass(frozen=True, eq=False)
class Complete:
    """The values that methods are ranked by: of the images that have one under all settings for all methods.

    Attributes:
        data: the label of the data set.
        metric: by which methods are ranked.
        over: what the settings differ in.
        values: rows (run, sample_id), columns (setting, method).
        settings: in order.
        methods: those that enter.
        why: why there are no values; empty where there are.
        left_out: which methods, settings and runs do not enter, with the reasons.
    """

    data: str
    metric: str
    over: Over
    values: pd.DataFrame
    settings: list[str]
    methods: list[str]
    why: str
    left_out: str = ""

    @property
    def images(self) -> int:
        """How many images enter; one that several runs drew counts once."""
        return len(self.values.index.unique("sample_id")) if len(self.values) else 0

    @property
    def means(self) -> pd.Series:
        """The mean of run-level means by (setting, method)."""
        return self.values.groupby(level="run").mean().mean()


def complete(
    runs: Sequence[Run], metric: str = "tdd", over: Over = "occlusion", *, methods: Sequence[str] | None = None
) -> Complete:
    """The values by setting and method of the images that have them all.

    Over operators, k is each run's first; over k, the operator is. Settings are those that all runs with curves share,
    but for k = 1, where all maps delete the same. A target enters if it has a value under all of them for all methods,
    so that methods are ranked on the same targets: a run that lacks a method, as the paper's ablations lack GPA, does
    not enter. An image's value is the mean over its targets that entered. A method that has values on less than half of
    the images of the best covered one is left out, so that it does not empty the table.

    Args:
        runs: of one data set.
        metric: `tdd`, `odd_abs` or `insertion_gain`; of scores other than the probability `tdd_drop`, `odd_drop_abs`
            or `insertion_gain`.
        methods: only these are ranked; by default all but the truth, which is no answer to rank and which not every
            image has.

    Raises:
        SettingsError: an unknown metric or `over`.
    """
    if metric not in KIND_OF or over not in OVER:
        raise SettingsError(
            f"expected one of {', '.join(CURVE_KINDS)} over one of {', '.join(OVER)}, got {metric!r} over {over!r}; "
            "other metrics are not measured under several settings"
        )
    frames = [_chosen(run, metric, over).assign(run=number) for number, run in enumerate(runs)]
    frames = [rows for rows in frames if len(rows)]
    label = runs[0].data
    if not frames:
        return Complete(label, metric, over, pd.DataFrame(), [], [], no_curves(runs))
    everything = pd.concat(frames, ignore_index=True)
    if metric in ("odd_abs", "odd_drop_abs"):
        everything["value"] = absolute(everything)
    known = _order(everything, over)
    held = [set(rows["setting"].unique()) for rows in frames]
    shared = [name for name in known if all(name in settings for settings in held)]
    settings = [name for name in shared if over != "k" or name != ALL]
    names = [name for name in everything["method"].unique() if (name != TRUTH if methods is None else name in methods)]
    chosen = everything[everything["setting"].isin(settings) & everything["method"].isin(names)]
    wide = chosen.pivot_table(
        index=["run", *TARGET], columns=["setting", "method"], values="value", sort=False, dropna=True
    )
    covered = _coverage(wide, settings, names)
    most = max(covered.values(), default=0)
    enough = [name for name in names if covered[name] and covered[name] * 2 >= most]
    left_out = [f"{name} (all settings on {covered[name]} of {most} images)" for name in names if name not in enough]
    left_out += [f"{name} (not in all runs)" for name in known if name not in shared]
    everywhere = wide.reindex(columns=pd.MultiIndex.from_product([settings, enough], names=["setting", "method"]))
    values = everywhere.dropna().groupby(level=IMAGE, sort=False).mean()
    left_out += _absent_runs(runs, everywhere, set(values.index.unique("run")) if len(values) else set(), enough)
    values = values if enough else values.iloc[:0]
    why = "" if len(values) else "no image has a value under all settings for all methods"
    return Complete(label, metric, over, values, settings, enough, why, ", ".join(left_out))


def by_setting(values: Complete) -> pd.DataFrame:
    """Every method's mean and rank under each setting, over the same images.

    Args:
        values: of `complete`.

    Returns:
        Columns data, setting, method, mean (of run-level means), rank (1 is best by the metric's direction; methods
        whose means are equal to 1e-6 share the mean of their ranks), n (pairs of run and image). `attrs["why"]` says
        what is left out, and why there are no rows, as where no run has curves.
    """
    if not len(values.values):
        return explained(pd.DataFrame(columns=SETTING_COLUMNS), [f"{values.data}: {values.why}"])
    rows, means = [], values.means
    for setting in values.settings:
        ranks = ranked(means[setting].reindex(values.methods), values.metric)
        for method in values.methods:
            rows.append([values.data, setting, method, means[setting][method], ranks[method], len(values.values)])
    reasons = [f"{values.data}: left out: {values.left_out}"] if values.left_out else []
    return explained(pd.DataFrame(rows, columns=SETTING_COLUMNS), reasons)


def ranked(means: pd.Series, metric: str) -> pd.Series:
    """The ranks of means by method: 1 is best by the metric's direction, means equal to 1e-6 share a rank."""
    return means.round(ROUND).rank(ascending=METRICS[metric].better == "lower", method="average")


def concordance(values: Complete) -> pd.DataFrame:
    """Kendall's W of the rankings of `by_setting`, one row.

    Args:
        values: of `complete`.

    Returns:
        Columns data, over, metric, w, beyond_chance (see the module), p (see `permutation_p`), methods and settings and
        images (their numbers), why (empty, or "not testable:" and the reason; the three figures are then NaN), left_out
        (methods, settings and runs that did not enter, and why).
    """
    w, beyond, p, why = nan, nan, nan, values.why
    if not why and len(values.settings) < LEAST_SETTINGS:
        which = ", ".join(values.settings)
        why = f"the runs measured 1 of the {OVER[values.over]} ({which}), at least {LEAST_SETTINGS} needed"
    if not why and len(values.methods) < LEAST_METHODS:
        why = f"{len(values.methods)} methods, at least {LEAST_METHODS} needed"
    if not why and values.images < LEAST_IMAGES:
        why = f"{values.images} images, at least {LEAST_IMAGES} needed"
    if not why:
        means = values.means
        ranks = [ranked(means[setting].reindex(values.methods), values.metric).to_list() for setting in values.settings]
        w = kendall_w(ranks)
        beyond = beyond_chance(w, len(ranks))
        p = permutation_p(ranks)
        why = "all methods are tied under every setting" if np.isnan(w) else ""
    counts = [len(values.methods), len(values.settings), values.images]
    why = f"not testable: {why}" if why else ""
    row = [values.data, values.over, values.metric, w, beyond, p, *counts, why, values.left_out]
    return pd.DataFrame([row], columns=CONCORDANCE_COLUMNS)


def kendall_w(ranks: ArrayLike) -> float:
    """Kendall's W with the correction for ties (see the module).

    Args:
        ranks: of shape (settings, methods); tied methods share the mean of their ranks.

    Returns:
        W in [0, 1]; NaN where every setting ties all methods.
    """
    table = np.asarray(ranks, dtype=float)
    m, n = table.shape
    sums = table.sum(0)
    ties = sum(float((counts**3 - counts).sum()) for counts in (np.unique(row, return_counts=True)[1] for row in table))
    whole = m**2 * (n**3 - n) - m * ties
    return float(12 * ((sums - sums.mean()) ** 2).sum() / whole) if whole > 0 else nan


def beyond_chance(w: float, settings: int) -> float:
    """How far W lies above what random rankings give, 1 / settings, as a share of what it could: 0 chance, 1 full."""
    return (settings * w - 1) / (settings - 1)


def permutation_p(ranks: ArrayLike, seed: int = 0) -> float:
    """The share of random rankings whose W is at least as high; small where settings agree beyond chance.

    Each setting keeps its ranks, ties included, and gives them to the methods in random order. All orders are counted
    where there are at most 20000 (the first setting's is kept, which changes nothing); else 9999 are drawn, and the
    ranking itself counts as one more.

    Args:
        ranks: of shape (settings, methods).

    Returns:
        p in (0, 1]; NaN where every setting ties all methods.
    """
    table = np.asarray(ranks, dtype=float)
    if np.isnan(kendall_w(table)):
        return nan
    centred = table - table.mean(1, keepdims=True)
    least = (centred.sum(0) ** 2).sum() - 1e-9
    first, *others = centred
    if factorial(table.shape[1]) ** len(others) <= EVERY:
        orders = np.array(list(permutations(range(table.shape[1]))))
        sums = first[None]
        for row in others:
            sums = (sums[:, None] + row[orders][None]).reshape(-1, table.shape[1])
        return float(((sums**2).sum(1) >= least).mean())
    rng = np.random.default_rng(seed)
    drawn: NDArray[np.float64] = np.zeros((DRAWS, table.shape[1]))
    for row in centred:
        drawn += rng.permuted(np.broadcast_to(row, drawn.shape), axis=1)
    return float((((drawn**2).sum(1) >= least).sum() + 1) / (DRAWS + 1))


def _chosen(run: Run, metric: str, over: Over) -> pd.DataFrame:
    """The run's points of the metric's curves at its first k, or at its first operator, with their settings."""
    rows = run.curves[run.curves["kind"] == KIND_OF[metric]]
    operator, k = first_setting(run)
    rows = rows[np.isclose(rows["k"].astype(float), k) if over == "occlusion" else rows["occlusion"] == operator]
    return rows.assign(setting=[_word(value) for value in rows[over]])


def _absent_runs(runs: Sequence[Run], wide: pd.DataFrame, entered: set[int], methods: Sequence[str]) -> list[str]:
    """How many runs have no image that entered, with what each of them lacks; nothing where all entered."""
    whys: dict[str, list[str]] = {}
    for number, run in enumerate(runs):
        if number in entered:
            continue
        rows = wide[wide.index.get_level_values("run") == number]
        lacking = [name for name in methods if rows.xs(name, axis=1, level="method").isna().to_numpy().all()]
        why = "no image has all" if not lacking else f"without {', '.join(lacking)}"
        whys.setdefault(why if len(rows) else "without values under these settings", []).append(run.label)
    told = "; ".join(f"{', '.join(labels)} {why}" for why, labels in whys.items())
    return [f"{len(runs) - sum(map(len, whys.values()))} of {len(runs)} runs entered: {told}"] if whys else []


def _coverage(wide: pd.DataFrame, settings: Sequence[str], methods: Sequence[str]) -> dict[str, int]:
    """On how many images each method has a value under all settings."""
    there, images = wide.notna().to_numpy(), wide.groupby(level=IMAGE).ngroup().to_numpy()
    covered = {}
    for method in methods:
        places = wide.columns.get_indexer(pd.MultiIndex.from_product([settings, [method]]))
        whole = there[:, places].all(1) if len(places) and (places >= 0).all() else np.zeros(len(wide), bool)
        covered[method] = len(np.unique(images[whole]))
    return covered


def _order(rows: pd.DataFrame, over: str) -> list[str]:
    """Operators as the runs name them, k ascending."""
    values = list(rows[over].unique())
    return [_word(value) for value in (sorted(values) if over == "k" else values)]


def _word(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
