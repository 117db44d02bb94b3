"""Bounds inside a network: their names, and what they are worth when they are handed back."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import pytest
from flax import linen, nnx
from jax.ad_checkpoint import checkpoint_name
from jax.test_util import check_grads
from oracles import sample

import jaxlirpa
from jaxlirpa import Bounds, LpBall
from jaxlirpa._methods import relaxed_graph
from jaxlirpa._methods.arguments import arguments
from jaxlirpa._methods.intermediate_boxes import intermediate_boxes
from jaxlirpa._methods.layerwise import Layerwise, _Layers
from jaxlirpa._methods.problem import problem_of

slow = pytest.mark.slow
Function = Callable[[jax.Array], Any]

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=4))
EPS = 0.2


def matrix(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape) / np.sqrt(shape[0]))


W = [matrix(4, 40), matrix(40, 6), matrix(6, 6), matrix(6, 3)]
KERNELS = [matrix(3, 3, 1, 3), matrix(3, 3, 3, 3)]
IMAGE = jnp.asarray(RNG.normal(size=(1, 8, 8, 1)))


def mlp(x: jax.Array) -> jax.Array:
    for w in W[:2]:
        x = jax.nn.relu(x @ w)
    return jnp.tanh(x @ W[2]) @ W[3]


def residual(x: jax.Array) -> jax.Array:
    hidden = jax.nn.relu(x @ W[0]) @ W[1]
    hidden = checkpoint_name(hidden, "stream") + jnp.maximum(hidden @ W[2], hidden)
    return jax.nn.gelu(hidden) @ W[3]


def attention(x: jax.Array) -> jax.Array:
    rows = x.reshape(2, 2)
    scores = jax.nn.softmax(rows @ rows.T)
    return jax.nn.relu(scores @ rows)


def scan(x: jax.Array) -> jax.Array:
    def cell(carry: jax.Array, w: jax.Array) -> tuple[jax.Array, jax.Array]:
        carry = checkpoint_name(jnp.tanh(carry @ w), "carry")
        return carry, carry.sum()

    last, sums = jax.lax.scan(cell, x @ W[0] @ W[1], jnp.stack([W[2], -W[2], 2 * W[2]]))
    return jnp.sin(last) @ W[3] + sums[0]


def images(x: jax.Array) -> jax.Array:
    for kernel in KERNELS:
        dims = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dims)
        x = jax.nn.relu(x)
    return jnp.sum(jax.nn.sigmoid(x), (1, 2))


CASES: dict[str, tuple[Function, jax.Array]] = {
    "mlp": (mlp, X),
    "residual": (residual, X),
    "attention": (attention, X),
    "scan": (scan, X),
    "images": (images, IMAGE),
}
every_case = pytest.mark.parametrize(("fn", "x"), CASES.values(), ids=CASES)


def same(a: Any, b: Any, tolerance: float = 1e-11) -> None:
    """Asserts that two pytrees are equal up to rounding."""
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance), a, b
    )


@functools.cache
def saved(name: str, eps: float = EPS) -> jaxlirpa.IntermediateBounds:
    fn, x = CASES[name]
    return arithmetic.jit(lirpa.intermediate_bounds(fn))(x, eps)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, ...]]]:
    """The shapes of the inner values that are bounded by dense rows of their own."""
    found: list[tuple[int, ...]] = []
    plain = _Layers._by_rows

    def noted(self: _Layers, before: Any, ref: Any, box: Any) -> Any:
        found.append(box.lower.shape)
        return plain(self, before, ref, box)

    monkeypatch.setattr(_Layers, "_by_rows", noted)
    return found


# ---- what is returned ----------------------------------------------------------------------


@pytest.mark.few(2)
@every_case
def test_every_box_holds_what_it_names(fn: Function, x: jax.Array, request: Any) -> None:
    """All values of the graph, at members of the set, by name."""
    ball = LpBall(x, EPS)
    bounds = saved(request.node.callspec.id)
    call = arguments(fn, (ball,), None)
    graph = problem_of(fn, call)[0].graph
    refs = {name: graph.names.find(name) for name in bounds}
    assert len(refs) >= 3
    graph = graph.returning(refs.values())

    @jax.jit
    @jax.vmap
    def values(x: jax.Array) -> list[jax.Array]:
        found = graph.evaluate([x])
        return [found[ref] for ref in refs.values()]

    for name, found in zip(refs, values(sample(ball, 0, 60)), strict=True):
        lower, upper = bounds[name]
        assert lower.shape == found.shape[1:]
        assert np.all((lower - 1e-12 <= found) & (found <= upper + 1e-12)), name


@slow
@every_case
def test_the_boxes_are_those_of_crown(fn: Function, x: jax.Array, request: Any) -> None:
    """All on which it relaxes, but for inputs."""
    call = arguments(fn, (LpBall(x, EPS),), None)
    problem, _ = problem_of(fn, call)
    graph, inside = problem.graph, intermediate_boxes(problem, Layerwise())
    bounds = saved(request.node.callspec.id)
    by_ref = {graph.names.find(name): box for name, box in bounds.items()}
    expected = {r: b for r, b in inside.tight.items() if r not in graph.inputs}
    assert expected.keys() <= by_ref.keys()
    for ref, box in expected.items():
        same(tuple(by_ref[ref]), tuple(box))


def test_marked_values_are_bounded_as_an_output_is() -> None:
    """Every entry, though no nonlinear function reads them."""

    def fn(x: jax.Array) -> jax.Array:
        hidden = checkpoint_name(jax.nn.relu(x @ W[0]) @ W[0].T, "mark")
        return hidden @ W[0] @ W[1]

    wide = arithmetic.jit(lirpa.intermediate_bounds(fn, rows_per_chunk=2))(X, EPS)["mark"]
    same(wide, lirpa.crown(lambda x: jax.nn.relu(x @ W[0]) @ W[0].T)(X, EPS))
    ibp = lirpa.intermediate_bounds(fn, intermediate=lirpa.ibp)(X, EPS)["mark"]
    assert np.all((ibp.lower <= wide.lower) & (wide.upper <= ibp.upper))
    assert np.sum(ibp.upper - ibp.lower) > 1.1 * np.sum(wide.upper - wide.lower)


def test_marks_of_inputs_masks_and_outputs() -> None:
    def fn(x: jax.Array) -> jax.Array:
        mask = checkpoint_name(checkpoint_name(x, "in") > 0, "mask")
        checkpoint_name(jnp.sin(x), "unused")
        return checkpoint_name(jnp.where(mask, x, 0), "out")

    x = jnp.array([1.0, -1.0, 0.0])
    bounds = lirpa.intermediate_bounds(fn)(x, 0.5)
    same(bounds["in"], Bounds(jnp.array([0.5, -1.5, -0.5]), jnp.array([1.5, -0.5, 0.5])))
    same(bounds["mask"], Bounds(np.array([1, 0, 0], bool), np.array([1, 0, 1], bool)))
    same(bounds["out"], Bounds(jnp.array([0.5, 0, 0]), jnp.array([1.5, 0, 0.5])))
    assert "unused" in bounds
    same(*(lirpa.crown(fn, intermediate=given)(x, 0.5) for given in (bounds, None)))


def test_nothing_to_be_named() -> None:
    assert lirpa.intermediate_bounds(lambda x: x @ W[0])(X, EPS) == {}
    assert lirpa.intermediate_bounds(lambda x: jnp.ones(3))(X, EPS) == {}
    same(*(lirpa.crown(mlp, intermediate=given)(X, EPS) for given in ({}, None)))


@pytest.mark.parametrize(
    ("before", "stride"),
    [(jax.nn.relu, 2), (lambda x: x, 3)],  # with 3, every third entry is in no window
    ids=["relu", "direct"],
)
def test_max_pooling_is_what_it_reads_and_returns(
    before: Function, stride: int, passes: list[Any]
) -> None:
    """The slices in between are not reported, and handed back they follow from what is."""

    def features(x: jax.Array) -> jax.Array:
        with jax.named_scope("features"):
            return jax.nn.relu(x @ W[0]) @ W[1]

    def pooled(x: jax.Array) -> jax.Array:
        hidden = before(features(x)).reshape(1, 6, 1)
        with jax.named_scope("pool"):
            return linen.max_pool(hidden, (2,), (stride,)).ravel()

    def fn(x: jax.Array) -> jax.Array:
        return jnp.tanh(pooled(x) - 1) @ W[2][: 6 // stride]

    bounds = lirpa.intermediate_bounds(fn)(X, EPS)
    assert not any("slice" in name or "/pad" in name for name in bounds)
    assert "features/dot_general:1" in bounds
    of_result = jax.tree.map(jnp.ravel, bounds["pool/reduce_window_max"])
    same(of_result, lirpa.crown(pooled)(X, EPS))
    expected = lirpa.crown(fn)(X, EPS)
    passes.clear()
    same(lirpa.crown(fn, intermediate=bounds)(X, EPS), expected)
    assert not passes


# ---- names ---------------------------------------------------------------------------------


def names(fn: Callable[..., Any], *args: Any) -> list[str]:
    return list(jaxlirpa.intermediate_bounds(fn, intermediate=jaxlirpa.ibp)(*args))


@pytest.mark.slow
def test_names_of_scopes() -> None:
    """Combined through calls and loops, whatever is around the call of the transform."""

    @jax.jit
    def block(x: jax.Array) -> jax.Array:
        with jax.named_scope("inner"):
            return jax.nn.relu(x @ W[2])

    def fn(x: jax.Array) -> jax.Array:
        x = x @ W[0] @ W[1]
        with jax.named_scope("outer"):
            x = jax.checkpoint(block)(block(x))
            x = jax.lax.fori_loop(0, 2, lambda i, x: jnp.tanh(block(x)), x)
        with jax.named_scope("head"), jax.named_scope("logits"):
            return jnp.exp(x * 2)

    expected = ["outer/inner/dot_general", *(f"outer/inner/dot_general:{k}" for k in (1, 2))]
    expected.insert(3, "outer/inner/dot_general:3")
    found = names(fn, X, EPS)
    assert [name for name in found if "inner" in name and "dot" in name] == expected
    assert found[-1] == "head/logits/mul"
    assert names(jax.jit(fn), X, EPS) == found
    with jax.named_scope("elsewhere"):
        assert names(fn, X, EPS) == found
    assert sorted(arithmetic.jit(lirpa.intermediate_bounds(fn))(X, EPS)) == sorted(found)
    mapped = jax.vmap(lirpa.intermediate_bounds(fn), (0, None))(X[None], EPS)
    assert sorted(mapped) == sorted(found)


class Linen(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for _ in range(2):
            x = linen.relu(linen.Dense(5)(x))
        return linen.silu(linen.Dense(2, name="head", use_bias=False)(x))


class Nnx(nnx.Module):
    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(4, 5, rngs=rngs)
        self.second = nnx.Linear(5, 2, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.first(x))
        return nnx.relu(self.second(x))


def test_names_of_linen_modules() -> None:
    model = Linen()
    params = model.init(jax.random.key(0), X)
    expected = ["Linen/Dense_0/add", "Linen/Dense_1/add", "Linen/head/dot_general"]
    assert names(model.apply, params, X, EPS) == expected
    bounds = lirpa.intermediate_bounds(model.apply)(params, X, EPS)
    found = lirpa.crown(model.apply, intermediate=bounds)(params, X, EPS)
    same(found, lirpa.crown(model.apply)(params, X, EPS))


def test_names_of_nnx_modules() -> None:
    """They leave no scope, but their call is the user's line."""
    graph, params, rest = nnx.split(Nnx(nnx.Rngs(0)), nnx.Param, ...)

    def fn(p: Any, x: jax.Array) -> jax.Array:
        return nnx.merge(graph, p, rest, copy=True)(x)

    line = Nnx.__call__.__code__.co_firstlineno + 1
    assert names(fn, params, X, EPS) == [f"Nnx.__call__:{n}/add" for n in (line, line + 1)]


