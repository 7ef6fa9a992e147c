"""Measures the samples of a run, one after the other; each becomes rows, and files where maps are kept.

`serial` measures in this process. `pool.Pool.measure` has the same signature and lets several processes measure.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import torch

from segfaith.batching import BatchSize
from segfaith.benchmark.description import machine_words
from segfaith.benchmark.prepared import Prepared
from segfaith.benchmark.targeting import all_targets, load_sample, planted_of
from segfaith.benchmark.worker import SampleResult, evaluate_sample, to_device, unmeasured
from segfaith.evaluation.subject import Subject
from segfaith.paths import map_folder, map_name
from segfaith.results.figures.overlay import picture
from segfaith.types import Sample, Target

Files = dict[str, dict[str, bytes]]
"""The content of each file of maps and pictures, by the name of its target's folder and its own."""


@dataclass(frozen=True, eq=False)
class Measured:
    """A sample's rows and files.

    Attributes:
        workers: how many processes of the run that machine had, this one included.
        machine: what measured, in words; "" where nothing did.
    """

    sample_id: str
    records: list[dict[str, Any]]
    curves: list[dict[str, Any]]
    files: Files
    workers: int = 1
    machine: str = ""


Measure = Callable[[Prepared, Sequence[str]], Iterator[Measured]]
"""Measures the samples of these ids, in any order, and gives each as soon as it is done."""


def serial(prepared: Prepared, ids: Sequence[str]) -> Iterator[Measured]:
    """Measures in this process, in the order of the ids."""
    machine = machine_words(prepared.model)
    with ThreadPoolExecutor(1) as reader:  # reads and resizes the next sample while the model is at work
        coming = [reader.submit(load_sample, prepared.plan, prepared.model, one) for one in ids[:1]]
        for number, sample_id in enumerate(ids):
            following = ids[number + 1 : number + 2]
            coming += [reader.submit(load_sample, prepared.plan, prepared.model, one) for one in following]
            measured = run_sample(prepared, sample_id, coming.pop(0).result, prepared.batch)
            yield replace(measured, machine=machine)


def run_sample(prepared: Prepared, sample_id: str, load: Callable[[], Sample], batch: BatchSize) -> Measured:
    """A sample to the rows of all its targets, and with `[output] maps` to pictures and maps.

    A sample without a target has rows with the target "", which say why.
    """
    plan = prepared.plan
    try:
        sample = load()
        targets = all_targets(plan, prepared.model, prepared.choice, sample)
    except (Exception, SystemExit) as error:  # a bad sample never stops a run, and its rows say why
        return lost(prepared, sample_id, error)
    measured = Measured(sample_id, [], [], {})
    for target, why in targets:
        result = (
            _run_target(prepared, sample_id, sample, target, batch)
            if why is None
            else unmeasured(sample_id, plan.methods, why, target, prepared.model.head_name)
        )
        measured.records.extend(result.records)
        measured.curves.extend(result.curves)
        if plan.settings.output.maps and result.predicted is not None:
            files = _files(sample, target, result, plan.dataset.display)
            measured.files[map_folder(sample_id, target.name)] = files
    return measured


def lost(prepared: Prepared, sample_id: str, error: BaseException) -> Measured:
    """The rows of a sample whose targets nobody knows, because of this error."""
    plan, head = prepared.plan, prepared.model.head_name
    result = unmeasured(sample_id, plan.methods, error, None, head, prepared.choice.score)
    return Measured(sample_id, result.records, [], {})


def _run_target(prepared: Prepared, sample_id: str, sample: Sample, target: Target, batch: BatchSize) -> SampleResult:
    """The rows and maps of one target."""
    plan = prepared.plan
    try:
        subject = subject_of(prepared, sample_id, sample, target, batch)
        stability = sample_id in plan.stability_ids
        result = evaluate_sample(subject, plan.methods, plan.settings.evaluation, stability=stability)
        short = "" if batch.memory is None else batch.memory.short(subject.size)
        for row in result.records if short else ():
            row["reason"] = "; ".join(filter(None, (row["reason"], short)))
        return result
    except (Exception, SystemExit) as error:
        return unmeasured(sample_id, plan.methods, error, target, prepared.model.head_name)


def subject_of(prepared: Prepared, sample_id: str, sample: Sample, target: Target, batch: BatchSize) -> Subject:
    """A target of a sample as what is explained and measured, on the model's device."""
    image, target = to_device(prepared.model, sample.image, target)
    return Subject(
        prepared.model,
        sample_id,
        image,
        target,
        prepared.plan.settings.seed,
        batch,
        labels=None if sample.masks else sample.labels.to(image.device),  # masks know no ignored pixels
        planted=planted_of(sample, target),
    )


def _files(sample: Sample, target: Target, result: SampleResult, display: Sequence[int] | None) -> dict[str, bytes]:
    """A target's maps and pictures as the contents of files, by name."""
    files = {map_name(name): _npy(heatmap) for name, heatmap in result.maps.items()}
    files["image.png"] = _png(picture(sample.image, display))
    files["target.png"], files["prediction.png"] = _mask(target.region), _mask(result.predicted)
    planted = planted_of(sample, target)
    if planted and planted.alternatives:
        files["evidence.png"] = _mask(torch.stack(planted.alternatives).any(0))
    return files


def _npy(array: Any) -> bytes:
    sink = BytesIO()
    np.save(sink, array)
    return sink.getvalue()


def _mask(region: Any) -> bytes:
    return _png(picture(region.float().expand(3, -1, -1)))


def _png(shown: Any) -> bytes:
    sink = BytesIO()
    shown.save(sink, format="PNG")
    return sink.getvalue()
