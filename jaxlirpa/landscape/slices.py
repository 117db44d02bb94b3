"""A loss on a plane through the weights, enclosed between the points where it is drawn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxlirpa._methods.forward import forward_crown
from jaxlirpa._types import Array, PyTree
from jaxlirpa.landscape.band import Method
from jaxlirpa.sets import Box


class Slice(NamedTuple):
    """A loss on a square of a plane, at the corners of cells, and its bounds in each of them.

    Attributes:
        edges: `[cells + 1]`, the coordinates of the corners on both axes.
        values: `[cells + 1, cells + 1]`, of the loss, by the first coordinate and the second.
        lower: `[cells, cells]`, below the loss everywhere in the cell.
        upper: `[cells, cells]`, above it.
    """

    edges: Array
    values: Array
    lower: Array
    upper: Array


def random_directions(key: Array, params: PyTree) -> tuple[PyTree, PyTree]:
    """Two random directions that are orthonormal on every leaf of two or more axes, zero elsewhere.

    So the weights at the coordinates `(a, b)` are at the edge of the neighbourhood `every_matrix`
    of radius `sqrt(a**2 + b**2)`.

    Args:
        key: of the random numbers.
        params: pytree of arrays.
    """
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, max(len(leaves), 1))

    def pair(leaf: Array, key: Array) -> tuple[Array, Array]:
        if jnp.ndim(leaf) < 2:
            return jnp.zeros_like(leaf), jnp.zeros_like(leaf)
        basis, _ = jnp.linalg.qr(jax.random.normal(key, (leaf.size, 2), leaf.dtype))
        first, second = (basis[:, i].reshape(leaf.shape) for i in range(2))
        return first, second

    pairs = [pair(leaf, own) for leaf, own in zip(leaves, keys, strict=True)]
    first, second = (jax.tree.unflatten(structure, [p[i] for p in pairs]) for i in range(2))
    return first, second


def certified_slice(
    loss: Callable[..., Array],
    directions: tuple[PyTree, PyTree],
    *,
    extent: float,
    cells: int = 20,
    method: Method = forward_crown,
) -> Callable[..., Slice]:
    """The loss on a square around the weights, and bounds of it in every cell of a grid.

    A cell is a set of two coordinates: whatever the number of weights, two numbers are perturbed.
    So forward bounds have two coefficients a value, and small cells make the band narrow. Behind
    the first layer, values and weights both vary, and their products are bounded entry by entry:
    a cell takes the memory of examples times weights of one layer, so few examples are enough.

    Args:
        loss: function of the weights and of data, to a number.
        directions: two, shaped like the weights, that span the plane.
        extent: the coordinates are from minus this to this.
        cells: on either axis; bounded one after the other.
        method: a transform, as `jaxlirpa.crown`.

    Returns:
        A function of loss's arguments to a `Slice`.
    """

    def found(params: PyTree, *data: Any) -> Slice:
        def at(place: Array) -> Array:
            def moved(w: Array, a: Array, b: Array) -> Array:
                return w + (place[0] * a + place[1] * b)

            return loss(jax.tree.map(moved, params, *directions), *data)

        edges = jnp.linspace(-extent, extent, cells + 1)
        corners, low, high = (_pairs(x) for x in (edges, edges[:-1], edges[1:]))
        values = jax.lax.map(at, corners).reshape(cells + 1, cells + 1)
        lower, upper = jax.lax.map(lambda cell: method(at)(Box(*cell)), (low, high))
        return Slice(edges, values, lower.reshape(cells, cells), upper.reshape(cells, cells))

    return found


def _pairs(x: Array) -> Array:
    """All pairs of entries, `[n * n, 2]`."""
    return jnp.stack(jnp.meshgrid(x, x, indexing="ij"), -1).reshape(-1, 2)
