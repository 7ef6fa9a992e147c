"""METHODS: every attribution method as one pure function, the evidence it needs, and its parameters.

A method's name may carry parameters, `dea@alpha=0.8,beta=0.2`. `maps:DIR` names heatmaps computed elsewhere, and
`package.module:function` or `path/to/file.py:function` a user's own method, a function of (model, image, target).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ValidationError

from segfaith.attribution import cam, controls, fusion, region
from segfaith.attribution.heatmap import minmax
from segfaith.attribution.libraries import LIBRARIES, library_entry, refuse_without_prefix
from segfaith.attribution.libraries.entry import Cost, Entry, Package, Question, SignParameters, signed
from segfaith.attribution.libraries.regions import ablation
from segfaith.attribution.maps import read_map
from segfaith.attribution.parameters import (
    CellParameters,
    DeaParameters,
    EgaParameters,
    GradientParameters,
    MeaParameters,
    Parameters,
    RiaParameters,
    RiseParameters,
    SobolParameters,
)
from segfaith.attribution.rise import rise
from segfaith.attribution.sobol import sobol
from segfaith.batching import BatchSize
from segfaith.constants import TRUTH
from segfaith.errors import SettingsError
from segfaith.evidence.gradient import Objective
from segfaith.evidence.regions import Regions
from segfaith.lookup import lookup, nearest
from segfaith.models.building import import_function
from segfaith.models.segmentation import SegmentationModel
from segfaith.paths import absolute
from segfaith.types import Float, Image, Int, InterventionEvidence, Map, Target, Tensor

Need = Literal["gradient", "intervention", "region", "partition", "rng", "model", "batch", "file", "evidence"]


@dataclass(frozen=True)
class Method:
    """A method by name.

    Attributes:
        needs: the keyword arguments of `combine`: `gradient` and `intervention` evidence; `region`, the target masks
            (N, H, W); `partition`, RIA's cells (N, H, W); `rng`, a generator per variant. `combine` then returns maps
            (N, H, W) in [0, 1]. If `model` is needed, combine(model, image, target) is called once per variant and
            returns an attribution (H, W); if `batch`, `rng` or `partition` are needed too, they are keywords of that
            call, for that variant. If `file` is needed, combine(name, size) is called for the clean image only, with
            the sample's id, or ID@TARGET for a target with a name. If `evidence` is needed, combine(evidence) is
            called for the clean image only, with the pixels of the planted evidence (H, W); where none is known, the
            method is skipped.
        combine: the method itself.
        paper: the method's source.
        parameters: the parameters that may be set, with their defaults.
        options: the parameters that `combine` takes by keyword; all others decide which evidence is gathered.
        inherits: methods whose settings apply to this method too, unless its own settings differ.
        draws: the number of independent maps whose scores are averaged.
        cost: the passes that a map takes beside shared evidence; None: none, or if `model` is needed not known.
        package: the package that it needs beside segfaith's own; a run's identity holds its version.
    """

    name: str
    paper: str
    needs: tuple[Need, ...]
    combine: Callable[..., Tensor]
    parameters: type[Parameters] = Parameters
    options: tuple[str, ...] = ()
    inherits: tuple[str, ...] = ()
    draws: int = 1
    cost: Cost | None = None
    package: Package | None = None


METHODS: dict[str, Method] = {
    "gpa": Method("gpa", "Seg-Grad-CAM: Vinogradova et al. 2020", ("gradient",), cam.gpa, GradientParameters),
    "ega": Method("ega", "Seg-XRes-CAM: Hasany et al. 2023", ("gradient",), cam.ega, EgaParameters, ("pool", "window")),
    "ria": Method("ria", "Sakib et al., section 3.2", ("intervention",), region.ria, RiaParameters),
    "dea": Method(
        "dea",
        "Sakib et al., equation 2",
        ("gradient", "intervention"),
        fusion.dea,
        DeaParameters,
        ("alpha", "beta", "pool", "window"),
        inherits=("ega", "ria"),
    ),
    "mea": Method(
        "mea",
        "ours, docs/fusion.md",
        ("gradient", "intervention"),
        fusion.mea,
        MeaParameters,
        ("alpha", "beta", "interpolation", "pool", "window"),
        inherits=("ega", "ria"),
    ),
    "random": Method("random", "control", ("region", "rng"), controls.random_pixels),
    "random_cells": Method(
        "random_cells",
        "control",
        ("partition", "rng"),
        controls.random_cells,
        RiaParameters,
        inherits=("ria",),
        draws=3,
    ),
    "mask": Method("mask", "control", ("region",), controls.mask),
    "gamed": Method("gamed", "control", ("intervention", "region"), controls.gamed, RiaParameters, inherits=("ria",)),
    "rise": Method(
        "rise",
        "Petsiuk et al. 2018",
        ("model", "batch", "rng"),
        rise,
        RiseParameters,
        ("masks", "cells", "keep", "fill"),
        cost=Cost(lambda own, scale: own.masks + 1),
    ),
    "sobol": Method(
        "sobol",
        "Fel et al. 2021",
        ("model", "batch", "rng"),
        sobol,
        SobolParameters,
        ("grid", "samples", "fill"),
        cost=Cost(lambda own, scale: own.samples * (own.grid**2 + 2) + 1),
        package=Package("SALib", "SALib", "sobol"),
    ),
}
OPTIONAL = ("mea", "rise", "sobol")
"""The methods that a run has only if it names them."""
DEFAULT_METHODS = tuple(name for name in METHODS if name not in OPTIONAL)
"""The methods of a run that names none: the paper's and the controls."""
ALIASES = {"seg-grad-cam": "gpa", "seg-xres-cam": "ega", "seg-hires-grad-cam": "ega"}
"""Names of papers for methods of `METHODS`. Records have the name that the user gave."""
REFERENCE = Method(TRUTH, "the planted evidence", ("evidence",), controls.truth)
"""The truth as a map. Runs add it where evidence is known; it cannot be named."""


