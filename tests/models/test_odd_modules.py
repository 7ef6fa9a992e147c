"""Modules of odd makes and outputs: explained as their plain origin is, or refused in words. A test a row."""

import copy
import gc
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import zoo
from segfaith.api import evaluate, explain
from segfaith.errors import SegfaithError
from segfaith.evidence.layers import layers_of
from segfaith.models import load_model
from segfaith.models.wrapping import wrap
from segfaith.types import Target

IMAGE = torch.rand(3, 24, 32, generator=torch.Generator().manual_seed(0))
REGION = torch.zeros(24, 32, dtype=torch.bool)
REGION[4:18, 5:20] = True
BOX = Target(1, REGION)
METHODS = ["gpa", "ega", "ria@grid=2"]


class Net(nn.Module):
    """A plain segmenter, which each case makes odd."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(zoo.conv(3, 8, 3, stride=2), nn.ReLU(), zoo.conv(8, 8), nn.ReLU())
        self.head = nn.Sequential(zoo.conv(8, 8), nn.ReLU(), zoo.conv(8, 3, 1, gain=4.0))

    def forward(self, x: Tensor) -> Any:
        return self.head(self.backbone(x))


def net() -> Net:
    module = zoo.randomised(Net())
    assert isinstance(module, Net)
    return module.eval()


def maps(module: nn.Module, layer: str | None = "backbone", methods: list[str] = METHODS) -> dict[str, Tensor]:
    model = wrap(module, layer=layer, mean=(0, 0, 0), std=(1, 1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return explain(model, IMAGE, BOX, methods)


def cast_inside(dtype: torch.dtype) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=dtype):
            return self.net(x)

    return zoo.Of(forward, net=net())


def with_dropout() -> nn.Module:
    module = net()
    module.backbone.append(nn.Dropout2d(0.5))
    return module


def overwriting() -> nn.Module:
    module = net()
    module.head.insert(0, nn.Threshold(-1.0, 0.0, inplace=True))  # changes no value of a ReLU
    return module


def hooked() -> nn.Module:
    """A user's hook that doubles what the layer gives, and one that halves what the head reads."""
    module = net()
    module.backbone.register_forward_hook(lambda _, inputs, output: output * 2)
    module.head.register_forward_pre_hook(lambda _, inputs: (inputs[0] / 2,))
    return module


def weight_normed() -> nn.Module:
    module = net()
    for part in (module.backbone[2], module.head[0]):
        nn.utils.parametrizations.weight_norm(part)
    return module


def weight_normed_by_hooks() -> nn.Module:
    module = net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.weight_norm(module.backbone[2])
        nn.utils.weight_norm(module.head[0])
    return module


def parametrized() -> nn.Module:
    """Weights that a function of others gives: here the function changes nothing."""
    module = net()
    nn.utils.parametrize.register_parametrization(module.head[0], "weight", nn.Identity())
    return module


def compiled_part() -> nn.Module:
    module = net()
    module.backbone = torch.compile(module.backbone, backend="eager")
    return module


def compiled_in_place() -> nn.Module:
    module = net()
    module.compile(backend="eager")
    return module


def parallel_part() -> nn.Module:
    module = net()
    module.backbone = nn.DataParallel(module.backbone)
    return module


