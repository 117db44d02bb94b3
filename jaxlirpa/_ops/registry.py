"""The table: from a primitive's name to its record, and the check that a graph can be bounded."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._errors import DomainError, UnsupportedPrimitiveError
from jaxlirpa._graph.graph import INPUT, Graph, Node, Ref
from jaxlirpa._intervals import Interval
from jaxlirpa._ops import affine, declared, elementwise, joint, movement, opaque, places, univariate
from jaxlirpa._ops.families import Elementwise, Move, Opaque, Record, Refined
from jaxlirpa._ops.unsupported import COMPLEX, UNSUPPORTED

RECORDS: dict[str, Record] = {
    **movement.RECORDS,
    **affine.RECORDS,
    **elementwise.RECORDS,
    **joint.RECORDS,
    **opaque.RECORDS,
    **places.RECORDS,
    **univariate.RECORDS,
}


def record(node: Node) -> Record:
    """What the node's primitive is."""
    return RECORDS.get(node.primitive) or declared.record(node.primitive)


def check(graph: Graph) -> None:
    """Raises an UnsupportedPrimitiveError unless every live node has a sound rule."""
    for index in graph.live():
        node = graph.nodes[index]
        reason = None if node.primitive == INPUT else _objection(graph, node)
        if reason is not None:
            operands = ", ".join(_describe(graph, x) for x in node.operands)
            raise UnsupportedPrimitiveError(node.primitive, str(node.source), operands, reason)


def _objection(graph: Graph, node: Node) -> str | None:
    """Why a node cannot be bounded, or None."""
    short = [a.dtype for a in node.outputs if _is_short(a.dtype)]
    if node.primitive not in RECORDS and not declared.is_declared(node.primitive):
        no_rule = _rounds(short[0]) if short else "there is no rule for it yet"
        return UNSUPPORTED.get(node.primitive, node.unknown or no_rule)
    if node.unknown:
        return node.unknown
    if any(jnp.issubdtype(aval.dtype, jnp.complexfloating) for aval in node.outputs):
        return COMPLEX
    found = record(node)
    if found.operands is not None and any(i not in found.operands for i in node.positions):
        wrong = next(i for i in node.positions if i not in found.operands)
        return f"its operand {wrong} (an index, a mask or a divisor) is perturbed"
    if not found.together and len(node.positions) > 1:
        return "more than one of its operands is perturbed; one must be known exactly"
    if short and not isinstance(found, Move | Opaque | Refined):
        return _rounds(short[0])
    return found.objection(graph, node)


def _rounds(dtype: np.dtype) -> str:
    return (
        f"it computes in {dtype}, and how it rounds is not known; compute in float32: convert "
        "parameters and inputs, `jax.tree.map(lambda a: a.astype(jnp.float32), params)`, and give "
        "modules `dtype=jnp.float32`"
    )


def _is_short(dtype: np.dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32


def check_domain(node: Node, found: Elementwise, box: Interval) -> None:
    """Raises a DomainError where a known box leaves the function's domain.

    Inside `jax.jit` nothing is known; there the bounds become infinite.
    """
    if found.defined is None:
        return
    inside = found.defined(node, box)
    if isinstance(inside, jax.core.Tracer) or bool(np.all(inside)):
        return
    where = np.argmin(np.asarray(inside).reshape(-1))
    lower, upper = (np.asarray(x).reshape(-1) for x in box)
    raise DomainError(node.primitive, str(node.source), found.domain, lower[where], upper[where])


def _describe(graph: Graph, operand: object) -> str:
    if isinstance(operand, Ref):
        aval = graph.aval(operand)
        return f"perturbed {aval.dtype}{list(aval.shape)}"
    return f"known {getattr(operand, 'dtype', '?')}{list(getattr(operand, 'shape', ()))}"
