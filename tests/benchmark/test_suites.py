"""Suites: what files plan, the paper's runs, narrowing, failures, resuming, locks and `segfaith status`."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from folder_runs import add_sample, assert_same_records, command, make_project, sample_arrays, write_settings
from made_runs import edit_description, edit_rows
from segfaith.attribution.libraries import LIBRARIES
from segfaith.attribution.methods import METHODS
from segfaith.benchmark import lock, runner, suite_runs
from segfaith.benchmark.forecast import Pace
from segfaith.benchmark.lock import RunIsBusyError, at_work, is_at_work
from segfaith.benchmark.plan import RESULTS_VERSION
from segfaith.benchmark.prepared import Prepared
from segfaith.benchmark.settings import make_settings
from segfaith.benchmark.status import RunState, forget_failed, planned_runs, read_states, run_state
from segfaith.benchmark.suite_runs import Outcome, _remember, forecast, refuse_repeats, run_suite
from segfaith.benchmark.suites import Suite, find_suite, narrow, read_suite, with_weights
from segfaith.errors import SettingsError
from segfaith.results.records.runs import find_runs, load_run

pytestmark = pytest.mark.usefixtures("as_users")

ROOT = Path(__file__).resolve().parents[2]
PAPER_METHODS = [
    *("gpa", "ega", "ria", "dea", "dea@alpha=0.5", "dea@alpha=0.6", "dea@alpha=0.7", "dea@alpha=0.8"),
    *("random", "random_cells", "mask"),
]
BACKBONES = ["deeplabv3_resnet50", "fcn_resnet50", "lraspp_mobilenet_v3_large"]

SUITE = """
name = "small"
seeds = [0, 1]

[data]
name = "folder"
root = "data"
size = 32
n = 2

[model]
name = "tiny.py:build"
layer = "backbone.1"
mean = [0, 0, 0]
std = [1, 1, 1]

[[models]]
label = "a"

[[models]]
label = "b"
weights = "tiny.pth"

[methods]
names = ["ega", "ria"]
ria = { grid = 4 }

[evaluation]
stability = false
fidelity = 32
whole = false

[execution]
threads = 1
device = "cpu"
shard_size = 1
"""
NAMES = [f"folder-{label}-seed{seed}" for label in "ab" for seed in (0, 1)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with data, model, weights and `suite.toml`."""
    make_project(tmp_path / "project", samples=4)
    (tmp_path / "project" / "suite.toml").write_text(SUITE)
    return tmp_path / "project"


def written(folder: Path, text: str, name: str = "suite.toml") -> Path:
    (folder / name).write_text(text)
    return folder / name


def names(suite: Suite) -> list[str]:
    return [run.name for run in suite.runs]


def ended(suite: Suite, directory: Path) -> list[Outcome]:
    return list(run_suite(suite, directory))


# What files plan


def test_the_paper_suites_plan_the_runs_of_spec() -> None:
    voc, sbd, both = (read_suite(find_suite(name)) for name in ("paper-voc", "paper-sbd", "paper"))
    base = [(model, seed) for model in BACKBONES for seed in (0, 1)]
    assert names(voc) == [f"voc2012-{model}-seed{seed}" for model, seed in base]
    assert names(sbd) == [
        *(f"sbd-{model}-seed{seed}" for model, seed in base),
        *(f"sbd-{model}-seed2" for model in BACKBONES),
        "sbd-deeplabv3_resnet50-seed0-alpha-beta-0.5",
        "sbd-deeplabv3_resnet50-seed0-grid-7",
    ]
    assert names(both) == names(voc) + names(sbd)
    assert (len(voc.runs), len(sbd.runs), len(both.runs)) == (6, 11, 17)
    for run in both.runs:
        settings = run.settings
        assert (settings.data.n, settings.data.split, settings.data.size) == (100, "val", 224)
        assert settings.model.weights is None
        assert settings.model.layer is None, "the feature layer of the table of models"
        assert settings.evaluation.stability is True
        assert settings.evaluation.fractions == [0.2, 0.05, 0.1, 0.4, 0.6, 0.8, 1.0]
        assert settings.evaluation.occlusion == ["mean", "zero", "dataset_mean", "blur", "noise", "road"]
        assert (settings.evaluation.curves, settings.evaluation.leakage) == ("each", "detailed")
        assert settings.output.maps, "without them there are no figures of maps and no gallery"
        expected = PAPER_METHODS[1:] if run.name in names(sbd)[-2:] else PAPER_METHODS
        assert settings.methods.names == expected
    assert sum("gpa" in run.settings.methods.names for run in sbd.runs) == 9, "and the others 11"


def test_the_ablations_change_what_they_say_and_nothing_else() -> None:
    runs = {run.name: run.settings for run in read_suite(find_suite("paper-sbd")).runs}
    plain = runs["sbd-deeplabv3_resnet50-seed0"]
    half, coarse = (runs[f"sbd-deeplabv3_resnet50-seed0-{name}"] for name in ("alpha-beta-0.5", "grid-7"))
    assert half.methods.dea == {"alpha": 0.5, "beta": 0.5}
    assert coarse.methods.ria == {"grid": 7}
    assert plain.methods.tables() == {}
    for settings in (half, coarse):
        same = {"name": plain.name, "methods": plain.methods}
        assert settings.model_copy(update=same) == plain


LEADERBOARD = ["scenes-scenes-seed0", "voc2012-deeplabv3_resnet50-seed0", "voc2012-deeplabv3_resnet50-seed0-crossed"]


def test_the_leaderboard_plans_scenes_photographs_and_wired_pairs_with_the_same_methods() -> None:
    suite = read_suite(find_suite("leaderboard"))
    assert names(suite) == LEADERBOARD
    scenes, photographs, wired = (run.settings for run in suite.runs)
    assert [one.data.n for one in (scenes, photographs, wired)] == [60] * 3
    assert [one.evaluation.stability for one in (scenes, photographs, wired)] == [20, 20, False]
    assert [one.data.wired for one in (scenes, photographs, wired)] == [None, None, "crossed"]
    assert (scenes.target.score, scenes.target.versus) == ("conditional", "twin")
    assert (photographs.target, photographs.model.name) == (wired.target, "deeplabv3_resnet50")
    own = read_suite(ROOT / "examples/suites/leaderboard-mobilenetv2.toml")
    assert names(own) == [
        LEADERBOARD[0],
        *(f"voc2012-mnv2-{width}-seed0{more}" for more in ("", "-crossed") for width in ("0.5", "1.0")),
    ]
    listed = {tuple(run.settings.methods.names) for run in (*suite.runs, *own.runs)}
    assert len(listed) == 1, "one table compares all"


