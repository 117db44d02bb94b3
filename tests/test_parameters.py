"""What hides in the parameters of primitives is bounded as what it computes, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax import lax
from jax.extend.core import Primitive

import jaxlirpa
from jaxlirpa import Box, LpBall, UnsupportedPrimitiveError, extend
from jaxlirpa._graph.jaxpr import public_primitives
from jaxlirpa._graph.parameters import PARAMETERS, unread
from jaxlirpa._graph.shards import COLLECTIVES
from jaxlirpa._graph.trace import RESOLVED
from jaxlirpa._ops.registry import RECORDS
from jaxlirpa._ops.rules import RULES
from jaxlirpa._ops.unsupported import UNSUPPORTED

X = np.array([0.3, 0.6, 1.5, -0.8])
METHODS = {**oracles.METHODS, "alpha_crown": arithmetic.computed(jaxlirpa.alpha_crown)}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def holds(fn: Callable[..., Any], *sets: Any, methods: Any = oracles.METHODS) -> None:
    """Every node's box contains what it computes, and the graph computes what fn does."""
    oracles.check_every_node(fn, sets, methods, count=24)


# ---- functions applied at indices ----------------------------------------------------------


@pytest.mark.few(2)
@every_method
def test_a_function_applied_at_an_index(method: Any):
    """Exactly where the function is monotone, at the index and nowhere else."""
    x = jnp.array([0.0, 0.5, 1.5])
    lower, upper = method(lambda x: x.at[2].apply(jnp.sin))(x, 0.5)
    oracles.equal(lower[:2], [-0.5, 0.0])
    oracles.equal(upper[:2], [0.5, 1.0])
    assert lower[2] <= np.sin(1.0) and upper[2] >= 1
    lower, upper = method(lambda x: x.at[0].apply(jnp.square))(x, 0.5)
    assert lower[0] <= 0 and upper[0] >= 0.25


def affine(x: Any) -> Any:
    return 2 * x - 1


APPLIED: dict[str, Callable[[Any], Any]] = {
    "identity": lambda x: x.at[1].apply(lambda t: t),
    "entry": lambda x: x.at[1].apply(jnp.exp),
    "negative index": lambda x: x.at[-1].apply(jnp.abs),
    "slice": lambda x: x.at[::2].apply(jnp.sin),
    "mask": lambda x: x.at[X > 0].apply(jnp.log),
    "all": lambda x: x.at[:].apply(jax.nn.relu),
    "none": lambda x: x.at[np.zeros(0, int)].apply(jnp.abs),
    "array": lambda x: x.at[np.array([2, 0])].apply(jnp.sqrt),
    "repeated": lambda x: x.at[np.array([1, 1, 2, 1])].apply(affine),
    "repeated, nonlinear": lambda x: x.at[np.array([[3, 0], [0, 0]])].apply(lambda t: t * t - 0.5),
    "dropped": lambda x: x.at[np.array([0, 9, -7])].apply(jnp.sqrt, mode="drop"),
    "clipped": lambda x: x.at[np.array([9, -7, 9])].apply(affine, mode="clip"),
    "promised": lambda x: x.at[np.array([2, 1])].apply(jnp.sqrt, mode="promise_in_bounds"),
    "unique": lambda x: x.at[np.array([2, 1])].apply(jnp.log, unique_indices=True),
    "behind a layer": lambda x: jnp.abs(x @ np.eye(4)[::-1] - 1).at[1:].apply(jax.nn.softplus),
    "a constant": lambda x: x.at[0].apply(lambda t: 0 * t + 3),
    "a table": lambda x: x.at[0].apply(lambda t: t * jnp.arange(4.0)[3]),
    "a known array": lambda x: jnp.where(X > 0, x, jnp.asarray(X).at[0].apply(jnp.sin)),
    "truth values": lambda x: (x > 0.5).at[1].apply(jnp.logical_not).astype(float),
    "a call": lambda x: x.at[2].apply(jax.jit(jax.nn.relu6)),
    "a branch": lambda x: x.at[2].apply(lambda t: lax.cond(t > 1.5, jnp.abs, jnp.negative, t)),
}


@pytest.mark.few(8)
@pytest.mark.parametrize("name", APPLIED)
def test_functions_applied_at_indices(name: str):
    box, number = Box(jnp.asarray(X - 0.2), jnp.asarray(X + 0.15)), [*APPLIED].index(name)
    holds(APPLIED[name], box, methods=oracles.in_turn(number))


