"""The randomisation check: does a map change once the model's weights are drawn anew?"""

from collections.abc import Sequence

import pandas as pd

from segfaith.results.records.runs import Run
from segfaith.results.statistics.samples import by_method, means, table
from segfaith.results.statistics.targets import over_targets

RANDOMISATION_MEANS = [
    *("data", "model", "method", "stage", "part", "spearman", "pearson", "s", "n", "constant", "failed"),
]
FIGURES = ("spearman", "pearson", "s")
NOT_RANDOMISED = "no run has made the randomisation check: no rows in randomisation.parquet"


def randomisation(runs: Sequence[Run]) -> pd.DataFrame:
    """The sanity check of Adebayo et al. (2018): is the map another one once the model's weights are drawn anew?

    Stage 1 has a new head, each further stage one new part more. A map that stays alike (correlation near 1) does not
    depend on what the model learned.

    Args:
        runs: of one data set.

    Returns:
        Columns data, model, method, stage, part, spearman, pearson, s (means; s is that of the model at this stage), n
        (samples with a Spearman correlation), constant (maps without one, as the map or the trained model's is
        constant), failed (maps that could not be made). The value of a sample with several targets is the mean over
        them. Runs of one model with the same parts are taken together.
    """
    parts = [
        run.randomisation.assign(data=run.data, run=number, model=model)
        for number, (run, model) in enumerate(zip(runs, _models(runs), strict=True))
        if len(run.randomisation)
    ]
    if not parts:
        return table([], RANDOMISATION_MEANS, NOT_RANDOMISED)
    everything = pd.concat(parts, ignore_index=True)
    everything = everything[everything["status"] != "skipped"]
    rows = []
    for model in everything["model"].unique():
        for data, method, part in by_method(everything[everything["model"] == model]):
            stages = part.drop_duplicates(["stage", "part"]).sort_values("stage", kind="stable")
            for stage, name in zip(stages["stage"], stages["part"], strict=True):
                own = part[(part["stage"] == stage) & (part["part"] == name)]
                known, failed = int(own["spearman"].notna().sum()), int((own["status"] != "ok").sum())
                images = over_targets(own, FIGURES)
                counts = [int(images["spearman"].notna().sum()), len(own) - known - failed, failed]
                averages = means(images, FIGURES)
                rows.append([data, model, method, int(stage), name, *averages, *counts])
    return table(rows, RANDOMISATION_MEANS, "the randomisation check skipped all samples")


def kept(runs: Sequence[Run]) -> pd.DataFrame:
    """How much of each method's map is left once every weight is new, over the runs whose check is finished.

    Args:
        runs: of one data set.

    Returns:
        Columns method, model, kept (mean over samples of the absolute Spearman correlation with the trained model's
        map: an inverted map depends on the model as little as the same map), n (samples with a correlation), lost
        (samples without one: constant, or failed). The value of a sample with several targets is the mean over them.
    """
    parts = [
        run.randomisation.assign(run=number, model=model)
        for number, (run, model) in enumerate(zip(runs, _models(runs), strict=True))
        if len(run.randomisation) and run.randomisation["finished"].astype(bool).all()
    ]
    rows: list[list[object]] = []
    if parts:
        everything = pd.concat(parts, ignore_index=True)
        everything = everything[everything["status"] != "skipped"]
        for (model, method), part in everything.groupby(["model", "method"], sort=False):
            last = part[(part["stage"] == part["stage"].max()) & (part["stage"] > 0)]
            last = last.assign(kept=last["spearman"].astype(float).abs())
            values = over_targets(last, ["kept"])["kept"]
            rows.append([method, model, values.mean(), values.count(), values.isna().sum()])
    return pd.DataFrame(rows, columns=["method", "model", "kept", "n", "lost"])


def _models(runs: Sequence[Run]) -> list[str]:
    """What each run's model is called: by name, where that tells them apart, else by weights too, else by its runs."""
    keys = []
    for run in runs:
        model, stages = run.description["model"], run.randomisation.drop_duplicates("stage").sort_values("stage")
        keys.append((str(model["name"]), str(model["weights"]), tuple(stages["part"].astype(str))))
    distinct = set(keys)
    labels = []
    for name, weights, parts in keys:
        directories = [run.label for run, key in zip(runs, keys, strict=True) if key == (name, weights, parts)]
        if len([key for key in distinct if key[0] == name]) == 1:
            labels.append(name)
        elif len([key for key in distinct if key[:2] == (name, weights)]) == 1:
            labels.append(f"{name}, {weights}")
        else:
            labels.append(f"{name} ({', '.join(directories)})")
    return labels


def unfinished_checks(runs: Sequence[Run]) -> list[str]:
    """A sentence for each run whose randomisation check was stopped before its last part."""
    return [
        f"{run.label}: the randomisation check was stopped after stage {int(run.randomisation['stage'].max())}; the "
        "later parts were not drawn anew: make it again."
        for run in runs
        if len(run.randomisation) and not run.randomisation["finished"].astype(bool).all()
    ]
