"""The report's summary in plain words: what was run and what came out."""

from collections.abc import Mapping, Sequence

import pandas as pd
from markupsafe import Markup

from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.identity import own_numbers
from segfaith.results.records.runs import Run
from segfaith.results.records.select import is_control, method_order, without_variants
from segfaith.results.report.blocks import count, join, listed, metric_ref, number, p_words, ref, spread, words
from segfaith.results.report.sections.limits import first_setting, model_name
from segfaith.results.report.sections.significance import Tested, winner
from segfaith.results.statistics import claims
from segfaith.results.statistics import evidence as trust
from segfaith.results.statistics import summary as tables
from segfaith.results.statistics.analysis import analyse
from segfaith.results.statistics.paired import CHANCE, paired

PLAIN = {
    "tdd": "What is marked in the target matters to the model",
    "odd_abs": "What is marked outside it matters too",
    "insertion_gain": "What is marked in the target suffices",
    "stability": "The map stays the same under small changes of the image",
    "runtime_s": "Seconds for a map",
}
"""What the summary's metrics say in plain words; it names the best method by each."""


def ran(label: str, group: Sequence[Run]) -> Markup:
    """One sentence on the runs of a data set."""
    models = list(dict.fromkeys(model_name(one) for one in group))
    seeds = sorted({str(one.description["settings"]["seed"]) for one in group})
    images = {name for one in group for name in one.records["sample_id"]}
    found = {"ok": 0, "skipped": 0, "failed": 0}
    for one in group:
        states = one.records.groupby("sample_id")["status"].agg(set)
        for state in states:
            found["ok" if "ok" in state else "failed" if "failed" in state else "skipped"] += 1
    samples, own_runs = sum(found.values()), len(set(own_numbers([one.description for one in group])))
    methods = method_order(name for one in group for name in one.records["method"])
    own = [name for name in methods if not is_control(name)]
    controls = [name for name in methods if is_control(name)]
    return words(
        "<strong>{}</strong>: {}{} of {} ({}) with {} {}, on {}. {} of {} were measured{}. Methods: {}{}. {}",
        label,
        ref("run", count(len(group), "run")),
        f" ({own_runs} of their own, the rest ablations)" if own_runs < len(group) else "",
        count(len(models), "model"),
        join(models),
        "seed" if len(seeds) == 1 else "seeds",
        join(seeds),
        ref("images", count(len(images), "image")),
        ref("status", f"{found['ok']:,}"),
        count(samples, "sample"),
        f" ({found['skipped']} skipped, {found['failed']} failed)" if samples > found["ok"] else "",
        join(own),
        words("; {}: {}", ref("control", "controls"), join(controls)) if controls else "",
        _settings(group),
    )


def _settings(group: Sequence[Run]) -> Markup:
    firsts = list(dict.fromkeys(first_setting(one) for one in group))
    if not all(firsts):
        return Markup("")
    said = [f"{operator} occlusion at k = {k:g}" for operator, k in (one for one in firsts if one)]
    return words("Scored with {}.", listed([ref("occlusion", one) for one in said]))


def came_out(group: Sequence[Run], results: Mapping[str, Tested]) -> list[Markup]:
    """The best method by each metric, how methods stand against chance, the claims, the planted evidence."""
    shown = [without_variants(one) for one in group]
    summary = tables.summarise(shown)
    own = summary[~summary["method"].map(is_control).astype(bool)].dropna(subset="mean")
    values = tables.run_values(shown)
    values = values[values["method"].isin(own["method"])]
    said = [_best(shown, values[values["metric"] == one], one, results.get(one)) for one in PLAIN]
    said += [_chance(own, shown, results.get("tdd")), _claims(group), _evidence(group)]
    return [one for one in said if one]


def _best(runs: Sequence[Run], values: pd.DataFrame, metric: str, result: Tested | None) -> Markup:
    """The best two by the means over those runs that have a value of all methods, for others would compare runs."""
    lower = METRICS[metric].better == "lower"
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
        names[0],
        "lowest" if lower else "highest",
        ref(metric, spread(means[names[0]], stds[names[0]])),
        names[1],
        ref(metric, spread(means[names[1]], stds[names[1]])),
    )
    if tables.side(means[names[0]], means[names[1]], metric) == 0:
        sentence += words(" (a {})", ref("claim", "draw"))
    if len(shared) < len(every):
        sentence += words(" (over the {} of {} that have all methods)", len(shared), count(len(every), "run"))
    won = tables.wins(tables.run_values(runs), paired(runs, metric))
    pair = won[won["first"].isin(names) & won["second"].isin(names)]
    if len(pair) and pair.iloc[0]["runs"]:
        row = pair.iloc[0]
        victories = row["wins"] if row["first"] == names[0] else row["losses"]
        if len(runs) > 1:
            sentence += words("; better in {} runs", ref("wins", f"{victories} of {row['runs']}"))
        elif victories:
            sentence += words("; better in {}", ref("wins", "the only run"))
    return sentence + (_told(result.pairs, metric, names) if result else "") + "."


