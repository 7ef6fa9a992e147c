"""Which runs a report is made of: found once, counted once, and named where they are absent."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from made_runs import edit_description, make_run, take_over
from segfaith.benchmark.status import absent_runs, read_states
from segfaith.cli import app
from segfaith.errors import SettingsError
from segfaith.results.records.files import create_file
from segfaith.results.records.identity import own_numbers
from segfaith.results.records.runs import find_runs, load_runs
from segfaith.results.statistics.curves import areas
from segfaith.results.statistics.rankings import by_setting

QUICK = {"samples": tuple(f"i{number}" for number in range(8)), "maps": 0, "randomisation": False}


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """Two finished runs, one that has begun without a shard, one that failed, one that never began."""
    for seed in (0, 1):
        make_run(tmp_path / f"net-seed{seed}", seed=seed, **QUICK)
    begun = tmp_path / "net-seed2"
    begun.mkdir()
    shutil.copy(tmp_path / "net-seed0" / "run.json", begun)
    edit_description(begun, lambda about: about["settings"].update(seed=2))
    (tmp_path / "net-seed3").mkdir()
    (tmp_path / "net-seed3" / "failure.json").write_text(json.dumps({"reason": "no <weights> file net.pth"}))
    planned = {f"net-seed{seed}": {"samples": 8} for seed in range(5)}
    (tmp_path / "suite.json").write_text(json.dumps({"runs": planned}))
    return tmp_path


def test_runs_without_records_are_no_part_of_a_suites_report_but_are_named(suite: Path) -> None:
    assert [path.name for path in find_runs([suite])] == ["net-seed0", "net-seed1"]
    assert absent_runs(suite) == [
        "net-seed2 is planned, but not here: stopped",
        "net-seed3 is planned, but not here: no <weights> file net.pth",
        "net-seed4 is planned, but not here: not started",
    ]
    assert absent_runs(suite / "net-seed0") == []


def test_the_report_names_absent_runs_wherever_it_draws_conclusions(suite: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(suite), "--html"])
    assert done.exit_code == 0, done.output
    sentence = "net-seed4 is planned, but not here: not started"
    texts = [(suite / name).read_text(encoding="utf-8") for name in ("conclusions.md", "claims.md", "report.html")]
    assert all(sentence in text for text in (done.output, *texts))
    assert "no &lt;weights&gt; file net.pth" in texts[2]
    assert "<weights>" not in texts[2]


def test_a_suite_in_which_nothing_has_records_says_so(suite: Path) -> None:
    for shard in suite.glob("*/records/*"):
        shard.unlink()
    with pytest.raises(SettingsError, match=r"no run in .* has records yet; go on with: segfaith suite NAME -o"):
        find_runs([suite])


def test_a_broken_file_is_the_failure_of_its_run_alone(suite: Path) -> None:
    (suite / "net-seed1" / "run.json").write_text("{")
    states = {one.name: one for one in read_states(suite)}
    assert states["net-seed0"].state == "finished"
    assert states["net-seed1"].state == "failed"
    assert "run.json cannot be read" in states["net-seed1"].reason


def test_a_path_named_twice_counts_once(suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(suite)
    twice = [Path("net-seed0"), suite / "net-seed0", suite / "net-seed1" / ".." / "net-seed0"]
    assert len(find_runs(twice)) == 1
    assert len(load_runs([*twice, suite / "net-seed1"])) == 2


def test_copies_of_a_run_are_refused(suite: Path) -> None:
    make_run(suite / "copy", seed=0, **QUICK)
    with pytest.raises(SettingsError, match=r"copy and .*net-seed0 hold the same run; name one of them"):
        load_runs([suite])


def test_versions_of_results_are_not_averaged(suite: Path) -> None:
    """Runs that do not say theirs, as here, mix with any."""
    edit_description(suite / "net-seed0", lambda about: about.update(identity={"results_version": 3}))
    assert len(load_runs([suite])) == 2
    edit_description(suite / "net-seed1", lambda about: about.update(identity={"results_version": 4}))
    with pytest.raises(SettingsError, match=r"'voc2012 val' to share one version .*seed0 has 3 and .*seed1 4"):
        load_runs([suite])


def test_a_method_with_several_parameters_can_be_named_to_compare(suite: Path) -> None:
    done = CliRunner().invoke(app, ["report", str(suite), "--compare", "gpa, dea@alpha=0.5,beta=0.5,ega"])
    assert "came dea@alpha=0.5,beta=0.5, which no run holds" in " ".join(str(done.exception).split())
    done = CliRunner().invoke(app, ["report", str(suite), "--compare", "gpa, ega"])
    assert done.exit_code == 0, done.output
    assert "Compared here: gpa and ega." in (suite / "significance.md").read_text()


def test_a_file_is_created_once(tmp_path: Path) -> None:
    file = tmp_path / "new" / "run.json"
    assert create_file(file, "first")
    assert not create_file(file, "second")
    assert file.read_text() == "first"
    assert [path.name for path in file.parent.iterdir()] == ["run.json"]


def test_absolute_values_of_curves_are_means_over_draws(tmp_path: Path) -> None:
    """A control of three draws whose signed values cancel leaks all the same."""
    make_run(tmp_path / "run", **QUICK, methods=("gpa", "ega", "random_cells"), skipped=0, failed=0)
    (one,) = load_runs([tmp_path / "run"])
    off = one.curves["kind"] == "off_deletion"
    own = off & (one.curves["method"] == "random_cells")
    one.curves.loc[own, "value"] = 0.0
    one.curves.loc[own, "value_abs"] = 0.7
    for over in ("occlusion", "k"):
        table = by_setting([one], "odd_abs", over)
        assert (table.loc[table["method"] == "random_cells", "mean"] - 0.7).abs().max() < 1e-12
        expected = one.curves[off & (one.curves["method"] == "gpa")]
        got = table[(table["method"] == "gpa")].set_index("setting")["mean"]
        chosen = expected[expected["occlusion"] == "zero"] if over == "occlusion" else expected[expected["k"] == 0.4]
        assert got["zero" if over == "occlusion" else "0.4"] == pytest.approx(chosen["value"].abs().mean())
    found = areas([one]).set_index(["method", "kind"])["area"]
    assert found["random_cells", "off_deletion_abs"] == pytest.approx(0.7 * (1 - 0.05 / 2))
    assert found["random_cells", "off_deletion"] == 0


def changed(run: Path, **tables: dict[str, object]) -> None:
    """Rewrites parts of a run's description, each merged into what is there, and seals its files for it."""
    edit_description(run, lambda about: about.update({name: about[name] | table for name, table in tables.items()}))
    edit_description(run, lambda about: about.update(identity_sha256=run.name))
    take_over(run)


