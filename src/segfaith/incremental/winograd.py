"""3 x 3 convolutions with half of the multiplications: Winograd's F(4, 3) along the rows.

Four neighbouring outputs of three taps take six products instead of twelve (Lavin & Gray, CVPR 2016, "Fast algorithms
for convolutional neural networks"). Done along the rows only, the columns stay six convolutions with 1 x 3 kernels, so
that dilation and padding of columns come for free and rounding stays within about three times that of the plain sum.
Rows of a dilated kernel fall into as many separate images as its dilation.
"""

import torch
from torch.nn import functional as F

from segfaith.incremental.windows import Kernel, Pairs
from segfaith.types import Tensor

FILTERS = torch.tensor(
    [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64
).div_(24)
"""Six products' factors from three taps."""
CHANNELS = 256
"""Fewer channels, in or out, do not pay for the sums before and after the products."""
MOST = 0.6
"""Nor do they pay where more than this share of the products is left, since rows do not fill blocks of four."""


def pays(kernel: Kernel, weight: Tensor, groups: int, size: Pairs) -> bool:
    """Whether a convolution with `size` outputs is faster by these products than by the plain sum."""
    if groups > 1 or kernel.stride.max() > 1 or kernel.size.tolist() != [3, 3]:
        return False
    if min(weight.shape[:2]) < CHANNELS or weight.device.type != "cpu":
        return False
    dilation, rows = int(kernel.dilation[0]), int(size[0])
    return 2 * dilation * _blocks(rows, dilation) <= MOST * rows


def _blocks(rows: int, dilation: int) -> int:
    """How many blocks of four outputs each image has; `rows` outputs fall into as many images as the dilation."""
    return -(-rows // (4 * dilation))


def transformed(weight: Tensor) -> list[Tensor]:
    """The six kernels (K, C, 1, 3) of weights (K, C, 3, 3)."""
    products = torch.einsum("ir,kcrs->ikcs", FILTERS, weight.double()).to(weight.dtype)
    return [factors[:, :, None].contiguous(memory_format=torch.channels_last) for factors in products]


def convolve_rows(
    kernel: Kernel, row_weights: list[Tensor], bias: Tensor | None, data: Tensor, padding: Pairs, size: Pairs
) -> Tensor:
    """The convolution with stride 1 and `size` outputs.

    Args:
        row_weights: from `transformed`.
        data: (B, C, H, W); without a copy where channels are last in memory.
        padding: rows and columns of zeros on each side.
    """
    dilation, (images, channels, height, width) = int(kernel.dilation[0]), data.shape
    above, beside = padding.tolist()
    blocks = _blocks(int(size[0]), dilation)
    below = (4 * blocks + 2) * dilation - above - height
    padded = F.pad(data.permute(0, 2, 3, 1), (0, 0, 0, 0, above, below))
    rows = padded.reshape(images, 4 * blocks + 2, dilation, width, channels)
    x = [rows[:, first : first + 4 * blocks - 3 : 4] for first in range(6)]
    even, odd = torch.add(x[4], x[2], alpha=-4), torch.add(x[3], x[1], alpha=-4)
    near, far = x[4] - x[2], x[3] - x[1]
    inputs = [
        torch.add(even - x[2], x[0], alpha=4),
        even + odd,
        even - odd,
        torch.add(near, far, alpha=2),
        torch.add(near, far, alpha=-2),
        torch.add(torch.add(x[5], x[3], alpha=-5), x[1], alpha=4),
    ]
    products = [
        F.conv2d(
            block_rows.reshape(images, blocks * dilation, width, channels).permute(0, 3, 1, 2),
            weight,
            padding=(0, beside),
            dilation=(1, int(kernel.dilation[1])),
        ).permute(0, 2, 3, 1)
        for block_rows, weight in zip(inputs, row_weights, strict=True)
    ]
    m = [product.reshape(images, blocks, dilation, *product.shape[2:]) for product in products]
    inner, inner_odd, outer, outer_odd = m[1] + m[2], m[1] - m[2], m[3] + m[4], m[3] - m[4]
    result = data.new_empty(images, blocks, 4, *m[0].shape[2:])
    torch.add(m[0] + inner, outer, out=result[:, :, 0])
    torch.add(inner_odd, outer_odd, alpha=2, out=result[:, :, 1])
    torch.add(inner, outer, alpha=4, out=result[:, :, 2])
    torch.add(inner_odd + m[5], outer_odd, alpha=8, out=result[:, :, 3])
    if bias is not None:
        result += bias
    return result.flatten(1, 3)[:, : int(size[0])].permute(0, 3, 1, 2)
