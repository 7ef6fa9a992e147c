"""The analysis of runs: each table once, of one data set, equal to what the functions give."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest

from hand_runs import by_image, drawn, one_metric
from made_runs import make_run
from planted_runs import RISING, planted_run, rows_of
from segfaith.errors import SettingsError
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.select import enough
from segfaith.results.statistics import (
    claims,
    curves,
    distributions,
    evidence,
    friedman,
    influence,
    leakage,
    maps,
    paired,
    randomisation,
    rankings,
    resampled,
    samples,
    summary,
)
from segfaith.results.statistics.analysis import BYS, OVERS, Analysis, DataAnalysis, Options, analyse
from segfaith.results.statistics.curves import CURVE_KINDS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("made")
    ids = tuple(f"i{number:02d}" for number in range(12))
    return [load_run(make_run(folder / f"seed{seed}", seed=seed, samples=ids, maps=0)) for seed in (0, 1)]


def test_runtimes_of_several_machines_are_told(made: list[Run]) -> None:
    records = made[0].records.assign(machine=["fast", "slow"] * (len(made[0].records) // 2))
    mixed = replace(made[0], records=records)
    (note,) = analyse([mixed]).runtime_notes
    assert "its runtimes are means over several machines (fast; slow)" in note
    assert note in analyse([mixed]).notes
    assert analyse([made[0]]).runtime_notes == []


TABLES = (
    *("summary", "values", "wins", "claims", "pairs", "ranked", "areas", "curve_means", "robust", "drops", "leakage"),
    *("map_properties", "randomisation", "evidence", "evidence_scores", "evidence_agreements", "evidence_leakage"),
    *("influence", "best", "verdicts"),
)


def ask(part: DataAnalysis) -> list[Any]:
    """Every table of a data set."""
    found: list[Any] = [getattr(part, name) for name in TABLES]
    for metric in CURVE_KINDS:
        for over in OVERS:
            found += [part.ranking(metric, over), part.concordance(metric, over), part.concordance(metric, over, "all")]
    return [*found, *(part.strata("tdd", by) for by in BYS)]


ONCE: dict[Any, dict[str, int]] = {
    summary: {"summarise": 2, "run_values": 1, "wins": 7},
    claims: {"check_claims": 1},
    paired: {"paired": 9, "compare": 6},
    friedman: {"friedman": 6},
    curves: {"points": 1, "areas": 1, "curve_means": 1},
    rankings: {"complete": 12, "by_setting": 6, "concordance": 12},
    samples: {"samples": 1},
    distributions: {"robust": 1, "absolute_drops": 1, "strata": 3},
    leakage: {"leakage": 1},
    maps: {"map_properties": 1},
    randomisation: {"randomisation": 1},
    evidence: {"usable": 1, "scores": 1, "agreements": 1, "leakage": 1},
    influence: {"influence": 1},
}
"""How often each function runs when every table is asked for twice: wins are of seven metrics, paired values of the two
metrics that may lead too, tests
of six, rankings of three metrics over two settings among two sets of methods."""


def test_every_fact_is_computed_once(made: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    counts: Counter[tuple[str, str]] = Counter()

    def counted(module: Any, name: str) -> Callable[..., Any]:
        function = getattr(module, name)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            counts[module.__name__, name] += 1
            return function(*arguments, **options)

        return wrapped

    for module, names in ONCE.items():
        for name in names:
            monkeypatch.setattr(module, name, counted(module, name))
    (part,) = analyse(made).parts
    assert not counts, "nothing is computed before it is asked for"
    first = ask(part)
    assert all(one is other for one, other in zip(first, ask(part), strict=True))
    assert dict(counts) == {(module.__name__, name): n for module, names in ONCE.items() for name, n in names.items()}


def test_another_analysis_keeps_its_own_tables(made: list[Run]) -> None:
    (one,), (other,) = analyse(made).parts, analyse(made, Options(min_s=0.5)).parts
    assert one.strata("tdd", "s")["n"].sum() > other.strata("tdd", "s")["n"].sum()
    assert one.paired("tdd") is not other.paired("tdd")


def same(part: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(part.reset_index(drop=True), expected.reset_index(drop=True))


def test_tables_are_those_of_the_functions(made: list[Run]) -> None:
    (part,) = analyse(made, Options(min_s=0.05)).parts
    runs = [enough(run, 0.05) for run in made]
    values = summary.run_values(runs)
    images = {metric: paired.paired(runs, metric) for metric in part.table}
    rows, points = samples.samples(runs), curves.points(runs)
    whole = summary.with_paper(summary.summarise(runs))
    same(part.summary[list(whole)], whole)
    drops = resampled.quantities(images["tdd"], resampled.backbones(runs))
    same(part.summary.loc[part.summary["metric"] == "tdd", list(drops)], drops)
    best = summary.predicted(runs, part.metrics)
    assert 0 < best["predicted_n"].max() < whole["n"].max()
    same(part.summary[list(best)], best)
    same(part.values, values)
    same(part.wins, pd.concat([summary.wins(values, images[metric]) for metric in part.table]))
    same(part.claims, claims.check_claims(values, images))
    tests = pd.concat([paired.compare(images[metric]) for metric in part.tested], ignore_index=True)
    same(part.pairs, paired.over_page(tests))
    assert part.ranked["tdd"].ranks == friedman.friedman(images["tdd"]).ranks
    same(part.areas, curves.areas(runs, points))
    same(part.curve_means, curves.curve_means(runs, points))
    same(part.robust, distributions.robust(rows))
    same(part.drops, distributions.absolute_drops(rows))
    same(part.strata("tdd", "s"), distributions.strata(rows, "tdd", "s"))
    same(part.leakage, leakage.leakage(rows))
    same(part.map_properties, maps.map_properties(rows))
    same(part.randomisation, randomisation.randomisation(runs))
    among_all = rankings.complete(runs, "odd_abs", "k")
    same(part.concordance("odd_abs", "k", "all"), rankings.concordance(among_all))
    own = rankings.complete(runs, "odd_abs", "k", methods=["gpa", "ega", "ria", "dea"])
    same(part.ranking("odd_abs", "k"), rankings.by_setting(own))


def test_planted_evidence_has_its_tables() -> None:
    (part,) = analyse([planted_run(rows_of(RISING, scenes=24))]).parts
    rows, left_out = part.evidence
    assert left_out == {}
    same(part.evidence_scores, evidence.scores(rows))
    same(part.evidence_agreements, evidence.agreements(rows))
    same(part.evidence_leakage, evidence.leakage(rows))
    verdicts = part.evidence_agreements.set_index("metric")["verdict"]
    assert verdicts["tdd"] == "too few methods for a verdict"
    assert verdicts["odd_abs"].startswith("blind by construction: ")


def two() -> Analysis:
    """Two data sets, their runs in turn; the second lacks dea. Runs of one name are numbered over both."""
    first, second = {"ega": [0.1] * 3, "dea": [0.5] * 3}, {"ega": [0.3] * 3}
    runs = [
        one_metric(values, data=data, name="net", seed=seed)
        for seed in (0, 1)
        for data, values in (("voc2012", first), ("sbd", second))
    ]
    return analyse(runs)


def test_names_of_runs_are_numbered_over_all_data_sets() -> None:
    analysis = two()
    assert [part.label for part in analysis.parts] == ["voc2012 val", "sbd val"]
    assert [part.names for part in analysis.parts] == [("net", "net (3)"), ("net (2)", "net (4)")]
    for part in analysis.parts:
        assert tuple(part.values["run"].unique()) == part.names
    assert analysis.table("values")["run"].unique().tolist() == ["net", "net (3)", "net (2)", "net (4)"]


def test_a_pair_whose_method_a_data_set_lacks_is_not_testable_there() -> None:
    analysis = two()
    pairs = analysis.table("pairs")
    assert set(pairs["data"]) == {"voc2012 val", "sbd val"}
    lacking = pairs[pairs["data"] == "sbd val"]
    assert list(lacking["metric"]) == analysis.parts[1].tested
    assert set(paired.TESTED) - set(analysis.parts[1].tested) == {"fidelity", "fidelity_outside"}, "not measured"
    assert set(lacking["why"]) == {"not testable: no run of these data holds dea"}
    assert analysis.parts[1].ranked == {}


def test_tables_of_all_data_sets_stand_one_below_the_other() -> None:
    analysis = two()
    table = analysis.table("summary")
    assert len(table) == sum(len(part.summary) for part in analysis.parts)
    assert table["data"].unique().tolist() == ["voc2012 val", "sbd val"]
    assert len(analysis.table("leakage")) == 0
    assert "odd_fair_abs" in analysis.table("leakage")
    assert [run.label for run in analysis.runs] == ["net"] * 4 == [run.label for run in analysis.read]


def test_samples_are_filtered_for_all_tables_and_kept_as_read() -> None:
    made = one_metric({"ega": [0.1, 0.3, 0.8], "dea": [0.2, 0.4, 0.6]})
    made.records["s"] = [0.04, 0.05, 0.9] * 2
    made.records["target_iou"] = [0.9, 0.9, 0.05] * 2
    (part,) = analyse([made], Options(min_s=0.05, min_iou=0.1)).parts
    assert part.runs[0].records["sample_id"].unique().tolist() == ["i1"]
    assert len(part.read[0].records) == 6
    assert set(part.values.loc[part.values["metric"] == "tdd", "n"]) == {1}


def test_methods_that_are_asked_for_must_be_there() -> None:
    runs = [by_image(drawn(12, a=0.5, b=0.4, mask=0.3))]
    assert analyse(runs, Options(methods=("mask", "a"))).parts[0].compared == ("mask", "a")
    with pytest.raises(SettingsError, match=r"expected methods of these runs \(a, b, mask\); came d, which no run"):
        analyse(runs, Options(methods=("a", "d")))
    with pytest.raises(SettingsError, match="expected at least one run to report on; got none"):
        analyse([])
