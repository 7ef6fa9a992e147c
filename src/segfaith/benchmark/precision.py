"""How far each fast mode moves what a run measures, and how much time it saves: `segfaith verify-precision`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan, nan
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from segfaith.attribution.explain import gather, sample_rng
from segfaith.attribution.methods import resolve_method
from segfaith.benchmark.executors import Prepared, find_target
from segfaith.benchmark.worker import evaluate_sample, to_device
from segfaith.errors import SampleError, SettingsError
from segfaith.perturbation import clean_variant
from segfaith.scores import BatchSize
from segfaith.types import Image, Target

LEAST_DROP = 1e-3
"""Cells whose drop in the plain loop is above this enter the rank correlation."""
METRICS = ("tdd", "odd", "stability")


@dataclass(frozen=True)
class Mode:
    """A way to compute intervention evidence: settings of `[execution]` and of the method."""

    name: str
    meaning: str
    incremental: bool = True
    compile: bool = False
    precision: str = "fp32"


PLAIN = Mode("plain", "whole images one by one through the model itself", incremental=False)
MODES = {
    mode.name: mode
    for mode in (
        PLAIN,
        Mode("exact", "incremental inference in float32, the default"),
        Mode("compile", "whole images through torch.compile (execution.compile = true)", compile=True),
        Mode("tf32", "incremental, TF32 on the GPU (methods.ria.precision = 'tf32')", precision="tf32"),
        Mode("bf16", "incremental, bfloat16 (methods.ria.precision = 'bf16')", precision="bf16"),
    )
}


def verify_precision(
    prepared: Prepared,
    modes: Sequence[str] = ("exact", "bf16"),
    *,
    stability: bool = True,
    on_step: Callable[[str], None] = lambda words: None,
) -> pd.DataFrame:
    """Measures RIA and DEA on a plan's samples in several modes, each against the plain one-by-one loop.

    Returns:
        One row per mode, first `plain`: `drop_error` (largest absolute difference of a cell's drop), `spearman` (of the
        drops above 1e-3, least over the samples), for `ria` and `dea` the mean of each metric and the largest change of
        it on a sample (`dea_tdd`, `dea_tdd_change`, ...), `seconds` of RIA's evidence per sample and `speedup`. A mode
        that cannot be run has NaN and its reason in `note`. `attrs["samples"]` counts the samples that were measured.

    Raises:
        SettingsError: an unknown mode, or no sample has a target.
    """
    unknown = [name for name in modes if name not in MODES]
    if unknown:
        raise SettingsError(f"unknown mode {unknown[0]!r}; known: {', '.join(list(MODES)[1:])}")
    chosen = [PLAIN, *(MODES[name] for name in dict.fromkeys(modes) if name != PLAIN.name)]
    measured: dict[str, list[dict[str, Any]]] = {mode.name: [] for mode in chosen}
    notes: dict[str, str] = {}
    samples = 0
    for sample_id in prepared.plan.ids:
        try:
            sample = prepared.plan.dataset.load(sample_id, prepared.plan.settings.data.size)
            image, target = to_device(prepared.model, sample.image, find_target(prepared, sample))
        except SampleError as error:
            on_step(f"{sample_id}: {error}")
            continue
        samples += 1
        for mode in chosen:
            if mode.name in notes:
                continue
            on_step(f"{sample_id}: {mode.name}")
            try:
                measured[mode.name].append(_measure(prepared, mode, sample_id, image, target, stability))
            except Exception as error:  # a mode that cannot run here says so in its row
                notes[mode.name] = str(error).splitlines()[0] if str(error) else type(error).__name__
    if not samples:
        raise SettingsError("no sample of these settings has a target; see the messages, or ask for more samples")
    if PLAIN.name in notes:
        raise SettingsError(f"the plain loop itself failed: {notes[PLAIN.name]}")
    rows = [_row(mode, measured[PLAIN.name], measured[mode.name], notes.get(mode.name, "")) for mode in chosen]
    frame = pd.DataFrame(rows).set_index("mode")
    frame.attrs["samples"] = samples
    return frame


def _measure(
    prepared: Prepared, mode: Mode, sample_id: str, image: Image, target: Target, stability: bool
) -> dict[str, Any]:
    settings, model = prepared.plan.settings, prepared.model
    tables = settings.methods.tables()
    for name in ("ria", "dea", "random_cells"):
        tables[name] = tables.get(name, {}) | {"precision": mode.precision, "regions": "grid"}
    methods = [resolve_method(name, tables) for name in ("ria", "dea", "random_cells")]
    batch = BatchSize(1 if mode is PLAIN else settings.execution.batch_size)
    rng = sample_rng(settings.seed, sample_id)
    before = model.incremental, model.compile
    model.incremental, model.compile = mode.incremental, mode.compile
    try:
        seconds, drops = nan, np.empty(0)
        for _ in range(2):  # the first run compiles and fills caches
            start = perf_counter()
            gathered = gather(model, clean_variant(image, target.region), target.class_index, methods[:1], batch, rng)
            evidence = gathered.intervention[methods[0].regions]
            if isinstance(evidence, Exception):
                raise evidence
            drops = evidence.drop[0].cpu().numpy()
            seconds = perf_counter() - start
            if mode is PLAIN:
                break
        result = evaluate_sample(
            model, sample_id, image, target, methods, settings.evaluation, seed=settings.seed, batch=batch,
            stability=stability,
        )  # fmt: skip
    finally:
        model.incremental, model.compile = before
    found: dict[str, Any] = {"drops": drops, "seconds": seconds}
    for record in result.records[:2]:
        if record["status"] != "ok":
            raise SampleError(record["reason"])
        found |= {f"{record['method']}_{metric}": record[metric] for metric in METRICS}
    return found


def _row(mode: Mode, plain: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], note: str) -> dict[str, Any]:
    row: dict[str, Any] = {"mode": mode.name, "meaning": mode.meaning, "note": note}
    if note or not found:
        return row
    pairs = list(zip(plain, found, strict=True))
    row["drop_error"] = max(float(np.abs(a["drops"] - b["drops"]).max()) for a, b in pairs)
    correlations = [_rank_correlation(a["drops"], b["drops"]) for a, b in pairs]
    row["spearman"] = min((value for value in correlations if not isnan(value)), default=nan)
    for key in (f"{method}_{metric}" for method in ("ria", "dea") for metric in METRICS):
        row[key] = float(np.mean([b[key] for _, b in pairs]))
        row[f"{key}_change"] = float(np.max([abs(a[key] - b[key]) for a, b in pairs]))
    row["seconds"] = float(np.median([b["seconds"] for _, b in pairs]))
    row["speedup"] = float(np.median([a["seconds"] / b["seconds"] for a, b in pairs]))
    return row


def _rank_correlation(plain: np.ndarray, other: np.ndarray) -> float:
    """Spearman's, over cells whose drop in the plain loop exceeds 1e-3; NaN for fewer than three of them."""
    counts = plain > LEAST_DROP
    return float(spearmanr(plain[counts], other[counts]).statistic) if counts.sum() > 2 else nan
