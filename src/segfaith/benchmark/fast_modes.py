"""Measures how far each fast mode changes a run's results, and how much time it saves: `segfaith verify-precision`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isnan, nan
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from segfaith.attribution.explain import gather
from segfaith.attribution.methods import resolve_method
from segfaith.batching import BatchSize
from segfaith.benchmark.prepared import Prepared
from segfaith.benchmark.targeting import load_sample
from segfaith.benchmark.worker import evaluate_sample, to_device
from segfaith.errors import SampleError, SettingsError
from segfaith.evaluation.metrics import leading
from segfaith.evaluation.subject import Subject
from segfaith.evidence.regions import RegionKind, grid_cells
from segfaith.paths import map_folder
from segfaith.perturbation import clean_variant
from segfaith.types import Float, InterventionEvidence, Sample, Target, Tensor

LEAST_DROP = 1e-3
"""The rank correlation is over the cells whose drop in the plain loop is above this."""
METRICS = ("tdd", "tdd_gain", "odd", "stability")
"""What is compared; of a score other than the probability the absolute metrics, see `metrics.leading`."""
DEFAULT_MODES = ("exact", "bf16", "adaptive")


@dataclass(frozen=True)
class Mode:
    """A way to compute intervention evidence: settings of `[execution]` and of the method."""

    name: str
    meaning: str
    incremental: bool = True
    compile: bool = False
    precision: str = "fp32"
    regions: RegionKind = "grid"


PLAIN = Mode("plain", "whole images one by one through the model itself", incremental=False)
MODES = {
    mode.name: mode
    for mode in (
        PLAIN,
        Mode("exact", "incremental inference in float32, the default"),
        Mode("compile", "whole images through torch.compile (execution.compile = true)", compile=True),
        Mode("tf32", "incremental, TF32 on the GPU (methods.ria.precision = 'tf32')", precision="tf32"),
        Mode("bf16", "incremental, bfloat16 (methods.ria.precision = 'bf16')", precision="bf16"),
        Mode("adaptive", "cells refined where they matter (methods.ria.regions = 'adaptive')", regions="adaptive"),
        Mode("superpixels", "SLIC superpixels (methods.ria.regions = 'superpixels')", regions="superpixels"),
    )
}


def verify_precision(
    prepared: Prepared,
    modes: Sequence[str] = DEFAULT_MODES,
    *,
    stability: bool = True,
    on_step: Callable[[str], None] = lambda words: None,
) -> pd.DataFrame:
    """Measures RIA and DEA on a plan's samples in several modes, each against the plain one-by-one loop on the grid.

    Returns:
        One row per mode, `plain` first. Columns: `drop_error`, the largest absolute difference of a cell's drop (NaN if
        the mode has other regions); `spearman`, the rank correlation of the grid's drops above 1e-3 with the mode's
        drops, or for other regions with the mode's mean map value on these cells, the lowest over the samples; for
        `ria` and `dea`, each metric's mean over the samples where it is defined, and its largest change on a sample
        (`dea_tdd`, `dea_tdd_change`, ...); `seconds` of RIA's evidence per sample; `speedup`; and the records' `path`.
        `tdd_gain` compares with `random_cells` on the mode's own regions. A mode that cannot run has NaN, and the
        reason in `note`. `attrs["samples"]` counts the measured targets. A target that the plain loop cannot explain is
        reported to `on_step` and left out.

    Raises:
        SettingsError: an unknown mode, or no sample could be measured.
    """
    unknown = [name for name in modes if name not in MODES]
    if unknown:
        raise SettingsError(f"unknown mode {unknown[0]!r}; known: {', '.join(list(MODES)[1:])}")
    chosen = [PLAIN, *(MODES[name] for name in dict.fromkeys(modes) if name != PLAIN.name)]
    measured: dict[str, list[dict[str, Any]]] = {mode.name: [] for mode in chosen}
    notes: dict[str, str] = {}
    for sample_id in prepared.plan.ids:
        try:
            sample = load_sample(prepared.plan, prepared.model, sample_id)
            targets = prepared.targets(sample)
        except SampleError as error:
            on_step(f"{sample_id}: left out: {error}")
            continue
        for target in targets:
            subject = _subject(prepared, sample, target)
            name = map_folder(sample_id, target.name)
            try:
                on_step(f"{name}: {PLAIN.name}")
                measured[PLAIN.name].append(_measure(prepared, PLAIN, subject, stability))
            except SampleError as error:
                on_step(f"{name}: left out: {error}")
                continue
            for mode in [mode for mode in chosen[1:] if mode.name not in notes]:
                on_step(f"{name}: {mode.name}")
                try:
                    measured[mode.name].append(_measure(prepared, mode, subject, stability))
                except Exception as error:  # a mode that cannot run here says so in its row
                    notes[mode.name] = f"{name}: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    samples = len(measured[PLAIN.name])
    if not samples:
        raise SettingsError("no sample of these settings could be measured; see the messages, or ask for more samples")
    rows = [_row(mode, measured[PLAIN.name], measured[mode.name], notes.get(mode.name, "")) for mode in chosen]
    frame = pd.DataFrame(rows).set_index("mode")
    frame.attrs["samples"] = samples
    return frame


def _subject(prepared: Prepared, sample: Sample, target: Target) -> Subject:
    """A target of a sample, on the model's device."""
    image, target = to_device(prepared.model, sample.image, target)
    return Subject(prepared.model, sample.id, image, target, prepared.plan.settings.seed, prepared.batch)


