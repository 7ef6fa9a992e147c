"""What a user can get wrong: each is one message that says what came and what to do, never a raw traceback."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import segfaith
from folder_runs import command, content, make_project, toml
from segfaith import Target, evaluate, explain, find_targets, load_model, predicted_target, wrap
from segfaith.errors import SegfaithError
from segfaith.incremental.graph import Graph
from segfaith.incremental.scoring import graph_of
from segfaith.models.weights import state_digest
from toys import SmallCNN

pytestmark = pytest.mark.usefixtures("as_users")


IMAGE = torch.rand(3, 24, 24, generator=torch.Generator().manual_seed(0))
REGION = torch.zeros(24, 24, dtype=torch.bool)
REGION[4:18, 5:20] = True
BOX = Target(1, REGION)
RIA = ["ria@grid=2"]


class Of(nn.Module):
    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Plain(nn.Module):
    """Scriptable."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


def scripted() -> Any:
    return torch.jit.script(Plain().eval())


def one(module: Any = None, **given: Any) -> Any:
    """A use of a module, or of a good one that is wrapped in some way."""
    return explain(wrap(Plain() if module is None else module, **given), IMAGE, BOX, RIA)


def good() -> Any:
    return wrap(Plain())


def exits(x: Tensor) -> Tensor:
    sys.exit(0)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    # what wrap takes
    "a function": (lambda: one(lambda x: x), "expected a torch.nn.Module, got function; put what it does into"),
    "a class": (lambda: one(SmallCNN), r"got the class SmallCNN; make an instance: SmallCNN\(\.\.\.\)"),
    "a state dict": (lambda: one(Plain().state_dict()), "expected a torch.nn.Module, got OrderedDict"),
    "wrapped twice": (lambda: one(good()), "it is wrapped already"),
    "an exported program": (
        lambda: one(torch.export.export(Plain().eval(), (IMAGE[None],))),
        r"got ExportedProgram; give its \.module\(\)",
    ),
    "a layer's number": (lambda: one(layer=3), "layer is a int; expected a dotted name"),
    "a layer itself": (lambda: one(layer=nn.ReLU()), "layer is a ReLU; expected a dotted name"),
    "two layers": (lambda: one(layer=["backbone", "head"]), "layer is a list; expected a dotted name"),
    "a scripted layer": (
        lambda: one(scripted(), layer="backbone"),
        "scripted, traced or frozen .* cannot be read; wrap",
    ),
    "a frozen layer": (lambda: one(torch.jit.freeze(scripted()), layer="backbone"), "scripted, traced or frozen"),
    "a mean of one number": (lambda: one(mean=0.5), "mean and std need three values each.*got mean=0.5"),
    "a mean of words": (lambda: one(mean="abc"), "mean and std need three values each.*got mean='abc'"),
    "a mean that is NaN": (lambda: one(mean=(np.nan, 0, 0)), "mean and std need three values each"),
    "a std of two numbers": (lambda: one(std=(1, 1)), "mean and std need three values each.*std=.1, 1."),
    "an unknown head": (
        lambda: one(head="softmaxes"),
        "head = 'softmaxes': expected softmax, sigmoid, logits, probabilities, or None",
    ),
    "too many classes": (
        lambda: one(classes=list("abcde")),
        "Plain has 3 output classes, but 5 class names were given",
    ),
    "too few classes": (lambda: one(classes=list("ab")), "has 3 output classes, but 2 class names were given: a, b"),
    "one class of a mask": (
        lambda: one(nn.Conv2d(3, 1, 1), classes=["lesion"]),
        "2 output classes: one channel stands for the two classes background and foreground, but 1 class names",
    ),
    "a number of classes": (lambda: one(classes=3), "classes = 3: expected 'voc', a list, or a file"),
    "classes by index": (
        lambda: one(classes={0: "a", 1: "b", 2: "c"}),
        r"classes are a dict, whose order need not be the channels' order; .*list\(id2label.values\(\)\)",
    ),
    "classes by name": (lambda: one(classes={"a": 0, "b": 1, "c": 2}), "classes are a dict, whose order"),
    "a set of classes": (lambda: one(classes=set("abc")), "classes are a set, whose order need not be"),
    "numbers of classes": (lambda: one(classes=[0, 1, 2]), r"class names must be text; got \[0, 1, 2\]"),
    "a class twice": (lambda: one(classes=["a", "b", "a"]), "class names must be at least one and all different"),
    # models that cannot be run
    "grey images": (
        lambda: one(nn.Conv2d(1, 3, 3)),
        r"expected a float image \(1, H, W\), got torch.float32 \(3, 24, 24\)",
    ),
    "volumes": (lambda: one(nn.Conv3d(3, 3, 1)), "3-D convolutions, so it takes volumes; segfaith explains images"),
    "volumes of one channel": (lambda: one(nn.Conv3d(1, 3, 1)), r"shape \(3, 3, 24, 24\).*takes volumes"),
    "another size": (lambda: one(Of(lambda x: x.reshape(1, 3, 5, 5))), "cannot be run on images .*RuntimeError"),
    "no weights yet": (
        lambda: one(Plain().to("meta")),
        r"weights of Plain lie on the device 'meta', which holds no values; load them",
    ),
    "some weights missing": (
        lambda: one(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 1, device="meta"))),
        "lie on the device 'meta'",
    ),
    "a broken module": (lambda: one(Of(lambda x: {}["key"])), "cannot be run on images .*KeyError: 'key'"),
    "a module that exits": (lambda: one(Of(exits)), r"cannot be run on images .*it calls sys\.exit\(0\)"),
    "no logits": (lambda: one(Of(lambda x: None)), "cannot find logits in a NoneType"),
    "integers": (lambda: one(Of(lambda x: x.argmax(1, keepdim=True))), "int64 .*return what comes before the argmax"),
    "no channels": (lambda: one(Of(lambda x: x[:, :0])), r"returned torch.float32 of shape \(1, 0, 24, 24\)"),
    "complex numbers": (lambda: one(Of(lambda x: x + 0j)), "returned torch.complex64"),
    # what explain and evaluate take
    "a bare module": (lambda: explain(Plain(), IMAGE, BOX, RIA), "expected a model of segfaith.wrap .*got a Plain"),
    "an array": (lambda: explain(good(), IMAGE.numpy(), BOX, RIA), "a tensor, got a ndarray; see load_image"),
    "a path": (lambda: predicted_target(good(), "dog.png"), "a tensor, got a str; see load_image"),
    "a class that is no class": (lambda: explain(good(), IMAGE, 1.0, RIA), "class 1.0 is a float; give its name or"),
    "a class past the last": (lambda: explain(good(), IMAGE, 7, RIA), "class 7 is out of range; expected 0 to 2"),
    "half a class": (lambda: Target(1.5, REGION), "class_index must be 0 or more, got 1.5; expected a whole number"),
    "a class below 0": (lambda: Target(-1, REGION), "class_index must be 0 or more, got -1"),
    "a region of numpy": (lambda: Target(1, REGION.numpy()), "the target region is a ndarray; expected a boolean mask"),
    "an empty region": (lambda: Target(1, REGION & False), "the target region has no pixel"),
    "labels of numpy": (
        lambda: find_targets(REGION.long().numpy()),
        r"labels: expected a tensor of class indices, .* got a ndarray; convert it: torch\.from_numpy\(labels\)",
    ),
    "a prediction of numpy": (
        lambda: find_targets(REGION.long(), REGION.long().numpy()),
        r"predicted: expected .* got a ndarray; convert it: torch\.from_numpy\(predicted\)",
    ),
    "an image as labels": (lambda: find_targets(IMAGE), r"labels: expected .* got torch\.float32 \(3, 24, 24\)"),
    "logits as a prediction": (
        lambda: find_targets(REGION.long(), IMAGE),
        r"predicted: expected .* got torch\.float32 \(3, 24, 24\)",
    ),
    "a mask of numpy": (
        lambda: find_targets(REGION.long(), masks={1: REGION.numpy()}),
        r"masks\[1\]: expected a boolean mask \(H, W\), a tensor, got a ndarray",
    ),
    "a method twice": (lambda: explain(good(), IMAGE, BOX, ["ria", "ria"]), "method 'ria' is named twice"),
    "one method as text": (lambda: explain(good(), IMAGE, BOX, "ria"), "methods = 'ria': expected a list of names"),
    "a method's function": (lambda: explain(good(), IMAGE, BOX, [exits]), "a method is a function; expected a name"),
    "no number of methods": (lambda: evaluate(good(), IMAGE, BOX, 3), "methods = 3: expected a list of names"),
    "a map of words": (
        lambda: evaluate(good(), IMAGE, BOX, {"own": "map.npy"}),
        "map 'own' is not an array .* but a str",
    ),
    "a missing map": (
        lambda: evaluate(good(), IMAGE, BOX, {"own": None}),
        "map 'own' is not an array .* but a NoneType",
    ),
    "no batch": (lambda: explain(good(), IMAGE, BOX, RIA, batch_size=0), "whole number of at least 1, got 0"),
    "half a batch": (lambda: explain(good(), IMAGE, BOX, RIA, batch_size=1.5), "whole number of at least 1, got 1.5"),
    # what load_model takes
    "a model's number": (lambda: load_model(3), "name = 3 of a model: expected a name of `segfaith list models`"),
    "a file without a function": (lambda: load_model("net.py"), "'net.py' names a file and no function in it"),
    "arguments as a list": (lambda: load_model("scenes", args=[1]), r"args = \[1\] of a model: expected a table"),
    "arguments that fail": (
        lambda: load_model("scenes", weights="random", args={"num_classes": -1}),
        r"scenes cannot be built with args \{'num_classes': -1\}: RuntimeError: .*\(conv.py, line \d+\); see \[model\]",
    ),
    "a number as weights": (lambda: load_model("scenes", weights=3), "weights = 3 of a model: expected the path"),
    "words as a seed": (lambda: load_model("scenes", weights="random", seed="a"), "seed = 'a' of a model"),
    "an unknown device": (lambda: load_model("scenes", device="gpu"), "device 'gpu' cannot be used: .*use 'cpu' or"),
    "a device's number": (lambda: load_model("scenes", device=3.5), "device 3.5 cannot be used: .*use 'cpu' or 'auto'"),
    "what ends the process": (lambda: load_model("sys:exit"), r"sys:exit cannot be built .*it calls sys.exit\(\)"),
    "what is no module": (
        lambda: load_model("builtins:int"),
        "builtins:int returned a int; expected a torch.nn.Module",
    ),
    "no name": (lambda: load_model(":"), "importing '' .* failed: ValueError"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_a_user_can_get_wrong_in_python_is_a_message(name: str) -> None:
    use, message = WRONG[name]
    with pytest.raises(SegfaithError, match=message) as caught:
        use()
    assert "\n" not in str(caught.value)


JUNK = {
    "empty.pth": (b"", "cannot be read: it is empty"),
    "empty.safetensors": (b"", "cannot be read: it is empty"),
    "words.pth": (b"hello", "it is damaged,? or not a torch file"),
    "numbers.pt": (b"1 2 3\n4 5 6\n", "it is damaged,? or not a torch file"),
    "page.ckpt": (b"<html>not found</html>", "it is damaged,? or not a torch file"),
    "pointer.pth": (b"version https://git-lfs.github.com/spec/v1\n", "it is damaged,? or not a torch file"),
}


@pytest.mark.parametrize("name", JUNK)
def test_a_file_that_holds_no_weights_is_a_message(name: str, tmp_path: Path) -> None:
    content, message = JUNK[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SegfaithError, match=rf"weights file .*{name} .*({message})") as caught:
        load_model("scenes", weights=tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_checkpoint_of_an_unknown_form_is_described(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "ema": {"module": Plain().state_dict()}}, tmp_path / "trained.pth")
    with pytest.raises(SegfaithError, match=r"got dict with the keys 'epoch' \(int\), 'ema' \(dict\); save the part"):
        load_model("scenes", weights=tmp_path / "trained.pth")


# The same on the command line


OWN = """
import os, sys
import torch
from torch import nn


class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def grey():
    return nn.Sequential(nn.Conv2d(1, 3, 3))


def volumes():
    return nn.Sequential(nn.Conv3d(1, 3, 3, padding=1))


def exits():
    sys.exit(0)


def exits_later():
    return Of(lambda x: sys.exit(0))


def fails():
    raise KeyError("width")


def decides():
    return Of(lambda x: x.argmax(1, keepdim=True))


def explain(model, image, target):
    sys.exit(0)


CALLS = []


class Late(nn.Module):  # it ends the process from call number EXITS_AT on
    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 3)

    def forward(self, x):
        CALLS.append(1)
        return sys.exit(0) if len(CALLS) >= int(os.environ["EXITS_AT"]) else self.convolution(x)
"""
COMMANDS: dict[str, tuple[dict[str, Any], str]] = {
    "volumes": ({"model": "volumes"}, "3-D convolutions, so it takes volumes"),
    "a function that exits": (
        {"model": "exits"},
        r"exits cannot be built .*: it calls sys.exit\(0\) \(own.py, line 25\)",
    ),
    "a model that exits": ({"model": "exits_later"}, r"cannot be run .*: it calls sys.exit\(0\)"),
    "a function that fails": ({"model": "fails"}, r"fails cannot be built .*: KeyError: 'width' \(own.py, line 33\)"),
    "decisions": ({"model": "decides"}, "int64 .*return what comes before the argmax"),
    "a file that exits": (
        {"model": {"name": "exits.py:build"}},
        r"importing .*exits.py.* failed: it calls sys.exit\(3\)",
    ),
    "a file without a function": ({"model": {"name": "own.py"}}, r"own.py' names a file and no function in it"),
    "weights that are a folder": ({"model": {"weights": "data"}}, r"no weights file .*data \(it is a folder\)"),
    "arguments that are no table": (
        {"model": {"args": [1]}},
        r"model.args = \[1\]: Input should be a valid dictionary",
    ),
    "an unknown head": (
        {"model": {"head": "softmax2"}},
        "model.head = 'softmax2': Input should be 'softmax', 'sigmoid', 'logits'",
    ),
    "a mean of words": ({"model": {"mean": ["a", 0, 0]}}, "model.mean.0 = 'a': Input should be a valid number"),
    "a layer's number": ({"model": {"layer": 4}}, "model.layer = 4: Input should be a valid string"),
    "a class past the last": ({"target": {"class": 9}}, "class 9 is out of range; expected 0 to 2"),
    "a device that is none": (
        {"execution": {"device": "gpu:x"}},
        "device 'gpu:x' cannot be used: .*use 'cpu' or 'auto'",
    ),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("project"), 2)
    (root / "own.py").write_text(OWN)
    (root / "exits.py").write_text("import sys\nsys.exit(3)\n")
    return root


def settings_file(root: Path, model: str | dict[str, Any] | None = None, **changes: Any) -> Path:
    values = content(".", methods={"names": ["ria"], "ria": {"grid": 2}}, **changes)
    values["evaluation"] |= {"fidelity": 32, "whole": False}
    if isinstance(model, str):
        values["model"] = {"name": f"own.py:{model}"}
    else:
        values["model"] |= model or {}
    path = root / "settings.toml"
    path.write_text(toml(values))
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_user_can_get_wrong_in_settings_is_a_message(
    name: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is written, and not as a failed row of each sample."""
    changes, message = COMMANDS[name]
    status = command(monkeypatch, "run", settings_file(project, **changes), "-o", tmp_path / "run")
    shown = capsys.readouterr().err
    assert status == 2
    assert shown.startswith("error: ")
    assert "Traceback" not in shown
    assert len(shown.strip().splitlines()) == 1
    assert re.search(message, shown), shown
    assert not (tmp_path / "run").exists()


def test_a_method_that_exits_does_not_end_the_run(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = settings_file(project)
    methods = f"methods.names=['ria', '{project / 'own.py'}:explain']"
    assert command(monkeypatch, "run", settings, "-o", tmp_path, "--set", methods) == 1, "ria was measured"
    assert "failed: 2 sample(s)" in capsys.readouterr().out


@pytest.mark.parametrize("number", [1, 4, 9, 10, 11, 16, 23, 24])
def test_a_model_that_exits_at_some_call_ends_no_command_without_a_word(
    number: int, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the test before its first use, at its graph, at the warm-up, in a sample."""
    monkeypatch.setenv("EXITS_AT", str(number))
    file = settings_file(project, "Late")
    for verb in (("run", file, "-o", tmp_path / "run"), ("verify-precision", file, "-n", "1", "--mode", "exact")):
        assert command(monkeypatch, *verb) in (1, 2)
        shown = capsys.readouterr()
        assert "sys.exit(0)" in " ".join((shown.out + shown.err).split()), shown


def test_a_model_that_exits_is_the_failure_of_its_run_alone_in_a_suite_and_in_randomise(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = content(".", methods={"names": ["random"]}, seeds=[0])
    del values["model"]
    labels = {"late": "own.py:Late", "tiny": "tiny.py:build"}
    models = "[model]\n" + "".join(f'[[models]]\nlabel = "{one}"\nname = "{name}"\n' for one, name in labels.items())
    (project / "suite.toml").write_text(toml(values) + models)
    tiny = tmp_path / "folder-tiny-seed0"
    monkeypatch.setenv("EXITS_AT", "4")
    assert command(monkeypatch, "suite", project / "suite.toml", "-o", tmp_path) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "1 of 2 runs are in the table" in said
    assert "failed: folder-late-seed0: Late cannot be run" in said.replace("own.py:", "")
    assert (tiny / "records").is_dir()
    monkeypatch.setenv("EXITS_AT", "1000")
    assert command(monkeypatch, "suite", project / "suite.toml", "-o", tmp_path) == 0
    for number in ("4", "11", "26"):
        monkeypatch.setenv("EXITS_AT", number)
        code = [word for name in ("own.py:Late", "tiny.py:build") for word in ("--allow-code", f"{project}/{name}")]
        capsys.readouterr()
        assert command(monkeypatch, "randomise", tmp_path, "-n", "1", *code) == 1
        said = " ".join(capsys.readouterr().out.split())
        assert "failed: folder-late-seed0: " in said
        assert "it calls sys.exit(0)" in said
        assert f"written: {tiny}" in said


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "segfaith", "version"], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, segfaith.__version__), done.stderr


# What must work


@pytest.mark.parametrize(
    "made",
    [
        scripted,
        lambda: torch.jit.freeze(scripted()),
        lambda: torch.jit.trace(Plain().eval(), IMAGE[None]),
        lambda: torch.fx.symbolic_trace(Plain().eval()),
        lambda: torch.export.export(Plain().eval(), (IMAGE[None],)).module(),
        lambda: nn.DataParallel(Plain()),
    ],
    ids=["scripted", "frozen", "traced", "a graph", "exported for one image", "data parallel"],
)
def test_modules_of_other_makes_explain_as_their_origin(made: Callable[[], nn.Module]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        expected = explain(wrap(Plain()), IMAGE, BOX, RIA)["ria@grid=2"]
        torch.manual_seed(3)
        found = explain(wrap(made()), IMAGE, BOX, RIA)["ria@grid=2"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("layer", ["backbone", "_orig_mod.backbone"])
def test_a_compiled_module_is_the_module_that_it_was_made_of(layer: str) -> None:
    module = Plain()
    model = wrap(torch.compile(module, backend="eager"), layer=layer)
    assert (model.module, model.layer, model.name) == (module, "backbone", "Plain")
    assert set(explain(model, IMAGE, BOX, ["ega"])) == {"ega"}


def test_logits_under_their_own_name() -> None:
    class Named(SmallCNN):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"logits": super().forward(x)["out"]}

    named, plain = wrap(Named()), wrap(SmallCNN())
    assert isinstance(graph_of(named, IMAGE), Graph)
    for incremental in (True, False):
        named.incremental = incremental
        found, expected = explain(named, IMAGE, BOX, RIA), explain(plain, IMAGE, BOX, RIA)
        torch.testing.assert_close(found["ria@grid=2"], expected["ria@grid=2"], rtol=0, atol=1e-5)


def test_class_names_by_the_name_of_their_list() -> None:
    assert wrap(nn.Conv2d(3, 21, 1), classes="voc").classes[15] == "person"


PREFIXES = ["module.", "model.", "_orig_mod.", "module._orig_mod.", "net.segmenter."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("ending", ["pth", "ckpt"])
def test_a_prefix_that_all_weights_have_in_common_is_taken_off(
    prefix: str, ending: str, project: Path, tmp_path: Path
) -> None:
    state = torch.load(project / "tiny.pth", weights_only=True)
    state = {f"{prefix}{name}": value + 1 for name, value in state.items()}
    path = tmp_path / f"weights.{ending}"
    torch.save({"state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 0.1}} if ending == "ckpt" else state, path)
    model = load_model(f"{project / 'tiny.py'}:build", weights=path)
    assert model.weights == f"weights.{ending} (without the prefix '{prefix}')"
    plain = load_model(f"{project / 'tiny.py'}:build", weights=project / "tiny.pth").module
    with torch.no_grad():
        for value in plain.parameters():
            value += 1
    assert model.provenance["state_sha256"] == state_digest(plain)


def test_a_prefix_stays_where_not_all_names_fit_without_it(project: Path, tmp_path: Path) -> None:
    state = torch.load(project / "tiny.pth", weights_only=True)
    state = {f"model.{name}": value for name, value in state.items()}
    for more in ({"loss.weight": torch.ones(3)}, {"model.extra": torch.ones(3)}):
        torch.save(state | more, tmp_path / "weights.pth")
        with pytest.raises(SegfaithError, match=r"do not fit Tiny: .*Missing key.*Unexpected key"):
            load_model(f"{project / 'tiny.py'}:build", weights=tmp_path / "weights.pth")
