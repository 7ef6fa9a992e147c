"""Two made runs of one data set, and their analysis, for all that is told of them."""

import pytest

from made_runs import make_run
from segfaith.results.records.runs import Run, load_run
from segfaith.results.statistics.analysis import Analysis, analyse

SEVEN = ("gpa", "ega", "ria", "dea", "dea@alpha=0.5", "random_cells", "mask")


@pytest.fixture(scope="session")
def two_runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two seeds on the same 16 images: 15 measured each, of which one failed for gpa; stability on every other."""
    folder = tmp_path_factory.mktemp("made")
    ids = tuple(f"img{i:02d}" for i in range(16))
    runs = [make_run(folder / f"run{seed}", seed=seed, samples=ids, maps=0, methods=SEVEN) for seed in (0, 1)]
    return [load_run(run) for run in runs]


@pytest.fixture(scope="session")
def analysis(two_runs: list[Run]) -> Analysis:
    return analyse(two_runs)
