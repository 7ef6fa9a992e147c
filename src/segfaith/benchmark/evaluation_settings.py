"""The table `[evaluation]` of a settings file: how maps are scored (SPEC section 5; docs/settings.md)."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from segfaith.evaluation.fidelity import LEAST_SETS, Per
from segfaith.evaluation.ranking import Ties
from segfaith.lookup import lookup
from segfaith.occlusion import OPERATORS

LEAST_FIDELITY = 4 * LEAST_SETS
"""With fewer sets, those inside and outside the target would be too few for a correlation."""


LARGEST = 2**63 - 1
"""The largest whole number of settings, which torch, NumPy and Parquet can hold."""


class Section(BaseModel):
    """Base of every table: keys that it does not define are refused, and values of other types (true is no number), and
    numbers that are not finite."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        protected_namespaces=(),
        populate_by_name=True,
        strict=True,
        allow_inf_nan=False,
    )

    @field_validator("*", mode="after")
    @classmethod
    def _in_64_bits(cls, value: Any) -> Any:
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, int) and abs(number) > LARGEST:
                raise ValueError(f"expected a whole number of at most {LARGEST}")
        return value


class EvaluationSettings(Section):
    """How maps are scored. The first operator and the first k fill the records; all go to `curves/`.

    `curves`: "all" combinations of operator and k, or "each" operator at the first k and each k at the first operator.
    `fidelity`: the number of sets, 0 for none; the other keys of fidelity say how the sets are made and occluded.
    """

    k: float | list[float] = 0.2
    occlusion: list[str] = ["mean"]
    curves: Literal["all", "each"] = "all"
    leakage: Literal["plain", "detailed"] = "plain"
    stability: bool | int = True
    strength: float = Field(default=0.03, ge=0)
    ties: Ties = "cell"
    ignore: Literal["include", "exclude"] = "include"
    whole: bool = True
    own_null: bool = False
    fidelity: int = Field(default=96, ge=0, le=2**20)
    fidelity_parts: Literal["grid", "superpixels"] = "grid"
    fidelity_grid: int = Field(default=17, ge=2, le=1024)
    fidelity_size: int = Field(default=8, ge=1)
    fidelity_per: Per = "pixel"
    fidelity_occlusion: str | None = None

    @property
    def asked(self) -> set[str]:
        """Which of `interventions.ASKED` the settings ask for."""
        chosen = {"detailed": self.leakage == "detailed", "whole": self.whole, "own_null": self.own_null}
        return {name for name, holds in chosen.items() if holds}

    @property
    def fractions(self) -> list[float]:
        """All k, the records' first."""
        return list(self.k) if isinstance(self.k, list) else [self.k]

    @property
    def pairs(self) -> list[tuple[str, float]]:
        """Every operator with the k at which it is used, the records' first."""
        first, rest = self.occlusion[0], self.occlusion[1:]
        if self.curves == "each":
            return [(first, k) for k in self.fractions] + [(operator, self.fractions[0]) for operator in rest]
        return [(operator, k) for operator in self.occlusion for k in self.fractions]

    @field_validator("occlusion", "k", mode="after")
    @classmethod
    def _distinct(cls, value: Any) -> Any:
        if isinstance(value, list) and (not value or len(set(value)) != len(value)):
            raise ValueError(f"expected at least one value and none twice, got {value}")
        return value

    @model_validator(mode="after")
    def _ranges(self) -> "EvaluationSettings":
        for k in self.fractions:
            if not 0 < k <= 1:
                raise ValueError(f"k must be above 0 and at most 1, got {k}")
        for name in [*self.occlusion, *([self.fidelity_occlusion] if self.fidelity_occlusion else [])]:
            lookup("occlusion operator", name, OPERATORS)
        if 0 < self.fidelity < LEAST_FIDELITY:
            raise ValueError(
                f"fidelity must be 0 or at least {LEAST_FIDELITY}, a quarter of which lies inside the target and a "
                f"quarter outside, got {self.fidelity}"
            )
        if self.stability is not True and self.stability < 0:
            raise ValueError(f"stability must be true, false or a number of samples, got {self.stability}")
        return self
