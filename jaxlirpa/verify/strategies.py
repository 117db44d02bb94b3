"""How subproblems are split, as values."""

from __future__ import annotations

import dataclasses
from typing import Any

from jaxlirpa._methods.options import whole_number
from jaxlirpa.verify.optimise import Ascent


@dataclasses.dataclass(frozen=True)
class NeuronSplits:
    """Splits of the operands of nonlinear functions: for networks of many inputs.

    Attributes:
        batch: how many subproblems are split at once.
        candidates: how many splits of each are tried by one bound of both parts.
        steps: gradient steps of each subproblem.
        root_steps: those of the whole set.
        refine_steps: those of every neuron's own bounds on the whole set; 0: none.
        refine_after: after how many subproblems those bounds are found, and the search begins anew.
        refined: bounds of neurons are not refined if more than so many are unstable.
        ascent: how gradient steps are made.

    Raises:
        ArgumentError: for a number that is too small.
    """

    batch: int = 16
    candidates: int = 5
    steps: int = 8
    root_steps: int = 40
    refine_steps: int = 10
    refine_after: int = 200
    refined: int = 400
    ascent: Ascent = dataclasses.field(default_factory=Ascent)

    def __post_init__(self) -> None:
        _whole_numbers(self, 1, "batch", "candidates", "steps", "root_steps")
        _whole_numbers(self, 0, "refine_steps", "refine_after", "refined")


@dataclasses.dataclass(frozen=True)
class InputSplits:
    """Splits of the inputs: for networks of few inputs, over boxes.

    Attributes:
        batch: how many boxes are split at once.
        sharpened: how many neurons of each layer have their bounds bettered in each box.
        steps: gradient steps of each box; 1: none.
        ascent: how gradient steps are made.

    Raises:
        ArgumentError: for a number that is too small.
    """

    batch: int = 64
    sharpened: int = 16
    steps: int = 1
    ascent: Ascent = dataclasses.field(default_factory=Ascent)

    def __post_init__(self) -> None:
        _whole_numbers(self, 1, "batch", "steps")
        _whole_numbers(self, 0, "sharpened")


def _whole_numbers(strategy: Any, least: int, *names: str) -> None:
    """Refuses attributes that are no whole numbers, or too small ones."""
    for name in names:
        whole_number(name, getattr(strategy, name), least)


Strategy = NeuronSplits | InputSplits
