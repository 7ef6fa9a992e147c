"""The report: one HTML page that holds everything it needs, and asks for nothing from any network.

    sections     what the page says, as blocks (`blocks`); this module only arranges and draws them
    showcase     the pictures that are shown large          gallery     which samples are shown small
    pictures     their pictures, within a budget            glossary    what every number means

`page/` holds the templates, the style and the script. The templates escape every name, path and reason, and the page's
content security policy allows its own script and style only, by their digests.
"""

from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from importlib.resources import files as package_files
from math import isnan
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.figures.svg import inline_svg
from segfaith.results.records.files import replace_file
from segfaith.results.records.select import method_labels
from segfaith.results.report.arrange import anchors, arranged, drawings
from segfaith.results.report.blocks import MARK_WORDS, Section, count, metric_column, number
from segfaith.results.report.gallery import Gallery, Sample, gallery, methods_of, scores_of
from segfaith.results.report.glossary import glossary
from segfaith.results.report.pictures import LARGE, Pictures, colour_bar, pictures
from segfaith.results.report.sections.topic import images_words
from segfaith.results.report.showcase import ShownKind, keys, showcase
from segfaith.results.statistics.analysis import Analysis
from segfaith.results.statistics.cases import choose
from segfaith.results.statistics.targets import counted

TITLE = "Faithfulness of attribution maps"
LIMIT, PICTURES, LARGE_PICTURES = 15_000_000, 8_000_000, 3_000_000
"""Bytes of the page and, at first, of the gallery's pictures and of those that are shown large."""
CASES = 3
"""So many cases of each kind are shown large."""
FEW = 4
"""Up to so many cards stand with all their checks in sight; of more, the checks unfold."""
OUTLINES = {
    "target": "target in white",
    "prediction": "prediction in yellow dashes",
    "evidence": "planted evidence in cyan",
}
"""What is outlined in images, by the stem of its file, and how."""
SIGNS = {"pass": "\N{CHECK MARK}", "warn": "!", "fail": "\N{BALLOT X}", "unknown": "?"}
"""The sign of each mark, which does not rest on colour."""
CHECK_WORDS = {"pass": "passed", "warn": "with care", "fail": "failed", "unknown": "not tested"}
"""What a check's mark says to those who hear the page."""
FILES = {
    "Tables (CSV)": (".csv",),
    "Tables (LaTeX)": (".tex",),
    "Text": (".md",),
    "Figures": (".pdf", ".png"),
}
"""Which files the page offers, by ending."""


@dataclass(frozen=True, eq=False)
class Contents:
    """All that the page shows but for the size of its pictures.

    Attributes:
        sections: as `arrange.gathered` gives them.
        drawn: the SVG of each figure that could be drawn, by its name.
        links: the address of each file beside the page, relative to it, by the file's name.
    """

    analysis: Analysis
    sections: Sequence[Section]
    kinds: Sequence[ShownKind]
    gallery: Gallery
    drawn: Mapping[str, Markup]
    links: Mapping[str, str]
    title: str
    author: str
    date: str


def write_page(
    analysis: Analysis,
    sections: Sequence[Section],
    path: Path,
    *,
    title: str = "",
    author: str = "",
    files: Iterable[Path] = (),
) -> Path:
    """Writes the report as one HTML file of less than 15 MB.

    Args:
        sections: as `arrange.gathered` gives them; those with cards and leaderboards stand above the pictures.
        path: the file to write.
        title: the page's heading; "" for `TITLE`.
        author: who made the report, or "".
        files: tables, texts and figures that were written with the page; it links those in its folder.

    Returns:
        The path.

    Raises:
        SettingsError: a page that does not fit even without pictures.
    """
    choices = [choose(part, CASES) for part in analysis.parts]
    shown = gallery(analysis.parts, always=keys(choices))
    contents = Contents(
        analysis,
        sections,
        showcase(analysis.parts, choices, shown.samples, sections),
        shown,
        {
            drawing.name: inline_svg(drawing.figure, drawing.name, drawing.caption)
            for drawing in drawings(sections)
            if drawing.figure
        },
        _links(files, path.parent),
        title or TITLE,
        author,
        datetime.now(UTC).date().isoformat(),
    )
    cases = [case.sample for kind in contents.kinds for case in kind.cases]
    budget, large_pictures = PICTURES, pictures(cases, LARGE_PICTURES, LARGE)
    while True:
        small_pictures = pictures(shown.samples, budget)
        page = render(contents, large_pictures, small_pictures)
        size = len(page.encode("utf-8"))
        if size < LIMIT:
            replace_file(path, partial(Path.write_text, data=page, encoding="utf-8"))
            return path
        excess = size - LIMIT + LIMIT // 100
        if small_pictures.bytes:
            budget = max(0, small_pictures.bytes - excess)
        elif large_pictures.bytes:
            large_pictures = pictures(cases, max(0, large_pictures.bytes - excess), LARGE)
        else:
            raise SettingsError(
                f"expected a page below {LIMIT:,} bytes; got {size:,} even without pictures: report on fewer runs at "
                "once"
            )


