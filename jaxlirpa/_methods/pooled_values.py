"""Which values max pooling reads and returns, of those that it is bounded by.

Max pooling is bounded as the largest of slices of its operand, see `_ops/rules/pooling.py`. To a
user, the slices say nothing that the operand does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from jaxlirpa._domains.interval import IntervalDomain
from jaxlirpa._graph.graph import INPUT, Graph, Ref
from jaxlirpa._intervals import Interval
from jaxlirpa._ops.families import Move
from jaxlirpa._ops.registry import record


class PooledValues(NamedTuple):
    """The values around the max poolings of a graph.

    Attributes:
        ends: what they pool, and what they return, but for inputs.
        slices: what moves entries from the one to the other, and is read by nothing else.
    """

    ends: frozenset[Ref]
    slices: frozenset[Ref]


def pooled_values(graph: Graph) -> PooledValues:
    """The values around max poolings; outputs and marked values are no slices."""
    elsewhere = {*graph.targets, *graph.names.marked.values()}
    results: set[Ref] = set()
    pooled: set[Ref] = set()
    slices: set[Ref] = set()
    for index in reversed(graph.live()):
        node = graph.nodes[index]
        refs = {Ref(index, k) for k in range(len(node.outputs))}
        if node.primitive == "largest":
            results |= refs
            pooled.update(node.perturbed)
        elif node.primitive != INPUT and refs <= pooled - elsewhere and _moves(graph, index):
            slices |= refs
            pooled.update(node.perturbed)
        else:
            elsewhere.update(node.perturbed)
    ends = results | {r for r in pooled - slices if graph.nodes[r.node].primitive != INPUT}
    return PooledValues(frozenset(ends), frozenset(slices))


def with_slices(graph: Graph, known: Mapping[Ref, Interval]) -> dict[Ref, Interval]:
    """Known boxes, and those of the slices of what is known: a slice has no better one."""
    boxes = dict(known)
    for ref in sorted(pooled_values(graph).slices - boxes.keys()):
        node = graph.nodes[ref.node]
        if boxes.keys() >= {*node.perturbed}:
            operands = tuple(boxes[operand] for operand in node.perturbed)
            boxes[ref] = IntervalDomain().step(ref.node, node, operands)[ref.output]
    return boxes


def _moves(graph: Graph, index: int) -> bool:
    return isinstance(record(graph.nodes[index]), Move)
