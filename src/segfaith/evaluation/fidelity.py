r"""Fidelity: does a map predict what the removal of a set of regions costs?

A partition of the image that no method used is cut along the target's border. P sets S_j of its parts are drawn, half
of them anywhere in the image, a quarter inside the target M and a quarter outside. Each is occluded once, and all maps
of the sample are held against the same drops:

    d_j = max(s - s(O(x, S_j)), 0) / |S_j|,    a_j = mean of A over S_j,    fidelity = Spearman correlation of a, d

over the sets that lie anywhere; `fidelity_inside` and `fidelity_outside` are those over the sets of their region. Both
are numbers per pixel: parts that the border cuts have different areas, and by sums a map of random values would predict
much of the drops inside the target, since larger sets cost more. `per = "set"` takes the sums. A map says what supports
s, so a set whose removal raises s counts as one that costs nothing: else `gamed`, which gives regions that lower s less
than regions that do nothing, would be right about the wrong question. So does a drop of the size of rounding errors,
below 1e-5 max(1, the largest drop).

Related measures: faithfulness correlation (Bhatt et al., IJCAI 2020) and sensitivity-n (Ancona et al., ICLR 2018) take
Pearson's correlation over random sets of single pixels or features; MuFidelity (Fel et al., NeurIPS 2021) takes
Spearman's over random sets of grid cells. Pearson's would reward maps in proportion to drops, which no method here
promises; sets of single pixels destroy texture instead of content. Those measures know no target: here sets inside
and outside M are drawn by themselves too, so that the mask's outline alone cannot carry a map.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import nan
from typing import Literal

import numpy as np
import torch

from segfaith.evaluation.correlation import spearman
from segfaith.evaluation.ranking import levels
from segfaith.types import Bool, Float, Int, Map, Mask, Tensor

Area = Literal["anywhere", "inside", "outside"]
Per = Literal["pixel", "set"]
SHARES: dict[Area, float] = {"anywhere": 0.5, "inside": 0.25, "outside": 0.25}
"""Which share of the sets is drawn where."""
ROUNDING = 1e-5
"""Smaller drops (above 1: smaller parts of the largest drop) are noise: divided by the number of pixels they would rank
sets by their size."""
LEAST_SETS = 8
"""A correlation over fewer different sets is undefined."""
LEAST_PARTS = 4
"""In a region of fewer parts no sets are drawn: there are too few different ones."""


@dataclass(frozen=True, eq=False)
class Sets:
    """P sets of parts of an image.

    Attributes:
        parts: the part of each pixel.
        members: which parts each set has.
        areas: where each set was drawn.
        per: whether drops and maps count per pixel of a set, or per set.
    """

    parts: Int[Tensor, "H W"]
    members: Bool[Tensor, "P parts"]
    areas: Sequence[Area]
    per: Per = "pixel"

    def __len__(self) -> int:
        return len(self.areas)

    def mask(self, number: int) -> Mask:
        """The pixels of a set."""
        chosen: Mask = self.members[number][self.parts]
        return chosen

    @cached_property
    def pixels(self) -> Float[Tensor, "P"]:
        """|S_j|, or 1 where numbers are per set."""
        if self.per == "set":
            return torch.ones(len(self), dtype=torch.float64, device=self.parts.device)
        each = torch.bincount(self.parts.flatten(), minlength=self.members.shape[1])
        return (self.members.long() * each).sum(1).double()

    def totals(self, heatmap: Map) -> Float[Tensor, "P"]:
        """a_j of each set, in float64. Values count in steps of 1e-6, so that equal sums are equal to the last bit."""
        count = self.members.shape[1]
        each = torch.zeros(count, dtype=torch.int64, device=heatmap.device)
        each.index_add_(0, self.parts.flatten(), levels(heatmap).flatten())
        return (self.members.long() * each).sum(1).double() / self.pixels

    def losses(self, drops: Float[Tensor, "P"]) -> Float[Tensor, "P"]:
        """d_j of each set from s - s(O(x, S_j)), in steps of 1e-6; drops of the size of rounding errors are none."""
        drops = drops.to(self.parts.device).clamp(min=0)
        none = drops < ROUNDING * max(1.0, float(drops.max()))
        lost: Tensor = levels(drops.masked_fill(none, 0)).double() / self.pixels
        return lost


def draw_sets(
    cells: Int[Tensor, "H W"],
    target: Mask,
    outside: Mask,
    count: int,
    size: int,
    rng: np.random.Generator,
    *,
    per: Per = "pixel",
) -> Sets:
    """`count` different sets of parts; fewer where a region has not as many different ones, or too few parts.

    Args:
        cells: the partition's region of each pixel, from 0.
        outside: the pixels that count as outside of the target; others that do not lie in it are in sets anywhere.
        size: parts a set. A set that is drawn in a region of n parts has at most n / 4 of them, and at least one.
        per: see `Sets`.

    A set anywhere holds whole cells; a set inside or outside holds the parts of cells that lie in its region.
    """
    place = torch.where(target, 0, torch.where(outside, 1, 2))
    parts, present = 3 * cells + place, 3 * (int(cells.max()) + 1)
    counts = torch.bincount(parts.flatten(), minlength=present).cpu().numpy().reshape(-1, 3)
    choices: dict[Area, np.ndarray] = {
        "anywhere": np.flatnonzero(counts.sum(1)),
        "inside": np.flatnonzero(counts[:, 0]),
        "outside": np.flatnonzero(counts[:, 1]),
    }
    members, areas = [], list[Area]()
    for area, available in choices.items():
        column = {"anywhere": slice(0, 3), "inside": slice(0, 1), "outside": slice(1, 2)}[area]
        for chosen in _distinct(available, round(count * SHARES[area]), size, rng):
            member = np.zeros_like(counts, dtype=bool)
            member[chosen, column] = True
            members.append(member.ravel())
            areas.append(area)
    drawn = torch.from_numpy(np.array(members, dtype=bool).reshape(len(areas), present))
    return Sets(parts, drawn.to(cells.device), areas, per)


def _distinct(available: np.ndarray, count: int, size: int, rng: np.random.Generator) -> list[np.ndarray]:
    """At most `count` different subsets, in the order in which they were drawn."""
    if len(available) < LEAST_PARTS:
        return []
    taken = max(1, min(size, len(available) // 4))
    drawn: dict[tuple[int, ...], None] = {}
    for _ in range(20 * count):
        if len(drawn) == count:
            break
        drawn.setdefault(tuple(sorted(rng.choice(available, taken, replace=False).tolist())))
    return [np.array(chosen) for chosen in drawn]


def fidelity(heatmap: Map, sets: Sets, drops: Float[Tensor, "P"]) -> float:
    """Spearman correlation of a and d over the sets that lie anywhere, in [-1, 1].

    NaN where a or d is the same for all of these sets, or where there are fewer than `LEAST_SETS`.

    Args:
        drops: s - s(O(x, S_j)) of each set.
    """
    return _over("anywhere", heatmap, sets, drops)


def fidelity_inside(heatmap: Map, sets: Sets, drops: Float[Tensor, "P"]) -> float:
    """The same over the sets inside the target."""
    return _over("inside", heatmap, sets, drops)


def fidelity_outside(heatmap: Map, sets: Sets, drops: Float[Tensor, "P"]) -> float:
    """The same over the sets outside the target."""
    return _over("outside", heatmap, sets, drops)


def _over(area: Area, heatmap: Map, sets: Sets, drops: Float[Tensor, "P"]) -> float:
    chosen = torch.tensor([number for number, where in enumerate(sets.areas) if where == area], dtype=torch.long)
    if len(chosen) < LEAST_SETS:
        return nan
    return spearman(sets.totals(heatmap).cpu()[chosen], sets.losses(drops).cpu()[chosen])
