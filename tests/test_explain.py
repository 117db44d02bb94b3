"""What a function is bounded as, shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlirpa
from jaxlirpa import Bounds, extend

W = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4)))
X = jnp.array([0.3, -0.2, 0.9, 0.1])


def network(x: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(x @ W)
    return jax.nn.softmax(hidden @ W)


def test_every_value_is_there_with_its_rule_and_line() -> None:
    found = jaxlirpa.explain(network)(X, 0.1)
    first, product, relu, *_, last = found.values
    assert (first.primitive, first.family) == ("input", "")
    assert (product.family, product.rule) == ("Bilinear", "")
    assert (last.primitive, last.rule) == ("softmax", "softmax")
    assert relu.source.endswith("(network)")
    line = network.__code__.co_firstlineno + 1
    assert f"test_explain.py:{line} " in relu.source
    table = str(found).splitlines()
    assert len(table) == 1 + len(found.values) and table[3].split()[2:5] == ["max", "%1", "0.0"]


@pytest.mark.parametrize("intermediate", [jaxlirpa.ibp, None], ids=["ibp", "crown"])
def test_boxes_are_those_on_which_functions_are_relaxed(intermediate: Any) -> None:
    found = jaxlirpa.explain(network, intermediate=intermediate)(X, 0.1)
    named = jaxlirpa.intermediate_bounds(network, intermediate=intermediate)(X, 0.1)
    values = {v.name: v for v in found.values}
    assert named.keys() <= values.keys()
    for name, (lower, upper) in named.items():
        np.testing.assert_allclose(values[name].bounds, (lower, upper), 1e-9)
        np.testing.assert_allclose(values[name].width, np.mean(upper - lower), 1e-9)


def test_unstable_neurons_are_those_whose_sign_is_open() -> None:
    found = jaxlirpa.explain(network)(X, 0.1)
    before, relu = found.values[1], found.values[2]
    lower, upper = before.bounds
    assert relu.unstable == np.sum((lower < 0) & (upper > 0)) > 0
    gap = np.where((lower < 0) & (upper > 0), -lower * upper / (upper - lower), 0) / 2
    slope = np.where(upper > -lower, 1.0, 0.0)  # of the line below
    middle = 0.5 * (lower + upper)
    above = np.where(gap > 0, upper * (middle - lower) / (upper - lower), 0)
    expected = np.mean(np.where(gap > 0, above - slope * middle, 0))
    np.testing.assert_allclose(relu.gap, expected, 1e-9)


def test_nothing_is_shown_inside_jit() -> None:
    with pytest.raises(jaxlirpa.ArgumentError, match=r"inside jax\.jit"):
        jax.jit(lambda x: jaxlirpa.explain(network)(x, 0.1).values[0].bounds)(X)


def test_a_plot_has_a_point_a_value() -> None:
    axes = pytest.importorskip("matplotlib.figure").Figure().subplots()
    found = jaxlirpa.explain(network)(X, 0.1)
    found.plot(axes)
    ((line,), labels) = axes.lines, axes.get_xticklabels()
    assert [*line.get_ydata()] == [v.width for v in found.values]
    assert [text.get_text() for text in labels] == [v.name for v in found.values]


def test_a_graph_prints_like_a_jaxpr() -> None:
    graph = extend.trace(lambda x: jnp.tanh(2 * x) - 1, jaxlirpa.Box(X, X + 1)).graph
    lines = [line.partition("  #")[0] for line in str(graph).splitlines()]
    assert lines == [
        "%0:f64[4] = input",
        "%1:f64[4] = mul 2.0 %0",
        "%2:f64[4] = tanh %1",
        "%3:f64[4] = sub %2 1.0",
        "return %3",
    ]


# ---- transforms of the user's own ------------------------------------------------------------


def wide(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Bounds of the user's own: interval bounds, a little wider, by whatever means."""

    def bounded(*sets: Any) -> Bounds:
        assert callable(fn)
        values = fn(*(s.point() for s in sets))
        lower, upper = jaxlirpa.ibp(fn)(*sets)
        for value, low, high in zip(values, lower, upper, strict=True):
            assert (low <= value).all() and (value <= high).all()
        return Bounds(tuple(x - 1 for x in lower), tuple(x + 1 for x in upper))

    return bounded


def test_a_transform_of_the_users_own_bounds_what_is_inside() -> None:
    """It is handed a function that it may call, trace and hand on."""
    own = jaxlirpa.crown(network, intermediate=wide)(X, 0.1)
    for limits, expected in zip(own, jaxlirpa.crown_ibp(network)(X, 0.1), strict=True):
        np.testing.assert_allclose(limits, expected, 1e-12)  # never wider than intervals

    def narrow(fn: Callable[..., Any]) -> Callable[..., Any]:
        def bounded(ball: jaxlirpa.LpBall) -> Bounds:
            x = ball.center
            samples = jax.vmap(fn)(x + ball.radius * jnp.linspace(-1, 1, 9)[:, None])
            return Bounds(
                tuple(s.min(0) for s in samples), tuple(s.max(0) for s in samples)
            )  # sound for a segment only

        return bounded

    for limits, expected in zip(
        jaxlirpa.crown(network, intermediate=narrow)(X, 0.1), own, strict=True
    ):
        assert np.abs(limits - expected).max() > 1e-6
