"""Verdicts: against the truth, found by enumeration, and against members of the set."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from verify.networks import ACTIVATIONS, RELU, least, network, weights

import jaxlirpa
from jaxlirpa import ArgumentError, Box, LpBall, verify
from jaxlirpa.verify.tree import Leaf, Split

SIZES = (3, 5, 5, 1)
STRATEGIES = {
    "neurons": verify.NeuronSplits(batch=4, candidates=3, refine_after=2),
    "inputs": verify.InputSplits(batch=4, sharpened=6),
}
VERIFIERS = {name: verify.verify(RELU, strategy=s) for name, s in STRATEGIES.items()}


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAXLIRPA_CACHE", "")


def instance(seed: int) -> tuple[list[Any], Any, float]:
    """A network, a box that it is not affine on, and its exact minimum there."""
    params = weights(SIZES, seed)
    x = np.random.default_rng(seed).normal(size=3)
    box = Box(jnp.asarray(x - 0.8), jnp.asarray(x + 0.8))
    return params, box, least(params, x - 0.8, x + 0.8)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(
    "seed", [pytest.param(s, marks=pytest.mark.slow) if s else s for s in range(8)]
)
def test_verdicts_are_those_of_enumeration(name: str, seed: int) -> None:
    """A little below the exact minimum is proved, a little above is refuted: never the opposite."""
    params, box, minimum = instance(seed)
    proved = VERIFIERS[name](params, jnp.array([minimum - 0.01]), box)
    assert proved.status == "proved" and 0 < proved.lower <= 0.01 + 1e-9
    assert proved.witness is None
    again = verify.recheck(RELU, proved.certificate)(params, jnp.array([minimum - 0.01]), box)
    assert 0 < again <= 0.01 + 1e-9
    refuted = VERIFIERS[name](params, jnp.array([minimum + 0.01]), box)
    assert refuted.status == "refuted" and refuted.certificate is None
    assert refuted.lower <= -0.01 + 1e-9
    *_, x = refuted.witness
    assert x.dtype == np.float64 and np.all((box.lower <= x) & (x <= box.upper))
    assert RELU(params, jnp.array([minimum + 0.01]), x) <= 0


@pytest.mark.parametrize("name", STRATEGIES)
def test_what_is_false_by_little_is_never_proved(name: str) -> None:
    """Planted: the property fails only around one point, by 1e-7."""
    params, box, minimum = instance(1)
    found = VERIFIERS[name](params, jnp.array([minimum + 1e-7]), box)
    assert found.status != "proved" and found.lower <= 0
    with pytest.raises(TypeError, match="one of three"):
        bool(found)


@pytest.mark.slow
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
@pytest.mark.parametrize("name", STRATEGIES)
def test_all_functions(activation: str, name: str) -> None:
    """Half of the gap between CROWN and what is attained is closed, on either kind of splits.

    Of a sine whose operands run over several waves, a tenth: boxes of neurons behind a split one
    stay as they are, so that all must be split.
    """
    fn, params = network(ACTIVATIONS[activation]), weights((2, 6, 6, 1), 5)
    x, eps, shift = jnp.array([0.4, -0.1]), 0.5, jnp.zeros(1)
    rng = np.random.default_rng(0)
    points = jnp.asarray(np.asarray(x) + eps * rng.uniform(-1, 1, (20000, 2)))
    attained = float(jnp.min(jax.jit(jax.vmap(lambda z: fn(params, shift, z)))(points)))
    lower = float(jaxlirpa.crown(fn)(params, shift, x, eps).lower[0])
    share = 0.1 if (activation, name) == ("sin", "neurons") else 0.5
    target = jnp.array([(1 - share) * lower + share * attained])
    found = verify.verify(fn, strategy=STRATEGIES[name], time_limit=300)(params, target, x, eps)
    assert found.status == "proved", found
    beyond = verify.verify(fn, strategy=STRATEGIES[name], time_limit=1)
    assert beyond(params, jnp.array([attained + 1e-6]), x, eps).status != "proved"


def test_a_ball() -> None:
    """Neurons can be split whatever the set; the witness is inside of it."""
    params, _, _ = instance(3)
    ball = LpBall(jnp.array([0.1, 0.2, -0.3]), 0.9, ord=2)
    rng = np.random.default_rng(0)
    d = rng.normal(size=(20000, 3))
    d *= (0.9 * rng.uniform(size=(20000, 1)) ** (1 / 3)) / np.linalg.norm(d, axis=1, keepdims=True)
    values = np.asarray(jax.vmap(lambda x: RELU(params, 0, x))(jnp.asarray(ball.center + d)))
    lower = float(jaxlirpa.crown(RELU)(params, jnp.zeros(1), ball).lower[0])
    run = VERIFIERS["neurons"]
    target = 0.3 * lower + 0.7 * values.min()
    assert run(params, jnp.array([target]), ball).status == "proved"
    found = run(params, jnp.array([values.min() + 0.02]), ball)
    assert found.status == "refuted"
    assert np.linalg.norm(found.witness[-1] - np.asarray(ball.center)) <= 0.9
    refused = VERIFIERS["inputs"](params, jnp.array([target]), ball)
    assert refused.status == "undecided" and "boxes only" in refused.reason


def test_properties_of_several_functions() -> None:
    """What "and" and "or" say at every point, which is less than that one of them holds."""
    x = jnp.array(0.25)
    either = verify.any_of(lambda x: x - 0.1, lambda x: 0.2 - x)
    assert verify.verify(either)(x, 1.0).status == "proved"
    assert verify.verify(verify.all_of(either, lambda x: 2 - x))(x, 1.0).status == "proved"
    gap = verify.any_of(lambda x: x - 0.2, lambda x: 0.1 - x)
    found = verify.verify(gap)(x, 1.0)
    assert found.status == "refuted" and 0.1 <= found.witness[0] <= 0.2
    one = verify.any_output(lambda x: jnp.stack([x, 1 - x]))
    assert verify.verify(one)(x, 3.0).status == "proved"
    nested = verify.any_of(verify.all_of(lambda x: x, lambda x: x + 1), lambda x: 0.5 - x)
    assert nested.clauses((1, 1, 1)) == ((0, 2), (1, 2))
    assert verify.all_of(lambda x: x, lambda x: x).clauses((2, 1)) == ((0,), (1,), (2,))


def test_functions_of_several_values() -> None:
    """What cannot be condensed is bounded as a whole, in parts of the inputs' box."""

    def fn(shift: Any, x: Any) -> Any:
        return x[0] ** 2 + x[1] ** 2 - 1.5 * x[0] * x[1] + shift

    run = verify.verify(fn)
    found = run(0.05, jnp.zeros(2), 0.5)
    assert found.status == "proved" and found.certificate.walked
    assert verify.recheck(fn, found.certificate)(0.05, jnp.zeros(2), 0.5) > 0
    assert run(-0.05, jnp.zeros(2), 0.5).status == "refuted"


