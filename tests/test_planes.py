"""Planes around functions of several entries, against points of the boxes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest

from jaxlirpa._intervals import Interval
from jaxlirpa._relax.ball_product import Inner
from jaxlirpa._relax.choice import Choice
from jaxlirpa._relax.extremum import LargestOf, Maximum
from jaxlirpa._relax.normalised_entry import Normalised
from jaxlirpa._relax.planes import JointRelaxation, Planes, relax_family_jointly, relax_jointly
from jaxlirpa._relax.product import Product
from jaxlirpa._relax.softmax_entry import Softmax, of_logits
from jaxlirpa._relax.sumexp import LogSumExp

ROWS, SIZE, POINTS = 400, 5, 40


@dataclasses.dataclass(frozen=True)
class Case:
    """A relaxation and, independently, the function: of the operands, in double precision."""

    relaxation: JointRelaxation
    function: Callable[..., np.ndarray]
    operands: int = 1
    axes: tuple[int, ...] = ()


def logsumexp(x: np.ndarray) -> np.ndarray:
    top = x.max(-1, keepdims=True)
    return (top + np.log(np.exp(x - top).sum(-1, keepdims=True)))[..., 0]


def masked(x: np.ndarray) -> np.ndarray:
    return np.where(MASK, x, -np.inf).max(-1)


MASK = np.array([True, False, True, True, False])
CASES = {
    "product": Case(Product(), lambda x, y: x * y, 2),
    "inner product": Case(Product((1,)), lambda x, y: (x * y).sum(-1), 2, axes=(1,)),
    "maximum": Case(Maximum((1,)), lambda x: x.max(-1), axes=(1,)),
    "largest of three": Case(LargestOf(), lambda x, y, z: np.maximum(np.maximum(x, y), z), 3),
    "masked maximum": Case(Maximum((1,), jnp.asarray(MASK)), masked, axes=(1,)),
    "logsumexp": Case(LogSumExp((1,)), logsumexp, axes=(1,)),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
every_dtype = pytest.mark.parametrize("dtype", [np.float64, np.float32])


def boxes(seed: int, count: int, dtype: Any, far: float = 1e4) -> list[Interval]:
    """Boxes `[rows, size]`: wide, narrow, of a point, lopsided, far from zero, equal among them."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        scale = 10.0 ** rng.uniform(-3, np.log10(far), (ROWS, 1))
        center = rng.normal(size=(ROWS, SIZE)) * rng.choice([0, 1, 3], (ROWS, 1)) * scale
        radius = rng.uniform(size=(ROWS, SIZE)) * rng.choice([0, 1e-9, 1e-3, 1, 1], (ROWS, SIZE))
        radius = radius * scale
        center[::7] = center[::7, :1]
        radius[::7] = radius[::7, :1]
        lower, upper = (center - radius).astype(dtype), (center + radius).astype(dtype)
        lower[1::11, 0], upper[2::11, 0] = np.minimum(0, upper[1::11, 0]), upper[2::11, 0]
        found.append(Interval(jnp.asarray(np.minimum(lower, upper)), jnp.asarray(upper)))
    return found


def points(found: Sequence[Interval], seed: int) -> list[np.ndarray]:
    """Members `[points, rows, size]`, half of them corners, in double precision."""
    rng = np.random.default_rng(seed)
    members = []
    for lower, upper in found:
        low, high = np.float64(lower), np.float64(upper)
        weight = rng.uniform(size=(POINTS, *low.shape))
        weight[::2] = np.round(weight[::2])
        weight[1], weight[3] = 0.5, 0
        members.append(np.clip(low + weight * (high - low), low, high))
    return members


