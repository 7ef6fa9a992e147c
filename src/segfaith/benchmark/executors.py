"""Runs a plan shard by shard into a run directory that describes itself and resumes."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from segfaith.attribution.explain import evidence_keys
from segfaith.attribution.methods import MethodInstance
from segfaith.benchmark.description import describe
from segfaith.benchmark.lock import at_work
from segfaith.benchmark.plan import (
    Plan,
    check_classes,
    differences,
    make_plan,
    record_file,
    target_class,
)
from segfaith.benchmark.settings import Settings
from segfaith.benchmark.worker import SampleResult, evaluate_sample, predicted_labels, to_device, unmeasured
from segfaith.errors import SettingsError
from segfaith.evidence.gradient import clock, gradient_evidence
from segfaith.evidence.regions import superpixels
from segfaith.incremental.scorers import Precision
from segfaith.incremental.scoring import scorer_for
from segfaith.models import load_model
from segfaith.models.segmentation import SegmentationModel
from segfaith.perturbation import clean_variant
from segfaith.results.overlay import picture
from segfaith.results.records import CURVE_COLUMNS, RECORD_COLUMNS, create_file, write_rows
from segfaith.scores import BatchSize
from segfaith.targets import class_target, dominant_target, majority_class
from segfaith.types import Planted, Sample, Target


@dataclass(frozen=True, eq=False)
class Prepared:
    """A plan with its model loaded: ready to run. `path` is how the warm-up's image was scored: see `warm_up`."""

    plan: Plan
    model: SegmentationModel
    class_index: int | None
    path: str


def prepare(settings: Settings) -> Prepared:
    """Plans the run, loads the model, warms it up and checks that it fits the data and the methods.

    Raises:
        SettingsError: anything that would make every sample fail.
    """
    plan = make_plan(settings)
    chosen = settings.model
    device = settings.execution.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}; use 'cpu' or 'auto'"
        ) from error
    if settings.execution.threads:
        torch.set_num_threads(settings.execution.threads)
    model = load_model(
        chosen.name,
        weights=chosen.weights,
        layer=chosen.layer,
        classes=chosen.classes,
        mean=chosen.mean,
        std=chosen.std,
        args=chosen.args,
        seed=settings.seed,
        device=device,
    )
    model.incremental, model.compile = settings.execution.incremental, settings.execution.compile
    check_classes(model, plan.dataset)
    path = warm_up(model, plan.methods, settings)
    return Prepared(plan, model, target_class(settings, model, plan.dataset), path)


def warm_up(model: SegmentationModel, methods: list[MethodInstance], settings: Settings) -> str:
    """Runs the model as the run will, on a made-up image, before anything is timed.

    Returns:
        How altered images of that size are scored: "incremental", or "plain" with the reason. With native sizes it is
        that of 224 x 224; the records say it of each sample.

    Raises:
        SettingsError: a feature layer or precision that cannot be used, or class names that are not as many as the
            channels.
    """
    size = 224 if settings.data.size == "native" else settings.data.size
    image = torch.from_numpy(np.random.default_rng(0).random((3, size, size), dtype=np.float32)).to(model.device)
    path = ""
    try:
        with torch.no_grad():  # what a model keeps from its first pass must serve gradients too
            channels = model.logits(image.expand(settings.execution.batch_size, -1, -1, -1)).shape[1]
        variant = clean_variant(image, torch.ones(size, size, dtype=torch.bool, device=model.device))
        batch = BatchSize(settings.execution.batch_size)
        gradients, interventions = evidence_keys(methods)
        for layer, objective in gradients:
            gradient_evidence(model, variant.images, variant.regions, 1, batch, layer=layer, objective=objective)
        for asked in interventions:
            if asked.kind == "superpixels":
                superpixels(image, asked.count, mirrored=False)
        precisions: list[Precision] = ["fp32", *(asked.precision for asked in interventions)]
        for precision in dict.fromkeys(precisions):
            scorer = scorer_for(model, image, variant.regions[0], 1, precision)
            if precision == "fp32":
                path = scorer.path
            most = settings.execution.batch_size
            for count in (most, max(1, most - 1)) if model.compile else (most,):  # a second size compiles for all
                scorer.score(image.expand(count, -1, -1, -1))
    except SettingsError:
        raise
    except Exception as error:  # what fails on real samples is recorded with them
        return f"unknown: the warm-up failed: {error}"
    if model.classes is not None and len(model.classes) != channels:
        raise SettingsError(
            f"{model.name} has {channels} output classes, but {len(model.classes)} class names were given: "
            f"{', '.join(model.classes[:5])}{', ...' if len(model.classes) > 5 else ''}; set [model] classes"
        )
    return path


def seconds_per_pass(prepared: Prepared) -> float:
    """Measured on one full batch of made-up images, after the warm-up."""
    settings = prepared.plan.settings
    size = 224 if settings.data.size == "native" else settings.data.size
    images = torch.zeros(settings.execution.batch_size, 3, size, size, device=prepared.model.device)
    start = clock(prepared.model.device)
    with torch.no_grad():
        prepared.model.logits(images).softmax(1)
    return (clock(prepared.model.device) - start) / len(images)


