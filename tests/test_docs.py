"""The README's and the documentation's own examples run as they stand."""

import ast
import importlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

import segfaith
from segfaith.benchmark.evaluation_settings import EvaluationSettings
from segfaith.benchmark.execution_settings import ExecutionSettings
from segfaith.benchmark.settings import read_settings
from segfaith.benchmark.suites import read_suite
from segfaith.cli import app
from segfaith.evaluation.interventions import INTERVENTIONS
from segfaith.evaluation.metrics import METRICS
from segfaith.models.segmentation import SegmentationModel
from segfaith.planted.card import card_text
from segfaith.planted.training import Recipe
from segfaith.results.records.runs import load_run
from segfaith.results.records.schema import RECORD_COLUMNS
from segfaith.results.report.glossary import glossary

ROOT = Path(__file__).resolve().parents[1]


def _blocks(file: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / file).read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.realdata
def test_readme_goes_from_a_photograph_to_an_overlay_and_a_tdd(
    shared: Path,
    trained_model: SegmentationModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The ten lines, with the shared trained model in place of the download."""
    code = _blocks("README.md", "python")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    photograph = shared / "voc/VOCdevkit/VOC2012/JPEGImages/2007_005608.jpg"
    (tmp_path / "photo.jpg").write_bytes(photograph.read_bytes())
    monkeypatch.setattr(segfaith, "load_model", lambda name: trained_model, raising=False)
    names: dict[str, object] = {}
    exec(code, names)
    assert Image.open(tmp_path / "dea.png").size == (224, 224)
    printed = capsys.readouterr().out
    assert all(method in printed for method in ("gpa", "ega", "ria", "dea", "random_cells"))
    scores = names["scores"]
    s, tdd = scores.loc["dea", "s"], scores.loc["dea", "tdd"]  # type: ignore[attr-defined]
    assert s > 0.5
    assert 0.1 < tdd <= 1


def test_method_examples_of_the_docs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to bring a method of one's own."""
    import torch

    from toys import SmallCNN, plain

    *_, function, pure, _ = _blocks("docs/extending.md", "python")
    (tmp_path / "my_method.py").write_text(function, encoding="utf-8")
    region = torch.zeros(28, 28, dtype=torch.bool)
    region[5:15, 8:20] = True
    names: dict[str, object] = {
        "model": plain(SmallCNN(), layer="backbone.4"),
        "image": torch.rand(3, 28, 28, generator=torch.Generator().manual_seed(0)),
        "target": segfaith.Target(1, region),
    }
    exec(pure, names)
    assert list(names["scores"].index) == ["ega", "ria", "agreement", "random_cells", "gamed"]  # type: ignore[attr-defined]
    assert (names["scores"]["status"] == "ok").all()  # type: ignore[index]
    monkeypatch.chdir(tmp_path)
    maps = segfaith.explain(names["model"], names["image"], names["target"], ["my_method.py:explain"])  # type: ignore[arg-type]
    heatmap = maps["my_method.py:explain"]
    assert float(heatmap.min()) == 0
    assert float(heatmap.max()) == 1
    gradient = np.abs(_input_gradient(names)).sum(0)
    expected = (gradient - gradient.min()) / (gradient.max() - gradient.min())
    np.testing.assert_allclose(heatmap.numpy(), expected, atol=1e-5)


def _input_gradient(names: dict[str, object]) -> np.ndarray:
    """Gradient of the masked logit sum with respect to the pixels, in float64 and with the whole graph."""
    import torch

    model, image, target = names["model"], names["image"], names["target"]
    x = image.clone().double()[None].requires_grad_()  # type: ignore[attr-defined]
    module = model.module.double()  # type: ignore[attr-defined]
    module.eval()
    out = torch.nn.functional.interpolate(module(x)["out"], size=(28, 28), mode="bilinear", align_corners=False)
    (gradient,) = torch.autograd.grad(out[0, target.class_index][target.region].sum(), x)  # type: ignore[attr-defined]
    module.float()
    return gradient[0].numpy()


def test_settings_page_shows_the_real_keys_and_defaults(tmp_path: Path) -> None:
    """The annotated settings file is read, and what it shows as defaults are the defaults."""
    text = _blocks("docs/settings.md", "toml")[0]
    for line in ('"maps:their_maps", "my_method.py:explain"', 'class = "dog"', "n = 100"):
        assert line in text
    file = tmp_path / "settings.toml"
    file.write_text(text, encoding="utf-8")
    shown = read_settings(file)
    assert shown.evaluation == EvaluationSettings()
    left_out = dict.fromkeys(("threads", "address", "workers", "cores_per_worker", "batch_size", "memory"))
    assert shown.execution.model_copy(update=left_out) == ExecutionSettings()


@pytest.mark.parametrize("script", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.name)
def test_what_example_scripts_import_from_segfaith_is_there(script: Path) -> None:
    for statement in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(statement, ast.ImportFrom) and (statement.module or "").startswith("segfaith"):
            module = importlib.import_module(str(statement.module))
            assert [entry.name for entry in statement.names if not hasattr(module, entry.name)] == []


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_examples_are_valid_settings(example: Path) -> None:
    assert read_settings(example).model.name


@pytest.mark.parametrize("example", sorted((ROOT / "examples/suites").glob("*.toml")), ids=lambda path: path.name)
def test_example_suites_can_be_planned(example: Path) -> None:
    assert len(read_suite(example).runs) > 1


def test_records_page_names_every_column() -> None:
    """The page of definitions names the metrics; see above."""
    text = (ROOT / "docs/records.md").read_text(encoding="utf-8")
    for column in [name for name in RECORD_COLUMNS if name not in METRICS]:
        short = column.removeprefix("stability")
        assert f"`{column}`" in text or f"`{short}`" in text, column


def test_definitions_page_shows_the_entry_of_every_metric() -> None:
    """Its table is what the glossary of the report says, row by row; the message shows the rows to paste."""
    text = (ROOT / "docs/definitions.md").read_text(encoding="utf-8")
    section = text.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    entries = [entry for entry in glossary() if entry.key in METRICS]
    cells = [[f"`{entry.key}`", entry.label, entry.text, entry.formula, entry.direction] for entry in entries]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells]
    assert [line for line in section.splitlines() if line.startswith("| `")] == rows, "\n".join(rows)


