"""RISE: its formula by a loop, and what it must find."""

import numpy as np
import pytest
import torch
from torch import Tensor

import segfaith
from segfaith import Target
from segfaith.attribution.rise import rise
from segfaith.batching import BatchSize
from segfaith.errors import SampleError
from segfaith.models.segmentation import SegmentationModel
from toys import PixelScorer, SmallCNN, plain

SIZE = (21, 26)


def given() -> tuple[Tensor, Target]:
    image = torch.from_numpy(np.random.default_rng(0).random((3, *SIZE), dtype=np.float32))
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[2:12, 3:15] = True
    return image, Target(1, region)


def by_loop(model: SegmentationModel, image: Tensor, target: Target, masks: int, cells: int, keep: float) -> np.ndarray:
    rng = np.random.default_rng(3)
    grids = rng.random((masks, cells, cells)) < keep
    steps = [-(-side // cells) for side in SIZE]
    shifts = np.stack([rng.integers(step, size=masks) for step in steps], 1)
    total = np.zeros(SIZE)
    for grid, (top, left) in zip(grids, shifts, strict=True):
        mask = np.zeros(SIZE)
        for y in range(SIZE[0]):
            for x in range(SIZE[1]):
                value = 0.0
                places = [
                    np.clip((at + shift + 0.5) * cells / ((cells + 1) * step) - 0.5, 0, cells - 1)
                    for at, shift, step in ((y, top, steps[0]), (x, left, steps[1]))
                ]
                for i in range(cells):
                    for j in range(cells):
                        value += max(0, 1 - abs(places[0] - i)) * max(0, 1 - abs(places[1] - j)) * grid[i, j]
                mask[y, x] = value
        seen = image * torch.from_numpy(mask).float()
        with torch.no_grad():
            p = model.logits(seen[None]).softmax(1)[0, target.class_index][target.region].double()
        total += float(p.sum()) / (int(target.region.sum()) + 1e-6) * mask
    return total / (masks * keep)


@pytest.mark.parametrize("batch", [1, 5])
def test_rise_is_its_formula(batch: int) -> None:
    image, target = given()
    model = plain(SmallCNN(seed=3), layer="backbone.4")
    options = {"masks": 9, "cells": 4, "keep": 0.4}
    ours = rise(model, image, target, BatchSize(batch), np.random.default_rng(3), **options, fill="zero")
    np.testing.assert_allclose(ours.numpy(), by_loop(model, image, target, **options), atol=1e-5)


def test_rise_marks_the_target_where_only_it_counts() -> None:
    _, target = given()
    image = torch.full((3, *SIZE), 0.9)
    heatmap = segfaith.explain(plain(PixelScorer()), image, target, ["rise@masks=800,fill=zero"])[
        "rise@masks=800,fill=zero"
    ]
    assert float(heatmap[target.region].mean()) > 2 * float(heatmap[~target.region].mean())


def test_rise_repeats_with_the_seed_and_refuses_small_images() -> None:
    image, target = given()
    model = plain(SmallCNN(seed=3), layer="backbone.4")
    name = "rise@masks=12"
    maps = [segfaith.explain(model, image, target, [name], seed=seed)[name] for seed in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1])
    assert not torch.allclose(maps[0], maps[2], atol=1e-2)
    with pytest.raises(SampleError, match="cells = 40 are more than the image"):
        segfaith.explain(model, image, target, ["rise@cells=40"])


def test_rise_of_a_model_that_never_ran_knows_its_head() -> None:
    """A sigmoid for each class, which is known once the model has run."""
    image, target = given()
    wrapped = [
        segfaith.wrap(SmallCNN(seed=3), layer="backbone.4", mean=(0, 0, 0), std=(1, 1, 1), head="sigmoid")
        for _ in range(2)
    ]
    wrapped[1].logits(image[None])
    options = {"masks": 9, "cells": 4, "keep": 0.4, "fill": "zero"}
    maps = [rise(model, image, target, BatchSize(4), np.random.default_rng(3), **options) for model in wrapped]
    assert torch.equal(*maps)
