"""Functions of one number, bounded whole wherever they appear."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from jaxlirpa._errors import ExtensionError, LirpaError
from jaxlirpa._intervals import Interval
from jaxlirpa._ops import declared
from jaxlirpa._ops.families import Elementwise
from jaxlirpa._relax.bent import Bent
from jaxlirpa._relax.lines import Relaxation
from jaxlirpa._relax.restricted import Restricted
from jaxlirpa._relax.smooth import Smooth
from jaxlirpa._relax.unknown import Unknown
from jaxlirpa._types import Array, ArrayLike
from jaxlirpa.extend.checking import check_univariate
from jaxlirpa.extend.ranges import Ranges

Real = Callable[[Array], Array]

# Of a box, where nothing but ranges is known.
_PIECES = 32


def univariate(
    f: Real,
    *,
    inflections: Sequence[float] | None = None,
    convex_first: bool = True,
    domain: tuple[float, float] | None = None,
    ulps: float = 16.0,
) -> Callable[[ArrayLike], Array]:
    """Declares a function of one number; what is returned is bounded whole.

    The result is `f` to JAX: it may be compiled, mapped and differentiated. In a function that is
    bounded, its calls become one node each, with a relaxation of their own, instead of the
    operations that `f` consists of. It is known by its trace and holds for as long as somebody
    can call it; nothing has to be undone.

    With `inflections`, `f` is relaxed by its curvature, which is as tight as two lines can be in
    most cases. Without, by interval arithmetic of `f` and its derivative on many pieces of the
    box; for that, jaxlirpa must be able to bound what `f` consists of.

    The declaration is checked on samples, and trusted between them.

    Args:
        f: acts entry by entry on arrays, keeps their shape and type, and closes over no arrays.
            With inflections, it is continuous and JAX's derivative is its derivative.
        inflections: where `f` changes between convex and concave, in any order; `()` if it does
            not. A kink may be inside a convex or concave piece, or be one of them. None if the
            curvature is not known.
        convex_first: whether `f` is convex, and not concave, left of all inflections.
        domain: the least and the largest number to which `f` may be applied, if not all.
        ulps: by how many units in the last place the computed value of `f` may be wrong.

    Returns:
        The function to use in place of `f`.

    Raises:
        ExtensionError: where `f` is not of this kind, or leaves its bounds at a sampled point.

    Example:
        >>> import jax.numpy as jnp, jaxlirpa
        >>> from jaxlirpa import extend
        >>> bump = extend.univariate(lambda x: jnp.exp(-x * x), inflections=(-0.5**0.5, 0.5**0.5))
        >>> lower, upper = jaxlirpa.ibp(bump)(jnp.array(0.0), 2.0)
        >>> print(f"{lower:.4f} {upper:.4f}")
        0.0183 1.0000
    """
    name = getattr(f, "__name__", "function").strip("<>")
    low, high = (-jnp.inf, jnp.inf) if domain is None else map(float, domain)
    if not low < high:
        raise ExtensionError(f"{name}: the domain [{low}, {high}] is empty.")
    if any(not low < x < high for x in inflections or ()):
        raise ExtensionError(f"{name}: the inflections are not all inside [{low}, {high}].")
    found = relaxation(f, inflections=inflections, convex_first=convex_first, ulps=ulps)
    known = _Known(f, declared.new_name(name), _record(found, low, high))
    result = _for_jax(f, known)
    check_univariate(result, known, inflections, convex_first, (low, high))
    return result


def relaxation(
    f: Real,
    *,
    inflections: Sequence[float] | None = None,
    convex_first: bool = True,
    ulps: float = 16.0,
) -> Relaxation:
    """The relaxation of a function of one number: its range, and lines around it, on a box.

    To be put into an `Elementwise` record, whose declaration checks it. Make it once, and not once
    a node: it is compiled for every shape.

    Args:
        f, inflections, convex_first, ulps: as for `univariate`.

    Raises:
        ExtensionError: where the inflections are not known and `f` cannot be bounded.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import extend
        >>> cube = extend.relaxation(lambda x: x**3, inflections=(0.0,), convex_first=False)
        >>> lower, upper = cube.image(extend.Interval(jnp.array(-1.0), jnp.array(2.0)))
        >>> print(f"{lower:.3f} {upper:.3f}")
        -1.000 8.000
    """
    if inflections is not None:
        smooth = Smooth(f, _derivative(f), lambda x: ulps)
        return Bent(smooth, tuple(sorted(map(float, inflections))), convex_first)
    ranges = Ranges(f)
    one = jnp.ones((1,))
    try:
        ranges.values(Interval(one, one))
    except LirpaError as error:
        raise ExtensionError(
            f"without its inflections, a function is bounded by its parts, but {error}"
        ) from error
    return Unknown(ranges.values, ranges.slopes, _PIECES)


class _Known:
    """A declared function, as one call in a trace."""

    def __init__(self, f: Real, name: str, record: Elementwise):
        def called(x: Array) -> Array:
            return f(x)

        called.__name__ = called.__qualname__ = name
        self.name, self.record, self.call = name, record, jax.jit(called)
        declared.remember(name, self)

    def __call__(self, x: Array) -> Array:
        return self.call(x)


def _for_jax(f: Real, known: _Known) -> Callable[[ArrayLike], Array]:
    """`f` as a call that survives `jax.vmap` and leaves derivatives to JAX.

    A mapped call is the call on the mapped array, because `f` acts entry by entry; so the trace
    still is that of `f`. A differentiated one is the call and, apart from it, the derivative.
    """

    @custom_vmap
    def mapped(x: Array) -> Array:
        return known(x)

    @mapped.def_vmap
    def map_entries(size: int, batched: Sequence[bool], x: Array) -> tuple[Array, bool]:
        del size, batched
        return mapped(x), True

    @jax.custom_jvp
    def differentiable(x: Array) -> Array:
        return mapped(x)

    @differentiable.defjvp
    def tangent(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
        return differentiable(*primals), jax.jvp(f, primals, tangents)[1]

    @functools.wraps(f)
    def result(x: ArrayLike) -> Array:
        return differentiable(jnp.asarray(x))

    return result


def _derivative(f: Real) -> Real:
    return lambda x: jax.jvp(f, (x,), (jnp.ones_like(x),))[1]


def _record(relaxation: Relaxation, low: float, high: float) -> Elementwise:
    """The record of a function on `[low, high]`."""
    if low == -jnp.inf and high == jnp.inf:
        return Elementwise(lambda node: relaxation)

    def inside(box: Interval) -> Array:
        return (box.lower >= low) & (box.upper <= high)

    home = 0.5 * low + 0.5 * high if jnp.isfinite(high - low) else max(low, min(high, 0.0))
    restricted = Restricted(relaxation, inside, home)
    return Elementwise(
        lambda node: restricted,
        defined=lambda node, box: inside(box),
        domain=f"values between {low:g} and {high:g}",
    )
