"""What mask values mean: `Meaning`, made of the `[data]` keys labels, foreground, ignore, background and classes."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from segfaith.classes import class_index
from segfaith.constants import IGNORE
from segfaith.data.presets import PRESETS
from segfaith.data.reading import Reading
from segfaith.errors import SampleError, SettingsError
from segfaith.lookup import lookup
from segfaith.types import Int, Labels, Mask, Tensor

BACKGROUND = "background"


@dataclass(frozen=True)
class Meaning:
    """What the values of a data set's masks mean.

    Attributes:
        classes: class names by index.
        background: the class that is never a dominant target, or None.
        ignored: mask values that belong to no class.
        indices: class indices by mask value, or by colour (65536 r + 256 g + b); None: values are class indices.
        key: the key of `[data]` that says so, for messages: "labels" or "foreground".
        colours: whether masks are pictures whose colours are the values.
        named: whether the names were given; False: they follow from `labels` or `foreground`.
    """

    classes: Sequence[str]
    background: int | None = 0
    ignored: frozenset[int] = frozenset({IGNORE})
    indices: Mapping[int, int] | None = None
    key: str = ""
    colours: bool = False
    named: bool = True


def meaning_of(reading: Reading, classes: Sequence[str] | None) -> Meaning:
    """What mask values mean by the settings.

    Args:
        classes: class names by index, or None where `labels` or `foreground` give them.

    Raises:
        SettingsError: a class that is not among the classes, values that are no values, keys that contradict each
            other, or class names that nothing gives.
    """
    named = classes is not None
    if reading.foreground is not None:
        classes = classes or [BACKGROUND, "foreground"]
        if len(classes) < 2:
            raise SettingsError(f"foreground is class 1, and classes are {list(classes)}; name two classes")
        table: Mapping[int, str | int] | None = {0: 0, reading.foreground: 1}
        colours = False
    else:
        table, colours = _table(reading.labels)
    key = "foreground" if reading.foreground is not None else "labels" if table else ""
    if classes is None:
        if table is None:
            raise SettingsError("no class names; give [data] classes")
        classes = _classes_of(table, reading)
    indices = None if table is None else {value: _index(name, classes) for value, name in table.items()}
    background, ignored = background_of(reading, classes), _ignored(reading, indices, colours)
    asked = {_index(name, classes) for name in (table or {}).values() if name != IGNORE}
    if len(classes) > IGNORE and (IGNORE not in ignored if table is None else IGNORE in asked):
        raise SettingsError(
            f"class {IGNORE}, {classes[IGNORE]!r}, cannot be told from ignored pixels, whose label is {IGNORE}; leave "
            "it out: name its value in [data] ignore, or give it another class in [data] labels"
        )
    return Meaning(classes, background, ignored, indices, key, colours, named)


def _table(labels: str | Mapping[Any, str | int] | None) -> tuple[Mapping[int, str | int] | None, bool]:
    """The table of `labels` by value or colour, and whether its keys are colours."""
    if labels is None:
        return None, False
    if isinstance(labels, str):
        return lookup("table of labels", labels, PRESETS), False
    if not labels:
        raise SettingsError('labels has no entry; expected mask values with their classes, as { 255 = "lesion" }')
    labels = {str(key): name for key, name in labels.items()}
    colours = [key for key in labels if _colour(key) is not None]
    wrong = [key for key in labels if key not in colours and not re.fullmatch(r"-?\d+", key)]
    if wrong or len(colours) not in (0, len(labels)):
        raise SettingsError(
            f"labels has the keys {', '.join(map(repr, labels))}; expected whole numbers alone, or colours alone, as "
            "in '#ff0000' or '255,0,0'"
        )
    table: dict[int, str | int] = {}
    for key, name in labels.items():
        colour = _colour(key)
        value = int(key) if colour is None else colour
        if value in table:
            raise SettingsError(f"labels names {key!r} twice; name each value once")
        table[value] = name
    return table, bool(colours)


def _colour(key: str) -> int | None:
    """A colour, #rrggbb or r,g,b, as 65536 r + 256 g + b; None for other text."""
    if re.fullmatch(r"#[0-9a-fA-F]{6}", key):
        return int(key[1:], 16)
    if re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*){2}", key):
        parts = [int(part) for part in key.split(",")]
        if max(parts) <= 255:
            return parts[0] << 16 | parts[1] << 8 | parts[2]
    return None


def _classes_of(table: Mapping[int, str | int], reading: Reading) -> list[str]:
    """The classes that a table names, the background's first; of a table of indices alone "class 0", "class 1", ..."""
    names = list(dict.fromkeys(name for name in table.values() if isinstance(name, str)))
    numbers = [name for name in table.values() if not isinstance(name, str) and name != IGNORE]
    if names and numbers:
        listed = ", ".join(map(str, numbers))
        raise SettingsError(
            f"labels gives some classes by name ({', '.join(names)}) and some by index ({listed}), so that the "
            "indices of the named ones are unknown; give all by index, or all by name, or list all names by index in "
            "[data] classes"
        )
    if not numbers and not names:
        raise SettingsError(
            'labels gives no value a class, only 255 for ignored pixels; add the values of classes, as in 1 = "lesion"'
        )
    if numbers:
        if min(numbers) < 0:
            raise SettingsError(f"labels: class {min(numbers)} is out of range; expected the index of a class, from 0")
        return [f"class {index}" for index in range(max(numbers) + 1)]
    first = reading.background if reading.background in names else BACKGROUND
    if first in names:
        names.remove(str(first))
        return [str(first), *names]
    if reading.background != "none" and not isinstance(reading.labels, str):
        raise SettingsError(
            f"labels names the classes {', '.join(names)} and none is called 'background'; if another value is the "
            'background, as 0 is in most masks, add it: 0 = "background". Else say which class is never a dominant '
            'target: [data] background = "NAME", or "none" where all are objects'
        )
    return names


