"""One photograph: which region is explained, what is written, and the errors in words."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from colour_runs import SIZE, make_colours, picture, settings
from segfaith.benchmark.setting_tables import Settings
from segfaith.errors import SampleError, SettingsError
from segfaith.photograph import Explained, Wanted, explain_photo, listed, settings_of, write


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_colours(tmp_path_factory.mktemp("photo"))
    drawn = np.zeros(SIZE, np.uint8)
    drawn[8:20, 24:30] = 255  # right of the red box, whose columns end at 22
    Image.fromarray(drawn).save(root / "drawn.png")
    wide = picture(0)[1].copy()
    wide[6:22, 22:34] = 1  # the truth: red reaches farther than the colour
    Image.fromarray(wide).save(root / "truth.png")
    return root


def given(root: Path, **changes: Any) -> Settings:
    plain = settings(root, **changes)
    plain["model"] = {"classes": ["background", "red", "blue"]} | plain["model"]
    return settings_of(plain)


def explained(root: Path, wanted: Wanted | None = None, **changes: Any) -> Explained:
    return explain_photo(root / "data" / "images" / "p0.png", given(root, **changes), wanted)


def test_the_most_frequent_predicted_class_is_explained_and_the_shares_are_told(root: Path) -> None:
    result = explained(root)
    told = result.explanation
    assert result.chosen.startswith("red: the most frequent predicted class")
    assert next(iter(result.shares)) == "background"
    assert sum(result.shares.values()) == pytest.approx(1)
    assert list(told) == ["ega", "mask"]
    assert told.scores.loc["mask", "s"] > told.scores.loc["mask", "s_target_deleted"] + 0.05
    assert "red 2" in listed(result.shares)


def test_which_class_counts_as_the_background_is_that_of_the_settings_and_told(root: Path) -> None:
    result = explained(root, data={"background": "none"})
    assert result.chosen == "background: the most frequent predicted class"
    result = explained(root, data={"background": "red"}, model={"classes": ["soil", "red", "blue"]})
    assert result.chosen.startswith("soil: the most frequent predicted class other than red, which counts as the back")
    overlapping = explained(root, model={"head": "sigmoid"})
    assert overlapping.explanation.target.class_index == 0  # its logit is 5 everywhere


def test_classes_of_the_data_name_those_of_a_model_without_names(root: Path) -> None:
    content = settings(root, data={"classes": ["soil", "red", "blue"]}, target={"class": "blue"})
    result = explain_photo(root / "data" / "images" / "p0.png", settings_of(content))
    assert result.explanation.class_name == "blue"
    assert next(iter(result.shares)) == "soil"


def test_a_named_class_and_one_that_is_not_predicted(root: Path) -> None:
    result = explained(root, target={"class": "blue"})
    assert result.explanation.class_name == "blue"
    assert result.chosen == "where the model predicts blue"
    (root / "grey.png").unlink(missing_ok=True)
    Image.fromarray(np.full((*SIZE, 3), 60, np.uint8)).save(root / "grey.png")
    with pytest.raises(SampleError, match=r"class 2 \(blue\) does not occur in .*; the model predicts backgr"):
        explain_photo(root / "grey.png", given(root, target={"class": "blue"}))


def test_a_point_is_x_from_the_left_and_y_from_the_top_of_the_file(root: Path) -> None:
    result = explained(root, Wanted(point=(33, 27)))  # column 33, row 27 of 32 x 40: blue
    region = result.explanation.target.region
    assert result.explanation.class_name == "blue"
    assert result.chosen == "the connected region that is predicted as blue at x = 33, y = 27"
    assert bool(region[27, 33 * 32 // 40])
    with pytest.raises(SampleError, match="--point 40,3 lies outside the photograph, which is 40 px wide and 32"):
        explained(root, Wanted(point=(40, 3)))
    with pytest.raises(
        SampleError, match=r"--point 1,0 is class 0 \(background\).*not chosen; the model predicts backgr"
    ):
        explained(root, Wanted(point=(1, 0)))


def test_the_panel_shows_the_bands_that_the_settings_name(root: Path) -> None:
    told = explained(root, data={"display": [3, 2, 1]}).explanation
    drawn = told.figure().axes[0].images[0].get_array()
    plain = explained(root).explanation.figure().axes[0].images[0].get_array()
    assert drawn is not None
    assert plain is not None
    assert plain[100, 60, 0] > 200 > 50 > plain[100, 60, 2]  # a red pixel
    assert drawn[100, 60, 2] > 200 > 50 > drawn[100, 60, 0]
    with pytest.raises(SettingsError, match=r"\[data\] display shows channel 4 and the photograph has 3"):
        explained(root, data={"display": [4, 2, 1]})


def test_a_drawn_region_of_a_class(root: Path) -> None:
    result = explained(root, Wanted(mask=root / "drawn.png"), target={"class": "red"})
    region = result.explanation.target.region
    assert int(region.sum()) == 12 * round(6 * 32 / 40)
    assert result.explanation.scores["s"].iloc[0] < 0.1
    colours = np.zeros((*SIZE, 4), np.uint8)
    colours[8:20, 24:30] = [200, 0, 0, 255]
    colours[0:4] = [200, 0, 0, 0]  # transparent
    Image.fromarray(colours).save(root / "colours.png")
    painted = explained(root, Wanted(mask=root / "colours.png"), target={"class": "red"}).explanation.target.region
    assert bool((painted == region).all())
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(root / "small.png")
    with pytest.raises(SampleError, match=r"is 5 x 5 px \(width x height\); expected the photograph's 40 x 32"):
        explained(root, Wanted(mask=root / "small.png"), target={"class": "red"})


@pytest.mark.parametrize("by_mask", [False, True])
def test_what_the_model_misses_is_explained_by_the_margin_to_what_it_predicts(root: Path, by_mask: bool) -> None:
    wanted = Wanted(missed=True, truth=root / "truth.png")
    if by_mask:
        wanted = Wanted(missed=True, mask=root / "drawn.png")
    result = explained(root, wanted, target={"class": "red"})
    target = result.explanation.target
    assert (target.class_index, target.score, target.versus) == (1, "margin", 0)
    assert not bool((target.region & result.explanation.predicted).any())
    assert "it predicts background there, so the margin between both is explained" in result.chosen
    assert result.explanation.scores["s"].iloc[0] < 0
    assert "the red's margin to background from" in result.explanation.sentences["mask"][0]
    assert "red, mean margin to background s =" in result.explanation.figure()._suptitle.get_text()  # type: ignore[union-attr]
    told = result.content["target"]
    assert (told["versus"], told["versus_index"]) == ("background", 0)
    named = explained(root, wanted, target={"class": "red", "score": "log_odds"})
    assert named.explanation.target.score == "log_odds"
    asked = {"class": "red", "score": "conditional", "versus": "predicted"}
    target = explained(root, wanted, target=asked).explanation.target
    assert (target.score, target.versus) == ("conditional", 0)


def test_a_class_is_asked_for_among_two(root: Path) -> None:
    target = {"class": "red", "score": "conditional", "versus": "blue"}
    result = explained(root, target=target, methods={"names": ["ega", "mask"]})
    told = result.explanation
    with torch.no_grad():
        p = told.model.logits(told.image[None])[0].double().softmax(0)
    share = (p[1] / (p[1] + p[2]))[told.target.region]
    assert told.scores["s"].iloc[0] == pytest.approx(float(share.sum() / (len(share) + 1e-6)), abs=1e-6)
    assert (told.scores["score"] == "conditional against class 2").all()
    assert "the red's conditional probability against blue" in told.sentences["mask"][0]
    assert told.scores["tdd"].notna().all()
    assert "TDD" in told._repr_html_()
    assert result.content["target"]["versus"] == "blue"
    with pytest.raises(SettingsError, match=r"target.versus = 'twin' is of data sets that know twins; name the other"):
        explained(root, target={"score": "conditional", "versus": "twin"})


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(mask=Path("m.png")), "--mask is a region without a class; give --class NAME too"),
        (Wanted(missed=True), "--missed needs --truth FILE"),
        (Wanted(truth=Path("t.png")), "--truth says what the model misses; give --missed too"),
        (Wanted(point=(1, 1), mask=Path("m.png")), "--point takes no --mask and no --truth"),
        (Wanted(mask=Path("m.png"), truth=Path("t.png"), missed=True), "--mask and --truth exclude each other"),
    ],
)
def test_wishes_that_exclude_each_other_are_refused_before_anything_is_read(wanted: Wanted, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        explain_photo(Path("nowhere.png"), settings_of({"model": {"name": "scenes"}}), wanted)


def test_a_model_must_be_named() -> None:
    with pytest.raises(SettingsError, match="no model: give --model NAME"):
        settings_of({"data": {"size": 64}})


def test_parameters_of_methods_are_those_of_the_settings(root: Path) -> None:
    coarse = explained(root, methods={"names": ["ria"], "ria": {"grid": 2}}).explanation["ria"]
    assert len(coarse.unique()) <= 4


def test_the_folder_holds_panel_json_and_the_maps(root: Path, tmp_path: Path) -> None:
    result = explained(root)
    paths = write(result, tmp_path / "new" / "out", npy=True, tiff=True)
    assert [path.name for path in paths] == [
        "panel.png",
        "explanation.json",
        "ega.npy",
        "ega.tiff",
        "mask.npy",
        "mask.tiff",
    ]
    heatmap = np.load(paths[2])
    assert (heatmap.dtype, heatmap.shape) == (np.float32, (32, 32))
    np.testing.assert_array_equal(tifffile.imread(paths[3]), heatmap)
    content = json.loads(paths[1].read_text(encoding="utf-8"))
    assert content == json.loads(json.dumps(result.content))
    assert content["target"]["class"] == "red"
    assert content["size"] == {"height": 32, "width": 32}
    assert set(content["scores"]) == {"ega", "mask", "random_cells"}
    assert content["scores"]["ega"]["s"] == pytest.approx(float(result.explanation.scores.loc["ega", "s"]))
    assert len(content["sentences"]["ega"]) == 3
    with Image.open(paths[0]) as panel:
        assert panel.width > panel.height > 200


def test_a_grey_photograph_fits_a_model_of_three_channels(root: Path) -> None:
    Image.fromarray(picture(0)[0][..., 0]).save(root / "one.png")
    chosen = replace(Wanted(), point=None)
    with pytest.raises(SampleError, match="the model predicts background"):
        explain_photo(root / "one.png", given(root), chosen)


def test_a_method_that_the_model_refuses_is_told_and_the_others_are_shown(root: Path) -> None:
    alone = "gradcam:RefineCAM"
    result = explained(root, methods={"names": ["mask", alone, "ega"]})
    assert list(result.explanation) == ["mask", "ega"]
    words = result.content["refused"][alone]
    assert words.startswith("gradcam:RefineCAM multiplies the maps of several layers")
    assert set(result.content["scores"]) == {"mask", "ega", "random_cells"}
    below = result.explanation.figure()._supxlabel.get_text()  # type: ignore[attr-defined]
    assert below.replace("\n", " ") == f"No map of {alone}: {words}"
    with pytest.raises(SampleError, match="multiplies the maps of several layers"):
        explained(root, methods={"names": [alone]})
    with pytest.raises(
        SampleError, match=r"no method gives a map .*RefineCAM: .*layers.*RefineCAM@layer=head: "
    ) as all_:
        explained(root, methods={"names": [alone, f"{alone}@layer=head"]})
    assert str(all_.value).count("multiplies the maps of several layers") == 2


def test_a_method_of_ones_own_that_fails_is_told_with_its_line_and_the_others_are_shown(root: Path) -> None:
    (root / "own.py").write_text("def fails(model, image, target):\n    raise ValueError('no map')\n")
    name = f"{root / 'own.py'}:fails"
    result = explained(root, methods={"names": [name, "mask"]})
    assert result.content["refused"] == {"own.py:fails": "ValueError: no map (own.py, line 2)"}
    with pytest.raises(SampleError, match=r"own.py:fails: ValueError: no map \(own.py, line 2\)"):
        explained(root, methods={"names": [name]})


def test_a_grid_of_more_cells_than_pixels_is_refused(root: Path) -> None:
    with pytest.raises(SettingsError, match="'ria@grid=64' has 64 cells a side, more than the images have pixels at"):
        explained(root, methods={"names": ["ria@grid=64"]})
