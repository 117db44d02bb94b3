"""How a transform, and the function that it returns, are called: names, radii, options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

import jaxlirpa
from jaxlirpa import ArgumentError, LpBall, SetError

W = jnp.array([[1.0, -2.0], [0.5, 1.0]])
X = jnp.array([1.0, -0.5])
TRANSFORMS: dict[str, Callable[..., Any]] = {
    **{t.__name__: t for t in (jaxlirpa.ibp, jaxlirpa.crown, jaxlirpa.crown_ibp)},
    "forward_crown": jaxlirpa.forward_crown,
    "alpha_crown": functools.partial(jaxlirpa.alpha_crown, steps=1),
    "intermediate_bounds": jaxlirpa.intermediate_bounds,
}
every_transform = pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)


def net(w: jax.Array, x: jax.Array) -> jax.Array:
    """A layer."""
    return w @ x


def scaled(x: Any, scale: Any = 1.0, *, shift: Any = 0.0) -> Any:
    return scale * x + shift


def layer_norm(x: jax.Array, eps: float = 1e-5) -> jax.Array:
    return (x - x.mean()) / (1 + eps)


def same(found: Any, wanted: Any) -> None:
    """Whether two results are equal, array by array."""
    plain = [{**x} if isinstance(x, jaxlirpa.IntermediateBounds) else x for x in (found, wanted)]
    found, wanted = plain
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- names ---------------------------------------------------------------------------------


def test_the_radius_and_arguments_by_name() -> None:
    bound = jaxlirpa.ibp(net)
    wanted = bound(W, X, 0.25)
    for found in (
        bound(W, X, eps=0.25),
        bound(W, x=X, eps=0.25),
        bound(eps=0.25, x=X, w=W),
        bound(W, LpBall(X, 0.25)),
        bound(W, x=LpBall(X, 0.25)),
        bound(W, LpBall(X, 0.25), eps=None),
        jaxlirpa.ibp(jax.jit(net))(W, X, eps=0.25),
    ):
        same(found, wanted)


@every_transform
def test_every_transform_takes_names(transform: Any) -> None:
    def fn(x: jax.Array, scale: float = 1.0) -> jax.Array:
        return checkpoint_name(scale * x, "scaled")

    same(transform(fn)(X, scale=2.0, eps=0.25), transform(lambda x: fn(x, 2.0))(X, 0.25))


def test_names_inside_of_transformations() -> None:
    bound = jaxlirpa.ibp(scaled)
    wanted = bound(X, 0.25, scale=2.0)
    np.testing.assert_allclose(wanted.upper, 2 * X + 0.5)
    same(jax.jit(bound)(X, eps=0.25, scale=2.0), wanted)
    same(jax.jit(bound, static_argnames="scale")(X, 0.25, scale=2.0), wanted)
    radii = jnp.array([0.25, 0.5])
    mapped = jax.vmap(lambda eps: bound(X, eps=eps, scale=2.0))(radii)
    same(jax.tree.map(lambda x: x[0], mapped), wanted)
    slope = jax.grad(lambda eps: bound(X, eps=eps, scale=3.0).upper.sum())(0.1)
    np.testing.assert_allclose(slope, 6)


def test_examples_share_what_has_a_name() -> None:
    """An axis of the arguments by position is mapped; what is passed by name is there whole."""
    points, shift = jnp.stack([X, -X, 2 * X]), jnp.array([3.0, 4.0])
    found = jaxlirpa.crown(scaled, in_axes=0)(points, eps=0.25, shift=shift)
    np.testing.assert_allclose(found.lower, points + shift - 0.25)
    np.testing.assert_allclose(found.upper, points + shift + 0.25)


def test_what_has_a_default_is_known_by_name() -> None:
    """A keyword is never perturbed by eps, though by position the last argument is."""
    lower, upper = jaxlirpa.crown(scaled)(X, scale=2.0, shift=1.0, eps=0.25)
    np.testing.assert_allclose((lower, upper), (2 * X + 0.5, 2 * X + 1.5))
    lower, upper = jaxlirpa.crown(scaled)(X, 2.0, eps=0.25)
    np.testing.assert_allclose(upper - lower, 0.5 * jnp.abs(X))


def test_linear_bounds_have_the_arguments_by_position() -> None:
    bounds = jaxlirpa.crown(scaled, linear=True)(X, eps=0.25, scale=2.0)
    (coefficients,) = bounds.lower_coefficients
    np.testing.assert_allclose(coefficients, 2 * np.eye(2))


def test_an_eps_of_the_functions_own() -> None:
    """`eps=` is then the function's, and the radius comes last."""
    wanted = jaxlirpa.crown(lambda x: layer_norm(x, 0.5))(X, 0.25)
    same(jaxlirpa.crown(layer_norm)(X, 0.25, eps=0.5), wanted)
    same(jaxlirpa.crown(layer_norm)(LpBall(X, 0.25), eps=0.5), wanted)
    with pytest.raises(ArgumentError, match="as its last argument, because eps= is its own"):
        jaxlirpa.crown(layer_norm)(X, eps=0.25)


