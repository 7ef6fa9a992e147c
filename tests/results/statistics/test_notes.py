"""What is said of each run, from hand-made records: model, weights, seed, samples left out, ablations, filters."""

from math import nan
from typing import Any

import pandas as pd
import pytest

from made_runs import run_of
from segfaith.results.statistics.analysis import Options, analyse
from segfaith.results.statistics.summary import TABLE_METRICS

Pair = tuple[dict[str, Any], pd.DataFrame]


def notes(pairs: list[Pair], **options: Any) -> list[str]:
    return analyse([run_of(*pair) for pair in pairs], Options(**options)).notes


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
        "methods": {},
    }
    return description, frame


THREE_RUNS = [
    run(row("a", "ega", 0.1), row("b", "ega", 0.3), row("a", "dea", 0.6), row("b", "dea", 0.8)),
    run(row("a", "ega", 0.5), row("a", "dea", 0.4), seed=5),
    run(row("a", "ega", 0.2), row("b", "ega", 0.2), row("c", "ega", 0.8), row("a", "dea", 1.0), seed=6),
]


def test_notes_tell_model_weights_seed_and_small_scores() -> None:
    rows = [row("a", "ega", 0.1, s=0.049), row("a", "dea", 0.1, s=0.049), row("b", "ega", 0.3, s=0.05)]
    digest = "0123456789abcdef" * 4
    (line,) = notes([run(*rows, file_sha256=digest)])
    assert line.startswith("voc2012 val: net, weights net.pth (SHA-256 0123456789ab), seed 4; ")
    assert "2 of 2 samples measured, 0 skipped, 0 failed" in line
    assert "1 with s < 0.05" in line


def test_notes_say_random_weights_and_a_filter() -> None:
    lines = notes([run(row("a", "ega", 0.1), weights="random (seed 0)")], min_s=0.3)
    assert "weights random (seed 0)" in lines[0]
    assert "SHA-256" not in lines[0]
    assert lines[1:] == ["Only samples with s >= 0.3 entered."]


def test_notes_count_samples_that_were_skipped_or_failed() -> None:
    rows = [row("a", "ega", 0.1), row("a", "dea", 0.1)]
    rows += [bad(sample, method, "skipped") for sample in "bc" for method in ("ega", "dea")]
    rows += [bad("d", method, "failed") for method in ("ega", "dea")]
    (line,) = notes([run(*rows)])
    assert "1 of 4 samples measured, 2 skipped, 1 failed" in line


@pytest.mark.parametrize("order", [("theirs", "ega"), ("ega", "theirs")])
def test_a_method_that_failed_alone_makes_no_failed_sample(order: tuple[str, str]) -> None:
    """Whether its rows stand first or last."""
    rows = [
        bad(sample, method, "failed") if method == "theirs" else row(sample, method, 0.3)
        for sample in "ab"
        for method in order
    ]
    assert "2 of 2 samples measured, 0 skipped, 0 failed" in notes([run(*rows)])[0]


def test_notes_of_several_runs_are_a_line_each() -> None:
    lines = notes([*THREE_RUNS, run(row("x", "ega", 0.9), data="sbd")])
    assert [line.partition(":")[0] for line in lines] == ["voc2012 val"] * 3 + ["sbd val"]


def test_an_ablation_is_named_with_what_its_means_count_again() -> None:
    """And a change of another setting, such as the seed, makes none."""
    main, other = run(row("a", "ega", 0.1)), run(row("a", "ega", 0.2), seed=5)
    parameters = [{"ega": {"parameters": {}}, "dea": {"parameters": {"alpha": alpha}}} for alpha in (0.65, 0.5)]
    runs = [
        (about | {"methods": parameters[alpha]}, rows) for alpha, (about, rows) in ((0, main), (0, other), (1, main))
    ]
    *_, line, _ = notes(runs)
    assert len(notes(runs)) == 5
    assert line.startswith(
        "net seed 4 (2) has the data, target, model, weights and seed of net seed 4, and other parameters, layer or "
        "code of dea: the numbers of the other methods are the same on the samples of both, and count once more "
    )
    assert not any("has the data, target" in line for line in notes(runs[:2]))


def test_an_ablation_of_the_control_moves_the_gains_of_all_methods() -> None:
    about, rows = run(row("a", "ega", 0.1))
    grids = [{"ega": {"parameters": {}}, "random_cells": {"parameters": {"grid": grid}}} for grid in (14, 7)]
    *_, line = notes([(about | {"methods": one}, rows) for one in grids])
    assert "other parameters, layer or code of random_cells: the numbers of the other methods are the same" in line
    assert "(but for TDD gain, from which random_cells is subtracted)" in line


def test_runs_of_other_seeds_on_the_very_same_samples_say_that_their_spread_is_not_of_images() -> None:
    seeds = [run(row("a", "ega", 0.1), seed=seed) for seed in (0, 1)]
    *_, line = notes(seeds)
    assert line == (
        "net seed 0, net seed 1 have the same samples, model and weights: only what is drawn with the seed (ties, "
        "controls, noise) differs between their seeds, so their spread says nothing of other images."
    )
    about, rows = seeds[1]
    other = about | {"data": about["data"] | {"samples": ["b"]}}
    weights = about | {"model": about["model"] | {"weights": "other.pth"}}
    for changed in (other, weights):
        assert len(notes([seeds[0], (changed, rows)])) == 2


def test_notes_say_that_a_run_is_not_finished() -> None:
    (line,) = notes([run(row("id0", "ega", 0.1), samples=5)])
    assert "1 of 5 samples measured" in line
    assert "not finished, 4 samples to go" in line
    assert "not finished" not in notes([run(row("id0", "ega", 0.1), samples=1)])[0]
