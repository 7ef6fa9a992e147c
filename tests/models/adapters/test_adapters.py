"""Names of libraries' models, what their own settings decide, and what is refused in words."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from segfaith import load_model
from segfaith.benchmark.settings import read_settings
from segfaith.cli import app
from segfaith.errors import SettingsError
from segfaith.models.adapters import ADAPTERS, Adapted, adapted, entry, short_name, with_absolute_path
from segfaith.models.inputs import IMAGENET_MEAN, IMAGENET_STD

ROOT = Path(__file__).resolve().parents[3]
UNET = {"encoder_name": "resnet18", "classes": 4}


def test_other_names_have_no_adapter(tmp_path: Path) -> None:
    file = tmp_path / "smp.py"
    file.write_text("import torch\n\n\ndef build():\n    return torch.nn.Conv2d(3, 2, 1)\n", encoding="utf-8")
    for name in (
        "scenes",
        f"{file}:build",
        "torchvision.models.segmentation:fcn_resnet50",
        "monai.networks:f",
        "SMP:Unet",
    ):
        assert adapted(name, {}, 0) is None
    assert load_model(f"{file}:build").name == "smp.py:build"


def test_a_library_that_is_missing_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "find_spec", lambda name: None)
    words = r"smp:Unet needs segmentation_models_pytorch; install it with: pip install 'segfaith\[smp\]'"
    with pytest.raises(SettingsError, match=words):
        load_model("smp:Unet")
    listed = CliRunner().invoke(app, ["list", "models"], env={"COLUMNS": "200"}).output
    assert "not installed: pip install 'segfaith[onnx]'" in " ".join(listed.split())


def test_the_list_of_models_shows_each_library_and_that_it_is_installed() -> None:
    listed = " ".join(CliRunner().invoke(app, ["list", "models"], env={"COLUMNS": "200"}).output.split())
    for adapter in ADAPTERS.values():
        assert f"{adapter.usage} {adapter.summary} (installed)" in listed


def test_every_extra_stands_in_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for adapter in ADAPTERS.values():
        assert not adapter.extra or adapter.extra in project["optional-dependencies"]


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("smp:", {}, "names no model of segmentation_models_pytorch; expected a name such as smp:Unet"),
        ("smp:Unett", {}, "unknown architecture .* did you mean 'Unet'"),
        ("smp:Unet", {"encodr": 1}, "args of smp:Unet cannot hold encodr; known: encoder_name"),
        ("monai:UNet", {"spatial_dims": 3}, "monai:UNet with spatial_dims = 3 takes volumes"),
        ("monai:Unett", {}, "unknown network of MONAI"),
        ("torchvision:resnet50", {}, "unknown segmentation model of torchvision"),
        ("torchvision:fcn_resnet50", {"weights": "BEST"}, "expected one of DEFAULT, COCO_WITH_VOC_LABELS_V1"),
        ("hf:./nowhere", {}, r"no folder nowhere \(from hf:./nowhere\)"),
        ("hf:./nowhere", {"trust_remote_code": True}, "args of hf:./nowhere cannot hold trust_remote_code"),
        ("onnx:nowhere.onnx", {}, "no ONNX file nowhere.onnx"),
        ("onnx:nowhere.onnx", {"layer": 1}, "no ONNX file nowhere.onnx"),
    ],
)
def test_refused_in_words(name: str, args: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_model(name, args=args)


def fixed(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Lets `smp:` give a model of one convolution, of which all else is as `changes` say."""
    given: dict[str, Any] = {
        "module": torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1), torch.nn.Conv2d(2, 2, 1)),
        "layer": "0",
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
        "classes": ["ground", "leaf"],
        "weights": "random weights",
        "channels": 3,
        "provenance": {"library": "its library"},
    }
    monkeypatch.setattr(
        "segfaith.models.adapters.ADAPTERS",
        {"smp": entry.Adapter(lambda name, args: Adapted(**given | changes), "torch", "smp", "smp:Net", "")},
    )


