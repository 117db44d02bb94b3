"""`jax.shard_map` inside a function: what every device computes, side by side in one graph.

The operands are cut as the devices have them, the body runs once for each device, and the outputs
are put together again. What two devices compute alike is one node. A collective is the function of
the devices' values that it computes.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import jax
import jax.numpy as jnp
from jax import lax

from jaxlirpa._errors import UnsupportedPrimitiveError
from jaxlirpa._graph.graph import Value, is_same
from jaxlirpa._graph.programs import Constant, Equation, Places, Program, Sharded, Variable
from jaxlirpa._graph.source import Source
from jaxlirpa._types import Array, PyTree

Device: TypeAlias = Mapping[str, int]
"""Its place along every axis of the mesh."""


class Builder(Protocol):
    """The graph while it grows."""

    def apply(self, fn: Callable[..., PyTree], source: Source, *values: Value) -> list[Value]:
        """Appends a function's nodes."""

    def run(self, code: Program, arguments: Sequence[Value], source: Source) -> list[Value]:
        """Appends a program's nodes."""

    def step(
        self, equation: Equation, operands: tuple[Value, ...], source: Source
    ) -> Sequence[Value]:
        """The values of one equation's outputs."""


def on_all_devices(
    builder: Builder, shards: Sharded, operands: Sequence[Value], source: Source
) -> list[Value]:
    """The values of the outputs of a `shard_map`.

    Raises:
        UnsupportedPrimitiveError: where a collective is not one of those that are known, or an
            output of which all devices have a copy is not proved to be the same on all.
    """
    devices = list(_places(shards.mesh, tuple(shards.mesh)))
    pairs = zip(operands, shards.inputs, strict=True)
    cut = [_cut(builder, x, spec, shards.mesh, source) for x, spec in pairs]
    arguments = [[piece(device) for piece in cut] for device in devices]
    results = _run(builder, shards.body, arguments, devices, source)
    joined = []
    for values, spec in zip(zip(*results, strict=True), shards.outputs, strict=True):
        own = dict(zip(map(_key, devices), values, strict=True))
        if not shards.checked:
            _check_copies(own, spec, devices, source)
        joined.append(_joined(builder, own, spec, shards.mesh, source))
    return joined


def _places(mesh: Mapping[str, int], axes: Sequence[str]) -> Iterator[dict[str, int]]:
    """All places along some axes, the last of which goes first."""
    for numbers in itertools.product(*(range(mesh[axis]) for axis in axes)):
        yield dict(zip(axes, numbers, strict=True))


def _key(device: Device) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(device.items()))


# ---- operands and outputs ------------------------------------------------------------------


