"""How far fast modes move results: each figure of `verify_precision` against its definition, and what cannot run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from folder_runs import add_sample, command, content, make_project, write_settings
from segfaith.attribution.explain import gather, sample_rng
from segfaith.attribution.methods import resolve_method
from segfaith.batching import BatchSize
from segfaith.benchmark import fast_modes as precision
from segfaith.benchmark import measuring
from segfaith.benchmark.fast_modes import verify_precision
from segfaith.benchmark.prepared import Prepared, prepare
from segfaith.benchmark.settings import make_settings
from segfaith.errors import SettingsError
from segfaith.occlusion import grid_partition
from segfaith.perturbation import clean_variant
from segfaith.types import InterventionEvidence


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path, samples=3)


def prepared_of(project: Path, **changes: Any) -> Prepared:
    return prepare(make_settings(content(project, **changes)))


def evidence_of(prepared: Prepared, sample_id: str, **parameters: Any) -> InterventionEvidence:
    sample = prepared.plan.dataset.load(sample_id, 32)
    (target,) = prepared.targets(sample)
    method = resolve_method("ria", {"ria": {"grid": 4, **parameters}})
    variant = clean_variant(sample.image, target.region)
    rng = sample_rng(prepared.plan.settings.seed, sample_id)
    found = gather(prepared.model, variant, target, [method], BatchSize(4), rng).intervention[method.regions]
    assert isinstance(found, InterventionEvidence)
    return found


def test_drops_of_each_mode_against_those_of_the_loop(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest change over cells and samples, and the least rank correlation over samples."""
    monkeypatch.setattr(precision, "LEAST_DROP", 1e-5)
    prepared = prepared_of(project)
    found = verify_precision(prepared, ("exact", "bf16"), stability=False)
    assert list(found.index) == ["plain", "exact", "bf16"]
    assert set(found["note"]) == {""}
    assert found.attrs["samples"] == 3
    prepared.model.incremental = False
    plain = [evidence_of(prepared, one).drop[0].numpy() for one in prepared.plan.ids]
    prepared.model.incremental = True
    small = [evidence_of(prepared, one, precision="bf16").drop[0].numpy() for one in prepared.plan.ids]
    errors = [np.abs(a - b).max() for a, b in zip(plain, small, strict=True)]
    ranks = [spearmanr(a[a > 1e-5], b[a > 1e-5]).statistic for a, b in zip(plain, small, strict=True)]
    assert max(errors) > 1e-6, "or bf16 would be float32"
    assert found.loc["bf16", "drop_error"] == pytest.approx(max(errors), rel=0.05)
    assert found.loc["bf16", "spearman"] == pytest.approx(min(ranks), abs=1e-9)
    assert found.loc["exact", "drop_error"] < 1e-6
    assert found.loc["plain", "drop_error"] == 0
    assert found.loc["plain", "speedup"] == 1
    assert (found["seconds"] > 0).all()


