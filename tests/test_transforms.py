"""Bounds are JAX functions: they jit, map and differentiate, and so may what they bound."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax.test_util import check_grads
from jaxprs import equations
from oracles import METHODS

import jaxlirpa
from jaxlirpa import Bounds, Box, LpBall

slow = pytest.mark.slow
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
two_methods = pytest.mark.parametrize("method", [jaxlirpa.ibp, jaxlirpa.crown])

RANDOM = np.random.default_rng(0)
PARAMS = {
    "first": jnp.asarray(RANDOM.normal(size=(3, 4))),
    "bias": jnp.asarray(RANDOM.normal(size=4)),
    "second": jnp.asarray(RANDOM.normal(size=(4, 4)) / 2),
    "last": jnp.asarray(RANDOM.normal(size=(4, 2))),
}
X = jnp.array([1.0, -0.5, 0.25])
EPS = 0.3


def network(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Relu, tanh and a residual connection."""
    hidden = jax.nn.relu(x @ params["first"] + params["bias"])
    return (hidden + jnp.tanh(hidden @ params["second"])) @ params["last"]


net = functools.partial(network, PARAMS)


def same(a: Any, b: Any, rtol: float = 1e-12) -> None:
    """Asserts that two pytrees are equal up to rounding."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol, rtol)


# ---- jit, vmap, grad of bounds -------------------------------------------------------------


@pytest.mark.few(1)
@pytest.mark.parametrize(
    "method",
    [pytest.param(m, id=k, marks=slow if "forward" in k else ()) for k, m in METHODS.items()],
)
def test_jit_is_eager_and_vmap_is_a_loop(method: Any) -> None:
    """Over inputs, radii and parameters, one at a time and together."""
    bound = method(network)
    jitted = jax.jit(bound)
    eager = bound(PARAMS, X, EPS)
    same(jitted(PARAMS, X, EPS), eager)
    xs, radii = jnp.stack([X, 2 * X]), jnp.array([0.0, 0.5])
    many = jax.tree.map(lambda a: jnp.stack([a, -a]), PARAMS)

    def one(i: int) -> Any:
        return jax.tree.map(lambda a: a[i], many)

    def stack(results: list[Bounds]) -> Bounds:
        return jax.tree.map(lambda *parts: jnp.stack(parts), *results)

    def mapped(*in_axes: Any) -> Callable[..., Any]:
        return jax.jit(jax.vmap(bound, in_axes))

    same(mapped(None, 0, None)(PARAMS, xs, EPS), stack([jitted(PARAMS, x, EPS) for x in xs]))
    same(mapped(None, None, 0)(PARAMS, X, radii), stack([jitted(PARAMS, X, r) for r in radii]))
    same(mapped(0, None, None)(many, X, EPS), stack([jitted(one(i), X, EPS) for i in (0, 1)]))
    same(
        jax.vmap(bound)(many, xs, radii),
        stack([jitted(one(i), xs[i], radii[i]) for i in (0, 1)]),
    )


@pytest.mark.few(1)
@pytest.mark.parametrize(
    ("name", "ord"),
    [
        *[("ibp", 2), ("crown_ibp", 1.5)],
        *(pytest.param(*case, marks=slow) for case in [("crown", np.inf), ("forward_crown", 2)]),
    ],
)
def test_gradients_are_those_of_finite_differences(name: str, ord: float) -> None:
    """With respect to weights, centre and radius, forwards and backwards."""

    def loss(params: Any, center: jax.Array, radius: jax.Array) -> jax.Array:
        lower, upper = METHODS[name](network)(params, LpBall(center, radius, ord=ord))
        return jnp.sum(upper**2) - jnp.sum(jnp.sin(lower))

    args = (PARAMS, X, jnp.array(EPS))
    check_grads(jax.jit(loss), args, order=1, modes=["fwd", "rev"], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@two_methods
def test_gradients_with_respect_to_a_box(method: Any) -> None:
    def loss(lower: jax.Array, upper: jax.Array) -> jax.Array:
        bounds = method(net)(Box(lower, upper))
        return jnp.sum(bounds.upper) - jnp.sum(bounds.lower**2)

    check_grads(jax.jit(loss), (X - 0.2, X + 0.4), order=1, modes=["rev"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("method", [jaxlirpa.ibp, pytest.param(jaxlirpa.crown, marks=slow)])
def test_checkpoint(method: Any) -> None:
    """Of the bounds, and of what is bounded."""

    def width(bound: Callable[..., Bounds]) -> Callable[..., jax.Array]:
        return lambda params: jnp.sum(jnp.subtract(*bound(params, X, EPS)))

    expected = jax.jit(jax.value_and_grad(width(method(network))))(PARAMS)
    for bound in (jax.checkpoint(method(network)), method(jax.checkpoint(network))):
        same(jax.jit(jax.value_and_grad(width(bound)))(PARAMS), expected, 1e-9)


def test_one_trace_serves_all_values() -> None:
    traces = []

    def noted(x: jax.Array) -> jax.Array:
        traces.append(x)
        return net(x)

    bound = jax.jit(jaxlirpa.crown(noted))
    for eps in (0.1, 0.2, 0.3):
        bound(eps * X, eps)
    assert len(traces) == 1


@pytest.mark.few(2)
@every_method
def test_nothing_leaks(method: Any) -> None:
    with jax.checking_leaks():
        jax.jit(method(net))(X, EPS)


# ---- sets in transformations ---------------------------------------------------------------


@pytest.mark.slow
def test_sets_inside_jit_and_through_it() -> None:
    bound = jaxlirpa.crown(net)
    expected = bound(LpBall(X, EPS, ord=2))
    same(jax.jit(lambda x, r: bound(LpBall(x, r, ord=2)))(X, EPS), expected)
    same(jax.jit(bound)(LpBall(X, EPS, ord=2)), expected)
    halved = jax.tree.map(lambda a: a / 2, LpBall(2 * X, 2 * EPS, ord=2))
    same(bound(halved), expected)
    mapped = jax.vmap(bound)(jax.tree.map(lambda a: jnp.stack([a] * 2), Box(X - EPS, X)))
    same(jax.tree.map(lambda a: a[1], mapped), bound(Box(X - EPS, X)))
    batched = jax.vmap(bound, in_axes=(LpBall(0, None, 2),))(LpBall(X[None], EPS, ord=2))
    same(jax.tree.map(lambda a: a[0], batched), expected)


def test_sets_in_control_flow_outside() -> None:
    """A loop over radii, as a search for the largest certified one would have."""
    bound = jaxlirpa.crown_ibp(net)
    radii = jnp.array([0.1, 0.2])
    _, found = jax.lax.scan(lambda c, r: (c, bound(LpBall(X, r))), 0, radii)
    same(found, jax.vmap(lambda r: bound(X, r))(radii))
    chosen = jax.lax.cond(radii[0] > 1, lambda s: bound(s), lambda s: bound(s), Box(X, X + 1))
    same(chosen, bound(Box(X, X + 1)))


# ---- transformations in what is bounded ----------------------------------------------------


@pytest.mark.few(2)
@every_method
def test_transformed_functions(method: Any) -> None:
    expected = method(net)(X, EPS)
    same(method(jax.jit(net))(X, EPS), expected)
    same(method(jax.jit(jax.jit(net)))(X, EPS), expected)
    same(method(jax.named_call(net, name="net"))(X, EPS), expected)
    xs = jnp.stack([X, -X])
    lower, upper = method(jax.vmap(net))(xs, EPS)
    same(Bounds(lower[0], upper[0]), expected)
    same(Bounds(lower[1], upper[1]), method(net)(-X, EPS))


@every_method
def test_a_jitted_function_called_twice(method: Any) -> None:
    """Two calls of one trace are two places in the graph."""

    @jax.jit
    def step(x: jax.Array) -> jax.Array:
        return jax.nn.relu(x) * 2 - 1

    lower, upper = method(lambda x: (step(step(x)), step(x)))(X, EPS)
    same(lower, (step(step(X - EPS)), step(X - EPS)))
    same(upper, (step(step(X + EPS)), step(X + EPS)))


@every_method
def test_derivative_rules_are_no_values(method: Any) -> None:
    """A function with a rule of its own is bounded by what it computes, whatever the rule says."""

    @jax.custom_jvp
    def lying_forwards(x: jax.Array) -> jax.Array:
        return 3 * jax.nn.relu(x)

    lying_forwards.defjvp(lambda primals, tangents: (-primals[0], 100 * tangents[0]))

    @jax.custom_vjp
    def lying_backwards(x: jax.Array) -> jax.Array:
        return 3 * jax.nn.relu(x)

    lying_backwards.defvjp(lambda x: (x, None), lambda _, g: (-g,))

    def honest(x: jax.Array) -> jax.Array:
        return 3 * jax.nn.relu(x)

    def stopped(x: jax.Array) -> jax.Array:
        return 3 * jax.lax.stop_gradient(jax.nn.relu(jax.lax.stop_gradient(x)))

    expected = method(honest)(X, EPS)
    for fn in (lying_forwards, lying_backwards, stopped, jax.jit(lying_forwards)):
        same(method(fn)(X, EPS), expected)
    same(method(lambda x: x - jax.lax.stop_gradient(x))(X, EPS), Bounds(0 * X, 0 * X))


def test_a_straight_through_estimator_is_bounded_by_its_value() -> None:
    """Its value is a step function, though its derivative is that of the identity."""

    def fn(x: jax.Array) -> jax.Array:
        return x + jax.lax.stop_gradient(jnp.round(x) - x)

    lower, upper = jaxlirpa.crown(fn)(X, EPS)
    for sign in (-1, 0, 1):
        assert np.all((lower <= fn(X + sign * EPS) + 1e-12) & (fn(X + sign * EPS) - 1e-12 <= upper))


@every_method
def test_constants_closed_over(method: Any) -> None:
    table, order = np.array([[1.0, 2.0, -1.0], [0.0, 1.0, 1.0]]), np.array([2, 0, 1])
    offset, count = jnp.array([0.5, -0.5]), 3

    @jax.jit
    def inner(x: jax.Array) -> jax.Array:
        return table @ x[order] + offset

    def fn(x: jax.Array) -> jax.Array:
        known = jnp.sort(jnp.exp(jnp.arange(count))) * jax.random.uniform(jax.random.key(0), (3,))
        return inner(x * known)[jnp.argmax(offset)] * jnp.where(offset > 0, 1.0, -1.0)

    lower, upper = method(fn)(X, EPS)
    value, reach = fn(X), EPS * jnp.abs(jax.jacobian(fn)(X)).sum(1)
    same(Bounds(lower, upper), Bounds(value - reach, value + reach))


@every_method
def test_callables_of_all_kinds(method: Any) -> None:
    class Model:
        def __call__(self, x: jax.Array) -> jax.Array:
            return net(x)

        def method(self, x: jax.Array) -> jax.Array:
            return net(x)

    expected = method(net)(X, EPS)
    for fn in (Model(), Model().method, functools.partial(network, PARAMS), lambda *xs: net(xs[0])):
        same(method(fn)(X, EPS), expected)


# ---- precision -----------------------------------------------------------------------------


def images(x: jax.Array, precision: Any = None) -> jax.Array:
    """Convolutions of both strides and a dense layer, at the author's own precision."""
    kernel = jnp.ones((3, 3, 1, 2), x.dtype)
    hidden = jax.nn.relu(linen_conv(x, kernel, 2, precision))
    hidden = jax.nn.relu(linen_conv(hidden, jnp.ones((3, 3, 2, 2), x.dtype), 1, precision))
    return jnp.dot(hidden.reshape(len(x), -1), jnp.ones((18, 2), x.dtype), precision=precision)


