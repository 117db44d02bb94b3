"""Random sets in batches, their members, and the members farthest in given directions.

A batch of sets is one `Box` or `LpBall` whose arrays have one more axis, the first: `jax.vmap`
bounds them all at once.
"""

from __future__ import annotations

import math

import jax
import numpy as np

import jaxlirpa

Batch = jaxlirpa.Box | jaxlirpa.LpBall

# How wide: from a point to what no network ever sees.
_RADII = (0, 1e-6, 1e-3, 0.1, 0.5, 1, 3, 10, 100, 1e4)
_CENTERS = (0, 0.1, 1, 1, 10, 1e3)
_ORDS = (1, 1.5, 2, 5, math.inf)


def random_batch(
    rng: np.random.Generator, count: int, shape: tuple[int, ...], dtype: np.dtype
) -> Batch:
    """Sets of one sort and all widths: entries of one width each, or of many."""
    whole = (count, *shape)
    alike = (count, *[1] * len(shape))
    center = rng.normal(size=whole) * rng.choice(_CENTERS, alike)
    scale = np.where(
        rng.uniform(size=alike) < 0.7, rng.choice(_RADII, alike), rng.choice(_RADII, whole)
    )
    radius = np.abs(rng.normal(size=whole)) * scale
    if rng.uniform() < 0.4:
        ord = _ORDS[rng.integers(len(_ORDS))]
        axis = None if len(shape) < 2 or rng.uniform() < 0.7 else len(shape) - 1
        return jaxlirpa.LpBall(center.astype(dtype), radius.astype(dtype), ord, axis)
    lower, upper = (center - radius).astype(dtype), (center + radius).astype(dtype)
    # Now and then a limit is a round number, or there is none.
    snap = rng.uniform(size=whole) < 0.1
    lower = np.where(snap & (radius > 0.5), np.floor(lower), lower)
    if rng.uniform() < 0.15:
        endless = (rng.uniform(size=whole) < 0.3) & (rng.uniform(size=alike) < 0.5)
        lower = np.where(endless, -np.inf, lower)
        upper = np.where((rng.uniform(size=whole) < 0.1) & endless, np.inf, upper)
        if rng.uniform() < 0.5:
            lower, upper = -upper, -lower
    return jaxlirpa.Box(lower.astype(dtype), upper.astype(dtype))


def pick(batch: Batch, index: int) -> Batch:
    """One of the sets, still as a batch."""
    return jax.tree.map(lambda x: x[index : index + 1], batch)


def convert(batch: Batch, dtype: np.dtype) -> Batch:
    """The same sets in another precision."""
    return jax.tree.map(lambda x: np.asarray(x, dtype), batch)


