"""Primitives that compute entry by entry, as XLA defines them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special
from jax import lax

Array = np.ndarray


def _sign(x: Array) -> Any:
    return np.where(x == 0, x, np.sign(x))  # keeps the sign of zero


def _quotient(x: Array, y: Array) -> Any:
    """Integers are divided towards zero; by zero every bit of the quotient is one."""
    if x.dtype.kind == "f":
        return x / y
    return np.where(y == 0, ~np.zeros_like(x), _divided(x, y)[0])


def _remainder(x: Array, y: Array) -> Any:
    """It has the sign of x; by zero it is x."""
    return np.fmod(x, y) if x.dtype.kind == "f" else np.where(y == 0, x, _divided(x, y)[1])


def _divided(x: Array, y: Array) -> tuple[Any, Any]:
    """The quotient of integers towards zero, and the remainder; by -1 it wraps around."""
    if x.dtype.kind == "u":
        safe = np.where(y == 0, 1, y).astype(y.dtype)
        return x // safe, x % safe
    safe = np.where((y == 0) | (y == -1), 1, y).astype(y.dtype)
    rest = np.fmod(x, safe)
    return np.where(y == -1, -x, (x - rest) // safe), np.where(y == -1, 0, rest)


def _power(x: Array, n: int) -> Any:
    """By repeated squaring, as XLA does it."""
    result, factor, left = None, x, abs(n)
    while left:
        if left & 1:
            result = factor if result is None else result * factor
        left >>= 1
        factor = factor * factor if left else factor
    whole = np.ones_like(x) if result is None else result
    return 1 / whole if n < 0 else whole


def _rounded(x: Array, method: lax.RoundingMethod) -> Any:
    if method == lax.RoundingMethod.TO_NEAREST_EVEN:
        return np.round(x)
    whole = np.trunc(x)
    return np.where(np.abs(x - whole) >= 0.5, whole + np.sign(x), whole)


def converted(x: Array, dtype: Any) -> Any:
    """In another type: floating numbers saturate where they become integers, and NaN is zero."""
    dtype = np.dtype(dtype)
    if x.dtype.kind != "f" or dtype.kind not in "iu":
        return x.astype(dtype)
    info, whole = np.iinfo(dtype), np.nan_to_num(np.trunc(x), nan=0, posinf=np.inf, neginf=-np.inf)
    # The largest integer may round up to a number that is none of them.
    low, high = whole <= float(info.min), whole >= float(info.max)
    inside = np.where(low | high, 0, whole).astype(dtype)
    return np.where(high, info.max, np.where(low, info.min, inside))


def _shifted(x: Array, count: Array, fn: Callable[..., Any], beyond: Any) -> Any:
    """By as many bits as there are, or more, nothing is left but what comes from beyond."""
    bits = 8 * x.dtype.itemsize
    wide = (count < 0) | (count >= bits)
    return np.where(wide, beyond, fn(x, np.where(wide, 0, count).astype(x.dtype)))


def _shifted_logically(x: Array, count: Array) -> Any:
    unsigned = x.dtype.str.replace("i", "u")
    return _shifted(x.view(unsigned), count, np.right_shift, 0).astype(unsigned).view(x.dtype)


def _shifted_with_sign(x: Array, count: Array) -> Any:
    signed = x.view(x.dtype.str.replace("u", "i"))
    beyond = np.where(signed < 0, -1, 0)
    return _shifted(signed, count.view(signed.dtype), np.right_shift, beyond).astype(x.dtype)


def _bits(args: list[Array], params: Any, aval: Any) -> Any:
    if args[0].dtype.itemsize != np.dtype(aval.dtype).itemsize:
        return NotImplemented
    return np.array(args[0], order="C").view(aval.dtype)


def _each(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda args, params, aval: fn(*args)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    # Arithmetic.
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "div": _quotient,
    "rem": _remainder,
    "max": np.maximum,
    "min": np.minimum,
    "abs": np.abs,
    "sign": _sign,
    "square": np.square,
    "floor": np.floor,
    "ceil": np.ceil,
    "nextafter": np.nextafter,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    # Functions.
    "sqrt": np.sqrt,
    "rsqrt": lambda x: (1 / np.sqrt(x.astype(np.longdouble))).astype(x.dtype),  # rounded once
    "cbrt": np.cbrt,
    "pow": np.power,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": scipy.special.expit,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": scipy.special.erf,
    "erfc": scipy.special.erfc,
    "erf_inv": lambda x: np.copysign(scipy.special.erfinv(x), x),
    "lgamma": lambda x: np.where(np.isinf(x), np.inf, scipy.special.gammaln(x)),
    "digamma": scipy.special.digamma,
    # Comparisons.
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "is_finite": np.isfinite,
    # Bits.
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "shift_left": lambda x, n: _shifted(x, n, np.left_shift, 0),
    "shift_right_arithmetic": _shifted_with_sign,
    "shift_right_logical": _shifted_logically,
    # Identities.
    "copy": np.copy,
    "name": lambda x: x,
    "stop_gradient": lambda x: x,
}

RULES: dict[str, Callable[..., Any]] = {
    **{name: _each(fn) for name, fn in FUNCTIONS.items()},
    "integer_pow": lambda args, params, aval: _power(args[0], params["y"]),
    "round": lambda args, params, aval: _rounded(args[0], params["rounding_method"]),
    "convert_element_type": lambda args, params, aval: converted(args[0], aval.dtype),
    "bitcast_convert_type": _bits,
}
