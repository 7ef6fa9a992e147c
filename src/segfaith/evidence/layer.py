"""The feature layer: replaces its output for every part of the model that reads it, and checks that it is usable."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from segfaith.errors import SettingsError
from segfaith.evidence.forms import REMEDY, Form, convolves, form_of
from segfaith.models.modes import uncompiled
from segfaith.models.segmentation import SegmentationModel
from segfaith.types import Float, Image, Tensor

Alter = Callable[[Tensor], Tensor]
_CHECKED: WeakKeyDictionary[nn.Module, tuple[Any, Form, str]] = WeakKeyDictionary()
"""By layer that was checked: the model's settings for it, its form, and what a reader must know of it."""
CONTEXT_FREE = 2
"""If the logits of a pixel read at most 2 x 2 cells of a layer, as bilinear resizing does, they read no context."""
REPEATS = (
    "behind this layer the model reads no context, so a gradient map of it repeats the prediction; an earlier layer "
    "shows more"
)
CHOSEN = "chosen by segfaith: the deepest map before the head"
SAME_LOGITS = 1e-3
"""Reading the layer may change logits by at most this share of the largest logit."""
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
def altered(model: SegmentationModel, name: str, images: int, alter: Alter) -> Iterator[None]:
    """Inside the block, a pass of `images` images reads `alter(output)` in place of the output of the layer `name`.

    The change is made right after the module's own `forward`, before all hooks. If the layer made the output tensor,
    the new values are written into it, so that readers inside `forward` and the next layer read the same values. If
    the output is a view, or an input or weight that the layer passes on, a new tensor takes its place, because other
    readers of that input do not read the layer. If the model switches gradient recording off around the layer,
    recording resumes here if it was on outside the model.

    After the block, an output that the layer has stored holds no graph.

    Raises:
        SettingsError: the layer does not exist, did not run or ran twice, gives no tensor for N images that may
            be maps or tokens, or no gradient can pass through the model.
    """
    module = model.module.get_submodule(name)
    own, forward = vars(module).get("forward"), module.forward
    recording, ran = torch.is_grad_enabled(), False
    written: list[Tensor] = []

    def replaced(*args: Any, **kwargs: Any) -> Any:
        nonlocal ran
        if torch.is_inference_mode_enabled() or any(weight.is_inference() for weight in model.module.parameters()):
            raise SettingsError(NO_GRADIENT[0][1].format(name=name, model=model.name))
        held = tree_leaves((args, kwargs, [vars(part) for part in module.modules()]))
        given = [(leaf, version_of(leaf)) for leaf in held if isinstance(leaf, Tensor)]
        output = forward(*args, **kwargs)
        feature = feature_in(output, name, images, any_shape=model.reshape is not None)
        if ran:
            raise SettingsError(
                f"layer {name!r} runs more than once in a forward pass; name a layer that runs once (where "
                "torch.utils.checkpoint runs it again in the backward pass, switch checkpointing off)"
            )
        ran = True
        torch.set_grad_enabled(recording)
        new = alter(feature)
        place = feature.untyped_storage().data_ptr()
        handed_on = any(leaf.untyped_storage().data_ptr() == place and version_of(leaf) == was for leaf, was in given)
        if not (handed_on or feature._is_view()):
            feature.copy_(new)
            written.append(feature)
            return output
        new = new.clone()  # an in-place operation may follow
        return new if output is feature else type(output)(new if item is feature else item for item in output)

    vars(module)["forward"] = replaced
    try:
        with uncompiled(model.module):
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


def version_of(tensor: Tensor) -> int:
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


def feature_in(output: Any, name: str, images: int, *, any_shape: bool = False) -> Tensor:
    """A layer's output, or the only map or tokens in the tuple or list that it returned.

    Maps have four axes, and count before tokens, which have three.

    Args:
        images: how many images the model was given.
        any_shape: whether a tensor of another number of axes may do, as where the user reshapes it.

    Raises:
        SettingsError: there is no such tensor or there are several, or it is not one of `images` images.
    """
    items = output if type(output) in (tuple, list) else [output]
    floats = [item for item in items if isinstance(item, Tensor) and item.is_floating_point()]
    maps = [item for item in floats if item.ndim == 4] or [item for item in floats if item.ndim == 3]
    maps = maps or [item for item in floats if any_shape and item.ndim > 1]
    if len(maps) != 1:
        raise SettingsError(
            f"layer {name!r} returns {_described(output)}; expected a feature map (N, channels, h, w), or tokens "
            f"(N, L, C); {REMEDY}"
        )
    if len(maps[0]) != images:
        raise SettingsError(
            f"layer {name!r} returns {_described(output)} for {images} image{'s' * (images > 1)}, like a layer that "
            f"runs on windows, or once per class or prompt; expected ({images}, channels, h, w); {REMEDY}"
            + "; where the model goes through its images one by one, a batch size of 1 helps"
            * (images > 1)
        )
    return maps[0]


