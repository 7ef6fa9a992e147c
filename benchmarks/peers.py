"""The same numbers by captum and pytorch-grad-cam: single attributions, and the protocol of a whole sample.

Their attributions are used as their documentation shows, captum's also in each dress of `dress.py`. What belongs to the
protocol and to no attribution (perturbed images, random control maps, the order in which equal values are ranked) comes
from segfaith in both, at the same cost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from captum.attr import FeatureAblation, Occlusion
from dress import AS_IT_IS, Dress, autocast, dressed
from pytorch_grad_cam import GradCAM, HiResCAM
from pytorch_grad_cam.base_cam import BaseCAM
from pytorch_grad_cam.utils.model_targets import SemanticSegmentationTarget
from torch import Tensor, nn
from workload import SAMPLE, SEED, Output, Workload

from segfaith.attribution.explain import Gathered, heatmaps, sample_rng
from segfaith.attribution.methods import resolve_method
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.constants import EPS
from segfaith.evaluation.ranking import rank_region, tie_ranks, top_count, top_pixels
from segfaith.evidence.gradient import clock
from segfaith.models.segmentation import SegmentationModel
from segfaith.perturbation import Variants, clean_variant, perturbed_variants
from segfaith.types import Target

METRICS = ("tdd", "odd", "insertion_gain", "stability")
ALPHA, BETA = 0.65, 0.35


class Logits(nn.Module):
    """The model as a module from RGB in [0, 1] to logits at the image's size, as grad-cam wants it."""

    def __init__(self, model: SegmentationModel) -> None:
        super().__init__()
        self.module, self.logits = model.module, model.logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits(images)


def masked_mean(case: Workload, region: Tensor, dress: Dress = AS_IT_IS) -> Callable[[Tensor], Tensor]:
    """The masked mean class probability of a batch, as captum wants it."""
    weights = region / (region.sum() + EPS)
    module = dressed(case.model, dress)
    return lambda images: (case.model.logits_of(module, images).softmax(1)[:, case.class_index] * weights).sum((1, 2))


def mean_image(image: Tensor) -> Tensor:
    """The baseline: the image's mean colour everywhere."""
    return image.mean((1, 2))[None, :, None, None].expand(1, *image.shape).contiguous()


def ablate(case: Workload, image: Tensor, region: Tensor, cells: Tensor, batch: int, dress: Dress) -> Tensor:
    """captum's FeatureAblation: the drop of each cell, painted on it (H, W)."""
    with autocast(dress, image.device):
        painted: Tensor = FeatureAblation(masked_mean(case, region, dress)).attribute(
            image[None], baselines=mean_image(image), feature_mask=cells[None, None], perturbations_per_eval=batch
        )
    return painted[0, 0]


def drops(case: Workload, painted: Tensor) -> Output:
    """The cells' values of a map that is constant on cells."""
    values = painted.new_zeros(case.count)
    values[case.cells.flatten()] = painted.flatten()
    return Output({"drop": values.double().cpu().numpy()})


