"""A folder of images and masks as a data set."""

from collections import Counter
from collections.abc import Set
from pathlib import Path

from segfaith.classes import read_classes
from segfaith.data.dataset import Dataset
from segfaith.data.masks import ENDINGS, read_mask
from segfaith.data.meaning import Meaning, meaning_of
from segfaith.data.pairs import from_pairs
from segfaith.data.reading import Reading
from segfaith.errors import SettingsError
from segfaith.paths import check_ids

LITTER = ("Thumbs.db", "desktop.ini")
"""Files that Windows puts beside images."""


def open_folder(root: Path, split: str, classes: list[str] | None, download: bool, reading: Reading) -> Dataset:
    """`root/images/ID.*`, `root/masks/ID.png` (or .tif, .npy, .npz), and `root/classes.txt` with one class name a line.

    Every file in `images/` is a sample; a broken link is a sample that fails. Hidden files, `Thumbs.db`, `desktop.ini`,
    folders, and masks without an image are ignored.
    If `root` has a folder with the split's name (`root/val/images`), that folder is read; otherwise `root` is "val".
    """
    if download:
        raise SettingsError("a folder data set cannot be downloaded; put images/, masks/ and classes.txt into its root")
    base = root / split if (root / split / "images").is_dir() else root
    if base == root and split != "val":
        raise SettingsError(
            f"expected the folder {root / split / 'images'} for split {split!r}; make it or leave split out"
        )
    if not (base / "images").is_dir() or not (base / "masks").is_dir():
        raise SettingsError(
            f"expected the folders {base / 'images'} and {base / 'masks'}; make them or change [data] root"
        )
    meaning = _meaning(root, classes, reading)
    entries = [
        path
        for path in sorted((base / "images").iterdir())
        if not path.name.startswith(".") and path.name not in LITTER
    ]
    images = [path for path in entries if path.is_file() or not path.exists()]
    if entries and not images:
        raise SettingsError(
            f"{base / 'images'} holds only folders, such as {entries[0].name}; expected images directly in it: move "
            "them up"
        )
    if not images:
        raise SettingsError(f"{base / 'images'} holds no files; expected at least one image")
    stems = [path.stem for path in images]
    twice = [stem for stem, count in Counter(stems).items() if count > 1]
    if twice:
        raise SettingsError(
            f"two images share the name {min(twice)!r} in {base / 'images'}; names without ending are ids"
        )
    check_ids([path.stem for path in images], str(base / "images"), "rename that image and its mask")
    there = {path.name for path in (base / "masks").iterdir()}
    files = {path.stem: (path, _masks(base / "masks", path.stem, there)) for path in images}
    return from_pairs(
        "folder", split, files, lambda path: read_mask(path, meaning, reading.channels_first), meaning, reading
    )


def _meaning(root: Path, classes: list[str] | None, reading: Reading) -> Meaning:
    """What mask values mean; class names are given, or stand in `classes.txt`, or follow from `reading`."""
    listed = root / "classes.txt"
    if classes is None and (listed.is_file() or (reading.labels is None and reading.foreground is None)):
        if not listed.is_file():
            raise SettingsError(
                f"nothing names the classes: there is no {listed}; write it, one name a line in the order of the mask "
                'values, or set [data] classes to such a list, to such a file, or to "voc"'
            )
        classes = read_classes(listed)
    return meaning_of(reading, classes)


def _masks(folder: Path, stem: str, there: Set[str]) -> list[Path]:
    """The files of a folder that could be the mask of an image; where there is none, the PNG that is missing."""
    return [folder / name for ending in ENDINGS if (name := f"{stem}{ending}") in there] or [folder / f"{stem}.png"]
