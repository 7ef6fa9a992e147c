"""Draws a scene from its key: everything random in it, except its background, light and noise."""

import colorsys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segfaith.classes import SCENE_CLASSES
from segfaith.data.scenes.symbols import (
    BARS,
    BLANK,
    CUES,
    FAMILIES,
    PARTS,
    SHAPES,
    Body,
    Colour,
    Plate,
    Point,
    Scene,
    Shape,
    Splash,
)
from segfaith.randomness import generator

SHARE = {"plain": 0.042, "marker": 0.042, "context": 0.042, "conjunction": 0.021, "redundancy": 0.021}
"""Area of a plate as a share of its whole body. The deciding plates cover at most 5 % of the body's visible part."""
VISIBLE = 0.86
"""At least this share of a body must be visible."""
SIZE, MOST = 224, 0.0495
"""The native size, and the largest share of a body's visible part that its evidence covers at that size."""
GAP = 0.012
"""Free room around a plate, in units of the image's side."""
OUTLINES = {
    "plain": ((2, 0.05),),
    "marker": ((5, 0.09),),
    "context": ((4, 0.08), (2, 0.05)),
    "conjunction": ((2, 0.1), (6, 0.04)),
    "redundancy": ((3, 0.1),),
}
"""Waves (order, height) of the outlines."""
HUES = {"plain": 0.09, "marker": 0.6, "context": 0.36, "conjunction": 0.78, "redundancy": 0.97}
"""Mean hue of a kind's bodies, in turns. It tells kinds apart at a glance, never the classes of a kind."""


def draw_scene(key: str, main_class: int) -> Scene:
    """Draws a scene with a large body of `main_class` in front and up to three others, all of different classes.

    Args:
        key: seeds everything; the same key and class give the same scene on every machine.
        main_class: class index in [1, 10]. The cue's pattern is drawn freely where no body depends on it.
    """
    rng = generator(0, key, f"scene|{main_class}")
    while (scene := _draft(rng, key, main_class)) is None:
        pass  # a part did not fit: draw again from the same generator
    return scene


def _draft(rng: np.random.Generator, key: str, main_class: int) -> Scene | None:
    """One attempt at a scene; None if the main body is too much hidden, if it is alone, or if a plate has no room."""
    placed: list[tuple[int, Body]] = []  # from the front to the back
    for label in _labels(rng, main_class):
        body = _place_body(rng, label, [other for _, other in placed])
        if body is not None:
            placed.append((label, body))
    occluders = _occluders(rng, [body for _, body in placed])
    if _visible_share(placed[0][1], occluders) < VISIBLE:
        return None
    bodies: list[Body] = []
    for label, body in placed:
        front: list[Shape] = [*bodies, *occluders]
        if _visible_share(body, front) < VISIBLE:
            continue
        side = plate_side(body)
        parts: list[Plate] = []
        for pattern in _part_patterns(rng, label, body.family):
            plate = inside_plate(rng, pattern, side, body, [*front, *parts])
            if plate is None:
                return None
            parts.append(plate)
        bodies.append(replace(body, parts=tuple(parts)))
    if len(bodies) < 2:
        return None
    contexts = {SCENE_CLASSES[label] for label, _ in placed if SCENE_CLASSES[label].startswith("context")}
    pattern = contexts.pop().removeprefix("context_") if contexts else _pick(rng, CUES)
    owners = [body for body in bodies if body.family == "context"] or bodies
    taken: list[Shape] = [*bodies, *occluders]
    cue = free_plate(rng, pattern, _side(owners[0], SHARE["context"]), taken)
    if cue is None:
        return None
    distractors: list[Plate] = []
    for _ in range(int(rng.integers(1, 5))):
        plate = free_plate(rng, _pick(rng, PARTS), float(rng.uniform(0.06, 0.1)), [*taken, cue, *distractors])
        distractors += [plate] if plate is not None else []
    clutter = tuple(_splash(rng, _point(rng, 0), (0.015, 0.09)) for _ in range(int(rng.integers(6, 16))))
    scene = Scene(key, clutter, tuple(distractors), cue, tuple(bodies[::-1]), tuple(occluders))
    return scene if all(_evidence_is_small(scene, index) for index in range(len(scene.bodies))) else None


