"""Every relaxation encloses its function, held against extended precision on boxes of all kinds.

Lines are evaluated exactly (in `longdouble`) with the slopes and offsets as stored. Rounding may
excuse one unit in the last place of the largest term on the box where a function is piecewise
linear, and nothing where it is curved; and numbers below the normal ones, which processors flush.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import arithmetic
import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from hypothesis import strategies as st

from jaxlirpa._intervals import Interval
from jaxlirpa._ops.registry import record
from jaxlirpa._relax.lines import Lines, relax, relax_family, tabulated
from jaxlirpa._relax.piecewise import OneKink
from jaxlirpa._relax.sshaped import SShaped
from jaxlirpa.sets import Box

Exact = np.longdouble
INF = np.inf


Solver = Callable[[Interval], tuple[Interval, Lines]]


def compiled(relaxation: Any) -> Solver:
    """The image and the lines of a relaxation."""
    return arithmetic.jit(lambda box: (relaxation.image(box), relax(relaxation, box)))


@dataclasses.dataclass(frozen=True)
class Case:
    """A function of JAX, and its truth in extended precision.

    Attributes:
        kinks: where its slope jumps.
        ulps: what rounding may excuse.
    """

    name: str
    function: Callable[[Any], Any]
    truth: Callable[[np.ndarray], np.ndarray]
    kinks: tuple[float, ...] = ()
    ulps: int = 1

    def __str__(self) -> str:
        return self.name

    def relaxation(self, dtype: Any) -> Any:
        """What the package bounds the function by."""
        graph, _ = oracles.trace(self.function, Box(jnp.zeros((), dtype), jnp.ones((), dtype)))
        (index,) = [ref.node for ref in graph.targets]
        return record(graph.nodes[index]).relaxation(graph.nodes[index])


@functools.cache
def solver(case: Case, dtype: Any) -> Solver:
    """The image and the lines of a case."""
    return compiled(case.relaxation(dtype))


def leaky(slope: float) -> Case:
    return Case(
        f"leaky_relu({slope})",
        lambda x: jax.nn.leaky_relu(x, slope),
        # The slope is what the precision of x makes of it.
        lambda x: np.where(x >= 0, x, Exact(slope) * x),
        (0,),
    )


def clip(floor: float, ceiling: float) -> Case:
    return Case(
        f"clip({floor}, {ceiling})",
        lambda x: jax.lax.clamp(jnp.asarray(floor, x.dtype), x, jnp.asarray(ceiling, x.dtype)),
        lambda x: np.minimum(np.maximum(x, floor), ceiling),
        (floor, ceiling),
    )


def maximum(c: float) -> Case:
    return Case(f"max({c})", lambda x: jnp.maximum(x, c), lambda x: np.maximum(x, c), (c,))


def minimum(c: float) -> Case:
    return Case(f"min({c})", lambda x: jnp.minimum(c, x), lambda x: np.minimum(c, x), (c,))


# Constants that float32 holds exactly.
PIECEWISE = [
    Case("relu", jax.nn.relu, lambda x: np.maximum(x, 0), (0,)),
    *map(leaky, (0.0078125, 0.1875, 1.0, 1.5, -0.5)),
    Case("abs", jnp.abs, np.abs, (0,)),
    *map(maximum, (0.75, -3.0, 2.0**100, INF)),
    *map(minimum, (0.75, -3.0, -(2.0**100), -INF)),
    *[clip(*c) for c in [(-1, 1), (0, 6), (0.5, 0.5), (1, -1), (-INF, 1), (0, INF), (-INF, INF)]],
]
S_SHAPED = [
    Case("tanh", jnp.tanh, np.tanh, ulps=0),
    Case("sigmoid", jax.nn.sigmoid, lambda x: 1 / (1 + np.exp(-x)), ulps=0),
]
CASES = PIECEWISE + S_SHAPED
every_case = pytest.mark.parametrize("case", CASES, ids=str)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


# ---- the checker ---------------------------------------------------------------------------


@functools.cache
def boxes(dtype: Any, kinks: tuple[float, ...]) -> Interval:
    """All boxes between interesting numbers: wide, narrow, degenerate, edge, huge and tiny."""
    info = np.finfo(dtype)
    sizes = [info.smallest_subnormal, info.tiny, 1e-30, 1e-8, 0.3, 1, 2.5, 9, 17, 40, 88, 500]
    sizes += [1e4, 1e10, 1e30, info.max / 4, info.max]
    centers = [0.0, *sizes, *(-s for s in sizes), *(k for k in kinks if np.isfinite(k))]
    points = np.array(centers, dtype)
    points = np.concatenate([points, np.nextafter(points, dtype(9)), np.nextafter(points, -points)])
    points = np.unique(points[np.isfinite(points)])
    lower, upper = np.meshgrid(points, points, indexing="ij")
    return Interval(lower[lower <= upper], upper[lower <= upper])


def inside(box: Interval, kinks: tuple[float, ...] = ()) -> np.ndarray:
    """Points of every box, `[points, boxes]`: equidistant, at all scales, the ends and kinks."""
    lower, upper = (np.asarray(x).astype(Exact) for x in box)
    weights = np.linspace(Exact(0), Exact(1), 33).reshape(-1, 1)
    scales = 10.0 ** np.linspace(-40, 40, 41)
    fixed = np.concatenate([scales, -scales, np.linspace(-20, 20, 81), [0], kinks])
    equidistant = lower * (1 - weights) + upper * weights
    return np.clip(np.concatenate([equidistant, fixed.reshape(-1, 1) + 0 * lower]), lower, upper)


def violations(case: Case, solve: Solver, box: Interval) -> dict[str, np.ndarray]:
    """For the image and both lines, the boxes on which they fail to enclose the function."""
    image, lines = solve(box)
    dtype = np.asarray(box.lower).dtype
    x = inside(box, case.kinks)
    with np.errstate(over="ignore"):
        y = case.truth(x)
    # A value too large for the precision is infinite, also in the function itself.
    y = np.where(np.abs(y) > np.finfo(dtype).max, np.copysign(INF, y), y)
    unit, least = case.ulps * Exact(np.finfo(dtype).eps), 4 * Exact(np.finfo(dtype).tiny)
    lower_slope, lower_offset, upper_slope, upper_offset = (exactly(p) for p in lines)
    # Where the function overflows an offset may be NaN: the bound is then infinite in the end.
    lower_offset = np.where(np.isnan(lower_offset), -INF, lower_offset)
    upper_offset = np.where(np.isnan(upper_offset), INF, upper_offset)
    size = np.where(np.isfinite(y), np.abs(y), 0)
    near = unit * size + least

    def room(slope: np.ndarray) -> np.ndarray:
        return unit * np.maximum(np.abs(slope * x).max(0), size.max(0)) + least

    with np.errstate(invalid="ignore"):  # inf - inf: NaN is no `<=`, so a violation
        return {
            "image": ~((exactly(image.lower) <= y + near) & (y <= exactly(image.upper) + near)),
            "below": ~(lower_slope * x + lower_offset <= y + room(lower_slope)),
            "above": ~(y <= upper_slope * x + upper_offset + room(upper_slope)),
        }


def exactly(x: Any) -> np.ndarray:
    return np.asarray(x).astype(Exact)


def assert_sound(case: Case, solve: Solver, box: Interval) -> None:
    for what, wrong in violations(case, solve, box).items():
        which = wrong.any(0)
        found = np.stack([np.asarray(x)[which] for x in box], 1)
        assert not which.any(), f"{case.name}: {what} fails on {which.sum()} boxes:\n{found}"


# ---- soundness -----------------------------------------------------------------------------


@pytest.mark.few(16)
@every_dtype
@every_case
def test_encloses(case: Case, dtype: Any):
    box = boxes(dtype, case.kinks)
    assert len(box.lower) > 1000
    assert_sound(case, solver(case, dtype), Interval(*map(jnp.asarray, box)))


@pytest.mark.few(8)
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.long)])
@every_case
def test_every_member_of_the_family_encloses(case: Case, dtype: Any):
    """At any position from 0 to 1, the ends among them, exactly and from a table."""
    relaxation = case.relaxation(dtype)
    box = Interval(*map(jnp.asarray, boxes(dtype, case.kinks)))
    shares = np.random.default_rng(0).uniform(-0.3, 1.3, (2, *box.lower.shape)).clip(0, 1)
    position = tuple(jnp.asarray(shares, dtype))
    for prepare in (lambda family, box: family, tabulated):

        def member(box: Interval, prepare: Any = prepare) -> tuple[Interval, Lines]:
            return relaxation.image(box), prepare(relax_family(relaxation, box), box).at(position)

        assert_sound(case, arithmetic.jit(member), box)


@pytest.mark.few(8)
@every_case
@hypothesis.given(data=st.data())
def test_encloses_on_random_boxes(case: Case, data: st.DataObject):
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    number = st.floats(
        allow_nan=False, allow_infinity=False, width=np.finfo(dtype).bits, allow_subnormal=True
    )
    near = st.floats(-8, 8, width=np.finfo(dtype).bits)
    ends = st.lists(st.one_of(number, near), min_size=16, max_size=16)
    a, b = (np.array(data.draw(ends), dtype) for _ in range(2))
    box = Interval(jnp.minimum(a, b), jnp.maximum(a, b))
    assert_sound(case, solver(case, dtype), box)


@every_dtype
@every_case
def test_image_is_the_range(case: Case, dtype: Any):
    """The image is no larger than the range, but for some places of rounding."""
    box = boxes(dtype, case.kinks)
    image, _ = solver(case, dtype)(Interval(*map(jnp.asarray, box)))
    with np.errstate(over="ignore"):
        y = case.truth(inside(box, case.kinks)).astype(dtype)
    room = 8 * np.finfo(dtype).eps
    for found, truth in zip(image, (y.min(0), y.max(0)), strict=True):
        np.testing.assert_allclose(found, truth, room, 4 * np.finfo(dtype).tiny)


@every_case
@pytest.mark.parametrize(
    "lower, upper", [(-INF, INF), (-INF, 1), (-1, INF), (np.nan, 1), (0, np.nan), (INF, INF)]
)
def test_lines_of_boxes_that_are_not_finite_promise_nothing_but_the_range(
    case: Case, lower: float, upper: float
):
    """Constant lines around the range. A limit that is NaN is no limit."""
    limits = jnp.array(lower, float), jnp.array(upper, float)
    _, lines = solver(case, np.float64)(Interval(*limits))
    assert lines.lower_slope == lines.upper_slope == 0
    x = np.fmin(np.fmax([-1e300, -1, -1e-300, 0, 0.5, 1, 1e300], lower), upper)
    with np.errstate(over="ignore"):
        y = case.truth(x).astype(float)
    assert (exactly(lines.lower_offset) <= y).all() and (y <= exactly(lines.upper_offset)).all()


@every_case
def test_a_box_with_a_nan_leaves_its_neighbours_alone(case: Case):
    good = Interval(jnp.array([-1.0, 0.0, 1.0]), jnp.array([2.0, 1.0, 3.0]))
    bad = Interval(jnp.array([-1.0, jnp.nan, -INF]), jnp.array([2.0, 1.0, 3.0]))
    solve = solver(case, np.float64)
    for x, y in zip(solve(bad)[1], solve(good)[1], strict=True):
        assert x[0] == y[0]


# ---- tightness -----------------------------------------------------------------------------


def moderate(kinks: tuple[float, ...]) -> Interval:
    """Boxes of ordinary size in which rounding hides nothing."""
    points = np.array([-7, -2, -1.25, -0.5, -0.125, 0, 0.25, 0.5, 1, 2, 5, *kinks])
    points = np.unique(points[np.abs(points) < 10])
    lower, upper = np.meshgrid(points, points, indexing="ij")
    return Interval(lower[lower <= upper], upper[lower <= upper])


def gaps(case: Case, box: Interval) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The points of every box, and how far the function is above the lower and below the upper."""
    _, lines = solver(case, np.float64)(Interval(*map(jnp.asarray, box)))
    lower_slope, lower_offset, upper_slope, upper_offset = (exactly(p) for p in lines)
    x = inside(box, case.kinks)
    y = case.truth(x)
    return x, y - (lower_slope * x + lower_offset), upper_slope * x + upper_offset - y


