"""Rows of affine functions of one value, which both linear domains speak of.

Where a value has an axis of independent examples, a row holds one functional of each of them. It is
one array of coefficients, as no functional has any on another example, and a number an example.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp

from jaxlirpa._arrays import row_products, sums
from jaxlirpa._types import Array


class AffineRows(NamedTuple):
    """Affine rows: coefficients `[rows, *shape]` and offset `[rows]`, or `[rows, examples]`."""

    coefficients: Array
    offset: Array

    @property
    def by_example(self) -> bool:
        """Whether a row is a functional of each example."""
        return self.offset.ndim > 1


def total(a: Array | None, b: Array | None) -> Array | None:
    """The sum of two slacks, either of which may be none."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def numbered(x: Array, axis: int | None) -> Array:
    """The entries of a value as rows: `[entries]`, or `[entries of one example, examples]`."""
    if axis is None:
        return x.reshape(-1)
    return jnp.moveaxis(x, axis, -1).reshape(-1, x.shape[axis])


def arranged(rows: Array, shape: Sequence[int], axis: int | None) -> Array:
    """The value whose entries are the rows; the inverse of `numbered`."""
    if axis is None:
        return rows.reshape(shape)
    others = (*shape[:axis], *shape[axis + 1 :])
    return jnp.moveaxis(rows.reshape(*others, shape[axis]), -1, axis)


def placed(rows: Array, shape: Sequence[int], axis: int | None) -> Array:
    """Coefficients `[rows, *shape]` from those on the entries that `numbered` numbers.

    Args:
        rows: `[rows, ...entries]`; with examples, `[rows, examples, ...entries]`, or with one in
            the place of examples where they are the same for all.
        shape: of the value.
        axis: that indexes examples.
    """
    if axis is None:
        return rows.reshape(len(rows), *shape)
    others = (*shape[:axis], *shape[axis + 1 :])
    each = jnp.moveaxis(rows.reshape(*rows.shape[:2], *others), 1, axis + 1)
    return jnp.broadcast_to(each, (len(rows), *shape))


def inner_products(pairs: Sequence[tuple[Array, Array]], axis: int | None) -> Array:
    """The inner products of rows with their values, or with the same for all; summed over pairs.

    Args:
        pairs: of rows `[rows, *shape]` and values of the same shape, or with one row for all.
        axis: of `shape`, that indexes examples, each of which has a product of its own.

    Returns:
        `[rows]` or `[rows, examples]`.
    """
    if axis is None and all(len(values) == 1 for _, values in pairs):
        return functools.reduce(jnp.add, (row_products(rows, values[0]) for rows, values in pairs))
    return sums(functools.reduce(jnp.add, (rows * values for rows, values in pairs)), axis)
