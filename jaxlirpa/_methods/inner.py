"""The boxes inside a graph on which nonlinear functions are relaxed, from where a strategy says."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

from jaxlirpa._domains.interval import IntervalDomain
from jaxlirpa._graph.graph import Graph, Ref
from jaxlirpa._methods.ibp import from_balls, ibp
from jaxlirpa._methods.layers import Bound, Layers, plain
from jaxlirpa._methods.relaxed import Relaxed, nonlinear
from jaxlirpa._typing import Interval, intersect, is_floating, vacuous_where_nan
from jaxlirpa._walk import forward
from jaxlirpa.sets import ArraySet

Transform: TypeAlias = Callable[..., Callable[..., Any]]


class Inner(NamedTuple):
    """What is known inside a graph.

    Attributes:
        boxes: of all live values, by intervals from the others.
        tight: of the operands of nonlinear functions, and of what else was asked for.
        relaxed: the graph with its nonlinear nodes relaxed on those.
    """

    boxes: dict[Ref, Interval]
    tight: dict[Ref, Interval]
    relaxed: Relaxed


def bound_inside(
    graph: Graph,
    sets: Mapping[Ref, ArraySet],
    *,
    intermediate: Transform | None,
    given: Mapping[Ref, Interval],
    rows_per_chunk: int | None,
    bound_layer: Bound = plain,
    wanted: Iterable[Ref] = (),
) -> Inner:
    """Boxes of the values inside a graph.

    Args:
        graph: the program.
        sets: of its inputs.
        intermediate: a transform that bounds the operands of nonlinear functions, all at once;
            None: each by a backward pass, as CROWN does.
        given: boxes that are taken at their word instead.
        rows_per_chunk: see `jaxlirpa.crown`.
        bound_layer: bounds one value; default: a backward pass by the default relaxations.
        wanted: live values that are bounded like those operands.
    """
    boxes: dict[Ref, Interval] = {ref: s.hull() for ref, s in sets.items()}
    tight: dict[Ref, Interval] = {}
    relaxed = Relaxed(graph, sets, ChainMap(tight, boxes))

    def tighten(ref: Ref, box: Interval) -> Interval:
        if ref not in tight:
            tight[ref] = _improved(box, found(ref, box)) if is_floating(graph.aval(ref)) else box
        return tight[ref]

    def found(ref: Ref, box: Interval) -> Interval:
        return given[ref] if ref in given else bound(ref, box)

    def recall(ref: Ref, box: Interval) -> Interval:
        return tighten(ref, box) if ref in given else tight.get(ref, box)

    if intermediate is None:
        layers = Layers(relaxed, lambda ref: tighten(ref, boxes[ref]), bound_layer, rows_per_chunk)
        bound: Callable[[Ref, Interval], Interval] = layers.bound
    elif intermediate is ibp:  # Its boxes are those of the walk below.
        bound = from_balls(graph, sets, boxes)
    else:
        bound = _by_transform(graph, sets, intermediate, wanted)
    forward(graph, IntervalDomain(tighten, recall), boxes)
    for ref in wanted:
        tighten(ref, boxes[ref])
    return Inner(boxes, tight, relaxed)


def _improved(box: Interval, found: Interval) -> Interval:
    """A box inside another one, which says nothing where it could not be computed."""
    return intersect(box, vacuous_where_nan(found))


def _by_transform(
    graph: Graph, sets: Mapping[Ref, ArraySet], intermediate: Transform, wanted: Iterable[Ref]
) -> Callable[[Ref, Interval], Interval]:
    """Bounds all intermediate values at once, as the outputs of one function."""
    nodes = (graph.nodes[i] for i in nonlinear(graph))
    operands = tuple(dict.fromkeys([*(r for node in nodes for r in node.perturbed), *wanted]))
    operands = tuple(ref for ref in operands if is_floating(graph.aval(ref)))
    lower, upper = intermediate(graph.returning(operands))(*sets.values())
    boxes = dict(zip(operands, map(Interval, lower, upper), strict=True))
    return lambda ref, box: boxes[ref]
