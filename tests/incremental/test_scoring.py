"""Which scorer is chosen, how graphs are checked, and that they follow the user's module and leave it alone."""

import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from drops import evidence, single
from exactness import TIGHT, check_exact, check_exact_on, evaluated, photograph, scattered_images, target
from segfaith.batching import BatchSize, score_images
from segfaith.errors import SampleError, SettingsError
from segfaith.evidence.regions import Regions
from segfaith.incremental import scoring
from segfaith.incremental.graph import Graph
from segfaith.incremental.scorers import IncrementalScorer, PlainScorer, Precision
from segfaith.incremental.scoring import graph_of, scorer_for
from segfaith.incremental.window_plan import WindowPlan
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import Scalar
from toys import plain


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("expected", [0.9, math.nan])
def test_an_image_that_the_graph_scores_otherwise_is_left_to_the_model_or_refused(
    precision: Precision, expected: float
) -> None:
    model = plain(zoo.randomised(zoo.plain_cnn()))
    image, region = photograph((16, 16)), target((16, 16), "patch")
    if precision == "fp32":
        assert type(scorer_for(model, image, region, Scalar(1), expected=expected)) is PlainScorer
    else:
        with pytest.raises(SettingsError, match="its graph scores this image otherwise than the model itself"):
            scorer_for(model, image, region, Scalar(1), precision, expected=expected)


def with_slope() -> nn.Module:
    """Weights are multiples of 1/64, so that their sums are exact in any order."""
    module = zoo.randomised(nn.Sequential(zoo.unit(3, 8, stride=2), zoo.conv(8, 8), nn.LeakyReLU(0.1), zoo.head()))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_((parameter * 64).round() / 64)
    return module


def in_place(module: Any) -> None:
    with torch.no_grad():
        module[1].weight.mul_(-0.7)


def through_data(module: Any) -> None:
    module[3].weight.data = module[3].weight.data * 1.5 + 0.1


def inside_data(module: Any) -> None:
    module[3].weight.data[1] *= -2


def loaded(module: Any) -> None:
    module.load_state_dict(zoo.randomised(with_slope(), 7).state_dict())


def submodule_of_another_kind(module: Any) -> None:
    module[2] = nn.Tanh()


def submodule_of_another_slope(module: Any) -> None:
    module[2] = nn.LeakyReLU(0.9)


def running_statistics(module: Any) -> None:
    module[0][1].running_mean += 0.4


def classes_swapped(module: Any) -> None:
    """The sum over each tensor stays what it was."""
    with torch.no_grad():
        module[3].bias.copy_(module[3].bias[[1, 2, 3, 0]])


def kernels_mirrored(module: Any) -> None:
    with torch.no_grad():
        module[1].weight.copy_(module[1].weight.flip(-1))


def another_dilation(module: Any) -> None:
    module[1].dilation, module[1].padding = (3, 3), (3, 3)


def a_hook(module: Any) -> None:
    module[1].register_forward_hook(lambda module, inputs, output: output * 0.3)


@pytest.mark.parametrize(
    "change",
    [
        in_place, through_data, inside_data, loaded, submodule_of_another_kind, submodule_of_another_slope,
        running_statistics, classes_swapped, kernels_mirrored, another_dilation, a_hook,
    ],
    ids=lambda change: change.__name__,
)  # fmt: skip
def test_scores_follow_a_module_that_changes_after_its_first_use(change: Callable[[Any], None]) -> None:
    module, size = with_slope(), (24, 24)
    model = plain(module)
    image, region = photograph(size), target(size, "patch")
    before = scorer_for(model, image, region, Scalar(1))
    assert isinstance(before, IncrementalScorer)
    altered = scattered_images(image)
    old = before.score(altered).numpy()
    change(module)
    expected = np.array([single(model, one, region, 1) for one in altered])
    assert np.abs(expected - old).max() > 1e-3
    np.testing.assert_allclose(
        scorer_for(model, image, region, Scalar(1)).score(altered).numpy(), expected, rtol=0, atol=TIGHT
    )


def test_two_biases_that_swap_beside_millions_of_weights_are_noticed() -> None:
    module = zoo.randomised(zoo.Of(lambda self, x: self.net(x), net=zoo.plain_cnn(), ballast=nn.Linear(2000, 2000)))
    model, size = plain(module), (24, 24)
    image, region = photograph(size), target(size, "patch")
    scorer_for(model, image, region, Scalar(1))
    bias: Tensor = list(module.net.children())[-1].bias  # type: ignore[union-attr, operator, assignment]
    with torch.no_grad():
        bias[:2] = bias[:2].flip(0)
    assert check_exact(model, size, "patch", IncrementalScorer) > 1e-3


