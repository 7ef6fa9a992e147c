"""Closed-form segmenters and images of coloured blocks on which the pixels that decide are known with certainty.

    F_k = relu(colour k - mean of the other two colours - 1/4), averaged over 3 x 3 pixels, at half resolution
    Blocks:  z = g [1/4, F_red^2 + F_blue^2, F_green^2] at each pixel: a pixel sees only what is next to it
    Corner:  z = g [1/4, mean of F_red over the top left corner, 0]: the same at every pixel

In `Blocks` red and blue decide class 1 through separate channels and, because of the squares, with separate gradients.
So an explanation of one block never marks the other, not even with one weight per channel. Each target is a block with
a dark frame around it, so no pixel outside the target sees the block.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from segfaith.models.segmentation import SegmentationModel
from segfaith.models.wrapping import wrap
from segfaith.randomness import generator
from segfaith.types import Float, Image, Map, Mask, Target

GAIN = 4.0
COLOURS = {"red": 0, "green": 1, "blue": 2}
CLASS_OF = {"red": 1, "green": 2, "blue": 1}
FRAME = 6
"""Pixels of dark frame between a block and its target's rim; the segmenter sees at most 4 pixels far."""


class _Colours(nn.Module):
    """The feature layer: a strided convolution and a rectifier, (N, 3, H, W) to (N, 3, ceil(H/2), ceil(W/2))."""

    def __init__(self) -> None:
        super().__init__()
        with (
            torch.random.fork_rng(devices=[]),
            torch.no_grad(),
        ):  # Conv2d draws its first weights from the global generator
            self.convolution = nn.Conv2d(3, 3, 3, stride=2, padding=1)
            self.convolution.weight.copy_(((1.5 * torch.eye(3) - 0.5) / 9)[:, :, None, None].expand(3, 3, 3, 3))
            self.convolution.bias.fill_(-0.25)  # type: ignore[union-attr]

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 h w"]:
        return torch.relu(self.convolution(x))


class Blocks(nn.Module):
    """Each pixel sees only itself and its neighbours: class 1 where it is red or blue, class 2 where it is green."""

    def __init__(self) -> None:
        super().__init__()
        self.features = _Colours()

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 h w"]:
        """Logits at half resolution."""
        red, green, blue = self.features(x).unbind(1)
        return GAIN * torch.stack([torch.full_like(red, 0.25), red.square() + blue.square(), green.square()], 1)


