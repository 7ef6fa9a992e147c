"""The embedded model of the planted scenes: its training, its proof of use, its card, and the weights as shipped."""

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.stats import binomtest
from torch import Tensor

from segfaith import load_model, models
from segfaith.classes import SCENE_CLASSES
from segfaith.constants import COUNTERPART
from segfaith.data import open_dataset
from segfaith.data.scenes import SCENES_VERSION
from segfaith.data.scenes.drawing import draw_scene
from segfaith.data.scenes.edits import decisive_edits
from segfaith.data.scenes.rendering import PATTERNS, plate_labels, render
from segfaith.data.scenes.symbols import SHAPES, Body, Scene
from segfaith.evaluation.evidence_score import evidence_ap
from segfaith.models.inputs import IMAGENET_MEAN, IMAGENET_STD
from segfaith.models.scene_model import build_scene_model
from segfaith.models.weights import file_digest
from segfaith.occlusion import occluder
from segfaith.planted import card as cards
from segfaith.planted import proof as proofs
from segfaith.planted import training
from segfaith.planted.card import card_text, save_half, train_scenes
from segfaith.planted.proof import Proof, Trial, prove
from segfaith.planted.training import Recipe, ScenePairs, train
from segfaith.scores import masked_mean, scalar_of
from segfaith.targets import find_targets

KINDS = ["plain", "marker", "context", "conjunction", "redundancy"]
TINY = Recipe(steps=2, pairs=1, size=64)
RECIPES = {"scenes": Recipe(), "scenes-unhidden": Recipe(hidden=0.0)}
"""The embedded models, and how each was trained."""
EMBEDDED = Path(cards.__file__).parents[1] / "models" / "embedded"
Answer = Callable[[Scene, Body], str]
"""Which class a segmenter sees on a body."""


def class_of(name: str) -> int:
    return SCENE_CLASSES.index(name)


# The proof of use, of segmenters that know the scene


def truth(scene: Scene, body: Body) -> str:
    return SCENE_CLASSES[scene.label(body)]


rendered = cache(render)
"""Several oracles look at the same scenes."""


class Oracle:
    """Segments a scene that it recognises by its pixels: each body in the class that `answer` gives."""

    device = torch.device("cpu")

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.scenes: dict[bytes, tuple[Scene, Tensor]] = {}

    def render(self, scene: Scene, size: int) -> tuple[Tensor, Tensor]:
        image, labels = rendered(scene, size)
        self.scenes[image.numpy().tobytes()] = scene, labels
        return image, labels

    def logits(self, images: Tensor) -> Tensor:
        return torch.stack([self.segment(image) for image in images])

    def segment(self, image: Tensor) -> Tensor:
        scene, labels = self.scenes[image.contiguous().numpy().tobytes()]
        seen = labels.clone()
        for body in scene.bodies:
            seen[labels == scene.label(body)] = class_of(self.answer(scene, body))
        return torch.nn.functional.one_hot(seen, len(SCENE_CLASSES)).permute(2, 0, 1).float()


SIZE, COUNT = 48, 30


def proof_of(answer: Answer, monkeypatch: pytest.MonkeyPatch, count: int = COUNT) -> Proof:
    oracle = Oracle(answer)
    monkeypatch.setattr(proofs, "render", oracle.render)
    scenes = [draw_scene(f"oracle-{i}", 1 + i % 10) for i in range(count)]
    return prove(oracle, scenes, SIZE)  # type: ignore[arg-type]


def claims_of(proof: Proof, kind: str) -> dict[tuple[str, str], Trial]:
    found = {(claim.change, claim.bound): claim for claim in proof.claims if claim.kind == kind}
    assert len(found) == sum(claim.kind == kind for claim in proof.claims)
    return found


LEAST, MOST = "at least 90%", "at most 5%"
DISTRACTORS = {(f"distractor {how}", MOST) for how in ("swapped", "moved", "removed")}
SWAPPED = ("texture, part or cue swapped", LEAST)
NEEDED, SPARE, BOTH = ("needed part removed", LEAST), ("spare part removed", MOST), ("both parts removed", LEAST)


