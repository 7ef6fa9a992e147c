"""Wired photographs: a data set whose samples are pairs of another one's samples, side by side (`halves`)."""

from dataclasses import replace

from segfaith.data.dataset import Dataset
from segfaith.data.images import Size
from segfaith.errors import SampleError, SettingsError
from segfaith.halves import Wiring, side_by_side
from segfaith.randomness import generator
from segfaith.types import Image, Labels, Mask, Planted, Sample, Tensor


def wire_samples(dataset: Dataset, wiring: Wiring, seed: int) -> Dataset:
    """Each sample A of a data set once, beside another sample B: their id is "A+B".

    All ids, sorted, are put into a random order, and each one's partner is the next. So each sample is A once and B
    once, and a pair does not depend on how many samples a run has. A lies in the left half of the canvas, (H, 2 W).
    Labels stand where the model's logits for them are: crossed, B's labels lie in the left half and A's in the right.

    Raises:
        SettingsError: fewer than two samples.
    """
    if len(dataset.ids) < 2:
        raise SettingsError(f"[data] wired puts two samples side by side; {dataset.name} {dataset.split} has fewer")
    ids = sorted(dataset.ids)
    order = [ids[number] for number in generator(seed, "", "wired").permutation(len(ids))]
    pairs = {f"{one}+{other}": (one, other) for one, other in zip(order, [*order[1:], order[0]], strict=True)}
    if len(pairs) < len(ids):
        raise SettingsError("[data] wired joins two ids by '+', and two pairs of these ids would be called alike")

    def load(sample_id: str, size: Size) -> Sample:
        one, other = (dataset.load(part, size) for part in pairs[sample_id])
        return _canvas(sample_id, one, other, wiring)

    def content(sample_id: str) -> bytes:
        return b"".join(map(dataset.content, pairs[sample_id]))

    return replace(dataset, ids=list(pairs), load=load, content=content)


def _canvas(sample_id: str, one: Sample, other: Sample, wiring: Wiring) -> Sample:
    """Two samples side by side."""
    image = side_by_side(*_alike(one, other))
    first, second = (other, one) if wiring.own == 0 else (one, other)
    labels: Labels = side_by_side(first.labels, second.labels)
    masks = {
        index: side_by_side(*(sample.masks.get(index, _nothing(sample.labels)) for sample in (first, second)))
        for index in sorted({*first.masks, *second.masks})
    }
    clipped = (one.clipped + other.clipped) / 2
    return Sample(sample_id, image, labels, masks=masks, clipped=clipped, wired=_evidence(labels, wiring))


def _alike(one: Sample, other: Sample) -> list[Image]:
    """The images of two samples with as many channels as each other; grey is repeated.

    Raises:
        SampleError: they differ in size, or otherwise in channels.
    """
    images = [one.image, other.image]
    most = max(map(len, images))
    images = [image.expand(most, -1, -1) if len(image) == 1 else image for image in images]
    if images[0].shape != images[1].shape:
        shapes = " and ".join(str(tuple(image.shape)) for image in images)
        raise SampleError(f"wired photographs must have the same channels and size (C, H, W), got {shapes}")
    return images


def _evidence(labels: Labels, wiring: Wiring) -> Planted | None:
    """The half that decides every target of the left half, or None where both do."""
    if wiring.kind is None:
        return None
    left, right = (_nothing(half) for half in labels.chunk(2, -1))
    return Planted(wiring.kind, (side_by_side(left, ~right) if wiring.own == 0 else side_by_side(~left, right),))


def _nothing(labels: Tensor) -> Mask:
    return labels != labels
