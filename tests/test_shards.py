"""`jax.shard_map` inside of the function that is bounded: all devices in one graph."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ALONE = __name__ == "__main__"
if _ALONE:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
from jax.sharding import Mesh  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402

import jaxlirpa  # noqa: E402
from jaxlirpa import UnsupportedPrimitiveError  # noqa: E402
from jaxlirpa._methods.arguments import arguments  # noqa: E402
from jaxlirpa._methods.problem import problem_of  # noqa: E402

RNG = np.random.default_rng(0)
SHAPE = (2, 2) if _ALONE else (1, 1)
MESH = Mesh(np.array(jax.devices()[: SHAPE[0] * SHAPE[1]]).reshape(SHAPE), ("a", "b"))
X = jnp.asarray(RNG.normal(size=(4, 8)), jnp.float32)
W = jnp.asarray(RNG.normal(size=(8, 3)), jnp.float32)
EPS = 0.1


def rows(x: jax.Array) -> jax.Array:
    """Every device some examples, and its number."""

    def body(w: jax.Array, x: jax.Array) -> jax.Array:
        return jax.nn.gelu(x @ w) + jax.lax.axis_index("a") + 2 * jax.lax.axis_index(("b", "a"))

    return shards(body, (P(), P(("b", "a"))), P(("b", "a")))(W, x)


def columns(x: jax.Array) -> jax.Array:
    """A matrix product whose terms are on different devices."""

    def body(w: jax.Array, x: jax.Array) -> jax.Array:
        return jax.nn.relu(jax.jit(lambda x: jax.lax.psum(x @ w, "a"))(x))

    return shards(body, (P("a"), P("b", "a")), P("b"))(W, x)


def gathered(x: jax.Array) -> tuple[jax.Array, ...]:
    def body(x: jax.Array) -> tuple[jax.Array, ...]:
        x = jnp.where(x > 0, x, jnp.sin(x))
        along = jax.lax.all_gather(x, "a"), jax.lax.all_gather(x, ("b", "a"), axis=1, tiled=True)
        return (
            *along,
            jax.lax.pmax(x, "b"),
            jax.lax.pmin(x, "a"),
            jax.lax.psum(jnp.ones(()), "a") * x,
        )

    specs = P(None, ("a", "b")), P(("b", "a")), P("a", "b"), P("a", "b"), P("a", "b")
    return shards(body, (P("a", "b"),), specs)(x)


def inside(x: jax.Array) -> jax.Array:
    """Loops and branches whose trips are alike, of perturbed values and of known ones."""

    def body(w: jax.Array, x: jax.Array) -> jax.Array:
        start = jnp.zeros_like(w)
        w = jax.lax.fori_loop(0, 2, lambda i, y: y + jnp.where(w > 0, w, 0.0), start)
        x = jax.lax.cond(jnp.sum(w) > 0, lambda x: x @ w, lambda x: -(x @ w), x)
        return jax.lax.fori_loop(0, 2, lambda i, y: jnp.tanh(y) * i, x)

    return shards(body, (P(None, "b"), P("a")), P("a", "b"))(jnp.pad(W, ((0, 0), (0, 1))), x)


def unchecked(x: jax.Array) -> jax.Array:
    """A sum over devices is the same on all of them."""

    def body(x: jax.Array) -> jax.Array:
        return jax.lax.psum(jnp.square(x), ("a", "b"))

    return shards(body, (P("a", "b"),), P(), check_vma=False)(x)


def known(x: jax.Array) -> jax.Array:
    return x @ shards(lambda w: jax.lax.psum(w, "a"), (P("a"),), P())(
        jnp.concatenate([W] * SHAPE[0])
    )


def shards(body: Callable[..., Any], in_specs: Any, out_specs: Any, **options: Any) -> Any:
    return jax.shard_map(body, mesh=MESH, in_specs=in_specs, out_specs=out_specs, **options)


CASES = [rows, columns, gathered, inside, unchecked, known]


def check_values(fn: Callable[..., Any]) -> None:
    """The graph computes what the function does."""
    graph = problem_of(fn, arguments(fn, (X, EPS), None))[0].graph
    for x in (X, X + 0.05):
        values = graph.evaluate([x])
        found = [values[ref] for ref in graph.targets]
        for own, expected in zip(found, jax.tree.leaves(fn(x)), strict=True):
            np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-5)


def check_bounds(fn: Callable[..., Any]) -> None:
    """They hold members of the set."""
    lower, upper = jax.jit(jaxlirpa.crown(fn))(X, EPS)
    for _ in range(5):
        x = X + EPS * RNG.uniform(-1, 1, X.shape).astype(np.float32)
        for low, value, high in zip(*map(jax.tree.leaves, (lower, fn(x), upper)), strict=True):
            assert np.all((low - 1e-4 <= value) & (value <= high + 1e-4))


@pytest.mark.few(2)
@pytest.mark.parametrize("fn", CASES, ids=lambda fn: fn.__name__)
def test_the_graph_computes_what_one_device_does(fn: Callable[..., Any]) -> None:
    check_values(fn)


def test_bounds_of_one_device() -> None:
    check_bounds(columns)


def test_names_and_functions_that_are_known_whole() -> None:
    """As if they were written without devices."""
    graph = problem_of(rows, arguments(rows, (X, EPS), None))[0].graph
    assert "gelu_tanh" in [node.primitive for node in graph.nodes][-4:]


def test_what_is_sent_otherwise_is_refused() -> None:
    def shifted(x: jax.Array) -> jax.Array:
        body = lambda x: jax.lax.ppermute(jnp.tanh(x), "a", [(0, 0)])  # noqa: E731
        return shards(body, (P("a"),), P("a"))(x)

    def looped(x: jax.Array) -> jax.Array:
        def body(x: jax.Array) -> jax.Array:
            return jax.lax.fori_loop(0, 2, lambda i, x: x * jax.lax.psum(jnp.sum(x), "a"), x)

        return shards(body, (P("a"),), P("a"))(x)

    for fn, message in ((shifted, r"ppermute.*psum.*known"), (looped, "inside of a loop")):
        with pytest.raises(UnsupportedPrimitiveError, match=message):
            jaxlirpa.ibp(fn)(X, EPS)


@pytest.mark.slow
def test_four_devices() -> None:
    found = subprocess.run(
        [sys.executable, __file__], capture_output=True, text=True, cwd=Path(__file__).parents[1]
    )
    assert found.stdout.endswith("held\n"), found.stdout + found.stderr[-4000:]


if _ALONE:
    for case in CASES:
        check_values(case)
    check_bounds(columns)

    def differs(x: jax.Array) -> jax.Array:
        return shards(jnp.tanh, (P("a"),), P(), check_vma=False)(x)

    with pytest.raises(UnsupportedPrimitiveError, match="check_vma=True"):
        jaxlirpa.ibp(differs)(X, EPS)
    print("held")
