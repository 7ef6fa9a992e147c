"""Hostile and mistaken input: a message with the key, the value and what to do, status 2, and nothing else."""

import csv
import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from PIL import Image

from folder_runs import command, content, make_project, toml, write_settings
from made_runs import edit_description, make_run
from segfaith import process
from segfaith.attribution.methods import refuse_repeated, resolve_method
from segfaith.batching import BatchSize, in_batches
from segfaith.benchmark.plan import resolve_methods
from segfaith.benchmark.settings import make_settings, read_settings
from segfaith.benchmark.suites import read_suite
from segfaith.classes import read_classes
from segfaith.cli.screen import say
from segfaith.data import pairs
from segfaith.data.archives import refuse_members
from segfaith.data.datasets import open_dataset
from segfaith.data.images import read_image
from segfaith.errors import SampleError, SettingsError
from segfaith.models.weights import read_state_dict
from segfaith.results.records.files import write_csv
from segfaith.results.records.runs import load_runs
from segfaith.results.report.markdown import table_lines

HUGE = 10**30


def deep(count: int) -> dict[str, Any]:
    return {"a": deep(count - 1)} if count else {}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("project"), 2)


# Settings

WRONG: dict[str, tuple[str, Any, str]] = {
    # whole numbers
    "a huge seed": (
        "seed",
        HUGE,
        "seed = 1000000000000000000000000000000: .*less than or equal to 9223372036854775807",
    ),
    "a huge number of threads": ("execution.threads", HUGE, "execution.threads = 10+: .*less than or equal to 1024"),
    "threads that no machine starts": ("execution.threads", 100_000, "execution.threads = 100000: .*equal to 1024"),
    "a huge batch": ("execution.batch_size", HUGE, "execution.batch_size = 10+: expected a whole number of at most"),
    "a huge part of a list": ("target.box", [0, 0, HUGE, 1], "target.box = .*expected a whole number of at most"),
    "an image that no memory holds": ("data.size", 100_000, "size must be 'native' or from 1 to 13377, got 100000"),
    "a huge grid": ("methods.ria", {"grid": HUGE}, "parameter grid: .*less than or equal to 1024"),
    "a huge number of masks": ("methods.rise", {"masks": HUGE}, "parameter masks: .*less than or equal to"),
    "a huge number of samples": ("methods.sobol", {"samples": 2**70}, "parameter samples: .*less than or equal to"),
    # numbers that are none
    "an infinite strength": ("evaluation.strength", float("inf"), "evaluation.strength = inf: .*finite number"),
    "a strength that is no number": ("evaluation.strength", float("nan"), "evaluation.strength = nan: .*finite number"),
    "an infinite std": ("model.std", [1.0, float("inf"), 1.0], r"model.std.1 = inf: .*finite number"),
    "a std that is no number": ("model.std", [1.0, float("nan"), 1.0], r"model.std.1 = nan: .*finite number"),
    "an infinite share": ("evaluation.k", float("inf"), "evaluation.k.* = inf: .*finite number"),
    "an infinite weight": ("methods.dea", {"beta": float("inf")}, "parameter beta: .*finite number"),
    # other types
    "true as a seed": ("seed", True, "seed = True: Input should be a valid integer"),
    "true as a batch": ("execution.batch_size", True, "execution.batch_size = True: Input should be a valid integer"),
    "true as a size": ("data.size", True, 'data.size = True: expected "native", or the side'),
    "true as a share": ("evaluation.k", True, "evaluation.k.* = True: Input should be a valid number"),
    "true as a class": ("target.class", True, "target.class.* = True: Input should be a valid"),
    "true in a list": ("model.std", [True, 1.0, 1.0], "model.std.0 = True: Input should be a valid number"),
    "true as a grid": ("methods.ria", {"grid": True}, "parameter grid: expected int, got True"),
    "text as a number": ("execution.batch_size", "4", "execution.batch_size = '4': Input should be a valid integer"),
    "a number as truth": ("output.maps", 1, "output.maps = 1: Input should be a valid boolean"),
    # names
    "no name": ("name", "", "name = '': it names a folder in runs/, and it is empty; expected a plain name"),
    "the folder above": ("name", "..", "name = '..': .*it begins with a dot"),
    "a folder in a folder": ("name", "a/b", "name = 'a/b': .*it has a slash"),
    "an absolute path as a name": ("name", "/a", "name = '/a': .*it is an absolute path"),
    "an escape as a name": ("name", "\x1b[31mred", "name = .*it has a control character"),
    "a long name": ("name", "a" * 5000, r"name = 'a{299}\.\.\., 5002 characters: .*longer than 230 bytes"),
    # nesting
    "tables in tables": ("model.args", deep(40), "has more than 16 tables or lists in each"),
}


