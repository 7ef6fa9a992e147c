"""Significance of differences between methods: paired tests, effect sizes and intervals, from records, without torch.

The unit is the image. Within one data set, the values of an image are first averaged over its runs, so that an image
that several runs drew counts once; what is compared are two methods on the same images. A value counts only where the
run has it of both methods, so that an easy run never counts for one of them alone.

Images are all that is drawn at random here: p-values and intervals speak of other images of the data set, under the
mean over these runs. They do not speak of other models or seeds, and with one run that mean may be the quirk of one
model under one seed. A single run is therefore not testable unless `single_run=True` asks for it; what it then gives
holds for that run alone. Spread between runs and win counts need several runs whatever is asked (`results.tables`).
"""

import warnings
from collections.abc import Sequence
from itertools import combinations
from math import inf, isnan, nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.lookup import lookup
from segfaith.results.selection import under_test
from segfaith.results.tables import Run, by_data, measured

TESTED = ("tdd", "tdd_gain", "odd_abs", "leak_abs", "insertion_gain", "stability")
"""Metrics of the page; `tdd_gain` subtracts one control from both, so that its pairs differ as those of `tdd` do."""
ALPHA = 0.05
LEAST_DIFFERENCES = 6
"""Wilcoxon: with fewer differences that are not zero, no outcome has a two-sided p below .05 (2 / 2^5 = .0625)."""
EXACT, PERMUTED = 50, 25
"""Up to so many images the exact distribution; below so many differences that are not zero, permutations."""
ONE_RUN = (
    "one run, which says nothing of other seeds or models; add runs, or ask with single_run=True (--single-run) "
    "for what holds of this run alone"
)
CHANCE = "random_cells"
"""The control that is as coarse as RIA's map, and so the fair one."""
RESAMPLES = 9999
DECIMALS = 12
"""Differences are rounded to this, so that what floats add in rounding is neither a difference nor breaks a tie."""
COLUMNS = (
    *("data", "metric", "first", "second", "images", "runs", "mean_first", "mean_second", "difference", "low", "high"),
    *("effect", "statistic", "p", "p_holm", "significant", "p_method", "note", "why"),
)


