"""What mask values mean: tables, colours, presets, foreground, ignored values, backgrounds, overlapping classes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as PillowImage
from torchvision.models.detection import FasterRCNN_ResNet50_FPN_Weights

from segfaith.classes import VOC_CLASSES
from segfaith.data import Dataset, Reading, open_dataset
from segfaith.data.meaning import meaning_of, translate
from segfaith.data.presets import PRESETS
from segfaith.errors import SampleError, SettingsError
from segfaith.targets import find_targets
from segfaith.types import Sample

SHAPE = (6, 8)
HALVES = np.zeros(SHAPE, np.uint8)
HALVES[:, 4:] = 255
"""A binary mask as annotation tools write it."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with the image "a", without masks and class names."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    PillowImage.new("RGB", SHAPE[::-1], (9, 99, 199)).save(tmp_path / "images/a.png")
    return tmp_path


def opened(root: Path, classes: list[str] | None = None, **reading: Any) -> Dataset:
    return open_dataset("folder", root, classes=classes, reading=Reading(**reading))


def loaded(root: Path, mask: np.ndarray, classes: list[str] | None = None, **reading: Any) -> Sample:
    """The sample "a" with a mask that is written as PNG, or as .npy where it has planes or is boolean."""
    if (mask.ndim == 2 and mask.dtype in (np.uint8, np.uint16)) or mask.shape[2:] == (3,):
        PillowImage.fromarray(mask).save(root / "masks/a.png")
    else:
        np.save(root / "masks/a.npy", mask)
    return opened(root, classes, **reading).load("a", "native")


# Values


