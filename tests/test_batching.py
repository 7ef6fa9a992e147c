"""Altered images in batches: their scores and order, the sizes of batches, and what happens when memory runs out."""

from math import ceil

import numpy as np
import pytest
import torch
from torch import Tensor

from rederived import bilinear, score
from segfaith.batching import BatchSize, batches, in_batches, score_images
from segfaith.incremental.scorers import PlainScorer
from segfaith.scores import Scalar
from toys import SmallCNN, plain


def test_images_are_scored_on_the_region(rng: np.random.Generator) -> None:
    """Coarse logits are upsampled bilinearly, and image i's score comes back as the i-th, whatever the batches."""
    size, module = (11, 14), SmallCNN(seed=3)
    images = torch.from_numpy(rng.random((5, 3, *size), dtype=np.float32))
    region = torch.zeros(size, dtype=torch.bool)
    region[2:9, 3:8] = True
    module.eval()
    with torch.no_grad():
        coarse = module(images)["out"].double().numpy()
    module.train()
    scorer = PlainScorer(plain(module), region, Scalar(2))
    got = score_images(scorer.score, lambda numbers: images[numbers], 5, BatchSize(2))
    boxes = (np.array([[9, 0], [0, 0], [5, 6], [0, 9], [3, 3]]), np.array([[11, 2], [4, 4], [6, 7], [11, 14], [5, 5]]))
    shuffled = score_images(scorer.score, lambda numbers: images[numbers], 5, BatchSize(2), boxes)
    torch.testing.assert_close(shuffled, got, rtol=0, atol=1e-6)
    for i in range(5):
        logits = np.stack([bilinear(channel, size) for channel in coarse[i]])
        assert got[i].item() == pytest.approx(score(logits, region.numpy(), 2), abs=1e-6)


@pytest.mark.parametrize(
    ("images", "sizes"), [(1, [1] * 20), (3, [3, 3, 3, 3, 3, 3, 2]), (8, [7, 7, 6]), (9, [7, 7, 6]), (64, [20])]
)
def test_batches_cover_every_image_once_in_order(images: int, sizes: list[int]) -> None:
    """In as few batches as can be, whose sizes differ by one at most."""
    seen: list[slice] = []

    def compute(part: slice) -> tuple[Tensor, Tensor]:
        seen.append(part)
        index = torch.arange(part.start, part.stop)
        return index, -index

    index, negative = in_batches(20, compute, BatchSize(images))
    assert index.tolist() == list(range(20))
    assert negative.tolist() == [-i for i in range(20)]
    assert [part.stop - part.start for part in seen] == sizes


def refusing(error: RuntimeError, above: int, calls: list[tuple[int, int]]):
    """A computation that has room for `above` images at most."""

    def compute(part: slice) -> tuple[Tensor]:
        calls.append((part.start, part.stop))
        if part.stop - part.start > above:
            raise error
        return (torch.arange(part.start, part.stop),)

    return compute


OUT_OF_MEMORY = {
    "cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    "cuda library": RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    "linux": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 36028797018963968 bytes."),
    "windows": RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 36028797018963968 bytes."),
}


@pytest.mark.parametrize("device", OUT_OF_MEMORY)
def test_out_of_memory_halves_the_batch_and_repeats_the_slice(device: str) -> None:
    calls: list[tuple[int, int]] = []
    batch = BatchSize(8)
    (got,) = in_batches(7, refusing(OUT_OF_MEMORY[device], 2, calls), batch)
    assert got.tolist() == list(range(7))
    assert calls == [(0, 7), (0, 3), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]
    assert batch.images == 1
    calls.clear()
    batch = BatchSize(8)
    assert in_batches(20, refusing(OUT_OF_MEMORY[device], 4, calls), batch)[0].tolist() == list(range(20))
    assert calls == [(0, 7), (0, 3), (3, 6), (6, 9), (9, 12), (12, 15), (15, 18), (18, 20)]
    assert batch.images == 3
    calls.clear()
    in_batches(7, refusing(OUT_OF_MEMORY[device], 4, calls), batch)  # the batch stays halved
    assert calls == [(0, 3), (3, 5), (5, 7)]


GB = 10**9


@pytest.mark.parametrize(("features", "images"), [(0, 16), (GB // 20, 49), (GB // 16, 41), (GB // 8, 20), (GB, 16)])
def test_where_nobody_asks_for_a_batch_size_small_features_give_large_batches(features: int, images: int) -> None:
    """As many images as have 2.6 GB of features in all layers, between 16 and 49."""
    sizes: list[int] = []

    def compute(part: slice) -> tuple[Tensor]:
        sizes.append(part.stop - part.start)
        return (torch.arange(part.start, part.stop),)

    cpu = torch.device("cpu")
    in_batches(196, compute, batches(None, None, cpu), features=features)
    assert sizes[0] == ceil(196 / ceil(196 / images))
    sizes.clear()
    in_batches(196, compute, batches(16, None, cpu), features=features)
    assert sizes[0] == ceil(196 / ceil(196 / 16)), "asked for"


def test_after_memory_ran_out_no_batch_is_larger() -> None:
    """Neither those of small features nor those whose features are not known."""
    calls: list[tuple[int, int]] = []
    batch = batches(None, None, torch.device("cpu"))
    for features in (GB // 20, GB // 20, 0):
        in_batches(32, refusing(OUT_OF_MEMORY["linux"], 24, calls), batch, features=features)
    assert calls == [(0, 32), (0, 16), (16, 32), (0, 16), (16, 32), (0, 16), (16, 32)]


@pytest.mark.parametrize("device", OUT_OF_MEMORY)
def test_a_single_image_that_does_not_fit_is_the_callers_error(device: str) -> None:
    calls: list[tuple[int, int]] = []
    with pytest.raises(RuntimeError, match="memory") as caught:
        in_batches(4, refusing(OUT_OF_MEMORY[device], 0, calls), BatchSize(4))
    assert caught.value is OUT_OF_MEMORY[device]
    assert calls == [(0, 4), (0, 2), (0, 1)]


def test_other_runtime_errors_are_not_swallowed() -> None:
    calls: list[tuple[int, int]] = []
    batch = BatchSize(4)
    with pytest.raises(RuntimeError, match="must match the size"):
        in_batches(4, refusing(RuntimeError("The size of tensor a must match the size of b"), 1, calls), batch)
    assert calls == [(0, 4)]
    assert batch.images == 4


def test_memory_that_runs_out_inside_the_model_changes_no_score(rng: np.random.Generator) -> None:
    class Tight(SmallCNN):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            if len(x) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x)

    images = torch.from_numpy(rng.random((10, 3, 14, 14), dtype=np.float32))
    region = torch.zeros(14, 14, dtype=torch.bool)
    region[3:9, 4:12] = True
    batch = BatchSize(10)
    tight = score_images(
        PlainScorer(plain(Tight()), region, Scalar(1)).score, lambda numbers: images[numbers], 10, batch
    )
    scorer = PlainScorer(plain(SmallCNN()), region, Scalar(1))
    roomy = score_images(scorer.score, lambda numbers: images[numbers], 10, BatchSize(10))
    assert batch.images == 2
    torch.testing.assert_close(tight, roomy, rtol=0, atol=1e-6)


def test_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="batch size must be at least 1, got 0"):
        BatchSize(0)
