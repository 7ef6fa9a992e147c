"""The test before a model's first use: outputs that are no logits, answers that differ, images that share a batch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import segfaith
from folder_runs import command, make_project, run_records, write_settings
from segfaith import Target, wrap
from segfaith.errors import SettingsError
from segfaith.incremental.graph import Graph
from segfaith.incremental.scoring import graph_of, scorer_for
from segfaith.models.probe import probe
from segfaith.models.segmentation import SegmentationModel
from segfaith.scores import Scalar
from toys import SmallCNN, plain

SIZE = 32


class After(nn.Module):
    """SmallCNN with something before and after it; its logits have half of the image's resolution."""

    def __init__(
        self,
        after: Callable[[Tensor], Any] = lambda z: z,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        classes: int = 3,
    ) -> None:
        super().__init__()
        self.net, self.after, self.before = SmallCNN(classes), after, before

    def forward(self, x: Tensor) -> Any:
        return self.after(self.net(self.before(x))["out"])


def photograph(seed: int = 0) -> Tensor:
    return torch.rand(3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))


def box() -> Target:
    region = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    region[4:19, 6:27] = True
    return Target(1, region)


def upsampled(p: Tensor) -> Tensor:
    return F.interpolate(p, size=(SIZE, SIZE), mode="bilinear", align_corners=False)


def overshot(p: Tensor) -> Tensor:
    """Beyond [0, 1] beside edges, with the same sum."""
    return F.interpolate(p, size=(SIZE, SIZE), mode="bicubic", align_corners=False)


def one_hot(z: Tensor) -> Tensor:
    return F.one_hot(z.argmax(1), z.shape[1]).movedim(-1, 1).float()


# Outputs


NO_LOGITS: dict[str, tuple[nn.Module, str]] = {
    "softmax": (
        After(lambda z: z.softmax(1)),
        r"its 3 channels sum to 1: .* second softmax .*head = \"probabilities\"",
    ),
    "softmax in bfloat16": (After(lambda z: z.softmax(1).bfloat16()), "its 3 channels sum to 1"),
    "softmax, enlarged": (After(lambda z: upsampled(z.softmax(1))), "its 3 channels sum to 1"),
    "sigmoid": (After(torch.sigmoid, classes=1), r"in its one channel: .* second sigmoid .*head = \"probabilities\""),
    "softmax, enlarged with overshoot": (
        After(lambda z: overshot((20 * z).softmax(1))),
        r"3 channels sum to 1 at every pixel: .*resized or multiplied, not logits.*mode 'bilinear'",
    ),
    "a softmax in bytes": (After(lambda z: 255 * z.softmax(1)), "3 channels sum to 255 at every pixel"),
    "a sigmoid and its rest in per cent": (
        After(lambda z: torch.cat([100 * z.sigmoid(), 100 - 100 * z.sigmoid()], 1), classes=1),
        "2 channels sum to 100 at every pixel",
    ),
    "half of a softmax": (After(lambda z: z.softmax(1) / 2), "3 channels sum to 0.5 at every pixel"),
    "sigmoids of overlapping classes": (After(torch.sigmoid), "3 channels that do not sum to 1, .*multi-label"),
    "one-hot": (
        After(one_hot),
        r"in \[0, 1\] and are whole numbers, .*decisions.*Return the logits behind the decisions",
    ),
    "a softmax over one channel": (After(lambda z: z.softmax(1), classes=1), "1 everywhere, as a softmax over one ch"),
    "class indices": (After(lambda z: z.argmax(1, keepdim=True).float()), r"in \[0, 2\] and are whole numbers"),
    "class indices as integers": (After(lambda z: z.argmax(1, keepdim=True)), "int64.*comes before the argmax"),
    "a mask": (After(lambda z: (z > 0).float(), classes=1), "whole numbers, like class indices, masks"),
    "a boolean mask": (After(lambda z: z > 0, classes=1), r"torch\.bool of shape .*before the argmax or the threshold"),
}


