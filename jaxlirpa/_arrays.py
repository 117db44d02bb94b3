"""Algebra of plain arrays, traced once."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._types import Array, ArrayLike, Shaped

_Args = ParamSpec("_Args")
_Result = TypeVar("_Result")


def traced_once(*static: str) -> Callable[[Callable[_Args, _Result]], Callable[_Args, _Result]]:
    """Traces a function once for arguments alike; afterwards its equations are copied.

    For small functions that every bound calls often: most of the time before a program is compiled
    goes into tracing them.

    Args:
        static: the names of the arguments that are no arrays.
    """
    return functools.partial(jax.jit, static_argnames=static, inline=True)


def where(condition: ArrayLike, x: ArrayLike, y: ArrayLike) -> Array:
    """`jnp.where`, without the call of its own that JAX traces and lowers for each.

    Args:
        condition, x, y: broadcast with each other. Python's numbers take the type of the other one.
    """
    if not (hasattr(x, "dtype") or hasattr(y, "dtype")):
        return jnp.where(condition, x, y)
    dtype = jnp.result_type(x, y)
    shape = np.broadcast_shapes(jnp.shape(condition), jnp.shape(x), jnp.shape(y))
    return jax.lax.select(
        _spread(condition, shape, jnp.dtype(bool)),
        _spread(x, shape, dtype),
        _spread(y, shape, dtype),
    )


def _spread(x: ArrayLike, shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of a shape and a type."""
    own = jnp.shape(x)
    if not own:
        return jax.lax.full(shape, x, dtype)
    array = jax.lax.convert_element_type(x, dtype)
    if own == shape:
        return array
    axes = range(len(shape) - len(own), len(shape))
    return jax.lax.broadcast_in_dim(array, shape, tuple(axes))


def is_floating(x: Array | Shaped) -> bool:
    """Whether an array holds real numbers, and no truth values or integers."""
    return bool(jnp.issubdtype(x.dtype, jnp.floating))


def is_half(x: Array | Shaped) -> bool:
    """Whether an array holds numbers of 16 bits, bfloat16 or float16."""
    return x.dtype in (jnp.bfloat16, jnp.float16)


def matrix(x: Array) -> Array:
    """`x` with all axes behind the first as one; also where one has length zero."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


@traced_once()
def row_products(rows: Array, value: Array) -> Array:
    """The inner product of every row `[rows, *shape]` with a value `[*shape]`."""
    return jnp.matmul(matrix(rows), value.reshape(-1), precision=jax.lax.Precision.HIGHEST)


@traced_once("axis")
def sums(entries: Array, axis: int | None = None) -> Array:
    """The sum of the entries of every row `[rows, *shape]`, or of those of every example in it.

    It is a product with ones: along the last axis XLA adds up several times slower on a CPU.

    Args:
        entries: `[rows, *shape]`.
        axis: of `shape`, that indexes the examples.

    Returns:
        `[rows]` or `[rows, examples]`.
    """
    shape = entries.shape[1:]
    if axis is None:
        return row_products(entries, jnp.ones(shape, entries.dtype))
    before, behind = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    rows = entries.reshape(len(entries) * before * shape[axis], behind)
    found = row_products(rows, jnp.ones(behind, entries.dtype))
    return found.reshape(len(entries), before, shape[axis]).sum(1)


@traced_once("shape")
def summed_product(a: Array, b: Array, shape: tuple[int, ...]) -> Array:
    """`a * b`, summed over the axes along which `shape` has length one.

    Where the two repeat each other's entries along an axis, this is a matrix product, and their
    entry-by-entry product is never stored.

    Args:
        a, b: arrays that broadcast, of as many axes as `shape`.
        shape: of the result.
    """
    full = np.broadcast_shapes(a.shape, b.shape)
    axes = tuple(i for i, n in enumerate(full) if n != 1 and shape[i] == 1)
    if not axes or all(x.shape[i] != 1 for x in (a, b) for i in range(len(full)) if full[i] != 1):
        return jnp.sum(a * b, axes, keepdims=True) if axes else a * b
    varying = [[i for i, n in enumerate(x.shape) if n != 1] for x in (a, b)]
    kept = [i for i, n in enumerate(full) if n != 1 and i not in axes]
    squeezed = [
        x.reshape([x.shape[i] for i in own]) for x, own in zip((a, b), varying, strict=True)
    ]
    pairs = (part for pair in zip(squeezed, varying, strict=True) for part in pair)
    return jnp.einsum(*pairs, kept, precision=jax.lax.Precision.HIGHEST).reshape(shape)


def dual(ord: float) -> float:
    """The order of the norm that bounds inner products with the unit ball of `ord` (Hölder)."""
    return ord / (ord - 1) if ord > 1 else math.inf


@traced_once("ord")
def norm(x: Array, ord: float) -> Array:
    """Norm over the last axis, without overflow, and with a derivative of zero at zero.

    `norm(x) = m norm(x / m)` for the largest modulus `m`, so `m` needs no derivative.
    """
    size = jnp.abs(x)
    if math.isinf(ord):
        return jnp.max(size, axis=-1, initial=0)
    largest = jax.lax.stop_gradient(jnp.max(size, axis=-1, keepdims=True, initial=0))
    some = largest > 0
    power = jnp.sum((size / where(some, largest, 1)) ** ord, axis=-1, keepdims=True)
    norm = largest * where(some, power, 1) ** (1 / ord)
    return where(some | jnp.isnan(largest), norm, 0)[..., 0]
