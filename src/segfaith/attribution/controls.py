"""Controls: maps that explain nothing. A method's score means something only beside theirs (SPEC section 2)."""

from collections.abc import Sequence

import numpy as np
import torch

from segfaith.types import Bool, Float, Int, Tensor


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
