"""Which images the figures and the gallery show: rules on records made by hand, and against slow searches."""

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from made_runs import edit_description, make_run
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.select import method_labels
from segfaith.results.statistics import cases
from segfaith.results.statistics.analysis import DataAnalysis, Options, analyse

Values = dict[str, tuple[float, float, float]]
"""Method to TDD, OT abs and TDD gain."""


def by_hand(directory: Path, samples: dict[str, tuple[float, float, Values]]) -> DataAnalysis:
    """The analysis of a run whose images have s, the IoU of the prediction, and values by method; with tiny maps."""
    records: list[dict[str, Any]] = []
    for sample, (s, iou, values) in samples.items():
        folder = directory / "maps" / sample
        folder.mkdir(parents=True)
        for method, (tdd, odd_abs, tdd_gain) in values.items():
            np.save(folder / f"{method}.npy", np.zeros((4, 4), np.float32))
            row = {"sample_id": sample, "class_index": 1.0, "method": method, "s": s, "target_iou": iou, "status": "ok"}
            records.append(row | {"target": ""} | {"tdd": tdd, "odd_abs": odd_abs, "tdd_gain": tdd_gain})
        for name in cases.PICTURES:
            Image.new("RGB", (4, 4), "white").save(folder / name)
    about = {
        "model": {"name": "net", "weights": "w", "classes": ["background", "bird"]},
        "data": {"name": "hand", "split": "val", "samples": list(samples)},
        "settings": {"seed": 0},
        "methods": {row["method"]: {"label": "Ours"} if row["method"] == "ours" else {} for row in records},
    }
    return analyse([Run(directory, about, pd.DataFrame(records), pd.DataFrame(), pd.DataFrame())]).parts[0]


def three(ega: tuple[float, float], dea: tuple[float, float, float]) -> Values:
    """Values of EGA (TDD, OT abs), RIA and DEA."""
    return {"ega": (*ega, 0.0), "ria": (0.9, 0.0, 0.5), "dea": dea}


def test_successes_on_records_made_by_hand(tmp_path: Path) -> None:
    part = by_hand(
        tmp_path / "run",
        {
            "worse": (0.9, 0.8, three((0.5, 0.2), (0.4, 0.1, 0.1))),
            "leaks": (0.9, 0.8, three((0.1, 0.2), (0.9, 0.21, 0.1))),
            "faint": (0.29, 0.8, three((0.1, 0.2), (0.9, 0.1, 0.1))),
            "unseen": (0.9, 0.09, three((0.1, 0.2), (0.9, 0.1, 0.1))),
            "chance": (0.9, 0.8, three((0.1, 0.2), (0.9, 0.1, 0.0))),
            "b-tie": (0.3, math.nan, three((0.3, 0.2), (0.5, 0.2, 0.1))),
            "a-tie": (0.9, 0.1, three((0.1, 0.2), (0.3, 0.1, 0.1))),
            "best": (0.9, 0.8, three((0.1, 0.2), (0.6, 0.1, 0.1))),
            "undefined": (0.9, 0.8, three((0.1, 0.2), (math.nan, 0.1, 0.1))),
        },
    )
    choice = cases.successes(part)
    assert choice.ids == ["best", "a-tie", "b-tie"]
    assert (choice.candidates, choice.eligible, choice.why) == (7, 3, "")
    assert choice.cases[0].why == "TDD +0.50 over EGA"
    assert choice.rule == cases.SUCCESS_RULE
    assert "best of run (TDD +0.50 over EGA); a-tie of run" in choice.words
    assert cases.successes(part, n=2).ids == ["best", "a-tie"]


