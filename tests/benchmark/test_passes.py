"""What methods are said to cost, against the images that go through a model."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import segfaith
from segfaith import Target
from segfaith.attribution.libraries import LIBRARIES
from segfaith.attribution.libraries.entry import Scale
from segfaith.attribution.methods import METHODS, resolve_method
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.passes import cost_words, evidence_passes, own_passes, passes_per_sample, scale_of, uncounted
from segfaith.benchmark.settings import make_settings
from toys import SmallCNN, plain

SIZE = (28, 36)
LAYER = "backbone.4"
TWO = f"layer=backbone.1+{LAYER}"
CHANNELS = {LAYER: 12, TWO: 20}
NAMES = [
    "captum:Saliency",
    "captum:InputXGradient",
    "captum:IntegratedGradients@n_steps=5",
    "captum:GradientShap@n_samples=3",
    "captum:DeepLift",
    "captum:DeepLiftShap@baselines=zero+mean",
    "captum:DeepLiftShap",
    "captum:NoiseTunnel@n_samples=3",
    "captum:NoiseTunnel@n_samples=2,method=IntegratedGradients",
    "captum:NoiseTunnel@n_samples=2,method=GuidedBackprop",
    "captum:NoiseTunnel@n_samples=2,method=GradientShap",
    "captum:NoiseTunnel@n_samples=2,method=DeepLift,objective=logits",
    "captum:NoiseTunnel@n_samples=2,method=DeepLiftShap,objective=logits",
    "captum:GuidedBackprop",
    "captum:Deconvolution",
    "captum:LayerGradCam",
    f"captum:LayerGradCam@{TWO}",
    "captum:GuidedGradCam",
    f"captum:GuidedGradCam@{TWO}",
    "captum:Occlusion@window=8,stride=5",
    "captum:Occlusion@window=28,stride=9",
    "captum:Occlusion@window=4,stride=4",
    "captum:FeatureAblation@grid=3",
    "captum:FeaturePermutation@grid=3",
    "captum:FeaturePermutation@grid=3,n_samples=3",
    "captum:ShapleyValueSampling@grid=3,n_samples=2",
    "captum:KernelShap@grid=3,n_samples=12",
    "captum:Lime@grid=3,n_samples=12",
    "captum:Lime@grid=3,n_samples=12,regions=adaptive,passes=8",
    *(f"gradcam:{name}" for name in LIBRARIES["gradcam"].entries if name != "RefineCAM"),
    f"gradcam:GradCAM@{TWO}",
    f"gradcam:ScoreCAM@{TWO}",
    f"gradcam:AblationCAM@{TWO}",
    f"gradcam:RefineCAM@{TWO}",
    "rise@masks=11",
    "sobol@grid=3,samples=2",
    "gpa",
    "ria@grid=3",
    "dea@grid=3",
    "mea@grid=3",
]


def given() -> tuple[Tensor, Target]:
    image = torch.from_numpy(np.random.default_rng(0).random((3, *SIZE), dtype=np.float32))
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[4:20, 5:25] = True
    return image, Target(1, region)


@pytest.mark.parametrize("name", NAMES)
def test_a_map_takes_the_passes_that_are_said(name: str) -> None:
    """Counted on a model whose hook keeps it from being traced, so that each pass is one of a whole image."""
    image, target = given()
    model, images = plain(SmallCNN(seed=3), layer=LAYER), []
    segfaith.explain(model, image, target, [name])  # what a model is tested for at its first use
    model.module.register_forward_hook(lambda part, inputs, output: images.append(len(inputs[0])))
    segfaith.explain(model, image, target, [name], batch_size=5)
    method = resolve_method(name, {})
    own = own_passes(method, Scale(SIZE, 1, CHANNELS[TWO if TWO in name else LAYER]))
    assert own is not None
    shared = evidence_passes([method], LAYER) if method.gradient_key or method.intervention_key else 0
    features = bool(method.intervention_key)  # a model that is not traced has no pass for the clean image's features
    assert sum(images) == own + shared - features


def test_every_method_is_counted() -> None:
    named = {name.partition("@")[0] for name in NAMES} | {"ega", "random", "random_cells", "mask", "gamed"}
    assert named == {*METHODS, *(f"{prefix}:{one}" for prefix, library in LIBRARIES.items() for one in library.entries)}


def test_a_samples_passes_have_those_of_library_methods_six_times_with_stability() -> None:
    bare = EvaluationSettings(whole=False, fidelity=0)
    names = ["captum:IntegratedGradients@n_steps=5", "rise@masks=11", "captum:Occlusion"]
    methods = [resolve_method(name, {}) for name in names]
    own = 5 + 12 + (13 * 13 + 2)
    for stability, times in ((False, 1), (True, 6)):
        scale = Scale((224, 224))
        total = passes_per_sample(methods, bare, stability=stability, scale=scale)
        costless = passes_per_sample([resolve_method("random", {})] * 3, bare, stability=stability, scale=scale)
        assert total == times * own + costless


def settings(**data: Any) -> Any:
    return make_settings({"model": {"name": "scenes", "layer": "a+b"}, "data": {"name": "scenes", **data}})


def test_what_the_settings_leave_open_is_named() -> None:
    names = ["captum:Occlusion", "gradcam:ScoreCAM", "os:getcwd", "captum:Saliency", "ria"]
    methods = [resolve_method(name, {}) for name in names]
    assert uncounted(methods, scale_of(settings(size=96))) == ["gradcam:ScoreCAM", "os:getcwd"]
    native = scale_of(settings(size="native"))
    assert uncounted(methods, native) == ["captum:Occlusion", "gradcam:ScoreCAM", "os:getcwd"]
    assert [cost_words(method, native) for method in methods] == [
        "a fast pass for each window, and 2",
        "a pass for each channel of the layer, and 1",
        "passes of its own",
        "1 pass with its gradient",
        "197 fast passes, shared",
    ]
