"""The lines and ranges of all smooth functions and staircases, on thousands of boxes each.

Held against extended precision where NumPy has the function, else against SciPy. Nothing is
excused but numbers below the normal ones, which processors flush, and SciPy's own rounding.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
import scipy.special

from jaxlirpa._intervals import Interval
from jaxlirpa._ops.families import Elementwise
from jaxlirpa._ops.registry import RECORDS, record
from jaxlirpa._relax.compiled import Compiled
from jaxlirpa._relax.lines import Relaxation, relax, relax_family, tabulated
from jaxlirpa._relax.slopes import offsets, slope_range
from jaxlirpa._relax.unknown import Unknown
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
    Function(
        "tanh_second_derivative",
        None,
        lambda x: -8 * np.tanh(x) * sigmoid(2 * x) * sigmoid(-2 * x),
        primitive="tanh_second_derivative",
        places=(0.6584789, -0.6584789, 1.1462158, -1.1462158),
    ),
    Function(
        "logistic_second_derivative",
        None,
        lambda x: -np.tanh(x / 2) * sigmoid(x) * sigmoid(-x),
        primitive="logistic_second_derivative",
        places=(1.316957897, -1.316957897, 2.2924317, -2.2924317),
    ),
]


def squareplus(x: np.ndarray, b: float) -> np.ndarray:
    root = np.hypot(x, np.sqrt(Exact(b)))
    small = np.where(root > 0, Exact(b) / (2 * np.where(root > 0, root + np.abs(x), 1)), 0)
    return np.where(x >= 0, (root + np.abs(x)) / 2, small)


# One for every way through the code.
SMOOTH = ("exp", "log", "square", "elu 2", "erf", "silu", "tanh_derivative", "pow 3.0", "sin")
every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=str)
# Rounding is worse in single precision; in double precision tests of other things run as well.
every_width = pytest.mark.parametrize(
    "dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.long)], ids=["f32", "f64"]
)
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
    n = 1100
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
    weights = np.linspace(Exact(0), Exact(1), 33).reshape(-1, 1)
    scales = 10.0 ** np.linspace(-30, 30, 7)
    steps = np.arange(-2, 2.5, 0.5)
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
    found = arithmetic.jit(lambda b: (relaxation.image(b), relax(relaxation, b)))(box)
    defined = np.ones(box.lower.shape, bool)
    if hasattr(relaxation, "inside"):
        defined = np.broadcast_to(np.asarray(relaxation.inside(box)), defined.shape)
    return (*found, defined)


# ---- soundness -----------------------------------------------------------------------------


@every_width
@every_function
def test_encloses(function: Function, dtype: Any):
    assert len(boxes(function, dtype).lower) > 1000
    assert_encloses(function, dtype, *solved(function, dtype))


@pytest.mark.few(12)
@every_width
@every_function
def test_slopes_and_lines_of_given_slopes(function: Function, dtype: Any):
    """Chords between points of a box are within its slopes; and any slope has its lines.

    Those of the slopes that the relaxation itself chooses are no worse than its own.
    """
    image, lines, defined = solved(function, dtype)
    relaxation = function.relaxation(dtype)
    box = Interval(*map(jnp.asarray, boxes(function, dtype)))
    shape, rng = box.lower.shape, np.random.default_rng(3)
    near = rng.choice([lines.lower_slope, lines.upper_slope, 0 * lines.lower_slope]) + 0.0
    slope = jnp.asarray(near * rng.choice([1, 0.5, 2, -1], shape) + rng.choice([0, 0.1], shape))

    @arithmetic.jit
    def asked(box: Interval, slope: Any) -> Any:
        again = (offsets(relaxation, s, box) for s in (lines.lower_slope, lines.upper_slope))
        return slope_range(relaxation, box), offsets(relaxation, slope, box), *again

    (least, most), (below, above), low, high = asked(box, slope.astype(dtype))
    given = type(lines)(slope, below, slope, above)
    assert_encloses(function, dtype, image, given, defined)
    with np.errstate(all="ignore"):
        far = np.maximum(*map(np.abs, map(exactly, box)))
        slope, offset, slope_, offset_ = map(exactly, lines)
        size = np.abs(offset) + np.abs(offset_) + (np.abs(slope) + np.abs(slope_)) * far
        rounding = 64 * (np.finfo(dtype).eps * size + np.finfo(dtype).tiny)
        drawn = defined & (size < np.finfo(dtype).max / 32)
        assert (~drawn | (low.lower >= offset - rounding)).all()
        assert (~drawn | (high.upper <= offset_ + rounding)).all()
        x = np.sort(inside(function, box), 0)
        y = function.truth(x)
        apart = np.diff(x, axis=0)
        chords = np.diff(y, axis=0) / apart
        size = np.maximum(np.abs(y[1:]), np.abs(y[:-1]))
        units = 16 * np.finfo(Exact).eps + function.ulps * np.finfo(np.float64).eps
        room = (units * size + 16 * Exact(np.finfo(dtype).tiny)) / apart
        known = (apart > 0) & np.isfinite(chords) & np.isfinite(room) & defined
        assert (~known | (chords >= exactly(least) - room)).all()
        assert (~known | (chords <= exactly(most) + room)).all()


@pytest.mark.few(4)
@every_width
@pytest.mark.parametrize(
    "function",
    [
        pytest.param(f, id=f.name, marks=() if f.name in SMOOTH else pytest.mark.long)
        for f in FUNCTIONS
    ],
)
def test_every_member_of_the_family_encloses(function: Function, dtype: Any):
    """At positions from 0 to 1, the ends among them, exactly and from a table."""
    image, _, defined = solved(function, dtype)
    relaxation = function.relaxation(dtype)
    box = Interval(*map(jnp.asarray, boxes(function, dtype)))
    rng = np.random.default_rng(2)
    position = tuple(
        jnp.asarray(
            np.where(
                rng.uniform(size=box.lower.shape) < 0.3,
                rng.integers(0, 2, box.lower.shape),
                rng.uniform(size=box.lower.shape),
            ),
            dtype,
        )
        for _ in range(2)
    )

    @arithmetic.jit
    def members(box: Interval) -> list[Any]:
        family = relax_family(relaxation, box)
        return [f.at(position if f.start else ()) for f in (family, tabulated(family, box))]

    for lines in members(box):
        assert_encloses(function, dtype, image, lines, defined)


def assert_encloses(function: Function, dtype: Any, image: Any, lines: Any, defined: np.ndarray):
    box = boxes(function, dtype)
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


# ---- tightness -----------------------------------------------------------------------------


def moderate(function: Function) -> Interval:
    """Boxes of ordinary size in the inside of the domain, in which rounding hides nothing."""
    rng = np.random.default_rng(1)
    low, high = max(function.low, -7.0), min(function.high, 7.0)
    ends = rng.uniform(low, high, (2, 150))
    ends[:, ::3] = rng.uniform(max(low, -2), min(high, 2), ends[:, ::3].shape)
    room = 0.01 if function.low > -INF or function.high < INF else 0
    lower, upper = (np.clip(x, low + room, high - room) for x in (ends.min(0), ends.max(0)))
    wide = upper - lower > 0.05
    return Interval(lower[wide], upper[wide])


def envelope(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The convex envelope of samples `[points, boxes]`, an odd number, at the middle one."""
    half = len(x) // 2
    left, right, middle = (x[:half, None], y[:half, None]), (x[half + 1 :], y[half + 1 :]), x[half]
    chord = left[1] + (right[1] - left[1]) * (middle - left[0]) / (right[0] - left[0])
    return np.minimum(chord.min((0, 1)), y[half])


