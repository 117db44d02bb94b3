"""The slow truths that bounds are held against, in plain NumPy and independent of the package.

Points of a set are drawn, corners are enumerated, linear forms are maximised by the formula of the
dual norm and small relu nets are solved exactly. None of it uses the package's own arithmetic.
"""

from __future__ import annotations

import functools
import itertools
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import arithmetic
import jax
import lirpa
import numpy as np

import jaxlirpa
from jaxlirpa._graph.graph import Graph, Ref
from jaxlirpa._methods.arguments import arguments
from jaxlirpa._methods.problem import TracedFunction, problem_of
from jaxlirpa._types import Bounds, PyTree
from jaxlirpa.sets import ArraySet, Box, LpBall, PerturbationSet

Transform = Callable[..., Callable[..., Any]]

METHODS: dict[str, Transform] = {
    "ibp": lirpa.ibp,
    "crown": lirpa.crown,
    "crown_ibp": lirpa.crown_ibp,
    "forward_crown": lirpa.forward_crown,
    "forward_backward": arithmetic.computed(
        functools.partial(jaxlirpa.crown, intermediate=jaxlirpa.forward_crown)
    ),
}
"""Computed in NumPy, where they are not a part of what is traced."""


def in_turn(number: int) -> dict[str, Transform]:
    """Intervals and one of the other methods: another program tells more than another method."""
    cheap, *others = METHODS
    return {name: METHODS[name] for name in (cheap, others[number % len(others)])}


# Rounding of sums of some hundred terms, in units of the last place of the largest term.
ULPS = 2**8


# ---- points of a set -----------------------------------------------------------------------


def sample(perturbed: PerturbationSet, seed: int, count: int) -> PyTree:
    """Members of a set: its centre, corners, points of its surface and of its inside.

    Args:
        perturbed: a set of arrays or of pytrees.
        seed: of the random numbers.
        count: how many members.

    Returns:
        An array `[count, *shape]`, or a pytree of those.
    """
    sets, structure = perturbed.split()
    draws = [_sample(s, np.random.default_rng([seed, i]), count) for i, s in enumerate(sets)]
    return structure.unflatten(draws)


def _sample(array_set: ArraySet, rng: np.random.Generator, count: int) -> np.ndarray:
    if isinstance(array_set, LpBall) and not math.isinf(array_set.ord):
        return _sample_ball(array_set, rng, count)
    lower, upper = (np.asarray(x) for x in array_set.hull())
    shape = (count, *lower.shape)
    weight = rng.uniform(size=shape)
    weight[0], weight[1:2], weight[2:3] = 0.5, 0, 1
    extreme = (np.arange(count) % 2 == 1).reshape(-1, *[1] * lower.ndim)
    weight = np.where(extreme, np.round(weight), weight)
    points = lower * (1 - weight) + upper * weight
    return np.clip(points, lower, upper).astype(lower.dtype)


def _sample_ball(ball: LpBall, rng: np.random.Generator, count: int) -> np.ndarray:
    center = np.asarray(ball.center)
    shape = (count, *center.shape)
    axes = _normed_axes(ball)
    steps = rng.normal(size=shape)
    # Some steps along few axes, where the corners of a 1-ball are.
    sparse = rng.uniform(size=shape) < rng.uniform(size=(count, *[1] * center.ndim))
    steps = np.where((np.arange(count) % 3 == 1).reshape(-1, *[1] * center.ndim) & sparse, 0, steps)
    norm = np.sum(np.abs(steps) ** ball.ord, axes, keepdims=True) ** (1 / ball.ord)
    length = rng.uniform(size=norm.shape) ** (1 / max(center.size, 1))
    length[::2] = 1
    length[0] = 0
    inside = 1 - 8 * np.finfo(center.dtype).eps
    steps = steps / np.where(norm > 0, norm, 1) * length * inside
    return (center + np.asarray(ball.radius) * steps).astype(center.dtype)


def _normed_axes(ball: LpBall) -> tuple[int, ...]:
    """The axes of `[count, *shape]` over which a ball's norm is taken."""
    ndim = np.ndim(ball.center)
    axes = range(ndim) if ball.axis is None else np.atleast_1d(ball.axis)
    return tuple(sorted({int(a) % ndim + 1 for a in axes}))


def corners(array_set: ArraySet) -> np.ndarray:
    """All corners of a small box or 1-ball, `[count, *shape]`."""
    if isinstance(array_set, LpBall) and array_set.ord == 1 and array_set.axis is None:
        center = np.asarray(array_set.center)
        radius = np.broadcast_to(np.asarray(array_set.radius), center.shape).reshape(-1, 1)
        steps = np.eye(center.size) * radius
        return center + np.concatenate([steps, -steps]).reshape(-1, *center.shape)
    if not array_set.is_box:
        raise ValueError(f"{array_set} has no corners")
    lower, upper = (np.asarray(x) for x in array_set.hull())
    if lower.size > 16:
        raise ValueError(f"a box of {lower.size} entries has too many corners")
    picks = np.array(list(itertools.product([False, True], repeat=lower.size)), bool)
    return np.where(picks.reshape(-1, *lower.shape), upper, lower)


