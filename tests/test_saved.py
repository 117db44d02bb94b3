"""Saved bounds of inner values: they know for which arguments they hold."""

from __future__ import annotations

import dataclasses
import functools
import operator
import pickle
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlirpa
from jaxlirpa import ArgumentError, IntermediateBounds, JointBall, LpBall
from jaxlirpa._methods.arguments import arguments
from jaxlirpa._methods.saved import admitted
from jaxlirpa.sets.inclusion import beyond

RNG = np.random.default_rng(7)
X = jnp.asarray(RNG.normal(size=3))
W = {"first": jnp.asarray(RNG.normal(size=(3, 4))), "last": jnp.asarray(RNG.normal(size=(4, 2)))}
EPS = 0.1


def network(weights: dict[str, Any], x: jax.Array) -> jax.Array:
    return jax.nn.relu(jax.nn.relu(x @ weights["first"]) @ weights["last"])


def found(fn: Callable[..., Any], **options: Any) -> Callable[..., IntermediateBounds]:
    return jax.jit(jaxlirpa.intermediate_bounds(fn, intermediate=jaxlirpa.ibp, **options))


@functools.cache
def saved() -> IntermediateBounds:
    return found(network)(W, X, EPS)


def held(
    bounds: Any, *args: Any, fn: Any = network, in_axes: Any = None, argnums: Any = None
) -> Any:
    """What of some bounds is used in a call."""
    return admitted(arguments(fn, args, argnums), bounds, in_axes)


def useless(bounds: Any, *args: Any, **options: Any) -> bool:
    """Whether nothing is used of bounds in a call that is traced."""
    boxes = jax.jit(functools.partial(held, **options))(bounds, *args)
    vacuous = [np.all(np.isinf(limit)) for limit in jax.tree.leaves(boxes)]
    assert all(vacuous) or not any(vacuous)
    return all(vacuous)


def same(a: Any, b: Any) -> None:
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11), a, b)


# ---- they must contain the sets of the call ------------------------------------------------


@pytest.mark.parametrize(
    ("x", "eps"), [(X, 2.0), (X + 0.01, EPS), (X, np.nextafter(EPS, 1)), (X, [0.1, 0.1, 0.2])]
)
def test_a_set_that_is_not_inside_is_refused(x: Any, eps: Any) -> None:
    """By however little: outside of `jit` by an error, inside by intervals."""
    eps = jnp.asarray(eps)
    for transform in (jaxlirpa.crown, jaxlirpa.alpha_crown, jaxlirpa.intermediate_bounds):
        with pytest.raises(ArgumentError, match=r"argument 1 .*beyond.* by \d.*\{\*\*bounds\}"):
            transform(network, intermediate=saved())(W, x, eps)
    assert useless(saved(), W, x, eps)


def test_how_far_a_set_is_beyond() -> None:
    with pytest.raises(ArgumentError, match=r"argument 1 .* by 1\.9\b"):
        held(saved(), W, X, 2.0)
    wide = jaxlirpa.Box(X - jnp.array([0.0, 0.1, jnp.inf]), X)
    with pytest.raises(ArgumentError, match=r"argument 1 .* by inf\b"):
        held(saved(), W, wide)


def test_false_bounds_are_none() -> None:
    """What was wrong: a radius of 2 by the bounds of a hundredth excludes true values."""
    crown = jax.jit(lambda bounds, eps: jaxlirpa.crown(network, intermediate=bounds)(W, X, eps))
    lower, upper = crown(saved(), 2.0)
    points = np.asarray(X) + 2 * np.random.default_rng(0).uniform(-1, 1, (500, 3))
    values = np.maximum(np.maximum(points @ W["first"], 0) @ W["last"], 0)
    assert np.all((lower <= values) & (values <= upper))
    assert np.any(values > crown({**saved()}, 2.0).upper + 0.1)
    same(crown(saved(), EPS), crown({**saved()}, EPS))


def test_a_set_that_is_inside_is_bounded_as_before() -> None:
    """The same set, computed in and out of `jit`, and smaller ones of any kind."""
    eagerly = jaxlirpa.intermediate_bounds(network, intermediate=jaxlirpa.ibp)(W, X, EPS)
    for bounds in (saved(), eagerly):
        for ball in (LpBall(X, EPS, ord=2), jaxlirpa.Box(X, X + EPS), JointBall(X, EPS)):
            assert held(bounds, W, ball) is bounds.bounds
            assert not useless(bounds, W, ball)
        assert held(bounds, W, X, EPS) is bounds.bounds
        assert held(bounds, W, X + 0.01, 0.05) is bounds.bounds
        same(jax.jit(held)(bounds, W, X, EPS), bounds.bounds)


