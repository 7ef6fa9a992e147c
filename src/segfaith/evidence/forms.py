"""The form of a layer's output: how feature maps (N, K, h, w) are read from it.

| output | read as |
|---|---|
| (N, K, h, w) | it is |
| (N, h, w, K), channels last | its axes are moved |
| (N, L, C), tokens | the leading tokens (class, registers) are dropped, the others laid out row by row |
| any, with `reshape` of the model | the user's function |

Every form picks values and computes none. So the maps of the gradient are the gradient of the maps.
"""

from dataclasses import dataclass
from math import isqrt, prod
from typing import Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from segfaith.errors import SettingsError, words_of
from segfaith.models.layers import Reshape
from segfaith.models.outputs import SMALL_MAP, misfit
from segfaith.models.segmentation import Tokens
from segfaith.types import Float, Tensor

Size = tuple[int, int]
Shape = tuple[int, ...]
MOST_LEADING = 8
"""How many leading tokens `tokens = "auto"` looks for: a class token, and registers (Darcet et al. 2024)."""
REMEDY = (
    "name another layer, say tokens = the number of leading tokens, or give reshape, see 'Layers of another shape' in "
    "docs/extending.md"
)


@dataclass(frozen=True)
class Form:
    """How a layer's output becomes maps, see the module.

    Attributes:
        leading: how many leading tokens are dropped.
        square: whether the tokens' grid is square whatever the image, as where a model resizes its images.
        words: what is done, for people; empty for maps that stay as they are.
    """

    kind: Literal["maps", "channels last", "tokens", "reshape"]
    leading: int = 0
    square: bool = False
    reshape: Reshape | None = None
    words: str = ""

    def maps(self, output: Tensor, size: Size) -> Float[Tensor, "N K h w"]:
        """The maps in a layer's output for images of `size`.

        Raises:
            SettingsError: tokens that fill no grid of the image's aspect, or more than one.
        """
        if self.reshape is not None:
            return self.reshape(output)
        if self.kind == "channels last":
            return output.permute(0, 3, 1, 2)
        if self.kind == "maps":
            return output
        count = output.shape[1] - self.leading
        grids = (
            [(isqrt(count),) * 2] if self.square else [grid for grid in _grids(size).values() if prod(grid) == count]
        )
        if len(set(grids)) != 1 or prod(grids[0]) != count:
            raise SettingsError(
                f"{output.shape[1]} tokens without {self.leading} leading tokens fill no single grid for an image of "
                f"{size[0]} x {size[1]}: {_listed([(self.leading, *grid) for grid in grids])}; {REMEDY}"
            )
        patches = output[:, self.leading :].transpose(1, 2)
        return patches.reshape(*patches.shape[:2], *grids[0])


def convolves(layer: nn.Module) -> bool:
    """Whether a layer's weights are those of convolutions and of their norms alone, which have the channels second."""
    owners = [part for part in layer.modules() if next(part.parameters(recurse=False), None) is not None]
    return bool(owners) and all(isinstance(owner, _ConvNd | _NormBase | nn.GroupNorm) for owner in owners)


def form_of(
    shapes: list[Shape], size: Size, tokens: Tokens, reshape: Reshape | None, *, convolves: bool = False
) -> Form | str:
    """The form of a layer's output, or why it has none, by its shapes for an image and, if known, one twice as wide.

    Without the second, a map must have the image's aspect or be square, and tokens must fill a single grid.

    Args:
        shapes: for the image, and for the wider image if the model takes it.
        size: the image's (H, W).
        convolves: see `convolves`; decides where the shapes leave open which axis the channels are.
    """
    if reshape is not None:
        return _reshaped(shapes, size, reshape)
    if len(shapes[0]) == 3:
        return _tokens(shapes, size, tokens)
    right, last = _axes(shapes, size)
    if right and last and not convolves and min(shapes[0][1:3]) > SMALL_MAP:
        return (
            f"{_came(shapes, size)}, of which the last axis or the second may be the channels: the model takes images "
            "of a single size, so that no wider one tells"
        )
    if right:
        return Form("maps")
    if last:
        _, height, width, channels = shapes[0]
        return Form("channels last", words=f"channels last {shapes[0]}, read as {channels} maps of {height} x {width}")
    return f"{_came(shapes, size)}; expected (1, channels, h, w)"


def _axes(shapes: list[Shape], size: Size) -> tuple[bool, bool]:
    """Whether four axes may be (N, K, h, w), and whether they may be (N, h, w, K)."""
    (_, second, third, fourth), wide = shapes[0], shapes[-1]
    if len(shapes) > 1 and wide != shapes[0]:
        right = wide[:3] == shapes[0][:3] and wide[3] > fourth
        grows = (wide[1], wide[3]) == (second, fourth) and wide[2] > third
        return right, grows and misfit(second, third, size) <= max(1, 0.1 * max(second, third))
    here, there = misfit(third, fourth, size), misfit(second, third, size)
    return here < 1 or (here <= 0.1 * max(third, fourth) and here <= there), there < 1


