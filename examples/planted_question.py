"""What a score asks: s of planted scenes whole, without the evidence, and without the rest of the object.

python examples/planted_question.py

The pixels become the image's mean colour. `probability` is p_c, `conditional` is p_c / (p_c + p_v), v the twin of c.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

import segfaith
from segfaith.data import open_dataset
from segfaith.occlusion import occluder
from segfaith.scores import masked_mean, scalar_of

model, scenes = segfaith.load_model("scenes"), open_dataset("scenes", None)
rows = []
for number in range(96):
    sample = scenes.load(f"val-{number:04d}", 224)
    target = segfaith.find_targets(sample.labels)[0]
    planted = sample.planted[target.class_index]
    evidence = torch.stack(planted.alternatives).any(0)
    masks = torch.stack([torch.zeros_like(evidence), evidence, target.region & ~evidence])
    images = occluder("mean", sample.image, np.random.default_rng(0))(masks)
    with torch.no_grad():
        logits = model.logits(images)
    for score, versus in (("probability", None), ("conditional", scenes.twins[target.class_index])):
        scalar = scalar_of(model, replace(target, score=score, versus=versus))
        s = masked_mean(logits, target.region.expand(len(images), -1, -1), scalar).tolist()
        rows.append((planted.kind, score, *s))
columns = ["kind", "score", "s", "without the evidence", "without the rest of the object"]
print(pd.DataFrame(rows, columns=columns).groupby(["kind", "score"], sort=False).mean().round(3).to_string())
