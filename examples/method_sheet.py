"""A sheet of all methods' maps of one planted scene: python examples/method_sheet.py docs/methods.png

The scene's size and the methods' parameters are small, so that it takes a minute or two. The target is outlined in
white, the planted evidence in cyan. The number is the map's average precision on the evidence; a grey tile is a method
that refuses the model.
"""

import sys
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation

import segfaith
from segfaith.attribution.libraries import LIBRARIES
from segfaith.data import open_dataset
from segfaith.errors import SampleError
from segfaith.evaluation.evidence_score import evidence_ap
from segfaith.results.figures.overlay import outlined, overlay
from segfaith.targets import find_targets

SCENE, SIZE, TILE, COLUMNS, HEAD, GAP = "val-0002", 96, 150, 7, 32, 6
PARAMETERS = {
    "captum:Occlusion": "window=14,stride=7",
    "captum:ShapleyValueSampling": "grid=7,n_samples=3",
    "captum:KernelShap": "grid=7,n_samples=200",
    "captum:Lime": "grid=7,n_samples=200",
    "gradcam:RefineCAM": "layer=backbone.low+backbone.high",
    "rise": "masks=300",
}
names = ["random", "gpa", "ega", "ria", "dea", "mea", "rise", "sobol"]
names += [f"{prefix}:{name}" for prefix, library in LIBRARIES.items() for name in library.entries]

model, scenes = segfaith.load_model("scenes"), open_dataset("scenes", None)
sample = scenes.load(SCENE, SIZE)
target = find_targets(sample.labels)[0]
alternatives = sample.planted[target.class_index].alternatives


def ring(mask: Any) -> Any:
    """The outline of a mask at the size of a tile, (TILE, TILE)."""
    large = np.asarray(Image.fromarray(np.asarray(mask)).resize((TILE, TILE), Image.Resampling.NEAREST))
    return binary_dilation(large) & ~large


def tile(heatmap: Any) -> Image.Image:
    """A map over the scene in grey, with both outlines."""
    pixels = np.asarray(overlay(sample.image, heatmap, opacity=0.75).resize((TILE, TILE))).copy()
    pixels[ring(target.region)] = (255, 255, 255)
    for mask in alternatives:
        pixels[ring(mask)] = (0, 255, 255)
    return Image.fromarray(pixels)


evidence = sum(mask.float() for mask in alternatives) > 0
scene = outlined(sample.image, target.region, evidence).resize((TILE, TILE))
tiles = [("the scene", scenes.classes[target.class_index], scene)]
for name in names:
    asked = f"{name}@{PARAMETERS[name]}" if name in PARAMETERS else name
    try:
        heatmap = segfaith.explain(model, sample.image, target, [asked])[asked].cpu()
        words, shown = f"evidence {evidence_ap(heatmap, alternatives):.2f}", tile(heatmap)
    except SampleError as error:
        print(f"{name}: {error}", file=sys.stderr)
        words, shown = "refuses this model", Image.new("RGB", (TILE, TILE), "lightgrey")
    tiles.append((name, words, shown))

rows = -(-len(tiles) // COLUMNS)
sheet = Image.new("RGB", (COLUMNS * (TILE + GAP), rows * (TILE + HEAD + GAP)), "white")
draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
for place, (name, words, shown) in enumerate(tiles):
    left, top = place % COLUMNS * (TILE + GAP), place // COLUMNS * (TILE + HEAD + GAP)
    draw.text((left, top + 2), f"{name if len(name) < 24 else name[:22] + '…'}\n{words}", "black", font)
    sheet.paste(shown, (left, top + HEAD))
sheet.quantize(200, dither=Image.Dither.NONE).save(sys.argv[1], optimize=True)  # few colours: a small file
