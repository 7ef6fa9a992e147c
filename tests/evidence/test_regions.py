"""Adaptive regions and superpixels: partitions, budgets, where cells are refined, and what maps and controls read."""

import sys
from math import floor

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import segfaith
import zoo
from folder_runs import prepared_scenes
from rederived import cells, minmax, score
from segfaith.attribution.explain import gather, heatmaps, sample_rng
from segfaith.attribution.methods import resolve_method
from segfaith.batching import BatchSize
from segfaith.errors import SettingsError
from segfaith.evidence.gradient import forward_pass
from segfaith.evidence.intervention import bounding_boxes, intervention_evidence
from segfaith.evidence.regions import Refine, Regions, superpixels
from segfaith.models.segmentation import SegmentationModel
from segfaith.perturbation import Variants, clean_variant
from segfaith.scores import Scalar
from segfaith.types import InterventionEvidence, Target
from segmenters import Symmetric
from toys import PixelScorer, SmallCNN, plain

SIZE = (56, 84)
SPOT = (slice(33, 37), slice(50, 55))
"""Where the planted pixels lie: bright on grey, seen pixel by pixel."""


def photograph(size: tuple[int, int], seed: int = 2) -> Tensor:
    """Colours that change slowly, and a little noise, so that superpixels have something to follow."""
    rng = np.random.default_rng(seed)
    slow = F.interpolate(torch.from_numpy(rng.random((1, 3, 4, 5))), size=size, mode="bicubic")[0]
    return (slow + 0.05 * torch.from_numpy(rng.random((3, *size)))).clamp(0, 1).float()


def planted() -> tuple[Tensor, Tensor]:
    """A grey image with one bright spot, and a target around it."""
    image, region = torch.full((3, *SIZE), 0.3), torch.zeros(SIZE, dtype=torch.bool)
    image[:, SPOT[0], SPOT[1]] = 1.0
    region[20:50, 30:70] = True
    return image, region


def drops_of(
    model: SegmentationModel,
    variants: Variants,
    regions: Regions,
    guide: Tensor | None = None,
    class_index: int = 1,
    batch: int = 16,
) -> InterventionEvidence:
    passed = forward_pass(model, variants.images, variants.regions, Scalar(class_index), BatchSize(batch))
    return intervention_evidence(
        model,
        variants,
        regions,
        passed.score,
        Scalar(class_index),
        BatchSize(batch),
        rng=lambda: np.random.default_rng(0),
        guide=guide,
    )


def rectangles(partition: Tensor) -> list[tuple[int, int, int, int]]:
    """Top, left, bottom, right of each label; checks that labels are 0 to R - 1 and that each fills its rectangle."""
    labels = partition.unique().tolist()
    assert labels == list(range(len(labels)))
    found = []
    for label in labels:
        rows, columns = torch.nonzero(partition == label).unbind(1)
        top, left, bottom, right = int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1
        assert len(rows) == (bottom - top) * (right - left)
        found.append((top, left, bottom, right))
    return found


def single_drop(model: SegmentationModel, image: Tensor, region: Tensor, chosen: Tensor) -> float:
    """One region's drop under mean occlusion, pass by pass and in loops."""
    mean = image.double().mean((1, 2), keepdim=True).float()
    with torch.no_grad():
        whole, without = model.logits(torch.stack([image, torch.where(chosen, mean, image)])).numpy()
    return score(whole, region.numpy(), 1) - score(without, region.numpy(), 1)


# Adaptive


