"""The report: one HTML page that holds everything it needs, and asks for nothing from any network.

    page_model      sections, tables and charts as data       page_words      the summary
    page_results    scores and claims                         page_limits     what can't be concluded
    page_tests      significance                              page_gallery    which samples are shown
    page_robust     how far to trust results                  page_pictures   their pictures, to a budget
    page_evidence   do the metrics themselves pass            page_glossary   what every number means
    page_charts     inline SVG

`page/` holds the template, the style and the script. The template escapes every name, path and reason, and the page's
content security policy allows its own script and style only, by their digests.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib.resources import files
from math import isnan
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.files import replace_file
from segfaith.results.records.identity import data_label
from segfaith.results.records.runs import Run
from segfaith.results.records.select import enough, grouped
from segfaith.results.report.blocks import Points, Prose, Section, count, join, metric_column, number, ref, words
from segfaith.results.report.gallery import SHOWN, Gallery, Item, gallery, methods_of, scores_of
from segfaith.results.report.glossary import glossary
from segfaith.results.report.pictures import Pictures, pictures
from segfaith.results.report.sections import evidence as page_evidence
from segfaith.results.report.sections import limits as page_limits
from segfaith.results.report.sections import robust as page_robust
from segfaith.results.report.sections import scores as page_results
from segfaith.results.report.sections import significance as page_tests
from segfaith.results.report.sections import summary as page_words
from segfaith.results.statistics.paired import family

LIMIT, PICTURES = 15_000_000, 10_000_000
"""Bytes of the page and, at first, of its pictures."""


@dataclass(frozen=True)
class _Topic:
    """A section that is built for each data set."""

    name: str
    title: str
    introduction: Markup
    build: Callable[[str, Sequence[Run]], list[Any]]


def write_report(
    data: Sequence[Run],
    path: Path,
    min_s: float | None = None,
    *,
    methods: Sequence[str] | None = None,
    single_run: bool = False,
    absent: Sequence[str] = (),
) -> Path:
    """Writes the report of the runs as one HTML file of less than 15 MB.

    Args:
        data: runs, as `records.load_run` gives them; several of one data set are averaged run by run.
        path: the file to write.
        min_s: leaves out samples with a lower s from all numbers; the gallery shows them still.
        methods: whose pairs are tested, see `significance.family`, which is what stands for them by default.
        single_run: also tests differences within one run alone, see `significance.compare`.
        absent: sentences on what was planned and is not here, for the summary.

    Returns:
        The path.

    Raises:
        SettingsError: no runs, methods that no run holds, or a page that does not fit even without pictures.
    """
    if not data:
        raise SettingsError("expected at least one run to report on; got none")
    sections = build_sections(data, min_s, methods=methods, single_run=single_run, absent=absent)
    shown = gallery(data)
    budget = PICTURES
    while True:
        kept = pictures(shown.items, budget)
        page = render(data, sections, shown, kept, min_s)
        size = len(page.encode("utf-8"))
        if size < LIMIT:
            replace_file(path, partial(Path.write_text, data=page, encoding="utf-8"))
            return path
        if not kept.bytes:
            raise SettingsError(
                f"expected a page below {LIMIT:,} bytes; got {size:,} even without pictures: report on fewer runs at "
                "once"
            )
        budget = max(0, kept.bytes - (size - LIMIT) - LIMIT // 100)


def build_sections(
    data: Sequence[Run],
    min_s: float | None = None,
    *,
    methods: Sequence[str] | None = None,
    single_run: bool = False,
    absent: Sequence[str] = (),
) -> list[Section]:
    """The page's sections but for gallery and glossary; data sets under headings of their own if there are several."""
    kept = [enough(one, min_s) for one in data]
    groups, originals = grouped(kept), grouped(data)
    chosen = None if methods is None else family([name for run in data for name in run.records["method"]], methods)
    results = {
        label: page_tests.compare(group, single_run=single_run, methods=chosen) for label, group in groups.items()
    }
    several = len(groups) > 1
    summary: list[Any] = [
        Prose(Markup("What was run"), "heading"),
        Points(tuple(page_words.ran(label, group) for label, group in originals.items())),
    ]
    tellers: dict[str, tuple[Sequence[str], Callable[[str], list[Markup]]]] = {
        "What came out": ((), lambda label: page_words.came_out(groups[label], results[label])),
        "What can’t be concluded": (
            absent,
            lambda label: page_limits.limits(originals[label], results[label], min_s, single_run=single_run),
        ),
    }
    for title, (first, told) in tellers.items():
        points = [words("{}", one) for one in first]
        if several and points:
            summary += [Prose(Markup(title), "heading"), Points(tuple(points))]
            points = []
        for label in groups:
            heading = words("{}: {}", title, label) if several else Markup(title)
            summary += [Prose(heading, "heading"), Points((*points, *told(label)))]
    sections = [Section("summary", "Summary", tuple(summary))]
    unmeasured = []
    for topic in (*TOPICS[:2], _significance(results), *TOPICS[2:]):
        parts = {label: topic.build(label, group) for label, group in groups.items()}
        missing = [
            words("{}: {}", label, one.text) if several else one.text
            for label, found in parts.items()
            for one in found
            if one.kind == "missing"
        ]
        if len(missing) == sum(map(len, parts.values())):
            unmeasured.append(words("<strong>{}</strong>: {}", topic.title, join(dict.fromkeys(missing), " ")))
            continue
        blocks: list[Any] = [Prose(topic.introduction)]
        for label, found in parts.items():
            blocks += [*([Prose(words("{}", label), "heading")] if several else []), *found]
        sections.append(Section(topic.name, topic.title, tuple(blocks)))
    if unmeasured:
        sections.append(Section("unmeasured", "What was not measured", (Points(tuple(unmeasured)),)))
    return [*sections, Section("runs", "Runs", tuple(page_results.provenance(data)))]


