"""captum's methods that occlude regions. What they ask of the model is computed by RIA's fast passes.

captum gets the regions as a vector (1, R) of ones, whose baseline is 0: a region is there or occluded. So every
operator of `segfaith.occlusion` serves, and LIME's distances are those between such vectors, as in LIME for images.
"""

from collections.abc import Callable
from typing import Any

import torch
from pydantic import Field, model_validator

from segfaith.attribution.libraries.entry import FAST, Cost, Entry, Question, Scale, SignParameters
from segfaith.attribution.libraries.running import at_once, boxes_of, drawing, fast_score
from segfaith.attribution.parameters import CellParameters, Fill, RiaParameters
from segfaith.constants import EPS
from segfaith.errors import SampleError
from segfaith.evidence.regions import Regions
from segfaith.occlusion import occluder
from segfaith.types import Bool, Float, Int, InterventionEvidence, Tensor


class AblationParameters(SignParameters, RiaParameters):
    """RIA's parameters, and the rule for signs."""


class WindowParameters(SignParameters):
    """Windows of `window` x `window` pixels, `stride` pixels apart, and the operator that occludes them."""

    window: int = Field(default=32, ge=1)
    stride: int = Field(default=16, ge=1)
    occlusion: Fill = "mean"

    @model_validator(mode="after")
    def _covers(self) -> "WindowParameters":
        if self.stride > self.window:
            raise ValueError(f"stride = {self.stride} would leave pixels between windows of {self.window}; give both")
        return self


class ShapleyParameters(SignParameters, CellParameters):
    """`n_samples` random orders in which the regions come back."""

    n_samples: int = Field(default=5, ge=1)


class PermutationParameters(SignParameters, CellParameters):
    """`n_samples` random orders of a region's pixels. Only adaptive regions are occluded, to find them."""

    n_samples: int = Field(default=2, ge=2)

    @model_validator(mode="after")
    def _moves(self) -> "PermutationParameters":
        if "occlusion" in self.model_fields_set and self.regions != "adaptive":
            raise ValueError("pixels are exchanged, not occluded; leave occlusion out")
        return self


class KernelParameters(SignParameters, CellParameters):
    """`n_samples` random sets of regions, to which a linear model is fitted."""

    n_samples: int = Field(default=1000, ge=2)


class LimeParameters(KernelParameters):
    """The kernel's width over cosine distances, and ridge regression's weight `alpha`."""

    width: float = Field(default=0.25, gt=0)
    alpha: float = Field(default=1.0, gt=0)


Sets = Callable[[Float[Tensor, "B R"]], Float[Tensor, "B"]]


def ablation(intervention: InterventionEvidence) -> Float[Tensor, "N H W"]:
    """FeatureAblation: each region's signed drop on its pixels. It costs no passes beside RIA."""
    drop = intervention.drop.gather(1, intervention.regions.flatten(1))
    return drop.reshape(intervention.regions.shape)


def _sets(question: Question, cells: Int[Tensor, "H W"]) -> Sets:
    """From B vectors of R ones and zeros to s of the images whose regions at zero are occluded."""
    own, score = question.parameters, fast_score(question)
    occlude = occluder(own.occlusion, question.image, question.rng, wired=question.model.wired)

    def scores(there: Float[Tensor, "B R"]) -> Float[Tensor, "B"]:
        parts = []
        for part in torch.split(there, at_once(question)):
            masks = (part == 0)[:, cells]
            parts.append(score(occlude(masks), boxes_of(masks)))
        return torch.cat(parts)

    return scores


def _over_cells(attribute: Callable[[Question, Any, Sets, dict[str, Any]], Tensor]) -> Callable[[Question], Tensor]:
    """The signed attribution of each pixel's region, by captum's method on vectors of regions."""

    def explain(question: Question) -> Float[Tensor, "H W"]:
        import captum.attr as attr

        assert question.cells is not None
        numbers, cells = torch.unique(question.cells, return_inverse=True)  # small images leave cells without pixels
        with drawing(question), torch.inference_mode(False), torch.no_grad():
            ones = torch.ones(1, len(numbers), device=question.image.device)
            given = {"baselines": 0, "perturbations_per_eval": at_once(question)}
            values = attribute(question, attr, _sets(question, cells), {"inputs": ones, **given})
            return values[0].double()[cells]

    return explain


def _shapley(question: Question, attr: Any, sets: Sets, given: dict[str, Any]) -> Tensor:
    return attr.ShapleyValueSampling(sets).attribute(**given, n_samples=question.parameters.n_samples)  # type: ignore[no-any-return]


def _fitted(make: Callable[[Sets], Any], sets: Sets, given: dict[str, Any], samples: int) -> Tensor:
    """The coefficients of a regression; all 0 where the scores do not vary, since a fit makes noise of their rounding.

    Args:
        make: captum's object, from the function of sets.
    """
    seen: list[Tensor] = []

    def noted(there: Float[Tensor, "B R"]) -> Float[Tensor, "B"]:
        seen.append(sets(there))
        return seen[-1]

    values: Tensor = make(noted).attribute(**given, n_samples=samples)
    scores = torch.cat(seen)
    varied = float(scores.max() - scores.min()) > EPS * float(scores.abs().max())
    return values if varied else torch.zeros_like(values)


