"""Gradient evidence of padded images and of tiles: by finite differences, and where cells lie on the canvas."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from exactness import photograph, target
from segfaith import Target, explain, wrap
from segfaith.attribution.cam import elementwise_cam
from segfaith.attribution.heatmap import minmax, upsample
from segfaith.batching import BatchSize
from segfaith.evidence.gradient import Objective, gradient_evidence
from segfaith.evidence.layer import altered, check_layer
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import Scalar
from segfaith.types import GradientEvidence
from toys import PixelScorer, SmallCNN

LAYER = "backbone.4"  # of stride 2


def small(**options: Any) -> SegmentationModel:
    return wrap(SmallCNN().double(), layer=LAYER, mean=(0, 0, 0), std=(1, 1, 1), **options)


def gathered(
    model: SegmentationModel, image: Tensor, region: Tensor, objective: Objective = "logits", batch: int = 4
) -> tuple[GradientEvidence, Tensor]:
    images, regions = torch.stack([image, image.flip(-1)]), torch.stack([region, region.flip(-1)])
    found, passed, _ = gradient_evidence(model, images, regions, Scalar(1), BatchSize(batch), objective=objective)
    return found, passed.score


def summed(
    model: SegmentationModel, image: Tensor, region: Tensor, objective: Objective, change: Callable[..., Tensor]
):  # type: ignore[no-untyped-def]
    """Y of the blended logits, where `change(tile, map)` stands for the layer's map of each tile."""
    tiles = iter(model.tiling.tiles(model.padded(image).shape[1:])) if model.tiling else iter([(slice(0, 0),) * 2])

    def run(images: Tensor) -> Tensor:
        tile = next(tiles)
        with altered(model, LAYER, 1, lambda output: change(tile, output)):
            return model.logits_at_once(model.module, images)

    with torch.no_grad():
        logits = model.framed(image[None], run)[0].double()
    if objective == "prob":
        return float(logits.softmax(0)[1][region].sum() / (region.sum() + 1e-6))
    return float(logits[1][region].sum())


@pytest.mark.parametrize("objective", ["logits", "prob"])
@pytest.mark.parametrize("size", [(70, 90), (24, 50)], ids=str)
def test_gradients_are_derivatives_of_the_blended_logits(size: tuple[int, int], objective: Objective) -> None:
    """At cells of one tile, of two and of four; and where the image was padded. Tiles begin at multiples of 2."""
    model = small(tile=32, overlap=8)
    image, region = photograph(size), target(size, "patch")
    found, _ = gathered(model, image, region, objective)
    rows, columns = max(size[0], 32) // 2, size[1] // 2
    assert found.gradient.shape[2:] == (rows, columns)
    for row, column in [
        (rows - 12, columns - 3),
        (rows - 6, columns - 11),
        (rows - 17, columns - 14),
        (11, 30),
        (0, 0),
    ]:
        row, column = row % rows, column % columns

        def moved(step: float, row: int = row, column: int = column) -> float:
            def change(tile: Any, output: Tensor) -> Tensor:
                top, left = tile[0].start // 2, tile[1].start // 2
                if 0 <= row - top < 16 and 0 <= column - left < 16:
                    output = output.clone()
                    output[0, 3, row - top, column - left] += step
                return output

            return summed(model, image, region, objective, change)

        slope = (moved(0.05) - moved(-0.05)) / 0.1
        assert float(found.gradient[0, 3, row, column]) == pytest.approx(slope, rel=2e-2, abs=2e-4)
    assert float(found.gradient.abs().max()) > (1e-2 if objective == "logits" else 1e-5)


def test_cells_of_tiles_lie_where_their_pixels_are() -> None:
    """The layer of stride 1 passes the image on, so that blended activations are the image itself."""
    model = wrap(PixelScorer(), layer="features", mean=(0, 0, 0), std=(1, 1, 1), tile=[32, 16], overlap=5)
    image, region = photograph((50, 41)), target((50, 41), "patch")
    found, _ = gathered(model, image, region)
    torch.testing.assert_close(found.activation[0], image, rtol=0, atol=1e-6)
    expected = region.float() * 8 / 3  # the gain of a channel
    torch.testing.assert_close(found.gradient[0], expected.expand(3, -1, -1), rtol=0, atol=1e-5)
    assert found.covered is None


