"""The trees of subproblems that a search makes of clauses: splits inside, proofs at the leaves."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]


class Split(NamedTuple):
    """A variable, and where its range is cut.

    Attributes:
        variable: the number of a neuron; or that of an entry of the inputs, behind all neurons.
        point: where. One part has what is below, the other what is above, and both the point.
    """

    variable: int
    point: float


class Leaf(NamedTuple):
    """What proves a subproblem: the parameters of a positive bound.

    Attributes:
        alpha: `[sides, neurons]`.
        mu: `[neurons]`.
    """

    alpha: Floats
    mu: Floats


@dataclasses.dataclass(frozen=True)
class Part:
    """A subproblem.

    Attributes:
        number: in the forest.
        clause: which clause is to be proved.
        low, up: limits of the neurons' operands.
        inputs: limits of the inputs' deviations, `[2, n]`; None: all of the set.
        alpha, mu: parameters of its bound.
        bound: the lower bound.
        splits: what to split it by, the most promising first.
    """

    number: int
    clause: int
    low: Floats
    up: Floats
    inputs: Floats | None
    alpha: Floats
    mu: Floats
    bound: float
    splits: tuple[Split, ...]

    def halves(self, split: Split) -> tuple[Part, Part]:
        """The part below a split's point, and the part above."""
        neurons, (variable, point) = len(self.low), split
        if variable < neurons:
            below, above = self.up.copy(), self.low.copy()
            below[variable] = min(below[variable], point)
            above[variable] = max(above[variable], point)
            # A part that is empty keeps an ordered box, which contains it.
            return (
                dataclasses.replace(self, low=np.minimum(self.low, below), up=below),
                dataclasses.replace(self, low=above, up=np.maximum(self.up, above)),
            )
        assert self.inputs is not None
        left, right = self.inputs.copy(), self.inputs.copy()
        left[1, variable - neurons] = right[0, variable - neurons] = point
        return dataclasses.replace(self, inputs=left), dataclasses.replace(self, inputs=right)


@dataclasses.dataclass
class Forest:
    """Subproblems by number: of each clause a tree, the first of which is all of the set.

    Attributes:
        roots: the clause of each tree, which has the number of its place here.
        splits: of those that are split.
        children: the numbers of the parts below and above.
        size: how many there are.
    """

    roots: list[int]
    splits: dict[int, Split] = dataclasses.field(default_factory=dict)
    children: dict[int, tuple[int, int]] = dataclasses.field(default_factory=dict)
    size: int = 0

    def __post_init__(self) -> None:
        self.size = self.size or len(self.roots)

    def split(self, number: int, split: Split) -> tuple[int, int]:
        """Splits a leaf; returns the numbers of its parts."""
        pair = self.size, self.size + 1
        self.splits[number], self.children[number] = split, pair
        self.size += 2
        return pair

    def parts(self, whole: Part) -> dict[int, Part]:
        """All leaves by number, as the splits make them from all of the set: they cover it."""
        found, waiting = {}, self.wholes(whole)
        while waiting:
            part = waiting.pop()
            if part.number not in self.splits:
                found[part.number] = part
                continue
            halves = part.halves(self.splits[part.number])
            for number, half in zip(self.children[part.number], halves, strict=True):
                waiting.append(dataclasses.replace(half, number=number))
        return found

    def wholes(self, whole: Part) -> list[Part]:
        """The subproblems that are all of the set, one of each clause."""
        pairs = enumerate(self.roots)
        return [dataclasses.replace(whole, number=n, clause=clause) for n, clause in pairs]
