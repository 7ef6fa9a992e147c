"""Feature layers of models that read them in their own ways: gradients against finite differences, axes, refusals."""

import re
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from torch.utils.checkpoint import checkpoint
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.ops import Permute

import zoo
from segfaith.batching import BatchSize
from segfaith.errors import SettingsError
from segfaith.evidence.forms import form_of
from segfaith.evidence.gradient import gradient_evidence
from segfaith.evidence.layer import check_layer
from segfaith.incremental.graph import Graph
from segfaith.incremental.scoring import graph_of
from segfaith.scores import Scalar
from toys import plain

SIZE = (64, 64)


class Reader(nn.Module):
    """Two smooth layers, and a skip from the first that reaches the head in a way of its own (`read`)."""

    def __init__(self, **parts: nn.Module) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.GELU())
        self.deep, self.head = nn.Sequential(nn.Conv2d(6, 6, 3, 1, 1), nn.GELU()), nn.Conv2d(12, 3, 1)
        self.kept: list[Tensor] = []
        for name, part in parts.items():
            self.add_module(name, part)

    def keep(self, module: nn.Module, inputs: Any, output: Tensor) -> None:
        self.kept = [output]

    def forward(self, x: Tensor) -> Tensor:
        deep = self.deep(self.layer(x))
        return self.head(torch.cat([deep, self.kept[0]], 1))


def hooked() -> nn.Module:
    """As transformers' and timm's backbones do."""
    module = Reader()
    module.layer.register_forward_hook(module.keep)
    return module


def hooked_first_at_each_call() -> nn.Module:
    class Late(Reader):
        def forward(self, x: Tensor) -> Tensor:
            handle = self.layer.register_forward_hook(self.keep, prepend=True)
            try:
                return super().forward(x)
            finally:
                handle.remove()

    return Late()


def hooked_globally() -> nn.Module:
    """Global hooks run before all others."""

    class Everywhere(Reader):
        def forward(self, x: Tensor) -> Tensor:
            def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
                if module is self.layer:
                    self.keep(module, inputs, output)

            handle = register_module_forward_hook(keep)
            try:
                return super().forward(x)
            finally:
                handle.remove()

    return Everywhere()


def hooked_on_the_parent() -> nn.Module:
    module = Reader(parent=nn.Sequential())
    module.parent.append(module.layer)
    module.parent.register_forward_hook(module.keep)
    module.deep.insert(0, nn.Identity())

    def forward(x: Tensor) -> Tensor:
        deep = module.deep(module.parent(x))
        return module.head(torch.cat([deep, module.kept[0]], 1))

    module.forward = forward
    return module


def patched() -> nn.Module:
    """A wrapper around the layer's forward that keeps what passes."""
    module = Reader()
    inner = module.layer.forward

    def forward(x: Tensor) -> Tensor:
        output = inner(x)
        module.kept = [output]
        return output

    module.layer.forward = forward
    return module


def called_by_forward() -> nn.Module:
    """No hook of the layer runs."""

    class Direct(Reader):
        def forward(self, x: Tensor) -> Tensor:
            f = self.layer.forward(x)
            return self.head(torch.cat([self.deep(f), f], 1))

    return Direct()


def kept_as_an_attribute() -> nn.Module:
    class Keeping(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            self.features = super().forward(x)
            return self.features

    class Attribute(Reader):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.cat([self.deep(self.layer(x)), self.layer.features], 1))

    module = Attribute()
    module.layer = Keeping(*module.layer)
    return module


