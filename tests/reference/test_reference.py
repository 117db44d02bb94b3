"""Bounds of the reference cases: never wider than stored, never violated by an attained point.

Where both verifiers relax alike the bounds must be equal; `DIFFERENT` lists every other case.
Cases that are not committed are read from `program.LIBRARY` and skipped where it is absent.
"""

import functools
from collections.abc import Callable
from typing import Any

import arithmetic
import jax
import numpy as np
import pytest

import jaxlirpa

from . import program

METHODS: dict[str, Callable[..., Any]] = {
    "ibp": jaxlirpa.ibp,
    "crown-ibp": jaxlirpa.crown_ibp,
    "crown": jaxlirpa.crown,
    "forward": jaxlirpa.forward_crown,
    "forward+backward": functools.partial(jaxlirpa.crown, intermediate=jaxlirpa.forward_crown),
}
SMALL = (
    "mlp_relu_linf_a",
    "mlp_relu_linf_b",
    "mlp_relu_l2_a",
    "mlp_relu_l2_b",
    "mlp_relu_l1_a",
    "mlp_relu_l1_b",
    "mlp_leaky_relu",
    "mlp_tanh",
    "mlp_sigmoid",
    "mlp_abs",
    "mlp_hardtanh",
    "mlp_box",
    "mlp_margin_spec",
    "cnn_avgpool",
    "cnn_batchnorm",
    "cnn_residual",
    "cnn_dense_concat",
)
LARGE = (
    "mnist_cnn_small",
    "mnist_cnn_small_margin_l2",
    "mnist_a_adv_box",
    "cifar_2c2f",
)
# Functions whose lines the reference reads from tables, or draws around their parts.
CURVED = (
    "elem_cos",
    "elem_exp",
    "elem_log",
    "elem_pow2",
    "elem_pow3",
    "elem_reciprocal",
    "elem_sin",
    "elem_sqrt",
    "elem_square",
    "mlp_atan",
    "mlp_elu",
    "mlp_silu",
    "mlp_softplus",
)
# Functions of several perturbed values, where planes are chosen by another rule.
JOINT = (
    "attention_novar",
    "bilinear_mul",
    "ce_loss_fusion",
    "cnn_maxpool",
    "division",
    "minmax_mlp",
    "mlp_gelu",
    "softmax_mlp",
    "weights_mlp_l2",
    "weights_mlp_linf",
    "weights_mlp_linf_bias",
)
JOINT_LARGE = ("attention_ln", "lstm3")
OTHER_RULES = (*CURVED, *JOINT, *JOINT_LARGE)
COVERED = (*SMALL, *LARGE, *OTHER_RULES, "weights_mlp_l2_first_layer")
JACOBIANS = ("jacobian_relu", "jacobian_tanh")
ROUNDING = 1e-9
WIDEST = 1 + 1e-6
# Where lines and planes are chosen by another rule, for a box or two it is a worse one.
WIDEST_BY_OTHER_RULES = 1.001

INTERSECTED = "inner boxes are intersected with interval bounds, which the reference does not do"
PADDED = (
    "at padded borders the reference takes the norm of the whole kernel, not of the part inside"
)
GUARDED = "the reference adds 1e-8 to denominators"
# Why the bounds of these methods are not equal; everywhere else they are, up to rounding.
DIFFERENT: dict[str, dict[str, str]] = {
    "mlp_relu_linf_b": {"forward": INTERSECTED},
    "mlp_relu_l2_b": {"forward": INTERSECTED},
    "mlp_relu_l1_b": dict.fromkeys(("crown", "forward", "forward+backward"), INTERSECTED),
    "mlp_hardtanh": dict.fromkeys(("crown-ibp", "crown"), GUARDED),
    "mnist_cnn_small": dict.fromkeys(("crown", "forward", "forward+backward"), INTERSECTED),
    "mnist_cnn_small_margin_l2": {
        **dict.fromkeys(("ibp", "crown-ibp"), PADDED),
        **dict.fromkeys(("crown", "forward", "forward+backward"), INTERSECTED),
    },
    "mnist_a_adv_box": dict.fromkeys(("crown", "forward", "forward+backward"), INTERSECTED),
}


def each_case(*names: str) -> list[Any]:
    """Test parameters ``(name)``; an absent case carries a skip with its reason."""
    absent = pytest.mark.skip(reason=f"no such case in {program.FIXTURES} or {program.LIBRARY}")

    def marks(name: str) -> list[pytest.MarkDecorator]:
        skip = [] if program.directory(name) else [absent]
        return [*skip, pytest.mark.slow] if name in (*LARGE, *JOINT_LARGE) else skip

    return [pytest.param(name, marks=marks(name)) for name in names]