# ---- exact extremes ------------------------------------------------------------------------


def linear_extrema(array_set: ArraySet, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact minimum and maximum of linear forms `[rows, *shape]` over a box or norm ball."""
    rows = np.asarray(rows)
    if isinstance(array_set, Box):
        lower, upper = np.asarray(array_set.lower), np.asarray(array_set.upper)
        ends = np.stack([rows * lower, rows * upper])
        axes = tuple(range(1, rows.ndim))
        return ends.min(0).sum(axes), ends.max(0).sum(axes)
    assert isinstance(array_set, LpBall)
    ord, scaled = array_set.ord, np.abs(rows * np.asarray(array_set.radius))
    axes = _normed_axes(array_set) if rows.ndim > 1 else ()
    if math.isinf(ord):
        spread = scaled.sum(axes, keepdims=True)
    elif ord == 1:
        spread = scaled.max(axes, keepdims=True)
    else:
        dual = ord / (ord - 1)
        spread = (scaled**dual).sum(axes, keepdims=True) ** (1 / dual)
    everything = tuple(range(1, rows.ndim))
    spread = spread.sum(everything)
    middle = (rows * np.asarray(array_set.center)).sum(everything)
    return middle - spread, middle + spread


def affine_extrema(fn: Callable[..., PyTree], *args: Any) -> list[tuple[np.ndarray, np.ndarray]]:
    """Exact minimum and maximum of every entry of an affine function, one pair an output leaf.

    The coefficients are the differences of the values at the unit vectors and at zero.
    """
    call = arguments(fn, args, None)
    zeros = [np.zeros(s.aval.shape, s.aval.dtype) for s in call.sets]
    traced = jax.make_jaxpr(lambda *points: jax.tree.leaves(fn(*call.fill(points))))(*zeros)

    def leaves(points: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [np.asarray(x, np.float64) for x in arithmetic.run(traced, points)]

    constants = leaves(zeros)
    found = [(x.reshape(-1), x.reshape(-1)) for x in constants]
    for i, s in enumerate(call.sets):
        units = np.eye(zeros[i].size, dtype=s.aval.dtype).reshape(-1, *s.aval.shape)
        steps = [leaves([*zeros[:i], unit, *zeros[i + 1 :]]) for unit in units]
        for k, constant in enumerate(constants):
            columns = [(step[k] - constant).reshape(-1) for step in steps]
            rows = np.stack(columns, 1).reshape(-1, *s.aval.shape)
            low, high = linear_extrema(s, rows)
            found[k] = found[k][0] + low, found[k][1] + high
    pairs = zip(found, constants, strict=True)
    return [(low.reshape(x.shape), high.reshape(x.shape)) for (low, high), x in pairs]


def relu_net(layers: Sequence[tuple[np.ndarray, np.ndarray]], x: np.ndarray) -> np.ndarray:
    """`[points, inputs]` through layers `(w[in, out], b)` with a relu between them."""
    for w, b in layers[:-1]:
        x = np.maximum(x @ w + b, 0)
    w, b = layers[-1]
    return x @ w + b


def relu_net_extrema(
    layers: Sequence[tuple[np.ndarray, np.ndarray]], lower: np.ndarray, upper: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Exact minimum and maximum of a small relu net of two inputs over a box.

    The net is affine between the lines on which some unit is at its kink, so it takes its extremes
    where two of these lines, or of the box's edges, meet. Units behind the first layer have one
    such line for every activation pattern of the layers before. Meeting points that are no corner
    of a region do no harm: the net is evaluated there as well, and they lie in the box.
    """
    lines = [(np.eye(2)[i], -limit[i]) for i in range(2) for limit in (lower, upper)]
    effective = [(np.eye(2), np.zeros(2))]
    for w, b in layers[:-1]:
        before = [(m @ w, c @ w + b) for m, c in effective]
        lines += [(m[:, j], c[j]) for m, c in before for j in range(len(b))]
        patterns = [np.array(p) for p in itertools.product([0, 1], repeat=len(b))]
        effective = [(m * p, c * p) for m, c in before for p in patterns]
    normals, constants = np.array([a for a, _ in lines]), np.array([c for _, c in lines])
    i, j = np.triu_indices(len(lines), 1)
    determinant = normals[i, 0] * normals[j, 1] - normals[i, 1] * normals[j, 0]
    meet = np.abs(determinant) > 1e-12
    i, j, determinant = i[meet], j[meet], determinant[meet]
    x = (constants[j] * normals[i, 1] - constants[i] * normals[j, 1]) / determinant
    y = (constants[i] * normals[j, 0] - constants[j] * normals[i, 0]) / determinant
    points = np.stack([x, y], 1)
    margin = 1e-9 * (1 + np.abs(upper - lower))
    points = points[((points >= lower - margin) & (points <= upper + margin)).all(1)]
    values = relu_net(layers, np.clip(points, lower, upper))
    return values.min(0), values.max(0)


# ---- graphs, node by node ------------------------------------------------------------------


def trace(fn: Callable[..., PyTree], *args: Any) -> tuple[Graph, tuple[ArraySet, ...]]:
    """The graph that the methods walk, and the set of each of its inputs."""
    call = arguments(fn, args, None)
    graph = problem_of(fn, call)[0].graph
    return graph, call.sets


def live_refs(graph: Graph) -> list[Ref]:
    """Every value that some output depends on."""
    return [Ref(i, k) for i in graph.live() for k in range(len(graph.nodes[i].outputs))]


def check_every_node(
    fn: Callable[..., PyTree],
    args: Sequence[Any],
    transforms: Mapping[str, Transform] | None = None,
    seed: int = 0,
    count: int = 32,
) -> tuple[Graph, dict[str, Bounds]]:
    """Checks that the box that each method gives to every node contains what it computes.

    And that the graph computes what the function does, whatever became of it on the way.

    Args:
        fn: the function.
        args: its arguments; some of their leaves are sets, or `eps` comes last.
        transforms: the methods, by name; without them intervals and one of the others, in turn.
        seed: of the sampled points.
        count: the number of sampled points.

    Returns:
        The graph, and each method's bounds of its live values in the order of `live_refs`.
    """
    graph, sets = trace(fn, *args)
    refs = live_refs(graph)
    everything = graph.returning(refs)
    points = [_sample(s, np.random.default_rng([seed, i]), count) for i, s in enumerate(sets)]
    values = values_at(everything, points)
    check_outputs(fn, args, graph, dict(zip(refs, values, strict=True)), points)
    if transforms is None:
        transforms = in_turn(zlib.crc32(" ".join(n.primitive for n in graph.nodes).encode()))
    bounds = {
        name: method(TracedFunction(everything))(*sets) for name, method in transforms.items()
    }
    for name, (lower, upper) in bounds.items():
        for ref, *found in zip(refs, values, lower, upper, strict=True):
            node = graph.nodes[ref.node]
            contains(*found, f"{name}: {node.primitive} {ref} at {node.source}")
    return graph, bounds


def each(fn: Callable[..., PyTree], points: Sequence[np.ndarray]) -> PyTree:
    """A function at many points, `[count, *shape]` an argument, computed in NumPy."""
    try:
        return arithmetic.call(jax.vmap(fn), *points)
    except NotImplementedError:  # JAX cannot map some operation
        return arithmetic.call(lambda *arrays: jax.lax.map(lambda x: fn(*x), arrays), *points)


def values_at(graph: Graph, points: Sequence[np.ndarray]) -> list[np.ndarray]:
    """What a graph returns of its inputs `[count, *shape]`, an array `[count, *shape]` each."""

    def run(*arrays: Any) -> list[Any]:
        found = graph.evaluate(arrays)
        return [found[ref] for ref in graph.targets]

    return each(run, points)


def check_outputs(
    fn: Callable[..., PyTree],
    args: Sequence[Any],
    graph: Graph,
    values: Mapping[Ref, np.ndarray],
    points: Sequence[np.ndarray],
) -> None:
    """Asserts that a graph's outputs are those of the function, up to rounding.

    Args:
        fn: the function.
        args: its arguments, as the methods take them.
        graph: what it was traced to.
        values: the values of the graph at the points.
        points: members of the sets, `[count, *shape]` each.
    """
    call = arguments(fn, args, None)
    results = each(lambda *arrays: jax.tree.leaves(fn(*call.fill(arrays))), points)
    for number, (out, result) in enumerate(zip(graph.outputs, results, strict=True)):
        found = values[out] if isinstance(out, Ref) else np.broadcast_to(out, result.shape)
        equal(found, result, f"output {number} of the graph is not that of the function")


def slack(*terms: Any) -> float:
    """What rounding may explain in a result of these terms: some units in the last place."""
    arrays = [np.asarray(x) for x in terms]
    if arrays[0].dtype.kind != "f":
        return 0
    finite = [np.abs(x[np.isfinite(x)]).max(initial=0) for x in arrays]
    return float(ULPS * np.finfo(arrays[0].dtype).eps * max(finite, default=0))


def contains(values: Any, lower: Any, upper: Any, what: str = "") -> None:
    """Asserts `lower <= values <= upper` up to rounding; `values` has one more axis, the first."""
    values, lower, upper = np.asarray(values), np.asarray(lower), np.asarray(upper)
    assert lower.shape == upper.shape == values.shape[1:], what
    assert (lower <= upper).all(), f"{what}: not ordered\n{lower}\n{upper}"
    if values.dtype == bool:
        values, lower, upper = (x.astype(int) for x in (values, lower, upper))
    room = slack(values, lower, upper)
    below, above = lower - room > values, values > upper + room
    assert not below.any(), f"{what}: {values[below]} below {(lower + 0 * values)[below]}"
    assert not above.any(), f"{what}: {values[above]} above {(upper + 0 * values)[above]}"


def equal(actual: Any, expected: Any, what: str = "") -> None:
    """Asserts equality up to rounding, of the arrays' common scale."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    np.testing.assert_allclose(actual, expected, 0, slack(actual, expected), err_msg=what)
