"""The feature layer: puts something in place of its output for all who read it, and checks that it can serve."""

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
"""By what share of the largest logit the logits may move when the layer is read; the operations are the same."""
RESHAPE = "name another layer, or wrap it in one that reshapes, see 'Layers of another shape' in docs/extending.md"

NO_GRADIENT = (
    (
        "nference tensor",
        "{model} runs layer {name!r}, or what reads it, in torch.inference_mode, or its weights were made there, where "
        "no gradient can be had; use torch.no_grad in its place",
    ),
    (
        "modified by an inplace operation",
        "no gradient reaches layer {name!r} of {model}, since a part behind it writes into a tensor that the backward "
        "pass needs; let that part make a new tensor (inplace=False), or name another layer",
    ),
    (
        "torch.utils.checkpoint",
        "{model} computes parts of itself anew in the backward pass (torch.utils.checkpoint), which does not go with "
        "reading layer {name!r}; switch checkpointing off",
    ),
)
"""What torch's errors in a pass with a gradient mean for the user, by a part of their text."""


@contextmanager
def altered(model: SegmentationModel, layer: str | None, images: int, alter: Alter) -> Iterator[None]:
    """Inside, whoever reads the layer's output in a pass of `images` images reads `alter` of it.

    It stands right behind the module's own `forward`, before all hooks. A tensor of the layer's own is written in
    place, so that those who got hold of it in `forward` read the same as the next layer. A view, or an input or weight
    that is only handed on, is replaced: what else reads the input does not read the layer. Where the model switches
    recording off around the layer, it goes on from here if it was on outside.

    What the layer keeps of its output holds no graph after the block.

    Raises:
        SettingsError: the layer does not exist, did not run or ran twice, gives no (N, K, h, w) tensor for N images, or
            the model is one through which no gradient goes.
    """
    module, name = model.feature_module(layer), layer or model.layer
    own, forward = vars(module).get("forward"), module.forward
    recording, ran = torch.is_grad_enabled(), False
    written: list[Tensor] = []

    def replaced(*args: Any, **kwargs: Any) -> Any:
        nonlocal ran
        if torch.is_inference_mode_enabled() or any(one.is_inference() for one in model.module.parameters()):
            raise SettingsError(NO_GRADIENT[0][1].format(name=name, model=model.name))
        held = tree_leaves((args, kwargs, [vars(one) for one in module.modules()]))
        given = [(one, _version(one)) for one in held if isinstance(one, Tensor)]
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
        handed_on = any(one.untyped_storage().data_ptr() == place and _version(one) == was for one, was in given)
        if not (handed_on or feature._is_view()):
            feature.copy_(new)
            written.append(feature)
            return output
        new = new.clone()  # an in-place operation may follow
        return new if output is feature else type(output)(new if one is feature else one for one in output)

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
        for one in written:  # the module may keep it
            one.detach_()
    if not ran:
        raise SettingsError(f"layer {name!r} did not run in {model.name}'s forward pass; name another one")


def _version(tensor: Tensor) -> int:
    """How often it was written into; 0 where nobody counts that."""
    return 0 if tensor.is_inference() else tensor._version


def _feature_map(output: Any, name: str | None, images: int) -> Float[Tensor, "N K h w"]:
    """What a layer returned, or the only (N, K, h, w) tensor of a tuple or list that it returned."""
    items = output if type(output) in (tuple, list) else [output]
    maps = [one for one in items if isinstance(one, Tensor) and one.ndim == 4 and one.is_floating_point()]
    if len(maps) != 1:
        raise SettingsError(
            f"layer {name!r} returns {_described(output)}; expected a feature map (N, channels, h, w); {RESHAPE}"
        )
    if len(maps[0]) != images:
        raise SettingsError(
            f"layer {name!r} returns {_described(output)} for {images} image{'s' * (images > 1)}, as a layer does that "
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
    """Holds a layer's axes, and the logits while it is read, to what is expected; once per layer.

    Which axes are rows and columns shows on an image of twice the width. A model that takes no such image, or makes
    all images one size, must give a map of the image's aspect, or a square one.

    Model passes: two of one image, and one of an image of twice its width.

    Raises:
        SettingsError: see `altered`; the axes are others than (N, K, h, w); or the logits move when the layer is read.
    """
    module, name = model.feature_module(layer), layer or model.layer
    if module in _CHECKED:
        return
    shapes: list[tuple[int, ...]] = []

    def note(output: Tensor) -> Tensor:
        shapes.append(tuple(output.shape))
        return output

    with torch.inference_mode(False), torch.no_grad():
        images = image[None].clone()
        expected = model.logits(images)
        with altered(model, layer, 1, note):
            got = model.logits(images)
        try:
            with altered(model, layer, 1, note):
                model.logits(torch.cat([images, images.flip(-1)], -1))
        except Exception:  # no image of another size
            del shapes[1:]
    fault = _axes_fault(shapes, (image.shape[1], image.shape[2]))
    if fault:
        raise SettingsError(f"layer {name!r} returns {fault}; {RESHAPE}")
    if not bool(expected.isfinite().all()):
        return  # nothing to compare: what is not finite fails with its sample
    moved = float((got - expected).abs().max())
    if moved > SAME_LOGITS * float(expected.abs().max()):
        raise SettingsError(
            f"the logits of {model.name} move by up to {moved:.2g} when layer {name!r} is read, since another part of "
            "the model writes into its output, or the model does not answer twice alike; name another layer"
        )
    _CHECKED.add(module)


def _axes_fault(shapes: list[tuple[int, ...]], size: tuple[int, int]) -> str:
    """What is wrong with the shapes of a layer's output, for an image and one of twice its width; empty if nothing."""
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
    return f"{came}{', as channels-last maps (N, h, w, channels) do' * last}; expected (1, channels, h, w)"


def _misfit(height: int, width: int, size: tuple[int, int]) -> float:
    """By how many cells a map misses the image's aspect; 0 for square maps, which models of one fixed size have."""
    if height == width:
        return 0.0
    rows, columns = size
    return abs(height - rows * width / columns) if columns >= rows else abs(width - columns * height / rows)
