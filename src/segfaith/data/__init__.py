"""Data sets: ids, and samples by id."""

from segfaith.data.datasets import DATASETS, Dataset, open_dataset

__all__ = ["DATASETS", "Dataset", "open_dataset"]