def kept_as_a_view() -> nn.Module:
    class Keeping(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            self.tokens = y.flatten(2)
            return y

    class Attribute(Reader):
        def forward(self, x: Tensor) -> Tensor:
            f = self.layer(x)
            return self.head(torch.cat([self.deep(f), self.layer.tokens.view_as(f)], 1))

    module = Attribute()
    module.layer = Keeping(*module.layer)
    return module


def returning_a_view() -> nn.Module:
    module = hooked()
    module.layer.extend([Permute([0, 2, 3, 1]), nn.LayerNorm(6), Permute([0, 3, 1, 2])])
    return module


def returning_a_tuple() -> nn.Module:
    class Pair(nn.Sequential):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
            y = super().forward(x)
            return y.flatten(2), y, len(y)

    class Tuples(Reader):
        def forward(self, x: Tensor) -> Tensor:
            _, f, _ = self.layer(x)
            return self.head(torch.cat([self.deep(f), f], 1))

    module = Tuples()
    module.layer = Pair(*module.layer)
    return module


def returning_a_list_of_a_view() -> nn.Module:
    class One(nn.Sequential):
        def forward(self, x: Tensor) -> list[Tensor]:
            return [super().forward(x)[:, :, :]]

    class Lists(Reader):
        def forward(self, x: Tensor) -> Tensor:
            (f,) = self.layer(x)
            return self.head(torch.cat([self.deep(f), f], 1))

    module = Lists()
    module.layer = One(*module.layer)
    return module


def overwritten_by_the_next_layer() -> nn.Module:
    """What the hook keeps is changed in place after it."""
    module = hooked()
    module.deep.insert(0, nn.SiLU(inplace=True))
    return module


def frozen_backbone() -> nn.Module:
    """Recording is switched off around the layer and what follows."""

    class Frozen(Reader):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                f = self.layer(x)
                deep = self.deep(f)
            return self.head(torch.cat([deep, f], 1))

    return Frozen()


def normalised_by_a_weight() -> nn.Module:
    """Weights that are computed from others in each pass."""
    module = hooked()
    nn.utils.parametrizations.weight_norm(module.layer[0])
    nn.utils.parametrizations.weight_norm(module.head)
    return module


READERS: dict[str, Callable[[], nn.Module]] = {
    one.__name__: one
    for one in [
        hooked, hooked_first_at_each_call, hooked_globally, hooked_on_the_parent, patched, called_by_forward,
        kept_as_an_attribute, kept_as_a_view, returning_a_view, returning_a_tuple, returning_a_list_of_a_view,
        overwritten_by_the_next_layer, frozen_backbone, normalised_by_a_weight,
    ]
}  # fmt: skip


@cache
def segformer() -> nn.Module:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation

    return SegformerForSemanticSegmentation(
        SegformerConfig(
            depths=[1] * 4,
            hidden_sizes=[8, 8, 8, 8],
            num_attention_heads=[1] * 4,
            decoder_hidden_size=8,
            num_labels=3,
        )
    )


def upernet(backbone: Any) -> nn.Module:
    from transformers import UperNetConfig, UperNetForSemanticSegmentation

    return UperNetForSemanticSegmentation(
        UperNetConfig(
            backbone_config=backbone, hidden_size=8, num_labels=3, auxiliary_in_channels=8, auxiliary_channels=4
        )
    )


@cache
def upernet_on_convnext() -> nn.Module:
    from transformers import ConvNextConfig

    stages = [f"stage{number}" for number in range(1, 5)]
    return upernet(ConvNextConfig(depths=[1] * 4, hidden_sizes=[8] * 4, out_features=stages))


@cache
def smp_unet() -> nn.Module:
    import segmentation_models_pytorch as smp

    return smp.Unet("mobilenet_v2", encoder_weights=None, classes=3, decoder_channels=(8, 8, 8, 8, 8))


@cache
def timm_hooks() -> nn.Module:
    """timm's features by forward hooks."""
    from timm import create_model

    net = create_model(
        "convnext_atto", pretrained=False, depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), features_only=True,
        feature_cls="hook", out_indices=(1, 3),
    )  # fmt: skip

    def forward(self: Any, x: Tensor) -> Tensor:
        fine, coarse = self.net(x)
        return self.head(torch.cat([fine, F.interpolate(coarse, fine.shape[2:])], 1))

    return zoo.Of(forward, net=net, head=nn.Conv2d(16, 3, 1))


LIBRARIES: list[tuple[Callable[[], nn.Module], str]] = [
    *((segformer, f"segformer.stages.{number}") for number in range(4)),
    *((upernet_on_convnext, f"backbone.encoder.stages.{number}") for number in range(4)),
    (upernet_on_convnext, "backbone.hidden_states_norms.stage2"),
    *((smp_unet, layer) for layer in ("encoder.features.1", "encoder.features.17")),
    *((timm_hooks, layer) for layer in ("net.stages_1", "net.stages_3")),
]