def _measure(prepared: Prepared, mode: Mode, subject: Subject, stability: bool) -> dict[str, Any]:
    settings, model = prepared.plan.settings, prepared.model
    tables = settings.methods.tables()
    for name in ("ria", "dea", "random_cells"):
        tables[name] = tables.get(name, {}) | {"precision": mode.precision, "regions": mode.regions}
    methods = [resolve_method(name, tables) for name in ("ria", "dea", "random_cells")]
    batch = BatchSize(1) if mode is PLAIN else prepared.batch
    image, target = subject.image, subject.target
    before = model.incremental, model.compile
    model.incremental, model.compile = mode.incremental, mode.compile
    try:
        seconds, drops = nan, torch.empty(0)
        for _ in range(2):  # the first run compiles and fills caches
            start = perf_counter()
            gathered = gather(model, clean_variant(image, target.region), target, methods[:1], batch, subject.rng)
            evidence = gathered.intervention[methods[0].regions]
            if isinstance(evidence, Exception):
                raise evidence
            grid = methods[0].regions.grid
            drops = evidence.drop[0] if mode.regions == "grid" else _per_cell(evidence, grid, wired=model.wired)
            seconds = perf_counter() - start
            if mode is PLAIN:
                break
        result = evaluate_sample(replace(subject, batch=batch), methods, settings.evaluation, stability=stability)
    finally:
        model.incremental, model.compile = before
    row: dict[str, Any] = {"drops": drops.cpu().numpy(), "seconds": seconds, "path": result.records[0]["path"]}
    for record in result.records[:2]:
        if record["status"] != "ok":
            raise SampleError(record["reason"])
        row |= {f"{record['method']}_{metric}": record[metric] for metric in leading(METRICS, target.score)}
    return row


def _per_cell(evidence: InterventionEvidence, grid: int, *, wired: bool) -> Float[Tensor, "R"]:
    """The mean of one image's map on each cell of a grid."""
    painted = evidence.value[0][evidence.regions[0]].flatten()
    cells = grid_cells((evidence.regions.shape[1], evidence.regions.shape[2]), grid, mirrored=False, wired=wired)
    cells, count = cells.to(painted.device).flatten(), grid**2 * (1 + wired)
    pixels = cells.bincount(minlength=count)
    return cells.bincount(painted, minlength=count) / pixels.clamp(min=1)


def _row(mode: Mode, plain: Sequence[dict[str, Any]], fast: Sequence[dict[str, Any]], note: str) -> dict[str, Any]:
    row: dict[str, Any] = {"mode": mode.name, "meaning": mode.meaning, "note": note}
    if note or not fast:
        return row
    pairs = list(zip(plain, fast, strict=True))
    errors = [float(np.abs(a["drops"] - b["drops"]).max()) for a, b in pairs]
    row["drop_error"] = float(np.max(errors)) if mode.regions == "grid" else nan
    correlations = [_rank_correlation(a["drops"], b["drops"]) for a, b in pairs]
    row["spearman"] = min((value for value in correlations if not isnan(value)), default=nan)
    for key in (key for key in fast[0] if key.startswith(("ria_", "dea_"))):
        row[key] = float(pd.Series([b[key] for _, b in pairs]).mean())  # pandas leaves undefined values out
        row[f"{key}_change"] = float(pd.Series([abs(a[key] - b[key]) for a, b in pairs]).max())
    row["path"] = "; ".join(dict.fromkeys(b["path"] for _, b in pairs))
    row["seconds"] = float(np.median([b["seconds"] for _, b in pairs]))
    row["speedup"] = float(np.median([a["seconds"] / b["seconds"] for a, b in pairs]))
    return row


def _rank_correlation(plain: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation over cells whose drop in the plain loop exceeds 1e-3; NaN for fewer than three cells."""
    counts = plain > LEAST_DROP
    return float(spearmanr(plain[counts], other[counts]).statistic) if counts.sum() > 2 else nan
