"""Primitives of the user's own, declared as one of the families."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._errors import ExtensionError, LirpaError
from jaxlirpa._graph.graph import Graph, Node, Ref
from jaxlirpa._graph.jaxpr import is_primitive, public_primitives
from jaxlirpa._graph.trace import RESOLVED
from jaxlirpa._methods.crown import crown
from jaxlirpa._methods.forward import forward_crown
from jaxlirpa._methods.ibp import ibp
from jaxlirpa._ops import declared
from jaxlirpa._ops.families import Affine, Bilinear, Move, Record
from jaxlirpa._ops.registry import RECORDS
from jaxlirpa._ops.rules import RULES
from jaxlirpa._typing import Array, Interval
from jaxlirpa.extend.checking import check_contained
from jaxlirpa.extend.domains import trace
from jaxlirpa.sets import Box

_BOXES, _POINTS = 6, 16
_METHODS: Mapping[str, Callable[..., Any]] = {
    "ibp": ibp,
    "forward_crown": forward_crown,
    "crown": crown,
}


class Registration:
    """A declared primitive. It holds until `undo()`, or to the end of a `with` block."""

    def __init__(self, primitive: Any, name: str):
        self.primitive, self.name = primitive, name

    def undo(self) -> None:
        """Takes the declaration back. Functions that were compiled before keep their bounds."""
        declared.PRIMITIVES.pop(self.primitive, None)
        declared.RECORDS.pop(self.name, None)

    def __enter__(self) -> Registration:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: types.TracebackType | None,
    ) -> None:
        self.undo()


def primitive(
    primitive: Any, record: Record, example: Callable[..., Array], *boxes: Box
) -> Registration:
    """Declares what a primitive is, for all transforms.

    The primitive is known by its identity: another one of the same name is not declared. For an
    affine family it needs a batching rule, a derivative and its transpose, which are what bounds
    are made of.

    The declaration is checked on samples of the example, and trusted everywhere else.

    Args:
        primitive: a `jax.extend.core.Primitive`, or the name of one of JAX's own that jaxlirpa
            does not bound.
        record: `Move`, `Affine`, `Bilinear`, `Elementwise`, `Joint` or `Opaque`.
        example: a function that applies the primitive.
        boxes: its arguments, a box each, within which it is sampled.

    Returns:
        A handle that takes the declaration back: `undo()`, or leaving a `with` block.

    Raises:
        ExtensionError: where the primitive is known already, the example does not apply it, or
            the record does not hold at a sampled point.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlirpa
        >>> from jaxlirpa import extend
        >>> wanted = extend.Elementwise(lambda node: extend.relaxation(jax.lax.erf))
        >>> try:
        ...     extend.primitive("erf", wanted, jax.lax.erf, jaxlirpa.Box(-1.0, 1.0))
        ... except jaxlirpa.ExtensionError as error:
        ...     print(error)
        jaxlirpa bounds the primitive `erf` already.
    """
    found = _resolve(primitive)
    name = declared.name_of(found.name)
    if found in declared.PRIMITIVES and declared.RECORDS[name] == record:
        return Registration(found, name)
    if name in declared.RECORDS:
        raise ExtensionError(
            f"a primitive `{found.name}` is declared already; take that back first (`undo()`)."
        )
    declared.PRIMITIVES[found], declared.RECORDS[name] = name, record
    registration = Registration(found, name)
    try:
        _check(name, record, example, boxes)
    except BaseException:
        registration.undo()
        raise
    return registration


def _resolve(given: Any) -> Any:
    """The primitive itself.

    Raises:
        ExtensionError: where there is none, or it has a meaning already.
    """
    public = public_primitives()
    found = public.get(given) if isinstance(given, str) else given
    if not is_primitive(found):
        raise ExtensionError(
            f"{given!r} is no primitive of JAX. Pass the `jax.extend.core.Primitive` itself."
        )
    if public.get(found.name) is found and found.name in {*RECORDS, *RESOLVED, *RULES}:
        raise ExtensionError(f"jaxlirpa bounds the primitive `{found.name}` already.")
    return found


def _check(
    name: str, record: Record, example: Callable[..., Array], boxes: tuple[Box, ...]
) -> None:
    """Raises an ExtensionError unless bounds of the example contain its values."""
    for box in _parts(boxes):
        try:
            graph = trace(example, *box).graph
            nodes = [i for i in graph.live() if graph.nodes[i].primitive == name]
            if not nodes:
                raise ExtensionError(f"the example does not apply {name} to its arguments.")
            x = [_points(b) for b in box]
            if isinstance(record, Move | Affine | Bilinear):
                for i in nodes:
                    _check_linear(name, record, graph, i, [z[:2] for z in x])
            y = np.stack([np.asarray(example(*map(jnp.asarray, z))) for z in zip(*x, strict=True)])
            found = {method: bound(example)(*box) for method, bound in _METHODS.items()}
        except ExtensionError:
            raise
        except (LirpaError, NotImplementedError, TypeError, ValueError) as error:
            raise ExtensionError(
                f"{name} cannot be bounded as {type(record).__name__}: {error}"
            ) from error
        for method, bounds in found.items():
            _check_sampled(f"{name} in {method}", Interval(*map(np.asarray, bounds)), box, y)


def _check_sampled(name: str, image: Interval, box: tuple[Box, ...], y: np.ndarray) -> None:
    """The bounds contain the sampled values; the message has the widest limits of the box."""
    low = min(float(np.min(b.lower)) for b in box)
    high = max(float(np.max(b.upper)) for b in box)
    number = np.broadcast_to(np.arange(len(y)).reshape(-1, *[1] * (y.ndim - 1)), y.shape)
    check_contained(name, image, None, Interval(np.asarray(low), np.asarray(high)), number, y)


def _parts(boxes: tuple[Box, ...]) -> Iterator[tuple[Box, ...]]:
    """The boxes, some parts of them, and single points."""
    rng = np.random.default_rng(0)
    limits = [tuple(np.asarray(z) for z in b.split()[0][0].hull()) for b in boxes]  # type: ignore[attr-defined]
    for k in range(_BOXES):
        parts = []
        for lower, upper in limits:
            part = np.sort(rng.uniform(size=(2, *lower.shape)), 0)
            part = [np.stack([0 * lower, 0 * lower + 1]), np.stack([part[0]] * 2), part][min(k, 2)]
            ends = np.clip(lower * (1 - part) + upper * part, lower, upper).astype(lower.dtype)
            parts.append(Box(*map(jnp.asarray, ends)))
        yield tuple(parts)


def _points(box: Box) -> np.ndarray:
    """Corners and inner points."""
    lower, upper = np.asarray(box.lower), np.asarray(box.upper)
    rng = np.random.default_rng(1)
    part = rng.uniform(size=(_POINTS, *lower.shape))
    part[::2] = np.round(part[::2])
    return np.clip(lower * (1 - part) + upper * part, lower, upper).astype(lower.dtype)


def _check_linear(
    name: str,
    record: Move | Affine | Bilinear,
    graph: Graph,
    index: int,
    points: list[np.ndarray],
) -> None:
    """The derivative is constant, and of the kind that the record says."""
    node = graph.nodes[index]
    runs = [graph.evaluate([jnp.asarray(z[i]) for z in points]) for i in range(2)]
    a, b = ([_derivative(node, run, k) for k in range(len(node.perturbed))] for run in runs)
    steps = [jnp.ravel(runs[1][r] - runs[0][r]) for r in node.perturbed]
    outputs = [
        jnp.concatenate([run[Ref(index, k)].ravel() for k in range(len(node.outputs))])
        for run in runs
    ]
    rise = sum(np.asarray(m @ step) for m, step in zip(a, steps, strict=True))
    size = 1e-3 * (1 + max(float(np.abs(m).max(initial=0)) for m in (*a, *b)))
    same = all(np.allclose(m, n, atol=size) for m, n in zip(a, b, strict=True))
    if not same or not np.allclose(outputs[1] - outputs[0], rise, atol=size):
        raise ExtensionError(f"{name} is not affine in its perturbed operands.")
    for position, matrix in zip(node.positions, a, strict=True):
        reason = _objection(record, position, np.asarray(matrix), size)
        if reason:
            raise ExtensionError(f"{name} is no such {type(record).__name__}: {reason}.")


def _objection(
    record: Move | Affine | Bilinear, position: int, matrix: np.ndarray, size: float
) -> str | None:
    entries = np.abs(matrix) > size
    if isinstance(record, Move):
        if not np.all(np.isclose(matrix, 0) | np.isclose(matrix, 1)) or (entries.sum(1) > 1).any():
            return f"an output is no entry of operand {position}"
        if not record.repeats and (entries.sum(0) > 1).any():
            return f"an entry of operand {position} appears more than once"
        return None
    if isinstance(record, Affine) and (matrix * record.signs[position] < -size).any():
        return f"it does not have the sign {record.signs[position]:+d} in operand {position}"
    if not record.mixes and (entries.sum(1) > 1).any():
        return f"an output mixes several entries of operand {position}"
    return None


def _derivative(node: Node, values: Mapping[Ref, Array], k: int) -> Array:
    """`[outputs, inputs]`: the derivative of all outputs with respect to one operand."""
    operands = [values[ref] for ref in node.perturbed]
    shape, dtype, size = operands[k].shape, operands[k].dtype, operands[k].size

    def along(step: np.ndarray) -> Array:
        tangents = [jnp.zeros_like(x) for x in operands]
        tangents[k] = jnp.asarray(step.reshape(shape), dtype)
        _, moved = jax.jvp(node, tuple(operands), tuple(tangents))
        return jnp.concatenate([y.ravel() for y in moved])

    return jnp.stack([along(step) for step in np.eye(size)], axis=1)
