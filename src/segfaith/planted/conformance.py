"""Conformance: does a method keep the contract of methods, and do its maps mark the pixels that are known to decide?

Every call gets copies of model, image and target, which are compared with the originals afterwards. Global random
states and settings are put back. So one fault neither causes a second finding nor reaches the caller.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import combinations, islice
from statistics import mean
from typing import Any

import numpy as np
import torch

from segfaith.attribution.explain import gather, heatmaps, sample_rng
from segfaith.attribution.guard import global_state_kept
from segfaith.attribution.heatmap import minmax
from segfaith.attribution.methods import Method, MethodInstance, resolve_method
from segfaith.batching import BatchSize
from segfaith.benchmark.worker import predicted_classes
from segfaith.constants import COUNTERPART, DEGENERATE_RANGE
from segfaith.data.scenes import open_scenes
from segfaith.errors import SegfaithError
from segfaith.evaluation.evidence_score import evidence_ap
from segfaith.models import load_model
from segfaith.models.segmentation import SegmentationModel
from segfaith.perturbation import clean_variant
from segfaith.planted.closed_form import Question, block_cases, corner_case, misplaced, told_apart
from segfaith.planted.traces import edited, left_behind, listed
from segfaith.randomness import generator
from segfaith.targets import find_targets, majority_class
from segfaith.types import Image, Map, Planted, Sample, Target, Tensor

_Asked = tuple[Sample, Target, Planted]
RANDOM_CONTROLS = ("random", "random_cells")
SAME, ALIKE = 1e-5, 1e-3
"""Maps in [0, 1]: equal calls differ by at most SAME at any pixel, different targets by more than ALIKE on average."""
FLAT_SCENES = 0.1
"""Maps may be constant on at most this share of the scenes; on closed-form segmenters, no map may be."""
TRIED = 4
"""To get n scenes that are predicted right, at most TRIED * n scenes are tried."""

CONTRACT = {
    "call": ("function(model, image, target) returns without an exception", "mend the function"),
    "type": ("the map is a torch tensor or numpy array of real numbers", "for complex values, return .abs() or .real"),
    "shape": ("the map has the image's (H, W)", "return one value per pixel of the image"),
    "finite": ("every value is finite in float32", "look for a division by 0, a logarithm of 0, or an overflow"),
    "constant": ("the map varies over the image", "look for detach(), no_grad, a wrong layer, or a relu of negatives"),
    "deterministic": ("two calls give the same map", "draw from a generator that the method makes, with a fixed seed"),
    "global_state": (
        "global random states and settings stay as they are",
        "draw from a new generator, torch.Generator().manual_seed(0), and change settings only in a with block",
    ),
    "hooks": ("no hook stays on the model", "call remove() on each handle in a finally clause"),
    "gradients": ("no .grad stays on the model's parameters", "use torch.autograd.grad or backward(inputs=[...])"),
    "flags": (
        "train flags, requires_grad and the modules' other settings stay as they are",
        "put them back in a finally clause; `with model.evaluating():` does it for train flags",
    ),
    "weights": (
        "the model's modules, parameters and buffers stay as they are",
        "work on copy.deepcopy(model.module), or put them back in a finally clause",
    ),
    "inputs": ("image and target stay as they are", "work on image.clone() and target.region.clone()"),
    "target": ("another class or region has another map", "explain target.class_index over target.region"),
    "polarity": (
        "the map is highest on what decides, which here lies inside the target",
        "larger must mean more important for the score over target.region",
    ),
    "outside": (
        "the map is highest on what decides, which here is a corner outside the target",
        "leave the map as it is outside target.region: what decides may lie there",
    ),
}
"""The checks besides `import` and `evidence`, in their order: what is expected, and the remedy."""


@dataclass(frozen=True)
class Finding:
    """The result of one check, in a sentence: what was expected, what came and, if the check failed, the remedy."""

    check: str
    passed: bool
    words: str


@dataclass(frozen=True, eq=False)
class _Trial:
    """A method under trial. For each check, `log` holds pairs: the question, and what was wrong (empty if nothing)."""

    instance: MethodInstance
    batch_size: int
    seed: int
    on_step: Callable[[str], None]
    log: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))

    def note(self, check: str, asked: str, wrong: str) -> None:
        """Adds one measurement."""
        self.log[check].append((asked, wrong))


def check_method(
    name: str | Method,
    *,
    model: SegmentationModel | None = None,
    scenes: int = 16,
    size: int = 224,
    batch_size: int = 8,
    seed: int = 0,
    on_step: Callable[[str], None] = lambda step: None,
) -> list[Finding]:
    """Runs a method on closed-form segmenters and on planted scenes, and says in words where it fails.

    Args:
        name: as in a settings file: `ega`, `dea@grid=7`, `package.module:function`, `path/to/file.py:function`.
        model: a model that knows the scenes' classes; by default, the embedded model. It is left unchanged.
        scenes: the number of scenes for the evidence score, all predicted right by the model; 0 leaves the score out.
        size: the scenes' side in pixels.
        batch_size: images per pass of the methods that read shared evidence.
        seed: of the choice of scenes and of the random controls.
        on_step: called with a few words before each call of the method.

    Returns:
        A finding for each check, in a fixed order. Checks without any measurement are left out, such as all checks of
        maps if no call gave a map. `outside` is left out if the polarity is wrong.

    Raises:
        SettingsError: the embedded model cannot be loaded. No fault of the method raises.
    """
    try:
        instance = resolve_method(name, {})
    except Exception as error:
        words = f"expected a method that can be imported; {_words_of(error)}; mend its name or its module"
        return [Finding("import", False, words)]
    if "file" in instance.method.needs:
        words = f"expected a function; {instance.name} reads maps from files; name the function that made them"
        return [Finding("import", False, words)]
    trial = _Trial(instance, batch_size, seed, on_step)
    with torch.inference_mode(False):  # whatever the caller's mode, methods may take gradients
        _try_closed_forms(trial)
        evidence = _try_scenes(trial, model or load_model("scenes"), scenes, size) if scenes else []
    contract = [_finding(check, trial.log[check]) for check in CONTRACT if trial.log[check]]
    return [Finding("import", True, f"{instance.name} was imported"), *contract, *evidence]


def _finding(check: str, log: Sequence[tuple[str, str]]) -> Finding:
    expected, remedy = CONTRACT[check]
    wrong = [f"{asked}: {came}" for asked, came in log if came]
    if not wrong:
        return Finding(check, True, f"{expected}: true in {len(log)} of {len(log)} cases")
    text = f"expected that {expected}; not so in {len(wrong)} of {len(log)} cases, first for {wrong[0]}; {remedy}"
    return Finding(check, False, text)


def _words_of(error: BaseException) -> str:
    return str(error) if isinstance(error, SegfaithError) else f"{type(error).__name__}: {error}"


def _ask(
    trial: _Trial, asked: str, model: SegmentationModel, image: Image, target: Target, image_id: str, draw: int = 0
) -> Map | None:
    """Calls the method once, and notes what the call left behind. Returns the map in [0, 1], or None if unusable."""
    trial.on_step(asked)
    copy, given, region = deepcopy(model), image.clone(), target.region.clone()
    came, raised = None, ""
    with global_state_kept() as changed:
        try:
            copied = replace(target, region=region)
            came = _explain(trial, trial.instance, copy, given, copied, image_id, draw)
        except (Exception, SystemExit) as error:
            raised = _words_of(error)
    trial.note("call", asked, raised)
    behind = left_behind(model, copy).items()
    left = {kind: listed("left on" if kind in ("hooks", "gradients") else "changed", names) for kind, names in behind}
    inputs = ["the image"] if edited(image, given) else []
    inputs += ["the region"] if edited(target.region, region) else []
    inputs += ["requires_grad of the image"] if given.requires_grad else []
    left |= {"global_state": listed("changed", changed), "inputs": listed("changed", inputs)}
    for check, wrong in left.items():
        if wrong or not raised:  # after an exception, only faults are noted
            trial.note(check, asked, wrong)
    return None if raised else _usable(trial, asked, came, (image.shape[1], image.shape[2]))


def _explain(
    trial: _Trial, method: MethodInstance, model: SegmentationModel, image: Image, target: Target, name: str, draw: int
) -> Any:
    """The unchecked output of a user's function, or the (H, W) map in [0, 1] of a method that reads evidence."""
    if method.method.needs == ("model",):
        return method.method.combine(model, image, target)
    rng, variants = sample_rng(trial.seed, name), clean_variant(image, target.region)
    batch = BatchSize(trial.batch_size)
    gathered = gather(model, variants, target, [method], batch, rng, score=False)
    return heatmaps(model, gathered, method, rng, name, draw)[0]