def directional(module: nn.Module, layer: str, images: Tensor, regions: Tensor, direction: Tensor) -> float:
    """d/dt Y(F + t direction) at t = 0 by central differences in float64.

    The tensor that the layer makes is written to: those who hold it, in whatever way, and later readers see the change.
    Y is the sum of channel 1 over the regions.
    """
    part = module.get_submodule(layer)
    forward, own = part.forward, "forward" in vars(part)

    def value(step: float) -> float:
        def shifted(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            items = [output] if isinstance(output, Tensor) else output
            (feature,) = [one for one in items if isinstance(one, Tensor) and one.ndim == 4]
            feature.add_(step * direction)
            return output

        part.forward = shifted
        try:
            with torch.no_grad():
                output = module(images)
        finally:
            part.forward = forward
            if not own:
                del part.forward
        z = output if isinstance(output, Tensor) else output.logits
        z = F.interpolate(z, images.shape[2:], mode="bilinear", align_corners=False)
        return float(z[:, 1][regions].sum())

    step = 1e-8  # networks bend at many points
    return (value(step) - value(-step)) / (2 * step)


def assert_gradient(module: nn.Module, layer: str, tolerance: float = 1e-4) -> None:
    zoo.randomised(module.double().eval())
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 3, *SIZE, generator=generator)
    regions = torch.zeros(2, *SIZE, dtype=torch.bool)
    regions[0, 10:50, 20:40] = regions[1, 30:, :30] = True
    model = plain(module, layer=layer)
    evidence, _, _ = gradient_evidence(model, images, regions, Scalar(1), BatchSize(2))
    direction = torch.randn(evidence.gradient.shape, generator=generator, dtype=torch.float64)
    expected = directional(module, layer, images.double(), regions, direction)
    scale = float(evidence.gradient.double().norm())
    assert scale > 1e-3
    assert float((evidence.gradient.double() * direction).sum()) == pytest.approx(expected, abs=tolerance * scale)


@pytest.mark.parametrize("name", READERS)
def test_the_gradient_reaches_every_reader_of_the_layer(name: str) -> None:
    """Of the activations that the model itself has, too: to be read changes nothing."""
    module = READERS[name]()
    assert_gradient(module, "layer")
    assert not any(parameter.grad is not None for parameter in module.parameters())
    assert all(parameter.requires_grad for parameter in module.parameters())


@pytest.mark.parametrize(("build", "layer"), LIBRARIES)
def test_the_gradient_of_models_of_libraries_is_a_finite_difference(build: Callable[[], nn.Module], layer: str) -> None:
    assert_gradient(build(), layer)


# What is only handed on


