"""Operators of ONNX that mix entries: sums and extrema, products, convolutions, pooling."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa.onnx.operators import Node, Operands, given, is_static, operator

_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceL1": lambda x, **options: jnp.sum(jnp.abs(x), **options),
    "ReduceL2": lambda x, **options: jnp.sqrt(jnp.sum(x * x, **options)),
    "ReduceLogSumExp": lambda x, **options: jax.nn.logsumexp(x, **options),
    "ReduceMax": jnp.max,
    "ReduceMean": jnp.mean,
    "ReduceMin": jnp.min,
    "ReduceProd": jnp.prod,
    "ReduceSum": jnp.sum,
    "ReduceSumSquare": lambda x, **options: jnp.sum(x * x, **options),
}


@operator(*_REDUCTIONS)
def _reduce(node: Node, operands: Operands) -> Any:
    x = operands[0]
    axes = given(node, operands, 1, "axes")
    if not axes and node.get("noop_with_empty_axes", 0):
        return x
    found = _REDUCTIONS[node.name](
        x, axis=tuple(axes) if axes else None, keepdims=bool(node.get("keepdims", 1))
    )
    return np.asarray(found) if is_static(x) else found


@operator("Softmax", "LogSoftmax")
def _softmax(node: Node, operands: Operands) -> Any:
    (x,) = operands
    function = jax.nn.softmax if node.name == "Softmax" else jax.nn.log_softmax
    if node.opset >= 13:
        return function(x, node.get("axis", -1))
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    flat = x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))
    return function(flat, -1).reshape(x.shape)


@operator("MatMul")
def _matmul(node: Node, operands: Operands) -> Any:
    return jnp.matmul(*operands)


@operator("Gemm")
def _gemm(node: Node, operands: Operands) -> Any:
    a, b, c = (*operands, None)[:3]
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    product = a @ b if alpha == 1 else alpha * (a @ b)
    if c is None or beta == 0:
        return product
    return product + (c if beta == 1 else beta * c)


@operator("BatchNormalization")
def _batch_norm(node: Node, operands: Operands) -> Any:
    x, scale, bias, mean, variance = operands
    if node.get("training_mode", 0) or node.outputs > 1:
        raise node.refuse("only inference is supported")
    shape = [1, -1, *[1] * (x.ndim - 2)]
    factor = scale / jnp.sqrt(variance + node.get("epsilon", 1e-5))
    return x * factor.reshape(shape) + (bias - mean * factor).reshape(shape)


@operator("LayerNormalization")
def _layer_norm(node: Node, operands: Operands) -> Any:
    x, scale, bias = (*operands, None)[:3]
    axes = tuple(range(node.get("axis", -1) % x.ndim, x.ndim))
    centred = x - jnp.mean(x, axes, keepdims=True)
    variance = jnp.mean(centred * centred, axes, keepdims=True)
    y = centred / jnp.sqrt(variance + node.get("epsilon", 1e-5)) * scale
    return y if bias is None else y + bias


def _windows(
    node: Node, spatial: Sequence[int], kernel: Sequence[int]
) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Strides, dilations and padding."""
    count = len(kernel)
    strides = list(node.get("strides") or [1] * count)
    dilations = list(node.get("dilations") or [1] * count)
    auto = node.get("auto_pad", "NOTSET")
    if auto == "NOTSET":
        pads = list(node.get("pads") or [0] * 2 * count)
        return strides, dilations, list(zip(pads[:count], pads[count:], strict=True))
    if auto == "VALID":
        return strides, dilations, [(0, 0)] * count
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise node.refuse(f"auto_pad {auto!r}")
    pairs = []
    for size, k, stride, dilation in zip(spatial, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size, 0)
        small = total // 2
        pairs.append((small, total - small) if auto == "SAME_UPPER" else (total - small, small))
    return strides, dilations, pairs


@operator("Conv")
def _conv(node: Node, operands: Operands) -> Any:
    x, weight, bias = (*operands, None)[:3]
    strides, dilations, pads = _windows(node, x.shape[2:], weight.shape[2:])
    y = jax.lax.conv_general_dilated(
        x,
        jnp.asarray(weight),
        strides,
        pads,
        rhs_dilation=dilations,
        feature_group_count=node.get("group", 1),
    )
    return y if bias is None else y + bias.reshape(1, -1, *[1] * (x.ndim - 2))


@operator("ConvTranspose")
def _conv_transpose(node: Node, operands: Operands) -> Any:
    x, weight, bias = (*operands, None)[:3]
    if node.get("group", 1) != 1:
        raise node.refuse("groups")
    if node.get("output_shape") or node.get("auto_pad", "NOTSET") != "NOTSET":
        raise node.refuse("output_shape and auto_pad")
    strides, dilations, pads = _windows(node, x.shape[2:], weight.shape[2:])
    extra = node.get("output_padding") or [0] * len(strides)
    padding = [
        (d * (k - 1) - low, d * (k - 1) - high + more)
        for (low, high), k, d, more in zip(pads, weight.shape[2:], dilations, extra, strict=True)
    ]
    kernel = jnp.flip(jnp.asarray(weight).swapaxes(0, 1), range(2, x.ndim))
    y = jax.lax.conv_general_dilated(
        x, kernel, [1] * len(strides), padding, lhs_dilation=strides, rhs_dilation=dilations
    )
    return y if bias is None else y + bias.reshape(1, -1, *[1] * (x.ndim - 2))


@operator("MaxPool", "AveragePool")
def _pool(node: Node, operands: Operands) -> Any:
    (x,) = operands
    if node.outputs > 1 or node.get("storage_order", 0):
        raise node.refuse("indices of maxima are not computed")
    kernel = list(node.attributes["kernel_shape"])
    strides, dilations, pads = _windows(node, x.shape[2:], kernel)
    if node.get("ceil_mode", 0):
        pads = [
            (low, high + (-(size + low + high - (k - 1) * d - 1)) % s)
            for size, (low, high), k, d, s in zip(
                x.shape[2:], pads, kernel, dilations, strides, strict=True
            )
        ]
    window = (1, 1, *kernel), (1, 1, *strides), [(0, 0), (0, 0), *pads]
    dilation = (1, 1, *dilations)
    if node.name == "MaxPool":
        nothing = jnp.array(-jnp.inf, x.dtype)
        return jax.lax.reduce_window(x, nothing, jax.lax.max, *window, window_dilation=dilation)
    zero = jnp.zeros((), x.dtype)
    total = jax.lax.reduce_window(x, zero, jax.lax.add, *window, window_dilation=dilation)
    padded = any(low or high for low, high in pads)
    if not padded:
        return total / math.prod(kernel)
    if node.get("count_include_pad", 0):
        if node.get("ceil_mode", 0):
            raise node.refuse("ceil_mode with count_include_pad")
        return total / math.prod(kernel)
    ones = np.ones(x.shape, x.dtype)
    count = jax.lax.reduce_window(
        ones, np.zeros((), x.dtype), jax.lax.add, *window, window_dilation=dilation
    )
    return total / count


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(node: Node, operands: Operands) -> Any:
    (x,) = operands
    reduce = jnp.mean if node.name == "GlobalAveragePool" else jnp.max
    return reduce(x, tuple(range(2, x.ndim)), keepdims=True)
