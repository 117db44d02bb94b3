"""Functions are kept whole by what they are; a name alone is no proof."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import oracles
import pytest

import jaxlirpa
from jaxlirpa import Box, LpBall, UnsupportedPrimitiveError

BOX = Box(jnp.array([-1.0, -2.0, 0.5]), jnp.array([2.0, -0.5, 1.0]))


def primitives(function: Callable[..., Any], *args: Any) -> list[str]:
    """The live nodes of a function's graph, but for its inputs."""
    graph, _ = oracles.trace(function, *args)
    return [graph.nodes[i].primitive for i in graph.live() if graph.nodes[i].primitive != "input"]


@pytest.mark.parametrize(
    "function",
    [
        jax.nn.leaky_relu,
        lambda x: jax.nn.leaky_relu(x, 0.2),
        lambda x: jax.nn.leaky_relu(x, negative_slope=-0.3),
        lambda x: jax.nn.leaky_relu(x, np.float32(0.2)),
        lambda x: jax.nn.leaky_relu(x, jnp.array([0.1, 0.2, 0.3])),
        jax.jit(jax.nn.leaky_relu),
        jax.checkpoint(jax.nn.leaky_relu),
        functools.partial(jax.nn.leaky_relu, negative_slope=0.5),
    ],
)
def test_leaky_relu_is_kept_whole(function: Callable[[Any], Any]):
    assert primitives(function, BOX) == ["leaky_relu"]
    oracles.check_every_node(function, [BOX])
    lower, upper = lirpa.crown(function)(BOX)
    ends = np.stack([function(BOX.lower), function(BOX.upper)])
    oracles.equal(lower[1:], ends.min(0)[1:])
    oracles.equal(upper[1:], ends.max(0)[1:])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("function", [jax.nn.leaky_relu, jax.nn.hard_tanh])
def test_precision_is_kept(function: Callable[[Any], Any], dtype: Any):
    box = jax.tree.map(lambda x: x.astype(dtype), BOX)
    assert {x.dtype for x in jax.tree.leaves(lirpa.crown(function)(box))} == {np.dtype(dtype)}


def test_the_slope_may_be_traced():
    """A slope known only under jit is a known operand like any other."""

    def bounds(slope: Any) -> jaxlirpa.Bounds:
        return lirpa.crown(lambda x: jax.nn.leaky_relu(x, slope))(BOX)

    for actual, expected in zip(jax.jit(bounds)(0.2), bounds(0.2), strict=True):
        oracles.equal(actual, expected)


def test_a_perturbed_slope_is_refused():
    with pytest.raises(UnsupportedPrimitiveError, match="leaky_relu"):
        lirpa.crown(jax.nn.leaky_relu)(jnp.ones(3), LpBall(jnp.array(0.1), 0.05))
    with pytest.raises(UnsupportedPrimitiveError):
        lirpa.crown(jax.nn.leaky_relu)(BOX, LpBall(jnp.array(0.1), 0.05))


@pytest.mark.parametrize(
    "slope", [jnp.full((2, 3), 0.1), jnp.full((3,), 0.1)], ids=["more rows", "an array"]
)
@pytest.mark.parametrize("shape", [(3,), ()])
def test_a_slope_that_changes_the_shape_is_sound_or_refused(shape: tuple[int, ...], slope: Any):
    box = Box(jnp.full(shape, -1.0), jnp.full(shape, 2.0))
    try:
        oracles.check_every_node(lambda x: jax.nn.leaky_relu(x, slope), [box])
    except UnsupportedPrimitiveError:
        assert slope.shape != shape


def test_a_slope_of_higher_precision_is_sound_or_refused():
    box = jax.tree.map(lambda x: x.astype(jnp.float32), BOX)
    oracles.check_every_node(lambda x: jax.nn.leaky_relu(x, jnp.array(0.1, jnp.float64)), [box])


# ---- what only has the name ----------------------------------------------------------------


