"""What a run of many samples costs: nothing is read, held or computed anew for each sample that a run has."""

import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from made_runs import make_run
from segfaith.benchmark import ownership
from segfaith.benchmark.lock import RunIsBusyError
from segfaith.results.records import seals
from segfaith.results.records.runs import load_run, read_description
from segfaith.results.report.gallery import spreads
from segfaith.results.statistics import resampled
from segfaith.results.statistics.intervals import MEAN, POOLED, TRIMMED, estimate
from segfaith.results.statistics.power import positive_pairs


def peak(work: Callable[[], object]) -> float:
    """The most MB that the work held at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / 1e6
    finally:
        tracemalloc.stop()


def test_run_json_is_read_again_only_where_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, other = make_run(tmp_path / "mine", maps=0), make_run(tmp_path / "other", seed=1, maps=0)
    read: list[Path] = []
    monkeypatch.setattr(ownership, "read_description", lambda where: read.append(where) or read_description(where))
    identity = read_description(mine)["identity_sha256"]
    for _ in range(20):
        ownership.check_own(mine, identity)
    assert len(read) == 1
    shutil.copy(other / "run.json", mine / "run.json")
    with pytest.raises(RunIsBusyError, match="replaced"):
        ownership.check_own(mine, identity)
    assert len(read) == 2


def test_a_file_of_records_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = make_run(tmp_path / "run", curves=False, maps=0, randomisation=False)
    opened: list[object] = []
    parse = seals.pq.ParquetFile
    monkeypatch.setattr(seals.pq, "ParquetFile", lambda *given: opened.append(given) or parse(*given))
    load_run(directory)
    assert len(opened) == len(list((directory / "records").glob("*.parquet")))


def test_pairs_of_images_are_counted_without_a_table_of_all_pairs() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 4000)
    assert peak(lambda: positive_pairs(values)) < 2, "4,000 x 4,000 sums are 128 MB"


@pytest.mark.parametrize("of", [POOLED, TRIMMED, MEAN])
def test_the_bootstrap_of_many_images_holds_few_draws_at_once_and_keeps_its_law(of: str) -> None:
    rng, images = np.random.default_rng(0), resampled.MANY + 1
    weights = rng.uniform(0.2, 1, (images, 1))
    values = rng.normal(0.3, 1, (images, 1)) * weights
    found: list[tuple[float, float]] = []
    resampled._draws.cache_clear()
    held = peak(lambda: found.append(resampled._interval(values, weights, np.ones((images, 1)), of, 0)))
    assert held < 60, "a table of all draws as floats is 80 MB, and there were several"
    expected = estimate(values[:, 0], weights[:, 0], of)
    assert found[0] == pytest.approx((expected.low, expected.high), abs=0.1 * (expected.high - expected.low))


def test_the_spread_of_all_samples_at_once_is_that_of_each(tmp_path: Path) -> None:
    records = load_run(make_run(tmp_path / "run", maps=0)).records
    found = spreads(records)
    for sample, rows in records.groupby("sample_id"):
        own = rows[(rows["status"] == "ok") & rows["method"].isin(["gpa", "ega", "ria", "dea"])]["tdd"].dropna()
        assert found.get((str(sample), "")) == (own.max() - own.min() if len(own) > 1 else None)
    assert len(found) > 20
