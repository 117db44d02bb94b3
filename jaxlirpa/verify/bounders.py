"""What bounds subproblems: a condensed network, or CROWN on the whole program."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np

from jaxlirpa._intervals import Interval
from jaxlirpa._types import Array
from jaxlirpa.verify.condensed import (
    Candidates,
    Condensed,
    Parameters,
    Subproblems,
    bounds_at,
    sharpen,
    starts,
)
from jaxlirpa.verify.instance import Instance
from jaxlirpa.verify.linear import Dual, dual
from jaxlirpa.verify.optimise import Optimised, optimise
from jaxlirpa.verify.refine import Refinement, refine
from jaxlirpa.verify.strategies import InputSplits, NeuronSplits, Strategy
from jaxlirpa.verify.tree import Part
from jaxlirpa.verify.walked import walked_bounds


class Bounder(Protocol):
    """Bounds batches of subproblems.

    Attributes:
        box: limits of the neurons' operands on the whole set, `[neurons]` each.
        dtype: of all numbers.
    """

    @property
    def box(self) -> Interval: ...

    @property
    def dtype(self) -> Any: ...

    def start(self) -> Array:
        """The first alphas on the whole set, `[sides, neurons]`."""

    def bounds(
        self, sub: Subproblems, start: Parameters, free: Array, open_: Array, steps: int
    ) -> tuple[Interval, Optimised]:
        """The subproblems' boxes, which may be better than the given ones, and their bounds.

        Args:
            sub: the subproblems.
            start: the first parameters.
            free: which neurons have multipliers, `[batch, neurons]`.
            open_: which subproblems matter, `[batch]`.
            steps: how many gradient steps are made at most.
        """

    def quick_bounds(self, sub: Subproblems, parameters: Parameters) -> Array:
        """The subproblems' bounds by given parameters, `[batch]`."""

    def dual(self, row: int, part: Part) -> Dual | None:
        """The best multipliers of a row's bound in a part that cannot be split, if known."""


@dataclasses.dataclass(frozen=True)
class ByCondensed:
    """Bounds by a condensed network.

    Attributes:
        net: the network.
        strategy: how its subproblems are split.
    """

    net: Condensed
    strategy: Strategy

    @property
    def box(self) -> Interval:
        """That of the network."""
        return self.net.box

    @property
    def dtype(self) -> Any:
        """That of the network."""
        return self.net.inputs.dtype

    @property
    def behind(self) -> int:
        """How many neurons are behind others, so that their boxes are not exact."""
        own = np.asarray(self.net.neurons[self.net.rows :])
        return int(np.sum(np.any(own != 0, 1)))

    def refined(self, batch: int, alternatives: int) -> tuple[Condensed, list[Refinement]]:
        """The network with better boxes, by optimised bounds of its neurons' operands.

        Args:
            batch, alternatives: those of the search.
        """
        assert isinstance(self.strategy, NeuronSplits)
        return refine(
            self.net,
            ascent=self.strategy.ascent,
            steps=self.strategy.refine_steps,
            batch=batch,
            alternatives=alternatives,
            count=self._count,
        )

    @property
    def _count(self) -> int:
        wanted = self.strategy.candidates if isinstance(self.strategy, NeuronSplits) else 1
        return min(wanted, self.net.neurons.shape[1])

    def start(self) -> Array:
        """CROWN's alphas."""
        return starts(self.net, self.net.box)

    def bounds(
        self, sub: Subproblems, start: Parameters, free: Array, open_: Array, steps: int
    ) -> tuple[Interval, Optimised]:
        """By gradient steps; where the inputs are split, with better boxes."""
        box = sub.box
        if isinstance(self.strategy, InputSplits):
            most = self.strategy.sharpened
            box = sharpen(self.net, sub, most=most) if most else box
            start = start._replace(alpha=starts(self.net, box))
        found = optimise(
            self.net,
            sub._replace(box=box),
            start,
            free,
            open_,
            jnp.int32(steps),
            ascent=self.strategy.ascent,
            count=self._count,
        )
        return box, found

    def dual(self, row: int, part: Part) -> Dual | None:
        """By a linear program, where every relu is fixed."""
        return dual(self.net, row, part)

    def quick_bounds(self, sub: Subproblems, parameters: Parameters) -> Array:
        """By one pass."""
        return bounds_at(self.net, sub, parameters)


@dataclasses.dataclass(frozen=True)
class ByWalk:
    """Bounds by CROWN on the whole program, in parts of the boxes of its inputs.

    They are found in double precision at once: to compile twice would take longer than that.

    Attributes:
        instance: what is verified; all its sets are boxes.
    """

    instance: Instance

    @property
    def box(self) -> Interval:
        """No neurons."""
        nothing = jnp.zeros(0, self.dtype)
        return Interval(nothing, nothing)

    @property
    def dtype(self) -> Any:
        """That of the first input."""
        return self.instance.values.sets[0].aval.dtype

    def start(self) -> Array:
        """None."""
        return jnp.zeros((1, 0), self.dtype)

    def bounds(
        self, sub: Subproblems, start: Parameters, free: Array, open_: Array, steps: int
    ) -> tuple[Interval, Optimised]:
        """Without any steps."""
        del free, open_, steps
        found = walked_bounds(self.instance, sub)
        none = jnp.zeros((len(found.lower), 0), self.dtype)
        return sub.box, Optimised(found, start, Candidates(none.astype(int), none, none))

    def dual(self, row: int, part: Part) -> Dual | None:
        """None: there are no neurons."""
        del row, part
        return None

    def quick_bounds(self, sub: Subproblems, parameters: Parameters) -> Array:
        """Not any quicker."""
        del parameters
        return walked_bounds(self.instance, sub).lower
