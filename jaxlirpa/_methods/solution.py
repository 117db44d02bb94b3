"""What a method finds out about one output of a program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from jaxlirpa._domains.backward_linear import BackwardBounds, BackwardLinear
from jaxlirpa._domains.rows import AffineRows, arranged
from jaxlirpa._graph.graph import Ref
from jaxlirpa._intervals import Interval, vacuous_where_overflown
from jaxlirpa._methods.problem import Problem
from jaxlirpa._types import Array
from jaxlirpa._walk import backward
from jaxlirpa.sets.per_example import concretize_per_example


class InputRows(NamedTuple):
    """Affine functions of the inputs, written around the points of their sets.

    Attributes:
        coefficients: `[rows, *input.shape]` for every input that matters.
        offset: `[rows]`, or `[rows, examples]` where a row holds a function of each example: the
            value where every input is its set's `point()`.
    """

    coefficients: dict[Ref, Array]
    offset: Array


class Solution(NamedTuple):
    """What a method knows of one output.

    Attributes:
        box: its bounds.
        lower, upper: affine functions of the inputs around it, where the method has them.
        alphas: the relaxations that were found best for it, where they were searched for.
    """

    box: Interval
    lower: InputRows | None = None
    upper: InputRows | None = None
    alphas: Any = None


def only_box(box: Interval) -> Solution:
    """A solution whose linear bounds are constant."""
    lower, upper = (InputRows({}, limit.reshape(-1)) for limit in box)
    return Solution(box, lower, upper)


class Optimized(NamedTuple):
    """Bounds, and the relaxations that were found best.

    Attributes:
        bounds: as for `alpha_crown`.
        alphas: one pytree an output, of numbers in [0, 1].
    """

    bounds: Any
    alphas: tuple[Any, ...]


Method: TypeAlias = Callable[[Problem], list[Solution]]


def enclose(
    problem: Problem, domain: BackwardLinear, target: Ref, rows: Array | None = None
) -> Solution:
    """Linear bounds of one value in terms of others, and their extrema over the others' sets.

    Args:
        problem: the program, and the sets of the values at which to stop.
        domain: relaxes the nonlinear nodes in between.
        target: the value.
        rows: the numbers of the entries that are bounded, shaped as the box will be; None for all
            of them. See `BackwardLinear.start`.
    """
    found = enclose_functionals(problem, domain, domain.start(target, rows))
    aval = problem.graph.aval(target)
    limits = list(found.box)
    if rows is None:
        axis = problem.graph.batch_axes.get(target)
        limits = [arranged(limit, aval.shape, axis) for limit in limits]
    # A value of a shorter format than the inputs' has limits of that format: rounding keeps order.
    box = Interval(*(limit.astype(aval.dtype) for limit in limits))
    return found._replace(box=vacuous_where_overflown(box))


def enclose_functionals(
    problem: Problem, domain: BackwardLinear, functionals: Mapping[Ref, BackwardBounds]
) -> Solution:
    """As `enclose`, of a sum of functionals of some values; the box is shaped as their offsets."""
    reached = backward(problem.graph, domain, functionals, problem.sets.__contains__)
    sides = {ref: f.loosened() for ref, f in reached.items()}
    lower = _rows({ref: below for ref, (below, _) in sides.items()})
    upper = _rows({ref: above for ref, (_, above) in sides.items()})
    low, high = (_extrema(problem, rows) for rows in (lower, upper))
    return Solution(Interval(low.lower, high.upper), lower, upper)


def _extrema(problem: Problem, rows: InputRows) -> Interval:
    """Minimum and maximum of affine functions over sets that vary independently."""
    lower = upper = rows.offset
    for ref, coefficients in rows.coefficients.items():
        own = problem.sets[ref]
        if rows.offset.ndim == 1:
            part = own.concretize(coefficients, from_point=True)
        else:
            part = concretize_per_example(own, coefficients, problem.graph.batch_axes[ref])
        lower, upper = lower + part.lower, upper + part.upper
    return Interval(lower, upper)


def _rows(sides: dict[Ref, AffineRows]) -> InputRows:
    first, *others = (side.offset for side in sides.values())
    return InputRows({r: s.coefficients for r, s in sides.items()}, sum(others, start=first))


def output_cost(problem: Problem) -> int:
    """Coefficients of a row an output, on the widest value."""
    graph = problem.graph
    return max(map(graph.size, graph.targets), default=0) * graph.width()
