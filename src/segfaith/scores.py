r"""The score that every stage shares: the masked mean of one number of each pixel, by default the class probability.

    s_c(x, M) = sum_{uv} M_{uv} p_c(x)_{uv} / (sum_{uv} M_{uv} + eps),    p = softmax over the classes of z = f(x)

This is equation 1 of the paper, a number in [0, 1]. `Scalar` gives the other numbers that may take the place of p_c.
Sums are in float64, everything before them in float32. eps = 1e-6.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from segfaith.constants import EPS
from segfaith.errors import SampleError, SampleSkipped, SettingsError
from segfaith.models.segmentation import SegmentationModel
from segfaith.targets import majority_class
from segfaith.types import COMPARING, Bool, Float, Int, Labels, Score, Target


@dataclass(frozen=True)
class Scalar:
    """The number of each pixel that is explained and measured; its mean over M is the score s.

    | kind | number of a pixel | range |
    |---|---|---|
    | `probability` | p_c: softmax, or the sigmoid of z_c if `independent` | [0, 1] |
    | `conditional` | p_c / (p_c + p_v) = sigmoid(z_c - z_v) | [0, 1] |
    | `logit` | z_c | any |
    | `log_odds` | log(p_c / (1 - p_c)) | any |
    | `margin` | z_c - z_v | any |

    v is `versus`; if it is None, the class with the largest other z of the pixel. `conditional` is the probability of c
    given that the pixel is c or v. So it does not ask what tells these two from all other classes.

    A model of one channel z has the logits [0, z]. Its logit, log odds and margin are z for class 1 and -z for class 0,
    and its conditional is the probability.

    Attributes:
        class_index: c.
        independent: whether each class has its own sigmoid, so that classes may overlap (`head = "sigmoid"`).
    """

    class_index: int
    kind: Score = "probability"
    versus: int | None = None
    independent: bool = False

    @property
    def reads(self) -> tuple[int, ...] | None:
        """The classes from whose logits the number follows, c first: c alone, c and v, or None for all."""
        if self.kind in COMPARING:
            return None if self.versus is None else (self.class_index, self.versus)
        return (self.class_index,) if self.kind == "logit" or self.independent else None

    @property
    def among_read(self) -> "Scalar":
        """The same number of the logits of `reads` alone, in that order."""
        return replace(self, class_index=0, versus=None if self.versus is None else 1)

    def unsquashed(self, *, single: bool) -> "Scalar":
        """The number before its softmax or sigmoid, z_c or a margin; any other number is itself.

        Of a model of a `single` channel z, whose logits are [0, z], z_0 is -z: the constant 0 explains nothing.
        """
        if self.kind == "probability":
            return replace(self, kind="log_odds" if single else "logit")
        return replace(self, kind="margin") if self.kind == "conditional" else self

    def of(self, logits: Tensor, axis: int) -> Tensor:
        """The number of each pixel, float32: `logits` with the classes along `axis`, which is dropped.

        Raises:
            SampleError: the model has no such class.
        """
        classes = logits.shape[axis]
        for index in (self.class_index, self.versus or 0):
            check_class(index, classes)
        own = logits.select(axis, self.class_index)
        if self.kind == "probability":
            return own.sigmoid() if self.independent else logits.softmax(axis).select(axis, self.class_index)
        if self.reads == (self.class_index,):
            return own
        if self.versus is not None:
            margin = own - logits.select(axis, self.versus)
        else:
            numbers = [index for index in range(classes) if index != self.class_index]
            others = logits.index_select(axis, torch.tensor(numbers, device=logits.device))
            margin = own - (others.logsumexp(axis) if self.kind == "log_odds" else others.amax(axis))
        return margin.sigmoid() if self.kind == "conditional" else margin

    def predicted(self, logits: Tensor, axis: int) -> Tensor:
        """Whether each pixel is predicted as the class: it has the largest logit, or a sigmoid above 1/2."""
        if self.independent:
            return logits.select(axis, self.class_index) > 0
        return logits.argmax(axis) == self.class_index


def prediction(logits: Float[Tensor, "N C H W"], *, independent: bool) -> Tensor:
    """The class with the largest logit at each pixel, (N, H, W); if `independent`, where each class is predicted,
    (N, C, H, W), which is where its sigmoid is above 1/2."""
    return logits > 0 if independent else logits.argmax(1)


def scalar_of(model: SegmentationModel, target: Target) -> Scalar:
    """The number of each pixel that a target asks of a model, which has run before.

    Raises:
        SettingsError: a comparison of classes that do not compete, since each has its own sigmoid.
    """
    if target.score in COMPARING and model.independent:
        raise SettingsError(
            f"score = {target.score!r} compares classes, but the classes of {model.name} have a sigmoid each and do "
            "not compete; use 'probability', 'logit' or 'log_odds'"
        )
    kind = "log_odds" if target.score == "logit" and model.channels == 1 else target.score
    return Scalar(int(target.class_index), kind, target.versus, model.independent)


def versus_predicted(target: Target, predicted: Labels) -> Target:
    """The target compared with the class that the model predicts on most pixels of M: `versus = "predicted"`.

    The score stays if it compares classes; any other becomes the margin. A margin s < 0, or a conditional s < 1/2, then
    says that the other class wins over M in the mean, and a map of s says what holds the class up, or would have to.

    Args:
        predicted: the model's argmax, (H, W).

    Raises:
        SampleSkipped: the model predicts the target's own class on most pixels of M, so that nothing is missed.
    """
    other = majority_class(predicted, target.region)
    if other == target.class_index:
        raise SampleSkipped(
            f"the model predicts class {other} on most pixels of the target, so the target is not missed and no other "
            "class takes its place; leave versus out to compare with the strongest other class of each pixel"
        )
    return replace(target, score=target.score if target.score in COMPARING else "margin", versus=other)


def masked_mean(logits: Float[Tensor, "N C H W"], region: Bool[Tensor, "N H W"], scalar: Scalar) -> Float[Tensor, "N"]:
    """s of N images, each with its own region, in float64.

    Args:
        logits: z at the image's size, float32.
        region: M; only its pixels are read.

    Raises:
        SampleError: a logit inside the region is not finite, so the score is undefined; or there is no such class.
    """
    counts = region.sum((1, 2))
    pixels = logits.movedim(1, -1)[region]  # (pixels of all regions, C); each row is treated alone
    values = scalar.of(pixels, 1).double()
    total = torch.stack([part.sum() for part in torch.split(values, counts.tolist())])
    score = total / (counts.double() + EPS)
    check_finite(score)
    return score


def check_finite(score: Float[Tensor, "N"]) -> None:
    """Raises SampleError where a score is not finite."""
    if not bool(score.isfinite().all()):
        raise SampleError("the model returned logits that are NaN or infinite inside the target region")


def check_class(class_index: int, channels: int) -> None:
    """Raises SampleError where the model has no such class."""
    if class_index >= channels:
        raise SampleError(f"class index {class_index} is not one of the model's {channels} classes")


def sent(numbers: Int[Tensor, "..."], device: torch.device) -> Int[Tensor, "..."]:
    """Numbers from the CPU, on a device; the copy to a GPU does not block."""
    return numbers.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else numbers.to(device)
