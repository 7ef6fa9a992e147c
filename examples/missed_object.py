"""A missed object, explained by the margin of its class to the class that is predicted instead, over the target.

python examples/missed_object.py [PICTURE.png]

The scenes are drawn at half of the size that the embedded model was trained on, so that it misses some of them.
"""

import sys
from dataclasses import replace

import torch
from PIL import Image

import segfaith
from segfaith.data import open_dataset
from segfaith.errors import SampleSkipped
from segfaith.results.figures.overlay import outlined, overlay
from segfaith.scores import versus_predicted
from segfaith.targets import find_targets

model, scenes, SIZE = segfaith.load_model("scenes"), open_dataset("scenes", None), 112
for sample_id in scenes.ids:
    sample = scenes.load(sample_id, SIZE)
    (target,) = find_targets(sample.labels)
    with torch.no_grad():
        predicted = model.logits(sample.image[None])[0].argmax(0)
    try:
        missed = versus_predicted(target, predicted)
        break
    except SampleSkipped:  # the model predicts the target
        continue
instead = replace(missed, class_index=missed.versus, versus=missed.class_index)
names = [scenes.classes[which.class_index] for which in (missed, instead)]
print(f"{sample_id}: {names[0]} is missed; {names[1]} is predicted on most pixels of it")

tiles = [outlined(sample.image, missed.region, None, predicted == missed.class_index)]
columns = ["s", "tdd_drop", "tdd_drop_gain", "odd_drop", "insertion_gain"]
for name, explained in zip(names, (missed, instead), strict=True):
    scores = segfaith.evaluate(model, sample.image, explained, ["gpa", "ega", "ria", "dea"])
    print(f"\nmargin of {name}, over the target:\n{scores[columns].round(2).to_string()}")
    heatmap = segfaith.explain(model, sample.image, explained, ["ria"])["ria"]
    tiles.append(overlay(sample.image, heatmap, explained))
if len(sys.argv) > 1:
    side = 2 * SIZE
    picture = Image.new("RGB", (3 * side + 16, side), "white")
    for place, tile in enumerate(tiles):
        picture.paste(tile.resize((side, side), Image.Resampling.NEAREST), (place * (side + 8), 0))
    picture.save(sys.argv[1])
