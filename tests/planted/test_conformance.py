"""The conformance kit: good methods pass every check, and each fault is found by its own check and in fitting words."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segfaith import Method, Target, load_model, wrap
from segfaith.classes import SCENE_CLASSES
from segfaith.data.scenes import open_scenes
from segfaith.models.segmentation import SegmentationModel
from segfaith.planted.closed_form import block_cases, corner_case, misplaced
from segfaith.planted.conformance import CONTRACT, Finding, check_method
from segfaith.randomness import generator


def truthful(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
    """The gradient's size at each pixel."""
    x = image[None].clone().requires_grad_()
    score = model.logits(x)[0, target.class_index][target.region].sum()
    return torch.autograd.grad(score, [x])[0][0].abs().sum(0)


def check(function: Callable[..., Any], **given: Any) -> list[Finding]:
    return check_method(Method("under_test", "ours", ("model",), function), **({"scenes": 0} | given))


def failed(findings: list[Finding]) -> list[str]:
    return [one.check for one in findings if not one.passed]


def words_of(findings: list[Finding], name: str) -> str:
    return next(one.words for one in findings if one.check == name)


Change = Callable[[SegmentationModel, Tensor, Target, Tensor], Any]


def after(change: Change) -> Callable[..., Any]:
    """A truthful method that then does something else, which may return another map."""

    def function(model: SegmentationModel, image: Tensor, target: Target) -> Any:
        heatmap = truthful(model, image, target)
        came = change(model, image, target, heatmap)
        return heatmap if came is None else came

    return function


def statement(action: Callable[..., Any]) -> Callable[..., Any]:
    """A truthful method that then does something, whose value is dropped."""

    def change(model: SegmentationModel, image: Tensor, target: Target, heatmap: Tensor) -> None:
        action(model, image, target)

    return after(change)


