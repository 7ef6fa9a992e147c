"""Any input gives a result or a message: never another exception, and never a hang.

`make fuzz` tries SEGFAITH_FUZZ examples of each kind in place of a few; what it found stands in `test_inputs.py`.
"""

import io
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from folder_runs import content, toml
from made_runs import make_run
from segfaith import cli
from segfaith.benchmark.plan import methods_of
from segfaith.benchmark.setting_words import SETTINGS
from segfaith.benchmark.settings import PACKAGED, make_settings, override, read_settings
from segfaith.benchmark.suites import SUITES, read_suite
from segfaith.classes import read_classes
from segfaith.data.images import load_image, read_image
from segfaith.data.masks import read_drawn, read_mask
from segfaith.data.meaning import Meaning
from segfaith.errors import SegfaithError
from segfaith.models.weights import read_state_dict
from segfaith.results.records.runs import load_runs
from segfaith.results.records.seals import read_json, sealed_json
from segfaith.results.report import terminal
from segfaith.results.statistics.analysis import analyse
from segfaith.results.statistics.judgement import packaged, read

EXAMPLES = int(os.environ.get("SEGFAITH_FUZZ", "0"))
SECONDS = 120
"""How long one input may take on a slow machine before it counts as a hang."""


def tries(share: float, few: int) -> Any:
    """How many examples a test tries: a few, or with SEGFAITH_FUZZ that share of it."""
    return settings(
        max_examples=max(1, int(EXAMPLES * share)) if EXAMPLES else few,
        deadline=None,
        derandomize=not EXAMPLES,
        phases=(Phase.generate,) if EXAMPLES else tuple(Phase),
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise AssertionError(f"no end after {seconds} s")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def result_or_message(call: Callable[[], object]) -> None:
    """Lets a call pass that gives anything, or an error with words."""
    with at_most(SECONDS):
        try:
            call()
        except SegfaithError as error:
            said = str(error)
        else:
            said = "a result"
    assert said.strip()


# What goes in

WORDS = st.sampled_from(
    [
        *("", " ", ".", "..", "/", "~", "~nosuchuser/x", "a\0b", "a" * 5000, "[/x]", "\x1b[31m", "=1+1", "ü", "\ud800"),
        *("-1", "nan", "inf", "true", "native", "voc", "random", "mean", "none", "ria@grid=", "ria@grid=2,grid=3"),
        "mea@=,",
    ]
)
NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([0, 1, -1, 2, 255, 256, 2**31, 2**63 - 1, 2**63, 2**64, 10**30]),
    st.floats(),
    st.booleans(),
)
VALUES = st.recursive(
    st.one_of(st.none(), NUMBERS, WORDS, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(WORDS, st.text(max_size=5)), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from([*SETTINGS, "data", "methods", "methods.mea", "methods.rise", "methods.captum:Saliency", "x"])
PACKAGED_NAMES = {one.stem for one in (*PACKAGED.glob("*.toml"), *SUITES.glob("*.toml"))}


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Bytes of a good file with some bytes changed, cut, moved or repeated; seldom bytes without any order."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, min(len(data) - 1, draw(st.sampled_from([64, 512, 10**6]))))))
        kind = draw(st.integers(0, 4))
        if kind == 0 and data:
            data[place] = draw(st.integers(0, 255))
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[place:place] = draw(st.binary(max_size=8))
        elif kind == 3:
            del data[place : place + draw(st.integers(1, 16))]
        elif data:
            data[place : place + 4] = draw(
                st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"])
            )
    return bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# Settings

GOOD: dict[str, Any] = content(".", methods={"names": ["ria", "mea@alpha=0.1"]}, target={"class": "box"})


def understood(values: dict[str, Any]) -> None:
    """Settings as far as they can be checked without data, a model or code of the user's."""
    made = make_settings(values)
    if not any(":" in name for name in made.methods.names):
        methods_of(made)


@given(st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=3))
@tries(0.25, 25)
def test_settings_of_any_values(changes: list[tuple[str, Any]]) -> None:
    values: dict[str, Any] = {name: dict(table) if isinstance(table, dict) else table for name, table in GOOD.items()}
    for key, value in changes:
        *tables, last = key.split(".")
        place: Any = values
        for table in tables:
            place = place.setdefault(table, {})
            if not isinstance(place, dict):
                break
        else:
            place[last] = value
    result_or_message(lambda: understood(values))


@given(KEYS, st.sampled_from("=."), st.one_of(WORDS, NUMBERS.map(str), VALUES.map(repr), st.text(max_size=12)))
@tries(0.2, 20)
def test_overrides_of_any_words(key: str, sign: str, value: str) -> None:
    def use() -> None:
        values = {name: dict(table) if isinstance(table, dict) else table for name, table in GOOD.items()}
        override(values, [f"{key}{sign}{value}"])
        understood(values)

    result_or_message(use)


@given(damaged([toml(GOOD).encode(), *(path.read_bytes() for path in sorted(PACKAGED.glob("*.toml")))]))
@tries(0.15, 15)
def test_settings_files_of_any_bytes(folder: Path, data: bytes) -> None:
    (folder / "settings.toml").write_bytes(data)
    result_or_message(lambda: read_settings(folder / "settings.toml"))


@given(damaged([path.read_bytes() for path in sorted(SUITES.glob("*.toml"))]))
@tries(0.05, 5)
def test_suite_files_of_any_bytes(folder: Path, data: bytes) -> None:
    (folder / "suite.toml").write_bytes(data)
    result_or_message(lambda: read_suite(folder / "suite.toml"))


@given(
    damaged(["background\nbox\ndisc\n".encode("utf-8-sig"), "a\nb\n".encode("utf-16"), "\xe9\nb\n".encode("latin-1")])
)
@tries(0.05, 5)
def test_class_files_of_any_bytes(folder: Path, data: bytes) -> None:
    (folder / "classes.txt").write_bytes(data)
    result_or_message(lambda: read_classes(folder / "classes.txt"))


# The command line


def run_command(arguments: list[str]) -> None:
    """A command as `segfaith` runs it; it ends with a status."""
    before, bound = sys.argv, cli.bound_memory
    sys.argv, cli.bound_memory = ["segfaith", *arguments], lambda: False  # it would bind all that comes after
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            cli.main()
        status = None
    except SystemExit as stop:
        status = stop.code
    finally:
        sys.argv, cli.bound_memory = before, bound
    assert status in (None, 0, 1, 2, 3)


ARGUMENTS = st.lists(
    st.one_of(
        WORDS,
        st.text(max_size=10),
        st.sampled_from(["-o", "-n", "--set", "--seed", "--device", "--dry-run", "--html", "--compare", "--min-s"]),
        st.sampled_from(["--models", "--weights-dir", "--class", "--point", "--mask", "--json", "--size", "--mode"]),
        st.sampled_from(["data.n=1", "seed=true", "name=..", "1", "-1", "0", "1e9", "9" * 30, "layers", "settings"]),
    ).filter(lambda word: word not in PACKAGED_NAMES and "\0" not in word),
    max_size=5,
)


@given(
    st.sampled_from(
        ["list", "status", "report", "run", "suite", "explain", "check", "randomise", "judge-metrics", "x"]
    ),
    st.text(alphabet="abc/.[]~ü\x1b", max_size=12).filter(lambda word: word.strip() not in PACKAGED_NAMES),
    ARGUMENTS,
)
@tries(0.1, 10)
def test_commands_of_any_words(folder: Path, verb: str, first: str, more: list[str]) -> None:
    """The first word names nothing that is there, so that no command has work to do."""
    (folder / "empty").mkdir(exist_ok=True)
    before = Path.cwd()
    os.chdir(folder / "empty")
    try:
        result_or_message(lambda: run_command([verb, f"none{first}", *more]))
    finally:
        os.chdir(before)


# Images and masks


def pictures() -> dict[str, list[bytes]]:
    """Small good files of each kind, by ending."""
    rng = np.random.default_rng(0)
    colours, labels = rng.integers(0, 256, (9, 7, 3), np.uint8), rng.integers(0, 3, (9, 7), np.uint8)
    made: dict[str, list[bytes]] = {".png": [], ".jpg": [], ".tif": [], ".npy": [], ".npz": [], ".gif": [], ".webp": []}

    def stored(ending: str, picture: Image.Image, **options: Any) -> None:
        picture.save(sink := io.BytesIO(), Image.registered_extensions()[ending], **options)
        made[ending].append(sink.getvalue())

    exif = Image.Exif()
    exif[0x0112] = 6
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        source = labels.astype(np.uint16) if mode == "I;16" else colours
        picture = Image.fromarray(source)
        stored(".png", picture if mode == "I;16" else picture.convert(mode), exif=exif)
    for mode in ("L", "RGB", "CMYK"):
        stored(".jpg", Image.fromarray(colours).convert(mode), exif=exif)
    stored(".gif", Image.fromarray(colours).convert("P"), save_all=True, append_images=[Image.new("P", (7, 9))])
    stored(".webp", Image.fromarray(colours))
    for array in (
        colours,
        labels,
        labels.astype(np.float32),
        np.moveaxis(rng.integers(0, 9, (9, 7, 5), np.uint16), 2, 0),
    ):
        for compression in (None, "zlib"):
            tifffile.imwrite(sink := io.BytesIO(), array, compression=compression)
            made[".tif"].append(sink.getvalue())
        np.save(sink := io.BytesIO(), array)
        made[".npy"].append(sink.getvalue())
        np.savez_compressed(sink := io.BytesIO(), array)
        made[".npz"].append(sink.getvalue())
    return made


FILES = [(ending, data) for ending, group in pictures().items() for data in group]


@given(st.sampled_from(sorted(pictures())), st.data())
@tries(0.2, 20)
def test_images_and_masks_of_any_bytes(folder: Path, ending: str, data: st.DataObject) -> None:
    path = folder / f"picture{ending}"
    path.write_bytes(data.draw(damaged([content for kind, content in FILES if kind == ending])))
    result_or_message(lambda: read_image(path))
    result_or_message(lambda: load_image(path, 8))
    result_or_message(lambda: read_drawn(path))
    meaning = Meaning(["background", "box", "disc"])
    result_or_message(lambda: read_mask(path, meaning, data.draw(st.sampled_from([None, True, False]))))


# Weights


def weights() -> list[tuple[str, bytes]]:
    state = {"a": torch.ones(2, 3), "b": torch.zeros(4)}
    torch.save(state, sink := io.BytesIO())
    torch.save({1: torch.ones(2), "b": {2: torch.ones(1)}}, other := io.BytesIO())
    bare = io.BytesIO()
    torch.save(state, bare, _use_new_zipfile_serialization=False)
    return [(".pth", sink.getvalue()), (".pt", other.getvalue()), (".ckpt", bare.getvalue())]


@given(st.sampled_from(weights()), st.data())
@tries(0.1, 10)
def test_weights_of_any_bytes(folder: Path, original: tuple[str, bytes], data: st.DataObject) -> None:
    (folder / f"weights{original[0]}").write_bytes(data.draw(damaged([original[1]])))
    result_or_message(lambda: read_state_dict(folder / f"weights{original[0]}"))


@given(st.data())
@tries(0.05, 5)
def test_safetensors_of_any_bytes(folder: Path, data: st.DataObject) -> None:
    save_file({"a": torch.ones(2, 3)}, folder / "good.safetensors")
    (folder / "weights.safetensors").write_bytes(data.draw(damaged([(folder / "good.safetensors").read_bytes()])))
    result_or_message(lambda: read_state_dict(folder / "weights.safetensors"))


# Run directories


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples, methods = ("a", "b", "c", "d", "e", "f"), ("gpa", "mask", "random_cells")
    return make_run(tmp_path_factory.mktemp("made") / "run", samples=samples, methods=methods, maps=0)


def places(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the values of a JSON table lie, from the outside in."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, one in inner for place in [(*above, key), *places(one, (*above, key))]]


def read_run(directory: Path, *, whole: bool) -> None:
    """Reads a run and, if the whole is asked for, makes what the terminal shows of it."""
    runs = load_runs([directory])
    for part in terminal.brief(analyse(runs)) if whole else ():
        str(part)


WHOLE = st.integers(0, 9).map(lambda number: number == 0)


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS.filter(lambda word: word != "\ud800")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=4,
)


@given(st.data())
@tries(0.05, 6)
def test_run_directories_of_any_description(made: Path, folder: Path, data: st.DataObject) -> None:
    """`run.json` may be a stranger's, with a seal that fits."""
    shutil.copytree(made, folder / "run", dirs_exist_ok=True)
    about = read_json(made / "run.json")
    for _ in range(data.draw(st.integers(1, 2))):
        *outer, last = data.draw(st.sampled_from(places(about)))
        place: Any = about
        for key in outer:
            place = place[key]
        if data.draw(st.booleans()):
            place[last] = data.draw(JSON)
        else:
            del place[last]
    (folder / "run" / "run.json").write_text(sealed_json(about))
    whole = data.draw(WHOLE)
    result_or_message(lambda: read_run(folder / "run", whole=whole))


@given(st.data())
@tries(0.05, 5)
def test_run_directories_of_any_bytes(made: Path, folder: Path, data: st.DataObject) -> None:
    target = folder / "bytes"
    shutil.copytree(made, target, dirs_exist_ok=True)
    names = sorted(path.relative_to(made) for path in made.rglob("*") if path.is_file())
    name = data.draw(st.sampled_from(names))
    (target / name).write_bytes(data.draw(damaged([(made / name).read_bytes()])))
    whole = data.draw(WHOLE)
    result_or_message(lambda: read_run(target, whole=whole))


@given(st.data())
@tries(0.05, 5)
def test_judgements_of_any_bytes(folder: Path, data: st.DataObject) -> None:
    good = packaged().to_csv(index=False).encode()
    (folder / "judgement.csv").write_bytes(data.draw(damaged([good])))
    result_or_message(lambda: read(folder / "judgement.csv"))
