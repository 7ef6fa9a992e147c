"""What a data set is to the rest of segfaith: samples by id, and the choice of those of a run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
        ids: all sample ids of the split; see `paths.refusal` for what none may be.
        classes: class names by label value, or None where they are unknown.
        load: (id, size) to the sample at the size at which it is evaluated; raises SampleError for a bad one.
        content: id to the bytes that make the sample what it is, for `digest`.
    """

    name: str
    split: str
    ids: Sequence[str]
    classes: Sequence[str] | None
    load: Callable[[str, Size], Sample]
    content: Callable[[str], bytes]

    def __post_init__(self) -> None:
        check_ids(self.ids, f"{self.name} {self.split}", "rename that sample")

    def choose(self, n: int | None, ids: Sequence[str] | None, seed: int) -> list[str]:
        """The ids of a run, sorted: the named ones, or `n` drawn from the sorted ids with the seed, or all.

        Raises:
            SettingsError: an id that does not exist, or n above the number of samples.
        """
        known = sorted(self.ids)
        if ids is not None:
            missing = [name for name in ids if name not in self.ids]
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
            raise SettingsError(f"n = {n} samples asked for; {self.name} {self.split} has {len(known)}")
        drawn = generator(seed, "", "subset").permutation(len(known))[:n]
        return [known[i] for i in sorted(drawn)]

    def digest(self, ids: Sequence[str]) -> str:
        """SHA-256 over the ids and what makes these samples what they are."""
        total = sha256()
        for sample_id in ids:
            total.update(sample_id.encode())
            total.update(self.content(sample_id))
        return total.hexdigest()
