"""The chart of run-level means against the table, the paper's marks, and values beyond the axis."""

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from segfaith.errors import SettingsError
from segfaith.results.figures import dots


def table(means: dict[str, tuple[float, ...]], metric: str = "tdd") -> pd.DataFrame:
    """Each method's value in each run."""
    return pd.DataFrame(
        [
            {"run": f"run{run}", "method": method, "metric": metric, "value": value}
            for method, values in means.items()
            for run, value in enumerate(values)
        ]
    )


def marks(axes: Axes) -> list[float]:
    """Where the runs' dots stand."""
    dots = [line for line in axes.lines if line.get_marker() not in ("None", "D")]
    return sorted(float(value) for line in dots for value in line.get_xdata())


def test_a_dot_for_each_run_and_a_bar_at_their_mean() -> None:
    values = pd.concat(
        [
            table({"ega": (0.19, 0.2, 0.21), "dea": (0.39, 0.4, 0.41)}, "tdd_gain"),
            table({"ega": (0.97, 0.98, 0.99), "dea": (0.94, 0.95, 0.96)}, "stability"),
            table({"ega": (0.03, 0.04, 0.05), "dea": (2.0, 2.1, 2.2)}, "runtime_s"),
        ]
    )
    figure = dots.run_dots(values, labels={"dea": "Ours"})
    shown = [axes for axes in figure.axes if axes.lines]
    assert [axes.get_title()[:-2] for axes in shown] == ["TDD gain", "Stab.", "Time s"]
    np.testing.assert_allclose(marks(shown[0]), [0.19, 0.2, 0.21, 0.39, 0.4, 0.41])
    bars = [line.get_xdata() for line in shown[0].lines if line.get_linestyle() == "-"]
    np.testing.assert_allclose(bars, [[0.2, 0.2], [0.4, 0.4]])
    assert [axes.get_xscale() for axes in shown] == ["linear", "linear", "log"]
    assert [text.get_text() for text in shown[0].get_yticklabels()] == ["ega", "Ours"]
    assert not any(axes.texts for axes in shown)
    with pytest.raises(SettingsError, match=r"expected run-level means of tdd, .*; got none"):
        dots.run_dots(values.assign(value=math.nan))


def test_the_papers_means_are_open_diamonds() -> None:
    values = table({"ega": (0.2, 0.3), "dea": (0.4, 0.5), "mask": (0.1, 0.2)})
    paper = {("ega", "tdd"): 0.287, ("dea", "tdd"): 0.449, ("mask", "tdd"): math.nan, ("gpa", "tdd"): 0.27}
    figure = dots.run_dots(values, paper)
    diamonds = [(line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].lines if line.get_marker() == "D"]
    assert diamonds == [(0.287, 0), (0.449, 1)]
    entries = [text.get_text() for text in figure.legends[0].get_texts()]
    assert entries[-1] == "the paper's mean"
    assert "the paper's mean" not in [text.get_text() for text in dots.run_dots(values).legends[0].get_texts()]


def test_an_outlier_does_not_squeeze_the_others_but_stands_at_the_edge_with_its_value() -> None:
    means = {name: (0.1 + i / 20, 0.12 + i / 20, 0.11 + i / 20) for i, name in enumerate(("gpa", "ega", "ria", "dea"))}
    values = table(means | {"mask": (0.1, 0.2, 40.0)}, "odd_abs")
    (axes,) = [one for one in dots.run_dots(values).axes if one.lines]
    assert axes.get_xlim()[1] < 1
    assert axes.get_xscale() == "linear"
    assert [text.get_text() for text in axes.texts] == ["40, mean 13"]
    assert axes.texts[0].xy[1] == 4
    every = sorted(value for own in values["value"] for value in [own] if value < 1)
    np.testing.assert_allclose(marks(axes), every)


def test_many_values_or_small_gains_are_not_cut() -> None:
    assert dots.reach([1, 2, 3, 4, 100]) == (1, 4)
    assert dots.reach([1, 2, 3, 4, math.nan, -100]) == (1, 4)
    assert dots.reach([1, 2, 3, 4, 99, 100]) == (1, 100)
    assert dots.reach([1, 1, 1, 1, 1.5]) == (1, 1.5)
    assert dots.reach([0.3]) == (0.3, 0.3)
    assert dots.reach([0, 10, 10.1, 10.2, 10.3, 17]) == (0, 17)


def test_more_than_two_values_beyond_are_counted_and_the_paper_is_told() -> None:
    many = tuple(0.1 + i / 1000 for i in range(20))
    values = table({"gpa": many, "ega": many, "dea": (*many[:17], 50.0, 60.0, 70.0)}, "odd_abs")
    (axes,) = [one for one in dots.run_dots(values, {("gpa", "odd_abs"): -30.0}).axes if one.lines]
    assert {text.get_text() for text in axes.texts} == {"3 runs, mean 9.1", "paper \N{MINUS SIGN}30"}
