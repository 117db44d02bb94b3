"""What users declare is bounded soundly, known by what it is, and refused where it is not true."""

from __future__ import annotations

import dataclasses
import doctest
import functools
import gc
import inspect
import types
from collections.abc import Callable
from typing import Any

import arithmetic
import jax
import jax.numpy as jnp
import lirpa
import numpy as np
import oracles
import pytest
from jax.extend.core import Primitive

import jaxlirpa
from jaxlirpa import Box, ExtensionError, LpBall, extend
from jaxlirpa._ops import declared
from jaxlirpa._relax.lines import relax

BOX = Box(jnp.array([-2.0, 0.5, -0.1]), jnp.array([1.0, 2.0, 0.3]))
BEND = 0.5**0.5


def bump(x: Any) -> Any:
    return jnp.exp(-x * x)


WHOLE = extend.univariate(bump, inflections=(-BEND, BEND))


def primitives(fn: Callable[..., Any], *args: Any) -> list[str]:
    graph = extend.trace(fn, *args).graph
    return [graph.nodes[i].primitive.split(".")[0] for i in graph.live()][1:]


# ---- relaxations ---------------------------------------------------------------------------

CUSP = 6**-0.5
# What makes a relaxation, and the function.
RELAXATIONS: dict[str, tuple[Callable[..., Any], Callable[[], Any]]] = {
    "bump": (bump, lambda: extend.relaxation(bump, inflections=(-BEND, BEND))),
    "bump, unknown": (bump, lambda: extend.relaxation(bump)),
    # Two wells that grow without limit: the slopes of its convex pieces are not separated.
    "wells": (
        lambda x: x**4 - x**2,
        lambda: extend.relaxation(lambda x: x**4 - x**2, inflections=(-CUSP, CUSP)),
    ),
    "wells, unknown": (lambda x: x**4 - x**2, lambda: extend.relaxation(lambda x: x**4 - x**2)),
    "exp": (jnp.exp, lambda: extend.relaxation(jnp.exp, inflections=())),
    "concave": (
        lambda x: -x * x,
        lambda: extend.relaxation(lambda x: -x * x, inflections=(), convex_first=False),
    ),
    "abs": (jnp.abs, lambda: extend.relaxation(jnp.abs, inflections=())),
    "abs, unknown": (jnp.abs, lambda: extend.relaxation(jnp.abs)),
    "constant": (
        lambda x: 0 * x + 3,
        lambda: extend.relaxation(lambda x: 0 * x + 3, inflections=()),
    ),
    "jumps": (
        lambda x: jnp.where(x > 0.3, x, jnp.floor(x)),
        lambda: extend.relaxation(lambda x: jnp.where(x > 0.3, x, jnp.floor(x))),
    ),
    "floor": (
        lambda x: jnp.floor(x) + 2 * x,
        lambda: extend.relaxation(lambda x: jnp.floor(x) + 2 * x),
    ),
    "false derivative": (
        lambda x: jnp.round(x) + x,
        lambda: extend.relaxation(lambda x: x + jax.lax.stop_gradient(jnp.round(x) - x) + x),
    ),
}


@functools.cache
def relaxed(name: str) -> Any:
    """A relaxation, which is made once."""
    return RELAXATIONS[name][1]()


