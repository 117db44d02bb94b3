"""Condensed networks: the same functions, and bounds of their parts that hold."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arithmetic import call, jit
from verify.networks import ACTIVATIONS, network, weights

from jaxlirpa import Box, LpBall
from jaxlirpa._intervals import Interval
from jaxlirpa._methods.arguments import arguments
from jaxlirpa.verify.call import parted
from jaxlirpa.verify.condensed import (
    Condensed,
    Parameters,
    Subproblems,
    bound,
    bounds_at,
    sharpen,
)
from jaxlirpa.verify.condensing import Entries
from jaxlirpa.verify.kinds import Relu
from jaxlirpa.verify.properties import as_property
from jaxlirpa.verify.root import Root, condense, root_bounds
from jaxlirpa.verify.tree import Part, Split

X = np.array([0.3, -0.2, 0.5])
SHIFT = jnp.zeros(2)


@functools.cache
def condensed(name: str, ball: bool = False, filled: int = 2) -> tuple[Condensed, Any, Root]:
    """A condensed network, the function, and what is known of it on the set."""
    fn, params = network(ACTIVATIONS[name]), weights((3, 6, 6, 2), 3)
    own = (
        LpBall(jnp.asarray(X), 0.7, ord=2)
        if ball
        else Box(jnp.asarray(X - 0.6), jnp.asarray(X + 0.6))
    )
    frame, values = parted(arguments(fn, (params, SHIFT, own), None))
    prop = as_property(fn)
    root = jit(lambda values: root_bounds(prop, frame.call(values)))(values)
    assert root.layers is not None
    chosen = [np.flatnonzero(np.asarray(mask)) for mask in root.unstable]
    entries = [
        Entries(
            jnp.asarray(np.pad(at, (0, filled)), jnp.int32), jnp.arange(len(at) + filled) < len(at)
        )
        for at in chosen
    ]
    indices = tuple(range(len(entries)))
    net = jit(lambda v, b: condense(prop, frame.call(v), indices, b, entries))(values, root.boxes)
    net = jax.tree.map(jnp.asarray, net)
    return net, functools.partial(fn, params, SHIFT), root


def evaluated(net: Condensed, deviations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The margins `[count, rows]` and the operands `[count, neurons]` at some deviations."""
    rows, inputs = net.rows, np.asarray(net.inputs)
    neurons, offset = np.asarray(net.neurons), np.asarray(net.offset.lower)
    everything = deviations @ inputs.T + offset
    values = np.zeros((len(deviations), neurons.shape[1]))
    for block, k, known in zip(net.blocks, net.slices, net.known, strict=True):
        z = everything[:, rows:][:, k] + values @ neurons[rows:][k].T
        everything[:, rows:][:, k] = z
        values[:, k] = np.asarray(
            call(lambda z, block=block, known=known: block.kind.apply(known, z), z)
        )
    margins = everything[:, :rows] + values @ neurons[:rows].T
    return margins, everything[:, rows:]


def members(net: Condensed, count: int, seed: int = 0) -> np.ndarray:
    """Deviations of members of the set."""
    rng = np.random.default_rng(seed)
    (own,) = net.sets
    d = rng.uniform(-1, 1, (count, 3)) * 0.6
    return d if own.is_box else d / np.maximum(1, np.linalg.norm(d, axis=1) / 0.7)[:, None]


KINDS = pytest.mark.parametrize("name", ACTIVATIONS)


@KINDS
def test_a_condensed_network_is_the_network(name: str) -> None:
    net, fn, _ = condensed(name)
    d = members(net, 200)
    margins, operands = evaluated(net, d)
    truth = call(jax.vmap(fn), jnp.asarray(X + d))
    np.testing.assert_allclose(margins, truth, rtol=1e-9, atol=1e-9)
    low, up = map(np.asarray, net.box)
    assert np.all((low - 1e-9 <= operands) & (operands <= up + 1e-9))


def test_only_unstable_relus_are_neurons() -> None:
    net, _, root = condensed("relu", filled=0)
    assert net.neurons.shape[1] == sum(int(np.sum(mask)) for mask in root.unstable) < 12
    assert {block.kind for block in net.blocks} == {Relu()}


def parts(net: Condensed, count: int, seed: int) -> tuple[Subproblems, Parameters, np.ndarray]:
    """Random parts of the neurons' boxes, each with a member inside, and random parameters."""
    rng = np.random.default_rng(seed)
    d = members(net, count, seed)
    _, z = evaluated(net, d)
    low, up = (np.broadcast_to(np.asarray(x), z.shape).copy() for x in net.box)
    share = rng.uniform(0, 1, z.shape) * (rng.uniform(size=z.shape) < 0.4)
    low += (np.clip(z, low, up) - low) * share
    up -= (up - np.clip(z, low, up)) * share
    mu = rng.normal(size=z.shape) * (rng.uniform(size=z.shape) < 0.5)
    alpha = rng.uniform(size=(net.sides, *z.shape))
    rows = rng.integers(0, net.rows, (count, 1)).astype(np.int32)
    sub = Subproblems(
        jnp.asarray(rows), jnp.ones(rows.shape), Interval(jnp.asarray(low), jnp.asarray(up))
    )
    return sub, Parameters(jnp.asarray(alpha), jnp.asarray(mu)), d


