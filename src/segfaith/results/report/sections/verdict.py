"""The first section: which method may be trusted on these data and models, and why."""

from collections.abc import Mapping
from math import isnan
from typing import Any

import pandas as pd
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
from segfaith.results.report.sections.significance import winner
from segfaith.results.report.sections.topic import labels, target_remark
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.crossfit import favoured
from segfaith.results.statistics.influence import MISSED_IOU, Best
from segfaith.results.statistics.judgement import leaders
from segfaith.results.statistics.paired import ALPHA, CHANCE
from segfaith.results.statistics.verdicts import CROSSED, NO_MORE, RULES, Finding, Verdict

NAMES = {"chance": "Chance", "model": "Model", "stability": "Stability", "evidence": "Truth", "time": "Time"}
"""The questions, as the cards name them."""
DETAILS = {
    "chance": "significance",
    "model": "randomisation",
    "stability": "leaderboard",
    "evidence": "evidence",
    "time": "leaderboard",
}
"""The section that holds the numbers of each question."""
FIDELITIES = ("fidelity", "fidelity_inside", "fidelity_outside")
ASKS = {"fidelity": ", how well the map predicts what removal costs"}
"""What a metric that may lead asks, in plain words."""
TOLD = {
    "fidelity": "Predicts best what removal costs",
    "tdd_gain": "Lowers the score most when deleted",
    "odd_abs": "Leaks least outside the target",
    "insertion_gain": "Raises the score most when restored",
    "stability": "Most stable under small image changes",
    "evidence_ap": "Finds the planted evidence best",
}
"""The metrics whose best method is named, as far as they were measured, and what is best by each in plain words. Of
scores other than the probability the absolute metrics take the place of the relative ones."""
MORE = {
    "chance": "Measure more images: raise <code>n</code> in <code>[data]</code>.",
    "model": "Run <code>segfaith randomise {}</code>.",
    "stability": "Set <code>stability = true</code> in <code>[evaluation]</code>.",
    "evidence": "See how the method does on such scenes: <code>segfaith check-method METHOD</code>.",
    "time": "",
}
"""What measures the answer to a question that has none yet."""
LEVEL = words(
    "{} is a map of random values on a grid as coarse as that of the region methods: the level of chance.",
    ref("control", "Random cells"),
)
CROSSED_REMARK = words(
    "Photographs are crossed: all evidence lies in the other half, outside the target. So no map’s TDD differs from 0, "
    "and OT abs punishes the maps that find the evidence."
)
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
    if CHANCE in part.methods:
        blocks.append(Prose(LEVEL, "remark"))
    if part.crossed and part.lead in part.leading("tdd"):
        blocks.append(Prose(CROSSED_REMARK, "remark"))
    blocks.append(Cards(part.label, tuple(_card(verdict, part) for verdict in part.verdicts)))
    blocks.append(Prose(_lead(part), "remark"))
    return [*blocks, *target_remark(part), Points((*_missed(part), *_leaders(part)))]


def _lead(part: DataAnalysis) -> Markup:
    """Which metric decides about chance, and why this one."""
    leads, may_lead = metric_ref(part.lead), leaders(part.options.judgement)
    why = '(<a href="#worth">how far to trust each metric</a>)'
    if part.lead in may_lead:
        circular = [labels(part)[name] for name in favoured(part.runs, part.built)] if part.lead in FIDELITIES else []
        return words(
            "{} decides: it may lead a conclusion, since it rises with the truth and RIA beats a map made to win by it "
            "{}.{}",
            *(leads, Markup(why)),
            words(" It is circular for {}, made by the same occlusion.", listed(circular)) if circular else "",
        )
    if not may_lead:
        return words("{} decides: by the judgement no metric may lead a conclusion {}.", leads, Markup(why))
    return words(
        "{} decides, though a map made to win is not beaten by it {}: no metric that may lead ({}) has values here of "
        "methods and random cells. Set <code>fidelity = 96</code> in <code>[evaluation]</code>.",
        *(leads, Markup(why), listed([metric_ref(name) for name in may_lead])),
    )


