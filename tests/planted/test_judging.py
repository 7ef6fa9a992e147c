"""Maps whose worth is known: doses of planted evidence, styles, and the command that judges metrics by them."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from segfaith.cli import app
from segfaith.data.scenes import scene_of
from segfaith.data.scenes.edits import without_evidence
from segfaith.data.scenes.rendering import paint, render
from segfaith.planted.judging import VARIANTS
from segfaith.planted.known_maps import DOSES, FORMS, STYLES, dosed, halftone, smooth_noise, thresholded

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
    """The command on two scenes at 112 px: one whose evidence lies inside the target, one outside."""
    folder = tmp_path_factory.mktemp("judged")
    ids = json.dumps(["val-0002", "val-0004"])
    sets = [f"data.ids={ids}", "data.size=112", "evaluation.fidelity=48"]
    done = CliRunner().invoke(
        app, ["judge-metrics", "quickstart", "--verbose", "-o", str(folder), *(f"--set={one}" for one in sets)]
    )
    assert done.exit_code == 0, done.output
    return folder, done.output


def test_the_command_measures_every_dose_method_and_style(written: tuple[Path, str]) -> None:
    values = pd.read_csv(written[0] / "values.csv")
    assert set(values["measured"]) == {"as asked", "blur", "removal", "seed"}
    again = values[values["measured"] != "as asked"]
    assert len(again) == 2 * 3 * len(["gpa", "ega", "ria", "dea", *VARIANTS])
    values = values[values["measured"] == "as asked"]
    methods = ["gpa", "ega", "ria", "dea", "mask", *VARIANTS, "random_cells", "gamed"]
    assert len(values) == 2 * (len(DOSES) + 2 * len(STYLES) + len(FORMS) + len(methods))
    assert set(values["role"]) == {"dose", "style", "form", "method"}
    assert set(values.loc[values["role"] == "style", "of"]) == {"ega", "ria"}
    assert {"gamed", "random_cells"} <= set(values.loc[values["role"] == "method", "method"])
    doses = values[values["role"] == "dose"]
    assert (doses.loc[doses["dose"] == 1, "evidence_ap"] == 1).all()
    assert (doses["status"] == "ok").all()


def test_the_same_map_has_other_values_under_another_operator_and_seed(written: tuple[Path, str]) -> None:
    values = pd.read_csv(written[0] / "values.csv")
    ria = values[(values["method"] == "ria")].pivot(index="sample_id", columns="measured", values="fidelity")
    assert ria.notna().all(axis=None)
    assert (ria.nunique(axis=1) == 4).all()
    tdd = values[values["method"] == "ria"].pivot(index="sample_id", columns="measured", values="tdd")
    assert tdd.loc["val-0004", "removal"] == 0, "the cue lies outside the target, in which removal changes nothing"


def test_fidelity_rises_with_the_truth_and_what_is_blind_is_named(written: tuple[Path, str]) -> None:
    table = pd.read_csv(written[0] / "judgement.csv").set_index(["property", "metric", "kind"])
    for kind in ("marker", "context"):
        assert table.loc[("truth", "fidelity", kind), "value"] > 0.6
    assert table.loc[("truth", "tdd", "context"), "verdict"] == "blind"
    assert table.loc[("truth", "odd_abs", "marker"), "verdict"] == "blind"
    assert "gamed equals RIA on every sample" in written[1]
    assert "may lead a conclusion: none" in written[1], "two scenes give no verdict"


@pytest.mark.parametrize("number", range(0, 10))
def test_the_scene_without_the_evidence_differs_there_alone(number: int) -> None:
    scene = scene_of(f"val-{number:04d}")
    before, _ = paint(scene, 96)
    _, labels = render(scene, 96)
    for index, body in enumerate(scene.bodies):
        if scene.label(body) in (8, 10):  # counterparts
            continue
        after, _ = paint(without_evidence(scene, index), 96)
        changed = (before != after).any(0)
        assert changed.any()
        if body.family == "plain":
            assert changed[labels == scene.label(body)].float().mean() > 0.5
        else:
            points = changed.nonzero().double().add(0.5).div(96).numpy()
            plates = [plate for alternative in scene.evidence(body) for plate in alternative]
            assert all(any(plate.covers(point[None])[0] for plate in plates) for point in points)


def test_forms_of_a_map() -> None:
    heatmap = torch.rand(40, 50)
    top = thresholded(heatmap)
    assert set(top.unique().tolist()) == {0, 1}
    assert float(top.mean()) == pytest.approx(0.2, abs=0.01)
    assert float(heatmap[top == 1].min()) >= float(heatmap[top == 0].max())
    assert not thresholded(torch.zeros(4, 4)).any()
    hidden = halftone(heatmap)
    board = (torch.arange(40)[:, None] + torch.arange(50)) % 2 == 1
    assert float(hidden[board].min()) > float(hidden[~board].max())
    cells = torch.nn.functional.avg_pool2d
    means, own = (cells(one[None], 10)[0] for one in (hidden, heatmap))
    torch.testing.assert_close(means, 0.45 + 0.1 * own)
