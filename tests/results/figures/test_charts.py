"""Charts: fronts against a slow search, and what is drawn against the tables."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from segfaith.errors import SettingsError
from segfaith.results.figures import charts


def run_values(means: dict[str, tuple[float, float, float]], runs: int = 2) -> pd.DataFrame:
    """Run-level means that spread by 0.01 around (TDD gain, stability, seconds) of each method."""
    metrics = ("tdd_gain", "stability", "runtime_s")
    shifts = np.linspace(-0.01, 0.01, runs) if runs > 1 else [0.0]
    return pd.DataFrame(
        [
            {"run": f"run{run}", "method": method, "metric": metric, "value": value + shift}
            for run, shift in enumerate(shifts)
            for method, values in means.items()
            for metric, value in zip(metrics, values, strict=True)
        ]
    )


def test_the_front_is_what_no_other_point_beats() -> None:
    rng = np.random.default_rng(0)
    for better in itertools.product(("higher", "lower"), repeat=3):
        points = rng.integers(0, 4, (12, 3)).astype(float)
        points[0, 1] = np.nan

        def at_least(one: float, other: float, way: str) -> bool:
            return one >= other if way == "higher" else one <= other

        expected = []
        for one in points:
            beaten = any(
                all(at_least(o, m, way) for o, m, way in zip(other, one, better, strict=True))
                and any(o != m for o, m in zip(other, one, strict=True))
                for other in points
            )
            expected.append(not beaten and not np.isnan(one).any())
        assert charts.pareto(points, better) == expected
        assert any(expected)


def test_the_tradeoff_draws_means_fronts_and_controls() -> None:
    table = run_values(
        {
            "gpa": (0.1, 0.8, 0.05),
            "ega": (0.2, 0.98, 0.04),
            "ria": (0.5, 0.8, 2.0),
            "dea": (0.4, 0.95, 2.1),
            "mask": (0.05, 1.0, 0.001),
        }
    )
    runtime, stability = charts.tradeoff(table).axes
    points = {tuple(np.round([*line.get_xdata(), *line.get_ydata()], 6)): line for line in _points(runtime)}
    assert set(points) == {(0.05, 0.1), (0.04, 0.2), (2.0, 0.5), (2.1, 0.4)}
    filled = {key: to_hex(line.get_markerfacecolor()) != "#ffffff" for key, line in points.items()}
    assert filled == {(0.05, 0.1): False, (0.04, 0.2): True, (2.0, 0.5): True, (2.1, 0.4): True}
    for panel, front in ((runtime, [(0.04, 0.2), (2.0, 0.5)]), (stability, [(0.8, 0.5), (0.95, 0.4), (0.98, 0.2)])):
        (steps,) = [line for line in panel.lines if line.get_drawstyle().startswith("steps")]
        np.testing.assert_allclose(np.transpose([steps.get_xdata(), steps.get_ydata()]), front)
        levels = [line.get_ydata() for line in panel.lines if list(line.get_xdata()) == [0, 1]]
        np.testing.assert_allclose(levels, [[0.05, 0.05]])
    assert runtime.get_xscale() == "log"
    assert [text.get_text() for text in runtime.get_xticklabels()] == ["0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"]
    assert runtime.get_xticks(minor=True).size == 0
    assert runtime.get_ylabel() == "TDD gain \N{UPWARDS ARROW}"


def _points(axes: Any) -> Iterator[Any]:
    return (line for line in axes.lines if line.get_marker() != "None" and len(line.get_xdata()) == 1)


def test_a_tradeoff_without_stability_or_with_a_metric_that_ranks_nothing_is_refused() -> None:
    table = run_values({"ega": (0.2, math.nan, 0.04)})
    with pytest.raises(SettingsError, match="expected a method with tdd_gain, stability, runtime_s; got none"):
        charts.tradeoff(table)
    with pytest.raises(SettingsError, match="odd ranks nothing; expected a metric with a direction"):
        charts.tradeoff(run_values({"ega": (0.2, 0.9, 0.04)}).replace("tdd_gain", "odd"), "odd")


def curve_means(fractions: tuple[float, ...] = (0.4, 0.2)) -> pd.DataFrame:
    kinds = ("target_deletion", "insertion")
    rows = [
        {"method": method, "kind": kind, "k": k, "mean": 9.0, "value": k, "low": k - 0.1, "high": k + 0.1}
        for method, kind, k in itertools.product(("ega", "dea"), kinds, fractions)
    ]
    return pd.DataFrame(rows)


def test_curves_have_a_panel_a_kind_and_intervals_side_by_side() -> None:
    means = curve_means()
    control = means[means["method"] == "dea"].assign(method="mask")
    figure = charts.curves(pd.concat([means, control]), {"dea": "Ours"})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ega", "Ours", "mask"]
    panels = figure.axes
    assert [axes.get_title() for axes in panels] == ["TDD", "insertion gain"]
    for axes in panels:
        lines = [line for line in axes.lines if len(line.get_xdata()) == 2 and list(line.get_xdata()) != [0, 1]]
        assert [list(line.get_xdata()) for line in lines] == [[0.2, 0.4]] * 3
        bars = [[path.vertices.round(6).tolist() for path in bars.get_paths()] for bars in axes.collections]
        aside = charts.BESIDE / 2
        expected = [[[[k + move, k - 0.1], [k + move, k + 0.1]] for k in (0.2, 0.4)] for move in (-aside, aside)]
        np.testing.assert_allclose(bars, expected)
    with pytest.raises(SettingsError, match=r"expected curves over at least two values of k; got 1; measure them with"):
        charts.curves(curve_means((0.2,)))


def test_an_interval_that_dwarfs_the_means_is_cut() -> None:
    wide = curve_means().assign(high=9.0)
    low, high = charts.curves(wide).axes[0].get_ylim()
    assert high == pytest.approx(0.4 * 1.39)
    assert low < 0
    bare = charts.curves(curve_means().assign(low=math.nan, high=math.nan)).axes[0]
    assert bare.get_ylim()[1] == pytest.approx(0.4 * 1.04)
    assert all(len(bars.get_paths()) == 0 for bars in bare.collections)


def test_randomisation_names_the_parts_in_the_order_of_the_stages() -> None:
    parts = ("", "head", "layer4")
    table = pd.DataFrame(
        [{"method": "dea", "stage": s, "part": parts[s], "spearman": 1 - s / 4, "pearson": 0.0} for s in (2, 0, 1)]
    )
    (axes,) = charts.randomisation({"net": table}).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["none", "head", "layer4"]
    assert list(axes.lines[0].get_ydata()) == [1, 0.75, 0.5]
    long = [table.assign(part=table["part"] + ".a_long_name_of_a_part")]
    (tilted,) = charts.randomisation({"net": long[0]}).axes
    labels = tilted.get_xticklabels()
    assert {(text.get_rotation(), text.get_ha(), text.get_rotation_mode()) for text in labels} == {
        (35, "right", "anchor")
    }
    assert max(len(text.get_text()) for text in labels) <= 18
    stages = [{"method": "dea", "stage": s, "part": f"layer{s}.conv", "spearman": 1 - s / 40} for s in range(40)]
    (dense,) = charts.randomisation({"net": pd.DataFrame(stages)}).axes
    told = [place for place, text in enumerate(dense.get_xticklabels()) if text.get_text()]
    room = dense.figure.get_figwidth() / 40
    assert 2 < len(told) < 40
    assert told[-1] == 39
    assert min(np.diff(told)) * room > 0.13, "a tilted line of 7 points is .1 inches high, and .12 wide on the axis"
    many = charts.randomisation({f"net{i}": table for i in range(5)}).axes
    assert len(many) == 6
    assert sum(axes.axison for axes in many) == 5
    both = charts.randomisation({"net": table, "other": table.assign(part="x"), "short": table[:1]})
    assert [one.get_title() for one in both.axes] == ["net", "other"]
    with pytest.raises(SettingsError, match="expected similarities at two stages or more; got none; make the check"):
        charts.randomisation({"net": table[:1]})
