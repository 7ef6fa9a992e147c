"""The report's sections on how far results can be trusted: curves, rankings, leakage, strata, randomisation.

Every function takes the label of one data set and its runs, and gives the parts of a section about it; what was not
measured is said in place of it.
"""

from collections.abc import Callable, Mapping, Sequence
from math import isnan, nan
from typing import Any, Literal

import pandas as pd
from markupsafe import Markup

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.identity import slug
from segfaith.results.records.runs import Run
from segfaith.results.records.select import is_control, method_order, own_methods, without_variants
from segfaith.results.report.blocks import (
    Cell,
    Charts,
    Column,
    Fold,
    Prose,
    Table,
    count,
    figure,
    metric_column,
    name_cell,
    number,
    p_words,
    quiet,
    ref,
    rows_by,
    whole,
    words,
)
from segfaith.results.report.page_charts import Line, key, lines
from segfaith.results.statistics import leakage as leakage_tables
from segfaith.results.statistics import maps, rankings
from segfaith.results.statistics import randomisation as randomisation_check
from segfaith.results.statistics.analysis import OVERS, DataAnalysis, analyse
from segfaith.results.statistics.curves import CURVE_KINDS
from segfaith.results.statistics.intervals import LEAST_IMAGES

KINDS = {
    "target_deletion": ("Deletion in the target", "tdd"),
    "off_deletion": ("Deletion outside it", "odd"),
    "off_deletion_abs": ("Deletion outside it, absolute", "odd_abs"),
    "insertion": ("Insertion in the target", "insertion_gain"),
}
"""Kinds of curves: title and the metric that a point is."""
METHOD = Column("Method", "method", numeric=False)


def curves(label: str, group: Sequence[Run]) -> list[Any]:
    """Curves over k, a panel per kind, and their areas."""
    shown = [without_variants(one) for one in group]
    part = analyse(shown).parts[0]
    means = part.curve_means
    if means.empty or means["k"].nunique() < 2:
        why = means.attrs.get("why") or "a single k was measured; name several in [evaluation] k"
        return [_missing(label, why)]
    panels = []
    for kind in dict.fromkeys(means["kind"]):
        own = means[means["kind"] == kind].sort_values("k")
        series = [_line(own[own["method"] == name], name, "k") for name in method_order(own["method"])]
        panels.append(lines(series, f"{KINDS[kind][0]}: {METRICS[KINDS[kind][1]].label}", "k"))
    caption = words(
        "{} by {}: drops are pooled over images, insertion gains are means. Bands, for methods that explain, are {}s "
        "over up to {}, cut where they leave the panel; fewer than {} have none.",
        ref("curve", "Curves"),
        ref("deleted", "k"),
        ref("interval", "95 % interval"),
        count(int(means["n"].max()), "image"),
        LEAST_IMAGES,
    )
    parts: list[Any] = [Charts(tuple(panels), caption, key(method_order(means["method"]), line=True))]
    found = part.areas
    if found.empty:
        return [*parts, _missing(label, found.attrs.get("why", ""))]
    by = rows_by(found, "method", "kind")
    kinds = [kind for kind in KINDS if kind in set(found["kind"])]
    rows = [
        (
            name_cell(name),
            *(figure(by[(name, kind)]["area"], define="area") for kind in kinds),
            whole(by[(name, kinds[0])]["n"]),
        )
        for name in method_order(found["method"])
    ]
    columns = (METHOD, *(Column(KINDS[kind][0], "area", "descending") for kind in kinds), N)
    return [*parts, Table(f"areas-{slug(label)}", words("{}: areas under the curves", label), columns, tuple(rows))]


def orders(label: str, group: Sequence[Run]) -> list[Any]:
    """Ranks of the methods under test by each metric under every operator and every k, each with Kendall's W."""
    parts: list[Any] = []
    for metric in CURVE_KINDS:
        inner: list[Any] = []
        for over in OVERS:
            inner += _order(label, group, metric, over)
        parts.append(Fold(words("<strong>{}</strong>", METRICS[metric].label), tuple(inner), metric == "tdd"))
    return parts


