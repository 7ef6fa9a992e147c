"""The benchmarks' peers compute what segfaith computes, and the tables say what was timed."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[1] / "benchmarks"))

import jobs
import peers
import speed
from dress import DRESSES, dress_of, dressed, fastest, in_dress
from jobs import FEW, JOBS, Run, Skipped, Worker, intervene
from recorded import recorded
from rows import CAPTUM, GROUPS, Row, Timed, figures, gaps, rows_of
from tables import markdown, means, performance_rows, voc_val
from timing import Race, in_race
from workload import CELLS, SIZE, Workload, make_case

from segfaith.batching import BatchSize
from segfaith.incremental import windows
from segfaith.scores import sent
from toys import SmallCNN, plain


@pytest.fixture(scope="module")
def case() -> Workload:
    """Noise instead of the photograph, of which hardly two pixels are alike."""
    with pytest.MonkeyPatch.context() as patch:
        noise = torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        patch.setattr("workload.read_image", lambda size: noise)
        return make_case(plain(SmallCNN(), layer="backbone"), 0.2)


# What is timed side by side


@pytest.mark.parametrize("name", ["FeatureAblation", "Occlusion"])
def test_captum_measures_rias_drops(case: Workload, name: str) -> None:
    ours = intervene(case, 1, CELLS, method="ria").values["drop"]
    theirs = JOBS[name](case, 16, CELLS)
    np.testing.assert_allclose(theirs.values["drop"], ours, rtol=0, atol=1e-6)
    assert theirs.left_out == 0
    assert np.abs(ours).max() > 1e-3


@pytest.mark.parametrize("name", CAPTUM)
@pytest.mark.parametrize(("dress", "tolerance"), [("channels last", 1e-6), ("autocast", 2e-2)])
def test_in_another_dress_captum_measures_nearly_the_same(
    case: Workload, name: str, dress: str, tolerance: float
) -> None:
    exact = JOBS[name](case, 16, CELLS).values["drop"]
    found = JOBS[in_dress(name, dress)](case, 16, CELLS).values["drop"]
    assert not np.array_equal(found, exact), "the dress changed nothing"
    np.testing.assert_allclose(found, exact, rtol=0, atol=tolerance)


def test_a_dress_leaves_the_model_as_it_was(case: Workload) -> None:
    module = case.model.module
    before = {name: (one.clone(), one.stride()) for name, one in module.state_dict().items()}
    for dress in ("channels last", "autocast"):
        forward = dressed(case.model, DRESSES[dress])
        assert dressed(case.model, DRESSES[dress]) is forward, "it is made once"
        case.model.logits_of(forward, case.image[None])
    for name, one in module.state_dict().items():
        assert torch.equal(one, before[name][0]), name
        assert one.stride() == before[name][1], name
    assert case.model.logits(case.image[None]).dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


def test_under_autocast_convolutions_run_in_bfloat16_and_channels_last(case: Workload) -> None:
    seen = []

    def look(module: torch.nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.append((output.dtype, given[0].is_contiguous(memory_format=torch.channels_last)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dress.deepcopy", lambda module: copied)
        copied = deepcopy(case.model.module)
        copied.backbone[0].register_forward_hook(look)
        model = plain(SmallCNN(), layer="backbone")
        for name in ("channels last", "autocast"):
            model.logits_of(dressed(model, DRESSES[name]), case.image[None])
    assert seen == [(torch.float32, True), (torch.bfloat16, True)]


def test_the_best_batch_is_the_one_whose_images_take_least(case: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image takes 4 s alone, 2 s in fours, 1 s in eights and 3 s in sixteens; memory is too small for 32."""
    now, taken, tried = [0.0], {1: 4.0, 4: 2.0, 8: 1.0, 16: 3.0}, []

    def score(images: torch.Tensor) -> None:
        tried.append(len(images))
        if len(images) == 32:
            raise torch.OutOfMemoryError
        now[0] += taken[len(images)] * len(images)

    monkeypatch.setattr(jobs, "clock", lambda device: now[0])
    monkeypatch.setattr(peers, "masked_mean", lambda *given: score)
    worker = Worker.__new__(Worker)
    worker.model, worker.cases, worker.batches = case.model, {"medium": case}, {}
    monkeypatch.setitem(jobs.BATCHES, "cpu", (1, 4, 8, 16, 4))
    assert worker.best_batch("autocast", "medium") == 8
    assert tried == [1, 4, 8, 16], "none is tried after one that takes much longer"
    assert worker.best_batch("autocast", "medium") == 8
    assert len(tried) == 4, "it is found once"
    monkeypatch.setitem(jobs.BATCHES, "cpu", (4, 32))
    assert worker.best_batch("channels last", "medium") == 4
    assert worker.batches == {"autocast": 8, "channels last": 4}


