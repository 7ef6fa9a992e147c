"""How the ranking of methods changes with the occlusion operator and with k."""

from collections.abc import Collection, Mapping
from math import isnan
from typing import Any

import pandas as pd
from markupsafe import Markup

from segfaith.evaluation.metrics import METRICS
from segfaith.results.figures.drawings import DRAWINGS
from segfaith.results.records.identity import slug
from segfaith.results.report.blocks import (
    Block,
    Cell,
    Column,
    Figure,
    Fold,
    Prose,
    Section,
    Table,
    count,
    figure,
    join,
    listed,
    metric_ref,
    name_cell,
    number,
    p_words,
    ref,
    rows_by,
    words,
)
from segfaith.results.report.sections.topic import METHOD, by_data, labels, lacking
from segfaith.results.statistics.analysis import OVERS, Analysis, DataAnalysis, Over
from segfaith.results.statistics.crossfit import changed_places, favoured, fidelity_operators, union, unknown
from segfaith.results.statistics.curves import CURVE_KINDS, first_setting

FREE = ("blur", "zero", "noise", "road")
"""Operators that a run may be scored by, the first of which no method was built with is named to the reader."""
WHAT = {"occlusion": "operator", "k": "k"}


def section(analysis: Analysis) -> Section:
    """Ranks by each metric under every operator and every k, with Kendall's W."""
    introduction = words(
        "RIA and DEA are built by {}, and scored by it. If a ranking rests on that, it changes with the operator. Here "
        "the same maps are ranked under every operator, and under every k but 1, where all maps delete the same. {} "
        "is 1 where all rankings are the same; random rankings under m settings give 1 / m. Beyond chance, 0 is no "
        "more agreement than that. p is the share of random rankings that agree as much. The {} ranking leaves out the "
        "operators that any method was built with.",
        ref("occlusion", "occlusion"),
        ref("concordance", "Kendall’s W"),
        ref("crossfit", "cross-fitted"),
    )
    return by_data(analysis, "rankings", "Rankings under other settings", introduction, _rankings)


def concordance_words(agreed: Mapping[Any, Any]) -> Markup:
    """Kendall's W, what of it is beyond chance, and p."""
    return words(
        "{} = {} (chance {}; {} beyond chance, {})",
        ref("concordance", "Kendall’s W"),
        number(agreed["w"], 2),
        number(1 / agreed["settings"], 2),
        number(agreed["beyond_chance"], 2),
        p_words(agreed["p"]),
    )


def _rankings(part: DataAnalysis) -> list[Block]:
    metrics = part.leading(*CURVE_KINDS)
    known = [(metric, over) for metric in metrics for over in OVERS if not _agreed(part, metric, over)["why"]]
    ranked = [(metric, over) for metric in metrics for over in OVERS if _several(part.ranking(metric, over))]
    fidelity = _circular_fidelity(part)
    if not known and not ranked:
        return [lacking(part, _one_setting(part), _command(part)), *fidelity]
    blocks: list[Block] = [Figure(DRAWINGS["rankings"](part)), *fidelity]
    for metric in metrics:
        inner = (*_order(part, metric, "occlusion"), *_cross_fitted(part, metric), *_order(part, metric, "k"))
        blocks.append(Fold(words("<strong>{}</strong>", METRICS[metric].label), inner, metric == metrics[0]))
    return blocks


def _one_setting(part: DataAnalysis) -> Markup:
    """Why nothing is ranked, and which methods the only operator may favour."""
    scored = {first_setting(run)[0] for run in part.runs}
    favoured = _built_with(part, scored)
    made = words("; the maps of {} were made by that operator, so that their ranks may rest on it", favoured)
    return words("these runs were scored under one operator and one k{}", made if favoured else "")


def _built_with(part: DataAnalysis, operators: Collection[str]) -> Markup:
    """The methods that were built with any of the operators, "ria and dea"."""
    called = labels(part)
    return listed([called[name] for name, own in part.built.items() if set(own) & set(operators)])


def _free(part: DataAnalysis) -> list[str]:
    """Operators that no method was built with."""
    return [name for name in FREE if name not in union(part.built)]


def _command(part: DataAnalysis) -> str:
    first = first_setting(part.runs[0])[0]
    others = [name for name in _free(part) if name != first][:2]
    named = ",".join(f'"{name}"' for name in (first, *others))
    return f"segfaith run FILE --set 'evaluation.occlusion=[{named}]'"


def _circular_fidelity(part: DataAnalysis) -> list[Block]:
    """For which methods fidelity is measured by the operator that they were built with, and what mends it."""
    used = fidelity_operators(part.runs)
    circular = [labels(part)[name] for name in favoured(part.runs, part.built)]
    if not circular:
        return []
    sentence = words(
        "{} occluded its sets by {}, the operator behind the maps of {}: for them it is circular. What mends it: "
        "<code>--set evaluation.fidelity_occlusion={}</code>",
        metric_ref("fidelity"),
        listed(used),
        listed(circular),
        next((name for name in _free(part) if name not in used), "dataset_mean"),
    )
    return [Prose(sentence)]