def linen_conv(x: jax.Array, kernel: jax.Array, stride: int, precision: Any) -> jax.Array:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision,
    )


@pytest.mark.few(3)
@every_method
@pytest.mark.parametrize("precision", [None, jax.lax.Precision.DEFAULT])
def test_products_run_at_the_highest_precision(method: Any, precision: Any) -> None:
    """The default of an accelerator is coarser than float32, and then bounds are false."""
    x = jnp.ones((1, 6, 6, 1), jnp.float32)

    def loss(x: jax.Array, eps: float) -> jax.Array:
        lower, upper = method(lambda x: images(x, precision))(x, eps)
        return jnp.sum(upper - lower)

    highest = (jax.lax.Precision.HIGHEST,) * 2
    with jax.default_matmul_precision("bfloat16"):
        traced = jax.make_jaxpr(jax.value_and_grad(loss))(x, 0.1)
    products = [
        eqn
        for eqn in equations(traced)
        if eqn.primitive.name in ("dot_general", "conv_general_dilated")
    ]
    assert len(products) > 3
    for eqn in products:
        precision_found = eqn.params["precision"]
        assert precision_found in (highest, highest[0]), eqn


@pytest.mark.few(3)
@every_method
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_the_precision_of_the_input_is_kept(method: Any, dtype: Any) -> None:
    params = jax.tree.map(lambda a: a.astype(dtype), PARAMS)
    x = X.astype(dtype)
    for ball in (LpBall(x, EPS), LpBall(x, np.float64(EPS), ord=2), Box(x - 1, x)):
        for leaf in method(network)(params, ball):
            assert leaf.dtype == dtype
    if method is not METHODS["ibp"]:
        found = method(network, linear=True)(params, LpBall(x, EPS))
        assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(dtype)}


