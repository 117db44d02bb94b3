"""Operators of ONNX that compute entry by entry."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa.onnx.operators import Node, Operands, is_static, operator
from jaxlirpa.onnx.package import package

_UNARY: dict[str, str] = {
    "Abs": "abs",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Exp": "exp",
    "Floor": "floor",
    "Log": "log",
    "Neg": "negative",
    "Not": "logical_not",
    "Reciprocal": "reciprocal",
    "Round": "round",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Sqrt": "sqrt",
    "Tan": "tan",
    "Tanh": "tanh",
    "Atan": "arctan",
    "Asin": "arcsin",
    "Acos": "arccos",
}
_BINARY: dict[str, str] = {
    "Add": "add",
    "And": "logical_and",
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Mul": "multiply",
    "Or": "logical_or",
    "Sub": "subtract",
    "Xor": "logical_xor",
}
_MANY: dict[str, str] = {"Max": "maximum", "Min": "minimum", "Sum": "add"}


@operator(*_UNARY)
def _unary(node: Node, operands: Operands) -> Any:
    (x,) = operands
    return getattr(np if is_static(x) else jnp, _UNARY[node.name])(x)


@operator(*_BINARY)
def _binary(node: Node, operands: Operands) -> Any:
    a, b = operands
    if node.get("broadcast") and np.ndim(b) < np.ndim(a) and "axis" in node.attributes:
        shape = [1] * np.ndim(a)
        axis = node.attributes["axis"]
        shape[axis : axis + np.ndim(b)] = np.shape(b)
        b = b.reshape(shape)
    return getattr(np if is_static(a, b) else jnp, _BINARY[node.name])(a, b)


@operator(*_MANY)
def _many(node: Node, operands: Operands) -> Any:
    combine = getattr(np if is_static(*operands) else jnp, _MANY[node.name])
    total = operands[0]
    for x in operands[1:]:
        total = combine(total, x)
    return total


@operator("Mean")
def _mean(node: Node, operands: Operands) -> Any:
    return _many(node._replace(name="Sum"), operands) / len(operands)


@operator("Div")
def _div(node: Node, operands: Operands) -> Any:
    a, b = operands
    if is_static(a, b) and np.issubdtype(np.asarray(a).dtype, np.integer):
        return (np.asarray(a) // np.asarray(b)).astype(np.asarray(a).dtype)
    return a / b


@operator("Pow")
def _pow(node: Node, operands: Operands) -> Any:
    a, b = operands
    if is_static(b) and np.ndim(b) == 0 and float(b) == int(b):
        return a ** int(b)
    if is_static(b) and np.size(b) == 1 and float(np.reshape(b, ())) == int(np.reshape(b, ())):
        return jnp.broadcast_to(a ** int(np.reshape(b, ())), np.broadcast_shapes(a.shape, b.shape))
    return (np if is_static(a, b) else jnp).power(a, b)


@operator("Relu")
def _relu(node: Node, operands: Operands) -> Any:
    return jax.nn.relu(operands[0])


@operator("LeakyRelu")
def _leaky_relu(node: Node, operands: Operands) -> Any:
    return jax.nn.leaky_relu(operands[0], node.get("alpha", 0.01))


@operator("PRelu")
def _prelu(node: Node, operands: Operands) -> Any:
    x, slope = operands
    return jnp.where(x >= 0, x, slope * x)


@operator("Elu")
def _elu(node: Node, operands: Operands) -> Any:
    return jax.nn.elu(operands[0], node.get("alpha", 1.0))


@operator("Selu")
def _selu(node: Node, operands: Operands) -> Any:
    if {"alpha", "gamma"} & node.attributes.keys():
        alpha, gamma = node.get("alpha", 1.6732632), node.get("gamma", 1.0507009)
        return gamma * jax.nn.elu(operands[0], alpha)
    return jax.nn.selu(operands[0])


@operator("Sigmoid")
def _sigmoid(node: Node, operands: Operands) -> Any:
    return jax.nn.sigmoid(operands[0])


@operator("HardSigmoid")
def _hard_sigmoid(node: Node, operands: Operands) -> Any:
    return jnp.clip(node.get("alpha", 0.2) * operands[0] + node.get("beta", 0.5), 0, 1)


@operator("HardSwish")
def _hard_swish(node: Node, operands: Operands) -> Any:
    (x,) = operands
    return x * jnp.clip(x / 6 + 0.5, 0, 1)


@operator("Softplus")
def _softplus(node: Node, operands: Operands) -> Any:
    return jax.nn.softplus(operands[0])


@operator("Softsign")
def _softsign(node: Node, operands: Operands) -> Any:
    return jax.nn.soft_sign(operands[0])


@operator("Erf")
def _erf(node: Node, operands: Operands) -> Any:
    return jax.scipy.special.erf(operands[0])


@operator("Gelu")
def _gelu(node: Node, operands: Operands) -> Any:
    return jax.nn.gelu(operands[0], approximate=node.get("approximate", "none") == "tanh")


@operator("Clip")
def _clip(node: Node, operands: Operands) -> Any:
    x, low, high = (*operands, None, None)[:3]
    low = node.get("min") if low is None else low
    high = node.get("max") if high is None else high
    return jnp.clip(x, low, high)


@operator("Where")
def _where(node: Node, operands: Operands) -> Any:
    return (np if is_static(*operands) else jnp).where(*operands)


@operator("Identity", "Dropout")
def _identity(node: Node, operands: Operands) -> Any:
    if node.name == "Dropout" and len(operands) > 2 and operands[2] is not None:
        training = operands[2]
        if not is_static(training) or np.any(training):
            raise node.refuse("training_mode must be false")
    if node.outputs > 1:
        raise node.refuse("a mask is not computed")
    return operands[0]


@operator("Cast")
def _cast(node: Node, operands: Operands) -> Any:
    (x,) = operands
    dtype = package().helper.tensor_dtype_to_np_dtype(node.attributes["to"])
    if is_static(x):
        return np.asarray(x).astype(dtype)
    if np.issubdtype(dtype, np.floating) and np.dtype(dtype).itemsize >= 4:
        dtype = (
            jnp.promote_types(x.dtype, dtype) if jnp.issubdtype(x.dtype, jnp.floating) else dtype
        )
    return x.astype(dtype)
