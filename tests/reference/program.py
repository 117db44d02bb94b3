"""Reference cases: small networks with stored bounds, rebuilt as pure JAX functions.

A case is two files, ``<name>.json`` and ``<name>.npz``. The JSON holds a straight-line program
(``ops``), the npz its parameters, inputs and stored bounds. Everything is rebuilt in float64.
"""

import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

import jaxlirpa

Record = dict[str, Any]
Params = dict[str, Array]
Bounds = tuple[np.ndarray, np.ndarray]

FIXTURES = Path(__file__).parent / "fixtures"
LIBRARY = Path(
    os.environ.get("JAXLIRPA_REFERENCE")
    or Path(__file__).resolve().parents[2].parent / "shared" / "reference"
)


@dataclass(frozen=True)
class Case:
    """One reference case: its description and its arrays."""

    record: Record
    arrays: dict[str, np.ndarray]

    def bounds(self, method: str) -> Bounds:
        """Stored bounds of a method."""
        return (
            self.arrays[f"bounds/{method}/lower"],
            self.arrays[f"bounds/{method}/upper"],
        )

    def attained(self) -> Bounds:
        """Extreme outputs that some point of the set really reaches."""
        return self.arrays["inner/lower"], self.arrays["inner/upper"]

    def is_target(self, method: str) -> bool:
        """Whether the case stores bounds of this method that no attained point violates."""
        return bool(self.record["methods"].get(method, {}).get("sound"))

    @property
    def rows(self) -> int:
        """Number of examples in the batch."""
        return self.record["inputs"][0]["shape"][0]


def directory(name: str) -> Path | None:
    """Folder that holds a case, the committed fixtures first; None where there is none."""
    return next((d for d in (FIXTURES, LIBRARY) if (d / f"{name}.json").is_file()), None)


@functools.cache
def load(name: str) -> Case:
    """Read a case."""
    folder = directory(name)
    if folder is None:
        raise FileNotFoundError(f"no reference case {name!r} in {FIXTURES} or {LIBRARY}")
    with np.load(folder / f"{name}.npz") as arrays:
        return Case(json.loads((folder / f"{name}.json").read_text()), dict(arrays))


def _float64(array: np.ndarray) -> Array:
    return jnp.asarray(array, jnp.float64 if array.dtype.kind == "f" else array.dtype)


def _set(case: Case, entry: Record, axis: tuple[int, ...] | None) -> Any:
    """A tensor or, where it is perturbed, the set around it (norms taken over ``axis``)."""
    centre, perturbation = _float64(case.arrays[entry["npz"]]), entry["perturbation"]
    if perturbation is None:
        return centre
    if perturbation["type"] == "box":
        lower, upper = (_float64(case.arrays[perturbation[k]]) for k in ("x_L", "x_U"))
        return jaxlirpa.Box(lower, upper)
    norm = float(perturbation["norm"])
    return jaxlirpa.LpBall(centre, perturbation["eps"], ord=norm, axis=axis)


def arguments(case: Case, *, perturbed: bool = True) -> tuple[Any, ...]:
    """Arguments of ``function(case)``: ``(params, *inputs)`` and, last, a specification.

    Args:
      case: the case.
      perturbed: put sets in the place of the tensors that the case perturbs.
    """

    def argument(entry: Record, axis: tuple[int, ...] | None) -> Any:
        return _set(case, entry if perturbed else {**entry, "perturbation": None}, axis)

    record = case.record
    params = {p["name"]: argument(p, None) for p in record["params"]}
    inputs = [argument(i, tuple(range(1, len(i["shape"])))) for i in record["inputs"]]
    specification = [_float64(case.arrays[record["C"]["npz"]])] if record["C"] else []
    return params, *inputs, *specification


def in_axes(case: Case) -> tuple[int | None, ...]:
    """Batch axes of ``arguments(case)``, in the vocabulary of ``jax.vmap``."""
    return None, *(0 for _ in arguments(case, perturbed=False)[1:])


def run(record: Record, params: Params, *inputs: Array) -> dict[str, Array]:
    """Every value of the program, by name."""
    env = {entry["name"]: x for entry, x in zip(record["inputs"], inputs, strict=True)}
    for op in record["ops"]:
        env[op["out"]] = OPS[op["op"]](op, params, *(env[name] for name in op["in"]))
    return env


def function(case: Case) -> Callable[..., Array]:
    """The network of a case as a pure function of ``arguments(case)``, batch axis 0.

    Jacobian cases give the derivative of every output with respect to the first input, and cases
    with a specification its product with the output, row by row.
    """
    record = case.record

    def network(params: Params, *inputs: Array) -> Array:
        return run(record, params, *inputs)[record["output"]]

    def jacobian(params: Params, x: Array) -> Array:
        return jax.vmap(jax.jacrev(lambda row: network(params, row[None])[0]))(x)

    def specified(params: Params, *inputs: Array) -> Array:
        *operands, specification = inputs
        return jnp.einsum("bsn,bn->bs", specification, network(params, *operands))

    if record["kind"] == "jacobian":
        return jacobian
    return specified if record["C"] else network


def preactivations(case: Case) -> Callable[..., list[Array]]:
    """The operands of the activations of a case, in program order, without a specification."""
    names = [op["in"][0] for op in case.record["ops"] if op["op"] in ACTIVATIONS]

    def operands(params: Params, *inputs: Array) -> list[Array]:
        env = run(case.record, params, *inputs)
        return [env[name] for name in names]

    return operands


