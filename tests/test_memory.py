"""Memory: what 200 explanations leave behind, and that evaluations keep no tensors and no hooks."""

import gc
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch

import segfaith
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
    """No more tensors are alive after ten evaluations than after five."""
    model = plain(SmallCNN(), layer="backbone.4")
    region = torch.zeros(28, 28, dtype=torch.bool)
    region[8:20, 8:20] = True
    target = segfaith.Target(1, region)
    counts = []
    for index in range(10):
        image = torch.rand(3, 28, 28, generator=torch.Generator().manual_seed(index))
        segfaith.evaluate(model, image, target, ["gpa", "ega", "ria@grid=3", "dea@grid=3", "random"], stability=True)
        del image
        if index in (4, 9):
            counts.append(live_tensors())
    assert counts[1] <= counts[0]
    held = [torch.zeros(2), torch.zeros(3)]
    assert live_tensors() == counts[1] + len(held), "the count sees what is kept"
    assert hooks(model.module) == 0


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
