"""Names that become paths: which ids are refused and where, and that a run writes and removes in its directory only."""

import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from folder_runs import command, content, make_project, toml, write_settings
from made_runs import edit_description, edit_rows, make_run
from segfaith.benchmark import runner
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.settings import make_settings
from segfaith.benchmark.status import read_states
from segfaith.data.dataset import Dataset
from segfaith.data.datasets import open_dataset
from segfaith.errors import SettingsError
from segfaith.paths import LONGEST, inside, map_folder, map_name, plain_name, refusal
from segfaith.results.figures.drawings import DRAWINGS
from segfaith.results.figures.save import save_figures
from segfaith.results.figures.tiles import write_pictures
from segfaith.results.records.files import create_file, replace_file
from segfaith.results.records.runs import load_run
from segfaith.results.statistics.analysis import analyse

REFUSED = {
    "": "empty",
    ".": "dot",
    "..": "dot",
    ".jpg": "dot",
    "~": "tilde",
    "~root": "tilde",
    "/etc/x": "absolute",
    "\\x": "absolute",
    "C:x": "drive",
    "c:\\x": "drive",
    "a/b": "slash",
    "a/../b": "slash",
    "a\\b": "slash",
    "a/": "slash",
    "a\0b": "control",
    "a\nb": "control",
    "a\x1b[2Jb": "control",
    "a\u2028b": "control",
    " a": "space",
    "a ": "space",
    "a\u3000": "space",
    "a.": "dot",
    "a..": "dot",
    "x" * (LONGEST + 1): "longer",
    "ä" * (LONGEST // 2 + 1): "longer",
}
ACCEPTED = [
    "2007_000042",
    "val-0000",
    "IMG 1 (2)",
    "a.b",
    "ä",
    "x" * LONGEST,
    "12:30:05",
    "con",
    "-",
    "<b>",
    "a~",
    "a..b",
]


@pytest.mark.parametrize("name", REFUSED)
def test_an_id_that_cannot_name_files_is_refused_in_words(name: str) -> None:
    assert REFUSED[name] in refusal(name)


@pytest.mark.parametrize("name", ACCEPTED)
def test_other_ids_are_taken(name: str) -> None:
    assert refusal(name) == ""


@pytest.mark.parametrize("value", [None, 3, b"a"])
def test_an_id_is_text(value: object) -> None:
    assert "not text" in refusal(value)


# Where ids enter


def voc(root: Path, lines: str) -> Path:
    """VOC's layout with one photograph, `a`, and a list of one's own."""
    base = root / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    image = Image.new("RGB", (32, 32), "red")
    image.save(base / "JPEGImages" / "a.jpg")
    Image.new("L", (32, 32), 1).save(base / "SegmentationClass" / "a.png")
    (base / "ImageSets/Segmentation/val.txt").write_text(lines)
    return root


@pytest.mark.parametrize("name", ["..", "", "/etc/x", "b/a", "../JPEGImages/a"])
def test_a_list_with_a_bad_id_is_refused_with_its_line_before_anything_runs(tmp_path: Path, name: str) -> None:
    root = voc(tmp_path, f"a\n{name}\n")
    with pytest.raises(SettingsError, match=r"Segmentation/val\.txt, line 2: .*; correct or remove that line"):
        open_dataset("voc2012", root)
    (root / "val.txt").write_text(f"a\n{name}\n")
    with pytest.raises(SettingsError, match=r"val\.txt, line 2: the sample id"):
        open_dataset("sbd", root)


def test_lists_of_good_ids_are_taken_with_any_line_ends(tmp_path: Path) -> None:
    assert list(open_dataset("voc2012", voc(tmp_path, "a\r\nb \n")).ids) == ["a", "b"]


def test_a_file_whose_name_can_be_no_id_is_refused(tmp_path: Path) -> None:
    root = make_project(tmp_path, samples=1)
    shutil.copy(root / "data/images/s0.png", root / "data/images/s0 .png")
    with pytest.raises(SettingsError, match=r"images: the sample id 's0 ' .*a space; rename that image and its mask"):
        open_dataset("folder", root / "data")


def test_no_data_set_has_a_bad_id() -> None:
    unread: object = None
    with pytest.raises(SettingsError, match=r"mine val: the sample id '\.\.' cannot name a folder and files"):
        Dataset("mine", "val", ["a", ".."], None, unread, unread)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["/elsewhere", "../..", None])