def boxes(dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of all sizes, beside the interesting places too, and single points."""
    rng = np.random.default_rng(0)
    count = 1500
    centre = rng.choice([0, -BEND, BEND, CUSP, 0.3, 5.0], count)
    centre = centre + rng.normal(size=count) * 10 ** rng.uniform(-6, 3, count)
    radius = 10 ** rng.uniform(-7, 3, count) * (rng.uniform(size=count) > 0.1)
    big = rng.choice([1e18, -1e18, 1e30], 20)
    centre = np.concatenate([centre, big])
    radius = np.concatenate([radius, np.abs(big) * rng.uniform(0, 2, 20)])
    return (centre - radius).astype(dtype), (centre + radius).astype(dtype)


@pytest.mark.few(4)
@pytest.mark.parametrize("dtype", [np.float32, pytest.param(np.float64, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", RELAXATIONS)
def test_relaxations_contain_the_function(name: str, dtype: Any):
    (f, _), relaxation = RELAXATIONS[name], relaxed(name)
    lower, upper = boxes(dtype)
    part = np.concatenate([np.linspace(0, 1, 61), 1e-3 * np.linspace(0, 1, 10)])[:, None]
    x = np.clip(lower * (1 - part) + upper * part, lower, upper).astype(dtype)
    y = np.asarray(f(jnp.asarray(x, np.float64)))
    box = extend.Interval(jnp.asarray(lower), jnp.asarray(upper))
    image, lines = jax.tree.map(np.asarray, (relaxation.image(box), relax(relaxation, box)))
    below, above = lines.lower_slope * x.astype(float), lines.upper_slope * x.astype(float)
    assert not any(np.isnan(z).any() for z in (*image, *lines))
    for low, high, size in (
        (image.lower, image.upper, np.abs(y)),
        (below + lines.lower_offset, above + lines.upper_offset, np.abs([y, below, above]).max(0)),
    ):
        room = oracles.ULPS * np.finfo(dtype).eps * size + 1e-37
        assert (low - room <= y).all(), name
        assert (y <= high + room).all(), name


@pytest.mark.few(4)
@pytest.mark.parametrize("name", RELAXATIONS)
def test_boxes_that_are_not_finite_promise_nothing_wrong(name: str):
    (f, _), relaxation = RELAXATIONS[name], relaxed(name)
    nan, inf = np.nan, np.inf
    lower, upper = (
        np.array([-inf, -inf, 1.0, nan, nan, 0.0]),
        np.array([inf, 2.0, inf, nan, 1.0, nan]),
    )
    lines = relax(relaxation, extend.Interval(jnp.asarray(lower), jnp.asarray(upper)))
    assert (lines.lower_slope == 0).all() and (lines.upper_slope == 0).all()
    for x in (-1e3, -1.0, 1.5, 1e3):
        inside = ~((x < lower) | (x > upper))
        y = float(f(jnp.asarray(x)))
        assert (lines.lower_offset[inside] <= y).all() and (y <= lines.upper_offset[inside]).all()


def test_known_bends_are_as_tight_as_the_range_and_the_chord():
    lower, upper = lirpa.ibp(WHOLE)(Box(jnp.array([-2.0, 1.0, 0.0]), jnp.array([1.0, 2.0, 0.0])))
    oracles.equal(lower, [np.exp(-4), np.exp(-4), 1])
    oracles.equal(upper, [1, np.exp(-1), 1])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("wells", marks=pytest.mark.long),
        pytest.param("abs, unknown", marks=pytest.mark.slow),
    ],
)
def test_derivatives_with_respect_to_the_box_are_finite(name: str):
    relaxation = relaxed(name)

    def total(lower: Any, upper: Any) -> Any:
        box = extend.Interval(lower, upper)
        return sum(jnp.sum(x) for x in relax(relaxation, box))

    lower, upper = jnp.array([-1.0, 0.0, 0.5, -3.0]), jnp.array([1.0, 0.0, 0.6, 300.0])
    for gradient in arithmetic.jit(jax.grad(total, argnums=(0, 1)))(lower, upper):
        assert jnp.isfinite(gradient).all()


# ---- functions -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fn",
    [
        WHOLE,
        jax.jit(WHOLE),
        jax.vmap(WHOLE),
        jax.vmap(jax.jit(jax.vmap(WHOLE))),
        jax.checkpoint(WHOLE),
        lambda x: jax.lax.map(WHOLE, x)[0],
        lambda x: jax.lax.cond(True, WHOLE, jnp.sin, x),
    ],
)
def test_a_function_is_whole_wherever_it_appears(fn: Callable[[Any], Any]):
    x = Box(jnp.full((1, 2), -1.0), jnp.full((1, 2), 0.5))
    assert "extend" in primitives(fn, x) and "exp" not in primitives(fn, x)


@pytest.mark.slow
def test_a_function_is_one_node_and_sound_in_every_method():
    def fn(x: Any) -> Any:
        return jax.vmap(WHOLE)(2 * x) - 0.3 * WHOLE(x + 1)

    assert primitives(fn, BOX).count("extend") == 2
    transforms = {"crown_ibp": jaxlirpa.crown_ibp}
    oracles.check_every_node(fn, [BOX], transforms)
    assert jax.tree.all(
        jax.tree.map(jnp.allclose, jax.jit(jaxlirpa.crown(fn))(BOX), jaxlirpa.crown(fn)(BOX))
    )
    mapped = jax.vmap(lirpa.crown(WHOLE))(BOX)
    oracles.equal(mapped.lower, lirpa.crown(WHOLE)(BOX).lower)
    gradient = jax.grad(lambda r: lirpa.crown(fn)(BOX.lower, r).upper.sum())(0.3)
    assert jnp.isfinite(gradient)


def test_to_jax_a_function_is_what_it_was():
    x = jnp.array([-1.0, 0.5])
    for change in (jax.vmap, jax.jit, lambda f: jax.vmap(jax.grad(jax.grad(f)))):
        oracles.equal(change(WHOLE)(x), change(bump)(x))
    oracles.equal(jax.grad(lambda x: jax.vmap(WHOLE)(x).sum())(x), jax.vmap(jax.grad(bump))(x))
    assert WHOLE(1).dtype == bump(jnp.asarray(1)).dtype and WHOLE.__name__ == "bump"


def test_a_derivative_is_not_taken_for_the_function():
    fn = jax.vmap(jax.grad(WHOLE))
    oracles.check_every_node(fn, [BOX])
    oracles.check_every_node(lambda x: jax.jvp(WHOLE, (x,), (2 * x,)), [BOX])


def test_a_name_alone_proves_nothing():
    (name,) = (n.primitive for n in extend.trace(WHOLE, BOX).graph.nodes if n.primitive != "input")

    def impostor(x: Any) -> Any:
        return jnp.sin(x)

    impostor.__name__ = impostor.__qualname__ = name
    assert primitives(jax.jit(impostor), BOX) == ["sin"]
    assert primitives(bump, BOX) != ["extend"]


def test_a_domain_is_kept():
    root = extend.univariate(jnp.sqrt, inflections=(), convex_first=False, domain=(0, np.inf))
    lower, upper = lirpa.crown(root)(Box(0.0, 4.0))
    oracles.contains(np.array([0.0, 2.0]), lower, upper)
    assert upper - lower < 2.001
    with pytest.raises(jaxlirpa.DomainError, match="between 0 and inf"):
        jaxlirpa.crown(root)(Box(-1.0, 4.0))
    lower, upper = arithmetic.jit(lirpa.crown(root))(Box(-1.0, 4.0))
    assert lower == -np.inf and upper == np.inf


@pytest.mark.few(5)
@pytest.mark.parametrize(
    ("f", "says", "reason"),
    [
        (lambda x: x**3, {"inflections": ()}, "is not convex between"),
        (jnp.sin, {"inflections": (0.0,), "convex_first": False}, "is not con"),
        (jnp.exp, {"inflections": (), "convex_first": False}, "is not concave"),
        (lambda x: x - x.mean(), {"inflections": ()}, "entry by entry"),
        (jnp.sum, {"inflections": ()}, "entry by entry"),
        (lambda x: x + np.arange(3.0), {"inflections": ()}, "entry by entry|traced"),
        (lambda x: x.astype(jnp.float32), {"inflections": ()}, "the type of its operand"),
        (lambda x: 3.0, {"inflections": ()}, "depend on it"),
        (jnp.log, {"inflections": (), "convex_first": False}, "Declare its `domain`"),
        (lambda x: jax.lax.stop_gradient(x) ** 2, {"inflections": ()}, "leaves the .* relaxation"),
        (jax.lax.bessel_i0e, {}, "bounded by its parts"),
        (jnp.exp, {"inflections": (3.0,), "domain": (0.0, 1.0)}, "not all inside"),
        (jnp.exp, {"domain": (1.0, 1.0)}, "empty"),
    ],
)
def test_false_declarations_are_refused(f: Callable, says: dict[str, Any], reason: str):
    with pytest.raises(ExtensionError, match=reason):
        extend.univariate(f, **says)


def test_a_declaration_ends_with_its_function():
    before = declared.vocabulary().keys()
    extend.relaxation(bump)
    function = extend.univariate(lambda x: 2 * x, inflections=())
    (name,) = declared.vocabulary().keys() - before
    lirpa.ibp(function)(BOX)
    del function
    jax.clear_caches()  # of traces that call it
    gc.collect()
    assert name not in declared.vocabulary()


# ---- primitives ----------------------------------------------------------------------------


def new(name: str, f: Callable[..., Any]) -> Primitive:
    primitive = Primitive(name)
    primitive.def_impl(f)
    primitive.def_abstract_eval(lambda x: x)
    return primitive


CUBE = new("cube", lambda x: x**3)
RIGHT = extend.relaxation(lambda x: x**3, inflections=(0.0,), convex_first=False)
WRONG = extend.relaxation(lambda x: x**3, inflections=(), convex_first=False)
RECORD = extend.Elementwise(lambda node: RIGHT)


@pytest.mark.slow
def test_a_primitive_holds_until_it_is_taken_back():
    with pytest.raises(jaxlirpa.UnsupportedPrimitiveError):
        lirpa.ibp(CUBE.bind)(BOX)
    with extend.primitive(CUBE, RECORD, CUBE.bind, BOX):
        oracles.check_every_node(lambda x: CUBE.bind(2 * x) - x, [BOX])
        again = extend.primitive(CUBE, RECORD, CUBE.bind, BOX)
        with pytest.raises(ExtensionError, match="declared already"):
            extend.primitive(CUBE, extend.Move(), CUBE.bind, BOX)
        other = new("cube", lambda x: -x)
        with pytest.raises(jaxlirpa.UnsupportedPrimitiveError):
            lirpa.ibp(other.bind)(BOX)
        with pytest.raises(ExtensionError, match="declared already"):
            extend.primitive(other, RECORD, other.bind, BOX)
    again.undo()
    with pytest.raises(jaxlirpa.UnsupportedPrimitiveError):
        lirpa.ibp(CUBE.bind)(BOX)
    assert not declared.PRIMITIVES and not declared.RECORDS


@pytest.mark.few(1)
@pytest.mark.parametrize("name", ["exact", "ball"])
def test_parameters_of_a_primitive_are_its_own(name: str):
    """Rules of the package give their own nodes parameters of these names."""
    cube = new("named cube", lambda x, **_: x**3)
    cube.def_abstract_eval(lambda x, **_: x)
    bind = functools.partial(cube.bind, **{name: True})
    size = BOX.lower.size
    first, second = np.random.default_rng(0).normal(size=(2, size, size))

    def fn(x: Any) -> Any:
        z = second @ bind(first @ x.reshape(-1))
        return bind(z - z[::-1])

    with extend.primitive(cube, RECORD, bind, BOX):
        oracles.check_every_node(fn, [BOX])
        values = np.stack([fn(x) for x in oracles.sample(BOX, 0, 64)])
        for method in oracles.METHODS.values():
            oracles.contains(values, *method(fn)(BOX))


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (extend.Elementwise(lambda node: WRONG), r"leaves its bounds by .*crown"),
        (extend.Opaque(lambda node, boxes: tuple(boxes)), "leaves its bounds by ibp"),
        (extend.Move(), "cannot be bounded as Move"),
    ],
)
def test_false_records_are_refused(record: Any, reason: str):
    with pytest.raises(ExtensionError, match=reason):
        extend.primitive(CUBE, record, CUBE.bind, BOX)
    with pytest.raises(jaxlirpa.UnsupportedPrimitiveError):
        lirpa.ibp(CUBE.bind)(BOX)


REFUSED = jax.lax.linalg.cholesky


@pytest.mark.parametrize("given", ["exp", "scan", "no such primitive", jnp.exp])
def test_what_is_known_or_no_primitive_is_refused(given: Any):
    with pytest.raises(ExtensionError, match=r"already|no primitive"):
        extend.primitive(given, RECORD, jnp.exp, BOX)


def test_the_example_has_to_apply_the_primitive():
    with pytest.raises(ExtensionError, match="does not apply"):
        extend.primitive(CUBE, RECORD, jnp.tanh, BOX)


def test_a_primitive_of_jax_may_be_declared_by_name():
    """The Bessel function `exp(-x) I0(x)` falls where its argument is positive."""
    record = extend.Opaque(
        lambda node, boxes: (extend.Interval(node(boxes[0].upper)[0], node(boxes[0].lower)[0]),)
    )
    positive = Box(jnp.array([0.0, 1.0]), jnp.array([1.0, 5.0]))
    with extend.primitive("bessel_i0e", record, jax.lax.bessel_i0e, positive):
        oracles.check_every_node(jax.lax.bessel_i0e, [positive])
    with pytest.raises(ExtensionError, match="leaves its bounds"):
        extend.primitive("bessel_i0e", record, jax.lax.bessel_i0e, BOX)


# ---- sets ----------------------------------------------------------------------------------


class Changed(extend.PerturbationSet):
    """A ball one of whose methods is another one's."""

    def __init__(self, ball: Any, changes: dict[str, Any]):
        self.ball, self.changes = ball, changes

    def split(self) -> Any:
        parts, structure = self.ball.split()
        return [Changed(part, self.changes) for part in parts], structure

    def __getattr__(self, name: str) -> Any:
        change = self.changes.get(name)
        return types.MethodType(change, self.ball) if change else getattr(self.ball, name)


jax.tree_util.register_pytree_node(
    Changed, lambda s: ((s.ball,), tuple(s.changes.items())), lambda c, x: Changed(x[0], dict(c))
)

BALL = LpBall(jnp.array([[1.0, 2.0, 3.0]]), 0.5, ord=2)
MEMBERS = oracles.sample(BALL, 0, 40)


@pytest.mark.slow
def test_the_sets_of_the_package_keep_the_protocol():
    extend.check_set(BALL, MEMBERS)
    extend.check_set(BOX, oracles.sample(BOX, 0, 40))
    both = LpBall({"a": jnp.zeros(2), "b": jnp.ones(())}, 0.1, ord=1)
    extend.check_set(both, oracles.sample(both, 0, 40))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {
                "concretize": lambda s, a, o=False: dataclasses.replace(s, radius=0.1).concretize(
                    a, o
                )
            },
            "exclude",
        ),
        ({"concretize": lambda s, a, o=False: s.concretize(a)}, "from_point"),
        (
            {"concretize": lambda s, a, o=False: LpBall.concretize(s, a + 0.01, o)},
            "agree|exclude|above",
        ),
        ({"hull": lambda s: dataclasses.replace(s, radius=jnp.array(0.4)).hull()}, "hull"),
        ({"point": lambda s: s.center + 1}, "point"),
    ],
)
def test_wrong_sets_are_found_out(changes: dict[str, Any], reason: str):
    wrong = Changed(BALL, changes)
    with pytest.raises(ExtensionError, match=reason):
        extend.check_set(wrong, MEMBERS)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Simplex(extend.PerturbationSet):
    """Entries of the last axis that are not negative and sum to one."""

    like: Any
    refuses: bool = dataclasses.field(metadata={"static": True})
    is_box = False

    @property
    def aval(self) -> Any:
        return jax.ShapeDtypeStruct(self.like.shape, self.like.dtype)

    def split(self) -> Any:
        return [self], jax.tree.structure(0)

    def hull(self) -> Any:
        return extend.Interval(jnp.zeros_like(self.like), jnp.ones_like(self.like))

    def point(self) -> Any:
        return jnp.full_like(self.like, 1 / self.like.shape[-1])

    def concretize(self, coefficients: Any, from_point: bool = False) -> Any:
        axes = tuple(range(1, coefficients.ndim))
        shift = jnp.sum(coefficients * self.point(), axes) if from_point else 0
        ends = coefficients.min(-1), coefficients.max(-1)
        return extend.Interval(*(jnp.sum(x, axes[:-1]) - shift for x in ends))

    def batch_axes(self, axis: int) -> Any:
        if self.refuses and axis == self.like.ndim - 1:
            raise jaxlirpa.SetError("the last axis cannot be mapped")
        return Simplex(axis, self.refuses)

    def expand(self, axis: int) -> Any:
        return Simplex(jnp.expand_dims(self.like, axis), self.refuses)


