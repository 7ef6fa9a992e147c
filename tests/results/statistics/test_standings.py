"""The leaderboard's table and its letters: against loops, on records made by hand."""

from itertools import combinations
from math import isnan
from statistics import median

import numpy as np
import pytest
from scipy import stats

from hand_runs import bad, row, run_of_rows
from segfaith.results.records.runs import Run
from segfaith.results.report.blocks import Prose
from segfaith.results.report.sections.standings import section
from segfaith.results.statistics.analysis import analyse
from segfaith.results.statistics.standings import by_models, letters, standings

IMAGES = 24
LEVELS = {"ega": 0.21, "gpa": 0.2, "ria": 0.6, "mask": 0.25, "random_cells": 0.0}


def values() -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    return {name: [float(level + rng.normal(0, 0.1)) for _ in range(IMAGES)] for name, level in LEVELS.items()}


def made(**model: object) -> Run:
    """Five methods with known fidelity, one of which failed on two images, and one that failed on all."""
    rows = [
        row(f"i{place}", name, 0.5, fidelity=value, runtime_s=place + 0.5)
        for name, column in values().items()
        for place, value in enumerate(column)
    ]
    rows[0] = bad("i0", "ega", "failed")
    rows[1] = bad("i1", "ega", "failed") | {"reason": "another"}
    rows[2] = bad("i2", "ega", "failed")
    rows += [bad(f"i{place}", "captum:DeepLift", "failed") for place in range(IMAGES)]
    rows += [bad("skipped", name, "skipped") for name in (*LEVELS, "captum:DeepLift")]
    run = run_of_rows(*rows, **model)
    run.description["methods"]["ria"] = {"cost": "198 passes"}
    return run


def apart_by_loops() -> set[frozenset[str]]:
    """Wilcoxon's exact test of each pair over the images that both have, with Holm's correction."""
    known = values()
    p_values = {}
    for first, second in combinations(LEVELS, 2):
        start = 3 if "ega" in (first, second) else 0
        both = [known[first][place] - known[second][place] for place in range(start, IMAGES)]
        p_values[frozenset((first, second))] = stats.wilcoxon(both, method="exact").pvalue
    found: set[frozenset[str]] = set()
    for step, pair in enumerate(sorted(p_values, key=lambda pair: p_values[pair])):
        if p_values[pair] * (len(p_values) - step) >= 0.05:
            break
        found.add(pair)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_methods_share_a_letter_if_and_only_if_they_are_not_told_apart(seed: int) -> None:
    rng = np.random.default_rng(seed)
    order = [f"m{number}" for number in range(7)]
    apart = {frozenset(pair) for pair in combinations(order, 2) if rng.random() < seed / 11}
    found = letters(order, apart)
    assert list(found) == order
    assert found["m0"].startswith("a")
    for first, second in combinations(order, 2):
        shared = set(found[first]) & set(found[second])
        assert bool(shared) == (frozenset((first, second)) not in apart), (first, second)
    used = sorted(set("".join(found.values())))
    assert used == list("abcdefghijklmnopqrstuvwxyz"[: len(used)])
    for letter in used:  # without it two methods would share none, or one would have none
        without = {name: set(text) - {letter} for name, text in found.items()}
        pairs = [pair for pair in combinations(order, 2) if frozenset(pair) not in apart]
        assert not all(without[one] & without[other] for one, other in pairs) or not all(without.values())


def test_letters_of_steps_overlap() -> None:
    """Neighbours are alike, others are not: the display of a textbook."""
    order = list("wxyz")
    apart = {frozenset(pair) for pair in ("wy", "wz", "xz")}
    assert letters(order, apart) == {"w": "a", "x": "ab", "y": "bc", "z": "c"}
    assert letters(order, set()) == dict.fromkeys(order, "a")
    assert letters([], set()) == {}


def test_letters_do_not_run_out() -> None:
    order = [f"m{number}" for number in range(54)]
    found = letters(order, {frozenset(pair) for pair in combinations(order, 2)})
    assert [found[name] for name in ("m0", "m25", "m26", "m51", "m52", "m53")] == ["a", "z", "A", "Z", "(53)", "(54)"]


