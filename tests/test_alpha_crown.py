"""alpha-CROWN: sound, never looser than CROWN, and one JAX function like the others."""

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
import optax
import oracles
import pytest
from marks import slowly

import jaxlirpa
from jaxlirpa import Bounds, Box, LpBall

POINTS = 400
SIZES = (6, 12, 12, 3)


def weights(seed: int) -> list[jax.Array]:
    rng = np.random.default_rng(seed)
    pairs = itertools.pairwise(SIZES)
    return [jnp.asarray(rng.normal(size=(n, m)) / np.sqrt(m)) for m, n in pairs]


def mlp(act: Callable[[Any], Any]) -> Callable[..., Any]:
    def network(weights: list[jax.Array], x: jax.Array) -> jax.Array:
        for w in weights[:-1]:
            x = act(x @ w.T)
        return x @ weights[-1].T

    return network


def normalised(weights: list[jax.Array], x: jax.Array) -> jax.Array:
    """With a layer normalisation, which divides by what depends on all entries."""
    x = x @ weights[0].T
    x = (x - x.mean(-1, keepdims=True)) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-3)
    return jax.nn.gelu(x) @ weights[1].T @ weights[2].T


def attention(weights: list[jax.Array], x: jax.Array) -> jax.Array:
    """Softmax of products, times what it is a softmax for."""
    x = x.reshape(2, 3) @ weights[0].reshape(3, 24)
    scores = jax.nn.softmax(x[:, :6] @ x[:, 6:12].T)
    return (scores @ x[:, 12:]).ravel() @ weights[1].reshape(-1)[:24].reshape(24, 1)


def extremes(weights: list[jax.Array], x: jax.Array) -> jax.Array:
    """Maxima of several entries, a product and a quotient."""
    x = weights[0] @ x
    top = x.reshape(3, 4).max(1)
    return jnp.stack([top[0] * top[1], top[2] / (3 + jnp.abs(x[0])), jax.nn.logsumexp(x)])


NETWORKS: dict[str, Callable[..., Any]] = {
    "relu": mlp(jax.nn.relu),
    "leaky_relu": mlp(jax.nn.leaky_relu),
    "abs": mlp(jnp.abs),
    "hard_tanh": mlp(jax.nn.hard_tanh),
    "tanh": mlp(jnp.tanh),
    "sin": mlp(jnp.sin),
    "silu": mlp(jax.nn.silu),
    "square": mlp(jnp.square),
    "floor": mlp(jnp.floor),
    "layer norm": normalised,
    "attention": attention,
    "extremes": extremes,
}
FAST = ("relu", "tanh", "sin", "attention")
SLOW = ("silu", "layer norm", "extremes")
LONG = [name for name in NETWORKS if name not in (*FAST, *SLOW)]
every_network = pytest.mark.parametrize("name", slowly(NETWORKS, *SLOW, long=LONG))
CENTER = jnp.linspace(-1, 1, SIZES[0])


def width(bounds: Bounds) -> float:
    return float(jnp.sum(bounds.upper - bounds.lower))


def inside(inner: Bounds, outer: Bounds) -> bool:
    return bool(jnp.all(inner.lower >= outer.lower) & jnp.all(inner.upper <= outer.upper))


@pytest.mark.few(2)
@every_network
def test_sound_and_never_looser_than_crown(name: str) -> None:
    network, params, ball = NETWORKS[name], weights(1), LpBall(CENTER, 0.3)
    crown = arithmetic.jit(lirpa.crown(network))(params, ball)
    alpha = arithmetic.jit(lirpa.alpha_crown(network, steps=8))(params, ball)
    assert inside(alpha, crown)
    points = oracles.sample(ball, 0, POINTS)
    values = jax.vmap(functools.partial(network, params))(points)
    oracles.contains(values, *alpha)
    if name != "floor":
        assert width(alpha) < width(crown)


