r"""Tests and benchmarks on a machine with a GPU that has this repository and torch, and perhaps nothing else.

    make gpu PYTHON=python3 [WHEELS=FOLDER] [GPU="--models lraspp_mobilenet_v3_large --total 300"]

| phase | what runs |
|---|---|
| environment | an environment on top of the machine's own packages: what is missing is installed, torch never |
| tests | the tests marked `gpu` |
| a model's name | its rows of `speed.py`: RIA exact, TF32, bf16 and adaptive beside captum; a whole sample |
| switches MODEL | `switches.py`: batches, whole images and compiled forms of the exact mode |

Missing packages come from the folder WHEELS, or from the index that pip is set up with. Each phase has a budget of
seconds (`--budget`), to which comes what earlier phases have left, and all together have `--total`, just below eight
minutes. The environment may take longer, at the cost of the next phases. A phase for which too little is left is left
out, and one that takes longer is stopped; both are named in the output. After each phase `results.json` and
`results.md`, with rows for docs/performance.md, are written to `--output`. Each phase has a log there.

Until the environment is there, only Python's own library is used.
"""

import argparse
import json
import os
import re
import signal
import site
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

from tables import HEAD, SWITCHES, performance_rows, switch_line, table, voc_val

ROOT = Path(__file__).resolve().parents[1]
MODELS = ("lraspp_mobilenet_v3_large", "deeplabv3_resnet50", "fcn_resnet50")
BUDGETS = {"environment": 50.0, "tests": 90.0, "switches": 70.0} | dict(zip(MODELS, (60.0, 110.0, 90.0), strict=True))
"""Seconds of each phase, by the first word of its name. They were not measured on a GPU."""
ENVIRONMENT = 150.0
"""Seconds that the environment may take at the cost of later phases, of which none runs without it."""
LEAST = 15.0
"""A phase is left out where fewer seconds are left, or fewer than its budget where that is less."""
TOOLS = ("pytest", "jaxtyping", "beartype")
"""What the tests need beside segfaith's own dependencies and its extras `captum` and `grad-cam`."""
BEGIN = 0.7
"""A model's compiled peers are begun only in the first part of its phase."""


@dataclass(frozen=True)
class Phase:
    """A part of the whole: `run` gets the seconds that it may take, and returns why it did not end well, or ""."""

    name: str
    run: Callable[[float], str]


def budget(name: str, given: dict[str, float]) -> float:
    """The seconds of a phase."""
    return given.get(name, (BUDGETS | given)[name.partition(" ")[0]])


def run_phases(
    phases: Sequence[Phase], given: dict[str, float], total: float, told: list[dict[str, Any]], save: Callable[[], None]
) -> None:
    """Runs phases in their order while there is time; `told` says of each what became of it, and is saved after each.

    Nothing else is run where the environment could not be made.
    """
    began, planned = monotonic(), 0.0
    for phase in phases:
        seconds = budget(phase.name, given)
        planned += seconds
        limit = min(total, planned) - (monotonic() - began) if seconds else 0.0
        if phase.name == "environment" and phase.name not in given:
            limit = min(total, ENVIRONMENT)
        one: dict[str, Any] = {"phase": phase.name, "budget": seconds}
        if any(before["phase"] == "environment" and before["outcome"] != "done" for before in told):
            one |= {"outcome": "left out", "words": "there is no environment"}
        elif limit < min(LEAST, seconds) or limit <= 0:
            one |= {"outcome": "left out", "words": f"{max(limit, 0):.0f} s were left"}
        else:
            start = monotonic()
            try:
                words = phase.run(limit)
            except (OSError, subprocess.SubprocessError) as error:  # a full disk, an interpreter without ensurepip
                words = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            outcome = "stopped" if words.startswith("stopped") else "failed" if words else "done"
            one |= {"outcome": outcome, "words": words, "seconds": round(monotonic() - start, 1)}
        told.append(one)
        print(phase_words(one), flush=True)
        save()


def phase_words(one: dict[str, Any]) -> str:
    """What became of a phase."""
    seconds = f" ({one['seconds']:.0f} s)" if "seconds" in one else ""
    return f"{one['phase']}: {one['outcome']}{seconds}" + (f": {one['words']}" if one["words"] else "")