@pytest.mark.few(1)
@pytest.mark.parametrize(("width", "dtype"), [(0.0, np.float64), (30.0, np.float32)])
def test_functions_applied_at_indices_of_a_matrix(width: float, dtype: Any):
    def fn(x: Any) -> Any:
        x = x.at[np.array([0, 1, 0]), np.array([1, 0, 1])].apply(jnp.abs)
        return x.at[:, 1].apply(lambda t: t * t).at[1, :2].apply(jax.nn.relu)

    x = jnp.asarray(X[:2, None] * np.array([1.0, -2.0]), dtype)
    holds(fn, Box(x - width, x + width))


def test_overlapping_windows_are_applied_to_as_often_as_they_meet():
    numbers = lax.ScatterDimensionNumbers((1,), (), (0,))

    def fn(x: Any) -> Any:
        starts = np.array([[0], [1], [3]])  # the last one leaves the array, and is dropped
        return lax.scatter_apply(x, starts, affine, numbers, update_shape=(3, 2))

    holds(fn, LpBall(jnp.asarray(X), 0.3))


def test_a_function_applied_to_a_column_keeps_examples_apart():
    """A batch costs what its examples cost."""

    def fn(x: Any) -> Any:
        return x.at[:, 1].apply(jnp.sin).at[:, np.array([0, 0])].apply(jnp.exp)

    graph, _ = oracles.trace(fn, LpBall(jnp.ones((5, 3)), 0.1))
    assert all(graph.batch_axes[ref] == 0 for ref in graph.targets)


def test_functions_are_applied_at_known_indices_only():
    def fn(i: Any, x: Any) -> Any:
        return x.at[i].apply(jnp.sin)

    x = jnp.asarray(X)
    with pytest.raises(UnsupportedPrimitiveError, match=r"x\.at\[i\]\.set\(f\(x\[i\]\)\)"):
        jax.jit(jaxlirpa.crown(fn))(1, x, 0.1)
    with pytest.raises(UnsupportedPrimitiveError, match="is perturbed"):
        jaxlirpa.crown(lambda x: fn(x[0].astype(int), x))(x, 0.1)
    expected = jaxlirpa.crown(fn)(1, x, 0.1)
    actual = jax.jit(jaxlirpa.crown(lambda i, x: x.at[i].set(jnp.sin(x[i]))))(1, x, 0.1)
    for a, b in zip(actual, expected, strict=True):
        oracles.equal(a, b)


@pytest.mark.parametrize("operation", ["multiply", "max", "add", "set"])
def test_a_broken_promise_of_indices_is_what_is_computed(operation: str):
    """Updates outside of the array are dropped, whatever the user has promised."""

    def fn(x: Any) -> Any:
        options = {"mode": "promise_in_bounds", "unique_indices": True}
        return getattr(x.at[np.array([7])], operation)(x[1:2] + 5, **options) @ X

    holds(fn, LpBall(jnp.asarray(X), 0.1))


# ---- every function that a primitive can hide -----------------------------------------------


def combined(fn: Callable[[Any], Any], combine: Callable[..., Any]) -> Callable[[Any], Any]:
    """The scatter that fn applies, combining its updates with the entries by another function."""
    scatter = jax.make_jaxpr(fn)(jnp.asarray(X)).eqns[-1]
    params = {**scatter.params, "update_jaxpr": jaxpr_of(combine)}
    indices, updates = np.array([[1], [1]]), np.full(2, 2.0)
    return lambda x: scatter.primitive.bind(x, indices, updates, **params)


def jaxpr_of(fn: Callable[..., Any], count: int = 2) -> Any:
    return jax.make_jaxpr(fn)(*[jnp.zeros(())] * count).jaxpr


@jax.custom_jvp
def with_rule(x: Any) -> Any:
    return x**2


with_rule.defjvp(lambda primals, tangents: (primals[0] ** 2, 9 * tangents[0]))


@jax.custom_batching.custom_vmap
def with_batching(x: Any) -> Any:
    return jnp.abs(x)


with_batching.def_vmap(lambda size, batched, x: (jnp.abs(x), True))
AT = np.array([1, 1])
SHAPE = jax.ShapeDtypeStruct((4,), np.dtype(np.float64))

