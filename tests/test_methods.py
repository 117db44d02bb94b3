"""The laws of the transforms, on random networks and sets."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import oracles
import pytest
from oracles import METHODS

import jaxlirpa
from jaxlirpa import Bounds, Box, LpBall
from jaxlirpa._methods.problem import TracedFunction

LINEAR = {name: method for name, method in METHODS.items() if name != "ibp"}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
every_linear_method = pytest.mark.parametrize("method", LINEAR.values(), ids=LINEAR)


# ---- random networks -----------------------------------------------------------------------

Draw = Callable[..., jax.Array]
"""Weights of a shape, in the order in which a network asks for them."""
Block = Callable[[np.random.Generator, Draw, jax.Array], jax.Array]
"""A part of a network: what is its structure is drawn from the generator."""


def activation(rng: np.random.Generator, draw: Draw, x: jax.Array) -> jax.Array:
    """A random activation, with kinks at random places where it has any."""
    first, second = draw(*x.shape), draw(*x.shape)
    slope = rng.uniform(0, 0.5)
    choices: list[Callable[[], jax.Array]] = [
        lambda: jax.nn.relu(x),
        lambda: jax.nn.leaky_relu(x, slope),
        lambda: jax.nn.relu6(x),
        lambda: jnp.tanh(x),
        lambda: jax.nn.sigmoid(x),
        lambda: jnp.abs(x),
        lambda: jnp.clip(x, -0.5, 1.5),
        lambda: jnp.clip(x, first, first + jnp.abs(second)),
        lambda: jax.nn.hard_tanh(x),
        lambda: jnp.maximum(x, first),
        lambda: jnp.minimum(second, x),
    ]
    return choices[rng.integers(len(choices))]()


def normalised(rng: np.random.Generator, draw: Draw, x: jax.Array) -> jax.Array:
    """BatchNorm as it is at inference, scales of both signs included."""
    scale, shift, mean, variance = draw(4, x.shape[-1])
    return (x - mean) / jnp.sqrt(variance**2 + 0.1) * scale + shift


def dense(rng: np.random.Generator, draw: Draw, x: jax.Array) -> jax.Array:
    """To three features."""
    return x.reshape(-1) @ draw(x.size, 3) / x.size**0.5 + draw(3)


def picked(rng: np.random.Generator, draw: Draw, x: jax.Array) -> jax.Array:
    """Three entries, some of them twice."""
    return x.reshape(-1)[rng.integers(x.size, size=3)]


def flipped(rng: np.random.Generator, draw: Draw, x: jax.Array) -> jax.Array:
    """The last features, backwards, and a constant."""
    return jnp.concatenate([x[:0:-1], draw(1)])


def residual(rng: np.random.Generator, draw: Draw, x: jax.Array) -> jax.Array:
    """A block beside the identity."""
    return x + activation(rng, draw, dense(rng, draw, x)) if x.size == 3 else x - 0.5 * x.sum()


def concatenated(rng: np.random.Generator, draw: Draw, x: jax.Array) -> jax.Array:
    """A densely connected block."""
    return jnp.concatenate([x, activation(rng, draw, dense(rng, draw, x))])


def convolved(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    numbers = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x[None], kernel, (stride, stride), "SAME", dimension_numbers=numbers
    )[0]


def convolution(rng: np.random.Generator, draw: Draw, x: jax.Array) -> jax.Array:
    """To two channels, of half the size where that is even."""
    return convolved(x, draw(3, 3, x.shape[2], 2) / 3, 2 if x.shape[0] % 2 == 0 else 1)


def convolved_residual(rng: np.random.Generator, draw: Draw, x: jax.Array) -> jax.Array:
    """A convolutional block beside the identity."""
    kernel = draw(3, 3, x.shape[2], x.shape[2]) / 3
    return x + convolved(activation(rng, draw, normalised(rng, draw, x)), kernel)


def pooled(rng: np.random.Generator, draw: Draw, x: jax.Array) -> jax.Array:
    """Average pooling."""
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, (2, 2, 1), (1, 1, 1), "SAME") / 4


def cropped(rng: np.random.Generator, draw: Draw, x: jax.Array) -> jax.Array:
    """Slices, a transposition and padding."""
    return jnp.pad(x[1:], ((0, 1), (0, 0), (0, 0))).transpose(1, 0, 2)


VECTORS: dict[str, Block] = {
    f.__name__: f for f in (activation, normalised, dense, picked, flipped, residual, concatenated)
}
IMAGES: dict[str, Block] = {
    f.__name__: f
    for f in (activation, normalised, convolution, convolved_residual, pooled, cropped)
}
BLOCKS = {**VECTORS, **IMAGES}


@dataclasses.dataclass(frozen=True)
class Net:
    """Blocks by name, then a layer to two outputs.

    Attributes:
        blocks: their names.
        seed: of what is random in the structure.
        shape: of the input.
    """

    blocks: tuple[str, ...]
    seed: int = 0
    shape: tuple[int, ...] = (3,)

    def apply(self, draw: Draw, x: jax.Array) -> jax.Array:
        rng = np.random.default_rng(self.seed)
        for name in self.blocks:
            x = BLOCKS[name](rng, draw, x)
        return dense(rng, draw, x)[:2]

    def __call__(self, weights: Sequence[jax.Array], x: jax.Array) -> jax.Array:
        supply = iter(weights)
        return self.apply(lambda *shape: next(supply), x)

    def weights(self, seed: int, count: int, dtype: Any = np.float64) -> list[np.ndarray]:
        """Random weights of so many networks of this structure."""
        shapes = []

        def draw(*shape: int) -> jax.Array:
            shapes.append(shape)
            return jnp.zeros(shape, dtype)

        jax.eval_shape(functools.partial(self.apply, draw), jnp.zeros(self.shape, dtype))
        rng = np.random.default_rng(seed)
        return [rng.normal(size=(count, *shape)).astype(dtype) for shape in shapes]

    def fixed(self, seed: int = 0) -> Callable[[jax.Array], jax.Array]:
        """One network with random weights."""
        return functools.partial(self, [w[0] for w in self.weights(seed, 1)])


# Every block is in some of them, behind others and before others.
STRUCTURES = [
    Net(("dense", "activation", "residual"), 0),
    Net(("concatenated", "normalised", "activation"), 1),
    Net(("residual", "flipped", "activation", "picked"), 2),
    Net(("activation", "concatenated", "dense", "activation"), 3),
    Net(("picked", "residual", "residual"), 4),
    Net(("normalised", "dense", "activation", "flipped", "activation"), 5),
    Net(("convolution", "activation", "pooled"), 6, (4, 4, 2)),
    Net(("convolved_residual", "cropped", "convolution"), 7, (4, 4, 2)),
]
AFFINE = [
    Net(("normalised", "dense", "picked"), 0),
    Net(("dense", "flipped", "normalised", "dense"), 1),
    Net(("convolution", "normalised", "pooled", "cropped"), 2, (4, 4, 2)),
]


@dataclasses.dataclass(frozen=True)
class Region:
    """A random set: a kind, a radius and a seed for the rest."""

    kind: str
    radius: float
    seed: int

    def at(self, shape: tuple[int, ...], dtype: Any = jnp.float64) -> Any:
        """The set of arrays of one shape."""
        rng = np.random.default_rng(self.seed)
        center = jnp.asarray(rng.normal(size=shape), dtype)
        spread = jnp.asarray(rng.uniform(size=shape) * rng.integers(2, size=shape), dtype)
        if self.kind == "box":
            upper = jnp.asarray(rng.uniform(size=shape), dtype)
            return Box(center - self.radius * spread, center + self.radius * upper)
        if self.kind == "entries":
            return LpBall(center, self.radius * spread, ord=2)
        if self.kind == "rows":
            return LpBall(center, self.radius, ord=2, axis=-1)
        return LpBall(center, jnp.asarray(self.radius, dtype), ord=float(self.kind))


KINDS = ("box", "inf", "1", "2", "3.5", "entries", "rows")
RADII = (0.0, 1e-6, 0.1, 1.0, 30.0, 1e3)
# Sets of one kind, of all radii in turn.
COUNT = 48


def regions(kind: str, shape: tuple[int, ...], dtype: Any = np.float64, seed: int = 0) -> Any:
    """Many sets of one kind, as one set with a leading axis."""
    found = [Region(kind, RADII[i % len(RADII)], seed + i).at(shape, dtype) for i in range(COUNT)]
    return jax.tree.map(lambda *leaves: np.stack([np.asarray(x, dtype) for x in leaves]), *found)


def members(sets: Any, count: int, seed: int = 0) -> np.ndarray:
    """Points of each of many sets, `[sets, count, *shape]`."""
    each = [jax.tree.map(lambda x: x[i], sets) for i in range(COUNT)]  # noqa: B023
    return np.stack([oracles.sample(one, seed + i, count) for i, one in enumerate(each)])


# A structure and a kind of sets: each structure meets two kinds, each kind at least two structures.
PAIRS = [
    pytest.param(net, KINDS[(2 * i + k) % len(KINDS)], id=f"{i}-{KINDS[(2 * i + k) % len(KINDS)]}")
    for i, net in enumerate(STRUCTURES)
    for k in range(2)
]
every_pair = pytest.mark.parametrize(("net", "kind"), PAIRS)


# ---- comparisons ---------------------------------------------------------------------------


def inside(inner: Bounds, outer: Bounds, room: float, what: str = "") -> None:
    """Asserts that one box lies in another, entry by entry, up to rounding."""
    for a, b in zip(jax.tree.leaves(inner.lower), jax.tree.leaves(outer.lower), strict=True):
        assert np.all(np.asarray(a) >= np.asarray(b) - room), f"{what}: {a} below {b}"
    for a, b in zip(jax.tree.leaves(inner.upper), jax.tree.leaves(outer.upper), strict=True):
        assert np.all(np.asarray(a) <= np.asarray(b) + room), f"{what}: {a} above {b}"


def same(a: Any, b: Any, room: float | None = None, what: str = "") -> None:
    """Asserts equality of two results, leaf by leaf, up to rounding."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        allowed = oracles.slack(x, y) if room is None else room
        np.testing.assert_allclose(x, y, 0, allowed, err_msg=what)


