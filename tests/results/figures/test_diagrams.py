"""Diagrams of ranks: cliques against a slow search, ranks, bars and labels."""

import itertools

import numpy as np
import pandas as pd
import pytest

from segfaith.errors import SettingsError
from segfaith.results.figures import diagrams
from segfaith.results.figures.style import LOOKS
from segfaith.results.statistics.friedman import Friedman


def friedman(ranks: dict[str, float], same: set[frozenset[str]], metric: str = "tdd", why: str = "") -> Friedman:
    names = list(ranks)
    p = [[1.0 if a == b or frozenset((a, b)) in same else 0.01 for b in names] for a in names]
    return Friedman(
        data="hand val",
        metric=metric,
        methods=tuple(names),
        images=20,
        runs=2,
        statistic=9.0,
        p=0.01,
        ranks=ranks,
        critical_difference=1.2,
        nemenyi=pd.DataFrame(p, index=names, columns=names),
        why=why,
    )


def test_cliques_are_the_largest_groups_in_a_row_that_do_not_differ() -> None:
    rng = np.random.default_rng(1)
    names = list("abcdef")
    for _ in range(40):
        ranks = dict(zip(names, rng.permutation(6) + 1.0, strict=True))
        same = {frozenset(pair) for pair in itertools.combinations(names, 2) if rng.random() < 0.7}
        order = sorted(names, key=lambda name: ranks[name])
        spans = [
            order[first:last]
            for first, last in itertools.combinations(range(7), 2)
            if last - first > 1
            and all(frozenset(pair) in same for pair in itertools.combinations(order[first:last], 2))
        ]
        largest = [span for span in spans if not any(set(span) < set(other) for other in spans)]
        assert diagrams.cliques(friedman(ranks, same)) == largest


def test_a_diagram_of_critical_differences_shows_ranks_and_joins_what_does_not_differ() -> None:
    ranks = {"gpa": 3.5, "ega": 3.0, "ria": 1.25, "dea": 2.25}
    test = friedman(ranks, {frozenset(("gpa", "ega")), frozenset(("ega", "dea"))})
    (axes,) = diagrams.critical_differences([test]).axes
    words = {text.get_text() for text in axes.texts}
    assert {"ria 1.25", "dea 2.25", "3.50 gpa", "3.00 ega", "CD = 1.20"} <= words
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 2.4]
    np.testing.assert_allclose(bars, [[2.2, 3.05], [2.95, 3.55]])
    marks = {line.get_marker(): line.get_xdata()[0] for line in axes.lines if line.get_marker() != "None"}
    assert marks == {LOOKS[name].marker: rank for name, rank in ranks.items()}
    (named,) = diagrams.critical_differences([test], {"ria": "Ours"}).axes
    assert "Ours 1.25" in {text.get_text() for text in named.texts}
    with pytest.raises(SettingsError, match="could be made; stability: not testable: one image"):
        diagrams.critical_differences([test, friedman(ranks, set(), "stability", "not testable: one image")])
    with pytest.raises(SettingsError, match="expected at least one Friedman test; got none"):
        diagrams.critical_differences([])


def test_markers_of_equal_ranks_do_not_hide_each_other() -> None:
    tied = friedman(dict.fromkeys(("gpa", "ega", "ria", "dea"), 2.5), set())
    (axes,) = diagrams.critical_differences([tied]).axes
    places = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() != "None"]
    assert [x for x, _ in places] == [2.5] * 4
    heights = sorted(y for _, y in places)
    assert min(np.diff(heights)) > 0.08
    ranks = pd.DataFrame(
        [(setting, method, 1.5) for setting in ("mean", "blur") for method in ("ria", "dea")],
        columns=["setting", "method", "rank"],
    )
    (axes,) = diagrams.ranks({"tdd": {"occlusion": ranks}}, labels={"ria": "Ours"}).axes
    first, second = (line for line in axes.lines if len(line.get_xdata()) == 2)
    assert list(first.get_ydata()) == list(second.get_ydata()) == [1.5, 1.5]
    assert min(np.abs(np.subtract(first.get_xdata(), second.get_xdata()))) > 0.1
    names = {text.get_text(): text.xy[1] for text in axes.texts}
    assert set(names) == {"Ours", "dea"}
    assert abs(names["Ours"] - names["dea"]) == pytest.approx(0.55)


def test_ranks_follow_the_settings_in_order() -> None:
    rows = [("mean", "ria", 1), ("mean", "dea", 2), ("blur", "ria", 2), ("blur", "dea", 1)]
    operators = pd.DataFrame(rows, columns=["setting", "method", "rank"])
    fractions = operators.replace({"setting": {"mean": 0.4, "blur": 0.2}})
    both = {"occlusion": operators, "k": fractions}
    figure = diagrams.ranks({"tdd": both}, {"tdd": {"occlusion": "W = 0.25, beyond chance -0.50"}})
    lines = [{axes.lines[i].get_marker(): list(axes.lines[i].get_ydata()) for i in (0, 1)} for axes in figure.axes]
    ria, dea = LOOKS["ria"].marker, LOOKS["dea"].marker
    assert lines == [{ria: [1, 2], dea: [2, 1]}, {ria: [2, 1], dea: [1, 2]}]
    assert [text.get_text() for text in figure.axes[1].get_xticklabels()] == ["0.2", "0.4"]
    assert figure.axes[0].get_title() == "Kendall's W = 0.25, beyond chance -0.50"
    assert figure.axes[1].get_title() == ""
    assert figure.axes[0].get_xlabel() == "occlusion operator"
    assert figure.axes[1].get_xlabel() == "k"
    single = diagrams.ranks({"tdd": {"occlusion": operators[:2], "k": fractions}})
    assert [axes.get_xlabel() for axes in single.axes] == ["k"]
    with pytest.raises(SettingsError, match="expected at least two occlusion operators or two values of k"):
        diagrams.ranks({"tdd": {"occlusion": operators[:2]}})
