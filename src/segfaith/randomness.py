"""Every random number comes from here: PCG64 seeded with SHA-256 of `seed|sample id|purpose`, never global state."""

from hashlib import sha256

import numpy as np


def generator(seed: int, sample_id: str, purpose: str, target: str = "") -> np.random.Generator:
    """The generator for (run seed, sample, purpose). What ran before, and in which order, does not matter."""
    text = f"{seed}|{sample_id}|{purpose}" + (f"|target {target}" if target else "")
    digest = sha256(text.encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest, "big")))