# One case for every way through the code.
SMOOTH = {"relu", "leaky_relu(0.1875)", "leaky_relu(1.0)", "leaky_relu(-0.5)", "abs"}
SMOOTH |= {"min(0.75)", "clip(-1, 1)", "clip(1, -1)", "clip(-inf, 1)", "tanh", "sigmoid"}
FINITE = [c for c in CASES if c.name not in ("max(inf)", "min(-inf)")]


@pytest.mark.parametrize("case", [c for c in FINITE if c not in S_SHAPED], ids=str)
def test_piecewise_lines_touch_the_function(case: Case):
    _, below, above = gaps(case, moderate(case.kinks))
    assert np.abs(below.min(0)).max() < 1e-14
    assert np.abs(above.min(0)).max() < 1e-14


@pytest.mark.parametrize("case", FINITE, ids=str)
def test_lines_are_exact_where_the_function_is_linear(case: Case):
    box = moderate(case.kinks)
    _, below, above = gaps(case, box)
    kinks = case.kinks if case not in S_SHAPED else (-INF, INF)
    linear = box.lower == box.upper
    if case not in S_SHAPED:
        crossed = [(box.lower < k) & (k < box.upper) for k in kinks]
        linear |= ~np.any(crossed, axis=0)
    assert linear.any()
    assert max(below[:, linear].max(), above[:, linear].max()) < 1e-14


