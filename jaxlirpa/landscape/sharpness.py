"""Bounds on the gradient and the curvature of a loss in a neighbourhood of the weights.

A derivative is a function like any other, so it is bounded like one:
`jaxlirpa.crown(jax.grad(loss))`. By the mean value theorem, a bound of the gradient over a ball
bounds the change of the loss there, and a bound of the Hessian bounds the change of the gradient.
For ReLU networks the second kind has a limit: the second derivative of a relu is zero except at its
kink, where the gradient jumps, so bounds of the Hessian say nothing about kinks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlirpa._methods.crown import crown_ibp
from jaxlirpa._methods.ibp import ibp
from jaxlirpa._types import Array, ArrayLike, Bounds, PyTree
from jaxlirpa.landscape.band import Method
from jaxlirpa.landscape.neighbourhoods import Neighbourhood, every_matrix
from jaxlirpa.landscape.reading import require_read
from jaxlirpa.sets.base import is_set


def gradient_bounds(
    loss: Callable[..., Array], *, around: Neighbourhood = every_matrix, method: Method = ibp
) -> Callable[..., Bounds]:
    """Bounds of the gradient of a loss with respect to the perturbed weights.

    Args:
        loss: a function of the weights and of data that returns a scalar.
        around: the neighbourhood of the weights, as a function of the weights and a radius.
        method: a transform. Backward methods need one row for every weight, so use them only where
            there are few.

    Returns:
        A function that takes the weights, a radius and data and returns `Bounds`. Each side is
        shaped like the weights, with None in place of weights that are not perturbed.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import landscape
        >>> loss = lambda params: jnp.sum(params["w"] ** 2)
        >>> lower, upper = landscape.gradient_bounds(loss)({"w": jnp.ones((1, 1))}, 0.5)
        >>> print(lower["w"], upper["w"])
        [[1.]] [[3.]]
    """

    def bounds(params: PyTree, radius: ArrayLike, *data: Any) -> Bounds:
        sets = around(params, radius)
        require_read(loss, sets, *data)

        def gradient(weights: PyTree) -> PyTree:
            return _perturbed(sets, jax.grad(loss)(weights, *data))

        return method(gradient)(sets)

    return bounds


def steepness(
    loss: Callable[..., Array], *, around: Neighbourhood = every_matrix, method: Method = ibp
) -> Callable[..., Array]:
    """An upper bound of the 2-norm of the gradient over a neighbourhood of the weights.

    Neighbourhoods are convex, so this is a Lipschitz constant: between any two members, the loss
    changes by at most the bound times their distance.

    Args:
        loss, around, method: see `gradient_bounds`.

    Returns:
        A function that takes the weights, a radius and data and returns a scalar.
    """
    bounds = gradient_bounds(loss, around=around, method=method)

    def steepest(params: PyTree, radius: ArrayLike, *data: Any) -> Array:
        sides = map(jax.tree.leaves, bounds(params, radius, *data))
        largest = [jnp.maximum(jnp.abs(a), jnp.abs(b)) for a, b in zip(*sides, strict=True)]
        return jnp.sqrt(sum(jnp.sum(x**2) for x in largest))

    return steepest


def slope_bounds(
    loss: Callable[..., Array], *, around: Neighbourhood = every_matrix, method: Method = crown_ibp
) -> Callable[..., Bounds]:
    """Bounds of the derivative of a loss in one direction.

    It is a scalar, so a backward method needs one row, however many weights there are.

    Args:
        loss, around: see `gradient_bounds`.
        method: a transform, such as `jaxlirpa.crown`.

    Returns:
        A function that takes the weights, a radius, a direction (shaped like the weights) and data
        and returns `Bounds` of a scalar.
    """

    def bounds(params: PyTree, radius: ArrayLike, direction: PyTree, *data: Any) -> Bounds:
        sets = around(params, radius)
        require_read(loss, sets, *data)
        return method(_along(loss, direction, data))(sets)

    return bounds


def hessian_vector_bounds(
    loss: Callable[..., Array], *, around: Neighbourhood = every_matrix, method: Method = ibp
) -> Callable[..., Bounds]:
    """Bounds of the product of the Hessian of a loss with a direction.

    Args:
        loss, around, method: see `gradient_bounds`.

    Returns:
        A function that takes the weights, a radius, a direction (shaped like the weights) and data
        and returns `Bounds`. Each side is shaped like the weights, with None in place of weights
        that are not perturbed.
    """

    def bounds(params: PyTree, radius: ArrayLike, direction: PyTree, *data: Any) -> Bounds:
        sets = around(params, radius)
        require_read(loss, sets, *data)
        turning = _along(jax.grad(loss), direction, data)

        def product(weights: PyTree) -> PyTree:
            return _perturbed(sets, turning(weights))

        return method(product)(sets)

    return bounds


def curvature_bounds(
    loss: Callable[..., Array], *, around: Neighbourhood = every_matrix, method: Method = crown_ibp
) -> Callable[..., Bounds]:
    """Bounds of `v . H v`, the second derivative of a loss in a direction `v`.

    Args:
        loss, around: see `gradient_bounds`.
        method: a transform, such as `jaxlirpa.crown`.

    Returns:
        A function that takes the weights, a radius, a direction (shaped like the weights) and data
        and returns `Bounds` of a scalar.
    """

    def bounds(params: PyTree, radius: ArrayLike, direction: PyTree, *data: Any) -> Bounds:
        sets = around(params, radius)
        require_read(loss, sets, *data)
        return method(_along(_along(loss, direction, data), direction))(sets)

    return bounds


def _along(
    fn: Callable[..., Any], direction: PyTree, data: Sequence[Any] = ()
) -> Callable[[PyTree], Any]:
    """The derivative in one direction of a function of weights and data."""

    def derivative(weights: PyTree) -> Any:
        return jax.jvp(lambda w: fn(w, *data), (weights,), (direction,))[1]

    return derivative


def _perturbed(sets: PyTree, tree: PyTree) -> PyTree:
    """The parts of a tree that correspond to sets, with None for all others."""

    def part(own: PyTree, below: PyTree) -> PyTree:
        return below if is_set(own) else None

    return jax.tree.map(part, sets, tree, is_leaf=is_set)
