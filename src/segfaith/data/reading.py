"""How a folder's files become images and labels: `Reading`, the keys of `[data]` that say what values mean."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from math import isfinite
from numbers import Real
from typing import Any

from segfaith.errors import SettingsError

Pair = tuple[float, float]


@dataclass(frozen=True)
class Reading:
    """How files are read; without arguments, images of 8 bits and masks of class indices.

    Raises:
        SettingsError: a value that means nothing, or two that contradict each other.

    Attributes:
        range: the values that become 0 and 1, as a pair (low, high) or a pair for each channel; None: 0 and 255 for 8
            bits, 0 and 65535 for grey PNGs of 16 bits; other images then have no known range and are refused.
        clip: values outside the range become 0 or 1; otherwise they are an error.
        channels_first: whether three-dimensional arrays are (C, H, W), else (H, W, C); None: the sizes tell.
        labels: class names or indices by mask value ("255") or colour ("#ff0000", "255,0,0"), 255 for ignored pixels;
            or the name of a preset; None: mask values are class indices.
        foreground: the mask value that is class 1, where 0 is the background and nothing else is expected.
        ignore: the mask values of pixels that belong to no class; None: 255, where no other key names that value.
        background: the class that is never a dominant target, by name or index, or "none"; None: class 0, and of a
            preset the class "background" or none.
        display: the three channels, counted from 1, that pictures show as red, green and blue; None: the first ones.
    """

    range: Pair | Sequence[Pair] | None = None
    clip: bool = False
    channels_first: bool | None = None
    labels: str | Mapping[Any, str | int] | None = None
    foreground: int | None = None
    ignore: Sequence[int] | None = None
    background: int | str | None = None
    display: Sequence[int] | None = None

    def __post_init__(self) -> None:
        for low, high in self.pairs or ():
            if not (isfinite(low) and isfinite(high) and low < high):
                raise SettingsError(f"range = [{low:g}, {high:g}]: expected two finite numbers, the lower first")
        if self.clip and self.range is None:
            raise SettingsError("clip = true needs [data] range = [low, high], the values at which it clips")
        if self.labels is not None and self.foreground is not None:
            raise SettingsError("give labels or foreground, not both: foreground = 255 is labels for two classes")
        if self.foreground == 0:
            raise SettingsError("foreground = 0: the value 0 is the background; give labels to name it otherwise")
        if self.display is not None and (len(self.display) != 3 or min(self.display) < 1):
            raise SettingsError(
                f"display = {list(self.display)}: expected three channels, counted from 1, for red, green and blue"
            )

    @property
    def pairs(self) -> list[Pair] | None:
        """The range as pairs: a single one for all channels, or one for each."""
        if self.range is None:
            return None
        parts: list[Any] = list(self.range) if isinstance(self.range, Iterable) else [self.range]
        pairs = [parts] if all(isinstance(part, Real) for part in parts) else parts
        if not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in pairs):
            raise SettingsError(f"range = {parts}: expected [low, high], or a list of such pairs, one for each channel")
        return [(float(low), float(high)) for low, high in pairs]

    def refuse_for(self, name: str) -> None:
        """Raises SettingsError if anything is set, for a data set whose files say themselves how they are read."""
        given = [part.name for part in fields(self) if getattr(self, part.name) != part.default]
        if given:
            raise SettingsError(
                f"data set {name} says itself how it is read; leave [data] {', '.join(given)} out (for name = "
                '"folder" only)'
            )


PLAIN = Reading()
"""Images of 8 bits and masks of class indices."""
