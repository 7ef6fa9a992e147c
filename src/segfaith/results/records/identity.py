"""What makes two runs the same. `SETTINGS` says for every setting to which of four questions it matters:

    directory   may a run go on in this directory?                        `that_matter(settings, "directory")`
    suite       do two runs of one name belong to one suite?              `that_matter(settings, "suite")`
    label       do tables average two runs as runs of one data set?       `data_label(description)`
    run         are two runs the same draw of samples, model and seed?    `run_key(description)`

Tables name a data set by its label: the data set, its split, and the settings under which its samples, targets and
scores are made. Those that differ from the protocol (SPEC) stand in it, "voc2012 val, 320 px, k = 0.1". Methods'
parameters do not: a suite's ablations (another alpha, another grid) are runs of one data set.

Two runs with equal `run_key` are not independent, whatever else they hold: on samples that both have, they measure the
same maps again. Where no method that both hold has other parameters, `refuse_repeats` refuses the second by name. Where
a method has, the second run is an ablation (SPEC section 4: alpha = beta = 0.5, grid 7): the protocol's means over runs
count it, `ablation_notes` says so, and tests count both as one run.

A model is its name (file and function), args and weights: edited code under one name and weights is one model here.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zlib import crc32

from segfaith.errors import SettingsError


class Matters(NamedTuple):
    """To which questions a setting matters.

    Attributes:
        directory: a run goes on in its directory only with the same value.
        suite: a suite's directory takes a run of the same name only with the same value.
        run: runs with other values are runs of their own.
        label: how the label of a data set names a value; "" for a setting that does not stand in it.
        protocol: the value that no label names, and that makes no run of its own.
    """

    directory: bool = True
    suite: bool = True
    run: bool = False
    label: str = ""
    protocol: Any = None


NOWHERE = Matters(directory=False, suite=False)
DIRECTORY = Matters(suite=False)
START = "start"
"""The label of the settings with which every label begins: "voc2012 val"; of a folder also its name."""
SETTINGS: dict[str, Matters] = {
    "name": NOWHERE,
    "seed": Matters(run=True),
    "data.name": Matters(run=True, label=START),
    "data.root": Matters(directory=False, suite=False, run=True, label=START),  # the folder's name alone
    "data.split": Matters(run=True, label=START),
    "data.size": Matters(run=True, label="{} px", protocol=224),
    "data.n": Matters(),
    "data.ids": Matters(),
    "data.download": NOWHERE,
    "data.classes": Matters(),
    "data.range": Matters(run=True),
    "data.clip": Matters(run=True, protocol=False),
    "data.channels_first": Matters(run=True),
    "data.labels": Matters(run=True),
    "data.foreground": Matters(run=True),
    "data.ignore": Matters(run=True),
    "data.background": Matters(run=True),
    "data.display": NOWHERE,
    "data.wired": Matters(run=True, label="wired {}"),
    "model.name": Matters(suite=False, run=True),
    "model.args": Matters(run=True),
    "model.weights": Matters(suite=False, run=True),  # their digest, not their path
    "model.layer": Matters(),
    "model.channels": Matters(run=True),
    "model.mean": Matters(run=True),
    "model.std": Matters(run=True),
    "model.classes": Matters(),
    "model.head": Matters(run=True),
    "model.pad": Matters(run=True),
    "model.tile": Matters(run=True),
    "model.overlap": Matters(run=True),
    "model.output": Matters(run=True),
    "model.tokens": Matters(),
    "model.reshape": Matters(),
    "target.source": Matters(run=True, label="target by {}", protocol="ground_truth"),
    "target.class": Matters(run=True, label="target {}"),
    "target.classes": Matters(run=True, label="targets of {}"),
    "target.per_image": Matters(run=True, label="{} classes of an image", protocol="dominant"),
    "target.part": Matters(run=True, label="part {}", protocol="whole"),
    "target.width": Matters(run=True, label="{} px wide", protocol=3),
    "target.box": Matters(run=True, label="box {}"),
    "target.point": Matters(run=True, label="point {}"),
    "target.mask": Matters(suite=False, run=True, label="mask {}"),  # its name and digest, not its path
    "target.min_area": Matters(run=True, label="targets of at least {:g}", protocol=0),
    "target.score": Matters(run=True, label="score {}", protocol="probability"),
    "target.versus": Matters(run=True, label="versus {}"),
    "methods.names": Matters(),
    "methods.labels": NOWHERE,
    "evaluation.occlusion": Matters(run=True, label="{} occlusion", protocol="mean"),  # a label names the first alone
    "evaluation.k": Matters(run=True, label="k = {:g}", protocol=0.2),  # and of several k the first
    "evaluation.ignore": Matters(run=True, label="ignored pixels: {}", protocol="include"),
    "evaluation.ties": Matters(run=True, label="ties by {}", protocol="cell"),
    "evaluation.strength": Matters(run=True, label="strength {:g}", protocol=0.03),
    "evaluation.curves": Matters(),
    "evaluation.leakage": Matters(),
    "evaluation.stability": Matters(),
    "evaluation.whole": Matters(),
    "evaluation.own_null": Matters(),
    "evaluation.fidelity": Matters(run=True, label="fidelity by {} sets", protocol=96),
    "evaluation.fidelity_parts": Matters(run=True, label="fidelity by {}", protocol="grid"),
    "evaluation.fidelity_grid": Matters(run=True, label="fidelity grid {}", protocol=17),
    "evaluation.fidelity_size": Matters(run=True, label="fidelity sets of {}", protocol=8),
    "evaluation.fidelity_per": Matters(run=True, label="fidelity per {}", protocol="pixel"),
    "evaluation.fidelity_occlusion": Matters(run=True, label="fidelity by {} occlusion"),
    "output.maps": Matters(),
    "execution.device": DIRECTORY,
    "execution.shard_size": DIRECTORY,
    "execution.batch_size": NOWHERE,
    "execution.memory": NOWHERE,
    "execution.threads": NOWHERE,
    "execution.incremental": NOWHERE,
    "execution.compile": NOWHERE,
    "execution.executor": NOWHERE,
    "execution.address": NOWHERE,
    "execution.workers": NOWHERE,
    "execution.cores_per_worker": NOWHERE,
}
"""Every setting by table and key. Settings that are not named here, such as methods' parameters, matter to directory
and suite; those of [execution] to the directory alone. Other parameters of methods make no run of their own, see
`ablation_notes`."""


def that_matter(settings: Mapping[str, Any], question: Literal["directory", "suite", "run"]) -> dict[str, Any]:
    """The settings, as `run.json` holds them, without those that do not matter to the question; no empty tables."""

    def matters(place: str) -> bool:
        unnamed = DIRECTORY if place.startswith("execution.") else Matters()
        return bool(getattr(SETTINGS.get(place, unnamed), question))

    kept: dict[str, Any] = {}
    for name, value in settings.items():
        if name in SETTINGS or not isinstance(value, Mapping):
            kept |= {name: value} if matters(name) else {}
        elif table := {key: inner for key, inner in value.items() if matters(f"{name}.{key}")}:
            kept[name] = table
    return kept


def data_label(description: Mapping[str, Any]) -> str:
    """A run's data set, as tables name it: "voc2012 val"; a folder's with its name, "folder cells val".

    Settings other than the protocol's follow after commas (see `SETTINGS`), also those that `run.json` leaves out.
    Those of fidelity do not where it is 0: such a run has no fidelity, and the other numbers do not rest on them.
    """
    data, settings = description["data"], description.get("settings", {})
    root = folder(description)
    parts = [" ".join(part for part in (data["name"], root.name if root else "", data["split"]) if part)]
    unused = "evaluation.fidelity" if settings.get("evaluation", {}).get("fidelity") == 0 else None
    for place, row in SETTINGS.items():
        if row.label not in ("", START) and not (unused and place.startswith(unused)):
            table, _, key = place.partition(".")
            value = settings.get(table, {}).get(key, row.protocol)
            if isinstance(value, list):
                value = " ".join(map(str, value)) if table == "target" else value[0]
            if isinstance(value, Mapping):
                value = " ".join(f"{name} {number:g}" for name, number in value.items())
            value = Path(value).name if place == "target.mask" and value else value
            if value != row.protocol:
                parts.append("native size" if value == "native" else row.label.format(value))
    return ", ".join(parts)


def slug(label: str) -> str:
    """A label as part of an anchor or a file's name, different for different labels: "voc2012-val"."""
    plain = all(sign == " " or (sign.isascii() and sign.isalnum()) for sign in label)
    text = "".join(sign if sign.isascii() and sign.isalnum() else "-" for sign in label)
    return text if plain else f"{text}-{crc32(label.encode()):08x}"


