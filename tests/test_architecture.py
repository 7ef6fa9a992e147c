"""The house rules of the source tree: which way imports point, what stays light, how large modules are."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import segfaith

SOURCE = Path(segfaith.__file__).parent
MODULES = {
    ".".join(("segfaith", *path.relative_to(SOURCE).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}

FLOORS = [
    {
        "types",
        "classes",
        "lookup",
        "errors",
        "constants",
        "randomness",
        "process",
        "paths",
        "halves",
        "memory",
        "storage",
        "stores",
    },
    {"models", "data"},
    {"scores", "batching", "incremental", "occlusion", "perturbation", "target_choice", "targets"},
    {"evidence"},
    {"evaluation", "attribution"},
    {"api", "benchmark", "explanation", "results"},
    {"photograph"},
    {"planted"},
    {"cli", "__main__"},
]
"""From the ground up: a room imports rooms of its own floor or of lower ones."""
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


@cache
def imported(name: str) -> tuple[str, ...]:
    """Every module that a module imports anywhere, also inside functions."""
    return tuple(_imported(name))


def _imported(name: str) -> Iterator[str]:
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *filter(None, [node.module])])
            submodules = [f"{base}.{alias.name}" for alias in node.names if f"{base}.{alias.name}" in MODULES]
            yield from submodules or [base]


def room(module: str) -> str:
    """`segfaith.evidence.gradient` lies in the room `evidence`."""
    return module.split(".")[1] if "." in module else ""


def own_imports() -> Iterator[tuple[str, str]]:
    """(importer, imported) for all imports between rooms of segfaith; the root, which holds the version, is free."""
    for name in MODULES:
        for other in imported(name):
            if other.startswith("segfaith.") and room(name) and room(name) != room(other):
                yield name, other


def test_the_tests_see_the_whole_tree_and_its_imports() -> None:
    assert len(MODULES) > 30
    assert ("segfaith.evidence.gradient", "segfaith.scores") in set(own_imports())
    assert ("segfaith.cli.running", "segfaith.benchmark.runner") in set(own_imports())
    assert "torch" in set(imported("segfaith.scores"))


def test_every_room_has_its_floor() -> None:
    assert {room(name) for name in MODULES} - {""} == set(FLOOR)


def test_imports_point_down() -> None:
    upwards = [f"{a} imports {b}" for a, b in own_imports() if FLOOR[room(a)] < FLOOR[room(b)]]
    assert upwards == []


def cyclic(needs: dict[str, set[str]]) -> dict[str, set[str]]:
    """What is left when names that need nothing are taken away until there are none: cycles of whatever length."""
    while free := [name for name, others in needs.items() if not others]:
        needs = {name: others - set(free) for name, others in needs.items() if name not in free}
    return needs


def test_the_search_for_cycles_finds_them() -> None:
    assert cyclic({"a": {"b"}, "b": set()}) == {}
    assert cyclic({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()}) == {"a": {"b"}, "b": {"c"}, "c": {"a"}}


def test_no_two_rooms_import_each_other() -> None:
    assert cyclic({name: {room(b) for a, b in own_imports() if room(a) == name} for name in FLOOR}) == {}


def test_no_two_modules_import_each_other() -> None:
    assert cyclic({name: {other for other in imported(name) if other in MODULES} for name in MODULES}) == {}


STOREYS = ("records", "statistics", "figures", "report")
"""The rooms of results, from the ground up."""


def storey(module: str) -> int:
    """The place of a module of results among `STOREYS`; -1 elsewhere."""
    parts = module.split(".")
    return STOREYS.index(parts[2]) if parts[:2] == ["segfaith", "results"] and len(parts) > 2 else -1


def test_imports_point_down_within_results() -> None:
    rooms = {name for name in MODULES if storey(name) >= 0}
    assert {name.split(".")[2] for name in rooms} == set(STOREYS)
    upwards = [f"{name} imports {other}" for name in rooms for other in imported(name) if storey(other) > storey(name)]
    assert upwards == []


def test_the_drawing_of_the_house_names_every_room() -> None:
    """`docs/architecture.md`: every folder and module of the root stands in the tree, and nothing that is not there."""
    page = (SOURCE.parents[1] / "docs/architecture.md").read_text(encoding="utf-8")
    tree = page.split("```")[1]
    named = set(re.findall(r"\b(\w+)(?:/|\.py)", tree)) - {"src", "segfaith", "benchmarks", "tests", "sections"}
    assert named == {room(name) for name in MODULES} - {"", "__main__"} | set(STOREYS)
    places = re.findall(r"`((?:\w+/)+\w+\.py)`", page)
    assert len(places) >= 10
    assert [
        place for place in places if not any((root / place).is_file() for root in (SOURCE, SOURCE.parents[1]))
    ] == []
    for place, name in re.findall(r"`((?:\w+/)+\w+\.py)`, `(\w+)`", page):
        assert re.search(rf"^(?:def |class )?{name}\b", (SOURCE / place).read_text(encoding="utf-8"), re.M), (
            place,
            name,
        )


def test_the_tests_mirror_the_source() -> None:
    """A folder of tests for each room with several modules, and no other."""
    tests = SOURCE.parents[1] / "tests"
    folders = {path.name for path in tests.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert folders == {name for name in FLOOR if (SOURCE / name).is_dir()}
    inner = {path.name for path in (tests / "results").iterdir() if any(path.glob("*.py"))}
    assert inner == set(STOREYS)


def test_results_and_what_they_need_import_no_torch() -> None:
    """In a process of its own, so that what they import in turn counts."""
    light = [name for name in MODULES if room(name) == "results"]
    torchless = ("evaluation.metrics", "evaluation.interventions", "errors", "lookup", "constants", "classes")
    light += [f"segfaith.{name}" for name in torchless]
    assert {
        "segfaith.results.statistics.summary",
        "segfaith.results.records.runs",
        "segfaith.results.figures.overlay",
    } <= set(light)
    code = (
        "import importlib, sys\n"
        f"for name in {light!r}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def test_only_the_pool_imports_ray() -> None:
    users = {name for name in MODULES if any(other.split(".")[0] == "ray" for other in imported(name))}
    assert users == {"segfaith.benchmark.pool"}


def test_modules_are_at_most_330_lines_long() -> None:
    lengths = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > 330} == {}


def test_nothing_is_left_to_do() -> None:
    """No TODO or FIXME, and nothing that only raises NotImplementedError."""
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b")
    marked = [name for name, path in MODULES.items() if marks.search(path.read_text(encoding="utf-8"))]
    raising = [
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Raise) and node.exc is not None and "NotImplementedError" in ast.unparse(node.exc)
    ]
    assert marked + raising == []


def public(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """The module itself, its public functions and classes, and the public methods of these."""
    yield "(module)", tree
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node.name, node
            if isinstance(node, ast.ClassDef):
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef) and not inner.name.startswith("_"):
                        yield f"{node.name}.{inner.name}", inner


@pytest.mark.parametrize("name", MODULES)
def test_everything_public_has_a_docstring(name: str) -> None:
    bare = [place for place, node in public(TREES[name]) if not ast.get_docstring(node)]
    assert bare == []


def test_methods_are_pure_functions_of_evidence() -> None:
    """The modules of the built-in methods neither run a model nor read files; `maps` is the one that reads."""
    forbidden = {"segfaith.models", "segfaith.evidence", "segfaith.scores", "segfaith.occlusion"}
    for name in ("cam", "region", "fusion", "controls", "heatmap"):
        others = set(imported(f"segfaith.attribution.{name}"))
        assert not {other for other in others if any(other.startswith(one) for one in forbidden)}, name
        assert not others & {"pathlib", "os", "PIL"}, name
