"""Lists the layers of a model that gradient evidence can read, and chooses one where the user named none.

A forward pass with hooks and two backward passes tell what runs once, what the logits depend on, and what a single
pixel's logits read of each layer. An image of twice the width tells axes apart, as in `layer.check_layer`.

The default is the deepest map before the head: of the layers that read context behind them and that run before the
head, the last with the smallest map. The head is the model's last part, of those that the logits depend on, down to a
level where other parts run before it. Layers inside the last block, behind which no context is read, identities, maps
of 1 x 1, and maps of the size that an adaptive pooling gives, as summaries beside the path are, serve only where all
others fail.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from segfaith.errors import SegfaithError, SettingsError, words_of
from segfaith.evidence.forms import Form, convolves, form_of
from segfaith.evidence.layer import CHOSEN, at_centre, extent_of, feature_in, reads_no_context, version_of
from segfaith.models.modes import uncompiled
from segfaith.models.segmentation import SegmentationModel
from segfaith.types import Image, Tensor

POOLS = nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d


@dataclass(frozen=True)
class LayerInfo:
    """A layer that gradient evidence can read.

    Attributes:
        name: dotted, as in a settings file.
        type: the module's class.
        shape: of its maps for one image, (1, K, h, w), after reshaping.
        stride: H / h, in pixels of the image.
        receptive: height and width in pixels of the box in the image on which the map's centre cell depends, by its
            gradient; known of the default and of the last layer before the head, else None.
        default: whether it is read where no layer is named.
        note: what is done to its output and what a reader must know of it; may be empty.
    """

    name: str
    type: str
    shape: tuple[int, int, int, int]
    stride: float
    receptive: tuple[int, int] | None = None
    default: bool = False
    note: str = ""


@dataclass(eq=False)
class _Seen:
    """What hooks saw of a layer in a pass: how often it ran, its output, and why that cannot be read."""

    runs: int = 0
    output: Tensor | None = None
    fault: str = ""
    handed_on: bool = False


@dataclass(eq=False)
class _Read:
    """A layer that can be read: its output in the pass, the form and shape of its maps.

    `repeats`: the model reads no context behind it; `pooled`: it is a summary beside the path; `handed_on`: its output
    is its input, as an identity's; `block`: it is a numbered part, as of a list of blocks, and no mere sequence.
    """

    name: str
    output: Tensor
    form: Form
    shape: tuple[int, int, int, int]
    repeats: bool
    pooled: bool
    handed_on: bool
    block: bool


def layers_of(model: SegmentationModel, image: Image) -> list[LayerInfo]:
    """All layers that gradient evidence can read for an image (bands, H, W) in [0, 1], in the order in which they end.

    Each gives maps (N, K, h, w), channels-last maps or tokens for N images, runs once, and the logits depend on it.

    Model passes: one with the image and one of an image of twice its width, and up to four backward passes.

    Raises:
        SettingsError: there is no such layer; the message says why for the layers that ran last.
    """
    layers, receptive, default = _examined(model, image)
    infos = []
    for layer in layers:
        notes = [layer.form.words, "map equals the prediction: no context is read behind it" if layer.repeats else ""]
        if layer.name in receptive and layer.name != default:
            notes.append("last layer before the head")
        infos.append(
            LayerInfo(
                layer.name,
                type(model.module.get_submodule(layer.name)).__name__,
                layer.shape,
                image.shape[1] / layer.shape[2],
                receptive.get(layer.name),
                layer.name == default,
                "; ".join(filter(None, notes)),
            )
        )
    return infos


def choose_layer(model: SegmentationModel, image: Image) -> None:
    """Gives a model without a feature layer the default of `layers_of`; `model.layer_notes` says so.

    Raises:
        SettingsError: as `layers_of`.
    """
    _, _, default = _examined(model, image, receptive=False)
    model.layer, model.layer_notes[default] = default, CHOSEN


def _examined(
    model: SegmentationModel, image: Image, *, receptive: bool = True
) -> tuple[list[_Read], dict[str, tuple[int, int] | None], str]:
    """The layers that can be read, the receptive boxes of the two before the head, and the default's name."""
    if isinstance(model.module, torch.jit.ScriptModule):
        raise SettingsError(
            f"the layers of a scripted, traced or frozen module ({model.name}) cannot be read; wrap the module that it "
            "was made from, or use ria and the controls"
        )
    with torch.inference_mode(False), model.evaluating(), model.frozen(), torch.enable_grad():
        images = model.first_input(image)[None].detach().clone()
        wide = _wide_shapes(model, torch.cat([images, images.flip(-1)], -1))
        images.requires_grad_()
        with _watched(model) as seen:
            try:
                logits = model.logits_at_once(model.module, images)
            except SegfaithError:
                raise
            except Exception as error:
                raise SettingsError(f"the layers of {model.name} cannot be listed: {words_of(error)}") from error
        try:
            layers = _readable(model, seen, wide, logits, (images.shape[2], images.shape[3]))
            chosen = _before_head(layers)
            boxes = {layer.name: _receptive(layer, images) if receptive else None for layer in chosen}
        finally:
            for entry in seen.values():  # the module may have stored it
                if entry.output is not None and not entry.output._is_view():
                    entry.output.detach_()
    return layers, boxes, chosen[0].name


