"""Incremental inference: scores of altered copies of one image, recomputing only what an alteration can change."""