@functools.cache
def defined_moderate(function: Function) -> tuple[Interval, Any, np.ndarray, np.ndarray]:
    """Moderate boxes in the domain, what is found for them, and samples of the function."""
    relaxation = function.relaxation(np.float64)
    box = moderate(function)
    plain = relaxation.relaxation if isinstance(relaxation, Compiled) else relaxation
    if hasattr(plain, "inside"):
        kept = np.broadcast_to(np.asarray(plain.inside(box)), box.lower.shape)
        box = Interval(*(x[kept] for x in box))
    box = Interval(*map(jnp.asarray, box))
    weights = np.linspace(0, 1, 129).reshape(-1, 1)
    x = np.asarray(box.lower) * (1 - weights) + np.asarray(box.upper) * weights
    found = arithmetic.jit(lambda b: (relaxation.image(b), relax(relaxation, b)))(box)
    return box, found, x, np.asarray(function.truth(x), float)


STEPS = ("sign", "floor", "ceil", "round", "round away")


@pytest.mark.few(25)
@pytest.mark.parametrize("function", [f for f in FUNCTIONS if f.name not in STEPS], ids=str)
def test_lines_are_the_best_in_the_middle(function: Function):
    """The mean of a line is its value in the middle, where no line can pass the envelope."""
    box, (_, lines), x, y = defined_moderate(function)
    assert len(box.lower) > 20
    middle, height = x[64], y.max(0) - y.min(0)
    room = 3e-3 * height + 1e-9
    if function.name in NEAREST_TO_ZERO:
        touching = (y - (lines.lower_slope * x + lines.lower_offset)).min(0)
        assert (touching <= room).all()
    else:
        below = envelope(x, y) - (lines.lower_slope * middle + lines.lower_offset)
        assert (below <= room).all(), np.stack([*box, below / height], 1)[below > room]
        above = lines.upper_slope * middle + lines.upper_offset + envelope(x, -y)
        assert (above <= room).all(), np.stack([*box, above / height], 1)[above > room]