def test_relu_lines_have_the_smallest_area():
    """Chord above; below a line through 0 of slope 0 or 1, whichever leaves the smaller area."""
    lower, upper = jnp.array([-3.0, -1.0, -2.0, -1e-3]), jnp.array([1.0, 2.0, 2.0, 1.0])
    relaxation = next(c for c in CASES if c.name == "relu").relaxation(np.float64)
    lines = relaxation.lines(Interval(lower, upper))
    oracles.equal(lines.upper_slope, upper / (upper - lower))
    oracles.equal(lines.upper_offset, -lower * upper / (upper - lower))
    oracles.equal(lines.lower_slope, (upper > -lower).astype(float))
    oracles.equal(lines.lower_offset, 0 * lower)


def test_clip_with_both_limits_inside_has_the_smallest_area():
    """The lower line leads from the lower limit's kink to the upper end, where it meets clip."""
    lower, upper = jnp.array([-2.0, -1.5, -9.0]), jnp.array([2.0, 7.0, 1.5])
    relaxation = next(c for c in CASES if c.name == "clip(-1, 1)").relaxation(np.float64)
    lines = relaxation.lines(Interval(lower, upper))
    oracles.equal(lines.lower_slope, 2 / (upper + 1))
    oracles.equal(lines.upper_slope, 2 / (1 - lower))


