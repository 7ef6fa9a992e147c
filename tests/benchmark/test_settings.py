"""Settings files: the defaults of SPEC, paths, overrides, and the errors that name the key and the remedy."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import segfaith
from folder_runs import CLASSES, content, make_project
from segfaith.attribution.methods import resolve_method
from segfaith.benchmark.plan import differences, make_plan, methods_of, resolve_methods
from segfaith.benchmark.setting_tables import MethodSettings, Settings
from segfaith.benchmark.settings import make_settings, read_settings
from segfaith.errors import SettingsError
from segfaith.results.records.identity import that_matter
from segfaith.results.records.runs import class_name, load_run

MODEL = {"model": {"name": "fcn_resnet50"}}

SPEC_EXAMPLE = """
name = "voc-mnv2"
seed = 0

[data]
name = "voc2012"            # voc2012 | sbd | folder | scenes
root = "../shared/voc"      # holds VOCdevkit/
split = "val"
size = 224                  # H = W; "native" keeps the photograph's own
n = 40                      # drawn with the seed; or: ids = ["2007_000042", ...]

[model]
name = "../shared/weights/deeplab_mnv2.py:build"   # or a name of `segfaith list models`
args = { width_mult = 0.5 }
weights = "../shared/weights/deeplabv3_mnv2_w0.5_voc21.pth"
layer = "backbone.17"
mean = [0.5, 0.5, 0.5]      # normalisation; ImageNet's by default
std = [0.5, 0.5, 0.5]
classes = "voc"             # or a list, or a file with one name a line

[methods]
names = ["gpa", "ega", "ria", "dea", "dea@alpha=0.8", "random", "random_cells", "mask"]
dea = { alpha = 0.65, beta = 0.35 }
ria = { grid = 14, occlusion = "mean" }

[evaluation]
k = 0.2
occlusion = ["mean"]        # the first is the one in the records' main columns
stability = true            # or a number: on that many samples of the run
strength = 0.03

