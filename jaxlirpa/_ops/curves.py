"""Relaxations of the smooth functions, with the facts about each: derivative, bends, turns.

A derivative is written such that it is accurate wherever it is not small by cancellation; where it
is a sum, the size of the terms is given. Accuracies were measured against extended precision;
functions not remarked upon are known to less than three units in the last place.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn import sigmoid
from jax.scipy.special import polygamma

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval
from jaxlirpa._relax.convex import Convex, always, nearest_to_zero
from jaxlirpa._relax.curved import Curve
from jaxlirpa._relax.lines import Adjustable, Lines
from jaxlirpa._relax.periodic import Wave
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._relax.smooth import Smooth
from jaxlirpa._relax.solvable import Solvable
from jaxlirpa._types import Array

# What is below this gives the same value as this, and no `-inf * 0`.
_FAR_BELOW = -1e3


# A factor below the normal numbers, which processors flush, is an error of this times an ulp.
_FLUSHED = 1e-28


def ulps(
    known: float, growth: Callable[[Array], Array] | None = None, most: float = 1e3
) -> Callable[[Array], Array]:
    """An accuracy that is constant but for a growing part."""
    if growth is None:
        return lambda x: jnp.full_like(x, known)
    return lambda x: jnp.minimum(known + growth(jnp.abs(jax.lax.stop_gradient(x))), most)


def _double(x: Array) -> Array:
    """The polynomial of XLA's `log1p` in double precision loses seven bits."""
    return jnp.full_like(x, 128.0 if jnp.finfo(x.dtype).bits == 64 else 4.0)


def _itself(x: Array) -> Array:
    return x


def _reciprocal_square(x: Array) -> Array:
    return 1 / x / x


# ---- convex and concave --------------------------------------------------------------------

EXP = Convex(Smooth(jnp.exp, jnp.exp))
EXP2 = Convex(
    # Computed as the exponential of a rounded product.
    Smooth(jnp.exp2, lambda x: math.log(2) * jnp.exp2(x), ulps(4, _itself))
)
EXPM1 = Convex(Smooth(jnp.expm1, jnp.exp))
LOG = Convex(Smooth(jnp.log, jnp.reciprocal), always)
LOG2 = Convex(Smooth(jnp.log2, lambda x: 1 / (math.log(2) * x)), always)
LOG1P = Convex(Smooth(jnp.log1p, lambda x: 1 / (1 + x), _double), always)
SQRT = Convex(Smooth(jnp.sqrt, lambda x: 0.5 * jax.lax.rsqrt(x)), always)
RSQRT = Convex(Smooth(jax.lax.rsqrt, lambda x: -0.5 * jax.lax.rsqrt(x) / x))
SQUARE = Convex(Smooth(jnp.square, lambda x: 2 * x), turn=0.0, touch=nearest_to_zero)
ONE_MINUS_SQUARE = Convex(
    Smooth(lambda x: (1 - x) * (1 + x), lambda x: -2 * x), always, 0.0, nearest_to_zero
)
COSH = Convex(Smooth(jnp.cosh, jnp.sinh, ulps(4, _itself)), turn=0.0)
ACOSH = Convex(Smooth(jnp.arccosh, lambda x: jax.lax.rsqrt(x - 1) * jax.lax.rsqrt(x + 1)), always)
SOFTPLUS = Convex(Smooth(jax.nn.softplus, sigmoid))
LOG_SIGMOID = Convex(Smooth(jax.nn.log_sigmoid, lambda x: sigmoid(-x)), always)
SPARSE_PLUS = Convex(
    Smooth(jax.nn.sparse_plus, lambda x: jnp.clip(0.5 * (x + 1), 0, 1), terms=jnp.ones_like)
)
LGAMMA = Convex(
    Smooth(
        jax.lax.lgamma, jax.lax.digamma, ulps(16), 1.0, lambda x: 1 + jnp.abs(jax.lax.digamma(x))
    ),
    turn=1.4616321449683623,
)
DIGAMMA = Convex(Smooth(jax.lax.digamma, lambda x: polygamma(1, x), ulps(16), 1.0), always)