def check(
    relaxation: JointRelaxation,
    found: Sequence[Interval],
    members: Sequence[np.ndarray],
    values: np.ndarray,
    axes: tuple[int, ...],
) -> Planes:
    """The planes, once they and the image are found to hold the values at all members.

    Other planes of the family must hold them as well.
    """
    image = relaxation.image(found)
    dtype = found[-1].lower.dtype
    room = oracles.ULPS * np.finfo(dtype).eps * np.abs(values)
    assert (np.float64(image.lower)[None] <= values + room).all()
    assert (values - room <= np.float64(image.upper)[None]).all()
    family = relax_family_jointly(relaxation, found, axes)
    rng = np.random.default_rng(0)
    position = jax.tree.map(
        lambda x: jnp.asarray(rng.uniform(-0.3, 1.3, x.shape).clip(0, 1), x.dtype), family.start
    )
    assert_planes_hold(family.at(position), found, members, values, axes)
    planes = relax_jointly(relaxation, found, axes)
    assert_planes_hold(planes, found, members, values, axes)
    return planes


def assert_planes_hold(
    planes: Planes,
    found: Sequence[Interval],
    members: Sequence[np.ndarray],
    values: np.ndarray,
    axes: tuple[int, ...],
) -> None:
    dtype = found[-1].lower.dtype
    eps = oracles.ULPS * np.finfo(dtype).eps
    behind = tuple(a + 1 for a in axes)
    for plane, sign in ((planes.lower, 1), (planes.upper, -1)):
        offset = np.float64(plane.offset)
        height, size = offset[None] + 0 * values, np.abs(offset)[None] + np.abs(values)
        for slope, x in zip(plane.slopes, members, strict=True):
            if slope is not None:
                terms = np.float64(slope)[None] * x
                height = height + terms.sum(behind)
                size = size + np.abs(terms).sum(behind)
        with np.errstate(invalid="ignore"):
            wrong = sign * (height - values) > eps * size
        assert not wrong.any(), (
            np.nanmax(np.where(wrong, sign * (height - values), 0)),
            np.argwhere(wrong)[:3],
            [b.lower[0] for b in found],
        )


@pytest.mark.few(4)
@every_case
@every_dtype
def test_planes_hold_the_function(case: Case, dtype: Any) -> None:
    found = boxes(0, case.operands, dtype)
    members = points(found, 1)
    check(case.relaxation, found, members, case.function(*members), case.axes)


@every_case
def test_no_confidence_where_a_box_is_not_finite(case: Case) -> None:
    """Infinite, NaN and overflowing boxes end in sound or empty promises."""
    values = np.array([-np.inf, -1e308, 0.0, 1e308, np.inf, np.nan])
    low, high = np.meshgrid(values, values)
    low, high = low.reshape(-1, 1), high.reshape(-1, 1)
    some = ~(low > high)[:, 0]
    shape = (some.sum(), SIZE)
    box = Interval(*(jnp.asarray(np.broadcast_to(x[some], shape)) for x in (low, high)))
    found = [box] * case.operands
    planes = relax_jointly(case.relaxation, found, case.axes)
    for plane in planes:
        assert not np.isnan(plane.offset).any()
        assert all(np.isfinite(s).all() for s in plane.slopes if s is not None)
    for unknown, plane, limit in ((low, planes.lower, -np.inf), (high, planes.upper, np.inf)):
        assert (np.asarray(plane.offset)[np.isnan(unknown)[some, 0]] == limit).all()


@every_case
def test_gradients_are_finite(case: Case) -> None:
    found = boxes(2, case.operands, np.float64, far=10)

    def total(limits: list[Interval]) -> jax.Array:
        leaves = jax.tree.leaves(relax_jointly(case.relaxation, limits, case.axes))
        return sum(jnp.sum(x) for x in leaves)

    assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.grad(total)(found)))


# ---- choices -------------------------------------------------------------------------------


@every_dtype
def test_choice(dtype: Any) -> None:
    a, b = boxes(3, 2, dtype)
    rng = np.random.default_rng(4)
    low = rng.uniform(size=a.lower.shape) < 0.3
    high = low | (rng.uniform(size=a.lower.shape) < 0.5)
    x, y = points([a, b], 5)
    holds = np.where(rng.uniform(size=x.shape) < 0.5, low, high)
    found = [Interval(jnp.asarray(low), jnp.asarray(high)), a, b]
    check(Choice(), found, [holds, x, y], np.where(holds, y, x), ())


