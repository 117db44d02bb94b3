"""Networks that are plain functions of arrays, and what all networks of these tests share."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxlirpa import Box

PyTree = Any


@dataclasses.dataclass(frozen=True)
class Network:
    """A function of weights and of an input, and a set of inputs.

    Attributes:
        fn: `fn(params, x)`.
        params: random weights, such that activations stay of order one.
        shape: of `x`, a batch of one.
        eps: how far every entry of `x` may be off.
    """

    fn: Callable[[PyTree, jax.Array], jax.Array]
    params: PyTree
    shape: tuple[int, ...]
    eps: float

    def center(self, seed: int = 1) -> jax.Array:
        """The input around which the set lies."""
        return jnp.asarray(np.random.default_rng(seed).normal(size=self.shape))

    def box(self) -> Box:
        """The inputs that are possible."""
        return Box(self.center() - self.eps, self.center() + self.eps)


def random_weights(shapes: PyTree) -> PyTree:
    """Weights for a tree of shapes, by their names: scales near one, shifts near zero."""
    random = np.random.default_rng(0)

    def draw(path: Any, leaf: Any) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):  # the state of a generator
            is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            return jax.random.key(0) if is_key else jnp.zeros(leaf.shape, leaf.dtype)
        names = jax.tree_util.keystr(path)
        normal = random.normal(size=leaf.shape)
        if "scale" in names or "var" in names:
            return jnp.asarray(np.exp(0.2 * normal), float)
        if leaf.ndim < 2 or "mean" in names:
            return jnp.asarray(0.2 * normal, float)
        return jnp.asarray(normal / math.sqrt(math.prod(leaf.shape[:-1])), float)

    return jax.tree_util.tree_map_with_path(draw, shapes)


def _layers(*widths: int) -> list[dict[str, jax.ShapeDtypeStruct]]:
    return [
        {"w": jax.ShapeDtypeStruct((a, b), float), "b": jax.ShapeDtypeStruct((b,), float)}
        for a, b in itertools.pairwise(widths)
    ]


def mlp(params: PyTree, x: jax.Array) -> jax.Array:
    """As a pure function of a list of layers, in the way of haiku's `apply`."""
    *hidden, last = params
    for layer in hidden:
        x = jnp.tanh(x @ layer["w"] + layer["b"])
    return x @ last["w"] + last["b"]


def ode(params: PyTree, x: jax.Array) -> jax.Array:
    """A neural ODE, `x' = mlp(x)`, by some steps of the midpoint rule."""
    step = 0.1

    def advance(_: Any, x: jax.Array) -> jax.Array:
        return x + step * mlp(params, x + 0.5 * step * mlp(params, x))

    return lax.fori_loop(0, 4, advance, x)


def closed_loop(params: PyTree, x: jax.Array) -> jax.Array:
    """A pendulum on a cart under a neural controller: position, speed, angle and its speed."""
    step, length, mass, cart, gravity = 0.05, 0.5, 0.1, 1.0, 9.8

    def advance(state: jax.Array, _: None) -> tuple[jax.Array, None]:
        _, v, angle, w = jnp.moveaxis(state, -1, 0)
        force = mlp(params, state)[..., 0]
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        pushed = (force + mass * length * w**2 * sin) / (cart + mass)
        inertia = length * (4 / 3 - mass * cos**2 / (cart + mass))
        turn = (gravity * sin - cos * pushed) / inertia
        along = pushed - mass * length * turn * cos / (cart + mass)
        rates = jnp.stack([v, along, w, turn], -1)
        return state + step * rates, None

    return lax.scan(advance, x, length=3)[0]


def attention(params: PyTree, x: jax.Array) -> jax.Array:
    """Attention of one head, written out."""
    q, k, v = (x @ layer["w"] + layer["b"] for layer in params)
    weights = jax.nn.softmax(q @ jnp.swapaxes(k, -1, -2) / math.sqrt(q.shape[-1]), -1)
    return weights @ v


NETWORKS: dict[str, Callable[[], Network]] = {
    "mlp": lambda: Network(mlp, random_weights(_layers(5, 8, 6, 3)), (1, 5), 0.05),
    "ode": lambda: Network(ode, random_weights(_layers(3, 6, 3)), (1, 3), 0.05),
    "closed_loop": lambda: Network(closed_loop, random_weights(_layers(4, 6, 1)), (1, 4), 0.01),
    "attention": lambda: Network(
        attention, random_weights([_layers(4, 3)[0]] * 3), (1, 3, 4), 0.05
    ),
}