def test_tuples_of_python_are_lists() -> None:
    model = content(".")["model"] | {"mean": (0.0, 0.5, 0.5)}
    assert make_settings(content(".", model=model, data={"range": (0, 9)})).model.mean == [0.0, 0.5, 0.5]


def nested(key: str, value: Any) -> dict[str, Any]:
    *tables, last = key.split(".")
    values = content(".", methods={"names": ["rise", "ria", "dea"]})
    place = values
    for table in tables:
        place = place.setdefault(table, {})
    place[last] = value
    return values


@pytest.mark.parametrize("name", WRONG)
def test_a_value_that_cannot_be_used_is_named_with_its_key_and_the_remedy(name: str) -> None:
    key, value, message = WRONG[name]

    def use() -> None:
        made = make_settings(nested(key, value))
        resolve_methods(made.methods.names, made.methods.tables())

    with pytest.raises(SettingsError, match=message) as caught:
        use()
    assert len(str(caught.value)) < 1500


PATHS = {
    "~nosuchuser/x": "the path '~nosuchuser/x' cannot be used: Could not determine home directory",
    "a\\u0000b": r"the path 'a\\x00b' cannot be used: embedded null byte",
    "a" * 5000: r"the path 'a{80}\.\.\., 5000 characters' cannot be used: File name too long; give another path",
    "": "a path is empty",
}
PATH_KEYS = [
    "data.root",
    "data.classes",
    "model.weights",
    "model.name",
    "target.mask",
    "methods.names",
    "model.reshape",
]


CODE_KEYS = ("model.name", "model.reshape")


@pytest.mark.parametrize(("path", "key"), [(a, b) for a in PATHS for b in PATH_KEYS if a or b not in CODE_KEYS])
def test_a_path_that_can_be_none_is_a_message(path: str, key: str, project: Path) -> None:
    ending = ".py:f" if key in CODE_KEYS else ""
    text = f"maps:{path}" if key == "methods.names" else f"{path}{ending}"
    value = f'["{text}"]' if key == "methods.names" else f'"{text}"'
    message = PATHS[path].replace("5000", "500[03]").replace("b'", r"b(\.py)?'").replace("x'", r"x(\.py)?'")
    with pytest.raises(SettingsError, match=message):
        read_settings(write_settings(project), [f"{key}={value}"])