def _evidence_is_small(scene: Scene, index: int) -> bool:
    """Whether no alternative of a body's evidence covers more than 5 % of its visible pixels at 224 px.

    The plates' pixels are counted. The body's visible part is estimated on a lattice, so the limit has a margin.
    """
    body = scene.bodies[index]
    seen = _visible_share(body, [*scene.bodies[index + 1 :], *scene.occluders], fineness=3)
    pixels = _area(body) * seen * SIZE**2
    return all(sum(_pixels(plate) for plate in plates) <= MOST * pixels for plates in scene.evidence(body))


def _pixels(plate: Plate) -> int:
    """How many pixels' centres a plate covers at 224 px."""
    counts = [
        np.floor((at + plate.side / 2) * SIZE - 0.5) - np.ceil((at - plate.side / 2) * SIZE - 0.5) + 1
        for at in plate.centre
    ]
    return int(counts[0] * counts[1])


def _labels(rng: np.random.Generator, main_class: int) -> list[int]:
    """The main class and one to three others, all different, with one context class at most."""
    chosen = [main_class]
    count = int(rng.integers(2, 5))
    for label in rng.permutation(np.arange(1, len(SCENE_CLASSES))).tolist():
        contexts = sum(SCENE_CLASSES[index].startswith("context") for index in [*chosen, label])
        if len(chosen) < count and label not in chosen and contexts <= 1:
            chosen.append(label)
    return chosen


def _place_body(rng: np.random.Generator, label: int, others: Sequence[Body]) -> Body | None:
    """A body without parts, mostly in the frame and hardly overlapping the others; None if there is no room."""
    name = SCENE_CLASSES[label]
    family = FAMILIES[(label - 1) // 2]
    low, high = (0.27, 0.32) if not others else (0.22, 0.26) if family in FAMILIES[3:] else (0.16, 0.21)
    texture = name.removeprefix("plain_") if family == "plain" else family
    radius = float(rng.uniform(low, high))
    waves = tuple(
        (order, float(height * rng.uniform(0.7, 1.3)), float(rng.uniform(0, 2 * np.pi)))
        for order, height in OUTLINES[family]
    )
    hue = HUES[family] + rng.normal(0, 0.025)
    tones = (
        hsv_to_rgb(hue, rng.uniform(0.45, 0.8), rng.uniform(0.3, 0.5)),
        hsv_to_rgb(hue + rng.normal(0, 0.03), rng.uniform(0.25, 0.6), rng.uniform(0.65, 0.9)),
    )
    turn, scale = float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(0.9, 1.25))
    for _ in range(40):
        centre = _point(rng, 0.85 * radius)
        if all(np.hypot(*np.subtract(centre, body.centre)) > 0.95 * (radius + body.radius) for body in others):
            return Body(family, texture, centre, radius, waves, turn, scale, tones)
    return None


def _part_patterns(rng: np.random.Generator, label: int, family: str) -> tuple[str, ...]:
    """The patterns of a body's plates: the patterns that decide its class, and harmless patterns.

    Bodies of conjunction and redundancy have two or three plates whatever their class. So neither the number of plates
    nor a blank plate reveals the class.
    """
    name = SCENE_CLASSES[label]
    if family in ("conjunction", "redundancy"):
        count = {"both": 2, "neither": 0, "not_both": int(rng.random() < 0.7), "either": 1 + int(rng.random() < 0.7)}
        shapes = SHAPES if rng.random() < 0.5 else SHAPES[::-1]
        rest = 2 + int(rng.integers(2)) - count[name]
        return (*shapes[: count[name]], *(_pick(rng, harmless(family)) for _ in range(rest)))
    own = {"marker_upright": BARS[:1], "marker_level": BARS[1:]}.get(name, ())
    return (*own, _pick(rng, harmless(family))) if rng.random() < 0.4 else own


def harmless(family: str) -> tuple[str, ...]:
    """Plates that decide nothing inside a body of the family."""
    if family == "marker":
        return (*SHAPES, BLANK)
    return (*BARS, BLANK) if family in ("conjunction", "redundancy") else PARTS


