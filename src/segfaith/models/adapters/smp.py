"""segmentation_models_pytorch: `smp:Unet` and its other architectures."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from segfaith.errors import SettingsError
from segfaith.lookup import lookup
from segfaith.models.adapters.entry import Adapted, classes_of, library_version, try_out

FUSED = {"Segformer": "decoder.fuse_stage"}
"""Where the decoder fuses the encoder's stages at once, its fused map serves for all encoders."""


def load(name: str, args: Mapping[str, Any]) -> Adapted:
    """The architecture `name`, built with `args`: encoder_name, encoder_weights, in_channels, classes, ...

    Without `encoder_weights` all weights are random (the library's own default is "imagenet", a download). The default
    layer is the part of the encoder that makes its last map; where no single part makes it (the transformers), the
    decoder's last. mean and std are those of the encoder's pretrained weights.

    Raises:
        SettingsError: no such architecture, or preprocessing that segfaith cannot do.
    """
    import segmentation_models_pytorch as smp

    build = lookup("architecture of segmentation_models_pytorch", name, classes_of(smp))
    taken = [key for key in inspect.signature(build).parameters if key != "kwargs"]
    unknown = sorted(set(args) - set(taken))
    if unknown and not str(args.get("encoder_name")).startswith("tu-"):  # which hands all else to timm
        raise SettingsError(f"args of smp:{name} cannot hold {', '.join(unknown)}; known: {', '.join(taken)}")
    pretrained = args.get("encoder_weights")
    channels = int(args.get("in_channels", 3))
    module: nn.Module = build(**{"encoder_weights": None} | dict(args))
    mean = std = None
    weights = "random weights"
    if pretrained is not None:
        mean, std = _preprocessing(args.get("encoder_name", "resnet34"), pretrained)
        weights = f"encoder: {pretrained}; all else: random weights"
    trial = try_out(module, channels)
    fused = FUSED.get(name)
    layer = fused if fused in trial.maps else trial.giving("encoder") or trial.last("decoder")
    why = "" if layer else trial.failure or "no part of its encoder or decoder returns one map (N, channels, h, w)"
    provenance = library_version("segmentation_models_pytorch")
    return Adapted(module, layer, mean, std, None, weights, channels, provenance, why)


def _preprocessing(encoder: str, pretrained: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """mean and std of an encoder's pretrained weights, for images in [0, 1]."""
    from segmentation_models_pytorch.encoders import get_preprocessing_params

    found = get_preprocessing_params(encoder, pretrained=pretrained)
    if found["input_space"] != "RGB":
        raise SettingsError(
            f"encoder {encoder!r} with weights {pretrained!r} takes {found['input_space']} images; segfaith gives RGB. "
            "Use other encoder weights, or a function of your own that turns the channels (docs/extending.md)"
        )
    low, high = found["input_range"]
    if low != 0:
        raise SettingsError(f"encoder {encoder!r} takes values in [{low}, {high}]; segfaith gives [0, 1]")
    return tuple(value / high for value in found["mean"]), tuple(value / high for value in found["std"])
