"""On a GPU: the numbers of the CPU, the modes of NVIDIA's cards, memory, whole runs, and no waiting inside batches."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchvision.models import segmentation

import zoo
from drops import evidence, loop, single
from folder_runs import assert_same_records, content, make_project, run_records
from segfaith.attribution.explain import sample_rng
from segfaith.attribution.methods import DEFAULT_METHODS, resolve_method
from segfaith.batching import BatchSize, score_images
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.pool import Pool
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.runner import open_directory, run_shards
from segfaith.benchmark.settings import make_settings
from segfaith.benchmark.worker import evaluate_sample
from segfaith.evaluation.subject import Subject
from segfaith.evidence.intervention import bounding_boxes
from segfaith.evidence.regions import Regions
from segfaith.incremental.scorers import IncrementalScorer, PlainScorer, Precision
from segfaith.incremental.scoring import scorer_for
from segfaith.models import load_model
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import grid_partition, occluder
from segfaith.results.records.runs import load_run
from segfaith.scores import Scalar, sent
from segfaith.types import Target
from toys import SmallCNN, plain

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

from recorded import recorded

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda")
TORCHVISION = ("deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large")
SIZE, GRID, CLASSES, CLASS = (65, 97), 5, 4, 1


def made_scene(size: tuple[int, int], device: str | torch.device) -> tuple[Tensor, Tensor]:
    """Noise, and a rectangle as the target."""
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    region = torch.zeros(size, dtype=torch.bool)
    region[size[0] // 3 : size[0] * 3 // 4, size[1] // 4 : size[1] // 2] = True
    return image.to(device), region.to(device)


def torchvision_model(name: str) -> SegmentationModel:
    """Random weights, drawn statistics, and a head whose logits vary over the image by about one."""
    draw = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=CLASSES).eval()
    for one in module.modules():
        if isinstance(one, nn.BatchNorm2d):
            one.running_mean.normal_(0, 0.1, generator=draw)
            one.running_var.uniform_(0.5, 2, generator=draw)
    with torch.no_grad():
        spread = module(made_scene(SIZE, "cpu")[0][None])["out"].std((2, 3)).mean()
        for one in module.modules():
            if isinstance(one, nn.Conv2d) and one.out_channels == CLASSES:
                one.weight /= spread
    return plain(module).to(DEVICE)


@pytest.fixture
def scene() -> tuple[Tensor, Tensor]:
    """Image and target on the GPU."""
    return made_scene(SIZE, DEVICE)


@pytest.mark.parametrize("name", [*zoo.TRACED, *TORCHVISION])
def test_drops_are_those_of_the_loop(name: str, scene: tuple[Tensor, Tensor]) -> None:
    model = torchvision_model(name) if name in TORCHVISION else plain(zoo.randomised(zoo.TRACED[name]())).to(DEVICE)
    assert type(scorer_for(model, *scene, Scalar(CLASS), expected=single(model, *scene, CLASS))) is IncrementalScorer
    expected = loop(model, *scene, CLASS, GRID)
    assert np.abs(expected).max() > 1e-4
    np.testing.assert_allclose(evidence(model, *scene, CLASS, Regions(GRID)), expected, rtol=0, atol=1e-5)


def test_recorded_windows_give_the_same_drops(scene: tuple[Tensor, Tensor]) -> None:
    """The benchmark's way "windows as CUDA graphs", when it records and when it repeats."""
    model = torchvision_model(TORCHVISION[2])
    expected = evidence(model, *scene, CLASS, Regions(grid=GRID))
    with recorded(DEVICE):
        for _ in range(2):
            assert np.abs(evidence(model, *scene, CLASS, Regions(grid=GRID)) - expected).max() < 1e-6


def test_a_model_moves_to_the_gpu_and_back() -> None:
    """Its scorer on the CPU is made anew: the graph of the other device is not used."""
    model, (image, region) = plain(SmallCNN(), layer="backbone"), made_scene(SIZE, "cpu")
    before = evidence(model, image, region, CLASS, Regions(GRID))
    assert np.abs(before).max() > 1e-3
    assert model.to(DEVICE).device.type == "cuda"
    there = evidence(model, image.to(DEVICE), region.to(DEVICE), CLASS, Regions(GRID))
    assert model.to("cpu").device.type == "cpu"
    again = evidence(model, image, region, CLASS, Regions(GRID))
    np.testing.assert_allclose(there, before, rtol=0, atol=1e-5)
    np.testing.assert_allclose(again, before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "auto"])
