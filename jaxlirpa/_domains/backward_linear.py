"""Backward linear functionals: CROWN (Zhang et al. 2018).

A functional encloses some rows of numbers between two affine functions of one value `v`:

    lower.coefficients . v + lower.offset  <=  rows  <=  upper.coefficients . v + upper.offset

Going backwards, `v` is replaced by the operands of the node that computed it. An affine node is
replaced exactly, by JAX's own transpose of it. A nonlinear one is replaced, on the lower side, by
the line below it where its coefficient is positive and by the line above it where it is negative
(and the other way round on the upper side), so a replacement only ever moves the sides outwards.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._graph.graph import Graph, Node, Ref
from jaxlirpa._ops.families import Bilinear, Elementwise
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import Lines
from jaxlirpa._typing import Array


class Side(NamedTuple):
    """Affine rows: coefficients `[rows, *shape]` and offset `[rows]`."""

    coefficients: Array
    offset: Array


class Functional(NamedTuple):
    """The two sides; one object twice where they are equal, which halves the work."""

    lower: Side
    upper: Side


@dataclasses.dataclass(frozen=True)
class BackwardLinear:
    """The backward domain of linear functionals.

    Attributes:
        graph: for the shapes of operands.
        lines: the relaxation of a nonlinear node, by index.
    """

    graph: Graph
    lines: Callable[[int], Lines]

    def add(self, a: Functional, b: Functional) -> Functional:
        """The sum of two functionals of one value."""
        lower = Side(*map(jnp.add, a.lower, b.lower))
        shared = a.lower is a.upper and b.lower is b.upper
        return Functional(lower, lower if shared else Side(*map(jnp.add, a.upper, b.upper)))

    def pull(
        self, index: int, node: Node, outputs: tuple[Functional | None, ...]
    ) -> tuple[Functional, ...]:
        """Functionals of a node's outputs as functionals of its perturbed operands."""
        if isinstance(record(node), Elementwise):
            (functional,) = outputs
            assert functional is not None
            return (_replace(functional, self.lines(index)),)
        lower = self._transpose(node, [f and f.lower for f in outputs])
        if all(f is None or f.lower is f.upper for f in outputs):
            return tuple(Functional(side, side) for side in lower)
        upper = self._transpose(node, [f and f.upper for f in outputs])
        return tuple(map(Functional, lower, upper))

    def _transpose(self, node: Node, outputs: list[Side | None]) -> list[Side]:
        """One side through an affine node; the constant goes to the first operand's offset."""
        rows = next(len(side.offset) for side in outputs if side is not None)
        cotangents = tuple(
            jnp.zeros((rows, *aval.shape), aval.dtype) if side is None else side.coefficients
            for side, aval in zip(outputs, node.outputs, strict=True)
        )
        avals = [self.graph.aval(ref) for ref in node.perturbed]
        transpose = jax.linear_transpose(node, *avals)
        coefficients = jax.vmap(transpose)(cotangents)
        offset = functools.reduce(jnp.add, [side.offset for side in outputs if side is not None])
        if _has_constant(node):
            constants = node(*(jnp.zeros(a.shape, a.dtype) for a in avals))
            offset = functools.reduce(jnp.add, map(_inner, cotangents, constants), offset)
        offsets = [offset] + [jnp.zeros_like(offset)] * (len(avals) - 1)
        return list(map(Side, coefficients, offsets))


def identity(graph: Graph, target: Ref) -> Functional:
    """The functional that is the value itself, one row an entry."""
    aval = graph.aval(target)
    size = int(np.prod(aval.shape))
    eye = jnp.eye(size, dtype=aval.dtype).reshape(size, *aval.shape)
    side = Side(eye, jnp.zeros(size, aval.dtype))
    return Functional(side, side)


def _replace(functional: Functional, lines: Lines) -> Functional:
    """A functional of `f(x)` as one of `x`, by the lines around `f`."""
    below, above = lines[:2], lines[2:]
    return Functional(
        _substitute(functional.lower, positive=below, negative=above),
        _substitute(functional.upper, positive=above, negative=below),
    )


def _substitute(side: Side, positive: tuple[Array, ...], negative: tuple[Array, ...]) -> Side:
    """Puts one line where the coefficient is positive and another where it is negative.

    Works on flattened entries: selecting on arrays of high rank is several times slower.
    """
    shape = side.coefficients.shape
    rows = side.coefficients.reshape(shape[0], -1)
    up, down = jnp.maximum(rows, 0), jnp.minimum(rows, 0)
    (slope, offset), (slope_, offset_) = (
        [jnp.broadcast_to(x, shape[1:]).reshape(-1) for x in line] for line in (positive, negative)
    )
    return Side(
        (up * slope + down * slope_).reshape(shape),
        side.offset + jnp.sum(up * offset + down * offset_, axis=1),
    )


def _has_constant(node: Node) -> bool:
    """Whether an affine node may be nonzero at zero. Products are not."""
    return not isinstance(record(node), Bilinear) and any(
        not (isinstance(x, np.ndarray) and x.ndim == 0 and x == 0) for x in node.known
    )


def _inner(rows: Array, value: Array) -> Array:
    """The inner product of every row with a value."""
    return jnp.sum(rows.reshape(rows.shape[0], -1) * value.reshape(-1), axis=1)
