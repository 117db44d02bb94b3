"""Networks in ONNX as functions of JAX. Needs the package `onnx` (the extra `onnx`)."""

from jaxlirpa.onnx import entrywise, layers, shaping  # these enter the operators
from jaxlirpa.onnx.model import Model, load
from jaxlirpa.onnx.operators import supported

__all__ = ["Model", "entrywise", "layers", "load", "shaping", "supported"]
