"""More samples for a run: the same run with a larger `data.n` takes over what the smaller run has measured.

Ids are sorted, so new samples come between old ones and the shards are cut elsewhere. So the larger run

1. copies the smaller run's `run.json` into `smaller/IDENTITY/` and puts its own in place (`extend`);
2. moves the smaller run's records and curves beside that copy (`take_over`);
3. reads the rows there as it writes its own shards (`kept_results`), and removes `smaller/` after the last shard.

Every step can be repeated, and each file of records carries the identity of its run. A process that dies in between
loses nothing: the larger run goes on from there.
"""

from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from segfaith.benchmark.lock import at_work
from segfaith.benchmark.ownership import check_own
from segfaith.benchmark.plan import Plan, differences, digest, identity, with_samples
from segfaith.benchmark.worker import SampleResult
from segfaith.errors import SettingsError
from segfaith.models.segmentation import SegmentationModel
from segfaith.paths import inside, map_folder, map_name
from segfaith.results.records.files import move_file, remove_folder, replace_file, write_rows
from segfaith.results.records.runs import read_description
from segfaith.results.records.schema import RANDOMISATION_COLUMNS
from segfaith.results.records.seals import DamagedFileError, check_table, owner_of, sealed_json
from segfaith.results.records.shards import planned_files, read_curves, read_randomisation, read_records, record_files

SMALLER = "smaller"
"""Folder of a run directory that holds the smaller runs while the larger run takes their rows."""


def other_size(plan: Plan, model: SegmentationModel, description: Mapping[str, Any]) -> Plan | None:
    """The plan of the run that `run.json` describes, if that is this run with another `data.n`; else None.

    The identity of that plan must be the one in `run.json`: the same settings, weights, code, and samples of the same
    content.
    """
    before = description["settings"].get("data") or {}
    n = before.get("n")
    if plan.settings.data.ids is not None or before.get("ids") is not None or n == plan.settings.data.n:
        return None
    if not isinstance(n, int | None):
        return None
    try:
        other = with_samples(plan, n)
    except SettingsError:  # the data set has fewer samples than that run had
        return None
    return other if digest(identity(other, model)) == description["identity_sha256"] else None


def extend(
    directory: Path, before: Mapping[str, Any], other: Plan | None, plan: Plan, description: Mapping[str, Any]
) -> str:
    """Lets a run take the place of the same run with fewer samples, and returns the words for it.

    Args:
        before: what the directory's `run.json` holds.
        other: the plan of that run, from `other_size`.
        plan, description: of the run that is about to start.

    Raises:
        SettingsError: the directory holds another run, or this run with more samples.
        RunIsBusyError: another process works on the smaller run.
    """
    if other is None:
        changed = differences(before.get("identity") or {}, description["identity"])
        raise SettingsError(
            f"{directory} holds a run with other settings; choose another directory or remove it.\n"
            "Before -> now:\n  " + "\n  ".join(changed)
        )
    held, asked = len(other.ids), len(plan.ids)
    if held > asked:
        raise SettingsError(
            f"{directory} holds this run with more samples, {held}, than the {asked} that are asked for; samples can "
            f"be added to a run, not taken away: give -n {held}, or choose another directory"
        )
    _take_place(directory, before, description)
    again = sum(not _comparable(sample_id, other, plan) for sample_id in other.ids)
    return f"extends {directory} from {held} to {asked} samples" + (
        f"; {again} of the {held} are measured again, because stability is now measured on other samples"
        if again
        else ""
    )


def _comparable(sample_id: str, smaller: Plan, plan: Plan) -> bool:
    """Whether the rows of a sample of the smaller run are the rows that the larger run would measure."""
    return (sample_id in smaller.stability_ids) == (sample_id in plan.stability_ids)