class Lightning(nn.Module):
    """As lightning's modules: a net, a loss and steps of training beside forward."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.loss = net(), nn.CrossEntropyLoss()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, number: int) -> Tensor:
        return self.loss(self(batch[0]), batch[1])


# made, layer, tolerance of maps in [0, 1]
SAME: dict[str, tuple[Callable[[], nn.Module], str, float]] = {
    "bfloat16": (lambda: net().bfloat16(), "backbone", 0.1),
    "half precision": (lambda: net().half(), "backbone", 0.05),
    "double precision": (lambda: net().double(), "backbone", 1e-5),
    "autocast inside": (lambda: cast_inside(torch.bfloat16), "net.backbone", 0.1),
    "dropout": (with_dropout, "backbone", 1e-6),
    "train mode": (lambda: with_dropout().train(), "backbone", 1e-6),
    "no gradients of weights": (lambda: net().requires_grad_(False), "backbone", 1e-6),
    "in-place activation behind the layer": (overwriting, "backbone", 1e-6),
    "hooks of the user's own": (hooked, "backbone", 1e-5),
    "weight norm": (weight_normed, "backbone", 1e-4),
    "weight norm by hooks": (weight_normed_by_hooks, "backbone", 1e-4),
    "parametrization": (parametrized, "backbone", 1e-6),
    "compiled": (lambda: torch.compile(net(), backend="eager"), "_orig_mod.backbone", 1e-6),
    "compiled in place": (compiled_in_place, "backbone", 1e-6),
    "a compiled part": (compiled_part, "backbone", 1e-6),
    "data parallel": (lambda: nn.DataParallel(net()), "module.backbone", 1e-6),
    "data parallel around compiled": (
        lambda: nn.DataParallel(torch.compile(net(), backend="eager")),
        "module._orig_mod.backbone",
        1e-6,
    ),
    "a data parallel part": (parallel_part, "backbone", 1e-6),
    "a lightning module": (Lightning, "net.backbone", 1e-6),
    "channels last in memory": (lambda: net().to(memory_format=torch.channels_last), "backbone", 1e-5),
    "a deep copy": (lambda: copy.deepcopy(net()), "backbone", 1e-6),
    "a traced graph": (lambda: torch.fx.symbolic_trace(net()), "backbone.3", 1e-6),
}


@pytest.mark.parametrize("name", SAME)
def test_an_odd_module_is_explained_as_its_origin(name: str) -> None:
    make, layer, tolerance = SAME[name]
    found, expected = maps(make(), layer), maps(net())
    for method in METHODS:
        assert float(expected[method].std()) > 0.05
        torch.testing.assert_close(found[method], expected[method], rtol=0, atol=tolerance)


def test_a_compiled_layer_is_read_inside_too() -> None:
    found = maps(compiled_part(), "backbone.0")
    torch.testing.assert_close(found["ega"], maps(net(), "backbone.0")["ega"], rtol=0, atol=1e-6)


def test_spectral_norm_is_left_as_it_is() -> None:
    """In train mode its vectors would move with every pass."""
    module = net()
    nn.utils.parametrizations.spectral_norm(module.head[0])
    module.train()
    before = copy.deepcopy(module.state_dict())
    first, second = maps(module), maps(module)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(torch.equal(first[method], second[method]) for method in METHODS)


def test_the_callers_autocast_changes_nothing() -> None:
    expected = maps(net())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = maps(net())
        assert torch.is_autocast_enabled("cpu")
    assert all(torch.equal(found[method], expected[method]) for method in METHODS)


@pytest.mark.parametrize("name", ["module.backbone", "_orig_mod.backbone", "module._orig_mod.backbone"])
def test_prefixes_of_wrappers_may_stand_before_a_layers_name(name: str) -> None:
    assert wrap(net(), layer=name).layer == "backbone"


def test_a_distributed_module_is_the_module_inside() -> None:
    inner = net()
    outer = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)  # needs no process group
    nn.Module.__init__(outer)
    outer.module = inner
    model = wrap(outer, layer="module.backbone")
    assert (model.module, model.layer, model.name) == (inner, "backbone", "Net")


def scripted(kind: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "traced":
            return torch.jit.trace(net(), IMAGE[None])
        module = torch.jit.script(nn.Sequential(net().backbone, net().head))
        return torch.jit.freeze(module.eval()) if kind == "frozen" else module


@pytest.mark.parametrize("kind", ["scripted", "traced", "frozen"])
def test_scripted_modules_serve_ria_and_their_layers_are_refused(kind: str) -> None:
    found, expected = maps(scripted(kind), None, ["ria@grid=2"]), maps(net(), None, ["ria@grid=2"])
    torch.testing.assert_close(found["ria@grid=2"], expected["ria@grid=2"], rtol=0, atol=1e-5)
    with pytest.raises(SegfaithError, match=r"scripted, traced or frozen module .* cannot be read"):
        maps(scripted(kind), None, ["ega"])


def quantized(kind: str) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "dynamic":
            module = zoo.Of(
                lambda self, x: self.head(self.linear(self.backbone(x).movedim(1, -1)).movedim(-1, 1)),
                backbone=net().backbone,
                linear=nn.Linear(8, 8),
                head=net().head,
            ).eval()
            return torch.ao.quantization.quantize_dynamic(zoo.randomised(module), {nn.Linear})
        module = nn.Sequential(torch.ao.quantization.QuantStub(), net(), torch.ao.quantization.DeQuantStub()).eval()
        module.qconfig = torch.ao.quantization.get_default_qconfig(torch.backends.quantized.engine)
        torch.ao.quantization.prepare(module, inplace=True)
        module(IMAGE[None])
        return torch.ao.quantization.convert(module)


def test_a_dynamically_quantized_module_is_read_before_and_after_its_quantized_layers() -> None:
    module = quantized("dynamic")
    assert set(maps(module, "head.0")) == set(METHODS)
    with pytest.raises(SegfaithError, match="the logits do not depend on layer 'backbone'; name another"):
        maps(module, "backbone", ["ega"])


def test_a_statically_quantized_module_serves_ria_and_its_layers_are_refused() -> None:
    found, expected = maps(quantized("static"), None, ["ria@grid=2"]), maps(net(), None, ["ria@grid=2"])
    torch.testing.assert_close(found["ria@grid=2"], expected["ria@grid=2"], rtol=0, atol=0.15)
    with pytest.raises(SegfaithError, match=r"'1.backbone' returns torch.quint8 of shape .*expected a feature map"):
        maps(quantized("static"), "1.backbone", ["ega"])
    with pytest.raises(SegfaithError, match="no layer of Sequential can be read for gradients"):
        maps(quantized("static"), None, ["ega"])


def test_an_operation_that_is_missing_for_a_number_type_is_told_with_the_remedy() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.net(x + 0 * torch.linalg.inv(torch.eye(3).to(x))[0, 0])

    module = zoo.Of(forward, net=net()).half()
    with pytest.raises(SegfaithError, match=r"cannot be run .*Half.*module\.float\(\)"):
        maps(module, "net.backbone")


FILE = """
import torch
from torch import nn


