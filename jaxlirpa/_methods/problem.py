"""What every method bounds: a program, and what its inputs may be."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax

from jaxlirpa._graph.graph import Graph, Ref
from jaxlirpa._graph.trace import trace
from jaxlirpa._mesh import shaped, vary, varying
from jaxlirpa._methods import signature
from jaxlirpa._methods.arguments import Arguments
from jaxlirpa._methods.exactness import Origin, origins
from jaxlirpa._methods.independence import proved_batch_axes
from jaxlirpa._ops import declared
from jaxlirpa._ops.registry import check
from jaxlirpa._ops.rules import RULES
from jaxlirpa._ops.rules.balls import is_one_ball
from jaxlirpa._types import Array, PyTree
from jaxlirpa.sets import ArraySet


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A program and the sets of its inputs.

    Attributes:
        graph: the program.
        sets: of its inputs.
        fuses: whether the affine functions that end in an output are bounded as one. That is
            worthwhile for the few outputs of a function, not for all of its inner values.
    """

    graph: Graph
    sets: Mapping[Ref, ArraySet]
    fuses: bool = True

    @functools.cached_property
    def origins(self) -> dict[Ref, Origin]:
        """Where each live value comes from, and how good its interval is."""
        return origins(self.graph, self.sets)

    def as_one_example(self) -> Problem:
        """The same program, whose rows have coefficients on all examples together."""
        return dataclasses.replace(self, graph=dataclasses.replace(self.graph, batch_axes={}))

    def returning(self, outputs: Iterable[Ref]) -> Problem:
        """The same program with other outputs."""
        return dataclasses.replace(self, graph=self.graph.returning(outputs))


class TracedFunction:
    """Some values of a program as a function of its inputs.

    This is what a transform is given as its function where it bounds intermediate values. It may be
    called, traced and handed on like any other function; jaxlirpa's own transforms do not trace it
    again.
    """

    def __init__(self, graph: Graph):
        self.graph = graph

    def __call__(self, *inputs: Array) -> tuple[Array, ...]:
        """The values at a point."""
        values = self.graph.evaluate(inputs)
        return tuple(values[x] if isinstance(x, Ref) else x for x in self.graph.outputs)


def problem_of(fn: Callable[..., PyTree], call: Arguments) -> tuple[Problem, PyTree]:
    """`fn` as a program of its perturbed leaves alone, and the shapes of its output."""

    def perturbed(*arrays: Any) -> PyTree:
        return fn(*call.fill(arrays), **call.named)

    perturbed = signature.standing_for(perturbed, fn, inspect.signature(perturbed))
    axes = frozenset().union(*map(varying, jax.tree.leaves(list(call.sets))))
    avals = [shaped(s.aval.shape, s.aval.dtype, axes) for s in call.sets]
    balls = {i: {"ball": s} for i, s in enumerate(call.sets) if is_one_ball(s)}
    vocabulary, primitives = declared.vocabulary(), declared.PRIMITIVES
    graph, shape = trace(perturbed, avals, vocabulary, RULES, primitives, balls)
    check(graph)
    sets = by_input(graph, call.sets)
    return Problem(
        dataclasses.replace(graph, batch_axes=proved_batch_axes(graph, sets)), sets
    ), shape


def by_input(graph: Graph, sets: Iterable[ArraySet]) -> dict[Ref, ArraySet]:
    """The sets by the inputs that they are of, varying as the values that are computed of them."""
    sets = list(sets)
    if graph.axes:
        sets = jax.tree.map(functools.partial(vary, axes=graph.axes), sets)
    return dict(zip(graph.inputs, sets, strict=True))
