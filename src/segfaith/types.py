"""The nouns of segfaith: images, masks, maps, targets and evidence, with shapes, units and ranges.

Sizes are (height, width) everywhere. The shapes in annotations are documentation; where jaxtyping is installed
(a development dependency) the tests check every call against them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import TYPE_CHECKING, Literal, get_args

from torch import Tensor

from segfaith.errors import SampleError, SettingsError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
else:
    try:
        from jaxtyping import Bool, Float, Int
    except ImportError:

        class _Plain:
            """Stands in for jaxtyping's types at run time: `Float[Tensor, "H W"]` is then just `Tensor`."""

            def __class_getitem__(cls, item: tuple[type, str]) -> type:
                return item[0]

        Bool = Float = Int = _Plain

__all__ = [
    "Bool",
    "Float",
    "GradientEvidence",
    "Image",
    "Int",
    "InterventionEvidence",
    "Labels",
    "Map",
    "Mask",
    "Planted",
    "Sample",
    "Target",
    "Tensor",
]

Image = Float[Tensor, "bands H W"]
"""Pixel values in [0, 1], one band per input channel of the model (RGB: 3); only the model normalises."""
Mask = Bool[Tensor, "H W"]
"""True where the pixel is in the set that the parameter is named after."""
Labels = Int[Tensor, "H W"]
"""Class index of each pixel; 255 is ignored."""
Map = Float[Tensor, "H W"]
"""Attribution in [0, 1]; larger is more important."""


Score = Literal["probability", "conditional", "logit", "log_odds", "margin"]
"""Which number of each pixel is explained; see `scores.Scalar`."""
COMPARING = ("conditional", "margin")
"""The scores that compare the class with another one, `versus`."""
JOINED = {"conditional": "against", "margin": "to"}
"""The word between such a score and the other class."""


@dataclass(frozen=True, eq=False)
class Planted:
    """The pixels that are known to decide an object's class, as alternatives: each suffices by itself.

    `kind` names how they decide (`plain`, `marker`, `context`, `conjunction`, `redundancy`; `wired straight`, `wired
    crossed`, see `halves`). If the absence of something decides (`counterpart`), there are no alternatives.
    """

    kind: str
    alternatives: tuple[Mask, ...]


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its ground truth at the size at which it is evaluated; `planted` evidence by class index.

    `masks` has the pixels of each class by index where classes overlap; `labels` then has the lowest class of a pixel.
    `clipped` is the share of the file's pixels, 0 to 1, of which a channel lay outside `[data] range` and was clipped.
    `wired` is the evidence of every target, whatever its class, where two photographs are wired and one half decides.
    """

    id: str
    image: Image
    labels: Labels
    planted: Mapping[int, Planted] = field(default_factory=dict)
    masks: Mapping[int, Mask] = field(default_factory=dict)
    clipped: float = 0.0
    wired: Planted | None = None


@dataclass(frozen=True, eq=False)
class Target:
    """What maps explain: the score of class `class_index` over the pixels of `region` (at least one).

    Attributes:
        score: the number of each pixel that is explained, see `scores.Scalar`.
        versus: for the scores of `COMPARING` the other class; None: the strongest other class of each pixel.
        name: tells it from the other targets of its image, in records and files; "" where an image has one.
        beside: the class's other pixels, where the region is a part of them: what is predicted there says nothing of
            the region. None: there are none.
    """

    class_index: int
    region: Mask
    score: Score = "probability"
    versus: int | None = None
    name: str = ""
    beside: Mask | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.class_index, Integral) or self.class_index < 0:
            raise SettingsError(f"class_index must be 0 or more, got {self.class_index!r}; expected a whole number")
        if self.score not in get_args(Score):
            raise SettingsError(f"score = {self.score!r}: expected {', '.join(get_args(Score))}")
        known = self.versus is None or (isinstance(self.versus, Integral) and self.versus >= 0)
        if not known or (self.versus is not None and (self.score not in COMPARING or self.versus == self.class_index)):
            raise SettingsError(
                f"versus = {self.versus!r} with score = {self.score!r} of class {self.class_index}: expected another "
                "class, and score = 'conditional' or 'margin'"
            )
        if not isinstance(self.region, Tensor):
            raise SampleError(f"the target region is a {type(self.region).__name__}; expected a boolean mask, a tensor")
        if not bool(self.region.any()):
            raise SampleError("the target region has no pixel; expected a mask with at least one True")


@dataclass(frozen=True, eq=False)
class GradientEvidence:
    """Activations F of the feature layer and gradients G = dY/dF for N variants of one image (K channels, h x w).

    Attributes:
        size: the image's (H, W), to which maps are upsampled.
        covered: the (H, W) that the layer's maps cover, where the image was padded at the bottom and the right: maps
            are upsampled to it and cropped to `size`. None: `size`.
        halves: whether the maps are those of two photographs side by side, each w / 2 cells wide. Each half is then
            upsampled by itself, and `covered` is the size that a half's maps cover.
        others: the evidence of further layers, where several were asked for.
    """

    activation: Float[Tensor, "N K h w"]
    gradient: Float[Tensor, "N K h w"]
    size: tuple[int, int]
    covered: tuple[int, int] | None = None
    halves: bool = False
    others: tuple["GradientEvidence", ...] = ()


@dataclass(frozen=True, eq=False)
class InterventionEvidence:
    """Score drops of R regions for N variants of one image.

    `regions[n]` holds the index in [0, R) of each pixel's region. `drop[n, r] = s(x_n) - s(O(x_n, r))` is signed and in
    float64; it is NaN for every r beyond the variant's own regions. `value[n, r]`, at least 0, is what a map paints on
    the region's pixels: max(drop, 0), but for adaptive regions see `evidence.regions`.
    """

    regions: Int[Tensor, "N H W"]
    drop: Float[Tensor, "N R"]
    value: Float[Tensor, "N R"]