def _linear(op: Record, params: Params, x: Array) -> Array:
    return x @ params[op["weight"]].T + params[op["bias"]]


def _conv(op: Record, params: Params, x: Array) -> Array:
    weight, spatial = params[op["weight"]], x.ndim - 2
    y = lax.conv_general_dilated(
        x,
        weight,
        window_strides=(op["stride"],) * spatial,
        padding=((op["padding"],) * 2,) * spatial,
        rhs_dilation=(op["dilation"],) * spatial,
        feature_group_count=op["groups"],
    )
    return y + params[op["bias"]].reshape(-1, *(1,) * spatial)


def _batchnorm(op: Record, params: Params, x: Array) -> Array:
    mean, var, weight, bias = (
        params[op[k]].reshape(-1, *(1,) * (x.ndim - 2)) for k in ("mean", "var", "weight", "bias")
    )
    return (x - mean) / jnp.sqrt(var + op["eps"]) * weight + bias


def _layernorm(op: Record, params: Params, x: Array) -> Array:
    d = x - x.mean(-1, keepdims=True)
    scale = jnp.sqrt((d * d).mean(-1, keepdims=True) + op["eps"])
    return d / scale * params[op["weight"]] + params[op["bias"]]


def _pool(op: Record, x: Array, initial: float, reduce: Callable[..., Array]) -> Array:
    window, stride, padding = (
        (1, 1, op["kernel"], op["kernel"]),
        (1, 1, op["stride"], op["stride"]),
        ((0, 0), (0, 0), (op["padding"],) * 2, (op["padding"],) * 2),
    )
    return lax.reduce_window(x, initial, reduce, window, stride, padding)


def _avgpool2d(op: Record, params: Params, x: Array) -> Array:
    return _pool(op, x, 0.0, lax.add) / op["kernel"] ** 2


def _maxpool2d(op: Record, params: Params, x: Array) -> Array:
    return _pool(op, x, -jnp.inf, lax.max)


def _sub_label(op: Record, params: Params, x: Array, label: Array) -> Array:
    chosen = jax.nn.one_hot(label, x.shape[-1], dtype=x.dtype)
    return x - (x * chosen).sum(-1, keepdims=True)


def _plain(f: Callable[..., Array]) -> Callable[..., Array]:
    """An operation that needs neither attributes nor parameters."""
    return lambda op, params, *operands: f(*operands)


ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid", "hardtanh", "abs")

OPS: dict[str, Callable[..., Array]] = {
    "linear": _linear,
    "conv1d": _conv,
    "conv2d": _conv,
    "batchnorm": _batchnorm,
    "layernorm": _layernorm,
    "avgpool2d": _avgpool2d,
    "maxpool2d": _maxpool2d,
    "relu": _plain(jax.nn.relu),
    "leaky_relu": lambda op, params, x: jax.nn.leaky_relu(x, op["slope"]),
    "elu": lambda op, params, x: jax.nn.elu(x, op["alpha"]),
    "silu": _plain(jax.nn.silu),
    "softplus": _plain(jax.nn.softplus),
    "tanh": _plain(jnp.tanh),
    "sigmoid": _plain(jax.nn.sigmoid),
    "atan": _plain(jnp.arctan),
    "gelu": lambda op, params, x: jax.nn.gelu(x, approximate=False),
    "hardtanh": lambda op, params, x: jnp.clip(x, op["min"], op["max"]),
    "abs": _plain(jnp.abs),
    "exp": _plain(jnp.exp),
    "log": _plain(jnp.log),
    "sqrt": _plain(jnp.sqrt),
    "reciprocal": lambda op, params, x: 1.0 / x,
    "square": _plain(jnp.square),
    "sin": _plain(jnp.sin),
    "cos": _plain(jnp.cos),
    "neg": _plain(jnp.negative),
    "pow": lambda op, params, x: x ** op["k"],
    "scale": lambda op, params, x: x * op["value"],
    "shift": lambda op, params, x: x + op["value"],
    "mul_param": lambda op, params, x: x * params[op["weight"]],
    "add_param": lambda op, params, x: x + params[op["weight"]],
    "add": _plain(jnp.add),
    "sub": _plain(jnp.subtract),
    "mul": _plain(jnp.multiply),
    "div": _plain(jnp.divide),
    "matmul": _plain(jnp.matmul),
    "max": _plain(jnp.maximum),
    "min": _plain(jnp.minimum),
    "softmax": lambda op, params, x: jax.nn.softmax(x, op["axis"]),
    "sum": lambda op, params, x: x.sum(op["axis"], keepdims=op["keepdim"]),
    "mean": lambda op, params, x: x.mean(op["axis"], keepdims=op["keepdim"]),
    "flatten": lambda op, params, x: x.reshape(x.shape[0], -1),
    "transpose": lambda op, params, x: x.transpose(op["perm"]),
    "concat": lambda op, params, *xs: jnp.concatenate(xs, op["axis"]),
    "slice": lambda op, params, x: lax.slice_in_dim(x, op["start"], op["end"], axis=op["axis"]),
    "select": lambda op, params, x: lax.index_in_dim(x, op["index"], 1, keepdims=False),
    "sub_label": _sub_label,
}
