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
from segfaith.types import Image, Map, Target

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
    with cascade(model, plan.settings.seed) as stages:
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
def cascade(model: SegmentationModel, seed: int) -> Iterator[Iterator[tuple[int, str]]]:
    """Stages as they are asked for: (0, "") is the trained model, each later one has one more part shuffled.

    Parts whose shuffling changes no logit, such as auxiliary heads, are left out. The weights come back at the end.

    Raises:
        SettingsError: the model has no weights.
    """
    kept = {name: value.detach().clone() for name, value in model.module.named_parameters()}
    if not kept:
        raise SettingsError(f"{model.name} has no weights, so there is nothing to shuffle")
    probe = torch.from_numpy(np.random.default_rng(0).random((1, 3, 64, 64), dtype=np.float32)).to(model.device)

    def stages() -> Iterator[tuple[int, str]]:
        yield 0, ""
        stage = 0
        with torch.no_grad():
            logits = model.logits(probe)
        for name, module in parts(model.module):
            for key, value in module.named_parameters():
                order = generator(seed, "", f"randomise|{name}.{key}").permutation(value.numel())
                with torch.no_grad():
                    value.copy_(value.flatten()[torch.from_numpy(order).to(value.device)].reshape(value.shape))
            with torch.no_grad():
                changed = model.logits(probe)
            if not torch.equal(changed, logits):
                logits, stage = changed, stage + 1
                yield stage, name

    try:
        yield stages()
    finally:
        with torch.no_grad():
            for name, value in model.module.named_parameters():
                value.copy_(kept[name])


def parts(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """The parts of a module with weights, last ones first, as (dotted name, module).

    The part with the most weight tensors is cut into its children until there are `LEAST_PARTS`.
    """
    found: list[tuple[str, nn.Module]] = [("", module)]
    while len(found) < LEAST_PARTS:
        sizes = [(len(list(part.parameters())) if _children(part) else 0) for _, part in found]
        largest = int(np.argmax(sizes))
        if not sizes[largest]:
            break
        name, part = found[largest]
        found[largest : largest + 1] = [(f"{name}.{key}".lstrip("."), child) for key, child in _children(part)]
    return [(name or "model", part) for name, part in reversed(found)]


def _children(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Children with weights; none where the module has weights of its own, which would be left behind."""
    if next(module.parameters(recurse=False), None) is not None:
        return []
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