def test_names_of_lines() -> None:
    """Without folders, of the innermost line of the user's."""

    def helper(x: jax.Array) -> jax.Array:
        return jax.nn.relu(jax.nn.relu(x @ W[2]) @ W[2])

    def fn(x: jax.Array) -> jax.Array:
        return jnp.tanh(helper(x @ W[0] @ W[1]))

    line = helper.__code__.co_firstlineno + 1
    first, second, third = names(fn, X, EPS)
    assert (first, second) == (f"helper:{line}/dot_general", f"helper:{line}/dot_general:1")
    assert third.startswith(f"helper:{line}/")
    assert names(lambda x: jnp.exp(2 * x), X, EPS)[0].startswith("<lambda>:")
    assert names(jnp.exp, X, EPS) == []


def test_marks_are_unique_and_win() -> None:
    def fn(x: jax.Array) -> jax.Array:
        for w in (W[2], -W[2]):
            x = jax.nn.relu(checkpoint_name(x @ w, "hidden"))
        return jnp.sin(checkpoint_name(x + 1, "hidden:1"))

    assert names(fn, jnp.ones(6), EPS) == ["hidden", "hidden:1", "hidden:1:1"]
    assert names(fn, jnp.ones(6), EPS) == names(jax.jit(fn), jnp.ones(6), EPS)


