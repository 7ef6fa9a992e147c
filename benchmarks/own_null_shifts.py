"""How many shifted copies of a map its own null needs: the precision of `tdd_gain_own` by the number of shifts.

    python benchmarks/own_null_shifts.py examples/scenes.toml -n 24
    python benchmarks/own_null_shifts.py examples/voc-mobilenetv2.toml -n 8

The rule, stated before any measurement: enough is the smallest number of shifts at which the standard error of a map's
null is at most a quarter of the standard deviation of `tdd_gain_own` between the methods under test, in the median
over samples.

Of each map of the methods under test 24 shifted copies are deleted. The first eight are those of a run with
`own_null = true` and the same seed. Samples whose s is below 0.05 are left out. The table holds, for each number of
shifts j:

| column | what it says |
|---|---|
| error | standard error of a null: sd over 24 shifts / sqrt(j), root mean square over methods; median over samples |
| ratio | the same over the sd of `tdd_gain_own` (24 shifts) between methods; median over samples |
| ratio_shared | the same of a null less the mean null of the sample's methods: all methods share the shifts |
| agreement | Spearman's correlation between methods of gains by j shifts and by all others; mean over samples |
| reliability | of gains by j shifts: 2r / (1 + r), r the same correlation of one half of j shifts with the other |

`agreement` and `reliability` are high also where the nulls are rough, since both sides share the same TDD.
"""

import argparse

import numpy as np
import pandas as pd
import torch
from fidelity_defaults import Case, cases
from numpy.typing import NDArray
from scipy.stats import rankdata

from segfaith.batching import score_images
from segfaith.benchmark.prepared import prepare
from segfaith.benchmark.settings import find_settings, read_settings
from segfaith.constants import EPS
from segfaith.evaluation.ranking import draw_shifts, rank, tie_ranks, top_count, top_pixels
from segfaith.incremental.scoring import scorer_for
from segfaith.occlusion import occluder
from segfaith.scores import scalar_of

METHODS = ("gpa", "ega", "ria", "dea")
MOST = 24
RULE = 0.25
DRAWS = 200
Real = NDArray[np.float64]


def tdds(case: Case, k: float, operator: str) -> Real:
    """The TDD of each map and of its shifted copies, (methods, 1 + 24)."""
    subject = case.subject
    region = subject.target.region
    shifts = draw_shifts(subject.size, MOST, subject.rng("shifts"))
    ranks = tie_ranks(subject.size, "cell", subject.rng("ties")).to(subject.image.device)
    tops = []
    for name in METHODS:
        ranking = rank(case.maps[name], subject.target, ~region, ranks, shifts)
        tops += [ranking.top("inside", k), *(ranking.shifted(number, k) for number in range(MOST))]
    occlude = occluder(operator, subject.image, subject.rng(f"occlusion|{operator}"), wired=subject.model.wired)
    scorer = scorer_for(subject.model, subject.image, region, scalar_of(subject.model, subject.target))
    count = top_count(k, int(region.sum()))

    def build(numbers: torch.Tensor) -> torch.Tensor:
        images = [
            occlude(top_pixels(tops[number - 1], count, subject.size)[None])[0] if number else subject.image
            for number in numbers.tolist()
        ]
        return torch.stack(images)

    scores = score_images(scorer.score, build, 1 + len(tops), subject.batch).cpu().numpy().astype(float)
    s, deleted = scores[0], scores[1:].reshape(len(METHODS), 1 + MOST)
    return np.asarray((s - deleted) / (abs(s) + EPS))


def ratios(sample: Real) -> tuple[float, float, float]:
    """Of one shift: the standard error of a null, and it relative to the spread between methods, shifts shared or not.

    Args:
        sample: of `tdds`.
    """
    null = sample[:, 1:]
    spread = (sample[:, 0] - null.mean(1)).std(ddof=1)
    alone, shared = (np.sqrt(values.var(1, ddof=1).mean()) for values in (null, null - null.mean(0)))
    return float(alone), float(alone / spread), float(shared / spread)


def agreement(samples: Real, first: Real, second: Real) -> float:
    """Spearman's correlation between methods of gains by two groups of shifts; mean over samples without ties alone.

    Args:
        samples: (samples, methods, 1 + 24).
        first, second: the numbers of shifts, from 0.
    """
    gains = [samples[..., 0] - samples[..., 1:][..., group].mean(-1) for group in (first, second)]
    ours, theirs = (rankdata(values, axis=1) - (len(METHODS) + 1) / 2 for values in gains)
    with np.errstate(invalid="ignore"):
        return float(np.nanmean((ours * theirs).sum(1) / np.sqrt((ours**2).sum(1) * (theirs**2).sum(1))))


def table(samples: Real) -> pd.DataFrame:
    """A line for each number of shifts."""
    rng = np.random.default_rng(0)
    orders = [rng.permutation(MOST) for _ in range(DRAWS)]
    error, alone, shared = np.median([ratios(sample) for sample in samples], axis=0)
    lines = []
    for j in range(1, MOST + 1):
        line = {"shifts": j, "error": error, "ratio": alone, "ratio_shared": shared}
        line |= {name: line[name] / j**0.5 for name in ("error", "ratio", "ratio_shared")}
        if j < MOST:
            line["agreement"] = np.mean([agreement(samples, order[:j], order[j:]) for order in orders])
        if j % 2 == 0:
            r = np.mean([agreement(samples, order[: j // 2], order[j // 2 : j]) for order in orders])
            line["reliability"] = 2 * r / (1 + r)
        lines.append(line)
    return pd.DataFrame(lines).set_index("shifts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings")
    parser.add_argument("-n", type=int, default=24)
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    settings = read_settings(find_settings(given.settings), [f"data.n={given.n}", *given.set])
    named = settings.methods.model_copy(update={"names": [*METHODS, "random_cells"]})
    evaluation = settings.evaluation
    chosen = cases(prepare(settings.model_copy(update={"methods": named})))
    samples = np.stack([tdds(case, evaluation.fractions[0], evaluation.occlusion[0]) for case in chosen])
    every = table(samples)
    pd.set_option("display.width", 250)
    print(f"{len(samples)} samples\n{every.round(3).to_string()}")
    each = np.array([ratios(sample)[1:] for sample in samples])
    print(f"ratio of one shift by sample: {', '.join(f'{ratio:.2f}' for ratio in sorted(each[:, 0]))}")
    alone, shared = np.median(each, axis=0)
    needed = [int(np.ceil((ratio / RULE) ** 2)) for ratio in (alone, shared)]
    print(f"shifts needed by the rule: {needed[0]}; with shared shifts: {needed[1]}")


if __name__ == "__main__":
    main()
