"""Reading is not running: no code that only a run directory names is imported, by any verb."""

import os
import pickle
import py_compile
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import EpsImagePlugin
from PIL import Image as PillowImage
from typer.testing import CliRunner

import segfaith
from folder_runs import add_sample, command, content, make_project, sample_arrays
from made_runs import edit_description, take_over
from segfaith import models
from segfaith.attribution import methods
from segfaith.attribution.maps import read_map
from segfaith.benchmark import foreign, runner
from segfaith.benchmark.plan import digest
from segfaith.benchmark.settings import make_settings
from segfaith.cli import app
from segfaith.data.images import load_image
from segfaith.data.masks import read_labels
from segfaith.errors import SegfaithError, SettingsError
from segfaith.results.figures import cases as galleries
from segfaith.results.figures.kept import read_picture
from segfaith.results.records.runs import load_run
from segfaith.results.records.seals import owner_of, sealed_table
from segfaith.results.report import gallery as page_gallery
from segfaith.results.report import pictures as page_pictures

WRITES = "open({marker!r}, 'w').close()\n\n\ndef explain(*arguments):\n    return None\n"
"""A module whose import leaves a marker."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that names no code: two scenes, with maps."""
    settings = {
        "data": {"name": "scenes", "ids": ["val-0000", "val-0001"], "size": 64},
        "model": {"name": "scenes", "weights": "random"},
        "methods": {"names": ["gpa", "mask"], "ria": {"grid": 2}},
        "evaluation": {"stability": False},
        "output": {"maps": True},
    }
    return segfaith.run(make_settings(settings), tmp_path_factory.mktemp("foreign") / "run")


def planted(finished: Path, place: Path, sources: dict[str, str] | None = None, **changes: Any) -> Path:
    """A copy of a run whose files were changed by someone who knows how they are made."""
    directory = shutil.copytree(finished, place)

    def change(description: dict[str, Any]) -> None:
        for settings in (description["settings"], description["identity"]["settings"]):
            for section, table in changes.items():
                settings[section] |= table
        description["identity"]["sources"] = sources or {}
        description["identity_sha256"] = digest(description["identity"])

    edit_description(directory, change)
    take_over(directory)
    return directory


def plants(folder: Path, marker: Path) -> dict[str, dict[str, Any]]:
    """Changes of a run's settings that name code, by what they name; running it, or importing it, leaves the marker."""
    for name in ("net.py", "maps.py", "planted_method.py"):
        (folder / name).write_text(WRITES.format(marker=str(marker)))
    model = {"weights": None, "args": {}}
    return {
        "model of a module": {"model": model | {"name": "os:system", "args": {"command": f"touch {marker}"}}},
        "model of a module that is called maps": {"model": model | {"name": "maps:explain"}},
        "model of a file": {"model": model | {"name": f"{folder}/net.py:explain"}},
        "method of a module": {"methods": {"names": ["gpa", "planted_method:explain"]}},
        "method of a file": {"methods": {"names": [f"{folder}/net.py:explain", "mask"]}},
    }


def code_in(changes: dict[str, Any]) -> str:
    """The one name of code among the changes."""
    names = [changes["model"]["name"]] if "model" in changes else changes["methods"]["names"]
    (name,) = (name for name in names if ":" in name)
    return str(name)


def planted_suite(finished: Path, folder: Path, marker: Path) -> dict[Path, str]:
    """A suite's directory with a run for each plant, each with the code that it names."""
    made = {}
    for number, changes in enumerate(plants(folder, marker).values()):
        source = models.file_digest(folder / "net.py")
        sources = {"model" if "model" in changes else "net.py:explain": source}
        made[planted(finished, folder / "suite" / f"run-{number}", sources, **changes)] = code_in(changes)
    return made


