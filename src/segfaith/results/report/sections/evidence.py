"""Where evidence was planted: who finds it, how metrics rank methods beside it, and what leakage makes of it."""

from typing import Any

from markupsafe import Markup

from segfaith.constants import WIRED_CROSSED
from segfaith.evaluation.metrics import METRICS, PROBABILITY
from segfaith.results.records.identity import slug
from segfaith.results.records.select import is_reference
from segfaith.results.report.blocks import (
    Block,
    Cell,
    Column,
    Fold,
    Points,
    Prose,
    Section,
    Table,
    figure,
    listed,
    metric_column,
    metric_ref,
    missing,
    name_cell,
    number,
    ref,
    whole,
    words,
)
from segfaith.results.report.sections.topic import METHOD, by_data, labels
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.evidence import KINDS, SCORES, VERDICT_METHODS

KIND = Column("Kind", "evidence", numeric=False)
COMMAND = "segfaith run quickstart"
ALSO_THE_KIND = Markup(
    "The score is the probability of the class. The planted evidence tells the two classes of a kind apart, but the "
    "probability also needs what tells the kinds apart, which the whole object shows. So a true map of it marks the "
    "rest of the object too, and the average precision counts that as wrong. "
    "<code>--set target.score=conditional --set target.versus=twin</code> asks for what the evidence alone decides."
)
OUTSIDE = {"context": "the context", WIRED_CROSSED: "the other half"}
"""Kinds whose evidence lies outside the target, and where."""


def section(analysis: Analysis) -> Section:
    """Who finds the planted evidence, how metrics rank these methods beside it, and what leakage makes of it."""
    introduction = words(
        "Of some images it is known by construction which pixels decide each object’s class. Of scenes the model was "
        "shown to decide by them, and only regions that it predicts right entered; of wired photographs one half gives "
        "the target’s logits. There it can be seen who finds the {}.",
        ref("evidence", "planted evidence"),
    )
    return by_data(analysis, "evidence", "Who finds the planted evidence", introduction, _evidence)


def _evidence(part: DataAnalysis) -> list[Block]:
    if not part.has_evidence:
        why = (
            "no evidence was planted here, so the metrics say how the model answers to occlusion, not whether a map is "
            "true"
        )
        return [missing(why, COMMAND)]
    rows, left_out = part.evidence
    left = [words("Left out: {}: {}.", kind, why) for kind, why in left_out.items()]
    if not len(rows):
        return [Points((*left, Markup("Nothing is left from which to conclude.")))]
    counts = rows.groupby("kind")["sample_id"].nunique()
    scenes = [words("{} {}", kind, counts[kind]) for kind in KINDS if kind in counts]
    return [
        Points((*left, words("Scenes that entered: {}.", Markup(", ").join(scenes)))),
        *([Prose(ALSO_THE_KIND)] if part.score == PROBABILITY and _of_scenes(part) else []),
        *_scores(part),
        *_agreements(part),
        *_leakage(part),
    ]


def _of_scenes(part: DataAnalysis) -> bool:
    """Whether the data are segfaith's own scenes, whose classes have twins."""
    return any(run.description["data"]["name"] == "scenes" for run in part.runs)


def _scores(part: DataAnalysis) -> list[Block]:
    about = words(
        "{} of the map against the planted evidence, the share of its mass there and the share of its top pixels "
        "there: means over scenes. Of the plain kind the whole object is the evidence, so the mask itself scores 1. Of "
        "wired photographs the evidence is the target’s own half (straight) or the other half (crossed).",
        ref("evidence_ap", "Average precision"),
    )
    called, table = labels(part), part.evidence_scores
    rows = tuple(
        (name_cell(row["kind"]), name_cell(called[row["method"]]), *(figure(row[score]) for score in SCORES))
        for row in table.to_dict("records")
    )
    columns = (KIND, METHOD, *map(metric_column, SCORES))
    caption = words("{}: who finds the evidence", part.label)
    return [
        Prose(Markup("Who finds the evidence"), "heading"),
        Prose(about),
        Fold(Markup("The scores by kind"), (Table(f"evidence-scores-{slug(part.label)}", caption, columns, rows),)),
    ]