[output]
maps = true                 # also keep maps/<sample id>/<method>.npy (float32, H x W), image.png and target.png
"""


def checked(section: str, values: Any) -> Settings:
    """Settings with one section given; [model] has a name of its own."""
    return make_settings(MODEL | {section: MODEL.get(section, {}) | values if isinstance(values, dict) else values})


def written(folder: Path, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_defaults_are_those_of_spec() -> None:
    settings = make_settings(MODEL)
    assert settings.seed == 0
    assert (settings.data.name, settings.data.split, settings.data.size) == ("voc2012", "val", 224)
    assert (settings.data.n, settings.data.ids, settings.data.download) == (None, None, False)
    assert settings.model.mean is settings.model.std is None
    assert (settings.target.source, settings.target.class_name) == ("ground_truth", None)
    evaluation = settings.evaluation
    assert (evaluation.k, evaluation.fractions, evaluation.occlusion) == (0.2, [0.2], ["mean"])
    assert (evaluation.stability, evaluation.strength) == (True, 0.03)
    assert (evaluation.ties, evaluation.ignore) == ("cell", "include")
    assert settings.output.maps is False


def test_default_methods_and_their_parameters_are_those_of_spec() -> None:
    settings = make_settings(MODEL)
    methods = {one.name: one for one in resolve_methods(settings.methods.names, settings.methods.tables())}
    assert set(methods) == {"gpa", "ega", "ria", "dea", "random", "random_cells", "mask", "gamed"}
    gradient = {"objective": "logits", "layer": None}
    identity_pool = gradient | {"pool": "mean", "window": 1}
    regions = {"regions": "grid", "passes": 80, "refine": "drop", "precision": "fp32"}
    grid = {"grid": 14, "occlusion": "mean"} | regions
    assert methods["gpa"].parameters.model_dump() == gradient
    assert methods["ega"].parameters.model_dump() == identity_pool
    assert methods["ria"].parameters.model_dump() == grid
    assert methods["dea"].parameters.model_dump() == identity_pool | grid | {"alpha": 0.65, "beta": 0.35}
    assert methods["random_cells"].parameters.model_dump() == grid
    assert {name: one.method.draws for name, one in methods.items() if one.method.draws != 1} == {"random_cells": 3}


def test_the_example_of_spec_is_read_as_it_stands(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path / "examples", SPEC_EXAMPLE))
    shared = tmp_path.resolve() / "shared"
    assert (settings.name, settings.seed, settings.data.n, settings.data.size) == ("voc-mnv2", 0, 40, 224)
    assert settings.data.root == str(shared / "voc")
    assert settings.model.name == f"{shared / 'weights' / 'deeplab_mnv2.py'}:build"
    assert settings.model.weights == str(shared / "weights" / "deeplabv3_mnv2_w0.5_voc21.pth")
    assert settings.model.args == {"width_mult": 0.5}
    assert (settings.model.layer, settings.model.classes) == ("backbone.17", "voc")
    assert settings.model.mean == settings.model.std == [0.5, 0.5, 0.5]
    assert settings.methods.names[4] == "dea@alpha=0.8"
    assert settings.methods.dea == {"alpha": 0.65, "beta": 0.35}
    assert settings.methods.ria == {"grid": 14, "occlusion": "mean"}
    assert settings.evaluation.occlusion == ["mean"]
    assert (settings.evaluation.stability, settings.evaluation.strength) == (True, 0.03)
    assert settings.output.maps is True


@pytest.mark.parametrize(
    ("values", "key", "nearest"),
    [
        ({"sead": 1}, "sead", "seed"),
        ({"dat": {}}, "dat", "data"),
        ({"data": {"sise": 224}}, "data.sise", "size"),
        ({"model": {"name": "x", "wieghts": "random"}}, "model.wieghts", "weights"),
        ({"target": {"clas": "cat"}}, "target.clas", "class"),
        ({"methods": {"name": ["gpa"]}}, "methods.name", "names"),
        ({"methods": {"rai": {"grid": 7}}}, "methods.rai", "ria"),
        ({"evaluation": {"strenght": 0.1}}, "evaluation.strenght", "strength"),
        ({"output": {"map": True}}, "output.map", "maps"),
        ({"execution": {"batchsize": 2}}, "execution.batchsize", "batch_size"),
    ],
)
def test_an_unknown_key_is_an_error_that_offers_the_nearest(values: dict[str, Any], key: str, nearest: str) -> None:
    with pytest.raises(SettingsError, match=rf"unknown key '{re.escape(key)}'; did you mean '{nearest}'\?"):
        make_settings(MODEL | values)


def test_a_key_unlike_any_lists_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=r"unknown key 'output\.zzzz'; known: maps"):
        checked("output", {"zzzz": 1})


@pytest.mark.parametrize("names", [["ria"], ["dea"], ["random_cells"], ["gpa"]])
@pytest.mark.parametrize("table", ["ria", "dea"])
def test_an_unknown_parameter_is_an_error_whichever_methods_run(names: list[str], table: str) -> None:
    """A misspelt `[methods] ria = { gird = 7 }` must not leave the grid at 14 in silence."""
    methods = checked("methods", {"names": names, table: {"gird": 7}}).methods
    with pytest.raises(SettingsError, match=r"gird.*grid"):
        resolve_methods(methods.names, methods.tables())


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("seed", -1, r"seed = -1: .*greater than or equal to 0"),
        ("seed", 1.5, r"seed = 1\.5: .*valid integer"),
        ("data", 5, r"data = 5: .*dictionary"),
        ("data", {"n": 0}, r"data\.n = 0: .*greater than or equal to 1"),
        ("data", {"n": "many"}, r"data\.n = 'many': .*valid integer"),
        (
            "data",
            {"size": "large"},
            r"data\.size = 'large': expected \"native\", or the side of a square in whole pixels",
        ),
        ("data", {"size": 0}, r"size must be 'native' or from 1 to 13377, got 0"),
        ("data", {"ids": "a"}, r"data\.ids = 'a': .*valid list"),
        ("data", {"ids": []}, r"ids"),
        ("data", {"n": 2, "ids": ["a"]}, r"give n or ids, not both"),
        ("data", {"range": [3, 1]}, r": data: range = \[3, 1\]: expected two finite numbers, the lower first"),
        ("data", {"range": [0, 1, 2]}, r"data\.range = \[0, 1, 2\]: expected \[LOW, HIGH\], or a list of such pairs"),
        ("data", {"range": [[0, 1], [2]]}, r"data\.range = .*: expected \[LOW, HIGH\], or a list of such pairs"),
        ("data", {"range": 255}, r"data\.range = 255: expected \[LOW, HIGH\]"),
        ("data", {"range": ["a", 1]}, r"data\.range.* = 'a': .*valid number"),
        ("data", {"clip": True}, r": data: clip = true needs \[data\] range"),
        ("data", {"foreground": True}, r"data\.foreground = True: .*valid integer"),
        ("data", {"ignore": 254}, r"data\.ignore = 254: .*valid list"),
        ("data", {"labels": {"1": 1.5}}, r"data\.labels"),
        ("data", {"display": [1, 2]}, r": data: display = \[1, 2\]: expected three channels"),
        ("model", {"mean": ["half"]}, r"model\.mean"),
        ("target", {"source": "truth"}, r"target\.source = 'truth': .*'ground_truth', 'prediction', 'hit'"),
        ("methods", {"names": []}, r"methods\.names = \[\]: .*at least 1"),
        ("methods", {"names": "gpa"}, r"methods\.names = 'gpa': .*valid list"),
        ("evaluation", {"k": 0}, r"k must be above 0 and at most 1, got 0"),
        ("evaluation", {"k": [0.2, 1.5]}, r"k must be above 0 and at most 1, got 1\.5"),
        ("evaluation", {"k": [0.2, 0.2]}, r"evaluation\.k = .*none twice"),
        ("evaluation", {"k": []}, r"evaluation\.k = \[\]: expected at least one"),
        ("evaluation", {"k": "half"}, r"evaluation\.k.* = 'half': .*valid number"),
        ("evaluation", {"occlusion": "mean"}, r"evaluation\.occlusion = 'mean': .*valid list"),
        ("evaluation", {"occlusion": []}, r"evaluation\.occlusion = \[\]: expected at least one"),
        ("evaluation", {"occlusion": ["mean", "mean"]}, r"evaluation\.occlusion = .*none twice"),
        (
            "evaluation",
            {"occlusion": ["meen"]},
            r"unknown occlusion operator 'meen'; did you mean 'mean'.*known: .*road",
        ),
        ("evaluation", {"stability": -1}, r"stability must be true, false or a number of samples, got -1"),
        ("evaluation", {"stability": "often"}, r"evaluation\.stability.* = 'often'"),
        ("evaluation", {"strength": -0.1}, r"evaluation\.strength = -0\.1: .*greater than or equal to 0"),
        ("evaluation", {"ties": "memory"}, r"evaluation\.ties = 'memory': .*'cell' or 'pixel'"),
        ("evaluation", {"ignore": "drop"}, r"evaluation\.ignore = 'drop': .*'include' or 'exclude'"),
        ("execution", {"batch_size": 0}, r"execution\.batch_size = 0: .*greater than or equal to 1"),
        ("execution", {"shard_size": 0}, r"execution\.shard_size = 0: .*greater than or equal to 1"),
        ("output", {"maps": "perhaps"}, r"output\.maps = 'perhaps': .*boolean"),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_named(section: str, values: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        checked(section, values)


def test_a_model_without_a_name_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"missing key 'model'"):
        make_settings({})
    with pytest.raises(SettingsError, match=r"missing key 'model\.name'"):
        make_settings({"model": {"layer": "backbone"}})


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SettingsError, match=r"data\.n = 0.*output\.map"):
        make_settings(MODEL | {"data": {"n": 0}, "output": {"map": True}})


def test_a_settings_file_that_is_missing_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no settings file .*missing\.toml.*give a TOML file"):
        read_settings(tmp_path / "missing.toml")
    with pytest.raises(SettingsError, match=r"settings\.toml is no TOML: .*line 1"):
        read_settings(written(tmp_path, "name = = 3"))
    with pytest.raises(SettingsError, match=r"settings\.toml: unknown key 'sead'"):
        read_settings(written(tmp_path, 'sead = 1\n[model]\nname = "fcn_resnet50"'))


PATHS = """
[data]
name = "folder"
root = "photos"
classes = "names.txt"
[model]
name = "model.py:build"
weights = "model.pth"
classes = "names.txt"
[methods]
names = ["ega", "maps:theirs", "own.py:explain", "package.module:function"]
"""


def test_paths_in_the_file_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    settings = read_settings(written(tmp_path / "here", PATHS))
    here = tmp_path.resolve() / "here"
    assert settings.data.root == str(here / "photos")
    assert settings.data.classes == settings.model.classes == str(here / "names.txt")
    assert settings.model.name == f"{here / 'model.py'}:build"
    assert settings.model.weights == str(here / "model.pth")
    assert settings.methods.names == [
        "ega",
        f"maps:{here / 'theirs'}",
        f"{here / 'own.py'}:explain",
        "package.module:function",
    ]


def test_names_that_are_no_paths_stay_as_they_are(tmp_path: Path) -> None:
    text = '[data]\nclasses = "voc"\n[model]\nname = "fcn_resnet50"\nweights = "random"\nclasses = "voc"'
    settings = read_settings(written(tmp_path, text))
    assert (settings.data.classes, settings.model.classes) == ("voc", "voc")
    assert (settings.model.name, settings.model.weights) == ("fcn_resnet50", "random")


def test_absolute_paths_stay(tmp_path: Path) -> None:
    root = tmp_path.resolve() / "photos"
    settings = read_settings(written(tmp_path / "a", f'[data]\nroot = "{root}"\n[model]\nname = "fcn_resnet50"'))
    assert settings.data.root == str(root)


def test_paths_of_overrides_are_relative_to_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path.resolve() / "there"
    there.mkdir()
    monkeypatch.chdir(there)
    overrides = [
        "data.root=photos",
        "data.classes=names.txt",
        "model.name=other.py:build",
        'model.weights="other.pth"',
        'methods.names=["maps:mine", "own.py:explain"]',
    ]
    settings = read_settings(written(tmp_path / "here", PATHS), overrides)
    assert settings.data.root == str(there / "photos")
    assert settings.data.classes == str(there / "names.txt")
    assert settings.model.classes == str(tmp_path.resolve() / "here" / "names.txt")
    assert settings.model.name == f"{there / 'other.py'}:build"
    assert settings.model.weights == str(there / "other.pth")
    assert settings.methods.names == [f"maps:{there / 'mine'}", f"{there / 'own.py'}:explain"]


def test_overrides_of_numbers_words_lists_and_tables(tmp_path: Path) -> None:
    overrides = [
        "data.n=20",
        "seed=3",
        "name=other",
        "evaluation.k=[0.1, 0.2]",
        'evaluation.occlusion=["zero"]',
        "evaluation.stability=false",
        "methods.dea={ alpha = 0.8 }",
        "methods.ria.grid=7",
        "data.size=native",
        "model.args={ width_mult = 1.0 }",
        "target.class=3",
    ]
    settings = read_settings(written(tmp_path, SPEC_EXAMPLE), overrides)
    assert (settings.data.n, settings.seed, settings.name, settings.data.size) == (20, 3, "other", "native")
    assert (settings.evaluation.fractions, settings.evaluation.occlusion) == ([0.1, 0.2], ["zero"])
    assert settings.evaluation.stability is False
    assert settings.methods.dea == {"alpha": 0.8, "beta": 0.35}, "a table is merged into the file's"
    assert settings.methods.ria == {"grid": 7, "occlusion": "mean"}
    assert settings.model.args == {"width_mult": 1.0}
    assert settings.target.class_name == 3
    assert settings.data.split == "val", "what no override names stays"


def test_a_later_override_wins(tmp_path: Path) -> None:
    assert read_settings(written(tmp_path, SPEC_EXAMPLE), ["data.n=20", "data.n=30"]).data.n == 30


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.n", r"--set 'data\.n': expected KEY=VALUE, as in data\.n=20"),
        ("=20", r"--set '=20': expected KEY=VALUE"),
        ("data=20", r"--set data: data is a table; name one of its keys"),
        ("data.m=20", r"unknown key 'data\.m'"),
        ("dta.n=20", r"unknown key 'dta'; did you mean 'data'"),
        ("data.n=none", r"data\.n = 'none': .*valid integer"),
        ('data.ids=["2007_000042"]', r"give n or ids, not both"),
    ],
)
def test_a_bad_override_is_an_error(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(written(tmp_path, SPEC_EXAMPLE), [override])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dea@alpha=0.8", {"alpha": 0.8, "beta": 0.35, "grid": 14}),
        ("dea@alpha=0.5,beta=0.5,grid=7", {"alpha": 0.5, "beta": 0.5, "grid": 7}),
        ("dea@alpha=0", {"alpha": 0.0}),
        ("ria@grid=7,occlusion=blur", {"grid": 7, "occlusion": "blur"}),
        ("ega@pool=max,window=3", {"pool": "max", "window": 3}),
        ("gpa@objective=prob,layer=backbone.0", {"objective": "prob", "layer": "backbone.0"}),
        ("random_cells@grid=7", {"grid": 7}),
    ],
)
def test_variants_by_name(name: str, expected: dict[str, Any]) -> None:
    one = resolve_method(name, {})
    assert one.name == name
    assert {key: getattr(one.parameters, key) for key in expected} == expected


def test_settings_reach_the_methods_that_share_them_and_a_variant_overrides_them() -> None:
    tables = {"ria": {"grid": 7, "occlusion": "zero"}, "ega": {"window": 2}, "dea": {"alpha": 0.5}}
    dea = resolve_method("dea", tables).parameters
    assert (dea.grid, dea.occlusion, dea.window, dea.alpha, dea.beta) == (7, "zero", 2, 0.5, 0.35)
    variant = resolve_method("dea@alpha=0.8,grid=3", tables).parameters
    assert (variant.grid, variant.occlusion, variant.alpha) == (3, "zero", 0.8)
    assert resolve_method("random_cells", tables).parameters.grid == 7, "the control has RIA's grid"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "gap",
            r"unknown method 'gap'; did you mean 'gpa'.*known: gpa, ega, ria, dea, mea, random, random_cells, mask",
        ),
        ("EGA", r"unknown method 'EGA'; did you mean 'ega'"),
        ("nets/my_method.py", r"'nets/my_method.py' names a file; expected FILE.py:FUNCTION, as in .*py:explain"),
        ("gpaa@objective=prob", r"unknown method 'gpaa'; did you mean 'gpa'"),
        ("dea@alfa=0.8", r"'dea@alfa=0\.8', parameter alfa: unknown; did you mean 'alpha'\?; it has .*alpha, beta"),
        ("dea@alpha=2", r"parameter alpha: .*less than or equal to 1"),
        ("dea@alpha=-0.1", r"parameter alpha: .*greater than or equal to 0"),
        ("dea@beta=-1", r"parameter beta: .*greater than or equal to 0"),
        ("dea@alpha=much", r"parameter alpha: .*valid number"),
        ("dea@alpha=", r"parameter alpha: .*valid number"),
        ("dea@alpha", r"expected name@key=value, got 'alpha' after '@'"),
        ("ria@grid=0", r"parameter grid: .*greater than or equal to 1"),
        ("ria@grid=2.5", r"parameter grid: .*valid integer"),
        ("ria@occlusion=meen", r"unknown occlusion operator 'meen'; did you mean 'mean'"),
        ("ega@pool=median", r"parameter pool: .*'mean' or 'max'"),
        ("ega@window=0", r"parameter window: .*greater than or equal to 1"),
        ("gpa@objective=loss", r"parameter objective: .*'logits' or 'prob'"),
        ("mask@grid=3", r"method 'mask@grid=3', parameter grid: .*it has no parameters"),
        (
            "maps:nowhere",
            r"method 'maps:nowhere': no folder nowhere; expected a folder with ID\.npy or ID\.png per sample",
        ),
        ("nowhere.py:explain", r"no file nowhere\.py .*expected path/to/file\.py:function"),
        ("no_such_package.module:f", r"importing 'no_such_package\.module' .* failed: ModuleNotFoundError"),
        ("math:no_such_function", r"math has no function 'no_such_function'; it has .*sqrt"),
    ],
)
def test_a_bad_method_name_is_an_error(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        resolve_method(name, {})


def test_a_method_named_twice_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"method 'gpa' is named twice; name each method once"):
        resolve_methods(["gpa", "ega", "gpa"], {})


def test_the_control_of_tdd_gain_is_always_among_the_methods() -> None:
    assert [one.name for one in resolve_methods(["gpa"], {})] == ["gpa", "random_cells"]
    assert [one.name for one in resolve_methods(["random_cells", "gpa"], {})] == ["random_cells", "gpa"]


@pytest.mark.parametrize(
    ("names", "tables", "expected", "grid"),
    [
        (["dea"], {"dea": {"grid": 7}}, "gamed", 7),
        (["dea"], {"ria": {"grid": 7}}, "gamed", 7),
        (["ega", "dea", "ria"], {"dea": {"grid": 7}}, "gamed", 7),
        (["ria", "dea"], {"dea": {"grid": 7}}, "gamed", 14),
        (["dea@alpha=0.8,grid=5"], {"dea": {"occlusion": "zero"}}, "gamed@grid=5", 5),
        (["ria"], {"gamed": {"grid": 7}}, "", 0),
        (["ria", "ria@grid=7"], {"gamed": {"grid": 7}}, "gamed@grid=7", 7),
        (["ega"], {}, "", 0),
    ],
)
def test_gamed_follows_the_interventions_that_are_there(
    names: list[str], tables: dict[str, Any], expected: str, grid: int
) -> None:
    methods = resolve_methods(names, tables)
    gamed = [one for one in methods if one.method.name == "gamed"]
    assert [one.name for one in gamed] == ([expected] if expected else [])
    for one in gamed:
        assert one.regions.grid == grid
        assert one.intervention_key in [other.intervention_key for other in methods if other is not one]


def test_settings_cannot_be_changed_after_they_are_checked() -> None:
    settings = make_settings(MODEL)
    with pytest.raises(ValueError, match="frozen"):
        settings.seed = 3


def test_a_plan_tells_data_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"data set folder needs a root folder: set \[data\] root"):
        make_plan(checked("data", {"name": "folder"}))
    with pytest.raises(SettingsError, match=r"unknown data set 'voc'; did you mean 'voc2012'\? known: voc2012, sbd"):
        make_plan(checked("data", {"name": "voc", "root": str(tmp_path)}))
    with pytest.raises(SettingsError, match=r"voc2012 val is not in .*Download it with: segfaith download voc2012"):
        make_plan(checked("data", {"root": str(tmp_path)}))


def test_unknown_words_are_refused() -> None:
    for key in ("curves", "leakage"):
        with pytest.raises(SettingsError, match=f"evaluation.{key} = 'some': Input should be '(all|plain)' or"):
            make_settings({"model": {"name": "x"}, "evaluation": {key: "some"}})


# Labels


def labelled(project: Path, labels: dict[str, str], **changes: Any) -> Settings:
    methods = {"names": ["ria", f"{project}/mine.py:explain"], "labels": labels}
    return make_settings(content(project, data={"n": 1}, methods=methods, **changes))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("labels"), samples=1)
    (root / "mine.py").write_text("def explain(model, image, target):\n    return image[0] - image[1]\n")
    return root


@pytest.mark.parametrize("key", ["mine.py:explain", "elsewhere/mine.py:explain"])
def test_labels_reach_run_json_and_are_no_part_of_what_makes_runs_the_same(
    project: Path, key: str, tmp_path: Path
) -> None:
    directory = segfaith.run(labelled(project, {}), tmp_path / "run")
    plain, before = (directory / "run.json").read_text(), load_run(directory)
    assert {about["label"] for about in before.description["methods"].values()} == {None}
    files = {file: file.stat().st_mtime_ns for file in directory.rglob("*.parquet")}
    segfaith.run(labelled(project, {key: "Ours", "ria": "RIA"}), directory)
    loaded = load_run(directory)
    description, records = loaded.description, loaded.records
    labels = {name: about["label"] for name, about in description["methods"].items()}
    assert labels == {"ria": "RIA", "mine.py:explain": "Ours", "random_cells": None, "gamed": None}
    assert description["settings"]["methods"]["labels"] == {key: "Ours", "ria": "RIA"}
    assert description["identity_sha256"] == before.description["identity_sha256"]
    assert description["created"] == before.description["created"]
    assert {file: file.stat().st_mtime_ns for file in files} == files, "nothing is measured for a label"
    assert records.equals(before.records)
    segfaith.run(labelled(project, {}), directory)
    assert (directory / "run.json").read_text() == plain


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"dea": "Ours"}, "methods.labels names 'dea', which does not run; the methods of this run are ria, mine.py"),
        ({"mine.py:other": "Ours"}, "methods.labels names 'mine.py:other', which does not run"),
        ({"ria": "Ours", "mine.py:explain": "Ours"}, "'ria' and 'mine.py:explain' would both be shown as 'Ours'"),
        ({"ria": "random_cells"}, "'ria' and 'random_cells' would both be shown as 'random_cells'"),
    ],
)
def test_labels_that_do_not_fit_are_errors(project: Path, labels: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        make_plan(labelled(project, labels))


@pytest.mark.parametrize("label", ["", "  ", "two\nlines"])
def test_a_label_must_be_text_of_one_line(project: Path, label: str) -> None:
    with pytest.raises(SettingsError, match=r"methods.labels.*the label of method 'ria' must be text of one line"):
        labelled(project, {"ria": label})


def test_methods_may_swap_names(project: Path) -> None:
    plan = make_plan(labelled(project, {"ria": "random_cells", "random_cells": "ria"}))
    assert plan.labels == {"ria": "random_cells", "random_cells": "ria"}


def test_labels_are_read_from_a_file_and_name_maps_too(project: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    table = content(project, data={"n": 1})
    text = f"""
