"""segfaith: judge attribution maps of semantic-segmentation models by intervention.

The public names resolve on first use (PEP 562), so that `import segfaith` imports neither torch nor matplotlib.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Explanation": "segfaith.explanation",
    "Image": "segfaith.types",
    "Labels": "segfaith.types",
    "Map": "segfaith.types",
    "Mask": "segfaith.types",
    "Method": "segfaith.attribution.methods",
    "SampleError": "segfaith.errors",
    "SegfaithError": "segfaith.errors",
    "SegmentationModel": "segfaith.models.segmentation",
    "SettingsError": "segfaith.errors",
    "Target": "segfaith.types",
    "TargetChoice": "segfaith.target_choice",
    "evaluate": "segfaith.api",
    "explain": "segfaith.api",
    "find_targets": "segfaith.targets",
    "load_image": "segfaith.data.images",
    "load_model": "segfaith.models",
    "overlay": "segfaith.results.figures.overlay",
    "predicted_target": "segfaith.api",
    "run": "segfaith.benchmark.runner",
    "wrap": "segfaith.models.wrapping",
}
__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'segfaith' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
