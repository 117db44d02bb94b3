"""Whether any weights in a set change a prediction."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxlirpa._methods.crown import crown
from jaxlirpa._types import Array, PyTree
from jaxlirpa.landscape.band import Method
from jaxlirpa.landscape.reading import require_read


def unchanged(
    network: Callable[..., Array], *, method: Method = crown, batch_size: int | None = None
) -> Callable[..., Array]:
    """Certifies, input by input, that no weights in a set give another class.

    An input's functionals are its own: its weights' coefficients are not those of another input.
    So inputs are bounded one after the other (`jax.lax.map`), or some at once.

    Args:
        network: function of the weights and a batch of inputs, to logits `[examples, classes]`.
        method: a transform, as `jaxlirpa.crown`.
        batch_size: how many inputs are bounded at once, by `jax.vmap`; default: one.

    Returns:
        A function of the weights, of the weights with sets in the place of some leaves, and of a
        batch of inputs, to truth values `[examples]`: where True, every member of the sets puts the
        input into the class that the weights put it into.

    Raises:
        ArgumentError: by the returned function, where the network does not read some of the weights
            that are in sets; and what `method` raises.
    """

    def certified(params: PyTree, sets: PyTree, inputs: Array) -> Array:
        def one(x: Array) -> Array:
            logits = network(params, x[None])[0]
            label, count = jnp.argmax(logits), logits.shape[0]
            differences = jax.nn.one_hot(label, count, dtype=logits.dtype) - jnp.eye(
                count, dtype=logits.dtype
            )
            lower, _ = method(lambda weights: differences @ network(weights, x[None])[0])(sets)
            return jnp.all((lower > 0) | (jnp.arange(count) == label))

        if len(inputs):
            require_read(network, sets, inputs[:1])
        return jax.lax.map(one, inputs, batch_size=batch_size)

    return certified