def _card(verdict: Verdict, part: DataAnalysis) -> Card:
    findings = verdict.findings
    checks = tuple(
        Check(NAMES[name], finding.mark, _sentence(finding, part), Markup(_rule(name, part)), DETAILS[name])
        for name, finding in findings.items()
    )
    return Card(verdict.method, labels(part)[verdict.method], verdict.mark, _headline(findings), checks)


def _rule(name: str, part: DataAnalysis) -> str:
    """The rule of a question, with the metric by which it is decided here."""
    return RULES[name].replace("{metric}", METRICS[part.lead].label)


def _headline(findings: Mapping[str, Finding]) -> Markup:
    """The answer in one sentence, of chance, model and planted evidence; what was not tested comes last."""
    chance, model, evidence = findings["chance"], findings["model"], findings["evidence"]
    answers = [
        {
            "pass": "better than random cells",
            "warn": "no better than the target’s mask" if chance.why == NO_MORE else "not shown to beat random cells",
            "fail": "worse than random cells" if chance.p < ALPHA else "no better than random cells",
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
            "warn": "not shown to find the planted evidence",
            "fail": "does not find the planted evidence",
            "unknown": "",
        }[evidence.mark],
    ]
    if chance.mark == model.mark == "unknown":
        answers.append("too few tests to judge" if evidence.mark == "unknown" else "not tested otherwise")
    elif chance.why == CROSSED:
        answers.append("not testable against chance")
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
        if finding.why == CROSSED:
            return words("Not testable: {}", why)
        start = f"Not tested: {why}" if why else "Not tested yet"
        if finding.question == "chance" and not isnan(finding.value):
            own, cells = _compared(finding, part)
            start += f" (so far {own} against {cells} of random cells)"
        return words("{}. {}", start, words(MORE[finding.question], part.read[0].directory))
    value, reference = number(finding.value, 2), number(finding.reference, 2)
    if finding.question == "chance":
        numbers = (*_compared(finding, part), _rests(finding, "image"), _but(finding))
        if part.lead in part.leading("tdd"):
            return words("Deleting its top pixels lowers the score by {}, random cells by {} ({}){}", *numbers)
        return words("{}{}: {}, random cells {} ({}){}", metric_ref(part.lead), ASKS.get(part.lead, ""), *numbers)
    if finding.question == "evidence":
        return words(
            "Average precision on the planted evidence: {}, random cells {} ({}){}",
            *(value, reference, _rests(finding, "scene"), _but(finding)),
        )
    if finding.question == "model":
        return words(
            "Once all weights are randomised, the map correlates {} with the original (Spearman, {})",
            *(value, _maps(finding, part)),
        )
    if finding.question == "stability":
        return words(
            "After small changes of the image, the maps correlate {} with the original (Pearson, {})",
            *(value, _maps(finding, part)),
        )
    return words("{} s a map", number(finding.value, 2 if finding.value < 10 else 0))


def _maps(finding: Finding, part: DataAnalysis) -> str:
    """Whose maps a correlation is of: "6 maps", or "maps of 6 images" where an image has several."""
    return f"maps of {count(finding.n, 'image')}" if part.several else count(finding.n, "map")


def _rests(finding: Finding, noun: str) -> Markup:
    """What a comparison rests on: p, where a test was made, and the number of images."""
    every = count(finding.n, noun)
    return Markup(every) if isnan(finding.p) else words("{}, {}", p_words(finding.p), every)


def _but(finding: Finding) -> str:
    """What stands against a comparison, or ""."""
    return f"; {finding.why.removeprefix('not testable: ')}" if finding.why else ""


def _compared(finding: Finding, part: DataAnalysis) -> tuple[str, str]:
    """The leading metric of the method and of random cells; a relative drop as "39 %"."""
    values = finding.value, finding.reference
    if part.lead not in part.leading("tdd") or not part.of_probability:
        return number(values[0], 2), number(values[1], 2)
    return _percent(values[0]), _percent(values[1])


def _percent(value: float) -> str:
    """A share in percent, with a real minus sign: "39 %"."""
    return f"{number(100 * value, 0)}\N{NO-BREAK SPACE}%"


