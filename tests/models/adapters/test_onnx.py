"""ONNX files: batches, named outputs, digests, and what is refused."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))

from small_models import onnx

from segfaith import load_model
from segfaith.errors import SettingsError
from segfaith.models.probe import probe


def exported(path: Path, shape: tuple[int, ...] = (1, 3, 8, 8), outputs: int = 1) -> str:
    """A convolution and, with several outputs, also its negative."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(shape[1], 2, 1)

        def forward(self, x: Tensor) -> Any:
            z = self.conv(x)
            return z if outputs == 1 else (z, -z)

    torch.manual_seed(1)
    names = ["main", "negative"][:outputs]
    torch.onnx.export(Net().eval(), (torch.rand(shape),), str(path), output_names=names, dynamo=False)
    return f"onnx:{path}"


@pytest.mark.parametrize("dynamic", [True, False])
def test_batches_have_the_outputs_of_single_images(dynamic: bool, tmp_path: Path) -> None:
    import onnxruntime

    given = onnx(tmp_path, dynamic=dynamic)
    model = load_model(**given)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    probe(model, images[0], 3)
    assert model.mixing == ""
    session = onnxruntime.InferenceSession(given["name"].partition(":")[2])
    x = model.normalise(images).numpy()
    expected = np.concatenate([session.run(None, {"image": x[n : n + 1]})[0] for n in range(3)])
    np.testing.assert_allclose(model.outputs_of(model.module, images).numpy(), expected, rtol=0, atol=1e-5)


def test_the_output_is_chosen_by_name(tmp_path: Path) -> None:
    name = exported(tmp_path / "two.onnx", outputs=2)
    with pytest.raises(SettingsError, match=r"two.onnx has outputs main, negative; none was named"):
        load_model(name)
    with pytest.raises(SettingsError, match="'other' is none of them"):
        load_model(name, args={"output": "other"})
    image = torch.rand(1, 3, 8, 8)
    main, negative = (load_model(name, args={"output": key}).logits(image) for key in ("main", "negative"))
    assert torch.equal(main, -negative)


def test_the_digest_of_the_file_is_that_of_the_state(tmp_path: Path) -> None:
    """A session's weights are no parameters; two files must not pass for one model."""
    first = load_model(exported(tmp_path / "a.onnx"))
    second = load_model(exported(tmp_path / "b.onnx", outputs=2), args={"output": "main"})
    assert first.provenance["state_sha256"] != second.provenance["state_sha256"]
    assert first.name == "onnx:a.onnx"


def test_a_file_of_four_channels_takes_images_of_four(tmp_path: Path) -> None:
    model = load_model(exported(tmp_path / "four.onnx", (1, 4, 8, 8)))
    assert (model.input_channels, model.mean) == (4, (0,) * 4)
    assert model.logits(torch.rand(1, 4, 8, 8)).shape == (1, 2, 8, 8)


def test_files_that_take_no_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="takes 2 images at a time"):
        load_model(exported(tmp_path / "pair.onnx", (2, 3, 8, 8)))
    (tmp_path / "text.onnx").write_text("no model", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"text.onnx cannot be read as an ONNX model"):
        load_model(f"onnx:{tmp_path / 'text.onnx'}")
    with pytest.raises(SettingsError, match="cannot hold layer; known: output"):
        load_model(exported(tmp_path / "c.onnx"), args={"layer": "conv"})
    with pytest.raises(SettingsError, match="holds its weights itself"):
        load_model(exported(tmp_path / "c.onnx"), weights="w.pth")