# ---- certificates ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def proof() -> tuple[Any, Any, Any, float]:
    """A certificate with several leaves, the arguments, and the exact margin."""
    params, box, minimum = instance(0)
    shift = jnp.array([minimum - 0.01])
    found = VERIFIERS["neurons"](params, shift, box)
    assert found.certificate.forest.splits and found.certificate.refinements
    return found.certificate, (params, shift, box), shift, 0.01


def test_certificates_through_files(proof: Any, tmp_path: Path) -> None:
    certificate, args, *_ = proof
    certificate.save(tmp_path / "proof.npz")
    again = verify.Certificate.load(tmp_path / "proof.npz")
    check = verify.recheck(RELU, certificate)(*args)
    assert verify.recheck(RELU, again)(*args) == check > 0
    np.savez(tmp_path / "none.npz", x=np.zeros(2))
    with pytest.raises(ArgumentError, match="holds no certificate"):
        verify.Certificate.load(tmp_path / "none.npz")


def test_any_parameters_are_sound(proof: Any) -> None:
    """Whatever a certificate says, no more is proved than is true."""
    certificate, args, _, margin = proof
    rng = np.random.default_rng(0)

    def changed(leaf: Leaf, size: float) -> Leaf:
        mu = leaf.mu + size * rng.normal(size=leaf.mu.shape)
        return Leaf(leaf.alpha + size * rng.normal(size=leaf.alpha.shape), mu)

    for size in (0.0, 0.1, 10.0, np.nan):
        leaves = {n: changed(leaf, size) for n, leaf in certificate.leaves.items()}
        other = dataclasses.replace(certificate, leaves=leaves)
        assert verify.recheck(RELU, other)(*args) <= margin + 1e-9
    forest = dataclasses.replace(
        certificate.forest,
        splits={n: Split(s.variable, s.point + 0.3) for n, s in certificate.forest.splits.items()},
    )
    moved = dataclasses.replace(certificate, forest=forest)
    assert verify.recheck(RELU, moved)(*args) <= margin + 1e-9


