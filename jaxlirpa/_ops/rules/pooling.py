"""Max pooling and its derivatives: every place of the window is a slice of the image.

Max pooling itself becomes the largest of these slices, entry by entry. Slices, unlike an array that
stacks them, are images again, so that windows of coefficients (`_domains/windows.py`) pass.

Of `y = max over the places k of x_k`, where `x_k` is the image seen from the place `k`, JAX writes
the derivatives in terms of who wins: forwards, `dy = sum over k of [k wins] dx_k`, and backwards
the transpose of it, in which an entry receives the cotangents of all windows that it wins.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops.rules.maxima import least
from jaxlirpa._types import Array, Shaped


class Windows(NamedTuple):
    """What the places of all windows see of an image.

    Attributes:
        parts: from the image to one array for each place, with zeros for the padding.
        mask: `[places, *windows]`, False where a place sees padding.
    """

    parts: Callable[[Array], Sequence[Array]]
    mask: np.ndarray

    def slices(self, x: Array) -> Array:
        """What all places see, `[places, *windows]`."""
        return jnp.stack(self.parts(x))


def seen(params: Mapping[str, Any], shape: Sequence[int], sizes: Sequence[int]) -> Windows:
    """The windows of a pooling from an image of some shape to one of some sizes."""
    window, ones = params["window_dimensions"], (1,) * len(sizes)
    strides, spacing = params["window_strides"], params.get("window_dilation", ones)
    holes = params.get("base_dilation", ones)
    pads = [(*pad, d - 1) for pad, d in zip(params["padding"], holes, strict=True)]

    def parts(x: Array) -> Sequence[Array]:
        padded = lax.pad(x, jnp.zeros((), x.dtype), pads)
        parts = []
        for place in np.ndindex(*window):
            start = [p * d for p, d in zip(place, spacing, strict=True)]
            stop = [a + (n - 1) * s + 1 for a, n, s in zip(start, sizes, strides, strict=True)]
            parts.append(lax.slice(padded, start, stop, strides))
        return parts

    with jax.ensure_compile_time_eval():
        return Windows(parts, np.stack(parts(jnp.ones(shape, jnp.float32))) > 0)


def _windows(build: Builder, node: Node) -> Sequence[Value] | None:
    """Max pooling: every place of the window is a slice of the image; what is padded is masked."""
    (x,), sizes = node.operands, node.outputs[0].shape
    if not isinstance(x, Ref) or math.prod(sizes) == 0:
        return None
    parts, mask = seen(node.params, build.aval(x).shape, sizes)
    if not mask.any(0).all():  # a window of nothing but padding
        return None
    slices = tuple(build.apply(parts, node.source, x))
    kept = None if mask.all() else mask

    def bind(*slices: Array) -> tuple[Array, ...]:
        counted = slices
        if kept is not None:
            pairs = zip(kept, slices, strict=True)
            counted = tuple(jnp.where(own, x, least(x.dtype)) for own, x in pairs)
        return (functools.reduce(jnp.maximum, counted),)

    return build.append("largest", slices, {"mask": kept}, bind, node.outputs, node.source)


def _smallest_windows(build: Builder, node: Node) -> Sequence[Value] | None:
    """As the largest entries of the negated image."""
    (x,) = build.apply(jnp.negative, node.source, *node.operands)
    negated = Node("reduce_window_max", (x,), node.params, node.bind, node.outputs, node.source)
    found = _windows(build, negated)
    return None if found is None else build.apply(jnp.negative, node.source, *found)


def _winners(
    build: Builder, node: Node, x: Value, windows: Windows, wins: Callable[[Array], Array]
) -> Value:
    """Which place of every window has the largest entry of `x`, or the smallest.

    Args:
        build: the nodes so far.
        node: the derivative that asks.
        x: the image that was pooled.
        windows: of the pooling.
        wins: evaluates the result at an image, with ties as the derivative decides them.
    """
    if not isinstance(x, Ref):
        return wins(x)
    params = {"slices": windows.slices, "mask": windows.mask, "sign": _sign(node)}
    result: Shaped = jax.ShapeDtypeStruct(windows.mask.shape, np.dtype(bool))
    return build.append("wins", (x,), params, lambda x: (wins(x),), (result,), node.source)[0]


def _sign(node: Node) -> int:
    """1 where the largest entries win, -1 where the smallest do."""
    return -1 if node.params["select_prim"] is lax.le_p else 1


def _pooled_tangents(build: Builder, node: Node) -> Sequence[Value] | None:
    """Of every window of max pooling, the tangent of the entry that wins."""
    tangents, x = node.operands
    windows = seen(node.params, build.aval(x).shape, node.outputs[0].shape)

    def wins(x: Array) -> Array:
        # Which of equal entries wins is the compiler's affair: it is asked for the number of the
        # winner, which is zero where there is none but padding.
        x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        numbers = (1 + jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)
        return windows.slices(numbers) == node.bind(numbers, x)[0]

    def gather(wins: Array, tangents: Array) -> Array:
        return jnp.sum(jnp.where(wins, windows.slices(tangents), 0), 0)

    winners = _winners(build, node, x, windows, wins)
    return build.apply(gather, node.source, winners, tangents)


def _pooled_cotangents(build: Builder, node: Node) -> Sequence[Value] | None:
    """The gradient of max pooling: every entry's sum over the windows that it wins."""
    source, x = node.operands
    aval = build.aval(x)
    windows = seen(node.params, aval.shape, build.aval(source).shape)

    def wins(x: Array) -> Array:
        # The first of equal entries wins, in the order of the places.
        candidates = jnp.where(windows.mask, _sign(node) * windows.slices(x), -jnp.inf)
        places = jnp.arange(len(candidates)).reshape(-1, *[1] * x.ndim)
        return jnp.argmax(candidates, 0) == places

    def scatter(wins: Array, source: Array) -> Array:
        (result,) = jax.linear_transpose(windows.slices, aval)(jnp.where(wins, source, 0))
        return result

    winners = _winners(build, node, x, windows, wins)
    return build.apply(scatter, node.source, winners, source)


RULES: dict[str, tuple[Rule, ...]] = {
    "reduce_window_max": (_windows,),
    "reduce_window_min": (_smallest_windows,),
    "select_and_gather_add": (_pooled_tangents,),
    "select_and_scatter_add": (_pooled_cotangents,),
}