IDS = tuple(f"i{number}" for number in range(8))
THREE = ("gpa", "ega", "random_cells")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"methods": (*THREE, "mask")}, r"\(mask in one of them alone\)"),
        ({"methods": ("gpa", "random_cells")}, r"\(ega in one of them alone\)"),
        ({"samples": IDS[:-1]}, r"\(8 and 7 samples\)"),
        ({"samples": IDS[:-1], "methods": (*THREE, "mask")}, r"\(mask in one of them alone; 8 and 7 samples\)"),
        ({"curves": False}, "of the methods they share;"),
    ],
)
def test_a_run_that_says_another_ones_numbers_again_is_refused_by_name(
    tmp_path: Path, other: dict[str, object], words: str
) -> None:
    """One more control, one more sample, or other curves make no second run."""
    made = QUICK | {"methods": THREE}
    for name, options in (("one", made), ("two", made | other)):
        make_run(tmp_path / name, **options)  # type: ignore[arg-type]
        changed(tmp_path / name)
    with pytest.raises(
        SettingsError, match=rf"one and .*two hold the same run twice: voc2012 val, netA .*seed 0.*{words}"
    ):
        load_runs([tmp_path])


@pytest.mark.parametrize(
    ("ids", "words"),
    [(("i6", "i7", "i8"), r"8 and 3 samples they share 2\."), (("j1",), r"8 and 1 samples they share 0\.")],
)
def test_lists_of_other_ids_at_one_seed_are_parts_of_one_run(tmp_path: Path, ids: tuple[str, ...], words: str) -> None:
    """They hold other numbers, which the refusal must not deny."""
    for name, samples in (("one", IDS), ("two", ids)):
        make_run(tmp_path / name, **QUICK | {"samples": samples, "skipped": 0, "failed": 0})  # type: ignore[arg-type]
        changed(tmp_path / name)
    with pytest.raises(
        SettingsError, match=rf"one and .*two are parts of one run, not two: .* of their {words}"
    ) as told:
        load_runs([tmp_path])
    assert str(told.value).endswith("Make one run of all ids (data.ids) in one directory")
    assert "hold the same run" not in str(told.value)


