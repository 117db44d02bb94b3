"""The only contact with JAX's jaxpr types: a jaxpr in, plain data out.

A `Program` numbers its variables in the order of their appearance, so two programs of the same
structure are equal data. Works alike on JAX 0.10 to 0.12, where a closed jaxpr is or is not a
class of its own: only `.jaxpr` and `.consts` are used, never the type.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, Primitive
from jax.extend.core import primitives as jax_primitives
from jax.sharding import PartitionSpec, get_abstract_mesh

from jaxlirpa._graph.parameters import unread
from jaxlirpa._graph.programs import (
    Branches,
    Constant,
    Equation,
    Places,
    Program,
    Scan,
    Sharded,
    Variable,
    While,
)
from jaxlirpa._graph.source import Source
from jaxlirpa._mesh import shaped, vary, varying
from jaxlirpa._types import Array, PyTree, Shaped

# Where a primitive that merely calls a function keeps that function's jaxpr. Functions with
# derivative rules of their own are entered by their primal: rules are no values.
CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "call": "call_jaxpr",
    "eval_jaxpr": "call_jaxpr",
    "remat2": "jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vmap_call": "call",
}
# Identities on values, which say over which axes of a mesh they vary: no program has them.
_CASTS = {"pvary"}
# What names an axis of a mesh has this one, which is no side effect.
_OF_AXES = "NamedAxisEffect"
# Primitives of JAX that not every release makes public.
_NOT_PUBLIC = frozenset(
    {
        *("call", "closed_call", "custom_vmap_call", "eval_jaxpr", "pvary", "reshard"),
        *("shard_map", "psum_invariant", "all_gather_invariant"),
    }
)
SOLVE = "custom_linear_solve"
"""The primitive that calls a solver of linear equations."""

# Packages none of whose lines is the one that a user wants to read.
_LIBRARIES = ("jax", "jaxlib", "numpy", "scipy", "flax", "haiku", "equinox", "optax", "einops")
_OWN = Path(__file__).parent.parent
_STANDARD = (Path(sysconfig.get_path("stdlib")), Path(sysconfig.get_path("platstdlib")))
_INSTALLED = ("site-packages", "dist-packages")


def program(fn: Callable[..., PyTree], arguments: Sequence[Shaped]) -> tuple[Program, PyTree]:
    """Traces `fn` on `arguments`.

    Every product without a precision of its own is traced at the highest one: precision is
    frozen here, and the default of an accelerator is too coarse to be a bound.

    Returns:
        The program, and the structure of fn's output with a `ShapeDtypeStruct` per leaf.
    """
    with jax.default_matmul_precision("highest"):
        closed, shape = jax.make_jaxpr(fn, return_shape=True)(*arguments)
    return _program(closed), shape


def axes_of(code: Program) -> frozenset[str]:
    """The axes of a mesh over which what a program reads or computes may differ."""
    computed = (varying(aval) for e in code.equations for aval in e.avals)
    return frozenset().union(*computed, *(varying(value) for _, value in code.constants))


def _program(closed: Any) -> Program:
    jaxpr = getattr(closed, "jaxpr", closed)
    numbers: dict[Any, Variable] = {}
    casts: dict[Any, Variable | Constant] = {}

    def variable(var: Any) -> Variable:
        return numbers.setdefault(var, Variable(len(numbers)))

    def atom(a: Any) -> Variable | Constant:
        if isinstance(a, Literal):
            return Constant(_literal(a))
        return casts[a] if a in casts else variable(a)

    inputs = tuple(variable(v) for v in jaxpr.invars)
    consts = zip(jaxpr.constvars, getattr(closed, "consts", ()), strict=True)
    constants = tuple((variable(v), value) for v, value in consts)
    equations = []
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in _CASTS:
            casts[eqn.outvars[0]] = atom(eqn.invars[0])
        else:
            equations.append(_equation(eqn, atom, variable))
    return Program(
        inputs, constants, _with_derivatives(equations), tuple(atom(v) for v in jaxpr.outvars)
    )


def sole_primitive(jaxpr: Any) -> str | None:
    """The primitive that a jaxpr applies to its inputs, if that is all it does.

    They may come in any order, but for a difference.
    """
    code = _program(jaxpr)
    if len(code.equations) != 1 or code.equations[0].unknown:
        return None
    (equation,) = code.equations
    if not all(isinstance(a, Variable) for a in (*equation.operands, *code.outputs)):
        return None
    alone = {*equation.operands} == {*code.inputs} and equation.outputs == code.outputs
    swapped = equation.primitive == "sub" and equation.operands != code.inputs
    return equation.primitive if alone and not swapped else None


def function_of_first(jaxpr: Any, consts: Sequence[Any]) -> Callable[[Array], Array] | None:
    """The function that a jaxpr of several inputs is of the first, if it reads no other."""
    if consts:
        return None
    code = _program(jaxpr)
    first, *others = code.inputs
    atoms = [*code.outputs, *(a for equation in code.equations for a in equation.operands)]
    if any(isinstance(atom, Variable) and atom in others for atom in atoms):
        return None

    def function(x: Array) -> Array:
        values: dict[Variable, Any] = {first: x, **dict(code.constants)}

        def read(atom: Variable | Constant) -> Array:
            return jnp.asarray(atom.value) if isinstance(atom, Constant) else values[atom]

        for equation in code.equations:
            results = equation.bind(*map(read, equation.operands))
            values.update(zip(equation.outputs, results, strict=True))
        (result,) = map(read, code.outputs)
        return result

    return function


def _equation(
    eqn: Any, atom: Callable[[Any], Variable | Constant], variable: Callable[[Any], Variable]
) -> Equation:
    primitive, params = eqn.primitive.name, _as_computed(eqn.primitive.name, eqn.params)
    unknown = _unknown(eqn.primitive, params)
    body = params.get(CALLS[primitive]) if primitive in CALLS and not unknown else None
    count = len(eqn.invars)
    read = tuple(range(count))
    if primitive == SOLVE and not unknown:
        body, read = params["jaxprs"].solve, _read_by_solver(count, params["const_lengths"])
    return Equation(
        primitive=primitive,
        identity=eqn.primitive,
        operands=tuple(atom(v) for v in eqn.invars),
        outputs=tuple(variable(v) for v in eqn.outvars),
        operand_avals=tuple(_shaped(v.aval) for v in eqn.invars),
        avals=tuple(_shaped(v.aval) for v in eqn.outvars),
        params=params,
        body=None if body is None else _program(body),
        read=read,
        control=None if unknown else _control(primitive, params),
        name=str(params.get("name", "")),
        bind=_binder(eqn, params),
        effects=tuple(sorted(_effects(eqn) - {_OF_AXES})),
        collective=_is_collective(eqn),
        elsewhere=any(_beyond(v.aval) for v in (*eqn.invars, *eqn.outvars)),
        source=_source(eqn.source_info),
        unknown=unknown,
    )


def _effects(eqn: Any) -> set[str]:
    return {type(e).__name__ for e in eqn.effects}


def _unknown(primitive: Any, params: Mapping[str, Any]) -> str:
    """Why a primitive is none of JAX's that records and rules may stand for; else empty."""
    name = primitive.name
    own = public_primitives().get(name)
    if own is None and name not in _NOT_PUBLIC:
        return "it is not known to jaxlirpa"
    if own is not None and own is not primitive:
        return "it is not JAX's own primitive of that name"
    parameter = unread(name, params)
    return f"its parameter `{parameter}` is not known to jaxlirpa" if parameter else ""


