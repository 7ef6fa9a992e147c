"""Runs a plan shard by shard into a run directory that describes itself and resumes."""

import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from segfaith.benchmark.description import describe
from segfaith.benchmark.extension import SMALLER, extend, forget_smaller, kept_results, other_size, take_over
from segfaith.benchmark.lock import at_work
from segfaith.benchmark.ownership import check_own, relabel, set_damaged_aside, whose_records
from segfaith.benchmark.plan import Plan, check_bands, check_classes, differences, make_plan, record_file, with_names
from segfaith.benchmark.setting_tables import Settings
from segfaith.benchmark.targeting import all_targets, load_sample, planted_of, target_choice, targets_of
from segfaith.benchmark.warm_up import chosen_model, warm_up
from segfaith.benchmark.worker import SampleResult, evaluate_sample, to_device, unmeasured
from segfaith.errors import SettingsError
from segfaith.evaluation.subject import Subject
from segfaith.models.segmentation import SegmentationModel
from segfaith.paths import inside, map_folder, map_name
from segfaith.results.figures.overlay import picture
from segfaith.results.records.files import create_file, write_array, write_rows
from segfaith.results.records.runs import read_description
from segfaith.results.records.schema import CURVE_COLUMNS, RECORD_COLUMNS
from segfaith.results.records.seals import sealed_json
from segfaith.scores import BatchSize
from segfaith.storage import make_ready, storing, temporary_name
from segfaith.target_choice import TargetChoice
from segfaith.types import Sample, Target


@dataclass(eq=False)
class Prepared:
    """A plan with its model loaded: ready to run. `path` is how the warm-up's image was scored: see `warm_up`.

    `open_directory` changes the plan where the directory holds this run, with the same samples, under another `data.n`.
    """

    plan: Plan
    model: SegmentationModel
    choice: TargetChoice
    path: str

    @cached_property
    def description(self) -> dict[str, Any]:
        """The content of `run.json`; reads the data for its digest, once."""
        return describe(self.plan, self.model, self.path)

    @property
    def identity(self) -> str:
        """What the run's files carry."""
        return str(self.description["identity_sha256"])

    def targets(self, sample: Sample) -> list[Target]:
        """The targets of a sample, see `targets_of`."""
        return targets_of(self.plan, self.model, self.choice, sample)

    def replan(self, plan: Plan) -> None:
        """Takes another plan for the same model; the description follows it."""
        self.plan = plan
        vars(self).pop("description", None)


def prepare(settings: Settings) -> Prepared:
    """Plans the run, loads the model, warms it up and checks that it fits the data and the methods.

    Raises:
        SettingsError: anything that would make every sample fail.
    """
    plan = make_plan(settings)
    if settings.execution.threads:
        torch.set_num_threads(settings.execution.threads)
    model = chosen_model(settings)
    plan = with_names(plan, model)
    check_classes(model, plan.dataset)
    check_bands(model, plan)
    path = warm_up(model, plan)
    return Prepared(plan, model, target_choice(settings, model, plan.dataset), path)


def _warn(words: str) -> None:
    warnings.warn(words, stacklevel=4)


