"""Renders scenes at any size. If one plate of a scene changes, only that plate's pixels change."""

from collections.abc import Callable

import numpy as np
import torch

from segfaith.data.scenes.symbols import Array, Body, Colour, Plate, Scene, Splash
from segfaith.randomness import generator
from segfaith.types import Image, Labels, Mask

INK: dict[bool, tuple[Colour, Colour]] = {
    False: ((0.07, 0.07, 0.09), (0.95, 0.95, 0.92)),
    True: ((0.08, 0.08, 0.42), (0.98, 0.86, 0.1)),
}
"""The two tones of a plate; the cue's (True) are navy and yellow."""


def render(scene: Scene, size: int) -> tuple[Image, Labels]:
    """The image, float32 RGB (3, size, size) of whole 1/255 steps, and the label map, int64 (size, size)."""
    image, owners = paint(scene, size)
    return image, torch.tensor([0, *(scene.label(body) for body in scene.bodies)])[owners]


def paint(scene: Scene, size: int) -> tuple[Image, Labels]:
    """The image of `render`, and each pixel's owner: 1 + the index of the body visible there, or 0 for none."""
    rng = generator(0, scene.key, "background")
    canvas = _background(rng, size)
    owners = np.zeros((size, size), dtype=np.int64)
    for splash in scene.clutter:
        _paint_splash(canvas, None, splash)
    for plate in scene.distractors:
        _paint_plate(canvas, plate, INK[False])
    if scene.cue is not None:
        _paint_plate(canvas, scene.cue, INK[True])
    for number, body in enumerate(scene.bodies, 1):
        _paint_body(canvas, owners, body, number)
    for splash in scene.occluders:
        _paint_splash(canvas, owners, splash)
    canvas *= _light(rng, size)
    canvas += np.float32(rng.uniform(0.01, 0.035)) * rng.standard_normal((size, size, 3), dtype=np.float32)
    levels = np.rint(np.clip(canvas, 0, 1) * 255).astype(np.float32)
    image = torch.from_numpy(levels / np.float32(255)).permute(2, 0, 1).contiguous()
    return image, torch.from_numpy(owners)


def plate_mask(plates: tuple[Plate, ...], size: int) -> Mask:
    """The pixels of some plates, bool (size, size)."""
    mask = torch.zeros(size, size, dtype=torch.bool)
    for plate in plates:
        rows, columns = _window(plate.centre, plate.side / 2, size)
        points = _points(rows, columns, size)
        covered = plate.covers(points.reshape(-1, 2)).reshape(points.shape[:2])
        mask[rows, columns] |= torch.from_numpy(covered)
    return mask


def plate_labels(scene: Scene, size: int) -> Labels:
    """Which pattern a pixel belongs to: 0 for none, else 1 + its place in `PATTERNS`; int64 (size, size)."""
    plates = [*scene.distractors, *(part for body in scene.bodies for part in body.parts)]
    plates += [scene.cue] if scene.cue is not None else []
    names = list(PATTERNS)
    labels = torch.zeros(size, size, dtype=torch.int64)
    for plate in plates:
        labels[plate_mask((plate,), size)] = 1 + names.index(plate.pattern)
    return labels


def _window(centre: tuple[float, float], reach: float, size: int) -> tuple[slice, slice]:
    """Rows and columns of the pixels within `reach` of a centre, and one more on each side."""
    low = [max(0, int((at - reach) * size) - 1) for at in centre]
    high = [min(size, int((at + reach) * size) + 2) for at in centre]
    return slice(low[0], max(low[0], high[0])), slice(low[1], max(low[1], high[1]))


def _points(rows: slice, columns: slice, size: int) -> Array:
    """(row, column) of the pixels' centres in units of the image's side, (h, w, 2)."""
    row = (np.arange(rows.start, rows.stop) + 0.5) / size
    column = (np.arange(columns.start, columns.stop) + 0.5) / size
    return np.stack(np.meshgrid(row, column, indexing="ij"), -1)


def _paint_splash(canvas: Array, owners: Array | None, splash: Splash) -> None:
    size = len(canvas)
    rows, columns = _window(splash.centre, max(splash.lengths), size)
    points = _points(rows, columns, size)
    inside = splash.covers(points.reshape(-1, 2)).reshape(points.shape[:2])
    canvas[rows, columns][inside] = splash.colour
    if owners is not None:
        owners[rows, columns][inside] = 0


def _paint_plate(canvas: Array, plate: Plate, ink: tuple[Colour, Colour]) -> None:
    size = len(canvas)
    rows, columns = _window(plate.centre, plate.side / 2, size)
    points = _points(rows, columns, size)
    inside = plate.covers(points.reshape(-1, 2)).reshape(points.shape[:2])
    v, u = np.moveaxis((points - plate.centre) / plate.side, -1, 0)
    dark = PATTERNS[plate.pattern](u, v)
    canvas[rows, columns][inside & dark] = ink[0]
    canvas[rows, columns][inside & ~dark] = ink[1]


