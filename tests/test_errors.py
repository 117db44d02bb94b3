"""Every refusal: what it says, and that it is a refusal and never a finite wrong bound."""

from __future__ import annotations

import functools
import inspect
import re
import runpy
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax.scipy.sparse.linalg import bicgstab, cg, gmres

import jaxlirpa
from jaxlirpa import (
    ArgumentError,
    Box,
    ControlFlowError,
    DomainError,
    EffectError,
    LirpaError,
    LpBall,
    SetError,
    UnsupportedPrimitiveError,
)

X = jnp.array([1.0, -2.0, 0.5])
# The transforms themselves: traced, as the tests of bounds do it, they could refuse no values.
METHODS: dict[str, Callable[..., Any]] = {
    "ibp": jaxlirpa.ibp,
    "crown": jaxlirpa.crown,
    "crown_ibp": jaxlirpa.crown_ibp,
    "forward_crown": jaxlirpa.forward_crown,
    "forward_backward": functools.partial(jaxlirpa.crown, intermediate=jaxlirpa.forward_crown),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


def refused(error: type[LirpaError], fn: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The message with which every method refuses a call."""
    messages = set()
    for method in METHODS.values():
        with pytest.raises(error) as caught:
            method(fn, **kwargs)(*args)
        messages.add(str(caught.value))
    assert len(messages) == 1, messages
    return messages.pop()


# ---- primitives ----------------------------------------------------------------------------


def scanned(x: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda c, _: (0.5 * c, None), x, None, length=3)[0]


def looped(x: jax.Array) -> jax.Array:
    return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, 0.5 * c[1]), (0, x))[1]


def branched(x: jax.Array) -> jax.Array:
    return jax.lax.cond(x[0] > 0, lambda y: y, lambda y: -y, x)


UNSUPPORTED = {
    "fft": (jnp.fft.rfft, "complex numbers are bounded by their parts"),
    "log": (lambda x: jnp.log(jnp.fft.fft(x)).real, "return `z.real`, `z.imag` or `jnp.abs(z)`"),
    "lu": (lambda x: jnp.linalg.solve(jnp.outer(x, x), X), "`jnp.linalg.inv(A) @ x`"),
    "triangular_solve": (
        lambda x: jax.scipy.linalg.solve_triangular(jnp.outer(x, x), X),
        "of a known matrix A",
    ),
    "cholesky": (lambda x: jnp.linalg.cholesky(x[:, None] * x), "matrix factorisation"),
    "top_k": (lambda x: X[jax.lax.top_k(x, 2)[1]], "only its values are bounded"),
    "gather": (
        lambda x: (X[:, None] * X)[x.astype(int), x.astype(int)],
        "operand 1 (an index, a mask or a divisor) is perturbed",
    ),
    "sort": (lambda x: X[jnp.argsort(x)], "sorting several arrays"),
    "reduce": (
        lambda x: jax.lax.reduce(x, 0.0, lambda a, b: a + 2 * b, (0,)),
        "none of add, mul, max",
    ),
    "reduce_xor": (
        lambda x: jax.lax.reduce(x > 0, False, jax.lax.bitwise_xor, (0,)),
        "a parity is known only",
    ),
    "scatter-mul": (
        lambda x: X.at[x.astype(int)].multiply(2.0),
        "its indices known while the function is traced",
    ),
    "rem": (lambda x: X % x, "its divisor is perturbed, or it acts on integers"),
    "exp2": (lambda x: jnp.exp2(x.astype(jnp.bfloat16)), "computes in bfloat16"),
    "cumprod": (lambda x: jnp.cumprod(x.astype(jnp.float16)), "a.astype(jnp.float32), params)"),
    "round_to": (lambda x: x.astype(jnp.float8_e5m2) * 2, "computes in float8_e5m2"),
    "scatter": (lambda x: x.at[jnp.array([0, 0])].set(X[:2]), "written twice"),
}


@pytest.mark.parametrize(("primitive", "case"), UNSUPPORTED.items(), ids=UNSUPPORTED)
def test_unsupported_primitive(primitive: str, case: tuple[Callable[..., Any], str]) -> None:
    fn, reason = case
    message = refused(UnsupportedPrimitiveError, fn, X, 0.1)
    assert f"`{primitive}`" in message
    assert reason in message
    assert "rewrite that line" in message
    assert "perturbed " in message


def test_message_names_the_line() -> None:
    def harmless(x: jax.Array) -> jax.Array:
        return 2 * x

    def culprit(x: jax.Array) -> jax.Array:
        return jnp.linalg.cholesky(jnp.outer(x, x))

    message = refused(UnsupportedPrimitiveError, lambda x: jax.jit(culprit)(harmless(x)), X, 0.1)
    line = culprit.__code__.co_firstlineno + 1
    assert f"{Path(__file__).name}:{line} (" in message
    assert "culprit" in message


def test_message_names_the_line_of_a_module() -> None:
    class Model(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            return jnp.argsort(linen.Dense(2)(x))

    model = Model()
    line = inspect.getsourcelines(Model)[1] + 3
    variables = model.init(jax.random.key(0), X)
    message = refused(UnsupportedPrimitiveError, model.apply, variables, X, 0.1)
    assert f"{Path(__file__).name}:{line} (" in message


@pytest.mark.parametrize("short", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_rounding_products_are_refused(short: Any) -> None:
    def product(x: jax.Array) -> jax.Array:
        return jnp.dot(x, jnp.ones((3, 2)), preferred_element_type=short)

    refused(UnsupportedPrimitiveError, product, X, 0.1)


DOMAINS = {
    "log": (jnp.log, "not negative"),
    "sqrt": (lambda x: jnp.sqrt(x - 3), "not negative"),
    "reciprocal": (lambda x: 2.0 / (x - 0.5), "a divisor other than zero"),
    "asin": (jnp.arcsin, "between -1 and 1"),
    "pow": (lambda x: x**0.5, "a positive base"),
}


@pytest.mark.few(2)
@pytest.mark.parametrize(("primitive", "case"), DOMAINS.items(), ids=DOMAINS)
def test_outside_of_a_domain(primitive: str, case: tuple[Callable[..., Any], str]) -> None:
    """An error where the box is known, and infinite bounds where it is not."""
    fn, reason = case
    for method in METHODS.values():
        with pytest.raises(DomainError) as caught:
            method(fn)(X, 0.1)
        message = str(caught.value)
        assert f"`{primitive}`" in message and reason in message and Path(__file__).name in message
    lower, upper = jax.jit(jaxlirpa.crown(fn))(X, 0.1)
    assert not np.any(np.isnan(lower) | np.isnan(upper))
    assert np.any(np.isinf(lower) & np.isinf(upper))


def test_what_is_not_perturbed_may_do_anything() -> None:
    def fn(scale: jax.Array, x: jax.Array) -> jax.Array:
        known = branched(scanned(looped(jax.nn.softmax(scale)))) * scale[jnp.argmax(scale)]
        return jnp.where(known > 0, x, 2 * x) / jnp.exp(known)

    for method in METHODS.values():
        lower, upper = method(fn)(X, X, 0.1)
        np.testing.assert_allclose(0.5 * (lower + upper), fn(X, X))


def test_errors_under_jit() -> None:
    with pytest.raises(UnsupportedPrimitiveError, match="`sort`"):
        jax.jit(jaxlirpa.crown(jnp.argsort))(X, 0.1)
    with pytest.raises(ArgumentError, match="eps is missing"):
        jax.jit(jaxlirpa.crown(lambda x: x))(X)


# ---- control flow and effects --------------------------------------------------------------


def with_if(x: jax.Array) -> jax.Array:
    return x if x[0] > 0 else -x


CONCRETE = {
    "if": with_if,
    "float": lambda x: x * float(x[0]),
    "int": lambda x: x * int(x[0]),
    "numpy": lambda x: np.asarray(x) * x,
    "math": lambda x: x * x[0].item(),
    "range": lambda x: sum(x[i] for i in range(x[0].astype(int))),
    "mask": lambda x: x[x > 0],
    "inside of numpy": lambda x: np.linalg.norm(x) * x,
    "inside of python": lambda x: statistics.median(x) * x,
}


@pytest.mark.parametrize("fn", CONCRETE.values(), ids=CONCRETE)
def test_concrete_value_needed(fn: Callable[..., Any]) -> None:
    message = refused(ControlFlowError, fn, X, 0.1)
    assert "concrete value of a perturbed argument" in message
    assert f"needed at {__file__}:" in message
    assert not re.search("jaxlirpa/_|/numpy/|statistics.py", message), message


def test_the_line_of_a_user_whose_folder_is_called_as_a_library(tmp_path: Path) -> None:
    file = tmp_path / "jax" / "flax" / "mine.py"
    file.parent.mkdir(parents=True)
    file.write_text("def mine(x):\n    if x[0] > 0:\n        x = -x\n    return x\n")
    with pytest.raises(ControlFlowError, match=rf"needed at {file}:2 \(mine\)"):
        jaxlirpa.ibp(runpy.run_path(str(file))["mine"])(X, 0.1)


class Stateful(nnx.Module):
    def __init__(self) -> None:
        self.norm = nnx.BatchNorm(3, rngs=nnx.Rngs(0))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(0))

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.dropout(self.norm(x))


def test_a_network_in_training_mode() -> None:
    """It changes its state: to be refused, with the line and the way out."""
    model, x = Stateful(), X[None].astype(jnp.float32)
    line = Stateful.__call__.__code__.co_firstlineno + 1
    for _ in range(2):  # BatchNorm and Dropout; then Dropout alone
        message = refused(EffectError, model, x, 0.1)
        assert "call model.eval()" in message and f"{__file__}:{line} (__call__)" in message
        model.norm.use_running_average = True
    model.eval()
    lower, upper = jaxlirpa.ibp(model)(x, 0.1)
    assert (lower <= model(x)).all() and (model(x) <= upper).all()


def test_a_linen_network_in_training_mode() -> None:
    model = linen.BatchNorm(use_running_average=False)
    stats = {"batch_stats": {"mean": X, "var": 1 + X**2}, "params": {"scale": X, "bias": X}}
    message = refused(EffectError, model.apply, stats, X[None], 0.1)
    assert "use_running_average=True" in message


def test_errors_of_jax_name_the_function() -> None:
    with pytest.raises(TypeError, match=rf"function with_name at {__file__}.*not a valid JAX type"):
        jaxlirpa.ibp(with_name)(X, 0.1)


def with_name(x: jax.Array) -> Any:
    return x, "name"


def test_the_way_out_of_a_domain() -> None:
    """`where` computes both branches: another one keeps the operand of the first inside."""

    def guarded(x: jax.Array) -> jax.Array:
        return jnp.where(x > 1, jnp.log(jnp.where(x > 1, x, 1)), 0)

    message = refused(DomainError, lambda x: jnp.where(x > 1, jnp.log(x), 0), X, 0.6)
    assert "jnp.where(ok, log(jnp.where(ok, x, 1)), 0)" in message
    lower, upper = jaxlirpa.ibp(guarded)(X, 0.6)
    np.testing.assert_allclose(lower, 0, atol=1e-12)
    np.testing.assert_allclose(upper, jnp.log(jnp.maximum(X + 0.6, 1)), atol=1e-12)


def test_the_way_out_of_repeated_indices() -> None:
    """Whether indices that an outer `jit` traces are distinct only the user knows."""

    def bound(i: jax.Array, **options: bool) -> Any:
        return jaxlirpa.ibp(lambda x: x.at[i].set(2 * x[:2], **options))(X, 0.5)

    i = jnp.array([0, 2])
    with pytest.raises(UnsupportedPrimitiveError, match=r"x.at\[i\].set\(y, unique_indices=True\)"):
        jax.jit(bound)(i)
    lower, upper = jax.jit(functools.partial(bound, unique_indices=True))(i)
    np.testing.assert_allclose(lower, [1, -2.5, -5])
    np.testing.assert_allclose(upper, [3, -1.5, -3])


@pytest.mark.parametrize("solver", [cg, gmres, bicgstab])
def test_iterative_solvers(solver: Any) -> None:
    """What they return is no linear function, and wrong by a tolerance."""
    message = refused(ControlFlowError, lambda x: solver(lambda y: 2 * y, x)[0], X, 0.1)
    assert "iterates until" in message and "`jnp.linalg.solve(A, b)`" in message
    assert Path(__file__).name in message


def printing(x: jax.Array) -> jax.Array:
    jax.debug.print("{}", x)
    return x


def calling_back(x: jax.Array) -> jax.Array:
    jax.debug.callback(lambda y: None, x)
    return x


def io_calling_back(x: jax.Array) -> jax.Array:
    return jax.experimental.io_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)


@pytest.mark.parametrize("fn", [printing, calling_back, io_calling_back])
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["plain", "jit"])
def test_effects(fn: Callable[..., Any], wrap: Callable[..., Any]) -> None:
    message = refused(EffectError, wrap(fn), X, 0.1)
    assert "side effect" in message
    assert "Remove the print" in message
    assert Path(__file__).name in message


def test_pure_callback() -> None:
    def fn(x: jax.Array) -> jax.Array:
        return jax.pure_callback(np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x)

    assert "calls back to Python" in refused(UnsupportedPrimitiveError, fn, X, 0.1)


# ---- arguments -----------------------------------------------------------------------------


def two(w: Any, x: Any) -> Any:
    return w * x


ARGUMENTS: dict[str, tuple[tuple[Any, ...], dict[str, Any], str]] = {
    "no arguments": ((), {}, "got 0 arguments"),
    "too few": ((X, 0.1), {}, "eps is missing: no argument of two(w"),
    "far too few": ((X,), {}, "got 1 arguments"),
    "too many": ((X, X, X, 0.1), {}, "got 4 arguments"),
    "eps twice": ((X, LpBall(X, 0.1), 0.1), {}, "eps is given twice"),
    "set, too few": ((LpBall(X, 0.1),), {}, "got 1 arguments"),
    "argnums and a set": ((X, LpBall(X, 0.1)), {"argnums": 1}, "already is a set"),
    "argnums out of range": ((X, X, 0.1), {"argnums": 2}, "argnums=2 is out of range"),
    "empty argument": (({}, {}, 0.1), {}, "nothing is perturbed"),
    "no argnums": ((X, X, 0.1), {"argnums": ()}, "nothing is perturbed"),
}


@pytest.mark.parametrize(("args", "kwargs", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments(args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
    assert message in refused(ArgumentError, two, *args, **kwargs)


def test_arguments_of_an_opaque_callable() -> None:
    """Where the signature says nothing the call is taken as it comes."""
    lower, upper = jaxlirpa.crown(lambda *args: args[0] + args[1])(X, X, 0.5)
    np.testing.assert_allclose(upper - lower, 1)
    with pytest.raises(ArgumentError, match="eps is missing"):
        jaxlirpa.crown(lambda *args: args[0])(X)
    with pytest.raises(ArgumentError):
        jaxlirpa.crown(max)(X)


# ---- sets ----------------------------------------------------------------------------------

HALF = X.astype(jnp.float16)
LETTERS = jnp.arange(3)
SETS: dict[str, tuple[Callable[[], Any], str]] = {
    "negative radius": (lambda: LpBall(X, -0.1), "must be finite and not negative, not -0.1"),
    "one negative radius": (lambda: LpBall(X, jnp.array([0.1, -0.1, 0])), "not negative"),
    "nan radius": (lambda: LpBall(X, jnp.nan), "must be finite and not negative, not nan"),
    "infinite radius": (lambda: LpBall(X, jnp.inf), "must be finite and not negative, not inf"),
    "radius too long": (
        lambda: LpBall(X, jnp.ones(4)),
        "radius of shape (4,) does not broadcast to (3,)",
    ),
    "radius of rank 2": (lambda: LpBall(X, jnp.ones((2, 3))), "does not broadcast to (3,)"),
    "wrong tree": (lambda: LpBall({"a": X}, {"b": 0.1}), "structure of the centre"),
    "list of radii": (lambda: LpBall(X, [0.1, 0.1, 0.1]), "structure of the centre"),
    "no radius": (lambda: LpBall(X, None), "structure of the centre"),
    "order below 1": (lambda: LpBall(X, 0.1, ord=0.5), "ord=0.5 is no norm"),
    "order nan": (lambda: LpBall(X, 0.1, ord=jnp.nan), "ord=nan is no norm"),
    "order by name": (lambda: LpBall(X, 0.1, ord="inf"), "ord='inf' is no norm"),
    "axis": (lambda: LpBall(X, 0.1, ord=2, axis=1), "axis=1 is out of range"),
    "integer centre": (lambda: LpBall(LETTERS, 0.1), "is int64: only floating-point"),
    "boolean centre": (lambda: LpBall(X > 0, 0.1), "is bool: only floating-point"),
    "complex centre": (lambda: LpBall(X + 0j, 0.1), "is complex128: only floating-point"),
    "integer leaf": (lambda: LpBall({"w": X, "step": 3}, 0.1), "only floating-point"),
    "float16": (lambda: LpBall(HALF, 0.1), "is float16, and sets are of float32"),
    "bfloat16": (lambda: LpBall(X.astype(jnp.bfloat16), 0.1), "is bfloat16, and sets are of"),
    "integer box": (lambda: Box(LETTERS, LETTERS + 1), "Box: lower is int64"),
    "half box": (lambda: Box(X, X.astype(jnp.bfloat16)), "Box: upper is bfloat16"),
    "crossed box": (lambda: Box(X, X - jnp.array([0, 0, 0.1])), "lower > upper"),
    "nan box": (lambda: Box(X, X.at[0].set(jnp.nan)), "lower > upper (or NaN)"),
    "limits of two shapes": (lambda: Box(X, jnp.ones(4)), "limits of shapes (3,) and (4,)"),
    "limits of two trees": (lambda: Box({"a": X}, {"b": X}), "do not fit together"),
    "radius in words": (lambda: LpBall(X, "0.1"), "radius is a str, and no number"),
    "truth values as radii": (lambda: LpBall(X, X > 0), "radius is bool, and no real number"),
    "complex radius": (lambda: LpBall(X, 1j), "radius is complex128, and no real number"),
    "centre in words": (lambda: LpBall("x", 0.1), "center is a str: only arrays"),
    "ball of balls": (lambda: LpBall(LpBall(X, 0.1), 0.1), "center is a LpBall: only arrays"),
    "box of a radius": (lambda: Box(X, 0.1), "a centre and a radius make an LpBall"),
}


@pytest.mark.parametrize(("perturbed", "message"), SETS.values(), ids=SETS)
def test_sets(perturbed: Callable[[], Any], message: str) -> None:
    messages = set()
    for method in METHODS.values():
        with pytest.raises(SetError) as caught:
            method(lambda x: x)(perturbed())
        messages.add(str(caught.value))
    assert len(messages) == 1 and message in messages.pop()


EMPTY: dict[str, tuple[Callable[[], Box], str]] = {
    "crossed": (lambda: Box(X + 1, X), "lower is 2.0 and upper is 1.0 at (0,)"),
    "one entry": (lambda: Box(X, X.at[2].set(0)), "lower is 0.5 and upper is 0.0 at (2,)"),
    "numpy": (lambda: Box(np.ones(3), np.zeros(3)), "lower is 1.0 and upper is 0.0 at (0,)"),
    "numbers": (lambda: Box(1.0, 0.0), "lower is 1.0 and upper is 0.0."),
    "one leaf": (
        lambda: Box({"a": X, "b": X}, {"a": X, "b": X - 1}),
        "lower['b'] is 1.0 and upper['b'] is 0.0 at (0,)",
    ),
    "nan": (lambda: Box(X, X.at[1].set(jnp.nan)), "upper is nan at (1,)"),
    "nan below": (lambda: Box(X * jnp.nan, X), "lower is nan"),
    "shapes": (lambda: Box(X, jnp.ones(4)), "limits of shapes (3,) and (4,)"),
}


@pytest.mark.parametrize(("make", "message"), EMPTY.values(), ids=EMPTY)
def test_an_empty_box_is_refused_when_it_is_made(make: Callable[[], Box], message: str) -> None:
    with pytest.raises(SetError) as caught:
        make()
    assert message in str(caught.value)


def test_a_pytree_of_the_kind_of_a_box_is_none() -> None:
    """Derivatives, axes and placeholders stand in a box's place, in whatever order."""
    box = Box({"w": X}, {"w": X + 1})
    slope = jax.grad(lambda b: jnp.sum(3 * b.lower["w"] - b.upper["w"]))(box)
    np.testing.assert_array_equal(slope.lower["w"] - slope.upper["w"], 4)
    doubled = jax.vmap(lambda b: b.lower + b.upper, in_axes=(Box(1, 0),))
    np.testing.assert_array_equal(doubled(Box(X[None], X[:, None] + 9)), 2 * X[:, None] + 9)
    assert Box(None, 0).upper == 0
    crossed = jax.tree.map(lambda x: -x, box)
    assert jax.tree.structure(crossed) == jax.tree.structure(box)
    with pytest.raises(SetError, match="so the box is empty"):
        jaxlirpa.crown(lambda tree: tree["w"])(crossed)


@pytest.mark.parametrize("eps", [-1.0, jnp.nan, jnp.inf])
def test_eps(eps: Any) -> None:
    assert "the radius (eps) must be finite" in refused(SetError, lambda x: x, X, eps)


def test_integer_argument_and_eps() -> None:
    message = refused(SetError, lambda x: x, LETTERS, 0.1)
    assert "Leave integer and boolean leaves unperturbed" in message


# ---- what jit hides ------------------------------------------------------------------------

W = jnp.array([[1.0, -1.0, 0.5], [0.3, 2.0, -1.0], [-0.7, 0.1, 1.0]])


def nets(x: jax.Array) -> dict[str, jax.Array]:
    """Nonlinear functions that forget their operand where it is large, and some that do not."""
    hidden = W @ x + 1
    return {
        "zero": 0 * x,
        "relu": W @ jax.nn.relu(hidden),
        "tanh": jnp.tanh(x),
        "clip": jnp.clip(hidden, -1, 1),
        "minimum": jnp.minimum(jnp.abs(x), 3.0),
        "deep": jax.nn.sigmoid(W @ jnp.clip(W @ jax.nn.leaky_relu(x), 0, 1)),
    }


BUILDERS: dict[str, tuple[Callable[..., Any], tuple[float, ...]]] = {
    "ball": (LpBall, (-1.0, jnp.nan, jnp.inf)),
    "2-ball": (lambda x, r: LpBall(x, r, ord=2), (-1.0, jnp.nan, jnp.inf)),
    "box": (lambda x, r: Box(x, x + r), (-1.0, jnp.nan)),
}


@pytest.mark.few(4)
@every_method
@pytest.mark.parametrize("case", BUILDERS.values(), ids=BUILDERS)
def test_impossible_sets_under_jit(method: Any, case: Any) -> None:
    """Where nothing can be raised, nothing is promised."""
    build, radii = case
    bound = jax.jit(lambda x, r: method(nets)(build(x, r)))
    for x, r in [(X * jnp.nan, 0.1), *((X, r) for r in radii)]:
        lower, upper = bound(x, jnp.asarray(r))
        for name in lower:
            assert np.all(np.asarray(lower[name]) == -np.inf), (name, r)
            assert np.all(np.asarray(upper[name]) == np.inf), (name, r)


# ---- overflow ------------------------------------------------------------------------------

OVERFLOWING = {
    "around zero": (np.zeros(4), np.full(4, 3e38)),
    "far away": (np.full(4, 3e38), np.full(4, 1e37)),
    "both signs": (np.array([3e38, -3e38, 3e38, -3e38]), np.full(4, 1e30)),
    "one wide entry": (np.zeros(4), np.array([3e38, 0, 0, 1])),
    "half way": (np.full(4, 1e38), np.full(4, 1e38)),
}


def cancelling(x: jax.Array) -> list[jax.Array]:
    """Sums whose first terms overflow although the whole does not."""
    weights = np.array([[2, -1, -1, -1], [1, 1, -1, 2], [-2, 1, 1, 0.5], [1, 0, 0, -1]])
    weights = jnp.asarray(weights, x.dtype)
    hidden = weights @ x
    return [
        hidden,
        weights @ jax.nn.relu(hidden),
        jnp.tanh(hidden),
        jax.nn.sigmoid(hidden),
        jnp.clip(hidden, -1, 1),
        jnp.abs(hidden),
        jax.nn.leaky_relu(-hidden),
        jnp.sum(jnp.minimum(hidden, 1)),
        jnp.maximum(hidden.sum(), 1) * 1e-30,
    ]


@pytest.mark.few(2)
@every_method
def test_overflow_in_float32(method: Any) -> None:
    """Bounds in float32 of huge boxes hold for the values in float64, which do not overflow."""
    bound = jax.jit(lambda x, r: method(cancelling)(LpBall(x, r)))
    corners = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1).T
    for name, case in OVERFLOWING.items():
        center, radius = (np.asarray(x, np.float32) for x in case)
        points = center.astype(np.float64) + radius.astype(np.float64) * corners
        truth = jax.vmap(cancelling)(jnp.asarray(points))
        for index, (lower, upper, values) in enumerate(
            zip(*bound(center, radius), truth, strict=True)
        ):
            assert lower.dtype == upper.dtype == jnp.float32
            room = 1e-5 * np.maximum(np.abs(values), 1)
            assert np.all(np.asarray(lower, np.float64) <= values + room), (name, index)
            assert np.all(values - room <= np.asarray(upper, np.float64)), (name, index)


@every_method
def test_what_overflows_promises_nothing(method: Any) -> None:
    """Numbers that are too large are computed as infinity, and are not infinite."""
    box = Box(jnp.asarray(3e38, jnp.float32), jnp.asarray(3.1e38, jnp.float32))
    for limits in zip(*method(lambda x: (4 * x, 4 * x - x, -4 * x, x - 4 * x))(box), strict=True):
        np.testing.assert_array_equal(limits, (-np.inf, np.inf))


def test_no_message_is_empty_of_advice() -> None:
    """Every error is a LirpaError and a usual Python error as well."""
    for error, base in [
        (ArgumentError, ValueError),
        (SetError, ValueError),
        (ControlFlowError, TypeError),
        (EffectError, TypeError),
        (UnsupportedPrimitiveError, NotImplementedError),
    ]:
        assert issubclass(error, (LirpaError, base))
    error = UnsupportedPrimitiveError("exp", "", "perturbed float32[]", "why not")
    assert re.search("an unknown place", str(error))
    assert (error.primitive, error.source) == ("exp", "")
