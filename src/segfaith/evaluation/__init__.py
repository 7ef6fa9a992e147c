"""Metrics: from heatmaps and intervened scores to figures."""

import segfaith.evaluation.metrics  # noqa: F401  so that whoever adds an intervention meets the names of all metrics
