"""Detailed leakage, pairs of operator and k, and what maps look like, against loops."""

from math import isnan
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import segfaith
from segfaith.attribution.methods import resolve_method
from segfaith.benchmark.plan import passes_per_sample
from segfaith.benchmark.settings import EvaluationSettings, make_settings
from segfaith.benchmark.worker import evaluate_sample
from segfaith.errors import SettingsError
from segfaith.evaluation import interventions
from segfaith.evaluation.interventions import BANDS, distance_bands
from segfaith.evaluation.map_properties import map_properties
from segfaith.evaluation.ranking import tie_ranks, top_count
from segfaith.randomness import generator
from segfaith.scores import BatchSize, score_images
from segfaith.types import Target
from toys import SmallCNN, plain

SIZE = (56, 60)


def target(rows: slice = slice(20, 32), columns: slice = slice(4, 20)) -> Target:
    region = torch.zeros(SIZE, dtype=torch.bool)
    region[rows, columns] = True
    return Target(1, region)


def evaluated(heatmap: torch.Tensor, where: Target, **changes: object) -> tuple[pd.Series, list[Any], torch.Tensor]:
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(4))
    own = segfaith.Method("own", "here", ("model",), lambda model, image, target: heatmap)
    result = evaluate_sample(
        plain(SmallCNN()),
        "image",
        image,
        where,
        [resolve_method(one, {}) for one in (own, "random_cells")],
        EvaluationSettings(**changes),  # type: ignore[arg-type]
        seed=0,
        batch=BatchSize(8),
        stability=False,
    )
    return pd.Series(result.records[0]), result.curves, image


def test_bands_are_distances_to_the_target_scaled_with_the_height() -> None:
    """At a height of 56 the limits of 16 and 48 px are 4 and 12."""
    where = target()
    inside = np.argwhere(where.region.numpy())
    bands = {kind: mask.numpy() for kind, mask in distance_bands(where).items()}
    assert list(bands) == list(BANDS) == ["off_near", "off_middle", "off_far"]
    for row in range(0, SIZE[0], 3):
        for column in range(SIZE[1]):
            distance = np.sqrt(((inside - (row, column)) ** 2).sum(1).min())
            expected = [0 < distance <= 4, 4 < distance <= 12, distance > 12]
            assert [bool(bands[kind][row, column]) for kind in BANDS] == expected
    covered = sum(mask.astype(int) for mask in bands.values())
    assert (covered == ~where.region.numpy()).all()


def test_detailed_leakage_deletes_what_it_says() -> None:
    """Each score is that of a single pass with the named pixels at the image's mean."""
    where = target()
    heatmap = torch.rand(SIZE, generator=torch.Generator().manual_seed(9))
    row, _, image = evaluated(heatmap, where, leakage="detailed")
    ranks = tie_ranks(SIZE, "cell", generator(0, "image", "ties")).flatten().numpy()
    outside = np.flatnonzero(~where.region.numpy())
    levels = np.round((heatmap - heatmap.min()).numpy() / float(heatmap.max() - heatmap.min()) * 1e6).ravel()
    order = outside[np.lexsort((ranks[outside], -levels[outside]))]
    top = order[: top_count(0.2, len(outside))]
    bands = {kind: mask.flatten().numpy() for kind, mask in distance_bands(where).items()}
    sets = {
        "fair": order[: top_count(0.2, int(where.region.sum()))],
        **{kind.removeprefix("off_"): top[bands[kind][top]] for kind in BANDS},
    }
    model = plain(SmallCNN())
    for name, pixels in sets.items():
        assert 0 < len(pixels) < len(top)
        altered = image.clone().flatten(1)
        altered[:, pixels] = image.mean((1, 2))[:, None]
        with torch.no_grad():
            probability = model.logits(altered.reshape(1, 3, *SIZE)).softmax(1)[0, 1]
        score = float(probability[where.region].double().sum() / (int(where.region.sum()) + 1e-6))
        assert row[f"s_{name}_deleted"] == pytest.approx(score, abs=2e-6), name
        assert row[f"odd_{name}"] == pytest.approx((row["s"] - score) / (row["s"] + 1e-6), abs=1e-5)
    assert row["odd_fair_abs"] == abs(row["odd_fair"])


def test_a_band_in_which_the_map_marks_nothing_loses_nothing() -> None:
    """All of S_o lies at the target: the far bands lose exactly 0."""
    where = target()
    row, _, _ = evaluated(distance_bands(where)["off_near"].float(), where, leakage="detailed", k=0.02)
    assert (row["odd_middle"], row["odd_far"]) == (0, 0)
    assert row["odd_near"] == row["odd"] != 0


def test_a_target_that_leaves_fewer_pixels_than_it_loses_has_no_fair_leakage() -> None:
    half, more = target(slice(0, 28), slice(0, 60)), target(slice(0, 29), slice(0, 60))
    row, _, _ = evaluated(torch.rand(SIZE), half, leakage="detailed", k=1.0)
    assert row["s_fair_deleted"] == row["s_off_deleted"], "as many outside as inside"
    assert "odd_fair" not in row["reason"]
    row, _, _ = evaluated(torch.rand(SIZE), more, leakage="detailed", k=1.0)
    assert isnan(row["odd_fair"])
    assert isnan(row["odd_fair_abs"])
    assert row["reason"].endswith("odd_fair: fewer pixels lie outside the target than tdd deletes")
    everywhere, _, _ = evaluated(torch.rand(SIZE), Target(1, torch.ones(SIZE, dtype=torch.bool)), leakage="detailed")
    assert all(isnan(everywhere[name]) for name in ("odd_fair", "odd_near", "odd_middle", "odd_far"))


