"""The pictures of a run: which files there are, their sizes, and the colours of their outlines."""

from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from segfaith.results.figures.overlay import picture
from segfaith.results.figures.tiles import GAP, HEAD, OVERVIEW, TILE, write_pictures

METHODS = ["gpa", "dea@alpha=0.8,beta=0.2", "maps:../their/maps", "own.py:build"]
DESCRIPTION = {
    "model": {"classes": ["background", "box"]},
    "data": {},
    "methods": {name: {"label": None} for name in METHODS},
}


def mask(size: tuple[int, int], rows: slice, columns: slice) -> np.ndarray:
    result = np.zeros(size, dtype=bool)
    result[rows, columns] = True
    return result


def add_maps(directory: Path, sample_id: str, size: tuple[int, int] = (48, 48), evidence: bool = False) -> None:
    """What a run keeps of one sample."""
    folder = directory / "maps" / sample_id
    folder.mkdir(parents=True)
    picture(np.full((3, *size), 0.5)).save(folder / "image.png")
    for name, there in (("target", True), ("evidence", evidence)):
        if there:
            half = slice(size[1] // 3, size[1] // 2)
            picture(np.repeat(mask(size, slice(8, 20), half)[None].astype(float), 3, 0)).save(folder / f"{name}.png")
    for method in METHODS:
        np.save(folder / f"{method.replace('/', '_')}.npy", np.zeros(size, dtype=np.float32))


def records(*samples: str, **columns: Any) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"sample_id": sample, "target": "", "method": method, "class_index": 1, "status": "ok", "tdd": 0.25}
            | columns
            for sample in samples
            for method in METHODS
        ]
    )


@pytest.mark.parametrize(("side", "title"), [("model", "box"), ("data", "box"), ("", "class 1")])
def test_tiles_bear_class_names_of_either_side_and_labels(
    side: str, title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words: list[str] = []
    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda self, at, text, *rest: words.append(text))
    add_maps(tmp_path, "a")
    named = {key: {"classes": ["background", "box"] if key == side else None} for key in ("model", "data")}
    methods = DESCRIPTION["methods"] | {"own.py:build": {"label": "Ours"}}
    write_pictures(tmp_path, named | {"methods": methods}, records("a"))
    assert words[:2] == ["a", title]
    assert words[2::2] == [*METHODS[:-1], "Ours"]


def test_a_row_of_tiles_for_each_sample_and_an_overview(tmp_path: Path) -> None:
    add_maps(tmp_path, "a")
    add_maps(tmp_path, "b", evidence=True)
    paths = write_pictures(tmp_path, DESCRIPTION, records("a", "b", evidence_ap=0.5))
    assert paths == [tmp_path / f"{name}.png" for name in ("pictures", "pictures/a", "pictures/b")]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["a.png", "b.png"]
    width, height = (1 + len(METHODS)) * (TILE + GAP) - GAP, TILE + HEAD + GAP
    sheets = [np.asarray(Image.open(path)) for path in paths]
    assert [sheet.shape for sheet in sheets] == [(2 * height, width, 3), (height, width, 3), (height, width, 3)]
    np.testing.assert_array_equal(sheets[0], np.concatenate(sheets[1:]))


def test_the_first_tile_shows_the_prediction_in_yellow_where_it_was_kept(tmp_path: Path) -> None:
    for name in ("with", "without"):
        add_maps(tmp_path, name)
    predicted = mask((48, 48), slice(8, 30), slice(16, 40))
    picture(np.repeat(predicted[None].astype(float), 3, 0)).save(tmp_path / "maps/with/prediction.png")
    write_pictures(tmp_path, DESCRIPTION, records("with", "without"))
    for name, expected in (("with", True), ("without", False)):
        tile = np.asarray(Image.open(tmp_path / "pictures" / f"{name}.png"))[HEAD : HEAD + TILE, :TILE].astype(int)
        yellow = (tile[..., 0] > 200) & (tile[..., 1] > 170) & (tile[..., 2] < 80)
        assert bool(yellow.any()) == expected, name


