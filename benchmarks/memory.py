"""Resident memory: what 500 explained and evaluated images leave behind, and the peak at large sizes.

python benchmarks/memory.py            # a line at some of the 500 samples, of 35 sizes
python benchmarks/memory.py 1024       # the peak of four maps of one image of 1,024 x 1,024 px by LRASPP; takes minutes
"""

import resource
import sys
from pathlib import Path

import torch
from torch import nn

import segfaith
from segfaith.types import Image

METHODS = ["gpa", "ega", "ria@grid=7", "dea@grid=7"]
TOLD = (5, 50, 100, 200, 300, 400, 500)


def resident() -> float:
    """Of this process, now, in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * resource.getpagesize() / 1e6


def peak() -> float:
    """Of this process, so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def target_of(image: Image) -> segfaith.Target:
    """The middle ninth of the image, as class 1."""
    height, width = image.shape[1:]
    region = torch.zeros(height, width, dtype=torch.bool)
    region[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = True
    return segfaith.Target(1, region)


def samples() -> None:
    """500 images of noise through a small model."""
    torch.manual_seed(0)
    convolutions = nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 3, 1)
    model = segfaith.wrap(nn.Sequential(*convolutions), layer="3")
    for number in range(1, max(TOLD) + 1):
        image = torch.rand(3, 64 + 8 * (number % 5), 64 + 8 * (number % 7))
        target = target_of(image)
        segfaith.evaluate(model, image, target, segfaith.explain(model, image, target, METHODS).maps)
        if number in TOLD:
            print(f"{number:4} samples: {resident():.0f} MB", flush=True)


def large(side: int) -> None:
    """One image of noise through LRASPP with random weights, RIA on 7 x 7 cells."""
    model = segfaith.load_model("lraspp_mobilenet_v3_large", weights="random")
    image = torch.rand(3, side, side, generator=torch.Generator().manual_seed(0))
    print(f"model loaded: {peak():.0f} MB")
    segfaith.explain(model, image, target_of(image), METHODS)
    print(f"four maps of {side} x {side} px: {peak():.0f} MB at most")


if __name__ == "__main__":
    large(int(sys.argv[1])) if len(sys.argv) > 1 else samples()
