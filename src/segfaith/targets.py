"""Chooses the classes and regions of a sample to explain, or says why there is none (paper section 4.1).

The steps of `find_targets`, in this order:

1. the pixels of each class by `source`, inside `box`;
2. the class: named, at `point`, the dominant one, or all;
3. the part of its pixels: connected components (8 neighbours), or the band along the edge;
4. targets below `min_area` are left out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.ndimage import binary_dilation, binary_erosion, label

from segfaith.constants import IGNORE
from segfaith.errors import SampleError, SampleSkipped, SettingsError
from segfaith.paths import plain_name
from segfaith.target_choice import SOURCES, TargetChoice
from segfaith.types import Bool, Int, Labels, Mask, Target

_EIGHT = np.ones((3, 3), dtype=bool)
Prediction = Int[torch.Tensor, "h w"] | Bool[torch.Tensor, "C h w"]
"""The predicted class of each pixel, or for classes that overlap a mask for each class."""


def find_targets(
    labels: Labels,
    predicted: Prediction | None = None,
    choice: TargetChoice | None = None,
    *,
    masks: Mapping[int, Mask] | None = None,
    background: int | None = 0,
    classes: Sequence[str] | None = None,
) -> list[Target]:
    """The targets of an image, at least one; by default the dominant class of the ground truth.

    Args:
        labels: (H, W), the ground truth at the evaluated size; 255 is ignored.
        predicted: what the model predicts: the class of each pixel, (H, W), or for classes that overlap a mask for each
            class, (C, H, W). Needed for every source but the ground truth.
        choice: which targets; see `TargetChoice`.
        masks: the ground truth of classes that overlap, by class; no pixel is ignored then. None or {} where classes
            exclude each other.
        background: the class that is no target unless `choice` names it; None: every class is a target.
        classes: names of the classes, for the targets' names and for messages.

    Returns:
        Targets on the device of `labels`, by class and, within a class, by the components' first pixels in reading
        order. `Target.name` is "" if `choice` allows one target an image, else the class name, with "-2", "-3" for
        further components.

    Raises:
        SampleSkipped: the image has no such target; the message says why.
        SampleError: a box or point that is not in the image; labels, a prediction or masks that are no tensors, or not
            of these shapes.
        SettingsError: `predicted` is missing.
    """
    choice = choice or TargetChoice()
    _check_maps(labels, predicted, masks or {})
    size = (labels.shape[0], labels.shape[1])
    _check_inside(choice, size)
    regions = _by_source(labels.cpu(), predicted, choice, masks or {})
    whole = _whole(labels.cpu(), predicted, choice, masks or {})
    if choice.box:
        top, left, bottom, right = choice.box
        within = torch.zeros(size, dtype=torch.bool)
        within[top:bottom, left:right] = True
        regions = {index: region & within for index, region in regions.items() if bool((region & within).any())}
    name = _describer(classes)
    chosen = _chosen(regions, labels, choice, background, name)
    targets: list[Target] = []
    taken: set[str] = set()
    least = choice.min_area * (labels.numel() if choice.min_area < 1 else 1)
    largest = 0
    for index, region in chosen.items():
        parts, seen = _parts(region, choice, least)
        largest = max(largest, seen)
        for part in parts if index != choice.versus else []:
            called = _free(_class_name(index, classes), taken) if choice.several else ""
            beside = whole[index] & ~part
            given = part.to(labels.device), choice.score, choice.versus, called
            targets.append(Target(index, *given, beside.to(labels.device) if bool(beside.any()) else None))
    if not targets:
        raise SampleSkipped(_why_none(list(chosen), choice, largest, least, name))
    return targets


def _check_maps(labels: Any, predicted: Any, masks: Mapping[int, Any]) -> None:
    """Raises SampleError for what is no map of class indices, or of a class's pixels."""
    whole = "a tensor of class indices, whole numbers, (H, W)"
    given: list[tuple[str, Any, tuple[int, ...], str]] = [("labels", labels, (2,), whole)]
    if predicted is not None:
        given.append(("predicted", predicted, (2, 3), f"{whole}, or a mask for each class, (C, H, W)"))
    given += [(f"masks[{index}]", mask, (2,), "a boolean mask (H, W), a tensor") for index, mask in masks.items()]
    for name, values, axes, expected in given:
        if not isinstance(values, torch.Tensor):
            remedy = f"; convert it: torch.from_numpy({name})" if isinstance(values, np.ndarray) else ""
            raise SampleError(f"{name}: expected {expected}, got a {type(values).__name__}{remedy}")
        if values.ndim not in axes or values.is_floating_point():
            raise SampleError(f"{name}: expected {expected}, got {values.dtype} {tuple(values.shape)}")


