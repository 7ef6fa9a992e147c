"""A data set as the rest of segfaith sees it: samples by id, and the choice of a run's samples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from segfaith.data.images import Size
from segfaith.errors import SettingsError
from segfaith.lookup import nearest
from segfaith.paths import check_ids
from segfaith.randomness import generator
from segfaith.types import Sample


@dataclass(frozen=True)
class Dataset:
    """Samples by id; nothing is read or drawn before `load`.

    Raises:
        SettingsError: an id that could not name files.

    Attributes:
        ids: all sample ids of the split; `paths.refusal` says which names no id may have.
        classes: class names by label value, or None where they are unknown.
        load: takes (id, size) and returns the sample at that size; raises SampleError for a bad sample.
        content: takes an id and returns bytes that identify the sample's content, for `digest`.
        background: the class that is never a dominant target, or None where every class is an object.
        twins: by class the one that only the planted evidence tells it from; empty where none is known.
        named: whether class names were given; False: they follow from what `[data]` says of mask values.
        display: the three channels, counted from 1, that pictures show as red, green and blue; None: the first ones.
    """

    name: str
    split: str
    ids: Sequence[str]
    classes: Sequence[str] | None
    load: Callable[[str, Size], Sample]
    content: Callable[[str], bytes]
    background: int | None = 0
    display: tuple[int, ...] | None = None
    named: bool = True
    twins: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ids(self.ids, f"{self.name} {self.split}", "rename that sample")

    def choose(self, n: int | None, ids: Sequence[str] | None, seed: int) -> list[str]:
        """The ids of a run, sorted: the named ids, or `n` ids drawn with the seed from the sorted ids, or all ids.

        Raises:
            SettingsError: an id that does not exist, or n above the number of samples.
        """
        known = sorted(self.ids)
        if ids is not None:
            there = set(known)
            missing = [name for name in ids if name not in there]
            if missing:
                close = nearest(missing[0], known)
                raise SettingsError(
                    f"{self.name} {self.split} has no sample {missing[0]!r}"
                    + (f"; the nearest are {', '.join(close)}" if close else "")
                )
            return sorted(set(ids))
        if n is None:
            return known
        if n > len(known):
            have = f"{self.name} {self.split} has {len(known)}"
            raise SettingsError(f"n = {n} samples asked for; {have}: give at most that many, or none for all")
        drawn = generator(seed, "", "subset").permutation(len(known))[:n]
        return [known[i] for i in sorted(drawn)]

    def digest(self, ids: Sequence[str]) -> str:
        """SHA-256 over the ids and contents of these samples."""
        total = sha256()
        for sample_id in ids:
            total.update(sample_id.encode())
            total.update(self.content(sample_id))
        return total.hexdigest()