def open_directory(
    directory: Path,
    prepared: Prepared,
    on_damage: Callable[[str], None] = _warn,
    on_extension: Callable[[str], None] = lambda words: None,
) -> list[int]:
    """Makes the run directory, or checks that it holds this very run; returns the shards that are still to do.

    A directory that holds the same run with fewer samples becomes this run's, which keeps what is measured there. Where
    it holds the same samples under another `data.n`, as with `n` of all samples and without `n`, it stays as it is, and
    `prepared` takes the plan with that `n`.
    Files in it that are damaged, another run's or not what was planned are set aside, so that their shards are to do.

    Args:
        on_damage: told a sentence about each file that is set aside.
        on_extension: told a sentence where a smaller run is extended.

    Raises:
        SettingsError: the directory holds a run with other settings, weights or data, or with more samples; the
            message says which. Or a folder that a run writes into is a symbolic link, or a file.
    """
    for kind in ("records", "curves", "maps", "pictures", "damaged", SMALLER):
        folder = inside(directory, kind, "file").parent
        if folder.exists() and not folder.is_dir():
            raise SettingsError(f"{folder} is a file where a run has a folder; move it away, or choose another")
    file = directory / "run.json"
    description = prepared.description  # before `run.json` is read: to digest the data takes long
    if file.is_file():
        before = read_description(directory)
        if differences(before.get("identity") or {}, description["identity"]):
            other = other_size(prepared.plan, prepared.model, before)
            if other is not None and other.ids == prepared.plan.ids:
                prepared.replan(other)
            else:
                on_extension(extend(directory, before, other, prepared.plan, description))
            return open_directory(directory, prepared, on_damage, on_extension)
        relabel(directory, before, description)
        take_over(directory, prepared.identity)
        set_damaged_aside(directory, before, on_damage)
    elif file.is_symlink():
        raise SettingsError(f"{file} is a symbolic link to nothing; remove it, or choose another directory")
    elif whose_records(directory) - {prepared.identity}:
        raise SettingsError(
            f"{directory} has records but no run.json, and they are another run's; choose another directory"
        )
    else:
        create_file(file, sealed_json(description))
        return open_directory(directory, prepared, on_damage, on_extension)  # another process may have been faster
    todo = _to_do(directory, prepared.plan)
    if not todo and (directory / SMALLER).exists():
        with at_work(directory):
            check_own(directory, prepared.identity)
            forget_smaller(directory)
    return todo


def _to_do(directory: Path, plan: Plan) -> list[int]:
    """The shards without a file of records."""
    return [shard for shard in range(len(plan.shards)) if not record_file(directory, shard).is_file()]


def run(
    prepared: Prepared | Settings,
    directory: str | Path,
    on_sample: Callable[[str], None] = lambda sample_id: None,
) -> Path:
    """Runs what is still to do of a run, shard by shard, and returns its directory.

    A shard is done if and only if its file in `records/` exists, so the same call resumes a run that was stopped, and a
    call with a larger `data.n` and otherwise the same settings extends the run. Files that are damaged are set aside
    with a warning and measured again.

    Args:
        prepared: settings, or what `prepare` made of them.
        directory: made if it does not exist.
        on_sample: called with the id after each sample.

    Raises:
        SettingsError: see `prepare` and `open_directory`. A bad sample raises nothing: it becomes rows.
        StorageError: the directory cannot be written: told before the model is loaded, or when the disk is full.
    """
    directory = Path(directory)
    make_ready(directory)
    if isinstance(prepared, Settings):
        prepared = prepare(prepared)
    run_shards(prepared, directory, open_directory(directory, prepared), on_sample)
    return directory


def run_shards(prepared: Prepared, directory: Path, shards: Sequence[int], on_sample: Callable[[str], None]) -> None:
    """Runs some shards of a plan; each file of records appears whole, after its curves and maps.

    Samples that a smaller run has measured are not measured again, see `extension.kept_results`.

    Raises:
        RunIsBusyError: another process works in the directory, or another run has taken its place.
    """
    plan = prepared.plan
    batch = BatchSize(plan.settings.execution.batch_size)
    with at_work(directory):
        check_own(directory, prepared.identity)  # else the files of records may be another run's
        todo = [shard for shard in shards if not record_file(directory, shard).is_file()]  # others were faster
        kept = kept_results(directory, plan, prepared.model)
        planned = [sample_id for shard in todo for sample_id in plan.shards[shard]]
        samples = _ahead(plan, prepared.model, [sample_id for sample_id in planned if sample_id not in kept])
        for shard in todo:
            records: list[dict[str, Any]] = []
            curves: list[dict[str, Any]] = []
            for sample_id in plan.shards[shard]:
                result = kept.get(sample_id) or run_sample(prepared, *next(samples), batch, directory)
                records += result.records
                curves += result.curves
                on_sample(sample_id)
            if curves:
                check_own(directory, prepared.identity)
                write_rows(record_file(directory, shard, "curves"), curves, CURVE_COLUMNS, prepared.identity)
            check_own(directory, prepared.identity)
            write_rows(record_file(directory, shard), records, RECORD_COLUMNS, prepared.identity)
        check_own(directory, prepared.identity)
        if not _to_do(directory, plan):
            forget_smaller(directory)


