"""The altered images of a sample, by single passes: detailed leakage, bands of distance, shared images."""

from math import isnan
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import segfaith
from segfaith.attribution.methods import resolve_method
from segfaith.batching import BatchSize, score_images
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.worker import evaluate_sample
from segfaith.evaluation import intervention_scores
from segfaith.evaluation.ranking import tie_ranks, top_count
from segfaith.evaluation.subject import Subject
from segfaith.randomness import generator
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
    subject = Subject(plain(SmallCNN()), "image", image, where, 0, BatchSize(8))
    methods = [resolve_method(method, {}) for method in (own, "random_cells")]
    settings = EvaluationSettings(**changes)  # type: ignore[arg-type]
    result = evaluate_sample(subject, methods, settings, stability=False)
    return pd.Series(result.records[0]), result.curves, image


def distances(region: np.ndarray) -> np.ndarray:
    """Each pixel's distance to the nearest of the region, in pixels."""
    inside = np.argwhere(region)
    every = np.argwhere(np.ones_like(region))
    return np.sqrt(((every[:, None] - inside[None]) ** 2).sum(2).min(1)).reshape(region.shape)


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
    distance = distances(where.region.numpy()).ravel()[top]
    sets = {
        "fair": order[: top_count(0.2, int(where.region.sum()))],
        "near": top[distance <= 4],  # 16 px at a height of 224
        "middle": top[(distance > 4) & (distance <= 12)],
        "far": top[distance > 12],
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
    near = distances(where.region.numpy()) <= 4
    row, _, _ = evaluated(torch.from_numpy(near & ~where.region.numpy()).float(), where, leakage="detailed", k=0.02)
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


def test_maps_share_the_image_in_which_a_whole_region_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def counted(score: Any, build: Any, count: int, batch: BatchSize, **more: Any) -> torch.Tensor:
        counts.append(count)
        return score_images(score, build, count, batch, **more)

    monkeypatch.setattr(intervention_scores, "score_images", counted)
    _, curves, _ = evaluated(torch.rand(SIZE), target(), k=[0.5, 1.0], whole=False, fidelity=0)
    fair = 4  # at the first k alone
    assert counts == [1 + 1 + 4 * 3 + 3 + fair, 1], "the last is the baseline by the model itself"
    by_k = pd.DataFrame(curves).groupby(["kind", "k"])["score"].agg(["size", "nunique"])
    assert by_k["size"].tolist() == [2] * 6
    assert by_k.xs(1.0, level="k")["nunique"].tolist() == [1, 1, 1]
    assert by_k.xs(0.5, level="k")["nunique"].tolist() == [2, 2, 2]
