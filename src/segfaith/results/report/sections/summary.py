"""What was run, and what came out, in plain words."""

from collections.abc import Iterable, Mapping, Sequence

import pandas as pd
from markupsafe import Markup

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.identity import own_numbers
from segfaith.results.records.select import is_control
from segfaith.results.report.blocks import (
    Block,
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
    spread,
    words,
)
from segfaith.results.report.sections.claims import of_the_paper
from segfaith.results.report.sections.limits import first_setting, model_name
from segfaith.results.report.sections.significance import winner
from segfaith.results.report.sections.topic import base_methods, labels
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.claims import verdict_words
from segfaith.results.statistics.paired import ALPHA, CHANCE, ONE_RUN
from segfaith.results.statistics.summary import side

PLAIN = {
    "tdd": "What is marked in the target matters to the model",
    "odd_abs": "What is marked outside it matters too",
    "insertion_gain": "What is marked in the target suffices",
    "stability": "The map stays the same under small changes of the image",
    "runtime_s": "Seconds for a map",
}
"""What the summary's metrics say in plain words; it names the best method by each."""
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
    images = {name for run in part.read for name in run.records["sample_id"]}
    states = {"ok": 0, "skipped": 0, "failed": 0}
    for run in part.read:
        for seen in run.records.groupby("sample_id")["status"].agg(set):
            states["ok" if "ok" in seen else "failed" if "failed" in seen else "skipped"] += 1
    samples, own_runs = sum(states.values()), len(set(own_numbers([run.description for run in part.read])))
    methods = dict.fromkeys(name for run in part.read for name in run.records["method"])
    own = [called.get(name, name) for name in methods if not is_control(name)]
    controls = [called.get(name, name) for name in methods if is_control(name)]
    return words(
        "<strong>{}</strong>: {}{} of {} ({}) with {} {}, on {}. {} of {} were measured{}. Methods: {}{}. {}",
        part.label,
        ref("run", count(len(part.read), "run")),
        f" ({own_runs} of their own, the rest ablations)" if own_runs < len(part.read) else "",
        count(len(models), "model"),
        join(models),
        "seed" if len(seeds) == 1 else "seeds",
        join(seeds),
        ref("images", count(len(images), "image")),
        ref("status", f"{states['ok']:,}"),
        count(samples, "sample"),
        f" ({states['skipped']} skipped, {states['failed']} failed)" if samples > states["ok"] else "",
        join(own),
        words("; {}: {}", ref("control", "controls"), join(controls)) if controls else "",
        _settings(part),
    )


def _settings(part: DataAnalysis) -> Markup:
    firsts = dict.fromkeys(first_setting(run) for run in part.read)
    known = [f"{setting[0]} occlusion at k = {setting[1]:g}" for setting in firsts if setting]
    if len(known) < len(firsts):
        return Markup("")
    return words("Scored with {}.", listed([ref("occlusion", text) for text in known]))


def _came_out(part: DataAnalysis) -> list[Markup]:
    """The best method by each metric, how methods stand against chance, the claims, the planted evidence."""
    if part.summary.empty:
        return []
    sentences = [_best(part, metric) for metric in PLAIN]
    sentences += [_chance(part), _claims(part), _evidence(part)]
    return [sentence for sentence in sentences if sentence]


def _best(part: DataAnalysis, metric: str) -> Markup:
    """The best two by the means over those runs that have a value of all methods, for others would compare runs."""
    lower, called = METRICS[metric].better == "lower", labels(part)
    shown = [name for name in base_methods(part, part.methods) if not is_control(name)]
    values = part.values[(part.values["metric"] == metric) & part.values["method"].isin(shown)]
    every = values.pivot(index="run", columns="method", values="value").dropna(axis=1, how="all").dropna(how="all")
    if every.shape[1] < 2:
        return Markup("")
    shared = every.dropna()
    if shared.empty:
        return words("{} ({}): no run has all methods.", PLAIN[metric], metric_ref(metric))
    means, stds = shared.mean().sort_values(ascending=lower), shared.std(ddof=1)
    names = (str(means.index[0]), str(means.index[1]))
    sentence = words(
        "{} ({}): <strong>{}</strong> is {}, {}; {} follows with {}",
        PLAIN[metric],
        metric_ref(metric),
        called[names[0]],
        "lowest" if lower else "highest",
        spread(means[names[0]], stds[names[0]]),
        called[names[1]],
        spread(means[names[1]], stds[names[1]]),
    )
    if side(means[names[0]], means[names[1]], metric) == 0:
        sentence += words(" (a {})", ref("claim", "draw"))
    if len(shared) < len(every):
        sentence += words(" (over the {} of {} that have all methods)", len(shared), count(len(every), "run"))
    return sentence + _won(part, metric, names) + _told(part, metric, names) + "."


def _won(part: DataAnalysis, metric: str, names: tuple[str, str]) -> Markup:
    """In how many runs the first is better; of a single run nothing, for the means say it."""
    wins = part.wins[part.wins["metric"] == metric]
    pair = wins[wins["first"].isin(names) & wins["second"].isin(names)]
    if len(part.runs) == 1 or not len(pair) or not pair.iloc[0]["runs"]:
        return Markup("")
    row = pair.iloc[0]
    victories = row["wins"] if row["first"] == names[0] else row["losses"]
    return words("; better in {} runs", ref("wins", f"{victories} of {row['runs']}"))