def _is_collective(eqn: Any) -> bool:
    return _OF_AXES in _effects(eqn) or "axis_name" in eqn.params


def _read_by_solver(count: int, lengths: Any) -> tuple[int, ...]:
    """Positions of what the solver of a linear equation reads, among so many operands.

    They are what each of four functions reads besides, and right-hand sides. The functions beside
    the solver are for derivatives.
    """
    start = lengths.matvec + lengths.vecmat
    right = sum(lengths)
    return (*range(start, start + lengths.solve), *range(right, count))


def _with_derivatives(equations: Sequence[Equation]) -> tuple[Equation, ...]:
    """Equations that hold no derivative back from what the solver of a linear equation reads.

    `jnp.linalg.solve` does so where it factorises the matrix, as the solution has a derivative rule
    of its own; where the solver is entered, its derivative is wanted.
    """
    solvers = [e for e in equations if e.primitive == SOLVE]
    read: set[Any] = {x for e in solvers for x in _variables(e.operands[i] for i in e.read)}
    for e in reversed(equations) if solvers else ():
        if read.intersection(e.outputs):
            read.update(_variables(e.operands))
    others = [e for e in equations if e.primitive != SOLVE and read.isdisjoint(e.outputs)]
    read.difference_update(x for e in others for x in _variables(e.operands))
    return tuple(
        dataclasses.replace(e, primitive="copy", bind=lambda x: (x,))
        if e.primitive == "stop_gradient" and read.intersection(e.outputs)
        else e
        for e in equations
    )


