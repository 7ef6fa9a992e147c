"""What follows from a subject: distances, planted evidence, random numbers."""

import numpy as np
import pytest
import torch

from segfaith.batching import BatchSize
from segfaith.evaluation.interventions import INTERVENTIONS
from segfaith.evaluation.subject import Subject
from segfaith.types import Planted, Target
from toys import SmallCNN, plain

SIZE = (56, 60)


def subject(seed: int = 0, planted: Planted | None = None) -> Subject:
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[20:32, 4:20] = True
    image = torch.zeros(3, *SIZE)
    return Subject(plain(SmallCNN()), "image", image, Target(1, region), seed, BatchSize(8), planted=planted)


def test_bands_are_distances_to_the_target_scaled_with_the_height() -> None:
    """At a height of 56 the limits of 16 and 48 px are 4 and 12."""
    where = subject()
    assert where.size == SIZE
    region = where.target.region.numpy()
    inside = np.argwhere(region)
    entries = [INTERVENTIONS[kind] for kind in ("off_near", "off_middle", "off_far")]
    bands = [entry.within(where).numpy() for entry in entries if entry.within]
    assert len(bands) == 3
    for row in range(0, SIZE[0], 3):
        for column in range(SIZE[1]):
            distance = np.sqrt(((inside - (row, column)) ** 2).sum(1).min())
            expected = [0 < distance <= 4, 4 < distance <= 12, distance > 12]
            assert [bool(band[row, column]) for band in bands] == expected
            assert float(where.distance[row, column]) == pytest.approx(4 * distance)
    covered = sum(band.astype(int) for band in bands)
    assert (covered == ~region).all()


def test_the_evidence_is_that_of_all_alternatives() -> None:
    left, right = (torch.zeros(SIZE, dtype=torch.bool) for _ in range(2))
    left[0, 0] = right[9, 9] = True
    evidence = subject(planted=Planted("redundancy", (left, right))).evidence
    assert evidence is not None
    assert evidence.nonzero().tolist() == [[0, 0], [9, 9]]
    assert subject().evidence is None
    assert subject(planted=Planted("counterpart", ())).evidence is None


def test_random_numbers_depend_on_seed_and_purpose() -> None:
    draws = [one.rng(purpose).random() for one in (subject(0), subject(1)) for purpose in ("ties", "ties", "noise")]
    assert draws[0] == draws[1]
    assert len(set(draws)) == 4
