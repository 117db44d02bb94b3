"""Subproblems in which every relu is fixed: linear programs, solved by HiGHS.

There the network is affine, and gradient steps come close to the best multipliers but seldom reach
them. The duals of the linear program are the best ones. They are parameters like any others: the
bound that they give is evaluated, and no tolerance of the solver is trusted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import linprog  # type: ignore[import-untyped, unused-ignore]

from jaxlirpa.verify import inputs
from jaxlirpa.verify.condensed import Condensed
from jaxlirpa.verify.kinds import Relu
from jaxlirpa.verify.tree import Floats, Part

# What is added to a proof of emptiness, relative to the bound that it has to lift.
_LIFT = 2.0


class Dual(NamedTuple):
    """Multipliers of the neurons' boxes `[neurons]`, and the minimiser `[n]`, if there is one."""

    mu: Floats
    x: Floats | None


def dual(net: Condensed, row: int, part: Part) -> Dual | None:
    """The best multipliers of a row's bound in a part; None where it is no linear program.

    Args:
        net: the network; of relus, over boxes of inputs.
        row: of the specification.
        part: in which no relu is unstable.
    """
    if not all(isinstance(block.kind, Relu) for block in net.blocks):
        return None
    if not all(s.is_box for s in net.sets) or np.any((part.low < 0) & (part.up > 0)):
        return None
    box = np.stack(inputs.limits(net.sets)).astype(float)
    on_inputs, neurons = (np.asarray(x, float) for x in (net.inputs, net.neurons))
    offset = np.asarray(net.offset.lower, float)
    slopes, values = np.zeros((neurons.shape[1], box.shape[1])), np.zeros(neurons.shape[1])
    active = part.low >= 0
    rows, operands = np.zeros_like(slopes), np.zeros_like(values)
    for k in net.slices:
        at = slice(net.rows + k.start, net.rows + k.stop)
        rows[k] = on_inputs[at] + neurons[at] @ slopes
        operands[k] = offset[at] + neurons[at] @ values
        slopes[k], values[k] = rows[k] * active[k, None], operands[k] * active[k]
    objective = on_inputs[row] + neurons[row] @ slopes
    proper = np.flatnonzero(np.any(rows != 0, 1))
    above, below = part.up[proper] - operands[proper], part.low[proper] - operands[proper]
    own = rows[proper]
    found = linprog(
        objective, np.concatenate([own, -own]), np.concatenate([above, -below]), bounds=box.T
    )
    if found.status == 0:
        return Dual(_multipliers(found.ineqlin.marginals, proper, len(values)), found.x)
    if found.status != 2:
        return None
    # Empty: the least excess over all limits is positive, and its duals lift any bound.
    one = np.ones((2 * len(own), 1))
    excess = linprog(
        np.append(np.zeros(box.shape[1]), 1),
        np.concatenate([np.concatenate([own, -own]), -one], 1),
        np.concatenate([above, -below]),
        bounds=[*box.T, (0, None)],
    )
    if excess.status != 0 or not excess.fun > 0:
        return None
    needed = 1 + np.sum(np.abs(objective) * np.max(np.abs(box), 0)) + abs(offset[row])
    mu = _multipliers(excess.ineqlin.marginals, proper, len(values))
    return Dual(mu * _LIFT * needed / excess.fun, None)


def _multipliers(marginals: Floats, proper: np.ndarray, neurons: int) -> Floats:
    """Multipliers from the derivatives of the minimum by the limits above and below."""
    mu = np.zeros(neurons)
    above, below = np.split(marginals, 2)
    mu[proper] = below - above
    return mu
