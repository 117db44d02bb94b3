"""The command line, from files to a verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the package onnx")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from jaxlirpa.command import main  # noqa: E402

PROPERTY = """
(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(assert (and (>= X_0 -1) (<= X_0 1) (>= X_1 -1) (<= X_1 1)))
(assert (>= Y_0 {limit}))
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network, `relu(x0 + x1) + relu(x0 - x1)`, which is at most 2."""
    monkeypatch.setenv("JAXLIRPA_CACHE", "")
    weights = {"a": [[1, 1], [1, -1]], "b": [[1], [1]]}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["z"]),
        helper.make_node("Relu", ["z"], ["h"]),
        helper.make_node("MatMul", ["h", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.array(w, np.float32), n) for n, w in weights.items()],
    )
    opset = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "net.onnx")
    for limit in (1.9, 2.1):
        (tmp_path / f"{limit}.vnnlib").write_text(PROPERTY.format(limit=limit))
    return tmp_path


def test_verdicts(files: Path, capsys: Any) -> None:
    net, witness = str(files / "net.onnx"), files / "witness.txt"
    options = ["--witness", str(witness), "--json"]
    assert main(["verify", net, str(files / "2.1.vnnlib"), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["status"] == "proved" and 0 < result["lower"] <= 0.1 + 1e-6
    assert not witness.exists()
    assert main(["verify", net, str(files / "1.9.vnnlib"), *options]) == 1
    text = witness.read_text().replace("(", " ").replace(")", " ").split()
    values = dict(zip(text[::2], map(float, text[1::2]), strict=True))
    assert values["Y_0"] >= 1.9 and max(abs(values["X_0"]), abs(values["X_1"])) <= 1


def test_information_and_errors(files: Path, capsys: Any) -> None:
    assert main(["info", str(files / "net.onnx")]) == 0
    assert "input x: [-1, 2]" in capsys.readouterr().out
    assert main(["verify", str(files / "net.onnx"), str(files / "absent.vnnlib")]) == 3
    assert main(["verify", str(files / "1.9.vnnlib"), str(files / "1.9.vnnlib")]) == 3
    assert "error" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["verify", "--help"])
