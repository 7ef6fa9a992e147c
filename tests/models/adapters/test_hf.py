"""Models of transformers: query models decide as their own post-processing, and preprocessing is the processor's."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[3] / "benchmarks"))

from small_models import eomt, hf, mask2former, maskformer, mobilevit, oneformer, segformer

from segfaith import load_model
from segfaith.benchmark.check import _head
from segfaith.errors import SampleError, SettingsError
from segfaith.models.adapters.queries import HubModel, class_scores
from segfaith.models.wrapping import wrap

SIZE = 64


def noise(count: int = 2) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("build", [maskformer, mask2former, oneformer, eomt])
def test_query_models_decide_as_their_own_post_processing(build: object, tmp_path: Path) -> None:
    import transformers

    given = hf(build, tmp_path)  # type: ignore[arg-type]
    model = load_model(**given)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    images = noise()
    task = {}
    if build is oneformer:
        tokenizer = transformers.CLIPTokenizer.from_pretrained(tmp_path)
        told = tokenizer("the task is semantic", padding="max_length", max_length=16, truncation=True)
        ids = [number * known for number, known in zip(told["input_ids"], told["attention_mask"], strict=True)]
        task["task_inputs"] = torch.tensor([ids, ids])
    with torch.no_grad():
        logits = model.logits(images)
        output = model.module.wrapped(pixel_values=model.normalise(images), **task)
    if build is eomt:
        output.patch_offsets = None
    told = processor.post_process_semantic_segmentation(
        output, target_sizes=[(SIZE, SIZE)] * 2, return_segmentation_scores=True
    )
    scores = torch.stack([each.segmentation_scores for each in told])
    assert float(scores.std()) > 1e-3
    torch.testing.assert_close(logits.exp(), scores, rtol=1e-4, atol=1e-6)
    assert torch.equal(logits.argmax(1), torch.stack([each.segmentation for each in told]))


def test_a_query_model_of_a_single_class_decides_nothing(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'maskformer' of a single class, .* no decision is left to explain"):
        load_model(**hf(maskformer, tmp_path, outputs=1))


def test_a_query_model_has_no_head_but_a_softmax(tmp_path: Path) -> None:
    given = hf(eomt, tmp_path)
    for head in ("sigmoid", "probabilities"):
        with pytest.raises(SettingsError, match=rf"head = '{head}': hf:.* is a query model, whose classes compete"):
            load_model(**given, head=head)
    model = load_model(**given)
    model.logits(noise())
    words = "softmax over 4 channels, of the logarithms of a query model's scores: each class's share of them"
    assert model.head_words == words
    assert _head(model) == ""  # `check` does not propose another


def test_the_masks_of_queries_are_not_taken_for_logits_of_classes(tmp_path: Path) -> None:
    """EoMT's only maps are those of its queries."""
    given = hf(eomt, tmp_path)
    module = load_model(**given).module.wrapped
    assert isinstance(module, nn.Module)
    for output in (None, "masks_queries_logits"):
        with pytest.raises(SampleError, match=r"is a query model: .* Load it as hf:FOLDER"):
            wrap(module, output=output).logits(noise())
    made = wrap(HubModel(module, module.config.model_type), mean=(0, 0, 0), std=(1, 1, 1))
    assert torch.equal(made.logits(noise()), load_model(**given, mean=(0, 0, 0), std=(1, 1, 1)).logits(noise()))


def test_scores_are_sums_over_queries() -> None:
    """By loops, at the masks' own size: z = log S, the null class left out after the softmax."""
    draw = torch.Generator().manual_seed(1)
    classes, masks = torch.randn(1, 3, 5, generator=draw), torch.randn(1, 3, 4, 6, generator=draw)
    scores = class_scores(classes, masks, "maskformer", (4, 6))
    for c in range(4):
        for u in range(4):
            for v in range(6):
                total = 0.0
                for q in range(3):
                    share = float(classes[0, q, c].exp() / classes[0, q].exp().sum())
                    total += share / (1 + float((-masks[0, q, u, v]).exp()))
                assert float(scores[0, c, u, v]) == pytest.approx(total, abs=1e-6)
    assert class_scores(classes, masks, "mask2former", (4, 6)).shape == (1, 4, 4, 6)


def test_logits_are_finite_where_no_query_claims_a_pixel(tmp_path: Path) -> None:
    model = load_model(**hf(maskformer, tmp_path))
    with torch.no_grad():
        for parameter in model.module.wrapped.model.pixel_level_module.decoder.mask_projection.parameters():
            parameter.mul_(1e6)
    assert model.logits(noise()).isfinite().all()


@pytest.mark.parametrize("changes", [{}, {"do_rescale": False}, {"do_normalize": False}, {"rescale_factor": 1 / 127.5}])
def test_normalisation_is_the_processors(changes: dict[str, object], tmp_path: Path) -> None:
    import transformers

    given = hf(segformer, tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes), encoding="utf-8")
    model = load_model(**given)
    eight_bit = torch.randint(0, 256, (3, SIZE, SIZE), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    expected = processor(eight_bit, do_resize=False, return_tensors="pt")["pixel_values"]
    came = model.normalise(eight_bit[None] / 255)
    torch.testing.assert_close(came, expected, rtol=1e-4, atol=1e-4)


def test_turned_channels_and_missing_processors(tmp_path: Path) -> None:
    given = hf(mobilevit, tmp_path)
    model = load_model(**given)
    seen: list[Tensor] = []
    model.module.wrapped.register_forward_pre_hook(
        lambda part, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
    )
    images = noise(1)
    model.logits(images)
    assert torch.equal(seen[0], images.flip(1))
    (tmp_path / "preprocessor_config.json").unlink()
    assert load_model(**given).provenance["normalisation"] == "mean ImageNet's, assumed; std ImageNet's, assumed"


def test_local_files_have_digests_and_weights_must_be_complete(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    given = hf(segformer, tmp_path)
    model = load_model(**given)
    assert model.weights == f"{tmp_path.name} (folder)"
    assert {"sha256 config.json", "sha256 model.safetensors", "library"} <= model.provenance.keys()
    state = load_file(tmp_path / "model.safetensors")
    save_file(
        {k: v for k, v in state.items() if "classifier" not in k}, tmp_path / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(SettingsError, match=r"2 tensors would be random, among them decode_head.classifier.bias"):
        load_model(**given)


def test_models_without_classes_per_pixel_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}), encoding="utf-8")
    with pytest.raises(SettingsError, match="is a 'vit', which gives no class per pixel"):
        load_model(f"hf:{tmp_path}")
    (tmp_path / "config.json").unlink()
    with pytest.raises(SettingsError, match=r"cannot be loaded: .*Give a folder of save_pretrained"):
        load_model(f"hf:{tmp_path}")


def test_an_id_that_cannot_be_fetched_is_told_in_words() -> None:
    with pytest.raises(SettingsError, match=r"hf:nobody/nothing cannot be loaded: .*on a machine with a network"):
        load_model("hf:nobody/nothing", args={"local_files_only": True})