def test_what_the_user_says_wins_over_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch)
    model = load_model("smp:Net")
    assert (model.layer, model.mean, model.std) == ("0", (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    assert model.classes == ["ground", "leaf"]
    assert model.provenance["normalisation"] == "mean of the library; std of the library"
    assert model.provenance["library"] == "its library"
    model = load_model("smp:Net", layer="1", mean=(0, 0, 0), std=(1, 1, 1), classes=["a", "b"])
    assert (model.layer, model.mean, model.std, model.classes) == ("1", (0, 0, 0), (1, 1, 1), ["a", "b"])
    assert model.provenance["normalisation"] == "mean as given; std as given"


def test_unknown_normalisation_is_imagenets_and_called_assumed(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed(monkeypatch, mean=None, std=None, layer=None, why_no_layer="its maps are tokens")
    model = load_model("smp:Net")
    assert (model.mean, model.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert model.provenance["normalisation"] == "mean ImageNet's, assumed; std ImageNet's, assumed"
    with pytest.raises(SettingsError, match=r"smp:Net has none; its maps are tokens. The last layers: 0, 1"):
        model.layer_names()


def test_a_file_of_weights_goes_into_the_library_s_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrapped = torch.nn.Conv2d(3, 2, 1)
    state = {name: torch.full_like(value, 0.25) for name, value in wrapped.state_dict().items()}
    torch.save(state, tmp_path / "w.pth")
    holder = torch.nn.Module()
    holder.wrapped = wrapped
    fixed(monkeypatch, module=holder, layer=None)
    model = load_model("smp:Net", weights=tmp_path / "w.pth")
    assert model.weights == "w.pth"
    assert float(wrapped.weight.detach().mean()) == 0.25
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(SettingsError, match="do not fit Conv2d"):
        load_model("smp:Net", weights=tmp_path / "other.pth")
    with pytest.raises(SettingsError, match="smp:Net has random weights where weights are left out"):
        load_model("smp:Net", weights="random")


def test_pretrained_encoders_bring_their_normalisation(monkeypatch: pytest.MonkeyPatch) -> None:
    from segfaith.models.adapters import smp

    found = {"input_space": "RGB", "input_range": [0, 255], "mean": [127.5, 51, 0], "std": [255, 51, 25.5]}
    place = "segmentation_models_pytorch.encoders.get_preprocessing_params"
    monkeypatch.setattr(place, lambda name, pretrained: found)
    assert smp._preprocessing("any", "imagenet") == ((0.5, 0.2, 0), (1, 0.2, 0.1))
    monkeypatch.setattr(place, lambda name, pretrained: found | {"input_space": "BGR"})
    with pytest.raises(SettingsError, match="takes BGR images"):
        smp._preprocessing("any", "imagenet")


def test_a_model_of_five_channels_takes_images_of_five() -> None:
    model = load_model("smp:Unet", args=UNET | {"in_channels": 5})
    assert (model.input_channels, model.mean, model.std) == (5, (0,) * 5, (1,) * 5)
    assert model.provenance["normalisation"] == "mean none, assumed; std none, assumed"
    assert model.logits(torch.rand(1, 5, 64, 64)).shape == (1, 4, 64, 64)


def test_random_weights_follow_the_seed() -> None:
    first, same, other = (load_model("smp:Unet", args=UNET, seed=seed).provenance["state_sha256"] for seed in (1, 1, 2))
    assert first == same != other


def test_paths_in_a_settings_file_are_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "net").mkdir()
    names = {"hf:net": f"hf:{tmp_path}/net", "hf:nvidia/mit": "hf:nvidia/mit", "onnx:a.onnx": f"onnx:{tmp_path}/a.onnx"}
    for name, absolute in (names | {"smp:Unet": "smp:Unet", "x.py:f": "x.py:f"}).items():
        assert with_absolute_path(name, tmp_path) == absolute
    (tmp_path / "run.toml").write_text('[model]\nname = "onnx:a.onnx"\n[data]\nname = "scenes"\n', encoding="utf-8")
    settings = read_settings(tmp_path / "run.toml")
    assert settings.model.name == f"onnx:{tmp_path}/a.onnx"
    assert settings.model.mean is None
    assert short_name(f"hf:{tmp_path}/net") == "hf:net"
    assert short_name("hf:nvidia/mit") == "hf:nvidia/mit"