def celu(alpha: Array) -> Convex:
    """`x` where positive, else `alpha (exp(x / alpha) - 1)`, which is smooth."""

    def scaled(x: Array) -> Array:
        return jnp.minimum(x, 0) / alpha

    return Convex(
        Smooth(
            lambda x: where(x > 0, x, alpha * jnp.expm1(scaled(x))),
            lambda x: jnp.exp(scaled(x)),
            ulps(4, lambda x: -scaled(-x) * jnp.sign(alpha)),
        ),
        lambda box: alpha < 0,
    )


def squareplus(b: Array) -> Convex:
    """`(x + sqrt(x^2 + b)) / 2`, without the cancellation for negative `x`."""

    def root(x: Array) -> Array:
        return jnp.hypot(x, jnp.sqrt(b))

    def function(x: Array) -> Array:
        high = root(x) + jnp.abs(x)
        safe = where(high > 0, high, 1)
        return where(x >= 0, 0.5 * high, 0.5 * b / safe)

    def derivative(x: Array) -> Array:
        r = root(x)
        return where(r > 0, function(x) / where(r > 0, r, 1), 0.5)

    return Convex(Smooth(function, derivative, ulps(8)))


def exponential(base: Array) -> Convex:
    """`b**x` for a positive known base."""
    rate = jnp.log(base)
    return Convex(
        Smooth(
            lambda x: jax.lax.pow(jnp.broadcast_to(base, x.shape), x),
            lambda x: rate * jax.lax.pow(jnp.broadcast_to(base, x.shape), x),
        )
    )


def integer_power(n: int) -> Convex | Curve:
    """`x**n`; for a negative `n` on boxes without zero."""
    smooth = Smooth(
        lambda x: jax.lax.integer_pow(x, n),
        lambda x: n * jax.lax.integer_pow(x, n - 1) if n else jnp.zeros_like(x),
        ulps(4 + abs(n)),
    )
    if n % 2 and n > 1:
        return Curve(smooth, (0.0,), convex=False)
    if n % 2 and n < 0:
        return Convex(smooth, lambda box: box.upper < 0)
    return Convex(smooth, turn=0.0, touch=nearest_to_zero) if n > 0 else Convex(smooth)


# ---- with bends ----------------------------------------------------------------------------


def _cbrt_slope(x: Array) -> Array:
    proper = x != 0
    root = jnp.cbrt(where(proper, x, 1))
    return where(proper, 1 / (3 * root * root), jnp.inf)


def _sech_squared(x: Array) -> Array:
    """`1 - tanh(x)^2`, without its cancellation."""
    return 4 * sigmoid(2 * x) * sigmoid(-2 * x)


def _gauss(x: Array) -> Array:
    """The derivative of `erf`."""
    return 2 / math.sqrt(math.pi) * jnp.exp(-x * x)


def _arc_slope(x: Array) -> Array:
    return jax.lax.rsqrt((1 - x) * (1 + x))


def _erf_inv_slope(x: Array) -> Array:
    return 0.5 * math.sqrt(math.pi) * jnp.exp(jnp.square(jax.lax.erf_inv(x)))


ATAN = Curve(Smooth(jnp.arctan, lambda x: 1 / (1 + x * x)), (0.0,), convex=True)
ASINH = Curve(Smooth(jnp.arcsinh, lambda x: 1 / jnp.hypot(x, jnp.ones_like(x))), (0.0,), True)
ERF = Curve(Smooth(jax.lax.erf, _gauss), (0.0,), convex=True)
CBRT = Curve(Smooth(jnp.cbrt, _cbrt_slope, ulps(6)), (0.0,), convex=True)
SOFT_SIGN = Curve(
    Smooth(jax.nn.soft_sign, lambda x: _reciprocal_square(1 + jnp.abs(x))), (0.0,), convex=True
)
ACOS = Curve(Smooth(jnp.arccos, lambda x: -_arc_slope(x)), (0.0,), convex=True)
ASIN = Curve(Smooth(jnp.arcsin, _arc_slope), (0.0,), convex=False)
ATANH = Curve(Smooth(jnp.arctanh, lambda x: 1 / ((1 - x) * (1 + x)), _double), (0.0,), False)
SINH = Curve(Smooth(jnp.sinh, jnp.cosh, ulps(4, _itself)), (0.0,), convex=False)
ERFC = Curve(Smooth(jax.lax.erfc, lambda x: -_gauss(x), ulps(8, jnp.square)), (0.0,), convex=False)
ERF_INV = Curve(
    Smooth(
        jax.lax.erf_inv,
        _erf_inv_slope,
        # As if its argument had been rounded.
        ulps(16, _erf_inv_slope, 1e12),
        # The exponent, which is rounded, is as large as this.
        terms=lambda x: _erf_inv_slope(x) * (1 + jnp.square(jax.lax.erf_inv(x))),
    ),
    (0.0,),
    convex=False,
)
TANH_DERIVATIVE = Curve(
    Smooth(_sech_squared, lambda x: -2 * jnp.tanh(x) * _sech_squared(x), ulps(8)),
    (-0.6584789484624084, 0.6584789484624084),
    convex=True,
    turns=(0.0,),
)
LOGISTIC_DERIVATIVE = Curve(
    Smooth(
        lambda x: sigmoid(x) * sigmoid(-x),
        lambda x: -jnp.tanh(0.5 * x) * sigmoid(x) * sigmoid(-x),
        ulps(8),
    ),
    (-1.3169578969248167, 1.3169578969248167),
    convex=True,
    turns=(0.0,),
)


