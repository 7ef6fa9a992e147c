"""What `run.json` says of a run: settings, versions, weights, data and machine."""

import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import segfaith
from segfaith.attribution.libraries.entry import Scale
from segfaith.attribution.methods import MethodInstance
from segfaith.benchmark.passes import cost_words, evidence_passes, own_passes, scale_of
from segfaith.benchmark.plan import Plan, digest, identity, settings_in_use
from segfaith.models.segmentation import SegmentationModel

PACKAGES = ("segfaith", "torch", "torchvision", "numpy", "scipy", "pandas", "pyarrow", "pillow", "scikit-image")


def describe(plan: Plan, model: SegmentationModel, path: str) -> dict[str, Any]:
    """The content of `run.json`; `path` is how the warm-up's image was scored."""
    same = identity(plan, model)
    return {
        "identity": same,
        "identity_sha256": digest(same),
        "settings": settings_in_use(plan, model),
        "model": {
            "name": model.name,
            "weights": model.weights,
            "layer": model.layer,
            "layer_notes": model.layer_notes or None,
            "classes": model.classes,
            "head": model.head_words,
            "channels": model.input_channels,
            "mean": list(model.mean),
            "std": list(model.std),
            "pad": model.pad,
            "tile": model.tiling and list(model.tiling.tile),
            "overlap": model.tiling and model.tiling.overlap,
            "one_by_one": model.one_by_one or None,
            **model.provenance,
        },
        "data": {
            "name": plan.dataset.name,
            "split": plan.dataset.split,
            "classes": same["settings"]["data"]["classes"],
            "samples": plan.ids,
            "digest": same["data_digest"],
        },
        "methods": {
            method.name: {
                "label": plan.labels.get(method.name),
                "paper": method.method.paper,
                "parameters": method.parameters.model_dump(mode="json"),
                "cost": _cost(method, scale_of(plan.settings), model.layer),
            }
            for method in plan.methods
        },
        "path": path,
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in PACKAGES},
        "machine": {
            "system": platform.platform(),
            "device": _device(model),
            "threads": torch.get_num_threads(),
        },
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _cost(method: MethodInstance, scale: Scale, layer: str | None) -> str:
    """The model passes of one map: their number, or in words where it is known only as the model runs."""
    own = own_passes(method, scale)
    if own is None:
        return cost_words(method, scale)
    needed = method.gradient_key or method.intervention_key
    passes = own + (evidence_passes([method], layer) if needed else 0)
    return f"{passes} pass{'es' * (passes != 1)}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return segfaith.__version__ if package == "segfaith" else "unknown"


def machine_words(model: SegmentationModel) -> str:
    """What this process measures with, for the records: "AMD EPYC 7763, 2 threads"."""
    threads = torch.get_num_threads()
    return f"{_device(model)}, {threads} thread{'s' * (threads != 1)}"


def _device(model: SegmentationModel) -> str:
    return torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else _processor()


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