def render(
    data: Sequence[Run], sections: Sequence[Section], shown: Gallery, kept: Pictures, min_s: float | None
) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("segfaith.results.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    methods = methods_of(shown.items)
    measured = [name for name in SHOWN if any(name in one.rows and one.rows[name].notna().any() for one in shown.items)]
    images = {(data_label(one.description), name) for one in data for name in one.records["sample_id"]}
    labels = list(dict.fromkeys(data_label(one.description) for one in data))
    return environment.get_template("report.html.j2").render(
        title=f"Faithfulness report: {', '.join(labels)}",
        labels=labels,
        extent=f"{count(len(data), 'run')} · {count(len(images), 'image')}",
        sections=sections,
        glossary=glossary(),
        style=Markup(style),
        script=Markup(script),
        style_digest=_digest(style),
        script_digest=_digest(script),
        cards=[_card(place, item, kept, shown.measure, measured) for place, item in enumerate(shown.items)],
        gallery=shown,
        picture_words=kept.words,
        methods=methods,
        metrics=[(name, METRICS[name].label) for name in measured],
        classes=sorted({one.class_name for one in shown.items}),
        runs=list(dict.fromkeys(one.label for one in shown.items)),
        scores=[scores_of(item, shown.measure) for item in shown.items],
        columns=[metric_column(name) for name in measured],
        min_s=min_s,
        version=str(data[0].description.get("versions", {}).get("segfaith", "")),
    )


def _card(place: int, item: Item, kept: Pictures, measure: str, metrics: Sequence[str]) -> dict[str, Any]:
    """What the template shows of one sample."""
    uris = kept.uris[place]
    rows = []
    for row in item.rows.to_dict("records"):
        method = str(row["method"])
        rows.append(
            {
                "method": method,
                "status": row["status"],
                "uri": uris.get(method, ""),
                "tdd": number(_real(row.get("tdd")), 2),
                "cells": [(name, number(_real(row.get(name)))) for name in metrics],
            }
        )
    first = item.rows.iloc[0]
    return {
        "place": place,
        "sample": item.sample_id,
        "run": item.label,
        "class": item.class_name,
        "status": item.status,
        "s": number(item.s, 2),
        "measure": measure,
        "disagreement": number(item.disagreement, 2),
        "area": number(_real(first.get("target_area")) * 100, 1),
        "iou": number(_real(first.get("target_iou")), 2),
        "uri": uris.get("", ""),
        "rows": rows,
        "reasons": item.reasons,
    }


def _real(value: Any) -> float:
    return float("nan") if value is None or isnan(value) else float(value)


def _significance(results: Any) -> _Topic:
    introduction = words(
        "Methods are paired over {}, each averaged over its runs first. {} after correction for all pairs of a metric; "
        "the {} say how large the difference is. Unless others are named, each method is also held against {}.",
        ref("images", "images"),
        ref("p", "Significant"),
        ref("difference", "difference and its interval"),
        ref("control", "random cells"),
    )
    return _Topic(
        "significance", "Significance", introduction, lambda label, _: page_tests.tests(label, results[label])
    )


def _asset(name: str) -> str:
    return (files("segfaith.results.report") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The source of a content security policy that allows exactly this text."""
    return f"'sha256-{b64encode(sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


TOPICS = (
    _Topic(
        "scores",
        "Scores",
        words(
            "{} over runs. {} stands beside TDD, for a random map of the same coarseness is no zero.",
            ref("mean", "Means"),
            ref("tdd_gain", "TDD gain"),
        ),
        page_results.scores,
    ),
    _Topic(
        "claims",
        "Claims check",
        words("What the paper says of its four methods, put to these runs. {} says in how many.", ref("run", "“Runs”")),
        page_results.claims_check,
    ),
    _Topic(
        "curves",
        "Curves",
        words("One {} is a choice. These are the same maps at other fractions of the region.", ref("deleted", "k")),
        page_robust.curves,
    ),
    _Topic(
        "rankings",
        "Rankings under other settings",
        words(
            "RIA and DEA are built by {}, and scored by it. If a ranking rests on that, it changes with the operator. "
            "At k = 1 all maps delete the same, which ranks nothing.",
            ref("occlusion", "occlusion"),
        ),
        page_robust.orders,
    ),
    _Topic(
        "leakage",
        "Leakage",
        words(
            "{} deletes more pixels than TDD where the target is small. Here as many, and by distance to the target.",
            ref("odd_abs", "OT abs"),
        ),
        page_robust.leakage,
    ),
    _Topic(
        "denominators",
        "Small scores and strata",
        words(
            "TDD and OT abs divide by {}. What they say must hold without that, and in every part of the data.",
            ref("s", "s"),
        ),
        page_robust.denominators,
    ),
    _Topic(
        "properties",
        "What the maps look like",
        words("Where maps lie and how sparse they are; none of this says that a map is true."),
        page_robust.properties,
    ),
    _Topic(
        "randomisation",
        "Randomised models",
        words("A map that stays the same when the model’s weights are drawn anew does not explain the model."),
        page_robust.randomisation,
    ),
    _Topic(
        "evidence",
        "How far to trust the metrics",
        words("{} tells which metrics rank methods by the truth of their maps.", ref("evidence", "Planted evidence")),
        page_evidence.evidence,
    ),
)
