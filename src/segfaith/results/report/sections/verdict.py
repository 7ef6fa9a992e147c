"""The first section: which method may be trusted on these data and models, and why."""

from collections.abc import Mapping

from markupsafe import Markup

from segfaith.evaluation.metrics import METRICS
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
    listed,
    metric_ref,
    number,
    p_words,
    ref,
    words,
)
from segfaith.results.report.sections.topic import labels
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
TOLD = {
    "tdd_gain": "Lowers the score most when deleted",
    "odd_abs": "Leaks least outside the target",
    "insertion_gain": "Raises the score most when restored",
    "stability": "Most stable under small image changes",
    "evidence_ap": "Finds the planted evidence best",
}
"""The metrics whose best method is named, as far as they were measured, and what is best by each in plain words."""
MORE = {
    "chance": "Measure more images: raise <code>n</code> in <code>[data]</code>.",
    "model": "Run <code>segfaith randomise {}</code>.",
    "stability": "Set <code>stability = true</code> in <code>[evaluation]</code>.",
    "evidence": "See how the method does on such scenes: <code>segfaith check-method METHOD</code>.",
    "time": "",
}
"""What measures the answer to a question that has none yet."""
UNMEASURED = {
    "no evidence was planted": "these images have no planted evidence",
    "not measured": "",
}
"""Why a question has no answer, in the words of the cards where these are not the finding's own."""


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
    blocks.append(Cards(part.label, tuple(_card(verdict, part) for verdict in part.verdicts)))
    return [*blocks, Points((*_missed(part), *_leaders(part)))]


def _card(verdict: Verdict, part: DataAnalysis) -> Card:
    findings = verdict.findings
    checks = tuple(
        Check(NAMES[name], finding.mark, _sentence(finding, part), Markup(RULES[name]), DETAILS[name])
        for name, finding in findings.items()
    )
    return Card(verdict.method, labels(part)[verdict.method], verdict.mark, _headline(findings), checks)


def _headline(findings: Mapping[str, Finding]) -> Markup:
    """The answer in one sentence, of chance, model and planted evidence; what was not tested comes last."""
    chance, model, evidence = findings["chance"], findings["model"], findings["evidence"]
    answers = [
        {
            "pass": "better than random cells",
            "warn": "not yet shown to beat random cells",
            "fail": "worse than random cells" if chance.p < 0.05 else "no better than random cells",
            "unknown": "",
        }[chance.mark],
        {
            "pass": "depends on the model’s weights",
            "warn": "depends only in part on the model’s weights",
            "fail": f"keeps {number(model.value, 2)} of its map when all weights are randomised",
            "unknown": "",
        }[model.mark],
        {
            "pass": "finds the planted evidence",
            "warn": "not yet shown to find the planted evidence",
            "fail": "does not find the planted evidence",
            "unknown": "",
        }[evidence.mark],
    ]
    if chance.mark == model.mark == "unknown":
        answers.append("not tested yet" if evidence.mark == "unknown" else "not tested otherwise")
    elif chance.mark == "unknown":
        answers.append("not tested against chance yet")
    elif model.mark == "unknown":
        answers.append("not tested on a randomised model yet")
    sentence = join((answer for answer in answers if answer), "; ")
    return words("{}{}.", sentence[:1].upper(), Markup(sentence[1:]))


def _sentence(finding: Finding, part: DataAnalysis) -> Markup:
    """One finding with its numbers; where nothing was measured, the command that measures it."""
    if finding.mark == "unknown":
        why = finding.why.removeprefix("not testable: ")
        why = UNMEASURED.get(why, why)
        start = f"Not tested: {why}" if why else "Not tested yet"
        return words("{}. {}", start, words(MORE[finding.question], part.read[0].directory.name))
    value, reference = number(finding.value, 2), number(finding.reference, 2)
    if finding.question == "chance":
        return words(
            "Its top pixels carry {} of the score, those of random cells {} ({}, {})",
            *(value, reference, p_words(finding.p), count(finding.n, "image")),
        )
    if finding.question == "evidence":
        return words(
            "Average precision on the planted evidence: {}, random cells {} ({}, {})",
            *(value, reference, p_words(finding.p), count(finding.n, "scene")),
        )
    if finding.question == "model":
        return words(
            "Once all weights are randomised, the map correlates {} with the original (Spearman, {})",
            *(value, count(finding.n, "map")),
        )
    if finding.question == "stability":
        return words(
            "After small changes of the image, the maps correlate {} with the original (Pearson, {})",
            *(value, count(finding.n, "map")),
        )
    return words("{} s a map", number(finding.value, 2 if finding.value < 10 else 0))


def _missed(part: DataAnalysis) -> list[Markup]:
    """How many targets the model does not predict."""
    missed, known = part.missed
    if not missed:
        return []
    return [
        words(
            "The model misses {} of {} (IoU below {}), and there is little to explain in them. Leave them out with "
            "<code>--min-iou {}</code>.",
            *(missed, count(known, "target"), MISSED_IOU, MISSED_IOU),
        )
    ]


def _leaders(part: DataAnalysis) -> list[Markup]:
    """The best method by each metric of `TOLD`, and in how many runs they were compared if not in all."""
    told = [
        part.best[name] for name in TOLD if name in part.best and (part.best[name].method or part.best[name].second)
    ]
    sentences = [_leader(best, labels(part)) for best in told]
    fewer: dict[tuple[int, int], list[str]] = {}
    for best in told:
        if best.runs < best.every:
            fewer.setdefault((best.runs, best.every), []).append(METRICS[best.metric].label)
    for (runs, every), metrics in fewer.items():
        which = "These values are" if len(metrics) == len(told) else f"{listed(metrics)}: the values are"
        sentences.append(words("{} over the {} of {} that have all methods.", which, runs, count(every, "run")))
    return sentences


def _leader(best: Best, called: Mapping[str, str]) -> Markup:
    """Which method is best by a metric, whether a control is better still, and whether one image decides it."""
    metric = words("{}: ", TOLD[best.metric])
    value = words("{} {}", metric_ref(best.metric), number(best.mean))
    if best.method:
        sentence = words(
            "{}<strong>{}</strong> ({}), then {} ({}).",
            *(metric, called[best.method], value, called[best.second], number(best.second_mean)),
        )
    else:
        sentence = words("{}the best two are a {} ({}).", metric, ref("claim", "draw"), value)
    if best.control:
        sentence += words(" {}, which explains nothing, is better still.", called[best.control])
    if best.flipped:
        sentence += words(" <strong>Without the image {}, {} is best.</strong>", best.flipped, called[best.instead])
    return sentence
