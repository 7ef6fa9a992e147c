"""`make gpu`: its phases, what it installs, and its benchmark with the CPU in place of the GPU, at tiny sizes."""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import gpu
import switches
from gpu import ROOT, Phase, run_logged, run_phases
from tables import HEAD

MODEL = "lraspp_mobilenet_v3_large"


# Phases


def phases(total: float, given: dict[str, float], *running: Phase) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    saved: list[int] = []
    run_phases(running, given, total, told, lambda: saved.append(len(told)))
    assert saved == list(range(1, len(running) + 1)), "after each phase"
    return told


def test_a_phase_without_time_left_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    now, limits = [0.0], []
    monkeypatch.setattr(gpu, "monotonic", lambda: now[0])

    def taking(seconds: float, words: str = "") -> Any:
        def run(limit: float) -> str:
            limits.append(limit)
            now[0] += seconds
            return words

        return run

    told = phases(
        130,
        {"tests": 60, MODEL: 70, "deeplabv3_resnet50": 70, "fcn_resnet50": 10, "switches fcn_resnet50": 0},
        Phase("tests", taking(50)),
        Phase(MODEL, taking(70, "stopped after 80 s")),
        Phase("deeplabv3_resnet50", taking(1)),
        Phase("fcn_resnet50", taking(4, "ended with 1")),
        Phase("switches fcn_resnet50", taking(1)),
    )
    assert limits == [60, 80, 10], "a phase gets its budget and what the one before left, as far as the total allows"
    assert [(one["phase"], one["outcome"]) for one in told] == [
        ("tests", "done"),
        (MODEL, "stopped"),
        ("deeplabv3_resnet50", "left out"),
        ("fcn_resnet50", "failed"),
        ("switches fcn_resnet50", "left out"),
    ]
    words = gpu.phase_words(told[2])
    assert words == "deeplabv3_resnet50: left out: 10 s were left"
    content = {"machine": {}, "phases": told, "tests": gpu.tests_told(ROOT / "none"), "results": [], "skipped": []}
    text = gpu.markdown(content | {"voc_val": [], "switches": []})
    assert f"- {words}" in text
    assert f"- {MODEL}: stopped (70 s): stopped after 80 s" in text


def test_without_an_environment_nothing_else_runs() -> None:
    def never(limit: float) -> str:
        pytest.fail("it ran")

    told = phases(99, {}, Phase("environment", lambda limit: "packages: ended with 1"), Phase("tests", never))
    assert told[1] == {"phase": "tests", "budget": 90, "outcome": "left out", "words": "there is no environment"}


def test_the_environment_may_take_the_time_of_other_phases(monkeypatch: pytest.MonkeyPatch) -> None:
    now, limits = [0.0], []
    monkeypatch.setattr(gpu, "monotonic", lambda: now[0])

    def make(limit: float) -> str:
        limits.append(limit)
        now[0] += 120
        return ""

    def run(limit: float) -> str:
        limits.append(limit)
        return ""

    running = [Phase("environment", make), Phase("tests", run), Phase(MODEL, run)]
    told = phases(470, {}, *running)
    assert limits == [150, 20, 80], "tests: 50 + 90 - 120 s"
    limits.clear()
    phases(470, {"environment": 40.0}, running[0])
    assert limits == [40], "what is asked for"
    assert [one["outcome"] for one in told] == ["done"] * 3


def test_what_an_environment_fails_of_is_told() -> None:
    def broken(limit: float) -> str:
        raise OSError(28, "No space left on device")

    told = phases(99, {}, Phase("environment", broken), Phase("tests", lambda limit: ""))
    assert [one["outcome"] for one in told] == ["failed", "left out"]
    assert told[0]["words"] == "OSError: [Errno 28] No space left on device"


def test_all_phases_fit_into_eight_minutes() -> None:
    names = ["environment", "tests", *gpu.MODELS, "switches deeplabv3_resnet50"]
    assert sum(gpu.budget(name, {}) for name in names) <= 470 < 480


