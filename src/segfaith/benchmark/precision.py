"""What a run says of the precisions of its methods."""

from collections.abc import Iterator, Sequence

import torch

from segfaith.attribution.methods import MethodInstance
from segfaith.evidence.regions import Regions
from segfaith.incremental.fused import COMPILER
from segfaith.incremental.precision import bf16_instructions, chosen, slow_bf16
from segfaith.incremental.scorers import INCREMENTAL


def automatic(methods: Sequence[MethodInstance], device: torch.device) -> dict[str, str]:
    """What "auto" means on this machine, for what makes two runs the same; empty where no method asks for it."""
    asks = any(key.precision == "auto" for key in _keys(methods))
    return {"precision auto": chosen("auto", device)} if asks else {}


def precision_lines(
    methods: Sequence[MethodInstance], device: torch.device, path: str = INCREMENTAL
) -> Iterator[tuple[bool, str]]:
    """What "auto" becomes here, and where bf16 is not expected to save time; and whether it is as expected.

    Args:
        path: how the model scores altered images.
    """
    asked, why = {key.precision for key in _keys(methods)}, slow_bf16(device)
    if "auto" in asked and path != INCREMENTAL:
        yield True, "auto is fp32 here: the model is not run by a graph"
    elif "auto" in asked:
        yield True, f"auto is {chosen('auto', device)} here: {why or f'this processor has {bf16_instructions()}'}"
    if "bf16" in asked and why:
        yield False, f"bf16 may take longer than fp32: {why}; use 'auto', or see segfaith verify-precision"


def _keys(methods: Sequence[MethodInstance]) -> list[Regions]:
    return [key for method in methods if (key := method.intervention_key) is not None]


def bf16_words(exact: float, bf16: float, device: torch.device) -> str:
    """Whether bf16 saved time where both were measured, and why it may not have.

    Args:
        exact, bf16: seconds of the same evidence.
    """
    words = f"bf16 took {bf16 / exact:.2f} times the time of exact"
    causes = [
        slow_bf16(device),
        COMPILER.missing and f"functions between convolutions go step by step: {COMPILER.missing}",
    ]
    told = "; ".join(cause for cause in causes if cause)
    advice = "" if bf16 < exact else "; it does not pay here, use fp32"
    return words + (f" ({told})" if told else "") + advice
