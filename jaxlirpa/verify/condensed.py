"""A network condensed to its unstable neurons, and bounds of it in subproblems.

On a box most neurons are affine. With the others' operands called `z` and their values `f(z)`, all
operands and all rows of the specification are affine functions of the inputs and of earlier values:

    z = A (x - c) + T f(z) + b,    T strictly lower triangular by blocks.

A bound of such a program is one pass from the last block to the first, whatever the architecture.
A subproblem restricts the boxes of some `z` (splits); its bound is CROWN's with two kinds of
parameters: alphas, which choose the lines, and Lagrange multipliers `mu` of the boxes. For any real
`mu` and any `z` in a box `[l, u]`,

    f(x) >= f(x) + mu z - max(mu l, mu u),

which for relus that are split at zero is beta-CROWN (Wang et al. 2021), and for other functions and
points GenBaB (Shi et al. 2025).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxlirpa._arrays import where
from jaxlirpa._intervals import Interval, intersect, vacuous_where_nan
from jaxlirpa._minmax import maximum, minimum
from jaxlirpa._relax.lines import Lines
from jaxlirpa._types import Array
from jaxlirpa.sets import ArraySet
from jaxlirpa.verify import inputs
from jaxlirpa.verify.kinds import Family, Kind

_PRECISION = jax.lax.Precision.HIGHEST


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Block:
    """Neurons that are computed together.

    Attributes:
        kind: what they compute.
        size: how many there are, with those that only fill up the block.
    """

    kind: Kind
    size: int


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Condensed:
    """A network on a set of inputs, condensed to its unstable neurons.

    Rows are those of the specification, `rows` of them, and then the operands of all neurons.

    Attributes:
        sets: of the inputs.
        inputs: coefficients on the deviations of the inputs, flattened, from their sets' points:
            `[rows + neurons, n]`.
        neurons: coefficients on the neurons' values, `[rows + neurons, neurons]`.
        offset: limits of what is added, `[rows + neurons]` each.
        known: the known operands of the neurons' functions, by block.
        box: limits of the neurons' operands on the whole set, `[neurons]` each.
        blocks: of neurons, in order of computation.
    """

    sets: tuple[ArraySet, ...]
    inputs: Array
    neurons: Array
    offset: Interval
    known: tuple[tuple[Array, ...], ...]
    box: Interval
    blocks: tuple[Block, ...]

    @property
    def rows(self) -> int:
        """How many rows the specification has."""
        return self.inputs.shape[0] - self.neurons.shape[1]

    @property
    def sides(self) -> int:
        """How many alphas a neuron has."""
        return max((block.kind.sides for block in self.blocks), default=1)

    @property
    def slices(self) -> list[slice]:
        """Where the blocks are among the neurons."""
        found, at = [], 0
        for block in self.blocks:
            found.append(slice(at, at + block.size))
            at += block.size
        return found

    def family(self, box: Interval) -> Family:
        """The lines of all neurons, on boxes `[..., neurons]` of their operands.

        The parameters are `[sides, ..., neurons]`.
        """
        families, slices = [], []
        for block, k, known in self.groups():
            own = Interval(*(limit[..., k] for limit in box))
            families.append(block.kind.family(known, own))
            slices.append(k)
        nothing = jnp.zeros((self.sides, *box.lower.shape[:-1], 0), box.lower.dtype)
        starts = [
            jnp.broadcast_to(own.start, (self.sides, *own.start.shape[1:])) for own in families
        ]

        def at(alpha: Array) -> Lines:
            parts = [own.at(alpha[..., k]) for own, k in zip(families, slices, strict=True)]
            empty = Lines(*[nothing[0]] * 4)
            return jax.tree.map(lambda *x: jnp.concatenate(x, -1), *parts, empty)

        return Family(jnp.concatenate([*starts, nothing], -1), at)

    def groups(self) -> list[tuple[Block, slice, tuple[Array, ...]]]:
        """The blocks, with their places and what they know; those alike and adjacent as one."""
        found: list[tuple[Block, slice, tuple[Array, ...]]] = []
        for block, k, known in zip(self.blocks, self.slices, self.known, strict=True):
            if found and not known and not found[-1][2] and found[-1][0].kind == block.kind:
                before, at, _ = found.pop()
                found.append(
                    (Block(block.kind, before.size + block.size), slice(at.start, k.stop), ())
                )
            else:
                found.append((block, k, known))
        return found

    def splittable(self, box: Interval) -> Array:
        """Which neurons can be split, on boxes `[..., neurons]` of their operands."""
        found = []
        for block, k, known in self.groups():
            own = Interval(*(limit[..., k] for limit in box))
            _, possible = block.kind.split(known, own, 0.5 * own.lower + 0.5 * own.upper)
            found.append(possible)
        return jnp.concatenate([*found, jnp.zeros((*box.lower.shape[:-1], 0), bool)], -1)


class Subproblems(NamedTuple):
    """A batch of subproblems: of a clause each, on a part of the set.

    Attributes:
        rows: the rows of the clause, `[batch, alternatives]`; it holds where one of them is
            positive, and repeats a row where it has fewer alternatives.
        signs: 1, or -1 for the negated row, `[batch, alternatives]`.
        box: limits of the neurons' operands, `[batch, neurons]` each.
        inputs: limits of the deviations of the inputs, `[batch, n]` each; None for all of the sets.
    """

    rows: Array
    signs: Array
    box: Interval
    inputs: Interval | None = None


class Parameters(NamedTuple):
    """What a bound may be chosen by; any are sound.

    Attributes:
        alpha: between 0 and 1, `[sides, batch, neurons]`.
        mu: Lagrange multipliers, `[batch, neurons]`.
    """

    alpha: Array
    mu: Array


class Bounded(NamedTuple):
    """Lower bounds, and what they say about where to go on.

    Attributes:
        lower: of the best alternative, `[batch]`.
        x: the deviation of the inputs at which it is attained, `[batch, n]`.
        coefficients: on the neurons' values, `[batch, neurons]`.
        sizes: of the coefficients on the deviations of the inputs, summed over the alternatives,
            `[batch, n]`. Inputs that matter to one alternative alone must be split as well.
    """

    lower: Array
    x: Array
    coefficients: Array
    sizes: Array


def bound(
    net: Condensed,
    sub: Subproblems,
    family: Family,
    parameters: Parameters,
    extra: Array | None = None,
) -> Bounded:
    """Lower bounds of every subproblem.

    Args:
        net: the network.
        sub: the subproblems.
        family: the lines on their boxes.
        parameters: what the lines and the multipliers are.
        extra: linear terms of the neurons' operands that are added, `[batch, neurons]`; the
            derivative of the bound by them is the operands at the bound's minimiser.
    """
    lines = family.at(parameters.alpha)
    lower, slopes, coefficients = _all_rows(net, sub, lines, parameters.mu, extra)
    if sub.inputs is None:
        x = inputs.minimisers(net.sets, slopes.reshape(-1, slopes.shape[-1]))
        x = x.reshape(slopes.shape)
    else:
        x = where(slopes >= 0, sub.inputs.lower[:, None], sub.inputs.upper[:, None])
    if lower.shape[1] == 1:
        return Bounded(lower[:, 0], x[:, 0], coefficients[:, 0], jnp.abs(slopes[:, 0]))
    best = jnp.argmax(lower, 1)

    def chosen(a: Array) -> Array:
        return jnp.take_along_axis(a, best[:, None, None], 1)[:, 0]

    own = jnp.take_along_axis(lower, best[:, None], 1)[:, 0]
    return Bounded(own, chosen(x), chosen(coefficients), jnp.sum(jnp.abs(slopes), 1))


def _propagate(
    net: Condensed, sub: Subproblems, lines: Lines, tilt: Array
) -> tuple[Array, Array, Array]:
    """Every alternative as an affine function of the inputs alone.

    Returns:
        Coefficients `[batch, alternatives, n]`, offsets `[batch, alternatives]`, and the
        coefficients on all neurons' values, `[batch, alternatives, neurons]`.
    """
    signs = sub.signs[..., None]
    base = signs * net.neurons[sub.rows]
    offset = where(sub.signs > 0, net.offset.lower[sub.rows], -net.offset.upper[sub.rows])
    own = net.neurons[net.rows :]
    weights: Array | None = None
    values: list[Array] = []
    for k in reversed(net.slices):
        value = base[..., k]
        if weights is not None:
            value = value + _product(weights, own[k.stop :, k])
        up, down = maximum(value, 0), minimum(value, 0)
        low, low_offset, high, high_offset = (x[:, None, k] for x in lines)
        offset = offset + jnp.sum(up * low_offset + down * high_offset, -1)
        on = up * low + down * high + tilt[:, None, k]
        weights = on if weights is None else jnp.concatenate([on, weights], -1)
        values.insert(0, value)
    slopes = signs * net.inputs[sub.rows]
    if weights is None:
        return slopes, offset, base
    slopes = slopes + _product(weights, net.inputs[net.rows :])
    low, high = (limit[net.rows :] for limit in net.offset)
    offset = offset + jnp.sum(maximum(weights, 0) * low + minimum(weights, 0) * high, -1)
    return slopes, offset, jnp.concatenate(values, -1)


def _product(a: Array, b: Array) -> Array:
    """The rows of a stack of matrices times a matrix."""
    flat = a.reshape(-1, a.shape[-1])
    return jnp.matmul(flat, b, precision=_PRECISION).reshape(*a.shape[:-1], b.shape[-1])


@functools.partial(jax.jit, static_argnames="most")
def sharpen(net: Condensed, sub: Subproblems, most: int) -> Interval:
    """Better boxes of the neurons' operands in parts of the set of inputs.

    First all operands are bounded by intervals. Then the lines are those of these boxes, so that
    operands of all blocks are bounded in one pass: of each block and subproblem those whose lines
    leave the largest gaps.

    Args:
        net: the network.
        sub: the subproblems, with limits of the inputs.
        most: how many operands of each block are bounded.
    """
    batch = len(sub.box.lower)
    sub = sub._replace(box=_by_intervals(net, sub))
    if not net.blocks:
        return sub.box
    family = net.family(sub.box)
    lines = family.at(family.start)
    gaps = _gaps(lines, sub.box)
    chosen = jnp.concatenate(
        [k.start + jax.lax.top_k(gaps[:, k], min(most, k.stop - k.start))[1] for k in net.slices], 1
    )
    count = chosen.shape[1]
    rows = jnp.concatenate([chosen, chosen], 1) + net.rows
    one = jnp.ones((batch, count), sub.box.lower.dtype)
    both = sub._replace(rows=rows, signs=jnp.concatenate([one, -one], 1))
    found, _, _ = _all_rows(net, both, lines, jnp.zeros_like(sub.box.lower))
    low, high = found[:, :count], -found[:, count:]
    put = jax.vmap(lambda limit, at, new: limit.at[at].max(new))
    lower, upper = put(sub.box.lower, chosen, low), -put(-sub.box.upper, chosen, -high)
    # Where rounding makes them miss each other, the gap is kept.
    return Interval(minimum(lower, upper), maximum(lower, upper))


def _by_intervals(net: Condensed, sub: Subproblems) -> Interval:
    """The operands' boxes inside the given ones, by intervals from the inputs onwards."""
    assert sub.inputs is not None
    on_inputs, neurons = (x[net.rows :] for x in (net.inputs, net.neurons))
    middle, radius = _middle(sub.inputs)
    lower, upper = (limit[net.rows :] for limit in net.offset)
    spread = _product(radius, jnp.abs(on_inputs).T)
    centre = _product(middle, on_inputs.T)
    below, above = centre - spread + lower, centre + spread + upper
    boxes: list[Interval] = []
    images: list[Interval] = []
    for block, k, known in zip(net.blocks, net.slices, net.known, strict=True):
        low, high = below[:, k], above[:, k]
        if images:
            before = Interval(*(jnp.concatenate(side, -1) for side in zip(*images, strict=True)))
            middle, radius = _middle(before)
            centre = _product(middle, neurons[k, : k.start].T)
            spread = _product(radius, jnp.abs(neurons[k, : k.start]).T)
            low, high = low + centre - spread, high + centre + spread
        old = Interval(*(limit[:, k] for limit in sub.box))
        box = intersect(old, vacuous_where_nan(Interval(low, high)))
        boxes.append(box)
        images.append(block.kind.image(known, box))
    if not boxes:
        return sub.box
    return Interval(*(jnp.concatenate(side, -1) for side in zip(*boxes, strict=True)))