@dataclass(frozen=True)
class MethodInstance:
    """A method with its parameters, under its name in the records."""

    name: str
    method: Method
    parameters: Parameters

    @property
    def options(self) -> dict[str, Any]:
        """The keyword parameters of `combine`."""
        return {key: getattr(self.parameters, key) for key in self.method.options}

    @property
    def gradient_key(self) -> tuple[str | None, Objective] | None:
        """Layer and objective of the gradient evidence that the method needs, or None."""
        if "gradient" not in self.method.needs:
            return self.intervention_key.guide if self.intervention_key else None
        chosen = self.parameters if isinstance(self.parameters, GradientParameters) else GradientParameters()
        return chosen.layer, chosen.objective

    @property
    def regions(self) -> Regions:
        """The regions of the method's intervention evidence, or of its partition."""
        chosen = self.parameters if isinstance(self.parameters, CellParameters) else RiaParameters()
        precision = chosen.precision if isinstance(chosen, RiaParameters) else "fp32"
        gradient = self.parameters if isinstance(self.parameters, GradientParameters) else GradientParameters()
        asked = Regions(chosen.grid, chosen.occlusion, chosen.regions, precision=precision)
        if chosen.regions != "adaptive":
            return asked
        guide = (gradient.layer, gradient.objective) if chosen.refine == "gradient" else None
        return replace(asked, passes=chosen.passes, refine=chosen.refine, guide=guide)

    @property
    def intervention_key(self) -> Regions | None:
        """The intervention evidence that the method needs, or None. Partitions other than grids come from it too."""
        if "intervention" in self.method.needs or ("partition" in self.method.needs and self.regions.kind != "grid"):
            return self.regions
        return None


def resolve_method(name: str | Method, settings: Mapping[str, Mapping[str, Any]]) -> MethodInstance:
    """The method that `name` stands for, with parameters from its defaults, `settings` and the name itself.

    Args:
        name: `gpa`, `dea@alpha=0.8,grid=7`, `captum:Saliency`, `maps:DIR`, `package.module:function`,
            `path/to/file.py:function`, or a `Method`. Records keep only the last part of a path: `maps:DIR`,
            `file.py:function`.
        settings: parameters by method name, as in a settings file's `[methods]`.

    Raises:
        SettingsError: unknown method or parameter, a value out of its range, or a package is not installed.
    """
    if isinstance(name, Method):
        return MethodInstance(name.name, name, name.parameters())
    if name.startswith("maps:"):
        return _maps_method(name)
    stem = name.partition("@")[0]
    if (entry := library_entry(stem)) is not None:
        return _library_method(name, entry, settings.get(stem, {}))
    if ":" in name:
        return _foreign_method(name)
    if stem == TRUTH:
        raise SettingsError(
            f"method {name!r} cannot be named: it is the planted evidence as a map, and is measured by itself in runs "
            "whose evidence is known; leave it out"
        )
    stem = ALIASES.get(stem, stem)
    if stem.endswith(".py"):
        raise SettingsError(f"method {name!r} names a file; expected FILE.py:FUNCTION, as in {stem}:explain")
    refuse_without_prefix(stem)
    method = lookup("method", stem, METHODS)
    if method.package and method.package.missing:
        raise SettingsError(f"method {name!r}: {method.package.missing}")
    known = method.parameters.model_fields
    values: dict[str, Any] = {}
    for parent in method.inherits:
        values |= {key: value for key, value in settings.get(parent, {}).items() if key in known}
    values |= settings.get(stem, {})
    return MethodInstance(name, method, _parameters(name, method.parameters, values))


