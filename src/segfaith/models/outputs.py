"""Finds the logits in the output of a segmentation module."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from segfaith.errors import SampleError, SettingsError

Step = str | int
NAMES = ("out", "logits")
QUERIES = ("class_queries_logits", "masks_queries_logits")
"""What the query models of transformers return: their masks are those of queries, not of classes."""
SHOWN = 12
"""How many items of an output an error lists."""
SAY = "say output = a key, an attribute or an index, or several joined by dots, as in output = 'decoder.0'"


def check_output(output: Any) -> None:
    """Lets `output` of a model's settings pass: None, an index, or names and indices joined by dots.

    Raises:
        SettingsError: it is something else.
    """
    if output is None or (isinstance(output, int) and not isinstance(output, bool)):
        return
    if not isinstance(output, str) or not all(output.split(".")):
        raise SettingsError(f"output = {output!r}: expected a key, an attribute, an index, or several joined by dots")


def logits_in(
    output: Any, images: int, chosen: Step | None = None, *, within: tuple[Step, ...] = ()
) -> tuple[Tensor, tuple[Step, ...]]:
    """The logits in a module's output, and the steps that lead to them.

    A tensor is taken as it is; of a dict the entry `out` or `logits`; of an object its attribute `logits`. Of a tuple,
    list or other dict the only item that holds maps (N, C, h, w) for N images is taken.

    Args:
        images: N.
        chosen: where the user says that the logits are, see `check_output`; None: they are looked for. A key that holds
            a dot itself counts before the steps.
        within: the steps to `output` in what the module returned, for messages.

    Raises:
        SampleError: the output holds no logits, or several items may be the logits; the message describes the output.
    """
    if all(hasattr(output, name) for name in QUERIES):
        raise SampleError(
            f"the model is a query model: it returns a {type(output).__name__} with {' and '.join(QUERIES)}, masks of "
            "queries and no logits of classes. Load it as hf:FOLDER, the folder of its save_pretrained, or give "
            "segfaith.models.adapters.queries.HubModel(module, module.config.model_type), which makes them of both"
        )
    if chosen is not None:
        whole = isinstance(output, Mapping) and chosen in output
        steps = (str(chosen),) if whole else tuple(str(chosen).split("."))
        inner, deeper = logits_in(_at(output, steps), images, within=steps)
        return inner, (*steps, *deeper)
    if isinstance(output, Tensor):
        return output, ()
    step = _step(output, images, within)
    inner, deeper = logits_in(follow(output, step), images, within=(*within, step))
    return inner, (step, *deeper)


SMALL_MAP = 8
"""Smaller maps are not suspected to have the channels last: paddings can give them any shape."""


def check_aspect(model: str, came: tuple[int, int, int], image: tuple[int, int]) -> None:
    """Lets logits pass whose size (h, w) has the image's aspect, or any that is not the aspect of its transpose.

    Args:
        came: channels, height and width of the logits.

    Raises:
        SampleError: rows and columns are swapped, or the channels come last; resized to the image such logits would be
            the prediction of another scene.
    """
    channels, rows, columns = came
    height, width = rows * image[0], columns * image[1]  # equal where the map has the transpose's aspect
    strange = misfit(rows, columns, image) > max(1.0, 0.1 * max(rows, columns))
    if strange and abs(height - width) <= 0.01 * max(height, width):
        raise SampleError(
            f"{model} returned logits of {rows} x {columns} for an image of {image[0]} x {image[1]} (height x "
            "width): rows and columns are swapped; return (N, classes, height, width)"
        )
    if strange and min(channels, rows) > SMALL_MAP and misfit(channels, rows, image) < 1:
        raise SampleError(
            f"{model} returned logits of shape (N, {channels}, {rows}, {columns}) for an image of {image[0]} x "
            f"{image[1]}: the channels come last; return (N, classes, height, width), as by logits.movedim(-1, 1)"
        )


def misfit(height: int, width: int, image: tuple[int, int]) -> float:
    """By how many cells a map misses the image's aspect; 0 for square maps, as models of a fixed size give."""
    if height == width:
        return 0.0
    rows, columns = image
    return abs(height - rows * width / columns) if columns >= rows else abs(width - columns * height / rows)


