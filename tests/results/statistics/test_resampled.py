"""Pooled drops, means and trimmed means of each method, and their intervals over backbones and images, by loops."""

from collections.abc import Sequence
from dataclasses import replace
from math import isnan, nan

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from hand_runs import by_image, row, run_of_rows
from segfaith.results.records.runs import Run
from segfaith.results.statistics import resampled
from segfaith.results.statistics.paired import paired
from segfaith.results.statistics.resampled import backbones, quantities

EPS = 1e-6


def of_model(run: Run, name: str) -> Run:
    return replace(run, description=run.description | {"model": {"name": name, "weights": f"{name}.pth"}})


def found(runs: Sequence[Run], metric: str = "tdd") -> dict[str, dict[str, float]]:
    table = quantities(paired(runs, metric), backbones(runs))
    return {line["method"]: line for line in table.to_dict("records")}


def drawn_run(rng: np.random.Generator, ids: Sequence[str], *, shift: float = 0.0, seed: int = 0) -> Run:
    """TDD of "a" with a mean of .4, a spread of .1 over images, and a shift of the whole run; s differs by image."""
    scores = rng.uniform(0.1, 1, len(ids))
    values = 0.4 + shift + rng.normal(0, 0.1, len(ids))
    rows = [row(name, "a", float(value), s=float(s)) for name, value, s in zip(ids, values, scores, strict=True)]
    return run_of_rows(*rows, seed=seed)


def test_the_pooled_drop_is_the_sum_of_drops_over_the_sum_of_s() -> None:
    """One sample with s = .001 and a TDD of -50 sets the mean, and hardly moves the pooled drop."""
    rows = [("x", 0.8, 0.5), ("y", 0.4, 0.25), ("z", 0.001, -50.0)]
    run = run_of_rows(*(row(name, "a", tdd, s=s, odd_abs=abs(tdd)) for name, s, tdd in rows))
    drops, scores = (sum((s + EPS) * tdd for _, s, tdd in rows), sum(s + EPS for _, s, _ in rows))
    line = found([run])["a"]
    assert line["value"] == pytest.approx(drops / scores)
    assert line["value"] == pytest.approx(0.45 / 1.201, abs=1e-3)
    assert (line["of"], line["images"], line["backbones"]) == ("pooled drop", 3, 1)
    assert isnan(line["low"]), "no interval below twenty images"
    outside = sum((s + EPS) * abs(tdd) for _, s, tdd in rows)
    assert found([run], "odd_abs")["a"]["value"] == pytest.approx(outside / scores)
    lacking = run_of_rows(row("x", "a", 0.5), row("x", "b", nan))
    assert isnan(found([lacking])["b"]["value"])


def test_an_image_counts_once_however_many_targets_and_runs_it_has() -> None:
    """Image x has two targets in two runs, y one in the first run alone."""
    first = [row("x", "a", 0.2, s=0.4, target="1"), row("x", "a", 0.6, s=0.8, target="2"), row("y", "a", 0.5, s=0.6)]
    second = [row("x", "a", 0.1, s=0.3, target="1"), row("x", "a", 0.3, s=0.5, target="2")]
    runs = [run_of_rows(*(one | {"target": one.get("target", "1")} for one in rows)) for rows in (first, second)]
    runs[1] = of_model(runs[1], "other")
    drop = ((0.08 + 0.48) / 2 + (0.03 + 0.15) / 2) / 2 + 0.3
    score = ((0.4 + 0.8) / 2 + (0.3 + 0.5) / 2) / 2 + 0.6
    line = found(runs)["a"]
    assert line["value"] == pytest.approx(drop / score, abs=1e-5)
    assert (line["backbones"], line["images"]) == (2, 2)


def test_the_interval_over_images_is_that_of_a_loop_over_draws() -> None:
    rng, ids = np.random.default_rng(1), [f"i{place:02d}" for place in range(60)]
    run = drawn_run(rng, ids)
    s, tdd = (run.records[name].to_numpy(float) for name in ("s", "tdd"))
    draws = [rng.integers(0, 60, 60) for _ in range(4000)]
    pooled = [((s + EPS) * tdd)[one].sum() / (s + EPS)[one].sum() for one in draws]
    low, high = np.percentile(pooled, [2.5, 97.5])
    line = found([run])["a"]
    assert (line["low"], line["high"]) == pytest.approx((low, high), abs=0.1 * (high - low))
    for metric, centre in (("stability", np.mean), ("leak_abs", lambda values: stats.trim_mean(values, 0.1))):
        other = replace(run, records=run.records.assign(**{metric: tdd}))
        ends = np.percentile([centre(tdd[one]) for one in draws], [2.5, 97.5])
        line = found([other], metric)["a"]
        assert line["value"] == pytest.approx(centre(tdd))
        assert (line["low"], line["high"]) == pytest.approx(tuple(ends), abs=0.1 * (ends[1] - ends[0]))


def test_backbones_are_drawn_too_and_seeds_of_one_are_no_backbones_of_their_own() -> None:
    rng, ids = np.random.default_rng(2), [f"i{place:02d}" for place in range(40)]
    runs = [drawn_run(rng, ids, shift=shift, seed=seed) for seed, shift in enumerate((-0.3, 0.0, 0.3))]
    apart = [of_model(run, f"net{place}") for place, run in enumerate(runs)]
    one, three = found(runs)["a"], found(apart)["a"]
    assert backbones(runs) == [0, 0, 0]
    assert backbones(apart) == [0, 1, 2]
    assert one["value"] == pytest.approx(three["value"]), "the same images, runs and weights"
    assert three["high"] - three["low"] > 4 * (one["high"] - one["low"])


def test_an_image_of_several_backbones_is_drawn_for_all_at_once() -> None:
    """The same values under two backbones say no more of images than under one; other images would."""
    rng, ids = np.random.default_rng(3), [f"i{place:02d}" for place in range(40)]
    run = drawn_run(rng, ids)
    twin = of_model(run, "twin")
    alone, both = found([run])["a"], found([run, twin])["a"]
    assert both["images"] == 40
    assert both["high"] - both["low"] == pytest.approx(alone["high"] - alone["low"], rel=0.1)


def test_the_interval_covers_where_backbones_differ() -> None:
    """Six backbones, 40 shared images; backbones differ by .1 and so decide the mean. An interval over images alone
    covers it in less than half of the data sets."""
    rng, ids, held, narrow = np.random.default_rng(4), [f"i{place:02d}" for place in range(40)], [], []
    for _ in range(60):
        shifts = rng.normal(0, 0.1, 6)
        runs = [drawn_run(rng, ids, shift=shift, seed=seed) for seed, shift in enumerate(shifts)]
        for kept, given in ((held, [of_model(run, f"net{seed}") for seed, run in enumerate(runs)]), (narrow, runs)):
            line = found(given)["a"]
            kept.append(line["low"] <= 0.4 <= line["high"])
    assert np.mean(held) > 0.75
    assert np.mean(narrow) < 0.5


def test_the_same_runs_give_the_same_interval_and_equal_values_none() -> None:
    rng, ids = np.random.default_rng(5), [f"i{place:02d}" for place in range(25)]
    run = drawn_run(rng, ids)
    pd.testing.assert_frame_equal(*(quantities(paired([run], "tdd"), [0]) for _ in range(2)))
    assert isnan(found([by_image({"a": [0.5] * 25})])["a"]["low"])
    assert isnan(quantities(paired([run], "tdd"), [0], interval=False)["low"].iloc[0])
    assert list(quantities(paired([run], "tdd"), [0])) == resampled.QUANTITY_COLUMNS
