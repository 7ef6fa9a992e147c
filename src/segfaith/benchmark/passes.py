"""How many passes through the model a sample costs."""

from collections.abc import Sequence
from typing import Any

from segfaith.attribution.explain import evidence_keys
from segfaith.attribution.methods import MethodInstance
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.evaluation.interventions import asked_for
from segfaith.perturbation import PERTURBATIONS


def passes_per_sample(
    methods: Sequence[MethodInstance],
    evaluation: EvaluationSettings,
    *,
    stability: bool,
    planted: bool = False,
    layer: str | None = None,
) -> int:
    """Model passes of one sample: evidence for one variant or six, the image, two per operator, three per map.

    Those of an operator are of its baseline: by the graph, and by the model itself to hold the graph against it.

    Of each map for each pair of operator and k three, the interventions with a curve; at k = 1 three for all maps
    together, where they alter the same pixels. Of each map at the first operator the others that are asked for: one
    for `odd_fair`, twelve for the curves over the whole image, three with `leakage = "detailed"`, sixteen with
    `own_null`, and with planted evidence one more, which maps that mark none of it outside M do without. Of all maps
    together one for each set of `fidelity`, of which small targets have fewer.

    Args:
        layer: the model's feature layer, or several joined by "+", each of which takes a pass of its own.
    """
    gradients, regions = evidence_keys(methods)
    evidence = evidence_passes(methods, layer)
    if stability:
        evidence += len(PERTURBATIONS) * (evidence if regions else layer_passes(gradients, layer))
    draws = sum(method.method.draws for method in methods)
    asked = asked_for({*evaluation.asked, *(["planted"] if planted else [])})
    curves = sum(entry.curve for entry in asked)
    altered = sum(curves * (1 if k == 1 else draws) for _, k in evaluation.pairs) + draws * (len(asked) - curves)
    return evidence + 1 + 2 * len(evaluation.occlusion) + altered + evaluation.fidelity


def evidence_passes(methods: Sequence[MethodInstance], layer: str | None = None) -> int:
    """Model passes of a variant's evidence, at least one, which gives its score; `layer` as in `passes_per_sample`."""
    gradients, interventions = evidence_keys(methods)
    regions = sum(asked.count + 1 for asked in interventions)  # one for the clean image's features
    return max(1, layer_passes(gradients, layer)) + regions


def layer_passes(gradients: Sequence[tuple[str | None, Any]], layer: str | None) -> int:
    """One pass for each layer of each gradient evidence."""
    return sum((own or layer or "").count("+") + 1 for own, _ in gradients)
