"""The command line: what each verb prints and writes, exit statuses, and errors without a traceback."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command
from typer.testing import CliRunner

import segfaith
from folder_runs import assert_same_records, command, content, make_project, toml, write_settings
from made_runs import edit_description, edit_rows, make_run
from segfaith.attribution.libraries import LIBRARIES
from segfaith.attribution.methods import ALIASES, DEFAULT_METHODS, METHODS
from segfaith.benchmark.plan import make_plan
from segfaith.benchmark.setting_tables import Settings
from segfaith.benchmark.settings import PACKAGED, find_settings, make_settings, read_settings
from segfaith.cli import app, running
from segfaith.cli.screen import BROKEN_PIPE
from segfaith.data.datasets import DATASETS
from segfaith.evaluation.metrics import METRICS
from segfaith.models import MODELS
from segfaith.models.adapters import ADAPTERS
from segfaith.occlusion import OPERATORS
from segfaith.planted import card, conformance
from segfaith.planted.proof import REQUIRED
from segfaith.planted.training import Recipe
from segfaith.results.records.runs import load_run

pytestmark = pytest.mark.usefixtures("as_users")

VERBS = [
    "run",
    "report",
    "list",
    "download",
    "train-scenes",
    "check-method",
    "version",
    "suite",
    "status",
    "randomise",
    "verify-precision",
    "explain",
    "check",
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("project"), samples=3)
    write_settings(root)
    return root


@pytest.fixture(scope="module")
def finished(project: Path) -> Path:
    """A finished run of three samples without stability."""
    return segfaith.run(make_settings(content(project)), project / "finished")


def fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str | Path, status: int = 2
) -> str:
    """What a failing command says on the error stream: an `error:` line and nothing like a traceback."""
    assert command(monkeypatch, *arguments) == status
    output, errors = capsys.readouterr()
    assert errors.startswith("error: "), errors
    assert "Traceback" not in output + errors
    return errors


def test_importing_segfaith_and_its_help_import_nothing_heavy() -> None:
    """A process of its own; `segfaith --help` must answer at once."""
    code = (
        "import sys, segfaith\n"
        "dir(segfaith)\n"
        "heavy = {'torch', 'torchvision', 'matplotlib', 'pandas', 'pyarrow', 'scipy', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "import segfaith.cli\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "sys.argv = ['segfaith', '--help']\n"
        "try:\n"
        "    segfaith.cli.main()\n"
        "finally:\n"
        "    assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert [verb for verb in VERBS if verb not in done.stdout] == []


def test_every_public_name_resolves_and_an_unknown_one_lists_them() -> None:
    for name in segfaith.__all__:
        assert getattr(segfaith, name) is not None
    assert set(segfaith.__all__) <= set(dir(segfaith))
    with pytest.raises(AttributeError, match=r"module 'segfaith' has no attribute 'explane'; it has .*explain"):
        _ = segfaith.explane


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb: str) -> None:
    shown = CliRunner().invoke(app, [verb, "--help"])
    assert shown.exit_code == 0
    assert "Usage" in shown.output


@pytest.mark.parametrize("verb", VERBS)
def test_no_help_has_brackets_which_rich_would_leave_out(verb: str) -> None:
    one = get_command(app).commands[verb]  # type: ignore[attr-defined]
    assert not [words for words in (one.help, *(getattr(part, "help", "") for part in one.params)) if "[" in words]


def test_no_verb_shows_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command(monkeypatch)
    output = "".join(capsys.readouterr())
    assert "Usage" in output
    assert all(verb in output for verb in VERBS)


def test_version() -> None:
    shown = CliRunner().invoke(app, ["version"])
    assert (shown.exit_code, shown.output.strip()) == (0, segfaith.__version__)


@pytest.mark.parametrize(
    ("kind", "table"),
    [
        ("models", MODELS),
        ("methods", METHODS),
        ("metrics", METRICS),
        ("datasets", DATASETS),
        ("occlusions", OPERATORS),
    ],
)
def test_list_shows_every_name_once(kind: str, table: dict[str, Any]) -> None:
    shown = CliRunner().invoke(app, ["list", kind])
    assert shown.exit_code == 0
    names = [line.split()[0] for line in shown.output.splitlines()]
    assert names[: len(table)] == list(table)
    others = [*(adapter.usage for adapter in ADAPTERS.values()), "FILE.py:FUNCTION"] if kind == "models" else []
    if kind == "methods":
        others = [*ALIASES, *(f"{prefix}:{name}" for prefix, library in LIBRARIES.items() for name in library.entries)]
    assert names[len(table) :] == others


def test_list_says_what_metrics_mean_and_where_methods_come_from() -> None:
    metrics = CliRunner().invoke(app, ["list", "metrics"]).output
    assert re.search(r"^tdd +relative drop of s when the top pixels inside the target are deleted$", metrics, re.M)
    methods = CliRunner().invoke(app, ["list", "methods"]).output
    assert re.search(
        r"^dea +Sakib et al\., equation 2; needs a layer; 1 pass with its gradient and 197 fast passes, shared$",
        methods,
        re.M,
    )


def test_list_layers_shows_the_layers_of_a_settings_files_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = CliRunner().invoke(app, ["list", "layers", "quickstart", "--set", "data.size=64"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    (line,) = [line for line in shown.output.splitlines() if "default" in line and "default: " not in line]
    assert " ".join(line.split()) == "backbone.high Sequential 576 x 4 x 4 16 64 x 64 default; in use"
    end = ["image: 3 x 64 x 64, of noise", "default: backbone.high", "in use: backbone.high"]
    assert shown.output.splitlines()[-3:] == end
    narrow = CliRunner().invoke(app, ["list", "layers", "quickstart", "--set", "data.size=64"], env={"COLUMNS": "50"})
    assert line in narrow.output
    assert "map equals the prediction: no context is read behind it" in narrow.output
    assert "map equals the prediction: no context is read behind it" in shown.output
    assert "list layers needs a settings file" in fails(monkeypatch, capsys, "list", "layers")


def test_an_unknown_list_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    errors = fails(monkeypatch, capsys, "list", "method")
    assert "unknown list 'method'; did you mean 'methods'" in errors
    assert "known: models, methods, metrics, datasets, occlusions" in errors


# run


def test_run_writes_a_run_and_names_the_next_command(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "run", project / "settings.toml", "-o", tmp_path / "run") == 0
    output, errors = capsys.readouterr()
    assert output.splitlines()[-2:] == [
        "3 of 3 samples measured, 0 rows not ok.",
        f"Next: segfaith report {tmp_path / 'run'}",
    ]
    assert "pictures" not in output, "no maps were kept"
    assert "folder data val, 32 px: TDD and OT abs pooled / mean, else mean / median, 3 samples of 1 run" in " ".join(
        output.split()
    )
    assert "0 skipped, 0 failed" not in output, "that sentence is for the report"
    assert "3/3" in errors, "the progress bar counts samples"
    assert len(load_run(tmp_path / "run").records) == 3 * 8


def test_run_without_an_output_goes_to_runs_and_the_name(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = project / "settings.toml"
    assert command(monkeypatch, "run", settings, "-n", "1", "--set", 'methods.names=["random"]') == 0
    assert sorted(path.name for path in (tmp_path / "runs" / "small").iterdir()) == ["records", "run.json"]


def test_flags_and_set_reach_the_settings(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = project / "settings.toml"
    flags = ["-n", "2", "--seed", "3", "--device", "cpu", "--batch-size", "5"]
    overrides = ["--set", "evaluation.k=0.3", "--set", 'methods.names=["random"]', "--set", "name=other"]
    assert command(monkeypatch, "run", settings, "-o", tmp_path, *flags, *overrides) == 0
    loaded = load_run(tmp_path)
    description, records = loaded.description, loaded.records
    chosen = description["settings"]
    assert (chosen["data"]["n"], chosen["seed"], chosen["name"]) == (2, 3, "other")
    assert (chosen["execution"]["device"], chosen["execution"]["batch_size"]) == ("cpu", 5)
    assert chosen["evaluation"]["k"] == 0.3
    assert list(records["method"]) == ["random", "random_cells"] * 2


def test_dry_run_says_what_it_would_cost_and_writes_nothing(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """3 samples x (6 x (1 + 1 + 4 x 4) + 3 x (4 methods + 3 draws) + 3) passes."""
    monkeypatch.chdir(tmp_path)
    before = sorted(project.rglob("*"))
    settings = project / "settings.toml"
    stable = ["--set", "evaluation.stability=true", "--set", 'methods.names=["gpa", "ega", "ria", "dea"]']
    assert command(monkeypatch, "run", settings, "--dry-run", "-o", tmp_path / "run", *stable) == 0
    output = capsys.readouterr().out
    assert "folder val: 3 samples" in output
    assert "s0, s1, s2" in output
    assert "gpa, ega, ria, dea, random_cells, gamed" in output
    (model,) = re.findall(r"ok +model +(.*)", output)
    assert model.startswith("tiny.py:build, weights tiny.pth, ")
    assert re.findall(r"layer +(.*)", output) == ["backbone.1, as [model] layer says"]
    assert len(re.findall("softmax over", output)) == 1, "told once"
    assert f"{3 * (6 * 18 + (3 + 13) * 8 + 96 + 3):,} through the model, 1 shards" in output
    assert re.search(r"time +about \d+ s: .*\(timed on s0\)", output)
    assert list(tmp_path.iterdir()) == []
    assert sorted(project.rglob("*")) == before


def test_a_refused_directory_shows_the_differences(
    project: Path, finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = fails(monkeypatch, capsys, "run", project / "settings.toml", "-o", finished, "--set", "evaluation.k=0.3")
    assert "holds a run with other settings; choose another directory or remove it" in errors
    assert "settings.evaluation.k: 0.2 -> 0.3" in errors


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ('methods.names=["gap"]', "unknown method 'gap'; did you mean 'gpa'"),
        ('methods.names=["dea@alfa=1"]', "parameter alfa"),
        ('methods.names=["maps:nowhere"]', "expected a folder with ID.npy or ID.png per sample"),
        ("data.name=voc", "unknown data set 'voc'; did you mean 'voc2012'"),
        ("data.root=nowhere", "make them or change [data] root"),
        ("data.n=9", "n = 9 samples asked for; folder val has 3"),
        ("data.sise=9", "unknown key 'data.sise'; did you mean 'size'"),
        ("model.name=fcn_resnet5", "unknown model 'fcn_resnet5'; did you mean 'fcn_resnet50'"),
        ("model.name=nowhere.py:build", "expected path/to/file.py:function"),
        ("model.weights=nowhere.pth", "give a .pth, .pt, .ckpt or .safetensors file, 'random', or leave weights out"),
        ("model.layer=backbone.9", "has no layer 'backbone.9'; the nearest are backbone."),
        ("model.classes=nowhere.txt", "expected 'voc', a list, or a file with one name a line"),
        ("target.class=dog", "unknown class 'dog'; the classes are background, box, disc"),
        ('evaluation.occlusion=["meen"]', "unknown occlusion operator 'meen'; did you mean 'mean'"),
        ("execution.device=gpu", "device 'gpu' cannot be used"),
        ("data.n", "expected KEY=VALUE, as in data.n=20"),
    ],
)
def test_a_mistake_in_the_settings_is_told_before_anything_is_written(
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    override: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in fails(monkeypatch, capsys, "run", project / "settings.toml", "-o", "run", "--set", override)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_settings_file_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    errors = fails(monkeypatch, capsys, "run", tmp_path / "missing.toml")
    assert "no settings file" in errors
    assert "give a TOML file" in errors


def test_absent_data_name_the_command_that_downloads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "settings.toml"
    for name in ("voc2012", "sbd"):
        root = tmp_path / name
        settings.write_text(toml({"data": {"name": name, "root": name}, "model": {"name": "fcn_resnet50"}}))
        errors = fails(monkeypatch, capsys, "run", settings)
        assert f"{name} val is not in {root}" in errors
        assert f"Download it with: segfaith download {name} {root}" in errors


def test_run_in_a_process_of_its_own_prints_an_error_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from segfaith.cli import main; main()", "report", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: .* is no run directory and holds none: it has no run\.json; make one with: segfaith run .*\n",
        done.stderr,
    )
    assert done.stdout == ""


# report


def shortened(value: float) -> str:
    """A number as the terminal has it: three decimals, no zero before the point, a real minus sign."""
    return re.sub(r"^(-?)0\.", r"\1.", f"{value:.3f}").replace("-", "−").replace("−.000", ".000")


def test_report_prints_the_table_and_writes_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert command(monkeypatch, "report", finished, "-o", tmp_path / "tables", "--verbose") == 0
    output = capsys.readouterr().out
    records = load_run(finished).records
    for method, rows in records.groupby("method"):
        (line,) = [line for line in output.splitlines() if line.split()[:1] == [method]][:1]
        cells = line.replace(" / ", "/").split()
        for place, metric in ((1, "fidelity"), (2, "tdd"), (3, "odd_abs")):
            numbers = rows[metric].mean(), rows[metric].median()
            if metric != "fidelity":  # sum of drops / sum of s, then the mean of ratios
                drop = rows["tdd_drop"] if metric == "tdd" else rows["odd_drop_abs"]
                numbers = drop.sum() / rows["s"].sum(), numbers[0]
            assert cells[place] == "/".join(shortened(value) for value in numbers), (method, metric)
        assert cells[4] == "n/a/n/a", "stability was not measured"
    heads = next(line for line in output.splitlines() if line.startswith("Method"))
    assert heads.split() == ["Method", "Fidelity", "↑", "TDD", "↑", "OT", "abs", "↓", "Stab.", "↑", "Time", "s", "↓"]
    extent = "else mean / median, 3 samples of 1 run, stability on none of 3 samples"
    assert f"folder data val, 32 px: TDD and OT abs pooled / mean, {extent}" in " ".join(output.split())
    undefined = records["leak_abs"].isna().sum()
    assert f"Undefined values: Leak abs {undefined}, Fid. outside" in output, (
        "stability was not to be measured on the samples"
    )
    assert "tiny.py:build, weights tiny.pth" in output
    assert "3 of 3 samples measured, 0 skipped, 0 failed" in output
    assert f"written into {tmp_path / 'tables'}:" in output
    assert "table.csv, table.md, table.tex" in output
    with (tmp_path / "tables" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (tdd,) = [row for row in rows if (row["method"], row["metric"]) == ("dea", "tdd")]
    assert float(tdd["mean"]) == pytest.approx(records[records["method"] == "dea"]["tdd"].mean())
    assert (tdd["n"], tdd["undefined"], tdd["not_ok"]) == ("3", "0", "0")
    text = (tmp_path / "tables" / "table.md").read_text(encoding="utf-8")
    assert text.count("| dea | ") == 1 + 8 + 1, "means, eight medians, and the run"


def test_report_writes_into_the_run_where_no_output_is_named(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch, "report", finished) == 0
    assert {"table.csv", "table.md"} <= {path.name for path in finished.iterdir()}


def test_report_over_several_runs_counts_each_run_once(
    project: Path,
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    other = segfaith.run(make_settings(content(project, data={"n": 1}, seed=1)), tmp_path / "other")
    assert command(monkeypatch, "report", finished, other, "-o", tmp_path, "--verbose") == 0
    output = capsys.readouterr().out
    means = [load_run(one).records.query("method == 'ria'")["tdd"].mean() for one in (finished, other)]
    mean, spread = sum(means) / 2, abs(means[0] - means[1]) / 2**0.5
    assert f"{mean:.3f} ± {spread:.3f}" in (tmp_path / "table.md").read_text(encoding="utf-8")
    (line,) = [line for line in output.splitlines() if line.split()[:1] == ["ria"]]
    assert line.split()[6] == shortened(mean), "after fidelity and the pooled drop"
    assert output.count("weights tiny.pth") == 2


def test_report_with_a_lowest_score_says_so(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = sorted(load_run(finished).records.query("method == 'gpa'")["s"])
    limit = (scores[0] + scores[1]) / 2
    assert command(monkeypatch, "report", finished, "-o", tmp_path, "--min-s", f"{limit}") == 0
    assert f"Only samples with s >= {limit:g} entered." in capsys.readouterr().out
    with (tmp_path / "table.csv").open(newline="") as file:
        assert {row["n"] for row in csv.DictReader(file) if row["metric"] == "tdd"} == {"2"}
    assert command(monkeypatch, "report", finished, "-o", tmp_path, "--min-s", "1.5") == 2
    words = f"no target is left with s >= 1.5, of which the highest is {scores[-1]:.3g}; give a lower limit"
    assert words in capsys.readouterr().err


def test_report_of_what_is_no_run_is_an_error(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "it has no run.json; make one with: segfaith run" in fails(monkeypatch, capsys, "report", tmp_path)
    (tmp_path / "run.json").write_bytes((finished / "run.json").read_bytes())
    assert "has no records yet; run it with: segfaith run FILE -o" in fails(monkeypatch, capsys, "report", tmp_path)


def test_report_of_a_broken_run_json_is_an_error(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("{")
    assert "run.json cannot be read" in fails(monkeypatch, capsys, "report", tmp_path / "run")


def test_report_of_an_unfinished_run_says_so(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = {"device": "cpu", "shard_size": 1}
    segfaith.run(make_settings(content(project, execution=shards, methods={"names": ["random"]})), tmp_path / "run")
    (tmp_path / "run" / "records" / "00001.parquet").unlink()
    assert command(monkeypatch, "report", tmp_path / "run") == 0
    assert "not finished, 1 sample to go." in capsys.readouterr().out
    assert command(monkeypatch, "report", tmp_path / "run", "--verbose") == 0
    output = capsys.readouterr().out
    assert "2 of 3 samples measured, 0 skipped, 0 failed" in output
    assert "not finished, 1 sample to go" in output


def test_download_of_an_unknown_or_a_folder_data_set_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "unknown data set 'voc'; did you mean 'voc2012'" in fails(monkeypatch, capsys, "download", "voc", tmp_path)
    assert "a folder data set cannot be downloaded" in fails(monkeypatch, capsys, "download", "folder", tmp_path)


def test_an_unknown_option_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "run", "settings.toml", "--gpu") == 2
    assert "--gpu" in capsys.readouterr().err


# Packaged settings, and the planted scenes from one end to the other


def test_a_file_wins_over_packaged_settings_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_settings("quickstart") == PACKAGED / "quickstart.toml"
    (tmp_path / "quickstart").mkdir()
    assert find_settings("quickstart") == PACKAGED / "quickstart.toml", "a folder is no settings file"
    (tmp_path / "quickstart").rmdir()
    (tmp_path / "quickstart").write_text('name = "own"')
    assert find_settings("quickstart") == Path("quickstart")
    assert find_settings("nowhere/mine.toml") == Path("nowhere/mine.toml"), "what is missing is said where it is read"


@pytest.mark.parametrize("name", ["quikstart", "packaged/quickstart", "nowhere/quickstart"])
def test_unknown_packaged_settings_name_those_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    errors = fails(monkeypatch, capsys, "run", name)
    assert f"no settings file {name!r}; give a TOML file or one of the packaged settings: judge, quickstart" in errors


def test_a_folder_is_no_settings_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"no settings file {tmp_path}" in fails(monkeypatch, capsys, "run", tmp_path)


def test_every_packaged_settings_file_can_be_planned() -> None:
    """The quickstart promises at least 16 scenes, the paper's methods and MEA, four controls, stability on 4."""
    names = sorted(path.stem for path in PACKAGED.glob("*.toml"))
    assert names == ["judge", "quickstart"]
    assert len(make_plan(read_settings(find_settings("judge"))).ids) == 64
    plan = make_plan(read_settings(find_settings("quickstart")))
    assert (len(plan.ids), len(plan.stability_ids)) == (16, 4)
    assert [method.name for method in plan.methods] == [*DEFAULT_METHODS[:4], "mea", *DEFAULT_METHODS[4:], "truth"]
    defaults = Settings.model_validate({"data": {"name": "scenes"}, "model": {"name": "scenes"}})
    assert plan.settings.evaluation == defaults.evaluation.model_copy(update={"stability": 4, "whole": False})
    assert (plan.settings.seed, plan.settings.data.size) == (defaults.seed, defaults.data.size)