def test_a_part_of_the_cells_has_the_drops_of_all_and_its_seconds_are_scaled(
    case: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter([10.0, 13.0])
    monkeypatch.setattr(peers, "clock", lambda device: next(ticks))
    found = JOBS["FeatureAblation"](case, 16, FEW)
    ours = intervene(case, 1, CELLS, method="ria").values["drop"]
    step = CELLS // FEW
    np.testing.assert_allclose(found.values["drop"][::step], ours[::step], rtol=0, atol=1e-6)
    assert np.isnan(found.values["drop"]).sum() == CELLS - FEW
    passes = FEW + 2  # the image itself, and all other cells at once
    assert 3.0 + found.left_out == pytest.approx(3.0 * (CELLS + 1) / passes)


def test_grad_cam_gives_gpa_and_ega(case: Workload) -> None:
    for ours, theirs in (("gpa", "GradCAM"), ("ega", "HiResCAM")):
        maps = [JOBS[name](case, 1, CELLS).values["map"] for name in (ours, theirs)]
        np.testing.assert_allclose(*maps, rtol=0, atol=1e-4)
        assert (maps[0].min(), maps[0].max()) == (0, 1)


def test_the_composed_protocol_measures_what_a_sample_does(case: Workload) -> None:
    """The cells far from the target, which change nothing, are ordered by rounding alone: it moves ODD a little."""
    tolerances = dict(zip(peers.METRICS, (5e-4, 5e-3, 5e-4, 5e-3), strict=True))
    ours = jobs.sample(case, 1, CELLS).values
    for name in ("each by itself", "passes reused"):
        theirs = JOBS[name](case, 16, CELLS).values
        assert set(theirs) == set(ours) == {"gpa", "ega", "ria", "dea", "random_cells"}
        for method, values in theirs.items():
            for metric, one, other in zip(tolerances, ours[method], values, strict=True):
                assert one == pytest.approx(other, rel=0, abs=tolerances[metric]), f"{name}, {method}, {metric}"


def test_recorded_windows_send_nothing_and_repeat_the_drops(case: Workload, monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up graph in place of CUDA's, which keeps the scores of the batch that was recorded."""
    calls: list[str] = []

    class Graph:
        def replay(self) -> None:
            calls.append("replay")

    @contextmanager
    def recording(graph: Graph) -> Iterator[None]:
        calls.append("record")
        sending = windows.sent
        yield
        assert windows.sent is sending
        with pytest.raises(StopIteration):
            sending(torch.zeros(1, dtype=torch.int64), torch.device("cpu"))

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    expected = intervene(case, 0, CELLS, method="ria", own=BatchSize(98)).values["drop"]
    with recorded(torch.device("cuda")):
        for _ in range(2):
            drops = intervene(case, 0, CELLS, method="ria", own=BatchSize(98)).values["drop"]
            np.testing.assert_allclose(drops, expected, rtol=0, atol=1e-6)
    assert calls == ["record", "replay"] * 2 + ["replay"] * 2
    assert windows.sent is sent


# What is said of it


def run(seconds: float, **values: list[float]) -> Run:
    return Run(seconds, {name: np.array(value) for name, value in values.items()})


def timings() -> dict[tuple[str, str], Timed]:
    """Ours takes 2 s; A takes 5 s alone and 8 s tuned, B takes 6 s and 4 s."""
    drop = [0.5, 0.25, 0.125, 0.0]
    ours = Run(9.0, {}, peak_mb=700.0, idle_mb=500.0, flops=4 * 10**9)
    seconds = {("A", "user"): 5.0, ("A", "tuned"): 8.0, ("B", "user"): 6.0, ("B", "tuned"): 4.0}
    timed = {
        key: Timed(Run(9.0, {}, peak_mb=100 * one), [run(one, drop=drop), run(99, drop=drop), run(0, drop=drop)])
        for key, one in seconds.items()
    }
    return timed | {("ours", "tuned"): Timed(ours, [run(one, drop=[0.5, 0.25, 0.127, 0.001]) for one in (1, 3, 2)])}


ROW = Row("ria", "RIA", "ours", ("A", "B"), ("A", "B"), images=10)


def test_a_row_compares_medians_with_the_fastest_peer() -> None:
    found = figures(ROW, timings(), dense=10**9, peak=4e9)
    assert (found["ours_s"], found["ratio_user"], found["ratio_tuned"]) == (2, 2.5, 2.0)
    assert (found["peer"], found["peer_tuned"], found["peer_peak_mb"]) == ("A", "B", 500)
    assert found["difference"] == pytest.approx(0.002)
    assert found["peak_share"] == pytest.approx(4e9 / 2 / 4e9)
    assert found["dense_share"] == pytest.approx(10 * 1e9 / 2 / 4e9)
    assert (found["cells_above_1e-3"], found["spearman"]) == (3, pytest.approx(1))


def test_what_is_undefined_on_one_side_only_shows() -> None:
    one_sided = gaps({"gpa": np.array([0.5, np.nan])}, {"gpa": np.array([0.5, 0.25])})
    assert np.isnan(one_sided["gpa"][1])
    both = gaps({"gpa": np.array([0.5, np.nan])}, {"gpa": np.array([0.25, np.nan])})
    assert both["gpa"] == [0.25, 0]
    unmeasured = gaps({"drop": np.array([0.5, 0.25])}, {"drop": np.array([0.5, np.nan])})
    assert unmeasured["drop"] == [0], "cells that a scaled peer left out"


# Which peers count


def test_rows_stand_beside_peers_of_their_precision() -> None:
    rows = {row.key: row for row in rows_of("drops", list(DRESSES), 4, 57)}
    exact = {*CAPTUM, *(in_dress(one, name) for one in CAPTUM for name in ("channels last", "compiled"))}
    for row in rows.values():
        assert set(row.peers) == exact
    assert {dress_of(peer).name for peer in rows["bf16"].fast} == {"autocast", "autocast and compiled"}
    assert {dress_of(peer).name for peer in rows["tf32"].fast} == {"tf32"}
    assert rows["ria"].fast == rows["adaptive"].fast == ()
    assert (rows["ria"].images, rows["tf32"].dtype) == (17, "tf32")
    assert rows["adaptive"].ours == "ria@regions=adaptive,passes=57"
    (_, reused) = rows_of("composed", ["as it is", "channels last", "autocast"], 14, None)
    assert reused.peers == ("passes reused", "passes reused, channels last")
    known = {
        peer for group in GROUPS for row in rows_of(group, list(DRESSES), 14, None) for peer in row.peers + row.fast
    }
    assert known <= set(JOBS)


def test_slow_kinds_of_captum_have_no_rounds_but_the_best_feature_ablation_has() -> None:
    seconds = {
        "Occlusion": 1.0,
        "Occlusion, channels last": 1.1,
        "FeatureAblation": 3.0,
        "FeatureAblation, channels last": 2.0,
        "FeatureAblation, autocast": 9.0,
        "Occlusion, autocast": 20.0,
        "GradCAM": 50.0,
    }
    kept = in_race({(job, "user"): taken for job, taken in seconds.items()} | {("FeatureAblation", "tuned"): 99.0})
    assert kept == {
        ("Occlusion", "user"),
        ("Occlusion, channels last", "user"),
        ("FeatureAblation, channels last", "user"),
        ("FeatureAblation, autocast", "user"),
        ("GradCAM", "user"),
        ("FeatureAblation", "tuned"),
    }


class Answers:
    """A process that notes what it is asked for; compiling fails for Occlusion."""

    def __init__(self, name: str, asked: list[tuple[str, str, bool]]) -> None:
        self.name, self.asked = name, asked

    def call(self, method: str, job: str, mask: str, *, few: bool = False, **_: bool) -> Run | Skipped:
        assert (method, mask) == ("run", "medium")
        self.asked.append((job, self.name, few))
        return Skipped("no compiler") if job == "Occlusion, compiled" else run(1.0, drop=[0.5])


def test_jobs_are_timed_in_turn_and_compiled_peers_by_themselves() -> None:
    asked: list[tuple[str, str, bool]] = []
    peers = ("FeatureAblation", "Occlusion, compiled", "FeatureAblation, compiled")
    row = Row("ria", "RIA", "ria", peers, peers)
    processes = {name: Answers(name, asked) for name in ("user", "tuned")}
    race = Race(processes, [row], "medium", rounds=2, scaled=False, whole=False)
    race.run(compiled=False)
    turn = [("FeatureAblation", "user", False), ("FeatureAblation", "tuned", False), ("ria", "tuned", False)]
    first = [("ria", "tuned", False), ("FeatureAblation", "user", True), ("FeatureAblation", "tuned", True)]
    assert asked == [*first, *turn, *turn]
    assert list(race.reasons()) == []
    asked.clear()
    race.run(compiled=True)
    assert {job for job, _, _ in asked} == {"Occlusion, compiled", "FeatureAblation, compiled"}
    assert [job for job, _, _ in asked].count("Occlusion, compiled") == 1, "it is not tried again"
    assert [job for job, name, _ in asked if name == "user"].count("FeatureAblation, compiled") == 4
    assert list(race.reasons()) == [("Occlusion, compiled", "no compiler")]
    assert list(race.reasons()) == [], "each reason is told once"
    found = figures(row, race.timed, dense=1, peak=1.0)
    assert set(found["peers_tuned_s"]) == {"FeatureAblation", "FeatureAblation, compiled"}
    assert set(found["peers_tuned_before_rounds_s"]) == set(found["peers_tuned_s"])


def test_on_a_gpu_a_dress_sets_its_precision_and_leaves_the_process_as_it_was() -> None:
    def flags() -> tuple[bool, ...]:
        cudnn = torch.backends.cudnn
        return torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic

    def fail(tf32: bool) -> None:
        with fastest(torch.device("cuda"), tf32=tf32):
            assert flags() == (tf32, tf32, True, False)
            raise KeyError

    before = flags()
    for tf32 in (False, True):
        with pytest.raises(KeyError):
            fail(tf32)
        assert flags() == before


def fast_figures() -> dict[str, object]:
    """As `timings`, and captum in the row's own precision takes 3 s in both processes; a compiled one had no rounds."""
    drop = [0.27, 0.5, 0.0, 0.25]
    fast = Timed(Run(9.0, {}), [run(3, drop=drop)])
    out = Timed(Run(99.0, {}), [])
    row = Row("bf16", "RIA, bf16", "ours", ("A", "B", "C"), ("A", "B", "C"), 10, "bfloat16", ("F", "G"))
    more = {("F", "user"): fast, ("F", "tuned"): fast, ("G", "tuned"): out, ("C", "user"): out, ("C", "tuned"): out}
    return figures(row, timings() | more, dense=10**9, peak=4e9)


def test_a_row_in_another_precision_has_a_second_ratio_and_its_peers_accuracy() -> None:
    found = fast_figures()
    assert (found["ratio_user"], found["ratio_tuned"]) == (2.5, 2.0), "to the fastest in float32"
    assert (found["peer_user"], found["peer_tuned"]) == ("A", "B")
    assert (found["ratio_all_user"], found["ratio_all_tuned"], found["peer_all_tuned"]) == (1.5, 1.5, "F")
    told = found["fast"]["F"]
    assert told["difference"] == pytest.approx(0.25)
    assert told["spearman"] == pytest.approx(0.5), "of .5, .25, .125 with .27, .5, 0"
    assert (told["user_s"], told["tuned_s"], told["cells_above_1e-3"]) == (3, 3, 3)


# What the tables say


def test_the_rows_for_the_documentation_name_the_peers() -> None:
    one = {"model": "lraspp_mobilenet_v3_large", "mask_share": 0.2, "scaled": True} | fast_figures()
    adaptive = {"model": "trained", "mask_share": 0.05, "scaled": False, "row": "RIA, adaptive regions", "ours_s": 0.5}
    adaptive |= {"peer_tuned": "Occlusion, compiled", "peer_tuned_s": 2.0, "ratio_tuned": 4.0, "ours_peak_mb": 1234.5}
    lines = performance_rows([one, adaptive])
    cells = [[cell.strip() for cell in text.strip("|").split("|")] for text in lines]
    place = "LRASPP-MobileNetV3, 20 %"
    assert cells == [
        [place, "RIA, bf16", "A / B", "~5 / ~4", "2", "~2.50 / ~2.00", "2.0e-03", "1.0000 (3)", "50 %", "700 / 500"],
        ["", "RIA, bf16, beside all peers", "F", "~3 / ~3", "2", "~1.50 / ~1.50", "", "", "50 %", ""],
        ["", "captum in that precision", "F", "~3 / ~3", "", "", "2.5e-01", "0.5000 (3)", "", ""],
        ["trained, 5 %", "RIA, adaptive regions", "Occlusion, compiled", "2", "0.5", "4.00", "", "", "", "1234"],
    ]


def test_a_whole_sample_is_extrapolated_to_voc_with_what_that_assumes() -> None:
    other = {"model": "trained", "ours": "ria", "ours_s": 99.0}
    (told,) = voc_val([other, {"model": "fcn_resnet50", "ours": "quickstart", "ours_s": 20.0}])
    assert "FCN-ResNet50" in told
    assert "1,449 images" in told
    assert "8.05 h" in told
    assert "one target for each image" in told


@pytest.mark.parametrize("target", ["bench-bf16"])
def test_the_makefile_asks_for_what_the_benchmark_knows(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    makefile = (Path(__file__).resolve().parents[1] / "Makefile").read_text(encoding="utf-8")
    command = re.search(rf"^{target}:.*\n\t\S+ benchmarks/speed\.py (.*) \$\(BENCH\)$", makefile, re.M)
    assert command, target
    monkeypatch.setattr(sys, "argv", ["speed.py", *command[1].split(), "--device", "cpu"])
    options = speed.read_options()
    assert options.models == ["lraspp_mobilenet_v3_large", "trained", "deeplabv3_resnet50"]
    assert (options.rows, options.masks, options.repeats) == (["ria", "bf16", "adaptive"], ["medium"], 3)
    assert options.dresses == ["as it is", "channels last", "autocast"]


def test_tables_mark_what_was_scaled() -> None:
    results = [
        {"model": "m", "mask": mask, "row": "RIA", "scaled": mask == "small"}
        | {"ratio_user": ratio, "ratio_tuned": 3.0, "peer_user_s": 7.25, "peer_user": "A", "ours_s": 1, "ours": "ria"}
        | {"mask_share": 0.5}
        for mask, ratio in (("large", 8.0), ("small", 2.0))
    ]
    (mean,) = means(results)
    assert mean["scaled"], "one of its masks was"
    assert (mean["ratio_user"], mean["ratio_tuned"], mean["masks"]) == (pytest.approx(4), pytest.approx(3), 2)
    text = markdown({"machine": {"device": "cpu"}, "results": results, "means": [mean], "skipped": ["x: no weights"]})
    lines = {line.split(" | ")[1]: line for line in text.splitlines() if line.startswith("| m | ")}
    assert "~7.25" in lines["small"]
    assert "~2.00" in lines["small"]
    assert "~" not in lines["large"]
    assert "Skipped: x: no weights" in text


def test_convolutions_of_the_graph_count_as_those_of_the_model() -> None:
    from gauges import flops_of

    from segfaith.incremental.convolution import convolution_of, convolve

    layer, data = torch.nn.Conv2d(3, 4, 3, padding=1), torch.zeros(2, 3, 9, 11)
    made = convolution_of(layer)
    assert made is not None
    padding = made.kernel.padding
    with torch.no_grad():
        expected = flops_of(lambda: layer(data))
        convolve(made, data, padding, padding, np.array([9, 11]))  # the first call tries oneDNN
        assert flops_of(lambda: convolve(made, data, padding, padding, np.array([9, 11]))) == expected
    assert expected == 2 * 2 * 9 * 11 * 4 * 3 * 9