[data]
name = "folder"
root = "{project}/data"
[model]
name = "{table["model"]["name"]}"
[methods]
names = ["ria", "maps:theirs"]
labels = {{ "maps:theirs" = "Theirs", ria = "RIA" }}
"""
    assert make_plan(read_settings(written(tmp_path, text))).labels == {"maps:theirs": "Theirs", "ria": "RIA"}


def test_how_files_are_read_reaches_the_data_set(tmp_path: Path) -> None:
    """Every key of `[data]`, from a file; keys of TOML are text."""
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    values = np.arange(2 * 9 * 7).reshape(2, 9, 7)
    np.save(tmp_path / "images/a.npy", values.astype(np.int16))
    np.save(tmp_path / "masks/a.npy", np.where(values[0] % 2, 255, values[0] % 3))
    (tmp_path / "settings.toml").write_text(
        """
        [data]
        name = "folder"
        root = "."
        size = "native"
        range = [[0, 40], [60, 130]]
        clip = true
        channels_first = true
        labels = { 255 = "lesion", 0 = "tissue", 2 = "vessel" }
        ignore = [1]
        background = "tissue"
        display = [2, 2, 1]

        [model]
        name = "net"
        """
    )
    settings = read_settings(tmp_path / "settings.toml", ["data.labels.1=255", "data.ignore=[]"])
    dataset = make_plan(settings).dataset
    assert list(dataset.classes or []) == ["tissue", "lesion", "vessel"]
    assert (dataset.background, dataset.display) == (0, (2, 2, 1))
    sample = dataset.load("a", "native")
    expected = np.stack([values[0] / 40, (values[1] - 60) / 70]).clip(0, 1)
    np.testing.assert_allclose(sample.image.numpy(), expected, atol=1e-6)
    meant = {0: 0, 1: 255, 2: 2, 255: 1}
    stored = np.where(values[0] % 2, 255, values[0] % 3)
    assert sample.labels.tolist() == [[meant[value] for value in row] for row in stored.tolist()]
    assert make_settings(settings.model_dump(mode="json", by_alias=True)).data.reading == settings.data.reading


def test_class_names_of_the_data_reach_run_json(project: Path, tmp_path: Path) -> None:
    """`[model] classes` is left out; the folder has a file of names."""
    description = load_run(segfaith.run(labelled(project, {}), tmp_path / "run")).description
    assert description["model"]["classes"] is None
    assert description["data"]["classes"] == CLASSES
    assert class_name(description, 1) == "box"
    named = labelled(project, {}).model_dump(by_alias=True)
    named["data"]["classes"] = ["background", "lesion", "vessel"]
    description = load_run(segfaith.run(make_settings(named), tmp_path / "named")).description
    assert class_name(description, 1) == "lesion"


LIBRARY_TABLES = """
[data]
name = "scenes"
[model]
name = "scenes"
[methods]
names = ["captum:IntegratedGradients", "captum:IntegratedGradients@n_steps=5", "rise"]
rise = { masks = 40 }
"captum:IntegratedGradients" = { n_steps = 12, baseline = "mean" }
"gradcam:GradCAM" = { objective = "logits" }
"""


def test_methods_of_libraries_have_tables_that_their_names_may_overrule(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, LIBRARY_TABLES), ["methods.gradcam:GradCAM.objective=prob"])
    table, named, rise, *_ = methods_of(settings)
    assert (table.parameters.n_steps, table.parameters.baseline) == (12, "mean")
    assert (named.parameters.n_steps, named.parameters.baseline) == (5, "mean")
    assert rise.options["masks"] == 40
    assert resolve_method("gradcam:GradCAM", settings.methods.tables()).parameters.objective == "prob"


def test_tables_of_library_methods_make_another_run_and_absent_ones_none(tmp_path: Path) -> None:
    """They stand in the settings that matter to a directory; a file without them has the same settings as before."""
    dumped = [
        that_matter(read_settings(written(tmp_path, text)).model_dump(mode="json", by_alias=True), "directory")
        for text in (LIBRARY_TABLES, LIBRARY_TABLES.replace("n_steps = 12", "n_steps = 13"))
    ]
    lines = differences(*dumped)
    assert lines == ["methods.captum:IntegratedGradients.n_steps: 12 -> 13"]
    plain = MethodSettings().model_dump()
    assert set(plain) == {"names", "labels", "gpa", "ega", "ria", "dea", "random_cells"}
    assert MethodSettings.model_validate(dumped[0]["methods"] | {"names": ["ria"]}).tables()["rise"] == {"masks": 40}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("methods.rai={ grid = 3 }", r"unknown key 'methods.rai'; did you mean 'ria'"),
        (
            "methods.captum:Salience={ sign = 1 }",
            r"unknown key 'methods.captum:Salience'; did you mean 'captum:Saliency'",
        ),
        ("methods.captum:Saliency=3", "'captum:Saliency' = 3: expected a table of parameters"),
    ],
)
def test_tables_of_unknown_methods_are_refused(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        read_settings(written(tmp_path, LIBRARY_TABLES), [override])


def test_a_misspelt_parameter_in_a_library_table_is_refused(tmp_path: Path) -> None:
    settings = read_settings(written(tmp_path, LIBRARY_TABLES), ["methods.captum:Lime={ n_sample = 3 }"])
    with pytest.raises(SettingsError, match=r"'captum:Lime', parameter n_sample: .*it has grid, .*n_samples"):
        methods_of(settings)
