"""Independent examples: the same bounds as a joint call and as a loop, at the cost of the rows."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import pytest
from jaxprs import equations
from oracles import METHODS

import jaxlirpa

RANDOM = np.random.default_rng(1)
PARAMS = {
    "conv": jnp.asarray(RANDOM.normal(size=(3, 3, 2, 3)) / 4),
    "skip": jnp.asarray(RANDOM.normal(size=(1, 1, 3, 3)) / 2),
    "scale": jnp.asarray([0.5, -1.0, 2.0]),
    "dense": jnp.asarray(RANDOM.normal(size=(27, 4)) / 5),
}
IMAGES = jnp.asarray(RANDOM.normal(size=(3, 6, 6, 2)))
LABELS = jnp.asarray([2, 0, 3])
conv = functools.partial(jax.lax.conv_general_dilated, dimension_numbers=("NHWC", "HWIO", "NHWC"))


def resnet(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Images `(n, 6, 6, 2)` to logits `(n, 4)`: a strided and a residual block, scaled."""
    h = jax.nn.relu(conv(x, params["conv"], (2, 2), "SAME") * params["scale"] + 0.1)
    h = jax.nn.relu(h + conv(h, params["skip"], (1, 1), "SAME"))
    return h.reshape(len(x), -1) @ params["dense"]


def margins(params: dict[str, jax.Array], x: jax.Array, y: jax.Array) -> jax.Array:
    """The label's logit minus all: `(n, 4)`."""
    logits = resnet(params, x)
    return jnp.take_along_axis(logits, y[:, None], 1) - logits