class HandedOn(nn.Module):
    """A layer that gives its input itself, which is read beside it as well."""

    def __init__(self, layer: nn.Module, after: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.layer, self.after = nn.Conv2d(3, 4, 3, 2, 1), layer, after or nn.Identity()
        self.head, self.beside = nn.Conv2d(4, 3, 1), nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        f = self.stem(x)
        return self.head(self.after(self.layer(f).reshape(f.shape))) + self.beside(f)


@pytest.mark.parametrize("layer", [nn.Identity(), nn.Dropout(0.5), nn.Unflatten(1, (2, 2))])
def test_what_else_reads_a_layers_input_does_not_read_the_layer(layer: nn.Module) -> None:
    module = HandedOn(layer if not isinstance(layer, nn.Unflatten) else nn.Sequential(layer, nn.Flatten(1, 2)))
    x, region = torch.rand(1, 3, 16, 16), torch.ones(1, 16, 16, dtype=torch.bool)
    evidence, _, _ = gradient_evidence(plain(module, layer="layer"), x, region, Scalar(1), BatchSize(1))
    expected = 4 * module.head.weight[1].detach()  # each of the 8 x 8 cells is 2 x 2 pixels, of weight 1 in all
    torch.testing.assert_close(evidence.gradient[0].mean((1, 2)), expected[:, 0, 0], rtol=1e-4, atol=1e-6)


def test_a_layer_that_writes_into_its_input_is_read_by_whoever_reads_that() -> None:
    """The skip, taken before an in-place layer, holds what the layer gave."""
    module = HandedOn(nn.SiLU(inplace=True))
    x, region = torch.rand(1, 3, 16, 16), torch.ones(1, 16, 16, dtype=torch.bool)
    evidence, _, _ = gradient_evidence(plain(module, layer="layer"), x, region, Scalar(1), BatchSize(1))
    expected = 4 * (module.head.weight[1] + module.beside.weight[1]).detach()
    torch.testing.assert_close(evidence.gradient[0].mean((1, 2)), expected[:, 0, 0], rtol=1e-4, atol=1e-6)


def test_a_layer_whose_input_others_overwrite_is_refused() -> None:
    module = HandedOn(nn.Identity(), nn.SiLU(inplace=True))
    with pytest.raises(SettingsError, match=r"change by up to .* when layer 'layer' is read, since another part"):
        check_layer(plain(module), "layer", torch.rand(3, 16, 16))


def test_a_weight_that_a_layer_hands_on_stays_a_weight() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.cached = nn.Parameter(torch.rand(1, 4, 8, 8)), torch.rand(1, 4, 8, 8)

        def forward(self) -> Tensor:
            return self.weight

    module = HandedOn(nn.Identity())
    module.table = Table()
    module.stem.register_forward_hook(lambda _, inputs, output: output + module.table())
    x, region = torch.rand(1, 3, 16, 16), torch.ones(1, 16, 16, dtype=torch.bool)
    model = plain(module, layer="table")
    model.module.eval()
    first = gradient_evidence(model, x, region, Scalar(1), BatchSize(1))[0]
    assert module.table.weight.is_leaf
    assert module.table.weight.requires_grad
    assert float(first.gradient.abs().max()) > 0


# Axes


class Backbone(nn.Module):
    """A backbone's layer and a head that reads its output once it is (N, K, h, w)."""

    def __init__(self, layer: nn.Module, channels: int, order: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        super().__init__()
        self.layer, self.order, self.head = layer, order, nn.Conv2d(channels, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layer(x).permute(self.order))


def last(channels: int) -> nn.Module:
    return Backbone(
        nn.Sequential(nn.Conv2d(3, channels, 3, 8, 1), Permute([0, 2, 3, 1]), nn.LayerNorm(channels)),
        channels,
        (0, 3, 1, 2),
    )


def swin() -> nn.Module:
    net = SwinTransformer([4, 4], 8, [1, 1], [1, 1], [4, 4])
    return Backbone(net.features, 16, (0, 3, 1, 2))


def fixed(module: nn.Module) -> nn.Module:
    """A model that takes images of one size only."""

    def forward(self: Any, x: Tensor) -> Tensor:
        assert tuple(x.shape[2:]) == SIZE, "wrong image size"
        return self.net(x)

    return zoo.Of(forward, net=module)


def resizing(module: nn.Module) -> nn.Module:
    """A model that makes every image one size first."""
    return zoo.Of(lambda self, x: self.net(F.interpolate(x, SIZE)), net=module)


def tokens() -> nn.Module:
    layer = nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.Flatten(2), Permute([0, 2, 1]), nn.LayerNorm(6))
    return zoo.Of(
        lambda self, x: self.head(self.layer(x).transpose(1, 2).unflatten(2, (8, -1))),
        layer=layer,
        head=nn.Conv2d(6, 3, 1),
    )


def attention() -> nn.Module:
    """Weights of every token for every token, by heads."""

    def forward(self: Any, x: Tensor) -> Tensor:
        f = self.stem(x).flatten(2)
        weights = self.layer(torch.einsum("nki,nkj->nij", f, f)[:, None].repeat(1, 2, 1, 1))
        return self.head((f @ weights.mean(1)).unflatten(2, (8, -1)))

    return zoo.Of(forward, stem=nn.Conv2d(3, 6, 8, 8), layer=nn.Softmax(-1), head=nn.Conv2d(6, 3, 1))


def windows() -> nn.Module:
    """The layer sees four quarters of each image."""

    def forward(self: Any, x: Tensor) -> Tensor:
        n, _, h, w = x.shape
        quarters = x.reshape(n, 3, 2, h // 2, 2, w // 2).permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, h // 2, w // 2)
        f = self.layer(quarters).reshape(n, 2, 2, 6, h // 8, w // 8).permute(0, 3, 1, 4, 2, 5)
        return self.head(f.reshape(n, 6, h // 4, w // 4))

    return zoo.Of(forward, layer=nn.Conv2d(3, 6, 3, 4, 1), head=nn.Conv2d(6, 3, 1))


def once_per_class() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        f = self.stem(x)
        return self.head(self.layer(f.repeat_interleave(3, 0))).reshape(len(x), 3, *f.shape[2:])

    return zoo.Of(forward, stem=nn.Conv2d(3, 6, 3, 4, 1), layer=nn.Conv2d(6, 6, 1), head=nn.Conv2d(6, 1, 1))


def strips() -> nn.Module:
    return zoo.Of(
        lambda self, x: self.head(self.layer(x).expand(-1, -1, -1, 16)),
        layer=nn.Sequential(nn.Conv2d(3, 6, 3, 4, 1), nn.AdaptiveAvgPool2d((None, 1))),
        head=nn.Conv2d(6, 3, 1),
    )


def described() -> nn.Module:
    class Three(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, int, list[Tensor]]:
            return x.flatten(2), 7, [x]

    return zoo.Of(lambda self, x: self.head(self.layer(x)[2][0]), layer=Three(), head=nn.Conv2d(3, 3, 1))


AXES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "attention": (attention, "(1, 2, 64, 64) for an image of 64 x 64 and (1, 2, 128, 128) for one of 64 x 128; expec"),
    "windows": (windows, "shape (4, 6, 8, 8) for 1 image, like a layer that runs on windows, or once per class"),
    "once per class": (once_per_class, "shape (3, 6, 16, 16) for 1 image, like a layer that runs on windows, or"),
    "strips": (strips, "shape (1, 6, 16, 1) for an image of 64 x 64; expected (1, channels, h, w)"),
    "several things": (
        described,
        "shape (1, 3, 4096) for an image of 64 x 64 and (1, 3, 8192) for one of 64 x 128; tokens must be (N, L, C)",
    ),
}


@pytest.mark.parametrize("name", AXES)
def test_a_layer_of_other_axes_is_refused_in_words(name: str) -> None:
    build, words = AXES[name]
    module = build()
    layer = next(one for one, _ in module.named_modules() if one.split(".")[-1] == "layer")
    with pytest.raises(SettingsError) as raised:
        check_layer(plain(module), layer, torch.rand(3, *SIZE))
    assert words in str(raised.value)
    assert "'Layers of another shape' in docs/extending.md" in str(raised.value)


GOOD: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, int]]] = {
    "square": (lambda: last(8), "layer.0", SIZE),
    "odd": (zoo.odd_kernels, "1", (37, 53)),
    "without padding": (lambda: nn.Sequential(*(nn.Conv2d(3, 3, 7) for _ in range(4)), nn.Conv2d(3, 3, 1)), "3", SIZE),
    "low and wide": (lambda: last(8), "layer.0", (8, 64)),
    "of one size": (lambda: fixed(last(6)), "net.layer.0", SIZE),
    "resized to one size": (lambda: resizing(last(6)), "net.layer.0", (40, 90)),
    "of one column": (lambda: last(8), "layer.0", (64, 3)),
    "of one cell": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1)), "0", SIZE),
    "a grid of six": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d(6), nn.Conv2d(3, 3, 1)), "0", (40, 90)),
}


