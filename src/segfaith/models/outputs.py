"""Where the logits are in what a segmentation module returns."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from segfaith.errors import SampleError


def logits_in(output: Any) -> Tensor:
    """The logits in what a module returned: tensor, `.logits`, dict with `out` or `logits`, tuple or list.

    Raises:
        SampleError: there are none; the message says what came.
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
