"""How far to trust each metric: the judgement of metrics on maps whose worth is known."""

from markupsafe import Markup

from segfaith.evaluation.metrics import METRICS
from segfaith.results.report.blocks import Column, Prose, Section, Table, listed, metric_ref, name_cell, words
from segfaith.results.statistics.analysis import Analysis
from segfaith.results.statistics.judgement import by_metric, leaders

PROPERTIES = {
    "truth": "Truth",
    "gaming": "Gaming",
    "forms": "Forms",
    "style": "Style",
    "fills": "Fills",
    "removal": "Removal",
    "seeds": "Seeds",
    "images": "Images",
}
"""The columns of the judgement, by the properties of `statistics.judgement`."""


def section(analysis: Analysis) -> Section:
    """What each metric that was measured is worth, and which may lead."""
    judged = analysis.options.judgement
    measured = {name for part in analysis.parts for name in part.metrics}
    table = by_metric(judged[judged["metric"].isin(measured)])
    may_lead = leaders(judged)
    about = words(
        "Each metric was measured on maps whose worth is known, by default on 64 planted scenes. Truth: it rises "
        "with the truth, by kind of evidence. Gaming: an honest map beats one that was made to win. Forms: no form "
        "of a map that says less beats the map. Style: a change of style moves it less than methods differ. Fills, "
        "Removal, Seeds, Images: it ranks maps alike under other occlusions, under the true removal of the "
        "evidence, with another seed and on other images. A metric may lead a conclusion if it rises with the truth "
        "for some kind, cannot be gamed, and nothing speaks against it. <code>segfaith judge-metrics</code> makes "
        "this table, and <code>segfaith report --judgement FILE</code> takes one of your own."
    )
    columns = (
        Column("Metric", "method", numeric=False),
        Column("May lead", "judgement", numeric=False),
        *(Column(label, "judgement", numeric=False) for label in PROPERTIES.values()),
    )
    rows = tuple(
        (
            name_cell(METRICS[metric].label),
            name_cell("yes" if metric in may_lead else "no"),
            *(name_cell(told.get(what, "–")) for what in PROPERTIES),
        )
        for metric, told in sorted(table.items(), key=lambda item: item[0] not in may_lead)
    )
    chosen = [metric_ref(name) for name in may_lead if name in measured]
    blocks = (
        Prose(about),
        Prose(words("May lead a conclusion: {}.", listed(chosen) if chosen else "no metric that was measured here")),
        Table("judgement", Markup("What each metric is worth, on maps whose worth is known"), columns, rows),
    )
    return Section("worth", "How far to trust these metrics", blocks)