FILES: dict[str, tuple[bytes, str]] = {
    "brackets in brackets": (b"x = " + b"[" * 3000 + b"]" * 3000, "has more than 16 tables or lists in each other"),
    "a number of 5,000 digits": (b"seed = " + b"9" * 5000, "is no TOML: Exceeds the limit"),
    "another encoding": ("name = '\xe9'".encode("latin-1"), "is no TOML: .*utf-8.*; save it as UTF-8"),
    "no text": (b"\xff\xfe\0\1", "is no TOML"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_settings_or_suite_file_that_is_none_is_a_message(name: str, tmp_path: Path) -> None:
    data, message = FILES[name]
    (tmp_path / "settings.toml").write_bytes(data)
    for read in (read_settings, read_suite):
        with pytest.raises(SettingsError, match=message):
            read(tmp_path / "settings.toml")


def test_a_byte_order_mark_is_no_part_of_settings_and_class_names(project: Path, tmp_path: Path) -> None:
    file = write_settings(project)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_settings(file).name == "small"
    (tmp_path / "classes.txt").write_bytes("\ufeffbackground\nbox\n".encode())
    assert read_classes(tmp_path / "classes.txt") == ["background", "box"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("b\xf6x\n".encode("latin-1"), "cannot be read .*; save it as text in UTF-8"),
        ("a\nb\n".encode("utf-16"), "cannot be read .*; save it as text in UTF-8"),
        (b"a\n\x1b[31mb\n", r"the name '\\x1b\[31mb' with a control character"),
    ],
)
def test_class_files_of_other_encodings_are_a_message(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(data)
    with pytest.raises(SettingsError, match=message):
        read_classes(tmp_path / "classes.txt")


@pytest.mark.parametrize("name", ["", "..", ".", "a\n"])
def test_a_suites_name_is_that_of_a_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / "suite.toml").write_text(toml({"name": name, "data": {"name": "scenes"}}))
    with pytest.raises(SettingsError, match="name"):
        read_suite(tmp_path / "suite.toml")


@pytest.mark.parametrize(
    "names",
    [
        ("ria@grid=3", "ria@grid=03"),
        ("dea@alpha=0.5", "dea@alpha=.5"),
        ("dea@alpha=0.5,beta=0.2", "dea@beta=0.2,alpha=0.5"),
        ("ria", "ria@grid=14"),
        ("gpa", "seg-grad-cam"),
    ],
)
def test_one_method_in_two_spellings_is_refused(names: tuple[str, str]) -> None:
    with pytest.raises(SettingsError, match=f"methods '{names[0]}' and '{names[1]}' are one method in two spellings"):
        refuse_repeated([resolve_method(name, {}) for name in names])


def test_a_study_of_a_parameter_may_hold_the_method_whose_table_has_the_same_value() -> None:
    tables = {"dea": {"alpha": 0.5}}
    names = ["dea", "dea@alpha=0.5", "dea@alpha=0.6"]
    assert [one.name for one in resolve_methods(names, tables)][:3] == names
    with pytest.raises(SettingsError, match="in two spellings"):
        resolve_methods(["dea@alpha=0.5", "dea@alpha=.5"], tables)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("methods.ria.grid=33", "the grid of 'ria' has 33 cells a side, more than the images have pixels at data.size"),
        ("evaluation.fidelity_grid=41", "evaluation.fidelity_grid has 41 cells a side.*; set it to at most 32"),
    ],
)
def test_a_grid_finer_than_the_image_is_refused(
    change: str, message: str, project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "run", write_settings(project), "-o", project / "none", "--set", change) == 2
    shown = capsys.readouterr().err
    assert re.match(f"error: {message}", shown), shown
    assert len(shown.splitlines()) == 1


