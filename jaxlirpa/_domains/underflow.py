"""What numbers that are computed as zero, as they are below the normal ones, take from functionals.

XLA computes a number below the smallest normal one, `tiny`, as zero. A coefficient that is lost so
is small, but what it multiplies need not be: `1 / exp(x)` falls as `exp(-2 a)` times the deviation
of `exp(x)`, which may be `exp(a)`. In a functional of deviations from values inside of boxes, each
product or sum that is lost is off by less than `tiny`, and so the functional by less than `tiny`
times the width of the box of what it multiplies (Hölder's inequality, entry by entry). All of it
together is one number for all rows: it depends on the boxes alone. As long as nothing multiplies,
coefficients are whole numbers, and none is lost. Where boxes are narrow nothing is counted: a few
`tiny` are lost wherever numbers are computed, and rounding is not modelled.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._graph.graph import Graph, Ref
from jaxlirpa._ops.families import (
    Affine,
    Bilinear,
    Elementwise,
    Joint,
    Move,
    Nonlinear,
    Opaque,
    Repeated,
)
from jaxlirpa._ops.registry import record
from jaxlirpa._typing import Array, Interval, is_finite, is_floating, traced_once


class Underflow:
    """What functionals through the nodes of a graph may be off by, computed once where it is asked.

    Attributes:
        graph: the program.
        boxes: of its values, in which their references are; may still grow, but must not change.
    """

    def __init__(self, graph: Graph, boxes: Mapping[Ref, Interval]):
        self.graph, self.boxes = graph, boxes
        self._lost, self._steps = functools.cache(self._at), functools.cache(self._count)
        self._uses = graph.uses()
        self._totals: dict[frozenset[int], Array] = {}

    def behind(self, target: Ref, known: Collection[Ref], whole: bool = True) -> Array:
        """How far functionals that start at a value may be off as some of known values.

        Args:
            target: the value.
            known: values at which functionals end.
            whole: whether their coefficients on the target are whole numbers.

        Returns:
            A number, or one of each example if the target has an axis of such.
        """
        passed: set[int] = set()
        multiplied = set() if whole else {target.node}
        for index in reversed(self.graph.returning((target,)).live(known)):
            node = self.graph.nodes[index]
            if index in multiplied or isinstance(record(node), Nonlinear | Bilinear):
                passed.add(index)
                multiplied.update(ref.node for ref in node.perturbed)
        total = self._total(frozenset(i for i in passed if any(self._steps(i))))
        total = total if target in self.graph.examples else jnp.sum(total)
        return total.astype(self.graph.aval(target).dtype)

    def _total(self, passed: frozenset[int]) -> Array:
        """What may be lost at some nodes, from what may be at most of them."""
        if passed not in self._totals:
            known = (some for some in self._totals if some <= passed)
            most = max(known, key=len, default=frozenset())
            others = map(self._lost, sorted(passed - most))
            start = self._totals[most] if most else jnp.zeros((), self._dtype)
            self._totals[passed] = functools.reduce(jnp.add, others, start)
        return self._totals[passed]

    def _at(self, index: int) -> Array:
        """What may be lost where a functional is pulled through a node."""
        node = self.graph.nodes[index]
        dtypes = [aval.dtype for aval in node.outputs if is_floating(aval)]
        total = jnp.zeros((), self._dtype)
        for ref, steps in zip(node.perturbed, self._steps(index), strict=True):
            if steps:
                box = self.boxes[ref]
                if isinstance(record(node), Elementwise | Joint):  # Elsewhere lines are constant.
                    finite = is_finite(box)
                    box = Interval(*(jnp.where(finite, limit, 0) for limit in box))
                entries = missed(box, tuple(dtypes))
                axis = self.graph.examples.get(ref)
                own = jnp.sum(entries, tuple(i for i in range(entries.ndim) if i != axis))
                total += steps * own.astype(self._dtype)
        return total

    def _count(self, index: int) -> list[int]:
        """By how many products and sums a coefficient on each operand is computed, at most."""
        graph, node = self.graph, self.graph.nodes[index]
        found = record(node)
        sizes = [graph.size(Ref(index, k)) for k in range(len(node.outputs))]
        shapes = [graph.aval(ref).shape for ref in node.perturbed]

        def steps(ref: Ref) -> int:
            match found:
                case Opaque() | Repeated():
                    return 0
                case Move(repeats=True) | Affine(mixes=True):
                    own = sum(sizes)
                case Bilinear(mixes=True):
                    own = 2 * sum(sizes)
                case Joint():
                    every = math.prod(np.broadcast_shapes(*shapes)) * len(sizes)
                    own = 2 * -(-every // max(1, math.prod(graph.aval(ref).shape)))
                case Elementwise() | Bilinear():
                    own = 1
                case _:
                    own = 0
            return own + (self._uses[ref] > 1)

        return [steps(ref) if is_floating(graph.aval(ref)) else 0 for ref in node.perturbed]

    @functools.cached_property
    def _dtype(self) -> Any:
        """The longest format of the graph."""
        avals = (aval for node in self.graph.nodes for aval in node.outputs)
        return max((x.dtype for x in avals if is_floating(x)), key=lambda x: x.itemsize)


@traced_once("dtypes")
def missed(box: Interval, dtypes: tuple[Any, ...] = ()) -> Array:
    """`tiny` times the widths of a box's entries, or zero where they are less than 4 wide.

    Args:
        box: a value's.
        dtypes: the formats of what is multiplied, beside the value's.
    """
    lower, upper = jax.lax.stop_gradient(box)
    tiny = max(float(jnp.finfo(dtype).tiny) for dtype in (*dtypes, lower.dtype))
    radius = 0.5 * upper - 0.5 * lower
    # Of two equal infinities the difference is no number.
    return jnp.where((lower == upper) | (radius < 2), 0, 2 * tiny * radius)
