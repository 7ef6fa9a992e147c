"""Counterfactual scenes: one decisive part or one distractor is changed, and all other pixels stay the same."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from segfaith.data.scenes.drawing import free_plate, harmless, inside_plate
from segfaith.data.scenes.symbols import BARS, BLANK, CUES, PARTS, SHAPES, Body, Plate, Scene, Shape
from segfaith.errors import SampleError


def decisive_edits(scene: Scene, index: int) -> dict[str, Scene]:
    """Scenes in which the evidence for the class of body `index` is changed, by the change's name.

    `swapped`: the other texture, part or cue. `without PART`: that part's plate is blank; `without both`: both are.
    `with PART`: a missing part stands in place of a harmless plate. `scene.label` tells whether the class
    changes: an `either` body with two parts keeps its class without one of them.
    """
    body = scene.bodies[index]
    if body.family == "plain":
        other = "rays" if body.texture == "rings" else "rings"
        return {"swapped": _with_body(scene, index, replace(body, texture=other))}
    if body.family == "context":
        assert scene.cue is not None
        return {"swapped": replace(scene, cue=other_pattern(scene.cue, CUES))}
    if body.family == "marker":
        at = next(i for i, part in enumerate(body.parts) if part.pattern in BARS)
        return {"swapped": _with_part(scene, index, at, other_pattern(body.parts[at], BARS))}
    edits: dict[str, Scene] = {}
    shapes = [i for i, part in enumerate(body.parts) if part.pattern in SHAPES]
    for at in shapes:
        blank = replace(body.parts[at], pattern=BLANK)
        edits[f"without {body.parts[at].pattern}"] = _with_part(scene, index, at, blank)
    if len(shapes) == 2:
        blanks = tuple(replace(part, pattern=BLANK) if part.pattern in SHAPES else part for part in body.parts)
        edits["without both"] = _with_body(scene, index, replace(body, parts=blanks))
    missing = [name for name in SHAPES if name not in {part.pattern for part in body.parts}]
    others = [i for i, part in enumerate(body.parts) if part.pattern not in SHAPES]
    for name, at in zip(missing, others, strict=False):
        edits[f"with {name}"] = _with_part(scene, index, at, replace(body.parts[at], pattern=name))
    return edits


def without_evidence(scene: Scene, index: int) -> Scene:
    """The scene without what decides the class of body `index`: without its parts, the cue, or the whole plain body.

    A deciding part's plate is blank, as in `decisive_edits`. Where the cue was, the background shows.

    Raises:
        SampleError: nothing in the scene is the evidence (counterparts).
    """
    body = scene.bodies[index]
    if body.family == "plain":
        return replace(scene, bodies=(*scene.bodies[:index], *scene.bodies[index + 1 :]))
    evidence = {part for plates in scene.evidence(body) for part in plates}
    if not evidence:
        raise SampleError(f"body {index} of scene {scene.key} is decided by what is not there; nothing can be removed")
    if body.family == "context":
        return replace(scene, cue=None)
    parts = tuple(replace(part, pattern=BLANK) if part in evidence else part for part in body.parts)
    return _with_body(scene, index, replace(body, parts=parts))


def distractor_edits(scene: Scene, rng: np.random.Generator) -> dict[str, Scene]:
    """Scenes that differ in one distractor, swapped, moved or removed: no body's class changes.

    Distractors are the plates on the background, the plates that decide nothing inside bodies, and the cue if no body
    depends on it (a deciding cue is only moved). A plate without another free place is not moved.
    """
    edits: dict[str, Scene] = {}
    standing: list[Shape] = [*scene.bodies, *scene.occluders, *scene.distractors, *([scene.cue] if scene.cue else [])]
    for at, plate in enumerate(scene.distractors):
        others = scene.distractors[:at] + scene.distractors[at + 1 :]
        name = f"distractor {at}"
        edits[f"{name} swapped"] = replace(scene, distractors=(*others, other_pattern(plate, PARTS, rng)))
        if (moved := free_plate(rng, plate.pattern, plate.side, standing)) is not None:
            edits[f"{name} moved"] = replace(scene, distractors=(*others, moved))
        edits[f"{name} removed"] = replace(scene, distractors=others)
    if scene.cue is not None:
        if (moved := free_plate(rng, scene.cue.pattern, scene.cue.side, standing)) is not None:
            edits["cue moved"] = replace(scene, cue=moved)
        if not scene.cue_decides:
            edits["cue swapped"] = replace(scene, cue=other_pattern(scene.cue, CUES))
            edits["cue removed"] = replace(scene, cue=None)
    for index, body in enumerate(scene.bodies):
        patterns = harmless(body.family)
        for at, plate in enumerate(body.parts):
            if plate.pattern in patterns:
                name = f"part {at} of body {index}"
                edits[f"{name} swapped"] = _with_part(scene, index, at, other_pattern(plate, patterns, rng))
                front: list[Shape] = [*scene.bodies[index + 1 :], *scene.occluders, *body.parts]
                if (moved := inside_plate(rng, plate.pattern, plate.side, body, front)) is not None:
                    edits[f"{name} moved"] = _with_part(scene, index, at, moved)
                without = body.parts[:at] + body.parts[at + 1 :]
                edits[f"{name} removed"] = _with_body(scene, index, replace(body, parts=without))
    return edits


def other_pattern(plate: Plate, names: Sequence[str], rng: np.random.Generator | None = None) -> Plate:
    """The plate with another pattern of `names`: drawn, or the first other pattern if `rng` is None."""
    others = [name for name in names if name != plate.pattern]
    return replace(plate, pattern=others[0 if rng is None else int(rng.integers(len(others)))])


def _with_body(scene: Scene, index: int, body: Body) -> Scene:
    return replace(scene, bodies=(*scene.bodies[:index], body, *scene.bodies[index + 1 :]))


def _with_part(scene: Scene, index: int, at: int, part: Plate) -> Scene:
    body = scene.bodies[index]
    return _with_body(scene, index, replace(body, parts=(*body.parts[:at], part, *body.parts[at + 1 :])))
