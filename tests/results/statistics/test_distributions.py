"""Medians, trimmed means, absolute drops and strata, from samples made by hand."""

from collections.abc import Sequence
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from hand_runs import with_samples
from made_runs import make_run
from segfaith.errors import SettingsError
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.select import enough
from segfaith.results.statistics.analysis import Options, analyse
from segfaith.results.statistics.distributions import absolute_drops, robust, strata
from segfaith.results.statistics.samples import interquartile_mean, samples


def robust_of(runs: Sequence[Run]) -> pd.DataFrame:
    return robust(samples(runs))


def absolute_drops_of(runs: Sequence[Run]) -> pd.DataFrame:
    return absolute_drops(samples(runs))


def strata_of(runs: Sequence[Run], metric: str, by: Any = "s") -> pd.DataFrame:
    return strata(samples(runs), metric, by)


def test_medians_and_trimmed_means_are_not_ruled_by_one_sample() -> None:
    values = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1000.0]
    table = robust_of([with_samples(*({"tdd": value, "s": 0.04 if value > 1 else 0.05} for value in values))])
    (row,) = table.to_dict("records")
    assert row["metric"] == "tdd"
    assert row["mean"] == pytest.approx(sum(values) / 10)
    assert row["median"] == pytest.approx(0.55)
    assert row["trimmed"] == pytest.approx(sum(values[1:-1]) / 8), "the lowest and the highest tenth are left out"
    assert (row["n"], row["small_s"]) == (10, 1)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 40, 41])