CALLS: dict[str, tuple[Callable[[Callable[..., Any]], Any], str]] = {
    "eps twice": (lambda t: t(net)(W, X, 0.1, eps=0.1), "eps is given twice"),
    "eps and a set": (lambda t: t(net)(W, LpBall(X, 0.1), eps=0.1), "eps is given twice"),
    "a set in the place of eps": (
        lambda t: t(net)(W, X, LpBall(X, 0.1)),
        "which stands in an argument's own place",
    ),
    "no eps": (lambda t: t(net)(W, x=X), r"eps is missing: no argument of net(w, x)"),
    "no eps and a tuple of limits": (lambda t: t(net)(W, (X, X)), "no argument of net(w, x) is a"),
    "nothing but eps": (lambda t: t(net)(eps=0.1), "net(w, x) got 0 arguments"),
    "one too few": (lambda t: t(net)(W, eps=0.1), "missing a required argument: 'x'"),
    "one argument twice": (lambda t: t(net)(W, X, 0.1, w=W), "multiple values for"),
    "another name for eps": (lambda t: t(net)(W, X, epsilon=0.1), "The radius is called eps"),
    "an option too late": (lambda t: t(net)(W, X, 0.1, in_axes=0), "crown(net, in_axes=...)"),
    "a set by name alone": (
        lambda t: t(scaled)(X, shift=LpBall(X, 0.1)),
        "scaled got a set as shift=, but what is passed by keyword is known exactly",
    ),
    "all by name alone": (
        lambda t: t(functools.partial(net, w=W))(x=X, eps=0.1),
        "net(w=..., x) got nothing by position",
    ),
    "two radii apart": (lambda t: t(net, argnums=(0, 1))(W, X, 0.1, 0.2), "eps=(0.1, 0.2)"),
    "three radii of two": (
        lambda t: t(net, argnums=(0, 1))(W, X, (0.1, 0.2, 0.3)),
        "eps has 3 radii for the 2 arguments that argnums=(0, 1) names",
    ),
    "argnums by name": (lambda t: t(net, argnums="x")(W, X, 0.1), "(0: w, 1: x)"),
    "argnums broken": (lambda t: t(net, argnums=1.0)(W, X, 0.1), "must be the number of an"),
    "argnums twice": (lambda t: t(net, argnums=(1, -1))(W, X, 0.1), "names an argument twice"),
    "argnums too large": (lambda t: t(net, argnums=2)(W, X, 0.1), "eps is not numbered"),
    "axes too many": (
        lambda t: t(net, in_axes=(None, 0, None))(W, X, 0.1),
        "in_axes=(None, 0, None) must be an axis, or have an entry for each of the arguments w, x",
    ),
    "axes too few": (lambda t: t(net, in_axes=(0,))(W, X, 0.1), "arguments w, x, of which there"),
    "axes by name": (lambda t: t(net, in_axes="x")(W, X, 0.1), "in_axes='x' must be an axis"),
    "axis broken": (lambda t: t(net, in_axes=(None, 0.0))(W, X, 0.1), "in_axes has 0.0 for `x`"),
    "axes of another": (
        lambda t: t(net, in_axes=({"a": 0}, 0))(W, X, 0.1),
        "in_axes has {'a': 0} for `w`",
    ),
    "axis too large": (lambda t: t(net, in_axes=(None, 1))(W, X, 0.1), "axis 1 of `x`"),
    "axes of two sizes": (
        lambda t: t(net, in_axes=(0, 0))(W, X[None], 0.1),
        "1 of `x`, 2 of `w`",
    ),
    "leaves of two sizes": (
        lambda t: t(lambda p: p["a"], in_axes=0)({"a": X, "b": X[None]}, 0.1),
        "2 of `p`, 1 of `p`",
    ),
}


