r"""The score that every stage shares: the masked mean class probability, equation 1 of the paper.

    s_c(x, M) = sum_{uv} M_{uv} p_c(x)_{uv} / (sum_{uv} M_{uv} + eps),    p = softmax over the classes of z = f(x)

A scalar in [0, 1]; sums in float64, softmax in float32. eps = 1e-6.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from segfaith.constants import EPS
from segfaith.errors import SampleError
from segfaith.models.segmentation import SegmentationModel
from segfaith.types import Bool, Float, Int


def masked_mean_probability(
    logits: Float[Tensor, "N C H W"], region: Bool[Tensor, "N H W"], class_index: int
) -> Float[Tensor, "N"]:
    """s_c of N images, each with its own region, in float64.

    Args:
        logits: z at the image's size, float32.
        region: M; only its pixels are put through the softmax.
        class_index: c, in [0, C).

    Raises:
        SampleError: a logit inside the region is not finite, so the score is undefined.
    """
    if class_index >= logits.shape[1]:
        raise SampleError(f"class index {class_index} is not one of the model's {logits.shape[1]} classes")
    counts = region.sum((1, 2))
    pixels = logits.movedim(1, -1)[region]  # (pixels of all regions, C): a row's softmax depends on nothing else
    probability = pixels.softmax(1)[:, class_index].double()
    total = torch.stack([one.sum() for one in torch.split(probability, counts.tolist())])
    score = total / (counts.double() + EPS)
    if not bool(score.isfinite().all()):
        raise SampleError("the model returned logits that are NaN or infinite inside the target region")
    return score


@dataclass
class BatchSize:
    """How many images go through the model at once; halves itself when memory runs out, and stays halved."""

    images: int

    def __post_init__(self) -> None:
        if self.images < 1:
            raise ValueError(f"the batch size must be at least 1, got {self.images}")


def in_batches(count: int, compute: Callable[[slice], tuple[Tensor, ...]], batch: BatchSize) -> tuple[Tensor, ...]:
    """Calls `compute` on consecutive slices of range(count) and concatenates what it returns along the first axis.

    Out of memory halves `batch` and repeats the slice; at a batch of one the error is the caller's.
    """
    parts: list[tuple[Tensor, ...]] = []
    start = 0
    while start < count:
        stop = min(start + batch.images, count)
        try:
            parts.append(compute(slice(start, stop)))
        except RuntimeError as error:
            if stop - start == 1 or not _out_of_memory(error):
                raise
            batch.images = (stop - start) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        start = stop
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def _out_of_memory(error: RuntimeError) -> bool:
    """Whether torch says that memory ran out: its own class on a GPU, a plain RuntimeError on the CPU."""
    words = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError) or any(
        text in words for text in ("allocate memory", "not enough memory", "out of memory")
    )


@torch.inference_mode()
def score_images(
    model: SegmentationModel,
    build: Callable[[slice], Float[Tensor, "B 3 H W"]],
    count: int,
    regions: Bool[Tensor, "V H W"],
    variant: Int[Tensor, "count"],
    class_index: int,
    batch: BatchSize,
) -> Float[Tensor, "count"]:
    """s_c of `count` images that `build` makes slice by slice, so that only one batch of them exists at a time.

    Image i is scored on `regions[variant[i]]`. One model pass per image; float64 on the model's device.
    """

    def scores(part: slice) -> tuple[Tensor]:
        return (masked_mean_probability(model.logits(build(part)), regions[variant[part]], class_index),)

    return in_batches(count, scores, batch)[0]
