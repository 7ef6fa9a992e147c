"""Controls: maps that explain nothing. A method's score means something only beside theirs (SPEC section 2).

And the opposite: the truth, where it is known.
"""

from collections.abc import Sequence

import numpy as np
import torch

from segfaith.attribution.heatmap import minmax
from segfaith.attribution.region import ria
from segfaith.types import Bool, Float, Int, InterventionEvidence, Map, Mask, Tensor

HIDDEN = 0.02
"""The share of its range in which `gamed` hides an order of pixels."""


def random_pixels(region: Bool[Tensor, "N H W"], rng: Sequence[np.random.Generator]) -> Float[Tensor, "N H W"]:
    """Independent uniform values per pixel, with a separate draw for each of the N variants."""
    size = tuple(region.shape[1:])
    return torch.stack([torch.from_numpy(source.random(size, dtype=np.float32)) for source in rng]).to(region.device)


def random_cells(partition: Int[Tensor, "N H W"], rng: Sequence[np.random.Generator]) -> Float[Tensor, "N H W"]:
    """One uniform value per region of RIA's partition, with a separate draw for each of the N variants."""
    count = int(partition.max()) + 1
    values = [torch.from_numpy(source.random(count, dtype=np.float32)).to(partition.device) for source in rng]
    return torch.stack([value[cells] for value, cells in zip(values, partition, strict=True)])


def mask(region: Bool[Tensor, "N H W"]) -> Float[Tensor, "N H W"]:
    """The target mask M itself."""
    return region.float()


def truth(evidence: Mask) -> Map:
    """The planted evidence E itself: 1 on its pixels, those of all alternatives, and 0 elsewhere."""
    return evidence.float()


def gamed(intervention: InterventionEvidence, region: Bool[Tensor, "N H W"]) -> Float[Tensor, "N H W"]:
    r"""A map made to win the paper's metrics, not to explain: the mask, with an order hidden in the last 2 %.

        A = minmax(M (1 + 0.02 RIA) + (1 - M) 0.02 (1 - minmax(abs(drop))))

    Inside M the pixels are in RIA's order, so TDD and insertion equal RIA's. Outside they are in the reverse order of
    what was measured, so the deletion of the highest pixels costs next to nothing. In value the map is M, so it is
    stable. docs/gaming.md shows what it wins.
    """
    size = intervention.regions.shape[1:]
    drop = intervention.drop.abs().nan_to_num().gather(1, intervention.regions.flatten(1)).reshape(-1, *size)
    inside, outside = 1 + HIDDEN * ria(intervention), HIDDEN * (1 - minmax(drop).float())
    return minmax(torch.where(region, inside, outside))