@contextmanager
def _watched(model: SegmentationModel) -> Iterator[dict[str, _Seen]]:
    """What each layer gives inside the block, in the order in which the layers end.

    Gradients are recorded in each layer if they are outside the model, also where the model switches that off, as
    `layer.altered` does.
    """
    seen: dict[str, _Seen] = {}
    recording = torch.is_grad_enabled()
    given: dict[str, list[tuple[Tensor, int]]] = {}

    def watch(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            entry = seen.pop(name, None) or _Seen()
            entry.runs += 1
            seen[name] = entry
            before = {id(leaf): version for leaf, version in given.pop(name, [])}
            try:
                entry.output = feature_in(output, name, 1, any_shape=model.reshape is not None)
                entry.handed_on = before.get(id(entry.output)) == version_of(entry.output)
            except SettingsError as error:
                entry.fault = str(error)

        return hook

    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any) -> None:
            torch.set_grad_enabled(recording)
            given[name] = [(leaf, version_of(leaf)) for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]

        return hook

    handles: list[Any] = []
    for name, part in model.module.named_modules():
        if name:
            handles += [part.register_forward_pre_hook(record(name)), part.register_forward_hook(watch(name))]
    try:
        with uncompiled(model.module):
            yield seen
    finally:
        for handle in handles:
            handle.remove()


def _wide_shapes(model: SegmentationModel, images: Tensor) -> dict[str, tuple[int, ...]]:
    """The shapes of the layers' outputs for an image of twice the width; empty if the model refuses it."""
    with torch.no_grad(), suppress(Exception), _watched(model) as seen:
        model.logits_at_once(model.module, images)
        return {name: tuple(entry.output.shape) for name, entry in seen.items() if entry.output is not None}
    return {}


def _readable(
    model: SegmentationModel,
    seen: dict[str, _Seen],
    wide: dict[str, tuple[int, ...]],
    logits: Tensor,
    size: tuple[int, int],
) -> list[_Read]:
    """The layers that can be read, in the order in which they end."""
    faults: dict[str, str] = {}
    pools = {
        tuple(entry.output.shape[2:])
        for name, entry in seen.items()
        if entry.output is not None and isinstance(model.module.get_submodule(name), POOLS)
    }
    once = {name: entry.output for name, entry in seen.items() if entry.runs == 1 and entry.output is not None}
    everywhere = torch.rand(logits.shape, generator=torch.Generator().manual_seed(0)).to(logits.device)
    of_all = _gradients((logits * everywhere).sum(), once)
    of_pixel = _gradients(at_centre(logits), once)
    layers = []
    for name, entry in seen.items():
        if entry.output is None or entry.runs > 1:
            faults[name] = entry.fault or f"runs {entry.runs} times"
            continue
        gradient, pixel = of_all.get(name), of_pixel.get(name)
        if gradient is None or not bool((gradient != 0).any()):
            faults[name] = "the logits do not depend on it"
            continue
        shapes = [tuple(entry.output.shape), *([wide[name]] if name in wide else [])]
        of_convolutions = convolves(model.module.get_submodule(name))
        form = form_of(shapes, size, model.tokens, model.reshape, convolves=of_convolutions)
        if isinstance(form, str):
            faults[name] = form
            continue
        maps = form.maps(gradient, size)
        repeats = pixel is not None and reads_no_context(form.maps(pixel, size))
        block = name.rpartition(".")[2].isdigit() and not isinstance(model.module.get_submodule(name), nn.Sequential)
        height, width = maps.shape[2:]
        pooled = height * width == 1 or (height, width) in pools
        layers.append(
            _Read(name, entry.output, form, (1, maps.shape[1], height, width), repeats, pooled, entry.handed_on, block)
        )
    if not layers and model.why_no_layer:
        raise SettingsError(f"no layer of {model.name} can be read for gradients: {model.why_no_layer}")
    if not layers:
        last = "; ".join(f"{name!r}: {fault}" for name, fault in list(faults.items())[-3:]) or "no layer ran"
        raise SettingsError(
            f"no layer of {model.name} can be read for gradients; of the last layers {last}; give layer = ... and "
            "reshape, or use ria and the controls"
        )
    return layers


def _gradients(value: Tensor, outputs: dict[str, Tensor]) -> dict[str, Tensor | None]:
    asked = {name: output for name, output in outputs.items() if output.requires_grad}
    if not value.requires_grad or not asked:
        return {}
    try:
        gradients = torch.autograd.grad(value, list(asked.values()), retain_graph=True, allow_unused=True)
    except RuntimeError as error:
        raise SettingsError(f"no gradient passes through the model: {words_of(error)}; give layer = ...") from error
    return dict(zip(asked, gradients, strict=True))


def _before_head(layers: list[_Read]) -> list[_Read]:
    """The default, and the last layer before the head if it has a larger map; see the module."""
    scope = ""
    while True:
        below = layers[-1].name.removeprefix(scope).partition(".")[0]
        head = f"{scope}{below}"
        before = [layer for layer in layers if layer.name != head and not layer.name.startswith(f"{head}.")]
        if before or layers[-1].name == head:
            break
        scope = f"{head}."
    before = before or layers
    usable = [layer for layer in before if not layer.repeats and not layer.handed_on] or before
    blocks = tuple(f"{layer.name}." for layer in before if layer.repeats and layer.block)
    maps = [layer for layer in usable if not layer.pooled and not layer.name.startswith(blocks)] or usable
    least = min(layer.shape[2] * layer.shape[3] for layer in maps)
    default = [layer for layer in maps if layer.shape[2] * layer.shape[3] == least][-1]
    return [default] if usable[-1].shape[2:] == default.shape[2:] else [default, usable[-1]]


def _receptive(layer: _Read, images: Tensor) -> tuple[int, int] | None:
    """Height and width of the box of pixels that the map's centre cell depends on; None if no gradient reaches them."""
    maps = layer.form.maps(layer.output, (images.shape[2], images.shape[3]))
    centre = at_centre(maps)
    if not centre.requires_grad:
        return None
    (gradient,) = torch.autograd.grad(centre, [images], retain_graph=True, allow_unused=True)
    extents = () if gradient is None else extent_of(gradient)
    return (extents[0], extents[1]) if len(extents) == 2 else None
