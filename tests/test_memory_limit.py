"""`memory = "4GB"`: texts, batches that follow from a limit, too little memory, equal records, and the limit itself."""

import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import segfaith
from folder_runs import assert_same_records, command, content, make_project, run_records, write_settings
from segfaith import memory
from segfaith.batching import DEFAULT_BATCH, MOST, BatchSize, Boxes, batches, in_batches, on_target, score_images
from segfaith.benchmark import executors
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.settings import make_settings
from segfaith.errors import SettingsError
from segfaith.incremental.scoring import graph_of
from segfaith.memory import SHARE, Memory, bytes_of, in_words
from segfaith.results.records.runs import load_run, read_description
from toys import SmallCNN, plain

CPU = torch.device("cpu")
STAGE = ("occlusions", (40, 56), None)
on_linux = pytest.mark.skipif(platform.system() != "Linux", reason="only Linux says what a process took")

# Texts


@pytest.mark.parametrize(
    ("text", "size"),
    [("4GB", 4 * 10**9), ("512MB", 512 * 10**6), ("1.5 GiB", 3 * 2**29), (" 2 tib ", 2**41), ("3kb", 3000)],
)
def test_a_size_is_a_number_with_its_unit(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize(
    "text", ["4", "GB", "", "-1GB", "0GB", "4 gigabytes", "1e3MB", "4GB 2MB", "99999999999TB", 4, 4.0, True, ["4GB"]]
)
def test_other_texts_are_refused_with_key_value_and_remedy(text: Any) -> None:
    given = {"model": {"name": "scenes"}, "execution": {"memory": text}}
    with pytest.raises(SettingsError) as refusal:
        make_settings(given)
    assert f"execution.memory = {text!r}: expected a number with its unit, as in" in str(refusal.value)
    assert '"4GB"' in str(refusal.value)


def test_python_refuses_such_texts_too() -> None:
    with pytest.raises(SettingsError, match=r"memory = '4': expected a number with its unit"):
        batches(None, "4", CPU)


def test_sizes_are_told_in_mb_and_gb() -> None:
    assert [in_words(size) for size in (10, 240e6, 1.55e9, 64e9)] == ["1 MB", "240 MB", "1.6 GB", "64.0 GB"]


def test_the_settings_file_takes_a_limit() -> None:
    settings = make_settings({"model": {"name": "scenes"}, "execution": {"memory": "4GB"}})
    assert (settings.execution.memory, settings.execution.batch_size) == ("4GB", None)


# Batches, with a process whose memory is counted by hand


class Counted:
    """A process that holds `held` bytes, and whose passes take `fixed` and `each` an image."""

    def __init__(self, fixed: int, each: int) -> None:
        self.held, self.fixed, self.each = 0, fixed, each
        self.peak = 0
        self.sizes: list[int] = []

    def run(self, part: slice) -> tuple[torch.Tensor]:
        images = part.stop - part.start
        self.sizes.append(images)
        self.peak = max(self.peak, self.held + self.fixed + self.each * images)
        return (torch.empty(images, 0),)

    def use(self) -> int:
        self.peak = self.held
        return self.held


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], Counted]:
    """Makes a process of which `Memory` reads what it takes."""

    def make(fixed: int, each: int) -> Counted:
        counted = Counted(fixed, each)
        monkeypatch.setattr(Memory, "_in_use", lambda self: counted.use())
        monkeypatch.setattr(Memory, "_peak", lambda self: counted.peak)
        monkeypatch.setattr(memory, "own_memory", lambda: counted.held)
        return counted

    return make


def sizes_under(counted: Counted, limit: int, most: int = 10**6) -> list[int]:
    in_batches(20_000, counted.run, BatchSize(most, Memory(limit, CPU)), STAGE)
    assert sum(counted.sizes) == 20_000
    return counted.sizes


@pytest.mark.parametrize("limit", [1000, 5000, 20_000])
@pytest.mark.parametrize("fixed", [0, 50, 300])
def test_a_batch_is_the_largest_that_fits(process: Any, fixed: int, limit: int) -> None:
    counted = process(fixed, each := 10)
    sizes = sizes_under(counted, limit)
    assert sizes[0] == 1, "the first batch is one image"
    assert fixed + each * max(sizes) <= SHARE * limit
    assert max(sizes) >= 0.9 * (SHARE * limit - fixed) / each - 1


def test_twice_the_memory_gives_about_twice_the_batch(process: Any) -> None:
    largest = [max(sizes_under(process(40, 10), limit)) for limit in (1000, 2000, 4000)]
    assert largest[1] / largest[0] == pytest.approx(2, rel=0.1)
    assert largest[2] / largest[1] == pytest.approx(2, rel=0.1)


