"""What another verifier gets wrong or cannot do, on the inputs where it was seen to.

Seven kinds of bounds that an attained value violates, and calls that end in a crash; all of them
are ordinary networks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import oracles
import pytest
from jax import lax

import jaxlirpa
from jaxlirpa import LpBall


def c(*shape: int) -> jax.Array:
    """A known array with entries of either sign."""
    return jnp.asarray(np.random.default_rng(shape).normal(size=shape))


def small(x: Any) -> Any:
    return c(2, 4) @ jax.nn.relu(c(4, 3) @ x)


def pooled(size: int) -> Callable[[Any], Any]:
    return lambda x: nn.max_pool(x, (size, size), (size, size), [(1, 1), (1, 1)])


def normalised(x: Any) -> Any:
    return nn.LayerNorm(epsilon=1e-5).apply({"params": {"scale": c(6), "bias": c(1, 6)[0]}}, x)


def jacobian_of_concatenation(x: Any) -> Any:
    def network(x: Any) -> Any:
        y = jnp.tanh(c(3, 3) @ x)
        return c(2, 6) @ jnp.concatenate([y, jax.nn.relu(x - y)])

    return jax.jacrev(network)(x)


WRONG_ELSEWHERE = {
    "2-ball, normalised first": (lambda x: small((x - 0.1) / 0.3), LpBall(c(3), 0.5, 2)),
    "2-ball, relu first": (lambda x: small(jax.nn.relu(x)), LpBall(c(3), 0.5, 2)),
    "2-ball, repeated entries": (lambda x: small(x[jnp.array([0, 0, 1])]), LpBall(c(3), 0.5, 2)),
    "padded max pooling 2": (pooled(2), LpBall(c(1, 5, 5, 1), 0.5)),
    "padded max pooling 3": (pooled(3), LpBall(c(1, 6, 5, 2), 0.5)),
    "leaky relu": (lambda x: jax.nn.leaky_relu(x, 0.2), LpBall(jnp.array([-1.5, 0.1, 2.0]), 0.5)),
    "gather, repeated": (
        lambda x: jnp.array([1.0, 10.0, 100.0, 1000.0]) @ jnp.tanh(x)[jnp.array([0, 0, 2, 2])],
        LpBall(c(4), 0.3),
    ),
    "softmax, wide logits": (
        lambda x: jax.nn.softmax(x)[0] - 0.05 * x[0] + 0.05 * x[1],
        LpBall(c(4), 20.0),
    ),
    "softmax, very wide logits": (lambda x: jax.nn.softmax(x)[0] - 0.01 * x[1], LpBall(c(4), 1e3)),
    "gelu at the edge": (
        lambda x: jax.nn.gelu(x, approximate=False),
        jaxlirpa.Box(jnp.array([0.0, 0.005, 0.0, -0.005]), jnp.array([1.5, 1.6, 3.0, 2.0])),
    ),
    "concatenation in a Jacobian": (jacobian_of_concatenation, LpBall(c(3), 0.4)),
}


@pytest.mark.few(6)
@pytest.mark.parametrize("case", WRONG_ELSEWHERE.values(), ids=WRONG_ELSEWHERE)
def test_bounds_that_are_violated_elsewhere(case: tuple[Callable[..., Any], Any]) -> None:
    fn, perturbed = case
    oracles.check_every_node(fn, [perturbed], count=256)
    values = oracles.each(fn, [oracles.sample(perturbed, 1, 64)])
    for name, method in oracles.METHODS.items():
        oracles.contains(values, *method(fn)(perturbed), name)


def test_gelu_is_sound_on_boxes_around_every_edge() -> None:
    """A box in steps of a hundredth around zero, the root of two and the table's ends."""
    ends = np.array([-8, -5, -1.42, -1.41, -0.76, -0.01, 0, 0.005, 0.01, 1.41, 1.42, 5, 8, 40])
    low, high = (x.ravel() for x in np.meshgrid(ends, ends))
    box = jaxlirpa.Box(jnp.asarray(low[low <= high]), jnp.asarray(high[low <= high]))
    for approximate in (True, False):
        oracles.check_every_node(lambda x, a=approximate: jax.nn.gelu(x, a), [box], count=256)


