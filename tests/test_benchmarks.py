"""The benchmarks' peers compute what segfaith computes, and the tables say what was timed."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import jobs
import peers
import speed
from jobs import FEW, JOBS, Run, intervene
from speed import Row, Timed, figures, markdown, means
from workload import CELLS, SIZE, Workload, make_case

from toys import SmallCNN, plain


@pytest.fixture(scope="module")
def case() -> Workload:
    """Noise instead of the photograph, of which hardly two pixels are alike."""
    with pytest.MonkeyPatch.context() as patch:
        noise = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        patch.setattr("workload.read_image", lambda size: noise)
        return make_case(plain(SmallCNN(), layer="backbone"), 0.2)


# What is timed side by side


@pytest.mark.parametrize("name", ["FeatureAblation", "Occlusion"])
def test_captum_measures_rias_drops(case: Workload, name: str) -> None:
    ours = intervene(case, 1, CELLS, method="ria").values["drop"]
    theirs = JOBS[name](case, 16, CELLS)
    np.testing.assert_allclose(theirs.values["drop"], ours, rtol=0, atol=1e-6)
    assert theirs.left_out == 0
    assert np.abs(ours).max() > 1e-3


def test_a_part_of_the_cells_has_the_drops_of_all_and_its_seconds_are_scaled(
    case: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([10.0, 13.0])
    monkeypatch.setattr(peers, "clock", lambda device: next(ticks))
    found = JOBS["FeatureAblation"](case, 16, FEW)
    ours = intervene(case, 1, CELLS, method="ria").values["drop"]
    step = CELLS // FEW
    np.testing.assert_allclose(found.values["drop"][::step], ours[::step], rtol=0, atol=1e-6)
    assert np.isnan(found.values["drop"]).sum() == CELLS - FEW
    passes = FEW + 2  # the image itself, and all other cells at once
    assert 3.0 + found.left_out == pytest.approx(3.0 * (CELLS + 1) / passes)


def test_grad_cam_gives_gpa_and_ega(case: Workload) -> None:
    for ours, theirs in (("gpa", "GradCAM"), ("ega", "HiResCAM")):
        maps = [JOBS[name](case, 1, CELLS).values["map"] for name in (ours, theirs)]
        np.testing.assert_allclose(*maps, rtol=0, atol=1e-4)
        assert (maps[0].min(), maps[0].max()) == (0, 1)


def test_the_composed_protocol_measures_what_a_sample_does(case: Workload) -> None:
    """The cells far from the target, which change nothing, are ordered by rounding alone: it moves ODD a little."""
    tolerances = dict(zip(peers.METRICS, (5e-4, 5e-3, 5e-4, 5e-3), strict=True))
    ours = jobs.sample(case, 1, CELLS).values
    for name in ("each by itself", "passes reused"):
        theirs = JOBS[name](case, 16, CELLS).values
        assert set(theirs) == set(ours) == {"gpa", "ega", "ria", "dea", "random_cells"}
        for method, values in theirs.items():
            for metric, one, other in zip(tolerances, ours[method], values, strict=True):
                assert one == pytest.approx(other, rel=0, abs=tolerances[metric]), f"{name}, {method}, {metric}"


# What is said of it


def run(seconds: float, **values: list[float]) -> Run:
    return Run(seconds, {name: np.array(value) for name, value in values.items()})


def timings() -> dict[tuple[str, str], Timed]:
    """Ours takes 2 s; A takes 5 s alone and 8 s tuned, B takes 6 s and 4 s."""
    drop = [0.5, 0.25, 0.125, 0.0]
    ours = Run(9.0, {}, peak_mb=700.0, idle_mb=500.0, flops=4 * 10**9)
    seconds = {("A", "user"): 5.0, ("A", "tuned"): 8.0, ("B", "user"): 6.0, ("B", "tuned"): 4.0}
    timed = {
        key: Timed(Run(9.0, {}, peak_mb=100 * one), [run(one, drop=drop), run(99, drop=drop), run(0, drop=drop)])
        for key, one in seconds.items()
    }
    return timed | {("ours", "tuned"): Timed(ours, [run(one, drop=[0.5, 0.25, 0.127, 0.001]) for one in (1, 3, 2)])}


ROW = Row("ria", "RIA", "ours", ("A", "B"), ("A", "B"), images=10)


def test_a_row_compares_medians_with_the_fastest_peer() -> None:
    found = figures(ROW, timings(), dense=10**9, peak=4e9)
    assert (found["ours_s"], found["ratio_user"], found["ratio_tuned"]) == (2, 2.5, 2.0)
    assert (found["peer"], found["peer_tuned"], found["peer_peak_mb"]) == ("A", "B", 500)
    assert found["difference"] == pytest.approx(0.002)
    assert found["peak_share"] == pytest.approx(4e9 / 2 / 4e9)
    assert found["dense_share"] == pytest.approx(10 * 1e9 / 2 / 4e9)
    assert (found["cells_above_1e-3"], found["spearman"]) == (3, pytest.approx(1))


def test_what_is_undefined_on_one_side_only_shows() -> None:
    one_sided = speed._gaps({"gpa": np.array([0.5, np.nan])}, {"gpa": np.array([0.5, 0.25])})
    assert np.isnan(one_sided["gpa"][1])
    both = speed._gaps({"gpa": np.array([0.5, np.nan])}, {"gpa": np.array([0.25, np.nan])})
    assert both["gpa"] == [0.25, 0]
    unmeasured = speed._gaps({"drop": np.array([0.5, 0.25])}, {"drop": np.array([0.5, np.nan])})
    assert unmeasured["drop"] == [0], "cells that a scaled peer left out"


def test_tables_mark_what_was_scaled() -> None:
    results = [
        {"model": "m", "mask": mask, "row": "RIA", "scaled": mask == "small"}
        | {"ratio_user": ratio, "ratio_tuned": 3.0, "peer_user_s": 7.25}
        for mask, ratio in (("large", 8.0), ("small", 2.0))
    ]
    (mean,) = means(results)
    assert mean["scaled"], "one of its masks was"
    assert (mean["ratio_user"], mean["ratio_tuned"], mean["masks"]) == (pytest.approx(4), pytest.approx(3), 2)
    text = markdown({"machine": {"device": "cpu"}, "results": results, "means": [mean], "skipped": ["x: no weights"]})
    lines = {line.split(" | ")[1]: line for line in text.splitlines() if line.startswith("| m | ")}
    assert "~7.25" in lines["small"]
    assert "~2.00" in lines["small"]
    assert "~" not in lines["large"]
    assert "Skipped: x: no weights" in text
