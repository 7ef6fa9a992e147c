"""The entries of interventions: their columns, when each is asked for, and what cannot be added."""

import subprocess
import sys
from pathlib import Path

import pytest

from segfaith.errors import SettingsError
from segfaith.evaluation import interventions
from segfaith.evaluation.interventions import (
    ASKED,
    INTERVENTIONS,
    Intervention,
    add_intervention,
    asked_for,
    score_columns,
)
from segfaith.results.records.schema import RECORD_COLUMNS


@pytest.mark.parametrize("kind", INTERVENTIONS)
def test_every_intervention_says_what_it_is_and_has_a_column(kind: str) -> None:
    entry = INTERVENTIONS[kind]
    assert entry.kind == kind
    assert RECORD_COLUMNS[entry.column][1] == entry.meaning
    assert len(entry.meaning) > 5
    if entry.pixels and entry.asked == "always":
        assert entry.missing, "it may take none of the region's pixels"


def test_the_columns_of_scores_are_those_of_the_records_in_their_order() -> None:
    names = list(score_columns())
    assert names[:5] == ["s", "s_target_deleted", "s_off_deleted", "s_baseline", "s_inserted"]
    assert [name for name in RECORD_COLUMNS if name in names] == names
    assert len(names) == 2 + len(INTERVENTIONS)


WHOLE = [
    f"whole_{kind}_{k}" for kind in ("deletion", "insertion") for k in ("0.01", "0.05", "0.1", "0.2", "0.4", "0.7")
]


@pytest.mark.parametrize(
    ("holds", "more"),
    [
        ([], []),
        (["detailed"], ["off_near", "off_middle", "off_far"]),
        (["planted"], ["off_evidence"]),
        (["whole"], WHOLE),
        (["own_null"], [f"shifted_deletion_{number}" for number in range(1, 17)]),
        (["planted", "detailed"], ["off_near", "off_middle", "off_far", "off_evidence"]),
    ],
)
def test_what_is_asked_for_follows_from_settings_and_evidence(holds: list[str], more: list[str]) -> None:
    asked = [entry.kind for entry in asked_for(holds)]
    assert asked == ["target_deletion", "off_deletion", "insertion", "off_fair", *more]


def test_every_condition_of_an_intervention_is_explained() -> None:
    assert {entry.asked for entry in INTERVENTIONS.values()} == {"always", *ASKED}


TAKEN = ["tdd", "stability_blur", "heatmap", "seconds", "s", "s_inserted", "s_baseline", "status", "path", "reason"]


@pytest.mark.parametrize("column", [*TAKEN, "method", "sample_id", "degenerate", "target_iou", "kind", "control_tdd"])
def test_a_column_that_exists_is_refused(column: str) -> None:
    before = dict(INTERVENTIONS)
    words = rf"the name '{column}' (is taken by a|begins with 'control_').*; give the column of the intervention 'new'"
    with pytest.raises(SettingsError, match=words):
        add_intervention(Intervention("new", column, "words", "inside"))
    assert before == INTERVENTIONS


def test_a_kind_that_exists_is_refused() -> None:
    before = dict(INTERVENTIONS)
    with pytest.raises(SettingsError, match="the kind 'insertion' is taken by another intervention"):
        add_intervention(Intervention("insertion", "s_new", "words", "inside"))
    assert before == INTERVENTIONS


def test_whoever_adds_an_intervention_alone_meets_the_names_of_the_metrics() -> None:
    code = """
from segfaith.evaluation.interventions import Intervention, add_intervention
add_intervention(Intervention("new", "tdd", "words", "inside"))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "the name 'tdd' is taken by a metric" in run.stderr


def test_interventions_need_no_torch() -> None:
    assert "import torch" not in Path(interventions.__file__).read_text()