def test_a_certain_choice_is_exact() -> None:
    a, b = boxes(3, 2, np.float64)
    for certain, chosen in ((False, a), (True, b)):
        holds = jnp.full(a.lower.shape, certain)
        planes = Choice().planes([Interval(holds, holds), a, b])
        for plane in planes:
            np.testing.assert_array_equal(plane.slopes[2], float(certain))
            np.testing.assert_array_equal(plane.slopes[1], 1 - float(certain))
            np.testing.assert_array_equal(plane.offset, 0)
        image = Choice().image([Interval(holds, holds), a, b])
        np.testing.assert_array_equal(image.lower, chosen.lower)
        np.testing.assert_array_equal(image.upper, chosen.upper)


# ---- normalisation -------------------------------------------------------------------------


@pytest.mark.few(4)
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("floor", [0.0, 1e-5, 1.0])
@every_dtype
def test_normalised(centred: bool, floor: float, dtype: Any) -> None:
    (raw,) = boxes(6, 1, dtype)
    (x,) = points([raw], 7)
    box = raw
    if centred:  # the differences from the mean, and a box of them
        x = x - x.mean(-1, keepdims=True)
        low, high = np.float64(raw.lower), np.float64(raw.upper)
        size = (np.abs(low) + np.abs(high)).max(-1, keepdims=True)
        room = 4 * np.finfo(dtype).eps * size
        low, high = low - high.mean(-1, keepdims=True), high - low.mean(-1, keepdims=True)
        box = Interval(jnp.asarray(low - room, dtype), jnp.asarray(high + room, dtype))
    norm = np.sqrt((x**2).mean(-1, keepdims=True) + floor)
    with np.errstate(divide="ignore", invalid="ignore"):
        root, values = 1 / norm + 0 * x, np.where(x == 0, 0, x / norm)
    known = np.isfinite(root).all((0, 2))
    x, root, values = x[:, known], root[:, known], values[:, known]
    box = Interval(*(limit[np.flatnonzero(known)] for limit in box))
    roots = Interval(jnp.asarray(root.min(0), dtype), jnp.asarray(root.max(0), dtype))
    roots = Interval(roots.lower * 0.9, roots.upper * 1.1)
    relaxation = Normalised((1,), 1 / SIZE, floor, centred)
    check(relaxation, [box, roots], [x, root], values, ())
    limit = np.sqrt(SIZE - 1 if centred else SIZE) * (1 + 1e-5)
    image = relaxation.image([box, roots])
    assert (np.abs(image.lower) <= limit).all() and (np.abs(image.upper) <= limit).all()


# ---- softmax -------------------------------------------------------------------------------


def pairs(box: Interval) -> list[Interval]:
    """The operands of softmax: logits along the last axis, and differences between them."""
    logits, entry = Interval(*(x[:, None, :] for x in box)), Interval(*(x[:, :, None] for x in box))
    apart = 1 - np.eye(SIZE, dtype=box.lower.dtype)
    low, high = logits.lower - entry.upper, logits.upper - entry.lower
    return [logits, entry, Interval(low * apart, high * apart)]


@pytest.mark.few(2)
@every_dtype
@pytest.mark.parametrize("far", [10, 1e4])
def test_softmax(dtype: Any, far: float) -> None:
    (box,) = boxes(9, 1, dtype, far)
    (x,) = points([box], 10)
    logits, entry = x[:, :, None, :], x[:, :, :, None]
    apart = logits - entry
    members = [logits, entry, apart]
    planes = check(Softmax(2), pairs(box), members, np.exp(-logsumexp(apart)), (2,))
    for plane in planes:  # Of the logits alone it is the same.
        terms, merged = (
            [np.float64(s) * m for s, m in zip(same.slopes, members, strict=True) if s is not None]
            for same in (plane, of_logits(plane))
        )
        gap = np.abs(sum(t.sum(-1) for t in terms) - sum(t.sum(-1) for t in merged))
        size = sum(np.abs(t).sum(-1) for t in merged)
        info = np.finfo(dtype)
        assert (gap <= oracles.ULPS * info.eps * size + info.tiny).all()


