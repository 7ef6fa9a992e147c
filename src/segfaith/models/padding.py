"""Images padded to sizes that a model takes: whole multiples of a number, as encoders that halve maps five times need.

Rows are added at the bottom and columns at the right, so that a pixel keeps its place. They mirror the image without
its border (`reflect`) where fewer are added than the image has, and else repeat its last row or column (`replicate`),
axis by axis. The padding is that of normalised images: both kinds only copy pixels, so that the order does not matter.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from segfaith.errors import SampleError, SegfaithError, SettingsError, words_of
from segfaith.types import Float, Tensor

OFFERED = (8, 16, 32, 64)
"""The multiples that are tried where a model fails on an image."""


def check_pad(pad: Any) -> None:
    """Lets None and whole numbers of at least 1 pass.

    Raises:
        SettingsError: anything else.
    """
    if pad is not None and (not isinstance(pad, int) or isinstance(pad, bool) or pad < 1):
        raise SettingsError(f"pad = {pad!r}: expected a whole number of pixels, of which sides become multiples")


def multiple_of(size: tuple[int, int], pad: int) -> tuple[int, int]:
    """The smallest height and width that `pad` divides and that are not below `size`."""
    return -(-size[0] // pad) * pad, -(-size[1] // pad) * pad


def pad_to(images: Float[Tensor, "*N H W"], size: tuple[int, int]) -> Float[Tensor, "*N h w"]:
    """Images with rows and columns added up to `size`, see the module; the same tensor where none are missing."""
    height, width = images.shape[-2:]
    below, right = size[0] - height, size[1] - width
    if not below and not right:
        return images
    batch = images if images.ndim == 4 else images[None]
    for amount, side, edges in ((below, height, (0, 0, 0, below)), (right, width, (0, right, 0, 0))):
        if amount:
            batch = F.pad(batch, edges, mode="reflect" if amount < side else "replicate")
    return batch if images.ndim == 4 else batch[0]


def reached(
    start: np.ndarray, stop: np.ndarray, size: tuple[int, int], padded: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes around what changes in a padded image where the image changes inside boxes.

    A change at pixel p changes its copy in the padding as well: with n pixels on an axis the mirror image 2n - 2 - p,
    or all of the padding where it repeats the last pixel.

    Args:
        start, stop: half-open boxes (B, 2) in the image.
        size, padded: of the image without and with the padding.
    """
    stop = stop.copy()
    for axis, (side, whole) in enumerate(zip(size, padded, strict=True)):
        if whole == side:
            continue
        if whole - side < side:
            first, last = 2 * side - 1 - stop[:, axis], 2 * side - 1 - start[:, axis]
            mirrored = (first < whole) & (last > side)
            stop[mirrored, axis] = np.minimum(last, whole)[mirrored]
        else:
            stop[stop[:, axis] == side, axis] = whole
    return start, stop


@contextmanager
def offered(fails: str, module: Callable[[Tensor], Any], inputs: Float[Tensor, "N bands H W"]) -> Iterator[None]:
    """The block runs a module; where it fails on inputs that it takes with padding, the error says so.

    Trials cost up to five passes: of the same inputs, since an error that does not come again is none of the size, and
    of inputs padded to odd multiples. There are none for a pass with gradients, where memory runs out, and for errors
    of segfaith's own.

    Args:
        fails: how the message begins.
        inputs: normalised images.

    Raises:
        SampleError: in place of the module's error, where padding helps.
    """
    try:
        yield
    except Exception as error:
        own = isinstance(error, SegfaithError)
        if own or "memory" in str(error).lower() or torch.is_grad_enabled() or _runs(module, inputs):
            raise
        size = (inputs.shape[-2], inputs.shape[-1])
        for pad in OFFERED:
            rows, columns = (-(-side // pad) | 1 for side in size)  # odd: else twice `pad` might be what helps
            larger = rows * pad, columns * pad
            if all(side % pad == 0 for side in size) or not _runs(module, pad_to(inputs, larger)):
                continue
            raise SampleError(
                f"{fails}: {words_of(error)}; it takes the same images padded from {size[0]} x {size[1]} to "
                f"{larger[0]} x {larger[1]}: say pad = {pad}, or choose tiles whose sides {pad} divides"
            ) from error
        raise


def _runs(module: Callable[[Tensor], Any], inputs: Tensor) -> bool:
    try:
        module(inputs)
    except Exception:
        return False
    return True
