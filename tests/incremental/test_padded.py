"""Graphs of models that pad images: an alteration near the border changes the padding too."""

import numpy as np
import pytest
import torch

import zoo
from exactness import TIGHT, check_exact, photograph
from segfaith.incremental.graph import Graph
from segfaith.incremental.scorers import IncrementalScorer
from segfaith.incremental.scoring import _TRACED, graph_of, scorer_for
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import Scalar
from toys import plain


def padding(name: str = "plain_cnn", pad: int = 16) -> SegmentationModel:
    model = plain(zoo.randomised(zoo.TRACED[name]()))
    model.pad = pad
    return model


@pytest.mark.parametrize("name", list(zoo.TRACED)[:4])
@pytest.mark.parametrize("size", [(37, 53), (7, 20), (32, 41)], ids=str)
def test_padded_images_are_scored_as_by_the_loop(name: str, size: tuple[int, int]) -> None:
    largest = [check_exact(padding(name), size, kind, IncrementalScorer) for kind in ("patch", "scattered")]
    assert max(largest) > 1e-3


def test_a_change_is_seen_in_its_mirror_image() -> None:
    """The target's last pixel reads the mirror image of a changed pixel that lies beyond its own reach."""
    model, size = padding(), (20, 34)
    image, region = photograph(size), torch.zeros(size, dtype=torch.bool)
    region[18:, 30:] = True
    for left in range(20, 34):
        start, stop = np.array([[0, left]]), np.array([[20, left + 1]])
        copies = image.repeat(1, 1, 1, 1)
        copies[..., left] = 1 - copies[..., left]
        scorer = scorer_for(model, image, region, Scalar(1))
        assert isinstance(scorer, IncrementalScorer)
        expected = model.logits(copies).softmax(1)[0, 1][region].double().mean()
        assert float(scorer.score(copies, (start, stop))) == pytest.approx(float(expected), abs=TIGHT)


def test_sizes_that_are_padded_alike_share_a_check() -> None:
    model = padding(pad=32)
    graphs = [graph_of(model, photograph(size)) for size in [(20, 34), (32, 40), (31, 64)]]
    assert isinstance(graphs[0], Graph)
    assert graphs[0] is graphs[1] is graphs[2]
    assert list(_TRACED[model].verdicts) == [(32, 64)]


def test_another_padding_is_another_graph() -> None:
    model = padding(pad=32)
    first = graph_of(model, photograph((20, 34)))
    model.pad = 16
    assert graph_of(model, photograph((20, 34))) is not first