PATTERNS: dict[str, Callable[[Array, Array], Array]] = {
    "upright": lambda u, v: np.floor((u + 0.5) * 4) % 2 == 0,
    "level": lambda u, v: np.floor((v + 0.5) * 4) % 2 == 0,
    "disc": lambda u, v: u**2 + v**2 < 0.5 / np.pi,
    "cross": lambda u, v: np.abs(np.abs(u) - np.abs(v)) < (1 - np.sqrt(0.5)) / 2,
    "frame": lambda u, v: np.maximum(np.abs(u), np.abs(v)) > np.sqrt(0.125),
    "above": lambda u, v: np.abs(u) < (v + 0.5) / 2,
    "below": lambda u, v: np.abs(u) < (0.5 - v) / 2,
}
"""Which points (u to the right, v downwards, in [-0.5, 0.5]) of a plate are dark: half of them in every pattern."""


def _paint_body(canvas: Array, owners: Array, body: Body, number: int) -> None:
    size = len(canvas)
    reach = body.radius * (1 + sum(abs(height) for _, height, _ in body.waves))
    rows, columns = _window(body.centre, reach, size)
    offset = _points(rows, columns, size) - body.centre
    distance = np.hypot(offset[..., 0], offset[..., 1])
    angle = np.arctan2(offset[..., 0], offset[..., 1])
    depth = body.outline(angle) - distance
    texture = _texture(body, offset, distance, angle)[..., None]
    colour = np.where(texture, np.array(body.tones[1]), np.array(body.tones[0]))
    colour *= (0.75 + 0.5 * np.clip(depth / body.radius, 0, 0.5))[..., None]  # darker towards the rim
    inside = depth >= 0
    canvas[rows, columns][inside] = colour[inside]
    owners[rows, columns][inside] = number
    for part in body.parts:
        _paint_plate(canvas, part, INK[False])


def _texture(body: Body, offset: Array, distance: Array, angle: Array) -> Array:
    """Where a body shows its lighter tone; with every texture, this is half of its area."""
    cosine, sine = np.cos(body.turn), np.sin(body.turn)
    field: Array
    x = (offset[..., 1] * cosine + offset[..., 0] * sine) * 2 * np.pi * 16 / body.scale
    y = (offset[..., 0] * cosine - offset[..., 1] * sine) * 2 * np.pi * 16 / body.scale
    if body.texture == "rings":
        field = np.sin(distance * 2 * np.pi * 20 / body.scale + body.turn)
    elif body.texture == "rays":
        field = np.sin(round(14 / body.scale) * angle + body.turn)
    elif body.texture == "marker":
        field = np.sin(0.5 * x) + np.sin(0.31 * x + 0.4 * y) + np.sin(0.45 * y + 1)
    elif body.texture == "context":
        field = np.sin(0.35 * x + 1.5 * np.sin(0.25 * y))
    elif body.texture == "conjunction":
        field = np.sin(x) * np.sin(y)
    else:
        field = np.sin(0.8 * x)
    return field > 0


def _background(rng: np.random.Generator, size: int) -> Array:
    """Two muted colours mixed by waves and by smooth noise, (size, size, 3) float32."""
    at = ((np.arange(size) + 0.5) / size).astype(np.float32)
    mixture = np.zeros((size, size), dtype=np.float32)
    for _ in range(3):
        frequency, turn, phase = rng.uniform(2, 14), rng.uniform(0, np.pi), rng.uniform(0, 2 * np.pi)
        row, column = (np.float32(2 * np.pi * frequency * part) * at for part in (np.sin(turn), np.cos(turn)))
        mixture += np.sin(row[:, None] + column + np.float32(phase))
    coarse = rng.standard_normal((9, 9))
    mixture += np.float32(1.5) * _stretch(coarse, size)
    mixture = 1 / (1 + np.exp(np.float32(-1.5) * mixture))
    first, second = rng.uniform(0.15, 0.85, (2, 3)).astype(np.float32)
    canvas: Array = first + mixture[..., None] * (np.float32(0.6) * (second - first))
    return canvas


def _stretch(grid: Array, size: int) -> Array:
    """Bilinear interpolation of a square grid over the image."""
    at = (np.arange(size) + 0.5) / size * (len(grid) - 1)
    low = np.minimum(at.astype(int), len(grid) - 2)
    rest = at - low
    weight = np.zeros((size, len(grid)), dtype=np.float32)
    weight[np.arange(size), low] = 1 - rest
    weight[np.arange(size), low + 1] = rest
    stretched: Array = weight @ grid.astype(np.float32) @ weight.T
    return stretched


def _light(rng: np.random.Generator, size: int) -> Array:
    """A slope of brightness across the image, 0.75 to 1.15, (size, size, 1) float32."""
    at = np.linspace(-1, 1, size, dtype=np.float32)
    turn, level, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.8, 1.1), rng.uniform(0, 0.1)
    slope = level + height * (np.sin(turn) * at[:, None] + np.cos(turn) * at)
    light: Array = slope[..., None].astype(np.float32)
    return light
