r"""Regions whose occlusion is evidence: a fixed grid, superpixels, or cells refined where the score drops.

**Adaptive regions** start from a grid half as fine. The cells that matter most, by the drop that they were measured to
cause, are cut in four and measured anew, until the budget of passes is used; none is finer than half a cell of the grid
a side.
A cell is spread over its parts in proportion to what they do:

    v_child = v_parent max(delta_child, 0) / mean of max(delta, 0) over the parent's pixels

with v = max(delta, 0) on the first cells; so the total of a map does not depend on where it was refined, and parts of
which none matters alone keep the value of the whole.

**Superpixels**: SLIC (Achanta et al., TPAMI 2012) of scikit-image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from segfaith.errors import SettingsError
from segfaith.evidence.gradient import Objective
from segfaith.incremental.scorers import Precision
from segfaith.occlusion import grid_partition
from segfaith.scores import Boxes
from segfaith.types import Bool, Float, Image, Int, Mask, Tensor

RegionKind = Literal["grid", "adaptive", "superpixels"]


Refine = Literal["drop", "boundary", "gradient"]

Cell = tuple[int, int, int, int]
"""Top, left, bottom and right of a rectangle, half-open."""


@dataclass(frozen=True)
class Regions:
    """What an intervention evidence is asked for; equal requests share one evidence.

    Attributes:
        grid: cells a side, and about grid^2 superpixels.
        occlusion: a name of `occlusion.OPERATORS`.
        kind: which partition.
        passes: the budget of adaptive regions, in regions occluded.
        refine: which cells are cut first: those of the highest drop, those that the target's boundary crosses, or those
            that hold the most gradient evidence.
        guide: the key of that gradient evidence.
        precision: of the model's layers.
    """

    grid: int = 14
    occlusion: str = "mean"
    kind: RegionKind = "grid"
    passes: int = 80
    refine: Refine = "drop"
    guide: tuple[str | None, Objective] | None = None
    precision: Precision = "fp32"

    @property
    def count(self) -> int:
        """How many regions an image is cut into: at most, or about as many superpixels."""
        return max(self.passes, _coarse(self.grid) ** 2) if self.kind == "adaptive" else self.grid**2


def grid_cells(size: tuple[int, int], grid: int, *, mirrored: bool) -> Int[Tensor, "H W"]:
    """The cell of each pixel; a mirrored image gets the mirrored partition."""
    cells = grid_partition(size, grid)
    return cells.flip(-1) if mirrored else cells


def superpixels(image: Image, count: int, *, mirrored: bool) -> Int[Tensor, "H W"]:
    """SLIC superpixels, about `count`; a mirrored image is cut as its mirror image.

    Raises:
        SettingsError: scikit-image is not installed.
    """
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise SettingsError(
            "regions = 'superpixels' needs scikit-image; install it with pip install 'segfaith[superpixels]'"
        ) from error
    pixels = (image.flip(-1) if mirrored else image).permute(1, 2, 0).cpu().numpy()
    labels = slic(pixels.astype(np.float64), n_segments=count, compactness=10.0, start_label=0, channel_axis=2)
    cells = torch.from_numpy(labels.astype(np.int64))
    return cells.flip(-1) if mirrored else cells


def adaptive_cells(
    drops: Callable[[Bool[Tensor, "R H W"], Boxes], Float[Tensor, "R"]],
    regions: Regions,
    region: Mask,
    guide: Float[Tensor, "H W"] | None,
    *,
    mirrored: bool,
) -> tuple[Int[Tensor, "H W"], Float[Tensor, "R"], Float[Tensor, "R"]]:
    """Cells refined where it matters: the partition, each cell's drop, and its value v per pixel (see above).

    Args:
        drops: measures the drops of pixel sets, each inside its box.
        region: M; cells are chosen in its frame.
        guide: gradient evidence (H, W), at least 0, for `refine = "gradient"`.
        mirrored: the image is mirrored; so are the cells.
    """
    height, width = region.shape
    device, region = region.device, region.cpu()
    guide = None if guide is None else guide.cpu()

    def frame(cell: Cell) -> Cell:
        top, left, bottom, right = cell
        return (top, width - right, bottom, width - left) if mirrored else cell

    def measure(cells: list[Cell]) -> list[float]:
        masks = torch.zeros(len(cells), height, width, dtype=torch.bool)
        for mask, cell in zip(masks, cells, strict=True):
            top, left, bottom, right = frame(cell)
            mask[top:bottom, left:right] = True
        at = np.array([frame(cell) for cell in cells])
        values: list[float] = drops(masks.to(device), (at[:, :2], at[:, 2:])).tolist()
        return values

    def priority(cell: Cell) -> tuple[float, float]:
        top, left, bottom, right = frame(cell)
        drop, inside = max(found[cell], 0.0), region[top:bottom, left:right]
        if regions.refine == "boundary":
            return float(bool(inside.any()) and not bool(inside.all())), drop
        if regions.refine == "gradient" and guide is not None:
            return float(guide[top:bottom, left:right].sum()), drop
        return drop, 0.0

    coarse = _coarse(regions.grid)
    edges = [[side * i // coarse for i in range(coarse + 1)] for side in (height, width)]
    cells = [
        (top, left, bottom, right)
        for top, bottom in zip(edges[0], edges[0][1:], strict=False)
        for left, right in zip(edges[1], edges[1][1:], strict=False)
        if bottom > top and right > left
    ]
    found = dict(zip(cells, measure(cells), strict=True))
    value = {cell: max(drop, 0.0) for cell, drop in found.items()}
    smallest = (max(1, height // (2 * regions.grid)), max(1, width // (2 * regions.grid)))
    left_over = regions.passes - len(cells)
    for rounds in (2, 1):
        able = [cell for cell in found if cell[2] - cell[0] >= 2 * smallest[0] and cell[3] - cell[1] >= 2 * smallest[1]]
        chosen = sorted(able, key=priority, reverse=True)[: max(0, left_over) // (4 * rounds)]
        parts = [part for cell in chosen for part in _quarters(cell)]
        if not parts:
            continue
        measured = measure(parts)
        left_over -= len(parts)
        for index, cell in enumerate(chosen):
            drop_of = dict(zip(parts[4 * index : 4 * index + 4], measured[4 * index : 4 * index + 4], strict=True))
            area = {part: (part[2] - part[0]) * (part[3] - part[1]) for part in drop_of}
            mean = sum(max(drop, 0.0) * area[part] for part, drop in drop_of.items()) / sum(area.values())
            whole = value.pop(cell)
            del found[cell]
            found |= drop_of
            value |= {part: whole * max(drop, 0.0) / mean if mean > 0 else whole for part, drop in drop_of.items()}
    partition = torch.zeros(height, width, dtype=torch.long)
    for number, cell in enumerate(found):
        top, left, bottom, right = frame(cell)
        partition[top:bottom, left:right] = number
    as_tensor = [torch.tensor([table[cell] for cell in found], dtype=torch.float64) for table in (found, value)]
    return partition.to(device), as_tensor[0].to(device), as_tensor[1].to(device)


def _coarse(grid: int) -> int:
    """Cells a side of the first grid."""
    return (grid + 1) // 2


def _quarters(cell: Cell) -> list[Cell]:
    top, left, bottom, right = cell
    row, column = (top + bottom) // 2, (left + right) // 2
    return [
        (top, left, row, column),
        (top, column, row, right),
        (row, left, bottom, column),
        (row, column, bottom, right),
    ]
