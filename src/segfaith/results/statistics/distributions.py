"""Behind the means: medians and absolute drops, strata of samples, leakage by area and distance, looks of the maps.

The relative metrics divide by s, so that a few samples with next to no score can rule their means. Here stand the
statistics that such samples do not rule, and the means within groups of samples. Unless said otherwise, a sample is a
pair of run and image and all samples count alike, while the tables average run by run. Undefined values are left out
and `n` is how many entered. `min_s` leaves out samples with a lower s.

Columns that older records lack give an empty table, or none of the data sets that lack them, with the reason in
`attrs["why"]`.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.lookup import lookup
from segfaith.results.records.identity import data_label
from segfaith.results.records.runs import Run
from segfaith.results.statistics.summary import NOTHING, SMALL_SCORE, TABLE_METRICS, Pair, measured

TRIM = 0.1
"""Share of the samples that a trimmed mean leaves out on each side."""
EDGES: dict[str, tuple[float, ...]] = {
    "s": (0.0, SMALL_SCORE, 0.3, 0.6, 0.9, 1.0),
    "target_area": (0.0, 0.01, 0.05, 0.15, 0.4, 1.0),
}
"""Borders of the strata; each holds its lower border, the last one also its upper."""
STRATA = (*EDGES, "class_index")
ROBUST_METRICS = tuple(name for name in TABLE_METRICS if name != "runtime_s")
DROPS = ("target_drop", "off_drop")
BANDS = ("odd_near", "odd_middle", "odd_far")
LEAKAGE = ("odd_abs", "odd_fair_abs", *(f"{band}_abs" for band in BANDS))
PROPERTIES = ("energy_inside", "pointing", "gini")

ROBUST_COLUMNS = ["data", "method", "metric", "mean", "median", "trimmed", "n", "small_s"]
DROP_COLUMNS = ["data", "method", "drop", "mean", "median", "trimmed", "n"]
STRATUM_COLUMNS = ["data", "stratum", "method", "mean", "median", "n"]
LEAKAGE_COLUMNS = ["data", "method", *LEAKAGE, "n"]
PROPERTY_COLUMNS = ["data", "method", *PROPERTIES, "target_area", "n"]
RANDOMISATION_MEANS = [
    *("data", "model", "method", "stage", "part", "spearman", "pearson", "s", "n", "constant", "failed"),
]


def robust(runs: Sequence[Pair], min_s: float | None = None) -> pd.DataFrame:
    """Mean, median and 10 % trimmed mean over all samples, of every metric of the table but the runtime.

    Returns:
        Columns data, method, metric, mean, median, trimmed (without the lowest and the highest tenth), n, small_s (how
        many of them have s < 0.05).
    """
    rows = []
    samples = _samples(runs, min_s)
    for data, method, part in _parts(samples):
        for metric in ROBUST_METRICS:
            if metric in part:
                own = part.dropna(subset=metric)
                small = int((own["s"] < SMALL_SCORE).sum())
                rows.append([data, method, metric, *_centres(own[metric]), len(own), small])
    return _table(rows, ROBUST_COLUMNS, NOTHING)


def absolute_drops(runs: Sequence[Pair], min_s: float | None = None) -> pd.DataFrame:
    """What TDD and OT abs are before they are divided by s, which cannot explode.

    target_drop = s - s(O(x, S_t)) and off_drop = |s - s(O(x, S_o))|, both probabilities in [-1, 1] and [0, 1]. Of
    random_cells the scores are means over its draws, so that its off_drop is at most the mean of its draws'.

    Returns:
        Columns data, method, drop (`target_drop` or `off_drop`), mean, median, trimmed, n.
    """
    rows = []
    samples = _samples(runs, min_s)
    for data, method, part in _parts(_with(samples, "s_target_deleted")):
        drops = {
            "target_drop": part["s"] - part["s_target_deleted"],
            "off_drop": (part["s"] - part["s_off_deleted"]).abs(),
        }
        for name in DROPS:
            values = drops[name].dropna()
            rows.append([data, method, name, *_centres(values), len(values)])
    return _table(rows, DROP_COLUMNS, _lacking("s_target_deleted", samples), samples)


def strata(
    runs: Sequence[Pair],
    metric: str,
    by: Literal["s", "target_area", "class_index"] = "s",
    min_s: float | None = None,
) -> pd.DataFrame:
    """A metric within groups of samples: by score, by the target's share of the pixels, or by class.

    Returns:
        Columns data, stratum (in words, in order; classes by their names), method, mean, median, n. Strata without
        samples do not appear.

    Raises:
        SettingsError: an unknown metric or `by`.
    """
    lookup("metric", metric, METRICS)
    if by not in STRATA:
        raise SettingsError(f"expected strata by one of {', '.join(STRATA)}, got {by!r}")
    samples = _samples(runs, min_s)
    both = _with(_with(samples, metric), by)
    if not len(both):
        return _table([], STRATUM_COLUMNS, _lacking(metric if not len(_with(samples, metric)) else by, samples))
    both = both.assign(stratum=both["class_name"] if by == "class_index" else _cut(both[by], by))
    order = both.sort_values(by, kind="stable")["stratum"].unique()
    rows = []
    for data, group in both.groupby("data", sort=False):
        for stratum in order:
            inside = group[group["stratum"] == stratum]
            for method in inside["method"].unique():
                values = inside.loc[inside["method"] == method, metric]
                rows.append([data, stratum, method, values.mean(), values.median(), len(values)])
    return _table(rows, STRATUM_COLUMNS, _lacking(f"{metric} and {by}", samples), samples)


def leakage(runs: Sequence[Pair], min_s: float | None = None) -> pd.DataFrame:
    """Leakage that is fair to the areas, and by distance to the target.

    OT abs deletes n(k, not M) pixels outside where TDD deletes n(k, M) inside, so that small targets leak more by
    construction. odd_fair_abs deletes n(k, M) pixels outside too. odd_near_abs, odd_middle_abs and odd_far_abs are the
    absolute drops by those pixels of S_o alone that lie within 16, within 16 to 48 and beyond 48 px (at 224) of the
    target: rises and falls of s do not cancel over images (of random_cells they do within an image, over its draws).

    Returns:
        Columns data, method, odd_abs, odd_fair_abs, odd_near_abs, odd_middle_abs, odd_far_abs (means over the samples
        that have odd_fair_abs), n (their number).
    """
    samples = _samples(runs, min_s)
    samples = samples.assign(**{f"{band}_abs": samples[band].astype(float).abs() for band in BANDS if band in samples})
    rows = [
        [data, method, *_means(part, LEAKAGE), len(part)]
        for data, method, part in _parts(_with(samples, "odd_fair_abs"))
    ]
    why = _lacking("odd_fair_abs", samples, '; measure it with [evaluation] leakage = "detailed"')
    return _table(rows, LEAKAGE_COLUMNS, why, samples)


def map_properties(runs: Sequence[Pair], min_s: float | None = None) -> pd.DataFrame:
    """What the maps look like: energy inside the target, pointing game, and sparseness (Gini coefficient).

    None of them says that a map is faithful. Of the values of a map drawn at random, energy and pointing are near
    target_area in the mean. A constant map is stored as zeros: its energy is NaN, its pointing is target_area.

    Returns:
        Columns data, method, energy_inside, pointing, gini, target_area (means), n (samples with a value of pointing).
    """
    samples = _samples(runs, min_s)
    rows = [
        [data, method, *_means(part, (*PROPERTIES, "target_area")), len(part)]
        for data, method, part in _parts(_with(samples, "pointing"))
    ]
    return _table(rows, PROPERTY_COLUMNS, _lacking("pointing", samples), samples)


def randomisation(data: Sequence[Run]) -> pd.DataFrame:
    """The sanity check of Adebayo et al. (2018): is the map another one once the model's weights are drawn anew?

    Stage 1 has a new head, each further stage one new part more. A map that stays alike (correlation near 1) does not
    depend on what the model learned.

    Returns:
        Columns data, model, method, stage, part, spearman, pearson, s (means; s is that of the model at this stage), n
        (samples with a Spearman correlation), constant (samples without one, as the map or the trained model's is
        constant), failed (samples without a map). Runs of one model with the same parts are taken together.
    """
    labels = pd.DataFrame({"data": [data_label(one.description) for one in data]})
    parts = [
        one.randomisation.assign(data=data_label(one.description), model=model)
        for one, model in zip(data, _models(data), strict=True)
        if len(one.randomisation)
    ]
    if not parts:
        return _table([], RANDOMISATION_MEANS, NOT_RANDOMISED)
    everything = pd.concat(parts, ignore_index=True)
    everything = everything[everything["status"] != "skipped"]
    rows = []
    for model in everything["model"].unique():
        for label, method, part in _parts(everything[everything["model"] == model]):
            stages = part.drop_duplicates(["stage", "part"]).sort_values("stage", kind="stable")
            for stage, name in zip(stages["stage"], stages["part"], strict=True):
                own = part[(part["stage"] == stage) & (part["part"] == name)]
                known, failed = int(own["spearman"].notna().sum()), int((own["status"] != "ok").sum())
                means = _means(own, ("spearman", "pearson", "s"))
                rows.append([label, model, method, int(stage), name, *means, known, len(own) - known - failed, failed])
    why = NOT_RANDOMISED if rows else "the randomisation check skipped all samples"
    return _table(rows, RANDOMISATION_MEANS, why, labels)


def _models(data: Sequence[Run]) -> list[str]:
    """What each run's model is called: by name, where that tells them apart, else by weights too, else by its runs."""
    keys = []
    for one in data:
        model, stages = one.description["model"], one.randomisation.drop_duplicates("stage").sort_values("stage")
        keys.append((str(model["name"]), str(model["weights"]), tuple(stages["part"].astype(str))))
    distinct = set(keys)
    labels = []
    for name, weights, parts in keys:
        runs = [one.label for one, key in zip(data, keys, strict=True) if key == (name, weights, parts)]
        if len([key for key in distinct if key[0] == name]) == 1:
            labels.append(name)
        elif len([key for key in distinct if key[:2] == (name, weights)]) == 1:
            labels.append(f"{name}, {weights}")
        else:
            labels.append(f"{name} ({', '.join(runs)})")
    return labels