def _agreements(part: DataAnalysis) -> list[Block]:
    about = words(
        "{} between the ranking of the methods under test by the metric and by the average precision (1: the same, "
        "−1: reversed), with a 95 % interval over scenes. Methods are ranked by means over the scenes on which all of "
        "them have a value; {} has values only where TDD is above 0.05. A metric that is blind for a kind by "
        "construction is taken without it. The table holds for these methods alone: a metric that knows nothing of "
        "the evidence orders four methods with a tau above 0 in 9 of 24 cases. So with fewer than {} different methods "
        "there is no verdict.",
        ref("tau", "Kendall’s tau-b"),
        metric_ref("leak_abs"),
        VERDICT_METHODS,
    )
    table = part.evidence_agreements
    known = table[table["tau"].notna()]
    if not len(known):
        return []
    rows = tuple(
        (
            name_cell(METRICS[row["metric"]].label),
            name_cell(row["kind"] if row["kind"] == row["kinds"] else f"{row['kind']}: {row['kinds']}"),
            _tau(row),
            whole(row["distinct"]),
            whole(row["scenes"]),
            name_cell(row["verdict"]),
        )
        for row in known.to_dict("records")
    )
    columns = (
        Column("Metric", "method", numeric=False),
        KIND,
        Column("tau", "tau", "descending"),
        Column("Methods", "tau", "descending"),
        Column("Scenes", "images", "descending"),
        Column("Verdict", "tau", numeric=False),
    )
    caption = words("{}: rankings of these methods by each metric and by the evidence", part.label)
    ranked = Table(f"agreement-{slug(part.label)}", caption, columns, rows)
    return [Fold(Markup("These methods ranked by each metric and by the evidence"), (Prose(about), ranked))]


def _tau(row: dict[Any, Any]) -> Cell:
    tau, low, high = (row[name] for name in ("tau", "low", "high"))
    return Cell(f"{number(tau, 2)} [{number(low, 2)}, {number(high, 2)}]", tau)


def _leakage(part: DataAnalysis) -> list[Block]:
    if not part.of_probability:
        return []
    about = words(
        "{} is what deleting a map’s top pixels outside the target changes. Where the evidence lies outside, a true "
        "map must change much, and OT abs punishes it. {} is the ratio of OT abs to TDD. It has a value only where TDD "
        "is above 0.05 (“Scenes”), which a true map of evidence outside may never reach. “Beyond” is the same less "
        "what deleting the planted evidence among those pixels costs: what is lost, or gained, beyond the truth.",
        metric_ref("odd_abs"),
        metric_ref("leak_abs"),
    )
    called, leakage = labels(part), part.evidence_leakage
    blocks: list[Block] = [Prose(Markup("What leakage says of a true map"), "heading"), Prose(about)]
    for kind, where in OUTSIDE.items():
        own = leakage[(leakage["kind"] == kind) & ~leakage["method"].map(is_reference).astype(bool)]
        if not len(own):
            continue
        mean = own[["odd_abs", "odd_beyond_abs"]].mean(skipna=False)
        sentence = words(
            "Where the evidence is {}, OT abs is {} in the mean over {}; {} of it is beyond the evidence.",
            where,
            number(mean["odd_abs"]),
            listed([called[name] for name in own["method"]]),
            number(mean["odd_beyond_abs"]),
        )
        blocks.append(Prose(sentence))
    rows = tuple(
        (
            name_cell(row["kind"]),
            name_cell(called[row["method"]]),
            *(figure(row[name]) for name in ("odd_abs", "odd_beyond_abs", "leak_abs", "leak_beyond")),
            whole(row["scenes"]),
        )
        for row in leakage.to_dict("records")
    )
    columns = (
        KIND,
        METHOD,
        Column("OT abs", "odd_abs"),
        Column("Beyond", "odd_beyond_abs"),
        Column("Leak abs (median)", "leak_abs"),
        Column("Beyond (median)", "leak_abs"),
        Column("Scenes", "images", "descending"),
    )
    caption = words("{}: leakage with and without the evidence", part.label)
    table = Table(f"evidence-leakage-{slug(part.label)}", caption, columns, rows)
    return [*blocks, Fold(Markup("Leakage by kind"), (table,))]
