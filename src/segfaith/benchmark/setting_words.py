"""SETTINGS: every key of a settings file with its default and a line of words, for `segfaith list settings`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from segfaith.benchmark.setting_tables import Settings

WORDS: Mapping[str, str] = {
    "name": "names the run and its default directory, runs/NAME",
    "seed": "of samples, controls and random weights",
    "data.name": "a name of `segfaith list datasets`",
    "data.root": "folder of the data; scenes have none",
    "data.split": "such as val or train",
    "data.size": 'side of the square to which images are resized, or "native"',
    "data.n": "samples, drawn with the seed; left out: all",
    "data.ids": "samples by id, in place of n",
    "data.download": "fetch the data first",
    "data.classes": 'of a folder: a list, "voc", or a file with a name a line; left out: root/classes.txt',
    "data.range": "values that become 0 and 1: [LOW, HIGH], or a pair a channel; left out: 0 to 255 for 8 bits",
    "data.clip": "values outside range become 0 or 1",
    "data.channels_first": "whether arrays are (C, H, W); left out: the sizes tell",
    "data.labels": "classes by mask value or colour, or the name of a table; left out: values are class indices",
    "data.foreground": "the mask value that is class 1, where 0 is the background",
    "data.ignore": "mask values that belong to no class; left out: 255",
    "data.background": 'the class that is never a dominant target, or "none"; left out: class 0',
    "data.display": "three channels, counted from 1, shown as red, green and blue",
    "data.wired": 'two photographs side by side: "straight", "crossed" or { blend = NUMBER }; left out: single ones',
    "model.name": "a name of `segfaith list models`, FILE.py:FUNCTION, or package.module:FUNCTION",
    "model.args": "keyword arguments of the function",
    "model.weights": 'a file, or "random"; left out: the model\'s own',
    "model.layer": "feature layer of the gradient methods; left out: the named model's own",
    "model.channels": "of its images; left out: as the first convolution reads",
    "model.mean": "a value a channel, of images in [0, 1]; left out: ImageNet's for three channels",
    "model.std": "as mean",
    "model.classes": 'names by output channel: a list, "voc", or a file with a name a line',
    "model.head": "softmax, sigmoid, logits or probabilities: what the outputs are",
    "model.output": "the name or place of the logits among the module's outputs",
    "model.tokens": "how many tokens before those of the image a transformer's layer has",
    "model.reshape": "FILE.py:FUNCTION that gives a layer's output the shape (N, K, h, w)",
    "model.pad": "images are padded to multiples of this number of pixels",
    "model.tile": "side of the tiles in which a large image goes through the model, or [height, width]",
    "model.overlap": "of neighbouring tiles, in pixels",
    "target.source": "ground_truth, prediction, hit, missed or false_alarm",
    "target.class": "name or index; left out: the class with the most pixels",
    "target.classes": "only these classes",
    "target.per_image": "dominant, or all classes",
    "target.part": "whole, largest, smallest, each, boundary or interior",
    "target.width": "of the boundary, in pixels of the evaluated size",
    "target.box": "[top, left, bottom, right], half-open, in pixels of the evaluated size",
    "target.point": "[row, column] in pixels of the evaluated size: the region that holds it",
    "target.mask": "a drawn region: a PNG, or a folder with ID.png",
    "target.min_area": "least pixels of a target, or share of the image if below 1",
    "target.score": "probability, conditional (on the class or versus), logit, log_odds or margin",
    "target.versus": 'of conditional and margin: the other class, "predicted", or "twin"; left out: the strongest',
    "methods.names": "names of `segfaith list methods`, NAME@KEY=VALUE, FILE.py:FUNCTION, or maps:FOLDER",
    "methods.labels": "how tables and figures call a method",
    "methods.gpa": "its parameters",
    "methods.ega": "its parameters",
    "methods.ria": "its parameters, also those of DEA's regions",
    "methods.dea": "its parameters",
    "methods.random_cells": "its parameters",
    "evaluation.k": "share of the pixels that is deleted; or several, the first for the records",
    "evaluation.occlusion": "operators of `segfaith list occlusions`, the first for the records",
    "evaluation.curves": "all combinations of k and operator, or each at the other's first",
    "evaluation.leakage": "plain, or detailed: also by number of pixels and distance",
    "evaluation.stability": "true, false, or on how many samples",
    "evaluation.strength": "of the five perturbations",
    "evaluation.ties": "cell or pixel: how equal values of a map are ordered",
    "evaluation.ignore": "include or exclude pixels labelled 255 outside the target",
    "evaluation.whole": "deletion and insertion curves over all pixels",
    "evaluation.own_null": "also compare each map with shifted copies of itself",
    "evaluation.fidelity": "sets of regions that fidelity occludes; 0: no fidelity",
    "evaluation.fidelity_parts": "grid or superpixels: what the sets are made of",
    "evaluation.fidelity_grid": "cells a side; one that no method uses",
    "evaluation.fidelity_size": "cells a set, at most",
    "evaluation.fidelity_per": "pixel or set: whether drops and maps are divided by a set's pixels",
    "evaluation.fidelity_occlusion": "operator; left out: the first of evaluation.occlusion",
    "output.maps": "keep maps and pictures",
    "execution.device": "cpu, cuda, cuda:1, or auto",
    "execution.batch_size": "images a pass, at most; left out: 16, for small networks up to 49, or as memory allows",
    "execution.memory": 'what the model\'s passes may take, as in "4GB"; batches follow from it',
    "execution.shard_size": "samples a file of records",
    "execution.threads": "of torch; left out: its own choice",
    "execution.incremental": "recompute only what an intervention changes",
    "execution.executor": "serial (this process), ray (worker processes), or auto",
    "execution.address": 'of a running Ray, or "auto" to find it; left out: workers on this machine',
    "execution.workers": "at most so many; left out: as many as have a place",
    "execution.cores_per_worker": "left out: as threads, or else as a short calibration says",
    "execution.compile": "whole images through torch.compile instead",
}
"""By key, in the order of the tables; docs/settings.md says more."""


@dataclass(frozen=True)
class SettingEntry:
    """A key: `meaning` has its default, "-" for none, and what it is."""

    meaning: str


def keys_of(table: type[BaseModel], place: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a table of settings with its default, `...` where it must be given."""
    for name, field in table.model_fields.items():
        key = f"{place}{field.alias or name}"
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from keys_of(kind, f"{key}.")
        else:
            yield key, ... if field.is_required() else field.get_default(call_default_factory=True)


def _shown(default: Any) -> str:
    """A default as a settings file has it."""
    if default is ...:
        return "(must be given)"
    if default is None:
        return "-"
    if isinstance(default, list):
        return f"[{', '.join(map(_shown, default))}]"
    return str(default).lower() if isinstance(default, bool) else str(default) if default != "" else '""'


SETTINGS: Mapping[str, SettingEntry] = {
    key: SettingEntry(f"{_shown(default)}: {WORDS.get(key, 'see docs/settings.md')}")
    for key, default in keys_of(Settings)
}
"""By key, as `--set KEY=VALUE` takes it."""
