"""Maps whose worth is known: doses of planted evidence, styles, and the command that judges metrics by them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from segfaith.cli import app
from segfaith.planted.judging import DOSES, STYLES, dosed, smooth_noise

SIZE = (24, 30)


def test_a_dose_mixes_noise_and_evidence() -> None:
    noise = smooth_noise(SIZE, np.random.default_rng(0))
    evidence = torch.zeros(SIZE, dtype=torch.bool)
    evidence[5:9, 3:12] = True
    for dose in DOSES:
        raw = np.zeros(SIZE)
        for y, x in np.ndindex(SIZE):
            marked = bool(evidence[y, x]) == (dose >= 0)
            raw[y, x] = (1 - abs(dose)) * float(noise[y, x]) + abs(dose) * marked
        expected = (raw - raw.min()) / (raw.max() - raw.min())
        np.testing.assert_allclose(dosed(noise, evidence, dose).numpy(), expected, atol=1e-6)
    assert torch.equal(dosed(noise, evidence, 1.0), evidence.float())
    assert torch.equal(dosed(noise, evidence, -1.0), (~evidence).float())
    assert torch.allclose(dosed(noise, evidence, 0.0), noise)
    assert list(DOSES) == sorted(DOSES)
    assert sum(dose >= 0 for dose in DOSES) == 8


def test_noise_is_smooth_seeded_and_fills_its_range() -> None:
    one, again = (smooth_noise((112, 112), np.random.default_rng(3)) for _ in range(2))
    assert torch.equal(one, again)
    assert (float(one.min()), float(one.max())) == (0, 1)
    assert np.corrcoef(one[:, 1:].ravel(), one[:, :-1].ravel())[0, 1] > 0.95


def test_monotone_styles_keep_the_order() -> None:
    heatmap = torch.rand(SIZE)
    for name in ("square", "root"):
        assert torch.equal(STYLES[name](heatmap).flatten().argsort(), heatmap.flatten().argsort())
    large = torch.rand(112, 120)
    blurred = STYLES["blur"](large)
    assert blurred.shape == large.shape
    assert float(blurred.std()) < 0.9 * float(large.std())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The command on two scenes at 96 px: one whose evidence lies inside the target, one outside."""
    folder = tmp_path_factory.mktemp("judged")
    ids = json.dumps(["val-0002", "val-0004"])
    sets = [f"data.ids={ids}", "data.size=96", "evaluation.fidelity=48"]
    done = CliRunner().invoke(
        app, ["judge-metrics", "quickstart", "-o", str(folder), *(f"--set={one}" for one in sets)]
    )
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_the_command_measures_every_dose_method_and_style(written: tuple[Path, str]) -> None:
    values = pd.read_csv(written[0] / "values.csv")
    assert len(values) == 2 * (len(DOSES) + 2 * len(STYLES) + len(["gpa", "ega", "ria", "dea", "mask"]) + 2)
    assert set(values["role"]) == {"dose", "style", "method"}
    assert set(values.loc[values["role"] == "style", "of"]) == {"ega", "ria"}
    assert {"gamed", "random_cells"} <= set(values.loc[values["role"] == "method", "method"])
    doses = values[values["role"] == "dose"]
    assert (doses.loc[doses["dose"] == 1, "evidence_ap"] == 1).all()
    assert (doses["status"] == "ok").all()


def test_fidelity_rises_with_the_truth_and_what_is_blind_is_named(written: tuple[Path, str]) -> None:
    table = pd.read_csv(written[0] / "judgement.csv").set_index(["property", "metric", "kind"])
    for kind in ("marker", "context"):
        assert table.loc[("truth", "fidelity", kind), "value"] > 0.6
    assert table.loc[("truth", "tdd", "context"), "verdict"] == "blind"
    assert table.loc[("truth", "odd_abs", "marker"), "verdict"] == "blind"
    assert "gamed equals RIA on every sample" in written[1]
    assert "may lead a conclusion: none" in written[1], "two scenes give no verdict"
