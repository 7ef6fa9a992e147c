"""Loads models, by name or by file and function; their weights are downloaded, read from a file, or random."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import segmentation as torchvision_segmentation

from segfaith.classes import SCENE_CLASSES, read_classes
from segfaith.errors import SettingsError
from segfaith.lookup import lookup
from segfaith.models.adapters import Adapted, adapted, short_name
from segfaith.models.building import import_function, seeded
from segfaith.models.layers import Reshape
from segfaith.models.outputs import Step
from segfaith.models.scene_model import build_scene_model
from segfaith.models.segmentation import Head, SegmentationModel, Tokens
from segfaith.models.weights import download_weights, file_digest, load_weights, read_state_dict, state_digest
from segfaith.models.wrapping import wrap

__all__ = ["MODELS", "ModelEntry", "SegmentationModel", "load_model", "wrap"]


@dataclass(frozen=True)
class ModelEntry:
    """A model known by name: its builder, its weights, its feature layer (SPEC section 2), and its classes.

    `weights` are torchvision's, downloaded once, or the path of a file inside the package.
    """

    build: Callable[..., nn.Module]
    weights: Any
    layer: str
    paper: str
    classes: str | Sequence[str] = "voc"


EMBEDDED = {
    "scenes": "on the planted scenes",
    "scenes-unhidden": "on the planted scenes, none with flat patches over it",
}
"""The models whose weights are inside the package, and what each was trained on."""


def _embedded(name: str, trained: str) -> ModelEntry:
    weights = Path(__file__).parent / "embedded" / f"{name}.safetensors"
    words = f"embedded: LR-ASPP on MobileNetV3-Small, trained {trained}"
    return ModelEntry(build_scene_model, weights, "backbone.high", words, SCENE_CLASSES)


MODELS: dict[str, ModelEntry] = {
    "deeplabv3_resnet50": ModelEntry(
        torchvision_segmentation.deeplabv3_resnet50,
        torchvision_segmentation.DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1,
        "backbone.layer4",
        "Chen et al. 2017, arXiv:1706.05587",
    ),
    "fcn_resnet50": ModelEntry(
        torchvision_segmentation.fcn_resnet50,
        torchvision_segmentation.FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1,
        "backbone.layer4",
        "Long et al. 2015",
    ),
    "lraspp_mobilenet_v3_large": ModelEntry(
        torchvision_segmentation.lraspp_mobilenet_v3_large,
        torchvision_segmentation.LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1,
        "backbone.16",
        "Howard et al. 2019, arXiv:1905.02244",
    ),
    **{name: _embedded(name, trained) for name, trained in EMBEDDED.items()},
}
"""`backbone.layer4` gives the ResNets' backbone output `out`; `backbone.16` is LRASPP's output `high`."""


def load_model(
    name: str,
    *,
    weights: str | Path | None = None,
    layer: str | None = None,
    classes: str | Path | Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    args: Mapping[str, Any] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
    head: Head | None = None,
    channels: int | None = None,
    pad: int | None = None,
    tile: int | Sequence[int] | None = None,
    overlap: int | None = None,
    output: Step | None = None,
    tokens: Tokens = "auto",
    reshape: str | Reshape | None = None,
) -> SegmentationModel:
    """Loads a segmentation model.

    Args:
        name: a name of `MODELS`; a model of a library, as `smp:Unet` (see `adapters.ADAPTERS`); or
            `path/to/file.py:function` or `package.module:function`, where the function returns a `torch.nn.Module`.
        weights: None downloads torchvision's VOC weights for torchvision's models (with a progress bar), loads those
            inside the package for the models of `EMBEDDED`, and keeps those of a function's or a library's module. A
            `.pth`, `.pt`, `.ckpt` or `.safetensors` file is loaded strictly; a prefix that all its names share is
            removed if the names fit without it. "random", for a name of `MODELS` only, draws weights with `seed`, for
            trials.
        layer: feature layer for gradient methods; the models of `MODELS` and of libraries have a default.
        classes: "voc", a list of names, or a file with one name a line, in the order of the output channels.
        mean, std: see `wrap`; None: those that the library of the model states, else as in `wrap`.
        args: keyword arguments of the function, or what the library takes.
        device: "cpu", "cuda", "cuda:1", or "auto" (a GPU if there is one, else the CPU).
        head, channels, pad, tile, overlap, output, tokens: see `wrap`.
        reshape: the function, or its name `path/to/file.py:function` or `package.module:function`; see `wrap`.

    Raises:
        SettingsError: unknown name, missing file, a function that fails, weights that do not fit, a layer that does not
            exist, a device that cannot be used.
    """
    _check_types(name, weights, args, seed)
    device = _usable(device)
    known = ":" not in name
    if known and name.endswith(".py"):
        raise SettingsError(f"model {name!r} names a file and no function in it; expected path/to/file.py:function")
    built = adapted(name, args or {}, seed)
    shown, why_no_layer = name, ""
    if built is not None:
        module, source, provenance = _adapted_module(name, built, weights, layer)
        layer, classes = layer or built.layer, classes or built.classes
        shown, why_no_layer = short_name(name), built.why_no_layer
    elif known:
        entry = lookup("model", name, MODELS)
        module, source, provenance = _known_module(name, entry, weights, dict(args or {}), seed)
        layer = layer or entry.layer
        classes = classes or entry.classes
    else:
        module, source, provenance = _custom_module(name, weights, dict(args or {}), seed)
        shown = f"{Path(name.partition(':')[0]).name}:{name.rpartition(':')[2]}"
    for part in module.modules():
        if getattr(part, "training", False):  # train() and eval() of some modules do more than to set this flag
            part.training = False
    given = {"mean": mean, "std": std}
    if built is not None:
        mean, std, channels = mean or built.mean, std or built.std, channels or built.channels
    model = SegmentationModel(
        module,
        layer=layer,
        mean=mean,
        std=std,
        classes=read_classes(classes),
        name=shown,
        weights=source,
        provenance=provenance | {"state_sha256": state_digest(module)},
        head=head,
        channels=channels,
        pad=pad,
        tile=tile,
        overlap=overlap,
        output=output,
        tokens=tokens,
        reshape=import_function(reshape) if isinstance(reshape, str) else reshape,
    )
    model.why_no_layer = why_no_layer
    model.provenance["normalisation"] = _normalisation(model, given, built, known)
    return model.to(device)


def _normalisation(model: SegmentationModel, given: Mapping[str, Any], built: Adapted | None, known: bool) -> str:
    """In words, where the mean and std in use are from: given, of the library, or a default, known or assumed."""
    default = "ImageNet's" if model.input_channels == 3 else "none"
    words = []
    for key, value in given.items():
        stated = built is not None and getattr(built, key) is not None
        source = "as given" if value is not None else "of the library" if stated else default
        words.append(f"{key} {source}{'' if value is not None or stated or known else ', assumed'}")
    return "; ".join(words)


def _adapted_module(
    name: str, built: Adapted, weights: str | Path | None, layer: str | None
) -> tuple[nn.Module, str, dict[str, str]]:
    """The module of a library, its weights' source and its provenance; a file of weights goes into the library's own.

    Raises:
        SettingsError: weights that cannot be loaded into it.
    """
    if layer and not any(True for _ in built.module.children()):
        raise SettingsError(f"layer = {layer!r} of {name} cannot be read: {built.why_no_layer}")
    if weights is None:
        return built.module, built.weights, built.provenance
    if weights == "random":
        raise SettingsError(
            f"weights = 'random' is for the models that `segfaith list models` names without a colon; {name} has "
            f"{built.weights} where weights are left out"
        )
    inner = getattr(built.module, "wrapped", built.module)
    if not any(True for _ in inner.parameters()):
        raise SettingsError(f"{name} holds its weights itself; leave out weights = {str(weights)!r}")
    path = Path(weights)
    source = path.name + load_weights(inner, read_state_dict(path), path.name)
    return built.module, source, built.provenance | {"file_sha256": file_digest(path)}


def _check_types(name: Any, weights: Any, args: Any, seed: Any) -> None:
    """Refuses arguments of wrong types, which would fail later in look-ups and paths."""
    expected: tuple[tuple[str, Any, Any, str], ...] = (
        ("name", name, str, "a name of `segfaith list models` or FILE.py:FUNCTION"),
        ("weights", weights, str | Path | None, "the path of a file, 'random', or None"),
        ("args", args, Mapping | None, "a table of the function's keyword arguments"),
        ("seed", seed, int, "a whole number"),
    )
    for key, value, kind, words in expected:
        if not isinstance(value, kind):
            raise SettingsError(f"{key} = {value!r} of a model: expected {words}, got a {type(value).__name__}")


def _usable(device: str | torch.device) -> str | torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise SettingsError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}; use 'cpu' or 'auto'"
        ) from error
    return device


def _known_module(
    name: str, entry: ModelEntry, weights: str | Path | None, args: dict[str, Any], seed: int
) -> tuple[nn.Module, str, dict[str, str]]:
    embedded = isinstance(entry.weights, Path)
    fixed = {} if embedded else {"weights": None, "weights_backbone": None}
    if fixed.keys() & args.keys():
        raise SettingsError(f"args of {name} cannot hold {', '.join(fixed)}; use weights = ... of [model]")
    if weights == "random":
        return _build_known(name, entry, fixed | args, seed), f"random (seed {seed})", {}
    if weights is None and not embedded:
        state = download_weights(name, entry.weights)
        source, provenance = str(entry.weights), {"url": str(entry.weights.url)}
    else:
        path = Path(weights or entry.weights)
        state = read_state_dict(path)
        source, provenance = path.name, {"file_sha256": file_digest(path)}
        if embedded:
            provenance |= _proof_of_use(path)
    if any(".aux_classifier." in f".{key}" for key in state):
        args = {"aux_loss": True} | args
    module = _build_known(name, entry, fixed | args, seed)
    source += load_weights(module, state, source)
    return module, source, provenance


def _proof_of_use(weights: Path) -> dict[str, str]:
    """The kinds of planted evidence that the model was shown to use, from the card beside its weights, if any."""
    try:
        content = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))
        proven = content["proof"]["proven"] if content["file_sha256"] == file_digest(weights) else []
    except (OSError, ValueError, TypeError, KeyError):
        return {}  # no card, or a file that is not a card: nothing is proven
    return {"proven_kinds": ",".join(proven)} if proven else {}


def _custom_module(
    name: str, weights: str | Path | None, args: dict[str, Any], seed: int
) -> tuple[nn.Module, str, dict[str, str]]:
    if weights == "random":
        raise SettingsError(
            f"weights = 'random' is for the models of `segfaith list models`; leave weights out to keep those of {name}"
        )
    build = import_function(name)
    try:
        signature(build).bind(**args)
    except TypeError as error:
        raise SettingsError(f"{name} does not take args {args}: {error}; see [model] args") from error
    except ValueError:  # a C function, whose signature cannot be read
        pass
    module = seeded(name, lambda: build(**args), args, seed)
    if not isinstance(module, nn.Module):
        raise SettingsError(f"{name} returned a {type(module).__name__}; expected a torch.nn.Module")
    if weights is None:
        return module, f"as built by {name.rpartition(':')[2]}", {}
    path = Path(weights)
    source = path.name + load_weights(module, read_state_dict(path), path.name)
    return module, source, {"file_sha256": file_digest(path)}


def _build_known(name: str, entry: ModelEntry, args: Mapping[str, Any], seed: int) -> nn.Module:
    module: nn.Module = seeded(name, lambda: entry.build(**args), args, seed)
    return module