@pytest.mark.parametrize("name", NO_LOGITS)
def test_outputs_that_cannot_be_logits_are_refused(name: str) -> None:
    module, message = NO_LOGITS[name]
    for use in (segfaith.explain, segfaith.evaluate, segfaith.predicted_target):
        with pytest.raises(SettingsError, match=message):
            use(plain(module), photograph(), *([box(), ["ria@grid=2"]] if use is not segfaith.predicted_target else []))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (After(), r"means outputs in \[0, 1\] with channels that sum to 1, but .*leave head out for logits"),
        (After(torch.sigmoid), r"with channels that sum to 1, but .*before the sigmoids, and say head = \"sigmoid\""),
        (After(classes=1), r"means outputs in \[0, 1\], but"),
        (After(one_hot), "whole numbers"),
        (
            After(lambda z: overshot((20 * z).softmax(1))),
            "sum to 1: .*if you resize them, use mode 'bilinear'.*or return the",
        ),
        (After(lambda z: 255 * z.softmax(1)), r"their channels sum to 255: keep probabilities in \[0, 1\]"),
    ],
)
def test_outputs_that_are_said_to_be_probabilities_are_held_to_it(module: nn.Module, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        segfaith.explain(wrap(module, head="probabilities"), photograph(), box(), ["ria@grid=2"])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("classes", [1, 2, 21])
def test_random_logits_are_not_taken_for_probabilities(classes: int, seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        modules = [nn.Conv2d(3, classes, 1), nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, classes, 1))]
    for module in modules:
        probe(plain(module), photograph(seed), 16)


CONSTANT_SUMS: dict[str, nn.Module] = {
    "centred": After(lambda z: z - z.mean(1, keepdim=True)),
    "two classes of one logit": After(lambda z: torch.cat([-z, z], 1), classes=1),
    "centred, with a bias": After(lambda z: z - z.mean(1, keepdim=True) + torch.tensor([0.1, 0.0, 0.0])[:, None, None]),
    "the same everywhere": After(lambda z: 0 * z + torch.tensor([0.2, 0.3, 0.1])[:, None, None]),
    "all zero": After(lambda z: 0 * z),
    "almost the same everywhere": After(lambda z: 1e-3 * z + torch.tensor([0.0, 1.0, 2.0])[:, None, None]),
}


@pytest.mark.parametrize("name", CONSTANT_SUMS)
def test_logits_whose_channels_have_one_sum_are_not_taken_for_probabilities(name: str) -> None:
    probe(plain(CONSTANT_SUMS[name]), photograph(), 1)


@pytest.mark.parametrize(
    ("module", "head"),
    [
        (After(lambda z: z), "softmax"),
        (After(lambda z: z), "sigmoid"),
        (After(lambda z: z, classes=1), "sigmoid"),
        (After(lambda z: torch.cat([z, -z], 1), classes=1), "sigmoid"),
    ],
)
def test_logits_pass_under_the_head_that_the_user_names(module: nn.Module, head: Any) -> None:
    model = wrap(module, head=head)
    probe(model, photograph(), 2)
    assert model.independent == (head == "sigmoid" and model.channels != 1)
    assert model.head_name == head