def run_logged(command: Sequence[str | Path], limit: float, log: Path) -> str:
    """Runs a command with its output in a file; why it did not end well, or ""."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with log.open("w", encoding="utf-8") as out:
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            return f"stopped after {limit:.0f} s, see {log.name}"
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    last = next((line.strip()[:200] for line in reversed(lines) if line.strip()), "")
    return f"ended with {code}, see {log.name}{': ' * bool(last)}{last}" if code else ""


# The environment


def wanted() -> tuple[list[str], list[str]]:
    """What pip is asked for, and its constraints: the machine's torch, and the tested versions of what is missing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    own, extras = project["project"]["dependencies"], project["project"]["optional-dependencies"]
    asked = [*own, *extras["captum"], *extras["grad-cam"], *project["build-system"]["requires"], *TOOLS]
    pins = (ROOT / "requirements-dev.txt").read_text(encoding="utf-8").split()
    constraints = []
    for name, pin in ((pin.partition("==")[0], pin) for pin in pins):
        try:
            here = version(name)
        except PackageNotFoundError:
            constraints += [pin] if name != "torchvision" else []  # pip finds the one that fits the machine's torch
        else:
            constraints += [f"{name}=={here}"] if name in ("torch", "torchvision") else []
    return asked, constraints


def make_environment(folder: Path, wheels: Path | None, log: Path, limit: float) -> str:
    """An environment with this interpreter's packages, what they lack, and segfaith; "" or what failed."""
    began = monotonic()
    if find_spec("torch") is None:
        return f"{sys.executable} has no torch; give the interpreter that has it: make gpu PYTHON=..."
    with_pip = find_spec("pip") is None
    venv.create(folder, system_site_packages=True, clear=True, symlinks=True, with_pip=with_pip)
    python = folder / "bin" / "python"
    inside = sysconfig.get_path("purelib", "venv", {"base": str(folder), "platbase": str(folder)})
    lines = [f"import site; site.addsitedir({path!r})" for path in site.getsitepackages()]  # also where it is a venv's
    Path(inside, "machine.pth").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pip: list[str | Path] = [python, "-m", "pip"] if with_pip else [sys.executable, "-m", "pip", "--python", python]
    source = ["--no-index", "--find-links", wheels.resolve()] if wheels else []
    asked, constraints = wanted()
    listed = log.with_name("constraints.txt")
    listed.write_text("\n".join(constraints) + "\n", encoding="utf-8")
    for words, command in (
        ("packages", [*pip, "install", "--quiet", *source, "--constraint", listed, *asked]),
        ("segfaith", [*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "--editable", ROOT]),
    ):
        failed = run_logged(command, limit - (monotonic() - began), log.with_name(f"environment-{words}.log"))
        if failed:
            return f"{words}: {failed}"
    return ""


# What runs in it


def run_tests(python: Path, log: Path, limit: float) -> str:
    """The files that hold tests marked `gpu`."""
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    options = ["-m", "gpu", "-vv", "-p", "no:cacheprovider"]
    return run_logged([python, "-m", "pytest", *options, *files], limit, log)


def tests_told(log: Path) -> dict[str, Any]:
    """How many tests passed, were skipped and failed so far, and which failed, by pytest's log."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    found = [match for one in lines if (match := re.match(r"(\S+::.*) (PASSED|FAILED|ERROR|SKIPPED)", one))]
    bad = [match[1] for match in found if match[2] in ("FAILED", "ERROR")]
    counts = {word.lower(): sum(match[2] == word for match in found) for word in ("PASSED", "SKIPPED")}
    return counts | {"failed": bad}


def model_command(python: Path, model: str, options: argparse.Namespace, limit: float) -> list[str | Path]:
    """`speed.py` for a model."""
    command: list[str | Path] = [python, ROOT / "benchmarks" / "speed.py", "--models", model, "--masks", "medium"]
    command += ["--rows", *options.rows, "--repeats", str(options.repeats), "--seconds", str(BEGIN * limit)]
    command += ["--dresses", *options.dresses] if options.dresses else []
    return [*command, "--one-process", *_place(options), "--json", options.output / f"{model}.json"]


def switches_command(python: Path, model: str, options: argparse.Namespace, limit: float) -> list[str | Path]:
    """`switches.py` for a model."""
    command: list[str | Path] = [python, ROOT / "benchmarks" / "switches.py", "--model", model]
    command += ["--batches", *map(str, options.batches), "--modes", *options.modes]
    return [*command, *_place(options), "--json", options.output / f"switches-{model}.json"]


def _place(options: argparse.Namespace) -> list[str]:
    return ["--device", options.device, "--size", str(options.size), "--grid", str(options.grid)]


def collect(options: argparse.Namespace, phases: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that the phases have written so far."""

    def read(name: str) -> dict[str, Any]:
        path = options.output / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    models = [read(model) for model in options.models]
    machine = next((one["machine"] for one in models if one), {})
    lists = {key: [item for one in models for item in one.get(key, [])] for key in ("results", "skipped")}
    switches = [read(f"switches-{model}") for model in options.switches]
    return {
        "machine": machine,
        "phases": phases,
        "tests": tests_told(options.output / "tests.log"),
        **lists,
        "switches": [one for one in switches if one],
        "voc_val": voc_val(lists["results"]),
    }