def test_what_moves_no_number_makes_no_second_run(tmp_path: Path) -> None:
    """The head that is assumed, and a comment in the model's file, whose digest stands among the sources."""
    for name, head in (("one", None), ("two", "logits")):
        make_run(tmp_path / name, **QUICK)
        changed(
            tmp_path / name,
            model={"state_sha256": "a" * 64, "name": "foo.py:build"},
            settings={"model": {"name": f"{name}/foo.py:build", "args": {}, "head": head}},
        )
        edit_description(tmp_path / name, lambda about: about.update(identity={"sources": {"model": about["created"]}}))
    edit_description(tmp_path / "two", lambda about: about.update(identity={"sources": {"model": "c" * 64}}))
    with pytest.raises(SettingsError, match=r"one and .*two hold the same run twice: voc2012 val, foo\.py:build with"):
        load_runs([tmp_path])
    changed(tmp_path / "two", settings={"model": {"args": {}, "head": "probabilities"}})
    assert own_numbers([one.description for one in load_runs([tmp_path])]) == [0, 1]


@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("settings", {"seed": 1}),
        ("settings", {"target": {"source": "prediction"}}),
        ("settings", {"model": {"args": {"width_mult": 1.0}}}),
        ("settings", {"model": {"mean": [0.5, 0.5, 0.5]}}),
        ("model", {"state_sha256": "b" * 64}),
        ("model", {"name": "netB"}),
        ("data", {"split": "train"}),
    ],
)
def test_runs_of_another_seed_target_model_weights_or_data_are_runs_of_their_own(
    tmp_path: Path, table: str, change: dict[str, object]
) -> None:
    for name in ("one", "two"):
        make_run(tmp_path / name, **QUICK)
        changed(tmp_path / name, model={"state_sha256": "a" * 64})
    changed(tmp_path / "two", **{table: change})
    data = load_runs([tmp_path])
    assert own_numbers([one.description for one in data]) == [0, 1]


def test_weights_under_another_file_name_are_the_same_weights(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_run(tmp_path / name, **QUICK)
        changed(tmp_path / name, model={"state_sha256": "a" * 64, "weights": f"{name}.pth"})
    with pytest.raises(SettingsError, match=r"one and .*two hold the same run twice"):
        load_runs([tmp_path])


def test_an_ablation_is_read_beside_its_run_but_is_none_of_its_own(tmp_path: Path) -> None:
    """The protocol's, with other parameters of a method that both hold; or another layer, or other code of a method."""
    for name in ("main", "alpha", "layer", "code"):
        make_run(tmp_path / name, **QUICK)
        changed(tmp_path / name)
    changed(tmp_path / "alpha", methods={"dea": {"paper": "", "parameters": {"alpha": 0.5, "beta": 0.5}}})
    changed(tmp_path / "layer", model={"layer": "backbone.17"})
    edit_description(tmp_path / "code", lambda about: about.update(identity={"sources": {"ega": "c" * 64}}))
    data = load_runs([tmp_path])
    assert len(data) == 4
    assert own_numbers([one.description for one in data]) == [0] * 4
    shutil.copytree(tmp_path / "alpha", tmp_path / "alpha again")
    changed(tmp_path / "alpha again")
    with pytest.raises(SettingsError, match=r"alpha and .*alpha again hold the same run twice"):
        load_runs([tmp_path])


def test_the_screen_shows_claims_with_their_difference_and_says_in_the_only_run(tmp_path: Path) -> None:
    ids = tuple(f"i{number:02d}" for number in range(24))
    options = QUICK | {"samples": ids, "methods": ("ega", "dea", "random_cells"), "curves": False}
    make_run(tmp_path / "run", skipped=0, failed=0, **options)  # type: ignore[arg-type]
    done = CliRunner().invoke(app, ["report", str(tmp_path / "run"), "--verbose"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "DEA's TDD is above EGA's in the only run (✓ holds; the only run; to ega, pooled drop: +0." in said
    assert "], 24 images; TDD: DEA 0." in said
    assert "above EGA's in every run" not in said