def test_the_leaderboard_has_every_method_but_those_that_its_file_leaves_out() -> None:
    stems = [name.partition("@")[0] for name in read_suite(find_suite("leaderboard")).runs[0].settings.methods.names]
    own = [name for name in METHODS if name != "gamed"]
    libraries = [f"{prefix}:{name}" for prefix, library in LIBRARIES.items() for name in library.entries]
    left_out = {
        "sobol",
        "captum:LayerGradCam",
        "captum:FeatureAblation",
        "captum:FeaturePermutation",
        "gradcam:RefineCAM",
    }
    assert set(stems) == {*own, *libraries} - left_out
    text = find_suite("leaderboard").read_text(encoding="utf-8")
    assert all(name in text for name in left_out), "the file says why"


def test_a_copy_of_the_leaderboard_takes_own_data_and_an_own_model(project: Path) -> None:
    """The two sections that docs/suites.md edits; the scenes stay."""
    text = find_suite("leaderboard").read_text(encoding="utf-8")
    text = text.replace('name = "voc2012" ', 'name = "folder" ').replace('"data/voc" ', '"data" ')
    text = text.replace('name = "deeplabv3_resnet50" ', 'name = "tiny.py:build" \nlayer = "head" ')
    suite = read_suite(written(project, text, "mine.toml"), ["data.n=4", "data.size=32"])
    assert names(suite) == [LEADERBOARD[0], "folder-tiny-seed0", "folder-tiny-seed0-crossed"]
    assert [forecast(run.settings).problem for run in suite.runs[1:]] == ["", ""]
    assert forecast(suite.runs[1].settings).samples == 4


def test_the_leaderboard_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    run = read_suite(find_suite("leaderboard-scenes")).runs[0]
    assert forecast(run.settings).problem == ""
    monkeypatch.setattr("segfaith.attribution.libraries.entry.find_spec", lambda module: None)
    assert "captum is not installed; install it with: pip install 'segfaith[captum]'" in forecast(run.settings).problem


def test_paths_are_relative_to_the_file_and_of_packaged_suites_to_the_working_folder(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = read_suite(project / "suite.toml").runs[2]
    assert run.settings.data.root == str(project.resolve() / "data")
    assert run.settings.model.name == f"{project.resolve() / 'tiny.py'}:build"
    assert run.settings.model.weights == str(project.resolve() / "tiny.pth")
    assert read_suite(find_suite("paper-voc")).runs[0].settings.data.root == str(tmp_path.resolve() / "data" / "voc")


def test_extra_runs_merge_their_sections_into_the_common_ones(project: Path) -> None:
    more = '[[runs]]\nname = "coarse"\nmodels = ["b"]\nseeds = [5]\nmethods = { ria = { grid = 2 } }\n'
    more += "[runs.evaluation]\nk = 0.5\n[runs.model]\nlayer = 'head'\n"
    suite = read_suite(written(project, SUITE + more))
    assert names(suite) == [*NAMES, "folder-b-seed5-coarse"]
    settings = suite.runs[-1].settings
    assert (settings.seed, settings.evaluation.k, settings.evaluation.stability) == (5, 0.5, False)
    assert (settings.methods.ria, settings.methods.names) == ({"grid": 2}, ["ega", "ria"])
    assert (settings.model.layer, Path(settings.model.weights).name) == ("head", "tiny.pth")
    assert suite.runs[0].settings.methods.ria == {"grid": 4}, "the common sections stay as they are"
    assert suite.runs[0].settings.model.layer == "backbone.1"


def test_labels_of_methods_hold_for_the_runs_that_have_the_method(project: Path) -> None:
    """Also where `--set` gives another list of methods; a label that no run can show is an error."""
    text = SUITE.replace('names = ["ega", "ria"]', 'names = ["ega", "ria"]\nlabels = { ria = "RIA", ega = "XRes" }')
    more = '[[runs]]\nname = "one"\nmethods = { names = ["ria"], labels = { ria = "Ours" } }\n'
    suite = read_suite(written(project, text + more))
    assert [run.settings.methods.labels for run in suite.runs[::2]] == [
        *[{"ria": "RIA", "ega": "XRes"}] * 2,
        *[{"ria": "Ours"}] * 2,
    ]
    narrowed = read_suite(project / "suite.toml", ['methods.names=["random"]']).runs
    assert {len(run.settings.methods.labels) for run in narrowed} == {0}
    with pytest.raises(SettingsError, match=r"methods\.labels names 'dea', which runs in none of the suite's runs"):
        read_suite(written(project, text.replace("ega = ", "dea = ")))


def test_labels_are_names_or_the_names_of_files(project: Path) -> None:
    text = '[data]\nname = "folder"\nroot = "data"\n'
    models = (
        '[[models]]\nname = "fcn_resnet50"\n[[models]]\nname = "nets/unet.py:build"\n[[models]]\nname = "pkg.m:f"\n'
    )
    labels = [run.label for run in read_suite(written(project, 'name = "x"\n' + text + models)).runs]
    assert labels == ["fcn_resnet50", "unet", "pkg.m-f"]
    alone = read_suite(written(project, 'name = "x"\n' + text + '[model]\nname = "fcn_resnet50"\n'))
    assert names(alone) == ["folder-fcn_resnet50-seed0"], "a settings file with seeds is a suite"


def test_included_suites_come_first_as_they_stand(project: Path) -> None:
    (project / "other.toml").write_text(SUITE.replace("seeds = [0, 1]", "seeds = [7]"))
    suite = read_suite(written(project, SUITE.replace("seeds", 'include = ["other.toml"]\nseeds')))
    assert names(suite) == ["folder-a-seed7", "folder-b-seed7", *NAMES]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [0, 1]", "seed = 0", r"unknown key 'seed'; did you mean 'seeds'\?"),
        ("seeds = [0, 1]", "seeds = [-1]", r"seeds\.0 = -1: .*greater than or equal to 0"),
        ('name = "small"', "", r"missing key 'name'"),
        ("n = 2", "m = 2", r"model a, seed 0: unknown key 'data\.m'"),
        ("[evaluation]", "[evaluations]", r"unknown key 'evaluations'; did you mean 'evaluation'"),
        ("stability = false", "k = 2", r"evaluation: k must be above 0|k must be above 0 and at most 1"),
        ("grid = 4 }", "grid = 4 }\n[[runs]]\nseed = 3", r"\[\[runs\]\] 1: unknown key 'seed'; did you mean 'seeds'"),
        ("grid = 4 }", 'grid = 4 }\n[[runs]]\nmodels = ["c"]', r"unknown model of \[\[runs\]\] 1 .*'c'.*known: a, b"),
        ("grid = 4 }", "grid = 4 }\n[[runs]]\nseeds = [1]", r"two runs would be called 'folder-a-seed1'"),
        ("grid = 4 }", 'grid = 4 }\n[[runs]]\nname = "a/b"', r"\[\[runs\]\] 1: name = 'a/b': .*pattern"),
        ('label = "a"', 'lable = "a"', r"\[\[models\]\] 1: unknown key 'lable'"),
        ('label = "a"', 'label = "b"', r"two models are called 'b'"),
        ('label = "a"', 'label = "../a"', r"\[\[models\]\] 1: label = '\.\./a': expected letters"),
        ('name = "tiny.py:build"', "", r"\[\[models\]\] 1: missing key 'name'"),
        ("seeds", 'include = ["papre-voc"]\nseeds', r"no suite 'papre-voc'; .*paper, paper-sbd, paper-voc"),
        ("seeds", 'include = ["suite.toml"]\nseeds', r"suites include each other: suite\.toml > suite\.toml"),
        ("name =", "name", r"is no TOML"),
    ],
)
def test_a_bad_suite_is_an_error_that_names_the_key(project: Path, old: str, new: str, message: str) -> None:
    assert old in SUITE
    with pytest.raises(SettingsError, match=message):
        read_suite(written(project, SUITE.replace(old, new, 1)))