POINTS = 16


def points(perturbed: Any, seed: int, count: int = 64) -> Any:
    return oracles.sample(perturbed, seed, count)


# ---- soundness and order -------------------------------------------------------------------


@pytest.mark.few(5, slow=5)
@pytest.mark.parametrize(
    "methods", [oracles.in_turn, pytest.param(lambda _: METHODS, marks=pytest.mark.slow)]
)
@every_pair
def test_every_node(net: Net, kind: str, methods: Callable[[int], Any]) -> None:
    """At every node each method's box is ordered, sound, and inside that of ibp.

    Of many networks of one structure, and a set for each, in one program.
    """
    chosen = methods(net.seed + KINDS.index(kind))
    dtype = (np.float64, np.float32)[net.seed % 2]
    sets = regions(kind, net.shape, dtype)
    names: list[str] = []

    def solve(weights: Any, perturbed: Any, xs: Any) -> Any:
        fn = functools.partial(net, weights)
        graph, inputs = oracles.trace(fn, perturbed)
        refs = oracles.live_refs(graph)
        everything = graph.returning(refs)
        names[:] = [f"{graph.nodes[ref.node].primitive} {ref}" for ref in refs]
        values = jax.vmap(lambda x: [everything.evaluate([x])[r] for r in refs])(xs)
        outputs = jax.vmap(lambda x: everything.evaluate([x])[graph.targets[0]])(xs)
        bounds = {
            name: method(TracedFunction(everything))(*inputs) for name, method in chosen.items()
        }
        return values, (outputs, jax.vmap(fn)(xs)), bounds

    values, (outputs, results), bounds = arithmetic.call(
        jax.vmap(solve), net.weights(1, COUNT, dtype), sets, members(sets, POINTS)
    )
    for one in range(COUNT):
        oracles.equal(outputs[one], results[one], "the graph is not the function")
        whole = [x[one] for x in (*bounds["ibp"].lower, *bounds["ibp"].upper)]
        room = oracles.slack(*whole)
        for name, found in bounds.items():
            limits = zip(names, values, *found, *bounds["ibp"], strict=True)
            for what, value, lower, upper, least, most in limits:
                what = f"{name}: {what} of network {one}"
                assert lower.dtype == upper.dtype == value.dtype == dtype, what
                lower, upper = lower[one], upper[one]
                assert np.all(lower <= upper), what
                inside(Bounds(value[one], value[one]), Bounds(lower, upper), room, what)
                inside(Bounds(lower, upper), Bounds(least[one], most[one]), room, what)


