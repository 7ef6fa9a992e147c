"""What libraries run: the target's score as a module, the same by fast passes, and the state that is kept meanwhile."""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr

import numpy as np
import torch
from torch import nn

from segfaith.attribution.heatmap import upsample
from segfaith.attribution.libraries.entry import Question
from segfaith.batching import Boxes, Scorer, on_target, out_of_memory, score_images
from segfaith.errors import SampleError, SegfaithError, words_of
from segfaith.evidence.forms import Form
from segfaith.evidence.gradient import Objective
from segfaith.evidence.layer import check_layer
from segfaith.evidence.layers import choose_layer
from segfaith.incremental.scoring import scorer_for
from segfaith.memory import Stage
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import masked_mean, scalar_of, sent
from segfaith.types import Float, Image, Target, Tensor


class Score(nn.Module):
    """The target's score of images in [0, 1], (N, bands, H, W) -> (N,), float64; gradients pass.

    Rows and columns beyond the target's (H, W), which pad an image, are cropped first: the model pads by itself.

    Args:
        objective: "prob": s; "logits": the masked mean of the number before its softmax or sigmoid.
        total: the sum over the region, not the mean, as grad-cam's own target for segmentation takes it.
    """

    def __init__(
        self, model: SegmentationModel, target: Target, objective: Objective = "prob", *, total: bool = False
    ) -> None:
        super().__init__()
        self.module = model.module
        self.model, self.target, self.objective, self.total = model, target, objective, total

    def forward(self, images: Float[Tensor, "N bands h w"]) -> Float[Tensor, "N"]:
        """The scores of N images."""
        region = self.target.region
        logits = self.model.logits(images[..., : region.shape[0], : region.shape[1]])
        scalar = scalar_of(self.model, self.target)
        if self.objective == "logits":
            scalar = scalar.unsquashed(single=self.model.channels == 1)
        score = masked_mean(logits, region.expand(len(images), -1, -1), scalar)
        return score * region.sum() if self.total else score

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing: the gradients that the user's parameters hold stay."""


@contextmanager
def drawing(question: Question) -> Iterator[None]:
    """Inside the block random draws follow from `rng`, and nothing is printed. The random states are put back.

    Raises:
        SampleError: the library cannot explain this model: its error, in words.
    """
    device = question.model.device
    numpy_state = np.random.get_state()  # noqa: NPY002 - captum draws from it
    seed = int(question.rng.integers(2**32))
    try:
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            warnings.catch_warnings(),
            redirect_stderr(io.StringIO()),  # progress bars
        ):
            warnings.simplefilter("ignore")
            torch.manual_seed(seed)
            np.random.seed(seed)  # noqa: NPY002
            yield
    except SegfaithError:
        raise
    except Exception as error:
        if isinstance(error, RuntimeError) and out_of_memory(error):
            raise
        raise SampleError(f"{question.name} cannot explain this model: {words_of(error)}{_hint(error)}") from error
    finally:
        np.random.set_state(numpy_state)  # noqa: NPY002


@contextmanager
def kept(question: Question) -> Iterator[None]:
    """`drawing`, and the model is evaluated with gradients of inputs alone.

    Modules that write into their input (`inplace=True`) make new tensors, since libraries keep what layers return. The
    values are the same. Train flags and these flags are put back, and so are hooks and parts that a library replaced
    and then failed.
    """
    model = question.model
    tables = [
        (table, table.copy())
        for part in model.module.modules()
        for name, table in vars(part).items()
        if isinstance(table, dict) and (name == "_modules" or "hooks" in name)
    ]
    writing = [part for part in model.module.modules() if getattr(part, "inplace", False) is True]
    with drawing(question), torch.inference_mode(False), torch.enable_grad(), model.evaluating(), model.frozen():
        try:
            for part in writing:
                vars(part)["inplace"] = False
            yield
        finally:
            for part in writing:
                vars(part)["inplace"] = True
            for table, was in tables:
                table.clear()
                table.update(was)


