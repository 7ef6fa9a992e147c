"""Significance of differences between methods: paired tests, effect sizes and intervals, from records, without torch.

The unit is the image. Within one data set, the values of an image are first averaged over its runs, so that an image
that several runs drew counts once; what is compared are two methods on the same images. A value counts only where the
run has it of both methods, so that an easy run never counts for one of them alone. Runs that differ in methods'
parameters alone, as ablations do, are one run here (`distinct`).

Images are all that is drawn at random here: p-values and intervals speak of other images of the data set, under the
mean over these runs. They do not speak of other models or seeds, and with one run that mean may be the quirk of one
model under one seed. A single run is therefore not testable unless `single_run=True` asks for it; what it then gives
holds for that run alone. Spread between runs and win counts need several runs whatever is asked (`results.tables`).
"""

from collections.abc import Sequence
from itertools import combinations
from math import inf, nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.multitest import multipletests

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.lookup import lookup
from segfaith.results.records.identity import own_numbers
from segfaith.results.records.select import under_test
from segfaith.results.statistics.intervals import by_image, estimate, numerators, quantity
from segfaith.results.statistics.summary import Pair, by_data, measured

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
    *("data", "metric", "first", "second", "images", "runs", "of", "value_first", "value_second", "difference", "low"),
    *("high", "effect", "statistic", "p", "p_holm", "significant", "p_method", "note", "why"),
)


def compare(
    runs: Sequence[Pair],
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
    testable. The difference and its 95 % interval are of the metric's quantity (`intervals`: the pooled drop, trimmed
    mean or mean over images), which may point the other way than the test's ranks where few images rule it; the note
    then says so.

    Args:
        metric: of `METRICS`.
        min_s: leaves out samples with a lower s.
        methods: to compare, as in the records. By default the methods under test and `random_cells`, see `family`:
            each further pair makes Holm's correction harsher for all.
        single_run: also tests where one run alone has both methods; see the module.
        seed: of the permutations.

    Returns:
        Columns data, metric, first, second, images (with both values), runs (of their own, that hold both), of (the
        quantity), value_first, value_second, difference (the quantity of first - second image by image; of trimmed
        means not the difference of the two values), low, high (NaN below 20 images), effect (see `rank_biserial`;
        positive: first has the larger values), statistic (the smaller sum of ranks), p, p_holm, significant (p_holm <
        .05), p_method (exact, permutation or asymptotic), note, and why:
        empty, or "not testable: ...". In that case the counts, the two values and the difference are all that is
        given, the others are NaN and significant is False.

    Raises:
        SettingsError: an unknown metric; methods that no run holds, or fewer than two different ones.
    """
    lookup("metric", metric, METRICS)
    names = family(runs, methods)
    rows: list[dict[str, Any]] = []
    for data, group in by_data(runs).items():
        values, s = paired(group, metric, min_s)
        held = {name for _, records in group for name in records["method"]}
        pairs = [
            {"data": data, "metric": metric}
            | _pair(values, s, metric, first, second, held, single_run=single_run, seed=seed)
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


def family(runs: Sequence[Pair], methods: Sequence[str] | None = None, *, chance: bool = True) -> list[str]:
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


def paired(group: Sequence[Pair], metric: str, min_s: float | None) -> tuple[pd.DataFrame, pd.Series]:
    """Values and s, a row per (own, run, sample_id), a column per method; NaN where undefined, not ok or infinite.

    `own` numbers the runs of their own (see `distinct`).
    """
    parts = [
        measured(records, min_s).reindex(columns=["sample_id", "method", metric, "s"]).assign(run=number, own=own)
        for (number, (_, records)), own in zip(
            enumerate(group), own_numbers([description for description, _ in group]), strict=True
        )
    ]
    rows = pd.concat(parts, ignore_index=True).astype({metric: float, "s": float}).replace([inf, -inf], nan)
    keys = ["own", "run", "sample_id"]
    values: pd.DataFrame = rows.groupby([*keys, "method"])[metric].mean().unstack("method")
    return values, rows.groupby(keys)["s"].mean()


def difference(values: pd.DataFrame, s: pd.Series, metric: str, first: str, second: str) -> dict[str, Any]:
    """The metric's quantity of two methods and of their difference, over the images that have both.

    Args:
        values, s: as `paired` gives them.

    Returns:
        images, runs, of, value_first, value_second, difference, low, high, and no_interval (why there is none).
    """
    both, of = values.reindex(columns=[first, second]).dropna(), quantity(metric)
    drops, weights = numerators(both, s.reindex(both.index), of)
    images = by_image(drops.assign(weights=weights))
    ours, theirs, weight = (images[name].to_numpy(float) for name in (first, second, "weights"))
    found = estimate(ours - theirs, weight, of)
    return {
        **{"images": len(images), "runs": both.index.get_level_values("own").nunique(), "of": of},
        **{"value_first": estimate(ours, weight, of).value, "value_second": estimate(theirs, weight, of).value},
        **{"difference": found.value, "low": found.low, "high": found.high, "no_interval": found.why},
    }


def _pair(
    values: pd.DataFrame,
    s: pd.Series,
    metric: str,
    first: str,
    second: str,
    held: set[str],
    *,
    single_run: bool,
    seed: int,
) -> dict[str, Any]:
    """The row of one pair, without p_holm."""
    images = by_image(values.reindex(columns=[first, second]).dropna())
    differences = (images[first] - images[second]).to_numpy(float).round(DECIMALS)
    found = difference(values, s, metric, first, second)
    no_interval = found.pop("no_interval")
    row: dict[str, Any] = {
        **{"first": first, "second": second, **found},
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
    elif row["runs"] == 1 and not single_run:
        why = ONE_RUN
    elif not changed:
        why = f"all differences are zero ({len(differences)} images)"
    elif changed < LEAST_DIFFERENCES:
        why = f"{changed} images with a difference, at least {LEAST_DIFFERENCES} needed"
    else:
        notes = ["one run: says nothing of other seeds or models"] if row["runs"] == 1 else []
        notes += [no_interval] if no_interval else []
        method, statistic, p = _wilcoxon(differences, seed)
        effect = rank_biserial(differences)
        if p < ALPHA and effect * row["difference"] < 0:
            notes.append(f"the {row['of']} points the other way than the ranks: few images rule it")
        tested = {"effect": effect, "statistic": statistic, "p": p, "p_method": method}
        return row | tested | {"note": "; ".join(notes), "why": ""}
    return row | {"low": nan, "high": nan, "note": "", "why": f"not testable: {why}"}


def _wilcoxon(differences: NDArray[np.float64], seed: int) -> tuple[str, float, float]:
    """How p was found, the smaller sum of ranks, and the two-sided p (see `compare`)."""
    changed = np.count_nonzero(differences)
    plain = changed == len(differences) == len(np.unique(np.abs(differences)))
    name = "exact" if plain and len(differences) <= EXACT else "permutation" if changed < PERMUTED else "asymptotic"
    draws = stats.PermutationMethod(n_resamples=RESAMPLES, batch=1000, rng=np.random.default_rng(seed))
    how: Any = draws if name == "permutation" else name  # scipy's stubs do not know "asymptotic"
    result = stats.wilcoxon(differences, zero_method="pratt", method=how)
    return name, float(result.statistic), float(result.pvalue)
