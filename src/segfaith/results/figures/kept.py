"""What a run kept of a sample, map by map and picture by picture, read only where it is whole and fits the image."""

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segfaith.errors import SettingsError
from segfaith.paths import map_name

UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, MemoryError, Image.DecompressionBombError)


def read_map(folder: Path, method: str, size: tuple[int, ...] | None = None) -> NDArray[np.float32]:
    """A method's map.

    Args:
        folder: of the sample.
        size: (H, W) of the image; None: any.

    Raises:
        SettingsError: it is missing, damaged, of another size or not finite.
    """
    path = folder / map_name(method)
    try:
        heatmap: Any = np.load(BytesIO(path.read_bytes()), allow_pickle=False)
        if not isinstance(heatmap, np.ndarray):
            raise ValueError("it is an archive")
        heatmap = heatmap.astype(np.float32)
        if not np.isfinite(heatmap).all():
            raise ValueError("it has values that are not finite")
    except UNREADABLE as error:
        raise _unusable(path, str(error)) from error
    _expect(path, heatmap.shape, size or heatmap.shape[:2])
    return np.asarray(heatmap, dtype=np.float32)


def kept_size(folder: Path) -> tuple[int, int] | None:
    """(H, W) of a sample's image; None where the file is damaged. Its pixels are not read."""
    try:
        with (folder / "image.png").open("rb") as content, Image.open(content, formats=("PNG",)) as file:
            return file.height, file.width
    except UNREADABLE:
        return None


def read_picture(path: Path, size: tuple[int, ...] | None = None) -> NDArray[np.uint8]:
    """A picture (H, W, 3).

    Args:
        size: the (H, W) that it must have; None: any.

    Raises:
        SettingsError: it is missing, damaged or of another size.
    """
    try:
        with path.open("rb") as content, Image.open(content, formats=("PNG",)) as file:
            picture = np.asarray(file.convert("RGB"))
    except UNREADABLE as error:
        raise _unusable(path, str(error)) from error
    _expect(path, picture.shape[:2], size or picture.shape[:2])
    return picture


def read_masks(folder: Path, size: tuple[int, ...]) -> dict[str, NDArray[np.bool_]]:
    """The masks that were kept, (H, W) each: `target`, and `evidence` and `prediction` where they are there.

    Raises:
        SettingsError: there is no target, or a mask is damaged or of another size.
    """
    names = ["target", *(name for name in ("evidence", "prediction") if (folder / f"{name}.png").is_file())]
    return {name: read_picture(folder / f"{name}.png", size)[..., 0] > 127 for name in names}


def _expect(path: Path, shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    if tuple(shape) != tuple(size):
        raise _unusable(path, f"its shape is {tuple(shape)}; expected {tuple(size)}, that of the image")


def _unusable(path: Path, why: str) -> SettingsError:
    return SettingsError(
        f"{path} cannot be read ({why or 'it is cut'}); move {path.parent} away, or make the run again into another "
        "directory"
    )
