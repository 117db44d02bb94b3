"""Models in ONNX: every operator against ONNX's own reference evaluator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arithmetic import call

import jaxlirpa
from jaxlirpa import ArgumentError

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx.reference import ReferenceEvaluator  # noqa: E402

import jaxlirpa.onnx as exchange  # noqa: E402
from jaxlirpa.onnx.operators import OPERATORS  # noqa: E402

RNG = np.random.default_rng(0)


def f32(*shape: int, low: float = -2, high: float = 2) -> np.ndarray:
    return RNG.uniform(low, high, shape).astype(np.float32)


def i64(*values: Any) -> np.ndarray:
    return np.array(values, np.int64)


IMAGE = f32(1, 4, 7, 6)
X = f32(2, 3, 4)
POSITIVE = f32(2, 3, low=0.1)
UNIT = f32(2, 3, low=-0.9, high=0.9)

UNARY = (
    "Abs Ceil Cos Cosh Exp Floor Neg Round Sign Sin Sinh Tan Tanh Relu Sigmoid Softplus "
    "Softsign Erf HardSwish Identity Atan"
).split()

# Operator, operands (the first is the model's input), attributes, opset.
CASES: list[tuple[str, Sequence[Any], dict[str, Any], int]] = [
    *[(name, [X], {}, 17) for name in UNARY],
    *[(name, [POSITIVE], {}, 17) for name in ["Log", "Sqrt", "Reciprocal"]],
    *[(name, [UNIT], {}, 17) for name in ["Asin", "Acos"]],
    ("LeakyRelu", [X], {"alpha": 0.2}, 17),
    ("LeakyRelu", [X], {}, 17),
    ("PRelu", [X, f32(4)], {}, 17),
    ("Elu", [X], {"alpha": 0.7}, 17),
    ("Selu", [X], {}, 17),
    ("Selu", [X], {"alpha": 1.5, "gamma": 1.1}, 17),
    ("HardSigmoid", [X], {"alpha": 0.3, "beta": 0.4}, 17),
    ("Gelu", [X], {}, 20),
    ("Gelu", [X], {"approximate": "tanh"}, 20),
    ("Clip", [X, np.float32(-1), np.float32(0.5)], {}, 17),
    ("Clip", [X], {"min": -0.5, "max": 1.0}, 8),
    *[
        (name, [X, f32(3, 1)], {}, 17)
        for name in ("Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean")
    ],
    ("Div", [X, f32(4, low=0.5)], {}, 17),
    ("Pow", [X, np.float32(2)], {}, 17),
    ("Pow", [X, np.array([3.0], np.float32)], {}, 17),
    ("Flatten", [X], {"axis": 2}, 17),
    ("Flatten", [X], {}, 17),
    ("Reshape", [X, i64(0, -1)], {}, 17),
    ("Squeeze", [f32(1, 3, 1), i64(0)], {}, 17),
    ("Squeeze", [f32(1, 3, 1)], {"axes": [2]}, 11),
    ("Unsqueeze", [X, i64(0, 2)], {}, 17),
    ("Unsqueeze", [X], {"axes": [1]}, 11),
    ("Transpose", [X], {"perm": [2, 0, 1]}, 17),
    ("Transpose", [X], {}, 17),
    ("Concat", [X, f32(2, 2, 4)], {"axis": 1}, 17),
    ("Slice", [X, i64(0, -3), i64(2, -1), i64(1, 2)], {}, 17),
    ("Slice", [X, i64(-1), i64(-100), i64(2), i64(-2)], {}, 17),
    ("Slice", [X], {"starts": [1], "ends": [3], "axes": [2]}, 9),
    ("Gather", [X, i64([0, -1])], {"axis": 2}, 17),
    ("Expand", [f32(3, 1), i64(2, 3, 4)], {}, 17),
    ("Tile", [X, i64(1, 2, 1)], {}, 17),
    ("Pad", [X, i64(0, 1, 0, 0, 0, 2), np.float32(0.5)], {}, 17),
    ("Pad", [X, i64(0, 0, 1, 0, 0, 2)], {"mode": "reflect"}, 17),
    ("Pad", [X, i64(0, 0, 1, 0, 0, 2)], {"mode": "edge"}, 17),
    *[
        (f"Reduce{name}", [X], {"axes": [1], "keepdims": keep}, 11)
        for name in ("L1", "L2", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
        for keep in (0, 1)
    ],
    ("ReduceSum", [X, i64(0, 2)], {"keepdims": 0}, 17),
    ("ReduceMean", [X], {}, 17),
    ("Softmax", [X], {}, 17),
    ("Softmax", [X], {"axis": 1}, 17),
    ("LogSoftmax", [X], {"axis": -1}, 17),
    ("MatMul", [X, f32(4, 5)], {}, 17),
    ("Gemm", [f32(2, 3), f32(3, 4), f32(4)], {}, 17),
    (
        "Gemm",
        [f32(3, 2), f32(4, 3), f32(4)],
        {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0},
        17,
    ),
    ("Gemm", [f32(2, 3), f32(3, 4)], {}, 17),
    ("BatchNormalization", [IMAGE, f32(4), f32(4), f32(4), f32(4, low=0.1)], {"epsilon": 1e-3}, 17),
    ("LayerNormalization", [X, f32(4), f32(4)], {}, 17),
    ("LayerNormalization", [X, f32(3, 4)], {"axis": 1}, 17),
    ("Conv", [IMAGE, f32(5, 4, 3, 3), f32(5)], {"pads": [1, 0, 2, 1], "strides": [2, 1]}, 17),
    ("Conv", [IMAGE, f32(6, 2, 2, 3)], {"group": 2, "dilations": [2, 1]}, 17),
    ("Conv", [IMAGE, f32(5, 4, 3, 2)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 17),
    ("Conv", [f32(1, 2, 9), f32(3, 2, 3)], {}, 17),
    (
        "ConvTranspose",
        [IMAGE, f32(4, 3, 3, 2), f32(3)],
        {"strides": [2, 3], "pads": [1, 0, 0, 1]},
        17,
    ),
    ("MaxPool", [IMAGE], {"kernel_shape": [2, 3], "strides": [2, 2]}, 17),
    ("MaxPool", [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}, 17),
    ("AveragePool", [IMAGE], {"kernel_shape": [2, 2], "strides": [2, 2]}, 17),
    ("AveragePool", [IMAGE], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 17),
    (
        "AveragePool",
        [IMAGE],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        17,
    ),
    ("GlobalAveragePool", [IMAGE], {}, 17),
    ("GlobalMaxPool", [IMAGE], {}, 17),
    ("Dropout", [X], {}, 17),
    ("Split", [X, i64(1, 3)], {"axis": 2}, 17),
    ("Split", [X], {"axis": 2, "split": [2, 2]}, 11),
]
# Those that are of shapes and truth values; a whole model in which they are is below.
SHAPES = {
    *("And Cast Constant ConstantOfShape Equal Greater GreaterOrEqual Less".split()),
    *("LessOrEqual Not Or Range Shape Size Where Xor".split()),
}


def model_of(
    nodes: Sequence[Any], x: np.ndarray, tensors: dict[str, np.ndarray], outputs: int, opset: int
) -> Any:
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, None) for i in range(outputs)],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def loaded(proto: Any, folder: Path) -> Any:
    path = folder / "model.onnx"
    onnx.save(proto, str(path))
    return exchange.load(path)


@pytest.mark.parametrize(
    "case", [pytest.param(c, id=f"{i}-{c[0]}-{c[3]}") for i, c in enumerate(CASES)]
)
def test_operators(case: Any, tmp_path: Path) -> None:
    """The values, and bounds of each as a function of its first operand."""
    name, (x, *others), attributes, opset = case
    outputs = 2 if name == "Split" else 1
    names = [f"t{i}" for i in range(len(others))]
    node = helper.make_node(name, ["x", *names], [f"y{i}" for i in range(outputs)], **attributes)
    proto = model_of(
        [node], x, dict(zip(names, map(np.asarray, others), strict=True)), outputs, opset
    )
    model = loaded(proto, tmp_path)
    expected = ReferenceEvaluator(proto).run(None, {"x": x})
    found = call(model, model.params, jnp.asarray(x))
    for y, truth in zip(found if outputs > 1 else [found], expected, strict=True):
        assert y.shape == truth.shape
        np.testing.assert_allclose(y, truth, rtol=2e-5, atol=2e-5)


def test_softmax_of_old_models(tmp_path: Path) -> None:
    """Before opset 13 it is over all axes from one on, which the reference evaluator ignores."""
    node = helper.make_node("Softmax", ["x"], ["y0"], axis=1)
    model = loaded(model_of([node], X, {}, 1, 11), tmp_path)
    expected = jax.nn.softmax(X.reshape(2, 12), -1).reshape(X.shape)
    np.testing.assert_allclose(model({}, jnp.asarray(X)), expected, rtol=1e-6)


def test_every_operator_is_tested() -> None:
    assert {*OPERATORS} == {case[0] for case in CASES} | SHAPES
    assert exchange.supported() == sorted(OPERATORS)


def test_a_model_with_shape_arithmetic(tmp_path: Path) -> None:
    """Shapes that the model computes are known when it is traced; it is bounded like any other."""
    make, x = helper.make_node, f32(2, 3, 4)
    nodes = [
        make("Shape", ["x"], ["shape"]),
        make("Constant", [], ["zero"], value=numpy_helper.from_array(i64(0))),
        make("Constant", [], ["minus"], value_ints=[-1]),
        make("Gather", ["shape", "zero"], ["batch"]),
        make("Cast", ["batch"], ["batch64"], to=TensorProto.INT64),
        make("Concat", ["batch64", "minus"], ["target"], axis=0),
        make("Reshape", ["x", "target"], ["flat"]),
        make("MatMul", ["flat", "w"], ["z"]),
        make("ConstantOfShape", ["batch64"], ["zeros"]),
        make("Size", ["x"], ["size"]),
        make("Equal", ["size", "zero"], ["empty"]),
        make("Not", ["empty"], ["full"]),
        make("And", ["full", "full"], ["and"]),
        make("Or", ["and", "empty"], ["or"]),
        make("Xor", ["or", "empty"], ["xor"]),
        make("Where", ["xor", "z", "z"], ["chosen"]),
        make("Relu", ["chosen"], ["y0"]),
    ]
    proto = model_of(nodes, x, {"w": f32(12, 5)}, 1, 17)
    model = loaded(proto, tmp_path)
    (expected,) = ReferenceEvaluator(proto).run(None, {"x": x})
    np.testing.assert_allclose(call(model, model.params, jnp.asarray(x)), expected, rtol=1e-5)
    assert [*model.params] == ["w"] and model.inputs == {"x": (2, 3, 4)}
    lower, upper = jaxlirpa.crown(model)(model.params, jnp.asarray(x), 0.1)
    for _ in range(20):
        y = model(model.params, jnp.asarray(x + RNG.uniform(-0.1, 0.1, x.shape).astype(np.float32)))
        assert np.all((lower <= y + 1e-5) & (y - 1e-5 <= upper))
    more = jax.tree.map(lambda w: w + 1, model.params)
    assert np.any(model(more, jnp.asarray(x)) != model(model.params, jnp.asarray(x)))


def test_what_is_refused(tmp_path: Path) -> None:
    x = f32(2, 3)
    with pytest.raises(ArgumentError, match=r"Det .*not supported"):
        loaded(model_of([helper.make_node("Det", ["x"], ["y0"])], x, {}, 1, 17), tmp_path)
    with pytest.raises(ArgumentError, match="reads 'nowhere' too early"):
        loaded(model_of([helper.make_node("Relu", ["nowhere"], ["y0"])], x, {}, 1, 17), tmp_path)
    with pytest.raises(ArgumentError, match="opset 6"):
        loaded(model_of([helper.make_node("Relu", ["x"], ["y0"])], x, {}, 1, 6), tmp_path)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x08no model at all")
    with pytest.raises(ArgumentError, match=r"no ONNX model|holds no model"):
        exchange.load(broken)
    with pytest.raises(ArgumentError, match="no ONNX model"):
        exchange.load(tmp_path / "absent.onnx")
    gather = helper.make_node("Gather", ["x", "x"], ["y0"])
    model = loaded(model_of([gather], x, {}, 1, 17), tmp_path)
    with pytest.raises(ArgumentError, match="must not depend on the inputs"):
        model(model.params, jnp.asarray(x))
    with pytest.raises(ArgumentError, match="has 1 inputs"):
        model(model.params)