def test_the_table_is_what_loops_give() -> None:
    table = standings([made()], "fidelity")
    known = values()
    known["ega"] = known["ega"][3:]
    order = sorted(LEVELS, key=lambda name: -np.mean(known[name]))
    assert list(table["method"]) == [*order, "captum:DeepLift"]
    lines = {line["method"]: line for line in table.to_dict("records")}
    for name, column in known.items():
        line = lines[name]
        assert line["fidelity"] == pytest.approx(np.mean(column))
        assert line["low"] < line["fidelity"] < line["high"]
        assert (line["images"], line["rows"]) == (len(column), IMAGES + 1)
        assert line["reference"] == (name in ("mask", "random_cells"))
        start = IMAGES - len(column)
        assert line["seconds"] == pytest.approx(median(place + 0.5 for place in range(start, IMAGES)))
    assert (lines["ega"]["failed"], lines["ega"]["reason"]) == (3, "why"), "the most frequent one"
    assert (lines["ria"]["failed"], lines["ria"]["reason"], lines["ria"]["cost"]) == (0, "", "198 passes")
    assert lines["gpa"]["cost"] == "", "the run does not say"
    lost = lines["captum:DeepLift"]
    assert (lost["failed"], lost["groups"], lost["images"]) == (IMAGES, "", 0)
    assert isnan(lost["fidelity"])
    assert isnan(lost["seconds"])
    apart = apart_by_loops()
    assert 0 < len(apart) < 10, "some pairs are told apart and some are not"
    for first, second in combinations(LEVELS, 2):
        shared = set(lines[first]["groups"]) & set(lines[second]["groups"])
        assert bool(shared) == (frozenset((first, second)) not in apart), (first, second)
    assert {"tdd", "odd_abs"} <= set(table)
    assert not {"evidence_ap", "own_half", "stability_top"} & set(table), "columns without a value"


def test_a_method_with_few_images_stands_below_the_others() -> None:
    """Its mean is over other images: a high one on two of 24 must not lead."""
    high = [row(f"i{place}", "captum:DeepLiftShap", 0.5, fidelity=0.9, runtime_s=1.0) for place in range(2)]
    rows = made().records.drop(columns="target").to_dict("records")
    rows += high + [bad(f"i{place}", "captum:DeepLiftShap", "failed") for place in range(2, IMAGES)]
    table = standings([run_of_rows(*rows)], "fidelity")
    known = list(table.loc[table["fidelity"].notna(), "method"])
    assert known[0] == "ria"
    assert known[-1] == "captum:DeepLiftShap"
    assert list(table["method"])[-1] == "captum:DeepLift"


@pytest.mark.parametrize(("lead", "sign"), [("fidelity", 1), ("odd_drop_abs", -1)])
def test_a_method_that_failed_where_it_is_hard_is_named_if_the_test_is_against_it(lead: str, sign: int) -> None:
    """It is worse on every image that both have, and its mean is better, over the easy images alone."""
    rows = []
    for place in range(IMAGES):
        hard, value = place % 2, 0.5 - sign * (0.3 * (place % 2)) + place / 1000
        rows.append(row(f"i{place}", "ria", 0.5, **{lead: value}))
        worse = row(f"i{place}", "ega", 0.5, **{lead: value - sign * (0.05 + place / 900)})
        rows.append(bad(f"i{place}", "ega", "failed") if hard else worse)
        rows.append(row(f"i{place}", "random_cells", 0.5, **{lead: value - sign * (0.4 + place / 800)}))
    run = run_of_rows(*rows)
    table = standings([run], lead)
    assert list(table["method"]) == ["ega", "ria", "random_cells"]
    assert table.attrs["reversed"] == [("ria", "ega")]
    blocks = section(analyse([run])).blocks() if lead == "fidelity" else ()
    told = "Over the images that both have, the test favours the lower of two lines: ria over ega."
    assert lead != "fidelity" or told in [str(block.text) for block in blocks if isinstance(block, Prose)]


def test_a_metric_of_which_less_is_better_sorts_upwards_and_the_truth_has_no_letters() -> None:
    rows = [
        row(f"i{place}", name, odd_abs=value, own_half=0.25)
        for place in range(8)
        for name, value in (("gpa", 0.3), ("truth", 0.2), ("ria", 0.1 + place / 100))
    ]
    table = standings([run_of_rows(*rows)], "odd_abs")
    assert list(table["method"]) == ["ria", "truth", "gpa"]
    assert list(table["groups"]) == ["a", "", "b"]
    assert list(table["own_half"]) == [0.25] * 3
    assert list(table["reference"]) == [False, True, False]


def test_several_models_have_a_table_together_and_one_each() -> None:
    runs = [made(), made(weights="deep/other.pth")]
    tables = by_models(runs, "fidelity")
    assert list(tables) == ["net net.pth, net other.pth", "net net.pth", "net other.pth"]
    assert [int(table["rows"].max()) for table in tables.values()] == [2 * (IMAGES + 1), IMAGES + 1, IMAGES + 1]
    assert [int(table["images"].max()) for table in tables.values()] == [IMAGES] * 3, "an image counts once"
    assert list(by_models(runs[:1], "fidelity")) == ["net net.pth"]


def test_models_whose_files_have_one_name_are_two_models() -> None:
    tables = by_models([made(weights="a/net.pth"), made(weights="b/net.pth")], "fidelity")
    assert list(tables) == [
        "net net.pth (a/net.pth), net net.pth (b/net.pth)",
        "net net.pth (a/net.pth)",
        "net net.pth (b/net.pth)",
    ]
