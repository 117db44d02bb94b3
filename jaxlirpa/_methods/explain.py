"""A function as it is bounded: every value, what it is, and where tightness is lost."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxlirpa._arrays import is_floating
from jaxlirpa._errors import ArgumentError
from jaxlirpa._graph.graph import INPUT, Ref
from jaxlirpa._graph.jaxpr import is_traced
from jaxlirpa._intervals import Interval
from jaxlirpa._methods.arguments import Arguments
from jaxlirpa._methods.ibp import ibp
from jaxlirpa._methods.intermediate_boxes import Intermediate, Transform, intermediate_boxes
from jaxlirpa._methods.layerwise import Layerwise
from jaxlirpa._methods.named_bounds import NamedBounds, by_ref, strategy_of
from jaxlirpa._methods.options import checked
from jaxlirpa._methods.problem import problem_of
from jaxlirpa._methods.transform import call_of
from jaxlirpa._ops.families import Elementwise
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import Lines, is_straight, relax
from jaxlirpa._types import Bounds, PyTree


@dataclasses.dataclass(frozen=True)
class Value:
    """One value inside a function.

    Attributes:
        name: its name in `intermediate_bounds`; where it has none there, the number of its node.
        equation: the equation that computes it, as in a jaxpr.
        primitive: the primitive. Some are jaxlirpa's own and stand for several of JAX's, such as
            `softmax`.
        family: how the primitive is bounded; empty for an input.
        rule: the module of the rewriting rule that introduced the equation; empty where nothing was
            rewritten.
        source: the user's line.
        bounds: the box used to relax the functions that read the value; where no nonlinear function
            does, its interval bounds.
        width: the mean width of those bounds.
        unstable: how many entries of an elementwise function are unstable, that is, not linear on
            the box of their operand (for relu: of unknown sign). None for any other function.
        gap: the mean vertical distance of the two lines that enclose an elementwise function, taken
            at the middle of the box: the width that this function adds. None for any other
            function.
    """

    name: str
    equation: str
    primitive: str
    family: str
    rule: str
    source: str
    bounds: Bounds
    width: float
    unstable: int | None
    gap: float | None


@dataclasses.dataclass(frozen=True)
class Explanation:
    """A function as it is bounded, in order of computation; `print` shows it as a table.

    Attributes:
        values: every value that the output depends on.
    """

    values: tuple[Value, ...]

    def __str__(self) -> str:
        """A table with one line for each value."""
        head = ("equation", "family", "rule", "width", "unstable", "gap", "line")
        rows = [head, *map(_row, self.values)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(head) - 1)]
        numbers = {3, 4, 5}

        def aligned(row: tuple[str, ...]) -> str:
            cells = [
                x.rjust(n) if i in numbers else x.ljust(n)
                for i, (x, n) in enumerate(zip(row, widths, strict=False))
            ]
            return "  ".join([*cells, row[-1]]).rstrip()

        return "\n".join(map(aligned, rows))

    def plot(self, axes: Any, **style: Any) -> None:
        """Draws the mean width of every value, in order of computation.

        Args:
            axes: the matplotlib axes to draw into.
            style: keyword arguments of `axes.plot`.
        """
        axes.plot([v.width for v in self.values], **{"marker": "o", "label": "mean width", **style})
        axes.set_xticks(range(len(self.values)), [v.name for v in self.values], rotation=90)
        axes.set_yscale("log")
        axes.set_ylabel("mean width of the bounds")


def _row(value: Value) -> tuple[str, ...]:
    equation = value.equation.partition("  #")[0]
    unstable = "" if value.unstable is None else f"{value.unstable}/{value.bounds.lower.size}"
    gap = "" if value.gap is None else f"{value.gap:.3g}"
    return equation, value.family, value.rule, f"{value.width:.3g}", unstable, gap, value.source


@checked
def explain(
    fn: Callable[..., PyTree],
    *,
    intermediate: Transform | NamedBounds | None = ibp,
    argnums: int | tuple[int, ...] | None = None,
) -> Callable[..., Explanation]:
    """Shows how a function is bounded: every value, by which rule, and where width is lost.

    Args:
        fn: function of pytrees of arrays.
        intermediate: how the values that nonlinear functions read are bounded, as for `crown`.
            The default is by intervals; None is for CROWN's backward passes.
        argnums: the arguments that `eps` perturbs, as for `ibp`; default: the last one.

    Returns:
        A function that takes fn's arguments, see `jaxlirpa.ibp`, and returns an `Explanation`.

    Raises:
        As `jaxlirpa.ibp`; ArgumentError also inside `jax.jit`, where no numbers are known.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlirpa
        >>> w = jnp.array([[1.0, -1.0], [2.0, 1.0]])
        >>> found = jaxlirpa.explain(lambda x: jax.nn.relu(w @ x) @ w)(jnp.array([1.0, 0.5]), 1.0)
        >>> for value in found.values:
        ...     print(value.primitive, value.family, f"{value.width:.1f}", value.unstable)
        input  2.0 None
        dot_general Bilinear 5.0 None
        max Elementwise 4.0 2
        dot_general Bilinear 10.8 None
    """
    strategy, known = strategy_of(intermediate, Layerwise())

    def joint(call: Arguments, own: tuple[NamedBounds | None, Any]) -> Explanation:
        problem, _ = problem_of(fn, call)
        boxes = by_ref(problem.graph, own[0])
        inside = intermediate_boxes(
            problem, strategy, known=boxes, wanted=dict.fromkeys(problem.graph.targets)
        )
        return _explanation(inside)

    return call_of(fn, joint, argnums=argnums, in_axes=None, out_axes=None, given=known)


def _explanation(inside: Intermediate) -> Explanation:
    graph = inside.problem.graph
    names = {**graph.names.first(), **{ref: name for name, ref in graph.names.marked.items()}}
    found = []
    for index in graph.live():
        node = graph.nodes[index]
        family = "" if node.primitive == INPUT else type(record(node)).__name__
        lines = _lines(inside, index)
        for ref in (Ref(index, k) for k in range(len(node.outputs))):
            box = inside.tight.get(ref, inside.boxes[ref])
            if is_traced(box.lower):
                raise ArgumentError("explain shows numbers, which are not known inside jax.jit.")
            found.append(
                Value(
                    name=names.get(ref, ref.name),
                    equation=graph.equation(index),
                    primitive=node.primitive,
                    family=family,
                    rule=graph.rules.get(index, ""),
                    source=str(node.source),
                    bounds=Bounds(*map(np.asarray, box)),
                    width=_width(box),
                    unstable=None if lines is None else _unstable(lines),
                    gap=None if lines is None else _gap(inside, index, lines),
                )
            )
    return Explanation(tuple(found))


def _lines(inside: Intermediate, index: int) -> Lines | None:
    """The lines that enclose an elementwise function on the box of its operand."""
    node = inside.problem.graph.nodes[index]
    found = None if node.primitive == INPUT else record(node)
    if not isinstance(found, Elementwise) or not is_floating(node.outputs[0]):
        return None
    (ref,) = node.perturbed
    return relax(found.relaxation(node), inside.tight[ref])


def _unstable(lines: Lines) -> int:
    return int(np.sum(~np.asarray(is_straight(lines))))


def _gap(inside: Intermediate, index: int, lines: Lines) -> float:
    """The mean distance of the lines at the middle of the box."""
    (ref,) = inside.problem.graph.nodes[index].perturbed
    box = inside.tight[ref]
    middle = np.asarray(0.5 * box.lower + 0.5 * box.upper)
    slope, offset = (
        np.asarray(high) - np.asarray(low)
        for low, high in (
            (lines.lower_slope, lines.upper_slope),
            (lines.lower_offset, lines.upper_offset),
        )
    )
    return float(np.mean(slope * middle + offset)) if middle.size else 0.0


def _width(box: Interval) -> float:
    """The mean width; for truth values, the fraction of those that are unknown."""
    lower, upper = (np.asarray(limit, float) for limit in box)
    return float(np.mean(upper - lower)) if lower.size else 0.0
