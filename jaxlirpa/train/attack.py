"""Projected gradient descent (PGD; Madry et al. 2018): looks for the worst point of a set."""

from __future__ import annotations

from collections.abc import Callable

from jaxlirpa._typing import Array, ArrayLike


def pgd(
    loss: Callable[..., Array],
    *,
    steps: int,
    step_size: float | Callable[[Array], ArrayLike] | None = None,
    restarts: int = 1,
) -> Callable[..., Array]:
    """A function that finds adversarial examples.

    Every restart begins at a random point of the set and climbs: on boxes by the sign of the
    gradient, on 2-balls by its direction. The point with the largest loss that was met is kept.
    It can be compiled, and no derivative passes it.

    Args:
        loss: of (params, x, labels) to `[batch]`, each example's of its own; is maximised.
        steps: how many gradients a restart takes.
        step_size: in radii of the set: a number, or a schedule of the step, as in optax; None:
            from 1 linearly to 0.
        restarts: how many random points are started from, one after the other.

    Returns:
        A function of (params, x, labels), x being a `Box` or an `LpBall` of ord 2 or infinity, or
        of (params, x, labels, eps); and of the keyword `key`, of the random numbers: to the points
        found, shaped as x.

    Raises:
        ArgumentError: where the set is of another kind, or steps or restarts are too few.
    """
    raise NotImplementedError
