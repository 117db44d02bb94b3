"""Small networks, and the truth about them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linprog

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "gelu": jax.nn.gelu,
    "sin": lambda x: jnp.sin(2 * x),
    "leaky_relu": jax.nn.leaky_relu,
    "abs": jnp.abs,
    "clip": lambda x: jnp.clip(x, -0.5, 0.4),
    "square": jnp.square,
    "exp": jnp.exp,
    "known kinks": lambda x: jnp.maximum(x, jnp.linspace(-0.2, 0.2, 6)),
}


def weights(sizes: tuple[int, ...], seed: int, scale: float = 1.5) -> list[Any]:
    """Random matrices and biases."""
    rng = np.random.default_rng(seed)
    return [
        (
            jnp.asarray(scale * rng.normal(size=(m, n)) / np.sqrt(m)),
            jnp.asarray(0.3 * rng.normal(size=n)),
        )
        for m, n in itertools.pairwise(sizes)
    ]


def network(activation: Callable[[Any], Any]) -> Callable[[list[Any], Any], Any]:
    """A perceptron with a shift of its outputs."""

    def margins(params: list[Any], shift: Any, x: Any) -> Any:
        for w, b in params[:-1]:
            x = activation(x @ w + b)
        w, b = params[-1]
        return x @ w + b - shift

    return margins


RELU = network(jax.nn.relu)


def least(params: list[Any], lower: np.ndarray, upper: np.ndarray) -> float:
    """The exact minimum of a relu network's first output over a box.

    By enumeration: for every pattern of signs of the operands the network is affine, on the
    polytope where the signs are those; its minimum there is a linear program.
    """
    return min(found for _, found in _regions(params, lower, upper))


def _regions(
    params: list[Any], lower: np.ndarray, upper: np.ndarray
) -> Iterator[tuple[tuple[int, ...], float]]:
    hidden = sum(len(b) for _, b in params[:-1])
    for signs in itertools.product((0, 1), repeat=hidden):
        a, c, at = np.eye(len(lower)), np.zeros(len(lower)), 0
        rows, limits = [], []
        for w, b in params[:-1]:
            w, b = np.asarray(w), np.asarray(b)
            a, c = a @ w, c @ w + b
            own = np.array(signs[at : at + len(b)])
            at += len(b)
            # Active: -(a x + c) <= 0; inactive: a x + c <= 0.
            sign = np.where(own, -1, 1)
            rows.append((a * sign).T)
            limits.append(-sign * c)
            a, c = a * own, c * own
        w, b = (np.asarray(x) for x in params[-1])
        objective, offset = (a @ w)[:, 0], (c @ w + b)[0]
        found = linprog(
            objective,
            np.concatenate(rows),
            np.concatenate(limits),
            bounds=list(zip(lower, upper, strict=True)),
        )
        if found.status == 0:
            yield signs, float(found.fun + offset)
