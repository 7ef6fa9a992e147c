"""Windows of feature maps: which part of a layer's map may differ from that of the clean image.

Coordinates are (row, column) pairs of integers along the last axis; intervals are half-open.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from segfaith.scores import sent
from segfaith.types import Float, Tensor

NEARLY_ALL = 0.7
"""Windows that cover this share of what a layer must compute become all of it. Then they need no gathering."""

Pairs = NDArray[np.int64]
"""Integers of shape (2,) or, with a pair for each image, (B, 2)."""


@dataclass(frozen=True, eq=False)
class Box:
    """A rectangle of a feature map: rows start[0] to stop[0], columns start[1] to stop[1]."""

    start: Pairs
    stop: Pairs

    @property
    def size(self) -> Pairs:
        """Rows and columns."""
        return self.stop - self.start

    def starts(self, images: int) -> Pairs:
        """The start for each of B images, (B, 2)."""
        return np.broadcast_to(self.start, (images, 2))

    def hull(self, other: "Box | None") -> "Box":
        """The smallest box around both."""
        if other is None:
            return self
        return Box(np.minimum(self.start, other.start), np.maximum(self.stop, other.stop))


@dataclass(frozen=True, eq=False)
class Kernel:
    """The geometry of a convolution or pooling: pairs for kernel size, stride, padding and dilation."""

    size: Pairs
    stride: Pairs
    padding: Pairs
    dilation: Pairs

    @property
    def reach(self) -> Pairs:
        """From the first input row that an output row reads to the last."""
        return (self.size - 1) * self.dilation

    def reads(self, start: Pairs, size: Pairs) -> tuple[Pairs, Pairs]:
        """Start and size of the input that an output window reads; it may reach into the padding."""
        return start * self.stride - self.padding, (size - 1) * self.stride + self.reach + 1

    def outputs(self, extent: Pairs, padding: Pairs) -> Pairs:
        """Rows and columns of the output for an input of `extent` rows and columns, padded on each side."""
        return (extent + 2 * padding - self.reach - 1) // self.stride + 1

    def changes(self, start: Pairs, stop: Pairs) -> tuple[Pairs, Pairs]:
        """Start and stop of the output that reads an input window."""
        return -((self.reach - self.padding - start) // self.stride), (stop - 1 + self.padding) // self.stride + 1


@dataclass(frozen=True, eq=False)
class Windows:
    """A window of a layer's map for each of B altered images. Outside its window a map equals the clean image's.

    Attributes:
        data: (B, C, h, w), channels last in memory; all windows have the same size.
        start: (B, 2), a window's first row and column in the whole map.
        map_size: rows and columns of the whole map.
    """

    data: Float[Tensor, "B C h w"]
    start: Pairs
    map_size: Pairs

    @property
    def size(self) -> Pairs:
        """Rows and columns of a window."""
        return np.array(self.data.shape[2:])

    @property
    def stop(self) -> Pairs:
        """(B, 2), the first row and column after the window."""
        return self.start + self.size

    @property
    def is_whole(self) -> bool:
        """Whether the windows are whole maps."""
        return self.data.shape[2:] == tuple(self.map_size.tolist())


def whole(data: Float[Tensor, "B C H W"]) -> Windows:
    """Whole maps as windows."""
    return Windows(data, np.zeros((len(data), 2), dtype=np.int64), np.array(data.shape[2:]))


def common(start: Pairs) -> bool:
    """Whether the windows of all images lie at the same place."""
    return bool((start == start[0]).all())


def place(start: Pairs, stop: Pairs, within: Box) -> tuple[Pairs, Pairs]:
    """Windows of one size that cover the part of [start, stop) inside `within`: their starts (B, 2) and that size.

    Where they would cover `NEARLY_ALL` of it, they are all of `within`.
    """
    start, stop = np.maximum(start, within.start), np.minimum(stop, within.stop)
    size = np.maximum((stop - start).max(0), 1)
    if size.prod() >= NEARLY_ALL * within.size.prod():
        size = within.size
    return np.clip(start, within.start, within.stop - size), size


def crop(windows: Windows, start: Pairs, size: Pairs) -> tuple[Tensor, Pairs, Pairs] | None:
    """A rectangle of the maps that lies at the same place in all images and inside their windows, without a copy.

    The rectangle may exceed the map; only its part inside the map is cut.

    Returns:
        The part inside the map, and how many rows and columns of the rectangle lie before and after the map; None where
        the windows do not cover that part, or where the places differ.
    """
    if not (common(start) and common(windows.start)):
        return None
    first, last = np.maximum(start[0], 0), np.minimum(start[0] + size, windows.map_size)
    at = first - windows.start[0]
    if (at < 0).any() or (last > windows.stop[0]).any() or (last <= first).any():
        return None
    (top, left), (rows, columns) = at.tolist(), (last - first).tolist()
    return windows.data[:, :, top : top + rows, left : left + columns], first - start[0], start[0] + size - last


def pad(part: Float[Tensor, "B C h w"], before: Pairs, after: Pairs, fill: float = 0.0) -> Float[Tensor, "B C _ _"]:
    """Maps with `fill` in rows and columns before and after them."""
    return F.pad(part, (int(before[1]), int(after[1]), int(before[0]), int(after[0])), value=fill)


def view(
    windows: Windows, clean: Float[Tensor, "1 C H W"] | None, start: Pairs, size: Pairs, fill: float = 0.0
) -> Float[Tensor, "B C _ _"]:
    """The maps of the altered images at other windows: `windows` where they cover them, `clean` elsewhere.

    Args:
        clean: the clean image's map, or None for zeros; then `fill` is 0 too.
        start, size: (B, 2) and (2,); windows may reach beyond the map, where `fill` stands.
    """
    if (size == windows.size).all() and (start == windows.start).all():
        return windows.data
    cropped = crop(windows, start, size)
    if cropped is not None:
        part, before, after = cropped
        return pad(part, before, after, fill) if before.any() or after.any() else part
    images, channels = windows.data.shape[:2]
    shape, (height, width) = windows.map_size, windows.size
    rows, columns = (start[:, axis, None] + np.arange(size[axis]) for axis in (0, 1))
    in_map = _grid(np.logical_and, (rows >= 0) & (rows < shape[0]), (columns >= 0) & (columns < shape[1]))
    inner_rows, inner_columns = (at - windows.start[:, axis, None] for axis, at in ((0, rows), (1, columns)))
    held = in_map & _grid(
        np.logical_and, (inner_rows >= 0) & (inner_rows < height), (inner_columns >= 0) & (inner_columns < width)
    )
    inner = _grid(np.add, inner_rows * width, inner_columns) + np.arange(images)[:, None, None] * height * width
    if clean is None:
        nothing = windows.data.new_zeros(1, channels, 1, 1)
        return _gathered([nothing, windows.data], np.where(held, 1 + inner, 0))
    outside = windows.data.new_full((1, channels, 1, 1), fill)
    index = np.where(in_map, _grid(np.add, rows * shape[1], columns), shape.prod())
    return _gathered([clean, outside, windows.data], np.where(held, shape.prod() + 1 + inner, index))


def cut(clean: Float[Tensor, "1 C H W"], start: Pairs, size: Pairs, fill: float = 0.0) -> Float[Tensor, "_ C h w"]:
    """The clean map at windows as those of `view`: (1, C, h, w) where all lie at the same place, else (B, C, h, w)."""
    shape = np.array(clean.shape[2:])
    if common(start):
        return view(whole(clean), None, start[:1], size, fill)
    if (start < 0).any() or (start + size > shape).any():
        nothing = Windows(clean.new_empty(len(start), clean.shape[1], 0, 0), np.zeros_like(start), shape)
        return view(nothing, clean, start, size, fill)
    return _gathered([clean], pixel_numbers(start, size, shape))


def pixel_numbers(start: Pairs, size: Pairs, map_size: Pairs) -> NDArray[np.int64]:
    """The numbers (B, h, w) of a whole map's pixels, counted by rows, in windows that lie inside it."""
    rows, columns = (start[:, axis, None] + np.arange(size[axis]) for axis in (0, 1))
    return _grid(np.add, rows * map_size[1], columns)


def _grid(combine: np.ufunc, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Combines every row (B, h) with every column (B, w): (B, h, w)."""
    result: np.ndarray = combine(rows[:, :, None], columns[:, None, :])
    return result


def _gathered(maps: list[Tensor], index: NDArray[np.int64]) -> Float[Tensor, "B C h w"]:
    """The pixels with the numbers `index` (B, h, w). Numbers count through the pixels of all maps in turn."""
    pixels = _pixels(maps[0]) if len(maps) == 1 else torch.cat([_pixels(data) for data in maps])
    gathered = pixels.index_select(0, sent(torch.from_numpy(index.ravel()), pixels.device))
    return gathered.view(*index.shape, -1).permute(0, 3, 1, 2)


def _pixels(data: Float[Tensor, "B C h w"]) -> Float[Tensor, "P C"]:
    """A row for each pixel; no copy where memory is channels last."""
    return data.permute(0, 2, 3, 1).reshape(-1, data.shape[1])