def test_the_truth_is_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every claim of every kind holds in 100 % or 0 % of cases, and all claims of the issue are among them."""
    proof = proof_of(truth, monkeypatch)
    assert proof.proven == KINDS
    assert (proof.scenes, proof.size) == (COUNT, SIZE)
    for claim in proof.claims:
        assert claim.holds
        assert claim.cases > 0
        assert claim.share == (1.0 if claim.bound == LEAST else 0.0)
    for kind in ("plain", "marker"):
        assert set(claims_of(proof, kind)) == {SWAPPED} | DISTRACTORS
    assert set(claims_of(proof, "context")) == {SWAPPED, ("cue moved", MOST)} | DISTRACTORS
    assert proof.regions == proof.right > 2 * COUNT
    assert set(claims_of(proof, "conjunction")) == {NEEDED, BOTH} | DISTRACTORS
    assert set(claims_of(proof, "redundancy")) >= {SPARE, BOTH} | DISTRACTORS
    assert set(proof.iou) == {*SCENE_CLASSES, "mean"}
    assert set(proof.iou.values()) == {1.0}


def test_claims_are_told_apart_by_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the card one change of one kind has one bound, or a reader cannot tell what was removed from what."""
    proof = proof_of(truth, monkeypatch, 20)
    lines = [(claim.kind, claim.change) for claim in proof.claims]
    assert sorted(lines) == sorted(set(lines))


def test_a_fixed_answer_proves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only bodies that it gets right are looked at; nothing changes what it says of them."""
    proof = proof_of(lambda scene, body: "marker_level", monkeypatch)
    assert proof.proven == []
    assert {claim.kind for claim in proof.claims} == {"marker"}
    claims = claims_of(proof, "marker")
    assert (claims[SWAPPED].share, claims[SWAPPED].holds) == (0.0, False)
    assert all(claims[key].share == 0 and claims[key].holds for key in DISTRACTORS)
    right = [draw_scene(f"oracle-{i}", 1 + i % 10) for i in range(COUNT)]
    assert claims[SWAPPED].cases == sum(
        scene.label(body) == class_of("marker_level") for scene in right for body in scene.bodies
    )
    assert proof.iou["marker_level"] < 0.5
    assert proof.iou["marker_upright"] == 0


def test_nothing_right_is_nothing_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    proof = proof_of(lambda scene, body: "background", monkeypatch, 6)
    assert proof.claims == []
    assert proof.proven == []


def blind_to_cue(scene: Scene, body: Body) -> str:
    return "context_above" if body.family == "context" else truth(scene, body)


def one_part_suffices(scene: Scene, body: Body) -> str:
    seen = {part.pattern for part in body.parts}
    return "both" if body.family == "conjunction" and seen & set(SHAPES) else truth(scene, body)


def sees_discs_alone(scene: Scene, body: Body) -> str:
    seen = {part.pattern for part in body.parts}
    return ("either" if "disc" in seen else "neither") if body.family == "redundancy" else truth(scene, body)


def blind_to_texture(scene: Scene, body: Body) -> str:
    return "plain_rays" if body.family == "plain" else truth(scene, body)


def confused_by_the_background(scene: Scene, body: Body) -> str:
    """An odd number of discs and crosses on the background makes it take one marker for the other."""
    misled = sum(plate.pattern in SHAPES for plate in scene.distractors) % 2 == 1
    name = truth(scene, body)
    other = {"marker_upright": "marker_level", "marker_level": "marker_upright"}
    return other.get(name, name) if misled else name


def sees_the_cue_at_the_left_alone(scene: Scene, body: Body) -> str:
    if body.family != "context" or (scene.cue is not None and scene.cue.centre[1] < 0.5):
        return truth(scene, body)
    return "background"


def loses_the_class(scene: Scene, body: Body) -> str:
    """Notices a missing part, and then says something that is not there at all."""
    name = truth(scene, body)
    return "plain_rays" if name == "not_both" else name


FAULTS: list[tuple[Answer, str, list[tuple[str, str]]]] = [
    (blind_to_texture, "plain", [SWAPPED]),
    (confused_by_the_background, "marker", [("distractor swapped", MOST)]),
    (blind_to_cue, "context", [SWAPPED]),
    (sees_the_cue_at_the_left_alone, "context", [("cue moved", MOST)]),
    (one_part_suffices, "conjunction", [NEEDED]),
    (loses_the_class, "conjunction", [NEEDED, BOTH]),
    (sees_discs_alone, "redundancy", [SPARE]),
]


@pytest.mark.parametrize(("answer", "kind", "failing"), FAULTS)
def test_a_fault_costs_its_kind_alone(
    answer: Answer, kind: str, failing: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = proof_of(answer, monkeypatch)
    assert proof.proven == [one for one in KINDS if one != kind]
    claims = claims_of(proof, kind)
    for key in failing:
        assert not claims[key].holds, key
        assert claims[key].share < 0.9 if key[1] == LEAST else claims[key].share > 0.05
    assert all(claim.holds for one in KINDS if one != kind for claim in claims_of(proof, one).values())


def test_a_kind_is_not_proven_without_its_decisive_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A segmenter that fails on bodies with both parts never shows what it makes of removing one or both."""

    def answer(scene: Scene, body: Body) -> str:
        two = {part.pattern for part in body.parts} >= set(SHAPES)
        return "neither" if body.family == "redundancy" and two else truth(scene, body)

    proof = proof_of(answer, monkeypatch)
    assert BOTH not in claims_of(proof, "redundancy")
    assert "redundancy" not in proof.proven


