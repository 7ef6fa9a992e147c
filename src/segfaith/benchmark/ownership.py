"""Whose a run directory is, and what lies in it that is not what its run wrote."""

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

from segfaith.benchmark.lock import RunIsBusyError, RunIsGoneError, at_work
from segfaith.errors import SettingsError
from segfaith.paths import is_remote
from segfaith.results.records.files import move_file, replace_file
from segfaith.results.records.runs import read_description
from segfaith.results.records.seals import DamagedFileError, owner_of, sealed_json
from segfaith.results.records.shards import planned_files, read_curves, read_randomisation, read_records, record_files

ASIDE = "damaged"
"""Folder of a run directory in which files lie that were set aside."""


def check_own(directory: Path, identity: str) -> None:
    """Holds the directory's `run.json` against the identity of the run that is about to write there.

    Another run that takes the place of this one between this check and the write does no harm: the file that is then
    written carries its own identity, and nobody reads it as that run's.

    Raises:
        RunIsBusyError: another run has taken its place.
        RunIsGoneError: nobody has: the directory was removed or renamed.
        SettingsError: `run.json` is damaged.
    """
    try:
        owner = _owner(directory)
    except DamagedFileError:
        raise
    except (OSError, SettingsError):
        owner = None
    if owner is None:
        raise RunIsGoneError(
            f"{directory} was removed or renamed while this run worked, which writes nothing more: put it back, or "
            "name its new place with -o, and give the command again, which goes on with what is finished there"
        )
    if owner != identity:
        raise RunIsBusyError(
            f"{directory} was replaced by another run while this run worked, which writes nothing more; what it had "
            "finished is not here: give the command again with another directory"
        )


def _owner(directory: Path) -> str:
    """The identity in a directory's `run.json`, which is read anew only where it is another file than before.

    The file lists all samples, and each shard is written after two checks: to read it each time would make a sample of
    a large run cost more than one of a small run. What a store says of a file is too little to know it by.
    """
    if is_remote(directory):
        return str(read_description(directory)["identity_sha256"])
    seen = (directory / "run.json").stat()
    return _owner_of(directory, (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns))


@lru_cache(maxsize=8)
def _owner_of(directory: Path, file: tuple[int, ...]) -> str:
    """The identity in the file that is known by these numbers."""
    return str(read_description(directory)["identity_sha256"])


def relabel(directory: Path, before: Mapping[str, Any], description: Mapping[str, Any]) -> None:
    """Writes the methods' labels of `description` into `run.json`, where they changed; nothing else of it changes.

    Args:
        before: what `run.json` holds.

    Raises:
        RunIsBusyError: the labels changed, and another process works on the run.
    """
    labels = {name: about.get("label") for name, about in description["methods"].items()}
    if labels == {name: about.get("label") for name, about in before["methods"].items()}:
        return
    methods = {name: about | {"label": labels.get(name)} for name, about in before["methods"].items()}
    chosen = before["settings"].get("methods", {}) | {"labels": description["settings"]["methods"]["labels"]}
    settings = before["settings"] | {"methods": chosen}
    text = sealed_json({**before, "methods": methods, "settings": settings})
    with at_work(directory):
        check_own(directory, before["identity_sha256"])
        replace_file(
            directory / "run.json", lambda temporary: temporary.write_text(text, encoding="utf-8"), lasting=True
        )


def whose_records(directory: Path) -> set[str]:
    """The identities of the runs whose files of records lie here; damaged files say none."""
    return {owner for file in record_files(directory) if (owner := owner_of(file)) is not None}


def set_damaged_aside(directory: Path, description: Mapping[str, Any], say: Callable[[str], None]) -> None:
    """Moves what is damaged, another run's or not what was planned into `damaged/`, so that it is to be done again.

    Args:
        description: the content of the directory's `run.json`.
        say: told a sentence about each.

    Raises:
        RunIsBusyError: something is damaged, and another process works on the run or another run has taken its place.
    """
    if next(_damage(directory, description), None) is None:
        return
    with at_work(directory):
        check_own(directory, description["identity_sha256"])
        for files, error, after in _damage(directory, description):
            for file in files:
                if file.exists():
                    _move_aside(file, directory)
            say(f"{error.path} {error.reason}; it was set aside in {directory / ASIDE}{after}")


def _damage(directory: Path, description: Mapping[str, Any]) -> Iterator[tuple[list[Path], DamagedFileError, str]]:
    """What must go together, what is wrong with one of them, and what happens then, in words."""
    planned = planned_files(description)
    for file in record_files(directory):
        try:
            read_curves(file, read_records(file, planned, description), description)
        except DamagedFileError as error:
            after = ", and its samples are measured again" if file.name in planned else ""
            yield [file, directory / "curves" / file.name], error, after  # records first: without them nothing is done
    try:
        read_randomisation(directory, description)
    except DamagedFileError as error:
        yield [error.path], error, f"; segfaith randomise {directory} measures it again"


def _move_aside(file: Path, directory: Path) -> None:
    """Moves a file into `damaged/`, under a name that none has there yet."""
    folder = directory / ASIDE
    name = "-".join(file.relative_to(directory).parts)
    free = next(one for number in count(1) if not (one := folder / f"{name}.{number}").exists())
    move_file(file, free)