def _take_place(directory: Path, before: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Keeps the smaller run's `run.json` in `smaller/` and writes the larger run's in its place.

    The new file lists under `extended_from` when, where and with which versions the smaller runs began. Nothing happens
    where another process has replaced the file already.

    Args:
        before: the smaller run's `run.json`, which `other_size` has accepted.
        description: the larger run's.

    Raises:
        RunIsBusyError: another process works on the smaller run.
    """
    file, kept = directory / "run.json", _folder(directory, before["identity_sha256"]) / "run.json"
    with at_work(directory):
        if read_description(directory)["identity_sha256"] != before["identity_sha256"]:
            return
        replace_file(kept, lambda temporary: temporary.write_bytes(file.read_bytes()), lasting=True)
        begun = {key: before.get(key) for key in ("created", "versions", "machine")}
        history = [*before.get("extended_from", []), {"samples": len(before["data"]["samples"]), **begun}]
        text = sealed_json({**description, "extended_from": history})
        replace_file(file, lambda temporary: temporary.write_text(text, encoding="utf-8"), lasting=True)


def take_over(directory: Path, identity_sha256: str) -> None:
    """Moves the smaller runs' records and curves into `smaller/`, and makes their randomisation check the larger run's.

    A row of that check depends on its sample alone, so it holds in the larger run too.

    Args:
        identity_sha256: of the larger run. Its own files stay, also where `smaller/` names it: a process died in
            `extend`, and the smaller run went on.

    Raises:
        RunIsBusyError: files are to be moved, and another process works on the run or another run has taken its place.
    """
    folders = {folder.name: folder for folder in _folders(directory) if folder.name != identity_sha256}
    if not any(_owned(directory, folders)):
        return
    with at_work(directory):
        check_own(directory, identity_sha256)
        for file, folder in _owned(directory, folders):
            if file.parent == directory:
                _reseal(file, read_description(folder), identity_sha256)
            else:
                target = inside(folder, file.parent.name, file.name)
                move_file(file, target)


def _owned(directory: Path, folders: Mapping[str, Path]) -> Iterator[tuple[Path, Path]]:
    """Each file of a smaller run that is not yet in the run's folder, and that folder."""
    if not folders:
        return
    files = [file for kind in ("records", "curves") for file in sorted((directory / kind).glob("*.parquet"))]
    for file in [*files, directory / "randomisation.parquet"]:
        folder = folders.get(owner_of(file) or "")
        if folder is not None:
            yield file, folder


def _reseal(file: Path, description: Mapping[str, Any], identity_sha256: str) -> None:
    """Gives the randomisation check of the run of `description` to the run of this identity."""
    try:
        read_randomisation(file.parent, description)
        rows = _rows(file, description["identity_sha256"])
    except DamagedFileError:  # it stays as it is, and `set_damaged_aside` takes it
        return
    write_rows(file, rows, RANDOMISATION_COLUMNS, identity_sha256)


def kept_results(directory: Path, plan: Plan, model: SegmentationModel) -> dict[str, SampleResult]:
    """The rows of each sample that a smaller run has measured as this run would; by id.

    Left out, and so measured again, are samples of which a method failed, samples whose stability this run measures and
    the smaller run did not or the other way round, samples of damaged files and, where this run keeps maps, samples of
    which a map is missing.
    """
    kept: dict[str, SampleResult] = {}
    for folder in _folders(directory):
        description = read_description(folder)
        smaller = other_size(plan, model, description)
        if smaller is None:
            continue
        for sample_id, result in _measured(folder, description):
            failed = any(row["status"] == "failed" for row in result.records)
            lost = plan.settings.output.maps and not _has_maps(directory, sample_id, result)
            if not failed and not lost and _comparable(sample_id, smaller, plan):
                kept[sample_id] = result
    return kept


def _has_maps(directory: Path, sample_id: str, result: SampleResult) -> bool:
    """Whether the map of each of a sample's rows is kept, with image and target; a skipped sample has none."""
    files = {
        directory / "maps" / map_folder(sample_id, row["target"]) / name
        for row in result.records
        if row["status"] == "ok"
        for name in (map_name(row["method"]), "image.png", "target.png")
    }
    return all(file.is_file() for file in files)


def _measured(directory: Path, description: Mapping[str, Any]) -> Iterator[tuple[str, SampleResult]]:
    """The samples of a run directory with their rows, from the shards that are whole."""
    planned, owner = planned_files(description), description["identity_sha256"]
    for file in record_files(directory):
        try:
            read_curves(file, read_records(file, planned, description), description)
        except DamagedFileError:
            continue
        curve_file = directory / "curves" / file.name
        records = _rows(file, owner)
        curves = _rows(curve_file, owner) if curve_file.exists() else []
        for sample_id in planned[file.name]:
            own, points = ([row for row in rows if row["sample_id"] == sample_id] for rows in (records, curves))
            yield sample_id, SampleResult(own, points)


def _rows(file: Path, owner: str) -> list[dict[str, Any]]:
    """The rows of a sealed Parquet file as they were written."""
    rows: list[dict[str, Any]] = pq.read_table(BytesIO(check_table(file, owner))).to_pylist()
    return rows


def forget_smaller(directory: Path) -> None:
    """Removes `smaller/`: the larger run is finished and holds its rows."""
    remove_folder(inside(directory, SMALLER, "run").parent)


def _folder(directory: Path, identity_sha256: str) -> Path:
    return inside(directory, SMALLER, identity_sha256, "run.json").parent


def _folders(directory: Path) -> list[Path]:
    """The folders of smaller runs, each named by its run's identity."""
    return [_folder(directory, file.parent.name) for file in sorted((directory / SMALLER).glob("*/run.json"))]
