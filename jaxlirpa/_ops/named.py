"""Library functions that are bounded whole, by the name that their `jit` leaves in a trace."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxlirpa._graph.recognise import Named, Vocabulary
from jaxlirpa._typing import Array


def _whole(function: Callable[[Array], Array], primitive: str) -> Named:
    """A function without parameters."""
    return Named(function, primitive, operands=lambda x: (x,), evaluate=function)


def _with_parameter(
    function: Callable[[Array, Array], Array], primitive: str, default: float
) -> Named:
    """A function of one parameter, which has a default."""
    return Named(
        function, primitive, operands=lambda x, value=default: (x, value), evaluate=function
    )


VOCABULARY: Vocabulary = {
    "leaky_relu": Named(
        jax.nn.leaky_relu,
        primitive="leaky_relu",
        operands=lambda x, slope=0.01: (x, slope),
        evaluate=lambda x, slope: jnp.where(x >= 0, x, slope * x),
    ),
    "hard_tanh": Named(
        jax.nn.hard_tanh,
        primitive="clamp",
        operands=lambda x: (-1.0, x, 1.0),
        evaluate=jax.lax.clamp,
    ),
    "elu": _with_parameter(jax.nn.elu, "elu", 1.0),
    "celu": _with_parameter(jax.nn.celu, "celu", 1.0),
    "squareplus": _with_parameter(jax.nn.squareplus, "squareplus", 4.0),
    "silu": _whole(jax.nn.silu, "silu"),
    "hard_silu": _whole(jax.nn.hard_silu, "hard_silu"),
    "softplus": _whole(jax.nn.softplus, "softplus"),
    "log_sigmoid": _whole(jax.nn.log_sigmoid, "log_sigmoid"),
    "selu": _whole(jax.nn.selu, "selu"),
    "mish": _whole(jax.nn.mish, "mish"),
    "soft_sign": _whole(jax.nn.soft_sign, "soft_sign"),
    "sparse_plus": _whole(jax.nn.sparse_plus, "sparse_plus"),
}
