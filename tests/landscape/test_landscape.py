"""Certified landscapes of small networks, against what is sampled, found and computed exactly."""

from __future__ import annotations

import functools
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import oracles
import pytest

import jaxlirpa
from jaxlirpa import Box, LpBall, landscape

RNG = np.random.default_rng(0)
KEY = jax.random.key(0)
PARAMS = [
    {"kernel": jnp.asarray(RNG.normal(size=(3, 4))), "bias": jnp.asarray(RNG.normal(size=4) / 4)},
    {"kernel": jnp.asarray(RNG.normal(size=(4, 3))), "bias": jnp.asarray(RNG.normal(size=3) / 4)},
]
X, LABELS = jnp.asarray(RNG.normal(size=(5, 3))), jnp.array([0, 1, 2, 0, 1])
RADII = jnp.array([0.0, 0.02, 0.1])


def network(params: Any, x: jax.Array) -> jax.Array:
    first, second = params
    hidden = jnp.tanh(x @ first["kernel"] + first["bias"])
    return hidden @ second["kernel"] + second["bias"]


def loss(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
    logits = network(params, x)
    own = jnp.take_along_axis(logits, labels[:, None], -1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, -1) - own)


def linear(params: Any, x: jax.Array) -> jax.Array:
    """Its bounds are exact, its gradient is known, and its Hessian is zero."""
    return jnp.mean(x @ params["kernel"]) + params["bias"]


LINEAR = {"kernel": jnp.ones((2, 1)), "bias": jnp.array(0.5)}
INPUTS = jnp.array([[3.0, 4.0]])


@functools.cache
def bands() -> dict[str, tuple[Any, Any]]:
    """The band and the attained losses over each neighbourhood."""
    found = {}
    for name in ("every_matrix", "jointly"):
        around = getattr(landscape, name)
        band = arithmetic.jit(landscape.certified_band(loss, RADII, around=around))(
            PARAMS, X, LABELS
        )

        def attained(radius: jax.Array, around: Any = around) -> Any:
            ball = around(PARAMS, radius)
            search = landscape.attained(loss, key=KEY, starts=2, steps=6)
            return search(ball, X, LABELS), landscape.sampled(loss, key=KEY, count=10)(
                ball, X, LABELS
            )

        found[name] = band, arithmetic.jit(jax.vmap(attained))(RADII)
    return found


# ---- bands ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["every_matrix", "jointly"])
def test_band(name: str) -> None:
    """Around all that is found; it grows from the loss itself."""
    (lower, upper), (worst, values) = bands()[name]
    middle = loss(PARAMS, X, LABELS)
    np.testing.assert_allclose([lower[0], upper[0]], middle, 1e-12)
    assert (np.diff(upper) > 0).all()
    assert (np.diff(lower) < 0).all()
    assert (lower - 1e-12 <= worst.lower).all()
    assert (worst.upper <= upper + 1e-12).all()
    assert (worst.lower <= values.min(1) + 1e-12).all()
    assert (values.max(1) <= worst.upper + 1e-12).all()


def test_attained_extremes_of_a_linear_loss_are_the_true_ones() -> None:
    ball = landscape.every_leaf(LINEAR, 0.1)
    ((lower, upper),) = oracles.affine_extrema(linear, ball, INPUTS)
    found = landscape.attained(linear, key=KEY, starts=2, steps=4)(ball, INPUTS)
    np.testing.assert_allclose(found, [lower, upper], 1e-9)
    band = landscape.certified_band(linear, [0.1], around=landscape.every_leaf)(LINEAR, INPUTS)
    np.testing.assert_allclose(jnp.ravel(jnp.stack(band)), [lower, upper], 1e-12)