def render(contents: Contents, large_pictures: Pictures, small_pictures: Pictures) -> str:
    """The page."""
    environment = Environment(
        loader=PackageLoader("segfaith.results.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = (_asset(name) for name in ("report.css", "report.js"))
    samples = contents.gallery.samples
    shown = dict.fromkeys(name for one in samples for name in one.shown)
    measured = [name for name in shown if any(name in one.rows and one.rows[name].notna().any() for one in samples)]
    names = method_labels(contents.analysis.read)
    lead, rest, last = arranged(contents.sections)
    return environment.get_template("report.html.j2").render(
        **_head(contents),
        **_small(contents.gallery, small_pictures, measured),
        kinds=_large(contents.kinds, large_pictures, measured),
        large_words=large_pictures.words,
        lead=lead,
        rest=rest,
        last=last,
        anchors=anchors(contents.sections),
        few=FEW,
        signs=SIGNS,
        words=CHECK_WORDS,
        verdict_words=MARK_WORDS,
        drawn=contents.drawn,
        links=contents.links,
        named=lambda method: names.get(method, method),
        glossary=glossary(),
        bar=colour_bar(),
        outlines=[(name, text) for name, text in OUTLINES.items() if any(name in _outlines(one) for one in samples)],
        style=Markup(style),
        script=Markup(script),
        style_digest=_digest(style),
        script_digest=_digest(script),
    )


def _head(contents: Contents) -> dict[str, Any]:
    """What stands above all sections: who, when, on what, and the files beside the page."""
    analysis = contents.analysis
    options, runs = analysis.options, analysis.read
    extents = [counted(run.records for run in part.read) for part in analysis.parts]
    images, targets = (sum(numbers) for numbers in zip(*extents, strict=True))
    chosen = [("s", options.min_s), ("IoU of the prediction", options.min_iou)]
    return {
        "title": contents.title,
        "author": contents.author,
        "date": contents.date,
        "labels": [part.label for part in analysis.parts],
        "extent": f"{count(len(runs), 'run')} · {images_words(images, targets)}",
        "chosen": [f"{name} ≥ {least:g}" for name, least in chosen if least is not None],
        "downloads": [
            (title, [(name, address) for name, address in contents.links.items() if name.endswith(endings)])
            for title, endings in FILES.items()
        ],
        "version": str(runs[0].description.get("versions", {}).get("segfaith", "")),
    }


def _small(shown: Gallery, kept: Pictures, measured: Sequence[str]) -> dict[str, Any]:
    """What the template shows of the gallery."""
    return {
        "gallery": shown,
        "samples": [
            _sample(sample, uris, measured) | {"measure": shown.measure}
            for sample, uris in zip(shown.samples, kept.uris, strict=True)
        ],
        "small_words": kept.words,
        "methods": methods_of(shown.samples),
        "metrics": [(name, METRICS[name].label) for name in measured],
        "columns": [metric_column(name) for name in measured],
        "classes": sorted({sample.class_name for sample in shown.samples}),
        "runs": list(dict.fromkeys(sample.label for sample in shown.samples)),
        "scores": [scores_of(sample, shown.measure) for sample in shown.samples],
    }


def _large(kinds: Sequence[ShownKind], kept: Pictures, measured: Sequence[str]) -> list[dict[str, Any]]:
    """What the template shows of the cases; `kept` holds their pictures one after the other."""
    uris = iter(kept.uris)
    return [
        {
            "data": kind.data,
            "title": kind.title,
            "rule": kind.rule,
            "why": kind.why,
            "cases": [
                _sample(case.sample, next(uris), measured) | {"why": case.why, "method": case.method}
                for case in kind.cases
            ],
        }
        for kind in kinds
    ]


def _sample(sample: Sample, uris: Mapping[str, str], measured: Sequence[str]) -> dict[str, Any]:
    """What the template shows of a sample."""
    first, lead = sample.rows.iloc[0], sample.shown[0]
    return {
        "anchor": sample.anchor,
        "sample": sample.name,
        "run": sample.label,
        "class": sample.class_name,
        "status": sample.status,
        "s": number(sample.s, 2),
        "disagreement": number(sample.disagreement, 2),
        "area": number(_real(first.get("target_area")) * 100, 1),
        "iou": number(_real(first.get("target_iou")), 2),
        "uri": uris.get("", ""),
        "outlines": ", ".join(OUTLINES[name] for name in _outlines(sample)),
        "rows": [
            {
                "method": str(row["method"]),
                "uri": uris.get(str(row["method"]), ""),
                "lead": f"{METRICS[lead].label} {number(_real(row.get(lead)), 2)}",
                "cells": [number(_real(row.get(name))) for name in measured],
            }
            for row in sample.figures(dict.fromkeys((*measured, lead)))
        ],
        "reasons": sample.reasons,
    }


def _outlines(sample: Sample) -> list[str]:
    """Which outlines the sample's image has: keys of `OUTLINES`."""
    return [name for name in OUTLINES if sample.folder and (sample.folder / f"{name}.png").is_file()]


def _links(files: Iterable[Path], folder: Path) -> dict[str, str]:
    """The addresses of files within the page's folder, relative to the page, by their names."""
    root = folder.resolve()
    inside = [file.resolve() for file in files if file.resolve().is_relative_to(root)]
    return {file.name: quote(file.relative_to(root).as_posix()) for file in inside}


def _real(value: Any) -> float:
    return float("nan") if value is None or isnan(value) else float(value)


def _asset(name: str) -> str:
    return (package_files("segfaith.results.report") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The source of a content security policy that allows exactly this text."""
    return f"'sha256-{b64encode(sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