def close(a: Any, b: Any) -> None:
    """Two pytrees are equal up to rounding."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9), a, b)


def looped(bound: Callable[[Any], Any], count: int) -> Any:
    """The results of single calls, stacked."""
    return jax.tree.map(lambda *xs: jnp.concatenate(xs), *(bound(i) for i in range(count)))


@pytest.mark.parametrize("name", ["crown", "crown_ibp", "ibp"])
def test_mapping_one_example_costs_what_in_axes_does(name: str) -> None:
    """`jax.vmap` of the bounds of one image: a batch axis that `fn` adds stands in no way."""
    method = getattr(jaxlirpa, name)
    mapped = jax.vmap(method(lambda params, x: resnet(params, x[None])[0]), in_axes=(None, 0, None))
    costs = [
        sum(
            out.aval.size
            for equation in equations(jax.make_jaxpr(bound)(PARAMS, IMAGES, 0.1))
            for out in equation.outvars
        )
        for bound in (mapped, method(resnet, in_axes=(None, 0)))
    ]
    assert costs[0] <= 1.2 * costs[1]


@pytest.mark.few(2)
@pytest.mark.parametrize("name", METHODS)
def test_batch_equals_loop_and_joint_call(name: str) -> None:
    method = METHODS[name]
    batched = jax.jit(method(resnet, in_axes=(None, 0)))(PARAMS, IMAGES, 0.1)
    single = jax.jit(method(resnet))
    close(batched, looped(lambda i: single(PARAMS, IMAGES[i : i + 1], 0.1), 3))
    if name in ("ibp", "crown_ibp"):
        close(batched, jax.jit(method(resnet))(PARAMS, IMAGES, 0.1))


SETS = {
    "box": jaxlirpa.Box(IMAGES - 0.1, IMAGES + jnp.abs(IMAGES)),
    "ball": jaxlirpa.LpBall(IMAGES, 0.3, ord=2),
    "ball per image": jaxlirpa.LpBall(IMAGES, 0.3, ord=2, axis=(1, 2, 3)),
    "radius per image": jaxlirpa.LpBall(IMAGES, jnp.arange(3.0).reshape(3, 1, 1, 1) / 10, ord=1),
    "radius per entry": jaxlirpa.LpBall(IMAGES, jnp.abs(IMAGES) / 9, ord=3),
    "radius per channel": jaxlirpa.LpBall(IMAGES, jnp.asarray([0.0, 0.2])),
}


@pytest.mark.parametrize("perturbed", SETS.values(), ids=SETS)
def test_sets_are_mapped_by_their_centre(perturbed: Any) -> None:
    """A ball over all images, seen from one of them, is the ball over that one."""
    batched = arithmetic.jit(lirpa.crown_ibp(resnet, in_axes=(None, 0)))(PARAMS, perturbed)
    close(batched, arithmetic.jit(lirpa.crown_ibp(resnet))(PARAMS, perturbed))


def test_known_arguments_are_mapped_too() -> None:
    bound = arithmetic.jit(lirpa.crown_ibp(margins, in_axes=(None, 0, 0), argnums=1))
    joint = arithmetic.jit(lirpa.crown_ibp(margins, argnums=1))
    close(bound(PARAMS, IMAGES, LABELS, 0.1), joint(PARAMS, IMAGES, LABELS, 0.1))


def test_radii_per_image_as_eps() -> None:
    eps = jnp.asarray([0.0, 0.1, 0.2]).reshape(3, 1, 1, 1)
    close(
        lirpa.ibp(resnet, in_axes=(None, 0))(PARAMS, IMAGES, eps),
        looped(lambda i: lirpa.ibp(resnet)(PARAMS, IMAGES[i : i + 1], 0.1 * i), 3),
    )


def affine(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """`(n, 3)` to `(n, 2)`, bent."""
    return jax.nn.relu(x @ params["w"] + params["b"])


AFFINE = {"w": jnp.asarray([[1.0, -2.0], [0.5, 1.0], [-1.0, 3.0]]), "b": jnp.asarray([0.1, -0.2])}
POINTS = jnp.asarray(RANDOM.normal(size=(4, 3)))
EXPECTED = lirpa.crown(affine)(AFFINE, POINTS, 0.2)


@pytest.mark.parametrize("in_axes", [(None, 0), [None, -2], ({"w": None, "b": None}, 0)])
def test_in_axes_are_those_of_vmap(in_axes: Any) -> None:
    close(lirpa.crown(affine, in_axes=in_axes)(AFFINE, POINTS, 0.2), EXPECTED)


def test_other_axes() -> None:
    def turned(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
        return affine(params, x.T).T

    bound = lirpa.crown(turned, in_axes=(None, 1), out_axes=-1)
    close(bound(AFFINE, POINTS.T, 0.2), jax.tree.map(jnp.transpose, EXPECTED))
    alone = lirpa.crown(lambda x: affine(AFFINE, x), in_axes=0)
    close(alone(POINTS, 0.2), EXPECTED)


def test_linear_bounds_of_each_example() -> None:
    batched = lirpa.crown(affine, in_axes=(None, 0), linear=True)(AFFINE, POINTS, 0.2)
    assert batched.lower_coefficients[1].shape == (4, 2, 3)
    assert jax.tree.leaves(batched.lower_coefficients[0]) == []
    for i in range(4):
        one = lirpa.crown(affine, linear=True)(AFFINE, POINTS[i : i + 1], 0.2)
        close(batched.lower_coefficients[1][i], one.lower_coefficients[1][0, :, 0])
        close(batched.upper_offset[i], one.upper_offset[0])


def test_several_outputs() -> None:
    def both(x: jax.Array) -> dict[str, jax.Array]:
        return {"relu": jax.nn.relu(x), "sum": x.sum(1), "known": jnp.ones((len(x), 2))}

    close(lirpa.crown(both, in_axes=0)(POINTS, 0.1), lirpa.crown(both)(POINTS, 0.1))


def test_a_joint_call_is_right_where_examples_interact() -> None:
    def centred(x: jax.Array) -> jax.Array:
        return jnp.abs(x - x.mean(0, keepdims=True))

    lower, upper = lirpa.crown(centred)(POINTS, 0.1)
    for _ in range(100):
        y = centred(POINTS + RANDOM.uniform(-0.1, 0.1, POINTS.shape))
        assert (lower <= y + 1e-12).all() and (y <= upper + 1e-12).all()


def test_jit_and_gradient() -> None:
    def total(eps: jax.Array) -> jax.Array:
        return lirpa.crown(affine, in_axes=(None, 0))(AFFINE, POINTS, eps).upper.sum()

    slope = jax.jit(jax.grad(total))(0.2)
    np.testing.assert_allclose(slope, (total(0.2 + 1e-6) - total(0.2 - 1e-6)) / 2e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "fn, in_axes, args, message",
    [
        (affine, (None, None), (AFFINE, POINTS), "different sizes, or none"),
        (affine, (0, 0), (AFFINE, POINTS), "different sizes"),
        (affine, (None, 2), (AFFINE, POINTS), "maps axis 2"),
        (affine, (None, 0, 0), (AFFINE, POINTS), "an entry for each of the arguments"),
        (lambda x: x.sum(), 0, (POINTS,), "no axis of size one"),
        (lambda x: jnp.abs(x).T, 0, (POINTS,), "no axis of size one"),
    ],
)
def test_wrong_axes(fn: Callable[..., Any], in_axes: Any, args: Any, message: str) -> None:
    with pytest.raises(jaxlirpa.ArgumentError, match=message):
        lirpa.crown(fn, in_axes=in_axes)(*args, 0.1)


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("count", [2, 80, 2000])
def test_an_expensive_joint_call_warns(count: int, mixes: bool) -> None:
    def wide(x: jax.Array) -> jax.Array:
        hidden = x @ jnp.ones((2, 200))
        return jax.nn.relu(hidden - hidden.mean(0) if mixes else hidden)[:, :1]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        jax.eval_shape(lirpa.crown(wide), jnp.zeros((count, 2)), 0.1)
        jax.eval_shape(lirpa.crown(wide, in_axes=0), jnp.zeros((count, 2)), 0.1)
    found = [w for w in caught if w.category is jaxlirpa.ExpensiveJointCallWarning]
    assert len(found) == (mixes and count > 2)
    for warning in found:
        assert "in_axes" in str(warning.message)
        assert "`reduce_sum` at" in str(warning.message)
        assert "test_batching.py" in str(warning.message)
