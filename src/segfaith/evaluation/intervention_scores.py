"""The altered images of a sample's maps, by `INTERVENTIONS`, and their scores in full batches."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from segfaith.batching import on_target, score_images
from segfaith.evaluation.fidelity import Sets
from segfaith.evaluation.interventions import INTERVENTIONS, asked_for
from segfaith.evaluation.ranking import Ranking, top_pixels
from segfaith.evaluation.subject import Subject
from segfaith.incremental.scorers import INCREMENTAL
from segfaith.incremental.scoring import OTHERWISE, agree, plain_scorer, scorer_for
from segfaith.occlusion import Occluder
from segfaith.scores import scalar_of
from segfaith.types import Float, Image, Int, Tensor


@dataclass(frozen=True)
class Altered:
    """One altered image: the map whose pixels are taken (its number), the operator, k, and the kind of intervention."""

    index: int
    operator: str
    k: float
    kind: str


@dataclass(frozen=True, eq=False)
class Scores:
    """s_c of the image itself, of each operator's baseline b = O(x, all pixels), of the altered images, and of the
    image with each of the sets of `fidelity` occluded.

    All by the same arithmetic, so that an intervention that changes nothing gives `clean` to the last bit, or nearly;
    `path` says which: "incremental", "tiled" with the tiles, or "plain" with the reason.
    """

    path: str
    clean: float
    baselines: dict[str, float]
    altered: dict[Altered, float]
    sets: Float[Tensor, "P"]


def score_interventions(
    subject: Subject,
    rankings: Sequence[Ranking],
    operators: Mapping[str, Occluder],
    pairs: Sequence[tuple[str, float]],
    *,
    holds: Collection[str],
    sets: Sets,
    occlude_set: Occluder,
    expected: float,
) -> Scores:
    """Scores the image, each operator's baseline, and every map under every intervention that is asked for.

    Args:
        rankings: the maps, all with the same regions.
        pairs: operators and k. Kinds without a curve are scored at the first operator alone, at their own k or the
            first.
        holds: see `interventions.asked_for`.
        sets: the sets of fidelity, which `occlude_set` occludes.
        expected: s_c of the image by the model itself; where a graph's disagrees, the model does all.

    Model passes: one, one for each operator (two where a graph scores), one for each altered image and one for each
    set. An intervention that would alter no pixel is left out. Where all pixels of a region are taken, as at k = 1, the
    maps share an image.
    """
    everything = torch.ones(1, *subject.size, dtype=torch.bool, device=subject.image.device)
    baselines = {name: occlude(everything)[0] for name, occlude in operators.items()}
    planned = [
        item for item in _planned(len(rankings), pairs, holds) if len(_pixels(item, rankings[item.index], subject))
    ]
    shared = [_shared(item, rankings[item.index]) for item in planned]
    distinct = list(dict.fromkeys(shared))

    def build(numbers: Int[Tensor, "B"]) -> Tensor:
        return torch.stack([made(number) for number in numbers.tolist()])

    def made(number: int) -> Image:
        if number == 0:
            return subject.image
        if number <= len(operators):
            return list(baselines.values())[number - 1]
        if number > len(operators) + len(distinct):
            return occlude_set(sets.mask(number - 1 - len(operators) - len(distinct))[None])[0]
        item = distinct[number - 1 - len(operators)]
        pixels = _pixels(item, rankings[item.index], subject)
        chosen = top_pixels(pixels, len(pixels), subject.size)
        if INTERVENTIONS[item.kind].inserts:
            return torch.where(chosen, subject.image, baselines[item.operator])
        return operators[item.operator](chosen[None])[0]

    path, scores = _scored(subject, list(operators), build, len(distinct) + len(sets), expected)
    first = 1 + len(operators)
    last = first + len(distinct)
    score_of = dict(zip(distinct, scores[first:last], strict=True))
    return Scores(
        path,
        scores[0],
        dict(zip(operators, scores[1:first], strict=True)),
        {item: score_of[image] for item, image in zip(planned, shared, strict=True)},
        torch.tensor(scores[last:], dtype=torch.float64),
    )


def _planned(maps: int, pairs: Sequence[tuple[str, float]], holds: Collection[str]) -> list[Altered]:
    """What is asked of each map: the kinds with a curve at every pair, then the others at the first operator."""
    entries, (operator, first) = asked_for(holds), pairs[0]
    curves = [entry.kind for entry in entries if entry.curve]
    others = [(entry.k or first, entry.kind) for entry in entries if not entry.curve]
    return [Altered(index, *pair, kind) for index in range(maps) for pair in pairs for kind in curves] + [
        Altered(index, operator, k, kind) for index in range(maps) for k, kind in others
    ]


def _scored(
    subject: Subject,
    operators: Sequence[str],
    build: Callable[[Int[Tensor, "B"]], Tensor],
    interventions: int,
    expected: float,
) -> tuple[str, list[float]]:
    """The path that was taken, and the scores of the image, of each operator's baseline and of what is built then.

    A graph's scores of the image and of the baselines are held against the model's own; where one disagrees, the model
    does all.
    """
    model, region, scalar = subject.model, subject.target.region, scalar_of(subject.model, subject.target)
    count = 1 + len(operators) + interventions
    scorer = scorer_for(model, subject.image, region, scalar)
    stage = on_target("metrics", region)
    scores = score_images(scorer.score, build, count, subject.batch, stage=stage, features=scorer.features).tolist()
    if scorer.path != INCREMENTAL:
        return scorer.path, scores
    plain = plain_scorer(model, subject.image, region, scalar, "as asked")
    by_model = on_target("metrics by the model itself", region)
    baselines = score_images(
        plain.score, lambda numbers: build(numbers + 1), len(operators), subject.batch, stage=by_model
    )
    names = ["this image", *(f"the baseline of {name}" for name in operators)]
    own = [expected, *baselines.tolist()]
    pairs = zip(names, scores, own, strict=False)
    differ = [name for name, by_graph, by_model in pairs if not agree(by_graph, by_model)]
    if not differ:
        return scorer.path, scores
    plain = plain_scorer(model, subject.image, region, scalar, OTHERWISE.format(differ[0]))
    return plain.path, score_images(plain.score, build, count, subject.batch, stage=by_model).tolist()


def taken(item: Altered, ranking: Ranking) -> Int[Tensor, "P"]:
    """Flat indices of the pixels that an intervention takes from its region, before `within` leaves any out."""
    entry = INTERVENTIONS[item.kind]
    return entry.pixels(ranking, item.k) if entry.pixels else ranking.top(entry.region, item.k)


def _shared(item: Altered, ranking: Ranking) -> Altered:
    """The same for all maps where every pixel of the region is taken, whatever their order."""
    everything = len(taken(item, ranking)) == len(ranking.region(INTERVENTIONS[item.kind].region))
    return replace(item, index=0) if everything else item


def _pixels(item: Altered, ranking: Ranking, subject: Subject) -> Int[Tensor, "P"]:
    """Flat indices of the pixels that an intervention alters."""
    pixels, within = taken(item, ranking), INTERVENTIONS[item.kind].within
    return pixels[within(subject).flatten()[pixels]] if within else pixels