def _missed(part: DataAnalysis) -> list[Markup]:
    """How many targets the model does not predict."""
    missed, known = part.missed
    if not missed:
        return []
    where = f"the target in {missed} of {count(known, 'image')}"
    little = ": there is little to explain" if part.of_probability else ""
    return [
        words(
            "The model misses {} (IoU below {}){}. Leave them out with <code>--min-iou {}</code>.",
            *(f"{missed} of {count(known, 'target')}" if part.several else where, MISSED_IOU, little, MISSED_IOU),
        )
    ]


def _leaders(part: DataAnalysis) -> list[Markup]:
    """The best method by each metric of `TOLD`, and in how many runs they were compared if not in all."""
    told = [part.best[name] for name in part.leading(*TOLD) if name in part.best and part.best[name].second]
    told = [best for best in told if best.metric != "evidence_ap" or len(part.truth)]
    sentences: list[Markup] = []
    fewer: dict[tuple[int, int], list[str]] = {}
    for best in told:
        if best.runs < best.every:
            fewer.setdefault((best.runs, best.every), []).append(METRICS[best.metric].label)
    for (runs, every), metrics in fewer.items():
        which = "The values below are" if len(metrics) == len(told) else f"{listed(metrics)}: the values below are"
        sentences.append(words("{} over the {} of {} that have all methods.", which, runs, count(every, "run")))
    return [*sentences, *(_leader(part, best) for best in told)]


def _leader(part: DataAnalysis, best: Best) -> Markup:
    """Which method is best by a metric, whether the test agrees, and whether a control or one image says otherwise."""
    (telling,) = (words for name, words in TOLD.items() if best.metric in part.leading(name))
    metric, called = words("{}: ", telling), labels(part)
    value = words("mean {} {}", metric_ref(best.metric), number(best.mean))
    if best.easier:
        names = (called[best.easier], value, called[best.ahead])
        sentence = words("{}{} has the best {}, but over the images that both have {} is ahead.", metric, *names)
    elif not best.method:
        sentence = words("{}the best two are a {} ({}).", metric, ref("claim", "draw"), value)
    else:
        sentence = words(
            "{}<strong>{}</strong> ({}), then {} ({}){}{}.",
            *(metric, called[best.method], value, called[best.second], number(best.second_mean)),
            *(_won(part, best), _tested(part, best)),
        )
    if best.control:
        sentence += words(" {}, which explains nothing, is better still.", called[best.control])
    if best.flipped:
        sentence += words(" <strong>Without the image {}, {}.</strong>", best.flipped, instead(best, called))
    return sentence


def instead(best: Best, called: Mapping[str, str]) -> str:
    """What holds without the image that decides: another method is best, or the best two are a draw."""
    return f"{called[best.instead]} is best" if best.instead else "the best two are a draw"


def _won(part: DataAnalysis, best: Best) -> Markup:
    """In how many runs the best method is ahead of the second; of a single run nothing, for the means say it."""
    pair = _pair(part.wins, best)
    if len(part.runs) == 1 or best.runs < best.every or pair is None or not pair["runs"]:
        return Markup("")
    victories = pair["wins"] if pair["first"] == best.method else pair["losses"]
    return words("; better in {} runs", ref("wins", f"{victories} of {pair['runs']}"))


def _tested(part: DataAnalysis, best: Best) -> Markup:
    """Whether the best two differ by the test over images, which is on ranks and not on means."""
    pair = _pair(part.pairs, best)
    if pair is None or pair["why"]:
        return Markup("")
    favoured = winner(pair, best.metric)
    verdict = f"{labels(part)[favoured]} is significantly better" if pair["apart"] else "not told apart"
    sentence = words("; over images {} ({})", verdict, ref("p", p_words(pair["p_page"])))
    if pair["effect"] and favoured != best.method:
        sentence += words("; typical images say the opposite of these means, which a few outliers set")
    return sentence


def _pair(table: pd.DataFrame, best: Best) -> dict[Any, Any] | None:
    """The row of the best two methods in a table of pairs by metric."""
    names = (best.method, best.second)
    rows = table[(table["metric"] == best.metric) & table["first"].isin(names) & table["second"].isin(names)]
    return rows.iloc[0].to_dict() if len(rows) else None
