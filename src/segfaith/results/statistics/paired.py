"""Significance of differences between methods: paired tests, effect sizes and intervals, from records, without torch.

The unit is the image. Within one data set, the values of an image are first averaged over its targets and then over its
runs, so that an image that several runs drew counts once, and so does one with several targets; what is compared are
two methods on the same targets of the same images. A value counts only where the run has it of both methods, so that an
easy run or target never counts for one of them alone. Runs that differ in methods'
parameters alone, as ablations do, are one run here (`identity.own_numbers`).

Images are all that is drawn at random here: p-values and intervals speak of other images of the data set, under the
mean over these runs. They do not speak of other models or seeds, and with one run that mean may be the quirk of one
model under one seed. A single run is therefore not testable unless `single_run=True` asks for it; what it then gives
holds for that run alone. Spread between runs and win counts need several runs whatever is asked (`summary`).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import inf, nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.lookup import lookup
from segfaith.results.records.identity import own_numbers
from segfaith.results.records.runs import Run
from segfaith.results.records.schema import TARGET
from segfaith.results.records.select import methods_of, under_test
from segfaith.results.statistics import power
from segfaith.results.statistics.averaging import Averages
from segfaith.results.statistics.intervals import POOLED, estimate, quantity, weights_of
from segfaith.results.statistics.wilcoxon import holm, rank_biserial, wilcoxon

TESTED = ("fidelity", "fidelity_outside", "tdd", "tdd_gain", "odd_abs", "leak_abs", "insertion_gain", "stability")
"""Metrics of the page; `tdd_gain` subtracts one control from both, so that its pairs differ as those of `tdd` do."""
REPEATS = {"tdd_gain": "tdd", "tdd_drop_gain": "tdd_drop"}
"""Metrics that subtract one control from both methods of a pair, and the metric whose differences are then the same."""
ALPHA = power.ALPHA
LEAST_DIFFERENCES = 6
"""Wilcoxon: with fewer differences that are not zero, no outcome has a two-sided p below .05 (2 / 2^5 = .0625)."""
ONE_RUN = (
    "one run, which says nothing of other seeds or models; add runs, or ask with single_run=True (--single-run) "
    "for what holds of this run alone"
)
CHANCE, MASK = "random_cells", "mask"
"""The control that is as coarse as RIA's map, and so the fair one."""
DECIMALS = 12
"""Differences are rounded to this, so that what floats add in rounding is neither a difference nor breaks a tie."""
COLUMNS = (
    *("data", "metric", "first", "second", "images", "runs", "of", "value_first", "value_second", "difference", "low"),
    *("high", "effect", "statistic", "p", "p_holm", "significant", "p_method", "images_needed", "note", "why"),
)
PAGE_COLUMNS = ("p_page", "apart", "repeats")
"""What `over_page` adds."""


