"""Operators of ONNX that move entries about, and those on shapes."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlirpa.onnx.operators import Node, Operands, given, is_static, numbers, operator


@operator("Constant")
def _constant(node: Node, operands: Operands) -> Any:
    for name, dtype in (
        ("value", None),
        ("value_float", np.float32),
        ("value_floats", np.float32),
        ("value_int", np.int64),
        ("value_ints", np.int64),
    ):
        if name in node.attributes:
            return np.asarray(node.attributes[name], dtype)
    raise node.refuse(f"a constant of {', '.join(node.attributes)}")


@operator("ConstantOfShape")
def _constant_of_shape(node: Node, operands: Operands) -> Any:
    value = np.asarray(node.get("value", np.zeros(1, np.float32))).reshape(())
    return np.full(numbers(node, operands[0], "shape"), value)


@operator("Shape")
def _shape(node: Node, operands: Operands) -> Any:
    shape = np.array(np.shape(operands[0]), np.int64)
    return shape[slice(node.get("start", 0), node.get("end"))]


@operator("Size")
def _size(node: Node, operands: Operands) -> Any:
    return np.array(math.prod(np.shape(operands[0])), np.int64)


@operator("Range")
def _range(node: Node, operands: Operands) -> Any:
    if not is_static(*operands):
        raise node.refuse("its limits must not depend on the inputs")
    limits: Any = (np.reshape(x, ()).item() for x in operands)
    return np.arange(*limits).astype(np.asarray(operands[0]).dtype)


@operator("Reshape")
def _reshape(node: Node, operands: Operands) -> Any:
    x = operands[0]
    shape = given(node, operands, 1, "shape")
    assert shape is not None
    if not node.get("allowzero", 0):
        shape = [x.shape[i] if n == 0 else n for i, n in enumerate(shape)]
    return x.reshape(shape)


@operator("Flatten")
def _flatten(node: Node, operands: Operands) -> Any:
    (x,) = operands
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


@operator("Squeeze")
def _squeeze(node: Node, operands: Operands) -> Any:
    axes = given(node, operands, 1, "axes")
    return operands[0].squeeze(None if axes is None else tuple(axes))


@operator("Unsqueeze")
def _unsqueeze(node: Node, operands: Operands) -> Any:
    axes = given(node, operands, 1, "axes")
    return (np if is_static(operands[0]) else jnp).expand_dims(operands[0], tuple(axes or ()))


@operator("Transpose")
def _transpose(node: Node, operands: Operands) -> Any:
    (x,) = operands
    return x.transpose(node.get("perm") or tuple(reversed(range(x.ndim))))


@operator("Concat")
def _concat(node: Node, operands: Operands) -> Any:
    axis = node.get("axis", 1)
    return (np if is_static(*operands) else jnp).concatenate(operands, axis)


@operator("Split")
def _split(node: Node, operands: Operands) -> Any:
    x, axis = operands[0], node.get("axis", 0)
    sizes = given(node, operands, 1, "split")
    if sizes is None:
        part = -(-x.shape[axis] // node.outputs)
        ends = [min(part * (i + 1), x.shape[axis]) for i in range(node.outputs - 1)]
    else:
        ends = np.cumsum(sizes)[:-1].tolist()
    return tuple((np if is_static(x) else jnp).split(x, ends, axis))


@operator("Slice")
def _slice(node: Node, operands: Operands) -> Any:
    x = operands[0]
    starts, ends = given(node, operands, 1, "starts"), given(node, operands, 2, "ends")
    assert starts is not None and ends is not None
    axes = given(node, operands, 3, "axes") or list(range(len(starts)))
    steps = given(node, operands, 4, "steps") or [1] * len(starts)
    where = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        beyond = step < 0 and end < -x.shape[axis]
        where[axis] = slice(start, None if beyond else end, step)
    return x[tuple(where)]


@operator("Gather")
def _gather(node: Node, operands: Operands) -> Any:
    x, index = operands
    axis = node.get("axis", 0)
    if is_static(x, index):
        return np.take(x, index, axis)
    if not is_static(index):
        raise node.refuse("its indices must not depend on the inputs")
    size = x.shape[axis]
    index = np.asarray(index)
    if np.any((index < -size) | (index >= size)):
        raise node.refuse("an index is out of range")
    return jnp.take(x, np.where(index < 0, index + size, index), axis)


@operator("Expand")
def _expand(node: Node, operands: Operands) -> Any:
    x, shape = operands[0], numbers(node, operands[1], "shape")
    full = np.broadcast_shapes(np.shape(x), tuple(shape))
    return (np if is_static(x) else jnp).broadcast_to(x, full)


@operator("Tile")
def _tile(node: Node, operands: Operands) -> Any:
    repeats = numbers(node, operands[1], "repeats")
    return (np if is_static(operands[0]) else jnp).tile(operands[0], repeats)


@operator("Pad")
def _pad(node: Node, operands: Operands) -> Any:
    x = operands[0]
    pads = given(node, operands, 1, "pads")
    assert pads is not None
    value = operands[2] if len(operands) > 2 and operands[2] is not None else node.get("value", 0.0)
    axes = given(node, operands, 3, "axes") or list(range(x.ndim))
    widths = [(0, 0)] * x.ndim
    for i, axis in enumerate(axes):
        widths[axis] = pads[i], pads[i + len(axes)]
    mode = node.get("mode", "constant")
    if mode == "constant":
        return jnp.pad(x, widths, constant_values=np.reshape(value, ()))
    if mode not in ("reflect", "edge", "wrap"):
        raise node.refuse(f"mode {mode!r}")
    return jnp.pad(x, widths, mode=mode)