@every_method
def test_without_double_precision(method: Any) -> None:
    """JAX's default, in which even NumPy's doubles become float32."""
    with jax.enable_x64(False):
        params = jax.tree.map(lambda a: np.asarray(a, np.float32), PARAMS)
        found = method(network)(params, np.asarray(X), np.float64(EPS))
        assert {leaf.dtype for leaf in found} == {jnp.dtype(jnp.float32)}
        lower, upper = method(lambda x: 2 * x)(1.0, 0.5)
        assert (float(lower), float(upper)) == (1, 3)
    expected = method(network)(PARAMS, X, EPS)
    same([np.float64(x) for x in found], [np.float64(x) for x in expected], 1e-4)


@every_method
def test_widening_is_exact(method: Any) -> None:
    """From float32 to float64 within the function."""
    x = X.astype(jnp.float32)
    lower, upper = method(lambda x: jax.nn.relu(x.astype(jnp.float64)) * 2)(x, 0.25)
    assert lower.dtype == upper.dtype == jnp.float64
    same((lower, upper), (2 * jax.nn.relu(X - 0.25), 2 * jax.nn.relu(X + 0.25)))


# ---- flax ----------------------------------------------------------------------------------


class LinenModel(linen.Module):
    """A convolutional network with what has a mode of its own in training."""

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        x = linen.Conv(3, (3, 3))(x)
        x = linen.relu(linen.BatchNorm(use_running_average=not train)(x))
        x = linen.avg_pool(x, (2, 2), (2, 2))
        x = linen.Dropout(0.5, deterministic=not train)(x)
        return linen.Dense(2)(linen.leaky_relu(x).reshape(len(x), -1))


