"""The derivatives of max pooling: who wins a window, and what bounds know of it."""

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

Pads = list[tuple[int, int]]


def pool(
    window: tuple[int, ...],
    strides: tuple[int, ...],
    padding: Pads | str = "VALID",
    smallest: bool = False,
    **options: Any,
) -> Callable[[Any], Any]:
    """Max pooling, or min pooling."""
    start, combine = (jnp.inf, lax.min) if smallest else (-jnp.inf, lax.max)
    return lambda x: lax.reduce_window(x, start, combine, window, strides, padding, **options)


POOLS = {
    "padded": (pool((3,), (2,), [(1, 2)]), (6,)),
    "nothing but padding": (pool((2,), (1,), [(2, 0)]), (4,)),
    "image, same": (pool((3, 2), (2, 2), "SAME"), (4, 5)),
    "smallest": (pool((2, 2), (1, 2), [(1, 0), (0, 1)], smallest=True), (3, 4)),
    "base dilated": (pool((3,), (2,), [(1, 1)], base_dilation=(2,)), (4,)),
    "batch and channels": (lambda x: nn.max_pool(x, (2, 2), (1, 2)), (2, 3, 4, 2)),
}
every_pool = pytest.mark.parametrize("name", POOLS)


def box(seed: int, shape: tuple[int, ...], spread: float = 1.0) -> jaxlirpa.Box:
    """A random box, some of whose entries are known, and some of those equal."""
    rng = np.random.default_rng(seed)
    lower = np.round(rng.normal(size=shape), 1)
    upper = lower + spread * rng.uniform(size=shape) * (rng.uniform(size=shape) < 0.7)
    return jaxlirpa.Box(jnp.asarray(lower), jnp.asarray(upper))


def backwards(name: str) -> Callable[[Any, Any], Any]:
    """The gradient of a pooling, of the image and of the cotangent."""
    return lambda x, g: jax.vjp(POOLS[name][0], x)[1](g)[0]


def forwards(name: str) -> Callable[[Any, Any], Any]:
    """The derivative of a pooling, of the image and of the tangent."""
    return lambda x, t: jax.jvp(POOLS[name][0], (x,), (t,))[1]


def operands(name: str, derivative: Any) -> tuple[jaxlirpa.Box, jaxlirpa.Box]:
    """A box for the image, and one for what the derivative is applied to."""
    function, shape = POOLS[name]
    image = box(0, shape)
    return image, box(1, shape if derivative is forwards else function(image.lower).shape)


@pytest.mark.few(5)
@every_pool
@pytest.mark.parametrize("derivative", [backwards, forwards])
def test_every_node(name: str, derivative: Any):
    methods = oracles.in_turn(list(POOLS).index(name) + (derivative is forwards))
    oracles.check_every_node(derivative(name), operands(name, derivative), methods)


@pytest.mark.parametrize("derivative", [backwards, forwards])
def test_one_operand(derivative: Any):
    """Of a known image the derivative is affine in what it is applied to, and exact."""
    name = "image, same"
    function, (x, v) = derivative(name), operands(name, derivative)
    oracles.check_every_node(lambda x: function(x, v.upper), [x])
    exact = oracles.affine_extrema(lambda v: function(x.lower, v), v)
    for method in oracles.METHODS.values():
        oracles.equal(method(lambda v: function(x.lower, v))(v), exact[0])


@pytest.mark.few(4)
@every_pool
@pytest.mark.parametrize("derivative", [backwards, forwards])
def test_the_graph_decides_ties_as_jax_does(name: str, derivative: Any):
    shape = POOLS[name][1]
    function, v = derivative(name), operands(name, derivative)[1].lower
    graph, _ = oracles.trace(lambda x: function(x, v), jaxlirpa.Box(jnp.zeros(shape), 1.0))
    for seed in range(8):
        x = jnp.asarray(np.random.default_rng(seed).integers(0, 2, shape).astype(float))
        (ref,) = graph.outputs
        oracles.equal(graph.evaluate([x])[ref], function(x, v))


@pytest.mark.parametrize("name", [name for name in POOLS if name != "base dilated"])
def test_a_known_vector_passes_to_its_winner_alone(name: str):
    """Where no two entries of a window overlap, the derivative is known, and the bounds are it."""
    function, shape = POOLS[name]
    x = jnp.asarray(np.random.default_rng(2).permutation(np.prod(shape)).reshape(shape) * 1.0)
    g = jnp.asarray(np.random.default_rng(3).normal(size=function(x).shape))
    for method in (lirpa.ibp, lirpa.crown):
        for limit in method(lambda x: backwards(name)(x, g))(x, 0.4):
            oracles.equal(limit, backwards(name)(x, g))


def test_the_range_is_exact_for_one_window():
    """An entry that may win, or may not, receives nothing or all."""
    x = jaxlirpa.Box(jnp.array([0.0, 0.5, -1.0]), jnp.array([1.0, 2.0, 0.4]))
    lower, upper = lirpa.ibp(jax.grad(lambda x: 3.0 * pool((3,), (1,))(x)[0]))(x)
    oracles.equal(lower, [0, 0, 0])
    oracles.equal(upper, [3, 3, 0])


@pytest.mark.long
@pytest.mark.parametrize("derivative", [jax.grad, jax.hessian])
def test_derivatives_of_a_network(derivative: Any):
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.max_pool(nn.relu(nn.Conv(2, (2, 2))(x)), (2, 2), (2, 2), "SAME")
            return nn.Dense(1)(jnp.tanh(x).ravel())[0]

    net, x = Network(), jnp.asarray(np.random.default_rng(0).normal(size=(1, 4, 3, 1)))
    parameters = net.init(jax.random.key(0), x)
    function = derivative(lambda x: net.apply(parameters, x))
    ball = jaxlirpa.Box(x - 0.1, x + 0.1)
    samples = np.stack([function(x) for x in oracles.sample(ball, 0, 64)])
    for name, method in oracles.METHODS.items():
        oracles.contains(samples, *method(function)(ball), name)
