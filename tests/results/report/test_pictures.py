"""Pictures of samples: within their budget, with all outlines, and without those that can't be read."""

import base64
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from made_runs import make_run
from segfaith.results.records.runs import load_run
from segfaith.results.report.gallery import Sample, gallery
from segfaith.results.report.pictures import LARGE, colour_bar, pictures
from segfaith.results.statistics.analysis import analyse

METHODS = ("gpa", "ega", "dea", "dea@alpha=0.5", "mask")


def samples_of(directory: Path) -> tuple[Sample, ...]:
    return gallery(analyse([load_run(directory)]).parts).samples


def decoded(uri: str) -> np.ndarray[Any, Any]:
    with Image.open(BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,")))) as picture:
        return np.asarray(picture.convert("RGB"), dtype=int)


def test_pictures_stay_within_their_budget(tmp_path: Path) -> None:
    few: Any = {"methods": METHODS, "maps": 3, "skipped": 0, "failed": 0}
    samples = samples_of(make_run(tmp_path / "run", samples=("a", "b", "c"), size=256, **few))
    full = pictures(samples, 10_000_000)
    assert full.bytes == sum(len(uri) for one in full.uris for uri in one.values())
    assert set(full.uris[0]) == {"", *METHODS}
    assert max(decoded(full.uris[0][""]).shape) == 192
    assert full.words == "", "nothing was given up"
    sizes = [full.bytes]
    for budget in (full.bytes - 1, full.bytes // 3, full.bytes // 6, full.bytes // 12):
        tight = pictures(samples, budget)
        sizes.append(tight.bytes)
        assert 0 < tight.bytes <= budget
        assert "so that the page stays small" in tight.words
    assert sizes == sorted(sizes, reverse=True)
    assert "are left out" in tight.words
    assert all("" in one for one in tight.uris), "the image goes last"
    assert pictures(samples, 100).bytes == 0
    assert "left out" in pictures(samples, 100).words
    assert max(decoded(pictures(samples, 10_000_000, LARGE).uris[0]["ega"]).shape) == 256, "no larger than they are"


def test_a_broken_map_leaves_its_place_empty(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", samples=("a", "b"), maps=2, skipped=0, failed=0)
    (directory / "maps" / "a" / "ega.npy").write_bytes(b"no array")
    (directory / "maps" / "b" / "target.png").write_bytes(b"no picture")
    samples = samples_of(directory)
    uris = dict(zip([one.sample_id for one in samples], pictures(samples, 10**7).uris, strict=True))
    assert "ega" not in uris["a"]
    assert "gpa" in uris["a"]
    assert uris["b"] == {}


def test_the_predicted_outline_stands_beside_the_targets(tmp_path: Path) -> None:
    directory = make_run(tmp_path / "run", samples=("a", "b"), maps=1, skipped=0, failed=0, size=96)
    folder = directory / "maps" / "a"
    Image.new("RGB", (96, 96), (90, 90, 90)).save(folder / "image.png")

    def yellow() -> int:
        (sample, _) = sorted(samples_of(directory), key=lambda one: one.sample_id)
        red, green, blue = decoded(pictures([sample], 10**7, LARGE).uris[0][""]).transpose(2, 0, 1)
        return int(((red > 130) & (green > 110) & (np.minimum(red, green) - blue > 40)).sum())

    assert yellow() == 0
    mask = np.zeros((96, 96, 3), dtype=np.uint8)
    mask[60:90, 5:40] = 255
    Image.fromarray(mask).save(folder / "prediction.png")
    assert yellow() > 20


def test_the_colour_bar_goes_from_dark_to_bright() -> None:
    brightness = decoded(colour_bar()).mean((0, 2))
    assert brightness[0] < 80 < 150 < brightness[-1]
    assert np.mean(np.diff(brightness) >= -3) > 0.95
