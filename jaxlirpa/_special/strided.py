"""Strided convolutions, written so that their transpose is cheap.

XLA transposes a convolution of stride `s` in `n` dimensions by spreading its input with zeros and
convolving that: of `s^n` multiplications one is not with zero. The same convolution is a
rearrangement of every `s x s` block of pixels into channels followed by a convolution of stride
one, and both of these have transposes without waste. Values are the same, and so is the transpose
as a linear map; only its speed differs (three times, on the images of a small network).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxlirpa._graph.graph import Node
from jaxlirpa._typing import Array


def transposable(node: Node) -> Node:
    """The node, or an equal one whose transpose is cheaper."""
    if node.primitive != "conv_general_dilated" or node.positions != (0,):
        return node
    p = node.params
    plain = (
        max(p["window_strides"], default=1) > 1
        and {*p["lhs_dilation"], *p["rhs_dilation"]} == {1}
        and p["feature_group_count"] == p["batch_group_count"] == 1
    )
    return dataclasses.replace(node, bind=lambda x, w: (_blocked(x, w, node),)) if plain else node


def _blocked(x: Array, kernel: Array, node: Node) -> Array:
    """The convolution by blocks of pixels."""
    strides, numbers = node.params["window_strides"], node.params["dimension_numbers"]
    batch, features, *space = numbers.lhs_spec
    out_features, in_features, *kernel_space = numbers.rhs_spec
    image = jnp.transpose(x, (batch, *space, features))
    window = jnp.transpose(kernel, (*kernel_space, in_features, out_features))
    sizes = [node.outputs[0].shape[i] for i in numbers.out_spec[2:]]
    reach = [math.ceil(k / s) for k, s in zip(window.shape, strides, strict=False)]
    pads = [
        (low, (out + r - 1) * s - length - low, 0)
        for (low, _), out, r, s, length in zip(
            node.params["padding"], sizes, reach, strides, image.shape[1:], strict=False
        )
    ]
    zero = jnp.zeros((), x.dtype)
    image = jax.lax.pad(image, zero, [(0, 0, 0), *pads, (0, 0, 0)])
    extra = [(0, r * s - k, 0) for r, s, k in zip(reach, strides, window.shape, strict=False)]
    window = jax.lax.pad(window, zero, [*extra, (0, 0, 0), (0, 0, 0)])
    result = jax.lax.conv_general_dilated(
        _to_channels(image, strides, lead=1),
        _to_channels(window, strides, lead=0),
        window_strides=(1,) * len(strides),
        padding="VALID",
        dimension_numbers=_canonical(len(strides)),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=node.params["preferred_element_type"],
    )
    order = (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1])
    return jnp.transpose(result, [order.index(i) for i in range(len(order))])


def _to_channels(x: Array, strides: Sequence[int], lead: int) -> Array:
    """Blocks of pixels moved into the channels, which are the first axis after the spatial ones."""
    n = len(strides)
    space, rest = x.shape[lead : lead + n], x.shape[lead + n :]
    split = [part for size, s in zip(space, strides, strict=True) for part in (size // s, s)]
    blocks = x.reshape(*x.shape[:lead], *split, *rest)
    coarse = [lead + 2 * i for i in range(n)]
    fine = [i + 1 for i in coarse]
    tail = range(lead + 2 * n, blocks.ndim)
    moved = jnp.transpose(blocks, (*range(lead), *coarse, *fine, *tail))
    kept = [size // s for size, s in zip(space, strides, strict=True)]
    channels = math.prod(strides) * rest[0]
    return moved.reshape(*x.shape[:lead], *kept, channels, *rest[1:])


def _canonical(n: int) -> tuple[str, str, str]:
    """Channels last: the layout that XLA is fast in everywhere."""
    space = "DHW"[3 - n :]
    return f"N{space}C", f"{space}IO", f"N{space}C"
