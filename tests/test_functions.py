"""The lines and ranges of all smooth functions and staircases, on thousands of boxes each.

Held against extended precision where NumPy has the function, else against SciPy. Nothing is
excused but numbers below the normal ones, which processors flush, and SciPy's own rounding.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scipy.special

from jaxlirpa._ops.families import Elementwise
from jaxlirpa._ops.registry import RECORDS, record
from jaxlirpa._relax.lines import Relaxation, relax
from jaxlirpa._typing import Interval
from jaxlirpa.sets import Box

Exact = np.longdouble
INF = np.inf


@dataclasses.dataclass(frozen=True)
class Function:
    """A function of JAX, and its truth in extended precision.

    Attributes:
        low, high: the domain.
        places: bends, turns, kinks and other numbers that boxes should end in.
        primitive: the node that the function becomes, where it is no function of JAX.
        ulps: by how much the truth may be wrong in double precision.
    """

    name: str
    function: Callable[[Any], Any] | None
    truth: Callable[[np.ndarray], np.ndarray]
    low: float = -INF
    high: float = INF
    places: tuple[float, ...] = ()
    primitive: str = ""
    ulps: int = 0

    def __str__(self) -> str:
        return self.name

    def relaxation(self, dtype: Any) -> Relaxation:
        """What the package bounds the function by."""
        if self.function is None:
            found = RECORDS[self.primitive]
            assert isinstance(found, Elementwise)
            return found.relaxation(None)
        inside = jnp.full((), max(self.low, min(self.high, 0.5)), dtype)
        graph, _ = oracles.trace(self.function, Box(inside, inside))
        (index,) = [ref.node for ref in graph.targets]
        found = record(graph.nodes[index])
        assert isinstance(found, Elementwise)
        assert graph.nodes[index].perturbed == (graph.inputs[0],), "not kept whole"
        return found.relaxation(graph.nodes[index])


def erf_(f: Any) -> Callable[[np.ndarray], np.ndarray]:
    """A function of SciPy, in double precision."""
    return lambda x: f(np.asarray(x, np.float64)).astype(Exact)


def softplus(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-softplus(-x))


def times(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A product that vanishes with its second factor."""
    return np.where(y == 0, 0, x) * y


def elu(x: np.ndarray, alpha: float) -> np.ndarray:
    return np.where(x > 0, x, Exact(alpha) * np.expm1(np.minimum(x, 0)))


def celu(x: np.ndarray, alpha: float) -> np.ndarray:
    a = Exact(alpha)
    return np.where(x > 0, x, a * np.expm1(np.minimum(x, 0) / a))


def gelu(x: np.ndarray) -> np.ndarray:
    return times(x, scipy.special.ndtr(np.asarray(x, np.float64)))


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    pi = Exact("3.14159265358979323846264338327950288")
    near = np.maximum(x, -100)
    return near * sigmoid(2 * np.sqrt(2 / pi) * (near + Exact("0.044715") * near**3))


def power(p: float) -> Function:
    whole = p == round(p)
    return Function(
        f"pow {p}",
        lambda x: jax.lax.pow(x, jnp.asarray(p, x.dtype)),
        lambda x: x ** Exact(p),
        low=-INF if whole else 0.0,
        places=(0.0, 1.0),
    )


def integer_power(n: int) -> Function:
    return Function(f"integer_pow {n}", lambda x: jax.lax.integer_pow(x, n), lambda x: x**n)