def test_no_verb_runs_what_a_run_directory_names(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every verb is given such a run, and those that take suites a suite of them."""
    monkeypatch.syspath_prepend(tmp_path)
    marker = tmp_path / "marker"
    directory = next(iter(planted_suite(finished, tmp_path, marker)))
    verbs = [one.name or one.callback.__name__ for one in app.registered_commands]  # type: ignore[union-attr]
    assert {"randomise", "report", "status", "run", "suite", "verify-precision", "check-method"} <= set(verbs)
    for verb in verbs:
        CliRunner().invoke(app, [verb, str(directory)])
        assert not marker.exists(), verb
    for verb in ("status", "randomise"):
        CliRunner().invoke(app, [verb, str(directory.parent)])
        assert not marker.exists(), verb


def test_code_in_a_run_directory_runs_where_the_command_names_it_and_only_there(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    marker = tmp_path / "marker"
    made = planted_suite(finished, tmp_path, marker)
    assert len(made) == 5
    for directory, name in made.items():
        others = [one for other in made.values() if other != name for one in ("--allow-code", other)]
        done = CliRunner().invoke(app, ["randomise", str(directory), *others])
        assert f"add: --allow-code {name}" in str(done.exception)
        assert not marker.exists()
        CliRunner().invoke(app, ["randomise", str(directory), "--allow-code", name])
        assert marker.exists(), "the test can fail"
        marker.unlink()


def test_the_refusal_says_which_code_it_is_where_it_is_named_and_what_to_type(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changes = {"model": {"name": "os:system"}, "methods": {"names": ["mask", "a folder/own.py:explain"]}}
    directory, file = planted(finished, tmp_path / "run", **changes), tmp_path / "a folder/own.py"
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "randomise", directory) == 2
    errors = capsys.readouterr().err
    assert f"{directory / 'run.json'} names code" in errors
    assert f"model os:system, method {file}:explain." in errors
    assert f"add: --allow-code os:system --allow-code '{file}:explain'" in errors
    assert command(monkeypatch, "randomise", directory, "--allow-code", "os:system") == 2
    errors = capsys.readouterr().err
    assert f"call: method {file}:explain." in errors, "one name allows no other"


def test_the_refusal_shows_what_the_code_would_be_called_with(finished: Path, tmp_path: Path) -> None:
    """Whoever chose the arguments may be a stranger too."""
    changes = {"model": {"name": "subprocess:run", "args": {"args": "rm -r x"}}, "methods": {"names": ["a:b"]}}
    directory = planted(finished, tmp_path / "run", **changes)
    with pytest.raises(
        SettingsError, match=r"model subprocess:run with args \{'args': 'rm -r x'\}, method a:b\. Nothing was imported"
    ):
        foreign.settings_of(directory)


def test_only_settings_that_name_code_allow_code(finished: Path, tmp_path: Path) -> None:
    directory = planted(finished, tmp_path / "run", model={"name": "os:system"}, methods={"names": ["a:b"]})
    for setting in ("name=os:system", "data.root=os:system", "model.args.x=a:b", "model.layer=a:b"):
        with pytest.raises(SettingsError, match=r"model os:system.*method a:b"):
            foreign.settings_of(directory, [setting])
    assert foreign.settings_of(directory, ["model.name=os:system", "methods.names=['a:b']"]).model.name == "os:system"


def test_a_run_that_names_no_code_needs_no_leave(finished: Path, tmp_path: Path) -> None:
    directory = planted(finished, tmp_path / "run")
    done = CliRunner().invoke(app, ["randomise", str(directory), "-n", "1"])
    assert done.exit_code == 0, done.output
    assert (directory / "randomisation.parquet").is_file()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a run of its own model and method."""
    root = make_project(tmp_path_factory.mktemp("own"), samples=1)
    (root / "flat.py").write_text("def flat(model, image, target):\n    return image[0]\n")
    runner.run(make_settings(content(root, methods={"names": [f"{root}/flat.py:flat", "mask"]})), root / "run")
    return root


def test_code_may_be_named_by_a_relative_path_or_by_a_setting(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own.parent)
    allowed = [f"{own.name}/tiny.py:build", f"{own}/flat.py:flat"]
    settings = foreign.settings_of(own / "run", [], allowed)
    assert settings.model.name == f"{own}/tiny.py:build"
    named = foreign.settings_of(own / "run", [f"model.name={own}/tiny.py:build"], allowed[1:])
    assert named == settings
    with pytest.raises(SettingsError, match=r"names code.*method"):
        foreign.settings_of(own / "run", [f"model.name={own}/tiny.py:build"])


@pytest.mark.parametrize("name", ["tiny.py:build", "flat.py:flat"])
def test_a_file_that_changed_is_not_imported_though_it_is_allowed(own: Path, tmp_path: Path, name: str) -> None:
    place, marker = own / name.partition(":")[0], tmp_path / "marker"
    before = place.read_text()
    arguments = ["--allow-code", f"{own}/tiny.py:build", "--allow-code", f"{own}/flat.py:flat"]
    try:
        place.write_text(before + WRITES.format(marker=str(marker)))
        done = CliRunner().invoke(app, ["randomise", str(own / "run"), *arguments])
    finally:
        place.write_text(before)
    assert f"{place} is not the file that {own / 'run' / 'run.json'} was made with" in str(done.exception)
    assert not marker.exists()


def test_of_two_files_of_one_name_both_are_held_against_their_digest(finished: Path, tmp_path: Path) -> None:
    """Names in records are short: the digest of one file is not that of its namesake."""
    names = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.py").write_text(f"# {folder}\n")
        names.append(f"{tmp_path}/{folder}/x.py:f")
    sources = {"x.py:f": models.file_digest(tmp_path / "b" / "x.py")}
    directory = planted(finished, tmp_path / "run", sources, methods={"names": names})
    with pytest.raises(SettingsError, match=r"/a/x\.py is not the file"):
        foreign.settings_of(directory, [], names)


def test_nothing_is_downloaded_because_a_run_says_so(finished: Path, tmp_path: Path) -> None:
    directory = planted(finished, tmp_path / "run", data={"download": True})
    assert foreign.settings_of(directory).data.download is False
    assert foreign.settings_of(directory, ["data.download=true"]).data.download is True


def test_a_tilde_is_the_same_folder_where_it_is_allowed_and_where_it_is_imported(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of that very name in the working folder is not what was allowed."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    for folder in ("~", "home"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "net.py").write_text(f"# {folder}\n")
    sources = {"model": models.file_digest(tmp_path / "home/net.py")}
    directory = planted(finished, tmp_path / "run", sources, model={"name": "~/net.py:build"})
    assert foreign.settings_of(directory, [], ["~/net.py:build"]).model.name == f"{tmp_path}/home/net.py:build"


@pytest.mark.parametrize("text", ["[]", "{}", '{"settings": 3}', '{"settings": {"data": null}}'])
def test_a_description_without_settings_is_a_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(SettingsError):
        foreign.settings_of(tmp_path)


NAMES = ["os:system", "maps:x", "gpa", "gpa@layer=os:system", ":", "a:", "x.py:f", "maps:x.py:f", "unknown"]


def test_what_is_taken_for_code_is_what_would_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check and the loaders read names alike, the odd ones too."""
    imported: list[str] = []

    def note(name: str) -> Any:
        imported.append(name)
        raise SettingsError("not here")

    monkeypatch.setattr(models, "import_function", note)
    monkeypatch.setattr(methods, "import_function", note)
    for name in NAMES:
        for role, settings in (("model", {"model": {"name": name}}), ("method", {"methods": {"names": [name]}})):
            imported.clear()
            try:
                if role == "model":
                    models.load_model(name)
                else:
                    methods.resolve_method(name, {})
            except SegfaithError:
                pass
            found = foreign.code_named(make_settings({"model": {"name": "scenes"}} | settings))
            assert found == [(role, one) for one in imported], (role, name)


def test_bytecode_beside_a_file_is_not_run_in_its_place(tmp_path: Path) -> None:
    """Python itself trusts it where size and time of the file are those that it states."""
    file = tmp_path / "net.py"
    file.write_text("def explain():\n    return 'evil'\n")
    stamp = os.stat(file)
    py_compile.compile(str(file))
    file.write_text("def explain():\n    return 'good'\n")
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert models.import_function(f"{file}:explain")() == "good"


# What lies beside the names: pickles and programs in files that are read


class Bomb:
    """What a pickle of it does when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return open, (str(self.marker), "w")


READERS: dict[str, Callable[[Path], object]] = {
    "figures": lambda folder: read_picture(folder / "image.png"),
    "page": lambda folder: page_pictures._scaled(folder / "image.png", 8, PillowImage.Resampling.NEAREST),
    "photographs": lambda folder: load_image(folder / "image.png"),
    "masks": lambda folder: read_labels(folder / "image.png")[0],
    "maps": lambda folder: read_map(folder, "image", (8, 8)),
}


@pytest.mark.parametrize("reader", READERS)
def test_a_picture_that_is_a_program_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str) -> None:
    """Pillow knows PostScript by its content, whatever the file is called, and has Ghostscript run it."""
    ran = []
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *all, **more: ran.append(all))
    PillowImage.new("L", (8, 8)).save(tmp_path / "image.png", format="EPS")
    with pytest.raises((SegfaithError, OSError)):
        READERS[reader](tmp_path)
    assert not ran