@pytest.fixture
def tables() -> Iterator[None]:
    """METRICS and INTERVENTIONS come back as they were."""
    before = [(table, dict(table)) for table in (METRICS, INTERVENTIONS)]
    yield
    for table, entries in before:
        table.clear()
        table.update(entries)


def test_metric_example_of_the_docs_reaches_records_schema_and_glossary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tables: None
) -> None:
    """Entries alone: a metric of metrics, and one of a new intervention."""
    monkeypatch.chdir(tmp_path)
    columns = len(RECORD_COLUMNS)
    (code,) = [block for block in _blocks("docs/extending.md", "python") if block.startswith("# my_metrics.py")]
    exec(code, {})
    printed = capsys.readouterr().out
    assert "focus" in printed
    assert "order_gain" in printed
    (file,) = (tmp_path / "runs/mine/records").iterdir()
    records, schema = pd.read_parquet(file), pq.read_schema(file)
    assert len(records.columns) == len(RECORD_COLUMNS) == columns + 3
    for name in ("focus", "order_gain"):
        assert schema.field(name).metadata[b"description"].decode() == METRICS[name].meaning
        (entry,) = [entry for entry in glossary() if entry.key == name]
        assert (entry.label, entry.formula) == (METRICS[name].label, METRICS[name].formula)
    assert schema.field("s_lowest_deleted").metadata[b"description"].decode().startswith("s_c with the n(k, M) lowest")
    rows = records[records["method"] != "random_cells"]
    assert len(rows) == 2 * 9
    pd.testing.assert_series_equal(rows["focus"], rows["tdd"] - rows["odd"], check_names=False, rtol=1e-12)
    gained = (rows["s_lowest_deleted"] - rows["s_target_deleted"]) / (rows["s"] + 1e-6)
    pd.testing.assert_series_equal(rows["order_gain"], gained, check_names=False, rtol=1e-12)
    assert (rows["s_lowest_deleted"] != rows["s_target_deleted"]).any()
    run = load_run(tmp_path / "runs/mine").description
    assert run["data"]["samples"] == ["val-0004", "val-0005"]


def test_scenes_page_shows_the_card_of_the_first_model() -> None:
    folder = Path(segfaith.__file__).parent / "models/embedded"
    card = json.loads((folder / "scenes.json").read_text(encoding="utf-8"))
    text = (folder / "scenes.md").read_text(encoding="utf-8")
    assert text == card_text(card)
    assert text in (ROOT / "docs/scenes.md").read_text(encoding="utf-8")
    assert card["recipe"] == asdict(Recipe())


def test_scenes_example_of_the_docs_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (code,) = _blocks("docs/scenes.md", "python")
    exec(code, {})
    assert "context_above context [" in capsys.readouterr().out


def test_commands_of_the_readme_exist() -> None:
    """Every `segfaith VERB` in the README and the docs is a verb."""
    texts = [(ROOT / "README.md").read_text(encoding="utf-8")]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    verbs = set(re.findall(r"^segfaith ([\w-]+)", "\n".join(texts), flags=re.MULTILINE))
    assert {"download", "run", "report"} <= verbs
    for verb in verbs:
        assert CliRunner().invoke(app, [verb, "--help"]).exit_code == 0
