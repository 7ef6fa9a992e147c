"""How long a run will take: each kind of work is timed on one sample of the run, the way the run does it, and counted.

| kind | what is timed | times |
|---|---|---|
| gradients | the passes of the image, and those of its perturbed variants, at each layer | samples |
| occlusions | the scorer of one image's occlusions, in the run's batches, for about `BUDGET` seconds | variants |
| metrics | a sample with the controls alone: target, ranks, deletions and insertions, rows | passes of the maps |
| own methods | one call | variants |
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import torch

from segfaith.attribution.explain import evidence_keys, gather, heatmaps, sample_rng
from segfaith.attribution.guard import guarded
from segfaith.attribution.methods import MethodInstance, resolve_method
from segfaith.batching import BatchSize, Boxes, on_target, score_images
from segfaith.benchmark.measuring import run_sample
from segfaith.benchmark.passes import map_passes
from segfaith.benchmark.prepared import Prepared
from segfaith.benchmark.rows import GAIN_CONTROL
from segfaith.benchmark.targeting import load_sample
from segfaith.benchmark.worker import to_device
from segfaith.evidence.gradient import clock, forward_pass, gradient_evidence
from segfaith.evidence.intervention import bounding_boxes, intervention_evidence
from segfaith.evidence.regions import Regions, grid_cells
from segfaith.incremental.scorers import IncrementalScorer
from segfaith.incremental.scoring import scorer_for
from segfaith.incremental.wired import WiredScorer
from segfaith.occlusion import occluder
from segfaith.perturbation import PERTURBATIONS, Variants, clean_variant, perturbed_variants
from segfaith.scores import scalar_of, sent
from segfaith.types import Image, Sample, Target, Tensor

BUDGET = 3.0
"""Seconds for which one image's occlusions are timed, where all of them take longer."""
TRIES = 8
"""The sample that is timed is the first measurable sample among so many."""


@dataclass(frozen=True)
class Pace:
    """Seconds of one sample by kind of work, and what stability adds to them.

    Attributes:
        sample_id: the sample that was timed, with its first target where it has several.
        plain: seconds of a sample with one target without stability.
        stability: seconds that a sample with stability takes on top.
        size: the height and width of the sample that was timed.
    """

    sample_id: str
    plain: dict[str, float]
    stability: dict[str, float]
    size: tuple[int, int]

    def seconds(self, samples: int, stable: int) -> float:
        """Seconds of a run of so many samples, `stable` of them with stability."""
        return sum(self.by_kind(samples, stable).values())

    def words(self, samples: int, stable: int) -> str:
        """The kinds of work that take time, the longest first: "occlusions 82 %, metrics 14 %"."""
        shares = self.by_kind(samples, stable)
        total = sum(shares.values()) or 1.0
        order = sorted(shares, key=lambda kind: -shares[kind])
        return ", ".join(f"{kind} {shares[kind] / total:.0%}" for kind in order if shares[kind] >= 0.005 * total)

    def by_kind(self, samples: int, stable: int) -> dict[str, float]:
        """The same for each kind of work."""
        return {kind: samples * self.plain[kind] + stable * self.stability[kind] for kind in self.plain}


def pace(prepared: Prepared) -> Pace | str:
    """Times one sample's work, see the module; or says why no sample could be timed."""
    reason = "the run has no samples"
    for sample_id in prepared.plan.ids[:TRIES]:
        try:
            sample = load_sample(prepared.plan, prepared.model, sample_id)
            image, target = to_device(prepared.model, sample.image, prepared.targets(sample)[0])
            return _timed(prepared, sample_id, sample, image, target)
        except Exception as error:  # the run records it as this sample's failure and goes on
            reason = f"{sample_id}: {error}"
    return f"none of the first {min(TRIES, len(prepared.plan.ids))} samples can be measured ({reason})"


def _timed(prepared: Prepared, sample_id: str, sample: Sample, image: Image, target: Target) -> Pace:
    """The pace on one sample, whose image and target are on the model's device.

    Raises:
        Exception: whatever keeps the sample from being measured.
    """
    plan, model = prepared.plan, prepared.model
    settings, rng = plan.settings, sample_rng(plan.settings.seed, sample_id)
    batch = prepared.batch
    clean = clean_variant(image, target.region)
    perturbed = perturbed_variants(
        image,
        target.region,
        settings.evaluation.strength,
        lambda name: rng(f"perturbation|{name}"),
        wired=model.wired,
    )
    score = float(forward_pass(model, clean.images, clean.regions, scalar_of(model, target), batch).score[0])
    gradients, interventions = evidence_keys(plan.methods)

    def gradient_seconds(variants: Variants) -> float:
        return sum(
            gradient_evidence(
                model,
                variants.images,
                variants.regions,
                scalar_of(model, target),
                batch,
                layer=layer,
                objective=objective,
            )[2]
            for layer, objective in gradients
        )

    gradient_seconds(clean)  # a layer's first use on a sample costs more
    occlusions = sum(_occlusion_seconds(prepared, image, target, score, asked, batch) for asked in interventions)
    own = sum(_own_seconds(prepared, sample_id, clean, target, method) for method in plan.methods)
    more = len(PERTURBATIONS)
    return Pace(
        sample_id,
        {
            "gradients": gradient_seconds(clean),
            "occlusions": occlusions,
            "metrics": _metric_seconds(prepared, sample_id, sample),
            "own methods": own,
        },
        {
            "gradients": gradient_seconds(perturbed) if plan.stability_ids else 0.0,
            "occlusions": more * occlusions,
            "metrics": 0.0,
            "own methods": more * own,
        },
        (image.shape[1], image.shape[2]),
    )