def unfinished_checks(data: Sequence[Run]) -> list[str]:
    """A sentence for each run whose randomisation check was stopped before its last part."""
    return [
        f"{one.label}: the randomisation check was stopped after stage {int(one.randomisation['stage'].max())}; the "
        "later parts were not drawn anew: make it again."
        for one in data
        if len(one.randomisation) and not one.randomisation["finished"].astype(bool).all()
    ]


NOT_RANDOMISED = "no run has made the randomisation check: no rows in randomisation.parquet"


def _with(samples: pd.DataFrame, column: str) -> pd.DataFrame:
    """The samples that have a value of the column, which older records may lack."""
    return samples[samples[column].notna()] if column in samples else samples.iloc[:0]


def _lacking(column: str, samples: pd.DataFrame, advice: str = "") -> str:
    if not len(samples):
        return NOTHING
    return f"no run has values of {column}: an older version made them, or it was not asked for{advice}"


def _samples(runs: Sequence[Pair], min_s: float | None) -> pd.DataFrame:
    """All measured rows with the data set's label and the class's name."""
    parts = []
    for description, records in runs:
        part = measured(records, min_s)
        names = description["model"].get("classes") or []
        classes = part["class_index"] if "class_index" in part else pd.Series(np.nan, part.index)
        words = [_class(value, names) for value in classes]
        parts.append(part.assign(data=data_label(description), class_index=classes, class_name=words))
    columns = ["data", "method", "s", "target_area", "class_index", "class_name"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def _class(index: float | None, names: Sequence[str]) -> str:
    if index is None or pd.isna(index):
        return "no class"
    return names[int(index)] if int(index) < len(names) else f"class {int(index)}"


def _cut(values: pd.Series, by: str) -> list[str]:
    """The stratum of each value in words."""
    edges = EDGES[by]
    sign, unit, factor = ("s", "", 1) if by == "s" else ("area", " %", 100)
    words = [f"{low * factor:g} <= {sign} < {high * factor:g}{unit}" for low, high in pairwise(edges)]
    words[-1] = words[-1].replace(f"{sign} <", f"{sign} <=")
    places = np.searchsorted(edges, values.to_numpy(float), side="right") - 1
    return [words[min(max(place, 0), len(words) - 1)] for place in places.tolist()]


def _parts(samples: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """The samples of each data set and method, in the order of the records."""
    keys = samples[["data", "method"]].drop_duplicates()
    return [
        (data, method, samples[(samples["data"] == data) & (samples["method"] == method)])
        for data, method in zip(keys["data"], keys["method"], strict=True)
    ]


def _centres(values: pd.Series) -> list[float]:
    """Mean, median and trimmed mean."""
    if not len(values):
        return [np.nan] * 3
    numbers = values.to_numpy(float)
    return [float(numbers.mean()), float(np.median(numbers)), float(stats.trim_mean(numbers, TRIM))]


def _means(part: pd.DataFrame, columns: Sequence[str]) -> list[float]:
    return [float(part[name].astype(float).mean()) if name in part else np.nan for name in columns]


def _table(
    rows: Sequence[Sequence[object]], columns: Sequence[str], why: str, samples: pd.DataFrame | None = None
) -> pd.DataFrame:
    """`attrs["why"]` says why there are no rows at all, or none of some of the data sets among the samples."""
    table = pd.DataFrame(rows, columns=list(columns))
    lacking = [] if samples is None else [one for one in samples["data"].unique() if one not in set(table["data"])]
    table.attrs["why"] = why if not len(table) else f"{', '.join(lacking)}: {why}" if lacking else ""
    return table
