"""Equation 1 by loops for each score, and the scores that are refused."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rederived import pixel_numbers, score
from segfaith import Target, wrap
from segfaith.errors import SampleError, SampleSkipped, SettingsError
from segfaith.incremental.scoring import scorer_for
from segfaith.scores import Scalar, masked_mean, scalar_of, versus_predicted
from toys import SmallCNN, plain


def blocks(size: tuple[int, int], *boxes: tuple[int, int, int, int]) -> Tensor:
    """Masks (N, H, W), one for each box (top, bottom, left, right)."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (top, bottom, left, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


@pytest.mark.parametrize("classes", [2, 3, 21])
@pytest.mark.parametrize("size", [(5, 7), (12, 4), (1, 1)])
def test_score_is_the_masked_mean(classes: int, size: tuple[int, int], rng: np.random.Generator) -> None:
    logits = rng.normal(0, 4, (3, classes, *size)).astype(np.float32)
    regions = rng.random((3, *size)) < 0.4
    regions[:, 0, 0] = True
    got = masked_mean(torch.from_numpy(logits), torch.from_numpy(regions), Scalar(classes - 1))
    assert got.dtype == torch.float64
    for n in range(3):
        assert got[n].item() == pytest.approx(score(logits[n], regions[n], classes - 1), abs=2e-7)


def test_eps_stands_in_the_denominator() -> None:
    logits = torch.tensor([-200.0, 200.0])[None, :, None, None].expand(1, 2, 2, 3).contiguous()
    one, all_six = torch.zeros(1, 2, 3, dtype=torch.bool), torch.ones(1, 2, 3, dtype=torch.bool)
    one[0, 1, 2] = True
    assert masked_mean(logits, one, Scalar(1)).item() == pytest.approx(1 / 1.000001, rel=1e-12)
    assert masked_mean(logits, all_six, Scalar(1)).item() == pytest.approx(6 / 6.000001, rel=1e-12)
    assert masked_mean(logits, all_six, Scalar(0)).item() == 0.0


def test_sums_are_float64() -> None:
    """The mean of equal probabilities is that probability to 1e-13; torch's float32 sum misses it by 1e-7."""
    logits = torch.tensor([0.3, -0.9, 0.1])[None, :, None, None].expand(1, 3, 211, 301).contiguous()
    one = masked_mean(logits[..., :1, :1], torch.ones(1, 1, 1, dtype=torch.bool), Scalar(1)).item()
    many = masked_mean(logits, torch.ones(1, 211, 301, dtype=torch.bool), Scalar(1)).item()
    probability, count = one * (1 + 1e-6), 211 * 301
    assert many == pytest.approx(probability * count / (count + 1e-6), rel=1e-13)


def test_only_the_region_counts(rng: np.random.Generator) -> None:
    logits = torch.from_numpy(rng.normal(size=(1, 3, 8, 8)).astype(np.float32))
    region = blocks((8, 8), (2, 5, 1, 4))
    region[0, 3, 2] = False  # a hole inside the bounding box
    before = masked_mean(logits, region, Scalar(2)).item()
    elsewhere = logits + 100 * torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * ~region[:, None]
    assert masked_mean(elsewhere, region, Scalar(2)).item() == before


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_scores_of_logits_that_are_not_finite_are_refused(value: float) -> None:
    logits, region = torch.zeros(1, 3, 4, 4), blocks((4, 4), (0, 2, 0, 2))
    logits[0, 1, 1, 1] = value
    with pytest.raises(SampleError, match="logits that are NaN or infinite inside the target region"):
        masked_mean(logits, region, Scalar(1))


def test_class_beyond_the_models_classes_is_refused() -> None:
    with pytest.raises(SampleError, match="class index 3 is not one of the model's 3 classes"):
        masked_mean(torch.zeros(1, 3, 4, 4), torch.ones(1, 4, 4, dtype=torch.bool), Scalar(3))