CRASHES_ELSEWHERE = {
    "layer norm": (normalised, LpBall(c(2, 6), 0.1)),
    "hard_tanh": (lambda x: jax.nn.hard_tanh(c(4, 3) @ x), LpBall(c(3), 0.5)),
    "relu6": (lambda x: jax.nn.relu6(c(4, 3) @ x), LpBall(c(3), 0.5)),
    "softmax": (lambda x: jax.nn.softmax(c(4, 3) @ x), LpBall(c(3), 0.2)),
    "max of two": (lambda x: jnp.maximum(c(4, 3) @ x, c(4, 3)[::-1] @ x), LpBall(c(3), 0.3)),
    "max with a large constant": (lambda x: jnp.maximum(x, 64.0), LpBall(100 * c(6), 1.0)),
    "rsqrt": (lambda x: lax.rsqrt(1 + jnp.square(x)), LpBall(c(3), 0.3)),
    "flip": (lambda x: jax.nn.relu(jnp.flip(x, 0)), LpBall(c(3, 2), 0.3)),
    "an eps for every entry of a 2-ball": (small, LpBall(c(3), jnp.array([0.1, 0.2, 0.3]), 2)),
    "no batch axis": (lambda x: jax.nn.relu(x - 0.1), LpBall(jnp.array(0.0), 0.3)),
    "group norm": (
        lambda x: nn.GroupNorm(2).apply({"params": {"scale": c(4), "bias": c(4)}}, x),
        LpBall(c(1, 2, 2, 4), 0.1),
    ),
    "log_softmax": (lambda x: jax.nn.log_softmax(c(4, 3) @ x), LpBall(c(3), 0.2)),
    "logsumexp": (lambda x: jax.nn.logsumexp(c(4, 3) @ x), LpBall(c(3), 0.2)),
    "norm": (lambda x: jnp.linalg.norm(c(4, 3) @ x), LpBall(c(3), 0.2)),
    "variance": (lambda x: jnp.var(c(4, 3) @ x), LpBall(c(3), 0.2)),
    "product": (lambda x: jnp.prod(c(4, 3) @ x), LpBall(c(3), 0.1)),
    "where": (lambda x: jnp.where(x > 0, x, -2 * x), LpBall(c(4), 0.5)),
    "sort": (lambda x: jnp.sort(c(4, 3) @ x), LpBall(c(3), 0.2)),
    "outer einsum": (lambda x: jnp.einsum("i,j->ij", x, jnp.tanh(x)), LpBall(c(3), 0.2)),
    "cumsum": (lambda x: jnp.cumsum(jnp.tanh(x)), LpBall(c(4), 0.2)),
    "max over an axis": (lambda x: (c(4, 3) @ x).max(), LpBall(c(3), 0.2)),
    "softplus": (lambda x: jax.nn.softplus(c(4, 3) @ x), LpBall(c(3), 0.2)),
    "negative divisor": (lambda x: 1 / (-2 - jnp.square(x)), LpBall(c(3), 0.2)),
    "several outputs": (lambda x: {"a": jnp.tanh(x), "b": x.sum()}, LpBall(c(3), 0.2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CRASHES_ELSEWHERE.values(), ids=CRASHES_ELSEWHERE)
def test_calls_that_crash_elsewhere(case: tuple[Callable[..., Any], Any]) -> None:
    fn, perturbed = case
    methods = {name: oracles.METHODS[name] for name in ("ibp", "crown", "forward_crown")}
    _, bounds = oracles.check_every_node(fn, [perturbed], methods, count=64)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(bounds) if x.dtype != bool)


@pytest.mark.parametrize("features", [2, 64, pytest.param(768, marks=pytest.mark.slow)])
def test_layer_norm_does_not_explode(features: int) -> None:
    """Its entries are bounded by its own norm, however wide the box."""
    wide, narrow = LpBall(c(1, features), 10.0), LpBall(c(1, features), 0.01)

    def fn(x: Any) -> Any:
        return nn.LayerNorm(use_bias=False, use_scale=False).apply({}, x)

    for method in (lirpa.ibp, lirpa.crown_ibp):
        lower, upper = method(fn)(wide)
        assert (np.abs(lower) <= np.sqrt(features)).all()
        assert (np.abs(upper) <= np.sqrt(features)).all()
    if features in (6, 64):
        lower, upper = lirpa.crown(fn)(narrow)
        values = oracles.each(fn, [oracles.sample(narrow, 0, 512)])
        oracles.contains(values, lower, upper)
        assert np.mean(upper - lower) < 4 * np.mean(values.max(0) - values.min(0))
