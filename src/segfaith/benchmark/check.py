"""`segfaith check`: reads the data of a plan, runs the model a few times, and says what would go wrong."""

import sys
from collections.abc import Callable, Iterator, Sequence
from time import perf_counter

import torch

from segfaith.batching import LARGEST, BatchSize
from segfaith.benchmark.check_data import Line, Seen, data_lines, read_all
from segfaith.benchmark.check_fit import fit_lines
from segfaith.benchmark.forecast import pace
from segfaith.benchmark.plan import Plan, check_bands, check_classes, make_plan, with_names
from segfaith.benchmark.precision import precision_lines
from segfaith.benchmark.prepared import Prepared
from segfaith.benchmark.setting_tables import Settings
from segfaith.benchmark.targeting import target_choice, targets_of
from segfaith.benchmark.warm_up import chosen_model, warm_up
from segfaith.errors import SegfaithError, SettingsError, words_of
from segfaith.evidence.layer import CHOSEN, REPEATS
from segfaith.memory import SHORT
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import occluder
from segfaith.randomness import generator
from segfaith.target_choice import TargetChoice
from segfaith.types import Image, Sample, Target

__all__ = ["Line", "check", "examine"]


def check(
    settings: Settings,
    on_plan: Callable[[int], None] = lambda samples: None,
    on_sample: Callable[[str], None] = lambda sample_id: None,
) -> Iterator[Line]:
    """The findings on a run's settings, data and model, in the order in which they are known; nothing is raised.

    Args:
        on_plan: told the number of samples, before they are read.
        on_sample: told the id after each sample.
    """
    try:
        plan = make_plan(settings)
    except SegfaithError as error:
        yield Line("fail", "settings", str(error))
        return
    yield Line("ok", "settings", f"{len(plan.ids)} samples, methods {', '.join(one.name for one in plan.methods)}")
    model: SegmentationModel | None = None
    if settings.execution.threads:
        torch.set_num_threads(settings.execution.threads)
    try:
        model = chosen_model(settings)
    except SegfaithError as error:
        yield Line("fail", "model", str(error))
    try:
        plan = plan if model is None else with_names(plan, model)
    except SegfaithError as error:
        yield Line("fail", "classes", str(error))
        model = None
    on_plan(len(plan.ids))
    yield from examine(plan, model, on_sample)


def examine(
    plan: Plan,
    model: SegmentationModel | None,
    on_sample: Callable[[str], None] = lambda sample_id: None,
    *,
    path: str | None = None,
    forecast: bool = True,
) -> Iterator[Line]:
    """The findings on a plan's data and on its model.

    Args:
        model: None where it could not be loaded: then the data alone are read.
        path: how altered images are scored, where a warm-up has said so already; None: the model is warmed up here.
        forecast: whether a sample's work is timed.
    """
    lines: list[Line] = []
    choice: TargetChoice | None = None
    batch: BatchSize | None = None
    if model is not None:
        path, usable, batch = _warmed(model, plan, path, lines)
        choice = _choice(model, plan, lines) if usable else None
    seen = read_all(plan, model, _targets(plan, model, choice), on_sample)
    if model is not None:
        yield from _model(model, plan)
    yield from lines
    names = (model.classes if model else None) or plan.dataset.classes
    yield from data_lines(plan, seen, names, model.class_count if model else None, targets=choice is not None)
    if choice is not None and choice.reads_prediction:
        yield Line("ok", "targets", "they are read from the prediction: a model pass for each sample")
    if model is None or choice is None:
        return
    if seen.kept:
        yield from _one_pass(model, seen)
        yield from _operators(plan, seen.kept[0][0].image)
        yield from fit_lines(model, seen.kept, whole_classes=plan.settings.target.whole_classes)
    if path is None or batch is None:
        return
    yield Line("ok", "scored", path)
    for fine, words in precision_lines(plan.methods, model.device, path):
        yield Line("ok" if fine else "warn", "precision", words)
    if forecast:
        yield from _cost(Prepared(plan, model, choice, path, batch), seen)


def _warmed(
    model: SegmentationModel, plan: Plan, path: str | None, lines: list[Line]
) -> tuple[str | None, bool, BatchSize | None]:
    """How altered images are scored, whether the model can be used, and the run's batches; what is wrong is added to
    `lines`."""
    try:
        check_classes(model, plan.dataset)
    except SettingsError as error:
        lines.append(Line("fail", "classes", str(error)))
    try:
        check_bands(model, plan)
    except SettingsError as error:
        lines.append(Line("fail", "occlusion", str(error)))
    try:
        batch = plan.settings.execution.batches(model.device)
        path = warm_up(model, plan, batch) if path is None else path
    except SettingsError as error:
        lines.append(Line("fail", "model", str(error)))
        return None, model.channels is not None, None
    if path.startswith("unknown"):
        lines.append(Line("warn", "model", path))
    return path, True, batch


def _choice(model: SegmentationModel, plan: Plan, lines: list[Line]) -> TargetChoice | None:
    try:
        return target_choice(plan.settings, model, plan.dataset)
    except SettingsError as error:
        lines.append(Line("fail", "targets", str(error)))
        return None


