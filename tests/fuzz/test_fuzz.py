"""Random programs of everything that is declared: no value outside of the bounds of its node.

Programs are counted in seconds of processor. Seeds begin at 0 each time, so that a failure comes
back; `python -m tests.fuzz` goes where no test has been.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import oracles
import pytest
from test_ledger import NEWER

import jaxlirpa
from fuzz.campaign import in_turn, run, seeds
from fuzz.check import Case, random_case, spread_by_rounding, violations
from fuzz.programs import HANDS, OPERATIONS, SHAPES, Line, Operation, Program, wanted
from fuzz.sets import farthest, members
from jaxlirpa._graph.graph import Node, Value
from jaxlirpa._graph.trace import Builder
from jaxlirpa._ops.families import Affine, Elementwise
from jaxlirpa._ops.registry import RECORDS
from jaxlirpa._ops.rules import RULES
from jaxlirpa._relax.piecewise import Clip

DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


def few(*templates: str) -> list[Operation]:
    """Some operations between matrices."""
    return [x for x in OPERATIONS if x.template in templates and {*x.operands, x.result} == {"m"}]


def check(
    seeds: Iterable[int],
    dtype: np.dtype,
    record_property: Callable[[str, object], None],
    methods: Callable[[int], Sequence[str]] = in_turn,
) -> None:
    for seed in seeds:
        outcome = run(seed, dtype, methods=methods(seed))
        assert outcome.verdict in ("held", "rounded"), outcome.report
    record_property("programs", seed + 1)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_random_programs(dtype: np.dtype, record_property: Callable[[str, object], None]):
    check(seeds(5, least=4), dtype, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_many_random_programs(dtype: np.dtype, record_property: Callable[[str, object], None]):
    check(seeds(60, least=40), dtype, record_property)


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_random_programs_by_every_method(
    dtype: np.dtype, record_property: Callable[[str, object], None]
):
    check(range(100), dtype, record_property, lambda seed: tuple(oracles.METHODS))


# ---- the grammar ---------------------------------------------------------------------------


@pytest.mark.slow
def test_every_record_is_met():
    """And every line has the kind that is declared."""
    met: set[str] = set()
    for number, operation in enumerate(OPERATIONS):
        case = random_case(number, DTYPES[1], [operation])
        avals = [jax.ShapeDtypeStruct(SHAPES[x.kind], case.dtype) for x in case.program.inputs]
        shapes = jax.eval_shape(case.program.function(case.dtype), *avals)
        for line, value in zip(case.program.outputs, shapes, strict=True):
            kind = next(x.kind for x in case.program.lines if x.number == line)
            assert (value.shape, value.dtype) == (SHAPES[kind], case.dtype), str(case.program)
        met |= {node.primitive for node in case.graph().nodes}
    # What a rule makes of the sets is not met: programs are traced without theirs.
    unmet = {"convert_element_type", "ball_product"}
    assert RECORDS.keys() - met - NEWER - unmet == set()


def test_every_operation_is_wanted_in_turn():
    hands = [sum(x.number % HANDS == hand for x in OPERATIONS) for hand in range(HANDS)]
    assert {wanted(seed) for seed in range(HANDS * max(hands))} == {*OPERATIONS}


def programs(operations: Sequence[Operation]) -> list[Program]:
    return [random_case(seed, DTYPES[0], operations).program for seed in range(HANDS)]


def test_programs_do_not_depend_on_the_order_of_the_table():
    assert programs(OPERATIONS) == programs(OPERATIONS[::-1])


def test_a_new_template_changes_few_programs():
    """Not more than those of its hand and some that draw it, for each kind that it is of."""
    new = [Operation(kind, kind, "jnp.tanh(2 * {x})") for kind in SHAPES]
    pairs = zip(programs(OPERATIONS), programs([*new, *OPERATIONS]), strict=True)
    changed = [(old, new) for old, new in pairs if old != new]
    assert 1 <= len(changed) <= 8


def test_two_outputs_may_be_one_value():
    lines = (Line(0, "v"), Line(1, "v", "jnp.sin(v0)"), Line(2, "v", "jnp.sin(v0)"))
    sets = jaxlirpa.Box(np.zeros((1, 3)), np.ones((1, 3)))
    assert not violations(Case(Program(lines), {0: sets}, DTYPES[1], 0))


def test_a_program_is_its_seed():
    assert random_case(3, DTYPES[0]).program == random_case(3, DTYPES[1]).program


@pytest.mark.parametrize("ord", [1, 1.5, 2, 5, np.inf])
def test_members_of_balls_are_members(ord: float):
    """Those farthest in a direction too, which attain the dual norm."""
    rng = np.random.default_rng(0)
    center, radius = rng.normal(size=(4, 2, 3)), rng.uniform(size=(4, 2, 3))
    ball = jaxlirpa.LpBall(center, radius, ord)
    directions = rng.normal(size=(4, 50, 2, 3))
    best = farthest(ball, directions, rng)
    for points in (members(ball, rng, 50), best):
        steps = ((points - center[:, None]) / radius[:, None]).reshape(4, 50, -1)
        assert (np.linalg.norm(steps, ord, axis=-1) <= 1 + 1e-12).all()
    for i in range(4):
        one = jaxlirpa.LpBall(center[i], radius[i], ord)
        _, high = oracles.linear_extrema(one, directions[i])
        np.testing.assert_allclose((directions[i] * best[i]).sum((1, 2)), high)


# ---- the tests themselves ------------------------------------------------------------------

WRONG = {
    "neg": Affine((+1,), mixes=False),
    "sub": Affine((+1, +1), mixes=False),
    "tanh": Elementwise(lambda node: Clip(jnp.array(-0.1), jnp.array(0.1))),
}


@pytest.mark.slow
@pytest.mark.parametrize("primitive", WRONG)
def test_a_wrong_record_is_found(primitive: str, monkeypatch: pytest.MonkeyPatch):
    """Soon, and the counter-example is a line or two."""
    monkeypatch.setitem(RECORDS, primitive, WRONG[primitive])
    operations = few("-{x}", "{k} - {x}", "jnp.tanh({x})", "{x} * {k}")
    outcomes = (run(seed, DTYPES[1], operations) for seed in range(12))
    report = next(outcome.report for outcome in outcomes if outcome.verdict == "wrong")
    assert f": {primitive} Ref" in report
    assert report.count(" = ") == 1


def test_rounding_is_no_violation_and_no_excuse(monkeypatch: pytest.MonkeyPatch):
    """`(x + 1000) - 1000` is off by what the sum is rounded to; a wrong rule by more."""
    lines = (Line(0, "m"), Line(1, "m", "v0 + 1000"), Line(2, "m", "v1 - 1000"))
    sets = jaxlirpa.Box(*[np.full((1, 2, 3), x, np.float32) for x in (1e-3, 1.1e-3)])
    case = Case(Program(lines), {0: sets}, DTYPES[0], 0)
    assert all(violation.rounded for violation in violations(case))
    wrong = Elementwise(lambda node: Clip(jnp.float32(0.5), jnp.float32(0.6)))
    monkeypatch.setitem(RECORDS, "sub", wrong)
    assert any(not violation.rounded for violation in violations(case))


@pytest.mark.slow
def test_rounding_of_uses_that_cancel_is_no_violation(monkeypatch: pytest.MonkeyPatch):
    """`2 x (x - x)` is zero, but has slopes of thousands, which are rounded; wrong ones are not."""
    lines = (
        Line(0, "v"),
        Line(1, "v", "(v0 + v0) * (v0 - v0)"),
        Line(2, "v", "jnp.minimum(v1, v0)"),
    )
    ends = np.random.default_rng(0).uniform(2000, 8000, (2, 64, 3))
    sets = jaxlirpa.Box(*(ends * [[[-1]], [[1]]]).astype(np.float32))
    case = Case(Program(lines), {0: sets}, DTYPES[0], 0)
    found = violations(case, ("forward_backward",))
    assert found and all(violation.rounded for violation in found)
    monkeypatch.setitem(RECORDS, "sub", Affine((+1, +1), mixes=False))
    assert any(not violation.rounded for violation in violations(case, ("forward_backward",)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rounding_of_what_is_written_is_no_violation(dtype: np.dtype):
    """Far out `1 - tanh(x)^2` is zero or an ulp, but not the derivative that is bounded."""
    lines = (Line(0, "v"), Line(1, "v", "1 - jnp.square(jnp.tanh(v0))"))
    far = 18 if dtype == DTYPES[1] else 8
    sets = jaxlirpa.Box(*[np.full((1, 3), far + step, dtype) for step in (0, 1e-3)])
    found = violations(Case(Program(lines), {0: sets}, dtype, 0), ("ibp",))
    assert found and all(violation.rounded for violation in found)


def test_rounding_inside_of_a_node_is_no_violation():
    """Far out `(x + sqrt(x^2 + 4)) / 2` is the difference of two large numbers."""
    lines = (Line(0, "s"), Line(1, "s", "jax.nn.squareplus(v0)"), Line(2, "s", "jnp.exp(v1)"))
    sets = jaxlirpa.Box(*[np.array([-11116.0], np.float32)] * 2)
    found = violations(Case(Program(lines), {0: sets}, DTYPES[0], 0), ("ibp",))
    assert found and all(violation.rounded for violation in found)


def test_rounding_beside_an_infinite_bound_is_no_violation():
    """`x - (x - 7.1)` is 7.1, and at -5000 another number."""
    lines = (Line(0, "v"), Line(1, "v", "lax.clamp(v0 - 7.1, v0, v0 + 7.1)"))
    ends = ([-np.inf, -0.2, 0.1], [0.3, -0.1, 0.2])
    sets = jaxlirpa.Box(*[np.array([end] * 8, np.float32) for end in ends])
    found = violations(Case(Program(lines), {0: sets}, DTYPES[0], 0), ("forward_backward",))
    assert found and all(violation.rounded for violation in found)


def test_overflow_inside_of_a_node_is_no_violation():
    """The square of 1e200 is infinite, `(x + sqrt(x^2 + 4)) / 2` is 1e200."""
    lines = (Line(0, "s"), Line(1, "s", "jax.nn.squareplus(v0)"), Line(2, "s", "v1 + 1"))
    sets = jaxlirpa.Box(*[np.array([1e200])] * 2)
    assert not violations(Case(Program(lines), {0: sets}, DTYPES[1], 0), ("ibp",))


def test_a_value_that_is_not_defined_is_no_violation():
    """The sine of minus infinity is NaN, and the largest of NaN may be another number."""
    pooled = "jax.grad(lambda t: jnp.sum(jnp.square(pool(jnp.sin(t)))))(v1)"
    lines = (Line(0, "i"), Line(1, "i", "jnp.log(jnp.abs(v0))"), Line(2, "i", pooled))
    sets = jaxlirpa.Box(*[np.zeros((1, *SHAPES["i"]))] * 2)
    assert not violations(Case(Program(lines), {0: sets}, DTYPES[1], 0), ("ibp",))


def test_a_test_of_what_is_not_defined_is_no_violation(monkeypatch: pytest.MonkeyPatch):
    """The sine of infinity is NaN, of which every comparison is false; a wrong one is found."""
    test = Line(2, "s", "(v1 > -2).astype(v1.dtype)")
    lines = (Line(0, "s"), Line(1, "s", "jnp.sin(jnp.exp(v0))"), test)
    sets = jaxlirpa.Box(np.array([0.0, 0.0]), np.array([0.0, 1e4]))
    case = Case(Program(lines), {0: sets}, DTYPES[1], 0)
    assert not violations(case, ("ibp",))
    monkeypatch.setitem(RECORDS, "gt", RECORDS["lt"])
    assert violations(case, ("ibp",))


def test_rounding_of_what_stands_for_a_value_counts():
    """The larger of two numbers is one of them; bounds are those of their difference, and a sum."""
    lines = (Line(0, "v"), Line(1, "v"), Line(2, "v", "jnp.maximum(v1, v0)"), Line(3, "v", "-v2"))
    points = [np.full((1, 1, 3), x) for x in (-3000.0, 0.1)]
    sets = {k: jaxlirpa.Box(x[0], x[0]) for k, x in enumerate(points)}
    graph = Case(Program(lines), sets, DTYPES[1], 0).graph()
    assert spread_by_rounding(graph, graph.targets[-1], {}, (0, 0), points, 0) > 1e-11


def test_rounding_of_what_a_rule_rewrites_is_told_as_it_is_written():
    """Also where the primitive that is written has no record of its own."""
    lines = (Line(0, "v"), Line(1, "v", "lax.cumprod(v0, 0)"))
    points = [np.full((1, 1, 3), 2.0)]
    sets = {0: jaxlirpa.Box(points[0][0], points[0][0])}
    written = Case(Program(lines), sets, DTYPES[1], 0).written()
    (out,) = written.outputs
    assert written.nodes[out.node].primitive not in RECORDS
    assert 0 < spread_by_rounding(written, out, {}, (0, 2), points, 0) < 1e-11


def test_a_wrong_rewriting_is_found(monkeypatch: pytest.MonkeyPatch):
    """The graph is held against the program, not against itself."""

    def wrong(build: Builder, node: Node) -> tuple[Value, ...] | None:
        return node.perturbed[:1] if len(node.perturbed) == 2 else None

    lines = (Line(0, "v"), Line(1, "v"), Line(2, "v", "jnp.maximum(v0, v1)"))
    low, high = (jaxlirpa.Box(x + np.zeros((1, 3)), x + np.ones((1, 3))) for x in (0, 2))
    case = Case(Program(lines), {0: low, 1: high}, DTYPES[1], 0)
    assert not violations(case)
    monkeypatch.setitem(RULES, "max", (wrong,))
    assert any(not violation.rounded for violation in violations(case))
