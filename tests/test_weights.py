"""Sets on weights: dense, convolutional, normalised and attending networks, by every method."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import oracles
import pytest
from jaxprs import equations

import jaxlirpa
from jaxlirpa import Box, JointBall, LpBall, landscape, sets

RNG = np.random.default_rng(0)


def normal(*shape: int, scale: float = 0.5) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape) * scale)


def dense(params: Any, x: jax.Array) -> jax.Array:
    first, second = params
    hidden = jax.nn.relu(x @ first["kernel"] + first["bias"])
    return jnp.tanh(hidden) @ second["kernel"] + second["bias"]


def convolution(params: Any, x: jax.Array) -> jax.Array:
    """Two convolutions with biases, the first one normalised by statistics of its own."""
    layout = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(x, params["kernel"], (1, 1), "SAME", dimension_numbers=layout)
    x = (x - params["mean"]) * jax.lax.rsqrt(params["variance"] + 1e-3)
    x = jax.nn.relu(x * params["scale"] + params["bias"])
    x = jax.lax.conv_general_dilated(x, params["last"], (2, 2), "SAME", dimension_numbers=layout)
    return x.mean((1, 2))


def attention(params: Any, x: jax.Array) -> jax.Array:
    queries, keys, values = (x @ params[name] for name in "qkv")
    weights = jax.nn.softmax(queries @ jnp.swapaxes(keys, -1, -2))
    return (x + weights @ values @ params["o"]).mean(-2)


NETWORKS: dict[str, tuple[Callable[..., jax.Array], Any, jax.Array]] = {
    "dense": (
        dense,
        (
            {"kernel": normal(3, 4), "bias": normal(4)},
            {"kernel": normal(4, 2), "bias": normal(2)},
        ),
        normal(2, 3),
    ),
    "convolution": (
        convolution,
        {
            "kernel": normal(2, 2, 1, 2),
            "mean": normal(2),
            "variance": jnp.array([0.5, 1.0]),
            "scale": normal(2) + 1,
            "bias": normal(2),
            "last": normal(2, 2, 2, 2),
        },
        normal(1, 3, 3, 1),
    ),
    "attention": (attention, {name: normal(2, 2) for name in "qkvo"}, normal(1, 2, 2)),
}
SETS: dict[str, Callable[[Any], Any]] = {
    "a 2-ball a leaf": lambda params: LpBall(params, 0.1, ord=2),
    "one 2-ball": lambda params: JointBall(params, 0.1),
    "one 1-ball": lambda params: JointBall(params, 0.1, ord=1),
    "boxes": lambda params: LpBall(params, 0.03),
    "a part of the norms": lambda params: sets.relative_to_norm(params, 0.05),
    "a part of the entries": lambda params: sets.relative_to_entries(params, 0.1),
    "kernels alone": lambda params: landscape.every_matrix(params, 0.1),
}
CASES = [
    ("dense", "a 2-ball a leaf"),
    ("dense", "one 2-ball"),
    ("dense", "one 1-ball"),
    ("dense", "a part of the entries"),
    pytest.param("convolution", "a part of the norms", marks=pytest.mark.long),
    pytest.param("convolution", "a 2-ball a leaf", marks=pytest.mark.slow),
    pytest.param("convolution", "one 2-ball", marks=pytest.mark.slow),
    pytest.param("convolution", "boxes", marks=pytest.mark.long),
    pytest.param("attention", "kernels alone", marks=pytest.mark.long),
    pytest.param("attention", "one 2-ball", marks=pytest.mark.slow),
]


@pytest.mark.few(2)
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_node(name: str, kind: str) -> None:
    """At every node, against sampled members, by all methods but alpha-CROWN."""
    network, params, x = NETWORKS[name]
    oracles.check_every_node(network, (SETS[kind](params), x))


@pytest.mark.parametrize(
    "name",
    [
        "dense",
        pytest.param("convolution", marks=pytest.mark.long),
        pytest.param("attention", marks=pytest.mark.slow),
    ],
)
def test_weights_and_inputs_at_once(name: str) -> None:
    network, params, x = NETWORKS[name]
    oracles.check_every_node(network, (SETS["one 2-ball"](params), LpBall(x, 0.05)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dense", "one 2-ball"),
        pytest.param("convolution", "a 2-ball a leaf", marks=pytest.mark.long),
    ],
)
def test_worst_weights_that_gradients_find(name: str, kind: str) -> None:
    """Between them and the bounds of all methods there is room, and not too much."""
    network, params, x = NETWORKS[name]
    perturbed = SETS[kind](params)

    def loss(params: Any) -> jax.Array:
        return jax.nn.logsumexp(network(params, x)[0]) - network(params, x)[0, 0]

    search = landscape.attained(loss, key=jax.random.key(0), starts=2, steps=8)
    worst = arithmetic.call(search, perturbed)
    width = float(worst.upper - worst.lower)
    assert width > 0
    crown = lirpa.crown(loss)(perturbed)
    assert crown.upper - crown.lower < 4 * width
    methods = {**oracles.METHODS, "alpha_crown": lirpa.alpha_crown}
    for method in methods.values():
        lower, upper = method(loss)(perturbed)
        assert lower <= worst.lower
        assert worst.upper <= upper


@pytest.mark.few(3)
@pytest.mark.parametrize("ord", [1, 1.5, 2, jnp.inf])
@pytest.mark.parametrize("joint", [False, True])
def test_first_layers_are_exact(ord: float, joint: bool) -> None:
    """What known inputs make of a ball is attained: by all methods, by kernels and biases."""
    params = {"kernel": normal(3, 4), "bias": normal(4)}
    x, image = normal(2, 3), normal(2, 3, 3, 2)
    ball = (JointBall if joint else LpBall)(params, jnp.asarray(0.3), ord)

    def layer(params: Any) -> jax.Array:
        return x @ params["kernel"] + params["bias"]

    def filtered(params: Any) -> jax.Array:
        layout = ("NHWC", "HWIO", "NHWC")
        kernel = params["kernel"].reshape(1, 3, 2, 2)
        found = jax.lax.conv_general_dilated(
            image, kernel, (1, 2), "SAME", dimension_numbers=layout, rhs_dilation=(2, 1)
        )
        return params["bias"][:2] - found

    for fn in (layer, filtered):
        ((lower, upper),) = oracles.affine_extrema(fn, ball)
        for method in oracles.METHODS.values():
            found = method(lambda params, fn=fn: jax.nn.relu(fn(params)))(ball)
            oracles.equal(found.lower, np.maximum(lower, 0))
            oracles.equal(found.upper, np.maximum(upper, 0))


def test_a_radius_of_its_own_for_every_weight() -> None:
    params = {"kernel": normal(3, 4), "bias": normal(4)}
    x, radius = normal(2, 3), jax.tree.map(lambda w: abs(w) + 0.1, params)
    radius["kernel"] = radius["kernel"].at[0].set(0)
    for ball in (LpBall(params, radius, ord=2), JointBall(params, radius)):

        def layer(params: Any) -> jax.Array:
            return x @ params["kernel"] + params["bias"]

        ((lower, upper),) = oracles.affine_extrema(layer, ball)
        found = lirpa.ibp(lambda params: jnp.tanh(layer(params)))(ball)
        oracles.equal(found.lower, np.tanh(lower))
        oracles.equal(found.upper, np.tanh(upper))
        oracles.check_every_node(lambda p: jax.nn.relu(layer(p)) @ p["kernel"].T, (ball,))


def test_tiny_inputs_do_not_vanish() -> None:
    """Squares that underflow would bound the first layer by its value at the centre."""
    x = jnp.array([[1e-30, 1e30], [0, 1e-30]], jnp.float32)
    ball = LpBall(jnp.ones((2, 1), jnp.float32), jnp.float32(0.5), ord=2)
    lower, upper = lirpa.ibp(lambda w: jnp.maximum(x @ w, 0))(ball)
    np.testing.assert_allclose(lower[:, 0], [5e29, 5e-31], 1e-5)
    np.testing.assert_allclose(upper[:, 0], [1.5e30, 1.5e-30], 1e-5)


def largest_array(code: Any) -> int:
    """The entries of the largest array that a traced program computes, in its calls as well."""
    return max((v.aval.size for e in equations(code) for v in e.outvars), default=0)


@pytest.mark.parametrize("neighbourhood", [landscape.every_matrix, landscape.jointly])
def test_one_row_for_a_whole_batch(neighbourhood: Any) -> None:
    """The mean loss of a batch takes no coefficients on the weights of every example."""
    sizes, count = [24, 48, 48, 5], 50
    params = [(normal(*pair), jnp.zeros(pair[1])) for pair in itertools.pairwise(sizes)]
    entries = sum(w.size + b.size for w, b in params)

    def loss(params: Any, x: jax.Array) -> jax.Array:
        for weight, bias in params[:-1]:
            x = jax.nn.relu(x @ weight + bias)
        return jnp.mean(jax.nn.logsumexp(x @ params[-1][0] + params[-1][1], -1))

    def bound(params: Any, x: jax.Array) -> Any:
        return lirpa.crown_ibp(loss)(neighbourhood(params, 0.1), x)

    x = normal(count, sizes[0])
    assert largest_array(jax.make_jaxpr(loss)(params, x).jaxpr) == count * 48
    assert largest_array(jax.make_jaxpr(bound)(params, x).jaxpr) <= max(entries, 2 * count * 48)


def test_a_variance_that_the_radius_makes_negative() -> None:
    network, params, x = NETWORKS["convolution"]
    with pytest.raises(jaxlirpa.DomainError, match=r"rsqrt.*outside of its domain"):
        jaxlirpa.crown(network)(LpBall(params, 0.6), x)
    lower, upper = arithmetic.jit(lirpa.crown_ibp(network))(LpBall(params, 0.6), x)
    assert not np.isfinite(lower).any()
    assert not np.isfinite(upper).any()


def test_leaves_that_are_no_weights() -> None:
    """The error names the leaf."""
    params = {"kernel": jnp.ones((2, 2)), "steps": jnp.arange(2)}
    for ball in (LpBall, JointBall):
        with pytest.raises(jaxlirpa.SetError, match=r"center\['steps'\] is int"):
            lirpa.crown(lambda p: p["kernel"].sum())(ball(params, 0.1))
    with pytest.raises(jaxlirpa.SetError, match=r"lower\['steps'\] is int"):
        lirpa.crown(lambda p: p["kernel"].sum())(Box(params, params))


def test_one_ball_has_one_type() -> None:
    params = {"a": jnp.ones(2, jnp.float32), "b": jnp.ones(3)}
    with pytest.raises(jaxlirpa.SetError, match=r"float32 \(`.*'a'.*float64 \(`.*'b'.*LpBall"):
        lirpa.crown(lambda p: p["a"].sum())(JointBall(params, 0.1))


def test_linear_bounds_over_a_joint_ball() -> None:
    """Coefficients have the leaves' shapes; also where examples are mapped."""
    network, params, x = NETWORKS["dense"]
    ball = JointBall(params, 0.1)
    whole = lirpa.crown(network, linear=True)(ball, x)
    mapped = lirpa.crown(network, linear=True, in_axes=(None, 0))(ball, x)
    points = oracles.sample(ball, 0, 20)
    for found in (whole, mapped):
        coefficients, _ = found.lower_coefficients
        shapes = jax.tree.map(lambda c: c.shape[2:], coefficients)
        assert shapes == jax.tree.map(jnp.shape, params)
        values = jax.vmap(lambda p: network(p, x))(points)
        products = jax.tree.map(
            lambda c, p: jnp.einsum("bok,sk->sbo", c.reshape(*c.shape[:2], -1), p.reshape(20, -1)),
            coefficients,
            points,
        )
        lower = sum(jax.tree.leaves(products)) + found.lower_offset
        assert (lower <= values + 1e-12).all()


def test_a_joint_ball_is_no_set_of_each_example() -> None:
    with pytest.raises(jaxlirpa.ArgumentError, match="in_axes maps a JointBall"):
        lirpa.crown(lambda x: x, in_axes=0)(JointBall(jnp.ones((3, 2)), 0.1))
