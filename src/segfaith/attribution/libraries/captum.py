"""captum's attributions (Kokhlikyan et al. 2020): `captum:NAME`. captum is imported when a method is first used."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import nn

from segfaith.attribution.libraries.captum_deeplift import (
    DeepParameters,
    DeepShapParameters,
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
        lookup("method for NoiseTunnel", value, BASES)
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
"""The methods that NoiseTunnel may run on noisy images."""


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


def _tunnel(question: Question) -> Float[Tensor, "H W"]:
    import captum.attr as attr

    own = question.parameters
    base = BASES[own.method]
    inner = replace(question, parameters=base.parameters(sign=own.sign, objective=own.objective))
    stdev = own.stdev * float(question.image.max() - question.image.min())

    def compute(images: int) -> Tensor:
        base.check(inner)
        explainer = attr.NoiseTunnel(base.make(attr, Score(question.model, question.target, own.objective)))
        # one noisy image at a time: captum draws other noise for other batches
        kind = {"nt_type": own.type, "nt_samples": own.n_samples, "nt_samples_batch_size": 1, "stdevs": stdev}
        return pixels(explainer.attribute(question.image[None].clone(), **kind, **base.given(inner, images)))

    return halving(question, compute)


def _gradient_shap(question: Question) -> Float[Tensor, "H W"]:
    import captum.attr as attr

    own = question.parameters

    def compute(images: int) -> Tensor:
        explainer = attr.GradientShap(Score(question.model, question.target, own.objective))
        several, total = fills(question), torch.zeros(question.size, dtype=torch.float64, device=question.image.device)
        for _ in range(own.n_samples):  # one at a time: captum draws other points for other batches
            inputs = question.image[None].clone()
            total += pixels(explainer.attribute(inputs, baselines=several, n_samples=1, stdevs=own.stdev)).detach()
        mean: Tensor = total / own.n_samples
        return mean

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
        _gradient_shap,
        ShapParameters,
        Cost(lambda own, scale: own.n_samples, GRADIENTS),
    ),
    "DeepLift": Entry(
        "Shrikumar et al. 2017",
        deep_lift,
        DeepParameters,
        Cost(lambda own, scale: 4, "passes, 2 with gradients"),
        asks=_MODULES,
    ),
    "DeepLiftShap": Entry(
        "Lundberg and Lee 2017",
        deep_lift_shap,
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
