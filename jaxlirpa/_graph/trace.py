"""Tracing: a function becomes a `Graph`.

Calls are entered, what no perturbed value reaches is evaluated, identities are dropped, and
known functions are kept whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxlirpa._errors import ControlFlowError, EffectError
from jaxlirpa._graph.graph import INPUT, Graph, Node, Ref
from jaxlirpa._graph.jaxpr import (
    Constant,
    Equation,
    Program,
    Variable,
    caller,
    program,
    raised_at,
)
from jaxlirpa._graph.recognise import Named, Vocabulary, recognise
from jaxlirpa._typing import Array, PyTree, Shaped

# Identities on values. `stop_gradient` is one, though its derivative is zero.
_IDENTITIES = frozenset(
    {
        "stop_gradient",
        "copy",
        "name",
        "optimization_barrier",
        "device_put",
        "sharding_constraint",
        "pvary",
        "reshard",
    }
)
# Entry by entry, but for a scalar next to an array.
_BROADCASTING = frozenset({"add", "sub", "mul", "div", "max", "min", "pow"})
_CONCRETE_ERRORS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
Value = Ref | Array


def trace(
    fn: Callable[..., PyTree], inputs: Sequence[Shaped], vocabulary: Vocabulary
) -> tuple[Graph, PyTree]:
    """Traces `fn`, all of whose arguments are perturbed.

    Args:
        fn: function of arrays, one per entry of `inputs`.
        inputs: shape and dtype of each argument.
        vocabulary: library functions to keep whole, by the name they leave in a trace.

    Returns:
        The graph, and the structure of fn's output with a `ShapeDtypeStruct` per leaf.

    Raises:
        ControlFlowError: where Python needs the value of a perturbed argument.
        EffectError: where fn prints, calls back or has another side effect.
    """
    try:
        traced, shape = program(fn, inputs)
    except _CONCRETE_ERRORS as error:
        raise ControlFlowError(
            "the function needs the concrete value of a perturbed argument (an `if`, a `while`, "
            "an index, `int()`, `float()` or a NumPy call), but only a set of values is known. "
            "Use jax.numpy functions there, or pass that value unperturbed.\n"
            f"  needed at {raised_at(error) or 'an unknown place'}\n{error}"
        ) from error
    builder = _Builder(vocabulary)
    arguments = [builder.append(INPUT, (), {}, _no_input, (aval,), "")[0] for aval in inputs]
    outputs = builder.run(traced, arguments, caller())
    return Graph(tuple(builder.nodes), tuple(outputs)), shape


def _no_input(*_: Array) -> tuple[Array, ...]:
    raise AssertionError("an input is given, not evaluated")


class _Builder:
    """The list of nodes while it grows."""

    def __init__(self, vocabulary: Vocabulary):
        self.vocabulary = vocabulary
        self.nodes: list[Node] = []

    def append(
        self,
        primitive: str,
        operands: tuple[Value, ...],
        params: Any,
        bind: Callable[..., tuple[Array, ...]],
        avals: tuple[Shaped, ...],
        source: str,
    ) -> list[Value]:
        self.nodes.append(Node(primitive, operands, params, bind, avals, source))
        return [Ref(len(self.nodes) - 1, k) for k in range(len(avals))]

    def run(self, code: Program, arguments: Sequence[Value], source: str) -> list[Value]:
        """Appends a program's nodes; every call has an environment of its own."""
        environment: dict[Variable, Value] = dict(zip(code.inputs, arguments, strict=True))
        environment.update(code.constants)

        def read(atom: Variable | Constant) -> Value:
            return atom.value if isinstance(atom, Constant) else environment[atom]

        for equation in code.equations:
            operands = tuple(read(atom) for atom in equation.operands)
            results = self.step(equation, operands, equation.source or source)
            environment.update(zip(equation.outputs, results, strict=True))
        return [read(atom) for atom in code.outputs]

    def step(self, equation: Equation, operands: tuple[Value, ...], source: str) -> Sequence[Value]:
        """The values of one equation's outputs."""
        if equation.effects and equation.body is not None:  # whose inner line has the effect
            return self.run(equation.body, operands, source)
        if equation.effects:
            raise EffectError(
                f"`{equation.primitive}` at {source} has a side effect "
                f"({', '.join(equation.effects)}), which has no bounds. Remove the print or "
                "callback before bounding the function."
            )
        if not any(isinstance(x, Ref) for x in operands):
            return equation.bind(*operands)
        if equation.primitive in _IDENTITIES:
            return operands
        named = recognise(equation, self.vocabulary)
        if named is not None:
            return self.keep(named, equation, operands, source)
        if equation.body is not None:
            return self.run(equation.body, operands, source)
        if equation.primitive in _BROADCASTING:
            (aval,) = equation.avals
            pairs = zip(operands, equation.operand_avals, strict=True)
            operands = tuple(self.spread(x, a.shape, aval, source) for x, a in pairs)
        return self.append(
            equation.primitive,
            operands,
            equation.params,
            equation.bind,
            equation.avals,
            source,
        )

    def spread(self, operand: Value, shape: tuple[int, ...], aval: Shaped, source: str) -> Value:
        """A perturbed scalar as an array, so that its coefficients have the shape of the output."""
        if not isinstance(operand, Ref) or shape == aval.shape:
            return operand
        (spread,) = self.append(
            "broadcast_in_dim",
            (operand,),
            {},
            lambda x: (jnp.broadcast_to(x, aval.shape),),
            (aval,),
            source,
        )
        return spread

    def keep(
        self, named: Named, equation: Equation, operands: tuple[Value, ...], source: str
    ) -> list[Value]:
        """Appends a recognised function as one node."""
        dtype = equation.avals[0].dtype
        kept = tuple(
            x if isinstance(x, Ref) else jnp.asarray(x, dtype) for x in named.operands(*operands)
        )
        return self.append(
            named.primitive,
            kept,
            {},
            lambda *values: (named.evaluate(*values),),
            equation.avals,
            source,
        )
