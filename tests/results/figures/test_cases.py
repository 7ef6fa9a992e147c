"""Galleries of cases and the mechanism of DEA: what the panels show, and the parts of equation 2 by loops."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from made_runs import make_run
from segfaith.errors import SettingsError
from segfaith.results.figures import cases as galleries
from segfaith.results.records.runs import load_run
from segfaith.results.statistics import cases
from segfaith.results.statistics.analysis import DataAnalysis, analyse


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


def test_the_mechanism_shows_the_kept_maps_and_their_product(part: DataAnalysis) -> None:
    case = cases.typical(part).cases[0]
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
        galleries.mechanism(cases.typical(analyse([run]).parts[0]).cases[0])


def test_a_gallery_has_a_row_a_case_and_a_tile_a_method(part: DataAnalysis) -> None:
    choice = cases.failures(missing_nothing(part), n=2)
    figure = galleries.gallery(choice, ("gpa", "ega", "ria", "dea"), {"dea": "Ours"})
    titles = ["image", "gpa", "ega", "ria", "Ours"]
    assert [axes.get_title() for axes in figure.axes] == [*titles, *[""] * 5, ""]
    record = choice.cases[1].record
    dea = record.loc["dea"]
    assert figure.axes[9].get_xlabel() == f"TDD {dea['tdd']:.2f}\nOT {dea['odd_abs']:.2f}"
    assert figure.axes[5].get_xlabel() == f"s = {dea['s']:.2f}\n{choice.cases[1].why}"
    assert figure.axes[5].get_ylabel() == choice.cases[1].title
    assert figure.axes[10].get_ylim() == (0, 1)  # the colour bar
    (choice.cases[0].folder / "gpa.npy").rename(choice.cases[0].folder / "elsewhere.npy")
    try:
        again = galleries.gallery(choice, ("gpa", "ega", "ria", "dea"))
    finally:
        (choice.cases[0].folder / "elsewhere.npy").rename(choice.cases[0].folder / "gpa.npy")
    assert [text.get_text() for text in again.axes[1].texts] == ["no map"]
    assert not again.axes[1].images


def missing_nothing(part: DataAnalysis) -> DataAnalysis:
    """The analysis with OT abs of DEA so high that every image is a failure."""
    runs = []
    for run in part.runs:
        leaks = run.records["odd_abs"].where(run.records["method"] != "dea", 2.0)
        runs.append(replace(run, records=run.records.assign(odd_abs=leaks)))
    return analyse(runs).parts[0]


def test_a_gallery_has_at_most_six_maps(part: DataAnalysis) -> None:
    choice = cases.failures(missing_nothing(part), n=1)
    methods = [name for name in part.methods if name != "mask"]
    assert len(galleries.with_maps(choice, methods)) == 9
    figure = galleries.gallery(choice, methods)
    assert [axes.get_title() for axes in figure.axes[:-1]] == ["image", *methods[:6]]


def test_the_image_shows_the_predicted_outline_where_it_was_kept(part: DataAnalysis) -> None:
    choice = cases.failures(missing_nothing(part), n=1)
    folder = choice.cases[0].folder

    def yellow() -> bool:
        pixels = np.asarray(galleries.gallery(choice, ("dea",)).axes[0].images[0].get_array())
        return bool((pixels[..., :3] == (255, 219, 0)).all(-1).any())

    assert not yellow()
    mask = np.zeros((16, 16, 3), np.uint8)
    mask[3:9, 4:12] = 255
    Image.fromarray(mask).save(folder / "prediction.png")
    try:
        assert yellow()
    finally:
        (folder / "prediction.png").unlink()


def test_a_choice_without_cases_and_a_picture_that_cannot_be_read_are_refused(
    part: DataAnalysis, tmp_path: Path
) -> None:
    empty = cases.Choice("rule", (), 3, 0, "none meets it")
    with pytest.raises(SettingsError, match="expected at least one case; got none: none meets it"):
        galleries.gallery(empty, ("dea",))
    run = load_run(make_run(tmp_path / "run", maps=24, size=8))
    choice = cases.choose(analyse([run]).parts[0])["best"]
    (choice.cases[0].folder / "target.png").write_bytes(b"no picture")
    with pytest.raises(SettingsError, match=r"target\.png cannot be read"):
        galleries.gallery(choice, ("dea",))
