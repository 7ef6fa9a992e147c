"""The entries of interventions: their columns, when each is asked for, and what cannot be added."""

from pathlib import Path

import pytest

from segfaith.errors import SettingsError
from segfaith.evaluation import interventions
from segfaith.evaluation.interventions import (
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
    if entry.pixels:
        assert entry.missing, "it may take none of the region's pixels"


def test_the_columns_of_scores_are_those_of_the_records_in_their_order() -> None:
    names = list(score_columns())
    assert names[:5] == ["s", "s_target_deleted", "s_off_deleted", "s_baseline", "s_inserted"]
    assert [name for name in RECORD_COLUMNS if name in names] == names
    assert len(names) == 2 + len(INTERVENTIONS)


@pytest.mark.parametrize(
    ("detailed", "planted", "more"),
    [
        (False, False, []),
        (True, False, ["off_fair", "off_near", "off_middle", "off_far"]),
        (False, True, ["off_evidence"]),
        (True, True, ["off_fair", "off_near", "off_middle", "off_far", "off_evidence"]),
    ],
)
def test_what_is_asked_for_follows_from_settings_and_evidence(detailed: bool, planted: bool, more: list[str]) -> None:
    asked = [entry.kind for entry in asked_for(detailed=detailed, planted=planted)]
    assert asked == ["target_deletion", "off_deletion", "insertion", *more]


@pytest.mark.parametrize(("kind", "column"), [("insertion", "s_new"), ("new", "s_inserted"), ("new", "s_baseline")])
def test_a_name_that_is_taken_is_refused(kind: str, column: str) -> None:
    before = dict(INTERVENTIONS)
    with pytest.raises(SettingsError, match=f"the intervention '{kind}' or its column '{column}' is there already"):
        add_intervention(Intervention(kind, column, "words", "inside"))
    assert before == INTERVENTIONS


def test_interventions_need_no_torch() -> None:
    assert "import torch" not in Path(interventions.__file__).read_text()