def test_counterparts_are_reported_and_prove_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    proof = proof_of(truth, monkeypatch)
    counterparts = claims_of(proof, COUNTERPART)
    assert ("missing part added", LEAST) in counterparts
    assert COUNTERPART not in proof.proven


def test_the_bounds() -> None:
    """Nine in ten and one in twenty still hold."""
    rows = [{"kind": "marker", "change": "swap", "decides": True, "came": i < 9, "new": True} for i in range(10)]
    rows += [{"kind": "marker", "change": "move", "decides": False, "came": i < 1, "new": False} for i in range(20)]
    found = {claim.change: claim for claim in proofs._claims(proofs.pd.DataFrame(rows))}
    assert (found["swap"].share, found["swap"].cases, found["swap"].holds) == (0.9, 10, True)
    assert (found["move"].share, found["move"].cases, found["move"].holds) == (0.05, 20, True)
    worse = [row | {"came": False} if at == 0 else row for at, row in enumerate(rows)]
    worse[11] = worse[11] | {"came": True}
    assert [claim.holds for claim in proofs._claims(proofs.pd.DataFrame(worse))] == [False, False]


def test_a_proof_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    proof = proof_of(blind_to_cue, monkeypatch, 20)
    content = json.loads(json.dumps(proof.to_json(), allow_nan=False))
    assert content.pop("proven") == proof.proven
    content["claims"] = [Trial(**claim) for claim in content["claims"]]
    assert Proof(**content) == proof


