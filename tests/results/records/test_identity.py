"""What makes two runs the same, by each of the four questions."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from made_runs import edit_description, make_run, take_over
from segfaith.benchmark.plan import digest
from segfaith.benchmark.setting_tables import Settings
from segfaith.benchmark.settings import make_settings
from segfaith.errors import SettingsError
from segfaith.results.records.identity import (
    SETTINGS,
    START,
    data_label,
    own_numbers,
    refuse_repeats,
    run_key,
    that_matter,
)
from segfaith.results.records.runs import load_run, load_runs

QUICK = {"samples": tuple(f"i{number}" for number in range(8)), "maps": 0, "randomisation": False}


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
        ("settings", {"data": {"range": [0, 4095]}}),
        ("settings", {"data": {"clip": True, "range": None}}),
        ("settings", {"data": {"channels_first": False}}),
        ("settings", {"data": {"labels": {"7": "cat"}}}),
        ("settings", {"data": {"foreground": 255}}),
        ("settings", {"data": {"ignore": []}}),
        ("settings", {"data": {"background": "none"}}),
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
    runs = [load_run(tmp_path / name) for name in ("one", "two")]
    refuse_repeats([(run.directory, run.description) for run in runs])
    assert own_numbers([run.description for run in runs]) == [0, 1]


def test_what_pictures_show_and_keys_that_are_left_out_make_no_second_run(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_run(tmp_path / name, **QUICK)
        changed(tmp_path / name)
    changed(tmp_path / "two", settings={"data": {"display": [3, 2, 1], "clip": False, "range": None, "labels": None}})
    with pytest.raises(SettingsError, match=r"one and .*two hold the same run twice"):
        load_runs([tmp_path])


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


# The table of settings

VOC = {"name": "voc2012", "split": "val", "samples": ["a"]}


def dumped(**tables: Any) -> dict[str, Any]:
    return make_settings({"model": {"name": "net"}} | tables).model_dump(mode="json", by_alias=True)


def about(**tables: Any) -> dict[str, Any]:
    return {"data": VOC, "model": {"name": "net", "weights": "net.pth"}, "settings": dumped(**tables)}


def test_the_table_names_every_setting() -> None:
    """Parameters of single methods aside."""
    methods = set(Settings.model_fields["methods"].default.tables()) | {"gpa", "ega", "ria", "dea", "random_cells"}
    places = {
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in dumped().items()
        for key in (value if isinstance(value, dict) else [""])
    }
    assert places - {f"methods.{name}" for name in methods} <= set(SETTINGS)


def test_other_fidelity_is_other_data_and_none_at_all_is_not() -> None:
    """Its settings change what its columns hold; those that only add columns make no run of its own."""

    def label(**evaluation: Any) -> str:
        about = {"name": "voc2012", "split": "val"}
        return data_label({"data": about, "settings": {"evaluation": evaluation}})

    assert label(fidelity=96, fidelity_grid=17, fidelity_occlusion=None) == label() == "voc2012 val"
    found = label(
        fidelity=24,
        fidelity_parts="superpixels",
        fidelity_grid=9,
        fidelity_size=4,
        fidelity_per="set",
        fidelity_occlusion="blur",
    )
    assert found == (
        "voc2012 val, fidelity by 24 sets, fidelity by superpixels, fidelity grid 9, fidelity sets of 4, "
        "fidelity per set, fidelity by blur occlusion"
    )
    assert label(fidelity=0, fidelity_grid=9, fidelity_occlusion="blur") == "voc2012 val", "nothing rests on them"
    assert label(whole=False, own_null=True) == "voc2012 val"


def test_a_setting_that_a_label_names_makes_runs_of_their_own() -> None:
    assert {place for place, row in SETTINGS.items() if row.label and not row.run} == set()


def test_a_directory_takes_what_moves_results_and_not_how_the_work_is_done() -> None:
    """The very settings, and so the digest, under which runs were made before there was a table."""
    settings = dumped(name="a", data={"root": "/x", "download": True}, execution={"batch_size": 3, "threads": 2})
    kept = that_matter(settings, "directory")
    expected = {name: dict(value) if isinstance(value, dict) else value for name, value in settings.items()}
    expected.pop("name")
    for place in ("data.root", "data.download", "data.display"):
        expected["data"].pop(place.split(".")[1])
    expected["execution"] = {key: expected["execution"][key] for key in ("device", "shard_size")}
    expected["methods"].pop("labels", None)
    assert kept == expected
    assert digest(kept) == digest(expected)


def test_runs_of_a_suite_may_differ_in_places_devices_and_models_alone() -> None:
    kept = that_matter(dumped(name="a", seed=3), "suite")
    assert "name" not in kept
    assert "execution" not in kept, "tables of which nothing matters are left out"
    assert kept["seed"] == 3
    assert not {"root", "download"} & set(kept["data"])
    assert not {"name", "weights"} & set(kept["model"])
    assert {"layer", "head", "args"} <= set(kept["model"])
    assert that_matter({"execution": {"later": 1}, "later": {"key": 1}}, "suite") == {"later": {"key": 1}}
    assert that_matter({"execution": {"later": 1}}, "directory") == {"execution": {"later": 1}}


@pytest.mark.parametrize(
    ("tables", "label"),
    [
        ({}, "voc2012 val"),
        ({"seed": 7, "name": "other", "output": {"maps": True}}, "voc2012 val"),
        ({"data": {"size": 320}, "evaluation": {"k": [0.1, 0.2]}}, "voc2012 val, 320 px, k = 0.1"),
        ({"data": {"size": "native"}}, "voc2012 val, native size"),
        ({"target": {"source": "prediction", "class": "cat"}}, "voc2012 val, target by prediction, target cat"),
        ({"evaluation": {"occlusion": ["zero", "mean"], "strength": 0.1}}, "voc2012 val, zero occlusion, strength 0.1"),
        ({"evaluation": {"occlusion": ["mean", "zero"], "stability": 3}}, "voc2012 val"),
        ({"methods": {"dea": {"alpha": 0.5}}, "evaluation": {"curves": "each"}}, "voc2012 val"),
    ],
)
def test_a_label_names_what_differs_from_the_protocol(tables: dict[str, Any], label: str) -> None:
    assert data_label(about(**tables)) == label
    assert (run_key(about(**tables)) == run_key(about())) == (label == "voc2012 val" and "seed" not in tables)


def test_every_label_begins_with_the_data_set_and_of_a_folder_has_its_name() -> None:
    assert [place for place, row in SETTINGS.items() if row.label == START] == ["data.name", "data.root", "data.split"]
    cells = about(data={"name": "folder", "root": "/some/cells"}) | {"data": VOC | {"name": "folder"}}
    assert data_label(cells) == "folder cells val"
    assert data_label(about(data={"root": "/some/place"})) == "voc2012 val", "others are the same wherever they lie"