def _occlusion_seconds(
    prepared: Prepared, image: Image, target: Target, score: float, asked: Regions, batch: BatchSize
) -> float:
    """Seconds of one image's intervention evidence. Where a grid takes longer than `BUDGET`, some batches are run."""
    model, size = prepared.model, (image.shape[1], image.shape[2])
    rng = sample_rng(prepared.plan.settings.seed, "forecast")
    start = clock(model.device)
    if asked.kind != "grid":
        variants, clean = clean_variant(image, target.region), torch.tensor([score], dtype=torch.float64)
        asked = replace(asked, refine="drop", guide=None)  # which cells are cut changes no number of passes
        intervention_evidence(
            model, variants, asked, clean.to(image.device), scalar_of(model, target), batch, rng=lambda: rng("evidence")
        )
        return clock(model.device) - start
    scorer = scorer_for(model, image, target.region, scalar_of(model, target), asked.precision, expected=score)
    if isinstance(scorer, IncrementalScorer | WiredScorer):
        scorer.clean_score()
    occlude = occluder(asked.occlusion, image, rng("evidence"), wired=model.wired)
    cells, count = grid_cells(size, asked.grid, mirrored=False, wired=model.wired), asked.count * (1 + model.wired)
    boxes, cells = bounding_boxes(cells, count), cells.to(image.device)
    set_up = clock(model.device) - start
    seconds, images, calls, every, largest = 0.0, 0, 0, 1, 0

    def build(numbers: Tensor) -> Tensor:
        occluded: Tensor = occlude(cells == sent(numbers, cells.device)[:, None, None])
        return occluded

    def timed(altered: Tensor, where: Boxes | None) -> Tensor:
        nonlocal seconds, images, calls, every, largest
        calls += 1
        if (calls - 1) % every and len(altered) <= largest:  # of a larger batch the memory may be measured
            return torch.zeros(len(altered), dtype=torch.float64, device=altered.device)
        largest = max(largest, len(altered))
        begun = clock(model.device)
        scores = scorer.score(altered, where)
        took = clock(model.device) - begun
        if not images:  # the first batch that fits into memory
            every = max(1, ceil(took * count / len(altered) / BUDGET))
        seconds, images = seconds + took, images + len(altered)
        return scores

    begun = clock(model.device)
    stage = on_target("occlusions", target.region, asked.precision)
    score_images(timed, build, count, batch, boxes, stage, scorer.features)
    building = clock(model.device) - begun - seconds
    return set_up + building + seconds * count / images


def _own_seconds(prepared: Prepared, sample_id: str, clean: Variants, target: Target, method: MethodInstance) -> float:
    """Seconds of a call of the user's own method. It is 0 for other methods, and for a call that fails."""
    if "model" not in method.method.needs:
        return 0.0
    settings, model = prepared.plan.settings, prepared.model
    rng = sample_rng(settings.seed, sample_id)
    gathered = gather(model, clean, target, [method], prepared.batch, rng)
    start = clock(model.device)
    try:
        with guarded(model, method):
            heatmaps(model, gathered, method, rng, sample_id)
    except Exception:
        return 0.0
    return clock(model.device) - start


def _metric_seconds(prepared: Prepared, sample_id: str, sample: Sample) -> float:
    """Seconds of a target without its evidence: a sample with the controls alone is timed, and scaled by map passes.

    Raises:
        ValueError: the sample cannot be measured.
    """
    plan = prepared.plan
    controls = [resolve_method(name, {}) for name in (GAIN_CONTROL, "random", "mask")]
    alone = replace(prepared, plan=replace(plan, methods=controls, stability_ids=frozenset()))
    load: Callable[[], Sample] = lambda: sample  # noqa: E731
    start = clock(prepared.model.device)
    result = run_sample(alone, sample_id, load, prepared.batch)
    seconds = clock(prepared.model.device) - start
    targets = len({row["target"] for row in result.records})
    bad = [row["reason"] for row in result.records if row["status"] != "ok"]
    if bad:
        raise ValueError(bad[0])
    counts = [map_passes(some, plan.settings.evaluation, planted=plan.planted) for some in (plan.methods, controls)]
    return seconds / targets * counts[0] / counts[1]