# Their tangents stay on one side of zero, at a price in the middle.
NEAREST_TO_ZERO = {"square", "one_minus_square", *(f"integer_pow {n}" for n in (2, 4, 8))}


@every_function
def test_image_is_the_range(function: Function):
    box, (image, _), _, y = defined_moderate(function)
    places = [0.0, *(np.pi / 2 * np.arange(-4, 5)), *function.places]
    near = np.clip(np.array(places).reshape(-1, 1), *map(np.asarray, box))
    with np.errstate(all="ignore"):
        y = np.concatenate([y, np.asarray(function.truth(near.astype(Exact)), float)])
    room = 2e-4 * (y.max(0) - y.min(0)) + 1e-12 * np.abs(y).max(0)
    assert (y.min(0) - image.lower <= room).all()
    assert (image.upper - y.max(0) <= room).all()


# ---- derivatives ---------------------------------------------------------------------------


LONGEST = ("elu 2", "silu", "tanh_derivative")
smooth = pytest.mark.parametrize(
    "function",
    [
        pytest.param(f, id=f.name, marks=pytest.mark.slow if f.name in LONGEST else ())
        for f in FUNCTIONS
        if f.name in SMOOTH
    ],
)


@pytest.mark.long
@smooth
def test_derivatives_are_the_same_compiled(function: Function):
    """As a whole, and operation by operation: no choice is made twice, and rounded otherwise."""
    relaxation = function.relaxation(np.float64)
    box, _, _, _ = defined_moderate(function)
    weights = jax.random.normal(jax.random.key(0), (6, *box.lower.shape))

    def total(box: Interval) -> jax.Array:
        results = jax.tree.leaves((relax(relaxation, box), relaxation.image(box)))
        finite = (jnp.where(jnp.isfinite(x), x, 0) for x in results)
        return sum(jnp.sum(w * x) for w, x in zip(weights, finite, strict=True))

    for whole, single in zip(jax.jit(jax.grad(total))(box), jax.grad(total)(box), strict=True):
        np.testing.assert_allclose(whole, single, rtol=1e-6, atol=1e-6)


