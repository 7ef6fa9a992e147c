"""Windows of feature maps: what an alteration of the image can have changed, and how it grows through a layer.

Coordinates are (row, column) pairs of integers along the last axis; intervals are half-open.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from segfaith.scores import sent
from segfaith.types import Float, Tensor

Pairs = NDArray[np.int64]
"""Integers of shape (2,) or, one pair for each image, (B, 2)."""


@dataclass(frozen=True, eq=False)
class Box:
    """A rectangle of a feature map: rows start[0] to stop[0], columns start[1] to stop[1]."""

    start: Pairs
    stop: Pairs

    @property
    def size(self) -> Pairs:
        """Rows and columns."""
        return self.stop - self.start

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
        """From the first input row that an output row reads to the last one."""
        return (self.size - 1) * self.dilation

    def reads(self, start: Pairs, size: Pairs) -> tuple[Pairs, Pairs]:
        """Start and size of the input that an output window reads; it may reach into the padding."""
        return start * self.stride - self.padding, (size - 1) * self.stride + self.reach + 1

    def outputs(self, extent: Pairs) -> Pairs:
        """Rows and columns of the output of a whole map."""
        return (extent + 2 * self.padding - self.reach - 1) // self.stride + 1

    def changes(self, start: Pairs, stop: Pairs) -> tuple[Pairs, Pairs]:
        """Start and stop of the output that reads an input window."""
        return -((self.reach - self.padding - start) // self.stride), (stop - 1 + self.padding) // self.stride + 1


@dataclass(frozen=True, eq=False)
class Windows:
    """One window, all of one size, of a feature map of each of B altered images: outside it the clean map holds.

    Attributes:
        data: (B, C, h, w), channels last in memory.
        start: (B, 2), first row and column in the whole map.
    """

    data: Float[Tensor, "B C h w"]
    start: Pairs

    @property
    def size(self) -> Pairs:
        """Rows and columns of a window."""
        return np.array(self.data.shape[2:])

    @property
    def stop(self) -> Pairs:
        """(B, 2), one past the last row and column."""
        return self.start + self.size


def whole(data: Float[Tensor, "B C H W"]) -> Windows:
    """Maps that may have changed anywhere."""
    return Windows(data, np.zeros((len(data), 2), dtype=np.int64))


def common(start: Pairs) -> bool:
    """Whether the windows of all images lie at the same place."""
    return bool((start == start[0]).all())


def place(start: Pairs, stop: Pairs, within: Box) -> tuple[Pairs, Pairs]:
    """Starts (B, 2) and the one size of windows inside `within` that hold [start, stop) as far as it lies there."""
    start, stop = np.maximum(start, within.start), np.minimum(stop, within.stop)
    size = np.maximum((stop - start).max(0), 1)
    return np.clip(start, within.start, within.stop - size), size


def crop(windows: Windows, shape: Pairs, start: Pairs, size: Pairs) -> tuple[Tensor, Pairs, Pairs] | None:
    """Cuts one rectangle, the same for all images, out of windows that hold it as far as it lies in the map.

    Returns:
        The part inside the map, and the rows and columns by which the rectangle exceeds the map before and after it;
        None where the windows do not hold it or the images differ.
    """
    if not (common(start) and common(windows.start)):
        return None
    first, last = np.maximum(start[0], 0), np.minimum(start[0] + size, shape)
    at = first - windows.start[0]
    if (at < 0).any() or (last > windows.stop[0]).any() or (last <= first).any():
        return None
    (top, left), (rows, columns) = at.tolist(), (last - first).tolist()
    return windows.data[:, :, top : top + rows, left : left + columns], first - start[0], start[0] + size - last


def view(windows: Windows, clean: Tensor | None, shape: Pairs, start: Pairs, size: Pairs, fill: float) -> Tensor:
    """The maps of the altered images at other windows: `windows` where they hold them, `clean` elsewhere.

    Args:
        clean: (1, C, H, W), the clean image's map; not read where the windows hold everything.
        shape: H and W.
        start, size: (B, 2) and (2,); windows may reach beyond the map, where `fill` stands.
    """
    if (size == windows.size).all() and (start == windows.start).all():
        return windows.data
    found = crop(windows, shape, start, size)
    if found is not None:
        part, before, after = found
        if before.any() or after.any():
            part = F.pad(part, (int(before[1]), int(after[1]), int(before[0]), int(after[0])), value=fill)
        return part
    images, channels = windows.data.shape[:2]
    rows, columns = (start[:, axis, None] + np.arange(size[axis]) for axis in (0, 1))
    in_map = _grid(np.logical_and, (rows >= 0) & (rows < shape[0]), (columns >= 0) & (columns < shape[1]))
    index = np.where(in_map, _grid(np.add, rows * shape[1], columns), shape.prod())
    inner_rows, inner_columns = (at - windows.start[:, axis, None] for axis, at in ((0, rows), (1, columns)))
    height, width = windows.size
    held = _grid(
        np.logical_and, (inner_rows >= 0) & (inner_rows < height), (inner_columns >= 0) & (inner_columns < width)
    )
    inner = _grid(np.add, inner_rows * width, inner_columns) + np.arange(images)[:, None, None] * height * width
    index = np.where(held & in_map, shape.prod() + 1 + inner, index)
    if clean is None:
        clean = windows.data.new_zeros(1, channels, *shape.tolist())
    return _gathered([clean, windows.data.new_full((1, channels, 1, 1), fill), windows.data], index)


def cut(clean: Float[Tensor, "1 C H W"], start: Pairs, size: Pairs, fill: float = 0.0) -> Float[Tensor, "_ C h w"]:
    """One map at windows as those of `view`; where all lie at the same place, once for all of them."""
    shape = np.array(clean.shape[2:])
    if common(start):
        return view(whole(clean), None, shape, start[:1], size, fill)
    if (start < 0).any() or (start + size > shape).any():
        nothing = Windows(clean.new_empty(len(start), clean.shape[1], 0, 0), np.zeros_like(start))
        return view(nothing, clean, shape, start, size, fill)
    rows, columns = (start[:, axis, None] + np.arange(size[axis]) for axis in (0, 1))
    return _gathered([clean], _grid(np.add, rows * shape[1], columns))


def _grid(combine: np.ufunc, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """(B, h) and (B, w) to (B, h, w)."""
    result: np.ndarray = combine(rows[:, :, None], columns[:, None, :])
    return result


def _gathered(maps: list[Tensor], index: NDArray[np.int64]) -> Float[Tensor, "B C h w"]:
    """The pixels of those numbers (B, h, w), counted through all maps."""
    pixels = _pixels(maps[0]) if len(maps) == 1 else torch.cat([_pixels(one) for one in maps])
    gathered = pixels.index_select(0, sent(torch.from_numpy(index.ravel()), pixels.device))
    return gathered.view(*index.shape, -1).permute(0, 3, 1, 2)


def _pixels(data: Float[Tensor, "B C h w"]) -> Float[Tensor, "P C"]:
    """One row for each pixel, free of charge where memory is channels last."""
    return data.permute(0, 2, 3, 1).reshape(-1, data.shape[1])