SMALL = ["data.size=64", 'data.ids=["val-0002","val-0004"]', "model.weights=random", "methods.ria={grid=3}"]
ONE_SHARD_EACH = ["execution.shard_size=1", "execution.device=cpu", "evaluation.stability=1"]


@pytest.fixture(scope="module")
def scenes_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """`segfaith run quickstart` on two small scenes with an untrained model, and what it printed."""
    directory = tmp_path_factory.mktemp("scenes") / "run"
    arguments = [one for override in SMALL + ONE_SHARD_EACH for one in ("--set", override)]
    done = CliRunner().invoke(app, ["run", "quickstart", "-o", str(directory), *arguments])
    assert done.exit_code == 0, done.output
    return directory, done.stdout


def test_run_quickstart_ends_with_the_table_and_the_pictures(scenes_run: tuple[Path, str]) -> None:
    directory, output = scenes_run
    assert output.splitlines()[-3:] == [
        "2 of 2 samples measured, 0 rows not ok.",
        f"pictures: {directory / 'pictures.png'}, and one for each sample in {directory / 'pictures'}",
        f"Next: segfaith report {directory}",
    ]
    assert "scenes val, 64 px, score conditional, versus twin: TDD and OT abs pooled / mean" in " ".join(output.split())
    pictures = sorted(path.name for path in (directory / "pictures").iterdir())
    assert pictures == ["val-0002.png", "val-0004.png"]
    for sample_id in ("val-0002", "val-0004"):
        kept = {path.name for path in (directory / "maps" / sample_id).iterdir()}
        assert {"image.png", "target.png", "evidence.png", "gpa.npy", "mask.npy"} <= kept