def test_records_with_a_bad_id_are_refused(tmp_path: Path, name: str | None) -> None:
    """Records and `run.json` agree on it: whoever made them wanted it there."""
    run = make_run(tmp_path / "run", samples=("a", "b"), skipped=0, failed=0, curves=False)
    (shard,) = (run / "records").iterdir()
    edit_rows(shard, lambda rows: [row | {"sample_id": name if row["sample_id"] == "b" else "a"} for row in rows])
    edit_description(run, lambda about: about["data"].update(samples=["a", name]))
    with pytest.raises(SettingsError, match=r"run\.json: the sample id .* this is no run of segfaith's"):
        load_run(run)


@pytest.mark.parametrize("name", ["../other", "..", "/etc"])
def test_a_suite_names_folders_of_its_own(tmp_path: Path, name: str) -> None:
    (tmp_path / "suite.json").write_text(json.dumps({"runs": {name: {}}}))
    with pytest.raises(SettingsError, match="is not a plain name"):
        read_states(tmp_path)


# Where they become paths


@pytest.mark.parametrize(
    "parts", [("..", "x"), ("maps", "..", "x"), ("maps", "/etc", "x"), ("maps", "a/b"), ("",), (".",)]
)
def test_no_path_leads_out_of_the_directory(tmp_path: Path, parts: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match="is not a plain name"):
        inside(tmp_path, *parts)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("dog", "dog"),
        ("a/b\\c", "a_b_c"),
        ("..", "_"),
        (" traffic light. ", "traffic light"),
        ("a@b:c", "a_b_c"),
        ("a\xa0.", "a"),
    ],
)
def test_a_classs_name_becomes_part_of_a_files_name(text: str, name: str) -> None:
    assert plain_name(text) == name
    assert plain_name(name) == name


def test_a_targets_folder_bears_the_id_and_the_target_and_is_never_too_long() -> None:
    assert map_folder("a") == "a"
    assert map_folder("a", "dog-2") == "a@dog-2"
    first, second = map_folder("a" * 228, "dog"), map_folder("a" * 228, "dot")
    assert len(first) == len(second) == 230
    assert first != second
    assert len(map_folder("é" * 115, "dog").encode()) <= 230


def test_paths_lie_in_the_directory_which_may_itself_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    path = inside(tmp_path / "run", "maps", "a", map_name("maps:../x/y"))
    assert path == tmp_path / "run" / "maps" / "a" / "maps:.._x_y.npy"
    (tmp_path / "disk/maps").symlink_to(tmp_path / "disk", target_is_directory=True)
    with pytest.raises(SettingsError, match=r"run/maps/a is a symbolic link, or lies behind one"):
        inside(tmp_path / "run", "maps", "a", "x")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project of two samples with maps kept, its settings, and a foreign folder with files in it."""
    root = make_project(tmp_path / "project", samples=2)
    changes = {"methods": {"names": ["mask"]}, "output": {"maps": True}, "execution": {"shard_size": 1}}
    write_settings(root, **changes)
    for name in ("foreign/precious.txt", "foreign/s0/precious.txt"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("mine")
    return root


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_list_that_names_the_parent_folder_removes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Maps of the id `..` would lie in the run's own directory, which a second start would clear."""
    voc(tmp_path / "data", "..\n")
    shutil.copy(
        tmp_path / "data/VOCdevkit/VOC2012/JPEGImages/a.jpg", tmp_path / "data/VOCdevkit/VOC2012/JPEGImages/...jpg"
    )
    settings = {
        "data": {"name": "voc2012", "root": "data", "size": 32},
        "model": {"name": "lraspp_mobilenet_v3_large", "weights": "random"},
        "methods": {"names": ["mask"]},
        "evaluation": {"stability": False},
        "output": {"maps": True},
    }
    (tmp_path / "settings.toml").write_text(toml(settings))
    (tmp_path / "run").mkdir()
    (tmp_path / "run/precious.txt").write_text("mine")
    for _ in range(2):
        assert command(monkeypatch, "run", tmp_path / "settings.toml", "-o", tmp_path / "run") == 2
        assert "val.txt, line 1: the sample id '..' cannot name" in capsys.readouterr().err
    assert list((tmp_path / "run").iterdir()) == [tmp_path / "run/precious.txt"]


