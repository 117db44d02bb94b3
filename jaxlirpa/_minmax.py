"""Maximum and minimum of two arrays, with derivatives that take little memory.

Between equal numbers JAX takes the mean of both derivatives, and so keeps two arrays of floats,
the shares of the operands, from the forward to the backward pass of a gradient: relaxations consist
of these functions, and that was half of what a step of certified training held. Here one operand
counts, which takes a truth value an entry, and is a derivative from one side as well: of equal
numbers the maximum is the first and the minimum the second, so that the derivatives of
`maximum(x, y) + minimum(x, y)` are those of `x + y`.

Not for numbers that are equal but for rounding: a compiler may compute a truth value again, round
otherwise, and then count both operands, or none.
"""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import traced_once, where


@traced_once()
def maximum(x: jax.typing.ArrayLike, y: jax.typing.ArrayLike) -> jax.Array:
    """The larger number, entry by entry; NaN where one is."""
    return _maximum(*_promoted(x, y))


@traced_once()
def minimum(x: jax.typing.ArrayLike, y: jax.typing.ArrayLike) -> jax.Array:
    """The smaller number, entry by entry; NaN where one is."""
    return _minimum(*_promoted(x, y))


def clip(
    x: jax.typing.ArrayLike, low: jax.typing.ArrayLike, high: jax.typing.ArrayLike
) -> jax.Array:
    """`x`, or the limit that it is beyond; where it is at a limit, it is `x` that is derived."""
    return minimum(high, maximum(x, low))


def _promoted(x: jax.typing.ArrayLike, y: jax.typing.ArrayLike) -> list[jax.Array]:
    dtype = jnp.result_type(x, y)
    return [jnp.asarray(a, dtype) for a in (x, y)]


@jax.custom_jvp
def _maximum(x: jax.Array, y: jax.Array) -> jax.Array:
    return jax.lax.max(*jnp.broadcast_arrays(x, y))


@jax.custom_jvp
def _minimum(x: jax.Array, y: jax.Array) -> jax.Array:
    return jax.lax.min(*jnp.broadcast_arrays(x, y))


_Pair: TypeAlias = tuple[jax.Array, jax.Array]


@_maximum.defjvp
def _(points: _Pair, moves: _Pair) -> _Pair:
    return jnp.maximum(*points), where(points[0] >= points[1], *moves)


@_minimum.defjvp
def _(points: _Pair, moves: _Pair) -> _Pair:
    return jnp.minimum(*points), where(points[0] < points[1], *moves)