@KINDS
@pytest.mark.parametrize("ball", [False, True])
def test_bounds_of_parts_hold_whatever_the_parameters(name: str, ball: bool) -> None:
    """For any alphas and multipliers, at every member that is in the part."""
    net, _, _ = condensed(name, ball)
    sub, parameters, d = parts(net, 40, 1)
    lower = jit(lambda s, p: bound(net, s, net.family(s.box), p).lower)(sub, parameters)
    again = jit(lambda s, p: bounds_at(net, s, p))(sub, parameters)
    np.testing.assert_allclose(lower, again, rtol=1e-9)
    everywhere = np.concatenate([d, members(net, 2000, 2)])
    margins, z = evaluated(net, everywhere)
    low, up = map(np.asarray, sub.box)
    for i, row in enumerate(np.asarray(sub.rows)[:, 0]):
        inside = np.all((low[i] - 1e-12 <= z) & (z <= up[i] + 1e-12), 1)
        assert inside[i]
        assert np.all(margins[inside, row] >= lower[i] - 1e-9)
    assert np.all(np.isfinite(lower))


def test_a_bound_is_attained_where_it_is_said_to_be() -> None:
    """Of a network without unstable neurons it is the margin itself."""
    net, _, _ = condensed("relu")
    d = members(net, 4, 5)
    _, z = evaluated(net, d)
    box = Interval(jnp.asarray(z), jnp.asarray(z))
    limits = Interval(jnp.asarray(d), jnp.asarray(d))
    rows = jnp.zeros((4, 1), jnp.int32)
    sub = Subproblems(rows, jnp.ones((4, 1)), box, limits)
    zero = jnp.zeros(z.shape)
    found = jit(lambda s: bound(net, s, net.family(s.box), Parameters(zero[None], zero)))(sub)
    np.testing.assert_allclose(found.x, d)
    margins, _ = evaluated(net, d)
    np.testing.assert_allclose(found.lower, margins[:, 0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["relu", "tanh"])
def test_sharpened_boxes_hold(name: str) -> None:
    """In parts of the inputs' box, and they are better than the whole set's."""
    net, _, _ = condensed(name)
    rng = np.random.default_rng(0)
    low = rng.uniform(-0.6, 0.4, (6, 3))
    limits = Interval(jnp.asarray(low), jnp.asarray(low + 0.2))
    box = Interval(*(jnp.broadcast_to(x, (6, len(x))) for x in net.box))
    rows = jnp.zeros((6, 1), jnp.int32)
    sub = Subproblems(rows, jnp.ones((6, 1)), box, limits)
    found = jit(lambda s: sharpen(net, s, 8))(sub)
    narrower = 0.0
    for i in range(6):
        _, z = evaluated(net, low[i] + 0.2 * rng.uniform(size=(500, 3)))
        assert np.all((np.asarray(found.lower[i]) - 1e-9 <= z) & (z <= found.upper[i] + 1e-9))
        narrower += float(np.sum(np.asarray(box.upper - box.lower - found.upper + found.lower)[i]))
    assert narrower > 1


@KINDS
def test_lines_enclose_the_functions(name: str) -> None:
    """At any parameters, on parts of the boxes."""
    net, _, _ = condensed(name)
    sub, parameters, _ = parts(net, 30, 3)
    lines = jit(lambda box, alpha: net.family(box).at(alpha))(sub.box, parameters.alpha)
    low, up = map(np.asarray, sub.box)
    for share in np.linspace(0, 1, 21):
        z = low + share * (up - low)
        for block, k, known in zip(net.blocks, net.slices, net.known, strict=True):
            own = z[:, k]
            f = np.asarray(
                call(lambda z, block=block, known=known: block.kind.apply(known, z), own)
            )
            below, offset, above, offset_ = (np.asarray(x)[:, k] for x in lines)
            assert np.all(below * own + offset <= f + 1e-9)
            assert np.all(f <= above * own + offset_ + 1e-9)


def test_halves_cover_the_whole() -> None:
    """Whatever is in a part is in one of its halves, and the halves are inside of it."""
    low, up = np.array([-1.0, -0.5, 0.2]), np.array([1.0, 0.5, 0.4])
    limits = np.array([[-1.0, -2.0], [1.0, 0.5]])
    whole = Part(0, 0, low, up, limits, low[None], low, -np.inf, ())
    rng = np.random.default_rng(0)
    z, d = rng.uniform(low, up, (500, 3)), rng.uniform(*limits, (500, 2))
    for split in (Split(0, 0.0), Split(1, 0.3), Split(2, 0.0), Split(3, 0.1), Split(4, -1.5)):
        found = [
            np.all((half.low <= z) & (z <= half.up), 1)
            & np.all((half.inputs[0] <= d) & (d <= half.inputs[1]), 1)
            for half in whole.halves(split)
            if half.inputs is not None
        ]
        assert np.all(found[0] | found[1]) and not np.all(found[0] & found[1])
