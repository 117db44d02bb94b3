"""The networks as JAX functions of a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from .networks import (
    VARIANCE_FLOOR,
    Conv,
    Dense,
    Encoder,
    Flatten,
    Layer,
    MaxPool,
    Mean,
    Relu,
    Residual,
)
from .workloads import Bounded, Workload

Activation = Callable[[jax.Array], jax.Array]


def apply(layer: Layer, weights: Any, x: jax.Array, relu: Activation = jax.nn.relu) -> jax.Array:
    """One layer on a batch."""
    match layer:
        case Dense():
            ((kernel, bias),) = weights
            return x @ kernel + bias
        case Conv():
            ((kernel, bias),) = weights
            pads = [(layer.padding, layer.padding)] * 2
            dims = ("NHWC", "HWIO", "NHWC")
            strides = (layer.stride, layer.stride)
            return lax.conv_general_dilated(x, kernel, strides, pads, dimension_numbers=dims) + bias
        case Residual():
            shortcut = layer.shortcut(x.shape[-1])
            beside = x if shortcut is None else apply(shortcut, weights[2:], x)
            inner = relu(apply(layer.first, weights[:1], x))
            return relu(apply(layer.second, weights[1:2], inner) + beside)
        case Encoder():
            *attention, first, up, down, second = weights
            x = _normalise(first, x + _attention(layer.heads, attention, x))
            return _normalise(second, x + _dense(down, jax.nn.relu(_dense(up, x))))
        case MaxPool(size):
            block = (1, size, size, 1)
            return lax.reduce_window(x, -jnp.inf, lax.max, block, block, "VALID")
        case Flatten():
            return x.reshape(len(x), -1)
        case Mean():
            return jnp.mean(x, axis=tuple(range(1, x.ndim - 1)))
        case Relu():
            return relu(x)


def _dense(pair: Any, x: jax.Array) -> jax.Array:
    kernel, bias = pair
    return x @ kernel + bias


def _normalise(pair: Any, x: jax.Array) -> jax.Array:
    scale, shift = pair
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(centred**2, axis=-1, keepdims=True)
    return centred / jnp.sqrt(variance + VARIANCE_FLOOR) * scale + shift


def _attention(heads: int, weights: Any, x: jax.Array) -> jax.Array:
    queries, keys, values = (
        _dense(pair, x).reshape(*x.shape[:2], heads, -1) for pair in weights[:3]
    )
    scores = jnp.einsum("bihf,bjhf->bhij", queries, keys) / queries.shape[-1] ** 0.5
    mixed = jnp.einsum("bhij,bjhf->bihf", jax.nn.softmax(scores, axis=-1), values)
    return _dense(weights[3], mixed.reshape(x.shape))


def outputs(workload: Workload) -> Callable[..., jax.Array]:
    """The network as a function of (params, x)."""

    def network(params: Any, x: jax.Array) -> jax.Array:
        for layer, weights in zip(workload.network, params, strict=True):
            x = apply(layer, weights, x)
        return x

    return network


def relu_operands(workload: Workload) -> Callable[..., tuple[jax.Array, ...]]:
    """The operands of relus outside of encoder layers, as a function of (params, x)."""

    def operands(params: Any, x: jax.Array) -> tuple[jax.Array, ...]:
        found: list[jax.Array] = []

        def relu(x: jax.Array) -> jax.Array:
            found.append(x)
            return jax.nn.relu(x)

        for layer, weights in zip(workload.network, params, strict=True):
            x = apply(layer, weights, x, relu)
        return tuple(found)

    return operands


def function(workload: Workload) -> Callable[..., jax.Array]:
    """The function to bound, of (params, x, label)."""
    network = outputs(workload)

    def bounded(params: Any, x: jax.Array, label: jax.Array) -> jax.Array:
        x = network(params, x)
        own = label[:, None]
        match workload.bounded:
            case Bounded.OUTPUTS:
                return x
            case Bounded.MARGINS:
                others = (own + jnp.arange(1, workload.classes)) % workload.classes
                return jnp.take_along_axis(x, own, axis=1) - jnp.take_along_axis(x, others, axis=1)
            case Bounded.CROSS_ENTROPY:
                logits = x - jnp.take_along_axis(x, own, axis=1)
                return jax.nn.logsumexp(logits, axis=1)

    return bounded
