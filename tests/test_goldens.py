"""The same numbers from other implementations: pytorch-grad-cam's maps and ROAD imputer, captum, scipy."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, Occlusion
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
from scipy.ndimage import gaussian_filter1d
from torch import Tensor, nn
from torch.nn import functional as F

import segfaith
from rederived import cells
from segfaith.attribution.cam import elementwise_cam, pooled_cam
from segfaith.attribution.explain import gather, sample_rng
from segfaith.attribution.methods import resolve_method
from segfaith.batching import BatchSize
from segfaith.evidence.gradient import gradient_evidence
from segfaith.evidence.regions import Regions
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import ROAD_NOISE, gaussian_blur, occluder
from segfaith.perturbation import clean_variant
from segfaith.scores import Scalar
from segfaith.types import GradientEvidence, Target
from toys import SmallCNN, plain


def photograph(size: tuple[int, int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """A random image and a mask in its left half."""
    image = torch.from_numpy(np.random.default_rng(seed).random((3, *size), dtype=np.float32))
    mask = torch.zeros(size, dtype=torch.bool)
    mask[6 : size[0] - 9, 4 : size[1] // 2] = True
    return image, mask


class Logits(nn.Module):
    """What pytorch-grad-cam and captum need: normalisation, the module, bilinear upsampling, a tensor."""

    def __init__(self, module: nn.Module, mean: float = 0.0, std: float = 1.0) -> None:
        super().__init__()
        self.module, self.mean, self.std = module, mean, std

    def forward(self, x: Tensor) -> Tensor:
        coarse = self.module((x - self.mean) / self.std)["out"]
        return F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """The other packages leave the module in evaluation mode and gradients in its parameters."""
    training = {one: one.training for one in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for one, flag in training.items():
            one.training = flag
        module.zero_grad()


def their_cam(kind: type[BaseCAM], logits: Logits, layer: str, image: Tensor, target: Target) -> np.ndarray:
    """Their map at the layer's resolution, before ReLU, resizing and min-max."""
    module = logits.module.get_submodule(layer)
    wanted = [SemanticSegmentationTarget(target.class_index, target.region.numpy().astype(np.float32))]
    with evaluating(logits.module), kind(model=logits, target_layers=[module]) as explainer:
        explainer(input_tensor=image[None], targets=wanted)
        seen = explainer.activations_and_grads
        found = explainer.get_cam_image(
            image[None], module, wanted, seen.activations[0].numpy(), seen.gradients[0].numpy(), False
        )
    return np.asarray(found[0], dtype=np.float64)


OURS: dict[type[BaseCAM], Callable[[GradientEvidence], Tensor]] = {
    GradCAM: pooled_cam,
    HiResCAM: lambda evidence: elementwise_cam(evidence, pool="mean", window=1),
}


def compare_cams(
    kind: type[BaseCAM], model: SegmentationModel, logits: Logits, layer: str, image: Tensor, target: Target
) -> np.ndarray:
    """Compares up to the ReLU, which they apply later; returns theirs."""
    theirs = their_cam(kind, logits, layer, image, target)
    evidence, _, _ = gradient_evidence(
        model, image[None], target.region[None], Scalar(target.class_index), BatchSize(1), layer=layer
    )
    ours = OURS[kind](evidence)[0].double().numpy()
    np.testing.assert_allclose(ours, np.maximum(theirs, 0), rtol=0, atol=1e-5 * np.abs(theirs).max())
    return theirs


@pytest.mark.parametrize("kind", OURS, ids=["gpa-GradCAM", "ega-HiResCAM"])
@pytest.mark.parametrize("layer", ["backbone.4", "backbone.1"])
@pytest.mark.parametrize("size", [(28, 42), (31, 45)])
def test_cams_are_those_of_pytorch_grad_cam(kind: type[BaseCAM], layer: str, size: tuple[int, int]) -> None:
    image, mask = photograph(size)
    module = SmallCNN(seed=2)
    module.backbone[2].inplace = module.backbone[4].inplace = False  # they keep activations by reference
    found = [
        compare_cams(kind, plain(module), Logits(module), layer, image, Target(class_index, mask))
        for class_index in range(3)
    ]
    assert max(one.max() for one in found) > 0 > min(one.min() for one in found)  # the ReLU keeps some and cuts some


@pytest.fixture(scope="module")
def voc_photograph() -> Callable[[Path], tuple[Tensor, Target]]:
    """A photograph of the shared folder, and what its ground truth says is in it."""
    from segfaith.data.images import resize_labels
    from segfaith.data.masks import read_labels
    from segfaith.targets import find_targets

    def read(shared: Path) -> tuple[Tensor, Target]:
        folder = shared / "voc" / "VOCdevkit" / "VOC2012"
        labels = read_labels(folder / "SegmentationClass" / "2007_000063.png")[0]
        image = segfaith.load_image(folder / "JPEGImages" / "2007_000063.jpg", size=224)
        return image, find_targets(resize_labels(labels, 224))[0]

    return read


@pytest.mark.realdata
@pytest.mark.parametrize("kind", OURS, ids=["gpa-GradCAM", "ega-HiResCAM"])
def test_cams_of_a_trained_model_are_those_of_pytorch_grad_cam(
    kind: type[BaseCAM], shared: Path, trained_model: SegmentationModel, voc_photograph: Callable
) -> None:
    image, target = voc_photograph(shared)
    theirs = compare_cams(kind, trained_model, Logits(trained_model.module, 0.5, 0.5), "backbone.17", image, target)
    assert theirs.max() > 0 > theirs.min()