def test_the_first_tile_shows_the_evidence_in_cyan_where_there_is_some(tmp_path: Path) -> None:
    """An enlarged outline keeps its colour; without evidence nothing is cyan."""
    for name, evidence in (("with", True), ("without", False)):
        add_maps(tmp_path, name, evidence=evidence)
    write_pictures(tmp_path, DESCRIPTION, records("with", "without"))
    for name, expected in (("with", True), ("without", False)):
        tile = np.asarray(Image.open(tmp_path / "pictures" / f"{name}.png"))[HEAD : HEAD + TILE, :TILE].astype(int)
        cyan = (tile[..., 0] < 60) & (tile[..., 1] > 200) & (tile[..., 2] > 200)
        assert bool(cyan.any()) == expected, name


@pytest.mark.parametrize(("size", "tile"), [((30, 60), (96, 192)), ((60, 30), (192, 96)), ((300, 200), (192, 128))])
def test_maps_that_are_not_square_keep_their_proportions(
    tmp_path: Path, size: tuple[int, int], tile: tuple[int, int]
) -> None:
    """Grey fills exactly the scaled tile; the rest of its place is white."""
    add_maps(tmp_path, "a", size)
    write_pictures(tmp_path, DESCRIPTION, records("a"))
    sheet = np.asarray(Image.open(tmp_path / "pictures" / "a.png"))[HEAD:].astype(int)
    assert sheet.shape == (TILE + GAP, (1 + len(METHODS)) * (TILE + GAP) - GAP, 3)
    first = sheet[:, :TILE]
    assert (first[tile[0] :] == 255).all()
    assert (first[:, tile[1] :] == 255).all()
    assert abs(first[tile[0] - 1, tile[1] - 1] - 128).max() <= 2


def test_the_overview_holds_the_first_samples_only(tmp_path: Path) -> None:
    names = [f"s{i:03d}" for i in range(OVERVIEW + 2)]
    for name in names:
        add_maps(tmp_path, name, (24, 24))
    paths = write_pictures(tmp_path, DESCRIPTION, records(*names))
    assert len(paths) == 1 + len(names)
    assert Image.open(paths[0]).height == OVERVIEW * (TILE + HEAD + GAP)


def test_a_run_without_maps_has_no_pictures(tmp_path: Path) -> None:
    assert write_pictures(tmp_path, DESCRIPTION, records("a")) == []
    assert list(tmp_path.iterdir()) == []


def test_samples_and_methods_without_maps_are_left_out(tmp_path: Path) -> None:
    """A skipped sample, one whose maps are gone, and a method that failed."""
    add_maps(tmp_path, "a")
    rows = pd.concat([records("a"), records("gone"), records("skipped", status="skipped")], ignore_index=True)
    rows.loc[rows["method"] == "gpa", "status"] = "failed"
    paths = write_pictures(tmp_path, DESCRIPTION, rows)
    assert [path.name for path in paths] == ["pictures.png", "a.png"]
    assert Image.open(paths[1]).width == len(METHODS) * (TILE + GAP) - GAP


def test_words_stand_over_the_tiles_and_scores_only_where_they_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("PIL.ImageDraw.ImageDraw.text", lambda self, at, words, *rest: said.append(words))
    add_maps(tmp_path, "a")
    write_pictures(tmp_path, DESCRIPTION, records("a", evidence_ap=0.5))
    assert said == ["a", "box", *(words for name in METHODS for words in (name, "TDD 0.25, AP 0.50"))]
    said.clear()
    write_pictures(tmp_path, DESCRIPTION | {"model": {"classes": None}}, records("a", evidence_ap=nan))
    assert said[:4] == ["a", "class 1", "gpa", "TDD 0.25"]
    said.clear()
    write_pictures(tmp_path, DESCRIPTION, records("a"))
    assert said[3] == "TDD 0.25", "records from before there was an evidence score"


def test_each_target_of_an_image_has_its_own_picture(tmp_path: Path) -> None:
    """Images with several targets keep their maps in ID@TARGET."""
    for folder in ("a@dog", "a@dog-2", "b"):
        add_maps(tmp_path, folder)
    rows = pd.concat([records("a").assign(target="dog"), records("a").assign(target="dog-2"), records("b")])
    paths = write_pictures(tmp_path, DESCRIPTION, rows)
    names = ["pictures.png", "pictures/a@dog.png", "pictures/a@dog-2.png", "pictures/b.png"]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == names
    first, second = (Image.open(path).tobytes() for path in paths[1:3])
    assert first != second, "each names its target"
