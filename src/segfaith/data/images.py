"""Reads images as channels in [0, 1], fits them to a model's channels, and resizes images and masks by the protocol."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import ExifTags
from PIL import Image as PillowImage
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from segfaith.data.arrays import (
    ARRAYS,
    Array,
    channels_to_front,
    is_tiff,
    read_array,
    read_tiff,
    refuse_volumes,
    stored_shape,
)
from segfaith.data.reading import PLAIN, Pair, Reading
from segfaith.errors import SampleError, SettingsError
from segfaith.types import Image, Tensor

_TURNS = {
    2: PillowImage.Transpose.FLIP_LEFT_RIGHT,
    3: PillowImage.Transpose.ROTATE_180,
    4: PillowImage.Transpose.FLIP_TOP_BOTTOM,
    5: PillowImage.Transpose.TRANSPOSE,
    6: PillowImage.Transpose.ROTATE_270,
    7: PillowImage.Transpose.TRANSVERSE,
    8: PillowImage.Transpose.ROTATE_90,
}
"""The operation that makes an image upright, by EXIF orientation (orientation 1 needs none)."""

Size = int | Literal["native"]


@dataclass(frozen=True, eq=False)
class ReadImage:
    """What `read_image` reads.

    Attributes:
        image: (C, H, W) in [0, 1], upright. C is 1 for grey, 3 for other photographs, and of arrays and TIFFs as many
            as they have.
        orientation: the EXIF orientation in the file (1: upright).
        clipped: the share of the pixels, 0 to 1, of which a channel lay outside the range and was clipped.
    """

    image: Image
    orientation: int
    clipped: float


def load_image(
    path: str | Path,
    size: Size = "native",
    channels: int = 3,
    range: Pair | Sequence[Pair] | None = None,
    clip: bool = False,
) -> Image:
    """Reads an image as float32 in [0, 1], (channels, H, W): whatever Pillow opens, PostScript excepted, .npy and .npz
    arrays, and TIFFs of several bands.

    The EXIF orientation is applied; grey becomes equal channels; transparency is composited over white; CMYK and other
    colour modes go through Pillow's conversion to RGB (embedded ICC profiles are not applied). Animated files give
    their first frame.

    Args:
        size: "native", or the side of the square to which the image is resized (bilinear, antialiased).
        channels: how many channels the model takes.
        range: the values that become 0 and 1, (low, high), or such a pair for each channel. None: 0 to 255 for 8 bits,
            and 0 to 65535 for grey PNGs of 16 bits.
        clip: values outside `range` become 0 or 1.

    Raises:
        SampleError: the file cannot be read, its values have no range or lie outside it, or all values of an 8-bit
            image are 0 or 1; or it has other channels than asked for.
        SettingsError: a size or range that is none.
    """
    if size != "native" and (not isinstance(size, int) or size < 1):
        raise SettingsError(f"size = {size!r}: expected the side of a square in pixels, at least 1, or 'native'")
    image = read_image(path, Reading(range=range, clip=clip)).image
    return resize_image(fit_channels(image, channels), size)


def fit_channels(image: Image, channels: int) -> Image:
    """An image (C, H, W) with as many channels as a model takes: grey is repeated, three equal channels become one.

    Raises:
        SampleError: the channels do not fit.
    """
    count = len(image)
    if count == channels:
        return image
    if count == 1 and channels == 3:
        return image.expand(3, -1, -1).contiguous()
    if count == 3 and channels == 1:
        if bool((image == image[:1]).all()):
            return image[:1].contiguous()
        raise SampleError(
            "the image is in colour (3 channels that differ) and the model takes 1 channel; store the image in grey, "
            "converted as it was for the model's training"
        )
    marked = (
        ". A last channel that a file marks as transparency counts as none: store other channels as .npy, or as TIFF "
        'with photometric="minisblack"'
    )
    raise SampleError(
        f"the image has {count} channel{'s' * (count != 1)} and the model takes {channels}; store the image with the "
        f"{channels} channels of the model's training, or use a model of {count}{marked * (channels == count + 1)}"
    )


def read_image(path: str | Path, reading: Reading = PLAIN) -> ReadImage:
    """An image as its file has it; raises what `load_image` raises."""
    path = Path(path)
    refuse_volumes(path)
    array = None
    if path.suffix.lower() in ARRAYS:
        array = channels_to_front(read_array(path, "image"), reading.channels_first, path)
    elif is_tiff(path):
        array = read_tiff(path, reading.channels_first)
    if array is not None:
        array = array[None] if array.ndim == 2 else array
        image, clipped = in_range(array, reading, path, (0, 255) if array.dtype == np.uint8 else None)
        return ReadImage(image, 1, clipped)
    try:
        with PillowImage.open(path) as file:
            refuse_programs(file)
            orientation = orientation_of(file)
            form = file.format
            file.load()  # Pillow turns a TIFF here, and forgets its orientation
            turn = _TURNS.get(orientation_of(file))
            picture = file.copy() if turn is None else file.transpose(turn)
        image, clipped = _to_channels(picture, path, reading, form)
    except SampleError:
        raise
    except Exception as error:  # Pillow raises whatever a damaged file brings about
        raise SampleError(f"image {path} cannot be read: {error or type(error).__name__}") from error
    return ReadImage(image, orientation, clipped)


def stored_size(path: Path) -> tuple[int, int] | None:
    """The height and width in a file's header, before it is turned by EXIF; None where the header does not say them."""
    try:
        if path.suffix.lower() in ARRAYS:
            shape = stored_shape(path)
            return shape if shape is not None and len(shape) == 2 else None
        with PillowImage.open(path) as file:
            return file.height, file.width
    except Exception:  # who reads the file says what is wrong with it
        return None


