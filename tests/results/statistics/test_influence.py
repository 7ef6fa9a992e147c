"""The influence of one image on each mean, re-derived by leaving images out one by one."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from segfaith.results.records.runs import Run
from segfaith.results.statistics.influence import MISSED_IOU, Best, best, influence, missed
from segfaith.results.statistics.paired import paired


def made(*tables: dict[str, dict[str, float]], metric: str = "tdd", iou: float = 0.5) -> list[Run]:
    """Runs with a metric's values by method and image."""
    about = {"data": {"name": "voc2012", "split": "val"}, "model": {"name": "net", "weights": "w"}}
    runs = []
    for number, table in enumerate(tables):
        rows: list[dict[str, Any]] = [
            {
                "sample_id": image,
                "target": "",
                "method": method,
                metric: value,
                "s": 0.5,
                "target_iou": iou,
                "status": "ok",
            }
            for method, values in table.items()
            for image, value in values.items()
        ]
        runs.append(
            Run(
                Path(f"r{number}"),
                about | {"settings": {"seed": number}},
                pd.DataFrame(rows),
                pd.DataFrame(),
                pd.DataFrame(),
            )
        )
    return runs


def named(runs: list[Run], metric: str, own: list[str]) -> Best:
    """The best method of the runs."""
    return best(paired(runs, metric), own, len(runs))


def mean_without(table: list[dict[str, float]], image: str) -> float:
    """The mean over runs of the run-level means, without an image."""
    means = []
    for values in table:
        left = [value for name, value in values.items() if name != image]
        means += [sum(left) / len(left)] if left else []
    return sum(means) / len(means)


def test_each_mean_names_the_image_that_moves_it_most_by_loops() -> None:
    first = {"a": 0.1, "b": 0.5, "c": 0.6, "d": 0.65}
    second = {"b": 0.2, "c": 0.9, "e": 0.3}
    table = influence({"tdd": paired(made({"ria": first}, {"ria": second}), "tdd")})
    (row,) = table.to_dict("records")
    whole = (sum(first.values()) / 4 + sum(second.values()) / 3) / 2
    moves = {name: mean_without([first, second], name) - whole for name in "abcde"}
    expected = max(moves, key=lambda name: abs(moves[name]))
    assert row["image"] == expected
    assert row["mean"] == pytest.approx(whole)
    assert row["change"] == pytest.approx(moves[expected])
    assert row["without"] == pytest.approx(whole + moves[expected])
    assert row["images"] == 5


def test_an_image_that_is_all_of_a_run_drops_the_run() -> None:
    (row,) = influence({"tdd": paired(made({"ria": {"a": 1.0}}, {"ria": {"b": 0.0, "c": 0.1}}), "tdd")}).to_dict(
        "records"
    )
    assert row["image"] == "a"
    assert row["without"] == pytest.approx(0.05)
    (alone,) = influence({"tdd": paired(made({"ria": {"a": 1.0}}), "tdd")}).to_dict("records")
    assert alone["image"] == ""
    assert alone["without"] != alone["without"]


def test_one_image_that_decides_the_best_method_is_named() -> None:
    """With the outlier x, ega's mean is .40 and ria's .30; without it ria leads by .30 to .20."""
    ega = {"a": 0.2, "b": 0.2, "c": 0.2, "x": 1.0}
    ria = {"a": 0.3, "b": 0.3, "c": 0.3, "x": 0.3}
    found = named(made({"ega": ega, "ria": ria}), "tdd", ["ega", "ria"])
    assert (found.method, found.second, found.flipped, found.instead) == ("ega", "ria", "x", "ria")
    steady = named(made({"ega": ega | {"x": 0.2}, "ria": ria}), "tdd", ["ega", "ria"])
    assert (steady.method, steady.flipped) == ("ria", "")


