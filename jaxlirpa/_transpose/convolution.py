"""Transposes of convolutions, written so that they are cheap.

XLA transposes a convolution of stride `s` in `n` dimensions by spreading its input with zeros and
convolving that: of `s^n` multiplications one is not with zero. The same convolution is a
rearrangement of every `s x s` block of pixels into channels followed by a convolution of stride
one, and both of these have transposes without waste. Values are the same, and so is the transpose
as a linear map; only its speed differs (three times, on the images of a small network).

The transpose of a convolution of stride one is a convolution with the kernel turned around. JAX
leaves the turning to XLA, which outside of loops is as fast, and inside of them 15 times slower on
CPUs than with the axes in its favourite order; so here the kernel is turned before. The padding is
written out as well: in the derivative with respect to the kernel XLA else exchanges the operands of
a convolution whose window is larger than its image, and computes that ten times slower on CPUs.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxlirpa._graph.graph import Node
from jaxlirpa._mesh import vary, varying
from jaxlirpa._types import Array, Shaped


def turnable(node: Node) -> bool:
    """Whether a node is a convolution whose kernel can be turned: a known one, of one group."""
    if node.primitive != "conv_general_dilated" or node.positions != (0,):
        return False
    p = node.params
    (kernel,) = node.known
    whole = p["feature_group_count"] == p["batch_group_count"] == 1
    dense = all(
        s == 1 or d == 1 for s, d in zip(p["window_strides"], p["rhs_dilation"], strict=True)
    )
    same = kernel.dtype == node.outputs[0].dtype
    return whole and dense and same and set(p["lhs_dilation"]) <= {1}


def transpose(node: Node, avals: Sequence[Shaped]) -> Callable[..., tuple[Array, ...]]:
    """The transpose of an affine node's linear part, as by `jax.linear_transpose`."""
    if not turnable(node):
        pull_back = jax.linear_transpose(node, *avals)
        types = tuple(map(varying, node.outputs))
        return lambda cotangents: pull_back(tuple(map(vary, cotangents, types)))
    (aval,), (kernel,) = avals, node.known
    numbers = node.params["dimension_numbers"]
    order = (numbers.out_spec[0], *numbers.out_spec[2:], numbers.out_spec[1])
    window = _window(kernel, node)
    seen = _seen(node, aval)
    blocks = jax.linear_transpose(functools.partial(_image, node=node, seen=seen), aval)

    def pull(cotangents: tuple[Array]) -> tuple[Array]:
        (cotangent,) = cotangents
        return blocks(_turned(jnp.transpose(cotangent, order), window, node, seen))

    return pull