@pytest.mark.few(1)
@pytest.mark.parametrize(("net", "kind"), PAIRS[1::4])
def test_linear_bounds(net: Net, kind: str) -> None:
    """The linear functions enclose fn, and their extrema are no better than the bounds."""
    sets = regions(kind, net.shape, seed=100)
    xs = members(sets, POINTS)

    def solve(weights: Any, perturbed: Any, xs: Any) -> Any:
        fn = functools.partial(net, weights)
        found = {k: (m(fn)(perturbed), m(fn, linear=True)(perturbed)) for k, m in LINEAR.items()}
        return jax.vmap(fn)(xs), found

    values, results = arithmetic.call(jax.vmap(solve), net.weights(2, COUNT), sets, xs)
    axes = (range(1, xs.ndim - 1), range(1, xs.ndim - 1))
    for one in range(COUNT):
        (own,), _ = jax.tree.map(lambda x: x[one], sets).split()  # noqa: B023
        for name, result in results.items():
            bounds, found = jax.tree.map(lambda x: x[one], result)  # noqa: B023
            (below,), (above,) = found.lower_coefficients, found.upper_coefficients
            lower = np.tensordot(xs[one], below, axes) + found.lower_offset
            upper = np.tensordot(xs[one], above, axes) + found.upper_offset
            room = oracles.slack(lower, upper, *bounds)
            inside(Bounds(values[one], values[one]), Bounds(lower, upper), room, name)
            least = oracles.linear_extrema(own, below)[0] + found.lower_offset
            most = oracles.linear_extrema(own, above)[1] + found.upper_offset
            inside(bounds, Bounds(least, most), room, name)


SIZES = (3, 5, 4, 3)


def network(params: Any, x: jax.Array, act: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """A multi-layer perceptron."""
    for w, b in params[:-1]:
        x = act(x @ w + b)
    w, b = params[-1]
    return x @ w + b


def random_params(rng: np.random.Generator, sizes: tuple[int, ...], count: int) -> Any:
    """Weights and biases of many networks."""
    pairs = list(itertools.pairwise(sizes))
    return [(rng.normal(size=(count, a, b)), rng.normal(size=(count, b))) for a, b in pairs]


ACTIVATIONS = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "tanh": jnp.tanh,
    "abs": jnp.abs,
    "clip": lambda x: jnp.clip(x, -1, 1),
}


@pytest.mark.few(2)
@pytest.mark.parametrize("act", ACTIVATIONS.values(), ids=ACTIVATIONS)
@pytest.mark.parametrize("ord", [pytest.param(2, marks=pytest.mark.slow), np.inf])
def test_no_backward_method_is_looser_than_ibp(act: Callable[..., Any], ord: float) -> None:
    """Also behind a margin, which ibp bounds together with the last layer."""
    rng, count = np.random.default_rng(0), 100

    def margin(params: Any, x: jax.Array) -> jax.Array:
        logits = network(params, x, act)
        return logits[1:] - logits[:1]

    def solve(params: Any, x: jax.Array, eps: jax.Array) -> dict[str, Bounds]:
        return {k: METHODS[k](margin)(params, LpBall(x, eps, ord=ord)) for k in METHODS}

    params, x = random_params(rng, SIZES, count), rng.normal(size=(count, 3))
    found = arithmetic.jit(jax.vmap(solve))(params, x, 10 ** rng.uniform(-3, 1, count))
    for name in set(METHODS) - {"ibp", "forward_crown"}:
        inside(found[name], found["ibp"], oracles.slack(*found["ibp"]), name)


