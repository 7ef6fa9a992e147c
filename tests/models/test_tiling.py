"""Tiles: their places, their weights, and that blended logits have no seams."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from segfaith import wrap
from segfaith.errors import SettingsError
from segfaith.models.tiling import LEAST, Tiling, tiling_of
from toys import PixelScorer, plain

CPU = torch.device("cpu")


def tiled(module: nn.Module, tile: Any = 32, overlap: int = 8, **options: Any) -> Any:
    return wrap(module, mean=(0, 0, 0), std=(1, 1, 1), tile=tile, overlap=overlap, **options)


@pytest.mark.parametrize(
    ("side", "tile", "overlap", "starts"),
    [
        (100, 32, 8, [0, 24, 48, 68]),
        (104, 32, 8, [0, 24, 48, 72]),
        (32, 32, 8, [0]),
        (33, 32, 8, [0, 1]),
        (64, 32, 0, [0, 32]),
        (65, 32, 31, list(range(34))),
    ],
)
def test_tiles_lie_at_every_stride_and_the_last_one_at_the_border(
    side: int, tile: int, overlap: int, starts: list[int]
) -> None:
    tiles = Tiling((tile, 8), overlap if overlap < 8 else 7).tiles((tile, 20))
    assert [columns.start for _, columns in tiles] == sorted({min(k * (8 - min(overlap, 7)), 12) for k in range(13)})
    rows = [rows for rows, _ in Tiling((tile, tile), overlap).tiles((side, tile))]
    assert [row.start for row in rows] == starts
    assert {row.stop - row.start for row in rows} == {tile}


@pytest.mark.parametrize("tile", [(32, 32), (9, 20)])
def test_weights_are_gaussians_by_loops(tile: tuple[int, int]) -> None:
    """exp(-d^2 / 2 s^2), s = 0.125 sides, and never below 1e-3."""
    values = np.array(
        [
            [
                np.exp(-sum(((p - (n - 1) / 2) / (0.125 * n)) ** 2 for p, n in zip((i, j), tile, strict=True)) / 2)
                for j in range(tile[1])
            ]
            for i in range(tile[0])
        ]
    )
    weights = Tiling(tile, 4).weights(CPU).numpy()
    np.testing.assert_allclose(weights, np.maximum(values, 1e-3), rtol=1e-5)
    assert weights.min() == np.float32(LEAST)


@pytest.mark.parametrize(("size", "tile", "overlap"), [((60, 90), (32, 48), 16), ((33, 70), (32, 32), 0)])
def test_logits_are_those_of_monai(size: tuple[int, int], tile: tuple[int, int], overlap: int) -> None:
    from monai.inferers.utils import sliding_window_inference

    module = zoo.randomised(zoo.plain_cnn()).eval()
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    shares = [overlap / side for side in tile]
    theirs = sliding_window_inference(images, tile, 4, plain(module).logits, overlap=shares, mode="gaussian")
    torch.testing.assert_close(tiled(module, list(tile), overlap).logits(images), theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(70, 90), (32, 33), (95, 32)])
def test_shares_of_tiles_sum_to_one(size: tuple[int, int]) -> None:
    tiling = Tiling((32, 32), 8)
    shares, total = torch.zeros(size), tiling.total(size, CPU)
    for tile in tiling.tiles(size):
        shares[tile] += tiling.weights(CPU) / total[tile]
    torch.testing.assert_close(shares, torch.ones(size), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(70, 90), (20, 90), (16, 12)])
def test_logits_are_blended_by_loops(size: tuple[int, int]) -> None:
    module = zoo.randomised(zoo.plain_cnn()).eval()
    model, images = tiled(module), torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    rows, columns = max(size[0], 32), max(size[1], 32)
    whole = model.padded(images)
    assert whole.shape[2:] == (rows, columns)
    weights, alone = model.tiling.weights(CPU).double(), plain(module)
    sums, shares = torch.zeros(2, zoo.CLASSES, rows, columns, dtype=torch.float64), torch.zeros(rows, columns).double()
    for top in sorted({min(k * 24, rows - 32) for k in range(9)}):
        for left in sorted({min(k * 24, columns - 32) for k in range(9)}):
            part = (..., slice(top, top + 32), slice(left, left + 32))
            sums[part] += weights * alone.logits(whole[part])
            shares[part] += weights
    expected = (sums / shares)[..., : size[0], : size[1]].float()
    torch.testing.assert_close(model.logits(images), expected, rtol=0, atol=1e-5)


def test_a_constant_image_has_no_seams() -> None:
    """Of a network that looks beyond a pixel and has no border effects of its own."""
    module = nn.Sequential(nn.Conv2d(3, 4, 5, padding=2, padding_mode="replicate"), nn.ReLU(), nn.Conv2d(4, 3, 1))
    logits = tiled(module).logits(torch.full((1, 3, 70, 90), 0.3)).detach()
    assert float(logits.amax((2, 3)).sub(logits.amin((2, 3))).max()) < 1e-6


def test_large_images_have_no_seams() -> None:
    """On 1024 x 2048, a network of pixels that each see only themselves gives the same with tiles and without."""
    image = torch.rand(1, 3, 1024, 2048, generator=torch.Generator().manual_seed(0))
    whole, blended = plain(PixelScorer()).logits(image), tiled(PixelScorer(), 512, 64).logits(image)
    torch.testing.assert_close(blended, whole, rtol=0, atol=1e-5)


def test_no_more_than_the_images_tiles_run_at_once() -> None:
    seen: list[tuple[int, ...]] = []

    class Watching(PixelScorer):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(tuple(x.shape))
            return super().forward(x)

    tiled(Watching(), [32, 16], 8).logits(torch.rand(2, 3, 40, 24))
    assert seen == [(2, 3, 32, 16)] * 4


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((None, 8, None), "there is no tile; give tile too"),
        ((32, None, None), "tile = 32 needs overlap"),
        ((32, 32, None), "overlap = 32: expected whole pixels from 0 to below the tile's side, 32"),
        (([64, 32], 40, None), "overlap = 40"),
        ((32, -1, None), "overlap = -1"),
        ((0, 0, None), r"tile = 0: expected a whole number of pixels, or two: \[height, width\]"),
        (([32, 32, 32], 8, None), "tile = "),
        ((32.5, 8, None), r"tile = 32\.5"),
        (([32, 48], 8, 32), r"tile = \[32, 48\] is not divisible by pad = 32"),
    ],
)
def test_settings_that_do_not_fit(given: tuple[Any, Any, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        tiling_of(*given)
    if given[0] != 32.5:
        with pytest.raises(SettingsError, match=words):
            wrap(PixelScorer(), tile=given[0], overlap=given[1], pad=given[2])
