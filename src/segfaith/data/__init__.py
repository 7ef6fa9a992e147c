"""Data sets: ids, and samples by id."""

from segfaith.data.dataset import Dataset
from segfaith.data.datasets import DATASETS, open_dataset

__all__ = ["DATASETS", "Dataset", "open_dataset"]
