"""Declarations held against samples, before anything is bounded with them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxlirpa._errors import ExtensionError, LirpaError
from jaxlirpa._graph.trace import trace
from jaxlirpa._intervals import Interval
from jaxlirpa._ops import declared
from jaxlirpa._ops.families import Elementwise
from jaxlirpa._relax.lines import Relaxation, relax
from jaxlirpa._types import Array

# What rounding may explain, in units in the last place of the largest term.
ULPS = 2**8
# Boxes, and points of each; sizes of what is sampled, in powers of ten.
_BOXES, _POINTS = 400, 33
_SIZES = (-3.0, 3.0)


class Known(Protocol):
    """A declared function."""

    name: str
    record: Elementwise

    def __call__(self, x: Array) -> Array: ...


def check_univariate(
    f: Callable[[Array], Array],
    known: Known,
    inflections: Sequence[float] | None,
    convex_first: bool,
    domain: tuple[float, float],
) -> None:
    """Raises an ExtensionError unless a declared function is recognised and keeps its promises."""
    _check_kept_whole(f, known)
    rng = np.random.default_rng(0)
    bends = sorted(inflections or ())
    lower, upper = _boxes(rng, domain, bends)
    dtype = jnp.result_type(float)
    lower, upper = (np.clip(x, *domain).astype(dtype) for x in (lower, upper))
    part = np.linspace(0, 1, _POINTS).astype(dtype)[:, None]
    x = np.clip(lower * (1 - part) + upper * part, lower, upper)
    y = np.asarray(known(jnp.asarray(x)))
    _check_entry_by_entry(known, x, y)
    if inflections is not None:
        _check_curvature(known, x, y, bends, convex_first)
    relaxation = known.record.relaxation(None)  # type: ignore[arg-type]
    box = Interval(jnp.asarray(lower), jnp.asarray(upper))
    _check_relaxation(known.name, relaxation, box, x, y)


def _boxes(
    rng: np.random.Generator, domain: tuple[float, float], places: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of all sizes in a domain, some beside the places that matter, some single points."""
    ends = [x for x in domain if np.isfinite(x)]
    centre = rng.choice([0.0, *places, *ends], _BOXES)
    centre = centre + rng.choice([-1, 1], _BOXES) * 10 ** rng.uniform(*_SIZES, _BOXES) / 10
    width = 10 ** rng.uniform(*_SIZES, _BOXES) * (rng.uniform(size=_BOXES) > 0.1)
    left = rng.uniform(0, 1, _BOXES)
    return centre - left * width, centre + (1 - left) * width


def _check_kept_whole(f: Callable[[Array], Array], known: Known) -> None:
    for shape in ((), (2, 3)):
        aval = jax.ShapeDtypeStruct(shape, jnp.result_type(float))
        try:
            graph, _ = trace(f, [aval], declared.vocabulary())
        except LirpaError as error:
            raise ExtensionError(f"{known.name} cannot be traced: {error}") from error
        nodes = [graph.nodes[i].primitive for i in graph.live()]
        if nodes != ["input", known.name] or (graph.aval(graph.targets[0]) != aval):
            raise ExtensionError(
                f"{known.name} is not a function from a number to a number, entry by entry: it "
                "must keep the shape and the type of its operand, depend on it, and close over no "
                "arrays (make them Python numbers)."
            )


def _check_entry_by_entry(known: Known, x: np.ndarray, y: np.ndarray) -> None:
    """At half of the points, beside others, the function has the same values; and it has some."""
    alone = np.asarray(known(jnp.asarray(x[:, ::2])))
    wrong = ~np.isclose(alone, y[:, ::2], 1e-5, 1e-30, equal_nan=True)
    if wrong.any():
        at = tuple(np.argwhere(wrong)[0])
        raise ExtensionError(
            f"{known.name} does not act entry by entry: at {x[:, ::2][at]:g} it is {alone[at]:g}, "
            f"and {y[:, ::2][at]:g} beside other entries."
        )
    if np.isnan(y).any():
        raise ExtensionError(
            f"{known.name} is not a number at {x[np.isnan(y)][0]:g}. Where is it defined? Declare "
            "its `domain`."
        )


def _check_curvature(
    known: Known, x: np.ndarray, y: np.ndarray, bends: Sequence[float], convex_first: bool
) -> None:
    """By the definition: between two points, the function is below the chord, or above."""
    for i, (low, high) in enumerate(itertools.pairwise([-np.inf, *bends, np.inf])):
        convex = (i % 2 == 0) == convex_first
        inside = (x[0] >= low) & (x[-1] <= high) & (x[0] < x[-1])
        a, m, b = (x[k][inside].astype(float) for k in (0, _POINTS // 2, -1))
        fa, fm, fb = (y[k][inside].astype(float) for k in (0, _POINTS // 2, -1))
        with np.errstate(all="ignore"):
            part = (m - a) / (b - a)
            excess = (fm - (1 - part) * fa - part * fb) * (1 if convex else -1)
            size = np.maximum.reduce([np.abs(fa), np.abs(fm), np.abs(fb)])
            wrong = excess > ULPS * np.finfo(y.dtype).eps * size
        if wrong.any():
            k = np.flatnonzero(wrong)[np.argmax(excess[wrong] / size[wrong])]
            raise ExtensionError(
                f"{known.name} is not {'convex' if convex else 'concave'} between {low:g} and "
                f"{high:g}: it is {fa[k]:g} at {a[k]:g}, {fm[k]:g} at {m[k]:g} and {fb[k]:g} at "
                f"{b[k]:g}."
            )


def _check_relaxation(
    name: str, relaxation: Relaxation, box: Interval, x: np.ndarray, y: np.ndarray
) -> None:
    """The range and the lines contain the function at every sampled point."""
    compute: Any = jax.jit(lambda box: (relaxation.image(box), relax(relaxation, box)))
    image, lines = jax.tree.map(np.asarray, compute(box))
    below, above = lines.lower_slope * x, lines.upper_slope * x
    bounds = {
        "range": (image.lower, image.upper, np.abs(y)),
        "lines": (
            below + lines.lower_offset,
            above + lines.upper_offset,
            np.maximum.reduce([np.abs(y), np.abs(below), np.abs(above)]),
        ),
    }
    for what, (low, high, size) in bounds.items():
        at = first_outside(y, low, high, size)
        if at is not None:
            low, high, start, end = (np.broadcast_to(z, y.shape)[at] for z in (low, high, *box))
            raise ExtensionError(
                f"{name} leaves the {what} of its declared relaxation on [{start:g}, {end:g}]: "
                f"at {x[at]:g} it is {y[at]:g}, not between {low:g} and {high:g}."
            )


def first_outside(
    y: np.ndarray, low: np.ndarray, high: np.ndarray, size: np.ndarray
) -> tuple[int, ...] | None:
    """Where a finite value first leaves its bounds by more than rounding of terms of that size."""
    room = np.where(np.isfinite(size), ULPS * np.finfo(y.dtype).eps * size, 0)
    with np.errstate(invalid="ignore"):
        wrong = ~((low - room <= y) & (y <= high + room)) & np.isfinite(y)
    return tuple(np.argwhere(wrong)[0].tolist()) if wrong.any() else None
