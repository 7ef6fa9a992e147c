"""Draws docs/explain.png: four methods on a planted scene by the embedded model. Usage: explain_panel.py FILE."""

import sys
from io import BytesIO

from PIL import Image

import segfaith
from segfaith.data.datasets import open_dataset

model = segfaith.load_model("scenes")
sample = open_dataset("scenes", None).load("val-0002", 224)
told = segfaith.explain(model, sample.image, methods=["gpa", "ega", "ria", "dea"])
panel = Image.open(BytesIO(told.png())).convert("RGB")
panel.thumbnail((1000, 1000))
panel.quantize(200, dither=Image.Dither.NONE).save(sys.argv[1], optimize=True)  # few colours: a small file
