"""Pictures of samples as data URIs, at the largest size and quality at which the page stays within its limit."""

from base64 import b64encode
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segfaith.results.figures.kept import UNREADABLE, kept_size
from segfaith.results.figures.overlay import outlined, overlay, overlays
from segfaith.results.records.select import base
from segfaith.results.report.gallery import Sample, kept_map, methods_of, shrunk

SIZES = ((192, 72), (160, 66), (160, 50), (128, 50), (112, 42), (96, 36))
"""Longer side in pixels and WebP quality, tried in this order."""
LARGE = ((448, 80), (320, 76), (256, 72), *SIZES)
"""The same for the few samples that are shown large."""
PROBES = 6
"""So many samples are encoded to foretell the size of all."""


@dataclass(frozen=True)
class Pictures:
    """Data URIs by sample (its place) and then by method; "" is the image itself. `words` says what was given up."""

    uris: tuple[dict[str, str], ...]
    words: str
    bytes: int


def pictures(samples: Sequence[Sample], budget: int, sizes: Sequence[tuple[int, int]] = SIZES) -> Pictures:
    """Every sample's image and maps as WebP, within `budget` bytes in all.

    Size and quality fall first; then variants (names with @), then the last methods in the paper's order are left out.
    """
    methods = methods_of(samples)
    places = [place for place, sample in enumerate(samples) if sample.folder]
    if not places:
        return Pictures(tuple({} for _ in samples), "", 0)
    gone = Pictures(tuple({} for _ in samples), "Pictures are left out: they would not fit into the page’s limit.", 0)
    if budget <= 0:
        return gone
    probed = [samples[places[place]] for place in dict.fromkeys(np.linspace(0, len(places) - 1, PROBES).astype(int))]
    lengths: dict[tuple[int, int], dict[str, float]] = {}
    for kept, (side, quality) in _plans(methods, sizes):
        if (side, quality) not in lengths:
            lengths[(side, quality)] = _lengths([_encoded(sample, methods, side, quality) for sample in probed])
        if sum(lengths[(side, quality)].get(name, 0) for name in ("", *kept)) * len(places) > budget * 0.97:
            continue
        with ThreadPoolExecutor() as pool:  # the codec and numpy leave the interpreter free
            uris = tuple(pool.map(partial(_encoded, methods=kept, side=side, quality=quality), samples))
        total = sum(map(_size, uris))
        if total <= budget:
            return Pictures(uris, _words(methods, kept, side, sizes[0][0]), total)
    return gone


def colour_bar() -> str:
    """The scale of all maps as a data URI: from 0 on the left to 1 on the right, over a photograph of middle grey."""
    ramp = np.tile(np.linspace(0, 1, 192), (12, 1))
    return _uri(overlay(np.full((3, *ramp.shape), 0.5), ramp), 90)


def _plans(methods: Sequence[str], sizes: Sequence[tuple[int, int]]) -> list[tuple[list[str], tuple[int, int]]]:
    """What to try, best first."""
    plain = [name for name in methods if base(name) == name] or list(methods)
    plans = [(list(methods), size) for size in sizes]
    plans += [(plain, size) for size in sizes[-2:] if len(plain) < len(methods)]
    return plans + [(plain[:number], sizes[-1]) for number in range(len(plain) - 1, -1, -1)]


def _words(methods: Sequence[str], kept: Sequence[str], side: int, best: int) -> str:
    gone = [name for name in methods if name not in kept]
    if gone:
        maps = f"maps of {', '.join(gone)} are left out"
        return f"Pictures are at most {side} pixels wide, and {maps}, so that the page stays small."
    return f"Pictures are at most {side} pixels wide, so that the page stays small." if side < best else ""


def _encoded(sample: Sample, methods: Sequence[str], side: int, quality: int) -> dict[str, str]:
    """The data URIs of one sample; a file that can't be read is left out."""
    folder = sample.folder
    if folder is None:
        return {}
    size = kept_size(folder)
    if size is None:
        return {}
    try:
        image = _scaled(folder / "image.png", side, Image.Resampling.LANCZOS)
        region = _mask(folder / "target.png", image)
        planted, predicted = (
            _mask(folder / name, image) if (folder / name).is_file() else None
            for name in ("evidence.png", "prediction.png")
        )
    except UNREADABLE:
        return {}
    uris = {"": _uri(outlined(image, region, planted, predicted), quality)}
    measured = set(sample.rows["method"])
    kept = {
        name: heatmap for name in methods if name in measured and (heatmap := kept_map(folder, name, size)) is not None
    }
    small = {name: np.asarray(shrunk(heatmap, side)).clip(0, 1) for name, heatmap in kept.items()}
    fitting = {name: heatmap for name, heatmap in small.items() if heatmap.shape == image.shape[1:]}
    shown = overlays(image, fitting.values(), region)
    return uris | {name: _uri(picture, quality) for name, picture in zip(fitting, shown, strict=True)}


def _scaled(path: Path, side: int, how: Image.Resampling) -> NDArray[np.float64]:
    """An image file as RGB in [0, 1], (3, H, W), its longer side at most `side`."""
    with path.open("rb") as content, Image.open(content, formats=("PNG",)) as file:
        scale = min(1.0, side / max(file.size))
        size = (max(1, round(file.width * scale)), max(1, round(file.height * scale)))
        return np.asarray(file.convert("RGB").resize(size, how), dtype=np.float64).transpose(2, 0, 1) / 255


def _mask(path: Path, image: NDArray[np.float64]) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = _scaled(path, max(image.shape[1:]), Image.Resampling.NEAREST)[0] > 0.5
    if mask.shape != image.shape[1:]:
        raise ValueError("it is no mask of this image")
    return mask


def _uri(picture: Image.Image, quality: int) -> str:
    buffer = BytesIO()
    picture.save(buffer, format="WEBP", quality=quality, method=0)  # a quarter of the time of 4, for a fifth more bytes
    return f"data:image/webp;base64,{b64encode(buffer.getvalue()).decode('ascii')}"


def _lengths(probes: Sequence[dict[str, str]]) -> dict[str, float]:
    """The mean length of a sample's data URI, by method."""
    names = {name for probe in probes for name in probe}
    return {name: sum(len(probe.get(name, "")) for probe in probes) / len(probes) for name in names}


def _size(uris: dict[str, str]) -> int:
    return sum(map(len, uris.values()))
