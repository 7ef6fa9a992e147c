"""Data sets: ids, and samples by id."""

from segfaith.data.dataset import Dataset
from segfaith.data.datasets import DATASETS, open_dataset
from segfaith.data.reading import Reading

__all__ = ["DATASETS", "Dataset", "Reading", "open_dataset"]
