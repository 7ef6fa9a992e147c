"""The panel of one explained image: the target, each method's map, and what its deletion does to the prediction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray
from PIL import Image

from segfaith.results.figures.overlay import PREDICTED, outlined, overlay
from segfaith.results.figures.style import STYLE, canvas, literal

TILE, MOST = 2.0, 6
"""Inches of a tile's longer side, and methods side by side; further methods follow below."""
SHOWN = (224, 448)
"""Pictures whose longer side is shorter or longer than this many pixels are scaled, so that outlines stay visible."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Column:
    """What the panel shows of a method.

    Attributes:
        label: heads its map.
        heatmap: (H, W) in [0, 1].
        deleted: the image without the map's top pixels, (C, H, W) in [0, 1].
        predicted: where the model still predicts the class then, a mask (H, W).
        words: below the altered image: "0.93 to 0.41".
    """

    label: str
    heatmap: Array
    deleted: Array
    predicted: Array
    words: str


def draw_panel(
    title: str,
    image: Any,
    region: Any,
    predicted: Any,
    columns: Sequence[Column],
    *,
    words: str,
    deleted: str,
    refused: Mapping[str, str] | None = None,
) -> Figure:
    """The figure: on the left the image with the target and the prediction, then a map a method, its deletion below.

    Args:
        image: (C, H, W) in [0, 1].
        region: the target, a mask (H, W).
        predicted: where the model predicts the target's class, a mask (H, W).
        words: below the image.
        deleted: what the lower row shows, as a sentence.
        refused: why there is no map of a method, by its label: told below the pictures.
    """
    per_block = min(MOST, len(columns))
    blocks = [columns[start : start + per_block] for start in range(0, len(columns), per_block)]
    height, width = np.asarray(image).shape[1:]
    tile_width, tile_height = (max(0.6 * TILE, TILE * side / max(height, width)) for side in (width, height))
    wide = tile_width * (per_block + 1) + 0.9
    lines = wrap(literal(title, 400), max(30, int(wide * 12)))
    missing = _missing(refused or {}, int(wide * 15))
    with rc_context(STYLE):
        high = len(blocks) * 2 * (tile_height + 0.42) + 0.16 * len(lines) + 0.13 * len(missing) + 0.4
        figure = canvas(wide, high)
        figure.suptitle("\n".join(lines), fontsize=9)
        if missing:
            figure.supxlabel("\n".join(missing), x=0.01, ha="left", fontsize=7)
        grid = figure.subplots(2 * len(blocks), per_block + 1, squeeze=False)
        for number, block in enumerate(blocks):
            rows = grid[2 * number : 2 * number + 2]
            _block(rows, image, region, predicted, block, words if number == 0 else None, int(tile_width * 12))
        scale = ScalarMappable(Normalize(0, 1), "inferno")
        bar = figure.colorbar(scale, ax=list(grid.flat), shrink=0.6, pad=0.01, aspect=24, ticks=[0, 0.5, 1])
        bar.set_label("attribution (map scaled to 0 to 1)")
        _legend(grid[1, 0], deleted, tile_width)
    return figure


def _missing(refused: Mapping[str, str], letters: int) -> list[str]:
    """Lines of at most `letters` that say of which methods there is no map, and why: a sentence for each reason."""
    methods: dict[str, list[str]] = {}
    for label, reason in refused.items():
        methods.setdefault(reason, []).append(label)
    sentences = [f"No map of {', '.join(labels)}: {reason}" for reason, labels in methods.items()]
    return [
        literal(line, len(line)) for sentence in sentences for line in wrap(sentence, letters, break_on_hyphens=False)
    ]


def _block(
    grid: Array,
    image: Any,
    region: Any,
    predicted: Any,
    columns: Sequence[Column],
    words: str | None,
    letters: int,
) -> None:
    """Two rows of the panel: maps above, the images without their top pixels below.

    Args:
        words: below the image itself; None: it is not shown.
        letters: so many fit into a tile's width.
    """
    for axes in grid.flat:
        axes.set_axis_off()
    if words is not None:
        as_it_is = outlined(_shown(image), _shown_mask(region), predicted=_shown_mask(predicted))
        _show(grid[0, 0], as_it_is, "image", _wrapped(words, letters))
    for place, column in enumerate(columns, 1):
        over = overlay(_shown(image), _shown(column.heatmap[None])[0], _shown_mask(region))
        _show(grid[0, place], over, literal(column.label, letters), "")
        without = outlined(_shown(column.deleted), _shown_mask(region), predicted=_shown_mask(column.predicted))
        _show(grid[1, place], without, "", _wrapped(column.words, letters))


def _wrapped(words: str, letters: int) -> str:
    return "\n".join(wrap(literal(words, 3 * letters), letters))


def _show(axes: Axes, picture: Image.Image, title: str, words: str) -> None:
    axes.set_axis_on()
    axes.imshow(np.asarray(picture))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title)
    axes.set_xlabel(words, labelpad=2)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _legend(axes: Axes, deleted: str, width: float) -> None:
    """What the outlines and the lower row mean, in the place below the image."""
    edge = [Stroke(linewidth=3, foreground="black"), Normal()]
    target = Line2D([], [], color="white", linewidth=1.5, path_effects=edge, label="target")
    drawn = Line2D([], [], color=PREDICTED, linewidth=2, linestyle=(0, (2, 1)), label="prediction")
    axes.legend(handles=[target, drawn], loc="upper center", handlelength=2.2)
    axes.text(
        0.5, 0.6, "\n".join(wrap(deleted, int(width * 13))), ha="center", va="top", transform=axes.transAxes, fontsize=7
    )


def _factor(side: int) -> float:
    low, high = SHOWN
    return float(-(-low // side)) if side < low else min(1.0, high / side)


def _shown(image: Any) -> NDArray[np.float64]:
    """An image (C, H, W) at the size at which it is drawn; small ones keep their pixels as squares."""
    values = np.asarray(image, dtype=np.float32)
    return np.stack([_scaled(channel, smooth=True) for channel in values]).clip(0, 1).astype(np.float64)


def _shown_mask(mask: Any) -> NDArray[np.bool_]:
    """A mask (H, W) at the size at which it is drawn."""
    return _scaled(np.asarray(mask, dtype=np.float32), smooth=False) > 0.5


def _scaled(channel: NDArray[np.float32], *, smooth: bool) -> NDArray[np.float32]:
    factor = _factor(max(channel.shape))
    if factor == 1:
        return channel
    size = tuple(max(1, round(side * factor)) for side in channel.shape[::-1])
    way = Image.Resampling.BOX if smooth and factor < 1 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(channel).resize((size[0], size[1]), way))