# ---- exactness -----------------------------------------------------------------------------


@pytest.mark.few(6)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("net", AFFINE, ids=range(len(AFFINE)))
def test_affine_networks_are_bounded_exactly(net: Net, kind: str) -> None:
    sets, weights = regions(kind, net.shape), net.weights(3, COUNT)

    def solve(weights: Any, perturbed: Any) -> Any:
        fn = functools.partial(net, weights)
        methods = oracles.in_turn(net.seed + KINDS.index(kind))
        bounds = {name: method(fn)(perturbed) for name, method in methods.items()}
        zero = jnp.zeros(net.shape)
        return bounds, jax.jacfwd(fn)(zero), fn(zero)

    bounds, slopes, offsets = arithmetic.call(jax.vmap(solve), weights, sets)
    for one in range(COUNT):
        (own,), _ = jax.tree.map(lambda x: x[one], sets).split()  # noqa: B023
        ends = [x + offsets[one] for x in oracles.linear_extrema(own, slopes[one])]
        for name, found in bounds.items():
            room = oracles.slack(*ends)
            same(jax.tree.map(lambda x: x[one], found), Bounds(*ends), room, name)  # noqa: B023


@pytest.mark.few(2)
@every_method
def test_bounds_contain_the_exact_range(method: Any) -> None:
    """Held against the exact extremes of many small relu networks."""
    rng, count, sizes = np.random.default_rng(1), 100, (2, 3, 2, 2)
    params, x = random_params(rng, sizes, count), rng.normal(size=(count, 2))
    radius = 10 ** rng.uniform(-2, 1, (count, 2))
    bound = method(functools.partial(network, act=jax.nn.relu))
    lower, upper = arithmetic.jit(jax.vmap(bound))(params, Box(x - radius, x + radius))
    for i in range(count):
        layers = [(w[i], b[i]) for w, b in params]
        least, most = oracles.relu_net_extrema(layers, x[i] - radius[i], x[i] + radius[i])
        room = oracles.slack(lower[i], upper[i])
        inside(Bounds(least, most), Bounds(lower[i], upper[i]), room)


@pytest.mark.few(8)
@every_method
@pytest.mark.parametrize("act", ACTIVATIONS.values(), ids=ACTIVATIONS)
def test_one_unit_is_bounded_exactly(method: Any, act: Callable[..., Any]) -> None:
    """One nonlinear function of an affine one, scaled: the range of a monotone or convex function
    over an interval that is known exactly."""
    rng, count = np.random.default_rng(2), 50

    def unit(w: jax.Array, x: jax.Array, scale: jax.Array) -> jax.Array:
        return scale * act(w @ x) - 1

    w, x, scale = rng.normal(size=(count, 3)), rng.normal(size=(count, 3)), rng.normal(size=count)
    lower, upper = arithmetic.jit(jax.vmap(method(unit)))(w, LpBall(x, np.ones(count)), scale)
    middle, reach = np.sum(w * x, 1), np.sum(np.abs(w), 1)
    ends = np.linspace(middle - reach, middle + reach, 3)
    ends[1] = np.clip(0, ends[0], ends[2])
    values = scale * act(ends) - 1
    np.testing.assert_allclose(lower, values.min(0), 1e-10, 1e-13)
    np.testing.assert_allclose(upper, values.max(0), 1e-10, 1e-13)


@pytest.mark.few(2)
@every_linear_method
def test_stable_networks_are_bounded_exactly(method: Any) -> None:
    """Where every unit is on one side of its kink the network is affine on the set."""
    rng = np.random.default_rng(3)
    params = [(w[0], b[0]) for w, b in random_params(rng, SIZES, 1)]
    params[:-1] = [(w, b + 50 * rng.choice([-1, 1], b.shape)) for w, b in params[:-1]]
    fn = functools.partial(network, params, act=jax.nn.relu)
    for kind in KINDS:
        perturbed = Region(kind, 0.1, 0).at((3,))
        ((lower, upper),) = oracles.affine_extrema(fn, perturbed)
        same(method(fn)(perturbed), Bounds(lower, upper), oracles.slack(lower, upper, params[0][1]))


# ---- other laws ----------------------------------------------------------------------------


@pytest.mark.parametrize("net", STRUCTURES, ids=range(len(STRUCTURES)))
def test_ibp_is_monotone_in_eps(net: Net) -> None:
    """A larger set never has a smaller box: interval arithmetic is monotone.

    The linear methods are not. The slopes of their lines change with the box, so a larger one may
    do better; see `test_nested_relaxations_are_monotone` for what does hold.
    """
    radii = np.array([0, 1e-3, 0.1, 0.2, 1, 10, 1e3])
    x = np.random.default_rng(0).normal(size=(COUNT, *net.shape))

    def solve(weights: Any, x: Any) -> Bounds:
        bound = METHODS["ibp"](functools.partial(net, weights))
        return jax.vmap(lambda eps: bound(x, eps))(radii)

    lower, upper = arithmetic.call(jax.vmap(solve), net.weights(4, COUNT), x)
    room = oracles.slack(lower[:, :-1], upper[:, :-1])
    assert np.all(np.diff(lower, axis=1) <= room)
    assert np.all(np.diff(upper, axis=1) >= -room)


