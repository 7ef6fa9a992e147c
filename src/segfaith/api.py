"""The Python interface: explain and evaluate one image."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from pydantic import ValidationError

from segfaith.attribution.explain import gather, heatmaps, sample_rng
from segfaith.attribution.guard import foreign, guarded
from segfaith.attribution.heatmap import minmax
from segfaith.attribution.methods import (
    DEFAULT_METHODS,
    Method,
    MethodInstance,
    refuse_repeated,
    resolve_method,
)
from segfaith.attribution.parameters import Parameters
from segfaith.batching import DEFAULT_BATCH, TRIED, BatchSize, batches, out_of_memory
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.partition import check_partition
from segfaith.benchmark.plan import resolve_methods
from segfaith.benchmark.worker import evaluate_sample, predicted_classes, to_device
from segfaith.classes import class_index
from segfaith.errors import SampleError, SegfaithError, SettingsError, placed
from segfaith.evaluation.subject import Subject
from segfaith.explanation import Explanation
from segfaith.models.probe import probe
from segfaith.models.segmentation import SegmentationModel
from segfaith.perturbation import clean_variant
from segfaith.results.records.schema import RECORD_COLUMNS
from segfaith.target_choice import TargetChoice
from segfaith.targets import find_targets
from segfaith.types import Image, Map, Target

TargetLike = Target | str | int | None


def explain(
    model: SegmentationModel,
    image: Image,
    target: TargetLike = None,
    methods: Sequence[str | Method] = ("gpa", "ega", "ria", "dea"),
    *,
    k: float = 0.2,
    occlusion: str = "mean",
    seed: int = 0,
    batch_size: int | None = None,
    memory: str | None = None,
) -> Explanation:
    """Heatmaps of one image, by method name.

    Args:
        model: from `load_model` or `wrap`.
        image: (bands, H, W) in [0, 1], RGB for a model of three channels; see `load_image`.
        target: a `Target`; a class name or index (its region is where the model predicts it); None for the class that
            the model predicts on most foreground pixels.
        methods: names as in a settings file (`dea@alpha=0.8`), or `Method` objects.
        k, occlusion: of the deletions in `.scores` and `.figure()`, see `evaluate`.
        seed: the seed of the random controls and operators.
        batch_size: images a model pass, at most; None: 16, for small networks up to 49, or as many as `memory` allows.
        memory: what the model's passes may take beyond what is in use now, such as "4GB"; see docs/settings.md.

    Returns:
        A mapping of maps (H, W) in [0, 1], float32, on the model's device. Shared evidence is computed once. It also
        has `.scores`, as `evaluate` gives them, and `.figure()`; both are computed when they are asked for.

    A model is tested before its first use (see `models.probe`); this costs 8 to 11 model passes, once.

    Raises:
        SampleError: an image or target of the wrong shape, a class that is not predicted, logits that are not finite.
        SettingsError: an unknown method, parameter or class; a model that cannot be used, see `models.probe`.
    """
    return explain_by(
        model,
        image,
        target,
        [resolve_method(name, {}) for name in _named(methods)],
        k=k,
        occlusion=occlusion,
        seed=seed,
        batch_size=batch_size,
        memory=memory,
    )


def explain_by(
    model: SegmentationModel,
    image: Image,
    target: TargetLike,
    instances: Sequence[MethodInstance],
    *,
    k: float,
    occlusion: str,
    seed: int,
    batch_size: int | None,
    memory: str | None,
    lenient: bool = False,
) -> Explanation:
    """`explain` by methods with their parameters, as `resolve_method` gives them.

    Args:
        lenient: a method that the model refuses, or whose code fails, is left out and said in `refused`, if another
            gives a map.
    """
    _evaluation(k, occlusion)
    if not instances:
        raise SettingsError("methods = []: expected at least one method, as in ['ria', 'ega']")
    refuse_repeated(instances)
    image, resolved, batch = _prepared(model, image, target, batch_size, memory)
    rng = sample_rng(seed, "image", resolved.name)
    clean = gather(
        model,
        clean_variant(image, resolved.region),
        resolved,
        instances,
        batch,
        rng,
        score=False,
    )
    maps: dict[str, Map] = {}
    refused: dict[str, str] = {}
    for instance in instances:
        try:
            with guarded(model, instance):
                maps[instance.name] = heatmaps(model, clean, instance, rng, "image")[0]
        except Exception as error:
            own = foreign(instance.method) and not isinstance(error, SegfaithError | MemoryError)
            if not lenient or out_of_memory(error) or not (own or isinstance(error, SampleError)):
                raise
            refused[instance.name] = placed(error) if own else str(error).removeprefix(f"{instance.name}: ")
    if not maps:
        told = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
        raise SampleError(f"no method gives a map of this model and image. {told}")

    def measure(given: Mapping[str, Map]) -> pd.DataFrame:
        chosen: dict[str, Any] = {"k": k, "occlusion": occlusion, "seed": seed, "batch_size": batch_size}
        chosen["memory"] = memory
        return evaluate(model, image, resolved, given, thorough=False, **chosen)

    subject = Subject(model, "image", image, resolved, seed, batch)
    return Explanation(subject, maps, k, occlusion, measure, refused=refused)


def evaluate(
    model: SegmentationModel,
    image: Image,
    target: TargetLike = None,
    methods: Sequence[str | Method] | Mapping[str, Any] = DEFAULT_METHODS,
    *,
    k: float = 0.2,
    occlusion: str = "mean",
    stability: bool = False,
    thorough: bool = True,
    seed: int = 0,
    batch_size: int | None = None,
    memory: str | None = None,
) -> pd.DataFrame:
    """Measures methods, or maps that you already have, on one image.

    Args:
        model, image, target, seed, batch_size, memory: see `explain`.
        methods: names or `Method` objects, whose maps are computed and measured; or a mapping from names to finished
            maps (H, W), which are measured without stability and runtime.
        k: the fraction of the region's pixels that deletion removes and insertion restores.
        occlusion: the occlusion operator of deletion and insertion.
        stability: also explain the five perturbed variants.
        thorough: also measure fidelity (96 passes for all maps together) and the curves over the whole image (12
            passes a map).

    Returns:
        One row per method, indexed by its name, with the columns of the records; the control `random_cells`, against
        which `tdd_gain` is measured, is always among them. `runtime_s` is the time in this call, with no warm-up. The
        frame's `attrs` say where the model's weights come from (`weights`), what its outputs are taken for (`head`),
        why its images did not share a batch (`one_by_one`, "" if they did), and what a reader must know of the feature
        layers by name (`layers`): which was chosen, how it was reshaped, and that its maps repeat the prediction; and
        that one image took more than `memory` (`memory`, "" if it did not).

    Raises:
        SampleError, SettingsError: see `explain`. A method that fails has a row that says why.
    """
    image, resolved, batch = _prepared(model, image, target, batch_size, memory)
    if isinstance(methods, Mapping):
        instances = [given_map(name, heatmap) for name, heatmap in methods.items()]
        if "random_cells" in methods:
            raise SettingsError("a map cannot be called 'random_cells', the control that tdd_gain is measured against")
        instances.append(resolve_method("random_cells", {}))
    else:
        instances = resolve_methods(_named(methods), {})
    settings = _evaluation(k, occlusion, thorough=thorough)
    check_partition(instances, settings, in_python=True)
    subject = Subject(model, "image", image, resolved, seed, batch)
    result = evaluate_sample(subject, instances, settings, stability=stability)
    frame = pd.DataFrame(result.records).reindex(columns=list(RECORD_COLUMNS)).set_index("method")
    frame.attrs |= {"weights": model.weights, "head": model.head_words, "one_by_one": model.one_by_one}
    frame.attrs["layers"] = dict(model.layer_notes)
    frame.attrs["memory"] = "" if batch.memory is None else batch.memory.short(subject.size)
    return frame


def predicted_target(model: SegmentationModel, image: Image, class_name: str | int | None = None) -> Target:
    """The pixels that the model predicts as a class; by default as its most frequent foreground class.

    Class 0 is the background, unless classes overlap. A class is predicted where its logit is the largest, or, where
    classes overlap (`head = "sigmoid"`), where its sigmoid is above 1/2. `find_targets` gives other regions:
    components, boundaries, what the model misses.

    Raises:
        SampleSkipped: the model predicts that class, or any foreground, at no pixel.
        SettingsError: an unknown class; a model that cannot be used, see `models.probe`.
    """
    image = _checked(model, image)
    predicted = predicted_classes(model, image)
    index = None if class_name is None else class_index(class_name, model.classes, model.class_count)
    nothing = torch.zeros(image.shape[1:], dtype=torch.int64, device=predicted.device)
    background = None if model.independent else 0  # where classes overlap, no class means 'nothing else'
    choice = TargetChoice("prediction", index)
    return find_targets(nothing, predicted, choice, background=background, classes=model.classes)[0]


def _checked(model: SegmentationModel, image: Image, batch_size: int | None = None, memory: str | None = None) -> Image:
    """The image in float32. A model that is new is tested first."""
    if not isinstance(model, SegmentationModel):
        raise SettingsError(f"expected a model of segfaith.wrap or load_model, got a {type(model).__name__}; wrap it")
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise SettingsError(f"the batch size must be a whole number of at least 1, got {batch_size!r}")
    shape = f"a float image ({model.input_channels}, H, W)"
    if not isinstance(image, torch.Tensor):
        raise SampleError(f"expected {shape}, a tensor, got a {type(image).__name__}; see load_image")
    if image.ndim != 3 or image.shape[0] != model.input_channels or not image.is_floating_point():
        raise SampleError(f"expected {shape}, got {image.dtype} {tuple(image.shape)}; see load_image")
    if not bool(((image >= 0) & (image <= 1)).all()):
        raise SampleError(
            f"expected an image in [0, 1], got values {float(image.min()):g} to {float(image.max()):g}; give the image "
            "before normalisation, divided by 255 if it is 8-bit"
        )
    image = image.detach().float()
    probe(model, image.to(model.device), batch_size or (DEFAULT_BATCH if memory is None else TRIED))
    return image


def _prepared(
    model: SegmentationModel, image: Image, target: TargetLike, batch_size: int | None, memory: str | None
) -> tuple[Image, Target, BatchSize]:
    """Image and target, checked and on the model's device, and the batches; see `explain` for what a target may be."""
    image = _checked(model, image, batch_size, memory)
    batch = batches(batch_size, memory, model.device)
    model.memory = None if batch.memory is None else batch.memory.limit
    if isinstance(target, torch.Tensor):
        raise SettingsError("a mask alone names no class; give segfaith.Target(class_index, mask)")
    if not isinstance(target, Target):
        target = predicted_target(model, image, target)
    if target.region.shape != image.shape[1:] or target.region.dtype != torch.bool:
        raise SampleError(
            f"the target region is {target.region.dtype} {tuple(target.region.shape)}; expected a boolean mask "
            f"{tuple(image.shape[1:])}, the image's (H, W)"
        )
    return *to_device(model, image, target), batch


