"""Which region of a photograph is explained: predicted, at a point, drawn, or missed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from segfaith.benchmark.setting_tables import PREDICTED, TWIN, Settings
from segfaith.classes import class_index
from segfaith.data.images import resize_labels, turned_alike
from segfaith.data.masks import read_drawn, read_mask
from segfaith.data.meaning import BACKGROUND, background_of, meaning_of, overlapping
from segfaith.errors import SampleError, SampleSkipped, SettingsError
from segfaith.explanation import name_of
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import versus_predicted
from segfaith.target_choice import TargetChoice
from segfaith.targets import Prediction, find_targets
from segfaith.types import Image, Labels, Mask, Target, Tensor


@dataclass(frozen=True)
class Wanted:
    """Which region of a photograph is explained; the class and the score stand in `[target]` of the settings.

    Attributes:
        point: (x, y), pixels of the upright file from its left and upper edge, at least 0: the connected region there.
        mask: a PNG whose nonzero pixels are the region; with `missed`, what is truly of the class.
        truth: a mask of labels, as masks of a data set.
        missed: the part of the class's true pixels that the model does not predict as it.
    """

    point: tuple[int, int] | None = None
    mask: Path | None = None
    truth: Path | None = None
    missed: bool = False


def check(settings: Settings, wanted: Wanted) -> None:
    """Refuses wishes that exclude each other, before anything is loaded."""
    named = settings.target.class_name is not None
    for wrong, words in (
        (wanted.point is not None and (wanted.mask or wanted.truth), "--point takes no --mask and no --truth"),
        (wanted.mask and wanted.truth, "--mask and --truth exclude each other: each says where the class is"),
        (wanted.mask and not named, "--mask is a region without a class; give --class NAME too"),
        (
            wanted.missed and not (wanted.mask or wanted.truth),
            "--missed needs --truth FILE, or --mask FILE --class NAME",
        ),
        (
            settings.target.versus == TWIN,
            "target.versus = 'twin' is of data sets that know twins; name the other class, or leave versus out",
        ),
        (settings.data.wired is not None, "one photograph is explained; leave [data] wired out of the settings"),
        (wanted.truth and not wanted.missed, "--truth says what the model misses; give --missed too, or use --mask"),
    ):
        if wrong:
            raise SettingsError(words)


def predicted_shares(model: SegmentationModel, predicted: Prediction) -> dict[str, float]:
    """The share of the pixels that each class is predicted on, the largest first."""
    if predicted.ndim == 3:
        parts = {index: float(mask.double().mean()) for index, mask in enumerate(predicted) if bool(mask.any())}
    else:
        values, counts = torch.unique(predicted, return_counts=True)
        parts = dict(zip(values.tolist(), (counts / predicted.numel()).tolist(), strict=True))
    order = sorted(parts, key=lambda index: (-parts[index], index))
    return {name_of(model, index): parts[index] for index in order}


def listed(shares: Mapping[str, float], most: int = 8) -> str:
    """ "background 71 %, dog 24 %, sofa 5 %"."""
    words = [f"{name} {100 * share:.0f} %" if share >= 0.01 else f"{name} < 1 %" for name, share in shares.items()]
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def _against(target: Target, settings: Settings, predicted: Prediction) -> Target:
    """The target; where the settings say so, compared with the class that the model predicts there."""
    return versus_predicted(target, predicted) if settings.target.versus == PREDICTED else target


def choose(
    settings: Settings,
    wanted: Wanted,
    model: SegmentationModel,
    upright: Image,
    orientation: int,
    predicted: Prediction,
    shares: Mapping[str, float],
) -> tuple[Target, str]:
    """The target, and in words how it was chosen."""
    asked = settings.target
    index = None if asked.class_name is None else class_index(asked.class_name, model.classes, model.class_count)
    versus: int | None = None
    if asked.versus is not None and asked.versus != PREDICTED:
        versus = class_index(asked.versus, model.classes, model.class_count)
    size, nothing = (predicted.shape[-2], predicted.shape[-1]), torch.zeros(predicted.shape[-2:], dtype=torch.int64)
    background = _background(settings, model)
    if wanted.mask and not wanted.missed:
        assert index is not None
        region = _drawn(wanted.mask, upright, orientation, size)
        target = _against(Target(index, region, asked.score, versus), settings, predicted)
        return target, f"the region of {wanted.mask.name}"
    if wanted.missed:
        labels, masks = _true(settings, wanted, model, index, upright, orientation, size)
        choice = TargetChoice("missed", index)
        missed = find_targets(labels, predicted, choice, masks=masks, background=background, classes=model.classes)[0]
        return _against_prediction(missed, settings, model, predicted, versus)
    point = None if wanted.point is None else _place(wanted.point, upright, size)
    choice = TargetChoice("prediction", index, point=point, score=asked.score, versus=versus)
    try:
        found = find_targets(nothing, predicted, choice, background=background, classes=model.classes)[0]
        target = _against(found, settings, predicted)
    except SampleSkipped as error:
        words = str(error)
        if point is not None and wanted.point is not None:  # as it was given: in pixels of the file
            words = words.replace(f"the point {list(point)}", f"--point {wanted.point[0]},{wanted.point[1]}")
        raise SampleSkipped(f"{words}; the model predicts {listed(shares)}") from error
    name = name_of(model, target.class_index)
    if wanted.point is not None:
        x, y = wanted.point
        return target, f"the connected region that is predicted as {name} at x = {x}, y = {y}"
    if index is None:
        return target, f"{name}: the most frequent predicted class{_other_than(model, background)}"
    return target, f"where the model predicts {name}"


def _background(settings: Settings, model: SegmentationModel) -> int | None:
    """The class that is explained only if it is named, as in a run; None where there is none."""
    reading = settings.data.reading
    if model.independent and reading.background is None:  # where classes overlap, no class means 'nothing else'
        return None
    return background_of(reading, model.classes or [f"class {index}" for index in range(model.class_count or 2)])


def _other_than(model: SegmentationModel, background: int | None) -> str:
    if background is None:
        return ""
    name = name_of(model, background)
    if name == BACKGROUND:
        return " other than the background"
    return f' other than {name}, which counts as the background (if it is none: [data] background = "none")'


def _against_prediction(
    missed: Target, settings: Settings, model: SegmentationModel, predicted: Prediction, versus: int | None
) -> tuple[Target, str]:
    """What is missed; unless the settings name a score, by its margin to the class that is predicted there instead."""
    name, asked = name_of(model, missed.class_index), settings.target
    words = f"the part of {name} that the model does not predict"
    if asked.score != "probability" or "score" in asked.model_fields_set or model.independent:
        return _against(Target(missed.class_index, missed.region, asked.score, versus), settings, predicted), words
    target = versus_predicted(missed, predicted)
    assert target.versus is not None
    words += f"; it predicts {name_of(model, target.versus)} there, so the margin between both is explained"
    return target, words


def _place(point: tuple[int, int], upright: Image, size: tuple[int, int]) -> tuple[int, int]:
    """(row, column) at the evaluated size of a pixel (x, y) of the upright file."""
    (height, width), (x, y) = upright.shape[1:], point
    if not (0 <= x < width and 0 <= y < height):
        raise SampleError(
            f"--point {x},{y} lies outside the photograph, which is {width} px wide and {height} px high; give x,y: "
            "x from the left edge, y from the top, from 0 on"
        )
    return (2 * y + 1) * size[0] // (2 * height), (2 * x + 1) * size[1] // (2 * width)


def _drawn(path: Path, upright: Image, orientation: int, size: tuple[int, int]) -> Mask:
    """The nonzero pixels of a mask at the evaluated size."""
    drawn, carried = read_drawn(path)
    region = _fitted(drawn, carried, path, upright, orientation, size)
    if not bool(region.any()):
        raise SampleError(f"the mask {path} has no pixel other than 0 at {size[0]} x {size[1]} px; expected a region")
    return region


def _true(
    settings: Settings,
    wanted: Wanted,
    model: SegmentationModel,
    index: int | None,
    upright: Image,
    orientation: int,
    size: tuple[int, int],
) -> tuple[Labels, dict[int, Mask]]:
    """The ground truth at the evaluated size: labels, and masks where classes overlap."""
    if wanted.mask:
        assert index is not None
        region = _drawn(wanted.mask, upright, orientation, size)
        return torch.zeros(size, dtype=torch.int64), {index: region}
    assert wanted.truth is not None
    names = model.classes or [f"class {number}" for number in range(model.class_count or 2)]
    given = settings.data.classes
    meaning = meaning_of(settings.data.reading, given if isinstance(given, list) else names)
    values, carried = read_mask(wanted.truth, meaning, settings.data.channels_first)
    fitted = _fitted(values, carried, wanted.truth, upright, orientation, size)
    labels, masks = (fitted, {}) if fitted.ndim == 2 else overlapping(fitted, meaning)
    return labels, dict(masks)


def _fitted(
    values: Tensor, carried: int, path: Path, upright: Image, orientation: int, size: tuple[int, int]
) -> Tensor:
    """A mask turned as its photograph and resized to the evaluated size, which it may have already."""
    if tuple(values.shape[-2:]) == size != tuple(upright.shape[1:]):
        return values
    turned = turned_alike(upright, orientation, values, carried)
    if turned.shape[-2:] != upright.shape[1:]:
        raise SampleError(
            f"the mask {path} is {turned.shape[-1]} x {turned.shape[-2]} px (width x height); expected the "
            f"photograph's {upright.shape[2]} x {upright.shape[1]}, or {size[1]} x {size[0]}, at which it is evaluated"
        )
    return turned if tuple(turned.shape[-2:]) == size else resize_labels(turned, size[0])