def _finite_hull(batch: Batch, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The sets' boxes, cut off somewhere far out where they do not end."""
    if isinstance(batch, jaxlirpa.LpBall):
        return batch.center - batch.radius, batch.center + batch.radius
    lower, upper = batch.lower, batch.upper
    reach = 10 ** rng.uniform(0, 5, lower.shape)
    low = np.where(np.isfinite(lower), lower, np.where(np.isfinite(upper), upper, 0) - reach)
    high = np.where(np.isfinite(upper), upper, np.where(np.isfinite(lower), lower, 0) + reach)
    return low.astype(lower.dtype), high.astype(lower.dtype)


def farthest(batch: Batch, directions: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Of every set, the members whose inner products with directions are largest.

    Args:
        batch: of sets.
        directions: `[sets, points, *shape]`.
        rng: where a box ends for this purpose, if it is infinite.
    """
    if isinstance(batch, jaxlirpa.LpBall) and not math.isinf(batch.ord):
        step = _farthest_of_unit_ball(batch, directions)
        inside = 1 - 8 * np.finfo(batch.center.dtype).eps
        found = batch.center[:, None] + batch.radius[:, None] * step * inside
        return found.astype(batch.center.dtype)
    lower, upper = (x[:, None] for x in _finite_hull(batch, rng))
    return np.where(directions >= 0, upper, lower)


def _farthest_of_unit_ball(ball: jaxlirpa.LpBall, directions: np.ndarray) -> np.ndarray:
    """By Hölder's inequality, in the coordinates in which the radius is one."""
    ndim = directions.ndim - 2
    axes = tuple(range(2, ndim + 2)) if ball.axis is None else (2 + ball.axis,)
    # Only the directions matter, and gradients may be enormous.
    rows = np.clip(directions.astype(np.float64), -1e200, 1e200) * ball.radius[:, None]
    size = np.abs(rows)
    largest = size.max(axes, keepdims=True)
    size = size / np.where(largest > 0, largest, 1)
    if ball.ord == 1:
        size = (size == 1) & (largest > 0)
        return np.sign(rows) * size / np.maximum(size.sum(axes, keepdims=True), 1)
    dual = ball.ord / (ball.ord - 1)
    norm = (size**dual).sum(axes, keepdims=True) ** (1 / ball.ord)
    return np.sign(rows) * size ** (dual - 1) / np.where(norm > 0, norm, 1)


def between(batch: Batch, a: np.ndarray, b: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Members between members, which are convex sets, in their own precision."""
    found = (a * (1 - share) + b * share).astype(a.dtype)
    if isinstance(batch, jaxlirpa.Box):
        return np.clip(found, batch.lower[:, None], batch.upper[:, None])
    return np.clip(found, np.minimum(a, b), np.maximum(a, b))


def put_back(batch: Batch, points: np.ndarray) -> np.ndarray:
    """Members of the sets, from points that rounding in another precision has put outside."""
    if isinstance(batch, jaxlirpa.Box):
        return points
    center, radius = np.asarray(batch.center)[:, None], np.asarray(batch.radius)
    radius = np.broadcast_to(radius.reshape(len(radius), 1, *radius.shape[1:]), center.shape)
    size = np.clip(points - center, -radius, radius) / np.where(radius > 0, radius, 1)
    if not np.isinf(batch.ord):
        axis = range(points.ndim - 2) if batch.axis is None else np.atleast_1d(batch.axis)
        normed = tuple(int(i) % (points.ndim - 2) + 2 for i in axis)
        norm = np.sum(np.abs(size) ** batch.ord, normed, keepdims=True) ** (1 / batch.ord)
        size = size / np.maximum(norm, 1)
    return center + radius * size


def members(batch: Batch, rng: np.random.Generator, count: int) -> np.ndarray:
    """Members of every set, `[sets, count, *shape]`: corners, points between, zeros, the middle."""
    leaf = jax.tree.leaves(batch)[0]
    shape = (len(leaf), count, *leaf.shape[1:])
    alike = shape[:2] + (1,) * (len(shape) - 2)
    sparse = rng.uniform(size=shape) < rng.uniform(size=alike)
    directions = rng.normal(size=shape)
    corners = farthest(batch, np.where(sparse, directions, 0), rng)
    others = farthest(batch, rng.normal(size=shape), rng)
    share = rng.choice([0, 0, 0, 0.5, 0.01], alike)
    found = between(batch, corners, others, np.where(rng.uniform(size=alike) < 0.3, 0.5, share))
    opposite = farthest(batch, -directions, rng)[:, :1]
    found[:, :1] = between(batch, farthest(batch, directions, rng)[:, :1], opposite, np.array(0.5))
    if isinstance(batch, jaxlirpa.Box):
        inner = between(batch, corners, others, rng.uniform(size=shape))
        inner = np.where(rng.uniform(size=alike) < 0.3, np.round(inner), inner)
        inner = np.where(rng.uniform(size=shape) < 0.1, 0, inner)
        inner = np.clip(inner, batch.lower[:, None], batch.upper[:, None])
        found = np.where((np.arange(count) % 2 == 1).reshape(1, -1, *alike[2:]), inner, found)
    return found.astype(leaf.dtype)
