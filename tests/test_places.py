"""Places that depend on perturbed values: of the largest entry, among sorted ones, in an order."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from jax import lax
from oracles import METHODS

from jaxlirpa import Box
from jaxlirpa._intervals import Interval
from jaxlirpa._ops.families import Opaque
from jaxlirpa._ops.registry import RECORDS
from jaxlirpa._relax.interpolated import Interpolated
from jaxlirpa._relax.lines import relax

INF = np.inf
SEARCHES = list(
    itertools.product(("left", "right"), ("scan", "scan_unrolled", "sort", "compare_all"))
)


def image(fn: Any, *limits: tuple[Any, Any]) -> Interval:
    """The range that the record of a function's only node gives, of boxes of arrays."""
    zeros = [Box(np.zeros(np.shape(low)), np.zeros(np.shape(low))) for low, _ in limits]
    graph, _ = oracles.trace(fn, *zeros)
    (output,) = graph.targets
    found = RECORDS[graph.nodes[output.node].primitive]
    assert isinstance(found, Opaque)
    boxes = [Interval(jnp.asarray(low), jnp.asarray(high)) for low, high in limits]
    (result,) = found.image(graph.nodes[output.node], boxes)
    return Interval(*map(np.asarray, result))


# ---- the largest entry ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint8, bool])
def test_every_place_that_can_win(name: str, dtype: Any):
    """From the first to the last place that wins at some corner; ties go to the first."""
    rng, most = np.random.default_rng(0), 1 if dtype is bool else 5
    lower = rng.integers(0, most + 1, (80, 4))
    upper = np.minimum(lower + rng.integers(0, 3, (80, 4)), most)
    limits = lower.astype(dtype), upper.astype(dtype)
    found = image(lambda x: getattr(jnp, name)(x.astype(dtype), 1), limits)
    picks = itertools.product([False, True], repeat=4)
    winners = getattr(np, name)([np.where(pick, upper, lower) for pick in picks], 2)
    np.testing.assert_array_equal(found.lower, winners.min(0))
    np.testing.assert_array_equal(found.upper, winners.max(0))


@pytest.mark.parametrize("fn", [jnp.argmax, jnp.argmin])
def test_what_may_be_no_number_may_win(fn: Any):
    """A NaN is the largest entry and the smallest one, and a box without end may hide one."""
    x = np.array([0.0, 5.0, -INF, -5.0]), np.array([0.0, 5.0, INF, -5.0])
    lower, upper = image(fn, x)
    assert lower <= 2 <= upper
    assert lower <= fn(jnp.array([0.0, 5.0, np.nan, -5.0])) <= upper


def test_values_that_are_equal_but_for_rounding_may_both_win():
    """One value may have been bounded in two ways."""
    x = np.array([1.0, 1.0])
    lower, upper = image(jnp.argmax, (x, np.array([1.0, np.nextafter(1.0, 2.0)])))
    assert (lower, upper) == (0, 1)
    beside = np.array([1.0, np.nextafter(1.0, 2.0)])
    assert image(jnp.argmax, (beside, beside)) == (0, 1)


# ---- a place among sorted entries ----------------------------------------------------------


@pytest.mark.parametrize(("side", "method"), SEARCHES)
def test_places_among_sorted_entries_are_exact(side: str, method: str):
    """However it is searched: between the places of the limits, among the opposite limits."""
    entries, values = (np.array([-1.0, 0.0, 0.0, 2.0, 3.0]), np.linspace(-2.0, 4.0, 25))

    def search(a: Any, v: Any) -> Any:
        return jnp.searchsorted(a, v, side, method=method)

    low, high = values - 0.25, values + 0.5
    found = image(lambda v: search(entries, v), (low, high))
    np.testing.assert_array_equal(found.lower, np.searchsorted(entries, low, side))
    np.testing.assert_array_equal(found.upper, np.searchsorted(entries, high, side))
    found = image(search, (entries - 0.25, entries + 0.5), (low, high))
    np.testing.assert_array_equal(found.lower, np.searchsorted(entries + 0.5, low, side))
    np.testing.assert_array_equal(found.upper, np.searchsorted(entries - 0.25, high, side))


@pytest.mark.parametrize(("side", "method"), SEARCHES[::3])
def test_places_among_entries_out_of_order_are_sound(side: str, method: str):
    """Of a table that is not sorted every method makes something else of its own."""

    def search(a: Any, v: Any) -> Any:
        return jnp.searchsorted(a, v, side, method=method)

    rng = np.random.default_rng(0)
    for _ in range(4):
        entries, values = rng.integers(-3, 4, 6).astype(float), np.linspace(-4.0, 4.0, 17)
        lower, upper = image(search, (entries, entries + 1), (values, values))
        points = [search(entries + rng.integers(0, 2, 6), values) for _ in range(3)]
        assert (lower <= points).all() and (points <= upper).all()


@pytest.mark.parametrize("edges", [[-INF, 0.0, INF], [0.0, 1.0, np.nan]])
def test_edges_without_end(edges: list[float]):
    """Known infinities are edges like others; of what is no number nothing is concluded."""
    x = np.array([-1.0, 0.5, -INF]), np.array([-0.5, 2.0, INF])
    lower, upper = image(lambda v: jnp.searchsorted(np.array(edges), v), x)
    expected = ([1, 2, 0], [1, 2, 3]) if edges[0] < 0 else ([0, 0, 0], [3, 3, 3])
    np.testing.assert_array_equal([lower, upper], expected)


# ---- the total order -----------------------------------------------------------------------


