"""The feature layer: replaces its output for every part of the model that reads it, and checks that it is usable."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakSet

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from segfaith.errors import SettingsError
from segfaith.models.segmentation import SegmentationModel
from segfaith.types import Float, Image, Tensor

Alter = Callable[[Float[Tensor, "N K h w"]], Float[Tensor, "N K h w"]]
_CHECKED: WeakSet[nn.Module] = WeakSet()
SAME_LOGITS = 1e-3
"""Reading the layer may change logits by at most this share of the largest logit."""
RESHAPE = "name another layer, or wrap it in a layer that reshapes, see 'Layers of another shape' in docs/extending.md"

NO_GRADIENT = (
    (
        "nference tensor",
        "{model} runs layer {name!r}, or a part that reads it, in torch.inference_mode, or made its weights there; "
        "torch computes no gradients there, so use torch.no_grad instead",
    ),
    (
        "modified by an inplace operation",
        "no gradient reaches layer {name!r} of {model}, since a later part writes into a tensor that the backward "
        "pass needs; let that part make a new tensor (inplace=False), or name another layer",
    ),
    (
        "torch.utils.checkpoint",
        "{model} computes parts of itself again in the backward pass (torch.utils.checkpoint), so layer {name!r} "
        "cannot be read; switch checkpointing off",
    ),
)
"""Explanations of torch's errors in a pass with gradients, by a part of the error's text."""


@contextmanager
def altered(model: SegmentationModel, layer: str | None, images: int, alter: Alter) -> Iterator[None]:
    """Inside the block, a pass of `images` images reads `alter(output)` in place of the layer's output.

    The change is made right after the module's own `forward`, before all hooks. If the layer made the output tensor,
    the new values are written into it, so that readers inside `forward` and the next layer read the same values. If
    the output is a view, or an input or weight that the layer passes on, a new tensor takes its place, because other
    readers of that input do not read the layer. If the model switches gradient recording off around the layer,
    recording resumes here if it was on outside the model.

    After the block, an output that the layer has stored holds no graph.

    Raises:
        SettingsError: the layer does not exist, did not run or ran twice, gives no (N, K, h, w) tensor for N images, or
            no gradient can pass through the model.
    """
    module, name = model.feature_module(layer), layer or model.layer
    own, forward = vars(module).get("forward"), module.forward
    recording, ran = torch.is_grad_enabled(), False
    written: list[Tensor] = []

    def replaced(*args: Any, **kwargs: Any) -> Any:
        nonlocal ran
        if torch.is_inference_mode_enabled() or any(weight.is_inference() for weight in model.module.parameters()):
            raise SettingsError(NO_GRADIENT[0][1].format(name=name, model=model.name))
        held = tree_leaves((args, kwargs, [vars(part) for part in module.modules()]))
        given = [(leaf, _version(leaf)) for leaf in held if isinstance(leaf, Tensor)]
        output = forward(*args, **kwargs)
        feature = _feature_map(output, name, images)
        if ran:
            raise SettingsError(
                f"layer {name!r} runs more than once in a forward pass; name a layer that runs once (where "
                "torch.utils.checkpoint runs it again in the backward pass, switch checkpointing off)"
            )
        ran = True
        torch.set_grad_enabled(recording)
        new = alter(feature)
        place = feature.untyped_storage().data_ptr()
        handed_on = any(leaf.untyped_storage().data_ptr() == place and _version(leaf) == was for leaf, was in given)
        if not (handed_on or feature._is_view()):
            feature.copy_(new)
            written.append(feature)
            return output
        new = new.clone()  # an in-place operation may follow
        return new if output is feature else type(output)(new if item is feature else item for item in output)

    vars(module)["forward"] = replaced
    try:
        yield
    except RuntimeError as error:
        for sign, words in NO_GRADIENT:
            if sign in str(error):
                raise SettingsError(words.format(name=name, model=model.name)) from error
        raise
    finally:
        del vars(module)["forward"]
        if own is not None:
            vars(module)["forward"] = own
        for feature in written:  # the module may have stored it
            feature.detach_()
    if not ran:
        raise SettingsError(f"layer {name!r} did not run in {model.name}'s forward pass; name another layer")


def _version(tensor: Tensor) -> int:
    """How often a tensor was written to; 0 for inference tensors, which do not count it."""
    return 0 if tensor.is_inference() else tensor._version


def gradient_at(value: Tensor, leaf: Tensor, name: str | None) -> Tensor:
    """d value / d leaf, where `leaf` stands for the output of the layer `name`.

    Raises:
        SettingsError: the value does not depend on it.
    """
    if not value.requires_grad:
        raise SettingsError(
            f"the logits do not depend on layer {name!r} through differentiable steps; name another layer"
        )
    (gradient,) = torch.autograd.grad(value, [leaf], allow_unused=True)
    if gradient is None:
        raise SettingsError(f"the logits do not depend on layer {name!r}; name another layer")
    return gradient


def _feature_map(output: Any, name: str | None, images: int) -> Float[Tensor, "N K h w"]:
    """A layer's output, or the only (N, K, h, w) tensor in the tuple or list that it returned."""
    items = output if type(output) in (tuple, list) else [output]
    maps = [item for item in items if isinstance(item, Tensor) and item.ndim == 4 and item.is_floating_point()]
    if len(maps) != 1:
        raise SettingsError(
            f"layer {name!r} returns {_described(output)}; expected a feature map (N, channels, h, w); {RESHAPE}"
        )
    if len(maps[0]) != images:
        raise SettingsError(
            f"layer {name!r} returns {_described(output)} for {images} image{'s' * (images > 1)}, like a layer that "
            f"runs on windows, or once per class or prompt; expected ({images}, channels, h, w); {RESHAPE}"
            + "; where the model goes through its images one by one, a batch size of 1 helps"
            * (images > 1)
        )
    return maps[0]


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return ("" if output.is_floating_point() else f"{output.dtype} of ") + f"shape {tuple(output.shape)}"
    items = ", ".join(map(_described, output)) if type(output) in (tuple, list) else ""
    return type(output).__name__ + (f" of ({items})" if items else "")


