"""Query models of transformers (MaskFormer, Mask2Former, OneFormer, EoMT) as modules that give per-pixel logits."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGE = (0, 0)
MASK_SIZES: dict[str, tuple[int, int] | None] = {
    "maskformer": None,
    "mask2former": (384, 384),
    "oneformer": None,
    "eomt": IMAGE,
    "eomt_dinov3": IMAGE,
}
"""To which size a model's own post-processing resizes the masks before the sigmoid, by the model's type: not at all, to
a fixed size, or to that of the image (`IMAGE`)."""


class HubModel(nn.Module):
    """A model of transformers with the steps that its image processor does before it, or behind it.

    Attributes:
        wrapped: the library's own model, whose weights are the state.
        softmax_only: whether the outputs are log S_c, of which only a softmax makes probabilities.
        reverse: whether the channels of the image are turned (RGB to BGR) before it.
        token_ids: the token ids (1, T) of the task that OneFormer is asked for; None for all others.
    """

    def __init__(self, wrapped: nn.Module, kind: str, *, reverse: bool = False, task: Tensor | None = None) -> None:
        super().__init__()
        self.wrapped, self.kind, self.reverse = wrapped, kind, reverse
        self.softmax_only = kind in MASK_SIZES
        self.register_buffer("token_ids", task)

    def forward(self, images: Tensor) -> Any:
        """The model's own output, or for query models the logits of `class_scores`, (N, C, H, W)."""
        images = images.flip(1) if self.reverse else images
        if self.kind not in MASK_SIZES:
            return self.wrapped(pixel_values=images)
        ids: Any = self.token_ids
        task = {} if ids is None else {"task_inputs": ids.expand(len(images), -1)}
        output = self.wrapped(pixel_values=images, **task)
        size = (images.shape[-2], images.shape[-1])
        scores = class_scores(output.class_queries_logits, output.masks_queries_logits, self.kind, size)
        return scores.clamp(min=torch.finfo(scores.dtype).tiny).log()


def class_scores(classes: Tensor, masks: Tensor, kind: str, size: tuple[int, int]) -> Tensor:
    """S_c(u, v) = sum_q softmax(classes_q)[c] * sigmoid(masks_q(u, v)), as the library's own post-processing has it.

    The null class, the last one, is left out after the softmax. Masks and S are resized bilinearly, in the order and to
    the sizes of `post_process_semantic_segmentation`, so the argmax over c is that of the library (Cheng et al. 2021,
    arXiv:2107.06278, section 3.4). With logits z = log S the softmax of z is S_c / sum_k S_k: the scores become shares,
    and where all masks are near 0, these shares still sum to 1. Logits have S clamped at the smallest normal float.

    Args:
        classes: (N, Q, C + 1) class logits of the queries.
        masks: (N, Q, h, w) mask logits of the queries.
        kind: the model's type, a key of `MASK_SIZES`.
        size: (H, W) of the image.

    Returns:
        S, (N, C, H, W), at least 0, not bounded by 1.
    """
    first = MASK_SIZES[kind]
    if first is not None:
        masks = F.interpolate(masks, size=size if first == IMAGE else first, mode="bilinear", align_corners=False)
    scores = torch.einsum("bqc, bqhw -> bchw", classes.softmax(-1)[..., :-1], masks.sigmoid())
    return F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
