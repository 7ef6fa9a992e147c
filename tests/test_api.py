"""The Python interface as the README uses it: explain, evaluate, load_image, wrap, overlay, and their errors."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import segfaith
from segfaith import Method, SampleError, SegmentationModel, SettingsError, Target
from segfaith.attribution.cam import gpa
from segfaith.results.records.schema import RECORD_COLUMNS
from toys import PixelScorer, SmallCNN, plain

SIZE = (28, 36)
CLASSES = ["background", "cat", "dog"]
FOUR = ["gpa", "ega", "ria", "dea"]


def photograph(seed: int = 0) -> Tensor:
    """A random image (3, 28, 36) with a brighter box."""
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(seed)) * 0.5
    image[:, 6:16, 10:24] += 0.4
    return image


def box(class_index: int = 1) -> Target:
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[6:16, 10:24] = True
    return Target(class_index, region)


@pytest.fixture
def model() -> SegmentationModel:
    return plain(SmallCNN(), layer="backbone.4", classes=CLASSES)


class Striped(nn.Module):
    """Predicts the same labels for every image: 0, but 1 in columns 3 to 9, 2 in columns 10 to 14."""

    def __init__(self) -> None:
        super().__init__()
        labels = torch.zeros(SIZE, dtype=torch.long)
        labels[:, 3:10], labels[:, 10:15] = 1, 2
        self.register_buffer("logits", nn.functional.one_hot(labels, 3).permute(2, 0, 1).float() * 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits.expand(len(x), -1, -1, -1) + x.mean((1, 2, 3), keepdim=True)


def test_from_a_photograph_to_an_overlay_and_a_tdd(model: SegmentationModel, tmp_path: Path) -> None:
    """The README's lines: load_image, predicted_target, explain, evaluate of those maps, overlay."""
    values = (photograph().permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(values).save(tmp_path / "photo.png")
    image = segfaith.load_image(tmp_path / "photo.png", size=32)
    assert image.shape == (3, 32, 32)
    target = segfaith.predicted_target(model, image)
    maps = segfaith.explain(model, image, target, methods=FOUR)
    scores = segfaith.evaluate(model, image, target, maps)
    assert list(scores.index) == [*FOUR, "random_cells"]
    assert scores[["s", "tdd", "tdd_gain", "odd_abs", "insertion_gain"]].notna().all(axis=None)
    assert (scores["leak_abs"].notna() <= (scores["tdd"] > 0.05)).all()
    segfaith.overlay(image, maps["dea"], target).save(tmp_path / "dea.png")
    assert Image.open(tmp_path / "dea.png").size == (32, 32)


def test_an_image_that_asks_for_gradients_is_explained_as_any_other(model: SegmentationModel) -> None:
    names = ["ega", "gradcam:GradCAM"]
    maps = segfaith.explain(model, photograph().requires_grad_(), box(), names)
    expected = segfaith.explain(model, photograph(), box(), names)
    assert all(torch.equal(maps[name], expected[name]) for name in names)
    assert not any(one.requires_grad for one in maps.values())


def test_ready_maps_score_as_the_methods_that_made_them(model: SegmentationModel) -> None:
    """Evaluating the maps and evaluating the names give the same figures, but for stability and runtime.

    With `gamed` a batch holds other images, which may move a score by its last bits.
    """
    maps = segfaith.explain(model, photograph(), box(), FOUR)
    ready = segfaith.evaluate(model, photograph(), box(), maps)
    named = segfaith.evaluate(model, photograph(), box(), FOUR).drop("gamed")  # which reads RIA's evidence
    for column in ("s", "s_target_deleted", "s_off_deleted", "s_inserted", "tdd", "tdd_gain", "odd", "leak_abs"):
        np.testing.assert_allclose(ready[column], named[column], rtol=0, atol=1e-6, err_msg=column)
    assert ready.loc[FOUR, ["stability", "runtime_s"]].isna().all(axis=None)
    assert ready.loc[FOUR, "reason"].str.contains("the maps were given").all()
    assert named["runtime_s"].notna().all()


def test_maps_are_float32_in_0_1_of_the_images_size(model: SegmentationModel) -> None:
    names = [*FOUR, "random", "random_cells", "mask", "dea@alpha=0.8"]
    maps = segfaith.explain(model, photograph(), box(), names)
    assert list(maps) == names
    for name, heatmap in maps.items():
        assert (heatmap.dtype, heatmap.shape) == (torch.float32, SIZE), name
        assert not heatmap.requires_grad
        assert 0 <= float(heatmap.min()) <= float(heatmap.max()) <= 1, name
    for name in FOUR:
        assert (float(maps[name].min()), float(maps[name].max())) == (0, 1), name
    assert torch.equal(maps["mask"], box().region.float())


def test_dea_is_the_fusion_of_the_ega_and_ria_maps(model: SegmentationModel) -> None:
    maps = segfaith.explain(model, photograph(), box(), ["ega", "ria", "dea@alpha=0.8,beta=0.2"])
    ega, ria = maps["ega"].double(), maps["ria"].double()
    fused = 0.8 * ega * (1 + 0.2 * ria) + 0.2 * ria
    expected = (fused - fused.min()) / (fused.max() - fused.min())
    torch.testing.assert_close(maps["dea@alpha=0.8,beta=0.2"].double(), expected, rtol=0, atol=1e-6)


# Targets


def test_no_target_means_the_class_that_the_model_predicts_most() -> None:
    model = plain(Striped(), classes=CLASSES)
    columns = torch.arange(SIZE[1]).expand(SIZE)
    for target, first, last in ((None, 3, 10), ("cat", 3, 10), (1, 3, 10), ("dog", 10, 15), (2, 10, 15)):
        maps = segfaith.explain(model, photograph(), target, ["mask"])
        assert torch.equal(maps["mask"], ((columns >= first) & (columns < last)).float()), target
        row = segfaith.evaluate(model, photograph(), target, ["mask"]).loc["mask"]
        assert row["class_index"] == (1 if last == 10 else 2)
        assert row["target_iou"] == 1
        assert row["target_area"] == pytest.approx((last - first) / SIZE[1])
        found = segfaith.predicted_target(model, photograph(), target)
        assert torch.equal(found.region.float(), maps["mask"])


def test_no_class_is_the_background_where_classes_overlap() -> None:
    module = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        module.weight.zero_()
        module.bias.copy_(torch.tensor([1.0, -1.0]))
    found = segfaith.predicted_target(segfaith.wrap(module, head="sigmoid"), photograph())
    assert found.class_index == 0
    assert bool(found.region.all())


def test_a_target_of_ones_own_is_taken_as_it_is(model: SegmentationModel) -> None:
    row = segfaith.evaluate(model, photograph(), box(2), ["mask"]).loc["mask"]
    assert row["class_index"] == 2
    assert row["target_area"] == pytest.approx(10 * 14 / (28 * 36))
    probability = nn.functional.interpolate(
        model.module.eval()(photograph()[None])["out"].detach(), size=SIZE, mode="bilinear", align_corners=False
    )[0].softmax(0)[2]
    assert row["s"] == pytest.approx(float(probability[6:16, 10:24].double().sum()) / (140 + 1e-6), abs=1e-6)


def test_targets_that_name_nothing_are_errors(model: SegmentationModel) -> None:
    striped = plain(Striped(), classes=CLASSES)
    image = photograph()
    with pytest.raises(SettingsError, match=r"a mask alone names no class; give segfaith\.Target\(class_index, mask\)"):
        segfaith.explain(model, image, box().region, ["mask"])
    with pytest.raises(SettingsError, match=r"unknown class 'cow'; the classes are background, cat, dog"):
        segfaith.explain(model, image, "cow", ["mask"])
    with pytest.raises(SettingsError, match=r"class 'cat' is given by name, but the model has no class names"):
        segfaith.explain(plain(SmallCNN()), image, "cat", ["mask"])
    with pytest.raises(SettingsError, match=r"class 7 is out of range; expected 0 to 2"):
        segfaith.explain(striped, image, 7, ["mask"])
    with pytest.raises(SampleError, match=r"class 1 does not occur in the prediction"):
        segfaith.explain(plain(PixelScorer(threshold=2.0)), image, 1, ["mask"])
    with pytest.raises(SampleError, match=r"class index 7 is not one of the model's 3 classes"):
        segfaith.explain(model, image, box(7), ["gpa"])
    with pytest.raises(SampleError, match=r"no foreground in the prediction"):
        segfaith.explain(plain(PixelScorer(threshold=2.0)), image, None, ["mask"])


def test_target_regions_that_do_not_fit_are_errors(model: SegmentationModel) -> None:
    small = Target(1, torch.ones(8, 8, dtype=torch.bool))
    expected = r"the target region is torch\.bool \(8, 8\); expected a boolean mask \(28, 36\), the image's \(H, W\)"
    with pytest.raises(SampleError, match=expected):
        segfaith.explain(model, photograph(), small, ["mask"])
    with pytest.raises(ValueError, match=r"the target region has no pixel; expected a mask with at least one True"):
        Target(1, torch.zeros(SIZE, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"class_index must be 0 or more, got -1"):
        Target(-1, box().region)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (photograph() * 255, r"expected an image in \[0, 1\], got values .* to 2\d\d.*divided by 255"),
        (photograph() - 0.6, r"expected an image in \[0, 1\], got values -0\.\d+ to .*before normalisation"),
        (photograph() * torch.nan, r"expected an image in \[0, 1\], got values nan to nan"),
        (
            photograph()[None],
            r"expected a float image \(3, H, W\), got torch\.float32 \(1, 3, 28, 36\); see load_image",
        ),
        (photograph().permute(1, 2, 0), r"expected a float image \(3, H, W\), got torch\.float32 \(28, 36, 3\)"),
        ((photograph() * 255).byte(), r"expected a float image \(3, H, W\), got torch\.uint8 \(3, 28, 36\)"),
    ],
)
@pytest.mark.parametrize("verb", [segfaith.explain, segfaith.evaluate])
def test_images_of_the_wrong_shape_or_range_are_errors(
    model: SegmentationModel, image: Tensor, message: str, verb: Any
) -> None:
    with pytest.raises(SampleError, match=message):
        verb(model, image, box(), ["mask"])


