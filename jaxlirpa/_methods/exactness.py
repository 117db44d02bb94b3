"""Which interval bounds are exact, so that no other method can better them.

A static analysis of the graph. A value's box is exact *relative to its sources*, the inputs and
the nonlinear nodes that its affine part reads, if every entry attains its limits while the sources
range over their boxes. It is independent if, beyond that, the entries attain them independently of
each other, so that the box is the very set of its values.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from jaxlirpa._graph.graph import Graph, Node, Ref
from jaxlirpa._ops.families import Move, Nonlinear, is_exact
from jaxlirpa._ops.registry import record
from jaxlirpa._walk import forward
from jaxlirpa.sets import ArraySet


class Quality(enum.IntEnum):
    """How good the box of a value is."""

    LOOSE = 0
    EXACT = 1
    INDEPENDENT = 2


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where a value comes from.

    Attributes:
        sources: the inputs and nonlinear nodes that its affine part reads.
        quality: of its box, relative to those sources.
    """

    sources: frozenset[Ref]
    quality: Quality


class _Exactness:
    """The forward domain of origins."""

    def step(self, index: int, node: Node, operands: tuple[Origin, ...]) -> tuple[Origin, ...]:
        refs = tuple(Ref(index, k) for k in range(len(node.outputs)))
        found = record(node)
        if is_exact(node):
            return (Origin(operands[0].sources, Quality.EXACT),)
        if isinstance(found, Nonlinear):
            return tuple(Origin(frozenset({r}), Quality.INDEPENDENT) for r in refs)
        sources = frozenset().union(*(o.sources for o in operands))
        quality = min(o.quality for o in operands)
        disjoint = sum(len(o.sources) for o in operands) == len(sources)
        if isinstance(found, Move):
            if found.repeats or not disjoint:
                quality = min(quality, Quality.EXACT)
        elif found.mixes:
            independent = disjoint and quality is Quality.INDEPENDENT
            quality = Quality.EXACT if independent else Quality.LOOSE
        elif not disjoint:
            quality = Quality.LOOSE
        return tuple(Origin(sources, quality) for _ in refs)


def origins(graph: Graph, sets: Mapping[Ref, ArraySet]) -> dict[Ref, Origin]:
    """The origin of every live value."""
    inputs = {
        ref: Origin(frozenset({ref}), Quality.INDEPENDENT if s.is_box else Quality.EXACT)
        for ref, s in sets.items()
    }
    return forward(graph, _Exactness(), inputs)
