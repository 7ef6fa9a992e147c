"""Every metric of maps whose worth is known (`known_maps`): the data on which metrics are judged.

Each sample is measured as it is asked for, with doses of evidence, styles and forms beside the methods and `VARIANTS`
of them. Then the methods' maps alone are measured again: with other occlusion operators, with another seed, and in
scenes with the true removal, where an occluded pixel shows the scene that was drawn without the evidence.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from math import nan
from typing import Any

import pandas as pd
import torch

from segfaith.api import given_map
from segfaith.attribution.methods import MethodInstance
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.measuring import subject_of
from segfaith.benchmark.prepared import Prepared
from segfaith.benchmark.rows import GAIN_CONTROL
from segfaith.benchmark.targeting import load_sample
from segfaith.benchmark.worker import evaluate_sample
from segfaith.constants import REMOVAL, TRUTH, WIRED_CROSSED, WIRED_STRAIGHT
from segfaith.data.scenes import scene_of
from segfaith.data.scenes.edits import without_evidence
from segfaith.data.scenes.rendering import paint
from segfaith.errors import SampleError
from segfaith.evaluation.subject import Subject
from segfaith.planted.known_maps import FORMS, STYLES, doses
from segfaith.results.records.select import is_control
from segfaith.results.statistics.judgement import ASKED, SEED
from segfaith.types import Map

BASIC = ("gpa", "ega", "ria", "dea", "mask")
VARIANTS = (
    *("gpa@objective=prob", "ega@window=4", "ria@grid=7", "ria@grid=10"),
    *("dea@alpha=0.35", "dea@alpha=0.8", "dea@beta=0"),
)
"""Cheap variants: metrics and truth rank them together with the methods, since four are too few for a ranking."""
STYLED = ("ega", "ria")
FORMED = "ria"
FILLS = ("blur", "mean", "noise")
"""Occlusion operators; the maps are measured again with the first that the settings do not name."""


def measure(prepared: Prepared, on_sample: Callable[[str], None] = lambda sample_id: None) -> pd.DataFrame:
    """Every metric of every map whose worth is known, over the samples of a run, each with its first target.

    Args:
        prepared: a run of the methods `BASIC` and `VARIANTS`.
        on_sample: told each sample's id when it is done.

    Returns:
        A row for each sample, map and measurement: the columns of the records, and `measured` (`ASKED`, `SEED`, or an
        operator), `role` (method, dose, style or form), `of` (the method whose style or form it is), `dose` (NaN but
        for doses) and `usable` (whether the planted evidence is known to decide: the model predicts the target right
        and was proven to decide by evidence of its kind). Samples without a target are left out; `attrs["left_out"]`
        says why, by id.
    """
    left_out: dict[str, str] = {}
    frames = []
    for sample_id in prepared.plan.ids:
        try:
            frames.append(_measured(prepared, sample_id))
        except Exception as error:  # one sample's failure leaves the others
            left_out[sample_id] = str(error) if isinstance(error, SampleError) else f"{type(error).__name__}: {error}"
        on_sample(sample_id)
    frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()
    frame.attrs["left_out"] = left_out
    return frame


def _measured(prepared: Prepared, sample_id: str) -> pd.DataFrame:
    """The rows of one sample."""
    plan = prepared.plan
    sample = load_sample(plan, prepared.model, sample_id)
    subject = subject_of(prepared, sample_id, sample, prepared.targets(sample)[0], prepared.batch)
    settings = plan.settings.evaluation
    methods = [method for method in plan.methods if method.name != TRUTH]  # it is the dose 1
    first = evaluate_sample(subject, methods, settings, stability=False)
    maps = {name: torch.from_numpy(values).to(subject.image.device) for name, values in first.maps.items()}
    control = [method for method in plan.methods if method.name == GAIN_CONTROL]
    rows = [_row(row, ASKED, "method") for row in first.records]
    known = list(_known(subject, maps))
    given = [given_map(name, heatmap) for name, heatmap, *_ in known]
    for row in _records(subject, [*control, *given], settings):
        rows += [_row(row, ASKED, *about) for name, _, *about in known if name == row["method"]]
    ranked = [*control, *(given_map(name, maps[name]) for name in maps if not is_control(name))]
    rows += [_row(row, SEED, "method") for row in _records(replace(subject, seed=subject.seed + 1), ranked, settings)]
    fill = next(name for name in FILLS if name not in (settings.occlusion[0], settings.fidelity_occlusion))
    rows += [_row(row, fill, "method") for row in _records(subject, ranked, _filled(settings, fill))]
    if (removed := _removed(prepared, subject)) is not None:
        rows += [_row(row, REMOVAL, "method") for row in _records(removed, ranked, _filled(settings, REMOVAL))]
    return pd.DataFrame(rows).assign(usable=[_usable(prepared, row) for row in rows])


def _row(record: dict[str, Any], measured: str, role: str, of: str = "", dose: float = nan) -> dict[str, Any]:
    return record | {"measured": measured, "role": role, "of": of, "dose": dose}


def _records(subject: Subject, methods: Sequence[MethodInstance], settings: EvaluationSettings) -> list[dict[str, Any]]:
    """The rows of the maps, without those of the control that `tdd_gain` needs."""
    rows = evaluate_sample(subject, methods, settings, stability=False).records
    return [row for row in rows if row["method"] != GAIN_CONTROL]


def _filled(settings: EvaluationSettings, fill: str) -> EvaluationSettings:
    """The settings with another operator for everything."""
    return settings.model_copy(update={"occlusion": [fill], "fidelity_occlusion": fill})


def _known(subject: Subject, maps: dict[str, Map]) -> Iterator[tuple[Any, ...]]:
    """Doses of a subject's evidence, and the styles and forms of the methods' maps: name, map, role, of, dose."""
    for dose, heatmap in doses(subject):
        yield f"dose {dose:+.2f}", heatmap, "dose", "", dose
    for method in (name for name in STYLED if name in maps):
        for style, change in STYLES.items():
            yield f"{method} {style}", change(maps[method]), "style", method
    if FORMED in maps:
        for form, build in FORMS.items():
            yield form, build(maps[FORMED], subject.target.region), "form", FORMED


def _removed(prepared: Prepared, subject: Subject) -> Subject | None:
    """The subject with the scene that was drawn without its evidence, for the operator `REMOVAL`; scenes are RGB."""
    known = prepared.plan.dataset.name == "scenes" and not subject.model.wired and subject.evidence is not None
    if not known or len(subject.image) != 3:
        return None
    scene = scene_of(subject.id)
    (index,) = [i for i, body in enumerate(scene.bodies) if scene.label(body) == subject.target.class_index]
    image, _ = paint(without_evidence(scene, index), subject.size[0])
    return replace(subject, without=image.to(subject.image.device))


def _usable(prepared: Prepared, row: dict[str, Any]) -> bool:
    """See `results.statistics.evidence.usable`, which says the same of runs."""
    if row.get("kind") in (WIRED_STRAIGHT, WIRED_CROSSED):
        return True
    proven = prepared.model.provenance.get("proven_kinds", "").split(",")
    return row.get("kind") in proven and row.get("majority_class") == row.get("class_index")