def net():
    layers = nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 3, 3, padding=1)
    return nn.Sequential(*layers).eval()


class Moved(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.linear = net(), nn.Linear(3, 3)

    def forward(self, x):
        return self.linear(self.net(x).movedim(1, -1)).movedim(-1, 1)


class Extra(nn.Sequential):
    def get_extra_state(self):
        return {"version": 1}


def frozen():
    return torch.jit.freeze(torch.jit.script(net()))


def dynamic():
    return torch.ao.quantization.quantize_dynamic(Moved().eval(), {nn.Linear})


def extra():
    return Extra(*net())


def sparse():
    module = net()
    module.register_buffer("table", torch.eye(3).to_sparse())
    return module


def lazy():
    return nn.Sequential(nn.LazyConv2d(3, 3))
"""


@pytest.mark.parametrize("name", ["net", "frozen", "dynamic", "extra", "sparse"])
def test_an_odd_module_of_a_file_is_loaded_and_has_a_digest_that_follows_its_weights(tmp_path: Path, name: str) -> None:
    (tmp_path / "odd.py").write_text(FILE)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = [load_model(f"{tmp_path}/odd.py:{name}", seed=seed) for seed in (0, 0, 1)]
        assert set(explain(models[0], IMAGE, BOX, ["ria@grid=2"])) == {"ria@grid=2"}
    first, again, other = (model.provenance["state_sha256"] for model in models)
    assert first == again != other


def test_a_lazy_module_of_a_file_is_refused_until_it_ran(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(FILE)
    with pytest.raises(SegfaithError, match=r"has no weights yet at '0\..*', a lazy layer; run it once on an image"):
        load_model(f"{tmp_path}/odd.py:lazy")


# Outputs


class Returning(nn.Module):
    def __init__(self, output: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.net, self.output = net(), output

    def forward(self, x: Tensor) -> Any:
        features = self.net.backbone(x)
        return self.output(self.net.head(features), features)


REFUSED: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "decisions": (lambda z, f: z.argmax(1), "int64 of shape .* return what comes before the argmax"),
    "decisions as floats": (lambda z, f: z.argmax(1, keepdim=True).float(), "whole numbers, like class indices"),
    "one-hot decisions": (
        lambda z, f: nn.functional.one_hot(z.argmax(1), 3).movedim(-1, 1).float(),
        "these are decisions|look like probabilities",
    ),
    "NaN": (lambda z, f: z * torch.nan, "NaN or infinite"),
    "rows and columns swapped": (lambda z, f: z.transpose(2, 3), "rows and columns are swapped"),
    "channels last": (lambda z, f: z.movedim(1, -1), r"\(N, 12, 16, 3\) for an image of .* the channels come last"),
    "deep supervision in a dict": (
        lambda z, f: {"out": [z, z / 2]},
        r"2 items of output 'out' of the model may be its logits: .* say which, as in output = 'out\.0'",
    ),
    "deep supervision": (lambda z, f: [z, z / 2], "2 items of the model's output may be its logits: 0 .Tensor"),
    "auxiliary first": (lambda z, f: (z / 2, z), r"1 \(Tensor \(1, 3, 12, 16\)\); segfaith does not guess"),
    "logits and features": (lambda z, f: (z, f), "say output = a key"),
    "a dict of two": (lambda z, f: {"main": z, "aux": z / 2}, r"it has 'main' \(Tensor .*'aux'.*say output ="),
}


@pytest.mark.parametrize("name", REFUSED)
def test_outputs_that_cannot_be_read_are_refused(name: str) -> None:
    output, words = REFUSED[name]
    with pytest.raises(SegfaithError, match=words):
        maps(Returning(output), "net.backbone")


def named(**attributes: Any) -> Any:
    return SimpleNamespace(**attributes)


CHOSEN: dict[str, tuple[Callable[[Tensor, Tensor], Any], Any]] = {
    "an index": (lambda z, f: [z / 2, z], 1),
    "the last": (lambda z, f: (z / 2, z), -1),
    "a key": (lambda z, f: {"main": z, "aux": z / 2}, "main"),
    "a key over out": (lambda z, f: {"main": z, "out": z / 2}, "main"),
    "a key and an index": (lambda z, f: {"decoder": [z / 2, z]}, "decoder.1"),
    "a key that holds a dot": (lambda z, f: {"seg.main": z, "seg": z / 2}, "seg.main"),
    "an attribute": (lambda z, f: named(seg=z, logits=z / 2), "seg"),
    "attributes": (lambda z, f: named(deep=named(seg=z), aux=z / 2), "deep.seg"),
    "a number as key": (lambda z, f: {0: z / 2, 1: z}, 1),
    "out inside": (lambda z, f: [f, {"out": z, "aux": z / 2}], 1),
    "the only map": (lambda z, f: (z, f.mean((2, 3)), 3), None),
    "the only map, last": (lambda z, f: (None, torch.zeros(2), [z]), None),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_logits_are_found_where_the_user_says(name: str) -> None:
    output, place = CHOSEN[name]
    model = wrap(Returning(output), layer="net.backbone", mean=(0, 0, 0), std=(1, 1, 1), output=place)
    found, expected = explain(model, IMAGE, BOX, METHODS), maps(net())
    for method in METHODS:
        torch.testing.assert_close(found[method], expected[method], rtol=0, atol=1e-5)
    path = evaluate(model, IMAGE, BOX, ["ria@grid=2"])["path"].iloc[0] if name == "an index" else "incremental"
    assert path == "incremental"  # the traced graph follows the same steps


@pytest.mark.parametrize(
    ("output", "place", "words"),
    [
        (
            lambda z, f: {"main": z},
            "mian",
            r"output = 'mian': the output of the model, a dict, has no 'mian'; it has 'm",
        ),
        (
            lambda z, f: {"main": [z]},
            "main.2",
            r"output 'main' of the model, a list, has no '2'; it has 0 \(Tensor \(1",
        ),
        (lambda z, f: z, "out", "the output of the model, a Tensor, has no 'out'; it has nothing to choose from"),
        (lambda z, f: named(a=z), "b", r"a SimpleNamespace, has no 'b'; it has 'a' \(Tensor \(1, 3, 12, 16\)\)"),
    ],
)
def test_a_place_where_nothing_is_lists_what_there_is(output: Any, place: str, words: str) -> None:
    with pytest.raises(SegfaithError, match=words):
        explain(wrap(Returning(output), output=place), IMAGE, BOX, ["ria@grid=2"])


@pytest.mark.parametrize("place", ["", "a..b", True])
def test_a_place_that_means_nothing_is_refused(place: Any) -> None:
    with pytest.raises(SegfaithError, match="expected a key, an attribute, an index, or several joined by dots"):
        wrap(net(), output=place)


def test_features_at_odd_resolutions_are_taken() -> None:
    """Layers of 11 x 15 and logits of 9 x 13 for 24 x 32."""
    module = nn.Sequential(nn.Conv2d(3, 6, 4, 2), nn.ReLU(), nn.Conv2d(6, 6, 3), nn.ReLU(), nn.Conv2d(6, 3, 1))
    assert set(maps(zoo.randomised(module), "1")) == set(METHODS)


def test_a_wide_image_keeps_its_rows_and_columns() -> None:
    image, region = torch.zeros(3, 176, 320), torch.zeros(176, 320, dtype=torch.bool)
    image[:, 20:60, 200:300], region[20:60, 200:300] = 1, True
    module = nn.Sequential(zoo.conv(3, 2, 5, stride=4), nn.ReLU(), zoo.conv(2, 2), nn.ReLU(), zoo.conv(2, 2, 1))
    for part in module.parameters():
        nn.init.constant_(part, 0.1)
    model = wrap(module, layer="1", mean=(0, 0, 0), std=(1, 1, 1))
    heat = explain(model, image, Target(1, region), ["ega"])["ega"]
    assert heat.shape == (176, 320)
    assert float(heat[20:60, 200:300].mean()) > 5 * float(heat.mean())


def test_thirty_explanations_keep_no_tensors() -> None:
    model = wrap(net(), mean=(0, 0, 0), std=(1, 1, 1))

    def tensors() -> int:
        gc.collect()
        return sum(isinstance(thing, Tensor) for thing in gc.get_objects())

    counts = []
    for call in range(31):
        explain(model, IMAGE, BOX, ["ega@layer=backbone.0+backbone.2", "gpa", "ria@grid=2"])
        layers_of(model, IMAGE)
        if call in (0, 30):
            counts.append(tensors())
    assert counts[1] <= counts[0]
