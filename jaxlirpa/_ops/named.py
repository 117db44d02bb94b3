"""Library functions that are bounded whole, by the name that their `jit` leaves in a trace."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxlirpa._graph.recognise import Named, Vocabulary

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
}
