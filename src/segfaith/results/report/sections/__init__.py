"""One topic a file: from an analysis to the section of the report about it."""

from collections.abc import Callable

from segfaith.results.report.arrange import gathered
from segfaith.results.report.blocks import Section
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
    worth,
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
    worth.section,
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
