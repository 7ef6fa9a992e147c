"""What an entry of a library's table is, and what its function gets: the question about one image."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
import torch

from segfaith.attribution.parameters import Fill, Parameters
from segfaith.batching import BatchSize
from segfaith.evidence.gradient import Objective
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import occluder
from segfaith.types import Float, Image, Int, Target, Tensor

Sign = Literal["positive", "absolute"]
"""How a signed attribution a, summed over the channels, becomes a map: max(a, 0), or |a|."""


class SignParameters(Parameters):
    """Of methods whose attributions are signed: the rule by which signed attributions become maps."""

    sign: Sign = "positive"


class ScoreParameters(SignParameters):
    """The number that is explained: "prob", the target's own score s, or "logits", the score before its squashing."""

    objective: Objective = "prob"


class FillParameters(ScoreParameters):
    """The baseline: an operator that replaces a pixel by the same value wherever it is used."""

    baseline: Fill = "zero"


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked of a library: which pixels of `image` make the target's score what it is.

    Attributes:
        batch: how many images may go through the model at once. It moves no map by more than rounding.
        rng: of this image and method; all that is random follows from it.
        cells: the region of each pixel, where the method explains regions.
    """

    name: str
    model: SegmentationModel
    image: Image
    target: Target
    parameters: Any
    batch: BatchSize
    rng: np.random.Generator
    cells: Int[Tensor, "H W"] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """The image's (H, W)."""
        return self.image.shape[1], self.image.shape[2]

    def filled(self, name: str) -> Image:
        """The image with every pixel replaced by the operator `name`."""
        everywhere = torch.ones(1, *self.size, dtype=torch.bool, device=self.image.device)
        return occluder(name, self.image, self.rng, wired=self.model.wired)(everywhere)[0]


Explain = Callable[[Question], Float[Tensor, "H W"]]


@dataclass(frozen=True)
class Scale:
    """What the number of passes depends on beside a method's parameters.

    Attributes:
        size: the image's (H, W); None where images have sizes of their own.
        layers: how many feature layers are read where the parameters name none.
        channels: the channels of all layers together; None: not known, since no model has run.
    """

    size: tuple[int, int] | None = (224, 224)
    layers: int = 1
    channels: int | None = None

    def layers_of(self, parameters: Any) -> int:
        """How many layers a method with these parameters reads."""
        layer: str | None = parameters.layer
        return self.layers if layer is None else layer.count("+") + 1


GRADIENTS = "passes with gradients"
FAST = "fast passes"


@dataclass(frozen=True)
class Cost:
    """The images that go through the model for one map, those of clean images among them.

    A layer's first use adds three, once a model. Fast passes compute only what an occlusion alters.

    Attributes:
        passes: their number; None where the scale leaves it open.
        kind: what they are, as in "passes with gradients".
        open: the number in words where it is open.
    """

    passes: Callable[[Any, Scale], int | None]
    kind: str = "passes"
    open: str = ""

    def words(self, parameters: Any, scale: Scale) -> str:
        """As "33 fast passes"."""
        count = self.passes(parameters, scale)
        return self.open if count is None else counted(count, self.kind)


def counted(count: int, kind: str) -> str:
    """A number and its noun: "2 fast passes", "1 pass with its gradient"."""
    return (
        f"{count} {kind}" if count != 1 else f"1 {kind.replace('passes', 'pass').replace('gradients', 'its gradient')}"
    )


@dataclass(frozen=True)
class Entry:
    """A method of a library.

    Attributes:
        paper: the method's source.
        explain: the signed attribution of one image; None: it follows from the drops of RIA's interventions.
        parameters: what may be set, with defaults.
        cost: the model passes of one map beside the evidence that methods share.
        asks: what it needs of the model, in words; "" if nothing.
        cells: whether it explains regions, those of RIA.
    """

    paper: str
    explain: Explain | None
    parameters: type[Parameters]
    cost: Cost
    asks: str = ""
    cells: bool = False

    @property
    def words(self) -> str:
        """Paper and needs, in a line."""
        return self.paper + (f"; needs {self.asks}" if self.asks else "")


@dataclass(frozen=True)
class Package:
    """A package that methods need.

    Attributes:
        name: the package's name.
        module: the name that is imported.
        extra: the extra of segfaith that installs it.
    """

    name: str
    module: str
    extra: str

    @property
    def missing(self) -> str:
        """That it is not installed, and how to install it, in words; "" if it is there. It is not imported."""
        if find_spec(self.module) is not None:
            return ""
        return f"{self.module} is not installed; install it with: pip install 'segfaith[{self.extra}]'"

    @property
    def version(self) -> str:
        """Name and version, as "captum 0.9.0"."""
        return f"{self.name} {version(self.name)}"


@dataclass(frozen=True)
class Library:
    """A library of methods, known by `PREFIX:NAME`.

    Attributes:
        entries: its methods by name.
        has: whether the installed version has a method.
    """

    package: Package
    entries: dict[str, Entry]
    has: Callable[[str], bool]


def signed(attribution: Float[Tensor, "*N H W"], sign: Sign) -> Float[Tensor, "*N H W"]:
    """max(a, 0) or |a|."""
    return attribution.clamp(min=0) if sign == "positive" else attribution.abs()


def pixels(attribution: Float[Tensor, "1 bands H W"]) -> Float[Tensor, "H W"]:
    """Summed over the channels."""
    return attribution.double().sum(1)[0]
