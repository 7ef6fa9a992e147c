"""The first section: which method may be trusted on these data and models, and why."""

from collections.abc import Mapping

from markupsafe import Markup

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.select import method_labels
from segfaith.results.report.blocks import (
    Block,
    Card,
    Cards,
    Check,
    Points,
    Prose,
    Section,
    count,
    join,
    number,
    p_words,
    ref,
    words,
)
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.influence import MISSED_IOU, Best
from segfaith.results.statistics.verdicts import RULES, Finding, Verdict

NAMES = {
    "chance": "Chance",
    "model": "Model",
    "stability": "Stability",
    "evidence": "Truth",
    "time": "Time",
}
"""The questions, as the cards name them."""
DETAILS = {
    "chance": "significance",
    "model": "randomisation",
    "stability": "leaderboard",
    "evidence": "evidence",
    "time": "leaderboard",
}
"""The section that holds the numbers of each question."""
TOLD = ("tdd_gain", "odd_abs", "insertion_gain", "stability", "evidence_ap")
"""The metrics whose best method is named, as far as they were measured."""
MORE = {
    "chance": "Measure more images: a larger [data] n.",
    "model": "Run <code>segfaith randomise {}</code>.",
    "stability": "Set [evaluation] stability = true.",
    "evidence": "Scenes with planted evidence tell it: <code>segfaith check-method METHOD</code>.",
    "time": "",
}
"""What measures the answer to a question that has none yet."""


def section(analysis: Analysis) -> Section:
    """The verdict on each method, a card each, and on each data set what the cards rest on."""
    blocks: list[Block] = []
    for part in analysis.parts:
        if len(analysis.parts) > 1:
            blocks.append(Prose(words("{}", part.label), "heading"))
        blocks += _blocks(part)
    return Section("verdict", "Which method may be trusted here?", tuple(blocks))


def _blocks(part: DataAnalysis) -> list[Block]:
    blocks: list[Block] = []
    if not part.verdicts:
        return [Prose(words("No method is under test: the runs hold controls alone."))]
    labels = method_labels(part.read)
    blocks.append(Cards(part.label, tuple(_card(verdict, part, labels) for verdict in part.verdicts)))
    points = [*_missed(part), *(_leader(part.best[name], labels) for name in TOLD if name in part.best)]
    return [*blocks, Points(tuple(point for point in points if point))]


def _card(verdict: Verdict, part: DataAnalysis, labels: Mapping[str, str]) -> Card:
    findings = verdict.findings
    label = labels.get(verdict.method, verdict.method)
    checks = tuple(
        Check(NAMES[name], finding.mark, _sentence(finding, part), Markup(RULES[name]), DETAILS[name])
        for name, finding in findings.items()
    )
    return Card(verdict.method, label, verdict.mark, _headline(findings), checks)


def _headline(findings: Mapping[str, Finding]) -> Markup:
    """The answer in one sentence, of chance, model and planted evidence."""
    chance, model, evidence = findings["chance"], findings["model"], findings["evidence"]
    said = [
        {
            "pass": "Better than random cells",
            "warn": "Not told apart from random cells yet",
            "fail": "Worse than random cells" if chance.p < 0.05 else "No better than random cells",
            "unknown": "Not tested against random cells",
        }[chance.mark],
        {
            "pass": "changes with the model’s weights",
            "warn": "changes only in part with the model’s weights",
            "fail": f"keeps {number(model.value, 2)} of its map when every weight is drawn anew",
            "unknown": "whether it depends on the model was not measured",
        }[model.mark],
    ]
    if evidence.mark != "unknown":
        said.append(
            {
                "pass": "finds the planted evidence",
                "warn": "not shown to find the planted evidence",
                "fail": "does not find the planted evidence",
            }[evidence.mark]
        )
    return words("{}.", join(said, "; "))


def _sentence(finding: Finding, part: DataAnalysis) -> Markup:
    """One finding with its numbers; where nothing was measured, the command that measures it."""
    if finding.mark == "unknown":
        why = finding.why.removeprefix("not testable: ")
        start = "Not measured" if why == "not measured" else f"Not tested: {why}"
        return words("{}. {}", start, words(MORE[finding.question], part.read[0].directory.name))
    value, reference = number(finding.value, 2), number(finding.reference, 2)
    if finding.question == "chance":
        return words(
            "TDD {} against {} of random cells ({}, {})",
            *(value, reference, p_words(finding.p), count(finding.n, "image")),
        )
    if finding.question == "evidence":
        return words(
            "Average precision {} against {} of random cells ({}, {})",
            *(value, reference, p_words(finding.p), count(finding.n, "scene")),
        )
    if finding.question == "model":
        return words(
            "Spearman {} with its map of the trained model when every weight is drawn anew ({})",
            *(value, count(finding.n, "map")),
        )
    if finding.question == "stability":
        return words("Correlation {} under five small changes of the image ({})", value, count(finding.n, "map"))
    return words("{} s a map", number(finding.value, 2 if finding.value < 10 else 0))


def _missed(part: DataAnalysis) -> list[Markup]:
    """How many targets the model does not predict."""
    missed, known = part.missed
    if not missed:
        return []
    return [
        words(
            "The model misses {} of {} (IoU below {}): it hardly predicts them, so there is little to explain. Leave "
            "them out with <code>--min-iou {}</code>.",
            *(missed, count(known, "target"), MISSED_IOU, MISSED_IOU),
        )
    ]


def _leader(best: Best, labels: Mapping[str, str]) -> Markup:
    """Which method is best by a metric, whether a control is better still, and whether one image decides it."""
    if not best.method and not best.second:
        return Markup("")
    metric = words("{} ({})", METRICS[best.metric].label, ref(best.metric, METRICS[best.metric].meaning))
    if not best.method:
        return words("{}: none is best; {}.", metric, best.why)
    sentence = words(
        "{}: {} is best with {}, {} follows with {}",
        *(metric, words("<strong>{}</strong>", labels.get(best.method, best.method)), number(best.mean)),
        *(labels.get(best.second, best.second), number(best.second_mean)),
    )
    if best.runs < best.every:
        sentence += words(" (over the {} of {} that have all methods)", best.runs, count(best.every, "run"))
    if best.control:
        sentence += words("; {}, which explains nothing, is better still", best.control)
    if best.flipped:
        sentence += words(
            "; <strong>one image decides this</strong>: without {}, {} is best",
            best.flipped,
            labels.get(best.instead, best.instead),
        )
    return sentence + "."
