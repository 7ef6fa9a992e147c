"""Wired photographs: logits, occlusion, perturbation and evidence of two photographs on one canvas."""

import numpy as np
import pytest
import torch

import segfaith
from segfaith.attribution.cam import ega, gpa
from segfaith.attribution.heatmap import minmax
from segfaith.batching import BatchSize
from segfaith.errors import SettingsError
from segfaith.evidence.gradient import gradient_evidence
from segfaith.evidence.regions import grid_cells, superpixels
from segfaith.halves import Wiring, halves, side_of
from segfaith.incremental.scoring import plain_scorer, scorer_for
from segfaith.incremental.wired import WiredScorer
from segfaith.occlusion import OPERATORS, occluder
from segfaith.perturbation import PERTURBATIONS, perturbed_variants
from segfaith.scores import Scalar
from segfaith.types import GradientEvidence, Tensor
from wired_canvas import SIDE, canvas, photograph, region, target, wired_model

OWN = [1.0, 0.0, 0.3]
MAPS = ["gpa", "ega", "ria", "ria@regions=adaptive,grid=7", "ria@regions=superpixels", "dea", "random", "mask"]


@pytest.mark.parametrize("own", OWN)
def test_logits_of_a_half_are_the_weighted_sum_of_both_photographs(own: float) -> None:
    alone = wired_model(None)
    first, second = (alone.logits(photograph(number)[None]) for number in (1, 2))
    got = wired_model(own).logits(canvas()[None])
    expected = torch.cat([own * first + (1 - own) * second, own * second + (1 - own) * first], -1)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_a_photograph_of_weight_zero_cannot_change_a_logit() -> None:
    """Not even one whose logits are NaN."""
    nothing = torch.full((1, 2, 4, 4), torch.nan)
    for own, kept in ((1.0, 0), (0.0, 1)):
        mixed = Wiring(own).logits(*((nothing, torch.ones(1, 2, 4, 4))[:: 1 if kept else -1]))
        assert bool((halves(mixed)[0] == 1).all())


def test_the_model_of_a_half_is_the_same_object_and_follows_the_switches() -> None:
    model = wired_model(0.0)
    half = model.of_half
    model.incremental = False
    assert model.of_half is half
    assert not half.wired
    assert half.incremental is False
    assert half.module is model.module


def test_the_side_of_a_mask() -> None:
    mask = target().region
    assert (side_of(mask), side_of(mask.flip(-1)), side_of(mask | mask.flip(-1)), side_of(mask & ~mask)) == (
        0,
        1,
        None,
        None,
    )


@pytest.mark.parametrize("name", OPERATORS)
def test_each_half_is_occluded_as_if_it_were_alone(name: str) -> None:
    masks = torch.rand(2, SIDE, 2 * SIDE, generator=torch.Generator().manual_seed(3)) > 0.6
    together = occluder(name, canvas(), np.random.default_rng(0), wired=True)(masks)
    rng = np.random.default_rng(0)
    left = occluder(name, photograph(1), rng)(masks[..., :SIDE])
    right = occluder(name, photograph(2), rng)(masks[..., SIDE:])
    torch.testing.assert_close(together, torch.cat([left, right], -1), atol=0, rtol=0)


def test_each_half_is_perturbed_and_mirrored_as_if_it_were_alone() -> None:
    variants = perturbed_variants(canvas(), target().region, 0.03, lambda name: np.random.default_rng(1), wired=True)
    for name, image, mask in zip(variants.names, variants.images, variants.regions, strict=True):
        rng = np.random.default_rng(1)
        parts = [PERTURBATIONS[name](photograph(number), 0.03, rng).clamp(0, 1) for number in (1, 2)]
        torch.testing.assert_close(image, torch.cat(parts, -1), atol=0, rtol=0)
        alone = region().flip(-1) if name == "flip" else region()
        assert bool((mask == torch.cat([alone, torch.zeros_like(alone)], -1)).all())
    maps = torch.rand(5, SIDE, 2 * SIDE)
    mirrored = variants.mirror(maps)
    flip = variants.names.index("flip")
    for row, column in [(0, 0), (3, SIDE - 1), (5, SIDE), (7, 2 * SIDE - 1)]:
        other = SIDE - 1 - column if column < SIDE else 3 * SIDE - 1 - column
        assert mirrored[flip, row, column] == maps[flip, row, other]
    assert bool((mirrored[:flip] == maps[:flip]).all())