def named(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function under another name, jitted so that the name is in the trace."""

    def wrapper(*args: Any) -> Any:
        return function(*args)

    wrapper.__name__ = wrapper.__qualname__ = name
    return jax.jit(wrapper)


IMPOSTORS = {
    "half": lambda x: 0.5 * x,
    "relu": lambda x: jnp.maximum(x, 0),
    "mirrored": lambda x: -jnp.maximum(-x, 0),
    "summed": lambda x: x.sum(),
    "two outputs": lambda x: (x, -x),
    "constant": lambda x: x + np.arange(3.0),
    "convolution": lambda x: jnp.convolve(x, np.array([1.0, -2.0, 1.0]), "same"),
}


@pytest.mark.parametrize("name", ["leaky_relu", "hard_tanh"])
@pytest.mark.parametrize("impostor", IMPOSTORS)
def test_an_impostor_is_entered(name: str, impostor: str):
    function = named(name, IMPOSTORS[impostor])
    assert "leaky_relu" not in primitives(function, BOX)
    oracles.check_every_node(function, [BOX])
    for actual, expected in zip(
        jax.tree.leaves(lirpa.crown(function)(BOX)),
        jax.tree.leaves(lirpa.crown(IMPOSTORS[impostor])(BOX)),
        strict=True,
    ):
        oracles.equal(actual, expected)


@pytest.mark.parametrize("name", ["leaky_relu", "hard_tanh"])
@pytest.mark.parametrize(
    "impostor",
    [
        lambda x: jnp.where(x >= 0, x, 0.01 * x * x),
        lambda x: jnp.where(x > 0, x, 0.01 * x),
        lambda x: jnp.where(x >= 0, -x, 0.01 * x),
        lambda x: jnp.where(x >= 0.1, x, 0.01 * x),
        lambda x: jnp.where(x > 1, 1, jnp.where(x < -2, -1, x)),
        lambda x: jnp.where(x > 1, 2, jnp.where(x < -1, -1, x)),
    ],
)
def test_an_impostor_with_a_comparison_is_entered(name: str, impostor: Callable[[Any], Any]):
    """Nearly the library's own body, but not the same: its parts are bounded."""
    assert not {"leaky_relu", "clamp"} & set(primitives(named(name, impostor), BOX))
    oracles.check_every_node(named(name, impostor), [BOX])


def test_the_library_function_under_another_name_is_entered():
    """The name proposes: without it nothing is recognised, which is safe."""
    hidden = named("my_activation", lambda x: jnp.where(x >= 0, x, 0.01 * x))
    assert "leaky_relu" not in primitives(hidden, BOX)
    oracles.check_every_node(hidden, [BOX])


# ---- clipping ------------------------------------------------------------------------------

CLIPS = {
    "clip": lambda x: jnp.clip(x, -0.5, 0.75),
    "relu6": jax.nn.relu6,
    "clamp": lambda x: jax.lax.clamp(-0.5, x, 0.75),
    "min of max": lambda x: jnp.minimum(jnp.maximum(x, -0.5), np.array([0.1, 0.2, 0.3])),
    "hard_tanh": jax.nn.hard_tanh,
    "wrong way round": lambda x: jnp.clip(x, 0.5, -0.5),
}


@pytest.mark.parametrize("name", CLIPS)
def test_clip_is_one_node(name: str):
    assert primitives(CLIPS[name], BOX) == ["clamp"]
    oracles.check_every_node(CLIPS[name], [BOX])


def test_what_else_reads_the_inner_maximum_still_may():
    def function(x: Any) -> Any:
        inner = jnp.maximum(x, -0.5)
        return jnp.minimum(inner, 0.75) - inner

    assert sorted(primitives(function, BOX)) == ["clamp", "max", "sub"]
    oracles.check_every_node(function, [BOX])


def test_a_clip_of_two_perturbed_values_is_none():
    def function(x: Any) -> Any:
        return jnp.minimum(jnp.maximum(x, -0.5), x[::-1])

    assert "clamp" not in primitives(function, BOX)
    oracles.check_every_node(function, [BOX])


def test_one_clip_is_tighter_than_two_kinks():
    def apart(x: Any) -> Any:
        return jnp.maximum(jnp.minimum(x, 0.75), -0.5)

    def width(function: Callable[[Any], Any]) -> float:
        lower, upper = lirpa.crown(lambda x: (function(x) - 0.4 * x).sum())(BOX)
        return float(upper - lower)

    assert width(CLIPS["clip"]) < width(apart)


# ---- softplus ------------------------------------------------------------------------------

SLOPES = {
    "grad": jax.grad(lambda x: jax.nn.softplus(x).sum()),
    "grad of logaddexp": jax.grad(lambda x: jnp.logaddexp(x, 0.0).sum()),
    "vmap of grad": jax.vmap(jax.grad(jax.nn.softplus)),
    "written out": lambda x: jnp.exp(x - jax.nn.softplus(x)),
}


@pytest.mark.parametrize("name", SLOPES)
def test_the_slope_of_softplus_is_the_logistic_function(name: str):
    assert primitives(SLOPES[name], BOX)[0] == "logistic"
    assert set(primitives(SLOPES[name], BOX)) <= {"logistic", "mul"}
    oracles.check_every_node(SLOPES[name], [BOX])
    extremes = jnp.array([-jnp.inf, -800.0, 0.0, 800.0, jnp.inf])
    graph, _ = oracles.trace(SLOPES[name], Box(extremes - 1, extremes + 1))
    (ref,) = graph.outputs
    np.testing.assert_allclose(graph.evaluate([extremes])[ref], [0, 0, 0.5, 1, 1], atol=1e-300)


def test_logaddexp_with_zero_is_softplus():
    assert primitives(lambda x: jnp.logaddexp(x, 0.0), BOX) == ["softplus"]
    assert "softplus" not in primitives(lambda x: jnp.logaddexp(x, 1.0), BOX)


def test_derivatives_of_softplus_in_either_direction():
    for function in (
        lambda x: jax.jvp(jax.nn.softplus, (x,), (x,))[1],
        jax.jacfwd(jax.nn.softplus),
    ):
        found = primitives(function, BOX)
        assert "logistic" in found and "exp" not in found
        oracles.check_every_node(function, [BOX])


def test_slope_of_softplus_in_its_other_operand():
    """Of `log(exp(x) + exp(y))` in `y`, at zero: the logistic function of `-x`."""

    def slope(x: Any) -> Any:
        return jax.jvp(lambda y: jnp.logaddexp(x, y), (0.0,), (1.0,))[1]

    graph, _ = oracles.trace(slope, BOX)
    assert "logistic" in [node.primitive for node in graph.nodes]
    (ref,) = graph.outputs
    for x in BOX.lower, BOX.upper:
        np.testing.assert_allclose(graph.evaluate([x])[ref], jax.nn.sigmoid(-x))
    oracles.check_every_node(lambda x: jnp.exp(0 - jax.nn.softplus(x)), [BOX])


# ---- second derivatives --------------------------------------------------------------------


def mlp(activation: Callable[[Any], Any]) -> Callable[[Any], Any]:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(3, 4)), rng.normal(size=4)
    return lambda x: activation(x @ first) @ second