def test_softmax_of_far_apart_logits_is_sure() -> None:
    """No overflow, however wide: the winner's share is one, up to rounding."""
    low = jnp.full((2, SIZE), -1e30).at[:, 0].set(0)
    box = Interval(low, low + jnp.full(SIZE, 1e29).at[0].set(0))
    image = Softmax(2).image(pairs(box))
    np.testing.assert_allclose(image.lower[:, 0], 1, 1e-12)
    np.testing.assert_allclose(image.upper[:, 1:], 0, atol=1e-300)

    def total(b: Interval) -> Any:
        return sum(map(jnp.sum, jax.tree.leaves(Softmax(2).planes(pairs(b)))))

    grads = arithmetic.call(jax.grad(total), box)
    assert all(np.isfinite(g).all() for g in grads)


# ---- tightness -----------------------------------------------------------------------------


@pytest.mark.few(4)
@every_dtype
@pytest.mark.parametrize("ord", [1, 1.5, 2, 5])
def test_inner_products_with_a_ball(ord: float, dtype: Any) -> None:
    """And closer than products entry by entry, by what the norm is smaller than the sum."""
    rng = np.random.default_rng(0)
    (box,) = boxes(3, 1, dtype)
    radius = rng.choice([0, 1e-3, 1, 10], (ROWS, SIZE)).astype(dtype)
    (x,) = points([box], 4)
    step = rng.normal(size=(POINTS, ROWS, SIZE))
    # Half of the steps reach as far as any does for this x, by Hölder's inequality.
    if ord > 1:
        far = np.abs(radius * x) ** (1 / (ord - 1)) * np.sign(x)
        step[::2] = np.where((far != 0).any(-1, keepdims=True), far, step)[::2]
    step /= np.linalg.norm(step, ord, axis=-1, keepdims=True)
    ball = Interval(jnp.asarray(-radius), jnp.asarray(radius))
    step *= np.float64(radius)
    planes = check(
        Inner(jnp.asarray(radius), ord), [ball, box], [step, x], (step * x).sum(-1), (1,)
    )
    apart = relax_jointly(Product(), [ball, box], ())
    middle = [np.float64(b.lower) / 2 + np.float64(b.upper) / 2 for b in (ball, box)]

    def gap(found: Planes, axes: tuple[int, ...]) -> np.ndarray:
        high, low = (
            sum(
                (np.float64(s) * m).sum(axes)
                for s, m in zip(plane.slopes, middle, strict=True)
                if s is not None
            )
            + np.float64(plane.offset)
            for plane in (found.upper, found.lower)
        )
        return high - low

    largest = (np.maximum(*map(np.abs, map(np.float64, b))) for b in (ball, box))
    room = 8 * np.finfo(dtype).eps * math.prod(largest).sum(-1)
    assert (gap(planes, (-1,)) <= gap(apart, ()).sum(-1) + room).all()


def test_product_planes_touch_the_corners() -> None:
    found = boxes(8, 2, np.float64, far=10)
    planes = Product().planes(found)
    (xl, xu), (yl, yu) = found
    corners = [(x, y) for x in (xl, xu) for y in (yl, yu)]
    for plane in planes:
        gaps = [
            abs(plane.slopes[0] * x + plane.slopes[1] * y + plane.offset - x * y)
            for x, y in corners
        ]
        assert (np.sort(gaps, 0)[2] <= 1e-9 * (1 + np.abs(xu * yu) + np.abs(xl * yl) * 4)).all()


def test_maximum_of_a_sure_winner_is_that_entry() -> None:
    low = jnp.array([[3.0, 0.0, -1.0]])
    planes = Maximum((1,)).planes([Interval(low, low + 2)])
    for plane in planes:
        np.testing.assert_array_equal(plane.slopes[0], [[1.0, 0.0, 0.0]])
        np.testing.assert_array_equal(plane.offset, [0.0])
