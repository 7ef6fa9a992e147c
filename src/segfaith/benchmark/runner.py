"""Runs a plan shard by shard into a run directory that describes itself and resumes."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from segfaith.benchmark.executors import Executors
from segfaith.benchmark.extension import SMALLER, extend, forget_smaller, kept_results, other_size, take_over
from segfaith.benchmark.lock import at_work
from segfaith.benchmark.measuring import Files, Measure, Measured, serial
from segfaith.benchmark.ownership import check_own, relabel, set_damaged_aside, whose_records
from segfaith.benchmark.plan import Plan, differences, record_file
from segfaith.benchmark.prepared import Prepared, prepare
from segfaith.benchmark.setting_tables import Settings
from segfaith.errors import SettingsError
from segfaith.paths import inside, is_remote, place
from segfaith.results.records.files import create_file, remove_folder, write_rows
from segfaith.results.records.runs import read_description
from segfaith.results.records.schema import CURVE_COLUMNS, RECORD_COLUMNS
from segfaith.results.records.seals import sealed_json
from segfaith.storage import make_ready, storing, temporary_name


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

    With `executor = "ray"` in `[execution]`, workers measure; "auto" is "serial" here, while `segfaith run` chooses.

    Args:
        prepared: settings, or what `prepare` made of them.
        directory: made if it does not exist; a path, or the address of a folder in an object store, `s3://bucket/voc`.
        on_sample: called with the id after each sample.

    Raises:
        SettingsError: see `prepare` and `open_directory`. A bad sample raises nothing: it becomes rows.
        StorageError: the directory cannot be written: told before the model is loaded, or when the disk is full.
    """
    directory = place(directory)
    make_ready(directory)
    if isinstance(prepared, Settings):
        prepared = prepare(prepared)
    todo = open_directory(directory, prepared)
    execution = prepared.plan.settings.execution
    with Executors(execution) as executors:
        measure = executors.measure if execution.executor == "ray" else serial
        run_shards(prepared, directory, todo, on_sample, measure)
    return directory


def run_shards(
    prepared: Prepared,
    directory: Path,
    shards: Sequence[int],
    on_sample: Callable[[str], None],
    measure: Measure = serial,
) -> None:
    """Runs some shards of a plan; each file of records appears whole, after its curves and maps.

    Samples that a smaller run has measured are not measured again, see `extension.kept_results`.

    Args:
        measure: which processes measure the samples: this one, or those of a `pool.Pool`. Only this one writes. It is
            called when the lock is held: workers are started for no process that must not write.

    Raises:
        RunIsBusyError: another process works in the directory, or another run has taken its place.
    """
    plan = prepared.plan
    with at_work(directory) as check_lock:

        def check() -> None:
            check_own(directory, prepared.identity)  # else the files of records may be another run's
            check_lock()

        check()
        todo = [shard for shard in shards if not record_file(directory, shard).is_file()]  # others were faster
        places = {sample_id: shard for shard in todo for sample_id in plan.shards[shard]}
        kept = kept_results(directory, plan, prepared.model)
        done = {one: Measured(one, kept[one].records, kept[one].curves, {}) for one in places if one in kept}
        for sample_id in done:
            on_sample(sample_id)
        for shard in todo:
            _write_if_whole(directory, prepared, shard, done, check)
        for measured in measure(prepared, [one for one in places if one not in kept]):
            _write_maps(directory, measured.files, check)
            done[measured.sample_id] = replace(measured, files={})
            on_sample(measured.sample_id)
            _write_if_whole(directory, prepared, places[measured.sample_id], done, check)
        check()
        if not _to_do(directory, plan):
            forget_smaller(directory)


def _write_if_whole(
    directory: Path, prepared: Prepared, shard: int, done: dict[str, Measured], check: Callable[[], None]
) -> None:
    """Writes a shard and takes its samples out of `done`, where that has all of them.

    Args:
        check: called before each write; raises where this process must not write there any more.
    """
    ids = prepared.plan.shards[shard]
    if not all(sample_id in done for sample_id in ids):
        return
    samples = [done.pop(sample_id) for sample_id in ids]
    curves = [row for one in samples for row in one.curves]
    if curves:
        check()
        write_rows(record_file(directory, shard, "curves"), curves, CURVE_COLUMNS, prepared.identity)
    records = [{"workers": float(one.workers), "machine": one.machine, **row} for one in samples for row in one.records]
    check()
    write_rows(record_file(directory, shard), records, RECORD_COLUMNS, prepared.identity)


def _write_maps(directory: Path, files: Files, check: Callable[[], None]) -> None:
    """Writes the maps and pictures of each target into its folder, which is whole: it has a temporary name first.

    In a store it is not: a sample whose rows are not there yet may have some of its files.

    Args:
        check: as in `_write_if_whole`.
    """
    for name, contents in files.items():
        check()
        folder = inside(directory, "maps", name, "file").parent
        if is_remote(directory):
            with storing(directory):
                for file, content in contents.items():
                    inside(folder, file).write_bytes(content)
            continue
        temporary = inside(directory, "maps", temporary_name(folder).name, "file").parent
        if folder.exists() and not folder.is_dir():
            raise SettingsError(
                f"{folder} is a file where the sample's maps go; move it away and give the command again"
            )
        with storing(directory):
            for stale in (temporary, folder):
                remove_folder(stale)
            temporary.mkdir(parents=True)
            for file, content in contents.items():
                inside(temporary, file).write_bytes(content)
            temporary.rename(folder)
