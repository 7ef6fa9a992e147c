"""What the report says can't be concluded from the runs, each with its reason."""

from collections.abc import Mapping, Sequence

import pandas as pd
from markupsafe import Markup

from segfaith.results.records.identity import own_numbers
from segfaith.results.records.runs import Run
from segfaith.results.records.select import base, enough, is_control, own_methods
from segfaith.results.report.blocks import count, join, listed, metric_ref, ref, words
from segfaith.results.report.sections.robust import concordance_words
from segfaith.results.report.sections.significance import Tested
from segfaith.results.statistics import curves, rankings
from segfaith.results.statistics import summary as tables

NAMED = 2
"""So many pairs are named; more are counted."""


def limits(
    group: Sequence[Run],
    results: Mapping[str, Tested],
    min_s: float | None = None,
    *,
    single_run: bool = False,
) -> list[Markup]:
    """What can't be concluded from these runs, each with its reason.

    The runs come with all samples, of which those below `min_s` enter no number here either. `single_run`: differences
    were tested within one run alone.
    """
    kept = [enough(one, min_s) for one in group]
    said = [
        _few_runs(kept, single_run),
        _ties(results),
        _left_out(group, kept),
        _small(kept, min_s),
        _stability(kept),
        _circular(kept),
    ]
    if not tables.has_evidence(group):
        said.append(
            words(
                "No {} was planted here, so the metrics themselves are not checked: they say how the model answers to "
                "{}, not whether a map is true.",
                ref("evidence", "evidence"),
                ref("occlusion", "occlusion"),
            )
        )
    if not any(len(one.randomisation) for one in group):
        said.append(
            words(
                "Whether the maps depend on what the model has learnt "
                "was not measured (<code>segfaith randomise</code>)."
            )
        )
    return [one for one in said if one]


def _few_runs(group: Sequence[Run], single_run: bool) -> Markup:
    group = [one for one in group if (one.records["status"] == "ok").any()]
    if not group:
        return words("No sample was measured.")
    if len(set(own_numbers([one.description for one in group]))) == 1:
        tests = words("the {} speak of other images under this run alone", ref("p", "p-values"))
        return words(
            "It is a single {}{}: nothing here speaks of other seeds or models, there is no spread over runs, and {}.",
            ref("run", "run"),
            "" if len(group) == 1 else " with its ablations",
            tests if single_run else "differences are not tested",
        )
    models = len({model_name(one) for one in group})
    which = "this one model" if models == 1 else f"these {models} models"
    return words("The {} speak of other images under {}, not of other models.", ref("p", "p-values"), which)


def _ties(results: Mapping[str, Tested]) -> Markup:
    """Pairs that are not told apart, by metric."""
    parts = []
    for metric, one in results.items():
        known = one.pairs[one.pairs["why"] == ""]
        same = known[~known["significant"].astype(bool)]
        if len(same):
            pairs = [f"{first} and {second}" for first, second in zip(same["first"], same["second"], strict=True)]
            which = f"{len(same)} of {len(known)} pairs" if len(same) > NAMED else join(pairs)
            parts.append(words("by {}: {}", metric_ref(metric), which))
    return (
        words(
            'Not told apart, which is no proof of equality: {} (<a href="#significance">all pairs</a>).',
            join(parts, "; "),
        )
        if parts
        else Markup("")
    )


def _left_out(group: Sequence[Run], kept: Sequence[Run]) -> Markup:
    """Samples skipped or failed among those that could enter, and those that no run has reached yet."""
    bad = sum(one.records.loc[one.records["status"] != "ok", "sample_id"].nunique() for one in kept)
    missing = sum(max(0, len(one.description["data"]["samples"]) - one.records["sample_id"].nunique()) for one in group)
    said = []
    if bad:
        said.append(
            words(
                "{} {} skipped or failed, at least in part, and miss from the numbers concerned "
                '(<a href="#gallery">see them</a>).',
                ref("status", count(bad, "sample")),
                "was" if bad == 1 else "were",
            )
        )
    if missing:
        said.append(words("<strong>Not finished: {} to go.</strong>", count(missing, "sample")))
    return join(said, " ")


