"""Tables from hand-made records, whose every figure is known, and overlays, whose every pixel is."""

from math import nan, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import segfaith
from segfaith.results.figures.overlay import overlay, picture
from segfaith.results.statistics.summary import TABLE_METRICS, summarise

Pair = tuple[dict[str, Any], pd.DataFrame]


def row(sample: str, method: str, tdd: float = nan, **values: Any) -> dict[str, Any]:
    """A record: measured, with s = 0.5, and every metric of the table 0 unless given."""
    base = dict.fromkeys(TABLE_METRICS, 0.0) | {"s": 0.5, "status": "ok", "reason": ""}
    return {"sample_id": sample, "method": method} | base | {"tdd": tdd} | values


def bad(sample: str, method: str, status: str) -> dict[str, Any]:
    empty = dict.fromkeys([*TABLE_METRICS, "s"], nan)
    return {"sample_id": sample, "method": method, "status": status, "reason": "why"} | empty


def run(*rows: dict[str, Any], data: str = "voc2012", samples: int | None = None, seed: int = 4, **model: Any) -> Pair:
    frame = pd.DataFrame(list(rows))
    ids = list(dict.fromkeys(frame["sample_id"])) if samples is None else [f"id{i}" for i in range(samples)]
    description = {
        "data": {"name": data, "split": "val", "samples": ids},
        "model": {"name": "net", "weights": "net.pth"} | model,
        "settings": {"seed": seed},
    }
    return description, frame


def entry(summary: pd.DataFrame, method: str, metric: str = "tdd", data: str = "voc2012 val") -> dict[str, Any]:
    chosen = summary[(summary["data"] == data) & (summary["method"] == method) & (summary["metric"] == metric)]
    assert len(chosen) == 1
    return chosen.to_dict("records")[0]


THREE_RUNS = [
    run(row("a", "ega", 0.1), row("b", "ega", 0.3), row("a", "dea", 0.6), row("b", "dea", 0.8)),
    run(row("a", "ega", 0.5), row("a", "dea", 0.4), seed=5),
    run(row("a", "ega", 0.2), row("b", "ega", 0.2), row("c", "ega", 0.8), row("a", "dea", 1.0), seed=6),
]


def test_each_run_counts_once_whatever_its_size() -> None:
    """Run-level means of ega .2, .5, .4: mean .3666, std with n - 1; the median is over all six samples."""
    summary = summarise(THREE_RUNS)
    ega = entry(summary, "ega")
    assert ega["mean"] == pytest.approx(1.1 / 3)
    middle = 1.1 / 3
    squares = (0.2 - middle) ** 2 + (0.5 - middle) ** 2 + (0.4 - middle) ** 2
    assert ega["std"] == pytest.approx(sqrt(squares / 2))
    assert ega["median"] == pytest.approx(0.25)
    assert (ega["runs"], ega["n"], ega["undefined"], ega["not_ok"]) == (3, 6, 0, 0)
    dea = entry(summary, "dea")
    assert dea["mean"] == pytest.approx((0.7 + 0.4 + 1.0) / 3)
    assert (dea["runs"], dea["n"]) == (3, 4)


def test_summary_has_a_row_per_data_method_and_metric() -> None:
    summary = summarise([*THREE_RUNS, run(row("x", "ega", 0.9), data="sbd")])
    assert len(summary) == (2 + 1) * len(TABLE_METRICS)
    assert list(TABLE_METRICS) == [
        "tdd",
        "tdd_gain",
        "odd_abs",
        "leak_abs",
        "insertion_gain",
        "stability",
        "runtime_s",
    ]
    assert entry(summary, "ega", data="sbd val")["mean"] == 0.9
    assert entry(summary, "ega")["mean"] == pytest.approx(1.1 / 3), "data sets do not mix"


def test_a_single_run_has_no_spread() -> None:
    ega = entry(summarise(THREE_RUNS[:1]), "ega")
    assert ega["mean"] == pytest.approx(0.2)
    assert np.isnan(ega["std"])


def test_undefined_values_are_left_out_and_counted() -> None:
    summary = summarise(
        [run(row("a", "ria", 0.2, stability=nan), row("b", "ria", 0.4, stability=0.8), row("c", "ria", nan))]
    )
    tdd, stability = entry(summary, "ria"), entry(summary, "ria", "stability")
    assert (tdd["mean"], tdd["n"], tdd["undefined"]) == (pytest.approx(0.3), 2, 1)
    assert (stability["mean"], stability["n"], stability["undefined"]) == (pytest.approx(0.4), 2, 1)


def test_rows_that_are_not_ok_are_counted_and_enter_nothing() -> None:
    """Even where a figure stands in such a row."""
    rows = [row("a", "ria", 0.2), bad("b", "ria", "skipped"), bad("c", "ria", "failed") | {"tdd": 99.0, "s": 0.9}]
    ria = entry(summarise([run(*rows)]), "ria")
    assert (ria["mean"], ria["n"], ria["undefined"], ria["not_ok"]) == (0.2, 1, 0, 2)


def test_a_run_without_any_value_of_a_metric_is_no_run_of_it() -> None:
    """As GPA's, which some runs of the paper's suites leave out, or stability where it was not measured."""
    runs = [run(row("a", "gpa", 0.2), row("a", "ega", 0.1)), run(row("a", "gpa", nan), row("a", "ega", 0.3))]
    runs.append(run(row("a", "ega", 0.5)))
    gpa = entry(summarise(runs), "gpa")
    assert (gpa["mean"], gpa["runs"], gpa["n"], gpa["undefined"]) == (0.2, 1, 1, 1)
    assert entry(summarise(runs), "ega")["runs"] == 3


