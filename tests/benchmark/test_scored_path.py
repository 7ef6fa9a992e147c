"""Which path scored: in the records, in run.json, on the screen, and in `verify-precision`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import segfaith
from folder_runs import command, content, make_project, write_settings
from segfaith.benchmark.fast_modes import verify_precision
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.settings import make_settings
from segfaith.results.records.runs import load_run

DECIDES = "symbolically traced variables cannot be used as inputs to control flow"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path, samples=3)


def quick(**changes: Any) -> dict[str, Any]:
    return {"methods": {"names": ["ega"]}, **changes}


def deciding(project: Path) -> None:
    """The model asks its features' values, which cannot be traced."""
    file = project / "tiny.py"
    line = "        logits = self.head(features)"
    text = file.read_text().replace(line, f"        if features.mean() > 1e9:\n            return x\n{line}")
    assert "1e9" in text
    file.write_text(text)


@pytest.mark.parametrize(
    ("how", "path"),
    [
        ("as it is", "incremental"),
        ("off", "plain: incremental = false"),
        ("untraceable", f"plain: TraceError: {DECIDES}"),
    ],
)
def test_a_run_says_which_path_scored_it_and_why(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], how: str, path: str
) -> None:
    if how == "untraceable":
        deciding(project)
    settings = write_settings(project, **quick(execution={"device": "cpu", "incremental": how != "off"}))
    assert command(monkeypatch, "run", settings, "--dry-run") == 0
    assert f"scored    {path}" in capsys.readouterr().out.splitlines()
    assert command(monkeypatch, "run", settings, "-o", project / "run") == 0
    heard = capsys.readouterr()
    lines = heard.out.splitlines()
    assert f"scored    {path}" in heard.err.splitlines()
    assert (f"scored {path}: 3 sample(s)" in lines) == (how != "as it is")
    assert json.loads((project / "run" / "run.json").read_text())["path"] == path
    records = load_run(project / "run").records
    assert list(records["path"]) == [path] * len(records)


def test_samples_of_native_sizes_have_paths_of_their_own(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One photograph has another size, at which the model decides otherwise; one has no target."""
    file = project / "tiny.py"
    line = "        logits = self.head(features)"
    file.write_text(
        file.read_text().replace(line, f"        if x.shape[2] < 30:\n            features = features * 0.3\n{line}")
    )
    image, mask = (Image.open(project / "data" / folder / "s1.png") for folder in ("images", "masks"))
    image.resize((40, 24)).save(project / "data" / "images" / "s1.png")
    mask.resize((40, 24), Image.Resampling.NEAREST).save(project / "data" / "masks" / "s1.png")
    empty = Image.fromarray(np.zeros((40, 56), dtype=np.uint8))
    empty.save(project / "data" / "masks" / "s2.png")
    data = {"name": "folder", "root": "data", "size": "native"}
    settings = write_settings(project, **quick(data=data))
    assert command(monkeypatch, "run", settings, "-o", project / "run") == 0
    lines = capsys.readouterr().out.splitlines()
    records = load_run(project / "run").records.drop_duplicates("sample_id").set_index("sample_id")
    words = "plain: its graph scores noise otherwise than the model itself at 24 x 40: scores differ by "
    assert records["path"]["s0"] == "incremental"
    assert records["path"]["s1"].startswith(words)
    assert records["path"].isna()["s2"]
    assert "scored incremental: 1 sample(s)" in lines
    assert f"scored {records['path']['s1']}: 1 sample(s)" in lines


def test_precision_says_which_path_each_mode_took(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = verify_precision(prepare(make_settings(content(project))), ("exact",), stability=False)
    assert dict(found["path"]) == {"plain": "plain: incremental = false", "exact": "incremental"}
    deciding(project)
    arguments = ("verify-precision", write_settings(project), "-n", "1", "--no-stability", "--mode", "exact")
    assert command(monkeypatch, *arguments) == 0
    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("exact: "))
    assert line == f"exact: incremental inference in float32, the default; scored plain: TraceError: {DECIDES}"


def test_a_frame_of_one_image_says_which_path_scored_it(project: Path) -> None:
    model = segfaith.load_model(f"{project / 'tiny.py'}:build", layer="backbone.1")
    image = segfaith.load_image(project / "data" / "images" / "s0.png", 32)
    for incremental, path in ((True, "incremental"), (False, "plain: incremental = false")):
        model.incremental = incremental
        assert set(segfaith.evaluate(model, image, methods=["ega"])["path"]) == {path}
