"""A data set of pairs: which photographs lie side by side, and what is known of them."""

from dataclasses import replace

import pytest
import torch

from segfaith.data.dataset import Dataset
from segfaith.data.wired import wire_samples
from segfaith.errors import SampleError, SettingsError
from segfaith.halves import Wiring
from segfaith.types import Sample


def numbered(ids: list[str], masks: bool = False) -> Dataset:
    """A sample for each id: its image and labels hold the id's number alone."""

    def load(name: str, size: object) -> Sample:
        number = ids.index(name)
        labels = torch.full((2, 3), number)
        own = {number: torch.ones(2, 3, dtype=torch.bool)} if masks else {}
        return Sample(name, torch.full((3, 2, 3), number / 10), labels, masks=own)

    return Dataset("toy", "val", ids, None, load, str.encode)


IDS = [f"s{number}" for number in range(7)]


def test_each_sample_is_once_the_first_and_once_the_second_and_never_its_own_partner() -> None:
    for seed in range(20):
        pairs = [one.split("+") for one in wire_samples(numbered(IDS), Wiring(1.0), seed).ids]
        assert sorted(one for one, _ in pairs) == sorted(other for _, other in pairs) == IDS
        assert all(one != other for one, other in pairs)


def test_pairs_follow_from_the_seed_and_the_ids_whatever_their_order() -> None:
    def pairs(ids: list[str], seed: int) -> list[str]:
        return sorted(wire_samples(numbered(ids), Wiring(0.0), seed).ids)

    assert pairs(IDS, 0) == pairs(IDS[::-1], 0)
    assert pairs(IDS, 0) != pairs(IDS, 1)


@pytest.mark.parametrize(("own", "kind"), [(1.0, "wired straight"), (0.0, "wired crossed"), (0.4, None)])
@pytest.mark.parametrize("masks", [False, True])
def test_labels_stand_where_the_logits_for_them_are(own: float, kind: str | None, masks: bool) -> None:
    wired = wire_samples(numbered(IDS, masks), Wiring(own), 0)
    sample = wired.load(wired.ids[0], 2)
    one, other = (IDS.index(name) for name in sample.id.split("+"))
    row = [one / 10] * 3 + [other / 10] * 3
    torch.testing.assert_close(sample.image, torch.tensor(row).expand(3, 2, 6))
    left, right = (other, one) if own == 0 else (one, other)
    assert sample.labels.tolist() == [[left] * 3 + [right] * 3] * 2
    if masks:
        assert sample.masks[left].tolist() == [[True] * 3 + [False] * 3] * 2
        assert sample.masks[right].tolist() == [[False] * 3 + [True] * 3] * 2
    if kind is None:
        assert sample.wired is None
    else:
        assert sample.wired is not None
        assert sample.wired.kind == kind
        (half,) = sample.wired.alternatives
        assert half.tolist() == [[own == 1] * 3 + [own == 0] * 3] * 2
    assert wired.content(sample.id) == "".join(sample.id.split("+")).encode()


def test_the_share_that_was_clipped_is_that_of_both() -> None:
    whole = numbered(IDS)
    some = replace(whole, load=lambda one, size: replace(whole.load(one, size), clipped=0.5 * (one == "s0")))
    wired = wire_samples(some, Wiring(1.0), 0)
    assert [wired.load(one, 2).clipped for one in wired.ids] == [0.25 * ("s0" in one.split("+")) for one in wired.ids]


def test_grey_is_repeated_beside_colour_and_other_sizes_are_refused() -> None:
    def changed(name: str, image: torch.Tensor) -> Dataset:
        whole = numbered(IDS)
        odd = Sample(name, image, torch.zeros(image.shape[1:], dtype=torch.int64))
        return replace(whole, load=lambda other, size: odd if other == name else whole.load(other, size))

    grey = wire_samples(changed("s0", torch.full((1, 2, 3), 0.5)), Wiring(1.0), 0)
    (mine,) = [one for one in grey.ids if one.startswith("s0+")]
    assert bool((grey.load(mine, 2).image[:, :, :3] == 0.5).all())
    for image in (torch.zeros(3, 2, 4), torch.zeros(2, 2, 3)):
        with pytest.raises(SampleError, match="same channels and size"):
            wire_samples(changed("s0", image), Wiring(1.0), 0).load(mine, 2)


def test_a_single_sample_and_ids_that_join_alike_are_refused() -> None:
    with pytest.raises(SettingsError, match="fewer"):
        wire_samples(numbered(["s0"]), Wiring(1.0), 0)
    with pytest.raises(SettingsError, match="called alike"):
        _ = [wire_samples(numbered(["a", "b", "a+b", "b+a"]), Wiring(1.0), seed) for seed in range(200)]
