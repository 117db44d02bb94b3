"""The command line: `jaxlirpa verify NET PROPERTY`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxlirpa import onnx, vnnlib
from jaxlirpa._errors import LirpaError
from jaxlirpa.verify import Verdict, progress_bar, verify

EXIT = {"proved": 0, "refuted": 1, "undecided": 2}
"""Exit codes; 3 stands for an error."""
_ERROR = 3


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0 proved, 1 refuted, 2 undecided, 3 error."""
    parser = argparse.ArgumentParser(
        prog="jaxlirpa",
        description="Guaranteed bounds of neural networks: decides properties of ONNX models.",
        epilog="Exit codes: 0 proved (or done), 1 refuted, 2 undecided, 3 error.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    own = commands.add_parser("verify", help="proves or refutes a property")
    own.add_argument("net", type=Path, metavar="NET", help="an ONNX model (.onnx)")
    own.add_argument(
        "property", type=Path, metavar="PROPERTY", help="VNN-LIB (.vnnlib, .vnnlib.gz)"
    )
    own.add_argument(
        "--timeout", type=float, default=60.0, metavar="S", help="seconds, default: 60"
    )
    own.add_argument(
        "--witness", type=Path, metavar="FILE", help="where to write a counter-example"
    )
    own.add_argument("--json", action="store_true", help="print the result as JSON")
    own.set_defaults(run=_verify)
    own = commands.add_parser("info", help="prints what a model is")
    own.add_argument("net", type=Path, metavar="NET", help="an ONNX model (.onnx)")
    own.set_defaults(run=_info)
    args = parser.parse_args(argv)
    try:
        code: int = args.run(args)
    except (LirpaError, OSError) as error:
        print(f"jaxlirpa: error: {error}", file=sys.stderr)
        return _ERROR
    return code


def _info(args: argparse.Namespace) -> int:
    model = onnx.load(args.net)
    for name, shape in model.inputs.items():
        print(f"input {name}: {list(shape)}")
    print(f"outputs: {', '.join(model.outputs)}")
    print(f"weights: {sum(x.size for x in model.params.values())} in {len(model.params)} arrays")
    return 0


def _verify(args: argparse.Namespace) -> int:
    start = time.perf_counter()
    bar = progress_bar() if sys.stderr.isatty() else None
    found = decide(onnx.load(args.net), vnnlib.load(args.property), args.timeout, bar)
    status, x, y, verdicts = found
    subproblems = sum(own.statistics.subproblems for own in verdicts)
    result = {
        "status": status,
        "seconds": round(time.perf_counter() - start, 3),
        "lower": min((own.lower for own in verdicts), default=float("inf")),
        "subproblems": subproblems,
        "phases": {
            name: round(sum(own.statistics.seconds[name] for own in verdicts), 3)
            for name in (verdicts[0].statistics.seconds if verdicts else ())
        },
    }
    if args.json:
        print(json.dumps(result))
    else:
        print(f"{status}, {result['seconds']} s, {subproblems} subproblems")
    if args.witness and x is not None:
        args.witness.write_text(_witness(x, y))
    return EXIT[status]


def decide(
    model: onnx.Model, cases: Sequence[vnnlib.Case], seconds: float, progress: Any = None
) -> tuple[str, np.ndarray | None, np.ndarray | None, list[Verdict]]:
    """Decides whether there is a counter-example of some cases.

    Args:
        model: of one input.
        cases: the cases.
        seconds: for all together.
        progress: see `verify`.

    Returns:
        The status; a counter-example and the model's output there; the verdicts on the cases.
    """
    ends = time.perf_counter() + seconds
    if len(model.inputs) != 1:
        raise LirpaError(f"the model has {len(model.inputs)} inputs; properties are of one")
    (shape,) = model.inputs.values()
    verdicts: list[Verdict] = []
    for case in cases:
        if np.any(case.lower > case.upper):
            continue
        full = _shape(shape, len(case.lower))
        left = max(ends - time.perf_counter(), 1e-3)
        prop = vnnlib.property_of(model, case, full)
        run = verify(prop, time_limit=left, progress=progress)
        found = run(model.params, *vnnlib.arguments_of(case))
        verdicts.append(found)
        if found.status == "refuted":
            x = np.clip(found.witness[-1], case.lower, case.upper).reshape(full)
            if vnnlib.is_counterexample(model, model.params, case, x):
                y = np.asarray(model(model.params, x.astype(np.float32))).reshape(-1)
                return "refuted", x.reshape(-1), y, verdicts
            return "undecided", None, None, verdicts
        if found.status == "undecided":
            return "undecided", None, None, verdicts
    return "proved", None, None, verdicts


def _shape(shape: Sequence[int], count: int) -> list[int]:
    """A model's input shape, whose open sizes are one but for at most one."""
    known = int(np.prod([n for n in shape if n > 0], dtype=int))
    full = [n if n > 0 else 1 for n in shape]
    if known != count and known and count % known == 0 and -1 in shape:
        full[len(shape) - 1 - list(shape)[::-1].index(-1)] = count // known
    if int(np.prod(full)) != count:
        raise LirpaError(
            f"the model's input {list(shape)} does not have the property's {count} entries"
        )
    return full


def _witness(x: np.ndarray, y: np.ndarray | None) -> str:
    """A counter-example in the format of VNN-COMP."""
    values = [f"(X_{i} {v!r})" for i, v in enumerate(x.tolist())]
    values += [f"(Y_{i} {v!r})" for i, v in enumerate([] if y is None else y.tolist())]
    return "(" + "\n".join(values) + ")\n"
