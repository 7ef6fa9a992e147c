"""Whether maps depend on what the model has learnt."""

from markupsafe import Markup

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
    figure,
    missing,
    name_cell,
    ref,
    whole,
    words,
)
from segfaith.results.report.sections.topic import METHOD, N, base_methods, by_data, labels, target_remark
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.randomisation import unfinished_checks


def section(analysis: Analysis) -> Section:
    """Similarity to the trained model's maps as its weights are drawn anew, part after part."""
    introduction = words(
        "The model’s weights are drawn anew from the head on, part after part, and each method explains the model "
        "again (Adebayo et al. 2018). {} compares its map with that of the trained model. A map that stays the same "
        "does not depend on what the model has learnt. Mean s at each stage says where the model has lost the class.",
        ref("spearman", "Rank correlation"),
    )
    return by_data(analysis, "randomisation", "Randomised models", introduction, _randomisation)


def _randomisation(part: DataAnalysis) -> list[Block]:
    if part.randomisation.empty:
        why = "whether the maps depend on what the model has learnt was not measured"
        return [missing(why, "segfaith randomise DIR")]
    remark = words("Constant maps and maps that failed have no correlation; they are counted and enter no mean.")
    return [
        *target_remark(part),
        *(Prose(words("{}", sentence)) for sentence in unfinished_checks(part.runs)),
        Figure(DRAWINGS["randomisation"](part)),
        Prose(remark, "remark"),
        Fold(Markup("The numbers"), (_table(part),)),
    ]


def _table(part: DataAnalysis) -> Table:
    called, shown = labels(part), base_methods(part, part.methods)
    rows = [
        (
            name_cell(called[row["method"]]),
            name_cell(row["model"]),
            Cell(row["part"] or "none", float(row["stage"])),
            figure(row["spearman"]),
            figure(row["pearson"]),
            figure(row["s"]),
            whole(row["n"]),
            whole(row["constant"]),
            whole(row["failed"]),
        )
        for row in part.randomisation.to_dict("records")
        if row["method"] in shown
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
    caption = words("{}: randomised models", part.label)
    return Table(f"randomisation-{slug(part.label)}", caption, columns, tuple(rows))