@pytest.mark.parametrize("act", [jnp.abs, lambda x: jnp.maximum(x, -1e9)], ids=["abs", "stable"])
@every_method
def test_nested_relaxations_are_monotone(method: Any, act: Callable[..., Any]) -> None:
    """Backward bounds solve a linear program: minimise over all values between the lines.

    Where the lines around a function only ever move apart as its box grows, as those of abs do
    (the chord above, zero below) and those of a stable relu, the program only gains solutions.
    """
    rng, count = np.random.default_rng(4), 100
    bound = jax.vmap(method(functools.partial(network, act=act)), in_axes=(None, None, 0))
    params, x = random_params(rng, (3, 5, 3), count), rng.normal(size=(count, 3))
    lower, upper = arithmetic.jit(jax.vmap(bound, in_axes=(0, 0, None)))(
        params, x, np.linspace(0, 2, 41)
    )
    room = oracles.slack(lower, upper)
    assert np.all(np.diff(lower, axis=1) <= room)
    assert np.all(np.diff(upper, axis=1) >= -room)


@pytest.mark.few(2)
@every_method
def test_box_is_ball(method: Any) -> None:
    net = Net(("concatenated", "residual", "normalised"), 1, (3,)).fixed()
    x, eps = jnp.array([1.0, -0.5, 0.2]), 0.25
    results = [
        method(net)(x, eps),
        method(net)(LpBall(x, eps)),
        method(net)(LpBall(x, eps, ord=float("inf"), axis=0)),
        method(net)(LpBall(x, jnp.full(3, eps))),
        method(net)(Box(x - eps, x + eps)),
        method(net)(x, jnp.full(3, eps)),
    ]
    for result in results[1:]:
        same(result, results[0])


@pytest.mark.few(2)
@pytest.mark.parametrize(("net", "kind"), PAIRS[::3])
def test_a_point_is_bounded_by_its_value(net: Net, kind: str) -> None:
    found = [Region(kind, 0.0, i).at(net.shape) for i in range(COUNT)]
    sets = jax.tree.map(lambda *leaves: np.stack(leaves), *found)

    def solve(weights: Any, perturbed: Any, x: Any) -> Any:
        fn = functools.partial(net, weights)
        return fn(x), {name: method(fn)(perturbed) for name, method in METHODS.items()}

    weights, xs = net.weights(5, COUNT), members(sets, 1)[:, 0]
    value, bounds = arithmetic.call(jax.vmap(solve), weights, sets, xs)
    for name, found in bounds.items():
        for one in range(COUNT):
            expected = Bounds(value[one], value[one])
            same(Bounds(*(x[one] for x in found)), expected, oracles.slack(value[one], 1.0), name)


@pytest.mark.parametrize(
    ("name", "ord"),
    [
        *[("ibp", 2), ("crown", 2), ("crown_ibp", np.inf)],
        *[
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (
                *[("ibp", np.inf), ("crown", np.inf), ("crown_ibp", 2)],
                *[("forward_crown", 2), ("forward_crown", np.inf)],
            )
        ],
    ],
)
def test_gradients_are_finite_at_a_point_and_at_kinks(name: str, ord: float) -> None:
    """No radius and every function at its kink: nothing may become NaN on the way back."""

    def kinks(w: jax.Array, x: jax.Array) -> jax.Array:
        hidden = w @ x + jnp.array([-1.0, 0.0, 1.0])
        return jax.nn.relu(sum(act(hidden) for act in ACTIVATIONS.values()) - 1)

    def loss(w: jax.Array, center: jax.Array, radius: jax.Array) -> jax.Array:
        lower, upper = METHODS[name](kinks)(w, LpBall(center, radius, ord=ord))
        return jnp.sum(upper**2) - jnp.sum(lower)

    differentiate = arithmetic.jit(jax.grad(loss, (0, 1, 2)))
    w = jnp.array([[1.0, -1.0], [0.5, 2.0], [0.0, 0.0]])
    for center in (jnp.zeros(2), jnp.ones(2)):
        for radius in (jnp.array(0.0), jnp.array(1.0)):
            for gradient in differentiate(w, center, radius):
                assert np.all(np.isfinite(gradient)), (center, radius)


@pytest.mark.few(2)
@every_method
def test_permuting_the_inputs_permutes_nothing_else(method: Any) -> None:
    net = Net(("concatenated", "dense", "activation"), 3, (3,)).fixed()
    order, inverse = np.array([2, 0, 1]), np.array([1, 2, 0])
    for kind in ("box", "2", "entries"):
        perturbed = Region(kind, 0.5, 2).at((3,))
        permuted = jax.tree.map(lambda a: a[order] if jnp.ndim(a) else a, perturbed)
        same(method(lambda x: net(x[inverse]))(permuted), method(net)(perturbed))


# ---- intermediate bounds as a value --------------------------------------------------------