def test_each_operator_at_the_first_k_and_each_k_at_the_first_operator() -> None:
    chosen = EvaluationSettings(k=[0.2, 0.5, 1.0], occlusion=["zero", "mean"], curves="each")
    assert chosen.pairs == [("zero", 0.2), ("zero", 0.5), ("zero", 1.0), ("mean", 0.2)]
    every = EvaluationSettings(k=[0.2, 0.5], occlusion=["zero", "mean"])
    assert every.pairs == [("zero", 0.2), ("zero", 0.5), ("mean", 0.2), ("mean", 0.5)]
    _, curves, _ = evaluated(torch.rand(SIZE), target(), k=[0.2, 0.5, 1.0], occlusion=["zero", "mean"], curves="each")
    frame = pd.DataFrame(curves)
    assert len(frame) == 2 * 4 * 3
    found = frame.loc[frame["method"] == "own", ["occlusion", "k"]].drop_duplicates().to_numpy().tolist()
    assert sorted(map(tuple, found)) == sorted(chosen.pairs)


def test_every_image_more_is_counted() -> None:
    methods = [resolve_method(one, {}) for one in ("mask", "random_cells")]

    def passes(**changes: object) -> int:
        return passes_per_sample(methods, EvaluationSettings(**changes), stability=False)  # type: ignore[arg-type]

    plain_passes = 1 + 1 + 2 + 4 * 3  # s, the image, the baseline by graph and model, three for each of 1 + 3 maps
    assert passes() == plain_passes
    assert passes(leakage="detailed") == plain_passes + 4 * 4
    several = {"k": [0.2, 0.5, 1.0], "occlusion": ["zero", "mean"]}
    assert passes(**several) == 1 + 1 + 2 * 2 + 4 * 3 * 4 + 3 * 2, "at k = 1 all maps delete the same"
    assert passes(**several, curves="each") == 1 + 1 + 2 * 2 + 4 * 3 * 3 + 3


def test_maps_share_the_image_in_which_a_whole_region_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def counted(score: Any, build: Any, count: int, batch: BatchSize) -> torch.Tensor:
        counts.append(count)
        return score_images(score, build, count, batch)

    monkeypatch.setattr(interventions, "score_images", counted)
    _, curves, _ = evaluated(torch.rand(SIZE), target(), k=[0.5, 1.0])
    assert counts == [1 + 1 + 4 * 3 + 3, 1], "the last is the baseline by the model itself"
    by_k = pd.DataFrame(curves).groupby(["kind", "k"])["score"].agg(["size", "nunique"])
    assert by_k["size"].tolist() == [2] * 6
    assert by_k.xs(1.0, level="k")["nunique"].tolist() == [1, 1, 1]
    assert by_k.xs(0.5, level="k")["nunique"].tolist() == [2, 2, 2]


def test_unknown_words_are_refused() -> None:
    for key in ("curves", "leakage"):
        with pytest.raises(SettingsError, match=f"evaluation.{key} = 'some': Input should be '(all|plain)' or"):
            make_settings({"model": {"name": "x"}, "evaluation": {key: "some"}})


def gini(values: list[float]) -> float:
    """Mean absolute difference of all pairs over twice the mean."""
    pairs = [abs(a - b) for a in values for b in values]
    return sum(pairs) / len(pairs) / (2 * sum(values) / len(values))


def test_what_a_map_looks_like_by_hand() -> None:
    heatmap = torch.tensor([[1.0, 0.25, 0.0], [0.5, 1.0, 0.25]])
    region = torch.tensor([[True, True, False], [False, False, False]])
    got = map_properties(heatmap, region)
    assert got["energy_inside"] == pytest.approx(1.25 / 3)
    assert got["pointing"] == 0.5, "one of the two maxima"
    assert got["gini"] == pytest.approx(gini(heatmap.flatten().tolist()))


def test_looks_of_extreme_maps() -> None:
    region = torch.zeros(4, 5, dtype=torch.bool)
    region[0] = True
    one = torch.zeros(4, 5)
    one[0, 2] = 1
    assert map_properties(one, region) == {"energy_inside": 1, "pointing": 1, "gini": pytest.approx(1 - 1 / 20)}
    assert map_properties(torch.ones(4, 5), region) == {
        "energy_inside": pytest.approx(0.25),
        "pointing": 0.25,
        "gini": pytest.approx(0),
    }
    nothing = map_properties(torch.zeros(4, 5), region)
    assert nothing["pointing"] == 0.25
    assert isnan(nothing["energy_inside"])
    assert isnan(nothing["gini"])


def test_curves_hold_the_absolute_leakage_of_each_draw() -> None:
    """The records' odd_abs, which for random_cells is a mean over three draws, stands in the curves too."""
    image = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(4))
    chosen = EvaluationSettings(occlusion=["zero", "mean"])
    methods = [resolve_method(one, {}) for one in ("mask", "random_cells")]
    result = evaluate_sample(
        plain(SmallCNN()), "image", image, target(), methods, chosen, seed=0, batch=BatchSize(8), stability=False
    )
    curves = pd.DataFrame(result.curves).set_index(["method", "occlusion", "kind"])
    for record in result.records:
        row = curves.loc[(record["method"], "zero", "off_deletion")]
        assert row["value_abs"] == pytest.approx(record["odd_abs"], rel=1e-12)
        assert row["value"] == pytest.approx(record["odd"], rel=1e-9)
