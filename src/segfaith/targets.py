"""Chooses the class and region of a sample to explain, or says why there is none (paper section 4.1)."""

from collections.abc import Sequence
from typing import Literal

import torch

from segfaith.constants import IGNORE
from segfaith.errors import SampleSkipped
from segfaith.types import Labels, Mask, Target

TargetSource = Literal["ground_truth", "prediction"]


def dominant_target(labels: Labels, source: str = "ground truth", background: int | None = 0) -> Target:
    """The most frequent foreground label and its mask; background and ignore (255) excluded, ties to the lowest.

    Args:
        labels: (H, W) after resizing: the ground truth, or a model's argmax.
        source: where the labels come from, for the message.
        background: the label that is no foreground, or None where every class is one.

    Raises:
        SampleSkipped: there is no foreground.
    """
    foreground = labels != IGNORE
    if background is not None:
        foreground &= labels != background
    values, counts = torch.unique(labels[foreground], return_counts=True)
    if len(values) == 0:
        hint = ""
        if bool((labels == IGNORE).any()):
            hint = (
                f" (it holds {IGNORE}, which means 'ignored'; if {IGNORE} is the foreground here, set [data] "
                f"foreground = {IGNORE})"
            )
        every = "ignored" if background is None else "background or ignored"
        raise SampleSkipped(f"no foreground in the {source}: every pixel is {every}{hint}")
    label = int(values[counts.argmax()])  # argmax returns the first of equal counts, the lowest label
    return Target(label, labels == label)


def class_target(labels: Labels, class_index: int, classes: Sequence[str] | None, source: str) -> Target:
    """The mask of a named class.

    Raises:
        SampleSkipped: no pixel has that class.
    """
    region = labels == class_index
    if not bool(region.any()):
        name = f" ({classes[class_index]})" if classes is not None and class_index < len(classes) else ""
        raise SampleSkipped(f"class {class_index}{name} does not occur in the {source}")
    return Target(class_index, region)


def intersection_over_union(predicted: Mask, region: Mask) -> float:
    """IoU in [0, 1] of M and the pixels predicted as the target class: `target_iou` of the records."""
    union = int((predicted | region).sum())
    return int((predicted & region).sum()) / union if union else torch.nan


def majority_class(predicted: Labels, region: Mask) -> int:
    """The class that is predicted on most pixels of a region; ties to the lowest."""
    return int(torch.bincount(predicted[region]).argmax())
