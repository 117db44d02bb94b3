"""Loops and branches: the graph is that of the same function written out by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax
from oracles import METHODS, check_every_node

import jaxlirpa
from jaxlirpa import ControlFlowError, EffectError
from jaxlirpa._graph import control
from jaxlirpa._graph.graph import Graph, Ref
from jaxlirpa._graph.trace import trace
from jaxlirpa._ops.named import VOCABULARY
from jaxlirpa._ops.rules import RULES

RANDOM = np.random.default_rng(0)
X = jnp.array([1.0, -2.0, 0.5])
XS = jnp.asarray(RANDOM.normal(size=(3, 3)))
LAYERS = jnp.asarray(RANDOM.normal(size=(3, 3, 3)) / 2)
LIMIT = jnp.sum(jnp.abs(LAYERS[0]))
EPS = 0.1


def traced(fn: Callable[..., Any], *arguments: jax.Array) -> Graph:
    """The graph of a function all of whose arguments are perturbed."""
    avals = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arguments]
    return trace(fn, avals, VOCABULARY)[0]


def listing(graph: Graph) -> tuple[list[Any], list[Any]]:
    """A graph read from its outputs, whatever the order of its nodes: its structure, and the
    known values in it."""
    numbers: dict[int, int] = {}
    lines: list[Any] = []
    known: list[Any] = []

    def name(value: Any) -> Any:
        if not isinstance(value, Ref):
            known.append(value)
            return jnp.shape(value), jnp.result_type(value)
        if value.node not in numbers:
            node = graph.nodes[value.node]
            operands = [name(x) for x in node.operands]
            numbers[value.node] = len(lines)
            lines.append((node.primitive, operands, dict(node.params), [*map(str, node.outputs)]))
        return numbers[value.node], value.output

    return [[name(x) for x in graph.outputs], lines], known


def same(a: Any, b: Any) -> None:
    """Asserts that two pytrees are equal up to rounding."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, 1e-12, 1e-12)


def same_graph(fn: Callable[..., Any], by_hand: Callable[..., Any], *arguments: jax.Array) -> None:
    """Asserts that two functions have the same graph."""
    lines, known = listing(traced(fn, *arguments))
    expected_lines, expected_known = listing(traced(by_hand, *arguments))
    assert lines == expected_lines
    same(known, expected_known)


# ---- loops ---------------------------------------------------------------------------------


def pieces(x: jax.Array) -> list[jax.Array]:
    """The entries of a sequence."""
    return [lax.squeeze(p, (0,)) for p in lax.split(x, (1,) * len(x))]


def stack(parts: list[jax.Array]) -> jax.Array:
    """Entries as a sequence."""
    return lax.concatenate([lax.expand_dims(p, (0,)) for p in parts], 0)


def layers(x: jax.Array) -> Any:
    return lax.scan(lambda c, w: (jnp.tanh(w @ c), jax.nn.relu(c)), x, LAYERS)


def layers_by_hand(x: jax.Array) -> Any:
    written = []
    for w in LAYERS:
        written.append(jax.nn.relu(x))
        x = jnp.tanh(w @ x)
    return x, stack(written)


def recurrent(xs: jax.Array) -> Any:
    def body(carry: Any, x: Any) -> Any:
        count, hidden, _ = carry
        hidden = jnp.tanh(LAYERS[0] @ hidden + x["x"] + count * x["w"][0])
        return (count + 1, hidden, None), (2 * hidden, None, count, {"x": -x["x"]})

    return lax.scan(body, (0, jnp.zeros(3), None), {"x": xs, "w": LAYERS}, reverse=True)


def recurrent_by_hand(xs: jax.Array) -> Any:
    hidden, written, steps = jnp.zeros(3), [], pieces(xs)
    for count, t in enumerate((2, 1, 0)):
        hidden = jnp.tanh(LAYERS[0] @ hidden + steps[t] + count * LAYERS[t, 0])
        written.append((2 * hidden, jnp.asarray(count), -steps[t]))
    ys, counts, negative = (stack(list(parts)[::-1]) for parts in zip(*written, strict=True))
    return (3, hidden, None), (ys, None, counts, {"x": negative})


def length(count: int, x: jax.Array) -> Any:
    return lax.scan(lambda c, _: (c / 2, jax.nn.relu(c)), x, None, length=count)


def repeated(count: Any, x: jax.Array) -> jax.Array:
    return lax.fori_loop(0, count, lambda i, c: jnp.tanh(LAYERS[i] @ c) + i, x)


