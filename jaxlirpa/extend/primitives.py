"""Primitives of the user's own, declared as one of the families."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from jaxlirpa._types import Array, LinearBounds
from jaxlirpa.extend.checking import first_outside
from jaxlirpa.extend.domains import trace
from jaxlirpa.sets import Box

_BOXES, _POINTS = 6, 16
_LINEAR: Mapping[str, Callable[..., Any]] = {"forward_crown": forward_crown, "crown": crown}


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
    named = isinstance(given, str) and given in public
    found: Any = public[given] if named else given
    if not is_primitive(found):
        raise ExtensionError(
            f"{given!r} is no primitive of JAX. Pass the `jax.extend.core.Primitive` itself."
        )
    own = found.name in public and public[found.name] == found
    if own and found.name in {*RECORDS, *RESOLVED, *RULES}:
        raise ExtensionError(f"jaxlirpa bounds the primitive `{found.name}` already.")
    return found


def _check(
    name: str, record: Record, example: Callable[..., Array], boxes: tuple[Box, ...]
) -> None:
    """Raises an ExtensionError unless bounds of the example contain its values."""
    for box in _parts(boxes):
        points = [_points(b) for b in box]
        try:
            _check_claims(name, record, example, box, points)
            y = np.stack(
                [np.asarray(example(*map(jnp.asarray, z))) for z in zip(*points, strict=True)]
            )
            bounds = {"ibp": tuple(map(np.asarray, ibp(example)(*box)))}
            for method, bound in _LINEAR.items():
                bounds[method] = _enclosure(bound(example, linear=True)(*box), points)
        except ExtensionError:
            raise
        except (LirpaError, NotImplementedError, TypeError, ValueError) as error:
            raise ExtensionError(
                f"{name} cannot be bounded as {type(record).__name__}: {error}"
            ) from error
        for method, (lower, upper) in bounds.items():
            _check_enclosed(f"{name} leaves its bounds by {method}", lower, upper, y, points)


def _check_claims(
    name: str,
    record: Record,
    example: Callable[..., Array],
    box: tuple[Box, ...],
    points: Sequence[np.ndarray],
) -> None:
    """The example applies the primitive; if that is affine, its derivative is what it should be."""
    graph = trace(example, *box).graph
    nodes = [i for i in graph.live() if graph.nodes[i].primitive == name]
    if not nodes:
        raise ExtensionError(f"the example does not apply {name} to its arguments.")
    if isinstance(record, Move | Affine | Bilinear):
        for i in nodes:
            _check_linear(name, record, graph, i, points)


def _enclosure(form: LinearBounds, points: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The two affine functions at every point."""

    def at(coefficients: Sequence[Array], offset: Array) -> np.ndarray:
        value = np.asarray(offset)[None]
        for a, z in zip(coefficients, points, strict=True):
            flat = np.asarray(a).reshape(*np.shape(offset), -1)
            value = value + np.moveaxis(flat @ z.reshape(len(z), -1).T, -1, 0)
        return value

    return (
        at(form.lower_coefficients, form.lower_offset),
        at(form.upper_coefficients, form.upper_offset),
    )


def _check_enclosed(
    what: str, lower: np.ndarray, upper: np.ndarray, y: np.ndarray, points: Sequence[np.ndarray]
) -> None:
    size = max(float(np.max(np.abs(z), initial=0)) for z in points)
    at = first_outside(y, lower, upper, np.maximum(np.abs(y), size))
    if at is not None:
        low, high = (np.broadcast_to(limit, y.shape)[at] for limit in (lower, upper))
        arguments = ", ".join(str(z[at[0]].tolist()) for z in points)
        raise ExtensionError(
            f"{what}: the example of {arguments} is {y[at]:g} in entry {at[1:]}, not between "
            f"{low:g} and {high:g}."
        )


def _parts(boxes: tuple[Box, ...]) -> Iterator[tuple[Box, ...]]:
    """The boxes, some parts of them, and single points."""
    rng = np.random.default_rng(0)
    limits = [tuple(map(np.asarray, b.split()[0][0].hull())) for b in boxes]
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
    points: Sequence[np.ndarray],
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
