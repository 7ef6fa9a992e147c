"""Pictures of a run that kept its maps: per sample one row, the image and every method's map over it."""

from collections.abc import Callable, Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image, ImageDraw, ImageFont

from segfaith.errors import SettingsError
from segfaith.paths import inside, map_folder
from segfaith.results.figures.kept import read_map, read_masks, read_picture
from segfaith.results.figures.overlay import outlined, overlay
from segfaith.results.records.files import replace_file
from segfaith.results.records.runs import class_name
from segfaith.results.records.schema import TARGET
from segfaith.results.statistics.targets import name_of

TILE, HEAD, GAP = 192, 34, 4
"""Side of a tile, height of the words above it, and space between tiles, in pixels."""
OVERVIEW = 40
"""The overview holds at most this many samples, the first ones."""


def write_pictures(
    directory: Path,
    description: Any,
    records: pd.DataFrame,
    tell: Callable[[str], object] = lambda words: None,
) -> list[Path]:
    """Writes a picture for every target whose maps were kept, and `pictures.png` with the first ones.

    It is `pictures/ID.png`, or `pictures/ID@TARGET.png` where a sample may have several targets.

    Of an image with several targets, each has its own `pictures/ID@TARGET.png`.

    The first tile is the image with the target's outline in white, that of planted evidence in cyan and that of the
    model's prediction in dashes of yellow. The others are the methods' maps, each under its method's label, with their
    TDD and, where evidence was planted, their average precision ("AP").

    Args:
        tell: is told of each target whose maps or pictures are damaged, which has no picture then.

    Returns:
        The overview and then the targets' pictures; nothing if no maps were kept.
    """
    if not (directory / "maps").is_dir():
        return []
    labels = {name: about.get("label") or name for name, about in description["methods"].items()}
    rows: list[Path] = []
    pictures: list[Image.Image] = []
    for (sample_id, target), group in records[records["status"] == "ok"].groupby(TARGET, sort=False):
        name = map_folder(str(sample_id), str(target))
        folder = directory / "maps" / name
        if not (folder / "image.png").is_file():
            continue
        title = class_name(description, int(group["class_index"].iloc[0]))
        try:
            picture = _row(folder, name_of(str(sample_id), str(target)), title, group, labels)
        except SettingsError as error:
            tell(f"no picture of {name}: {error}")
            continue
        rows.append(inside(directory, "pictures", f"{name}.png"))
        _save(picture, rows[-1])
        pictures += [picture] if len(pictures) < OVERVIEW else []
    if not rows:
        return []
    width, height = max(one.width for one in pictures), sum(one.height for one in pictures)
    sheet = Image.new("RGB", (width, height), "white")
    top = 0
    for one in pictures:
        sheet.paste(one, (0, top))
        top += one.height
    overview = directory / "pictures.png"
    _save(sheet, overview)
    return [overview, *rows]


def _row(folder: Path, name: str, title: str, records: pd.DataFrame, labels: Mapping[str, str]) -> Image.Image:
    image = read_picture(folder / "image.png").transpose(2, 0, 1) / 255
    masks = read_masks(folder, image.shape[1:])
    region = masks["target"]
    tiles = [(name, title, outlined(image, region, masks.get("evidence"), masks.get("prediction")))]
    for record in records.to_dict("records"):
        heatmap = read_map(folder, str(record["method"]), image.shape[1:])
        figures = f"TDD {record['tdd']:.2f}"
        if not isnan(record.get("evidence_ap", float("nan"))):
            figures += f", AP {record['evidence_ap']:.2f}"
        tiles.append((labels[record["method"]], figures, overlay(image, heatmap, region)))
    return _tiled(tiles)


def _tiled(tiles: Sequence[tuple[str, str, Image.Image]]) -> Image.Image:
    """Tiles side by side, each under two lines of words."""
    sheet = Image.new("RGB", (len(tiles) * (TILE + GAP) - GAP, TILE + HEAD + GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for place, (first, second, tile) in enumerate(tiles):
        left = place * (TILE + GAP)
        draw.text((left + 1, 1), first, "black", font)
        draw.text((left + 1, HEAD // 2), second, "black", font)
        scale = TILE / max(tile.size)
        size = (max(1, round(tile.width * scale)), max(1, round(tile.height * scale)))
        sheet.paste(tile.resize(size, Image.Resampling.LANCZOS), (left, HEAD))
    return sheet


def _save(picture: Image.Image, path: Path) -> None:
    replace_file(path, lambda temporary: picture.save(temporary, format="PNG"))