def test_records_of_scenes_say_what_was_planted(scenes_run: tuple[Path, str]) -> None:
    """Scene 2 is a marker's and scene 4 a context's; what was kept as a picture is what was measured."""
    records = load_run(scenes_run[0]).records
    assert len(records) == 2 * 10
    assert dict(zip(records["sample_id"], records["kind"], strict=True)) == {
        "val-0002": "marker",
        "val-0004": "context",
    }
    for row in records.query("method == 'mask'").to_dict("records"):
        folder = scenes_run[0] / "maps" / row["sample_id"]
        evidence, target = (
            np.asarray(Image.open(folder / f"{name}.png"))[..., 0] > 0 for name in ("evidence", "target")
        )
        assert row["target_area"] == pytest.approx(target.mean())
        assert row["evidence_mass"] == pytest.approx((evidence & target).sum() / target.sum())
        assert (row["evidence_mass"] > 0) == (row["kind"] == "marker"), "a context lies outside the target"
    defined = ["evidence_ap", "evidence_top", "odd_beyond", "odd_beyond_abs", "s_off_evidence_deleted"]
    assert records[defined].notna().all().all()
    assert records["majority_class"].between(0, 10).all()


def test_a_stopped_run_of_scenes_is_resumed(
    scenes_run: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = shutil.copytree(scenes_run[0], tmp_path / "run")
    before = load_run(directory).records
    (directory / "records" / "00001.parquet").unlink()
    shutil.rmtree(directory / "pictures")
    arguments = [one for override in SMALL + ONE_SHARD_EACH for one in ("--set", override)]
    assert command(monkeypatch, "run", "quickstart", "-o", directory, *arguments) == 0
    output, errors = capsys.readouterr()
    assert f"Resuming {directory}: 1 of 2 samples are done." in errors
    assert "2 of 2 samples measured" in output
    assert_same_records(before, load_run(directory).records, 1e-4)
    assert (directory / "pictures" / "val-0002.png").is_file()


def test_report_of_scenes_prints_and_writes_how_far_to_trust(
    scenes_run: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody has shown that random weights decide by the evidence, so nothing is concluded."""
    assert command(monkeypatch, "report", scenes_run[0], "-o", tmp_path, "--verbose") == 0
    output = capsys.readouterr().out
    assert "How far to trust these metrics" in output
    assert "Left out: marker: unproven" in output
    assert "Nothing is left from which to conclude" in output
    assert "trust.md" in output
    page = (tmp_path / "trust.md").read_text(encoding="utf-8")
    assert "- Left out: context: unproven: the model was not shown to decide by this evidence" in page


def test_report_of_photographs_has_no_page_on_trust(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "report", finished, "-o", tmp_path, "--verbose") == 0
    output = capsys.readouterr().out
    written = {path.name for path in tmp_path.iterdir()}
    assert {"table.csv", "table.md", "table.tex", "claims.md", "conclusions.md", "significance.md"} <= written
    assert "# Who finds" not in (tmp_path / "trust.md").read_text(encoding="utf-8")
    assert not written & {"figures", "report.html"}, "asked for by flags, or not there"
    assert all(path.name in output for path in tmp_path.iterdir())


def test_report_draws_figures_and_writes_the_page_where_asked(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(monkeypatch, "report", finished, "-o", tmp_path, "--html", "--figures") == 0
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert (tmp_path / "figures" / "figures.md").is_file()
    assert list((tmp_path / "figures").glob("*.pdf"))


def test_train_scenes_takes_the_shipped_recipe_and_no_share_above_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Any] = []

    def train(output: Path, recipe: Any, scenes: int, on_step: Any) -> Any:
        seen.append(recipe)
        (output / card.TEXT).write_text("")
        return SimpleNamespace(proven=list(REQUIRED))

    monkeypatch.setattr(card, "train_scenes", train)
    assert command(monkeypatch, "train-scenes", "-o", tmp_path) == 0
    assert seen == [Recipe()]
    assert command(monkeypatch, "train-scenes", "-o", tmp_path, "--hidden", "1.5") == 2
    assert "less than or equal to 1" in capsys.readouterr().err


@pytest.mark.parametrize(("proven", "status"), [(list(REQUIRED), 0), (["marker"], 1), ([], 1)])
def test_train_scenes_hands_its_options_on_and_fails_without_a_proof(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    proven: list[str],
    status: int,
) -> None:
    seen: list[Any] = []

    def train(output: Path, recipe: Any, scenes: int, on_step: Any) -> Any:
        seen.extend([output, recipe.steps, recipe.seed, recipe.hidden, scenes])
        on_step("training", recipe.steps, "loss 0.5")
        on_step("proof", scenes, "")
        (output / card.TEXT).write_text("the card's words")
        return SimpleNamespace(proven=proven)

    monkeypatch.setattr(card, "train_scenes", train)
    flags = ["-o", tmp_path, "--steps", "7", "--seed", "5", "--hidden", "0", "--proof-scenes", "3"]
    assert command(monkeypatch, "train-scenes", *flags) == status
    assert seen == [tmp_path, 7, 5, 0, 3]
    output, errors = capsys.readouterr()
    assert "the card's words" in output
    for name in (card.WEIGHTS, card.CARD, card.TEXT, card.LOG):
        assert f"written: {tmp_path / name}" in output
    assert "7/7" in errors
    assert "3/3" in errors


@pytest.mark.parametrize(("passed", "status"), [(True, 0), (False, 1)])
def test_check_method_prints_its_findings_and_counts_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], passed: bool, status: int
) -> None:
    def check(method: str, *, scenes: int, seed: int, on_step: Any) -> list[Any]:
        on_step(f"{method} on {scenes} scenes with seed {seed}")
        one = SimpleNamespace(passed=True, check="shape", words="as it should be")
        return [one, SimpleNamespace(passed=passed, check="hooks", words="left 2 behind")]

    monkeypatch.setattr(conformance, "check_method", check)
    assert command(monkeypatch, "check-method", "here:mine", "-n", "3", "--seed", "4") == status
    output, errors = capsys.readouterr()
    assert output.splitlines() == [
        "ok    shape: as it should be",
        f"{'ok  ' if passed else 'FAIL'}  hooks: left 2 behind",
        f"here:mine: {1 + passed} of 2 checks passed",
    ]
    assert "here:mine on 3 scenes with seed 4" in errors


# A reader who goes away: `segfaith ... | head -1`


def unread(code: str, stream: str) -> tuple[int, str]:
    """Exit status of Python code of which nobody reads `stream` ("stdout" or "stderr"), and what the other one says."""
    reader, writer = os.pipe()
    os.close(reader)
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | {stream: writer}
    try:
        done = subprocess.run([sys.executable, "-c", code], text=True, timeout=600, check=False, **streams)
    finally:
        os.close(writer)
    return done.returncode, done.stdout or done.stderr or ""


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_reader_who_goes_away_costs_no_file_and_sees_no_traceback(finished: Path, tmp_path: Path) -> None:
    """The status is that of a command that SIGPIPE ended."""
    arguments = ["segfaith", "report", str(finished), "-o", str(tmp_path)]
    code = f"import sys; from segfaith.cli import main; sys.argv = {arguments!r}; main()"
    assert unread(code, "stdout") == (141, "")
    written = {path.name for path in tmp_path.iterdir()}
    assert {"table.csv", "table.md", "table.tex", "claims.md", "conclusions.md", "significance.md"} <= written


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_words_on_the_way_that_nobody_reads_end_nothing() -> None:
    code = "from segfaith.cli.screen import err, say; err.print('on the way'); err.print('more'); say('done')"
    assert unread(code, "stderr") == (0, "done\n")


def nobody(text: str) -> None:
    """What printing is without a reader."""
    raise SystemExit(BROKEN_PIPE)


def test_pictures_of_a_resumed_run_are_drawn_though_nobody_reads(
    scenes_run: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = shutil.copytree(scenes_run[0], tmp_path / "run")
    (directory / "records" / "00001.parquet").unlink()
    shutil.rmtree(directory / "pictures")
    monkeypatch.setattr(running, "say", nobody)
    arguments = [one for override in SMALL + ONE_SHARD_EACH for one in ("--set", override)]
    assert command(monkeypatch, "run", "quickstart", "-o", directory, *arguments) == BROKEN_PIPE
    assert (directory / "records" / "00001.parquet").is_file()
    assert (directory / "pictures" / "val-0002.png").is_file()


def test_words_about_one_run_that_nobody_reads_do_not_stop_the_check_of_the_next(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in (0, 1):
        settings = content(project, seed=seed, data={"n": 1}, methods={"names": ["mask"]})
        segfaith.run(make_settings(settings), tmp_path / "suite" / f"run-{seed}")
    monkeypatch.setattr(running, "say", nobody)
    arguments = ["randomise", tmp_path / "suite", "-n", "1", "--allow-code", f"{project}/tiny.py:build"]
    assert command(monkeypatch, *arguments) == BROKEN_PIPE
    for seed in (0, 1):
        assert (tmp_path / "suite" / f"run-{seed}" / "randomisation.parquet").is_file()


def test_words_of_a_run_are_shown_as_they_are_and_command_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Brackets are no markup, in tables neither; what a stranger's file says to the terminal is not sent to it."""
    run = make_run(tmp_path / "run", methods=("gpa", "mask", "random_cells"), maps=0, curves=False)
    (shard,) = (run / "records").iterdir()
    evil = {"mask": "maps:[red]x"}
    for file in (shard, run / "randomisation.parquet"):
        edit_rows(file, lambda rows: [row | {"method": evil.get(row["method"], row["method"])} for row in rows])

    def change(about: dict[str, Any]) -> None:
        about["model"]["name"] = "net\x1b]0;title\x07[bold]"
        about["methods"] = {evil.get(name, name): one for name, one in about["methods"].items()}

    edit_description(run, change)
    monkeypatch.setenv("COLUMNS", "300")
    assert command(monkeypatch, "report", run, "-o", tmp_path / "out", "--verbose") == 0
    printed = capsys.readouterr().out
    assert "maps:[red]x" in next(line for line in printed.splitlines() if "maps:" in line)
    assert "net\ufffd]0;title\ufffd[bold]" in printed
    assert "\x1b" not in printed
