"""A model's first use in a run: it is tested, and then runs once as in the run, before anything is timed."""

from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
import torch

from segfaith.attribution.explain import evidence_keys
from segfaith.batching import BatchSize, in_batches, on_target
from segfaith.benchmark.plan import Plan
from segfaith.benchmark.setting_tables import Settings
from segfaith.benchmark.targeting import load_sample
from segfaith.errors import SettingsError
from segfaith.evidence.gradient import gradient_evidence
from segfaith.evidence.regions import superpixels
from segfaith.incremental.precision import Asked
from segfaith.incremental.scoring import scorer_for
from segfaith.memory import bytes_of
from segfaith.models import load_model
from segfaith.models.probe import ModelFails, probe
from segfaith.models.segmentation import SegmentationModel
from segfaith.perturbation import PERTURBATIONS, clean_variant
from segfaith.scores import Scalar
from segfaith.types import Image, Tensor


def chosen_model(settings: Settings) -> SegmentationModel:
    """The model of a run's settings, loaded and on its device.

    Raises:
        SettingsError: see `load_model`.
    """
    chosen = settings.model
    model = load_model(
        chosen.name,
        weights=chosen.weights,
        layer=chosen.layer,
        classes=chosen.classes,
        mean=chosen.mean,
        std=chosen.std,
        args=chosen.args,
        seed=settings.seed,
        device=settings.execution.device,
        head=chosen.head,
        channels=chosen.channels,
        pad=chosen.pad,
        tile=chosen.tile,
        overlap=chosen.overlap,
        output=chosen.output,
        tokens=chosen.tokens,
        reshape=chosen.reshape,
    )
    execution = settings.execution
    model.incremental, model.compile = execution.incremental, execution.compile
    model.memory = None if execution.memory is None else bytes_of(execution.memory)
    model.wiring = settings.data.wiring
    return model


def noise(model: SegmentationModel, settings: Settings) -> Image:
    """An artificial image of the size of the run's images, 224 x 224 for native sizes, on the model's device."""
    size = 224 if settings.data.size == "native" else settings.data.size
    width = size * (1 + model.wired)
    values = np.random.default_rng(0).random((model.input_channels, size, width), dtype=np.float32)
    return torch.from_numpy(values).to(model.device)


def warm_up(model: SegmentationModel, plan: Plan, batch: BatchSize) -> str:
    """Tests the model and runs it as the run will, on an artificial image, before anything is timed.

    A model that can be run neither on the artificial image nor on a sample is refused: every row would be `failed`.
    Any other failure that is not a fault of the settings is ignored here. It fails the samples, whose rows report it.

    Args:
        batch: of the run; where it has a limit of memory, one image of each kind is measured.

    Returns:
        How altered images of the run's size are scored: "incremental", or "plain" with the reason. With native sizes,
        this is the answer for 224 x 224; the records give the answer for each sample.

    Raises:
        SettingsError: see `probe`; a feature layer or precision that cannot be used.
    """
    settings = plan.settings
    image = noise(model, settings)
    path = ""
    try:
        probe(model, image, batch.tried)
    except ModelFails:
        sample = _first_image(plan, model)  # perhaps it fails only on the artificial image, or its size
        if sample is None:
            raise
        probe(model, sample.to(model.device), batch.tried)
    try:
        gradients, interventions = evidence_keys(plan.methods)
        counts = [asked.count * (1 + model.wired) for asked in interventions]
        needed = max(len(PERTURBATIONS), settings.evaluation.fidelity, *counts)
        if batch.memory is not None:
            needed = 1  # larger batches follow from what one image takes
        run, most = batch, min(batch.images, needed)
        batch, scalar = BatchSize(most, batch.memory), Scalar(1, independent=model.independent)
        with torch.no_grad():  # tensors that a model caches in its first pass must allow gradients
            logits = "logits", (image.shape[1], image.shape[2]), None
            in_batches(most, lambda part: (model.logits(_copies(image, part)).amax((1, 2, 3)),), batch, logits)
        region = torch.ones(image.shape[1:], dtype=torch.bool, device=model.device)
        if model.wired:  # as the targets of samples, it lies in the left half
            region[:, region.shape[1] // 2 :] = False
        variant = clean_variant(image, region)
        for layer, objective in gradients:
            gradient_evidence(model, variant.images, variant.regions, scalar, batch, layer=layer, objective=objective)
        evaluation = settings.evaluation
        if evaluation.fidelity and evaluation.fidelity_parts == "superpixels":
            superpixels(image, evaluation.fidelity_grid**2, mirrored=False, wired=model.wired)
        for asked in interventions:
            if asked.kind == "superpixels":
                superpixels(image, asked.count, mirrored=False, wired=model.wired)
        precisions: list[Asked] = ["fp32", *(asked.precision for asked in interventions)]
        for precision in dict.fromkeys(precisions):
            scorer = scorer_for(model, image, variant.regions[0], scalar, precision)
            if precision == "fp32":
                path = scorer.path
            whole = on_target("whole images", variant.regions[0], precision)
            at_once = min(needed, run.of(whole, features=scorer.features))
            sizes = (at_once, max(1, at_once - 1)) if model.compile else (at_once,)  # two: torch compiles for any size
            for count in sizes:
                in_batches(count, partial(_scores, scorer, image), BatchSize(count, run.memory), whole)
    except SettingsError:
        raise
    except Exception as error:  # if it fails on samples too, their rows record it
        return f"unknown: the warm-up failed: {error}"
    return path


def _scores(scorer: Any, image: Image, part: slice) -> tuple[Tensor]:
    return (scorer.score(_copies(image, part)),)


def _copies(image: Image, part: slice) -> Tensor:
    """An image as often as a slice has entries, without copying it."""
    return image.expand(part.stop - part.start, -1, -1, -1)


def _first_image(plan: Plan, model: SegmentationModel) -> Image | None:
    """The first readable image among the plan's first three; None if there is none."""
    for sample_id in plan.ids[:3]:
        with suppress(Exception):
            return load_sample(plan, model, sample_id).image
    return None