def test_a_suite_without_runs_or_models_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"plans no runs; give it \[\[models\]\] or include other suites"):
        read_suite(written(tmp_path, 'name = "x"'))
    with pytest.raises(SettingsError, match=r"has sections but no models"):
        read_suite(written(tmp_path, 'name = "x"\n[data]\nn = 2'))
    with pytest.raises(SettingsError, match=r"no suite 'nowhere\.toml'; give a TOML file or one of"):
        find_suite("nowhere.toml")


def test_overrides_hold_for_every_run_but_not_for_what_the_suite_decides(project: Path) -> None:
    suite = read_suite(project / "suite.toml", ["data.n=1", "methods.ria.grid=3"])
    assert {(run.settings.data.n, run.settings.methods.ria["grid"]) for run in suite.runs} == {(1, 3)}
    for key in ("seed", "name", "model.name"):
        with pytest.raises(SettingsError, match=rf"--set {key}: the suite decides that for each of its runs"):
            read_suite(project / "suite.toml", [f"{key}=3"])
    with pytest.raises(SettingsError, match=r"--set model\.name: the suite decides that"):
        read_suite(project / "suite.toml", ['model={name="fcn_resnet50"}'])
    with pytest.raises(SettingsError, match=r"--set 'data\.n': expected KEY=VALUE"):
        read_suite(project / "suite.toml", ["data.n"])


# Narrowed


def test_models_narrow_by_label(project: Path) -> None:
    suite = read_suite(project / "suite.toml")
    assert names(narrow(suite, ["b"])) == NAMES[2:]
    assert names(narrow(read_suite(find_suite("paper")), ["fcn_resnet50"])) == [
        *("voc2012-fcn_resnet50-seed0", "voc2012-fcn_resnet50-seed1"),
        *("sbd-fcn_resnet50-seed0", "sbd-fcn_resnet50-seed1", "sbd-fcn_resnet50-seed2"),
    ]
    with pytest.raises(SettingsError, match=r"unknown model of the suite 'c'; known: a, b"):
        narrow(suite, ["c"])


def test_weights_of_a_folder_are_taken_by_label_name_or_torchvision_name(tmp_path: Path) -> None:
    suite = read_suite(find_suite("paper-voc"))
    files = ["deeplabv3_resnet50.safetensors", "fcn_resnet50_coco-1167a1af.pth", "lraspp_mobilenet_v3_large.pt"]
    for file in files:
        (tmp_path / file).touch()
    found = with_weights(suite, tmp_path)
    assert [run.settings.model.weights for run in found.runs] == [
        str(tmp_path.resolve() / file) for file in files for _ in (0, 1)
    ]
    assert suite.runs[0].settings.model.weights is None
    (tmp_path / files[1]).unlink()
    with pytest.raises(SettingsError, match="lacks weights") as error:
        with_weights(suite, tmp_path)
    assert "fcn_resnet50: fcn_resnet50.pth or fcn_resnet50.pt or fcn_resnet50.safetensors or " in str(error.value)
    assert "deeplabv3" not in str(error.value)
    assert with_weights(narrow(suite, BACKBONES[:1]), tmp_path).runs


def test_models_that_bring_weights_keep_them_where_the_folder_has_none(project: Path) -> None:
    suite = narrow(read_suite(project / "suite.toml"), ["b"])
    assert with_weights(suite, project / "data").runs[0].settings == suite.runs[0].settings
    with pytest.raises(SettingsError, match=r"Expected:\n  a: a\.pth or a\.pt or a\.safetensors$"):
        with_weights(read_suite(project / "suite.toml"), project / "data")
    (project / "data" / "b.pth").touch()
    assert with_weights(suite, project / "data").runs[0].settings.model.weights.endswith("data/b.pth")


def test_a_forecast_needs_neither_weights_nor_data(project: Path) -> None:
    settings = read_suite(project / "suite.toml").runs[0].settings
    there = forecast(settings)
    away = forecast(settings.model_copy(update={"data": settings.data.model_copy(update={"root": "/nowhere"})}))
    assert (there.samples, there.problem) == (2, "")
    assert there.passes > 2 * 17, "RIA's 16 cells and more, on each sample"
    assert (away.samples, away.passes) == (2, there.passes)
    assert "expected the folders /nowhere" in away.problem
    everything = settings.model_copy(update={"data": settings.data.model_copy(update={"root": "/nowhere", "n": None})})
    assert (forecast(everything).samples, forecast(everything).passes) == (None, None)