def _usable(trial: _Trial, asked: str, came: Any, size: tuple[int, int]) -> Map | None:
    """The returned map in [0, 1] on the CPU, or None; type, shape and values are noted."""
    try:
        values = _real(came)
    except Exception as error:  # whatever torch says of arrays and tensors that it cannot read
        trial.note("type", asked, str(error))
        return None
    trial.note("type", asked, "")
    shape = tuple(values.shape)
    hints = {
        size[::-1]: "; height and width are exchanged",
        (1, *size): "; return map[0]",
        (3, *size): "; reduce its channels, as map.abs().sum(0) does",
    }
    right = shape == size
    trial.note("shape", asked, "" if right else f"{shape} came for an image of {size}{hints.get(shape, '')}")
    if not right:
        return None
    bad = int((~values.isfinite()).sum())
    trial.note("finite", asked, f"{bad} of {values.numel()} values are NaN or infinite" if bad else "")
    return None if bad else minmax(values[None])[0]


def _real(came: Any) -> Tensor:
    """An array or tensor as float32 on the CPU."""
    values = torch.from_numpy(came) if isinstance(came, np.ndarray) else came
    if not isinstance(values, Tensor):
        raise TypeError(f"a {type(came).__name__} came")
    if values.is_complex():
        raise TypeError(f"complex values came ({values.dtype})")
    return values.detach().cpu().float()


