"""The pictures that the page shows large: cases of each kind, as `statistics.cases.choose` chose them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segfaith.results.report.blocks import Cards, Section
from segfaith.results.report.gallery import Key, Sample
from segfaith.results.statistics.analysis import DataAnalysis
from segfaith.results.statistics.cases import Case, Choice

TITLES = {"best": "Best", "typical": "Typical", "worst": "Worst", "missed": "Missed by the model"}
"""The kinds of cases in the page's order, and their headings."""


@dataclass(frozen=True, eq=False)
class ShownCase:
    """A case on the page.

    Attributes:
        sample: its sample of the gallery.
        why: why it was chosen.
        method: the method whose map stands beside the image, or "" where its map was not kept.
    """

    sample: Sample
    why: str
    method: str


@dataclass(frozen=True, eq=False)
class ShownKind:
    """The cases of one kind and data set, their rule, and why there is none, or ""."""

    data: str
    title: str
    rule: str
    cases: tuple[ShownCase, ...]
    why: str


def keys(choices: Sequence[Mapping[str, Choice]]) -> set[Key]:
    """The samples of all cases, by `Sample.key`."""
    return {_key(case) for kinds in choices for kind in kinds.values() for case in kind.cases}


def showcase(
    parts: Sequence[DataAnalysis],
    choices: Sequence[Mapping[str, Choice]],
    samples: Sequence[Sample],
    sections: Sequence[Section],
) -> list[ShownKind]:
    """The kinds of each data set in the order of `TITLES`; none where no data set has any case.

    Args:
        choices: the cases of each data set by kind.
        samples: the gallery's, those of all cases among them.
        sections: where the first card names the best method of a data set.
    """
    by_key = {sample.key: sample for sample in samples}
    kinds = []
    for part, chosen in zip(parts, choices, strict=True):
        best = best_method(part, sections)
        for name, title in TITLES.items():
            choice = chosen[name]
            cases = tuple(ShownCase(by_key[_key(case)], case.why, best) for case in choice.cases)
            kinds.append(ShownKind(part.label, title, choice.rule, cases, choice.why))
    return kinds if any(kind.cases for kind in kinds) else []


def _key(case: Case) -> Key:
    return case.run.directory, case.sample_id, case.target


def best_method(part: DataAnalysis, sections: Sequence[Section]) -> str:
    """The method of the first card of the data set; without cards, the method under test of the highest mean TDD."""
    for section in sections:
        for block in section.parts:
            if isinstance(block, Cards) and block.data == part.label and block.cards:
                return block.cards[0].method
    table = part.summary
    means = table[(table["metric"] == part.metrics[0]) & table["method"].isin(part.own)].dropna(subset="mean")
    return str(means.sort_values("mean")["method"].iloc[-1]) if len(means) else ""
