"""How many images may go through the model at once, so that its passes take no more memory than a limit.

A stage is a kind of passes whose images take the same memory: occlusions of images of one size with targets of one
extent, for example. Its first batch is a single image, whose peak is measured: on the CPU the process's resident
memory, on a GPU what torch has allocated. The next batch has

    n' = n (SHARE limit - held) / b(n),    at most GROWTH n

images, where the batch of n images that was measured took b(n) bytes, and `held` bytes are in use beside it since the
limit was set: features of the clean image, maps. A batch of more images than were measured is measured too. Since
b(n) = fixed + n each, n' images take no more than SHARE limit; and n grows to the largest number that does.
"""

import re
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch

from segfaith.errors import SettingsError
from segfaith.process import forget_peak, own_memory, own_peak, return_memory

SHARE = 0.8
"""How much of the limit batches are made for: memory is handed out in pieces, and each batch finds other pieces.

In what was measured, a batch took up to 6 % more than was expected."""
GROWTH = 8
"""How many times as many images as were measured a batch may have."""
NOT_HERE = (
    "execution.memory needs Linux or an NVIDIA GPU: this system does not say how much memory a block of code took. "
    "Leave it out, and set execution.batch_size"
)
SHORT = "memory limit: "
"""How the sentence on images that take too much begins in a row's reason."""
EXPECTED = 'expected a number with its unit, as in "4GB", "512MB" or "1.5 GiB"'
UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}

Stage = tuple[str, tuple[int, int], Hashable]
"""A kind of passes in words, the image's (H, W), and what else their memory depends on."""


def bytes_of(text: Any) -> int:
    """The bytes of "4GB", "512MB" or "1.5 GiB".

    Raises:
        ValueError: it is something else, with words for it.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?b)\s*", text, re.IGNORECASE) if isinstance(text, str) else None
    size = int(Fraction(found[1]) * UNITS[found[2].lower()]) if found else 0
    if not 1 <= size < 2**63:
        raise ValueError(EXPECTED)
    return size


def in_words(size: float) -> str:
    """Bytes for people: "1.5 GB", "240 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{max(1.0, size / 1e6):.0f} MB"


@dataclass(frozen=True)
class Batch:
    """The largest batch of a stage that was measured: its images, what they took, and what was in use beside them."""

    images: int
    taken: int
    held: int


class Memory:
    """The memory that a model's passes may take beyond what is in use when this object is made; see the module.

    Attributes:
        limit: in bytes.
        base: what was in use when this object was made.
        batches: by stage.
        over: by the image's size, what one image takes together with what is held, where that is more than the limit.

    Raises:
        SettingsError: this system does not say how much memory a process took.
    """

    def __init__(self, limit: int, device: torch.device) -> None:
        self.limit, self.device = limit, device
        self.batches: dict[Stage, Batch] = {}
        self.over: dict[tuple[int, int], int] = {}
        self.base, self.held = self._in_use(), 0

    def settle(self) -> None:
        """Returns to the system what was freed, and reads anew what is held."""
        self.held = max(0, self._in_use() - self.base)

    def fits(self, stage: Stage, most: int, kept: int = 0) -> int:
        """How many images of a stage may go through the model at once, at least 1 and no more than `most`.

        Args:
            kept: bytes that the results of the stage will take beside the passes.
        """
        known = self.batches.get(stage)
        if known is None:
            return 1
        return self._following(known, self.held + kept, most)

    def _following(self, known: Batch, held: int, most: int) -> int:
        """The number of images that follows from a batch that was measured; see the module."""
        room = SHARE * self.limit - held
        return max(1, min(most, GROWTH * known.images, int(known.images * room / known.taken)))

    @contextmanager
    def watched(self, stage: Stage, images: int) -> Iterator[None]:
        """Measures the block, in which so many images go through the model, where so many were not measured yet."""
        known = self.batches.get(stage)
        if known is not None and images <= known.images:
            if self.device.type != "cuda" and (own_memory() or 0) - self.base > SHARE * self.limit:
                return_memory()  # what earlier batches freed lies in pieces that later ones may not fit into
            yield
            return
        self.settle()
        yield
        taken = max(1, self._peak() - self.base - self.held)
        self.batches[stage] = Batch(images, taken, self.held)
        if images == 1 and taken + self.held > self.limit:
            self.over[stage[1]] = max(taken + self.held, self.over.get(stage[1], 0))

    def short(self, size: tuple[int, int]) -> str:
        """That one image of this size takes more than the limit, in words; "" where it does not."""
        if size not in self.over:
            return ""
        return (
            f"{SHORT}one image of {size[0]} x {size[1]} took {in_words(self.over[size])}, more than execution.memory = "
            f"{in_words(self.limit)}; images ran one at a time"
        )

    def words(self, most: int) -> str:
        """For each kind of passes, the batch that follows from what was measured, and the memory that is expected."""
        kinds: dict[str, str] = {}
        for (kind, *_), known in self.batches.items():
            images = self._following(known, known.held, most)
            expected = known.held + known.taken * images / known.images
            kinds[kind] = f"{kind} {images} at once ({in_words(expected)})"
        told = ", ".join(kinds.values()) or "no pass was measured"
        return f"at most {in_words(self.limit)} beyond the {in_words(self.base)} in use before: {told}"

    def _in_use(self) -> int:
        """What is in use now, in bytes; the peak counts from here on."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return torch.cuda.memory_allocated(self.device)
        return_memory()
        used = own_memory()
        if used is None or not forget_peak():
            raise SettingsError(NOT_HERE)
        return used

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return own_peak() or 0