def test_a_batch_has_no_more_images_than_the_upper_limit_and_grows_stepwise(process: Any) -> None:
    sizes = sizes_under(process(0, 1), 10**9, most=300)
    assert 250 < max(sizes) <= 300
    assert all(later <= 8 * max(sizes[:number]) for number, later in enumerate(sizes) if number)


def test_what_is_held_leaves_less_for_a_batch(process: Any) -> None:
    counted = process(0, 10)
    limit = Memory(1000, CPU)
    counted.held = 500  # features that came after the limit was set
    in_batches(200, counted.run, BatchSize(100, limit), STAGE)
    assert 25 < max(counted.sizes) <= 30  # (0.8 x 1000 - 500) / 10; batches have nearly equal sizes


def test_results_that_are_kept_leave_less_for_a_batch(process: Any) -> None:
    counted = process(0, 10)

    def run(part: slice) -> tuple[torch.Tensor]:
        counted.run(part)
        return (torch.zeros(part.stop - part.start, dtype=torch.int16),)  # 2 bytes each, 100 of them, twice

    in_batches(100, run, BatchSize(100, Memory(1000, CPU)), STAGE)
    assert 25 < max(counted.sizes) <= 40


def test_stages_are_measured_one_by_one(process: Any) -> None:
    counted = process(0, 10)
    limit, first = Memory(1000, CPU), list[int]()
    for stage in (STAGE, ("metrics", (40, 56), None), ("occlusions", (80, 56), None), STAGE):
        counted.sizes.clear()
        in_batches(80, counted.run, BatchSize(100, limit), stage)
        first.append(counted.sizes[0])
    assert first == [1, 1, 1, 80], "the last stage is known by then"
    assert len(limit.batches) == 3


def test_targets_of_one_extent_are_one_stage() -> None:
    def target(top: int, left: int, bottom: int, right: int) -> torch.Tensor:
        region = torch.zeros(40, 56, dtype=torch.bool)
        region[top:bottom, left:right] = True
        return region

    first = on_target("occlusions", target(0, 0, 10, 20))
    assert first == on_target("occlusions", target(5, 6, 15, 26))
    assert first != on_target("occlusions", target(0, 0, 20, 10))
    assert first != on_target("metrics", target(0, 0, 10, 20))


def test_a_single_image_that_takes_too_much_runs_alone_and_is_told(process: Any) -> None:
    counted = process(4 * 10**9, 0)
    limit = Memory(10**9, CPU)
    in_batches(4, counted.run, BatchSize(16, limit), STAGE)
    assert counted.sizes == [1, 1, 1, 1]
    assert limit.short((40, 56)) == (
        "memory limit: one image of 40 x 56 took 4.0 GB, more than execution.memory = 1.0 GB; images ran one at a time"
    )
    assert limit.short((40, 40)) == ""


def test_a_pass_that_fails_is_not_taken_for_a_measurement(process: Any) -> None:
    counted = process(0, 10)
    limit = Memory(1000, CPU)
    with pytest.raises(ValueError, match="no"):
        in_batches(4, lambda part: (_ for _ in ()).throw(ValueError("no")), BatchSize(16, limit), STAGE)
    assert limit.batches == {}
    assert counted.sizes == []


def test_without_a_limit_the_batch_size_is_16_and_with_one_at_most_64(process: Any) -> None:
    process(0, 1)
    assert batches(None, None, CPU) == BatchSize(DEFAULT_BATCH, follows=True)
    assert batches(20, None, CPU) == BatchSize(20)
    assert (batches(None, "1GB", CPU).images, batches(3, "1GB", CPU).images) == (MOST, 3)
    assert (batches(None, "1GB", CPU).tried, batches(1, "1GB", CPU).tried, BatchSize(5).tried) == (2, 1, 5)


def test_under_a_limit_the_largest_windows_come_first(process: Any) -> None:
    process(0, 10)
    start = np.array([[0, 0], [10, 10], [20, 20], [5, 20], [20, 5]])
    stop = start + np.array([[10, 10], [10, 10], [12, 10], [10, 10], [10, 10]])
    order: list[int] = []

    def score(images: torch.Tensor, boxes: Boxes | None) -> torch.Tensor:
        order.extend(images[:, 0, 0, 0].int().tolist())
        return images.double().mean((1, 2, 3))

    def build(numbers: torch.Tensor) -> torch.Tensor:
        return numbers.float()[:, None, None, None].expand(-1, 3, 2, 2)

    scores = score_images(score, build, 5, BatchSize(1, Memory(1000, CPU)), (start, stop))
    assert scores.tolist() == [0, 1, 2, 3, 4]
    assert order[0] == 2, "the largest area"
    assert order[1] == 1, "then the centre"


