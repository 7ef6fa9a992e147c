"""Whether predictions and labels mean the same: the mean IoU of the first samples, and what would raise it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from statistics import fmean

import torch

from segfaith.benchmark.check_data import Line
from segfaith.benchmark.worker import predicted_classes
from segfaith.models.inputs import IMAGENET_MEAN, IMAGENET_STD
from segfaith.models.segmentation import SegmentationModel
from segfaith.targets import Prediction, overlap
from segfaith.types import Image, Sample, Target

LOW = 0.1
"""A lower mean IoU is warned of."""
DOUBTFUL = 0.5
"""Below this mean IoU, other readings of labels and images are tried."""
MARGIN = 0.2
"""A reading is named if it raises the mean IoU by so much, and at least doubles it."""

Kept = Sequence[tuple[Sample, Target]]
Turn = tuple[Callable[[Image], Image], tuple[float, ...] | None, tuple[float, ...] | None]


def fit_lines(model: SegmentationModel, kept: Kept, *, whole_classes: bool) -> Iterator[Line]:
    """The mean IoU of each target and the pixels predicted as its class; where it is low, which reading raises it.

    Args:
        kept: samples with their first target, at the evaluated size.
        whole_classes: the targets are all pixels of classes; other regions say nothing about labels.
    """
    try:
        predictions = [predicted_classes(model, sample.image).cpu() for sample, _ in kept]
    except Exception as error:
        yield Line("fail", "fit", f"the model cannot be run on a sample: {error}")
        return
    mean = _mean_iou(predictions, kept)
    words = f"mean IoU of target and prediction {mean:.2f} over {len(kept)} sample(s)"
    if not whole_classes or mean >= DOUBTFUL:
        yield Line("ok", "fit", words)
        return
    causes = [*_shifts(predictions, kept, mean), *_inputs(model, kept, mean)]
    if causes:
        yield Line("warn", "fit", f"{words}; " + "; ".join(causes))
    elif mean < LOW:
        yield Line("warn", "fit", f"{words}: labels may be off, images normalised otherwise, or the model untrained")
    else:
        yield Line("ok", "fit", words)


def _mean_iou(predictions: Sequence[Prediction], kept: Kept, shift: int = 0) -> float:
    """The mean over samples, with each label taken as the model's class `label + shift`."""
    return fmean(
        overlap(_of_class(predicted, target.class_index + shift), target)
        for predicted, (_, target) in zip(predictions, kept, strict=True)
    )


def _of_class(predicted: Prediction, index: int) -> torch.Tensor:
    if predicted.ndim == 2:
        return predicted == index
    return predicted[index] if 0 <= index < len(predicted) else torch.zeros_like(predicted[0])


def _better(value: float, mean: float) -> bool:
    return value >= mean + MARGIN and value >= 2 * mean


def _shifts(predictions: Sequence[Prediction], kept: Kept, mean: float) -> Iterator[str]:
    """Whether labels count from another number than the model's channels."""
    for shift, words in ((-1, "one too high: the model's class is label - 1"), (1, "one too low: it is label + 1")):
        value = _mean_iou(predictions, kept, shift)
        if _better(value, mean):
            yield f"labels seem {words}, which gives {value:.2f}; say so with [data] labels = {{ VALUE = CLASS, ... }}"


def _inputs(model: SegmentationModel, kept: Kept, mean: float) -> Iterator[str]:
    """Whether the model was trained on images of other numbers or another order of channels."""
    best, said = mean, ""
    for words, (turn, own_mean, own_std) in _turns(model).items():
        with _normalised(model, own_mean, own_std):
            try:
                predictions = [predicted_classes(model, turn(sample.image)).cpu() for sample, _ in kept]
            except Exception:  # a reading that the model cannot be run with is none
                continue
        value = _mean_iou(predictions, kept)
        if value > best:
            best, said = value, f"{words} gives {value:.2f}"
    if _better(best, mean):
        yield said


def _turns(model: SegmentationModel) -> Mapping[str, Turn]:
    """Other ways to give the model its images, with what to set."""
    count = model.input_channels

    def same(image: Image) -> Image:
        return image

    def reversed_channels(image: Image) -> Image:
        return image.flip(0)

    zeros, ones = (0.0,) * count, (1.0,) * count
    turns: dict[str, Turn] = {
        "images from 0 to 255 (mean = 0, std = 1/255 = 0.00392 for each channel)": (same, zeros, (1 / 255,) * count),
        "images as they are (mean = 0, std = 1)": (same, zeros, ones),
        "mean = std = 0.5 for each channel": (same, (0.5,) * count, (0.5,) * count),
    }
    if count == 3:
        turns["ImageNet's mean and std, the default"] = (same, IMAGENET_MEAN, IMAGENET_STD)
        order = "channels in the order blue, green, red (wrap the model in a module that begins with x.flip(1))"
        turns[order] = (reversed_channels, None, None)
        turns[f"{order}, from 0 to 255"] = (reversed_channels, zeros, (1 / 255,) * count)
    return turns


@contextmanager
def _normalised(
    model: SegmentationModel, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> Iterator[None]:
    """Another normalisation inside the block."""
    before = model.mean, model.std
    try:
        model.mean, model.std = mean or before[0], std or before[1]
        yield
    finally:
        model.mean, model.std = before