def raises(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
    raise ValueError("no luck")


def leaves(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
    raise SystemExit(3)


def breaks_on_wide_images(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
    return truthful(model, image, target) if image.shape[2] < 130 else torch.zeros(1)[5]


def complement(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
    return truthful(model, image, Target(target.class_index, ~target.region))


def every_region(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
    return truthful(model, image, Target(target.class_index, torch.ones_like(target.region)))


def every_class(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
    return truthful(model, image, Target(1, target.region)) + truthful(model, image, Target(2, target.region))


def plain_backward(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
    x = image[None].clone().requires_grad_()
    model.logits(x)[0, target.class_index][target.region].sum().backward()
    assert x.grad is not None
    return x.grad[0].abs().sum(0)


def noisy(_model: Any, _image: Any, _target: Any, heatmap: Tensor) -> Tensor:
    return heatmap + 0.01 * heatmap.max() * torch.from_numpy(np.random.default_rng().random(tuple(heatmap.shape)))


def upsampled_by_two(_model: Any, _image: Any, _target: Any, heatmap: Tensor) -> Tensor:
    small = nn.functional.interpolate(heatmap[None, None], size=tuple((n + 1) // 2 for n in heatmap.shape))
    return nn.functional.interpolate(small, scale_factor=2)[0, 0]


def with_nan(_model: Any, _image: Any, _target: Any, heatmap: Tensor) -> Tensor:
    return heatmap.index_fill(0, torch.tensor([3]), torch.nan)


def blank_at_the_border(_model: Any, _image: Any, target: Target, heatmap: Tensor) -> Tensor:
    return torch.full_like(heatmap, 0.5) if bool(target.region[0, 0]) else heatmap


def edit_weights(model: SegmentationModel, _image: Tensor, _target: Target) -> None:
    with torch.no_grad():
        model.module.features.convolution.weight.mul_(1.01)


def replace_module(model: SegmentationModel, _image: Tensor, _target: Target) -> None:
    model.module.features = nn.Sequential(model.module.features)


def swap_forward(model: SegmentationModel, _image: Tensor, _target: Target) -> None:
    model.module.forward = model.module.forward


def convolution(model: SegmentationModel) -> nn.Module:
    return model.module.features.convolution


BROKEN: dict[str, tuple[Callable[..., Any], str, str]] = {
    "raises": (raises, "call", r"in 9 of 9 cases, first for the red block \(96 x 96\): ValueError: no luck; mend"),
    "exits": (leaves, "call", r"SystemExit: 3; mend"),
    "raises on some": (breaks_on_wide_images, "call", r"in 3 of 10 cases, first for the red block \(97 x 131\): Index"),
    "text": (after(lambda m, i, t, h: "map"), "type", r"expected that the map is a torch tensor .*: a str came"),
    "list": (after(lambda m, i, t, h: h.tolist()), "type", r"a list came"),
    "complex": (
        after(lambda m, i, t, h: h + 1j),
        "type",
        r"complex values came \(torch\.complex64\).*return \.abs\(\)",
    ),
    "complex array": (after(lambda m, i, t, h: h.numpy() + 1j), "type", r"complex values came \(torch\.complex64\)"),
    "objects": (after(lambda m, i, t, h: h.numpy().astype(object)), "type", r"can't convert np\.ndarray of type"),
    "flipped array": (after(lambda m, i, t, h: h.numpy()[::-1]), "type", r"negative"),
    "batch": (
        after(lambda m, i, t, h: h[None]),
        "shape",
        r"\(1, 96, 96\) came for an image of \(96, 96\); return map\[0\]",
    ),
    "channels": (
        after(lambda m, i, t, h: h.expand(3, -1, -1)),
        "shape",
        r"\(3, 96, 96\) came .*map\.abs\(\)\.sum\(0\)",
    ),
    "small": (after(lambda m, i, t, h: h[::2, ::2]), "shape", r"\(48, 48\) came for an image of \(96, 96\);"),
    "number": (after(lambda m, i, t, h: h.sum()), "shape", r"\(\) came for an image of \(96, 96\);"),
    "upsampled": (
        after(upsampled_by_two),
        "shape",
        r"in 3 of 10 cases, .*\(98, 132\) came for an image of \(97, 131\)",
    ),
    "exchanged": (
        after(lambda m, i, t, h: h if h.shape[0] == h.shape[1] else h.T),
        "shape",
        r"in 4 of 10 cases, .*\(131, 97\) came for an image of \(97, 131\); height and width are exchanged",
    ),
    "nan": (after(with_nan), "finite", r"96 of 9216 values are NaN or infinite; look for a division by 0"),
    "overflow": (after(lambda m, i, t, h: h.double() * 1e300), "finite", r"values are NaN or infinite.*an overflow"),
    "constant": (
        after(blank_at_the_border),
        "constant",
        r"in 1 of 9 cases, first for the red block \(97 x 131\): a constant map came; look for detach",
    ),
    "random": (after(noisy), "deterministic", r"the second map differs by up to 0\.0[01]\d*; draw from a generator"),
    "torch seed": (
        statement(lambda m, i, t: torch.manual_seed(7)),
        "global_state",
        r"changed torch's random state; draw",
    ),
    "numpy draw": (statement(lambda m, i, t: np.random.rand()), "global_state", r"changed numpy's random state;"),  # noqa: NPY002
    "no grad": (
        statement(lambda m, i, t: torch.set_grad_enabled(False)),
        "global_state",
        r"changed torch's grad mode;",
    ),
    "threads": (
        statement(lambda m, i, t: torch.set_num_threads(torch.get_num_threads() + 1)),
        "global_state",
        r"changed torch's number of threads;",
    ),
    "dtype": (
        statement(lambda m, i, t: torch.set_default_dtype(torch.float64)),
        "global_state",
        r"in 10 of 10 cases, .*changed torch's default dtype;",
    ),
    "forward hook": (
        statement(lambda m, i, t: convolution(m).register_forward_hook(lambda *given: None)),
        "hooks",
        r"expected that no hook stays on the model; .*: left on features\.convolution; call remove\(\)",
    ),
    "pre-hook": (
        statement(lambda m, i, t: m.module.register_forward_pre_hook(lambda *given: None)),
        "hooks",
        r"left on the module itself;",
    ),
    "backward hook": (
        statement(lambda m, i, t: convolution(m).register_full_backward_hook(lambda *given: None)),
        "hooks",
        r"left on features\.convolution;",
    ),
    "gradients": (
        plain_backward,
        "gradients",
        r"left on features\.convolution\.weight, features\.convolution\.bias; use torch\.autograd\.grad",
    ),
    "train flag": (
        statement(lambda m, i, t: m.module.train()),
        "flags",
        r"changed the module itself \(training\), features \(training\), features\.convolution \(training\); put",
    ),
    "frozen": (
        statement(lambda m, i, t: m.module.requires_grad_(False)),
        "flags",
        r"changed features\.convolution\.bias \(requires_grad\), features\.convolution\.weight \(requires_grad\);",
    ),
    "setting": (statement(lambda m, i, t: setattr(m, "layer", None)), "flags", r"changed layer; put them back"),
    "forward": (statement(swap_forward), "flags", r"changed the module itself \(forward\)"),
    "weights": (statement(edit_weights), "weights", r"changed features\.convolution\.weight; work on copy\.deepcopy"),
    "module": (statement(replace_module), "weights", r"changed features, features\.0, .* more; work on copy"),
    "image": (statement(lambda m, i, t: i.mul_(0.5)), "inputs", r"changed the image; work on image\.clone\(\)"),
    "region": (statement(lambda m, i, t: t.region.logical_not_()), "inputs", r"changed the region; work on"),
    "image leaf": (statement(lambda m, i, t: i.requires_grad_()), "inputs", r"changed requires_grad of the image;"),
    "any region": (every_region, "target", r"the red block .* and the blue block .*: two regions have the same map;"),
    "any class": (every_class, "target", r"as class 1 .* as class 2 .*: two classes have the same map; explain target"),
    "inverted": (
        after(lambda m, i, t, h: -h),
        "polarity",
        r"in 8 of 8 cases, .* as if the map were inverted; larger must mean more important",
    ),
    "complement": (
        complement,
        "polarity",
        r"in 8 of 8 cases, .* as if the complement, ~target\.region, were explained; larger must mean",
    ),
    "cut": (
        after(lambda m, i, t, h: h * t.region + 1e-6 * t.region),
        "outside",
        r"in 1 of 1 cases, .*: 0\.00 on average on what decides, .* were cut to the target; leave the map as it is",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_each_fault_fails_its_own_check_in_fitting_words(fault: str) -> None:
    function, name, words = BROKEN[fault]
    findings = check(function)
    assert failed(findings) == [name]
    assert re.search(words, words_of(findings, name)), words_of(findings, name)


def test_every_check_has_a_fault_that_fails_it_alone() -> None:
    assert {name for _, name, _ in BROKEN.values()} == set(CONTRACT)


@pytest.mark.parametrize(
    "form",
    [
        lambda heatmap: heatmap,
        lambda heatmap: heatmap.double().numpy(),
        lambda heatmap: heatmap.clone().requires_grad_(),
        lambda heatmap: (1000 * heatmap / heatmap.max()).int() - 50,
        lambda heatmap: heatmap.half().T.contiguous().T,
    ],
)
def test_a_truthful_map_passes_in_every_form_that_a_run_takes(form: Callable[[Tensor], Any]) -> None:
    findings = check(after(lambda m, i, t, h: form(h)))
    assert [one.check for one in findings] == ["import", *CONTRACT]
    assert failed(findings) == []
    assert words_of(findings, "call").endswith("true in 10 of 10 cases")


def test_a_map_of_nothing_is_constant_everywhere_and_judged_no_further() -> None:
    findings = check(lambda model, image, target: torch.zeros(image.shape[1:]))
    assert failed(findings) == ["constant"]
    assert "not so in 9 of 9 cases" in words_of(findings, "constant")
    assert not {"target", "polarity", "outside"} & {one.check for one in findings}


def test_a_method_that_always_raises_has_no_map_to_judge() -> None:
    made = [one.check for one in check(raises)]
    assert made == ["import", "call"]


def test_global_state_is_put_back() -> None:
    before = (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_rng_state())
    for fault in ("threads", "dtype", "no grad", "torch seed"):
        check(BROKEN[fault][0])
    assert before[:3] == (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled())
    assert torch.equal(before[3], torch.get_rng_state())


def test_a_callers_mode_does_not_matter() -> None:
    with torch.inference_mode():
        assert failed(check(truthful)) == []


@pytest.mark.parametrize("name", ["gpa", "ega", "ega@pool=max,window=2", "ria@grid=7", "dea@occlusion=zero,grid=7"])
def test_built_in_methods_pass_on_the_closed_forms(name: str) -> None:
    findings = check_method(name, scenes=0)
    assert [one.check for one in findings] == ["import", *CONTRACT]
    assert failed(findings) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [("mask", ["target", "outside"]), ("random", ["target", "polarity"]), ("random_cells", ["target", "polarity"])],
)
def test_the_controls_fail_where_they_must(name: str, expected: list[str]) -> None:
    assert failed(check_method(name, scenes=0)) == expected


def own_file(folder: Path, text: str) -> str:
    (folder / "own.py").write_text(text, encoding="utf-8")
    return f"{folder / 'own.py'}:explain"


def test_what_a_method_that_never_returns_was_not_tried_for_is_not_passed(tmp_path: Path) -> None:
    text = "import torch\n\n\ndef explain(model, image, target):\n    raise SystemExit(3)\n"
    findings = check_method(own_file(tmp_path, text), scenes=0)
    assert [(one.check, one.passed) for one in findings] == [("import", True), ("call", False)]


def test_a_method_from_a_file(tmp_path: Path) -> None:
    text = "import torch\n\n\ndef explain(model, image, target):\n    return image.mean(0)\n"
    findings = check_method(own_file(tmp_path, text), scenes=0)
    assert words_of(findings, "import") == "own.py:explain was imported"
    assert failed(findings) == ["target"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import nosuchmodule\n", r"ModuleNotFoundError: No module named 'nosuchmodule'; mend"),
        (
            "raise SystemExit('not me')\n",
            r"expected a method that can be imported; .*it calls sys\.exit\('not me'\); mend its name",
        ),
        ("def other():\n    pass\n", r"has no function 'explain'; it has other; mend"),
    ],
)
def test_a_method_that_cannot_be_imported(tmp_path: Path, text: str, words: str) -> None:
    (finding,) = check_method(own_file(tmp_path, text))
    assert (finding.check, finding.passed) == ("import", False)
    assert re.search(words, finding.words), finding.words


def test_names_that_are_no_function(tmp_path: Path) -> None:
    (unknown,) = check_method("egaa")
    assert re.search(r"can be imported; unknown method 'egaa'; did you mean 'ega'", unknown.words)
    (files,) = check_method(f"maps:{tmp_path}")
    assert (files.check, files.passed) == ("import", False)
    assert "reads maps from files; name the function that made them" in files.words


# What the closed forms promise


def score(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
    with torch.no_grad():
        return model.logits(image[None])[0, target.class_index][target.region].double().sum()


@pytest.mark.parametrize("number", range(8))
def test_only_the_evidence_of_a_block_decides(number: int) -> None:
    case = block_cases()[number]
    clean = score(case.model, case.image, case.target)
    without, alone = case.image.clone(), case.image.clone()
    without[:, case.evidence] = 0
    alone[:, ~case.target.region] = 0.05
    assert float(score(case.model, without, case.target)) < 0.05 * float(clean)
    assert float(score(case.model, alone, case.target)) == pytest.approx(float(clean), rel=1e-6)
    if "and" not in case.words:  # a pixel outside a block's target does not see the block
        beyond = Target(case.target.class_index, ~case.target.region)
        assert float(score(case.model, without, beyond)) == float(score(case.model, case.image, beyond)) > 0
    prediction = case.model.logits(case.image[None])[0].argmax(0)
    assert float((prediction == case.target.class_index)[case.evidence].double().mean()) > 0.7


def test_only_the_corner_decides() -> None:
    case = corner_case()
    without, alone = case.image.clone(), torch.full_like(case.image, 0.05)
    without[:, case.evidence] = 0
    alone[:, case.evidence] = case.image[:, case.evidence]
    clean = float(score(case.model, case.image, case.target))
    assert float(score(case.model, alone, case.target)) == pytest.approx(clean, rel=1e-6)
    assert float(score(case.model, without, case.target)) == 0
    assert not bool((case.evidence & case.target.region).any())


def test_closed_forms_hold_odd_sizes_and_targets_at_the_border() -> None:
    cases = [*block_cases(), corner_case()]
    assert {tuple(case.image.shape[1:]) for case in cases} == {(96, 96), (97, 131), (72, 120)}
    assert any(bool(case.target.region[0, 0]) for case in cases)
    assert any(bool(case.target.region[-1].any()) for case in cases)
    assert any(bool(case.target.region[:, -1].any()) for case in cases)


def test_where_a_map_lies_in_words() -> None:
    case = block_cases()[0]
    decides, others = case.evidence.float(), case.others.float()
    assert misplaced(case, decides) == misplaced(case, decides + 0.4 * others) == ""
    assert misplaced(case, torch.ones_like(decides)).endswith("as if the map had nothing to do with it")
    assert misplaced(case, others).startswith("0.00 on average on what decides, 1.00 on other objects, 0.00 elsewhere")
    assert misplaced(case, 1 - decides).endswith("as if the map were inverted")


# On the planted scenes


@pytest.fixture(scope="module")
def scene_model() -> SegmentationModel:
    return load_model("scenes")


def numbers(words: str) -> dict[str, float]:
    """The mean over all scenes of each method in the finding on evidence."""
    told = re.search(r"predicts right: (.*?); by kind", words)
    assert told, words
    return {name: float(value) for name, value in (pair.rsplit(" ", 1) for pair in told.group(1).split(", "))}


@pytest.mark.parametrize(("name", "scenes"), [("ega", 6), ("gpa", 4), ("ria@grid=7", 2)])
def test_good_built_in_methods_pass(scene_model: SegmentationModel, name: str, scenes: int) -> None:
    steps: list[str] = []
    findings = check_method(name, model=scene_model, scenes=scenes, on_step=steps.append)
    assert [one.check for one in findings] == ["import", *CONTRACT, "evidence"]
    assert failed(findings) == []
    assert "2 of 2 cases" in words_of(findings, "deterministic")
    found = numbers(words_of(findings, "evidence"))
    assert list(found) == [name, "random", "random_cells"]
    assert found[name] > max(found["random"], found["random_cells"])
    assert f"on {scenes} scenes that the model predicts right" in words_of(findings, "evidence")
    assert sum(step.startswith("scene val-") for step in steps) == scenes + 1


def test_the_evidence_score_of_the_evidence_itself_is_1_and_of_all_else_near_0(scene_model: SegmentationModel) -> None:
    """A method that knows the scenes, and its opposite, which fails this check alone."""
    dataset = open_scenes(None, "val", None, False)
    known = {}
    for index in generator(0, "", "conformance").permutation(len(dataset.ids))[:12]:
        sample = dataset.load(dataset.ids[index], 224)
        known[sample.image.numpy().tobytes()] = sample.planted

    def oracle(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
        planted = known.get(image.numpy().tobytes())
        if planted is None:
            return truthful(model, image, target)
        return planted[target.class_index].alternatives[0].float()

    def opposite(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
        heatmap = oracle(model, image, target)
        ramp = torch.linspace(0, 1, heatmap.numel()).reshape(heatmap.shape)
        return heatmap if image.shape[1] < 224 else ramp - 2 * heatmap

    right, wrong = (check(function, model=scene_model, scenes=3) for function in (oracle, opposite))
    assert failed(right) == []
    assert numbers(words_of(right, "evidence"))["under_test"] == 1
    assert failed(wrong) == ["evidence"]
    scores = numbers(words_of(wrong, "evidence"))
    assert scores["under_test"] < scores["random"]
    assert words_of(wrong, "evidence").endswith("; see the maps: they miss what decides")


def test_only_proven_kinds_are_asked_about(scene_model: SegmentationModel) -> None:
    model = load_model("scenes")
    model.provenance["proven_kinds"] = "marker, plain"
    words = words_of(check(truthful, model=model, scenes=4), "evidence")
    kinds = re.findall(r"(\w+) \((\d+)\): under_test", words)
    assert {kind for kind, _ in kinds} <= {"marker", "plain"}
    assert sum(int(count) for _, count in kinds) == 4


def test_constant_maps_on_scenes_are_counted(scene_model: SegmentationModel) -> None:
    def blank(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
        return truthful(model, image, target) if image.shape[1] < 224 else torch.zeros(image.shape[1:])

    findings = check(blank, model=scene_model, scenes=3)
    assert "first for 3 scenes: 3 constant maps" in words_of(findings, "constant")
    assert set(failed(findings)) <= {"constant", "evidence"}


def test_a_method_that_only_raises_on_scenes(scene_model: SegmentationModel) -> None:
    def shy(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
        return truthful(model, image, target) if image.shape[1] < 224 else raises(model, image, target)

    findings = check(shy, model=scene_model, scenes=2)
    assert failed(findings) == ["call"]
    assert re.search(r"in 2 of 12 cases, first for scene val-\d+ \(\w+\): ValueError", words_of(findings, "call"))
    assert "evidence" not in {one.check for one in findings}


def test_the_callers_model_comes_back_as_it_was(scene_model: SegmentationModel) -> None:
    def vandal(model: SegmentationModel, image: Tensor, target: Target) -> Tensor:
        heatmap = plain_backward(model, image, target)
        model.module.train().register_forward_hook(lambda *given: None)
        with torch.no_grad():
            next(model.module.parameters()).zero_()
        return heatmap

    before = {name: tensor.clone() for name, tensor in scene_model.module.state_dict().items()}
    findings = check(vandal, model=scene_model, scenes=1)
    assert failed(findings)[:4] == ["hooks", "gradients", "flags", "weights"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in scene_model.module.state_dict().items())
    assert not any(module.training or module._forward_hooks for module in scene_model.module.modules())
    assert all(parameter.grad is None for parameter in scene_model.module.parameters())


def test_a_model_that_knows_no_scene_proves_nothing() -> None:
    module = nn.Conv2d(3, len(SCENE_CLASSES), 1)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    findings = check(truthful, model=wrap(module, name="blind"), scenes=2, size=64)
    assert failed(findings) == ["evidence"]
    assert re.search(r"blind \(as given\) predicts right; of 8 there is none; give", words_of(findings, "evidence"))
