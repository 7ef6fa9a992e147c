"""Analyses that the tests of figures share."""

from pathlib import Path

import pytest

from made_runs import edit_description, make_run
from segfaith.results.records.runs import load_run
from segfaith.results.statistics.analysis import DataAnalysis, analyse


def with_parameters(directory: Path, alpha: float = 0.65, beta: float = 0.35) -> Path:
    parameters = {"alpha": alpha, "beta": beta}
    edit_description(directory, lambda about: about["methods"]["dea"].update(parameters=parameters))
    return directory


@pytest.fixture(scope="package")
def part(tmp_path_factory: pytest.TempPathFactory) -> DataAnalysis:
    """Two runs of one model with other seeds and noise, all of whose images have maps."""
    folder = tmp_path_factory.mktemp("runs")
    paths = [make_run(folder / f"seed{seed}", seed=seed, maps=24, size=16) for seed in (0, 1)]
    return analyse([load_run(with_parameters(path)) for path in paths]).parts[0]