def failing(directory: Path) -> DataAnalysis:
    return by_hand(
        directory,
        {
            "blind": (0.9, 0.8, three((0.1, 0.2), (0.10, 0.9, -0.3))),
            "blunt": (0.9, 0.8, three((0.1, 0.2), (0.20, 0.1, -0.2))),
            "level": (0.9, 0.8, three((0.1, 0.2), (0.20, 0.1, 0.0))),
            "good": (0.9, 0.8, three((0.1, 0.2), (0.50, 0.5, 0.4))),
            "leaky": (0.9, 0.8, three((0.1, 0.2), (0.40, 0.8, 0.3))),
            "fluent": (0.9, 0.8, three((0.1, 0.2), (0.30, 0.6, 0.2))),
            "faint": (0.1, 0.8, three((0.1, 0.2), (0.35, 9.0, -9.0))),
        },
    )


def test_only_failures_are_shown_as_failures_and_missed_targets_apart(tmp_path: Path) -> None:
    part = failing(tmp_path / "run")
    choice = cases.failures(part)
    assert choice.ids == ["blind", "blunt", "leaky", "fluent"]
    assert [case.why for case in choice.cases[1:3]] == ["TDD gain -0.20", "OT abs 0.80"]
    assert (choice.candidates, choice.eligible) == (6, 5)
    assert cases.failures(part, n=3).ids == ["blind", "blunt", "leaky"]
    assert cases.failures(part, n=9).ids == ["blind", "blunt", "level", "leaky", "fluent"]
    assert cases.missed(part).ids == ["faint"]
    assert cases.typical(part).ids == ["level"]  # TDD .1 .2 .2 .3 .4 .5: the third, ties by the id
    assert choice.cases[0].title == "bird"


def test_where_a_kind_of_failure_has_too_few_the_other_fills_up(tmp_path: Path) -> None:
    good, leaky = three((0.1, 0.2), (0.5, 0.1, 0.4)), (0.5, 0.9, 0.4)
    leaks = {f"leak{i}": (0.9, 0.8, three((0.1, 0.2), leaky)) for i in range(5)}
    part = by_hand(tmp_path / "leaks", {"good": (0.9, 0.8, good)} | leaks)
    assert cases.failures(part).ids == ["leak0", "leak1", "leak2", "leak3"]
    blind = {f"blind{i}": (0.9, 0.8, three((0.1, 0.2), (0.1, 0.1, -0.1 * i))) for i in range(5)}
    assert cases.failures(by_hand(tmp_path / "blind", blind)).ids == ["blind4", "blind3", "blind2", "blind1"]
    none = cases.failures(by_hand(tmp_path / "good", {"good": (0.9, 0.8, good)}))
    assert none.ids == []
    assert none.why.startswith("none of 1 candidates meets the rule. Failure of DEA: s >= 0.3")


def test_without_dea_or_ega_any_method_under_test_counts(tmp_path: Path) -> None:
    values: dict[str, Values] = {
        "both": {"ours": (0.5, 0.1, 0.4), "lime": (0.5, 0.1, 0.3), "mask": (0.9, 0.0, 0.9)},
        "one": {"ours": (0.5, 0.9, 0.8), "lime": (0.5, 0.1, 0.2), "mask": (0.9, 0.0, 0.9)},
        "none": {"ours": (0.5, 0.1, 0.0), "lime": (0.5, 0.1, -0.2), "mask": (0.9, 0.0, 0.9)},
        "leaks": {"ours": (0.5, 0.7, 0.5), "lime": (0.5, 0.6, 0.3), "mask": (0.9, 0.0, 0.9)},
    }
    part = by_hand(tmp_path / "run", {name: (0.9, 0.8, one) for name, one in values.items()})
    success, failure = cases.successes(part), cases.failures(part)
    assert success.rule == cases.ANY_SUCCESS_RULE
    assert [(case.sample_id, case.why) for case in success.cases] == [
        ("both", "TDD gain +0.40 of Ours"),
        ("one", "TDD gain +0.20 of lime"),
    ]
    assert failure.rule == cases.ANY_FAILURE_RULE
    assert [(case.sample_id, case.why) for case in failure.cases] == [
        ("none", "TDD gain 0.00"),
        ("leaks", "OT abs 0.60"),
    ]
    assert "no image with s >= 0.3" in cases.typical(part).why
    assert "maps of ega, ria, dea" in cases.typical(part).why