def test_other_normalisation_is_followed() -> None:
    model, size = plain(zoo.randomised(zoo.plain_cnn())), (24, 24)
    image, region = photograph(size), target(size, "patch")
    scorer_for(model, image, region, Scalar(1)).score(image[None])
    model.mean, model.std = (0.2, 0.5, 0.4), (0.3, 0.2, 0.5)
    assert check_exact(model, size, "patch", IncrementalScorer) > 1e-3


def description(module: nn.Module) -> dict[str, Any]:
    """All of a module that a user could miss."""
    return {
        name: (
            id(one),
            type(one),
            one.training,
            getattr(one, "inplace", None),
            [len(hooks) for key, hooks in vars(one).items() if key.endswith("_hooks")],
            sorted(one.__dict__),
        )
        for name, one in module.named_modules()
    } | {
        f"tensor {name}": (id(one), one.requires_grad, one.stride(), one.data_ptr(), one.detach().numpy().tobytes())
        for name, one in [*module.named_parameters(), *module.named_buffers()]
    }


@pytest.mark.parametrize("name", ["residual", "aspp", "dilated", "data_dependent", "hooked"])
def test_the_module_comes_back_as_it_was(name: str) -> None:
    """In training mode with one frozen submodule, as a user might be in the middle of something."""
    module = zoo.randomised((zoo.TRACED | zoo.UNTRACED)[name]())
    children = list(module.children())
    module.train()
    children[0].eval()
    for parameter in children[-1].parameters():
        parameter.requires_grad_(False)
    model = plain(module)
    before = description(module)
    evidence(model, photograph((24, 24)), target((24, 24), "patch"), 1, Regions(3))
    assert description(module) == before
    assert all(parameter.grad is None for parameter in module.parameters())


def test_a_model_that_is_let_go_leaves_no_graph_behind() -> None:
    model = plain(zoo.randomised(zoo.plain_cnn()))
    scorer_for(model, photograph((16, 16)), target((16, 16), "patch"), Scalar(1))
    seen = weakref.ref(model)
    del model
    gc.collect()
    assert seen() is None


def test_bad_logits_are_the_samples_error_and_stop_no_other_sample() -> None:
    """A graph is judged by an image with NaN as by any other."""
    model, size = plain(zoo.randomised(zoo.plain_cnn())), (24, 24)
    image, region = photograph(size), target(size, "patch")
    broken = image.clone()
    broken[:, 20, 20] = torch.nan
    scorer = scorer_for(model, broken, region, Scalar(1))
    with pytest.raises(SampleError, match="NaN or infinite"):
        score_images(scorer.score, lambda numbers: broken.expand(len(numbers), -1, -1, -1), 2, BatchSize(2))
    with pytest.raises(SampleError, match="class index 4 is not one of the model's 4 classes"):
        scorer_for(model, image, region, Scalar(4))
    assert check_exact(model, size, "patch", IncrementalScorer) > 1e-3


@pytest.mark.parametrize("how", ["untraceable", "not incremental", "compiled"])
def test_bf16_is_refused_where_no_graph_is_at_hand(how: str) -> None:
    model = plain(zoo.randomised(zoo.data_dependent() if how == "untraceable" else zoo.plain_cnn()))
    model.incremental, model.compile = how != "not incremental", how == "compiled"
    image, region = photograph((16, 16)), target((16, 16), "patch")
    with pytest.raises(SettingsError, match=r"precision 'bf16' needs incremental = true, compile = false and a model"):
        scorer_for(model, image, region, Scalar(1), "bf16")


def test_tf32_is_refused_on_the_cpu() -> None:
    model = plain(zoo.randomised(zoo.plain_cnn()))
    with pytest.raises(SettingsError, match="'tf32' is a mode of NVIDIA GPUs; on the CPU use 'fp32' or 'bf16'"):
        scorer_for(model, photograph((16, 16)), target((16, 16), "patch"), Scalar(1), "tf32")


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
        scorer = scorer_for(model, image, region, Scalar(1))
        words = f"plain: its graph scores noise otherwise than the model itself at {size[0]} x {size[1]}: scores differ"
        assert scorer.path.startswith("incremental" if right else words)
        assert check_exact_on(model, image, region, 1, 4) > 1e-3


def test_hooks_are_told_in_words_and_by_whose_they_are() -> None:
    scorer = scorer_for(plain(zoo.randomised(zoo.hooked())), photograph((24, 24)), target((24, 24), "patch"), Scalar(1))
    assert scorer.path == (
        "plain: its parts have forward hooks of zoo, which would not run in a graph; the model itself scores all "
        "images, which only takes longer"
    )