@pytest.mark.parametrize(
    "own",
    [
        LpBall(X, 0.5, 1),
        LpBall(X, jnp.abs(X), 2),
        LpBall(X, 0.5, 3, axis=1),
        LpBall(X, 0.5),
        Box(X - 1, X + 2),
    ],
    ids=["1-ball", "uneven 2-ball", "3-balls", "ball", "box"],
)
def test_extreme_members(own: Any) -> None:
    """They are members, and no member is further in their direction."""
    (checked,), _ = own.split()
    form = jnp.asarray(RNG.normal(size=X.shape))
    found = landscape.extreme(checked, form)
    _, upper = oracles.linear_extrema(checked, np.asarray(form)[None])
    np.testing.assert_allclose(jnp.sum(form * found), upper[0])
    if isinstance(own, LpBall):
        scaled = (found - own.center) / jnp.where(own.radius == 0, 1, own.radius)
        norms = jnp.linalg.norm(
            jnp.ravel(scaled) if own.axis is None else scaled, own.ord, own.axis
        )
        assert (norms <= 1 + 1e-9).all()
    else:
        assert ((own.lower <= found) & (found <= own.upper)).all()


@pytest.mark.parametrize(
    "call",
    [
        lambda loss, params: landscape.certified_band(loss, [0.1])(params),
        lambda loss, params: landscape.flat_loss(loss)(params, 0.1),
        lambda loss, params: landscape.flat_radius(loss, 1.0, most=1.0)(params),
        lambda loss, params: landscape.flat_radius(loss, 1.0, most=1.0, around=landscape.jointly)(
            params
        ),
        lambda loss, params: landscape.gradient_bounds(loss)(params, 0.1),
        lambda loss, params: landscape.slope_bounds(loss)(params, 0.1, params),
        lambda loss, params: landscape.hessian_vector_bounds(loss)(params, 0.1, params),
        lambda loss, params: landscape.curvature_bounds(loss)(params, 0.1, params),
        lambda loss, params: landscape.certified_bits(lambda p, x: x * loss(p))(
            params, jnp.ones((2, 3))
        ),
    ],
)
def test_weights_that_are_not_read(call: Any) -> None:
    params = {"kernel": jnp.ones((2, 2)), "other": jnp.ones((1, 2))}
    with pytest.raises(jaxlirpa.ArgumentError, match=r"does not read arguments\[0\]\['other'\]"):
        call(lambda p: jnp.sum(p["kernel"]), params)


# ---- radii ---------------------------------------------------------------------------------


def test_bisection_returns_the_certified_end() -> None:
    limits = jnp.array([0.3, 0.0, -1.0, 7.0, 2.0])

    def certified(r: jax.Array) -> jax.Array:
        return r <= limits

    found = arithmetic.jit(functools.partial(landscape.largest_certified, certified, steps=20))(
        jnp.full(5, 2.0)
    )
    np.testing.assert_allclose(found, [0.3, 0, 0, 2, 2], atol=2 / 2**19)
    assert certified(found)[jnp.array([0, 1, 3, 4])].all()


@pytest.mark.slow
def test_flat_radius() -> None:
    """Of a linear loss it is exact; of any, the loss stays within the margin up to it."""
    radius = landscape.flat_radius(linear, 1.0, most=10.0, steps=30)(LINEAR, INPUTS)
    np.testing.assert_allclose(radius, 0.2, 1e-6)
    radius = arithmetic.jit(landscape.flat_radius(loss, 0.2, most=1.0, steps=8))(PARAMS, X, LABELS)
    assert 0.01 < radius < 1
    ball = landscape.every_matrix(PARAMS, radius)
    limit = loss(PARAMS, X, LABELS) + 0.2
    assert lirpa.crown_ibp(loss)(ball, X, LABELS).upper <= limit
    assert landscape.attained(loss, key=KEY, starts=1, steps=6)(ball, X, LABELS).upper <= limit