def masked_mean(logits: Logits, target: Target) -> Callable[[Tensor], Tensor]:
    """s_c(x, M) of a batch, as captum wants it."""

    def forward(x: Tensor) -> Tensor:
        p = logits(x).softmax(1)[:, target.class_index].double()
        return (p * target.region).sum((1, 2)) / (target.region.sum() + 1e-6)

    return forward


def drops(model: SegmentationModel, image: Tensor, target: Target, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """Our delta_r painted on the cells, and the cells."""
    methods = [resolve_method(f"ria@grid={grid}", {})]
    variants = clean_variant(image, target.region)
    got = gather(model, variants, target, methods, BatchSize(16), sample_rng(0, "a"))
    evidence = got.intervention[Regions(grid)]
    return evidence.drop[0].numpy()[evidence.regions[0].numpy()], evidence.regions[0].numpy()


def mean_image(image: Tensor) -> Tensor:
    """Captum's baseline: the image's mean colour everywhere."""
    return image.double().mean((1, 2)).float()[None, :, None, None].expand(1, *image.shape).contiguous()


@pytest.mark.parametrize(("size", "grid"), [((56, 56), 14), ((30, 42), 6)])
def test_ria_is_captums_occlusion(size: tuple[int, int], grid: int) -> None:
    """Window = stride = cell, the baseline the image's mean colour; signed drops to 1e-5."""
    image, mask = photograph(size)
    target, module = Target(2, mask), SmallCNN()
    cell = (3, size[0] // grid, size[1] // grid)
    with evaluating(module), torch.no_grad():
        theirs = Occlusion(masked_mean(Logits(module), target)).attribute(
            image[None],
            sliding_window_shapes=cell,
            strides=cell,
            baselines=mean_image(image),
            perturbations_per_eval=16,
        )[0]
    ours, _ = drops(plain(module), image, target, grid)
    assert np.abs(ours).max() > 1e-3
    assert ours.min() < 0 < ours.max()
    for channel in theirs.double().numpy():
        np.testing.assert_allclose(ours, channel, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("size", "grid"), [((31, 45), 14), ((23, 17), 5)])
def test_ria_on_uneven_cells_is_captums_feature_ablation(size: tuple[int, int], grid: int) -> None:
    image, mask = photograph(size)
    target, module, partition = Target(1, mask), SmallCNN(), cells(size, grid)
    assert len({int((partition == cell).sum()) for cell in range(grid * grid)}) > 1
    with evaluating(module), torch.no_grad():
        theirs = FeatureAblation(masked_mean(Logits(module), target)).attribute(
            image[None],
            baselines=mean_image(image),
            feature_mask=torch.from_numpy(partition).expand(1, 3, -1, -1),
            perturbations_per_eval=16,
        )[0]
    ours, regions = drops(plain(module), image, target, grid)
    assert np.array_equal(regions, partition)
    assert np.abs(ours).max() > 1e-3
    np.testing.assert_allclose(ours, theirs[0].double().numpy(), rtol=0, atol=1e-5)


@pytest.mark.realdata
def test_ria_of_a_trained_model_is_captums_occlusion(
    shared: Path, trained_model: SegmentationModel, voc_photograph: Callable
) -> None:
    """A photograph at 224 x 224 with 2 x 2 cells of 112 pixels."""
    image, target = voc_photograph(shared)
    logits = Logits(trained_model.module, 0.5, 0.5)
    with evaluating(trained_model.module), torch.no_grad():
        theirs = Occlusion(masked_mean(logits, target)).attribute(
            image[None],
            sliding_window_shapes=(3, 112, 112),
            strides=(3, 112, 112),
            baselines=mean_image(image),
            perturbations_per_eval=4,
        )[0, 0]
    ours, _ = drops(trained_model, image, target, 2)
    assert ours.max() > 0.05
    np.testing.assert_allclose(ours, theirs.double().numpy(), rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")  # theirs: numpy functions on a tensor
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_road_imputes_as_its_authors_do(share: float) -> None:
    """Rong et al.'s imputer without noise, against ours, whose noise is at most 6 standard deviations."""
    image, _ = photograph((18, 23), seed=2)
    missing = torch.from_numpy(np.random.default_rng(3).random((18, 23)) < share)
    missing[4:9, 0:7] = True
    theirs = NoisyLinearImputer(noise=0.0)(image, (~missing).float())
    draws = torch.stack([occluder("road", image, np.random.default_rng(seed))(missing[None])[0] for seed in range(50)])
    assert NoisyLinearImputer().noise == ROAD_NOISE
    assert float((draws - theirs).abs().max()) < 6 * ROAD_NOISE
    inner = (theirs > 0.1) & (theirs < 0.9)  # where clipping cannot move the mean
    assert float((draws.mean(0) - theirs)[inner].abs().max()) < 5.5 * ROAD_NOISE / 50**0.5


@pytest.mark.parametrize("sigma", [0.6, 1.0, 2.5])
def test_blur_is_scipys(sigma: float) -> None:
    """Its `mirror` is our reflect padding; the same radius, ceil(3 sigma)."""
    image, _ = photograph((31, 27), seed=4)
    expected = image.double().numpy()
    for axis in (1, 2):
        expected = gaussian_filter1d(expected, sigma, axis, mode="mirror", radius=int(np.ceil(3 * sigma)))
    np.testing.assert_allclose(gaussian_blur(image, sigma).double().numpy(), expected, rtol=0, atol=2e-6)