def best_tangent(case: Case, lower: float, upper: float) -> float:
    """By search: the slope of the last tangent, up to the middle, that is below the function."""
    step, x = Exact(1e-7), np.linspace(Exact(lower), Exact(upper), 1001).reshape(-1, 1)
    first, last = Exact(lower), Exact(min(0, (lower + upper) / 2))
    for _ in range(3):
        at = np.linspace(first, last, 201)
        slope = (case.truth(at + step) - case.truth(at - step)) / (2 * step)
        sound = (case.truth(at) + slope * (x - at) <= case.truth(x) + 1e-13).all(0)
        best = int(np.flatnonzero(sound)[-1])
        first, last = at[best], at[min(best + 1, 200)]
    return float(slope[best])


@pytest.mark.parametrize("case", S_SHAPED, ids=str)
@pytest.mark.parametrize(
    "lower, upper", [(-3, 1), (-4, 2), (-2, 0.5), (-6, 6), (-3, 3), (-5, 0.1), (-0.9, 0.3)]
)
def test_tangents_are_the_best(case: Case, lower: float, upper: float):
    """But for the rounding of the far end to a hundredth."""
    relaxation = case.relaxation(np.float64)
    lines = relaxation.lines(Interval(jnp.array(float(lower)), jnp.array(float(upper))))
    best = best_tangent(case, lower, upper)
    np.testing.assert_allclose(lines.lower_slope, best, rtol=5e-3)
    mirror = relaxation.lines(Interval(jnp.array(-float(upper)), jnp.array(-float(lower))))
    np.testing.assert_allclose(mirror.upper_slope, lines.lower_slope, rtol=1e-12)


