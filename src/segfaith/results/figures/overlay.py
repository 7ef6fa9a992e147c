"""Heatmaps over photographs, as PNG pictures."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation

PREDICTED = (1.0, 0.86, 0.0)
"""Yellow, the colour of the predicted outline."""


def overlay(
    image: Any, heatmap: Any, target: Any = None, *, opacity: float = 0.55, colormap: str = "inferno"
) -> Image.Image:
    """The photograph in grey under the heatmap in colour, with the target's outline in white and black.

    Args:
        image: in [0, 1], (C, H, W), shown as `picture` does: a tensor or an array.
        heatmap: attribution in [0, 1], (H, W).
        target: a mask (H, W), something with a `region` (a `Target`), or None for no outline.
        opacity: of the colour, in [0, 1].
        colormap: a name of matplotlib's.

    Returns:
        A picture; `.save("map.png")` writes it.

    Raises:
        ValueError: image, heatmap and target differ in height or width.
    """
    (shown,) = overlays(image, [heatmap], target, opacity=opacity, colormap=colormap)
    return shown


def overlays(
    image: Any, heatmaps: Iterable[Any], target: Any = None, *, opacity: float = 0.55, colormap: str = "inferno"
) -> Iterator[Image.Image]:
    """`overlay` of several heatmaps over one image: what they share is made once."""
    photo = _channels(image)
    size = photo.shape[1:]
    region = None if target is None else _array(getattr(target, "region", target)).astype(bool)
    _expect("target", region, size)
    rings = [] if region is None else [(_ring(region, 2).nonzero(), 0.0), (_ring(region, 1).nonzero(), 255.0)]
    colours = colormaps[colormap]
    levels = (255 * opacity * colours(np.arange(colours.N))[:, :3]).astype(np.float32)
    grey = np.repeat(255 * (1 - opacity) * photo.mean(0)[..., None], 3, axis=2).astype(np.float32)
    for heatmap in heatmaps:
        values = _array(heatmap)
        _expect("heatmap", values, size)
        places = np.fmax(values * colours.N, 0)  # NaN has the colour of 0
        blended = levels.take(np.minimum(places, colours.N - 1).astype(np.intp), axis=0)
        blended += grey
        for ring, level in rings:
            blended[ring] = level
        yield Image.fromarray(blended.clip(0, 255, out=blended).round(out=blended).astype(np.uint8))


def outlined(image: Any, target: Any, evidence: Any = None, predicted: Any = None) -> Image.Image:
    """The image in its own colours with the target's outline in white and black.

    Args:
        image: in [0, 1], (C, H, W), shown as `picture` does.
        target: a mask (H, W).
        evidence: the planted evidence, a mask (H, W), outlined in cyan; None for no outline.
        predicted: what the model predicts as the target's class, a mask (H, W), outlined in dashes of yellow; None for
            no outline.
    """
    pixels = _colours(image)
    for mask, colour in ((target, (1.0, 1.0, 1.0)), (evidence, (0.0, 1.0, 1.0))):
        if mask is not None:
            region = _array(mask).astype(bool)
            pixels[_ring(region, 2)] = 0.0
            pixels[_ring(region, 1)] = colour
    if predicted is not None:
        ring = _ring(_array(predicted).astype(bool), 1)
        rows, columns = np.indices(ring.shape) // max(2, max(ring.shape) // 32)
        pixels[ring & ((rows + columns) % 2 == 0)] = PREDICTED
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def picture(image: Any, display: Sequence[int] | None = None) -> Image.Image:
    """An image in [0, 1], (C, H, W), as a picture.

    Args:
        display: the three channels, counted from 1, that are shown as red, green and blue; None: grey for one channel,
            the first in grey for two, the first three for more. An image of one channel is grey in any case.

    Raises:
        ValueError: `display` names a channel that the image lacks.
    """
    return Image.fromarray((_colours(image, display).clip(0, 1) * 255).round().astype(np.uint8))


def _colours(image: Any, display: Sequence[int] | None = None) -> NDArray[np.float64]:
    """What `picture` shows of an image (C, H, W), as (H, W, 3), for the caller to change."""
    return _channels(image, display).transpose(1, 2, 0).copy()


def _channels(image: Any, display: Sequence[int] | None = None) -> NDArray[np.float64]:
    """The three channels (3, H, W) that `picture` shows of an image (C, H, W); a copy."""
    values = _array(image).astype(np.float64)
    channels = [1, 1, 1] if len(values) < 3 else [1, 2, 3]
    if display is not None and len(values) > 1:
        channels = list(display)
    if not all(1 <= channel <= len(values) for channel in channels):
        raise ValueError(f"display = {channels}: expected channels from 1 to {len(values)}, which the image has")
    return values[[channel - 1 for channel in channels]]


def _expect(name: str, array: NDArray[Any] | None, size: tuple[int, ...]) -> None:
    if array is not None and array.shape != size:
        raise ValueError(f"{name} has shape {array.shape}; expected {size}, the image's (H, W)")


def _array(value: Any) -> NDArray[Any]:
    return np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)


def _ring(region: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """The pixels outside the region that are at most `width` steps away from it."""
    grown: NDArray[np.bool_] = binary_dilation(region, iterations=width)
    return grown & ~region