class NnxModel(nnx.Module):
    """The same with nnx."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.conv = nnx.Conv(2, 3, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(3, use_running_average=True, rngs=rngs)
        self.drop = nnx.Dropout(0.5, deterministic=True, rngs=rngs)
        self.dense = nnx.Linear(12, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.conv(x)))
        x = self.drop(nnx.avg_pool(x, (2, 2), (2, 2)))
        return self.dense(nnx.leaky_relu(x).reshape(len(x), -1))


BATCH = jnp.asarray(RANDOM.normal(size=(2, 4, 4, 2)))


def check_model(method: Any, fn: Callable[..., jax.Array], params: Any) -> None:
    """Sound on samples, equal with and without in_axes, and differentiable in the weights."""
    bound = jax.jit(method(fn, in_axes=(None, 0)))
    lower, upper = bound(params, BATCH, 0.1)
    same(jax.jit(method(fn))(params, BATCH, 0.1), Bounds(lower, upper), 1e-9)
    for step in RANDOM.uniform(-0.1, 0.1, (20, *BATCH.shape)):
        value = fn(params, BATCH + step)
        assert np.all((lower <= value) & (value <= upper))

    def loss(params: Any) -> jax.Array:
        return jnp.sum(bound(params, BATCH, 0.1).upper)

    for gradient in jax.tree.leaves(jax.grad(loss)(params)):
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient != 0)


@pytest.mark.slow
@pytest.mark.parametrize("method", [pytest.param(jaxlirpa.ibp, marks=slow), jaxlirpa.crown_ibp])
def test_linen(method: Any) -> None:
    model = LinenModel()
    variables = model.init(jax.random.key(0), BATCH)
    params, state = variables["params"], {"batch_stats": variables["batch_stats"]}
    state = jax.tree.map(lambda a: a + 0.3, state)
    check_model(method, lambda p, x: model.apply({"params": p, **state}, x), params)
    same(
        method(model.apply)({"params": params, **state}, BATCH, 0.1),
        method(lambda x: model.apply({"params": params, **state}, x))(BATCH, 0.1),
    )


@pytest.mark.parametrize("method", [jaxlirpa.ibp, pytest.param(jaxlirpa.crown_ibp, marks=slow)])
def test_nnx(method: Any) -> None:
    graph, params, rest = nnx.split(NnxModel(nnx.Rngs(0)), nnx.Param, ...)
    check_model(method, lambda p, x: nnx.merge(graph, p, rest, copy=True)(x), params)


def test_one_side_costs_one() -> None:
    """Who only uses lower bounds computes the last pass for those alone."""
    weights = [jnp.asarray(RANDOM.normal(size=(32, 32))) for _ in range(3)]

    def fn(x: jax.Array) -> jax.Array:
        for weight in weights:
            x = jax.nn.relu(x @ weight)
        return x

    def cost(last: Callable[[Bounds], Any]) -> float:
        bounded = jax.jit(lambda x: last(jaxlirpa.crown_ibp(fn)(x, 0.1)))
        return bounded.lower(jnp.ones(32)).compile().cost_analysis()["flops"]

    both, lower, upper = (cost(f) for f in (lambda b: b, lambda b: b.lower, lambda b: b.upper))
    assert max(lower, upper) < 0.8 * both


def test_logging_tells_what_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    def network(x: jax.Array) -> jax.Array:
        return jnp.tanh(jnp.tanh(jnp.ones((3, 2)) @ x) @ jnp.ones((3, 4)))

    with caplog.at_level("DEBUG", "jaxlirpa"):
        jax.eval_shape(jaxlirpa.crown(network), jnp.ones(2), 0.1)
    told, *passes = caplog.messages
    assert told.startswith("network: 5 values, 2 of them by nonlinear functions")
    assert len(passes) == 1 and passes[0].startswith("4 rows of")
