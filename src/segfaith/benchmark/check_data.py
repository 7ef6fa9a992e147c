"""What the samples of a plan hold, read once: sizes, channels, values, labels, targets, and which are bad."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Literal

import torch

from segfaith.benchmark.plan import Plan
from segfaith.constants import IGNORE
from segfaith.data.datasets import DRAWN
from segfaith.data.images import fit_channels, resize_image, resize_labels
from segfaith.errors import SampleError, SampleSkipped, words_of
from segfaith.models.segmentation import SegmentationModel
from segfaith.types import Sample, Target

KEPT = 8
"""The first good samples with a target, on which the model's prediction is held against the labels."""
NAMED = 5
"""So many bad samples are named."""
Targets = Callable[[Sample], list[Target]]


@dataclass(frozen=True)
class Line:
    """A finding: `ok`, `warn` or `fail`, what it is about, and in words what was seen and what to do."""

    level: Literal["ok", "warn", "fail"]
    topic: str
    words: str


@dataclass(eq=False)
class Seen:
    """What was read of the samples.

    Attributes:
        sizes: samples by (height, width) of the file.
        channels: samples by the number of the image's channels.
        low, high: the least and the largest value of any image, in [0, 1].
        clipped: by id, the share of the pixels outside `[data] range`, where there are any.
        pixels, images: by label, the pixels that have it and the images that hold it.
        targets: by class, the images in which it is a target.
        bad, skipped: by id, why the sample cannot be used, or has no target.
        kept: the first good samples with their first target, at the evaluated size.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    channels: Counter[int] = field(default_factory=Counter)
    low: float = inf
    high: float = -inf
    clipped: dict[str, float] = field(default_factory=dict)
    pixels: Counter[int] = field(default_factory=Counter)
    images: Counter[int] = field(default_factory=Counter)
    targets: Counter[int] = field(default_factory=Counter)
    bad: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    kept: list[tuple[Sample, Target]] = field(default_factory=list)


def read_all(
    plan: Plan, model: SegmentationModel | None, targets: Targets | None, on_sample: Callable[[str], None]
) -> Seen:
    """Reads every sample of a plan once; a sample that cannot be used is noted and never raises.

    Args:
        model: the images must fit its channels, and the labels its classes; None: neither is checked.
        targets: gives a sample's targets; None: targets are not looked for.
    """
    seen = Seen()
    for sample_id in plan.ids:
        try:
            _read(plan, sample_id, model, targets, seen)
        except SampleSkipped as error:
            seen.skipped[sample_id] = str(error)
        except SampleError as error:
            seen.bad[sample_id] = str(error)
        except (Exception, SystemExit) as error:
            seen.bad[sample_id] = words_of(error)
        on_sample(sample_id)
    return seen


def _read(plan: Plan, sample_id: str, model: SegmentationModel | None, targets: Targets | None, seen: Seen) -> None:
    size, wired = plan.settings.data.size, plan.settings.data.wiring is not None
    sample = plan.dataset.load(sample_id, size if wired or plan.dataset.name in DRAWN else "native")
    height, width = sample.image.shape[1:]
    seen.sizes[height, width] += 1
    seen.channels[len(sample.image)] += 1
    seen.low, seen.high = min(seen.low, float(sample.image.min())), max(seen.high, float(sample.image.max()))
    if sample.clipped:
        seen.clipped[sample_id] = sample.clipped
    labels, counts = torch.unique(sample.labels, return_counts=True)
    for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
        seen.pixels[label] += count
        seen.images[label] += 1
    if model is not None:
        sample = replace(sample, image=fit_channels(sample.image, model.input_channels))
    if targets is not None:
        sample = sample if wired else _resized(sample, plan)
        chosen = targets(sample)
        for index in {target.class_index for target in chosen}:
            seen.targets[index] += 1
        if len(seen.kept) < KEPT:
            seen.kept.append((sample, chosen[0]))
        count = model.class_count if model else None
        over = {target.class_index for target in chosen if count and target.class_index >= count}
        if over:
            raise SampleError(
                f"its target has the class {max(over)}, and the model has the classes 0 to {(count or 0) - 1}; say "
                "what mask values mean ([data] labels, foreground or ignore)"
            )


def _resized(sample: Sample, plan: Plan) -> Sample:
    size = plan.settings.data.size
    masks = {index: resize_labels(mask, size) for index, mask in sample.masks.items()}
    return replace(
        sample, image=resize_image(sample.image, size), labels=resize_labels(sample.labels, size), masks=masks
    )


def data_lines(
    plan: Plan, seen: Seen, names: Sequence[str] | None, classes: int | None, *, targets: bool
) -> list[Line]:
    """The findings on the samples.

    Args:
        names: class names by index.
        classes: how many classes the model has, if known.
        targets: whether targets were looked for.
    """
    count = len(plan.ids)
    lines = [*_bad(seen.bad, count)]
    if not seen.sizes:
        return lines
    sizes = sorted(seen.sizes)
    lines.append(
        Line("ok", "images", f"{sum(seen.sizes.values())} of {count} can be read; {_sizes(sizes)}; {_channels(seen)}")
    )
    few = seen.high <= 0.05
    values = f"{seen.low:.3g} to {seen.high:.3g} after reading"
    lines.append(
        Line("warn", "values", f"{values}: nearly black; set [data] range to the values that become 0 and 1")
        if few
        else Line("ok", "values", f"{values} (0 to 1 expected)")
    )
    if seen.clipped:
        lines.append(_clipped(seen.clipped, sum(seen.sizes.values())))
    lines.append(_labels(seen, names))
    if over := [label for label in sorted(seen.pixels) if classes and label >= classes and label != IGNORE]:
        shown = ", ".join(f"{label} in {seen.images[label]}" for label in over[:5])
        words = f"no class of the model (0 to {(classes or 0) - 1}): {shown} images; a target of such a class fails"
        lines.append(Line("warn", "labels", f"{words}: say what mask values mean ([data] labels, foreground, ignore)"))
    if targets:
        lines += _targets(seen, names, count)
    return lines


def _bad(bad: Mapping[str, str], count: int) -> list[Line]:
    if not bad:
        return []
    level: Literal["warn", "fail"] = "fail" if len(bad) == count else "warn"
    lines = [Line(level, "samples", f"{len(bad)} of {count} cannot be used; a run gives them rows that say why")]
    lines += [Line(level, "samples", f"{sample_id}: {reason}") for sample_id, reason in list(bad.items())[:NAMED]]
    if len(bad) > NAMED:
        lines.append(Line(level, "samples", f"and {len(bad) - NAMED} more"))
    return lines


def _clipped(clipped: Mapping[str, float], count: int) -> Line:
    """How many images lose values to `[data] clip`, and which loses the most."""
    most = max(clipped, key=clipped.__getitem__)
    words = (
        f"{len(clipped)} of {count} images have values outside [data] range, which clip = true makes 0 or 1: at most"
    )
    return Line("ok", "values", f"{words} {100 * clipped[most]:.2g} % of the pixels ({most})")


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    shown = ", ".join(f"{height} x {width}" for height, width in (sizes if len(sizes) <= 3 else [sizes[0], sizes[-1]]))
    return f"{shown} px (H x W)" if len(sizes) <= 3 else f"{len(sizes)} sizes from {shown} px (H x W)"


def _channels(seen: Seen) -> str:
    parts = [f"{channels} channel(s)" for channels in sorted(seen.channels)]
    return " or ".join(parts)


def _named(index: int, names: Sequence[str] | None) -> str:
    if index == IGNORE:
        return f"{index} (ignored)"
    return f"{index} {names[index]}" if names and index < len(names) else f"class {index}"


def _labels(seen: Seen, names: Sequence[str] | None) -> Line:
    total = sum(seen.pixels.values())
    parts = [
        f"{_named(label, names)} in {seen.images[label]} ({100 * seen.pixels[label] / total:.1f} % of the pixels)"
        for label in sorted(seen.pixels)
    ]
    words = ", ".join(parts[:12]) + (f" and {len(parts) - 12} more" if len(parts) > 12 else "")
    never = [name for index, name in enumerate(names or []) if index not in seen.pixels]
    if not never:
        return Line("ok", "labels", words)
    shown = ", ".join(never[:8]) + (f" and {len(never) - 8} more" if len(never) > 8 else "")
    return Line("ok", "labels", f"{words}; in no image: {shown}")


def _targets(seen: Seen, names: Sequence[str] | None, count: int) -> list[Line]:
    with_target = count - len(seen.bad) - len(seen.skipped)
    parts = [f"{_named(index, names)} {seen.targets[index]}" for index in sorted(seen.targets)]
    lines = [
        Line("ok", "targets", f"{with_target} of {count} samples have one: {', '.join(parts[:12])}")
        if with_target
        else Line("fail", "targets", f"none of the {count} samples has one; change [target], or the data")
    ]
    reasons = Counter(seen.skipped.values())
    for reason, times in reasons.most_common(NAMED):
        first = next(sample_id for sample_id, why in seen.skipped.items() if why == reason)
        lines.append(Line("warn", "targets", f"{times} skipped, such as {first}: {reason}"))
    return lines