@dataclass(frozen=True, eq=False)
class Paired:
    """A metric's values by image, from which the tests, ranks, wins and claims of one data set are computed.

    Attributes:
        data: the data set's label.
        values: a row per (own, run, sample_id, target), a column per method; NaN where undefined, not ok or infinite.
            `own` numbers the runs of their own, see `identity.own_numbers`.
        s: of the same rows.
        methods: all that any of the runs holds, with or without a value, in the order of the records.
    """

    data: str
    metric: str
    values: pd.DataFrame
    s: pd.Series
    methods: tuple[str, ...]

    @cached_property
    def by_image(self) -> Averages:
        """How the rows are averaged by image."""
        return Averages.of(self.values.index)

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """What the drops of each row were divided by, (rows,)."""
        return weights_of(self.s.reindex(self.values.index)).to_numpy(float)

    @cached_property
    def _columns(self) -> dict[Any, NDArray[np.float64]]:
        return {name: self.values[name].to_numpy(float) for name in self.values}

    def column(self, method: str) -> NDArray[np.float64]:
        """The values of a method, (rows,); all NaN where no run holds it."""
        return self._columns.get(method, np.full(len(self.values), nan))

    def both(self, first: str, second: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The values of two methods, (rows, 2), and which rows have both."""
        values = np.stack([self.column(first), self.column(second)], 1)
        return values, ~(np.isnan(values[:, 0]) | np.isnan(values[:, 1]))

    @property
    def beside_chance(self) -> bool:
        """Whether random cells and any method under test have a value."""
        known = self.values.dropna(axis=1, how="all").columns
        return CHANCE in known and bool(under_test(known))


def paired(runs: Sequence[Run], metric: str) -> Paired:
    """The values of a metric in the runs of one data set.

    Raises:
        SettingsError: an unknown metric.
    """
    lookup("metric", metric, METRICS)
    own = own_numbers([run.description for run in runs])
    parts = [
        run.measured.reindex(columns=[*TARGET, "method", metric, "s"]).assign(run=number, own=own[number])
        for number, run in enumerate(runs)
    ]
    rows = pd.concat(parts, ignore_index=True).astype({metric: float, "s": float}).replace([inf, -inf], nan)
    keys = ["own", "run", *TARGET]
    values: pd.DataFrame = rows.groupby([*keys, "method"])[metric].mean().unstack("method")
    return Paired(runs[0].data, metric, values, rows.groupby(keys)["s"].mean(), tuple(methods_of(runs)))


def compare(
    images: Paired, methods: Sequence[str] | None = None, *, single_run: bool = False, seed: int = 0
) -> pd.DataFrame:
    """Each pair of methods over the images of a data set, a row per pair.

    Wilcoxon's signed-rank test, two-sided, of the differences d_i = first - second of image i, with Pratt's zeros (they
    are ranked, then left out of the sums). Its p-value is exact for up to 50 images without zeros and ties; otherwise
    by 9999 draws of signs (all, where there are no more) with fewer than 25 differences that are not zero, and by the
    normal approximation with more. Holm's correction is over all pairs of one data set and metric that were
    testable. The difference and its 95 % interval are of the metric's quantity (`intervals`: the pooled drop, trimmed
    mean or mean over images). A few outliers can set it, so that typical images, and the test's ranks, say the
    opposite; the note then says so.

    Args:
        images: of `paired`.
        methods: to compare, of `family`; by default the family of these runs. Each further pair makes Holm's correction
            harsher for all. A pair whose method no run of the data set holds is not testable.
        single_run: also tests where one run alone has both methods; see the module.
        seed: of the permutations.

    Returns:
        Columns data, metric, first, second, images (with both values), runs (of their own, that hold both), of (the
        quantity), value_first, value_second, difference (the quantity of first - second image by image; of trimmed
        means not the difference of the two values), low, high (NaN below 20 images), effect (see `rank_biserial`;
        positive: first has the larger values), statistic (the smaller sum of ranks), p, p_holm, significant (p_holm <
        .05), p_method (exact, permutation or asymptotic), images_needed (see `needed`), note, and why: empty, or "not
        testable: ...". In that case the counts, the two values, the difference and images_needed are all that is given,
        the others are NaN and significant is False.
    """
    rows = [
        _pair(images, first, second, single_run=single_run, seed=seed)
        for first, second in combinations(family(images.methods) if methods is None else methods, 2)
    ]
    return pd.DataFrame(_corrected(images, rows), columns=list(COLUMNS))


def over_page(table: pd.DataFrame) -> pd.DataFrame:
    """The pairs by all metrics with Holm's correction over all of their tests, for a page shows them all.

    Where both methods' values are less one and the same control, as those of TDD gain are, the differences are those of
    the metric without it, and so is the test: it is named as a repetition, is not counted again, and has the p-value of
    the test that it repeats. A pair whose control lacks some images is a test of its own.

    Args:
        table: rows of `compare` of one data set, of one metric below the other.

    Returns:
        The table with p_page (corrected over all tests of all metrics; NaN where not testable), apart (p_page < .05)
        and repeats (the metric whose test it is, or "").
    """
    rows = {(row["metric"], row["first"], row["second"]): row for row in table.to_dict("records")}
    repeated = {key: origin for key, row in rows.items() if (origin := _origin(row, rows)) is not None}
    tested = [key for key, row in rows.items() if not row["why"] and key not in repeated]
    corrected = dict(zip(tested, holm([rows[key]["p"] for key in tested]).tolist(), strict=True))
    p_page = [corrected.get(repeated.get(key, key), nan) for key in rows]
    repeats = [repeated[key][0] if key in repeated else "" for key in rows]
    return table.assign(p_page=p_page, apart=[p < ALPHA for p in p_page], repeats=repeats)


def _origin(row: dict[Any, Any], rows: dict[Any, dict[Any, Any]]) -> tuple[str, str, str] | None:
    """The key of the test that a row repeats, or None."""
    key = (REPEATS.get(row["metric"], ""), row["first"], row["second"])
    other = rows.get(key)
    if other is None or row["why"] or other["why"] or row["images"] != other["images"]:
        return None
    same = np.isclose([row["effect"], row["p"]], [other["effect"], other["p"]], rtol=0, atol=1e-9)
    return key if same.all() else None


def against(images: Paired, methods: Sequence[str], control: str = CHANCE, *, seed: int = 0) -> pd.DataFrame:
    """Each method against one control, with Holm's correction over these pairs alone; one run alone is tested too.

    The question is whether each method beats the control. The pairs of methods among each other are no part of it, so
    that the answer for a method hardly depends on which other methods were run.

    Args:
        methods: those that the runs do not hold are left out.

    Returns:
        The columns of `compare`, a row per method; empty where no run holds the control.
    """
    held = [name for name in methods if name in images.methods] if control in images.methods else []
    rows = [_pair(images, name, control, single_run=True, seed=seed) for name in held]
    return pd.DataFrame(_corrected(images, rows), columns=list(COLUMNS))


def family(known: Iterable[str], methods: Sequence[str] | None = None, *, chance: bool = True) -> list[str]:
    """The methods whose pairs are tested together, in the order of `known` or of `methods`.

    By default the methods under test, without controls and variants, and with `chance` also `random_cells`, so that
    each method is held against a map that knows nothing and is as coarse. It adds a pair for each method.

    Args:
        known: the methods of the runs, of all data sets.
        methods: named ones, as in the records.

    Raises:
        SettingsError: methods that are not among the known ones, or fewer than two different ones.
    """
    known = list(dict.fromkeys(known))
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


def difference(images: Paired, first: str, second: str) -> dict[str, Any]:
    """The metric's quantity of two methods and of their difference, over the images that have both.

    Returns:
        images, runs, of, value_first, value_second, difference, low, high, and no_interval (why there is none).
    """
    of, weights = quantity(images.metric), images.weights
    values, rows = images.both(first, second)
    drops = values * weights[:, None] if of == POOLED else values
    ours, theirs, weight = images.by_image.means(np.column_stack([drops, weights]), rows).T
    estimated = estimate(ours - theirs, weight, of)
    runs = len(np.unique(images.values.index.get_level_values("own")[rows]))
    return {
        **{"images": len(ours), "runs": runs, "of": of},
        **{"value_first": estimate(ours, weight, of).value, "value_second": estimate(theirs, weight, of).value},
        **{"difference": estimated.value, "low": estimated.low, "high": estimated.high, "no_interval": estimated.why},
    }


def image_differences(images: Paired, first: str, second: str) -> NDArray[np.float64]:
    """first - second of each image that has both, (n,), rounded so that no difference is one of rounding alone."""
    means = images.by_image.means(*images.both(first, second))
    return np.round(means[:, 0] - means[:, 1], DECIMALS)


def needed(differences: NDArray[np.float64]) -> float:
    """`power.images_needed`; NaN where fewer than six differences are not zero, of which nothing can be said."""
    return power.images_needed(differences) if np.count_nonzero(differences) >= LEAST_DIFFERENCES else nan


def _corrected(images: Paired, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows with data and metric, and with Holm's correction over those that were tested."""
    tested = [row for row in rows if not row["why"]]
    if tested:
        for row, p_holm in zip(tested, holm([row["p"] for row in tested]).tolist(), strict=True):
            row |= {"p_holm": p_holm, "significant": p_holm < ALPHA}
    return [{"data": images.data, "metric": images.metric} | row for row in rows]


def _pair(images: Paired, first: str, second: str, *, single_run: bool, seed: int) -> dict[str, Any]:
    """The row of one pair, without p_holm."""
    differences = image_differences(images, first, second)
    estimated = difference(images, first, second)
    no_interval = estimated.pop("no_interval")
    row: dict[str, Any] = {
        **{"first": first, "second": second, **estimated},
        **{"effect": nan, "statistic": nan, "p": nan, "p_holm": nan, "significant": False, "p_method": ""},
        "images_needed": needed(differences),
    }
    missing = [name for name in (first, second) if name not in images.methods]
    empty = [name for name in (first, second) if np.isnan(images.column(name)).all()]
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
        method, statistic, p = wilcoxon(differences, seed)
        effect = rank_biserial(differences)
        if p < ALPHA and effect * row["difference"] < 0:
            notes.append(f"the {row['of']} says the opposite of typical images; a few outliers set it")
        tested = {"effect": effect, "statistic": statistic, "p": p, "p_method": method}
        return row | tested | {"note": "; ".join(notes), "why": ""}
    return row | {"low": nan, "high": nan, "note": "", "why": f"not testable: {why}"}
