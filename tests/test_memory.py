"""Memory: what 200 explanations leave behind, and that evaluations keep no tensors and no hooks."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

import segfaith
from segfaith.batching import BatchSize, score_images
from segfaith.incremental import scoring
from toys import SmallCNN, plain

EXPLAIN_200 = """
import gc
import sys
from pathlib import Path

import torch

import segfaith

torch.set_num_threads(1)
weights = Path(sys.argv[1])
model = segfaith.load_model(
    f"{weights / 'deeplab_mnv2.py'}:build",
    args={"width_mult": 0.5},
    weights=weights / "deeplabv3_mnv2_w0.5_voc21.pth",
    layer="backbone.17",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    classes="voc",
)
region = torch.zeros(48, 48, dtype=torch.bool)
region[12:36, 12:36] = True
draw = torch.Generator().manual_seed(0)


def resident():
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def explain(times):
    for _ in range(times):
        image = torch.rand(3, 48, 48, generator=draw)
        maps = segfaith.explain(
            model, image, segfaith.Target(12, region), ["gpa", "ega", "ria@grid=2", "dea@grid=2"], batch_size=4
        )
        assert len(maps) == 4


explain(20)
before = resident()
explain(200)
print(resident() - before)
"""


@pytest.mark.realdata
def test_200_explanations_of_the_trained_model_grow_by_less_than_20_mb(shared: Path) -> None:
    """Resident memory in a process of its own, after a warm-up of 20."""
    done = subprocess.run(
        [sys.executable, "-c", EXPLAIN_200, str(shared / "weights")],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 20, f"{done.stdout.strip()} MB"


def live_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(one), torch.Tensor) for one in gc.get_objects())


def hooks(module: torch.nn.Module) -> int:
    return sum(
        len(one._forward_hooks) + len(one._forward_pre_hooks) + len(one._backward_hooks) for one in module.modules()
    )


def test_evaluations_keep_no_tensors_and_no_hooks() -> None:
    """No more tensors are alive after five evaluations than after three."""
    model = plain(SmallCNN(), layer="backbone.4")
    region = torch.zeros(28, 28, dtype=torch.bool)
    region[8:20, 8:20] = True
    target = segfaith.Target(1, region)
    counts = []
    for index in range(5):
        image = torch.rand(3, 28, 28, generator=torch.Generator().manual_seed(index))
        segfaith.evaluate(model, image, target, ["gpa", "ega", "ria@grid=3", "dea@grid=3", "random"], stability=True)
        del image
        if index in (2, 4):
            counts.append(live_tensors())
    assert counts[1] <= counts[0]
    held = [torch.zeros(2), torch.zeros(3)]
    assert live_tensors() == counts[1] + len(held), "the count sees what is kept"
    assert hooks(model.module) == 0


@pytest.mark.parametrize("given", [{}, {"pad": 16}, {"tile": 40, "overlap": 8}], ids=["plain", "pad", "tile"])
def test_images_of_ever_new_sizes_keep_no_tensors(given: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """36 images: no more tensors are alive after the last than after the 24th, and checks of few sizes are kept.

    What a graph keeps for each size holds no tensors, and at most `SIZES` sizes, here 8.
    """
    monkeypatch.setattr(scoring, "SIZES", 8)
    model = segfaith.wrap(SmallCNN(), layer="backbone.4", **given)
    counts = []
    for index in range(36):
        height, width = 20 + 7 * index % 31, 20 + 5 * index % 29
        image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(index))
        region = torch.zeros(height, width, dtype=torch.bool)
        region[5:15, 4:18] = True
        call = segfaith.explain if index % 3 else segfaith.evaluate
        call(model, image, segfaith.Target(1, region), ["ega", "ria@grid=2"], batch_size=4)
        del image, region
        if index in (23, 35):
            counts.append(live_tensors())
    assert counts[1] <= counts[0]
    if "tile" in given:
        assert model not in scoring._TRACED
        return
    traced = scoring._TRACED[model]
    assert traced.graph is not None
    assert len(traced.verdicts) == (6 if given else 8)
    assert set(traced.graph.shapes) <= set(traced.verdicts)


def test_no_more_than_a_batch_of_images_is_alive() -> None:
    """Of 37 altered images, in batches of 4."""
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0

    def build(numbers: torch.Tensor) -> torch.Tensor:
        images = torch.rand(len(numbers), 3, 8, 8)
        alive.append(weakref.ref(images))
        return images

    def score(images: torch.Tensor, boxes: object) -> torch.Tensor:
        nonlocal most
        most = max(most, sum(len(batch) for reference in alive if (batch := reference()) is not None))
        return images.double().mean((1, 2, 3))

    assert len(score_images(score, build, 37, BatchSize(4))) == 37
    assert most == 4


def test_an_explanation_that_fails_keeps_no_hook_and_no_image() -> None:
    """The class does not exist: the error comes after the forward pass, inside the gradient's hook."""
    model = plain(SmallCNN(), layer="backbone.4")
    image = torch.rand(3, 28, 28)
    watched = weakref.ref(image)
    region = torch.ones(28, 28, dtype=torch.bool)
    with pytest.raises(segfaith.SampleError, match="class index 7"):
        segfaith.explain(model, image, segfaith.Target(7, region), ["gpa"])
    assert hooks(model.module) == 0
    assert torch.is_grad_enabled()
    del image
    gc.collect()
    assert watched() is None
