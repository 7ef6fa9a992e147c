"""An embedded model as it is shipped: trained, rounded to half precision, proven, and described by its card."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from segfaith.classes import SCENE_CLASSES
from segfaith.data.scenes import SCENES_VERSION
from segfaith.data.scenes.drawing import draw_scene
from segfaith.errors import SettingsError
from segfaith.models import load_model
from segfaith.models.weights import file_digest
from segfaith.planted.proof import Proof, prove
from segfaith.planted.training import Recipe, train
from segfaith.results.records.files import replace_file
from segfaith.storage import make_ready, storing

WEIGHTS, CARD, TEXT, LOG = "scenes.safetensors", "scenes.json", "scenes.md", "training.csv"


Tell = Callable[[str, int, str], None]
"""Called with the stage ("training" or "proof"), the number of steps or scenes done, and words about it."""


def train_scenes(
    directory: Path, recipe: Recipe, proof_scenes: int, tell: Tell = lambda stage, done, words: None
) -> Proof:
    """Trains the scene model and writes weights, log, card (JSON) and the card's text into a directory.

    Args:
        recipe: steps, seed, rates and flat patches.
        proof_scenes: the number of unseen scenes for the proof of use, which tests the weights as written.

    Raises:
        SettingsError: the directory holds weights already.
        StorageError: the directory cannot be written.

    Returns:
        The proof of use. The log is written step by step; the file of weights is complete before the proof starts.
    """
    make_ready(directory)
    if (directory / WEIGHTS).exists():
        raise SettingsError(f"{directory} holds weights already; choose another folder, or remove {WEIGHTS} there")
    directory.mkdir(parents=True, exist_ok=True)
    with storing(directory), (directory / LOG).open("w", encoding="utf-8", buffering=1) as log:
        log.write("step,loss,pattern_loss\n")

        def on_step(step: int, loss: float, pattern_loss: float) -> None:
            log.write(f"{step},{loss:.5f},{pattern_loss:.5f}\n")
            tell("training", step, f"loss {loss:.3f}")

        model = train(recipe, on_step)
    save_half(model, directory / WEIGHTS)
    return prove_weights(directory, recipe, proof_scenes, tell)


def save_half(model: nn.Module, path: Path) -> None:
    """Writes a state dict as safetensors, floating-point values rounded to half precision."""
    state = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
    }
    content = save(state)  # `save_file` raises errors of its own where the disk is full
    replace_file(path, lambda temporary: temporary.write_bytes(content))


def prove_weights(
    directory: Path, recipe: Recipe, proof_scenes: int, tell: Tell = lambda stage, done, words: None
) -> Proof:
    """Measures the proof of use of the weights in a directory and writes their card there."""
    model = load_model("scenes", weights=directory / WEIGHTS)
    classes = len(SCENE_CLASSES) - 1
    scenes = [draw_scene(f"proof-{i:04d}", 1 + i % classes) for i in range(proof_scenes)]
    done = iter(range(1, proof_scenes + 1))
    proof = prove(model, scenes, recipe.size, lambda: tell("proof", next(done), ""))
    card = {
        "scenes_version": SCENES_VERSION,
        "file_sha256": file_digest(directory / WEIGHTS),
        "parameters": sum(parameter.numel() for parameter in model.module.parameters()),
        "torch": str(torch.__version__),
        "recipe": asdict(recipe),
        "proof": proof.to_json(),
    }
    text = json.dumps(card, indent=2) + "\n"
    replace_file(directory / CARD, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    page = card_text(card)
    replace_file(directory / TEXT, lambda temporary: temporary.write_text(page, encoding="utf-8"))
    return proof


def card_text(card: dict[str, Any]) -> str:
    """A card as Markdown: training, mIoU on unseen scenes, and the proof of use."""
    recipe, proof = card["recipe"], card["proof"]
    images = 2 * recipe["pairs"] * recipe["steps"]
    patches = f"flat patches over {recipe['hidden']:.0%} of them" if recipe["hidden"] else "none with flat patches"
    table = [
        "| Kind | Change of the scene | Cases | Class changes | Must be | Holds |",
        "| --- | --- | ---: | ---: | --- | --- |",
    ]
    table += [
        f"| {claim['kind']} | {claim['change']} | {claim['cases']} | {claim['share']:.1%} | {claim['bound']} | "
        f"{'yes' if claim['holds'] else 'NO'} |"
        for claim in proof["claims"]
    ]
    iou = ", ".join(
        f"{name} {value:.3f}" for name, value in proof["iou"].items() if name != "mean" and value is not None
    )
    return "\n".join(
        [
            f"- Model: LR-ASPP on MobileNetV3-Small (torchvision), {card['parameters']:,} parameters, half precision; "
            f"SHA-256 {card['file_sha256'][:12]}.",
            f"- Data: planted scenes version {card['scenes_version']}, training seed {recipe['seed']}, "
            f"{recipe['size']} px.",
            f"- Training: {recipe['steps']:,} steps of {recipe['pairs']} pairs ({images:,} images, {patches}), AdamW, "
            f"one-cycle rate up to {recipe['rate']}, weight decay {recipe['decay']}; torch {card['torch']}.",
            f"- On {proof['scenes']} unseen scenes: {proof['right']} of {proof['regions']} regions predicted right; "
            f"mIoU {proof['iou']['mean']:.3f} ({iou}).",
            f"- Proven kinds: {', '.join(proof['proven']) or 'none'}.",
            "",
            *table,
            "",
        ]
    )
