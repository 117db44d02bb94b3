"""Small classifiers, and what they can really reach, for the tests of certified training."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BATCH = 3
PIXELS = (6, 6, 1)


class Classifier(NamedTuple):
    """A network, its parameters, and a labelled batch."""

    fn: Callable[[Any, Any], jax.Array]
    params: Any
    x: jax.Array
    labels: jax.Array


def dense(classes: int = 5, widths: tuple[int, ...] = (9, 8), seed: int = 0) -> Classifier:
    """Dense layers and ReLUs."""
    random = np.random.default_rng(seed)
    sizes = (6, *widths, classes)
    params = [
        (
            jnp.asarray(random.normal(size=(m, n)) / m**0.5),
            jnp.asarray(0.1 * random.normal(size=n)),
        )
        for m, n in itertools.pairwise(sizes)
    ]

    def fn(params: Any, x: Any) -> jax.Array:
        for weight, bias in params[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        weight, bias = params[-1]
        return x @ weight + bias

    x = jnp.asarray(random.normal(size=(BATCH, sizes[0])))
    return Classifier(fn, params, x, jnp.asarray(random.integers(0, classes, BATCH)))


def convolutional(seed: int = 0) -> Classifier:
    """A convolution, a residual sum, and a dense layer."""
    random = np.random.default_rng(seed)
    params = {
        "kernel": jnp.asarray(random.normal(size=(3, 3, 1, 3)) / 3),
        "own": jnp.asarray(random.normal(size=(3, 3, 3, 3)) / 6),
        "weight": jnp.asarray(random.normal(size=(27, 4)) / 5),
    }

    def conv(x: Any, kernel: jax.Array, stride: int) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        window = (stride, stride)
        return jax.lax.conv_general_dilated(x, kernel, window, "SAME", dimension_numbers=numbers)

    def fn(params: Any, x: Any) -> jax.Array:
        x = jax.nn.relu(conv(x, params["kernel"], 2))
        x = jax.nn.relu(x + conv(x, params["own"], 1))
        return x.reshape(x.shape[0], -1) @ params["weight"]

    x = jnp.asarray(random.uniform(size=(BATCH, *PIXELS)))
    return Classifier(fn, params, x, jnp.asarray(random.integers(0, 4, BATCH)))


CLASSIFIERS = {"dense": dense, "convolutional": convolutional}


def members(lower: Any, upper: Any, count: int, seed: int = 0) -> np.ndarray:
    """Points of a box, half of them corners, `[count, *shape]`."""
    random = np.random.default_rng(seed)
    weight = random.uniform(size=(count, *np.shape(lower)))
    weight[::2] = np.round(weight[::2])
    return np.clip(lower + weight * (upper - np.asarray(lower)), lower, upper)
