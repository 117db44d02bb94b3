"""Certified losses: never below what is met, never looser than intervals, and what they cost."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import pytest
from networks.linen import NETWORKS as LINEN
from reference import program

import jaxlirpa
from jaxlirpa import Box, LpBall, train

from .networks import BATCH, CLASSIFIERS, Classifier, dense, members

Loss = Callable[..., Any]
EPS = 0.1
SLACK = 1e-10
HALF = jnp.asarray(0.5)

LOSSES: dict[str, Callable[[Any], Loss]] = {
    "ibp": train.certified,
    "certified by crown_ibp": functools.partial(train.certified, transform=lirpa.crown_ibp),
    "fused": train.fused,
    "fused, forward": functools.partial(train.fused, intermediate=lirpa.forward_crown),
    "fused, crown": functools.partial(train.fused, intermediate=None),
    "fused, half": lambda fn: functools.partial(train.fused(fn), beta=HALF),
    "crown_ibp": train.crown_ibp,
    "crown_ibp, half": lambda fn: functools.partial(train.crown_ibp(fn), beta=HALF),
}
# The others are made of the same parts.
QUICK = ("ibp", "fused", "crown_ibp, half")
EVERY = pytest.mark.parametrize(
    "loss",
    [
        pytest.param(loss, id=name, marks=[] if name in QUICK else pytest.mark.slow)
        for name, loss in LOSSES.items()
    ],
)


@functools.cache
def worst_met(name: str, ord: float, eps: float = EPS) -> np.ndarray:
    """The largest loss of each example at samples, corners and what an attack finds."""
    own = CLASSIFIERS[name]()
    ball = LpBall(own.x, eps, ord=ord)
    loss = arithmetic.jit(train.natural(own.fn))
    attack = train.pgd(train.natural(own.fn), steps=30, restarts=3)
    points = [arithmetic.jit(attack)(own.params, ball, own.labels, key=jax.random.key(0))]
    if np.isinf(ord):
        points += list(members(own.x - eps, own.x + eps, 100))
    return np.max([loss(own.params, jnp.asarray(x), own.labels) for x in points], 0)


@pytest.mark.few(5)
@pytest.mark.parametrize("ord", [np.inf, 2])
@EVERY
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_no_point_of_a_set_has_a_larger_loss(name: str, loss: Any, ord: float) -> None:
    own = CLASSIFIERS[name]()
    ball = LpBall(own.x, EPS, ord=ord)
    bound = arithmetic.jit(loss(own.fn))(own.params, ball, own.labels)
    assert bound.shape == (BATCH,)
    assert np.all(bound >= worst_met(name, ord) - SLACK)
    outer = arithmetic.call(train.certified(own.fn), own.params, ball, own.labels)
    assert np.all(bound <= outer + SLACK)


@EVERY
def test_without_perturbation_a_loss_is_the_natural_one(loss: Any) -> None:
    own = dense()
    natural = arithmetic.call(train.natural(own.fn), own.params, own.x, own.labels)
    bound = arithmetic.jit(loss(own.fn))(own.params, own.x, own.labels, 0.0)
    np.testing.assert_allclose(bound, natural, rtol=1e-12)
    logits = own.fn(own.params, own.x)
    expected = jax.nn.logsumexp(logits, 1) - logits[jnp.arange(BATCH), own.labels]
    np.testing.assert_allclose(natural, expected, rtol=1e-12)


@EVERY
def test_a_batch_is_bounded_as_its_examples_are(loss: Any) -> None:
    own = dense()
    bound = arithmetic.jit(loss(own.fn))
    whole = bound(own.params, own.x, own.labels, EPS)
    single = [bound(own.params, own.x[i, None], own.labels[i, None], EPS)[0] for i in range(BATCH)]
    np.testing.assert_allclose(whole, single, rtol=1e-12)
    mapped = jax.vmap(lambda x, y: loss(own.fn)(own.params, x[None], y[None], EPS)[0])
    np.testing.assert_allclose(arithmetic.jit(mapped)(own.x, own.labels), whole, rtol=1e-12)


# ---- the margins --------------------------------------------------------------------------


def test_margins_of_traced_labels_are_independent() -> None:
    own = dense()
    specification = train.margins(own.fn)
    value = specification(own.params, own.x, own.labels)
    assert np.all(np.asarray(value[jnp.arange(BATCH), own.labels]) == 0)

    def bounds(labels: jax.Array, **kwargs: Any) -> Any:
        bound = lirpa.crown_ibp(specification, **kwargs)
        return bound(own.params, Box(own.x - EPS, own.x + EPS), labels)

    apart = arithmetic.jit(functools.partial(bounds, in_axes=(None, 0, 0)))(own.labels)
    together = arithmetic.jit(bounds)(own.labels)
    np.testing.assert_allclose(apart, together, rtol=1e-10, atol=1e-12)


def test_margins_are_bounded_with_the_last_layer() -> None:
    """As if the weights were differences: no bound of a logit is lost on the other one."""
    own = dense()
    *first, (weight, bias) = own.params
    box = Box(own.x - EPS, own.x + EPS)
    upper = train.certified(own.fn, with_boxes=True)
    margins = lirpa.ibp(train.margins(own.fn))(own.params, box, own.labels).upper
    hidden = lirpa.ibp(lambda p, x: jax.nn.relu(own.fn(p, x)))(first, box)
    for i, label in enumerate(own.labels):
        w = np.asarray(weight - weight[:, label, None])
        lower, high = np.asarray(hidden.lower[i]), np.asarray(hidden.upper[i])
        ends = np.maximum(lower[:, None] * w, high[:, None] * w).sum(0)
        np.testing.assert_allclose(margins[i], ends + bias - bias[label], rtol=1e-10, atol=1e-12)
    losses, _ = upper(own.params, box, own.labels)
    np.testing.assert_allclose(losses, train.cross_entropy(margins), rtol=1e-12)


REFUSED: dict[str, tuple[Any, str]] = {
    "too large": ([0, 1, 5], "not all among the 5 classes"),
    "negative": ([0, -1, 2], "not all among the 5 classes"),
    "no integers": ([0.0, 1.0, 2.0], "integers, and not float"),
    "another number of them": ([0, 1], r"\(2,\) do not fit logits of shape \(3, 5\)"),
}


@pytest.mark.parametrize("labels, message", REFUSED.values(), ids=REFUSED)
def test_labels_that_are_no_classes_are_refused(labels: list[Any], message: str) -> None:
    own = dense()
    for loss in (train.certified(own.fn), train.fused(own.fn), train.crown_ibp(own.fn)):
        with pytest.raises(jaxlirpa.ArgumentError, match=message):
            loss(own.params, own.x, jnp.asarray(labels), EPS)


@pytest.mark.parametrize("label", [5, -1])
@EVERY
def test_traced_labels_that_are_no_classes_certify_nothing(loss: Any, label: int) -> None:
    own = dense()
    bound = arithmetic.jit(loss(own.fn))(own.params, own.x, own.labels.at[1].set(label), EPS)
    assert not np.isfinite(bound[1]), bound
    assert np.isfinite(bound[0]) and np.isfinite(bound[2])


def test_arguments_that_do_not_fit_are_refused() -> None:
    own = dense()
    loss = train.fused(own.fn)
    box = Box(own.x - EPS, own.x + EPS)
    with pytest.raises(jaxlirpa.ArgumentError, match="eps is missing"):
        loss(own.params, own.x, own.labels)
    with pytest.raises(jaxlirpa.ArgumentError, match="eps is given twice"):
        loss(own.params, box, own.labels, EPS)
    for eps in (-0.1, float("nan")):
        with pytest.raises(jaxlirpa.SetError, match="must be finite and not negative"):
            loss(own.params, own.x, own.labels, eps)
    for beta in (-0.1, 1.1, float("nan"), jnp.ones(2)):
        with pytest.raises(jaxlirpa.ArgumentError, match="beta is a share"):
            loss(own.params, box, own.labels, beta=beta)
    wrong = arithmetic.jit(lambda beta: loss(own.params, box, own.labels, beta=beta))(1.1)
    assert not np.any(np.isfinite(wrong))


@pytest.mark.slow
def test_examples_that_influence_one_another_are_refused() -> None:
    own = dense()

    def normalised(params: Any, x: Any) -> jax.Array:
        return own.fn(params, x - x.mean(0))

    for loss in (
        train.certified(normalised),
        train.certified(normalised, functools.partial(lirpa.ibp, in_axes=(None, 0, 0))),
        train.fused(normalised),
    ):
        with pytest.raises(jaxlirpa.ArgumentError, match=r"`reduce_sum` at .*normalised.* mixes"):
            loss(own.params, own.x, own.labels, EPS)
    with pytest.warns(train.MixedExamplesWarning, match="adds up a batch that has one example"):
        train.fused(normalised)(own.params, own.x[:1], own.labels[:1], EPS)


def test_weights_may_be_perturbed() -> None:
    own = dense()
    ball = [(LpBall(w, 0.01), b) for w, b in own.params]
    for loss in (train.certified(own.fn), train.fused(own.fn), train.crown_ibp(own.fn)):
        bound = arithmetic.jit(loss)(ball, own.x, own.labels)
        moved = [(w + 0.01 * jnp.sign(jnp.sin(7 * w)), b) for w, b in own.params]
        met = train.natural(own.fn)(moved, own.x, own.labels)
        assert np.all(np.isfinite(bound)) and np.all(bound >= met - SLACK)


# ---- fusion -------------------------------------------------------------------------------


def fused_by_hand(own: Classifier, eps: float) -> np.ndarray:
    """Chords on the boxes of margins, and one CROWN-IBP row of their sum, by public transforms."""
    box = Box(own.x - eps, own.x + eps)
    specification = train.margins(own.fn)
    lower, upper = map(np.asarray, lirpa.ibp(specification)(own.params, box, own.labels))
    wide = upper > lower
    slope = np.where(wide, (np.exp(upper) - np.exp(lower)) / np.where(wide, upper - lower, 1), 1)

    def total(params: Any, x: Any) -> jax.Array:
        return jnp.sum(slope * specification(params, x, own.labels), 1)

    above = lirpa.crown_ibp(total)(own.params, box).upper
    chords = np.sum(np.exp(lower) - slope * lower, 1) + above
    return np.minimum(np.log(chords), train.cross_entropy(jnp.asarray(upper)))


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_fusion_is_a_row_of_chords_and_the_logarithm_of_its_maximum(name: str) -> None:
    own = CLASSIFIERS[name]()
    for eps in (0.01, 0.1):
        bound = arithmetic.call(train.fused(own.fn), own.params, own.x, own.labels, eps)
        np.testing.assert_allclose(bound, fused_by_hand(own, eps), rtol=1e-9)


def test_fusion_is_tighter_than_a_tangent_of_the_logarithm() -> None:
    own = dense()
    loss = lambda p, x, y: train.cross_entropy(train.margins(own.fn)(p, x, y))  # noqa: E731
    tangent = lirpa.crown_ibp(loss, argnums=1)(own.params, own.x, own.labels, EPS).upper
    bound = arithmetic.call(train.fused(own.fn), own.params, own.x, own.labels, EPS)
    assert np.all(bound < tangent)


def test_two_classes_that_are_bounded_exactly_have_the_worst_loss() -> None:
    """Affine logits: the one margin is exact, and its chord meets the function at the end."""
    own = dense(classes=2, widths=())
    bound = arithmetic.call(train.fused(own.fn), own.params, own.x, own.labels, EPS)
    ((weight, _),) = own.params
    margin = train.margins(own.fn)(own.params, own.x, own.labels)
    spread = EPS * np.abs(weight[:, 0] - weight[:, 1]).sum()
    expected = np.logaddexp(0, np.asarray(margin)[np.arange(BATCH), 1 - own.labels] + spread)
    np.testing.assert_allclose(bound, expected, rtol=1e-12)


@pytest.mark.few(1)
@pytest.mark.parametrize("scale", [1e-3, 1e3, 1e6])
def test_fusion_holds_at_any_scale_in_short_numbers(scale: float) -> None:
    """Neither an overflow nor an underflow, where intervals are exponentially too wide."""
    own = dense()
    *first, (weight, bias) = own.params
    params = jax.tree.map(lambda x: x.astype(jnp.float32), [*first, (scale * weight, scale * bias)])
    x = own.x.astype(jnp.float32)
    loss = arithmetic.jit(train.natural(own.fn))
    for eps in (1e-4, 0.1, 10.0):
        bound = arithmetic.call(train.fused(own.fn), params, x, own.labels, eps)
        assert bound.dtype == jnp.float32
        points = members(np.asarray(x) - np.float32(eps), np.asarray(x) + np.float32(eps), 50)
        met = np.max([loss(params, jnp.asarray(p, jnp.float32), own.labels) for p in points], 0)
        assert np.all(np.isfinite(bound)) and np.all(bound >= met - 1e-5 * (1 + np.abs(met)))


CASE = "ce_loss_fusion"


@pytest.mark.skipif(program.directory(CASE) is None, reason=f"no case {CASE} in the library")
@pytest.mark.parametrize(
    "method, loss",
    [
        ("ibp", train.certified),
        ("crown-ibp", train.fused),
        ("crown", functools.partial(train.fused, intermediate=None)),
    ],
)
def test_fusion_is_as_tight_as_the_reference(method: str, loss: Any) -> None:
    case = program.load(CASE)
    params, x, labels = program.arguments(case)
    names = ("l1", "l3", "l5")

    def fn(params: Any, x: Any) -> jax.Array:
        for name in names[:-1]:
            x = jax.nn.relu(x @ params[f"{name}.weight"].T + params[f"{name}.bias"])
        return x @ params["l5.weight"].T + params["l5.bias"]

    bound = arithmetic.call(loss(fn), params, x, labels)
    stored = case.arrays[f"bounds/{method}[loss-fusion]/upper"].reshape(-1)
    np.testing.assert_allclose(bound, stored, rtol=1e-9)
    assert np.all(bound >= np.log(case.arrays["inner/upper"]).reshape(-1))


# ---- mixtures -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_margins_are_those_of_the_transform(name: str) -> None:
    own = CLASSIFIERS[name]()
    box = Box(own.x - EPS, own.x + EPS)
    upper = lirpa.crown_ibp(train.margins(own.fn))(own.params, box, own.labels).upper
    bound = arithmetic.call(train.crown_ibp(own.fn), own.params, box, own.labels)
    np.testing.assert_allclose(bound, train.cross_entropy(upper), rtol=1e-10)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            name, marks=pytest.mark.slow if name in ("cnn", "resnet") else pytest.mark.long
        )
        for name in LINEN
        if name not in ("lstm", "gru", "autoencoder")
    ],
)
def test_bounds_around_middles_are_those_around_attained_values(name: str) -> None:
    network = LINEN[name]()
    labels = jnp.asarray([1])
    upper = lirpa.crown_ibp(train.margins(network.fn))
    expected = train.cross_entropy(upper(network.params, network.box(), labels).upper)
    found = train.crown_ibp(network.fn)(network.params, network.box(), labels)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


@pytest.mark.few(1)
@pytest.mark.parametrize("make", [train.fused, train.crown_ibp])
def test_a_mixture_begins_and_ends_as_its_parts(make: Any) -> None:
    own = dense()
    loss = arithmetic.jit(make(own.fn))
    args = own.params, own.x, own.labels, EPS
    whole, none, half = (loss(*args, beta=jnp.asarray(beta)) for beta in (1.0, 0.0, 0.5))
    np.testing.assert_allclose(whole, make(own.fn)(*args), rtol=1e-12)
    np.testing.assert_allclose(none, train.certified(own.fn)(*args), rtol=1e-12)
    assert np.all(whole < half) and np.all(half < none)


def test_a_mixture_is_that_of_margins() -> None:
    own = dense()
    box = Box(own.x - EPS, own.x + EPS)
    specification = train.margins(own.fn)
    upper = [
        transform(specification)(own.params, box, own.labels).upper
        for transform in (lirpa.crown_ibp, lirpa.ibp)
    ]
    loss = train.crown_ibp(own.fn)
    traced = arithmetic.call(loss, own.params, box, own.labels, beta=0.3)
    known = arithmetic.call(lambda *args: loss(*args, beta=0.3), own.params, box, own.labels)
    expected = train.cross_entropy(0.3 * upper[0] + 0.7 * upper[1])
    for bound in (traced, known):
        np.testing.assert_allclose(bound, expected, rtol=1e-12)


# ---- what it costs ------------------------------------------------------------------------


def operations(loss: Any, own: Classifier, *args: Any, **kwargs: Any) -> float:
    """Floating-point operations of a loss, on a batch of 48."""
    x, labels = jnp.tile(own.x, (16, 1)), jnp.tile(own.labels, 16)
    total = jax.jit(lambda p, x, y: loss(p, x, y, *args, **kwargs).sum())
    return total.lower(own.params, x, labels).compile().cost_analysis()["flops"]


def gradient_operations(loss: Any, own: Classifier, *args: Any, **kwargs: Any) -> float:
    """Those of its gradient, and the loss."""

    def gradient(p: Any, x: Any, y: Any) -> jax.Array:
        slopes = jax.grad(lambda p: loss(p, x, y, *args, **kwargs).sum())(p)
        return jnp.stack([jnp.sum(leaf) for leaf in jax.tree.leaves(slopes)])

    return operations(gradient, own)


@pytest.mark.slow
def test_one_row_serves_all_classes() -> None:
    few, many = (dense(classes, (96, 96)) for classes in (10, 40))
    fused, margins = (
        operations(make(many.fn), many, EPS) / operations(make(few.fn), few, EPS)
        for make in (train.fused, train.crown_ibp)
    )
    last = operations(train.certified(many.fn), many, EPS)
    last /= operations(train.certified(few.fn), few, EPS)
    assert margins > 3, margins
    assert fused < 1.1 * last, (fused, last)


@pytest.mark.slow
def test_intervals_are_propagated_once() -> None:
    """Two products for one, and a third one backwards: with all that is done entry by entry, less
    than three times the natural loss.
    """
    own = dense(10, (96,) * 4)
    plain, ibp, fused, none = (
        gradient_operations(loss, own, *args, **kwargs)
        for loss, args, kwargs in (
            (train.natural(own.fn), (), {}),
            (train.certified(own.fn), (EPS,), {}),
            (train.fused(own.fn), (EPS,), {}),
            (train.fused(own.fn), (EPS,), {"beta": 0.0}),
        )
    )
    assert ibp < 3 * plain, (ibp, plain)
    assert fused < 5 * plain, (fused, plain)
    assert none < 1.01 * ibp, (none, ibp)


def test_nothing_is_carried_backwards_where_it_does_not_count() -> None:
    """The rows are in a branch; outside of it is no more than what intervals take."""
    own = dense(10, (96, 96))
    loss = train.crown_ibp(own.fn)
    program = jax.make_jaxpr(lambda beta: loss(own.params, own.x, own.labels, EPS, beta=beta))(0.5)
    (branch,) = [eqn for eqn in program.eqns if eqn.primitive.name == "cond"]
    full, cheap = (str(case).count("dot_general") for case in branch.params["branches"])
    assert cheap == 0 and full > 0


# ---- derivatives --------------------------------------------------------------------------


@pytest.mark.few(1)
@EVERY
def test_gradients_are_those_of_differences(loss: Any) -> None:
    own = dense()
    random = np.random.default_rng(3)
    direction = jax.tree.map(lambda w: jnp.asarray(random.normal(size=w.shape)), own.params)

    @arithmetic.jit
    def value(step: Any, eps: Any) -> jax.Array:
        moved = jax.tree.map(lambda w, d: w + step * d, own.params, direction)
        return loss(own.fn)(moved, own.x, own.labels, eps).mean()

    slopes = arithmetic.jit(jax.grad(value, argnums=(0, 1)))(0.0, EPS)
    h = 1e-6
    differences = (
        (value(h, EPS) - value(-h, EPS)) / (2 * h),
        (value(0.0, EPS + h) - value(0.0, EPS - h)) / (2 * h),
    )
    np.testing.assert_allclose(slopes, differences, rtol=1e-5, atol=1e-8)


@EVERY
def test_gradients_are_finite_at_the_edges(loss: Any) -> None:
    own = dense()
    mean = jax.grad(lambda p, eps: loss(own.fn)(p, own.x, own.labels, eps).mean())
    gradient = arithmetic.jit(mean)
    for eps in (0.0, 1e-12, 50.0):
        assert all(np.all(np.isfinite(g)) for g in jax.tree.leaves(gradient(own.params, eps)))


def test_what_is_not_surely_ahead_is_not_verified():
    upper = jnp.array([[3.0, -1, -2], [-1, 0, -1], [-1, -1, jnp.nan], [-jnp.inf, 0, jnp.inf]])
    found = train.verified(upper, jnp.array([0, 2, 1, 1]))
    np.testing.assert_array_equal(found, [True, False, False, False])