def _check_inside(choice: TargetChoice, size: tuple[int, int]) -> None:
    height, width = size
    if choice.box and (choice.box[2] > height or choice.box[3] > width):
        raise SampleError(f"box = {list(choice.box)} reaches beyond the image of {height} x {width} px (H x W)")
    if choice.point and (choice.point[0] >= height or choice.point[1] >= width):
        raise SampleError(f"point = {list(choice.point)} lies outside the image of {height} x {width} px (H x W)")


def _by_source(
    labels: Labels, predicted: Prediction | None, choice: TargetChoice, masks: Mapping[int, Mask]
) -> dict[int, Mask]:
    """The pixels of each class that has any, by index."""
    ignored = torch.zeros_like(labels, dtype=torch.bool) if masks else labels == IGNORE
    truth = {index: mask.cpu() for index, mask in masks.items()} if masks else _by_class(labels)
    if choice.source == "ground_truth":
        regions = truth
    elif predicted is None:
        raise SettingsError(f"source = {choice.source!r} reads the model's prediction; give predicted")
    elif predicted.shape[-2:] != labels.shape:
        raise SampleError(
            f"the prediction is {tuple(predicted.shape)} and the ground truth {tuple(labels.shape)}; expected one size"
        )
    else:
        model, none = _by_class(predicted.cpu(), None), torch.zeros_like(ignored)
        join: Callable[[Mask, Mask], Mask] = {
            "prediction": lambda there, seen: seen,
            "hit": lambda there, seen: there & seen,
            "missed": lambda there, seen: there & ~seen,
            "false_alarm": lambda there, seen: seen & ~there & ~ignored,
        }[choice.source]
        regions = {index: join(truth.get(index, none), model.get(index, none)) for index in {*truth, *model}}
    return {index: regions[index] for index in sorted(regions) if bool(regions[index].any())}


def _whole(
    labels: Labels, predicted: Prediction | None, choice: TargetChoice, masks: Mapping[int, Mask]
) -> Mapping[int, Mask]:
    """All pixels of each class, on the side that a source's regions are parts of: the truth or the prediction."""
    if predicted is None or choice.source in ("ground_truth", "missed"):
        return {index: mask.cpu() for index, mask in masks.items()} if masks else _by_class(labels)
    return _by_class(predicted.cpu(), None)


def _by_class(values: Prediction, ignored: int | None = IGNORE) -> dict[int, Mask]:
    """The mask of each class that occurs. A model predicts no ignored pixels: there 255 is a class like any other."""
    if values.ndim == 3:
        return {index: mask for index, mask in enumerate(values) if bool(mask.any())}
    return {int(value): values == value for value in torch.unique(values) if value != ignored}


def _chosen(
    regions: Mapping[int, Mask],
    labels: Labels,
    choice: TargetChoice,
    background: int | None,
    name: Callable[[int], str],
) -> dict[int, Mask]:
    """The classes to explain and their pixels.

    Raises:
        SampleSkipped: there is none.
    """
    where = SOURCES[choice.source] + (f" inside the box {list(choice.box)}" if choice.box else "")
    wanted = {choice.class_index} if choice.class_index is not None else set(choice.classes or regions)
    if choice.class_index is None and choice.classes is None:
        wanted.discard(background if background is not None else -1)
    present = {index: region for index, region in regions.items() if index in wanted}
    if choice.point:
        return _at_point(regions, present, choice, where, name)
    if choice.class_index is not None and not present:
        raise SampleSkipped(f"{name(choice.class_index)} does not occur in {where}")
    if choice.classes is not None and not present:
        raise SampleSkipped(f"none of the chosen classes ({_listed(choice.classes, name)}) occurs in {where}")
    if not present:
        hint = ""
        if bool((labels == IGNORE).any()) and choice.source == "ground_truth":
            hint = (
                f" (it holds {IGNORE}, which means 'ignored'; if {IGNORE} is the foreground here, set [data] "
                f"foreground = {IGNORE})"
            )
        every = "ignored" if background is None else "background or ignored"
        raise SampleSkipped(f"no foreground in {where}: every pixel is {every}{hint}")
    if choice.per_image == "all":
        return present
    dominant = max(present, key=lambda index: (int(present[index].sum()), -index))
    return {dominant: present[dominant]}


def _at_point(
    regions: Mapping[int, Mask],
    present: Mapping[int, Mask],
    choice: TargetChoice,
    where: str,
    name: Callable[[int], str],
) -> dict[int, Mask]:
    """The component that holds the point, by its class."""
    assert choice.point is not None
    row, column = choice.point
    place = f"the point {[row, column]}"
    here = [index for index, region in present.items() if bool(region[row, column])]
    if len(here) > 1:
        raise SampleSkipped(f"{place} lies in several classes ({_listed(here, name)}); choose one with class")
    if not here:
        others = [index for index, region in regions.items() if bool(region[row, column])]
        what = f"is {_listed(others, name)} in {where}, which is not chosen" if others else f"is of no class in {where}"
        raise SampleSkipped(f"{place} {what}")
    for component in components(present[here[0]]):
        if bool(component[row, column]):
            return {here[0]: component}
    raise AssertionError("a pixel of a region lies in one of its components")