def test_strides_that_do_not_fit_put_tiles_at_the_nearest_cell() -> None:
    """Tiles of 32 x 32 that begin at 0, 25 and 43 have maps of 4 x 4 cells: at 0, 3 (3.1) and 5 (5.4) of 9 (9.4)."""
    module = nn.Sequential(nn.AvgPool2d(8), nn.Conv2d(3, 2, 1))
    model = wrap(module, layer="0", mean=(0, 0, 0), std=(1, 1, 1), tile=32, overlap=7)
    found, _ = gathered(model, torch.linspace(0, 1, 75).expand(3, 75, 75), torch.ones(75, 75, dtype=torch.bool))
    assert found.activation.shape == (2, 3, 9, 9)
    centres = (torch.arange(9) * 75 / 9 + 75 / 18) / 75
    torch.testing.assert_close(found.activation[0, 0, 4], centres, rtol=0, atol=0.06)


def test_one_tile_is_the_image() -> None:
    image, region = photograph((40, 48)), target((40, 48), "patch")
    whole, one = small(), small(tile=[40, 48], overlap=0)
    for objective in ("logits", "prob"):
        (expected, s), (found, score) = (
            gathered(whole, image, region, objective),
            gathered(one, image, region, objective),
        )
        torch.testing.assert_close(found.gradient, expected.gradient, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(found.activation, expected.activation, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(score, s, rtol=0, atol=1e-6)


def test_batches_of_one_give_the_same() -> None:
    image, region = photograph((40, 50)), target((40, 50), "patch")
    several, single = (gathered(small(tile=32, overlap=8), image, region, batch=n)[0] for n in (4, 1))
    torch.testing.assert_close(several.gradient, single.gradient, rtol=1e-4, atol=1e-6)


def test_maps_of_padded_images_are_cropped_in_proportion() -> None:
    """The evidence is that of the padded image, whose maps are upsampled to its size and cropped."""
    size = (37, 50)
    image, region = photograph(size), target(size, "patch")
    padded, whole = small(pad=16), small()
    larger = padded.padded(image)
    everything = torch.zeros(48, 64, dtype=torch.bool)
    everything[:37, :50] = region
    found, expected = (
        gradient_evidence(model, images[None], regions[None], Scalar(1), BatchSize(1))[0]
        for model, images, regions in ((padded, image, region), (whole, larger, everything))
    )
    torch.testing.assert_close(found.gradient, expected.gradient)
    assert (found.size, found.covered) == (size, (48, 64))
    by_hand = upsample(elementwise_cam(expected, pool="mean", window=1), (48, 64))[:, :37, :50]
    heatmap = explain(padded, image, Target(1, region), ["ega"])["ega"]
    torch.testing.assert_close(heatmap, minmax(by_hand)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{"pad": 16}, {"tile": 32, "overlap": 8}])
def test_every_method_explains_with_padding_and_tiles(options: Any) -> None:
    size = (37, 50)
    image, region = photograph(size), target(size, "patch")
    methods = ["gpa", "ega", "ria@grid=3", "dea@grid=3", "ria@regions=superpixels,grid=3"]
    maps = explain(small(**options), image, Target(1, region), methods)
    for heatmap in maps.values():
        assert heatmap.shape == size
        assert float(heatmap.max()) == 1


def test_channels_last_maps_are_read_on_tiles() -> None:
    class Last(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.permute(0, 2, 3, 1).contiguous()

    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Identity()
            self.last = Last()
            self.head = nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.last(self.first(x) * 1).permute(0, 3, 1, 2))
            return out

    module, image, region = Reads(), photograph((70, 90)), Target(1, target((70, 90), "patch"))
    twins = [
        wrap(module, layer=layer, mean=(0, 0, 0), std=(1, 1, 1), channels=3, tile=32, overlap=8)
        for layer in ("last", "first")
    ]
    check_layer(twins[0], "last", image)
    assert twins[0].layer_notes["last"].startswith("channels last (1, 32, 32, 3)")
    maps = [explain(model, image, region, ["ega"])["ega"] for model in twins]
    torch.testing.assert_close(maps[0], maps[1], rtol=0, atol=1e-6)


def test_a_layer_that_no_logit_reads_is_refused_on_tiles() -> None:
    class Aside(SmallCNN):
        def __init__(self) -> None:
            super().__init__()
            self.aside = nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            self.aside(x)
            return super().forward(x)

    model = wrap(Aside(), layer="aside", mean=(0, 0, 0), std=(1, 1, 1), tile=32, overlap=8)
    with pytest.raises(ValueError, match="the logits do not depend on layer 'aside'"):
        gathered(model, photograph((40, 50)), target((40, 50), "patch"))