def test_a_foreground_of_255(root: Path) -> None:
    data = opened(root, foreground=255)
    assert list(data.classes or []) == ["background", "foreground"]
    sample = loaded(root, HALVES, foreground=255)
    assert sample.labels.dtype == torch.int64
    assert sample.labels.tolist() == (HALVES // 255).tolist()
    assert sample.masks == {}
    assert opened(root, ["tissue", "lesion"], foreground=255).classes == ["tissue", "lesion"]


def test_other_values_beside_a_foreground_are_refused_with_their_share(root: Path) -> None:
    mask = HALVES.copy()
    mask[0, :6] = 128
    words = (
        r"a\.png has the value 128 in 12\.50% of its pixels, which \[data\] foreground does not name; set "
        r"\[data\] foreground = 128 if these are the object's, or add 128 to \[da"
    )
    with pytest.raises(SampleError, match=words):
        loaded(root, mask, foreground=255)
    labels = loaded(root, mask, foreground=255, ignore=[128]).labels
    assert labels[0].tolist() == [255] * 6 + [1, 1]
    with pytest.raises(SampleError, match="has the value 255 in 50"):
        loaded(root, np.minimum(HALVES, 255), foreground=128)


def test_a_table_gives_classes_and_the_background_comes_first(root: Path) -> None:
    labels = {"255": "lesion", "0": "background", 7: "lesion", "8": "vessel"}
    mask = HALVES.copy()
    mask[0] = [7, 8, 0, 0, 255, 8, 7, 0]
    sample = loaded(root, mask, labels=labels)
    data = opened(root, labels=labels)
    assert list(data.classes or []) == ["background", "lesion", "vessel"]
    assert data.background == 0
    assert sample.labels[0].tolist() == [1, 2, 0, 0, 1, 2, 1, 0]
    assert sample.labels[1].tolist() == [0] * 4 + [1] * 4


def test_a_table_of_given_classes(root: Path) -> None:
    classes = ["background", "vessel", "lesion"]
    labels = {"0": 0, "255": "lesion", "3": 1, "9": 255}
    mask = HALVES.copy()
    mask[0, :2] = [3, 9]
    assert loaded(root, mask, classes, labels=labels).labels[0].tolist() == [1, 255, 0, 0, 2, 2, 2, 2]
    (root / "classes.txt").write_text("background\nvessel\nlesion\n")
    assert loaded(root, mask, labels=labels).labels[0].tolist() == [1, 255, 0, 0, 2, 2, 2, 2]


def test_a_value_that_the_table_lacks(root: Path) -> None:
    words = (
        r"the value 255 in 50\.00% .* which \[data\] labels does not name; add 255 = \"CLASS\" to \[data\] labels, or"
    )
    with pytest.raises(SampleError, match=words):
        loaded(root, HALVES, labels={"0": "background", "1": "lesion"}, ignore=[])
    assert loaded(root, HALVES, labels={"0": "background", "1": "lesion"}).labels.unique().tolist() == [0, 255]


@pytest.mark.parametrize(
    ("classes", "keys", "words"),
    [
        (["background", "cat"], {"labels": {"1": "dog"}}, "labels: unknown class 'dog'; .* add it to .data. classes"),
        (["background", "cat"], {"labels": {"1": 2}}, "labels: class 2 is out of range; expected 0 to 1; add it"),
        (
            None,
            {"labels": {"0": "background", "1": 1}},
            r"some classes by name \(background\) and some by index \(1\), .* list all names by index in",
        ),
        (None, {"labels": {"1": -2}}, "labels: class -2 is out of range; expected the index of a class, from 0"),
        (None, {"labels": {"1": 255}}, "labels gives no value a class, only 255 for ignored pixels; add the values of"),
        (
            None,
            {"labels": {"1": "cat", "2": "dog"}},
            "the classes cat, dog and none is called 'background'; if another .* Else say which",
        ),
        (None, {"labels": {}}, "labels has no entry; expected mask values"),
        (
            None,
            {"labels": {"1": "background", "#000000": "cat"}},
            "has the keys '1', '#000000'; expected whole numbers",
        ),
        (None, {"labels": {"red": "cat"}}, "has the keys 'red'; expected"),
        (None, {"labels": {"1,2,256": "cat"}}, "has the keys '1,2,256'; expected"),
        (None, {"labels": {"#0000ff": "background", "0,0,255": "cat"}}, "names '0,0,255' twice"),
        (None, {"labels": {"01": "background", "1": "cat"}}, "names '1' twice"),
        (None, {"labels": "citiscapes"}, "unknown table of labels 'citiscapes'; did you mean 'cityscapes'"),
        (
            None,
            {"labels": {"0": "background", "7": "a"}, "ignore": [7]},
            "7 is a value of labels or foreground and of ig",
        ),
        (None, {"foreground": 255, "ignore": [255]}, "255 is a value of labels or foreground and of ignore"),
        (None, {"labels": {"#000000": "background"}, "ignore": [0]}, "ignore names values and labels names colours"),
        (["background"], {"foreground": 255}, r"foreground is class 1, and classes are \['background'\]; name two"),
        (["a", "b"], {"background": "c"}, "background: unknown class 'c'; the classes are a, b; or \"none\""),
        (["a", "b"], {"background": 2}, "background: class 2 is out of range; expected 0 to 1; or"),
    ],
)
def test_meanings_that_contradict_themselves(
    classes: list[str] | None, keys: dict[str, Any], words: str, root: Path
) -> None:
    with pytest.raises(SettingsError, match=words):
        opened(root, classes, **keys)


MANY = [f"class {index}" for index in range(300)]


@pytest.mark.parametrize("keys", [{"ignore": [299]}, {"ignore": []}, {"labels": {"0": 0, "9": "class 255"}}])
def test_class_255_is_not_taken_for_ignored_pixels(keys: dict[str, Any], root: Path) -> None:
    with pytest.raises(SettingsError, match="class 255, 'class 255', cannot be told from ignored pixels"):
        opened(root, MANY, **keys)


@pytest.mark.parametrize("keys", [{}, {"ignore": [255, 299]}, {"labels": {"0": 0, "255": 255, "9": 299}}])
def test_more_than_255_classes(keys: dict[str, Any], root: Path) -> None:
    assert loaded(root, HALVES, MANY, **keys).labels.unique().tolist() == [int(HALVES.min()), 255]


@pytest.mark.parametrize("ignore", [[254, 255], [254]])
def test_a_list_of_ignored_values(ignore: list[int], root: Path) -> None:
    mask = np.where(HALVES == 255, 254, 1).astype(np.uint8)
    assert loaded(root, mask, ["background", "cat"], ignore=ignore).labels.unique().tolist() == [1, 255]
    mask[0, 0] = 255
    if 255 in ignore:
        assert loaded(root, mask, ["background", "cat"], ignore=ignore).labels[0].tolist() == [255, 1, 1, 1] + [255] * 4
        return
    with pytest.raises(SampleError, match=r"label 255 is out of range; expected 0 to 1, or 254 for ignored .*2\.08%"):
        loaded(root, mask, ["background", "cat"], ignore=ignore)


def test_zero_may_be_ignored(root: Path) -> None:
    mask = np.where(HALVES == 255, 1, 0).astype(np.uint8)
    assert loaded(root, mask, ["unlabelled", "cat"], ignore=[0]).labels.unique().tolist() == [1, 255]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=40), st.sets(st.integers(0, 300)), st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_value_is_translated_or_named(values: list[int], known: set[int], ignoring: bool) -> None:
    table: dict[str, str | int] = {str(value): ["background", "a", "b", 255][value % 4] for value in known}
    if not known or not any(isinstance(name, str) for name in table.values()):
        table["301"] = "background"
    meaning = meaning_of(Reading(labels=table, ignore=[303] if ignoring else None), ["background", "a", "b"])
    labels = torch.tensor([values])
    missing = sorted(value for value in set(values) - known - (set() if ignoring else {255}))
    if missing:
        with pytest.raises(SampleError, match=f"has the value {missing[0]} in "):
            translate(labels, meaning, Path("x"))
        return
    expected = [{0: 0, 1: 1, 2: 2, 3: 255}[value % 4] if value in known else 255 for value in values]
    assert translate(labels, meaning, Path("x")).tolist() == [expected]