def _hint(error: Exception) -> str:
    words = str(error).lower()
    if "inplace" in words or "in-place" in words:
        return "; a part of the model writes into a tensor that the library keeps: let it make a new tensor"
    if "require grad" in words or "requires_grad" in words or "require gradient" in words:
        return "; no gradient reaches the image: a part of the model runs under torch.no_grad or detaches its output"
    return ""


def halving(question: Question, compute: Callable[[int], Tensor]) -> Tensor:
    """compute(images a pass) inside `kept`; when memory runs out, again with half as many.

    Images go one by one where the model must not see several at once.
    """
    state, stage = question.rng.bit_generator.state, (question.name, question.size, None)
    while True:
        images = 1 if question.model.one_by_one else question.batch.of(stage)
        try:
            with kept(question), question.batch.watched(stage, images):
                return compute(images).detach()
        except RuntimeError as error:
            if images == 1 or not out_of_memory(error):
                raise
            question.batch.halve(images)
            question.rng.bit_generator.state = state


def layers(question: Question) -> list[tuple[str, nn.Module, Form]]:
    """Name, module and form of each layer that is asked for, by default the model's feature layer.

    Raises:
        SampleError: the model runs on tiles, so that a layer runs once a tile; or photographs are wired.
        SettingsError: see `evidence.layer.check_layer`.
    """
    model = question.model
    if model.tiling is not None:
        raise SampleError(f"{question.name} reads a layer of whole images, and {model.name} runs on tiles")
    if model.wired:
        raise SampleError(
            f"{question.name} reads a layer, which sees wired photographs as a batch of two; use gpa or ega"
        )
    asked = question.parameters.layer
    if asked is None and model.layer is None:
        choose_layer(model, question.image)
    names = model.layer_names(asked)
    return [(name, model.module.get_submodule(name), check_layer(model, name, question.image)) for name in names]


def over_image(question: Question, maps: Float[Tensor, "1 h w"]) -> Float[Tensor, "H W"]:
    """A map of a layer upsampled to the padded image, without the rows and columns that pad it."""
    padded = question.model.padded(question.image)
    height, width = question.size
    return upsample(maps, (padded.shape[1], padded.shape[2]))[0, :height, :width]


def fast_score(question: Question) -> Callable[[Float[Tensor, "B bands H W"], Boxes], Float[Tensor, "B"]]:
    """s of altered copies of the image, computed only where they are altered; `boxes` are around what is altered.

    Of wired photographs whole canvases run, since a method may run the module through `logits` alone.
    """
    model, image, target = question.model, question.image, question.target
    whole, stage = Score(model, target), altered_images(question)
    scorer: Scorer = lambda images, boxes: whole(images)  # noqa: E731
    if not model.wired:
        with torch.inference_mode():
            expected = float(whole(image[None]))
        scorer = scorer_for(model, image, target.region, scalar_of(model, target), expected=expected).score

    def score(images: Float[Tensor, "B bands H W"], boxes: Boxes) -> Float[Tensor, "B"]:
        def build(numbers: Tensor) -> Tensor:
            return images[sent(numbers, images.device)]

        return score_images(scorer, build, len(images), question.batch, boxes, stage).clone()

    return score


def at_once(question: Question) -> int:
    """How many altered images may exist, and be scored, at once."""
    return question.batch.of(altered_images(question))


def altered_images(question: Question) -> Stage:
    """The stage of the altered images of a question."""
    return on_target(question.name, question.target.region)


def boxes_of(masks: Tensor) -> Boxes:
    """The box around each of B pixel sets (B, H, W); an empty set gets a box of one pixel."""
    start, stop = np.zeros((len(masks), 2), dtype=np.int64), np.ones((len(masks), 2), dtype=np.int64)
    for axis in (0, 1):
        used = masks.any(2 - axis).cpu().numpy()
        some = used.any(1)
        start[some, axis] = used[some].argmax(1)
        stop[some, axis] = used.shape[1] - used[some, ::-1].argmax(1)
    return start, stop


def padded_input(question: Question) -> Image:
    """The image as the module sees it, so that a layer's maps cover it; `Score` crops it again."""
    return question.model.padded(question.image).clone()
