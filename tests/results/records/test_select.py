"""How runs call their methods and classes."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from segfaith.results.records.runs import Run, class_name
from segfaith.results.records.select import label_notes, method_labels

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