def test_labels_that_count_from_one_are_recognised_by_the_first_value_beyond_the_classes(root: Path) -> None:
    mask = np.full(SHAPE, 2, np.uint8)
    with pytest.raises(
        SampleError, match=r"label 2 is out of range; .*; if every label is one above its class's index"
    ):
        loaded(root, mask, ["background", "cat"])
    with pytest.raises(SampleError, match=r"label 3 is out of range; .* ignore$"):
        loaded(root, mask + np.uint8(1), ["background", "cat"])


def test_a_mask_of_another_kind_of_file_is_named(root: Path) -> None:
    PillowImage.fromarray(np.zeros(SHAPE, np.uint8)).save(root / "images" / "z.png")
    PillowImage.fromarray(np.zeros(SHAPE, np.uint8)).save(root / "masks" / "z.jpg")
    with pytest.raises(SampleError, match=r"z\.png cannot be read: .*; z\.jpg is there; masks are \.png, \.tif, "):
        opened(root, ["background", "cat"]).load("z", "native")


# Backgrounds


def test_the_background_is_never_a_dominant_target(root: Path) -> None:
    mask = np.full(SHAPE, 1, np.uint8)
    mask[:2] = 0
    mask[2] = 2
    classes = ["road", "sky", "car"]
    dominant = {}
    for background in (None, 0, "road", 1, "sky", "none"):
        data = opened(root, classes, background=background)
        labels = loaded(root, mask, classes, background=background).labels
        assert labels.tolist() == mask.tolist()
        dominant[background] = (data.background, find_targets(labels, background=data.background)[0].class_index)
    assert dominant == {None: (0, 1), 0: (0, 1), "road": (0, 1), 1: (1, 0), "sky": (1, 0), "none": (None, 1)}


def test_a_named_background_comes_first_among_the_classes_of_a_table(root: Path) -> None:
    labels = {"1": "cat", "2": "sky", "3": "dog"}
    data = opened(root, labels=labels, background="sky")
    assert (list(data.classes or []), data.background) == (["sky", "cat", "dog"], 0)
    data = opened(root, labels=labels, background="none")
    assert (list(data.classes or []), data.background) == (["cat", "sky", "dog"], None)


def test_the_background_of_a_table_is_the_class_of_that_name_wherever_it_stands(root: Path) -> None:
    labels = {"1": "cat", "2": "background", "3": "dog"}
    classes = ["dog", "cat", "background"]
    assert opened(root, classes, labels=labels).background == 2
    assert opened(root, classes, labels=labels, background="dog").background == 0
    assert opened(root, classes, labels=labels, background="none").background is None


# Colours


COLOURS = {"#000000": "background", "255,0,10": "lesion", "#00fF00": 255}


def colour_mask() -> np.ndarray:
    mask = np.zeros((*SHAPE, 3), np.uint8)
    mask[:, 4:] = (255, 0, 10)
    mask[0, 0] = (0, 255, 0)
    return mask


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
def test_colours_of_a_png(mode: str, root: Path) -> None:
    picture = PillowImage.fromarray(colour_mask())
    picture = picture.quantize(8) if mode == "P" else picture.convert(mode)
    picture.save(root / "masks/a.png")
    assert PillowImage.open(root / "masks/a.png").mode == mode
    data = opened(root, labels=COLOURS)
    assert list(data.classes or []) == ["background", "lesion"]
    assert data.load("a", "native").labels.tolist() == [[255, 0, 0, 0, 1, 1, 1, 1]] + [[0] * 4 + [1] * 4] * 5


