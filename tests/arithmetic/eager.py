"""What JAX would compile only to run it once or twice, computed in NumPy instead.

Outside of `jax.jit` JAX compiles every operation, and every small function of its own, for each
shape that it meets: of 18,000 programs that the tests once compiled, 17,000 were such. There is no
public way to say how a program is run, so this replaces a private function of JAX; where a release
has another one, everything is compiled, which is slower and as good.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from typing import Any

import jax
import numpy as np

from arithmetic.calling import MODE
from arithmetic.program import NoRule, alone, known, run

# How many equations of one program NumPy computes, all its runs together, before it is compiled.
_MOST = 200
_NAME = "_pjit_call_impl_python"

_computed: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()


def install() -> None:
    """Lets NumPy compute the first runs of every program, unless all is to be computed by XLA."""
    try:
        from jax._src import pjit
    except ImportError:
        return
    compiled = getattr(pjit, _NAME, None)
    if MODE or compiled is None:
        return

    def called(*args: Any, **params: Any) -> Any:
        if _fits(params["jaxpr"], args, params):
            with alone(), contextlib.suppress(NoRule):
                results = run(params["jaxpr"], [known(x) for x in args])
                return [jax.device_put(_flushed(x)) for x in results], None, None, []
        return compiled(*args, **params)

    setattr(pjit, _NAME, called)


def _flushed(x: Any) -> Any:
    """Without numbers below the normal ones: XLA has none on CPUs, and may compute what follows."""
    if x.dtype.kind != "f":
        return x
    return np.where(np.abs(x) < np.finfo(x.dtype).tiny, np.copysign(x.dtype.type(0), x), x)


def _fits(closed: Any, args: Any, params: Any) -> bool:
    """Whether a program is small, of plain arrays, and of the one device that there is."""
    avals = [*closed.in_avals, *closed.out_avals]
    plain = all(isinstance(x.dtype, np.dtype) and x.dtype.kind in "fiub" for x in avals)
    special = params.get("compiler_options_kvs") or any(params.get("donated_invars", ()))
    if not plain or special or closed.effects or any(x.weak_type for x in closed.out_avals):
        return False
    if any(getattr(x, "committed", False) for x in args):
        return False
    size = _computed.get(closed.jaxpr, 0) + _size(closed.jaxpr)
    if size <= _MOST:
        _computed[closed.jaxpr] = size
    return size <= _MOST


@functools.lru_cache(4096)
def _size(jaxpr: Any) -> int:
    """Equations, with those of called functions; a loop is as long as can be."""
    total = len(jaxpr.eqns)
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("while", "scan"):
            return _MOST + 1
        inside = [x for x in jax.tree.leaves(dict(eqn.params)) if hasattr(x, "jaxpr")]
        total += sum(_size(x.jaxpr) for x in inside)
    return total
