"""Means and variances over batches, whatever network they are of."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import jax
import numpy as np

from jaxlirpa._errors import UntrainedBatchNormWarning
from jaxlirpa._types import Array, PyTree


class Moments(NamedTuple):
    """What is known of values that were seen in batches.

    Attributes:
        mean, var: trees of the same structure.
        examples: how many were seen.
    """

    mean: PyTree
    var: PyTree
    examples: int


def pooled(a: Moments, b: Moments) -> Moments:
    """The moments of both together.

    With shares `p + q = 1` of the examples, the mean is `p ma + q mb`, and the mean square distance
    from it is `p va + q vb + p q (ma - mb)^2`.
    """
    examples = a.examples + b.examples
    share = b.examples / examples

    def mean(x: Array, y: Array) -> Array:
        return x + share * (y - x)

    def var(x: Array, y: Array, m: Array, n: Array) -> Array:
        return mean(x, y) + share * (1 - share) * (n - m) ** 2

    return Moments(
        jax.tree.map(mean, a.mean, b.mean),
        jax.tree.map(var, a.var, b.var, a.mean, b.mean),
        examples,
    )


def warn_if_untrained(means: dict[str, Array], variances: dict[str, Array]) -> None:
    """Warns where statistics, by the names of layers, are those that a BatchNorm begins with."""
    known = {
        name: (means[name], variances[name])
        for name in means
        if not isinstance(means[name], jax.core.Tracer)
        and not isinstance(variances[name], jax.core.Tracer)
    }
    initial = [
        name
        for name, (mean, var) in known.items()
        if np.all(np.asarray(mean) == 0) and np.all(np.asarray(var) == 1)
    ]
    if initial:
        warnings.warn(
            f"the running statistics of {', '.join(initial)} are still zero and one, as "
            "they begin: train the network, take precise_statistics, or load the statistics that "
            "belong to the weights.",
            UntrainedBatchNormWarning,
            stacklevel=3,
        )