def test_a_plain_dictionary_is_taken_at_its_word() -> None:
    plain = {**saved()}
    assert type(plain) is dict and held(plain, W, X, 2.0) is plain


def test_bounds_of_ones_own_beside_them_keep_the_sets() -> None:
    limits = np.zeros(4), np.ones(4)
    mine = saved() | {"mine": limits}
    assert isinstance(mine, IntermediateBounds)
    assert held(mine, W, X, EPS) == {**saved(), "mine": limits}
    with pytest.raises(ArgumentError, match=r"argument 1 .*beyond"):
        held(mine, W, X, 0.2)
    assert useless(mine, W, X, 0.2)
    with pytest.raises(TypeError):
        operator.or_(saved(), saved())


# ---- sets that are no boxes -----------------------------------------------------------------


def test_the_hull_of_a_ball_is_not_the_ball() -> None:
    """What was wrong: bounds saved for a disc were used for the square around it."""

    def fn(x: jax.Array) -> jax.Array:
        return jax.nn.relu(jnp.sum(x, keepdims=True))

    x = jnp.zeros(2)
    bounds = jaxlirpa.intermediate_bounds(fn)(LpBall(x, 1.0, ord=2))
    for square in (LpBall(x, 1.0), jaxlirpa.Box(x - 1, x + 1), JointBall(x, 1.0, ord=jnp.inf)):
        with pytest.raises(ArgumentError, match=r"argument 0 .* by 0\.414\b"):
            held(bounds, square, fn=fn)
        crown = jax.jit(lambda s: jaxlirpa.crown(fn, intermediate=bounds)(s))
        assert crown(square).upper >= 2
    same(jaxlirpa.crown(fn, intermediate=bounds)(LpBall(x, 1.0, ord=2)).upper, np.sqrt([2.0]))


@pytest.mark.parametrize(("ord", "axis"), [(1, None), (1.5, 1), (2, None), (7, 1)])
def test_what_lies_inside_a_ball(ord: float, axis: int | None) -> None:
    """Whatever is found to be inside has no larger linear form; the ball itself always is."""
    rng = np.random.default_rng(int(10 * ord))
    center, radius = rng.normal(size=(2, 3)), rng.uniform(0.5, 1, (2, 3))
    radius[0, 1] = 0
    ball = LpBall(jnp.asarray(center), jnp.asarray(radius), ord, axis)
    rows = jnp.asarray(rng.normal(size=(200, 2, 3)))
    verdicts = []
    for size in (0.0, 0.1, 0.6, 1.1):
        for share in (0.0, 0.5, 1.0, 1.0 + 1e-9):
            moved = jnp.asarray(center + size * rng.uniform(-1, 1, (2, 3)) * radius)
            for other in (
                LpBall(moved, share * radius, ord, axis),
                LpBall(moved, share * radius, 1, axis),
                LpBall(moved, share * radius, ord, 0),
                LpBall(moved, share * radius),
            ):
                (outer,), (inner,) = ball.split()[0], other.split()[0]
                inside = bool(beyond(outer, inner) == 0)
                low, high = outer.concretize(rows)
                lower, upper = inner.concretize(rows)
                within = np.all((low <= lower + 1e-12) & (upper <= high + 1e-12))
                assert within or not inside
                verdicts.append(inside)
    assert 8 < sum(verdicts) < len(verdicts) - 8
    assert beyond(ball.split()[0][0], ball.split()[0][0]) == 0


def test_sets_without_a_rule_contain_themselves_alone() -> None:
    @jax.tree_util.register_dataclass
    @dataclasses.dataclass(frozen=True)
    class Disc:
        ball: LpBall

        is_box = False

    def one_ball(ball: LpBall) -> LpBall:
        return ball.split()[0][0]

    disc = one_ball(LpBall(X, EPS, ord=2))
    assert beyond(Disc(disc), Disc(disc)) == 0
    smaller = one_ball(LpBall(X, EPS / 2, ord=2))
    for other in (Disc(smaller), smaller, one_ball(LpBall(X, EPS))):
        assert beyond(Disc(disc), other) == np.inf


def test_members_of_balls_may_be_known() -> None:
    bounds = found(network)(LpBall(W, EPS, ord=2), LpBall(X, 0.0))
    assert held(bounds, {**W, "last": W["last"] + 0.03}, LpBall(X, 0.0)) is bounds.bounds
    assert held(bounds, LpBall(W, EPS, ord=1), X) is bounds.bounds
    for outside in ({**W, "last": W["last"] + 0.06}, LpBall(W, EPS)):
        with pytest.raises(ArgumentError, match=r"argument 0\['(first|last)'\] .* by 0\.\d"):
            held(bounds, outside, LpBall(X, 0.0))
        assert useless(bounds, outside, LpBall(X, 0.0))


