"""One topic a file: from an analysis to the section of the report about it."""

from collections.abc import Callable, Mapping

from segfaith.results.report.blocks import Points, Prose, Section, join, words
from segfaith.results.report.sections import (
    claims,
    curves,
    denominators,
    evidence,
    influence,
    leaderboard,
    leakage,
    limits,
    map_properties,
    provenance,
    randomisation,
    rankings,
    scores,
    significance,
    summary,
    verdict,
)
from segfaith.results.statistics.analysis import Analysis

Topic = Callable[[Analysis], Section]
TOPICS: tuple[Topic, ...] = (
    verdict.section,
    leaderboard.section,
    influence.section,
    summary.section,
    limits.section,
    scores.section,
    evidence.section,
    significance.section,
    claims.section,
    randomisation.section,
    rankings.section,
    curves.section,
    leakage.section,
    denominators.section,
    map_properties.section,
    provenance.section,
)
"""Every topic in reading order."""


def topics(analysis: Analysis) -> dict[str, Section]:
    """The section of every topic by its name, in reading order, those too in which nothing was measured."""
    built = [topic(analysis) for topic in TOPICS]
    return {section.name: section for section in built}


def sections(analysis: Analysis) -> list[Section]:
    """The report in reading order; what was not measured is gathered in a section before that on the runs.

    Several data sets stand under headings of their own within each section.
    """
    return gathered(topics(analysis))


def gathered(built: Mapping[str, Section]) -> list[Section]:
    """The sections in which something was measured, and one that names the others with what measures them."""
    shown = [section for section in built.values() if section.measured]
    reasons = [
        words("<strong>{}</strong>: {}", section.title, join((_text(part) for part in section.parts), " "))
        for section in built.values()
        if not section.measured
    ]
    if not reasons:
        return shown
    place = next((place for place, section in enumerate(shown) if section.name == "runs"), len(shown))
    missing = Section("unmeasured", "What was not measured", (Points(tuple(reasons)),))
    return [*shown[:place], missing, *shown[place:]]


def _text(part: object) -> object:
    return part.text if isinstance(part, Prose) else ""