def _targets(
    plan: Plan, model: SegmentationModel | None, choice: TargetChoice | None
) -> Callable[[Sample], list[Target]] | None:
    if model is None or choice is None:
        return None
    return lambda sample: targets_of(plan, model, choice, sample)


def _model(model: SegmentationModel, plan: Plan) -> Iterator[Line]:
    """The model as it is taken: its size, what goes in, what comes out, and the layer."""
    count = sum(parameter.numel() for parameter in model.module.parameters())
    yield Line("ok", "model", f"{model.name}, weights {model.weights}, {count:,} parameters, on {model.device}")
    numbers = f"mean {_numbers(model.mean)}, std {_numbers(model.std)} of images in [0, 1]"
    source = model.provenance["normalisation"]
    yield Line("ok", "input", f"{model.input_channels} channel(s), {numbers}: {source}")
    if model.channels is not None:
        yield Line("ok", "head", f"{model.head_words}{_head(model)}")
    if model.pad:
        yield Line("ok", "padding", f"sides to multiples of {model.pad}")
    if model.tiling:
        yield Line("ok", "tiles", "{} x {}, overlap {}".format(*model.tiling.tile, model.tiling.overlap))
    if model.one_by_one:
        yield Line("warn", "batches", f"one image at a time: {model.one_by_one}")
    if model.layer is not None:
        source = "chosen by segfaith" if plan.settings.model.layer is None else "as [model] layer says"
        yield Line("ok", "layer", f"{model.layer}, {source}")
    for layer, words in model.layer_notes.items():
        others = words.removeprefix(CHOSEN).removeprefix("; ")  # that it was chosen is said
        if others:
            yield Line("warn" if REPEATS in words else "ok", "layer", f"{layer}: {others}")


def _head(model: SegmentationModel) -> str:
    """What the head means for a user who did not say."""
    if model.head is not None or model.softmax_only or (model.channels or 1) == 1:
        return ""
    return (
        ": each pixel has one class, and the probabilities of the classes sum to 1. If classes may overlap, each with "
        'a sigmoid of its own, set [model] head = "sigmoid"'
    )


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _one_pass(model: SegmentationModel, seen: Seen) -> Iterator[Line]:
    """The shape of the outputs for a sample, padded as the model needs it, or its first tile; the seconds of a pass."""
    image = model.first_input(seen.kept[0][0].image.to(model.device))
    start = perf_counter()
    try:
        with torch.no_grad():
            outputs = model.outputs_of(model.module, image[None])
    except Exception as error:  # a model may raise anything
        yield Line("fail", "pass", words_of(error))
        return
    shape = " x ".join(map(str, outputs.shape[1:]))
    size = " x ".join(map(str, image.shape))
    what = "image" if model.tiling is None else "tile"
    yield Line("ok", "pass", f"{what} {size} to outputs {shape} (C x H x W) in {perf_counter() - start:.2g} s")


def _operators(plan: Plan, image: Image) -> Iterator[Line]:
    """Operators that cannot be used on such images."""
    everything, wired = torch.ones(1, *image.shape[1:], dtype=torch.bool), plan.settings.data.wired is not None
    for name in plan.settings.evaluation.occlusion:
        try:
            altered = occluder(name, image, generator(0, "check", name), wired=wired)(everything)
        except Exception as error:
            yield Line("fail", "occlusion", f"{name} cannot be used on such images: {words_of(error)}; use another")
            continue
        if bool(altered.isfinite().all()):
            yield Line("ok", "occlusion", name)
        else:
            yield Line("fail", "occlusion", f"{name} gives values that are not finite on such images; use another")


def _cost(prepared: Prepared, seen: Seen) -> Iterator[Line]:
    """Passes, time and memory of the run."""
    plan = prepared.plan
    yield Line("ok", "passes", f"{plan.passes:,} through the model")
    if not seen.kept:
        return
    timed = pace(prepared)
    if isinstance(timed, str):
        yield Line("warn", "time", f"unknown: {timed}")
    else:
        counts = len(plan.ids), len(plan.stability_ids)
        seconds = timed.seconds(*counts)
        yield Line("ok", "time", f"about {seconds:,.0f} s: {timed.words(*counts)} (timed on {timed.sample_id})")
    if prepared.batch.memory is not None:
        memory = prepared.batch.memory
        yield Line("ok", "memory", memory.words(prepared.batch.images))
        yield from (Line("warn", "memory", words.removeprefix(SHORT)) for words in prepared.short_of_memory)
        return
    if prepared.model.device.type == "cuda":
        used, where = torch.cuda.max_memory_allocated(prepared.model.device), "the GPU"
    elif sys.platform == "win32":
        return
    else:
        from resource import RUSAGE_SELF, getrusage

        unit = 1 if sys.platform == "darwin" else 1024
        used, where = getrusage(RUSAGE_SELF).ru_maxrss * unit, "the process"
    most = LARGEST if prepared.batch.follows else prepared.batch.images
    yield Line(
        "ok", "memory", f"{where} has held up to {used / 2**30:.1f} GiB so far, with batches of at most {most} images"
    )
