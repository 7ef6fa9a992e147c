"""MONAI: `monai:UNet` and its other networks, in two dimensions."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from segfaith.errors import SettingsError
from segfaith.lookup import lookup
from segfaith.models.adapters.entry import SIZES, Adapted, classes_of, library_version, try_out

LAYERS = {"UNETR": "decoder5"}
"""Where the smallest map lies before the encoder: UNETR's patches. `decoder5` makes a map of the encoder's tokens."""


def load(name: str, args: Mapping[str, Any]) -> Adapted:
    """The network `name` of `monai.networks.nets`, built with `args`; `spatial_dims` is 2 unless given.

    All weights are random. The default layer makes the encoder's last map where a part `encoder` returns
    maps; else it returns the smallest map, the last of several. Class names, mean and std are unknown.

    Raises:
        SettingsError: no such network, or one of three dimensions.
    """
    from monai.networks import nets

    build = lookup("network of MONAI", name, classes_of(nets))
    dimensions = "spatial_dims" in inspect.signature(build).parameters
    given = ({"spatial_dims": 2} if dimensions else {}) | dict(args)
    if dimensions and given["spatial_dims"] != 2:
        raise SettingsError(
            f"monai:{name} with spatial_dims = {given['spatial_dims']!r} takes volumes; segfaith explains images, so "
            "spatial_dims must be 2"
        )
    module: nn.Module = build(**given)
    channels = given.get("in_channels")
    trial = try_out(module, channels or 3, _sizes(given.get("img_size")))
    layer = LAYERS[name] if LAYERS.get(name) in trial.maps else trial.giving("encoder") or trial.deepest()
    why = "" if layer else trial.failure or "none of its parts returns one map (N, channels, h, w)"
    return Adapted(module, layer, None, None, None, "random weights", channels, library_version("monai"), why)


def _sizes(size: Any) -> tuple[tuple[int, int], ...]:
    """The sizes to try: the network's own where it has one."""
    if size is None:
        return SIZES
    height, width = (size, size) if isinstance(size, int) else size
    return ((height, width), *SIZES)
