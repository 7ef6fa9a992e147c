"""The planted evidence as a map beside the methods: what it is, where it is not, and that nothing else moves for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import segfaith
from folder_runs import content, prepared_scenes
from segfaith.attribution.methods import METHODS, resolve_method
from segfaith.benchmark.plan import make_plan
from segfaith.benchmark.prepared import Prepared
from segfaith.benchmark.randomisation import randomise
from segfaith.benchmark.runner import open_directory
from segfaith.benchmark.settings import make_settings
from segfaith.benchmark.status import run_state
from segfaith.benchmark.targeting import load_sample
from segfaith.constants import COUNTERPART, TRUTH
from segfaith.errors import SettingsError
from segfaith.paths import map_folder
from segfaith.results.records.runs import Run, load_run
from segfaith.results.records.select import own_methods
from segfaith.results.report.gallery import gallery
from segfaith.results.report.markdown import markdown
from segfaith.results.report.sections import leaderboard, limits, summary
from segfaith.results.report.terminal import brief
from segfaith.results.statistics.analysis import DataAnalysis, analyse
from segfaith.results.statistics.rankings import Over, complete

NAMES = ["gpa", "ega", "ria", "mask"]
OTHERS = ["gpa", "ega", "ria", "random_cells", "mask", "gamed"]


def prepared(**changes: Any) -> Prepared:
    """Four small scenes, every class of each a target, counterparts among them."""
    return prepared_scenes(
        4,
        target={"per_image": "all"},
        methods={"names": NAMES, "ria": {"grid": 4}},
        evaluation={"stability": 1, "k": [0.2, 0.5], "fidelity": 32, "fidelity_grid": 9},
        output={"maps": True},
        **changes,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Run]:
    """The run, and the same run without the truth."""
    root = tmp_path_factory.mktemp("truth")
    whole, without = prepared(), prepared()
    without.replan(replace(without.plan, methods=[one for one in without.plan.methods if one.name != TRUTH]))
    return tuple(load_run(segfaith.run(one, root / name)) for one, name in ((whole, "a"), (without, "b")))  # type: ignore[return-value]


def analysis_of(run: Run) -> DataAnalysis:
    (part,) = analyse([run]).parts
    return part


def test_its_map_is_the_planted_evidence_of_all_alternatives(runs: tuple[Run, Run]) -> None:
    run, plan = runs[0], prepared()
    rows = run.measured[run.measured["method"] == TRUTH]
    assert len(rows) > 4
    for row in rows.to_dict("records"):
        planted = load_sample(plan.plan, plan.model, row["sample_id"]).planted[int(row["class_index"])]
        expected = np.logical_or.reduce([mask.numpy() for mask in planted.alternatives])
        heatmap = np.load(run.directory / "maps" / map_folder(row["sample_id"], row["target"]) / "truth.npy")
        np.testing.assert_array_equal(heatmap, expected.astype(np.float32))
    assert (rows["evidence_ap"] == 1).all(), "other alternatives are left out of each"
    assert (rows["evidence_mass"] == 1).all()
    assert rows[["tdd", "odd_abs", "deletion_area"]].notna().all(axis=None)


def test_it_has_no_stability_and_no_runtime_and_says_why(runs: tuple[Run, Run]) -> None:
    rows = runs[0].measured[runs[0].measured["method"] == TRUTH]
    assert rows[["stability", "stability_rank", "stability_top", "runtime_s"]].isna().all(axis=None)
    assert rows["reason"].str.contains("stability, runtime_s: the map is the planted evidence itself").all()


def test_where_nothing_is_planted_it_is_skipped_with_the_reason(runs: tuple[Run, Run]) -> None:
    records = runs[0].records
    rows = records[records["method"] == TRUTH]
    bad = rows[rows["status"] != "ok"]
    assert len(bad)
    assert set(bad["kind"]) == {COUNTERPART} == set(rows["kind"]) - set(rows.loc[rows["status"] == "ok", "kind"])
    assert set(bad["status"]) == {"skipped"}
    assert set(bad["reason"]) == {"the pixels that decide this target are not known, so there is no true map"}
    assert (records.loc[records["method"] != TRUTH, "status"] == "ok").all()


def test_a_sample_without_it_is_no_worse_for_that(runs: tuple[Run, Run]) -> None:
    state = run_state(runs[0].directory)
    assert (state.ok, state.partly, state.skipped, state.failed) == (4, 0, 0, 0)
    analyses = [analyse([run]) for run in runs]
    samples = gallery(analyses[0].parts).samples
    assert {one.status for one in samples} == {"ok"}
    assert not any(TRUTH in methods for one in samples for methods, _ in one.reasons)
    assert "skipped or failed" not in markdown([limits.section(analyses[0])])
    told = [[line for line in brief(one) if str(line).startswith("Undefined values")] for one in analyses]
    assert told[0] == told[1] != []


def test_the_summary_and_the_tables_name_it_apart(runs: tuple[Run, Run]) -> None:
    pages = [markdown([summary.section(analyse([run]))]) for run in runs]
    assert "Methods: gpa, ega, ria; controls: mask, random_cells, gamed; the truth as a map." in pages[0]
    assert "Methods: gpa, ega, ria; controls: mask, random_cells, gamed. " in pages[1]
    tables = [leaderboard.leaderboard(analysis_of(run)) for run in runs]
    assert [table.tail for table in tables] == [4, 3]
    assert tables[0].rows[-1][0].text == TRUTH
    assert not any(cell.best for cell in tables[0].rows[-1])


def test_nothing_of_the_other_methods_moves_for_it(runs: tuple[Run, Run]) -> None:
    """Their rows, their summary, and all that is drawn from samples that all methods share."""
    same = [name for name in runs[0].records if name != "runtime_s"]
    whole, without = (run.records[same].astype({"degenerate": bool}) for run in runs)
    kept = whole[whole["method"] != TRUTH].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, without.reset_index(drop=True), rtol=0, atol=1e-5)
    one, other = map(analysis_of, runs)
    assert one.methods == [*OTHERS, TRUTH]
    assert other.methods == OTHERS
    for table in ("summary", "values", "robust", "drops", "map_properties", "leakage", "influence", "areas"):
        frames = [getattr(part, table) for part in (one, other)]
        if "metric" in frames[0]:
            frames = [frame[frame["metric"] != "runtime_s"] for frame in frames]
        first = frames[0][frames[0]["method"] != TRUTH].reset_index(drop=True)
        pd.testing.assert_frame_equal(first, frames[1].reset_index(drop=True), rtol=0, atol=1e-4, obj=table)
    chosen: tuple[tuple[str, Over], ...] = (("tdd", "k"), ("insertion_gain", "occlusion"))
    for metric, over in chosen:
        first, second = (complete([run], metric, over) for run in runs)
        assert set(first.methods) == set(second.methods) == set(OTHERS)
        assert first.images == second.images == 4
        pd.testing.assert_frame_equal(first.values, second.values, rtol=0, atol=1e-5)
    for test in ("pairs", "chance", "evidence_agreements"):
        pd.testing.assert_frame_equal(getattr(one, test), getattr(other, test), rtol=0, atol=1e-3, obj=test)


def test_it_is_under_no_test_and_no_control_that_is_better_still(runs: tuple[Run, Run]) -> None:
    part = analysis_of(runs[0])
    assert own_methods([runs[0]]) == ["gpa", "ega", "ria"]
    assert {best.method for best in part.best.values()} <= {"gpa", "ega", "ria", ""}
    assert part.best["evidence_ap"].control != TRUTH, "no map is better, and it explains something"
    assert {verdict.method for verdict in part.verdicts} == {"gpa", "ega", "ria"}
    assert part.references == ["random_cells", "mask", "gamed", TRUTH]


def test_a_run_is_taken_up_again_with_it(runs: tuple[Run, Run]) -> None:
    again = prepared()
    assert open_directory(runs[0].directory, again, pytest.fail, pytest.fail) == []


def test_randomised_models_are_not_asked_for_it(tmp_path: Path) -> None:
    small = prepared_scenes(1)
    directory = segfaith.run(small, tmp_path / "run")
    randomise(small, directory, 1)
    assert set(load_run(directory).randomisation["method"]) == {"mask", "random_cells"}


def test_runs_have_it_where_evidence_is_known_and_nobody_can_name_it(project: Path) -> None:
    def methods(**data: Any) -> list[str]:
        plan = make_plan(make_settings(content(project, data=data, methods={"names": ["mask"]})))
        return [method.name for method in plan.methods]

    assert methods() == methods(wired={"blend": 0.3}) == ["mask", "random_cells"]
    assert methods(wired="crossed") == methods(wired="straight") == ["mask", "random_cells", TRUTH]
    assert TRUTH not in METHODS
    with pytest.raises(SettingsError, match="cannot be named: it is the planted evidence as a map"):
        resolve_method(TRUTH, {})
    with pytest.raises(SettingsError, match="would both be shown as 'truth'"):
        make_plan(make_settings(content(project, data={"wired": "crossed"}, methods={"labels": {"mask": TRUTH}})))