# ---- by their slopes -----------------------------------------------------------------------


def _tanh_bend(x: Array) -> Array:
    """The second derivative of tanh, `-2 t (1 - t^2)`."""
    return -2 * jnp.tanh(x) * _sech_squared(x)


def _tanh_bend_slope(x: Array) -> Array:
    c = _sech_squared(x)
    return c * (4 - 6 * c)


def _where_tanh_bend_has(slope: Array) -> tuple[Array, ...]:
    """Where the third derivative of tanh is `m`.

    It is `(1 - t^2) (6 t^2 - 2) = c (4 - 6 c)` for `c = 1 - t^2 = 1 / cosh(x)^2`. For `m` between
    -2 and 2/3 the roots are `c = (2 + r) / 6` and `c = m / (2 + r)` with `r = sqrt(4 - 6 m)`, and
    `sinh(x)^2 = (1 - c) / c`, where `1 - c = (2 + m) / (4 + r)` and `(2 + r - m) / (2 + r)`. The
    second root is positive, and a point, for a positive `m` alone.
    """
    m = jnp.clip(slope, -2, 2 / 3)
    r = jnp.sqrt(jnp.maximum(4 - 6 * m, 0))
    near = jnp.arcsinh(jnp.sqrt(6 * (2 + m) / ((4 + r) * (2 + r))))
    positive = where(m > 0, m, 1)
    far = where(m > 0, jnp.arcsinh(jnp.sqrt((2 + r - m) / positive)), jnp.inf)
    return -far, -near, near, far


TANH_BEND = Solvable(
    Smooth(_tanh_bend, _tanh_bend_slope, ulps(16), terms=lambda x: 4 * _sech_squared(x)),
    _where_tanh_bend_has,
    slopes=(-2.0, 2 / 3),
    turns=(-0.6584789484624084, 0.6584789484624084),
)

# `s (1 - s) (1 - 2 s)` for `s = (1 + t) / 2`, where `t = tanh(x / 2)`, is `-t (1 - t^2) / 4`.
LOGISTIC_BEND = Solvable(
    Smooth(
        lambda x: _tanh_bend(0.5 * x) / 8,
        lambda x: _tanh_bend_slope(0.5 * x) / 16,
        ulps(16),
        terms=lambda x: _sech_squared(0.5 * x) / 4,
    ),
    lambda slope: tuple(2 * x for x in _where_tanh_bend_has(16 * slope)),
    slopes=(-1 / 8, 1 / 24),
    turns=(-1.3169578969248167, 1.3169578969248167),
)


# ---- with bends, and a straight end ---------------------------------------------------------

SILU = Curve(
    Smooth(
        lambda x: jnp.maximum(x, _FAR_BELOW) * sigmoid(x),
        lambda x: sigmoid(x) * (1 + x * sigmoid(-x)),
        floor=_FLUSHED,
        terms=lambda x: sigmoid(x) * (1 + jnp.abs(x) * sigmoid(-x)),
    ),
    (-2.3993572805154677, 2.3993572805154677),
    convex=False,
    turns=(-1.2784645427610738,),
)


def _normal(x: Array) -> Array:
    """The distribution function of the normal distribution."""
    return 0.5 * jax.lax.erfc(-x / math.sqrt(2))


def _density(x: Array) -> Array:
    return jnp.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


