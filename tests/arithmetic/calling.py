"""Functions of JAX, called in the arithmetic that the tests are run in."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from arithmetic.program import run

MODE = os.environ.get("JAXLIRPA_TESTS", "")
assert MODE in ("", "compare", "eager"), f"JAXLIRPA_TESTS={MODE} is none of compare, eager"

# How far XLA and NumPy may be apart, in units in the last place of a result's largest entry.
_ULPS = 2**12


def jit(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, traced as by `jax.jit` and computed in NumPy.

    Arrays and floating numbers among its arguments are traced, all others are what they are. Where
    one of them is traced already, or what `fn` reads besides, `fn` is simply called.
    """

    @functools.wraps(fn, updated=())
    def called(*args: Any, **options: Any) -> Any:
        leaves, structure = jax.tree.flatten((args, options))
        if MODE == "eager" or any(isinstance(x, jax.core.Tracer) for x in leaves):
            return fn(*args, **options)
        traced = [isinstance(x, (jax.Array, np.ndarray, np.generic, float)) for x in leaves]
        arrays = [x for x, t in zip(leaves, traced, strict=True) if t]

        def of(*given: Any) -> Any:
            supply = iter(given)
            whole = [next(supply) if t else x for x, t in zip(leaves, traced, strict=True)]
            values, keywords = structure.unflatten(whole)
            return fn(*values, **keywords)

        closed, shape = jax.make_jaxpr(of, return_shape=True)(*arrays)
        if any(isinstance(x, jax.core.Tracer) for x in closed.consts):
            return fn(*args, **options)
        results = run(closed, [np.asarray(x) for x in arrays])
        found = jax.tree.unflatten(jax.tree.structure(shape), results)
        if MODE == "compare":
            agree(found, jax.jit(of)(*arrays))
        return found

    return called


def call(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)`, as `jit` computes it."""
    return jit(fn)(*args)


def computed(transform: Callable[..., Any]) -> Callable[..., Any]:
    """A transform of functions, such as `jaxlirpa.crown`, whose results are computed in NumPy."""

    @functools.wraps(transform, updated=())
    def applied(*args: Any, **options: Any) -> Callable[..., Any]:
        return jit(transform(*args, **options))

    return applied


def agree(found: Any, expected: Any) -> None:
    """Asserts that NumPy and XLA have computed the same, but for rounding."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        room = 0.0
        if jax.dtypes.issubdtype(b.dtype, np.floating):
            finite = [np.abs(x[np.isfinite(x)]).max(initial=0) for x in map(np.asarray, (a, b))]
            room = float(_ULPS * jax.numpy.finfo(b.dtype).eps * max(finite))
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), 0, room)
