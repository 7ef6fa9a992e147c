"""Stand-ins for what the users of docs/journeys.md have: python examples/journeys.py DIRECTORY [STEPS]

It writes cells/ and unet.pth (grey images, a binary U-Net), tiles/, tile_model.py and tiles.pth (four channels), and
segformer-voc/ (a tiny SegFormer with random weights). STEPS is how long the first two are trained, 60 by default.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

import segfaith
from segfaith.classes import VOC_CLASSES

SIDE, SAMPLES = 64, 12
TILE_MODEL = '''"""A network for tiles of four channels: blue, green, red, near infrared."""

from torch import nn


def build():
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(4, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 24, 3, 2, 1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(24, 24, 3, 1, 1), nn.ReLU()),
        nn.Conv2d(24, 3, 1),
    )
'''


def disc(draw: np.random.Generator, low: int, high: int) -> np.ndarray:
    """A disc of a random place and radius, (H, W)."""
    radius, centre = draw.uniform(low, high), draw.uniform(high, SIDE - high, 2)
    return np.hypot(*(np.indices((SIDE, SIDE)) - centre[:, None, None])) < radius


def cells(root: Path) -> None:
    """Grey PNGs of bright discs over noise, and masks of 0 and 255."""
    for index in range(SAMPLES):
        draw = np.random.default_rng(index)
        mask = disc(draw, 9, 15) | disc(draw, 5, 9)
        image = draw.normal(70, 18, mask.shape) + np.where(mask, draw.uniform(60, 100), 0)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(root / f"images/cell-{index:02d}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / f"masks/cell-{index:02d}.png")


def tiles(root: Path) -> None:
    """Reflectances times 10000 as whole numbers (4, H, W); masks of 0 (soil), 1 (field) and 2 (water)."""
    reflectance = np.array([[900, 1100, 1500, 2200], [500, 900, 600, 4500], [700, 500, 300, 200]])
    for index in range(SAMPLES):
        draw = np.random.default_rng(100 + index)
        labels = np.where(disc(draw, 11, 17), 1, 0)
        labels[disc(draw, 6, 10)] = 2
        values = reflectance[labels].transpose(2, 0, 1) * draw.normal(1, 0.15, (4, SIDE, SIDE))
        np.save(root / f"images/tile-{index:02d}.npy", values.clip(0, 10000).astype(np.uint16))
        Image.fromarray(labels.astype(np.uint8)).save(root / f"masks/tile-{index:02d}.png")


def train(model: segfaith.SegmentationModel, images: torch.Tensor, masks: torch.Tensor, path: Path, steps: int) -> None:
    """Some steps of Adam on images (N, C, H, W) in [0, 1] and their class indices, then the state dict."""
    module = model.module.train()
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    for step in range(steps):
        some = torch.arange(4) + 4 * step
        x, y = images[some % SAMPLES], masks[some % SAMPLES]
        logits = F.interpolate(module(x), x.shape[-2:], mode="bilinear", align_corners=False)
        if logits.shape[1] == 1:
            loss = F.binary_cross_entropy_with_logits(logits[:, 0], y.float())
        else:
            loss = F.cross_entropy(logits, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    torch.save(module.state_dict(), path)


def segformer(folder: Path) -> None:
    """A SegFormer of VOC's classes as save_pretrained writes it; its weights are random."""
    import transformers

    config = transformers.SegformerConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=16,
        id2label=dict(enumerate(VOC_CLASSES)), initializer_range=0.3,
    )  # fmt: skip
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    transformers.SegformerImageProcessor().save_pretrained(folder)


def main(root: Path, steps: int = 60) -> None:
    """Writes all three."""
    torch.manual_seed(0)
    for name in ("cells", "tiles"):
        for kind in ("images", "masks"):
            (root / name / kind).mkdir(parents=True)
    cells(root / "cells")
    tiles(root / "tiles")
    (root / "tile_model.py").write_text(TILE_MODEL, encoding="utf-8")
    args = {"encoder_name": "resnet18", "in_channels": 1, "classes": 1}
    for model, kind, weights in (
        (segfaith.load_model("smp:Unet", args=args), "cells", "unet.pth"),
        (segfaith.load_model(f"{root / 'tile_model.py'}:build"), "tiles", "tiles.pth"),
    ):
        files = sorted((root / kind / "images").iterdir())
        ranges = {"channels": 1} if kind == "cells" else {"channels": 4, "range": (0, 10000)}
        images = torch.stack([segfaith.load_image(file, **ranges) for file in files])
        masks = torch.stack(
            [torch.from_numpy(np.array(Image.open(root / kind / f"masks/{file.stem}.png"))).long() for file in files]
        )
        train(model, images, masks.clamp(max=1) if kind == "cells" else masks, root / weights, steps)
    segformer(root / "segformer-voc")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
