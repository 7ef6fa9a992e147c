"""What an adapter gives, and how the default feature layer of a library's model is looked up by one trial pass."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from segfaith.errors import words_of
from segfaith.types import Tensor

SIZES = ((64, 96), (128, 192), (224, 224), (512, 512))
"""Sizes of the trial image, the first that the model takes: oblong ones show which axes are rows and columns."""


@dataclass(frozen=True)
class Adapted:
    """A model of a library, and what the library says about it.

    Attributes:
        module: what `SegmentationModel` wraps.
        layer: dotted name of the default feature layer; None: `why_no_layer` says why there is none.
        mean, std: per channel, in units of the image in [0, 1]; None: unknown, so that ImageNet's are assumed.
        classes: names in the order of the output channels; None: unknown.
        weights: where the weights come from, in words.
        channels: channels of the input image; None: the library does not say.
        provenance: the library with its version, and SHA-256 digests of local files.
    """

    module: nn.Module
    layer: str | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    classes: list[str] | None
    weights: str
    channels: int | None
    provenance: dict[str, str]
    why_no_layer: str = ""


@dataclass(frozen=True)
class Adapter:
    """A library whose models are known by `PREFIX:NAME`.

    Attributes:
        load: builds the model from NAME and the keyword arguments.
        library: the name of the module that is imported.
        extra: the extra of segfaith that installs it; "" for what segfaith needs anyhow.
        usage: an example of a name.
        summary: what NAME and the arguments are.
        reads: whether NAME is a path ("file"), may be one ("folder"), or is none ("").
    """

    load: Callable[[str, Mapping[str, Any]], Adapted]
    library: str
    extra: str
    usage: str
    summary: str
    reads: str = ""

    @property
    def installed(self) -> bool:
        """Whether the library is there; it is not imported."""
        return find_spec(self.library) is not None

    @property
    def remedy(self) -> str:
        """How to install the library."""
        return f"pip install 'segfaith[{self.extra}]'"

    @property
    def words(self) -> str:
        """The line of `segfaith list models`."""
        return f"{self.summary} ({'installed' if self.installed else f'not installed: {self.remedy}'})"


def library_version(package: str) -> dict[str, str]:
    """The entry of `Adapted.provenance` that names a library, as installed under the name of its package."""
    try:
        return {"library": f"{package} {version(package)}"}
    except PackageNotFoundError:
        return {"library": f"{package}, version unknown"}


def classes_of(package: Any) -> dict[str, type[nn.Module]]:
    """The classes of modules that a package holds at its root, by name."""
    return {
        key: value for key, value in vars(package).items() if isinstance(value, type) and issubclass(value, nn.Module)
    }


@dataclass(frozen=True)
class Trial:
    """One pass of a model: what its parts returned, in the order in which they were done.

    Attributes:
        maps: (1, K, h, w) outputs of the parts that ran once and returned one such map, by dotted name. Identities are
            left out: what they hand on need not be read behind them.
        outputs: what each part returned the last time that it ran, by dotted name.
        failure: why there was no pass; "" if there was one.
    """

    maps: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Any] = field(default_factory=dict)
    failure: str = ""

    def deepest(self) -> str | None:
        """The part that was done last among those with the smallest map, of more than one pixel."""
        areas = {name: _area(value) for name, value in self.maps.items() if _area(value) > 1}
        smallest = min(areas.values(), default=0)
        return next((name for name in reversed(areas) if areas[name] == smallest), None)

    def giving(self, part: str) -> str | None:
        """The part inside `part` that made the last of the smallest maps that `part` returned."""
        wanted = [leaf for leaf in tree_leaves(self.outputs.get(part)) if _is_map(leaf)]
        if not wanted:
            return None
        last = min(reversed(wanted), key=_area)
        same = [
            name
            for name, value in self.maps.items()
            if name.startswith(f"{part}.") and value.shape == last.shape and value.data_ptr() == last.data_ptr()
        ]
        return same[-1] if same else None

    def last(self, within: str) -> str | None:
        """The part inside `within` that returned a map last."""
        return next((name for name in reversed(self.maps) if name.startswith(f"{within}.")), None)


def try_out(module: nn.Module, channels: int = 3, sizes: Sequence[tuple[int, int]] = SIZES) -> Trial:
    """Runs a module in evaluation mode on a grey image of the first size that it takes, and notes its parts' outputs.

    The module stays in evaluation mode.
    """
    module.eval()
    failure = ""
    for height, width in sizes:
        trial, runs = Trial(), dict[str, int]()

        def note(name: str, height: int = height, width: int = width, trial: Trial = trial, runs: Any = runs) -> Any:
            def hook(part: nn.Module, inputs: Any, output: Any) -> None:
                runs[name] = runs.get(name, 0) + 1
                trial.outputs[name] = output
                maps = [item for item in (output if type(output) in (tuple, list) else [output]) if _is_map(item)]
                trial.maps.pop(name, None)
                if len(maps) == 1 and runs[name] == 1 and _fits(maps[0], height, width):
                    trial.maps[name] = maps[0]

            return hook

        parts = [(name, part) for name, part in module.named_modules() if name and not isinstance(part, nn.Identity)]
        handles = [part.register_forward_hook(note(name)) for name, part in parts]
        try:
            with torch.no_grad():
                module(torch.full((1, channels, height, width), 0.5))
            return trial
        except Exception as error:
            failure = failure or f"{height} x {width}: {words_of(error)}"
        finally:
            for handle in handles:
                handle.remove()
    return Trial(failure=f"a trial pass failed on an image of {failure}")


def _is_map(value: Any) -> bool:
    """Whether it is a (1, K, h, w) tensor of floats; some encoders return a map of K = 0 channels too."""
    is_float = isinstance(value, Tensor) and value.is_floating_point()
    return is_float and value.ndim == 4 and len(value) == 1 and value.numel() > 0


def _area(value: Tensor) -> int:
    """Pixels of a map."""
    return value.shape[-2] * value.shape[-1]


def _fits(value: Tensor, height: int, width: int) -> bool:
    """Whether the last two axes have the aspect ratio of the image, up to rounding."""
    rows, columns = value.shape[-2:]
    return abs(rows - columns * height / width) < 0.5
