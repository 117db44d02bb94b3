"""The only two loops over a graph: forwards with a state per value, backwards with functionals.

Neither knows what a state is; that is the domain's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

from jaxlirpa._graph.graph import INPUT, Graph, Node, Ref

State = TypeVar("State")


class ForwardDomain(Protocol[State]):
    """What a forward domain does with one node."""

    def step(self, index: int, node: Node, operands: tuple[State, ...]) -> tuple[State, ...]:
        """The states of a node's outputs from those of its perturbed operands."""


class BackwardDomain(Protocol[State]):
    """What a backward domain does with one node."""

    def pull(
        self, index: int, node: Node, outputs: tuple[State | None, ...]
    ) -> Iterable[tuple[Ref, State]]:
        """Functionals of a node's outputs (None: zero) as functionals of earlier values."""

    def add(self, a: State, b: State) -> State:
        """The sum of two functionals of one value."""


def forward(
    graph: Graph, domain: ForwardDomain[State], states: dict[Ref, State]
) -> dict[Ref, State]:
    """The state of every live value, from those of the inputs, to which they are added."""
    for index in graph.live():
        node = graph.nodes[index]
        if node.primitive != INPUT:
            results = domain.step(index, node, tuple(states[r] for r in node.perturbed))
            states.update({Ref(index, k): s for k, s in enumerate(results)})
    return states


def backward(
    graph: Graph,
    domain: BackwardDomain[State],
    functionals: Mapping[Ref, State],
    stop: Callable[[Ref], bool],
) -> dict[Ref, State]:
    """A sum of functionals of some values as a sum of functionals of those where `stop` holds.

    `stop` must hold at the inputs.
    """
    pending = dict(functionals)
    reached: dict[Ref, State] = {}
    for index in reversed(range(max((ref.node + 1 for ref in pending), default=0))):
        node = graph.nodes[index]
        refs = [Ref(index, k) for k in range(len(node.outputs))]
        reached.update({r: pending.pop(r) for r in refs if r in pending and stop(r)})
        states = tuple(pending.pop(r, None) for r in refs)
        if all(s is None for s in states):
            continue
        for ref, state in domain.pull(index, node, states):
            pending[ref] = domain.add(pending[ref], state) if ref in pending else state
    return reached
