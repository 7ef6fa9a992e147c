"""The targets of a run's samples, by `[target]`: from the ground truth, from the model's prediction or from a file."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from segfaith.benchmark.plan import Plan
from segfaith.benchmark.setting_tables import PREDICTED, TWIN, Settings
from segfaith.benchmark.worker import predicted_classes
from segfaith.classes import class_index
from segfaith.data.dataset import Dataset
from segfaith.data.images import fit_channels, resize_labels, turned_alike
from segfaith.data.masks import read_drawn
from segfaith.errors import SampleError, SampleSkipped, SettingsError
from segfaith.halves import halves, side_by_side
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import scalar_of, versus_predicted
from segfaith.target_choice import TargetChoice
from segfaith.targets import find_targets, majority_class
from segfaith.types import Mask, Planted, Sample, Target, Tensor


def load_sample(plan: Plan, model: SegmentationModel, sample_id: str) -> Sample:
    """A sample at the run's size, its image with as many channels as the model reads.

    Raises:
        SampleError: it cannot be read, or its image has other channels.
    """
    sample = plan.dataset.load(sample_id, plan.settings.data.size)
    return replace(sample, image=fit_channels(sample.image, model.input_channels))


def target_choice(settings: Settings, model: SegmentationModel, dataset: Dataset) -> TargetChoice:
    """`[target]` with indices in place of the classes' names.

    Raises:
        SettingsError: an unknown class, or a score that the model's classes do not have, twins that the data set does
            not know, or no file of a mask.
    """
    index = partial(class_index, classes=model.classes or dataset.classes, count=model.class_count)
    choice = settings.target.choice(index)
    mask = settings.target.mask
    if mask is not None and not (Path(mask).is_file() or Path(mask).is_dir()):
        raise SettingsError(f"target.mask: there is no {mask}; give a PNG, or a folder with ID.png for each sample")
    if settings.target.versus == TWIN and not dataset.twins:
        raise SettingsError(
            f"versus = 'twin': the data set {dataset.name} knows no twins of its classes, as 'scenes' does; name the "
            "other class, or leave versus out for the strongest other class of each pixel"
        )
    scalar_of(model, Target(choice.class_index or 0, torch.ones(1, 1, dtype=torch.bool), choice.score))
    return choice


def targets_of(plan: Plan, model: SegmentationModel, choice: TargetChoice, sample: Sample) -> list[Target]:
    """The sample's targets, at least one, see `all_targets`.

    Raises:
        SampleSkipped: the sample has none.
        SampleError: a drawn mask that cannot be used, a box or point outside the image.
    """
    both = all_targets(plan, model, choice, sample)
    targets = [target for target, why in both if why is None]
    if not targets and both[0][1] is not None:
        raise both[0][1]
    return targets


def all_targets(
    plan: Plan, model: SegmentationModel, choice: TargetChoice, sample: Sample
) -> list[tuple[Target, SampleSkipped | None]]:
    """The sample's targets, at least one, each with why it cannot be explained, or None.

    Each of `source` and `versus` that reads the prediction costs one model pass.

    Raises:
        SampleSkipped, SampleError: see `targets_of`.
    """
    targets, versus = _regions(plan, model, choice, sample), plan.settings.target.versus
    compare: Callable[[Target], Target]
    if versus == TWIN:
        compare = partial(_versus_twin, twins=plan.dataset.twins)
    elif versus == PREDICTED:
        compare = partial(versus_predicted, predicted=predicted_classes(model, sample.image).cpu())
    else:
        return [(target, None) for target in targets]
    both: list[tuple[Target, SampleSkipped | None]] = []
    for target in targets:
        try:
            both.append((compare(target), None))
        except SampleSkipped as why:
            both.append((target, why))
    return both


def _versus_twin(target: Target, twins: Mapping[int, int]) -> Target:
    """The target compared with the twin of its class: `versus = "twin"`.

    Raises:
        SampleSkipped: the class has none, as the background of scenes.
    """
    if target.class_index not in twins:
        raise SampleSkipped(
            f"class {target.class_index} has no twin; leave versus out to compare with the strongest other class of "
            "each pixel"
        )
    return replace(target, versus=twins[target.class_index])


def _regions(plan: Plan, model: SegmentationModel, choice: TargetChoice, sample: Sample) -> list[Target]:
    """The classes and regions of `targets_of`."""
    if plan.settings.target.mask is not None:
        return [_drawn_target(plan, Path(plan.settings.target.mask), choice, sample)]
    predicted = predicted_classes(model, sample.image).cpu() if choice.reads_prediction else None
    predicted = halves(predicted)[0] if predicted is not None and model.wired else predicted
    if model.wired:  # targets lie in the left half, and are those of the photograph whose logits lie there
        return [_on_canvas(target) for target in _found(plan, model, choice, left_half(sample), predicted)]
    return _found(plan, model, choice, sample, predicted)


def left_half(sample: Sample) -> Sample:
    """The left half of a sample of wired photographs: its labels and masks are those of its targets."""
    masks = {index: halves(mask)[0] for index, mask in sample.masks.items() if bool(halves(mask)[0].any())}
    return replace(sample, image=halves(sample.image)[0], labels=halves(sample.labels)[0], masks=masks)


def _on_canvas(target: Target) -> Target:
    """A target of the left half on the whole canvas."""

    def wide(mask: Mask) -> Mask:
        return side_by_side(mask, torch.zeros_like(mask))

    return replace(target, region=wide(target.region), beside=None if target.beside is None else wide(target.beside))


def _found(
    plan: Plan, model: SegmentationModel, choice: TargetChoice, sample: Sample, predicted: Tensor | None
) -> list[Target]:
    """The targets of an image by `find_targets`."""
    overlapping = model.independent and plan.settings.data.background is None  # then no class means 'nothing else'
    background = None if overlapping else plan.dataset.background
    return find_targets(
        sample.labels,
        predicted,
        choice,
        masks=sample.masks,
        background=background,
        classes=model.classes or plan.dataset.classes,
    )


def mask_file(mask: Path, sample_id: str) -> Path:
    """The drawn mask of a sample: a file for all samples, or ID.png in a folder."""
    return mask / f"{sample_id}.png" if mask.is_dir() else mask


def _drawn_target(plan: Plan, mask: Path, choice: TargetChoice, sample: Sample) -> Target:
    """The nonzero pixels of a drawn mask, upright as its file says, at the evaluated size."""
    assert choice.class_index is not None
    file, size = mask_file(mask, sample.id), sample.labels.shape
    drawn, turn = read_drawn(file)
    drawn = turned_alike(sample.image, turn, drawn, turn)
    if drawn.shape != size:
        original = plan.dataset.load(sample.id, "native").labels.shape
        if drawn.shape != original:
            raise SampleError(
                f"the mask {file} is {drawn.shape[0]} x {drawn.shape[1]} px (H x W); expected the image's "
                f"{original[0]} x {original[1]}, or {size[0]} x {size[1]}, at which it is evaluated"
            )
        drawn = resize_labels(drawn, size[0])
    if not bool(drawn.any()):
        raise SampleSkipped(f"the mask {file} has no pixel other than 0 at {size[0]} x {size[1]} px")
    return Target(choice.class_index, drawn, choice.score, choice.versus)


def planted_of(sample: Sample, target: Target) -> Planted | None:
    """The planted evidence of the target's class on the target's device, or None.

    A region that is truly of another class has none: what is planted for the class lies at another object. Most of the
    region must be of the class, or, where classes overlap, more than half. Of wired photographs one half decides every
    target, whatever it truly is.
    """
    device, region = target.region.device, target.region
    if sample.wired is not None:
        return Planted(sample.wired.kind, tuple(mask.to(device) for mask in sample.wired.alternatives))
    if sample.masks:
        truth = sample.masks.get(target.class_index, torch.zeros_like(sample.labels, dtype=torch.bool)).to(device)
        right = 2 * int((truth & region).sum()) > int(region.sum())
    else:
        right = majority_class(sample.labels.to(device), region) == target.class_index
    if not right:
        return None
    planted = sample.planted.get(target.class_index)
    return planted and Planted(planted.kind, tuple(mask.to(device) for mask in planted.alternatives))
