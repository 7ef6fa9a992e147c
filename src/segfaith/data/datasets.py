"""Pascal VOC 2012 and SBD through torchvision, plain folders, and the planted scenes, by name."""

import shlex
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat
from torchvision.datasets import SBDataset, VOCSegmentation

from segfaith.classes import VOC_CLASSES, read_classes
from segfaith.constants import IGNORE
from segfaith.data.dataset import Dataset
from segfaith.data.images import Size, read_image, read_labels, resize_image, resize_labels, turned_alike
from segfaith.data.scenes import open_scenes
from segfaith.errors import SampleError, SettingsError
from segfaith.lookup import lookup
from segfaith.paths import check_ids
from segfaith.types import Image, Labels, Sample


def open_voc2012(root: Path, split: str, classes: list[str] | None, download: bool) -> Dataset:
    """Pascal VOC 2012 segmentation (Everingham et al. 2010); `root` holds `VOCdevkit/VOC2012`."""
    dataset = _torchvision_set(
        "voc2012", root, split, download, lambda fetch: VOCSegmentation(str(root), "2012", split, download=fetch)
    )
    _check_list(Path(dataset.root) / "VOCdevkit/VOC2012/ImageSets/Segmentation" / f"{split}.txt")
    return _from_paths("voc2012", split, dataset.images, dataset.masks, read_labels, classes or VOC_CLASSES)


def open_sbd(root: Path, split: str, classes: list[str] | None, download: bool) -> Dataset:
    """Semantic Boundaries Dataset (Hariharan et al. 2011); `root` holds `img`, `cls` and the splits' text files."""
    dataset = _torchvision_set(
        "sbd", root, split, download, lambda fetch: SBDataset(str(root), split, mode="segmentation", download=fetch)
    )
    _check_list(Path(dataset.root) / f"{split}.txt")
    return _from_paths("sbd", split, dataset.images, dataset.masks, _sbd_labels, classes or VOC_CLASSES)


LITTER = ("Thumbs.db", "desktop.ini")
"""Files that Windows puts beside images."""


def open_folder(root: Path, split: str, classes: list[str] | None, download: bool) -> Dataset:
    """`root/images/ID.*` with `root/masks/ID.png`, and `root/classes.txt` with one class name a line.

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
    if classes is None:
        classes = read_classes(root / "classes.txt")
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
    twice = {stem for stem in stems if stems.count(stem) > 1}
    if twice:
        raise SettingsError(
            f"two images share the name {min(twice)!r} in {base / 'images'}; names without ending are ids"
        )
    check_ids([path.stem for path in images], str(base / "images"), "rename that image and its mask")
    masks = [base / "masks" / f"{path.stem}.png" for path in images]
    return _from_paths("folder", split, images, masks, read_labels, classes)


DATASETS: dict[str, Callable[[Path, str, list[str] | None, bool], Dataset]] = {
    "voc2012": open_voc2012,
    "sbd": open_sbd,
    "folder": open_folder,
    "scenes": open_scenes,
}
DRAWN = frozenset({"scenes"})
"""Data sets that are drawn, not read: they have no root and nothing to download."""


def open_dataset(
    name: str,
    root: str | Path | None,
    split: str = "val",
    *,
    classes: list[str] | None = None,
    download: bool = False,
) -> Dataset:
    """Opens a data set of `DATASETS`.

    Raises:
        SettingsError: unknown name, or no data in `root`; the message gives the command that downloads them.
    """
    opener = lookup("data set", name, DATASETS)
    if name in DRAWN:
        if root is not None or download:
            raise SettingsError(f"data set {name} is drawn, not read: leave [data] root out, and download nothing")
        root = ""
    if root is None:
        raise SettingsError(f"data set {name} needs a root folder: set [data] root (or --set data.root=DIR)")
    return opener(Path(root), split, classes, download)


def _torchvision_set(
    name: str, root: Path, split: str, download: bool, make: Callable[[bool], VOCSegmentation | SBDataset]
) -> VOCSegmentation | SBDataset:
    """Opens the data set. With `download`, it is fetched if it is not there yet."""
    try:
        try:
            return make(False)
        except (OSError, RuntimeError):
            if not download:
                raise
            return make(True)
    except ValueError as error:
        raise SettingsError(f"{name} has no split {split!r}: {error}") from error
    except (OSError, RuntimeError) as error:
        raise SettingsError(
            f"{name} {split} is not in {root.resolve()} ({error}). "
            f"Download it with: segfaith download {name} {shlex.quote(str(root))}"
            + (f" --split {split}" if split != "val" else "")
        ) from error


def _check_list(file: Path) -> None:
    """Refuses a list of ids, one per line, if a line cannot be an id, before a path is made from it."""
    with file.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            check_ids([line.strip()], f"{file}, line {number}", "correct or remove that line")


def _from_paths(
    name: str,
    split: str,
    images: Sequence[str | Path],
    labels: Sequence[str | Path],
    labels_of: Callable[[Path], tuple[Labels, int]],
    classes: Sequence[str] | None,
) -> Dataset:
    """A data set of an image and a label file per id; ids are the images' names without ending.

    Args:
        labels_of: reads a label file: the labels as stored, and the file's EXIF orientation (1: none).
    """
    files = {Path(image).stem: (Path(image), Path(label)) for image, label in zip(images, labels, strict=True)}

    def load(sample_id: str, size: Size) -> Sample:
        image_path, label_path = files[sample_id]
        image, orientation = read_image(image_path)
        values = turned_alike(image, orientation, *labels_of(label_path))
        _check(image, values, classes)
        return Sample(sample_id, resize_image(image, size), resize_labels(values, size))

    def content(sample_id: str) -> bytes:
        return b"".join(_fingerprint(path) for path in files[sample_id])

    return Dataset(name, split, list(files), classes, load, content)


def _check(image: Image, labels: Labels, classes: Sequence[str] | None) -> None:
    """Raises SampleError where image and label mask differ in size, or a label is out of range."""
    if image.shape[-2:] != labels.shape:
        raise SampleError(
            f"image and label mask differ in size: {tuple(image.shape[-2:])} and {tuple(labels.shape)} (height, width)"
        )
    values = torch.unique(labels)
    top = IGNORE if classes is None else len(classes)
    bad = values[((values < 0) | (values >= top)) & (values != IGNORE)].tolist()
    if bad:
        raise SampleError(f"label {bad[0]} is out of range; expected 0 to {top - 1}, or {IGNORE} for ignored pixels")


def _fingerprint(path: Path) -> bytes:
    try:
        return sha256(path.read_bytes()).digest()
    except OSError:
        return b"missing"


def _sbd_labels(path: Path) -> tuple[Labels, int]:
    """The labels of a MATLAB file, which carries no EXIF orientation (1)."""
    try:
        path.stat()  # scipy does not say which file is missing
        segmentation = loadmat(path)["GTcls"][0]["Segmentation"][0]
    except Exception as error:  # scipy raises classes of its own for damaged files
        raise SampleError(f"SBD label file {path} cannot be read: {type(error).__name__}: {error}") from error
    return torch.from_numpy(np.asarray(segmentation).astype(np.int64)), 1
