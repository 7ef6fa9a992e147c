"""torchvision: `torchvision:NAME`, any of its builders of segmentation models."""

from collections.abc import Mapping
from typing import Any

import torchvision.models as models
from torch import nn

from segfaith.errors import SettingsError
from segfaith.lookup import lookup
from segfaith.models.adapters.entry import Adapted, library_version, try_out
from segfaith.models.weights import download_weights, load_weights


def load(name: str, args: Mapping[str, Any]) -> Adapted:
    """The builder `name`; `args` are its arguments. `weights` names the weights ("DEFAULT"); without, they are random.

    The default layer makes the backbone's last map. mean, std and class names are those of the weights.

    Raises:
        SettingsError: no such builder or weights, or a download that failed.
    """
    known = {key: key for key in models.list_models(module=models.segmentation)}
    lookup("segmentation model of torchvision", name, known)
    given = dict(args)
    entry = _entry(name, given.pop("weights", None))
    if entry is None:
        module: nn.Module = models.get_model(name, **{"weights": None, "weights_backbone": None} | given)
        mean = std = classes = None
        weights, provenance = "random weights", {}
    else:
        state = download_weights(name, entry)
        classes = ["background" if label == "__background__" else label for label in entry.meta["categories"]]
        aux = {"aux_loss": True} if any(key.startswith("aux_classifier.") for key in state) else {}
        fixed = {"weights": None, "weights_backbone": None, "num_classes": len(classes)} | aux
        module = models.get_model(name, **fixed | given)
        load_weights(module, state, str(entry))
        preset = entry.transforms()
        mean, std = tuple(preset.mean), tuple(preset.std)
        weights, provenance = str(entry), {"url": str(entry.url)}
    trial = try_out(module)
    layer = trial.giving("backbone")
    why = "" if layer else trial.failure or "no part of its backbone returns one map (N, channels, h, w)"
    return Adapted(module, layer, mean, std, classes, weights, 3, library_version("torchvision") | provenance, why)


def _entry(name: str, weights: Any) -> Any:
    """The named weights of a builder, or None for random ones."""
    if weights is None:
        return None
    table = models.get_model_weights(name)
    names = ["DEFAULT", *table.__members__]
    short = str(weights).rpartition(".")[2]
    if short not in names:
        raise SettingsError(f"weights = {weights!r} of torchvision:{name}; expected one of {', '.join(names)}")
    return table[short] if short in table.__members__ else table.DEFAULT
