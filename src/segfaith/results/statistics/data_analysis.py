"""The runs of one data set and every table of theirs, each computed once, when it is first asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeVar

import pandas as pd

from segfaith.evaluation.metrics import METRICS, PROBABILITY, has_zero, leading
from segfaith.results.records.runs import Run
from segfaith.results.records.select import is_reference, method_order, methods_of
from segfaith.results.statistics import (
    claims,
    crossfit,
    curves,
    distributions,
    evidence,
    friedman,
    influence,
    judgement,
    leakage,
    maps,
    paired,
    randomisation,
    rankings,
    resampled,
    samples,
    summary,
    targets,
    verdicts,
)
from segfaith.results.statistics.friedman import Friedman
from segfaith.results.statistics.influence import Best
from segfaith.results.statistics.options import By, Options
from segfaith.results.statistics.paired import Paired
from segfaith.results.statistics.rankings import Over
from segfaith.results.statistics.verdicts import Verdict

T = TypeVar("T")


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
        """All methods in the paper's order: gpa, ega, ria, dea, others, controls, the truth."""
        return method_order(methods_of(self.runs))

    @cached_property
    def references(self) -> list[str]:
        """The methods that are there for comparison: the controls, and the truth."""
        return [name for name in self.methods if is_reference(name)]

    @property
    def score(self) -> str:
        """Which number of each pixel was explained; the label holds it, so that it is the same in all runs."""
        return self.runs[0].score

    @property
    def of_probability(self) -> bool:
        """Whether s is a probability, also a conditional one, so that relative drops and small s mean something."""
        return has_zero(self.score)

    def leading(self, *metrics: str) -> list[str]:
        """`metrics.leading`: what is shown of these metrics, absolute ones where relative ones are undefined."""
        return leading(metrics, self.score)

    @cached_property
    def has_evidence(self) -> bool:
        """Whether evidence was planted in any of the runs."""
        return summary.has_evidence(self.runs)

    @property
    def crossed(self) -> bool:
        """Whether photographs are crossed, so that nothing in the target decides and TDD is 0 for every map."""
        return bool(self.runs[0].description.get("settings", {}).get("data", {}).get("wired") == "crossed")

    @cached_property
    def several(self) -> bool:
        """Whether any image has several targets."""
        return targets.several(self.read)

    @cached_property
    def table(self) -> list[str]:
        """`summary.table_of`: the metrics of the table, but for those of planted evidence."""
        return summary.table_of(self.runs)

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics of the summary in their order."""
        return summary.metrics_of(self.runs)

    @cached_property
    def summary(self) -> pd.DataFrame:
        """`summary.summarise`, the paper's numbers, `resampled.quantities` and `summary.predicted`, side by side."""
        table = summary.with_paper(summary.summarise(self.runs))
        numbers = resampled.backbones(self.runs)
        own = pd.concat([resampled.quantities(self.paired(metric), numbers) for metric in self.metrics])
        for beside in (own, summary.predicted(self.runs, self.metrics)):
            table = table.merge(beside, on=["method", "metric"], how="left", sort=False)
        return table

    @cached_property
    def values(self) -> pd.DataFrame:
        """`summary.run_values`: a row per run, method and metric."""
        return summary.run_values(self.runs, self.names)

    @cached_property
    def wins(self) -> pd.DataFrame:
        """`summary.wins` by every metric of the table."""
        return pd.concat([summary.wins(self.values, self.paired(metric)) for metric in self.table], ignore_index=True)

    @cached_property
    def claims(self) -> pd.DataFrame:
        """`claims.check_claims`: the paper's claims, which are about the probability; of another score no rows."""
        if self.score != PROBABILITY:
            return pd.DataFrame(columns=claims.CLAIM_COLUMNS)
        return claims.check_claims(self.values, {metric: self.paired(metric) for metric in claims.CLAIMED})

    def paired(self, metric: str) -> Paired:
        """`paired.paired`: the metric's values by image, from which wins, claims, pairs and ranks are computed."""
        return self._once(("paired", metric), lambda: paired.paired(self.runs, metric))

    @property
    def tested(self) -> list[str]:
        """The metrics of `paired.TESTED` that the runs measured."""
        return [name for name in self.leading(*paired.TESTED) if name in self.metrics]

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """`paired.compare` by every metric of `paired.TESTED`, corrected over the page: a row per metric and pair.

        The pairs are those of all data sets; a pair whose method no run of this one holds is not testable.
        """
        single = self.options.single_run
        tables = [paired.compare(self.paired(metric), self.compared, single_run=single) for metric in self.tested]
        return paired.over_page(pd.concat(tables, ignore_index=True))

    @cached_property
    def ranked(self) -> dict[str, Friedman]:
        """`friedman.friedman` by every metric of `paired.TESTED` that ranks methods."""
        asked = self.own if self.options.methods is None else self.compared
        held = self._held(asked)
        return {
            metric: friedman.friedman(self.paired(metric), held, single_run=self.options.single_run)
            for metric in self.tested
            if METRICS[metric].better and len(held) > 1
        }

    @cached_property
    def areas(self) -> pd.DataFrame:
        """`curves.areas`."""
        return curves.areas(self.runs, self._points)

    @cached_property
    def curve_means(self) -> pd.DataFrame:
        """`curves.curve_means`."""
        return curves.curve_means(self.runs, self._points)

    def ranking(self, metric: str, over: Over) -> pd.DataFrame:
        """`rankings.by_setting` of the methods under test."""
        return self._once(("ranking", metric, over), lambda: rankings.by_setting(self._complete(metric, over, "own")))

    def concordance(self, metric: str, over: Over, among: Literal["all", "own"] = "own") -> pd.DataFrame:
        """`rankings.concordance`, among all methods but the truth, or those under test."""
        key = ("concordance", metric, over, among)
        return self._once(key, lambda: rankings.concordance(self._complete(metric, over, among)))

    def cross_fitted(self, metric: str) -> pd.DataFrame:
        """`crossfit.cross_fitted` of the methods under test."""
        values = self._complete(metric, "occlusion", "own")
        return self._once(("cross_fitted", metric), lambda: crossfit.cross_fitted(values, self.built))

    @cached_property
    def built(self) -> dict[str, list[str]]:
        """`crossfit.building_operators` of the methods under test."""
        return crossfit.building_operators(self.runs, self._held(self.own))

    @cached_property
    def robust(self) -> pd.DataFrame:
        """`distributions.robust`: mean, median and trimmed mean over samples."""
        return distributions.robust(self._samples, self.score)

    @cached_property
    def drops(self) -> pd.DataFrame:
        """`distributions.absolute_drops`."""
        return distributions.absolute_drops(self._samples)

    def strata(self, metric: str, by: By) -> pd.DataFrame:
        """`distributions.strata`; no rows by s where s is no probability."""
        if by == "s" and not self.of_probability:
            return samples.table([], distributions.STRATUM_COLUMNS, f"the score {self.score!r} has no strata")
        return self._once(("strata", metric, by), lambda: distributions.strata(self._samples, metric, by))

    @cached_property
    def leakage(self) -> pd.DataFrame:
        """`leakage.leakage`."""
        return leakage.leakage(self._samples)

    @cached_property
    def map_properties(self) -> pd.DataFrame:
        """`maps.map_properties`."""
        return maps.map_properties(self._samples)

    @cached_property
    def randomisation(self) -> pd.DataFrame:
        """`randomisation.randomisation`."""
        return randomisation.randomisation(self.runs)

    @cached_property
    def evidence(self) -> tuple[pd.DataFrame, dict[str, str]]:
        """`evidence.usable`: the rows with planted evidence that conclusions are drawn from, and what is left out."""
        return evidence.usable(self.runs)

    @cached_property
    def lead(self) -> str:
        """The metric that leads the conclusions: the first that may (`judgement.leaders`) and has values, or TDD."""
        may_lead = [name for name in judgement.leaders(self.options.judgement) if METRICS[name].better == "higher"]
        return next((name for name in may_lead if self.paired(name).beside_chance), *self.leading("tdd"))

    @cached_property
    def chance(self) -> pd.DataFrame:
        """Each method under test against random cells by `lead`: `paired.against`, one run tested too."""
        return paired.against(self.paired(self.lead), self._held(self.own))

    @cached_property
    def beside_mask(self) -> pd.DataFrame:
        """The same against the target's mask, where TDD does not lead: inside the target the mask ranks nothing."""
        own = [] if self.lead in self.leading("tdd") else self._held(self.own)
        return paired.against(self.paired(self.lead), own, paired.MASK)

    @cached_property
    def truth(self) -> pd.DataFrame:
        """The same by average precision (`evidence.found`); empty where no evidence was planted that can be used."""
        if not len(self.evidence[0]):
            return pd.DataFrame(columns=list(paired.COLUMNS))
        return paired.against(paired.paired(evidence.found(self.runs), "evidence_ap"), self._held(self.own))

    @cached_property
    def verdicts(self) -> list[Verdict]:
        """`verdicts.verdicts`: whether each method can be trusted, the most trustworthy first."""
        kept, started = randomisation.kept(self.runs), any(len(run.randomisation) for run in self.runs)
        return verdicts.verdicts(
            *(self._held(self.own), self.chance, self.beside_mask, self.truth, kept, self.summary),
            unfinished=started and not len(kept),
            planted=self.has_evidence,
            crossed=self.crossed and self.lead in self.leading("tdd"),
        )

    @cached_property
    def influence(self) -> pd.DataFrame:
        """`influence.influence`: for each mean the image that moves it most."""
        return influence.influence({name: self.paired(name) for name in self.metrics if name != "runtime_s"})

    @cached_property
    def best(self) -> dict[str, Best]:
        """`influence.best` by every metric of the summary that ranks methods: what is bold and what is called best."""
        own = self._held(self.own)
        ranking = [name for name in self.metrics if METRICS[name].better]
        return {name: influence.best(self.paired(name), own, len(self.runs)) for name in ranking}

    @cached_property
    def missed(self) -> tuple[int, int]:
        """`influence.missed`: targets that the model misses, and how many have a known IoU."""
        return influence.missed(self.runs)

    def _held(self, methods: Sequence[str]) -> list[str]:
        return [name for name in methods if name in self.methods]

    @cached_property
    def evidence_scores(self) -> pd.DataFrame:
        """`evidence.scores`: a row per kind and method."""
        return evidence.scores(self.evidence[0])

    @cached_property
    def evidence_agreements(self) -> pd.DataFrame:
        """`evidence.agreements`: a row per metric and kind, among the methods under test."""
        return evidence.agreements(self.evidence[0], self.score)

    @cached_property
    def evidence_leakage(self) -> pd.DataFrame:
        """`evidence.leakage`: a row per kind and method; without rows where relative metrics are undefined."""
        return evidence.leakage(self.evidence[0] if self.of_probability else self.evidence[0].iloc[:0])

    @cached_property
    def _points(self) -> pd.DataFrame:
        return curves.points(self.runs)

    @cached_property
    def _samples(self) -> pd.DataFrame:
        return samples.samples(self.runs)

    def _complete(self, metric: str, over: Over, among: Literal["all", "own"]) -> rankings.Complete:
        methods = self.own if among == "own" else None
        key = ("complete", metric, over, among)
        return self._once(key, lambda: rankings.complete(self.runs, metric, over, methods=methods))

    @cached_property
    def _kept(self) -> dict[tuple[str, ...], Any]:
        return {}

    def _once(self, key: tuple[str, ...], make: Callable[[], T]) -> T:
        """What `make` gives, made at the first call with this key."""
        if key not in self._kept:
            self._kept[key] = make()
        result: T = self._kept[key]
        return result