@pytest.mark.parametrize("options", [{"shared": True}, {"optimize_intermediate": True}], ids=str)
@pytest.mark.parametrize("name", ["relu", pytest.param("tanh", marks=pytest.mark.slow)])
def test_options_are_sound_and_never_looser_than_crown(name: str, options: dict[str, bool]) -> None:
    network, params, ball = NETWORKS[name], weights(2), LpBall(CENTER, 0.5, ord=2)
    crown = lirpa.crown(network)(params, ball)
    own = lirpa.alpha_crown(network, steps=6)(params, ball)
    found = lirpa.alpha_crown(network, steps=6, **options)(params, ball)
    assert inside(found, crown)
    assert width(found) < width(crown)
    if "shared" not in options:
        assert width(found) < width(own)
    values = jax.vmap(functools.partial(network, params))(oracles.sample(ball, 0, POINTS))
    oracles.contains(values, *found)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"in_axes": (None, 0)}], ids=["joint", "in_axes"])
def test_inner_values_are_searched_in_chunks(options: dict[str, Any]) -> None:
    """Only those that intervals leave open, some at a time: to the same end, derived alike."""
    params, network = weights(2), NETWORKS["relu"]
    batch = jnp.stack([CENTER, 0.5 - CENTER])

    def total(params: list[jax.Array], rows: int | None) -> jax.Array:
        bound = lirpa.alpha_crown(
            network, steps=4, optimize_intermediate=True, rows_per_chunk=rows, **options
        )
        lower, upper = bound(params, batch, 0.3)
        return jnp.sum(upper * jnp.arange(3)) - jnp.sum(lower)

    whole, parts = (
        arithmetic.jit(jax.value_and_grad(functools.partial(total, rows=n)))(params)
        for n in (None, 5)
    )
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), whole, parts)


def test_one_step_is_crown() -> None:
    """The search starts from CROWN's lines."""
    params = weights(3)
    network = NETWORKS["tanh"]
    crown = lirpa.crown(network)(params, CENTER, 0.3)
    alpha = lirpa.alpha_crown(network, steps=1)(params, CENTER, 0.3)
    np.testing.assert_allclose(alpha, crown, rtol=1e-9)


def test_finds_the_best_slope_of_one_neuron() -> None:
    """`relu(x) - s x` on [-1, 1]: its minimum is found by the slope `s` alone."""

    def tilted(x: jax.Array) -> jax.Array:
        return jax.nn.relu(x) - 0.37 * x

    lower, _ = lirpa.alpha_crown(tilted, steps=40)(jnp.array(0.0), 1.0)
    crown, _ = lirpa.crown(tilted)(jnp.array(0.0), 1.0)
    assert crown < -0.3
    assert -0.02 < lower <= 0


def test_more_steps_are_tighter() -> None:
    params, network = weights(4), NETWORKS["relu"]
    found = [width(lirpa.alpha_crown(network, steps=n)(params, CENTER, 0.4)) for n in (2, 5, 20)]
    assert found == sorted(found, reverse=True)


def test_the_best_of_all_steps_is_kept() -> None:
    """Of an optimizer that jumps from one end of the families to the other, too."""
    params, network = weights(4), NETWORKS["relu"]
    optimizer = optax.sgd(100.0)
    found = [
        width(lirpa.alpha_crown(network, steps=n, optimizer=optimizer)(params, CENTER, 0.4))
        for n in range(1, 7)
    ]
    assert found == sorted(found, reverse=True)


def test_any_optimizer() -> None:
    params, network = weights(4), NETWORKS["relu"]
    crown = lirpa.crown(network)(params, CENTER, 0.4)
    for optimizer in optax.sgd(0.5), optax.lion(0.1):
        bound = lirpa.alpha_crown(network, steps=5, optimizer=optimizer)
        assert width(bound(params, CENTER, 0.4)) < width(crown)