def test_the_gallery_has_best_typical_and_worst_each_image_once(tmp_path: Path) -> None:
    gains = {"a": 0.1, "b": 0.5, "c": 0.3, "d": 0.2, "e": -0.4}
    samples: dict[str, tuple[float, float, Values]] = {
        name: (0.9, 0.8, {"ours": (0.5, 0.1, gain + 0.1), "lime": (0.5, 0.1, gain - 0.1)})
        for name, gain in gains.items()
    }
    part = by_hand(tmp_path / "run", samples | {"f": (0.1, 0.0, {"ours": (0.5, 0.1, 9.0), "lime": (0.5, 0.1, 9.0)})})
    chosen = cases.choose(part)
    assert {kind: choice.ids for kind, choice in chosen.items()} == {
        "best": ["b"],
        "typical": ["d"],
        "worst": ["e"],
        "missed": ["f"],
    }
    assert chosen["best"].cases[0].why == "mean TDD gain 0.50"
    assert chosen["missed"].cases[0].why == "IoU 0.00"
    more = cases.choose(part, 2)
    ids = [sample for choice in more.values() for sample in choice.ids]
    assert more["best"].ids == ["b", "c"]
    assert more["worst"].ids == ["e", "a"]
    assert sorted(ids) == list("abcdef")