@pytest.mark.parametrize("name", GOOD)
def test_layers_of_the_right_axes_are_taken(name: str) -> None:
    build, layer, size = GOOD[name]
    check_layer(plain(build().eval()), layer, torch.rand(3, *size))


def test_the_example_of_a_reshape_gives_the_maps() -> None:
    """The documentation's, on tokens that lie column by column."""
    text = (Path(__file__).resolve().parents[2] / "docs/extending.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(def reshape.*?)```", text, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    maps = torch.rand(1, 6, 14, 14)
    columns = torch.cat([torch.zeros(1, 2, 6), maps.permute(0, 3, 2, 1).flatten(1, 2)], 1)
    assert torch.equal(names["reshape"](columns), maps)
    form = form_of([(1, 198, 6)], (224, 224), "auto", names["reshape"])
    assert not isinstance(form, str)
    assert torch.equal(form.maps(columns, (224, 224)), maps)


# What is left behind


class Keeper(nn.Module):
    """Keeps a feature map of its last pass, as models do whose losses or viewers read it."""

    def __init__(self, *kept: str) -> None:
        super().__init__()
        self.layer, self.deep, self.head = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 4, 3, 1, 1), nn.Conv2d(4, 3, 1)
        self.kept, self.last = kept, {}

    def forward(self, x: Tensor) -> Tensor:
        f = self.layer(x)
        deep = self.deep(f)
        self.last = {"layer": f, "deep": deep}
        for name in self.kept:
            setattr(self, f"last_{name}", self.last[name])
        self.last = {}
        return self.head(deep.relu())


def gradient_of(model: Any, size: int = 16) -> Tensor:
    x, region = torch.rand(1, 3, size, size), torch.ones(1, size, size, dtype=torch.bool)
    return gradient_evidence(model, x, region, Scalar(1), BatchSize(1))[0].gradient


def test_what_a_model_keeps_of_the_layer_holds_no_graph_after_a_gradient() -> None:
    module = Keeper("layer").eval()
    gradient_of(plain(module, layer="layer"))
    assert module.last_layer.is_leaf
    assert not module.last_layer.requires_grad


