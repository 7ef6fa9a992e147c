"""Reads photographs and label masks, converts photographs to RGB in [0, 1], and resizes both by the protocol."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import ExifTags
from PIL import Image as PillowImage
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from segfaith.errors import SampleError
from segfaith.types import Image, Labels

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


def load_image(path: str | Path, size: Size = "native") -> Image:
    """Reads anything that Pillow opens, PostScript excepted, as RGB in [0, 1], float32, (3, H, W).

    The EXIF orientation is applied; grey becomes three equal channels; 16-bit grey is divided by 65535; transparency
    is composited over white; CMYK and other colour modes go through Pillow's conversion (embedded ICC profiles are not
    applied). Animated files give their first frame.

    Args:
        size: "native", or the side of the square to which the image is resized (bilinear, antialiased).

    Raises:
        SampleError: the file cannot be read, its values have no defined range (float outside [0, 1]), or all values of
            an 8-bit image are 0 or 1.
    """
    return resize_image(read_image(path)[0], size)


def read_image(path: str | Path) -> tuple[Image, int]:
    """An image as from `load_image`, and the EXIF orientation in its file (1: upright)."""
    try:
        with PillowImage.open(path) as file:
            _refuse_programs(file)
            orientation = _orientation(file)
            file.load()  # Pillow turns a TIFF here, and forgets its orientation
            turn = _TURNS.get(_orientation(file))
            picture = file.copy() if turn is None else file.transpose(turn)
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise SampleError(f"image {path} cannot be read: {error}") from error
    return _to_rgb(picture, path), orientation


def _orientation(file: PillowImage.Image) -> int:
    orientation = file.getexif().get(ExifTags.Base.Orientation)
    return orientation if orientation in _TURNS else 1


def _refuse_programs(file: PillowImage.Image) -> None:
    """Raises ValueError for PostScript, whatever the file's name: Pillow would let Ghostscript run it."""
    if file.format == "EPS":
        raise ValueError("it is PostScript, a program that would be run; convert it to PNG first")


def _to_rgb(picture: PillowImage.Image, path: str | Path) -> Image:
    mode = picture.mode
    if mode.startswith("I") or mode == "F":
        values = np.asarray(picture, dtype=np.float64)
        top = 1.0 if mode == "F" else 65535.0
        if not (values.min() >= 0 and values.max() <= top):
            raise SampleError(
                f"image {path} has mode {mode} with values {values.min():g} to {values.max():g}; expected 0 to "
                f"{top:g}; convert it to 8- or 16-bit first, with the window that you want to see"
            )
        grey = torch.from_numpy((values / top).astype(np.float32))
        if isinstance(transparent := picture.info.get("transparency"), int):
            grey[torch.from_numpy(values == transparent)] = 1
        return grey.expand(3, -1, -1).contiguous()
    if "A" in mode or "transparency" in picture.info:
        picture = picture.convert("RGBA")
        white = PillowImage.new("RGBA", picture.size, "white")
        picture = PillowImage.alpha_composite(white, picture)
    array = np.array(picture.convert("RGB"), dtype=np.float32)
    if array.max() == 1:
        raise SampleError(
            f"image {path} has only the values 0 and 1 of 0 to 255, which is black to the eye: it is a mask, or an "
            "image in [0, 1] that was stored as integers; multiply by 255 before it is stored"
        )
    return torch.from_numpy(array / np.float32(255)).permute(2, 0, 1).contiguous()


def load_labels(path: str | Path) -> Labels:
    """Reads a label mask, (H, W) int64: a palette or index PNG whose pixel value is the class index, 255 ignored.

    Raises:
        SampleError: the file cannot be read; is not a PNG, whatever its name (JPEG blurs labels, other formats scale
            them); has 2 or 4 bits of grey, whose values are ambiguous; is an animation; or is a colour image, whose
            colours are not labels.
    """
    return read_labels(path)[0]