def check_layer(model: SegmentationModel, layer: str | None, image: Image) -> None:
    """Checks, once per layer, that its axes are (N, K, h, w), and that the logits stay the same while it is read.

    An image of twice the width shows which axes are rows and columns. If the model refuses that image, or resizes all
    images to one size, the layer's map must have the image's aspect ratio, or be square.

    Of a model that pads images or runs on tiles, the padded image or its first tile takes the image's place.

    Model passes: two of one image, and one of an image of twice its width.

    Raises:
        SettingsError: see `altered`; the axes are not (N, K, h, w); or the logits change when the layer is read.
    """
    module, name = model.feature_module(layer), layer or model.layer
    if module in _CHECKED:
        return
    shapes: list[tuple[int, ...]] = []

    def note(output: Tensor) -> Tensor:
        shapes.append(tuple(output.shape))
        return output

    with torch.inference_mode(False), torch.no_grad():
        images = model.first_input(image)[None].clone()
        expected = model.logits_at_once(model.module, images)
        with altered(model, layer, 1, note):
            logits = model.logits_at_once(model.module, images)
        try:
            with altered(model, layer, 1, note):
                model.logits_at_once(model.module, torch.cat([images, images.flip(-1)], -1))
        except Exception:  # the model takes no image of another size
            del shapes[1:]
    fault = _axes_fault(shapes, (images.shape[2], images.shape[3]))
    if fault:
        raise SettingsError(f"layer {name!r} returns {fault}; {RESHAPE}")
    if not bool(expected.isfinite().all()):
        return  # nothing to compare: the sample with these logits fails later
    moved = float((logits - expected).abs().max())
    if moved > SAME_LOGITS * float(expected.abs().max()):
        raise SettingsError(
            f"the logits of {model.name} change by up to {moved:.2g} when layer {name!r} is read, since another part "
            "of the model writes into its output, or two calls of the model differ; name another layer"
        )
    _CHECKED.add(module)


def _axes_fault(shapes: list[tuple[int, ...]], size: tuple[int, int]) -> str:
    """What is wrong with a layer's output shapes for an image and an image of twice its width; empty if nothing."""
    (_, channels, height, width), wide = shapes[0], shapes[-1]
    came = f"shape {shapes[0]} for an image of {size[0]} x {size[1]}"
    if wide != shapes[0]:
        came += f" and {wide} for one of {size[0]} x {2 * size[1]}"
        right = wide[:3] == shapes[0][:3] and wide[3] > width
        last = (wide[1], wide[3]) == (channels, width) and wide[2] > height
    else:
        here, there = _misfit(height, width, size), _misfit(channels, height, size)
        right = here < 1 or (here <= 0.1 * max(height, width) and here <= there)
        last = there < 1
    if right:
        return ""
    return f"{came}{', like channels-last maps (N, h, w, channels)' * last}; expected (1, channels, h, w)"


def _misfit(height: int, width: int, size: tuple[int, int]) -> float:
    """By how many cells a map misses the image's aspect ratio; 0 for square maps, as models of a fixed size give."""
    if height == width:
        return 0.0
    rows, columns = size
    return abs(height - rows * width / columns) if columns >= rows else abs(width - columns * height / rows)