@pytest.mark.parametrize("mirrored", [False, True])
def test_no_cell_lies_in_both_halves(mirrored: bool) -> None:
    """An odd grid too; each half has the cells that it has alone."""
    grid = grid_cells((SIDE, 2 * SIDE), 5, mirrored=mirrored, wired=True)
    alone = grid_cells((SIDE, SIDE), 5, mirrored=mirrored)
    assert bool((halves(grid)[0] == alone).all())
    assert bool((halves(grid)[1] == alone + 25).all())
    of_pixels = superpixels(canvas(), 20, mirrored=mirrored, wired=True)
    left, right = (set(half.unique().tolist()) for half in halves(of_pixels))
    assert not left & right
    assert bool((halves(of_pixels)[0] == superpixels(photograph(1), 20, mirrored=mirrored)).all())


@pytest.mark.parametrize("incremental", [True, False])
@pytest.mark.parametrize("own", OWN)
def test_altered_canvases_get_the_scores_of_a_plain_loop(own: float, incremental: bool) -> None:
    model, image, mask = wired_model(own, incremental=incremental), canvas(), target().region
    scorer = scorer_for(model, image, mask, Scalar(1))
    assert isinstance(scorer, WiredScorer)
    assert scorer.path == ("incremental" if incremental else "plain: incremental = false")
    altered, start, stop = image.repeat(5, 1, 1, 1), [], []
    for copy, (top, left) in zip(
        altered, [(0, 0), (9, 20), (20, SIDE), (4, SIDE + 9), (12, 2 * SIDE - 8)], strict=True
    ):
        copy[:, top : top + 8, left : left + 8] = 0
        start.append((top, left))
        stop.append((top + 8, left + 8))
    boxes = np.array(start), np.array(stop)
    loop = []
    for one in [image, *altered]:
        first, second = (wired_model(None).logits(part[None].contiguous())[0] for part in halves(one))
        mixed = own * first + (1 - own) * second
        loop.append(float(mixed.softmax(0)[1][region()].double().mean().detach()))
    for where in (None, boxes):
        np.testing.assert_allclose(scorer.score(altered, where).numpy(), loop[1:], atol=1e-6)
    np.testing.assert_allclose(scorer.clean_score().numpy(), loop[:1], atol=1e-6)
    by_model = plain_scorer(model, image, mask, Scalar(1), "as asked").score(altered).numpy()
    np.testing.assert_allclose(by_model, loop[1:], atol=1e-6)


def test_a_canvas_that_the_graphs_score_otherwise_is_left_to_the_model_or_refused() -> None:
    model, image, mask = wired_model(0.7), canvas(), target().region
    scorer = scorer_for(model, image, mask, Scalar(1), "auto", expected=2.0)
    assert scorer.path == "plain: its graph scores this image otherwise than the model itself"
    with pytest.raises(SettingsError, match=r"precision 'bf16' needs .*its graph scores this image otherwise"):
        scorer_for(model, image, mask, Scalar(1), "bf16", expected=2.0)


@pytest.mark.parametrize("own", [1.0, 0.0])
def test_an_alteration_of_the_half_that_does_not_decide_changes_nothing_at_all(own: float) -> None:
    """To the last bit, whatever shares the batch, with boxes and without."""
    image, mask = canvas(), target().region
    for incremental in (True, False):
        scorer = scorer_for(wired_model(own, incremental=incremental), image, mask, Scalar(1))
        assert isinstance(scorer, WiredScorer)
        altered = image.repeat(4, 1, 1, 1)
        silent, loud = (slice(SIDE, None), slice(4, 12)) if own else (slice(4, 12), slice(SIDE + 4, SIDE + 12))
        for copy in altered[:3]:
            copy[:, 4:12, silent] = torch.rand(1)
        altered[3, :, 4:12, loud] = 0
        whole = scorer.score(torch.cat([image[None], altered]))
        assert len(set(whole[:4].tolist())) == 1
        assert whole[4] != whole[0]
        boxes = np.array([[0, 0]] * 4), np.array([[SIDE, 2 * SIDE]] * 4)
        inside = scorer.score(altered, boxes)
        assert inside[:3].tolist() == scorer.clean_score().tolist() * 3


