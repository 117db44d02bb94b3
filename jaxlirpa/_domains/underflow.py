"""The slack of functionals whose coefficients are flushed to zero, being below the normal numbers.

XLA computes a number below the smallest normal one, `tiny`, as zero. A coefficient that is lost so
is small, but what it multiplies need not be: `1 / exp(x)` falls as `exp(-2 a)` times the deviation
of `exp(x)`, which may be `exp(a)`. In a functional of deviations from values inside of boxes, each
product or sum that is lost is off by less than `tiny`, and so the functional by less than `tiny`
times the width of the box of what it multiplies (Hölder's inequality, entry by entry). This is the
same for all rows: it depends on the boxes alone. Where boxes are narrow nothing is counted: a few
`tiny` are lost wherever numbers are computed, and rounding is not modelled.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, assert_never

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import is_floating, traced_once, where
from jaxlirpa._graph.graph import Graph, Ref
from jaxlirpa._intervals import Interval, is_finite
from jaxlirpa._ops.families import (
    Affine,
    Bilinear,
    Elementwise,
    Joint,
    LoopFamily,
    Move,
    Opaque,
    Refined,
)
from jaxlirpa._ops.registry import record
from jaxlirpa._types import Array


def underflow(graph: Graph, boxes: Mapping[Ref, Interval], index: int) -> Array | None:
    """How far a functional may be off because it was pulled through a node.

    Args:
        graph: the program.
        boxes: of the node's operands, in which their references are.
        index: of the node.

    Returns:
        A number, or one of each example if the operands have an axis of such; None where no
        coefficient is computed.
    """
    node = graph.nodes[index]
    dtypes = tuple(aval.dtype for aval in node.outputs if is_floating(aval))
    total = None
    for ref, steps in zip(node.perturbed, _steps(graph, index), strict=True):
        if steps:
            box = boxes[ref]
            if isinstance(record(node), Elementwise | Joint):  # Elsewhere lines are constant.
                finite = is_finite(box)
                box = Interval(*(where(finite, limit, 0) for limit in box))
            entries = missed(box, dtypes)
            axis = graph.batch_axes.get(ref)
            own = jnp.sum(entries, tuple(i for i in range(entries.ndim) if i != axis))
            total = steps * own if total is None else total + steps * own
    return total


def _steps(graph: Graph, index: int) -> list[int]:
    """By how many products and sums a coefficient on each operand is computed, at most."""
    node = graph.nodes[index]
    found = record(node)
    sizes = [graph.size(Ref(index, k)) for k in range(len(node.outputs))]
    shapes = [graph.aval(ref).shape for ref in node.perturbed]

    def steps(ref: Ref) -> int:
        match found:
            case Opaque() | LoopFamily():
                return 0
            case Move(repeats=True) | Affine(mixes=True):
                own = sum(sizes)
            case Bilinear(mixes=True):
                own = 2 * sum(sizes)
            case Joint():
                every = math.prod(np.broadcast_shapes(*shapes)) * len(sizes)
                own = 2 * -(-every // max(1, math.prod(graph.aval(ref).shape)))
            case Elementwise() | Bilinear():
                own = 1
            case Move() | Affine() | Refined():
                own = 0
            case _:
                assert_never(found)
        return own + (graph.uses[ref] > 1)

    return [steps(ref) if is_floating(graph.aval(ref)) else 0 for ref in node.perturbed]


@traced_once("dtypes")
def missed(box: Interval, dtypes: tuple[Any, ...] = ()) -> Array:
    """`tiny` times the widths of a box's entries, or zero where they are less than 4 wide.

    Args:
        box: a value's.
        dtypes: the formats of what is multiplied, beside the value's.
    """
    lower, upper = jax.lax.stop_gradient(box)
    tiny = max(float(jnp.finfo(dtype).tiny) for dtype in (*dtypes, lower.dtype))
    radius = 0.5 * upper - 0.5 * lower
    # Of two equal infinities the difference is no number; nor is it where a limit is none.
    lost = where(jnp.isnan(radius), jnp.inf, 2 * tiny * radius)
    return where((lower == upper) | (radius < 2), 0, lost)
