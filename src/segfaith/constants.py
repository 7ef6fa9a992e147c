"""Numbers that several stages share. No torch here."""

EPS = 1e-6
"""The eps of every formula (equations 1 and 3 to 5 of the paper)."""

DEGENERATE_RANGE = 1e-12
"""A map whose range (max - min) is below this says nothing: it becomes all zeros and is recorded as degenerate."""

LEAST_TDD = 0.05
"""The leakages divide by TDD. They are undefined unless TDD is above this: else the deletion hardly lowered s."""

IGNORE = 255
"""The label of pixels that belong to no class. They count as outside the target unless `ignore = "exclude"`."""

COUNTERPART = "counterpart"
"""The kind of a class that the absence of a part decides; no pixels are its evidence."""

WIRED_STRAIGHT, WIRED_CROSSED = "wired straight", "wired crossed"
"""Kinds of wired photographs (`halves`): the evidence is the target's own half of the canvas, or the other one."""

CONTROLS = ("random", "random_cells", "mask", "gamed")
"""Methods that explain nothing, for comparison."""

TRUTH = "truth"
"""The planted evidence itself as a map, measured beside the methods where it is known. It is under no test."""

REMOVAL = "removal"
"""The true removal: a pixel shows what the scene shows without the evidence. Only judging metrics knows such images."""
