"""What goes into a model: the module itself, the number of its image channels, and their normalisation."""

from collections.abc import Sequence
from math import isfinite
from typing import Any

import torch
from torch import nn

from segfaith.errors import SettingsError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def check_module(module: Any) -> None:
    """Lets a `torch.nn.Module` pass.

    Raises:
        SettingsError: it is something else; the message says what to give.
    """
    if isinstance(module, nn.Module):
        return
    what = type(module).__name__
    remedy = "put what it does into the forward of a torch.nn.Module"
    if isinstance(module, type) and issubclass(module, nn.Module):
        what, remedy = f"the class {module.__name__}", f"make an instance: {module.__name__}(...)"
    elif isinstance(module, torch.export.ExportedProgram):
        remedy = "give its .module()"
    elif hasattr(module, "layer_names"):
        remedy = "it is wrapped already; use it as it is"
    raise SettingsError(f"expected a torch.nn.Module, got {what}; {remedy}")


def channels_of(module: nn.Module, mean: Any = None) -> int:
    """How many channels a module's images have: as many as `mean` has values, or as its first convolution reads.

    Modules are listed in the order of their registration, which need not be the order of the pass. So 3 is taken where
    any convolution reads 3 channels, and where there is no convolution. `probe` then runs the model.
    """
    if isinstance(mean, Sequence) and mean:
        return len(mean)
    read = [part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d) and part.in_channels]
    return 3 if not read or 3 in read else read[0]


def normalisation(mean: Any, std: Any, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std, one value a channel. None: ImageNet's for 3 channels, and no normalisation (0 and 1) for others.

    Raises:
        SettingsError: another number of values, values that are not finite, or a std that is not above 0.
    """
    mean = (IMAGENET_MEAN if channels == 3 else (0.0,) * channels) if mean is None else mean
    std = (IMAGENET_STD if channels == 3 else (1.0,) * channels) if std is None else std
    try:
        values = tuple(float(number) for number in mean), tuple(float(number) for number in std)
    except (TypeError, ValueError):
        values = (), ()
    if list(map(len, values)) != [channels] * 2 or not all(map(isfinite, sum(values, ()))) or min(values[1]) <= 0:
        counted = "three values each" if channels == 3 else f"{channels} value(s) each, one an input channel"
        raise SettingsError(f"mean and std need {counted}, std above 0; got mean={mean!r}, std={std!r}")
    return values
