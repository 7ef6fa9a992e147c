"""The images that the deletion and insertion metrics score, and their scores: every map of a sample in full batches."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

import torch
from scipy.ndimage import distance_transform_edt

from segfaith.evaluation.ranking import rank_region, tied_share, top_count, top_pixels
from segfaith.incremental.scorers import PlainScorer
from segfaith.incremental.scoring import OTHERWISE, TOLERANCE, scorer_for
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import Occluder
from segfaith.scores import BatchSize, score_images
from segfaith.types import Bool, Image, Int, Map, Mask, Target, Tensor

Kind = Literal[
    "target_deletion",
    "off_deletion",
    "insertion",
    "off_fair",
    "off_near",
    "off_middle",
    "off_far",
    "off_evidence",
]
BANDS: dict[Kind, tuple[float, float]] = {"off_near": (0, 16), "off_middle": (16, 48), "off_far": (48, inf)}
"""Distance from the target in pixels of an image of height 224: above the first number, up to the second."""


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


@dataclass(frozen=True, eq=False)
class Scores:
    """s_c of the image itself, of each operator's baseline b = O(x, all pixels), and of the intervened images.

    All by the same arithmetic, so that an intervention that changes nothing gives `clean` to the last bit, or nearly;
    `path` says which: "incremental", or "plain" with the reason.
    """

    path: str
    clean: float
    baselines: dict[str, float]
    intervened: dict[Intervention, float]


def distance_bands(target: Target) -> dict[Kind, Mask]:
    """The pixels outside M by their Euclidean distance to it, in the bands of `BANDS` scaled with the height."""
    outside = (~target.region).cpu().numpy()
    distance = torch.from_numpy(distance_transform_edt(outside)).to(target.region.device) * (224 / outside.shape[0])
    return {kind: (distance > low) & (distance <= high) for kind, (low, high) in BANDS.items()}


def score_interventions(
    model: SegmentationModel,
    image: Image,
    target: Target,
    rankings: Sequence[Ranking],
    operators: dict[str, Occluder],
    pairs: Sequence[tuple[str, float]],
    batch: BatchSize,
    *,
    expected: float,
    fair: bool = False,
    limits: Mapping[Kind, Mask] | None = None,
) -> Scores:
    """Scores the image, each operator's baseline, and every map at every pair of operator and k.

    Args:
        pairs: operators and k. The first pair also gives what `fair` and `limits` ask for.
        expected: s_c of the image by the model itself; where a graph's disagrees, the model does all.
        fair: also delete only the n(k, M) highest pixels outside M (`off_fair`), where so many lie there.
        limits: by kind, a set of pixels: S_o is deleted within it alone. Maps whose S_o does not meet it are left out.

    Model passes: one, one for each operator (two where a graph scores), for each map and pair two, or three where
    something lies outside M, and one for each map and kind of `fair` and `limits`. Deletions of pixels that are not
    there are left out. Where all pixels of a region are taken, as at k = 1, the maps share one image.
    """
    size = (image.shape[1], image.shape[2])
    everything = torch.ones(1, *size, dtype=torch.bool, device=image.device)
    baselines = {name: occlude(everything)[0] for name, occlude in operators.items()}
    limits = limits or {}
    kinds: tuple[Kind, ...] = ("target_deletion", "off_deletion", "insertion")
    planned = [
        Intervention(index, operator, k, kind)
        for index, ranking in enumerate(rankings)
        for operator, k in pairs
        for kind in kinds
        if kind != "off_deletion" or len(ranking.outside)
    ]
    more: tuple[Kind, ...] = (*(("off_fair",) if fair else ()), *limits)
    planned += [
        item
        for index, ranking in enumerate(rankings)
        for item in (Intervention(index, *pairs[0], kind) for kind in more)
        if bool(_chosen(item, ranking, size, limits).any())
    ]

    shared = [_shared(item, rankings[item.index]) for item in planned]
    distinct = list(dict.fromkeys(shared))

    def build(numbers: Int[Tensor, "B"]) -> Tensor:
        return torch.stack([made(number) for number in numbers.tolist()])

    def made(number: int) -> Image:
        if number == 0:
            return image
        if number <= len(operators):
            return list(baselines.values())[number - 1]
        item = distinct[number - 1 - len(operators)]
        chosen = _chosen(item, rankings[item.index], size, limits)
        if item.kind == "insertion":
            return torch.where(chosen, image, baselines[item.operator])
        return operators[item.operator](chosen[None])[0]

    path, scores = _scored(model, image, target, list(operators), build, len(distinct), batch, expected)
    first = 1 + len(operators)
    found = dict(zip(distinct, scores[first:], strict=True))
    return Scores(
        path,
        scores[0],
        dict(zip(operators, scores[1:first], strict=True)),
        {item: found[one] for item, one in zip(planned, shared, strict=True)},
    )


def _scored(
    model: SegmentationModel,
    image: Image,
    target: Target,
    operators: Sequence[str],
    build: Callable[[Int[Tensor, "B"]], Tensor],
    interventions: int,
    batch: BatchSize,
    expected: float,
) -> tuple[str, list[float]]:
    """The path that was taken, and the scores of the image, of each operator's baseline and of what is built then.

    A graph's scores of the image and of the baselines are held against the model's own; where one disagrees, the model
    does all.
    """
    count = 1 + len(operators) + interventions
    scorer = scorer_for(model, image, target.region, target.class_index)
    scores = score_images(scorer.score, build, count, batch).tolist()
    if isinstance(scorer, PlainScorer):
        return scorer.path, scores
    plain = PlainScorer(model, target.region, target.class_index)
    own = [expected, *score_images(plain.score, lambda numbers: build(numbers + 1), len(operators), batch).tolist()]
    names = ["this image", *(f"the baseline of {name}" for name in operators)]
    differ = [name for name, one, other in zip(names, scores, own, strict=False) if abs(one - other) > TOLERANCE]
    if not differ:
        return scorer.path, scores
    plain = PlainScorer(model, target.region, target.class_index, OTHERWISE.format(differ[0]))
    return plain.path, score_images(plain.score, build, count, batch).tolist()


def _shared(item: Intervention, ranking: Ranking) -> Intervention:
    """The same for all maps where every pixel of the region is taken, whatever their order."""
    order = ranking.inside if item.kind in ("target_deletion", "insertion") else ranking.outside
    everything = item.kind != "off_fair" and top_count(item.k, len(order)) == len(order)
    return replace(item, index=0) if everything else item


def _chosen(
    item: Intervention, ranking: Ranking, size: tuple[int, int], limits: Mapping[Kind, Mask]
) -> Bool[Tensor, "H W"]:
    """The pixels that an intervention is about: S_t, S_o, what of S_o lies within a limit, or S_o as large as S_t."""
    if item.kind in ("target_deletion", "insertion"):
        return top_pixels(ranking.inside, top_count(item.k, len(ranking.inside)), size)
    order = ranking.outside
    count = top_count(item.k, len(order)) if len(order) else 0
    if item.kind == "off_fair":
        count = top_count(item.k, len(ranking.inside))
        count = count if count <= len(order) else 0
    chosen = top_pixels(order, count, size)
    return chosen & limits[item.kind] if item.kind in limits else chosen
