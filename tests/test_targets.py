"""Targets: which classes and regions of a sample are explained, or why none is."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from segfaith.errors import SampleError, SampleSkipped, SettingsError
from segfaith.target_choice import TargetChoice, TargetSource
from segfaith.targets import boundary, components, find_targets, intersection_over_union, majority_class, overlap
from segfaith.types import Target, Tensor

NAMES = ["background", "cat", "dog", "cow"]


def grid(*rows: str) -> Tensor:
    """Labels from text: a digit is its class, a dot background and "x" ignored."""
    values = {".": 0, "x": 255}
    return torch.tensor([[values.get(sign, ord(sign) - ord("0")) for sign in row] for row in rows])


def drawn(region: Tensor) -> list[str]:
    """A region as text: "#" for its pixels."""
    return ["".join(".#"[int(value)] for value in row) for row in region]


def chosen(*args: Any, **options: Any) -> dict[str, list[str]]:
    """The targets of labels, and of a prediction if one is given: their regions by name."""
    targets = find_targets(*args, choice=TargetChoice(**options), classes=NAMES)
    assert len({target.name for target in targets}) == len(targets)
    return {target.name: drawn(target.region) for target in targets}


def skipped(*args: Any, **options: Any) -> str:
    """Why there is no target."""
    with pytest.raises(SampleSkipped) as caught:
        find_targets(*args, choice=TargetChoice(**options), classes=NAMES)
    return str(caught.value)


# The dominant class, and a named one


def test_the_most_frequent_foreground_label_and_its_mask() -> None:
    (target,) = find_targets(torch.tensor([[0, 0, 0, 0], [2, 2, 7, 7], [7, 0, 1, 0]]))
    assert (target.class_index, target.name, target.score, target.versus) == (7, "", "probability", None)
    assert target.region.dtype == torch.bool
    assert drawn(target.region) == ["....", "..##", "#..."]


def test_ties_go_to_the_lowest_label_wherever_it_lies() -> None:
    assert find_targets(torch.tensor([[9, 9, 4, 4, 12, 12]]))[0].class_index == 4
    assert find_targets(torch.tensor([[4, 4, 9, 9, 2]]))[0].class_index == 4


def test_background_and_ignored_pixels_never_win_nor_enter_the_region() -> None:
    (target,) = find_targets(grid(".....", "xxxx3"))
    assert target.class_index == 3
    assert drawn(target.region) == [".....", "....#"]


def test_another_class_is_the_background_or_none_is() -> None:
    labels = grid("...22", "...2x")
    assert find_targets(labels, background=2)[0].class_index == 0
    assert find_targets(labels, background=None)[0].class_index == 0
    assert find_targets(labels)[0].class_index == 2


def test_labels_next_to_the_excluded_ones_count() -> None:
    assert find_targets(torch.tensor([[254, 254, 1]]))[0].class_index == 254
    assert find_targets(torch.tensor([[254, 1, 1]]))[0].class_index == 1


@pytest.mark.parametrize("seed", range(5))
def test_against_counting_in_a_loop(seed: int) -> None:
    labels = np.random.default_rng(seed).choice([0, 1, 2, 3, 20, 255], (9, 7))
    best, most = -1, 0
    for value in range(1, 255):
        count = sum(int(labels[i, j] == value) for i in range(9) for j in range(7))
        if count > most:
            best, most = value, count
    (target,) = find_targets(torch.from_numpy(labels))
    assert target.class_index == best
    assert int(target.region.sum()) == most
    assert np.array_equal(target.region.numpy(), labels == best)


def test_no_foreground_is_skipped() -> None:
    with pytest.raises(SampleSkipped) as caught:
        find_targets(torch.zeros(3, 4, dtype=torch.int64))
    assert str(caught.value) == "no foreground in the ground truth: every pixel is background or ignored"
    assert isinstance(caught.value, SampleError)


def test_no_foreground_but_255_hints_at_masks_that_use_it_as_foreground() -> None:
    with pytest.raises(SampleSkipped, match=r"it holds 255.*if 255 is the foreground here, set .data. f"):
        find_targets(grid(".x", ".x"))


@pytest.mark.parametrize("source", ["prediction", "hit", "false_alarm"])
def test_a_model_of_many_classes_predicts_class_255_and_no_ignored_pixels(source: TargetSource) -> None:
    predicted, labels = torch.tensor([[255, 255, 255, 7]]), torch.tensor([[0, 0, 0, 7]])
    if source == "hit":
        with pytest.raises(SampleSkipped, match="class 255 does not occur in the true positives"):
            find_targets(labels, predicted, TargetChoice(source, 255))
        return
    (target,) = find_targets(labels, predicted, TargetChoice(source))
    assert (target.class_index, target.region.tolist()) == (255, [[True, True, True, False]])


def test_another_class_or_none_is_the_background() -> None:
    labels = torch.tensor([[0, 0, 0, 2, 2, 255, 255, 255, 255]])
    assert [find_targets(labels, background=other)[0].class_index for other in (None, 2, 0)] == [0, 0, 2]
    with pytest.raises(SampleSkipped, match="no foreground in the ground truth: every pixel is ignored "):
        find_targets(labels[:, 5:], background=None)


def test_a_named_class() -> None:
    labels = grid(".22", "1x2")
    assert chosen(labels, class_index=1) == {"": ["...", "#.."]}
    assert chosen(labels, class_index=0) == {"": ["#..", "..."]}, "background, if it is named"
    assert chosen(labels, classes=(0, 1)) == {"": ["#..", "..."]}


@pytest.mark.parametrize(("classes", "words"), [(NAMES, r"class 3 \(cow\)"), (None, "class 3"), (NAMES[:3], "class 3")])
def test_a_named_class_that_does_not_occur(classes: list[str] | None, words: str) -> None:
    with pytest.raises(SampleSkipped, match=f"^{words} does not occur in the prediction$"):
        find_targets(grid(".."), grid(".2"), TargetChoice("prediction", 3), classes=classes)


# Sources

TRUTH = grid("11..2", "11.x2", "..3xx")
COW = [".....", ".....", "..#.."]
PREDICTED = grid("12.22", "11222", "...1.")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("ground_truth", {"cat": ["##...", "##...", "....."], "dog": ["....#", "....#", "....."], "cow": COW}),
        ("prediction", {"cat": ["#....", "##...", "...#."], "dog": [".#.##", "..###", "....."]}),
        ("hit", {"cat": ["#....", "##...", "....."], "dog": ["....#", "....#", "....."]}),
        ("missed", {"cat": [".#...", ".....", "....."], "cow": COW}),
        ("false_alarm", {"dog": [".#.#.", "..#..", "....."]}),
    ],
)  # fmt: skip
def test_every_class_by_each_source(source: Any, expected: dict[str, list[str]]) -> None:
    """Ignored pixels belong to none but the prediction."""
    assert chosen(TRUTH, PREDICTED, source=source, per_image="all") == expected


def test_the_dominant_class_is_that_of_the_source() -> None:
    assert find_targets(TRUTH, PREDICTED, TargetChoice("ground_truth"))[0].class_index == 1
    assert find_targets(TRUTH, PREDICTED, TargetChoice("prediction"))[0].class_index == 2
    assert find_targets(TRUTH, PREDICTED, TargetChoice("missed"))[0].class_index == 1, "a tie"
    assert find_targets(TRUTH, PREDICTED, TargetChoice("false_alarm"))[0].class_index == 2


def test_a_class_without_errors_is_skipped_in_words() -> None:
    assert "class 2 (dog) does not occur in the false negatives" in skipped(
        TRUTH, PREDICTED, source="missed", class_index=2
    )
    assert "no foreground in the false positives" in skipped(TRUTH, TRUTH, source="false_alarm")


def test_sources_of_the_prediction_need_it_at_the_same_size() -> None:
    with pytest.raises(SettingsError, match="source = 'hit' reads the model's prediction; give predicted"):
        find_targets(TRUTH, None, TargetChoice("hit"))
    with pytest.raises(SampleError, match=r"the prediction is \(2, 5\) and the ground truth \(3, 5\)"):
        find_targets(TRUTH, PREDICTED[:2], TargetChoice("hit"))


CAT, DOG = grid("11...", "11..."), grid(".22..", ".22..")
SEEN = torch.stack([grid(rows, rows) == 1 for rows in (".....", "1....", ".111.", ".....")])


def overlapping(**options: Any) -> dict[str, list[str]]:
    """Of a cat and a dog that share a column; no class covers the last column, and there the dog is predicted too."""
    labels, seen = grid("....x", "....x"), SEEN.clone()
    seen[2, :, 4] = True
    targets = find_targets(
        labels, seen, TargetChoice(per_image="all", **options), masks={2: DOG == 2, 1: CAT == 1}, classes=NAMES
    )
    return {target.name: drawn(target.region) for target in targets}


def test_classes_that_overlap_by_each_source() -> None:
    assert overlapping() == {"cat": ["##...", "##..."], "dog": [".##..", ".##.."]}
    assert overlapping(source="prediction") == {"cat": ["#....", "#...."], "dog": [".####", ".####"]}
    assert overlapping(source="hit") == {"cat": ["#....", "#...."], "dog": [".##..", ".##.."]}
    assert overlapping(source="missed") == {"cat": [".#...", ".#..."]}
    assert overlapping(source="false_alarm") == {"dog": ["...##", "...##"]}


def test_255_of_overlapping_classes_means_that_no_class_covers_a_pixel() -> None:
    (target,) = find_targets(grid("x....", "....."), masks={1: CAT == 1}, classes=NAMES)
    assert drawn(target.region) == ["##...", "##..."]


# Parts

SPOTS = grid(
    "11..2..1",
    "11...2.1",
    "...x....",
    "1..111..",
)


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("whole", {"": ["##.....#", "##.....#", "........", "#..###.."]}),
        ("largest", {"": ["##......", "##......", "........", "........"]}),
        ("smallest", {"": ["........", "........", "........", "#......."]}),
        (
            "each",
            {
                "cat": ["##......", "##......", "........", "........"],
                "cat-2": [".......#", ".......#", "........", "........"],
                "cat-3": ["........", "........", "........", "#......."],
                "cat-4": ["........", "........", "........", "...###.."],
            },
        ),
    ],
)
def test_components(part: Any, expected: dict[str, list[str]]) -> None:
    assert chosen(SPOTS, part=part) == expected


def test_diagonal_pixels_are_connected_and_ignored_ones_connect_nothing() -> None:
    assert list(chosen(SPOTS, class_index=2, part="each")) == ["dog"]
    assert list(chosen(grid("1x1"), part="each")) == ["cat", "cat-2"]


def test_ties_of_components_go_to_the_first_pixel_in_reading_order() -> None:
    labels = grid("..1.", "1..1", "1...")
    assert [drawn(part) for part in components(labels == 1)] == [
        ["..#.", "...#", "...."],
        ["....", "#...", "#..."],
    ]
    assert chosen(labels, part="largest") == chosen(labels, part="smallest") == {"": ["..#.", "...#", "...."]}


def test_every_component_of_every_class() -> None:
    assert list(chosen(SPOTS, part="each", per_image="all")) == ["cat", "cat-2", "cat-3", "cat-4", "dog"]
    assert list(chosen(SPOTS, part="largest", per_image="all")) == ["cat", "dog"]
    assert list(chosen(SPOTS, classes=(2, 3), per_image="all")) == ["dog"]
    assert "none of the chosen classes (class 3 (cow)) occurs" in skipped(SPOTS, classes=(3,), per_image="all")


def test_the_boundary_is_a_band_inside_and_outside_and_the_interior_the_rest() -> None:
    labels = grid(
        ".........",
        ".........",
        "..11111..",
        "..11111..",
        "..11111..",
        ".........",
    )
    assert chosen(labels, part="boundary", width=1) == {
        "": [".........", ".#######.", ".#######.", ".##...##.", ".#######.", ".#######."]
    }
    assert chosen(labels, part="interior", width=1) == {
        "": [".........", ".........", ".........", "...###...", ".........", "........."]
    }
    assert skipped(labels, part="interior") == (
        "no interior of class 1 (cat): no pixel is farther than width = 3 from the edge"
    )


def test_the_edge_of_the_image_is_no_boundary() -> None:
    labels = grid("111..", "111..", "111..")
    assert chosen(labels, part="boundary", width=1) == {"": ["..##."] * 3}
    assert chosen(labels, part="interior", width=1) == {"": ["##..."] * 3}
    assert "no boundary of class 1 (cat)" in skipped(grid("11", "11"), part="boundary")


# Boxes and points


def test_a_box_keeps_the_pixels_inside_and_the_dominant_class_is_that_of_the_box() -> None:
    assert chosen(SPOTS, box=(0, 4, 2, 8)) == {"": [".......#", ".......#", "........", "........"]}
    assert chosen(SPOTS, box=(0, 4, 2, 7)) == {"": ["....#...", ".....#..", "........", "........"]}
    assert chosen(SPOTS, box=(0, 0, 4, 8), class_index=2) == {"": ["....#...", ".....#..", "........", "........"]}
    assert chosen(SPOTS, box=(1, 0, 4, 4), part="largest") == {"": ["........", "##......", "........", "........"]}


def test_a_box_without_the_class_is_skipped_and_one_beyond_the_image_is_an_error() -> None:
    assert skipped(SPOTS, box=(2, 0, 3, 8)).startswith("no foreground in the ground truth inside the box [2, 0, 3, 8]")
    with pytest.raises(SampleError, match=r"box = \[0, 0, 5, 8\] reaches beyond the image of 4 x 8 px"):
        find_targets(SPOTS, None, TargetChoice(box=(0, 0, 5, 8)))


def test_a_point_names_the_component_that_holds_it() -> None:
    assert chosen(SPOTS, point=(1, 7)) == {"": [".......#", ".......#", "........", "........"]}
    (target,) = find_targets(SPOTS, None, TargetChoice(point=(0, 4)))
    assert target.class_index == 2
    assert drawn(target.region) == ["....#...", ".....#..", "........", "........"]
    assert chosen(TRUTH, PREDICTED, source="missed", point=(2, 2)) == {"": [".....", ".....", "..#.."]}


@pytest.mark.parametrize(
    ("point", "options", "words"),
    [
        ((0, 2), {}, r"the point [0, 2] is class 0 (background) in the ground truth, which is not chosen"),
        ((2, 3), {}, r"the point [2, 3] is of no class in the ground truth"),
        ((0, 0), {"classes": (2,)}, r"the point [0, 0] is class 1 (cat) in the ground truth, which is not chosen"),
    ],
)
def test_a_point_that_holds_no_target_is_skipped(point: Any, options: Any, words: str) -> None:
    assert skipped(SPOTS, point=point, **options) == words


def test_a_point_of_several_classes_asks_for_one() -> None:
    masks = {1: CAT == 1, 2: DOG == 2}
    ignored = torch.zeros(2, 5, dtype=torch.int64)
    with pytest.raises(SampleSkipped, match=r"\[0, 1\] lies in several classes \(class 1 \(cat\), class 2 \(dog\)\)"):
        find_targets(ignored, None, TargetChoice(point=(0, 1)), masks=masks, classes=NAMES)
    (target,) = find_targets(ignored, None, TargetChoice(class_index=2, point=(0, 1)), masks=masks)
    assert drawn(target.region) == [".##..", ".##.."]


def test_a_point_outside_the_image_is_an_error() -> None:
    with pytest.raises(SampleError, match=r"point = \[4, 0\] lies outside the image of 4 x 8 px"):
        find_targets(SPOTS, None, TargetChoice(point=(4, 0)))


# Small targets, scores, names


def test_small_components_and_targets_are_left_out() -> None:
    each = {"part": "each", "per_image": "all"}
    assert list(chosen(SPOTS, min_area=2, **each)) == ["cat", "cat-2", "cat-3", "dog"]
    assert list(chosen(SPOTS, min_area=3, **each)) == ["cat", "cat-2"]
    assert chosen(SPOTS, min_area=2, part="smallest") == {"": [".......#", ".......#", "........", "........"]}
    assert list(chosen(SPOTS, min_area=4 / 32, **each)) == ["cat"], "a fraction of the image"
    assert list(chosen(SPOTS, min_area=3, per_image="all")) == ["cat"]
    assert skipped(SPOTS, min_area=5, part="largest") == (
        "no component of class 1 (cat) has 5 pixels (min_area = 5); the largest has 4"
    )


def test_a_pixel_is_not_the_whole_image() -> None:
    """Below 1 a fraction, from 1 on pixels."""
    assert len(chosen(SPOTS, min_area=1, part="each")) == 4
    assert skipped(SPOTS, min_area=0.99)


def test_targets_carry_the_score_and_versus_is_no_target() -> None:
    margin = {"score": "margin", "versus": 2, "per_image": "all"}
    (target,) = find_targets(SPOTS, None, TargetChoice(**margin))
    assert (target.class_index, target.score, target.versus) == (1, "margin", 2)
    assert skipped(SPOTS, score="margin", versus=1) == (
        "the target is class 1 (cat), which versus names: a class is not compared with itself"
    )


def test_names_are_fit_for_files_and_all_different() -> None:
    labels = grid("1.1.2.3.4")
    names = ["background", "a/b@c", "A_B_C", "a_b_c-2"]
    targets = find_targets(labels, None, TargetChoice(part="each", per_image="all"), classes=names)
    assert [target.name for target in targets] == ["a_b_c", "a_b_c-2", "A_B_C-3", "a_b_c-2-2", "class 4"]


# What excludes each other


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"source": "truth"}, "source = 'truth': expected ground_truth, prediction, hit, missed, false_alarm"),
        ({"part": "half"}, "part = 'half': expected whole, largest"),
        ({"per_image": "some"}, "per_image = 'some': expected dominant, all"),
        ({"part": "boundary", "width": 0}, "width = 0: expected at least 1"),
        ({"width": 5}, "width is that of the band"),
        ({"min_area": -1}, "min_area = -1: expected a fraction"),
        ({"min_area": 1.5}, "min_area = 1.5: expected a fraction"),
        ({"min_area": float("nan")}, "min_area = nan: expected a fraction"),
        ({"box": (3, 0, 3, 4)}, r"box = \[3, 0, 3, 4\]: expected"),
        ({"point": (-1, 0)}, r"point = \[-1, 0\]: expected"),
        ({"classes": ()}, "expected at least one class"),
        ({"class_index": 1, "classes": (1,)}, "class and classes exclude each other"),
        ({"class_index": 1, "per_image": "all"}, "per_image = 'all' takes every class"),
        ({"point": (0, 0), "box": (0, 0, 1, 1)}, "point and box exclude each other"),
        ({"point": (0, 0), "per_image": "all"}, "point names one component; leave per_image = 'all' out"),
        ({"point": (0, 0), "part": "each"}, "point names one component; leave part = 'each' out"),
        ({"box": (0, 0, 1, 1), "part": "boundary"}, "box cuts the region"),
        ({"versus": 1}, "versus is the other class of score = 'conditional' or 'margin'"),
    ],
)
def test_what_excludes_each_other_says_what_to_do(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        TargetChoice(**options)


# Properties

LABELS = st.tuples(st.integers(1, 7), st.integers(1, 7)).flatmap(
    lambda size: st.tuples(*[arrays(np.int64, size, elements=st.sampled_from([0, 1, 2, 255]))] * 2)
)


def union_of(labels: Tensor, predicted: Tensor, index: int, **options: Any) -> tuple[Tensor, int]:
    """All pixels of a class's targets, and the sum of the targets' areas; no pixel where there is none."""
    try:
        targets = find_targets(labels, predicted, TargetChoice(class_index=index, **options))
    except SampleSkipped:
        return torch.zeros_like(labels, dtype=torch.bool), 0
    return torch.stack([target.region for target in targets]).any(0), sum(int(one.region.sum()) for one in targets)


@settings(max_examples=60, deadline=None)
@given(LABELS, st.integers(0, 2))
def test_hits_misses_and_false_alarms_are_a_partition(maps: tuple[np.ndarray, np.ndarray], index: int) -> None:
    labels, predicted = torch.from_numpy(maps[0]), torch.from_numpy(maps[1]) % 255
    area = {name: union_of(labels, predicted, index, source=name)[0] for name in ("hit", "missed", "false_alarm")}
    assert torch.equal(area["hit"] | area["missed"], labels == index)
    assert torch.equal(area["hit"] | area["false_alarm"], (predicted == index) & (labels != 255))
    assert int(sum(region.int() for region in area.values()).max()) <= 1  # type: ignore[union-attr]


@settings(max_examples=60, deadline=None)
@given(LABELS, st.integers(0, 2))
def test_components_are_disjoint_connected_apart_and_cover(maps: tuple[np.ndarray, np.ndarray], index: int) -> None:
    region = torch.from_numpy(maps[0]) == index
    union, pixels = union_of(torch.from_numpy(maps[0]), torch.from_numpy(maps[1]), index, part="each")
    assert torch.equal(union, region)
    assert pixels == int(region.sum())
    for part in components(region):
        near = boundary(part, 1) & ~part & region  # what touches it from outside
        assert not bool(near.any())
        first = tuple(part.nonzero()[0].tolist())
        assert flooded(part, first) == int(part.sum())


def flooded(region: Tensor, start: tuple[int, ...]) -> int:
    """How many pixels of a region are reached from one, step by step over 8 neighbours."""
    seen, todo = {start}, [start]
    while todo:
        row, column = todo.pop()
        for place in ((row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)):
            there = 0 <= place[0] < region.shape[0] and 0 <= place[1] < region.shape[1] and bool(region[place])
            if there and place not in seen:
                seen.add(place)
                todo.append(place)
    return len(seen)


@settings(max_examples=60, deadline=None)
@given(LABELS, st.integers(1, 3))
def test_the_band_is_what_lies_near_the_other_side(maps: tuple[np.ndarray, np.ndarray], width: int) -> None:
    region = maps[0] == 1
    places = [tuple(place) for place in np.ndindex(*region.shape)]
    expected = [
        any(
            region[other] != region[place] and max(abs(place[0] - other[0]), abs(place[1] - other[1])) <= width
            for other in places
        )
        for place in places
    ]
    assert boundary(torch.from_numpy(region), width).flatten().tolist() == expected


# Targets, and the prediction on them


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


def test_the_majority_of_classes_that_exclude_each_other_and_of_classes_that_overlap() -> None:
    region = torch.tensor([[True, True, True, False]])
    assert majority_class(torch.tensor([[2, 1, 2, 1]]), region) == 2
    assert majority_class(torch.tensor([[2, 1, 0, 1]]), region) == 0, "a tie goes to the lowest"
    masks = torch.tensor([[[0, 0, 0, 1]], [[1, 0, 0, 1]], [[1, 1, 0, 0]]]).bool()
    assert majority_class(masks, region) == 2
    assert majority_class(masks[:1], region) is None, "nothing is predicted there"


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"part": "each"},
        {"part": "smallest"},
        {"box": (0, 0, 4, 3)},
        {"point": (3, 5)},
        {"part": "interior", "width": 1},
        {"part": "each", "source": "hit"},
    ],
)
def test_a_part_that_is_predicted_as_its_class_overlaps_whatever_the_class_has_beside_it(
    options: dict[str, Any],
) -> None:
    labels = grid(
        "111....",
        "111....",
        "111....",
        ".....1.",
    )
    targets = find_targets(labels, labels, TargetChoice(**options))
    for target in targets:
        assert overlap(labels == 1, target) == 1
        assert overlap(labels == 2, target) == 0
        elsewhere = (labels == 1) | (labels.roll(2, 1) == 1)
        assert overlap(elsewhere, target) < 1  # pixels that are of the class nowhere count


def test_parts_of_what_is_missed_or_falsely_predicted_overlap_with_nothing_or_all() -> None:
    truth, predicted = grid("111.1..", "......."), grid("11....1", ".....11")
    for target in find_targets(truth, predicted, TargetChoice("missed", part="each")):
        assert overlap(predicted == 1, target) == 0
    for target in find_targets(truth, predicted, TargetChoice("false_alarm", part="each")):
        assert overlap(predicted == 1, target) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"class_index": "dog"}, "class_index: 'dog' is a str; expected the index of a class, an integer"),
        ({"classes": ("dog",)}, "classes: 'dog' is a str"),
        ({"score": "margin", "versus": "cat"}, "versus: 'cat' is a str"),
        ({"point": (1.5, 2)}, "point: 1.5 is a float; expected rows and columns, an integer"),
        ({"box": (0, 0, 2.0, 2)}, "box: 2.0 is a float"),
    ],
)
def test_names_and_fractions_are_no_indices(options: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        TargetChoice(**options)
