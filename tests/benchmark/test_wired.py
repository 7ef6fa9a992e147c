"""Runs over wired photographs: settings, targets, records, and what is refused."""

from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from folder_runs import ALL, by_method, content, run_records
from segfaith.benchmark.check_data import read_all
from segfaith.benchmark.fast_modes import verify_precision
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.randomisation import cascade
from segfaith.benchmark.settings import make_settings, override, read_settings
from segfaith.benchmark.targeting import load_sample, planted_of
from segfaith.errors import SettingsError
from segfaith.results.records.identity import data_label, run_key
from segfaith.results.records.runs import load_run
from segfaith.results.report.write import write
from segfaith.results.statistics.analysis import analyse
from segfaith.results.statistics.evidence import usable

BLEND = {"blend": 0.3}


@pytest.fixture(scope="module")
def runs(project: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of each wiring with stability, and its directory."""
    root, found = tmp_path_factory.mktemp("wired"), {}
    for name, wired in {"straight": "straight", "crossed": "crossed", "blend": BLEND}.items():
        found[name] = root / name
        run_records(
            project,
            found[name],
            data={"wired": wired, "n": 4},
            evaluation={"stability": True},
            output={"maps": True},
        )
    return found


def test_records_hold_what_is_known(runs: dict[str, Path]) -> None:
    records = {name: load_run(directory).records for name, directory in runs.items()}
    for name, table in records.items():
        assert (table["status"] == "ok").all(), table["reason"].unique()
        assert list(table["method"]) == [*ALL, *(["truth"] if name != "blend" else [])] * 4
        assert (table["path"] == "incremental").all(), name
        assert table["stability"].notna().any()
    crossed, straight, blend = records["crossed"], records["straight"], records["blend"]
    assert (crossed["kind"] == "wired crossed").all()
    assert (straight["kind"] == "wired straight").all()
    assert blend["kind"].isna().all()
    assert blend["evidence_ap"].isna().all()
    assert (crossed[["tdd", "tdd_gain", "insertion_gain"]] == 0).all(axis=None)
    assert (crossed["odd_beyond"].abs() < 1e-6).all(), "two images of different batches"
    for method in ("ega", "ria", "dea"):
        assert (by_method(straight, method)["own_half"].dropna() == 1).all(), method
        assert (by_method(crossed, method)["own_half"].dropna() == 0).all(), method
        assert (by_method(crossed, method)["evidence_mass"].dropna() == 1).all(), method
        between = by_method(blend, method)["own_half"].dropna()
        assert between.between(0, 1, inclusive="neither").any(), method
    assert (by_method(crossed, "mask")["evidence_mass"] == 0).all()
    np.testing.assert_allclose(straight["own_half"], straight["evidence_mass"], atol=1e-12)
    np.testing.assert_allclose(crossed["own_half"], 1 - crossed["evidence_mass"], atol=1e-12)


def test_what_the_target_s_photograph_costs_alone_it_costs_straight(
    runs: dict[str, Path], project: Path, tmp_path: Path
) -> None:
    """s and the drop of the control `mask`'s pixels: a wired run against a plain run of the same photographs."""
    plain = by_method(run_records(project, tmp_path / "plain", methods={"names": ["mask"]}), "mask")
    straight = by_method(load_run(runs["straight"]).records, "mask")
    crossed = by_method(load_run(runs["crossed"]).records, "mask")
    for pair, row in straight.iterrows():
        first, _ = str(pair).split("+")
        assert row["s"] == pytest.approx(plain.loc[first, "s"], abs=1e-5)
        assert row["s_baseline"] == pytest.approx(plain.loc[first, "s_baseline"], abs=1e-5)
    for pair, row in crossed.iterrows():
        _, second = str(pair).split("+")
        assert row["s"] == pytest.approx(plain.loc[second, "s"], abs=1e-5)
        assert row["class_index"] == plain.loc[second, "class_index"]


def test_pictures_of_a_sample_show_both_photographs(runs: dict[str, Path]) -> None:
    folder = next((runs["crossed"] / "maps").iterdir())
    target, evidence = (np.asarray(Image.open(folder / f"{name}.png"))[..., 0] > 0 for name in ("target", "evidence"))
    assert target.shape == (32, 64)
    assert target[:, :32].any()
    assert not target[:, 32:].any()
    assert evidence[:, 32:].all()
    assert not evidence[:, :32].any()
    assert np.load(folder / "ria.npy").shape == (32, 64)


@pytest.mark.parametrize("source", ["prediction", "hit", "false_alarm"])
def test_targets_lie_in_the_left_half_and_any_of_them_has_its_evidence(project: Path, source: str) -> None:
    prepared = prepare(
        make_settings(
            content(project, data={"wired": "crossed"}, target={"source": source, "per_image": "all", "part": "each"})
        )
    )
    found = 0
    for sample_id in prepared.plan.ids:
        sample = load_sample(prepared.plan, prepared.model, sample_id)
        for target in prepared.targets(sample):
            found += 1
            assert not bool(target.region[:, 32:].any())
            assert target.beside is None or not bool(target.beside[:, 32:].any())
            planted = planted_of(sample, target)
            assert planted is not None
            assert bool(planted.alternatives[0][:, 32:].all())
            predicted = prepared.model.logits(sample.image[None]).argmax(1)[0]
            assert bool((predicted[target.region] == target.class_index).all())
    assert found > 3


def test_a_run_says_how_photographs_are_wired(runs: dict[str, Path]) -> None:
    labels = {name: data_label(load_run(directory).description) for name, directory in runs.items()}
    assert labels["crossed"].endswith("val, 32 px, wired crossed")
    assert labels["blend"].endswith("val, 32 px, wired blend 0.3")
    assert len({run_key(load_run(directory).description) for directory in runs.values()}) == 3


def test_reports_call_no_crossed_map_worse_than_chance(runs: dict[str, Path], tmp_path: Path) -> None:
    """By TDD nothing can be told; the evidence is there all the same. Fidelity, where it was measured, can tell."""
    run = load_run(runs["crossed"])
    assert [part.lead for part in analyse([run]).parts] == ["fidelity"]
    run = replace(run, records=run.records.assign(fidelity=nan, fidelity_outside=nan))
    write([run], tmp_path, html=False)
    words = (tmp_path / "conclusions.md").read_text(encoding="utf-8")
    assert "Not testable: photographs are crossed" in words
    assert "than random cells" not in words
    rows, left_out = usable([run])
    assert set(rows["kind"]) == {"wired crossed"}
    assert "wired crossed" not in left_out
    (part,) = analyse([run]).parts
    assert all(verdict.findings["chance"].mark == "unknown" for verdict in part.verdicts)


def test_the_key_is_read_from_files_and_the_command_line(tmp_path: Path, project: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(f'[data]\nname = "folder"\nroot = "{project}/data"\nwired = "straight"\n[model]\nname = "scenes"\n')
    assert read_settings(file).data.wiring.own == 1  # type: ignore[union-attr]
    assert read_settings(file, ["data.wired=crossed"]).data.wiring.own == 0  # type: ignore[union-attr]
    assert read_settings(file, ["data.wired={ blend = 0.25 }"]).data.wiring.own == 0.25  # type: ignore[union-attr]
    settings: dict[str, Any] = {}
    override(settings, ["data.wired={blend=0.3}"])
    assert settings == {"data": {"wired": BLEND}}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": {"wired": "cross"}}, 'expected "straight", "crossed"'),
        ({"data": {"wired": {"blend": 1.0}}}, "between 0 and 1"),
        ({"data": {"wired": {"blend": True}}}, "between 0 and 1"),
        ({"data": {"wired": {"mix": 0.5}}}, "between 0 and 1"),
        ({"data": {"wired": "straight", "size": "native"}}, "set size to a number"),
        ({"data": {"wired": "straight"}, "model": {"tile": 16, "overlap": 4}}, "leave model.tile"),
        ({"data": {"wired": "straight"}, "target": {"mask": "drawn.png", "class": 1}}, "target.mask is drawn"),
    ],
)
def test_what_does_not_combine_is_refused(project: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make_settings(content(project, **changes))


def test_a_plan_counts_a_blend_twice(project: Path) -> None:
    passes = {}
    for name, wired in (("crossed", "crossed"), ("blend", BLEND)):
        plan = prepare(make_settings(content(project, data={"wired": wired}, methods={"names": ["ria", "mask"]}))).plan
        passes[name] = plan.passes
        assert plan.planted is (name == "crossed")
    assert passes["blend"] > 1.5 * passes["crossed"]


def test_the_model_of_a_run_is_tested_on_one_photograph(project: Path) -> None:
    prepared = prepare(make_settings(content(project, data={"wired": "crossed"})))
    assert prepared.path == "incremental"
    assert prepared.model.first_input(torch.rand(3, 32, 64)).shape == (3, 32, 32)


def test_the_check_reads_pairs_at_the_run_s_size(project: Path) -> None:
    """Photographs of other sizes become alike first, and the model is tried on one of them."""
    plan = prepare(make_settings(content(project, data={"wired": "crossed"}))).plan
    model = prepare(make_settings(content(project, data={"wired": "crossed"}))).model
    seen = read_all(plan, model, None, lambda sample_id: None)
    assert seen.sizes == {(32, 64): 6}
    assert not seen.bad


def test_model_randomisation_and_the_fast_modes_know_the_halves(project: Path) -> None:
    """Canvases of an odd side too; adaptive regions are compared with the cells of both grids."""
    prepared = prepare(make_settings(content(project, data={"wired": "crossed", "size": 33, "n": 2})))
    with cascade(prepared.model, 0, 33) as stages:
        assert len(list(stages)) > 2
    table = verify_precision(prepared, ["exact", "adaptive"], stability=False)
    assert not table["note"].any()
    assert (table["spearman"].dropna() > 0.5).all()