def repeated_by_hand(count: int, x: jax.Array) -> jax.Array:
    for i in range(count):
        x = jnp.tanh(LAYERS[i] @ x) + i
    return x


def doubled(x: jax.Array) -> Any:
    """The condition reads a known carry and a constant, not the perturbed carry."""

    def body(carry: Any) -> Any:
        scale, known, c = carry
        return 2 * scale, known + scale, c - scale * x

    return lax.while_loop(lambda carry: carry[0] < LIMIT, body, (LIMIT / 5, LAYERS[1], x))


def doubled_by_hand(x: jax.Array) -> Any:
    scale, known, c = LIMIT / 5, LAYERS[1], x
    for _ in range(3):
        scale, known, c = 2 * scale, known + scale, c - scale * x
    return scale, known, c


def nested(xs: jax.Array) -> Any:
    def row(carry: jax.Array, x: jax.Array) -> Any:
        inner, _ = lax.scan(lambda c, w: (jax.nn.relu(w @ c), None), x, LAYERS[:2])
        return lax.fori_loop(0, 2, lambda i, c: c + inner * (i + 1), carry), inner

    return lax.scan(row, jnp.ones(3), xs)


def nested_by_hand(xs: jax.Array) -> Any:
    carry, written = jnp.ones(3), []
    for x in pieces(xs):
        inner = jax.nn.relu(LAYERS[1] @ jax.nn.relu(LAYERS[0] @ x))
        written.append(inner)
        carry = carry + inner * 1.0
        carry = carry + inner * 2.0
    return carry, stack(written)


def alternating(x: jax.Array) -> jax.Array:
    """A loop whose counter picks the branch."""
    branches = [jnp.tanh, lambda c: 2 * c, jax.nn.relu]
    return lax.fori_loop(0, 5, lambda i, c: lax.switch(i % 3, branches, c), x)


def alternating_by_hand(x: jax.Array) -> jax.Array:
    return 2 * jnp.tanh(jax.nn.relu(2 * jnp.tanh(x)))


def skipping(x: jax.Array) -> jax.Array:
    """A branch in a loop that is known trip by trip, from a known sequence."""

    def body(c: jax.Array, flag: jax.Array) -> Any:
        return lax.cond(flag, lambda: jnp.tanh(c), lambda: c), None

    return lax.scan(body, x, jnp.array([True, False, True]))[0]


LOOPS: dict[str, tuple[Callable[..., Any], Callable[..., Any], jax.Array]] = {
    "layers": (layers, layers_by_hand, X),
    "recurrent": (recurrent, recurrent_by_hand, XS),
    "no trip": (
        functools.partial(length, 0),
        lambda x: (x, jnp.zeros((0, 3))),
        X,
    ),
    "one trip": (
        functools.partial(length, 1),
        lambda x: (x / 2, stack([jax.nn.relu(x)])),
        X,
    ),
    "no sequence": (
        functools.partial(length, 2),
        lambda x: ((y := x / 2) / 2, stack([jax.nn.relu(x), jax.nn.relu(y)])),
        X,
    ),
    "no entry of a sequence": (
        lambda xs: lax.scan(lambda c, x: (c + x, -x), jnp.ones(3), xs[:0]),
        lambda xs: (jnp.ones(3), jnp.zeros((0, 3))),
        XS,
    ),
    "fixed fori_loop": (
        functools.partial(repeated, 3),
        functools.partial(repeated_by_hand, 3),
        X,
    ),
    "fori_loop": (
        functools.partial(repeated, jnp.asarray(3)),
        functools.partial(repeated_by_hand, 3),
        X,
    ),
    "fori_loop of no trips": (functools.partial(repeated, jnp.asarray(0)), lambda x: x, X),
    "while_loop": (doubled, doubled_by_hand, X),
    "nested": (nested, nested_by_hand, XS),
    "alternating": (alternating, alternating_by_hand, X),
    "skipping": (skipping, lambda x: jnp.tanh(jnp.tanh(x)), X),
    "map": (
        lambda xs: lax.map(lambda x: jnp.tanh(LAYERS[0] @ x), xs),
        lambda xs: stack([jnp.tanh(LAYERS[0] @ x) for x in pieces(xs)]),
        XS,
    ),
    "vmap": (
        jax.vmap(lambda x: lax.scan(lambda c, w: (jnp.tanh(c @ w), None), x, LAYERS)[0]),
        lambda x: functools.reduce(lambda c, w: jnp.tanh(c @ w), LAYERS, x),
        XS,
    ),
    "jit": (jax.jit(jax.jit(layers)), layers_by_hand, X),
    "checkpoint": (jax.checkpoint(layers), layers_by_hand, X),
    "checkpoint of the body": (
        lambda x: lax.scan(jax.checkpoint(lambda c, w: (jnp.tanh(w @ c), None)), x, LAYERS)[0],
        lambda x: layers_by_hand(x)[0],
        X,
    ),
}


