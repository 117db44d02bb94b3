"""Tracing: a function becomes a `Graph`.

Calls are entered, loops and branches too (`control.py`), what no perturbed value reaches is
evaluated, identities are dropped, known functions are kept whole, what is computed twice becomes
one node, and rules rewrite nodes that are bounded better in another form.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._arrays import is_half
from jaxlirpa._errors import ControlFlowError, EffectError
from jaxlirpa._graph.control import MOST_TRIPS, enter
from jaxlirpa._graph.graph import INPUT, Graph, Node, Ref, Value
from jaxlirpa._graph.jaxpr import (
    CALLS,
    SOLVE,
    axes_of,
    caller,
    is_traced,
    program,
    raised_at,
)
from jaxlirpa._graph.naming import Label, numbered
from jaxlirpa._graph.programs import Constant, Equation, Program, Variable
from jaxlirpa._graph.recognise import LibraryFunction, Vocabulary, recognise
from jaxlirpa._graph.source import Source
from jaxlirpa._mesh import shaped, varying
from jaxlirpa._types import Array, PyTree, Shaped

# Identities on values. `stop_gradient` is one, though its derivative is zero.
_IDENTITIES = frozenset(
    {
        "stop_gradient",
        "copy",
        "optimization_barrier",
        "device_put",
        "sharding_constraint",
        "pvary",
        "reshard",
    }
)
RESOLVED: Mapping[str, str] = {
    **dict.fromkeys(CALLS, "a call: its function is entered"),
    **dict.fromkeys(_IDENTITIES, "the identity on values: dropped"),
    "name": "the identity on values: its name is kept",
    SOLVE: "a call: its solver is entered",
    "scan": f"unrolled, up to {MOST_TRIPS} trips; beyond, one node whose trips intervals bound",
    "while": "the same, as long as the number of trips depends on no perturbed value",
    "shard_map": "what every device computes, side by side",
    "cond": "the one branch that is known to be taken; else all of them, joined by select_n",
}
"""The primitives that no graph contains, and what becomes of them."""

ANY = "any primitive"
"""In a table of rules, those that are asked first about every node."""

# Entry by entry, but for a scalar next to an array.
_BROADCASTING = frozenset({"add", "sub", "mul", "div", "max", "min", "pow"})
_CONCRETE_ERRORS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.NonConcreteBooleanIndexError,
)
_TRAINING = (
    "the function changes the state of a flax module, which is a side effect: BatchNorm or Dropout "
    "is in training mode. Bound the network as it predicts: "
)
_MORE = (
    " (To train with BatchNorm and Dropout, and certify meanwhile, see jaxlirpa.train.nnx and "
    "jaxlirpa.train.linen.)"
)
# What to do about some errors of flax, by their names.
_ADVICE: Mapping[str, str] = {
    "TraceContextError": f"{_TRAINING}call model.eval() beforehand.{_MORE}",
    "ModifyScopeVariableError": (
        f"{_TRAINING}use_running_average=True and deterministic=True, or what the module calls it, "
        f"as train=False.{_MORE}"
    ),
}
# Entries of the largest constant that is made while an outer function is traced.
_LARGEST_CONSTANT = 2**16
_NOTHING: Mapping[str, Any] = {}
# Arrays up to this many entries are compared by value, larger ones by identity.
_SMALL = 16


def trace(
    fn: Callable[..., PyTree],
    inputs: Sequence[Shaped],
    vocabulary: Vocabulary,
    rules: Rules | None = None,
    names: Mapping[Any, str] | None = None,
    about: Mapping[int, Mapping[str, Any]] | None = None,
) -> tuple[Graph, PyTree]:
    """Traces `fn`, all of whose arguments are perturbed.

    Args:
        fn: function of arrays, one per entry of `inputs`.
        inputs: shape and dtype of each argument.
        vocabulary: library functions to keep whole, by the name they leave in a trace.
        rules: rewrites of nodes about to be appended, by primitive.
        names: what to call some primitives instead of their own names.
        about: what rules may know of some inputs, as parameters of their nodes.

    Returns:
        The graph, and the structure of fn's output with a `ShapeDtypeStruct` per leaf.

    Raises:
        ControlFlowError: where Python needs the value of a perturbed argument, or a loop cannot be
            unrolled.
        EffectError: where fn prints, calls back, changes a module or has another side effect.
    """
    axes = frozenset().union(*map(varying, inputs))
    try:
        traced, shape = program(fn, inputs)
        while not axes_of(traced) <= axes:
            axes |= axes_of(traced)
            inputs = [shaped(aval.shape, aval.dtype, axes) for aval in inputs]
            traced, shape = program(fn, inputs)
    except _CONCRETE_ERRORS as error:
        raise ControlFlowError(
            "the function needs the concrete value of a perturbed argument (an `if`, a `while`, "
            "an index, `int()`, `float()` or a NumPy call), but only a set of values is known. "
            "Use jax.numpy functions there (jnp.where for an `if`), or pass that value "
            "unperturbed; inside of jax.jit, as a static argument.\n"
            f"  needed at {raised_at(error) or 'an unknown place'}\n{_said(error)}"
        ) from error
    except Exception as error:
        advice = _ADVICE.get(type(error).__name__)
        if advice is None:
            raise
        raise EffectError(
            f"{advice}\n  at {raised_at(error) or 'an unknown place'}\n{_said(error)}"
        ) from error
    builder = Builder(vocabulary, rules or {}, names or {}, axes)
    arguments = [builder.input(aval, (about or {}).get(i, {})) for i, aval in enumerate(inputs)]
    outputs = [builder.lengthened(x) for x in builder.run(traced, arguments, caller())]
    called = numbered(builder.labels)
    return Graph(tuple(builder.nodes), tuple(outputs), called, rules=builder.applied), shape


def _said(error: BaseException) -> str:
    """JAX's own message, but for what it says of lines that are not the user's."""
    lines = str(error).splitlines()
    return "\n".join(x for x in lines if x and not x.startswith("The error occurred while tracing"))


def _no_input(*_: Array) -> tuple[Array, ...]:
    raise AssertionError("an input is given, not evaluated")


def _effect(equation: Equation, source: Source) -> EffectError:
    """The refusal of a side effect, at the innermost line that has it."""
    for inner in (e for code in equation.programs for e in code.equations):
        if inner.effects:
            return _effect(inner, inner.source.within(source))
    return EffectError(
        f"`{equation.primitive}` at {source} has a side effect "
        f"({', '.join(equation.effects)}), which has no bounds. Remove the print or "
        "callback before bounding the function."
    )


def _iterative(source: Source) -> ControlFlowError:
    """The refusal of a solver that stops when it has come near enough."""
    return ControlFlowError(
        f"the linear solver at {source} iterates until what is left of a perturbed value is "
        "small, so that what it returns is not known. Solve directly: with the matrix "
        "`A = jax.vmap(matvec, out_axes=1)(jnp.eye(n))`, `jnp.linalg.solve(A, b)` is the exact "
        "solution, and affine in b."
    )


def _evaluate(equation: Equation, operands: Sequence[Any]) -> tuple[Array, ...]:
    """An equation of known operands.

    Where an outer function is traced (by `jax.jit`), it is evaluated now if its operands are at
    hand: the counter of a loop has to stay a number. Not so where a large constant would be made
    of little, which the compiled program had to carry about.
    """
    made, given = (
        sum(math.prod(aval.shape) for aval in avals)
        for avals in (equation.avals, equation.operand_avals)
    )
    far = equation.collective or any(map(is_traced, operands))
    if far or made > max(given, _LARGEST_CONSTANT):
        return equation.bind(*operands)
    with jax.ensure_compile_time_eval():
        return equation.bind(*operands)


class Builder:
    """The list of nodes while it grows.

    A rule sees a node that is about to be appended, and what it is computed from, and returns the
    values to use instead of its outputs, or None to leave it as it is. Rules remember in `parts`
    what stands for a value that is not bounded itself.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        rules: Rules,
        names: Mapping[Any, str],
        axes: frozenset[str] = frozenset(),
    ):
        self.vocabulary = vocabulary
        self.rules = rules
        self.names = names
        self.axes = axes
        self.nodes: list[Node] = []
        self.labels: list[Label] = []
        self.known: dict[Any, int] = {}
        self.equated: set[tuple[str, Ref]] = set()
        self.equating = False
        self.parts: dict[Ref, Any] = {}
        self.rule = ""
        self.applied: dict[int, str] = {}

    def definition(self, value: Any) -> Node | None:
        """The node that computes a perturbed value."""
        return self.nodes[value.node] if isinstance(value, Ref) else None

    def aval(self, value: Value) -> Shaped:
        """Shape and dtype of a value."""
        if isinstance(value, Ref):
            return self.nodes[value.node].outputs[value.output]
        return shaped(np.shape(value), jnp.result_type(value), varying(value))

    def apply(self, fn: Callable[..., PyTree], source: Source, *values: Value) -> list[Value]:
        """Appends the nodes of `fn` on some values; returns the leaves of its result."""
        code, _ = program(fn, [self.aval(v) for v in values])
        return self.run(code.anonymous(), values, source)

    def append(
        self,
        primitive: str,
        operands: tuple[Value, ...],
        params: Any,
        bind: Callable[..., tuple[Array, ...]],
        avals: tuple[Shaped, ...],
        source: Source,
    ) -> list[Value]:
        """Appends a node, unless a rule knows better or the same is there already."""
        before = len(self.labels)
        values = self.added(Node(primitive, operands, params, bind, avals, source))
        self.label(source.label(primitive), values, before)
        return values

    def added(self, node: Node) -> list[Value]:
        """The outputs of a node, or what stands for them: of what has no entries, itself."""
        if node.outputs and all(0 in aval.shape for aval in node.outputs):
            return [jnp.zeros(aval.shape, aval.dtype) for aval in node.outputs]
        for rule in (*self.rules.get(ANY, ()), *self.rules.get(node.primitive, ())):
            outer, self.rule = self.rule, rule.__module__.rpartition(".")[-1]
            values = rule(self, node)
            self.rule = outer
            if values is not None:
                return list(values)
        return self.kept(node)

    def kept(self, node: Node) -> list[Value]:
        """The outputs of a node that no rule is asked about."""
        index = self.known.setdefault(_key(node), len(self.nodes))
        if index == len(self.nodes):
            if self.rule:
                self.applied[index] = self.rule
            outputs = tuple(shaped(a.shape, a.dtype, self.axes) for a in node.outputs)
            self.nodes.append(dataclasses.replace(node, outputs=outputs) if self.axes else node)
        return [Ref(index, k) for k in range(len(node.outputs))]

    def label(
        self, text: str, values: Sequence[Value], position: int, marked: bool = False
    ) -> None:
        """Inserts a label for each perturbed value at a position of the list.

        A value that was computed before gets another label here. So the numbers of later values do
        not depend on what else the function computes. Nodes that `equate` adds get none.
        """
        if not self.equating:
            found = [Label(text, x, marked) for x in values if isinstance(x, Ref)]
            self.labels[position:position] = found

    def equate(
        self, primitive: str, function: Callable[[Array], Array], x: Ref, source: Source
    ) -> None:
        """Lets a node of `primitive` stand for `function(x)` wherever that is written out.

        The function's own nodes are appended; who computes the same later finds them there, and
        in place of the last one the whole.
        """
        if self.equating or (primitive, x) in self.equated or 0 in self.aval(x).shape:
            return
        self.equated.add((primitive, x))
        self.equating = True
        (result,) = self.apply(function, source, x)
        self.equating = False
        assert isinstance(result, Ref)
        operands, aval = (x,), self.aval(x)
        (whole,) = self.append(primitive, operands, {}, lambda x: (function(x),), (aval,), source)
        assert isinstance(whole, Ref)
        self.known[_key(self.nodes[result.node])] = whole.node

    def lengthened(self, value: Value) -> Value:
        """A perturbed number of 16 bits as one of 32, as which it is bounded."""
        if not isinstance(value, Ref) or not is_half(self.aval(value)):
            return value
        source = self.nodes[value.node].source
        return self.apply(lambda x: x.astype(jnp.float32), source, value)[0]

    def forget(self, since: int) -> None:
        """Removes the nodes from a number on."""
        del self.nodes[since:]
        self.labels = [label for label in self.labels if label.ref.node < since]
        self.known = {key: index for key, index in self.known.items() if index < since}
        self.equated = {(name, ref) for name, ref in self.equated if ref.node < since}
        self.parts = {ref: found for ref, found in self.parts.items() if ref.node < since}
        self.applied = {index: rule for index, rule in self.applied.items() if index < since}

    def empty(self) -> Builder:
        """Another one, of the same kind, without nodes."""
        return Builder(self.vocabulary, self.rules, self.names, self.axes)

    def input(self, aval: Shaped, params: Mapping[str, Any] = _NOTHING) -> Ref:
        """Appends an input."""
        self.nodes.append(Node(INPUT, (), params, _no_input, (aval,), Source()))
        return Ref(len(self.nodes) - 1, 0)

    def run(self, code: Program, arguments: Sequence[Value], source: Source) -> list[Value]:
        """Appends a program's nodes; every call has an environment of its own."""
        environment: dict[Variable, Value] = dict(zip(code.inputs, arguments, strict=True))
        environment.update(code.constants)

        def read(atom: Variable | Constant) -> Value:
            return atom.value if isinstance(atom, Constant) else environment[atom]

        for equation in code.equations:
            operands = tuple(read(atom) for atom in equation.operands)
            results = self.step(equation, operands, equation.source.within(source))
            environment.update(zip(equation.outputs, results, strict=True))
        return [read(atom) for atom in code.outputs]

    def step(
        self, equation: Equation, operands: tuple[Value, ...], source: Source
    ) -> Sequence[Value]:
        """The values of one equation's outputs."""
        if equation.effects:
            raise _effect(equation, source)
        known = not any(isinstance(x, Ref) for x in operands)
        if known and not (equation.elsewhere and equation.programs):
            return _evaluate(equation, operands)
        if equation.unknown and equation.identity not in self.names:
            return self.unknown(equation, operands, source)
        if equation.primitive in _IDENTITIES:
            return operands
        if equation.primitive == "name":
            self.label(equation.params["name"], operands, len(self.labels), marked=True)
            return operands
        positions = [i for i, x in enumerate(operands) if isinstance(x, Ref)]
        named = None if known else recognise(equation, positions, self.vocabulary)
        if named is not None:
            return self.keep(named, equation, operands, source)
        if equation.body is not None:
            return self.enter(equation, equation.body, operands, source)
        if equation.control is not None:
            return enter(self, equation, equation.control, operands, source)
        if equation.primitive in _BROADCASTING:
            (aval,) = equation.avals
            pairs = zip(operands, equation.operand_avals, strict=True)
            operands = tuple(self.spread(x, a.shape, aval, source) for x, a in pairs)
        return self.append(
            self.names.get(equation.identity, equation.primitive),
            operands,
            equation.params,
            equation.bind,
            equation.avals,
            source,
        )

    def unknown(
        self, equation: Equation, operands: tuple[Value, ...], source: Source
    ) -> list[Value]:
        """Appends what nobody knows, as it is: it is refused where an output depends on it."""
        parts = equation.primitive, operands, equation.params, equation.bind, equation.avals
        return self.kept(Node(*parts, source, equation.unknown))

    def enter(
        self, equation: Equation, body: Program, operands: Sequence[Value], source: Source
    ) -> list[Value]:
        """The values of a call's outputs."""
        try:
            return self.run(body, [operands[i] for i in equation.read], source)
        except ControlFlowError as error:
            if equation.primitive != SOLVE:
                raise
            raise _iterative(source) from error

    def spread(self, operand: Value, shape: tuple[int, ...], aval: Shaped, source: Source) -> Value:
        """A perturbed scalar as an array, so that its coefficients have the shape of the output."""
        if not isinstance(operand, Ref) or shape == aval.shape:
            return operand
        dimensions = tuple(range(len(aval.shape) - len(shape), len(aval.shape)))
        (spread,) = self.append(
            "broadcast_in_dim",
            (operand,),
            {"shape": tuple(aval.shape), "broadcast_dimensions": dimensions},
            lambda x: (jnp.broadcast_to(x, aval.shape),),
            (aval,),
            source,
        )
        return spread

    def keep(
        self,
        named: LibraryFunction,
        equation: Equation,
        operands: tuple[Value, ...],
        source: Source,
    ) -> list[Value]:
        """Appends a recognised function as one node."""
        dtype = equation.avals[0].dtype if named.entrywise else None
        kept = tuple(
            x if isinstance(x, Ref) else jnp.asarray(x, dtype) for x in named.operands(*operands)
        )
        return self.append(
            named.primitive,
            kept,
            named.params,
            lambda *values: (named.evaluate(*values),),
            equation.avals,
            source,
        )


Rule: TypeAlias = Callable[[Builder, Node], Sequence[Value] | None]
Rules: TypeAlias = Mapping[str, Sequence[Rule]]


def _key(node: Node) -> Any:
    """Equal for nodes that compute the same."""
    avals = tuple((a.shape, a.dtype) for a in node.outputs)
    params = tuple((k, _identity(v)) for k, v in sorted(node.params.items()))
    return node.primitive, tuple(map(_identity, node.operands)), params, avals


def _identity(x: Any) -> Any:
    """Equal for two objects that are surely the same; a small array is its entries."""
    if isinstance(x, np.ndarray | np.generic | jax.Array):
        if isinstance(x, jax.core.Tracer) or x.size > _SMALL:
            return id(x)
        return x.dtype, x.shape, np.asarray(x).tobytes()
    try:
        hash(x)
    except TypeError:
        return id(x)
    return type(x), x