def test_the_filter_on_s_is_off_by_default_and_inclusive() -> None:
    rows = [row("a", "ega", 0.1, s=0.01), row("b", "ega", 0.3, s=0.05), row("c", "ega", 0.8, s=0.9)]
    assert entry(summarise([run(*rows)]), "ega")["n"] == 3
    filtered = entry(summarise([run(*rows)], min_s=0.05), "ega")
    assert (filtered["mean"], filtered["n"], filtered["undefined"]) == (pytest.approx(0.55), 2, 0)
    nothing = entry(summarise([run(*rows)], min_s=0.95), "ega")
    assert (np.isnan(nothing["mean"]), nothing["n"], nothing["runs"]) == (True, 0, 0)


def test_a_method_that_failed_alone_has_rows_that_are_not_ok() -> None:
    rows = [bad(sample, "theirs", "failed") for sample in "ab"] + [row(sample, "ega", 0.3) for sample in "ab"]
    assert entry(summarise([run(*rows)]), "theirs")["not_ok"] == 2
    assert entry(summarise([run(*rows)]), "ega")["not_ok"] == 0


def test_an_ablation_counts_as_a_run_of_the_means() -> None:
    """As the protocol has it."""
    main, other = run(row("a", "ega", 0.1)), run(row("a", "ega", 0.2), seed=5)
    methods = [{"dea": {"parameters": {"alpha": alpha}}} for alpha in (0.65, 0.5)]
    runs = [(about | {"methods": methods[place]}, rows) for place, (about, rows) in ((0, main), (0, other), (1, main))]
    assert entry(summarise(runs), "ega")["runs"] == 3


def test_summary_names_the_weights_of_every_run() -> None:
    """Random weights must be seen wherever the figures are."""
    runs = [run(row("a", "ega", 0.1), weights=weights) for weights in ("net.pth", "random (seed 0)", "net.pth")]
    assert entry(summarise(runs), "ega")["weights"] == "net.pth; random (seed 0)"


# Overlays


def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A colourful image (3, 20, 30), a map that is 0 left and 1 right, and a square target."""
    image = np.random.default_rng(0).random((3, 20, 30))
    heatmap = np.zeros((20, 30))
    heatmap[:, 15:] = 1
    target = np.zeros((20, 30), dtype=bool)
    target[6:12, 8:14] = True
    return image, heatmap, target


def test_overlay_blends_grey_and_colour() -> None:
    """0.45 of the photograph's grey, 0.55 of inferno's first or last colour."""
    image, heatmap, _ = arrays()
    shown = np.asarray(overlay(image, heatmap)).astype(float)
    assert shown.shape == (20, 30, 3)
    grey = image.mean(0)[..., None].repeat(3, 2)
    low, high = np.array([0.001462, 0.000466, 0.013866]), np.array([0.988362, 0.998364, 0.644924])
    expected = 0.45 * grey + 0.55 * np.where(heatmap[..., None] == 0, low, high)
    np.testing.assert_allclose(shown / 255, expected, atol=0.5 / 255 + 1e-6)


def test_overlay_draws_the_outline_outside_the_target_white_then_black() -> None:
    image, heatmap, target = arrays()
    plain = np.asarray(overlay(image, heatmap))
    outlined = np.asarray(overlay(image, heatmap, target))
    for y in range(20):
        for x in range(30):
            steps = min(abs(y - v) + abs(x - u) for v in range(6, 12) for u in range(8, 14))
            if steps == 1:
                assert tuple(outlined[y, x]) == (255, 255, 255), (y, x)
            elif steps == 2:
                assert tuple(outlined[y, x]) == (0, 0, 0), (y, x)
            else:
                assert np.array_equal(outlined[y, x], plain[y, x]), (y, x)


def test_overlay_takes_tensors_arrays_and_targets_alike(tmp_path: Path) -> None:
    image, heatmap, target = arrays()
    tensors = torch.from_numpy(image).float(), torch.from_numpy(heatmap).float().requires_grad_()
    as_target = segfaith.Target(1, torch.from_numpy(target))
    shown = overlay(*tensors, as_target)
    assert shown.size == (30, 20), "Pillow's size is (width, height)"
    assert np.abs(np.asarray(shown).astype(int) - np.asarray(overlay(image, heatmap, target)).astype(int)).max() <= 1
    shown.save(tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 0


def test_overlay_opacity_and_colours_can_be_chosen() -> None:
    image, heatmap, _ = arrays()
    grey = np.asarray(overlay(image, heatmap, opacity=0.0)).astype(float)
    np.testing.assert_allclose(grey / 255, image.mean(0)[..., None].repeat(3, 2), atol=0.5 / 255 + 1e-6)
    colour = np.asarray(overlay(image, heatmap, opacity=1.0, colormap="gray"))
    assert np.array_equal(colour, np.where(heatmap[..., None] == 0, 0, 255).repeat(3, 2))


def test_overlay_of_sizes_that_disagree_is_an_error() -> None:
    image, heatmap, target = arrays()
    with pytest.raises(ValueError, match=r"heatmap has shape \(20, 29\); expected \(20, 30\), the image's \(H, W\)"):
        overlay(image, heatmap[:, :-1])
    with pytest.raises(ValueError, match=r"target has shape \(30, 20\); expected \(20, 30\)"):
        overlay(image, heatmap, target.T)


def test_picture_is_the_image_itself() -> None:
    values = np.random.default_rng(1).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    image = torch.from_numpy(values.transpose(2, 0, 1).copy()).float() / 255
    assert np.array_equal(np.asarray(picture(image)), values)