def test_systems_that_cannot_say_are_refused_with_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "forget_peak", lambda: False)
    with pytest.raises(SettingsError, match=r"needs Linux or an NVIDIA GPU.*set execution\.batch_size"):
        Memory(10**9, CPU)


# Graphs


@on_linux
def test_a_graph_that_would_take_more_than_the_limit_is_not_used() -> None:
    model, image = plain(SmallCNN()), torch.rand(3, 64, 64)
    assert not isinstance(graph_of(model, image), str)
    model.memory = 1000
    assert str(graph_of(model, image)).startswith("its graph would take about ")
    assert str(graph_of(model, image)).endswith("and execution.memory is 1 MB")
    model.memory = 10**9
    assert not isinstance(graph_of(model, image), str)


# Runs

KEPT = {"methods": {"names": ["gpa", "ria@regions=adaptive,passes=30"], "ria": {"grid": 6}}}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project", samples=2)


@on_linux
@pytest.mark.parametrize("limit", ["1GB", "300MB"])
def test_records_are_the_same_under_a_limit(project: Path, tmp_path: Path, limit: str) -> None:
    first = run_records(project, tmp_path / "free", **KEPT)
    second = run_records(project, tmp_path / "limited", **KEPT, execution={"device": "cpu", "memory": limit})
    assert (first["status"] == "ok").all()
    ranks = [name for name in first if name.startswith("fidelity")]  # sets of nearly equal drops change places
    np.testing.assert_allclose(first[ranks], second[ranks], rtol=0, atol=0.02)
    assert_same_records(first.drop(columns=ranks), second.drop(columns=ranks), derived=1e-6)


@on_linux
def test_drops_are_the_same_under_a_limit() -> None:
    model, image = plain(SmallCNN(), layer="backbone.4"), torch.rand(3, 48, 48)
    region = torch.zeros(48, 48, dtype=torch.bool)
    region[10:30, 12:40] = True
    maps = [
        segfaith.explain(model, image, segfaith.Target(1, region), ["ria@grid=8"], memory=limit)["ria@grid=8"]
        for limit in (None, "500MB")
    ]
    np.testing.assert_allclose(*maps, rtol=0, atol=1e-6)
    assert float(maps[0].max()) == 1