def _middle(box: Interval) -> tuple[Array, Array]:
    """The middle and the radius of a box."""
    return 0.5 * box.lower + 0.5 * box.upper, 0.5 * box.upper - 0.5 * box.lower


@jax.jit
def bounds_at(net: Condensed, sub: Subproblems, parameters: Parameters) -> Array:
    """Lower bounds of subproblems by given parameters, the best of their alternatives'."""
    lines = net.family(sub.box).at(parameters.alpha)
    return jnp.max(_all_rows(net, sub, lines, parameters.mu)[0], 1)


@jax.jit
def starts(net: Condensed, box: Interval) -> Array:
    """CROWN's alphas on boxes of the neurons' operands."""
    return net.family(box).start


def _all_rows(
    net: Condensed, sub: Subproblems, lines: Lines, mu: Array, extra: Array | None = None
) -> tuple[Array, Array, Array]:
    """Lower bounds of all alternatives, `[batch, alternatives]`.

    Returns:
        The bounds; the coefficients on the inputs' deviations, `[batch, alternatives, n]`, and on
        the neurons' values, `[batch, alternatives, neurons]`.
    """
    tilt = mu if extra is None else mu + extra
    slopes, offset, coefficients = _propagate(net, sub, lines, tilt)
    paid = jnp.sum(mu * where(mu > 0, sub.box.upper, sub.box.lower), -1)
    if sub.inputs is None:
        rows = slopes.reshape(-1, slopes.shape[-1])
        least = inputs.minima(net.sets, rows).reshape(offset.shape)
    else:
        ends = where(slopes >= 0, sub.inputs.lower[:, None], sub.inputs.upper[:, None])
        least = jnp.einsum("bqn,bqn->bq", slopes, ends, precision=_PRECISION)
    lower = offset - paid[:, None] + least
    return where(jnp.isnan(lower), -jnp.inf, lower), slopes, coefficients


