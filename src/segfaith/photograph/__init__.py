"""One photograph: the file is read, a target chosen, explained and measured, and all of it written into a folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from tifffile import imwrite
from torch import set_num_threads

from segfaith.api import explain_by
from segfaith.attribution.methods import refuse_repeated, resolve_method
from segfaith.benchmark.partition import check_grids
from segfaith.benchmark.setting_tables import Settings
from segfaith.benchmark.settings import make_settings
from segfaith.benchmark.warm_up import chosen_model
from segfaith.benchmark.worker import predicted_classes
from segfaith.classes import read_classes
from segfaith.data.images import fit_channels, read_image, resize_image
from segfaith.errors import SettingsError
from segfaith.explanation import Explanation, name_of
from segfaith.models.probe import probe
from segfaith.paths import map_name
from segfaith.photograph.target import Wanted, check, choose, listed, predicted_shares
from segfaith.results.records.files import replace_file, write_array
from segfaith.types import Image

__all__ = ["Explained", "Wanted", "explain_photo", "listed", "refuse_unread", "settings_of", "write"]

METHODS = ("gpa", "ega", "ria", "dea")
KEPT = (
    *("s", "s_target_deleted", "tdd", "tdd_gain", "s_off_deleted", "odd", "odd_abs", "leak_abs", "s_baseline"),
    *("tdd_drop", "tdd_drop_gain", "odd_drop", "odd_drop_abs"),
    *("s_inserted", "insertion_gain", "status", "reason"),
)
"""The columns of the records that `explanation.json` holds, where they are there."""


READ = (
    *("seed", "model", "methods", "execution", "evaluation.k", "evaluation.occlusion"),
    *("data.size", "data.range", "data.clip", "data.channels_first", "data.display", "data.classes"),
    *("data.labels", "data.foreground", "data.ignore", "data.background"),
    *("target.class", "target.score", "target.versus"),
)
"""The settings that say something of a photograph: keys, and tables that are read whole."""


@dataclass(frozen=True, eq=False)
class Explained:
    """A photograph's explanation, how its target was chosen, and the shares of the predicted classes, by name."""

    photo: Path
    explanation: Explanation
    chosen: str
    shares: Mapping[str, float]

    @property
    def content(self) -> dict[str, Any]:
        """What `explanation.json` holds: plain numbers, null where a score is undefined."""
        told, target = self.explanation, self.explanation.target
        height, width = told.subject.size
        rows = told.scores[[name for name in KEPT if name in told.scores]].to_dict("index")
        return {
            "photo": str(self.photo),
            "model": {"name": told.model.name, "weights": told.model.weights, "layer": told.model.layer},
            "head": told.model.head_words,
            "size": {"height": height, "width": width},
            "target": {
                "class": told.class_name,
                "class_index": int(target.class_index),
                "score": target.score,
                "versus": None if target.versus is None else name_of(told.model, target.versus),
                "versus_index": target.versus,
                "pixels": int(target.region.sum()),
                "chosen": self.chosen,
            },
            "predicted_shares": dict(self.shares),
            "k": told.k,
            "occlusion": told.occlusion,
            "seed": told.subject.seed,
            "scores": {str(name): {key: _plain(value) for key, value in row.items()} for name, row in rows.items()},
            "sentences": told.sentences,
            "refused": dict(told.refused),
        }


