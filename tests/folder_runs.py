"""A small folder data set, a tiny model in a file of its own and settings over both, shared by the tests of runs."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import segfaith
import segfaith.cli
from segfaith.benchmark.prepared import Prepared, prepare
from segfaith.benchmark.settings import make_settings
from segfaith.cli import main
from segfaith.results.records.runs import load_run

CLASSES = ["background", "box", "disc"]
SIZE = (40, 56)

ALL = ["gpa", "ega", "ria", "dea", "random", "random_cells", "mask", "gamed"]

SPEC_COLUMNS = [
    "sample_id",
    "class_index",
    "method",
    "target_area",
    "target_iou",
    "s",
    "s_target_deleted",
    "s_off_deleted",
    "s_baseline",
    "s_inserted",
    "tdd",
    "tdd_gain",
    "odd",
    "odd_abs",
    "leak_abs",
    "leak_signed",
    "insertion_gain",
    "stability",
    "stability_noise",
    "stability_brightness",
    "stability_contrast",
    "stability_blur",
    "stability_flip",
    "runtime_s",
    "degenerate",
    "tied_share_target",
    "tied_share_off",
    "status",
    "reason",
]

METRIC_COLUMNS = [*SPEC_COLUMNS[5:17], "degenerate", "tied_share_target", "tied_share_off"]

QUICK = {"methods": {"names": ["random"], "ria": {"grid": 4}}}

MODEL = '''
"""A fixed three-class segmenter with global context.

It returns NaN for a red image, and hangs as soon as the file that TINY_HANGS_AT names is there.
"""

import os
import time

import torch
from torch import nn


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(20)
        self.backbone = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU())
        self.head = nn.Conv2d(6, 3, 3, padding=1)
        self.context = nn.Conv2d(6, 3, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.6)

    def forward(self, x):
        if os.path.exists(os.environ.get("TINY_HANGS_AT", "")):
            time.sleep(600)
        features = self.backbone(x)
        logits = self.head(features) + self.context(features.mean((2, 3), keepdim=True))
        red = (x[:, 0].mean((1, 2)) > 0.9) & (x[:, 1:].mean((1, 2, 3)) < 0.1)
        return torch.where(red[:, None, None, None], torch.nan, logits)


def build():
    return Tiny()
'''


OWN_METHODS = """
import numpy as np
import torch


def raises(model, image, target):
    raise KeyError("no such thing")


def wrong_shape(model, image, target):
    return torch.zeros(3, 3)


def not_a_number(model, image, target):
    return torch.full(image.shape[1:], torch.nan)


def text(model, image, target):
    return "a map"


def red(model, image, target):
    return image[0].numpy()
"""
"""Methods of one's own, all of which fail but the last."""


def sample_arrays(index: int) -> tuple[np.ndarray, np.ndarray]:
    """A textured photograph (H, W, 3) and its labels: a box or a disc's square dominates, with a strip of 255."""
    rng = np.random.default_rng(index)
    labels = np.zeros(SIZE, dtype=np.uint8)
    large, small = (1, 2) if index % 2 else (2, 1)
    labels[8:26, 10 + index : 32 + index] = large
    labels[30:36, 40:50] = small
    labels[:, 55] = 255
    colours = rng.uniform(0.1, 0.9, (3, 3))
    image = colours[np.where(labels == 255, 0, labels)] + rng.normal(0, 0.08, (*SIZE, 3))
    return (image.clip(0, 1) * 255).round().astype(np.uint8), labels


def add_sample(root: Path, name: str, image: np.ndarray, labels: np.ndarray | None) -> None:
    """Writes one image and, unless None, its mask."""
    Image.fromarray(image).save(root / "images" / f"{name}.png")
    if labels is not None:
        Image.fromarray(labels).save(root / "masks" / f"{name}.png")


def make_project(root: Path, samples: int = 6) -> Path:
    """Writes `data/` (samples s0, s1, ...), `tiny.py` and its weights `tiny.pth`; returns the folder."""
    for folder in ("images", "masks"):
        (root / "data" / folder).mkdir(parents=True)
    (root / "data" / "classes.txt").write_text("\n".join(CLASSES))
    for index in range(samples):
        add_sample(root / "data", f"s{index}", *sample_arrays(index))
    (root / "tiny.py").write_text(MODEL)
    torch.save(segfaith.load_model(f"{root / 'tiny.py'}:build").module.state_dict(), root / "tiny.pth")
    return root