def test_a_float64_image_is_taken_as_float32(model: SegmentationModel) -> None:
    first = segfaith.explain(model, photograph(), box(), FOUR)
    second = segfaith.explain(model, photograph().double(), box(), FOUR)
    assert all(torch.equal(first[name], second[name]) for name in FOUR)


# What a method may be


def doubled(gradient: Any) -> Tensor:
    """GPA's own ranking by another function."""
    return gpa(gradient) ** 2


def test_a_pure_method_of_ones_own_reads_the_shared_evidence(model: SegmentationModel) -> None:
    method = Method("doubled", "nobody", ("gradient",), doubled)
    segfaith.explain(model, photograph(), box(), ["gpa"])  # the first use puts the model and the layer to the test
    images = [0]
    model.module.register_forward_pre_hook(lambda module, inputs: images.append(len(inputs[0])))
    scores = segfaith.evaluate(model, photograph(), box(), ["gpa", method])
    assert sum(images) == 1 + (3 + 13) * (2 + 3) + 2 + 96, (
        "no pass beyond those of the two methods' and the control's maps"
    )
    assert list(scores.index) == ["gpa", "doubled", "random_cells"]
    assert scores.loc["doubled", "s_target_deleted"] == pytest.approx(scores.loc["gpa", "s_target_deleted"], abs=1e-6)
    assert scores.loc["doubled", "status"] == "ok"


