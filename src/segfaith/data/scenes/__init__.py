"""Planted evidence: scenes in which the pixels that decide each object's class are known by construction."""

from segfaith.classes import SCENE_CLASSES, SCENE_TWINS
from segfaith.constants import COUNTERPART
from segfaith.data.dataset import Dataset
from segfaith.data.images import Size
from segfaith.data.reading import PLAIN, Reading
from segfaith.data.scenes.drawing import SIZE, draw_scene
from segfaith.data.scenes.rendering import plate_mask, render
from segfaith.data.scenes.symbols import COUNTERPARTS, Body, Scene
from segfaith.errors import SampleError, SettingsError
from segfaith.types import Labels, Planted, Sample

__all__ = ["SCENES_VERSION", "open_scenes", "planted_evidence", "scene_of"]

SCENES_VERSION = 1
"""Goes up with each release whose scenes differ in any pixel from the last release's; part of the data's digest."""
SPLITS = ("val", "train")
COUNT = 1000
LEAST_SIZE = 32
"""In smaller images, a plate has hardly a pixel."""
MAIN_CLASSES = [label for label in range(1, len(SCENE_CLASSES)) if label not in COUNTERPARTS]
"""The classes that have evidence. The largest body of scene i takes them in turn."""


def open_scenes(
    root: object, split: str, classes: list[str] | None, download: bool, reading: Reading = PLAIN
) -> Dataset:
    """1,000 scenes a split ("val", "train"), drawn from their ids; any size. `root` and `download` are ignored.

    The embedded model was trained on scenes of neither split.
    """
    reading.refuse_for("scenes")
    if split not in SPLITS:
        raise SettingsError(f"scenes has no split {split!r}; it has {', '.join(SPLITS)}")
    if classes is not None and list(classes) != SCENE_CLASSES:
        raise SettingsError(f"the classes of scenes are fixed: {', '.join(SCENE_CLASSES)}; leave [data] classes out")

    def content(sample_id: str) -> bytes:
        return f"scenes {SCENES_VERSION} {sample_id}".encode()

    ids = [f"{split}-{i:04d}" for i in range(COUNT)]
    return Dataset("scenes", split, ids, SCENE_CLASSES, load_scene, content, twins=SCENE_TWINS)


def load_scene(sample_id: str, size: Size) -> Sample:
    """The scene of an id, rendered, with the planted evidence of each of its classes.

    Raises:
        SampleError: a size below 32 px.
    """
    scene = scene_of(sample_id)
    pixels = SIZE if size == "native" else size
    if pixels < LEAST_SIZE:
        raise SampleError(
            f"scenes of {pixels} px are too small for their plates; set [data] size to {LEAST_SIZE} or more"
        )
    image, labels = render(scene, pixels)
    return Sample(
        sample_id, image, labels, {scene.label(body): planted_evidence(scene, body, labels) for body in scene.bodies}
    )


def scene_of(sample_id: str) -> Scene:
    """The scene of an id as symbols; its largest body's class follows from the number in the id."""
    number = int(sample_id.rpartition("-")[2])
    return draw_scene(sample_id, MAIN_CLASSES[number % len(MAIN_CLASSES)])


def planted_evidence(scene: Scene, body: Body, labels: Labels) -> Planted:
    """What decides a body's class, as masks of the size of `labels`, its scene's label map."""
    label = scene.label(body)
    if label in COUNTERPARTS:
        return Planted(COUNTERPART, ())
    if body.family == "plain":
        return Planted("plain", (labels == label,))
    masks = [plate_mask(plates, labels.shape[0]) for plates in scene.evidence(body)]
    return Planted(body.family, tuple(masks))
