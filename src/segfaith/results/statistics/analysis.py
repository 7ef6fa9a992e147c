"""One analysis of runs: every table that results are told from, each computed once, when it is first asked for.

    analyse(runs, Options(min_s=0.3)) -> Analysis       all runs, and what a reader asked of them
    Analysis.parts                                      one DataAnalysis a data set: its tables
    Analysis.table("wins")                              the same table of all data sets, one below the other

Samples are chosen here, by `Options.min_s` and `Options.min_iou`, and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Literal

import pandas as pd

from segfaith.errors import SettingsError
from segfaith.evaluation.metrics import METRICS
from segfaith.results.records.identity import data_label, own_numbers
from segfaith.results.records.runs import Run
from segfaith.results.records.select import enough, is_control, method_order, under_test
from segfaith.results.statistics import (
    claims,
    curves,
    distributions,
    evidence,
    evidence_tables,
    friedman,
    influence,
    paired,
    rankings,
    summary,
    verdicts,
)
from segfaith.results.statistics.influence import Best
from segfaith.results.statistics.summary import PLANTED_METRICS, TABLE_METRICS, Pair
from segfaith.results.statistics.verdicts import Verdict

Over = Literal["occlusion", "k"]
By = Literal["s", "target_area", "class_index"]
OVERS: tuple[Over, ...] = ("occlusion", "k")
BYS: tuple[By, ...] = ("s", "target_area", "class_index")
STRATIFIED = ("tdd", "odd_abs", "leak_abs", "insertion_gain", "stability")
"""Metrics that are given within strata of samples."""


@dataclass(frozen=True)
class Options:
    """What a reader asks of the runs.

    Attributes:
        min_s: leaves out measured samples with a lower s.
        min_iou: leaves out measured samples whose target the model predicts with a lower intersection over union.
        methods: whose pairs are tested; by default those under test and `random_cells`.
        single_run: also tests differences within one run alone, see `paired.compare`.
    """

    min_s: float | None = None
    min_iou: float | None = None
    methods: tuple[str, ...] | None = None
    single_run: bool = False


@dataclass(frozen=True, eq=False)
class DataAnalysis:
    """The runs of one data set, and every table of theirs.

    Attributes:
        label: the data set's, "voc2012 val".
        read: the runs with all samples.
        runs: the runs with the samples that the options leave.
        names: a name of each run, all different.
        compared: the methods whose pairs are tested, those of all data sets.
        own: the methods under test, those of all data sets.
    """

    label: str
    read: tuple[Run, ...]
    runs: tuple[Run, ...]
    names: tuple[str, ...]
    compared: tuple[str, ...]
    own: tuple[str, ...]
    options: Options

    @cached_property
    def methods(self) -> list[str]:
        """All methods in the paper's order: gpa, ega, ria, dea, others, controls."""
        return method_order(name for run in self.runs for name in run.records["method"])

    @cached_property
    def controls(self) -> list[str]:
        """The methods that explain nothing and are there for comparison."""
        return [name for name in self.methods if is_control(name)]

    @cached_property
    def has_evidence(self) -> bool:
        """Whether evidence was planted in any of the runs."""
        return summary.has_evidence(self._pairs)

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics of the summary in their order."""
        return [*TABLE_METRICS, *(PLANTED_METRICS if self.has_evidence else ())]

    @cached_property
    def summary(self) -> pd.DataFrame:
        """`summary.summarise`, with the paper's numbers: a row per method and metric."""
        return summary.with_paper(summary.summarise(self._pairs))

    @cached_property
    def values(self) -> pd.DataFrame:
        """`summary.run_values`: a row per run, method and metric."""
        return summary.run_values(self._pairs)

    @cached_property
    def wins(self) -> pd.DataFrame:
        """`summary.wins` by every metric of the table."""
        return summary.all_wins(self._pairs)

    @cached_property
    def claims(self) -> pd.DataFrame:
        """`claims.check_claims`: the paper's claims."""
        return claims.check_claims(self._pairs)

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """`paired.compare` by every metric of `paired.TESTED`: a row per metric and pair of methods."""
        names = self._held(self.compared)
        tables = [
            paired.compare(self._pairs, metric, methods=names, single_run=self.options.single_run)
            for metric in (paired.TESTED if len(names) > 1 else ())
        ]
        return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(paired.COLUMNS))

    @cached_property
    def ranked(self) -> dict[str, friedman.Friedman]:
        """Friedman's test by every metric of `paired.TESTED` that ranks methods."""
        asked = self.own if self.options.methods is None else self.compared
        return {
            metric: friedman.friedman(
                self._pairs, metric, methods=self._held(asked), single_run=self.options.single_run
            )[0]
            for metric in paired.TESTED
            if METRICS[metric].better and len(self._held(asked)) > 1
        }

    @cached_property
    def areas(self) -> pd.DataFrame:
        """`curves.areas`."""
        return curves.areas(self.runs)

    @cached_property
    def curve_means(self) -> pd.DataFrame:
        """`curves.curve_means`."""
        return curves.curve_means(self.runs)

    @cache  # noqa: B019
    def ranking(self, metric: str, over: Over) -> pd.DataFrame:
        """`rankings.by_setting` of the methods under test."""
        return rankings.by_setting(self.runs, metric, over, methods=self.own)

    @cache  # noqa: B019
    def concordance(self, metric: str, over: Over, among: Literal["all", "own"] = "own") -> pd.DataFrame:
        """`rankings.concordance`, among all methods or those under test."""
        return rankings.concordance(self.runs, metric, over, methods=self.own if among == "own" else None)

    @cached_property
    def robust(self) -> pd.DataFrame:
        """`distributions.robust`: mean, median and trimmed mean over samples."""
        return distributions.robust(self._pairs)

    @cached_property
    def drops(self) -> pd.DataFrame:
        """`distributions.absolute_drops`."""
        return distributions.absolute_drops(self._pairs)

    @cache  # noqa: B019
    def strata(self, metric: str, by: By) -> pd.DataFrame:
        """`distributions.strata`."""
        return distributions.strata(self._pairs, metric, by)

    @cached_property
    def leakage(self) -> pd.DataFrame:
        """`distributions.leakage`."""
        return distributions.leakage(self._pairs)

    @cached_property
    def map_properties(self) -> pd.DataFrame:
        """`distributions.map_properties`."""
        return distributions.map_properties(self._pairs)

    @cached_property
    def randomisation(self) -> pd.DataFrame:
        """`distributions.randomisation`."""
        return distributions.randomisation(self.runs)

    @cached_property
    def evidence(self) -> tuple[pd.DataFrame, dict[str, str]]:
        """`evidence.usable`: the rows with planted evidence that conclusions are drawn from, and what is left out."""
        return evidence.usable(self._pairs)

    @cached_property
    def evidence_scores(self) -> pd.DataFrame:
        """`evidence_tables.scores`: who finds the planted evidence."""
        return evidence_tables.scores(self.evidence[0])

    @cached_property
    def agreements(self) -> pd.DataFrame:
        """`evidence_tables.agreements`: which metrics rank methods as the planted evidence does."""
        return evidence_tables.agreements(self.evidence[0])

    @cached_property
    def evidence_leakage(self) -> pd.DataFrame:
        """`evidence_tables.leakages`: what of the leakages is beyond the planted evidence."""
        return evidence_tables.leakages(self.evidence[0])

    @cached_property
    def chance(self) -> pd.DataFrame:
        """Each method under test against random cells by TDD, as `paired.compare`, one run alone tested too."""
        several = len(set(own_numbers([run.description for run in self.runs]))) > 1
        pairs = self.pairs[self.pairs["metric"] == "tdd"]
        if not (several or self.options.single_run) or paired.CHANCE not in set(pairs["second"]):
            return self._against_cells(self.runs, "tdd")
        return pairs[pairs["second"] == paired.CHANCE]

    @cached_property
    def truth(self) -> pd.DataFrame:
        """The same by average precision, over the rows of `evidence`; empty where no evidence was planted.

        Where other kinds entered, plain objects do not: there the whole object is the evidence, and a likeness to the
        mask scores.
        """
        rows, _ = self.evidence
        kinds = set(rows["kind"]) - {"plain"} or {"plain"}
        told = []
        for run in self.runs if len(rows) else ():
            usable, _ = evidence.usable([run.run])
            told.append(replace(run, records=usable[usable["kind"].isin(kinds)]))
        return self._against_cells(told, "evidence_ap")

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """`verdicts.verdicts`: whether each method can be trusted, the most trustworthy first."""
        finished = not distributions.unfinished_checks(self.runs)
        own = self._held(self.own)
        return verdicts.verdicts(own, self.chance, self.truth, self.randomisation, self.summary, finished)

    @cached_property
    def influence(self) -> pd.DataFrame:
        """`influence.influence`: for each mean the image that moves it most."""
        metrics = [name for name in self.metrics if name != "runtime_s"]
        return influence.influence(self.runs, self.label, metrics)

    @cached_property
    def best(self) -> dict[str, Best]:
        """`influence.best` by every metric of the summary that ranks methods: what is bold and what is called best."""
        own = self._held(self.own)
        return {name: influence.best(self.runs, name, own) for name in self.metrics if METRICS[name].better}

    @cached_property
    def missed(self) -> tuple[int, int]:
        """`influence.missed`: targets that the model misses, and how many are known, of all samples as read."""
        return influence.missed(self.read)

    def _against_cells(self, runs: Sequence[Run], metric: str) -> pd.DataFrame:
        """Each method under test against random cells, corrected over all their pairs, one run alone tested too."""
        names = [*self._held(self.own), paired.CHANCE]
        held = {name for run in runs for name in run.records["method"]}
        names = [name for name in names if name in held]
        if len(names) < 2 or paired.CHANCE not in names:
            return pd.DataFrame(columns=list(paired.COLUMNS))
        pairs = paired.compare([run.run for run in runs], metric, methods=names, single_run=True)
        return pairs[pairs["second"] == paired.CHANCE]

    def _held(self, methods: Sequence[str]) -> list[str]:
        return [name for name in methods if name in self.methods]

    @cached_property
    def _pairs(self) -> list[Pair]:
        return [run.run for run in self.runs]


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

    def table(self, name: str) -> pd.DataFrame:
        """The table of that attribute's name, of all data sets."""
        tables: list[pd.DataFrame] = [getattr(part, name) for part in self.parts]
        return pd.concat(tables, ignore_index=True)


def analyse(runs: Sequence[Run], options: Options | None = None, absent: Sequence[str] = ()) -> Analysis:
    """The analysis of runs, as `records.runs.load_runs` reads them. Nothing is computed yet.

    Raises:
        SettingsError: no runs, or `options.methods` names methods that no run holds.
    """
    if not runs:
        raise SettingsError("expected at least one run to report on; got none")
    options = options or Options()
    pairs = [run.run for run in runs]
    compared = tuple(paired.family(pairs, options.methods))
    own = tuple(under_test(name for run in runs for name in run.records["method"]))
    named = list(zip(runs, summary.run_labels(pairs), strict=True))
    parts = []
    for label in dict.fromkeys(data_label(run.description) for run in runs):
        group = [(run, name) for run, name in named if data_label(run.description) == label]
        read = tuple(run for run, _ in group)
        kept = tuple(enough(run, options.min_s, options.min_iou) for run in read)
        parts.append(DataAnalysis(label, read, kept, tuple(name for _, name in group), compared, own, options))
    return Analysis(tuple(parts), options, tuple(absent))