def test_a_colour_that_the_table_lacks(root: Path) -> None:
    mask = colour_mask()
    mask[0, 1] = (255, 0, 11)
    words = (
        r"a\.png has the colour '#ff000b' in 2\.08% .* add '#ff000b' = \"CLASS\", or '#ff000b' = 255 for ignored pixels"
    )
    with pytest.raises(SampleError, match=words):
        loaded(root, mask, labels=COLOURS)


def test_transparent_and_deep_masks_have_no_colours(root: Path) -> None:
    PillowImage.new("RGBA", SHAPE[::-1], (0, 0, 0, 200)).save(root / "masks/a.png")
    with pytest.raises(SampleError, match=r"a\.png has transparent pixels; .* opaque PNG"):
        opened(root, labels=COLOURS).load("a", "native")
    with pytest.raises(SampleError, match=r"a\.png has mode I;16, which has no colours"):
        loaded(root, HALVES.astype(np.uint16), labels=COLOURS)
    (root / "masks/a.png").unlink()
    np.save(root / "masks/a.npy", HALVES)
    with pytest.raises(SampleError, match=r"a\.npy is no PNG, and \[data\] labels names colours; store"):
        opened(root, labels=COLOURS).load("a", "native")


def test_a_colour_mask_without_a_table_is_refused_with_the_remedy(root: Path) -> None:
    words = r"has mode RGB; expected palette .* \[data\] labels = \{ '#ff0000' = \"CLASS\", \.\.\. \}"
    with pytest.raises(SampleError, match=words):
        loaded(root, colour_mask(), ["background", "lesion"])


# Presets


def test_cityscapes_label_ids(root: Path) -> None:
    mask = np.array([[7, 8, 11, 33, 0, 9, 255, 26]] * 6, np.uint8)
    data = opened(root, labels="cityscapes")
    assert loaded(root, mask, labels="cityscapes").labels[0].tolist() == [0, 1, 2, 18, 255, 255, 255, 13]
    assert len(data.classes or []) == 19
    assert list(data.classes or [])[:3] == ["road", "sidewalk", "building"]
    assert data.background is None, "the road is an object"
    with pytest.raises(SampleError, match="has the value 34 in 100"):
        loaded(root, np.full(SHAPE, 34, np.uint8), labels="cityscapes")


def test_coco_ids_with_gaps_are_torchvisions(root: Path) -> None:
    """Against the list of names that torchvision keeps by category id, with N/A for ids that are unused."""
    names = FasterRCNN_ResNet50_FPN_Weights.DEFAULT.meta["categories"]
    assert PRESETS["coco91"] == {0: "background"} | {
        index: name for index, name in enumerate(names) if index and name != "N/A"
    }
    mask = np.array([[0, 1, 13, 90, 255, 0, 0, 0]] * 6, np.uint8)
    data = opened(root, labels="coco91")
    assert len(data.classes or []) == 81
    assert data.background == 0
    labels = loaded(root, mask, labels="coco91").labels[0].tolist()
    assert labels == [0, 1, 12, 80, 255, 0, 0, 0]
    assert [list(data.classes or [])[index] for index in labels[:4]] == [
        "background",
        "person",
        "stop sign",
        "toothbrush",
    ]


# Overlapping classes


CLASSES = ["background", "box", "disc", "line"]


def planes() -> np.ndarray:
    """Of the three objects: they overlap in row 1, nothing covers row 0."""
    values = np.zeros((3, *SHAPE), np.uint8)
    values[1, 1:4] = 1
    values[0, 3:] = 1
    values[2, 1, :2] = 1
    return values


@pytest.mark.parametrize("kind", ["npy", "last.npy", "bool.npy", "npz", "tif", "all.npy"])
def test_planes_of_overlapping_classes(kind: str, root: Path) -> None:
    given, classes = planes(), CLASSES
    path = root / f"masks/a.{kind.rpartition('.')[2]}"
    if kind == "tif":
        tifffile.imwrite(path, given, photometric="minisblack", planarconfig="separate")
    elif kind == "npz":
        np.savez(path, mask=given, other=given)
    else:
        stored = {"last.npy": given.transpose(1, 2, 0), "bool.npy": given.astype(bool)}.get(kind, given)
        if kind == "all.npy":
            stored = np.concatenate([np.ones((1, *SHAPE), np.uint8), given])
        np.save(path, stored)
    sample = opened(root, classes).load("a", "native")
    assert sorted(sample.masks) == ([0, 1, 2, 3] if kind == "all.npy" else [1, 2, 3])
    for index in (1, 2, 3):
        assert sample.masks[index].dtype == torch.bool
        assert sample.masks[index].tolist() == (given[index - 1] == 1).tolist()
    rows = [[0] * 8, [2] * 8, [2] * 8] + [[1] * 8] * 3
    assert sample.labels.tolist() == rows, "the lowest class of a pixel"


