"""Integers computed from perturbed values: exact where nothing overflows, all of them elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracles import METHODS

import jaxlirpa

INT, SHORT = jnp.int32, jnp.int8
Function = Callable[[jax.Array], jax.Array]

# Of integers `[3]`, with which every one is as tight as its sampled values on the small box.
TIGHT: dict[str, Function] = {
    "add": lambda n: n + 7,
    "mul": lambda n: n * 3,
    "neg": lambda n: -n,
    "abs": jnp.abs,
    "sign": jnp.sign,
    "square": jnp.square,
    "cube": lambda n: n**3,
    "sum": lambda n: jnp.sum(n, dtype=INT),
    "cumsum": lambda n: jnp.cumsum(n, dtype=INT),
    "max": lambda n: jnp.maximum(n, 3),
    "clip": lambda n: jnp.clip(n, -2, 9),
    "reduce_max": jnp.max,
    "cummax": jax.lax.cummax,
    "cummin": jax.lax.cummin,
    "sort": lambda n: 2 * jnp.sort(n),
    "shorter": lambda n: n.astype(SHORT),
    "and back": lambda n: n.astype(SHORT).astype(INT) + 1,
    "real": lambda n: 2 * n.astype(jnp.float32) + 1,
    "quotient": lambda n: n / 2,
}
OTHERS: dict[str, Function] = {
    "difference": lambda n: n - n[::-1],
    "product": lambda n: n * n[::-1],
    "reduce_prod": jnp.prod,
    "polynomial": lambda n: (2 * n - 1) * (n + 1),
    "unsigned": lambda n: n.astype(jnp.uint32) + jnp.uint32(3),
    "below zero": lambda n: n.astype(jnp.uint32) - jnp.uint32(3),
    "bytes": lambda n: n.astype(jnp.uint8),
    "bytes from bytes": lambda n: n.astype(SHORT).astype(jnp.uint8),
    "choice": lambda n: jnp.where(n > 2, 2 * n, 5),
    "count": lambda n: jnp.sum(n > 0),
}
SMALL = (-3.0, 2.0, 0.0), (5.0, 9.0, 4.0)
LARGE = {
    "overflow": ((-3e9, 1e9, 0.0), (3e9, 2.1e9, 1e9)),
    "products overflow": ((-50000.0, 40000.0, 60000.0), (50000.0, 50000.0, 70000.0)),
    "bytes overflow": ((0.0, 0.0, 0.0), (300.0, 130.0, 70000.0)),
    "unbounded": ((-np.inf,) * 3, (np.inf,) * 3),
}


def check(function: Function, lower: tuple, upper: tuple, name: str) -> tuple[np.ndarray, ...]:
    """Bounds contain what values attain; returns the limits of both."""

    def whole(x: jax.Array) -> jax.Array:
        return function(x.astype(INT))

    corners = np.clip(np.asarray([lower, upper]), -1e12, 1e12)
    shares = np.random.default_rng(0).choice([0, 0.01, 0.1, 0.3, 0.5, 0.77, 0.9, 1], (600, 3))
    shares[:2] = [[0, 0, 0], [1, 1, 1]]
    points = (corners[0] + shares * (corners[1] - corners[0])).astype(np.float32)
    values = np.asarray(jax.jit(jax.vmap(whole))(points))
    box = jaxlirpa.Box(*(jnp.asarray(x, jnp.float32) for x in (lower, upper)))
    bounds = [np.asarray(limit) for limit in METHODS[name](whole)(box)]
    assert bounds[0].dtype == values.dtype
    assert (values >= bounds[0]).all() and (values <= bounds[1]).all()
    return *bounds, values.min(0), values.max(0)


@pytest.mark.few(20)
@pytest.mark.parametrize("method", ["ibp", "forward_crown", "crown"])
@pytest.mark.parametrize("name", TIGHT)
def test_small_integers_are_bounded_exactly(name: str, method: str) -> None:
    lower, upper, least, most = check(TIGHT[name], *SMALL, method)
    np.testing.assert_array_equal(lower, least)
    np.testing.assert_array_equal(upper, most)


@pytest.mark.few(30)
@pytest.mark.parametrize("limits", LARGE.values(), ids=LARGE)
@pytest.mark.parametrize("name", [*TIGHT, *OTHERS])
def test_integers_that_overflow_may_be_anything(name: str, limits: tuple) -> None:
    for method in ("ibp", "forward_crown"):
        check({**TIGHT, **OTHERS}[name], *limits, method)


def test_a_branch_by_a_test_of_what_is_not_bounded() -> None:
    def fn(x: jax.Array, y: jax.Array) -> jax.Array:
        same = (x == y).astype(y.dtype)
        return jax.lax.switch(same.astype(int), [jnp.sin, jnp.cos], same)

    box = jaxlirpa.Box(jnp.array(-jnp.inf), jnp.array(4.0))
    for method in METHODS.values():
        lower, upper = method(fn)(jaxlirpa.LpBall(jnp.array(0.0), 0.0), box)
        assert lower <= 0 and upper >= np.cos(1.0)
