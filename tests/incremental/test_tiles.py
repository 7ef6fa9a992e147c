"""Scores of altered copies by tiles against those of whole images, blended anew."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from drops import evidence, loop
from exactness import photograph, scattered_images, target
from segfaith import wrap
from segfaith.batching import BatchSize, score_images
from segfaith.errors import SettingsError
from segfaith.evidence.regions import Regions
from segfaith.incremental.scorers import PlainScorer
from segfaith.incremental.scoring import scorer_for
from segfaith.incremental.tiles import TiledScorer
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import Scalar
from toys import PixelScorer

NETS = {"strided": zoo.plain_cnn, "residual": zoo.residual, "wide": zoo.aspp}


def tiled(module: nn.Module, tile: Any = 32, overlap: int = 8) -> SegmentationModel:
    return wrap(module, mean=(0, 0, 0), std=(1, 1, 1), tile=tile, overlap=overlap)


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("size", [(70, 90), (20, 70)], ids=str)
@pytest.mark.parametrize("kind", ["patch", "scattered"])
def test_tiles_score_as_whole_images(name: str, size: tuple[int, int], kind: str) -> None:
    """Drops of cells by the loop, and images altered everywhere; the smaller images are padded to a tile."""
    model = tiled(zoo.randomised(NETS[name]()))
    image, region = photograph(size), target(size, kind)
    drops = loop(model, image, region, 2, 4)
    assert np.abs(drops).max() > 1e-3
    for batch in (1, 5, 16):
        got = evidence(model, image, region, 2, Regions(4), batch)
        np.testing.assert_allclose(got, drops, rtol=0, atol=1e-5)
    scorer = scorer_for(model, image, region, Scalar(2))
    assert type(scorer) is TiledScorer
    assert scorer.path == "tiled: 32 x 32, overlap 8"
    altered = scattered_images(image)
    expected = PlainScorer(model, region, Scalar(2)).score(altered)
    torch.testing.assert_close(scorer.score(altered), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["logit", "margin", "log_odds", "conditional"])
def test_other_scores_of_tiles(kind: Any) -> None:
    model, size = tiled(zoo.randomised(zoo.plain_cnn()), [32, 48], 16), (50, 60)
    image, region, scalar = photograph(size), target(size, "patch"), Scalar(1, kind)
    copies = image.repeat(3, 1, 1, 1)
    start, stop = np.array([[0, 0], [30, 30], [49, 59]]), np.array([[20, 20], [45, 60], [50, 60]])
    for copy, (top, left), (bottom, right) in zip(copies, start, stop, strict=True):
        copy[:, top:bottom, left:right] = 0.9
    expected = PlainScorer(model, region, scalar).score(copies)
    got = scorer_for(model, image, region, scalar).score(copies, (start, stop))
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


class Counting(PixelScorer):
    """Counts the tiles of each pass."""

    def __init__(self) -> None:
        super().__init__()
        self.tiles: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.tiles.append(len(x))
        return super().forward(x)


def test_only_tiles_that_an_alteration_and_the_target_share_run() -> None:
    """70 x 90: tiles start at rows 0, 24, 38 and columns 0, 24, 48, 58. The target meets those of the last rows."""
    module = Counting()
    model, image = tiled(module), photograph((70, 90))
    region = torch.zeros(70, 90, dtype=torch.bool)
    region[60:70, 20:50] = True  # tiles (38, 0), (38, 24), (38, 48)
    scorer = scorer_for(model, image, region, Scalar(1))
    boxes = {
        "far above the target": ([0, 0], [30, 90], 0),
        "left": ([40, 0], [50, 10], 1),
        "in two": ([65, 25], [66, 30], 2),
        "everywhere": ([0, 0], [70, 90], 3),
        "right of all that reach the target": ([60, 85], [61, 86], 0),
    }
    scorer.score(image[None], (np.array([[40, 0]]), np.array([[41, 1]])))  # with the clean image's tiles
    assert sum(module.tiles) == 3 + 1
    for where, (start, stop, tiles) in boxes.items():
        module.tiles.clear()
        scorer.score(image[None], (np.array([start]), np.array([stop])))
        assert sum(module.tiles) == tiles, where
    module.tiles.clear()
    several = np.array([start for start, _, _ in boxes.values()]), np.array([stop for _, stop, _ in boxes.values()])
    scorer.score(image.repeat(5, 1, 1, 1), several)
    assert module.tiles == [5, 1], "in batches of as many tiles as copies"


def test_what_is_kept_is_the_target_box_alone() -> None:
    model, image = tiled(zoo.randomised(zoo.plain_cnn())), photograph((70, 90))
    region = torch.zeros(70, 90, dtype=torch.bool)
    region[40:44, 30:35] = True
    scorer = scorer_for(model, image, region, Scalar(1))
    assert isinstance(scorer, TiledScorer)
    scorer.score(image[None], (np.array([[0, 0]]), np.array([[1, 1]])))
    assert [values.untyped_storage().nbytes() for values in scorer._clean] == [
        4 * zoo.CLASSES * part.weight.numel() for part in scorer.parts
    ]
    assert max(part.weight.numel() for part in scorer.parts) <= 20


def test_a_large_image_is_scored_by_the_tiles_that_matter() -> None:
    """On 1024 x 2048, with tiles as users deploy them."""
    module = Counting()
    model, size = tiled(module, 512, 64), (1024, 2048)
    image, region = photograph(size), torch.zeros(size, dtype=torch.bool)
    region[400:700, 900:1100] = True
    start, stop = np.array([[440, 880], [0, 0], [600, 1000]]), np.array([[520, 1000], [100, 100], [640, 1100]])

    def build(numbers: Tensor) -> Tensor:
        copies = image.repeat(len(numbers), 1, 1, 1)
        for copy, number in zip(copies, numbers.tolist(), strict=True):
            (top, left), (bottom, right) = start[number], stop[number]
            copy[:, top:bottom, left:right] = 0.95
        return copies

    scorer = scorer_for(model, image, region, Scalar(1))
    got = score_images(scorer.score, build, 3, BatchSize(1), (start, stop))
    expected = score_images(PlainScorer(model, region, Scalar(1)).score, build, 3, BatchSize(1))
    assert float(expected.max() - expected.min()) > 1e-3
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


def test_other_precisions_need_a_graph() -> None:
    model, image = tiled(PixelScorer()), photograph((40, 40))
    with pytest.raises(SettingsError, match=r"precision 'bf16' needs .* \(the model runs on tiles\), so use 'fp32'"):
        scorer_for(model, image, torch.ones(40, 40, dtype=torch.bool), Scalar(1), "bf16")
