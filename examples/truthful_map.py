"""What leakage says of the truth itself: the planted evidence as a map, on the first context scenes, for two scores.

python examples/truthful_map.py
"""

from dataclasses import replace

import pandas as pd

import segfaith
from segfaith.data import open_dataset
from segfaith.targets import find_targets

model, scenes = segfaith.load_model("scenes"), open_dataset("scenes", None)
frames = []
for number in range(200):
    if number % 8 in (4, 5):  # the context classes
        sample = scenes.load(f"val-{number:04d}", 224)
        target = find_targets(sample.labels)[0]
        twin = replace(target, score="conditional", versus=scenes.twins[target.class_index])
        maps = {"truth": sample.planted[target.class_index].alternatives[0].float(), "mask": target.region.float()}
        for asked in (target, twin):
            rows = segfaith.evaluate(model, sample.image, asked, maps)[["odd_abs", "leak_abs", "tdd"]]
            frames.append(rows.assign(score=asked.score))
results = pd.concat(frames).groupby(["score", "method"])
print(pd.concat({"mean": results.mean(), "median": results.median()}, axis=1).round(3).to_string())
print("scenes on which Leak abs has a value:", results["leak_abs"].count().to_dict())
