"""Attribution methods: pure functions from evidence to heatmaps."""
