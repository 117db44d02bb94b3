"""The table: from a primitive's name to its record, and the check that a graph can be bounded."""

from __future__ import annotations

from jaxlirpa._errors import UnsupportedPrimitiveError
from jaxlirpa._graph.graph import INPUT, Graph, Node, Ref
from jaxlirpa._ops import affine, elementwise, movement, univariate
from jaxlirpa._ops.families import Record
from jaxlirpa._ops.unsupported import UNSUPPORTED

RECORDS: dict[str, Record] = {
    **movement.RECORDS,
    **affine.RECORDS,
    **elementwise.RECORDS,
    **univariate.RECORDS,
}


def record(node: Node) -> Record:
    """What the node's primitive is."""
    return RECORDS[node.primitive]


def check(graph: Graph) -> None:
    """Raises an UnsupportedPrimitiveError unless every live node has a sound rule."""
    for index in graph.live():
        node = graph.nodes[index]
        reason = None if node.primitive == INPUT else _objection(graph, node)
        if reason is not None:
            operands = ", ".join(_describe(graph, x) for x in node.operands)
            raise UnsupportedPrimitiveError(node.primitive, node.source, operands, reason)


def _objection(graph: Graph, node: Node) -> str | None:
    """Why a node cannot be bounded, or None."""
    if node.primitive not in RECORDS:
        return UNSUPPORTED.get(node.primitive, "it is not known to jaxlirpa")
    found = RECORDS[node.primitive]
    if found.operands is not None and any(i not in found.operands for i in node.positions):
        wrong = next(i for i in node.positions if i not in found.operands)
        return f"its operand {wrong} (an index, a mask or a divisor) is perturbed"
    if not found.together and len(node.positions) > 1:
        return "more than one of its operands is perturbed; one must be known exactly"
    return found.objection(graph, node)


def _describe(graph: Graph, operand: object) -> str:
    if isinstance(operand, Ref):
        aval = graph.aval(operand)
        return f"perturbed {aval.dtype}{list(aval.shape)}"
    return f"known {getattr(operand, 'dtype', '?')}{list(getattr(operand, 'shape', ()))}"
