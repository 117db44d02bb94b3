"""The ledger of what has no sound rule yet, with the reason that a user is told.

Every primitive of `jax.lax` is declared in a table of records, resolved by the tracer
(`RESOLVED`), or listed here; a test keeps it so, and a new release of JAX that brings a new
primitive turns that test red.
"""

from __future__ import annotations

_NO_RULE = "there is no rule for it yet"
_INTEGER = "it acts on integers, and a perturbed value is a real number"
_LINALG = (
    "a matrix factorisation of a perturbed matrix is not bounded; of a known matrix A, "
    "`jnp.linalg.solve(A, x)` and `jnp.linalg.inv(A) @ x` are"
)
COMPLEX = (
    "complex numbers are bounded by their parts: return `z.real`, `z.imag` or `jnp.abs(z)`, and "
    "compute them by Fourier transforms, sums, products, quotients and powers"
)
_DEVICES = (
    "communication between devices is not bounded: bound what each of them computes before it, or "
    "the function on one device"
)
_RANDOM = "random bits of a perturbed key have no bounds"
_CALLBACK = "it calls back to Python, where nothing can be bounded"

_BY_REASON: dict[str, str] = {
    _NO_RULE: """
        bessel_i0e bessel_i1e igamma igamma_grad_a igammac polygamma polynomial
        regularized_incomplete_beta select_and_scatter zeta
        hessenberg approx_top_k empty2 get swap stage linear_call custom_lin dce_sink
        """,
    "a parity is known only where every truth value is": "reduce_xor",
    _INTEGER: """
        population_count clz shift_left shift_right_arithmetic
        shift_right_logical bitcast_convert_type iota mulhi
        """,
    _LINALG: """
        cholesky cholesky_update eig eigh householder_product lu lu_pivots_to_permutation ormqr
        qr schur svd symmetric_product triangular_solve tridiagonal tridiagonal_solve
        """,
    COMPLEX: "complex conj fft imag real",
    _DEVICES: """
        all_gather all_gather_invariant all_to_all axis_index pmax pmin ppermute psum psum_invariant
        ragged_all_to_all reduce_scatter
        """,
    _RANDOM: """
        rng_bit_generator rng_uniform random_bits random_fold_in random_gamma random_seed
        random_split threefry2x32
        """,
    _CALLBACK: "pure_callback io_callback debug_callback debug_print",
    "its divisor is perturbed, or it acts on integers": "rem",
    "its function is none of add, mul, max, min, and, or of one array": "reduce reduce_window",
    "its values must be real numbers, its function its own, and its indices known while the "
    "function is traced": """
        scatter-max scatter-min scatter-mul
        """,
    "a window that lies in the padding alone has no largest entry": """
        reduce_window_max reduce_window_min
        """,
    "the places of the largest entries depend on perturbed values; only its values are bounded": """
        top_k
        """,
    "tokens order effects and carry no value": "after_all create_token",
}

UNSUPPORTED: dict[str, str] = {
    name: reason for reason, names in _BY_REASON.items() for name in names.split()
}
