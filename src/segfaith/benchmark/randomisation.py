"""The model-randomisation check (Adebayo et al., NeurIPS 2018): do maps change when what was learnt is destroyed?

The weights are redrawn part by part, beginning with the part that runs last. They stay redrawn, so the damage cascades.
A floating-point tensor w gets independent normal values with the mean and the standard deviation of w. If all values of
w are equal (fresh tensors, tensors of a single value), the deviation is 1 / sqrt(values per output); vectors and
scalars of equal values, such as fresh biases and scales of norm layers, stay as they are. The use of w's own moments,
in place of the model's initialiser, is our choice: a module does not tell its initialisers. Buffers stay, running
statistics among them. So activations change their scale, and the model soon loses the class: `s` says at which stage.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import nn

from segfaith.attribution.explain import gather, heatmaps, sample_rng
from segfaith.attribution.guard import guarded
from segfaith.attribution.methods import REFERENCE, MethodInstance
from segfaith.benchmark.ownership import check_own
from segfaith.benchmark.prepared import Prepared
from segfaith.benchmark.targeting import load_sample
from segfaith.benchmark.worker import to_device
from segfaith.errors import SampleError, SampleSkipped, SettingsError
from segfaith.evaluation.correlation import pearson
from segfaith.models.segmentation import SegmentationModel
from segfaith.paths import map_folder
from segfaith.perturbation import clean_variant
from segfaith.randomness import generator
from segfaith.results.records.files import write_rows
from segfaith.results.records.schema import RANDOMISATION_COLUMNS
from segfaith.types import Image, Map, Target, Tensor

LEAST_PARTS = 5
"""The module is cut into at least this many parts, if it has them."""


def randomise(
    prepared: Prepared, directory: Path, count: int, on_step: Callable[[str], None] = lambda words: None
) -> Path:
    """Writes `randomisation.parquet` for the run's first `count` samples, and rewrites it after each stage.

    After an interruption, the file holds the completed stages, in rows that are not `finished`. An earlier file is
    replaced after the first stage. The model's weights are put back at the end.

    Model passes: the evidence of one image for each target and stage (the trained model's stage included), and two
    passes, plus one for each part, to find the stages.

    Raises:
        SettingsError: the model has no weights that could be redrawn.
        RunIsBusyError: the directory was removed, or replaced by another run.
    """
    plan, model = prepared.plan, prepared.model
    rows: list[dict[str, Any]] = []
    samples: list[tuple[str, Image, Target]] = []
    for sample_id in plan.ids[:count]:
        try:
            sample = load_sample(plan, prepared.model, sample_id)
            targets = prepared.targets(sample)
            samples += [(sample_id, *to_device(model, sample.image, target)) for target in targets]
        except Exception as error:  # a bad sample becomes rows with the reason
            status = "skipped" if isinstance(error, SampleSkipped) else "failed"
            rows += [
                {"sample_id": sample_id, "target": "", "method": method.name, "stage": 0, "part": "", "status": status}
                | {"reason": _words(error)}
                for method in _methods(prepared)
            ]
    path = directory / "randomisation.parquet"

    def write(*, finished: bool) -> None:
        check_own(directory, prepared.identity)
        marked = [row | {"finished": finished} for row in rows]
        write_rows(path, marked, RANDOMISATION_COLUMNS, prepared.identity)

    trained: dict[str, dict[str, Map | Exception]] = {}
    size = plan.settings.data.size
    with cascade(model, plan.settings.seed, 224 if size == "native" else size) as stages:
        for stage, part in stages:
            for sample_id, image, target in samples:
                name = map_folder(sample_id, target.name)
                on_step(f"stage {stage} ({part or 'trained model'}), {name}")
                s, maps = _maps(prepared, sample_id, image, target)
                before = trained.setdefault(name, maps)
                base = {"sample_id": sample_id, "class_index": target.class_index, "target": target.name, "s": s}
                base |= {"stage": stage, "part": part}
                rows += [base | {"method": method} | _compared(before[method], now) for method, now in maps.items()]
            write(finished=False)
    write(finished=True)
    return path


@contextmanager
def cascade(model: SegmentationModel, seed: int, size: int = 224) -> Iterator[Iterator[tuple[int, str]]]:
    """Gives an iterator over the stages: (0, "") is the trained model, and each later stage redraws one more part.

    A part that changes no logit of a noise image of `size` x `size`, such as an auxiliary head, is no stage. Where
    photographs are wired, two such images lie side by side. The weights are put back at the end of the block.

    Raises:
        SettingsError: the model has no weights.
    """
    names = {value: name for name, value in model.module.named_parameters() if value.is_floating_point()}
    if not names:
        raise SettingsError(f"{model.name} has no floating-point weights, so there is nothing to draw anew")
    kept = {value: value.detach().clone() for value in names}
    shape = 1, model.input_channels, size, size * (1 + model.wired)
    probe = torch.from_numpy(np.random.default_rng(0).random(shape, dtype=np.float32)).to(model.device)

    @torch.no_grad()
    def stages() -> Iterator[tuple[int, str]]:
        yield 0, ""
        stage, logits = 0, model.logits(probe)
        for part, owners in in_order(model, probe):
            for value in [value for owner in owners for value in owner.parameters(recurse=False) if value in names]:
                value.copy_(_drawn(kept[value], generator(seed, "", f"randomise|{names[value]}")))
            changed = model.logits(probe)
            if not torch.equal(changed, logits):
                logits, stage = changed, stage + 1
                yield stage, part

    try:
        yield stages()
    finally:
        with torch.no_grad():
            for value, before in kept.items():
                value.copy_(before)


def _drawn(value: Tensor, rng: np.random.Generator) -> Tensor:
    """Normal values with the mean and deviation of a weight tensor; the module says what constant tensors get."""
    constant = value.numel() > 0 and bool(value.max() == value.min())
    if not value.numel() or (constant and value.ndim < 2):
        return value
    deviation = (len(value) / value.numel()) ** 0.5 if constant else float(value.double().std(correction=0))
    normal = torch.from_numpy(rng.standard_normal(tuple(value.shape), dtype=np.float32)).to(value.device)
    return (float(value.double().mean()) + deviation * normal).to(value.dtype)


def in_order(model: SegmentationModel, probe: Tensor) -> list[tuple[str, list[nn.Module]]]:
    """The parts of a model; the part that runs last comes first. Parts whose modules are never called come at the end.

    A part's turn is the last call of any of its modules with weights. So a module's own weights count as used before
    the weights of its submodules: a position embedding comes after all layers.
    """
    entered: dict[nn.Module, int] = {}
    calls: list[nn.Module] = []

    def note(module: nn.Module, inputs: Any) -> None:
        entered[module] = len(calls)
        calls.append(module)

    ordered = parts(model.module)[::-1]  # parts that are not called keep this order
    hooks = []
    try:
        for module in {owner: None for _, owners in ordered for owner in owners}:
            hooks.append(module.register_forward_pre_hook(note))
        with torch.no_grad():
            model.logits(probe)
    finally:
        for hook in hooks:
            hook.remove()
    return sorted(ordered, key=lambda part: -max(entered.get(owner, -1) for owner in part[1]))


def parts(module: nn.Module) -> list[tuple[str, list[nn.Module]]]:
    """A module's parts, in order of registration: each part's dotted name, and its modules that own weights.

    The part with the most weight tensors is cut into its children and its own weights, until there are `LEAST_PARTS`
    parts.
    """
    cut: list[tuple[str, nn.Module, bool]] = [("", module, True)]
    while len(cut) < LEAST_PARTS:
        sizes = [len(list(part.parameters())) if whole and _children(part) else 0 for _, part, whole in cut]
        largest = int(np.argmax(sizes))
        if not sizes[largest]:
            break
        name, part, _ = cut[largest]
        own = [(name, part, False)] if _owns(part) else []
        children = [(f"{name}.{key}".lstrip("."), child, True) for key, child in _children(part)]
        cut[largest : largest + 1] = [*own, *children]
    return [
        (name or "model", [owner for owner in (part.modules() if whole else [part]) if _owns(owner)])
        for name, part, whole in cut
    ]


def _owns(module: nn.Module) -> bool:
    """Whether a module has weights that belong to none of its children."""
    return next(module.parameters(recurse=False), None) is not None


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Children with weights."""
    return [(name, child) for name, child in module.named_children() if next(child.parameters(), None) is not None]


def _methods(prepared: Prepared) -> Sequence[MethodInstance]:
    """The run's methods but for the truth, which does not ask the model."""
    return [method for method in prepared.plan.methods if method.method is not REFERENCE]


def _maps(prepared: Prepared, sample_id: str, image: Image, target: Target) -> tuple[float, dict[str, Map | Exception]]:
    """s of one image, and each method's map of it, or the error in place of the map."""
    plan = prepared.plan
    rng = sample_rng(plan.settings.seed, sample_id, target.name)
    methods = _methods(prepared)
    maps: dict[str, Map | Exception] = {}
    try:
        clean = gather(prepared.model, clean_variant(image, target.region), target, methods, prepared.batch, rng)
    except Exception as error:
        return nan, dict.fromkeys((method.name for method in methods), error)
    for method in methods:
        try:
            if "file" in method.method.needs:
                raise SampleError("the maps were computed elsewhere")
            with guarded(prepared.model, method):
                maps[method.name] = heatmaps(prepared.model, clean, method, rng, sample_id)[0].cpu()
        except Exception as error:
            maps[method.name] = error.with_traceback(None)
    return nan if clean.forward is None else float(clean.forward.score[0]), maps


def _compared(before: Map | Exception, now: Map | Exception) -> dict[str, Any]:
    """Correlations of two maps, or why there are none."""
    for outcome in (before, now):
        if isinstance(outcome, Exception):
            return {"status": "failed", "reason": _words(outcome)}
    assert not isinstance(before, Exception)
    assert not isinstance(now, Exception)
    value = pearson(before, now)
    ranks = nan if isnan(value) else float(spearmanr(before.flatten().numpy(), now.flatten().numpy()).statistic)
    reason = "this map or the trained model's is constant" if isnan(value) else ""
    return {"pearson": value, "spearman": ranks, "status": "ok", "reason": reason}


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, SampleError) else f"{type(error).__name__}: {error}"