@on_linux
def test_a_run_that_is_short_of_memory_is_measured_and_says_so(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One byte is too little for any image."""
    monkeypatch.setattr("segfaith.batching.bytes_of", lambda text: 1)
    settings = write_settings(project, **KEPT, execution={"device": "cpu", "memory": "1kB"})
    status = command(monkeypatch, "run", settings, "-o", tmp_path / "run")
    said = " ".join(capsys.readouterr().out.split())
    assert status == 0
    records = load_run(tmp_path / "run").records
    assert (records["status"] == "ok").all()
    words = "memory limit: one image of 32 x 32 took"
    assert records["reason"].str.contains(words, regex=False).all()
    assert said.count(words) == 1
    (kept,) = read_description(tmp_path / "run")["memory"]
    assert kept.startswith(words)
    assert records["path"].str.startswith("plain: its graph would take").all()


@on_linux
def test_a_dry_run_says_the_batches_and_the_memory(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = write_settings(project, **KEPT)
    command(monkeypatch, "run", settings, "--dry-run", "--memory", "1.5GB")
    said = " ".join(capsys.readouterr().out.split())
    assert "memory at most 1.5 GB beyond the" in said
    for kind in ("gradients", "occlusions", "metrics"):
        assert f"{kind} " in said.partition("in use before:")[2]
    assert " at once (" in said
    assert "memory limit:" not in said


@on_linux
def test_the_check_tells_the_batches_too(project: Path) -> None:
    from segfaith.benchmark.check import check

    given = content(project, **KEPT, execution={"device": "cpu", "memory": "1GB"})
    (line,) = [line for line in check(make_settings(given)) if line.topic == "memory"]
    assert line.words.startswith("at most 1.0 GB beyond the ")
    assert "occlusions" in line.words


@on_linux
def test_a_finished_run_goes_on_under_another_limit(project: Path, tmp_path: Path) -> None:
    first = run_records(project, tmp_path / "run", **KEPT)
    second = run_records(project, tmp_path / "run", **KEPT, execution={"device": "cpu", "memory": "2GB"})
    assert_same_records(first, second)


@on_linux
def test_workers_have_room_for_the_model_and_the_limit(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared = prepare(make_settings(content(project, execution={"device": "cpu", "memory": "1GB"})))
    limit = prepared.batch.memory
    assert limit is not None
    monkeypatch.setattr(executors, "free_memory", lambda: 5 * (limit.base + 10**9))
    assert executors.places(8, limit) == 4  # of 80 %


@on_linux
def test_python_says_that_an_image_takes_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segfaith.batching.bytes_of", lambda text: 1)
    model, image = plain(SmallCNN(), layer="backbone.4"), torch.rand(3, 28, 28)
    region = torch.zeros(28, 28, dtype=torch.bool)
    region[8:20, 8:20] = True
    target = segfaith.Target(1, region)
    scores = segfaith.evaluate(model, image, target, ["ega"], thorough=False, memory="1kB")
    assert scores.attrs["memory"].startswith("memory limit: one image of 28 x 28 took")
    assert scores.loc["ega", "path"].startswith("plain: its graph would take about")
    monkeypatch.undo()
    scores = segfaith.evaluate(model, image, target, ["ega"], thorough=False, memory="8GB")
    assert scores.attrs["memory"] == ""
    assert scores.loc["ega", "path"] == "incremental"


@on_linux
def test_a_photograph_is_explained_under_a_limit(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    own = Memory.__init__
    monkeypatch.setattr(
        Memory, "__init__", lambda self, limit, device: (made.append(limit), own(self, limit, device))[1]
    )
    settings, photo = write_settings(project), project / "data/images/s0.png"
    given = ["explain", photo, "--config", settings, "--methods", "ega", "-o", tmp_path / "told"]
    assert command(monkeypatch, *given, "--set", "execution.memory=2GB") == 0
    assert made
    assert set(made) == {2 * 10**9}


@on_linux
@pytest.mark.parametrize("name", ["captum:IntegratedGradients", "captum:KernelShap", "rise"])
def test_methods_of_libraries_keep_to_the_limit_by_the_same_rule(name: str) -> None:
    """Their first pass has one image too; the map is the same."""
    model, image = plain(SmallCNN(), layer="backbone.4"), torch.rand(3, 32, 32)
    region = torch.zeros(32, 32, dtype=torch.bool)
    region[8:20, 8:20] = True
    options = {"rise": "@masks=20", "captum:KernelShap": "@n_samples=20"}.get(name, "@n_steps=8")
    asked = [name + options]
    maps = [segfaith.explain(model, image, segfaith.Target(1, region), asked, memory=one) for one in (None, "1GB")]
    np.testing.assert_allclose(*(one[asked[0]] for one in maps), rtol=0, atol=1e-5)


# The limit itself

WITHIN = """
import sys
import threading
import time

import torch
from torch import nn

import segfaith
from segfaith.process import keep_memory, own_memory, own_peak, return_memory

torch.set_num_threads(1)
keep_memory()
torch.manual_seed(0)
first = [nn.Conv2d(3, 24, 3, 2, 1), nn.ReLU(), nn.Conv2d(24, 32, 3, 2, 1), nn.ReLU()]
model = segfaith.wrap(nn.Sequential(*first, nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 5, 1)), layer="3")
size, limit = 448, sys.argv[1]
image = torch.rand(3, size, size)
region = torch.zeros(size, size, dtype=torch.bool)
region[100:300, 100:300] = True
target = segfaith.Target(1, region)
segfaith.explain(model, image[:, :64, :64], segfaith.Target(1, region[70:134, 70:134]), ["gpa", "ria@grid=2"])
return_memory()
start, peak, done = own_memory(), 0, False


def watch():
    global peak
    while not done:
        peak = max(peak, own_peak())
        time.sleep(0.002)


watcher = threading.Thread(target=watch)
watcher.start()
maps = segfaith.explain(model, image, target, ["gpa", "ria@grid=6"], **({} if limit == "none" else {"memory": limit}))
maps.scores
done = True
watcher.join()
print((peak - start) / 1e6)
"""


@on_linux
def test_the_resident_memory_stays_within_the_limit() -> None:
    """In a process of its own; without the limit, its batches of 16 take more."""
    taken = {}
    for limit in ("200MB", "none"):
        done = subprocess.run(
            [sys.executable, "-c", WITHIN, limit], capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        taken[limit] = float(done.stdout)
    assert taken["200MB"] < 200
    assert taken["none"] > 200, "the limit was needed"
