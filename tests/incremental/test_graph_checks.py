"""Where a graph may score in place of the model: what memory does to operations, and how graphs are checked."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from test_incremental import TIGHT, check_exact_on, photograph, scattered_images, target
from torch import Tensor, nn
from torch.nn import functional as F

import zoo
from drops import single
from segfaith import Target, evaluate
from segfaith.incremental import graph as graph_module
from segfaith.incremental import scoring
from segfaith.incremental.graph import CHANNELS_LAST, Graph, Plan
from segfaith.incremental.scorers import IncrementalScorer, PlainScorer
from segfaith.incremental.scoring import graph_of, scorer_for
from segfaith.models.segmentation import SegmentationModel, wrap
from toys import plain

# What memory does to operations


def weights(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(3).normal(0, 0.1, shape)).float()


MODULES: dict[Any, tuple[Any, ...]] = {
    nn.AdaptiveAvgPool2d: (1,), nn.AvgPool2d: (3,), nn.BatchNorm2d: (32,), nn.Conv2d: (32, 32, 3),
    nn.ConvTranspose2d: (32, 32, 2), nn.MaxPool2d: (3,), nn.Upsample: (None, 2, "bilinear"),
    nn.UpsamplingBilinear2d: (None, 2), nn.ZeroPad2d: (1,),
}  # fmt: skip
FUNCTIONS: dict[Any, Callable[[Tensor], Tensor]] = {
    F.adaptive_avg_pool2d: lambda x: F.adaptive_avg_pool2d(x, 3),
    F.avg_pool2d: lambda x: F.avg_pool2d(x, 3),
    F.batch_norm: lambda x: F.batch_norm(x, torch.full((32,), 0.3, dtype=x.dtype), torch.ones(32, dtype=x.dtype)),
    F.conv2d: lambda x: F.conv2d(x, weights(32, 32, 3, 3).to(x.dtype)),
    F.interpolate: lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    F.pad: lambda x: F.pad(x, (1, 2, 3, 4)),
    operator.getitem: lambda x: x[:, 1:],
    operator.sub: lambda x: x - 0.3,
    torch.cat: lambda x: torch.cat([x, x], 1),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "permute": lambda x: x.permute(0, 2, 3, 1),
}
SIZES_ONLY: set[Any] = {getattr, "size"}


def called(name: Any) -> str:
    """Of a module, function or method, the same in every process."""
    return name if isinstance(name, str) else f"{getattr(name, '__module__', '')}.{name.__name__}"


@pytest.mark.parametrize("name", sorted(CHANNELS_LAST - SIZES_ONLY, key=called), ids=called)
def test_an_operation_that_may_run_channels_last_loses_nothing_by_it(name: Any) -> None:
    """Against float64, on noise, and on maps that are constant, nearly constant or far from zero."""
    draw = torch.Generator().manual_seed(0)
    noise, level = torch.randn(2, 32, 48, 48, generator=draw), torch.linspace(0.5, 2, 32)[:, None, None]
    if isinstance(name, type):
        module = name(*MODULES.get(name, ())).eval()

        def run(x: Tensor) -> Tensor:
            return module.to(x.dtype)(x)
    else:
        two = name in graph_module.JOINING_FUNCTIONS - {operator.sub}
        run = FUNCTIONS.get(name) or ((lambda x: name(x, x)) if two else name)
    for x in (noise, level.expand_as(noise), level + 1e-4 * noise, 100 + noise):
        right = run(x.double())
        ordered, own = (
            float((run(x.contiguous(memory_format=memory)).double() - right).detach().abs().max())
            for memory in (torch.channels_last, torch.contiguous_format)
        )
        assert ordered <= 3 * own + 2e-6 * float(right.detach().abs().max())


def scores(model: SegmentationModel, image: Tensor, region: Tensor) -> Any:
    """Of a map and of a control."""
    heatmap = np.random.default_rng(0).random(image.shape[1:])
    return evaluate(model, image, Target(1, region), {"map": heatmap})


def test_group_norms_score_as_the_model_itself() -> None:
    """Insertion starts from a constant image, on which a group norm with channels last loses most of its digits."""
    model, size = plain(zoo.randomised(zoo.group_normed())), (128, 128)
    image, region = photograph(size), target(size, "patch")
    fast = scores(model, image, region)
    assert set(fast["path"]) == {"incremental"}
    model.incremental = False
    slow = scores(model, image, region)
    assert slow["insertion_gain"].abs().max() > 3e-4
    for name in ("s", "s_baseline", "s_inserted", "s_target_deleted", "insertion_gain", "tdd"):
        np.testing.assert_allclose(fast[name], slow[name], rtol=0, atol=1e-6, err_msg=name)


# How graphs are checked


def of_two_sizes() -> nn.Module:
    """Another branch for large images, which a graph holds only one of."""

    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.head(y * 0.2 if x.shape[2] > 30 else y)

    return zoo.Of(forward, stem=zoo.unit(3, 8, stride=2), head=zoo.head())


@pytest.mark.parametrize("sizes", [((24, 24), (40, 24)), ((40, 24), (24, 24))], ids=str)
def test_a_graph_that_holds_for_one_size_is_refused_at_another_and_stays_in_use(sizes: Any) -> None:
    model = plain(zoo.randomised(of_two_sizes()))
    for size, right in zip((*sizes, sizes[0]), (True, False, True), strict=True):
        image, region = photograph(size), target(size, "patch")
        scorer = scorer_for(model, image, region, 1)
        words = f"plain: its graph scores noise otherwise than the model itself at {size[0]} x {size[1]}: scores differ"
        assert scorer.path.startswith("incremental" if right else words)
        assert check_exact_on(model, image, region, 1, 4) > 1e-3


def test_a_size_that_the_model_refuses_costs_the_others_nothing() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if x.shape[2] % 8 != 0:
            raise RuntimeError("height must be divisible by 8")
        return self.head(self.stem(x))

    model = plain(zoo.randomised(zoo.Of(forward, stem=zoo.unit(3, 8, stride=2), head=zoo.head())))
    refused = scorer_for(model, photograph((20, 24)), target((20, 24), "patch"), 1)
    assert refused.path == "plain: RuntimeError: height must be divisible by 8"
    assert scorer_for(model, photograph((24, 24)), target((24, 24), "patch"), 1).path == "incremental"
    with pytest.raises(RuntimeError, match="height must be divisible by 8"):
        refused.score(photograph((20, 24))[None])


def test_a_graph_that_errs_on_flat_images_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Graph.call

    def call(self: Graph, node: Any, args: Any, kwargs: Any) -> Any:
        result = real(self, node, args, kwargs)
        flat = self.kind(node) is nn.GroupNorm and bool((args[0].std((2, 3)) < 5e-3).all())
        return result + 0.01 if flat else result

    module = nn.Sequential(zoo.conv(3, 8, 1), nn.GroupNorm(2, 8), nn.ReLU(), zoo.head())
    model, size = plain(zoo.randomised(module)), (24, 24)
    assert scorer_for(model, photograph(size), target(size, "patch"), 1).path == "incremental"
    monkeypatch.setattr(Graph, "call", call)
    model = plain(zoo.randomised(module))
    words = "plain: its graph scores a constant image otherwise than the model itself at 24 x 24: scores differ"
    assert scorer_for(model, photograph(size), target(size, "patch"), 1).path.startswith(words)


def test_a_graph_that_errs_on_parts_of_the_image_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Plan.evaluate

    def evaluated(self: Plan, *arguments: Any) -> Tensor:
        result = real(self, *arguments)
        if result.shape[2] < 20:
            result[:, 0] += 0.01
        return result

    monkeypatch.setattr(Plan, "evaluate", evaluated)
    model, size = plain(zoo.randomised(zoo.odd_kernels())), (32, 32)
    assert type(scorer_for(model, photograph(size), target(size, "patch"), 1)) is PlainScorer


def cancelling() -> nn.Module:
    """Large features whose sums nearly cancel in the logits, as those of deep networks may: rounding grows."""
    stem, head = zoo.conv(3, 64), zoo.conv(64, 4, padding=0, gain=4.0)
    module = zoo.randomised(nn.Sequential(stem, nn.ReLU(), head))
    with torch.no_grad():
        assert stem.bias is not None
        assert head.bias is not None
        stem.bias += 10
        head.bias -= module(photograph((40, 40))[None]).mean((0, 2, 3))
    return module


def test_rounding_that_the_memorys_order_alone_makes_costs_no_model_its_graph() -> None:
    model, size = plain(cancelling()), (40, 40)
    image, region = photograph(size), target(size, "patch")
    own = model.logits(image[None]).detach()
    ordered = model.logits(image[None].contiguous(memory_format=torch.channels_last)).detach()
    assert float((ordered - own).abs().max()) > 2e-5 * max(1.0, float(own.abs().max()))
    scorer = scorer_for(model, image, region, 1, expected=single(model, image, region, 1))
    assert scorer.path == "incremental"
    altered = scattered_images(image)
    expected = [single(model, one, region, 1) for one in altered]
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(scorer.score(altered).numpy(), expected, rtol=0, atol=scoring.TOLERANCE)


def test_logits_further_off_than_rounding_are_refused_even_where_scores_hardly_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One pixel of the logits is off, which a mean over the target hides."""
    real = IncrementalScorer.logits

    def logits(self: IncrementalScorer, *arguments: Any) -> Tensor:
        result = real(self, *arguments)
        result[:, :, 0, 0] += torch.linspace(0, 1e-3, result.shape[1])
        return result

    monkeypatch.setattr(IncrementalScorer, "logits", logits)
    model, size = plain(zoo.randomised(zoo.plain_cnn())), (40, 40)
    words = "plain: its graph scores noise otherwise than the model itself at 40 x 40: logits differ by 1e-03"
    assert scorer_for(model, photograph(size), target(size, "patch"), 1).path.startswith(words)


