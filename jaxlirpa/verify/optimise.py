"""The bounds of subproblems, as good as gradient steps make them."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxlirpa._arrays import where
from jaxlirpa._types import Array
from jaxlirpa.verify.condensed import (
    Bounded,
    Candidates,
    Condensed,
    Parameters,
    Subproblems,
    bound,
    candidates,
)


class Optimised(NamedTuple):
    """The best bound of each subproblem that was met.

    Attributes:
        found: it, with where it is attained.
        parameters: those that gave it.
        candidates: where to split.
    """

    found: Bounded
    parameters: Parameters
    candidates: Candidates


@dataclasses.dataclass(frozen=True)
class Ascent:
    """Adam on alphas and multipliers at once, each with a rate of its own.

    Attributes:
        alpha_rate, mu_rate: the first step sizes.
        decay: of both, a step.
    """

    alpha_rate: float = 0.1
    mu_rate: float = 0.05
    decay: float = 0.97

    def optimizer(self) -> optax.GradientTransformation:
        """The optimiser of `Parameters`."""
        rates = (self.alpha_rate, self.mu_rate)
        own = [optax.adam(optax.exponential_decay(rate, 1, self.decay)) for rate in rates]
        labels: Any = Parameters._make(Parameters._fields)
        return optax.multi_transform(dict(zip(labels, own, strict=True)), labels)


class _State(NamedTuple):
    step: Array
    parameters: Parameters
    optimizer: Any
    best: Bounded
    kept: Parameters
    z: Array


@functools.partial(jax.jit, static_argnames=("ascent", "count"))
def optimise(
    net: Condensed,
    sub: Subproblems,
    start: Parameters,
    free: Array,
    open_: Array,
    steps: Array,
    *,
    ascent: Ascent,
    count: int,
) -> Optimised:
    """Bounds of a batch of subproblems by gradient steps, the best of which are kept.

    Args:
        net: the network.
        sub: the subproblems.
        start: the first parameters.
        free: which neurons have multipliers, `[batch, neurons]`: those that were split.
        open_: which subproblems matter, `[batch]`; the search ends when they are all positive.
        steps: how many parameters are tried at most; at least one is.
        ascent: how to go from one to the next.
        count: how many splits are proposed.
    """
    zero, family = jnp.zeros_like(start.mu), net.family(sub.box)
    optimizer = ascent.optimizer()

    def total(alpha: Array, extra: Array, mu: Array) -> tuple[Array, Bounded]:
        found = bound(net, sub, family, Parameters(alpha, mu), extra)
        return jnp.sum(where(jnp.isfinite(found.lower), found.lower, 0)), found

    def step(state: _State) -> _State:
        alpha, mu = state.parameters
        (_, found), (by_alpha, z) = jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(
            alpha, zero, mu
        )
        better = found.lower > state.best.lower
        best = jax.tree.map(functools.partial(_choose, better), found, state.best)
        kept = Parameters(
            where(better[None, :, None], alpha, state.kept.alpha),
            where(better[:, None], mu, state.kept.mu),
        )
        slopes = jax.tree.map(
            lambda x: where(jnp.isfinite(x), -x, 0),
            Parameters(by_alpha, where(free, _by_multiplier(mu, z, sub), 0)),
        )
        updates, optimizer_state = optimizer.update(slopes, state.optimizer)
        moved = optax.apply_updates(state.parameters, updates)
        assert isinstance(moved, Parameters)
        # A multiplier stops at zero, where the derivative jumps.
        through = moved.mu * mu < 0
        following = Parameters(jnp.clip(moved.alpha, 0, 1), where(through, 0, moved.mu))
        at = where(better[:, None], z, state.z)
        return _State(state.step + 1, following, optimizer_state, best, kept, at)

    def unfinished(state: _State) -> Array:
        undecided = jnp.any(open_ & ~(state.best.lower > 0))
        return (state.step < 1) | ((state.step < steps) & undecided)

    shapes = jax.eval_shape(lambda: total(start.alpha, zero, start.mu)[1])
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    worst = nothing._replace(lower=jnp.full_like(nothing.lower, -jnp.inf))
    first = _State(jnp.int32(0), start, optimizer.init(start), worst, start, zero)
    last = jax.lax.while_loop(unfinished, step, first)
    lines = family.at(last.kept.alpha)
    found = candidates(net, sub, lines, last.best.coefficients, last.z, count)
    return Optimised(last.best, last.kept, found)


def _by_multiplier(mu: Array, z: Array, sub: Subproblems) -> Array:
    """The derivative by multipliers of `mu z - max(mu l, mu u)`; at zero the one that leads on."""
    lower, upper = z - sub.box.lower, z - sub.box.upper
    at_zero = jnp.minimum(lower, 0) + jnp.maximum(upper, 0)
    return where(mu > 0, upper, where(mu < 0, lower, at_zero))


def _choose(better: Array, new: Array, old: Array) -> Array:
    return where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)