@pytest.mark.parametrize("case", LOOPS.values(), ids=LOOPS)
def test_a_loop_is_written_out(case: Any) -> None:
    same_graph(*case)


@pytest.mark.parametrize("case", LOOPS.values(), ids=LOOPS)
def test_a_loop_is_written_out_under_jit(case: Any) -> None:
    """There every operation is staged, and counters stay numbers all the same."""
    fn, by_hand, x = case

    @jax.jit
    def inside(x: jax.Array) -> jax.Array:
        assert listing(traced(fn, x))[0] == listing(traced(by_hand, x))[0]
        return x

    inside(x)


@pytest.mark.few(1)
@pytest.mark.parametrize("case", ["layers", "recurrent", "nested"])
def test_loops_are_sound(case: str) -> None:
    fn, by_hand, x = LOOPS[case]
    check_every_node(fn, (x, EPS), {"crown_ibp": jaxlirpa.crown_ibp})
    same(lirpa.crown_ibp(fn)(x, EPS), lirpa.crown_ibp(by_hand)(x, EPS))


@pytest.mark.few(2)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_every_method_bounds_a_loop(method: Any) -> None:
    found, expected = (jax.jit(method(fn))(X, EPS) for fn in (layers, layers_by_hand))
    same(found, expected)


def test_what_is_not_perturbed_is_not_unrolled() -> None:
    """A loop over known values is evaluated in one piece, however long it is."""

    def fn(x: jax.Array) -> jax.Array:
        return x * lax.fori_loop(0, 2**17, lambda i, c: c + 1.0, 0.0)

    lower, upper = lirpa.ibp(fn)(jnp.ones(()), 0.0)
    assert lower == upper == 2**17


def test_known_factors_do_not_double_each_trip() -> None:
    """Each trip multiplies two values that know a factor: they are taken out, as one."""

    def fn(x: jax.Array) -> jax.Array:
        return lax.fori_loop(0, 12, lambda i, z: (-z * 2) * (jnp.sin(x) * z / 3), x)

    graph, _ = trace(fn, [jax.ShapeDtypeStruct(X.shape, X.dtype)], VOCABULARY, RULES)
    assert len(graph.live()) < 100
    lower, upper = lirpa.ibp(fn)(X, 1e-3)
    assert (lower <= fn(X)).all() and (fn(X) <= upper).all()


def derivative(fn: Callable[..., Any]) -> Callable[..., Any]:
    return jax.grad(lambda x: jnp.sum(fn(x) ** 2))


def test_gradients_of_loops() -> None:
    """Of an affine loop, whose gradient is affine; of another one, whose gradient is traced."""

    def looped(x: jax.Array) -> jax.Array:
        return lax.scan(lambda c, w: (w @ c + x, c), x, LAYERS)[0]

    def by_hand(x: jax.Array) -> jax.Array:
        c = x
        for w in LAYERS:
            c = w @ c + x
        return c

    for method in METHODS.values():
        same(method(derivative(looped))(X, EPS), method(derivative(by_hand))(X, EPS))
    graph = traced(derivative(lambda x: layers(x)[0]), X)
    expected = traced(derivative(lambda x: layers_by_hand(x)[0]), X)
    (found,), (value,) = graph.targets, expected.targets
    same(graph.evaluate([X])[found], expected.evaluate([X])[value])


# ---- transformations outside ---------------------------------------------------------------


def width(fn: Callable[..., Any], weights: jax.Array, x: jax.Array) -> jax.Array:
    lower, upper = lirpa.crown_ibp(fn)(weights, x, EPS)
    return jnp.sum(upper - lower)


def deep(weights: jax.Array, x: jax.Array) -> jax.Array:
    return lax.scan(lambda c, w: (jax.nn.relu(w @ c), None), x, weights)[0]


def deep_by_hand(weights: jax.Array, x: jax.Array) -> jax.Array:
    for w in weights:
        x = jax.nn.relu(w @ x)
    return x