def _order(label: str, group: Sequence[Run], metric: str, over: Literal["occlusion", "k"]) -> list[Any]:
    """The methods ranked by one metric over operators, or over k; what is left out, and why."""
    values = rankings.complete(group, metric, over, methods=own_methods(group))
    (agreed,) = rankings.concordance(values).to_dict("records")
    what = "k" if over == "k" else "occlusion operator"
    if isnan(agreed["w"]):
        return [Prose(words("By {}: {}.", what, agreed["why"]))]
    said = words(
        "By {}: {} over {}, {} and {}.{}",
        what,
        concordance_words(agreed),
        count(agreed["settings"], "setting"),
        count(agreed["methods"], "method"),
        count(agreed["images"], "image"),
        f" Left out: {agreed['left_out']}." if agreed["left_out"] else "",
    )
    return [Prose(said), _settings(label, rankings.by_setting(values), metric, over)]


def concordance_words(agreed: Mapping[Any, Any]) -> Markup:
    """Kendall's W, what of it is beyond chance, and p."""
    return words(
        "{} = {} (chance {}; {} beyond chance, {})",
        ref("concordance", "Kendall’s W"),
        ref("concordance", number(agreed["w"], 2)),
        ref("concordance", number(1 / agreed["settings"], 2)),
        ref("concordance", number(agreed["beyond_chance"], 2)),
        ref("concordance", p_words(agreed["p"])),
    )


def _settings(label: str, found: pd.DataFrame, metric: str, over: str) -> Table:
    settings = list(dict.fromkeys(found["setting"]))
    by = rows_by(found, "method", "setting")
    rows = []
    for name in method_order(found["method"]):
        ranked = [by[(name, one)] for one in settings]
        cells = [
            Cell(f"{one['rank']:g}", one["rank"], note=quiet(metric, f"({number(one['mean'])})")) for one in ranked
        ]
        rows.append((name_cell(name), *cells))
    columns = (METHOD, *(Column(f"k = {one}" if over == "k" else one, "setting") for one in settings))
    name, each = METRICS[metric].label, "k" if over == "k" else "operator"
    caption = words("{}: rank by {} (its mean) under each {}", label, name, each)
    return Table(f"ranks-{over}-{metric.replace('_', '-')}-{slug(label)}", caption, columns, tuple(rows))


def leakage(label: str, group: Sequence[Run]) -> list[Any]:
    """OT abs beside its area-fair form and the drops by distance."""
    found = analyse(group).parts[0].leakage
    if found.empty:
        return [_missing(label, found.attrs.get("why", ""))]
    bands = {f"{name}_abs": Column(f"|{METRICS[name].label}|", name, "ascending") for name in leakage_tables.BANDS}
    columns = {name: bands.get(name) or metric_column(name) for name in leakage_tables.LEAKAGE}
    table = _wide(label, found, columns, "leakage", "leakage by area and distance")
    said = words("Bands of {} are those of the mean over its draws, and so smaller.", ref("control", "random_cells"))
    return [table, Prose(said, "remark")] if "random_cells" in set(found["method"]) else [table]


def denominators(label: str, group: Sequence[Run]) -> list[Any]:
    """Absolute drops, then TDD and OT abs by s, by the target's area and by class."""
    found = analyse(group).parts[0].drops
    if found.empty:
        return [_missing(label, found.attrs.get("why", ""))]
    names = {"target_drop": "in target", "off_drop": "outside"}
    shown = [(drop, statistic) for drop in names for statistic in ("mean", "median", "trimmed")]
    by = rows_by(found, "method", "drop")
    rows = [
        (
            name_cell(name),
            *(figure(by[(name, drop)][statistic], define="absolute_drop") for drop, statistic in shown),
            whole(by[(name, "target_drop")]["n"]),
        )
        for name in method_order(found["method"])
    ]
    columns = (
        METHOD,
        *(Column(f"{statistic.capitalize()}, {names[drop]}", statistic, "descending") for drop, statistic in shown),
        N,
    )
    parts: list[Any] = [
        Table(f"drops-{slug(label)}", words("{}: absolute drops of s", label), columns, tuple(rows)),
    ]
    kept = analyse([without_variants(one) for one in group]).parts[0]
    for part, what in (("s", "score s"), ("target_area", "share of the image"), ("class_index", "class")):
        inner = [_strata(label, kept, metric, part) for metric in ("tdd", "odd_abs")]
        parts.append(Fold(words("TDD and OT abs by {}", what), tuple(inner)))
    return parts