@pytest.mark.parametrize("case", S_SHAPED, ids=str)
def test_s_shaped_lines_touch_the_function(case: Case):
    """At an end or at the tangent point, but for the rounding of the far end to a hundredth."""
    box = moderate(())
    lower, upper = (jnp.asarray(x) for x in box)
    lines = case.relaxation(np.float64).lines(Interval(lower, upper))
    x = np.linspace(box.lower, box.upper, 20001)
    y = np.asarray(case.truth(x))
    below = (y - (np.asarray(lines.lower_slope) * x + np.asarray(lines.lower_offset))).min(0)
    above = (np.asarray(lines.upper_slope) * x + np.asarray(lines.upper_offset) - y).min(0)
    assert np.abs(below).max() < 1e-4
    assert np.abs(above).max() < 1e-4


# ---- derivatives ---------------------------------------------------------------------------


def derivatives(relaxation: Any, box: Interval) -> list[Any]:
    """The derivatives, forwards and backwards, of all lines and images in their own boxes."""

    def both(lower: Any, upper: Any) -> Any:
        own = Interval(lower, upper)
        return relax(relaxation, own), relaxation.image(own)

    one, zero = jnp.ones_like(box.lower), jnp.zeros_like(box.lower)
    forwards = [jax.jvp(both, tuple(box), t)[1] for t in ((one, zero), (zero, one))]
    backwards = jax.vjp(both, *box)[1](both(one, one))
    return jax.tree.leaves((forwards, backwards))


@pytest.mark.parametrize("case", [c for c in CASES if c.name in SMOOTH], ids=str)
def test_derivatives_are_finite_on_every_box(case: Case):
    """Also on degenerate boxes, and with an end on a kink, where training would meet NaN."""
    box = Interval(*map(jnp.asarray, moderate(case.kinks)))
    relaxation = case.relaxation(np.float64)
    for found in arithmetic.jit(lambda box: derivatives(relaxation, box))(box):
        assert np.isfinite(found).all()


@pytest.mark.parametrize("case", [c for c in CASES if c.name in SMOOTH], ids=str)
def test_derivatives_match_finite_differences(case: Case):
    """Away from kinks and switches the lines are smooth functions of the box."""
    rng = np.random.default_rng(0)
    lower = rng.uniform(-4, 1, 64)
    box = Interval(jnp.asarray(lower), jnp.asarray(lower + rng.uniform(0.5, 4, 64)))
    lines, step = arithmetic.jit(case.relaxation(np.float64).lines), 1e-5
    for side in range(2):
        tangent = Interval(*(jnp.full(64, float(i == side)) for i in range(2)))
        _, exact = jax.jvp(lines, (box,), (tangent,))
        ahead, behind = (
            lines(jax.tree.map(lambda x, t, s=s: x + s * step * t, box, tangent)) for s in (1, -1)
        )
        for name, derivative, a, b in zip(Lines._fields, exact, ahead, behind, strict=True):
            numeric = np.asarray((a - b) / (2 * step))
            smooth = np.abs(numeric) < 50  # a switch of slopes in between is no derivative
            message = f"{case.name}: {name} in end {side}"
            np.testing.assert_allclose(derivative[smooth], numeric[smooth], 1e-4, 1e-6, message)


# ---- the checker finds what is wrong -------------------------------------------------------


def test_a_wrong_relaxation_is_caught():
    box = Interval(*map(jnp.asarray, boxes(np.float64, ())))
    one = jnp.ones(())
    cube = Case("cube", lambda x: x, lambda x: np.clip(x, -1e3, 1e3) ** 3)
    wrong = SShaped(lambda x: jnp.clip(x, -1e3, 1e3) ** 3, lambda x: 3 * x**2)
    with pytest.raises(AssertionError, match="fails on"):
        assert_sound(cube, compiled(wrong), box)
    modulus = next(c for c in CASES if c.name == "abs")
    assert_sound(modulus, compiled(OneKink(jnp.abs, 0 * one, -one, one)), box)
    with pytest.raises(AssertionError, match="fails on"):
        assert_sound(modulus, compiled(OneKink(jnp.abs, one, -one, one)), box)
    tanh = S_SHAPED[0]
    steep = SShaped(jnp.tanh, lambda x: 1.001 / jnp.cosh(jnp.clip(x, -300, 300)) ** 2)
    with pytest.raises(AssertionError, match="fails on"):
        assert_sound(tanh, compiled(steep), box)
