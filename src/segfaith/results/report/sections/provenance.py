"""What made the numbers: a row for each run, and what a reader must know of the runs."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from segfaith.results.report.blocks import Block, Column, Points, Section, Table, count, name_cell, whole, words
from segfaith.results.statistics.analysis import Analysis


def section(analysis: Analysis) -> Section:
    """One row per run with model, weights and seed; then a sentence on each run, ablations, seeds and filters."""
    sentences = tuple(words("{}", sentence) for sentence in (*analysis.absent, *analysis.notes))
    blocks: tuple[Block, ...] = (_table(analysis), Points(sentences))
    return Section("runs", "Runs", blocks)


def unfinished_notes(analysis: Analysis) -> list[str]:
    """A sentence for each run that is not finished."""
    return [
        f"{name}: not finished, {count(left, 'sample')} to go."
        for part in analysis.parts
        for name, run in zip(part.names, part.read, strict=True)
        if (left := _to_go(run.description, run.records))
    ]


def _to_go(description: Mapping[str, Any], records: pd.DataFrame) -> int:
    return max(0, len(description["data"]["samples"]) - records["sample_id"].nunique())


def _table(analysis: Analysis) -> Table:
    rows = []
    for part in analysis.parts:
        for label, run in zip(part.names, part.read, strict=True):
            about, model = run.description, run.description["model"]
            measured = run.records[run.records["status"] == "ok"]["sample_id"].nunique()
            digest = str(model.get("file_sha256", model.get("state_sha256", "")))[:12]
            texts = [label, part.label, model["name"], model.get("weights", ""), digest]
            versions = about.get("versions", {})
            rows.append(
                (
                    *map(name_cell, texts),
                    whole(about["settings"]["seed"]),
                    whole(measured),
                    whole(len(about["data"]["samples"])),
                    *map(name_cell, (about.get("created", ""), versions.get("segfaith", ""))),
                )
            )
    columns = (
        *(Column(name, "run", numeric=False) for name in ("Run", "Data", "Model", "Weights", "SHA-256")),
        Column("Seed", "run"),
        Column("Measured", "status", "descending"),
        Column("Planned", "status", "descending"),
        Column("Made", "run", numeric=False),
        Column("Version", "run", numeric=False),
    )
    return Table("provenance", Markup("What made these numbers"), columns, tuple(rows))