def _small(group: Sequence[Run], min_s: float | None) -> Markup:
    if min_s is not None:
        return words("Only samples with {} ≥ {} entered.", ref("s", "s"), f"{min_s:g}")
    scores = [one.records[one.records["status"] == "ok"].drop_duplicates("sample_id")["s"] for one in group]
    small, every = sum(int((one < tables.SMALL_SCORE).sum()) for one in scores), sum(map(len, scores))
    if not small:
        return Markup("")
    return words(
        "{} of {} measured samples have {}: metrics that divide by s explode there and can rule the means; read the "
        'medians and <a href="#denominators">absolute drops</a>.',
        ref("small_s", f"{small:,}"),
        f"{every:,}",
        ref("small_s", "s\N{NO-BREAK SPACE}<\N{NO-BREAK SPACE}.05"),
    )


def _stability(group: Sequence[Run]) -> Markup:
    """Where stability was measured on fewer samples than the rest."""
    rows = pd.concat([one.records[one.records["status"] == "ok"] for one in group])
    rows = rows[~rows["method"].map(is_control).astype(bool)]
    counts = rows.groupby("method")[["tdd", "stability"]].count().max()
    if counts["stability"] == 0:
        return words("{} was not measured.", metric_ref("stability"))
    if counts["stability"] < 0.9 * counts["tdd"]:
        return words(
            "{} rests on {} of {} samples.", metric_ref("stability"), int(counts["stability"]), int(counts["tdd"])
        )
    return Markup("")


def _circular(group: Sequence[Run]) -> Markup:
    """RIA and DEA are built with an operator and scored with it."""
    names = {base(name) for one in group for name in one.records["method"]}
    if not names & {"ria", "dea"} or not all(first_setting(one) for one in group):
        return Markup("")
    values = rankings.complete(group, "tdd", "occlusion", methods=own_methods(group))
    found = rankings.by_setting(values)
    settings = list(dict.fromkeys(found["setting"]))
    start = "RIA and DEA are built by occluding the image, and scored so."
    if len(settings) < 2:
        why = "No other {} was measured" if _single_operator(group) else "They could not be ranked under several {}s"
        return words(f"{{}} {why}: their lead may rest on that.", start, ref("occlusion", "operator"))
    best: dict[str, list[str]] = {}
    for setting in settings:
        part = found[found["setting"] == setting].sort_values("rank")
        best.setdefault(str(part.iloc[0]["method"]), []).append(setting)
    (agreed,) = rankings.concordance(values).to_dict("records")
    leaders = listed([words("{} under {}", name, listed(where)) for name, where in best.items()])
    methods = count(found["method"].nunique(), "method")
    return words(
        '{} Highest TDD by {}: {}; {} (<a href="#rankings">rankings</a>).',
        start,
        ref("occlusion", "operator"),
        leaders,
        words("how far the rankings agree is {}", agreed["why"])
        if agreed["why"]
        else words("{} over {}", concordance_words(agreed), methods),
    )


def _single_operator(group: Sequence[Run]) -> bool:
    """Whether no run was scored with several operators."""
    named = [one.description["settings"]["evaluation"]["occlusion"] for one in group]
    return all(isinstance(one, str) or len(one) < 2 for one in named)


def model_name(one: Run) -> str:
    """A model with its weights, for the same architecture with others is another model."""
    model = one.description["model"]
    return f"{model['name']} with {model.get('weights') or 'no weights'}"


def first_setting(one: Run) -> tuple[str, float] | None:
    """The operator and k of the records; None where the run does not say."""
    settings = one.description["settings"].get("evaluation", {})
    return curves.first_setting(one) if {"occlusion", "k"} <= set(settings) else None
