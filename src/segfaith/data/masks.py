"""Reads label masks: PNGs of class indices, values or colours; TIFFs and arrays; planes of overlapping classes."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage

from segfaith.data.arrays import ARRAYS, Array, read_array, read_tiff
from segfaith.data.images import orientation_of, refuse_programs
from segfaith.data.meaning import Meaning, plane_counts, translate
from segfaith.errors import SampleError
from segfaith.types import Labels, Mask, Tensor

TIFFS = (".tif", ".tiff")
ENDINGS = (".png", *TIFFS, *ARRAYS)
"""How the names of masks may end."""


def read_labels(path: str | Path) -> tuple[Labels, int]:
    """A label mask as stored, (H, W) int64, and the EXIF orientation in its file (1: upright).

    It is a palette or index PNG whose pixel value is the class index, 255 ignored.

    Raises:
        SampleError: the file cannot be read; is not a PNG, whatever its name (JPEG blurs labels, other formats scale
            them); has 2 or 4 bits of grey, whose values are ambiguous; is an animation; or is a colour image, whose
            colours are not labels.
    """
    array, mode, orientation = _read_png(Path(path))
    if array.ndim != 2 or mode not in _INDICES:
        raise SampleError(
            f"label mask {path} has mode {mode}; expected palette (P) or index (L, I;16) values that are class "
            "indices; of a picture of colours, say what they mean: [data] labels = { '#ff0000' = \"CLASS\", ... }"
        )
    return torch.from_numpy(array.astype(np.int64)), orientation


def read_drawn(path: str | Path) -> tuple[Mask, int]:
    """A drawn mask as stored, and the EXIF orientation in its file: the pixels of a PNG other than 0; of one in colours
    those that are neither black nor transparent.

    Raises:
        SampleError: see `read_labels`.
    """
    array, mode, orientation = _read_png(Path(path))
    if array.ndim == 3:
        opaque = array[..., -1] > 0 if mode.endswith("A") else np.ones(array.shape[:2], dtype=bool)
        array = (array[..., :-1] if mode.endswith("A") else array).any(-1) & opaque
    return torch.from_numpy(array != 0), orientation


_INDICES = ("P", "L", "1", "I", "I;16", "I;16B")


def _read_png(path: Path, colours: bool = False) -> tuple[Array, str, int]:
    """The values of a PNG as stored, or its colours, its mode, and its EXIF orientation."""
    try:
        with PillowImage.open(path) as file:
            refuse_programs(file)
            form, mode, frames = file.format, file.mode, getattr(file, "n_frames", 1)
            packed = {str(tile[3]) for tile in getattr(file, "tile", [])} & {"L;2", "L;4"}
            array, orientation = np.array(file.convert("RGBA") if colours else file), orientation_of(file)
    except Exception as error:  # Pillow raises whatever a damaged file brings about
        why = str(error) or type(error).__name__
        raise SampleError(f"label mask {path} cannot be read: {why}{_others(path)}") from error
    if form != "PNG":
        raise SampleError(
            f"label mask {path} is stored as {form}, whatever its name; expected PNG, which keeps every label (JPEG "
            "mixes them at edges, other formats may scale them): write the masks again from their source"
        )
    if packed:
        raise SampleError(
            f"label mask {path} is grey of {packed.pop()[-1]} bits, where 1 may mean class 1 or a grey value that was "
            "packed; expected 8 bits, or a palette"
        )
    if frames > 1:
        raise SampleError(f"label mask {path} holds {frames} frames; expected one")
    return array, mode, orientation


def _others(path: Path) -> str:
    """In words, a file that may be meant where a mask is not there: one of the same name with another ending."""
    if path.exists() or not path.parent.is_dir():
        return ""
    names = sorted(other.name for other in path.parent.iterdir() if other.stem == path.stem)
    if not names:
        return ""
    if names[0] == path.with_suffix(".PNG").name:
        return f"; {names[0]} is there; its ending must be .png: rename it"
    return (
        f"; {names[0]} is there; masks are {', '.join(ENDINGS)}: write them again from their source as PNG (a JPEG has "
        "lost labels at edges)"
    )


def _read_colours(path: Path) -> tuple[Labels, int]:
    """The colours of a PNG as 65536 r + 256 g + b, and its EXIF orientation."""
    array, mode, orientation = _read_png(path, colours=True)
    if mode.startswith("I") or (array[..., 3] != 255).any():
        what = f"mode {mode}, which has no colours" if mode.startswith("I") else "transparent pixels"
        raise SampleError(
            f"label mask {path} has {what}; [data] labels names colours: expected an opaque PNG of 8 bits a channel"
        )
    red, green, blue = (array[..., channel].astype(np.int64) for channel in range(3))
    return torch.from_numpy(red << 16 | green << 8 | blue), orientation


def read_mask(path: Path, meaning: Meaning, channels_first: bool | None) -> tuple[Tensor, int]:
    """A mask as stored, and the EXIF orientation in its file (1: upright).

    Args:
        path: its ending, one of `ENDINGS`, says how it is read.
        channels_first: where the planes of a three-dimensional array lie if both its first and its last axis could be
            the classes.

    Returns:
        Class indices (H, W), int64, 255 where ignored; or planes of overlapping classes (K, H, W), boolean.

    Raises:
        SampleError: see `read_labels`, `translate`; a TIFF or an array that is neither integer labels (H, W) nor planes
            of 0 and 1, one for each class.
    """
    if path.suffix == ".png":
        values, orientation = _read_colours(path) if meaning.colours else read_labels(path)
        return translate(values, meaning, path), orientation
    if meaning.colours:
        raise SampleError(f"label mask {path} is no PNG, and [data] labels names colours; store the colours as PNG")
    array = read_array(path, "mask") if path.suffix in ARRAYS else _read_tiff_mask(path, channels_first)
    if array.dtype.kind not in "uib":
        raise SampleError(
            f"label mask {path} has dtype {array.dtype}; expected whole numbers: store it by .astype('uint8')"
        )
    if array.ndim == 2:
        return translate(torch.from_numpy(array.astype(np.int64)), meaning, path), 1
    return torch.from_numpy(_planes(array, meaning, channels_first, path)), 1


def _read_tiff_mask(path: Path, channels_first: bool | None) -> Array:
    array = read_tiff(path, channels_first, mask=True)
    if array is not None:
        return array
    try:
        with PillowImage.open(path) as file:
            packed = {str(tile[3]) for tile in getattr(file, "tile", [])}
            orientation, mode = orientation_of(file), file.mode
            array = np.array(file)
    except Exception as error:  # Pillow raises whatever a damaged file brings about
        raise SampleError(f"label mask {path} cannot be read: {error or type(error).__name__}") from error
    if orientation != 1 or mode not in _INDICES or any(name.startswith(("L;2", "L;4")) for name in packed):
        raise SampleError(
            f"label mask {path} has mode {mode} ({', '.join(packed)}) and orientation {orientation}; expected whole "
            "numbers of 8, 16 or 32 bits, stored upright"
        )
    return array


def _planes(array: Array, meaning: Meaning, channels_first: bool | None, path: Path) -> Array:
    """Overlapping classes as planes (K, H, W), boolean."""
    counts = plane_counts(meaning)
    expected = " or ".join(map(str, counts))
    if meaning.key:
        raise SampleError(
            f"label mask {path} has shape {array.shape}, planes of overlapping classes, and [data] {meaning.key} says "
            "what the values of a single plane mean; leave one of them out"
        )
    axes = [axis for axis in (0, 2) if array.shape[axis] in counts]
    if len(axes) == 2 and channels_first is not None:
        axes = [0 if channels_first else 2]
    if len(axes) != 1:
        raise SampleError(
            f"label mask {path} has shape {array.shape}; expected (H, W), or a plane for each class first or last, "
            f"which are {expected} ({len(meaning.classes)} classes, the background's plane may be left out)"
            + ("; set [data] channels_first to say which axis it is" if axes else "")
        )
    planes = np.moveaxis(array, axes[0], 0)
    if not np.isin(planes, (0, 1)).all():
        raise SampleError(
            f"label mask {path} has planes with values {planes.min()} to {planes.max()}; expected 0 and 1, where 1 "
            "says that the class covers the pixel"
        )
    return np.ascontiguousarray(planes, dtype=bool)
