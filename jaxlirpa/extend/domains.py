"""Domains of the user's own, run over the graph that the transforms walk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from jaxlirpa._graph.graph import Graph, Ref
from jaxlirpa._methods.arguments import arguments
from jaxlirpa._methods.problem import problem_of
from jaxlirpa._types import PyTree
from jaxlirpa.sets import ArraySet


class Traced(NamedTuple):
    """A function as the domains see it.

    Attributes:
        graph: what is computed from the perturbed arguments: `nodes` in order, `inputs` and
            `outputs`; an output that depends on no input is an array and no `Ref`.
        sets: the set of every input.
        shape: fn's output, with a `ShapeDtypeStruct` in the place of every array.
    """

    graph: Graph
    sets: dict[Ref, ArraySet]
    shape: PyTree


def trace(fn: Callable[..., PyTree], *args: Any) -> Traced:
    """The graph of a function, ready to be walked by `extend.forward` or `extend.backward`.

    Args:
        fn: function of pytrees of arrays.
        args: its arguments, some leaves of which are sets; or none is, and `eps` comes last.

    Raises:
        UnsupportedPrimitiveError: where a perturbed value reaches a primitive that is in no
            family.
        ArgumentError, SetError, ControlFlowError, EffectError: as of the transforms.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlirpa
        >>> from jaxlirpa import extend
        >>> graph, sets, _ = extend.trace(lambda x: jnp.tanh(2 * x), jaxlirpa.Box(-1.0, 1.0))
        >>> [node.primitive for node in graph.nodes]
        ['input', 'mul', 'tanh']
        >>> [type(extend.record(node)).__name__ for node in graph.nodes[1:]]
        ['Bilinear', 'Elementwise']
    """
    call = arguments(fn, args, None)
    problem, shape = problem_of(fn, call)
    return Traced(problem.graph, dict(problem.sets), shape)
