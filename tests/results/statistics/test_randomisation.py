"""The randomisation check in numbers."""

from dataclasses import replace
from math import nan
from pathlib import Path

import pandas as pd
import pytest

from made_runs import make_run
from segfaith.results.records.runs import Run, load_run
from segfaith.results.statistics.randomisation import NOT_RANDOMISED, randomisation, unfinished_checks


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("made")
    return [load_run(make_run(folder / f"seed{seed}", seed=seed, maps=0)) for seed in (0, 1)]


def test_randomisation_is_a_mean_per_method_and_stage(made: list[Run]) -> None:
    table = randomisation(made)
    mask = table[table["method"] == "mask"]
    assert mask["stage"].tolist() == [0, 1, 2, 3]
    assert mask["part"].tolist() == ["", "classifier", "layer4", "layer3"]
    assert mask["spearman"].tolist() == pytest.approx([1, 0.9, 0.8, 0.7])
    assert mask["pearson"].tolist() == pytest.approx([1, 0.7, 0.4, 0.1])
    assert mask["s"].tolist() == pytest.approx([0.9, 0.7, 0.5, 0.3])
    assert set(table["n"]) == {2 * 4}
    assert set(table["constant"]) == {0}
    assert table.loc[(table["method"] == "dea") & (table["stage"] == 3), "spearman"].item() == pytest.approx(
        1 - 3 * 0.28
    )


def test_maps_that_failed_in_the_randomisation_are_counted_and_enter_no_mean(made: list[Run]) -> None:
    rows = made[0].randomisation
    gone = {"status": "failed", "spearman": nan, "pearson": nan}
    worse = rows.assign(**gone).where(rows["stage"] == 1, rows, axis=0)
    before, found = (randomisation([replace(made[0], randomisation=one)]) for one in (rows, worse))
    at_first = before["stage"] == 1
    assert found.loc[at_first, "failed"].tolist() == before.loc[at_first, "n"].tolist()
    assert (found.loc[at_first, "n"] == 0).all()
    assert found.loc[at_first, "spearman"].isna().all()
    pd.testing.assert_frame_equal(found[~at_first], before[~at_first])
    skipped = randomisation([replace(made[0], randomisation=rows.assign(status="skipped"))])
    assert skipped.attrs["why"] == "the randomisation check skipped all samples"


def test_runs_that_were_not_checked_give_an_empty_table_that_says_so(tmp_path: Path) -> None:
    table = randomisation([load_run(make_run(tmp_path / "run", curves=False, randomisation=False, maps=0))])
    assert len(table) == 0
    assert table.attrs["why"] == NOT_RANDOMISED
    assert "no rows in randomisation.parquet" in NOT_RANDOMISED


def test_models_are_called_by_what_tells_them_apart(made: list[Run]) -> None:
    """By name; with two weights of one name also by them; with other parts of the same weights by their runs."""
    first, second = made
    assert set(randomisation(made)["model"]) == {"netA"}
    weights = second.description | {"model": second.description["model"] | {"weights": "other.pth"}}
    known = first.description["model"]["weights"]
    told = randomisation([first, replace(second, description=weights)])
    assert set(told["model"]) == {f"netA, {known}", "netA, other.pth"}
    parts = replace(second, randomisation=second.randomisation.replace({"part": {"layer4": "layer9"}}))
    assert set(randomisation([first, parts])["model"]) == {f"netA ({run.label})" for run in made}


def test_a_check_that_was_stopped_is_named(made: list[Run]) -> None:
    assert unfinished_checks(made) == []
    rows = made[0].randomisation
    (sentence,) = unfinished_checks([replace(made[0], randomisation=rows[rows["stage"] < 2].assign(finished=False))])
    assert sentence.startswith("seed0: the randomisation check was stopped after stage 1; the later parts were not")
