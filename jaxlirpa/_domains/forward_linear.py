"""Forward linear forms: every value between two affine functions of the perturbed inputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlirpa._domains.interval import IntervalDomain
from jaxlirpa._domains.ordered import image
from jaxlirpa._domains.rows import Side
from jaxlirpa._graph.graph import Node, Ref
from jaxlirpa._ops.families import Elementwise
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import Lines, relax
from jaxlirpa._typing import Array, Interval, inner, intersect, matrix, vacuous_where_overflown
from jaxlirpa.sets import ArraySet


class Form(NamedTuple):
    """An affine function of the inputs, entry by entry of a value, around the sets' points.

    Attributes:
        coefficients: for each input of `n` entries, `[n, *shape]`.
        offset: `[*shape]`, the value where every input is its set's `point()`.
    """

    coefficients: tuple[Array, ...]
    offset: Array


class Enclosure(NamedTuple):
    """A value between two forms (one object twice where they are equal), and in a box."""

    lower: Form
    upper: Form
    box: Interval


@dataclasses.dataclass(frozen=True)
class ForwardLinear:
    """The forward domain of linear forms over given sets."""

    sets: Mapping[Ref, ArraySet]

    def inputs(self) -> dict[Ref, Enclosure]:
        """Each input as a form of itself."""
        states = {}
        for ref, own in self.sets.items():
            shape, dtype = own.aval.shape, own.aval.dtype
            coefficients = tuple(
                jnp.eye(n, dtype=dtype).reshape(n, *shape)
                if s is own
                else jnp.zeros((n, *shape), dtype)
                for s in self.sets.values()
                for n in [math.prod(s.aval.shape)]
            )
            form = Form(coefficients, own.point())
            states[ref] = Enclosure(form, form, own.hull())
        return states

    def step(
        self, index: int, node: Node, operands: tuple[Enclosure, ...]
    ) -> tuple[Enclosure, ...]:
        """Forms and boxes of a node's outputs."""
        found = record(node)
        if isinstance(found, Elementwise):
            (operand,) = operands
            box = self.box(operand)
            relaxation = (found.beside_box or found.relaxation)(node)
            lower, upper = _between(operand, relax(relaxation, box))
            return (Enclosure(lower, upper, relaxation.image(box)),)
        boxes = IntervalDomain().step(index, node, tuple(e.box for e in operands))
        forms = image(node, found, [(e.lower, e.upper) for e in operands], _act)
        return tuple(Enclosure(*pair, box) for pair, box in zip(forms, boxes, strict=True))

    def box(self, value: Enclosure) -> Interval:
        """The box of a value: from its forms over the sets, and from its own box."""
        lower, upper = self.extrema(value.lower), self.extrema(value.upper)
        box = vacuous_where_overflown(Interval(lower.lower, upper.upper))
        return intersect(box, value.box)

    def extrema(self, form: Form) -> Interval:
        """Minimum and maximum of a form over the sets."""
        shape = form.offset.shape
        lower = upper = form.offset.reshape(-1)
        for s, coefficients in zip(self.sets.values(), form.coefficients, strict=True):
            rows = matrix(coefficients).T
            part = s.extrema(rows.reshape(len(rows), *s.aval.shape), s.point())
            lower, upper = lower + part.lower, upper + part.upper
        return Interval(lower.reshape(shape), upper.reshape(shape))


def _between(value: Enclosure, lines: Lines) -> tuple[Form, Form]:
    """Lines applied to forms: a line of negative slope turns the two around."""

    def compose(slope: Array, offset: Array, rising: Form, falling: Form) -> Form:
        def mix(a: Array, b: Array) -> Array:
            return jnp.maximum(slope, 0) * a + jnp.minimum(slope, 0) * b

        coefficients = tuple(map(jax.vmap(mix), rising.coefficients, falling.coefficients))
        return Form(coefficients, mix(rising.offset, falling.offset) + offset)

    lower = compose(lines.lower_slope, lines.lower_offset, value.lower, value.upper)
    return lower, compose(lines.upper_slope, lines.upper_offset, value.upper, value.lower)


def compose(
    rows: Side, reference: Array, value: Enclosure, shape: tuple[int, ...]
) -> tuple[Form, Form]:
    """Affine rows of a value, between two forms: where a coefficient is negative, the upper form
    of the value bounds from below.

    Args:
        rows: of the value's deviation from `reference`.
        reference: shaped like the value.
        value: what is known of it.
        shape: of the result, one entry a row.
    """
    flat = matrix(rows.coefficients)
    up, down = jnp.maximum(flat, 0), jnp.minimum(flat, 0)

    def side(rising: Form, falling: Form) -> Form:
        def mix(a: Array, b: Array) -> Array:
            return (inner(up, a) + inner(down, b)).reshape(shape)

        coefficients = tuple(map(jax.vmap(mix), rising.coefficients, falling.coefficients))
        offset = mix(rising.offset - reference, falling.offset - reference)
        return Form(coefficients, offset + rows.offset.reshape(shape))

    return side(value.lower, value.upper), side(value.upper, value.lower)


def add(a: Form, b: Form) -> Form:
    """The sum of two forms."""
    return Form(tuple(map(jnp.add, a.coefficients, b.coefficients)), a.offset + b.offset)


def _act(node: Node, forms: Sequence[Form]) -> list[Form]:
    """An affine node on forms: its linear part on the coefficients, all of it on the offset.

    The linear part is the forward derivative, which for an affine function is the same at every
    point.
    """

    def linear(*values: Array) -> tuple[Array, ...]:
        return jax.jvp(node, tuple(map(jnp.zeros_like, values)), values)[1]

    parts = [jax.vmap(linear)(*c) for c in zip(*(f.coefficients for f in forms), strict=True)]
    offsets = node(*(f.offset for f in forms))
    return [Form(tuple(p[k] for p in parts), offset) for k, offset in enumerate(offsets)]
