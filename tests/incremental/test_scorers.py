"""Incremental and plain scores against the one-by-one loop, over a zoo of models."""

import shutil
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import zoo
from drops import evidence, loop, single
from exactness import SIZES, TIGHT, check_exact, check_exact_on, photograph, scattered_images, target
from segfaith import wrap
from segfaith.batching import BatchSize, score_images
from segfaith.data.images import load_image
from segfaith.evidence.regions import Regions
from segfaith.incremental.graph import Graph
from segfaith.incremental.scorers import IncrementalScorer, PlainScorer, Precision
from segfaith.incremental.scoring import graph_of, scorer_for
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import Scalar
from toys import plain


@pytest.mark.parametrize("name", zoo.TRACED)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_traced_models_score_as_the_loop(name: str, size: tuple[int, int]) -> None:
    model = plain(zoo.randomised(zoo.TRACED[name]()))
    largest = [check_exact(model, size, kind, IncrementalScorer) for kind in ("patch", "scattered")]
    assert max(largest) > 1e-3


@pytest.mark.parametrize("name", zoo.UNTRACED | zoo.EITHER)
def test_models_that_a_graph_cannot_follow_score_as_the_loop(name: str) -> None:
    """What cannot be traced, and what a trace would get wrong, goes through the module itself."""
    model = plain(zoo.randomised({**zoo.UNTRACED, **zoo.EITHER}[name]()))
    expected = PlainScorer if name in zoo.UNTRACED else None
    if name == "Counting":
        image, region = photograph((37, 53)), target((37, 53), "patch")
        assert type(scorer_for(model, image, region, Scalar(2))) is PlainScorer, "its first call is the traced one"
    assert max(check_exact(model, (37, 53), kind, expected) for kind in ("patch", "scattered")) > 1e-3


OTHER_SCALARS = [
    Scalar(1),
    Scalar(1, "logit"),
    Scalar(1, "log_odds"),
    Scalar(1, "margin"),
    Scalar(1, "margin", 0),
    Scalar(1, "conditional"),
    Scalar(1, "conditional", 0),
]
INDEPENDENT = [Scalar(1, kind, independent=True) for kind in ("probability", "logit", "log_odds")]  # type: ignore[arg-type]


NETS = ("plain_cnn", "aspp", "unet")


@pytest.mark.parametrize(
    ("name", "scalar"),
    [*product((*NETS, "one_channel"), OTHER_SCALARS), *product(NETS, INDEPENDENT)],
    ids=str,
)
def test_incremental_and_plain_scores_of_each_kind_are_those_of_the_loop(name: str, scalar: Scalar) -> None:
    """Drops of cells by windows, and scores of images that are altered all over."""
    size = (24, 33)
    image, region = photograph(size), target(size, "patch")
    altered = scattered_images(image)
    module, expected = zoo.randomised(zoo.TRACED[name]()), np.zeros(0)
    for path in (IncrementalScorer, PlainScorer):
        model = wrap(module, mean=(0, 0, 0), std=(1, 1, 1), head="sigmoid" if scalar.independent else None)
        model.incremental = path is IncrementalScorer
        if not len(expected):
            expected = np.array([single(model, one, region, scalar) for one in altered])
            drops = loop(model, image, region, scalar, 4)
            allowed = TIGHT * max(1.0, float(np.abs(expected).max()))
        scorer = scorer_for(model, image, region, scalar, expected=single(model, image, region, scalar))
        assert type(scorer) is path
        np.testing.assert_allclose(scorer.score(altered).numpy(), expected, rtol=0, atol=allowed)
        got = evidence(model, image, region, scalar, Regions(4))
        np.testing.assert_allclose(got, drops, rtol=0, atol=2 * allowed)
    assert np.abs(drops).max() > 1e-3


def test_switches_choose_the_plain_path() -> None:
    model = plain(zoo.randomised(zoo.plain_cnn()))
    image, region = photograph((16, 16)), target((16, 16), "patch")
    assert type(scorer_for(model, image, region, Scalar(1))) is IncrementalScorer
    model.incremental = False
    assert type(scorer_for(model, image, region, Scalar(1))) is PlainScorer
    assert check_exact(model, (16, 16), "patch", PlainScorer) > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_one_graph_serves_images_of_all_sizes_and_regions_of_all_shapes(seed: int) -> None:
    """Which size came first does not matter; regions of one pixel and of the whole image."""
    model = plain(zoo.randomised(zoo.aspp(), seed))
    largest = 0.0
    for size in [(24, 40), (53, 31), (24, 40)]:
        image = photograph(size, seed)
        for rows, columns in [((0, 1), (0, 1)), ((size[0] - 1, size[0]), (3, 4)), ((0, size[0]), (0, size[1]))]:
            region = torch.zeros(size, dtype=torch.bool)
            region[slice(*rows), slice(*columns)] = True
            assert type(scorer_for(model, image, region, Scalar(1))) is IncrementalScorer
            drops = loop(model, image, region, 1, 4)
            np.testing.assert_allclose(evidence(model, image, region, 1, Regions(4)), drops, rtol=0, atol=TIGHT)
            largest = max(largest, np.abs(drops).max())
    assert largest > 1e-3


