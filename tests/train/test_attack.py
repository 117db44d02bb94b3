"""Attacks stay in their sets and climb; small boxes; losses between two others."""

from __future__ import annotations

from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import optax
import pytest

import jaxlirpa
from jaxlirpa import Box, LpBall, train

from .networks import CLASSIFIERS, dense

EPS = 0.3
KEY = jax.random.key(0)
OWN = dense()
RADII = jnp.asarray([0.0, 0.1, 0.2, 0.3, 0.1, 0.0])
SETS: dict[str, Any] = {
    "box": Box(OWN.x - 0.1, OWN.x + jnp.abs(OWN.x)),
    "ball": LpBall(OWN.x, EPS),
    "radii": LpBall(OWN.x, RADII),
    "2-ball": LpBall(OWN.x, EPS, ord=2),
    "2-balls": LpBall(OWN.x, EPS, ord=2, axis=-1),
    "2-radii": LpBall(OWN.x, RADII, ord=2),
}


def check_inside(perturbed: Any, x: Any) -> None:
    """Every example is within its own part of the set."""
    x = np.asarray(x)
    if isinstance(perturbed, Box):
        assert np.all((x >= np.asarray(perturbed.lower)) & (x <= np.asarray(perturbed.upper)))
        return
    radius = np.broadcast_to(np.asarray(perturbed.radius), x.shape)
    distance = x - np.asarray(perturbed.center)
    assert np.all(distance[radius == 0] == 0)
    step = np.abs(distance) / np.where(radius > 0, radius, 1)
    size = step.max(1) if perturbed.is_box else np.sqrt((step**2).sum(1))
    assert np.all(size <= 1 + 1e-12), size


@pytest.mark.parametrize("perturbed", SETS.values(), ids=SETS)
def test_what_is_found_is_inside_and_worse_than_the_centre(perturbed: Any) -> None:
    loss = train.natural(OWN.fn)
    attack = arithmetic.jit(train.pgd(loss, steps=15, restarts=2))
    found = attack(OWN.params, perturbed, OWN.labels, key=KEY)
    check_inside(perturbed, found)
    centre = perturbed.split()[0][0].point()
    before, after = (loss(OWN.params, x, OWN.labels) for x in (centre, found))
    assert np.all(after > before)


@pytest.mark.parametrize("ord", [np.inf, 2])
def test_the_worst_point_of_a_linear_loss_is_found(ord: float) -> None:
    """One step of a radius, from wherever it begins, and not further than the border."""
    w = jnp.asarray(np.random.default_rng(0).normal(size=(3, 6)))
    attack = train.pgd(lambda w, x, y: jnp.sum(w * x, 1), steps=40)
    found = attack(w, LpBall(OWN.x, EPS, ord=ord), None, key=KEY)
    dual = jnp.abs(w).sum(1) if ord > 2 else jnp.sqrt(jnp.square(w).sum(1))
    expected = jnp.sum(w * OWN.x, 1) + EPS * dual
    np.testing.assert_allclose(jnp.sum(w * found, 1), expected, rtol=1e-3)


def test_more_restarts_find_no_less() -> None:
    """The best of all restarts is kept, of each example its own."""

    def waves(params: Any, x: Any, labels: Any) -> jax.Array:
        return jnp.sum(jnp.sin(20 * x), 1)

    one, many = (
        train.pgd(waves, steps=5, restarts=n)(None, OWN.x, None, 2.0, key=KEY) for n in (1, 30)
    )
    assert np.all(waves(None, many, None) > waves(None, one, None))


def test_steps_may_follow_a_schedule() -> None:
    """Steps of no length stay where they begin; those of optax's schedules are taken."""
    loss = train.natural(OWN.fn)

    def losses(**kwargs: Any) -> jax.Array:
        found = train.pgd(loss, **kwargs)(OWN.params, OWN.x, OWN.labels, EPS, key=KEY)
        return loss(OWN.params, found, OWN.labels)

    still = losses(steps=3, step_size=0.0)
    decaying = optax.piecewise_constant_schedule(0.5, {4: 0.1, 7: 0.1})
    for size in (0.5, decaying, None):
        assert np.all(losses(steps=8, step_size=size) > still)
    np.testing.assert_array_equal(losses(steps=5, step_size=0.0), still)


def test_no_derivative_passes_an_attack() -> None:
    attack = train.pgd(train.natural(OWN.fn), steps=3)

    def found(params: Any, eps: Any) -> jax.Array:
        return attack(params, OWN.x, OWN.labels, eps, key=KEY).sum()

    gradient = arithmetic.jit(jax.grad(found, argnums=(0, 1)))(OWN.params, EPS)
    assert all(np.all(np.asarray(g) == 0) for g in jax.tree.leaves(gradient))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda a: a(OWN.params, LpBall(OWN.x, EPS, ord=1), OWN.labels, key=KEY), "ord=1"),
        (lambda a: a(OWN.params, OWN.x, OWN.labels, key=KEY), "eps is None"),
        (lambda a: a(OWN.params, SETS["box"], OWN.labels, EPS, key=KEY), "and not both"),
        (lambda a: a(OWN.params, Box([OWN.x], [OWN.x]), OWN.labels, key=KEY), "of one array"),
        (lambda a: a(OWN.params, Box(OWN.x, jnp.inf), OWN.labels, key=KEY), "without end"),
        (lambda a: train.pgd(a, steps=0), "steps=0"),
        (lambda a: train.pgd(a, steps=1, restarts=0), "restarts=0"),
    ],
)
def test_what_cannot_be_attacked_is_refused(call: Any, message: str) -> None:
    with pytest.raises(jaxlirpa.ArgumentError, match=message):
        call(train.pgd(train.natural(OWN.fn), steps=2))


