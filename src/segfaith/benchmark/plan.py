"""The plan of a run: which samples, which methods, how many model passes, and what makes two runs the same."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

from segfaith.attribution.maps import names_of_targets
from segfaith.attribution.methods import (
    REFERENCE,
    MethodInstance,
    refuse_repeated,
    resolve_method,
)
from segfaith.attribution.parameters import Parameters, RiaParameters
from segfaith.benchmark.partition import check_grids, check_partition
from segfaith.benchmark.passes import passes_per_sample, scale_of
from segfaith.benchmark.precision import automatic
from segfaith.benchmark.rows import GAIN_CONTROL
from segfaith.benchmark.setting_tables import DataSettings, MethodSettings, Settings
from segfaith.benchmark.settings import record_name
from segfaith.classes import read_classes
from segfaith.data.dataset import Dataset
from segfaith.data.datasets import DRAWN, open_dataset
from segfaith.data.wired import wire_samples
from segfaith.errors import SettingsError
from segfaith.models.inputs import IMAGENET_MEAN
from segfaith.models.segmentation import SegmentationModel
from segfaith.models.weights import file_digest
from segfaith.occlusion import NO_DATASET_MEAN
from segfaith.paths import inside
from segfaith.randomness import generator
from segfaith.results.records.identity import that_matter

GAMED = "gamed"
"""The control that wins the paper's metrics; it reads RIA's evidence, and runs where that is there anyway."""
RESULTS_VERSION = 12
"""Raised whenever a change moves a number; part of what makes two runs the same."""


@dataclass(frozen=True, eq=False)
class Plan:
    """All that is known before the model runs; `labels` has the label of each method that has one, by its name."""

    settings: Settings
    dataset: Dataset
    ids: list[str]
    stability_ids: frozenset[str]
    methods: list[MethodInstance]
    labels: dict[str, str] = field(default_factory=dict)

    @cached_property
    def shards(self) -> list[list[str]]:
        """The ids in pieces of `shard_size`; each becomes one file of records."""
        size = self.settings.execution.shard_size
        return [self.ids[start : start + size] for start in range(0, len(self.ids), size)]

    @property
    def passes(self) -> int:
        """Model passes of the whole run, if every sample has one target; at most, where evidence is planted.

        With several targets a sample it is the least: see `TargetSettings.several`. It is also the least where
        `passes.uncounted` names methods. Of wired photographs the passes of
        one photograph are counted.
        """
        evaluation, target = self.settings.evaluation, self.settings.target
        asked: dict[str, Any] = {
            "planted": self.planted,
            "layer": self.settings.model.layer,
            "scale": scale_of(self.settings),
        }
        stable = passes_per_sample(self.methods, evaluation, stability=True, **asked)
        plain = passes_per_sample(self.methods, evaluation, stability=False, **asked)
        total = len(self.stability_ids) * stable + (len(self.ids) - len(self.stability_ids)) * plain
        total += len(self.ids) if target.source != "ground_truth" else 0
        return total * (2 if self.settings.data.wiring and not self.planted else 1)

    @property
    def planted(self) -> bool:
        """See `is_planted`."""
        return is_planted(self.settings.data)


def is_planted(data: DataSettings) -> bool:
    """Whether it is known what decides a target: in scenes, and where one of two wired photographs does."""
    return data.name in DRAWN if data.wiring is None else data.wiring.kind is not None


def methods_of(settings: Settings) -> list[MethodInstance]:
    """The methods of a run: those of `resolve_methods`, and the truth where it is known.

    Raises:
        SettingsError: see `resolve_methods`.
    """
    methods = resolve_methods(settings.methods.names, settings.methods.tables())
    truth = MethodInstance(REFERENCE.name, REFERENCE, Parameters())
    return [*methods, *([truth] if is_planted(settings.data) else [])]


def resolve_methods(names: Sequence[Any], tables: dict[str, dict[str, Any]]) -> list[MethodInstance]:
    """The methods of a run, with the control that `tdd_gain` needs among them, and `gamed` where it costs no passes.

    Raises:
        SettingsError: an unknown method or parameter, or a name twice.
    """
    for name, table in tables.items():  # a misspelt parameter is an error even of a method that does not run
        resolve_method(name, {name: table})
    methods = [resolve_method(name, tables) for name in names]
    if GAIN_CONTROL not in [method.name for method in methods]:
        methods.append(resolve_method(GAIN_CONTROL, tables))
    refuse_repeated(methods, tables)
    methods += _gamed(methods, tables)
    return methods


def _gamed(methods: Sequence[MethodInstance], tables: dict[str, dict[str, Any]]) -> list[MethodInstance]:
    """The control `gamed` on the first interventions that a method needs; none where the run names it.

    Nor is there one where its own table asks for interventions that no method needs.
    """
    if any(method.method.name == GAMED for method in methods):
        return []
    for method in methods:
        variant = method.name.partition("@")[2].split(",")
        shared = ",".join(pair for pair in variant if pair.partition("=")[0] in RiaParameters.model_fields)
        chosen = {key: value for key, value in method.parameters if key in RiaParameters.model_fields}
        name = f"{GAMED}@{shared}" if shared else GAMED
        gamed = resolve_method(name, {GAMED: chosen | tables.get(GAMED, {})})
        if "intervention" in method.method.needs and gamed.intervention_key == method.intervention_key:
            return [gamed]
    return []


def method_labels(settings: MethodSettings, methods: Sequence[MethodInstance]) -> dict[str, str]:
    """The label of each method that has one, by the name under which the records call the method.

    Raises:
        SettingsError: a label for a method that does not run, or two methods that tables would call alike.
    """
    by_name: dict[str, str] = {}
    names = [method.name for method in methods]
    for given, label in settings.labels.items():
        short = record_name(given)
        if short not in names:
            raise SettingsError(
                f"methods.labels names {given!r}, which does not run; the methods of this run are {', '.join(names)}"
            )
        by_name[short] = label
    shown: dict[str, str] = {}
    for name in names:
        label = by_name.get(name, name)
        if label in shown:
            raise SettingsError(
                f"methods.labels: {shown[label]!r} and {name!r} would both be shown as {label!r}; give each method a "
                "label of its own"
            )
        shown[label] = name
    return by_name


def make_plan(settings: Settings) -> Plan:
    """Opens the data set, draws the samples and resolves the methods; no model is loaded.

    Raises:
        SettingsError: data that is not there, unknown methods, too many samples asked for, labels that do not fit.
    """
    dataset = _opened(settings, read_classes(settings.data.classes))
    methods = methods_of(settings)
    check_partition(methods, settings.evaluation)
    check_grids(methods, settings.evaluation, settings.data.size)
    return _drawn(settings, dataset, methods)


def _opened(settings: Settings, classes: list[str] | None) -> Dataset:
    data = settings.data
    dataset = open_dataset(
        data.name, data.root, data.split, classes=classes, download=data.download, reading=data.reading
    )
    return dataset if data.wiring is None else wire_samples(dataset, data.wiring, settings.seed)


def with_names(plan: Plan, model: SegmentationModel) -> Plan:
    """The plan with the model's class names, where those of the data follow from `[data] labels` or `foreground`.

    Raises:
        SettingsError: `labels` names a class that the model has not.
    """
    if model.classes is None or plan.dataset.named or list(model.classes) == list(plan.dataset.classes or ()):
        return plan
    try:
        return replace(plan, dataset=_opened(plan.settings, list(model.classes)))
    except SettingsError as error:
        raise SettingsError(
            f"[data] classes is left out, so the model's class names are taken, and {error}. Use the model's names in "
            "[data], or give the names of its classes by [model] classes"
        ) from error


def with_samples(plan: Plan, n: int | None) -> Plan:
    """The plan with another `data.n`, as `make_plan` would make it of such settings.

    Raises:
        SettingsError: more samples than the data set has.
    """
    data = plan.settings.data.model_copy(update={"n": n})
    return _drawn(plan.settings.model_copy(update={"data": data}), plan.dataset, plan.methods)


def _drawn(settings: Settings, dataset: Dataset, methods: list[MethodInstance]) -> Plan:
    """Draws the samples, and among them the samples on which stability is measured."""
    ids = dataset.choose(settings.data.n, settings.data.ids, settings.seed)
    stability = settings.evaluation.stability
    count = (len(ids) if stability else 0) if isinstance(stability, bool) else min(stability, len(ids))
    drawn = generator(settings.seed, "", "stability").permutation(len(ids))[:count]
    labels = method_labels(settings.methods, methods)
    return Plan(settings, dataset, ids, frozenset(ids[i] for i in drawn), methods, labels)


def check_classes(model: SegmentationModel, dataset: Dataset) -> None:
    """Holds the class names of model and data against each other, where both are known.

    Raises:
        SettingsError: the same index means different classes, so no score would mean anything.
    """
    if model.classes is None or dataset.classes is None or list(model.classes) == list(dataset.classes):
        return
    for index, (ours, theirs) in enumerate(zip(model.classes, dataset.classes, strict=False)):
        if ours != theirs:
            raise SettingsError(
                f"class {index} is {ours!r} for the model and {theirs!r} for the data; labels must be the model's "
                "channel indices with the same names: set [model] classes or [data] classes, or renumber the masks, in "
                "a folder by [data] labels with the model's names as [data] classes"
            )
    if len(dataset.classes) > len(model.classes):
        raise SettingsError(
            f"the data has {len(dataset.classes)} classes and the model {len(model.classes)}; set [model] classes to "
            "all of the model's classes, or use another model"
        )


def check_bands(model: SegmentationModel, plan: Plan) -> None:
    """Holds the occlusion operators of a plan against the number of the model's image channels.

    Raises:
        SettingsError: an operator is defined for RGB alone.
    """
    regions = [method.intervention_key for method in plan.methods]
    operators = {*plan.settings.evaluation.occlusion, *(asked.occlusion for asked in regions if asked)}
    operators.add(plan.settings.evaluation.fidelity_occlusion or plan.settings.evaluation.occlusion[0])
    if "dataset_mean" in operators and model.input_channels != len(IMAGENET_MEAN):
        raise SettingsError(NO_DATASET_MEAN.format(bands=model.input_channels))


def settings_in_use(plan: Plan, model: SegmentationModel) -> dict[str, Any]:
    """The settings as JSON, with the channels, mean and std that the model has where they are left to it."""
    settings = plan.settings.model_dump(mode="json", by_alias=True)
    settings["model"] |= {"channels": model.input_channels, "mean": list(model.mean), "std": list(model.std)}
    return settings


def identity(plan: Plan, model: SegmentationModel) -> dict[str, Any]:
    """What a run must share to go on in a directory: the settings that matter there, with digests for the paths."""
    settings = that_matter(settings_in_use(plan, model), "directory")
    settings["execution"]["device"] = model.device.type
    settings["methods"]["names"] = [method.name for method in plan.methods]
    settings["model"] |= {"weights": model.weights, "name": model.name, "classes": model.classes}
    if plan.settings.target.mask is not None:
        settings["target"]["mask"] = Path(plan.settings.target.mask).name
    settings["data"]["classes"] = list(plan.dataset.classes or []) or None
    return {
        "results_version": RESULTS_VERSION,
        "settings": settings,
        "weights_digest": model.provenance["state_sha256"],
        "data_digest": plan.dataset.digest(plan.ids),
        "sources": _sources(plan) | automatic(plan.methods, model.device),
        "samples": len(plan.ids),
    }


def _sources(plan: Plan) -> dict[str, str]:
    """SHA-256 of the user's own code and of maps computed elsewhere, and versions of libraries, by what they serve."""
    model = plan.settings.model
    given = [("model", model.name), *([("reshape", model.reshape)] if model.reshape else [])]
    given += [(method.name, name) for method, name in zip(plan.methods, plan.settings.methods.names, strict=False)]
    sources: dict[str, str] = {}
    for role, name in given:
        file, maps = Path(name.rpartition(":")[0]), Path(name.removeprefix("maps:"))
        if name.startswith("maps:"):
            names = [*plan.ids, *(names_of_targets(maps, plan.ids) if plan.settings.target.several else [])]
            files = [maps / f"{name}{ending}" for name in names for ending in (".npy", ".png")]
            sources[role] = digest({path.name: file_digest(path) for path in files if path.is_file()})
        elif file.suffix == ".py":
            sources[role] = file_digest(file)
    for method in plan.methods:
        if method.method.package is not None:
            sources[method.name] = method.method.package.version
    if plan.settings.target.mask is not None:
        mask = Path(plan.settings.target.mask)
        files = [mask / f"{sample_id}.png" for sample_id in plan.ids] if mask.is_dir() else [mask]
        sources["target mask"] = digest({path.name: file_digest(path) for path in files if path.is_file()})
    return sources


def digest(content: Any) -> str:
    """SHA-256 of a JSON value with sorted keys."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def differences(before: Any, now: Any, place: str = "") -> list[str]:
    """The leaves in which two JSON values differ, as "key: before -> now"."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = sorted({*before, *now})
        return [
            line for key in keys for line in differences(before.get(key), now.get(key), f"{place}.{key}".lstrip("."))
        ]
    same = json.dumps(before) == json.dumps(now)  # 1 and true are equal to Python
    return [] if same else [f"{place}: {before!r} -> {now!r}"]


def record_file(directory: Path, shard: int, kind: str = "records") -> Path:
    """Where a shard's rows lie: its existence is what makes the shard done. Raises what `paths.inside` raises."""
    return inside(directory, kind, f"{shard:05d}.parquet")