def _parts(region: Mask, choice: TargetChoice, least: float) -> tuple[list[Mask], int]:
    """The parts of a class's pixels that are targets, and the pixels of the largest one, left out or not."""
    if choice.part in ("boundary", "interior"):
        band = boundary(region, choice.width)
        parts = [band if choice.part == "boundary" else region & ~band]
    elif choice.part == "whole":
        parts = [region]
    else:
        parts = components(region)
    counts = [int(part.sum()) for part in parts]
    kept = [part for part, count in zip(parts, counts, strict=True) if count and count >= least]
    if choice.part in ("largest", "smallest") and kept:
        pick = max if choice.part == "largest" else min  # both give the first of equal ones
        kept = [pick(kept, key=lambda part: int(part.sum()))]
    return kept, max(counts)


def components(region: Mask) -> list[Mask]:
    """The connected components of a region (8 neighbours), by their first pixels in reading order."""
    numbers, count = label(region.cpu().numpy(), _EIGHT)
    order, first = np.unique(numbers, return_index=True)
    firsts = {int(number): int(place) for number, place in zip(order, first, strict=True) if number}
    assert len(firsts) == count
    return [torch.from_numpy(numbers == number) for number in sorted(firsts, key=firsts.__getitem__)]


def boundary(region: Mask, width: int) -> Mask:
    """The pixels at most `width` steps (8 neighbours) from the other side of a region's edge, on both sides.

    The edge of the image is no edge of the region. Ignored pixels are no edge either: they are outside the region, and
    the band may hold them.
    """
    inside = region.cpu().numpy()
    grown = binary_dilation(inside, _EIGHT, iterations=width)
    shrunk = binary_erosion(inside, _EIGHT, iterations=width, border_value=1)
    return torch.from_numpy(grown & ~shrunk)


def _why_none(
    chosen: Sequence[int], choice: TargetChoice, largest: int, least: float, name: Callable[[int], str]
) -> str:
    """Why chosen classes have no target."""
    if list(chosen) == [choice.versus]:
        return f"the target is {name(chosen[0])}, which versus names: a class is not compared with itself"
    what = {"whole": "region", "boundary": "boundary", "interior": "interior"}.get(choice.part, "component")
    if not largest:
        return f"no {what} of {_listed(chosen, name)}: no pixel is farther than width = {choice.width} from the edge"
    return (
        f"no {what} of {_listed(chosen, name)} has {least:g} pixels (min_area = {choice.min_area:g}); the largest has "
        f"{largest}"
    )


def _describer(classes: Sequence[str] | None) -> Callable[[int], str]:
    """Classes in messages: "class 12 (dog)"."""
    return lambda index: f"class {index} ({classes[index]})" if classes and index < len(classes) else f"class {index}"


def _class_name(index: int, classes: Sequence[str] | None) -> str:
    """A class's part of a target's name, which also names files."""
    return plain_name(classes[index]) if classes and index < len(classes) else f"class {index}"


def _listed(indices: Sequence[int], name: Callable[[int], str]) -> str:
    return ", ".join(map(name, indices))


def _free(name: str, taken: set[str]) -> str:
    """The name, or with the first free number from "-2" on; names that differ only in case are one."""
    number, free = 1, name
    while free.casefold() in taken:
        number += 1
        free = f"{name}-{number}"
    taken.add(free.casefold())
    return free


def overlap(predicted: Mask, target: Target) -> float:
    """IoU in [0, 1] of M and the pixels predicted as the target class: `target_iou` of the records.

    Where M is a part of the class's pixels, as one of several components, its other pixels are left out of the
    prediction: they are other targets, or none.
    """
    return intersection_over_union(predicted if target.beside is None else predicted & ~target.beside, target.region)


def intersection_over_union(predicted: Mask, region: Mask) -> float:
    """IoU in [0, 1] of two masks; NaN where both are empty."""
    union = int((predicted | region).sum())
    return int((predicted & region).sum()) / union if union else torch.nan


def majority_class(predicted: Prediction, region: Mask) -> int | None:
    """The class that is predicted on most pixels of a region; ties to the lowest. None if none is, of classes that
    overlap."""
    pixels = predicted[..., region]
    counts = pixels.sum(1) if predicted.ndim == 3 else torch.bincount(pixels)
    return int(counts.argmax()) if bool(counts.any()) else None
