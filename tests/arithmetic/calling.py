"""Functions of JAX, called in the arithmetic that the tests are run in."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from arithmetic.program import known, run

MODE = os.environ.get("JAXLIRPA_TESTS", "")
assert MODE in ("", "xla", "eager"), f"JAXLIRPA_TESTS={MODE} is none of xla, eager"

# How far XLA and NumPy may be apart, in units in the last place of a result's largest entry.
_ULPS = 2**12


def call(fn: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """`fn(*args)`, traced as by `jax.jit` and computed in NumPy.

    Arrays and floating numbers among the arguments are traced, all others are what they are. Where
    one of them is traced already, or what `fn` reads besides, `fn` is simply called.
    """
    return _call(fn, {}, args, options)


def jit(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn`, as `call` computes it. As with `jax.jit` it is traced once for arguments alike."""
    traces: dict[Any, Any] = {}

    @functools.wraps(fn, updated=())
    def called(*args: Any, **options: Any) -> Any:
        return _call(fn, traces, args, options)

    return called


def computed(transform: Callable[..., Any]) -> Callable[..., Any]:
    """A transform of functions, such as `jaxlirpa.crown`, whose results are computed in NumPy.

    What it returns is traced anew for every call.
    """

    @functools.wraps(transform, updated=())
    def applied(*args: Any, **options: Any) -> Callable[..., Any]:
        return functools.partial(call, transform(*args, **options))

    return applied


def _call(fn: Callable[..., Any], traces: dict[Any, Any], args: Any, options: Any) -> Any:
    leaves, structure = jax.tree.flatten((args, options))
    if MODE == "eager" or any(isinstance(x, jax.core.Tracer) for x in leaves):
        return fn(*args, **options)
    arrays = [x for x in leaves if _is_array(x)]
    others = [x for x in leaves if not _is_array(x)]

    def of(*given: Any) -> Any:
        supply, rest = iter(given), iter(others)
        whole = [next(supply) if _is_array(x) else next(rest) for x in leaves]
        values, keywords = structure.unflatten(whole)
        return fn(*values, **keywords)

    kinds = tuple((np.shape(x), x.dtype) if hasattr(x, "dtype") else float for x in arrays)
    key = structure, kinds, tuple(others)
    if key not in traces:
        traces[key] = jax.make_jaxpr(of, return_shape=True)(*arrays)
    closed, shape = traces[key]
    if any(isinstance(x, jax.core.Tracer) for x in closed.consts):
        del traces[key]
        return fn(*args, **options)
    results = run(closed, [known(x) for x in arrays])
    found = jax.tree.unflatten(jax.tree.structure(shape), results)
    if MODE == "xla":
        compiled = jax.jit(of)(*arrays)
        agree(found, compiled)
        return compiled
    return found


def _is_array(x: Any) -> bool:
    return isinstance(x, (jax.Array, np.ndarray, np.generic, float))


def agree(found: Any, expected: Any) -> None:
    """Asserts that NumPy and XLA have computed the same, but for rounding."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        room = 0.0
        if jax.dtypes.issubdtype(b.dtype, np.floating):
            finite = [np.abs(x[np.isfinite(x)]).max(initial=0) for x in map(np.asarray, (a, b))]
            room = float(_ULPS * jax.numpy.finfo(b.dtype).eps * max(finite))
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), 0, room)
