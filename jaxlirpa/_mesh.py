"""Values that may differ between the devices of a mesh, inside `jax.shard_map`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import ManualAxisType, NamedSharding, PartitionSpec, get_abstract_mesh

from jaxlirpa._types import Array, Shaped


def varying(x: Any) -> frozenset[str]:
    """The axes of a mesh over which `x`, inside `jax.shard_map`, may differ between devices."""
    found = x if isinstance(x, Shaped) else jax.typeof(x)
    kind = getattr(found, "manual_axis_type", None)
    return frozenset() if kind is None else kind.varying


def vary(x: Array, axes: frozenset[str]) -> Array:
    """`x` as a value that may differ between devices over some axes; elsewhere it is `x` itself."""
    missing = axes - varying(x) if axes else axes
    return jax.lax.pcast(x, tuple(sorted(missing)), to="varying") if missing else x


def shaped(shape: Sequence[int], dtype: Any, axes: frozenset[str], weak: bool = False) -> Shaped:
    """The type of arrays that may differ between devices over some axes."""
    if not axes:
        return jax.ShapeDtypeStruct(shape, dtype, weak_type=weak)
    return jax.ShapeDtypeStruct(
        shape,
        dtype,
        weak_type=weak,
        sharding=NamedSharding(get_abstract_mesh(), PartitionSpec()),
        manual_axis_type=ManualAxisType(varying=axes),
    )