def _try_closed_forms(trial: _Trial) -> None:
    """Checks maps of segmenters with known answers: constancy, repetition, dependence on the target, place."""

    def ask(case: Question) -> Map | None:
        return _ask(trial, case.words, case.model, case.image, case.target, case.image_id)

    blocks, corner = block_cases(), corner_case()
    answers = [(case, heatmap) for case in [*blocks, corner] if (heatmap := ask(case)) is not None]
    if answers:
        _repeat(trial, answers[0][0].words, answers[0][1], ask(answers[0][0]))
    for case, heatmap in answers:
        trial.note("constant", case.words, "a constant map came" if _flat(heatmap) else "")
    varied = [(case, heatmap) for case, heatmap in answers if not _flat(heatmap)]
    for (question, first), (other, second) in combinations(varied, 2):
        if differ := told_apart(question, other):
            wrong = f"two {differ} have the same map" if float((first - second).abs().mean()) <= ALIKE else ""
            trial.note("target", f"{question.words} and {other.words}", wrong)
    for case, heatmap in varied:
        if case.image_id != corner.image_id:
            trial.note("polarity", case.words, misplaced(case, heatmap))
        elif not any(wrong for _, wrong in trial.log["polarity"]):
            trial.note("outside", case.words, misplaced(case, heatmap))


def _repeat(trial: _Trial, asked: str, first: Map, second: Map | None) -> None:
    if second is not None:
        most = float((first - second).abs().max())
        trial.note("deterministic", asked, f"the second map differs by up to {most:.2g}" if most > SAME else "")


def _flat(heatmap: Map) -> bool:
    return float(heatmap.max() - heatmap.min()) < DEGENERATE_RANGE


