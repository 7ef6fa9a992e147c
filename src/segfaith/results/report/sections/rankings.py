"""How the ranking of methods changes with the occlusion operator and with k."""

from collections.abc import Mapping
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
    name_cell,
    number,
    p_words,
    ref,
    rows_by,
    words,
)
from segfaith.results.report.sections.topic import METHOD, by_data, labels, lacking
from segfaith.results.statistics.analysis import OVERS, Analysis, DataAnalysis, Over
from segfaith.results.statistics.curves import CURVE_KINDS

COMMAND = 'segfaith run FILE --set \'evaluation.occlusion=["mean","zero","blur"]\''
WHAT = {"occlusion": "operator", "k": "k"}


def section(analysis: Analysis) -> Section:
    """Ranks by each metric under every operator and every k, with Kendall's W."""
    introduction = words(
        "RIA and DEA are built by {}, and scored by it. If a ranking rests on that, it changes with the operator. Here "
        "the same maps are ranked under every operator, and under every k but 1, where all maps delete the same. {} "
        "is 1 where all rankings are the same; random rankings under m settings give 1 / m. Beyond chance, 0 is no "
        "more agreement than that. p is the share of random rankings that agree as much.",
        ref("occlusion", "occlusion"),
        ref("concordance", "Kendall’s W"),
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
    if not known and not ranked:
        return [lacking(part, "these runs were scored under one operator and one k", COMMAND)]
    blocks: list[Block] = [Figure(DRAWINGS["rankings"](part))]
    for metric in metrics:
        inner = tuple(block for over in OVERS for block in _order(part, metric, over))
        blocks.append(Fold(words("<strong>{}</strong>", METRICS[metric].label), inner, metric == metrics[0]))
    return blocks


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
