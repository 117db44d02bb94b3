"""Smooth functions and staircases of one perturbed operand, entry by entry."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._graph.graph import Node
from jaxlirpa._intervals import Interval
from jaxlirpa._ops import curves
from jaxlirpa._ops.families import Elementwise, Record
from jaxlirpa._relax.compiled import Compiled
from jaxlirpa._relax.interpolated import Interpolated
from jaxlirpa._relax.lines import Relaxation
from jaxlirpa._relax.power import Power
from jaxlirpa._relax.restricted import Inside, Restricted
from jaxlirpa._relax.sinc import SINC
from jaxlirpa._relax.steps import Staircase
from jaxlirpa._types import Array

# ---- domains -------------------------------------------------------------------------------


def _between(low: float, high: float) -> Inside:
    """Boxes in `[low, high]`; one with a limit that is NaN is no_axis."""
    return lambda box: (box.lower >= low) & (box.upper <= high)


def _positive(box: Interval) -> Array:
    return (box.lower > 0) & (box.upper > 0)


def _without_zero(box: Interval) -> Array:
    return (box.lower > 0) | (box.upper < 0)


def _on_one_branch(box: Interval) -> Array:
    """Whether no pole of `tan` is in the box, or so near that rounding may have moved it out."""
    zero = curves.branch(box)
    size = 1 + jnp.maximum(jnp.abs(box.lower), jnp.abs(box.upper))
    room = 0.5 * math.pi - 4 * jnp.finfo(size.dtype).eps * size
    return (zero - box.lower < room) & (box.upper - zero < room)


_EVERYWHERE = _between(-math.inf, math.inf)
_FROM_ZERO = _between(0, math.inf)
_UNIT = _between(-1, 1)


# ---- records -------------------------------------------------------------------------------


def _everywhere(relaxation: Relaxation) -> Elementwise:
    compiled = Compiled(relaxation)
    return Elementwise(lambda node: compiled)


def _restricted(
    make: Callable[[Node], Restricted],
    domain: str,
    operands: Sequence[int] | None = None,
    together: bool = True,
) -> Elementwise:
    """A function that is defined on some boxes only."""
    return Elementwise(
        make,
        defined=lambda node, box: make(node).inside(box),
        domain=domain,
        operands=operands,
        together=together,
    )


def _on(relaxation: Relaxation, inside: Inside, home: float, domain: str) -> Elementwise:
    """A function without parameters, whose domain contains `home`."""
    restricted = Restricted(relaxation, inside, home)
    compiled = Compiled(restricted)
    return Elementwise(
        lambda node: compiled, defined=lambda node, box: restricted.inside(box), domain=domain
    )


def _parameter(node: Node) -> Array:
    (known,) = node.known
    return known


def _integer_pow(node: Node) -> Restricted:
    """A power: convex, concave, or S-shaped."""
    n = node.params["y"]
    return Restricted(curves.integer_power(n), _without_zero if n < 0 else _EVERYWHERE, 1.0)


def _pow(node: Node) -> Restricted:
    """A power of the base, or an exponential of the exponent, the other one being known."""
    known = _parameter(node)
    if node.positions == (0,):
        power = Power(known)
        return Restricted(power, power.defined, 1.0)
    return Restricted(curves.exponential(known), _wherever(known > 0), 1.0)


def _celu(node: Node) -> Relaxation:
    """Convex for a positive alpha, else concave."""
    return curves.celu(_parameter(node))


def _elu(node: Node) -> Restricted:
    """Convex up to an alpha of 1, else with a kink."""
    alpha = _parameter(node)
    return Restricted(curves.elu(alpha), _wherever(alpha >= 0), 1.0)


def _squareplus(node: Node) -> Restricted:
    """A function that is convex."""
    b = _parameter(node)
    return Restricted(curves.squareplus(b), _wherever(b >= 0), 1.0)


def _wherever(condition: Array) -> Inside:
    """Every box, where its parameter fulfils a condition."""
    return lambda box: condition & _EVERYWHERE(box)


def _piecewise_linear(node: Node) -> Restricted:
    """Interpolation in a known table."""
    xs, ys = node.known
    step = jnp.diff(xs)
    least = np.spacing(jnp.finfo(xs.dtype).eps)  # to JAX shorter steps are jumps, to be written so
    sorted_ = jnp.all((step == 0) | (step > least))
    finite = jnp.all(jnp.isfinite(xs)) & jnp.all(jnp.isfinite(ys))
    relaxation = Interpolated(lambda x: node(x)[0], xs, ys)
    return Restricted(relaxation, _wherever(sorted_ & finite), 1.0)


def _round(node: Node) -> Staircase:
    """A nondecreasing step function."""
    method = node.params["rounding_method"]
    return Staircase(lambda x: jax.lax.round(x, method), lambda a: a + 0.5)


# Of what is known not to be zero, though its box may contain it.
_GUARDED = Compiled(Restricted(curves.integer_power(-1), _without_zero, 1.0))
_NOT_BELOW_ZERO = "values that are not negative"
_WITHOUT_ZERO = "values that are all positive or all negative"

RECORDS: dict[str, Record] = {
    "acos": _on(curves.ACOS, _UNIT, 0.0, "values between -1 and 1"),
    "acosh": _on(curves.ACOSH, _between(1, math.inf), 2.0, "values of 1 or more"),
    "asin": _on(curves.ASIN, _UNIT, 0.0, "values between -1 and 1"),
    "asinh": _everywhere(curves.ASINH),
    "atan": _everywhere(curves.ATAN),
    "atanh": _on(curves.ATANH, _UNIT, 0.0, "values between -1 and 1"),
    "cbrt": _everywhere(curves.CBRT),
    "ceil": _everywhere(Staircase(jnp.ceil, lambda a: a)),
    "celu": Elementwise(_celu, operands=(0,)),
    "cos": _everywhere(curves.COS),
    "cosh": _everywhere(curves.COSH),
    "digamma": _on(curves.DIGAMMA, _positive, 1.0, "values above 0"),
    "elu": _restricted(_elu, "an alpha that is not negative", operands=(0,)),
    "erf": _everywhere(curves.ERF),
    "erf_inv": _on(curves.ERF_INV, _UNIT, 0.0, "values between -1 and 1"),
    "erfc": _everywhere(curves.ERFC),
    "exp": _everywhere(curves.EXP),
    "exp2": _everywhere(curves.EXP2),
    "expm1": _everywhere(curves.EXPM1),
    "floor": _everywhere(Staircase(jnp.floor, lambda a: a + 1)),
    "gelu": _everywhere(curves.GELU),
    "gelu_tanh": _everywhere(curves.GELU_TANH),
    "hard_silu": _everywhere(curves.HARD_SILU),
    "guarded_reciprocal": Elementwise(lambda node: _GUARDED),
    "integer_pow": _restricted(_integer_pow, _WITHOUT_ZERO),
    "lgamma": _on(curves.LGAMMA, _FROM_ZERO, 1.0, _NOT_BELOW_ZERO),
    "log": _on(curves.LOG, _FROM_ZERO, 1.0, _NOT_BELOW_ZERO),
    "log1p": _on(curves.LOG1P, _between(-1, math.inf), 1.0, "values of -1 or more"),
    "log2": _on(curves.LOG2, _FROM_ZERO, 1.0, _NOT_BELOW_ZERO),
    "log_sigmoid": _everywhere(curves.LOG_SIGMOID),
    "logistic_derivative": _everywhere(curves.LOGISTIC_DERIVATIVE),
    "logistic_second_derivative": _everywhere(curves.LOGISTIC_BEND),
    "mish": _everywhere(curves.MISH),
    "one_minus_square": _everywhere(curves.ONE_MINUS_SQUARE),
    "piecewise_linear": _restricted(
        _piecewise_linear, "a table of finite numbers in order", operands=(0,)
    ),
    "pow": _restricted(
        _pow,
        "a positive base, or a whole known exponent (not negative where the base may be 0)",
        together=False,
    ),
    "reciprocal": _on(curves.integer_power(-1), _without_zero, 1.0, "a divisor other than zero"),
    "round": Elementwise(_round),
    "rsqrt": _on(curves.RSQRT, _positive, 1.0, "values above 0"),
    "selu": _everywhere(curves.SELU),
    "sign": _everywhere(Staircase(jnp.sign, jnp.zeros_like, single=True)),
    "silu": _everywhere(curves.SILU),
    "sin": _everywhere(curves.SIN),
    "sinc": _everywhere(SINC),
    "sinh": _everywhere(curves.SINH),
    "soft_sign": _everywhere(curves.SOFT_SIGN),
    "softplus": _everywhere(curves.SOFTPLUS),
    "sparse_plus": _everywhere(curves.SPARSE_PLUS),
    "sqrt": _on(curves.SQRT, _FROM_ZERO, 1.0, _NOT_BELOW_ZERO),
    "square": _everywhere(curves.SQUARE),
    "squareplus": _restricted(_squareplus, "a `b` that is not negative", operands=(0,)),
    "tan": _on(curves.Tan(), _on_one_branch, 0.0, "values without a pole between them"),
    "tanh_derivative": _everywhere(curves.TANH_DERIVATIVE),
    "tanh_second_derivative": _everywhere(curves.TANH_BEND),
}