def _evaluation(k: float, occlusion: str, *, thorough: bool = True) -> EvaluationSettings:
    try:
        settings = EvaluationSettings(k=k, occlusion=[occlusion])
        return settings if thorough else settings.model_copy(update={"whole": False, "fidelity": 0})
    except ValidationError as error:
        raise SettingsError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def _named(methods: Any) -> Sequence[str | Method]:
    """The methods, if they are a list of names and `Method` objects."""
    if isinstance(methods, str) or not isinstance(methods, Sequence):
        raise SettingsError(f"methods = {methods!r}: expected a list of names or Method objects, as in ['ria', 'ega']")
    strange = [entry for entry in methods if not isinstance(entry, str | Method)]
    if strange:
        raise SettingsError(
            f"a method is a {type(strange[0]).__name__}; expected a name, FILE.py:FUNCTION, or a segfaith.Method"
        )
    return methods


def given_map(name: str, heatmap: Any) -> MethodInstance:
    """A finished map (H, W) as a method, so that it is measured like any other.

    Raises:
        SettingsError: it is no array of numbers.
    """
    try:
        known = heatmap if isinstance(heatmap, torch.Tensor) else torch.as_tensor(np.ascontiguousarray(heatmap))
        values = known.detach() if known.is_complex() else known.detach().double()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"map {name!r} is not an array of numbers (H, W) but a {type(heatmap).__name__}") from error
    if values.is_complex():
        raise SettingsError(f"map {name!r} holds {values.dtype}; expected real numbers, such as absolute values")

    def combine(sample_id: str, size: tuple[int, int]) -> Map:
        if tuple(values.shape) != size or not bool(values.isfinite().all()):
            raise SampleError(f"map {name!r} has shape {tuple(values.shape)}; expected finite values of shape {size}")
        return minmax(values[None])[0].float()

    return MethodInstance(name, Method(name, "given by the user", ("file",), combine), Parameters())
