"""Better boxes of the neurons' operands on the whole set, by optimised bounds of each."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxlirpa._intervals import Interval
from jaxlirpa._types import Array
from jaxlirpa.verify.condensed import Condensed, Parameters, Subproblems, bounds_at
from jaxlirpa.verify.optimise import Ascent, optimise
from jaxlirpa.verify.tree import Floats


class Refinement(NamedTuple):
    """What bounds some neurons of one block.

    Attributes:
        neurons: their numbers, `[count]`.
        alpha: for their lower and for their upper bounds, `[2, sides, count, neurons]`.
    """

    neurons: NDArray[np.integer[Any]]
    alpha: Floats


def refine(
    net: Condensed, *, ascent: Ascent, steps: int, batch: int, alternatives: int, count: int
) -> tuple[Condensed, list[Refinement]]:
    """Bounds all unstable neurons behind the first block, block by block.

    Args:
        net: the network.
        ascent, steps: how each bound is optimised.
        batch, alternatives, count: those of the search, with which this shares what is compiled.

    Returns:
        The network with better boxes, and what proves these.
    """
    found = []
    for k in net.slices:
        behind = np.flatnonzero(np.any(np.asarray(net.neurons[net.rows :][k]) != 0, 1))
        possible = np.asarray(_splittable(net))[k][behind]
        numbers = (k.start + behind[possible]).astype(np.int32)
        if not len(numbers):
            continue
        start = net.family(net.box).start
        alphas, limits = [], []
        for sign in (1, -1):
            parts = [
                _optimised(net, some, sign, start, ascent, steps, batch, alternatives, count)
                for some in np.array_split(numbers, range(batch, len(numbers), batch))
            ]
            alphas.append(np.concatenate([alpha for alpha, _ in parts], 1))
            limits.append(sign * np.concatenate([lower for _, lower in parts]))
        refinement = Refinement(numbers, np.stack(alphas))
        net = _with(net, numbers, *limits)
        found.append(refinement)
    return net, found


def _optimised(
    net: Condensed,
    numbers: NDArray[np.integer[Any]],
    sign: int,
    start: Array,
    ascent: Ascent,
    steps: int,
    batch: int,
    alternatives: int,
    count: int,
) -> tuple[Floats, Floats]:
    """The best alphas `[sides, count, neurons]` and lower bounds `[count]` of some neurons."""
    full = np.resize(numbers, batch)
    sub = _rows(net, full, sign, alternatives)
    width = net.neurons.shape[1]
    alpha = jnp.broadcast_to(start[:, None], (len(start), batch, width))
    none = jnp.zeros((batch, width), net.inputs.dtype)
    best = optimise(
        net,
        sub,
        Parameters(alpha, none),
        none.astype(bool),
        jnp.ones(batch, bool),
        jnp.int32(steps),
        ascent=ascent,
        count=count,
    )
    kept = slice(0, len(numbers))
    return np.asarray(best.parameters.alpha)[:, kept], np.asarray(best.found.lower)[kept]


def refined(net: Condensed, refinement: Refinement) -> Condensed:
    """The network with the boxes that a refinement proves."""
    limits = []
    for sign, alpha in zip((1, -1), refinement.alpha, strict=True):
        sub = _rows(net, refinement.neurons, sign, 1)
        parameters = Parameters(jnp.asarray(alpha), jnp.zeros_like(sub.box.lower))
        limits.append(sign * np.asarray(bounds_at(net, sub, parameters)))
    return _with(net, refinement.neurons, *limits)


def _rows(
    net: Condensed, numbers: NDArray[np.integer[Any]], sign: int, alternatives: int
) -> Subproblems:
    """Neurons' operands, or their negatives, as rows on the whole set."""
    rows = np.repeat(net.rows + numbers[:, None], alternatives, 1)
    box = Interval(*(jnp.broadcast_to(x, (len(numbers), len(x))) for x in net.box))
    signs = jnp.full(rows.shape, sign, net.inputs.dtype)
    return Subproblems(jnp.asarray(rows, jnp.int32), signs, box)


def _with(net: Condensed, numbers: NDArray[Any], low: Floats, up: Floats) -> Condensed:
    """The network with other limits where they are better; a gap between them is kept."""
    lower, upper = (np.array(x) for x in net.box)
    lower[numbers] = np.fmax(lower[numbers], low)
    upper[numbers] = np.fmin(upper[numbers], up)
    ordered = Interval(*map(jnp.asarray, (np.minimum(lower, upper), np.maximum(lower, upper))))
    return dataclasses.replace(net, box=ordered)


@jax.jit
def _splittable(net: Condensed) -> Array:
    return net.splittable(net.box)