def test_maps_of_a_bad_id_go_nowhere_even_if_it_came_so_far(project: Path) -> None:
    prepared = prepare(make_settings(content(project, methods={"names": ["mask"]}, output={"maps": True})))
    directory = project / "foreign" / "run"
    runner.open_directory(directory, prepared)
    before = files(project / "foreign")
    for name in ("..", "../..", str(project / "foreign")):
        with pytest.raises(SettingsError, match="is not a plain name"):
            runner._write_maps(directory, {name: {"image.png": b""}}, lambda: None)
    assert files(project / "foreign") == before


@pytest.mark.parametrize("link", ["maps", "records", "curves", "pictures"])
def test_a_folder_of_the_run_that_is_a_link_is_refused_at_the_start(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], link: str
) -> None:
    before = files(project / "foreign")
    (project / "run").mkdir()
    (project / "run" / link).symlink_to(project / "foreign")
    assert command(monkeypatch, "run", project / "settings.toml", "-o", project / "run") == 2
    assert f"{project / 'run' / link} is a symbolic link" in capsys.readouterr().err
    assert files(project / "foreign") == before
    assert [one.name for one in (project / "run").iterdir()] == [link]


def test_maps_of_one_sample_that_are_a_link_are_not_cleared(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(project / "foreign")
    (project / "run/maps").mkdir(parents=True)
    (project / "run/maps/s0").symlink_to(project / "foreign/s0")
    assert command(monkeypatch, "run", project / "settings.toml", "-o", project / "run") == 2
    assert "maps/s0 is a symbolic link, or lies behind one" in capsys.readouterr().err
    assert files(project / "foreign") == before


def test_failed_shards_are_not_forgotten_through_a_link(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder of another run, whose shard failed: `--retry-failed` would remove it there."""
    (project / "data/masks/s0.png").unlink()
    arguments = ["run", project / "settings.toml", "--retry-failed", "-o"]
    assert command(monkeypatch, *arguments, project / "other") == 1
    shutil.copytree(project / "other", project / "run")
    shutil.rmtree(project / "run/records")
    (project / "run/records").symlink_to(project / "other/records")
    before = files(project / "other")
    assert command(monkeypatch, *arguments, project / "run") == 2
    assert "records is a symbolic link" in capsys.readouterr().err
    assert files(project / "other") == before


def test_a_run_behind_a_link_is_made_and_resumed(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "disk").mkdir()
    (project / "runs").symlink_to(project / "disk")
    for _ in range(2):
        assert command(monkeypatch, "run", project / "settings.toml", "-o", project / "runs/a") == 0
    assert (project / "disk/a/maps/s0/mask.npy").is_file()
    (project / "disk/a/records/00000.parquet").unlink()
    assert command(monkeypatch, "run", project / "settings.toml", "-o", project / "runs/a") == 0
    assert (project / "disk/a/records/00000.parquet").is_file()


def test_a_description_that_is_a_link_to_nothing_is_a_message(project: Path) -> None:
    (project / "run").mkdir()
    (project / "run/run.json").symlink_to(project / "nowhere")
    prepared = prepare(make_settings(content(project, methods={"names": ["mask"]})))
    with pytest.raises(SettingsError, match=r"run\.json is a symbolic link to nothing"):
        runner.open_directory(project / "run", prepared)


def test_figures_and_pictures_are_not_drawn_through_a_link(project: Path) -> None:
    run = load_run(make_run(project / "run", samples=("a", "b"), skipped=0, failed=0))
    before = files(project / "foreign")
    for name in ("figures", "pictures"):
        (run.directory / name).symlink_to(project / "foreign")
    with pytest.raises(SettingsError, match="figures is a symbolic link"):
        save_figures(analyse([run]), DRAWINGS, run.directory)
    with pytest.raises(SettingsError, match="pictures is a symbolic link"):
        write_pictures(run.directory, run.description, run.records)
    assert files(project / "foreign") == before


def test_nothing_is_written_through_a_link_in_place_of_a_file_or_of_its_temporary_name(project: Path) -> None:
    target = project / "foreign/precious.txt"
    for name in ("table.md", f".table.md.{os.getpid()}.tmp"):
        (project / name).symlink_to(target)
    replace_file(project / "table.md", lambda temporary: temporary.write_text("ours"))
    (project / f".run.json.{os.getpid()}.tmp").symlink_to(target)
    create_file(project / "run.json", "ours")
    assert target.read_text() == "mine"
    assert not (project / "table.md").is_symlink()
    assert (project / "table.md").read_text() == (project / "run.json").read_text() == "ours"