def some_cells(case: Workload, count: int) -> Tensor:
    """All cells, or `count` (a divisor of their number) of them, spread over the image; the rest is cell `count`."""
    step = case.count // count
    return case.cells if step == 1 else torch.where(case.cells % step == 0, case.cells // step, count)


def left_out(case: Workload, start: float, count: int) -> float:
    """Seconds that the other cells would have taken; one pass is the image as it is, one what the cells leave."""
    passes = count + 1 + (count < case.count)
    return (clock(case.model.device) - start) * ((case.count + 1) / passes - 1)


def feature_ablation(case: Workload, batch: int, count: int, dress: Dress = AS_IT_IS) -> Output:
    """RIA's drops by FeatureAblation."""
    start = clock(case.model.device)
    painted = ablate(case, case.image, case.region, some_cells(case, count), batch, dress)
    rest = left_out(case, start, count)
    found = drops(case, painted).values["drop"]
    found[np.arange(case.count) % (case.count // count) != 0] = np.nan
    return Output({"drop": found}, rest)


def occlusion(case: Workload, batch: int, count: int, dress: Dress = AS_IT_IS) -> Output:
    """RIA's drops by Occlusion with window = stride = cell; fewer cells (a multiple of the grid's side that divides
    their number) are wider, for time only."""
    start = clock(case.model.device)
    side = case.image.shape[-1]
    window = (3, side // case.grid, side * case.grid // count)
    with autocast(dress, case.image.device):
        painted = Occlusion(masked_mean(case, case.region, dress)).attribute(
            case.image[None],
            sliding_window_shapes=window,
            strides=window,
            baselines=mean_image(case.image),
            perturbations_per_eval=batch,
        )
    rest = left_out(case, start, count)
    found = drops(case, painted[0, 0]).values["drop"]
    return Output({"drop": found if count == case.count else np.full_like(found, np.nan)}, rest)


def cams(kind: type[BaseCAM], case: Workload, images: Tensor, regions: Tensor) -> Tensor:
    """grad-cam's maps of N images at the model's feature layer, in [0, 1], upsampled and scaled by itself."""
    targets = [SemanticSegmentationTarget(case.class_index, one.cpu().numpy().astype(np.float32)) for one in regions]
    [layer] = case.model.layer_names()
    with kind(model=Logits(case.model), target_layers=[case.model.module.get_submodule(layer)]) as explainer:
        return torch.from_numpy(explainer(input_tensor=images, targets=targets)).to(images.device)


def cam(case: Workload, batch: int, count: int, *, kind: type[BaseCAM]) -> Output:
    """One map of one image."""
    return Output({"map": cams(kind, case, case.image[None], case.region[None])[0].cpu().numpy()})


def scaled(values: Tensor) -> Tensor:
    """(A - min A) / (max A - min A), or zeros for a constant map."""
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 1e-12 else torch.zeros_like(values)


@dataclass
class Ablation:
    """RIA maps of variants by captum; `left_out` sums up what the cells that are not ablated would have taken."""

    case: Workload
    batch: int
    count: int
    dress: Dress
    left_out: float = 0.0

    def maps(self, variants: Variants) -> list[Tensor]:
        cells = variants.mirror(some_cells(self.case, self.count).expand(len(variants.names), -1, -1))
        start = clock(self.case.model.device)
        drop = [
            ablate(self.case, image, region, one, self.batch, self.dress)
            for image, region, one in zip(variants.images, variants.regions, cells, strict=True)
        ]
        self.left_out += left_out(self.case, start, self.count)
        return [scaled(one.clamp(min=0)) for one in drop]


def fuse(gradient: Tensor, region: Tensor) -> Tensor:
    """Equation 2 of the paper."""
    return scaled(ALPHA * gradient * (1 + BETA * region) + (1 - ALPHA) * region)


def whole_sample(case: Workload, batch: int, count: int, dress: Dress = AS_IT_IS, *, reuse: bool) -> Output:
    """Four methods and the control on the image and its five perturbations: metrics and stability.

    Args:
        batch: images a pass; only interventions and metric images are batched.
        count: cells that are really ablated.
        dress: of interventions and metric images.
        reuse: each piece of evidence once, gradient maps of six variants in one pass, metric images in batches.
            Otherwise each method by itself, and each image by itself.
    """
    rng, settings = sample_rng(SEED, SAMPLE), EvaluationSettings()
    clean = clean_variant(case.image, case.region)
    others = perturbed_variants(case.image, case.region, settings.strength, lambda name: rng(f"perturbation|{name}"))
    parts = (clean, others)
    everything = Variants(
        clean.names + others.names,
        torch.cat([clean.images, others.images]),
        torch.cat([clean.regions, others.regions]),
    )
    ablation = Ablation(case, batch, count, dress)

    def gradient_maps(kind: type[BaseCAM]) -> list[Tensor]:
        if reuse:
            return list(cams(kind, case, everything.images, everything.regions))
        pairs = zip(everything.images, everything.regions, strict=True)
        return [cams(kind, case, image[None], region[None])[0] for image, region in pairs]

    maps: dict[str, list[list[Tensor]]] = {
        "gpa": [gradient_maps(GradCAM)],
        "ega": [gradient_maps(HiResCAM)],
        "ria": [ablation.maps(everything)],
    }
    first, second = (maps["ega"][0], maps["ria"][0]) if reuse else (gradient_maps(HiResCAM), ablation.maps(everything))
    maps["dea"] = [[fuse(one, two) for one, two in zip(first, second, strict=True)]]
    control = resolve_method("random_cells", case.tables)
    maps["random_cells"] = [
        [
            one
            for part in parts
            for one in heatmaps(
                case.model, Gathered(part, Target(case.class_index, case.region)), control, rng, SAMPLE, draw
            )
        ]
        for draw in range(control.method.draws)
    ]
    deletions = _metrics(case, [draw[0] for draws in maps.values() for draw in draws], batch if reuse else 1, dress)
    values = {}
    for name, draws in maps.items():
        rows = [deletions.pop(0) for _ in draws]
        steady = [[_correlation(draw[0], one) for one in everything.mirror(torch.stack(draw))[1:]] for draw in draws]
        values[name] = np.append(np.mean(rows, 0), np.nanmean(steady))
    if count < case.count:
        values = {name: value for name, value in values.items() if name not in ("ria", "dea")}
    return Output(values, ablation.left_out)


def _correlation(first: Tensor, second: Tensor) -> float:
    if min(float(first.max() - first.min()), float(second.max() - second.min())) < 1e-12:
        return float("nan")
    return float(np.corrcoef(first.double().flatten().cpu().numpy(), second.double().flatten().cpu().numpy())[0, 1])


def _metrics(case: Workload, maps: Sequence[Tensor], batch: int, dress: Dress) -> list[list[float]]:
    """TDD, ODD and insertion gain of each map of the clean image."""
    k, size = EvaluationSettings().fractions[0], (case.image.shape[1], case.image.shape[2])
    ranks = tie_ranks(size, EvaluationSettings().ties, sample_rng(SEED, SAMPLE)("ties")).to(case.image.device)
    baseline = mean_image(case.image)[0]
    images = [case.image, baseline]
    for one in maps:
        chosen = []
        for region in (case.region, ~case.region):
            order = rank_region(one, region, ranks)
            chosen.append(top_pixels(order, top_count(k, len(order)), size))
        images += [torch.where(area, baseline, case.image) for area in chosen]
        images.append(torch.where(chosen[0], case.image, baseline))
    score = masked_mean(case, case.region, dress)
    with torch.inference_mode():
        parts = [score(torch.stack(images[i : i + batch])) for i in range(0, len(images), batch)]
    s, s_baseline, *rest = torch.cat(parts).double().tolist()
    return [
        [(s - rest[i]) / (abs(s) + EPS), (s - rest[i + 1]) / (abs(s) + EPS), rest[i + 2] - s_baseline]
        for i in range(0, len(rest), 3)
    ]
