"""bfloat16 differences from the clean features."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import zoo
from drops import evidence
from exactness import check_exact_on, photograph, target
from segfaith.evidence.regions import Regions
from segfaith.incremental import bfloat16
from segfaith.incremental.bfloat16 import Differences
from segfaith.incremental.windows import Windows
from toys import plain


@pytest.mark.parametrize("name", zoo.TRACED)
@pytest.mark.parametrize(("size", "kind"), [((37, 53), "patch"), ((40, 24), "scattered")], ids=str)
def test_differences_from_the_clean_features_add_up_to_the_loop(
    name: str, size: tuple[int, int], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What bf16 computes, without its rounding."""
    entered: list[int] = []
    real = Differences.enter

    def enter(self: Differences, image: Any, images: Windows) -> Windows:
        entered.append(len(images.data))
        return real(self, image, images)

    monkeypatch.setattr(bfloat16, "SMALL", torch.float32)
    monkeypatch.setattr(Differences, "enter", enter)
    model, image, region = plain(zoo.randomised(zoo.TRACED[name]())), photograph(size), target(size, kind)
    class_index = 1 if model.logits(image[None]).shape[1] == 2 else 2
    check_exact_on(model, image, region, class_index, 5, "bf16")
    assert entered


@pytest.mark.parametrize("name", zoo.TRACED)
def test_bf16_moves_drops_by_a_small_part_of_themselves(name: str) -> None:
    model, size = plain(zoo.randomised(zoo.TRACED[name]())), (40, 40)
    image, region = photograph(size), target(size, "patch")
    dtypes = {one.dtype for one in model.module.parameters()}
    exact = evidence(model, image, region, 1, Regions(5))
    moved = np.abs(evidence(model, image, region, 1, Regions(5, precision="bf16")) - exact)
    assert (moved < 0.02 * np.abs(exact) + 0.01 * np.abs(exact).max()).all()
    assert moved.max() > 0
    assert {one.dtype for one in model.module.parameters()} == dtypes
    np.testing.assert_array_equal(evidence(model, image, region, 1, Regions(5)), exact)


def test_convolutions_of_what_is_no_map_of_the_image_keep_their_bias_and_precision() -> None:
    """Halves of the channels as images of their own: windows cannot follow them, so nothing there is a difference."""

    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.stem(x)
        n, channels, h, w = y.shape
        halves = self.each(y.reshape(2 * n, channels // 2, h, w)).reshape(n, channels, h, w)
        return self.head(F.relu(halves))

    module = zoo.Of(forward, stem=zoo.unit(3, 8, stride=2), each=zoo.conv(4, 4), head=zoo.head())
    model, size = plain(zoo.randomised(module)), (24, 32)
    image, region = photograph(size), target(size, "patch")
    exact = evidence(model, image, region, 1, Regions(4))
    assert np.abs(exact).max() > 1e-3
    moved = np.abs(evidence(model, image, region, 1, Regions(4, precision="bf16")) - exact)
    assert 0 < moved.max() < 0.02 * np.abs(exact).max()


def test_the_size_of_a_mean_may_follow_from_the_size_of_a_map() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.gate(F.adaptive_avg_pool2d(x, 1 + x.size(2) // 64)))

    module = zoo.Of(forward, stem=zoo.unit(3, 8, stride=2), gate=zoo.conv(8, 8, 1), head=zoo.head())
    model, size = plain(zoo.randomised(module)), (24, 32)
    image, region = photograph(size), target(size, "patch")
    exact = evidence(model, image, region, 1, Regions(4))
    moved = np.abs(evidence(model, image, region, 1, Regions(4, precision="bf16")) - exact)
    assert 0 < moved.max() < 0.02 * np.abs(exact).max()