def orientation_of(file: PillowImage.Image) -> int:
    """The EXIF orientation of an open file, 1 to 8; 1 (upright) where it says none."""
    orientation = file.getexif().get(ExifTags.Base.Orientation)
    return orientation if orientation in _TURNS else 1


def refuse_programs(file: PillowImage.Image) -> None:
    """Raises ValueError for PostScript, whatever the file's name: Pillow would let Ghostscript run it."""
    if file.format == "EPS":
        raise ValueError("it is PostScript, a program that would be run; convert it to PNG first")


def _to_channels(picture: PillowImage.Image, path: Path, reading: Reading, form: str | None) -> tuple[Image, float]:
    """What Pillow read as (1, H, W), grey, or (3, H, W), colour, and the share of its pixels that was clipped."""
    mode = picture.mode
    if mode.startswith("I") or mode == "F":
        values = np.asarray(picture)
        stated = (0, 65535) if form in ("PNG", "PPM") else None  # these formats say the range
        image, clipped = in_range(values[None], reading, path, stated)
        if isinstance(transparent := picture.info.get("transparency"), int):
            image[0, torch.from_numpy(values == transparent)] = 1
        return image, clipped
    grey = mode in ("1", "L", "LA", "La")
    if "A" in mode or "a" in mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = PillowImage.new("RGBA", picture.size, "white")
        picture = PillowImage.alpha_composite(white, picture)
    array = np.array(picture.convert("L"))[None] if grey else np.array(picture.convert("RGB")).transpose(2, 0, 1)
    if any(high > 255 for _, high in reading.pairs or ()):
        raise SampleError(
            f"image {path} is read with 8 bits (mode {mode}), values 0 to 255, and [data] range goes beyond 255; set "
            "the range of 8 bits, or store the image as .npy or TIFF with all its bits"
        )
    return in_range(array, reading, path, (0, 255))