@pytest.mark.slow
def test_compiled_and_mapped() -> None:
    params, network = weights(5), NETWORKS["relu"]
    batch = jnp.stack([CENTER, -CENTER, 0 * CENTER])
    bound = lirpa.alpha_crown(network, steps=4)
    eager = [bound(params, x, 0.3) for x in batch]
    for many in (
        arithmetic.jit(jax.vmap(bound, in_axes=(None, 0, None)))(params, batch, 0.3),
        lirpa.alpha_crown(network, steps=4, in_axes=(None, 0))(params, batch, 0.3),
    ):
        for i, one in enumerate(eager):
            np.testing.assert_allclose(many.lower[i], one.lower, rtol=1e-9)
            np.testing.assert_allclose(many.upper[i], one.upper, rtol=1e-9)


def test_linear_bounds_enclose_the_function() -> None:
    params, network, ball = weights(6), NETWORKS["relu"], LpBall(CENTER, 0.4)
    linear = lirpa.alpha_crown(network, steps=6, linear=True)(params, ball)
    points = oracles.sample(ball, 0, POINTS)
    values = np.asarray(jax.vmap(functools.partial(network, params))(points))
    below = points @ linear.lower_coefficients[1].T + linear.lower_offset
    above = points @ linear.upper_coefficients[1].T + linear.upper_offset
    assert (below <= values + 1e-9).all()
    assert (values <= above + 1e-9).all()


@pytest.mark.slow
@pytest.mark.parametrize("unroll", [False, pytest.param(True, marks=pytest.mark.long)])
def test_derivatives_match_finite_differences(unroll: bool) -> None:
    """At the optimum's parameters, or through the search that finds them."""
    params, network = weights(7), NETWORKS["tanh"]
    bound = jaxlirpa.alpha_crown(network, steps=3, unroll=unroll)

    @jax.jit  # whose rounding decides where the first steps go that are of no consequence
    def total(shift: jax.Array) -> jax.Array:
        moved = [w + shift * jnp.cos(jnp.arange(w.size).reshape(w.shape)) for w in params]
        return jnp.sum(bound(moved, CENTER, 0.3).upper)

    slope = jax.jit(jax.grad(total))(0.0)
    assert jnp.isfinite(slope)
    step = 1e-5
    difference = (total(step) - total(-step)) / (2 * step)
    # The parameters that are held constant move as well, if not much after few steps.
    np.testing.assert_allclose(slope, difference, rtol=1e-4 if unroll else 0.05)


def test_intermediate_bounds_from_another_transform() -> None:
    params, network = weights(8), NETWORKS["relu"]
    loose = lirpa.crown_ibp(network)(params, CENTER, 0.4)
    found = lirpa.alpha_crown(network, steps=6, intermediate=lirpa.ibp)(params, CENTER, 0.4)
    assert inside(found, loose)
    assert width(found) < width(loose)


@pytest.mark.slow
def test_weights_may_be_the_perturbed_ones() -> None:
    params, network = weights(9), NETWORKS["relu"]
    ball = LpBall(params, 0.01)
    crown = lirpa.crown(network)(ball, CENTER)
    alpha = lirpa.alpha_crown(network, steps=6)(ball, CENTER)
    assert inside(alpha, crown)
    assert width(alpha) < width(crown)
    points = oracles.sample(ball, 0, POINTS)
    oracles.contains(jax.vmap(lambda w: network(w, CENTER))(points), *alpha)


def test_without_freedom_it_is_crown() -> None:
    """An affine function, a point, and a box so far out that no value is finite."""
    matrix = weights(10)[0]
    affine = lirpa.alpha_crown(lambda x: matrix @ x)(CENTER, 0.1)
    np.testing.assert_allclose(affine, lirpa.crown(lambda x: matrix @ x)(CENTER, 0.1))
    point = lirpa.alpha_crown(NETWORKS["tanh"])(weights(1), Box(CENTER, CENTER))
    np.testing.assert_allclose(point.lower, NETWORKS["tanh"](weights(1), CENTER))
    np.testing.assert_allclose(point.upper, NETWORKS["tanh"](weights(1), CENTER))
    far = lirpa.alpha_crown(jnp.exp)(jnp.array([0.0, 1e4]), 1.0)
    assert np.isfinite(far.lower[0]) and np.isfinite(far.upper[0]) and far.upper[1] == np.inf


