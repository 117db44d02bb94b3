"""Bounds compose with JAX: they compile, map, differentiate, and bound transformed functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import METHODS

import jaxlirpa

RANDOM = np.random.default_rng(2)
PARAMS = [jnp.asarray(RANDOM.normal(size=s) / 2) for s in [(3, 4), (4, 4), (4, 2)]]
X = jnp.asarray(RANDOM.normal(size=3))
EACH_METHOD = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def network(params: list[jax.Array], x: jax.Array) -> jax.Array:
    """A small network with a piecewise linear and a curved function."""
    first, second, third = params
    return jnp.tanh(jax.nn.relu(x @ first + 0.1) @ second) @ third


def close(a: Any, b: Any, tolerance: float = 1e-10) -> None:
    """Two pytrees are equal up to rounding."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance), a, b)


def encloses(bounds: jaxlirpa.Bounds, fn: Callable[..., Any], x: jax.Array, eps: float) -> None:
    """No sampled output leaves the bounds."""
    for _ in range(50):
        y = fn(x + RANDOM.uniform(-eps, eps, x.shape))
        assert (bounds.lower <= y + 1e-9).all() and (y <= bounds.upper + 1e-9).all()


@EACH_METHOD
def test_jit_equals_eager(method: Callable[..., Any]) -> None:
    bound = method(network)
    close(jax.jit(bound)(PARAMS, X, 0.1), bound(PARAMS, X, 0.1))


@EACH_METHOD
def test_vmap_equals_loop(method: Callable[..., Any]) -> None:
    bound = jax.jit(method(network))
    points, radii = jnp.stack([X, -X, 2 * X]), jnp.asarray([0.0, 0.1, 0.5])
    many = [jax.tree.map(lambda p, s=s: s * p, PARAMS) for s in (1.0, -0.5, 2.0)]
    params = jax.tree.map(lambda *ps: jnp.stack(ps), *many)
    mapped = jax.jit(jax.vmap(method(network)))(params, points, radii)
    for i in range(3):
        close(jax.tree.map(lambda b, i=i: b[i], mapped), bound(many[i], points[i], radii[i]))


@EACH_METHOD
def test_gradient_equals_finite_differences(method: Callable[..., Any]) -> None:
    def width(params: list[jax.Array], x: jax.Array, eps: jax.Array) -> jax.Array:
        lower, upper = method(network)(params, jaxlirpa.LpBall(x, eps))
        return (upper - 0.5 * lower).sum()

    arguments = (PARAMS, X, jnp.asarray(0.1))
    direction = jax.tree.map(lambda a: jnp.asarray(RANDOM.normal(size=a.shape)), arguments)
    gradient = jax.jit(jax.grad(width, (0, 1, 2)))(*arguments)
    slope = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, direction))))

    def moved(step: float) -> jax.Array:
        return jax.jit(width)(*jax.tree.map(lambda a, d: a + step * d, arguments, direction))

    np.testing.assert_allclose(slope, (moved(1e-6) - moved(-1e-6)) / 2e-6, rtol=1e-4)


@EACH_METHOD
@pytest.mark.parametrize("ord", [2, np.inf])
def test_a_point_is_bounded_by_its_value_with_finite_gradients(
    method: Callable[..., Any], ord: float
) -> None:
    x = jnp.zeros(3)  # every relu is at its kink

    def kinked(params: list[jax.Array], x: jax.Array) -> jax.Array:
        return jnp.abs(jax.nn.relu(x @ params[0]) @ params[1]) @ params[2]

    def total(params: list[jax.Array], x: jax.Array, eps: float) -> jax.Array:
        return sum(b.sum() for b in method(kinked)(params, jaxlirpa.LpBall(x, eps, ord=ord)))

    lower, upper = method(kinked)(PARAMS, jaxlirpa.LpBall(x, 0.0, ord=ord))
    close((lower, upper), (kinked(PARAMS, x),) * 2, 1e-15)
    for leaf in jax.tree.leaves(jax.grad(total, (0, 1, 2))(PARAMS, x, 0.0)):
        assert np.isfinite(leaf).all()


def test_sets_are_pytrees() -> None:
    def inside(x: jax.Array, eps: jax.Array) -> Any:
        return jaxlirpa.crown(network)(PARAMS, jaxlirpa.LpBall(jnp.sin(x), eps**2, ord=2))

    ball = jaxlirpa.LpBall(jnp.sin(X), 0.04, ord=2)
    expected = jaxlirpa.crown(network)(PARAMS, ball)
    close(jax.jit(inside)(X, 0.2), expected)
    close(jax.jit(jaxlirpa.crown(network))(PARAMS, ball), expected)
    doubled = jax.tree.map(lambda a: 2 * a, ball)
    assert doubled.ord == 2 and doubled.radius == 0.08