def in_range(values: Array, reading: Reading, path: Path, stated: Pair | None) -> tuple[Image, float]:
    """Stored numbers as an image in [0, 1]: (v - low) / (high - low) by the channel's range, as float32.

    With it comes the share of the pixels, 0 to 1, of which a channel lay outside the range and was clipped.

    Args:
        values: (C, H, W).
        stated: the range that the kind of file says, where `reading` says none; None: it says none.

    Raises:
        SampleError: no range, values outside it or not finite, or only 0 and 1 of 0 to 255.
    """
    if values.dtype.kind == "b":
        raise SampleError(f"image {path} holds true and false, as masks do; expected numbers: store uint8, 0 to 255")
    broken = ~np.isfinite(values)
    if broken.any():
        raise SampleError(
            f"image {path} has {int(broken.sum())} values that are no finite numbers ({broken.mean():.2%}); fill them, "
            "as with numpy.nan_to_num, before it is stored"
        )
    pairs, low, high = reading.pairs or (stated and [stated]), values.min(), values.max()
    if not pairs:
        raise SampleError(
            f"image {path} has dtype {values.dtype} with values {low:g} to {high:g}, whose range nobody can tell; set "
            "[data] range = [LOW, HIGH] to the values that become 0 and 1, the same for all images (load_image(..., "
            "range=(LOW, HIGH)))"
        )
    if len(pairs) not in (1, len(values)):
        raise SampleError(
            f"image {path} has {len(values)} channels and [data] range has {len(pairs)} pairs; expected one pair, or "
            "one for each channel"
        )
    if reading.range is None and stated == (0, 255):
        return _bytes_in_range(values, path), 0.0
    pairs = pairs * len(values) if len(pairs) == 1 else pairs
    bottom, top = (np.array(ends, np.float64)[:, None, None] for ends in zip(*pairs, strict=True))
    outside = (values < bottom) | (values > top)
    if outside.any() and not reading.clip:
        channel = int(outside.any((1, 2)).argmax())
        raise SampleError(
            f"image {path} has values {values[channel].min():g} to {values[channel].max():g} in channel {channel + 1}; "
            f"expected {pairs[channel][0]:g} to {pairs[channel][1]:g}; widen [data] range, or set clip = true"
        )
    shares = (values.astype(np.float64) - bottom) / (top - bottom)
    image = torch.from_numpy(np.ascontiguousarray(shares.clip(0, 1), np.float32))
    return image, float(outside.any(0).mean())


def _bytes_in_range(values: Array, path: Path) -> Image:
    if values.max() == 1:
        raise SampleError(
            f"image {path} has only the values 0 and 1 of 0 to 255, which is black to the eye: it is a mask, or an "
            "image in [0, 1] that was stored as integers; multiply by 255 before it is stored"
        )
    shares = np.empty(values.shape, np.float32)  # a large image should not be there twice
    return torch.from_numpy(np.divide(values, np.float32(255), out=shares))


def turned_alike(image: Image, orientation: int, labels: Tensor, carried: int) -> Tensor:
    """Labels turned as their image was.

    A mask with its image's EXIF orientation is turned with the image. If the two orientations differ, because only one
    file has one, the mask may fit as stored or turned. The sizes show which, if turning exchanges height and width.

    Args:
        image: (C, H, W), upright.
        orientation: the EXIF orientation in the image's file.
        labels: as stored, (H, W) or (K, H, W).
        carried: the EXIF orientation in the mask's file.

    Raises:
        SampleError: the mask fits both ways, so the right way is unknown.
    """
    turned = _upright(labels, orientation if carried == 1 else carried)
    if orientation == carried:
        return turned
    fitting = [mask for mask in (labels, turned) if mask.shape[-2:] == image.shape[-2:]]
    if len(fitting) > 1:
        raise SampleError(
            f"the image carries the EXIF orientation {orientation} and its label mask {carried} (1: none), so nobody "
            "can say whether the mask fits the image as it is shown or as it is stored; store both upright "
            "(PIL.ImageOps.exif_transpose, or: magick mogrify -auto-orient FILE) and check that they match"
        )
    return fitting[0] if fitting else labels


def _upright(labels: Tensor, orientation: int) -> Tensor:
    """Stored labels turned upright, by their EXIF orientation."""
    if orientation == 1:
        return labels
    turned = labels.transpose(-1, -2) if orientation >= 5 else labels
    axes = {2: [-1], 3: [-2, -1], 4: [-2], 6: [-1], 7: [-2, -1], 8: [-2]}.get(orientation, [])
    return turned.flip(axes).contiguous()


def resize_image(image: Image, size: Size) -> Image:
    """Bilinear with antialias to (size, size), values kept in [0, 1]; "native" returns the image as it is."""
    if size == "native" or tuple(image.shape[-2:]) == (size, size):
        return image
    resized: Image = transforms.resize(image, [size, size], InterpolationMode.BILINEAR, antialias=True)
    return resized.clamp(0, 1)


def resize_labels(labels: Tensor, size: Size) -> Tensor:
    """Labels or masks, (..., H, W), by nearest neighbour to (size, size), by pixel centres, exactly; "native" returns
    them as they are."""
    if size == "native" or tuple(labels.shape[-2:]) == (size, size):
        return labels
    rows, columns = ((2 * torch.arange(size) + 1) * length // (2 * size) for length in labels.shape[-2:])
    return labels[..., rows, :][..., columns]
