"""Tests a model before its first use: are its outputs logits, do two calls agree, do images of a batch stay separate?

Without these tests, such a fault would put a wrong number into every row, with status `ok`.
"""

from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from segfaith.errors import SampleError, SettingsError, words_of
from segfaith.models.segmentation import SegmentationModel
from segfaith.types import Float, Image

TOLERANCE = 1e-5
"""The largest allowed difference of a class's probability between two calls, averaged over an image. Rounding, which
depends on the batch size, stays below a tenth of it, even for large logits."""
CALLS = 4
"""How many calls with the same image must agree. A random effect that occurs with probability q per call is missed if
it occurs in none of the calls or in all of them, so with probability (1 - q)^4 + q^4."""

OVERSHOT = "keep probabilities in [0, 1] and their sum at 1; if you resize them, use mode 'bilinear', which does so"


class ModelFails(SettingsError):
    """The model raised an error on an image, or its output is not logits (N, classes, h, w)."""


_PROBED: WeakKeyDictionary[SegmentationModel, int] = WeakKeyDictionary()
"""The batch size for which each model was tested."""


@torch.inference_mode(False)  # tensors that a model caches in its first pass must allow gradients
@torch.no_grad()
def probe(model: SegmentationModel, image: Image, batch_size: int) -> None:
    """Tests a model once, on five images: the given image, the same image with little contrast, coarse blocks of
    colour, and two images of blocks with colours far outside [0, 1]. There logits leave [0, 1]; probabilities do not.

    If an image's outputs depend on the other images of a batch, or the model takes no batch, it gets one image at a
    time from then on (`model.mixing` says why).

    Model passes: 8, and up to 3 more if `batch_size` is above 1; none for a model that was tested before.

    Raises:
        ModelFails: the model cannot be run on this image.
        SettingsError: two calls differ; the outputs are not what `model.head` says, or cannot be logits if it says
            nothing; or the number of class names is not the number of classes.
    """
    batch_size = min(batch_size, 3)
    if _PROBED.get(model, 0) >= batch_size:
        return
    if any(parameter.is_meta for parameter in model.module.parameters()):
        raise SettingsError(
            f"weights of {model.name} lie on the device 'meta', which holds no values; load them, as with "
            "module.to_empty(device='cpu') and module.load_state_dict(...)"
        )
    image = model.first_input(image)
    first = _run(model, image[None])
    blocks = _blocks(image)
    images, outputs = [image], [first]
    for other in (0.3 + 0.2 * image, blocks, 20 * blocks - 10, 10 - 20 * blocks):
        try:
            outputs.append(_run(model, other[None]))
            images.append(other)
        except ModelFails:  # some models fail on artificial images and work on photographs
            continue
    _check_classes(model)
    if not all(_difference(model, first, _run(model, image[None])) <= TOLERANCE for _ in range(CALLS - 1)):
        raise SettingsError(
            f"{model.name} gives different outputs for the same image: even in evaluation mode, something in it is "
            "random or remembers earlier calls. Pass training=self.training to functional dropout, and switch off "
            "noise, random depth and test-time augmentation"
        )
    finite = [output for output in outputs if bool(output.isfinite().all())]
    if finite:
        _check_head(model, finite)
    if batch_size > 1 and not model.one_by_one:
        model.mixing = _mixing(model, torch.stack(images[:batch_size]), outputs)
    _PROBED[model] = batch_size


def _blocks(image: Image) -> Image:
    """An image of blocks of saturated colours, with the size of the given image."""
    height, width = image.shape[1:]
    colours = np.random.default_rng(0).integers(0, 2, (len(image), 6, 6)).astype(np.float32)
    rows, columns = np.arange(height) * 6 // height, np.arange(width) * 6 // width
    return torch.from_numpy(colours[:, rows][:, :, columns]).to(image)