@pytest.mark.few(2)
@smooth
def test_derivatives_match_finite_differences(function: Function):
    """They are finite, and right wherever the lines are smooth in the box."""
    relaxation = function.relaxation(np.float64)
    box, _, _, _ = defined_moderate(function)
    step = 1e-4  # bisection leaves noise in the slopes

    def both(box: Interval) -> Any:
        return relax(relaxation, box), relaxation.image(box)

    @arithmetic.jit
    def compare(box: Interval) -> list[Any]:
        results = []
        for side in range(2):
            tangent = Interval(*(jnp.full_like(box.lower, float(i == side)) for i in range(2)))
            exact = jax.jvp(both, (box,), (tangent,))[1]
            ahead, behind = (
                both(jax.tree.map(lambda x, t, s=s: x + s * step * t, box, tangent))
                for s in (1, -1)
            )
            numeric = jax.tree.map(lambda a, b: (a - b) / (2 * step), ahead, behind)
            results.append((exact, numeric))
        return results

    for exact, numeric in compare(box):
        for derivative, difference in zip(*map(jax.tree.leaves, (exact, numeric)), strict=True):
            assert np.isfinite(derivative).all()
            # Sampled boxes may straddle a switch from one kind of line to another.
            wrong = np.abs(derivative - difference) > 2e-3 * (1 + np.abs(difference))
            assert wrong.mean() < 0.03


@pytest.mark.few(2)
@smooth
def test_derivatives_of_degenerate_boxes_are_finite(function: Function):
    relaxation = function.relaxation(np.float64)
    points = jnp.array((-2.0, -0.75, 0.0, 0.5, 1.5, *function.places))
    inside_ = (points > function.low) & (points < function.high)
    box = Interval(points[inside_], points[inside_])

    def total(box: Interval) -> Any:
        lines, image = relax(relaxation, box), relaxation.image(box)
        leaves = jax.tree.leaves((lines, image))
        return sum(jnp.where(jnp.isfinite(x), x, 0).sum() for x in leaves)

    for found in arithmetic.jit(jax.grad(total))(box):
        assert np.isfinite(found).all()


# ---- functions of which only intervals are known -------------------------------------------


def monotone(f: Callable[[Any], Any]) -> Callable[[Interval], Interval]:
    return lambda box: Interval(f(box.lower), f(box.upper))


def sech_squared_range(box: Interval) -> Interval:
    """The range of `1 - tanh(x)^2`, widened by some places."""
    near = jnp.clip(0.0, box.lower, box.upper)
    far = jnp.maximum(jnp.abs(box.lower), jnp.abs(box.upper))
    return Interval(*((1 - jnp.tanh(x) ** 2) * k for x, k in ((far, 1 - 1e-6), (near, 1 + 1e-6))))


@every_dtype
def test_unknown_functions_are_enclosed(dtype: Any):
    tanh = Function("tanh", None, np.tanh)
    relaxation = Unknown(monotone(jnp.tanh), sech_squared_range)
    box = boxes(tanh, dtype)
    image, lines = arithmetic.jit(lambda b: (relaxation.image(b), relax(relaxation, b)))(box)
    x = inside(tanh, box)
    y, room = np.tanh(x), 4 * np.finfo(dtype).eps
    assert (exactly(image.lower) - room <= y).all() and (y <= exactly(image.upper) + room).all()
    lower_slope, lower_offset, upper_slope, upper_offset = (exactly(p) for p in lines)
    assert (lower_slope * x + lower_offset <= y + room).all()
    assert (y <= upper_slope * x + upper_offset + room).all()


def test_lines_of_unknown_functions_are_close():
    box = Interval(*map(jnp.asarray, moderate(Function("tanh", None, np.tanh))))
    found = Unknown(monotone(jnp.tanh), sech_squared_range).lines(box)
    middle = 0.5 * (box.lower + box.upper)
    gap = (found.upper_slope - found.lower_slope) * middle
    gap += found.upper_offset - found.lower_offset
    height = jnp.tanh(box.upper) - jnp.tanh(box.lower)
    assert (gap <= 1.3 * height).all() and (gap / height).mean() < 0.7
