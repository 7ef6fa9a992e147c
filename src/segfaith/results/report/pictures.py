"""Pictures of the gallery as data URIs, at the largest size and quality at which the page stays within its limit."""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segfaith.results.figures.overlay import outlined, overlay
from segfaith.results.records.select import base
from segfaith.results.report.gallery import Item, methods_of, read_map, shrunk

SIZES = ((192, 72), (160, 66), (160, 50), (128, 50), (112, 42), (96, 36))
"""Longer side in pixels and WebP quality, tried in this order."""
PROBES = 6
"""So many samples are encoded to foretell the size of all."""


@dataclass(frozen=True)
class Pictures:
    """Data URIs by item (its place) and then by method; "" is the image itself. `words` says what was given up."""

    uris: tuple[dict[str, str], ...]
    words: str
    bytes: int


def pictures(items: Sequence[Item], budget: int) -> Pictures:
    """Every item's image and maps as WebP, within `budget` bytes in all.

    Size and quality fall first; then variants (names with @), then the last methods in the paper's order are left out.
    """
    methods = methods_of(items)
    places = [place for place, one in enumerate(items) if one.folder]
    if not places or budget <= 0:
        return Pictures(tuple({} for _ in items), "", 0)
    probed = [items[places[place]] for place in dict.fromkeys(np.linspace(0, len(places) - 1, PROBES).astype(int))]
    lengths: dict[tuple[int, int], dict[str, float]] = {}
    for kept, (side, quality) in _plans(methods):
        if (side, quality) not in lengths:
            lengths[(side, quality)] = _lengths([_encoded(one, methods, side, quality) for one in probed])
        if sum(lengths[(side, quality)].get(name, 0) for name in ("", *kept)) * len(places) > budget * 0.97:
            continue
        uris = tuple(_encoded(one, kept, side, quality) if one.folder else {} for one in items)
        total = sum(map(_size, uris))
        if total <= budget:
            return Pictures(uris, _words(methods, kept, side), total)
    return Pictures(tuple({} for _ in items), "Pictures are left out: they would not fit into the page’s limit.", 0)


def _plans(methods: Sequence[str]) -> list[tuple[list[str], tuple[int, int]]]:
    """What to try, best first."""
    plain = [name for name in methods if base(name) == name] or list(methods)
    plans = [(list(methods), size) for size in SIZES]
    plans += [(plain, size) for size in SIZES[-2:] if len(plain) < len(methods)]
    return plans + [(plain[:number], SIZES[-1]) for number in range(len(plain) - 1, -1, -1)]


def _words(methods: Sequence[str], kept: Sequence[str], side: int) -> str:
    gone = [name for name in methods if name not in kept]
    said = f"Pictures are at most {side} pixels wide"
    return f"{said}, and maps of {', '.join(gone)} are left out, so that the page stays small." if gone else f"{said}."


def _encoded(item: Item, methods: Sequence[str], side: int, quality: int) -> dict[str, str]:
    """The data URIs of one item; a file that can't be read is left out."""
    folder = item.folder
    if folder is None:
        return {}
    try:
        image = _scaled(folder / "image.png", side, Image.Resampling.LANCZOS)
        region = _mask(folder / "target.png", image)
        planted = _mask(folder / "evidence.png", image) if (folder / "evidence.png").is_file() else None
    except (OSError, ValueError):
        return {}
    uris = {"": _uri(outlined(image, region, planted), quality)}
    for method in methods:
        heatmap = read_map(folder, method) if method in set(item.rows["method"]) else None
        if heatmap is not None:
            small = np.asarray(shrunk(heatmap, side)).clip(0, 1)
            if small.shape == image.shape[1:]:
                uris[method] = _uri(overlay(image, small, region), quality)
    return uris


def _scaled(path: Path, side: int, how: Image.Resampling) -> NDArray[np.float64]:
    """An image file as RGB in [0, 1], (3, H, W), its longer side at most `side`."""
    with Image.open(path, formats=("PNG",)) as file:
        scale = min(1.0, side / max(file.size))
        size = (max(1, round(file.width * scale)), max(1, round(file.height * scale)))
        return np.asarray(file.convert("RGB").resize(size, how), dtype=np.float64).transpose(2, 0, 1) / 255


def _mask(path: Path, image: NDArray[np.float64]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = _scaled(path, max(image.shape[1:]), Image.Resampling.NEAREST)[0] > 0.5
    return mask


def _uri(picture: Image.Image, quality: int) -> str:
    buffer = BytesIO()
    picture.save(buffer, format="WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode('ascii')}"


def _lengths(probes: Sequence[dict[str, str]]) -> dict[str, float]:
    """The mean length of a sample's data URI, by method."""
    names = {name for one in probes for name in one}
    return {name: sum(len(one.get(name, "")) for one in probes) / len(probes) for name in names}


def _size(uris: dict[str, str]) -> int:
    return sum(map(len, uris.values()))
