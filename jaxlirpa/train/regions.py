"""Sets in which one climbs: boxes and Euclidean balls, one an example."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import where
from jaxlirpa._errors import ArgumentError
from jaxlirpa._intervals import Interval, is_finite
from jaxlirpa._types import Array, ArrayLike
from jaxlirpa.sets import Box, LpBall
from jaxlirpa.sets.base import holds


@dataclasses.dataclass(frozen=True)
class Region:
    """A box, or a ball of every example of a batch.

    Attributes:
        centre: `[batch, ...]`.
        radius: of every entry.
        box: the smallest box around it.
        axes: over which the Euclidean norm is taken; None: the region is the box.
    """

    centre: Array
    radius: Array
    box: Interval
    axes: tuple[int, ...] | None

    def draw(self, key: Array) -> Array:
        """A random point, uniformly."""
        shape, dtype = self.centre.shape, self.centre.dtype
        if self.axes is None:
            return jax.random.uniform(key, shape, dtype, *self.box)
        own, other = jax.random.split(key)
        direction = jax.random.normal(own, shape, dtype)
        size = self._norm(direction)
        entries = math.prod(shape[axis] for axis in self.axes)
        length = jax.random.uniform(other, size.shape, dtype) ** (1 / max(entries, 1))
        return self.centre + self.radius * direction / where(size > 0, size, 1) * length

    def uphill(self, gradient: Array) -> Array:
        """The step to the border along which a linear function rises most."""
        if self.axes is None:
            return self.radius * jnp.sign(gradient)
        steepest = self.radius * gradient
        size = self._norm(steepest)
        return self.radius * steepest / where(size > 0, size, 1)

    def nearest(self, x: Array, share: ArrayLike = 1.0) -> Array:
        """The projection of a point to a share of the region, around the same centre.

        (In a ball with radii of its entries, nearest in the norm in which it is round.)
        """
        if self.axes is None:
            around = self.centre - share * self.radius, self.centre + share * self.radius
            return jnp.clip(jnp.clip(x, *around), *self.box)
        wide = self.radius > 0
        step = where(wide, (x - self.centre) / where(wide, self.radius, 1), 0)
        size = self._norm(step)
        return self.centre + self.radius * step * where(size > share, share / size, 1)

    def _norm(self, x: Array) -> Array:
        return jnp.sqrt(jnp.sum(jnp.square(x), self.axes, keepdims=True))


def region(x: Any, eps: ArrayLike | None = None) -> Region:
    """The region that a set is for every example, or that `eps` makes of a batch.

    A ball over a whole batch is, for each example alone, a ball of that radius.

    Raises:
        ArgumentError: where it is a set of another kind, of several arrays or without end.
        SetError: where it is not valid.
    """
    if isinstance(x, Box | LpBall) == (eps is not None):
        raise ArgumentError(
            "x must be a Box or an LpBall, or eps given as well, the radius, and not both; x is "
            f"{type(x).__name__} and eps is {eps}."
        )
    found = x if eps is None else LpBall(x, eps)
    sets, structure = found.split()
    if len(sets) != 1 or structure != jax.tree.structure(0):
        raise ArgumentError("points are looked for in sets of one array, and not of a pytree.")
    (only,) = sets
    box = only.hull()
    if not holds(is_finite(box)):
        raise ArgumentError("a set without end has no random points to start from.")
    if only.is_box:
        middle = 0.5 * box.lower + 0.5 * box.upper
        return Region(middle, 0.5 * (box.upper - box.lower), box, None)
    if only.ord != 2:
        raise ArgumentError(
            f"there is no projection to balls of ord={only.ord}: take a Box, or an LpBall of ord 2 "
            "or infinity."
        )
    ndim = only.center.ndim
    normed = range(ndim) if only.axis is None else np.atleast_1d(only.axis) % ndim
    axes = tuple(sorted({int(axis) for axis in normed} - {0}))
    return Region(only.center, jnp.broadcast_to(only.radius, only.center.shape), box, axes)