def _try_scenes(trial: _Trial, model: SegmentationModel, scenes: int, size: int) -> list[Finding]:
    """Asks about scenes that the model predicts right, and compares the evidence score with the controls'."""
    controls = {name: resolve_method(name, {}) for name in RANDOM_CONTROLS}
    rows: list[tuple[str, dict[str, float]]] = []
    flat = right = 0
    for sample, target, planted in islice(_right_scenes(model, TRIED * scenes, size, trial.seed), scenes):
        right += 1
        asked, image = f"scene {sample.id} ({planted.kind})", sample.image.to(model.device)
        given = (image, replace(target, region=target.region.to(model.device)), sample.id)
        draws = [_ask(trial, asked, model, *given, draw) for draw in range(trial.instance.method.draws)]
        maps = [heatmap for heatmap in draws if heatmap is not None]
        if len(maps) < len(draws):
            continue
        if not rows:
            _repeat(trial, asked, maps[0], _ask(trial, asked, model, *given))
        flat += any(map(_flat, maps))
        scores = {trial.instance.name: _average_precision(maps, planted)}
        for control, method in controls.items():
            maps = [_explain(trial, method, model, *given, draw).cpu() for draw in range(method.method.draws)]
            scores[control] = _average_precision(maps, planted)
        rows.append((planted.kind, scores))
    if not right:
        words = f"expected scenes that {model.name} ({model.weights}) predicts right; of {TRIED * scenes} there is none"
        return [Finding("evidence", False, f"{words}; give a model that was trained on the scenes")]
    if rows:
        trial.note("constant", f"{len(rows)} scenes", f"{flat} constant maps" if flat > FLAT_SCENES * len(rows) else "")
    return [_above_controls(trial.instance.name, rows)] if rows else []


def _right_scenes(model: SegmentationModel, tried: int, size: int, seed: int) -> Iterator[_Asked]:
    """Scenes whose largest object is predicted right by evidence of a proven kind; the question is which twin it is."""
    dataset = open_scenes(None, "val", None, False)
    proven = [kind.strip() for kind in model.provenance.get("proven_kinds", "").split(",") if kind.strip()]
    for index in generator(seed, "", "conformance").permutation(len(dataset.ids))[:tried]:
        sample = dataset.load(dataset.ids[index], size)
        target = find_targets(sample.labels)[0]
        planted = sample.planted[target.class_index]
        if planted.kind == COUNTERPART or (proven and planted.kind not in proven):
            continue
        if majority_class(predicted_classes(model, sample.image).cpu(), target.region) == target.class_index:
            yield sample, replace(target, score="conditional", versus=dataset.twins[target.class_index]), planted


def _average_precision(maps: Sequence[Map], planted: Planted) -> float:
    """The average precision of maps as detectors of the evidence, averaged over a method's draws."""
    return mean(evidence_ap(heatmap, planted.alternatives) for heatmap in maps)


def _above_controls(name: str, rows: Sequence[tuple[str, Mapping[str, float]]]) -> Finding:
    def means(kind: str | None) -> dict[str, float]:
        chosen = [scores for shown, scores in rows if kind in (None, shown)]
        return {key: mean(scores[key] for scores in chosen) for key in (name, *RANDOM_CONTROLS)}

    def listing(scores: Mapping[str, float]) -> str:
        return ", ".join(f"{key} {value:.3f}" for key, value in scores.items())

    total, counts = means(None), Counter(kind for kind, _ in rows)
    parts = "; ".join(f"{kind} ({count}): {listing(means(kind))}" for kind, count in sorted(counts.items()))
    passed = total[name] > max(total[control] for control in RANDOM_CONTROLS)
    words = (
        "expected a higher mean average precision on the planted evidence than the random controls have; mean on "
        f"{len(rows)} scenes that the model predicts right: {listing(total)}; by kind: {parts}"
    )
    return Finding("evidence", passed, words if passed else f"{words}; see the maps: they miss what decides")