def follow(output: Any, step: Step) -> Any:
    """What one step leads to: a mapping's entry, an attribute, or a sequence's item.

    Raises:
        KeyError, IndexError, AttributeError, ValueError: there is no such thing.
    """
    if isinstance(output, Mapping):
        return output[step] if step in output else output[int(step)]
    if isinstance(output, tuple | list) and not hasattr(output, str(step)):
        return output[int(step)]
    return getattr(output, str(step))


def _step(output: Any, images: int, within: tuple[Step, ...]) -> Step:
    """The step to the logits in an output that is no tensor."""
    if hasattr(output, "logits"):
        return "logits"
    if isinstance(output, Mapping):
        for key in NAMES:
            if key in output:
                return key
    place, say = "the model's output", SAY
    if within:
        inside = ".".join(map(str, within))
        place, say = f"output {inside!r} of the model", f"say which, as in output = '{inside}.0'"
    items = _items(output)
    holding = [key for key, item in items.items() if _holds_maps(item, images)]
    if len(holding) == 1:
        return holding[0]
    if len(holding) > 1 and isinstance(output, tuple | list):
        raise SampleError(
            f"{len(holding)} items of {place} may be its logits: {_described(output)}; segfaith does not guess which "
            f"is the prediction: {say}"
        )
    if isinstance(output, tuple | list) and output:
        return 0
    keys = f" with keys {list(output)}" if isinstance(output, Mapping) else ""
    raise SampleError(
        f"cannot find logits in a {type(output).__name__}{keys}; expected a tensor, a dict with 'out' or 'logits', a "
        f"tuple, list or dict with a single item (N, C, h, w), or an object with .logits"
        + (f"; it has {_described(output)}: {SAY}" if items else "")
    )


def _at(output: Any, steps: tuple[str, ...]) -> Any:
    """What the user's steps lead to."""
    for number, step in enumerate(steps):
        try:
            output = follow(output, step)
        except (KeyError, IndexError, AttributeError, ValueError) as error:
            before = ".".join(steps[:number])
            place = f"output {before!r}" if before else "the output"
            raise SampleError(
                f"output = {'.'.join(steps)!r}: {place} of the model, a {type(output).__name__}, has no {step!r}; it "
                f"has {_described(output) or 'nothing to choose from'}"
            ) from error
    return output


def _items(output: Any) -> dict[Step, Any]:
    """The parts of an output by key, index or attribute."""
    if isinstance(output, Mapping):
        return dict(output)
    if isinstance(output, tuple | list):
        names = getattr(output, "_fields", range(len(output)))
        return dict(zip(names, output, strict=True))
    attributes = getattr(output, "__dict__", {})
    return {} if isinstance(output, Tensor) else {key: item for key, item in attributes.items() if key[:1] != "_"}


def _holds_maps(item: Any, images: int) -> bool:
    """Whether an item is maps (N, C, h, w), or `_step` would look for them in it."""
    if isinstance(item, Tensor):
        return item.ndim == 4 and item.is_floating_point() and len(item) == images
    if isinstance(item, Mapping | tuple | list) or hasattr(item, "logits"):
        return any(_holds_maps(inner, images) for inner in _items(item).values())
    return False


def _described(output: Any) -> str:
    parts = []
    for key, item in list(_items(output).items())[:SHOWN]:
        shape = f" {tuple(item.shape)}" if isinstance(item, Tensor) else ""
        parts.append(f"{key!r} ({type(item).__name__}{shape})")
    return ", ".join(parts) + (", ..." if len(_items(output)) > SHOWN else "")