@pytest.mark.slow
def test_jit_vmap_and_grad() -> None:
    found, expected = (
        jax.jit(jax.vmap(jax.value_and_grad(functools.partial(width, fn)), (None, 0)))
        for fn in (deep, deep_by_hand)
    )
    same(found(LAYERS, XS), expected(LAYERS, XS))


def test_a_condition_on_differentiated_weights() -> None:
    """Differentiation alone leaves numbers numbers."""

    def looped(weights: jax.Array, x: jax.Array) -> jax.Array:
        def body(carry: Any) -> Any:
            return carry[0] / 2, jax.nn.relu(weights[0] @ carry[1])

        return lax.while_loop(lambda carry: carry[0] > 1, body, (jnp.max(weights) + 3, x))[1]

    def by_hand(weights: jax.Array, x: jax.Array) -> jax.Array:
        return jax.nn.relu(weights[0] @ jax.nn.relu(weights[0] @ x))

    assert 1 < float(jnp.max(LAYERS)) + 3 <= 8
    found = jax.grad(functools.partial(width, looped))(LAYERS * 0.5, X)
    same(found, jax.grad(functools.partial(width, by_hand))(LAYERS * 0.5, X))


def test_large_constants_are_not_made_while_tracing() -> None:
    """A program that is compiled does not carry about what it can compute itself."""

    def fn(x: jax.Array) -> jax.Array:
        return jnp.sum(x + jnp.full((2, 2**16), 0.5), 1)

    jaxpr = jax.make_jaxpr(lambda x: lirpa.ibp(fn)(x, EPS))(jnp.ones((2, 1)))
    assert all(np.size(constant) < 10 for constant in jaxpr.consts)


# ---- branches ------------------------------------------------------------------------------

BRANCHES = (jnp.tanh, lambda c: -c, lambda c: jnp.ones_like(c))


def switched(index: Any, x: jax.Array) -> Any:
    """Of three branches and of two; with what all share and what none perturbs."""

    def both(c: jax.Array) -> Any:
        return jnp.tanh(c), c, 1.0, index

    def other(c: jax.Array) -> Any:
        return -c, c, 2.0, index

    return (
        lax.switch(index, BRANCHES, x),
        lax.cond(index == 1, both, other, x),
        lax.switch(index, (jnp.tanh, jax.nn.relu), x),
    )


def switched_by_hand(index: int, x: jax.Array) -> Any:
    first, second = ((jnp.tanh(x), 1.0) if index == 1 else (-x, 2.0)), min(max(index, 0), 1)
    return (
        BRANCHES[min(max(index, 0), 2)](x),
        (first[0], x, first[1], index),
        (jnp.tanh, jax.nn.relu)[second](x),
    )


INDICES = (-1, 0, 1, 2, 5)


@pytest.mark.parametrize("index", INDICES)
def test_a_known_branch_is_entered(index: int) -> None:
    same_graph(
        functools.partial(switched, jnp.asarray(index)),
        functools.partial(switched_by_hand, index),
        X,
    )


@pytest.mark.few(2)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_traced_branch_is_selected(method: Any) -> None:
    """The index is exact, though not known while tracing: so are the bounds."""
    indices = jnp.array(INDICES)
    found = jax.jit(jax.vmap(method(switched), (0, None, None)))(indices, X, EPS)
    for i, index in enumerate(INDICES):
        expected = method(switched)(jnp.asarray(index), X, EPS)
        same(jax.tree.map(lambda a, i=i: a[i], found), expected)


def test_selected_branches_are_sound() -> None:
    """Node by node, in all branches; operands of a selection may be known."""

    def fn(x: jax.Array) -> Any:
        which = jnp.array([0, 2])
        return jax.vmap(lambda i: lax.switch(i, BRANCHES, x))(which)

    check_every_node(fn, (X, EPS), {"crown_ibp": jaxlirpa.crown_ibp})


def test_only_what_is_perturbed_is_selected_in_the_graph() -> None:
    @jax.jit
    def inside(index: jax.Array, x: jax.Array) -> jax.Array:
        graph = traced(functools.partial(switched, index), x)
        primitives = [graph.nodes[i].primitive for i in graph.live()]
        assert primitives.count("select_n") == 3
        assert [isinstance(x, Ref) for x in graph.outputs] == [True] * 3 + [False] * 2 + [True]
        return x

    inside(jnp.asarray(1), X)


