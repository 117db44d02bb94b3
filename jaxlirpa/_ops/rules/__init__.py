"""Rewrites of what is traced into forms that are bounded better, or at all.

Every rule leaves the values as they are. It sees a node that is about to be appended and, through
the builder, what the node's operands are computed from; so dataflow is recognised, whatever the
order of the equations and whoever wrote them.
"""

from __future__ import annotations

import itertools

from jaxlirpa._graph.trace import Rule
from jaxlirpa._ops.rules import (
    balls,
    casts,
    complex,
    derivatives,
    gelu,
    guards,
    half,
    indexing,
    maxima,
    normalise,
    pooling,
    products,
    reductions,
    scatter,
    selection,
    shapes,
    softmax,
    softplus,
    solves,
    tables,
)

# Those that recognise the most come first, those that always apply last.
_ORDER = (
    complex,
    half,
    casts,
    gelu,
    derivatives,
    normalise,
    softmax,
    softplus,
    guards,
    selection,
    maxima,
    pooling,
    reductions,
    scatter,
    solves,
    balls,
    products,
    indexing,
    shapes,
    tables,
)
_PAIRS = itertools.chain.from_iterable(module.RULES.items() for module in _ORDER)

RULES: dict[str, tuple[Rule, ...]] = {}
for _primitive, _rules in _PAIRS:
    RULES[_primitive] = (*RULES.get(_primitive, ()), *_rules)
