"""Models of libraries by name: `smp:Unet`, `hf:FOLDER_OR_ID`, `torchvision:NAME`, `monai:UNet`, `onnx:FILE`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segfaith.errors import SettingsError
from segfaith.models.adapters import hf, monai, onnx, smp, torchvision
from segfaith.models.adapters.entry import Adapted, Adapter
from segfaith.models.building import seeded
from segfaith.paths import absolute

__all__ = ["ADAPTERS", "Adapted", "Adapter", "adapted", "short_name", "with_absolute_path"]

ADAPTERS: dict[str, Adapter] = {
    "smp": Adapter(
        smp.load,
        "segmentation_models_pytorch",
        "smp",
        "smp:Unet",
        "an architecture of segmentation_models_pytorch; args go to its class",
    ),
    "hf": Adapter(
        hf.load,
        "transformers",
        "hf",
        "hf:FOLDER_OR_ID",
        "a segmentation model of transformers, from a local folder or the hub",
        reads="folder",
    ),
    "torchvision": Adapter(
        torchvision.load,
        "torchvision",
        "",
        "torchvision:fcn_resnet101",
        "any segmentation model of torchvision; args go to its builder",
    ),
    "monai": Adapter(
        monai.load,
        "monai",
        "monai",
        "monai:UNet",
        "a network of MONAI in two dimensions; args go to its class",
    ),
    "onnx": Adapter(
        onnx.load,
        "onnxruntime",
        "onnx",
        "onnx:FILE",
        "an ONNX file, run by onnxruntime on the CPU; no gradient methods",
        reads="file",
    ),
}
"""Libraries by the prefix of their models' names. A prefix is no module that one could import, but for `torchvision`,
`monai` and `onnx`, which hold no function at their root that builds a model: `monai.networks:f` is still a function."""


def adapted(name: str, args: Mapping[str, Any], seed: int) -> Adapted | None:
    """The model of a library, `PREFIX:NAME`; None where the name has no prefix of `ADAPTERS`.

    Random weights are drawn with `seed`.

    Raises:
        SettingsError: the library is not installed, or the model cannot be built.
    """
    prefix, colon, rest = name.partition(":")
    if not colon or prefix not in ADAPTERS:
        return None
    entry = ADAPTERS[prefix]
    if not rest:
        raise SettingsError(f"model {name!r} names no model of {entry.library}; expected a name such as {entry.usage}")
    if not entry.installed:
        raise SettingsError(f"{name} needs {entry.library}; install it with: {entry.remedy}")
    built: Adapted = seeded(name, lambda: entry.load(rest, args), args, seed)
    return built


def with_absolute_path(name: str, base: Path) -> str:
    """The name with the path in it made absolute, relative to `base`; other names as they are.

    What follows `hf:` is a path where such a folder is there.
    """
    prefix, _, rest = name.partition(":")
    reads = ADAPTERS[prefix].reads if prefix in ADAPTERS and rest else ""
    if not reads:
        return name
    path = absolute(rest, base)
    return f"{prefix}:{path}" if reads == "file" or path.is_dir() else name


def short_name(name: str) -> str:
    """The name of a library's model as outputs show it: without the folders of a path in it."""
    prefix, _, rest = name.partition(":")
    path = Path(rest).expanduser()
    return f"{prefix}:{path.name}" if ADAPTERS[prefix].reads and path.exists() else name