def _variables(atoms: Iterable[Variable | Constant]) -> list[Variable]:
    return [x for x in atoms if isinstance(x, Variable)]


def _control(primitive: str, params: Mapping[str, Any]) -> Scan | While | Branches | Sharded | None:
    if primitive == "scan":
        body, length, reverse = (params[key] for key in ("jaxpr", "length", "reverse"))
        unrolled = params["unroll"] >= length
        return Scan(_program(body), *scan_counts(params), length, reverse, unrolled)
    if primitive == "while":
        condition, body = _program(params["cond_jaxpr"]), _program(params["body_jaxpr"])
        return While(condition, body, params["cond_nconsts"], params["body_nconsts"])
    if primitive == "cond":
        return Branches(tuple(map(_program, params["branches"])))
    if primitive == "shard_map":
        inputs, outputs = (tuple(map(_parts, params[key])) for key in ("in_specs", "out_specs"))
        if None in (*inputs, *outputs):
            return None
        own = params["newly_manual_axes"]
        mesh = {name: size for name, size in params["mesh"].shape.items() if name in own}
        body = _program(params["jaxpr"])
        return Sharded(body, mesh, inputs, outputs, params["check_vma"])  # type: ignore[arg-type]
    return None


def _parts(spec: Any) -> Places | None:
    """Where the parts are that a `PartitionSpec` names; None for what it may say besides."""
    if not isinstance(spec, PartitionSpec) or spec.unreduced or spec.reduced:
        return None
    named = tuple((i, (x,) if isinstance(x, str) else x) for i, x in enumerate(spec) if x)
    return named if all(isinstance(x, tuple) for _, x in named) else None


def scan_counts(params: Mapping[str, Any]) -> tuple[int, int]:
    """How many of a scan's operands are constants and carries; newer JAX keeps them as a tree."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    constants, carries, _ = (len(group) for group in params["ft_in"].unpack())
    return constants, carries


@functools.cache
def public_primitives() -> Mapping[str, Any]:
    """The primitives that JAX makes public, by name."""
    modules = (jax.lax, jax.lax.linalg, jax_primitives)
    found = (getattr(module, name) for module in modules for name in dir(module))
    return {p.name: p for p in found if is_primitive(p)}


def is_primitive(x: Any) -> bool:
    """Whether `x` is a primitive of JAX, of whatever origin."""
    return isinstance(x, Primitive)


def is_traced(value: Any) -> bool:
    """Whether a value is known to an outer transformation of JAX alone, and not here."""
    return isinstance(value, jax.core.Tracer)


def _literal(a: Any) -> np.ndarray:
    return np.asarray(a.val, a.aval.dtype)


def _shaped(aval: Any) -> Shaped:
    weak = bool(getattr(aval, "weak_type", False))
    return shaped(aval.shape, aval.dtype, _axes(aval), weak)


def _axes(aval: Any) -> frozenset[str]:
    """The axes over which a value may vary, of those of the mesh that is around the program."""
    return _varying(aval) & frozenset(get_abstract_mesh().manual_axes)


def _beyond(aval: Any) -> bool:
    """Whether a value varies over axes of another mesh."""
    return not _varying(aval) <= frozenset(get_abstract_mesh().manual_axes)


def _varying(aval: Any) -> frozenset[str]:
    kind = getattr(aval, "manual_axis_type", None)
    return frozenset() if kind is None else kind.varying


def _as_computed(primitive: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters with every product at the highest precision, whatever its author asked.

    And where indices are promised to be in bounds, with what is computed where they are not; what
    JAX does instead in derivatives and transposes would not fit to that.
    """
    found = dict(params)
    if "precision" in params:
        found["precision"] = (jax.lax.Precision.HIGHEST, jax.lax.Precision.HIGHEST)
    mode = jax.lax.GatherScatterMode
    if params.get("mode") is mode.PROMISE_IN_BOUNDS:
        found["mode"] = mode.CLIP if primitive == "gather" else mode.FILL_OR_DROP
    return found


