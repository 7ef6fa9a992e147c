"""A data set of an image file and a label file for each sample."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from segfaith.data.dataset import Dataset
from segfaith.data.images import Size, read_image, resize_image, resize_labels, stored_size, turned_alike
from segfaith.data.meaning import Meaning, overlapping
from segfaith.data.reading import PLAIN, Reading
from segfaith.errors import SampleError
from segfaith.types import Image, Sample, Tensor

Pairs = Mapping[str, tuple[Path, Sequence[Path]]]
"""By id, an image and the files that could be its mask, of which there must be one."""


def from_pairs(
    name: str,
    split: str,
    files: Pairs,
    labels_of: Callable[[Path], tuple[Tensor, int]],
    meaning: Meaning,
    reading: Reading = PLAIN,
) -> Dataset:
    """A data set of pairs of files.

    Args:
        labels_of: reads a label file: class indices (H, W), or planes of overlapping classes (K, H, W), as stored, and
            the file's EXIF orientation (1: none).
    """
    display = None if reading.display is None else tuple(reading.display)

    def load(sample_id: str, size: Size) -> Sample:
        image_path, candidates = files[sample_id]
        if len(candidates) > 1:
            raise SampleError(
                f"{sample_id} has {len(candidates)} masks: {', '.join(path.name for path in candidates)}; keep one"
            )
        stored = [stored_size(path) for path in (image_path, candidates[0])]
        if None not in stored and sorted(stored[0] or ()) != sorted(stored[1] or ()):
            raise _differ(*stored)  # before a large file is read for nothing
        read = read_image(image_path, reading)
        image = read.image
        marked = turned_alike(image, read.orientation, *labels_of(candidates[0]))
        _check_sizes(image, marked)
        if display is not None and max(display) > len(image) > 1:
            raise SampleError(
                f"[data] display shows channel {max(display)} and image {image_path} has {len(image)}; channels count "
                "from 1"
            )
        image, marked = resize_image(image, size), resize_labels(marked, size)
        labels, masks = (marked, {}) if marked.ndim == 2 else overlapping(marked, meaning)
        return Sample(sample_id, image, labels, masks=masks, clipped=read.clipped)

    def content(sample_id: str) -> bytes:
        image, candidates = files[sample_id]
        return b"".join(_fingerprint(path) for path in (image, *candidates))

    return Dataset(name, split, list(files), meaning.classes, load, content, meaning.background, display, meaning.named)


def _check_sizes(image: Image, marked: Tensor) -> None:
    ours, theirs = tuple(image.shape[-2:]), tuple(marked.shape[-2:])
    if ours != theirs:
        raise _differ(ours, theirs)


def _differ(ours: Any, theirs: Any) -> SampleError:
    turned = "; height and width are exchanged: one of the two files is turned or transposed" * (ours == theirs[::-1])
    return SampleError(f"image and label mask differ in size: {ours} and {theirs} (height, width){turned}")


def _fingerprint(path: Path) -> bytes:
    try:
        return sha256(path.read_bytes()).digest()
    except OSError:
        return b"missing"
