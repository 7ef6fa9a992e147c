"""A small instance of each library's models: its default layer, its maps, and the library's own probabilities."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))

from small_models import HF, QUERY_MODELS, SIZES, SMALL

import segfaith
from segfaith import Target, load_model
from segfaith.batching import BatchSize
from segfaith.errors import SettingsError
from segfaith.evidence.gradient import gradient_evidence
from segfaith.evidence.layer import check_layer
from segfaith.scores import Scalar

LAYERS = {
    "smp Unet": "encoder.layer4",
    "smp PSPNet": "encoder.layer2",
    "smp Segformer": "decoder.fuse_stage",
    "smp Unet, MiT": "decoder.blocks.4",
    "smp Unet, MobileNetV2": "encoder.features.18",
    "torchvision fcn_resnet50": "backbone.layer4",
    "torchvision lraspp_mobilenet_v3_large": "backbone.16",
    "hf Segformer": "decode_head.activation",
    "hf MobileViT": "wrapped.mobilevit.encoder.layer.4",
    "hf EoMT": "wrapped.upscale_block",
    "monai DynUNet": "bottleneck",
    "monai UNETR": "decoder5",
    "onnx": None,
}


def own_logits(label: str, given: dict[str, Any], image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """The library's own model, built without segfaith, on the image: logits at its resolution, or scores of queries."""
    library = label.partition(" ")[0].rstrip(",")
    what, args = given["name"].partition(":")[2], given.get("args", {})
    x = ((image - mean) / std)[None]
    torch.manual_seed(0)
    if library == "smp":
        import segmentation_models_pytorch

        return getattr(segmentation_models_pytorch, what)(encoder_weights=None, **args).eval()(x)
    if library == "torchvision":
        import torchvision

        return torchvision.models.get_model(what, weights=None, weights_backbone=None, **args).eval()(x)["out"]
    if library == "monai":
        from monai.networks import nets

        return getattr(nets, what)(spatial_dims=2, **args).eval()(x)
    if library == "hf":
        import transformers

        model = getattr(transformers, transformers.AutoConfig.from_pretrained(what).architectures[0])
        processor = transformers.AutoImageProcessor.from_pretrained(what)
        eight_bit = (image * 255).round().to(torch.uint8)
        pixels = processor(eight_bit, do_resize=False, do_center_crop=False, do_pad=False, return_tensors="pt")
        output = model.from_pretrained(what).eval()(pixel_values=pixels["pixel_values"])
        return output.logits
    import onnxruntime

    return torch.from_numpy(onnxruntime.InferenceSession(what).run(["logits"], {"image": x.numpy()})[0])


def eight_bit_noise(size: int) -> Tensor:
    """An image in [0, 1] whose values are those of 8 bits, so that image processors lose nothing."""
    return torch.randint(0, 256, (3, size, size), generator=torch.Generator().manual_seed(0)) / 255


@pytest.mark.parametrize("label", SMALL)
def test_small_model(label: str, tmp_path: Path) -> None:
    size = SIZES.get(label, 64)
    image = eight_bit_noise(size)
    region = torch.zeros(size, size, dtype=torch.bool)
    region[10:40, 12:50] = True
    given = SMALL[label](tmp_path)
    model = load_model(**given)
    if label in LAYERS:
        assert model.layer == LAYERS[label]
    model.incremental = False  # graphs of library models: tests/incremental
    methods = ["ria@grid=3", "random_cells"]
    if model.layer is not None:
        check_layer(model, model.layer, image)
        methods += ["gpa", "ega"]
    maps = segfaith.explain(model, image, Target(1, region), methods)
    for method in methods:
        assert maps[method].shape == (size, size)
        assert maps[method].isfinite().all()
        assert maps[method].min() >= 0, method
    assert float(maps["random_cells"].max()) > 0
    if model.layer is not None:  # a random model's maps may be empty, since negative values are left out
        evidence, _, _ = gradient_evidence(model, image[None], region[None], Scalar(1), BatchSize(1))
        assert float(evidence.gradient.abs().max()) > 0
    if label not in QUERY_MODELS:
        mean, std = (torch.tensor(values)[:, None, None] for values in (model.mean, model.std))
        with torch.no_grad():
            expected = own_logits(label, given, image, mean, std)
            expected = F.interpolate(expected, size=(size, size), mode="bilinear", align_corners=False).softmax(1)
            came = model.logits(image[None]).softmax(1)
        rounding = 5e-5 if label.startswith("hf ") else 1e-5  # processors normalise in another order of operations
        torch.testing.assert_close(came, expected, rtol=0, atol=rounding)
    if label.startswith("hf "):
        assert model.classes == ["ground", "leaf", "stone", "water"]
        assert model.name == f"hf:{tmp_path.name}"


def test_every_model_of_transformers_is_among_the_small_ones() -> None:
    """A model type with a default layer or a way to resize masks that no instance tries is not known to work."""
    from segfaith.models.adapters.hf import LAYERS as DEFAULTS
    from segfaith.models.adapters.queries import MASK_SIZES

    tried = {"segformer", "upernet", "mobilevit", "mobilenet_v2", "beit", "data2vec-vision", "dpt", *MASK_SIZES}
    assert len(HF) == 12
    assert set(DEFAULTS) - tried == {"mobilevitv2"}


def test_gradient_methods_say_why_a_session_has_none(tmp_path: Path) -> None:
    given = SMALL["onnx"](tmp_path)
    model = load_model(**given)
    region = torch.ones(64, 64, dtype=torch.bool)
    words = r"an ONNX session has no layers and no gradients; use ria and the controls, or the PyTorch module"
    with pytest.raises(SettingsError, match=words):
        segfaith.explain(model, eight_bit_noise(64), Target(1, region), ["gpa"])
    with pytest.raises(SettingsError, match=f"layer = 'net.0' of onnx:.*{words}"):
        load_model(**given, layer="net.0")
