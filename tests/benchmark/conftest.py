"""A small project and a whole run over it, which no test changes."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from folder_runs import MODEL, add_sample, make_project, run_records, sample_arrays
from segfaith.results.records.runs import load_run

DEADLY = MODEL.replace(
    "        features = self.backbone(x)\n",
    """        import json, pathlib, signal
        death = pathlib.Path(__file__).with_name("death.json")
        if death.exists():
            plan = json.loads(death.read_text())
            deadly = any(abs(float(x[0].mean()) - level) < 1e-6 for level in plan["levels"])
            if deadly and os.getpid() not in plan["spared"] and plan["left"]:
                death.write_text(json.dumps({**plan, "left": plan["left"] - 1}))
                os.kill(os.getpid(), plan["signal"])
        features = self.backbone(x)
""",
)
"""The tiny model, which kills its own process at the image whose mean is in `death.json`, as often as that says."""


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, model and weights that no test changes."""
    return make_project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="session")
def full_run(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run with stability, at the default batch and shard size."""
    directory = tmp_path_factory.mktemp("runs") / "full"
    run_records(project, directory, evaluation={"stability": True})
    return directory


@pytest.fixture(scope="session")
def full_records(full_run: Path) -> pd.DataFrame:
    """Its records."""
    return load_run(full_run).records


@pytest.fixture(scope="session")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good samples and one of each kind of bad one."""
    root = make_project(tmp_path_factory.mktemp("damaged"), samples=2)
    data = root / "data"
    image, labels = sample_arrays(5)
    (data / "images" / "broken.png").write_bytes(b"\x89PNG no picture")
    Image.fromarray(labels).save(data / "masks" / "broken.png")
    add_sample(data, "sizes", image, labels[:30])
    add_sample(data, "label", image, np.where(labels == 1, 7, labels).astype(np.uint8))
    add_sample(data, "empty", image, np.where(labels == 255, 255, 0).astype(np.uint8))
    add_sample(data, "maskless", image, None)
    red = np.zeros_like(image)
    red[..., 0] = 255
    add_sample(data, "red", red, labels)
    (data / "images" / "text.png").write_text("no picture at all")
    Image.fromarray(labels).save(data / "masks" / "text.png")
    add_sample(data, "colour", image, None)
    Image.fromarray(image).save(data / "masks" / "colour.png")
    return root


@pytest.fixture(scope="session")
def kept(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run at the photographs' own size that keeps its maps."""
    directory = tmp_path_factory.mktemp("kept") / "run"
    run_records(project, directory, data={"n": 2, "size": "native"}, output={"maps": True})
    return directory


@pytest.fixture
def deadly(tmp_path: Path) -> Path:
    """A project whose model can kill its process."""
    root = make_project(tmp_path / "project", samples=5)
    (root / "tiny.py").write_text(DEADLY)
    return root
