"""Norm balls."""

from __future__ import annotations

import dataclasses
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import dual, norm, row_products, sums, where
from jaxlirpa._errors import SetError
from jaxlirpa._intervals import Interval
from jaxlirpa._types import Array, ArrayLike, PyTree, Shaped
from jaxlirpa.sets.base import (
    ArraySet,
    PerturbationSet,
    fits,
    floating_leaves,
    holds,
    poison,
    radii_of,
)
from jaxlirpa.sets.per_example import one_by_one


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LpBall(PerturbationSet):
    """All values within a distance of a centre.

    With a scalar radius `r` these are the `x` with `norm(x - center, ord) <= r`; with an array,
    the `x` with `norm((x - center) / radius, ord) <= 1`: an entry with a larger radius may move
    further, one with radius 0 not at all.

    Args:
        center: array or pytree of arrays; every leaf is perturbed, each in a ball of its own.
        radius: scalar, array that broadcasts to the centre, or pytree of those that is a prefix
            of the centre's; not negative.
        ord: the norm, a number from 1 to infinity.
        axis: the axes over which the norm is taken, in NumPy's vocabulary: an int, a tuple or
            None for all. `axis=(1, 2, 3)` puts each image of a batch into a ball of its own. For
            `ord=inf` it makes no difference.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> ball = jaxlirpa.LpBall(jnp.array([3.0, 4.0]), 0.5, ord=2)
        >>> bounds = jaxlirpa.crown(lambda x: jnp.array([3.0, 4.0]) @ x)(ball)
        >>> print(bounds.lower, bounds.upper)
        22.5 27.5
    """

    center: PyTree
    radius: PyTree
    ord: float = dataclasses.field(default=math.inf, metadata={"static": True})
    axis: int | tuple[int, ...] | None = dataclasses.field(default=None, metadata={"static": True})

    @property
    def aval(self) -> Shaped:
        """Shape and dtype of the members."""
        return jax.ShapeDtypeStruct(self.center.shape, self.center.dtype)

    @property
    def is_box(self) -> bool:
        """Whether the ball is a box: for `ord=inf`."""
        return math.isinf(self.ord)

    def split(self) -> tuple[list[LpBall], Any]:
        """One ball an array.

        Raises:
            SetError: for a negative or NaN radius, one that does not broadcast, a norm below 1,
                an axis that is not there, or an integer centre.
        """
        if not (isinstance(self.ord, numbers.Real) and self.ord >= 1):
            raise SetError(f"LpBall: ord={self.ord!r} is no norm; take a number from 1 to inf.")
        leaves = floating_leaves(self.center, "LpBall: center").values()
        radii = radii_of(self.radius, self.center, "LpBall: radius")
        balls = [_checked(*pair, self.ord, self.axis) for pair in zip(leaves, radii, strict=True)]
        return balls, jax.tree.structure(self.center)

    def hull(self) -> Interval:
        """Every entry alone can move by its radius, whatever the norm."""
        return Interval(self.center - self.radius, self.center + self.radius)

    def point(self) -> Array:
        """The centre."""
        return self.center

    def concretize(self, coefficients: Array, from_point: bool = False) -> Interval:
        """Exact minimum and maximum of linear forms over the ball.

        By the duality of norms (Hölder's inequality, which is attained),
        `max {a . d : norm(d / r, p) <= 1} = norm(a * r, q)` with `1/p + 1/q = 1`; several balls
        (`axis`) are independent, so their maxima add up.
        """
        spread = self._spread(coefficients)
        if from_point:
            return Interval(-spread, spread)
        middle = row_products(coefficients, self.center)
        return Interval(middle - spread, middle + spread)

    def beyond(self, inner: ArraySet) -> Array:
        """By how much a set may go beyond this ball; zero only if it is proved not to.

        Let `c` and `r` be the centre and the radii of this ball. By the triangle inequality, the
        members of a ball around `c'` of radii `r'` satisfy `norm((x - c) / r) <= norm((c' - c) / r)
        + max(r' / r)`, if their norm is of the same order or of a lower one, which is larger. The
        members of any other set are no farther away than the farthest corner of its hull. All is
        rounded upwards.
        """
        if isinstance(inner, LpBall) and self._is_lower_order(inner):
            shift, own = jnp.abs(inner.center - self.center), inner.radius
        else:
            shift = jnp.max(jnp.abs(jnp.stack(inner.hull()) - self.center), 0)
            own = jnp.zeros_like(self.radius)
        radius = jnp.broadcast_to(self.radius, self.center.shape)
        distance = jnp.max(self._norms(_ratio(shift, radius)[None]), initial=0)
        largest = jnp.max(_ratio(jnp.broadcast_to(own, radius.shape), radius), initial=0)
        rounding = 1 + (radius.size + 16) * jnp.finfo(radius.dtype).eps
        reach = (distance + largest) * rounding
        inside = (reach <= 1) | (jnp.all(shift == 0) & jnp.all(own <= radius))
        tiny = jnp.finfo(radius.dtype).tiny
        by = jnp.maximum((distance + largest - 1) * jnp.max(radius, initial=0), tiny)
        return where(inside, 0, where(jnp.isfinite(by), by, jnp.inf))

    def _is_lower_order(self, ball: LpBall) -> bool:
        """Whether a ball's norm, over the same axes, is of this order or of a lower one."""
        ndim = self.center.ndim
        return ball.ord <= self.ord and _axes(ball.axis, ndim) == _axes(self.axis, ndim)

    def _spread(self, coefficients: Array) -> Array:
        """The largest value of each linear form over the ball around zero."""
        radius = jnp.broadcast_to(self.radius, self.center.shape)[None]
        if self.is_box:
            return row_products(jnp.abs(coefficients), radius[0])
        return jnp.sum(self._norms(coefficients * radius, dual(self.ord)), 1)

    def _norms(self, x: Array, ord: float | None = None) -> Array:
        """Norms of rows of entries, `[rows, balls]`: in each of the balls that `axis` tells apart.

        Args:
            x: `[rows, *shape]`.
            ord: of the norm; default: the ball's.
        """
        rows, ndim = x.shape[0], self.center.ndim
        normed = _axes(self.axis, ndim)
        kept = tuple(i for i in range(ndim) if i not in normed)
        order = (0, *(i + 1 for i in kept), *(i + 1 for i in normed))
        balls, each = (math.prod(self.center.shape[i] for i in axes) for axes in (kept, normed))
        entries = x.transpose(order).reshape(rows, balls, each)
        return norm(entries, self.ord if ord is None else ord)

    def concretize_per_example(self, coefficients: Array, axis: int) -> Interval:
        """Extrema of linear forms of each example's deviation, `[rows, examples]`.

        The restriction of the ball to one example, whatever the others are, is a ball of the same
        radius.
        """
        if not self.is_box:
            return one_by_one(self, coefficients, axis)
        radius = jnp.broadcast_to(self.radius, self.center.shape)[None]
        spread = sums(jnp.abs(coefficients) * radius, axis)
        return Interval(-spread, spread)

    def batch_axes(self, axis: int) -> LpBall:
        """The centre is mapped; the radius too where every entry has its own."""
        return dataclasses.replace(self, center=axis, radius=axis if self.radius.ndim else None)

    def expand(self, axis: int) -> LpBall:
        """The same ball with a new axis of size one."""
        radius = jnp.expand_dims(self.radius, axis) if self.radius.ndim else self.radius
        return dataclasses.replace(self, center=jnp.expand_dims(self.center, axis), radius=radius)


def _checked(
    center: Array, radius: ArrayLike, ord: float, axis: int | tuple[int, ...] | None
) -> LpBall:
    radius = jnp.asarray(radius, center.dtype)
    fits(radius.shape, center.shape, "LpBall: radius")
    _axes(axis, center.ndim)
    proper = (radius >= 0) & (radius < jnp.inf)
    if not holds(proper):
        raise SetError(f"LpBall: the radius (eps) must be finite and not negative, not {radius}.")
    radius = poison(radius, proper)
    return LpBall(
        center, jnp.broadcast_to(radius, center.shape) if radius.ndim else radius, ord, axis
    )


def _ratio(part: Array, whole: Array) -> Array:
    """Quotients of numbers that are not negative; zero if there is no part."""
    return where(part == 0, 0, part / whole)


def _axes(axis: int | tuple[int, ...] | None, ndim: int) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(ndim))
    axes = axis if isinstance(axis, tuple) else (axis,)
    if any(not -ndim <= a < ndim for a in axes):
        raise SetError(f"LpBall: axis={axis} is out of range for a centre of {ndim} dimensions.")
    return tuple(sorted({a % ndim for a in axes}))
