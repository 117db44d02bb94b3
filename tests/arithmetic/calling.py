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


def call(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn(*args)`, computed in NumPy.

    Args:
        fn: a function of JAX.
        args: pytrees of arrays. If any of them is traced, `fn` is simply called.

    Returns:
        What `fn` returns, its arrays as NumPy's.
    """
    if MODE == "eager" or any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args)):
        return fn(*args)
    closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
    results = run(closed, [np.asarray(x) for x in jax.tree.leaves(args)])
    found = jax.tree.unflatten(jax.tree.structure(shape), results)
    if MODE == "compare":
        agree(found, jax.jit(fn)(*args))
    return found


def computed(transform: Callable[..., Any]) -> Callable[..., Any]:
    """A transform of functions, such as `jaxlirpa.crown`, whose results are computed in NumPy.

    Arrays and floating numbers among the arguments are traced; all others are what they are.
    """

    @functools.wraps(transform, updated=())
    def applied(*args: Any, **options: Any) -> Callable[..., Any]:
        bound = transform(*args, **options)

        def called(*values: Any) -> Any:
            leaves, structure = jax.tree.flatten(values)
            arrays = [isinstance(x, (jax.Array, np.ndarray, np.generic, float)) for x in leaves]

            def of(*given: Any) -> Any:
                supply = iter(given)
                pairs = zip(arrays, leaves, strict=True)
                return bound(*structure.unflatten([next(supply) if a else x for a, x in pairs]))

            return call(of, *(x for a, x in zip(arrays, leaves, strict=True) if a))

        return called

    return applied


def agree(found: Any, expected: Any) -> None:
    """Asserts that NumPy and XLA have computed the same, but for rounding."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        room = 0.0
        if jax.dtypes.issubdtype(b.dtype, np.floating):
            finite = [np.abs(x[np.isfinite(x)]).max(initial=0) for x in map(np.asarray, (a, b))]
            room = float(_ULPS * jax.numpy.finfo(b.dtype).eps * max(finite))
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), 0, room)
