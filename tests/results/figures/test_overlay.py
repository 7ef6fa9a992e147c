"""Outlines over photographs, pixel by pixel."""

import numpy as np

from segfaith.results.figures.overlay import outlined

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
