"""The images that the deletion and insertion metrics score, and their scores: every map of a sample in full batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from segfaith.evaluation.ranking import rank_region, tied_share, top_count, top_pixels
from segfaith.incremental.scoring import scorer_for
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import Occluder
from segfaith.scores import BatchSize, score_images
from segfaith.types import Bool, Image, Int, Map, Mask, Target, Tensor

Kind = Literal["target_deletion", "off_deletion", "insertion", "off_evidence"]


@dataclass(frozen=True, eq=False)
class Ranking:
    """A map's pixels, highest first, inside and outside the target (`outside` is empty where M covers the image)."""

    heatmap: Map
    inside: Int[Tensor, "P"]
    outside: Int[Tensor, "Q"]

    def tied_share(self, k: float) -> tuple[float, float]:
        """Share of the top fraction k inside and outside that the tie-break chose; NaN for an empty outside."""
        shares = [
            tied_share(self.heatmap, order, top_count(k, len(order))) if len(order) else torch.nan
            for order in (self.inside, self.outside)
        ]
        return shares[0], shares[1]


def rank(heatmap: Map, target: Target, outside: Mask, ranks: Int[Tensor, "H W"]) -> Ranking:
    """Ranks the pixels of M and those of `outside` (not M, or not M without ignored pixels)."""
    return Ranking(heatmap, rank_region(heatmap, target.region, ranks), rank_region(heatmap, outside, ranks))


@dataclass(frozen=True)
class Intervention:
    """One image to score: map number `index`, operator, fraction k and what is done with the top pixels."""

    index: int
    operator: str
    k: float
    kind: Kind


def score_interventions(
    model: SegmentationModel,
    image: Image,
    target: Target,
    rankings: Sequence[Ranking],
    operators: dict[str, Occluder],
    fractions: Sequence[float],
    batch: BatchSize,
    evidence: Mask | None = None,
) -> tuple[dict[Intervention, float], dict[str, float]]:
    """Scores every (map, operator, k, kind), and each operator's baseline b = O(x, all pixels).

    With planted `evidence` E the first operator and k also give `off_evidence`: S_o within E occluded.

    Model passes: for each operator one, plus for each map and k two, or three where something lies outside M, and
    one for each map whose S_o meets E. Off-target deletions with nothing outside M are left out.
    """
    size = (image.shape[1], image.shape[2])
    everything = torch.ones(1, *size, dtype=torch.bool, device=image.device)
    baselines = {name: occlude(everything)[0] for name, occlude in operators.items()}
    planned = [
        Intervention(index, operator, k, kind)
        for index, ranking in enumerate(rankings)
        for operator in operators
        for k in fractions
        for kind in ("target_deletion", "off_deletion", "insertion")
        if kind != "off_deletion" or len(ranking.outside)
    ]
    if evidence is not None:
        operator, k = next(iter(operators)), fractions[0]
        planned += [
            Intervention(index, operator, k, "off_evidence")
            for index, ranking in enumerate(rankings)
            if bool((_chosen(ranking, k, "off_evidence", size) & evidence).any())
        ]
    makers: list[Callable[[], Image]] = [lambda name=name: baselines[name] for name in operators]  # type: ignore[misc]
    makers += [lambda item=item: _image(item, image, rankings, operators, baselines, evidence) for item in planned]  # type: ignore[misc]

    def build(numbers: Int[Tensor, "B"]) -> Tensor:
        return torch.stack([makers[number]() for number in numbers.tolist()])

    scorer = scorer_for(model, image, target.region, target.class_index)
    scores = score_images(scorer.score, build, len(makers), batch).tolist()
    return (
        dict(zip(planned, scores[len(operators) :], strict=True)),
        dict(zip(operators, scores[: len(operators)], strict=True)),
    )


def _chosen(ranking: Ranking, k: float, kind: Kind, size: tuple[int, int]) -> Bool[Tensor, "H W"]:
    """S_t or S_o, whichever the kind is about."""
    order = ranking.outside if kind in ("off_deletion", "off_evidence") else ranking.inside
    return top_pixels(order, top_count(k, len(order)) if len(order) else 0, size)


def _image(
    item: Intervention,
    image: Image,
    rankings: Sequence[Ranking],
    operators: dict[str, Occluder],
    baselines: dict[str, Image],
    evidence: Mask | None,
) -> Image:
    chosen = _chosen(rankings[item.index], item.k, item.kind, (image.shape[1], image.shape[2]))
    if item.kind == "insertion":
        return torch.where(chosen, image, baselines[item.operator])
    if item.kind == "off_evidence":
        assert evidence is not None
        chosen = chosen & evidence
    return operators[item.operator](chosen[None])[0]
