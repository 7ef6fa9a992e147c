"""Any `torch.nn.Module` as a segmentation model that takes images in [0, 1] and returns logits at the image's size."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from segfaith.classes import read_classes
from segfaith.errors import SampleError, SettingsError, no_exit
from segfaith.lookup import nearest
from segfaith.models.inputs import channels_of, check_module, normalisation
from segfaith.models.outputs import logits_in
from segfaith.types import Float

Head = Literal["softmax", "sigmoid", "logits", "probabilities"]
"""What a module's outputs are.

`softmax`: logits of classes that exclude each other. `sigmoid`: logits of classes that each have a sigmoid and may
overlap. `logits`: as `softmax`, or the sigmoid's logit for a single channel, and `probe` does not check it.
`probabilities`: the values of the softmax, or of a single channel's sigmoid. If it is not given, logits of a softmax
(one channel: of a sigmoid) are assumed, and `probe` refuses what cannot be logits.
"""


class SegmentationModel:
    """A module, and what segfaith needs to know about it. Made by `wrap` or `load_model`.

    Attributes:
        module: the user's own module (for a compiled module, the module that was compiled); its train flags,
            requires_grad and hooks are restored after use.
        layer: dotted name of the feature layer for gradient evidence, or None where no gradient method is used.
        input_channels: how many channels (bands) its images have.
        mean, std: normalisation, applied per channel to images in [0, 1] as the model's first step.
        classes: names in the order of the output channels, or None.
        name: the model's name in all outputs.
        weights: where the weights come from, in words; outputs repeat it.
        provenance: what `run.json` records about the weights: file, SHA-256 digests.
        head: what the outputs are, as the user says; None: logits are assumed. See `as_logits`.
        mixing: why images must not share a batch, set by `probe`; "" if they may.
        incremental: whether interventions may recompute only what they change (see `incremental`); exact to 1e-5.
        compile: whether interventions run whole images through `torch.compile` instead.
        why_no_layer: why a library's model has no default feature layer, in words; "" for all others.
    """

    incremental = True
    compile = False
    why_no_layer = ""

    def __init__(
        self,
        module: nn.Module,
        *,
        layer: str | None,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        classes: Sequence[str] | None,
        name: str,
        weights: str,
        channels: int | None = None,
        provenance: Mapping[str, str] | None = None,
        head: Head | None = None,
    ) -> None:
        check_module(module)
        if hasattr(module, "_orig_mod"):  # torch.compile's module, which would ignore hooks that are added later
            module = cast(nn.Module, module._orig_mod)
            layer = layer.removeprefix("_orig_mod.") if isinstance(layer, str) else layer
        if head is not None and head not in get_args(Head):
            raise SettingsError(f"head = {head!r}: expected {', '.join(get_args(Head))}, or None (logits are assumed)")
        if channels is not None and (not isinstance(channels, int) or channels < 1):
            raise SettingsError(f"channels = {channels!r}: expected the number of the image's channels, at least 1")
        self.module = module
        self.head: Head | None = head
        self._channels: int | None = None
        self.mixing = ""
        self.layer = layer
        self.input_channels = channels or channels_of(self.module, mean)
        self.mean, self.std = normalisation(mean, std, self.input_channels)
        self._normalisation: tuple[Any, list[Tensor]] = (None, [])  # a key, and mean and std as tensors
        self.classes = None if classes is None else list(classes)
        self.name = name
        self.weights = weights
        self.provenance = dict(provenance or {})
        if layer is not None:
            self.feature_module(layer)

    def __repr__(self) -> str:
        return f"SegmentationModel({self.name!r}, layer={self.layer!r}, head: {self.head_words})"

    @property
    def channels(self) -> int | None:
        """Channels of the module's outputs, as last seen; None before the first pass."""
        return self._channels

    @property
    def independent(self) -> bool:
        """Whether each class has its own sigmoid, so that classes may overlap; False before the first pass."""
        return self.head == "sigmoid" and (self.channels or 1) > 1

    @property
    def head_name(self) -> str | None:
        """What turns outputs into probabilities; "probabilities" if they are already, None before the first pass."""
        if self.head == "probabilities":
            return self.head
        return None if self.channels is None else "sigmoid" if self.channels == 1 or self.independent else "softmax"

    @property
    def head_words(self) -> str:
        """`head_name` in words, and whether the user said so or segfaith assumes it."""
        source = "assumed" if self.head is None else f"as head = {self.head!r} says"
        if self.channels is None:
            what = self.head_name or "softmax over several channels, sigmoid of one"
        elif self.channels == 1:
            what = "probabilities of one channel" if self.head == "probabilities" else "sigmoid of one channel"
        else:
            joins = {"probabilities": "of", "sigmoid": "of each of"}
            what = f"{self.head_name} {joins.get(self.head or '', 'over')} {self.channels} channels"
        return f"{what}, {source}"

    @property
    def class_count(self) -> int | None:
        """The number of classes: the number of channels, or 2 for a single channel; None before the first pass."""
        return None if self.channels is None else max(self.channels, 2)

    @property
    def device(self) -> torch.device:
        """Where the module's parameters lie (the CPU for a module without any)."""
        tensor = self._first_tensor()
        return torch.device("cpu") if tensor is None else tensor.device

    @property
    def one_by_one(self) -> str:
        """Why images must not share a batch: `mixing`, or batch norms without running statistics; "" if they may."""
        if self.mixing:
            return self.mixing
        norms = any(isinstance(part, _BatchNorm) and part.running_mean is None for part in self.module.modules())
        return "batch norms without running statistics mix the images of a batch" if norms else ""

    def _first_tensor(self) -> Tensor | None:
        return next(self.module.parameters(), next(self.module.buffers(), None))

    def to(self, device: str | torch.device) -> "SegmentationModel":
        """Moves the module, in place, and returns self."""
        self.module.to(device)
        return self

    def feature_module(self, layer: str | None = None) -> nn.Module:
        """The submodule with the dotted name `layer`, by default the model's own feature layer.

        Raises:
            SettingsError: no layer was named, no submodule has that name (the message lists the nearest names), or the
                module is scripted, so that its layers cannot be read.
        """
        layer = self.layer if layer is None else layer
        if layer is not None and not isinstance(layer, str):
            raise SettingsError(
                f"layer is a {type(layer).__name__}; expected a dotted name, as module.named_modules() gives it"
            )
        if layer is not None and isinstance(self.module, torch.jit.ScriptModule):
            raise SettingsError(
                f"layer {layer!r} of a scripted, traced or frozen module ({self.name}) cannot be read; wrap the module "
                "that it was made from, or leave layer out and use ria and the controls"
            )
        modules: dict[str, nn.Module] = dict(self.module.named_modules())
        modules.pop("")
        if layer is None:
            why = self.why_no_layer or "give layer=..., usually the last layer of the backbone"
            names = f". The last layers: {', '.join(list(modules)[-8:])}" if modules else ""
            raise SettingsError(f"gradient methods need a feature layer and {self.name} has none; {why}{names}")
        if layer not in modules:
            close = nearest(layer, modules, 5) or list(modules)[-5:] or ["none, since it has no layers"]
            raise SettingsError(f"{self.name} has no layer {layer!r}; the nearest are {', '.join(close)}")
        return modules[layer]

    @contextmanager
    def evaluating(self, *, tf32: bool = False) -> Iterator[None]:
        """Evaluation mode inside the block; every submodule's own train flag is restored after it.

        On a GPU, convolutions run by deterministic algorithms inside the block, and all in full float32 unless `tf32`.
        """
        training = [part for part in self.module.modules() if getattr(part, "training", False)]  # not set if frozen
        for module in training:
            module.training = False
        cuda = self.device.type == "cuda"
        fixed = {"enabled": True, "deterministic": True, "allow_tf32": tf32}
        exact = torch.backends.cudnn.flags(**fixed) if cuda else nullcontext()
        matmul = torch.backends.cuda.matmul
        before = matmul.allow_tf32 if cuda else False
        try:
            if cuda:
                matmul.allow_tf32 = tf32
            with exact:
                yield
        finally:
            if cuda:
                matmul.allow_tf32 = before
            for module in training:
                module.training = True

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside the block no parameter requires a gradient, so graphs start only at tensors that the caller marks."""
        free = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        for parameter in free:
            parameter.requires_grad = False
        try:
            yield
        finally:
            for parameter in free:
                parameter.requires_grad = True

    def logits(self, images: Float[Tensor, "N bands H W"]) -> Float[Tensor, "N C H W"]:
        """z = f(x): logits in float32, bilinearly resized to (H, W) with align_corners=False.

        The module runs in evaluation mode. A one-channel output z means the classes [0, z]. Outputs that are
        probabilities become logits first, see `as_logits`.

        Raises:
            SampleError: the output is not usable as logits; the message describes the output.
        """
        return self.logits_of(self.module, images)

    def normalise(self, images: Float[Tensor, "N bands H W"]) -> Float[Tensor, "N bands H W"]:
        """(x - mean) / std per channel."""
        key = self.mean, self.std, images.device, images.dtype
        if self._normalisation[0] != key:
            with torch.inference_mode(False):  # gradients cannot use inference tensors
                kind: dict[str, Any] = {"device": images.device, "dtype": images.dtype}
                self._normalisation = key, [torch.tensor(rgb, **kind)[:, None, None] for rgb in (self.mean, self.std)]
        mean, std = self._normalisation[1]
        return (images - mean) / std

    def logits_of(
        self, module: Callable[[Tensor], Any], images: Float[Tensor, "N bands H W"]
    ) -> Float[Tensor, "N C H W"]:
        """`logits` of a stand-in for the module, such as its compiled form."""
        logits = self.as_logits(self.outputs_of(module, images))
        if logits.shape[-2:] != images.shape[-2:]:
            logits = F.interpolate(logits, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return logits

    def as_logits(self, outputs: Float[Tensor, "N C h w"]) -> Float[Tensor, "N K h w"]:
        """The module's outputs as logits in float32. K = C; a single channel z becomes the K = 2 logits [0, z].

        With `head = "probabilities"`, z = log p, and z = log p - log(1 - p) for a single channel. The softmax of these
        logits is p again. p is clamped to the smallest normal float, so that z is finite.
        """
        values = outputs.float()
        if self.head == "probabilities":
            least = torch.finfo(torch.float32).tiny
            logs = values.clamp(min=least).log()
            values = logs - (1 - values).clamp(min=least).log() if values.shape[1] == 1 else logs
        return torch.cat([torch.zeros_like(values), values], 1) if values.shape[1] == 1 else values

    def outputs_of(
        self, module: Callable[[Tensor], Any], images: Float[Tensor, "N bands H W"]
    ) -> Float[Tensor, "N C h w"]:
        """The outputs of the module, or of a stand-in, for images, at the module's resolution and in its float type.

        Raises:
            SampleError: as `logits`.
        """
        if len(images) > 1 and self.one_by_one:
            return torch.cat([self.outputs_of(module, image[None]) for image in images])
        tensor = self._first_tensor()
        inputs = self.normalise(images)
        if tensor is not None and tensor.is_floating_point():
            inputs = inputs.to(tensor.dtype)
        with self.evaluating(), no_exit(f"{self.name} cannot be run on images of shape {tuple(inputs.shape)}"):
            output = logits_in(module(inputs))
        floating = output.is_floating_point()
        if output.ndim != 4 or len(output) != len(images) or not output.numel() or not floating:
            raise SampleError(
                f"{self.name} returned {output.dtype} of shape {tuple(output.shape)}; expected floating-point logits "
                f"({len(images)}, classes, height, width)"
                + ("" if floating else ", not decisions: return what comes before the argmax or the threshold")
            )
        self._channels = output.shape[1]
        return output


def wrap(
    module: nn.Module,
    *,
    layer: str | None = None,
    classes: str | Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    name: str | None = None,
    head: Head | None = None,
    channels: int | None = None,
) -> SegmentationModel:
    """Makes any segmentation module usable by segfaith, without changing it.

    The model is tested before its first use (`models.probe`). It is refused if its outputs cannot be logits, or if two
    calls differ. It gets one image at a time if an image's outputs depend on the other images of a batch.

    Args:
        module: takes normalised images (N, bands, H, W), RGB if there are three bands. Returns logits (N, C, h, w) of
            any resolution as a tensor, a dict with `out` or `logits`, a tuple or list whose first item holds them, or
            an object with `.logits`. A single channel is a sigmoid's logit of the foreground (class 1).
        layer: dotted name of the feature layer for gradient methods, as in `module.named_modules()`.
        classes: class names in the order of the channels; "voc", a list, or a file with one name a line.
        mean, std: normalisation of an image in [0, 1], one value a channel. By default ImageNet's for three channels
            and none for other numbers. Zeros and ones mean none.
        head: what the outputs are, see `Head`. Outputs do not show whether a head is multi-label, with classes that
            may overlap: say "sigmoid" then. Otherwise such a head gets a softmax, and p is not the probability that
            the head means.
        channels: how many channels the images have; None: as many as `mean` has values, or as the module's first
            convolution reads.

    Raises:
        SettingsError: the module, layer, mean, std or head cannot be used; the message says why.
    """
    return SegmentationModel(
        module,
        layer=layer,
        mean=mean,
        std=std,
        classes=read_classes(classes),
        name=name or type(getattr(module, "_orig_mod", module)).__name__,
        weights="as given",
        head=head,
        channels=channels,
    )
