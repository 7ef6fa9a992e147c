"""Figures: rules of choice and fronts re-derived, what is drawn, what is said to be missing, and no global state."""

import ast
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib import _pylab_helpers
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image

import segfaith.results
from made_runs import FRACTIONS, edit_description, make_run
from segfaith.errors import SettingsError
from segfaith.paths import map_name
from segfaith.results.figures import cases as galleries
from segfaith.results.figures.save import FIGURES, charts, diagrams, write_figures
from segfaith.results.figures.style import COLUMN_WIDTH, FULL_WIDTH, LOOKS, OTHERS, STYLE, literal, looks, run_looks
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.select import method_order, without_variants
from segfaith.results.statistics import cases
from segfaith.results.statistics.friedman import Friedman

FOUR = ("gpa", "ega", "ria", "dea")


def with_parameters(directory: Path, alpha: float = 0.65, beta: float = 0.35) -> Path:
    parameters = {"alpha": alpha, "beta": beta}
    edit_description(directory, lambda about: about["methods"]["dea"].update(parameters=parameters))
    return directory


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two runs of one model with other seeds and noise, all of whose samples have maps."""
    folder = tmp_path_factory.mktemp("runs")
    paths = [make_run(folder / f"seed{seed}", seed=seed, maps=24, size=16) for seed in (0, 1)]
    return [load_run(with_parameters(path)) for path in paths]


@pytest.fixture(scope="module")
def written(made: list[Run], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("written")
    return folder / "figures", write_figures(made, folder)


def by_hand(*rows: tuple[str, float, float, float, float, float, float], directory: Path) -> Run:
    """A run whose samples have (id, s, TDD of EGA and DEA, OT abs of EGA and DEA, TDD gain of DEA), with tiny maps."""
    records: list[dict[str, Any]] = []
    for sample, s, tdd_ega, tdd_dea, odd_ega, odd_dea, gain in rows:
        figures = {"ega": (tdd_ega, odd_ega, 0.0), "ria": (0.9, 0.0, 0.5), "dea": (tdd_dea, odd_dea, gain)}
        folder = directory / "maps" / sample
        folder.mkdir(parents=True)
        for method, (tdd, odd_abs, tdd_gain) in figures.items():
            np.save(folder / f"{method}.npy", np.zeros((4, 4), np.float32))
            base = {"sample_id": sample, "class_index": 1.0, "method": method, "s": s, "status": "ok"}
            records.append(base | {"tdd": tdd, "odd_abs": odd_abs, "tdd_gain": tdd_gain})
        for name in cases.PICTURES:
            Image.new("RGB", (4, 4), "white").save(folder / name)
    about = {"model": {"classes": ["background", "bird"]}, "data": {"name": "hand", "split": "val"}, "methods": {}}
    return Run(directory, about, pd.DataFrame(records), pd.DataFrame(), pd.DataFrame())


# -- the rules ------------------------------------------------------------------------------------------------------


def test_successes_on_records_made_by_hand(tmp_path: Path) -> None:
    run = by_hand(
        ("worse", 0.9, 0.5, 0.4, 0.2, 0.1, 0.1),
        ("leaks", 0.9, 0.1, 0.9, 0.2, 0.21, 0.1),
        ("faint", 0.29, 0.1, 0.9, 0.2, 0.1, 0.1),
        ("b-tie", 0.3, 0.3, 0.5, 0.2, 0.2, 0.1),
        ("a-tie", 0.9, 0.1, 0.3, 0.2, 0.1, 0.1),
        ("best", 0.9, 0.1, 0.6, 0.2, 0.1, 0.1),
        ("undefined", 0.9, 0.1, math.nan, 0.2, 0.1, 0.1),
        directory=tmp_path / "run",
    )
    choice = cases.successes([run])
    assert choice.ids == ["best", "a-tie", "b-tie"]
    assert (choice.candidates, choice.eligible, choice.why) == (6, 3, "")
    assert choice.cases[0].why == "TDD +0.50 over EGA"
    assert choice.rule in choice.words
    assert "best of run (TDD +0.50 over EGA); a-tie of run" in choice.words
    assert cases.successes([run], n=2).ids == ["best", "a-tie"]


def test_failures_and_the_typical_case_on_records_made_by_hand(tmp_path: Path) -> None:
    run = by_hand(
        ("blind", 0.9, 0.1, 0.10, 0.2, 0.9, -0.3),
        ("blunt", 0.9, 0.1, 0.20, 0.2, 0.1, -0.2),
        ("good", 0.9, 0.1, 0.50, 0.2, 0.3, 0.4),
        ("leaky", 0.9, 0.1, 0.40, 0.2, 0.8, 0.3),
        ("fluent", 0.9, 0.1, 0.30, 0.2, 0.5, 0.2),
        ("faint", 0.1, 0.1, 0.35, 0.2, 9.0, -9.0),
        directory=tmp_path / "run",
    )
    choice = cases.failures([run])
    assert choice.ids == ["blind", "blunt", "leaky", "fluent"]
    assert [case.why for case in choice.cases[1:3]] == ["lowest TDD gain, -0.20", "highest OT abs, 0.80"]
    assert cases.failures([run], n=3).ids == ["blind", "blunt", "leaky"]
    assert cases.typical([run]).ids == ["fluent"]
    assert choice.cases[0].title == "bird"


def test_choices_agree_with_a_slow_search(made: list[Run]) -> None:
    rows = []
    for run in made:
        table = {(row["sample_id"], row["method"]): row for row in run.records.to_dict("records")}
        for sample in dict.fromkeys(run.records["sample_id"]):
            three = [table[sample, method] for method in ("ega", "ria", "dea")]
            if all(row["status"] == "ok" for row in three) and three[0]["s"] >= 0.3:
                rows.append((sample, run.label, three[0], three[2]))
    margins = [
        (ega["tdd"] - dea["tdd"], sample, label)
        for sample, label, ega, dea in rows
        if dea["tdd"] > ega["tdd"] and dea["odd_abs"] <= ega["odd_abs"]
    ]
    expected: list[str] = []
    for _, sample, _ in sorted(margins):
        expected += [] if sample in expected else [sample]
    choice = cases.successes(made, n=6)
    assert choice.ids == expected[:6]
    assert (choice.candidates, choice.eligible) == (len(rows), len(margins))
    gains: list[str] = []
    for _, sample, _ in sorted((dea["tdd_gain"], sample, label) for sample, label, _, dea in rows):
        gains += [] if sample in gains else [sample]
    leaks: list[str] = []
    for _, sample, _ in sorted((-dea["odd_abs"], sample, label) for sample, label, _, dea in rows):
        leaks += [] if sample in (*leaks, *gains[:2]) else [sample]
    assert cases.failures(made).ids == [*gains[:2], *leaks[:2]]
    middle = sorted((dea["tdd"], sample) for sample, _, _, dea in rows)[(len(rows) - 1) // 2]
    assert cases.typical(made).ids == [middle[1]]


def test_only_samples_whose_maps_were_kept_are_candidates(tmp_path: Path) -> None:
    row = (0.9, 0.1, 0.5, 0.2, 0.1, 0.3)
    run = by_hand(("whole", *row), ("half", *row), ("bare", *row), directory=tmp_path / "run")
    (tmp_path / "run/maps/half/ria.npy").unlink()
    (tmp_path / "run/maps/bare/target.png").unlink()
    assert cases.successes([run]).ids == ["whole"]
    (tmp_path / "run/maps/whole/dea.npy").unlink()
    choice = cases.failures([run])
    assert choice.ids == []
    assert "no sample with s >= 0.3 has maps of ega, ria, dea; keep them with [output] maps = true" in choice.why
    with pytest.raises(SettingsError, match="expected at least one case; got none: no sample"):
        galleries.gallery(choice)


def test_a_rule_that_none_meets_is_said(tmp_path: Path) -> None:
    choice = cases.successes([by_hand(("a", 0.9, 0.5, 0.4, 0.2, 0.1, 0.1), directory=tmp_path / "run")])
    assert choice.why.startswith("none of 1 candidates meets the rule. Success: s >= 0.3")
    assert map_name("maps:../their/maps") == "maps:.._their_maps.npy"


# -- the mechanism ---------------------------------------------------------------------------------------------------


def test_the_parts_of_equation_2_by_loops() -> None:
    rng = np.random.default_rng(3)
    first, second, alpha, beta = rng.random((3, 4)), rng.random((3, 4)), 0.6, 0.3
    parts = galleries.dea_parts(first, second, alpha, beta)
    pairs = [[(float(first[y, x]), float(second[y, x])) for x in range(4)] for y in range(3)]
    total = [[alpha * a * (1 + beta * b) + (1 - alpha) * b for a, b in row] for row in pairs]
    low, high = min(map(min, total)), max(map(max, total))
    np.testing.assert_allclose(parts.corrected, [[(v - low) / (high - low) for v in row] for row in total], rtol=1e-12)
    np.testing.assert_allclose(parts.agreement, [[a * b for a, b in row] for row in pairs])
    everything = sum(map(sum, total))
    assert parts.shares["interaction"] == pytest.approx(alpha * beta * (first * second).sum() / everything)
    assert sum(parts.shares.values()) == pytest.approx(1)
    zero = galleries.dea_parts(np.zeros((2, 2)), np.zeros((2, 2)), alpha, beta)
    assert zero.corrected.tolist() == [[0, 0], [0, 0]]
    assert all(math.isnan(share) for share in zero.shares.values())
    with pytest.raises(SettingsError, match=r"expected an EGA and a RIA map of one shape; got \(2, 2\) and \(3, 2\)"):
        galleries.dea_parts(np.zeros((2, 2)), np.zeros((3, 2)), alpha, beta)


def test_the_mechanism_shows_the_kept_maps_and_their_product(made: list[Run]) -> None:
    case = cases.typical(made).cases[0]
    figure = galleries.mechanism(case)
    kept = {name: np.load(case.folder / f"{name}.npy").astype(float) for name in ("ega", "ria")}
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.axes[1:5]]
    total = 0.65 * kept["ega"] * (1 + 0.35 * kept["ria"]) + 0.35 * kept["ria"]
    expected = [kept["ega"], kept["ria"], kept["ega"] * kept["ria"], (total - total.min()) / np.ptp(total)]
    for one, other in zip(shown, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    region = np.asarray(Image.open(case.folder / "target.png"))[..., 0] > 127
    inside = expected[2][region].sum() / expected[2].sum()
    assert figure.axes[3].get_xlabel() == f"{100 * inside:.0f} % in target"
    assert [axes.images[0].get_clim() for axes in figure.axes[1:5]] == [(0, 1)] * 4
    words = galleries.mechanism_words(case)
    assert "made from other evidence" in words  # the made DEA map is no fusion
    before = (case.folder / "dea.npy").read_bytes()
    np.save(case.folder / "dea.npy", expected[3].astype(np.float32))
    try:
        assert "made from other evidence" not in galleries.mechanism_words(case)
    finally:
        (case.folder / "dea.npy").write_bytes(before)


def test_the_mechanism_needs_the_parameters_of_dea(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "bare", maps=2, size=8))
    with pytest.raises(SettingsError, match=r"run\.json of bare states no alpha and beta of dea"):
        galleries.mechanism(cases.typical([run]).cases[0])


def test_a_gallery_has_a_row_a_case_and_a_tile_a_method(made: list[Run]) -> None:
    choice = cases.successes(made, n=2)
    figure = galleries.gallery(choice)
    assert [axes.get_title() for axes in figure.axes] == ["image, target", "GPA", "EGA", "RIA", "DEA", *[""] * 5]
    record = choice.cases[1].record
    dea = record.loc["dea"]
    assert figure.axes[9].get_xlabel() == f"TDD {dea['tdd']:.2f}  OT {dea['odd_abs']:.2f}"
    assert figure.axes[5].get_xlabel() == choice.cases[1].why
    assert f"s = {dea['s']:.2f}" in figure.axes[5].get_ylabel()
    (choice.cases[0].folder / "gpa.npy").rename(choice.cases[0].folder / "elsewhere.npy")
    try:
        again = galleries.gallery(choice)
    finally:
        (choice.cases[0].folder / "elsewhere.npy").rename(choice.cases[0].folder / "gpa.npy")
    assert [text.get_text() for text in again.axes[1].texts] == ["no map"]
    assert not again.axes[1].images


# -- charts ----------------------------------------------------------------------------------------------------------


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
    assert runtime.get_ylabel() == "TDD gain \N{UPWARDS ARROW}"


def _points(axes: Any) -> Iterator[Any]:
    return (line for line in axes.lines if line.get_marker() != "None" and len(line.get_xdata()) == 1)


def test_a_tradeoff_without_stability_or_with_a_metric_that_ranks_nothing_is_refused() -> None:
    table = run_values({"ega": (0.2, math.nan, 0.04)})
    with pytest.raises(SettingsError, match="expected a method with tdd_gain, stability, runtime_s; got none"):
        charts.tradeoff(table)
    with pytest.raises(SettingsError, match="odd ranks nothing; expected a metric with a direction"):
        charts.tradeoff(run_values({"ega": (0.2, 0.9, 0.04)}).replace("tdd_gain", "odd"), "odd")


def test_a_dot_for_each_run_and_a_bar_at_their_mean() -> None:
    table = run_values({"ega": (0.2, 0.98, 0.04), "dea": (0.4, 0.95, 2.1)}, runs=3)
    figure = charts.run_dots(table)
    shown = [axes for axes in figure.axes if axes.lines]
    assert [axes.get_title()[:-2] for axes in shown] == ["TDD gain", "Stab.", "Time s"]
    dots = sorted(float(line.get_xdata()[0]) for line in _points(shown[0]))
    np.testing.assert_allclose(dots, sorted([0.19, 0.2, 0.21, 0.39, 0.4, 0.41]))
    bars = [line.get_xdata() for line in shown[0].lines if len(line.get_xdata()) == 2]
    np.testing.assert_allclose(bars, [[0.2, 0.2], [0.4, 0.4]])
    assert [axes.get_xscale() for axes in shown] == ["linear", "linear", "log"]
    assert [text.get_text() for text in shown[0].get_yticklabels()] == ["ega", "dea"]
    with pytest.raises(SettingsError, match=r"expected run-level means of tdd, .*; got none"):
        charts.run_dots(table.assign(value=math.nan))


def curve_means(fractions: tuple[float, ...] = (0.4, 0.2)) -> pd.DataFrame:
    kinds = ("target_deletion", "insertion")
    rows = [
        {"method": method, "kind": kind, "k": k, "mean": 9.0, "value": k, "low": k - 0.1, "high": k + 0.1}
        for method, kind, k in itertools.product(("ega", "dea"), kinds, fractions)
    ]
    return pd.DataFrame(rows)


def test_curves_have_a_panel_a_kind_and_a_band_a_method() -> None:
    panels = charts.curves(curve_means()).axes
    assert [axes.get_title() for axes in panels] == ["TDD", "insertion gain"]
    for axes in panels:
        lines = [line for line in axes.lines if len(line.get_xdata()) == 2 and list(line.get_xdata()) != [0, 1]]
        assert [list(line.get_xdata()) for line in lines] == [[0.2, 0.4]] * 2
        assert len(axes.collections) == 2
        corners = {tuple(one) for one in axes.collections[0].get_paths()[0].vertices.round(6).tolist()}
        assert {(0.2, 0.1), (0.2, 0.3), (0.4, 0.3), (0.4, 0.5)} <= corners
    with pytest.raises(SettingsError, match=r"expected curves over at least two values of k; got 1; measure them with"):
        charts.curves(curve_means((0.2,)))


def test_randomisation_names_the_parts_in_the_order_of_the_stages() -> None:
    parts = ("", "head", "layer4")
    table = pd.DataFrame(
        [{"method": "dea", "stage": s, "part": parts[s], "spearman": 1 - s / 4, "pearson": 0.0} for s in (2, 0, 1)]
    )
    (axes,) = charts.randomisation({"net": table}).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["none", "head", "layer4"]
    assert list(axes.lines[0].get_ydata()) == [1, 0.75, 0.5]
    both = charts.randomisation({"net": table, "other": table.assign(part="x"), "short": table[:1]})
    assert [one.get_title() for one in both.axes] == ["net", "other"]
    with pytest.raises(SettingsError, match="expected similarities at two stages or more; got none; make the check"):
        charts.randomisation({"net": table[:1]})


# -- diagrams of rankings --------------------------------------------------------------------------------------------


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
    words = {text.get_text().strip() for text in axes.texts}
    assert {"ria  1.25", "dea  2.25", "3.50  gpa", "3.00  ega", "CD = 1.20"} <= words
    bars = [line.get_xdata() for line in axes.lines if line.get_linewidth() == 2.4]
    np.testing.assert_allclose(bars, [[2.2, 3.05], [2.95, 3.55]])
    marks = {line.get_marker(): line.get_xdata()[0] for line in axes.lines if line.get_marker() != "None"}
    assert marks == {LOOKS[name].marker: rank for name, rank in ranks.items()}
    with pytest.raises(SettingsError, match="could be made; stability: not testable: one image"):
        diagrams.critical_differences([test, friedman(ranks, set(), "stability", "not testable: one image")])
    with pytest.raises(SettingsError, match="expected at least one Friedman test; got none"):
        diagrams.critical_differences([])


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
    assert figure.axes[0].get_xlabel() == "occlusion operator\nKendall's W = 0.25, beyond chance -0.50"
    assert figure.axes[1].get_xlabel() == "k"
    single = diagrams.ranks({"tdd": {"occlusion": operators[:2], "k": fractions}})
    assert [axes.get_xlabel() for axes in single.axes] == ["k"]
    with pytest.raises(SettingsError, match="expected at least two occlusion operators or two values of k"):
        diagrams.ranks({"tdd": {"occlusion": operators[:2]}})


# -- the look --------------------------------------------------------------------------------------------------------


def test_methods_look_different_in_grey_and_the_same_everywhere() -> None:
    names = [*LOOKS, "dea@alpha=0.5", "dea@alpha=0.8", "lime", "own.py:build"]
    chosen = looks(names)
    assert len({look.marker for look in chosen.values() if look.colour == LOOKS["dea"].colour}) == 3
    assert len({(look.marker, look.colour) for look in chosen.values()}) == len(names)
    assert looks(names[::-1]) == chosen
    assert looks(["own.py:build", "dea", "lime"]).items() <= chosen.items()
    assert len({look.marker for look in (*LOOKS.values(), *OTHERS)}) == len(LOOKS) + len(OTHERS)
    assert len(set(run_looks([f"run{i}" for i in range(72)]).values())) == 72
    assert len({look.marker for look in run_looks([f"run{i}" for i in range(12)]).values()}) == 12
    assert method_order(["mask", "lime", "dea@alpha=0.5", "random", "dea", "gpa"]) == [
        *("gpa", "dea@alpha=0.5", "dea", "lime", "random", "mask")
    ]


def test_words_are_no_formulas_and_not_too_long() -> None:
    assert literal("a $b$ c") == r"a \$b\$ c"
    assert literal("x" * 30 + "y" * 30) == "x" * 12 + "..." + "y" * 15


# -- everything together ---------------------------------------------------------------------------------------------


def test_all_figures_are_written_as_valid_png_and_pdf(written: tuple[Path, list[Path]]) -> None:
    folder, paths = written
    stems = [f"{name}-voc2012-val" for name in FIGURES]
    assert paths == [*(folder / f"{stem}.{end}" for stem in stems for end in ("png", "pdf")), folder / "figures.md"]
    assert sorted(folder.iterdir()) == sorted(paths)
    for path in paths[:-1]:
        content = path.read_bytes()
        if path.suffix == ".pdf":
            assert content.startswith(b"%PDF-")
            assert content.rstrip().endswith(b"%%EOF")
            assert b"CreationDate" not in content
        else:
            with Image.open(path) as picture:
                picture.load()
                assert picture.format == "PNG"
                assert "Software" not in picture.info
                inches = picture.width / STYLE["savefig.dpi"]
            assert min(abs(inches - width) for width in (COLUMN_WIDTH, FULL_WIDTH)) < 0.01
            assert np.asarray(Image.open(path).convert("L")).std() > 5


def test_the_words_hold_captions_rules_and_chosen_samples(made: list[Run], written: tuple[Path, list[Path]]) -> None:
    text = (written[0] / "figures.md").read_text(encoding="utf-8")
    assert text.endswith("## Not drawn\n\nNothing is missing.\n")
    for name in FIGURES:
        assert f"![{name}-voc2012-val]({name}-voc2012-val.png)" in text
    for choice in (cases.successes(made), cases.failures(made), cases.typical(made)):
        assert choice.words in text
    assert "Shares of the three summands" in text
    assert str(made[0].directory) not in text


def test_what_cannot_be_drawn_is_named_with_the_reason_and_its_old_files_go(tmp_path: Path) -> None:
    runs = [
        load_run(make_run(tmp_path / str(seed), seed=seed, curves=False, maps=0, randomisation=False, methods=FOUR))
        for seed in (0, 1)
    ]
    runs = [replace(run, records=run.records.assign(stability=math.nan)) for run in runs]
    old, others = tmp_path / "figures/curves-voc2012-val.pdf", tmp_path / "figures/curves-of-mine.pdf"
    old.parent.mkdir()
    old.write_text("old")
    others.write_text("mine")
    paths = write_figures(runs, tmp_path)
    assert [path.name for path in paths if path.suffix == ".png"] == [
        "runs-voc2012-val.png",
        "critical-differences-voc2012-val.png",
    ]
    assert not old.exists()
    assert others.exists()
    drawn, missing = (tmp_path / "figures/figures.md").read_text(encoding="utf-8").split("## Not drawn")
    reasons = {
        "success": "no sample with s >= 0.3 has maps of ega, ria, dea",
        "failure": "no sample with s >= 0.3 has maps of ega, ria, dea",
        "mechanism": "no sample with s >= 0.3 has maps of ega, ria, dea",
        "tradeoff": "is stability measured?",
        "curves": "expected curves over at least two values of k; got 0",
        "rankings": "expected at least two occlusion operators",
        "randomisation": "expected similarities at two stages or more; got none",
    }
    lines = missing.strip().splitlines()
    assert len(lines) == len(reasons)
    for line, (name, reason) in zip(lines, reasons.items(), strict=True):
        assert line.startswith(f"- `{name}-voc2012-val`: ")
        assert reason in line
    assert "- No diagram of Stab.: not testable" in drawn
    write_figures(runs[:1], tmp_path)
    text = (tmp_path / "figures/figures.md").read_text(encoding="utf-8")
    assert "- `critical-differences-voc2012-val`: No diagram of TDD: not testable: " in text
    assert not (tmp_path / "figures/critical-differences-voc2012-val.png").exists()
    with pytest.raises(SettingsError, match="expected at least one run to draw figures of; got none"):
        write_figures([], tmp_path)


def test_each_data_set_has_figures_of_its_own_and_the_same_data_the_same_bytes(
    made: list[Run], written: tuple[Path, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = {name: FIGURES[name] for name in ("mechanism", "tradeoff")}
    monkeypatch.setattr("segfaith.results.figures.save.FIGURES", some)
    other = [replace(run, description=run.description | {"data": {"name": "sbd", "split": "train"}}) for run in made]
    names = [path.name for path in write_figures([*made, *other], tmp_path)]
    assert names == [
        f"{name}-{label}.{end}" for label in ("voc2012-val", "sbd-train") for name in some for end in ("png", "pdf")
    ] + ["figures.md"]
    for name in names[:4]:
        assert (tmp_path / "figures" / name).read_bytes() == (written[0] / name).read_bytes(), name


def test_a_method_of_few_runs_does_not_empty_the_critical_differences(tmp_path: Path) -> None:
    lists = ((*FOUR, "mask"), FOUR[1:], FOUR[1:])
    paths = [
        make_run(tmp_path / str(seed), seed=seed, methods=names, curves=False, maps=0, randomisation=False)
        for seed, names in enumerate(lists)
    ]
    drawing = FIGURES["critical-differences"]([load_run(path) for path in paths])
    assert "Left out, in fewer than half of the runs: gpa." in drawing.remarks
    assert "Controls and variants are left out" in drawing.caption
    assert [len(axes.get_title()) > 0 for axes in drawing.figure.axes] == [True] * 4
    words = " ".join(text.get_text() for text in drawing.figure.axes[0].texts)
    assert all(f" {name} " in words for name in FOUR[1:])
    assert "mask" not in words
    assert "gpa" not in words


def test_variants_go_where_their_method_is_there(made: list[Run]) -> None:
    run = without_variants(made[0])
    for table in (run.records, run.curves, run.randomisation):
        assert set(table["method"]) == {*FOUR, "random_cells", "mask"}
    assert len(run.curves) == (made[0].curves["method"].isin([*FOUR, "random_cells", "mask"])).sum()
    alone = replace(run, records=made[0].records[made[0].records["method"] == "dea@alpha=0.5"])
    assert set(without_variants(alone).records["method"]) == {"dea@alpha=0.5"}
    assert run.curves["k"].nunique() == len(FRACTIONS)


def test_pyplot_is_neither_imported_nor_left_with_figures(written: tuple[Path, list[Path]]) -> None:
    folder = Path(segfaith.results.__file__).parent
    modules = sorted((folder / "figures").glob("*.py"))
    assert len(modules) > 4
    for module_file in modules:
        name = module_file.name
        for node in ast.walk(ast.parse(module_file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            assert not any("pyplot" in f"{module}.{one}" for one in names), name
    assert written[1]
    assert _pylab_helpers.Gcf.get_all_fig_managers() == []
    assert isinstance(charts.curves(curve_means()), Figure)