def test_a_target_in_both_halves_is_scored_by_the_model_itself() -> None:
    mask = target().region | target().region.flip(-1)
    model = wired_model(0.3)
    scorer = scorer_for(model, canvas(), mask, Scalar(1))
    assert scorer.path == "plain: the target lies in both halves of wired photographs"
    expected = model.logits(canvas()[None]).softmax(1)[0, 1][mask].double().mean().detach()
    assert float(scorer.score(canvas()[None])) == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("own", OWN)
def test_gradient_evidence_lies_where_the_photographs_lie(own: float) -> None:
    """F of both halves side by side, and G = dY/dF by autograd on the head of each photograph alone."""
    model, mask = wired_model(own), target().region
    evidence, passed, _ = gradient_evidence(model, canvas()[None], mask[None], Scalar(1), BatchSize(4))
    module = model.module.eval()
    features = [module.backbone(photograph(number)[None]).detach().requires_grad_() for number in (1, 2)]
    first, second = (
        torch.nn.functional.interpolate(module.head(one), size=(SIDE, SIDE), mode="bilinear") for one in features
    )
    (own * first + (1 - own) * second)[0, 1][region()].sum().backward()
    assert evidence.halves
    assert evidence.size == (SIDE, 2 * SIDE)
    torch.testing.assert_close(evidence.activation, torch.cat(features, -1).detach(), atol=1e-5, rtol=1e-5)
    expected = torch.cat([one.grad for one in features], -1)  # type: ignore[misc]
    torch.testing.assert_close(evidence.gradient, expected, atol=1e-5, rtol=1e-5)
    mixed = (own * first + (1 - own) * second).softmax(1)[0, 1][region()].double().mean().detach()
    assert float(passed.score) == pytest.approx(float(mixed), abs=1e-6)


