"""The evaluator's rules, held against XLA: every primitive on ordinary operands and at the edges.

All cases of a type are one compiled program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arithmetic import program
from arithmetic.calling import agree
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxprs import equations

Function = Callable[..., Any]

# Units in the last place by which functions that are not rounded correctly may differ.
ULPS = 256

EDGES = [0.0, -0.0, 1, -1, 0.5, -0.5, 1.5, -2.5, 3.7, -0.3, 1e-3, 40, -40, np.nan, np.inf, -np.inf]
FLOATS = (np.float32, np.float64)
INTEGERS = (np.int8, np.uint8, np.int32, np.int64, np.uint32)


def numbers(dtype: Any) -> np.ndarray:
    """Those at the edges, and random ones."""
    rng = np.random.default_rng(0)
    if np.dtype(dtype).kind == "f":
        found = np.concatenate([EDGES, rng.normal(size=16) * 10.0 ** rng.integers(-3, 4, 16)])
    else:
        info = np.iinfo(dtype)
        ends = [info.min, info.max, info.max - 1, 0, 1, 2, 3, 7, 8, 31, 32, 63, 64]
        own = [x for x in (-1, -2, -7, *ends) if info.min <= x <= info.max]
        found = np.array([*own, *rng.integers(max(info.min, -99), 99, 16)])
    return found.astype(dtype)


def random(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape)


# ---- entry by entry ------------------------------------------------------------------------

FLOAT_UNARY = [
    *(lax.neg, lax.abs, lax.sign, lax.floor, lax.ceil, lax.round, lax.is_finite, lax.exp),
    *(lax.exp2, lax.expm1, lax.log, lax.log1p, lax.sqrt, lax.rsqrt, lax.cbrt, lax.square),
    *(lax.sin, lax.cos, lax.tan, lax.asin, lax.acos, lax.atan, lax.sinh, lax.cosh, lax.tanh),
    *(lax.asinh, lax.acosh, lax.atanh, lax.erf, lax.erfc, lax.erf_inv),
    *(lax.logistic, lax.stop_gradient, lambda x: checkpoint_name(x, "x")),
    lambda x: lax.digamma(jnp.where(x == 0, 1, x)),  # NaN at zero, or infinite, by the version
    lambda x: lax.lgamma(x) + 1,  # near its zeros XLA knows it but for an absolute error
    lambda x: lax.round(x, lax.RoundingMethod.TO_NEAREST_EVEN),
    *(lambda x, n=n: lax.integer_pow(x, n) for n in (-3, 0, 1, 2, 5)),
    *(lambda x, t=t: lax.convert_element_type(x, t) for t in (*INTEGERS, *FLOATS, bool)),
    lambda x: jnp.array(x, copy=True),
]
BINARY = [
    *(lax.add, lax.sub, lax.mul, lax.div, lax.rem, lax.max, lax.min),
    *(lax.eq, lax.ne, lax.lt, lax.le, lax.gt, lax.ge),
]
INTEGER_UNARY = [
    *(lax.neg, lax.sign, lax.bitwise_not, lax.square),
    *(lambda x, t=t: lax.convert_element_type(x, t) for t in (*INTEGERS, *FLOATS, bool)),
]
INTEGER_BINARY = [
    *BINARY,
    *(lax.bitwise_and, lax.bitwise_or, lax.bitwise_xor),
    *(lax.shift_left, lax.shift_right_arithmetic, lax.shift_right_logical),
]


def elementwise(dtype: Any) -> list[Function]:
    """Each function of one number, and of all pairs."""
    x = numbers(dtype)
    first, second = (a.reshape(-1) for a in np.meshgrid(x, x))
    if np.dtype(dtype).kind == "f":
        unary, binary = FLOAT_UNARY, [*BINARY, lax.pow, lax.atan2, lax.nextafter]
    else:
        signed = [lax.abs] if np.dtype(dtype).kind == "i" else []
        unary, binary = [*INTEGER_UNARY, *signed], INTEGER_BINARY
    bits = {1: np.uint8, 4: np.int32, 8: np.int64}[np.dtype(dtype).itemsize]
    return [
        *(lambda y, f=f: f(y(x)) for f in unary),
        *(lambda y, f=f: f(y(first), y(second)) for f in binary),
        lambda y: lax.clamp(y(x[3:4][0]), y(x), y(x[2:3][0])),
        lambda y: lax.clamp(y(first), y(second), y(first[::-1])),
        lambda y: lax.bitcast_convert_type(y(x), bits),
        lambda y: lax.select_n(y(first) > 0, y(first), y(second)),
        lambda y: lax.select_n(
            lax.rem(lax.iota(np.int32, len(first)), np.int32(3)),
            *(y(first), y(second), y(first[::-1])),
        ),
        lambda y: y(x) ** 2 * y(x),
    ]


LOGICAL = [
    *(
        lambda y, f=f: f(y(np.array([1, 1, 0, 0], bool)), y(np.array([1, 0, 1, 0], bool)))
        for f in (lax.bitwise_and, lax.bitwise_or, lax.bitwise_xor, lax.eq, lax.lt, lax.max)
    ),
    lambda y: lax.bitwise_not(y(np.array([True, False]))),
    *(lambda y, f=f: f(y(np.array([[1, 0], [1, 1]], bool)), axis=1) for f in (jnp.any, jnp.all)),
    lambda y: jnp.argmax(y(np.array([False, True, True]))),
    lambda y: y(np.array([True, False])).astype(float),
]

# ---- whole arrays --------------------------------------------------------------------------

AXES = ((), (0,), (1, 2), (0, 1, 2))


def arrays(dtype: Any) -> list[Function]:
    """What moves, reduces, multiplies, reads and writes."""
    rng = np.random.default_rng(1)
    scale = 3 if np.dtype(dtype).kind == "f" else 9
    x = (scale * random(0, 3, 4, 2)).astype(dtype)
    nothing = x[:0]
    index = rng.integers(-1, 5, (2, 3, 2))

    def dimensions(*groups: Any) -> Any:
        return lambda y: lax.dot_general(y(x), y(x[::-1]), groups)

    found: list[Function] = [
        lambda y: lax.broadcast_in_dim(y(x), (3, 5, 4, 2), (0, 2, 3)),
        lambda y: lax.broadcast_in_dim(y(x[0, 0, 0]), (2, 2), ()),
        lambda y: lax.reshape(y(x), (6, 4)),
        lambda y: lax.reshape(y(x), (6, 4), dimensions=(2, 0, 1)),
        lambda y: lax.squeeze(y(x[:1]), (0,)),
        lambda y: lax.expand_dims(y(x), (1,)),
        lambda y: lax.transpose(y(x), (2, 0, 1)),
        lambda y: lax.rev(y(x), (0, 2)),
        lambda y: lax.concatenate([y(x), y(x[:1])], 0),
        lambda y: jnp.stack([y(x), y(x) + y(x)], 1),
        lambda y: jnp.tile(y(x), (1, 2, 1)),
        lambda y: lax.broadcasted_iota(dtype, (2, 3), 1) + y(x[0, 0, 0]),
        lambda y: lax.slice(y(x), (0, 1, 0), (3, 4, 2), (2, 2, 1)),
        lambda y: lax.split(y(x), (1, 3), 1),
        lambda y: jnp.unstack(y(x), axis=1),
        *(lambda y, a=a: lax.dynamic_slice(y(x), a, (2, 2, 1)) for a in ((1, 1, 0), (9, -3, 5))),
        *(
            lambda y, a=a: lax.dynamic_update_slice(y(x), y(x[:2, :1]), a)
            for a in ((1, 2, 0), (-1, 9, 9))
        ),
        *(
            lambda y, f=f, a=a, v=v: f(y(v), axis=a)
            for f in (jnp.sum, jnp.prod, jnp.max, jnp.min)
            for a in AXES
            for v in (x, nothing)
            if v is x or f in (jnp.sum, jnp.prod)
        ),
        *(lambda y, f=f: f(y(nothing), (0,)) for f in (lax.reduce_max, lax.reduce_min)),
        *(lambda y, f=f: f(y(x), 1, np.int32) for f in (lax.argmax, lax.argmin)),
        *(
            lambda y, f=f, r=r: f(y(x), 1, r)
            for f in (lax.cumsum, lax.cumprod, lax.cummax, lax.cummin)
            for r in (False, True)
        ),
        dimensions(((1,), (1,)), ((), ())),
        dimensions(((1, 2), (1, 2)), ((), ())),
        dimensions(((1,), (1,)), ((0, 2), (0, 2))),
        dimensions(((), ()), ((2,), (2,))),
        dimensions(((0, 1, 2), (0, 1, 2)), ((), ())),
        lambda y: lax.dot_general(y(nothing), y(nothing), (((0,), (0,)), ((), ()))),
        lambda y: lax.pad(y(x), y(x[0, 0, 0]), ((1, 2, 1), (-1, 3, 0), (0, -1, 2))),
        lambda y: lax.pad(y(nothing), y(x[0, 0, 0]), ((1, 2, 1), (0, 0, 0), (0, 0, 0))),
        *(
            lambda y, f=f: lax.reduce_window(
                *(y(x), f(dtype), {least: lax.max, most: lax.min, zero: lax.add}[f]),
                *((2, 2, 1), (1, 2, 1), ((1, 0), (0, 1), (0, 0)), (2, 1, 1), (1, 2, 1)),
            )
            for f in (least, most, zero)
        ),
        lambda y: lax.sort(y(x), 1),
        lambda y: lax.sort((y(x), y(x[::-1])), dimension=0, num_keys=1),
        lambda y: lax.sort((y(x) > 0, y(x), y(x[::-1])), dimension=1, num_keys=2),
        *(
            lambda y, m=m: y(x).at[tuple(index[..., k] for k in range(2))].get(mode=m)
            for m in ("clip", "fill", "promise_in_bounds")
            if m != "promise_in_bounds"
        ),
        lambda y: y(x)[:, np.array([[0, 3], [1, 1]]), 1:],
        lambda y: y(x)[np.array([2, 0, 2])],
        lambda y: jnp.take_along_axis(y(x), np.array([[[1, 0]], [[2, 2]], [[0, 3]]]), 1),
        lambda y: jax.vmap(lambda r, i: r[i])(y(x), np.array([1, 3, 0])),
        *(
            lambda y, n=n, m=m: getattr(y(x).at[np.array([1, -1, 7, 1]), 1:3], n)(
                y(x[:1, 1:3]), mode=m
            )
            for n in ("add", "subtract", "multiply", "max", "min")
            for m in ("drop", "clip")
        ),
        lambda y: y(x).at[np.array([1, 2, 7]), 1:3].set(y(x[:1, 1:3]), mode="drop"),
        lambda y: jax.vmap(lambda r, i: r.at[i].set(r[0] + r[0]))(y(x), np.array([1, 3, 0])),
        lambda y: jax.vmap(lambda r, i: r.at[i].add(r[0]))(y(x), np.array([1, 3, 0])),
        lambda y: y(x).at[np.zeros((0,), int)].add(y(nothing)),
    ]
    return found


def least(dtype: Any) -> Any:
    return dtype(-np.inf if np.dtype(dtype).kind == "f" else np.iinfo(dtype).min)


def most(dtype: Any) -> Any:
    return dtype(np.inf if np.dtype(dtype).kind == "f" else np.iinfo(dtype).max)


def zero(dtype: Any) -> Any:
    return dtype(0)


def real_arrays(dtype: Any) -> list[Function]:
    """What only floating numbers have."""
    x = random(2, 2, 5, 4, 4).astype(dtype)
    line = random(3, 6).astype(dtype)
    line[2], line[4] = np.nan, np.inf
    dense = random(4, 3, 3, 4, 6).astype(dtype)
    numbers = ("NHWC", "HWIO", "NHWC")

    def convolution(kernel: np.ndarray, *args: Any, **options: Any) -> Function:
        options = {"dimension_numbers": numbers, **options}
        return lambda y: lax.conv_general_dilated(y(x), y(kernel), *args, **options)

    def gradient(y: Any) -> Any:
        """Convolutions whose examples are in groups, and with negative padding."""
        both = jax.vmap(
            lambda a, k: lax.conv_general_dilated(
                a[None], k, (2, 1), ((1, 0), (2, 1)), dimension_numbers=numbers
            )
        )
        _, pull = jax.vjp(both, y(x), y(np.stack([dense, -dense])))
        return pull(jnp.ones_like(both(y(x), y(np.stack([dense, -dense])))))

    def pooling(y: Any) -> Any:
        return jax.grad(lambda a: jnp.sum(a[:2] * lax.cumsum(a)[1:3]))(y(line[:4]))

    return [
        lambda y: lax.cumlogsumexp(y(x), 1),
        *(lambda y, f=f: f(y(line)) for f in (jnp.max, jnp.min, jnp.sum, jnp.sort)),
        *(lambda y, f=f: f(y(line), 0, np.int32) for f in (lax.argmax, lax.argmin)),
        *(lambda y, f=f: f(y(line)) for f in (lax.cummax, lax.cummin)),
        convolution(dense, (1, 1), "SAME"),
        convolution(dense, (2, 1), ((1, 2), (0, -1)), rhs_dilation=(2, 1)),
        convolution(dense, (1, 2), ((1, 2), (3, 1)), lhs_dilation=(2, 3)),
        convolution(random(5, 2, 1, 2, 6).astype(dtype), (1, 1), "VALID", feature_group_count=2),
        convolution(*(random(6, 2, 2, 4, 6).astype(dtype), (1, 1), "VALID"), batch_group_count=2),
        convolution(
            *(random(7, 3, 5, 2, 2).astype(dtype), (1, 1), "SAME"),
            dimension_numbers=("NCHW", "OIHW", "NHWC"),
        ),
        gradient,
        pooling,
        lambda y: lax.nextafter(y(line), y(line[::-1])),
        lambda y: lax.conv_general_dilated_patches(
            y(x), (2, 2), (1, 1), "SAME", dimension_numbers=numbers
        ),
    ]


def control(dtype: Any) -> list[Function]:
    """Calls, branches and loops."""
    x = random(8, 4).astype(dtype)

    doubled = jax.custom_vjp(lambda a: a + a)
    doubled.defvjp(lambda a: (a + a, None), lambda _, g: (g,))

    def climb(state: Any) -> Any:
        return state[0] + 1, state[1] * 2

    def step(carry: Any, row: Any) -> Any:
        return carry + row, (carry, row > 0)

    return [
        lambda y: jax.jit(jnp.sin)(y(x)),
        lambda y: jax.nn.relu(y(x)),
        lambda y: doubled(y(x)),
        lambda y: jax.checkpoint(jnp.cos)(y(x)),
        lambda y: jax.grad(jax.checkpoint(lambda a: jnp.sum(jnp.sin(jnp.sin(a)))))(y(x)),
        *(
            lambda y, k=k: lax.switch(y(np.array(k)), [jnp.sin, jnp.cos, jnp.tanh], y(x))
            for k in (-1, 1, 9)
        ),
        lambda y: jax.vmap(lambda a: lax.cond(a > 0, jnp.sin, jnp.cos, a))(y(x)),
        lambda y: lax.while_loop(lambda s: s[0] < 5, climb, (y(np.array(0)), y(x))),
        lambda y: jax.vmap(lambda n: lax.while_loop(lambda s: s[0] < 5, climb, (n, y(x))))(
            y(np.arange(3))
        ),
        *(lambda y, r=r: lax.scan(step, y(x[0]), y(x), reverse=r) for r in (False, True)),
        lambda y: lax.scan(step, y(x[0]), y(x[:0])),
        lambda y: lax.fori_loop(0, 3, lambda i, a: a.at[i].add(a[i + 1]), y(x)),
        lambda y: lax.optimization_barrier((y(x), y(x))),
    ]


PROGRAMS: dict[str, tuple[Any, Callable[[Any], list[Function]]]] = {
    f"{make.__name__} {np.dtype(dtype)}": (dtype, make)
    for make, dtypes in (
        (elementwise, (*FLOATS, *INTEGERS)),
        (arrays, (*FLOATS, np.int32)),
        (real_arrays, FLOATS),
        (control, FLOATS),
    )
    for dtype in dtypes
}
PROGRAMS["logical"] = (bool, lambda dtype: LOGICAL)


def program_of(name: str) -> tuple[Function, list[np.ndarray]]:
    """All functions of a table as one, and its operands."""
    dtype, make = PROGRAMS[name]
    functions, operands = make(dtype), []

    def collected(x: np.ndarray) -> Any:
        operands.append(x)
        return jnp.asarray(x)

    def everything(*arrays: Any) -> list[Any]:
        supply = iter(arrays)
        return [function(lambda x: next(supply)) for function in functions]

    jax.eval_shape(lambda: [function(collected) for function in functions])
    return everything, operands


@pytest.mark.parametrize("name", PROGRAMS)
def test_as_xla_computes(name: str) -> None:
    """None of it is left to JAX."""
    everything, operands = program_of(name)
    before = program.BY_JAX.copy()
    found = arithmetic.call(everything, *operands)
    assert not program.BY_JAX - before
    expected = jax.jit(everything)(*operands)
    for number, (mine, theirs) in enumerate(zip(found, expected, strict=True)):
        for a, b in zip(*map(jax.tree.leaves, (mine, theirs)), strict=True):
            a, b = np.asarray(a), np.asarray(b)
            assert a.dtype == b.dtype, (number, a.dtype, b.dtype)
            what = f"{name}, function {number}"
            if a.dtype.kind != "f":
                np.testing.assert_array_equal(a, b, what)
            else:
                info = np.finfo(a.dtype)
                # Sums may cancel, but not functions of one entry.
                finite = np.abs(b[np.isfinite(b)]).max(initial=0) * ("elementwise" not in name)
                room = 8 * info.tiny + 8 * info.eps * float(finite)
                np.testing.assert_allclose(a, b, ULPS * info.eps, room, err_msg=what)
                if "elementwise" in name and number < len(FLOAT_UNARY):
                    known = (a == 0) & (b == 0)
                    assert (np.signbit(a) == np.signbit(b))[known].all(), what


def test_every_rule_is_met() -> None:
    """By the table above: a rule that nothing is held against has no place here."""
    met: set[str] = set()
    for name in PROGRAMS:
        everything, operands = program_of(name)
        met |= {eqn.primitive.name for eqn in equations(jax.make_jaxpr(everything)(*operands))}
    known = {*program.RULES, *program.SEVERAL, *program.CONTROL, *program.BODIES}
    assert known - met == set()


def test_what_no_rule_knows_is_left_to_jax() -> None:
    x = random(9, 3, 3)
    before = program.BY_JAX["cholesky"]
    found = arithmetic.call(lambda a: jnp.linalg.cholesky(a @ a.T) + 1, x)
    assert program.BY_JAX["cholesky"] == before + 1
    np.testing.assert_allclose(found, np.linalg.cholesky(x @ x.T) + 1)


def test_random_keys_pass_through() -> None:
    def fn(x: Any) -> Any:
        return x + jax.random.normal(jax.random.key(0), (3,))

    np.testing.assert_allclose(arithmetic.call(fn, np.ones(3)), fn(np.ones(3)))


def test_what_is_traced_stays_so() -> None:
    found = jax.jit(lambda x: arithmetic.call(jnp.sin, x))(np.ones(3))
    np.testing.assert_allclose(found, np.sin(np.ones(3)))


@pytest.mark.parametrize("wrong", [1.001, np.nan])
def test_a_difference_from_xla_is_told(wrong: float) -> None:
    with pytest.raises(AssertionError):
        agree([np.array([1.0, wrong])], [jnp.ones(2)])