def test_models_are_loaded_onto_the_gpu(device: str) -> None:
    model = load_model("scenes", device=device)
    assert model.device.type == "cuda"
    assert {one.device.type for one in model.module.state_dict().values()} == {"cuda"}


@pytest.mark.parametrize("name", TORCHVISION)
def test_drops_are_those_of_the_cpu(name: str, scene: tuple[Tensor, Tensor]) -> None:
    model = torchvision_model(name)
    there = evidence(model, *scene, CLASS, Regions(GRID))
    here = evidence(model.to("cpu"), *made_scene(SIZE, "cpu"), CLASS, Regions(GRID))
    np.testing.assert_allclose(there, here, rtol=0, atol=2e-5)  # each is within 1e-5 of its own device's loop


def test_adaptive_regions_are_those_of_the_cpu(scene: tuple[Tensor, Tensor]) -> None:
    """The same cells are refined, and each drop is the same."""
    regions = Regions(8, kind="adaptive", passes=30)
    model = plain(SmallCNN(), layer="backbone")
    here = evidence(model, *made_scene(SIZE, "cpu"), CLASS, regions)
    there = evidence(model.to(DEVICE), *scene, CLASS, regions)
    assert np.abs(here).max() > 1e-3
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-5)


def test_a_batch_that_does_not_fit_is_halved(scene: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image takes a fourth of the free memory: for 13 and for 5 images it is too small, 2 fit."""
    model, (image, region) = plain(Hungry(), layer="backbone").to(DEVICE), scene
    expected = loop(model, image, region, CLASS, GRID)
    cells, occlude = grid_partition(SIZE, GRID).to(DEVICE), occluder("mean", image, np.random.default_rng(0))
    batch = BatchSize(16)
    torch.cuda.empty_cache()
    with monkeypatch.context() as patch:
        patch.setattr(Hungry, "bytes_an_image", torch.cuda.mem_get_info()[0] // 4)
        scores = score_images(
            PlainScorer(model, region, Scalar(CLASS)).score,
            lambda numbers: occlude(cells == sent(numbers, DEVICE)[:, None, None]),
            GRID * GRID,
            batch,
        )
    torch.cuda.empty_cache()
    assert batch.images == 2, "it was halved until it fitted, and stays so"
    drops = single(model, image, region, CLASS) - scores.cpu().numpy()
    np.testing.assert_allclose(drops, expected, rtol=0, atol=1e-5)


class Hungry(SmallCNN):
    """Allocates so much memory for each image of a batch."""

    bytes_an_image = 0

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        if self.bytes_an_image:
            torch.empty(len(x) * self.bytes_an_image, dtype=torch.uint8, device=x.device)
        return super().forward(x)


def test_a_run_on_the_gpu_records_what_one_on_the_cpu_does(tmp_path: Path) -> None:
    root = make_project(tmp_path / "project", samples=2)
    evaluation = {"stability": True}
    here = run_records(root, tmp_path / "cpu", evaluation=evaluation, execution={"device": "cpu"})
    there = run_records(root, tmp_path / "gpu", evaluation=evaluation, execution={"device": "cuda"})
    assert set(there["status"]) == {"ok"}
    assert set(there["path"].dropna()) == {"incremental"}
    keys = ["sample_id", "method"]
    assert there[keys].equals(here[keys])
    for metric in ("s", "tdd", "insertion_gain", "stability"):
        np.testing.assert_allclose(there[metric], here[metric], atol=1e-3, err_msg=metric)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_the_pool_uses_every_gpu(tmp_path: Path) -> None:
    """Each worker has a GPU of its own, and together they measure what one process does."""
    pytest.importorskip("ray")
    root = make_project(tmp_path / "project", samples=4)
    prepared = prepare(make_settings(content(root, execution={"device": "cuda", "shard_size": 1})))
    todo = open_directory(tmp_path / "together", prepared)
    with Pool() as pool:
        count, cores = pool.places(1, gpu=True)
        assert count == torch.cuda.device_count()
        pool.hire(2, cores, gpu=True)
        run_shards(prepared, tmp_path / "together", todo, lambda sample_id: None, pool.measure)
        assert len({hand.name for hand in pool.hands}) == 2
    alone = run_records(root, tmp_path / "alone", execution={"device": "cuda", "shard_size": 1})
    assert_same_records(alone, load_run(tmp_path / "together").records, derived=1e-4)


def test_a_sample_measures_what_it_does_on_the_cpu() -> None:
    """Every method, with stability, on adaptive regions too."""
    adaptive = ("ria@regions=adaptive", "dea@regions=adaptive,refine=gradient")
    methods = [resolve_method(name, {}) for name in (*DEFAULT_METHODS, *adaptive)]
    records = []
    for device in ("cpu", DEVICE):
        model = plain(SmallCNN(), layer="backbone").to(device)
        image, region = made_scene((56, 56), device)
        settings, batch = EvaluationSettings(), BatchSize(16)
        subject = Subject(model, "one", image, Target(CLASS, region), 0, batch)
        result = evaluate_sample(subject, methods, settings)
        records.append(result.records)
    for here, there in zip(*records, strict=True):
        for row in (here, there):
            assert row["status"] == "ok", row["reason"]
        for metric in ("s", "tdd", "odd", "insertion_gain", "stability", "target_iou"):
            assert np.isfinite(here[metric]), f"{here['method']} {metric}"
            np.testing.assert_allclose(there[metric], here[metric], atol=1e-3, err_msg=f"{here['method']} {metric}")


@pytest.mark.parametrize("precision", ["tf32", "bf16"])
def test_fast_precisions_stay_near_and_leave_the_process_as_it_was(
    precision: Precision, scene: tuple[Tensor, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    if precision == "tf32" and torch.cuda.get_device_capability()[0] < 8:
        pytest.skip("this card has no TF32")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    model = torchvision_model("deeplabv3_resnet50")

    def flags() -> tuple[bool, bool, bool]:
        cudnn = torch.backends.cudnn
        return torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic

    before = flags()
    exact, fast = (evidence(model, *scene, CLASS, Regions(GRID, precision=mode)) for mode in ("fp32", precision))
    assert flags() == before
    assert not np.array_equal(exact, fast), "the mode changed nothing"
    assert np.abs(fast - exact).max() < 0.1 * np.abs(exact).max()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", TORCHVISION)
def test_nothing_waits_for_the_gpu_inside_a_batch(
    name: str, precision: Precision, scene: tuple[Tensor, Tensor]
) -> None:
    """Once the image's clean features are there, occluding and scoring only queue work."""
    model, (image, region) = torchvision_model(name), scene
    partition = grid_partition((image.shape[1], image.shape[2]), GRID)
    boxes, cells = bounding_boxes(partition, GRID * GRID), partition.to(DEVICE)
    occlude = occluder("mean", image, np.random.default_rng(0))
    scorer = scorer_for(model, image, region, Scalar(CLASS), precision)
    assert type(scorer) is IncrementalScorer

    def run() -> Tensor:
        scores = []
        for part in (slice(0, 13), slice(13, 25)):
            numbers = torch.arange(GRID * GRID)[part]
            images = occlude(cells == sent(numbers, DEVICE)[:, None, None])
            scores += [scorer.score(images, (boxes[0][part], boxes[1][part])), scorer.score(images)]
        return torch.cat(scores)

    expected = run()  # the first pass prepares what is kept
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-6)


def test_generators_do_not_depend_on_the_device(scene: tuple[Tensor, Tensor]) -> None:
    """Noise is drawn on the CPU, so that a run on a GPU occludes with the same values."""
    image, region = scene
    for operator in ("noise", "road", "blur"):
        here = occluder(operator, image, sample_rng(0, "one")("x"))(region[None]).cpu()
        there = occluder(operator, image.cpu(), sample_rng(0, "one")("x"))(region[None].cpu())
        torch.testing.assert_close(here, there, rtol=0, atol=1e-5)
