"""Finds the logits in the output of a segmentation module."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from segfaith.errors import SampleError


def logits_in(output: Any) -> Tensor:
    """The logits in a module's output: a tensor, `.logits`, a dict with `out` or `logits`, a tuple or a list.

    Raises:
        SampleError: the output holds no logits; the message describes the output.
    """
    if isinstance(output, Tensor):
        return output
    if hasattr(output, "logits"):
        return logits_in(output.logits)
    for key in ("out", "logits"):
        if isinstance(output, Mapping) and key in output:
            return logits_in(output[key])
    if isinstance(output, tuple | list) and output:
        return logits_in(output[0])
    keys = f" with keys {list(output)}" if isinstance(output, Mapping) else ""
    raise SampleError(
        f"cannot find logits in a {type(output).__name__}{keys}; expected a tensor, a dict with 'out' or 'logits', a "
        "tuple or list whose first item is one of these, or an object with .logits"
    )