def test_an_axis_that_cannot_be_mapped_has_to_be_refused():
    rows = jax.random.dirichlet(jax.random.key(0), jnp.ones(3), (20, 2))
    extend.check_set(Simplex(jnp.zeros((2, 3)), refuses=True), rows)
    with pytest.raises(ExtensionError, match=r"mapped over axis 1|expand"):
        extend.check_set(Simplex(jnp.zeros((2, 3)), refuses=False), rows)
    single = Simplex(jnp.zeros((2, 3)), refuses=True)
    lower, upper = lirpa.crown(lambda p: p @ jnp.arange(3.0), in_axes=0)(single)
    oracles.equal(lower, [0, 0])
    oracles.equal(upper, [2, 2])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rows(Simplex):
    """The same, which knows that what it leaves to a row is a simplex."""

    def concretize_per_example(self, coefficients: Any, axis: int) -> Any:
        return extend.one_by_one(self, coefficients, axis)

    def batch_axes(self, axis: int) -> Any:
        return Rows(axis, self.refuses)

    def expand(self, axis: int) -> Any:
        return Rows(jnp.expand_dims(self.like, axis), self.refuses)


def test_a_set_of_the_users_own_keeps_batches_cheap():
    """Examples are independent where it says what it leaves to each of them."""

    def fn(p: Any) -> Any:
        return jnp.abs(p @ jnp.arange(12.0).reshape(3, 4) % 5 - 2) @ jnp.array([1.0, -1, 2, 0.5])

    batch, single = (jnp.zeros((n, 3)) for n in (4, 1))
    assert not extend.trace(fn, Simplex(batch, True)).graph.batch_axes
    graph = extend.trace(fn, Rows(batch, True)).graph
    assert {graph.batch_axes[ref] for ref in graph.targets} == {0}
    for method in (lirpa.crown, lirpa.forward_crown, lirpa.crown_ibp):
        found, alone = method(fn)(Rows(batch, True)), method(fn)(Simplex(single, True))
        for limit, expected in zip(found, alone, strict=True):
            np.testing.assert_allclose(limit, np.repeat(expected, 4), 1e-12)


