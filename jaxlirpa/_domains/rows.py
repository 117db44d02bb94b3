"""Rows of affine functions of one value, which both linear domains speak of."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlirpa._typing import Array, matrix


class Side(NamedTuple):
    """Affine rows: coefficients `[rows, *shape]` and offset `[rows]`."""

    coefficients: Array
    offset: Array


def inner(rows: Array, value: Array) -> Array:
    """The inner product of every row with a value."""
    return jnp.matmul(matrix(rows), value.reshape(-1), precision=jax.lax.Precision.HIGHEST)