def each_method(*names: str) -> list[Any]:
    """Test parameters ``(name, method)``, the methods stored for a case.

    Functions that we bound by other rules compile longest: by default by two methods only.
    """
    pairs = []
    for parameter in each_case(*names):
        (name,) = parameter.values
        stored = program.load(name).record["methods"] if program.directory(name) else METHODS
        for method in (m for m in METHODS if m in stored):
            later = name in OTHER_RULES and method not in ("ibp", "crown")
            marks = [*parameter.marks, pytest.mark.slow] if later else parameter.marks
            pairs.append(pytest.param(name, method, marks=marks))
    return pairs


def compiled(case: program.Case, bound: Callable[..., Any]) -> Callable[..., Any]:
    """Computed in NumPy for small cases, which compile longer than they run."""
    small = sum(x.size for x in jax.tree.leaves(program.arguments(case, perturbed=False))) < 10_000
    return arithmetic.jit(bound) if small else jax.jit(bound)


@functools.cache
def bounds(name: str, method: str) -> program.Bounds:
    """Our bounds of a case, one independent example per row."""
    case = program.load(name)
    bound = METHODS[method](program.function(case), in_axes=program.in_axes(case))
    lower, upper = compiled(case, bound)(*program.arguments(case))
    return np.asarray(lower), np.asarray(upper)


def reference(name: str, method: str) -> program.Bounds:
    """Stored bounds of a case, intersected with stored interval bounds, as ours are."""
    case = program.load(name)
    (lower, upper), (below, above) = case.bounds(method), case.bounds("ibp")
    return np.maximum(lower, below), np.minimum(upper, above)


def assert_contain(ours: program.Bounds, inside: program.Bounds) -> None:
    """Interval bounds contain another interval up to rounding."""
    slack = ROUNDING * (1 + np.abs(inside))
    assert np.all(ours[0] <= inside[0] + slack[0])
    assert np.all(ours[1] >= inside[1] - slack[1])


