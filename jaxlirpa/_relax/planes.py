"""Two planes that enclose a function of several entries on a box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax.numpy as jnp

from jaxlirpa._typing import Array, Interval, vacuous_where_nan


class Plane(NamedTuple):
    """`sum_k slopes[k] * x[k] + offset`, entry by entry.

    Where a function reduces axes of its operands, the products are summed over these axes.

    Attributes:
        slopes: one array for every operand, of the operand's shape; None for zero.
        offset: of the output's shape.
    """

    slopes: tuple[Array | None, ...]
    offset: Array


class Planes(NamedTuple):
    """A plane below a function on a box, and one above it."""

    lower: Plane
    upper: Plane


class JointRelaxation(Protocol):
    """What a domain must know of a function of several entries."""

    def image(self, boxes: Sequence[Interval]) -> Interval:
        """The range of the function over the boxes of its operands."""

    def planes(self, boxes: Sequence[Interval]) -> Planes:
        """Two planes that enclose the function on finite boxes."""


def constant(image: Interval, operands: int) -> Planes:
    """Horizontal planes."""
    image = vacuous_where_nan(image)
    nothing = (None,) * operands
    return Planes(Plane(nothing, image.lower), Plane(nothing, image.upper))


def relax_jointly(
    relaxation: JointRelaxation, boxes: Sequence[Interval], axes: tuple[int, ...]
) -> Planes:
    """The relaxation's planes, or horizontal ones where a box or what came out is not finite."""
    image = vacuous_where_nan(relaxation.image(boxes))
    bounded = [jnp.isfinite(b.lower) & jnp.isfinite(b.upper) for b in boxes]
    pairs = zip(bounded, boxes, strict=True)
    planes = relaxation.planes([Interval(*(_where(ok, x) for x in box)) for ok, box in pairs])
    ok = jnp.isfinite(planes.lower.offset) & jnp.isfinite(planes.upper.offset)
    slopes = [x for plane in planes for x in plane.slopes if x is not None]
    for each in [*bounded, *map(jnp.isfinite, slopes)]:
        ok = ok & jnp.all(each, axes)

    def guarded(plane: Plane, otherwise: Array) -> Plane:
        spread = jnp.expand_dims(ok, axes)
        slopes = tuple(None if x is None else _where(spread, x) for x in plane.slopes)
        return Plane(slopes, jnp.where(ok, plane.offset, otherwise))

    return Planes(guarded(planes.lower, image.lower), guarded(planes.upper, image.upper))


def _where(condition: Array, x: Array) -> Array:
    return jnp.where(condition, x, jnp.zeros_like(x))


def around(planes: Planes, xs: Sequence[Array], y: Array, axes: tuple[int, ...]) -> Planes:
    """Planes around `f` as functions of the deviations from `xs`, with values `f - y`."""

    def moved(plane: Plane) -> Plane:
        offset = plane.offset
        for slope, x in zip(plane.slopes, xs, strict=True):
            if slope is not None:
                offset = offset + jnp.sum(slope * x, axes)
        return plane._replace(offset=offset - y)

    return Planes(moved(planes.lower), moved(planes.upper))
