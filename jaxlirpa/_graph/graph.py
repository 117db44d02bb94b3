"""The program that is bounded: nodes in topological order, constants already folded."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._graph.source import Source
from jaxlirpa._mesh import varying
from jaxlirpa._types import Array, Shaped

INPUT = "input"


class Ref(NamedTuple):
    """One output of one node: the name of a perturbed value."""

    node: int
    output: int

    @property
    def name(self) -> str:
        """What it is called where a graph is printed."""
        return f"%{self.node}.{self.output}" if self.output else f"%{self.node}"


Value = Ref | Array
"""A perturbed value, or a known array."""


def is_same(a: Value, b: Value) -> bool:
    """Whether two values are one: the same perturbed value, or the same array object."""
    return a is b or (isinstance(a, Ref) and isinstance(b, Ref) and a == b)


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One application of a primitive to at least one perturbed value.

    Attributes:
        primitive: the primitive's name, or `INPUT`.
        operands: perturbed operands as `Ref`, all others as arrays.
        params: the primitive's static parameters.
        bind: evaluates the node on the values of all operands, as a tuple of outputs.
        outputs: shape and dtype of each output.
        source: the user's line and scopes, for messages and names.
        unknown: why nobody knows what it computes, whatever the primitive's name; else empty.
    """

    primitive: str
    operands: tuple[Ref | Array, ...]
    params: Mapping[str, Any]
    bind: Callable[..., tuple[Array, ...]]
    outputs: tuple[Shaped, ...]
    source: Source
    unknown: str = ""

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions of the perturbed operands."""
        return tuple(i for i, x in enumerate(self.operands) if isinstance(x, Ref))

    @property
    def perturbed(self) -> tuple[Ref, ...]:
        """The perturbed operands, one entry per occurrence."""
        return tuple(x for x in self.operands if isinstance(x, Ref))

    @property
    def known(self) -> tuple[Array, ...]:
        """The operands that are not perturbed."""
        return tuple(x for x in self.operands if not isinstance(x, Ref))

    def __call__(self, *values: Array) -> tuple[Array, ...]:
        """Evaluates the node as a function of its perturbed operands alone."""
        supply = iter(values)
        return self.bind(*(next(supply) if isinstance(x, Ref) else x for x in self.operands))


@dataclasses.dataclass(frozen=True)
class Names:
    """What the values of a graph are called.

    Attributes:
        given: names of scopes, lines and primitives; one value may have several.
        marked: names that the user gave by `checkpoint_name`.
    """

    given: Mapping[str, Ref] = dataclasses.field(default_factory=dict)
    marked: Mapping[str, Ref] = dataclasses.field(default_factory=dict)

    def find(self, name: str) -> Ref | None:
        """The value of that name."""
        return self.marked.get(name, self.given.get(name))

    def first(self) -> dict[Ref, str]:
        """The first name of every value that is not marked."""
        marked = set(self.marked.values())
        backwards = reversed([*self.given.items()])
        return {ref: name for name, ref in backwards if ref not in marked}


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A traced function: what it computes from its perturbed inputs.

    Attributes:
        nodes: in topological order; the inputs come first.
        outputs: a `Ref`, or an array where the output does not depend on the inputs.
        names: of the values.
        batch_axes: of the values that have an axis of examples, none of which depends on another.
        rules: by node, the rewriting rule that has put it in the place of what the user wrote.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[Ref | Array, ...]
    names: Names = Names()
    batch_axes: Mapping[Ref, int] = dataclasses.field(default_factory=dict)
    rules: Mapping[int, str] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        """The live nodes like the equations of a jaxpr, each with the user's line."""
        live = set(self.live()) | {ref.node for ref in self.inputs}
        lines = [self.equation(index) for index in sorted(live)]
        results = ", ".join(x.name if isinstance(x, Ref) else _known(x) for x in self.outputs)
        return "\n".join([*lines, f"return {results}"])

    def equation(self, index: int) -> str:
        """One node: `%3:f32[4] = max %2 f32[]  # file:line (function)`."""
        node = self.nodes[index]
        results = " ".join(
            f"{Ref(index, k).name}:{_short(aval)}" for k, aval in enumerate(node.outputs)
        )
        operands = [x.name if isinstance(x, Ref) else _known(x) for x in node.operands]
        source = f"  # {node.source}" if node.source.place else ""
        return f"{results} = {' '.join([node.primitive, *operands])}{source}"

    @property
    def inputs(self) -> tuple[Ref, ...]:
        """The perturbed inputs, in order."""
        return tuple(Ref(i, 0) for i, n in enumerate(self.nodes) if n.primitive == INPUT)

    @property
    def axes(self) -> frozenset[str]:
        """The axes of a mesh over which values may differ; see `jaxlirpa._mesh.varying`."""
        return varying(self.aval(self.inputs[0])) if self.inputs else frozenset()

    @property
    def targets(self) -> tuple[Ref, ...]:
        """The outputs that depend on the inputs."""
        return tuple(x for x in self.outputs if isinstance(x, Ref))

    def aval(self, ref: Ref) -> Shaped:
        """Shape and dtype of a value."""
        return self.nodes[ref.node].outputs[ref.output]

    def size(self, ref: Ref) -> int:
        """Entries of a value that number rows: those of one example, where there are such."""
        shape = self.aval(ref).shape
        return math.prod(shape) // (shape[self.batch_axes[ref]] if ref in self.batch_axes else 1)

    def returning(self, outputs: Iterable[Ref | Array]) -> Graph:
        """The same program with other outputs."""
        return dataclasses.replace(self, outputs=tuple(outputs))

    def live(self, known: Container[Ref] = ()) -> tuple[int, ...]:
        """Indices of the nodes that some output depends on, in topological order.

        Args:
            known: values that are known already, whose own operands then do not count.
        """
        wanted = {ref.node for ref in self.targets if ref not in known}
        for index in reversed(range(len(self.nodes))):
            if index in wanted:
                operands = self.nodes[index].perturbed
                wanted.update(ref.node for ref in operands if ref not in known)
        return tuple(sorted(wanted))

    @functools.cached_property
    def uses(self) -> Counter[Ref]:
        """How often each live value is an operand."""
        return Counter(ref for index in self.live() for ref in self.nodes[index].perturbed)

    def width(self) -> int:
        """Entries of the largest live value."""
        avals = (aval for index in self.live() for aval in self.nodes[index].outputs)
        return max((math.prod(aval.shape) for aval in avals), default=0)

    def evaluate(self, inputs: Sequence[Array]) -> dict[Ref, Array]:
        """The value of every live node at a point: the reference that bounds are held against."""
        return self.evaluate_from(dict(zip(self.inputs, map(jnp.asarray, inputs), strict=True)))

    def evaluate_from(self, known: Mapping[Ref, Array]) -> dict[Ref, Array]:
        """What the outputs depend on, computed from values on which all of it depends."""
        values = dict(known)
        for index in self.live(known):
            node = self.nodes[index]
            results = node(*(values[ref] for ref in node.perturbed))
            values.update({Ref(index, k): y for k, y in enumerate(results)})
        return values


def _short(aval: Any) -> str:
    """Shape and dtype as a jaxpr has them, `f32[3,4]`."""
    dtype = np.dtype(aval.dtype)
    kind = dtype.name if dtype.kind not in "fiu" else f"{dtype.kind}{8 * dtype.itemsize}"
    return f"{kind}[{','.join(map(str, aval.shape))}]"


def _known(x: Array) -> str:
    """A known operand: a number as it is, an array by its shape."""
    at_hand = isinstance(x, np.ndarray | np.generic | jax.Array)
    if at_hand and not isinstance(x, jax.core.Tracer) and not np.shape(x):
        return str(np.asarray(x))
    return _short(jax.typeof(x))
