"""Loads models, by name or by file and function; their weights are downloaded, read from a file, or random."""

import importlib
import importlib.util
import json
import sys
import urllib.error
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from inspect import signature
from pathlib import Path
from pickle import UnpicklingError
from traceback import extract_tb
from types import ModuleType
from typing import Any

import torch
from torch import nn
from torchvision.models import segmentation as torchvision_segmentation

from segfaith.classes import SCENE_CLASSES, read_classes
from segfaith.errors import SettingsError, words_of
from segfaith.lookup import lookup
from segfaith.models.layers import Reshape
from segfaith.models.outputs import Step
from segfaith.models.scene_model import build_scene_model
from segfaith.models.segmentation import Head, SegmentationModel, Tokens, wrap
from segfaith.models.weights import file_digest, load_weights, read_state_dict, state_digest

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
    "scenes": ModelEntry(
        build_scene_model,
        Path(__file__).parent / "embedded" / "scenes.safetensors",
        "backbone.high",
        "embedded: LR-ASPP on MobileNetV3-Small, trained on the planted scenes",
        SCENE_CLASSES,
    ),
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
    output: Step | None = None,
    tokens: Tokens = "auto",
    reshape: str | Reshape | None = None,
) -> SegmentationModel:
    """Loads a segmentation model.

    Args:
        name: a name of `MODELS`, or `path/to/file.py:function` or `package.module:function`, where the function
            returns a `torch.nn.Module`.
        weights: None downloads torchvision's VOC weights for torchvision's models (with a progress bar), loads the
            embedded weights for `scenes`, and keeps the weights of a function's module. A `.pth`, `.pt`, `.ckpt` or
            `.safetensors` file is loaded strictly; a prefix that all its names share is removed if the names fit
            without it. "random", for a name of `MODELS` only, draws weights with `seed`, to try correctness and speed.
        layer: feature layer for gradient methods; the models of `MODELS` have a default.
        classes: "voc", a list of names, or a file with one name a line, in the order of the output channels.
        mean, std: see `wrap`.
        args: keyword arguments of the function.
        device: "cpu", "cuda", "cuda:1", or "auto" (a GPU if there is one, else the CPU).
        head, channels, output, tokens: see `wrap`.
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
    if known:
        entry = lookup("model", name, MODELS)
        module, source, provenance = _known_module(name, entry, weights, dict(args or {}), seed)
        layer = layer or entry.layer
        classes = classes or entry.classes
    else:
        module, source, provenance = _custom_module(name, weights, dict(args or {}), seed)
    module.eval()
    model = SegmentationModel(
        module,
        layer=layer,
        mean=mean,
        std=std,
        classes=read_classes(classes),
        name=name if known else f"{Path(name.partition(':')[0]).name}:{name.rpartition(':')[2]}",
        weights=source,
        provenance=provenance | {"state_sha256": state_digest(module)},
        head=head,
        channels=channels,
        output=output,
        tokens=tokens,
        reshape=import_function(reshape) if isinstance(reshape, str) else reshape,
    )
    return model.to(device)


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
        state = _download(name, entry.weights)
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


def _download(name: str, weights: Any) -> Mapping[str, torch.Tensor]:
    """torchvision's weights, from torch's cache or downloaded with a progress bar; their hash is checked."""
    try:
        state: Mapping[str, torch.Tensor] = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (urllib.error.URLError, OSError, RuntimeError, UnpicklingError, EOFError) as error:
        cached = cached_weights(weights.url)
        if cached.is_file():
            raise SettingsError(f"the weights of {name} in {cached} are damaged ({error}); remove that file") from error
        raise SettingsError(
            f"the weights of {name} could not be downloaded from {weights.url}: {error}. Fetch that file on a machine "
            'with a network and give weights = FILE, or use weights = "random" for a trial'
        ) from error
    return state


def cached_weights(url: str) -> Path:
    """Where torch keeps the file of weights that it downloads from an address; the file need not be there."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


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
    module = _seeded(name, build, args, seed)
    if not isinstance(module, nn.Module):
        raise SettingsError(f"{name} returned a {type(module).__name__}; expected a torch.nn.Module")
    if weights is None:
        return module, f"as built by {name.rpartition(':')[2]}", {}
    path = Path(weights)
    source = path.name + load_weights(module, read_state_dict(path), path.name)
    return module, source, {"file_sha256": file_digest(path)}


def _build_known(name: str, entry: ModelEntry, args: Mapping[str, Any], seed: int) -> nn.Module:
    module: nn.Module = _seeded(name, entry.build, args, seed)
    return module


def _seeded(name: str, build: Callable[..., Any], args: Mapping[str, Any], seed: int) -> Any:
    """Calls build(**args) with torch's global generator seeded, and leaves that generator as it was.

    Raises:
        SettingsError: the call failed, or called `sys.exit`.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            return build(**args)
        except SettingsError:
            raise
        except (Exception, SystemExit) as error:
            last = extract_tb(error.__traceback__)[-1]
            raise SettingsError(
                f"{name} cannot be built with args {dict(args)}: {words_of(error)} "
                f"({Path(last.filename).name}, line {last.lineno}); see [model] args"
            ) from error


class _FromSource(SourceFileLoader):
    """Always compiles the named file, whose digest runs record. Cached bytecode may come from an older version."""

    def get_code(self, fullname: str) -> Any:
        return self.source_to_code(self.get_data(self.path), self.path)


def _run_file(path: Path) -> ModuleType:
    """Imports a file as a separate module, which can import the modules in its folder."""
    name = f"{path.stem}_{sha256(bytes(path)).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_FromSource(name, str(path)))
    if spec is None or spec.loader is None:
        raise SettingsError(f"{path} cannot be imported as a Python module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look up a class's module here
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def import_function(name: str) -> Callable[..., Any]:
    """The function named `path/to/file.py:function` or `package.module:function`.

    Raises:
        SettingsError: the file or module is missing, fails to import, or has no such function.
    """
    place, _, attribute = name.rpartition(":")
    try:
        if place.endswith(".py"):
            path = Path(place)
            if not path.is_file():
                raise SettingsError(f"no file {path} (from {name!r}); expected path/to/file.py:function")
            module = _run_file(path.resolve())
        else:
            module = importlib.import_module(place)
    except SettingsError:
        raise
    except (
        Exception,
        SystemExit,
    ) as error:  # a script that calls sys.exit must not end segfaith as if it had succeeded
        raise SettingsError(f"importing {place!r} (from {name!r}) failed: {words_of(error)}") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        have = f"{', '.join(names[:60])}{', ...' if len(names) > 60 else ''}" if names else "none"
        raise SettingsError(f"{place} has no function {attribute!r}; it has {have}")
    result: Callable[..., Any] = function
    return result
