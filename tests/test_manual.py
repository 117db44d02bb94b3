"""Bounds inside `jax.shard_map`, which checks over which axes of the mesh values vary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from oracles import METHODS

import jaxlirpa
from jaxlirpa import train
from jaxlirpa._methods.arguments import arguments
from jaxlirpa._methods.problem import problem_of

RNG = np.random.default_rng(0)
MESH = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("examples", "copies"))
X = jnp.asarray(RNG.normal(size=(2, 6)))
IMAGES = jnp.asarray(RNG.normal(size=(2, 6, 6, 1)))
W = [jnp.asarray(RNG.normal(size=shape)) for shape in ((6, 4), (4, 3))]
KERNEL = RNG.normal(size=(3, 3, 1, 2))
PARTS = P("examples")
COLLECTIVES = ("psum", "all_gather", "pmax", "pmin", "ppermute", "all_to_all")
EPS = 0.1


def dense(w: Any, x: jax.Array) -> jax.Array:
    return jnp.tanh(jax.nn.relu(x @ w[0]) @ w[1])


def convolution(w: Any, x: jax.Array) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, KERNEL, (2, 2), "SAME", dimension_numbers=numbers)
    x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 1, 1, 1), "VALID")
    return jax.nn.sigmoid(x)


def attention(w: Any, x: jax.Array) -> jax.Array:
    rows = x.reshape(-1, 2, 3)
    return jax.nn.softmax(rows @ jnp.swapaxes(rows, 1, 2)) @ rows


def curved(w: Any, x: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(jax.nn.gelu(x) * jnp.sin(x), -1) / (1 + jnp.square(x).mean(-1))


def loop(w: Any, x: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, 300, lambda i, y: 0.9 * jnp.tanh(y + x), jnp.zeros_like(x))


def manual(fn: Callable[..., Any], out_specs: Any = PARTS) -> Callable[..., Any]:
    """A function whose first argument every device has, and of the second its part."""
    return jax.shard_map(fn, mesh=MESH, in_specs=(P(), PARTS), out_specs=out_specs)


def bounds(transform: Any, fn: Any, **options: Any) -> Callable[..., Any]:
    return lambda w, x: tuple(transform(fn, **options)(w, x, EPS))


def traced(fn: Callable[..., Any], *args: Any) -> None:
    """Every type fits, and nothing is sent between devices."""
    code = str(jax.make_jaxpr(manual(fn))(*args))
    assert not any(name in code for name in COLLECTIVES)


CASES = {"dense": X, "convolution": IMAGES, "attention": X, "curved": X, "loop": X}


@pytest.mark.few(4)
@pytest.mark.parametrize("method", ["crown", "forward_crown"])
@pytest.mark.parametrize("name", CASES)
def test_every_kind_of_function_has_bounds(name: str, method: str) -> None:
    traced(bounds(METHODS[method], globals()[name]), W, CASES[name])


@pytest.mark.few(1)
@pytest.mark.parametrize("method", ["ibp", "crown", "forward_crown"])
def test_the_same_bounds_as_outside(method: str) -> None:
    fn = bounds(METHODS[method], dense)
    pairs = zip(jax.jit(manual(fn))(W, X), jax.jit(fn)(W, X), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_functions_that_are_known_whole_are_so_inside() -> None:
    """Casts between what varies and what does not hide neither GELU nor softmax."""

    def nodes(w: Any, x: jax.Array) -> jax.Array:
        call = arguments(lambda x: curved(w, x), (jaxlirpa.LpBall(x, EPS),), None)
        graph = problem_of(lambda x: curved(w, x), call)[0].graph
        seen.append([node.primitive for node in graph.nodes])
        return x

    seen: list[list[str]] = []
    nodes(W, X)
    jax.make_jaxpr(manual(nodes))(W, X)
    assert seen[0] == seen[1]


@pytest.mark.slow
def test_every_set_and_option() -> None:
    traced(bounds(jaxlirpa.alpha_crown, dense, steps=1), W, X)
    traced(bounds(jaxlirpa.crown, dense, in_axes=(None, 0)), W, X)
    traced(bounds(jaxlirpa.crown, dense, rows_per_chunk=2), W, X)
    traced(lambda w, x: jaxlirpa.crown(dense, linear=True)(w, x, EPS).lower_offset, W, X)
    traced(lambda w, x: jaxlirpa.crown(dense)(w, jaxlirpa.LpBall(x, EPS, ord=2)).lower, W, X)
    traced(lambda w, x: jaxlirpa.crown(dense)(jaxlirpa.JointBall(w, EPS), x).lower, W, X)
    traced(lambda w, x: jaxlirpa.crown(dense)(jaxlirpa.LpBall(w, EPS), x).lower, W, X)

    def again(w: Any, x: jax.Array) -> jax.Array:
        saved = jaxlirpa.intermediate_bounds(dense)(w, x, EPS)
        return jaxlirpa.crown(dense, intermediate=saved)(w, x, EPS).lower

    traced(again, W, X)


def test_what_is_closed_over_and_differs_between_devices() -> None:
    """The perturbed argument does not, but its bounds do; and the number of the device too."""

    def closed(w: Any, x: jax.Array) -> jax.Array:
        return jaxlirpa.crown(lambda w: dense(w, x))(jaxlirpa.LpBall(w, EPS)).lower

    def number(w: Any, x: jax.Array) -> jax.Array:
        def fn(w: Any) -> jax.Array:
            return jax.nn.relu(w[0]) * jax.lax.axis_index("examples")

        return jaxlirpa.crown(fn)(jaxlirpa.LpBall(w, EPS)).lower

    traced(closed, W, X)
    traced(number, W, X)


def test_copies_stay_copies() -> None:
    """What no device has a part of has the same bounds on all."""
    crown = bounds(jaxlirpa.crown_ibp, dense)
    found = jax.make_jaxpr(manual(lambda w, x: crown(w, jnp.ones((1, 6))), P()))(W, X)
    assert not any(name in str(found) for name in COLLECTIVES)


@pytest.mark.slow
def test_derivatives_of_a_loss() -> None:
    """With respect to weights, of which every device has a copy: summed over all of them."""

    def total(w: Any, x: jax.Array) -> jax.Array:
        fn = lambda w, x: jax.nn.relu(x @ w[0]) @ w[1]  # noqa: E731
        losses = train.crown_ibp(fn)(w, x, jnp.zeros(len(x), int), EPS)
        return losses.sum()

    found = jax.jit(manual(jax.grad(total), P()))(W, X)
    for slope, expected in zip(found, jax.jit(jax.grad(total))(W, X), strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-9)


def test_sums_over_devices_are_refused() -> None:
    def fn(w: Any, x: jax.Array) -> jax.Array:
        return jax.lax.psum(jnp.tanh(x), "examples")

    with pytest.raises(
        jaxlirpa.UnsupportedPrimitiveError, match="bound what each of them computes"
    ):
        jax.make_jaxpr(manual(bounds(jaxlirpa.crown, fn)))(W, X)
