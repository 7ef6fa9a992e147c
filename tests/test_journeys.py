"""docs/journeys.md: the settings and commands of the page run as they stand on the stand-ins, at small sizes."""

import json
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))

import journeys

from folder_runs import ALL, command
from segfaith.results.figures.tiles import GAP, HEAD, TILE
from segfaith.results.records.runs import load_run

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = dict(
    zip(("cells", "segformer", "tiles"), (ROOT / "docs/journeys.md").read_text("utf-8").split("\n## ")[1:], strict=True)
)
FAST = "--set evaluation.stability=false --set methods.ria.grid=2 --set execution.incremental=false"
SMALL = f"-n 2 {FAST}"
MASK = f"""-n 1 {FAST} --set 'methods.names=["mask"]'"""
PICTURE = (len(ALL) + 1) * (TILE + GAP) - GAP, TILE + HEAD + GAP
TOLD = ("head ", "colours ", "layer ", "image: ", "default: ", "in use: ")


def blocks(name: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", SECTIONS[name], flags=re.DOTALL)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-ins, hardly trained, and the page's settings."""
    root = tmp_path_factory.mktemp("journeys")
    journeys.main(root, steps=2)
    for name in SECTIONS:
        (root / f"{name}.toml").write_text(blocks(name, "toml")[0], encoding="utf-8")
    return root


@pytest.fixture
def printed(project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> object:
    """A function that runs `segfaith WORDS` in the project and gives exit status and all that was printed."""
    monkeypatch.chdir(project)

    def run(words: str) -> tuple[int, str]:
        status = command(monkeypatch, *shlex.split(words))
        told = capfd.readouterr()
        return status, told.out + told.err

    return run


def travel(name: str, printed: object, project: Path, more: str = "") -> tuple[pd.DataFrame, Path]:
    """Gives the page's commands, and checks what every journey must give; the records and the run directory."""
    lines = blocks(name, "console")[0].splitlines()
    assert [line.split()[1] for line in lines] == ["check", "list", "run", "report"]
    text = ""
    for line in lines[1:]:
        verb = line.removeprefix("segfaith ").removesuffix(" --html")
        small = {"run": f"{SMALL} {more}", "list": more, "report": ""}[verb.split()[0]]
        status, told = printed(re.sub(r"--set evaluation.stability=\d", "", verb) + " " + small)  # type: ignore[operator]
        assert status == 0, told
        text += told
    expected = [line for line in blocks(name, "text") for line in line.splitlines() if line.startswith(TOLD)]
    assert expected
    if name != "segformer":  # whose page shows the output without a layer
        assert [line for line in expected if line not in text] == []
    directory = project / "runs" / name
    run = load_run(directory)
    assert len(run.records) == 2 * len(ALL)
    assert set(run.records["status"]) == {"ok"}
    assert run.records.groupby("sample_id")["method"].apply(set).tolist() == [set(ALL)] * 2
    assert (directory / "table.csv").is_file()
    for sample_id in run.records["sample_id"].unique():
        assert Image.open(directory / f"pictures/{sample_id}.png").size == PICTURE
        assert (directory / f"maps/{sample_id}/prediction.png").is_file()
    assert Image.open(directory / "pictures.png").size == (PICTURE[0], 2 * PICTURE[1])
    return run.records, directory


def model_of(directory: Path) -> dict[str, object]:
    return json.loads((directory / "run.json").read_text("utf-8"))["model"]


def shown(directory: Path, sample_id: str) -> np.ndarray:
    return np.asarray(Image.open(directory / f"maps/{sample_id}/image.png")).astype(float)


@pytest.mark.parametrize("name", SECTIONS)
def test_the_users_own_lines_are_fifteen_at_most(name: str) -> None:
    assert 8 < len([line for line in blocks(name, "toml")[0].splitlines() if line.strip()]) <= 15


def test_a_binary_unet_on_grey_images(printed: object, project: Path) -> None:
    records, directory = travel("cells", printed, project)
    assert model_of(directory)["channels"] == 1
    assert set(records["class_index"]) == {1}
    for sample_id in records["sample_id"].unique():
        grey = np.asarray(Image.open(project / f"cells/images/{sample_id}.png")).astype(float)
        np.testing.assert_array_equal(shown(directory, sample_id), np.repeat(grey[..., None], 3, 2))
        mask = np.asarray(Image.open(project / f"cells/masks/{sample_id}.png")) == 255
        np.testing.assert_allclose(records["target_area"][records["sample_id"] == sample_id], mask.mean(), atol=1e-6)


def test_what_goes_wrong_with_grey_images_is_told(printed: object, project: Path) -> None:
    """Two pitfalls of the page: no `foreground`, no `in_channels`."""
    text = blocks("cells", "toml")[0]
    (project / "no_foreground.toml").write_text(text.replace("foreground = 255\n", ""), encoding="utf-8")
    status, told = printed(f"run no_foreground.toml -o runs/a {MASK}")  # type: ignore[operator]
    assert status == 1
    assert "if 255 is the foreground here, set [data] foreground = 255" in told
    (project / "three.toml").write_text(text.replace("in_channels = 1, ", ""), encoding="utf-8")
    status, told = printed(f"run three.toml -o runs/b {MASK}")  # type: ignore[operator]
    assert status == 2
    assert "the weights of unet.pth do not fit Unet: size mismatch for encoder.conv1.weight" in told


def test_four_channels(printed: object, project: Path) -> None:
    status, told = printed("check tiles.toml")  # type: ignore[operator]
    assert status == 0, told
    assert "\n0 fail, " in told
    records, directory = travel("tiles", printed, project)
    assert model_of(directory)["channels"] == 4
    assert model_of(directory)["layer"] == "0"
    for sample_id in records["sample_id"].unique():
        tile = np.load(project / f"tiles/images/{sample_id}.npy").astype(float)
        expected = tile[[2, 1, 0]].transpose(1, 2, 0) / 10000 * 255
        np.testing.assert_allclose(shown(directory, sample_id), expected, atol=1)


def test_tiles_without_a_range_say_so(printed: object, project: Path) -> None:
    text = blocks("tiles", "toml")[0]
    (project / "no_range.toml").write_text(text.replace("range = [0, 10000]\n", ""), encoding="utf-8")
    status, told = printed(f"run no_range.toml -o runs/c {MASK}")  # type: ignore[operator]
    assert status == 1
    assert "whose range nobody can tell; set [data] range = [LOW, HIGH]" in told


@pytest.mark.realdata
def test_segformer_on_photographs(printed: object, project: Path, shared: Path) -> None:
    (project / "data").mkdir()
    (project / "data/voc").symlink_to(shared / "voc")
    records, directory = travel("segformer", printed, project, "--set data.size=64")
    assert model_of(directory)["channels"] == 3
    assert model_of(directory)["layer"] == "segformer.stages.2"
    assert shown(directory, records["sample_id"].iloc[0]).shape == (64, 64, 3)
    text = blocks("segformer", "toml")[0]
    (project / "no_layer.toml").write_text(re.sub("layer = .*\n", "", text), encoding="utf-8")
    names = """--set 'methods.names=["gpa"]' --set data.size=64"""
    status, told = printed(f"run no_layer.toml -o runs/d {SMALL} {names}")  # type: ignore[operator]
    assert status == 0
    for line in blocks("segformer", "text")[0].splitlines():
        assert line in told


@pytest.mark.realdata
def test_other_classes_than_vocs_need_a_table(printed: object, project: Path, shared: Path) -> None:
    """A stand-in for ADE20K's classes: refused on VOC, measured with the page's `labels`."""
    voc = shared / "voc/VOCdevkit/VOC2012"
    classes = ["wall", "car", "animal", "person", *(f"class {index}" for index in range(4, 21))]
    folder = project / "segformer-ade"
    journeys.segformer(folder)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config |= {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    few = f"""{SMALL} --set data.size=64 --set 'methods.names=["mask"]'"""
    model = "--set model.name=hf:segformer-ade"
    status, told = printed(f"run segformer.toml -o runs/e {few} {model} --set data.root={shared / 'voc'}")  # type: ignore[operator]
    assert status == 2
    assert "class 0 is 'wall' for the model and 'background' for the data" in told
    assert "by [data] labels with the model's names as [data] classes" in told
    (project / "photos").mkdir()
    (project / "photos/images").symlink_to(voc / "JPEGImages")
    (project / "photos/masks").symlink_to(voc / "SegmentationClass")
    (project / "ade20k.txt").write_text("\n".join(classes), encoding="utf-8")
    known = {0: 255, 7: 1, 12: 2, 15: 3, 255: 255}
    ids = {}
    for mask in sorted((voc / "SegmentationClass").iterdir()):
        values = set(np.unique(np.asarray(Image.open(mask))).tolist())
        if values <= known.keys() and len(values - {0, 255}) == 1:
            ids[mask.stem] = known[(values - {0, 255}).pop()]
        if len(ids) == 2:
            break
    settings = f'{blocks("segformer", "toml")[1]}ids = {json.dumps(list(ids))}\n[model]\nname = "hf:segformer-ade"\n'
    (project / "ade.toml").write_text(settings, encoding="utf-8")
    status, told = printed(f"run ade.toml -o runs/f {few.removeprefix('-n 2 ')}")  # type: ignore[operator]
    assert status == 0, told
    records = load_run(project / "runs/f").records
    assert set(records["status"]) == {"ok"}
    assert dict(zip(records["sample_id"], records["class_index"], strict=True)) == ids
