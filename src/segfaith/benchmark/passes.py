"""How many passes through the model a sample costs."""

from collections.abc import Sequence
from typing import Any

from segfaith.attribution.explain import evidence_keys
from segfaith.attribution.libraries.entry import FAST, GRADIENTS, Scale, counted
from segfaith.attribution.methods import MethodInstance
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.setting_tables import Settings
from segfaith.evaluation.interventions import asked_for
from segfaith.perturbation import PERTURBATIONS


def passes_per_sample(
    methods: Sequence[MethodInstance],
    evaluation: EvaluationSettings,
    *,
    stability: bool,
    planted: bool = False,
    layer: str | None = None,
    scale: Scale | None = None,
) -> int:
    """Model passes of one sample: evidence for one variant or six, what methods run by themselves, and `map_passes`.

    Args:
        layer: the model's feature layer, or several joined by "+", each of which takes a pass of its own.
        scale: the image's size and the layers' channels; methods whose passes they leave open are not counted, see
            `uncounted`.
    """
    scale = scale or Scale(layers=(layer or "").count("+") + 1)
    gradients, regions = evidence_keys(methods)
    evidence = evidence_passes(methods, layer)
    own = sum(own_passes(method, scale) or 0 for method in methods)
    if stability:
        evidence += len(PERTURBATIONS) * (evidence if regions else layer_passes(gradients, layer))
        own += len(PERTURBATIONS) * own
    return evidence + own + map_passes(methods, evaluation, planted=planted)


def map_passes(methods: Sequence[MethodInstance], evaluation: EvaluationSettings, *, planted: bool) -> int:
    """Passes of a sample that measure maps: of the image, two per operator, three per map.

    Those of an operator are of its baseline: by the graph, and by the model itself to hold the graph against it.

    Of each map for each pair of operator and k three, the interventions with a curve; at k = 1 three for all maps
    together, where they alter the same pixels. Of each map at the first operator the others that are asked for: one
    for `odd_fair`, twelve for the curves over the whole image, three with `leakage = "detailed"`, sixteen with
    `own_null`, and with planted evidence one more, which maps that mark none of it outside M do without. Of all maps
    together one for each set of `fidelity`, of which small targets have fewer.
    """
    draws = sum(method.method.draws for method in methods)
    asked = asked_for({*evaluation.asked, *(["planted"] if planted else [])})
    curves = sum(entry.curve for entry in asked)
    altered = sum(curves * (1 if k == 1 else draws) for _, k in evaluation.pairs) + draws * (len(asked) - curves)
    return 1 + 2 * len(evaluation.occlusion) + altered + evaluation.fidelity


def scale_of(settings: Settings) -> Scale:
    """What is known of a run's images and layers before the model runs; no size where images keep their own."""
    size = settings.data.size
    return Scale(None if size == "native" else (size, size), (settings.model.layer or "").count("+") + 1)


def own_passes(method: MethodInstance, scale: Scale) -> int | None:
    """Passes that a method runs by itself for a map; None where the scale leaves them open, or nobody knows them."""
    if method.method.cost is not None:
        return method.method.cost.passes(method.parameters, scale)
    return None if "model" in method.method.needs else 0


def uncounted(methods: Sequence[MethodInstance], scale: Scale) -> list[str]:
    """The names of the methods whose own passes are not known."""
    return [method.name for method in methods if own_passes(method, scale) is None]


def cost_words(method: MethodInstance, scale: Scale) -> str:
    """The passes of a map in words; "" if it takes none. Of evidence, which methods share, a variant's."""
    gradients, regions = evidence_keys([method])
    layers = sum(scale.layers if layer is None else layer.count("+") + 1 for layer, _ in gradients)
    shared = [counted(layers, GRADIENTS)] if layers else []
    shared += [counted(asked.count + 1, FAST) for asked in regions]
    words = [" and ".join(shared) + ", shared"] if shared else []
    if own_passes(method, scale) != 0:
        words.append(
            "passes of its own" if method.method.cost is None else method.method.cost.words(method.parameters, scale)
        )
    return "; ".join(words)


def evidence_passes(methods: Sequence[MethodInstance], layer: str | None = None) -> int:
    """Model passes of a variant's shared evidence, at least one, which gives its score.

    Args:
        layer: as in `passes_per_sample`.
    """
    gradients, interventions = evidence_keys(methods)
    regions = sum(asked.count + 1 for asked in interventions)  # one for the clean image's features
    return max(1, layer_passes(gradients, layer)) + regions


def layer_passes(gradients: Sequence[tuple[str | None, Any]], layer: str | None) -> int:
    """One pass for each layer of each gradient evidence."""
    return sum((own or layer or "").count("+") + 1 for own, _ in gradients)