class OneChannel(nn.Module):
    """The logit of a sigmoid foreground: the red channel, scaled."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x[:, :1] - 1


def test_one_channel_is_a_sigmoid_foreground(rng: np.random.Generator) -> None:
    image = torch.from_numpy(rng.random((1, 3, 4, 5), dtype=np.float32))
    region = torch.from_numpy(rng.random((1, 4, 5)) < 0.5)
    got = masked_mean(plain(OneChannel()).logits(image), region, Scalar(1)).item()
    red = image[0, 0].double().numpy()[region[0].numpy()]
    assert got == pytest.approx(float((1 / (1 + np.exp(1 - 3 * red))).sum() / (red.size + 1e-6)), abs=1e-7)


# Scores other than the probability

SOFTMAX = [("probability", None), ("logit", None), ("log_odds", None), ("margin", None), ("margin", 0)]
SOFTMAX += [("conditional", None), ("conditional", 3)]
SCALARS = [Scalar(2, kind, versus) for kind, versus in SOFTMAX]
SCALARS += [Scalar(1, kind, None, independent=True) for kind in ("probability", "logit", "log_odds")]


@pytest.mark.parametrize("scalar", SCALARS, ids=str)
def test_each_score_is_the_masked_mean_of_its_number(scalar: Scalar, rng: np.random.Generator) -> None:
    logits = rng.normal(0, 4, (3, 5, 6, 7)).astype(np.float32)
    regions = rng.random((3, 6, 7)) < 0.4
    got = masked_mean(torch.from_numpy(logits), torch.from_numpy(regions), scalar)
    for n in range(3):
        inside = logits[n][:, regions[n]]
        numbers = pixel_numbers(inside, scalar.class_index, scalar.kind, scalar.versus, scalar.independent)
        assert got[n].item() == pytest.approx(sum(numbers) / (len(numbers) + 1e-6), rel=2e-6, abs=2e-6)
    kept, same = scalar.of(torch.from_numpy(logits), 1), scalar.of(torch.from_numpy(logits).movedim(1, -1), 3)
    assert kept.shape == (3, 6, 7)
    torch.testing.assert_close(kept, same, rtol=0, atol=1e-6)  # whatever the axis of the classes


def test_of_two_classes_log_odds_and_margin_are_one_number(rng: np.random.Generator) -> None:
    logits = torch.from_numpy(rng.normal(0, 4, (2, 2, 5, 5)).astype(np.float32))
    for c in (0, 1):
        difference = logits[:, c] - logits[:, 1 - c]
        for scalar in (Scalar(c, "log_odds"), Scalar(c, "margin"), Scalar(c, "margin", 1 - c)):
            torch.testing.assert_close(scalar.of(logits, 1), difference, rtol=0, atol=0)


def test_log_odds_stay_finite_where_the_probability_is_0_or_1() -> None:
    logits = torch.tensor([[[[300.0]], [[-300.0]], [[0.0]]]])
    for c, expected in ((0, 300.0), (1, -600.0), (2, -300.0)):
        assert Scalar(c, "log_odds").of(logits, 1).item() == expected
        assert Scalar(c).of(logits, 1).item() == (1.0 if c == 0 else 0.0), "what it is the log odds of"


@pytest.mark.parametrize("c", [0, 1])
def test_of_one_channel_the_conditional_is_the_probability(c: int) -> None:
    model, image = plain(nn.Conv2d(3, 1, 1)), torch.rand(1, 3, 6, 5)
    z = model.module(image).detach()[0, 0]
    expected = z.sigmoid() if c else 1 - z.sigmoid()
    for versus in (None, 1 - c):
        target = Target(c, torch.ones(6, 5, dtype=torch.bool), "conditional", versus)
        scalar = scalar_of_run(model, target, image)
        torch.testing.assert_close(scalar.of(model.logits(image).detach(), 1)[0], expected, rtol=0, atol=1e-6)


def test_the_conditional_is_the_probability_of_the_class_among_two(rng: np.random.Generator) -> None:
    logits = torch.from_numpy(rng.normal(0, 4, (2, 5, 6, 7)).astype(np.float32))
    p, conditional = logits.softmax(1), Scalar(3, "conditional", 1).of(logits, 1)
    torch.testing.assert_close(conditional, p[:, 3] / (p[:, 3] + p[:, 1]), rtol=1e-5, atol=1e-6)
    others = logits.clone()
    others[:, [0, 2, 4]] += 9  # what else the pixel may be changes the probability alone
    torch.testing.assert_close(Scalar(3, "conditional", 1).of(others, 1), conditional, rtol=0, atol=0)
    assert float((others.softmax(1)[:, 3] - p[:, 3]).abs().max()) > 0.1
    low = torch.tensor([[[[-900.0]], [[-901.0]], [[300.0]]]])  # both probabilities are 0 in float32
    assert Scalar(0, "conditional", 1).of(low, 1).item() == pytest.approx(1 / (1 + np.exp(-1)))


@pytest.mark.parametrize(("c", "sign"), [(1, 1), (0, -1)])
@pytest.mark.parametrize("kind", ["logit", "log_odds", "margin"])
def test_of_one_channel_every_other_score_is_z_or_its_negative(kind: str, c: int, sign: int) -> None:
    model, image = plain(nn.Conv2d(3, 1, 1)), torch.rand(1, 3, 6, 5)
    z = model.module(image).detach()[0, 0]
    region = torch.ones(6, 5, dtype=torch.bool)
    scalar = scalar_of_run(model, Target(c, region, kind), image)  # type: ignore[arg-type]
    torch.testing.assert_close(scalar.of(model.logits(image).detach(), 1)[0], sign * z, rtol=0, atol=1e-6)


def scalar_of_run(model, target: Target, image: Tensor) -> Scalar:
    """The scalar of a model that has run before, as it must have."""
    model.logits(image)
    return scalar_of(model, target)


def test_a_head_of_overlapping_classes_gives_independent_scores_and_predictions() -> None:
    model, image = wrap(nn.Conv2d(3, 4, 1), head="sigmoid"), torch.rand(1, 3, 6, 5)
    region = torch.ones(6, 5, dtype=torch.bool)
    scalar = scalar_of_run(model, Target(2, region), image)
    logits = model.logits(image).detach()
    assert scalar == Scalar(2, independent=True)
    torch.testing.assert_close(scalar.of(logits, 1), logits[:, 2].sigmoid())
    assert torch.equal(scalar.predicted(logits, 1), logits[:, 2] > 0)
    assert torch.equal(Scalar(2).predicted(logits, 1), logits.argmax(1) == 2)
    assert scalar_of_run(wrap(nn.Conv2d(3, 1, 1), head="sigmoid"), Target(1, region), image) == Scalar(1)


@pytest.mark.parametrize("score", ["margin", "conditional"])
def test_a_comparison_of_classes_that_do_not_compete_is_refused(score: str) -> None:
    model, region = wrap(nn.Conv2d(3, 4, 1), head="sigmoid", name="lesions"), torch.ones(6, 5, dtype=torch.bool)
    for versus in (None, 1):
        words = f"'{score}' compares classes, but the classes of lesions have a sigmoid each and do not compete; use"
        with pytest.raises(SettingsError, match=words):
            scalar_of_run(model, Target(2, region, score, versus), torch.rand(1, 3, 6, 5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("score", "versus", "message"),
    [
        ("logit", 2, "versus = 2 with score = 'logit' of class 1: expected another class, and score = 'cond"),
        ("conditional", 1, "versus = 1 with score = 'conditional' of class 1: expected another class"),
        ("probability", 0, "versus = 0 with score = 'probability'"),
        ("margin", 1, "versus = 1 with score = 'margin' of class 1: expected another class"),
        ("margin", -2, "versus = -2 with score = 'margin' of class 1: expected another class"),
    ],
)
def test_a_target_of_a_score_that_is_none_is_refused(score: str, versus: int | None, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Target(1, torch.ones(2, 2, dtype=torch.bool), score, versus)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "scalar",
    [Scalar(3), Scalar(3, "logit"), Scalar(3, "margin"), Scalar(1, "margin", 3), Scalar(1, "conditional", 3)],
    ids=str,
)
def test_a_class_that_the_model_does_not_have_is_refused(scalar: Scalar) -> None:
    image, region = torch.rand(3, 14, 14), blocks((14, 14), (3, 9, 4, 12))
    with pytest.raises(SampleError, match="class index 3 is not one of the model's 3 classes"):
        masked_mean(torch.zeros(1, 3, 14, 14), region, scalar)
    for incremental in (True, False):
        model = plain(SmallCNN())
        model.incremental = incremental
        with pytest.raises(SampleError, match="class index 3 is not one of the model's 3 classes"):
            scorer_for(model, image, region[0], scalar).score(image[None])


@pytest.mark.parametrize("scalar", SCALARS, ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_of_the_class_that_are_not_finite_give_no_other_score(scalar: Scalar, value: float) -> None:
    logits, region = torch.zeros(1, 5, 4, 4), blocks((4, 4), (0, 2, 0, 2))
    logits[0, scalar.class_index, 1, 1] = value
    if scalar.kind == "probability" and scalar.independent and value != value:
        assert np.isnan(scalar.of(logits, 1)[0, 1, 1].item())
    if scalar.kind in ("probability", "conditional") and abs(value) == torch.inf:
        return  # a sigmoid of infinity is a number; the passes refuse such logits before
    with pytest.raises(SampleError, match="logits that are NaN or infinite inside the target region"):
        masked_mean(logits, region, scalar)


def test_an_unknown_score_is_refused() -> None:
    target = Target(1, torch.ones(2, 2, dtype=torch.bool))
    object.__setattr__(target, "score", "odds")  # as where no types are checked
    with pytest.raises(SettingsError, match="score = 'odds': expected probability, conditional, logit, log_odds, ma"):
        target.__post_init__()


def test_the_margin_to_the_class_that_is_predicted_instead() -> None:
    region = blocks((4, 4), (0, 2, 0, 3))[0]
    predicted = torch.tensor([[3, 3, 1, 1], [3, 0, 3, 1], [1, 1, 1, 1], [1, 1, 1, 1]])
    missed = versus_predicted(Target(1, region), predicted)
    assert (missed.class_index, missed.score, missed.versus) == (1, "margin", 3)
    assert missed.region is region
    for asked_for, kept in (("logit", "margin"), ("conditional", "conditional")):
        asked = versus_predicted(Target(1, region, asked_for), predicted)  # type: ignore[arg-type]
        assert (asked.score, asked.versus) == (kept, 3)
    with pytest.raises(SampleSkipped, match="the model predicts class 3 on most pixels of the target, so the target"):
        versus_predicted(Target(3, region), predicted)
