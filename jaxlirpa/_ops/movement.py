"""Primitives that only move entries about."""

from __future__ import annotations

import sys

from jaxlirpa._graph.graph import Graph, Node, Ref
from jaxlirpa._graph.jaxpr import is_traced
from jaxlirpa._ops import axes
from jaxlirpa._ops.families import Move, Record


def _overwrites(graph: Graph, node: Node) -> str | None:
    """What a rule has not seen to: it says of known entries that they are written once each."""
    del graph
    if node.params["update_jaxpr"] is not None:
        return (
            "a function is applied only at indices that are known while the outer function is "
            "traced; write `x.at[i].set(f(x[i]))`"
        )
    if node.params["unique_indices"]:
        return None
    twice = "entries that are written twice end in no particular order; to add up, use `.at[].add`"
    indices = node.operands[1]
    if isinstance(indices, Ref) or not is_traced(indices):
        return twice
    return (
        f"{twice}. Its indices are traced: let them be NumPy arrays or, where they are distinct, "
        "say so: `x.at[i].set(y, unique_indices=True)`"
    )


RECORDS: dict[str, Record] = {
    "broadcast_in_dim": Move(repeats=True, along=axes.broadcast, operands=(0,)),
    "concatenate": Move(along=axes.unless_in("dimension")),
    "dynamic_slice": Move(along=axes.stays, operands=(0,)),
    "dynamic_update_slice": Move(along=axes.stays, operands=(0, 1)),
    "gather": Move(repeats=True, along=axes.gathered, operands=(0,)),
    "pad": Move(repeats=True, along=axes.padded),
    "reshape": Move(along=axes.reshaped, operands=(0,)),
    "rev": Move(along=axes.unless_in("dimensions")),
    "scatter": Move(along=axes.scattered, operands=(0, 2), objection=_overwrites),
    "select_n": Move(along=axes.stays, operands=range(1, sys.maxsize)),
    "slice": Move(along=axes.stays),
    "split": Move(along=axes.unless_in("axis")),
    "squeeze": Move(along=axes.squeezed),
    "stack": Move(along=axes.stacked),
    "tile": Move(repeats=True, along=axes.tiled),
    "transpose": Move(along=axes.transposed),
    "unstack": Move(along=axes.unstacked),
}
