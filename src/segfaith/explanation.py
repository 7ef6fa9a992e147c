"""What `explain` returns: the maps of an image, what they score, and the panel that shows both."""

from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from segfaith.evaluation.metrics import DROPS, has_zero
from segfaith.evaluation.ranking import rank_region, tie_ranks, top_count, top_pixels
from segfaith.evaluation.subject import Subject
from segfaith.models.segmentation import SegmentationModel
from segfaith.occlusion import occluder
from segfaith.results.report.sentences import FILLS, method_label, number, score_words, sentences
from segfaith.scores import scalar_of
from segfaith.types import JOINED, Image, Map, Mask, Target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = {
    "s": "s",
    "s_target_deleted": "s, top deleted",
    "tdd": "TDD",
    "tdd_gain": "TDD gain",
    "tdd_drop": "TDD drop",
    "tdd_drop_gain": "TDD drop gain",
    "s_off_deleted": "s, outside deleted",
    "odd_abs": "OT abs",
    "odd_drop_abs": "OT drop",
    "insertion_gain": "Ins.",
}
"""The columns that a notebook shows, with their headings: of relative drops and drops, those that `leading` names."""


@dataclass(frozen=True, eq=False)
class Explanation(Mapping[str, Map]):
    """The maps of one target in one image by method name, like a dictionary; a notebook shows the panel and the scores.

    Scores and figure are computed when they are first asked for.

    Attributes:
        subject: the model, and the image and target on its device.
        maps: (H, W) in [0, 1], float32, on the model's device, by method name.
        k, occlusion: of the deletions, as in `evaluate`.
        measure: measures maps; gives what `evaluate` gives.
        display: the three channels, counted from 1, that the panel shows as red, green and blue; None: the first ones.
        refused: why the model gives no map of a method, by method name.
    """

    subject: Subject
    maps: Mapping[str, Map]
    k: float
    occlusion: str
    measure: Callable[[Mapping[str, Map]], pd.DataFrame]
    display: Sequence[int] | None = None
    refused: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, method: str) -> Map:
        return self.maps[method]

    def __iter__(self) -> Iterator[str]:
        return iter(self.maps)

    def __len__(self) -> int:
        return len(self.maps)

    def __repr__(self) -> str:
        size = "{} x {}".format(*self.subject.size)
        return f"Explanation of {self.class_name} by {', '.join(self.maps)}, {size} px (.maps, .scores, .figure())"

    @property
    def model(self) -> SegmentationModel:
        """The explained model."""
        return self.subject.model

    @property
    def image(self) -> Image:
        """The explained image, (bands, H, W) in [0, 1]."""
        return self.subject.image

    @property
    def target(self) -> Target:
        """The explained target."""
        return self.subject.target

    @property
    def class_name(self) -> str:
        """The name of the target's class, or "class 3" where names are unknown."""
        return name_of(self.model, self.target.class_index)

    @property
    def score_name(self) -> str:
        """What is explained, in words: "probability", "margin to cat"."""
        return score_words(self._named_score)

    @property
    def _named_score(self) -> str:
        """The column `score` with the other class's name."""
        score, versus = self.target.score, self.target.versus
        return score if versus is None else f"{score} {JOINED[score]} {name_of(self.model, versus)}"

    @cached_property
    def scores(self) -> pd.DataFrame:
        """A row for each method and for the control `random_cells`; see `evaluate`. About three passes a map."""
        rows = self.measure({name: heatmap for name, heatmap in self.maps.items() if name != "random_cells"})
        order = [*self.maps, *([] if "random_cells" in self.maps else ["random_cells"])]
        return rows.loc[order]

    @property
    def sentences(self) -> dict[str, list[str]]:
        """What the scores of each method say, in words."""
        scores = self.scores.assign(score=self._named_score)
        return sentences(scores, self.class_name, k=self.k, occlusion=self.occlusion)

    @cached_property
    def predicted(self) -> Mask:
        """Where the model predicts the target's class, (H, W)."""
        return self._predicts(self.image)

    def deleted(self, method: str) -> Image:
        """The image without the top k of a method's map inside the target, as TDD is measured on it."""
        subject, heatmap = self.subject, self.maps[method]
        ranks = tie_ranks(subject.size, "cell", subject.rng("ties")).to(heatmap.device)
        order = rank_region(heatmap, self.target.region, ranks)
        pixels = top_pixels(order, top_count(self.k, len(order)), subject.size)
        rng = subject.rng(f"occlusion|{self.occlusion}")
        return occluder(self.occlusion, self.image, rng, wired=self.model.wired)(pixels[None])[0]

    def predicted_without(self, method: str) -> Mask:
        """Where the model predicts the target's class in `deleted`, (H, W)."""
        return self._predicts(self.deleted(method))

    def figure(self) -> "Figure":
        """The panel as a matplotlib figure: `figure().savefig("panel.png")`."""
        from segfaith.results.figures.panel import Column, draw_panel

        scores, what = self.scores.to_dict("index"), score_words(self.target.score)
        s = float(self.scores["s"].iloc[0])
        columns = [
            Column(
                method_label(name),
                heatmap.cpu().numpy(),
                self._shown(self.deleted(name)),
                self.predicted_without(name).cpu().numpy(),
                f"{what} {number(s)} to {number(scores[name]['s_target_deleted'])}",
            )
            for name, heatmap in self.maps.items()
        ]
        explained = f"{self.class_name}, mean {self.score_name} s = {number(s)}"
        return draw_panel(
            f"{self.model.name}, weights {self.model.weights}: {explained}",
            self._shown(self.image),
            self.target.region.cpu().numpy(),
            self.predicted.cpu().numpy(),
            columns,
            words=f"{self.class_name}: s = {number(s)}",
            deleted=f"Lower row: the top {100 * self.k:g} % of each map inside the target became "
            f"{FILLS.get(self.occlusion, self.occlusion)}; below it, the mean {what} before and after.",
            refused={method_label(name): reason for name, reason in self.refused.items()},
        )

    def png(self) -> bytes:
        """The panel as the content of a PNG file."""
        file = BytesIO()
        self.figure().savefig(file, format="png", dpi=130, metadata={"Software": None})
        return file.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png()

    def _repr_html_(self) -> str:
        picture = b64encode(self.png()).decode()
        left_out = {*DROPS.values()} if has_zero(self.target.score) else {*DROPS}
        shown = [name for name in SHOWN if name not in left_out]
        table = self.scores[shown].rename(columns=SHOWN).to_html(float_format="{:.2f}".format)
        lines = "".join(f"<li>{escape(line)}</li>" for lines in self.sentences.values() for line in lines)
        return f'<img src="data:image/png;base64,{picture}" alt="{escape(repr(self))}">{table}<ul>{lines}</ul>'

    def _shown(self, image: Image) -> NDArray[np.float32]:
        """The channels of an image that the panel shows."""
        values: NDArray[np.float32] = image.cpu().numpy()
        return values if self.display is None or len(values) == 1 else values[[band - 1 for band in self.display]]

    def _predicts(self, image: Image) -> Mask:
        with torch.no_grad():
            logits = self.model.logits(image[None])
        predicted: Mask = scalar_of(self.model, self.target).predicted(logits, 1)[0]
        return predicted


def name_of(model: SegmentationModel, index: int) -> str:
    """A class's name, or "class 3" where names are unknown."""
    return model.classes[index] if model.classes and index < len(model.classes) else f"class {index}"