# ---- small boxes --------------------------------------------------------------------------


@pytest.mark.few(6)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.7, 1.0])
@pytest.mark.parametrize("perturbed", SETS.values(), ids=SETS)
def test_a_small_box_is_inside_of_the_large_one(perturbed: Any, share: float) -> None:
    attack = train.pgd(train.natural(OWN.fn), steps=5)
    found = attack(OWN.params, perturbed, OWN.labels, key=KEY)
    small = train.small_box(perturbed, found, share)
    other = train.pgd(lambda p, x, y: jnp.sum(x, 1), steps=5)
    for sign in (1.0, -1.0):
        extreme = train.pgd(lambda p, x, y: sign * jnp.sum(x, 1), steps=5)  # noqa: B023
        check_inside(perturbed, extreme(None, small, None, key=KEY))
    loss = train.certified(OWN.fn)
    assert np.all(
        loss(OWN.params, small, OWN.labels) <= loss(OWN.params, perturbed, OWN.labels) + 1e-9
    )
    if share == 0:
        np.testing.assert_allclose(other(None, small, None, key=KEY), found, atol=1e-12)


def test_a_small_box_contains_the_adversarial_example_where_it_fits() -> None:
    large = Box(jnp.zeros((2, 2)), jnp.ones((2, 2)))
    found = jnp.asarray([[0.0, 1.0], [0.5, 0.9]])
    small = train.small_box(large, found, 0.25)
    check_inside(small, found)
    np.testing.assert_allclose(small.upper - small.lower, 0.25)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_is_between_nothing_and_all(share: float) -> None:
    with pytest.raises(jaxlirpa.ArgumentError, match="between 0 and 1"):
        train.small_box(SETS["box"], OWN.x, share)


# ---- ranges, and losses between two others ------------------------------------------------


def test_a_clipped_box_is_within_both() -> None:
    x = jnp.asarray([0.0, 0.05, 0.5, 1.0])
    box = train.clipped_box(x, 0.1)
    np.testing.assert_allclose(box.lower, [0, 0, 0.4, 0.9])
    np.testing.assert_allclose(box.upper, [0.1, 0.15, 0.6, 1])
    normalised = train.clipped_box(jnp.zeros((2, 3)), 1.0, jnp.asarray([-2, -0.5, -1]), 3.0)
    np.testing.assert_allclose(normalised.lower[0], [-1, -0.5, -1])


@pytest.mark.parametrize(
    "args, message",
    [
        ((0.5, -0.1), "eps must not be negative"),
        ((0.5, float("nan")), "eps must not be negative nor NaN"),
        ((0.5, 8.0), "larger than the range of the data, 0.0 to 1.0.* and not 8.0"),
        ((1.5, 0.1), "values outside of the range"),
        ((float("nan"), 0.1), "values outside of the range"),
        ((0.5, 0.1, 1.0, 0.0), "ends before it begins"),
    ],
)
def test_what_is_out_of_range_is_refused(args: tuple[float, ...], message: str) -> None:
    x, *rest = args
    with pytest.raises(jaxlirpa.ArgumentError, match=message):
        train.clipped_box(jnp.full(3, x), *rest)
    if len(rest) == 1:  # Inside of jit nothing can be raised, and nothing is certified.
        loss = arithmetic.jit(
            lambda x, eps: train.certified(OWN.fn)(
                OWN.params, train.clipped_box(x, eps), OWN.labels
            )
        )
        assert not np.any(np.isfinite(loss(jnp.full_like(OWN.x, x), rest[0])))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_expressive_losses_are_between_and_rise(name: str) -> None:
    own = CLASSIFIERS[name]()
    box = Box(own.x - 0.1, own.x + 0.1)
    specification = train.margins(own.fn)
    attack = train.pgd(train.natural(own.fn), steps=5)
    met = specification(own.params, attack(own.params, box, own.labels, key=KEY), own.labels)
    worst = lirpa.ibp(specification)(own.params, box, own.labels).upper
    low, high = train.cross_entropy(met), train.cross_entropy(worst)
    for loss, ends in (
        (train.mtl_ibp, (high, low)),
        (train.exp_ibp, (high, low)),
        (train.cc_ibp, (worst, met)),
    ):
        values = np.stack([loss(*ends, alpha) for alpha in np.linspace(0, 1, 5)])
        np.testing.assert_allclose(values[0], low, rtol=1e-9)
        np.testing.assert_allclose(values[-1], high, rtol=1e-9)
        assert np.all(np.diff(values, axis=0) >= 0)


def test_a_loss_of_zero_has_a_finite_derivative() -> None:
    gradient = jax.grad(lambda a: train.exp_ibp(a, jnp.asarray(0.0), 0.5))(jnp.asarray(1.0))
    assert np.isfinite(gradient)
