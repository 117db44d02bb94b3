"""Schedules, initial weights and regularisers."""

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
from jaxlirpa import train

from .networks import BATCH, dense

BEGIN, LENGTH = 100, 400
SCHEDULES = {
    "linear": train.linear(0.0, 0.3, BEGIN, LENGTH),
    "smoothed": train.smoothed(0.0, 0.3, BEGIN, LENGTH),
    "quick": train.smoothed(0.0, 0.3, BEGIN, LENGTH, middle=0.5, power=2.0),
    "all curve": train.smoothed(0.0, 0.3, BEGIN, LENGTH, middle=1.0),
    "falling": train.smoothed(1.0, 0.5, BEGIN, LENGTH),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_monotone_between_its_ends(name: str) -> None:
    schedule = SCHEDULES[name]
    first, last = (1.0, 0.5) if name == "falling" else (0.0, 0.3)
    values = np.asarray(arithmetic.jit(schedule)(jnp.arange(BEGIN + LENGTH + 100)))
    assert np.all(values[: BEGIN + 1] == first)
    assert np.all(values[BEGIN + LENGTH :] == last)
    steps = np.diff(values[BEGIN : BEGIN + LENGTH + 1])
    assert np.all(steps * np.sign(last - first) > 0)
    assert np.all(np.diff(np.abs(steps)) >= -1e-12), "no step is smaller than the one before"


@pytest.mark.parametrize("middle", [0.1, 0.25, 0.7])
def test_the_line_continues_the_curve(middle: float) -> None:
    """With one value and one slope at the junction, and the known ratio of values there."""
    schedule = train.smoothed(0.0, 1.0, 0, 1, middle=middle, power=4.0)
    h = 1e-7
    below, at, above = (float(schedule(middle + d)) for d in (-h, 0, h))
    np.testing.assert_allclose(at - below, above - at, rtol=1e-5)
    np.testing.assert_allclose(at, middle / (middle + 4 * (1 - middle)), rtol=1e-12)


def test_linear_is_that_of_optax() -> None:
    steps = jnp.arange(BEGIN + LENGTH + 10)
    expected = optax.linear_schedule(0.0, 0.3, LENGTH, BEGIN)(steps)
    np.testing.assert_allclose(SCHEDULES["linear"](steps), expected, atol=1e-12)


def test_a_schedule_without_length_jumps() -> None:
    assert [float(train.smoothed(0.0, 0.3, 5, 0)(step)) for step in (0, 5, 6)] == [0.0, 0.0, 0.3]


@pytest.mark.parametrize(
    "args, message",
    [
        ((0.0, float("nan"), 0, 1), "finite values"),
        ((0.0, 0.3, -1, 1), "begin=-1"),
        ((0.0, 0.3, 0, -1), "length=-1"),
        ((0.0, 0.3, 0, 1, 1.5), "middle=1.5"),
        ((0.0, 0.3, 0, 1, 0.5, 0.5), "power=0.5"),
    ],
)
def test_a_schedule_that_is_none_is_refused(args: tuple[Any, ...], message: str) -> None:
    with pytest.raises(jaxlirpa.ArgumentError, match=message):
        train.smoothed(*args)


# ---- initial weights ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape, fan_in",
    [((200, 300), 200), ((3, 3, 32, 64), 288), ((1, 5, 40, 50), 200)],
)
def test_initial_weights_have_their_deviation(shape: tuple[int, ...], fan_in: int) -> None:
    weights = train.ibp_normal(0.5)(jax.random.key(0), shape, jnp.float32)
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(weights.std(), 0.5 * np.sqrt(2 * np.pi) / fan_in, rtol=0.03)
    np.testing.assert_allclose(weights.mean(), 0, atol=4 * weights.std() / weights.size**0.5)


def test_intervals_keep_their_width_through_layers() -> None:
    """As they do not from the usual initial weights."""

    def ratio(init: Any, depth: int = 6, width: int = 400) -> float:
        keys = jax.random.split(jax.random.key(0), depth)
        weights = [init(key, (width, width), jnp.float64) for key in keys]

        def fn(weights: list[jax.Array], x: jax.Array) -> jax.Array:
            for w in weights:
                x = jax.nn.relu(x @ w)
            return x

        x = jax.random.normal(jax.random.key(1), (1, width))
        lower, upper = lirpa.ibp(fn)(weights, x, 1e-3)
        return float(jnp.mean(upper - lower)) / 2e-3

    assert 0.2 < ratio(train.ibp_normal()) < 5
    assert ratio(jax.nn.initializers.he_normal()) > 1e4