def _kernel_shap(question: Question, attr: Any, sets: Sets, given: dict[str, Any]) -> Tensor:
    if given["inputs"].shape[1] < 2:
        raise SampleError(f"{question.name}: the image is a single region; give it at least two")
    return _fitted(attr.KernelShap, sets, given, question.parameters.n_samples)


def _lime(question: Question, attr: Any, sets: Sets, given: dict[str, Any]) -> Tensor:
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr._core.lime import get_exp_kernel_similarity_function

    own = question.parameters
    near = get_exp_kernel_similarity_function("cosine", kernel_width=own.width)
    model = SkLearnRidge(alpha=own.alpha)
    return _fitted(
        lambda scores: attr.Lime(scores, interpretable_model=model, similarity_func=near), sets, given, own.n_samples
    )


def _occlusion(question: Question) -> Float[Tensor, "H W"]:
    import captum.attr as attr

    own, image = question.parameters, question.image
    if question.model.wired:
        raise SampleError(f"{question.name}: a window would run across both of wired photographs; use FeatureAblation")
    if own.window > min(question.size):
        raise SampleError(f"{question.name}: window = {own.window} is larger than the image, {question.size}")
    with drawing(question), torch.inference_mode(False), torch.no_grad():
        score = fast_score(question)

        def scores(images: Float[Tensor, "B bands H W"]) -> Float[Tensor, "B"]:
            return score(images, boxes_of((images != image).any(1)))

        attribution = attr.Occlusion(scores).attribute(
            image[None],
            sliding_window_shapes=(len(image), own.window, own.window),
            strides=(len(image), own.stride, own.stride),
            baselines=question.filled(own.occlusion)[None],
            perturbations_per_eval=at_once(question),
        )
        return attribution[0, 0].double()  # type: ignore[no-any-return]


def _permutation(question: Question) -> Float[Tensor, "H W"]:
    """The mean drop of s when the pixels of a region are exchanged among themselves.

    captum exchanges features between the images of a batch, and skips a batch of one. So it gets `n_samples` copies of
    the image, and its `perm_func` orders the pixels of each anew.
    """
    import captum.attr as attr

    assert question.cells is not None
    own, image, cells = question.parameters, question.image, question.cells
    with drawing(question), torch.inference_mode(False), torch.no_grad():
        score = fast_score(question)

        def scores(images: Float[Tensor, "B bands H W"]) -> Float[Tensor, "B"]:
            return score(images, boxes_of((images != image).any(1)))

        def exchanged(images: Float[Tensor, "B bands H W"], mask: Bool[Tensor, "1 bands H W"]) -> Tensor:
            inside, moved = mask[0, 0], images.clone()
            for one in moved:
                order = torch.randperm(int(inside.sum())).to(image.device)  # drawn on the CPU, as everywhere
                one[:, inside] = one[:, inside][:, order]
            return moved

        attribution = attr.FeaturePermutation(scores, perm_func=exchanged).attribute(
            image.expand(own.n_samples, *image.shape).clone(),
            feature_mask=cells.expand(1, *image.shape),
            perturbations_per_eval=max(1, at_once(question) // own.n_samples),
        )
        return attribution[:, 0].double().mean(0)  # type: ignore[no-any-return]


def _windows(own: Any, scale: Scale) -> int | None:
    """Those of captum: as many as start before the last one that fits, and one more where pixels are left."""
    if scale.size is None:
        return None
    window: int = own.window
    stride: int = own.stride
    rows, columns = (max(0, -(-(side - window) // stride)) + 1 for side in scale.size)
    return rows * columns + 2  # captum asks for the image itself, and so does `fast_score`


def _count(own: Any) -> int:
    """The number of regions: exact for a grid, the most for adaptive ones, rough for superpixels."""
    return Regions(own.grid, kind=own.regions, passes=own.passes).count


_LINEAR = "no gradients, and scikit-learn"
ENTRIES: dict[str, Entry] = {
    "Occlusion": Entry(
        "Zeiler and Fergus 2014",
        _occlusion,
        WindowParameters,
        Cost(_windows, FAST, "a fast pass for each window, and 2"),
        asks="no gradients",
    ),
    "FeatureAblation": Entry(
        "Zeiler and Fergus 2014; the drops of RIA, with their signs",
        None,
        AblationParameters,
        Cost(lambda own, scale: 0),
        asks="no gradients",
    ),
    "FeaturePermutation": Entry(
        "Breiman 2001; Fisher et al. 2019",
        _permutation,
        PermutationParameters,
        Cost(lambda own, scale: own.n_samples * (_count(own) + 1) + 1, FAST),
        asks="no gradients",
        cells=True,
    ),
    "ShapleyValueSampling": Entry(
        "Castro et al. 2009",
        _over_cells(_shapley),
        ShapleyParameters,
        Cost(lambda own, scale: own.n_samples * _count(own) + 2, FAST),
        asks="no gradients",
        cells=True,
    ),
    "KernelShap": Entry(
        "Lundberg and Lee 2017",
        _over_cells(_kernel_shap),
        KernelParameters,
        Cost(lambda own, scale: own.n_samples + 1),
        asks=_LINEAR,
        cells=True,
    ),
    "Lime": Entry(
        "Ribeiro et al. 2016",
        _over_cells(_lime),
        LimeParameters,
        Cost(lambda own, scale: own.n_samples + 1),
        asks=_LINEAR,
        cells=True,
    ),
}
