"""Photographs and label masks from files: honest conversion to RGB in [0, 1], and the protocol's resizing."""

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
"""What makes an image upright, by its EXIF orientation (1: nothing)."""

Size = int | Literal["native"]


def load_image(path: str | Path, size: Size = "native") -> Image:
    """Reads anything that Pillow opens, PostScript excepted, as RGB in [0, 1], float32, (3, H, W).

    The EXIF orientation is applied; grey becomes three equal channels; 16-bit grey is divided by 65535; transparency
    is composited over white; CMYK and other colour modes go through Pillow's conversion (embedded ICC profiles are not
    applied). Animated files give their first frame.

    Args:
        size: "native", or the side of the square to which the image is resized (bilinear, antialiased).

    Raises:
        SampleError: the file cannot be read, or its values have no defined range (float outside [0, 1]).
    """
    try:
        with PillowImage.open(path) as file:
            _refuse_programs(file)
            file.load()  # Pillow turns a TIFF here, and forgets its orientation
            turn = _TURNS.get(file.getexif().get(ExifTags.Base.Orientation, 1))
            picture = file.copy() if turn is None else file.transpose(turn)
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise SampleError(f"image {path} cannot be read: {error}") from error
    return resize_image(_to_rgb(picture, path), size)


def _refuse_programs(file: PillowImage.Image) -> None:
    """Raises ValueError for PostScript, whatever the file is called: Pillow would have Ghostscript run it."""
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
    return torch.from_numpy(array / np.float32(255)).permute(2, 0, 1).contiguous()


def load_labels(path: str | Path) -> Labels:
    """Reads a label mask, (H, W) int64: a palette or index PNG whose pixel value is the class index, 255 ignored.

    Raises:
        SampleError: unreadable, or a colour image (whose colours are not labels).
    """
    try:
        with PillowImage.open(path) as file:
            _refuse_programs(file)
            mode, array = file.mode, np.array(file)
    except (OSError, ValueError, SyntaxError, PillowImage.DecompressionBombError) as error:
        raise SampleError(f"label mask {path} cannot be read: {error}") from error
    if array.ndim != 2 or mode not in {"P", "L", "1", "I", "I;16"}:
        raise SampleError(
            f"label mask {path} has mode {mode}; expected palette (P) or index (L, I;16) values that are class indices"
        )
    return torch.from_numpy(array.astype(np.int64))


def resize_image(image: Image, size: Size) -> Image:
    """Bilinear with antialias to (size, size), values kept in [0, 1]; "native" returns the image as it is."""
    if size == "native" or tuple(image.shape[-2:]) == (size, size):
        return image
    resized: Image = transforms.resize(image, [size, size], InterpolationMode.BILINEAR, antialias=True)
    return resized.clamp(0, 1)


def resize_labels(labels: Labels, size: Size) -> Labels:
    """Nearest to (size, size) by pixel centres, exactly; "native" returns the labels as they are."""
    if size == "native" or tuple(labels.shape) == (size, size):
        return labels
    rows, columns = ((2 * torch.arange(size) + 1) * length // (2 * size) for length in labels.shape)
    return labels[rows][:, columns]
