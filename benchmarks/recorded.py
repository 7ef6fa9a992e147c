"""Windows as CUDA graphs: each batch's work is recorded once, and repeated without a call for each operation.

A graph repeats the same work at the same addresses, and where windows lie is part of that work. So what is repeated
here is the same batch of the same image: this is the most that graphs over windows of a few padded sizes could give.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from segfaith.batching import Boxes
from segfaith.errors import SettingsError
from segfaith.incremental import windows
from segfaith.incremental.scorers import IncrementalScorer


@contextmanager
def recorded(device: torch.device) -> Iterator[None]:
    """Inside a `with` block, a batch that was scored before is scored by its graph.

    Raises:
        SettingsError: the device is no NVIDIA GPU.
    """
    if device.type != "cuda":
        raise SettingsError("CUDA graphs need an NVIDIA GPU")
    score, graphs = IncrementalScorer.score, dict[Any, tuple[Any, Tensor, Tensor]]()

    def replayed(scorer: IncrementalScorer, images: Tensor, boxes: Boxes | None = None) -> Tensor:
        key = images.shape, None if boxes is None else tuple(side.tobytes() for side in boxes)
        if key not in graphs:
            graphs[key] = _record(score, scorer, images.clone(), boxes)
        graph, own, scores = graphs[key]
        own.copy_(images)
        graph.replay()
        return scores.clone()

    IncrementalScorer.score = replayed  # type: ignore[method-assign]
    try:
        yield
    finally:
        IncrementalScorer.score = score  # type: ignore[method-assign]


def _record(score: Any, scorer: IncrementalScorer, images: Tensor, boxes: Boxes | None) -> tuple[Any, Tensor, Tensor]:
    """The graph of a batch, the images that it reads and the scores that it writes."""
    send, places = windows.sent, list[Tensor]()

    def keep(numbers: Tensor, device: torch.device) -> Tensor:
        places.append(send(numbers, device))
        return places[-1]

    try:
        windows.sent = keep  # the numbers of pixels go to the GPU before the graph is recorded
        score(scorer, images, boxes)
        kept = iter(places)
        windows.sent = lambda numbers, device: next(kept)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            scores = score(scorer, images, boxes)
    finally:
        windows.sent = send
    graph.places = places  # they must live as long as the graph
    return graph, images, scores
