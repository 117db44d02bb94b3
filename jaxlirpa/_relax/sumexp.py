"""Sums of exponentials: `log(sum(exp(x)))` over some axes.

Write `t` for any tangent point in the box and `p = softmax(t)`.

* `logsumexp` is convex, so it lies above its tangent plane, which is `p . x - sum_j p_j log(p_j)`.
  (So it does for every `p` of sum one, by Gibbs' inequality: soundness needs no exact tangent.)
* `exp` lies below its chord on every `[l_j, u_j]`, so `sum(exp(x))` lies below the plane
  `C(x) = sum_j exp(l_j) + m_j (x_j - l_j)`, and as `log` is concave,
  `logsumexp(x) <= log C(t) + (C(x) - C(t)) / C(t)`.

Everything is divided by the exponential of the largest upper limit, so that nothing overflows
however wide the box.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._minmax import maximum
from jaxlirpa._relax.planes import AdjustableJointly, Plane, Planes
from jaxlirpa._relax.relaxations import Relaxations, mix
from jaxlirpa._types import Array


class _Parts(NamedTuple):
    tangent: Plane
    secant: Plane
    at: Array


def _logsumexp(x: Array, axes: tuple[int, ...], mask: Array | None) -> Array:
    """Over the entries that count."""
    counted = x if mask is None else where(mask, x, -jnp.inf)
    return jax.nn.logsumexp(counted, axes)


def _exp(x: Array) -> Array:
    """Of what is not positive where it counts; with its whole derivative at zero."""
    return jnp.exp(where(x > 0, 0, x))


@dataclasses.dataclass(frozen=True)
class LogSumExp(AdjustableJointly):
    """`log(sum(exp(x)))` over some axes.

    Attributes:
        axes: over which it is taken.
        mask: False where an entry does not count.
    """

    axes: tuple[int, ...]
    mask: Array | None = None

    def image(self, boxes: Sequence[Interval]) -> Interval:
        """It rises in every entry; its values are known to a few units in the last place."""
        (box,) = boxes
        lower, upper = (_logsumexp(x, self.axes, self.mask) for x in box)
        ulps = 8 * jnp.finfo(lower.dtype).eps
        return Interval(lower - ulps * (1 + jnp.abs(lower)), upper + ulps * (1 + jnp.abs(upper)))

    def family(self, boxes: Sequence[Interval]) -> Relaxations[Planes]:
        """See the module's derivation; the freedom is where the planes touch."""
        (box,) = boxes

        def at(alpha: tuple[Array, Array]) -> Planes:
            below, above = (self.parts(box, mix(p, *box)) for p in alpha)
            return Planes(below.tangent, above.secant)

        half = jnp.full_like(box.lower, 0.5)
        return Relaxations((half, half), at)

    def parts(self, box: Interval, point: Array) -> _Parts:
        """The planes that touch at a point, and the height of the upper one there."""
        axes = self.axes
        counted = point if self.mask is None else where(self.mask, point, -jnp.inf)
        weights = jax.nn.softmax(counted, axes)
        logs = jnp.log(where(weights > 0, weights, 1))
        entropy = -jnp.sum(weights * logs, axes)
        largest = box.upper if self.mask is None else where(self.mask, box.upper, -jnp.inf)
        scale = jax.lax.stop_gradient(jnp.max(largest, axes, keepdims=True))
        low = self._counted(_exp(box.lower - scale))
        width = box.upper - box.lower
        wide = width > 0
        # (exp(u) - exp(l)) / (u - l), without cancellation.
        rise = self._counted(_exp(box.upper - scale))
        rise = rise * where(wide, -jnp.expm1(-width) / where(wide, width, 1), 1)
        middle = jnp.sum(low + rise * (point - box.lower), axes, keepdims=True)
        slopes = rise / middle
        at = jnp.squeeze(jnp.log(middle) + scale, axes)
        ulps = 8 * jnp.finfo(at.dtype).eps
        largest = maximum(jnp.abs(box.lower), jnp.abs(box.upper))
        room = ulps * (1 + entropy + jnp.sum(weights * largest, axes))
        tangent = Plane((weights,), entropy - room)
        room = ulps * (1 + jnp.abs(at) + jnp.sum(slopes * jnp.abs(point), axes))
        secant = Plane((slopes,), at - jnp.sum(slopes * point, axes) + room)
        return _Parts(tangent, secant, at)

    def _counted(self, x: Array) -> Array:
        return x if self.mask is None else where(self.mask, x, jnp.zeros_like(x))