def test_a_proof_on_few_scenes_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that neither occurs nor is predicted has no IoU, and NaN is no JSON."""
    json.dumps(proof_of(truth, monkeypatch, 1).to_json(), allow_nan=False)


def test_a_proof_is_the_same_again_and_counts_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert repr(proof_of(truth, monkeypatch, 5)) == repr(proof_of(truth, monkeypatch, 5))
    calls: list[int] = []
    oracle = Oracle(truth)
    monkeypatch.setattr(proofs, "render", oracle.render)
    prove(oracle, [draw_scene(f"oracle-{i}", 3) for i in range(4)], 32, lambda: calls.append(1))  # type: ignore[arg-type]
    assert len(calls) == 4


# Training


def test_pairs_differ_in_one_thing() -> None:
    pairs = ScenePairs(Recipe(steps=8, pairs=4, size=64))
    assert len(pairs) == 32
    relabelled = 0
    for index in range(12):
        images, labels, patterns = pairs[index]
        assert images.shape == (2, 3, 64, 64)
        assert labels.shape == patterns.shape == (2, 8, 8)
        assert labels.dtype == patterns.dtype == torch.int64
        assert not torch.equal(images[0], images[1])
        assert 0 <= int(labels.min()) <= int(labels.max()) < len(SCENE_CLASSES)
        assert 0 <= int(patterns.min()) <= int(patterns.max()) <= len(PATTERNS)
        assert all(torch.equal(one, other) for one, other in zip(pairs[index], (images, labels, patterns), strict=True))
        relabelled += not torch.equal(labels[0], labels[1])
    assert 3 <= relabelled < 12


def test_pairs_follow_the_seed_and_avoid_the_splits() -> None:
    one, other = ScenePairs(Recipe(seed=0, size=32)), ScenePairs(Recipe(seed=1, size=32))
    assert not torch.equal(one[0][0], other[0][0])
    first = one[5][0][0]
    for key in ("train-0005", "val-0005", "proof-0005"):
        assert not any(torch.equal(first, render(draw_scene(key, label), 32)[0]) for label in range(1, 11))


def test_labels_are_taken_where_the_model_predicts() -> None:
    """The pixel of each 8 x 8 at row and column 4."""
    recipe = Recipe(size=64)
    _, labels, patterns = ScenePairs(recipe)[3]
    rng = proofs.generator(0, "train-0-3", "edit")
    scene = draw_scene("train-0-3", int(rng.integers(1, 11)))
    assert torch.equal(labels[0], render(scene, 64)[1][4::8, 4::8])
    assert torch.equal(patterns[0], plate_labels(scene, 64)[4::8, 4::8])


def states_equal(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def test_training_is_seeded() -> None:
    steps: list[tuple[int, float, float]] = []
    one = train(TINY, lambda step, loss, aux: steps.append((step, loss, aux)))
    torch.rand(3)
    again = train(TINY)
    other = train(Recipe(**asdict(TINY) | {"seed": 1}))
    assert states_equal(one, again)
    assert not states_equal(one, other)
    assert not one.training
    assert [step for step, _, _ in steps] == [1, 2]
    assert all(0.5 < value < 10 for _, *losses in steps for value in losses)


def test_training_leaves_the_global_generator_alone() -> None:
    before = torch.random.get_rng_state()
    train(Recipe(steps=1, pairs=1, size=64))
    assert torch.equal(before, torch.random.get_rng_state())


def test_training_learns() -> None:
    """A few steps at a moderate rate on one and the same pair lower the loss."""
    losses: list[float] = []

    class OnePair(ScenePairs):
        def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
            return super().__getitem__(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segfaith.planted.training.ScenePairs", OnePair)
        train(Recipe(steps=12, pairs=1, size=64), lambda step, loss, aux: losses.append(loss))
    assert losses[-1] < 0.6 * losses[0]


def test_half_precision_on_disk(tmp_path: Path) -> None:
    model = build_scene_model()
    path = tmp_path / "new" / "scenes.safetensors"
    save_half(model, path)
    state = load_file(path)
    assert {value.dtype for value in state.values()} == {torch.float16, torch.int64}
    assert all(torch.equal(state[key], value.to(state[key].dtype)) for key, value in model.state_dict().items())
    assert state.keys() == model.state_dict().keys()
    assert path.stat().st_size < 4e6
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    loaded = load_model("scenes", weights=path).module
    assert {value.dtype for value in loaded.parameters()} == {torch.float32}
    assert all(torch.equal(value, state[key].to(value.dtype)) for key, value in loaded.state_dict().items())


def test_everything_is_written(tmp_path: Path) -> None:
    told: list[tuple[str, int]] = []
    proof = train_scenes(tmp_path / "out", TINY, 2, lambda stage, done, words: told.append((stage, done)))
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"scenes.safetensors", "scenes.json", "scenes.md", "training.csv"}
    assert told == [("training", 1), ("training", 2), ("proof", 1), ("proof", 2)]
    log = (tmp_path / "out" / "training.csv").read_text().splitlines()
    assert log[0] == "step,loss,pattern_loss"
    assert [line.split(",")[0] for line in log[1:]] == ["1", "2"]
    assert all(float(value) > 0 for line in log[1:] for value in line.split(",")[1:])
    content = json.loads((tmp_path / "out" / "scenes.json").read_text())
    assert content["scenes_version"] == SCENES_VERSION
    assert content["file_sha256"] == file_digest(tmp_path / "out" / "scenes.safetensors")
    assert content["recipe"] == asdict(TINY)
    assert content["proof"]["scenes"] == proof.scenes == 2
    assert content["proof"]["size"] == TINY.size
    assert content["proof"]["proven"] == proof.proven
    assert (tmp_path / "out" / "scenes.md").read_text() == card_text(content)
    assert content["parameters"] == sum(value.numel() for value in build_scene_model().parameters())


# The card


def a_card(**changes: Any) -> dict[str, Any]:
    claims = [
        Trial("marker", "texture, part or cue swapped", 41, 0.9268, LEAST, True),
        Trial("context", "texture, part or cue swapped", 40, 0.85, LEAST, False),
        Trial("context", "distractor moved", 120, 0.025, MOST, True),
    ]
    proof = Proof(
        77, 208, 188, 187, claims, {name: 0.5 + 0.01 * i for i, name in enumerate(SCENE_CLASSES)} | {"mean": 0.789}
    )
    return {
        "scenes_version": 3,
        "file_sha256": "0123456789abcdef",
        "parameters": 1234567,
        "torch": "9.9",
        "recipe": asdict(Recipe(steps=1500, pairs=6, size=208, seed=17, rate=0.003, decay=0.07)),
        "proof": proof.to_json(),
    } | changes


def test_the_cards_text_says_what_its_json_says() -> None:
    text = card_text(a_card())
    for words in (
        "1,234,567 parameters",
        "SHA-256 0123456789ab.",
        "planted scenes version 3, training seed 17, 208 px",
        "1,500 steps of 6 pairs (18,000 images, flat patches over 35% of them)",
        "rate up to 0.003, weight decay 0.07; torch 9.9",
        "On 77 unseen scenes: 187 of 188 regions predicted right; mIoU 0.789 (background 0.500, plain_rings 0.510",
        "neither 0.600)",
        "Proven kinds: marker.",
        "| marker | texture, part or cue swapped | 41 | 92.7% | at least 90% | yes |",
        "| context | texture, part or cue swapped | 40 | 85.0% | at least 90% | NO |",
        "| context | distractor moved | 120 | 2.5% | at most 5% | yes |",
    ):
        assert words in text
    assert text.endswith("|\n")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in lines}) == 1


def test_the_card_tells_of_a_model_that_never_saw_a_patch() -> None:
    assert "(41,600 images, none with flat patches)" in card_text(a_card(recipe=asdict(Recipe(hidden=0.0))))


def test_without_hidden_no_image_has_a_patch(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Scene] = []

    def draw(scene: Scene, rng: np.random.Generator, size: int) -> Tensor:
        calls.append(scene)
        return torch.zeros(size, size, dtype=torch.bool)

    monkeypatch.setattr(training, "draw_patches", draw)
    seen = {}
    for hidden in (0.0, 1.0):
        pairs = ScenePairs(replace(TINY, hidden=hidden, steps=5))
        _ = [pairs[index] for index in range(5)]
        seen[hidden] = len(calls)
    assert seen == {0.0: 0, 1.0: 10}


def test_a_card_without_proven_kinds() -> None:
    proof = Proof(1, 64, 2, 0, [], dict.fromkeys([*SCENE_CLASSES, "mean"], 0.0))
    assert "Proven kinds: none." in card_text(a_card(proof=proof.to_json()))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "scenes.safetensors"
    save_half(build_scene_model(), path)
    return path


@pytest.fixture
def beside(weights: Path) -> Iterator[Path]:
    """The place of the weights' card, empty before and after."""
    yield weights.with_suffix(".json")
    weights.with_suffix(".json").unlink(missing_ok=True)