BOUNDED: dict[str, Callable[[Any], Any]] = {
    "reduce": lambda x: lax.reduce(x, 1.0, lambda a, b: b + a, (0,)),
    "reduce_window": lambda x: lax.reduce_window(x, 0.0, lambda a, b: b + a, (2,), (1,), "SAME"),
    "reduce_precision": lambda x: lax.reduce_precision(x, 5, 3),
    "select_and_scatter_add": jax.grad(
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (2,), (2,), "VALID").sum()
    ),
    "scatter": lambda x: x.at[AT].apply(jnp.sin),
    "scatter-add": lambda x: x.at[AT].add(x[:2]),
    "scatter-sub": lambda x: x.at[AT].subtract(x[:2]),
    "scatter-mul": lambda x: x.at[AT].multiply(x[:2]),
    "scatter-max": lambda x: x.at[AT].max(x[2:]),
    "scatter-min": lambda x: x.at[AT].min(x[2:]),
    "sort": lambda x: lax.sort(x, is_stable=False),
    "top_k": lambda x: lax.top_k(x, 2)[0],
    "cumlogsumexp": lambda x: lax.cumlogsumexp(x, 0, reverse=True),
    "scan": lambda x: lax.scan(lambda c, v: (c - v, c), 1.0, x)[1],
    "while": lambda x: lax.fori_loop(0, 2, lambda i, y: jnp.abs(y) - i, x),
    "cond": lambda x: lax.cond(x[0] > 0.3, jnp.abs, jnp.negative, x),
    "jit": lambda x: jnp.vectorize(jax.jit(jnp.abs))(x),
    "remat2": jax.checkpoint(jnp.abs, policy=jax.checkpoint_policies.dots_saveable),
    "custom_jvp_call": with_rule,
    "custom_vmap_call": with_batching,
    "custom_linear_solve": lambda x: lax.custom_linear_solve(
        lambda v: 2 * v, x, lambda _, b: b / 2
    ),
    "gather": lambda x: x.at[np.array([7, 1])].get(mode="fill", fill_value=3.0),
    "dot_general": lambda x: jnp.dot(x.astype(np.float32), X[:4].astype(np.float32)),
    "round": lambda x: lax.round(3 * x, lax.RoundingMethod.AWAY_FROM_ZERO),
    "platform_index": lambda x: lax.platform_dependent(x, default=jnp.abs, tpu=jnp.negative),
}