def _binder(eqn: Any, params: dict[str, Any]) -> Callable[..., tuple[Array, ...]]:
    """What evaluates an equation.

    Inside `jax.shard_map` the operands of a primitive have to vary over the same axes. What a loop,
    a called function or a collective reads has the type with which it was traced.
    """
    primitive = eqn.primitive

    def bind(*values: Array) -> tuple[Array, ...]:
        results = primitive.bind(*values, **primitive.get_bind_params(params))
        return tuple(results) if primitive.multiple_results else (results,)

    if not get_abstract_mesh().manual_axes:
        return bind
    traced = [_axes(v.aval) for v in eqn.invars]
    inside = any(hasattr(x, "eqns") or hasattr(x, "jaxpr") for x in jax.tree.leaves(params))
    typed = inside or _is_collective(eqn)

    def alike(*values: Array) -> tuple[Array, ...]:
        common = frozenset().union(*map(varying, values))
        wanted = traced if typed else [common] * len(values)
        return bind(*map(vary, values, wanted))

    return alike


def caller() -> Source:
    """The innermost caller that is not a library's own; what it computes has no name of its own."""
    return Source(_first((f.f_code, line) for f, line in traceback.walk_stack(None)))


def raised_at(error: BaseException) -> str:
    """`file:line (function)` of the innermost frame of an error that is not a library's own."""
    frames = [(f.f_code, line) for f, line in traceback.walk_tb(error.__traceback__)]
    return _first(reversed(frames))


def _first(frames: Iterable[tuple[CodeType, int]]) -> str:
    for code, line in frames:
        if not _in_library(code.co_filename):
            return f"{code.co_filename}:{line} ({code.co_name})"
    return ""


@functools.cache
def _in_library(file: str) -> bool:
    """Whether a source is Python's own, one of the libraries', or of this package's inside."""
    path = Path(file)
    if path.is_relative_to(_OWN):
        first = path.relative_to(_OWN).parts[0]
        return first.startswith("_") or first == "extend"
    if any(path.is_relative_to(folder) for folder in map(_folder, _LIBRARIES) if folder):
        return True
    ours = any(part in path.parts for part in _INSTALLED)
    return not ours and any(path.is_relative_to(folder) for folder in _STANDARD)


def _folder(package: str) -> Path | None:
    """Where an imported package lies."""
    file = getattr(sys.modules.get(package), "__file__", None)
    return Path(file).parent if file else None


def _source(info: Any) -> Source:
    """The innermost frame that is not a library's own, and the scopes within this program.

    JAX keeps the innermost ten frames or so; the place is empty where the user's are not among
    them.
    """
    scope = str(info.name_stack)
    for frame in getattr(info.traceback, "frames", ()):
        if not _in_library(frame.file_name):
            place = f"{frame.file_name}:{frame.line_num} ({frame.function_name})"
            function = frame.function_name.rpartition("<locals>.")[-1]
            return Source(place, f"{function}:{frame.line_num}", scope)
    return Source(scope=scope)
