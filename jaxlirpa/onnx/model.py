"""Reads an ONNX model as a function and its weights."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxlirpa._errors import ArgumentError
from jaxlirpa._types import Array
from jaxlirpa.onnx.operators import OPERATORS, Node
from jaxlirpa.onnx.package import package

# Models with more numbers in their weights than this are refused.
_MOST = 2**30
_DOMAINS = ("", "ai.onnx")


@dataclasses.dataclass(frozen=True)
class _Step:
    """A node with the names of what it reads and computes."""

    node: Node
    operands: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Model:
    """An ONNX model as a pure function: `model(params, *inputs)`.

    Attributes:
        params: the weights, float arrays by name. They are an argument, so that one compiled
            program serves all models of one shape, and may be perturbed like any other.
        inputs: the shape of every input by name; -1 where the model leaves a size open.
        outputs: the names of the outputs.
    """

    params: dict[str, Array]
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]
    _constants: dict[str, Any] = dataclasses.field(repr=False)
    _steps: tuple[_Step, ...] = dataclasses.field(repr=False)

    def __call__(self, params: dict[str, Array], *inputs: Array) -> Any:
        """Evaluates the model.

        Args:
            params: the weights.
            inputs: in the order of `inputs`, with their batch axes.

        Returns:
            The output, or a tuple of several.

        Raises:
            ArgumentError: where an operator cannot do with these operands.
        """
        if len(inputs) != len(self.inputs):
            names = ", ".join(self.inputs)
            raise ArgumentError(f"the model has {len(self.inputs)} inputs ({names}).")
        values: dict[str, Any] = {**self._constants, **params}
        values.update(zip(self.inputs, inputs, strict=True))
        for step in self._steps:
            operands = [values[name] if name else None for name in step.operands]
            found = OPERATORS[step.node.name](step.node, operands)
            results = found if isinstance(found, tuple) else (found,)
            values.update(zip(step.outputs, results, strict=False))
        found = tuple(jnp.asarray(values[name]) for name in self.outputs)
        return found[0] if len(found) == 1 else found


def load(path: str | Path) -> Model:
    """Reads an ONNX model.

    Nothing in the file is executed, and nothing outside of it is read.

    Args:
        path: of the `.onnx` file; opset 8 or newer.

    Returns:
        The model; its weights are `model.params`.

    Raises:
        ArgumentError: where the file is no model, or has operators that are not supported, or
            weights outside of the file; or the package `onnx` is missing.

    Example:
        >>> import jaxlirpa                                                 # doctest: +SKIP
        >>> model = jaxlirpa.onnx.load("network.onnx")                      # doctest: +SKIP
        >>> lower, upper = jaxlirpa.crown(model)(model.params, x, 0.01)     # doctest: +SKIP
    """
    decoding = package("google.protobuf.message").DecodeError
    try:
        proto = package().load(str(path), load_external_data=False)
    except (decoding, OSError, ValueError) as error:
        raise ArgumentError(f"{path} is no ONNX model: {error}") from error
    return _model(proto)


def _model(proto: Any) -> Model:
    graph = proto.graph
    if not graph.output:
        raise ArgumentError("the ONNX file holds no model: its graph has no outputs")
    opset = max((own.version for own in proto.opset_import if own.domain in _DOMAINS), default=0)
    if opset < 8:
        raise ArgumentError(f"the model is of opset {opset}; opsets 8 and newer are supported")
    tensors = {tensor.name: _array(tensor) for tensor in graph.initializer}
    if sum(x.size for x in tensors.values()) > _MOST:
        raise ArgumentError("the model has more than 2**30 weights")
    steps = tuple(_step(node, opset) for node in graph.node)
    _check_order(graph, tensors, steps)
    floating = {n for n, x in tensors.items() if np.issubdtype(x.dtype, np.floating) and x.ndim}
    return Model(
        params={n: jnp.asarray(x) for n, x in tensors.items() if n in floating},
        inputs={own.name: _dims(own) for own in graph.input if own.name not in tensors},
        outputs=tuple(own.name for own in graph.output),
        _constants={n: x for n, x in tensors.items() if n not in floating},
        _steps=steps,
    )


def _step(node: Any, opset: int) -> _Step:
    if node.domain not in _DOMAINS or node.op_type not in OPERATORS:
        name = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        raise ArgumentError(
            f"the ONNX operator {name} (node {node.name!r}) is not supported; "
            "jaxlirpa.onnx.supported() lists those that are"
        )
    attributes = {own.name: _attribute(own) for own in node.attribute}
    outputs = len([name for name in node.output if name])
    own = Node(node.op_type, attributes, opset, outputs)
    return _Step(own, tuple(node.input), tuple(node.output))


def _attribute(attribute: Any) -> Any:
    onnx = package()
    if attribute.type == onnx.AttributeProto.TENSOR:
        return _array(attribute.t)
    if attribute.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
        raise ArgumentError("ONNX subgraphs (If, Loop, Scan) are not supported")
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def _array(tensor: Any) -> np.ndarray:
    """A tensor of the file.

    Raises:
        ArgumentError: where its numbers are outside of the file, or do not fit its shape.
    """
    onnx = package()
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        raise ArgumentError(f"the weights {tensor.name!r} are outside of the file")
    if any(n < 0 for n in tensor.dims) or math.prod(tensor.dims) > _MOST:
        raise ArgumentError(f"the weights {tensor.name!r} have the shape {list(tensor.dims)}")
    try:
        return np.array(onnx.numpy_helper.to_array(tensor))
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"the weights {tensor.name!r} cannot be read: {error}") from error


def _check_order(graph: Any, tensors: dict[str, Any], steps: Sequence[_Step]) -> None:
    """Whether everything is computed before it is read."""
    known = {"", *tensors, *(own.name for own in graph.input)}
    for step in steps:
        missing = [name for name in step.operands if name not in known]
        if missing:
            raise ArgumentError(f"ONNX operator {step.node.name} reads {missing[0]!r} too early")
        known.update(step.outputs)
    missing = [own.name for own in graph.output if own.name not in known]
    if missing:
        raise ArgumentError(f"the model's output {missing[0]!r} is never computed")


def _dims(value: Any) -> tuple[int, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.dim_value > 0 else -1 for d in dims)