@pytest.mark.slow
def test_intermediate_is_a_value() -> None:
    crown, ibp, forward = jaxlirpa.crown, jaxlirpa.ibp, jaxlirpa.forward_crown
    net = Net(("dense", "activation", "residual", "concatenated"), 5, (3,)).fixed()
    for kind in ("box", "2"):
        perturbed = Region(kind, 0.7, 1).at((3,))

        def run(**options: Any) -> Bounds:
            return lirpa.crown(net, **options)(perturbed)  # noqa: B023

        same(run(intermediate=ibp), lirpa.crown_ibp(net)(perturbed), 0.0)
        same(run(intermediate=crown), run())
        same(run(intermediate=functools.partial(crown, intermediate=crown)), run())
        nested = run(intermediate=functools.partial(crown, intermediate=ibp))
        values = jax.vmap(net)(points(perturbed, 0))
        for bounds in (nested, run(intermediate=forward)):
            inside(Bounds(values, values), bounds, oracles.slack(values))
            inside(bounds, ibp(net)(perturbed), oracles.slack(values))


def test_intermediate_of_the_users_own() -> None:
    """Any function from a function to a function that bounds it will do."""
    net = Net(("dense", "activation", "residual"), 6, (3,)).fixed()
    calls = []

    def noted(fn: Any) -> Any:
        calls.append(fn)
        return jaxlirpa.ibp(fn)

    bounds = jaxlirpa.crown(net, intermediate=noted)(jnp.ones(3), 0.1)
    same(bounds, jaxlirpa.crown_ibp(net)(jnp.ones(3), 0.1))
    assert len(calls) == 1


# ---- several sets, and pytrees -------------------------------------------------------------

A, B = jnp.array([1.0, -2.0]), jnp.array([0.5, 0.25])


@every_method
def test_several_sets(method: Any) -> None:
    first, second = LpBall(A, 0.5, ord=2), Box(B - 1, B + 2)

    def fn(a: jax.Array, b: jax.Array) -> dict[str, jax.Array]:
        return {"sum": a + b, "difference": a - b, "both": jnp.concatenate([a, 2 * b])}

    lower, upper = method(fn)(first, second)
    np.testing.assert_allclose(lower["sum"], A - 0.5 + B - 1)
    np.testing.assert_allclose(upper["sum"], A + 0.5 + B + 2)
    np.testing.assert_allclose(lower["difference"], A - 0.5 - B - 2)
    np.testing.assert_allclose(upper["difference"], A + 0.5 - B + 1)
    np.testing.assert_allclose(lower["both"], jnp.concatenate([A - 0.5, 2 * B - 2]))
    np.testing.assert_allclose(upper["both"], jnp.concatenate([A + 0.5, 2 * B + 4]))


@pytest.mark.few(2)
@pytest.mark.parametrize("number", range(4))
def test_two_sets_are_sound(number: int) -> None:
    f, g = STRUCTURES[number], STRUCTURES[number + 2]

    def fn(weights: Any, x: jax.Array, tree: dict[str, jax.Array]) -> jax.Array:
        difference = f(weights[0], x) - g(weights[1], tree["y"])
        return jax.nn.relu(difference) + x[:2] @ jnp.array([[1.0, -1], [2, 0.5]])

    def solve(weights: Any, sets: Any, xs: Any, ys: Any) -> Any:
        values = jax.vmap(lambda x, y: fn(weights, x, {"y": y}))(xs, ys)
        first, second = sets
        methods = oracles.in_turn(number)
        bounds = {k: m(fn)(weights, first, {"y": second}) for k, m in methods.items()}
        return values, bounds

    weights = f.weights(6, COUNT), g.weights(7, COUNT)
    sets = regions(KINDS[number], (3,)), regions(KINDS[-number - 1], (3,), seed=50)
    samples = (members(one, POINTS, seed) for seed, one in enumerate(sets))
    values, bounds = arithmetic.call(jax.vmap(solve), weights, sets, *samples)
    for name, (lower, upper) in bounds.items():
        for one in range(COUNT):
            room = oracles.slack(lower[one], upper[one])
            inside(Bounds(values[one], values[one]), Bounds(lower[one], upper[one]), room, name)


@every_method
def test_one_set_used_twice(method: Any) -> None:
    """What is subtracted from itself is known, at the latest behind an affine chain."""
    net = Net(("dense", "activation"), 0, (3,)).fixed()
    bounds = method(lambda x: (x + x, x - x, 3 * x - 2 * x))(A, 0.5)
    same(bounds, Bounds((2 * A - 1, 0 * A, A - 0.5), (2 * A + 1, 0 * A, A + 0.5)))
    if method is not METHODS["ibp"]:
        lower, upper = method(lambda x: net(x) - net(x))(jnp.ones(3), 0.01)
        assert np.all(upper - lower < 0.1)


def test_a_product_of_two_known_matrices_is_bounded_as_one() -> None:
    """Its interval is loose, and what a relu reads is bounded better by CROWN."""
    first, second = (np.random.default_rng(n).normal(size=(6, 6)) for n in range(2))
    both = second @ first
    _, upper = lirpa.crown(lambda x: jax.nn.relu(second @ (first @ x)))(jnp.zeros(6), 0.5)
    np.testing.assert_allclose(upper, 0.5 * np.abs(both).sum(1), rtol=1e-9)