def test_a_size_that_the_model_refuses_costs_the_others_nothing() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        if x.shape[2] % 8 != 0:
            raise RuntimeError("height must be divisible by 8")
        return self.head(self.stem(x))

    model = plain(zoo.randomised(zoo.Of(forward, stem=zoo.unit(3, 8, stride=2), head=zoo.head())))
    refused = scorer_for(model, photograph((20, 24)), target((20, 24), "patch"), Scalar(1))
    assert refused.path == "plain: RuntimeError: height must be divisible by 8"
    assert scorer_for(model, photograph((24, 24)), target((24, 24), "patch"), Scalar(1)).path == "incremental"
    with pytest.raises(SampleError, match=r"height must be divisible by 8; .*say pad = 8"):
        refused.score(photograph((20, 24))[None])


def test_a_graph_that_errs_on_flat_images_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Graph.call

    def call(self: Graph, node: Any, values: Any) -> Any:
        result = real(self, node, values)
        normed = self.callee(node) is nn.GroupNorm
        flat = normed and bool((values[node.all_input_nodes[0]].std((2, 3)) < 5e-3).all())
        return result + 0.01 if flat else result

    module = nn.Sequential(zoo.conv(3, 8, 1), nn.GroupNorm(2, 8), nn.ReLU(), zoo.head())
    model, size = plain(zoo.randomised(module)), (24, 24)
    assert scorer_for(model, photograph(size), target(size, "patch"), Scalar(1)).path == "incremental"
    monkeypatch.setattr(Graph, "call", call)
    model = plain(zoo.randomised(module))
    words = "plain: its graph scores a constant image otherwise than the model itself at 24 x 24: scores differ"
    assert scorer_for(model, photograph(size), target(size, "patch"), Scalar(1)).path.startswith(words)


def test_a_graph_that_errs_on_parts_of_the_image_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = WindowPlan.evaluate

    def shifted(self: WindowPlan, *arguments: Any) -> Tensor:
        result = real(self, *arguments)
        if result.shape[2] < 20:
            result[:, 0] += 0.01
        return result

    monkeypatch.setattr(WindowPlan, "evaluate", shifted)
    model, size = plain(zoo.randomised(zoo.odd_kernels())), (32, 32)
    assert type(scorer_for(model, photograph(size), target(size, "patch"), Scalar(1))) is PlainScorer


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
    scorer = scorer_for(model, image, region, Scalar(1), expected=single(model, image, region, 1))
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
    assert scorer_for(model, photograph(size), target(size, "patch"), Scalar(1)).path.startswith(words)


def test_a_baseline_that_the_graph_scores_otherwise_is_found_on_each_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the graph has passed its checks, and the image itself is right."""
    real = IncrementalScorer.score

    def score(self: IncrementalScorer, images: Tensor, boxes: Any = None) -> Tensor:
        return real(self, images, boxes) + 1e-3 * (images.std((2, 3)).amax(1) < 1e-4)

    model, size = plain(zoo.randomised(zoo.plain_cnn())), (24, 24)
    image, region = photograph(size), target(size, "patch")
    expected = evaluated(model, image, region)
    assert set(expected["path"]) == {"incremental"}
    monkeypatch.setattr(IncrementalScorer, "score", score)
    found = evaluated(model, image, region)
    assert set(found["path"]) == {"plain: its graph scores the baseline of mean otherwise than the model itself"}
    np.testing.assert_allclose(found["insertion_gain"], expected["insertion_gain"], rtol=0, atol=TIGHT)


def test_verdicts_of_many_sizes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes that were met last are kept; a forgotten size is checked anew."""
    passes: list[tuple[int, ...]] = []
    real = SegmentationModel.logits

    def logits(self: SegmentationModel, images: Tensor) -> Tensor:
        passes.append(tuple(images.shape[2:]))
        return real(self, images)

    monkeypatch.setattr(scoring, "SIZES", 2)
    monkeypatch.setattr(SegmentationModel, "logits", logits)
    model = plain(zoo.randomised(zoo.plain_cnn()))
    for width in (16, 18, 20, 22):
        graph = graph_of(model, photograph((16, width)))
        assert set(passes) == {(16, width)}
        passes.clear()
    assert isinstance(graph, Graph)
    assert [tuple(size) for size in graph.shapes] == [(16, 20), (16, 22)]
    for width, checked in ((22, False), (20, False), (16, True)):
        graph_of(model, photograph((16, width)))
        assert bool(passes) == checked