# ---- alphas, in and out ----------------------------------------------------------------------


@pytest.mark.parametrize("shared", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_search_goes_on_where_another_one_ended(shared: bool) -> None:
    """For another radius as well; bounds are sound and never looser than CROWN's from any start."""
    network, params, ball = NETWORKS["relu"], weights(1), LpBall(CENTER, 0.3)
    search = functools.partial(lirpa.alpha_crown, network, shared=shared)
    first, alphas = search(steps=8, with_alphas=True)(params, ball)
    cold, again = search(steps=1)(params, ball), search(steps=1, alphas=alphas)(params, ball)
    assert width(first) < width(cold) - 1e-6
    for limit, expected in zip(again, first, strict=True):
        np.testing.assert_allclose(limit, expected, 1e-12)
    wider = LpBall(CENTER, 0.35)
    warm = search(steps=1, alphas=alphas)(params, wider)
    assert inside(warm, lirpa.crown(network)(params, wider))
    assert width(warm) < width(search(steps=1)(params, wider))
    values = jax.vmap(functools.partial(network, params))(oracles.sample(wider, 0, POINTS))
    oracles.contains(values, *warm)


def test_alphas_of_a_batch_are_those_of_its_examples() -> None:
    network, params = NETWORKS["tanh"], weights(1)
    xs = jnp.stack([CENTER, -CENTER / 2])
    options = {"steps": 3, "in_axes": (None, 0), "intermediate": jaxlirpa.ibp}

    def rows(params: Any, x: jax.Array) -> jax.Array:
        return jax.vmap(functools.partial(network, params))(x)

    bounds, alphas = lirpa.alpha_crown(rows, with_alphas=True, **options)(params, xs, 0.3)
    again = lirpa.alpha_crown(rows, alphas=alphas, **{**options, "steps": 1})(params, xs, 0.3)
    for limit, expected in zip(again, bounds, strict=True):
        np.testing.assert_allclose(limit, expected, 1e-12)
    assert all(x.shape[0] == 2 for x in jax.tree.leaves(alphas))


def test_alphas_of_another_function_are_refused() -> None:
    network, params, ball = NETWORKS["relu"], weights(1), LpBall(CENTER, 0.3)
    _, alphas = lirpa.alpha_crown(network, steps=1, with_alphas=True)(params, ball)
    for fn in (NETWORKS["attention"], lambda w, x: network(w, x)[:2]):
        with pytest.raises(jaxlirpa.ArgumentError, match="of the same function"):
            lirpa.alpha_crown(fn, steps=1, alphas=alphas)(params, ball)
    with pytest.raises(jaxlirpa.ArgumentError, match="alphas of 0 outputs"):
        lirpa.alpha_crown(network, steps=1, alphas=())(params, ball)
    with pytest.raises(jaxlirpa.ArgumentError, match="out_axes=0"):
        lirpa.alpha_crown(network, with_alphas=True, out_axes=1)


def test_alphas_beyond_the_unit_interval_are_taken_back() -> None:
    """So that whatever is handed in, bounds are sound."""
    network, params, ball = NETWORKS["relu"], weights(1), LpBall(CENTER, 0.3)
    _, alphas = lirpa.alpha_crown(network, steps=1, with_alphas=True)(params, ball)
    wild = jax.tree.map(lambda x: 9 * x - 4, alphas)
    bounds = lirpa.alpha_crown(network, steps=1, alphas=wild)(params, ball)
    assert inside(bounds, lirpa.crown(network)(params, ball))
    values = jax.vmap(functools.partial(network, params))(oracles.sample(ball, 0, POINTS))
    oracles.contains(values, *bounds)
