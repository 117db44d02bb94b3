"""Ranges of a function and of its derivative over boxes, by the intervals of this package."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._domains.interval import IntervalDomain
from jaxlirpa._errors import LirpaError
from jaxlirpa._graph.graph import INPUT, Graph, Node, Ref
from jaxlirpa._graph.trace import trace
from jaxlirpa._intervals import Interval, vacuous_where_nan
from jaxlirpa._ops import declared
from jaxlirpa._ops.families import Elementwise, LoopFamily, Opaque
from jaxlirpa._ops.registry import RECORDS, check, record
from jaxlirpa._ops.rules import RULES
from jaxlirpa._relax.compiled import Compiled
from jaxlirpa._relax.convex import Convex
from jaxlirpa._relax.curved import Curve
from jaxlirpa._relax.periodic import Wave
from jaxlirpa._relax.piecewise import Clip, OneKink
from jaxlirpa._relax.power import Power
from jaxlirpa._relax.restricted import Restricted
from jaxlirpa._relax.sshaped import SShaped
from jaxlirpa._types import Array
from jaxlirpa._walk import forward

Range = Callable[[Interval], Interval]

# Relaxations of functions without jumps; of any other nothing is concluded.
_CONTINUOUS = (Clip, Convex, Curve, OneKink, Power, SShaped, Wave)


class Ranges:
    """Encloses a function of one number, and its derivative, over boxes of any shape.

    Both are traced once for each type of numbers, and compiled for each shape.
    """

    def __init__(self, f: Callable[[Array], Array]):
        self.f = f
        self._ranges = functools.cache(self._trace)

    def values(self, box: Interval) -> Interval:
        """The range of the function."""
        return self._ranges(np.dtype(box.lower.dtype))[0](box)

    def slopes(self, box: Interval) -> Interval:
        """The range of its derivative; everything where the function may jump."""
        return self._ranges(np.dtype(box.lower.dtype))[1](box)

    def _trace(self, dtype: Any) -> tuple[Range, Range]:
        """The ranges of the function and of the derivative.

        The graph is differentiated and not the function: derivative rules of the user's own, and
        `stop_gradient`, need not be the derivative, and the mean value theorem needs it.
        """
        graph = _graph(self.f, dtype)
        (output,) = graph.outputs

        def derivative(x: Array) -> Array:
            def replayed(x: Array) -> Any:
                values = graph.evaluate([x])
                return values[output] if isinstance(output, Ref) else output

            return jax.jvp(replayed, (x,), (jnp.ones_like(x),))[1]

        values = jax.jit(functools.partial(_over, graph))
        if not all(_continuous(graph.nodes[i]) for i in graph.live()):
            return values, _everything
        try:
            return values, jax.jit(functools.partial(_over, _graph(derivative, dtype)))
        except LirpaError:
            return values, _everything


def _everything(box: Interval) -> Interval:
    return Interval(jnp.full_like(box.lower, -jnp.inf), jnp.full_like(box.upper, jnp.inf))


def _graph(f: Callable[[Array], Array], dtype: Any) -> Graph:
    aval = jax.ShapeDtypeStruct((), dtype)
    graph, _ = trace(f, [aval], declared.vocabulary(), RULES, declared.PRIMITIVES)
    check(graph)
    return graph


def _over(graph: Graph, box: Interval) -> Interval:
    """The interval of the graph's value, for every entry of a box."""
    (output,) = graph.outputs
    if not isinstance(output, Ref):
        return Interval(*(jnp.broadcast_to(output, x.shape) for x in box))

    def one(lower: Array, upper: Array) -> Interval:
        states = {graph.inputs[0]: Interval(lower, upper)}
        return vacuous_where_nan(forward(graph, IntervalDomain(), states)[output])

    found = jax.vmap(one)(*(x.reshape(-1) for x in box))
    return Interval(*(x.reshape(box.lower.shape) for x in found))


def _continuous(node: Node) -> bool:
    """Whether a primitive of JAX is continuous, and what JAX says is its derivative."""
    if node.primitive == INPUT:
        return True
    if node.primitive not in RECORDS or node.primitive == "choose":
        return False
    found = record(node)
    if isinstance(found, Elementwise):
        relaxation = found.relaxation(node)
        while isinstance(relaxation, Restricted | Compiled):
            relaxation = relaxation.relaxation
        return isinstance(relaxation, _CONTINUOUS)
    return not isinstance(found, Opaque | LoopFamily)
