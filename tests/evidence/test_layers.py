"""The list of a model's layers, the layer that is read where none is named, and several layers at once."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import segfaith
import zoo
from segfaith.attribution.heatmap import minmax
from segfaith.batching import BatchSize
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.passes import passes_per_sample
from segfaith.benchmark.plan import resolve_methods
from segfaith.errors import SettingsError
from segfaith.evidence.gradient import gradient_evidence
from segfaith.evidence.layer import CHOSEN, REPEATS
from segfaith.evidence.layers import LayerInfo, layers_of
from segfaith.models import MODELS, load_model
from segfaith.models.wrapping import wrap
from segfaith.scores import Scalar
from segfaith.types import Target
from toys import PixelScorer, SmallCNN, plain

IMAGE = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
REGION = torch.zeros(64, 64, dtype=torch.bool)
REGION[10:40, 20:50] = True
BOX = Target(1, REGION)


def listed(module: nn.Module, image: Tensor = IMAGE, **options: Any) -> dict[str, LayerInfo]:
    return {layer.name: layer for layer in layers_of(wrap(module.eval(), **options), image)}


def default_of(layers: dict[str, LayerInfo]) -> str:
    (name,) = [name for name, layer in layers.items() if layer.default]
    return name


class Segmenter(nn.Module):
    """Layers that can be read, and layers that cannot, each for its own reason."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep = zoo.unit(3, 8, stride=2), zoo.unit(8, 8, 5, stride=2)
        self.twice, self.beside, self.never, self.flat = zoo.conv(8, 8), zoo.conv(8, 8), zoo.conv(8, 8), nn.Flatten()
        self.head = nn.Sequential(zoo.conv(8, 6), nn.ReLU(), zoo.conv(6, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        f = self.deep(self.twice(self.twice(self.stem(x))))
        self.beside(f)
        return self.head(self.flat(f).view_as(f))


def test_the_list_holds_what_runs_once_gives_maps_and_moves_the_logits() -> None:
    layers = listed(Segmenter())
    assert list(layers) == [
        *("stem.0", "stem.1", "stem.2", "stem", "deep.0", "deep.1", "deep.2", "deep"),
        *("head.0", "head.1", "head.2", "head"),
    ]
    stem, deep = layers["stem.0"], layers["deep"]
    assert (stem.type, stem.shape, stem.stride, stem.receptive) == ("Conv2d", (1, 8, 32, 32), 2, None)
    assert (deep.type, deep.shape, deep.stride, deep.default) == ("Sequential", (1, 8, 16, 16), 4, True)
    assert deep.receptive == (19, 19)  # 3 + 2 (3 - 1) twice for `twice`, + 2 (5 - 1) for `deep`
    repeating = [name for name, layer in layers.items() if "map equals the prediction" in layer.note]
    assert repeating == ["head.0", "head.1", "head.2", "head"]


def test_the_list_is_the_same_each_time_and_leaves_the_model_as_it_was() -> None:
    module = Segmenter().train()
    model = wrap(module)
    first = layers_of(model, IMAGE)
    assert layers_of(model, IMAGE) == first
    assert all(part.training and not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())
    assert all(weight.requires_grad and weight.grad is None for weight in module.parameters())
    assert (model.layer, model.layer_notes) == (None, {})


def test_the_list_costs_two_passes() -> None:
    module, passes = Segmenter(), []
    module.stem.register_forward_hook(lambda *_: passes.append(1))
    listed(module)
    assert len(passes) == 2


@pytest.mark.parametrize("name", ["lraspp_mobilenet_v3_large", "scenes"])
def test_known_models_would_get_the_layer_that_they_have(name: str) -> None:
    model = load_model(name, weights="random")
    (default,) = [layer.name for layer in layers_of(model, IMAGE) if layer.default]
    assert default == MODELS[name].layer


class Vit(nn.Module):
    def __init__(self, name: str, **options: Any) -> None:
        from timm import create_model

        super().__init__()
        self.net = create_model(name, pretrained=False, num_classes=0, embed_dim=24, num_heads=2, depth=3, **options)
        self.head = nn.Conv2d(24, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.net.forward_features(x)[:, self.net.num_prefix_tokens :]
        return self.head(tokens.transpose(1, 2).unflatten(2, (x.shape[2] // 16, -1)))


@cache
def segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    sizes = {"hidden_sizes": [8] * 4, "num_attention_heads": [1] * 4, "decoder_hidden_size": 8, "num_labels": 3}
    return SegformerForSemanticSegmentation(SegformerConfig(depths=[1] * 4, **sizes))


@cache
def unet() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet("mobilenet_v2", encoder_weights=None, classes=3, decoder_channels=(8,) * 5)


DEFAULTS: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "a plain transformer": (
        lambda: Vit("vit_tiny_patch16_224", img_size=64),
        "net.blocks.1",
        "without 1 leading token",
    ),
    "with registers": (
        lambda: Vit("vit_small_patch14_reg4_dinov2", img_size=64, patch_size=16, dynamic_img_size=True),
        "net.blocks.1",
        "without 5 leading tokens",
    ),
    "segformer": (segformer, "segformer.stages.3", ""),
    "a U-Net": (unet, "encoder.features.18", ""),
    "no context at all": (PixelScorer, "features", "map equals the prediction"),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_the_default_is_the_deepest_map_before_the_head(name: str) -> None:
    build, expected, words = DEFAULTS[name]
    layers = listed(build())
    assert default_of(layers) == expected
    assert words in layers[expected].note


def test_of_an_encoder_with_a_decoder_the_decoders_last_stage_is_named_too() -> None:
    layers = listed(unet())
    assert [name for name, layer in layers.items() if "last layer before the head" in layer.note] == ["decoder"]
    assert all(layers[name].receptive is not None for name in ("decoder", "encoder.features.18"))


UNLISTED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "scripted": (lambda: torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 1))), "scripted, traced or frozen module"),
    "no parts": (lambda: nn.Conv2d(3, 3, 1), "of the last layers no layer ran"),
    "detached": (
        lambda: zoo.Of(lambda self, x: self.head(x).detach(), head=nn.Conv2d(3, 3, 1)),
        "'head': the logits do not depend on it",
    ),
    "of strips": (
        lambda: zoo.Of(lambda self, x: self.head(x).expand(-1, -1, -1, 64), head=nn.AdaptiveAvgPool2d((None, 1))),
        r"'head': shape \(1, 3, 64, 1\)",
    ),
}


@pytest.mark.parametrize("name", UNLISTED)
def test_a_model_without_any_layer_that_can_be_read_says_why(name: str) -> None:
    build, words = UNLISTED[name]
    with pytest.raises(SettingsError, match=words):
        listed(build())


def test_an_explicit_layer_wins_and_a_chosen_one_is_told() -> None:
    chosen, named = wrap(Segmenter().eval()), wrap(Segmenter().eval(), layer="stem")
    frames = [segfaith.evaluate(model, IMAGE, BOX, ["gpa"]) for model in (chosen, named)]
    assert (chosen.layer, named.layer) == ("deep", "stem")
    assert [frame.attrs["layers"] for frame in frames] == [{"deep": CHOSEN}, {}]


def test_a_chosen_layer_is_told_to_be_chosen_beside_how_it_is_read() -> None:
    module = zoo.Of(
        lambda self, x: self.head(self.layer(self.stem(x).movedim(1, -1)).movedim(-1, 1)),
        stem=zoo.conv(3, 6, 3, stride=4),
        layer=nn.LayerNorm(6),
        head=nn.Sequential(zoo.conv(6, 6), zoo.conv(6, 3, 1)),
    )
    model = plain(zoo.randomised(module))
    segfaith.explain(model, IMAGE, BOX, ["gpa"])
    assert model.layer == "layer"
    assert model.layer_notes["layer"].startswith(f"{CHOSEN}; channels last (1, ")


# Layers behind which no context is read


@pytest.mark.parametrize(("layer", "told"), [("stem", False), ("deep", False), ("head.0", True), ("head.2", True)])
def test_a_layer_behind_which_no_context_is_read_is_told(layer: str, told: bool) -> None:
    model = wrap(Segmenter().eval(), layer=layer)
    segfaith.explain(model, IMAGE, BOX, ["ega"])
    assert model.layer_notes == ({layer: REPEATS} if told else {})


def test_bilinear_resizing_inside_the_model_is_no_context() -> None:
    module = zoo.Of(
        lambda self, x: F.interpolate(self.head(self.layer(x)), x.shape[2:], mode="bilinear"),
        layer=zoo.conv(3, 4, 3, stride=4),
        head=zoo.conv(4, 3, 1),
    )
    model = plain(module, layer="layer")
    segfaith.explain(model, IMAGE, BOX, ["gpa"])
    assert model.layer_notes == {"layer": REPEATS}


# Several layers


def test_the_map_of_several_layers_is_the_mean_of_theirs() -> None:
    module = SmallCNN().eval()
    for method in ("gpa", "ega"):
        names = ["backbone.0", "backbone.2", "backbone.3"]
        alone = [segfaith.explain(plain(module, layer=name), IMAGE, BOX, [method])[method] for name in names]
        together = segfaith.explain(plain(module, layer="+".join(names)), IMAGE, BOX, [method])[method]
        torch.testing.assert_close(together, sum(alone) / 3)
        own = f"{method}@layer=backbone.0+backbone.3"
        by_name = segfaith.explain(plain(module), IMAGE, BOX, [own])[own]
        torch.testing.assert_close(by_name, (alone[0] + alone[2]) / 2)
        assert float((minmax(together[None]) - alone[0]).abs().max()) > 0.05


def test_each_of_several_layers_takes_a_pass_and_its_seconds_count() -> None:
    module, passes = SmallCNN().eval(), []
    module.backbone[0].register_forward_hook(lambda *_: passes.append(1))
    model = plain(module, layer="backbone.0+backbone.3")
    arguments = model, IMAGE[None], REGION[None], Scalar(1), BatchSize(1)
    gradient_evidence(*arguments)
    passes.clear()
    evidence, passed, seconds = gradient_evidence(*arguments)
    assert len(passes) == 2
    assert len(evidence.others) == 1
    assert seconds > 1.2 * passed.seconds
    methods = resolve_methods(["gpa", "random"], {})
    counts = [
        passes_per_sample(methods, EvaluationSettings(), stability=stability, layer=layer)
        for stability in (False, True)
        for layer in ("a", "a+b+c")
    ]
    assert (counts[1] - counts[0], counts[3] - counts[2]) == (2, 12)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("backbone.0+backbone.9", "no layer 'backbone.9'; the nearest are"),
        ("backbone.0+backbone.0", "names a layer twice"),
        ("backbone.0+", "no layer ''"),
    ],
)
def test_several_layers_that_cannot_be_meant_are_refused(layer: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        plain(SmallCNN(), layer=layer)
