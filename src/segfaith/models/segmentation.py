"""Any `torch.nn.Module` as a segmentation model that takes RGB in [0, 1] and returns logits at the image's size."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from segfaith.errors import SampleError, SettingsError
from segfaith.lookup import nearest
from segfaith.types import Float

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class SegmentationModel:
    """A module with all that segfaith needs to know of it. Made by `wrap` or `load_model`.

    Attributes:
        module: the user's own module, used as it is; it comes back as it was (train flags, requires_grad, hooks).
        layer: dotted name of the feature layer for gradient evidence, or None where no gradient method is used.
        mean, std: normalisation, applied per channel to RGB in [0, 1] as the model's first step.
        classes: names in the order of the output channels, or None.
        name: how outputs call the model.
        weights: where the weights come from, in words; outputs repeat it.
        provenance: what `run.json` records of the weights: file, SHA-256 digests.
        incremental: whether interventions may recompute only what they change (see `incremental`); exact to 1e-5.
        compile: whether interventions go through `torch.compile` instead, as whole images.
    """

    incremental = True
    compile = False

    def __init__(
        self,
        module: nn.Module,
        *,
        layer: str | None,
        mean: Sequence[float],
        std: Sequence[float],
        classes: Sequence[str] | None,
        name: str,
        weights: str,
        provenance: Mapping[str, str] | None = None,
    ) -> None:
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise SettingsError(
                f"mean and std need three values each, std above 0; got mean={list(mean)}, std={list(std)}"
            )
        self.module = module
        self.layer = layer
        self.mean, self.std = tuple(mean), tuple(std)
        self._normalisation: tuple[Any, list[Tensor]] = (None, [])  # for what, and both as tensors
        self.classes = None if classes is None else list(classes)
        self.name = name
        self.weights = weights
        self.provenance = dict(provenance or {})
        if layer is not None:
            self.feature_module(layer)

    @property
    def device(self) -> torch.device:
        """Where the module's parameters lie (the CPU for a module without any)."""
        tensor = self._first_tensor()
        return torch.device("cpu") if tensor is None else tensor.device

    @property
    def one_by_one(self) -> bool:
        """Whether images must not share a batch: a batch norm without running statistics would mix them."""
        return any(isinstance(one, _BatchNorm) and one.running_mean is None for one in self.module.modules())

    def _first_tensor(self) -> Tensor | None:
        return next(self.module.parameters(), next(self.module.buffers(), None))

    def to(self, device: str | torch.device) -> "SegmentationModel":
        """Moves the module, in place, and returns self."""
        self.module.to(device)
        return self

    def feature_module(self, layer: str | None = None) -> nn.Module:
        """The module of the dotted name `layer`, by default the model's own feature layer.

        Raises:
            SettingsError: no layer was named, or there is none of that name (the nearest ones are listed).
        """
        layer = self.layer if layer is None else layer
        modules: dict[str, nn.Module] = dict(self.module.named_modules())
        modules.pop("")
        if layer is None:
            raise SettingsError(
                f"gradient methods need a feature layer and {self.name} names none; give layer=..., usually the last "
                f"layer of the backbone. The last ones: {', '.join(list(modules)[-8:])}"
            )
        if layer not in modules:
            close = nearest(layer, modules, 5) or list(modules)[-5:]
            raise SettingsError(f"{self.name} has no layer {layer!r}; the nearest are {', '.join(close)}")
        return modules[layer]

    @contextmanager
    def evaluating(self, *, tf32: bool = False) -> Iterator[None]:
        """Evaluation mode inside the block; every submodule's own train flag is restored after it.

        On a GPU, convolutions run by deterministic algorithms inside the block, and all in full float32 unless `tf32`.
        """
        training = [module for module in self.module.modules() if module.training]
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
        """Inside the block no parameter requires a gradient, so that a graph is recorded only from where one starts."""
        free = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        for parameter in free:
            parameter.requires_grad = False
        try:
            yield
        finally:
            for parameter in free:
                parameter.requires_grad = True

    def logits(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C H W"]:
        """z = f(x): logits in float32, bilinearly resized to (H, W) with align_corners=False.

        The module runs in evaluation mode. A one-channel output z means the classes [0, z].

        Raises:
            SampleError: the output is not usable as logits; the message says what came.
        """
        return self.logits_of(self.module, images)

    def normalise(self, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 H W"]:
        """(x - mean) / std per channel."""
        key = self.mean, self.std, images.device, images.dtype
        if self._normalisation[0] != key:
            with torch.inference_mode(False):  # or gradients could not use them later
                kind: dict[str, Any] = {"device": images.device, "dtype": images.dtype}
                self._normalisation = key, [torch.tensor(one, **kind)[:, None, None] for one in (self.mean, self.std)]
        mean, std = self._normalisation[1]
        return (images - mean) / std

    def logits_of(self, module: Callable[[Tensor], Any], images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N C H W"]:
        """`logits` of a stand-in for the module, such as its compiled form."""
        if len(images) > 1 and self.one_by_one:
            return torch.cat([self.logits_of(module, one[None]) for one in images])
        tensor = self._first_tensor()
        inputs = self.normalise(images)
        if tensor is not None and tensor.is_floating_point():
            inputs = inputs.to(tensor.dtype)
        with self.evaluating():
            output = _logits_of(module(inputs))
        if output.ndim != 4 or output.shape[0] != len(images) or not output.is_floating_point():
            raise SampleError(
                f"{self.name} returned {output.dtype} of shape {tuple(output.shape)}; expected floating-point logits "
                f"({len(images)}, classes, height, width)"
            )
        output = output.float()
        if output.shape[-2:] != images.shape[-2:]:
            output = F.interpolate(output, size=images.shape[-2:], mode="bilinear", align_corners=False)
        return torch.cat([torch.zeros_like(output), output], 1) if output.shape[1] == 1 else output


def _logits_of(output: Any) -> Tensor:
    """The logits in what a segmentation module returned: tensor, `.logits`, dict with `out`, tuple or list."""
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "logits"):
        return _logits_of(output.logits)
    if isinstance(output, Mapping) and "out" in output:
        return _logits_of(output["out"])
    if isinstance(output, tuple | list) and output:
        return _logits_of(output[0])
    keys = f" with keys {list(output)}" if isinstance(output, Mapping) else ""
    raise SampleError(
        f"cannot find logits in a {type(output).__name__}{keys}; expected a tensor, a dict with 'out', a tuple or list "
        "whose first item is one of these, or an object with .logits"
    )


def wrap(
    module: nn.Module,
    *,
    layer: str | None = None,
    classes: Sequence[str] | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    name: str | None = None,
) -> SegmentationModel:
    """Makes any segmentation module usable by segfaith, without changing it.

    Args:
        module: takes normalised RGB (N, 3, H, W); returns logits (N, C, h, w) of any resolution as a tensor, a dict
            with `out`, a tuple or list whose first item they are, or an object with `.logits`. One channel means the
            logit of a sigmoid foreground (class 1). In evaluation mode an image's logits must not depend on the others
            of its batch; models with batch norms that keep no running statistics are given one image at a time.
        layer: dotted name of the feature layer for gradient methods, as in `module.named_modules()`.
        classes: class names in the order of the channels.
        mean, std: normalisation of RGB in [0, 1]; ImageNet's by default. Give (0, 0, 0) and (1, 1, 1) for none.

    Raises:
        SettingsError: the layer does not exist, or mean or std are not three numbers.
    """
    return SegmentationModel(
        module,
        layer=layer,
        mean=mean,
        std=std,
        classes=classes,
        name=name or type(module).__name__,
        weights="as given",
    )
