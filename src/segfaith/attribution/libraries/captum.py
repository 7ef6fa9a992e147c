"""captum's attributions (Kokhlikyan et al. 2020): `captum:NAME`. captum is imported when a method is first used."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import nn

from segfaith.attribution.libraries.captum_deeplift import (
    DeepParameters,
    DeepShapParameters,
    Explainer,
    SeveralParameters,
    deep_lift,
    deep_lift_shap,
    fills,
)
from segfaith.attribution.libraries.captum_layers import (
    RELUS,
    LayerParameters,
    check_relus,
    guided_grad_cam,
    layer_grad_cam,
)
from segfaith.attribution.libraries.entry import (
    GRADIENTS,
    Cost,
    Entry,
    FillParameters,
    Library,
    Package,
    Question,
    Scale,
    ScoreParameters,
    Sign,
    pixels,
)
from segfaith.attribution.libraries.regions import ENTRIES as REGIONS
from segfaith.attribution.libraries.running import Score, halving
from segfaith.lookup import lookup
from segfaith.types import Float, Tensor


class SaliencyParameters(ScoreParameters):
    """Saliency takes |gradient| of each channel, as its paper does, unless `sign` is "positive"."""

    sign: Sign = "absolute"


class IntegratedParameters(FillParameters):
    """`n_steps` points between the baseline and the image."""

    n_steps: int = Field(default=32, ge=1)


class ShapParameters(SeveralParameters):
    """Points on the lines from random baselines to the image, which has noise of `stdev` in units of the image."""

    n_samples: int = Field(default=20, ge=1)
    stdev: float = Field(default=0.0, ge=0)


class TunnelParameters(ScoreParameters):
    """`method` on `n_samples` noisy images; `stdev` is a share of the range of the image's values."""

    sign: Sign = "absolute"
    method: str = "Saliency"
    type: Literal["smoothgrad", "smoothgrad_sq", "vargrad"] = "smoothgrad"
    n_samples: int = Field(default=16, ge=2)
    stdev: float = Field(default=0.15, gt=0)

    @field_validator("method")
    @classmethod
    def _known(cls, value: str) -> str:
        lookup("method for NoiseTunnel", value, {**BASES, **EXPLAINERS})
        return value


@dataclass(frozen=True)
class Base:
    """A method from the gradient at the input.

    Attributes:
        make: captum's object, from `captum.attr` and the module that gives scores.
        given: the keyword arguments of its `attribute`, by the question and the images a pass.
        check: raises SampleError where the model cannot serve, given the module and an image (1, bands, H, W).
    """

    parameters: type[ScoreParameters]
    make: Callable[[Any, nn.Module], Any]
    given: Callable[[Question, int], dict[str, Any]] = lambda question, images: {}
    check: Callable[[Question], None] = lambda question: None


BASES: dict[str, Base] = {
    "Saliency": Base(
        SaliencyParameters,
        lambda attr, module: attr.Saliency(module),
        lambda question, images: {"abs": question.parameters.sign == "absolute"},
    ),
    "InputXGradient": Base(ScoreParameters, lambda attr, module: attr.InputXGradient(module)),
    "IntegratedGradients": Base(
        IntegratedParameters,
        lambda attr, module: attr.IntegratedGradients(module),
        lambda question, images: {
            "baselines": question.filled(question.parameters.baseline)[None],
            "n_steps": question.parameters.n_steps,
            "internal_batch_size": images,
        },
    ),
    "GuidedBackprop": Base(SaliencyParameters, lambda attr, module: attr.GuidedBackprop(module), check=check_relus),
    "Deconvolution": Base(SaliencyParameters, lambda attr, module: attr.Deconvolution(module), check=check_relus),
}
"""The methods from a single gradient or a line of them, by name."""


def _of_input(name: str) -> Callable[[Question], Float[Tensor, "H W"]]:
    base = BASES[name]

    def explain(question: Question) -> Float[Tensor, "H W"]:
        import captum.attr as attr

        def compute(images: int) -> Tensor:
            base.check(question)
            score = Score(question.model, question.target, question.parameters.objective)
            inputs = question.image[None].clone()
            return pixels(base.make(attr, score).attribute(inputs, **base.given(question, images)))

        return halving(question, compute)

    return explain


def _of_explainer(name: str) -> Callable[[Question], Float[Tensor, "H W"]]:
    make = EXPLAINERS[name][1]
    return lambda question: halving(question, lambda images: pixels(make(question)(question.image[None].clone())))


def _gradient_shap(question: Question) -> Explainer:
    """The mean over points between random baselines and the image."""
    import captum.attr as attr

    own = question.parameters
    explainer, several = attr.GradientShap(Score(question.model, question.target, own.objective)), fills(question)

    def mean(inputs: Float[Tensor, "1 bands H W"]) -> Float[Tensor, "1 bands H W"]:
        total = torch.zeros_like(inputs, dtype=torch.float64)
        for _ in range(own.n_samples):  # one at a time: captum draws other points for other batches
            given = inputs.detach().clone()
            total += explainer.attribute(given, baselines=several, n_samples=1, stdevs=own.stdev).detach()
        total /= own.n_samples
        return total

    return mean


EXPLAINERS: dict[str, tuple[type[ScoreParameters], Callable[[Question], Explainer]]] = {
    "GradientShap": (ShapParameters, _gradient_shap),
    "DeepLift": (DeepParameters, deep_lift),
    "DeepLiftShap": (DeepShapParameters, deep_lift_shap),
}
"""The methods that compare images with baselines of their own, by name."""