TRANSFORMED = {
    "jit": jax.jit,
    "nested jit, called twice": lambda f: lambda x: (lambda g: g(x) - g(-x))(jax.jit(f)),
    "checkpoint": jax.checkpoint,
    "vmap": lambda f: lambda x: jax.vmap(f)(jnp.stack([x, 1 - x])),
    "stop_gradient": lambda f: lambda x: f(jax.lax.stop_gradient(x)),
    "named_call": lambda f: lambda x: jax.named_call(f, name="inner")(x),
}


@pytest.mark.parametrize("transform", TRANSFORMED.values(), ids=TRANSFORMED)
def test_transformed_functions_are_bounded(transform: Callable[..., Any]) -> None:
    fn = transform(lambda x: network(PARAMS, x))
    for name in ("ibp", "crown", "forward_crown"):
        encloses(METHODS[name](fn)(X, 0.2), fn, X, 0.2)


def test_checkpoint_of_bounds() -> None:
    bound = jax.jit(lambda x: jax.checkpoint(jaxlirpa.crown(network))(PARAMS, x, 0.1))
    close(bound(X), jaxlirpa.crown(network)(PARAMS, X, 0.1))


def test_derivative_rules_are_not_values() -> None:
    @jax.custom_jvp
    def bent(x: jax.Array) -> jax.Array:
        return jnp.maximum(x, 0) - x

    bent.defjvp(lambda primals, tangents: (100 * primals[0], 100 * tangents[0]))

    @jax.custom_vjp
    def turned(x: jax.Array) -> jax.Array:
        return -jnp.abs(x)

    turned.defvjp(lambda x: (7 * x, None), lambda _, g: (g,))
    for fn in (bent, turned):
        for method in METHODS.values():
            bounds = method(fn)(X, 2.0)
            encloses(bounds, fn, X, 2.0)
            assert (bounds.upper - bounds.lower).max() < 20


def test_constants_of_every_kind() -> None:
    table, index, scale = np.arange(6.0).reshape(3, 2), np.asarray([2, 0, 0]), 3

    def fn(x: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.key(0))
        noise = jax.random.normal(keys[0], (3,)) * jnp.exp(jnp.asarray(table[0, 1]))
        known = jax.lax.scan(lambda c, t: (c + t, c * t), 0.0, jnp.asarray(table).sum(1))[1]
        return jax.nn.relu(x[index] * scale + noise + known)

    encloses(jaxlirpa.crown(fn)(X, 0.3), fn, X, 0.3)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@EACH_METHOD
def test_precision_of_the_arguments_is_kept(method: Callable[..., Any], dtype: Any) -> None:
    params, x = jax.tree.map(lambda a: a.astype(dtype), (PARAMS, X))
    lower, upper = method(network)(params, x, 0.1)
    assert lower.dtype == upper.dtype == dtype


@EACH_METHOD
def test_products_run_at_the_highest_precision(method: Callable[..., Any]) -> None:
    def fn(x: jax.Array) -> jax.Array:
        image = jax.nn.relu(x.reshape(1, 3, 1) @ jnp.ones((1, 2)))
        layout = ("NHC", "HIO", "NHC")
        kernel = jnp.ones((3, 2, 2))
        image = jax.lax.conv_general_dilated(image, kernel, (2,), "SAME", dimension_numbers=layout)
        return jax.nn.relu(image).reshape(-1) @ jnp.ones((4, 2))

    text = str(jax.make_jaxpr(method(fn))(X, 0.1))
    assert "dot_general" in text and "conv_general_dilated" in text
    assert "precision=None" not in text and "DEFAULT" not in text


def test_flax_modules() -> None:
    linen, nnx = pytest.importorskip("flax.linen"), pytest.importorskip("flax.nnx")
    module = linen.Sequential([linen.Dense(4), linen.relu, linen.Dropout(0.5, deterministic=True)])
    x = jnp.ones((1, 3))
    params = module.init(jax.random.key(0), x)
    encloses(
        jaxlirpa.crown(module.apply)(params, x, 0.2), lambda x: module.apply(params, x), x, 0.2
    )

    class Block(nnx.Module):
        def __init__(self, rngs: Any):
            self.dense, self.norm = nnx.Linear(3, 4, rngs=rngs), nnx.BatchNorm(4, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return nnx.sigmoid(self.norm(self.dense(x)))

    block = Block(nnx.Rngs(0))
    block.eval()
    graph, weights, rest = nnx.split(block, nnx.Param, ...)

    def fn(weights: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, weights, rest, copy=True)(x)

    encloses(jaxlirpa.crown(fn)(weights, x, 0.2), lambda x: fn(weights, x), x, 0.2)