def content(root: Path | str, **changes: Mapping[str, Any] | Any) -> dict[str, Any]:
    """Settings of a quick run over `make_project`'s folder; a keyword updates a section, or sets a top-level key."""
    base: dict[str, Any] = {
        "name": "small",
        "data": {"name": "folder", "root": f"{root}/data", "size": 32},
        "model": {
            "name": f"{root}/tiny.py:build",
            "weights": f"{root}/tiny.pth",
            "layer": "backbone.1",
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
        },
        "methods": {"ria": {"grid": 4}},
        "evaluation": {"stability": False},
        "execution": {"device": "cpu"},
    }
    for key, value in changes.items():
        base[key] = {**base.get(key, {}), **value} if isinstance(value, Mapping) else value
    return base


def toml(values: Mapping[str, Any]) -> str:
    """A settings dictionary as TOML (strings, numbers, booleans, lists, and tables inside sections)."""

    def literal(value: Any) -> str:
        if isinstance(value, Mapping):
            return "{ " + ", ".join(f"{key} = {literal(one)}" for key, one in value.items()) + " }"
        return json.dumps(value)

    lines = [f"{key} = {literal(value)}" for key, value in values.items() if not isinstance(value, Mapping)]
    for key, table in values.items():
        if isinstance(table, Mapping):
            lines += [f"[{key}]", *(f"{name} = {literal(value)}" for name, value in table.items())]
    return "\n".join(lines) + "\n"


def write_settings(root: Path, **changes: Any) -> Path:
    """Writes `settings.toml` into a project's folder, with paths relative to it."""
    path = root / "settings.toml"
    path.write_text(toml(content(".", **changes)))
    return path


def run_records(root: Path, directory: Path, **changes: Any) -> pd.DataFrame:
    """Runs in this process and returns the records."""
    segfaith.run(make_settings(content(root, **changes)), directory)
    return load_run(directory).records


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit status of `segfaith ARGUMENTS`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["segfaith", *map(str, arguments)])
    monkeypatch.setattr("segfaith.benchmark.executors.SMALL", float("inf"))  # on a slow machine too, only as asked for
    monkeypatch.setattr(segfaith.cli, "bound_memory", lambda: False)  # it would bind all tests after this one
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code or 0


def by_method(records: pd.DataFrame, method: str) -> pd.DataFrame:
    """One method's rows, indexed by sample."""
    return records[records["method"] == method].set_index("sample_id")


RAW = ("s", "s_target_deleted", "s_off_deleted", "s_baseline", "s_inserted")


def assert_same_records(first: pd.DataFrame, second: pd.DataFrame, derived: float = 0.0) -> None:
    """Raw scores to 1e-5, other figures to `derived` (0: exactly; quotients of
    small numbers to ten times that, relatively), words and classes exactly; runtimes, and the workers and
    machines that measured, not at all.
    """
    assert list(first.columns) == list(second.columns)
    assert len(first) == len(second) > 0
    for name in first.columns:
        a, b = first[name].to_numpy(), second[name].to_numpy()
        if name in ("runtime_s", "workers", "machine"):
            continue
        if a.dtype.kind == "f":
            raw = name in RAW
            tolerances = {"rtol": 0 if raw else 10 * derived, "atol": 1e-5 if raw else derived}
            np.testing.assert_allclose(a, b, **tolerances, err_msg=name)
        else:
            assert [x for x in a if pd.notna(x)] == [x for x in b if pd.notna(x)], name


def prepared_scenes(n: int = 8, **changes: Any) -> Prepared:
    """A quick run over small scenes with an untrained model."""
    given = {
        "data": {"name": "scenes", "size": 64, "ids": [f"val-{i:04d}" for i in range(n)]},
        "model": {"name": "scenes", "weights": "random"},
        "methods": {"names": ["mask"]},
        "evaluation": {"stability": False},
        "execution": {"device": "cpu"},
    }
    return prepare(make_settings(given | changes))
