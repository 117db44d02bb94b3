"""Whole networks: every method bounds them soundly, and none of CROWN's is looser than IBP.

Nothing is jitted but where that is the question: small networks compile longer than they run, and
single operations are compiled once for all methods and networks of the same shapes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

import flax.linen as nn
import jax
import numpy as np
import pytest
from oracles import METHODS, contains, sample, slack

from . import linen, nnx, plain
from .plain import Network

POINTS = 256
# Networks with many smooth functions in a row: CROWN takes a pass for each of them.
DEEP = ("linen-transformer", "linen-vit", "linen-mixer", "nnx-transformer", "nnx-vit", "nnx-mixer")
CHEAP = ("ibp", "crown_ibp")

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": nn.relu,
    "leaky_relu": nn.leaky_relu,
    "elu": nn.elu,
    "selu": nn.selu,
    "celu": nn.celu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "gelu_tanh": nn.gelu,
    "silu": nn.silu,
    "softplus": nn.softplus,
    "mish": jax.nn.mish,
    "tanh": nn.tanh,
    "sigmoid": nn.sigmoid,
    "hard_tanh": nn.hard_tanh,
    "relu6": nn.relu6,
    "soft_sign": nn.soft_sign,
    "log_sigmoid": nn.log_sigmoid,
    "hard_silu": jax.nn.hard_silu,
    "squareplus": jax.nn.squareplus,
}

NETWORKS: dict[str, Callable[[], Network]] = {
    **{f"linen-{name}": make for name, make in linen.NETWORKS.items()},
    **{f"nnx-{name}": make for name, make in nnx.NETWORKS.items()},
    **{f"plain-{name}": make for name, make in plain.NETWORKS.items()},
}


def attained(network: Network) -> np.ndarray:
    """The outputs at members of the set, many of them corners."""
    points = sample(network.box(), 0, POINTS)
    return np.asarray(jax.jit(jax.vmap(network.fn, (None, 0)))(network.params, points))


def check(network: Network, methods: Iterable[str] = METHODS) -> dict[str, np.ndarray]:
    """Checks the bounds of some methods; returns their widths."""
    values = attained(network)
    widths = {}
    for name in methods:
        lower, upper = METHODS[name](network.fn)(network.params, network.box())
        contains(values, lower, upper, name)
        assert np.isfinite(lower).all() and np.isfinite(upper).all(), name
        widths[name] = np.asarray(upper - lower)
        assert (widths[name] <= widths["ibp"] + slack(lower, upper)).all(), name
    return widths


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_mlp_of_every_activation(activation: str) -> None:
    check(linen.network(linen.MLP(ACTIVATIONS[activation]), (5,), 0.05))


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name: str) -> None:
    check(NETWORKS[name](), CHEAP if name in DEEP else METHODS)


@pytest.mark.slow
@pytest.mark.parametrize("name", DEEP)
def test_deep_network(name: str) -> None:
    check(NETWORKS[name]())


@pytest.mark.slow
@pytest.mark.parametrize("name", linen.LARGE)
def test_large_network(name: str) -> None:
    check(linen.LARGE[name](), CHEAP)
