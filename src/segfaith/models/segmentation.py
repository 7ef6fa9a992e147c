"""Any `torch.nn.Module` as a segmentation model that takes images in [0, 1] and returns logits at the image's size."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from copy import copy
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from segfaith.errors import SampleError, SettingsError, no_exit
from segfaith.halves import Wiring, halves
from segfaith.models.inputs import channels_of, check_module, normalisation
from segfaith.models.layers import Reshape, check_tokens, layer_names, unwrapped
from segfaith.models.modes import evaluating, frozen
from segfaith.models.outputs import Step, check_aspect, check_output, logits_in
from segfaith.models.padding import check_pad, multiple_of, offered, pad_to
from segfaith.models.tiling import tiling_of
from segfaith.types import Float, Image

Tokens = int | Literal["auto"]
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
        layer: dotted name of the feature layer for gradient evidence (several: joined by "+"); None until gradient
            evidence chooses one.
        input_channels: how many channels (bands) its images have.
        mean, std: normalisation, applied per channel to images in [0, 1] as the model's first step.
        classes: names in the order of the output channels, or None.
        name: the model's name in all outputs.
        weights: where the weights come from, in words; outputs repeat it.
        provenance: what `run.json` records about the weights: file, SHA-256 digests.
        head: what the outputs are, as the user says; None: logits are assumed. See `as_logits`.
        output, place: where the user says that the logits are in the module's output, and the steps to where they were
            in the last pass (None before it); see `outputs.logits_in`.
        tokens, reshape, layer_notes: how layers are read, see `evidence.forms`; and by layer what a reader must know.
        mixing: why images must not share a batch, set by `probe`; "" if they may.
        incremental: whether interventions may recompute only what they change (see `incremental`); exact to 1e-5.
        pad: sides of images are padded to multiples of it, and logits cropped back; None: no padding. See `padding`.
        tiling: the tiles in which images go through the module; None: whole images. See `tiling`.
        wiring: how the logits of two photographs side by side are exchanged, see `halves`; None: images are whole.
        compile: whether interventions run whole images through `torch.compile` instead.
        memory: bytes that passes may take; a model whose graph would take more is run without one. None: no limit.
        why_no_layer: why a library's model has no default feature layer, in words; "" for all others.
    """

    incremental = True
    compile = False
    memory: int | None = None
    why_no_layer = ""
    wiring: Wiring | None = None
    at_halves = False
    _of_half: "SegmentationModel | None" = None
    place: tuple[Step, ...] | None
    layer_notes: dict[str, str]

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
        pad: int | None = None,
        tile: int | Sequence[int] | None = None,
        overlap: int | None = None,
        output: Step | None = None,
        tokens: Tokens = "auto",
        reshape: Reshape | None = None,
    ) -> None:
        check_module(module)
        check_output(output)
        check_tokens(tokens, reshape)
        check_pad(pad)
        if head is not None and head not in get_args(Head):
            raise SettingsError(f"head = {head!r}: expected {', '.join(get_args(Head))}, or None (logits are assumed)")
        if channels is not None and (not isinstance(channels, int) or channels < 1):
            raise SettingsError(f"channels = {channels!r}: expected the number of the image's channels, at least 1")
        self.module: nn.Module = unwrapped(module)
        if self.softmax_only and head in ("sigmoid", "probabilities"):
            raise SettingsError(
                f"head = {head!r}: {name} is a query model, whose classes compete for each pixel: its outputs are the "
                "logarithms of the classes' scores, of which a softmax makes probabilities; leave head out"
            )
        self.head: Head | None = head
        self.pad, self.tiling = pad, tiling_of(tile, overlap, pad)
        self._channels: int | None = None
        self.mixing = ""
        self.output, self.place = output, None
        self.tokens, self.reshape = tokens, reshape
        self.layer_notes = {}
        self.input_channels = channels or channels_of(self.module, mean)
        self.mean, self.std = normalisation(mean, std, self.input_channels)
        self._normalisation: tuple[Any, list[Tensor]] = (None, [])  # a key, and mean and std as tensors
        self.classes = None if classes is None else list(classes)
        self.name = name
        self.weights = weights
        self.provenance = dict(provenance or {})
        self.layer = None if layer is None else "+".join(layer_names(self.module, layer, name))

    def __repr__(self) -> str:
        return f"SegmentationModel({self.name!r}, layer={self.layer!r}, head: {self.head_words})"

    @property
    def channels(self) -> int | None:
        """Channels of the module's outputs, as last seen; None before the first pass."""
        return self._channels

    @property
    def softmax_only(self) -> bool:
        """Whether the module says that no other head fits its outputs, as a query model's; see `adapters.queries`."""
        return bool(getattr(self.module, "softmax_only", False))

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
        if self.softmax_only:
            source = "of the logarithms of a query model's scores: each class's share of them"
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
    def wired(self) -> bool:
        """Whether images are canvases of two photographs."""
        return self.wiring is not None

    @property
    def of_half(self) -> "SegmentationModel":
        """This model without its wiring, for one photograph; the same object at each call, and it shares the module."""
        if self._of_half is None:
            self._of_half = copy(self)
        vars(self._of_half).update(vars(self), wiring=None, _of_half=None, _normalisation=(None, []))
        return self._of_half

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

    def layer_names(self, layer: str | None = None) -> list[str]:
        """The names of the submodules that `layer` names, by default the model's own feature layer.

        Raises:
            SettingsError: see `models.layers.layer_names`.
        """
        return layer_names(self.module, self.layer if layer is None else layer, self.name, self.why_no_layer)

    def evaluating(self, *, tf32: bool = False) -> AbstractContextManager[None]:
        """Evaluation mode inside a `with` block, in full float32 unless `tf32`: see `modes.evaluating`."""
        return evaluating(self.module, self.device, tf32=tf32)

    def frozen(self) -> AbstractContextManager[None]:
        """Inside a `with` block no parameter requires a gradient: see `modes.frozen`."""
        return frozen(self.module)

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

    def padded(self, images: Float[Tensor, "*N H W"]) -> Float[Tensor, "*N h w"]:
        """Images, or one image, at a size that goes through the module: see `pad` and `tiling`."""
        size = (images.shape[-2], images.shape[-1])
        if self.tiling is not None:
            return pad_to(images, self.tiling.padded_size(size))
        return pad_to(images, multiple_of(size, self.pad or 1))

    def first_input(self, image: Image) -> Float[Tensor, "bands h w"]:
        """What goes through the module of an image: the padded image, its first tile, or the left photograph."""
        image = halves(image)[0] if self.wired else image
        rows, columns = (None, None) if self.tiling is None else self.tiling.tile
        return self.padded(image)[:, :rows, :columns].contiguous()

    def logits_of(
        self, module: Callable[[Tensor], Any], images: Float[Tensor, "N bands H W"]
    ) -> Float[Tensor, "N C H W"]:
        """`logits` of a stand-in for the module, such as its compiled form."""
        return self.framed(images, partial(self.logits_at_once, module))

    def framed(self, images: Float[Tensor, "N bands H W"], run: Callable[[Tensor], Tensor]) -> Float[Tensor, "N C H W"]:
        """`logits` from a function that gives those of padded images, or of tiles of one place in the images.

        Where photographs are wired, N canvases are 2 N photographs, those of the left halves first.
        """
        if self.wiring is not None and not self.at_halves:
            self.at_halves = True
            try:
                both = self.framed(torch.cat(halves(images)), run)
            finally:
                self.at_halves = False
            return self.wiring.logits(both[: len(images)], both[len(images) :])
        padded = self.padded(images)
        logits = run(padded) if self.tiling is None else self.tiling.blended(padded, run)
        return logits[..., : images.shape[-2], : images.shape[-1]]

    def logits_at_once(
        self, module: Callable[[Tensor], Any], images: Float[Tensor, "N bands H W"]
    ) -> Float[Tensor, "N C H W"]:
        """`logits_of` without padding and tiles."""
        logits = self.as_logits(self.outputs_of(module, images))
        if logits.shape[-2:] != images.shape[-2:]:
            came, size = (logits.shape[1], logits.shape[2], logits.shape[3]), (images.shape[-2], images.shape[-1])
            check_aspect(self.name, came, size)
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
        fails = f"{self.name} cannot be run on images of shape {tuple(inputs.shape)}"
        with self.evaluating(), no_exit(fails), offered(fails, module, inputs):
            output, self.place = logits_in(module(inputs), len(images), self.output)
        floating = output.is_floating_point()
        if output.ndim != 4 or len(output) != len(images) or not output.numel() or not floating:
            raise SampleError(
                f"{self.name} returned {output.dtype} of shape {tuple(output.shape)}; expected floating-point logits "
                f"({len(images)}, classes, height, width)"
                + ("" if floating else ", not decisions: return what comes before the argmax or the threshold")
            )
        self._channels = output.shape[1]
        return output