def test_a_method_of_ones_own_in_a_file(model: SegmentationModel, tmp_path: Path) -> None:
    """A function of (model, image, target); its map is min-max normalised."""
    (tmp_path / "own.py").write_text("def brightness(model, image, target):\n    return image.sum(0).numpy() * 7\n")
    name = f"{tmp_path / 'own.py'}:brightness"
    (heatmap,) = segfaith.explain(model, photograph(), box(), [name]).values()
    total = photograph().double().sum(0)
    torch.testing.assert_close(heatmap.double(), (total - total.min()) / (total.max() - total.min()), rtol=0, atol=1e-6)
    scores = segfaith.evaluate(model, photograph(), box(), [name], stability=True)
    assert list(scores.index) == ["own.py:brightness", "random_cells"]
    assert scores.loc["own.py:brightness", "stability_flip"] == pytest.approx(1), "a flipped image's sum, flipped back"
    assert scores.loc["own.py:brightness", "stability_brightness"] == pytest.approx(1, abs=1e-3)


def test_a_failing_method_has_a_row_that_says_why(model: SegmentationModel) -> None:
    def broken(gradient: Any) -> Tensor:
        raise RuntimeError("out of ideas")

    method = Method("broken", "nobody", ("gradient",), broken)
    scores = segfaith.evaluate(model, photograph(), box(), [method, "gpa"])
    assert list(scores["status"]) == ["failed", "ok", "ok"]
    assert scores.loc["broken", "reason"] == "RuntimeError: out of ideas"
    assert np.isnan(scores.loc["broken", "tdd"])