def slope_of_tanh(x: Any) -> Any:
    return jax.grad(lambda x: jnp.tanh(x).sum())(x)


SECOND = {
    "hessian": jax.hessian,
    "forwards twice": lambda f: jax.jacfwd(jax.jacfwd(f)),
    "along a direction": lambda f: lambda x: jax.jvp(jax.grad(f), (x,), (np.ones(3),))[1],
}


@pytest.mark.few(2)
@pytest.mark.parametrize("second", SECOND)
@pytest.mark.parametrize("activation", [jnp.tanh, jax.nn.sigmoid], ids=["tanh", "logistic"])
def test_second_derivatives_are_kept_whole(activation: Callable[[Any], Any], second: str):
    """A layer's second derivative is linear in that of its activation: no products are left."""
    function = SECOND[second](mlp(activation))
    found = primitives(function, BOX)
    (name,) = {p for p in found if p.endswith("_second_derivative")}
    assert name.startswith("tanh" if activation is jnp.tanh else "logistic")
    assert not {"product", "tanh", "logistic"} & set(found)
    oracles.check_every_node(function, [BOX])


@pytest.mark.slow
def test_second_derivatives_are_kept_whole_inside_jit():
    """Though weights are not known there."""

    def bounds(weights: Any) -> jaxlirpa.Bounds:
        return lirpa.crown(jax.hessian(lambda x: jnp.tanh(x @ weights).sum()))(BOX)

    weights = jnp.asarray(np.random.default_rng(1).normal(size=(3, 4)))
    for actual, expected in zip(jax.jit(bounds)(weights), bounds(weights), strict=True):
        oracles.equal(actual, expected)


