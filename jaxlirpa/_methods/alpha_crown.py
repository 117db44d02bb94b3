"""alpha-CROWN: CROWN with the relaxations that suit each output best (Xu et al. 2021)."""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxlirpa._domains.backward_linear import Sided
from jaxlirpa._domains.rows import numbered
from jaxlirpa._errors import ArgumentError
from jaxlirpa._graph.graph import Graph, Ref
from jaxlirpa._methods.crown import cost, solve
from jaxlirpa._methods.given import Named, strategy
from jaxlirpa._methods.inner import Transform
from jaxlirpa._methods.layers import plain
from jaxlirpa._methods.options import checked, whole_number
from jaxlirpa._methods.relaxed import Relaxed
from jaxlirpa._methods.solution import Solution, enclose
from jaxlirpa._methods.transform import transform
from jaxlirpa._relax.family import Family
from jaxlirpa._typing import (
    Array,
    Bounds,
    Interval,
    LinearBounds,
    PyTree,
    intersect,
    vary,
    varying,
)


@checked
def alpha_crown(
    fn: Callable[..., PyTree],
    *,
    steps: int = 20,
    optimizer: optax.GradientTransformation | None = None,
    intermediate: Transform | Named | None = None,
    rows_per_chunk: int | None = None,
    optimize_intermediate: bool = False,
    shared: bool = False,
    unroll: bool = False,
    argnums: int | tuple[int, ...] | None = None,
    in_axes: PyTree = None,
    out_axes: int = 0,
    linear: bool = False,
) -> Callable[..., Bounds | LinearBounds]:
    """Bounds a function by CROWN with optimised relaxations (Xu et al. 2021, alpha-CROWN).

    Where a function may be enclosed by lines of many slopes, CROWN takes one that is good in
    general. Here the slopes (and tangent points, and weights of planes) are parameters, for the
    lower and the upper bound of every output apart, that gradient descent moves from CROWN's to
    better ones. The bounds of every step are sound, and the best are kept: the result is never
    looser than `crown`.

    Args:
        fn: function of pytrees of arrays.
        steps: how many relaxations are tried for every output.
        optimizer: any optax optimiser of numbers in [0, 1]; default: Adam with a short memory and
            a learning rate that falls from 0.2 to an eighth of that over the steps.
        intermediate: as of `crown`: what bounds the operands of nonlinear functions.
        rows_per_chunk: as of `crown`.
        optimize_intermediate: whether those are bounded in this way as well, layer by layer and
            each by its own search, unless `intermediate` bounds them. Tighter, and as many times
            as expensive as there are steps. As in `crown`, entries of which intervals say enough
            are left to them, and the others are bounded in chunks that fit into memory.
        shared: whether all outputs share their parameters, which takes less memory; of inner
            values, all entries of a chunk.
        unroll: whether derivatives of the result pass through the search. By default they treat
            the parameters it found as constants, which at an optimum they are to first order.
        argnums, in_axes, out_axes, linear: as of `crown`.

    Returns:
        A function of fn's arguments, see `jaxlirpa.ibp`.

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
    by_transform, given = strategy(intermediate)
    method = functools.partial(
        solve,
        intermediate=by_transform,
        merge_output=not isinstance(fn, Graph),
        bound_output=search,
        bound_layer=search if optimize_intermediate else plain,
        rows_per_chunk=rows_per_chunk,
    )
    return transform(
        fn,
        method,
        cost,
        argnums=argnums,
        in_axes=in_axes,
        out_axes=out_axes,
        linear=linear,
        given=given,
    )


def _search(
    relaxed: Relaxed,
    target: Ref,
    rows: Array | None = None,
    *,
    steps: int,
    optimizer: optax.GradientTransformation,
    shared: bool,
    unroll: bool,
) -> Solution:
    """The bounds of a value by the best relaxations of the nodes before it."""
    families: dict[int, list[Any]] = {i: relaxed.families(i) for i in relaxed.nonlinear(target)}
    tables = {i: relaxed.table(i, own) for i, own in families.items()}
    start = {i: [f.start for f in own] for i, own in families.items()}
    alike = 1 if shared else relaxed.graph.size(target) if rows is None else len(rows)
    along = {i: [_along(relaxed.graph, i, x) for x in start[i]] for i in start}
    axes = relaxed.graph.axes  # every device searches for its own
    start = jax.tree.map(lambda x: vary(jnp.broadcast_to(x, (alike, *x.shape)), axes), start)

    def at(families: Mapping[int, Sequence[Family[Any]]], position: Sided[PyTree]) -> Solution:
        """The bounds by the relaxations at a position."""
        # One evaluation of both sides' relaxations, whose code is most of what is compiled.
        both = jax.tree.map(lambda *sides: jnp.stack(sides), *position)
        chosen: dict[int, Any] = {
            i: _sides([_members(*pair) for pair in zip(families[i], both[i], strict=True)])
            for i in families
        }
        domain = dataclasses.replace(relaxed.domain, chosen=chosen)
        return enclose(relaxed.graph, relaxed.sets, domain, target, rows)

    default = plain(relaxed, target, rows)
    if not jax.tree.leaves(start):
        return default

    def limits(position: Sided[PyTree]) -> Interval:
        box, axis = at(tables, position).box, relaxed.graph.examples.get(target)
        return box if rows is not None else Interval(*(numbered(limit, axis) for limit in box))

    descend = functools.partial(_descend, limits, along, steps, optimizer)
    position = Sided(start, start)
    if unroll:
        best = descend(position)
    else:
        # What the search depends on becomes its arguments, so that derivatives end there.
        closed, constants = jax.closure_convert(descend, position)
        best = jax.lax.stop_gradient(
            jax.jit(closed)(*jax.lax.stop_gradient((position, *constants)))
        )
    found = at(families, best)
    return found._replace(box=intersect(found.box, default.box))


def _members(family: Family[Any], position: PyTree) -> Sided[Any]:
    """The members of both sides, one for every row; or the only one."""
    if not jax.tree.leaves(position):
        return Sided(family.default, family.default)
    members = jax.vmap(jax.vmap(family.at))(position)
    return Sided(*(jax.tree.map(operator.itemgetter(i), members) for i in range(2)))


def _sides(outputs: Sequence[Sided[Any]]) -> Sided[list[Any]]:
    """The sides of all outputs of a node."""
    return Sided(*(list(side) for side in zip(*outputs, strict=True)))


def _adam(steps: int) -> optax.GradientTransformation:
    """Found best on networks of all kinds, at 20 steps; with a longer memory it is slower.

    The second `eps` keeps derivatives finite that pass through the search.
    """
    return optax.adam(
        optax.exponential_decay(0.2, max(steps, 1), 0.125), b1=0.7, b2=0.9, eps_root=1e-16
    )


class _Best(NamedTuple):
    """The best limits of every row so far, and the positions that gave them."""

    limits: Interval
    position: Sided[PyTree]


def _along(graph: Graph, index: int, start: PyTree) -> PyTree:
    """The axis that numbers examples in each array of a position; -1 where there is none.

    The arrays have the shape of an operand, that of the output, or that to which all operands
    broadcast.
    """
    if not jax.tree.leaves(start):
        return start
    refs = (*graph.nodes[index].perturbed, Ref(index, 0))
    axes = {graph.aval(ref).shape: graph.examples.get(ref, -1) for ref in refs}
    everything = np.broadcast_shapes(*(graph.aval(ref).shape for ref in refs[:-1]))
    axes.setdefault(everything, graph.examples.get(refs[0], -1))
    return jax.tree.map(lambda x: axes.get(x.shape, -1), start)


def _descend(
    limits_at: Callable[[Sided[PyTree]], Interval],
    axes: PyTree,
    steps: int,
    optimizer: optax.GradientTransformation,
    start: Sided[PyTree],
) -> Sided[PyTree]:
    """The best position for every row among those that gradient descent comes by.

    Args:
        limits_at: the limits at a position, `[rows]` or `[rows, examples]`.
        axes: those of the position's arrays that number examples, or -1.
        steps: how many positions.
        optimizer: goes from one to the next.
        start: the first.
    """

    def width(position: Sided[PyTree]) -> tuple[Array, Interval]:
        limits = limits_at(position)
        difference = limits.upper - limits.lower
        return jnp.sum(jnp.where(jnp.isfinite(difference), difference, 0)), limits

    def step(carry: tuple[Any, Any, _Best], _: None) -> tuple[tuple[Any, Any, _Best], None]:
        position, state, best = carry
        (_, limits), slopes = jax.value_and_grad(width, has_aux=True)(position)
        best = _better(best, limits, position, axes)
        slopes = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 0), slopes)
        updates, state = optimizer.update(slopes, state, position)
        moved = optax.apply_updates(position, updates)
        return (jax.tree.map(lambda x: jnp.clip(x, 0, 1), moved), state, best), None

    _, limits = jax.eval_shape(width, start)
    worst = Interval(
        *(
            vary(jnp.full(limit.shape, value, limit.dtype), varying(limit))
            for limit, value in zip(limits, (-jnp.inf, jnp.inf), strict=True)
        )
    )
    first = start, optimizer.init(start), _Best(worst, start)
    (_, _, best), _ = jax.lax.scan(step, first, length=steps)
    return best.position


def _better(best: _Best, limits: Interval, position: Sided[PyTree], axes: PyTree) -> _Best:
    """Keeps for every row, or for all that share their parameters, what is best."""
    gains = limits.lower - best.limits.lower, best.limits.upper - limits.upper
    rows = len(jax.tree.leaves(position)[0])
    if rows < len(gains[0]):
        gains = jnp.sum(gains[0], 0, keepdims=True), jnp.sum(gains[1], 0, keepdims=True)

    def keep(gain: Array, new: PyTree, old: PyTree) -> PyTree:
        def choose(axis: int, x: Array, y: Array) -> Array:
            apart = gain.ndim > 1 and axis >= 0
            own = gain if apart else gain.sum(tuple(range(1, gain.ndim)))
            shape = [len(gain), *[1] * (x.ndim - 1)]
            if apart:
                shape[axis + 1] = gain.shape[1]
            return jnp.where(own.reshape(shape) > 0, x, y)

        return jax.tree.map(choose, axes, new, old)

    lower, upper = (gain > 0 for gain in gains)
    return _Best(
        Interval(
            jnp.where(lower, limits.lower, best.limits.lower),
            jnp.where(upper, limits.upper, best.limits.upper),
        ),
        Sided(
            keep(gains[0], position.lower, best.position.lower),
            keep(gains[1], position.upper, best.position.upper),
        ),
    )
