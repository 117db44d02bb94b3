"""Weights rounded to a few bits, and the certificate that this changes no prediction.

Uniform and symmetric: `2**bits - 1` levels from minus the largest modulus to the largest, of a
whole array or of every channel of it. Rounding moves no weight by more than half a step, so the
box of half a step around the weights contains the quantised ones, however ties are broken, and a
box of a whole step those of any rounding to a neighbouring level (stochastic rounding, say).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import where
from jaxlirpa._errors import ArgumentError
from jaxlirpa._methods.crown import crown
from jaxlirpa._types import Array, ArrayLike, PyTree
from jaxlirpa.landscape.band import Method
from jaxlirpa.landscape.predictions import unchanged
from jaxlirpa.sets import Box
from jaxlirpa.sets.base import holds

NEVER = int(np.iinfo(np.int32).max)
"""The number of bits where none is certified: more than any number of bits."""


def quantise(params: PyTree, bits: ArrayLike, channel_axis: int | None = None) -> PyTree:
    """The weights, rounded to `2**bits - 1` levels.

    Leaves of two or more axes are rounded (kernels); biases and scales stay as they are, which are
    few and cheap to keep.

    Args:
        params: pytree of arrays.
        bits: a whole number, at least 2; may be traced.
        channel_axis: the axis along which every channel has a largest modulus of its own, as -1 for
            the outputs of dense and convolutional kernels; None: one for the whole array.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import landscape
        >>> print(landscape.quantise(jnp.array([[0.9, -0.4, 0.1, 1.0]]), 2))
        [[ 1. -0.  0.  1.]]
    """

    def rounded(leaf: Array) -> Array:
        step = _step(leaf, bits, channel_axis)
        return step * jnp.round(leaf / where(step > 0, step, 1))

    return jax.tree.map(lambda x: rounded(x) if jnp.ndim(x) > 1 else x, params)


def quantisation_cell(
    params: PyTree, bits: ArrayLike, channel_axis: int | None = None, *, steps: float = 0.5
) -> PyTree:
    """The box of all weights that rounding may make of these, which are in it themselves.

    Args:
        params, bits, channel_axis: see `quantise`.
        steps: by how much rounding may move a weight, in steps between levels: half a one to the
            nearest, one for any rounding to a neighbour.

    Returns:
        The weights, with a `Box` in the place of every leaf of two or more axes. It contains
        the result of `quantise` bit by bit: what is rounded beyond half a step is taken in.
    """

    def box(leaf: Array, nearest: Array) -> PyTree:
        if jnp.ndim(leaf) < 2:
            return leaf
        reach = steps * _step(leaf, bits, channel_axis)
        return Box(jnp.minimum(leaf - reach, nearest), jnp.maximum(leaf + reach, nearest))

    return jax.tree.map(box, params, quantise(params, bits, channel_axis))


def certified_bits(
    network: Callable[..., Array],
    bits: Sequence[int] = range(2, 17),
    *,
    channel_axis: int | None = None,
    method: Method = crown,
    batch_size: int | None = None,
) -> Callable[..., Array]:
    """The smallest number of bits, input by input, for which quantising surely keeps its class.

    The box of fewer bits contains that of more, so what holds for one number holds for all
    larger ones.

    Args:
        network: function of the weights and a batch of inputs, to logits `[examples, classes]`.
        bits: the numbers to try.
        channel_axis: see `quantise`.
        method: a transform, as `jaxlirpa.crown`.
        batch_size: how many inputs are bounded at once, by `jax.vmap`; default: one.

    Returns:
        A function of the weights and a batch of inputs to integers `[examples]`;
        `landscape.NEVER` where none of `bits` is certified.
    """
    _check(min(bits))
    same = unchanged(network, method=method, batch_size=batch_size)

    def smallest(params: PyTree, inputs: Array) -> Array:
        def certified(count: Array) -> Array:
            return same(params, quantisation_cell(params, count, channel_axis), inputs)

        numbers = jnp.asarray(sorted(bits), jnp.int32)
        found = jax.lax.map(certified, numbers)
        return jnp.min(where(found, numbers[:, None], NEVER), 0)

    return smallest


def _step(leaf: Array, bits: ArrayLike, channel_axis: int | None) -> Array:
    """The distance of two levels."""
    _check(bits)
    ndim = jnp.ndim(leaf)
    own = () if channel_axis is None else (channel_axis % ndim,)
    largest = jnp.max(jnp.abs(leaf), [i for i in range(ndim) if i not in own], keepdims=True)
    return largest / (2 ** (jnp.asarray(bits, leaf.dtype) - 1) - 1)


def _check(bits: ArrayLike) -> None:
    if not holds(jnp.asarray(bits) >= 2):
        raise ArgumentError(f"symmetric levels take 2 bits or more, not {bits}.")
