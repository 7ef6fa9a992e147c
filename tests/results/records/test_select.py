"""How runs call their methods and classes."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from hand_runs import bad, one_metric, row, run_of_rows
from made_runs import TDD, VARIANTS, make_run
from segfaith.results.records.runs import Run, class_name, load_run
from segfaith.results.records.select import (
    enough,
    grouped,
    is_control,
    is_reference,
    label_notes,
    method_labels,
    method_order,
    methods_of,
    own_methods,
    under_test,
    without_truth,
)

EMPTY = pd.DataFrame()


def run(name: str, **labels: str | None) -> Run:
    """A run of some methods with their labels."""
    about = {"methods": {method: {"label": label} for method, label in labels.items()}}
    return Run(Path(name), about, EMPTY, EMPTY, EMPTY)


def test_methods_are_called_by_their_labels_and_others_by_their_names() -> None:
    runs = [run("a", ria=None, dea="Ours"), run("b", dea="Ours", gpa="Grad")]
    assert method_labels(runs) == {"ria": "ria", "dea": "Ours", "gpa": "Grad"}
    assert label_notes(runs) == []
    older = replace(runs[0], description={"methods": {"ria": {"paper": "as written before there were labels"}}})
    assert method_labels([older]) == {"ria": "ria"}
    assert method_labels([]) == {}


def test_where_runs_disagree_the_first_label_wins_and_a_note_says_so() -> None:
    runs = [run("a", dea=None), run("b", dea="Ours"), run("c", dea="Fused")]
    assert method_labels(runs) == {"dea": "Ours"}
    assert label_notes(runs) == ["c calls dea 'Fused'; here it is 'Ours', as in an earlier run."]


@pytest.mark.parametrize("taken", ["Ours", "ria"])
def test_a_label_of_another_method_is_not_used(taken: str) -> None:
    runs = [run("a", ria="Ours"), run("b", dea=taken)]
    assert method_labels(runs) == {"ria": "Ours", "dea": "dea"}
    assert label_notes(runs) == [f"b calls dea {taken!r}, which is another method here; it keeps its name."]


@pytest.mark.parametrize(
    ("model", "data", "name"),
    [
        (["background", "box"], None, "box"),
        (None, ["background", "disc"], "disc"),
        (["background"], ["background", "disc"], "disc"),
        (None, None, "class 1"),
        ([], ["background"], "class 1"),
    ],
)
def test_a_class_is_named_by_whichever_side_knows_it(
    model: list[str] | None, data: list[str] | None, name: str
) -> None:
    assert class_name({"model": {"classes": model}, "data": {"classes": data}}, 1) == name
    if data is None:
        assert class_name({"model": {"classes": model}, "data": {}}, 1) == name, "files of versions without the key"


def test_own_methods_are_neither_controls_nor_variants(tmp_path: Path) -> None:
    assert own_methods([load_run(make_run(tmp_path / "a", methods=(*TDD, *VARIANTS), maps=0))]) == [
        "gpa",
        "ega",
        "ria",
        "dea",
    ]
    alone = [load_run(make_run(tmp_path / "b", methods=("random_cells", "dea@alpha=0.5", "ega"), maps=0))]
    assert own_methods(alone) == ["dea@alpha=0.5", "ega"], "a variant without its base is a method"


def test_runs_are_grouped_by_the_label_of_their_data_set_in_their_order() -> None:
    runs = [one_metric({"ega": [0.1]}, data=data, name=name) for data, name in (("voc2012", "a"), ("sbd", "b"))]
    runs.append(one_metric({"dea": [0.1]}, name="c"))
    groups = {label: [run.label for run in group] for label, group in grouped(runs).items()}
    assert groups == {"voc2012 val": ["a", "c"], "sbd val": ["b"]}
    assert methods_of(runs) == ["ega", "dea"]


def test_methods_are_ordered_as_the_paper_has_them_with_the_controls_last() -> None:
    names = ["mask", "mine", "dea@alpha=0.5", "ria", "random_cells", "gpa", "ria"]
    ordered = method_order(names)
    assert ordered[:3] == ["gpa", "ria", "dea@alpha=0.5"]
    assert ordered[3] == "mine"
    assert set(ordered[4:]) == {"mask", "random_cells"}
    assert under_test(names) == ["mine", "dea@alpha=0.5", "ria", "gpa"]
    assert is_control("random_cells@grid=7")
    assert not is_control("dea")


def test_the_truth_is_no_control_and_under_no_test_and_comes_last() -> None:
    names = ["truth", "mask", "mine.py:truth", "gpa", "gamed"]
    assert method_order(names) == ["gpa", "mine.py:truth", "mask", "gamed", "truth"]
    assert under_test(names) == ["mine.py:truth", "gpa"]
    assert not is_control("truth")
    assert [name for name in names if is_reference(name)] == ["truth", "mask", "gamed"]


def test_rows_without_the_truth_keep_it_where_it_failed() -> None:
    rows = run_of_rows(
        row("a", "truth", 0.1), bad("b", "truth", "skipped"), bad("c", "truth", "failed"), row("b", "gpa")
    )
    kept = without_truth(rows.records)
    assert list(zip(kept["sample_id"], kept["method"], strict=True)) == [("c", "truth"), ("b", "gpa")]


def test_enough_leaves_out_whole_samples_and_keeps_rows_that_are_not_ok() -> None:
    run = run_of_rows(
        *(row(sample, method, 0.1, s=s) for sample, s in (("a", 0.04), ("b", 0.05)) for method in ("ega", "dea")),
        bad("c", "ega", "skipped"),
    )
    assert enough(run) is run
    assert enough(run, 0.01) is run
    kept = enough(run, 0.05)
    assert kept.records["sample_id"].tolist() == ["b", "b", "c"]
    assert run.records["sample_id"].nunique() == 3, "the run itself stays as it is"


def test_enough_leaves_out_one_target_of_an_image_and_keeps_the_other() -> None:
    run = run_of_rows(row("a", "ega", s=0.04, target="cat"), row("a", "ega", s=0.4, target="dog"))
    assert enough(run, 0.05).records["target"].tolist() == ["dog"]


def test_enough_by_the_models_prediction_leaves_out_what_is_not_known(tmp_path: Path) -> None:
    run = load_run(make_run(tmp_path / "run", samples=("a", "b", "c"), maps=0, skipped=0, failed=0))
    run.records.loc[run.records["sample_id"] == "a", "target_iou"] = 0.05
    run.records.loc[run.records["sample_id"] == "b", "target_iou"] = 0.1
    run.records.loc[run.records["sample_id"] == "c", "target_iou"] = None
    kept = enough(run, min_iou=0.1)
    for table in (kept.records, kept.curves, kept.randomisation):
        assert set(table["sample_id"]) == {"b"}
    older = replace(run, records=run.records.drop(columns="target_iou"))
    assert len(enough(older, min_iou=0.1).records) == 0