class Corner(nn.Module):
    """Every pixel is of class 1 if the top left corner (a quarter of each side) is red; nothing else matters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = _Colours()

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N 3 h w"]:
        """Logits at half resolution."""
        red = self.features(x)[:, 0]
        height, width = red.shape[1:]
        decides = red[:, : height // 4, : width // 4].mean((1, 2))[:, None, None].expand_as(red)
        return GAIN * torch.stack([torch.full_like(red, 0.25), decides, torch.zeros_like(red)], 1)


@dataclass(frozen=True, eq=False)
class Question:
    """A question with a known answer.

    Attributes:
        image_id: questions about the same image share it.
        words: the question in words.
        evidence: the pixels that alone decide the target's score.
        others: pixels that a wrong map would mark: the other blocks; for `Corner`, the target.
        suspicion: the likely cause if a map is high on `others`.
    """

    image_id: str
    words: str
    model: SegmentationModel
    image: Image
    target: Target
    evidence: Mask
    others: Mask
    suspicion: str


def block_cases() -> list[Question]:
    """Targets of `Blocks` on a square image and on one of 97 x 131 whose blocks touch the border.

    On the square image, the red and the green block together are also a target; the right answer then depends on the
    class alone. No question asks about the other green block: it makes both classes occur outside every target.
    """
    inner = {"red": (8, 10), "green": (60, 14), "blue": (42, 60), "other green": (8, 64)}
    border = {"red": (0, 0), "green": (76, 50), "blue": (30, 110), "other green": (20, 60)}
    return _cases("square", (96, 96), inner, both=True) + _cases("odd", (97, 131), border, both=False)


def corner_case() -> Question:
    """The target of `Corner`, a green block far from the red corner that decides; 72 x 120."""
    image, blocks, targets = _scene("corner", (72, 120), {"green": (40, 70)})
    corner = torch.zeros_like(blocks["green"])
    corner[:18, :30] = True
    image[:, corner] = _paint("red", (72, 120))[:, corner]
    words = "a green block, which is of class 1 if the corner is red (72 x 120)"
    target = Target(1, targets["green"])
    suspicion = "as if the map were cut to the target"
    return Question("corner", words, _model(Corner(), "Corner"), image, target, corner, targets["green"], suspicion)


def told_apart(one: Question, other: Question) -> str:
    """What differs between two questions about the same image with different answers: "classes" or "regions".

    Empty if class and region both differ, or for other pairs of questions.
    """
    if one.image_id != other.image_id or torch.equal(one.evidence, other.evidence):
        return ""
    same_class = one.target.class_index == other.target.class_index
    if same_class == torch.equal(one.target.region, other.target.region):
        return ""
    return "regions" if same_class else "classes"


def misplaced(case: Question, heatmap: Map) -> str:
    """What is wrong with the place where a map in [0, 1] is high, in words; empty if nothing is.

    A map is right if its mean on the evidence exceeds (r + max(o, r)) / 2, for its means o on `others` and r elsewhere.
    """
    ground = ~(case.evidence | case.others)
    decides, others, rest = (float(heatmap[mask].mean()) for mask in (case.evidence, case.others, ground))
    if decides > (rest + max(others, rest)) / 2:
        return ""
    looks = "as if the map were inverted" if rest > (decides + others) / 2 else case.suspicion
    if max(decides, others, rest) - min(decides, others, rest) < 0.1:
        looks = "as if the map had nothing to do with it"
    return f"{decides:.2f} on average on what decides, {others:.2f} on other objects, {rest:.2f} elsewhere, {looks}"


def _cases(image_id: str, size: tuple[int, int], corners: dict[str, tuple[int, int]], *, both: bool) -> list[Question]:
    image, blocks, targets = _scene(image_id, size, corners)
    model = _model(Blocks(), "Blocks")
    anything = torch.stack(list(blocks.values())).any(0)
    asked = [(f"the {colour} block", colour, region) for colour, region in targets.items() if colour in CLASS_OF]
    if both:
        either = targets["red"] | targets["green"]
        asked += [
            (f"the red and the green block as class {CLASS_OF[colour]}", colour, either) for colour in ("red", "green")
        ]
    return [
        Question(
            image_id,
            f"{words} ({size[0]} x {size[1]})",
            model,
            image,
            Target(CLASS_OF[colour], region),
            blocks[colour],
            anything & ~blocks[colour],
            "as if the complement, ~target.region, were explained",
        )
        for words, colour, region in asked
    ]


def _scene(
    image_id: str, size: tuple[int, int], corners: dict[str, tuple[int, int]]
) -> tuple[Image, dict[str, Mask], dict[str, Mask]]:
    """Blocks of 21 x 21 pixels on a dark, slightly noisy ground: the image, the blocks, and the blocks with frames."""
    noise = generator(0, image_id, "closed form").uniform(0, 0.1, (3, *size))
    image = torch.from_numpy(noise).float()
    blocks, targets = {}, {}
    for name, (top, left) in corners.items():
        block, target = torch.zeros(size, dtype=torch.bool), torch.zeros(size, dtype=torch.bool)
        block[top : top + 21, left : left + 21] = True
        target[max(0, top - FRAME) : top + 21 + FRAME, max(0, left - FRAME) : left + 21 + FRAME] = True
        image[:, block] = (0.95 * _paint(name.split()[-1], size) + 0.5 * image)[:, block]
        blocks[name], targets[name] = block, target
    return image, blocks, targets


def _paint(colour: str, size: tuple[int, int]) -> Image:
    image = torch.zeros(3, *size)
    image[COLOURS[colour]] = 1
    return image


def _model(module: nn.Module, name: str) -> SegmentationModel:
    return wrap(
        module.eval(), layer="features", classes=["ground", "one", "two"], mean=(0, 0, 0), std=(1, 1, 1), name=name
    )
