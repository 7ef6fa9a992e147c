"""The data sets by name; Pascal VOC 2012 and SBD, through torchvision."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat
from torchvision.datasets import SBDataset, VOCSegmentation, voc

from segfaith.classes import VOC_CLASSES
from segfaith.data.archives import fetch
from segfaith.data.dataset import Dataset
from segfaith.data.folder import open_folder
from segfaith.data.masks import read_mask
from segfaith.data.meaning import Meaning, translate
from segfaith.data.pairs import from_pairs
from segfaith.data.reading import PLAIN, Reading
from segfaith.data.scenes import open_scenes
from segfaith.errors import SampleError, SettingsError
from segfaith.lookup import lookup
from segfaith.paths import check_ids
from segfaith.storage import REMEDIES, storage_error
from segfaith.types import Labels


def open_voc2012(root: Path, split: str, classes: list[str] | None, download: bool, reading: Reading) -> Dataset:
    """Pascal VOC 2012 segmentation (Everingham et al. 2010); `root` holds `VOCdevkit/VOC2012`."""
    reading.refuse_for("voc2012")

    def make(download: bool) -> VOCSegmentation:
        if download:
            about = voc.DATASET_YEAR_DICT["2012"]
            fetch(about["url"], root, about["filename"], about["md5"])
        return VOCSegmentation(str(root), "2012", split, download=download)

    dataset = _torchvision_set("voc2012", root, split, download, make)
    _check_list(Path(dataset.root) / "VOCdevkit/VOC2012/ImageSets/Segmentation" / f"{split}.txt")
    meaning = Meaning(classes or VOC_CLASSES)
    files = _by_id(dataset.images, dataset.masks)
    return from_pairs("voc2012", split, files, lambda path: read_mask(path, meaning, None), meaning)


def open_sbd(root: Path, split: str, classes: list[str] | None, download: bool, reading: Reading) -> Dataset:
    """Semantic Boundaries Dataset (Hariharan et al. 2011); `root` holds `img`, `cls` and the splits' text files."""
    reading.refuse_for("sbd")

    def make(download: bool) -> SBDataset:
        if download:
            fetch(SBDataset.url, root, SBDataset.filename, SBDataset.md5)
        return SBDataset(str(root), split, mode="segmentation", download=download)

    dataset = _torchvision_set("sbd", root, split, download, make)
    _check_list(Path(dataset.root) / f"{split}.txt")
    meaning = Meaning(classes or VOC_CLASSES)
    files = _by_id(dataset.images, dataset.masks)
    return from_pairs("sbd", split, files, lambda path: (translate(_sbd_labels(path), meaning, path), 1), meaning)


DATASETS: dict[str, Callable[[Path, str, list[str] | None, bool, Reading], Dataset]] = {
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
    reading: Reading = PLAIN,
) -> Dataset:
    """Opens a data set of `DATASETS`.

    Args:
        reading: how the files of a folder become images and labels; other data sets say that themselves.

    Raises:
        SettingsError: unknown name, or no data in `root`; the message gives the command that downloads them. Or a
            `reading` that means nothing for the data set.
    """
    opener = lookup("data set", name, DATASETS)
    if name in DRAWN:
        if root is not None or download:
            raise SettingsError(f"data set {name} is drawn, not read: leave [data] root out, and download nothing")
        root = ""
    if root is None:
        raise SettingsError(f"data set {name} needs a root folder: set [data] root (or --set data.root=DIR)")
    return opener(Path(root), split, classes, download, reading)


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
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"{name} has no split {split!r}: {error}") from error
    except (OSError, RuntimeError) as error:
        if download and isinstance(error, OSError) and error.errno in REMEDIES:
            raise storage_error(root, error) from error
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


def _by_id(images: Sequence[str | Path], masks: Sequence[str | Path]) -> dict[str, tuple[Path, list[Path]]]:
    """Pairs of files by the image's name without ending."""
    return {Path(image).stem: (Path(image), [Path(mask)]) for image, mask in zip(images, masks, strict=True)}


def _sbd_labels(path: Path) -> Labels:
    """The labels of a MATLAB file."""
    try:
        path.stat()  # scipy does not say which file is missing
        segmentation = loadmat(path)["GTcls"][0]["Segmentation"][0]
    except Exception as error:  # scipy raises classes of its own for damaged files
        raise SampleError(f"SBD label file {path} cannot be read: {type(error).__name__}: {error}") from error
    return torch.from_numpy(np.asarray(segmentation).astype(np.int64))
