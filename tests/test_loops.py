"""Loops that are kept as one node: the bounds of trips that are written out, without their cost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import pytest
from jax import lax
from oracles import METHODS, check_every_node
from test_control import EPS, LAYERS, LOOPS, XS, X, printed, refused, same, traced

from jaxlirpa import ControlFlowError, EffectError, UnsupportedPrimitiveError
from jaxlirpa._graph import control
from jaxlirpa._graph.graph import Ref

SEQUENCE = jnp.asarray(np.random.default_rng(0).normal(size=(300, 3)))


@pytest.fixture
def whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loop is long."""
    monkeypatch.setattr(control, "MOST_TRIPS", 0)


def primitives(fn: Callable[..., Any], *arguments: jax.Array) -> list[str]:
    """The nodes of a graph but its inputs."""
    return [node.primitive for node in traced(fn, *arguments).nodes[len(arguments) :]]


def cell(c: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A recurrent cell."""
    c = jnp.tanh(LAYERS[0] @ c + x)
    return c, jnp.sum(c)


def recurrent(xs: jax.Array) -> Any:
    """Ends far from where it starts."""
    return lax.scan(cell, jnp.zeros(3), xs)


def counted(x: jax.Array) -> Any:
    """One carry is perturbed from the start, one by another, one never, and one is forgotten."""

    def body(i: jax.Array, carry: Any) -> Any:
        a, b, known, _ = carry
        return jnp.tanh(a) + i, b + a, known + 1, jnp.float64(i)

    return lax.fori_loop(0, 5, body, (x, 0 * X, 2.0, x[0]))


@pytest.mark.parametrize("name", LOOPS)
def test_the_bounds_are_those_of_the_trips(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fn, _, x = LOOPS[name]
    expected = lirpa.ibp(fn)(x, EPS)
    monkeypatch.setattr(control, "MOST_TRIPS", 0)
    found = lirpa.ibp(fn)(x, EPS)
    if name == "while_loop":  # a sum of the input in every trip, which the trips know to be one
        for side in range(2):
            near = (1 - 2 * side) * np.asarray(expected[side][2] - found[side][2])
            assert (near > 0).all() and (near < 3 * EPS).all()
        return
    same(tuple(found), tuple(expected))


@pytest.mark.parametrize("fn", [recurrent, counted], ids=lambda fn: fn.__name__)
def test_whole_loops_are_sound(fn: Any, whole: None) -> None:
    check_every_node(fn, (XS if fn is recurrent else X, EPS), METHODS)


def test_what_no_trip_perturbs_stays_known(whole: None) -> None:
    graph = traced(counted, X)
    assert [node.primitive for node in graph.nodes[1:]][-1] == "loop"
    assert [isinstance(x, Ref) for x in graph.outputs] == [True, True, False, True]
    assert graph.outputs[2] == 7.0
    values = graph.evaluate([X])
    same([values[x] if isinstance(x, Ref) else x for x in graph.outputs], list(counted(X)))


def test_long_scans_are_one_node() -> None:
    assert primitives(recurrent, SEQUENCE) == ["loop"]
    lower, upper = arithmetic.jit(lirpa.crown(recurrent))(SEQUENCE, 0.01)
    leaves = map(jax.tree.leaves, (recurrent(SEQUENCE), lower, upper))
    for value, low, high in zip(*leaves, strict=True):
        assert (low <= value).all() and (value <= high).all() and np.max(high - low) < 1


def test_a_scan_that_is_to_be_unrolled() -> None:
    def asked(x: jax.Array) -> jax.Array:
        return lax.scan(lambda c, _: (jnp.tanh(c), None), x, length=300, unroll=True)[0]

    assert primitives(asked, X) == ["tanh"] * 300


def test_long_while_loops_are_one_node() -> None:
    def halved(x: jax.Array) -> Any:
        return lax.while_loop(lambda c: c[0] < 300, lambda c: (c[0] + 1, c[1] / 2 + 1), (0, x))

    graph = traced(halved, X)
    assert [node.primitive for node in graph.nodes[1:]] == ["loop"] and graph.outputs[0] == 300
    same(tuple(lirpa.crown(halved)(X, EPS)), ((300, 0 * X + 2), (300, 0 * X + 2)))


def test_a_number_of_trips_that_another_transformation_traces() -> None:
    def fn(count: Any, x: jax.Array) -> Any:
        return lax.fori_loop(0, count, lambda i, c: jnp.tanh(c) + i, x)

    bound = lirpa.ibp(fn)
    expected = [tuple(bound(count, X, EPS)) for count in (0, 1, 3)]
    same(tuple(jax.jit(bound)(3, X, EPS)), expected[2])
    counts = jnp.array([0, 1, 3])
    stacked = tuple(map(jnp.stack, zip(*expected, strict=True)))
    same(tuple(jax.vmap(bound, (0, None, None))(counts, X, EPS)), stacked)
    mapped = lirpa.ibp(jax.vmap(fn, (0, None)))
    same(tuple(jax.jit(mapped)(counts, X, EPS)), stacked)


def test_loops_in_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short one in a long one is written out in each of its trips."""

    def outer(x: jax.Array) -> jax.Array:
        def trip(c: jax.Array, _: None) -> Any:
            return lax.fori_loop(0, 2, lambda i, c: jnp.sin(c) + i, c) / 2, None

        return lax.scan(trip, x, length=4)[0]

    expected = tuple(lirpa.ibp(outer)(X, EPS))
    for most in (3, 0):
        monkeypatch.setattr(control, "MOST_TRIPS", most)
        assert primitives(outer, X) == ["loop"]
        same(tuple(lirpa.ibp(outer)(X, EPS)), expected)


def test_gradients_of_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    def width(weights: jax.Array, eps: Any) -> jax.Array:
        def fn(xs: jax.Array) -> jax.Array:
            return lax.scan(lambda c, x: (jnp.tanh(weights @ c + x), None), jnp.ones(3), xs)[0]

        lower, upper = lirpa.ibp(fn)(XS, eps)
        return jnp.sum(upper - lower)

    expected = jax.grad(width, (0, 1))(LAYERS[0], EPS)
    monkeypatch.setattr(control, "MOST_TRIPS", 0)
    same(jax.jit(jax.grad(width, (0, 1)))(LAYERS[0], EPS), expected)


def test_derivatives_are_bounded(whole: None) -> None:
    """The gradient of a loop is a loop that runs backwards over what the first one has written."""
    gradient = jax.grad(lambda xs: jnp.sum(recurrent(xs)[0] ** 2))
    lower, upper = lirpa.ibp(gradient)(XS, 0.01)
    assert (lower <= gradient(XS)).all() and (gradient(XS) <= upper).all()
    assert np.max(upper - lower) < 2


def test_what_is_refused(whole: None) -> None:
    def perturbed(x: jax.Array) -> Any:
        return lax.while_loop(lambda c: c[1] < 1, lambda c: (c[0] + 1, c[1] + c[0][0]), (x, 0.0))

    def unknown(x: jax.Array) -> Any:
        return lax.scan(lambda c, _: (jnp.linalg.cholesky(c), None), x, length=3)[0]

    assert "depends on a perturbed value" in refused(ControlFlowError, perturbed, 1)
    with pytest.raises(UnsupportedPrimitiveError) as caught:
        lirpa.crown(unknown)(jnp.eye(2), EPS)
    line = f"{Path(__file__).name}:{unknown.__code__.co_firstlineno + 1} ("
    assert "`cholesky`" in str(caught.value) and line in str(caught.value)
    with pytest.raises(EffectError, match=r"\(printed\)"):
        traced(lambda x: lax.scan(lambda c, _: (printed(c), None), x, length=2), X)


def test_what_overflows_says_nothing(whole: None) -> None:
    def growing(x: jax.Array) -> jax.Array:
        return lax.scan(lambda c, _: (c**2 * 1e100, None), x, length=20)[0]

    lower, upper = lirpa.crown(growing)(X, EPS)
    assert (lower <= growing(X)).all() and (growing(X) <= upper).all()
    assert not np.isnan([lower, upper]).any()
