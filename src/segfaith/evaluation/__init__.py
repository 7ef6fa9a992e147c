"""Metrics: from heatmaps and intervened scores to figures."""