def _came(shapes: list[Shape], size: Size) -> str:
    came = f"shape {shapes[0]} for an image of {size[0]} x {size[1]}"
    different = shapes[-1] != shapes[0]
    return came + f" and {shapes[-1]} for one of {size[0]} x {2 * size[1]}" * different


def _grids(size: Size) -> dict[tuple[int, bool], Size]:
    """The grids of square patches that fit an image, coarsest last, by stride and rounding; strides that divide both
    sides first.

    Patches that pass the border are left out (floor) or padded (ceil: True), both axes alike.
    """
    height, width = size
    strides = sorted(range(1, max(size) + 1), key=lambda stride: (height % stride + width % stride > 0, stride))
    grids = {(stride, False): (height // stride, width // stride) for stride in strides}
    grids |= {(stride, True): (-(-height // stride), -(-width // stride)) for stride in strides}
    return {how: grid for how, grid in grids.items() if 0 not in grid}


def _tokens(shapes: list[Shape], size: Size, tokens: Tokens) -> Form | str:
    count, leads = shapes[0][1], range(MOST_LEADING + 1) if tokens == "auto" else [tokens]
    fits: dict[tuple[int, int, int], bool] = {}
    if len(shapes) > 1 and shapes[1] == shapes[0]:  # the model makes all images one size
        fits = {(count - side**2, side, side): True for side in range(1, isqrt(count) + 1) if count - side**2 in leads}
    elif len(shapes) == 1 or shapes[1][2] == shapes[0][2]:
        wide = _grids((size[0], 2 * size[1]))
        for how, grid in _grids(size).items():
            leading = count - prod(grid)
            twice = len(shapes) == 1 or (how in wide and prod(wide[how]) + leading == shapes[1][1])
            if leading in leads and twice:
                fits[leading, *grid] = False
    height, width = size
    exact = {
        fit: square
        for fit, square in fits.items()
        if height % fit[1] == 0 and width % fit[2] == 0 and height // fit[1] == width // fit[2]
    }
    if exact or (len(shapes) == 1 and tokens == "auto"):  # nothing else confirms patches that do not fill the image
        fits = exact
    if len(fits) != 1:
        asked = f"0 to {MOST_LEADING}" if tokens == "auto" else str(tokens)
        return (
            f"{_came(shapes, size)}; tokens must be (N, L, C), where L is the rows times the columns of a grid of the "
            f"image's aspect and {asked} leading tokens: {_listed(list(fits) or _near(count, size))}"
        )
    ((leading, rows, columns), square), *_ = fits.items()
    words = f"tokens {shapes[0]}, read row by row as {rows} x {columns}" + (
        f" without {leading} leading token{'s' * (leading > 1)}" if leading else ""
    )
    return Form("tokens", leading, square, words=words)


def _near(count: int, size: Size) -> list[tuple[int, int, int]]:
    """The largest grids that tokens fill, and how many tokens they leave over."""
    near = sorted({(count - prod(grid), *grid) for grid in _grids(size).values() if prod(grid) <= count})
    return near[:3]


def _listed(fits: list[tuple[int, int, int]]) -> str:
    """Grids that were tried, as in "8 x 8 and 1, 4 x 4 and 49"."""
    words = ", ".join(f"{rows} x {columns} leaves {leading}" for leading, rows, columns in fits[:6])
    return f"tried {words}" if words else "no grid fits"


def _reshaped(shapes: list[Shape], size: Size, reshape: Reshape) -> Form | str:
    """The user's function as a form, if it only rearranges values and gives maps.

    It is tried on the numbers of the values' places. A function that knows a single size may fail for the wider image.
    """
    came: list[Shape] = []
    for shape in shapes:
        numbers = torch.arange(prod(shape), dtype=torch.float64).reshape(shape)
        try:
            output = reshape(numbers)
        except Exception as error:
            if came:
                break
            return f"shape {shape}, on which reshape fails: {words_of(error)}"
        if not isinstance(output, Tensor) or output.ndim != 4 or len(output) != shape[0]:
            what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            return f"shape {shape}, of which reshape makes {what}; expected ({shape[0]}, channels, h, w)"
        places = output.detach().flatten()
        if len(set(places.tolist())) < len(places) or not bool(torch.isin(places, numbers.flatten()).all()):
            return (
                f"shape {shape}, of which reshape makes other values; it must only rearrange or leave out values, "
                "since the gradient is reshaped by it too"
            )
        came.append(tuple(output.shape))
    if not _axes(came, size)[0]:
        return f"shape {shapes[0]}, of which reshape makes {_came(came, size)}; expected (1, channels, h, w)"
    return Form("reshape", reshape=reshape, words=f"{shapes[0]} by the given reshape, read as {came[0]}")