def test_a_certificate_of_a_part_proves_nothing(proof: Any) -> None:
    certificate, args, shift, _ = proof
    for number in certificate.leaves:
        leaves = {n: leaf for n, leaf in certificate.leaves.items() if n != number}
        part = dataclasses.replace(certificate, leaves=leaves)
        assert verify.recheck(RELU, part)(*args) == -np.inf
    params, _, box = args
    assert verify.recheck(RELU, certificate)(params, shift + 0.02, box) == -np.inf
    with pytest.raises(ArgumentError, match="another function"):
        verify.recheck(lambda p, s, x: x[:1] * x[1:2] - 1, certificate)(*args)


# ---- limits and refusals ---------------------------------------------------------------------


def test_limits() -> None:
    params, box, minimum = instance(2)
    told: list[verify.Progress] = []
    run = verify.verify(RELU, strategy=STRATEGIES["neurons"], time_limit=1e-6, progress=told.append)
    found = run(params, jnp.array([minimum - 1e-3]), box)
    assert found.status == "undecided" and found.reason == "the time is up"
    assert -np.inf < found.lower <= 1e-3 and found.statistics.open
    assert "undecided (the time is up)" in str(found)
    small = verify.verify(RELU, strategy=STRATEGIES["neurons"], memory_limit=1e-9)
    assert "memory" in small(params, jnp.array([minimum - 1e-3]), box).reason


def test_an_interrupted_search_says_what_it_knows() -> None:
    params, box, minimum = instance(2)

    def interrupt(state: verify.Progress) -> None:
        raise KeyboardInterrupt

    run = verify.verify(RELU, strategy=STRATEGIES["inputs"], progress=interrupt)
    found = run(params, jnp.array([minimum - 1e-4]), box)
    assert found.status == "proved" or found.reason == "interrupted"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time_limit": 0}, "time_limit must be a positive number"),
        ({"memory_limit": -1}, "memory_limit must be a positive number"),
        ({"strategy": "inputs"}, "strategy must be"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        verify.verify(RELU, **options)


def test_what_is_no_property() -> None:
    x = jnp.zeros(2)
    for fn, message in (
        (lambda x: x > 0, "returns bool"),
        (lambda x: x.astype(int), "returns int"),
        (lambda x: (), "no outputs"),
    ):
        with pytest.raises(ArgumentError, match=message):
            verify.verify(fn)(x, 1.0)
    for build in (verify.all_of, verify.any_of):
        with pytest.raises(ArgumentError, match="at least one"):
            build()
        with pytest.raises(ArgumentError, match="made of functions"):
            build(3)
    with pytest.raises(ArgumentError, match="positive"):
        verify.verify(3)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="inside jit"):
        jax.jit(lambda x: verify.verify(lambda x: x)(x, 1.0).lower)(x)
    with pytest.raises(ArgumentError, match="batch must be"):
        verify.NeuronSplits(batch=0)
    unbounded = verify.verify(lambda x: jax.nn.relu(x) - jnp.sin(x) - 2)
    found = unbounded(Box(-jnp.inf, jnp.array(3.0)))
    assert found.status in ("refuted", "undecided")


# ---- the transform ---------------------------------------------------------------------------


def wavy(x: Any) -> Any:
    return jnp.stack([jnp.sin(3 * x[0]) * x[1], x[0] * x[1] - x[0] ** 2])


def test_the_transform() -> None:
    """Sound, tighter with every step, in `jit` and `vmap`."""
    x, eps = jnp.array([0.3, 0.2]), 0.7
    points = jnp.asarray(np.asarray(x) + eps * np.random.default_rng(0).uniform(-1, 1, (5000, 2)))
    values = np.asarray(jax.vmap(wavy)(points))
    crown = jaxlirpa.crown(wavy)(x, eps)
    before = crown.upper - crown.lower
    for steps in (0, 6, 30):
        run = jax.jit(verify.branch_and_bound(wavy, steps=steps, batch=4))
        lower, upper = run(x, eps)
        assert np.all((lower <= values) & (values <= upper))
        assert np.all(upper - lower <= before + 1e-9)
        before = upper - lower
    assert before[1] < 0.75 * (crown.upper - crown.lower)[1]
    assert np.all(before < values.max(0) - values.min(0) + 0.3)
    few = jax.jit(verify.branch_and_bound(wavy, capacity=3))(x, eps)
    assert np.all((few.lower <= values) & (values <= few.upper))


def test_the_transform_refuses_balls() -> None:
    with pytest.raises(ArgumentError, match="splits boxes"):
        verify.branch_and_bound(wavy)(LpBall(jnp.zeros(2), 1.0, ord=2))
