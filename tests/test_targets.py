"""Targets: which class and region of a sample is explained, or why none is."""

import numpy as np
import pytest
import torch

from segfaith.errors import SampleError, SampleSkipped
from segfaith.targets import class_target, dominant_target, intersection_over_union
from segfaith.types import Target


def test_the_most_frequent_foreground_label_and_its_mask() -> None:
    labels = torch.tensor([[0, 0, 0, 0], [2, 2, 7, 7], [7, 0, 1, 0]])
    target = dominant_target(labels)
    assert target.class_index == 7
    assert target.region.dtype == torch.bool
    assert target.region.tolist() == [[False] * 4, [False, False, True, True], [True, False, False, False]]


def test_ties_go_to_the_lowest_label_wherever_it_lies() -> None:
    assert dominant_target(torch.tensor([[9, 9, 4, 4, 12, 12]])).class_index == 4
    assert dominant_target(torch.tensor([[4, 4, 9, 9, 2]])).class_index == 4


def test_background_and_ignored_pixels_never_win_nor_enter_the_region() -> None:
    labels = torch.tensor([[0, 0, 0, 0, 0], [255, 255, 255, 255, 3]])
    target = dominant_target(labels)
    assert target.class_index == 3
    assert target.region.tolist() == [[False] * 5, [False, False, False, False, True]]


def test_labels_next_to_the_excluded_ones_count() -> None:
    assert dominant_target(torch.tensor([[254, 254, 1]])).class_index == 254
    assert dominant_target(torch.tensor([[254, 1, 1]])).class_index == 1


@pytest.mark.parametrize("seed", range(5))
def test_against_counting_in_a_loop(seed: int) -> None:
    labels = np.random.default_rng(seed).choice([0, 1, 2, 3, 20, 255], (9, 7))
    best, most = -1, 0
    for value in range(1, 255):
        count = sum(int(labels[i, j] == value) for i in range(9) for j in range(7))
        if count > most:
            best, most = value, count
    target = dominant_target(torch.from_numpy(labels))
    assert target.class_index == best
    assert int(target.region.sum()) == most
    assert np.array_equal(target.region.numpy(), labels == best)


def test_no_foreground_is_skipped() -> None:
    with pytest.raises(SampleSkipped) as caught:
        dominant_target(torch.zeros(3, 4, dtype=torch.int64))
    assert str(caught.value) == "no foreground in the ground truth: every pixel is background or ignored"
    assert isinstance(caught.value, SampleError)


def test_no_foreground_but_255_hints_at_masks_that_use_it_as_foreground() -> None:
    labels = torch.tensor([[0, 255], [0, 255]])
    with pytest.raises(
        SampleSkipped, match=r"no foreground .*it holds 255.*if 255 is the foreground here, set \[data\] f"
    ):
        dominant_target(labels)


def test_another_class_or_none_is_the_background() -> None:
    labels = torch.tensor([[0, 0, 0, 2, 2, 255, 255, 255, 255]])
    assert dominant_target(labels, background=None).class_index == 0
    assert dominant_target(labels, background=2).class_index == 0
    assert dominant_target(labels, background=0).class_index == 2
    with pytest.raises(SampleSkipped, match="no foreground in the ground truth: every pixel is ignored "):
        dominant_target(labels[:, 5:], background=None)


def test_the_message_names_the_source() -> None:
    with pytest.raises(SampleSkipped, match="no foreground in the prediction"):
        dominant_target(torch.zeros(2, 2, dtype=torch.int64), "prediction")


def test_a_named_class() -> None:
    labels = torch.tensor([[0, 2, 2], [1, 255, 2]])
    target = class_target(labels, 1, ["background", "cat", "dog"], "ground truth")
    assert target.class_index == 1
    assert target.region.tolist() == [[False, False, False], [True, False, False]]
    assert class_target(labels, 0, None, "ground truth").region.tolist() == [[True, False, False], [False] * 3]


@pytest.mark.parametrize(
    ("classes", "words"),
    [(["background", "cat", "dog", "cow"], r"class 3 \(cow\)"), (None, "class 3"), (["background", "cat"], "class 3")],
)
def test_a_named_class_that_does_not_occur(classes: list[str] | None, words: str) -> None:
    with pytest.raises(SampleSkipped, match=f"^{words} does not occur in the prediction$"):
        class_target(torch.tensor([[0, 2], [1, 255]]), 3, classes, "prediction")


def test_a_target_has_a_class_and_at_least_one_pixel() -> None:
    some, none = torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="class_index must be 0 or more, got -1"):
        Target(-1, some)
    with pytest.raises(ValueError, match="the target region has no pixel; expected a mask with at least one True"):
        Target(1, none)


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ([[1, 1, 0], [0, 0, 0]], 1.0),
        ([[1, 0, 0], [0, 0, 0]], 1 / 2),
        ([[1, 0, 0], [1, 1, 0]], 1 / 4),
        ([[2, 2, 0], [0, 0, 0]], 0.0),
        ([[0, 0, 1], [1, 1, 1]], 0.0),
        ([[1, 1, 1], [1, 1, 1]], 2 / 6),
    ],
)
def test_intersection_over_union_by_hand(prediction: list[list[int]], expected: float) -> None:
    """M is the first two pixels of the first row; only class 1 counts."""
    region = torch.tensor([[True, True, False], [False, False, False]])
    value = intersection_over_union(torch.tensor(prediction) == 1, region)
    assert value == pytest.approx(expected, abs=1e-12)