def test_a_baseline_that_the_graph_scores_otherwise_is_found_on_each_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the graph has passed its checks, and the image itself is right."""
    real = IncrementalScorer.score

    def score(self: IncrementalScorer, images: Tensor, boxes: Any = None) -> Tensor:
        return real(self, images, boxes) + 1e-3 * (images.std((2, 3)).amax(1) < 1e-4)

    model, size = plain(zoo.randomised(zoo.plain_cnn())), (24, 24)
    image, region = photograph(size), target(size, "patch")
    expected = scores(model, image, region)
    assert set(expected["path"]) == {"incremental"}
    monkeypatch.setattr(IncrementalScorer, "score", score)
    found = scores(model, image, region)
    assert set(found["path"]) == {"plain: its graph scores the baseline of mean otherwise than the model itself"}
    np.testing.assert_allclose(found["insertion_gain"], expected["insertion_gain"], rtol=0, atol=TIGHT)


def test_verdicts_of_many_sizes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "SIZES", 2)
    model = plain(zoo.randomised(zoo.plain_cnn()))
    for width in (16, 18, 20, 22):
        graph = graph_of(model, photograph((16, width)))
    assert isinstance(graph, Graph)
    assert [tuple(size) for size in graph.shapes] == [(16, 20), (16, 22)]
    assert list(scoring._TRACED[model].verdicts) == list(graph.shapes)


def test_a_library_model_that_checks_its_inputs_size_is_traced() -> None:
    """segmentation_models.pytorch asks whether 32 divides the image's size; the model itself goes on asking."""
    module = zoo.randomised(smp.FPN("resnet18", encoder_weights=None, classes=4)).eval()
    model, size = wrap(module), (64, 64)
    image, region = photograph(size), target(size, "patch")
    scorer, altered = scorer_for(model, image, region, 1), scattered_images(image)
    assert scorer.path == "incremental"
    expected = [single(model, one, region, 1) for one in altered]
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(scorer.score(altered).numpy(), expected, rtol=0, atol=TIGHT)
    with pytest.raises(RuntimeError, match="Expected image height and width divisible by 32"):
        scorer_for(model, photograph((64, 60)), target((64, 60), "patch"), 1).score(photograph((64, 60))[None])
