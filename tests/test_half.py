"""Functions that compute in bfloat16 or float16, bounded in float32 with all their roundings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scipy.special
from flax import linen as nn
from flax import nnx
from jax import lax

import jaxlirpa
from jaxlirpa._intervals import Interval
from jaxlirpa._ops.rules.half import _ROUNDINGS, _roundings_of_power
from jaxlirpa._relax.lines import relax
from jaxlirpa._relax.rounding import Near, growth

HALVES = [jnp.bfloat16, jnp.float16]
halves = pytest.mark.parametrize("half", HALVES, ids=lambda x: np.dtype(x).name)
INTERVALS_AND_LINES = [oracles.METHODS[name] for name in ("ibp", "crown")]
every_method = pytest.mark.parametrize("method", oracles.METHODS.values(), ids=oracles.METHODS)


def c(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


# ---- one function --------------------------------------------------------------------------

TRUTHS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "acos": np.arccos,
    "acosh": np.arccosh,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atanh": np.arctanh,
    "cbrt": np.cbrt,
    "cos": np.cos,
    "cosh": np.cosh,
    "erf": scipy.special.erf,
    "erf_inv": scipy.special.erfinv,
    "erfc": scipy.special.erfc,
    "exp": np.exp,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": scipy.special.expit,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sin": np.sin,
    "sinh": np.sinh,
    "sqrt": np.sqrt,
    "square": np.square,
    "tan": np.tan,
    "tanh": np.tanh,
}
# Those that are rounded most run by default.
FEW = {"expm1", "logistic", "acosh"}


def test_every_function_of_one_number_is_tested() -> None:
    steps, several = (
        {"ceil", "floor", "round", "sign"},
        {"add", "add_any", "div", "mul", "pow", "sub"},
    )
    products = {"conv_general_dilated", "dot_general"}
    assert _ROUNDINGS.keys() - steps - several - products == TRUTHS.keys()


def numbers(half: Any) -> np.ndarray:
    """All normal numbers of a format, and zero."""
    found = np.arange(2**16, dtype=np.uint16).view(np.dtype(half))
    with np.errstate(invalid="ignore"):
        real = found.astype(np.float64)
    return found[np.isfinite(real) & ((real == 0) | (np.abs(real) >= float(jnp.finfo(half).tiny)))]


@halves
@pytest.mark.parametrize(
    "name", [n if n in FEW else pytest.param(n, marks=pytest.mark.slow) for n in TRUTHS]
)
def test_roundings_of_a_function(name: str, half: Any) -> None:
    """No number is mapped farther from the truth than so many roundings."""
    x, info = numbers(half), jnp.finfo(half)
    with np.errstate(all="ignore"):
        truth = TRUTHS[name](x.astype(np.float64))
    defined = np.isfinite(truth) & (np.abs(truth) < float(info.max) / 2)
    room = growth(half, _ROUNDINGS[name]) * np.abs(truth) + float(info.tiny)
    for call in (getattr(lax, name), jax.jit(getattr(lax, name))):
        found = np.asarray(call(jnp.asarray(x))).astype(np.float64)
        assert (np.abs(found[defined] - truth[defined]) <= room[defined]).all()


@pytest.mark.parametrize("divisor", [3, 7.3, 49184, 61000])
def test_roundings_of_quotients(divisor: float) -> None:
    """A compiler may multiply by an inverse that is no normal number."""
    x = numbers(jnp.float16)
    truth = x.astype(np.float64) / float(np.float16(divisor))
    room = growth(jnp.float16, 6) * np.abs(truth) + float(jnp.finfo(jnp.float16).tiny)
    found = np.asarray(jax.jit(lambda x: x / np.float16(divisor))(x)).astype(np.float64)
    assert (np.abs(found - truth) <= room).all()


@halves
@pytest.mark.parametrize("power", [3, 5, -1])
def test_roundings_of_powers(power: int, half: Any) -> None:
    x = numbers(half)
    with np.errstate(all="ignore"):
        truth = np.power(x.astype(np.float64), float(power))
    limits = float(jnp.finfo(half).tiny), float(jnp.finfo(half).max) / 2
    inside = (np.abs(truth) < limits[1]) & (np.abs(truth) > limits[0]) & (x != 0)
    room = growth(half, _roundings_of_power(power)) * np.abs(truth) + limits[0]
    for call in (lax.integer_pow, jax.jit(lax.integer_pow, static_argnums=1)):
        found = np.asarray(call(jnp.asarray(x), power)).astype(np.float64)
        assert (np.abs(found[inside] - truth[inside]) <= room[inside]).all()


@halves
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_near(half: Any, count: int, dtype: Any) -> None:
    """Every number, rounded or not, is between the lines and in the image."""
    rng, info = np.random.default_rng(0), jnp.finfo(half)
    scale = 10.0 ** rng.uniform(-6, 4, (400, 1))
    ends = scale * (
        rng.choice([-1, 0, 1], (400, 1)) + rng.choice([0, 1e-4, 1], (400, 1)) * c(400, 2)
    )
    box = Interval(*(jnp.asarray(x, dtype) for x in np.sort(ends, 1).T))
    near = Near(growth(half, count), float(info.tiny), float(info.max))
    lines, image = relax(near, box), near.image(box)
    weights = np.linspace(0, 1, 33)[:, None]
    x = np.clip(box.lower * (1 - weights) + box.upper * weights, box.lower, box.upper).astype(dtype)
    for y in (x, np.asarray(jnp.asarray(x).astype(half)).astype(dtype)):
        assert (image.lower <= y).all() and (y <= image.upper).all()
        room = 4 * np.finfo(dtype).eps * np.abs(x)
        assert (lines.lower_slope * x + lines.lower_offset <= y + room).all()
        assert (y <= lines.upper_slope * x + lines.upper_offset + room).all()
    assert (np.asarray(image.lower)[np.asarray(box.lower) >= 0] >= 0).all()
    width = np.asarray(image.upper - image.lower - (box.upper - box.lower))
    far = np.maximum(np.abs(box.lower), np.abs(box.upper))
    assert (width <= 2.1 * (count * 0.5 * float(info.eps) * far + float(info.tiny))).all()


def test_what_overflows_is_infinite() -> None:
    near = Near(growth(jnp.float16, 1), 6e-5, 65504.0)
    box = Interval(jnp.array([0.0, -7e4, 65504.0]), jnp.array([7e4, 0.0, 65504.0]))
    image, lines = near.image(box), relax(near, box)
    np.testing.assert_array_equal(np.isinf(image.upper), [True, False, True])
    np.testing.assert_array_equal(np.isinf(image.lower), [False, True, False])
    assert np.isinf(lines.lower_offset).all() and np.isinf(lines.upper_offset).all()


# ---- programs ------------------------------------------------------------------------------


def hold(method: Any, fn: Any, x: Any, eps: float, count: int = 40) -> tuple[Any, Any]:
    """Bounds in float32 that hold what is computed operation by operation, and compiled."""
    lower, upper = method(fn)(x, eps)
    assert {a.dtype for a in jax.tree.leaves((lower, upper))} <= {
        np.dtype(np.float32),
        np.dtype(bool),
    }
    points = oracles.sample(jaxlirpa.LpBall(x, eps), 0, count)
    compiled = jax.jit(fn)
    for run in (*(fn(p) for p in points[:8]), *(compiled(p) for p in points)):
        for value, low, high in zip(*map(jax.tree.leaves, (run, lower, upper)), strict=True):
            found = np.asarray(value).astype(np.float32)
            assert (np.asarray(low) <= found).all() and (found <= np.asarray(high)).all()
    return lower, upper


class Perceptron(nn.Module):
    dtype: Any

    @nn.compact
    def __call__(self, x: Any) -> Any:
        x = nn.relu(nn.Dense(16, dtype=self.dtype)(x))
        x = nn.LayerNorm(dtype=self.dtype)(x)
        x = nn.silu(nn.Dense(16, dtype=self.dtype)(x))
        return nn.Dense(3, dtype=self.dtype)(x)


@pytest.mark.few(2)
@every_method
def test_a_perceptron(method: Any) -> None:
    """By CROWN not much wider than the network in float32, by what is rounded."""
    x = jnp.asarray(c(4))
    variables = Perceptron(None).init(jax.random.key(0), x)
    lower, upper = method(lambda x: Perceptron(None).apply(variables, x))(x, 0.02)
    width, size = np.max(upper - lower), np.max(np.abs(upper) + np.abs(lower))
    for half in HALVES:
        module = Perceptron(half)
        low, high = hold(method, lambda x, m=module: m.apply(variables, x), x, 0.02)
        unit = 0.5 * float(jnp.finfo(half).eps)
        assert np.isfinite(low).all() and np.isfinite(high).all()
        if method is oracles.METHODS["crown"]:
            assert width <= np.max(high - low) <= 1.2 * width + 60 * unit * size


def image_network(half: Any, activation: Any) -> Any:
    """Convolution and pooling of both kinds; parameters of the format too."""
    model = nnx.Conv(1, 2, (3, 3), dtype=half, param_dtype=half, rngs=nnx.Rngs(0))

    def fn(x: Any) -> Any:
        y = nn.max_pool(model(x), (2, 2), (2, 2))
        y = nn.avg_pool(activation(y), (2, 1))
        return y, jnp.sum(y), y > 0

    return fn


@halves
def test_an_image_network(half: Any) -> None:
    for method in INTERVALS_AND_LINES:
        hold(method, image_network(half, nn.relu), jnp.asarray(c(1, 4, 4, 1)), 0.05)


@pytest.mark.slow
@halves
def test_attention(half: Any) -> None:
    def fn(x: Any) -> Any:
        y = image_network(half, nn.gelu)(x)[0].reshape(2, 2)
        return jax.nn.softmax(y @ y.T) @ y

    for method in INTERVALS_AND_LINES:
        hold(method, fn, jnp.asarray(c(1, 4, 4, 1)), 0.05)


PROGRAMS: dict[str, Callable[[Any], Any]] = {
    "cast": lambda x: x,
    "moved": lambda x: x.reshape(3, 2)[::-1].T.astype(jnp.float32),
    "sums": lambda x: (jnp.cumsum(x), lax.reduce_sum(x, [0])),
    "loop": lambda x: lax.fori_loop(0, 4, lambda _, y: jnp.tanh(y * 3 + 1) - x, x),
    "branch": lambda x: lax.cond(x[0] > 0, jnp.sin, lambda y: y / 3, x),
    "where": lambda x: jnp.where(x > 0.5, x, 2.0) * jnp.maximum(x, -x[::-1]),
    "other format": lambda x: (x.astype(jnp.float16) * 3).astype(jnp.bfloat16) / 3,
    "gradient": jax.grad(lambda x: jnp.sum(jnp.tanh(x * x) * x).astype(jnp.float32)),
    "floor": lambda x: jnp.floor(x * 4) + jnp.sign(x),
    "power": lambda x: x**3 + jnp.abs(x) ** jnp.asarray(1.5, x.dtype) + jnp.sqrt(jnp.abs(x)),
    "known": lambda x: x * jnp.asarray(c(6), x.dtype) + jnp.exp(jnp.asarray(c(6), x.dtype)),
}


@pytest.mark.few(5)
@pytest.mark.parametrize(
    "half", [jnp.bfloat16, pytest.param(jnp.float16, marks=pytest.mark.slow)], ids=["bf16", "f16"]
)
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str, half: Any) -> None:
    fn, x = PROGRAMS[name], jnp.asarray(c(6))
    for method in INTERVALS_AND_LINES:
        lower, upper = hold(method, lambda x: fn(x.astype(half)), x, 0.05)
        for low, high in zip(*map(jax.tree.leaves, (lower, upper)), strict=True):
            assert np.isfinite(low).all() and np.isfinite(high).all()
            assert np.max(high - low) < 6


@every_method
def test_readers_round_for_themselves(method: Any) -> None:
    """One reader of a value may see it rounded, and another not, by the whims of a compiler."""
    box = jaxlirpa.Box(jnp.float32(1.5), jnp.float32(1.5))
    lower, upper = method(lambda x: (lambda y: (y * 1) - (y + 0))(x.astype(jnp.bfloat16) * 3))(box)
    assert lower <= -(2**-7) * 4.5 * 0.5 and upper >= 2**-7 * 4.5 * 0.5


def test_there_and_back_is_exact() -> None:
    """A cast that is undone rounds for sure: its bounds are numbers of the format."""
    for half in HALVES:
        lower, upper = jaxlirpa.crown(lambda x, h=half: x.astype(h).astype(x.dtype))(c(5), 0.1)
        np.testing.assert_array_equal(
            lower, (c(5) - np.float32(0.1)).astype(half).astype(np.float32)
        )
        np.testing.assert_array_equal(
            upper, (c(5) + np.float32(0.1)).astype(half).astype(np.float32)
        )


def test_overflow_is_seen() -> None:
    lower, upper = jaxlirpa.crown(lambda x: x.astype(jnp.float16) * 4000)(jnp.float32(16), 1.0)
    assert upper == np.inf and 59000 < lower < 61000