def folder(description: Mapping[str, Any]) -> Path | None:
    """The root of a run on a folder of images; the other data sets are the same wherever they lie."""
    root = description.get("settings", {}).get("data", {}).get("root")
    return Path(root) if root and description["data"]["name"] == "folder" else None


_REMEDY = "name one of them, or run all methods in one directory"


def run_key(description: Mapping[str, Any]) -> str:
    """What a run is a draw of, as text: data with its protocol, target, model, weights and seed."""
    return json.dumps([_without_seed(description), description.get("settings", {}).get("seed")], sort_keys=True)


def _without_seed(description: Mapping[str, Any]) -> list[Any]:
    model = description["model"]
    digest = model.get("state_sha256") or model.get("file_sha256") or model.get("weights")
    settings = that_matter(description.get("settings", {}), "run").get("model", {}) | {"name": model["name"]}
    settings["weights"] = digest
    if settings.get("head") in (None, "logits"):  # which are assumed
        settings.pop("head", None)
    for key in ("pad", "tile", "overlap"):  # which earlier runs do not have
        if settings.get(key) is None:
            settings.pop(key, None)
    return [data_label(description), settings, _reading(description.get("settings", {}).get("data", {}))]


def _reading(data: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that say how files are read, without those left out: they matter to runs and stand in no label."""
    rows = {place.removeprefix("data."): row for place, row in SETTINGS.items() if place.startswith("data.")}
    return {
        key: data[key]
        for key, row in rows.items()
        if row.run and not row.label and data.get(key, row.protocol) != row.protocol
    }


def own_numbers(descriptions: Sequence[Mapping[str, Any]]) -> list[int]:
    """The number of each run, from 0; runs that are not of their own share one."""
    numbers: dict[str, int] = {}
    return [numbers.setdefault(run_key(description), len(numbers)) for description in descriptions]


def refuse_repeats(runs: Iterable[tuple[Path | str, Mapping[str, Any]]], remedy: str = _REMEDY) -> None:
    """Refuses a run that says what another one says, or that is another part of it.

    Args:
        runs: directories, or names, and descriptions of runs; `samples` of their data may be missing.
        remedy: what to do where both hold the same samples, or one holds all those of the other.

    Raises:
        SettingsError: two runs of one `run_key`, none of whose shared methods differs.
    """
    seen: dict[str, list[tuple[Path | str, Mapping[str, Any]]]] = {}
    for name, description in runs:
        known = seen.setdefault(run_key(description), [])
        for other, about in known:
            if not _differing(about, description):
                raise SettingsError(f"{other} and {name} {_repeated(about, description, remedy)}")
        known.append((name, description))


def ablation_notes(labels: Sequence[str], descriptions: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence on each run that is an ablation of an earlier one: what its means count again."""
    lines = []
    first: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for label, description in zip(labels, descriptions, strict=True):
        main, about = first.setdefault(run_key(description), (label, description))
        if about is not description:
            other = _differing(about, description)
            gain = " (but for TDD gain, from which random_cells is subtracted)" if "random_cells" in other else ""
            lines.append(
                f"{label} has the data, target, model, weights and seed of {main}, and other parameters, layer or code "
                f"of {', '.join(other) or 'none of its methods'}: the numbers of the other methods are the same on the "
                f"samples of both{gain}, and count once more in means and wins over runs; tests over images take both "
                "as one run."
            )
    return lines


def same_images_notes(labels: Sequence[str], descriptions: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence on runs of other seeds that have the very same samples: what their spread does not say."""
    groups: dict[str, dict[str, list[str]]] = {}
    for label, about in zip(labels, descriptions, strict=True):
        place = json.dumps([_without_seed(about), sorted(about["data"]["samples"])], sort_keys=True)
        groups.setdefault(place, {}).setdefault(run_key(about), []).append(label)
    return [
        f"{', '.join(label for named in seeds.values() for label in named)} have the same samples, model and weights: "
        "only what is drawn with the seed (ties, controls, noise) differs between their seeds, so their spread says "
        "nothing of other images."
        for seeds in groups.values()
        if len(seeds) > 1
    ]


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """The methods of both runs whose parameters, code or layer differ."""
    mine, theirs = one.get("methods", {}), other.get("methods", {})
    shared = [name for name in mine if name in theirs]
    if one["model"].get("layer") != other["model"].get("layer"):
        return shared
    sources = [about.get("identity", {}).get("sources", {}) for about in (one, other)]
    return [
        name
        for name in shared
        if mine[name].get("parameters") != theirs[name].get("parameters")
        or sources[0].get(name) != sources[1].get(name)
    ]


def _repeated(one: Mapping[str, Any], other: Mapping[str, Any], remedy: str) -> str:
    """In words, what two repeated runs share, in what they differ all the same, and what to do."""
    if one.get("identity_sha256") == other.get("identity_sha256") is not None:
        return "hold the same run; name one of them"
    mine, theirs = (list(about.get("methods", {})) for about in (one, other))
    samples = [set(about["data"].get("samples") or ()) for about in (one, other)]
    counts = f"{len(samples[0])} and {len(samples[1])} samples"
    seed = one.get("settings", {}).get("seed")
    what = (
        f"{data_label(one)}, {one['model']['name']} with the same weights, seed {seed}, and the same parameters of the "
        "methods they share"
    )
    if all(samples) and not (samples[0] <= samples[1] or samples[1] <= samples[0]):
        return (
            f"are parts of one run, not two: {what}; of their {counts} they share {len(samples[0] & samples[1])}. Make "
            "one run of all ids (data.ids) in one directory"
        )
    said = [f"{name} in one of them alone" for name in [*mine, *theirs] if (name in mine) != (name in theirs)]
    said += [counts] if all(samples) and samples[0] != samples[1] else []
    return f"hold the same run twice: {what}{' (' + '; '.join(said) + ')' if said else ''}; {remedy}"
