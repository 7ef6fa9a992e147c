"""Reads files of weights, loads them into modules, and computes the digests that every result carries."""

import re
import urllib.error
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter
from torch.utils._pytree import tree_leaves

from segfaith.errors import SettingsError, words_of

ENDINGS = (".pth", ".pt", ".ckpt", ".safetensors")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a `.pth`, `.pt` or `.ckpt` file (read with `weights_only=True`) or a `.safetensors` file.

    A checkpoint that keeps its state dict under `model`, `state_dict` or `model_state_dict` is unpacked.

    Raises:
        SettingsError: no such file, another ending, or a file that holds no state dict.
    """
    if not path.is_file():
        raise SettingsError(
            f"no weights file {path}{' (it is a folder)' if path.is_dir() else ''}; give a .pth, .pt, .ckpt or "
            ".safetensors file, 'random', or leave weights out"
        )
    if path.suffix not in ENDINGS:
        raise SettingsError(f"weights file {path}: expected the ending {', '.join(ENDINGS)}, got {path.suffix!r}")
    if not path.stat().st_size:
        raise SettingsError(f"weights file {path} cannot be read: it is empty; fetch or save it again")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        inside = re.search(r"GLOBAL (\S+)", str(error))
        holds = f"it holds a {inside[1]}" if inside else "it is damaged or not a torch file"
        raise SettingsError(
            f"weights file {path} is not a plain state dict ({holds}); save model.state_dict() with torch.save"
        ) from error
    except Exception as error:  # torch.load may raise anything on a file of another kind
        raise SettingsError(
            f"weights file {path} cannot be read ({words_of(error)}): it is damaged or not a torch file"
        ) from error
    return _unpacked(content, path)


def _unpacked(content: Any, path: Path) -> dict[str, Tensor]:
    for key in ("model", "state_dict", "model_state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if (
        not isinstance(content, Mapping)
        or not all(isinstance(value, Tensor) for value in content.values())
        or not all(isinstance(name, str) for name in content)
    ):
        raise SettingsError(
            f"weights file {path}: expected a state dict (names to tensors), got {type(content).__name__}"
            f"{_inside(content)}"
        )
    return dict(content)


def _inside(content: Any) -> str:
    """Words to add to the type of content that is not a state dict: its first keys, and what to do."""
    if not isinstance(content, Mapping) or not content:
        return ""
    keys = [f"{key!r} ({type(value).__name__})" for key, value in content.items()]
    more = ", ..." if len(keys) > 8 else ""
    return f" with the keys {', '.join(keys[:8])}{more}; save the part that is the state dict to a separate file"


def load_weights(module: nn.Module, state: Mapping[str, Tensor], source: str) -> str:
    """Loads `state` strictly.

    A prefix that all names share, such as `module.` of DataParallel or `model.` of Lightning, is removed if the names
    then match the module's names.

    Returns:
        What was done to the names, as words to add to the source: "" or "without the prefix ...".

    Raises:
        SettingsError: names or shapes do not match; the first differences are in the message.
    """
    prefix = _prefix(state, module)
    try:
        module.load_state_dict({name.removeprefix(prefix): value for name, value in state.items()}, strict=True)
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise SettingsError(
            f"the weights of {source} do not fit {type(module).__name__}: "
            + " ".join(line.strip()[:300] for line in lines[1:4])
        ) from error
    return f" (without the prefix {prefix!r})" if prefix else ""


def _prefix(state: Mapping[str, Tensor], module: nn.Module) -> str:
    """The prefix to remove from all names of the state so that they match the module's names, or ""."""
    wanted = set(module.state_dict())
    if not state or set(state) == wanted:
        return ""
    first = next(iter(state))
    prefixes = [first[: place + 1] for place, letter in enumerate(first) if letter == "."]
    for prefix in prefixes:
        bare = {name.removeprefix(prefix) for name in state}
        if bare == wanted and all(name.startswith(prefix) for name in state):
            return prefix
    return ""


def state_digest(module: nn.Module) -> str:
    """SHA-256 over names, types, shapes and bytes of all parameters and buffers, whatever file they came from.

    What else a module keeps in its state, such as the packed weights of a quantised layer, counts by its tensors and by
    the text of all else. A frozen module keeps its weights as constants of its code.

    Raises:
        SettingsError: a lazy layer that has no weights yet.
    """
    digest = sha256()
    for name, value in [*sorted(module.state_dict().items()), *_constants(module)]:
        if isinstance(value, UninitializedBuffer | UninitializedParameter):
            raise SettingsError(
                f"{type(module).__name__} has no weights yet at {name!r}, a lazy layer; run it once on an image where "
                "it is made"
            )
        for leaf in [value] if isinstance(value, Tensor) else tree_leaves(value):
            if not isinstance(leaf, Tensor):
                digest.update(f"{name}|{leaf!r}".encode())
                continue
            data = leaf.detach().cpu()
            if leaf is not value and data.is_quantized:
                data = data.dequantize()  # whose values hold the scales too
            data = data.to_dense() if data.layout is not torch.strided else data.contiguous()
            digest.update(f"{name}|{data.dtype}|{tuple(data.shape)}|".encode())
            digest.update(data.flatten().view(torch.uint8).numpy().tobytes() if data.numel() else b"")
    return digest.hexdigest()


def _constants(module: nn.Module) -> list[tuple[str, Tensor]]:
    """The tensors in the code of a scripted, traced or frozen module."""
    if not isinstance(module, torch.jit.ScriptModule):
        return []
    graph: Any = module.inlined_graph  # kept, since its nodes die with it
    nodes = graph.findAllNodes("prim::Constant")
    tensors = [node.t("value") for node in nodes if node.hasAttribute("value") and node.kindOf("value") == "t"]
    return [(f"constant {place}", tensor) for place, tensor in enumerate(tensors)]


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    return sha256(path.read_bytes()).hexdigest()


def download_weights(name: str, weights: Any) -> Mapping[str, torch.Tensor]:
    """torchvision's weights, from torch's cache or downloaded with a progress bar; their hash is checked."""
    try:
        state: Mapping[str, torch.Tensor] = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except (urllib.error.URLError, OSError, RuntimeError, UnpicklingError, EOFError) as error:
        cached = cached_weights(weights.url)
        if cached.is_file():
            raise SettingsError(f"the weights of {name} in {cached} are damaged ({error}); remove that file") from error
        raise SettingsError(
            f"the weights of {name} could not be downloaded from {weights.url}: {error}. Fetch that file on a machine "
            'with a network and give weights = FILE, or use weights = "random" for a trial'
        ) from error
    return state


def cached_weights(url: str) -> Path:
    """Where torch keeps the file of weights that it downloads from an address; the file need not be there."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
