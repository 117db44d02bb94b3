"""Which parameters of JAX's primitives are known.

Whoever wrote a record or a rule knew what some parameters say. Any other one says what nobody has
looked at, whether a newer release of JAX has brought it or a function hides in it, which may be any
program. So nobody knows what a primitive with such a parameter computes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SCATTER = "dimension_numbers indices_are_sorted mode unique_indices update_consts update_jaxpr"
_WINDOWS = "window_dimensions window_strides padding base_dilation window_dilation"

# Dots stand for whatever says how something is compiled or where it lives: anything but functions.
_PRIMITIVES: Mapping[str, str] = {
    "all_gather_dimension axis_index_groups axis_name axis_size tiled": "all_gather"
    " all_gather_invariant",
    "axes": "psum_invariant reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum",
    "axes axis_index_groups": "pmax pmin psum",
    "axes index_dtype": "argmax argmin",
    "axis_name": "axis_index",
    "axis": "stack unstack",
    "axis is_stable k": "top_k",
    "axis reverse": "cumlogsumexp cummax cummin cumprod cumsum",
    "axis sizes": "split",
    "body_jaxpr body_nconsts cond_jaxpr cond_nconsts": "while",
    "branches branches_platforms": "cond",
    "conjugate_a left_side lower transpose_a unit_diagonal": "triangular_solve",
    "const_lengths jaxprs": "custom_linear_solve",
    "check_vma in_specs jaxpr manual_axes mesh newly_manual_axes out_specs": "shard_map",
    "broadcast_dimensions shape": "broadcast_in_dim",
    "computation dimensions jaxpr": "reduce",
    "dimension": "concatenate",
    "dimension is_stable num_keys": "sort",
    "dimension_numbers fill_value indices_are_sorted mode slice_sizes unique_indices": "gather",
    "dimension_numbers precision preferred_element_type": "dot_general",
    "dimensions": "rev squeeze",
    "dimensions new_sizes": "reshape",
    "exponent_bits mantissa_bits": "reduce_precision",
    "fft_lengths fft_type": "fft",
    "ft_in ft_out jaxpr length num_carry num_consts reverse unroll": "scan",
    "input_dtype": "conj",
    "limit_indices start_indices strides": "slice",
    "name": "name",
    "new_dtype weak_type": "convert_element_type",
    "padding_config": "pad",
    "perturb_singular": "tridiagonal_solve",
    "permutation": "transpose",
    "reps": "tile",
    "rounding_method": "round",
    "slice_sizes": "dynamic_slice",
    "window_strides padding lhs_dilation rhs_dilation dimension_numbers feature_group_count"
    " batch_group_count precision preferred_element_type": "conv_general_dilated",
    "y": "integer_pow",
    _SCATTER: "scatter scatter-add scatter-max scatter-min scatter-mul scatter-sub",
    _WINDOWS: "reduce_window_max reduce_window_min reduce_window_sum",
    f"{_WINDOWS} consts jaxpr": "reduce_window",
    f"{_WINDOWS} select_prim": "select_and_gather_add select_and_scatter_add",
    "call ... rule": "custom_vmap_call",
    "call_jaxpr ...": "call closed_call eval_jaxpr",
    "call_jaxpr ... jvp_jaxpr_fun": "custom_jvp_call",
    "call_jaxpr ... bwd fwd_jaxpr_thunk out_trees": "custom_vjp_call",
    "ctx_mesh jaxpr ...": "jit",
    "jaxpr ... policy": "remat2",
    "concrete_mesh context_mesh ...": "copy device_put optimization_barrier pvary reshard"
    " sharding_constraint stop_gradient",
}
PARAMETERS: Mapping[str, frozenset[str]] = {
    name: frozenset(parameters.split())
    for parameters, names in _PRIMITIVES.items()
    for name in names.split()
}
"""The parameters that are known, by primitive; those not listed have none."""

_NOTHING: frozenset[str] = frozenset()
_PLACES = frozenset({"out_sharding", "sharding"})


def unread(primitive: str, params: Mapping[str, Any]) -> str | None:
    """A parameter that says something, and is not known; None where there is none."""
    known = PARAMETERS.get(primitive, _NOTHING) | _PLACES
    for name in sorted(params.keys() - known):
        value = params[name]
        empty = value is None or value is False or (isinstance(value, tuple) and not value)
        if _has_function(value) or not (empty or "..." in known):
            return name
    return None


def _has_function(value: Any) -> bool:
    """Whether a parameter is a function, written out or to be called, or holds one."""
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return any(map(_has_function, value))
    called = callable(value) and not isinstance(value, type)
    return called or hasattr(value, "eqns") or hasattr(value, "jaxpr")
