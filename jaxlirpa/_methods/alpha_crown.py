"""alpha-CROWN: CROWN with the relaxations that suit each output best (Xu et al. 2021)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlirpa._domains.backward_linear import Sided
from jaxlirpa._domains.rows import numbered
from jaxlirpa._errors import ArgumentError
from jaxlirpa._graph.graph import Graph, Ref
from jaxlirpa._intervals import Interval, intersect
from jaxlirpa._mesh import vary
from jaxlirpa._methods.ascent import ascend, to_unit_interval
from jaxlirpa._methods.crown import cost, solve
from jaxlirpa._methods.intermediate_boxes import Strategy, Transform
from jaxlirpa._methods.layerwise import Layerwise, by_default_relaxations
from jaxlirpa._methods.named_bounds import NamedBounds, strategy_of
from jaxlirpa._methods.options import checked, whole_number
from jaxlirpa._methods.problem import Problem
from jaxlirpa._methods.relaxed_graph import RelaxedGraph
from jaxlirpa._methods.solution import Solution, enclose
from jaxlirpa._methods.transform import transform
from jaxlirpa._relax.relaxations import Relaxations
from jaxlirpa._types import Array, PyTree

Alphas: TypeAlias = Mapping[str, Any]
"""What the relaxations of each node are for one output: by node and by side."""


@checked
def alpha_crown(
    fn: Callable[..., PyTree],
    *,
    steps: int = 20,
    optimizer: optax.GradientTransformation | None = None,
    intermediate: Transform | NamedBounds | None = None,
    rows_per_chunk: int | None = None,
    optimize_intermediate: bool = False,
    shared: bool = False,
    unroll: bool = False,
    alphas: Any = None,
    with_alphas: bool = False,
    argnums: int | tuple[int, ...] | None = None,
    in_axes: PyTree = None,
    out_axes: int = 0,
    linear: bool = False,
) -> Callable[..., Any]:
    """Bounds a function by CROWN with optimised relaxations (Xu et al. 2021, alpha-CROWN).

    Where lines of many slopes enclose a function, CROWN uses one that is good in general. Here the
    slopes, tangent points and weights of planes are parameters, called alphas. The lower and the
    upper bound of every output have their own. Gradient descent starts from CROWN's values and
    improves them. The bounds of every step are sound and the best ones are kept, so the result is
    never looser than `crown`.

    Args:
        fn: function of pytrees of arrays.
        steps: the number of gradient steps.
        optimizer: any optax optimiser for numbers in [0, 1]; default: Adam with a short memory and
            a learning rate that decays from 0.2 to an eighth of that over the steps.
        intermediate: how the operands of nonlinear functions are bounded, as for `crown`.
        rows_per_chunk: as for `crown`.
        optimize_intermediate: whether the intermediate bounds are optimised, too, layer by layer,
            with a search for each, unless `intermediate` provides them. This is tighter, and costs
            about as many times more as there are steps. As in `crown`, only unstable entries are
            bounded this way, in chunks that fit into memory.
        shared: whether all outputs share their alphas, which takes less memory. For intermediate
            values, all entries of a chunk do.
        unroll: whether derivatives of the result pass through the search. By default they treat
            the alphas as constants, which is correct to first order at an optimum.
        alphas: the start of the search, instead of CROWN's alphas: what an earlier call with
            `with_alphas=True` returned for the same function and shapes. Use it in a sweep over
            radii, or for the next image. The bounds are sound whatever the start.
        with_alphas: return a pair: the bounds, and the alphas found, one pytree of numbers in
            [0, 1] for each output. The alphas of intermediate values are not included.
        argnums, in_axes, out_axes, linear: as for `crown`. With alphas, out_axes must be 0, and
            the first axis of the alphas indexes the examples.

    Returns:
        A function that takes fn's arguments, see `jaxlirpa.ibp`. It returns a pair if
        `with_alphas` is set.

    Raises:
        As `jaxlirpa.ibp`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxlirpa
        >>> w = jnp.array([[1.0, 2.0], [2.0, -1.0], [1.0, -1.0]])
        >>> fn = lambda x: jnp.array([1.0, 1.0, -1.5]) @ jax.nn.relu(w @ x)
        >>> for method in jaxlirpa.crown, jaxlirpa.alpha_crown:
        ...     lower, upper = method(fn)(jnp.array([0.1, 0.1]), 1.0)
        ...     print(f"{lower:.1f} {upper:.1f}")
        -3.0 5.4
        -1.9 5.4
    """
    whole_number("steps", steps, 0)
    whole_number("rows_per_chunk", rows_per_chunk, 1)
    if not (optimizer is None or (hasattr(optimizer, "init") and hasattr(optimizer, "update"))):
        raise ArgumentError(
            f"optimizer must be one of optax, as optax.adam(0.1), or None, and not {optimizer!r}."
        )
    search = functools.partial(
        _search,
        steps=steps,
        optimizer=optimizer or _adam(steps),
        shared=shared,
        unroll=unroll,
    )
    if (with_alphas or alphas is not None) and (out_axes != 0 or unroll):
        raise ArgumentError("alphas are handed in and out with out_axes=0 and unroll=False only.")
    bound_value = search if optimize_intermediate else by_default_relaxations
    strategy, given = strategy_of(intermediate, Layerwise(bound_value, rows_per_chunk))
    return transform(
        fn,
        functools.partial(_solve, strategy=strategy, search=search),
        cost,
        argnums=argnums,
        in_axes=in_axes,
        out_axes=out_axes,
        linear=linear,
        given=given,
        alphas=alphas,
        with_alphas=with_alphas,
    )


def _solve(
    problem: Problem,
    strategy: Strategy,
    search: Callable[..., Solution],
    given: NamedBounds | None = None,
    alphas: Sequence[Alphas] | None = None,
) -> list[Solution]:
    """As `crown.solve`, where each output may have its own start."""
    targets = problem.graph.targets
    if alphas is None:
        return solve(problem, strategy, search, given)
    if len(alphas) != len(targets):
        raise ArgumentError(f"there are alphas of {len(alphas)} outputs, and {len(targets)} here.")
    own = dict(zip(targets, alphas, strict=True))

    def bound_output(relaxed: RelaxedGraph, target: Ref, rows: Array | None = None) -> Solution:
        return search(relaxed, target, rows, start=own[target])

    return solve(problem, strategy, bound_output, given)


def _search(
    relaxed: RelaxedGraph,
    target: Ref,
    rows: Array | None = None,
    *,
    steps: int,
    optimizer: optax.GradientTransformation,
    shared: bool,
    unroll: bool,
    start: Alphas | None = None,
) -> Solution:
    """The bounds of a value by the best relaxations of the nodes before it."""
    graph = relaxed.problem.graph
    families = {i: relaxed.families(i) for i in relaxed.passed(target)}
    tables = {i: relaxed.table(i, own) for i, own in families.items()}
    default = by_default_relaxations(relaxed, target, rows)
    alike = 1 if shared else graph.size(target) if rows is None else len(rows)
    first, axes = _defaults(graph, families, alike)
    if not jax.tree.leaves(first):
        return default._replace(alphas={})
    begin = Sided(first, first) if start is None else _fitting(start, Sided(first, first))

    def limits(alphas: Sided[PyTree]) -> Interval:
        box = enclose(relaxed.problem, relaxed.at(tables, alphas), target, rows).box
        axis = graph.batch_axes.get(target)
        return box if rows is not None else Interval(*(numbered(limit, axis) for limit in box))

    search = functools.partial(ascend, limits, axes=axes, steps=steps, optimizer=optimizer)
    if unroll:
        best = search(begin)
    else:
        # What the search depends on becomes its arguments, so that derivatives end there.
        closed, constants = jax.closure_convert(search, begin)
        best = jax.lax.stop_gradient(jax.jit(closed)(*jax.lax.stop_gradient((begin, *constants))))
    found = enclose(relaxed.problem, relaxed.at(families, best), target, rows)
    return found._replace(box=intersect(found.box, default.box), alphas=_by_name(best))


def _defaults(
    graph: Graph, families: Mapping[int, Sequence[Relaxations[Any]]], rows: int
) -> tuple[PyTree, PyTree]:
    """CROWN's own alphas of every node for so many rows, and their axes that number examples."""
    own = {i: [f.start for f in members] for i, members in families.items()}
    axes = {i: [_along(graph, i, x) for x in own[i]] for i in own}

    def repeated(x: Array) -> Array:  # every device searches for its own
        return vary(jnp.broadcast_to(x, (rows, *x.shape)), graph.axes)

    return jax.tree.map(repeated, own), axes


