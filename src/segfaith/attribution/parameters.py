"""The parameters of methods, with their defaults and ranges. Names that a method does not define are refused."""

from collections.abc import Collection
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from segfaith.evidence.gradient import Objective
from segfaith.evidence.regions import Refine, RegionKind, Regions
from segfaith.incremental.precision import Asked
from segfaith.lookup import lookup
from segfaith.occlusion import FILLS, OPERATORS


def _known_fill(value: str) -> str:
    lookup("fill", value, FILLS)
    return value


Fill = Annotated[str, AfterValidator(_known_fill)]
"""The name of an occlusion operator that replaces a pixel by the same value wherever it is used."""


class Parameters(BaseModel):
    """Base of every method's parameters: names that the method does not define are refused, and true as a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: Any, info: Any) -> Any:
        kind = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and kind is not bool and bool not in get_args(kind):
            raise ValueError(f"expected {getattr(kind, '__name__', kind)}, got {value}")
        return value


class GradientParameters(Parameters):
    """The quantity whose gradient is taken, and the layer (None: the model's feature layer)."""

    objective: Objective = "logits"
    layer: str | None = None


class EgaParameters(GradientParameters):
    """Pooling of the gradient over blocks of `window` x `window` feature pixels; a window of 1 changes nothing."""

    pool: Literal["mean", "max"] = "mean"
    window: int = Field(default=1, ge=1, le=1024)


class CellParameters(Parameters):
    """The regions of an image and the operator that occludes them: see `evidence.regions.Regions`."""

    grid: int = Field(default=14, ge=1, le=1024)
    occlusion: str = "mean"
    regions: RegionKind = "grid"
    passes: int = Field(default=Regions().passes, ge=1, le=2**20)
    refine: Refine = "drop"

    @field_validator("occlusion")
    @classmethod
    def _known(cls, value: str) -> str:
        lookup("occlusion operator", value, OPERATORS)
        return value

    @model_validator(mode="after")
    def _enough(self) -> "CellParameters":
        first = ((self.grid + 1) // 2) ** 2
        if self.regions == "adaptive" and self.passes < first:
            raise ValueError(
                f"adaptive regions of grid {self.grid} start with {first} cells; passes must be at least that"
            )
        return self

    def check_used(self, named: Collection[str]) -> None:
        """Refuses `passes` and `refine` named for a method without adaptive regions, which would change nothing.

        A table of settings may hold them for methods of both kinds.

        Raises:
            ValueError: they are named.
        """
        idle = [name for name in ("passes", "refine") if name in named]
        if idle and self.regions != "adaptive":
            kinds = f"regions={self.regions}; add regions=adaptive, or leave {' and '.join(idle)} out"
            raise ValueError(f"{' and '.join(idle)} would change nothing with {kinds}")


class RiaParameters(CellParameters):
    """Of the interventions also the precision."""

    precision: Asked = "fp32"


class DeaParameters(EgaParameters, RiaParameters):
    """alpha weighs gradient evidence, beta rewards agreement; all other parameters are EGA's and RIA's."""

    alpha: float = Field(default=0.65, ge=0, le=1)
    beta: float = Field(default=0.35, ge=0)


class MeaParameters(EgaParameters, RiaParameters):
    """alpha and beta weigh gradient evidence, alone and where regions agree; `interpolation` is between regions."""

    alpha: float = Field(default=0.02, ge=0)
    beta: float = Field(default=0.35, ge=0)
    interpolation: float = Field(default=0.35, ge=0, le=1)


class RiseParameters(Parameters):
    """The random masks of `attribution.rise`: how many, their cells a side, the share that is kept, and the fill."""

    masks: int = Field(default=1000, ge=1, le=2**20)
    cells: int = Field(default=7, ge=1, le=1024)
    keep: float = Field(default=0.5, gt=0, lt=1)
    fill: Fill = "mean"


class SobolParameters(Parameters):
    """The design of `attribution.sobol`: cells a side, base samples (a power of 2), and the fill.

    Sobol sequences have at most 21201 numbers a point, two for each cell, so the grid has at most 102 cells a side.
    """

    grid: int = Field(default=7, ge=1, le=102)
    samples: int = Field(default=8, ge=1, le=2**20)
    fill: Fill = "mean"

    @field_validator("samples")
    @classmethod
    def _power(cls, value: int) -> int:
        if value.bit_count() != 1:
            raise ValueError(f"expected a power of 2, as Sobol sequences need, got {value}")
        return value
