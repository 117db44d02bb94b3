"""Perturbation sets: their extrema and hulls, and how they travel through JAX."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxlirpa import Box, JointBall, LpBall
from jaxlirpa import sets as kinds
from jaxlirpa.sets import ArraySet, PerturbationSet

ORDERS = (1, 1.5, 2, 3.5, math.inf)
SHAPES = ((), (1,), (4,), (2, 3), (2, 2, 3))
AXES: tuple[Any, ...] = (None, 0, -1, (0, 1), (-1, 0), (), (1,))


def checked(perturbed: Any) -> ArraySet:
    """The one validated set of an array."""
    (own,), _ = perturbed.split()
    return own


def rows(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Linear forms: random ones, sparse ones, tiny, huge, and zero."""
    forms = rng.normal(size=(7, *shape))
    forms[1] *= rng.integers(2, size=shape)
    forms[2] *= 1e-18
    forms[3] *= 1e17
    forms[4] = 0
    forms[5] = np.sign(forms[5])
    return forms.astype(dtype)


@st.composite
def balls(draw: Any) -> LpBall:
    shape = draw(st.sampled_from(SHAPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    axis = draw(st.sampled_from([a for a in AXES if np.ndim(np.zeros(shape)) > 1 or a is None]))
    radius = draw(
        st.sampled_from(
            [
                np.asarray(0.0),
                np.asarray(0.3),
                np.asarray(1e3),
                rng.uniform(size=shape),
                rng.uniform(size=shape) * rng.integers(2, size=shape),
                rng.uniform(size=shape[-1:]),
                np.zeros(shape),
            ]
        )
    )
    center = jnp.asarray(rng.normal(size=shape), dtype)
    return LpBall(center, jnp.asarray(radius, dtype), draw(st.sampled_from(ORDERS)), axis)


@st.composite
def boxes(draw: Any) -> Box:
    shape = draw(st.sampled_from(SHAPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    lower = rng.normal(size=shape) * draw(st.sampled_from([1, 1e3]))
    width = rng.uniform(size=shape) * rng.integers(2, size=shape)
    return Box(jnp.asarray(lower, dtype), jnp.asarray(lower + width, dtype))


# ---- extrema and hulls ---------------------------------------------------------------------


@given(st.one_of(balls(), boxes()), st.integers(0, 2**32 - 1))
def test_extrema(perturbed: Any, seed: int) -> None:
    """Against the formula of the dual norm in NumPy, and against sampled members."""
    own = checked(perturbed)
    forms = rows(np.random.default_rng(seed), own.aval.shape, own.aval.dtype)
    found = own.concretize(jnp.asarray(forms))
    exact = oracles.linear_extrema(perturbed, forms.astype(np.float64))
    members = oracles.sample(perturbed, seed, 200).astype(np.float64).reshape(200, -1)
    values = forms.astype(np.float64).reshape(len(forms), -1) @ members.T
    center = np.abs(np.stack([np.asarray(x, np.float64) for x in own.hull()])).max(0)
    terms = np.abs(forms.astype(np.float64)) * center
    room = 1e2 * np.finfo(own.aval.dtype).eps * terms.reshape(len(forms), -1).sum(1)
    assert found.lower.dtype == found.upper.dtype == own.aval.dtype
    assert np.all(np.abs(found.lower - exact[0]) <= room)
    assert np.all(np.abs(found.upper - exact[1]) <= room)
    assert np.all(values >= (np.asarray(found.lower) - room)[:, None])
    assert np.all(values <= (np.asarray(found.upper) + room)[:, None])


@pytest.mark.parametrize("ord", ORDERS)
def test_extrema_are_attained(ord: float) -> None:
    """By the point where Hölder's inequality is an equality, which lies in the ball."""
    rng = np.random.default_rng(0)
    center, radius, form = rng.normal(size=5), rng.uniform(size=5), rng.normal(size=5)
    scaled = form * radius
    if math.isinf(ord):
        step = np.sign(scaled)
    elif ord == 1:
        step = np.sign(scaled) * (np.abs(scaled) == np.abs(scaled).max())
    else:
        step = np.sign(scaled) * np.abs(scaled) ** (1 / (ord - 1))
        step /= np.sum(np.abs(step) ** ord) ** (1 / ord)
    assert np.linalg.norm(step, ord) <= 1 + 1e-12
    own = checked(LpBall(jnp.asarray(center), jnp.asarray(radius), ord))
    lower, upper = own.concretize(jnp.asarray(form)[None])
    np.testing.assert_allclose(upper, form @ (center + radius * step))
    np.testing.assert_allclose(lower, form @ (center - radius * step))


@given(st.one_of(balls(), boxes()), st.integers(0, 2**32 - 1))
def test_hull(perturbed: Any, seed: int) -> None:
    """The smallest box: it contains every member, and every entry attains both its limits."""
    own = checked(perturbed)
    lower, upper = (np.asarray(x, np.float64) for x in own.hull())
    room = 4 * np.finfo(own.aval.dtype).eps * (np.abs(lower) + np.abs(upper))
    members = oracles.sample(perturbed, seed, 100)
    assert np.all(members >= lower - room)
    assert np.all(members <= upper + room)
    entries = np.eye(lower.size).reshape(-1, *lower.shape)
    least, most = oracles.linear_extrema(perturbed, entries)
    assert np.all(np.abs(least.reshape(lower.shape) - lower) <= room)
    assert np.all(np.abs(most.reshape(lower.shape) - upper) <= room)


@given(st.one_of(balls(), boxes()))
def test_extrema_from_the_point(perturbed: Any) -> None:
    own = checked(perturbed)
    lower, upper = own.hull()
    assert np.all((lower <= own.point()) & (own.point() <= upper))
    size = math.prod(own.aval.shape)
    units = jnp.eye(size, dtype=own.aval.dtype).reshape(size, *own.aval.shape)
    least, most = (x.reshape(own.aval.shape) for x in own.concretize(units, from_point=True))
    np.testing.assert_allclose(least, lower - own.point(), 1e-6, 1e-4)
    np.testing.assert_allclose(most, upper - own.point(), 1e-6, 1e-4)


def test_point_of_an_unbounded_box() -> None:
    inf = jnp.inf
    box = checked(Box(jnp.array([-inf, -inf, 2.0, 1.0]), jnp.array([inf, -3.0, inf, 2.0])))
    np.testing.assert_array_equal(box.point(), [0, -3, 2, 1.5])


def test_axis() -> None:
    """`axis` puts each row into a ball of its own; several balls add up."""
    x = jnp.zeros((2, 3))
    form = jnp.array([[[3.0, 4, 0], [0, 5, 12]]])

    def reach(axis: Any, ord: float = 2) -> float:
        return float(checked(LpBall(x, 1.0, ord, axis)).concretize(form).upper[0])

    assert reach(None) == pytest.approx(math.sqrt(9 + 16 + 25 + 144))
    assert reach((0, 1)) == reach((-1, -2)) == pytest.approx(reach(None))
    assert reach(1) == reach(-1) == reach((1,)) == pytest.approx(5 + 13)
    assert reach(0) == pytest.approx(3 + math.sqrt(16 + 25) + 12)
    assert reach(()) == pytest.approx(3 + 4 + 5 + 12)
    for axis in (None, 0, 1, ()):
        assert reach(axis, math.inf) == 24
    assert reach(1, 1) == 4 + 12
    assert reach(None, 1) == 12


def test_radius_per_entry() -> None:
    """Entries of radius zero do not move and count for nothing; others move by their own."""
    x, radius = jnp.ones(3), jnp.array([0.0, 1.0, 2.0])
    for ord, expected in ((1, 8), (2, math.sqrt(9 + 64)), (math.inf, 11)):
        own = checked(LpBall(x, radius, ord))
        lower, upper = own.concretize(jnp.array([[100.0, 3, 4]]))
        np.testing.assert_allclose([lower[0], upper[0]], [107 - expected, 107 + expected])
        np.testing.assert_array_equal(own.hull().lower, x - radius)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("ord", ORDERS)
def test_no_overflow_within_the_norm(ord: float, scale: float) -> None:
    """Powers of tiny or huge coefficients in float32 neither vanish nor overflow."""
    own = checked(LpBall(jnp.zeros(3, jnp.float32), np.float32(1), ord))
    form = np.array([[3, -4, 1]], np.float32) * np.float32(scale)
    _, exact = oracles.linear_extrema(LpBall(np.zeros(3), 1.0, ord), form.astype(np.float64))
    np.testing.assert_allclose(own.concretize(jnp.asarray(form)).upper, exact, 1e-5)


# ---- derivatives ---------------------------------------------------------------------------


@pytest.mark.parametrize("ord", ORDERS)
def test_gradients(ord: float) -> None:
    """Finite everywhere, and right where the norm is smooth."""

    def reach(center: Any, radius: Any, form: Any) -> Any:
        return checked(LpBall(center, radius, ord)).concretize(form[None]).upper[0]

    differentiate = jax.jit(jax.grad(reach, (0, 1, 2)))
    zero, form = jnp.zeros(3), jnp.array([1.0, -2.0, 3.0])
    for radius in (jnp.zeros(()), jnp.ones(()), zero, jnp.array([0.0, 1.0, 0.5])):
        for row in (zero, form, form.at[0].set(0)):
            for gradient in differentiate(zero, radius, row):
                assert np.all(np.isfinite(gradient)), (radius, row)
    args = (jnp.array([0.3, -0.2, 1.0]), jnp.array([0.5, 0.2, 1.0]), form)
    check_grads(reach, args, order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


# ---- one ball over several arrays ------------------------------------------------------------

PAIR = {"a": jnp.array([[3.0, -1.0]]), "b": (jnp.array(2.0), jnp.zeros((0, 2)), jnp.ones(3))}


@pytest.mark.parametrize("ord", ORDERS)
@pytest.mark.parametrize(
    "radius", [0.5, {"a": jnp.array([0.5, 0]), "b": 2.0}, {"a": 0.5, "b": 2.0}]
)
def test_joint_extrema(ord: float, radius: Any) -> None:
    """The dual norm is that of all leaves together, and is attained by a member."""
    ball = JointBall(PAIR, radius, ord)
    (own,), structure = ball.split()
    rng = np.random.default_rng(0)
    form = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), PAIR)
    flat, _ = jax.flatten_util.ravel_pytree(form)
    lower, upper = (x[0] for x in own.concretize(flat[None]))

    def value(member: Any) -> Any:
        return sum(jax.tree.leaves(jax.tree.map(lambda a, x: jnp.sum(a * x), form, member)))

    widths = jax.tree.map(jnp.broadcast_to, *_prefixed(radius))
    scaled = np.concatenate(
        [np.ravel(a * r) for a, r in zip(*map(jax.tree.leaves, (form, widths)), strict=True)]
    )
    dual = {1: math.inf, math.inf: 1}.get(ord) or ord / (ord - 1)
    np.testing.assert_allclose(upper, value(PAIR) + np.linalg.norm(scaled, dual))
    np.testing.assert_allclose(lower, value(PAIR) - np.linalg.norm(scaled, dual))
    worst = jax.grad(lambda a: own.concretize(a[None]).upper[0])(flat)
    steps = np.asarray(worst - own.center) / np.where(own.radius > 0, own.radius, 1)
    assert np.linalg.norm(steps, ord) <= 1 + 1e-12
    np.testing.assert_allclose(value(structure.unflatten([worst])), upper)
    for member in jax.vmap(value)(oracles.sample(ball, 0, 50)):
        assert lower - 1e-12 <= member <= upper + 1e-12


def _prefixed(radius: Any) -> tuple[Any, Any]:
    full = (
        jax.tree.map(lambda r, sub: jax.tree.map(lambda _: r, sub), radius, PAIR)
        if isinstance(radius, dict)
        else jax.tree.map(lambda _: radius, PAIR)
    )
    return full, jax.tree.map(jnp.shape, PAIR)


def test_joint_hull_is_that_of_every_leaf() -> None:
    (own,), structure = JointBall(PAIR, 0.5).split()
    for side, sign in zip(own.hull(), (-1, 1), strict=True):
        expected = jax.tree.map(lambda x, sign=sign: x + sign * 0.5, PAIR)
        jax.tree.map(np.testing.assert_allclose, structure.unflatten([side]), expected)


@pytest.mark.parametrize("radius", [0.5, {"a": 0.5, "b": 0.5}])
def test_a_joint_ball_is_the_same_after_a_map_over_its_leaves(radius: Any) -> None:
    """Equal radii are no other set for being one object, or several."""
    ball = JointBall(PAIR, radius)
    (own,), _ = ball.split()
    (mapped,), _ = jax.tree.map(lambda x: np.array(x, copy=True), ball).split()
    assert own.radius.shape == mapped.radius.shape == (() if radius == 0.5 else (6,))
    np.testing.assert_array_equal(own.radius, mapped.radius)


def test_a_joint_ball_of_one_leaf_is_a_ball() -> None:
    (joint,), _ = JointBall(PAIR["a"], 0.5).split()
    (ball,), _ = LpBall(PAIR["a"], 0.5, 2).split()
    np.testing.assert_allclose(
        joint.concretize(jnp.ones((1, 2))), ball.concretize(jnp.ones((1, 1, 2)))
    )


def test_relative_radii() -> None:
    """Fractions of norms and of entries; they have derivatives, also where a leaf is zero."""
    tree = {"a": jnp.array([3.0, 4.0]), "b": jnp.zeros(2)}
    assert kinds.relative_to_norm(tree, 0.1).radius == {"a": pytest.approx(0.5), "b": 0}
    assert kinds.relative_to_norm(tree, 0.1, ord=1).radius["a"] == pytest.approx(0.7)
    entries = kinds.relative_to_entries(tree, 0.1)
    np.testing.assert_allclose(entries.radius["a"], [0.3, 0.4])
    assert entries.ord == math.inf
    joint, _ = JointBall(tree, kinds.relative_to_norm(tree, 0.1).radius).split()
    np.testing.assert_allclose(joint[0].radius, [0.5, 0.5, 0, 0])

    def reach(tree: Any) -> Any:
        sets, _ = kinds.relative_to_norm(tree, 0.1).split()
        return sum(s.concretize(jnp.ones((1, 2))).upper[0] for s in sets)

    gradient = jax.grad(reach)(tree)
    np.testing.assert_allclose(gradient["b"], 1)
    np.testing.assert_allclose(gradient["a"], 1 + math.sqrt(2) * np.array([0.06, 0.08]))


# ---- as pytrees ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "perturbed",
    [
        LpBall(jnp.ones(3), jnp.array(0.1), 2, (0,)),
        LpBall({"a": jnp.ones(3), "b": [jnp.zeros(())]}, 0.1),
        JointBall({"a": jnp.ones(3), "b": jnp.zeros(())}, 0.1, 1),
        Box(jnp.zeros(3), jnp.ones(3)),
        Box((jnp.zeros(3), jnp.zeros(1)), (jnp.ones(3), jnp.ones(1))),
    ],
    ids=["ball", "balls", "joint ball", "box", "boxes"],
)
def test_round_trip(perturbed: Any) -> None:
    """Through flattening, jit, and a map over the leaves; what is static stays."""
    assert isinstance(perturbed, PerturbationSet)
    leaves, structure = jax.tree.flatten(perturbed)
    for again in (
        jax.tree.unflatten(structure, leaves),
        jax.jit(lambda s: s)(perturbed),
        jax.tree.map(lambda x: x, perturbed),
        jax.vmap(lambda s: s, axis_size=2, in_axes=None, out_axes=None)(perturbed),
    ):
        assert type(again) is type(perturbed)
        assert jax.tree.structure(again) == structure
        jax.tree.map(np.testing.assert_array_equal, again, perturbed)
    assert hash(structure) == hash(jax.tree.structure(perturbed))


def test_structure_knows_the_norm() -> None:
    """Balls of two norms are two types to jit, not one with another number in it."""
    x = jnp.ones(2)
    structures = {
        jax.tree.structure(s)
        for s in (LpBall(x, 1.0), LpBall(x, 1.0, 2), LpBall(x, 1.0, 2, 0), Box(x, x))
    }
    assert len(structures) == 4


def test_vmap_over_sets() -> None:
    """Sets may be stacked and mapped like any other pytree."""
    x = jnp.arange(6.0).reshape(3, 2)
    form = jnp.array([[1.0, -1.0]])

    def reach(perturbed: Any) -> Any:
        return checked(perturbed).concretize(form).upper[0]

    found = jax.vmap(reach)(LpBall(x, jnp.array([0.0, 1.0, 2.0])))
    np.testing.assert_allclose(found, [-1, 1, 3])
    found = jax.vmap(reach, in_axes=(LpBall(0, None, 2),))(LpBall(x, 1.0, 2))
    np.testing.assert_allclose(found, -1 + math.sqrt(2))
    found = jax.vmap(reach)(Box(x, x + 1))
    np.testing.assert_allclose(found, 0)


# ---- what may stand for what ---------------------------------------------------------------


def test_numbers_and_numpy_arrays() -> None:
    """Centres, radii and limits may be numbers, NumPy arrays or JAX arrays."""
    assert checked(LpBall(1.0, 0.5)).aval.shape == ()
    assert checked(LpBall(np.ones(3), 1)).hull().upper.tolist() == [2, 2, 2]
    assert checked(LpBall(np.ones(3, np.float32), 0.1)).aval.dtype == jnp.float32
    assert checked(LpBall(jnp.ones(3, jnp.float32), np.float64(0.1))).radius.dtype == jnp.float32
    assert checked(LpBall(jnp.ones(2), 1, np.int64(2))).concretize(
        jnp.ones((1, 2))
    ).upper.shape == (1,)
    assert checked(Box(0.0, np.ones(3))).aval.shape == (3,)
    assert checked(Box(jnp.zeros((2, 1)), jnp.ones(3))).aval.shape == (2, 3)
    assert checked(Box(np.float32(0), np.float64(1))).aval.dtype == jnp.float64


def test_radius_for_a_tree() -> None:
    """One radius for all, one a leaf, or one a subtree."""
    center = {"a": jnp.zeros(2), "b": {"c": jnp.zeros(()), "d": jnp.zeros(3)}}

    def radii(radius: Any) -> list[float]:
        found, structure = LpBall(center, radius).split()
        assert structure == jax.tree.structure(center)
        return [float(np.max(s.radius)) for s in found]

    assert radii(1) == [1, 1, 1]
    assert radii({"a": 1, "b": 2}) == [1, 2, 2]
    assert radii({"a": 1, "b": {"c": 2, "d": jnp.array([1, 2, 3.0])}}) == [1, 2, 3]


def test_ball_of_infinite_order_is_a_box() -> None:
    x, radius = jnp.array([1.0, -2.0]), jnp.array([0.5, 0.0])
    ball, box = checked(LpBall(x, radius)), checked(Box(x - radius, x + radius))
    forms = jnp.array([[1.0, 2], [-1, 3], [0, 0]])
    assert ball.is_box
    assert box.is_box
    np.testing.assert_allclose(ball.concretize(forms), box.concretize(forms))
    np.testing.assert_allclose(ball.hull(), box.hull())
    assert not checked(LpBall(x, radius, 2)).is_box