def markdown(content: dict[str, Any]) -> str:
    """What became of the phases, the tests, and the rows for docs/performance.md."""
    tests = content["tests"]
    counts = [f"{tests['passed']} passed", f"{tests['skipped']} skipped", f"{len(tests['failed'])} failed"]
    parts = [
        ", ".join(f"{key} {value}" for key, value in content["machine"].items()),
        "\n".join(f"- {phase_words(one)}" for one in content["phases"]),
        f"Tests: {', '.join(counts)}" + "".join(f"\n- failed: {name}" for name in tests["failed"]),
        table(HEAD, performance_rows(content["results"])),
        *content["voc_val"],
    ]
    ways = [switch_line(one["model"], way) for one in content["switches"] for way in one["switches"]]
    parts += ["Ways to compute exact drops:", table(SWITCHES, ways)] if ways else []
    return "\n\n".join([*parts, *(f"Skipped: {one}" for one in content["skipped"])]) + "\n"


def named_seconds(text: str) -> tuple[str, float]:
    """`tests=60` as a pair."""
    name, _, seconds = text.partition("=")
    return name, float(seconds)


def read_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="tests and benchmarks on a GPU; the phases: this file")
    parser.add_argument("--wheels", type=Path, help="folder of wheels, in place of pip's index")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "gpu", help="folder for results and logs")
    parser.add_argument("--here", action="store_true", help="use this interpreter as it is, without an environment")
    parser.add_argument("--no-tests", action="store_true", help="leave the tests out")
    parser.add_argument("--total", type=float, default=470.0, help="seconds of all phases together")
    parser.add_argument("--budget", nargs="+", type=named_seconds, default=[], help="PHASE=SECONDS ...")
    parser.add_argument("--models", nargs="*", choices=MODELS, default=list(MODELS))
    parser.add_argument("--switches", nargs="*", choices=MODELS, default=["deeplabv3_resnet50"], help="models")
    parser.add_argument("--rows", nargs="+", default=["ria", "tf32", "bf16", "adaptive", "quickstart"])
    parser.add_argument("--dresses", nargs="+", help="captum's, all if not given")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batches", nargs="+", type=int, default=[16, 49, 98, 196], help="of the switches")
    parser.add_argument(
        "--modes", nargs="*", default=["default", "reduce-overhead", "max-autotune"], help="of torch.compile, likewise"
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--grid", type=int, default=14)
    return parser.parse_args()


def phases_of(options: argparse.Namespace) -> list[Phase]:
    """What is asked for, in the order in which it runs."""
    folder = options.output / "venv"
    python = Path(sys.executable) if options.here else folder / "bin" / "python"

    def log(name: str) -> Path:
        return options.output / f"{name.replace(' ', '-')}.log"

    def of_model(name: str, model: str, make: Callable[..., list[str | Path]]) -> Phase:
        return Phase(name, lambda limit: run_logged(make(python, model, options, limit), limit, log(name)))

    made = lambda limit: make_environment(folder, options.wheels, log("environment"), limit)  # noqa: E731
    return [
        *([] if options.here else [Phase("environment", made)]),
        *([] if options.no_tests else [Phase("tests", lambda limit: run_tests(python, log("tests"), limit))]),
        *(of_model(model, model, model_command) for model in options.models),
        *(of_model(f"switches {model}", model, switches_command) for model in options.switches),
    ]


def main() -> None:
    options = read_options()
    options.output = options.output.resolve()
    options.output.mkdir(parents=True, exist_ok=True)
    for old in (*options.output.glob("*.json"), *options.output.glob("*.log")):
        old.unlink()  # results of an earlier run are not these
    told: list[dict[str, Any]] = []

    def save() -> None:
        content = collect(options, told)
        (options.output / "results.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        (options.output / "results.md").write_text(markdown(content), encoding="utf-8")

    run_phases(phases_of(options), dict(options.budget), options.total, told, save)
    print("\n" + (options.output / "results.md").read_text(encoding="utf-8"))
    if any(one["outcome"] in ("failed", "stopped") for one in told):
        raise SystemExit(1)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped from outside"))  # so that a phase's processes end too
    main()
