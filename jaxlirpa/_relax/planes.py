"""Two planes that enclose a function of several entries on a box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax.numpy as jnp

from jaxlirpa._arrays import summed_product, where
from jaxlirpa._intervals import Interval, is_finite, vacuous_where_nan
from jaxlirpa._relax.relaxations import Relaxations, mix, single
from jaxlirpa._types import Array


class Plane(NamedTuple):
    """`sum_k slopes[k] * x[k] + offset`, entry by entry.

    Where a function reduces axes of its operands, the products are summed over these axes. Operands
    may repeat each other's entries along axes of length one, as NumPy's do; so may slopes.

    Attributes:
        slopes: one array for every operand, that broadcasts with it; None for zero.
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


class AdjustableJointly:
    """A relaxation with freedom; a class of its own defines `family`."""

    def family(self, boxes: Sequence[Interval]) -> Relaxations[Planes]:
        """The planes that enclose the function on finite boxes."""
        raise NotImplementedError

    def planes(self, boxes: Sequence[Interval]) -> Planes:
        """The family's default."""
        return self.family(boxes).default


def family(relaxation: JointRelaxation, boxes: Sequence[Interval]) -> Relaxations[Planes]:
    """A relaxation's family of planes, of a single member where it has no freedom."""
    if isinstance(relaxation, AdjustableJointly):
        return relaxation.family(boxes)
    return single(relaxation.planes(boxes))


def mean(alpha: Array, first: Plane, second: Plane, axes: tuple[int, ...]) -> Plane:
    """`first` at 0, `second` at 1, and a mean of the two in between, entry by entry.

    Args:
        alpha: of the output's shape.
        first, second: both below, or both above, one function.
        axes: of the operands, which the output lacks.
    """
    spread = jnp.expand_dims(alpha, axes)

    def slope(a: Array | None, b: Array | None) -> Array | None:
        if a is None and b is None:
            return None
        zero = jnp.zeros_like(spread)
        return mix(spread, zero if a is None else a, zero if b is None else b)

    slopes = tuple(map(slope, first.slopes, second.slopes))
    return Plane(slopes, mix(alpha, first.offset, second.offset))


def constant(image: Interval, operands: int) -> Planes:
    """Horizontal planes."""
    image = vacuous_where_nan(image)
    nothing = (None,) * operands
    return Planes(Plane(nothing, image.lower), Plane(nothing, image.upper))


def relax_jointly(
    relaxation: JointRelaxation, boxes: Sequence[Interval], axes: tuple[int, ...]
) -> Planes:
    """The relaxation's planes, or horizontal ones where a box or what came out is not finite."""
    return relax_family_jointly(relaxation, boxes, axes).default


def relax_family_jointly(
    relaxation: JointRelaxation, boxes: Sequence[Interval], axes: tuple[int, ...]
) -> Relaxations[Planes]:
    """As `relax_jointly`, all members of the relaxation's family."""
    image = vacuous_where_nan(relaxation.image(boxes))
    bounded = list(map(is_finite, boxes))
    pairs = zip(bounded, boxes, strict=True)
    finite = [Interval(*(_where(ok, x) for x in box)) for ok, box in pairs]
    return family(relaxation, finite).map(lambda planes: _guarded(planes, bounded, image, axes))


def _guarded(
    planes: Planes, bounded: Sequence[Array], image: Interval, axes: tuple[int, ...]
) -> Planes:
    """The planes, or horizontal ones where a box is not bounded or they are not finite."""
    ok = jnp.isfinite(planes.lower.offset) & jnp.isfinite(planes.upper.offset)
    slopes = [x for plane in planes for x in plane.slopes if x is not None]
    for each in [*bounded, *map(jnp.isfinite, slopes)]:
        ok = ok & jnp.all(each, axes)

    spread = jnp.expand_dims(ok, axes)
    if any(x.ndim and _repeats(x, spread) for x in slopes):  # of several entries: no plane is left
        nothing = Interval(*(jnp.full_like(ok, x, image.lower.dtype) for x in (-jnp.inf, jnp.inf)))
        finite = [
            tuple(x if x is None else _where(jnp.isfinite(x), x) for x in plane.slopes)
            for plane in planes
        ]
        return Planes(
            *(
                Plane(slopes, where(ok, plane.offset, limit))
                for slopes, plane, limit in zip(finite, planes, nothing, strict=True)
            )
        )

    def guarded(plane: Plane, otherwise: Array) -> Plane:
        slopes = tuple(None if x is None else _where(spread, x) for x in plane.slopes)
        return Plane(slopes, where(ok, plane.offset, otherwise))

    return Planes(guarded(planes.lower, image.lower), guarded(planes.upper, image.upper))


def _repeats(slope: Array, spread: Array) -> bool:
    """Whether a slope is that of several entries of the output."""
    return any(n == 1 != m for n, m in zip(slope.shape, spread.shape, strict=True))


def _where(condition: Array, x: Array) -> Array:
    return where(condition, x, jnp.zeros_like(x))


def around(planes: Planes, xs: Sequence[Array], y: Array, axes: tuple[int, ...]) -> Planes:
    """Planes around `f` as functions of the deviations from `xs`, with values `f - y`."""

    def moved(plane: Plane) -> Plane:
        offset, shape = plane.offset, jnp.expand_dims(plane.offset, axes).shape
        for slope, x in zip(plane.slopes, xs, strict=True):
            if slope is not None:
                offset = offset + jnp.squeeze(summed_product(slope, x, shape), axes)
        return plane._replace(offset=offset - y)

    return Planes(moved(planes.lower), moved(planes.upper))
