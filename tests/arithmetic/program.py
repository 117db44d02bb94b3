"""Equations one after the other: calls, loops and branches, and who computes what else."""

from __future__ import annotations

import collections
import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from arithmetic import arrays, elementwise, indexing, windows
from jaxlirpa._graph.jaxpr import scan_counts

Values = list[Any]
"""Arrays of NumPy; of JAX only where NumPy has no such type, as for random keys."""

RULES: dict[str, Callable[..., Any]] = {
    **elementwise.RULES,
    **arrays.RULES,
    **windows.RULES,
    **indexing.RULES,
}
"""What computes the one result of a primitive, of its operands, parameters and abstract result."""

SEVERAL: dict[str, Callable[..., Any]] = {**arrays.SEVERAL, **indexing.SEVERAL}
"""What computes the several results of a primitive, of its operands and parameters."""

BY_JAX: collections.Counter[str] = collections.Counter()
"""How often which primitive was left to JAX."""


class NoRule(Exception):
    """A primitive is left to JAX."""


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Leaves nothing to JAX: what would be is a `NoRule`."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


_alone = False


def run(closed: ClosedJaxpr, args: Sequence[Any]) -> Values:
    """The results of a traced program.

    Args:
        closed: the program.
        args: its arguments, as arrays of NumPy.
    """
    with np.errstate(all="ignore"):
        return _closed(closed, args)


def _closed(closed: ClosedJaxpr, args: Sequence[Any]) -> Values:
    return _run(closed.jaxpr, [known(x) for x in closed.consts], args)


def _run(jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> Values:
    values = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        if isinstance(atom, Literal):
            return np.asarray(atom.val, atom.aval.dtype)
        return values[atom]

    for eqn in _live(jaxpr):
        results = _computed(eqn, [read(x) for x in eqn.invars])
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(x) for x in jaxpr.outvars]


@functools.lru_cache(1024)
def _live(jaxpr: Jaxpr) -> list[Any]:
    """The equations that some result depends on."""
    wanted = {id(x) for x in jaxpr.outvars}
    kept = []
    for eqn in reversed(jaxpr.eqns):
        if eqn.effects or any(id(x) in wanted for x in eqn.outvars):
            kept.append(eqn)
            wanted.update(id(x) for x in eqn.invars)
    return kept[::-1]


def _computed(eqn: Any, args: Values) -> Values:
    name, params = eqn.primitive.name, eqn.params
    if name in BODIES:
        body = params[BODIES[name]]
        return _closed(body, args) if isinstance(body, ClosedJaxpr) else _run(body, [], args)
    avals = [v.aval for v in eqn.outvars]
    if not all(_is_plain(x) for x in (*args, *avals)):
        return _by_jax(eqn, args)
    if name in CONTROL:
        return CONTROL[name](args, params)
    rule = RULES.get(name) or SEVERAL.get(name)
    if rule is None:
        return _by_jax(eqn, args)
    results = rule(args, params) if name in SEVERAL else [rule(args, params, avals[0])]
    if results[0] is NotImplemented:
        return _by_jax(eqn, args)
    results = [np.asarray(x, a.dtype) for x, a in zip(results, avals, strict=True)]
    assert all(x.shape == a.shape for x, a in zip(results, avals, strict=True)), eqn
    return results


def _is_plain(x: Any) -> bool:
    """Whether these are truth values, integers or floating numbers that NumPy has itself."""
    return np.dtype(x.dtype).kind in "fiub" if isinstance(x.dtype, np.dtype) else False


def _by_jax(eqn: Any, args: Values) -> Values:
    if _alone:
        raise NoRule(eqn.primitive.name)
    BY_JAX[eqn.primitive.name] += 1
    params = eqn.primitive.get_bind_params(eqn.params)
    results = eqn.primitive.bind(*map(jax.numpy.asarray, args), **params)
    return [known(x) for x in (results if eqn.primitive.multiple_results else [results])]


def known(x: Any) -> Any:
    """An array as NumPy's, if NumPy has its type."""
    extended = hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended)
    return x if extended else np.asarray(x)


# ---- calls, branches and loops -------------------------------------------------------------

BODIES = {
    **dict.fromkeys(("jit", "remat2"), "jaxpr"),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call"), "call_jaxpr"),
}
"""The parameter that holds the program of a call."""


def _cond(args: Values, params: Any) -> Values:
    index, *operands = args
    branches = params["branches"]
    return _closed(branches[np.clip(int(index), 0, len(branches) - 1)], operands)


def _while(args: Values, params: Any) -> Values:
    tests, bodies = params["cond_nconsts"], params["body_nconsts"]
    known, inner, state = args[:tests], args[tests : tests + bodies], args[tests + bodies :]
    while True:
        (more,) = _closed(params["cond_jaxpr"], [*known, *state])
        if not more.any():
            return state
        # Of several loops at once, as `vmap` makes them, some are at their end before others.
        moved = _closed(params["body_jaxpr"], [*inner, *state])
        state = [
            np.where(more.reshape(more.shape + (1,) * (new.ndim - more.ndim)), new, old)
            for new, old in zip(moved, state, strict=True)
        ]


def _scan(args: Values, params: Any) -> Values:
    (consts, carries), length = scan_counts(params), params["length"]
    known, state, slices = args[:consts], args[consts : consts + carries], args[consts + carries :]
    avals = [v.aval for v in params["jaxpr"].jaxpr.outvars[carries:]]
    stacked = [np.empty((length, *a.shape), a.dtype) for a in avals]
    order = range(length)
    for i in reversed(order) if params["reverse"] else order:
        found = _closed(params["jaxpr"], [*known, *state, *(x[i] for x in slices)])
        state = found[:carries]
        for rows, row in zip(stacked, found[carries:], strict=True):
            rows[i] = row
    return [*state, *stacked]


CONTROL: dict[str, Callable[[Values, Any], Values]] = {
    "cond": _cond,
    "while": _while,
    "scan": _scan,
    "optimization_barrier": lambda args, _: args,
}