def _described(output: Any) -> str:
    if isinstance(output, Tensor):
        return ("" if output.is_floating_point() else f"{output.dtype} of ") + f"shape {tuple(output.shape)}"
    items = ", ".join(map(_described, output)) if type(output) in (tuple, list) else ""
    return type(output).__name__ + (f" of ({items})" if items else "")


def check_layer(model: SegmentationModel, name: str, image: Image) -> Form:
    """The form of a layer's output, see `forms`. On the layer's first use, checks that the logits do not change.

    An image of twice the width shows which axes are rows and columns. If the model refuses that image, or resizes all
    images to one size, the layer's map must have the image's aspect ratio, or be square. What a reader must know of
    the layer is noted in `model.layer_notes`: how its output is reshaped, and that its maps repeat the prediction.

    Of a model that pads images or runs on tiles, the padded image or its first tile takes the image's place.

    Model passes: none, or on the first use two of one image, and one of an image of twice its width.

    Args:
        name: the layer's name, as `model.layer_names` gives it.

    Raises:
        SettingsError: see `altered`; the output has no form; or the logits change when the layer is read.
    """
    module, asked = model.module.get_submodule(name), (model.tokens, model.reshape)
    known = _CHECKED.get(module)
    if known is None or known[0] != asked:
        form, repeats, finite = _checked_form(model, name, image)
        known = asked, form, "; ".join(filter(None, (form.words, repeats)))
        if finite:  # else nothing was compared, and the sample with these logits fails later
            _CHECKED[module] = known
    chosen = CHOSEN if model.layer_notes.get(name, "").startswith(CHOSEN) else ""
    if known[2]:
        model.layer_notes[name] = "; ".join(filter(None, (chosen, known[2])))
    return known[1]


def _checked_form(model: SegmentationModel, name: str, image: Image) -> tuple[Form, str, bool]:
    """The form of a layer that is used for the first time, what its maps repeat, and whether the logits are finite."""
    outputs: list[Tensor] = []
    read: Tensor | None = None

    def leaf(output: Tensor) -> Tensor:
        outputs.append(output.detach().clone().requires_grad_())
        return outputs[0]

    def note(output: Tensor) -> Tensor:
        shapes.append(tuple(output.shape))
        return output

    with torch.inference_mode(False), torch.no_grad(), model.frozen():
        images = model.first_input(image)[None].clone()
        expected = model.logits_at_once(model.module, images)
        with torch.enable_grad(), altered(model, name, 1, leaf):
            logits = model.logits_at_once(model.module, images)
            with suppress(RuntimeError):  # no gradient passes: `gradient_evidence` says so
                read = torch.autograd.grad(at_centre(logits), outputs, allow_unused=True)[0]
        shapes = [tuple(outputs[0].shape)]
        try:
            with altered(model, name, 1, note):
                model.logits_at_once(model.module, torch.cat([images, images.flip(-1)], -1))
        except Exception:  # the model takes no image of another size
            del shapes[1:]
    size = (images.shape[2], images.shape[3])
    of_convolutions = convolves(model.module.get_submodule(name))
    form = form_of(shapes, size, model.tokens, model.reshape, convolves=of_convolutions)
    if isinstance(form, str):
        raise SettingsError(f"layer {name!r} returns {form}; {REMEDY}")
    moved = float((logits.detach() - expected).abs().max())
    finite = bool(expected.isfinite().all())
    if finite and moved > SAME_LOGITS * float(expected.abs().max()):
        raise SettingsError(
            f"the logits of {model.name} change by up to {moved:.2g} when layer {name!r} is read, since another part "
            "of the model writes into its output, or two calls of the model differ; name another layer"
        )
    repeats = read is not None and reads_no_context(form.maps(read, size))
    return form, REPEATS if repeats else "", finite


def at_centre(maps: Float[Tensor, "1 K h w"]) -> Tensor:
    """A mix of the channels of the centre cell, with weights of their own so that they do not cancel."""
    cell = maps[0, :, maps.shape[2] // 2, maps.shape[3] // 2]
    return (cell * torch.arange(1, len(cell) + 1, device=cell.device).cos()).sum()


def reads_no_context(gradient: Float[Tensor, "1 K h w"]) -> bool:
    """Whether a pixel's logits, whose gradient at a layer is given, read at most 2 x 2 of more cells of it."""
    extents = extent_of(gradient)
    larger = max(gradient.shape[2:]) > CONTEXT_FREE
    return larger and bool(extents) and max(extents) <= CONTEXT_FREE


def extent_of(gradient: Float[Tensor, "1 K h w"]) -> tuple[int, ...]:
    """Rows and columns of the box outside of which a gradient is zero; empty if it is zero everywhere."""
    used = (gradient[0] != 0).any(0)
    places = [used.any(axis).nonzero() for axis in (1, 0)]
    return tuple(int(place[-1] - place[0]) + 1 for place in places if len(place))
