r"""Regions whose occlusion is evidence: a fixed grid, superpixels, or cells refined where the score drops.

**Adaptive regions** start from a grid half as fine. The cells that matter most, by default those with the largest drop,
are cut in four, and the parts are measured, until the budget of passes is used. No part is smaller than half a grid
cell a side. A cell's value v is distributed over its parts in proportion to their drops:

    v_child = v_parent max(delta_child, 0) / mean of max(delta, 0) over the parent's pixels

with v = max(delta, 0) on the first cells. So a map's total does not depend on where it was refined. If no part of a
cell matters alone, every part keeps the cell's value.

**Superpixels**: SLIC (Achanta et al., TPAMI 2012) of scikit-image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from segfaith.batching import Boxes
from segfaith.errors import SettingsError
from segfaith.evidence.gradient import Objective
from segfaith.halves import halves, side_by_side
from segfaith.incremental.precision import Asked
from segfaith.occlusion import grid_partition
from segfaith.types import Bool, Float, Image, Int, Mask, Tensor

RegionKind = Literal["grid", "adaptive", "superpixels"]


Refine = Literal["drop", "boundary", "gradient"]

Cell = tuple[int, int, int, int]
"""Top, left, bottom and right of a rectangle, half-open."""
Drops = Callable[[Bool[Tensor, "R H W"], Boxes], Float[Tensor, "R"]]
"""Measures the drops of pixel sets, each inside its box."""
Adapted = tuple[Int[Tensor, "H W"], Float[Tensor, "R"], Float[Tensor, "R"]]
"""Adaptive regions: the partition, each cell's drop, and each cell's value v per pixel (see the module)."""


@dataclass(frozen=True)
class Regions:
    """A request for intervention evidence. Equal requests share their evidence.

    Attributes:
        grid: cells a side; there are about grid^2 superpixels.
        occlusion: a name of `occlusion.OPERATORS`.
        kind: the kind of partition.
        passes: the budget of adaptive regions: how many regions may be occluded.
        refine: which cells are cut first: the cells with the largest drop ("drop"), cells that the target's boundary
            crosses ("boundary"), or cells with the most gradient evidence ("gradient").
        guide: the key of that gradient evidence.
        precision: the arithmetic of the model's layers.
    """

    grid: int = 14
    occlusion: str = "mean"
    kind: RegionKind = "grid"
    passes: int = 80
    refine: Refine = "drop"
    guide: tuple[str | None, Objective] | None = None
    precision: Asked = "fp32"

    @property
    def count(self) -> int:
        """The number of an image's regions: exact for grids, the most for adaptive regions, rough for superpixels.

        Of wired photographs that of a half.
        """
        return max(self.passes, _coarse(self.grid) ** 2) if self.kind == "adaptive" else self.grid**2

    @property
    def finest_grid(self) -> int:
        """Cells a side of the grid on whose lines all borders lie: of adaptive regions those of the second cut."""
        return 4 * _coarse(self.grid) if self.kind == "adaptive" else self.grid


def grid_cells(size: tuple[int, int], grid: int, *, mirrored: bool, wired: bool = False) -> Int[Tensor, "H W"]:
    """The cell of each pixel; a mirrored image gets the mirrored partition.

    Each half of wired photographs has its own grid, the right one's cells numbered from grid^2 on.
    """
    if wired:
        half = grid_cells((size[0], size[1] // 2), grid, mirrored=mirrored)
        return side_by_side(half, half + grid**2)
    cells = grid_partition(size, grid)
    return cells.flip(-1) if mirrored else cells


def superpixels(image: Image, count: int, *, mirrored: bool, wired: bool = False) -> Int[Tensor, "H W"]:
    """About `count` SLIC superpixels. A mirrored image gets the mirrored partition of the original image.

    Each half of wired photographs has about `count` of its own.

    Raises:
        SettingsError: scikit-image is not installed.
    """
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise SettingsError(
            "superpixels, as regions or fidelity_parts, need scikit-image; install it with pip install "
            "'segfaith[superpixels]'"
        ) from error
    if wired:
        left, right = (superpixels(half, count, mirrored=mirrored) for half in halves(image))
        return side_by_side(left, right + int(left.max()) + 1)
    pixels = (image.flip(-1) if mirrored else image).permute(1, 2, 0).cpu().numpy()
    labels = slic(pixels.astype(np.float64), n_segments=count, compactness=10.0, start_label=0, channel_axis=2)
    cells = torch.from_numpy(labels.astype(np.int64))
    return cells.flip(-1) if mirrored else cells


def adaptive_cells(
    drops: Drops, regions: Regions, region: Mask, guide: Float[Tensor, "H W"] | None, *, mirrored: bool
) -> Adapted:
    """The adaptive regions of one image.

    Args:
        region: the target mask M of this image.
        guide: gradient evidence (H, W), at least 0, for `refine = "gradient"`.
        mirrored: whether the image is mirrored; its cells are then mirrored too.
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
        drop, inside = max(known[cell], 0.0), region[top:bottom, left:right]
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
    known = dict(zip(cells, measure(cells), strict=True))  # each cell's drop
    value = {cell: max(drop, 0.0) for cell, drop in known.items()}
    smallest = (max(1, height // (2 * regions.grid)), max(1, width // (2 * regions.grid)))
    left_over = regions.passes - len(cells)
    for rounds in (2, 1):
        able = [cell for cell in known if cell[2] - cell[0] >= 2 * smallest[0] and cell[3] - cell[1] >= 2 * smallest[1]]
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
            del known[cell]
            known |= drop_of
            value |= {part: whole * max(drop, 0.0) / mean if mean > 0 else whole for part, drop in drop_of.items()}
    partition = torch.zeros(height, width, dtype=torch.long)
    for number, cell in enumerate(known):
        top, left, bottom, right = frame(cell)
        partition[top:bottom, left:right] = number
    as_tensor = [torch.tensor([table[cell] for cell in known], dtype=torch.float64) for table in (known, value)]
    return partition.to(device), as_tensor[0].to(device), as_tensor[1].to(device)


def adaptive_halves(
    drops: Drops, regions: Regions, region: Mask, guide: Float[Tensor, "H W"] | None, *, mirrored: bool
) -> Adapted:
    """`adaptive_cells` of wired photographs: each half has its own cells and its own `passes`, as if it were alone."""
    width = region.shape[1] // 2
    parts = []
    for side in (0, 1):

        def of_half(masks: Tensor, boxes: Boxes, side: int = side) -> Tensor:
            blank, shift = torch.zeros_like(masks), np.array([0, side * width])
            canvas = side_by_side(blank, masks) if side else side_by_side(masks, blank)
            return drops(canvas, (boxes[0] + shift, boxes[1] + shift))

        hint = None if guide is None else halves(guide)[side]
        parts.append(adaptive_cells(of_half, regions, halves(region)[side], hint, mirrored=mirrored))
    (left, first, own), (right, second, other) = parts
    return side_by_side(left, right + len(first)), torch.cat([first, second]), torch.cat([own, other])


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