def explain_photo(photo: Path, settings: Settings, wanted: Wanted | None = None) -> Explained:
    """Explains and measures one photograph.

    Args:
        photo: any image file that `load_image` reads.
        settings: read are `seed`, `[model]`, `[data]` size, range, clip, channels_first, display, background, classes
            where the model has no names, and for a truth the keys of labels, `[target]` class, score and versus,
            `[methods]` and the first k and operator of `[evaluation]`.
        wanted: the region; by default the class's pixels in the prediction.

    Raises:
        SettingsError: a model, method, class or combination that cannot be used.
        SampleError: a photograph or mask that cannot be read, or a region that is not there.
    """
    wanted = wanted or Wanted()
    check(settings, wanted)
    tables = settings.methods.tables()
    methods = [resolve_method(name, tables) for name in settings.methods.names]
    refuse_repeated(methods)
    check_grids(methods, settings.evaluation, settings.data.size)
    read = read_image(photo, settings.data.reading)
    if settings.execution.threads:
        set_num_threads(settings.execution.threads)
    model = chosen_model(settings)
    if model.classes is None:
        model.classes = read_classes(settings.data.classes)
    image = resize_image(fit_channels(read.image, model.input_channels), settings.data.size)
    execution = settings.execution
    probe(model, image.to(model.device), execution.batches(model.device).tried)
    predicted = predicted_classes(model, image).cpu()
    shares = predicted_shares(model, predicted)
    target, chosen = choose(settings, wanted, model, read.image, read.orientation, predicted, shares)
    evaluation = settings.evaluation
    told = explain_by(
        model,
        image,
        target,
        methods,
        k=evaluation.fractions[0],
        occlusion=evaluation.occlusion[0],
        seed=settings.seed,
        batch_size=execution.batch_size,
        memory=execution.memory,
        lenient=True,
    )
    return Explained(photo, replace(told, display=_display(settings, image)), chosen, shares)


def _display(settings: Settings, image: Image) -> list[int] | None:
    """The channels that the panel shows; None: the first ones.

    Raises:
        SettingsError: the image lacks one.
    """
    display = settings.data.display
    if display is not None and max(display) > len(image) > 1:
        raise SettingsError(
            f"[data] display shows channel {max(display)} and the photograph has {len(image)}; channels count from 1"
        )
    return display


def settings_of(content: Mapping[str, Any]) -> Settings:
    """Settings for a photograph of a dictionary: by default the four methods of the paper.

    Raises:
        SettingsError: see `make_settings`; no model is named.
    """
    if not content.get("model", {}).get("name"):
        raise SettingsError("no model: give --model NAME (`segfaith list models`), or --config FILE with [model] name")
    methods = {"names": list(METHODS)} | dict(content.get("methods", {}))
    return make_settings({**content, "methods": methods})


def refuse_unread(overrides: Sequence[str]) -> None:
    """Lets settings of the command line (`KEY=VALUE`) pass that are read.

    Raises:
        SettingsError: one is of runs alone, so that it would do nothing.
    """
    for text in overrides:
        key = text.partition("=")[0].strip()
        if not any(f"{key}.".startswith(f"{read}.") or read.startswith(f"{key}.") for read in READ):
            raise SettingsError(
                f"--set {key}: explain does not read this setting, which is of runs; it reads {', '.join(READ)}. The "
                "region is that of --class, --point, --mask or --missed"
            )


def write(explained: Explained, folder: Path, *, npy: bool = False, tiff: bool = False) -> list[Path]:
    """Writes `panel.png` and `explanation.json`, and the maps as float32 (H, W) where asked: METHOD.npy, METHOD.tiff.

    Raises:
        StorageError: the folder cannot be written.
    """
    told, paths = explained.explanation, [folder / "panel.png", folder / "explanation.json"]
    content = json.dumps(explained.content, indent=1, ensure_ascii=False) + "\n"
    picture = told.png()
    replace_file(paths[0], lambda temporary: temporary.write_bytes(picture))
    replace_file(paths[1], lambda temporary: temporary.write_text(content, encoding="utf-8"))
    for name, heatmap in told.items():
        values, file = heatmap.cpu().numpy().astype(np.float32), folder / map_name(name)
        if npy:
            replace_file(file, partial(write_array, values=values))
            paths.append(file)
        if tiff:
            paths.append(file.with_name(file.name.removesuffix(".npy") + ".tiff"))
            tiff_file = BytesIO()
            imwrite(tiff_file, values)
            replace_file(paths[-1], partial(Path.write_bytes, data=tiff_file.getvalue()))
    return paths


def _plain(value: Any) -> Any:
    """A value for JSON: numbers as Python's, null for what is undefined."""
    if isinstance(value, str) or value is None:
        return value
    return float(value) if isfinite(value) else None