def open_directory(directory: Path, prepared: Prepared) -> list[int]:
    """Makes the run directory, or checks that it holds this very run; returns the shards that are still to do.

    Raises:
        SettingsError: the directory holds a run with other settings, weights or data; the differences are listed.
    """
    shards = range(len(prepared.plan.shards))
    file = directory / "run.json"
    description = describe(prepared.plan, prepared.model, prepared.path)
    if file.is_file():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))["identity"]
        except (ValueError, KeyError, TypeError) as error:
            raise SettingsError(f"{file} cannot be read ({error}); restore it, or choose another directory") from error
        changed = differences(before, description["identity"])
        if changed:
            raise SettingsError(
                f"{directory} holds a run with other settings; choose another directory or remove it.\n"
                "Before -> now:\n  " + "\n  ".join(changed)
            )
    elif next((directory / "records").glob("*.parquet"), None):
        raise SettingsError(f"{directory} has records but no run.json, so nobody knows whose; choose another directory")
    else:
        if not create_file(file, json.dumps(description, indent=2)):  # another process was faster
            return open_directory(directory, prepared)
    return [shard for shard in shards if not record_file(directory, shard).is_file()]


def run(
    prepared: Prepared | Settings,
    directory: str | Path,
    on_sample: Callable[[str], None] = lambda sample_id: None,
) -> Path:
    """Runs what is still to do of a run, shard by shard, and returns its directory.

    A shard is done if and only if its file in `records/` exists, so the same call resumes a run that was stopped.

    Args:
        prepared: settings, or what `prepare` made of them.
        directory: made if it does not exist.
        on_sample: called with the id after each sample.

    Raises:
        SettingsError: see `prepare` and `open_directory`. A bad sample raises nothing: it becomes rows.
    """
    if isinstance(prepared, Settings):
        prepared = prepare(prepared)
    directory = Path(directory)
    run_shards(prepared, directory, open_directory(directory, prepared), on_sample)
    return directory


def run_shards(prepared: Prepared, directory: Path, shards: Sequence[int], on_sample: Callable[[str], None]) -> None:
    """Runs some shards of a plan; each file of records appears whole, after its curves and maps.

    Raises:
        RunIsBusyError: another process works in the directory.
    """
    plan = prepared.plan
    batch = BatchSize(plan.settings.execution.batch_size)
    with at_work(directory):
        todo = [shard for shard in shards if not record_file(directory, shard).is_file()]  # others were faster
        samples = _ahead(plan, [sample_id for shard in todo for sample_id in plan.shards[shard]])
        for shard in todo:
            records: list[dict[str, Any]] = []
            curves: list[dict[str, Any]] = []
            for sample_id, load in islice(samples, len(plan.shards[shard])):
                result = run_sample(prepared, sample_id, load, batch, directory)
                records += result.records
                curves += result.curves
                on_sample(sample_id)
            if curves:
                write_rows(record_file(directory, shard, "curves"), curves, CURVE_COLUMNS)
            write_rows(record_file(directory, shard), records, RECORD_COLUMNS)


def _ahead(plan: Plan, ids: Sequence[str]) -> Iterator[tuple[str, Callable[[], Sample]]]:
    """Each id with a call that gives its sample: the next one is read and resized while the model is at work."""
    with ThreadPoolExecutor(1) as reader:
        coming = [reader.submit(plan.dataset.load, one, plan.settings.data.size) for one in ids[:1]]
        for number, sample_id in enumerate(ids):
            coming += [
                reader.submit(plan.dataset.load, one, plan.settings.data.size) for one in ids[number + 1 : number + 2]
            ]
            yield sample_id, coming.pop(0).result


def run_sample(
    prepared: Prepared,
    sample_id: str,
    load: Callable[[], Sample],
    batch: BatchSize,
    directory: Path | None = None,
) -> SampleResult:
    """One sample to records; with a directory and `[output] maps`, its pictures and maps are kept there."""
    plan = prepared.plan
    settings = plan.settings
    target: Target | None = None
    try:
        sample = load()
        target = find_target(prepared, sample)
        image, target = to_device(prepared.model, sample.image, target)
        result = evaluate_sample(
            prepared.model,
            sample_id,
            image,
            target,
            plan.methods,
            settings.evaluation,
            seed=settings.seed,
            batch=batch,
            labels=sample.labels.to(image.device),
            planted=_planted(sample, target),
            stability=sample_id in plan.stability_ids,
        )
    except Exception as error:  # a bad sample never stops a run, and its rows say why
        return unmeasured(sample_id, plan.methods, error, target)
    if directory is not None and settings.output.maps:  # a full disk does stop it
        _keep_maps(directory / "maps" / sample_id, sample, target, result)
    return result


def _planted(sample: Sample, target: Target) -> Planted | None:
    """The planted evidence of the target's class on the target's device, or None.

    A predicted region that is truly of another class has none: what is planted for the class lies at another object.
    """
    device = target.region.device
    if majority_class(sample.labels.to(device), target.region) != target.class_index:
        return None
    planted = sample.planted.get(target.class_index)
    return planted and Planted(planted.kind, tuple(mask.to(device) for mask in planted.alternatives))


def find_target(prepared: Prepared, sample: Sample) -> Target:
    """The sample's target by `[target]`.

    Raises:
        SampleSkipped: the sample has none.
    """
    from_truth = prepared.plan.settings.target.source == "ground_truth"
    labels = sample.labels if from_truth else predicted_labels(prepared.model, sample.image).cpu()
    source = "ground truth" if from_truth else "prediction"
    if prepared.class_index is None:
        return dominant_target(labels, source)
    return class_target(labels, prepared.class_index, prepared.model.classes, source)


def _keep_maps(folder: Path, sample: Sample, target: Target, result: SampleResult) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, heatmap in result.maps.items():
        np.save(folder / f"{name.replace('/', '_')}.npy", heatmap)
    picture(sample.image).save(folder / "image.png")
    picture(target.region.float().expand(3, -1, -1)).save(folder / "target.png")
    planted = _planted(sample, target)
    if planted and planted.alternatives:
        evidence = torch.stack(planted.alternatives).any(0)
        picture(evidence.float().expand(3, -1, -1)).save(folder / "evidence.png")