def transpose_inside(node: Node, aval: Shaped) -> Callable[[Array], Array]:
    """The transpose of a turnable convolution as one of images with channels last and no padding.

    Args:
        node: the convolution.
        aval: of its operand then, `[images, *space, channels]`.
    """
    (kernel,) = node.known
    params, space = node.params, aval.shape[1:-1]
    lengths = [kernel.shape[i] for i in params["dimension_numbers"].rhs_spec[2:]]
    steps = zip(space, lengths, params["window_strides"], params["rhs_dilation"], strict=True)
    sizes = [(length - (k - 1) * d - 1) // s + 1 for length, k, s, d in steps]
    window = _window(kernel, node)
    counts = _counts(node, sizes)
    whole = [(0, count) for count in counts]
    blocks = jax.linear_transpose(lambda x: _blocks(x, node, counts, [0] * len(sizes)), aval)
    return lambda cotangent: blocks(_turned(cotangent, window, node, whole))[0]


def _reach(node: Node) -> list[int]:
    """How many blocks of pixels the kernel covers along every axis."""
    sizes = (node.known[0].shape[i] for i in node.params["dimension_numbers"].rhs_spec[2:])
    return [math.ceil(k / s) for k, s in zip(sizes, node.params["window_strides"], strict=True)]


def _counts(node: Node, sizes: Sequence[int]) -> list[int]:
    """The number of blocks of the padded image along every axis, for an output of some size."""
    steps = zip(sizes, _reach(node), node.params["rhs_dilation"], strict=True)
    return [size + (r - 1) * d for size, r, d in steps]


def _seen(node: Node, aval: Shaped) -> list[tuple[int, int]]:
    """The first block that has a pixel of the image, and the one behind the last, on every axis.

    The others are padding, whose part of the transpose is not asked for.
    """
    numbers, strides = node.params["dimension_numbers"], node.params["window_strides"]
    counts = _counts(node, [node.outputs[0].shape[i] for i in numbers.out_spec[2:]])
    lengths = [aval.shape[i] for i in numbers.lhs_spec[2:]]
    seen = []
    for count, length, s, (low, _) in zip(
        counts, lengths, strides, node.params["padding"], strict=True
    ):
        first, end = max(low, 0) // s, min(-(-(low + length) // s), count)
        seen.append((first, end) if first < end else (0, count))
    return seen


def _image(x: Array, node: Node, seen: Sequence[tuple[int, int]]) -> Array:
    """Some blocks of the image, padded, with channels last; their pixels are channels."""
    batch, features, *space = node.params["dimension_numbers"].lhs_spec
    steps = zip(node.params["padding"], seen, node.params["window_strides"], strict=True)
    low = [before - first * s for (before, _), (first, _), s in steps]
    counts = [end - first for first, end in seen]
    return _blocks(jnp.transpose(x, (batch, *space, features)), node, counts, low)


def _blocks(image: Array, node: Node, counts: Sequence[int], low: Sequence[int]) -> Array:
    """Blocks of pixels as channels, so many of them, of an image with channels last.

    Args:
        image: `[images, *space, channels]`.
        node: the convolution.
        counts: of blocks, along every axis.
        low: where the image begins in the first of them.
    """
    strides = node.params["window_strides"]
    steps = zip(counts, strides, image.shape[1:-1], low, strict=True)
    pads = [(before, count * s - length - before, 0) for count, s, length, before in steps]
    zero = jnp.zeros((), image.dtype)
    return _to_channels(jax.lax.pad(image, zero, [(0, 0, 0), *pads, (0, 0, 0)]), strides, lead=1)


def _window(kernel: Array, node: Node) -> Array:
    """The kernel for such an image, `[*space, in, out]`."""
    strides, numbers = node.params["window_strides"], node.params["dimension_numbers"]
    out_features, in_features, *space = numbers.rhs_spec
    window = jnp.transpose(kernel, (*space, in_features, out_features))
    sizes = zip(_reach(node), strides, window.shape, strict=False)
    extra = [(0, r * s - k, 0) for r, s, k in sizes]
    window = jax.lax.pad(window, jnp.zeros((), kernel.dtype), [*extra, (0, 0, 0), (0, 0, 0)])
    return _to_channels(window, strides, lead=0)


def _turned(cotangent: Array, window: Array, node: Node, seen: Sequence[tuple[int, int]]) -> Array:
    """The transpose of a convolution of stride one without padding, at some blocks of the image."""
    n = len(node.params["window_strides"])
    turned = jnp.swapaxes(jnp.flip(window, range(n)), n, n + 1)
    dilation = node.params["rhs_dilation"]
    reach = [(k - 1) * d for k, d in zip(window.shape[:n], dilation, strict=True)]
    steps = zip(reach, cotangent.shape[1:-1], seen, strict=True)
    inner = [(r - first, end - size, 0) for r, size, (first, end) in steps]
    pads = [(0, 0, 0), *inner, (0, 0, 0)]
    return jax.lax.conv_general_dilated(
        jax.lax.pad(cotangent, jnp.zeros((), cotangent.dtype), pads),
        turned,
        window_strides=(1,) * n,
        padding=[(0, 0)] * n,
        rhs_dilation=dilation,
        dimension_numbers=_canonical(n),
        precision=jax.lax.Precision.HIGHEST,
    )


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
