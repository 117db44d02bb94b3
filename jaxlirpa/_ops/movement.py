"""Primitives that only move entries about."""

from __future__ import annotations

import sys

from jaxlirpa._graph.graph import Graph, Node
from jaxlirpa._ops.families import Move, Record


def _unique(graph: Graph, node: Node) -> str | None:
    del graph
    if node.params["unique_indices"]:
        return None
    return "entries that are written twice end in no particular order; use `.at[].add`"


RECORDS: dict[str, Record] = {
    "broadcast_in_dim": Move(repeats=True, operands=(0,)),
    "concatenate": Move(),
    "dynamic_slice": Move(operands=(0,)),
    "dynamic_update_slice": Move(operands=(0, 1)),
    "gather": Move(repeats=True, operands=(0,)),
    "pad": Move(repeats=True),
    "reshape": Move(operands=(0,)),
    "rev": Move(),
    "scatter": Move(operands=(0, 2), objection=_unique),
    "select_n": Move(operands=range(1, sys.maxsize)),
    "slice": Move(),
    "split": Move(),
    "squeeze": Move(),
    "stack": Move(),
    "tile": Move(repeats=True),
    "transpose": Move(),
    "unstack": Move(),
}