@pytest.mark.parametrize("mode", ["adaptive", "superpixels"])
def test_other_regions_are_compared_on_the_cells_of_the_grid(
    project: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.setattr(precision, "LEAST_DROP", 1e-5)
    prepared = prepared_of(project, methods={"ria": {"grid": 4, "passes": 16}})
    found = verify_precision(prepared, (mode,), stability=False)
    assert found.loc[mode, "note"] == ""
    assert np.isnan(found.loc[mode, "drop_error"])
    ranks = []
    for sample_id in prepared.plan.ids:
        plain = evidence_of(prepared, sample_id).drop[0].numpy()
        other = evidence_of(prepared, sample_id, regions=mode, passes=16)
        painted = other.value[0][other.regions[0]].numpy()
        cells = grid_partition((32, 32), 4).numpy()
        means = np.array([painted[cells == cell].mean() for cell in range(16)])
        ranks.append(spearmanr(plain[plain > 1e-5], means[plain > 1e-5]).statistic)
    assert min(ranks) < 1
    assert found.loc[mode, "spearman"] == pytest.approx(min(ranks), abs=1e-9)


def test_metrics_are_means_and_largest_changes_over_the_samples(project: Path) -> None:
    two = {"ids": ["s0", "s1"]}
    prepared = prepared_of(project, data=two, evaluation={"k": 0.5})
    found = verify_precision(prepared, ("exact", "superpixels"))
    runs = {}
    for regions in ("grid", "superpixels"):
        changed = prepared_of(
            project,
            data=two,
            evaluation={"k": 0.5, "stability": True},
            methods={"names": ["ria", "dea"], "ria": {"grid": 4, "regions": regions}},
        )
        samples = {one: changed.plan.dataset.load(one, 32) for one in changed.plan.ids}
        rows = [
            measuring.run_sample(changed, one, lambda sample=sample: sample, BatchSize(16))  # type: ignore[misc]
            for one, sample in samples.items()
        ]
        runs[regions] = [{row["method"]: row for row in result.records} for result in rows]
    for method in ("ria", "dea"):
        for metric in ("tdd", "tdd_gain", "odd", "stability"):
            key = f"{method}_{metric}"
            grid, other = (np.array([one[method][metric] for one in runs[name]]) for name in ("grid", "superpixels"))
            assert found.loc["plain", key] == pytest.approx(grid.mean(), abs=1e-5)
            assert found.loc["exact", key] == pytest.approx(grid.mean(), abs=1e-5)
            assert found.loc["superpixels", key] == pytest.approx(other.mean(), abs=1e-5)
            assert found.loc["superpixels", f"{key}_change"] == pytest.approx(np.abs(grid - other).max(), abs=2e-5)
            assert found.loc["superpixels", f"{key}_change"] > 1e-4


def test_a_metric_that_one_sample_lacks_is_of_the_others(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = precision._measure

    def measured(prepared: Prepared, mode: Any, subject: Any, *arguments: Any) -> dict[str, Any]:
        found = real(prepared, mode, subject, *arguments)
        return found | {"ria_odd": float("nan")} if subject.id == "s1" else found

    whole = verify_precision(prepared_of(project, data={"ids": ["s0", "s2"]}), ("exact",), stability=False)
    monkeypatch.setattr(precision, "_measure", measured)
    found = verify_precision(prepared_of(project), ("exact",), stability=False)
    assert found.loc["exact", "ria_odd"] == pytest.approx(whole.loc["exact", "ria_odd"], abs=1e-9)
    assert np.isfinite(found.loc["exact", "ria_odd_change"])
    assert np.isnan(found.loc["exact", "ria_stability"])


def test_a_sample_that_cannot_be_explained_is_named_and_left_out(project: Path) -> None:
    red = np.zeros((40, 56, 3), dtype=np.uint8)
    red[..., 0] = 255
    labels = np.zeros((40, 56), dtype=np.uint8)
    add_sample(project / "data", "s3", red, labels + 1)
    add_sample(project / "data", "s4", red, labels)
    steps: list[str] = []
    found = verify_precision(prepared_of(project), ("exact",), stability=False, on_step=steps.append)
    assert found.attrs["samples"] == 3
    assert set(found["note"]) == {""}
    (nan,) = (words for words in steps if words.startswith("s3: left out"))
    assert "NaN or infinite" in nan
    assert any(words.startswith("s4: left out") for words in steps)
    for name in ("s0", "s1", "s2"):
        (project / "data" / "images" / f"{name}.png").unlink()
        (project / "data" / "masks" / f"{name}.png").unlink()
    with pytest.raises(SettingsError, match="no sample of these settings could be measured"):
        verify_precision(prepared_of(project), ("exact",), stability=False)


def test_a_mode_that_cannot_run_says_why_and_the_model_is_left_as_it_was(project: Path) -> None:
    prepared = prepared_of(project, execution={"device": "cpu", "incremental": False})
    found = verify_precision(prepared, ("tf32", "exact"), stability=False)
    assert "tf32' is a mode of NVIDIA GPUs" in found.loc["tf32", "note"]
    assert np.isnan(found.loc["tf32", "seconds"])
    assert found.loc["exact", "note"] == ""
    assert (prepared.model.incremental, prepared.model.compile) == (False, False)


def test_an_unknown_mode_is_refused(project: Path) -> None:
    with pytest.raises(SettingsError, match="unknown mode 'fast'; known: exact, compile, tf32, bf16, adaptive"):
        verify_precision(prepared_of(project), ("fast",))


def test_the_command_prints_every_mode_and_what_it_is(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = write_settings(project)
    monkeypatch.setenv("COLUMNS", "200")
    assert command(monkeypatch, "verify-precision", settings, "-n", "2", "--no-stability") == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    heading = next(line.split() for line in lines if "mean (largest change" in line)
    assert heading[-4:] == ["plain", "exact", "bf16", "adaptive"]
    (changes,) = (line for line in lines if "largest change of a drop" in line)
    assert "other regions" in changes
    for words in ("lowest Spearman", "RIA TDD", "DEA TDD GAIN", "DEA ODD", "times faster"):
        assert any(words in line for line in lines), words
    assert "adaptive: cells refined where they matter (methods.ria.regions = 'adaptive')" in captured.out
    assert "STABILITY" not in captured.out
    assert "2 sample(s); each mode is compared with the plain one-by-one loop" in captured.out
    assert "s1: bf16" in captured.err
