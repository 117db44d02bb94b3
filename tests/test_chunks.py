"""Rows in chunks: what is not computed does not matter, and derivatives are the same."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import pytest

from jaxlirpa._intervals import Interval
from jaxlirpa._methods.chunks import by_chunks

SIZES = (5, 23, 17, 3)
ALL = 10**6
ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "hard_tanh": jax.nn.hard_tanh,
    "tanh": jnp.tanh,
}
CENTER = jnp.linspace(-1, 1, SIZES[0])


def network(act: Callable[[Any], Any]) -> Callable[..., Any]:
    def apply(weights: Any, x: jax.Array) -> jax.Array:
        for w, b in weights[:-1]:
            x = act(x @ w + b)
        w, b = weights[-1]
        return x @ w + b

    return apply


def weights(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    shapes = itertools.pairwise(SIZES)
    return [
        (jnp.asarray(rng.normal(size=(m, n)) / np.sqrt(m)), jnp.asarray(rng.normal(size=n)))
        for m, n in shapes
    ]


@pytest.mark.few(3)
@pytest.mark.parametrize("eps", [0.05, 0.5])
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_chunks_equal_all_rows_at_once(act: str, eps: float) -> None:
    fn, params = network(ACTIVATIONS[act]), weights(0)
    whole = lirpa.crown(fn, rows_per_chunk=ALL)(params, CENTER, eps)
    for size in (1, 4, 16):
        part = arithmetic.jit(lirpa.crown(fn, rows_per_chunk=size))(params, CENTER, eps)
        np.testing.assert_allclose(part, whole, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("size", [1, 4, 16])
def test_values_that_are_read_in_another_form(size: int) -> None:
    """A value that no function reads itself, but only reshaped, repeated or in sums of pairs."""
    (first, bias), (second, _), (last, _) = weights(3)

    def reshaped(x: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(x @ first + bias) @ second
        return jax.nn.relu(hidden[:, None]).reshape(-1) @ last + jnp.sum(jnp.tanh(hidden))

    def pairs(x: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(x @ first + bias) @ second
        repeated = jnp.concatenate([hidden] * 4)
        return jnp.sum(jax.nn.relu(repeated[:, None] - repeated[None, :]))

    for fn in (reshaped, pairs):
        whole = lirpa.crown(fn, rows_per_chunk=ALL)(CENTER, 0.5)
        part = arithmetic.jit(lirpa.crown(fn, rows_per_chunk=size))(CENTER, 0.5)
        np.testing.assert_allclose(part, whole, rtol=1e-9, atol=1e-9)


def test_chunks_of_mapped_calls() -> None:
    fn, params = network(jax.nn.relu), weights(1)
    batch = jnp.stack([CENTER, 0 * CENTER, -3 * CENTER])
    bounds = [
        lirpa.crown(fn, in_axes=(None, 0), rows_per_chunk=size)(params, batch, 0.2)
        for size in (ALL, 5)
    ]
    np.testing.assert_allclose(bounds[1], bounds[0], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("act", ["relu", pytest.param("tanh", marks=pytest.mark.long)])
def test_derivatives_are_the_same(act: str) -> None:
    """Forwards and backwards, of functions of the weights and of the radius."""
    fn, params = network(ACTIVATIONS[act]), weights(2)

    def loss(params: Any, eps: Any, size: int) -> jax.Array:
        lower, upper = lirpa.crown(fn, rows_per_chunk=size)(params, CENTER, eps)
        return jnp.sum(upper - lower)

    whole, part = (
        jax.jit(jax.grad(functools.partial(loss, size=size), argnums=(0, 1)))(params, 0.3)
        for size in (ALL, 5)
    )
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-10)

    def along(eps: jax.Array) -> jax.Array:
        return jax.jvp(lambda eps: loss(params, eps, 5), (eps,), (jnp.ones_like(eps),))[1]

    forward = arithmetic.call(along, 0.3)
    np.testing.assert_allclose(forward, whole[1], rtol=1e-8)


@pytest.mark.few(1)
@pytest.mark.parametrize("compiled", [False, True])
def test_derivatives_of_mapped_calls(compiled: bool) -> None:
    """Mapped inside of the derivative, with as many chunks for each as it needs."""
    fn, params = network(jax.nn.relu), weights(1)
    batch = jnp.stack([CENTER, 0 * CENTER, -3 * CENTER])

    def loss(params: Any, size: int) -> jax.Array:
        single = lirpa.crown(fn, rows_per_chunk=size)
        bound = jax.vmap(jax.jit(single) if compiled else single, (None, 0, None))
        lower, upper = bound(params, batch, 0.2)
        return jnp.sum(upper - lower)

    whole, part = (arithmetic.call(jax.grad(loss), params, size) for size in (ALL, 5))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-8, atol=1e-10)


def test_values_that_several_functions_read() -> None:
    """By one of its own, and beside another value: the latter reads all entries."""
    rng = np.random.default_rng(3)
    first, second = (jnp.asarray(rng.normal(size=(6, 24)) / 3) for _ in range(2))

    def fn(x: jax.Array) -> jax.Array:
        inner = jax.nn.relu(x @ first)
        value = inner @ first.T @ second
        return jnp.sum(value**2) + value * jnp.tanh(inner)

    whole, part = (
        lirpa.crown(fn, rows_per_chunk=size)(jnp.linspace(-1, 1, 6), 0.2) for size in (ALL, 5)
    )
    np.testing.assert_allclose(part, whole, rtol=1e-9, atol=1e-9)


def test_only_the_chunks_that_are_needed_are_computed() -> None:
    computed: list[int] = []

    def bound(rows: jax.Array) -> Interval:
        jax.debug.callback(lambda r: computed.extend(r.tolist()), rows)
        return Interval(rows - 0.5, rows + 0.5)

    box = Interval(jnp.full(20, -100.0), jnp.full(20, 100.0))
    needed = jnp.isin(jnp.arange(20), jnp.array([2, 3, 11, 17, 19]))
    found = by_chunks(bound, box, needed, 3)
    jax.effects_barrier()
    assert len(computed) == 6
    assert {2, 3, 11, 17, 19} <= set(computed)
    np.testing.assert_array_equal(found.lower[needed], np.flatnonzero(needed) - 0.5)
    rest = np.setdiff1d(np.arange(20), computed)
    np.testing.assert_array_equal(found.upper[rest], 100)


def test_limits_that_are_no_numbers_change_nothing() -> None:
    box = Interval(jnp.zeros(4), jnp.ones(4))

    def bound(rows: jax.Array) -> Interval:
        return Interval(jnp.where(rows > 1, jnp.nan, 0.25), jnp.full(rows.shape, 0.75))

    found = by_chunks(bound, box, jnp.ones(4, bool), 3)
    np.testing.assert_array_equal(found.lower, [0.25, 0.25, 0, 0])
    np.testing.assert_array_equal(found.upper, 0.75)