class _Whole:
    """One of `EXPLAINERS` as NoiseTunnel takes it; it would read several `baselines` as one for each noisy image."""

    multiplies_by_inputs = True

    def __init__(self, forward_func: nn.Module, explainer: Explainer) -> None:
        self.forward_func, self.explainer = forward_func, explainer

    def has_convergence_delta(self) -> bool:
        return False

    def _explained(self, inputs: Tensor) -> Tensor:
        return self.explainer(inputs)

    @wraps(_explained)  # NoiseTunnel calls what the functions of captum wrap
    def attribute(self, inputs: Tensor) -> Tensor:
        return self._explained(inputs)


def _tunnel(question: Question) -> Float[Tensor, "H W"]:
    import captum.attr as attr

    own = question.parameters
    kind = BASES[own.method].parameters if own.method in BASES else EXPLAINERS[own.method][0]
    inner = replace(question, parameters=kind(sign=own.sign, objective=own.objective))
    stdev = own.stdev * float(question.image.max() - question.image.min())

    def compute(images: int) -> Tensor:
        score, given = Score(question.model, question.target, own.objective), {}
        if own.method in BASES:
            base = BASES[own.method]
            base.check(inner)
            method, given = base.make(attr, score), base.given(inner, images)
        else:
            method = _Whole(score, EXPLAINERS[own.method][1](inner))
        # one noisy image at a time: captum draws other noise for other batches
        tunnel = {"nt_type": own.type, "nt_samples": own.n_samples, "nt_samples_batch_size": 1, "stdevs": stdev}
        return pixels(attr.NoiseTunnel(method).attribute(question.image[None].clone(), **tunnel, **given))

    return halving(question, compute)


def _steps(parameters: Any) -> int:
    """Images of a gradient map of one of `BASES`, without the one on which ReLUs are counted."""
    steps: int = getattr(parameters, "n_steps", 1)
    return steps


def _counts(name: str) -> bool:
    """Whether ReLUs are counted first."""
    return BASES[name].check is check_relus


def _base_cost(name: str) -> Cost:
    kind = "passes, 1 with its gradient" if _counts(name) else GRADIENTS
    return Cost(lambda own, scale: _steps(own) + _counts(name), kind)


def _tunnel_passes(parameters: Any, scale: Scale) -> int:
    name: str = parameters.method
    samples: int = parameters.n_samples
    if name in EXPLAINERS:
        return samples * (ENTRIES[name].cost.passes(EXPLAINERS[name][0](), scale) or 0)
    return samples * _steps(BASES[name].parameters()) + _counts(name)


PAPERS = {
    "Saliency": "Simonyan et al. 2014",
    "InputXGradient": "Shrikumar et al. 2016",
    "IntegratedGradients": "Sundararajan et al. 2017",
    "GuidedBackprop": "Springenberg et al. 2015",
    "Deconvolution": "Zeiler and Fergus 2014",
}
_OF_RELUS = dict.fromkeys(("GuidedBackprop", "Deconvolution"), RELUS)
_MODULES = "non-linear steps that are modules of torch.nn, each used once"
ENTRIES: dict[str, Entry] = {
    **{
        name: Entry(
            paper,
            _of_input(name),
            BASES[name].parameters,
            _base_cost(name),
            asks=_OF_RELUS.get(name, ""),
        )
        for name, paper in PAPERS.items()
    },
    "GradientShap": Entry(
        "Lundberg and Lee 2017; Erion et al. 2021",
        _of_explainer("GradientShap"),
        ShapParameters,
        Cost(lambda own, scale: own.n_samples, GRADIENTS),
    ),
    "DeepLift": Entry(
        "Shrikumar et al. 2017",
        _of_explainer("DeepLift"),
        DeepParameters,
        Cost(lambda own, scale: 4, "passes, 2 with gradients"),
        asks=_MODULES,
    ),
    "DeepLiftShap": Entry(
        "Lundberg and Lee 2017",
        _of_explainer("DeepLiftShap"),
        DeepShapParameters,
        Cost(lambda own, scale: 3 * len(own.baselines.split("+")) + 1, "passes, most with gradients"),
        asks=_MODULES,
    ),
    "NoiseTunnel": Entry(
        "Smilkov et al. 2017 (SmoothGrad); Adebayo et al. 2018 (VarGrad)",
        _tunnel,
        TunnelParameters,
        Cost(_tunnel_passes, GRADIENTS),
    ),
    "LayerGradCam": Entry(
        "Selvaraju et al. 2017",
        layer_grad_cam,
        LayerParameters,
        Cost(lambda own, scale: scale.layers_of(own), GRADIENTS),
        asks="a layer of feature maps",
    ),
    "GuidedGradCam": Entry(
        "Selvaraju et al. 2017",
        guided_grad_cam,
        LayerParameters,
        Cost(lambda own, scale: 2 * scale.layers_of(own) + 1, "passes, all but 1 with gradients"),
        asks=f"a layer of feature maps, and {RELUS}",
    ),
    **REGIONS,
}


def _has(name: str) -> bool:
    """Whether the installed captum has the method."""
    import captum.attr as attr

    return hasattr(attr, name)


CAPTUM = Library(Package("captum", "captum", "captum"), ENTRIES, _has)
