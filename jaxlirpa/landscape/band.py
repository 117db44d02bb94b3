"""How high and how low a loss can get within a distance of the weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxlirpa._methods.crown import crown_ibp
from jaxlirpa._types import Array, ArrayLike, Bounds, PyTree
from jaxlirpa.landscape.neighbourhoods import Neighbourhood, every_matrix
from jaxlirpa.landscape.reading import require_read

Method: TypeAlias = Callable[..., Callable[..., Any]]


def certified_band(
    loss: Callable[..., Array],
    radii: ArrayLike,
    *,
    around: Neighbourhood = every_matrix,
    method: Method = crown_ibp,
) -> Callable[..., Bounds]:
    """Bounds of a loss over neighbourhoods of the weights, of several radii.

    No weights in the neighbourhood of radius `radii[k]` have a loss below `lower[k]` or above
    `upper[k]`. A loss that is the mean over a batch is bounded as that mean, with one functional of
    the weights for all examples; that is tighter than a mean of bounds, as no weights are worst
    for all examples at once, and takes the memory of one example's.

    Args:
        loss: function of the weights and of data, to a number.
        radii: `[radii]`, of the neighbourhoods; bounded one after the other.
        around: the neighbourhood of the weights of a radius.
        method: a transform, as `jaxlirpa.crown`.

    Returns:
        A function of loss's arguments to `Bounds` of shape `[radii]`.

    Raises:
        ArgumentError: by the returned function, where the loss does not read some of the weights in
            the neighbourhood; and what `method` raises.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import landscape
        >>> loss = lambda params, x: jnp.mean((x @ params["w"]) ** 2)
        >>> params, x = {"w": jnp.eye(2)}, jnp.array([[3.0, 4.0]])
        >>> print(landscape.certified_band(loss, [0.0, 0.1])(params, x).upper)
        [12.5  15.25]
    """

    def band(params: PyTree, *data: Any) -> Bounds:
        distances = jnp.asarray(radii, float)
        require_read(loss, around(params, 0.0), *data)
        return jax.lax.map(lambda r: method(loss)(around(params, r), *data), distances)

    return band


def flat_loss(
    loss: Callable[..., Array],
    *,
    around: Neighbourhood = every_matrix,
    method: Method = crown_ibp,
) -> Callable[..., Array]:
    """An upper bound of a loss over a neighbourhood of the weights, as an objective to minimise.

    Weights that make it small have no weights with a large loss anywhere near (Xu et al.
    2020). Like every bound it is differentiable, with respect to the weights and to the
    radius; a radius that grows from zero, by an optax schedule, makes training easier.

    Args:
        loss: function of the weights and of data, to a number.
        around: the neighbourhood of the weights of a radius.
        method: a transform, as `jaxlirpa.crown`.

    Returns:
        A function of the weights, a radius and the data, to a number.

    Raises:
        As `certified_band`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxlirpa import landscape
        >>> loss = lambda params, x: jnp.mean((x @ params["w"]) ** 2)
        >>> params, x = {"w": jnp.eye(2)}, jnp.array([[3.0, 4.0]])
        >>> print(f'{jax.grad(landscape.flat_loss(loss))(params, 0.1, x)["w"][0, 0]:.2f}')
        9.90
    """

    def worst(params: PyTree, radius: ArrayLike, *data: Any) -> Array:
        sets = around(params, radius)
        require_read(loss, sets, *data)
        return method(loss)(sets, *data).upper

    return worst
