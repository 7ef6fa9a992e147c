"""Shape checks on every call of the typed modules, and what several tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    for name in ("COLUMNS", "LINES"):  # a worker finds them set, and consoles would keep them; tests set their own
        os.environ.pop(name, None)

from jaxtyping import config

from typecheck import install

_TYPED = (
    *(
        "types",
        "models",
        "scores",
        "batching",
        "incremental",
        "occlusion",
        "perturbation",
        "targets",
        "evidence",
        "attribution",
    ),
    "evaluation",
)
install([f"segfaith.{name}" for name in _TYPED])

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from segfaith.incremental.fused import COMPILER  # noqa: E402
from segfaith.models.segmentation import SegmentationModel  # noqa: E402

COMPILER.missing = "in tests single steps are enough; tests of compiled code have a compiler of their own"

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real-data tests skip, or fail where they are required; GPU tests skip without a GPU."""
    for item in items:
        if item.get_closest_marker("realdata") and not SHARED.is_dir():
            if os.environ.get("SEGFAITH_REQUIRE_REALDATA") == "1":
                item.add_marker(pytest.mark.usefixtures("require_realdata"))
            else:
                item.add_marker(pytest.mark.skip(reason=f"no photographs and weights at {SHARED}"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def require_realdata() -> None:
    pytest.fail(f"SEGFAITH_REQUIRE_REALDATA=1, but there is no {SHARED}")


@pytest.fixture
def shared() -> Path:
    """The folder of real photographs and weights; tests that use it carry the marker `realdata`."""
    return SHARED


@pytest.fixture(scope="module")
def as_users() -> Iterator[None]:
    """Without the checks of every call, which take as long as the calls themselves.

    For modules about files, processes and words: other modules check the same calls.
    """
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", False)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def trained_model() -> SegmentationModel:
    """The really trained DeepLabV3 on MobileNetV2 (width 0.5) of the shared folder."""
    from segfaith import load_model

    return load_model(
        f"{SHARED / 'weights' / 'deeplab_mnv2.py'}:build",
        args={"width_mult": 0.5},
        weights=SHARED / "weights" / "deeplabv3_mnv2_w0.5_voc21.pth",
        layer="backbone.17",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        classes="voc",
    )
