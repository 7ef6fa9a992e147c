r"""The variants of an image over which stability is measured: five small perturbations, strength t (SPEC section 3).

| name | x' (clipped to [0, 1]) |
|---|---|
| `noise` | x + t N(0, 1), independent per pixel and channel |
| `brightness` | x + t |
| `contrast` | m + (1 + t)(x - m), m the per-channel mean |
| `blur` | Gaussian, sigma = 1 px at H = 224 scaled with H (its strength is not t) |
| `flip` | mirrored left to right; the target is mirrored too, and the heatmap is mirrored back |
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from segfaith.halves import by_halves
from segfaith.occlusion import gaussian_blur, mean_colour
from segfaith.types import Bool, Float, Image, Mask, Tensor

PERTURBATIONS: dict[str, Callable[[Image, float, np.random.Generator], Image]] = {
    "noise": lambda image, t, rng: (
        image + t * torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32)).to(image)
    ),
    "brightness": lambda image, t, rng: image + t,
    "contrast": lambda image, t, rng: (
        mean_colour(image)[:, None, None] + (1 + t) * (image - mean_colour(image)[:, None, None])
    ),
    "blur": lambda image, t, rng: gaussian_blur(image, image.shape[1] / 224),
    "flip": lambda image, t, rng: image.flip(-1),
}


@dataclass(frozen=True, eq=False)
class Variants:
    """N variants of one sample's image with the target region of each; `flipped[n]` says which are mirrored.

    `wired`: the images are canvases of two photographs, and each half is mirrored in its place.
    """

    names: tuple[str, ...]
    images: Float[Tensor, "N bands H W"]
    regions: Bool[Tensor, "N H W"]
    wired: bool = False

    @property
    def flipped(self) -> list[bool]:
        """Whether each variant is mirrored."""
        return [name == "flip" for name in self.names]

    def mirror(self, maps: Tensor) -> Tensor:
        """Mirrors the maps (N, H, W) of flipped variants: back to the clean image's frame, or from it."""
        return torch.stack(
            [
                by_halves(_flipped, heatmap, wired=self.wired) if flip else heatmap
                for heatmap, flip in zip(maps, self.flipped, strict=True)
            ]
        )


def clean_variant(image: Image, region: Mask) -> Variants:
    """The unchanged image as the only variant."""
    return Variants(("clean",), image[None], region[None])


def perturbed_variants(
    image: Image, region: Mask, strength: float, rng: Callable[[str], np.random.Generator], *, wired: bool = False
) -> Variants:
    """The five perturbed variants of an image; `rng(name)` gives each its own generator.

    Args:
        wired: the image is a canvas of two photographs: each half is perturbed, and mirrored, as if it were alone.
    """
    images, regions = [], []
    for name, perturb in PERTURBATIONS.items():
        source = rng(name)
        images.append(
            by_halves(lambda part, do=perturb, by=source: do(part, strength, by), image, wired=wired).clamp(0, 1)  # type: ignore[misc]
        )
        regions.append(by_halves(_flipped, region, wired=wired) if name == "flip" else region)
    return Variants(tuple(PERTURBATIONS), torch.stack(images), torch.stack(regions), wired)


def _flipped(values: Tensor) -> Tensor:
    return values.flip(-1)
