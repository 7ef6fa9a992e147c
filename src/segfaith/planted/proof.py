"""Proof of use: does a model decide by the planted evidence, and never by a planted distractor?

On unseen scenes, each body that is predicted right (by the class of most of its visible pixels) is predicted again in
counterfactual scenes. If its evidence is changed, the predicted class must become the new class. If one of two
sufficient parts is removed, or a distractor is swapped, moved or removed, the predicted class must stay.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import isnan
from typing import Any

import numpy as np
import pandas as pd
import torch

from segfaith.classes import SCENE_CLASSES
from segfaith.constants import COUNTERPART
from segfaith.data.scenes.edits import decisive_edits, distractor_edits
from segfaith.data.scenes.rendering import render
from segfaith.data.scenes.symbols import COUNTERPARTS, FAMILIES, Scene
from segfaith.models.segmentation import SegmentationModel
from segfaith.randomness import generator
from segfaith.targets import majority_class
from segfaith.types import Image, Int, Labels, Mask, Tensor

LEAST, MOST = 0.90, 0.05
"""A decisive change must change the class in at least 90 % of cases, any other change in at most 5 %."""


SWAPPED = "texture, part or cue swapped"
REQUIRED = {
    "plain": (SWAPPED,),
    "marker": (SWAPPED,),
    "context": (SWAPPED,),
    "conjunction": ("needed part removed",),
    "redundancy": ("spare part removed", "both parts removed"),
}
"""A kind is proven if these changes were tried and all claims of the kind hold."""
AT_LEAST, AT_MOST = f"at least {LEAST:.0%}", f"at most {MOST:.0%}"


@dataclass(frozen=True)
class Trial:
    """One line of the proof: the share of cases in which a change of the scene changes the predicted class."""

    kind: str
    change: str
    cases: int
    share: float
    bound: str
    holds: bool


@dataclass(frozen=True)
class Proof:
    """All claims. They are about the `right` regions: of all visible `regions`, these are predicted right.

    `iou` is the intersection over union per class on the unedited scenes ("mean": over the classes).
    """

    scenes: int
    size: int
    regions: int
    right: int
    claims: list[Trial]
    iou: dict[str, float]

    @property
    def proven(self) -> list[str]:
        """The kinds whose claims all hold and whose required changes were tried."""
        claims = {kind: [claim for claim in self.claims if claim.kind == kind] for kind in REQUIRED}
        return [
            kind
            for kind, ours in claims.items()
            if all(claim.holds for claim in ours) and {claim.change for claim in ours}.issuperset(REQUIRED[kind])
        ]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values, with the proven kinds; the IoU of a class that was not seen is null."""
        known = {name: None if isnan(value) else value for name, value in self.iou.items()}
        return asdict(self) | {"iou": known, "proven": self.proven}


def prove(
    model: SegmentationModel, scenes: Sequence[Scene], size: int, on_scene: Callable[[], None] = lambda: None
) -> Proof:
    """Measures the proof of use on scenes that the model was not trained on.

    Args:
        size: the side at which scenes are rendered, in pixels.
        on_scene: called after each scene.
    """
    rows: list[dict[str, Any]] = []
    seen = correct = 0
    confusion = torch.zeros(len(SCENE_CLASSES), len(SCENE_CLASSES), dtype=torch.int64)
    for scene in scenes:
        image, labels = render(scene, size)
        predicted = predict(model, [image])[0]
        confusion += _confusion(labels, predicted)
        regions = {index: labels == scene.label(body) for index, body in enumerate(scene.bodies)}
        right = {
            index: region
            for index, region in regions.items()
            if majority_class(predicted, region) == scene.label(scene.bodies[index])
        }
        seen, correct = seen + len(regions), correct + len(right)
        if right:
            rows += _changes(model, scene, right, size)
        on_scene()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diag()
    iou = dict(zip(SCENE_CLASSES, (confusion.diag().double() / union.double()).tolist(), strict=True))
    claims = list(_claims(pd.DataFrame(rows)))
    return Proof(len(scenes), size, seen, correct, claims, iou | {"mean": float(np.nanmean([*iou.values()]))})


def _changes(model: SegmentationModel, scene: Scene, right: dict[int, Mask], size: int) -> list[dict[str, Any]]:
    """A row for each body that is predicted right and each of its counterfactual scenes."""
    edits: list[tuple[int | None, str, Scene]] = [
        (index, name, edit) for index in right for name, edit in decisive_edits(scene, index).items()
    ]
    edits += [(None, name, edit) for name, edit in distractor_edits(scene, generator(0, scene.key, "proof")).items()]
    predictions = predict(model, [render(edit, size)[0] for _, _, edit in edits])
    rows = []
    for (owner, name, edit), predicted in zip(edits, predictions, strict=True):
        for index in right if owner is None else [owner]:
            before, after = scene.label(scene.bodies[index]), edit.label(edit.bodies[index])
            kind = COUNTERPART if before in COUNTERPARTS else scene.bodies[index].family
            change = f"distractor {name.split()[-1]}" if owner is None else _words(name, before != after)
            if name == "cue moved" and kind == "context":
                change = "cue moved"
            came = majority_class(predicted, right[index])
            rows.append({"kind": kind, "change": change, "decides": before != after, "came": came, "new": after})
    return rows


def _words(name: str, decides: bool) -> str:
    """An edit's name without details of its scene. A part is spare if the class stays the same without it."""
    if name == "without both":
        return "both parts removed"
    if name.startswith("without"):
        return "needed part removed" if decides else "spare part removed"
    if name.startswith("with"):
        return "missing part added" if decides else "spare part added"
    return SWAPPED


def _claims(rows: pd.DataFrame) -> Iterator[Trial]:
    order = [*FAMILIES, COUNTERPART]
    for kind in order:
        of_kind = rows[rows["kind"] == kind] if len(rows) else rows
        for (decides, change), group in of_kind.groupby(["decides", "change"], sort=False) if len(of_kind) else ():
            changed = group["came"] == group["new"] if decides else group["came"] != group["new"]
            share = float(changed.mean())
            holds = share >= LEAST if decides else share <= MOST
            bound = AT_LEAST if decides else AT_MOST
            yield Trial(kind, str(change), len(group), share, bound, bool(holds))


@torch.inference_mode()
def predict(model: SegmentationModel, images: Sequence[Image], batch: int = 8) -> Int[Tensor, "N H W"]:
    """The argmax of the model's logits on images of one size, in batches, on the CPU."""
    parts = [torch.stack(list(images[start : start + batch])) for start in range(0, len(images), batch)]
    return torch.cat([model.logits(part.to(model.device)).argmax(1).cpu() for part in parts])


def _confusion(labels: Labels, predicted: Labels) -> Int[Tensor, "C C"]:
    classes = len(SCENE_CLASSES)
    return torch.bincount(labels.flatten() * classes + predicted.flatten(), minlength=classes**2).view(classes, classes)