def test_planes_without_a_background(root: Path) -> None:
    sample = loaded(root, planes(), ["box", "disc", "line"], background="none")
    assert sorted(sample.masks) == [0, 1, 2]
    assert sample.labels[:, 0].tolist() == [255, 1, 1, 0, 0, 0]


def test_planes_are_resized_as_labels_are(root: Path) -> None:
    np.save(root / "masks/a.npy", planes())
    data = opened(root, CLASSES)
    sample, native = data.load("a", 4), data.load("a", "native")
    rows, columns = ([(2 * i + 1) * side // 8 for i in range(4)] for side in SHAPE)
    for index, mask in sample.masks.items():
        assert np.array_equal(mask.numpy(), native.masks[index].numpy()[np.ix_(rows, columns)])
    assert np.array_equal(sample.labels.numpy(), native.labels.numpy()[np.ix_(rows, columns)])


@pytest.mark.parametrize(
    ("mask", "keys", "words"),
    [
        (planes() * 255, {}, "has planes with values 0 to 255; expected 0 and 1"),
        (planes().astype(np.float32), {}, r"has dtype float32; expected whole numbers: store it by .astype\('uint8'\)"),
        (planes()[:2], {}, r"shape \(2, 6, 8\); expected \(H, W\), or a plane .* are 4 or 3 \(4 classes"),
        (planes()[:2], {"background": "none"}, r"which are 4 \(4 classes"),
        (np.zeros((4, 6, 3), np.uint8), {}, r"expected .*; set \[data\] channels_first to say which axis it is"),
        (
            planes(),
            {"labels": {"0": "background", "1": "box"}},
            "and .data. labels says what the values of a single pl",
        ),
        (planes()[0].astype(np.float64), {}, "has dtype float64; expected whole numbers"),
        (planes()[None], {}, r"has shape \(1, 3, 6, 8\); expected \(H, W\)"),
    ],
)
def test_arrays_that_are_no_masks(mask: np.ndarray, keys: dict[str, Any], words: str, root: Path) -> None:
    np.save(root / "masks/a.npy", mask)
    with pytest.raises(SampleError, match=rf"a\.npy.*{words}"):
        opened(root, CLASSES, **keys).load("a", "native")


# Files


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "int64"])
def test_arrays_of_labels(dtype: str, root: Path) -> None:
    np.save(root / "masks/a.npy", (HALVES // 255).astype(dtype))
    assert opened(root, CLASSES).load("a", "native").labels.tolist() == (HALVES // 255).tolist()


@pytest.mark.parametrize("ending", ["tif", "tiff"])
@pytest.mark.parametrize("compression", [None, "zlib", "tiff_lzw"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", ">u2", "int32"])
def test_tiffs_of_labels(ending: str, compression: str | None, dtype: str, root: Path) -> None:
    path, mask = root / f"masks/a.{ending}", (HALVES // 85).astype(dtype)
    if compression == "tiff_lzw":
        mask = mask.astype(dtype.replace(">u2", "uint16"))
        PillowImage.fromarray(mask).save(path, compression=compression)
        if dtype == "int32":
            with pytest.raises(SampleError, match=r"label mask .*cannot be read: .*imagecodecs.*without compression"):
                opened(root, CLASSES).load("a", "native")
            return
    else:
        tifffile.imwrite(path, mask, compression=compression, byteorder=">" if dtype == ">u2" else "<")
    assert opened(root, CLASSES).load("a", "native").labels.tolist() == mask.tolist()


def test_tiffs_that_alter_labels_are_refused(root: Path) -> None:
    PillowImage.fromarray(HALVES // 85).save(root / "masks/a.tif", compression="jpeg")
    with pytest.raises(SampleError, match=r"label mask .*a\.tif is compressed by JPEG, which may mix labels"):
        opened(root, CLASSES).load("a", "native")
    tifffile.imwrite(root / "masks/a.tif", HALVES == 255)
    with pytest.raises(SampleError, match=r"a\.tif says that 0 is white, .* store it as uint8 with photometric MINISB"):
        opened(root, CLASSES).load("a", "native")
    tifffile.imwrite(root / "masks/a.tif", HALVES // 85, extratags=[(274, 3, 1, 3, True)])
    with pytest.raises(SampleError, match=r"and orientation 3; expected whole numbers .* upright"):
        opened(root, CLASSES).load("a", "native")
    (root / "masks/a.tif").write_bytes(b"II*\0")
    with pytest.raises(SampleError, match=r"label mask .*a\.tif cannot be read: "):
        opened(root, CLASSES).load("a", "native")


def test_two_masks_of_one_image(root: Path) -> None:
    np.save(root / "masks/a.npy", HALVES // 255)
    PillowImage.fromarray(HALVES // 255).save(root / "masks/a.png")
    shutil.copy(root / "images/a.png", root / "images/b.png")
    np.save(root / "masks/b.npy", HALVES // 255)
    data = opened(root, CLASSES)
    with pytest.raises(SampleError, match=r"a has 2 masks: a\.png, a\.npy; keep one"):
        data.load("a", "native")
    assert data.load("b", "native").labels.max() == 1


def test_the_digest_covers_masks_of_any_ending(root: Path) -> None:
    np.save(root / "masks/a.npy", HALVES // 255)
    first = opened(root, CLASSES).digest(["a"])
    np.save(root / "masks/a.npy", HALVES // 85)
    assert opened(root, CLASSES).digest(["a"]) != first


def test_exchanged_height_and_width_are_told(root: Path) -> None:
    PillowImage.new("RGB", (320, 176)).save(root / "images/a.png")
    np.save(root / "masks/a.npy", np.zeros((320, 176), np.uint8))
    words = (
        r"\(176, 320\) and \(320, 176\) \(height, width\); height and width are exchanged: one of the two files is tur"
    )
    with pytest.raises(SampleError, match=words):
        opened(root, CLASSES).load("a", "native")
    np.save(root / "masks/a.npy", np.zeros((100, 176), np.uint8))
    with pytest.raises(SampleError, match=r"\(100, 176\) \(height, width\)$"):
        opened(root, CLASSES).load("a", "native")


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_planes_are_turned_as_their_image_is(orientation: int, root: Path) -> None:
    """Of a photograph whose sizes tell that its mask is stored as the photograph is."""
    stored = planes()
    exif = PillowImage.Exif()
    exif[0x0112] = orientation
    picture = PillowImage.fromarray(np.ascontiguousarray(stored.transpose(1, 2, 0) * 200))
    picture.save(root / "images/a.png", exif=exif)
    np.save(root / "masks/a.npy", stored)
    sample = opened(root, CLASSES).load("a", "native")
    assert sample.image.shape[1:] == SHAPE[::-1]
    for channel in range(3):
        assert torch.equal(sample.image[channel] > 0.5, sample.masks[channel + 1])


def test_grey_images_and_their_display(root: Path) -> None:
    np.save(root / "masks/a.npy", HALVES // 255)
    PillowImage.fromarray(HALVES).save(root / "images/a.png")
    data = opened(root, CLASSES, display=[3, 2, 1])
    assert data.display == (3, 2, 1)
    assert data.load("a", "native").image.shape == (1, *SHAPE)
    (root / "images/a.png").unlink()
    np.save(root / "images/a.npy", np.full((2, *SHAPE), 7, np.uint8))
    data = opened(root, CLASSES, display=[3, 2, 1])
    with pytest.raises(SampleError, match=r"\[data\] display shows channel 3 and image .*a\.npy has 2; channels count"):
        data.load("a", "native")


@pytest.mark.parametrize("name", ["voc2012", "sbd", "scenes"])
def test_other_data_sets_say_themselves_how_they_are_read(name: str, tmp_path: Path) -> None:
    root = None if name == "scenes" else tmp_path
    for reading, words in (
        (Reading(foreground=255, ignore=[1]), "foreground, ignore"),
        (Reading(background=0), "backg"),
    ):
        with pytest.raises(SettingsError, match=rf"data set {name} says itself how it is read; leave \[data\] {words}"):
            open_dataset(name, root, reading=reading)


def test_the_defaults_are_those_of_voc() -> None:
    meaning = meaning_of(Reading(), VOC_CLASSES)
    assert (meaning.background, meaning.ignored, meaning.indices) == (0, {255}, None)