@pytest.mark.parametrize(("factor", "shift", "came"), [(2, 0, "0 to 2"), (1, -1, "-1 to 0"), (1e14, 0, "0 to 1e\\+14")])
def test_a_pure_method_of_ones_own_gives_maps_in_0_1(
    factor: float, shift: float, came: str, model: SegmentationModel
) -> None:
    """Ranks are of steps of 1e-6, and shares are of sums of what is at least 0."""
    method = Method("wide", "nobody", ("gradient",), lambda gradient: gpa(gradient) * factor + shift)
    scores = segfaith.evaluate(model, photograph(), box(), [method], thorough=False)
    assert scores.loc["wide", "status"] == "failed"
    assert re.search(rf"'wide' returned values from {came}; expected maps in \[0, 1\]", scores.loc["wide", "reason"])


def test_a_ready_map_of_complex_numbers_is_refused(model: SegmentationModel) -> None:
    for values in (torch.fft.fft2(photograph()[0]), np.fft.fft2(photograph()[0].numpy())):
        with pytest.raises(SettingsError, match=r"map 'spectrum' holds torch.complex\d+; expected real numbers"):
            segfaith.evaluate(model, photograph(), box(), {"spectrum": values})


def test_ready_maps_may_be_tensors_or_arrays_and_fail_alone(model: SegmentationModel) -> None:
    values = photograph(3).mean(0)
    scores = segfaith.evaluate(
        model,
        photograph(),
        box(),
        {
            "tensor": values,
            "array": values.numpy().astype(np.float64),
            "list": values.tolist(),
            "backwards": values.numpy()[::-1, ::-1].copy()[::-1, ::-1],
            "small": values[:5],
            "nan": values * torch.nan,
        },
    )
    assert list(scores["status"]) == ["ok", "ok", "ok", "ok", "failed", "failed", "ok"]
    assert scores["tdd"][:4].nunique() == 1
    for name, came in (("small", r"\(5, 36\)"), ("nan", r"\(28, 36\)")):
        assert re.search(
            rf"map '{name}' .*{came}.*expected finite values of shape \(28, 36\)", scores.loc[name, "reason"]
        )


@pytest.mark.parametrize("scale", [1e-9, 1e6, 1e15])
def test_only_the_ranking_of_a_ready_map_matters(model: SegmentationModel, scale: float) -> None:
    """A raw gradient of size 1e-9 is no constant map: values are rounded to 1e-6 after min-max, not before."""
    values = photograph(3).mean(0).double()
    values = (values - values.min()) / (values.max() - values.min())
    expected = segfaith.evaluate(model, photograph(), box(), {"map": values}).loc["map"]
    scaled = segfaith.evaluate(model, photograph(), box(), {"map": (values * scale).numpy()}).loc["map"]
    assert scaled["tied_share_target"] == expected["tied_share_target"] == 0
    assert scaled["s_target_deleted"] == pytest.approx(expected["s_target_deleted"], abs=1e-6)
    assert scaled["tdd"] == pytest.approx(expected["tdd"], abs=1e-5)
    assert scaled["odd"] == pytest.approx(expected["odd"], abs=1e-5)


