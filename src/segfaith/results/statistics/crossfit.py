"""Cross-fitted rankings: methods scored by operators that none of them was built with.

RIA occludes the image to make its map, and DEA takes RIA's evidence. Scores by the same occlusion operator favour both.
With U the operators that any method under test was built with, and V the other operators that the runs measured,

    cross-fitted value = mean over V of the method's mean under the operator

It is the same V for all methods, gradient maps too, and the same images: so the values can be compared.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from segfaith.results.records.runs import Run
from segfaith.results.statistics.curves import explained, first_setting
from segfaith.results.statistics.rankings import LEAST_IMAGES, Complete, ranked

CROSSFIT_COLUMNS = [
    *("data", "metric", "method", "built_with", "building", "mean_building", "rank_building"),
    *("others", "mean_crossfitted", "rank_crossfitted", "images"),
]
Built = Mapping[str, Sequence[str]]


def building_operators(runs: Sequence[Run], methods: Sequence[str]) -> dict[str, list[str]]:
    """The occlusion operators that each method's maps were made with, in any of the runs; none for gradient maps.

    They are the parameter `occlusion` in `run.json`. Of maps that were given and of a user's own function nothing is
    known: see `unknown`.
    """
    built: dict[str, list[str]] = {name: [] for name in methods}
    for run in runs:
        for name, about in run.description.get("methods", {}).items():
            operator = (about.get("parameters") or {}).get("occlusion")
            if name in built and operator and operator not in built[name]:
                built[name].append(str(operator))
    return built


def unknown(methods: Sequence[str]) -> list[str]:
    """The methods of which no run says how they were built: given maps and a user's own functions."""
    return [name for name in methods if ":" in name]


def union(built: Built) -> list[str]:
    """The operators that any method was built with, each once."""
    return list(dict.fromkeys(operator for operators in built.values() for operator in operators))


def cross_fitted(values: Complete, built: Built) -> pd.DataFrame:
    """Each method's mean and rank under the operators that methods were built with, and cross-fitted.

    Args:
        values: of `rankings.complete` over operators.
        built: of `building_operators`.

    Returns:
        Columns data, metric, method, built_with (the method's own operators, separated by spaces; "" for none),
        building (all of U that was measured), mean_building and rank_building (over these operators; 1 is best), others
        (V), mean_crossfitted, rank_crossfitted, images. Where U or V was not measured there are no rows, and
        `attrs["why"]` says why.
    """
    own = {name: list(built.get(name, [])) for name in values.methods}
    every = union(own)
    building = [name for name in values.settings if name in every]
    others = [name for name in values.settings if name not in every]
    nothing = pd.DataFrame(columns=CROSSFIT_COLUMNS)
    if values.images < LEAST_IMAGES:
        why = values.why or f"{values.images} images have all values, at least {LEAST_IMAGES} are needed"
        return explained(nothing, [why])
    if not every:
        return explained(
            nothing, ["no method here is known to be built by occlusion, so there is nothing to leave out"]
        )
    if not others:
        which = "operator was" if len(building) == 1 else "operators were"
        why = f"no other {which} measured than {' and '.join(building)}, which a method here was built with"
        return explained(nothing, [why])
    if not building:
        why = f"no method here was built with {' or '.join(others)}, so all rankings are cross-fitted as they are"
        return explained(nothing, [why])
    means = values.means.unstack("method")[values.methods]
    rows = pd.DataFrame({"data": values.data, "metric": values.metric, "method": values.methods})
    rows = rows.assign(built_with=[" ".join(own[name]) for name in values.methods])
    for kind, operators, column in (("building", building, "building"), ("crossfitted", others, "others")):
        mean = means.loc[operators].mean()
        ranks = ranked(mean, values.metric)
        rows[column] = " ".join(operators)
        rows[f"mean_{kind}"], rows[f"rank_{kind}"] = mean.to_numpy(), ranks.to_numpy()
    return explained(rows.assign(images=values.images)[CROSSFIT_COLUMNS], [])


def changed_places(table: pd.DataFrame) -> list[tuple[str, str]]:
    """The pairs of methods of which another is ahead when cross-fitted; ties on either side are no change.

    Args:
        table: of `cross_fitted`.
    """
    ranks = table[["method", "rank_building", "rank_crossfitted"]].to_numpy()
    return [
        (str(first[0]), str(second[0]))
        for place, first in enumerate(ranks)
        for second in ranks[place + 1 :]
        if (first[1] - second[1]) * (first[2] - second[2]) < 0
    ]


def fidelity_operators(runs: Sequence[Run]) -> list[str]:
    """The operators that occluded the sets of fidelity, of the runs that hold its values; by default the run's first.

    Without any such run: none.
    """
    names = []
    for run in runs:
        if "fidelity" in run.measured and run.measured["fidelity"].notna().any():
            evaluation = run.description["settings"]["evaluation"]
            names.append(str(evaluation.get("fidelity_occlusion") or first_setting(run)[0]))
    return list(dict.fromkeys(names))


def favoured(runs: Sequence[Run], built: Built) -> list[str]:
    """The methods that were built with an operator that occluded the sets of fidelity: for them it is circular."""
    used = set(fidelity_operators(runs))
    return [name for name, operators in built.items() if used & set(operators)]