def compare(
    runs: Sequence[Run],
    metric: str,
    min_s: float | None = None,
    *,
    methods: Sequence[str] | None = None,
    single_run: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """Each pair of methods over the images of a data set; one row per data set and pair.

    Wilcoxon's signed-rank test, two-sided, of the differences d_i = first - second of image i, with Pratt's zeros (they
    are ranked, then left out of the sums). Its p-value is exact for up to 50 images without zeros and ties; otherwise
    by 9999 draws of signs (all, where there are no more) with fewer than 25 differences that are not zero, and by the
    normal approximation with more. Holm's correction is over all pairs of one data set and metric that were
    testable. The interval is BCa (Efron 1987) at 95 %, of the mean difference, by drawing images, which is the cluster
    bootstrap since each image holds all its runs; its mean and the test's ranks may disagree where few images rule the
    mean, and the note then says so.

    Args:
        metric: of `METRICS`.
        min_s: leaves out samples with a lower s.
        methods: to compare, as in the records. By default the methods under test and `random_cells`, see `family`:
            each further pair makes Holm's correction harsher for all.
        single_run: also tests where one run alone has both methods; see the module.
        seed: of the bootstrap and the permutations.

    Returns:
        Columns data, metric, first, second, images (with both values), runs (that hold both), mean_first, mean_second,
        difference (mean of first - second), low, high, effect (see `rank_biserial`; positive: first has the larger
        values), statistic (the smaller sum of ranks), p, p_holm, significant (p_holm < .05), p_method (exact,
        permutation or asymptotic), note, and why: empty, or "not testable: ...". In that case the counts and the three
        means are all that is given, the others are NaN and significant is False.

    Raises:
        SettingsError: an unknown metric; methods that no run holds, or fewer than two different ones.
    """
    lookup("metric", metric, METRICS)
    names = family(runs, methods)
    rows: list[dict[str, Any]] = []
    for data, group in by_data(runs).items():
        values = paired(group, metric, min_s)
        held = {name for _, records in group for name in records["method"]}
        pairs = [
            {"data": data, "metric": metric} | _pair(values, first, second, held, single_run=single_run, seed=seed)
            for first, second in combinations(names, 2)
        ]
        tested = [row for row in pairs if not row["why"]]
        if tested:
            corrected = multipletests([row["p"] for row in tested], alpha=ALPHA, method="holm")[1]
            for row, p_holm in zip(tested, corrected, strict=True):
                row |= {"p_holm": float(p_holm), "significant": bool(p_holm < ALPHA)}
        rows += pairs
    return pd.DataFrame(rows, columns=list(COLUMNS))


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


def family(runs: Sequence[Run], methods: Sequence[str] | None = None, *, chance: bool = True) -> list[str]:
    """The methods whose pairs are tested together, those of all data sets, in the order of the records or of `methods`.

    By default the methods under test, without controls and variants, and with `chance` also `random_cells`, so that
    each method is held against a map that knows nothing and is as coarse. It adds a pair for each method.

    Raises:
        SettingsError: methods that no run holds, or fewer than two different ones.
    """
    known = list(dict.fromkeys(name for _, records in runs for name in records["method"]))
    if methods is None:
        own = under_test(known)
        return [*own, CHANCE] if chance and own and CHANCE in known else own
    unknown = [name for name in methods if name not in known]
    if unknown:
        raise SettingsError(
            f"expected methods of these runs ({', '.join(known)}); came {', '.join(unknown)}, which no run holds: "
            "write them as in the column method of the records"
        )
    if len(set(methods)) < 2 or len(set(methods)) < len(methods):
        raise SettingsError(f"expected two or more different methods to compare; came {', '.join(methods) or 'none'}")
    return list(methods)


def paired(group: Sequence[Run], metric: str, min_s: float | None) -> pd.DataFrame:
    """A row per run and sample, a column per method; NaN where undefined, skipped, failed or infinite."""
    parts = [
        measured(records, min_s).reindex(columns=["sample_id", "method", metric]).assign(run=number)
        for number, (_, records) in enumerate(group)
    ]
    rows = pd.concat(parts, ignore_index=True).astype({metric: float}).replace([inf, -inf], nan)
    values: pd.DataFrame = rows.groupby(["run", "sample_id", "method"])[metric].mean().unstack("method")
    return values


def _pair(
    values: pd.DataFrame, first: str, second: str, held: set[str], *, single_run: bool, seed: int
) -> dict[str, Any]:
    """The row of one pair, without p_holm."""
    both = values.reindex(columns=[first, second]).dropna()
    images = both.groupby("sample_id").mean()
    differences = (images[first] - images[second]).to_numpy(float).round(DECIMALS)
    runs = both.index.get_level_values("run").nunique()
    row: dict[str, Any] = {
        **{"first": first, "second": second, "images": len(images), "runs": runs},
        **{"mean_first": images[first].mean(), "mean_second": images[second].mean()},
        **{"difference": float(differences.mean()) if len(differences) else nan, "low": nan, "high": nan},
        **{"effect": nan, "statistic": nan, "p": nan, "p_holm": nan, "significant": False, "p_method": ""},
    }
    missing = [name for name in (first, second) if name not in held]
    empty = [name for name in (first, second) if values.reindex(columns=[name])[name].isna().all()]
    changed = int(np.count_nonzero(differences))
    if missing:
        why = f"no run of these data holds {' or '.join(missing)}"
    elif empty:
        why = f"{' and '.join(empty)} {'has' if len(empty) == 1 else 'have'} no defined value here"
    elif not len(differences):
        why = "no image has a value of both in the same run"
    elif runs == 1 and not single_run:
        why = ONE_RUN
    elif not changed:
        why = f"all differences are zero ({len(differences)} images)"
    elif changed < LEAST_DIFFERENCES:
        why = f"{changed} images with a difference, at least {LEAST_DIFFERENCES} needed"
    else:
        return row | _test(differences, seed, ["one run: says nothing of other seeds or models"] if runs == 1 else [])
    return row | {"note": "", "why": f"not testable: {why}"}


def _test(differences: NDArray[np.float64], seed: int, notes: list[str]) -> dict[str, Any]:
    """Wilcoxon's test, effect and interval of one pair."""
    method, statistic, p = _wilcoxon(differences, seed)
    low, high = _interval(differences, seed)
    effect = rank_biserial(differences)
    if isnan(low):
        notes.append("no interval: all differences are equal")
    if p < ALPHA and effect * differences.mean() < 0:
        notes.append("the mean points the other way than the ranks: few images rule it")
    return {
        **{"low": low, "high": high, "effect": effect, "statistic": statistic, "p": p},
        **{"p_method": method, "note": "; ".join(notes), "why": ""},
    }


def _wilcoxon(differences: NDArray[np.float64], seed: int) -> tuple[str, float, float]:
    """How p was found, the smaller sum of ranks, and the two-sided p (see `compare`)."""
    changed = np.count_nonzero(differences)
    plain = changed == len(differences) == len(np.unique(np.abs(differences)))
    name = "exact" if plain and len(differences) <= EXACT else "permutation" if changed < PERMUTED else "asymptotic"
    draws = stats.PermutationMethod(n_resamples=RESAMPLES, batch=1000, rng=np.random.default_rng(seed))
    how: Any = draws if name == "permutation" else name  # scipy's stubs do not know "asymptotic"
    result = stats.wilcoxon(differences, zero_method="pratt", method=how)
    return name, float(result.statistic), float(result.pvalue)


def _interval(differences: NDArray[np.float64], seed: int) -> tuple[float, float]:
    """95 % BCa interval of the mean; NaN where all values are equal, so that nothing varies from draw to draw."""
    if np.ptp(differences) == 0:
        return nan, nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            (differences,),
            np.mean,
            n_resamples=RESAMPLES,
            batch=max(1, 2_000_000 // len(differences)),
            vectorized=True,
            confidence_level=1 - ALPHA,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return float(interval.low), float(interval.high)
