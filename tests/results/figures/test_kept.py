"""Kept maps and pictures that are damaged cost their own sample, and nothing else."""

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from made_runs import make_run
from segfaith.results.figures.drawings import DRAWINGS
from segfaith.results.figures.tiles import write_pictures
from segfaith.results.records.runs import load_run
from segfaith.results.report.gallery import gallery
from segfaith.results.report.pictures import pictures
from segfaith.results.statistics.analysis import analyse


def array(values: Any) -> bytes:
    content = BytesIO()
    np.save(content, values)
    return content.getvalue()


def archive() -> bytes:
    content = BytesIO()
    np.savez(content, np.zeros((16, 16)))
    return content.getvalue()


def picture(size: tuple[int, int]) -> bytes:
    content = BytesIO()
    Image.new("RGB", size, "white").save(content, "PNG")
    return content.getvalue()


def half(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def always(content: bytes) -> Callable[[bytes], bytes]:
    return lambda whole: content


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes] | None]] = {
    "no map": ("ega.npy", None),
    "an empty map": ("ega.npy", always(b"")),
    "a cut map": ("ega.npy", half),
    "a small map": ("ega.npy", always(array(np.zeros((3, 3))))),
    "a map of channels": ("ega.npy", always(array(np.zeros((16, 16, 2))))),
    "a map of text": ("ega.npy", always(array(np.array(["a"])))),
    "a map of NaN": ("ega.npy", always(array(np.full((16, 16), np.nan)))),
    "an archive": ("ega.npy", always(archive())),
    "an empty image": ("image.png", always(b"")),
    "a cut image": ("image.png", half),
    "another image": ("image.png", always(picture((50, 20)))),
    "no target": ("target.png", None),
    "an empty target": ("target.png", always(b"")),
    "another target": ("target.png", always(picture((50, 20)))),
    "another prediction": ("prediction.png", always(picture((50, 20)))),
    "an empty prediction": ("prediction.png", always(b"")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_maps_and_pictures_cost_their_own_sample_alone(damage: str, tmp_path: Path) -> None:
    """The pictures of `run` name the file; the page leaves it out; figures say why they are not drawn, or are drawn."""
    directory = make_run(
        tmp_path / "run", samples=("a", "b", "c"), methods=("gpa", "ega"), size=16, skipped=0, failed=0, curves=False
    )
    name, change = DAMAGE[damage]
    file = directory / "maps" / "b" / name
    if change is None:
        file.unlink()
    else:
        file.write_bytes(change(file.read_bytes() if file.exists() else b""))
    run, told = load_run(directory), list[str]()
    drawn = write_pictures(directory, run.description, run.records, told.append)
    assert [path.name for path in drawn] == ["pictures.png", "a.png", "c.png"]
    assert len(told) == 1
    blamed = file.with_name("target.png") if damage == "another image" else file  # which of the two is not known
    assert told[0].startswith(f"no picture of b: {blamed} cannot be read (")
    part = analyse([run]).parts[0]
    samples = gallery([part]).samples
    uris = dict(zip([one.sample_id for one in samples], pictures(samples, 10**7).uris, strict=True))
    assert set(uris["a"]) == set(uris["c"]) == {"", "gpa", "ega"}
    assert set(uris["b"]) == ({"", "gpa"} if name == "ega.npy" else set())
    for figure in ("success", "failure", "mechanism"):
        drawing = DRAWINGS[figure](part)
        assert drawing.figure is not None or drawing.why
