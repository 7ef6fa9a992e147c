"""Class names: of Pascal VOC, of the planted scenes, from a list, or from a file with one name per line."""

from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Integral
from pathlib import Path

from segfaith.constants import IGNORE
from segfaith.errors import SettingsError
from segfaith.paths import absolute

VOC_CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
"""The 21 classes of Pascal VOC 2012 (Everingham et al. 2010) by label value."""

SCENE_CLASSES = [
    "background",
    "plain_rings",
    "plain_rays",
    "marker_upright",
    "marker_level",
    "context_above",
    "context_below",
    "both",
    "not_both",
    "either",
    "neither",
]
"""Classes by label value: two for each kind, plain, marker, context, conjunction, redundancy."""
SCENE_TWINS = {index: index + 1 if index % 2 else index - 1 for index in range(1, len(SCENE_CLASSES))}
"""The other class of each class's kind, from which only the planted evidence tells it."""


def read_classes(classes: str | Path | Sequence[str] | None) -> list[str] | None:
    """Class names by index from "voc", a list of names, or the path of a text file with one name a line.

    Raises:
        SettingsError: no such file, no names in it, a name twice, names that are not text, or a mapping or set.
    """
    if classes is None:
        return None
    if isinstance(classes, Mapping | Set):
        raise SettingsError(
            f"classes are a {type(classes).__name__}, whose order need not be the channels' order; give a list of the "
            "names in the channels' order, such as list(id2label.values()) for an id2label that counts from 0"
        )
    if not isinstance(classes, str | Path | Iterable):
        raise SettingsError(f"classes = {classes!r}: expected 'voc', a list, or a file with one name a line")
    if classes == "voc":
        return list(VOC_CLASSES)
    if isinstance(classes, str | Path):
        names = _read_names(absolute(str(classes), Path.cwd()))
    else:
        names = list(classes)
        if not all(isinstance(name, str) for name in names):
            raise SettingsError(f"class names must be text; got {names[:5]}{', ...' * (len(names) > 5)}")
    if not names or len(set(names)) != len(names):
        raise SettingsError(f"class names must be at least one and all different; got {names}")
    return names


def _read_names(path: Path) -> list[str]:
    """The names in a text file, one a line, which may begin with a byte order mark."""
    if not path.is_file():
        raise SettingsError(f"no class-name file {path}; expected 'voc', a list, or a file with one name a line")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"class-name file {path} cannot be read ({error}); save it as text in UTF-8") from error
    names = [name for line in text.splitlines() if (name := line.strip())]
    if bad := [name for name in names if not name.isprintable()]:
        raise SettingsError(f"class-name file {path} has the name {bad[0]!r} with a control character; expected text")
    return names


def class_index(name: str | int, classes: Sequence[str] | None, count: int | None = None) -> int:
    """The index of a class given by name or by index; `count` is the number of classes, if known.

    Raises:
        SettingsError: the name or index is not among the classes, or names are unknown.
    """
    if isinstance(name, Integral):
        top = count or (IGNORE if classes is None else len(classes))
        if not 0 <= name < top:
            raise SettingsError(f"class {name} is out of range; expected 0 to {top - 1}")
        return int(name)
    if not isinstance(name, str):
        raise SettingsError(f"class {name!r} is a {type(name).__name__}; give its name or its index")
    if classes is None:
        raise SettingsError(f"class {name!r} is given by name, but the model has no class names; give its index")
    if name not in classes:
        raise SettingsError(f"unknown class {name!r}; the classes are {', '.join(classes)}")
    return list(classes).index(name)