# Functions with coefficients of 1e-309, which float64 has no normal number for, on values of 1e307.
_FLAT = jnp.full((4, 4), 1e-160)
_KERNEL = jnp.full((3, 3, 1, 2), 1e-160)
UNDERFLOWS: dict[str, tuple[Callable[..., Any], Any, float, float]] = {
    "scaled": (lambda x: x * 1e-160 * 1e-149, Box(jnp.array(1e307), jnp.array(2e307)), 0.01, 0.02),
    "relu": (
        *(lambda x: jax.nn.relu(x * 1e-160) * 1e-149, Box(jnp.array(-1e307), jnp.array(2e307))),
        *(0.0, 0.02),
    ),
    "dense": (
        *(lambda x: 1e11 * _FLAT @ (_FLAT @ x), Box(jnp.full(4, 1e306), jnp.full(4, 2e306))),
        *(0.016, 0.032),
    ),
    "ball": (
        *(lambda x: 1e11 * _FLAT @ (_FLAT @ x), LpBall(jnp.full(4, 1.5e306), 5e305, ord=2)),
        *(0.02, 0.028),
    ),
    "images": (
        lambda x: (
            jax.lax.conv_general_dilated(
                *(jax.nn.relu(10 * x), _KERNEL, (1, 1), "SAME"),
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
            )[0, 1:3, 1:3]
            * 1e-149
        ),
        Box(jnp.full((1, 4, 4, 1), -1e306), jnp.full((1, 4, 4, 1), 2e306)),
        *(0.0, 0.18),
    ),
    "quotient": (
        *(lambda x: jnp.square(x / jnp.exp(x)), Box(jnp.array(264.0), jnp.array(265.0))),
        *(265**2 * np.exp(-530), 264**2 * np.exp(-528)),
    ),
}


@pytest.mark.few(3)
@pytest.mark.parametrize("name", UNDERFLOWS)
def test_coefficients_that_are_computed_as_zero(name: str) -> None:
    fn, box, lowest, highest = UNDERFLOWS[name]
    for key, method in METHODS.items():
        lower, upper = method(fn)(box)
        assert np.all(lower <= 1.0001 * lowest) and np.all(upper >= 0.9999 * highest), key
        assert np.all(upper - lower <= 1.2 * (highest - lowest)), key
    limits = box.hull() if isinstance(box, Box) else []
    for key, method in LINEAR.items():
        found = method(fn, linear=True)(box)
        for x in limits:
            value = np.asarray(fn(x))
            ends = [
                np.tensordot(c[0], x, x.ndim) + np.asarray(offset)
                for c, offset in (found[:2], found[2:])
            ]
            assert np.all(ends[0] <= value + 1e-5 * highest), key
            assert np.all(ends[1] >= value - 1e-5 * highest), key


@every_method
def test_an_overflow_leaves_other_outputs_alone(method: Any) -> None:
    def fn(x: jax.Array) -> jax.Array:
        return jnp.tanh(x) - 0.5 * x

    both = method(lambda x: (2 * (x * 1e200 * 1e200) - x, fn(x)))(A, 0.5)
    same(Bounds(both.lower[1], both.upper[1]), method(fn)(A, 0.5))


@every_method
def test_outputs_of_any_structure(method: Any) -> None:
    constant, number = jnp.array([1, 2]), 3.0

    def fn(x: jax.Array, y: jax.Array) -> dict[str, Any]:
        hidden = jax.nn.relu(x)
        return {
            "tuple": (hidden, hidden),
            "scalar": x.sum(),
            "input": x,
            "known": constant,
            "literal": number,
            "other": 2 * y,
            "none": None,
            "empty": (),
        }

    lower, upper = method(fn)(LpBall(A, 0.5), B)
    assert jax.tree.structure(lower) == jax.tree.structure(fn(A, B))
    same(lower, {**fn(A - 0.5, B)}, 0.0)
    same(upper, {**fn(A + 0.5, B)}, 0.0)
    assert lower["known"].dtype == constant.dtype
    if method is not METHODS["ibp"]:
        found = method(fn, linear=True)(LpBall(A, 0.5), B)
        x, nothing = found.lower_coefficients["input"]
        assert nothing is None
        np.testing.assert_array_equal(x, jnp.eye(2))
        np.testing.assert_array_equal(found.upper_coefficients["literal"][0], jnp.zeros(2))
        assert found.upper_coefficients["tuple"][1][0].shape == (2, 2)
        np.testing.assert_array_equal(found.upper_offset["other"], 2 * B)