def test_the_paper_suites_can_be_printed_copied_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "suite", "paper-voc", "--show") == 0
    text = capsys.readouterr().out
    assert text == find_suite("paper-voc").read_text()
    copied = read_suite(written(tmp_path, text))
    assert [run.name for run in copied.runs] == [run.name for run in read_suite(find_suite("paper-voc")).runs]


REPEATED = """
[[runs]]
name = "grid7"
models = ["b"]
methods = { names = ["ega", "ria@grid=7"] }
"""


def test_a_suite_that_plans_one_run_twice_is_refused_before_anything_is_computed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`ria@grid=7` is another method, and all that both runs have is the same; as a parameter it is an ablation."""
    suite = read_suite(written(project, SUITE + REPEATED))
    words = (
        "folder-b-seed0 and folder-b-seed0-grid7 hold the same run twice: folder data val, 32 px, .*seed 0, and the "
        r"same parameters of the methods they share \(.*ria in one of them alone.*ria@grid=7 in one of them alone.*\); "
        r"write an ablation as a parameter of its method \(\[runs.methods\] ria = \{ grid = 7 \}\), put all methods"
    )
    with pytest.raises(SettingsError, match=words):
        ended(suite, project / "runs")
    assert not (project / "runs").exists()
    monkeypatch.chdir(project)
    for more in (["--dry-run"], ["-o", "runs"]):
        assert command(monkeypatch, "suite", "suite.toml", *more) != 0
        assert "folder-b-seed0 and folder-b-seed0-grid7 hold the same run twice" in " ".join(
            capsys.readouterr().err.split()
        )
    ablation = REPEATED.replace('names = ["ega", "ria@grid=7"]', "ria = { grid = 7 }")
    refuse_repeats(read_suite(written(project, SUITE + ablation)))
    refuse_repeats(read_suite(find_suite("paper")))


@pytest.mark.parametrize(
    ("more", "refused"),
    [
        ('weights = "copy.pth"', "hold the same run twice"),
        ('weights = "other.pth"', ""),
        ('weights = "tiny.pth"\nargs = { width = 2 }', ""),
        ('weights = "tiny.pth"\nhead = "logits"', "hold the same run twice"),
        ('weights = "tiny.pth"\nlayer = "backbone.0"', ""),
    ],
)
def test_planned_runs_are_told_apart_as_runs_are(project: Path, more: str, refused: str) -> None:
    """By the content of weights; a layer makes an ablation."""
    (project / "copy.pth").write_bytes((project / "tiny.pth").read_bytes())
    (project / "other.pth").write_bytes(b"others")
    suite = read_suite(written(project, SUITE.replace("[methods]", f'[[models]]\nlabel = "c"\n{more}\n\n[methods]')))
    if refused:
        with pytest.raises(SettingsError, match=f"folder-b-seed0 and folder-c-seed0 {refused}"):
            refuse_repeats(suite)
    else:
        refuse_repeats(suite)


def test_planned_lists_of_ids_are_parts_of_one_run_and_folders_of_one_name_are_not(project: Path) -> None:
    lists = SUITE.replace("n = 2\n", 'ids = ["s0", "s1"]\n')
    part = '\n[[runs]]\nname = "part"\nmodels = ["b"]\ndata = { ids = ["s1", "s2", "s3"] }\n'
    with pytest.raises(
        SettingsError, match=r"are parts of one run, not two: .* of their 2 and 3 samples they share 1\."
    ):
        refuse_repeats(read_suite(written(project, lists + part)))
    elsewhere = part.replace('ids = ["s1", "s2", "s3"]', 'root = "more/data"')
    refuse_repeats(read_suite(written(project, SUITE + elsewhere)))


def test_dry_run_prints_the_plan_and_writes_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(project)
    before = sorted(project.rglob("*"))
    assert command(monkeypatch, "suite", "suite.toml", "--dry-run", "-n", "3", "--models", "b") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["run", "samples", "passes", "time"]
    assert [line.split()[:2] for line in lines[1:3]] == [[name, "3"] for name in NAMES[2:]]
    assert lines[3].split()[:3] == ["2", "runs", "6"]
    assert all(re.search(r" \d+ s$", line) for line in lines[1:4])
    assert sorted(project.rglob("*")) == before
    assert command(monkeypatch, "suite", "paper-voc", "--dry-run") == 0
    output = capsys.readouterr().out
    assert re.search(r"6 runs .* \?$", output, flags=re.MULTILINE)
    assert "Download it with: segfaith download voc2012" in output
    assert "time unknown" not in output, "that the run cannot start is reason enough"


def test_a_suites_time_is_that_of_its_runs_and_says_which_are_unknown(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Runs that differ in seed and samples alone are timed once; b's weights are gone."""
    monkeypatch.chdir(project)
    timed: list[str] = []

    def pace(prepared: Any) -> Pace:
        timed.append(prepared.plan.settings.name)
        return Pace("s0", {"occlusions": 20.0}, {"occlusions": 100.0}, (32, 32))

    monkeypatch.setattr(suite_runs, "pace", pace)
    stable = ["--set", "evaluation.stability=1"]
    text = (project / "suite.toml").read_text()
    assert "weights" in text
    shutil.copy(project / "suite.toml", project / "other.toml")
    (project / "other.toml").write_text(text.replace("tiny.pth", "gone.pth"))
    assert command(monkeypatch, "suite", "other.toml", "--dry-run", "-n", "3", *stable) == 0
    heard = capsys.readouterr()
    lines = heard.out.splitlines()
    assert timed == NAMES[:1]
    assert [line.split("  ")[-1].strip() for line in lines[1:6]] == [
        *["2 min 40 s"] * 2,
        "?",
        "?",
        "at least 5 min 20 s",
    ]
    assert lines[6].startswith(f"time unknown: {NAMES[2]}, {NAMES[3]}: ")
    assert "gone.pth" in lines[6]
    assert f"timing 4/4 {NAMES[3]}" in heard.err


# Run and resumed