FUNCTIONS = [
    Function("exp", jnp.exp, np.exp),
    Function("exp2", jnp.exp2, np.exp2),
    Function("expm1", jnp.expm1, np.expm1),
    Function("log", jnp.log, np.log, 0),
    Function("log1p", jnp.log1p, np.log1p, -1),
    Function("log2", None, np.log2, 0, primitive="log2"),
    Function("sqrt", jnp.sqrt, np.sqrt, 0),
    Function("rsqrt", jax.lax.rsqrt, lambda x: 1 / np.sqrt(x), 0),
    Function("cbrt", jnp.cbrt, np.cbrt),
    Function("square", jnp.square, np.square),
    *map(integer_power, (0, 1, 2, 3, 4, 5, 8, -1, -2, -3)),
    *map(power, (0.5, 0.25, 1.75, 2.0, 3.0, 7.25, 0.0, 1.0, -1.0, -2.0, -0.5)),
    Function("2 to the x", lambda x: 2.0**x, np.exp2),
    Function("0.25 to the x", lambda x: 0.25**x, lambda x: Exact(0.25) ** x),
    Function("reciprocal", jnp.reciprocal, lambda x: 1 / x),
    Function("sin", jnp.sin, np.sin, places=(np.pi / 2, np.pi, -np.pi, 2 * np.pi)),
    Function("cos", jnp.cos, np.cos, places=(np.pi / 2, np.pi, -np.pi / 2, 2 * np.pi)),
    Function("tan", jnp.tan, np.tan, places=(np.pi, -np.pi, 1.57, 1.58)),
    Function("asin", jnp.arcsin, np.arcsin, -1, 1),
    Function("acos", jnp.arccos, np.arccos, -1, 1),
    Function("atan", jnp.arctan, np.arctan),
    Function("sinh", jnp.sinh, np.sinh),
    Function("cosh", jnp.cosh, np.cosh),
    Function("asinh", jnp.arcsinh, np.arcsinh),
    Function("acosh", jnp.arccosh, np.arccosh, 1),
    Function("atanh", jnp.arctanh, np.arctanh, -1, 1),
    Function("erf", jax.lax.erf, erf_(scipy.special.erf)),
    Function("erfc", jax.lax.erfc, erf_(scipy.special.erfc), ulps=8),
    Function("erf_inv", jax.lax.erf_inv, erf_(scipy.special.erfinv), -1, 1),
    Function("lgamma", jax.lax.lgamma, erf_(scipy.special.gammaln), 0, places=(1, 1.4616321, 2)),
    Function("digamma", jax.lax.digamma, erf_(scipy.special.digamma), 0, places=(1.4616321,)),
    Function("sign", jnp.sign, np.sign),
    Function("floor", jnp.floor, np.floor),
    Function("ceil", jnp.ceil, np.ceil),
    Function("round", jnp.round, np.round, places=(0.5, -0.5, 1.5, 2.5)),
    Function(
        "round away",
        lambda x: jax.lax.round(x, jax.lax.RoundingMethod.AWAY_FROM_ZERO),
        lambda x: np.copysign(np.floor(np.abs(x) + Exact(0.5)), x),
        places=(0.5, -0.5, 1.5, 2.5),
    ),
    Function("one_minus_square", None, lambda x: (1 - x) * (1 + x), primitive="one_minus_square"),
    Function("silu", jax.nn.silu, lambda x: times(x, sigmoid(x)), places=(-1.2784, 2.39935)),
    Function("softplus", jax.nn.softplus, softplus),
    Function("log_sigmoid", jax.nn.log_sigmoid, lambda x: -softplus(-x)),
    Function("elu", jax.nn.elu, lambda x: elu(x, 1)),
    Function("elu 0.25", lambda x: jax.nn.elu(x, 0.25), lambda x: elu(x, 0.25)),
    Function("elu 2", lambda x: jax.nn.elu(x, 2.0), lambda x: elu(x, 2)),
    Function("elu 0", lambda x: jax.nn.elu(x, 0.0), lambda x: elu(x, 0)),
    Function(
        "selu",
        jax.nn.selu,
        lambda x: Exact("1.0507009873554804934") * elu(x, Exact("1.6732632423543772848")),
    ),
    Function("celu", jax.nn.celu, lambda x: celu(x, 1)),
    Function("celu 0.25", lambda x: jax.nn.celu(x, 0.25), lambda x: celu(x, 0.25)),
    Function("celu -2", lambda x: jax.nn.celu(x, -2.0), lambda x: celu(x, -2)),
    Function(
        "mish", jax.nn.mish, lambda x: times(x, np.tanh(softplus(x))), places=(-1.1924312, 1.49057)
    ),
    Function("soft_sign", jax.nn.soft_sign, lambda x: x / (1 + np.abs(x))),
    Function(
        "hard_silu",
        jax.nn.hard_silu,
        lambda x: x * (np.clip(x + 3, 0, 6) / 6),
        places=(-3, -1.5, 3),
    ),
    Function("squareplus", jax.nn.squareplus, lambda x: squareplus(x, 4)),
    Function("squareplus 0.5", lambda x: jax.nn.squareplus(x, 0.5), lambda x: squareplus(x, 0.5)),
    Function("squareplus 0", lambda x: jax.nn.squareplus(x, 0.0), lambda x: squareplus(x, 0)),
    Function(
        "sparse_plus",
        jax.nn.sparse_plus,
        lambda x: np.where(x >= 1, x, np.clip(x + 1, 0, 2) ** 2 / 4),
        places=(-1, 1),
    ),
    Function("gelu", None, gelu, primitive="gelu", ulps=64, places=(2**0.5, -(2**0.5), -0.7517916)),
    Function("gelu_tanh", None, gelu_tanh, primitive="gelu_tanh", places=(1.4185, -0.75246)),
    Function(
        "tanh_derivative",
        None,
        lambda x: 4 * sigmoid(2 * x) * sigmoid(-2 * x),
        primitive="tanh_derivative",
        places=(0.6584789, -0.6584789),
    ),
    Function(
        "logistic_derivative",
        None,
        lambda x: sigmoid(x) * sigmoid(-x),
        primitive="logistic_derivative",
        places=(1.316957897, -1.316957897),
    ),
]


def squareplus(x: np.ndarray, b: float) -> np.ndarray:
    root = np.hypot(x, np.sqrt(Exact(b)))
    small = np.where(root > 0, Exact(b) / (2 * np.where(root > 0, root + np.abs(x), 1)), 0)
    return np.where(x >= 0, (root + np.abs(x)) / 2, small)


every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=str)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["f32", "f64"])


# ---- boxes ---------------------------------------------------------------------------------