def _cross_fitted(part: DataAnalysis, metric: str) -> list[Block]:
    """The methods ranked by operators that none was built with, beside the ranks by those that some were."""
    table, called = part.cross_fitted(metric), labels(part)
    if not len(table):
        measured = set(part.ranking(metric, "occlusion")["setting"])
        lacks = bool(union(part.built)) and measured <= set(union(part.built))
        advice = words(" Measure it: <code>{}</code>", _command(part)) if lacks else ""
        return [Prose(words("Cross-fitted: {}.{}", table.attrs["why"], advice), "remark")]
    changed = [words("{} and {}", called[a], called[b]) for a, b in changed_places(table)]
    places = words("{} change places", join(changed, "; ")) if changed else Markup("no two methods change places")
    places += Markup(" (by means; no test stands behind it)") if changed else ""
    built, not_known = dict(zip(table["method"], table["built_with"], strict=True)), unknown(list(table["method"]))
    built = {
        name: "not known" if name in not_known else own.replace(" ", ", ") or "none" for name, own in built.items()
    }
    sentence = words(
        "{}, over {}: {}.{}",
        ref("crossfit", "Cross-fitted"),
        count(int(table["images"].iloc[0]), "image"),
        places,
        words(" It is not known which operator built {}.", listed([called[a] for a in not_known])) if not_known else "",
    )
    building, others = (str(table[name].iloc[0]).replace(" ", ", ") for name in ("building", "others"))
    columns = (
        METHOD,
        Column("Built with", "crossfit", numeric=False),
        *(Column(f"Building operator ({building})", "crossfit", "descending"), Column("Rank", "crossfit")),
        *(Column(f"Cross-fitted ({others})", "crossfit", "descending"), Column("Rank, cross-fitted", "crossfit")),
    )
    rows = tuple(
        (
            name_cell(called[row["method"]]),
            name_cell(built[row["method"]]),
            *(figure(row["mean_building"]), Cell(f"{row['rank_building']:g}", row["rank_building"])),
            *(figure(row["mean_crossfitted"]), Cell(f"{row['rank_crossfitted']:g}", row["rank_crossfitted"])),
        )
        for row in table.to_dict("records")
    )
    caption = words(
        "{}: {} by the operators that methods are built with, and by others", part.label, METRICS[metric].label
    )
    return [Prose(sentence), Table(f"crossfit-{metric.replace('_', '-')}-{slug(part.label)}", caption, columns, rows)]


def _several(table: pd.DataFrame) -> bool:
    return bool(table["setting"].nunique() > 1)


def _agreed(part: DataAnalysis, metric: str, over: Over) -> dict[Any, Any]:
    (row,) = part.concordance(metric, over).to_dict("records")
    return row


def _order(part: DataAnalysis, metric: str, over: Over) -> list[Block]:
    """The methods ranked by one metric over operators, or over k; what is left out, and why."""
    agreed, table = _agreed(part, metric, over), part.ranking(metric, over)
    shown: list[Block] = [_settings(part, table, metric, over)] if _several(table) else []
    if isnan(agreed["w"]):
        return [Prose(words("By {}: {}.", WHAT[over], agreed["why"])), *shown]
    (every,) = part.concordance(metric, over, "all").to_dict("records")
    controls: str | Markup = ""
    if every["methods"] > agreed["methods"] and not isnan(every["w"]):
        with_all = " Among all {} methods, controls included, which raise it, W is {}."
        controls = words(with_all, every["methods"], number(every["w"], 2))
    sentence = words(
        "By {}: {} over {}, {} and {}.{}{}",
        WHAT[over],
        concordance_words(agreed),
        count(agreed["settings"], "setting"),
        count(agreed["methods"], "method"),
        count(agreed["images"], "image"),
        controls,
        f" Left out: {agreed['left_out']}." if agreed["left_out"] else "",
    )
    return [Prose(sentence), *shown]


def _settings(part: DataAnalysis, table: pd.DataFrame, metric: str, over: Over) -> Table:
    settings, called = list(dict.fromkeys(table["setting"])), labels(part)
    by = rows_by(table, "method", "setting")
    rows = []
    for name in [name for name in part.methods if (name, settings[0]) in by]:
        ranked = [by[(name, setting)] for setting in settings]
        cells = [Cell(f"{row['rank']:g}", row["rank"], note=f"({number(row['mean'])})") for row in ranked]
        rows.append((name_cell(called[name]), *cells))
    columns = (METHOD, *(Column(f"k = {name}" if over == "k" else name, "setting") for name in settings))
    caption = words("{}: rank by {} (its mean) under each {}", part.label, METRICS[metric].label, WHAT[over])
    name = f"ranks-{over}-{metric.replace('_', '-')}-{slug(part.label)}"
    return Table(name, caption, columns, tuple(rows))
