"""`sinc(x) = sin(pi x) / (pi x)`, by the ranges of its values and of its slopes.

With `z = pi x` it is the mean of `cos(z t)` over `t` in `[0, 1]`, so that its `n`-th derivative in
`z` is between `-1 / (n + 1)` and `1 / (n + 1)` everywhere. As `z f = sin z`, it also is

    f' = (cos z - f) / z    and    f'' = -f - 2 f' / z

Its slopes on an interval are thus at most the half-width times a bound on `f''` away from the slope
in the middle. Its extremes are at the ends of an interval, at 0 and where `tan z = z`. The first of
these places are known; the others are close to the left of the crests and troughs of the sine, on
the positive side, and the function is no larger there than `1 / z`.
"""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval, is_finite
from jaxlirpa._minmax import clip, maximum, minimum
from jaxlirpa._relax.unknown import Unknown
from jaxlirpa._types import Array

# Positive solutions of `tan z = z`.
_TURNS = (
    4.493409457909064,
    7.725251836937707,
    10.904121659428899,
    14.066193912831473,
    17.220755271930768,
    20.371302959287563,
    23.519452498689007,
    26.666054258812674,
)
_ULPS = 16


def _of(z: Array) -> Array:
    """`sin(z) / z`."""
    near = jnp.abs(z) < 1e-4
    return where(near, 1 - z * z / 6, jnp.sin(z) / where(near, 1, z))


def _slope(z: Array) -> Array:
    """The derivative of `sin(z) / z`; near 0 by its series, as it is a small difference there."""
    near = jnp.abs(z) < 0.5
    far = where(near, 1, z)
    square = z * z
    series = jnp.ones_like(z)
    for k in range(6, 0, -1):
        series = 1 - square / (2 * k * (2 * k + 3)) * series
    return where(near, -z / 3 * series, (jnp.cos(z) - _of(far)) / far)


def _ends(z: Interval) -> list[Array]:
    """The values at the ends of an interval."""
    return [where(jnp.isfinite(x), _of(where(jnp.isfinite(x), x, 0)), 0) for x in z]


def _far(z: Interval) -> Interval:
    """The extremes that are not at the ends, on an interval beyond the turns that are known."""
    a = maximum(z.lower, _TURNS[-1])
    blur = 1.1 / a + 8 * jnp.finfo(a.dtype).eps * a

    def most(phase: float) -> Array:
        """One over the first place in the interval where the sine is largest, or smallest."""
        place = phase + 2 * np.pi * jnp.ceil((a - phase) / (2 * np.pi))
        found = place - blur <= z.upper
        return where(found & (a <= z.upper), 1 / maximum(a, place - blur), 0)

    return Interval(-most(1.5 * np.pi), most(0.5 * np.pi))


def _values(x: Interval) -> Interval:
    z = Interval(*(np.pi * limit for limit in x))
    ends = _ends(z)
    lowest, highest = functools.reduce(minimum, ends), functools.reduce(maximum, ends)
    for turn in (0.0, *_TURNS, *(-t for t in _TURNS)):
        value = float(np.sinc(turn / np.pi))
        inside = (z.lower <= turn) & (turn <= z.upper)
        lowest = where(inside, minimum(lowest, value), lowest)
        highest = where(inside, maximum(highest, value), highest)
    for side in (z, Interval(-z.upper, -z.lower)):
        far = _far(side)
        lowest = where(far.lower < 0, minimum(lowest, far.lower), lowest)
        highest = where(far.upper > 0, maximum(highest, far.upper), highest)
    room = _ULPS * jnp.finfo(lowest.dtype).eps
    return Interval(lowest - room, highest + room)


def _slopes(x: Interval) -> Interval:
    z = Interval(*(np.pi * limit for limit in x))
    nearest = maximum(maximum(z.lower, -z.upper), 1)
    bend = minimum(1 / 3, 1 / nearest + 2 * (1 + 1 / nearest) / jnp.square(nearest))
    most = minimum(0.5, (1 + 1 / nearest) / nearest)
    middle, half = 0.5 * z.lower + 0.5 * z.upper, 0.5 * z.upper - 0.5 * z.lower
    slope, reach = _slope(middle), half * bend
    room = _ULPS * jnp.finfo(slope.dtype).eps
    lower = where(is_finite(z), clip(slope - reach, -most, most), -most)
    upper = where(is_finite(z), clip(slope + reach, -most, most), most)
    return Interval(np.pi * (lower - room), np.pi * (upper + room))


SINC = Unknown(_values, _slopes)
