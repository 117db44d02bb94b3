"""Functions of one perturbed operand, entry by entry."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._graph.graph import Node, Ref
from jaxlirpa._minmax import maximum, minimum
from jaxlirpa._ops import curves
from jaxlirpa._ops.families import Elementwise, Record
from jaxlirpa._relax.compiled import Compiled
from jaxlirpa._relax.piecewise import AlphaAtKink, Clip, OneKink, flat, nearest
from jaxlirpa._relax.rounding import Near, Rounding, growth
from jaxlirpa._relax.sshaped import SShaped


def _max(node: Node) -> OneKink:
    """One kink, at the known operand: convex."""
    (known,) = node.known
    zero, one = jnp.zeros_like(known), jnp.ones_like(known)
    return OneKink(lambda x: maximum(known, x), known, zero, one)


def _min(node: Node) -> OneKink:
    """One kink, at the known operand: concave."""
    (known,) = node.known
    zero, one = jnp.zeros_like(known), jnp.ones_like(known)
    return OneKink(lambda x: minimum(x, known), known, one, zero)


def _abs(node: Node, start: AlphaAtKink) -> OneKink:
    """One kink, at zero."""
    one = jnp.ones((), node.outputs[0].dtype)
    return OneKink(jnp.abs, jnp.zeros_like(one), -one, one, start)


def _leaky_relu(node: Node) -> OneKink:
    """One kink, at zero."""
    left = node.operands[1]
    assert not isinstance(left, Ref)
    one = jnp.ones_like(left)
    return OneKink(lambda x: where(x >= 0, x, left * x), jnp.zeros_like(left), left, one)


def _rounding(node: Node) -> Rounding:
    """To another format, or within the format to fewer digits."""
    if node.primitive == "reduce_precision":
        digits, exponent = node.params["mantissa_bits"], node.params["exponent_bits"]
        eps, tiny = 2.0**-digits, 2.0 ** (2 - 2 ** (exponent - 1))
    else:
        info = jnp.finfo(node.outputs[0].dtype)
        eps, tiny = float(info.eps), float(info.tiny)
    return Rounding(lambda x: node(x)[0], eps, tiny)


def _rounded(node: Node) -> Near:
    """Refined some roundings to a shorter format, or not rounded."""
    dtype = node.params["dtype"]
    info = jnp.finfo(dtype)
    share = growth(dtype, node.params["count"])
    return Near(share, float(info.tiny), float(info.max))


def _clip(node: Node) -> Clip:
    """Two kinks, at the limits."""
    floor, _, ceiling = node.operands
    assert not isinstance(floor, Ref) and not isinstance(ceiling, Ref)
    return Clip(floor, ceiling)


_TANH = Compiled(SShaped(jnp.tanh, curves.TANH_DERIVATIVE.smooth.function))
_SIGMOID = Compiled(SShaped(jax.nn.sigmoid, curves.LOGISTIC_DERIVATIVE.smooth.function))

RECORDS: dict[str, Record] = {
    "abs": Elementwise(
        functools.partial(_abs, start=flat),
        beside_box=functools.partial(_abs, start=nearest),
    ),
    "clamp": Elementwise(_clip, operands=(1,)),
    "leaky_relu": Elementwise(_leaky_relu, operands=(0,)),
    "logistic": Elementwise(lambda node: _SIGMOID),
    "max": Elementwise(_max, together=False),
    "min": Elementwise(_min, together=False),
    "reduce_precision": Elementwise(_rounding),
    "round_to": Elementwise(_rounding),
    "rounded": Elementwise(_rounded),
    "tanh": Elementwise(lambda node: _TANH),
}
