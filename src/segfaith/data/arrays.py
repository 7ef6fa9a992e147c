"""Images and masks that Pillow does not read: NumPy arrays and TIFFs of several bands or of numbers."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image as PillowImage

from segfaith.errors import SampleError

ARRAYS = (".npy", ".npz")
VOLUMES = {
    ".nii": "NIfTI",
    ".nii.gz": "NIfTI",
    ".dcm": "DICOM",
    ".nrrd": "NRRD",
    ".mha": "MetaImage",
    ".mhd": "MetaImage",
    ".mgz": "MGH",
}
MOST_GUESSED = 16
"""The most channels that an axis is taken for by its size alone."""

Array = NDArray[Any]
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_COLOURS = {"MINISBLACK": 1, "MINISWHITE": 1, "PALETTE": 1, "RGB": 3, "YCBCR": 3, "CIELAB": 3, "SEPARATED": 4}
"""How many samples of a pixel are its colour, by what a TIFF says of them."""


def refuse_volumes(path: Path) -> None:
    """Raises SampleError for files of three-dimensional scans, by their ending."""
    for ending, form in VOLUMES.items():
        if path.name.lower().endswith(ending):
            raise SampleError(
                f"{path} is a {form} file; segfaith reads images of two dimensions: store each slice as an image of "
                "its own (.png, .tif or .npy)"
            )


def read_array(path: Path, name: str) -> Array:
    """The numbers of a .npy file, or of a .npz file that holds one array, or several of which `name` is one.

    Raises:
        SampleError: the file cannot be read, holds objects, complex numbers or text, or more pixels than Pillow takes.
    """
    try:
        with _stream(path, name) as stream:
            shape, dtype = _header(stream)
            _refuse_kind(path, dtype)
            _refuse_shape(path, shape)
        with _stream(path, name) as stream:
            return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))
    except SampleError:
        raise
    except Exception as error:  # a damaged header or archive brings about many kinds
        raise SampleError(f"{path} cannot be read as a NumPy array: {type(error).__name__}: {error}") from error


def stored_shape(path: Path) -> tuple[int, ...] | None:
    """The shape in the header of a .npy file; None for archives.

    Raises:
        Exception: it cannot be read; `read_array` says why.
    """
    if path.suffix.lower() != ".npy":
        return None
    with path.open("rb") as stream:
        return _header(stream)[0]


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    header = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    shape, _, dtype = header(stream) if header else ((), False, np.dtype(object))
    return shape, dtype


@contextmanager
def _stream(path: Path, name: str) -> Iterator[IO[bytes]]:
    """The bytes of the array in a .npy or .npz file."""
    if path.suffix.lower() == ".npy":
        with path.open("rb") as stream:
            yield stream
        return
    with zipfile.ZipFile(path) as archive:
        names = [member.removesuffix(".npy") for member in archive.namelist()]
        if len(names) != 1 and name not in names:
            raise SampleError(
                f"{path} holds {len(names)} arrays ({', '.join(names)}); expected a single array, or an array that "
                f"is named {name!r}"
            )
        with archive.open(f"{name if name in names else names[0]}.npy") as stream:
            yield stream


def is_tiff(path: Path) -> bool:
    """Whether a file is a TIFF by its first bytes; False where it cannot be opened."""
    try:
        with path.open("rb") as file:
            return file.read(4) in _TIFF
    except (OSError, ValueError):
        return False


def read_tiff(path: Path, channels_first: bool | None, *, mask: bool = False) -> Array | None:
    """The numbers of a TIFF: (H, W), or (C, H, W) where it has several bands; None where Pillow reads it as well.

    Pillow reads photographs, and grey of one band up to 16 bits or in float32.

    Args:
        channels_first: True takes the pages of a TIFF for the channels of one image, False its pages for rows.
        mask: the file holds labels: compression that changes values and white for 0 are refused.

    Raises:
        SampleError: the file cannot be read, or its pages are slices or frames.
    """
    try:
        with tifffile.TiffFile(path) as file:
            page: Any = file.pages[0]
            series = file.series[0]
            shape, axes = tuple(series.shape), series.axes
            stacked = np.prod(shape) != np.prod(page.shape)  # the pages are an axis of the image
            channels = axes == "CYX" or (channels_first is not None and len(shape) == 3 and not set(axes) & set("ZT"))
            if (stacked and not channels) or any(not other.keyframe.is_reduced for other in file.series[1:]):
                raise SampleError(_pages(path, len(file.pages), axes))
            if mask:
                _refuse_altered(path, page)
            elif _inverted(page):
                raise SampleError(
                    f"image {path} says that 0 is white, so programs disagree which values are bright; store it with "
                    "photometric MINISBLACK, after high - value where 0 is white indeed"
                )
            if not stacked and _pillow_reads(page, mask):
                return None
            if (orientation := page.tags.valueof(274, 1)) != 1:
                raise SampleError(f"{path} carries the orientation {orientation}; expected 1: store it upright")
            _refuse_kind(path, np.dtype(series.dtype))
            _refuse_shape(path, shape)
            array = np.asarray(series.asarray())
            if array.shape != shape:
                raise ValueError(f"its header says the shape {shape}, and it holds {array.shape}")
    except SampleError:
        raise
    except Exception as error:  # tifffile raises whatever a damaged file brings about
        remedy = "; or store it without compression" if "imagecodecs" in str(error) else ""
        what = "label mask" if mask else "image"
        raise SampleError(f"{what} {path} cannot be read: {type(error).__name__}: {error}{remedy}") from error
    last = axes == "YXS" or (axes not in ("CYX", "SYX") and channels_first is False)
    return np.moveaxis(array, -1, 0) if last and array.ndim == 3 else array


def _pages(path: Path, pages: int, axes: str) -> str:
    return (
        f"{path} is a TIFF of {pages} pages (axes {axes}), such as slices of a volume or frames; segfaith reads images "
        "of two dimensions: store each slice as an image of its own. If the pages are the channels of one image, set "
        "[data] channels_first = true"
    )


def _pillow_reads(page: Any, mask: bool) -> bool:
    """Whether Pillow gives the values of a page as they are: photographs of 8 bits, and single bands."""
    photometric = getattr(page.photometric, "name", "")
    extra = [int(kind) for kind in page.extrasamples]
    if page.samplesperpixel == 1:
        return str(page.dtype) in ("bool", "uint8", "uint16", "float32")
    if page.bitspersample != 8 or mask:
        return False
    return page.samplesperpixel - len(extra) == _COLOURS.get(photometric) and extra in ([], [1], [2])


def _white_is_zero(page: Any) -> bool:
    return getattr(page.photometric, "name", "") == "MINISWHITE"


def _inverted(page: Any) -> bool:
    """Whether a page says that 0 is white and nobody turns it: Pillow does so for grey of up to 8 bits."""
    return _white_is_zero(page) and (page.samplesperpixel > 1 or str(page.dtype) not in ("bool", "uint8"))


def _refuse_altered(path: Path, page: Any) -> None:
    """Raises SampleError where a TIFF does not hold labels as they were: lossy, or turned to a negative."""
    if any(word in page.compression.name for word in ("JPEG", "WEBP", "LERC")):
        raise SampleError(
            f"label mask {path} is compressed by {page.compression.name}, which may mix labels; store it without loss"
        )
    if _white_is_zero(page):
        raise SampleError(
            f"label mask {path} says that 0 is white, so programs disagree whether its values are labels or their "
            "negative; store it as uint8 with photometric MINISBLACK, or as PNG"
        )


def _refuse_kind(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "uifb":
        raise SampleError(
            f"{path} holds an array of dtype {dtype}; expected real numbers: store magnitudes, or other parts of "
            "complex numbers, as channels, and objects and text not at all"
        )


def _refuse_shape(path: Path, shape: tuple[int, ...]) -> None:
    if len(shape) not in (2, 3) or 0 in shape:
        raise SampleError(
            f"{path} has shape {shape}; expected (H, W), (H, W, C) or (C, H, W): store each image of a stack or slice "
            "of a volume in a file of its own"
        )
    limit = PillowImage.MAX_IMAGE_PIXELS
    pixels = int(np.prod(sorted(shape)[-2:]))
    if limit is not None and pixels > 2 * limit:
        raise SampleError(f"{path} has {pixels} pixels, shape {shape}; expected at most {2 * limit}: cut it into tiles")


def channels_to_front(array: Array, channels_first: bool | None, path: Path) -> Array:
    """(H, W), (H, W, C) or (C, H, W) as (C, H, W).

    Args:
        channels_first: which of the two a three-dimensional array is; None: the axis of channels is the smallest, if it
            has at most 16 entries and the others have more.

    Raises:
        SampleError: the sizes do not tell which axis it is.
    """
    if array.ndim == 2:
        return array[None]
    if channels_first is None:
        first, rows, last = array.shape
        if first <= MOST_GUESSED and first < min(rows, last):
            channels_first = True
        elif last <= MOST_GUESSED and last < min(first, rows):
            channels_first = False
        else:
            raise SampleError(
                f"{path} has shape {array.shape}, whose axis of channels the sizes do not tell (it would be the "
                f"smallest, of at most {MOST_GUESSED} entries); set [data] channels_first = true for (C, H, W) or "
                "false for (H, W, C); slices of a volume are not read"
            )
    return array if channels_first else np.moveaxis(array, -1, 0)
