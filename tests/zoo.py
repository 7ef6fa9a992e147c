"""Small random segmenters, one for each thing that an incremental inference can get wrong: TRACED are served by it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 4


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that keep signals at a scale of about one; norms with statistics and slopes of their own."""
    draw = torch.Generator().manual_seed(seed)

    def normal(tensor: Tensor, scale: float, shift: float = 0.0) -> None:
        tensor.copy_(shift + scale * torch.randn(tensor.shape, generator=draw))

    with torch.no_grad():
        for one in module.modules():
            if isinstance(one, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                fan = one.weight[0].numel() if not isinstance(one, nn.ConvTranspose2d) else one.weight[:, 0].numel()
                normal(one.weight, getattr(one, "gain", 1.4) / math.sqrt(fan))
                if one.bias is not None:
                    normal(one.bias, 0.3)
            elif isinstance(one, nn.MultiheadAttention):
                normal(one.in_proj_weight, 1 / math.sqrt(one.embed_dim))
                normal(one.in_proj_bias, 0.3)
            elif isinstance(one, nn.BatchNorm2d | nn.GroupNorm | nn.InstanceNorm2d | nn.LayerNorm):
                for name, tensor in [*one.named_parameters(), *one.named_buffers()]:
                    if tensor.is_floating_point():
                        normal(tensor, 0.2, 1.0 if name in ("weight", "running_var") else 0.0)
                        tensor.copy_(tensor.abs() if name == "running_var" else tensor)
    return module


def conv(inputs: int, outputs: int, kernel: Any = 3, gain: float = 1.4, **options: Any) -> nn.Conv2d:
    """Padded so that stride 1 keeps the size, unless told otherwise."""
    if "padding" not in options and isinstance(kernel, int):
        options["padding"] = options.get("dilation", 1) * (kernel - 1) // 2
    layer = nn.Conv2d(inputs, outputs, kernel, **options)
    layer.gain = gain
    return layer


def unit(inputs: int, outputs: int, kernel: Any = 3, **options: Any) -> nn.Sequential:
    layer = conv(inputs, outputs, kernel, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Of(nn.Module):
    """A module whose forward is a function of it."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def head(inputs: int = 8, classes: int = CLASSES, gain: float = 4.0) -> nn.Conv2d:
    return conv(inputs, classes, 1, gain=gain)


def plain_cnn() -> nn.Module:
    middle = [conv(8, 8), nn.BatchNorm2d(8), nn.ReLU6(), nn.Dropout2d(0.5), conv(8, 8), nn.Hardswish()]
    return nn.Sequential(unit(3, 8, stride=2), *middle, head())


def odd_kernels() -> nn.Module:
    """Asymmetric, even, unpadded and overpadded."""
    return nn.Sequential(
        conv(3, 8, (1, 3), padding=(0, 1), gain=2.0),
        nn.LeakyReLU(0.2),
        conv(8, 8, (3, 1), stride=(2, 1), padding=(1, 0), gain=2.0),
        nn.Tanh(),
        conv(8, 8, 4, stride=(1, 2), padding=1, gain=2.0),
        nn.SiLU(),
        conv(8, 8, 2, padding=0),
        nn.ELU(),
        conv(8, 8, 3, padding=4, gain=3.0),
        nn.GELU(),
        conv(8, 8, (5, 2), padding=(0, 1), dilation=(1, 2), gain=3.0),
        head(),
    )


def overpadded() -> nn.Module:
    """So much padding that the outermost outputs read nothing else."""
    return nn.Sequential(conv(3, 8, padding=6), nn.ReLU(), conv(8, 8, 1, padding=2), nn.ReLU(), conv(8, 8), head())


def strided_past_pixels() -> nn.Module:
    """A stride larger than the kernel leaves pixels that nothing reads."""
    return nn.Sequential(conv(3, 8, 2, stride=3, padding=0), nn.ReLU(), conv(8, 8), head())


def dilated() -> nn.Module:
    """Kernels with taps that never meet the map, one of them with a stride, and a depthwise one."""
    return nn.Sequential(
        unit(3, 8, stride=2),
        unit(8, 8, stride=2),
        conv(8, 8, dilation=12, gain=4.0),
        nn.ReLU(),
        conv(8, 8, (3, 3), dilation=(2, 24), padding=(2, 24), bias=False, gain=3.0),
        nn.ReLU(),
        conv(8, 8, dilation=6, groups=8, gain=3.0),
        conv(8, 8, dilation=9, stride=2, gain=3.0),
        nn.ReLU(),
        conv(8, 8, dilation=36, gain=4.0),
        head(),
    )


def depthwise() -> nn.Module:
    return nn.Sequential(
        unit(3, 8, stride=2), unit(8, 8, groups=8), unit(8, 16, 1), unit(16, 16, 5, groups=4, stride=2), head(16)
    )


def residual() -> nn.Module:
    """One in-place ReLU that serves thrice, and `+=` on a branch."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        y = self.relu(self.norm(self.first(x)))
        y = self.second(y)
        y += x
        y = self.relu(y)
        return self.head(y + self.third(y))

    return Of(
        forward,
        stem=conv(3, 8, stride=2),
        relu=nn.ReLU(inplace=True),
        first=conv(8, 8, bias=False),
        norm=nn.BatchNorm2d(8),
        second=conv(8, 8),
        third=conv(8, 8, dilation=2),
        head=head(),
    )


def in_place_functions() -> nn.Module:
    """What an earlier reader saw is overwritten after it has read."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        side = self.side(x)
        x = F.relu(x, inplace=True)
        x += side
        x *= 0.5
        return self.head(self.last(x).relu_() + side)

    return Of(forward, stem=conv(3, 8, stride=2), side=conv(8, 8), last=conv(8, 8), head=head())


def negative_max_pooling() -> nn.Module:
    """Below zero everywhere, so that padding with 0 would win at every border."""
    return nn.Sequential(
        conv(3, 8),
        nn.Hardtanh(-9, -0.01),
        nn.MaxPool2d(3, 2, 1),
        conv(8, 8),
        nn.Hardtanh(-9, -0.01),
        nn.MaxPool2d((2, 5), (2, 1), (1, 2)),
        nn.MaxPool2d(3, 1, 1),
        nn.MaxPool2d(3, 1, 1, dilation=2),
        head(),
    )


def other_pooling() -> nn.Module:
    """Kinds of pooling that are not known: rounded up, averaged, and by power."""
    return nn.Sequential(
        unit(3, 8), nn.MaxPool2d(3, 2, ceil_mode=True), unit(8, 8), nn.AvgPool2d(2), unit(8, 8), head()
    )


class SqueezeExcitation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Sequential(conv(channels, 4, 1), nn.ReLU(), conv(4, channels, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.pool(x))


def squeeze_excitation() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.second(self.attend(self.first(x)))
        return self.head(x * torch.sigmoid(x.mean((2, 3), keepdim=True)))

    return Of(forward, first=unit(3, 8, stride=2), attend=SqueezeExcitation(8), second=unit(8, 8), head=head())


def gates_in_place() -> nn.Module:
    """Maps of one pixel and of one channel, whose memory is contiguous in either order, overwritten by methods."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x * self.gate(F.adaptive_avg_pool2d(x, 1)).sigmoid_()
        return self.head(x * self.one(x).mul_(1.5).clamp_(-2.0, 3.0))

    return Of(forward, stem=unit(3, 8, stride=2), gate=conv(8, 8, 1), one=conv(8, 1), head=head())


def norms_first() -> nn.Module:
    """Batch norms before convolutions, which do not fold into them."""
    middle = [nn.BatchNorm2d(8), nn.ReLU(), conv(8, 8), nn.BatchNorm2d(8), conv(8, 8), nn.BatchNorm2d(8), nn.SiLU()]
    return nn.Sequential(conv(3, 8, stride=2), nn.ReLU(), *middle, head())


def aspp() -> nn.Module:
    """As torchvision's DeepLabV3, down to the resizing inside."""

    def forward(self: Any, x: Tensor) -> dict[str, Tensor]:
        size = x.shape[-2:]
        x = self.backbone(x)
        everywhere = F.interpolate(self.pooled(x), size=x.shape[-2:], mode="bilinear", align_corners=False)
        x = torch.cat([self.one(x), self.near(x), self.far(x), everywhere], dim=1)
        x = self.head(self.project(x))
        return {"out": F.interpolate(x, size=size, mode="bilinear", align_corners=False), "aux": x}

    return Of(
        forward,
        backbone=nn.Sequential(unit(3, 8, stride=2), unit(8, 8, stride=2)),
        one=unit(8, 8, 1),
        near=unit(8, 8, dilation=3),
        far=unit(8, 8, dilation=12),
        pooled=nn.Sequential(nn.AdaptiveAvgPool2d(1), unit(8, 8, 1)),
        project=unit(32, 8, 1),
        head=head(),
    )


def unet() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        a = self.a(x)
        b = self.b(self.pool(a))
        c = self.c(self.pool(b))
        b = self.up_b(torch.cat([self.fit(self.widen(c), b), b], 1))
        a = self.up_a(torch.cat((self.fit(self.upsample(b), a), a), dim=1))
        return self.head(a)

    module = Of(
        forward,
        a=unit(3, 8), b=unit(8, 8), c=unit(8, 8), pool=nn.MaxPool2d(2), widen=nn.ConvTranspose2d(8, 8, 2, 2),
        upsample=nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True),
        up_a=unit(16, 8), up_b=unit(16, 8), head=head(),
    )  # fmt: skip
    module.fit = lambda one, like: F.interpolate(one, size=(like.size(2), like.size(3)))  # odd sizes
    return module


def norms() -> nn.Module:
    """Statistics of the whole map."""
    return nn.Sequential(
        conv(3, 8, stride=2), nn.GroupNorm(2, 8), nn.ReLU(), conv(8, 8), nn.InstanceNorm2d(8, affine=True), head()
    )


def attention() -> nn.Module:
    """Over positions, by hand and by torch's own module."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        b, c, h, w = x.shape
        q, k, v = self.qkv(x).flatten(2).chunk(3, dim=1)
        weights = ((q.transpose(1, 2) @ k) * 0.3).softmax(-1)
        x = x + (v @ weights.transpose(1, 2)).view(b, c, h, w)
        rows = x.flatten(2).transpose(1, 2)
        more, _ = self.own(rows, rows, rows)
        return self.head(x + more.transpose(1, 2).reshape(b, c, h, w))

    parts = {"own": nn.MultiheadAttention(8, 2, batch_first=True), "stem": nn.Sequential(unit(3, 8, stride=4))}
    return Of(forward, **parts, qkv=conv(8, 24, 1), head=head(gain=1.0))


def channels_last_blocks() -> nn.Module:
    """Channels at the end, as in ConvNeXt: four axes of which the last two are not rows and columns."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.depthwise(x).permute(0, 2, 3, 1)
        y = self.second(F.gelu(self.first(self.norm(y))))
        y = torch.cat([y, y * 0.5], 1)[:, : y.shape[1]] + y
        return self.head(x + y.permute(0, 3, 1, 2))

    parts = {"depthwise": conv(8, 8, 7, groups=8), "norm": nn.LayerNorm(8), "first": nn.Linear(8, 16)}
    return Of(forward, stem=conv(3, 8, 4, stride=4, padding=0), **parts, second=nn.Linear(16, 8), head=head())


def split_and_shuffled() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        a, b = x.chunk(2, dim=1)
        c, d = torch.split(self.wide(a * torch.sigmoid(b)), 4, 1)
        x = torch.cat([c, d], dim=1)
        n, channels, h, w = x.size()
        x = x.view(n, 2, channels // 2, h, w).transpose(1, 2).reshape(n, -1, h, w)
        return self.head(self.last(x)[:, :8])

    return Of(forward, stem=unit(3, 8, stride=2), wide=unit(4, 8), last=unit(8, 12), head=head())


def arithmetic() -> nn.Module:
    """Numbers on either side, one map twice, and a map that is broadcast."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = 1 - self.wide(x) * 0.5 + x
        y = torch.add(y, x, alpha=0.3) - y * y * 0.1
        y = torch.mul(y, self.one(x)) + x / 2 - (-y)
        return self.head(y - torch.relu(x) ** 2 * 0.1)

    return Of(forward, stem=conv(3, 8, stride=2), wide=conv(8, 8), one=conv(8, 1), head=head(gain=1.0))


def concatenated_rows() -> nn.Module:
    """Maps joined along their rows, and halves of a map that are swapped."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x[:, :, 3:], x[:, :, :3]], 2)
        return self.head(self.wide(torch.cat([x, x.flip(3)], dim=-3)))

    return Of(forward, stem=unit(3, 8, stride=2), wide=conv(16, 8), head=head())


def own_weights() -> nn.Module:
    """A tensor of the module's own as a channel's factor."""

    def forward(self: Any, x: Tensor) -> Tensor:
        return self.head(F.relu(self.stem(x) * self.factor))

    return Of(forward, stem=conv(3, 8), head=head(), factor=torch.rand(1, 8, 1, 1, generator=torch.Generator()))


def comparing() -> nn.Module:
    """Booleans as maps."""

    def forward(self: Any, x: Tensor) -> Tensor:
        y = self.stem(x)
        return self.head(torch.where(y > 0.2, y, y * 0.1)) * (x.mean((1, 2, 3), keepdim=True) > -9)

    return Of(forward, stem=conv(3, 8), head=head())


def padded_otherwise() -> nn.Module:
    """Reflected, repeated and wrapped borders, and padding given in words."""
    return nn.Sequential(
        conv(3, 8, padding=2, padding_mode="reflect"),
        nn.ReLU(),
        conv(8, 8, padding="same", dilation=2),
        nn.ReLU(),
        conv(8, 8, padding="valid"),
        nn.ReLU(),
        conv(8, 8, padding_mode="replicate"),
        conv(8, 8, padding_mode="circular"),
        nn.ZeroPad2d((1, 0, 2, 0)),
        head(),
    )


def sharing() -> nn.Module:
    """One convolution under two norms, one norm after two convolutions."""

    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        a, b = F.relu(self.norms[0](self.shared(x))), F.relu(self.norms[1](self.shared(x)))
        return self.head(a + self.norms[1](self.other(b)))

    norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
    return Of(forward, stem=unit(3, 8, stride=2), shared=conv(8, 8), norms=norms, other=conv(8, 8), head=head())


def one_channel() -> nn.Module:
    return nn.Sequential(unit(3, 8, stride=2), unit(8, 8), head(classes=1))


def as_tuple() -> nn.Module:
    return Of(lambda self, x: (self.net(x), x.mean((1, 2, 3))), net=plain_cnn())


def as_nested_list() -> nn.Module:
    return Of(lambda self, x: [{"out": (self.net(x),)}, x.mean((1, 2, 3))], net=plain_cnn())


def coarse() -> nn.Module:
    return nn.Sequential(unit(3, 8, stride=2), unit(8, 8, stride=2), unit(8, 8, stride=2), head())


def resized(**options: Any) -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        return F.interpolate(self.net(x), **options) if options else F.interpolate(self.net(x), x.shape[-2:])

    return Of(forward, net=coarse())


def resized_with_corners() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        return F.interpolate(self.net(x), size=x.shape[-2:], mode="bilinear", align_corners=True)

    return Of(forward, net=coarse())


def double() -> nn.Module:
    return plain_cnn().double()


@dataclass
class Output:
    logits: Tensor


class Result:
    """Not a dataclass, so that a trace cannot return it."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


def used_for_its_size() -> nn.Module:
    """A map of which nothing but the shape is read."""

    def forward(self: Any, x: Tensor) -> Tensor:
        size = self.other(x).shape[-2:]
        return self.head(F.interpolate(self.stem(x), size=size, mode="nearest"))

    return Of(forward, other=conv(3, 8, stride=3), stem=unit(3, 8), head=head())


def asking_for_sizes() -> nn.Module:
    """Checks the image's size, and a map's, and goes through sizes one by one; as segmentation libraries do."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if x.shape[-2] % 1 != 0 or x.shape[-1] < 2:
            raise RuntimeError("wrong input shape")
        size = [length // 1 for length in x.shape[2:]]
        y = self.stem(x)
        if y.shape[2] > x.shape[2]:
            y = y * 100
        return self.head(F.interpolate(y, size=size))

    return Of(forward, stem=unit(3, 8, stride=2), head=head())


def group_normed(width: int = 8) -> nn.Module:
    """Residual blocks with group norms at three scales, as in MONAI's SegResNet."""

    def block(channels: int) -> nn.Module:
        one, two = ([nn.GroupNorm(4, channels), nn.ReLU(True), conv(channels, channels, bias=False)] for _ in range(2))
        return Of(lambda self, x: x + self.net(x), net=nn.Sequential(*one, *two))

    def forward(self: Any, x: Tensor) -> Tensor:
        scales = [self.first(self.stem(x))]
        for down, inner in zip(self.down, self.inner, strict=True):
            scales.append(inner(down(scales[-1])))
        x = scales.pop()
        for up, outer in zip(self.up, self.outer, strict=True):
            x = F.interpolate(up(x), scale_factor=2, mode="bilinear", align_corners=False)
            x = outer(x + scales.pop())
        return self.head(F.relu(self.norm(x)))

    a, b, c = width, 2 * width, 4 * width
    return Of(
        forward,
        stem=conv(3, a), first=block(a), norm=nn.GroupNorm(4, a), head=head(a),
        down=nn.ModuleList([conv(a, b, stride=2), conv(b, c, stride=2)]), inner=nn.ModuleList([block(b), block(c)]),
        up=nn.ModuleList([conv(c, b, 1), conv(b, a, 1)]), outer=nn.ModuleList([block(b), block(a)]),
    )  # fmt: skip


def as_dataclass() -> nn.Module:
    return Of(lambda self, x: Output(self.net(x)), net=plain_cnn())


def as_object() -> nn.Module:
    return Of(lambda self, x: Result(self.net(x)), net=plain_cnn())


def data_dependent() -> nn.Module:
    def forward(self: Any, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.wide(x) if float(x.mean()) > 100 else x)

    return Of(forward, stem=unit(3, 8), wide=unit(8, 8), head=head())


def batch_statistics() -> nn.Module:
    """In evaluation mode too its norms mix the images of a batch."""
    norm = nn.BatchNorm2d(8, track_running_stats=False)
    return nn.Sequential(conv(3, 8, stride=2), norm, nn.ReLU(), conv(8, 8), head())


def hooked() -> nn.Module:
    module = plain_cnn()
    module[0].register_forward_hook(lambda module, inputs, output: output * 2)
    return module


def hooked_before() -> nn.Module:
    module = plain_cnn()
    module[1].register_forward_pre_hook(lambda module, inputs: (inputs[0] - 0.3,))
    return module


class Counting(nn.Module):
    """Silent on its first two calls: the first shows where the logits are, and the second is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls = plain_cnn(), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        z = self.net(x)
        return z if self.calls > 2 else z * 0.5


class Branching(nn.Module):
    """Another path in evaluation mode than in training mode: a trace must be taken in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain_cnn()

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x)
        return z * 3 if self.training else z


TRACED: dict[str, Callable[[], nn.Module]] = {
    one.__name__: one
    for one in [
        plain_cnn, odd_kernels, overpadded, strided_past_pixels, dilated, depthwise, residual, negative_max_pooling,
        other_pooling, squeeze_excitation, aspp, unet, norms, attention, channels_last_blocks, split_and_shuffled,
        arithmetic, concatenated_rows, own_weights, comparing, padded_otherwise, one_channel, as_tuple,
        as_nested_list, coarse, resized_with_corners, double, used_for_its_size, Branching,
        asking_for_sizes, gates_in_place, norms_first,
    ]
} | {
    "resized nearest": resized,
    "resized to 20 x 30": lambda: resized(size=(20, 30), mode="bilinear", align_corners=False),
    "larger than the image": lambda: resized(scale_factor=20, mode="bilinear", align_corners=False),
    "resized bicubic": lambda: resized(size=(37, 53), mode="bicubic", align_corners=False),
    "resized with antialias": lambda: resized(size=(37, 53), mode="bilinear", align_corners=False, antialias=True),
}  # fmt: skip
UNTRACED: dict[str, Callable[[], nn.Module]] = {
    one.__name__: one
    for one in [as_dataclass, as_object, data_dependent, batch_statistics, hooked, hooked_before, Counting]
}
EITHER: dict[str, Callable[[], nn.Module]] = {one.__name__: one for one in [in_place_functions, sharing]}
"""Served by either path, as long as the result is exact."""