def test_weights_whose_names_are_numbers_are_a_message(tmp_path: Path) -> None:
    torch.save({0: torch.ones(2), 1: torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(SettingsError, match=r"expected a state dict \(names to tensors\), got dict with the keys 0"):
        read_state_dict(tmp_path / "w.pth")


# The command line

VERBS = {
    "run": ["run", "quickstart"],
    "suite": ["suite", "leaderboard"],
    "explain": ["explain", "photo.png"],
    "report": ["report", "runs"],
    "judge-metrics": ["judge-metrics"],
    "train-scenes": ["train-scenes"],
}


@pytest.mark.parametrize("verb", VERBS)
def test_an_empty_output_is_refused(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would mean the working folder."""
    monkeypatch.setenv("COLUMNS", "200")
    assert command(monkeypatch, *VERBS[verb], "-o", "") == 2
    assert "expected a folder, got an empty name; leave the option out" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "quickstart", "-n", "2", "--set", "data.n=3"),
        ("check", "quickstart", "-n", "2", "--set", "data.n=2"),
        ("suite", "leaderboard", "-n", "2", "--set", "data.n = 3"),
        ("judge-metrics", "-n", "2", "--set", "data.n=3"),
        ("run", "quickstart", "--seed", "1", "--set", "seed=2"),
        ("explain", "photo.png", "--model", "scenes", "--set", "model.name=x"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, *arguments) == 2
    key = arguments[-1].partition("=")[0].strip()
    assert f"error: {key} is given twice, by its option" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [("run",), ("status",), ("report",), ("suite",), ("explain",), ("list", "layers")])
def test_a_path_of_5000_characters_is_a_message(
    verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, *verb, "a" * 5000) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose ids and model hold markup, escapes, bars, formulas and letters beyond ASCII."""
    samples = ("=1+1|[x]", "@é−✓", "c", "d", "e", "f")
    run = make_run(
        tmp_path_factory.mktemp("stranger") / "run", samples=samples, methods=("gpa", "mask", "random_cells"), maps=0
    )

    def change(about: dict[str, Any]) -> None:
        about["model"]["name"] = "=net\x1b]0;title\x07[/x]|é"
        about["methods"]["gpa"]["label"] = "+G[/x]|é"

    edit_description(run, change)
    return run


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
@pytest.mark.parametrize("verb", ["report", "status", "list", "suite", "explain", "run"])
def test_every_verb_prints_in_every_encoding(
    verb: str, encoding: str, stranger: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the encoding lacks is replaced; markup is shown, escapes are not sent."""
    photo = project / "data" / "images" / "s0.png"
    file = write_settings(project, methods={"names": ["random"], "labels": {"random": "Zufällig [/x]"}}, data={"n": 1})
    verbs: dict[str, list[Any]] = {
        "report": ["report", stranger, "-o", tmp_path / "out", "--verbose"],
        "status": ["status", stranger],
        "list": ["list", "metrics"],
        "suite": ["suite", "leaderboard", "--show"],
        "explain": ["explain", photo, "--config", file, "--methods", "random", "-o", tmp_path / "é", "--size", "32"],
        "run": ["run", file, "-o", tmp_path / "é[/x]"],
    }
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    monkeypatch.setenv("COLUMNS", "200")
    assert command(monkeypatch, *verbs[verb]) in (0, 1)
    streams["stdout"].flush()
    printed = streams["stdout"].buffer.getvalue().decode(encoding)
    assert printed.strip()
    assert "\x1b" not in printed
    if verb == "report":
        assert "[/x]" in printed
        assert "\x07" not in printed
        assert ("é" in printed) == (encoding != "ascii")
    if verb == "run":
        assert "Zuf" in printed


def test_verdicts_differ_in_every_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    from segfaith.cli.screen import print_anything
    from segfaith.results.report.terminal import SIGNS

    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    print_anything()
    for sign in SIGNS.values():
        say(f"{sign} gpa \udcff")
    stream.flush()
    lines = stream.buffer.getvalue().decode("ascii").splitlines()
    assert len(set(lines)) == len(SIGNS)
    assert all(line.endswith(r" gpa \udcff") for line in lines)


# Tables


def test_no_cell_of_a_csv_file_is_a_formula(stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, "report", stranger, "-o", tmp_path) == 0
    seen = 0
    for path in sorted(tmp_path.glob("*.csv")):
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.reader(file):
                for cell in row:
                    seen += cell.startswith("'")
                    if cell.startswith(("=", "+", "-", "@")):
                        float(cell)
    assert seen, "a cell was made harmless"


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("+x", "'+x"),
        ("-x", "'-x"),
        ("\t=1", "'\t=1"),
        ("-1.5e3", "-1.5e3"),
        ("a=1", "a=1"),
        ("", ""),
        (-2.0, "-2.0"),
    ],
)
def test_a_cell_is_changed_only_where_it_would_be_a_formula(cell: Any, written: str, tmp_path: Path) -> None:
    write_csv(pd.DataFrame({"=a": [cell], "n": [-1]}), tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        header, row = csv.reader(file)
    assert header == ["'=a", "n"]
    assert row == [written, "-1"]


def test_bars_in_names_end_no_cell_of_any_markdown_table(
    stranger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(monkeypatch, "report", stranger, "-o", tmp_path) == 0
    named = 0
    for path in sorted(tmp_path.glob("*.md")):
        width = 0
        for line in path.read_text(encoding="utf-8").splitlines():
            if not line.startswith("|"):
                width = 0
                continue
            cells = line.replace(r"\\", "").replace(r"\|", "").count("|")
            width = width or cells
            assert cells == width, f"{path.name}: {line}"
            named += r"\|" in line
    assert named
    assert table_lines([["a\\|b", "c"]])[0] == r"| a\\\|b | c |", "the backslash does not end the escape"


# Files


def test_file_names_that_are_no_text_are_refused(project: Path, tmp_path: Path) -> None:
    root = make_project(tmp_path / "p", 1) / "data"
    try:
        os.rename(root / "images" / "s0.png", os.fsencode(root / "images") + b"/\xff.png")
    except OSError:
        pytest.skip("the file system takes text alone")
    with pytest.raises(SettingsError, match="its bytes are no text in UTF-8; rename that image"):
        open_dataset("folder", root)


def test_sizes_that_differ_are_told_from_the_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large image is not read for nothing."""

    def nothing(*_: Any) -> None:
        raise AssertionError("the image was read")

    monkeypatch.setattr(pairs, "read_image", nothing)
    for kind in ("png", "npy", "tif"):
        root = make_project(tmp_path / kind, 1) / "data"
        (root / "masks" / "s0.png").unlink()
        labels = np.zeros((12, 13), np.uint8)
        path = root / "masks" / f"s0.{kind}"
        {"png": lambda p, a: Image.fromarray(a).save(p), "npy": np.save, "tif": tifffile.imwrite}[kind](path, labels)
        with pytest.raises(SampleError, match=r"differ in size: \(40, 56\) and \(12, 13\)"):
            open_dataset("folder", root).load("s0", 32)


def test_a_file_with_more_pixels_than_can_be_read_is_refused_by_its_header(tmp_path: Path) -> None:
    picture = Image.new("1", (20_000, 20_000))
    picture.save(tmp_path / "large.png")
    header = np.lib.format.header_data_from_array_1_0(np.zeros((1, 1), np.uint8)) | {"shape": (20_000, 20_000)}
    with (tmp_path / "large.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
    (tmp_path / "large.png").write_bytes((tmp_path / "large.png").read_bytes()[:200])  # there is nothing to decode
    for name in ("large.png", "large.npy"):
        with pytest.raises(SampleError, match="pixels"):
            read_image(tmp_path / name)


def test_damaged_tiffs_of_fewer_values_are_a_message(tmp_path: Path) -> None:
    """Found by `make fuzz`: tifffile gives an empty array where a strip is not there."""
    tifffile.imwrite(sink := io.BytesIO(), np.ones((9, 7), np.float32))
    data = bytearray(sink.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        tag = file.pages[0].tags["StripByteCounts"]
        data[tag.valueoffset : tag.valueoffset + tag.valuebytecount] = bytes(tag.valuebytecount)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(SampleError, match=r"a\.tif"):
        read_image(tmp_path / "a.tif")


def test_the_reshape_that_a_strangers_run_names_is_code_too(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Otherwise `randomise` would import and call whatever run.json names there."""
    run = make_run(tmp_path / "run", samples=("a", "b"), methods=("gpa", "mask", "random_cells"), maps=0)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\ndef f(x):\n    return x\n")

    def change(about: dict[str, Any]) -> None:
        about["settings"] = content(project, methods={"names": ["gpa"]})
        about["settings"]["seed"] = 0
        about["settings"]["model"] = {"name": "scenes", "reshape": f"{tmp_path / 'evil.py'}:f"}
        about["settings"]["evaluation"]["occlusion"] = ["mean"]
        about["settings"]["execution"]["shard_size"] = 8

    edit_description(run, change)
    assert command(monkeypatch, "randomise", run) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert f"names code that segfaith would import and call: reshape {tmp_path / 'evil.py'}:f" in shown
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("table", "value"),
    [
        ("target", "text"),
        ("evaluation", {"occlusion": ["mean"], "k": {"a": "b"}}),
        ("evaluation", {"occlusion": []}),
        ("data", {"name": "folder", "root": 3}),
    ],
    ids=["text for a table", "text for a number", "an empty list", "a number for a path"],
)
def test_settings_of_other_types_in_a_strangers_run_are_words(tmp_path: Path, table: str, value: Any) -> None:
    run = make_run(tmp_path / "run", samples=("a", "b"), methods=("gpa", "mask", "random_cells"), maps=0)

    def change(about: dict[str, Any]) -> None:
        about["settings"][table] = value
        about["data"]["name"] = "folder"

    edit_description(run, change)
    with pytest.raises(SettingsError, match=r"run\.json is no description of a run: its settings cannot be understood"):
        load_runs([run])


# Where results go without -o


@pytest.mark.parametrize("name", ["", "..", "a/b", "/a"])
@pytest.mark.parametrize("verb", ["run", "suite"])
def test_without_o_nothing_is_written_where_a_name_cannot_be_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str, name: str
) -> None:
    """It would be `runs/NAME`, and the file may be a stranger's."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    models = {"suite": "models = ['scenes']\nseeds = [0]\n", "run": ""}
    (tmp_path / "file.toml").write_text(f"name = {name!r}\n{models[verb]}")
    assert command(monkeypatch, verb, tmp_path / "file.toml") == 2
    assert f"name = {name!r}" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file.toml", "here"]


def test_the_default_of_o_is_a_folder_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "judge-metrics", "none.toml") == 2
    assert "none.toml" in capsys.readouterr().err
    assert command(monkeypatch, "judge-metrics", "none.toml", "-o", " ") == 2
    assert "expected a folder, got an empty name" in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


# Memory


def test_the_warm_up_takes_no_more_images_than_a_run_scores_and_halves_its_batch(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segfaith.benchmark.forecast import Pace, pace
    from segfaith.benchmark.prepared import prepare
    from segfaith.models.segmentation import SegmentationModel

    sizes: list[int] = []
    logits = SegmentationModel.logits

    def short(self: Any, images: Any, *rest: Any, **options: Any) -> Any:
        sizes.append(len(images))
        if len(images) > 3:
            raise RuntimeError("not enough memory: you tried to allocate 9 bytes")
        return logits(self, images, *rest, **options)

    monkeypatch.setattr(SegmentationModel, "logits", short)
    execution = {"batch_size": 100_000, "incremental": False}
    settings = content(project, methods={"names": ["ria"], "ria": {"grid": 4}}, execution=execution)
    prepared = prepare(make_settings(settings))
    assert prepared.path.startswith("plain: "), "the warm-up went on with smaller batches"
    assert isinstance(pace(prepared), Pace), "and so did the forecast"
    assert 3 < max(sizes) <= 96


BOUND = """
import resource
from pathlib import Path
import torch
from segfaith.process import _kilobytes, bound_memory
from segfaith.batching import BatchSize, in_batches
bound = _kilobytes(Path("/proc/self/status"), "VmData") + 400 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (bound, resource.RLIM_INFINITY))
bound_memory()
assert resource.getrlimit(resource.RLIMIT_DATA)[0] <= bound, "a bound of the user's stays"
batch = BatchSize(100_000)
(out,) = in_batches(256, lambda part: (torch.ones(part.stop - part.start, 2**20).sum(1),), batch)
print(len(out), batch.images)
"""


@pytest.mark.skipif(process.free_memory() is None, reason="the memory's bound is Linux's")
def test_a_batch_beyond_the_memory_is_halved_and_not_killed() -> None:
    done = subprocess.run([sys.executable, "-c", BOUND], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    count, images = map(int, done.stdout.split())
    assert count == 256
    assert 16 <= images < 128


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 112. GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes\nframes"),
    ],
)
def test_a_command_that_has_no_memory_left_says_so(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from segfaith import cli

    def fail() -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    assert command(monkeypatch, "run") == 3
    shown = capsys.readouterr().err
    assert re.match(
        r"error: memory ran out \(.* allocate .*\); choose a smaller data.size, set execution.memory", shown
    )
    assert len(shown.splitlines()) == 1


def test_a_batch_has_no_more_images_than_there_are() -> None:
    seen: list[int] = []

    def compute(part: slice) -> tuple[torch.Tensor]:
        seen.append(part.stop - part.start)
        return (torch.zeros(part.stop - part.start),)

    in_batches(5, compute, BatchSize(100_000))
    assert seen == [5]


# Archives


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.size = kind, link, 4 if kind == tarfile.REGTYPE else 0
        archive.addfile(info, io.BytesIO(b"evil") if info.size else None)

    return add


HOSTILE = {
    "/evil": (member("/evil"), "its path is absolute"),
    "C:/evil": (member("C:/evil"), "its path is absolute"),
    "a/../../evil": (member("a/../../evil"), "its path leads out of the folder"),
    "a\\..\\evil": (member("a\\..\\evil"), "its path leads out of the folder"),
    "symlink": (member("symlink", tarfile.SYMTYPE, "/etc/passwd"), "it is a link"),
    "hardlink": (member("hardlink", tarfile.LNKTYPE, "../x"), "it is a link"),
    "device": (member("device", tarfile.CHRTYPE), "it is a device or a pipe"),
    "pipe": (member("pipe", tarfile.FIFOTYPE), "it is a device or a pipe"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_members_of_archives_are_refused(name: str, tmp_path: Path) -> None:
    add, why = HOSTILE[name]
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member("fine")(archive)
        add(archive)
    with pytest.raises(SettingsError, match="nothing was extracted") as caught:
        refuse_members(tmp_path / "a.tar")
    assert f"has the member {name!r}: {why}" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("1,truth,marker,0.6,0.5,0.7,21,yes,why", "judges 1, which are no metrics"),
        ("tdd,truth,marker,high,0.5,0.7,21,yes,why", "cannot be read as a judgement of metrics"),
    ],
)
def test_a_damaged_judgement_is_told(tmp_path: Path, row: str, words: str) -> None:
    from segfaith.results.statistics.judgement import read

    file = tmp_path / "judgement.csv"
    file.write_text(f"metric,property,kind,value,low,high,n,verdict,why\n{row}\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=words):
        read(file)
