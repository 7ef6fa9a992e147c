"""Feature layers of models that read them in their own ways: gradients against finite differences, axes, refusals."""

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook
from torchvision.models.swin_transformer import SwinTransformer
from torchvision.ops import Permute

import zoo
from segfaith.errors import SettingsError
from segfaith.evidence.gradient import gradient_evidence
from segfaith.evidence.layer import check_layer
from segfaith.scores import BatchSize
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
        def forward(self, x: Tensor) -> tuple[Tensor, int]:
            y = super().forward(x)
            return y, len(y)

    class Tuples(Reader):
        def forward(self, x: Tensor) -> Tensor:
            f, _ = self.layer(x)
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
    *((smp_unet, layer) for layer in ("encoder.features.1", "encoder.features.17", "decoder.blocks.0")),
    *((timm_hooks, layer) for layer in ("net.stages_1", "net.stages_3")),
]


def directional(module: nn.Module, layer: str, images: Tensor, regions: Tensor, direction: Tensor) -> float:
    """d/dt Y(F + t direction) at t = 0 by central differences in float64: the tensor that the layer makes is written to.

    Those who hold it, in whatever way they got it, and those who read it later see the change. Y is the sum of
    channel 1 over the regions.
    """
    part = module.get_submodule(layer)
    forward, own = part.forward, "forward" in vars(part)

    def value(step: float) -> float:
        def shifted(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            (output if isinstance(output, Tensor) else output[0]).add_(step * direction)
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
    evidence, _, _ = gradient_evidence(model, images, regions, 1, BatchSize(2))
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
def test_the_gradient_of_models_of_libraries_is_a_finite_difference(
    build: Callable[[], nn.Module], layer: str
) -> None:
    assert_gradient(build(), layer)
