"""From a method on graphs to a transform of functions: sets and pytrees in, bounds out."""

from __future__ import annotations

import functools
import inspect
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import row_products
from jaxlirpa._errors import ArgumentError, ExpensiveJointCallWarning
from jaxlirpa._graph.graph import Ref
from jaxlirpa._intervals import Interval, vacuous_where_nan
from jaxlirpa._methods import signature
from jaxlirpa._methods.arguments import Arguments, arguments
from jaxlirpa._methods.batching import map_examples
from jaxlirpa._methods.independence import mixing
from jaxlirpa._methods.problem import Problem, TracedFunction, by_input, problem_of
from jaxlirpa._methods.saved import IntermediateBounds, admitted
from jaxlirpa._methods.solution import InputRows, Method, Optimized, Solution
from jaxlirpa._ops.families import Nonlinear
from jaxlirpa._ops.registry import record
from jaxlirpa._types import Bounds, LinearBounds, PyTree

_LOG = logging.getLogger("jaxlirpa")

Cost: TypeAlias = Callable[[Problem], int]

# Coefficients above which a joint call on what looks like a batch is worth a warning (256 MiB).
_EXPENSIVE = 2**26


def transform(
    fn: Callable[..., PyTree],
    method: Callable[..., list[Solution]],
    cost: Cost,
    *,
    argnums: int | tuple[int, ...] | None,
    in_axes: PyTree,
    out_axes: int,
    linear: bool = False,
    given: PyTree = None,
    alphas: PyTree = None,
    with_alphas: bool = False,
) -> Callable[..., Any]:
    """A function that bounds `fn` by `method`.

    Args:
        fn: the function; of one that is traced already, all arguments are sets.
        method: bounds the outputs of a program.
        cost: the number of coefficients that the method holds at once.
        argnums, in_axes, out_axes, linear: see `jaxlirpa.crown`.
        given, alphas: what else the method reads, as arguments of these names; None: nothing.
        with_alphas: return the pair of the bounds and of the solutions' alphas.
    """

    def told(given: PyTree, alphas: PyTree = None) -> Method:
        named = {"given": given, "alphas": alphas}
        return functools.partial(method, **{k: x for k, x in named.items() if x is not None})

    if isinstance(fn, TracedFunction):
        if isinstance(given, IntermediateBounds):
            raise ArgumentError(
                "bounds that know their sets are handed to the outermost transform, which sees the "
                "arguments: crown(fn, intermediate=bounds)."
            )
        graph = fn.graph
        return lambda *sets: _bounds(
            _solve(Problem(graph, by_input(graph, sets), fuses=False), told(given))
        )

    def joint(call: Arguments, own: tuple[PyTree, PyTree]) -> Any:
        problem, shape = problem_of(fn, call)
        if linear:  # Its coefficients are those on all examples.
            problem = problem.as_one_example()
        if in_axes is None:
            warn_if_expensive(problem, cost(problem))
        if _LOG.isEnabledFor(logging.INFO):
            _tell(fn, problem, cost(problem))
        solutions = _solve(problem, told(*own))
        structure = jax.tree.structure(shape)
        bounds: Any
        if linear:
            bounds = _linear_bounds(problem, solutions, call, structure)
        else:
            bounds = Bounds(*(jax.tree.unflatten(structure, side) for side in _bounds(solutions)))
        found = (s.alphas for s in solutions if s.alphas is not None)
        return Optimized(bounds, tuple(found)) if with_alphas else bounds

    return call_of(
        fn, joint, argnums=argnums, in_axes=in_axes, out_axes=out_axes, given=given, besides=alphas
    )


def call_of(
    fn: Callable[..., PyTree],
    joint: Callable[[Arguments, tuple[PyTree, PyTree]], Any],
    *,
    argnums: int | tuple[int, ...] | None,
    in_axes: PyTree,
    out_axes: int | None,
    given: PyTree,
    besides: PyTree = None,
) -> Callable[..., Any]:
    """A function of fn's arguments that finds the sets among them, and the examples.

    Args:
        fn: the function.
        joint: what to do in one call, for one example.
        argnums, in_axes: see `jaxlirpa.crown`.
        out_axes: see `map_examples`.
        given: bounds of inner values, which must hold in the call.
        besides: what else `joint` reads. Of both, every example has its own.
    """

    def bounded(*args: Any, **named: Any) -> Any:
        call = arguments(fn, args, argnums, named)
        own = admitted(call, given, in_axes), besides
        if in_axes is None:
            return joint(call, own)
        return map_examples(joint, call, in_axes, out_axes, own)

    return _presented(bounded, fn)


_PRESENTATION = """Guaranteed bounds of {name}.

Any leaf of any argument may be a set: jaxlirpa.Box, LpBall or JointBall. Where none is, the radius
`eps`, last or by name, makes an L-infinity ball of the last argument, or of those that `argnums`
of the transform numbers. What has a default is known exactly where it is passed by keyword.

Returns:
    jaxlirpa.Bounds, lower and upper, each shaped like what {name} returns; or what else the
    transform says.

{name}:
    {documentation}
"""


