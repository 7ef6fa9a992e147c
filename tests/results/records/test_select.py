"""Which runs, rows and methods a conclusion is drawn from."""

from dataclasses import replace
from pathlib import Path

import pandas as pd

from hand_runs import bad, one_metric, row, run_of_rows
from made_runs import TDD, VARIANTS, make_run
from segfaith.results.records.runs import load_run
from segfaith.results.records.select import (
    enough,
    grouped,
    is_control,
    method_order,
    methods_of,
    own_methods,
    under_test,
    without_variants,
)


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


def test_variants_are_left_out_where_their_method_is_there() -> None:
    both = one_metric({"dea": [0.1], "dea@alpha=0.5": [0.2], "ria@grid=7": [0.3]})
    assert methods_of([without_variants(both)]) == ["dea", "ria@grid=7"]
    assert isinstance(without_variants(both).measured, pd.DataFrame)