@pytest.mark.parametrize("kept", ["layer", "deep"])
def test_a_model_that_keeps_feature_maps_is_traced_after_a_gradient(kept: str) -> None:
    model = plain(Keeper(kept).eval(), layer="layer")
    gradient_of(model)
    assert isinstance(graph_of(model, torch.rand(3, 16, 16)), Graph)


@pytest.mark.parametrize("inside", ["dict", "list", "tuple in a part"])
def test_a_tensor_that_a_layer_keeps_in_a_container_stays_as_it_was(inside: str) -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = {"dict": {"one": table}, "list": [[table]]}.get(inside, (table, None))

        def forward(self, x: Tensor) -> Tensor:
            return table

    table = torch.rand(1, 4, 16, 16)
    part = nn.Sequential(Table()) if inside.endswith("part") else Table()
    module = zoo.Of(lambda self, x: self.head(self.layer(x)), layer=part, head=nn.Conv2d(4, 3, 1))
    before, version = table.clone(), table._version
    assert float(gradient_of(plain(module, layer="layer")).abs().max()) > 0
    assert torch.equal(table, before)
    assert (table._version, table.requires_grad, table.is_leaf) == (version, False, True)


# Models through which no gradient goes


def inferring(where: str) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.inference_mode() if where == "layer" else nullcontext():
            f = self.layer(x)
        return self.head(f.clone())

    with torch.inference_mode(where == "weights"):
        parts = {"layer": nn.Conv2d(3, 4, 1), "head": nn.Conv2d(4, 3, 1)}
    return zoo.Of(forward, **parts)


def overwritten() -> nn.Module:
    return zoo.Of(lambda self, x: self.head(self.layer(x).sigmoid().mul_(2).sigmoid().exp().add_(1)),
                  layer=nn.Conv2d(3, 4, 1), head=nn.Conv2d(4, 3, 1))  # fmt: skip


def recomputed(reentrant: bool) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(checkpoint(nn.Sequential(self.layer, nn.GELU()), self.stem(x), use_reentrant=reentrant))

    return zoo.Of(forward, stem=nn.Conv2d(3, 4, 1), layer=nn.Conv2d(4, 4, 1), head=nn.Conv2d(4, 3, 1))


NO_GRADIENT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "a layer in inference mode": (
        lambda: inferring("layer"),
        "inference_mode, or .*use torch.no_grad",
    ),
    "weights of inference mode": (lambda: inferring("weights"), "or made its weights there.*use torch.no_grad"),
    "overwritten": (overwritten, "a later part writes into a tensor that the backward pass needs; .*inplace=False"),
    "recomputed": (lambda: recomputed(False), "torch.utils.checkpoint runs it again in the backward pass, switch"),
}


@pytest.mark.parametrize("name", NO_GRADIENT)
def test_a_model_without_gradients_is_refused_in_words(name: str) -> None:
    build, words = NO_GRADIENT[name]
    with pytest.raises(SettingsError, match=words):
        gradient_of(plain(build().eval(), layer="layer"))


def test_only_a_part_without_gradients_that_holds_the_layer_is_seen_through() -> None:
    """Behind the layer, what runs without gradients is detached: of the layer's output the head alone sends some."""

    def forward(self: Any, x: Tensor) -> Tensor:
        with torch.no_grad():
            f = self.layer(x)
        with torch.no_grad():
            later = self.deep(f)
        return self.head(f + later)

    parts = {"layer": nn.Conv2d(3, 4, 1), "deep": nn.Conv2d(4, 4, 1), "head": nn.Conv2d(4, 3, 1)}
    found = gradient_of(plain(zoo.Of(forward, **parts), layer="layer"))
    expected = parts["head"].weight[1].detach().expand(4, 16, 16)
    torch.testing.assert_close(found[0], expected, rtol=1e-5, atol=1e-6)


def test_a_layer_of_a_model_that_loops_over_its_images_needs_batches_of_one() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        return torch.cat([self.head(self.layer(one[None])) for one in x])

    model = plain(zoo.Of(forward, layer=nn.Conv2d(3, 4, 1), head=nn.Conv2d(4, 3, 1)), layer="layer")
    x, region = torch.rand(2, 3, 16, 16), torch.ones(2, 16, 16, dtype=torch.bool)
    with pytest.raises(SettingsError, match="goes through its images one by one, a batch size of 1 helps"):
        gradient_evidence(model, x, region, Scalar(1), BatchSize(2))
    assert gradient_evidence(model, x, region, Scalar(1), BatchSize(1))[0].gradient.shape == (2, 4, 16, 16)