@pytest.mark.slow
def test_stable_radii() -> None:
    """No weights within them change a class; they are not far from the smallest that do."""
    radii = arithmetic.jit(landscape.stable_radii(network, most=2.0, steps=6))(PARAMS, X)
    classes = jnp.argmax(network(PARAMS, X), -1)
    for k, radius in enumerate(radii):

        def margin(params: Any, k: int = k) -> jax.Array:
            logits = network(params, X[k : k + 1])[0]
            others = jnp.where(jnp.arange(3) == classes[k], -jnp.inf, logits)
            return logits[classes[k]] - jnp.max(others)

        search = landscape.attained(margin, key=KEY, starts=2, steps=6)
        assert radius > 0
        assert search(landscape.every_matrix(PARAMS, radius)).lower > 0
    smallest = int(jnp.argmin(radii))
    assert radii[smallest] < 0.5


def test_accuracy_radius() -> None:
    radii, correct = jnp.array([0.3, 0.1, 0.2, 0.0]), jnp.array([True, True, True, False])
    for margin, expected in ((0, 0.1), (0.25, 0.2), (0.5, 0.3), (0.75, jnp.inf), (1, jnp.inf)):
        assert landscape.accuracy_radius(radii, correct, margin) == expected


# ---- derivatives ---------------------------------------------------------------------------


@pytest.mark.slow
def test_derivatives() -> None:
    """Bounds of gradients, slopes, Hessian products and curvatures around those of members."""
    first, second = landscape.random_directions(KEY, PARAMS)
    radius = 0.05
    grad = jax.grad(lambda p: loss(p, X, LABELS))

    def along(p: Any) -> Any:
        return jax.jvp(lambda p: loss(p, X, LABELS), (p,), (first,))[1]

    exact = {
        "gradient_bounds": ([], grad),
        "hessian_vector_bounds": ([first], lambda p: jax.jvp(grad, (p,), (first,))[1]),
        "slope_bounds": ([first], along),
    }
    members = [
        PARAMS,
        *(jax.tree.map(lambda w, d: w + 0.05 * d, PARAMS, d) for d in (first, second)),
    ]
    for name, (directions, value) in exact.items():
        bounds = getattr(landscape, name)(loss, method=lirpa.ibp)
        lower, upper = arithmetic.jit(bounds)(PARAMS, radius, *directions, X, LABELS)
        if name != "slope_bounds":
            assert lower[0]["bias"] is None
        for member in members:
            found = value(member)
            for low, high in zip(*map(jax.tree.leaves, (lower, upper)), strict=True):
                same = [x for x in jax.tree.leaves(found) if x.shape == low.shape]
                assert any(((low <= x) & (x <= high)).all() for x in same)


def test_derivatives_of_a_linear_loss_are_exact() -> None:
    lower, upper = landscape.gradient_bounds(linear)(LINEAR, 0.5, INPUTS)
    for side in (lower, upper):
        np.testing.assert_allclose(side["kernel"], INPUTS.T)
        assert side["bias"] is None
    assert landscape.steepness(linear)(LINEAR, 0.5, INPUTS) == pytest.approx(5)
    square = functools.partial(lambda p, x: jnp.sum((x @ p["kernel"]) ** 2), x=INPUTS)
    direction = {"kernel": jnp.array([[1.0], [0.0]]), "bias": jnp.array(0.0)}
    found = landscape.curvature_bounds(square)(LINEAR, 0.5, direction)
    np.testing.assert_allclose(found, 18)


def test_steepness_counts_gradients_of_either_sign() -> None:
    """That of `w**2 / 2` at distances up to 2 from -1 is between -3 and 1."""
    found = landscape.steepness(lambda p: jnp.sum(p["w"] ** 2) / 2)({"w": -jnp.ones((1, 1))}, 2.0)
    assert found == pytest.approx(3)


# ---- slices --------------------------------------------------------------------------------


