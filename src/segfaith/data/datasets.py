"""Pascal VOC 2012 and SBD through torchvision, and plain folders: ids, each with an image and a label file."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from scipy.io import loadmat
from torchvision.datasets import SBDataset, VOCSegmentation

from segfaith.classes import VOC_CLASSES, read_classes
from segfaith.constants import IGNORE
from segfaith.data.images import Size, load_image, load_labels, resize_image, resize_labels
from segfaith.errors import SampleError, SettingsError
from segfaith.lookup import lookup, nearest
from segfaith.randomness import generator
from segfaith.types import Labels, Sample


@dataclass(frozen=True)
class Dataset:
    """Samples by id. `files[id]` are the image file and the label file; nothing is read before `load`."""

    name: str
    split: str
    files: Mapping[str, tuple[Path, Path]]
    read_labels: Callable[[Path], Labels]
    classes: Sequence[str] | None

    def load(self, sample_id: str, size: Size) -> Sample:
        """Reads one sample and resizes it.

        Raises:
            SampleError: a file cannot be read, image and mask differ in size, or a label is out of range.
        """
        image_path, label_path = self.files[sample_id]
        image, labels = load_image(image_path), self.read_labels(label_path)
        if image.shape[-2:] != labels.shape:
            raise SampleError(
                f"image and label mask differ in size: {tuple(image.shape[-2:])} and {tuple(labels.shape)} "
                "(height, width)"
            )
        values = torch.unique(labels)
        top = IGNORE if self.classes is None else len(self.classes)
        bad = values[((values < 0) | (values >= top)) & (values != IGNORE)].tolist()
        if bad:
            raise SampleError(
                f"label {bad[0]} is out of range; expected 0 to {top - 1}, or {IGNORE} for ignored pixels"
            )
        return Sample(sample_id, resize_image(image, size), resize_labels(labels, size))

    def choose(self, n: int | None, ids: Sequence[str] | None, seed: int) -> list[str]:
        """The ids of a run, sorted: the named ones, or `n` drawn from the sorted ids with the seed, or all.

        Raises:
            SettingsError: an id that does not exist, or n above the number of samples.
        """
        known = sorted(self.files)
        if ids is not None:
            missing = [name for name in ids if name not in self.files]
            if missing:
                close = nearest(missing[0], known)
                raise SettingsError(
                    f"{self.name} {self.split} has no sample {missing[0]!r}"
                    + (f"; the nearest are {', '.join(close)}" if close else "")
                )
            return sorted(set(ids))
        if n is None:
            return known
        if n > len(known):
            raise SettingsError(f"n = {n} samples asked for; {self.name} {self.split} has {len(known)}")
        drawn = generator(seed, "", "subset").permutation(len(known))[:n]
        return [known[i] for i in sorted(drawn)]

    def digest(self, ids: Sequence[str]) -> str:
        """SHA-256 over the ids and the bytes of their image and label files ("missing" where one cannot be read)."""
        total = sha256()
        for sample_id in ids:
            total.update(sample_id.encode())
            for path in self.files[sample_id]:
                try:
                    total.update(sha256(path.read_bytes()).digest())
                except OSError:
                    total.update(b"missing")
        return total.hexdigest()


def open_voc2012(root: Path, split: str, classes: list[str] | None, download: bool) -> Dataset:
    """Pascal VOC 2012 segmentation (Everingham et al. 2010); `root` holds `VOCdevkit/VOC2012`."""
    found = _torchvision_set(
        "voc2012", root, split, download, lambda fetch: VOCSegmentation(str(root), "2012", split, download=fetch)
    )
    return _from_paths("voc2012", split, found.images, found.masks, load_labels, classes or VOC_CLASSES)


def open_sbd(root: Path, split: str, classes: list[str] | None, download: bool) -> Dataset:
    """Semantic Boundaries Dataset (Hariharan et al. 2011); `root` holds `img`, `cls` and the splits' text files."""
    found = _torchvision_set(
        "sbd", root, split, download, lambda fetch: SBDataset(str(root), split, mode="segmentation", download=fetch)
    )
    return _from_paths("sbd", split, found.images, found.masks, _sbd_labels, classes or VOC_CLASSES)


def open_folder(root: Path, split: str, classes: list[str] | None, download: bool) -> Dataset:
    """`root/images/ID.*` with `root/masks/ID.png`, and `root/classes.txt` with one class name a line.

    With a sub-folder of the split's name (`root/val/images`), that one is read; without, `root` itself is "val".
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
    images = sorted(path for path in (base / "images").iterdir() if path.is_file() and not path.name.startswith("."))
    if not images:
        raise SettingsError(f"{base / 'images'} holds no files; expected at least one image")
    stems = [path.stem for path in images]
    twice = {stem for stem in stems if stems.count(stem) > 1}
    if twice:
        raise SettingsError(
            f"two images share the name {min(twice)!r} in {base / 'images'}; names without ending are ids"
        )
    masks = [base / "masks" / f"{stem}.png" for stem in stems]
    return _from_paths("folder", split, images, masks, load_labels, classes)


DATASETS: dict[str, Callable[[Path, str, list[str] | None, bool], Dataset]] = {
    "voc2012": open_voc2012,
    "sbd": open_sbd,
    "folder": open_folder,
}


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
        SettingsError: unknown name, or nothing there; the message gives the command that downloads it.
    """
    opener = lookup("data set", name, DATASETS)
    if root is None:
        raise SettingsError(f"data set {name} needs a root folder: set [data] root (or --set data.root=DIR)")
    return opener(Path(root), split, classes, download)


def _torchvision_set(
    name: str, root: Path, split: str, download: bool, make: Callable[[bool], VOCSegmentation | SBDataset]
) -> VOCSegmentation | SBDataset:
    """Opens the data set, and fetches it only where it is not there yet."""
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


def _from_paths(
    name: str,
    split: str,
    images: Sequence[str | Path],
    labels: Sequence[str | Path],
    read_labels: Callable[[Path], Labels],
    classes: Sequence[str] | None,
) -> Dataset:
    pairs = zip(map(Path, images), map(Path, labels), strict=True)
    return Dataset(name, split, {image.stem: (image, label) for image, label in pairs}, read_labels, classes)


def _sbd_labels(path: Path) -> Labels:
    try:
        path.stat()  # scipy does not say which file is missing
        segmentation = loadmat(path)["GTcls"][0]["Segmentation"][0]
    except Exception as error:  # scipy raises classes of its own for damaged files
        raise SampleError(f"SBD label file {path} cannot be read: {type(error).__name__}: {error}") from error
    return torch.from_numpy(np.asarray(segmentation).astype(np.int64))
