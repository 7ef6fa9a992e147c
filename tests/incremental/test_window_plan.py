"""What the score does not read, or an alteration does not reach, is not computed."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import zoo
from drops import single
from exactness import TIGHT, photograph
from segfaith.incremental import convolution
from segfaith.incremental.convolution import _conv2d as conv2d
from segfaith.incremental.scorers import IncrementalScorer
from segfaith.incremental.scoring import scorer_for
from segfaith.scores import Scalar
from toys import plain


@pytest.mark.parametrize("name", ["odd_kernels", "strided", "pooled"])
def test_of_the_image_is_needed_what_the_score_depends_on(name: str) -> None:
    """The box around the pixels where the score's gradient is not zero."""
    smooth = {
        "strided": lambda: nn.Sequential(zoo.conv(3, 8, stride=2), nn.SiLU(), zoo.conv(8, 8, dilation=3), zoo.head()),
        "pooled": lambda: nn.Sequential(nn.AvgPool2d(1), zoo.conv(3, 8), nn.SiLU(), zoo.conv(8, 8, 5), zoo.head()),
    }
    module = (zoo.TRACED | smooth)[name]()
    model, size = plain(zoo.randomised(module)), (48, 60)
    image, region = photograph(size), torch.zeros(size, dtype=torch.bool)
    region[9:12, 40:46] = True
    scorer = scorer_for(model, image, region, Scalar(1))
    assert isinstance(scorer, IncrementalScorer)
    leaf = image.clone().requires_grad_()
    model.logits(leaf[None]).softmax(1)[0, 1][region].sum().backward()
    assert leaf.grad is not None
    rows, columns = (torch.nonzero(leaf.grad.abs().sum(0).any(1 - axis))[:, 0] for axis in (0, 1))
    needed = scorer.plan.needs[scorer.plan.image]
    if name == "pooled":  # an unknown operation takes, and gives, whole maps
        assert needed.size.tolist() == list(size)
        needed = scorer.plan.needs[scorer.graph.nodes[1]]
    assert needed.start.tolist() == [int(rows[0]), int(columns[0])]
    assert needed.stop.tolist() == [int(rows[-1]) + 1, int(columns[-1]) + 1]
    assert needed.size.prod() < 0.4 * np.prod(size)


def test_pixels_outside_the_cone_are_never_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """They may even be NaN; and convolutions compute a small part of their maps."""
    model, size = plain(zoo.randomised(zoo.plain_cnn())), (64, 64)
    image, region = photograph(size), torch.zeros(size, dtype=torch.bool)
    region[2:7, 50:58] = True
    scorer = scorer_for(model, image, region, Scalar(1))
    assert isinstance(scorer, IncrementalScorer)
    scorer.score(image[None])
    computed: list[int] = []

    def convolved(*given: Any) -> Tensor:
        result = conv2d(*given)
        computed.append(int(np.prod(result.shape[2:])))
        return result

    monkeypatch.setattr(convolution, "_conv2d", convolved)
    poisoned = image.clone()
    poisoned[:, 30:] = torch.nan
    poisoned[:, :, :20] = torch.nan
    expected = single(model, image, region, 1)
    computed.clear()  # of the module's own pass
    assert float(scorer.score(poisoned[None])) == pytest.approx(expected, abs=TIGHT)
    assert len(computed) == 4
    assert max(computed) < 0.2 * 32 * 32


def test_only_what_an_alteration_reaches_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pixels of a large image, scored everywhere: the receptive field's rows and columns in each convolution."""
    model, size = plain(zoo.randomised(zoo.plain_cnn())), (64, 64)
    image, region = photograph(size), torch.ones(size, dtype=torch.bool)
    scorer = scorer_for(model, image, region, Scalar(1))
    assert isinstance(scorer, IncrementalScorer)
    assert scorer.clean
    computed: list[list[int]] = []

    def convolved(*given: Any) -> Tensor:
        result = conv2d(*given)
        computed.append(list(result.shape[2:]))
        return result

    monkeypatch.setattr(convolution, "_conv2d", convolved)
    altered = image.repeat(2, 1, 1, 1)
    altered[0, :, 20, 20] = 0
    altered[1, :, 41, 31] = 1
    boxes = (np.array([[20, 20], [41, 31]]), np.array([[21, 21], [42, 32]]))
    got = scorer.score(altered, boxes)
    # An even row is read by one output of the strided convolution, an odd one by two; then 3 x 3, 3 x 3, 1 x 1.
    assert computed == [[2, 2], [4, 4], [6, 6], [6, 6]]
    monkeypatch.undo()
    expected = [single(model, one, region, 1) for one in altered]
    np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=TIGHT)
