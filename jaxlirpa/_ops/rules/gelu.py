"""GELU, which leaves no name in a trace.

Where its inner function appears, the whole of GELU is written down for every value that it may be
of, as the library writes it. The nodes of a user's GELU then are found to be there already, and
the last of them stands for the whole.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import jax

from jaxlirpa._graph.graph import Node, Ref, Value
from jaxlirpa._graph.trace import Builder, Rule
from jaxlirpa._ops.rules.dataflow import scalar
from jaxlirpa._types import Array

# Between the inner function and its argument there are no more nodes than this.
_DEPTH = 6
_BETWEEN = frozenset({"mul", "add", "integer_pow", "neg", "div", "copy", "product", "square"})

_EXACT = functools.partial(jax.nn.gelu, approximate=False)
_APPROXIMATE = functools.partial(jax.nn.gelu, approximate=True)


def _written_out(primitive: str, function: Callable[[Array], Array], factor: float) -> Rule:
    """The rule for an inner function whose argument is a multiple of something."""

    def rule(build: Builder, node: Node) -> Sequence[Value] | None:
        """A GELU that is written out."""
        (argument,), (aval,) = node.perturbed, node.outputs
        multiple = build.definition(argument)
        if multiple is None or multiple.primitive != "mul":
            return None
        if not math.isclose(scalar(multiple.known[0]) or 0.0, factor, rel_tol=1e-6):
            return None
        for x in _sources(build, argument):
            if build.aval(x).shape == aval.shape and build.aval(x).dtype == aval.dtype:
                build.equate(primitive, function, x, node.source)
        return None

    return rule


def _sources(build: Builder, value: Ref) -> list[Ref]:
    """What the argument of an inner function may be computed from."""
    found, level = [value], [value]
    for _ in range(_DEPTH):
        nodes = [build.nodes[ref.node] for ref in level]
        level = [r for n in nodes if n.primitive in _BETWEEN for r in n.perturbed]
        found += [ref for ref in level if ref not in found]
    return found


RULES: dict[str, tuple[Rule, ...]] = {
    "erfc": (_written_out("gelu", _EXACT, math.sqrt(0.5)),),
    "tanh": (_written_out("gelu_tanh", _APPROXIMATE, math.sqrt(2 / math.pi)),),
}
