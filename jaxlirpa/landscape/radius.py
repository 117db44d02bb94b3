"""The largest radius for which a property is certified."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._methods.crown import crown, crown_ibp
from jaxlirpa._types import Array, ArrayLike, PyTree
from jaxlirpa.landscape.band import Method
from jaxlirpa.landscape.neighbourhoods import Neighbourhood, every_matrix
from jaxlirpa.landscape.predictions import unchanged
from jaxlirpa.landscape.reading import require_read


def largest_certified(
    certified: Callable[[Array], Array], most: ArrayLike, *, steps: int = 20
) -> Array:
    """The largest radius that bisection can certify.

    The radius returned is the lower end of the bracket, so it has itself been certified. A property
    certified for one radius holds for all smaller ones, because neighbourhoods grow with the
    radius. The bounds need not certify every smaller radius, since their tightness may vary.

    Args:
        certified: takes radii and returns, elementwise, whether the property is certified.
        most: the largest radius of interest, in the shape that `certified` takes.
        steps: the number of bisection steps; the result is accurate to `most / 2**steps`.

    Returns:
        Radii of the shape of `most`, zero where none was certified.
    """
    end = jnp.asarray(most, float)

    def step(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bracket
        middle = (low + high) / 2
        found = certified(middle)
        return where(found, middle, low), where(found, high, middle)

    low, _ = jax.lax.fori_loop(0, steps, step, (jnp.zeros_like(end), end))
    return where(certified(end), end, low)


def flat_radius(
    loss: Callable[..., Array],
    margin: ArrayLike,
    *,
    most: ArrayLike,
    around: Neighbourhood = every_matrix,
    method: Method = crown_ibp,
    steps: int = 20,
) -> Callable[..., Array]:
    """The largest radius up to which a loss is certified to grow by no more than a margin.

    Args:
        loss: a function of the weights and of data that returns a scalar.
        margin: by how much it may grow; positive.
        most: the largest radius of interest.
        around: the neighbourhood of the weights, as a function of the weights and a radius.
        method: a transform, such as `jaxlirpa.crown`.
        steps: the number of bisection steps.

    Returns:
        A function that takes the arguments of `loss` and returns a radius.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxlirpa import landscape
        >>> loss = lambda params, x: jnp.mean(x @ params["w"])
        >>> params, x = {"w": jnp.zeros((2, 1))}, jnp.array([[3.0, 4.0]])
        >>> print(landscape.flat_radius(loss, 1.0, most=10.0)(params, x).round(4))
        0.2
    """

    def radius(params: PyTree, *data: Any) -> Array:
        require_read(loss, around(params, 0.0), *data)
        limit = loss(params, *data) + margin

        def certified(r: Array) -> Array:
            return method(loss)(around(params, r), *data).upper <= limit

        return largest_certified(certified, most, steps=steps)

    return radius


def stable_radii(
    network: Callable[..., Array],
    *,
    most: ArrayLike,
    around: Neighbourhood = every_matrix,
    method: Method = crown,
    steps: int = 12,
    batch_size: int | None = None,
) -> Callable[..., Array]:
    """For every input, the largest radius up to which its class is certified not to change.

    Args:
        network: a function of the weights and a batch of inputs that returns logits
            `[examples, classes]`.
        most: the largest radius of interest.
        around: the neighbourhood of the weights, as a function of the weights and a radius.
        method: a transform, such as `jaxlirpa.crown`.
        steps: the number of bisection steps.
        batch_size: how many inputs are bounded at once, by `jax.vmap`; default: one.

    Returns:
        A function that takes the weights and a batch of inputs and returns radii `[examples]`.
    """
    same = unchanged(network, method=method)

    def radii(params: PyTree, inputs: Array) -> Array:
        def one(x: Array) -> Array:
            def certified(r: Array) -> Array:
                return same(params, around(params, r), x[None])[0]

            return largest_certified(certified, most, steps=steps)

        return jax.lax.map(one, inputs, batch_size=batch_size)

    return radii


def accuracy_radius(radii: Array, correct: Array, margin: ArrayLike) -> Array:
    """The largest radius up to which the accuracy is certified to fall by no more than a margin.

    Args:
        radii: for every example, the radius up to which its class does not change, as returned by
            `stable_radii`.
        correct: for every example, whether it is classified correctly without perturbation.
        margin: the fraction of all examples, from 0 to 1, that may be lost.

    Returns:
        A radius; infinite where all examples may be lost.
    """
    ordered = jnp.sort(where(correct, radii, jnp.inf))
    lost = jnp.floor(jnp.asarray(margin) * len(radii) + 1e-6).astype(int)
    return jnp.append(ordered, jnp.inf)[jnp.minimum(lost, len(radii))]
