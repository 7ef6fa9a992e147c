"""What was run, and what came out, in plain words."""

from collections.abc import Mapping, Sequence

import pandas as pd
from markupsafe import Markup

from segfaith.constants import TRUTH
from segfaith.results.records.identity import own_numbers
from segfaith.results.records.select import is_control, is_reference
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
from segfaith.results.report.sections.claims import of_the_paper
from segfaith.results.report.sections.limits import first_setting, model_name
from segfaith.results.report.sections.topic import base_methods, images_words, labels
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.claims import verdict_words
from segfaith.results.statistics.judgement import leaders
from segfaith.results.statistics.paired import ALPHA
from segfaith.results.statistics.targets import counted

ALL = {2: "Both", 3: "All three", 4: "All four", 5: "All five", 6: "All six"}


def section(analysis: Analysis) -> Section:
    """What was run, a sentence a data set; then what came out of each."""
    blocks: list[Block] = [
        Prose(Markup("What was run"), "heading"),
        Points(tuple(_ran(part) for part in analysis.parts)),
    ]
    several = len(analysis.parts) > 1
    for part in analysis.parts:
        if sentences := _came_out(part):
            title = words("What came out: {}", part.label) if several else Markup("What came out")
            blocks += [Prose(title, "heading"), Points(tuple(sentences))]
    return Section("summary", "Summary", tuple(blocks))


def _ran(part: DataAnalysis) -> Markup:
    """One sentence on the runs of a data set."""
    called = labels(part)
    models = list(dict.fromkeys(model_name(run) for run in part.read))
    seeds = sorted({str(run.description["settings"]["seed"]) for run in part.read})
    images, targets = counted(run.records for run in part.read)
    states = {"ok": 0, "skipped": 0, "failed": 0}
    for run in part.read:
        for seen in run.records.groupby("sample_id")["status"].agg(set):
            states["ok" if "ok" in seen else "failed" if "failed" in seen else "skipped"] += 1
    samples, own_runs = sum(states.values()), len(set(own_numbers([run.description for run in part.read])))
    methods = dict.fromkeys(name for run in part.read for name in run.records["method"])
    own = [called.get(name, name) for name in methods if not is_reference(name)]
    controls = [called.get(name, name) for name in methods if is_control(name)]
    return words(
        "<strong>{}</strong>: {}{} of {} ({}) with {} {}, on {}. {} of {} were measured{}. Methods: {}{}{}. {}",
        part.label,
        ref("run", count(len(part.read), "run")),
        f" ({own_runs} of their own, the rest ablations)" if own_runs < len(part.read) else "",
        count(len(models), "model"),
        join(models),
        "seed" if len(seeds) == 1 else "seeds",
        join(seeds),
        ref("images", images_words(images, targets)),
        ref("status", f"{states['ok']:,}"),
        count(samples, "sample"),
        f" ({states['skipped']} skipped, {states['failed']} failed)" if samples > states["ok"] else "",
        join(own),
        words("; {}: {}", ref("control", "controls"), join(controls)) if controls else "",
        words("; {}", ref("truth", "the truth as a map")) if TRUTH in methods else "",
        _settings(part),
    )


def _settings(part: DataAnalysis) -> Markup:
    firsts = dict.fromkeys(first_setting(run) for run in part.read)
    known = [f"{setting[0]} occlusion at k = {setting[1]:g}" for setting in firsts if setting]
    if len(known) < len(firsts):
        return Markup("")
    return words("Scored with {}.", listed([ref("occlusion", text) for text in known]))


def _came_out(part: DataAnalysis) -> list[Markup]:
    """How methods stand against chance, the claims, and which metrics may lead; the verdict names the best methods."""
    if part.summary.empty:
        return []
    return [sentence for sentence in (_chance(part), _claims(part), _worth(part)) if sentence]


def _chance(part: DataAnalysis) -> Markup:
    """What the test of the cards says of each method against random cells, and which delete less in some run."""
    called, (gain,) = labels(part), part.leading("tdd_gain")
    gains = part.values[part.values["metric"] == gain].dropna(subset="value")
    own = base_methods(part, [name for name in part.methods if not is_reference(name)])
    means, lowest = (getattr(gains.groupby("method")["value"], name)() for name in ("mean", "min"))
    mixed = [called[name] for name in own if name in means and lowest[name] <= 0 < means[name]]
    tested = part.chance[part.chance["why"] == ""]
    sentences = against_chance(tested, called, metric_ref(part.lead))
    if mixed:
        better = words("{}: above 0 in the mean, but not in every run: {}.", metric_ref(gain), listed(mixed))
        sentences.append(better)
    return join(sentences, " ")


def against_chance(pairs: pd.DataFrame, called: Mapping[str, str], metric: Markup) -> list[Markup]:
    """By the test over images: which methods are better than random cells, which worse, and which neither.

    Args:
        pairs: rows of `paired.against` whose second method is `random_cells`, those that could be tested.
        metric: what they are better by, as the page calls it.
    """
    groups: dict[str, list[str]] = {}
    for row in pairs.to_dict("records"):
        verdict = "neither" if not row["significant"] else "better" if row["effect"] > 0 else "worse"
        groups.setdefault(verdict, []).append(called[row["first"]])
    level = f"p < {ALPHA:g}".replace("0.", ".").replace(" ", "\N{NO-BREAK SPACE}")
    chance, sentences = ref("control", "random cells"), []
    for verdict in [name for name in ("better", "worse") if name in groups]:
        who, verb = _who(groups[verdict], len(pairs))
        told = (who, verb, verdict, chance, metric, ref("p", level))
        sentences.append(words("{} {} significantly {} than {} by {} ({}).", *told))
    if "neither" in groups:
        who, _ = _who(groups["neither"], len(pairs))
        sentences.append(words("{}: the test does not tell {} from {}.", who, _it(groups["neither"]), chance))
    return sentences


def _who(names: Sequence[str], every: int) -> tuple[Markup, str]:
    """Whom a sentence is about, and its verb: "All four", "are"."""
    if len(names) == every and every in ALL:
        return Markup(ALL[every]), "are"
    return listed(names), "are" if len(names) > 1 else "is"


def _it(names: Sequence[str]) -> str:
    return "them" if len(names) > 1 else "it"


def _claims(part: DataAnalysis) -> Markup:
    table = part.claims
    if not of_the_paper(part) or not table["holds"].isin(("holds", "fails")).any():
        return Markup("")
    return words(
        'Of the paper’s {} {} (<a href="#claims">all claims</a>).',
        ref("claim", f"{len(table)} claims"),
        listed(verdict_words(table["holds"])),
    )


def _worth(part: DataAnalysis) -> Markup:
    """Which of the metrics that were measured may lead a conclusion."""
    chosen = [metric_ref(name) for name in leaders(part.options.judgement) if name in part.metrics]
    if not chosen:
        return Markup("")
    return words(
        'Of the metrics measured here may lead a conclusion: {} (<a href="#worth">and why not the others</a>).',
        listed(chosen),
    )
