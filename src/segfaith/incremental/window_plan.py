"""A graph evaluated on windows: only what an alteration of the image changes and what the target's score reads.

Incremental inference of convolutional networks (Nakandala et al., SIGMOD 2019, "Incremental and approximate inference
for faster occlusion-based deep CNN explanations"). From the image forwards, each layer recomputes the window that a
local change can reach and takes the rest from the clean image's features. From the score backwards, each layer computes
no more than the target region reads. An operation that is not known here reads whole maps, so any traceable model is
served, and exactly.
"""

import numpy as np
from torch import fx

from segfaith.incremental.arithmetic import Values
from segfaith.incremental.graph import Graph, Shape
from segfaith.incremental.operations import Arithmetic, Operation, operation_of
from segfaith.incremental.windows import Box, Windows
from segfaith.types import Float, Tensor

_NOTHING = Box(np.zeros(2, dtype=np.int64), np.zeros(2, dtype=np.int64))


class WindowPlan:
    """Which window of each layer's output is needed for the logits inside `box`.

    Attributes:
        output: the node of the logits.
        box: a box of the map of logits.
        needs: the needed box of each node's map.
        operations: those that the logits need, in the order of their evaluation.
    """

    def __init__(self, graph: Graph, output: fx.Node, shapes: dict[fx.Node, Shape | None], box: Box) -> None:
        self.image, self.output, self.box = graph.image, output, box
        self.needs: dict[fx.Node, Box] = {output: box}
        backwards: list[tuple[fx.Node, Operation]] = []
        self._last_reads: dict[fx.Node, list[fx.Node]] = {}  # the nodes whose values no later node reads
        used = {output}
        for node in reversed(graph.nodes[: graph.nodes.index(output) + 1]):
            if node not in used or node is graph.image:
                continue
            operation = operation_of(graph, node, shapes)
            backwards.append((node, operation))
            self._last_reads[node] = [source for source in operation.sources if source not in used]
            used.update(operation.sources)
            for source, needed in operation.needs(self.needs.get(node, _NOTHING)).items():
                self.needs[source] = needed.hull(self.needs.get(source))
        self.operations = dict(reversed(backwards))

    def evaluate(self, images: Windows, arithmetic: Arithmetic) -> Float[Tensor, "B C h w"]:
        """The logits inside the box for B altered images, given as windows of the clean image."""
        values: Values = {self.image: arithmetic.enter(self.image, images)}
        for node, operation in self.operations.items():
            values[node] = operation.apply(values, self.needs.get(node, _NOTHING), arithmetic)
            for source in self._last_reads[node]:
                del values[source]
        return arithmetic.leave(self.output, values[self.output], self.box)