def read_labels(path: str | Path) -> tuple[Labels, int]:
    """Labels as stored (see `load_labels`), and the EXIF orientation in their file (1: upright)."""
    try:
        with PillowImage.open(path) as file:
            _refuse_programs(file)
            form, mode, frames = file.format, file.mode, getattr(file, "n_frames", 1)
            packed = {str(tile[3]) for tile in getattr(file, "tile", [])} & {"L;2", "L;4"}
            array, orientation = np.array(file), _orientation(file)
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        capitals = Path(path).with_suffix(".PNG")
        there = (
            f"; {capitals.name} is there; its ending must be .png: rename it"
            if not Path(path).exists() and capitals.exists()
            else ""
        )
        raise SampleError(f"label mask {path} cannot be read: {error}{there}") from error
    if form != "PNG":
        raise SampleError(
            f"label mask {path} is stored as {form}, whatever its name; expected PNG, which keeps every label (JPEG "
            "mixes them at edges, other formats may scale them): write the masks again from their source"
        )
    if array.ndim != 2 or mode not in {"P", "L", "1", "I", "I;16"}:
        raise SampleError(
            f"label mask {path} has mode {mode}; expected palette (P) or index (L, I;16) values that are class indices"
        )
    if packed:
        raise SampleError(
            f"label mask {path} is grey of {packed.pop()[-1]} bits, where 1 may mean class 1 or a grey value that was "
            "packed; expected 8 bits, or a palette"
        )
    if frames > 1:
        raise SampleError(f"label mask {path} holds {frames} frames; expected one")
    return torch.from_numpy(array.astype(np.int64)), orientation


def turned_alike(image: Image, orientation: int, labels: Labels, carried: int) -> Labels:
    """Labels turned as their image was.

    A mask with its image's EXIF orientation is turned with the image. If the two orientations differ, because only one
    file has one, the mask may fit as stored or turned. The sizes show which, if turning exchanges height and width.

    Args:
        image: (3, H, W), upright.
        orientation: the EXIF orientation in the image's file.
        labels: as stored.
        carried: the EXIF orientation in the mask's file.

    Raises:
        SampleError: the mask fits both ways, so the right way is unknown.
    """
    turned = _upright(labels, orientation if carried == 1 else carried)
    if orientation == carried:
        return turned
    fitting = [mask for mask in (labels, turned) if mask.shape == image.shape[-2:]]
    if len(fitting) > 1:
        raise SampleError(
            f"the image carries the EXIF orientation {orientation} and its label mask {carried} (1: none), so nobody "
            "can say whether the mask fits the image as it is shown or as it is stored; store both upright "
            "(PIL.ImageOps.exif_transpose, or: magick mogrify -auto-orient FILE) and check that they match"
        )
    return fitting[0] if fitting else labels


def _upright(labels: Labels, orientation: int) -> Labels:
    """Stored labels turned upright, by their EXIF orientation."""
    if orientation == 1:
        return labels
    turned = labels.T if orientation >= 5 else labels
    axes = {2: [1], 3: [0, 1], 4: [0], 6: [1], 7: [0, 1], 8: [0]}.get(orientation, [])
    return turned.flip(axes).contiguous()


def resize_image(image: Image, size: Size) -> Image:
    """Bilinear with antialias to (size, size), values kept in [0, 1]; "native" returns the image as it is."""
    if size == "native" or tuple(image.shape[-2:]) == (size, size):
        return image
    resized: Image = transforms.resize(image, [size, size], InterpolationMode.BILINEAR, antialias=True)
    return resized.clamp(0, 1)


def resize_labels(labels: Labels, size: Size) -> Labels:
    """Nearest neighbour to (size, size), by pixel centres, exactly; "native" returns the labels as they are."""
    if size == "native" or tuple(labels.shape) == (size, size):
        return labels
    rows, columns = ((2 * torch.arange(size) + 1) * length // (2 * size) for length in labels.shape)
    return labels[rows][:, columns]