@pytest.mark.parametrize("order", [lax.lt_to_p, lax.le_to_p, lax.eq_to_p], ids=str)
def test_the_total_order(order: Any):
    """As of numbers where no zero and nothing infinite is met, and unknown where they tie."""
    values = np.array([-INF, -1.0, -0.0, 0.0, 2.0, INF, np.nan, -np.nan])
    pairs = np.array(list(itertools.combinations_with_replacement(range(-2, 3), 2)), float)
    x, y = (np.broadcast_to(v, (15, 15, 2)).reshape(-1, 2) for v in (pairs[:, None], pairs[None]))
    lower, upper = image(order.bind, tuple(x.T), tuple(y.T))
    truth = np.array([[order.bind(jnp.asarray(a), jnp.asarray(b)) for a in x.T] for b in y.T])
    assert (lower <= truth).all() and (truth <= upper).all()
    apart = (x[:, 1] < y[:, 0]) | (x[:, 0] > y[:, 1])
    np.testing.assert_array_equal((lower == upper)[apart], True)
    # Zeros of either sign, infinities and what is no number, wherever the limits hide them.
    a, b = np.meshgrid(values, values)
    limits = [
        (np.fmin(v, np.where(np.isnan(v), -INF, v)), np.where(np.isnan(v), INF, v)) for v in (a, b)
    ]
    lower, upper = image(order.bind, *limits)
    truth = np.asarray(order.bind(jnp.asarray(a), jnp.asarray(b)))
    assert (lower <= truth).all() and (truth <= upper).all()


# ---- choices by places ---------------------------------------------------------------------


def test_choices_are_as_tight_as_their_cases():
    """Of conditions that exclude each other, no case counts that cannot be chosen."""
    x = Box(jnp.array([-2.0, -0.5, 0.2, 1.5]), jnp.array([-1.0, 0.3, 0.4, 2.0]))

    def select(x: Any) -> Any:
        return jnp.select([x < 0, x > 1], [2 * x, x - 9], default=x + 10)

    def piecewise(x: Any) -> Any:
        return jnp.piecewise(
            x, [x < 0, x > 1], [lambda t: 2 * t, lambda t: t - 9, lambda t: t + 10]
        )

    for name, method in METHODS.items():
        for fn in (select, piecewise):
            lower, upper = method(fn)(x)
            oracles.equal(lower, [-4, -1, 10.2, -7.5], name)
            oracles.equal(upper, [-2, 10.3, 10.4, -7], name)


# ---- interpolation -------------------------------------------------------------------------


@pytest.mark.few(2)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("ends", [(None, None), (3.0, -2.0), ("extrapolate", "extrapolate")])
def test_lines_around_a_table(ends: tuple[Any, Any], dtype: Any):
    """On boxes of all sizes, that begin and end at knots and jumps as well."""
    rng = np.random.default_rng(1)
    xs = np.array([-2.0, -1.0, -1.0, 0.25, 0.5, 3.0], dtype)
    ys = np.array([1.0, -1.0, 2.0, 0.5, 4.0, -1.0], dtype)
    given = [x if isinstance(x, float) else None for x in ends]
    knots = np.concatenate([xs[:1][: given[0] is not None], xs, xs[:1][: given[1] is not None]])
    knots[-1] = xs[-1]
    values = np.array([y for y in (given[0], *ys, given[1]) if y is not None], dtype)
    low = np.concatenate([rng.choice(xs, 60), rng.normal(0, 3, 100), [-1e6, -1e30, 0.3]])
    width = np.concatenate(
        [rng.choice(np.diff(xs), 60), 10 ** rng.uniform(-7, 1.5, 100), [2e6, 2e30, 0]]
    )
    low, high = low.astype(dtype), (low + width).astype(dtype)
    high[:20] = np.maximum(rng.choice(xs, 20), low[:20])
    box = Interval(jnp.asarray(low), jnp.asarray(high))

    def function(x: Any) -> Any:
        return jnp.interp(x, xs, ys, *ends)

    @jax.jit
    def bounds(box: Interval) -> Any:
        found = Interpolated(function, jnp.asarray(knots), jnp.asarray(values))
        return found.image(box), relax(found, box)

    share = np.linspace(0, 1, 65)[:, None]
    points = np.clip((low * (1 - share) + high * share).astype(dtype), low, high)
    inner = np.clip(
        np.concatenate([xs, np.nextafter(xs, -dtype(9)), np.nextafter(xs, dtype(9))]), -9, 9
    )
    points = np.concatenate([points, np.clip(inner[:, None].astype(dtype), low, high)])
    truth = np.asarray(jax.jit(function)(points), np.longdouble)
    (lower, upper), lines = jax.tree.map(lambda v: np.asarray(v, np.longdouble), bounds(box))
    assert (lower <= truth).all() and (truth <= upper).all()
    assert (lines.lower_slope * points + lines.lower_offset <= truth).all()
    assert (truth <= lines.upper_slope * points + lines.upper_offset).all()
    # The range is attained, and the lines are no worse in the middle.
    room = 64 * np.finfo(dtype).eps * (np.abs(truth).max(0) + 8)
    assert (truth.min(0) - lower <= room).all() and (upper - truth.max(0) <= room).all()
    middle = 0.5 * low + 0.5 * high
    gap = (lines.upper_slope - lines.lower_slope) * middle + lines.upper_offset - lines.lower_offset
    far = np.abs(low) + np.abs(high)
    room += 32 * np.finfo(dtype).eps * far * (abs(lines.lower_slope) + abs(lines.upper_slope))
    worse = gap > upper - lower + room
    assert not worse.any(), [x[worse] for x in (low, high, gap, upper - lower)]
