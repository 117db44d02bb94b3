"""What is to be proved: that functions are positive, and combinations of such."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import is_floating
from jaxlirpa._errors import ArgumentError
from jaxlirpa._methods import signature
from jaxlirpa._types import Array, PyTree


class Property:
    """A combination of statements "all outputs of a function are positive".

    `all_of`, `any_of` and `any_output` make them; a function itself is one as well. All functions
    of a property take the same arguments.
    """

    def __init__(self, functions: tuple[Callable[..., PyTree], ...], combine: Callable[..., Any]):
        self.functions = functions
        self._combine = combine

    def __call__(self, *args: Any, **named: Any) -> Array:
        """The values of all functions, as one vector."""
        return self.margins(*args, **named)

    def margins(self, *args: Any, **named: Any) -> Array:
        """The outputs of all functions at a point, flattened and joined."""
        parts = [_flat(fn, fn(*args, **named)) for fn in self.functions]
        return jnp.concatenate([x for part in parts for x in part])

    def clauses(self, sizes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
        """The property as an "and" of "or"s: in each clause one row of the margins is positive.

        Args:
            sizes: how many outputs each function has.
        """
        ends = list(itertools.accumulate(sizes, initial=0))
        rows = [tuple(range(a, b)) for a, b in itertools.pairwise(ends)]
        found: set[frozenset[int]] = {frozenset(clause) for clause in self._combine(iter(rows))}
        needed = [c for c in found if not any(other < c for other in found)]
        return tuple(sorted(tuple(sorted(clause)) for clause in needed))

    def sizes(self, *args: Any, **named: Any) -> tuple[int, ...]:
        """How many outputs each function has."""
        shapes = jax.eval_shape(lambda: [_flat(fn, fn(*args, **named)) for fn in self.functions])
        return tuple(sum(x.size for x in own) for own in shapes)


def _flat(fn: Callable[..., PyTree], outputs: PyTree) -> list[Array]:
    """The outputs as vectors."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(outputs)]
    if not sum(x.size for x in leaves):
        raise ArgumentError(
            f"{signature.described(fn)} has no outputs, so there is nothing to verify."
        )
    for x in leaves:
        if not is_floating(x):
            raise ArgumentError(
                f"{signature.described(fn)} returns {x.dtype}, and a property says that real "
                "numbers are positive. Return the margin itself, not whether it is positive: "
                "`a - b` instead of `a > b`."
            )
    return [x.reshape(-1) for x in leaves]


def as_property(statement: Callable[..., PyTree] | Property) -> Property:
    """A property; a function stands for "all its outputs are positive".

    Raises:
        ArgumentError: where it is neither.
    """
    if isinstance(statement, Property):
        return statement
    if not callable(statement):
        raise ArgumentError(
            "a property is made of functions whose outputs should be positive, and not of "
            f"{statement!r}. Hand in the function itself."
        )
    return Property((statement,), lambda rows: [{row} for row in next(rows)])


def any_output(fn: Callable[..., PyTree]) -> Property:
    """The property that at least one output of a function is positive.

    Args:
        fn: function of pytrees of arrays.

    Raises:
        ArgumentError: where it is no function.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import verify
        >>> outside = verify.any_output(lambda x: jnp.array([x - 1, -1 - x]))
        >>> verify.verify(outside)(jnp.array(2.0), 0.5).status
        'proved'
    """
    if not callable(fn) or isinstance(fn, Property):
        raise ArgumentError(f"any_output takes a function, and not {fn!r}.")
    return Property((fn,), lambda rows: [set(next(rows))])


def all_of(*statements: Callable[..., PyTree] | Property) -> Property:
    """The property that all of some properties hold.

    Args:
        statements: properties, or functions whose outputs should all be positive, of the same
            arguments.

    Raises:
        ArgumentError: where there is none, or one is no function.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import verify
        >>> inside = verify.all_of(lambda x: x + 1, lambda x: 1 - x)
        >>> verify.verify(inside)(jnp.array(0.0), 2.0).status
        'refuted'
    """
    parts = _parts("all_of", statements)

    def combine(rows: Any) -> list[set[int]]:
        return [clause for part in parts for clause in part._combine(rows)]

    return Property(tuple(fn for part in parts for fn in part.functions), combine)


def any_of(*statements: Callable[..., PyTree] | Property) -> Property:
    """The property that at least one of some properties holds, at each point of the set.

    Args:
        statements: as for `all_of`.

    Raises:
        ArgumentError: as for `all_of`.

    Example:
        >>> import jax.numpy as jnp
        >>> from jaxlirpa import verify
        >>> either = verify.any_of(lambda x: x, lambda x: 1 - x)
        >>> verify.verify(either)(jnp.array(0.5), 2.0).status
        'proved'
    """
    parts = _parts("any_of", statements)

    def combine(rows: Any) -> list[set[int]]:
        own = [part._combine(rows) for part in parts]
        return [set().union(*choice) for choice in itertools.product(*own)]

    return Property(tuple(fn for part in parts for fn in part.functions), combine)


def _parts(name: str, statements: tuple[Any, ...]) -> list[Property]:
    if not statements:
        raise ArgumentError(f"{name}() needs at least one property.")
    return [as_property(statement) for statement in statements]
