"""Small instances of the libraries' models, with random weights: what `load_model` takes for each, by its label.

Each is built with as many output channels as it is asked for. Models of transformers are built from their own
configuration classes and saved to a folder; nothing is downloaded.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

CLASSES = 4
QUERY_MODELS = ("hf MaskFormer", "hf Mask2Former", "hf OneFormer", "hf EoMT")
"""Models whose outputs are scores of queries, of which a softmax alone means something."""
SIZES = {"smp PAN": 128}
"""The side of a square image that a model needs at least; 64 pixels for all others."""
Given = dict[str, Any]
"""Keyword arguments of `load_model`."""


def smp(name: str, folder: Path, outputs: int = CLASSES, **args: Any) -> Given:
    return {"name": f"smp:{name}", "args": {"encoder_name": "resnet18", "classes": outputs} | args}


def monai(name: str, folder: Path, outputs: int = CLASSES, **args: Any) -> Given:
    return {"name": f"monai:{name}", "args": {"in_channels": 3, "out_channels": outputs} | args}


def torchvision(name: str, folder: Path, outputs: int = CLASSES, **args: Any) -> Given:
    """Without training its outputs hardly leave [0, 1], so that one must say that they are logits."""
    return {"name": f"torchvision:{name}", "args": {"num_classes": outputs} | args, "head": "logits"}


def onnx(folder: Path, outputs: int = CLASSES, *, dynamic: bool = True) -> Given:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(8, outputs, 1),
    ).eval()
    path = folder / "net.onnx"
    axes = {"image": {0: "n", 2: "h", 3: "w"}, "logits": {0: "n", 2: "h", 3: "w"}} if dynamic else None
    torch.onnx.export(
        net,
        (torch.rand(1, 3, 64, 64),),
        str(path),
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes=axes,
        dynamo=False,
    )
    return {"name": f"onnx:{path}"}


Names = dict[int, str]
NAMES: Names = {0: "ground", 1: "leaf", 2: "stone", 3: "water"}


def hf(build: Callable[[Any, Names], tuple[Any, Any]], folder: Path, outputs: int = CLASSES) -> Given:
    """Saves the model and the image processor that `build` makes of transformers for the classes' names."""
    import transformers

    torch.manual_seed(0)
    model, processor = build(transformers, dict(list(NAMES.items())[:outputs]))
    livened(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return {"name": f"hf:{folder}"}


def livened(model: nn.Module) -> None:
    """Larger weights than the libraries start with, so that random models' scores depend on the image."""
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.Linear | nn.Conv2d):
                part.weight.normal_(0, 1.4 / part.weight[0].numel() ** 0.5)


def segformer(t: Any, names: Names) -> tuple[Any, Any]:
    config = t.SegformerConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 3, 4], decoder_hidden_size=16,
        id2label=names,
    )  # fmt: skip
    return t.SegformerForSemanticSegmentation(config), t.SegformerImageProcessor()


def upernet(t: Any, names: Names) -> tuple[Any, Any]:
    backbone = t.ConvNextConfig(
        hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = t.UperNetConfig(
        backbone_config=backbone, hidden_size=16, auxiliary_in_channels=24, auxiliary_channels=8, id2label=names
    )
    return t.UperNetForSemanticSegmentation(config), t.SegformerImageProcessor()


def upernet_swin(t: Any, names: Names) -> tuple[Any, Any]:
    backbone = t.SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = t.UperNetConfig(
        backbone_config=backbone, hidden_size=16, auxiliary_in_channels=32, auxiliary_channels=8, id2label=names
    )
    return t.UperNetForSemanticSegmentation(config), t.SegformerImageProcessor()


def mobilevit(t: Any, names: Names) -> tuple[Any, Any]:
    config = t.MobileViTConfig(
        hidden_sizes=[16, 24, 32], neck_hidden_sizes=[8, 8, 16, 16, 24, 24, 32], aspp_out_channels=16,
        atrous_rates=[1, 2, 3], image_size=64, id2label=names,
    )  # fmt: skip
    return t.MobileViTForSemanticSegmentation(config), t.MobileViTImageProcessor()


def mobilenet_v2(t: Any, names: Names) -> tuple[Any, Any]:
    config = t.MobileNetV2Config(depth_multiplier=0.35, image_size=64, output_stride=16, id2label=names)
    return t.MobileNetV2ForSemanticSegmentation(config), t.MobileNetV2ImageProcessor()


def beit(t: Any, names: Names, kind: str = "Beit") -> tuple[Any, Any]:
    config = getattr(t, f"{kind}Config")(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=64, patch_size=16,
        out_indices=[1, 2, 3, 4], pool_scales=[1, 2, 3], id2label=names, auxiliary_channels=8,
    )  # fmt: skip
    return getattr(t, f"{kind}ForSemanticSegmentation")(config), t.BeitImageProcessor()


def dpt(t: Any, names: Names) -> tuple[Any, Any]:
    config = t.DPTConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=64, patch_size=16,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 16, 16, 16], fusion_hidden_size=16, is_hybrid=False,
        id2label=names,
    )  # fmt: skip
    return t.DPTForSemanticSegmentation(config), t.DPTImageProcessor()


