"""What is to be verified, and what is known of it on the whole set."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxlirpa._methods.arguments import Arguments
from jaxlirpa.verify.call import Frame, Values, parted
from jaxlirpa.verify.condensed import Condensed
from jaxlirpa.verify.properties import Property
from jaxlirpa.verify.root import Clauses, Root, alike, clauses_of, condensed_at, root_of

# What a bound in double precision must exceed, relative to the margins' size on the whole set.
_ROUNDING = 1e-9


@dataclasses.dataclass(frozen=True, eq=False)
class Instance:
    """A property of one call.

    What is known of the whole set is found in double precision, once: checks are made of it as it
    is, and the search, whose results are checked, goes by the same numbers rounded.

    Attributes:
        prop: the property.
        frame, values: the call.
    """

    prop: Property
    frame: Frame
    values: Values

    @classmethod
    def of(cls, prop: Property, call: Arguments) -> Instance:
        """A property of a call."""
        return cls(prop, *parted(call))

    @functools.cached_property
    def exact(self) -> Values:
        """The values in double precision."""
        with jax.enable_x64(True):
            return self.values.in_double_precision()

    @functools.cached_property
    def clauses(self) -> Clauses:
        """The rows of each clause of the property."""
        return clauses_of(self.prop, self.frame, self.values)

    @functools.cached_property
    def rows(self) -> NDArray[np.integer[Any]]:
        """The same as an array, `[clauses, alternatives]`."""
        return alike(self.clauses)

    @functools.cached_property
    def root(self) -> Root:
        """Bounds on the whole set."""
        with jax.enable_x64(True):
            return root_of(self.prop, self.frame, self.exact)

    @property
    def least(self) -> float:
        """What a bound must exceed to prove anything: more than rounding explains."""
        return _ROUNDING * self.root.size

    @property
    def left(self) -> list[int]:
        """The clauses that bounds on the whole set do not prove."""
        bounds = self.root.lower(self.clauses)
        return [i for i, own in enumerate(bounds) if not own > self.least]

    @functools.cached_property
    def unstable(self) -> list[NDArray[np.int32]]:
        """The entries of each nonlinear function that are not straight on the whole set."""
        return [np.flatnonzero(np.asarray(mask)).astype(np.int32) for mask in self.root.unstable]

    @functools.cached_property
    def net(self) -> Condensed:
        """The network condensed to its unstable neurons."""
        return self.condensed(self.unstable)

    def condensed(self, chosen: Sequence[NDArray[np.int32]]) -> Condensed:
        """The network condensed to these neurons; the unstable ones must be among them."""
        with jax.enable_x64(True):
            return condensed_at(self.prop, self.frame, self.exact, self.root, chosen)


def rounded(net: Condensed) -> Condensed:
    """A network in the precision that JAX has by default."""
    return jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), net)