def _index(name: str | int, classes: Sequence[str]) -> int:
    if name == IGNORE:
        return IGNORE
    try:
        return class_index(name, classes)
    except SettingsError as error:
        raise SettingsError(f"labels: {error}; add it to [data] classes, or correct it") from error


def background_of(reading: Reading, classes: Sequence[str]) -> int | None:
    """The class that is never a dominant target; None where all are objects.

    Raises:
        SettingsError: `background` names a class that is not there.
    """
    given = reading.background
    if given == "none":
        return None
    if given is None:
        if reading.labels is not None and BACKGROUND in classes:
            return list(classes).index(BACKGROUND)
        return None if isinstance(reading.labels, str) else 0
    try:
        return class_index(given, classes)
    except SettingsError as error:
        raise SettingsError(f'background: {error}; or "none"') from error


def _ignored(reading: Reading, indices: Mapping[int, int] | None, colours: bool) -> frozenset[int]:
    """The ignored values: the given ones, else 255 where it has no other meaning."""
    if reading.ignore is None:
        alone = indices is None or (reading.foreground is None and not colours)
        return frozenset({IGNORE} - set(indices or ()) if alone else ())
    if colours and reading.ignore:
        raise SettingsError(
            "ignore names values and labels names colours; ignore a colour by '#rrggbb' = 255 in labels"
        )
    both = sorted(set(reading.ignore) & set(indices or ()))
    if both:
        raise SettingsError(f"{both[0]} is a value of labels or foreground and of ignore; name it in one of them alone")
    return frozenset(reading.ignore)


def translate(values: Int[Tensor, "H W"], meaning: Meaning, path: Path) -> Labels:
    """Mask values as class indices, 255 where they are ignored.

    Raises:
        SampleError: a value without a meaning; the message says its share of the mask and what to add.
    """
    if meaning.indices is None:
        ignored = torch.isin(values, torch.tensor(sorted(meaning.ignored), dtype=values.dtype))
        top = len(meaning.classes)
        bad = torch.unique(values[((values < 0) | (values >= top)) & ~ignored]).tolist()
        if bad:
            more = "; if every label is one above its class's index, say so with [data] labels" * (bad == [top])
            ignorable = "".join(f", or {value} for ignored pixels" for value in sorted(meaning.ignored))
            raise SampleError(
                f"label {bad[0]} is out of range; expected 0 to {top - 1}{ignorable} ({_share(values, bad[0])} of "
                f"{path}); add its class to [data] classes, name it in [data] labels, or add it to [data] ignore{more}"
            )
        return values if meaning.ignored == {IGNORE} else values.masked_fill(ignored, IGNORE)
    known = dict.fromkeys(meaning.ignored, IGNORE) | dict(meaning.indices)
    unique, places = torch.unique(values, return_inverse=True)
    bad = [value for value in unique.tolist() if value not in known]
    if bad:
        raise SampleError(_unknown(values, bad[0], meaning, path))
    return torch.tensor([known[value] for value in unique.tolist()])[places]


def _unknown(values: Tensor, value: int, meaning: Meaning, path: Path) -> str:
    if meaning.colours:
        key, where = f"'#{value:06x}'", "colour"
        remedy = f'add {key} = "CLASS", or {key} = 255 for ignored pixels, to [data] labels'
    else:
        key, where = str(value), "value"
        remedy = f"add {key} to [data] ignore if these pixels belong to no class"
        if meaning.key == "foreground":
            remedy = f"set [data] foreground = {key} if these are the object's, or {remedy}"
        else:
            remedy = f'add {key} = "CLASS" to [data] labels, or {remedy.removeprefix("add ")}'
    return (
        f"label mask {path} has the {where} {key} in {_share(values, value)} of its pixels, which [data] {meaning.key} "
        f"does not name; {remedy}"
    )


def _share(values: Tensor, value: int) -> str:
    return f"{float((values == value).double().mean()):.2%}"


def overlapping(planes: Tensor, meaning: Meaning) -> tuple[Labels, dict[int, Mask]]:
    """Planes of overlapping classes (K, H, W) as a label map and masks by class.

    The label of a pixel is the lowest class that covers it, the background aside; else the background, or 255 where
    there is none. With a plane less than classes, the background has no plane.

    Args:
        planes: boolean, with as many planes as `plane_counts` allows.
    """
    numbers = [index for index in range(len(meaning.classes)) if index != meaning.background]
    if len(planes) == len(meaning.classes):
        numbers = list(range(len(meaning.classes)))
    masks = dict(zip(numbers, planes, strict=True))
    rest = IGNORE if meaning.background is None else meaning.background
    labels = torch.full(planes.shape[-2:], rest)
    for index in sorted(masks, reverse=True):
        if index != meaning.background:
            labels[masks[index]] = index
    return labels, masks


def plane_counts(meaning: Meaning) -> list[int]:
    """How many planes a mask of overlapping classes may have: all classes, or all but the background."""
    count = len(meaning.classes)
    return [count] if meaning.background is None else [count, count - 1]