def _told(pairs: pd.DataFrame, metric: str, names: tuple[str, str]) -> Markup:
    """Whether the two, the first with the better mean, differ by the test, which is on ranks, not means."""
    found = pairs[pairs["first"].isin(names) & pairs["second"].isin(names)]
    if not len(found):
        return Markup("")
    row = found.iloc[0].to_dict()
    if row["why"]:
        return words("; {}", short(row["why"]))
    said = "the difference is significant" if row["significant"] else "they are not told apart"
    if row["significant"] and winner(row, metric) != names[0]:
        said += f" in favour of {winner(row, metric)}"
    sentence = words("; over images {} ({})", said, ref("p", p_words(row["p_holm"])))
    if row["effect"] and winner(row, metric) != names[0]:
        sentence += words("; the test on ranks points the other way than the means (few images rule the mean)")
    return sentence


def short(why: str) -> str:
    """The first words of a reason, "not testable: one run"."""
    return why.split(";")[0].split(",")[0]


def _chance(own: pd.DataFrame, runs: Sequence[Run], result: Tested | None = None) -> Markup:
    """Which methods have a mean above that of random cells, which of them not in every run, and what the test says."""
    gains = own[own["metric"] == "tdd_gain"].set_index("method")["mean"]
    if gains.empty:
        return Markup("")
    values = tables.run_values(runs)
    lowest = values[values["metric"] == "tdd_gain"].groupby("method")["value"].min()
    above = [name for name in gains.index if gains[name] > 0]
    below = [name for name in gains.index if name not in above]
    mixed = [name for name in above if not lowest.get(name, -1) > 0]
    told = {"Mean TDD above that of": above, "Mean TDD not above that of": below}
    said = [
        words(
            "{} {} ({}): {}.",
            start,
            ref("control", "random cells"),
            metric_ref("tdd_gain"),
            listed([words("{} {}", name, ref("tdd_gain", number(gains[name]))) for name in names]),
        )
        for start, names in told.items()
        if names
    ]
    if mixed:
        said.append(words("Above in the mean, but not in every run: {}.", listed(mixed)))
    if result:
        said.append(_against_chance(result.pairs))
    return join([one for one in said if one], " ")


def _against_chance(pairs: pd.DataFrame) -> Markup:
    """By the test over images: which methods have a higher TDD than random cells, a lower one, or neither."""
    found: dict[str, list[str]] = {}
    for row in pairs[(pairs["second"] == CHANCE) & (pairs["why"] == "")].to_dict("records"):
        verdict = "not told apart from it" if not row["significant"] else "above" if row["effect"] > 0 else "below"
        found.setdefault(verdict, []).append(row["first"])
    if not found:
        return Markup("")
    said = [words("{} {}", verdict, listed(names)) for verdict, names in found.items()]
    return words("By the {} over images: {}.", ref("p", "test"), join(said, "; "))


def _claims(runs: Sequence[Run]) -> Markup:
    found = analyse(runs).parts[0].claims
    if not found["holds"].isin(("holds", "fails")).any():
        return Markup("")
    return words(
        'Of the paper’s {} {} (<a href="#claims">claims check</a>).',
        ref("claim", f"{len(found)} claims"),
        listed(claims.verdict_words(found["holds"])),
    )


def _evidence(runs: Sequence[Run]) -> Markup:
    """Which metrics agree with planted evidence."""
    if not tables.has_evidence(runs):
        return Markup("")
    rows, _ = trust.usable(runs)
    kinds = set(rows["kind"]) if len(rows) else set()
    kind = "all but plain" if kinds - {"plain"} else "plain"
    said: dict[str, list[Markup]] = {}
    for metric in trust.JUDGED if kinds else ():
        found = trust.agreement(rows, kind, metric)
        said.setdefault("not testable" if found.why else found.verdict, []).append(metric_ref(metric))
    if not said:
        return Markup("")
    verdicts = join([words("{}: {}", verdict, listed(names)) for verdict, names in said.items()], "; ")
    return words(
        'Ranking of methods by each metric against that by {} ({}): {} (<a href="#evidence">details</a>).',
        ref("evidence", "planted evidence"),
        "plain objects left out" if kind != "plain" else "plain objects only",
        verdicts,
    )