def _parameters(name: str, kind: type[Parameters], values: dict[str, Any]) -> Parameters:
    """Parameters from `values` and from what follows "@" in the name.

    Raises:
        SettingsError: an unknown parameter, or a value out of its range.
    """
    named: dict[str, str] = {}
    for pair in filter(None, name.partition("@")[2].split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise SettingsError(f"method {name!r}: expected name@key=value, got {pair!r} after '@'")
        named[key] = value
    try:
        found = kind.model_validate(values | named)
        if isinstance(found, CellParameters):
            found.check_used(named)
        return found
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "value"
        known = ", ".join(kind.model_fields) or "no parameters"
        words = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            close = nearest(place, kind.model_fields, 1)
            words = "unknown" + (f"; did you mean {close[0]!r}?" if close else "")
        raise SettingsError(f"method {name!r}, parameter {place}: {words}; it has {known}") from error
    except ValueError as error:
        raise SettingsError(f"method {name!r}: {error}") from error


def refuse_repeated(methods: Sequence[MethodInstance], tables: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Refuses two methods of one name, by which maps and records tell them apart, and one method in two spellings.

    A method whose table of settings makes it the same as one of its variants is let through: a study of parameters has
    both, as `dea` with alpha = 0.5 and `dea@alpha=0.5`.

    Raises:
        SettingsError: there are such methods.
    """
    given = {key for table in (tables or {}).values() for key in table}
    names: set[str] = set()
    spellings: dict[Any, str] = {}
    for method in methods:
        if method.name in names:
            raise SettingsError(f"method {method.name!r} is named twice; name each method once")
        names.add(method.name)
        keys = given & {pair.partition("=")[0] for pair in method.name.partition("@")[2].split(",")}
        same = spellings.setdefault((method.method.name, repr(method.parameters), *sorted(keys)), method.name)
        if same != method.name:
            raise SettingsError(f"methods {same!r} and {method.name!r} are one method in two spellings; leave one out")


def _library_method(name: str, entry: Entry, table: Mapping[str, Any]) -> MethodInstance:
    """A library's method, which runs on the user's model as the user's own methods do; `table`: its settings."""
    parameters = _parameters(name, entry.parameters, dict(table))
    stem = name.partition("@")[0]
    sign = parameters.sign if isinstance(parameters, SignParameters) else "positive"
    package = LIBRARIES[stem.partition(":")[0]].package
    if entry.explain is None:

        def of_drops(intervention: InterventionEvidence) -> Float[Tensor, "N H W"]:
            return minmax(signed(ablation(intervention), sign)).float()

        ablates = Method(
            stem, entry.paper, ("intervention",), of_drops, entry.parameters, cost=entry.cost, package=package
        )
        return MethodInstance(name, ablates, parameters)
    explain = entry.explain

    def combine(
        model: SegmentationModel,
        image: Image,
        target: Target,
        batch: BatchSize,
        rng: np.random.Generator,
        partition: Int[Tensor, "H W"] | None = None,
    ) -> Map:
        question = Question(name, model, image, target, parameters, batch, rng, partition)
        return signed(explain(question), sign)

    needs: tuple[Need, ...] = ("model", "batch", "rng", *(("partition",) if entry.cells else ()))
    explains = Method(stem, entry.paper, needs, combine, entry.parameters, cost=entry.cost, package=package)
    return MethodInstance(name, explains, parameters)


def _maps_method(name: str) -> MethodInstance:
    text = name.removeprefix("maps:")
    folder = absolute(text, Path.cwd())
    if not folder.is_dir():
        raise SettingsError(f"method {name!r}: no folder {text}; expected a folder with ID.npy or ID.png per sample")

    def combine(name: str, size: tuple[int, int]) -> Map:
        return read_map(folder, name, size)

    short = f"maps:{folder.name}"
    return MethodInstance(short, Method(short, "computed elsewhere", ("file",), combine), Parameters())


def _foreign_method(name: str) -> MethodInstance:
    place, _, function = name.rpartition(":")
    short = f"{Path(place).name}:{function}" if place.endswith(".py") else name
    return MethodInstance(short, Method(short, "given by the user", ("model",), import_function(name)), Parameters())
