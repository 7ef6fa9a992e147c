"""Training of the embedded models on pairs of scenes that differ in one part, cue or distractor.

Some images carry flat patches like those of interventions, none where `Recipe.hidden` is 0. So patches are nothing new
to the model, and it learns what hidden evidence means: a body whose marker or cue is hidden may be of either class.
(Retraining changes what deletion measures, as ROAR shows, Hooker et al. 2019; here the model is trained once, for all
methods.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from segfaith.classes import SCENE_CLASSES
from segfaith.data.scenes.drawing import draw_scene
from segfaith.data.scenes.edits import decisive_edits, distractor_edits, other_pattern
from segfaith.data.scenes.rendering import PATTERNS, paint, plate_labels, plate_mask
from segfaith.data.scenes.symbols import BARS, BLANK, CUES, SHAPES, Plate, Scene
from segfaith.models.inputs import IMAGENET_MEAN, IMAGENET_STD
from segfaith.models.scene_model import HIGH_CHANNELS, build_scene_model
from segfaith.randomness import generator
from segfaith.types import Labels, Mask

LOST = 0.6
"""A plate of which more than this share is hidden cannot be read."""
STRIDE = 8
"""The loss is taken at one pixel of each 8 x 8, the resolution at which LR-ASPP predicts."""


@dataclass(frozen=True)
class Recipe:
    """How an embedded model is trained; the defaults made `scenes`, and `hidden = 0` made `scenes-unhidden`.

    `hidden` is the share of images with flat patches over them, 0 to 1.
    """

    steps: int = 2600
    pairs: int = 8
    size: int = 224
    seed: int = 0
    rate: float = 4e-3
    decay: float = 0.02
    background_weight: float = 0.4
    pattern_weight: float = 0.5
    smoothing: float = 0.02
    hidden: float = 0.35


class ScenePairs(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Pair i: a scene, and a copy that differs in a decisive part or in a distractor.

    Images (2, 3, S, S), class labels and labels of the plates' patterns, both (2, S/8, S/8).
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.pairs

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        key = f"train-{self.recipe.seed}-{index}"
        rng = generator(self.recipe.seed, key, "edit")
        scene = draw_scene(key, int(rng.integers(1, len(SCENE_CLASSES))))
        body = int(rng.integers(len(scene.bodies)))
        edits = distractor_edits(scene, rng) if rng.random() < 0.25 else decisive_edits(scene, body)
        edited = list(edits.values())[rng.integers(len(edits))]
        views = [self._view(view, rng) for view in (scene, edited)]
        images, labels, patterns = (torch.stack(parts) for parts in zip(*views, strict=True))
        return images, _thin(labels), _thin(patterns)

    def _view(self, scene: Scene, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """A scene's image, labels and patterns, sometimes with flat patches over it."""
        size = self.recipe.size
        image, owners = paint(scene, size)
        classes = [scene.label(body) for body in scene.bodies]
        patterns = plate_labels(scene, size)
        if rng.random() < self.recipe.hidden:
            hidden = draw_patches(scene, rng, size)
            colour = image.mean((1, 2)) if rng.random() < 0.7 else torch.from_numpy(rng.random(3, dtype=np.float32))
            image = torch.where(hidden, colour[:, None, None], image)
            patterns = torch.where(hidden, 0, patterns)
            classes = classes_under_patches(scene, hidden, rng)
        return image, torch.tensor([0, *classes])[owners], patterns


def draw_patches(scene: Scene, rng: np.random.Generator, size: int) -> Mask:
    """One to six rectangles like those of interventions, half of them over a plate; bool (size, size)."""
    plates = [*scene.distractors, *(part for body in scene.bodies for part in body.parts)]
    plates += [scene.cue] * 2 if scene.cue is not None else []
    hidden = torch.zeros(size, size, dtype=torch.bool)
    for _ in range(int(rng.integers(1, 7))):
        centre, sides = rng.uniform(0, 1, 2), rng.uniform(0.05, 0.25, 2)
        if rng.random() < 0.5:
            plate = plates[int(rng.integers(len(plates)))]
            centre, sides = plate.centre + rng.normal(0, 0.2, 2) * plate.side, rng.uniform(1, 1.8, 2) * plate.side
        low, high = (np.clip((centre + sign * sides / 2) * size, 0, size).astype(int) for sign in (-1, 1))
        hidden[low[0] : high[0], low[1] : high[1]] = True
    return hidden


def classes_under_patches(scene: Scene, hidden: Mask, rng: np.random.Generator) -> list[int]:
    """The bodies' class labels when some pixels are hidden.

    A plate is lost if most of it is hidden. A body that has lost its marker or its cue gets one of the two classes by
    chance. A lost part of a conjunction or redundancy counts as absent.
    """

    def lost(plate: Plate) -> bool:
        return float(hidden[plate_mask((plate,), len(hidden))].float().mean()) > LOST

    def guessed(plate: Plate, names: Sequence[str]) -> Plate:
        return other_pattern(plate, names) if lost(plate) and rng.random() < 0.5 else plate

    def known(part: Plate) -> Plate:
        if part.pattern in BARS:
            return guessed(part, BARS)
        return replace(part, pattern=BLANK) if part.pattern in SHAPES and lost(part) else part

    bodies = tuple(replace(body, parts=tuple(map(known, body.parts))) for body in scene.bodies)
    seen = replace(scene, bodies=bodies, cue=None if scene.cue is None else guessed(scene.cue, CUES))
    return [seen.label(body) for body in bodies]


def _thin(labels: Labels) -> Labels:
    return labels[..., STRIDE // 2 :: STRIDE, STRIDE // 2 :: STRIDE]


def train(recipe: Recipe, on_step: Callable[[int, float, float], None] = lambda step, loss, aux: None) -> nn.Module:
    """Trains the scene model from random weights on the CPU and returns it in evaluation mode.

    AdamW with a one-cycle rate; cross-entropy in which the background weighs less. Training is seeded, but
    sums over several threads differ in the last digits between machines.

    Args:
        on_step: called with the step's number (from 1), its loss, and the loss of the second head, for patterns.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        model: Any = build_scene_model(len(SCENE_CLASSES)).to(memory_format=torch.channels_last).train()
        pattern_head = nn.Conv2d(HIGH_CHANNELS, 1 + len(PATTERNS), 1)
    loader = DataLoader(
        ScenePairs(recipe), batch_size=recipe.pairs, num_workers=1, prefetch_factor=8, generator=torch.Generator()
    )
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *pattern_head.parameters()], recipe.rate, weight_decay=recipe.decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, recipe.steps, pct_start=0.15)
    weight = torch.ones(len(SCENE_CLASSES))
    weight[0] = recipe.background_weight
    mean, std = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(IMAGENET_STD)[:, None, None]
    pattern_bias = torch.ones(1 + len(PATTERNS))
    pattern_bias[0] = 0.1
    for step, (images, labels, patterns) in enumerate(loader, 1):
        x = ((images.flatten(0, 1) - mean) / std).contiguous(memory_format=torch.channels_last)
        features = model.backbone(x)
        seen = F.interpolate(pattern_head(features["high"]), scale_factor=2, mode="bilinear", align_corners=False)
        loss = F.cross_entropy(
            model.classifier(features), labels.flatten(0, 1), weight, label_smoothing=recipe.smoothing
        )
        aux = F.cross_entropy(seen, patterns.flatten(0, 1), pattern_bias)
        total = loss + recipe.pattern_weight * aux
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        on_step(step, loss.item(), aux.item())
    trained: nn.Module = model.eval()
    return trained