def test_kept_maps_and_weights_that_are_pickles_are_not_unpickled(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    np.save(tmp_path / "gpa.npy", np.array([Bomb(marker)], dtype=object))
    (tmp_path / "w.pth").write_bytes(pickle.dumps({"weight": Bomb(marker)}, protocol=2))
    case = type("Case", (), {"folder": tmp_path})()
    with pytest.raises(SettingsError, match=r"gpa\.npy cannot be read"):
        galleries._load(case, "gpa")
    assert page_gallery.kept_map(tmp_path, "gpa") is None
    with pytest.raises(SegfaithError):
        read_map(tmp_path, "gpa", (8, 8))
    with pytest.raises(SettingsError):
        segfaith.load_model("scenes", weights=tmp_path / "w.pth")
    assert not marker.exists()
    np.load(tmp_path / "gpa.npy", allow_pickle=True)
    assert marker.exists(), "it could have been"


def test_a_pickled_type_in_a_shard_is_not_unpickled(finished: Path, tmp_path: Path) -> None:
    directory, marker = planted(finished, tmp_path / "run"), tmp_path / "marker"
    (shard,) = (directory / "records").iterdir()
    table = pq.read_table(shard)
    kind = {
        b"ARROW:extension:name": b"arrow.py_extension_type",
        b"ARROW:extension:metadata": pickle.dumps(Bomb(marker)),
    }
    fields = [one.with_metadata(kind) if one.name == "s" else one for one in table.schema]
    changed = pa.Table.from_arrays(table.columns, schema=pa.schema(fields))
    shard.write_bytes(sealed_table(changed, owner_of(shard) or ""))
    load_run(directory)
    assert not marker.exists()


def test_postscript_among_the_photographs_is_a_failed_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *all, **more: pytest.fail("it was run"))
    root = make_project(tmp_path, samples=1)
    image, labels = sample_arrays(1)
    add_sample(root / "data", "s1", image, labels)
    PillowImage.fromarray(image).save(root / "data/images/s1.png", format="EPS")
    records = load_run(runner.run(make_settings(content(root, methods={"names": ["mask"]})), root / "run")).records
    bad = records[records["sample_id"] == "s1"]
    assert set(bad["status"]) == {"failed"}
    assert bad["reason"].str.contains("it is PostScript, a program that would be run; convert it to PNG first").all()
    assert (records[records["sample_id"] == "s0"]["status"] == "ok").all()
