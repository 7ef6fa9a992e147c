"""ONNX: `onnx:FILE`, run by onnxruntime on the CPU."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segfaith.errors import SettingsError, words_of
from segfaith.models.adapters.entry import Adapted, library_version
from segfaith.models.weights import file_digest

WHY_NO_LAYER = (
    "an ONNX session has no layers and no gradients; use ria and the controls, or the PyTorch module that the file was "
    "exported from"
)
TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}


class OnnxModule(nn.Module):
    """Runs an ONNX session on images (N, C, H, W) and returns the output named `output`, (N, K, h, w) in float32.

    A session of a fixed batch size of 1 gets its images one by one. `file_digest` stands for the weights, which live in
    the session.
    """

    def __init__(self, session: Any, output: str, digest: str) -> None:
        super().__init__()
        self.session, self.output = session, output
        self.image = session.get_inputs()[0]
        self.one_image = self.image.shape[0] == 1
        self.register_buffer("file_digest", torch.tensor(list(bytes.fromhex(digest)), dtype=torch.uint8))

    def forward(self, images: Tensor) -> Tensor:
        """The output's values for N images; no gradient passes."""
        values = images.detach().cpu().numpy().astype(TYPES[self.image.type])
        parts = [values[i : i + 1] for i in range(len(values))] if self.one_image else [values]
        outputs = [self.session.run([self.output], {self.image.name: part})[0] for part in parts]
        return torch.from_numpy(np.concatenate(outputs)).to(images.device)


def load(name: str, args: Mapping[str, Any]) -> Adapted:
    """The file `name`; `args` may hold `output`, the name of the output that is the logits, where there are several.

    The session runs on the CPU with torch's number of threads. It has no feature layer. mean, std and class names are
    unknown, since an ONNX file does not say.

    Raises:
        SettingsError: no such file, one that onnxruntime cannot read, or inputs or outputs that are no images and maps.
    """
    import onnxruntime

    path = Path(name)
    if not path.is_file():
        raise SettingsError(f"no ONNX file {path}; expected onnx:FILE, the path of an .onnx file")
    unknown = set(args) - {"output"}
    if unknown:
        raise SettingsError(f"args of onnx:{path.name} cannot hold {', '.join(sorted(unknown))}; known: output")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise SettingsError(f"{path} cannot be read as an ONNX model: {words_of(error)}") from error
    channels = _channels(session.get_inputs(), path.name)
    digest = file_digest(path)
    module = OnnxModule(session, _output(session.get_outputs(), args.get("output"), path.name), digest)
    provenance = library_version("onnxruntime") | {"file_sha256": digest}
    return Adapted(module, None, None, None, None, path.name, channels, provenance, WHY_NO_LAYER)


def _channels(inputs: Sequence[Any], file: str) -> int | None:
    """The channels of the only input, (N, C, H, W) of floats; None if the file leaves them open."""
    described = ", ".join(f"{each.name} {each.type} {each.shape}" for each in inputs)
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in TYPES:
        raise SettingsError(f"{file} takes {described}; expected one input, a float image (N, channels, H, W)")
    batch, channels, *_, last = inputs[0].shape
    if isinstance(batch, int) and batch != 1:
        raise SettingsError(
            f"{file} takes {batch} images at a time; export it for a batch of 1, or of any size (dynamic axes)"
        )
    if isinstance(channels, int) and channels > 4 and last in (1, 3, 4):
        raise SettingsError(f"{file} takes {described}, channels last; expected an image (N, channels, H, W)")
    return channels if isinstance(channels, int) else None


def _output(outputs: Sequence[Any], name: str | None, file: str) -> str:
    """The name of the output that is the logits."""
    names = [each.name for each in outputs]
    if name is None and len(names) == 1:
        return str(names[0])
    if name not in names:
        came = "none was named" if name is None else f"{name!r} is none of them"
        raise SettingsError(
            f"{file} has outputs {', '.join(names)}; {came}. Name the logits: args = {{ output = NAME }}"
        )
    return str(name)
