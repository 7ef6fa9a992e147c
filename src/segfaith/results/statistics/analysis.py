"""One analysis of runs: every table that results are told from, each computed once, when it is first asked for.

    analyse(runs, Options(min_s=0.3)) -> Analysis       all runs, and what a reader asked of them
    Analysis.parts                                      one DataAnalysis a data set: its tables
    Analysis.table("wins")                              the same table of all data sets, one below the other

Samples are chosen here, by `Options.min_s` and `Options.min_iou`, and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import has_zero
from segfaith.results.records.runs import Run
from segfaith.results.records.select import enough, grouped, label_notes, methods_of, own_methods
from segfaith.results.statistics.data_analysis import DataAnalysis
from segfaith.results.statistics.options import BYS, OVERS, STRATIFIED, By, Options
from segfaith.results.statistics.paired import family
from segfaith.results.statistics.rankings import Over
from segfaith.results.statistics.standings import SHOWN, by_models
from segfaith.results.statistics.summary import notes, run_labels
from segfaith.results.statistics.targets import target_note

__all__ = ["BYS", "OVERS", "STRATIFIED", "Analysis", "By", "DataAnalysis", "Options", "Over", "analyse"]


@dataclass(frozen=True, eq=False)
class Analysis:
    """All runs, by data set.

    Attributes:
        absent: sentences on runs that were planned and are not here.
    """

    parts: tuple[DataAnalysis, ...]
    options: Options = field(default_factory=Options)
    absent: tuple[str, ...] = ()

    @property
    def runs(self) -> list[Run]:
        """The runs of all data sets, with the samples that the options leave."""
        return [run for part in self.parts for run in part.runs]

    @property
    def read(self) -> list[Run]:
        """The runs of all data sets, with all samples."""
        return [run for part in self.parts for run in part.read]

    @property
    def filters(self) -> list[str]:
        """A sentence for each filter on samples."""
        least = {"s": self.options.min_s, "an IoU of the prediction with the target": self.options.min_iou}
        what = "targets" if any(part.several for part in self.parts) else "samples"
        return [f"Only {what} with {name} >= {value:g} entered." for name, value in least.items() if value is not None]

    @property
    def target_notes(self) -> list[str]:
        """A sentence on each data set whose images have several targets: `targets.target_note`."""
        return [target_note(part.runs) for part in self.parts if part.several]

    @property
    def layer_notes(self) -> list[str]:
        """What a reader must know of the layers that were read, once for each model and layer."""
        models = [run.description["model"] for run in self.read]
        sentences = [
            f"{model['name']}, layer {layer}: {words}."
            for model in models
            for layer, words in (model.get("layer_notes") or {}).items()
        ]
        return list(dict.fromkeys(sentences))

    @cached_property
    def runtime_notes(self) -> list[str]:
        """Sentences on runs whose runtimes several processes of one machine measured at a time, or several machines."""
        side_by_side = [
            f"{name}: up to {most:.0f} processes measured side by side on one machine, so its runtimes may be longer "
            "than on an idle one; compare them within this run alone."
            for part in self.parts
            for name, run in zip(part.names, part.read, strict=True)
            if "workers" in run.records and (most := run.measured["workers"].max()) > 1
        ]
        machines = {
            name: sorted(set(run.measured["machine"]) - {""})
            for part in self.parts
            for name, run in zip(part.names, part.read, strict=True)
            if "machine" in run.records
        }
        return side_by_side + [
            f"{name}: its runtimes are means over several machines ({'; '.join(named)})."
            for name, named in machines.items()
            if len(named) > 1
        ]

    @cached_property
    def notes(self) -> list[str]:
        """What a reader must know of the runs: `summary.notes`, layers, labels, runtimes, targets, and filters."""
        return [
            *notes(self.read, [name for part in self.parts for name in part.names]),
            *self.layer_notes,
            *(sentence for part in self.parts for sentence in label_notes(part.read)),
            *self.runtime_notes,
            *self.target_notes,
            *self.filters,
        ]

    @cached_property
    def standings(self) -> list[dict[str, pd.DataFrame]]:
        """Of each data set `standings.by_models`, by the metric that leads its conclusions."""
        return [by_models(part.runs, part.lead, part.leading(*SHOWN)) for part in self.parts]

    def table(self, name: str) -> pd.DataFrame:
        """The table of that attribute's name, of all data sets."""
        tables: list[pd.DataFrame] = [getattr(part, name) for part in self.parts]
        return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def analyse(runs: Sequence[Run], options: Options | None = None, absent: Sequence[str] = ()) -> Analysis:
    """The analysis of runs, as `records.runs.load_runs` reads them. Nothing is computed yet.

    Raises:
        SettingsError: no runs; `options.methods` names methods that no run holds, or fewer than two different ones; or
            `options.min_s` with runs whose score is not the probability.
    """
    if not runs:
        raise SettingsError("expected at least one run to report on; got none")
    options = options or Options()
    other = next((run for run in runs if not has_zero(run.score)), None)
    if options.min_s is not None and other is not None:
        raise SettingsError(
            f"min_s = {options.min_s:g} leaves out samples of low probability, but {other.label} explains the score "
            f"{other.score!r}, of which no value is low; leave it out, or report on the runs of each score alone"
        )
    compared = tuple(family(methods_of(runs), options.methods))
    own = tuple(own_methods(runs))
    names: dict[str, list[str]] = {}
    for run, name in zip(runs, run_labels(runs), strict=True):
        names.setdefault(run.data, []).append(name)
    parts = []
    for label, read in grouped(runs).items():
        kept = tuple(enough(run, options.min_s, options.min_iou) for run in read)
        parts.append(DataAnalysis(label, tuple(read), kept, tuple(names[label]), compared, own, options))
    return Analysis(tuple(parts), options, tuple(absent))
