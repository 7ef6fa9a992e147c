"""Runs over photographs of their own sizes, with padding and with tiles."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import segfaith
from folder_runs import MODEL, command, content, make_project, run_records, sample_arrays, write_settings
from segfaith.benchmark.settings import make_settings
from segfaith.errors import SettingsError
from segfaith.results.records.identity import run_key
from toys import SmallCNN

SIZES = {"s0": (40, 56), "s1": (56, 40), "s2": (16, 16), "s3": (9, 120), "s4": (41, 23)}
"""Height and width: one and its transpose, a very small image, a long thin one, and odd sides."""
METHODS = [
    "gpa",
    "ega",
    "ria",
    "ria@regions=superpixels,grid=3",
    "ria@regions=adaptive,grid=4,passes=12",
    "dea",
    "random",
]


def resize(root: Path) -> None:
    for index, (name, (height, width)) in enumerate(SIZES.items()):
        image, labels = sample_arrays(index)
        Image.fromarray(image).resize((width, height)).save(root / "data" / "images" / f"{name}.png")
        mask = Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST)
        mask.save(root / "data" / "masks" / f"{name}.png")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("native"), samples=len(SIZES))
    resize(root)
    return root


def native(**changes: Any) -> dict[str, Any]:
    return {
        "data": {"size": "native"},
        "methods": {"names": METHODS, "ria": {"grid": 3}, "dea": {"grid": 3}},
        "evaluation": {"stability": 1},
        "output": {"maps": True},
        **changes,
    }


def check_all_measured(records: Any, directory: Path) -> None:
    assert set(records["sample_id"]) == set(SIZES)
    assert list(records.loc[records["status"] != "ok", "reason"]) == []
    assert records["s"].between(0, 1).all()
    assert records["stability"].notna().any()
    for name, size in SIZES.items():
        maps = [np.load(file) for file in (directory / "maps" / name).glob("*.npy")]
        assert len(maps) > 4
        assert {heatmap.shape for heatmap in maps} == {size}


@pytest.mark.parametrize("chosen", [{}, {"pad": 32}, {"tile": [24, 32], "overlap": 8}], ids=["plain", "pad", "tile"])
def test_photographs_of_all_sizes_are_measured(project: Path, tmp_path: Path, chosen: dict[str, Any]) -> None:
    records = run_records(project, tmp_path / "run", **native(model=chosen))
    check_all_measured(records, tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    recorded = {key: about["model"][key] for key in ("pad", "tile", "overlap")}
    assert recorded == {"pad": None, "tile": None, "overlap": None} | chosen
    expected = "tiled: 24 x 32, overlap 8" if "tile" in chosen else "incremental"
    assert set(records["path"]) == {expected}


@pytest.mark.parametrize("chosen", [{}, {"pad": 16}, {"tile": 24, "overlap": 8}], ids=["plain", "pad", "tile"])
def test_grey_images_of_all_sizes_are_measured(chosen: dict[str, Any]) -> None:
    """By a model of one channel, with stability; the last methods cut images into superpixels and adaptive cells."""
    module = SmallCNN()
    module.backbone[0] = torch.nn.Conv2d(1, 8, 3, stride=2, padding=1)
    torch.nn.init.normal_(module.backbone[0].weight, std=0.5, generator=torch.Generator().manual_seed(0))
    model = segfaith.wrap(module, layer="backbone.4", channels=1, **chosen)
    for height, width in SIZES.values():
        image = torch.rand(1, height, width, generator=torch.Generator().manual_seed(width))
        region = torch.zeros(height, width, dtype=torch.bool)
        region[2:8, 3:12] = True
        methods = ["ega", "ria@grid=3", "ria@regions=superpixels,grid=3", "ria@regions=adaptive,grid=4,passes=12"]
        frame = segfaith.evaluate(model, image, segfaith.Target(1, region), methods, stability=True)
        assert list(frame.loc[frame["status"] != "ok", "reason"]) == []
        assert frame["stability"].notna().any()


def test_a_run_over_sizes_that_a_model_refuses_says_which_padding_helps(tmp_path: Path) -> None:
    """With it, every sample is measured; the rows of the run without it offer it."""
    root = make_project(tmp_path, samples=len(SIZES))
    resize(root)
    check = "        if x.shape[-1] % 16 or x.shape[-2] % 16:\n            raise RuntimeError('sizes /16')\n"
    line = "        features = self.backbone(x)"
    (root / "tiny.py").write_text(MODEL.replace(line, check + line))
    quick = native(methods={"names": ["ega"]}, evaluation={"stability": False}, output={})
    failed = run_records(root, tmp_path / "without", **quick)
    assert set(failed.loc[failed["sample_id"] == "s2", "status"]) == {"ok"}
    reasons = failed.loc[failed["status"] == "failed", "reason"]
    assert len(set(failed.loc[failed["status"] == "failed", "sample_id"])) == 4
    assert reasons.str.contains(r"sizes /16; it takes the same images padded from .*: say pad = 16, or").all()
    measured = run_records(root, tmp_path / "with", **quick, model={"pad": 16})
    assert set(measured["status"]) == {"ok"}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"pad": 0}, r"pad = 0: expected a whole number of pixels"),
        ({"tile": 64}, "tile = 64 needs overlap"),
        ({"tile": 64, "overlap": 64}, "overlap = 64: expected whole pixels from 0 to below the tile's side, 64"),
        ({"overlap": 8}, "there is no tile"),
        ({"tile": [64, 40], "overlap": 8, "pad": 32}, r"tile = \[64, 40\] is not divisible by pad = 32"),
        ({"tile": "large", "overlap": 8}, r"model\.tile"),
        (
            {"tile": [32, 33], "overlap": 8},
            r"model\.tile = \[32, 33\] is larger than the images at data\.size = 32, .* set",
        ),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, model: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make_settings(content(tmp_path, model=model))


def test_padding_and_tiles_make_runs_of_their_own() -> None:
    """And a run without them is the same draw as one from before there were any."""

    def key(**chosen: Any) -> str:
        settings = {"seed": 0, "data": {}, "model": {"name": "m", **chosen}}
        return run_key({"data": {"name": "voc2012", "split": "val"}, "model": {"name": "m"}, "settings": settings})

    assert key() == key(pad=None, tile=None, overlap=None)
    assert len({key(), key(pad=32), key(pad=16), key(tile=512, overlap=64), key(tile=512, overlap=32)}) == 5


def test_a_dry_run_says_whose_size_the_times_are_for(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = {"tile": 32, "overlap": 8, "pad": 16}
    settings = write_settings(
        project, data={"root": "data", "size": "native"}, model=chosen, methods={"names": ["ega"]}
    )
    assert command(monkeypatch, "run", settings, "--dry-run") == 0
    lines = capsys.readouterr().out.splitlines()
    (time,) = (line for line in lines if line.startswith("time "))
    assert time.endswith("(timed on s0, 40 x 56: as if all samples had this size)")
    assert "ok    padding   sides to multiples of 16" in lines
    assert "ok    tiles     32 x 32, overlap 8" in lines
