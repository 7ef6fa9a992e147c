"""Draws docs/explain.png: four methods on a planted scene by the embedded model. Usage: explain_panel.py FILE."""

import sys
from pathlib import Path

import segfaith
from segfaith.data.datasets import open_dataset

model = segfaith.load_model("scenes")
sample = open_dataset("scenes", None).load("val-0002", 224)
told = segfaith.explain(model, sample.image, methods=["gpa", "ega", "ria", "dea"])
Path(sys.argv[1]).write_bytes(told.png())
