"""A model's first use in a run: put to the test and run as the run will, before anything is timed."""

from contextlib import suppress

import numpy as np
import torch

from segfaith.attribution.explain import evidence_keys
from segfaith.benchmark.plan import Plan
from segfaith.errors import SettingsError
from segfaith.evidence.gradient import gradient_evidence
from segfaith.evidence.regions import superpixels
from segfaith.incremental.scorers import Precision
from segfaith.incremental.scoring import scorer_for
from segfaith.models.probe import ModelFails, probe
from segfaith.models.segmentation import SegmentationModel
from segfaith.perturbation import clean_variant
from segfaith.scores import BatchSize
from segfaith.types import Image


def warm_up(model: SegmentationModel, plan: Plan) -> str:
    """Puts the model to the test and runs it as the run will, on a made-up image, before anything is timed.

    A model that cannot be run on the made-up image, and neither on a sample, is refused: every row would be a failed
    one. What else fails here but is no fault of the settings is left to the samples, whose rows say it.

    Returns:
        How altered images of that size are scored: "incremental", or "plain" with the reason. With native sizes it is
        that of 224 x 224; the records say it of each sample.

    Raises:
        SettingsError: see `probe`; a feature layer or precision that cannot be used.
    """
    settings = plan.settings
    size = 224 if settings.data.size == "native" else settings.data.size
    image = torch.from_numpy(np.random.default_rng(0).random((3, size, size), dtype=np.float32)).to(model.device)
    path = ""
    try:
        probe(model, image, settings.execution.batch_size)
    except ModelFails:
        sample = _first_image(plan)  # what is made up may be what it fails on, or its size
        if sample is None:
            raise
        probe(model, sample.to(model.device), settings.execution.batch_size)
    try:
        with torch.no_grad():  # what a model keeps from its first pass must serve gradients too
            model.logits(image.expand(settings.execution.batch_size, -1, -1, -1))
        variant = clean_variant(image, torch.ones(size, size, dtype=torch.bool, device=model.device))
        batch = BatchSize(settings.execution.batch_size)
        gradients, interventions = evidence_keys(plan.methods)
        for layer, objective in gradients:
            gradient_evidence(model, variant.images, variant.regions, 1, batch, layer=layer, objective=objective)
        for asked in interventions:
            if asked.kind == "superpixels":
                superpixels(image, asked.count, mirrored=False)
        precisions: list[Precision] = ["fp32", *(asked.precision for asked in interventions)]
        for precision in dict.fromkeys(precisions):
            scorer = scorer_for(model, image, variant.regions[0], 1, precision)
            if precision == "fp32":
                path = scorer.path
            most = settings.execution.batch_size
            for count in (most, max(1, most - 1)) if model.compile else (most,):  # a second size compiles for all
                scorer.score(image.expand(count, -1, -1, -1))
    except SettingsError:
        raise
    except Exception as error:  # what fails on real samples is recorded with them
        return f"unknown: the warm-up failed: {error}"
    return path


def _first_image(plan: Plan) -> Image | None:
    """The first of the plan's images that can be read, of the first few."""
    for sample_id in plan.ids[:3]:
        with suppress(Exception):
            return plan.dataset.load(sample_id, plan.settings.data.size).image
    return None