@pytest.mark.parametrize(("call", "message"), CALLS.values(), ids=CALLS)
def test_a_call_that_does_not_fit(call: Callable[[Callable[..., Any]], Any], message: str) -> None:
    for transform in TRANSFORMS.values():
        with pytest.raises(ArgumentError) as caught:
            call(transform)
        assert message in str(caught.value)


def test_errors_of_sets_name_the_argument() -> None:
    with pytest.raises(SetError, match=r"^argument `x`: LpBall: radius of shape \(3,\)"):
        jaxlirpa.ibp(net)(W, X, jnp.ones(3))
    with pytest.raises(SetError, match=r"^argument `params\['w'\]`: LpBall: center is int"):
        jaxlirpa.ibp(lambda params: params["w"])({"w": LpBall(jnp.arange(2), 0.1), "b": X})
    with pytest.raises(SetError, match=r"it is \[\*, \*\], and the centre an array.*jnp.array"):
        jaxlirpa.ibp(net)(W, X, [0.1, 0.1])


def test_a_radius_for_each_argument() -> None:
    wanted = jaxlirpa.ibp(net)(LpBall(W, 0.1), LpBall(X, 0.2))
    bound = jaxlirpa.ibp(net, argnums=(0, 1))
    for radii in ((0.1, 0.2), [0.1, 0.2], (jnp.full((2, 2), 0.1), 0.2)):
        same(bound(W, X, radii), wanted)
        same(bound(W, X, eps=radii), wanted)
    same(jaxlirpa.ibp(net, argnums=(1, 0))(W, X, (0.2, 0.1)), wanted)
    same(bound(W, X, 0.1), jaxlirpa.ibp(net)(LpBall(W, 0.1), LpBall(X, 0.1)))


def test_a_pytree_of_radii_for_each_argument() -> None:
    def fn(params: Any, x: jax.Array) -> jax.Array:
        return params["w"] @ x + params["b"]

    params = {"w": W, "b": X}
    radii = ({"w": 0.1, "b": 0.2}, 0.3)
    wanted = jaxlirpa.ibp(fn)(LpBall(params, radii[0]), LpBall(X, 0.3))
    same(jax.jit(jaxlirpa.ibp(fn, argnums=(0, 1)))(params, X, radii), wanted)


# ---- what is shown -------------------------------------------------------------------------


SIGNATURES: dict[str, tuple[Callable[..., Any], str]] = {
    "plain": (net, "(w: 'jax.Array', x: 'jax.Array', eps=None)"),
    "defaults": (
        scaled,
        "(x: 'Any', eps=None, *, scale: 'Any' = 1.0, shift: 'Any' = 0.0)",
    ),
    "own eps": (layer_norm, "(x: 'jax.Array', *radius, eps: 'float' = 1e-05)"),
    "variadic": (lambda *arrays, **options: arrays[0], "(*arrays, eps=None, **options)"),
    "partial": (functools.partial(net, W), "(x: 'jax.Array', eps=None)"),
    "jit": (jax.jit(net), "(w: 'jax.Array', x: 'jax.Array', eps=None)"),
    "unknown": (max, "(*args: 'Any', **named: 'Any') -> 'Any'"),
}


@pytest.mark.parametrize(("fn", "shown"), SIGNATURES.values(), ids=SIGNATURES)
@every_transform
def test_the_signature_is_that_of_the_function(
    transform: Any, fn: Callable[..., Any], shown: str
) -> None:
    assert str(inspect.signature(transform(fn))) == shown