def test_proven_kinds_come_from_the_card_of_these_weights(weights: Path, beside: Path) -> None:
    beside.write_text(json.dumps(a_card(file_sha256=file_digest(weights))))
    assert load_model("scenes", weights=weights).provenance["proven_kinds"] == "marker"
    beside.write_text(json.dumps(a_card(file_sha256="0" * 64)))
    assert "proven_kinds" not in load_model("scenes", weights=weights).provenance
    beside.unlink()
    model = load_model("scenes", weights=weights)
    assert "proven_kinds" not in model.provenance
    assert model.provenance["file_sha256"] == file_digest(weights)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"proof": {}}'])
def test_a_file_beside_the_weights_that_is_no_card(content: str, weights: Path, beside: Path) -> None:
    """Somebody's own weights may lie beside any JSON."""
    beside.write_text(content)
    assert "proven_kinds" not in load_model("scenes", weights=weights).provenance


# The model by name


@pytest.mark.parametrize("name", RECIPES)
def test_the_scene_model_with_random_weights(name: str) -> None:
    model = load_model(name, weights="random", seed=3)
    assert model.name == name
    assert list(model.classes or []) == SCENE_CLASSES
    assert len(model.classes or []) == 11
    assert model.layer == "backbone.high"
    assert model.weights == "random (seed 3)"
    assert "proven_kinds" not in model.provenance
    for size in ((64, 64), (97, 130)):
        logits = model.logits(torch.rand(2, 3, *size))
        assert logits.shape == (2, 11, *size)
    assert sum(value.numel() for value in model.module.parameters()) == pytest.approx(1.08e6, rel=0.01)