def test_a_command_that_takes_too_long_is_stopped_with_its_children(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = "import subprocess; child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); child.wait()"
    assert run_logged([sys.executable, "-c", code], 5, log) == "stopped after 5 s, see log"
    child = Path("/proc", log.read_text().strip(), "stat")
    for _ in range(100):
        if not child.is_file() or child.read_text().split()[2] == "Z":
            break
        time.sleep(0.1)
    else:
        pytest.fail("the child still runs")
    assert run_logged([sys.executable, "-c", "raise SystemExit(3)"], 60, log) == "ended with 3, see log"
    words = run_logged([sys.executable, "-c", "raise ValueError('x')"], 60, log)
    assert words == "ended with 1, see log: ValueError: x"
    assert run_logged([sys.executable, "-c", ""], 60, log) == ""


# The environment


def test_pip_is_asked_for_everything_but_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has torch and numpy alone."""
    here = {"torch": "2.11.0+cu130", "torchvision": "0.26.0", "numpy": "2.5.0"}

    def found(name: str) -> str:
        if name not in here:
            raise gpu.PackageNotFoundError(name)
        return here[name]

    monkeypatch.setattr(gpu, "version", found)
    asked, constraints = gpu.wanted()
    names = {one.partition(">=")[0] for one in asked}
    assert {"torch", "numpy", "pandas", "pyarrow", "captum", "grad-cam", "setuptools", "pytest", "beartype"} <= names
    pinned = dict(one.split("==") for one in constraints)
    assert (pinned["torch"], pinned["torchvision"]) == ("2.11.0+cu130", "0.26.0"), "they are not replaced"
    assert "numpy" not in pinned, "what is there stays"
    pins = dict(one.split("==") for one in (ROOT / "requirements-dev.txt").read_text().split())
    assert pinned["captum"] == pins["captum"]
    del here["torchvision"]
    asked, constraints = gpu.wanted()
    assert any(one.startswith("torchvision>=") for one in asked)
    assert not any(one.startswith("torchvision==") for one in constraints), "that of the machine's torch is found"


def test_without_torch_it_says_what_to_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    words = gpu.make_environment(tmp_path / "venv", None, tmp_path / "log", 60)
    assert "has no torch" in words
    assert "PYTHON=" in words
    assert not (tmp_path / "venv").exists()


def test_the_environment_sees_this_ones_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where this interpreter is one of a virtual environment, as in the tests. pip itself is not run."""
    commands = []
    monkeypatch.setattr(gpu, "run_logged", lambda command, limit, log: commands.append([*map(str, command)]) or "")
    assert gpu.make_environment(tmp_path / "venv", tmp_path / "wheels", tmp_path / "log", 60) == ""
    packages, own = commands
    assert "--no-index" in packages
    assert str(tmp_path / "wheels") in packages
    assert not {"--upgrade", "--force-reinstall"} & {*packages, *own}
    assert ("--no-deps" in own, own[-1]) == (True, str(ROOT))
    monkeypatch.undo()
    code = "import importlib.metadata, sys; print(sys.prefix, importlib.metadata.version('torch'))"
    log = tmp_path / "seen"
    assert run_logged([tmp_path / "venv" / "bin" / "python", "-c", code], 60, log) == "", log.read_text()
    assert log.read_text().split() == [str(tmp_path / "venv"), version("torch")]


# Tests and results


def test_the_tests_log_is_read_also_where_they_were_stopped(tmp_path: Path) -> None:
    log = tmp_path / "tests.log"
    log.write_text(
        "tests/test_gpu.py::test_drops[a b] PASSED    [ 10%]\n"
        "tests/test_gpu.py::test_other FAILED    [ 20%]\n"
        "tests/test_gpu.py::test_pool SKIPPED (one GPU)  [ 30%]\n"
        "tests/test_gpu.py::test_last "
    )
    assert gpu.tests_told(log) == {"passed": 1, "skipped": 1, "failed": ["tests/test_gpu.py::test_other"]}


def test_the_benchmark_runs_with_the_cpu_in_place_of_the_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small model with random weights; its switches have no time."""
    options = ["--here", "--no-tests", "--device", "cpu", "--size", "32", "--grid", "4", "--repeats", "1"]
    options += ["--models", MODEL, "--rows", "ria", "bf16", "quickstart", "--dresses", "as it is", "autocast"]
    options += ["--switches", MODEL, "--total", "500", "--budget", f"{MODEL}=500", f"switches {MODEL}=0"]
    monkeypatch.setattr(sys, "argv", ["gpu.py", *options, "--output", str(tmp_path)])
    gpu.main()
    content = json.loads((tmp_path / "results.json").read_text())
    assert [(one["phase"], one["outcome"]) for one in content["phases"]] == [
        (MODEL, "done"),
        (f"switches {MODEL}", "left out"),
    ]
    exact, bf16, sample = content["results"]
    assert [one["ours"] for one in content["results"]] == ["ria", "ria@precision=bf16", "quickstart"]
    for one in (exact, bf16):
        assert one["regions"] == 16
        assert one["ratio_tuned"] == one["peer_tuned_s"] / one["ours_s"]
        assert "peer_user" not in one, "there is one process"
        assert 0 < one["peak_share"] < 1
        assert one["ours_peak_mb"] > 0
    assert exact["difference"] < 1e-5
    [(peer, told)] = bf16["fast"].items()
    assert peer in ("Occlusion, autocast", "FeatureAblation, autocast"), "the faster of them"
    assert told["difference"] > exact["difference"]
    assert content["machine"]["peak GFLOP/s bfloat16"] > 0
    assert content["skipped"] == []
    (voc,) = content["voc_val"]
    assert f"took {sample['ours_s']:.3g} s" in voc
    text = (tmp_path / "results.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "RIA" in line]
    assert [line.count("|") for line in rows] == [len(HEAD) + 1] * 3
    assert f"- switches {MODEL}: left out: 0 s were left" in text
    assert voc in text


def test_every_way_gives_the_drops_of_whole_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the CPU; the last way computes whole maps in every layer, at the better of the batches."""
    given = ["--model", MODEL, "--device", "cpu", "--size", "32", "--grid", "4", "--json", str(tmp_path / "ways.json")]
    monkeypatch.setattr(sys, "argv", ["switches.py", *given, "--batches", "5", "8", "--whole-from", "0", "--modes"])
    switches.main()
    ways = json.loads((tmp_path / "ways.json").read_text())["switches"]
    *ways, graphs = ways
    assert (graphs["way"], graphs["reason"]) == ("windows as CUDA graphs", "CUDA graphs need an NVIDIA GPU")
    assert [one["way"] for one in ways] == ["windows", "whole images"] * 2 + ["windows below 0%"]
    assert [one["batch"] for one in ways[:4]] == [5, 5, 8, 8]
    assert ways[4]["batch"] == min(ways[0], ways[2], key=lambda one: one["seconds"])["batch"]
    assert max(one["difference"] for one in ways) < 1e-6
    assert min(one["images_per_s"] for one in ways) > 0
