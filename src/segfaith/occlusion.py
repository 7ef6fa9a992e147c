r"""Occlusion operators O(x, S), which replace the pixels of S, and the partitions of an image into regions.

| name | what the pixels of S become |
|---|---|
| `mean` | the per-channel mean of the image being occluded |
| `zero` | black |
| `dataset_mean` | ImageNet's mean colour |
| `blur` | the image blurred: Gaussian, sigma = 10 px at H = 224, scaled with H, reflect padding |
| `noise` | uniform in [0, 1] per pixel and channel, seeded |
| `road` | noisy linear imputation: weighted mean of the eight neighbours, plus noise (Rong et al. 2022) |
"""

from collections.abc import Callable
from math import ceil

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu
from torchvision.transforms.v2 import functional as transforms

from segfaith.errors import SettingsError
from segfaith.halves import halves, side_by_side
from segfaith.lookup import lookup
from segfaith.models.inputs import IMAGENET_MEAN
from segfaith.types import Bool, Float, Image, Int, Mask, Tensor

Occluder = Callable[[Bool[Tensor, "B H W"]], Float[Tensor, "B bands H W"]]
"""A function from the masks of B pixel sets S to the B occluded images O(x, S) of an image x."""

BLUR_SIGMA = 10 / 224
"""Occlusion blur's sigma as a fraction of the image's height."""
NO_DATASET_MEAN = (
    "occlusion 'dataset_mean' is ImageNet's mean colour, which has three channels; the images have {bands}: use 'mean'"
)
ROAD_NOISE = 0.01
"""Standard deviation of the noise that `road` adds to imputed pixels (the value of Rong et al.'s code)."""


def gaussian_blur(image: Image, sigma: float) -> Image:
    """Gaussian blur, sigma in pixels, kernel 2 ceil(3 sigma) + 1, reflect padding.

    Along a side that is too short for this reflection, the kernel has only 2 side - 1 pixels.
    """
    kernel = [2 * min(ceil(3 * sigma), side - 1) + 1 for side in (image.shape[2], image.shape[1])]
    blurred: Image = transforms.gaussian_blur(image, kernel, [sigma, sigma])
    return blurred


def mean_colour(image: Image) -> Float[Tensor, "bands"]:
    """Per-channel mean over all pixels, summed in float64."""
    return image.double().mean((1, 2)).to(image.dtype)


def _constant(image: Image, colour: Float[Tensor, "bands"]) -> Image:
    return colour.to(image)[:, None, None].expand_as(image)


def _imagenet_mean(image: Image) -> Image:
    if len(image) != len(IMAGENET_MEAN):
        raise SettingsError(NO_DATASET_MEAN.format(bands=len(image)))
    return _constant(image, torch.tensor(IMAGENET_MEAN))


def _noise(image: Image, rng: np.random.Generator) -> Image:
    return torch.from_numpy(rng.random(tuple(image.shape), dtype=np.float32)).to(image.device)


FILLS: dict[str, Callable[[Image, np.random.Generator], Image]] = {
    "mean": lambda image, rng: _constant(image, mean_colour(image)),
    "zero": lambda image, rng: torch.zeros_like(image),
    "dataset_mean": lambda image, rng: _imagenet_mean(image),
    "blur": lambda image, rng: gaussian_blur(image, BLUR_SIGMA * image.shape[1]),
    "noise": _noise,
}
"""Operators that replace a pixel by the same value for every S, by name; each returns the fully replaced image."""


def occluder(name: str, image: Image, rng: np.random.Generator, *, wired: bool = False) -> Occluder:
    """The operator `name` of `OPERATORS` for one image: a function from masks (B, H, W) to images (B, 3, H, W).

    Random operators draw their values once, here, so a pixel is replaced by the same value in every S.

    Args:
        wired: the image is a canvas of two photographs: each is occluded as if it were alone.

    Raises:
        SettingsError: unknown name.
    """
    make = lookup("occlusion operator", name, OPERATORS)
    if not wired:
        return make(image, rng)
    left, right = (make(half, rng) for half in halves(image))

    def occlude(masks: Bool[Tensor, "B H W"]) -> Float[Tensor, "B bands H W"]:
        of_left, of_right = halves(masks)
        return side_by_side(left(of_left), right(of_right))

    return occlude