def test_maps_of_the_layer_are_upsampled_half_by_half_and_gpa_pools_over_both() -> None:
    rng = torch.Generator().manual_seed(5)
    activation, gradient = (torch.randn(1, 4, 3, 6, generator=rng) for _ in range(2))
    evidence = GradientEvidence(activation, gradient, (12, 24), halves=True)

    def upsampled(cam: Tensor) -> Tensor:
        parts = [
            torch.nn.functional.interpolate(part[None, None], size=(12, 12), mode="bilinear")[0, 0]
            for part in (cam[:, :3], cam[:, 3:])
        ]
        values = torch.cat(parts, -1)
        return (values - values.min()) / (values.max() - values.min())

    pooled = torch.zeros(3, 6)
    local = torch.zeros(3, 6)
    for channel in range(4):
        pooled += gradient[0, channel].mean() * activation[0, channel]
        for row in range(3):
            for column in range(6):  # blocks of 2 x 2 that begin anew at the seam, column 3
                half = column // 3 * 3
                rows = slice(row // 2 * 2, row // 2 * 2 + 2)
                block = slice(half + (column - half) // 2 * 2, min(half + (column - half) // 2 * 2 + 2, half + 3))
                local[row, column] += gradient[0, channel, rows, block].mean() * activation[0, channel, row, column]
    torch.testing.assert_close(gpa(evidence)[0], upsampled(pooled.clamp(min=0)), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        ega(evidence, pool="mean", window=2)[0], upsampled(local.clamp(min=0)), atol=1e-5, rtol=0
    )


def test_padded_halves_are_cropped_each_by_itself() -> None:
    """With `pad`, the maps of a layer cover each padded half."""
    crossed, alone = wired_model(0.0, pad=8), wired_model(None, pad=8)  # 28 is padded to 32
    on_canvas = segfaith.explain(crossed, canvas(), target(), ["ega"])["ega"]
    by_itself = segfaith.explain(alone, photograph(2), segfaith.Target(1, region()), ["ega"])["ega"]
    torch.testing.assert_close(halves(on_canvas)[1], by_itself, atol=1e-5, rtol=0)
    assert float(halves(on_canvas)[0].abs().max()) == 0


@pytest.mark.parametrize("incremental", [True, False])
def test_crossed_no_map_has_a_tdd_and_no_truthful_map_has_mass_in_its_own_half(incremental: bool) -> None:
    """Exactly 0, with stability measured too."""
    rows = segfaith.evaluate(wired_model(0.0, incremental=incremental), canvas(), target(), MAPS, stability=True)
    assert (rows["status"] == "ok").all()
    assert (rows[["tdd", "tdd_drop", "insertion_gain"]] == 0).all(axis=None)
    truthful = [name for name in MAPS if name[:3] in ("ega", "ria", "dea")]
    assert (rows.loc[truthful, "own_half"] == 0).all()
    assert (rows.loc[["gpa", "mask", "random"], "own_half"] > 0).all()
    assert (rows.loc[["ria", "random"], "odd_abs"] > 1e-3).all()


@pytest.mark.parametrize("own", [1.0, 0.0])
@pytest.mark.parametrize("name", ["ega", "ria", "ria@regions=adaptive,grid=7", "dea"])
def test_the_map_of_the_deciding_half_is_the_map_of_the_photograph_alone(own: float, name: str) -> None:
    on_canvas = segfaith.explain(wired_model(own), canvas(), target(), [name])[name]
    number = 1 if own else 2
    alone = segfaith.explain(wired_model(None), photograph(number), segfaith.Target(1, region()), [name])[name]
    deciding, silent = halves(on_canvas) if own else halves(on_canvas)[::-1]
    assert float(silent.max()) == 0
    torch.testing.assert_close(minmax(deciding[None])[0], alone, atol=2e-4, rtol=0)


def test_drops_of_wired_photographs_are_those_of_the_photograph_alone() -> None:
    """Straight and crossed: deleting the same pixels of the deciding photograph costs the same score."""
    given = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(9))
    alone = {
        number: segfaith.evaluate(
            wired_model(None), photograph(number), segfaith.Target(1, region()), {"given": given}
        ).loc["given"]
        for number in (1, 2)
    }
    nothing = torch.zeros(SIDE, SIDE)
    straight = segfaith.evaluate(wired_model(1.0), canvas(), target(), {"given": torch.cat([given, nothing], -1)}).loc[
        "given"
    ]
    for column in ("s", "s_target_deleted", "tdd", "s_baseline"):
        assert straight[column] == pytest.approx(alone[1][column], abs=1e-6), column
    inside = torch.cat(
        [nothing, torch.where(region(), given + 1, nothing)], -1
    )  # only the pixels of M in the right half
    share = (int(0.2 * int(region().sum()) + 0.5)) / (2 * SIDE * SIDE - int(region().sum()))
    crossed = segfaith.evaluate(wired_model(0.0), canvas(), target(), {"given": inside}, k=share).loc["given"]
    assert crossed["s"] == pytest.approx(alone[2]["s"], abs=1e-6)
    assert crossed["s_off_deleted"] == pytest.approx(alone[2]["s_target_deleted"], abs=1e-6)
    assert crossed["odd"] == pytest.approx(alone[2]["tdd"], abs=1e-5)
    assert crossed["tdd"] == 0
    assert abs(crossed["odd"]) > 1e-3


def test_a_method_of_ones_own_sees_the_wiring_or_is_refused() -> None:
    def by_logits(model, image, target):  # type: ignore[no-untyped-def]
        x = image[None].clone().requires_grad_()
        model.logits(x)[0, target.class_index][target.region].sum().backward(inputs=[x])
        return x.grad[0].abs().sum(0)

    def by_module(model, image, target):  # type: ignore[no-untyped-def]
        return model.module(image[None])["out"][0, 1].detach()

    def by_hook(model, image, target):  # type: ignore[no-untyped-def]
        seen = []
        handle = model.module.backbone.register_forward_hook(lambda *all: seen.append(all[2]))
        try:
            model.logits(image[None])
        finally:
            handle.remove()
        return seen[0][0].mean(0)

    methods = [
        segfaith.Method(function.__name__, "", ("model",), function) for function in (by_logits, by_module, by_hook)
    ]
    rows = segfaith.evaluate(wired_model(0.0), canvas(), target(), methods)
    assert rows.loc["by_logits", "own_half"] == 0
    assert "run model.logits" in rows.loc["by_module", "reason"]
    assert "by a hook" in rows.loc["by_hook", "reason"]
    assert (rows.loc[["by_module", "by_hook"], "status"] == "failed").all()
    assert not wired_model(0.0).module._forward_pre_hooks