@functools.cache
def boxes(function: Function, dtype: Any) -> Interval:
    """Wide, narrow, degenerate, huge and tiny boxes in the domain, some ending in its edges."""
    rng = np.random.default_rng(0)
    info = np.finfo(dtype)
    special = [0.0, -0.0, 1, -1, 1e-30, 1e-6, 0.3, 9, 40, 88, 500, 1e4, 1e10, 1e30, info.max / 4]
    special += [-x for x in special] + list(function.places)
    special += [x for x in (function.low, function.high) if np.isfinite(x)]
    fixed = np.array([x for x in special if function.low <= x <= function.high], dtype)
    fixed = np.concatenate([fixed, np.nextafter(fixed, dtype(1)), np.nextafter(fixed, -fixed)])
    fixed = fixed[(fixed >= function.low) & (fixed <= function.high) & np.isfinite(fixed)]
    n = 1500
    scale = 10.0 ** rng.choice([-6, -2, 0, 0, 0, 0.7, 1, 2, 4, 8, 30], n)
    center = rng.normal(size=n) * scale
    center = np.where(rng.uniform(size=n) < 0.3, rng.choice(fixed, n), center)
    width = rng.choice([0, 1e-12, 1e-6, 1e-3, 0.1, 1, 1, 2, 5, 10], n)
    width = (
        width * rng.uniform(size=n) * np.maximum(1, np.where(rng.uniform(size=n) < 0.5, 1, scale))
    )
    side = rng.choice([0, 0.5, 1], n)
    a, b = center - side * width, center + (1 - side) * width
    swap = rng.uniform(size=n) < 0.2
    b = np.where(swap, rng.choice(fixed, n), b)
    with np.errstate(over="ignore"):
        a, b = np.minimum(a, b).astype(dtype), np.maximum(a, b).astype(dtype)
    a, b = (np.clip(x, function.low, function.high).astype(dtype) for x in (a, b))
    a, b = (np.where(np.abs(x) < info.tiny, 0 * x, x) for x in (a, b))
    ok = np.isfinite(a) & np.isfinite(b) & (a <= b)
    return Interval(a[ok], b[ok])


def inside(function: Function, box: Interval) -> np.ndarray:
    """Points of every box, `[points, boxes]`: equidistant, at all scales, the ends and places."""
    lower, upper = (np.asarray(x).astype(Exact) for x in box)
    weights = np.linspace(Exact(0), Exact(1), 49).reshape(-1, 1)
    scales = 10.0 ** np.linspace(-30, 30, 13)
    steps = np.arange(-5, 5.5, 0.5)
    fixed = np.concatenate([scales, -scales, function.places, steps, steps * (1 - 1e-14)])
    equidistant = lower * (1 - weights) + upper * weights
    return np.clip(np.concatenate([equidistant, fixed.reshape(-1, 1) + 0 * lower]), lower, upper)


def exactly(x: Any) -> np.ndarray:
    return np.asarray(x).astype(Exact)


@functools.cache
def solved(function: Function, dtype: Any) -> tuple[Any, Any, np.ndarray]:
    """The image and the lines of all boxes, and whether they lie in the domain."""
    relaxation = function.relaxation(dtype)
    box = Interval(*map(jnp.asarray, boxes(function, dtype)))
    found = jax.jit(lambda b: (relaxation.image(b), relax(relaxation, b)))(box)
    defined = np.ones(box.lower.shape, bool)
    if hasattr(relaxation, "inside"):
        defined = np.broadcast_to(np.asarray(relaxation.inside(box)), defined.shape)
    return (*found, defined)


# ---- soundness -----------------------------------------------------------------------------


@every_dtype
@every_function
def test_encloses(function: Function, dtype: Any):
    box = boxes(function, dtype)
    image, lines, defined = solved(function, dtype)
    assert len(box.lower) > 1000
    assert defined.mean() > 0.1
    x = inside(function, box)
    with np.errstate(all="ignore"):
        y = function.truth(x)
    largest = np.finfo(dtype).max
    y = np.where(np.abs(y) > largest, np.copysign(INF, y), y)
    vacuous = (image.lower == -INF) & (image.upper == INF)
    assert vacuous[~defined].all()
    assert not np.isnan(y[:, defined]).any()
    least = 16 * Exact(np.finfo(dtype).tiny)
    excuse = function.ulps * np.finfo(np.float64).eps * np.where(np.isfinite(y), np.abs(y), 0)
    room = least + excuse
    lower_slope, lower_offset, upper_slope, upper_offset = (exactly(p) for p in lines)
    assert not any(np.isnan(p).any() for p in (*lines, *image))
    with np.errstate(all="ignore"):
        wrong = {
            "image": ~((exactly(image.lower) <= y + room) & (y <= exactly(image.upper) + room)),
            "below": ~(lower_slope * x + lower_offset <= y + room),
            "above": ~(y <= upper_slope * x + upper_offset + room),
        }
    for what, which in wrong.items():
        bad = which.any(0) & defined
        pairs = np.stack([np.asarray(limit)[bad] for limit in box], 1)
        assert not bad.any(), f"{what} fails on {bad.sum()} boxes:\n{pairs[:12]}"