def test_examples_in_balls() -> None:
    batch = jnp.stack([X, -X])
    bounds = found(network, in_axes=(None, 0))(W, LpBall(batch, EPS, ord=2, axis=1))
    discs = (
        LpBall(batch, EPS, ord=2, axis=1),
        LpBall(batch, jnp.array([[0.05], [0.1]]), ord=2, axis=1),
    )
    for inside in discs:
        assert held(bounds, W, inside, in_axes=(None, 0)) is bounds.bounds
    with pytest.raises(ArgumentError, match=r"argument 1 .*beyond"):
        held(bounds, W, LpBall(batch, EPS), in_axes=(None, 0))


# ---- and be those of the same arguments ----------------------------------------------------


def test_other_weights_are_refused() -> None:
    other = {**W, "last": W["last"].at[1, 1].add(1e-12)}
    swapped = {**W, "first": W["first"][::-1]}
    for weights, name in ((other, "last"), (swapped, "first")):
        message = rf"another value of argument 0\['{name}'\].*\{{\*\*bounds\}}"
        with pytest.raises(ArgumentError, match=message):
            held(saved(), weights, X, EPS)
        assert useless(saved(), weights, X, EPS)
    assert held(saved(), jax.tree.map(np.asarray, W), X, EPS) is saved().bounds


def test_another_argument_that_is_perturbed_is_refused() -> None:
    def both(a: jax.Array, b: jax.Array) -> jax.Array:
        return jax.nn.relu(a - b)

    bounds = found(both, argnums=0)(X, X, EPS)
    for argnums in (1, (0, 1)):
        for call in (held, useless):
            with pytest.raises(ArgumentError, match="argument 1 is perturbed"):
                call(bounds, X, X, EPS, fn=both, argnums=argnums)


def test_of_what_was_perturbed_a_member_may_be_known() -> None:
    bounds = found(network, argnums=(0, 1))(W, X, EPS)
    assert held(bounds, {**W, "last": W["last"] + 0.05}, X, EPS) is bounds.bounds
    far = {**W, "last": W["last"] + 0.2}
    with pytest.raises(ArgumentError, match=r"argument 0\['last'\] .* by 0\.1\b"):
        held(bounds, far, X, EPS)
    assert useless(bounds, far, X, EPS)


def test_one_ball_over_all_leaves() -> None:
    bounds = found(network)(JointBall(W, EPS), X)
    assert held(bounds, jax.tree.map(lambda w: LpBall(w, 0.01, ord=2), W), X) is bounds.bounds
    with pytest.raises(ArgumentError, match=r"argument 0\['first'\] .* by 0\.1\b"):
        held(bounds, JointBall(W, 2 * EPS), X)


def test_arguments_that_one_of_the_functions_does_not_have() -> None:
    def loss(weights: Any, x: jax.Array, label: Any, kind: str) -> jax.Array:
        assert kind == "first"
        return network(weights, x)[label]

    inner = jaxlirpa.intermediate_bounds(loss, intermediate=jaxlirpa.ibp, argnums=1)
    bounds = jax.jit(inner, static_argnums=3)(W, X, 1, "first", EPS)
    assert held(bounds, W, X, EPS) is bounds.bounds
    assert held(saved(), W, X, 0, "first", EPS, fn=loss, argnums=1) is saved().bounds
    with pytest.raises(ArgumentError, match="another value of argument 2"):
        held(bounds, W, X, 0, "first", EPS, fn=loss, argnums=1)
    with pytest.raises(ArgumentError, match="argument 0 is perturbed"):
        held(bounds, X, EPS, fn=functools.partial(network, W))


def test_known_arguments_of_all_kinds() -> None:
    def fn(key: Any, factor: float, mask: Any, c: Any, half: Any, x: jax.Array) -> jax.Array:
        scale = jax.random.uniform(key, (3,), x.dtype) * factor
        return jax.nn.relu(jnp.where(mask, x * scale, x) + c.real + half)

    args: list[Any] = [jax.random.key(0), 0.5, np.array([True, False, True])]
    args += [jnp.ones(3, jnp.complex64), np.ones(3, jnp.bfloat16), X]
    bounds = found(fn)(*args, EPS)
    assert held(bounds, *args, EPS, fn=fn) is bounds.bounds
    others = jax.random.key(1), 0.25, ~args[2], 1j * args[3], args[4] * args[4].dtype.type(1.01)
    for number, other in enumerate(others):
        changed = [*args[:number], other, *args[number + 1 :]]
        with pytest.raises(ArgumentError, match=f"another value of argument {number}"):
            held(bounds, *changed, EPS, fn=fn)


