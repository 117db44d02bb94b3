"""Balls whose radii are fractions of what they are around."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import norm
from jaxlirpa._types import ArrayLike, PyTree
from jaxlirpa.sets.ball import LpBall
from jaxlirpa.sets.base import floating_leaves


def relative_to_norm(center: PyTree, fraction: ArrayLike, ord: float = 2) -> LpBall:
    """A ball around every leaf, whose radius is a fraction of the leaf's norm.

    Weights before a rectifier may be scaled, and those behind it scaled back, without any effect;
    a radius in units of the weights themselves does not depend on that. `LpBall.radius` of what is
    returned has one radius a leaf, which a `JointBall` takes as well.

    Args:
        center: pytree of arrays.
        fraction: of the norm; not negative.
        ord: the norm, that of the ball too.

    Raises:
        SetError: for leaves that are no floating-point arrays.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> ball = jaxlirpa.sets.relative_to_norm({"w": jnp.array([3.0, 4.0])}, 0.1)
        >>> print(ball.radius["w"])
        0.5
    """
    leaves = floating_leaves(center, "center").values()
    radii = [fraction * norm(x.reshape(-1), ord) for x in leaves]
    return LpBall(center, jax.tree.unflatten(jax.tree.structure(center), radii), ord)


def relative_to_entries(center: PyTree, fraction: ArrayLike, ord: float = math.inf) -> LpBall:
    """A ball around every leaf, whose radius is at each entry a fraction of the entry's modulus.

    Args:
        center: pytree of arrays; an entry of zero stays zero.
        fraction: of the modulus; not negative.
        ord: of the ball's norm: by default, every entry moves on its own.

    Raises:
        SetError: for leaves that are no floating-point arrays.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> print(jaxlirpa.sets.relative_to_entries(jnp.array([3.0, 0.0, -4.0]), 0.1).radius)
        [0.3 0.  0.4]
    """
    leaves = floating_leaves(center, "center").values()
    radii = [fraction * jnp.abs(x) for x in leaves]
    return LpBall(center, jax.tree.unflatten(jax.tree.structure(center), radii), ord)
