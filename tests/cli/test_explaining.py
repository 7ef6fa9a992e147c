"""`segfaith explain`, `segfaith check` and `segfaith list settings`: what they print and write, and exit statuses."""

import json
from pathlib import Path

import pytest

from colour_runs import make_colours, settings
from folder_runs import command, toml
from segfaith.cli.screen import out


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_colours(tmp_path_factory.mktemp("colours"))
    (root / "own.toml").write_text(toml(settings(root, model={"classes": ["background", "red", "blue"]})))
    return root


def explain(monkeypatch: pytest.MonkeyPatch, root: Path, *options: str | Path) -> int:
    photo = root / "data" / "images" / "p0.png"
    return command(monkeypatch, "explain", photo, "--config", root / "own.toml", "--device", "cpu", *options)


def test_a_photograph_becomes_a_panel_a_table_and_sentences(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert explain(monkeypatch, root, "--methods", "ega,ria@grid=2,occlusion=zero") == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert "target    red: the most frequent predicted class other than the background" in printed
    assert any(line.startswith("predicted background") for line in lines)
    assert "EGA: deleting its top 20 % inside the red" in printed
    assert "RIA@grid=2,occlusion=zero: deleting its top 20 %" in printed
    table = [line for line in lines if "random_cells" in line or "s deleted" in line]
    assert len(table) == 2
    assert max(map(len, table)) <= 80
    folder = tmp_path / "explanations" / "p0"
    assert sorted(path.name for path in folder.iterdir()) == ["explanation.json", "panel.png"]


def test_long_names_are_broken_at_their_parts_and_short_ones_not_at_100_columns(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(out, "_width", 100)
    long = "captum:IntegratedGradients@n_steps=3,baseline=mean,sign=absolute"
    assert explain(monkeypatch, root, "--methods", f"captum:InputXGradient,{long}") == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[next(at for at, line in enumerate(lines) if "s deleted" in line) :]
    assert max(map(len, table[:6])) <= 100
    assert sum(line.lstrip().startswith("captum:InputXGradient  ") for line in table) == 1
    at = next(at for at, line in enumerate(table) if line.lstrip().startswith("captum:IntegratedGradients@n_steps=3,"))
    assert table[at + 1].split() == ["baseline=mean,sign=absolute"]


def test_json_is_all_that_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path, tmp_path: Path
) -> None:
    options = ("--json", "--npy", "-o", tmp_path / "out", "--class", "2", "--size", "native", "--seed", "3")
    assert explain(monkeypatch, root, *options, "--set", "evaluation.k=0.5", "--score", "logit") == 0
    content = json.loads(capsys.readouterr().out)
    assert content["paths"] == [
        str(tmp_path / "out" / name) for name in ("panel.png", "explanation.json", "ega.npy", "mask.npy")
    ]
    assert (content["k"], content["seed"], content["size"]) == (0.5, 3, {"height": 32, "width": 40})
    assert (content["target"]["class"], content["target"]["score"]) == ("blue", "logit")
    assert all(Path(path).is_file() for path in content["paths"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--class", "cat"), "unknown class 'cat'; the classes are background, red, blue"),
        (("--point", "a,b"), "--point 'a,b': expected X,Y in whole pixels of the file, as in 120,80"),
        (("--model", "scenes"), "--model and --config exclude each other"),
        (("--methods", "egaa"), "did you mean"),
        (
            ("--size", "abc"),
            "data.size = 'abc': expected \"native\", or the side of a square in whole pixels",
        ),
        (
            ("--size", "1.5"),
            "data.size = '1.5': expected \"native\", or the side of a square in whole pixels",
        ),
        (("--methods", "ega,ega"), "method 'ega' is named twice; name each method once"),
        (("--set", "data.sise=3"), "unknown key 'data.sise'"),
        (("--set", "target.part=largest"), "--set target.part: explain does not read this setting"),
        (("--set", "evaluation.stability=true"), "explain does not read this setting"),
        (("--layer", "nowhere"), "has no layer 'nowhere'"),
    ],
)
def test_errors_are_words(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    root: Path,
    options: tuple[str, ...],
    words: str,
) -> None:
    assert explain(monkeypatch, root, *options) == 2
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors.startswith("error: ")
    assert words in errors


def test_a_photograph_that_is_not_there_and_no_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert command(monkeypatch, "explain", tmp_path / "no.jpg", "--model", "scenes") == 2
    assert "no.jpg" in capsys.readouterr().err
    assert command(monkeypatch, "explain", tmp_path / "no.jpg") == 2
    assert "no model: give --model NAME" in capsys.readouterr().err


def test_check_prints_findings_and_its_status_says_whether_one_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path
) -> None:
    assert command(monkeypatch, "check", root / "own.toml", "-n", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "ok    images    2 of 2 can be read; 32 x 40 px (H x W); 3 channel(s)" in lines
    assert lines[-1] == "0 fail, 1 warn"  # the layer's map repeats the prediction
    assert command(monkeypatch, "check", root / "own.toml", "--set", "model.layer=nowhere") == 1
    assert "fail  model     " in capsys.readouterr().out
    assert command(monkeypatch, "check", root / "none.toml") == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_dry_run_checks_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], root: Path) -> None:
    assert command(monkeypatch, "run", root / "own.toml", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "time      about" in printed
    assert "ok    fit       mean IoU" in printed
    assert printed.endswith("0 fail, 1 warn\n")
    assert command(monkeypatch, "run", root / "own.toml", "--dry-run", "--set", "target.min_area=5000") == 1
    assert "fail  targets   none of the 3 samples has one" in capsys.readouterr().out


def test_a_run_warns_of_predictions_that_miss_the_targets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = make_colours(tmp_path, samples=1, shift=1, names=["background", "a", "b", "c"])
    (root / "off.toml").write_text(toml(settings(root, methods={"names": ["mask"]}, target={"class": 2})))
    for number, options in enumerate(([], ["--set", "target.part=boundary"])):
        assert command(monkeypatch, "run", root / "off.toml", "-o", tmp_path / f"run{number}", *options) == 0
        warned = "warn: the mean IoU of targets and predictions is 0.00" in capsys.readouterr().out
        assert warned == (not options)


def test_settings_are_listed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch, "list", "settings") == 0
    lines = capsys.readouterr().out.splitlines()
    assert f'{"data.size":28}224: side of the square to which images are resized, or "native"' in lines