def _run(model: SegmentationModel, images: Float[Tensor, "N bands H W"]) -> Float[Tensor, "N C h w"]:
    """The module's outputs.

    Raises:
        ModelFails: see the class.
    """
    try:
        return model.outputs_of(model.module, images)
    except SampleError as error:
        raise ModelFails(f"{error}{_volumes(model)}") from error
    except Exception as error:
        words = words_of(error)
        missing = any(kind in words for kind in ("Half", "BFloat16"))
        remedy = f"; on {model.device} torch lacks this for the model's number type, so use module.float()" * missing
        raise ModelFails(
            f"{model.name} cannot be run on images of shape {tuple(images.shape)}: {words}{remedy}{_volumes(model)}"
        ) from error


def _volumes(model: SegmentationModel) -> str:
    """Words to add to a failing model's message, if its convolutions show that it takes other images; else empty."""
    convolutions = [layer for layer in model.module.modules() if isinstance(layer, nn.Conv2d | nn.Conv3d)]
    if any(isinstance(layer, nn.Conv3d) for layer in convolutions):
        return ". It has 3-D convolutions, so it takes volumes; segfaith explains images (N, channels, H, W) alone"
    if convolutions and convolutions[0].in_channels != model.input_channels:
        count = convolutions[0].in_channels
        return (
            f". Its first convolution takes {count} channel(s), and it was given images of {model.input_channels}: say "
            f"channels = {count}, or wrap a module that computes its input from them"
        )
    return ""


def _probabilities(model: SegmentationModel, outputs: Float[Tensor, "N C h w"]) -> Float[Tensor, "N K h w"]:
    logits = model.as_logits(outputs)
    return logits.sigmoid() if model.independent else logits.softmax(1)


def _difference(model: SegmentationModel, first: Float[Tensor, "N C h w"], second: Float[Tensor, "N C h w"]) -> float:
    """The mean absolute difference of a class's probability over an image: the largest over classes and images.

    Images with NaN or infinite outputs in `first` are left out. The result is infinite if only `second` has such
    outputs, or if the shapes differ.
    """
    if first.shape != second.shape:
        return float("inf")
    known = first.isfinite().flatten(1).all(1)
    if not bool(known.any()):
        return 0.0
    difference = (_probabilities(model, first[known]) - _probabilities(model, second[known])).abs().mean((2, 3)).max()
    return float(difference.nan_to_num(torch.inf))


def _mixing(model: SegmentationModel, images: Float[Tensor, "N bands H W"], alone: list[Tensor]) -> str:
    """Why the images must not share a batch, or "" where they may."""
    try:
        together = model.outputs_of(model.module, images)
    except Exception as error:
        if len(images) > 1 and "memory" in str(error).lower():  # a batch of this size will not be run
            return _mixing(model, images[:-1], alone)
        return f"a batch of {len(images)} fails: {words_of(error)}"
    if all(
        _difference(model, by_itself, in_batch[None]) <= TOLERANCE
        for by_itself, in_batch in zip(alone, together, strict=False)
    ):
        return ""
    return "an image's outputs depend on the other images of its batch"


def _check_classes(model: SegmentationModel) -> None:
    count = model.class_count
    if model.classes is not None and count is not None and len(model.classes) != count:
        names = f"{', '.join(model.classes[:5])}{', ...' if len(model.classes) > 5 else ''}"
        hint = ": one channel stands for the two classes background and foreground" if model.channels == 1 else ""
        raise SettingsError(
            f"{model.name} has {count} output classes{hint}, but {len(model.classes)} class names were given: {names}; "
            "give classes a name for each"
        )