def test_choices_agree_with_a_slow_search(tmp_path: Path) -> None:
    runs = [load_run(make_run(tmp_path / f"seed{seed}", seed=seed, maps=24, size=8)) for seed in (0, 1)]
    records = [run.records for run in runs]
    for table in records:  # half of the made maps leak so much that none succeeds
        table.loc[table["method"] == "dea", "odd_abs"] *= 0.9
    part = analyse(runs).parts[0]
    rows = []
    for run in runs:
        table = {(row["sample_id"], row["method"]): row for row in run.records.to_dict("records")}
        for sample in dict.fromkeys(run.records["sample_id"]):
            three = [table[sample, method] for method in ("ega", "ria", "dea")]
            if all(row["status"] == "ok" for row in three) and three[0]["s"] >= 0.3:
                rows.append((sample, run.label, three[0], three[2]))
    margins = [
        (ega["tdd"] - dea["tdd"], sample)
        for sample, _, ega, dea in rows
        if dea["tdd"] > ega["tdd"]
        and dea["odd_abs"] <= ega["odd_abs"]
        and dea["tdd_gain"] > 0
        and dea["odd_abs"] <= 0.5
    ]
    expected = list(dict.fromkeys(sample for _, sample in sorted(margins)))
    choice = cases.successes(part, n=6)
    assert choice.ids == expected[:6]
    assert (choice.candidates, choice.eligible) == (len(rows), len(margins))
    assert len(margins) > 6
    middle = sorted((dea["tdd"], sample) for sample, _, _, dea in rows)[(len(rows) - 1) // 2]
    assert cases.typical(part).ids == [middle[1]]


def test_only_images_whose_maps_were_kept_are_candidates(tmp_path: Path) -> None:
    row = (0.9, 0.8, three((0.1, 0.2), (0.5, 0.1, 0.3)))
    kept = tmp_path / "run"
    by_hand(kept, {"whole": row, "half": row, "bare": row})
    (kept / "maps/half/ria.npy").unlink()
    (kept / "maps/bare/target.png").unlink()

    def again() -> DataAnalysis:
        about = {
            "model": {"name": "net", "weights": "w"},
            "data": {"name": "hand", "split": "val"},
            "settings": {"seed": 0},
            "methods": {},
        }
        rows = [
            {"sample_id": name, "target": "", "class_index": 1.0, "method": method, "s": 0.9, "status": "ok"}
            | {"tdd": tdd, "odd_abs": odd, "tdd_gain": gain}
            for name in ("whole", "half", "bare")
            for method, (tdd, odd, gain) in row[2].items()
        ]
        return analyse([Run(kept, about, pd.DataFrame(rows), pd.DataFrame(), pd.DataFrame())]).parts[0]

    assert cases.successes(again()).ids == ["whole"]
    assert cases.choose(again())["best"].cases[0].title == "class 1"
    (kept / "maps/whole/dea.npy").unlink()
    choice = cases.failures(again())
    assert choice.ids == []
    assert "has maps of ega, ria, dea; keep them with [output] maps = true" in choice.why


def test_no_maps_at_all_is_the_reason(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", maps=0, methods=("gpa", "ria", "random_cells")))
    chosen = cases.choose(analyse([run]).parts[0])
    assert all(choice.ids == [] for choice in chosen.values())
    assert chosen["missed"].why == "no image has maps of a method under test; keep them with [output] maps = true"
    assert "maps of a method under test" in chosen["best"].why


def test_cases_follow_the_filter_of_images(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", maps=24, size=8))
    part = analyse([run], Options(min_s=0.6)).parts[0]
    assert float(cases.candidates(part)["s"].min()) >= 0.6
    assert cases.missed(part).ids == []


def test_labels_are_those_of_the_settings(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", maps=1, size=8)
    edit_description(directory, lambda about: about["methods"]["dea"].update(label="Ours"))
    labels = method_labels([load_run(directory)])
    assert labels["dea"] == "Ours"
    assert labels["ega"] == "ega"


def test_the_rules_state_their_thresholds() -> None:
    assert f"OT abs is above {cases.MOST_OT:g}" in cases.FAILURE_RULE
    for rule in (cases.SUCCESS_RULE, cases.FAILURE_RULE, cases.TYPICAL_RULE, *cases.GALLERY_RULES.values()):
        assert f"s >= {cases.MIN_S:g} and IoU of the prediction >= {cases.MIN_IOU:g}" in rule
    assert f"s < {cases.MIN_S:g} or IoU of the prediction < {cases.MIN_IOU:g}" in cases.MISSED_RULE
    assert pytest.approx((0.3, 0.1, 0.5)) == (cases.MIN_S, cases.MIN_IOU, cases.MOST_OT)


def test_a_case_is_a_target_and_each_image_is_shown_once(tmp_path: Path) -> None:
    """Of image a the second target has the larger gain; its maps lie in ID@TARGET."""
    gains = {"a": 0.2, "b": 0.4, "c": 0.3}
    part = by_hand(tmp_path / "run", {name: (0.9, 0.8, {"ours": (0.5, 0.1, gain)}) for name, gain in gains.items()})
    (run,) = part.runs
    for name in ("dog", "dog-2"):
        shutil.copytree(run.directory / "maps/a", run.directory / f"maps/a@{name}")
    shutil.rmtree(run.directory / "maps/a")
    own = run.records[run.records["sample_id"] == "a"]
    others = run.records[run.records["sample_id"] != "a"]
    rows = pd.concat([own.assign(target="dog"), own.assign(target="dog-2", tdd_gain=0.9), others], ignore_index=True)
    several = analyse([replace(run, records=rows)]).parts[0]
    assert len(cases.candidates(several)) == 4
    choice = cases.successes(several)
    assert choice.ids == ["a, dog-2", "b", "c"]
    assert "Candidates: 4 (targets with kept maps" in choice.words
    assert "a, dog-2 of run (TDD gain +0.90 of Ours)" in choice.words
    first = choice.cases[0]
    assert first.folder == run.directory / "maps" / "a@dog-2"
    assert first.record["tdd_gain"].to_list() == [0.9]
    chosen = cases.choose(several)
    assert [chosen[kind].ids for kind in ("best", "worst", "typical")] == [["a, dog-2"], ["c"], ["b"]]
