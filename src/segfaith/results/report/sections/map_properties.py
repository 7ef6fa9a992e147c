"""What the maps look like."""

from segfaith.results.report.blocks import Block, Section, metric_column, words
from segfaith.results.report.sections.topic import by_data, lacking, wide
from segfaith.results.statistics.analysis import Analysis, DataAnalysis
from segfaith.results.statistics.maps import PROPERTIES


def section(analysis: Analysis) -> Section:
    """Energy inside the target, pointing game and sparseness."""
    introduction = words(
        "Where maps lie and how sparse they are. None of this says that a map is faithful. Random maps have about the "
        "target’s share of the pixels in energy and pointing."
    )
    return by_data(analysis, "properties", "What the maps look like", introduction, _properties)


def _properties(part: DataAnalysis) -> list[Block]:
    if part.map_properties.empty:
        why = "what the maps look like was not measured: an older version made these records"
        return [lacking(part, why, "segfaith run FILE -o NEW_DIR")]
    wired = ("own_half",) if part.map_properties["own_half"].notna().any() else ()
    columns = {name: metric_column(name) for name in (*PROPERTIES, *wired)}
    return [wide(part, part.map_properties, columns, "properties", "what the maps look like")]
