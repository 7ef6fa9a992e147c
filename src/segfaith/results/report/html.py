"""The report: one HTML page that holds everything it needs, and asks for nothing from any network.

    sections   parts of the page as data         gallery    which samples are shown
    glossary   what every number means           pictures   their pictures, to a budget

`page/` holds the template, the style and the script. The template escapes every name, path and reason, and the page's
content security policy allows its own script and style only, by their digests.
"""

import re
from base64 import b64encode
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from importlib.resources import files
from io import StringIO
from math import isnan
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.figures.drawing import Drawing
from segfaith.results.records.files import replace_file
from segfaith.results.records.identity import data_label
from segfaith.results.records.runs import Run
from segfaith.results.report.blocks import Section, count, metric_column, number, words
from segfaith.results.report.gallery import SHOWN, Gallery, Item, gallery, methods_of, scores_of
from segfaith.results.report.glossary import glossary
from segfaith.results.report.pictures import Pictures, pictures
from segfaith.results.statistics.analysis import Analysis

LIMIT, PICTURES = 15_000_000, 10_000_000
"""Bytes of the page and, at first, of its pictures."""


def write_page(analysis: Analysis, sections: Sequence[Section], path: Path) -> Path:
    """Writes the report as one HTML file of less than 15 MB.

    Args:
        analysis: the runs; the gallery shows samples below its filters too.
        sections: what stands on the page, in order; the section `runs` comes after the gallery and the glossary.
        path: the file to write.

    Returns:
        The path.

    Raises:
        SettingsError: a page that does not fit even without pictures.
    """
    data = analysis.read
    shown = gallery(data)
    budget = PICTURES
    while True:
        kept = pictures(shown.items, budget)
        page = render(data, sections, shown, kept, analysis.options.min_s)
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
        svg=_svg,
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


def _asset(name: str) -> str:
    return (files("segfaith.results.report") / "page" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """The source of a content security policy that allows exactly this text."""
    return f"'sha256-{b64encode(sha256(text.encode('utf-8')).digest()).decode('ascii')}'"


def _svg(drawing: Drawing) -> Markup:
    """A figure as inline SVG."""
    if drawing.figure is None:
        return words("<p>Not drawn: {}</p>", drawing.why)
    buffer = StringIO()
    drawing.figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    own = re.sub(r'((?: id="|url\(#|href="#))', rf"\g<1>{drawing.name}-", text[text.index("<svg") :])
    return Markup(own)
