"""Which runs are runs of their own: independent ones differ in data, target, model, weights or seed.

Two runs that share all of these measure the same maps of the same images again, whatever else they hold, so that they
must not count as two. Where no method that both hold has other parameters, one of them says nothing new, and
`refuse_repeats` refuses it by name. Where one has, the second is an ablation (SPEC section 4: alpha = beta = 0.5, grid
7): the protocol's means over runs count it, `ablation_notes` says so, and tests count both as one run.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from segfaith.errors import SettingsError
from segfaith.results.labels import data_label

_NO_FIGURES = ("name", "weights", "layer", "classes")
"""Of [model], what stands in the key by itself, or changes no score."""


def key(description: Mapping[str, Any]) -> str:
    """Data with its protocol and target, model, weights and seed of a run, as text; equal ones are one run."""
    model, settings = description["model"], description.get("settings", {})
    source = description.get("identity", {}).get("sources", {}).get("model")
    name = [source, model["name"].rpartition(":")[2]] if source else [model["name"]]
    digest = model.get("state_sha256") or model.get("file_sha256") or model.get("weights")
    others = {name: value for name, value in settings.get("model", {}).items() if name not in _NO_FIGURES}
    return json.dumps([data_label(description), name, others, digest, settings.get("seed")], sort_keys=True)


def own_numbers(descriptions: Sequence[Mapping[str, Any]]) -> list[int]:
    """The number of each run, from 0; runs that are not of their own share one."""
    found: dict[str, int] = {}
    return [found.setdefault(key(one), len(found)) for one in descriptions]


def refuse_repeats(runs: Iterable[tuple[Path, Mapping[str, Any]]]) -> None:
    """Refuses a run that says what another one says.

    Args:
        runs: directories and descriptions of runs.

    Raises:
        SettingsError: two runs of one key, none of whose shared methods differs.
    """
    seen: dict[str, list[tuple[Path, Mapping[str, Any]]]] = {}
    for directory, description in runs:
        known = seen.setdefault(key(description), [])
        for other, about in known:
            if not _differing(about, description):
                raise SettingsError(
                    f"{other} and {directory} hold the same run{_apart(about, description)}; name one of them"
                )
        known.append((directory, description))


def ablation_notes(labels: Sequence[str], descriptions: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence on each run that is an ablation of an earlier one: what its means count again."""
    lines = []
    first: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for label, description in zip(labels, descriptions, strict=True):
        main, about = first.setdefault(key(description), (label, description))
        if about is not description:
            lines.append(
                f"{label} has the data, target, model, weights and seed of {main}, and other parameters of "
                f"{', '.join(_differing(about, description)) or 'none of its methods'}: the numbers of the other "
                "methods are the same, and count once more in means and wins over runs; tests over images take both "
                "as one run."
            )
    return lines


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


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """In words, what two repeated runs share and in what they differ all the same; nothing for copies."""
    if one.get("identity_sha256") == other.get("identity_sha256") is not None:
        return ""
    mine, theirs = (list(about.get("methods", {})) for about in (one, other))
    counts = [len(about["data"]["samples"]) for about in (one, other)]
    said = [f"{name} in one of them alone" for name in [*mine, *theirs] if (name in mine) != (name in theirs)]
    said += [f"{counts[0]} and {counts[1]} samples"] if counts[0] != counts[1] else []
    seed = one.get("settings", {}).get("seed")
    return (
        f" twice: {data_label(one)}, {one['model']['name']} with the same weights, seed {seed}, and the same "
        f"parameters of the methods they share{' (' + '; '.join(said) + ')' if said else ''}"
    )
