"""A sheet of planted scenes, evidence of the main object in cyan: python examples/scene_sheet.py docs/scenes.png"""

import sys

from PIL import Image, ImageDraw, ImageFont

from segfaith.data import open_dataset
from segfaith.results.figures.overlay import outlined
from segfaith.targets import find_targets

COLUMNS, ROWS, SIZE, HEAD = 4, 3, 224, 20
scenes = open_dataset("scenes", None)
sheet = Image.new("RGB", (COLUMNS * (SIZE + 4), ROWS * (SIZE + HEAD + 4)), "white")
draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
for place, sample_id in enumerate(f"val-{i:04d}" for i in (0, 1, 2, 3, 4, 5, 6, 7, 14, 15, 10, 12)):
    sample = scenes.load(sample_id, SIZE)
    target = find_targets(sample.labels)[0]
    alternatives = sample.planted[target.class_index].alternatives
    evidence = sum(mask.float() for mask in alternatives) > 0
    left, top = place % COLUMNS * (SIZE + 4), place // COLUMNS * (SIZE + HEAD + 4)
    draw.text((left, top + 1), f"{sample_id}  {scenes.classes[target.class_index]}", "black", font)
    sheet.paste(outlined(sample.image, target.region, evidence), (left, top + HEAD))
sheet.quantize(256).save(sys.argv[1])