def _by_name(alphas: Sided[PyTree]) -> Alphas:
    """Alphas by node and side, as users get them."""
    pairs = {str(i): (alphas.lower[i], alphas.upper[i]) for i in alphas.lower}
    return {node: {"lower": low, "upper": high} for node, (low, high) in pairs.items()}


def _fitting(start: Alphas, default: Sided[PyTree]) -> Sided[PyTree]:
    """The user's alphas, projected onto [0, 1].

    Raises:
        ArgumentError: where their structure or shapes are not those of this function.
    """
    wanted = jax.eval_shape(_by_name, default)
    kinds = [jax.tree.map(lambda x: (jnp.shape(x), jnp.result_type(x)), t) for t in (start, wanted)]
    structures: list[Any] = [jax.tree.structure(t) for t in (start, wanted)]
    if structures[0] != structures[1] or kinds[0] != kinds[1]:
        raise ArgumentError(
            "alphas must be those that alpha_crown(fn, with_alphas=True) returned, of the same "
            "function, shapes and options; they have others."
        )
    sides = ({i: start[str(i)][side] for i in default.lower} for side in ("lower", "upper"))
    return to_unit_interval(Sided(*sides))


def _along(graph: Graph, index: int, start: PyTree) -> PyTree:
    """The axis that indexes examples in each array of a node's alphas; -1 where there is none.

    The arrays have the shape of an operand, that of the output, or that to which all operands
    broadcast.
    """
    if not jax.tree.leaves(start):
        return start
    refs = (*graph.nodes[index].perturbed, Ref(index, 0))
    axes = {graph.aval(ref).shape: graph.batch_axes.get(ref, -1) for ref in refs}
    everything = np.broadcast_shapes(*(graph.aval(ref).shape for ref in refs[:-1]))
    axes.setdefault(everything, graph.batch_axes.get(refs[0], -1))
    return jax.tree.map(lambda x: axes.get(x.shape, -1), start)


def _adam(steps: int) -> optax.GradientTransformation:
    """The default optimiser, chosen by experiments on many networks at 20 steps.

    A longer memory converges more slowly. `eps_root` keeps derivatives through the search finite.
    """
    return optax.adam(
        optax.exponential_decay(0.2, max(steps, 1), 0.125), b1=0.7, b2=0.9, eps_root=1e-16
    )
