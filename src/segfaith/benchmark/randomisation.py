"""The model-randomisation check (Adebayo et al., NeurIPS 2018): do maps change when what was learnt is destroyed?

From the head to the first layers, part after part, the values of each weight tensor are shuffled, and parts stay
shuffled. Shuffling instead of drawing anew is ours: it keeps each tensor's distribution, so that activations keep their
scale in any architecture. Buffers (running statistics) stay.
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
from segfaith.attribution.methods import MethodInstance
from segfaith.benchmark.executors import Prepared, find_target
from segfaith.benchmark.worker import ELSEWHERE, to_device
from segfaith.errors import SampleError, SampleSkipped, SettingsError
from segfaith.evaluation.stability import pearson
from segfaith.models.segmentation import SegmentationModel
from segfaith.perturbation import clean_variant
from segfaith.randomness import generator
from segfaith.results.records import RANDOMISATION_COLUMNS, write_rows
from segfaith.scores import BatchSize
from segfaith.types import Image, Map, Target, Tensor

LEAST_PARTS = 5
"""The module is cut into at least so many parts, where it has them."""


def randomise(
    prepared: Prepared, directory: Path, count: int, on_step: Callable[[str], None] = lambda words: None
) -> Path:
    """Writes `randomisation.parquet` into the run's directory for its first `count` samples.

    The model is as before afterwards.

    Model passes: for each sample and stage, the trained model's included, the evidence of one image.

    Raises:
        SettingsError: the model has no weights that could be shuffled.
    """
    plan, model = prepared.plan, prepared.model
    rows: list[dict[str, Any]] = []
    samples: list[tuple[str, Image, Target]] = []
    for sample_id in plan.ids[:count]:
        try:
            sample = plan.dataset.load(sample_id, plan.settings.data.size)
            samples.append((sample_id, *to_device(model, sample.image, find_target(prepared, sample))))
        except Exception as error:  # a bad sample is a row
            status = "skipped" if isinstance(error, SampleSkipped) else "failed"
            rows += [
                {"sample_id": sample_id, "method": one.name, "stage": 0, "part": "", "status": status}
                | {"reason": _words(error)}
                for one in plan.methods
            ]
    trained: dict[str, dict[str, Map | Exception]] = {}
    size = plan.settings.data.size
    with cascade(model, plan.settings.seed, 224 if size == "native" else size) as stages:
        for stage, part in stages:
            for sample_id, image, target in samples:
                on_step(f"stage {stage} ({part or 'trained model'}), {sample_id}")
                found = _maps(prepared, sample_id, image, target)
                before = trained.setdefault(sample_id, found)
                base = {"sample_id": sample_id, "class_index": target.class_index, "stage": stage, "part": part}
                rows += [base | {"method": name} | _compared(before[name], one) for name, one in found.items()]
    path = directory / "randomisation.parquet"
    write_rows(path, rows, RANDOMISATION_COLUMNS)
    return path


@contextmanager
def cascade(model: SegmentationModel, seed: int, size: int = 224) -> Iterator[Iterator[tuple[int, str]]]:
    """Stages as they are asked for: (0, "") is the trained model, each later one has one more part shuffled.

    Parts whose shuffling changes no logit of a noise image of `size` x `size`, such as auxiliary heads, are left out.
    The weights come back at the end.

    Raises:
        SettingsError: the model has no weights.
    """
    kept = {name: value.detach().clone() for name, value in model.module.named_parameters()}
    if not kept:
        raise SettingsError(f"{model.name} has no weights, so there is nothing to shuffle")
    probe = torch.from_numpy(np.random.default_rng(0).random((1, 3, size, size), dtype=np.float32)).to(model.device)

    @torch.no_grad()
    def shuffled(part: str, values: Sequence[tuple[str, nn.Parameter]]) -> Tensor:
        for key, value in values:
            order = generator(seed, "", f"randomise|{part}|{key}").permutation(value.numel())
            value.copy_(value.flatten()[torch.from_numpy(order).to(value.device)].reshape(value.shape))
        return model.logits(probe)

    def stages() -> Iterator[tuple[int, str]]:
        yield 0, ""
        stage = 0
        logits = shuffled("", [])
        for part, values in parts(model.module):
            changed = shuffled(part, values)
            if not torch.equal(changed, logits):
                logits, stage = changed, stage + 1
                yield stage, part

    try:
        yield stages()
    finally:
        with torch.no_grad():
            for name, value in model.module.named_parameters():
                value.copy_(kept[name])


def parts(module: nn.Module) -> list[tuple[str, list[tuple[str, nn.Parameter]]]]:
    """The parts of a module with weights, those registered last first, as (dotted name, weights by name).

    The part with the most weight tensors is cut into its children, and the tensors that it has itself, until there are
    `LEAST_PARTS`.
    """
    found: list[tuple[str, nn.Module, bool]] = [("", module, True)]
    while len(found) < LEAST_PARTS:
        sizes = [len(list(part.parameters())) if whole and _children(part) else 0 for _, part, whole in found]
        largest = int(np.argmax(sizes))
        if not sizes[largest]:
            break
        name, part, _ = found[largest]
        own = [(name, part, False)] if next(part.parameters(recurse=False), None) is not None else []
        children = [(f"{name}.{key}".lstrip("."), child, True) for key, child in _children(part)]
        found[largest : largest + 1] = [*own, *children]
    return [
        (name or "model", list(part.named_parameters(recurse=whole)))
        for name, part, whole in reversed(found)
        if next(part.parameters(recurse=whole), None) is not None
    ]


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Children with weights."""
    return [(name, child) for name, child in module.named_children() if next(child.parameters(), None) is not None]


def _maps(prepared: Prepared, sample_id: str, image: Image, target: Target) -> dict[str, Map | Exception]:
    """Every method's map of one image, or why there is none."""
    plan = prepared.plan
    rng = sample_rng(plan.settings.seed, sample_id)
    methods: Sequence[MethodInstance] = plan.methods
    batch = BatchSize(plan.settings.execution.batch_size)
    found: dict[str, Map | Exception] = {}
    try:
        clean = gather(
            prepared.model, clean_variant(image, target.region), target.class_index, methods, batch, rng, score=False
        )
    except Exception as error:
        return dict.fromkeys((one.name for one in methods), error)
    for one in methods:
        try:
            if "file" in one.method.needs:
                raise SampleError(ELSEWHERE)
            found[one.name] = heatmaps(prepared.model, clean, one, rng, sample_id)[0].cpu()
        except Exception as error:
            found[one.name] = error.with_traceback(None)
    return found


def _compared(before: Map | Exception, now: Map | Exception) -> dict[str, Any]:
    """Correlations of two maps, or why there are none."""
    for one in (before, now):
        if isinstance(one, Exception):
            return {"status": "failed", "reason": _words(one)}
    assert not isinstance(before, Exception)
    assert not isinstance(now, Exception)
    value = pearson(before, now)
    ranks = nan if isnan(value) else float(spearmanr(before.flatten().numpy(), now.flatten().numpy()).statistic)
    reason = "a map is constant" if isnan(value) else ""
    return {"pearson": value, "spearman": ranks, "status": "ok", "reason": reason}


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, SampleError) else f"{type(error).__name__}: {error}"
