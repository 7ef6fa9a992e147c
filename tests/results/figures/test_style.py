"""The look of figures: methods that differ in grey print, ticks and places that don't overprint."""

import numpy as np
import pytest

from segfaith.results.figures.style import LOOKS, OTHERS, canvas, literal, log_ticks, looks, run_looks, spread_out
from segfaith.results.records.select import method_order


def test_methods_look_different_in_grey_and_the_same_everywhere() -> None:
    names = [*LOOKS, "dea@alpha=0.5", "dea@alpha=0.8", "lime", "own.py:build"]
    chosen = looks(names)
    assert len({look.marker for look in chosen.values() if look.colour == LOOKS["dea"].colour}) == 3
    assert len({(look.marker, look.colour) for look in chosen.values()}) == len(names)
    assert looks(names[::-1]) == chosen
    assert looks(["own.py:build", "dea", "lime"]).items() <= chosen.items()
    assert len({look.marker for look in (*LOOKS.values(), *OTHERS)}) == len(LOOKS) + len(OTHERS)
    assert len(set(run_looks([f"run{i}" for i in range(72)]).values())) == 72
    assert len({look.marker for look in run_looks([f"run{i}" for i in range(12)]).values()}) == 12
    assert method_order(["mask", "lime", "dea@alpha=0.5", "random", "dea", "gpa"]) == [
        *("gpa", "dea@alpha=0.5", "dea", "lime", "random", "mask")
    ]


def test_words_are_no_formulas_and_not_too_long() -> None:
    assert literal("a $b$ c") == r"a \$b\$ c"
    assert literal("x" * 30 + "y" * 30) == "x" * 12 + "..." + "y" * 15
    assert literal("x" * 30 + "y" * 30, 18) == "x" * 6 + "..." + "y" * 9
    assert literal("abcdefghijklmnopqr", 18) == "abcdefghijklmnopqr"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.021, 0.045, ["0.025", "0.03", "0.04"]),
        (0.03, 3.0, ["0.05", "0.1", "0.2", "0.5", "1", "2"]),
        (0.0009, 20.0, ["0.001", "0.01", "0.1", "1", "10"]),
        (1e-6, 1e6, ["1e-06", "0.001", "1", "1e+03", "1e+06"]),
    ],
)
def test_logarithmic_ticks_are_few_and_round(low: float, high: float, expected: list[str]) -> None:
    axes = canvas(3, 2).subplots()
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    log_ticks(axes)
    assert [text.get_text() for text in axes.get_xticklabels()] == expected


def test_places_are_spread_out_as_little_as_needed() -> None:
    assert spread_out([1.0, 2.0, 4.0], 0.5) == [1.0, 2.0, 4.0]
    np.testing.assert_allclose(spread_out([2.0, 2.0], 0.5), [1.75, 2.25])
    np.testing.assert_allclose(spread_out([3.0, 1.0, 1.1], 0.5), [3.0, 0.8, 1.3])
    rng = np.random.default_rng(0)
    for _ in range(50):
        places = rng.uniform(0, 4, 6).tolist()
        spread = spread_out(places, 0.5)
        assert min(np.diff(sorted(spread))) > 0.5 - 1e-9
        assert np.argsort(spread).tolist() == np.argsort(places).tolist()
        assert np.mean(spread) == pytest.approx(np.mean(places))