@pytest.mark.parametrize("passes", [49, 56, 80, 100])
@pytest.mark.parametrize("refine", ["drop", "boundary", "gradient"])
def test_adaptive_cells_cover_the_image_within_the_budget(
    passes: int, refine: Refine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """49 cells of 8 x 12 pixels first, none below 2 x 3: half of what a 14 x 14 grid has a side."""
    image, region = planted()
    model = plain(PixelScorer())
    model.incremental = False
    seen = [0]
    forward = PixelScorer.forward

    def counting(self: PixelScorer, x: Tensor) -> Tensor:
        seen[0] += len(x)
        return forward(self, x)

    monkeypatch.setattr(PixelScorer, "forward", counting)
    guide = torch.rand(1, *SIZE, generator=torch.Generator().manual_seed(0))
    asked = Regions(kind="adaptive", passes=passes, refine=refine)
    got = drops_of(model, clean_variant(image, region), asked, guide)
    occluded = seen[0] - 1  # the clean image
    assert 49 <= occluded <= passes
    boxes = rectangles(got.regions[0])
    assert len(boxes) == got.drop.shape[1] == got.value.shape[1]
    assert occluded == 49 + (len(boxes) - 49) // 3 * 4, "a cut cell is measured once, and each of its four parts"
    if passes >= 56:
        assert len(boxes) > 49
    sizes = {(bottom - top, right - left) for top, left, bottom, right in boxes}
    assert sizes <= {(8, 12), (4, 6), (2, 3)}
    if passes >= 80 and refine == "drop":
        assert sizes == {(8, 12), (4, 6), (2, 3)}


def test_adaptive_drops_are_those_of_single_passes() -> None:
    image = torch.from_numpy(np.random.default_rng(3).random((3, 30, 38), dtype=np.float32))
    region = torch.zeros(30, 38, dtype=torch.bool)
    region[5:22, 9:30] = True
    model = plain(SmallCNN())
    got = drops_of(model, clean_variant(image, region), Regions(6, kind="adaptive", passes=30))
    assert got.drop.abs().max() > 1e-3
    assert got.drop.shape[1] > 9
    for label in range(got.drop.shape[1]):
        expected = single_drop(model, image, region, got.regions[0] == label)
        assert float(got.drop[0, label]) == pytest.approx(expected, abs=2e-6)


def test_cells_are_refined_where_the_score_drops() -> None:
    """The smallest cells hold the whole spot; its drop lands nowhere else."""
    image, region = planted()
    got = drops_of(plain(PixelScorer()), clean_variant(image, region), Regions(kind="adaptive", passes=100))
    boxes = rectangles(got.regions[0])
    spot = got.regions[0][SPOT].unique().tolist()
    assert {(boxes[label][2] - boxes[label][0], boxes[label][3] - boxes[label][1]) for label in spot} == {(2, 3)}
    outside = torch.ones(got.drop.shape[1], dtype=torch.bool)
    outside[spot] = False
    assert float(got.value[0, spot].min()) > 10 * float(got.value[0, outside].max())


@pytest.mark.parametrize("passes", [56, 80, 145])
def test_refinement_keeps_the_total_and_ranks_parts_by_their_drops(passes: int) -> None:
    """Value times area sums to what the first cells have; of a cut cell the mean over its four parts is its value."""
    image = torch.from_numpy(np.random.default_rng(5).random((3, *SIZE), dtype=np.float32))
    region = planted()[1]
    model = plain(SmallCNN())
    variants = clean_variant(image, region)
    first = drops_of(model, variants, Regions(7))  # what the first cells of grid 14 are
    assert torch.equal(first.regions[0], torch.from_numpy(cells(SIZE, 7)))
    got = drops_of(model, variants, Regions(kind="adaptive", passes=passes))
    area = torch.bincount(got.regions[0].flatten())
    total = float((got.value[0] * area).sum())
    assert total == pytest.approx(float(first.drop[0].clamp(min=0).sum()) * 8 * 12, rel=1e-5)
    assert total > 0
    assert float(got.value.min()) >= 0
    painted = got.value[0][got.regions[0]]
    for cell in range(49):
        inside = first.regions[0] == cell
        value = max(float(first.drop[0, cell]), 0.0)
        assert float(painted[inside].mean()) == pytest.approx(value, abs=1e-6 + 1e-5 * value)
        labels = got.regions[0][inside].unique()
        if len(labels) == 4:  # cut once
            drops = got.drop[0, labels].clamp(min=0)
            expected = value * drops / drops.mean() if drops.max() > 0 else torch.full((4,), value).double()
            torch.testing.assert_close(got.value[0, labels], expected, rtol=1e-4, atol=1e-9)
        elif len(labels) == 1:
            assert float(got.value[0, labels[0]]) == pytest.approx(value, abs=1e-6)


def test_the_boundary_chooses_the_cells_that_it_crosses() -> None:
    image, region = planted()
    got = drops_of(
        plain(PixelScorer()), clean_variant(image, region), Regions(kind="adaptive", passes=80, refine="boundary")
    )
    coarse = torch.from_numpy(cells(SIZE, 7))
    cut = [cell for cell in range(49) if len(got.regions[0][coarse == cell].unique()) > 1]
    assert len(cut) >= 3
    for cell in cut:
        assert 0 < int(region[coarse == cell].sum()) < 96, "the target's boundary runs through it"


def test_the_gradient_chooses_the_cells_that_hold_most_of_it() -> None:
    image, region = planted()
    guide = torch.zeros(1, *SIZE)
    guide[0, 0:8, 72:84] = 1.0  # far from the target: by their drops these would come last
    guide[0, 48:56, 0:12] = 2.0
    asked = Regions(kind="adaptive", passes=65, refine="gradient")  # 16 left: two cells, then two of their parts
    got = drops_of(plain(PixelScorer()), clean_variant(image, region), asked, guide)
    coarse = torch.from_numpy(cells(SIZE, 7))
    cut = [cell for cell in range(49) if len(got.regions[0][coarse == cell].unique()) > 1]
    assert cut == [6, 42]
    assert len(got.regions[0][coarse == 42].unique()) == 10, "the stronger one is cut a second time, in two parts"


def test_a_mirrored_variant_has_mirrored_regions() -> None:
    """Cells of uneven sizes, and superpixels."""
    size = (27, 33)
    image = photograph(size)
    region = torch.zeros(size, dtype=torch.bool)
    region[5:20, 2:15] = True
    variants = Variants(("clean", "flip"), torch.stack([image, image.flip(-1)]), torch.stack([region, region.flip(-1)]))
    for asked in (Regions(6, kind="adaptive", passes=40), Regions(5, kind="superpixels")):
        got = drops_of(plain(Symmetric()), variants, asked)
        assert torch.equal(got.regions[1], got.regions[0].flip(-1))
        assert not torch.equal(got.regions[1], got.regions[0])
        assert float(got.drop[0].abs().max()) > 1e-3
        torch.testing.assert_close(got.drop[1], got.drop[0], rtol=0, atol=1e-6)
        torch.testing.assert_close(got.value[1], got.value[0], rtol=0, atol=1e-4 * float(got.value.max()))


def test_variants_with_fewer_regions_are_padded() -> None:
    """Drops past a variant's last region are NaN, its values 0, and no pixel refers to them."""
    noise = torch.from_numpy(np.random.default_rng(0).random((3, 40, 40), dtype=np.float32))
    regions = torch.ones(2, 40, 40, dtype=torch.bool)
    variants = Variants(("clean", "noise"), torch.stack([photograph((40, 40)), noise]), regions)
    got = drops_of(plain(SmallCNN()), variants, Regions(5, kind="superpixels"))
    counts = [int(one.max()) + 1 for one in got.regions]
    assert counts[0] != counts[1]
    assert got.drop.shape == got.value.shape == (2, max(counts))
    for n, count in enumerate(counts):
        assert bool(got.drop[n, :count].isfinite().all())
        assert bool(got.drop[n, count:].isnan().all())
        assert torch.equal(got.value[n, :count], got.drop[n, :count].clamp(min=0))
        assert bool((got.value[n, count:] == 0).all())


@pytest.mark.parametrize(("grid", "passes", "first"), [(14, 48, 49), (7, 15, 16), (5, 8, 9)])
def test_a_budget_below_the_first_cells_is_refused(grid: int, passes: int, first: int) -> None:
    for name in ("ria", "dea", "random_cells"):
        with pytest.raises(
            SettingsError, match=f"adaptive regions of grid {grid} start with {first} cells; passes must"
        ):
            resolve_method(f"{name}@regions=adaptive,grid={grid},passes={passes}", {})
        assert resolve_method(f"{name}@regions=adaptive,grid={grid},passes={first}", {}).regions.passes == first
        assert resolve_method(name, {name: {"grid": grid, "passes": passes}}).regions == Regions(grid), (
            "a grid has no budget"
        )


# Superpixels


def test_superpixels_follow_an_edge_and_mirror() -> None:
    """Two colours that meet along a slanted line: no superpixel holds many pixels of both."""
    image = torch.from_numpy(np.random.default_rng(0).normal(0, 0.01, (3, 48, 60)).astype(np.float32))
    side = torch.arange(60)[None] + torch.arange(48)[:, None] // 3 > 35
    image += torch.where(
        side, torch.tensor([0.9, 0.2, 0.1])[:, None, None], torch.tensor([0.1, 0.3, 0.8])[:, None, None]
    )
    labels = superpixels(image.clamp(0, 1), 30, mirrored=False)
    assert labels.shape == (48, 60)
    assert labels.unique().tolist() == list(range(int(labels.max()) + 1))
    assert 15 <= len(labels.unique()) <= 45
    for label in labels.unique():
        share = float(side[labels == label].float().mean())
        assert min(share, 1 - share) < 0.05
    grid = torch.from_numpy(cells((48, 60), 5))
    assert max(min(s := float(side[grid == c].float().mean()), 1 - s) for c in range(25)) > 0.3, "which cells do not"
    assert torch.equal(superpixels(image.clamp(0, 1).flip(-1), 30, mirrored=True).flip(-1), labels)


def test_superpixel_drops_are_those_of_single_passes() -> None:
    image = photograph((30, 38))
    region = torch.zeros(30, 38, dtype=torch.bool)
    region[5:22, 9:30] = True
    for module in (SmallCNN(), zoo.randomised(zoo.aspp())):
        model = plain(module)
        got = drops_of(model, clean_variant(image, region), Regions(4, kind="superpixels"))
        assert got.drop.shape[1] > 4
        assert float(got.drop.abs().max()) > 1e-3
        for label in range(got.drop.shape[1]):
            expected = single_drop(model, image, region, got.regions[0] == label)
            assert float(got.drop[0, label]) == pytest.approx(expected, abs=2e-6)


def test_superpixels_as_parts_of_fidelity_are_tried_in_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without scikit-image every sample of the run would fail."""
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    chosen = {"fidelity_parts": "superpixels", "stability": False}
    with pytest.raises(SettingsError, match="superpixels, as regions or fidelity_parts, need scikit-image"):
        prepared_scenes(1, evaluation=chosen)
    prepared_scenes(1, evaluation=chosen | {"fidelity": 0})


def test_superpixels_need_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    image, region = planted()
    with pytest.raises(
        SettingsError, match=r"need.* scikit-image; install it with pip install 'segfaith\[superpixels\]'"
    ):
        superpixels(image, 20, mirrored=False)
    rows = segfaith.evaluate(
        plain(PixelScorer(), layer="features"), image, Target(1, region), ["ria@regions=superpixels"]
    )
    row = rows.loc["ria@regions=superpixels"]
    assert row["status"] == "failed"
    assert "as regions or fidelity_parts, need scikit-image" in row["reason"]
    assert rows.loc["random_cells", "status"] == "ok"


def test_bounding_boxes_hold_their_regions_tightly() -> None:
    """Regions of any shape; one without a pixel gets a box of one."""
    partition = torch.from_numpy(np.random.default_rng(1).integers(0, 9, (7, 11)))
    partition[partition == 4] = 5
    start, stop = bounding_boxes(partition, 9)
    for label in range(9):
        places = np.argwhere(partition.numpy() == label)
        if label == 4:
            assert (stop[label] - start[label]).tolist() == [1, 1]
        else:
            assert start[label].tolist() == places.min(0).tolist()
            assert stop[label].tolist() == (places.max(0) + 1).tolist()


# Through methods


def sample() -> tuple[Tensor, Target]:
    image = photograph((42, 42), 8)
    region = torch.zeros(42, 42, dtype=torch.bool)
    region[10:30, 8:25] = True
    return image, Target(1, region)


def gathered_maps(names: list[str], given: dict[str, dict[str, object]] | None = None):  # type: ignore[no-untyped-def]
    """The evidence and the maps by name."""
    image, target = sample()
    model = plain(SmallCNN(), layer="backbone.4")
    methods = [resolve_method(name, given or {}) for name in names]
    rng = sample_rng(0, "a")
    got = gather(
        model,
        clean_variant(image, target.region),
        Target(1, target.region),
        methods,
        BatchSize(16),
        rng,
    )
    return got, {one.name: heatmaps(model, got, one, rng, "a")[0] for one in methods}


@pytest.mark.parametrize("kind", ["adaptive", "superpixels"])
def test_methods_with_the_same_regions_share_their_evidence(kind: str) -> None:
    given = {"ria": {"regions": kind, "passes": 60, "precision": "bf16"}}
    got, maps = gathered_maps(["ria", "dea", "random_cells", "dea@alpha=0.5"], given)
    (asked,) = got.intervention
    assert (asked.kind, asked.precision) == (kind, "bf16")
    found = got.intervention[asked]
    labels = found.regions[0]
    assert len(maps["random_cells"].unique()) == int(labels.max()) + 1
    for label in labels.unique():
        assert len(maps["random_cells"][labels == label].unique()) == 1
        assert len(maps["ria"][labels == label].unique()) == 1
    expected = minmax(found.value[0].numpy()[labels.numpy()])
    np.testing.assert_allclose(maps["ria"].numpy(), expected, rtol=0, atol=1e-6)


def test_other_regions_are_other_evidence() -> None:
    names = ["ria", "ria@regions=adaptive", "ria@regions=adaptive,passes=60", "ria@precision=bf16"]
    got, _ = gathered_maps([*names, "ria@regions=adaptive,refine=boundary", "dea@regions=adaptive,passes=60"])
    assert list(got.intervention) == [
        Regions(),
        Regions(kind="adaptive"),
        Regions(kind="adaptive", passes=60),
        Regions(precision="bf16"),
        Regions(kind="adaptive", refine="boundary"),
    ]


def test_refining_by_gradient_brings_its_gradient_evidence() -> None:
    """The layer and objective of DEA's own gradient, and the defaults for RIA; nothing else asks for any here."""
    got, maps = gathered_maps(["ria@regions=adaptive,refine=gradient"])
    assert list(got.gradient) == [(None, "logits")]
    assert list(got.intervention) == [Regions(kind="adaptive", refine="gradient", guide=(None, "logits"))]
    assert float(maps["ria@regions=adaptive,refine=gradient"].max()) == 1
    got, _ = gathered_maps(["dea@regions=adaptive,refine=gradient,layer=backbone.0,objective=prob"])
    assert list(got.gradient) == [("backbone.0", "prob")]
    (asked,) = got.intervention
    assert asked.guide == ("backbone.0", "prob")


@pytest.mark.parametrize("stability", [False, True])
def test_every_mode_runs_through_evaluate(stability: bool) -> None:
    image, target = sample()
    names = [
        "ria",
        "dea",
        "ria@precision=bf16",
        "ria@regions=superpixels",
        "ria@regions=adaptive,passes=100",
        "dea@regions=adaptive,refine=gradient,grid=6,passes=20",
        "random_cells@regions=adaptive,passes=60",
        "random_cells@regions=superpixels,grid=5",
    ]
    rows = segfaith.evaluate(plain(SmallCNN(), layer="backbone.4"), image, target, names, stability=stability)
    assert set(names) <= set(rows.index)
    assert set(rows["status"]) == {"ok"}, rows["reason"].tolist()
    assert rows["tdd"].notna().all()
    assert rows.loc[names[:6], "stability"].notna().all() == stability
    assert rows.loc["ria@precision=bf16", "tdd"] == pytest.approx(rows.loc["ria", "tdd"], abs=0.1)
    assert (rows.loc[["ria", "ria@regions=adaptive,passes=100"], "tdd"] > rows.loc["random_cells", "tdd"]).all()


@pytest.mark.parametrize(("kind", "passes"), [("grid", 36), ("superpixels", 36), ("adaptive", 80)])
def test_the_count_of_regions_is_what_a_plan_may_rely_on(kind: str, passes: int) -> None:
    asked = Regions(6, kind=kind)  # type: ignore[arg-type]
    assert asked.count == passes
    assert Regions(30, kind="adaptive", passes=9).count == floor(31 / 2) ** 2


def test_a_budget_that_would_change_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"'ria@passes=57': passes would change nothing with regions=grid; add reg"):
        resolve_method("ria@passes=57", {})
    with pytest.raises(SettingsError, match="passes and refine would change nothing with regions=superpixels"):
        resolve_method("dea@regions=superpixels,refine=boundary,passes=99", {})
    table = {"ria": {"regions": "adaptive", "passes": 57}}
    assert resolve_method("ria@passes=99", table).parameters.passes == 99
    assert resolve_method("ria@regions=grid", table).parameters.regions == "grid", "the table serves others too"