def _gaps(lines: Lines, box: Interval) -> Array:
    """How far the lines of each neuron are apart in the middle of its box, `[batch, neurons]`."""
    middle = 0.5 * box.lower + 0.5 * box.upper
    gap = (lines.upper_slope - lines.lower_slope) * middle
    gap = gap + lines.upper_offset - lines.lower_offset
    return where(jnp.isfinite(gap), gap, 0)


class Candidates(NamedTuple):
    """Splits that promise most: of which neuron, where, and how much, `[batch, count]` each."""

    neuron: Array
    point: Array
    gap: Array


def candidates(
    net: Condensed, sub: Subproblems, lines: Lines, coefficients: Array, z: Array, count: int
) -> Candidates:
    """The neurons whose lines are worst where the bound is attained.

    The gap of a neuron is its coefficient times the distance of its line from its function, at the
    operand of the bound's minimiser: what the bound would gain if the function were exact there.
    """
    z = minimum(maximum(z, sub.box.lower), sub.box.upper)
    gaps, points = [], []
    for block, k, known in net.groups():
        low, low_offset, high, high_offset = (x[:, k] for x in lines)
        at, on = z[:, k], coefficients[:, k]
        value = block.kind.apply(known, at)
        above, below = high * at + high_offset - value, value - low * at - low_offset
        gap = maximum(on, 0) * below - minimum(on, 0) * above
        box = Interval(*(limit[:, k] for limit in sub.box))
        point, possible = block.kind.split(known, box, at)
        gaps.append(where(possible & jnp.isfinite(gap), maximum(gap, 0), -1))
        points.append(point)
    none = z[:, :0]
    gap, which = jax.lax.top_k(jnp.concatenate([*gaps, none], -1), count)
    point = jnp.take_along_axis(jnp.concatenate([*points, none], -1), which, 1)
    return Candidates(which, point, gap)
