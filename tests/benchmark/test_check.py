"""The check before a run: it passes what is right, and names what is wrong and the remedy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from colour_runs import make_colours, settings
from segfaith.benchmark.check import Line, check
from segfaith.benchmark.settings import make_settings


def findings(root: Path, **changes: Any) -> list[Line]:
    return list(check(make_settings(settings(root, **changes))))


def words(lines: list[Line], topic: str, level: str) -> str:
    """All words of a topic at a level."""
    return "\n".join(line.words for line in lines if (line.topic, line.level) == (topic, level))


def test_a_sound_run_has_nothing_to_mend(tmp_path: Path) -> None:
    told: list[str] = []
    counts: list[int] = []
    root = make_colours(tmp_path)
    lines = list(check(make_settings(settings(root)), counts.append, told.append))
    assert [line.topic for line in lines if line.level != "ok"] == ["layer"]
    assert "a gradient map of it repeats the prediction" in words(lines, "layer", "warn")  # a 1 x 1 head is all behind
    assert (counts, told) == ([3], ["p0", "p1", "p2"])
    assert "3 of 3 can be read; 32 x 40 px (H x W); 3 channel(s)" in words(lines, "images", "ok")
    assert "1 red in 3 (" in words(lines, "labels", "ok")
    assert "3 of 3 samples have one: 1 red 3" in words(lines, "targets", "ok")
    assert "features, as [model] layer says" in words(lines, "layer", "ok")
    assert "softmax over 3 channels, assumed" in words(lines, "head", "ok")
    assert 'head = "sigmoid"' in words(lines, "head", "ok")
    assert "outputs 3 x 32 x 32" in words(lines, "pass", "ok")
    assert words(lines, "scored", "ok") == "incremental"
    mean = float(words(lines, "fit", "ok").split("prediction ")[1].split(" ")[0])
    assert mean > 0.7
    assert {line.topic for line in lines} >= {"passes", "time", "memory", "occlusion", "input", "values"}


@pytest.mark.parametrize("changes", [{"source": "missed", "class": "red"}, {"part": "each", "class": "red"}])
def test_targets_that_are_missed_or_parts_are_no_sign_of_wrong_labels(tmp_path: Path, changes: dict[str, Any]) -> None:
    root = make_colours(tmp_path, samples=1)
    labels = np.array(Image.open(root / "data" / "masks" / "p0.png"))
    labels[0:3, 0:3] = 1  # dark, so that it is missed; first among the components, beside the box, which is predicted
    image = np.array(Image.open(root / "data" / "images" / "p0.png"))
    if "part" in changes:
        image[0:3, 0:3] = image[10, 10]
    Image.fromarray(labels).save(root / "data" / "masks" / "p0.png")
    Image.fromarray(image).save(root / "data" / "images" / "p0.png")
    lines = findings(root, target=changes)
    assert words(lines, "fit", "warn") == ""
    if "part" in changes:
        assert float(words(lines, "fit", "ok").split("prediction ")[1].split(" ")[0]) > 0.4


@pytest.mark.parametrize(("shift", "remedy"), [(1, "label - 1"), (-1, "label + 1")])
def test_labels_that_are_off_by_a_class_are_named(tmp_path: Path, shift: int, remedy: str) -> None:
    names = ["a", "b", "c", "d"]
    root = make_colours(tmp_path, shift=max(shift, 0), names=names)
    if shift < 0:  # the background becomes the ignored label, red 0 and blue 1
        for path in (root / "data" / "masks").iterdir():
            Image.fromarray(np.asarray(Image.open(path)) - np.uint8(1)).save(path)
    lines = findings(root, data={"background": "none"})
    assert remedy in words(lines, "fit", "warn")
    if shift > 0:
        assert "no class of the model (0 to 2): 3 in 3 images" in words(lines, "labels", "warn")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ({"order": [2, 1, 0]}, "blue, green, red (wrap the model in a module that begins with x.flip(1)) gives"),
        ({"scale": 1 / 255}, "images from 0 to 255 (mean = 0, std = 1/255"),
    ],
)
def test_images_that_the_model_was_not_trained_on_are_named(
    tmp_path: Path, arguments: dict[str, Any], remedy: str
) -> None:
    lines = findings(make_colours(tmp_path), model={"args": arguments})
    assert remedy in words(lines, "fit", "warn")


def test_bad_samples_are_named_with_their_reasons_and_counted(tmp_path: Path) -> None:
    root = make_colours(tmp_path, samples=9)
    images, masks = root / "data" / "images", root / "data" / "masks"
    (images / "p0.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(masks / "p1.png")
    for index in range(2, 7):
        (masks / f"p{index}.png").unlink()
    lines = findings(root)
    told = words(lines, "samples", "warn").splitlines()
    assert told[0] == "7 of 9 cannot be used; a run gives them rows that say why"
    assert "p0" in told[1]
    assert "cannot be read" in told[1]
    assert "image and label mask differ in size: (32, 40) and (8, 8)" in told[2]
    assert told[-1] == "and 2 more"
    assert len(told) == 7
    assert "2 of 9 samples have one" in words(lines, "targets", "ok")


def test_values_that_are_clipped_are_counted(tmp_path: Path) -> None:
    root = make_colours(tmp_path)
    assert words(findings(root), "values", "ok").count("outside") == 0
    values = np.asarray(Image.open(root / "data" / "images" / "p1.png"))
    outside = (values > 240).any(-1)
    lines = findings(root, data={"range": [0, 240], "clip": True, "ids": ["p1"]})
    told = "1 of 1 images have values outside [data] range, which clip = true makes 0 or 1: at most"
    assert 0 < outside.mean() < 1
    assert f"{told} {100 * outside.mean():.2g} % of the pixels (p1)" in words(lines, "values", "ok")


def test_a_table_of_indices_needs_no_names(tmp_path: Path) -> None:
    root = make_colours(tmp_path)
    named = findings(root)
    (root / "data" / "classes.txt").unlink()
    lines = findings(root, data={"labels": {"0": 0, "1": 1, "2": 2}})
    assert [line for line in lines if line.level == "fail"] == []
    assert words(lines, "labels", "ok") == words(named, "labels", "ok").replace("red", "class 1").replace(
        "blue", "class 2"
    ).replace("background", "class 0")
    assert "3 of 3 samples have one: 1 class 1 3" in words(lines, "targets", "ok")
    model = {"classes": ["background", "red", "blue"]}
    lines = findings(root, model=model, data={"labels": {"0": 0, "1": 1, "2": 2}})
    assert words(lines, "labels", "ok") == words(named, "labels", "ok")
    lines = findings(root, data={"labels": {"0": 0, "1": 1, "2": 4}})
    assert "no class of the model (0 to 2): 4 in 3 images" in words(lines, "labels", "warn")


def test_data_without_any_usable_sample_fail(tmp_path: Path) -> None:
    root = make_colours(tmp_path, samples=2)
    for path in (root / "data" / "images").iterdir():
        path.write_bytes(b"no picture")
    lines = findings(root)
    assert "2 of 2 cannot be used" in words(lines, "samples", "fail")


def test_samples_without_a_target_are_counted(tmp_path: Path) -> None:
    root = make_colours(tmp_path, samples=2)
    lines = findings(root, target={"class": "blue", "min_area": 1000})
    assert "none of the 2 samples has one" in words(lines, "targets", "fail")
    assert "2 skipped, such as p0: " in words(lines, "targets", "warn")


def test_a_class_that_no_image_holds_is_named(tmp_path: Path) -> None:
    root = make_colours(tmp_path, names=["background", "red", "blue", "green"])
    assert words(findings(root), "labels", "ok").endswith("in no image: green")


def test_a_layer_that_is_not_there_fails(tmp_path: Path) -> None:
    lines = findings(make_colours(tmp_path), model={"layer": "backbone.9"})
    assert "has no layer 'backbone.9'" in words(lines, "model", "fail")
    assert "3 of 3 can be read" in words(lines, "images", "ok")


def test_a_layer_that_is_left_out_is_chosen_and_names_that_differ_fail(tmp_path: Path) -> None:
    lines = findings(make_colours(tmp_path), model={"layer": None, "classes": ["background", "blue", "red"]})
    assert words(lines, "layer", "ok").endswith(", chosen by segfaith")  # told once
    assert "class 1 is 'blue' for the model and 'red' for the data" in words(lines, "classes", "fail")


def test_settings_without_data_fail_in_words(tmp_path: Path) -> None:
    root = make_colours(tmp_path)
    (line,) = findings(root, data={"root": f"{tmp_path}/nowhere"})
    assert (line.level, line.topic) == ("fail", "settings")
    assert "nowhere" in line.words


def test_names_of_the_model_stand_in_for_those_that_a_table_of_labels_leaves_out(tmp_path: Path) -> None:
    root = make_colours(tmp_path)
    (root / "data" / "classes.txt").unlink()
    named = {"classes": ["background", "red", "blue"]}
    table = {"0": "background", "2": "blue", "1": "red"}  # alone, it would give blue the index 1
    lines = findings(root, model=named, data={"labels": table})
    assert [line for line in lines if line.level == "fail"] == []
    assert "1 red in 3 (" in words(lines, "labels", "ok")
    lines = findings(root, model=named, data={"foreground": 1, "ignore": [2]})
    assert words(lines, "classes", "fail") == ""
    assert "1 red in 3 (" in words(lines, "labels", "ok")
    lines = findings(root, model=named, data={"labels": table | {"2": "azure"}})
    assert "unknown class 'azure'; the classes are background, red, blue" in words(lines, "classes", "fail")
    assert "Use the model's names in [data]" in words(lines, "classes", "fail")


def test_the_background_of_a_table_is_the_class_of_that_name_wherever_the_model_has_it(tmp_path: Path) -> None:
    root = make_colours(tmp_path)
    (root / "data" / "classes.txt").unlink()
    table = {"0": "blue", "1": "red", "2": "background"}
    lines = findings(root, model={"classes": ["blue", "red", "background"]}, data={"labels": table})
    assert "0 blue 3" in words(lines, "targets", "ok")  # the rest of each picture


def test_the_pass_is_of_what_goes_through_the_model_at_once(tmp_path: Path) -> None:
    root = make_colours(tmp_path)
    (root / "colours.py").write_text(
        (root / "colours.py")
        .read_text()
        .replace("        return self", "        assert x.shape[3] % 32 == 0\n        return self")
    )
    for given, words_of_pass in (
        ({"pad": 64}, "image 3 x 64 x 64 to"),
        ({"tile": 32, "overlap": 8}, "tile 3 x 32 x 32 to"),
    ):
        lines = findings(root, data={"size": "native"}, model=given)
        assert [line for line in lines if line.level == "fail"] == []
        assert words(lines, "pass", "ok").startswith(words_of_pass)


@pytest.mark.parametrize("target", [{"source": "missed"}, {"part": "boundary", "width": 1}, {"box": [0, 0, 2, 2]}])
def test_targets_that_are_no_whole_classes_say_nothing_of_labels(tmp_path: Path, target: dict[str, Any]) -> None:
    root = make_colours(tmp_path, shift=1, names=["background", "a", "b", "c"])
    lines = findings(root, target=target)
    assert words(lines, "fit", "warn") == ""