def _told(part: DataAnalysis, metric: str, names: tuple[str, str]) -> Markup:
    """Whether the two, the first with the better mean, differ by the test, which is on ranks, not means."""
    pairs, called = part.pairs[part.pairs["metric"] == metric], labels(part)
    pair = pairs[pairs["first"].isin(names) & pairs["second"].isin(names)]
    if not len(pair) or ONE_RUN in pair.iloc[0]["why"]:
        return Markup("")
    row = pair.iloc[0].to_dict()
    if row["why"]:
        return words("; {}", row["why"].split(";")[0].split(",")[0])
    favoured = winner(row, metric)
    result = "the difference is significant" if row["significant"] else "they are not told apart"
    if row["significant"] and favoured != names[0]:
        result += f" in favour of {called[favoured]}"
    sentence = words("; over images {} ({})", result, ref("p", p_words(row["p_holm"])))
    if row["effect"] and favoured != names[0]:
        sentence += words("; typical images say the opposite of these means, which a few outliers set")
    return sentence


def _chance(part: DataAnalysis) -> Markup:
    """Which methods have a mean above that of random cells, which of them not in every run, and what the test says."""
    called = labels(part)
    shown = [name for name in base_methods(part, part.methods) if not is_control(name)]
    rows = part.summary[(part.summary["metric"] == "tdd_gain") & part.summary["method"].isin(shown)]
    gains = rows.dropna(subset="mean").set_index("method")["mean"]
    if gains.empty:
        return Markup("")
    lowest = part.values[part.values["metric"] == "tdd_gain"].groupby("method")["value"].min()
    above = [str(name) for name in gains.index if gains[name] > 0]
    below = [str(name) for name in gains.index if name not in above]
    mixed = [called[name] for name in above if not lowest.get(name, -1) > 0]
    sentences = [
        words(
            "Deletes {} than {} in the mean ({}): {}.",
            comparison,
            ref("control", "random cells"),
            metric_ref("tdd_gain"),
            listed([words("{} {}", called[name], number(gains[name])) for name in names]),
        )
        for comparison, names in (("more", above), ("no more", below))
        if names
    ]
    if mixed:
        sentences.append(words("Not in every run: {}.", listed(mixed)))
    pairs = part.pairs[(part.pairs["metric"] == "tdd") & (part.pairs["second"] == CHANCE) & (part.pairs["why"] == "")]
    return join([*sentences, *against_chance(pairs, called)], " ")


def against_chance(pairs: pd.DataFrame, called: Mapping[str, str]) -> list[Markup]:
    """By the test over images: which methods delete better than random cells, which worse, and which neither.

    Args:
        pairs: rows of `paired.compare` by TDD whose second method is `random_cells`, those that could be tested.
    """
    groups: dict[str, list[str]] = {}
    for row in pairs.to_dict("records"):
        verdict = "neither" if not row["significant"] else "better" if row["effect"] > 0 else "worse"
        groups.setdefault(verdict, []).append(called[row["first"]])
    level = f"p < {ALPHA:g}".replace("0.", ".").replace(" ", "\N{NO-BREAK SPACE}")
    chance, sentences = ref("control", "random cells"), []
    for verdict in [name for name in ("better", "worse") if name in groups]:
        who, verb = _who(groups[verdict], len(pairs))
        sentences.append(words("{} {} significantly {} than {} ({}).", who, verb, verdict, chance, ref("p", level)))
    if "neither" in groups:
        who, _ = _who(groups["neither"], len(pairs))
        sentences.append(words("{}: the test does not tell {} from {}.", who, _it(groups["neither"]), chance))
    return sentences


def _who(names: Sequence[str], every: int) -> tuple[Markup, str]:
    """Whom a sentence is about, and its verb: "All four", "delete"."""
    if len(names) == every and every in ALL:
        return Markup(ALL[every]), "delete"
    return listed(names), "delete" if len(names) > 1 else "deletes"


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


def _evidence(part: DataAnalysis) -> Markup:
    """Which metrics agree with planted evidence."""
    if not part.has_evidence or not len(part.evidence[0]):
        return Markup("")
    kinds = set(part.evidence[0]["kind"])
    kind = "all but plain" if kinds - {"plain"} else "plain"
    kind = kind if len(kinds) > 1 else next(iter(kinds))
    groups: dict[str, list[Markup]] = {}
    table = part.evidence_agreements
    for row in table[(table["kind"] == kind) & (table["among"] == "all")].to_dict("records"):
        verdict = "not testable" if row["verdict"].startswith("not testable") else row["verdict"]
        groups.setdefault(verdict, []).append(metric_ref(row["metric"]))
    verdicts: Iterable[Markup] = (words("{}: {}", verdict, listed(names)) for verdict, names in groups.items())
    return words(
        'Does each metric rank methods as the {} does ({})? {} (<a href="#evidence">details</a>).',
        ref("evidence", "planted evidence"),
        "plain objects only" if kind == "plain" else "plain objects left out",
        join(verdicts, "; "),
    )
