"""A figure with its caption, drawn once however often it is asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from matplotlib.figure import Figure

from segfaith.errors import SettingsError


@dataclass(frozen=True, eq=False)
class Drawing:
    """A figure of one data set.

    Attributes:
        name: the stem of its files and its anchor, "curves-voc2012-val".
        caption: what it shows, in sentences.
        draw: makes it; raises SettingsError, with the reason, where it cannot be drawn.
        remarks: sentences on how its cases were chosen and on what it leaves out.
        on_page: whether the page shows it; figures of photographs stand in `figures/` alone, for the page has the
            gallery.
    """

    name: str
    caption: str
    draw: Callable[[], Figure]
    remarks: tuple[str, ...] = ()
    on_page: bool = True

    @cached_property
    def figure(self) -> Figure | None:
        """The figure, or None where it cannot be drawn (see `why`)."""
        return self._drawn[0]

    @cached_property
    def why(self) -> str:
        """Why it cannot be drawn, or ""."""
        return self._drawn[1]

    @cached_property
    def _drawn(self) -> tuple[Figure | None, str]:
        try:
            return self.draw(), ""
        except SettingsError as error:
            return None, str(error)
