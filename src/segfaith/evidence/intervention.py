"""Intervention evidence: how much the score drops when a region is occluded."""

from collections.abc import Callable, Sequence
from math import nan

import numpy as np
import torch
from torch.nn import functional as F

from segfaith.batching import BatchSize, Boxes, on_target, score_images
from segfaith.evidence.regions import Regions, adaptive_cells, adaptive_halves, grid_cells, superpixels
from segfaith.incremental.scorers import IncrementalScorer
from segfaith.incremental.scoring import scorer_for
from segfaith.incremental.wired import WiredScorer
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import occluder
from segfaith.perturbation import Variants
from segfaith.scores import Scalar, sent
from segfaith.types import Float, Int, InterventionEvidence, Tensor


def intervention_evidence(
    model: SegmentationModel,
    variants: Variants,
    regions: Regions,
    score: Float[Tensor, "N"],
    scalar: Scalar,
    batch: BatchSize,
    *,
    rng: Callable[[], np.random.Generator],
    guide: Float[Tensor, "N H W"] | None = None,
) -> InterventionEvidence:
    """delta[n, r] = s_c(x_n, M_n) - s_c(O(x_n, r), M_n) for every region r of every variant n.

    Args:
        regions: how images are cut, what occludes a region, and in which precision the model runs.
        score: s_c of the unoccluded variants, float64.
        rng: returns a fresh generator for the operator of each variant.
        guide: gradient evidence as maps, if it decides which regions are refined.

    Model passes: one for each region of each variant. A model that is run incrementally needs one more for each
    variant's clean features.
    """
    measured, wired = [], model.wired
    for n, (image, region) in enumerate(zip(variants.images, variants.regions, strict=True)):
        scorer = scorer_for(model, image, region, scalar, regions.precision, expected=float(score[n]))
        clean = scorer.clean_score()[0] if isinstance(scorer, IncrementalScorer | WiredScorer) else score[n]
        occlude = occluder(regions.occlusion, image, rng(), wired=wired)
        mirrored, size = variants.flipped[n], (image.shape[1], image.shape[2])
        stage = on_target("occlusions", region, regions.precision)
        if regions.kind == "adaptive":

            def drops(masks: Tensor, boxes: Boxes, scorer=scorer, occlude=occlude, clean=clean, stage=stage) -> Tensor:  # type: ignore[no-untyped-def]
                def build(numbers: Tensor) -> Tensor:
                    occluded: Tensor = occlude(masks[sent(numbers, masks.device)])
                    return occluded

                drop: Tensor = clean - score_images(
                    scorer.score, build, len(masks), batch, boxes, stage, scorer.features
                )
                return drop

            hint = None if guide is None else guide[n]
            cut = adaptive_halves if wired else adaptive_cells
            measured.append(cut(drops, regions, region, hint, mirrored=mirrored))
            continue
        if regions.kind == "superpixels":
            cells = superpixels(image, regions.count, mirrored=mirrored, wired=wired)
        else:
            cells = grid_cells(size, regions.grid, mirrored=mirrored, wired=wired)
        count = int(cells.max()) + 1 if regions.kind == "superpixels" else regions.count * (1 + wired)
        boxes, cells = bounding_boxes(cells, count), cells.to(image.device)

        def build(numbers: Tensor, occlude=occlude, cells=cells) -> Tensor:  # type: ignore[no-untyped-def]
            occluded: Tensor = occlude(cells == sent(numbers, cells.device)[:, None, None])
            return occluded

        drop = clean - score_images(scorer.score, build, count, batch, boxes, stage, scorer.features)
        measured.append((cells, drop, drop.clamp(min=0)))
    partitions, dropped, painted = zip(*measured, strict=True)
    return InterventionEvidence(torch.stack(partitions), _padded(dropped, nan), _padded(painted, 0.0))


def _padded(rows: Sequence[Float[Tensor, "_"]], fill: float) -> Float[Tensor, "N R"]:
    """Rows of different lengths as one table."""
    longest = max(map(len, rows))
    return torch.stack([F.pad(row, (0, longest - len(row)), value=fill) for row in rows])


def bounding_boxes(partition: Int[Tensor, "H W"], count: int) -> Boxes:
    """The bounding box of each region of a partition on the CPU; an empty region gets a box of one pixel."""
    cells = partition.numpy()
    start, stop = np.zeros((count, 2), dtype=np.int64), np.ones((count, 2), dtype=np.int64)
    for axis in (0, 1):
        position = np.broadcast_to(np.expand_dims(np.arange(cells.shape[axis]), 1 - axis), cells.shape)
        first, last = np.full(count, cells.shape[axis]), np.full(count, -1)
        np.minimum.at(first, cells, position)
        np.maximum.at(last, cells, position)
        filled = last >= 0
        start[filled, axis], stop[filled, axis] = first[filled], last[filled] + 1
    return start, stop
