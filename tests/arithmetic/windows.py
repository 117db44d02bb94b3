"""Padding, and what reads windows of an array: convolutions and pooling."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from arithmetic.arrays import least, most

Array = np.ndarray
Rule = Callable[..., Any]


def padded(x: Array, config: Sequence[tuple[int, int, int]], value: Any) -> Array:
    """With entries before, behind and in between; of negative numbers some are left out.

    Args:
        x: the array.
        config: an axis: how many entries before the first, behind the last, between two.
        value: what these are.
    """
    sizes = [
        low + max(n + (n - 1) * inner, 0) + high
        for n, (low, high, inner) in zip(x.shape, config, strict=True)
    ]
    out = np.full([max(n, 0) for n in sizes], value, x.dtype)
    read, write = [], []
    for n, m, (low, _, inner) in zip(x.shape, out.shape, config, strict=True):
        places = low + np.arange(n) * (inner + 1)
        inside = (places >= 0) & (places < m)
        read.append(np.flatnonzero(inside))
        write.append(places[inside])
    out[np.ix_(*write)] = x[np.ix_(*read)]
    return out


def shifted(
    x: Array, shape: Sequence[int], window: Sequence[int], strides: Any, dilation: Any
) -> Iterator[tuple[tuple[int, ...], Array]]:
    """For every place in the window what is there, of all windows: arrays whose last axes have
    this shape."""
    for place in np.ndindex(*window):
        starts = [i * d for i, d in zip(place, dilation, strict=True)]
        limits = zip(starts, shape, strides, strict=True)
        yield place, x[(..., *(slice(a, a + max(m, 0) * s, s) for a, m, s in limits))]


def _pooled(fn: Callable[..., Any], start: Callable[[Any], Any]) -> Rule:
    def rule(args: list[Array], params: Any, aval: Any) -> Any:
        between = [n - 1 for n in params["base_dilation"]]
        config = [(*pair, n) for pair, n in zip(params["padding"], between, strict=True)]
        out = np.full(aval.shape, start(aval.dtype), aval.dtype)
        # What the last windows read behind the array's end is cut off by the slices.
        x = padded(args[0], config, start(aval.dtype))
        layout = params["window_dimensions"], params["window_strides"], params["window_dilation"]
        for _, part in shifted(x, aval.shape, *layout):
            out = fn(out, part)
        return out

    return rule


def _convolution(args: list[Array], params: Any, aval: Any) -> Any:
    numbers = params["dimension_numbers"]
    x = args[0].transpose(numbers.lhs_spec).astype(aval.dtype)
    kernel = args[1].transpose(numbers.rhs_spec).astype(aval.dtype)
    between = [n - 1 for n in params["lhs_dilation"]]
    config = [(*pair, n) for pair, n in zip(params["padding"], between, strict=True)]
    x = padded(x, [(0, 0, 0)] * 2 + config, 0)
    examples, _, *shape = (aval.shape[i] for i in numbers.out_spec)
    features, channels, *window = kernel.shape
    groups = params["feature_group_count"] * params["batch_group_count"]
    # Either the channels or the examples of x are in groups: [groups, examples, channels, ...].
    if params["batch_group_count"] > 1:
        x = x.reshape(groups, examples, channels, *x.shape[2:])
    else:
        x = x.reshape(examples, groups, channels, *x.shape[2:]).swapaxes(0, 1)
    kernel = kernel.reshape(groups, features // groups, *kernel.shape[1:])
    out = np.zeros((groups, examples, features // groups, *shape), aval.dtype)
    layout = window, params["window_strides"], params["rhs_dilation"]
    for place, part in shifted(x, shape, *layout):
        flat = part.reshape(groups, examples, channels, int(np.prod(shape, dtype=int)))
        weight = kernel[(slice(None),) * 3 + place]
        out += (weight[:, None] @ flat).reshape(out.shape)
    return (
        out.swapaxes(0, 1)
        .reshape(examples, features, *shape)
        .transpose(np.argsort(numbers.out_spec))
    )


RULES: dict[str, Rule] = {
    "pad": lambda args, params, aval: padded(args[0], params["padding_config"], args[1]),
    "reduce_window_sum": _pooled(np.add, lambda dtype: 0),
    "reduce_window_max": _pooled(np.maximum, least),
    "reduce_window_min": _pooled(np.minimum, most),
    "conv_general_dilated": _convolution,
}
