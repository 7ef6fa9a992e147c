"""The embedded segmenter of the planted scenes: LR-ASPP (Howard et al. 2019) on a dilated MobileNetV3-Small."""

from torch import Tensor, nn
from torchvision.models import mobilenet_v3_small
from torchvision.models.segmentation.lraspp import LRASPP

from segfaith.types import Float

LOW_CHANNELS, HIGH_CHANNELS = 24, 576


class _Backbone(nn.Module):
    """torchvision's MobileNetV3-Small features, cut where LR-ASPP reads them: 24 channels at stride 8, 576 at 16."""

    def __init__(self) -> None:
        super().__init__()
        features = mobilenet_v3_small(weights=None, dilated=True).features
        self.low, self.high = features[:3], features[3:]

    def forward(self, x: Float[Tensor, "N 3 H W"]) -> dict[str, Tensor]:
        low = self.low(x)
        return {"low": low, "high": self.high(low)}


def build_scene_model(num_classes: int = 11) -> nn.Module:
    """The segmenter without weights: 1.08 million parameters, logits at the image's size as {"out": (N, C, H, W)}."""
    model: nn.Module = LRASPP(
        _Backbone(), low_channels=LOW_CHANNELS, high_channels=HIGH_CHANNELS, num_classes=num_classes
    )
    return model