@pytest.mark.long
@pytest.mark.parametrize("activation", [jax.nn.softplus, jnp.tanh, jax.nn.sigmoid])
def test_second_derivatives_of_deeper_networks(activation: Callable[[Any], Any]):
    rng = np.random.default_rng(2)
    first, second = rng.normal(size=(3, 2)), rng.normal(size=(2, 2))

    def function(x: Any) -> Any:
        return jax.hessian(lambda x: activation(activation(x @ first) @ second)[0])(x)

    oracles.check_every_node(function, [BOX])


@pytest.mark.parametrize("square", [jnp.square, lambda t: t**2, lambda t: t * t])
def test_one_less_a_square_is_the_slope_of_tanh(square: Callable[[Any], Any]):
    assert "tanh_derivative" in primitives(lambda x: 1 - square(jnp.tanh(x)), BOX)
    assert "tanh_derivative" not in primitives(lambda x: 2 - square(jnp.tanh(x)), BOX)


def test_products_of_unlike_places_stay_products():
    """A slope times the value of another entry is no second derivative."""
    assert "tanh_second_derivative" in primitives(lambda x: slope_of_tanh(x) * jnp.tanh(x), BOX)
    for function in (
        lambda x: slope_of_tanh(x) * jnp.tanh(x)[::-1],
        lambda x: slope_of_tanh(x)[:, None] * jnp.tanh(x)[None, :],
        lambda x: slope_of_tanh(x) * jnp.tanh(2.0 * x),
        lambda x: slope_of_tanh(x) * jax.nn.sigmoid(x),
    ):
        assert {"tanh_derivative", "tanh_second_derivative"} & set(primitives(function, BOX))
        assert "tanh_second_derivative" not in primitives(function, BOX)
        oracles.check_every_node(function, [BOX])


@pytest.mark.parametrize("combine", [jnp.multiply, jnp.add], ids=["products", "sums"])
def test_long_chains_are_no_deep_recursion(combine: Callable[[Any, Any], Any]):
    def function(x: Any) -> Any:
        y, slope = jnp.tanh(x), slope_of_tanh(x)
        z, _ = jax.lax.scan(lambda z, _: (combine(z, y), None), y, length=1200, unroll=True)
        return z * slope * jnp.sin(x)

    assert {"tanh_derivative", "tanh_second_derivative"} & set(primitives(function, BOX))


@pytest.mark.few(4)
@pytest.mark.parametrize("extreme", [jnp.maximum, jnp.minimum])
@pytest.mark.parametrize("name", oracles.METHODS)
def test_which_of_two_is_the_largest_is_no_matter_of_rounding(name: str, extreme: Any):
    """The maximum of values of very different sizes is off by units of the larger one."""
    small = jnp.asarray([-1.71907, 1.71907], jnp.float32)

    def fn(x: jax.Array, y: jax.Array) -> jax.Array:
        return jax.grad(lambda x: jnp.sum(extreme(x, y) ** 2))(x)

    sets = LpBall(small, 1e-5), LpBall(jnp.asarray([-2001.2288, 2001.2288], jnp.float32), 0.1)
    lower, upper = oracles.METHODS[name](fn)(*sets)
    expected = jnp.where(extreme(small, 1e4 * small) == small, 2 * small, 0)
    room = 2001 * np.finfo(np.float32).eps if name.startswith("forward") else 0
    assert (lower <= expected + room).all() and (expected <= upper + room).all()
