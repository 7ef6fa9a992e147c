"""Sentences on scores: numbers, directions and names as they are."""

import numpy as np
import pandas as pd

from segfaith.results.report.sentences import method_label, number, sentences

ROW = {
    "status": "ok",
    "reason": "",
    "score": "probability",
    "s": 0.93,
    "s_target_deleted": 0.41,
    "s_off_deleted": 0.95,
    "s_baseline": 0.05,
    "s_inserted": 0.6,
}


def frame(**rows: dict[str, object]) -> pd.DataFrame:
    return pd.DataFrame({name: ROW | row for name, row in rows.items()}).T


def test_the_sentences_of_a_method() -> None:
    said = sentences(frame(ega={}, random_cells={"s_target_deleted": 0.8}), "dog", k=0.2)
    assert said == {
        "ega": [
            "EGA: deleting its top 20 % inside the dog lowers the dog's probability from 0.93 to 0.41; random cells "
            "lower it to 0.80.",
            "EGA: deleting its top 20 % outside the dog raises the dog's probability from 0.93 to 0.95.",
            "EGA: its top 20 % inside the dog, put back into a picture of the image's mean colour alone, raises the "
            "dog's probability from 0.05 to 0.60.",
        ]
    }


def test_unchanged_scores_other_scores_and_unknown_names() -> None:
    row = {"s_target_deleted": 0.931, "score": "log_odds", "s_off_deleted": np.nan}
    control = {"s_target_deleted": 0.93}
    first, second, _ = sentences(frame(mine=row, random_cells=control), "class 3", k=0.05, occlusion="zero")["mine"]
    inside = "mine: deleting its top 5 % inside class 3 leaves class 3's log odds at 0.93"
    assert first == f"{inside}; random cells leave it at 0.93."
    assert second == "mine: nothing lies outside class 3, so nothing could be deleted there."


def test_a_method_that_failed_says_why() -> None:
    said = sentences(frame(ria={"status": "failed", "reason": "no memory"}, random_cells={}), "dog", k=0.2)
    assert said == {"ria": ["RIA: it could not be measured: no memory"]}


def test_labels_and_numbers() -> None:
    assert method_label("dea@alpha=0.8") == "DEA@alpha=0.8"
    assert method_label("my_method.py:explain") == "my_method.py:explain"
    assert [number(value) for value in (-0.001, 2.345, float("nan"))] == ["0.00", "2.35", "-"]
