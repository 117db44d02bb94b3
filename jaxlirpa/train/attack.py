"""Projected gradient descent (PGD; Madry et al. 2018): looks for the worst point of a set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._errors import ArgumentError
from jaxlirpa._types import Array, ArrayLike, PyTree
from jaxlirpa.train.regions import Region, region

Found: TypeAlias = tuple[Array, Array]


def pgd(
    loss: Callable[..., Array],
    *,
    steps: int,
    step_size: float | Callable[[Array], ArrayLike] | None = None,
    restarts: int = 1,
) -> Callable[..., Array]:
    """A function that finds adversarial examples.

    Every restart begins at a random point of the set and climbs: in boxes by the sign of the
    gradient, in 2-balls by its direction. The point with the largest loss that was met is kept. It
    can be compiled, and no derivative passes it.

    Args:
        loss: of (params, x, labels) to `[batch]`, each example's of its own; is maximised.
        steps: how many gradients a restart takes.
        step_size: in radii of the set: a number, or a schedule of the step, as in optax; None:
            from 1 linearly to 0.
        restarts: how many random points are started from, one after the other.

    Returns:
        A function of (params, x, labels), x being a `Box` or an `LpBall` of ord 2 or infinity, or
        of (params, x, labels, eps); and of the keyword `key`, of the random numbers: to the points
        found, shaped as x. A ball over a whole batch is taken as one of each example.

    Raises:
        ArgumentError: where the set is of another kind, or steps or restarts are too few.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxlirpa import train
        >>> attack = train.pgd(lambda params, x, labels: -jnp.sum((x - params) ** 2, 1), steps=50)
        >>> x = attack(jnp.array([0.3, 5.0]), jnp.zeros((1, 2)), None, 1.0, key=jax.random.key(0))
        >>> print([f"{value:.2f}" for value in x[0]])
        ['0.30', '1.00']
    """
    if steps < 1 or restarts < 1:
        raise ArgumentError(f"steps={steps} and restarts={restarts} must be at least 1.")

    def size(step: Array) -> ArrayLike:
        if step_size is None:
            return 1 - step / steps
        return step_size(step) if callable(step_size) else step_size

    def attack(
        params: PyTree, x: Any, labels: Any, eps: ArrayLike | None = None, *, key: Array
    ) -> Array:
        params, x, eps = jax.lax.stop_gradient((params, x, eps))
        within = region(x, eps)

        def value(points: Array) -> Array:
            return loss(params, points, labels)

        if restarts == 1:
            return _climb(value, within, key, steps, size)[0]

        def climb(key: Array) -> Found:
            return _climb(value, within, key, steps, size)

        points, losses = jax.lax.map(climb, jax.random.split(key, restarts))
        best = jnp.argmax(losses, 0)
        own = best.reshape(1, -1, *[1] * (points.ndim - 2))
        return jnp.take_along_axis(points, own, 0)[0]

    return attack


def _climb(
    value: Callable[[Array], Array],
    within: Region,
    key: Array,
    steps: int,
    size: Callable[[Array], ArrayLike],
) -> Found:
    """The best points, and their losses, on the way up from random ones."""

    def total(points: Array) -> tuple[Array, Array]:
        losses = value(points)
        return losses.sum(), losses

    slope = jax.value_and_grad(total, has_aux=True)

    def climb(step: Array, state: tuple[Array, Found]) -> tuple[Array, Found]:
        points, best = state
        (_, losses), gradient = slope(points)
        further = within.nearest(points + size(step) * within.uphill(gradient))
        return further, _better(best, (points, losses))

    start = within.draw(key)
    lowest = jnp.full_like(jax.eval_shape(value, start), -jnp.inf)
    points, best = jax.lax.fori_loop(0, steps, climb, (start, (start, lowest)))
    return _better(best, (points, value(points)))


def _better(a: Found, b: Found) -> Found:
    """Of every example the point with the larger loss."""
    (points, losses), (others, their) = a, b
    better = their > losses
    wide = better.reshape(-1, *[1] * (points.ndim - 1))
    return where(wide, others, points), where(better, their, losses)
