"""Reads heatmaps that were computed elsewhere: `maps:DIR` holds a file for each sample or target."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PillowImage

from segfaith.attribution.heatmap import minmax
from segfaith.errors import SampleError
from segfaith.types import Map


def read_map(folder: Path, name: str, size: tuple[int, int]) -> Map:
    """The map `folder/NAME.npy` or, where there is none, the grey PNG `folder/NAME.png`, min-max normalised.

    Args:
        name: the sample's id, or ID@TARGET; see `paths.map_folder`.
        size: (H, W) at which the sample is evaluated; the map must have it.

    Raises:
        SampleError: no file, a colour or palette image, another size, or values that are NaN or infinite.
    """
    array_file, image_file = folder / f"{name}.npy", folder / f"{name}.png"
    if not array_file.is_file() and not image_file.is_file():
        raise SampleError(f"no map for {name}: expected {array_file} or {image_file.name} beside it")
    path = array_file if array_file.is_file() else image_file
    mode = ""
    try:
        if path is array_file:
            values = np.load(path, allow_pickle=False)
        else:
            with PillowImage.open(path, formats=("PNG",)) as picture:
                mode, values = picture.mode, np.asarray(picture)
    except (OSError, ValueError, EOFError) as error:
        raise SampleError(f"map {path} cannot be read: {error}") from error
    if mode == "P":
        raise SampleError(f"map {path} holds palette indices, not values; expected a grey image")
    if values.shape != size:
        hint = "; a coloured picture of a heatmap holds colours, not values" if values.ndim == 3 else ""
        raise SampleError(f"map {path} has shape {values.shape}; expected {size}, the evaluated image's (H, W){hint}")
    if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool) or np.iscomplexobj(values):
        raise SampleError(f"map {path} holds {values.dtype}; expected real numbers")
    values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise SampleError(f"map {path} holds {int((~np.isfinite(values)).sum())} values that are NaN or infinite")
    return minmax(torch.from_numpy(values)[None])[0].float()


def names_of_targets(folder: Path, ids: Iterable[str]) -> list[str]:
    """The names ID@TARGET of the maps of these samples, of several targets each, that a folder holds; sorted."""
    changed = folder.stat().st_mtime_ns if folder.is_dir() else 0
    listed = _names_by_id(folder, changed)
    return sorted(name for sample_id in set(ids) for name in listed.get(sample_id, ()))


@lru_cache(maxsize=8)
def _names_by_id(folder: Path, changed: int) -> dict[str, set[str]]:
    """The names ID@TARGET in a folder, by id. Each sample asks for its own, and the folder is listed once for all.

    Args:
        changed: when a name last came into the folder or left it, in ns: then it is listed anew.
    """
    names: dict[str, set[str]] = {}
    for path in folder.glob("*@*.*"):
        names.setdefault(path.stem.rpartition("@")[0], set()).add(path.stem)
    return names
