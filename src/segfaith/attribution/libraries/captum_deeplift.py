"""captum's DeepLift and DeepLiftShap, whose contributions must be complete."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from pydantic import field_validator, model_validator
from torch import nn

from segfaith.attribution.libraries.entry import FillParameters, Question, ScoreParameters
from segfaith.attribution.libraries.running import Score
from segfaith.errors import SampleError
from segfaith.evidence.gradient import Objective
from segfaith.lookup import lookup
from segfaith.occlusion import FILLS
from segfaith.types import Float, Tensor

Explainer = Callable[[Float[Tensor, "1 bands H W"]], Float[Tensor, "1 bands H W"]]
"""From an image to the signed attribution of each of its values."""
INCOMPLETE = 0.01
"""DeepLift's contributions may miss the difference that they explain by this share of it."""


class SeveralParameters(ScoreParameters):
    """Baselines joined by "+", each an operator that replaces all pixels."""

    baselines: str = "zero+mean+blur"

    @field_validator("baselines")
    @classmethod
    def _known(cls, value: str) -> str:
        for name in value.split("+"):
            lookup("baseline", name, FILLS)
        return value


class DeepParameters(FillParameters):
    """DeepLift explains the score before its softmax, as its paper advises (section 3.6)."""

    objective: Objective = "logits"


class DeepShapParameters(SeveralParameters):
    """As `DeepParameters`, for at least two baselines."""

    objective: Objective = "logits"

    @model_validator(mode="after")
    def _several(self) -> "DeepShapParameters":
        if "+" not in self.baselines:
            raise ValueError("expected at least two baselines joined by '+'; for one use captum:DeepLift")
        return self


def fills(question: Question) -> Float[Tensor, "B bands H W"]:
    """The baselines of `SeveralParameters`."""
    return torch.stack([question.filled(name) for name in question.parameters.baselines.split("+")])


def deep_lift(question: Question) -> Explainer:
    """DeepLift with the rescale rule, against one baseline."""
    import captum.attr as attr

    score = Score(question.model, question.target, question.parameters.objective)
    fill = question.filled(question.parameters.baseline)[None]
    return partial(_complete, question, score, attr.DeepLift(score), fill)


def deep_lift_shap(question: Question) -> Explainer:
    """The mean of DeepLift over several baselines."""
    import captum.attr as attr

    score = Score(question.model, question.target, question.parameters.objective)
    return partial(_complete, question, score, attr.DeepLiftShap(score), fills(question))


def _complete(
    question: Question,
    score: nn.Module,
    explainer: Any,
    baselines: Float[Tensor, "B bands H W"],
    inputs: Float[Tensor, "1 bands H W"],
) -> Float[Tensor, "1 bands H W"]:
    """DeepLift's contributions, which must sum to the difference from the baselines' mean score.

    Raises:
        SampleError: they do not, since the model has steps that captum's rules do not know; or the model must not see
            several images at once.
    """
    if why := question.model.one_by_one:
        raise SampleError(f"{question.name} runs an image and its baseline at once, and {why}")
    attribution: Tensor = explainer.attribute(inputs, baselines=baselines)
    with torch.no_grad():
        expected = float(score(inputs)[0]) - sum(float(score(fill[None])[0]) for fill in baselines) / len(baselines)
    total = float(attribution.double().sum())
    if abs(total - expected) > INCOMPLETE * abs(expected) + 1e-5:
        squashed = question.parameters.objective == "prob" and question.target.score in ("probability", "conditional")
        remedy = "; use objective=logits" if squashed else ""
        raise SampleError(
            f"{question.name}: the contributions sum to {total:.4g}, not to the difference from the baseline, "
            f"{expected:.4g}: the model has non-linear steps that captum has no rule for: functional ReLUs, products "
            f"of activations, or modules such as Hardswish{remedy}"
        )
    return attribution