def test_a_set_may_be_too_small_for_its_members():
    with pytest.raises(ExtensionError, match="exclude a member"):
        extend.check_set(BALL, MEMBERS + 1)
    with pytest.raises(ExtensionError, match="shape"):
        extend.check_set(BALL, MEMBERS[..., :2])


# ---- domains -------------------------------------------------------------------------------


def test_a_backward_domain_runs():
    """How many paths lead from an output to each input."""

    class Paths:
        def pull(self, index: int, node: Any, outputs: Any) -> Any:
            count = sum(x for x in outputs if x is not None)
            return [(ref, count) for ref in node.perturbed]

        def add(self, a: int, b: int) -> int:
            return a + b

    graph, sets, _ = extend.trace(lambda x: jnp.tanh(x) + jnp.exp(x) + x, BOX)
    (target,) = graph.targets
    found = extend.backward(graph, Paths(), {target: 1}, sets.__contains__)
    assert found == {graph.inputs[0]: 3}


# ---- documentation -------------------------------------------------------------------------

PUBLIC = [
    n for n in vars(extend) if not n.startswith("_") and not inspect.ismodule(vars(extend)[n])
]
EXAMPLES = [
    pytest.param(test, id=test.name)
    for name in PUBLIC
    for test in doctest.DocTestFinder(recurse=False).find(getattr(extend, name), name)
    if test.examples
]


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name: str):
    assert inspect.getdoc(getattr(extend, name))


@pytest.mark.few(2)
@pytest.mark.parametrize("example", EXAMPLES)
def test_docstring_examples_run(example: doctest.DocTest):
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    output: list[str] = []
    result = doctest.DocTestRunner(optionflags=options, verbose=False).run(
        example, out=output.append
    )
    assert result.failed == 0, "".join(output)