def _swin(t: Any, kind: str = "SwinConfig") -> Any:
    return getattr(t, kind)(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip


def maskformer(t: Any, names: Names) -> tuple[Any, Any]:
    decoder = t.DetrConfig(
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_queries=6, use_timm_backbone=False,
        backbone_config=t.ResNetConfig(), use_pretrained_backbone=False,
    )  # fmt: skip
    config = t.MaskFormerConfig(
        backbone_config=_swin(t), decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32, id2label=names
    )
    return t.MaskFormerForInstanceSegmentation(config), t.MaskFormerImageProcessor()


def mask2former(t: Any, names: Names) -> tuple[Any, Any]:
    config = t.Mask2FormerConfig(
        backbone_config=_swin(t), feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32,
        dim_feedforward=32, encoder_layers=2, decoder_layers=3, num_attention_heads=2, num_queries=6, id2label=names,
    )  # fmt: skip
    return t.Mask2FormerForUniversalSegmentation(config), t.Mask2FormerImageProcessor()


def oneformer(t: Any, names: Names) -> tuple[Any, Any]:
    """Its tokenizer knows the letters alone; the processor looks for class names in a file, which is written too."""
    config = t.OneFormerConfig(
        backbone_config=_swin(t), conv_dim=32, mask_dim=32, hidden_dim=32, encoder_feedforward_dim=32,
        dim_feedforward=32, encoder_layers=2, decoder_layers=3, num_attention_heads=2, num_queries=6,
        text_encoder_width=32, text_encoder_num_layers=1, text_encoder_vocab_size=64, text_encoder_context_length=16,
        task_seq_len=16, max_seq_len=16, is_training=False, id2label=names,
    )  # fmt: skip
    return t.OneFormerForUniversalSegmentation(config), _OneFormerProcessor(t, names)


class _OneFormerProcessor:
    """Saves a processor of OneFormer, whose image processor reads the classes from a file beside it."""

    def __init__(self, transformers: Any, names: Names) -> None:
        self.transformers, self.names = transformers, names

    def save_pretrained(self, folder: Path) -> None:
        letters = [f"{letter}{end}" for letter in "abcdefghijklmnopqrstuvwxyz" for end in ("", "</w>")]
        words = {word: number for number, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
        (folder / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
        (folder / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        table = {str(key): {"isthing": 0, "name": value} for key, value in self.names.items()}
        (folder / "classes.json").write_text(json.dumps(table), encoding="utf-8")
        tokenizer = self.transformers.CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))
        images = self.transformers.OneFormerImageProcessor(
            repo_path=str(folder), class_info_file="classes.json", num_text=2
        )
        self.transformers.OneFormerProcessor(images, tokenizer, max_seq_length=16, task_seq_length=16).save_pretrained(
            folder
        )


def eomt(t: Any, names: Names) -> tuple[Any, Any]:
    config = t.EomtConfig(
        hidden_size=16, num_hidden_layers=4, num_attention_heads=2, image_size=64, patch_size=16, num_queries=6,
        num_blocks=2, num_upscale_blocks=1, num_register_tokens=0, id2label=names,
    )  # fmt: skip
    model = t.EomtForUniversalSegmentation(config)
    model.attn_mask_probs.zero_()  # as after training
    return model, t.EomtImageProcessor(size={"shortest_edge": 64, "longest_edge": 64})


HF: dict[str, Callable[[Any, Names], tuple[Any, Any]]] = {
    "Segformer": segformer,
    "UPerNet, ConvNext": upernet,
    "UPerNet, Swin": upernet_swin,
    "MobileViT": mobilevit,
    "MobileNetV2": mobilenet_v2,
    "BEiT": beit,
    "Data2Vec": partial(beit, kind="Data2VecVision"),
    "DPT": dpt,
    "MaskFormer": maskformer,
    "Mask2Former": mask2former,
    "OneFormer": oneformer,
    "EoMT": eomt,
}
SMALL: dict[str, Callable[..., Given]] = {
    **{
        f"smp {name}": partial(smp, name)
        for name in ("Unet", "UnetPlusPlus", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "Linknet", "MAnet", "PAN",
                     "UPerNet", "Segformer")
    },
    "smp Unet, MiT": partial(smp, "Unet", encoder_name="mit_b0"),
    "smp Segformer, MiT": partial(smp, "Segformer", encoder_name="mit_b0"),
    "smp Unet, MobileNetV2": partial(smp, "Unet", encoder_name="mobilenet_v2"),
    "smp DPT": partial(smp, "DPT", encoder_name="tu-vit_tiny_patch16_224", dynamic_img_size=True),
    **{f"hf {name}": partial(hf, build) for name, build in HF.items()},
    "torchvision fcn_resnet50": partial(torchvision, "fcn_resnet50"),
    "torchvision deeplabv3_mobilenet_v3_large": partial(torchvision, "deeplabv3_mobilenet_v3_large"),
    "torchvision lraspp_mobilenet_v3_large": partial(torchvision, "lraspp_mobilenet_v3_large"),
    "monai UNet": partial(monai, "UNet", channels=[8, 16, 32], strides=[2, 2], num_res_units=1),
    "monai AttentionUnet": partial(monai, "AttentionUnet", channels=[8, 16, 32], strides=[2, 2]),
    "monai SegResNet": partial(monai, "SegResNet", init_filters=8),
    "monai UNETR": partial(
        monai, "UNETR", img_size=64, feature_size=8, hidden_size=24, mlp_dim=32, num_heads=2
    ),
    "monai SwinUNETR": partial(monai, "SwinUNETR", feature_size=12, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2]),
    "monai DynUNet": partial(
        monai, "DynUNet", kernel_size=[3, 3, 3], strides=[1, 2, 2], upsample_kernel_size=[2, 2], filters=[8, 16, 32]
    ),
    "monai FlexibleUNet": partial(monai, "FlexibleUNet", backbone="resnet18", decoder_channels=[32, 16, 16, 8, 8]),
    "onnx": onnx,
    "onnx, batch of 1": partial(onnx, dynamic=False),
}  # fmt: skip