def test_a_graph_has_no_arguments_to_compare() -> None:
    inside = functools.partial(jaxlirpa.crown, intermediate=saved())
    with pytest.raises(ArgumentError, match="outermost"):
        jaxlirpa.crown(network, intermediate=inside)(W, X, EPS)


# ---- a mapping and a pytree ----------------------------------------------------------------


def test_a_mapping() -> None:
    bounds = saved()
    assert len(bounds) == 2 and list(bounds) == [name for name, _ in bounds.items()]
    assert bounds.keys() == {**bounds}.keys() and "nowhere" not in bounds
    for name, (lower, upper) in bounds.items():
        assert np.all(lower <= upper) and bounds[name].lower is lower


def test_through_files() -> None:
    """By pickle, and as leaves."""
    leaves, structure = jax.tree.flatten(saved())
    shapes = jax.eval_shape(found(network), W, X, EPS)
    assert jax.tree.structure(shapes) == structure
    for again in (
        pickle.loads(pickle.dumps(saved())),
        jax.tree.unflatten(jax.tree.structure(shapes), list(map(np.asarray, leaves))),
    ):
        assert held(again, W, X, EPS) is again.bounds
        with pytest.raises(ArgumentError, match="beyond"):
            held(again, W, X, 2.0)
    paths = [jax.tree_util.keystr(p) for p, _ in jax.tree_util.tree_leaves_with_path(saved())]
    assert len(set(paths)) == len(leaves)
    assert all(f".bounds['{name}'].lower" in paths for name in saved())


def test_examples() -> None:
    """By `in_axes` and by `vmap`: each example has a hull of its own, and none has weights."""
    batch, radii = jnp.stack([X, -X, 0.5 * X]), jnp.array([[0.1], [0.05], [0.3]])
    in_axes = (None, 0)
    bounds = found(network, in_axes=in_axes)(W, batch, EPS)
    assert bounds.hulls["1"].lower.shape == (3, 1, 3)
    assert {x.shape for x in jax.tree.leaves(bounds.known)} == {(3,)}
    assert held(bounds, W, batch, EPS, in_axes=in_axes) is bounds.bounds
    with pytest.raises(ArgumentError, match=r"argument 1 .* by 0\.2\b"):
        held(bounds, W, LpBall(batch, radii), in_axes=in_axes)
    traced = jax.jit(functools.partial(held, in_axes=in_axes))(bounds, W, LpBall(batch, radii))
    mapped = jax.vmap(found(network), (None, 0, None))(W, batch, EPS)
    by_user = jax.vmap(held, (0, None, 0, 0))(mapped, W, batch, radii)
    for boxes in (traced, by_user):
        for box, whole in zip(boxes.values(), bounds.values(), strict=True):
            same(box.lower[:2].reshape(2, -1), whole.lower[:2].reshape(2, -1))
            assert np.all(np.isinf(box.lower[2]) & np.isinf(box.upper[2]))
    alone = jax.tree.map(operator.itemgetter(2), bounds)
    assert held(alone, W, batch[2:], EPS) is alone.bounds


def test_derivatives() -> None:
    """With respect to the bounds, and through the call that finds them."""

    def sums(w: jax.Array) -> tuple[jax.Array, IntermediateBounds]:
        bounds = found(layer)(w, X, EPS)
        return jnp.sum(next(iter(held(bounds, w, X, EPS, fn=layer).values())).upper), bounds

    def layer(w: jax.Array, x: jax.Array) -> jax.Array:
        return jax.nn.relu(x @ w)

    slope, bounds = jax.jit(jax.grad(sums, has_aux=True))(W["first"])
    same(slope, jnp.outer(X, jnp.ones(4)) + EPS * jnp.sign(W["first"]))

    def total(bounds: IntermediateBounds) -> jax.Array:
        boxes = held(bounds, W["first"], X, EPS, fn=layer)
        return sum(map(jnp.sum, jax.tree.leaves(boxes)))

    slopes = jax.jit(jax.grad(total))(bounds)
    assert isinstance(slopes, IntermediateBounds)
    assert all(np.all(side == 1) for box in slopes.values() for side in box)
    assert not any(map(np.any, jax.tree.leaves((slopes.hulls, slopes.known))))
