"""What a method finds out about one output of a graph."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

from jaxlirpa._domains.backward_linear import BackwardLinear, Functional
from jaxlirpa._domains.rows import Side, arranged
from jaxlirpa._graph.graph import Graph, Ref
from jaxlirpa._typing import Array, Interval, vacuous_where_overflown
from jaxlirpa._walk import backward
from jaxlirpa.sets import ArraySet
from jaxlirpa.sets.examples import extrema_by_example


class AffineRows(NamedTuple):
    """Affine functions of the inputs, written around the points of their sets.

    Attributes:
        coefficients: `[rows, *input.shape]` for every input that matters.
        offset: `[rows]`, or `[rows, examples]` where a row holds a function of each example: the
            value where every input is its set's `point()`.
    """

    coefficients: dict[Ref, Array]
    offset: Array


class Solution(NamedTuple):
    """A box of one output and, where the method has them, its linear bounds."""

    box: Interval
    lower: AffineRows | None = None
    upper: AffineRows | None = None


def only_box(box: Interval) -> Solution:
    """A solution whose linear bounds are constant."""
    lower, upper = (AffineRows({}, limit.reshape(-1)) for limit in box)
    return Solution(box, lower, upper)


Method: TypeAlias = Callable[[Graph, Mapping[Ref, ArraySet]], list[Solution]]


def enclose(
    graph: Graph,
    sets: Mapping[Ref, ArraySet],
    domain: BackwardLinear,
    target: Ref,
    rows: Array | None = None,
) -> Solution:
    """Linear bounds of one value in terms of others, and their extrema over the others' sets.

    Args:
        graph: the program.
        sets: what is known of the values at which to stop; must contain the inputs.
        domain: relaxes the nonlinear nodes in between.
        target: the value.
        rows: the numbers of the entries that are bounded, shaped as the box will be; None for all
            of them. See `BackwardLinear.start`.
    """
    value, functional = domain.start(target, rows)
    lost = domain.lost(target, sets.keys(), value, functional)
    found = enclose_functional(graph, sets, domain, value, functional, lost)
    aval = graph.aval(target)
    limits = list(found.box)
    if rows is None:
        axis = graph.examples.get(target)
        limits = [arranged(limit, aval.shape, axis) for limit in limits]
    # A value of a shorter format than the inputs' has limits of that format: rounding keeps order.
    box = Interval(*(limit.astype(aval.dtype) for limit in limits))
    return found._replace(box=vacuous_where_overflown(box))


def enclose_functional(
    graph: Graph,
    sets: Mapping[Ref, ArraySet],
    domain: BackwardLinear,
    value: Ref,
    functional: Functional,
    lost: Array,
) -> Solution:
    """As `enclose`, of the rows of a functional of a value; the box is shaped as its offsets.

    Args:
        graph, sets, domain: as of `enclose`.
        value: what the rows are functions of.
        functional: the rows.
        lost: what numbers below the normal ones may take from them on their way.
    """
    reached = backward(graph, domain, value, functional, sets.__contains__)
    lower = _rows({ref: f.lower for ref, f in reached.items()})
    shared = all(f.lower is f.upper for f in reached.values())
    upper = lower if shared else _rows({ref: f.upper for ref, f in reached.items()})
    lower = lower._replace(offset=lower.offset - lost)
    upper = upper._replace(offset=upper.offset + lost)
    extrema = functools.partial(_extrema, graph, sets, domain.reference)
    return Solution(Interval(extrema(lower).lower, extrema(upper).upper), lower, upper)


def _extrema(
    graph: Graph,
    sets: Mapping[Ref, ArraySet],
    reference: Mapping[Ref, Array],
    rows: AffineRows,
) -> Interval:
    """Minimum and maximum of affine functions over sets that vary independently."""
    lower = upper = rows.offset
    for ref, coefficients in rows.coefficients.items():
        if rows.offset.ndim == 1:
            part = sets[ref].extrema(coefficients, reference[ref])
        else:
            axis = graph.examples[ref]
            part = extrema_by_example(sets[ref], coefficients, reference[ref], axis)
        lower, upper = lower + part.lower, upper + part.upper
    return Interval(lower, upper)


def _rows(sides: dict[Ref, Side]) -> AffineRows:
    first, *others = (side.offset for side in sides.values())
    return AffineRows({r: s.coefficients for r, s in sides.items()}, sum(others, start=first))


def reference(graph: Graph, sets: Mapping[Ref, ArraySet]) -> dict[Ref, Array]:
    """The value of every node at a point of the sets."""
    return graph.evaluate([s.point() for s in sets.values()])


def output_cost(graph: Graph, sets: Mapping[Ref, ArraySet]) -> int:
    """Coefficients of a row an output, on the widest value."""
    del sets
    return max(map(graph.size, graph.targets), default=0) * graph.width()
