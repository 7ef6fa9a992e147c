"""The tables of a settings file: every key with its type, default and range (SPEC section 5; docs/settings.md)."""

from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, StrictInt, ValidationError, field_validator, model_validator

from segfaith.attribution.libraries import LIBRARIES
from segfaith.attribution.methods import DEFAULT_METHODS, METHODS, OPTIONAL
from segfaith.benchmark.evaluation_settings import LARGEST, EvaluationSettings, Section
from segfaith.benchmark.execution_settings import ExecutionSettings
from segfaith.data.reading import Reading
from segfaith.halves import Wiring
from segfaith.lookup import nearest
from segfaith.models.padding import check_pad
from segfaith.models.segmentation import Head
from segfaith.models.tiling import tiling_of
from segfaith.paths import refusal
from segfaith.target_choice import NO_VERSUS, WIDTH, Part, PerImage, TargetChoice, TargetSource
from segfaith.types import COMPARING, Score

LARGEST_SIDE = 13_377
"""The side of the largest square image, in pixels: as Pillow, segfaith reads no image of more than 179 million."""


class DataSettings(Section):
    """Which samples: a data set, its split, and the drawn or named ids; for folders also how their files are read.

    `classes` names a folder's classes; from `range` to `display`, see `Reading`. `wired` puts two samples side by side.
    """

    name: str = "voc2012"
    root: str | None = None
    split: str = "val"
    size: Literal["native"] | int = 224
    n: int | None = Field(default=None, ge=1)
    ids: list[str] | None = Field(default=None, min_length=1)
    download: bool = False
    classes: Literal["voc"] | list[str] | str | None = None
    range: tuple[float, float] | list[tuple[float, float]] | None = None
    clip: bool = False
    channels_first: bool | None = None
    labels: str | dict[str, StrictInt | str] | None = None
    foreground: StrictInt | None = None
    ignore: list[StrictInt] | None = None
    background: StrictInt | str | None = None
    display: list[StrictInt] | None = None
    wired: str | dict[str, float] | None = None

    @field_validator("wired", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if value is not None and _wiring(value) is None:
            raise ValueError('expected "straight", "crossed", or { blend = NUMBER } with a number between 0 and 1')
        return value

    @field_validator("size", mode="wrap")
    @classmethod
    def _side(cls, value: Any, check: Callable[[Any], int | str]) -> int | str:
        try:
            return check(value)
        except ValidationError as error:
            raise ValueError('expected "native", or the side of a square in whole pixels, as in 224') from error

    @field_validator("range", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        parts = value if isinstance(value, list | tuple) else [value]
        several = all(isinstance(part, list | tuple) for part in parts)
        pairs = parts if several else [parts]
        if value is None:
            return None
        if not all(len(pair) == 2 for pair in pairs):
            raise ValueError("expected [LOW, HIGH], or a list of such pairs, one for each channel")
        return [tuple(pair) for pair in pairs] if several else tuple(parts)

    @property
    def reading(self) -> Reading:
        """How files become images and labels."""
        return Reading(**{part.name: getattr(self, part.name) for part in fields(Reading)})

    @property
    def wiring(self) -> Wiring | None:
        """How two photographs are wired; None: images are single photographs."""
        return _wiring(self.wired)

    @model_validator(mode="after")
    def _consistent(self) -> "DataSettings":
        _ = self.reading  # it refuses values that mean nothing
        if self.n is not None and self.ids is not None:
            raise ValueError("give n or ids, not both (settings that name ids take no -n; use --set 'data.ids=[...]')")
        if self.size != "native" and not 1 <= self.size <= LARGEST_SIDE:
            raise ValueError(f"size must be 'native' or from 1 to {LARGEST_SIDE}, got {self.size}")
        if self.wired is not None and self.size == "native":
            raise ValueError("wired photographs must have one size; set size to a number, such as 224")
        return self


def _wiring(wired: Any) -> Wiring | None:
    """The wiring that a value of `wired` means; None where it means none."""
    if wired in ("straight", "crossed"):
        return Wiring(1.0 if wired == "straight" else 0.0)
    own = wired["blend"] if isinstance(wired, dict) and list(wired) == ["blend"] else None
    return Wiring(own) if isinstance(own, float) and 0 < own < 1 else None


class ModelSettings(Section):
    """Which model: see `load_model`."""

    name: str
    args: dict[str, Any] = Field(default={})
    weights: str | None = None
    layer: str | None = None
    channels: int | None = Field(default=None, ge=1)
    mean: list[float] | None = None
    std: list[float] | None = None
    classes: Literal["voc"] | list[str] | str | None = None
    head: Head | None = None
    output: str | int | None = None
    tokens: Literal["auto"] | int = "auto"
    reshape: str | None = None
    pad: int | None = None
    tile: int | list[int] | None = None
    overlap: int | None = None

    @model_validator(mode="after")
    def _fit(self) -> "ModelSettings":
        check_pad(self.pad)
        tiling_of(self.tile, self.overlap, self.pad)
        return self


PREDICTED = "predicted"
"""The value of `[target] versus` that means the class that the model predicts on most pixels of the target."""
TWIN = "twin"
"""The value of `[target] versus` that means the twin of the target's class, which the data set knows."""


class TargetSettings(Section):
    """What is explained in each image: see `TargetChoice`; `mask` is a drawn region, a file or a folder of ID.png."""

    source: TargetSource = "ground_truth"
    class_name: str | int | None = Field(default=None, alias="class")
    classes: list[str | int] | None = None
    per_image: PerImage = "dominant"
    part: Part = "whole"
    width: int = WIDTH
    box: list[int] | None = Field(default=None, min_length=4, max_length=4)
    point: list[int] | None = Field(default=None, min_length=2, max_length=2)
    mask: str | None = None
    min_area: float = 0
    score: Score = "probability"
    versus: str | int | None = None

    @field_validator("versus", mode="after")
    @classmethod
    def _left_out(cls, versus: str | int | None) -> str | int | None:
        return None if versus == "none" else versus

    def choice(self, index: Callable[[str | int], int]) -> TargetChoice:
        """The same with indices of classes; `index` gives that of a class.

        Raises:
            SettingsError: see `TargetChoice`, and what `index` raises.
        """
        return TargetChoice(
            source=self.source,
            class_index=None if self.class_name is None else index(self.class_name),
            classes=None if self.classes is None else tuple(map(index, self.classes)),
            per_image=self.per_image,
            part=self.part,
            width=self.width,
            box=None if self.box is None else (self.box[0], self.box[1], self.box[2], self.box[3]),
            point=None if self.point is None else (self.point[0], self.point[1]),
            min_area=self.min_area,
            score=self.score,
            versus=None if self.versus in (None, PREDICTED, TWIN) else index(self.versus),
        )

    @property
    def several(self) -> bool:
        """Whether an image may have several targets; their number is known only when it is read."""
        return self.choice(_without_names).several

    @property
    def whole_classes(self) -> bool:
        """Whether targets are all pixels of a class in the ground truth, so that predictions should overlap them."""
        narrowed = self.mask or self.box or self.point
        return self.source == "ground_truth" and self.part == "whole" and narrowed is None

    @model_validator(mode="after")
    def _consistent(self) -> "TargetSettings":
        self.choice(_without_names)  # checks all but the names
        if self.versus is not None and self.score not in COMPARING:
            raise ValueError(NO_VERSUS)
        if self.mask is not None and self.class_name is None:
            raise ValueError("mask is a region without a class; give class = NAME too, the class that is explained")
        if self.mask is not None:
            plain = TargetSettings()
            others = ("source", "classes", "per_image", "part", "width", "box", "point", "min_area")
            changed = [name for name in others if getattr(self, name) != getattr(plain, name)]
            if changed:
                raise ValueError(f"mask is the whole region, so {' and '.join(changed)} would do nothing; leave it out")
        return self


def _without_names(name: str | int) -> int:
    """Stands in for the index of a class while the model's classes are unknown."""
    return name if isinstance(name, int) else 0


class MethodSettings(Section):
    """Which methods, how tables and figures call them (`labels`, by name), and parameters by method name.

    `mea`, `rise`, `sobol` and methods of libraries, such as `captum:Saliency`, may have a table too; it is there only
    where it is given.
    """

    model_config = ConfigDict(extra="allow")

    names: list[str] = Field(default=list(DEFAULT_METHODS), min_length=1)
    labels: dict[str, str] = Field(default={})
    gpa: dict[str, Any] = Field(default={})
    ega: dict[str, Any] = Field(default={})
    ria: dict[str, Any] = Field(default={})
    dea: dict[str, Any] = Field(default={})
    random_cells: dict[str, Any] = Field(default={})

    def tables(self) -> dict[str, dict[str, Any]]:
        """Parameters by method name."""
        given = {name: table for name in METHODS if (table := getattr(self, name, None))}
        return given | {name: table for name, table in (self.model_extra or {}).items() if table}

    @model_validator(mode="after")
    def _known(self) -> "MethodSettings":
        for name, table in (self.model_extra or {}).items():
            prefix, colon, method = name.partition(":")
            if colon and prefix in LIBRARIES:
                known, wanted, before = list(LIBRARIES[prefix].entries), method, f"{prefix}:"
            else:
                known, wanted, before = [*type(self).model_fields, *OPTIONAL], name, ""
            if wanted not in known:
                close = nearest(wanted, known, 1)
                hint = f"did you mean {before + close[0]!r}?" if close else f"known: {', '.join(known)}"
                raise ValueError(f"unknown key 'methods.{name}'; {hint}")
            if not isinstance(table, dict):
                raise ValueError(f"{name!r} = {table!r}: expected a table of parameters, as in {{ KEY = VALUE }}")
        return self

    @field_validator("labels", mode="after")
    @classmethod
    def _plain(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, label in labels.items():
            if not label.strip() or not label.isprintable():
                raise ValueError(f"the label of method {name!r} must be text of one line that is not empty")
        return labels


class OutputSettings(Section):
    """What is kept beside the records."""

    maps: bool = False


def folder_name(name: str) -> str:
    """The name of a run or a suite, which names its default directory. Raises ValueError where it cannot."""
    if why := refusal(name):
        raise ValueError(f"it names a folder in runs/, and {why}; expected a plain name, as in quickstart")
    return name


class Settings(Section):
    """A run: (data set, model, seed, settings)."""

    name: Annotated[str, AfterValidator(folder_name)] = "run"
    seed: int = Field(default=0, ge=0, le=LARGEST)
    data: DataSettings = DataSettings()
    model: ModelSettings
    target: TargetSettings = TargetSettings()
    methods: MethodSettings = MethodSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    output: OutputSettings = OutputSettings()
    execution: ExecutionSettings = ExecutionSettings()

    @model_validator(mode="after")
    def _inside(self) -> "Settings":
        size = self.data.size
        for name, numbers in (("box", self.target.box), ("point", self.target.point)):
            if size != "native" and numbers and max(numbers) > size - (name == "point"):
                raise ValueError(
                    f"target.{name} = {numbers} lies outside the image: it counts pixels at data.size = {size}"
                )
        tiling = tiling_of(self.model.tile, self.model.overlap, self.model.pad)
        if tiling is not None and size != "native" and max(tiling.tile) > size:
            raise ValueError(
                f"model.tile = {self.model.tile} is larger than the images at data.size = {size}, which are padded "
                "to it then; set data.size = 'native', or choose a smaller tile"
            )
        if self.data.wired is not None and tiling is not None:
            raise ValueError("data.wired runs the model on whole photographs; leave model.tile and model.overlap out")
        if self.data.wired is not None and self.target.mask is not None:
            raise ValueError(
                "target.mask is drawn for one photograph, and data.wired puts two side by side; use target.box or "
                "target.point, which count pixels of the left half"
            )
        return self