@every_method
def test_a_value_without_entries_is_known(method: Any) -> None:
    def channels(x: jax.Array, before: int, after: int) -> jax.Array:
        kernel = jnp.ones((3, 3, before, after))
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)

    def fn(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        nothing = jax.nn.relu(channels(jax.nn.relu(channels(x, 2, 4)), 4, 0))
        return nothing, jnp.concatenate([channels(jax.nn.softplus(nothing), 0, 2), x], -1)

    x = jnp.ones((1, 3, 3, 2))
    lower, upper = method(fn)(x, 0.5)
    same(lower, (*fn(x)[:1], jnp.concatenate([jnp.zeros_like(x), x - 0.5], -1)))
    same(upper, (*fn(x)[:1], jnp.concatenate([jnp.zeros_like(x), x + 0.5], -1)))


@every_method
def test_nothing_depends_on_the_input(method: Any) -> None:
    for fn in (lambda x: jnp.ones(2), lambda x: (), lambda x: jax.lax.stop_gradient(0.0)):
        same(method(fn)(A, 0.1), Bounds(fn(A), fn(A)))


@every_method
def test_trees_of_sets(method: Any) -> None:
    """A set in a leaf's place, and a set whose centre is a tree, are the same."""
    params = {"w": jnp.array([[1.0, -1.0], [0.5, 2.0]]), "b": B, "steps": 3}

    def fn(params: dict[str, Any], x: jax.Array) -> jax.Array:
        return params["steps"] * jax.nn.relu(x @ params["w"] + params["b"])

    floats = {k: params[k] for k in ("w", "b")}
    whole = method(lambda p, x: fn({**p, "steps": 3}, x))(LpBall(floats, 0.1), A)
    leaves = method(fn)({**params, "w": LpBall(params["w"], 0.1), "b": LpBall(B, 0.1)}, A)
    by_eps = method(lambda p, x: fn({**p, "steps": 3}, x), argnums=0)(floats, A, 0.1)
    by_tree = method(lambda p, x: fn({**p, "steps": 3}, x), argnums=0)(
        floats, A, {"w": 0.1, "b": jnp.full(2, 0.1)}
    )
    for other in (leaves, by_eps, by_tree):
        same(other, whole)
    reach = 0.1 * (jnp.abs(A).sum() + 1)
    np.testing.assert_allclose(whole.upper, fn({**params, "b": B + reach}, A))
    np.testing.assert_allclose(whole.lower, fn({**params, "b": B - reach}, A))


@every_method
def test_argnums(method: Any) -> None:
    def fn(a: jax.Array, b: jax.Array) -> jax.Array:
        return a - 2 * b

    same(method(fn)(A, B, 0.1), method(fn, argnums=1)(A, B, 0.1), 0.0)
    same(method(fn)(A, B, 0.1), method(fn, argnums=-1)(A, B, 0.1), 0.0)
    same(method(fn, argnums=0)(A, B, 0.1), method(fn)(LpBall(A, 0.1), B), 0.0)
    same(method(fn, argnums=(0, 1))(A, B, 0.1), method(fn)(LpBall(A, 0.1), LpBall(B, 0.1)), 0.0)


@every_method
def test_a_scalar_next_to_an_array(method: Any) -> None:
    """A scalar is broadcast by arithmetic itself; its coefficients must add up all the same."""
    row = jnp.array([-1.0, 0.0, 2.0])

    def fn(s: jax.Array) -> list[jax.Array]:
        total = jnp.sum(s)
        return [
            total * row,
            row + total,
            row - total,
            jnp.sum(jnp.maximum(total, row)),
            jnp.sum(row * jnp.minimum(row, total) / 2),
        ]

    for perturbed in (LpBall(A, 0.3, ord=2), LpBall(A.sum(), 0.7, ord=2), LpBall(A, 0.4)):
        values = jax.vmap(fn)(points(perturbed, 0))
        lower, upper = method(fn)(perturbed)
        for v, low, high in zip(values, lower, upper, strict=True):
            inside(Bounds(v, v), Bounds(low, high), oracles.slack(v))


def test_strings_and_states_are_no_sets() -> None:
    """A set is an instance of a set's class, not something that happens to have its methods."""
    lower, upper = jaxlirpa.crown(lambda name, x: getattr(jax.nn, name)(x))("relu", A, 0.5)
    np.testing.assert_allclose(lower, jax.nn.relu(A - 0.5))
    np.testing.assert_allclose(upper, jax.nn.relu(A + 0.5))


# ---- longer sweeps -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seed",
    [pytest.param(n, marks=pytest.mark.slow if n < 3 else pytest.mark.long) for n in range(60)],
)
def test_other_structures(seed: int) -> None:
    rng = np.random.default_rng(seed)
    blocks, shape = ((VECTORS, (3,)), (IMAGES, (4, 4, 2)))[seed % 2]
    net = Net(tuple(rng.choice(sorted(blocks), size=4)), seed, shape)
    test_every_node(net, str(rng.choice(KINDS)), lambda _: METHODS)


@pytest.mark.parametrize(
    "ord", [pytest.param(1, marks=pytest.mark.long), pytest.param(2, marks=pytest.mark.slow)]
)
def test_balls_of_weights(ord: float) -> None:
    """Behind the first layer they meet perturbed values: products are bounded by their norms."""
    rng = np.random.default_rng(0)
    shapes = (3, 3, 1, 2), (4, 18), (2, 3, 4), (1, 5, 5, 1)
    kernel, dense, last, x = (jnp.asarray(rng.normal(size=shape)) / 2 for shape in shapes)

    def network(kernel: jax.Array, dense: jax.Array, last: jax.Array, x: jax.Array) -> jax.Array:
        layout = ("NHWC", "HWIO", "NHWC")
        h = jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=layout)
        h = jax.nn.relu(jnp.tanh(h).reshape(1, 18) @ dense.T)
        return jnp.einsum("nk,abk->nab", h, last)

    balls = [LpBall(weight, 0.05, ord) for weight in (kernel, dense, last)]
    graph, _ = oracles.check_every_node(network, (*balls, LpBall(x, 0.05)))
    assert [n.primitive for n in graph.nodes].count("ball_product") == 3

    def widths(*sets: jaxlirpa.sets.PerturbationSet) -> jax.Array:
        lower, upper = jaxlirpa.ibp(network)(*sets, LpBall(x, 0.05))
        return upper - lower

    assert (widths(*balls) < 0.9 * widths(*(Box(*ball.hull()) for ball in balls))).all()