def _ahead(plan: Plan, model: SegmentationModel, ids: Sequence[str]) -> Iterator[tuple[str, Callable[[], Sample]]]:
    """Each id with a call that gives its sample: the next one is read and resized while the model is at work."""
    with ThreadPoolExecutor(1) as reader:
        coming = [reader.submit(load_sample, plan, model, one) for one in ids[:1]]
        for number, sample_id in enumerate(ids):
            coming += [reader.submit(load_sample, plan, model, one) for one in ids[number + 1 : number + 2]]
            yield sample_id, coming.pop(0).result


def run_sample(
    prepared: Prepared,
    sample_id: str,
    load: Callable[[], Sample],
    batch: BatchSize,
    directory: Path | None = None,
) -> SampleResult:
    """A sample to the rows of all its targets. With a directory and `[output] maps`, pictures and maps are kept there.

    A sample without a target has rows with the target "", which say why.
    """
    plan = prepared.plan
    try:
        sample = load()
        targets = all_targets(plan, prepared.model, prepared.choice, sample)
    except (Exception, SystemExit) as error:  # a bad sample never stops a run, and its rows say why
        return unmeasured(sample_id, plan.methods, error, None, prepared.model.head_name, prepared.choice.score)
    results = [
        _run_target(prepared, sample_id, sample, target, batch, directory)
        if why is None
        else unmeasured(sample_id, plan.methods, why, target, prepared.model.head_name)
        for target, why in targets
    ]
    return SampleResult(
        [row for result in results for row in result.records],
        [row for result in results for row in result.curves],
    )


def _run_target(
    prepared: Prepared, sample_id: str, sample: Sample, target: Target, batch: BatchSize, directory: Path | None
) -> SampleResult:
    """The rows of one target; maps are written to the directory, or else forgotten."""
    plan = prepared.plan
    settings = plan.settings
    try:
        subject = subject_of(prepared, sample_id, sample, target, batch)
        stability = sample_id in plan.stability_ids
        result = evaluate_sample(subject, plan.methods, settings.evaluation, stability=stability)
    except (Exception, SystemExit) as error:
        return unmeasured(sample_id, plan.methods, error, target, prepared.model.head_name)
    if directory is not None and settings.output.maps:  # a full disk does stop it
        check_own(directory, prepared.identity)
        with storing(directory):
            _keep_maps(directory, prepared.plan, replace(sample, id=sample_id), target, result)
    return SampleResult(result.records, result.curves)


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


def _keep_maps(directory: Path, plan: Plan, sample: Sample, target: Target, result: SampleResult) -> None:
    """Writes a target's maps and pictures into its folder, which is whole: it has a temporary name first."""
    name = map_folder(sample.id, target.name)
    folder = inside(directory, "maps", name, "file").parent
    temporary = inside(directory, "maps", temporary_name(folder).name, "file").parent
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"{folder} is a file where the sample's maps go; move it away and give the command again")
    for stale in (temporary, folder):
        if stale.is_dir():
            shutil.rmtree(stale)
    temporary.mkdir(parents=True)
    _write_maps(temporary, sample, target, result, plan.dataset.display)
    temporary.rename(folder)


def _write_maps(
    folder: Path, sample: Sample, target: Target, result: SampleResult, display: Sequence[int] | None
) -> None:
    for name, heatmap in result.maps.items():
        write_array(inside(folder, map_name(name)), heatmap)
    picture(sample.image, display).save(folder / "image.png")
    picture(target.region.float().expand(3, -1, -1)).save(folder / "target.png")
    if result.predicted is not None:
        picture(result.predicted.float().expand(3, -1, -1)).save(folder / "prediction.png")
    planted = planted_of(sample, target)
    if planted and planted.alternatives:
        evidence = torch.stack(planted.alternatives).any(0)
        picture(evidence.float().expand(3, -1, -1)).save(folder / "evidence.png")