def test_maps_of_a_folder_are_found_by_the_name_image(model: SegmentationModel, tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", photograph(3).mean(0).numpy())
    (heatmap,) = segfaith.explain(model, photograph(), box(), [f"maps:{tmp_path}"]).values()
    assert (float(heatmap.min()), float(heatmap.max())) == (0, 1)


def test_gradient_methods_get_a_layer_where_none_is_named() -> None:
    module = SmallCNN()
    model = plain(module)
    maps = segfaith.explain(model, photograph(), box(), ["ria@grid=4", "random", "mask"])
    assert float(maps["ria@grid=4"].max()) == 1
    assert segfaith.evaluate(model, photograph(), box(), ["ria@grid=4"], stability=True)["status"].eq("ok").all()
    assert model.layer is None
    for name in ("gpa", "ega", "dea"):
        chosen = segfaith.explain(model, photograph(), box(), [name])[name]
        named = plain(module, layer=model.layer)
        assert torch.equal(chosen, segfaith.explain(named, photograph(), box(), [name])[name])
    assert model.layer in dict(module.named_modules())
    assert "chosen by segfaith" in model.layer_notes[str(model.layer)]


def test_a_layer_that_does_not_exist_lists_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"SmallCNN has no layer 'backbone\.9'; the nearest are .*backbone\."):
        plain(SmallCNN(), layer="backbone.9")
    with pytest.raises(SettingsError, match=r"SmallCNN has no layer 'backbon\.4'"):
        segfaith.explain(plain(SmallCNN()), photograph(), box(), ["gpa@layer=backbon.4"])