def test_other_axes_may_be_outputs() -> None:
    init = train.ibp_normal(in_axis=1, out_axis=0)
    weights = init(jax.random.key(0), (300, 200), jnp.float64)
    np.testing.assert_allclose(weights.std(), np.sqrt(2 * np.pi) / 200, rtol=0.03)
    with pytest.raises(jaxlirpa.ArgumentError, match="has no axis -2"):
        train.ibp_normal()(jax.random.key(0), (5,))
    with pytest.raises(jaxlirpa.ArgumentError, match="scale=-1"):
        train.ibp_normal(-1.0)


# ---- regularisers -------------------------------------------------------------------------


def by_hand(boxes: train.Boxes, tolerance: float) -> tuple[float, float]:
    """Both regularisers, in plain NumPy."""
    tight, balance = [], []
    (first,) = boxes.inputs
    start = np.mean(np.subtract(*map(np.asarray, first[::-1]))) / 2
    for lower, upper in boxes.relus.values():
        lower, upper = np.asarray(lower), np.asarray(upper)
        tight.append(max(tolerance - start / np.mean((upper - lower) / 2), 0))
        centre = (lower + upper) / 2
        total = 0.0
        for part in (np.abs(centre), (centre - centre.mean()) ** 2):
            ratio = part[lower > 0].sum() / part[upper < 0].sum()
            total += max(tolerance - min(ratio, 1 / ratio), 0)
        balance.append(total)
    return np.mean(tight) / tolerance, np.mean(balance) / tolerance


@pytest.mark.few(1)
@pytest.mark.parametrize("make", [train.certified, train.fused, train.crown_ibp])
def test_regularisers_read_the_boxes_of_a_loss(make: Any) -> None:
    own = dense(widths=(30, 30))
    args = own.params, own.x, own.labels, 0.02
    losses, boxes = make(own.fn, with_boxes=True)(*args)
    np.testing.assert_allclose(losses, make(own.fn)(*args), rtol=1e-12)
    assert [box.lower.shape for box in boxes.relus.values()] == [(BATCH, 30), (BATCH, 30)]
    inner = lirpa.intermediate_bounds(own.fn, intermediate=lirpa.ibp)
    expected = inner(own.params, own.x, 0.02)
    for name, box in boxes.relus.items():
        np.testing.assert_allclose(box, expected[name], rtol=1e-12)
    for tolerance in (0.5, 2.0):
        found = train.tightness(boxes, tolerance), train.relu_balance(boxes, tolerance)
        np.testing.assert_allclose(found, by_hand(boxes, tolerance), rtol=1e-9)
    assert all(value > 0 for value in found)


@pytest.mark.slow
def test_regularisers_cost_no_further_pass() -> None:
    own = dense(10, (96, 96))

    def total(params: Any, weight: float) -> jax.Array:
        losses, boxes = train.certified(own.fn, with_boxes=True)(params, own.x, own.labels, 0.02)
        terms = train.tightness(boxes) + train.relu_balance(boxes) if weight else 0
        return losses.mean() + weight * terms

    costs = [
        jax.jit(jax.grad(lambda p, w=w: total(p, w))).lower(own.params).compile().cost_analysis()
        for w in (0.5, 0.0)
    ]
    assert costs[0]["flops"] < 1.3 * costs[1]["flops"]


def test_regularisers_have_finite_derivatives() -> None:
    """Also where nothing is perturbed, or all ReLUs are alike."""
    own = dense()

    @arithmetic.jit
    def total(params: Any, eps: Any) -> jax.Array:
        _, boxes = train.certified(own.fn, with_boxes=True)(params, own.x, own.labels, eps)
        return train.tightness(boxes) + train.relu_balance(boxes)

    active = [(jnp.abs(w), 10 + b) for w, b in own.params]
    for params in (own.params, active):
        for eps in (0.0, 0.1, 100.0):
            value, gradient = arithmetic.jit(jax.value_and_grad(total))(params, eps)
            assert np.isfinite(value)
            assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient))
    with pytest.raises(jaxlirpa.ArgumentError, match="no ReLUs"):
        train.tightness(train.Boxes((), {}))
