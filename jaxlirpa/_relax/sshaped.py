"""S-shaped functions: convex up to zero, concave from there on (tanh, sigmoid).

Derivation of the lower line on `[l, u]`; the upper line is the lower line of `-f(-x)`, which has
the same shape, on `[-u, -l]`.

* `l >= 0`: `f` is concave, so it lies above its chord.
* `u <= 0`: `f` is convex, so it lies above its tangent at any point. The midpoint is taken: it
  gives the largest line on average.
* `l < 0 < u`: the tangent at `t <= 0` is below `f` on `[l, 0]` by convexity. On `[0, u]`, where
  `f` is concave, a line is below `f` as soon as it is below at both ends, and at 0 it is. So the
  tangent at `t` is sound if and only if `valid(t)`: `f(t) + f'(t) (u - t) <= f(u)`. The left side
  grows with `t` (its derivative is `f''(t) (u - t) >= 0`), so the valid points are those up to
  some `d`, found by bisection whose *valid* end is returned. By default the tangent is taken at
  `min(d, midpoint)`. If not even `l` is valid, the chord lies below the tangent at `l` and hence
  below `f` on `[l, 0]`, and below `f` on `[0, u]` by concavity.

`d` is found for `u` rounded up to the next hundredth, which is sound by the same argument: a line
below `f` at 0 and at `u' >= u` is below it on `[0, u]`. The tangent point is then locally constant,
so that the derivative of the lines with respect to the box needs no derivative of the bisection,
and it is the one that auto_LiRPA reads from a table, so that bounds can be compared digit by digit.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._minmax import clip, maximum, minimum
from jaxlirpa._relax.lines import Adjustable, Lines, Point, offset_below, secant
from jaxlirpa._relax.relaxations import Relaxations, alpha_of, mix
from jaxlirpa._types import Array

# A tangent further out than this is a horizontal line to every float64 (tanh' (400) < 1e-340).
_FAR = 1024.0
_STEPS = 48
_GRID = 0.01


@dataclasses.dataclass(frozen=True)
class SShaped(Adjustable):
    """An increasing function, convex on `x <= 0` and concave on `x >= 0`.

    Attributes:
        function: the function.
        derivative: its derivative, accurate to a few units in the last place everywhere, also
            where the function saturates.
    """

    function: Callable[[Array], Array]
    derivative: Callable[[Array], Array]

    def image(self, box: Interval) -> Interval:
        """The function increases; its values are known to a few units in the last place."""
        lower, upper = self.function(box.lower), self.function(box.upper)
        ulps = 4 * jnp.finfo(lower.dtype).eps
        return Interval(lower - ulps * jnp.abs(lower), upper + ulps * jnp.abs(upper))

    def slope_range(self, box: Interval) -> Interval:
        """The derivative rises up to zero, and falls from there on."""
        low, high = self.derivative(box.lower), self.derivative(box.upper)
        most = self.derivative(clip(0.0, box.lower, box.upper))
        info = jnp.finfo(most.dtype)
        room = 8 * info.eps
        least = minimum(low, high)
        return Interval(least * (1 - room) - info.tiny, most * (1 + room) + info.tiny)

    def family(self, box: Interval) -> Relaxations[Lines]:
        """Chords and tangents, see the module's derivation."""
        below = lower_lines(self.function, self.derivative, box)
        above = lower_lines(
            lambda x: -self.function(-x),
            lambda x: self.derivative(-x),
            Interval(-box.upper, -box.lower),
        )

        def at(alpha: tuple[Array, Array]) -> Lines:
            slope, offset = above.at(alpha[1])
            return Lines(*below.at(alpha[0]), slope, -offset)

        return Relaxations((below.start, above.start), at)


def lower_lines(
    f: Callable[[Array], Array], derivative: Callable[[Array], Array], box: Interval
) -> Relaxations[tuple[Array, Array]]:
    """Slope and offset of lines below `f` on the box: tangents from its lower end on."""
    start, end = Point(box.lower, f(box.lower)), Point(box.upper, f(box.upper))
    last, sound_somewhere = _last_sound_tangent(f, derivative, box)
    # Where no tangent is sound, `last` may be outside of the box, and nothing is drawn at it.
    last = where(sound_somewhere, minimum(last, box.upper), box.lower)
    middle = minimum(last, box.lower + 0.5 * (box.upper - box.lower))

    def at(alpha: Array) -> tuple[Array, Array]:
        x = clip(mix(alpha, box.lower, last), box.lower, last)
        touch, slope, chord = Point(x, f(x)), derivative(x), secant(start, end)
        slope = where(sound_somewhere, slope, chord)
        offset = where(
            sound_somewhere, offset_below(slope, (touch,)), offset_below(chord, (start, end), start)
        )
        # f is known to its last places only: step out by those of the largest term on the box.
        largest = maximum(jnp.abs(start.x), jnp.abs(end.x)) * jnp.abs(slope)
        largest = maximum(largest, maximum(jnp.abs(start.y), jnp.abs(end.y)))
        return slope, offset - 4 * jnp.finfo(offset.dtype).eps * largest

    return Relaxations(alpha_of(middle, box.lower, last), at)


def _last_sound_tangent(
    f: Callable[[Array], Array], derivative: Callable[[Array], Array], box: Interval
) -> tuple[Array, Array]:
    """The last point whose tangent is taken for sound, and whether a tangent is to be drawn."""

    def excess(t: Array, upper: Array) -> Array:
        return f(t) + derivative(t) * (upper - t) - f(upper)

    def halve(_: int, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        sound, beyond = bracket
        middle = 0.5 * (sound + beyond)
        ok = excess(middle, reach) <= 0
        return where(ok, middle, sound), where(ok, beyond, middle)

    upper = jax.lax.stop_gradient(box.upper)
    reach = maximum(upper, (jnp.floor(upper / _GRID) + 1) * _GRID)
    root, _ = jax.lax.fori_loop(
        0, _STEPS, halve, (jnp.full_like(upper, -_FAR), jnp.zeros_like(upper))
    )
    convex, crossing = box.upper <= 0, (box.lower < 0) & (box.upper > 0)
    drawn = convex | (crossing & (excess(box.lower, box.upper) <= 0))
    return where(convex, box.upper, root), drawn
