"""Makes any segmentation module usable by segfaith."""

from collections.abc import Sequence

from torch import nn

from segfaith.classes import read_classes
from segfaith.models.layers import Reshape, unwrapped
from segfaith.models.outputs import Step
from segfaith.models.segmentation import Head, SegmentationModel, Tokens


def wrap(
    module: nn.Module,
    *,
    layer: str | None = None,
    classes: str | Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    name: str | None = None,
    head: Head | None = None,
    channels: int | None = None,
    pad: int | None = None,
    tile: int | Sequence[int] | None = None,
    overlap: int | None = None,
    output: Step | None = None,
    tokens: Tokens = "auto",
    reshape: Reshape | None = None,
) -> SegmentationModel:
    """Makes any segmentation module usable by segfaith, without changing it.

    The model is tested before its first use (`models.probe`). It is refused if its outputs cannot be logits, or if two
    calls differ. It gets one image at a time if an image's outputs depend on the other images of a batch.

    Args:
        module: takes normalised images (N, bands, H, W), RGB if there are three bands. Returns logits (N, C, h, w) of
            any resolution as a tensor, a dict with `out` or `logits`, a tuple, list or dict with a single item that
            may hold them, or an object with `.logits`. A single channel is a sigmoid's logit of the foreground (class
            1).
        layer: dotted name of the feature layer for gradient methods, as in `module.named_modules()`; several are joined
            by "+", and their maps averaged. None: the deepest map before the head, see `evidence.layers`.
        classes: class names in the order of the channels; "voc", a list, or a file with one name a line.
        mean, std: normalisation of an image in [0, 1], one value a channel. By default ImageNet's for three channels
            and none for other numbers. Zeros and ones mean none.
        head: what the outputs are, see `Head`. Outputs do not show whether a head is multi-label, with classes that
            may overlap: say "sigmoid" then. Otherwise such a head gets a softmax, and p is not the probability that
            the head means.
        channels: how many channels the images have; None: as many as `mean` has values, or as the module's first
            convolution reads.
        pad: for a module that takes only sides that a number divides, that number: images are padded, see `padding`.
        tile, overlap: for images that are too large for memory, the tiles in which they go through the module, a side
            or (height, width) in pixels, and by how many pixels tiles overlap. See `tiling`.
        output: where the logits are in what the module returns: a key, an attribute, an index, or several joined by
            dots.
        tokens: how many leading tokens (class, registers) of a token layer (N, L, C) are dropped; "auto": as many, up
            to 8, as leave a grid of the image's aspect.
        reshape: a function from the layer's output to (N, K, h, w), which only rearranges values.

    Raises:
        SettingsError: the module, layer, mean, std, head, pad or tile cannot be used; the message says why.
    """
    return SegmentationModel(
        module,
        layer=layer,
        mean=mean,
        std=std,
        classes=read_classes(classes),
        name=name or type(unwrapped(module)).__name__,
        weights="as given",
        head=head,
        channels=channels,
        pad=pad,
        tile=tile,
        overlap=overlap,
        output=output,
        tokens=tokens,
        reshape=reshape,
    )