def test_a_layer_named_with_the_method_is_used(model: SegmentationModel) -> None:
    default, other = segfaith.explain(model, photograph(), box(), ["gpa", "gpa@layer=backbone.0"]).values()
    assert not torch.equal(default, other)
    without = segfaith.explain(plain(SmallCNN()), photograph(), box(), ["gpa@layer=backbone.4"])
    assert torch.equal(default, without["gpa@layer=backbone.4"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ["gap"]}, r"unknown method 'gap'; did you mean 'gpa'"),
        ({"methods": ["dea@alfa=1"]}, r"parameter alfa"),
        ({"methods": ["gpa", "gpa"]}, r"method 'gpa' is named twice"),
        ({"k": 0.0}, r"k must be above 0 and at most 1, got 0"),
        ({"k": 1.5}, r"k must be above 0 and at most 1, got 1\.5"),
        ({"occlusion": "meen"}, r"unknown occlusion operator 'meen'; did you mean 'mean'"),
    ],
)
def test_bad_options_are_settings_errors(model: SegmentationModel, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        segfaith.evaluate(model, photograph(), box(), **({"methods": ["mask"]} | options))


# What evaluate returns


def test_evaluate_returns_the_columns_of_the_records_by_method(model: SegmentationModel) -> None:
    scores = segfaith.evaluate(model, photograph(), box(), ["gpa", "mask"])
    assert scores.index.name == "method"
    assert list(scores.index) == ["gpa", "mask", "random_cells"]
    assert list(scores.columns) == [name for name in RECORD_COLUMNS if name != "method"]
    assert set(scores["sample_id"]) == {"image"}
    assert set(scores["status"]) == {"ok"}
    assert scores["stability"].isna().all()
    assert scores["reason"].str.startswith("stability: not measured on this sample").all()
    gains = scores["tdd"] - scores.loc["random_cells", "tdd"]
    pd.testing.assert_series_equal(scores["tdd_gain"], gains, check_names=False)


def test_evaluate_with_stability_fills_its_six_columns(model: SegmentationModel) -> None:
    scores = segfaith.evaluate(model, photograph(), box(), ["gpa", "mask"], stability=True)
    five = [f"stability_{name}" for name in ("noise", "brightness", "contrast", "blur", "flip")]
    assert scores[five].notna().all(axis=None)
    np.testing.assert_allclose(scores["stability"], scores[five].mean(axis=1), atol=1e-12)
    np.testing.assert_allclose(scores.loc["mask", five].astype(float), 1.0), "M flips with the image"


def test_k_and_occlusion_change_the_intervened_images(model: SegmentationModel) -> None:
    base = segfaith.evaluate(model, photograph(), box(), ["gpa"]).loc["gpa"]
    more = segfaith.evaluate(model, photograph(), box(), ["gpa"], k=0.6).loc["gpa"]
    black = segfaith.evaluate(model, photograph(), box(), ["gpa"], occlusion="zero").loc["gpa"]
    assert more["s"] == black["s"] == base["s"]
    assert more["s_target_deleted"] != base["s_target_deleted"]
    assert more["s_baseline"] == pytest.approx(base["s_baseline"], abs=1e-6)
    assert black["s_baseline"] != pytest.approx(base["s_baseline"], abs=1e-4)
    everything = torch.zeros(1, 3, *SIZE)
    logits = model.module.eval()(everything)["out"].detach()
    probability = nn.functional.interpolate(logits, size=SIZE, mode="bilinear", align_corners=False).softmax(1)[0, 1]
    assert black["s_baseline"] == pytest.approx(float(probability[6:16, 10:24].mean()), abs=1e-5)


def test_tdd_by_hand_on_a_model_whose_pixels_see_only_themselves() -> None:
    """The best map of PixelScorer is the brightness: deleting its top pixels costs exactly their probabilities."""
    image, target = photograph(), box()
    row = segfaith.evaluate(plain(PixelScorer()), image, target, {"best": image.mean(0)}).loc["best"]

    def probability(values: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-8 * (values - 0.5)))

    brightness = image.double().mean(0).numpy()
    inside = np.sort(brightness[target.region.numpy()])[::-1]
    n = int(0.2 * 140 + 0.5)
    s = probability(inside).sum() / (140 + 1e-6)
    mean = brightness.mean()
    deleted = (probability(inside[n:]).sum() + n * probability(mean)) / (140 + 1e-6)
    inserted = (probability(inside[:n]).sum() + (140 - n) * probability(mean)) / (140 + 1e-6)
    assert row["s"] == pytest.approx(s, abs=1e-6)
    assert row["s_target_deleted"] == pytest.approx(deleted, abs=1e-6)
    assert row["tdd"] == pytest.approx((s - deleted) / (s + 1e-6), abs=1e-5)
    assert row["s_off_deleted"] == pytest.approx(row["s"], abs=1e-8)  # a convolution sums by batch size
    assert row["odd"] == pytest.approx(0, abs=1e-8)
    assert row["insertion_gain"] == pytest.approx(inserted - 140 * probability(mean) / (140 + 1e-6), abs=1e-6)


# The same call, the same answer


def test_explain_and_evaluate_are_deterministic_in_their_seed(model: SegmentationModel) -> None:
    names = [*FOUR, "random", "random_cells"]
    first, again, other = (segfaith.explain(model, photograph(), box(), names, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in names)
    assert all(torch.equal(first[name], other[name]) for name in FOUR)
    assert not torch.equal(first["random"], other["random"])
    assert not torch.equal(first["random_cells"], other["random_cells"])
    scores = [
        segfaith.evaluate(model, photograph(), box(), names, stability=True).drop(columns="runtime_s") for _ in "ab"
    ]
    pd.testing.assert_frame_equal(*scores, check_exact=True)


def test_the_batch_size_changes_raw_scores_by_at_most_1e_5(model: SegmentationModel) -> None:
    one, many = (segfaith.evaluate(model, photograph(), box(), FOUR, batch_size=size) for size in (1, 64))
    for column in ("s", "s_target_deleted", "s_off_deleted", "s_baseline", "s_inserted"):
        np.testing.assert_allclose(one[column], many[column], rtol=0, atol=1e-5)


def test_the_image_and_the_model_come_back_as_they_were(model: SegmentationModel) -> None:
    image, target = photograph(), box()
    model.module.train()
    model.module.head.weight.requires_grad_(False)
    state = {name: value.clone() for name, value in model.module.state_dict().items()}
    segfaith.evaluate(model, image, target, stability=True)
    assert torch.equal(image, photograph())
    assert torch.equal(target.region, box().region)
    assert all(torch.equal(value, state[name]) for name, value in model.module.state_dict().items())
    assert all(module.training for module in model.module.modules())
    assert all(parameter.grad is None for parameter in model.module.parameters())
    assert [name for name, one in model.module.named_parameters() if not one.requires_grad] == ["head.weight"]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.module.modules())
    assert torch.is_grad_enabled()


