"""The package `onnx`, which reads the files."""

from __future__ import annotations

import importlib
from typing import Any

from jaxlirpa._errors import ArgumentError


def package(name: str = "onnx") -> Any:
    """The package, or a module that it brings.

    Raises:
        ArgumentError: where it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = "models in ONNX need the package onnx: pip install 'jaxlirpa[onnx]'"
        raise ArgumentError(message) from error