def fill_occluder(image: Image, fill: Image) -> Occluder:
    """The operator that shows the pixels of another image, `fill`, in S."""
    return lambda masks: torch.where(masks[:, None], fill, image)


def _named_fill(name: str) -> Callable[[Image, np.random.Generator], Occluder]:
    return lambda image, rng: fill_occluder(image, FILLS[name](image, rng))


def _road_occluder(image: Image, rng: np.random.Generator) -> Occluder:
    noise = torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32) * np.float32(ROAD_NOISE))
    return lambda masks: torch.stack([_impute(image, mask, noise) for mask in masks])


OPERATORS: dict[str, Callable[[Image, np.random.Generator], Occluder]] = {
    **{name: _named_fill(name) for name in FILLS},
    "road": _road_occluder,
}

_NEIGHBOURS = [(dy, dx, 1 / 6 if dy == 0 or dx == 0 else 1 / 12) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
"""ROAD's neighbourhood: 1/6 for the four direct neighbours, 1/12 for the diagonal ones."""


def _impute(image: Image, mask: Mask, noise: Float[Tensor, "bands H W"]) -> Image:
    """Solves, for all pixels i of the mask at once, sum over neighbours n of w_n (x_i - x_n) = 0, and adds noise.

    Neighbours beyond the border do not count. A mask that covers the whole image leaves nothing to impute from; the
    pixels then take the mean colour.
    """
    known = image.detach().cpu().numpy().astype(np.float64)
    inside = mask.cpu().numpy()
    if not inside.any():
        return image
    if inside.all():
        values = np.broadcast_to(known.mean((1, 2))[:, None], (len(known), inside.size))
    else:
        height, width = inside.shape
        ys, xs = np.nonzero(inside)
        number = np.full(inside.shape, -1)
        number[ys, xs] = np.arange(len(ys))
        total, right = np.zeros(len(ys)), np.zeros((len(known), len(ys)))
        entries: list[tuple[np.ndarray, np.ndarray, float]] = []
        for dy, dx, weight in _NEIGHBOURS:
            here = np.nonzero((ys + dy >= 0) & (ys + dy < height) & (xs + dx >= 0) & (xs + dx < width))[0]
            y, x = ys[here] + dy, xs[here] + dx
            total[here] += weight
            unknown = inside[y, x]
            entries.append((here[unknown], number[y[unknown], x[unknown]], -weight))
            right[:, here[~unknown]] += weight * known[:, y[~unknown], x[~unknown]]
        diagonal = np.arange(len(ys))
        rows = np.concatenate([diagonal, *(row for row, _, _ in entries)])
        columns = np.concatenate([diagonal, *(column for _, column, _ in entries)])
        weights = np.concatenate([total, *(np.full(len(row), weight) for row, _, weight in entries)])
        matrix = coo_array((weights, (rows, columns)), shape=(len(ys), len(ys))).tocsc()
        values = splu(matrix).solve(right.T.copy()).T
    result = image.clone()
    result[:, mask] = torch.from_numpy(values.astype(np.float32)).to(image) + noise.to(image)[:, mask]
    return result.clamp(0, 1)


def grid_partition(size: tuple[int, int], grid: int) -> Int[Tensor, "H W"]:
    """Cells of a grid x grid partition, numbered row by row from 0; borders at floor(i H / grid), floor(i W / grid).

    If the image has fewer rows or columns than the grid, some cells have no pixel.
    """
    height, width = size
    if grid < 1:
        raise ValueError(f"the grid must have at least 1 cell a side, got {grid}")
    rows, columns = (
        torch.bucketize(torch.arange(n), torch.tensor([i * n // grid for i in range(1, grid)]), right=True)
        for n in (height, width)
    )
    return rows[:, None] * grid + columns
