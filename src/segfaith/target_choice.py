"""Which targets of an image are explained: the settings of `[target]`, and which of them exclude each other."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from numbers import Integral
from typing import Literal, get_args

from segfaith.errors import SettingsError
from segfaith.types import COMPARING, Score

TargetSource = Literal["ground_truth", "prediction", "hit", "missed", "false_alarm"]
Part = Literal["whole", "largest", "smallest", "each", "boundary", "interior"]
PerImage = Literal["dominant", "all"]

SOURCES: Mapping[str, str] = {
    "ground_truth": "the ground truth",
    "prediction": "the prediction",
    "hit": "the true positives (predicted as their class)",
    "missed": "the false negatives (not predicted as their class)",
    "false_alarm": "the false positives (predicted as a class that is not there)",
}
"""Where the pixels of a target come from, in words."""
WIDTH = 3
"""Of the band, in pixels."""
NO_VERSUS = "versus is the other class of score = 'conditional' or 'margin'; leave it out for other scores"
"""Why `versus` is refused."""
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class TargetChoice:
    """Which targets of an image are explained: the settings of `[target]`, with classes as indices.

    Attributes:
        source: the pixels of a class c. With T its pixels in the ground truth and P those predicted as c: T, P,
            `hit` T and P, `missed` T without P, `false_alarm` P without T. Ignored pixels belong to none but P.
        class_index: this class alone.
        classes: only these classes.
        per_image: the class with the most pixels (ties: the lowest index), or every class.
        part: all pixels of the class; its largest or smallest connected component; each component; the band of `width`
            pixels inside and outside its edge; or the pixels without that band. The edge of the image is no edge.
        width: of the band, in pixels of the evaluated size; distances count diagonal steps as 1.
        box: (top, left, bottom, right), half-open: the class's pixels in these rows and columns.
        point: (row, column): the component that holds this pixel, of the class there.
        min_area: smaller targets and components are left out: a fraction of the image's pixels if below 1, else a
            number of pixels.
        score, versus: of each target; see `Target`. A target of the class `versus` is left out.

    Raises:
        SettingsError: values out of range, or two that exclude each other.
    """

    source: TargetSource = "ground_truth"
    class_index: int | None = None
    classes: tuple[int, ...] | None = None
    per_image: PerImage = "dominant"
    part: Part = "whole"
    width: int = WIDTH
    box: Box | None = None
    point: tuple[int, int] | None = None
    min_area: float = 0
    score: Score = "probability"
    versus: int | None = None

    def __post_init__(self) -> None:
        known = {"source": TargetSource, "per_image": PerImage, "part": Part}
        for name, kinds in known.items():
            if getattr(self, name) not in get_args(kinds):
                raise SettingsError(f"{name} = {getattr(self, name)!r}: expected {', '.join(get_args(kinds))}")
        indices = {"class_index": [self.class_index], "versus": [self.versus], "classes": self.classes or ()}
        for name, values in (indices | {"box": self.box or (), "point": self.point or ()}).items():
            strange = [value for value in values if value is not None and not isinstance(value, Integral)]
            if strange:
                what = "rows and columns" if name in ("box", "point") else "the index of a class"
                kind = type(strange[0]).__name__
                raise SettingsError(f"{name}: {strange[0]!r} is a {kind}; expected {what}, an integer")
        if self.width < 1:
            raise SettingsError(f"width = {self.width}: expected at least 1 pixel")
        if not 0 <= self.min_area < inf or (self.min_area > 1 and self.min_area % 1):
            raise SettingsError(
                f"min_area = {self.min_area:g}: expected a fraction of the image below 1, or a whole number of pixels"
            )
        if self.box and not (0 <= self.box[0] < self.box[2] and 0 <= self.box[1] < self.box[3]):
            raise SettingsError(
                f"box = {list(self.box)}: expected [top, left, bottom, right], top < bottom, left < right"
            )
        if self.point and min(self.point) < 0:
            raise SettingsError(f"point = {list(self.point)}: expected [row, column], at least 0")
        if self.classes is not None and not self.classes:
            raise SettingsError("classes = []: expected at least one class, or leave it out for all classes")
        for wrong, words in self._conflicts():
            if wrong:
                raise SettingsError(words)

    def _conflicts(self) -> list[tuple[bool, str]]:
        """Pairs of settings that exclude each other: whether they are there, and what to do."""
        banded = self.part in ("boundary", "interior")
        return [
            (
                self.class_index is not None and self.classes is not None,
                "class and classes exclude each other; give one of them",
            ),
            (
                self.class_index is not None and self.per_image == "all",
                "per_image = 'all' takes every class; for some of them use classes = [...] in place of class",
            ),
            (
                self.point is not None and self.box is not None,
                "point and box exclude each other; give one of them",
            ),
            (
                self.point is not None and self.per_image == "all",
                "point names one component; leave per_image = 'all' out",
            ),
            (
                self.point is not None and self.part not in ("whole", "boundary", "interior"),
                f"point names one component; leave part = {self.part!r} out",
            ),
            (
                self.width != WIDTH and not banded,
                "width is that of the band of part = 'boundary' or 'interior'; leave it out for other parts",
            ),
            (
                self.versus is not None and self.score not in COMPARING,
                NO_VERSUS,
            ),
            (
                self.box is not None and banded,
                f"box cuts the region, so that part = {self.part!r} would take the cut for an edge; give one of them",
            ),
        ]

    @property
    def reads_prediction(self) -> bool:
        """Whether the model's prediction must be known."""
        return self.source != "ground_truth"

    @property
    def several(self) -> bool:
        """Whether an image may have more than one target, so that targets have names."""
        return self.per_image == "all" or self.part == "each"