@pytest.mark.parametrize(
    ("module", "head", "message"),
    [
        (After(lambda z: z, classes=1), "softmax", 'head = "softmax" needs several channels, but .* has one'),
        (After(lambda z: z.softmax(1)), "softmax", 'look like probabilities, not logits.*Say head = "probabilities"'),
        (
            After(lambda z: z.softmax(1)),
            "sigmoid",
            'not logits, and a sigmoid of each would .*Say head = "probabilities", if the classes exclude each other',
        ),
        (
            After(lambda z: 255 * z.softmax(1)),
            "sigmoid",
            r"a sigmoid of each .* Return the logits before the sigmoids$",
        ),
        (After(torch.sigmoid), "sigmoid", r"a sigmoid of each would .*\. Return the logits before the sigmoids$"),
        (After(torch.sigmoid), "softmax", 'Return the logits before the sigmoid, and say head = "sigmoid"'),
        (After(torch.sigmoid, classes=1), "sigmoid", "in its one channel: .* second sigmoid"),
        (After(one_hot), "sigmoid", "whole numbers, like class indices"),
    ],
)
def test_outputs_that_are_not_what_the_named_head_says_are_refused(module: nn.Module, head: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        probe(wrap(module, head=head), photograph(), 2)


def test_log_probabilities_are_logits() -> None:
    given = segfaith.evaluate(plain(After(lambda z: z.log_softmax(1))), photograph(), box(), ["ria@grid=2"])
    logits = segfaith.evaluate(plain(After()), photograph(), box(), ["ria@grid=2"])
    np.testing.assert_allclose(given["s"], logits["s"], rtol=0, atol=1e-6)


def test_logits_that_look_like_probabilities_can_be_said_to_be_logits() -> None:
    module = After(lambda z: z.softmax(1)).eval()
    model = wrap(module, mean=(0, 0, 0), std=(1, 1, 1), head="logits")
    frame = segfaith.evaluate(model, photograph(), box(), ["ria@grid=2"])
    with torch.no_grad():
        expected = upsampled(module(photograph()[None])).softmax(1)[0, 1][box().region].mean()
    assert frame["s"].iloc[0] == pytest.approx(float(expected), abs=1e-6)
    assert float(expected) < 0.58, "a softmax over 3 values in [0, 1] stays below e / (e + 2)"


SAME = ["s", "s_target_deleted", "s_off_deleted", "s_baseline", "s_inserted"]


@pytest.mark.parametrize("incremental", [True, False])
@pytest.mark.parametrize("classes", [1, 3])
def test_probabilities_score_as_the_logits_that_they_came_from(classes: int, incremental: bool) -> None:
    """log p is enlarged, not p: log p = z - log sum exp z, and the softmax does not see what all channels share."""
    ends = (torch.sigmoid if classes == 1 else (lambda z: z.softmax(1)), lambda z: z)
    frames, maps = [], []
    for end, head in zip(ends, ("probabilities", None), strict=True):
        model = wrap(After(end, classes=classes), head=head, layer="net.backbone")
        model.incremental = incremental
        assert isinstance(graph_of(model, photograph()), Graph)
        frames.append(segfaith.evaluate(model, photograph(), box(), ["ria@grid=4", "gpa@objective=prob"]))
        maps.append(segfaith.explain(model, photograph(), box(), ["ria@grid=4", "gpa@objective=prob"]))
    assert list(frames[0]["head"].unique()) == ["probabilities"]
    assert list(frames[1]["head"].unique()) == ["sigmoid" if classes == 1 else "softmax"]
    for name in maps[0]:
        torch.testing.assert_close(maps[0][name], maps[1][name], rtol=0, atol=1e-4)
    np.testing.assert_allclose(frames[0]["s"], frames[1]["s"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(
        frames[0].loc["random_cells", SAME].astype(float), frames[1].loc["random_cells", SAME].astype(float), atol=1e-6
    )


def test_probabilities_that_the_module_enlarges_score_alike_on_both_paths() -> None:
    """The logarithm and the last resizing do not commute, so the graph must not put off that resizing."""
    model = wrap(After(lambda z: upsampled(z.softmax(1))), head="probabilities")
    images = torch.stack([photograph(one) for one in range(3)])
    scores = []
    for incremental in (True, False):
        model.incremental = incremental
        scorer = scorer_for(model, images[0], box().region, Scalar(1))
        assert type(scorer).__name__ == ("IncrementalScorer" if incremental else "PlainScorer")
        scores.append(scorer.score(images))
    torch.testing.assert_close(scores[0], scores[1], rtol=0, atol=1e-6)
    with torch.no_grad(), model.evaluating():
        p = model.module(model.normalise(images))[:, 1][:, box().region].double().mean(1)
    torch.testing.assert_close(scores[1], p, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_softmax_of_what_probabilities_become_gives_them_back(dtype: torch.dtype) -> None:
    model = wrap(nn.Identity(), head="probabilities")
    several = torch.tensor([[0.0, 1, 0], [0.25, 0.5, 0.25], [1e-3, 0, 0.999]], dtype=dtype).T[None, :, :, None]
    one = torch.tensor([0.0, 1, 0.5, 1e-3, 0.999], dtype=dtype)[None, None, :, None]
    for p, expected in ((several, several.float()), (one, torch.cat([1 - one.float(), one.float()], 1))):
        logits = model.as_logits(p)
        assert bool(logits.isfinite().all())
        torch.testing.assert_close(logits.softmax(1), expected, rtol=1e-3, atol=1e-6)


# Two answers


def sometimes(x: Tensor) -> Tensor:
    return x * 1.5 if torch.rand(()) < 0.5 else x


class Remembers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Conv2d(3, 3, 1)
        self.register_buffer("before", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        z = self.net(x) + self.before
        self.before = z.mean()
        return z * torch.tensor([1.0, 2, 3])[:, None, None]


@pytest.mark.parametrize(
    "module",
    [
        After(before=lambda x: F.dropout(x, 0.1)),
        After(before=lambda x: x + 0.05 * torch.randn_like(x)),
        After(after=lambda z: F.dropout2d(z, 0.5)),
        After(after=sometimes, before=sometimes),
        Remembers(),
    ],
    ids=["dropout left on", "noise", "dropped channels", "random branches", "memory"],
)
def test_a_model_that_answers_twice_differently_is_refused(module: nn.Module) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        for use in (segfaith.explain, segfaith.evaluate):
            with pytest.raises(
                SettingsError, match="gives different outputs for the same image: even in evaluation mode, some"
            ):
                use(plain(module), photograph(), box(), ["ria@grid=2"])


# Images that share a batch


def minmax(x: Tensor) -> Tensor:
    return (x - x.min()) / (x.max() - x.min())


class FirstOnly(nn.Module):
    """Takes one image: whatever comes after the first is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.net = After()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.reshape(1, 3, SIZE, SIZE))


OTHERS = "depend on the other images of its batch"
MIXING: dict[str, tuple[nn.Module, str]] = {
    "min-max over the batch": (After(before=minmax), OTHERS),
    "batch statistics": (After(lambda z: F.batch_norm(z, None, None, training=True)), OTHERS),
    "mean over the batch": (After(lambda z: 2 * z - z.mean(0)), OTHERS),
    "the first image's brightness": (After(before=lambda x: x - x[0].mean()), OTHERS),
    "a bright image among them": (After(before=lambda x: x * (x.amax() > 0.9)), OTHERS),
    "the batch's size": (After(lambda z: z / len(z)), OTHERS),
    "one image only": (FirstOnly(), "a batch of 3 fails: RuntimeError: shape"),
    "norms without statistics": (
        nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
        "batch norms without running statistics",
    ),
}


@pytest.mark.parametrize("name", MIXING)
def test_a_model_that_mixes_a_batch_gets_one_image_at_a_time(name: str) -> None:
    module, reason = MIXING[name]
    together, alone = plain(module), plain(module)
    methods = ["ria@grid=3"]
    frame = segfaith.evaluate(together, photograph(), box(), methods, batch_size=8)
    assert reason in together.one_by_one
    assert frame.attrs["one_by_one"] == together.one_by_one
    alone.incremental = False
    expected = segfaith.evaluate(alone, photograph(), box(), methods, batch_size=1)
    np.testing.assert_allclose(frame[SAME].astype(float), expected[SAME].astype(float), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "module",
    [
        After(),
        After(lambda z: z * 1e4),
        After(before=lambda x: F.instance_norm(x)),
        After().bfloat16(),
        After(before=lambda x: x / 255 if x.max() > 3 else x),
        After(classes=1),
        After(lambda z: [{"out": z}]),
    ],
    ids=["plain", "large logits", "statistics of the image", "bfloat16", "bytes or not", "one channel", "nested"],
)
def test_other_models_keep_their_batches(module: nn.Module) -> None:
    model = plain(module)
    probe(model, photograph(), 16)
    assert model.one_by_one == ""


# The test itself


class Counting(After):
    def __init__(self) -> None:
        super().__init__()
        self.images = 0

    def forward(self, x: Tensor) -> Any:
        self.images += len(x)
        return super().forward(x)


def test_the_test_costs_11_passes_once_and_8_without_batches() -> None:
    module = Counting()
    model = plain(module)
    counts = []
    for batch_size in (1, 1, 16, 8, 2):
        probe(model, photograph(), batch_size)
        counts.append(module.images)
        module.images = 0
    assert counts == [8, 0, 11, 0, 0]


def test_a_model_that_fails_on_made_up_pictures_alone_is_used() -> None:
    def careful(x: Tensor) -> Tensor:
        if x.max() > 1 or x.flatten(2).std() > 0.4:
            raise ValueError("no photograph")
        return x

    frame = segfaith.evaluate(plain(After(before=careful)), photograph(), box(), ["ria@grid=2"])
    assert list(frame["status"]) == ["ok", "ok", "ok"]


def test_images_that_give_nan_say_nothing_of_the_head() -> None:
    model = plain(After(lambda z: torch.where(z.abs().amax() > 1e9, z, torch.nan)))
    probe(model, photograph(), 4)
    assert model.head_words == "softmax over 3 channels, assumed"


# What was assumed is said


@pytest.mark.parametrize(
    ("classes", "head", "words"),
    [
        (21, None, "softmax over 21 channels, assumed"),
        (1, None, "sigmoid of one channel, assumed"),
        (2, "logits", "softmax over 2 channels, as head = 'logits' says"),
        (3, "softmax", "softmax over 3 channels, as head = 'softmax' says"),
        (3, "sigmoid", "sigmoid of each of 3 channels, as head = 'sigmoid' says"),
        (1, "sigmoid", "sigmoid of one channel, as head = 'sigmoid' says"),
        (1, "probabilities", "probabilities of one channel, as head = 'probabilities' says"),
        (3, "probabilities", "probabilities of 3 channels, as head = 'probabilities' says"),
    ],
)
def test_a_model_says_what_is_assumed_of_its_outputs(classes: int, head: Any, words: str) -> None:
    model = wrap(nn.Conv2d(3, classes, 1), head=head)
    model.logits(photograph()[None])
    assert model.head_words == words
    assert words in repr(model)


def test_before_its_first_pass_a_model_says_what_will_be_assumed() -> None:
    assert "softmax over several channels, sigmoid of one, assumed" in repr(wrap(nn.Conv2d(3, 5, 1)))


OWN = """
import torch
from torch import nn
from torch.nn import functional as F

from tiny import Tiny


class Of(Tiny):
    def __init__(self, end):
        super().__init__()
        self.end = end

    def forward(self, x):
        if self.end == "minmax":
            x = x / x.amax()
        if self.end == "photographs" and x.diff().abs().mean() > 0.25:
            raise ValueError("too noisy")
        z = super().forward(F.dropout(x) if self.end == "dropout" else x)
        return z.softmax(1) if self.end == "softmax" else z


def build(end):
    return Of(end)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = make_project(tmp_path_factory.mktemp("project"), 2)
    (root / "own.py").write_text(OWN)
    return root


def own(root: Path | str, end: str, **more: Any) -> dict[str, Any]:
    return {"name": f"{root}/own.py:build", "args": {"end": end}, **more}


QUICK = {"names": ["ria"], "ria": {"grid": 2}}


@pytest.mark.parametrize(
    ("end", "message"), [("softmax", "its 3 channels sum to 1"), ("dropout", r"own\.py:build gives different outputs")]
)
def test_a_run_of_a_model_that_cannot_be_used_does_not_start(
    end: str, message: str, project: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=message):
        run_records(project, tmp_path / "run", model=own(project, end), methods=QUICK)
    assert not (tmp_path / "run").exists()


def test_the_run_and_its_files_say_what_is_assumed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_settings(project, model=own(".", "minmax"), methods=QUICK)
    settings = project / "settings.toml"
    assert command(monkeypatch, "run", settings, "-o", tmp_path / "run") == 0
    words = ["softmax over 3 channels, assumed", "one image at a time: an image's outputs depend on the other images"]
    shown = capsys.readouterr().err
    assert all(one in shown for one in words)
    assert command(monkeypatch, "run", settings, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert all(one in shown for one in words)
    model = json.loads((tmp_path / "run" / "run.json").read_text())["model"]
    assert (model["head"], model["one_by_one"]) == (
        words[0],
        "an image's outputs depend on the other images of its batch",
    )


def test_records_name_the_head_also_of_samples_that_failed(project: Path, tmp_path: Path) -> None:
    """The same model, its logits and its probabilities: the same scores under another head."""
    logits = run_records(project, tmp_path / "logits", model=own(project, ""), methods=QUICK)
    said = own(project, "softmax", head="probabilities")
    given = run_records(project, tmp_path / "given", model=said, methods=QUICK, target={"class": "disc"})
    assert set(logits["head"]) == {"softmax"}
    assert set(given["head"]) == {"probabilities"}
    assert json.loads((tmp_path / "given" / "run.json").read_text())["settings"]["model"]["head"] == "probabilities"
    both = logits.merge(given, on=["sample_id", "class_index", "method"], suffixes=("", "_given"))
    assert len(both) >= 2
    np.testing.assert_allclose(both["s"], both["s_given"], rtol=0, atol=1e-6)


def test_a_model_that_fails_on_noise_but_not_on_the_samples_is_run(project: Path, tmp_path: Path) -> None:
    records = run_records(project, tmp_path, model=own(project, "photographs"), methods=QUICK)
    assert set(records["status"]) == {"ok"}


def test_every_model_that_comes_with_segfaith_passes_the_test() -> None:
    model: SegmentationModel = segfaith.load_model("scenes")
    probe(model, photograph(), 16)
    assert (model.one_by_one, model.head_words) == ("", "softmax over 11 channels, assumed")