def test_wrap_normalises_with_imagenet_by_default() -> None:
    """The module sees (x - mean) / std; classes and layer are as given."""
    seen: list[Tensor] = []

    class Recorder(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x

    model = segfaith.wrap(Recorder(), classes=CLASSES)
    assert (model.classes, model.layer, model.name) == (CLASSES, None, "Recorder")
    model.logits(torch.full((1, 3, 2, 2), 0.5))
    expected = [(0.5 - mean) / std for mean, std in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    np.testing.assert_allclose(seen[0][0, :, 0, 0].numpy(), expected, rtol=1e-6)
    with pytest.raises(
        SettingsError, match=r"mean and std need three values each, std above 0; got mean=.*std=\(0, 1, 1\)"
    ):
        segfaith.wrap(Recorder(), std=(0, 1, 1))


def test_load_image_of_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SampleError, match=r"image .*missing\.png cannot be read: .*No such file"):
        segfaith.load_image(tmp_path / "missing.png")


def test_explain_gives_maps_scores_and_a_figure(model: SegmentationModel) -> None:
    """The maps are a mapping; scores are those of `evaluate`, once; the panel deletes the pixels that TDD deletes."""
    told = segfaith.explain(model, photograph(), box(), ["ega", "random_cells"], k=0.3, occlusion="zero")
    assert isinstance(told, Mapping)
    assert told["ega"] is told.maps["ega"]
    assert repr(told) == "Explanation of cat by ega, random_cells, 28 x 36 px (.maps, .scores, .figure())"
    assert "scores" not in vars(told)
    scores = segfaith.evaluate(
        model, photograph(), box(), {"ega": told["ega"]}, k=0.3, occlusion="zero", thorough=False
    )
    pd.testing.assert_frame_equal(told.scores.drop(columns="runtime_s"), scores.drop(columns="runtime_s"))
    assert told.scores is told.scores
    without = told.deleted("ega")
    assert int((without != told.image).any(0).sum()) <= round(0.3 * 140)
    assert bool((without[:, ~told.target.region] == told.image[:, ~told.target.region]).all())
    s = segfaith.evaluate(model, without, box(), {"mask": box().region.float()})["s"].iloc[0]
    assert s == pytest.approx(scores.loc["ega", "s_target_deleted"], abs=1e-5)
    logits = model.logits(photograph()[None])
    assert bool((told.predicted == (logits.argmax(1)[0] == 1)).all())
    figure = told.figure()
    assert {axes.get_title() for axes in figure.axes} >= {"image", "EGA", "random_cells"}
    assert "cat" in figure._suptitle.get_text()  # type: ignore[union-attr]
    assert told._repr_png_().startswith(b"\x89PNG")
    page = told._repr_html_()
    assert "data:image/png;base64," in page
    assert "EGA: deleting its top 30 % inside the cat" in page


def test_explain_refuses_to_explain_by_nothing(model: SegmentationModel) -> None:
    with pytest.raises(SettingsError, match=r"methods = \[\]: expected at least one method"):
        segfaith.explain(model, photograph(), box(), [])


def test_explain_refuses_a_wrong_k_before_any_pass(model: SegmentationModel) -> None:
    with pytest.raises(SettingsError, match="k must be above 0"):
        segfaith.explain(model, photograph(), box(), ["ega"], k=2)