def _presented(bounded: Callable[..., Any], fn: Callable[..., PyTree]) -> Callable[..., Any]:
    """The transformed function with a name, a documentation and a signature after fn's own."""
    name, documentation = signature.called(fn), inspect.getdoc(fn) or "not documented."
    bounded.__name__ = bounded.__qualname__ = f"bounds_of_{name}"
    bounded.__module__ = getattr(fn, "__module__", None) or bounded.__module__
    indented = documentation.replace("\n", "\n    ")
    bounded.__doc__ = _PRESENTATION.format(name=name, documentation=indented)
    return signature.standing_for(bounded, fn, signature.with_radius(fn))


def _solve(problem: Problem, method: Method) -> list[Solution]:
    """The method's solution of every output; what no input reaches is known exactly."""
    graph = problem.graph
    found = iter(method(problem) if graph.targets else [])

    def certain(value: Any) -> Solution:
        value = jnp.asarray(value)
        rows = InputRows({}, value.reshape(-1))
        return Solution(Interval(value, value), rows, rows)

    return [next(found) if isinstance(x, Ref) else certain(x) for x in graph.outputs]


def _bounds(solutions: Sequence[Solution]) -> Bounds:
    """The boxes, with an infinite limit wherever nothing finite could be computed."""
    boxes = [vacuous_where_nan(s.box) for s in solutions]
    return Bounds(tuple(b.lower for b in boxes), tuple(b.upper for b in boxes))


def _linear_bounds(
    problem: Problem, solutions: Sequence[Solution], call: Arguments, structure: Any
) -> LinearBounds:
    """The solutions' affine rows, in the structure of the output and the arguments."""

    def offset(rows: InputRows, box: Interval) -> Any:
        at_zero = rows.offset
        for ref, coefficients in rows.coefficients.items():
            at_zero = at_zero - row_products(coefficients, problem.sets[ref].point())
        return at_zero.reshape(box.lower.shape)

    def coefficients(rows: InputRows, box: Interval) -> Any:
        shape = box.lower.shape
        arrays = [
            rows.coefficients[ref].reshape(*shape, *s.aval.shape)
            if ref in rows.coefficients
            else jnp.zeros((*shape, *s.aval.shape), s.aval.dtype)
            for ref, s in problem.sets.items()
        ]
        return call.fill(arrays, [None] * len(call.leaves))

    def collect(part: Callable[[InputRows, Interval], Any], side: str) -> PyTree:
        rows = [getattr(s, side) for s in solutions]
        parts = [part(r, s.box) for r, s in zip(rows, solutions, strict=True)]
        return jax.tree.unflatten(structure, parts)

    return LinearBounds(
        collect(coefficients, "lower"),
        collect(offset, "lower"),
        collect(coefficients, "upper"),
        collect(offset, "upper"),
    )


def _tell(fn: Callable[..., PyTree], problem: Problem, coefficients: int) -> None:
    """Logs what is about to be bounded, and at which cost."""
    nodes = [problem.graph.nodes[index] for index in problem.graph.live()]
    counted = len(nodes), sum(isinstance(record(n), Nonlinear) for n in nodes if n.perturbed)
    _LOG.info(
        "%s: %d values, %d of them by nonlinear functions; rows of up to %d coefficients in all",
        *(signature.called(fn), *counted, coefficients),
    )
    if coefficients > _EXPENSIVE:
        _LOG.info(
            "that is much memory and time: a small rows_per_chunk takes less memory, and crown_ibp "
            "or ibp less of both"
        )


def warn_if_expensive(problem: Problem, cost: int) -> None:
    """Warns where a batch seems to be bounded as one vector, at the square of its size."""
    graph = problem.graph
    inputs = [graph.aval(ref).shape for ref in graph.inputs]
    outputs = [graph.aval(ref).shape for ref in graph.targets]
    leading = {shape[0] if len(shape) > 1 else 1 for shape in inputs}
    leading |= {shape[0] if shape else 1 for shape in outputs}
    if cost <= _EXPENSIVE or len(leading) != 1 or leading == {1}:
        return
    found = mixing(graph)
    if found or not graph.batch_axes:
        size = math.ceil(cost / _EXPENSIVE) / 4
        where = f": `{found.primitive}` at {found.source} seems to mix them" if found else ""
        warnings.warn(
            f"A batch of {leading.pop()} is bounded as one joint vector, which takes {cost} "
            f"coefficients (about {size:g} GiB) at once, as its rows could not be proved "
            f"independent{where}. If they are, say so: in_axes=(None, 0), as in jax.vmap, gives "
            "the same bounds at the cost of the rows.",
            ExpensiveJointCallWarning,
            stacklevel=4,
        )
