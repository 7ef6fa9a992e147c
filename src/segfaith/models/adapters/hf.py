"""transformers: `hf:FOLDER_OR_ID`, models for semantic and universal segmentation with their image processors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from segfaith.errors import SettingsError, words_of
from segfaith.models.adapters.entry import Adapted, library_version
from segfaith.models.adapters.queries import MASK_SIZES, HubModel
from segfaith.models.weights import file_digest

ARGS = ("revision", "subfolder", "local_files_only")
"""What args may hold. Without `revision` the hub's newest is taken (bandit's B615): weights are data, no code runs, and
records hold their digest."""
LAYERS = {
    "segformer": "decode_head.activation",
    "upernet": "decode_head.fpn_bottleneck",
    "beit": "decode_head.fpn_bottleneck",
    "data2vec-vision": "decode_head.fpn_bottleneck",
    "mobilevit": "mobilevit.encoder.layer.4",
    "mobilevitv2": "mobilevitv2.encoder.layer.4",
    "mobilenet_v2": "mobilenet_v2.layer.15",
    "dpt": "neck.fusion_stage.layers.3",
    "maskformer": "model.pixel_level_module.decoder.mask_projection",
    "mask2former": "model.pixel_level_module.decoder.mask_projection",
    "oneformer": "model.pixel_level_module.decoder.mask_projection",
    "eomt": "upscale_block",
    "eomt_dinov3": "upscale_block",
}
"""The default feature layer by the model's type: the last map of backbones of convolutions, the fused map of decoders
behind transformers, and the map that query models multiply their queries with."""


def load(name: str, args: Mapping[str, Any]) -> Adapted:
    """The model in a local folder, as `save_pretrained` writes it, or of an id on the hub; no code of a hub is run.

    `args` may hold revision, subfolder and local_files_only. mean and std are those of the image processor, class names
    those of `config.id2label`. Where the processor turns the channels (MobileViT), or the model gives queries (see
    `queries.class_scores`), a `HubModel` holds the model, and the names of its layers begin with `wrapped.`. The image
    is neither resized nor padded nor split as the processor would do it.

    Raises:
        SettingsError: no such folder or id, a model that gives no per-pixel classes, or weights that are not complete.
    """
    import transformers

    unknown = set(args) - set(ARGS)
    if unknown:
        raise SettingsError(f"args of hf:{name} cannot hold {', '.join(sorted(unknown))}; known: {', '.join(ARGS)}")
    folder = Path(name).expanduser()
    if not folder.is_dir() and (folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise SettingsError(f"no folder {folder} (from hf:{name}); expected a folder of save_pretrained, or a hub id")
    place = str(folder) if folder.is_dir() else name
    options = dict(args) | {"trust_remote_code": False}
    try:
        config = transformers.AutoConfig.from_pretrained(place, **options)  # nosec B615
    except Exception as error:
        raise _unreachable(name, error) from error
    kind = config.model_type
    semantic = type(config) in transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING
    if not semantic and kind not in MASK_SIZES:
        raise SettingsError(
            f"hf:{name} is a {kind!r}, which gives no class per pixel that segfaith knows; expected a model of "
            f"AutoModelForSemanticSegmentation, or one of {', '.join(MASK_SIZES)}"
        )
    if kind in MASK_SIZES and config.num_labels < 2:
        raise SettingsError(
            f"hf:{name} is a {kind!r} of a single class, which its post-processing gives to every pixel: no decision "
            "is left to explain; give a model of at least 2 classes"
        )
    auto = transformers.AutoModelForSemanticSegmentation if semantic else transformers.AutoModelForUniversalSegmentation
    try:
        model, told = auto.from_pretrained(  # nosec B615
            place, config=config, dtype=torch.float32, output_loading_info=True, **options
        )
    except Exception as error:
        raise _unreachable(name, error) from error
    lacking = sorted(map(str, [*told["missing_keys"], *told["mismatched_keys"]]))
    if lacking:
        raise SettingsError(
            f"the weights of hf:{name} do not fill the {type(model).__name__}: {len(lacking)} tensors would be random, "
            f"among them {', '.join(lacking[:3])}; give a model that was trained for segmentation"
        )
    mean, std, reverse = _normalisation(place, options)
    wraps = reverse or kind in MASK_SIZES
    module = HubModel(model, kind, reverse=reverse, task=_task(place, kind, options)) if wraps else model
    layer = LAYERS.get(kind)
    there = layer in dict(model.named_modules())
    why = "" if there else f"segfaith knows no default layer of a {kind!r}; name one"
    commit = getattr(config, "_commit_hash", None) or "revision unknown"
    weights = f"{folder.name} (folder)" if folder.is_dir() else f"{name} (hub, {commit})"
    provenance = library_version("transformers") | (_digests(folder) if folder.is_dir() else {})
    prefix = "wrapped." if wraps else ""
    return Adapted(
        module, prefix + layer if layer and there else None, mean, std, _classes(config), weights, _channels(config),
        provenance, why,
    )  # fmt: skip


def _unreachable(name: str, error: Exception) -> SettingsError:
    return SettingsError(
        f"hf:{name} cannot be loaded: {words_of(error)}. Give a folder of save_pretrained (config.json and weights), "
        "or the id of a model on the hub, on a machine with a network or with that model in its cache"
    )


def _normalisation(place: str, options: Mapping[str, Any]) -> tuple[Any, Any, bool]:
    """mean and std for an image in [0, 1], and whether its channels are turned; (None, None, False): no processor.

    The processor computes (255 x * factor - mean) / std, so x has the mean and std of it over 255 * factor.
    """
    import transformers

    try:
        processor: Any = transformers.AutoImageProcessor.from_pretrained(place, **options)  # nosec B615
    except (OSError, ValueError):  # a model may come without a processor
        return None, None, False
    scale = 255.0 * (processor.rescale_factor if getattr(processor, "do_rescale", False) else 1.0)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if getattr(processor, "do_normalize", False):
        mean, std = tuple(processor.image_mean), tuple(processor.image_std)
    reverse = bool(getattr(processor, "do_flip_channel_order", False))
    return tuple(value / scale for value in mean), tuple(value / scale for value in std), reverse


def _task(place: str, kind: str, options: Mapping[str, Any]) -> Any:
    """The token ids (1, T) of OneFormer's task "semantic"; None for other models."""
    if kind != "oneformer":
        return None
    import transformers

    try:
        processor: Any = transformers.OneFormerProcessor.from_pretrained(place, **options)  # nosec B615
        return processor._preprocess_text(["the task is semantic"], max_length=processor.task_seq_length)
    except Exception as error:
        raise SettingsError(
            f"a OneFormer is asked for its task in words, and its tokenizer cannot be loaded: {words_of(error)}; save "
            "its OneFormerProcessor beside the model"
        ) from error


def _classes(config: Any) -> list[str] | None:
    """The names by class index; None where they do not count from 0, or are the library's place holders."""
    names = config.id2label
    if sorted(names) != list(range(len(names))):
        return None
    classes = [str(names[index]) for index in range(len(names))]
    return None if len(set(classes)) < len(classes) or classes[0] == "LABEL_0" else classes


def _channels(config: Any) -> int | None:
    count = getattr(config, "num_channels", None)
    return count if isinstance(count, int) else None


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of the files from which a local model is read."""
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".bin"))
    return {f"sha256 {path.name}": file_digest(path) for path in files}