def _strata(label: str, kept: DataAnalysis, metric: str, by: Any) -> Any:
    found = kept.strata(metric, by)
    if found.empty:
        return _missing(label, found.attrs.get("why", ""))
    methods = method_order(found["method"])
    rows: list[tuple[Cell, ...]] = []
    for stratum, part in found.groupby("stratum", sort=False):
        own = rows_by(part, "method")
        cells = [
            figure(own[name]["median"], define=metric, under=f"mean {number(own[name]['mean'])}")
            if name in own
            else Cell("n/a")
            for name in methods
        ]
        rows.append((Cell(_tidy(str(stratum)), float(len(rows))), *cells, whole(part["n"].max())))
    columns = (
        Column("Stratum", "stratum", numeric=False),
        *(Column(name, metric, "descending") for name in methods),
        N,
    )
    caption = words("{}: {} by stratum, medians (and means)", label, METRICS[metric].label)
    return Table(f"strata-{by.replace('_', '-')}-{metric}-{slug(label)}", caption, columns, tuple(rows))


def properties(label: str, group: Sequence[Run]) -> list[Any]:
    """What maps look like: energy inside, pointing game, sparseness."""
    found = analyse(group).parts[0].map_properties
    if found.empty:
        return [_missing(label, found.attrs.get("why", ""))]
    columns = {name: metric_column(name) for name in maps.PROPERTIES}
    return [_wide(label, found, columns, "properties", "what the maps look like")]


def randomisation(label: str, group: Sequence[Run]) -> list[Any]:
    """Similarity to the trained model's maps as its weights are drawn anew part after part, a panel a model."""
    found = randomisation_check.randomisation([without_variants(one) for one in group])
    if found.empty:
        return [_missing(label, found.attrs.get("why", ""))]
    caption = words(
        "{} with the trained model’s map, mean over samples; parts are drawn anew from the head on. Where s of the "
        "model has fallen to chance, it has lost the class. Constant maps, and maps that failed, have no correlation.",
        ref("spearman", "Rank correlation"),
    )
    methods, panels = method_order(found["method"]), []
    for model, part in found.groupby("model", sort=False):
        names = [one or "none" for one in part.drop_duplicates("stage").sort_values("stage")["part"]]
        own_of = {name: part[part["method"] == name].assign(mean=part["spearman"]) for name in methods}
        series = [_line(own, name, "stage") for name, own in own_of.items() if len(own)]
        panels.append(lines(series, f"Spearman, {model}", "weights drawn anew, up to", names))
    rows = [
        (
            name_cell(row["method"]),
            Cell(row["model"], row["model"]),
            Cell(row["part"] or "none", float(row["stage"])),
            figure(row["spearman"]),
            figure(row["pearson"]),
            figure(row["s"]),
            whole(row["n"]),
            whole(row["constant"]),
            whole(row["failed"]),
        )
        for row in found.to_dict("records")
    ]
    columns = (
        METHOD,
        Column("Model", numeric=False),
        Column("Drawn anew, up to", "spearman"),
        Column("Spearman", "spearman", "descending"),
        Column("Pearson", "spearman", "descending"),
        Column("s", "s", "descending"),
        N,
        Column("Constant", "spearman", "descending"),
        Column("Failed", "status", "descending"),
    )
    table = Table(f"randomisation-{slug(label)}", words("{}: randomised models", label), columns, tuple(rows))
    warned = [Prose(words("{}", one)) for one in randomisation_check.unfinished_checks(group)]
    return [
        *warned,
        Charts(tuple(panels), caption, key(methods, line=True)),
        Fold(Markup("The numbers"), (table,), False),
    ]


def _wide(label: str, found: pd.DataFrame, columns: Mapping[str, Column], name: str, caption: str) -> Table:
    own = rows_by(found, "method")
    rows = [
        (name_cell(method), *(figure(own[method][one]) for one in columns), whole(own[method]["n"]))
        for method in method_order(own)
    ]
    return Table(f"{name}-{slug(label)}", words("{}: {}", label, caption), (METHOD, *columns.values(), N), tuple(rows))


def _line(part: pd.DataFrame, name: str, x: str) -> Line:
    part = part.sort_values(x)
    banded = "low" in part and not is_control(name)
    columns = [
        part[x],
        part["value" if "value" in part else "mean"],
        *(part[one] if banded else pd.Series(nan, part.index) for one in ("low", "high")),
    ]
    return Line(name, tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in zip(*columns, strict=True)))


def _tidy(stratum: str) -> str:
    return stratum.replace("<=", "≤")


def _missing(label: str, why: str) -> Prose:
    said = why.removeprefix(f"{label}: ").rstrip(".")
    return Prose(words("{}.", said[:1].upper() + said[1:]), "missing")


N = Column("n", "n", "descending")
Build = Callable[[str, Sequence[Run]], list[Any]]
