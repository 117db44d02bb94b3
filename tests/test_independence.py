"""Independent examples are found on the graph, and change nothing but what bounds cost."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import arithmetic
import flax.linen as nn
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import pytest
from marks import slowly
from networks.test_networks import LONGEST, NETWORKS, SIMILAR
from oracles import METHODS

from jaxlirpa import Box, LpBall
from jaxlirpa._graph.graph import Graph, Ref
from jaxlirpa._methods import problem
from jaxlirpa._methods.arguments import arguments
from jaxlirpa._methods.problem import problem_of

RANDOM = np.random.default_rng(5)
BATCH = 3
X = jnp.asarray(RANDOM.normal(size=(BATCH, 4, 5)))
W = jnp.asarray(RANDOM.normal(size=(5, 6)) / 2)
V = jnp.asarray(RANDOM.normal(size=(6, 3)) / 2)
KERNEL = jnp.asarray(RANDOM.normal(size=(3, 5, 2)) / 3)
LABELS = jnp.asarray([2, 0, 1])
Function = Callable[[jax.Array], jax.Array]


def traced(fn: Callable[..., jax.Array], x: jax.Array, *known: Any, eps: float = 0.1) -> Graph:
    """The graph of a function of something known and of a batch."""
    return problem_of(fn, arguments(fn, (*known, Box(x - eps, x + eps)), None))[0].graph


def check_independent(graph: Graph, x: jax.Array) -> None:
    """What one example becomes changes no value that is said to be of another."""
    other = x.at[0].set(jnp.asarray(RANDOM.normal(size=x.shape[1:])))
    before, after = (arithmetic.call(graph.evaluate, [one]) for one in (x, other))
    for ref, axis in graph.batch_axes.items():
        if ref not in before:
            continue
        assert graph.aval(ref).shape[axis] == len(x)
        kept = [np.delete(np.asarray(values[ref]), 0, axis) for values in (before, after)]
        np.testing.assert_array_equal(*kept, str(graph.nodes[ref.node].source))


def dense(x: jax.Array) -> jax.Array:
    """A batch of rows of vectors, to three numbers each."""
    return jax.nn.relu(jnp.tanh(x @ W) @ V)


# ---- what is found -------------------------------------------------------------------------

KEPT: dict[str, Function] = {
    "dense": dense,
    "vector": lambda x: x.reshape(BATCH, 20)[:, 3],
    "flattened": lambda x: x.reshape(BATCH, -1) @ jnp.ones((20, 2)),
    "einsum": lambda x: jnp.einsum("nij,jk->kni", x, W),
    "batched products": lambda x: jnp.einsum("nij,nkj->nik", x, X),
    "known times perturbed": lambda x: jnp.einsum("jk,nij->kin", W, x),
    "transposed": lambda x: jnp.tanh(x.transpose(2, 0, 1)).sum(0),
    "mean of others": lambda x: x - x.mean((1, 2), keepdims=True),
    "convolution": lambda x: jax.lax.conv_general_dilated(
        x, KERNEL, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    ),
    "images last": lambda x: jax.lax.conv_general_dilated(
        x, KERNEL, (1,), "SAME", dimension_numbers=("NWC", "WIO", "CWN")
    ),
    "max pooling": lambda x: nn.max_pool(x, (2,), (1,), "SAME"),
    "mean pooling": lambda x: nn.avg_pool(x, (2,), (2,)),
    "softmax": lambda x: jax.nn.softmax(x, 1),
    "cross entropy": lambda x: jax.nn.logsumexp(dense(x)[:, 0], 1) - dense(x)[:, 0, 1],
    "attention": lambda x: jax.nn.softmax(jnp.einsum("nij,nkj->nik", x, x)) @ x,
    "joined": lambda x: jnp.concatenate([x, jnp.ones((BATCH, 1, 5)), -x], 1),
    "stacked": lambda x: jnp.stack([x, 2 * x]).sum(0),
    "split": lambda x: jnp.split(x, [1], 1)[1],
    "padded": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 0))),
    "turned": lambda x: x[:, ::-1],
    "repeated": lambda x: jnp.tile(x, (1, 2, 1)),
    "running sum": lambda x: jnp.cumsum(x, 2),
    "sorted": lambda x: jnp.sort(x, 1),
    "chosen": lambda x: jnp.where(x > 0, x, X),
    "one of each": lambda x: x[jnp.arange(BATCH), LABELS],
    "one along an axis": lambda x: jnp.take_along_axis(x[:, 0], LABELS[:, None], 1),
    "a column": lambda x: x[:, :, jnp.asarray([3, 0])],
    "one moved": lambda x: x.at[:, 1].set(2 * x[:, 2]),
    "one added": lambda x: x.at[:, 1].add(x[:, 2]),
    "known ones written": lambda x: x.at[1].set(0.5),
    "a slice": lambda x: jax.lax.dynamic_slice(x, (0, 1, 0), (BATCH, 2, 5)),
    "derivative": jax.grad(lambda x: jnp.sum(jnp.tanh(x @ W) @ V)),
    "mapped": jax.vmap(lambda x: jnp.tanh(x @ W).sum(0)),
}
MIXED: dict[str, Function] = {
    "sum": lambda x: x.sum(0),
    "mean": lambda x: jnp.mean(dense(x)),
    "batch statistics": lambda x: (x - x.mean(0)) / jnp.sqrt(x.var(0) + 1e-3),
    "attention over the batch": lambda x: jax.nn.softmax(x[:, 0] @ x[:, 0].T) @ x[:, 0],
    "products over the batch": lambda x: jnp.einsum("nij,nk->ijk", x, X[:, 0]),
    "a matrix of all": lambda x: jnp.tensordot(jnp.ones((2, BATCH, 4, 5)), x, 3),
    "running sum": lambda x: jnp.cumsum(x, 0),
    "softmax over the batch": lambda x: jax.nn.softmax(x, 0),
    "largest of the batch": lambda x: x.max(0),
    "turned": lambda x: x[::-1] + x,
    "shifted": lambda x: jnp.roll(x, 1, 0) - x,
    "flattened": lambda x: jnp.tanh(x.reshape(-1)),
    "as long as the batch": lambda x: jnp.tanh(x.reshape(4, BATCH, -1)),
    "flattened, and back": lambda x: jnp.roll(x.reshape(-1), 5).reshape(x.shape) + x,
    "joined": lambda x: jnp.concatenate([x, 2 * x]),
    "the first two": lambda x: x[:2],
    "in another order": lambda x: x[jnp.asarray([1, 0, 2])] - x,
    "windows over the batch": lambda x: nn.avg_pool(x.transpose(1, 0, 2), (2,), (1,), "SAME"),
    "windows that are shifted": lambda x: jax.lax.reduce_window(
        x, 0.0, jax.lax.add, (1, 2, 1), (1, 1, 1), ((1, -1), (0, 0), (0, 0))
    ),
    "taken as channels": lambda x: jax.lax.conv_general_dilated(
        x, jnp.ones((2, 3, 4)), (1,), "SAME", dimension_numbers=("CNW", "WIO", "NWC")
    ),
    "one to another": lambda x: x.at[1].add(x[0]),
    "matrix of pairs": lambda x: x[:, None, 0] - x[None, :, 0],
}


@pytest.mark.parametrize("fn", KEPT.values(), ids=KEPT)
def test_independent_examples_are_found(fn: Function) -> None:
    graph = traced(fn, X)
    assert set(graph.targets) <= set(graph.batch_axes)
    if fn is not KEPT["sorted"]:
        check_independent(graph, X)


@pytest.mark.parametrize("fn", MIXED.values(), ids=MIXED)
def test_examples_that_interact_are_kept_together(fn: Function) -> None:
    graph = traced(fn, X)
    assert not set(graph.targets) & set(graph.batch_axes)
    assert set(graph.inputs) <= set(graph.batch_axes)
    check_independent(graph, X)


@pytest.mark.few(10)
@pytest.mark.parametrize("name", slowly(NETWORKS, *LONGEST, long=SIMILAR))
def test_every_network_keeps_examples_apart(name: str) -> None:
    network = NETWORKS[name]()
    x = jnp.asarray(RANDOM.normal(size=(BATCH, *network.shape[1:])))
    graph = traced(network.fn, x, network.params, eps=network.eps)
    live = {Ref(i, k) for i in graph.live() for k in range(len(graph.nodes[i].outputs))}
    assert live <= set(graph.batch_axes)
    check_independent(graph, x)


def test_what_has_no_common_batch_is_one_vector() -> None:
    def fn(x: jax.Array, y: jax.Array) -> jax.Array:
        return x * y

    for x, y in ((jnp.ones((3, 1)), jnp.ones((1, 3))), (jnp.ones(()), X), (X[:1], X[:1])):
        call = arguments(fn, (Box(x, x), Box(y, y)), None)
        assert not problem_of(fn, call)[0].graph.batch_axes


# ---- what it changes -----------------------------------------------------------------------


def joint(monkeypatch: pytest.MonkeyPatch, bound: Callable[[], Any]) -> Any:
    """A result without anything known to be independent."""
    with monkeypatch.context() as patched:
        patched.setattr(problem, "proved_batch_axes", lambda graph, sets: {})
        return bound()


def close(a: Any, b: Any) -> None:
    """Two results are equal up to rounding."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9), a, b)