@pytest.mark.few(10)
@pytest.mark.parametrize("name", BOUNDED)
def test_functions_that_are_read(name: str):
    ball, number = LpBall(jnp.asarray(X), 0.1), [*BOUNDED].index(name)
    holds(BOUNDED[name], ball, methods=oracles.in_turn(number))


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "reduce": (lambda x: lax.reduce(x, 0.0, lambda a, b: a + 2 * b, (0,)), "none of add"),
    "reduce, two arrays": (
        lambda x: lax.reduce((x, x), (0.0, 0.0), lambda a, b: (a[0] + b[0], a[1] * b[1]), (0,)),
        "of one array",
    ),
    "reduce_window": (
        lambda x: lax.reduce_window(x, 0.0, lambda a, b: a + 2 * b, (2,), (1,), "SAME"),
        "none of add",
    ),
    "scatter-add": (
        combined(lambda x: x.at[AT].add(2.0), lax.mul),
        "is not its own",
    ),
    "scatter-sub": (
        combined(lambda x: x.at[AT].subtract(2.0), lambda a, b: b - a),
        "is not its own",
    ),
    "scatter-mul": (
        combined(lambda x: x.at[AT].multiply(2.0), lax.add),
        "its function its own",
    ),
    "scatter-max": (
        combined(lambda x: x.at[AT].max(2.0), lax.min),
        "its function its own",
    ),
    "sort": (lambda x: lax.sort((x, -x), num_keys=2), "sorting several arrays"),
    "approx_top_k": (lambda x: lax.approx_max_k(x, 2)[0], "no rule"),
    "composite": (lax.composite(jnp.sin, "my.sine"), "not known"),
    "pure_callback": (lambda x: jax.pure_callback(np.sin, SHAPE, x), "calls back"),
    "ffi_call": (jax.ffi.ffi_call("nobody", SHAPE), "not known"),
    "exp": (lambda x: lax.exp(x, accuracy=lax.Tolerance(0.1, 0.1, 0)), "parameter `accuracy`"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_functions_that_are_not_read(name: str):
    fn, reason = REFUSED[name]
    for method in oracles.METHODS.values():
        with pytest.raises(UnsupportedPrimitiveError) as caught:
            method(fn)(jnp.asarray(X), 0.1)
        assert caught.value.primitive == name.partition(",")[0]
        assert reason in str(caught.value)


# ---- what nobody has looked at ---------------------------------------------------------------

KNOWN = sorted(
    (RECORDS.keys() | RULES.keys() | RESOLVED.keys())
    & (public_primitives().keys() | PARAMETERS.keys())
)


@pytest.mark.parametrize("hidden", [jnp.sin, jaxpr_of(lax.add), (jaxpr_of(lax.add),)], ids=type)
def test_no_primitive_has_functions_that_nobody_reads(hidden: Any):
    """Whatever the primitive, and whatever the name of the parameter."""
    assert all(unread(name, {"hidden": hidden}) == "hidden" for name in KNOWN)


def test_parameters_are_declared_of_primitives_that_there_are():
    assert PARAMETERS.keys() <= {*KNOWN, *COLLECTIVES, "shard_map"}


def test_a_parameter_that_says_nothing_does_no_harm():
    for value in (None, False, ()):
        assert unread("tanh", {"hidden": value}) is None
    assert unread("tanh", {"hidden": 0}) == "hidden"


PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "tanh": lax.tanh,
    "add": lambda x: x + X,
    "mul": lambda x: x * X,
    "max": lambda x: lax.max(x, X),
    "dot_general": lambda x: lax.dot(x, X),
    "gather": lambda x: lax.gather(
        x, np.array([[1]]), lax.GatherDimensionNumbers((), (0,), (0,)), (1,)
    ),
    "reduce_sum": lambda x: lax.reduce_sum_p.bind(x, axes=(0,), out_sharding=None),
    "cummax": lax.cummax,
    "sort": lax.sort,
    "jit": jax.jit(lambda x: x),
    "custom_jvp_call": with_rule,
    "cond": lambda x: lax.cond(x[0] > 0, lambda y: y, lambda y: -y, x),
    "scan": lambda x: lax.scan(lambda c, _: (2 * c, None), x, None, length=2)[0],
    "copy": lambda x: lax.copy_p.bind(x),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_nobody_has_looked_at_is_refused(name: str, monkeypatch: pytest.MonkeyPatch):
    """As if a newer release of JAX had given the primitive a function."""
    make = jax.make_jaxpr

    def marked(*args: Any, **kwargs: Any) -> Callable[..., Any]:
        def run(*operands: Any) -> Any:
            closed, shape = make(*args, **kwargs)(*operands)
            equations = [
                e.replace(params={**e.params, "newer": closed}) if e.primitive.name == name else e
                for e in closed.jaxpr.eqns
            ]
            return closed.replace(jaxpr=closed.jaxpr.replace(eqns=equations)), shape

        return run

    x = jnp.asarray(X)
    jaxlirpa.ibp(PROGRAMS[name])(x, 0.1)
    monkeypatch.setattr(jax, "make_jaxpr", marked)
    with pytest.raises(UnsupportedPrimitiveError, match=f"`{name}`: its parameter `newer`"):
        jaxlirpa.ibp(PROGRAMS[name])(x, 0.1)


@pytest.mark.parametrize("name", ["sin", "copy", "reduce_sum", "gelu", "softmax", "loop", "mine"])
def test_a_primitive_is_not_known_by_its_name(name: str):
    """Others may call theirs as they like."""
    foreign = Primitive(name)
    foreign.def_impl(lambda x: x * x + 5)
    foreign.def_abstract_eval(lambda x: x)
    reason = "not JAX's" if name in public_primitives() else "not known"
    for method in oracles.METHODS.values():
        with pytest.raises(UnsupportedPrimitiveError, match=f"`{name}`: it is {reason}"):
            method(lambda x: foreign.bind(x))(jnp.asarray(X), 0.1)


def test_a_foreign_primitive_in_a_reduction():
    foreign = Primitive("add")
    foreign.def_impl(lambda a, b: a * b)
    foreign.def_abstract_eval(lambda a, b: a)

    def fn(x: Any) -> Any:
        return lax.reduce(x, 1.0, foreign.bind, (0,))

    with pytest.raises(UnsupportedPrimitiveError, match="none of add"):
        jaxlirpa.crown(fn)(jnp.asarray(X), 0.1)


def test_the_ledger_has_a_reason_for_what_is_refused():
    """Not that its parameters are unknown."""
    read = RULES.keys() | COLLECTIVES.keys()
    assert not UNSUPPORTED.keys() & PARAMETERS.keys() - read


def test_declared_primitives_may_have_any_parameter():
    mine = Primitive("mine")
    mine.def_impl(lambda x, f: f(x))
    mine.def_abstract_eval(lambda x, f: x)
    square = extend.relaxation(jnp.square, inflections=())
    record = extend.Elementwise(lambda node: square)
    fn = lambda x: mine.bind(x, f=jnp.square)  # noqa: E731
    with extend.primitive(mine, record, fn, Box(-1.0, 2.0)):
        holds(fn, LpBall(jnp.asarray(X), 0.1))
