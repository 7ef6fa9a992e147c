"""What run.json says of a run."""

from hashlib import sha256
from pathlib import Path

import pytest
import torch

import segfaith
from folder_runs import (
    ALL,
    prepared_scenes,
    run_records,
)
from segfaith.attribution.libraries.entry import Scale
from segfaith.attribution.methods import resolve_method
from segfaith.benchmark.description import _cost
from segfaith.results.records.runs import load_run


def test_run_json_describes_the_run(project: Path, full_run: Path) -> None:
    loaded = load_run(full_run)
    description, records = loaded.description, loaded.records
    assert description["settings"]["evaluation"]["k"] == 0.2
    assert description["settings"]["methods"]["ria"] == {"grid": 4}
    assert description["settings"]["seed"] == 0
    assert description["data"]["samples"] == sorted(set(records["sample_id"]))
    assert (description["data"]["name"], description["data"]["split"]) == ("folder", "val")
    assert len(description["data"]["digest"]) == 64
    model = description["model"]
    assert (model["name"], model["weights"], model["layer"]) == ("tiny.py:build", "tiny.pth", "backbone.1")
    assert model["file_sha256"] == sha256((project / "tiny.pth").read_bytes()).hexdigest()
    assert len(model["state_sha256"]) == 64
    assert list(description["methods"]) == ALL
    assert description["methods"]["dea"]["parameters"]["alpha"] == 0.65
    assert description["methods"]["dea"]["parameters"]["grid"] == 4
    costs = {name: about["cost"] for name, about in description["methods"].items()}
    assert (costs["gpa"], costs["dea"], costs["mask"]) == ("1 pass", "18 passes", "0 passes")  # 4 x 4 cells
    assert "equation 2" in description["methods"]["dea"]["paper"]
    assert description["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert description["versions"]["segfaith"] == segfaith.__version__
    assert {"python", "numpy", "pandas", "pyarrow", "torchvision"} <= set(description["versions"])
    assert set(description["machine"]) == {"system", "device", "threads"}
    assert description["created"].startswith("20")
    assert len(description["identity_sha256"]) == 64


@pytest.mark.parametrize(
    ("name", "cost"),
    [
        ("rise@masks=500", "501 passes"),  # and one for the clean score
        ("captum:IntegratedGradients@n_steps=16", "16 passes"),
        ("gradcam:GradCAM", "1 pass"),
        ("mea", "198 passes"),
        ("random_cells", "0 passes"),
        ("math:sqrt", "passes of its own"),
    ],
)
def test_the_cost_of_a_map_is_said_in_words(name: str, cost: str) -> None:
    """That of the user's own code is unknown."""
    assert _cost(resolve_method(name, {}), Scale(), "backbone") == cost


def test_the_identity_holds_the_versions_of_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["sobol@grid=3", "captum:FeatureAblation", "gradcam:GradCAM", "rise"]
    monkeypatch.setattr(
        "segfaith.attribution.libraries.entry.version", {"SALib": "1", "captum": "2", "grad-cam": "3"}.get
    )
    identity = prepared_scenes(1, methods={"names": names}).description["identity"]
    assert identity["sources"] == dict(zip(names, ("SALib 1", "captum 2", "grad-cam 3"), strict=False))


def test_random_weights_are_said(project: Path, tmp_path: Path) -> None:
    model = {"name": "lraspp_mobilenet_v3_large", "weights": "random", "layer": None, "classes": "voc"}
    run_records(project, tmp_path, data={"n": 1, "classes": "voc"}, model=model, methods={"names": ["random"]})
    assert load_run(tmp_path).description["model"]["weights"] == "random (seed 0)"