@pytest.mark.slow
def test_gradients_through_a_selection() -> None:
    """With respect to weights, of the branch that is taken alone."""

    def fn(index: Any, weights: jax.Array, x: jax.Array) -> jax.Array:
        branches = [lambda w=w: jax.nn.relu(w @ x) for w in weights]
        return lax.switch(index, branches)

    def loss(index: Any, weights: jax.Array) -> jax.Array:
        return width(functools.partial(fn, index), weights, X)

    selected = jax.jit(jax.grad(loss, 1))(1, LAYERS)
    same(selected, jax.grad(functools.partial(loss, 1))(LAYERS))
    assert not np.any(selected[0])
    assert not np.any(selected[2])


def test_a_perturbed_predicate_selects() -> None:
    same_graph(
        lambda x: lax.cond(x[0] > 0, jnp.tanh, lambda c: jnp.ones(3), x),
        lambda x: lax.select_n(x[0] > 0, jnp.ones(3), jnp.tanh(x)),
        X,
    )
    same_graph(
        lambda x: lax.switch(jnp.argmax(x), BRANCHES, x),
        lambda x: lax.select_n(
            lax.clamp(np.int32(0), jnp.argmax(x).astype(jnp.int32), np.int32(2)),
            jnp.tanh(x),
            -x,
            jnp.ones(3),
        ),
        X,
    )
    same_graph(
        lambda x: lax.switch(jnp.argmax(x), BRANCHES[:2], x),
        lambda x: lax.select_n(
            lax.clamp(np.int32(0), jnp.argmax(x).astype(jnp.int32), np.int32(1)) != 0,
            jnp.tanh(x),
            -x,
        ),
        X,
    )


def test_batched_loops_and_branches() -> None:
    """Examples that end at different trips and take different branches, all of them known."""

    def fn(count: Any, x: jax.Array) -> Any:
        return switched(count, repeated(count, x))

    counts = jnp.array([0, 2, 1])
    lower, upper = lirpa.ibp(jax.vmap(fn))(counts, XS, EPS)
    for i, count in enumerate(counts):
        expected = lirpa.ibp(fn)(count, XS[i], EPS)
        same(jax.tree.map(lambda a, i=i: a[i], (lower, upper)), tuple(expected))


def test_bounds_of_a_perturbed_predicate() -> None:
    """Those of `jnp.where`, which knows more of a value that guards itself."""

    def branched(x: jax.Array) -> jax.Array:
        return lax.cond(x[0] > 0.95, lambda: x[0], lambda: 0.5) + x

    def selected(x: jax.Array) -> jax.Array:
        return jnp.where(x[0] > 0.95, x[0], 0.5) + x

    check_every_node(branched, (X, EPS), {"crown_ibp": jaxlirpa.crown_ibp})
    same(lirpa.crown_ibp(branched)(X, EPS), lirpa.crown_ibp(selected)(X, EPS))
    check_every_node(
        lambda x: lax.switch((x[0] > 1).astype(int) + (x[1] > -2), BRANCHES, x),
        (X, EPS),
        {"crown_ibp": jaxlirpa.crown_ibp},
    )


def test_a_loop_that_freezes_what_has_ended() -> None:
    """The way out of a perturbed number of trips: a fixed one, and a choice in every trip."""

    def fn(x: jax.Array) -> jax.Array:
        def body(_: Any, c: jax.Array) -> jax.Array:
            return jnp.where(jnp.sum(c) < 0, c + 0.3, c)

        return lax.fori_loop(0, 3, body, x)

    check_every_node(fn, (X, EPS), {"crown_ibp": jaxlirpa.crown_ibp})


# ---- refusals ------------------------------------------------------------------------------


def refused(error: type[Exception], fn: Callable[..., Any], line: int) -> str:
    """The message, which names the line counted from the function's first one."""
    with pytest.raises(error) as caught:
        traced(fn, X)
    code = fn.__code__
    assert f"{Path(code.co_filename).name}:{code.co_firstlineno + line} (" in str(caught.value)
    return str(caught.value)


def test_a_perturbed_number_of_trips() -> None:
    def fn(x: jax.Array) -> Any:
        y = jnp.tanh(x)
        return lax.while_loop(lambda c: jnp.sum(c) < 1, lambda c: c + 1, y)

    message = refused(ControlFlowError, fn, 2)
    assert "depends on a perturbed value" in message
    assert "`jax.lax.fori_loop`" in message


def test_loops_of_too_many_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    def growing(x: jax.Array) -> Any:
        return lax.while_loop(lambda c: c[0] > 0, lambda c: (c[0] + 1, -c[1]), (1, x))

    def wide(x: jax.Array) -> Any:
        return lax.scan(lambda c, _: (-abs(-c), None), x, None, length=40)

    monkeypatch.setattr(control, "MOST_NODES", 100)
    assert "100 operations" in refused(ControlFlowError, wide, 1)
    monkeypatch.setattr(control, "MOST_NODES", 10)
    assert "the `while`" in refused(ControlFlowError, growing, 1)