def small(x: jax.Array) -> jax.Array:
    """Every kind of node, in few entries."""
    h = jnp.tanh(x[:, :2, :3] @ W[:3, :3]).reshape(BATCH, 6)
    h = jax.nn.softmax(jax.nn.relu(h @ V) - 0.1 * h[:, :3] * h[:, 3:])
    return h - jax.nn.logsumexp(h, 1, keepdims=True)


def loss(x: jax.Array) -> jax.Array:
    """Examples are kept apart up to the last nodes."""
    return jnp.mean(jnp.square(small(x) - small(x).mean(0)))


MORE = {
    **METHODS,
    "chunks": functools.partial(lirpa.crown, rows_per_chunk=2),
    "alpha": functools.partial(lirpa.alpha_crown, steps=3, optimize_intermediate=True),
}
SETS = {
    "box": Box(X - 0.1, X + jnp.abs(X)),
    "ball": LpBall(X, 0.2),
    "2-ball": LpBall(X, 0.5, ord=2),
    "2-balls": LpBall(X, 0.5, ord=2, axis=(0, 2)),
    "1-balls": LpBall(X, jnp.arange(3.0).reshape(3, 1, 1), ord=1, axis=-1),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("fn", [small, loss])
@pytest.mark.parametrize("name", slowly(MORE, "forward_backward", "chunks", long=["alpha"]))
def test_bounds_are_those_of_a_joint_call(
    name: str, fn: Function, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = functools.partial(MORE[name](fn), SETS["ball"])
    close(bound(), joint(monkeypatch, bound))


@pytest.mark.few(5)
@pytest.mark.parametrize("perturbed", SETS.values(), ids=SETS)
@pytest.mark.parametrize("name", ["ibp", "crown_ibp", "forward_crown"])
def test_every_set_is_seen_from_one_example(
    name: str, perturbed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bound = functools.partial(METHODS[name](small), perturbed)
    close(bound(), joint(monkeypatch, bound))


@pytest.mark.parametrize(
    "fn",
    [
        pytest.param(fn, id=name, marks=pytest.mark.long if number % 6 else pytest.mark.slow)
        for number, (name, fn) in enumerate([*KEPT.items(), *MIXED.items()])
    ],
)
def test_bounds_of_single_operations(fn: Function, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = functools.partial(lirpa.crown_ibp(fn), X, 0.3)
    close(bound(), joint(monkeypatch, bound))


@pytest.mark.long
@pytest.mark.parametrize("fn", [*KEPT.values(), *MIXED.values()], ids=[*KEPT, *MIXED])
def test_forms_of_single_operations(fn: Function, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = functools.partial(lirpa.forward_crown(fn), X, 0.3)
    close(bound(), joint(monkeypatch, bound))


@pytest.mark.parametrize("name", ["forward_crown", "crown"])
def test_coefficients_are_those_on_all_examples(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = functools.partial(METHODS[name](small, linear=True), SETS["2-ball"])
    close(bound(), joint(monkeypatch, bound))


def test_saved_bounds_serve_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = functools.partial(lirpa.intermediate_bounds(small), X, 0.2)
    saved = bound()
    close(saved, joint(monkeypatch, bound))
    close(lirpa.crown(small, intermediate=saved)(X, 0.2), lirpa.crown(small)(X, 0.2))


@pytest.mark.long
def test_derivatives_and_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    def width(eps: jax.Array) -> jax.Array:
        lower, upper = lirpa.crown(small, rows_per_chunk=2)(X, eps)
        return jnp.sum(upper - lower)

    bound = functools.partial(jax.vmap(jax.value_and_grad(width)), jnp.asarray([0.1, 0.3]))
    close(bound(), joint(monkeypatch, bound))


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["forward_crown", "crown_ibp", "crown"])
def test_the_cost_is_that_of_the_examples(name: str) -> None:
    def operations(count: int) -> float:
        x = jnp.ones((count, 30))
        first, second = jnp.ones((30, 40)), jnp.ones((40, 10))
        bound = jax.jit(METHODS[name](lambda x: jnp.tanh(jnp.tanh(x @ first) @ second)))
        return bound.lower(x, 0.1).compile().cost_analysis()["flops"]

    assert operations(64) < 10 * operations(8)
