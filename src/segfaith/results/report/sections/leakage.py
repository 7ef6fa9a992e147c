"""Leakage with equal areas, and by distance to the target."""

from segfaith.evaluation.metrics import METRICS
from segfaith.results.report.blocks import Block, Column, Prose, Section, metric_column, missing, ref, words
from segfaith.results.report.sections.topic import by_data, lacking, wide
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.leakage import BANDS, LEAKAGE

COMMAND = "segfaith run FILE --set 'evaluation.leakage=\"detailed\"'"


def section(analysis: Analysis) -> Section:
    """OT abs beside its area-fair form and the drops by distance."""
    introduction = words(
        "{} deletes the share k of all pixels outside the target. Where the target is small, these are more pixels "
        "than TDD deletes. {} deletes as many as TDD. ODD near, middle and far are absolute drops by the deleted "
        'pixels of one band of distance from the target; they stand here where <code>leakage = "detailed"</code>.',
        ref("odd_abs", "OT abs"),
        ref("odd_fair_abs", "OT fair"),
    )
    return by_data(analysis, "leakage", "Leakage", introduction, _leakage)


def _leakage(part: DataAnalysis) -> list[Block]:
    if not part.of_probability:
        why = "this does not apply to {}: these metrics divide by s, and the score {} has no natural zero"
        return [missing(words(why, part.label, repr(part.score)), "")]
    table = part.leakage
    if table.empty:
        return [lacking(part, "leakage by area and distance was not measured", COMMAND)]
    bands = {
        f"{name}_abs": Column(f"|{METRICS[name].label}|", name, "ascending")
        for name in BANDS
        if table[f"{name}_abs"].notna().any()
    }
    columns = {name: bands.get(name) or metric_column(name) for name in LEAKAGE if name in bands or name in METRICS}
    blocks: list[Block] = [wide(part, table, columns, "leakage", "leakage by area and distance")]
    if bands and "random_cells" in set(table["method"]):
        remark = words(
            "The bands of {} are absolute values of the mean over its draws, and so smaller.",
            ref("control", "random_cells"),
        )
        blocks.append(Prose(remark, "remark"))
    return blocks
