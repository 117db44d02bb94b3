"""Complete verification: bounds of the whole set, attack, and branch and bound."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from jaxlirpa._errors import ArgumentError
from jaxlirpa._graph.jaxpr import is_traced
from jaxlirpa._methods.arguments import arguments
from jaxlirpa._types import Array, PyTree
from jaxlirpa.verify import inputs
from jaxlirpa.verify.bounders import Bounder, ByCondensed, ByWalk
from jaxlirpa.verify.branching import Met, Search
from jaxlirpa.verify.cache import kept_on_disk
from jaxlirpa.verify.certificate import Certificate, check
from jaxlirpa.verify.counterexamples import confirmed, descend, random_members
from jaxlirpa.verify.instance import Instance, rounded
from jaxlirpa.verify.properties import Property, as_property
from jaxlirpa.verify.refine import Refinement
from jaxlirpa.verify.root import neurons_of
from jaxlirpa.verify.strategies import InputSplits, NeuronSplits, Strategy
from jaxlirpa.verify.tree import Forest
from jaxlirpa.verify.verdict import Progress, Statistics, Verdict

# Inputs are split if there are no more than so many.
_FEW_INPUTS = 20
# How many attacks there are at once, and how many steps each takes before and after the root.
_ATTACKS, _QUICK_STEPS, _ATTACK_STEPS = 32, 10, 40
# What a bound must exceed, relative to the margins' size on the whole set, in units of rounding.
_ROUNDING = 8
_RECHECKS = 4
_TOLD_EVERY = 0.1


def verify(
    fn: Callable[..., PyTree] | Property,
    *,
    time_limit: float = 60.0,
    memory_limit: float = 2.0,
    strategy: Strategy | None = None,
    progress: Callable[[Progress], None] | None = None,
    argnums: int | tuple[int, ...] | None = None,
) -> Callable[..., Verdict]:
    """Proves or refutes that all outputs of a function are positive on a set.

    Bounds like those of `jaxlirpa.crown` leave a gap between what they prove and what an attack
    refutes. Branch and bound closes it: where a bound does not suffice, the set is split in two,
    and each part is bounded on its own. The parts are halves of the inputs' box, or those where the
    operand of a neuron is on one side of a point or the other (Bunel et al. 2018). The bounds of
    such parts are CROWN's with optimised lines and Lagrange multipliers (beta-CROWN, Wang et al.
    2021; GenBaB, Shi et al. 2025), on the network condensed to its unstable neurons.

    A verdict is "proved" only after its certificate was checked in double precision, and "refuted"
    only for a point of the set at which the function was evaluated in double precision.

    What is compiled is kept on disk, see `cache_folder`, so that the next process starts quickly.

    Args:
        fn: function of pytrees of arrays, whose outputs are margins: real numbers that should be
            positive. It may depend on its inputs in any way that `jaxlirpa.crown` bounds. `all_of`,
            `any_of` and `any_output` combine functions to other properties.
        time_limit: in seconds; positive. What is compiled is finished first.
        memory_limit: of the open subproblems, in GiB; positive.
        strategy: `NeuronSplits(...)` or `InputSplits(...)`, or None: splits of the inputs if there
            are few.
        progress: is called with the state of the search, about ten times a second;
            `progress_bar()` shows it.
        argnums: the arguments that `eps` perturbs, as for `jaxlirpa.ibp`; default: the last one.

    Returns:
        A function that takes fn's arguments, see `jaxlirpa.ibp`, and returns a `Verdict`. It is not
        to be compiled or mapped. Hand over weights and specifications as arrays in its arguments:
        then one function serves all images and properties of a network, and is compiled once.
        Ctrl-C ends a search as the time limit does.

    Raises:
        ArgumentError: where an option or fn's arguments do not fit, or an output is no real number.
        Also what `jaxlirpa.ibp` raises.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from jaxlirpa import verify
        >>> fn = lambda x: 1.1 - jnp.abs(x[0]) + jnp.abs(x[1]) - jnp.abs(x[1] - x[0])
        >>> verify.verify(fn)(jnp.zeros(2), 0.5).status
        'proved'
        >>> found = verify.verify(fn)(jnp.zeros(2), 0.6)
        >>> (point,) = found.witness
        >>> print(found.status, fn(point) <= 0)
        refuted True
    """
    for name, limit in (("time_limit", time_limit), ("memory_limit", memory_limit)):
        if not (isinstance(limit, int | float) and limit > 0):
            raise ArgumentError(f"{name} must be a positive number, and not {limit!r}.")
    if not (strategy is None or isinstance(strategy, NeuronSplits | InputSplits)):
        raise ArgumentError(f"strategy must be NeuronSplits(...) or InputSplits(...): {strategy!r}")
    prop = as_property(fn)
    options = _Options(time_limit, memory_limit, strategy, progress)

    def verified(*args: Any, **named: Any) -> Verdict:
        call = arguments(prop.functions[0], args, argnums, named)
        if any(map(is_traced, jax.tree.leaves((call.leaves, call.sets)))):
            raise ArgumentError(
                "verify searches outside of JAX, and cannot be called inside jit, vmap or grad. "
                "verify.branch_and_bound can."
            )
        with kept_on_disk():
            return _Run(Instance.of(prop, call), options).verdict()

    return verified


@dataclasses.dataclass(frozen=True)
class _Options:
    time_limit: float
    memory_limit: float
    strategy: Strategy | None
    progress: Callable[[Progress], None] | None


class _Run:
    """One verification."""

    def __init__(self, instance: Instance, options: _Options):
        self.instance, self.options = instance, options
        self.began = self.told = time.perf_counter()
        self.seconds = {"root": 0.0, "attack": 0.0, "search": 0.0, "recheck": 0.0}
        self.search: Search | None = None
        self.neurons = np.zeros((2, 0), np.int32)
        self.refinements: list[Refinement] = []
        self.is_refined = False
        self.sharpened: int | None = None
        self.walked = False
        self.bounds = dict.fromkeys(range(len(instance.clauses)), -np.inf)

    def verdict(self) -> Verdict:
        """What is found out in the time."""
        try:
            return self._decided()
        except KeyboardInterrupt:
            return self._verdict("undecided", "interrupted")

    def _decided(self) -> Verdict:
        clauses = self.instance.clauses
        with self._phase("attack"):
            witness = self._attacked(range(len(clauses)), _QUICK_STEPS)
        if witness is not None:
            return self._verdict("refuted", witness=witness)
        with self._phase("root"):
            self.bounds.update(enumerate(self.instance.root.lower(clauses)))
            left = self.instance.left
        if left:
            with self._phase("attack"):
                witness = self._attacked(left, _ATTACK_STEPS)
            if witness is not None:
                return self._verdict("refuted", witness=witness)
            with self._phase("search"):
                missing = self._prepared(left)
            if missing:
                return self._verdict("undecided", missing)
            found = self._searched()
            if found is not None:
                return found
        return self._rechecked()

    # ---- the search -------------------------------------------------------------------------

    def _prepared(self, left: Sequence[int]) -> str:
        """Makes the search of the clauses that are left; or says why there is none."""
        instance, sets = self.instance, self.instance.values.sets
        boxes = all(own.is_box for own in sets)
        strategy, few = self.options.strategy, inputs.size(sets) <= _FEW_INPUTS
        self.walked = instance.root.layers is None
        if strategy is None:
            strategy = InputSplits() if boxes and (few or self.walked) else NeuronSplits()
        if self.walked and isinstance(strategy, NeuronSplits):
            return "functions of several values can be split by inputs in boxes only"
        limits = None
        if isinstance(strategy, InputSplits):
            if not boxes:
                return "inputs can be split in boxes only (Box, LpBall of ord inf)"
            limits = np.stack(inputs.limits(sets))
            if not np.all(np.isfinite(limits)):
                return "the set of inputs is not bounded"
            self.sharpened = strategy.sharpened
        bounder: Bounder = ByWalk(instance)
        if not self.walked:
            keys = [key for key, _ in neurons_of(instance.unstable)]
            self.neurons = np.array(keys, np.int32).reshape(-1, 2).T
            bounder = ByCondensed(rounded(instance.net), strategy)
        clauses = {i: instance.rows[i] for i in left}
        least = _ROUNDING * float(jnp.finfo(bounder.dtype).eps) * instance.root.size
        self.search = Search(bounder, clauses, strategy, limits, least)
        return ""

    def _searched(self) -> Verdict | None:
        """Searches until all clauses are proved; or a verdict that ends everything before."""
        search = self.search
        assert search is not None
        if not search.bounded:
            witness = self._stepped(search.begin)
            if witness is not None:
                return self._verdict("refuted", witness=witness)
        while search.heap:
            if self._is_late():
                return self._verdict("undecided", "the time is up")
            if search.bytes > self.options.memory_limit * 2**30:
                return self._verdict("undecided", "the memory is used up")
            better = self._refined(search)
            witness = self._stepped(search.step if better is search else better.begin)
            search = better
            if witness is not None:
                return self._verdict("refuted", witness=witness)
            self._tell(search)
        if search.stuck:
            return self._verdict("undecided", "there is nothing left to split")
        return None

    def _stepped(self, step: Callable[[], Met]) -> Any:
        """Makes a step of the search; returns a counter-example, if it came by one."""
        with self._phase("search"):
            met = step()
        with self._phase("attack"):
            return self._tried(met)

    def _refined(self, search: Search) -> Search:
        """The search anew, with better boxes of the neurons, if that is worthwhile."""
        bounder, strategy = search.bounder, search.strategy
        if not (isinstance(bounder, ByCondensed) and isinstance(strategy, NeuronSplits)):
            return search
        if self.is_refined or search.bounded < strategy.refine_after:
            return search
        if not strategy.refine_steps or bounder.behind > strategy.refined:
            return search
        self.is_refined = True
        with self._phase("search"):
            net, self.refinements = bounder.refined(search.batch, self.instance.rows.shape[1])
            better = ByCondensed(net, strategy)
            self.search = Search(better, search.clauses, strategy, None, search.least)
            self.search.bounded = search.bounded
        return self.search

    # ---- attacks ----------------------------------------------------------------------------

    def _attacked(self, clauses: Sequence[int], steps: int) -> Any:
        """A counter-example to one of some clauses, from random members of the set."""
        start = random_members(self.instance.values.sets, _ATTACKS, np.random.default_rng(steps))
        return self._descended(start, np.resize(np.asarray(clauses), _ATTACKS), steps)

    def _tried(self, met: Met) -> Any:
        """A counter-example among the points that a search came by."""
        for at in range(0, len(met.points), _ATTACKS):
            points, clauses = (np.asarray(x[at : at + _ATTACKS]) for x in met)
            full = np.resize(points, (_ATTACKS, points.shape[1]))
            found = self._descended(jnp.asarray(full), np.resize(clauses, _ATTACKS), 0)
            if found is not None:
                return found
        return None

    def _descended(self, start: Array, aim: NDArray[Any], steps: int) -> Any:
        own, aims = self.instance, jnp.asarray(aim, jnp.int32)
        call = own.prop, own.frame, own.values, jnp.asarray(own.rows)
        x, least = descend(*call, start, aims, jnp.int32(steps))
        margins = np.asarray(least)
        best = int(np.argmin(np.where(np.isnan(margins), np.inf, margins)))
        if not margins[best] <= 0:
            return None
        return confirmed(own, own.clauses[int(aim[best])], x[best])

    # ---- verdicts ---------------------------------------------------------------------------

    def _rechecked(self) -> Verdict:
        """Says that the property is proved, after what proves it was checked."""
        for _ in range(_RECHECKS):
            with self._phase("recheck"):
                certificate = self._certificate()
                found = check(self.instance, certificate)
            if found.holds:
                verdict = self._verdict("proved")
                return dataclasses.replace(verdict, lower=found.lower, certificate=certificate)
            if found.missing or self.search is None:
                break
            with self._phase("search"):
                self.search.reopen(found.failed, 10 * self.search.least)
            ended = self._searched()
            if ended is not None:
                return ended
        return self._verdict("undecided", "double precision does not confirm the bounds")

    def _certificate(self) -> Certificate:
        search = self.search
        if search is None:
            return Certificate(Forest([]), {}, self.neurons)
        about = self.refinements, self.sharpened, self.walked
        return Certificate(search.forest, search.leaves, self.neurons, *about)

    def _verdict(self, status: Any, reason: str = "", witness: Any = None) -> Verdict:
        search, bounds = self.search, dict(self.bounds)
        if search is not None:
            bounds.update({i: max(bounds[i], own) for i, own in search.lower.items()})
        statistics = Statistics(
            dict(self.seconds),
            subproblems=search.bounded if search else 0,
            open=search.open if search else 0,
            neurons=int(np.sum(self.neurons[0] >= 0)),
        )
        return Verdict(status, min(bounds.values()), witness, None, statistics, reason)

    # ---- time -------------------------------------------------------------------------------

    def _is_late(self) -> bool:
        return time.perf_counter() - self.began > self.options.time_limit

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start

    def _tell(self, search: Search) -> None:
        now = time.perf_counter()
        if self.options.progress is not None and now - self.told > _TOLD_EVERY:
            self.told = now
            state = now - self.began, search.bounded, search.open, search.worst
            self.options.progress(Progress(*state))
