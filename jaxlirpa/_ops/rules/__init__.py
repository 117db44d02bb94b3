"""Rewrites of what is traced into forms that are bounded better, or at all.

Every rule leaves the values as they are. It sees a node that is about to be appended and, through
the builder, what the node's operands are computed from; so dataflow is recognised, whatever the
order of the equations and whoever wrote them.
"""

from __future__ import annotations

import itertools

from jaxlirpa._graph.trace import Rule
from jaxlirpa._ops.rules import casts, extrema, normalise, products, selection, softmax

_TABLES = (casts.RULES, normalise.RULES, softmax.RULES, selection.RULES, extrema.RULES)
_LAST = products.RULES
_PAIRS = itertools.chain.from_iterable(table.items() for table in (*_TABLES, _LAST))

RULES: dict[str, tuple[Rule, ...]] = {}
for _primitive, _rules in _PAIRS:
    RULES[_primitive] = (*RULES.get(_primitive, ()), *_rules)
