"""The glossary of the report page: every metric with its formula, and every other word that heads a number."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isinf

from segfaith.evaluation.metrics import METRICS, Metric


@dataclass(frozen=True)
class Entry:
    """A definition; its anchor is `def-KEY`."""

    key: str
    label: str
    text: str
    formula: str = ""
    direction: str = ""


TERMS: dict[str, tuple[str, str]] = {
    "s": (
        "s",
        "Masked mean class probability, the model's mean confidence in the target, in [0, 1]: s = sum(M p_c) / "
        "(sum(M) + ε). p_c is the softmax output for the target class c, M the target mask, ε = 1e-6. Where a run "
        "explains another score, that number of each pixel takes the place of p_c. The conditional is the probability "
        "of c given that the pixel is c or one other class v: p_c / (p_c + p_v). Of logit, log odds and margin s has "
        "no bounds.",
    ),
    "target_area": ("Area of the target", "Share of the image's pixels that the target mask M covers."),
    "target_iou": (
        "IoU of the prediction",
        "Intersection over union of M with the pixels where the model predicts the target class c. Where M is a part "
        "of the class's pixels, as one of several components, the class's other pixels are left out of the prediction.",
    ),
    "deleted": (
        "S_t, S_o and k",
        "The n(k, R) = max(1, floor(k |R| + 0.5)) pixels with the highest map values inside the target (S_t) and "
        "outside it (S_o); k is the fraction of the region, 0.2 unless stated.",
    ),
    "occlusion": (
        "Occlusion O(x, S)",
        "The image with the pixels of S replaced: by the image's mean colour (mean), black (zero), ImageNet's mean "
        "colour (dataset_mean), a blurred copy (blur), uniform noise (noise), or noisy linear imputation (road). The "
        "first operator of a run scores the main tables.",
    ),
    "method": (
        "Method",
        "How a map is made. gpa: gradients pooled per channel (Seg-Grad-CAM). ega: elementwise gradients "
        "(Seg-XRes-CAM). ria: drop of s when a grid cell is occluded. dea: the fusion of ega and ria. mea: "
        "ria, refined by ega. A name with @ is a variant with other parameters.",
    ),
    "control": (
        "Controls",
        "Maps that explain nothing, for comparison: random (a value per pixel), random_cells (a value per cell of "
        "RIA's grid, mean of three draws), mask (the target itself as the map), gamed (the mask with hidden "
        "orders that win TDD, insertion, OT abs and stability).",
    ),
    "truth": (
        "Truth",
        "The planted evidence itself as a map: 1 on the pixels that are known to decide, 0 elsewhere. It says what a "
        "metric gives a true map. It is no method under test and no control, and a target whose deciding pixels are "
        "not known has none.",
    ),
    "mean": (
        "Mean ± std",
        "Mean over run-level means, each run counting once, and their standard deviation (n − 1). A single run has no "
        "standard deviation.",
    ),
    "median": ("Median", "Median over all measured samples of all runs."),
    "trimmed": ("Trimmed mean", "Mean over samples without the lowest and the highest 10 %."),
    "iqm": (
        "Interquartile mean (IQM)",
        "Mean over samples of the middle half of the values: of n values in order, those between n/4 and 3n/4, the "
        "ones on the borders in part.",
    ),
    "pooled": (
        "Pooled drop",
        "Sum of the drops of s over images, divided by the sum of s: what is lost of all the score, so that no small s "
        "can make it explode. TDD, pooled: what is lost when the map's top pixels inside the target are deleted. OT "
        "abs, pooled: what is lost or gained, as an absolute value, when those outside are. An image counts as the "
        "mean over its targets and over the runs that have it. The paper's own figure, the mean of the relative drops, "
        "stands in the table of means. The 95 % interval in brackets is by a bootstrap on two levels: backbones and "
        "images are both drawn with replacement. Of one backbone it is over images alone.",
    ),
    "predicted": (
        "IoU ≥ .5",
        "The same figure over the targets alone that the model predicts with an intersection over union of .5 or more.",
    ),
    "n": (
        "n",
        "How many samples (pairs of run and image) entered. A value that fewer entered is followed by its own number "
        "in brackets.",
    ),
    "undefined": (
        "Undefined",
        "Values that do not exist for a measured sample, such as the stability of a constant map. They are left out "
        "of means and counted here.",
    ),
    "run": (
        "Run",
        "One data set, model, seed and settings; the unit over which means ± std are taken. Runs that differ in "
        "methods' parameters alone (ablations) are one run for tests.",
    ),
    "images": (
        "Images",
        "Different images; the same image in several runs counts once, and so does an image with several targets: its "
        "value is the mean over them.",
    ),
    "small_s": (
        "Small s",
        "Samples with s < 0.05. Metrics relative to s divide by next to nothing there, and a few of them can rule a "
        "mean.",
    ),
    "status": (
        "Status",
        "ok: measured. skipped: nothing to explain by the protocol. failed: an error, with its words.",
    ),
    "wins": (
        "Wins",
        "In how many runs the run-level mean of the first method is better than that of the second; a draw is no win. "
        "Of leakages the means are over the samples on which both have one. Of a single run: better, worse or draw.",
    ),
    "paper": ("Paper", "The figure of Table 1 of the paper: mean ± std over its runs."),
    "claim": (
        "Claims check",
        "The paper's claims, each held against run-level means. What the paper says of every run must hold in "
        "every run; the others must hold for the means over runs, and the count says in how many runs they hold too. "
        "A difference of means below 0.0001, or of runtimes below 5 %, is a draw. Not testable where a method or "
        "metric is missing, and below ten images; of one run the count is “the only run”.",
    ),
    "difference": (
        "Difference",
        "First − second over images, each averaged over its runs first, in the metric's own unit. Of drops relative to "
        "s it is the pooled drop, the sum of drops over the sum of s; of leakages the trimmed mean of the differences "
        "image by image (without the lowest and the highest tenth), which is not the difference of two trimmed means; "
        "of the rest the mean. So small s and small drops can't rule it, as they can a mean: where means differ the "
        "other way, a claim's difference says so. A claim's rival is the method that decides.",
    ),
    "interval": (
        "95 % interval",
        "Of the quantity beside it (pooled drop, trimmed mean or mean), over images, by Student's t: of the pooled "
        "drop linearised, of the trimmed mean with the winsorised variance. None below 20 images. Where few images "
        "hold most of s, or most of a gain, it covers the true value in 80 to 90 of 100 data sets of 20 to 40 images.",
    ),
    "effect": (
        "Effect size",
        "Matched-pairs rank-biserial correlation in [−1, 1]: share of the rank sum for which the first has the larger "
        "value, less the share for which the second has.",
    ),
    "p": (
        "p (Holm)",
        "Wilcoxon signed-rank test over images (Pratt's treatment of zeros), corrected by Holm's method over all "
        "tests that the page shows of one data set, of all metrics and pairs; a test that only repeats another one is "
        "not counted. In the checks against random cells it is over the methods. Significant below .05. Not testable: "
        "the reason stands in its place.",
    ),
    "images_needed": (
        "Images needed",
        "How many images Wilcoxon's test needs to find the difference of two methods significant in 8 of 10 cases, at "
        "p < .05 (Noether 1987): 7.85 / (3 (p' − 1/2)²), p' the share of pairs of images whose differences have a sum "
        "above zero. It takes the observed difference as the true one and leaves out Holm's correction, so it is an "
        "order of magnitude.",
    ),
    "friedman": (
        "Friedman's test",
        "Whether any method ranks differently from the others, over images on which all have a value; controls are "
        "left out unless named.",
    ),
    "rank": ("Mean rank", "Rank among the methods on each image (1 = best by the metric's direction), averaged."),
    "cd": (
        "Critical difference",
        "Nemenyi's: mean ranks farther apart than this differ at the 5 % level. It is conservative beside the "
        "pairwise tests.",
    ),
    "concordance": (
        "Kendall's W",
        "Agreement of the rankings of methods under several settings: 1 if all are the same. Random rankings give 1 "
        "over the number of settings, not 0. Beyond chance: how far W lies above that, as a share of what it could; 0 "
        "is chance, 1 the same ranking everywhere, and below 0 they agree less than random ones. p: the share of "
        "random rankings that agree at least as much. Not given below ten images.",
    ),
    "crossfit": (
        "Cross-fitted",
        "Scored by operators that no method was built with: the mean over them, the same for all methods. Beside it "
        "stands the mean over the operators that some method was built with, which favour that method.",
    ),
    "setting": ("Rank (mean)", "Rank of the method under the setting (1 = best), and its mean over images."),
    "curve": (
        "Curves",
        "At several k, first operator: the relative drop of s after deletion in the target (tdd) and outside it (odd), "
        "pooled over images (sum of drops over sum of s), and the mean rise of s after insertion. Of scores other than "
        "the probability: the mean drop, not divided by s.",
    ),
    "area": (
        "Area",
        "Area under the curve over k by the trapezoid rule, from 0 at k = 0, divided by the range of k: the mean "
        "height of the curve, of pooled drops or mean insertion gains. Off-target areas are also given of absolute "
        "values, so that rises and falls don't cancel.",
    ),
    "absolute_drop": (
        "Absolute drops",
        "s − s(O(x, S_t)) and |s − s(O(x, S_o))|, not divided by s: samples with a small s can't rule them.",
    ),
    "influence": (
        "Influence of one image",
        "How far a mean moves when one image is left out: the mean without the image minus the mean with it. The image "
        "with the largest change is named.",
    ),
    "stratum": ("Stratum", "A part of the samples: by s, by the target's share of the image, or by class."),
    "spearman": (
        "Spearman, Pearson",
        "Rank correlation and correlation, over pixels, of the map with that of the trained model after parts of the "
        "model were drawn anew, from the head on, cascading (Adebayo et al. 2018). A map that explains the model must "
        "change. Constant maps have none.",
    ),
    "evidence": (
        "Planted evidence",
        "Pixels that decide the class by construction: of a scene, whose model was shown to decide by them, or the "
        "half of two wired photographs that the target’s logits read.",
    ),
    "tau": (
        "Kendall's tau-b",
        "Agreement of two rankings of the methods, by a metric and by the average precision against planted evidence, "
        "in [−1, 1]. Controls are left out. A verdict needs eight different methods.",
    ),
    "judgement": (
        "Judgement of metrics",
        "What segfaith judge-metrics says of each metric, by rules that were stated before its numbers were "
        "seen (docs/judgement.md). yes: the metric has the property. no, reversed: it has not. weakly: a little. "
        "undecided: the interval allows both. blind: by construction it cannot see where the evidence lies.",
    ),
    "disagreement": (
        "Disagreement of maps",
        "Mean over pairs of methods (controls and variants left out) of 1 − Spearman correlation of their maps, each "
        "averaged down to at most 28 x 28. 0: all rank the pixels alike; 1: unrelated.",
    ),
    "spread": (
        "Spread of TDD",
        "Largest less smallest TDD among the methods (controls and variants left out); it stands for the disagreement "
        "where not every sample has maps.",
    ),
}
"""Everything else that heads a number: key -> (label, definition)."""


def glossary() -> list[Entry]:
    """All definitions, metrics first."""
    metrics = [
        Entry(name, metric.label, _sentence(metric.meaning), metric.formula, _direction(metric))
        for name, metric in METRICS.items()
    ]
    return metrics + [Entry(key, label, text) for key, (label, text) in TERMS.items()]


def unknown(keys: Iterable[str]) -> set[str]:
    """Keys that no definition has."""
    return set(keys) - set(METRICS) - set(TERMS)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _direction(metric: Metric) -> str:
    """Direction and range in words."""
    better = f"{metric.better} is better" if metric.better else "a diagnostic, ranks nothing"
    low = "" if isinf(metric.low) else f"from {metric.low:g}"
    high = "" if isinf(metric.high) else f"{'to' if low else 'at most'} {metric.high:g}"
    return "; ".join(part for part in (better, f"{low} {high}".strip()) if part)