def test_the_interquartile_mean_by_a_loop(n: int) -> None:
    """Each value counts by how much of its stretch, from i to i + 1, lies between n / 4 and 3 n / 4."""
    values = np.random.default_rng(n).lognormal(0, 2, n)
    total = 0.0
    for place, value in enumerate(sorted(values)):
        total += max(0.0, min(place + 1, 0.75 * n) - max(place, 0.25 * n)) * value
    assert interquartile_mean(values) == pytest.approx(total / (n / 2))
    if n % 4 == 0:
        assert interquartile_mean(values) == pytest.approx(sorted(values)[n // 4 : 3 * n // 4] @ np.full(n // 2, 2 / n))
    assert np.isnan(interquartile_mean([]))


def test_interquartile_means_stand_in_every_table_of_medians(tmp_path: Path) -> None:
    (part,) = analyse([load_run(make_run(tmp_path / "run", maps=0))]).parts
    rows = part.runs[0].measured
    own = rows.loc[rows["method"] == "ega"]
    summary = part.summary.set_index(["method", "metric"])
    robust_ = part.robust.set_index(["method", "metric"])
    assert "fidelity" not in part.robust["metric"].tolist(), "no row has a value"
    for metric in ("tdd", "odd_abs", "leak_abs"):
        middle = interquartile_mean(own[metric].dropna())
        assert summary.loc[("ega", metric), "iqm"] == pytest.approx(middle) == robust_.loc[("ega", metric), "iqm"]
    drops = part.drops.set_index(["method", "drop"])
    expected = interquartile_mean((own["s"] - own["s_target_deleted"]).dropna())
    assert drops.loc[("ega", "target_drop"), "iqm"] == pytest.approx(expected)
    strata_ = part.strata("tdd", "class_index").set_index(["stratum", "method"])
    expected = interquartile_mean(own.loc[own["class_index"] == 1, "tdd"])
    assert strata_.loc[("bird", "ega"), "iqm"] == pytest.approx(expected)


def test_absolute_drops_are_not_divided() -> None:
    run = with_samples(
        {"s": 0.01, "s_target_deleted": 0.005, "s_off_deleted": 0.03},
        {"s": 0.8, "s_target_deleted": 0.5, "s_off_deleted": 0.7},
        {"s": 0.8, "s_target_deleted": 0.5, "s_off_deleted": nan},
        {"s": 0.8, "s_target_deleted": 0.0, "s_off_deleted": 0.0, "status": "failed"},
    )
    table = absolute_drops_of([run]).set_index("drop")
    assert table.loc["target_drop", "mean"] == pytest.approx((0.005 + 0.3 + 0.3) / 3)
    assert table.loc["target_drop", "median"] == pytest.approx(0.3)
    assert table.loc["off_drop", "mean"] == pytest.approx((0.02 + 0.1) / 2)
    assert table["n"].to_dict() == {"target_drop": 3, "off_drop": 2}


def test_strata_hold_their_lower_border() -> None:
    scores = [0.0, 0.0499, 0.05, 0.3, 0.59, 0.9, 1.0]
    table = strata_of([with_samples(*({"s": s, "tdd": place} for place, s in enumerate(scores)))], "tdd", "s")
    found = {row["stratum"]: (row["mean"], row["n"]) for row in table.to_dict("records")}
    assert found == {
        "0 <= s < 0.05": (0.5, 2),
        "0.05 <= s < 0.3": (2, 1),
        "0.3 <= s < 0.6": (3.5, 2),
        "0.9 <= s <= 1": (5.5, 2),
    }
    assert list(found) == sorted(found, key=lambda words: float(words.split()[0]))


def test_strata_by_area_and_by_class_with_names() -> None:
    run = with_samples(
        {"target_area": 0.005, "class_index": 3, "tdd": 0.2},
        {"target_area": 0.6, "class_index": 1, "tdd": 0.4},
        {"target_area": 0.7, "class_index": 9, "tdd": 0.6},
        {"target_area": 0.7, "class_index": 3, "tdd": nan},
    )
    by_area = strata_of([run], "tdd", "target_area")
    assert by_area["stratum"].tolist() == ["0 <= area < 1 %", "40 <= area <= 100 %"]
    assert by_area["mean"].tolist() == pytest.approx([0.2, 0.5])
    by_class = strata_of([run], "tdd", "class_index")
    assert by_class["stratum"].tolist() == ["bird", "cat", "class 9"]
    assert by_class["n"].tolist() == [1, 1, 1]


def test_strata_of_nothing_known_are_errors_or_say_why() -> None:
    run = with_samples({})
    with pytest.raises(SettingsError, match="expected strata by one of s, target_area, class_index, got 'size'"):
        strata_of([run], "tdd", "size")  # type: ignore[arg-type]
    with pytest.raises(SettingsError, match="unknown metric 'tddd'; did you mean 'tdd'"):
        strata_of([run], "tddd")
    missing = strata_of([run], "stability")
    assert (len(missing), missing.attrs["why"]) == (
        0,
        "no run has values of stability: an older version made them, or it was not asked for",
    )
    assert (
        "values of target_area"
        in strata_of([replace(run, records=run.records.drop(columns="target_area"))], "tdd", "target_area").attrs["why"]
    )


def test_records_without_the_newer_columns_give_empty_tables_that_say_why() -> None:
    table = absolute_drops_of([with_samples({})])
    assert len(table) == 0
    assert "no run has values of s_target_deleted" in table.attrs["why"]
    nothing = enough(with_samples({}), 0.9)
    for table in (robust_of([nothing]), absolute_drops_of([nothing]), strata_of([nothing], "tdd")):
        assert table.attrs["why"] == "no sample was measured"


def test_a_data_set_that_lacks_what_another_has_says_so_for_itself() -> None:
    full = with_samples({"s_target_deleted": 0.1, "s_off_deleted": 0.1, "stability": 1.0})
    bare = with_samples({})
    bare = replace(bare, description=bare.description | {"data": {"name": "voc2012", "split": "val"}})
    for part in analyse([full, bare]).parts:
        for table in (part.drops, part.strata("stability", "s")):
            has = part.label == "sbd val"
            assert set(table["data"]) == ({part.label} if has else set())
            assert table.attrs["why"] == "" if has else table.attrs["why"].startswith("no run has values of ")


def test_the_filter_on_s_reaches_every_table_of_samples(tmp_path: Path) -> None:
    """Sample 2 has s = .01, with leakage forty times as high."""
    runs = [load_run(make_run(tmp_path / f"seed{seed}", seed=seed, maps=0, curves=False)) for seed in (0, 1)]
    every, some = (analyse(runs, Options(min_s=least)).parts[0] for least in (None, 0.05))
    for name in ("robust", "drops", "leakage", "map_properties"):
        counts = [getattr(part, name).groupby("method")["n"].max() for part in (every, some)]
        assert (counts[0] - counts[1]).eq(2).all(), name
    assert "0 <= s < 0.05" in set(every.strata("tdd", "s")["stratum"])
    assert "0 <= s < 0.05" not in set(some.strata("tdd", "s")["stratum"])
