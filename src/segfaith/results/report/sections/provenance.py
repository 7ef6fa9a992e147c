"""What made the numbers: a row for each run, and what a reader must know of the runs."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from segfaith.results.records.identity import ablation_notes, data_label, same_images_notes
from segfaith.results.report.blocks import Block, Column, Points, Section, Table, count, name_cell, whole, words
from segfaith.results.statistics.analysis import Analysis
from segfaith.results.statistics.summary import SMALL_SCORE


def section(analysis: Analysis) -> Section:
    """One row per run with model, weights and seed; then a sentence on each run, ablations, seeds and filters."""
    sentences = tuple(words("{}", sentence) for sentence in (*analysis.absent, *notes(analysis)))
    blocks: tuple[Block, ...] = (_table(analysis), Points(sentences))
    return Section("runs", "Runs", blocks)


def notes(analysis: Analysis) -> list[str]:
    """What a reader of any table must know: model, weights, samples left out, ablations, seeds, filters."""
    named = [(name, run) for part in analysis.parts for name, run in zip(part.names, part.read, strict=True)]
    names, descriptions = [name for name, _ in named], [run.description for _, run in named]
    return [
        *(_note(run.description, run.records) for _, run in named),
        *ablation_notes(names, descriptions),
        *same_images_notes(names, descriptions),
        *filter_notes(analysis),
    ]


def filter_notes(analysis: Analysis) -> list[str]:
    """A sentence for each filter on samples."""
    options = analysis.options
    filters = {"s": options.min_s, "an IoU of the prediction with the target": options.min_iou}
    return [f"Only samples with {name} >= {least:g} entered." for name, least in filters.items() if least is not None]


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


def _note(description: Mapping[str, Any], records: pd.DataFrame) -> str:
    """One run in words. A sample counts as measured if any method was; else it was skipped or failed."""
    model, planned = description["model"], description["data"]["samples"]
    entered = records[records["status"] == "ok"].drop_duplicates("sample_id")
    others = records[~records["sample_id"].isin(entered["sample_id"])].drop_duplicates("sample_id")["status"]
    digest = f" (SHA-256 {model['file_sha256'][:12]})" if "file_sha256" in model else ""
    unfinished = _to_go(description, records)
    return (
        f"{data_label(description)}: {model['name']}, weights {model['weights']}{digest}, "
        f"seed {description['settings']['seed']}; {len(entered)} of {len(planned)} samples measured, "
        f"{int((others == 'skipped').sum())} skipped, {int((others == 'failed').sum())} failed; "
        f"{int((entered['s'] < SMALL_SCORE).sum())} with s < {SMALL_SCORE}"
        + (f"; not finished, {count(unfinished, 'sample')} to go" if unfinished else "")
    )


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