def test_an_image_without_which_the_best_two_are_a_draw_is_named() -> None:
    gpa = {"a": 0.3, "b": 0.3, "x": 2.0}
    found = named(made({"gpa": gpa, "ega": {"a": 0.3, "b": 0.3, "x": 0.3}}), "tdd", ["gpa", "ega"])
    assert (found.method, found.flipped, found.instead) == ("gpa", "x", "")


def test_lower_is_better_for_leaks_outside() -> None:
    table = {"ega": {"a": 0.4, "b": 0.2}, "ria": {"a": 0.1, "b": 0.2}, "mask": {"a": 0.0, "b": 0.1}}
    found = named(made(table, metric="odd_abs"), "odd_abs", ["ega", "ria"])
    assert found.method == "ria"
    assert found.control == "mask"


def test_the_truth_is_no_control_that_is_better_still() -> None:
    table = {"ega": {"a": 0.4, "b": 0.2}, "ria": {"a": 0.5, "b": 0.2}, "truth": {"a": 0.9, "b": 0.9}}
    found = named(made(table), "tdd", ["ega", "ria"])
    assert (found.method, found.control) == ("ria", "")


def test_a_draw_a_lone_method_and_a_leakage_have_no_best() -> None:
    even = {"ega": {"a": 0.2}, "ria": {"a": 0.20005}}
    assert named(made(even), "tdd", ["ega", "ria"]).why == "ria and ega are a draw"
    assert named(made({"ria": {"a": 0.2}}), "tdd", ["ria"]).why == "fewer than two methods have a value"
    leaks = named(made({"ega": {"a": 0.2}, "ria": {"a": 0.9}}, metric="leak_abs"), "leak_abs", ["ega", "ria"])
    assert leaks.method == ""
    assert leaks.why


def test_methods_are_compared_over_the_runs_that_have_them_all() -> None:
    runs = made({"ega": {"a": 0.2}, "ria": {"a": 0.3}}, {"ega": {"b": 0.9}})
    found = named(runs, "tdd", ["ega", "ria"])
    assert (found.method, found.runs, found.every) == ("ria", 1, 2)
    assert named(made({"ega": {"a": 1.0}}, {"ria": {"a": 0.1}}), "tdd", ["ega", "ria"]).method == ""


def test_missed_targets_are_counted_once_an_image() -> None:
    table = {"ega": {"a": 0.2, "b": 0.3}, "ria": {"a": 0.3, "b": 0.1}}
    assert missed(made(table, iou=MISSED_IOU - 0.01)) == (2, 2)
    assert missed(made(table, table, iou=MISSED_IOU - 0.01)) == (2, 2)
    assert missed(made(table, iou=MISSED_IOU)) == (0, 2)


@pytest.mark.parametrize("target", [{"source": "missed"}, {"score": "margin", "versus": "predicted"}])
def test_targets_that_were_asked_for_as_missed_are_not_counted(target: dict[str, str]) -> None:
    runs = made({"ega": {"a": 0.2, "b": 0.3}}, iou=0.0)
    assert missed(runs) == (2, 2)
    runs[0].description["settings"]["target"] = target
    assert missed(runs) == (0, 0)


def test_a_method_that_fails_on_hard_images_is_not_best() -> None:
    """EGA has a value on easy images alone; on these RIA is ahead."""
    ria = {"easy1": 0.9, "easy2": 0.8, "hard1": 0.1, "hard2": 0.2}
    table = {"ria": ria, "ega": {"easy1": 0.8, "easy2": 0.7}}
    found = named(made(table), "tdd", ["ria", "ega"])
    assert found.method == ""
    assert (found.easier, found.ahead) == ("ega", "ria")
    assert found.why == "over the images that both have, ria is ahead of ega"
    table["ega"] = {"easy1": 0.95, "easy2": 0.85}
    assert named(made(table), "tdd", ["ria", "ega"]).method == "ega", "it is ahead on the images of both"
    table["ega"] = {"other": 0.95}
    assert named(made(table), "tdd", ["ria", "ega"]).method == "ega", "no image of both says anything else"