def test_whoever_binds_arguments_changes_nothing() -> None:
    """Libraries hand on what `Signature.bind` makes of a call."""
    calls: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = [
        (net, (W, X, 0.1), {}),
        (net, (W,), {"x": X, "eps": 0.1}),
        (scaled, (X, 0.1), {"scale": 2.0}),
        (scaled, (X,), {"eps": 0.1, "scale": 2.0, "shift": 1.0}),
        (scaled, (LpBall(X, 0.1),), {"scale": 2.0}),
        (layer_norm, (X, 0.1), {"eps": 0.5}),
        (lambda *arrays: arrays[0], (X, 0.1), {}),
    ]
    for fn, args, named in calls:
        bound = jaxlirpa.ibp(fn)
        again = inspect.signature(bound).bind(*args, **named)
        same(bound(*again.args, **again.kwargs), bound(*args, **named))


def test_name_and_documentation() -> None:
    bound = jaxlirpa.crown(net)
    assert bound.__name__ == "bounds_of_net" and bound.__module__ == __name__
    text = inspect.getdoc(bound) or ""
    for part in ("bounds of net", "eps", "LpBall", "net:\n    A layer."):
        assert part in text
    assert "not documented" in (inspect.getdoc(jaxlirpa.crown(lambda x: x)) or "")
    assert inspect.unwrap(bound) is net


# ---- the transforms themselves -------------------------------------------------------------


OPTIONS: dict[str, tuple[Callable[[], Any], str]] = {
    "an array": (lambda: jaxlirpa.crown(X), "crown bounds a function, and no ArrayImpl"),
    "a value": (lambda: jaxlirpa.ibp(net(W, X)), "ibp bounds a function"),
    "a pair": (lambda: jaxlirpa.crown_ibp((net, W)), "jaxlirpa.crown_ibp(fn)(*args, eps)"),
    "nothing": (lambda: jaxlirpa.forward_crown(None), "forward_crown bounds a function"),
    "arguments": (lambda: jaxlirpa.crown(net, W, X, 0.1), "crown takes the function alone"),
    "radius": (lambda: jaxlirpa.crown(net, eps=0.1), "those of the function that it returns"),
    "spelling": (lambda: jaxlirpa.alpha_crown(net, optimiser=None), "Is it `optimizer`?"),
    "plural": (lambda: jaxlirpa.crown(net, in_axis=0), "Is it `in_axes`?"),
    "no such option": (
        lambda: jaxlirpa.ibp(net, linear=True),
        "ibp has no option `linear`. Options are argnums, in_axes, out_axes.",
    ),
    "optimizer by name": (
        lambda: jaxlirpa.alpha_crown(net, optimizer="adam"),
        "optimizer must be one of optax, as optax.adam(0.1)",
    ),
    "negative steps": (
        lambda: jaxlirpa.alpha_crown(net, steps=-1),
        "steps must be a whole number, 0 or more, and not -1",
    ),
    "half a step": (lambda: jaxlirpa.alpha_crown(net, steps=0.5), "and not 0.5"),
    "steps by truth": (lambda: jaxlirpa.alpha_crown(net, steps=True), "and not True"),
    **{
        f"no rows: {transform.__name__}": (
            functools.partial(transform, net, rows_per_chunk=0),
            "rows_per_chunk must be a whole number, 1 or more, and not 0",
        )
        for transform in (jaxlirpa.crown, jaxlirpa.alpha_crown, jaxlirpa.intermediate_bounds)
    },
    "names": (lambda: jaxlirpa.intermediate_bounds(net, out_axes=0), "Is it `in_axes`?"),
    "strategy": (lambda: jaxlirpa.crown(net, intermediate="ibp"), "must be a transform"),
}


@pytest.mark.parametrize(("make", "message"), OPTIONS.values(), ids=OPTIONS)
def test_a_wrong_option_is_refused_at_once(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        make()
    assert message in str(caught.value)


def test_no_steps_are_crown() -> None:
    same(jaxlirpa.alpha_crown(net, steps=0)(W, X, 0.1), jaxlirpa.crown(net)(W, X, 0.1))


def test_transforms_keep_their_own_signature() -> None:
    parameters = inspect.signature(jaxlirpa.crown).parameters
    assert [*parameters][:2] == ["fn", "intermediate"]
    assert "Zhang" in (jaxlirpa.crown.__doc__ or "")