def _cut(
    builder: Builder, value: Value, spec: Places, mesh: Mapping[str, int], source: Source
) -> Callable[[Device], Value]:
    """What a device has of a value."""
    if not spec:
        return lambda device: value
    (axis, names), *rest = spec
    count = math.prod(mesh[name] for name in names)

    def split(x: Array) -> Sequence[Array]:
        return lax.split(x, [x.shape[axis] // count] * count, axis)

    pieces = builder.apply(split, source, value) if count > 1 else [value]
    inner = [_cut(builder, piece, tuple(rest), mesh, source) for piece in pieces]
    order = [_key(place) for place in _places(mesh, names)]
    return lambda device: inner[order.index(_key({n: device[n] for n in names}))](device)


def _joined(
    builder: Builder,
    own: Mapping[Any, Value],
    spec: Places,
    mesh: Mapping[str, int],
    source: Source,
    at: Device | None = None,
) -> Value:
    """The whole of which every device has its part; of copies, that of the first."""
    at = dict.fromkeys(mesh, 0) if at is None else at
    if not spec:
        return own[_key(at)]
    (axis, names), *rest = spec
    parts = [
        _joined(builder, own, tuple(rest), mesh, source, {**at, **place})
        for place in _places(mesh, names)
    ]
    if len(parts) == 1:
        return parts[0]
    return builder.apply(lambda *xs: lax.concatenate(xs, axis), source, *parts)[0]


def _check_copies(
    own: Mapping[Any, Value], spec: Places, devices: Sequence[Device], source: Source
) -> None:
    """Where JAX does not check that copies are the same, they have to be one value."""
    named = {name for _, names in spec for name in names}
    for device in devices:
        first = {axis: place if axis in named else 0 for axis, place in device.items()}
        if not is_same(own[_key(device)], own[_key(first)]):
            raise UnsupportedPrimitiveError(
                "shard_map",
                str(source),
                "with check_vma=False",
                "nothing proves that an output is the same on all devices over an axis that "
                "out_specs leaves out. Take check_vma=True, or name the axis there",
            )


# ---- the body ------------------------------------------------------------------------------


def _run(
    builder: Builder,
    code: Program,
    arguments: Sequence[Sequence[Value]],
    devices: Sequence[Device],
    source: Source,
) -> list[list[Value]]:
    """The outputs of a program on every device, all of them one equation after the other."""
    known = dict(code.constants)
    environments: list[dict[Variable, Value]] = [
        {**known, **dict(zip(code.inputs, own, strict=True))} for own in arguments
    ]

    def read(environment: Mapping[Variable, Value], atom: Variable | Constant) -> Value:
        return atom.value if isinstance(atom, Constant) else environment[atom]

    for equation in code.equations:
        operands = [tuple(read(own, atom) for atom in equation.operands) for own in environments]
        results = _step(builder, equation, operands, devices, equation.source.within(source))
        for own, values in zip(environments, results, strict=True):
            own.update(zip(equation.outputs, values, strict=True))
    return [[read(own, atom) for atom in code.outputs] for own in environments]


def _step(
    builder: Builder,
    equation: Equation,
    operands: Sequence[tuple[Value, ...]],
    devices: Sequence[Device],
    source: Source,
) -> Sequence[Sequence[Value]]:
    """The values of one equation's outputs on every device."""
    if equation.collective and not equation.programs:
        return _collective(builder, equation, operands, devices, source)
    if equation.collective and equation.body is not None:
        return _run(builder, equation.body, operands, devices, source)
    if equation.collective:
        raise _refusal(equation, source, "it is inside of a loop or a branch")
    return [builder.step(equation, own, source) for own in operands]


def _collective(
    builder: Builder,
    equation: Equation,
    operands: Sequence[tuple[Value, ...]],
    devices: Sequence[Device],
    source: Source,
) -> list[list[Value]]:
    """A function of the values of those devices that differ along some axes of the mesh."""
    params = equation.params
    names = params.get("axes", params.get("axis_name"))
    axes = (names,) if isinstance(names, str) else tuple(names or ())
    if equation.primitive not in COLLECTIVES or not axes or params.get("axis_index_groups"):
        raise _refusal(equation, source, "this collective is not bounded")
    if not all(axis in devices[0] for axis in axes):
        raise _refusal(equation, source, f"it is along {axes}, of the mesh around the function")
    mesh = {axis: 1 + max(device[axis] for device in devices) for axis in devices[0]}
    along = list(_places(mesh, axes))
    if equation.primitive == "axis_index":
        places = [along.index({axis: device[axis] for axis in axes}) for device in devices]
        with jax.ensure_compile_time_eval():
            return [[jnp.asarray(place, equation.avals[0].dtype)] for place in places]
    own = {_key(device): x for device, (x,) in zip(devices, operands, strict=True)}
    combine = functools.partial(COLLECTIVES[equation.primitive], params)
    found: dict[Any, list[Value]] = {}
    for device in devices:
        group = tuple(_key({**device, **place}) for place in along)
        if group not in found:
            found[group] = builder.apply(combine, source, *(own[key] for key in group))
    return [found[tuple(_key({**device, **place}) for place in along)] for device in devices]


def _sum(params: Mapping[str, Any], *values: Array) -> Array:
    return functools.reduce(jnp.add, values)


def _largest(params: Mapping[str, Any], *values: Array) -> Array:
    return functools.reduce(jnp.maximum, values)


def _smallest(params: Mapping[str, Any], *values: Array) -> Array:
    return functools.reduce(jnp.minimum, values)


def _gathered(params: Mapping[str, Any], *values: Array) -> Array:
    join = jnp.concatenate if params["tiled"] else jnp.stack
    return join(values, params["all_gather_dimension"])


COLLECTIVES: Mapping[str, Any] = {
    "axis_index": None,
    "psum": _sum,
    "psum_invariant": _sum,
    "pmax": _largest,
    "pmin": _smallest,
    "all_gather": _gathered,
    "all_gather_invariant": _gathered,
}


def _refusal(equation: Equation, source: Source, reason: str) -> UnsupportedPrimitiveError:
    described = ", ".join(f"{aval.dtype}{list(aval.shape)}" for aval in equation.operand_avals)
    known = ", ".join(sorted(COLLECTIVES))
    reason = f"{reason}: of what devices send each other, {known} are known inside of `shard_map`"
    return UnsupportedPrimitiveError(equation.primitive, str(source), described, reason)