def plate_side(body: Body) -> float:
    """The side of the plates inside a body, in units of the image's side."""
    return _side(body, SHARE[body.family])


def _side(body: Body, share: float) -> float:
    return float(np.sqrt(share * _area(body)))


def _area(body: Body) -> float:
    return float(np.pi * body.radius**2 * (1 + sum(height**2 for _, height, _ in body.waves) / 2))


def _visible_share(body: Body, front: Sequence[Shape], fineness: int = 1) -> float:
    """The share of a body's area that lies in the frame with nothing in front of it, on a polar lattice."""
    turns, depths = 36 * fineness, 12 * fineness
    angle, depth = np.meshgrid(np.arange(turns) * 2 * np.pi / turns, np.sqrt((np.arange(depths) + 0.5) / depths))
    reach = depth * body.outline(angle)
    points = np.stack([reach * np.sin(angle), reach * np.cos(angle)], -1).reshape(-1, 2) + body.centre
    weight = body.outline(angle.ravel()) ** 2
    seen = ((points >= 0) & (points <= 1)).all(1)
    for shape in front:
        seen &= ~shape.covers(points)
    return float((weight * seen).sum() / weight.sum())


def inside_plate(
    rng: np.random.Generator, pattern: str, side: float, body: Body, obstacles: Sequence[Shape]
) -> Plate | None:
    """A plate wholly inside a body that touches none of the obstacles; None if there is no room."""
    for _ in range(60):
        angle, reach = rng.uniform(0, 2 * np.pi), body.radius * np.sqrt(rng.uniform(0, 0.8))
        centre = (body.centre[0] + reach * np.sin(angle), body.centre[1] + reach * np.cos(angle))
        plate = Plate(pattern, (float(centre[0]), float(centre[1])), side)
        if body.covers(plate.lattice(GAP)).all() and _clear(plate, obstacles):
            return plate
    return None


def free_plate(rng: np.random.Generator, pattern: str, side: float, obstacles: Sequence[Shape]) -> Plate | None:
    """A plate at a random place of the frame that touches none of the obstacles; None if there is no room."""
    for _ in range(80):
        plate = Plate(pattern, _point(rng, side / 2 + GAP), side)
        if _clear(plate, obstacles):
            return plate
    return None


def _clear(plate: Plate, obstacles: Sequence[Shape]) -> bool:
    points = plate.lattice(GAP)
    framed = bool(((points >= 0) & (points <= 1)).all())
    return framed and not any(shape.covers(points, GAP).any() for shape in obstacles)


def _occluders(rng: np.random.Generator, bodies: Sequence[Body]) -> list[Splash]:
    """Up to three thin ellipses over the bodies' rims."""
    result = []
    for _ in range(int(rng.integers(0, 4))):
        body = bodies[int(rng.integers(len(bodies)))]
        angle = rng.uniform(0, 2 * np.pi)
        reach = rng.uniform(0.75, 1.1) * body.radius
        centre = (float(body.centre[0] + reach * np.sin(angle)), float(body.centre[1] + reach * np.cos(angle)))
        result.append(_splash(rng, centre, (0.015, 0.075)))
    return result


def _splash(rng: np.random.Generator, centre: Point, lengths: Point) -> Splash:
    red, green, blue = rng.uniform(0.1, 0.95, 3).tolist()
    first, second = rng.uniform(*lengths, 2).tolist()
    return Splash(centre, (first, second), float(rng.uniform(0, np.pi)), (red, green, blue))


def _point(rng: np.random.Generator, border: float) -> Point:
    row, column = rng.uniform(border, 1 - border, 2).tolist()
    return row, column


def _pick(rng: np.random.Generator, names: Sequence[str]) -> str:
    return names[int(rng.integers(len(names)))]


def hsv_to_rgb(hue: float, saturation: float, value: float) -> Colour:
    """RGB in [0, 1] from hue (in turns), saturation and value."""
    red, green, blue = colorsys.hsv_to_rgb(float(hue) % 1, float(saturation), float(value))
    return red, green, blue
