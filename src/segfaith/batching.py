"""Altered images in batches: how many go through the model at once, and their scores."""

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from torch import Tensor

from segfaith.errors import SettingsError
from segfaith.memory import Memory, Stage, bytes_of
from segfaith.scores import check_finite
from segfaith.types import Bool, Float, Int

Boxes = tuple[np.ndarray, np.ndarray]
"""Half-open boxes: first rows and columns (B, 2), and the rows and columns after the last (B, 2)."""


@dataclass
class BatchSize:
    """How many images go through the model at once; halves itself when memory runs out, and stays halved.

    Attributes:
        images: the most; where `follows`, of images whose features are large or not known.
        memory: what the passes may take, from which the number of each stage follows; None: `images`.
        follows: whether nobody asked for a number, so that more images go at once where their features are small.
    """

    images: int
    memory: Memory | None = None
    follows: bool = False

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"the batch size must be at least 1, got {self.images}")

    @property
    def tried(self) -> int:
        """How many images the test of a new model may put in a batch."""
        return self.images if self.memory is None else min(self.images, TRIED)

    def of(self, stage: Stage, kept: int = 0, features: int = 0) -> int:
        """How many images of a stage may go through the model at once.

        Args:
            kept: see `Memory.fits`.
            features: bytes of an image's features in all layers; 0 where they are not known.
        """
        if self.memory is not None:
            return self.memory.fits(stage, self.images, kept)
        if self.follows and features:
            return max(self.images, min(LARGEST, FEATURES // features))
        return self.images

    def halve(self, images: int) -> None:
        """From now on at most half of so many, for which memory was not enough; and never more than before."""
        self.images, self.follows = min(self.images, images // 2), False

    def watched(self, stage: Stage, images: int) -> AbstractContextManager[None]:
        """A block in which so many images of a stage go through the model at once; its memory is measured."""
        return nullcontext() if self.memory is None else self.memory.watched(stage, images)


DEFAULT_BATCH, MOST, TRIED = 16, 64, 2
"""The batch size where none is given; with a limit of memory the largest, and that of a new model's test."""
LARGEST, FEATURES = 49, 2_600_000_000
"""Where no batch size is given, as many images go at once as have `FEATURES` bytes of features in all layers, but at
least `DEFAULT_BATCH` and at most `LARGEST`. Only the features of a few layers are in memory at once."""


def batches(most: int | None, memory: str | None, device: torch.device) -> BatchSize:
    """The batch size of a user's two settings: the most images, and what passes may take beyond what is in use now.

    Raises:
        SettingsError: a text that is no size; a system that does not say what a process takes.
    """
    if memory is None:
        return BatchSize(most or DEFAULT_BATCH, follows=most is None)
    try:
        limit = bytes_of(memory)
    except ValueError as error:
        raise SettingsError(f"memory = {memory!r}: {error}") from error
    return BatchSize(most or MOST, Memory(limit, device))


ALIKE: Stage = ("passes", (0, 0), None)
"""The stage of a caller whose images all take the same memory."""


def on_target(words: str, region: Bool[Tensor, "H W"], *others: Hashable) -> Stage:
    """The stage of altered images that are scored on a target: their memory depends on the extent of the target."""
    sides = [int(region.any(axis).nonzero().diff(dim=0).sum()) for axis in (1, 0)]
    return words, (region.shape[0], region.shape[1]), (*sides, *others)


def in_batches(
    count: int,
    compute: Callable[[slice], tuple[Tensor, ...]],
    batch: BatchSize,
    stage: Stage = ALIKE,
    features: int = 0,
) -> tuple[Tensor, ...]:
    """Calls `compute` on consecutive slices of range(count) and concatenates what it returns along the first axis.

    The slices have nearly equal sizes, so no small batch is left at the end. When memory runs out, `batch` is halved
    and the slice repeated. If a slice of size 1 does not fit, the error is raised. Where `batch` has a limit of memory,
    the sizes follow from it. `features`: see `BatchSize.of`.
    """
    parts: list[tuple[Tensor, ...]] = []
    start = kept = 0
    if batch.memory is not None:
        batch.memory.settle()
    while start < count:
        rest = count - start
        stop = start + ceil(rest / ceil(rest / batch.of(stage, kept, features)))
        try:
            with batch.watched(stage, stop - start):
                parts.append(compute(slice(start, stop)))
        except RuntimeError as error:
            if stop - start == 1 or not out_of_memory(error):
                raise
            batch.halve(stop - start)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        start = stop
        kept = 2 * count * sum(column.nbytes for column in parts[0]) // len(parts[0][0])  # the parts, and all as one
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def out_of_memory(error: Exception) -> bool:
    """Whether torch says that memory ran out: its own class on a GPU, a plain RuntimeError on the CPU."""
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(
        text in words for text in ("allocate memory", "not enough memory", "out of memory")
    )


Scorer = Callable[[Float[Tensor, "B bands H W"], Boxes | None], Float[Tensor, "B"]]
"""From altered copies of an image, and boxes around each copy's changes (None: anywhere), to s_c in float64."""


@torch.inference_mode()
def score_images(
    scorer: Scorer,
    build: Callable[[Int[Tensor, "B"]], Float[Tensor, "B bands H W"]],
    count: int,
    batch: BatchSize,
    boxes: Boxes | None = None,
    stage: Stage = ALIKE,
    features: int = 0,
) -> Float[Tensor, "count"]:
    """s_c of `count` altered images. `build` makes images by number, so only one batch of them exists at a time.

    If `boxes` are given, images altered at similar distances from the border share a batch, since their windows are of
    similar size. Where `batch` has a limit of memory, the largest windows come first: later ones take no more.

    Raises:
        SampleError: a score is not finite.
    """
    order = np.arange(count)
    if boxes is not None:
        start, stop = boxes
        margin = np.minimum(start, stop.max(0) - stop)
        order = np.lexsort((margin[:, 1], margin[:, 0]))
        if batch.memory is not None:
            area, order = (stop - start).prod(1), order[::-1]
            order = order[np.argsort(area[order] < area.max(), kind="stable")]

    def scores(part: slice) -> tuple[Tensor]:
        chosen = order[part]
        images = build(torch.from_numpy(chosen))
        return (scorer(images, None if boxes is None else (boxes[0][chosen], boxes[1][chosen])),)

    (shuffled,) = in_batches(count, scores, batch, stage, features)
    result = torch.empty_like(shuffled)
    result[torch.from_numpy(order).to(result.device)] = shuffled
    check_finite(result)
    return result
