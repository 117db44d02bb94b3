"""Rounded weights, the boxes that contain them, and certificates about them."""

from __future__ import annotations

from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import pytest

import jaxlirpa
from jaxlirpa import Box, landscape

RNG = np.random.default_rng(1)
PARAMS = [
    {"kernel": jnp.asarray(RNG.normal(size=(3, 6))), "bias": jnp.asarray(RNG.normal(size=6) / 4)},
    {"kernel": jnp.asarray(RNG.normal(size=(6, 3))), "bias": jnp.asarray(RNG.normal(size=3) / 4)},
]
X = jnp.asarray(RNG.normal(size=(12, 3)))


def network(params: Any, x: jax.Array) -> jax.Array:
    first, second = params
    return jax.nn.relu(x @ first["kernel"] + first["bias"]) @ second["kernel"] + second["bias"]


@pytest.mark.few(8)
@pytest.mark.parametrize("bits", [2, 3, 8, 16])
@pytest.mark.parametrize("axis", [None, -1, 0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_levels(bits: int, axis: int | None, dtype: Any) -> None:
    """Multiples of one step, the largest modulus among them, no further than half a step away."""
    params = jax.tree.map(lambda w: w.astype(dtype), PARAMS)
    rounded = landscape.quantise(params, bits, axis)
    for before, after in zip(params, rounded, strict=True):
        np.testing.assert_array_equal(before["bias"], after["bias"])
        w, q = before["kernel"], after["kernel"]
        assert q.dtype == dtype
        kept = None if axis is None else tuple({0, 1} - {axis % 2})
        step = jnp.max(jnp.abs(w), kept, keepdims=True) / (2 ** (bits - 1) - 1)
        eps = 2**bits * jnp.finfo(dtype).eps
        np.testing.assert_allclose(q / step, jnp.round(q / step), 0, eps)
        np.testing.assert_allclose(jnp.max(jnp.abs(q / step), kept), 2 ** (bits - 1) - 1, 1e-5)
        assert (jnp.abs(w - q) <= step * (0.5 + eps)).all()
        assert len(jnp.unique(jnp.round(q / step))) < 2**bits


@pytest.mark.parametrize("axis", [None, -1])
@pytest.mark.parametrize("steps", [0.5, 1.0])
def test_cells_contain_what_rounding_makes(axis: int | None, steps: float) -> None:
    """To the nearest level, bit by bit; with whole steps, to either neighbour."""
    params = jax.tree.map(lambda w: w.astype(jnp.float32), PARAMS)
    for bits in range(2, 12):
        cell = landscape.quantisation_cell(params, bits, axis, steps=steps)
        rounded = landscape.quantise(params, bits, axis)
        for box, before, after in zip(cell, params, rounded, strict=True):
            low, high = box["kernel"].lower, box["kernel"].upper
            assert isinstance(box["kernel"], Box)
            assert not isinstance(box["bias"], Box)
            for inside in (before["kernel"], after["kernel"]):
                assert ((low <= inside) & (inside <= high)).all()
            if steps == 1:
                peak = jnp.max(jnp.abs(before["kernel"]), None if axis is None else 0)
                step = peak / (2 ** (bits - 1) - 1)
                for other in (jnp.floor, jnp.ceil):
                    neighbour = step * other(before["kernel"] / step)
                    room = 1e-6 * jnp.abs(neighbour)
                    assert (low - room <= neighbour).all()
                    assert (neighbour <= high + room).all()


def test_an_array_of_zeros_stays() -> None:
    zeros = jnp.zeros((2, 2))
    np.testing.assert_array_equal(landscape.quantise(zeros, 4), zeros)
    np.testing.assert_array_equal(landscape.quantise(zeros, 4, 0), zeros)


@pytest.mark.parametrize("bits", [1, 0, -3])
def test_too_few_bits(bits: int) -> None:
    with pytest.raises(jaxlirpa.ArgumentError, match="2 bits or more"):
        landscape.quantise(PARAMS, bits)


def inside(cell: Any, rng: np.random.Generator) -> Any:
    """A random member."""

    def member(own: Any) -> Any:
        if not isinstance(own, Box):
            return own
        share = jnp.asarray(rng.uniform(size=own.lower.shape))
        return own.lower + share * (own.upper - own.lower)

    return jax.tree.map(member, cell, is_leaf=lambda own: isinstance(own, Box))


@pytest.mark.few(1)
@pytest.mark.parametrize("axis", [None, -1])
def test_certified_bits(axis: int | None) -> None:
    """The network that is quantised to as many bits, or more, classifies as before."""
    found = arithmetic.jit(landscape.certified_bits(network, range(2, 11), channel_axis=axis))(
        PARAMS, X
    )
    classes = jnp.argmax(network(PARAMS, X), -1)
    assert len(set(found.tolist())) > 2
    changed = np.zeros(len(X), int)
    for bits in range(2, 11):
        rounded = landscape.quantise(PARAMS, bits, axis)
        same = jnp.argmax(network(rounded, X), -1) == classes
        assert same[found <= bits].all()
        changed += ~np.asarray(same)
        cell = landscape.quantisation_cell(PARAMS, bits, axis)
        for seed in range(5):
            member = inside(cell, np.random.default_rng([bits, seed]))
            assert (jnp.argmax(network(member, X), -1) == classes)[found <= bits].all()
    assert changed.any()


def test_none_is_certified() -> None:
    found = landscape.certified_bits(network, [2], method=lirpa.ibp)(PARAMS, X[:2] * 1e-3)
    assert landscape.NEVER in found


@pytest.mark.parametrize("batch_size", [None, 5])
def test_unchanged(batch_size: int | None) -> None:
    """Of an input whose margin is known; the sets need not be around the weights."""
    params = {"kernel": jnp.array([[1.0, 0.0]])}
    inputs = jnp.linspace(-1.0, 1.0, 11)[:, None] + 0.05

    def scores(params: Any, x: jax.Array) -> jax.Array:
        return x @ params["kernel"]

    sets = {"kernel": jaxlirpa.LpBall(params["kernel"], 0.6, ord=jnp.inf)}
    check = landscape.unchanged(scores, method=lirpa.ibp, batch_size=batch_size)
    assert not check(params, sets, inputs).any()
    sets = {"kernel": jaxlirpa.LpBall(params["kernel"], 0.4, ord=jnp.inf)}
    assert check(params, sets, inputs).all()