GELU = Curve(
    Smooth(
        lambda x: jnp.maximum(x, _FAR_BELOW) * _normal(x),
        lambda x: _normal(x) + x * _density(x),
        ulps(8, jnp.square),
        _FLUSHED,
        terms=lambda x: _normal(x) + jnp.abs(x) * _density(x),
    ),
    (-math.sqrt(2), math.sqrt(2)),
    convex=False,
    turns=(-0.7517915246935645,),
)


def _gelu_argument(x: Array) -> Array:
    """`tanh`'s argument in the approximation of gelu, twice."""
    return 2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)


def _gelu_tanh_terms(x: Array) -> tuple[Array, Array]:
    near = jnp.clip(x, -1e3, 1e3)
    argument = _gelu_argument(near)
    rate = 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * near * near)
    return sigmoid(argument), near * rate * sigmoid(argument) * sigmoid(-argument)


GELU_TANH = Curve(
    Smooth(
        lambda x: jnp.maximum(x, _FAR_BELOW) * sigmoid(_gelu_argument(x)),
        lambda x: sum(_gelu_tanh_terms(x), jnp.zeros_like(x)),
        ulps(4, lambda x: 2 * _gelu_argument(x)),
        _FLUSHED,
        terms=lambda x: sum(map(jnp.abs, _gelu_tanh_terms(x)), jnp.zeros_like(x)),
    ),
    (-1.4185040087908284, 1.4185040087908284),
    convex=False,
    turns=(-0.7524614220710163,),
)


def _mish_terms(x: Array) -> tuple[Array, Array]:
    positive = jax.nn.softplus(x)
    near = jnp.clip(x, -1e3, 1e3)
    return jnp.tanh(positive), near * _sech_squared(positive) * sigmoid(x)


MISH = Curve(
    Smooth(
        lambda x: jnp.maximum(x, _FAR_BELOW) * jnp.tanh(jax.nn.softplus(x)),
        lambda x: sum(_mish_terms(x), jnp.zeros_like(x)),
        ulps(8),
        _FLUSHED,
        terms=lambda x: sum(map(jnp.abs, _mish_terms(x)), jnp.zeros_like(x)),
    ),
    (-2.2563763963607931, 1.4905711794854285),
    convex=False,
    turns=(-1.1924312145154952,),
)


def _hard_silu_slope(x: Array) -> Array:
    return where(x <= -3, 0, where(x >= 3, 1, (2 * x + 3) / 6))


HARD_SILU = Curve(
    Smooth(jax.nn.hard_silu, _hard_silu_slope, terms=jnp.ones_like),
    (-3.0, 3.0),
    convex=False,
    turns=(-1.5,),
)


def elu(alpha: Array | float, scale: float = 1.0) -> Curve:
    """`x` where positive, else `alpha (exp(x) - 1)`, both scaled; `alpha` is not negative.

    Straight from zero on, which counts as concave. The kink there is convex or concave.
    """

    def below(x: Array) -> Array:
        return jnp.minimum(x, 0)

    return Curve(
        Smooth(
            lambda x: scale * where(x > 0, x, alpha * jnp.expm1(below(x))),
            lambda x: scale * where(x > 0, 1, alpha * jnp.exp(below(x))),
        ),
        (0.0,),
        convex=True,
    )


SELU = elu(alpha=1.6732632423543772, scale=1.0507009873554805)


# ---- periodic ------------------------------------------------------------------------------

SIN = Wave(Smooth(jnp.sin, jnp.cos, ulps(8)))
COS = Wave(Smooth(jnp.cos, lambda x: -jnp.sin(x), ulps(8)), phase=math.pi / 2)


def branch(box: Interval) -> Array:
    """The zero of `tan` that is nearest to the middle of the box."""
    return math.pi * jnp.round((0.5 * box.lower + 0.5 * box.upper) / math.pi)


class Tan(Adjustable):
    """`tan` on the branch that the middle of the box is in."""

    smooth = Smooth(jnp.tan, lambda x: 1 + jnp.square(jnp.tan(x)))

    def image(self, box: Interval) -> Interval:
        """The function increases."""
        return self._on_branch(box).image(box)

    def family(self, box: Interval) -> Relaxations[Lines]:
        """Concave below the branch's zero, convex above."""
        return self._on_branch(box).family(box)

    def _on_branch(self, box: Interval) -> Curve:
        return Curve(self.smooth, (jax.lax.stop_gradient(branch(box)),), convex=False)