def test_the_scene_model_sees_what_it_was_trained_on() -> None:
    """Training normalises by hand; the loaded model does the same."""
    model = load_model("scenes", weights="random")
    x = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(IMAGENET_STD)[:, None, None]
    with torch.inference_mode():
        by_hand = model.module((x - mean) / std)["out"]
        assert torch.allclose(by_hand, model.logits(x), atol=1e-4)


# The weights as shipped


def if_there(name: str) -> Any:
    """An embedded model, or a skip until its weights are in the package."""
    lacking = not (EMBEDDED / f"{name}.safetensors").is_file()
    return pytest.param(name, marks=pytest.mark.skipif(lacking, reason=f"{name} is not trained yet"))


each_model = pytest.mark.parametrize("name", [if_there(name) for name in RECIPES])


def shipped(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((EMBEDDED / f"{name}.json").read_text(encoding="utf-8"))
    return content


def test_the_table_and_the_folder_hold_the_same_models() -> None:
    """Two weights files of 2.2 MB fit into a package of less than 6 MB."""
    assert list(models.EMBEDDED) == list(RECIPES)
    assert [models.MODELS[name].weights for name in RECIPES] == [EMBEDDED / f"{name}.safetensors" for name in RECIPES]
    files = [path for path in EMBEDDED.iterdir() if path.is_file()]
    assert {path.stem for path in files} <= set(RECIPES)
    assert sum(path.stat().st_size for path in files) < 5_000_000


@each_model
def test_the_shipped_weights_are_small_and_half(name: str) -> None:
    path = EMBEDDED / f"{name}.safetensors"
    assert path.stat().st_size < 2_400_000
    state = load_file(path)
    assert {value.dtype for value in state.values() if value.is_floating_point()} == {torch.float16}
    assert all(bool(torch.isfinite(value).all()) for value in state.values())
    assert state.keys() == build_scene_model().state_dict().keys()


@each_model
def test_the_shipped_card_is_that_of_the_shipped_weights(name: str) -> None:
    content = shipped(name)
    assert content["file_sha256"] == file_digest(EMBEDDED / f"{name}.safetensors")
    assert content["scenes_version"] == SCENES_VERSION
    assert content["recipe"] == asdict(RECIPES[name])
    assert (EMBEDDED / f"{name}.md").read_text(encoding="utf-8") == card_text(content)
    assert content["proof"]["scenes"] >= 200
    claims = [Trial(**claim) for claim in content["proof"]["claims"]]
    figures = {key: content["proof"][key] for key in ("scenes", "size", "regions", "right", "iou")}
    proof = Proof(claims=claims, **figures)
    assert proof.proven == content["proof"]["proven"]
    for claim in claims:
        assert claim.bound in (LEAST, MOST)
        assert claim.holds == (claim.share >= 0.9 if claim.bound == LEAST else claim.share <= 0.05)
        assert claim.cases >= 10


@each_model
def test_the_shipped_model_loads_without_a_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **settings: object) -> None:
        raise AssertionError("the embedded model needs no network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    model = load_model(name)
    assert (model.name, model.weights) == (name, f"{name}.safetensors")
    assert list(model.classes or []) == SCENE_CLASSES
    proven = model.provenance["proven_kinds"].split(",")
    assert set(proven) <= set(KINDS)
    assert proven == shipped(name)["proof"]["proven"] != []


@each_model
def test_the_shipped_card_holds_on_fresh_scenes(name: str) -> None:
    """Shares on other scenes lie within what chance allows of the card's; so do IoUs, roughly."""
    card = shipped(name)
    scenes = [draw_scene(f"fresh-{i}", 1 + i % 10) for i in range(20)]
    fresh = prove(load_model(name), scenes, card["recipe"]["size"])
    published = {(claim["kind"], claim["change"], claim["bound"]): claim for claim in card["proof"]["claims"]}
    compared = 0
    for claim in fresh.claims:
        share = published[claim.kind, claim.change, claim.bound]["share"]
        expected = min(max(share, 0.03), 0.97)  # so small a sample cannot tell these from 0 and 1
        cases = binomtest(round(claim.share * claim.cases), claim.cases, expected)
        within = share - 0.05 <= claim.share <= share + 0.05  # the cases of one scene go together
        assert within or cases.pvalue > 1e-3, (claim, share)
        compared += claim.cases
    assert compared > 200
    assert fresh.iou["mean"] == pytest.approx(card["proof"]["iou"]["mean"], abs=0.12)


@each_model
def test_the_shipped_model_reads_the_cue(name: str) -> None:
    """One scene through the public functions alone: the other cue, and the body is of the other class."""
    if "context" not in shipped(name)["proof"]["proven"]:
        pytest.fail("context is unproven: name it in the documents and drop this test")
    model = load_model(name)
    flipped = 0
    for i in range(5):
        scene = draw_scene(f"cue-{i}", class_of("context_above"))
        edit = decisive_edits(scene, len(scene.bodies) - 1)["swapped"]
        region = render(scene, 224)[1] == class_of("context_above")
        images = torch.stack([render(one, 224)[0] for one in (scene, edit)])
        with torch.inference_mode():
            seen = model.logits(images).argmax(1)
        flipped += [int(torch.bincount(one[region]).argmax()) for one in seen] == [
            class_of("context_above"),
            class_of("context_below"),
        ]
    assert flipped >= 4


def marked(values: dict[str, float], evidence: Tensor, region: Tensor) -> Tensor:
    """A map of two values: that of the evidence, and that of the rest of the object."""
    heatmap = torch.zeros(evidence.shape)
    heatmap[region & ~evidence], heatmap[evidence] = max(values["object"], 0), max(values["evidence"], 0)
    return heatmap / heatmap.max()


@pytest.mark.parametrize("first", [2, 3])
def test_the_planted_question_is_that_of_the_two_classes_of_a_kind(first: int) -> None:
    """A map of the true drops is punished for the object where p_c is asked, and not where the twins are compared.

    Bars on a plate decide the main object of scene i for these i modulo 8.
    """
    model, scenes = load_model("scenes"), open_dataset("scenes", None)
    precisions: dict[str, list[float]] = {"probability": [], "conditional": []}
    for number in range(first, 40, 8):
        sample = scenes.load(f"val-{number:04d}", 224)
        target = find_targets(sample.labels)[0]
        alternatives = sample.planted[target.class_index].alternatives
        evidence = torch.stack(alternatives).any(0)
        masks = torch.stack([evidence & False, evidence, target.region & ~evidence])
        images = occluder("mean", sample.image, np.random.default_rng(0))(masks)
        with torch.no_grad():
            logits = model.logits(images)
        asked = replace(target, score="conditional", versus=scenes.twins[target.class_index])
        for one in (target, asked):
            region = target.region.expand(3, -1, -1)
            s, without, alone = masked_mean(logits, region, scalar_of(model, one)).tolist()
            heatmap = marked({"evidence": s - without, "object": s - alone}, evidence, target.region)
            precisions[one.score].append(evidence_ap(heatmap, [evidence]))
    assert max(precisions["probability"]) < 0.2
    assert min(precisions["conditional"]) == 1.0