def printed(x: jax.Array) -> jax.Array:
    jax.debug.print("{}", x)
    return x


EFFECTS: dict[str, Callable[[jax.Array], Any]] = {
    "scan": lambda x: lax.scan(lambda c, _: (printed(c), None), x, None, length=2),
    "scan of no trips": lambda x: lax.scan(lambda c, _: (printed(c), None), x, None, length=0),
    "while": lambda x: lax.while_loop(lambda c: False, printed, x),
    "condition": lambda x: lax.while_loop(lambda c: printed(c[0]) < 1, lambda c: c + 1, x),
    "cond": lambda x: lax.cond(x[0] > 0, printed, lambda c: -c, x),
    "known cond": lambda x: lax.cond(X[0] > 0, printed, lambda c: -c, x),
    "known loop": lambda x: x * lax.fori_loop(0, 2, lambda i, c: printed(c), 1.0),
    "nested": lambda x: lax.fori_loop(0, 2, lambda i, c: jax.jit(jax.vmap(printed))(c), x),
}


@pytest.mark.parametrize("fn", EFFECTS.values(), ids=EFFECTS)
def test_effects(fn: Callable[..., Any]) -> None:
    with pytest.raises(EffectError) as caught:
        traced(fn, X)
    line = printed.__code__.co_firstlineno + 1
    assert f"{Path(__file__).name}:{line} (printed)" in str(caught.value)


# ---- flax ----------------------------------------------------------------------------------

SEQUENCE = jnp.asarray(RANDOM.normal(size=(2, 3, 3)))  # examples, time, features


def check_recurrent(fn: Callable[[Any, jax.Array], jax.Array], params: Any, names: Any) -> None:
    """Against the recurrence by hand: the same bounds."""

    def by_hand(params: Any, xs: jax.Array) -> jax.Array:
        kernel, recurrent, bias = names(params)
        hidden, written = jnp.zeros((len(xs), recurrent.shape[0])), []
        for t in range(xs.shape[1]):
            hidden = jnp.tanh(xs[:, t] @ kernel + bias + hidden @ recurrent)
            written.append(hidden)
        return jnp.stack(written, 1)

    same(fn(params, SEQUENCE), by_hand(params, SEQUENCE))

    for method in (lirpa.ibp, lirpa.crown_ibp):
        found, expected = (
            jax.jit(method(f, in_axes=(None, 0)))(params, SEQUENCE, EPS) for f in (fn, by_hand)
        )
        same(found, expected)


@pytest.mark.slow
def test_linen_recurrent() -> None:
    model = linen.RNN(linen.SimpleCell(4, param_dtype=float))
    params = model.init(jax.random.key(0), SEQUENCE)

    def names(params: Any) -> Any:
        cell = params["params"]["cell"]
        return cell["i"]["kernel"], cell["h"]["kernel"], cell["i"]["bias"]

    check_recurrent(model.apply, params, names)


def test_nnx_recurrent() -> None:
    cell = nnx.SimpleCell(3, 4, dtype=float, param_dtype=float, rngs=nnx.Rngs(0))
    graph, params, rest = nnx.split(nnx.RNN(cell), nnx.Param, ...)

    def names(params: Any) -> Any:
        dense = params["cell"]
        bias = dense["dense_i"]["bias"][...]
        return dense["dense_i"]["kernel"][...], dense["dense_h"]["kernel"][...], bias

    check_recurrent(lambda p, x: nnx.merge(graph, p, rest, copy=True)(x), params, names)


def test_linen_scan_over_layers() -> None:
    class Layer(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array, _: None) -> Any:
            return linen.relu(linen.Dense(3, param_dtype=float)(x)), None

    stacked = linen.scan(
        Layer, variable_axes={"params": 0}, split_rngs={"params": True}, length=3
    )()
    params = stacked.init(jax.random.key(0), X, None)
    dense = params["params"]["Dense_0"]

    def by_hand(x: jax.Array) -> jax.Array:
        for kernel, bias in zip(dense["kernel"], dense["bias"], strict=True):
            x = jax.nn.relu(x @ kernel + bias)
        return x

    found = lirpa.crown(lambda p, x: stacked.apply(p, x, None)[0])(params, X, EPS)
    same(found, lirpa.crown(by_hand)(X, EPS))