def test_a_suite_runs_and_resumes(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "out"
    assert command(monkeypatch, "suite", project / "suite.toml", "-o", directory, "--models", "a") == 0
    output = capsys.readouterr().out
    assert "2 of 2 runs are in the table" in output
    assert "else mean / median, 4 samples of 2 runs" in " ".join(output.split())
    means = [load_run(directory / name).records.query("method == 'ria'")["tdd"].mean() for name in NAMES[:2]]
    (line,) = [line for line in output.splitlines() if line.split()[:1] == ["ria"]]
    assert float(line.split()[6].replace("−", "-")) == pytest.approx(sum(means) / 2, abs=0.0006), "over runs"
    assert f"Next: segfaith report {directory} --html" in output
    assert [run.name for run in find_runs([directory])] == NAMES[:2]
    first = {file: file.stat().st_mtime_ns for file in directory.rglob("*.parquet")}
    assert len(first) == 4
    assert set(planned_runs(directory)) == set(NAMES[:2])

    assert command(monkeypatch, "suite", project / "suite.toml", "-o", directory) == 0
    assert "4 of 4 runs are in the table" in capsys.readouterr().out
    assert {file: file.stat().st_mtime_ns for file in first} == first, "finished runs are left alone"
    assert [(one.name, one.state, one.ok) for one in read_states(directory)] == [(n, "finished", 2) for n in NAMES]
    drawn = [load_run(directory / name).description["data"]["samples"] for name in NAMES]
    assert drawn[0] == drawn[2]
    assert [load_run(directory / name).description["model"]["weights"] for name in (NAMES[0], NAMES[2])] == [
        "as built by build",
        "tiny.pth",
    ]


@pytest.mark.parametrize("models", ["a", "b", "a,b"])
@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (("-n", "1", "--set", "data.size=24"), "data.size: 32 -> 24"),
        (("-n", "1", "--set", "evaluation.k=0.5"), "evaluation.k: 0.2 -> 0.5"),
        (("-n", "1", "--set", 'methods.names=["ega"]'), "methods.names: ['ega', 'ria'] -> ['ega']"),
    ],
)
def test_other_settings_are_refused_with_the_difference_also_for_runs_that_were_not_there(
    options: tuple[str, ...],
    difference: str,
    models: str,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Else the report would pool runs of different settings."""
    arguments = ("suite", project / "suite.toml", "-o", tmp_path / "out", "--models")
    assert command(monkeypatch, *arguments, "a", "-n", "1") == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert command(monkeypatch, *arguments, models, *options) == 2
    error = capsys.readouterr().err
    assert "holds runs of this suite with other settings, and reports pool them" in error
    assert f"{NAMES[0]}, before -> now:\n  {difference}\n" in error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_larger_n_extends_the_runs_of_a_suite(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To the records of a fresh suite; not where a run that is left out would keep fewer samples, and not back."""
    arguments = ("suite", project / "suite.toml", "--models", "a", "-o")
    assert command(monkeypatch, *arguments, tmp_path / "out", "-n", "1") == 0
    capsys.readouterr()
    assert (
        command(monkeypatch, "suite", project / "suite.toml", "--models", "b", "-o", tmp_path / "out", "-n", "3") == 2
    )
    assert f"{NAMES[0]}, before -> now:\n  data.n: 1 -> 3\n" in capsys.readouterr().err
    assert command(monkeypatch, *arguments, tmp_path / "out", "-n", "3") == 0
    words = f"{NAMES[0]} finished: extends {tmp_path / 'out' / NAMES[0]} from 1 to 3 samples"
    assert words in capsys.readouterr().err.splitlines()
    assert command(monkeypatch, *arguments, tmp_path / "fresh", "-n", "3") == 0
    for name in NAMES[:2]:
        assert_same_records(load_run(tmp_path / "out" / name).records, load_run(tmp_path / "fresh" / name).records)
    assert [(state.state, state.samples) for state in read_states(tmp_path / "out")] == [("finished", 3)] * 2
    assert command(monkeypatch, *arguments, tmp_path / "out", "-n", "2") == 2
    error = capsys.readouterr().err
    assert "data.n: 3 -> 2" in error
    assert "or a larger data.n for all runs" in error


def test_a_suite_does_not_go_on_with_another_version_of_results(project: Path, tmp_path: Path) -> None:
    suite = narrow(read_suite(project / "suite.toml"), ["a"])
    ended(suite, tmp_path / "out")
    edit_description(tmp_path / "out" / NAMES[0], lambda about: about["identity"].update(results_version=1))
    with pytest.raises(SettingsError, match=f"results_version: 1 -> {RESULTS_VERSION}"):
        ended(suite, tmp_path / "out")


def test_a_suite_goes_on_with_other_folders_and_batches(tmp_path: Path) -> None:
    """Paths, and how the work is done, are not what is pooled; a run without `run.json` may still change."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        make_project(tmp_path / name / "project", samples=4)
        (tmp_path / name / "project" / "names.txt").write_text("background\nbox\ndisc\n")
        written(tmp_path / name / "project", SUITE.replace("n = 2", 'n = 2\nclasses = "names.txt"'))
    first = narrow(read_suite(tmp_path / "one/project/suite.toml"), ["a"])
    assert [one.state for one in ended(first, tmp_path / "out")] == ["finished"] * 2
    moved = read_suite(tmp_path / "two/project/suite.toml", ["execution.batch_size=3"])
    assert [one.state for one in ended(narrow(moved, ["b"]), tmp_path / "out")] == ["finished"] * 2
    for run in moved.runs[2:]:
        (tmp_path / "out" / run.name / "run.json").unlink()
    changed = read_suite(written(tmp_path / "two/project", SUITE.replace('"b"', '"b"\nlayer = "head"'), "x.toml"))
    with pytest.raises(SettingsError, match=r"folder-a-seed0, before -> now:\n  data.classes: 'names.txt' -> None"):
        next(run_suite(changed, tmp_path / "out"))


def test_a_run_that_cannot_start_is_recorded_and_the_others_go_on(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "out"
    missing = SUITE.replace('label = "a"', 'label = "a"\nweights = "a.pth"').replace("seeds = [0, 1]", "seeds = [0]")
    suite = written(project, missing)
    assert command(monkeypatch, "suite", suite, "-o", directory) == 1
    streams = capsys.readouterr()
    assert "folder-a-seed0 failed: " in streams.err, "at once, not only at the end"
    assert "1 of 2 runs are in the table" in streams.out
    assert "The same command tries the runs again that could not start or go on" in streams.out
    assert "--retry-failed" not in streams.out, "no sample failed"
    states = read_states(directory)
    assert [one.state for one in states] == ["failed", "finished"]
    assert "a.pth" in states[0].reason
    assert states[0].samples == 2
    failure = json.loads((directory / "folder-a-seed0" / "failure.json").read_text())
    assert (failure["reason"], failure["traceback"]) == (states[0].reason, "")

    assert command(monkeypatch, "status", directory) == 0
    output = capsys.readouterr().out
    assert re.search(r"folder-a-seed0 +failed +0/2 ", output)
    assert re.search(r"folder-b-seed0 +finished +2/2 +2 +0 +0 +0 +20\d\d-", output)
    assert "1 of 2 runs finished" in output
    assert f"failed: folder-a-seed0: {states[0].reason}" in output

    weights = torch.load(project / "tiny.pth", weights_only=True)
    torch.save({name: 0.5 * value for name, value in weights.items()}, project / "a.pth")  # its own
    assert command(monkeypatch, "suite", suite, "-o", directory) == 0
    assert not list(directory.rglob("failure.json"))
    assert [one.state for one in read_states(directory)] == ["finished"] * 2


def test_a_run_that_crashes_leaves_its_traceback_and_the_others_go_on(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = runner.run_shards

    def full(prepared: Prepared, *rest: object) -> None:
        if prepared.plan.settings.name == NAMES[0]:
            raise OSError(28, "No space left on device")
        real(prepared, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(runner, "run_shards", full)
    suite = narrow(read_suite(project / "suite.toml"), ["a"])
    first, second = ended(suite, tmp_path / "out")
    assert (first.state, second.state) == ("failed", "finished")
    assert first.reason == "OSError: [Errno 28] No space left on device"
    failure = json.loads((tmp_path / "out" / NAMES[0] / "failure.json").read_text())
    assert "Traceback" in failure["traceback"]
    assert [one.state for one in read_states(tmp_path / "out")] == ["failed", "finished"]


def test_a_run_of_which_every_sample_was_skipped_is_finished_and_says_so(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for index in range(4):
        image, labels = sample_arrays(index)
        add_sample(project / "data", f"s{index}", image, np.zeros_like(labels))
    (outcome,) = ended(narrow(read_suite(project / "suite.toml"), ["a"]), tmp_path / "out")[:1]
    assert outcome.state == "finished"
    assert "no sample could be measured (2 skipped, 0 failed)" in outcome.reason
    state = run_state(tmp_path / "out" / NAMES[0])
    assert (state.state, state.done, state.ok, state.skipped, state.failed) == ("finished", 2, 0, 2, 0)
    assert state.reason == outcome.reason, "finished, as trying again changes nothing, but not without a word"
    assert forget_failed(tmp_path / "out" / NAMES[0]) == 0
    arguments = ("suite", project / "suite.toml", "-o", tmp_path / "out", "--models", "a")
    assert command(monkeypatch, *arguments) == 0, "the same command would change nothing"
    said = capsys.readouterr()
    assert "no sample could be measured (2 skipped, 0 failed)" in " ".join(said.err.split())
    assert "0 of 2 runs are in the table" in said.out


def make_red(project: Path, *indices: int) -> None:
    """Images of which the model returns NaN, so that their samples fail."""
    for index in indices:
        image, labels = sample_arrays(index)
        red = np.zeros_like(image)
        red[..., 0] = 255
        add_sample(project / "data", f"s{index}", red, labels)


def test_a_run_of_which_every_sample_failed_is_failed_and_says_how_to_try_again(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_red(project, 0, 1, 2, 3)
    directory = tmp_path / "out"
    arguments = ("suite", project / "suite.toml", "-o", directory, "--models", "a")
    assert command(monkeypatch, *arguments) == 1
    output = capsys.readouterr().out
    assert "The same command" not in output, "it would not touch shards that are there"
    assert f"4 sample(s) failed, wholly or in part, in {NAMES[0]}, {NAMES[1]}; --retry-failed" in output
    assert [(one.state, one.failed) for one in read_states(directory)] == [("failed", 2)] * 2
    assert command(monkeypatch, "status", directory) == 0
    output = capsys.readouterr().out
    assert re.search(rf"{NAMES[0]} +failed +2/2 +0 +0 +0 +2 ", output)
    assert "0 of 2 runs finished" in output
    assert f"failed: {NAMES[0]}, {NAMES[1]}: no sample could be measured (0 skipped, 2 failed)" in output
    assert command(monkeypatch, *arguments) == 1, "and the failed shards stay"
    assert command(monkeypatch, *arguments, "--retry-failed") == 1, "the images are as they were"
    assert [(one.state, one.failed) for one in read_states(directory)] == [("failed", 2)] * 2


FLAKY = """
import os

def flaky(model, image, target):
    if os.environ.get("FLAKY"):
        raise RuntimeError("out of order")
    return image.mean(0)
"""


def test_failed_samples_are_measured_again_on_demand_and_the_others_stay(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """s0 is skipped and must not be tried again; all curves are those of the second attempt."""
    image, labels = sample_arrays(0)
    add_sample(project / "data", "s0", image, np.zeros_like(labels))
    (project / "flaky.py").write_text(FLAKY)
    text = SUITE.replace("[0, 1]", "[0]").replace("n = 2", 'ids = ["s0", "s1", "s2"]')
    text = text.replace('"ria"]', '"flaky.py:flaky"]').replace("stability = false", "stability = false\nk = [0.2, 0.5]")
    directory = tmp_path / "out"
    arguments = ("suite", written(project, text), "-o", directory, "--models", "a")
    monkeypatch.setenv("FLAKY", "1")
    assert command(monkeypatch, *arguments) == 1
    assert "2 sample(s) failed, wholly or in part, in folder-a-seed0; --retry-failed" in capsys.readouterr().out
    run = directory / "folder-a-seed0"
    state = run_state(run)
    assert (state.state, state.ok, state.partly, state.skipped, state.failed) == ("finished", 0, 2, 1, 0)
    monkeypatch.delenv("FLAKY")
    shards = {file: file.stat().st_mtime_ns for file in run.rglob("*.parquet")}
    assert len(shards) == 5, "three of records, two of curves"
    assert command(monkeypatch, *arguments) == 1
    assert {file: file.stat().st_mtime_ns for file in run.rglob("*.parquet")} == shards, "only on demand"
    capsys.readouterr()

    assert command(monkeypatch, *arguments, "--retry-failed") == 0
    assert "--retry-failed" not in capsys.readouterr().out
    state = run_state(run)
    assert (state.state, state.ok, state.partly, state.skipped, state.failed) == ("finished", 2, 0, 1, 0)
    again = {file for file in shards if file.stat().st_mtime_ns != shards[file]}
    assert again == {run / kind / f"0000{shard}.parquet" for kind in ("records", "curves") for shard in (1, 2)}
    methods = pd.read_parquet(run / "curves" / "00001.parquet")["method"]
    assert "flaky" in {name.rpartition(":")[2] for name in methods}


def test_run_measures_failed_samples_again_too(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "flaky.py").write_text(FLAKY)
    settings = write_settings(project, methods={"names": ["flaky.py:flaky"]}, data={"n": 2}, model={"layer": "head"})
    arguments = ("run", settings, "-o", tmp_path / "out")
    make_red(project, 0, 1, 2, 3)
    assert command(monkeypatch, *arguments) == 1
    assert "The same command with --retry-failed measures again what failed" in capsys.readouterr().out
    assert command(monkeypatch, *arguments) == 1, "as the first time"
    assert "is finished: all 2 samples are there" in capsys.readouterr().out
    done = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "records").iterdir()}
    assert command(monkeypatch, *arguments, "--retry-failed") == 1, "the images are as they were"
    assert {file: file.stat().st_mtime_ns for file in done} != done


def test_failed_shards_of_another_run_are_not_removed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_red(project, 0, 1, 2, 3)
    suite = narrow(read_suite(project / "suite.toml"), ["a"])
    ended(suite, tmp_path / "out")
    before = sorted((tmp_path / "out").rglob("*.parquet"))
    (project / "tiny.py").write_text((project / "tiny.py").read_text() + "\n# another model\n")
    outcomes = list(run_suite(suite, tmp_path / "out", retry_failed=True))
    assert ["sources.model" in one.reason for one in outcomes] == [True, True]
    assert sorted((tmp_path / "out").rglob("*.parquet")) == before
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    with at_work(tmp_path / "out" / NAMES[0]), pytest.raises(RunIsBusyError):
        forget_failed(tmp_path / "out" / NAMES[0])


def test_samples_are_counted_by_how_they_ended(project: Path, tmp_path: Path) -> None:
    """One that is all background, and one that makes the model return NaN."""
    image, labels = sample_arrays(0)
    add_sample(project / "data", "s0", image, np.zeros_like(labels))
    red = np.zeros_like(image)
    red[..., 0] = 255
    add_sample(project / "data", "s1", red, labels)
    suite = narrow(read_suite(project / "suite.toml", ["data.n=4"]), ["a"])
    assert ended(suite, tmp_path / "out")[0].state == "finished"
    state = run_state(tmp_path / "out" / NAMES[0])
    assert (state.done, state.ok, state.skipped, state.failed) == (4, 2, 1, 1)


def test_a_sample_of_which_one_method_failed_is_neither_ok_nor_lost(project: Path, tmp_path: Path) -> None:
    suite = narrow(read_suite(project / "suite.toml"), ["a"])
    assert ended(suite, tmp_path / "out")[0].state == "finished"
    shard = next((tmp_path / "out" / NAMES[0] / "records").glob("*.parquet"))
    edit_rows(shard, lambda rows: [*rows[:-1], rows[-1] | {"status": "failed"}])
    state = run_state(tmp_path / "out" / NAMES[0])
    assert (state.done, state.ok, state.partly, state.skipped, state.failed) == (2, 1, 1, 0, 0)
    assert state.measured == 2


def test_processes_that_start_together_all_stand_in_the_plan(project: Path, tmp_path: Path) -> None:
    """Each reads `suite.json`, adds its run and writes it, on and on, as threads with locks of their own."""
    suite = read_suite(project / "suite.toml")
    parts = [Suite("x", (replace(run, settings=run.settings.model_copy(update={"name": f"{run.name}-{i}"})),))
             for i in range(10) for run in suite.runs]  # fmt: skip
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda part: _remember(part, tmp_path / "out"), parts))
    assert set(planned_runs(tmp_path / "out")) == {run.name for part in parts for run in part.runs}


# Locks


def test_a_run_that_another_process_works_on_is_left_to_it(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "PATIENCE", 0.1)
    suite, directory = narrow(read_suite(project / "suite.toml"), ["a"]), tmp_path / "out"
    ended(suite, directory)
    (directory / NAMES[0] / "records" / "00000.parquet").unlink()
    with at_work(directory / NAMES[0]):
        assert is_at_work(directory / NAMES[0]) is True
        assert [one.state for one in read_states(directory)] == ["running", "finished"]
        assert [one.state for one in ended(suite, directory)] == ["busy", "finished"]
        with (
            pytest.raises(RunIsBusyError, match=r"another process works on .*; wait until it ends"),
            at_work(directory / NAMES[0]),
        ):
            pass
        assert not list(directory.rglob("failure.json"))
    assert is_at_work(directory / NAMES[0]) is False
    assert read_states(directory)[0].state == "stopped"
    assert [one.state for one in ended(suite, directory)] == ["finished"] * 2


def test_without_locks_nobody_says_what_nobody_knows(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "fcntl", None)
    suite = narrow(read_suite(project / "suite.toml"), ["a"])
    assert [one.state for one in ended(suite, tmp_path / "out")] == ["finished"] * 2
    (tmp_path / "out" / NAMES[0] / "records" / "00000.parquet").unlink()
    assert [one.state for one in read_states(tmp_path / "out")] == ["stopped or running", "finished"]


STOPS = {signal.SIGKILL: -9, signal.SIGINT: 130}
CODE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from segfaith.cli import main; main()"


@dataclass(frozen=True)
class Stopped:
    """A suite that hung in the second shard of its second run, was looked at, and then killed or interrupted."""

    project: Path
    status: int
    errors: str
    states: list[RunState]

    @property
    def directory(self) -> Path:
        return self.project / "out"


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[signal.Signals, Stopped]:
    """Both ways to stop, in processes of their own that run side by side."""
    started, results = {}, {}
    for how in STOPS:
        root = make_project(tmp_path_factory.mktemp(how.name) / "project", samples=4)
        suite, directory = written(root, SUITE), root / "out"
        hangs_at = directory / NAMES[1] / "records" / "00000.parquet"
        process = subprocess.Popen(
            [sys.executable, "-c", CODE, "suite", str(suite), "-o", str(directory), "--models", "a"],
            env=os.environ | {"TINY_HANGS_AT": str(hangs_at), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started[how] = root, hangs_at, process
    for how, (root, hangs_at, process) in started.items():
        try:
            deadline = time.monotonic() + 300
            while not hangs_at.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            states = read_states(root / "out") if hangs_at.exists() else []
            process.send_signal(how)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
        results[how] = Stopped(root, process.returncode, errors, states)
    return results


@pytest.mark.parametrize("how", STOPS, ids=lambda how: how.name)
def test_status_tells_what_runs_and_a_stopped_suite_resumes_to_the_same_records(
    how: signal.Signals, stopped: dict[signal.Signals, Stopped]
) -> None:
    suite = stopped[how]
    seen = [(one.state, one.done, one.samples) for one in suite.states]
    assert seen == [("finished", 2, 2), ("running", 1, 2)], suite.errors
    assert suite.status == STOPS[how], suite.errors
    if how == signal.SIGINT:
        expected = f"segfaith suite {suite.project / 'suite.toml'} -o {suite.directory} --models a"
        assert f"Stopped after 1 of 2 runs; at most the shard in work is lost. Resume with: {expected}" in suite.errors
        assert "Traceback" not in suite.errors
    after = [one.state for one in read_states(suite.directory)]
    assert after == ["finished", "stopped"], "the lock went with the process"

    done = {file: file.stat().st_mtime_ns for file in suite.directory.rglob("*.parquet")}
    assert len(done) == 3
    plan = narrow(read_suite(suite.project / "suite.toml"), ["a"])
    assert [one.state for one in ended(plan, suite.directory)] == ["finished"] * 2
    assert {file: file.stat().st_mtime_ns for file in done} == done
    ended(plan, suite.project / "whole")
    for name in NAMES[:2]:
        assert_same_records(load_run(suite.project / "whole" / name).records, load_run(suite.directory / name).records)


# Status


def test_status_imports_no_torch_and_knows_runs_and_suites(project: Path, tmp_path: Path) -> None:
    ended(narrow(read_suite(project / "suite.toml"), ["a"]), tmp_path / "out")
    (tmp_path / "out" / "suite.json").unlink()
    code = (
        "import sys; from segfaith.cli import main\ntry:\n    main()\nfinally:\n    assert 'torch' not in sys.modules"
    )
    for directory, words in ((tmp_path / "out", "2 of 2 runs finished"), (tmp_path / "out" / NAMES[0], "finished")):
        done = subprocess.run(
            [sys.executable, "-c", code, "status", str(directory)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert re.search(rf"{NAMES[0]} +finished +2/2 +2 +0 +0 ", done.stdout)
        assert words in done.stdout


def test_runs_that_were_planned_and_not_started_are_shown(project: Path, tmp_path: Path) -> None:
    first = next(run_suite(read_suite(project / "suite.toml"), tmp_path / "out"))
    assert first.run.name == NAMES[0]
    states = read_states(tmp_path / "out")
    assert [(one.name, one.state) for one in states] == [
        (NAMES[0], "finished"),
        *((name, "not started") for name in NAMES[1:]),
    ]
    assert (states[1].samples, states[1].done, states[1].written) == (2, 0, None)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        (None, "", r"is neither a run nor a suite: it has no run\.json and no suite\.json"),
        ("suite.json", "{", r"suite\.json cannot be read"),
        ("suite.json", '{"runs": 3}', r"suite\.json has no table of runs"),
        ("run.json", "[]", r"run\.json cannot be read \(it is no table\)"),
        ("run.json", "{}", r"run\.json carries no SHA-256: it was made by an older version of segfaith"),
    ],
)
def test_status_of_something_else_is_an_error(tmp_path: Path, file: str | None, text: str, message: str) -> None:
    if file is not None:
        (tmp_path / file).write_text(text)
    with pytest.raises(SettingsError, match=message):
        read_states(tmp_path)


# The documented suite

UNET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.ReLU())
        self.decoder = nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x):
        return self.decoder(self.encoder(x))


def build():
    return Net()
"""


def test_the_documented_suite_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file of docs/suites.md, word for word, on generated skin with dark patches; one image a run."""
    (text,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs/suites.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert sum(bool(line.strip()) for line in text.splitlines()) == 15
    written(tmp_path, text, "lesions.toml")
    (tmp_path / "unet.py").write_text(UNET)
    rng = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / "dermoscopy" / folder).mkdir(parents=True)
    for index in range(4):
        rows, columns = np.mgrid[:96, :128]
        lesion = (rows - 48) ** 2 + (columns - 50 - 8 * index) ** 2 < (18 + 3 * index) ** 2
        skin = np.where(lesion[..., None], (90, 50, 40), (220, 180, 160)) + rng.normal(0, 8, (96, 128, 3))
        add_sample(
            tmp_path / "dermoscopy", f"image{index}", skin.clip(0, 255).astype(np.uint8), lesion.astype(np.uint8)
        )
    for seed, name in enumerate(("plain", "augmented")):
        scope: dict[str, object] = {}
        torch.manual_seed(seed)
        exec(UNET, scope)
        torch.save(scope["build"]().state_dict(), tmp_path / f"{name}.pth")  # type: ignore[operator]
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "suite", "lesions.toml", "-n", "1") == 0
    assert "4 of 4 runs are in the table" in capsys.readouterr().out
    states = read_states(Path("runs/lesions"))
    assert [(one.name, one.ok) for one in states] == [
        (f"folder-{label}-seed{seed}", 1) for label in ("unet", "unet-augmented") for seed in (0, 1)
    ]
    loaded = load_run(Path("runs/lesions/folder-unet-seed1"))
    description, records = loaded.description, loaded.records
    assert description["model"]["weights"] == "plain.pth"
    assert set(records["class_index"]) == {1}
    assert records["stability"].notna().any()
    assert make_settings(description["settings"]).seed == 1
