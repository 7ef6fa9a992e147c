"""Averages by image, a second time by loops."""

import numpy as np
import pandas as pd

from segfaith.results.statistics.averaging import Averages


def test_an_image_is_averaged_over_targets_then_runs_then_runs_of_their_own(rng: np.random.Generator) -> None:
    rows = [
        (0, 0, "b", "cat"), (0, 0, "b", "dog"), (0, 0, "a", "cat"), (0, 1, "b", "dog"), (1, 2, "b", "cat"),
        (1, 2, "c", "cat"), (1, 2, "a", "dog"), (1, 3, "c", "cat"), (1, 3, "c", "cow"), (1, 3, "d", "cow"),
    ]  # fmt: skip
    index = pd.MultiIndex.from_tuples(rows, names=["own", "run", "sample_id", "target"])
    values = rng.random((len(rows), 2))
    counted = np.array([row[2:] not in (("c", "cow"), ("d", "cow")) for row in rows])  # so nothing is left of d
    got = Averages.of(index).means(np.where(counted[:, None], values, np.nan), counted)
    expected = []
    for image in "abc":
        of_own = []
        for own in (0, 1):
            of_run = []
            for run in range(4):
                chosen = [values[i] for i, row in enumerate(rows) if counted[i] and row[:3] == (own, run, image)]
                of_run += [sum(chosen) / len(chosen)] if chosen else []
            of_own += [sum(of_run) / len(of_run)] if of_run else []
        expected.append(sum(of_own) / len(of_own))
    np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_without_rows_there_are_no_images() -> None:
    index = pd.MultiIndex.from_tuples([(0, 0, "a", "")], names=["own", "run", "sample_id", "target"])
    grouped = Averages.of(index)
    assert grouped.means(np.ones((1, 3)), np.array([False])).shape == (0, 3)
    twice = pd.MultiIndex.from_tuples([(0, 0, "a", ""), (0, 1, "a", "")], names=index.names)
    assert Averages.of(twice).means(np.ones((2, 3)), np.array([False, False])).shape == (0, 3)
    assert Averages.of(twice).means(np.ones((2, 0)), np.array([True, True])).shape == (1, 0), "without columns"