def test_names_do_not_depend_on_what_else_is_computed() -> None:
    """Nor on what else reads a value, or computes the same: or boxes would be taken for others'."""

    def network(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        with jax.named_scope("net"):
            first = x @ W[0] @ W[1]
            second = jax.nn.relu(first @ W[2])
            return first, second

    def loss(x: jax.Array) -> jax.Array:
        _, second = network(x)
        return jnp.tanh(second @ W[3])

    def other(x: jax.Array) -> jax.Array:
        early = jnp.exp(x @ W[0] @ W[1])  # the same as in the network, which is one node
        first, second = network(x)
        return early + jax.nn.relu(first) * second

    bounds = lirpa.intermediate_bounds(loss)(X, EPS)
    (key,) = (name for name in bounds if name.startswith("net/"))
    same(lirpa.intermediate_bounds(other)(X, EPS)[key], bounds[key])
    same(*(lirpa.crown(other, intermediate=given)(X, EPS) for given in (bounds, None)))


# ---- what is handed back -------------------------------------------------------------------


@pytest.mark.few(2)
@every_case
def test_the_same_bounds_without_the_passes(
    fn: Function, x: jax.Array, request: Any, passes: list[Any]
) -> None:
    expected = arithmetic.jit(lirpa.crown(fn))(x, EPS)
    given = saved(request.node.callspec.id)
    passes.clear()
    again = jax.jit(lambda x, eps, b: lirpa.crown(fn, intermediate=b)(x, eps))
    same(again(x, EPS, given), expected)
    assert not passes


@pytest.mark.slow
def test_the_same_linear_bounds_and_those_of_alpha_crown() -> None:
    def fn(x: jax.Array) -> jax.Array:
        return jax.nn.relu(jax.nn.relu(x @ W[2]) @ W[2]) @ W[3]

    x = jnp.linspace(-1, 1, 6)
    given = lirpa.intermediate_bounds(fn)(x, EPS)
    for transform in (
        functools.partial(lirpa.crown, linear=True),
        functools.partial(lirpa.alpha_crown, steps=2),
    ):
        again = jax.jit(transform(fn, intermediate=given))
        same(again(x, EPS), jax.jit(transform(fn))(x, EPS), 1e-9)


def test_another_specification(passes: list[Any]) -> None:
    """A margin and a loss by the bounds of the network, and the other way round."""

    def margin(x: jax.Array) -> jax.Array:
        return mlp(x)[0] - mlp(x)[1:]

    def loss(x: jax.Array) -> jax.Array:
        return jax.nn.logsumexp(mlp(x)) - mlp(x)[0]

    expected = [lirpa.crown(fn)(X, EPS) for fn in (margin, loss)]
    whole = len(passes)
    of_network, of_loss = saved("mlp"), lirpa.intermediate_bounds(loss)(X, EPS)
    passes.clear()
    same(lirpa.crown(margin, intermediate=of_network)(X, EPS), expected[0])
    same(lirpa.crown(margin, intermediate=of_loss)(X, EPS), expected[0])
    assert not passes
    same(lirpa.crown(loss, intermediate=of_network)(X, EPS), expected[1])
    assert set(passes) <= {(3,), (2,)}
    assert whole > 2 * len(passes)


@pytest.mark.parametrize("eps", [0.0, 0.05, 0.15])
def test_a_smaller_radius(eps: float) -> None:
    """Sound, and between fresh bounds and those of the larger radius."""
    fresh = lirpa.crown(mlp)(X, eps)
    reused = lirpa.crown(mlp, intermediate=saved("mlp"))(X, eps)
    large = lirpa.crown(mlp)(X, EPS)
    for x in sample(LpBall(X, eps), 0, 50):
        assert np.all((reused.lower <= mlp(x) + 1e-12) & (mlp(x) <= reused.upper + 1e-12))
    widths = [np.sum(b.upper - b.lower) for b in (fresh, reused, large)]
    assert widths[0] <= widths[1] + 1e-12
    assert widths[1] < widths[2]


@pytest.mark.slow
def test_examples() -> None:
    """With in_axes all bounds have the examples in front, and are mapped when they are back."""
    batch = jnp.stack([X, -X, 0.5 * X])
    options = {"in_axes": (0,)}
    bounds = arithmetic.jit(lirpa.intermediate_bounds(mlp, **options))(batch, EPS)
    single = arithmetic.jit(lirpa.intermediate_bounds(mlp))
    for i, x in enumerate(batch):
        same(jax.tree.map(operator.itemgetter(i), bounds), single(x[None], EPS))
    expected = arithmetic.jit(lirpa.crown(mlp, **options))(batch, EPS)
    again = jax.jit(lambda x, b: lirpa.crown(mlp, intermediate=b, **options)(x, EPS))
    same(again(batch, bounds), expected)
    mapped = jax.jit(jax.vmap(lambda x, b: lirpa.crown(mlp, intermediate=b)(x, EPS)))
    per_row = jax.jit(jax.vmap(lirpa.intermediate_bounds(mlp), (0, None)))(batch, EPS)
    same(mapped(batch, per_row), expected)
    with pytest.raises(jaxlirpa.ArgumentError, match="3 examples"):
        lirpa.crown(mlp, intermediate=saved("mlp"), **options)(batch, EPS)


def test_bounds_of_the_users_own() -> None:
    """Beside a strategy for the others; and what promises nothing changes nothing."""
    ibp = lirpa.intermediate_bounds(mlp, intermediate=lirpa.ibp)(X, EPS)
    same(lirpa.crown(mlp, intermediate=ibp)(X, EPS), lirpa.crown_ibp(mlp)(X, EPS))
    name = list(ibp)[1]
    zeros = np.zeros(ibp[name].lower.shape)
    mine = lirpa.crown(mlp, intermediate=ibp | {name: (zeros, zeros)})(X, EPS)
    lower, upper = lirpa.crown_ibp(mlp)(X, EPS)
    assert np.sum(mine.upper - mine.lower) < np.sum(upper - lower)
    for limits in ((zeros - np.inf, zeros + np.inf), (zeros * np.nan,) * 2, (zeros + 1, zeros)):
        same(lirpa.crown(mlp, intermediate={**ibp, name: limits})(X, EPS), Bounds(lower, upper))


@pytest.mark.long
def test_derivatives() -> None:
    """Through bounds that are found and used in one function, and with respect to given ones."""

    def width(x: jax.Array, eps: Any, fresh: bool) -> jax.Array:
        inner = jax.checkpoint(lirpa.intermediate_bounds(residual))(x, eps)
        lower, upper = lirpa.crown(residual, intermediate=None if fresh else inner)(x, eps)
        return jnp.sum(upper - lower**2)

    found, expected = (
        jax.jit(jax.grad(functools.partial(width, fresh=fresh), (0, 1)))(X, EPS)
        for fresh in (False, True)
    )
    same(found, expected, 1e-8)

    def loss(bounds: dict[str, Bounds]) -> jax.Array:
        return jnp.sum(lirpa.crown(mlp, intermediate=bounds)(X, EPS + 0.1).upper ** 2)

    check_grads(jax.jit(loss), ({**saved("mlp")},), order=1, modes=["rev"], atol=1e-5, rtol=1e-5)


def test_a_wider_value_than_a_chunk() -> None:
    """In chunks, the entries that were left to intervals are so again."""
    options = {"rows_per_chunk": 8}
    bounds = lirpa.intermediate_bounds(mlp, **options)(X, EPS)
    found = lirpa.crown(mlp, intermediate=bounds, **options)(X, EPS)
    same(found, lirpa.crown(mlp, **options)(X, EPS))


# ---- errors --------------------------------------------------------------------------------


def test_what_does_not_fit_is_refused() -> None:
    given = saved("mlp")
    name, (lower, upper) = next(iter(given.items()))
    for limits, message in [
        ((lower[1:], upper[1:]), r"shape \(39,\).*shape \(40,\).*intermediate_bounds"),
        ((lower.astype(jnp.float32), upper), "float32.*float64"),
        (lower, "pair of limits"),
        ((lower, upper, upper), "pair of limits"),
    ]:
        with pytest.raises(jaxlirpa.ArgumentError, match=message) as error:
            lirpa.crown(mlp, intermediate={**given, name: limits})(X, EPS)
        assert repr(name) in str(error.value)
    with pytest.raises(jaxlirpa.ArgumentError, match=r"'nowhere'.*'mlp:\d+/dot_general'"):
        lirpa.crown(mlp, intermediate={"nowhere": (lower, upper)})(X, EPS)
    known = lirpa.crown(mlp, intermediate={**given, "nowhere": (lower, upper)})(X, EPS)
    same(known, lirpa.crown(mlp)(X, EPS))


def test_what_cannot_be_is_refused() -> None:
    """Bounds that were found around another point, where intervals prove that."""
    with pytest.raises(jaxlirpa.ArgumentError, match=r"'mlp:\d+/dot_general'.*cannot hold"):
        jaxlirpa.crown(mlp, intermediate={**saved("mlp")})(X + 10, EPS)


def test_what_is_no_strategy_is_refused() -> None:
    for transform in (jaxlirpa.crown, jaxlirpa.alpha_crown, jaxlirpa.intermediate_bounds):
        with pytest.raises(jaxlirpa.ArgumentError, match="must be a transform"):
            transform(mlp, intermediate="ibp")
    with pytest.raises(jaxlirpa.ArgumentError, match="no strategy"):
        jaxlirpa.crown(mlp, intermediate=jaxlirpa.intermediate_bounds)(X, EPS)


def test_functions_are_relaxed_on_given_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given boxes are those on which functions are relaxed."""
    seen: list[Any] = []
    relaxed = relaxed_graph._relaxed

    def noted(node: Any, boxes: Any) -> Any:
        seen.append(boxes[0])
        return relaxed(node, boxes)

    given = {k: Bounds(b.lower + 1e-3, b.upper - 1e-3) for k, b in saved("mlp").items()}
    monkeypatch.setattr(relaxed_graph, "_relaxed", noted)
    jaxlirpa.crown(mlp, intermediate=given)(X, EPS)
    for box, expected in zip(seen, given.values(), strict=True):
        same(tuple(box), tuple(expected))