def test_slice() -> None:
    """Each cell's bounds hold at its corners and inside; directions are orthonormal."""
    first, second = directions = landscape.random_directions(KEY, PARAMS)
    for layer, other in zip(first, second, strict=True):
        a, b = layer["kernel"], other["kernel"]
        np.testing.assert_allclose(
            [jnp.sum(a * a), jnp.sum(b * b), jnp.sum(a * b)], [1, 1, 0], 0, 1e-9
        )
        assert not layer["bias"].any()
    cut = landscape.certified_slice(loss, directions, extent=0.5, cells=3)
    found = arithmetic.jit(cut)(PARAMS, X, LABELS)
    assert found.values.shape == (4, 4)
    assert (found.lower <= found.upper).all()
    for i in (0, 1):
        for j in (0, 1):
            corner = found.values[i : i + 3, j : j + 3]
            assert (found.lower <= corner).all()
            assert (corner <= found.upper).all()
    a, b = (found.edges[0] + found.edges[1]) / 2, found.edges[2]
    middle = jax.tree.map(lambda w, p, q: w + a * p + b * q, PARAMS, first, second)
    value = loss(middle, X, LABELS)
    assert found.lower[0, 2] <= value <= found.upper[0, 2]


# ---- training ------------------------------------------------------------------------------


@pytest.mark.slow
def test_flat_loss() -> None:
    """The upper end of the band; at radius zero it is the loss, with its gradient."""

    def smooth(params: Any, x: jax.Array, labels: jax.Array) -> jax.Array:
        first, second = params
        logits = jnp.tanh(x @ first["kernel"] + first["bias"]) @ second["kernel"]
        own = jnp.take_along_axis(logits, labels[:, None], -1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(logits, -1) - own)

    worst = arithmetic.jit(jax.value_and_grad(landscape.flat_loss(smooth)))
    value, gradient = worst(PARAMS, 0.0, X, LABELS)
    plain, expected = arithmetic.call(jax.value_and_grad(smooth), PARAMS, X, LABELS)
    np.testing.assert_allclose(value, plain, 1e-12)
    assert all(jax.tree.leaves(jax.tree.map(lambda g: np.isfinite(g).all(), gradient)))
    jax.tree.map(lambda g, e: np.testing.assert_allclose(g, e, 1e-6, 1e-9), gradient, expected)
    params, (step, _) = PARAMS, landscape.random_directions(KEY, PARAMS)
    start, gradient = worst(params, 0.1, X, LABELS)
    ends = [jax.tree.map(lambda w, d, s=s: w + s * d, params, step) for s in (1e-5, -1e-5)]
    high, low = (worst(end, 0.1, X, LABELS)[0] for end in ends)
    slope = sum(
        jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (gradient, step)), strict=True)
    )
    np.testing.assert_allclose((high - low) / 2e-5, slope, 1e-4)
    band = landscape.certified_band(smooth, [0.1])(PARAMS, X, LABELS)
    np.testing.assert_allclose(start, band.upper[0], 1e-9)
    for _ in range(10):
        _, gradient = worst(params, 0.1, X, LABELS)
        params = jax.tree.map(lambda w, g: w - 0.1 * g, params, gradient)
    assert worst(params, 0.1, X, LABELS)[0] < start


# ---- plots ---------------------------------------------------------------------------------


def test_plots(tmp_path: Any) -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    plotting = pytest.importorskip("jaxlirpa.landscape.plotting")
    plt.switch_backend("Agg")
    band, (worst, values) = bands()["every_matrix"]
    figure, axes = plt.subplots()
    plotting.draw_band(axes, RADII, band, label="band", sampled=values, attained=worst)
    assert axes.get_xlabel()
    found = landscape.Slice(jnp.arange(3.0), jnp.ones((3, 3)), jnp.zeros((2, 2)), jnp.eye(2) + 2)
    surface = figure.add_subplot(projection="3d")
    plotting.draw_slice(surface, found)
    plotting.draw_heights(axes, found._replace(values=jnp.eye(3)), radius=1.0)
    figure.savefig(tmp_path / "plot.png")
    plt.close(figure)