@pytest.mark.parametrize("corner", [(0, 0), (0, -1), (-1, 0), (-1, -1)])
def test_a_target_that_reads_only_padding_has_a_constant_score(corner: tuple[int, int]) -> None:
    """And one at the border between padding and image does not."""
    model, size = plain(zoo.randomised(zoo.overpadded())), (16, 20)
    image, region = photograph(size), torch.zeros(size, dtype=torch.bool)
    region[corner] = True
    assert type(scorer_for(model, image, region, Scalar(1))) is IncrementalScorer
    assert check_exact_on(model, image, region, 1, 4) < 1e-6
    region[5, 5] = True
    assert check_exact_on(model, image, region, 1, 4) > 1e-3


@pytest.mark.parametrize("corner", [(0, 0), (0, 10), (10, 0), (-1, -1)])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_layer_of_which_only_padding_is_read_changes_no_score(corner: tuple[int, int], precision: Precision) -> None:
    """At a border no row, at a corner no pixel, of the maps before the margin is read."""
    margin = zoo.conv(8, 8, 1, padding=3)
    module = nn.Sequential(zoo.conv(3, 8), nn.MaxPool2d(3, 1, 1), margin, nn.ReLU(), zoo.head())
    model, size = plain(zoo.randomised(module)), (16, 20)
    image, region = photograph(size), torch.zeros(size, dtype=torch.bool)
    region[corner] = True
    assert type(scorer_for(model, image, region, Scalar(1))) is IncrementalScorer
    assert check_exact_on(model, image, region, 1, 4, precision) < 1e-6


@pytest.mark.parametrize("operator", ["zero", "blur", "noise"])
def test_other_operators_alter_no_more_than_their_cell(operator: str) -> None:
    model = plain(zoo.randomised(zoo.residual()))
    image, region = photograph((32, 32)), target((32, 32), "patch")
    asked = Regions(4, operator)
    fast = evidence(model, image, region, 1, asked)
    model.incremental = False
    slow = evidence(model, image, region, 1, asked)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=TIGHT)
    assert np.abs(slow).max() > 1e-3


def test_boxes_may_be_larger_than_what_was_altered() -> None:
    """And of different sizes in one batch, at every border."""
    model, size = plain(zoo.randomised(zoo.odd_kernels())), (30, 26)
    image, region = photograph(size), target(size, "scattered")
    rng = np.random.default_rng(4)
    start = np.stack([rng.integers(0, n - 1, 12) for n in size], 1)
    stop = np.stack([rng.integers(start[:, axis] + 1, n + 1) for axis, n in enumerate(size)], 1)
    start[0], stop[0] = (0, 0), size
    start[1], stop[1] = (size[0] - 1, size[1] - 1), size
    images = image.repeat(12, 1, 1, 1)
    for one, (top, left), (bottom, right) in zip(images, start, stop, strict=True):
        one[:, top : (top + bottom + 1) // 2, left:right] = 0.9
    scorer = scorer_for(model, image, region, Scalar(3))
    assert isinstance(scorer, IncrementalScorer)
    expected = np.array([single(model, one, region, 3) for one in images])
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(scorer.score(images, (start, stop)).numpy(), expected, rtol=0, atol=TIGHT)
    for batch in (1, 5):
        got = score_images(scorer.score, lambda numbers: images[numbers], 12, BatchSize(batch), (start, stop))
        np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=TIGHT)


@pytest.mark.realdata
def test_a_trained_model_scores_as_the_loop(trained_model: SegmentationModel, shared: Any) -> None:
    """With its one large 3 x 3 convolution by Winograd."""
    for file in sorted((shared / "voc").rglob("JPEGImages/*.jpg")):
        image = load_image(file, 112)
        labels = trained_model.logits(image[None])[0].argmax(0)
        if 500 < int((labels > 0).sum()) < 6000:
            break
    class_index = int(torch.bincount(labels[labels > 0]).argmax())
    region = labels == class_index
    drops = loop(trained_model, image, region, class_index, 7)
    score = single(trained_model, image, region, class_index)
    assert type(scorer_for(trained_model, image, region, Scalar(class_index), expected=score)) is IncrementalScorer
    graph = graph_of(trained_model, image)
    assert isinstance(graph, Graph)
    assert sum(convolution.row_weights is not None for convolution in graph.convolutions.values()) == 1
    assert np.abs(drops).max() > 0.01
    got = evidence(trained_model, image, region, class_index, Regions(7))
    np.testing.assert_allclose(got, drops, rtol=0, atol=TIGHT)


def test_a_graph_knows_the_bytes_of_an_images_features() -> None:
    """Of the image (3, 24, 24), of two layers (8, 12, 12) and (4, 12, 12), and of the resized logits, in float32."""
    model = plain(nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 4, 1)))
    image, region = photograph((24, 24)), target((24, 24), "patch")
    assert scorer_for(model, image, region, Scalar(1)).features == 4 * ((3 + 4) * 24 * 24 + (8 + 4) * 12 * 12)
    model.incremental = False
    assert scorer_for(model, image, region, Scalar(1)).features == 0


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_model_scores_as_the_loop() -> None:
    model, size = plain(zoo.randomised(nn.Sequential(zoo.unit(3, 8, stride=2), zoo.head()))), (24, 24)
    model.compile = True
    image, region = photograph(size), target(size, "patch")
    assert type(scorer_for(model, image, region, Scalar(1))) is PlainScorer
    got = evidence(model, image, region, 1, Regions(3), batch=9)
    model.compile = False
    drops = loop(model, image, region, 1, 3)
    assert np.abs(drops).max() > 1e-3
    np.testing.assert_allclose(got, drops, rtol=0, atol=1e-5)
