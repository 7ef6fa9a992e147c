"""Outlines over photographs, pixel by pixel."""

from pathlib import Path

import numpy as np
import pytest
import torch

import segfaith
from segfaith.results.figures.overlay import outlined, overlay, picture

WHITE, BLACK, CYAN, YELLOW = (255, 255, 255), (0, 0, 0), (0, 255, 255), (255, 219, 0)


def mask(size: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    result = np.zeros(size, dtype=bool)
    result[rows, columns] = True
    return result


def away(region: np.ndarray, y: int, x: int) -> int:
    """Steps from a pixel to the nearest one of the region."""
    return min(abs(y - v) + abs(x - u) for v, u in np.argwhere(region))


def test_outlines_pixel_by_pixel() -> None:
    """One ring in colour around each region, a black one around that, and the image's own colours elsewhere."""
    size = (20, 24)
    image = np.random.default_rng(0).uniform(0.2, 0.8, (3, *size))
    target, evidence = mask(size, slice(4, 9), slice(3, 8)), mask(size, slice(12, 15), slice(16, 19))
    pixels = np.asarray(outlined(image, target, evidence))
    for y, x in np.ndindex(size):
        expected = tuple((image[:, y, x] * 255).round().astype(int))
        for region, colour in ((target, WHITE), (evidence, CYAN)):
            expected = {1: colour, 2: BLACK}.get(away(region, y, x), expected)
        assert tuple(pixels[y, x]) == expected, (y, x)
    bare = np.asarray(outlined(image, target))
    assert not (bare == CYAN).all(-1).any()
    np.testing.assert_array_equal(bare[:, :12], pixels[:, :12])


def test_the_prediction_is_outlined_in_dashes_that_leave_the_rest_as_it_was() -> None:
    size = (20, 24)
    image = np.random.default_rng(0).uniform(0.2, 0.8, (3, *size))
    target, predicted = mask(size, slice(4, 9), slice(3, 8)), mask(size, slice(4, 14), slice(3, 18))
    without, pixels = np.asarray(outlined(image, target)), np.asarray(outlined(image, target, None, predicted))
    changed = (without != pixels).any(-1)
    ring = np.array([[away(predicted, y, x) == 1 for x in range(size[1])] for y in range(size[0])])
    assert not (changed & ~ring).any()
    assert 0.3 < changed[ring].mean() < 0.7
    assert (pixels[changed] == YELLOW).all()
    same = np.asarray(outlined(image, target, None, target))
    colours = {tuple(pixel) for pixel in same[2:11, 1:10].reshape(-1, 3).tolist()}
    assert {WHITE, YELLOW} <= colours


def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A colourful image (3, 20, 30), a map that is 0 left and 1 right, and a square target."""
    image = np.random.default_rng(0).random((3, 20, 30))
    heatmap = np.zeros((20, 30))
    heatmap[:, 15:] = 1
    target = np.zeros((20, 30), dtype=bool)
    target[6:12, 8:14] = True
    return image, heatmap, target


def test_overlay_blends_grey_and_colour() -> None:
    """0.45 of the photograph's grey, 0.55 of inferno's first or last colour."""
    image, heatmap, _ = arrays()
    shown = np.asarray(overlay(image, heatmap)).astype(float)
    assert shown.shape == (20, 30, 3)
    grey = image.mean(0)[..., None].repeat(3, 2)
    low, high = np.array([0.001462, 0.000466, 0.013866]), np.array([0.988362, 0.998364, 0.644924])
    expected = 0.45 * grey + 0.55 * np.where(heatmap[..., None] == 0, low, high)
    np.testing.assert_allclose(shown / 255, expected, atol=0.5 / 255 + 1e-6)


def test_overlay_draws_the_outline_outside_the_target_white_then_black() -> None:
    image, heatmap, target = arrays()
    plain = np.asarray(overlay(image, heatmap))
    outlined = np.asarray(overlay(image, heatmap, target))
    for y in range(20):
        for x in range(30):
            steps = min(abs(y - v) + abs(x - u) for v in range(6, 12) for u in range(8, 14))
            if steps == 1:
                assert tuple(outlined[y, x]) == (255, 255, 255), (y, x)
            elif steps == 2:
                assert tuple(outlined[y, x]) == (0, 0, 0), (y, x)
            else:
                assert np.array_equal(outlined[y, x], plain[y, x]), (y, x)


def test_overlay_takes_tensors_arrays_and_targets_alike(tmp_path: Path) -> None:
    image, heatmap, target = arrays()
    tensors = torch.from_numpy(image).float(), torch.from_numpy(heatmap).float().requires_grad_()
    as_target = segfaith.Target(1, torch.from_numpy(target))
    shown = overlay(*tensors, as_target)
    assert shown.size == (30, 20), "Pillow's size is (width, height)"
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(overlay(image, heatmap, target)).astype(int)).max() <= 1
    shown.save(tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 0


def test_overlay_opacity_and_colours_can_be_chosen() -> None:
    image, heatmap, _ = arrays()
    grey = np.asarray(overlay(image, heatmap, opacity=0.0)).astype(float)
    np.testing.assert_allclose(grey / 255, image.mean(0)[..., None].repeat(3, 2), atol=0.5 / 255 + 1e-6)
    colour = np.asarray(overlay(image, heatmap, opacity=1.0, colormap="gray"))
    assert np.array_equal(colour, np.where(heatmap[..., None] == 0, 0, 255).repeat(3, 2))


def test_overlay_of_sizes_that_disagree_is_an_error() -> None:
    image, heatmap, target = arrays()
    with pytest.raises(ValueError, match=r"heatmap has shape \(20, 29\); expected \(20, 30\), the image's \(H, W\)"):
        overlay(image, heatmap[:, :-1])
    with pytest.raises(ValueError, match=r"target has shape \(30, 20\); expected \(20, 30\)"):
        overlay(image, heatmap, target.T)


def test_picture_is_the_image_itself() -> None:
    values = np.random.default_rng(1).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    image = torch.from_numpy(values.transpose(2, 0, 1).copy()).float() / 255
    assert np.array_equal(np.asarray(picture(image)), values)


@pytest.mark.parametrize(
    ("count", "display", "shown"),
    [
        (1, None, [0, 0, 0]),
        (2, None, [0, 0, 0]),
        (3, None, [0, 1, 2]),
        (5, None, [0, 1, 2]),
        (5, [4, 3, 2], [3, 2, 1]),
        (2, (2, 1, 2), [1, 0, 1]),
        (1, [4, 3, 2], [0, 0, 0]),
    ],
)
def test_pictures_of_any_channels(count: int, display: list[int] | None, shown: list[int]) -> None:
    values = np.random.default_rng(count).integers(0, 256, (count, 5, 7)).astype(np.uint8)
    image = torch.from_numpy(values).float() / 255
    made = picture(image, display)
    assert made.mode == "RGB"
    assert np.array_equal(np.asarray(made), values[shown].transpose(1, 2, 0))


@pytest.mark.parametrize("display", [[3, 2, 1], [0, 1, 1]])
def test_a_picture_of_channels_that_the_image_lacks_is_an_error(display: list[int]) -> None:
    with pytest.raises(
        ValueError, match=rf"display = \[{display[0]}, .*: expected channels from 1 to 2, which the image"
    ):
        picture(np.zeros((2, 4, 4)), display)


def test_overlays_and_outlines_of_other_channels_are_those_of_their_pictures() -> None:
    _, heatmap, target = arrays()
    image = np.random.default_rng(3).uniform(size=(4, 20, 30))
    for channels in ([0], [0, 1], [0, 1, 2, 3]):
        seen = image[[0, 0, 0]] if len(channels) < 3 else image[:3]
        for made in (lambda array: overlay(array, heatmap, target), lambda array: outlined(array, target)):
            assert np.array_equal(np.asarray(made(image[channels])), np.asarray(made(seen)))
