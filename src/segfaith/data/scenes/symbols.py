"""Scenes as symbols: bodies, plates and clutter. One symbol can change while all others stay.

A scene is a frozen description in units of the image's side. What decides each body's class is known by construction:

| kind        | classes                           | what decides                                                       |
|-------------|-----------------------------------|--------------------------------------------------------------------|
| plain       | rings, rays                       | the body's own texture                                             |
| marker      | upright, level                    | the bars on the one plate with bars inside the body                |
| context     | above, below                      | the triangle on the one yellow cue, which lies on the background   |
| conjunction | both (else not_both)              | a disc and a cross inside the body, neither without the other      |
| redundancy  | either (else neither)             | a disc or a cross inside the body, one is enough                   |

All plates that can stand for each other are two-toned, half of each tone, so that colours alone decide nothing.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from segfaith.classes import SCENE_CLASSES
from segfaith.errors import SampleError

Array = np.ndarray
Point = tuple[float, float]
Colour = tuple[float, float, float]

FAMILIES = ("plain", "marker", "context", "conjunction", "redundancy")
"""The five kinds of bodies; in the last two the evidence has several parts."""
COUNTERPARTS = frozenset({SCENE_CLASSES.index("not_both"), SCENE_CLASSES.index("neither")})
"""Classes decided by the absence of a part, for which no set of pixels is the evidence."""
BARS, SHAPES, CUES = ("upright", "level"), ("disc", "cross"), ("above", "below")
BLANK = "frame"
"""The pattern of the plate that replaces a removed part: it has two tones like every plate, and decides no class."""
PARTS = (*BARS, *SHAPES, BLANK)


class Shape(Protocol):
    """Anything that tells which points it covers."""

    def covers(self, points: Array, margin: float = 0.0) -> Array:
        """Which of the points (N, 2), each (row, column), lie on it or within `margin` of it, (N,)."""
        ...


@dataclass(frozen=True)
class Plate:
    """A small two-toned square with a pattern: a part, a cue, or a distractor.

    `centre` is (row, column) and `side` a length, both in units of the image's side.
    """

    pattern: str
    centre: Point
    side: float

    def lattice(self, margin: float = 0.0) -> Array:
        """A 5 x 5 lattice of (row, column) over the plate and `margin` around it, (25, 2)."""
        steps = np.linspace(-0.5, 0.5, 5) * (self.side + 2 * margin)
        rows, columns = np.meshgrid(self.centre[0] + steps, self.centre[1] + steps, indexing="ij")
        return np.stack([rows.ravel(), columns.ravel()], 1)

    def covers(self, points: Array, margin: float = 0.0) -> Array:
        """Which of the points (N, 2) lie on the plate or within `margin` of it."""
        inside: Array = np.abs(points - self.centre).max(1) <= self.side / 2 + margin
        return inside


@dataclass(frozen=True)
class Body:
    """An object: a star-shaped outline r(angle) = radius (1 + sum of waves), a texture, two tones and its parts."""

    family: str
    texture: str
    centre: Point
    radius: float
    waves: tuple[tuple[int, float, float], ...]
    turn: float
    scale: float
    tones: tuple[Colour, Colour]
    parts: tuple[Plate, ...] = ()

    def outline(self, angle: Array) -> Array:
        """r(angle) in units of the image's side."""
        shape = np.ones_like(angle)
        for order, height, phase in self.waves:
            shape = shape + height * np.cos(order * angle + phase)
        return self.radius * shape

    def covers(self, points: Array, margin: float = 0.0) -> Array:
        """Which of the points (N, 2) lie inside the outline widened by `margin` (negative: narrowed)."""
        offset = points - self.centre
        inside: Array = np.hypot(offset[:, 0], offset[:, 1]) <= self.outline(np.arctan2(*offset.T)) + margin
        return inside


@dataclass(frozen=True)
class Splash:
    """Clutter: an ellipse of one colour, turned by `turn`; `lengths` are its half axes."""

    centre: Point
    lengths: tuple[float, float]
    turn: float
    colour: Colour

    def covers(self, points: Array, margin: float = 0.0) -> Array:
        """Which of the points (N, 2) lie on it or within about `margin` of it."""
        offset = points - self.centre
        along = offset @ np.array([np.cos(self.turn), np.sin(self.turn)])
        across = offset @ np.array([-np.sin(self.turn), np.cos(self.turn)])
        inside: Array = (along / (self.lengths[0] + margin)) ** 2 + (across / (self.lengths[1] + margin)) ** 2 <= 1
        return inside


@dataclass(frozen=True)
class Scene:
    """Everything visible, in the order of painting; `key` seeds the background, light and noise."""

    key: str
    clutter: tuple[Splash, ...]
    distractors: tuple[Plate, ...]
    cue: Plate | None
    bodies: tuple[Body, ...]
    occluders: tuple[Splash, ...]

    def label(self, body: Body) -> int:
        """The class index of a body of this scene, derived from its evidence."""
        seen = {part.pattern for part in body.parts}
        if body.family == "plain":
            name = f"plain_{body.texture}"
        elif body.family == "marker":
            name = f"marker_{next(pattern for pattern in BARS if pattern in seen)}"
        elif body.family == "context":
            if self.cue is None:
                raise SampleError(f"scene {self.key} has a context body and no cue; every such scene needs one")
            name = f"context_{self.cue.pattern}"
        elif body.family == "conjunction":
            name = "both" if seen.issuperset(SHAPES) else "not_both"
        else:
            name = "neither" if seen.isdisjoint(SHAPES) else "either"
        return SCENE_CLASSES.index(name)

    @property
    def cue_decides(self) -> bool:
        """Whether a body of this scene depends on the cue; if not, the cue is a distractor."""
        return any(body.family == "context" for body in self.bodies)

    def evidence(self, body: Body) -> tuple[tuple[Plate, ...], ...]:
        """The plates that decide a body's class: alternatives, each a set of plates; the plain kind has none.

        marker and context: one plate. `both`: one alternative of two plates. `either`: each disc or cross by itself.
        Counterparts have no alternatives: what decides them is not there.
        """
        if body.family == "context":
            return ((self.cue,),) if self.cue is not None else ()
        if body.family == "marker":
            return (tuple(part for part in body.parts if part.pattern in BARS),)
        shapes = tuple(part for part in body.parts if part.pattern in SHAPES)
        if self.label(body) == SCENE_CLASSES.index("both"):
            return (shapes,)
        if self.label(body) == SCENE_CLASSES.index("either"):
            return tuple((part,) for part in shapes)
        return ()