def assert_as_tight(name: str, method: str, ours: program.Bounds) -> None:
    """No bounds are wider than the reference's; they are equal unless a difference is known."""
    (lower, upper), (below, above) = ours, program.load(name).bounds(method)
    widest = WIDEST_BY_OTHER_RULES if name in OTHER_RULES else WIDEST
    assert np.all(upper - lower <= widest * (above - below))
    if name in OTHER_RULES:
        return
    below, above = theirs = reference(name, method)
    if why := DIFFERENT.get(name, {}).get(method):
        assert np.min((upper - lower) / (above - below)) < 1 - ROUNDING, f"equal, although {why}"
    else:
        np.testing.assert_allclose(ours, theirs, rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("name", each_case(*COVERED, *JACOBIANS))
def test_rebuilt_network_gives_the_stored_output(name: str) -> None:
    case = program.load(name)
    output = arithmetic.call(program.function(case), *program.arguments(case, perturbed=False))
    np.testing.assert_allclose(output, case.arrays["clean"], rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.few(34, slow=40)
@pytest.mark.parametrize("name, method", each_method(*COVERED))
def test_bounds_are_sound_and_as_tight_as_the_reference(name: str, method: str) -> None:
    case = program.load(name)
    ours = bounds(name, method)
    assert_contain(ours, case.attained())
    if case.is_target(method):
        assert_as_tight(name, method, ours)


EQUAL_CROWN = [n for n in (*SMALL, "cifar_2c2f") if "crown" not in DIFFERENT.get(n, {})]


@pytest.mark.few(5)
@pytest.mark.parametrize("name", each_case(*EQUAL_CROWN))
def test_crown_coefficients_equal_the_reference(name: str) -> None:
    case = program.load(name)
    bound = jaxlirpa.crown(program.function(case), in_axes=program.in_axes(case), linear=True)
    linear = compiled(case, bound)(*program.arguments(case))
    for side, prefix in ("lower", "l"), ("upper", "u"):
        ours = getattr(linear, f"{side}_coefficients")[1], getattr(linear, f"{side}_offset")
        theirs = (case.arrays[f"bounds/crown/{prefix}{key}/x"] for key in ("A", "bias"))
        for mine, stored in zip(ours, theirs, strict=True):
            rounding = 1e-6 if stored.dtype == np.float32 else ROUNDING
            np.testing.assert_allclose(mine, stored, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("name", each_case(*SMALL))
def test_intermediate_bounds_are_as_tight_as_the_reference(name: str) -> None:
    case = program.load(name)
    bound = jaxlirpa.crown(program.preactivations(case), in_axes=(None, 0))
    lower, upper = compiled(case, bound)(*program.arguments(case)[:2])
    for i, (lo, hi) in enumerate(zip(lower, upper, strict=True)):
        below, above = case.bounds(f"crown/interm/{i}")
        assert np.all(hi - lo <= WIDEST * (above - below))


@pytest.mark.parametrize(
    "method",
    ("ibp", "crown", *(pytest.param(m, marks=pytest.mark.slow) for m in ("crown-ibp", "forward"))),
)
@pytest.mark.parametrize("name", each_case("mlp_silu"))
def test_functions_bounded_whole_are_much_tighter(name: str, method: str) -> None:
    """The reference bounds silu as a product of two perturbed numbers."""
    (lower, upper), (below, above) = bounds(name, method), program.load(name).bounds(method)
    assert np.mean((upper - lower) / (above - below)) < 0.6


@pytest.mark.parametrize("name", each_case("mlp_relu_linf_a", "mlp_relu_l2_a"))
@pytest.mark.parametrize("method", ("ibp", "crown", "forward"))
def test_one_joint_batch_equals_independent_rows(name: str, method: str) -> None:
    case = program.load(name)
    bound = METHODS[method](program.function(case))
    joint = compiled(case, bound)(*program.arguments(case))
    np.testing.assert_allclose(joint, bounds(name, method), rtol=ROUNDING, atol=ROUNDING)


MUCH_TIGHTER = {
    ("attention_ln", "ibp"): 0.01,
    ("attention_ln", "crown-ibp"): 0.01,
    ("attention_ln", "crown"): 0.99,
    ("attention_novar", "ibp"): 0.3,
    ("attention_novar", "crown"): 0.97,
    ("cnn_maxpool", "crown"): 0.95,
    ("cnn_maxpool", "forward"): 0.9,
    ("minmax_mlp", "crown"): 0.8,
    ("mlp_gelu", "ibp"): 0.6,
    ("softmax_mlp", "crown"): 0.95,
}


@pytest.mark.parametrize("name, method", each_method(*dict.fromkeys(n for n, _ in MUCH_TIGHTER)))
def test_slack_of_the_reference_is_gone(name: str, method: str) -> None:
    """Normalisation, attention, pooling, extrema and GELU, on average over the outputs."""
    if (name, method) not in MUCH_TIGHTER:
        return
    (lower, upper), (below, above) = bounds(name, method), program.load(name).bounds(method)
    assert np.mean((upper - lower) / (above - below)) < MUCH_TIGHTER[name, method]


@pytest.mark.parametrize("method", ("ibp", "crown"))
@pytest.mark.parametrize("name", each_case(*JACOBIANS))
def test_jacobians(name: str, method: str) -> None:
    """As tight as the reference entry by entry, or on average where planes differ."""
    case, ours = program.load(name), bounds(name, method)
    assert_contain(ours, case.attained())
    below, above = case.bounds(f"jacobian[{method}]")
    ratio = (ours[1] - ours[0]) / (above - below)
    assert np.mean(ratio) <= WIDEST
    assert np.max(ratio) <= (WIDEST if (name, method) != ("jacobian_tanh", "crown") else 1.04)


# Ours searches for every inner value by itself, as theirs does for all at once.
ALPHA = {
    "alpha-crown": functools.partial(jaxlirpa.alpha_crown, optimize_intermediate=True),
    "alpha-crown[fixed-interm]": jaxlirpa.alpha_crown,
}
FAST_ALPHA = ("mlp_relu_linf_b", "bilinear_mul")
LONG_ALPHA = ("cnn_residual", "cnn_dense_concat", *LARGE, *JOINT_LARGE)


def each_alpha() -> list[Any]:
    """Test parameters ``(name, method)``."""
    pairs = []
    for parameter in each_case(*COVERED):
        (name,) = parameter.values
        later = pytest.mark.long if name in LONG_ALPHA else pytest.mark.slow
        marks = [*parameter.marks, *([] if name in FAST_ALPHA else [later])]
        stored = program.load(name).arrays if program.directory(name) else {}
        methods = [m for m in ALPHA if f"bounds/{m}/lower" in stored] or list(ALPHA)[:1]
        pairs += [pytest.param(name, m, marks=marks) for m in methods]
    return pairs


def optimised(case: program.Case, method: str) -> tuple[np.ndarray, np.ndarray]:
    """Our bounds of a case by alpha-CROWN, which hold."""
    bound = ALPHA[method](program.function(case), in_axes=program.in_axes(case))
    lower, upper = map(np.asarray, compiled(case, bound)(*program.arguments(case)))
    assert_contain((lower, upper), case.attained())
    return lower, upper


@pytest.mark.few(slow=10)
@pytest.mark.parametrize("name, method", each_alpha())
def test_optimised_bounds_are_sound_and_as_tight_as_the_reference(name: str, method: str) -> None:
    case = program.load(name)
    if f"bounds/{method}/lower" not in case.arrays:
        pytest.skip(f"the reference has no {method} of {name}")
    lower, upper = optimised(case, method)
    if case.is_target(method):
        below, above = case.bounds(method)
        assert np.sum(upper - lower) <= 1.0005 * np.sum(above - below)


@pytest.mark.slow
@pytest.mark.parametrize("name", each_case(*JACOBIANS))
def test_optimised_jacobians(name: str) -> None:
    case = program.load(name)
    lower, upper = optimised(case, "alpha-crown")
    below, above = case.bounds("jacobian[alpha-crown]")
    assert np.sum(upper - lower) <= 1.0005 * np.sum(above - below)