def _check_head(model: SegmentationModel, outputs: list[Tensor]) -> None:
    """Checks that the outputs (1, C, h, w) for some images are what `model.head` says.

    Raises:
        SettingsError: they are not.
    """
    if model.head == "logits":
        return
    channels = outputs[0].shape[1]
    if model.head == "softmax" and channels == 1:
        raise SettingsError(
            f'head = "softmax" needs several channels, but {model.name} has one, of which a softmax is 1 everywhere; '
            'leave head out, or say head = "sigmoid"'
        )
    slack = max(1e-4, 4 * torch.finfo(outputs[0].dtype).eps)
    low, high = min(float(output.min()) for output in outputs), max(float(output.max()) for output in outputs)
    within = low >= -slack and high <= 1 + slack
    sums = channels > 1 and all(bool(((output.float().sum(1) - 1).abs() <= slack).all()) for output in outputs)
    came = f"the outputs of {model.name} on {len(outputs)} test pictures lie in [{low:.4g}, {high:.4g}]"
    highs = torch.stack([output.amax((0, 2, 3)).double() for output in outputs]).amax(0)
    lows = torch.stack([output.amin((0, 2, 3)).double() for output in outputs]).amin(0)
    spread = float((highs - lows).max())
    varied = spread > 0
    total = _total(outputs, slack * spread) if varied and channels > 1 else 0.0
    # centred logits sum to 0, and logits that a bias shifts leave this range on strong colours
    if not -0.5 * total <= low <= high <= 1.5 * total:
        total = 0.0
    labels = 255 if channels == 1 else 1  # class indices and masks, or one-hot maps
    if varied and 0 <= low <= high <= labels and all(bool((output == output.round()).all()) for output in outputs):
        raise SettingsError(
            f"{came} and are whole numbers, like class indices, masks and one-hot maps: these are decisions, from "
            "which no probability can be read. Return the logits behind the decisions; if these are logits, say "
            'head = "logits"'
        )
    if channels == 1 and model.head != "probabilities" and abs(low - 1) <= slack and abs(high - 1) <= slack:
        raise SettingsError(
            f"{came}: they are 1 everywhere, as a softmax over one channel is. Return what comes before it; the logit "
            "of one channel gets a sigmoid"
        )
    if model.head == "probabilities":
        if not within or not (sums or channels == 1):
            what = "in [0, 1]" if channels == 1 else "in [0, 1] with channels that sum to 1"
            remedy = "leave head out for logits"
            if within and channels > 1:
                remedy = 'of classes that may overlap return the logits before the sigmoids, and say head = "sigmoid"'
            if total:
                remedy = f"their channels sum to {total:.4g}: {OVERSHOT}, or return the logits and leave head out"
            raise SettingsError(f'head = "probabilities" means outputs {what}, but {came}; {remedy}')
    elif within and (sums or (channels == 1 and varied and low >= 0)):
        many = "in its one channel" if channels == 1 else f"and its {channels} channels sum to 1"
        raise SettingsError(
            f"{came} {many}: these look like probabilities, not logits, and {_repeated(model, channels)}. Say head = "
            '"probabilities", '
            + (
                "if the classes exclude each other, or return the logits before the sigmoids"
                if model.independent
                else 'or head = "logits" if they are logits all the same'
            )
        )
    elif total:
        remedy = "before the sigmoids" if model.independent else f'({OVERSHOT}, and say head = "probabilities")'
        raise SettingsError(
            f"{came} and their {channels} channels sum to {total:.4g} at every pixel: these look like probabilities, "
            f"resized or multiplied, not logits, and {_repeated(model, channels)}. Return the logits {remedy}"
            + ("" if model.independent else ', or say head = "logits" if they are logits all the same')
        )
    elif within and varied and low >= 0:
        raise SettingsError(
            f"{came} in {channels} channels that do not sum to 1, as the sigmoids of a multi-label head do: "
            + (
                f"{_repeated(model, channels)}. Return the logits before the sigmoids"
                if model.independent
                else 'a softmax of them means nothing. Return the logits before the sigmoid, and say head = "sigmoid"; '
                'if these are logits of a softmax, say head = "logits"'
            )
        )


def _repeated(model: SegmentationModel, channels: int) -> str:
    """What `as_logits` of probabilities would do to the scores, in words."""
    if model.independent:
        return "a sigmoid of each would change every score"
    return f"a second {'sigmoid' if channels == 1 else 'softmax'} would change every score"


def _total(outputs: list[Tensor], slack: float) -> float:
    """The sum of the channels (1, C, h, w), if it is the same at every pixel of all outputs; else 0."""
    sums = [output.sum(1, dtype=torch.float64) for output in outputs]
    low, high = min(float(total.min()) for total in sums), max(float(total.max()) for total in sums)
    return (low + high) / 2 if high - low <= slack else 0.0
