"""What can't be concluded from the runs, each with its reason."""

from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.identity import own_numbers
from segfaith.results.records.runs import Run
from segfaith.results.records.schema import TARGET
from segfaith.results.records.select import base, is_reference, without_truth
from segfaith.results.report.blocks import (
    Block,
    Points,
    Prose,
    Section,
    count,
    join,
    listed,
    metric_ref,
    ref,
    words,
)
from segfaith.results.report.sections.rankings import concordance_words
from segfaith.results.report.sections.significance import COMPARED
from segfaith.results.report.sections.topic import labels
from segfaith.results.statistics import curves
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.summary import SMALL_SCORE

NAMED = 2
"""So many pairs are named; more are counted."""


def section(analysis: Analysis) -> Section:
    """What can't be concluded: first what all runs lack, then the limits of each data set."""
    several = len(analysis.parts) > 1
    first = tuple(words("{}", sentence) for sentence in (*analysis.absent, *analysis.filters))
    blocks: list[Block] = [Points(first)] if several and first else []
    for part in analysis.parts:
        heading = [Prose(words("{}", part.label), "heading")] if several else []
        blocks += [*heading, Points((*(() if several else first), *_limits(part)))]
    return Section("limits", "What can’t be concluded", tuple(blocks))


def _limits(part: DataAnalysis) -> list[Markup]:
    sentences = [_few_runs(part), _ties(part), _left_out(part), _small(part), _stability(part), _circular(part)]
    return [sentence for sentence in sentences if sentence]


def _few_runs(part: DataAnalysis) -> Markup:
    group = [run for run in part.runs if (run.records["status"] == "ok").any()]
    if not group:
        return words("No sample was measured.")
    if len(set(own_numbers([run.description for run in group]))) == 1:
        tests = words("the {} speak of other images under this run alone", ref("p", "p-values"))
        return words(
            "It is a single {}{}: nothing here speaks of other seeds or models, there is no spread over runs, and {}.",
            ref("run", "run"),
            "" if len(group) == 1 else " with its ablations",
            tests
            if part.options.single_run
            else "differences between methods are not tested (the cards above test each "
            "method against random cells, over the images of this run)",
        )
    models = len({model_name(run) for run in group})
    which = "this one model" if models == 1 else f"these {models} models"
    return words("The {} speak of other images under {}, not of other models.", ref("p", "p-values"), which)


def _ties(part: DataAnalysis) -> Markup:
    """Pairs that are not told apart, by metric."""
    called, ties = labels(part), []
    for metric in part.leading(*COMPARED):
        known = part.pairs[(part.pairs["metric"] == metric) & (part.pairs["why"] == "")]
        same = known[~known["apart"].astype(bool)]
        if len(same):
            names = zip(same["first"], same["second"], strict=True)
            pairs = [f"{called[first]} and {called[second]}" for first, second in names]
            which = f"{len(same)} of {len(known)} pairs" if len(same) > NAMED else join(pairs)
            ties.append(words("by {}: {}", metric_ref(metric), which))
    if not ties:
        return Markup("")
    return words(
        'Not told apart, which is no proof of equality: {} (<a href="#significance">all pairs</a>).', join(ties, "; ")
    )


def _left_out(part: DataAnalysis) -> Markup:
    """Samples skipped or failed among those that could enter, and those that no run has reached yet."""
    told = [without_truth(run.records) for run in part.runs]
    bad = sum(rows.loc[rows["status"] != "ok", "sample_id"].nunique() for rows in told)
    planned = [(len(run.description["data"]["samples"]), run.records["sample_id"].nunique()) for run in part.read]
    left = sum(max(0, most - done) for most, done in planned)
    sentences = []
    if bad:
        sentences.append(
            words(
                "{} {} skipped or failed, at least in part, and {} missing from the numbers concerned "
                '(<a href="#gallery">see them</a>).',
                ref("status", count(bad, "sample")),
                "was" if bad == 1 else "were",
                "is" if bad == 1 else "are",
            )
        )
    if left:
        sentences.append(words("<strong>Not finished: {} to go.</strong>", count(left, "sample")))
    return join(sentences, " ")


def _small(part: DataAnalysis) -> Markup:
    if not part.of_probability or (part.options.min_s or 0) >= SMALL_SCORE:
        return Markup("")
    scores = [run.measured.drop_duplicates(TARGET)["s"] for run in part.runs]
    small, every = sum(int((values < SMALL_SCORE).sum()) for values in scores), sum(map(len, scores))
    if not small:
        return Markup("")
    return words(
        "{} of {} measured {} have {}: metrics that divide by s explode there and can set the means; read the "
        'medians and <a href="#denominators">absolute drops</a>.',
        ref("small_s", f"{small:,}"),
        f"{every:,}",
        "targets" if part.several else "samples",
        ref("small_s", "s\N{NO-BREAK SPACE}<\N{NO-BREAK SPACE}.05"),
    )


def _stability(part: DataAnalysis) -> Markup:
    """That stability was not measured; where it was measured on few samples, the scores say so."""
    rows = pd.concat([run.records[run.records["status"] == "ok"] for run in part.runs])
    rows = rows[~rows["method"].map(is_reference).astype(bool)]
    if not rows["stability"].notna().any():
        command = "segfaith run FILE --set evaluation.stability=16"
        return words("{} was not measured. Measure it: <code>{}</code>", metric_ref("stability"), command)
    return Markup("")


def _circular(part: DataAnalysis) -> Markup:
    """RIA and DEA are built with an operator and scored with it."""
    names = {base(name) for name in part.methods}
    if not names & {"ria", "dea"} or not all(first_setting(run) for run in part.runs):
        return Markup("")
    (metric,) = part.leading("tdd")
    table, called = part.ranking(metric, "occlusion"), labels(part)
    settings = list(dict.fromkeys(table["setting"]))
    start = "RIA and DEA are built by occluding the image, and scored so."
    if len(settings) < 2:
        several = "They could not be ranked under several {}s"
        why = "No other {} was measured" if _single_operator(part.runs) else several
        return words(f"{{}} {why}: their lead may rest on that.", start, ref("occlusion", "operator"))
    best: dict[str, list[str]] = {}
    for setting in settings:
        rows = table[table["setting"] == setting].sort_values("rank")
        best.setdefault(called[str(rows.iloc[0]["method"])], []).append(setting)
    (agreed,) = part.concordance(metric, "occlusion").to_dict("records")
    methods = count(table["method"].nunique(), "method")
    return words(
        '{} Highest {} by {}: {}; {} (<a href="#rankings">rankings</a>).',
        start,
        METRICS[metric].label,
        ref("occlusion", "operator"),
        listed([words("{} under {}", name, listed(where)) for name, where in best.items()]),
        words("how far the rankings agree is {}", agreed["why"])
        if agreed["why"]
        else words("{} over {}", concordance_words(agreed), methods),
    )


def _single_operator(runs: Sequence[Run]) -> bool:
    """Whether no run was scored with several operators."""
    operators = [run.description["settings"]["evaluation"]["occlusion"] for run in runs]
    return all(isinstance(names, str) or len(names) < 2 for names in operators)


def model_name(run: Run) -> str:
    """A model with its weights, for the same architecture with others is another model."""
    model = run.description["model"]
    return f"{model['name']} with {model.get('weights') or 'no weights'}"


def first_setting(run: Run) -> tuple[str, float] | None:
    """The operator and k of the records; None where the run does not say."""
    settings = run.description["settings"].get("evaluation", {})
    return curves.first_setting(run) if {"occlusion", "k"} <= set(settings) else None
